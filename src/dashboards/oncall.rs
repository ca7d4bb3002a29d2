//! `nodewick-oncall`: what is wrong right now, on one screen.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::{each_cluster, factor, named, recorded};
use super::red::SERVICE;
use super::slo::{BURN, DETAIL, LEFT, STATES, burning_now, state};

const AGENT: (&str, &str) = (
    "Open the agent",
    "/d/nodewick-agent?var-node=${__value.raw:percentencode}&${cluster:queryparam}&${__url_time_range}",
);

/// Traffic of the last hour that is gone: what `SLOTrafficVanished` looks at.
pub(super) fn vanished() -> String {
    format!(
        "(max by (cluster, slo_id) (max_over_time(slo:sli_events:increase5m{{@C}}[1h] offset 5m)) > 20) \
         unless on (cluster, slo_id) ({} > 0)",
        recorded("slo:sli_events:increase5m", "@C")
    )
}

/// One series a node and reason, 1 where the agent is in trouble and 0 where it is not.
pub(super) fn trouble(matchers: &str) -> String {
    let reasons = [
        (
            "a backend does not answer",
            format!("max by (cluster, node) (nodewick_sink_up{{{matchers}}} == bool 0)"),
        ),
        (
            "lines are lost soon",
            format!(
                "max by (cluster, node) (nodewick_log_time_to_loss_min_seconds{{{matchers}}} < bool 900)"
            ),
        ),
        (
            "reading is rotations behind",
            format!("max by (cluster, node) (nodewick_log_generation_lag_max{{{matchers}}} >= bool 2)"),
        ),
        (
            "reading is late",
            format!(
                "max by (cluster, node) (nodewick_log_oldest_unread_age_seconds{{{matchers}}} > bool 60)"
            ),
        ),
        (
            "bytes are unexplained",
            format!("max by (cluster, node) (nodewick_ledger_unexplained_bytes{{{matchers}}} > bool 0)"),
        ),
        (
            "its config was refused",
            format!(
                "max by (cluster, node) (nodewick_config_last_reload_successful{{{matchers}}} == bool 0)"
            ),
        ),
        (
            "lines were lost within the hour",
            format!(
                "max by (cluster, node) (increase(nodewick_ledger_bytes{{{matchers},state=\"lost\"}}[1h]) > \
                    bool 0)"
            ),
        ),
    ];
    let reasons =
        reasons.map(|(reason, expr)| format!("label_replace({expr}, \"trouble\", \"{reason}\", \"\", \"\")"));
    reasons.join(" or ")
}

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-oncall",
        title: "nodewick / On call",
        about: "For whoever was just paged: what fires, which objectives burn, what changed, and whether the \
            agents can be trusted.",
        from: "now-1h",
        variables: vec![Variable::new(
            "cluster",
            "Cluster",
            "label_values({__name__=~\"red_source_info|nodewick_build_info\"}, cluster)",
            Need::All(".*"),
        )],
        rows: vec![Row { title: "", panels: [stats(), tables(), changes()].concat() }],
    }
}

fn stats() -> Vec<Panel> {
    let left = recorded("slo:error_budget_remaining:ratio", "@C");
    vec![
        Panel::stat("Pages firing", "Alerts that call somebody now. Open the table below and follow the \
            runbook of the oldest.")
            .q("count(ALERTS{@C,alertstate=\"firing\",severity=~\"page|critical\"})", "pages")
            .quiet()
            .none("none")
            .levels(&[(0.0, "green", ""), (1.0, "red", "")]),
        Panel::stat("Tickets firing", "Alerts for the next working day. They explain many a page.")
            .q("count(ALERTS{@C,alertstate=\"firing\",severity=~\"ticket|warning\"})", "tickets")
            .quiet()
            .none("none")
            .levels(&[(0.0, "green", ""), (1.0, "orange", "")]),
        Panel::stat(
            "SLOs burning now",
            "Objectives whose last five minutes burn the budget as fast as the fastest page allows. It is ahead of the page, which also \
             looks at the hour: open the objective at the top of the table.",
        )
        .q(&format!("sum({})", burning_now()), "burning")
        .levels(&[(0.0, "green", ""), (1.0, "red", "")]),
        Panel::stat(
            "Budgets nearly gone",
            "Objectives with less than a tenth of their error budget left. Hold back risky deploys of these \
                services.",
        )
        .q(&format!("sum({left} < bool 0.1)"), "nearly gone")
        .levels(&[(0.0, "green", ""), (1.0, "orange", "")]),
        Panel::stat(
            "Traffic vanished",
            "Objectives that had requests within the hour and have none now. No requests are no errors: look \
                at the pods first.",
        )
        .q(&format!("count({})", vanished()), "vanished")
        .quiet()
        .none("none")
        .levels(&[(0.0, "green", ""), (1.0, "red", "")]),
        Panel::stat(
            "Nodes with agent trouble",
            "Nodes whose agent cannot deliver, is about to lose lines, or refused its config. What such a \
                node's services show may be late.",
        )
        .q(&format!("sum(max by (cluster, node) ({}))", trouble("@C")), "nodes")
        .levels(&[(0.0, "green", ""), (1.0, "orange", "")]),
    ]
}

