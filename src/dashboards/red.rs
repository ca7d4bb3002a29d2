//! `nodewick-red-overview`: rate, errors and duration of every workload.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::{error_ratio, quantile};

pub(super) const SERVICE: (&str, &str) = (
    "Open the service",
    "/d/nodewick-service?var-namespace=${__data.fields.namespace:percentencode}&var-workload=${__value.raw:percentencode}&${cluster:queryparam}&${__url_time_range}",
);
const SERVICE_OF_SERIES: (&str, &str) = (
    "Open the service",
    "/d/nodewick-service?var-namespace=${__field.labels.namespace:percentencode}&var-workload=${__field.labels.workload:percentencode}&${cluster:queryparam}&${__url_time_range}",
);

const ERRORS: &[(f64, &str, &str)] = &[(0.0, "green", ""), (0.01, "orange", ""), (0.05, "red", "")];
const SECONDS: &[(f64, &str, &str)] = &[(0.0, "green", ""), (0.5, "yellow", ""), (1.0, "orange", "")];

pub(super) fn variables() -> Vec<Variable> {
    vec![
        Variable::new("cluster", "Cluster", "label_values(red_source_info, cluster)", Need::All(".*")),
        Variable::new(
            "namespace",
            "Namespace",
            "label_values(red_source_info{@C}, namespace)",
            Need::All(".*"),
        ),
    ]
}

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-red-overview",
        title: "nodewick / Rate, errors, duration",
        about: "For everyone: what every workload serves, how often it fails, how long it takes, and who is \
            not measured at all.",
        from: "now-3h",
        variables: variables(),
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "Workloads", panels: [sparklines(), vec![table()]].concat() },
            Row { title: "Over time", panels: over_time() },
            Row { title: "What is not seen", panels: vec![unmeasured(), late()] },
        ],
    }
}

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Requests",
            "Requests a second of all workloads chosen. A step that no release explains \
            is a client or a route.",
        )
        .size(6, 4)
        .unit("reqps")
        .q("sum(rate(red_requests_total{@N}@R))", "requests"),
        Panel::stat(
            "Errors",
            "The share of 5xx among all answers. Open the workload at the top of the table.",
        )
        .size(6, 4)
        .unit("percentunit")
        .levels(ERRORS)
        .q(
            "sum(rate(red_requests_total{@N,code_class=\"5xx\"}@R)) / \
                    (sum(rate(red_requests_total{@N}@R)) > 0)",
            "errors",
        ),
        Panel::stat(
            "p99 of all",
            "Ninety-nine of a hundred requests take no longer. Sort the table by p99 to \
            see whose they are.",
        )
        .size(6, 4)
        .unit("s")
        .levels(SECONDS)
        .q(&quantile("0.99", "", "@N"), "p99"),
        Panel::stat(
            "Workloads measured",
            "Workloads whose requests are counted, from their metrics or their \
            access lines.",
        )
        .size(6, 4)
        .q("count(count by (cluster, namespace, workload) (red_source_info{@N}))", "workloads"),
    ]
}

/// The six series with the largest values at the end of the time shown, so that each keeps its tile.
fn leaders(expr: &str) -> String {
    format!("({expr}) and on (namespace, workload) topk(6, {})", expr.replace("@R", "@R @ end()"))
}

/// A tile with a sparkline for each of the workloads that matter most.
fn sparklines() -> Vec<Panel> {
    let by = "namespace, workload";
    let rate = "sum by (namespace, workload) (rate(red_requests_total{@N}@R))";
    vec![
        Panel::stat(
            "Busiest",
            "The six workloads with the most requests, with their course. A click opens the service.",
        )
        .size(8, 6)
        .unit("reqps")
        .q(&leaders(rate), "{{namespace}}/{{workload}}")
        .link(SERVICE_OF_SERIES.0, SERVICE_OF_SERIES.1),
        Panel::stat("Failing most", "The six workloads with the largest share of 5xx. Start with the first.")
            .size(8, 6)
            .unit("percentunit")
            .levels(ERRORS)
            .q(&leaders(&error_ratio(by, "@N")), "{{namespace}}/{{workload}}")
            .link(SERVICE_OF_SERIES.0, SERVICE_OF_SERIES.1),
        Panel::stat(
            "Slowest",
            "The six workloads with the longest p99. One that is always here needs an objective of its own.",
        )
        .size(8, 6)
        .unit("s")
        .levels(SECONDS)
        .q(&leaders(&quantile("0.99", by, "@N")), "{{namespace}}/{{workload}}")
        .link(SERVICE_OF_SERIES.0, SERVICE_OF_SERIES.1),
    ]
}

