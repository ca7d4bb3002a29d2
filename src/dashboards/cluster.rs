//! `nodewick-cluster`: nodes and pods, for those who run them.

use super::model::{Board, Need, Panel, Row, Variable};

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-cluster",
        title: "nodewick / Cluster",
        about: "For operators: are the nodes ready, do pods run, what restarts or is killed, and is there \
            room.",
        from: "now-6h",
        variables: vec![
            Variable::new("cluster", "Cluster", "label_values(kube_node_info, cluster)", Need::All(".*")),
            Variable::new(
                "namespace",
                "Namespace",
                "label_values(kube_pod_info{@C}, namespace)",
                Need::All(".*"),
            ),
        ],
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "Pods", panels: pods() },
            Row { title: "Room", panels: room() },
        ],
    }
}

/// Memory and CPU of containers, whoever tells them: the kubelet's cAdvisor, the agent, or both.
fn used(metric: &str, by: &str) -> String {
    format!("sum by ({by}) (max by (cluster, namespace, pod, container) ({metric}))")
}

const CPU: &str = "rate(container_cpu_usage_seconds_total{@N,container!=\"\"}@R)";
const MEMORY: &str = "container_memory_working_set_bytes{@N,container!=\"\"}";

fn requested(resource: &str, by: &str) -> String {
    format!(
        "sum by ({by}) (max by (cluster, namespace, pod, container) \
            (kube_pod_container_resource_requests{{@N,resource=\"{resource}\"}}))"
    )
}

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Nodes not ready",
            "Nodes that the control plane has lost, or whose kubelet is in \
            trouble. Their pods move after five minutes.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .q(
            "sum(max by (cluster, node) \
                    (kube_node_status_condition{@C,condition=\"Ready\",status=\"true\"}) == bool 0)",
            "not ready",
        ),
        Panel::stat("Nodes", "Nodes of the clusters chosen.").q(
            "count(count by (cluster, node) \
            (kube_node_info{@C}))",
            "nodes",
        ),
        Panel::stat(
            "Pods not running",
            "Pods that are pending, failed or unknown. The table below names them.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "orange", "")])
        .q("sum(kube_pod_status_phase{@N,phase=~\"Pending|Failed|Unknown\"})", "pods"),
        Panel::stat(
            "Restarts in an hour",
            "Containers that were started anew. A few are deploys that went wrong.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "yellow", ""), (10.0, "red", "")])
        .q("sum(increase(kube_pod_container_status_restarts_total{@N}[1h]))", "restarts"),
        Panel::stat(
            "CPU requested",
            "Of what nodes can give. Near 100% nothing more is scheduled, whatever \
            is in use.",
        )
        .unit("percentunit")
        .levels(&[(0.0, "green", ""), (0.8, "yellow", ""), (0.95, "red", "")])
        .q(
            "sum(kube_pod_container_resource_requests{@C,resource=\"cpu\"}) / \
                    sum(kube_node_status_allocatable{@C,resource=\"cpu\"})",
            "requested",
        ),
        Panel::stat("Memory requested", "Of what nodes can give. Near 100% nothing more is scheduled.")
            .unit("percentunit")
            .levels(&[(0.0, "green", ""), (0.8, "yellow", ""), (0.95, "red", "")])
            .q(
                "sum(kube_pod_container_resource_requests{@C,resource=\"memory\"}) / \
                    sum(kube_node_status_allocatable{@C,resource=\"memory\"})",
                "requested",
            ),
    ]
}

fn pods() -> Vec<Panel> {
    vec![
        Panel::stacked("Pods by phase", "Pending that stays: no room, no image, or a volume that is not there.")
            .size(8, 8)
            .q("sum by (phase) (kube_pod_status_phase{@N}) > 0", "{{phase}}"),
        Panel::series("Restarts by container", "The ten containers that restart most. Saw teeth are crash loops.")
            .size(8, 8)
            .q(
                "topk(10, sum by (namespace, pod, container) \
                    (increase(kube_pod_container_status_restarts_total{@N}[1h])) > 0)",
                "{{namespace}}/{{pod}}/{{container}}",
            )
            .quiet()
            .none("nothing restarts"),
        Panel::table("Ended by the kernel for memory", "Containers whose last end was OOMKilled. Raise the \
            limit, or find the leak.")
            .size(8, 8)
            .none("none")
            .label("namespace", "Namespace")
            .label("pod", "Pod")
            .label("container", "Container")
            .value(
                "max by (namespace, pod, container) (kube_pod_container_status_last_terminated_reason{@N,reason=\"OOMKilled\"}) \
                 * on (namespace, pod, container) max by (namespace, pod, container) (kube_pod_container_status_restarts_total{@N}) > 0",
                "Restarts",
                "none",
            )
            .quiet()
            .most("Restarts"),
        Panel::table("Pods that do not run", "Pending, failed or unknown. `kubectl describe` says why; the \
            agent's lines of the pod say what it said last.")
            .size(12, 8)
            .none("every pod runs")
            .label("namespace", "Namespace")
            .label("pod", "Pod")
            .label("phase", "Phase")
            .value("max by (namespace, pod, phase) \
                (kube_pod_status_phase{@N,phase=~\"Pending|Failed|Unknown\"}) > 0", "State", "none")
            .quiet()
            .column_levels(&[(0.0, "green", "runs"), (1.0, "orange", "does not run")])
            .least("Namespace"),
        Panel::table("Deployments short of pods", "Wanted and available pods where these differ: a rollout \
            under way, or one that is stuck.")
            .size(12, 8)
            .none("every Deployment has its pods")
            .label("namespace", "Namespace")
            .label("deployment", "Deployment")
            .value(
                "max by (namespace, deployment) (kube_deployment_spec_replicas{@N}) - on (namespace, deployment) \
                 max by (namespace, deployment) (kube_deployment_status_replicas_available{@N}) > 0",
                "Missing",
                "none",
            )
            .quiet()
            .most("Missing"),
    ]
}

