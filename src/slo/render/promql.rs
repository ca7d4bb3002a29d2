//! Expressions over the agent's canonical families.
//!
//! In: a [`Spec`]. Out: PromQL for its events and errors over a range, from the source that counts them best.
//! Invariant: events and errors of one range come from the same source, and errors are 0, not absent, where there are
//! events; where the source cannot tell good from bad, both are absent. Nothing is interpolated between buckets.
//!
//! Sources of a latency objective, the first that a node has for a workload: `slo_events_total`, which is exact; else
//! `slo_bracket_events_total`, counted against the buckets beside the threshold, once for each of them; else, where no agent
//! counts the objective, the histogram's own bucket.

use super::super::burn::Range;
use super::super::number::shortest;
use super::super::spec::{Sli, Spec};

const REQUESTS: &str = "red_requests_total";
const BUCKET: &str = "red_request_duration_seconds_bucket";
pub(super) const COUNTED: &str = "slo_events_total";
pub(super) const BRACKET: &str = "slo_bracket_events_total";

/// On which neighbour of a threshold without a bucket of its own one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// The next bucket above counts as good: what is bad by it is bad for certain. Pages.
    Optimistic,
    /// Only the next bucket below counts as good: what is bad is never missed. Tickets.
    Pessimistic,
}

impl Bound {
    /// As the label `bound` has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Optimistic => "optimistic",
            Self::Pessimistic => "pessimistic",
        }
    }

    /// What records of errors are called.
    pub(super) const fn errors(self) -> &'static str {
        match self {
            Self::Optimistic => "slo:sli_errors:increase",
            Self::Pessimistic => "slo:sli_errors_pessimistic:increase",
        }
    }

    /// What records of ratios are called.
    pub(super) const fn ratio(self) -> &'static str {
        match self {
            Self::Optimistic => "slo:sli_error:ratio_rate",
            Self::Pessimistic => "slo:sli_error_pessimistic:ratio_rate",
        }
    }
}

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

/// What the counters of an objective are asked for.
fn counted(spec: &Spec) -> String {
    let selector = &spec.selector;
    let mut found = format!("slo_id={},namespace={}", quoted(&spec.id()), quoted(&selector.namespace));
    if let Some(workload) = &selector.workload {
        found.push_str(&format!(",workload={}", quoted(workload)));
    }
    found
}

/// Counters of an objective: the exact ones of each node, else those beside the threshold.
pub(super) fn counters(by: &str, matchers: &str, bound: Bound, same: &str, range: Range) -> String {
    let comma = if matchers.is_empty() { "" } else { "," };
    format!(
        "sum by ({by}) (\n  increase({COUNTED}{{{matchers}}}[{range}])\n  or on ({same}) \
         increase({BRACKET}{{{matchers}{comma}bound=\"{}\"}}[{range}])\n)",
        bound.name()
    )
}

/// Labels by which two counters of an objective are those of one place.
const PLACE: &str = "cluster, node, namespace, workload";

/// Requests whose series has a bucket at the threshold, and those of them within it. A route or pod without that bucket has
/// no say: its requests cannot be told fast from slow.
fn measured(spec: &Spec, by: &str, threshold: std::time::Duration, range: Range) -> (String, String) {
    let matchers = matchers(spec);
    let own = quoted(&bound(threshold));
    let all = format!(
        "sum by ({by}) (increase({BUCKET}{{{matchers},le=\"+Inf\"}}[{range}]) and ignoring (le) \
         increase({BUCKET}{{{matchers},le={own}}}[{range}]))"
    );
    (all, sum(by, BUCKET, &format!("{matchers},le={own}"), range))
}

/// All events of a range.
pub(super) fn events(spec: &Spec, range: Range) -> String {
    let by = labels(spec);
    match spec.sli {
        Sli::Availability => sum(&by, REQUESTS, &matchers(spec), range),
        Sli::Latency { threshold } => {
            let (all, _) = measured(spec, &by, threshold, range);
            if spec.is_counted() {
                let exact = counters(&by, &counted(spec), Bound::Optimistic, PLACE, range);
                format!("{exact}\nor\n{all}")
            } else {
                all
            }
        }
    }
}

