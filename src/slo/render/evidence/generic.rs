//! What alerts of the generic rules say: the same, with the objective's own words taken from the alert's labels.
//!
//! Out: templates. Invariant: as of rendered objectives; nothing about one objective stands in the text.

use super::super::super::burn::{Range, Severity};
use super::super::super::config::Defaults;
use super::super::promql::Bound;
use super::{Annotations, KNOWN_INTENT, UNKNOWN_INTENT, runbook};

const SUBJECT: &str = "{{ $labels.namespace }}/{{ $labels.workload }}";
const OBJECTIVE: &str = "{{ $labels.sli }} SLO {{ $labels.objective }} over {{ $labels.window }}";

/// A query in a template; labels of the alert stand where `query` says `%q`, in this order.
fn ask(query: &str, labels: &[&str]) -> String {
    let labels: Vec<String> = labels.iter().map(|label| format!("$labels.{label}")).collect();
    format!("query (printf `{query}` {})", labels.join(" "))
}

fn with(query: &str, labels: &[&str], text: &str) -> String {
    format!("{{{{ with {} }}}}{text}{{{{ end }}}}", ask(query, labels))
}

/// The worst three by one label; of latency objectives where the histogram has a bucket at the threshold.
fn list(label: &str, range: Range) -> String {
    let matchers = "cluster=%q,namespace=%q,workload=%q";
    let place = ["cluster", "namespace", "workload"];
    let errors = format!(
        "topk(3, sum by ({label}) (increase(red_requests_total{{{matchers},code_class=\"5xx\"}}[{range}])) > 0)"
    );
    let bucket = |le: &str| {
        format!(
            "sum by ({label}) (increase(red_request_duration_seconds_bucket{{{matchers},le={le}}}[{range}]))"
        )
    };
    let slow = format!("topk(3, {} - {} > 0)", bucket("\"+Inf\""), bucket("%q"));
    let slow_labels = [&place[..], &place[..], &["threshold_seconds"]].concat();
    let each = format!("{{{{ .Labels.{label} }}}} {{{{ printf \"%.0f\" .Value }}}}; ");
    format!(
        "{{{{ if eq $labels.sli \"latency\" }}}}{{{{ range {} }}}}{each}{{{{ end }}}}{{{{ else }}}}{{{{ range {} }}}}{each}{{{{ end \
         }}}}{{{{ end }}}}",
        ask(&slow, &slow_labels),
        ask(&errors, &place)
    )
}

/// LogQL for the lines of the workload.
fn lines() -> String {
    let service = ask(
        "topk(1, sum by (service) (count_over_time(red_requests_total{cluster=%q,namespace=%q,workload=%q}[1h])))",
        &["cluster", "namespace", "workload"],
    );
    format!(
        "{{namespace=\"{{{{ $labels.namespace }}}}\"{{{{ range {service} }}}}, service_name={{{{ printf `%q` .Labels.service \
         }}}}{{{{ end }}}}}}"
    )
}

/// LogQL for those of bad requests.
fn logs() -> String {
    format!(
        "{} | {{{{ if eq $labels.sli \"latency\" }}}}duration_ms > {{{{ with query (printf `vector(%s * 1000)` \
         $labels.threshold_seconds) }}}}{{{{ . | first | value }}}}{{{{ end }}}}{{{{ else }}}}http_status =~ \"5..\"{{{{ end }}}}",
        lines()
    )
}

fn dashboard(defaults: &Defaults) -> String {
    format!(
        "{}/d/nodewick-slo-detail?var-cluster={{{{ $labels.cluster }}}}&var-slo_id={{{{ $labels.slo_id }}}}",
        defaults.grafana_url.trim_end_matches('/')
    )
}

fn losses(ratio: &str) -> String {
    let share = "slo_confidence_ratio{cluster=%q,namespace=%q,workload=%q}";
    let place = ["cluster", "namespace", "workload"];
    let id = ["cluster", "slo_id"];
    let least = format!("{ratio} * scalar(min({share}))");
    let most = format!("{least} + 1 - scalar(min({share}))");
    let value =
        |query: &str, labels: &[&str]| with(query, labels, "{{ . | first | value | humanizePercentage }}");
    format!(
        "{{{{ range {} }}}} On node {{{{ .Labels.node }}}} only {{{{ .Value | humanizePercentage }}}} of its log lines of the last \
         hour could be read.{{{{ end }}}}{}",
        ask(&format!("min by (node) ({share}) < 1"), &place),
        with(
            &format!("min({share}) < 1"),
            &place,
            &format!(
                " The true share of bad requests lies between {} and {}.",
                value(&least, &[&id[..], &place[..]].concat()),
                value(&most, &[&id[..], &place[..], &place[..]].concat())
            )
        )
    )
}

