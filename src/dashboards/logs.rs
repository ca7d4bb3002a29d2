//! `nodewick-logs`: who logs what, how much, and how well.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::{named, of_workloads};

/// Loki wants one matcher that cannot be empty: the namespace.
const LINES: &str = "{@C,namespace=~\"$namespace\"}";

/// A line as a pattern: its message where it is JSON, else the line, with numbers and long hexadecimal words replaced.
const PATTERN: &str = "| level=~\"error|fatal\" | json message=\"msg\", text=\"message\" | drop __error__, __error_details__ \
     | label_format pattern=`{{ regexReplaceAll \"[0-9a-fA-F]{8,}|[0-9]+\" (or .message .text __line__) \"#\" \
         | trunc 120 }}`";

/// Lines a second of the workloads chosen.
fn written(more: &str) -> String {
    of_workloads("rate", "nodewick_workload_lines_total", more, "@R")
}

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-logs",
        title: "nodewick / Logs",
        about: "For SREs: volumes by namespace and workload, levels, what the errors say and which of them are new, and whose lines lack a \
                level or a trace id.",
        from: "now-3h",
        variables: vec![
            Variable::new(
                "cluster",
                "Cluster",
                "label_values({__name__=~\"nodewick_build_info|red_source_info\"}, cluster)",
                Need::All(".*"),
            ),
            Variable::new(
                "namespace",
                "Namespace",
                "label_values({__name__=~\"red_source_info|kube_pod_info\",@C}, namespace)",
                Need::All(".+"),
            ),
        ],
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "Volume", panels: volume() },
            Row { title: "Errors", panels: [news(), vec![patterns(), newest()]].concat() },
            Row { title: "Quality", panels: quality() },
        ],
    }
}

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat("Lines", "Lines a second that the agents read, over all namespaces.")
            .size(5, 4)
            .unit("cps")
            .q("sum(rate(nodewick_log_records_total{@C}@R))", "lines"),
        Panel::stat("Bytes", "Bytes a second that the agents read. It is what storage costs follow.")
            .size(5, 4)
            .unit("Bps")
            .q("sum(rate(nodewick_log_read_bytes_total{@C}@R))", "bytes"),
        Panel::stat(
            "Lines without a trace id",
            "The share of lines that join no trace. The table below says \
            whose; `nodewick explain` says why.",
        )
        .size(5, 4)
        .unit("percentunit")
        .q(
            "sum(rate(nodewick_workload_records_total{@C,trace=\"none\"}@R)) / \
                    (sum(rate(nodewick_workload_records_total{@C}@R)) > 0)",
            "without",
        ),
        Panel::stat(
            "Lines dropped by rules",
            "The share that configured processing left out. A surprise here \
            is a rule that matches too much.",
        )
        .size(5, 4)
        .unit("percentunit")
        .q(
            "sum(rate(nodewick_records_dropped_total{@C}@R)) / \
                    (sum(rate(nodewick_log_records_total{@C}@R)) > 0)",
            "dropped",
        )
        .quiet()
        .none("none"),
        Panel::stat(
            "Records lost",
            "Records that a required sink refused for good within the hour. Not one \
            is normal: open the agents' page.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .q("sum(increase(nodewick_records_lost_total{@C}[1h]))", "lost")
        .quiet()
        .none("none"),
    ]
}

fn volume() -> Vec<Panel> {
    let bytes = of_workloads("rate", "nodewick_workload_log_bytes_total", "", "@R");
    vec![
        Panel::stacked(
            "Lines by namespace",
            "Lines a second, the ten loudest. A step is a release or a debug \
            level that was left on.",
        )
        .size(8, 8)
        .unit("cps")
        .q(&format!("topk(10, sum by (namespace) ({}))", written("")), "{{namespace}}"),
        Panel::stacked("Bytes by namespace", "Bytes of lines a second, the ten largest. What you pay for.")
            .size(8, 8)
            .unit("Bps")
            .q(&format!("topk(10, sum by (namespace) ({bytes}))"), "{{namespace}}"),
        Panel::stacked(
            "Lines by level",
            "The mix of levels. Debug in production is money; error that never \
            goes down is noise that hides the next error.",
        )
        .size(8, 8)
        .unit("cps")
        .q(&format!("sum by (level) ({})", written("")), "{{level}}"),
        Panel::table(
            "Noisiest workloads",
            "Who writes most, now. Sample or drop what nobody reads, at the \
            agent, by a rule or an annotation.",
        )
        .size(12, 9)
        .label("namespace", "Namespace")
        .label("workload", "Workload")
        .value(&format!("topk(20, sum by (namespace, workload) ({bytes}))"), "Bytes", "Bps")
        .value(&format!("sum by (namespace, workload) ({})", written("")), "Lines", "cps")
        .value(
            &format!(
                "sum by (namespace, workload) ({}) / (sum by (namespace, workload) ({}) > 0)",
                written(",level=~\"error|fatal\""),
                written("")
            ),
            "Errors",
            "percentunit",
        )
        .column_levels(&[(0.0, "green", ""), (0.05, "orange", "")])
        .most("Bytes"),
        Panel::series("Error lines by workload", "Lines of level error and fatal a second, the ten loudest.")
            .size(12, 9)
            .unit("cps")
            .q(
                &format!("topk(10, sum by (namespace, workload) ({}))", written(",level=~\"error|fatal\"")),
                "{{namespace}}/{{workload}}",
            ),
    ]
}