fn room() -> Vec<Panel> {
    vec![
        Panel::table("Nodes by what is requested", "Readiness and what is requested of each node. An uneven \
            cluster has pods that are pinned.")
            .size(24, 8)
            .label("node", "Node")
            .value(
                "max by (cluster, node) (kube_node_status_condition{@C,condition=\"Ready\",status=\"true\"})",
                "Ready",
                "none",
            )
            .column_levels(&[(0.0, "red", "not ready"), (1.0, "green", "ready")])
            .value("count by (cluster, node) (kube_pod_info{@C,node!=\"\"})", "Pods", "none")
            .value(
                "sum by (cluster, node) (kube_pod_container_resource_requests{@C,resource=\"cpu\"}) \
                 / on (cluster, node) sum by (cluster, node) (kube_node_status_allocatable{@C,resource=\"cpu\"})",
                "CPU requested",
                "percentunit",
            )
            .column_levels(&[(0.0, "green", ""), (0.8, "yellow", ""), (0.95, "red", "")])
            .value(
                "sum by (cluster, node) (kube_pod_container_resource_requests{@C,resource=\"memory\"}) \
                 / on (cluster, node) sum by (cluster, node) (kube_node_status_allocatable{@C,resource=\"memory\"})",
                "Memory requested",
                "percentunit",
            )
            .column_levels(&[(0.0, "green", ""), (0.8, "yellow", ""), (0.95, "red", "")])
            .label("cluster", "Cluster")
            .least("Ready"),
        Panel::series("CPU used by requested", "By namespace. Far below 100%: requests hold room that nobody \
            uses. Above: it lives on what others leave.")
            .unit("percentunit")
            .levels(&[(0.0, "green", ""), (1.0, "orange", "")])
            .q(&format!("{} / on (namespace) ({} > 0)", used(CPU, "namespace"), requested("cpu", "namespace")), "{{namespace}}"),
        Panel::series("Memory used by requested", "By namespace. Above 100% pods are the first to be evicted \
            when a node runs short.")
            .unit("percentunit")
            .levels(&[(0.0, "green", ""), (1.0, "orange", "")])
            .q(
                &format!("{} / on (namespace) ({} > 0)", used(MEMORY, "namespace"), requested("memory", "namespace")),
                "{{namespace}}",
            ),
        Panel::table("Containers by memory of limit", "Who is killed next: the working set by the limit. \
            Above 90% raise the limit or find the leak.")
            .size(12, 9)
            .label("namespace", "Namespace")
            .label("pod", "Pod")
            .label("container", "Container")
            .value(
                &format!(
                    "topk(20, max by (namespace, pod, container) ({MEMORY}) / on (namespace, pod, container) \
                     max by (namespace, pod, container) (kube_pod_container_resource_limits{{@N,resource=\"memory\"}}))"
                ),
                "Of limit",
                "percentunit",
            )
            .column_levels(&[(0.0, "green", ""), (0.8, "yellow", ""), (0.9, "red", "")])
            .most("Of limit"),
        Panel::table("Containers by CPU throttling", "The share of periods in which the CPU limit stopped it. \
            It shows as slow requests: raise or remove the limit.")
            .size(12, 9)
            .none("nobody is throttled")
            .label("namespace", "Namespace")
            .label("pod", "Pod")
            .label("container", "Container")
            .value(
                "topk(20, max by (namespace, pod, container) (rate(container_cpu_cfs_throttled_periods_total{@N,container!=\"\"}@R)) \
                 / on (namespace, pod, container) (max by (namespace, pod, container) (rate(container_cpu_cfs_periods_total{@N,container!=\"\"}@R)) > 0))",
                "Throttled",
                "percentunit",
            )
            .quiet()
            .column_levels(&[(0.0, "green", ""), (0.05, "yellow", ""), (0.25, "red", "")])
            .most("Throttled"),
    ]
}
