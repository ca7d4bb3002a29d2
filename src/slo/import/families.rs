//! Families of served requests that the agent takes RED from, and what their labels mean.
//!
//! In: the name of a series. Out: its [`Family`]. Invariant: only families that count in the application itself: what a
//! proxy counts has failures that the application never saw.

/// How an answer is written in a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `200`, `2xx`.
    Http,
    /// `OK`, `NotFound`, `5`.
    Grpc,
}

/// One library's names.
#[derive(Debug)]
pub(super) struct Family {
    /// Counter of requests; empty when the histogram counts them.
    pub(super) requests: &'static str,
    /// Histogram of durations, without suffix; empty when there is none.
    pub(super) duration: &'static str,
    /// Its units in a second.
    pub(super) per_second: f64,
    /// How the answer is written.
    pub(super) answer: Answer,
}

const fn http(requests: &'static str, duration: &'static str) -> Family {
    Family { requests, duration, per_second: 1.0, answer: Answer::Http }
}

const fn millis(duration: &'static str) -> Family {
    Family { requests: "", duration, per_second: 1_000.0, answer: Answer::Http }
}

/// All that are recognised.
pub(super) static FAMILIES: &[Family] = &[
    http("red_requests_total", "red_request_duration_seconds"),
    http("http_requests_total", "http_request_duration_seconds"),
    http("http_server_requests_total", "http_server_request_duration_seconds"),
    http("http_requests_received_total", ""),
    http("", "http_server_request_duration"),
    http("", "http_server_requests_seconds"),
    http("", "http_requests_duration_seconds"),
    http("axum_http_requests_total", "axum_http_requests_duration_seconds"),
    http("flask_http_request_total", "flask_http_request_duration_seconds"),
    http("starlette_requests_total", "starlette_request_duration_seconds"),
    http(
        "django_http_responses_total_by_status_view_method_total",
        "django_http_requests_latency_seconds_by_view_method",
    ),
    millis("http_server_duration_milliseconds"),
    millis("http_server_duration"),
    Family {
        requests: "grpc_server_handled_total",
        duration: "grpc_server_handling_seconds",
        per_second: 1.0,
        answer: Answer::Grpc,
    },
];

/// Families of proxies and meshes, by the beginnings of their names.
const PROXIES: [&str; 8] =
    ["nginx_", "traefik_", "istio_", "envoy_", "haproxy_", "caddy_", "response_total", "response_latency_ms"];

/// Labels of the answer.
pub(super) const STATUS: [&str; 11] = [
    "code",
    "code_class",
    "status",
    "status_code",
    "statusCode",
    "http_response_status_code",
    "http_status_code",
    "http_status",
    "response_code",
    "outcome",
    "grpc_code",
];
/// Labels of the namespace of the application.
pub(super) const NAMESPACE: [&str; 4] =
    ["namespace", "kubernetes_namespace", "k8s_namespace_name", "exported_namespace"];
/// Labels of the workload.
pub(super) const WORKLOAD: [&str; 7] = [
    "workload",
    "deployment",
    "statefulset",
    "daemonset",
    "k8s_deployment_name",
    "k8s_statefulset_name",
    "k8s_daemonset_name",
];
/// Labels of the service; `job` is one too, after others.
pub(super) const SERVICE: [&str; 4] = ["service", "service_name", "app", "application"];
/// Labels of the route.
pub(super) const ROUTE: [&str; 8] =
    ["route", "http_route", "path", "handler", "uri", "url_rule", "endpoint", "view"];

/// Which part of a family a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Counts requests.
    Count,
    /// Counts requests up to a bound.
    Bucket,
    /// A native histogram.
    Native,
}

/// The family that a series belongs to, and as what.
pub(super) fn of(name: &str) -> Option<(&'static Family, Part)> {
    FAMILIES.iter().find_map(|family| {
        if !family.requests.is_empty() && name == family.requests {
            return Some((family, Part::Count));
        }
        let rest = name.strip_prefix(family.duration).filter(|_| !family.duration.is_empty())?;
        match rest {
            "" => Some((family, Part::Native)),
            "_count" => Some((family, Part::Count)),
            "_bucket" => Some((family, Part::Bucket)),
            _ => None,
        }
    })
}

/// True for what a proxy counts.
pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|start| name.starts_with(start))
}