fn news() -> Vec<Panel> {
    let by = "namespace, workload";
    let increase = |metric: &str| of_workloads("increase", metric, "", "[1h]");
    vec![
        Panel::table(
            "New kinds of errors within the hour",
            "Workloads that wrote errors unlike any before, that panicked, or from whose lines a secret was \
                removed. Look here after each release.",
        )
        .size(12, 9)
        .label("namespace", "Namespace")
        .label("workload", "Workload")
        .value(
            &format!("sum by ({by}) ({})", increase("nodewick_workload_new_error_patterns_total")),
            "New patterns",
            "none",
        )
        .column_levels(&[(0.0, "green", ""), (1.0, "orange", "")])
        .value(&format!("sum by ({by}) ({})", increase("nodewick_workload_panics_total")), "Panics", "none")
        .column_levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .value(
            &format!("sum by ({by}) ({})", increase("nodewick_workload_secret_records_total")),
            "Lines with secrets",
            "none",
        )
        .column_levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .most("New patterns"),
        Panel::series(
            "Errors by service, as Loki has them",
            "Lines of level error and fatal, the ten loudest \
            services. It differs from the agents' count where a backend lost lines.",
        )
        .size(12, 9)
        .lines(
            &format!(
                "topk(10, sum by (namespace, service_name) (count_over_time({LINES} | \
                    level=~\"error|fatal\" [$__auto])))"
            ),
            "{{namespace}}/{{service_name}}",
        )
        .quiet(),
    ]
}

fn patterns() -> Panel {
    Panel::table(
        "Error patterns with first-seen",
        "What errors say, with numbers and ids replaced by #. First seen is within the time shown; the newest pattern is usually the \
         cause of the day. Narrow the namespace where it is slow.",
    )
    .none("no error line in the time shown")
    .label("service_name", "Service")
    .label("pattern", "Pattern")
    .lines_now(
        &format!("topk(30, sum by (service_name, pattern) (count_over_time({LINES} {PATTERN} [$__range])))"),
        "Lines",
        "short",
    )
    .quiet()
    .lines_now(
        &format!(
            "1000 * min by (service_name, pattern) (min_over_time({LINES} {PATTERN} | label_format seen=`{{{{ __timestamp__ | unixEpoch }}}}` \
             | unwrap seen [$__range]) by (service_name, pattern))"
        ),
        "First seen",
        "dateTimeFromNow",
    )
    .quiet()
    .most("First seen")
}

fn newest() -> Panel {
    Panel::logs("Newest error lines", "Open a line and click its trace id to see the whole request.")
        .none("no error line in the time shown")
        .lines(&format!("{LINES} | level=~\"error|fatal\""), "")
        .quiet()
}

fn quality() -> Vec<Panel> {
    let traced = |more: &str| {
        named(&format!("rate(nodewick_workload_records_total{{@C{more}}}@R)"), &["namespace", "service"])
    };
    let by = "namespace, service";
    let unparsed = of_workloads("rate", "nodewick_workload_unparsed_records_total", "", "@R");
    vec![
        Panel::table(
            "Services by lines without a trace id",
            "Whose lines join no trace. Log the trace id, or \
            a request id that an earlier line has beside one.",
        )
        .size(12, 9)
        .label("namespace", "Namespace")
        .label("service", "Service")
        .value(
            &format!("sum by ({by}) ({}) / (sum by ({by}) ({}) > 0)", traced(",trace=\"none\""), traced("")),
            "Without",
            "percentunit",
        )
        .value(&format!("sum by ({by}) ({})", traced(",trace=\"none\"")), "Lines without", "cps")
        .most("Lines without"),
        Panel::series(
            "Unparsed share",
            "The share of lines in which nothing was recognised: no level, time, \
            trace id or request. The ten worst; `nodewick explain` says what is tried.",
        )
        .size(12, 9)
        .unit("percentunit")
        .max(1.0)
        .q(
            &format!(
                "topk(10, sum by (namespace, workload) ({unparsed}) / (sum by (namespace, workload) ({}) \
                        > 0))",
                written("")
            ),
            "{{namespace}}/{{workload}}",
        ),
        Panel::series(
            "Malformed lines",
            "Lines that are not as their format demands, by kind. They are \
            delivered all the same.",
        )
        .unit("cps")
        .q("sum by (kind) (rate(nodewick_log_malformed_total{@C}@R))", "{{kind}}")
        .quiet()
        .none("none"),
        Panel::series(
            "Dropped and redacted",
            "What rules took out, by reason and rule. A rule that never \
            counts matches nothing.",
        )
        .unit("cps")
        .q("sum by (reason, rule) (rate(nodewick_records_dropped_total{@C}@R))", "{{reason}} {{rule}}")
        .quiet()
        .q("sum by (rule) (rate(nodewick_redactions_total{@C}@R))", "redacted {{rule}}")
        .quiet()
        .none("no rule has matched"),
    ]
}