fn tables() -> Vec<Panel> {
    let keep = "alertname, severity, cluster, namespace, slo_id, node";
    vec![
        Panel::table("Firing alerts", "What fires, the longest first. A click on the objective opens its page \
            with what burned it.")
            .size(12, 7)
            .none("nothing fires")
            .label("severity", "Severity")
            .label("alertname", "Alert")
            .label_link("slo_id", "SLO", DETAIL)
            .label("namespace", "Namespace")
            .label_link("node", "Node", AGENT)
            .value(
                &format!(
                    "max by ({keep}) ((time() - ALERTS_FOR_STATE{{@C}}) and ignoring (alertstate) \
                        ALERTS{{@C,alertstate=\"firing\"}})"
                ),
                "Active for",
                "s",
            )
            .quiet()
            .label("cluster", "Cluster")
            .most("Active for"),
        Panel::table(
            "SLOs by burn rate",
            "The objectives that burn fastest: how many times the allowed rate over five minutes and an hour, \
                and from where on it pages.",
        )
        .size(12, 7)
        .label_link("slo_id", "SLO", DETAIL)
        .value(&state("@C"), "State", "none")
        .column_levels(STATES)
        .value(&recorded("slo:burn_rate:ratio_rate5m", "@C"), "Burn 5m", "suffix:×")
        .column_levels(BURN)
        .value(&recorded("slo:burn_rate:ratio_rate1h", "@C"), "Burn 1h", "suffix:×")
        .column_levels(BURN)
        .value(&each_cluster(&factor("1h")), "Pages at", "suffix:×")
        .value(&recorded("slo:error_budget_remaining:ratio", "@C"), "Budget left", "percentunit")
        .column_levels(LEFT)
        .label("cluster", "Cluster")
        .most("Burn 5m"),
    ]
}

fn changes() -> Vec<Panel> {
    vec![
        Panel::series(
            "Workloads with the most 5xx",
            "Answers of class 5xx a second. What climbs here together has one cause: look for the service \
                that the others call.",
        )
        .size(8, 7)
        .unit("reqps")
        .q(
            "topk(5, sum by (namespace, workload) (rate(red_requests_total{@C,code_class=\"5xx\"}@R)))",
            "{{namespace}}/{{workload}}",
        )
        .link(
            "Open the service",
            "/d/nodewick-service?var-namespace=${__field.labels.namespace:percentencode}&var-workload=${__field.labels.workload:percentencode}&${cluster:queryparam}&${__url_time_range}",
        ),
        Panel::series(
            "Error-log leaders",
            "Lines of level error and fatal by workload. A leader here without 5xx fails in the background: \
                jobs, consumers, retries.",
        )
        .size(8, 7)
        .unit("cps")
        .q(
            &format!(
                "topk(5, sum by (namespace, workload) ({}))",
                named("rate(nodewick_workload_lines_total{@C,level=~\"error|fatal\"}@R)", &["namespace"])
            ),
            "{{namespace}}/{{workload}}",
        )
        .link(
            "Open the logs",
            "/d/nodewick-logs?var-namespace=${__field.labels.namespace:percentencode}&${cluster:queryparam}&${__url_time_range}",
        ),
        Panel::table(
            "Recent deploys",
            "The newest ReplicaSets. If an objective began to burn within minutes of one, undo it before you \
                search.",
        )
        .size(8, 7)
        .label("namespace", "Namespace")
        .label_link("owner_name", "Deployment", SERVICE)
        .value(&format!("topk(10, {})", super::json::DEPLOYS), "Since", "dateTimeFromNow")
        .label("replicaset", "ReplicaSet")
        .most("Since"),
        Panel::table(
            "Vanished traffic",
            "Objectives that had requests within the hour and have none now, with how many there were in five \
                minutes at most.",
        )
        .size(12, 5)
        .none("all traffic is there")
        .label_link("slo_id", "SLO", DETAIL)
        .value(&vanished(), "Requests in 5m before", "short")
        .quiet()
        .label("cluster", "Cluster")
        .most("Requests in 5m before"),
        Panel::table("Agent trouble by node", "Which node's agent has which trouble. A click opens its page.")
            .size(12, 5)
            .none("every agent is well")
            .label_link("node", "Node", AGENT)
            .label("trouble", "Trouble")
            .value(&format!("({}) > 0", trouble("@C")), "State", "none")
            .quiet()
            .column_levels(&[(0.0, "green", "well"), (1.0, "orange", "in trouble")])
            .label("cluster", "Cluster")
            .most("State"),
    ]
}
