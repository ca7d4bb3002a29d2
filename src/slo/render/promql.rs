//! Expressions over the agent's canonical families.
//!
//! In: a [`Spec`]. Out: PromQL for its events and errors over a range, from the source that counts them best.
//! Invariant: events and errors of one range come from the same source, and errors are 0, not absent, where there are
//! events; where the source cannot tell good from bad, both are absent.

use super::super::burn::Range;
use super::super::number::shortest;
use super::super::spec::{Sli, Spec};

const REQUESTS: &str = "red_requests_total";
const BUCKET: &str = "red_request_duration_seconds_bucket";
const COUNTED: &str = "slo_events_total";

/// A text as a PromQL string.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A text as a part of a regular expression (RE2).
pub(super) fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

/// The labels that an objective's series keep, for `by` and `on`.
pub(super) fn labels(spec: &Spec) -> String {
    format!("cluster, namespace, {}", spec.selector.subject_label())
}

/// Matchers of the requests that have a say, without braces.
pub(super) fn matchers(spec: &Spec) -> String {
    let selector = &spec.selector;
    let mut found = vec![format!("namespace={}", quoted(&selector.namespace))];
    for (name, value) in
        [("workload", &selector.workload), ("service", &selector.service), ("route", &selector.route)]
    {
        found.extend(value.as_ref().map(|value| format!("{name}={}", quoted(value))));
    }
    if !spec.exclude_routes.is_empty() && selector.route.is_none() {
        let routes: Vec<String> = spec.exclude_routes.iter().map(|route| literal(route)).collect();
        found.push(format!("route!~{}", quoted(&routes.join("|"))));
    }
    found.join(",")
}

/// The bound of a latency objective as the label `le` has it.
pub(super) fn bound(threshold: std::time::Duration) -> String {
    shortest(threshold.as_secs_f64())
}

/// One family, summed over everything that an objective does not tell apart.
fn sum(by: &str, family: &str, matchers: &str, range: Range) -> String {
    format!("sum by ({by}) (increase({family}{{{matchers}}}[{range}]))")
}

/// What `slo_events_total` is asked for.
fn counted(spec: &Spec, result: &str) -> String {
    let workload = spec.selector.workload.as_deref().unwrap_or_default();
    format!(
        "slo_id={},namespace={},workload={}{result}",
        quoted(&spec.id()),
        quoted(&spec.selector.namespace),
        quoted(workload)
    )
}

/// All events of a range.
pub(super) fn events(spec: &Spec, range: Range) -> String {
    let by = labels(spec);
    let matchers = matchers(spec);
    match spec.sli {
        Sli::Availability => sum(&by, REQUESTS, &matchers, range),
        Sli::Latency { threshold } => {
            let all = sum(&by, BUCKET, &format!("{matchers},le=\"+Inf\""), range);
            let good = sum(&by, BUCKET, &format!("{matchers},le={}", quoted(&bound(threshold))), range);
            let measured = format!("({all} and {good})");
            if spec.is_counted() {
                format!("{}\nor\n{measured}", sum(&by, COUNTED, &counted(spec, ""), range))
            } else {
                measured
            }
        }
    }
}

/// The bad events of a range.
pub(super) fn errors(spec: &Spec, range: Range) -> String {
    let by = labels(spec);
    let matchers = matchers(spec);
    match spec.sli {
        Sli::Availability => {
            let bad = sum(&by, REQUESTS, &format!("{matchers},code_class=\"5xx\""), range);
            format!("{bad}\nor\n0 * {}", sum(&by, REQUESTS, &matchers, range))
        }
        Sli::Latency { threshold } => {
            let all = sum(&by, BUCKET, &format!("{matchers},le=\"+Inf\""), range);
            let good = sum(&by, BUCKET, &format!("{matchers},le={}", quoted(&bound(threshold))), range);
            // Two extrapolations can differ by less than one event.
            let measured = format!("clamp_min({all} - {good}, 0)");
            if spec.is_counted() {
                let bad = sum(&by, COUNTED, &counted(spec, ",result=\"bad\""), range);
                format!("{bad}\nor\n{measured}")
            } else {
                measured
            }
        }
    }
}

/// Bad events of a range by one label, the worst three.
pub(super) fn worst(spec: &Spec, label: &str, cluster: &str, range: Range) -> String {
    let matchers = format!("cluster={cluster},{}", matchers(spec));
    let bad = match spec.sli {
        Sli::Availability => sum(label, REQUESTS, &format!("{matchers},code_class=\"5xx\""), range),
        Sli::Latency { threshold } => format!(
            "{} - {}",
            sum(label, BUCKET, &format!("{matchers},le=\"+Inf\""), range),
            sum(label, BUCKET, &format!("{matchers},le={}", quoted(&bound(threshold))), range)
        ),
    };
    format!("topk(3, {bad} > 0)")
}

/// Requests that cannot be told fast from slow, as nobody counts against the threshold.
pub(super) fn without_bound(spec: &Spec, bound: &str) -> String {
    let by = labels(spec);
    let matchers = matchers(spec);
    let all = sum(&by, BUCKET, &format!("{matchers},le=\"+Inf\""), Range::H1);
    let good = sum(&by, BUCKET, &format!("{matchers},le={}", quoted(bound)), Range::H1);
    let mut out = format!("({all} > 0)\nunless\n{good}");
    if spec.is_counted() {
        out.push_str(&format!("\nunless\n{}", sum(&by, COUNTED, &counted(spec, ""), Range::H1)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_for_promql_and_its_regular_expressions() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(literal("/users/{id}.json"), r"/users/\{id\}\.json");
        assert_eq!(bound(std::time::Duration::from_millis(200)), "0.2");
        assert_eq!(bound(std::time::Duration::from_secs(1)), "1");
    }
}
