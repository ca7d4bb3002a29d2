//! Metrics that dashboards may name and the agent's own table does not have.
//!
//! In: nothing. Out: names with who exports them. Invariant: each is documented by its exporter; a name that nobody has is
//! found by the test that runs every query.

/// Who exports a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exporter {
    /// The agent, of the workloads on its node.
    Agent,
    /// Prometheus, by the rendered rules; their names end in a range.
    Rules,
    /// Prometheus itself.
    Prometheus,
    /// kube-state-metrics 2.
    KubeState,
    /// The kubelet's cAdvisor, or the agent's `[host]`.
    Cadvisor,
    /// prom-client's default metrics.
    PromClient,
}

/// Families by exporter.
pub const EXTERNAL: &[(Exporter, &[&str])] = &[
    (
        Exporter::Agent,
        &[
            "red_requests_total",
            "red_request_duration_seconds_bucket",
            "red_request_duration_seconds_count",
            "red_source_info",
            "red_source_lag_seconds",
        ],
    ),
    (
        Exporter::Rules,
        &[
            "slo:sli_events:increase",
            "slo:sli_errors:increase",
            "slo:sli_error:ratio_rate",
            "slo:burn_rate:ratio_rate",
            "slo:window_coverage:ratio",
            "slo:error_budget_remaining:ratio",
            "slo:objective:ratio",
            "slo:error_budget:ratio",
            "slo:time_period:days",
            "slo:info",
        ],
    ),
    (Exporter::Prometheus, &["ALERTS", "ALERTS_FOR_STATE"]),
    (
        Exporter::KubeState,
        &[
            "kube_deployment_spec_replicas",
            "kube_deployment_status_replicas_available",
            "kube_deployment_status_replicas_ready",
            "kube_node_info",
            "kube_node_status_allocatable",
            "kube_node_status_condition",
            "kube_pod_container_resource_limits",
            "kube_pod_container_resource_requests",
            "kube_pod_container_status_last_terminated_reason",
            "kube_pod_container_status_restarts_total",
            "kube_pod_info",
            "kube_pod_status_phase",
            "kube_replicaset_created",
            "kube_replicaset_owner",
        ],
    ),
    (
        Exporter::Cadvisor,
        &[
            "container_cpu_cfs_periods_total",
            "container_cpu_cfs_throttled_periods_total",
            "container_cpu_usage_seconds_total",
            "container_memory_working_set_bytes",
        ],
    ),
    (
        Exporter::PromClient,
        &[
            "nodejs_active_handles_total",
            "nodejs_active_requests_total",
            "nodejs_eventloop_lag_p50_seconds",
            "nodejs_eventloop_lag_p99_seconds",
            "nodejs_external_memory_bytes",
            "nodejs_gc_duration_seconds_sum",
            "nodejs_heap_size_total_bytes",
            "nodejs_heap_size_used_bytes",
            "nodejs_heap_space_size_used_bytes",
            "nodejs_version_info",
            "process_cpu_seconds_total",
            "process_cpu_system_seconds_total",
            "process_cpu_user_seconds_total",
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ],
    ),
];

/// Who exports a metric of other origin than the agent's own page.
pub fn exporter(name: &str) -> Option<Exporter> {
    EXTERNAL.iter().find_map(|(exporter, names)| {
        let known = names.iter().any(|own| {
            let Some(rest) = name.strip_prefix(own) else { return false };
            rest.is_empty() || *exporter == Exporter::Rules && is_range(rest)
        });
        known.then_some(*exporter)
    })
}

/// `5m`, `30d`.
fn is_range(text: &str) -> bool {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    matches!(unit, "m" | "h" | "d") && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_series_end_in_a_range_and_others_do_not() {
        assert_eq!(exporter("slo:sli_error:ratio_rate5m"), Some(Exporter::Rules));
        assert_eq!(exporter("slo:info"), Some(Exporter::Rules));
        assert_eq!(exporter("slo:sli_error:ratio_rateX"), None);
        assert_eq!(exporter("kube_pod_info"), Some(Exporter::KubeState));
        assert_eq!(exporter("kube_pod_info5m"), None);
    }
}
