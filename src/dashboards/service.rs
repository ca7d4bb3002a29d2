//! `nodewick-service`: one workload, for those who own it.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::{error_ratio, quantile};

const ERRORS: &[(f64, &str, &str)] = &[(0.0, "green", ""), (0.01, "orange", ""), (0.05, "red", "")];

/// The workload's pods, for series that know pods alone.
pub(super) fn variables(of: &str) -> Vec<Variable> {
    vec![
        Variable::new("cluster", "Cluster", &format!("label_values({of}, cluster)"), Need::All(".*")),
        Variable::new("namespace", "Namespace", &format!("label_values({of}{{@C}}, namespace)"), Need::One),
        Variable::new(
            "workload",
            "Workload",
            &format!("label_values({of}{{@C,namespace=\"$namespace\"}}, workload)"),
            Need::One,
        ),
        Variable::new("pod", "Pod", &format!("label_values({of}{{@W}}, pod)"), Need::Listed),
    ]
}

pub(super) fn board() -> Board {
    let mut variables = variables("red_requests_total");
    // Loki and Tempo know services; a workload has one as a rule.
    variables.push(
        Variable::new("service", "Service", "label_values(red_requests_total{@W}, service)", Need::Listed)
            .hidden(),
    );
    if let Some(first) = variables.first_mut() {
        first.query = "label_values(red_source_info, cluster)".to_owned();
    }
    Board {
        uid: "nodewick-service",
        title: "nodewick / Service",
        about: "For the owner of a service: what it serves, which routes and pods fail or are slow, its logs, \
            traces and resources.",
        from: "now-3h",
        variables,
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "Requests", panels: requests() },
            Row { title: "Routes and pods", panels: vec![routes(), pods()] },
            Row { title: "Logs", panels: vec![levels(), errors()] },
            Row { title: "Traces", panels: vec![traces()] },
            Row { title: "Resources", panels: resources() },
        ],
    }
}

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat("Requests", "Requests a second. None while users complain: look at ingress and pods.")
            .unit("reqps")
            .q("sum(rate(red_requests_total{@W}@R))", "requests"),
        Panel::stat("Errors", "The share of 5xx. The table of routes says where they are, the logs why.")
            .unit("percentunit")
            .levels(ERRORS)
            .q(
                "sum(rate(red_requests_total{@W,code_class=\"5xx\"}@R)) / \
                    (sum(rate(red_requests_total{@W}@R)) > 0)",
                "errors",
            ),
        Panel::stat("p50", "Half of the requests take no longer.")
            .unit("s")
            .q(&quantile("0.5", "", "@W"), "p50"),
        Panel::stat(
            "p99",
            "Ninety-nine of a hundred take no longer. Far above p50: one route or one pod is \
            slow.",
        )
        .unit("s")
        .levels(&[(0.0, "green", ""), (0.5, "yellow", ""), (1.0, "orange", "")])
        .q(&quantile("0.99", "", "@W"), "p99"),
        Panel::stat("Pods", "Pods that serve requests. Compare with what you deployed.")
            .q("count(count by (pod) (red_requests_total{@W}))", "pods"),
        Panel::stat(
            "Restarts in an hour",
            "Containers that were started anew. Look at their last lines below and for OOM kills.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "orange", ""), (5.0, "red", "")])
        .q("sum(increase(kube_pod_container_status_restarts_total{@P}[1h]))", "restarts"),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::stacked("Requests by class of answer", "5xx are yours, 4xx the client's, aborted went away before they were answered: often your slowness.")
            .size(8, 9)
            .unit("reqps")
            .q("sum by (code_class) (rate(red_requests_total{@W}@R)) > 0", "{{code_class}}"),
        Panel::series("Durations", "Quantiles of all requests; points are single requests, a click opens \
            their trace.")
            .size(8, 9)
            .unit("s")
            .q(&quantile("0.5", "", "@W"), "p50")
            .q(&quantile("0.9", "", "@W"), "p90")
            .q(&quantile("0.99", "", "@W"), "p99")
            .exemplars(),
        Panel::heatmap("Distribution of durations", "Where requests are. Two bands are two kinds of requests: \
            a cache hit and a miss, a fast and a slow route.")
            .size(8, 9)
            .q("sum by (le) (rate(red_request_duration_seconds_bucket{@W}@R))", "{{le}}")
            .exemplars(),
    ]
}

