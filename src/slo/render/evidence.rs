//! What an alert says: not only that something burns, but what burns it, how long the budget lasts, and where to look.
//!
//! In: a [`Spec`]. Out: annotations as templates that Prometheus fills in when it fires, by its own `query` function.
//! Invariant: a query that finds nothing leaves its words out; no template fails.

use super::super::burn::{Range, Severity};
use super::super::config::Defaults;
use super::super::number::shortest;
use super::super::spec::{Sli, Spec};
use super::promql::{self, Bound, quoted};
use super::rules::title;

pub(super) mod generic;

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
            format!("duration_ms > {}", shortest(threshold.as_secs_f64() * 1e3))
        }
    };
    // Backticks would end the template's own strings nowhere: this text is outside of them.
    let filter = filter.replace('`', "\"");
    format!("{{namespace={}{service}}} | {filter}", quoted(&spec.selector.namespace))
}

fn list(spec: &Spec, label: &str, at: Bound, range: Range) -> String {
    // The matchers hold names, so the query is put together with the verb in place of the cluster.
    let query = promql::worst(spec, label, "\u{0}", at, range);
    let query = plain(&query).replace('\u{0}', "%q");
    format!(
        "{{{{ range {} }}}}{{{{ .Labels.{label} }}}} {{{{ printf \"%.0f\" .Value }}}}; {{{{ end }}}}",
        ask(&query)
    )
}

fn with(query: &str, text: &str) -> String {
    format!("{{{{ with {} }}}}{text}{{{{ end }}}}", ask(query))
}

/// What lines that were lost do to the figure: those of each node, and between what the share of bad requests lies.
fn losses(spec: &Spec, ratio: &str) -> String {
    let selector = &spec.selector;
    let namespace = plain(&quoted(&selector.namespace));
    let share = match &selector.workload {
        Some(workload) => format!(
            "slo_confidence_ratio{{cluster=%q,namespace={namespace},workload={}}}",
            plain(&quoted(workload))
        ),
        None => format!(
            "(slo_confidence_ratio{{cluster=%q,namespace={namespace}}} and on (namespace, workload) red_requests_total{{{}}})",
            plain(&promql::matchers(spec))
        ),
    };
    let node = format!(
        "{{{{ range {} }}}} On node {{{{ .Labels.node }}}} only {{{{ .Value | humanizePercentage }}}} of its log lines of the last \
         hour could be read.{{{{ end }}}}",
        ask(&format!("min by (node) ({share}) < 1"))
    );
    let least = format!("{ratio} * scalar(min({share}))");
    let most = format!("{least} + 1 - scalar(min({share}))");
    let value = |query: &str| with(query, "{{ . | first | value | humanizePercentage }}");
    let between = with(
        &format!("min({share}) < 1"),
        &format!(" The true share of bad requests lies between {} and {}.", value(&least), value(&most)),
    );
    format!("{node}{between}")
}

/// Between which buckets the threshold lies, if it has none of its own.
fn bracket(spec: &Spec, at: Bound) -> String {
    let query = format!(
        "max by (lower, upper) (slo_bracket_info{{cluster=%q,slo_id={}}})",
        plain(&quoted(&spec.id()))
    );
    let counted = match at {
        Bound::Optimistic => "what is slower than {{ .Labels.upper }} s, so it is at least as bad",
        Bound::Pessimistic => "all that is slower than {{ .Labels.lower }} s, so it may be less bad",
    };
    format!(
        "{{{{ range {} }}}} Its histogram has no bucket at the threshold: counted is {counted}.{{{{ end }}}}",
        ask(&query)
    )
}

