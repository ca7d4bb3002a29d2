//! Words that queries share.
//!
//! In: a query with marks such as `@W`. Out: PromQL or LogQL with matchers in their place.
//! Invariant: a label that is missing matches "All", so that a site without `cluster` or `node` sees its data.

/// Marks and what they stand for. A longer mark that begins like a shorter one stands first.
const MARKS: [(&str, &str); 8] = [
    // One workload, its namespace alone, and any of them.
    ("@W", "cluster=~\"$cluster\",namespace=\"$namespace\",workload=\"$workload\""),
    ("@N", "cluster=~\"$cluster\",namespace=~\"$namespace\""),
    // Series that know pods, not workloads.
    ("@P", "cluster=~\"$cluster\",namespace=\"$namespace\",pod=~\"$pod\""),
    ("@C", "cluster=~\"$cluster\""),
    ("@A", "cluster=~\"$cluster\",node=~\"$node\""),
    ("@S", "cluster=~\"$cluster\",slo_id=\"$slo_id\""),
    ("@I", "slo_id=\"$slo_id\""),
    // Over five minutes at least, so that a quiet service has points.
    ("@R", "[$__rate_interval]"),
];

/// A query with its marks replaced, on one line.
pub(super) fn text(query: &str) -> String {
    let mut out = query.split_whitespace().collect::<Vec<_>>().join(" ");
    for (mark, meaning) in MARKS {
        out = out.replace(mark, meaning);
    }
    out.replace("( ", "(").replace(" )", ")")
}

/// Bad requests by all requests, from the canonical families.
pub(super) fn error_ratio(by: &str, matchers: &str) -> String {
    format!(
        "sum by ({by}) (rate(red_requests_total{{{matchers},code_class=\"5xx\"}}@R)) \
         / (sum by ({by}) (rate(red_requests_total{{{matchers}}}@R)) > 0)"
    )
}

/// A quantile of durations.
pub(super) fn quantile(q: &str, by: &str, matchers: &str) -> String {
    let by = if by.is_empty() { "le".to_owned() } else { format!("{by}, le") };
    format!(
        "histogram_quantile({q}, sum by ({by}) (rate(red_request_duration_seconds_bucket{{{matchers}}}@R)))"
    )
}

/// Series of the agent's own page that name the workload they are about. Who scrapes the page without `honor_labels` has those
/// names as `exported_…`; both are read.
pub(super) fn named(series: &str, labels: &[&str]) -> String {
    labels.iter().fold(series.to_owned(), |inner, label| {
        format!("label_replace({inner}, \"{label}\", \"$1\", \"exported_{label}\", \"(.+)\")")
    })
}

/// A counter of the agent's own page about workloads of the namespaces chosen, as a rate or an increase over a range; `more` are
/// further matchers. Read under both names of `namespace`, as [`named`] says.
pub(super) fn of_workloads(function: &str, metric: &str, more: &str, range: &str) -> String {
    let series = |matchers: &str| format!("{function}({metric}{{@C,{matchers}{more}}}{range})");
    format!(
        "({} or {})",
        named(&series("exported_namespace=~\"$namespace\""), &["namespace"]),
        series("exported_namespace=\"\",namespace=~\"$namespace\"")
    )
}

/// A value that objectives have once, repeated for each cluster in which they are measured.
pub(super) fn each_cluster(value: &str) -> String {
    format!(
        "0 * max by (cluster, slo_id) (slo:error_budget_remaining:ratio{{@C}}) + on (slo_id) group_left () max by (slo_id) ({value})"
    )
}

/// A recorded series, one for each objective and cluster, whoever else recorded it.
pub(super) fn recorded(name: &str, matchers: &str) -> String {
    format!("max by (cluster, slo_id) ({name}{{{matchers}}})")
}

/// How many times the allowed rate is a page (or ticket) for each objective: the share of the budget times the days of its
/// period by the days of the range. Thirty days: 14.4, 6, 3, 1.
pub(super) fn factor(range: &str) -> String {
    let share_by_days = match range {
        "1h" => "0.48",
        "6h" => "0.2",
        "1d" => "0.1",
        _ => "0.1 / 3",
    };
    format!("(max by (slo_id) (slo:time_period:days) * {share_by_days})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_matchers_on_one_line() {
        assert_eq!(
            text("sum(\n  rate(a{@C,b=\"c\"}@R)\n) "),
            "sum(rate(a{cluster=~\"$cluster\",b=\"c\"}[$__rate_interval]))"
        );
        assert_eq!(text("x{@W}"), "x{cluster=~\"$cluster\",namespace=\"$namespace\",workload=\"$workload\"}");
        assert_eq!(
            text("sum_over_time(x{@I}[5m] @ end())"),
            "sum_over_time(x{slo_id=\"$slo_id\"}[5m] @ end())"
        );
    }
}
