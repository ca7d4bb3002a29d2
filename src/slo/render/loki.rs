//! Rule file for Loki's ruler: the pages, from access lines alone.
//!
//! In: specs. Out: one group an objective with mode `alert`. For sites without a Prometheus: it has no tickets and no
//! budget, as ranges of days over lines are too much for a ruler.
//! Invariant: requests are told by structured metadata, never by the text of a line, and within one stream selector: a log of
//! the query itself, such as Loki's own, cannot match.

use std::fmt::Write as _;

use super::super::burn::{Range, Severity, TIERS};
use super::super::config::Defaults;
use super::super::number::shortest;
use super::super::spec::{Sli, Spec};
use super::promql::{literal, quoted};
use super::rules::title;
use super::{HEADER, Urgency, alerting, evidence, yaml};

const ABOUT: &str = "\
# For sites where no Prometheus evaluates rules/*.yaml; load one of both. `service_name` is the workload's name
# unless the objective says match.service.
";

/// A value that is no number passes a comparison, with an error that would fail the whole query. Source: Loki 3, "LogQL", label
/// filter expressions and pipeline errors.
const NO_ERROR: &str = "| __error__ = \"\"";

pub(super) fn file(specs: &[Spec], defaults: &Defaults) -> String {
    let mut out = format!("{HEADER}{ABOUT}");
    if alerting(specs).next().is_none() {
        out.push_str("groups: []\n");
        return out;
    }
    out.push_str("groups:\n");
    for spec in alerting(specs) {
        let _ = write!(
            out,
            "- name: {}\n  interval: 1m\n  rules:\n  - alert: SLOErrorBudgetBurn\n    expr: {}\n    labels:\n",
            yaml::scalar(&format!("slo:{}:lines", spec.id())),
            yaml::value(&expression(spec), 6)
        );
        let mut labels = vec![
            ("severity", Urgency::Page.name(defaults.severities).to_owned()),
            ("slo", spec.name.clone()),
            ("slo_id", spec.id()),
        ];
        if !spec.owner.is_empty() {
            labels.push(("owner", spec.owner.clone()));
        }
        for (name, value) in labels {
            let _ = writeln!(out, "      {name}: {}", yaml::scalar(&value));
        }
        let selector = &spec.selector;
        let summary = format!("{}/{}: {} is burning", selector.namespace, selector.subject(), title(spec));
        let _ = write!(
            out,
            "    annotations:\n      summary: {}\n      runbook_url: {}\n",
            yaml::scalar(&summary),
            yaml::scalar(&evidence::runbook_of(spec, defaults, "SLOErrorBudgetBurn"))
        );
    }
    out
}

fn expression(spec: &Spec) -> String {
    let tiers = TIERS.iter().filter(|tier| tier.severity == Severity::Page);
    let tiers = tiers.map(|tier| {
        let threshold = shortest(tier.threshold(spec.window, spec.objective));
        let ratio = |range| format!("{} / {}", count(spec, range, true), count(spec, range, false));
        format!(
            "(\n  {} > {threshold}\n  and {} > {threshold}\n  and {} >= {}\n)",
            ratio(tier.short),
            ratio(tier.long),
            count(spec, tier.long, true),
            spec.page_min_bad_events
        )
    });
    tiers.collect::<Vec<_>>().join("\nor\n")
}

/// Requests of a range, the bad ones alone or all.
fn count(spec: &Spec, range: Range, bad: bool) -> String {
    let selector = &spec.selector;
    let service = selector.service.as_deref().unwrap_or(selector.subject());
    let mut pipeline = match (spec.sli, bad) {
        (Sli::Availability, true) => "| http_status =~ \"5..\"".to_owned(),
        (Sli::Availability, false) => "| http_status != \"\"".to_owned(),
        (Sli::Latency { threshold }, true) => {
            format!("| duration_ms > {} {NO_ERROR}", shortest(threshold.as_secs_f64() * 1e3))
        }
        (Sli::Latency { .. }, false) => format!("| duration_ms >= 0 {NO_ERROR}"),
    };
    if let Some(route) = &selector.route {
        let _ = write!(pipeline, " | http_route = {}", quoted(route));
    } else if !spec.exclude_routes.is_empty() {
        let routes: Vec<String> = spec.exclude_routes.iter().map(|route| literal(route)).collect();
        let _ = write!(pipeline, " | http_route !~ {}", quoted(&routes.join("|")));
    }
    format!(
        "sum by (cluster, namespace) (count_over_time({{namespace={}, service_name={}}} {pipeline} [{range}]))",
        quoted(&selector.namespace),
        quoted(service)
    )
}
