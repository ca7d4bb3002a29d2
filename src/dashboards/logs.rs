//! `nodewick-logs`: who logs what, how much, and how well.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::named;

/// Loki wants one matcher that cannot be empty: the namespace.
const LINES: &str = "{@C,namespace=~\"$namespace\"}";

/// A line as a pattern: its message where it is JSON, else the line, with numbers and long hexadecimal words replaced.
const PATTERN: &str = "| level=~\"error|fatal\" | json message=\"msg\", text=\"message\" | drop __error__, __error_details__ \
     | label_format pattern=`{{ regexReplaceAll \"[0-9a-fA-F]{8,}|[0-9]+\" (or .message .text __line__) \"#\" | trunc 120 }}`";

fn records() -> String {
    named("rate(nodewick_workload_records_total{@C}@R)", &["namespace", "service"])
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
            Row { title: "Errors", panels: vec![patterns(), newest()] },
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
        Panel::stat("Lines without a trace id", "The share of lines that join no trace. The table below says whose; `nodewick explain` says why.")
            .size(5, 4)
            .unit("percentunit")
            .q(
                "sum(rate(nodewick_workload_records_total{@C,trace=\"none\"}@R)) / (sum(rate(nodewick_workload_records_total{@C}@R)) > 0)",
                "without",
            ),
        Panel::stat("Lines dropped by rules", "The share that configured processing left out. A surprise here is a rule that matches too much.")
            .size(5, 4)
            .unit("percentunit")
            .q(
                "sum(rate(nodewick_records_dropped_total{@C}@R)) / (sum(rate(nodewick_log_records_total{@C}@R)) > 0)",
                "dropped",
            )
            .quiet()
            .none("none"),
        Panel::stat("Records lost", "Records that a required sink refused for good within the hour. Not one is normal: open the agents' page.")
            .levels(&[(0.0, "green", ""), (1.0, "red", "")])
            .q("sum(increase(nodewick_records_lost_total{@C}[1h]))", "lost")
            .quiet()
            .none("none"),
    ]
}

fn volume() -> Vec<Panel> {
    vec![
        Panel::stacked("Lines by namespace", "Lines a second, the ten loudest. A step is a release or a debug level that was left on.")
            .size(8, 8)
            .unit("cps")
            .q(&format!("topk(10, sum by (namespace) ({}))", records()), "{{namespace}}"),
        Panel::stacked("Bytes by namespace", "Bytes of lines in each step, as Loki stores them.")
            .size(8, 8)
            .unit("bytes")
            .lines(&format!("topk(10, sum by (namespace) (bytes_over_time({LINES} [$__auto])))"), "{{namespace}}"),
        Panel::stacked("Lines by level", "The mix of levels. Debug in production is money; error that never goes down is noise that hides the next error.")
            .size(8, 8)
            .lines(&format!("sum by (level) (count_over_time({LINES} [$__auto]))"), "{{level}}"),
        Panel::table("Noisiest workloads", "Who writes most, now. Sample or drop what nobody reads, at the agent, by a rule or an annotation.")
            .size(12, 9)
            .label("namespace", "Namespace")
            .label("service", "Service")
            .value(&format!("topk(20, sum by (namespace, service) ({}))", records()), "Lines", "cps")
            .most("Lines"),
        Panel::series("Error lines by service", "Lines of level error and fatal, the ten loudest services.")
            .size(12, 9)
            .lines(
                &format!("topk(10, sum by (namespace, service_name) (count_over_time({LINES} | level=~\"error|fatal\" [$__auto])))"),
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
    let by = "namespace, service";
    let without = named("rate(nodewick_workload_records_total{@C,trace=\"none\"}@R)", &["namespace", "service"]);
    vec![
        Panel::table("Services by lines without a trace id", "Whose lines join no trace. Log the trace id, or a request id that an earlier line has beside one.")
            .size(12, 9)
            .label("namespace", "Namespace")
            .label("service", "Service")
            .value(
                &format!("sum by ({by}) ({without}) / (sum by ({by}) ({}) > 0)", records()),
                "Without",
                "percentunit",
            )
            .value(&format!("sum by ({by}) ({without})"), "Lines without", "cps")
            .most("Lines without"),
        Panel::series("Lines without a level", "The share whose severity nobody could tell, the ten worst services: plain text, or a format that is not understood.")
            .size(12, 9)
            .unit("percentunit")
            .lines(
                &format!(
                    "topk(10, sum by (service_name) (count_over_time({LINES} | level=\"\" [$__auto])) \
                     / sum by (service_name) (count_over_time({LINES} [$__auto])))"
                ),
                "{{service_name}}",
            )
            .quiet(),
        Panel::series("Malformed lines", "Lines that are not as their format demands, by kind. They are delivered all the same.")
            .unit("cps")
            .q("sum by (kind) (rate(nodewick_log_malformed_total{@C}@R))", "{{kind}}")
            .quiet()
            .none("none"),
        Panel::series("Dropped and redacted", "What rules took out, by reason and rule. A rule that never counts matches nothing.")
            .unit("cps")
            .q("sum by (reason, rule) (rate(nodewick_records_dropped_total{@C}@R))", "{{reason}} {{rule}}")
            .quiet()
            .q("sum by (rule) (rate(nodewick_redactions_total{@C}@R))", "redacted {{rule}}")
            .quiet()
            .none("no rule has matched"),
    ]
}