/// Annotations of both burn alerts.
pub(in super::super) fn burn(defaults: &Defaults, severity: Severity) -> Annotations {
    let (alert, range, at, slowly) = match severity {
        Severity::Page => ("SLOErrorBudgetBurn", Range::H1, Bound::Optimistic, ""),
        Severity::Ticket => ("SLOErrorBudgetBurnSlow", Range::H6, Bound::Pessimistic, " slowly"),
    };
    let own = "{cluster=%q,slo_id=%q}";
    let id = ["cluster", "slo_id"];
    let twice = [&id[..], &id[..]].concat();
    let ratio = format!("{}{range}{own}", at.ratio());
    let burn = format!("{ratio} / slo:error_budget:ratio{own}");
    let left = format!("slo:error_budget_remaining:ratio{own}");
    let time = format!("scalar({left} > 0) * scalar(slo:time_period:days{own}) * 86400 / ({burn} > 0) > 0");
    let description = format!(
        "{}{}{}{}",
        with(
            &burn,
            &twice,
            &format!(
                "Over {range} the error budget burns {{{{ . | first | value | printf \"%.1f\" }}}} times as fast as allowed. "
            )
        ),
        with(
            &left,
            &id,
            "Of the {{ $labels.window }} budget {{ . | first | value | humanizePercentage }} is left. "
        ),
        with(
            &time,
            &[&twice[..], &twice[..]].concat(),
            "At this rate it is gone in {{ . | first | value | humanizeDuration }}."
        ),
        losses(&ratio),
    );
    let mut found = vec![
        ("summary", format!("{SUBJECT}: {OBJECTIVE} is burning{slowly}")),
        ("description", description),
        ("top_routes", list("route", range)),
        ("worst_pods", list("pod", range)),
    ];
    if defaults.trace_evidence {
        let query = ask(&format!("topk(5, max by (trace_id) (slo_sample_trace_info{own}))"), &id);
        found.push((
            "sample_trace_ids",
            format!("{{{{ range {query} }}}}{{{{ .Labels.trace_id }}}} {{{{ end }}}}"),
        ));
    }
    found.extend([
        ("logs_query", logs()),
        ("dashboard_url", dashboard(defaults)),
        ("runbook_url", runbook(defaults, alert)),
    ]);
    found
}

/// Annotations of `SLOTrafficVanished`.
pub(in super::super) fn vanished(defaults: &Defaults) -> Annotations {
    let intent = if defaults.kube_state_metrics { KNOWN_INTENT } else { UNKNOWN_INTENT };
    vec![
        ("summary", format!("{SUBJECT} had traffic in the last hour and now has none or no data")),
        (
            "description",
            format!(
                "Either nothing is asked of it any more, or nothing of it is left that could answer, or nothing measures it. {intent}"
            ),
        ),
        ("logs_query", lines()),
        ("dashboard_url", dashboard(defaults)),
        ("runbook_url", runbook(defaults, "SLOTrafficVanished")),
    ]
}

/// Annotations of `SLONoData`.
pub(in super::super) fn no_data(defaults: &Defaults) -> Annotations {
    vec![
        ("summary", format!("{SUBJECT}: {OBJECTIVE} has no data")),
        (
            "description",
            "It is declared, and not one request of it was counted in three days: its budget is unknown, not full.".into(),
        ),
        ("runbook_url", runbook(defaults, "SLONoData")),
    ]
}

/// Annotations of `SLOBucketMismatch`.
pub(in super::super) fn bucket(defaults: &Defaults) -> Annotations {
    let threshold = "{{ $labels.threshold_seconds }}";
    vec![
        (
            "summary",
            format!(
                "{SUBJECT}: {OBJECTIVE} is measured between the buckets {{{{ $labels.lower }}}} and {{{{ $labels.upper }}}}, its \
                 histogram has no bucket {threshold}"
            ),
        ),
        (
            "description",
            format!(
                "Until it has its own, pages and the budget count what is slower than {{{{ $labels.upper }}}} s, and tickets all that \
                 is slower than {{{{ $labels.lower }}}} s. Add the bucket {threshold} to the application's histogram, or let the agent \
                 count its access lines ([red] source = \"log\")."
            ),
        ),
        ("runbook_url", runbook(defaults, "SLOBucketMismatch")),
    ]
}