/// The bad events of a range.
pub(super) fn errors(spec: &Spec, at: Bound, range: Range) -> String {
    let by = labels(spec);
    match spec.sli {
        Sli::Availability => {
            let matchers = matchers(spec);
            let bad = sum(&by, REQUESTS, &format!("{matchers},code_class=\"5xx\""), range);
            format!("{bad}\nor\n0 * {}", sum(&by, REQUESTS, &matchers, range))
        }
        Sli::Latency { threshold } => {
            let (all, good) = measured(spec, &by, threshold, range);
            // Two extrapolations can differ by less than one event.
            let measured = format!("clamp_min(\n  {all}\n  - {good},\n  0\n)");
            if spec.is_counted() {
                let bad = counters(&by, &format!("{},result=\"bad\"", counted(spec)), at, PLACE, range);
                format!("{bad}\nor\n{measured}")
            } else {
                measured
            }
        }
    }
}

/// Bad events of a range by one label, the worst three.
pub(super) fn worst(spec: &Spec, label: &str, cluster: &str, at: Bound, range: Range) -> String {
    let matchers = format!("cluster={cluster},{}", matchers(spec));
    let bad = match spec.sli {
        Sli::Availability => sum(label, REQUESTS, &format!("{matchers},code_class=\"5xx\""), range),
        Sli::Latency { threshold } => {
            let all = sum(label, BUCKET, &format!("{matchers},le=\"+Inf\""), range);
            let good = sum(label, BUCKET, &format!("{matchers},le={}", quoted(&bound(threshold))), range);
            let own = format!("{all} - {good}");
            if spec.is_counted() {
                format!("({own} or {all} - {})", beside(spec, label, &matchers, at, range))
            } else {
                own
            }
        }
    };
    format!("topk(3, {bad} > 0)")
}

/// Requests within the neighbour of a threshold that has no bucket.
fn beside(spec: &Spec, label: &str, matchers: &str, at: Bound, range: Range) -> String {
    let neighbour = match at {
        Bound::Optimistic => "upper",
        Bound::Pessimistic => "lower",
    };
    format!(
        "sum by ({label}) (increase({BUCKET}{{{matchers}}}[{range}]) and on (cluster, namespace, workload, le) \
         label_replace(slo_bracket_info{{slo_id={}}}, \"le\", \"$1\", \"{neighbour}\", \"(.+)\"))",
        quoted(&spec.id())
    )
}

/// Where an objective is measured beside its threshold, with the neighbours as labels, or where its requests cannot be told
/// fast from slow at all.
pub(super) fn without_bound(spec: &Spec, bound: &str) -> String {
    let by = labels(spec);
    let matchers = matchers(spec);
    let all = sum(&by, BUCKET, &format!("{matchers},le=\"+Inf\""), Range::H1);
    let good = sum(&by, BUCKET, &format!("{matchers},le={}", quoted(bound)), Range::H1);
    if !spec.is_counted() {
        return format!("({all} > 0)\nunless\n{good}");
    }
    let own = counted(spec);
    let exact = counters(&by, &own, Bound::Optimistic, PLACE, Range::H1);
    format!(
        "max by ({by}, lower, upper) (slo_bracket_info{{{own}}})\nor\n(\n  ({all} > 0)\n  unless\n  {good}\n  unless\n{}\n)",
        indented(&exact)
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Lower end of Wilson's interval for the share of `errors` among `events`, at 95 %: what the share is at least, as few events
/// as there may be. Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927, with
/// z = 1.96: z² = 3.8416, z²/2 = 1.9208, z²/4 = 0.9604.
pub(super) fn wilson(errors: &str, events: &str) -> String {
    // An extrapolated count of errors can be above that of events.
    format!(
        "(\n      ({errors} + 1.9208\n        - 1.96 * sqrt(clamp_min({errors} * ({events} - {errors}) / {events}, 0) + 0.9604))\n      \
         / ({events} + 3.8416)\n    )"
    )
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
