//! What Sloth's public dashboards (14348 "SLO / Detail", 14643 "High level Sloth SLOs") ask for beside the names that our
//! records have anyway.
//!
//! In: an [`Objective`]. Out: labels for records and alerts, and the records that only Sloth knows; nothing without
//! `[slo.defaults] sloth_labels`. Invariant: the counts of five minutes, which a budget is summed from, never have these
//! labels, so that a budget goes on when they are switched on or off.
//!
//! The dashboards choose by `sloth_service` and `sloth_slo` of `slo:objective:ratio`, and read `sloth_slo_info`,
//! `slo:sli_error:ratio_rate<window>`, `slo:error_budget:ratio` (joined on `sloth_id`), `slo:current_burn_rate:ratio`,
//! `slo:period_error_budget_remaining:ratio` and `ALERTS` by `sloth_severity`. No query of theirs looks at `sloth_window`,
//! which would keep our own ranges from being joined.

use super::super::number::shortest;
use super::Urgency;
use super::rules::{Objective, Rule};

type Labels = Vec<(&'static str, String)>;

/// Labels that name the objective to Sloth's dashboards.
pub(super) fn labels(of: &Objective) -> Labels {
    if !of.defaults.sloth_labels {
        return Vec::new();
    }
    let selector = &of.spec.selector;
    vec![
        ("sloth_id", of.id.clone()),
        ("sloth_service", format!("{}/{}", selector.namespace, selector.subject())),
        ("sloth_slo", of.spec.name.clone()),
    ]
}

/// The same of an alert.
pub(super) fn alert_labels(of: &Objective, urgency: Urgency) -> Labels {
    let severity = match urgency {
        Urgency::Page => "page",
        Urgency::Ticket => "ticket",
        Urgency::Info => return Vec::new(),
    };
    let mut labels = labels(of);
    if !labels.is_empty() {
        labels.push(("sloth_severity", severity.to_owned()));
    }
    labels
}

/// Records that only Sloth's dashboards read.
pub(super) fn records(of: &Objective) -> Vec<Rule> {
    let labels = labels(of);
    if labels.is_empty() {
        return Vec::new();
    }
    let budget = shortest(of.spec.objective.budget());
    let left = of.series("slo:error_budget_remaining:ratio");
    let info = [
        labels.clone(),
        vec![
            ("sloth_mode", "nodewick".to_owned()),
            ("sloth_objective", shortest(of.spec.objective.ratio() * 100.0)),
        ],
    ];
    vec![
        Rule::record(
            "slo:current_burn_rate:ratio".into(),
            format!("{} / {budget}", of.series("slo:sli_error:ratio_rate5m")),
            labels.clone(),
        ),
        Rule::record("slo:period_burn_rate:ratio".into(), format!("1 - {left}"), labels.clone()),
        Rule::record("slo:period_error_budget_remaining:ratio".into(), left, labels),
        Rule::record("sloth_slo_info".into(), "vector(1)".into(), info.concat()),
    ]
}
