//! What an alert says: not only that something burns, but what burns it, how long the budget lasts, and where to look.
//!
//! In: a [`Spec`]. Out: annotations as templates that Prometheus fills in when it fires, by its own `query` function.
//! Invariant: a query that finds nothing leaves its words out; no template fails.

use super::super::burn::Range;
use super::super::config::Defaults;
use super::super::spec::{Sli, Spec};
use super::promql::{self, quoted};
use super::rules::title;

type Annotations = Vec<(&'static str, String)>;

/// A query in a template, with the alert's own cluster filled in where `query` says `%q`.
fn ask(query: &str) -> String {
    format!("query (printf `{query}` {})", vec!["$labels.cluster"; query.matches("%q").count()].join(" "))
}

/// Percent signs of names are no verbs of `printf`.
fn plain(text: &str) -> String {
    text.replace('%', "%%")
}

fn subject(spec: &Spec) -> String {
    format!("{}/{}", spec.selector.namespace, spec.selector.subject())
}

/// Address of the page about an alert.
pub(super) fn runbook(defaults: &Defaults, alert: &str) -> String {
    format!("{}/{alert}.md", defaults.runbook_url.trim_end_matches('/'))
}

pub(super) fn runbook_of(spec: &Spec, defaults: &Defaults, alert: &str) -> String {
    if spec.runbook.is_empty() { runbook(defaults, alert) } else { spec.runbook.clone() }
}

fn dashboard(spec: &Spec, defaults: &Defaults) -> String {
    let id: String = spec.id().bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    });
    format!(
        "{}/d/nodewick-slo-detail?var-cluster={{{{ $labels.cluster }}}}&var-slo_id={id}",
        defaults.grafana_url.trim_end_matches('/')
    )
}

/// LogQL for the lines behind it. The service is what the workload's own series say.
fn logs(spec: &Spec) -> String {
    let service = match &spec.selector.service {
        Some(service) => format!(", service_name={}", quoted(service)),
        None => {
            let matchers = plain(&promql::matchers(spec));
            let query = format!(
                "topk(1, sum by (service) (count_over_time(red_requests_total{{cluster=%q,{matchers}}}[1h])))"
            );
            format!(
                "{{{{ range {} }}}}, service_name={{{{ printf `%q` .Labels.service }}}}{{{{ end }}}}",
                ask(&query)
            )
        }
    };
    let filter = match spec.sli {
        Sli::Availability => "http_status =~ `5..`".to_owned(),
        Sli::Latency { threshold } => {
            format!("duration_ms > {}", super::super::number::shortest(threshold.as_secs_f64() * 1e3))
        }
    };
    // Backticks would end the template's own strings nowhere: this text is outside of them.
    let filter = filter.replace('`', "\"");
    format!("{{namespace={}{service}}} | {filter}", quoted(&spec.selector.namespace))
}

fn list(spec: &Spec, label: &str, range: Range) -> String {
    // The matchers hold names, so the query is put together with the verb in place of the cluster.
    let query = promql::worst(spec, label, "\u{0}", range);
    let query = plain(&query).replace('\u{0}', "%q");
    format!(
        "{{{{ range {} }}}}{{{{ .Labels.{label} }}}} {{{{ printf \"%.0f\" .Value }}}}; {{{{ end }}}}",
        ask(&query)
    )
}

/// Annotations of both burn alerts; `range` is what evidence is taken from.
pub(super) fn burn(spec: &Spec, defaults: &Defaults, alert: &str, range: Range) -> Annotations {
    let own = format!("{{cluster=%q,slo_id={}}}", plain(&quoted(&spec.id())));
    let burn = format!("slo:burn_rate:ratio_rate{range}{own}");
    let left = format!("slo:error_budget_remaining:ratio{own}");
    let seconds = u64::from(spec.window.minutes()) * 60;
    let time = format!("({left} > 0) * {seconds} / ({burn} > 0)");
    let with = |query: &str, text: &str| format!("{{{{ with {} }}}}{text}{{{{ end }}}}", ask(query));
    let slowly = if range == Range::H1 { "" } else { " slowly" };
    let description = format!(
        "{}{}{}",
        with(
            &burn,
            &format!(
                "Over {range} the error budget burns {{{{ . | first | value | printf \"%.1f\" }}}} times as fast as allowed. "
            )
        ),
        with(
            &left,
            &format!(
                "Of the {} budget {{{{ . | first | value | humanizePercentage }}}} is left. ",
                spec.window
            )
        ),
        with(&time, "At this rate it is gone in {{ . | first | value | humanizeDuration }}."),
    );
    vec![
        ("summary", format!("{}: {} is burning{slowly}", subject(spec), title(spec))),
        ("description", description),
        ("top_routes", list(spec, "route", range)),
        ("worst_pods", list(spec, "pod", range)),
        ("logs_query", logs(spec)),
        ("dashboard_url", dashboard(spec, defaults)),
        ("runbook_url", runbook_of(spec, defaults, alert)),
    ]
}

/// Annotations of `SLOTrafficVanished`.
pub(super) fn vanished(spec: &Spec, defaults: &Defaults) -> Annotations {
    vec![
        ("summary", format!("{} had traffic in the last hour and now has none or no data", subject(spec))),
        (
            "description",
            "Either nothing is asked of it any more, or nothing of it is left that could answer, or nothing measures it. \
             The alert does not know of a workload that was scaled to zero on purpose: silence it, or remove the objective."
                .into(),
        ),
        ("logs_query", logs(spec)),
        ("dashboard_url", dashboard(spec, defaults)),
        ("runbook_url", runbook_of(spec, defaults, "SLOTrafficVanished")),
    ]
}

/// Annotations of `SLOLowTraffic`.
pub(super) fn low_traffic(spec: &Spec, defaults: &Defaults) -> Annotations {
    vec![
        ("summary", format!("{}: too few requests for {} to page", subject(spec), title(spec))),
        (
            "description",
            format!(
                "In six hours it had {{{{ printf \"%.0f\" $value }}}} requests; a page needs {} bad ones. Add synthetic requests, \
                 join services under one objective, or lower page_min_bad_events.",
                spec.page_min_bad_events
            ),
        ),
        ("runbook_url", runbook(defaults, "SLOLowTraffic")),
    ]
}

/// Annotations of `SLOBucketMismatch`.
pub(super) fn bucket(spec: &Spec, defaults: &Defaults, bound: &str) -> Annotations {
    vec![
        (
            "summary",
            format!(
                "{}: {} cannot be measured, its histogram has no bucket {bound}",
                subject(spec),
                title(spec)
            ),
        ),
        (
            "description",
            format!(
                "Requests are counted, but not against {bound} s, so this objective has no data. Add the bucket {bound} to the \
                 application's histogram, or let the agent count its access lines ([red] source = \"log\")."
            ),
        ),
        ("runbook_url", runbook(defaults, "SLOBucketMismatch")),
    ]
}