fn table() -> Panel {
    let by = "cluster, namespace, workload";
    Panel::table(
        "Workloads by errors",
        "Most failing first. \"Against last week\" is the rate now by the rate at the same time a week ago; a half or a double is worth a \
         look even without errors.",
    )
    .size(24, 12)
    .label("namespace", "Namespace")
    .label_link("workload", "Workload", SERVICE)
    .value(&format!("sum by ({by}) (rate(red_requests_total{{@N}}@R))"), "Requests", "reqps")
    .value(&error_ratio(by, "@N"), "Errors", "percentunit")
    .column_levels(ERRORS)
    .value(&quantile("0.5", by, "@N"), "p50", "s")
    .value(&quantile("0.99", by, "@N"), "p99", "s")
    .column_levels(SECONDS)
    .value(
        &format!(
            "sum by ({by}) (rate(red_requests_total{{@N}}[1h])) / (sum by ({by}) \
                (rate(red_requests_total{{@N}}[1h] offset 1w)) > 0) - 1"
        ),
        "Against last week",
        "percentunit",
    )
    .value(&format!("max by ({by}) (red_source_lag_seconds{{@N}})"), "Counted up to", "s")
    .column_levels(&[(0.0, "green", ""), (30.0, "yellow", ""), (60.0, "red", "")])
    .label("cluster", "Cluster")
    .most("Errors")
}

fn over_time() -> Vec<Panel> {
    vec![
        Panel::stacked("Requests by workload", "Requests a second by workload, the ten busiest.")
            .size(8, 9)
            .unit("reqps")
            .q(
                "topk(10, sum by (namespace, workload) (rate(red_requests_total{@N}@R)))",
                "{{namespace}}/{{workload}}",
            )
            .link(SERVICE_OF_SERIES.0, SERVICE_OF_SERIES.1),
        Panel::series(
            "Errors by workload",
            "The share of 5xx by workload, the ten worst. Several at once have a common dependency.",
        )
        .size(8, 9)
        .unit("percentunit")
        .levels(ERRORS)
        .q(&format!("topk(10, {})", error_ratio("namespace, workload", "@N")), "{{namespace}}/{{workload}}")
        .link(SERVICE_OF_SERIES.0, SERVICE_OF_SERIES.1),
        Panel::series(
            "p99 by workload",
            "By workload, the ten slowest. A climb with a steady rate is saturation or a slow dependency.",
        )
        .size(8, 9)
        .unit("s")
        .q(
            &format!("topk(10, {})", quantile("0.99", "namespace, workload", "@N")),
            "{{namespace}}/{{workload}}",
        )
        .link(SERVICE_OF_SERIES.0, SERVICE_OF_SERIES.1),
    ]
}

fn unmeasured() -> Panel {
    Panel::table(
        "Deployments without RED",
        "Deployments with ready pods whose requests nobody counts: they write no access line that is understood and expose no histogram \
         with a status. `nodewick why` and `nodewick explain` say what is missing.",
    )
    .size(12, 9)
    .none("every Deployment is measured")
    .label("namespace", "Namespace")
    .label("deployment", "Deployment")
    .value(
        "max by (cluster, namespace, deployment) (kube_deployment_status_replicas_ready{@N}) > 0 \
         unless on (cluster, namespace, deployment) \
         label_replace(max by (cluster, namespace, workload) (red_source_info{@N}), \"deployment\", \"$1\", \
             \"workload\", \"(.+)\")",
        "Ready pods",
        "none",
    )
    .quiet()
    .label("cluster", "Cluster")
    .most("Ready pods")
}

fn late() -> Panel {
    Panel::table(
        "Where the numbers come from",
        "Source and profile of each workload, and how far counting is behind. Above 60 s of unread lines its \
            figures are left out.",
    )
    .size(12, 9)
    .label("namespace", "Namespace")
    .label_link("workload", "Workload", SERVICE)
    .label("source", "Source")
    .label("profile", "Profile")
    .value("count by (cluster, namespace, workload, source, profile) (red_source_info{@N})", "Nodes", "none")
    .label("cluster", "Cluster")
    .most("Nodes")
}