/// Annotations of both burn alerts.
pub(super) fn burn(spec: &Spec, defaults: &Defaults, severity: Severity) -> Annotations {
    let is_bracketed = matches!(spec.sli, Sli::Latency { .. }) && spec.is_counted();
    let (alert, range, at, slowly) = match severity {
        Severity::Page => ("SLOErrorBudgetBurn", Range::H1, Bound::Optimistic, ""),
        Severity::Ticket if is_bracketed => {
            ("SLOErrorBudgetBurnSlow", Range::H6, Bound::Pessimistic, " slowly")
        }
        Severity::Ticket => ("SLOErrorBudgetBurnSlow", Range::H6, Bound::Optimistic, " slowly"),
    };
    let own = format!("{{cluster=%q,slo_id={}}}", plain(&quoted(&spec.id())));
    let ratio = format!("{}{range}{own}", at.ratio());
    let burn = match at {
        Bound::Optimistic => format!("slo:burn_rate:ratio_rate{range}{own}"),
        Bound::Pessimistic => format!("{ratio} / {}", shortest(spec.objective.budget())),
    };
    let left = format!("slo:error_budget_remaining:ratio{own}");
    let seconds = u64::from(spec.window.minutes()) * 60;
    // Two queries of one objective, whatever else their labels say.
    let time = format!("scalar({left} > 0) * {seconds} / ({burn} > 0)");
    let mut description = format!(
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
        with(
            &format!("{time} > 0"),
            "At this rate it is gone in {{ . | first | value | humanizeDuration }}."
        ),
    );
    if is_bracketed {
        description.push_str(&bracket(spec, at));
    }
    description.push_str(&losses(spec, &ratio));
    let mut found = vec![
        ("summary", format!("{}: {} is burning{slowly}", subject(spec), title(spec))),
        ("description", description),
        ("top_routes", list(spec, "route", at, range)),
        ("worst_pods", list(spec, "pod", at, range)),
    ];
    if defaults.trace_evidence {
        let query = format!("topk(5, max by (trace_id) (slo_sample_trace_info{own}))");
        let list = format!("{{{{ range {} }}}}{{{{ .Labels.trace_id }}}} {{{{ end }}}}", ask(&query));
        found.push(("sample_trace_ids", list));
    }
    found.extend([
        ("logs_query", logs(spec)),
        ("dashboard_url", dashboard(spec, defaults)),
        ("runbook_url", runbook_of(spec, defaults, alert)),
    ]);
    found
}

/// What the alert knows of replicas that somebody wanted to be none.
pub(super) const UNKNOWN_INTENT: &str = "The alert does not know of a workload that was scaled to zero on purpose: silence it, or remove the objective.";
pub(super) const KNOWN_INTENT: &str =
    "By kube-state-metrics it was not scaled to zero, or kube-state-metrics says nothing of it.";

/// Annotations of `SLOTrafficVanished`.
pub(super) fn vanished(spec: &Spec, defaults: &Defaults) -> Annotations {
    let intent = if !defaults.kube_state_metrics {
        UNKNOWN_INTENT
    } else if spec.selector.workload.is_some() {
        KNOWN_INTENT
    } else {
        "It is of a service, so the alert does not know of workloads that were scaled to zero on purpose."
    };
    vec![
        ("summary", format!("{} had traffic in the last hour and now has none or no data", subject(spec))),
        (
            "description",
            format!(
                "Either nothing is asked of it any more, or nothing of it is left that could answer, or nothing measures it. {intent}"
            ),
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

/// Annotations of `SLONoData`.
pub(super) fn no_data(spec: &Spec, defaults: &Defaults) -> Annotations {
    vec![
        ("summary", format!("{}: {} has no data", subject(spec), title(spec))),
        (
            "description",
            "It is declared, and not one request of it was counted in three days: its budget is unknown, not full. Compare what the \
             objective matches with the labels of red_requests_total."
                .into(),
        ),
        ("runbook_url", runbook(defaults, "SLONoData")),
    ]
}

/// Annotations of `SLOBucketMismatch`: with neighbours where it is measured between them, without where it is not measured.
pub(super) fn bucket(spec: &Spec, defaults: &Defaults, bound: &str) -> Annotations {
    let add = format!(
        "Add the bucket {bound} to the application's histogram, or let the agent count its access lines ([red] source = \"log\")."
    );
    vec![
        (
            "summary",
            format!(
                "{}: {} {{{{ if $labels.upper }}}}is measured between the buckets {{{{ $labels.lower }}}} and {{{{ $labels.upper \
                 }}}}{{{{ else }}}}cannot be measured{{{{ end }}}}, its histogram has no bucket {bound}",
                subject(spec),
                title(spec)
            ),
        ),
        (
            "description",
            format!(
                "{{{{ if $labels.upper }}}}Its buckets around {bound} s are {{{{ $labels.lower }}}} and {{{{ $labels.upper }}}}. Until it \
                 has its own, pages and the budget count what is slower than {{{{ $labels.upper }}}} s, and tickets all that is slower \
                 than {{{{ $labels.lower }}}} s.{{{{ else }}}}Requests are counted, but not against {bound} s, so this objective has no \
                 data.{{{{ end }}}} {add}"
            ),
        ),
        ("runbook_url", runbook(defaults, "SLOBucketMismatch")),
    ]
}