fn routes() -> Panel {
    let by = "route, method";
    Panel::table(
        "Routes by errors",
        "Most failing first. A route called __other__ holds what exceeds the 50 that a workload may have.",
    )
    .size(14, 10)
    .label("route", "Route")
    .label("method", "Method")
    .value(&format!("sum by ({by}) (rate(red_requests_total{{@W}}@R))"), "Requests", "reqps")
    .value(&error_ratio(by, "@W"), "Errors", "percentunit")
    .column_levels(ERRORS)
    .value(&quantile("0.5", by, "@W"), "p50", "s")
    .value(&quantile("0.99", by, "@W"), "p99", "s")
    .most("Errors")
}

fn pods() -> Panel {
    Panel::table(
        "Pods by errors",
        "One pod that differs: restart it, or look at its node. All alike: the release or a dependency.",
    )
    .size(10, 10)
    .label("pod", "Pod")
    .value("sum by (pod) (rate(red_requests_total{@W}@R))", "Requests", "reqps")
    .value(&error_ratio("pod", "@W"), "Errors", "percentunit")
    .column_levels(ERRORS)
    .value(&quantile("0.99", "pod", "@W"), "p99", "s")
    .most("Errors")
}

/// The service's lines; `namespace` and the service are labels of the stream.
const LINES: &str = "{@C,namespace=\"$namespace\",service_name=~\"$service\"}";

fn levels() -> Panel {
    Panel::stacked("Lines by level", "A jump of error lines beside steady 5xx is background work that fails.")
        .size(8, 10)
        .lines(&format!("sum by (level) (count_over_time({LINES} [$__auto]))"), "{{level}}")
}

fn errors() -> Panel {
    Panel::logs(
        "Errors and warnings",
        "The newest lines of level warn and worse. Open a line and click its \
        trace id to see the whole request.",
    )
    .size(16, 10)
    .none("no such line in the time shown")
    .lines(&format!("{LINES} | level=~\"warn|error|fatal\""), "")
    .quiet()
}

fn traces() -> Panel {
    Panel::traces(
        "Failed traces",
        "Traces in which this service failed. From a span, \"Logs for this span\" shows its lines. Empty \
            without Tempo, or when nothing failed.",
    )
    .none("no failed trace, or no Tempo")
    .spans("{resource.service.name=~\"$service\" && status=error}")
    .quiet()
}

fn resources() -> Vec<Panel> {
    let cpu = "sum by (pod) (max by (pod, container) \
        (rate(container_cpu_usage_seconds_total{@P,container!=\"\"}@R)))";
    let memory =
        "sum by (pod) (max by (pod, container) (container_memory_working_set_bytes{@P,container!=\"\"}))";
    vec![
        Panel::series("CPU", "Cores by pod. At the limit it is throttled, which shows as p99.")
            .size(8, 8)
            .unit("cores")
            .q(cpu, "{{pod}}")
            .q("max(kube_pod_container_resource_requests{@P,resource=\"cpu\"})", "request"),
        Panel::series("Memory", "Working set by pod. At the limit the kernel kills it.")
            .size(8, 8)
            .unit("bytes")
            .q(memory, "{{pod}}")
            .q("max(kube_pod_container_resource_limits{@P,resource=\"memory\"})", "limit"),
        Panel::table("Deploys", "ReplicaSets of this workload: when each was made. Deploys are lines in every \
            chart above.")
            .size(8, 8)
            .label("replicaset", "ReplicaSet")
            .value(
                "1000 * max by (replicaset) (kube_replicaset_created{@C,namespace=\"$namespace\"} and on (cluster, namespace, replicaset) \
                 kube_replicaset_owner{@C,namespace=\"$namespace\",owner_kind=\"Deployment\",owner_name=\"$workload\"})",
                "Made",
                "dateTimeFromNow",
            )
            .most("Made"),
    ]
}
