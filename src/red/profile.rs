//! Profiles: how libraries, meshes and proxies name their request metrics. One row a profile.
//!
//! In: the families of a scraped page. Out: the row that applies, and whether it has all that RED needs.
//! The first row with status and histogram wins; without one, the first with a status.
//! `promhttp_metric_handler_*` counts scrapes themselves and is in no row.

use std::sync::LazyLock;

use foldhash::{HashMap, HashMapExt};

use super::words::Class;
use crate::data::sample::{NONE, Page, Sample};

/// How a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `200`, `2xx`, `2`.
    Http,
    /// `OK`, `NotFound`, `5`.
    Grpc,
    /// `STATUS_CODE_ERROR`.
    Span,
}

/// Who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// The application itself.
    App,
    /// A proxy, which counts the same requests if it stands beside the application.
    Proxy,
    /// A collector, which counts for others: the service is in a label.
    Collector,
}

/// A row: where the figures are in one library's page.
#[derive(Debug)]
pub(super) struct Profile {
    /// As in `red_source_info`.
    pub(super) name: &'static str,
    /// Counter of requests by status; empty when the histogram's `_count` has the status.
    pub(super) requests: &'static str,
    /// Histogram of durations, without suffix.
    pub(super) duration: &'static str,
    /// Its units in a second.
    pub(super) per_second: f64,
    /// Whether families may have a prefix before the names above: the application's own, as some libraries ask for one.
    pub(super) any_prefix: bool,
    /// How the status is written.
    pub(super) answer: Answer,
    /// A label with the gRPC code, which says more than the status where it has a value; may be empty.
    pub(super) grpc_code: &'static str,
    /// Labels of the status, the first that is there.
    pub(super) status: &'static [&'static str],
    /// Labels of the method.
    pub(super) method: &'static [&'static str],
    /// Labels of the route.
    pub(super) route: &'static [&'static str],
    /// A label that must have this value.
    pub(super) only: Option<(&'static str, &'static str)>,
    /// A label that must not have this value.
    pub(super) never: Option<(&'static str, &'static str)>,
    /// Who counted.
    pub(super) layer: Layer,
}

/// Labels of a status by library: prom-client and starlette_exporter `status_code`, client_golang and prometheus-net `code`,
/// FastAPI's, axum's, actix's and Flask's `status`.
const STATUS: &[&str] = &[
    "status_code",
    "code",
    "status",
    "statusCode",
    "http_response_status_code",
    "http_status_code",
    "http_status",
    "response_code",
];
const METHOD: &[&str] = &["method", "http_request_method", "http_method", "request_method", "verb"];
/// Labels of a route: prom-client `route`, express-prom-bundle and Flask `path`, FastAPI `handler`, axum, actix and
/// prometheus-net `endpoint`; prometheus-net's `action` where endpoints are not asked for.
const ROUTE: &[&str] =
    &["route", "http_route", "path", "handler", "endpoint", "uri", "url", "url_rule", "action"];

/// What most rows share.
const HTTP: Profile = Profile {
    name: "",
    requests: "",
    duration: "",
    per_second: 1.0,
    any_prefix: false,
    answer: Answer::Http,
    grpc_code: "",
    status: STATUS,
    method: METHOD,
    route: ROUTE,
    only: None,
    never: None,
    layer: Layer::App,
};

/// All rows, the most telling first. Each names where its names were read.
pub(super) static PROFILES: &[Profile] = &[
    // OpenTelemetry "Semantic conventions for HTTP metrics", stable since 1.23: `http.server.request.duration` in s. So
    // Prometheus exporters of Go, Java, Python and .NET (ASP.NET Core 8 and later) name it; Python writes an absent label "".
    Profile {
        name: "otel_http",
        duration: "http_server_request_duration_seconds",
        status: &["http_response_status_code"],
        method: &["http_request_method"],
        route: &["http_route"],
        ..HTTP
    },
    // The same by @opentelemetry/exporter-prometheus 0.2xx (Node): it appends no unit.
    Profile {
        name: "otel_http_node",
        duration: "http_server_request_duration",
        status: &["http_response_status_code"],
        method: &["http_request_method"],
        route: &["http_route"],
        ..HTTP
    },
    // Semantic conventions before 1.23: `http.server.duration` in ms (http.method, http.status_code); Python's WSGI and
    // ASGI instrumentations have the route in http.target.
    Profile {
        name: "otel_http_old",
        duration: "http_server_duration_milliseconds",
        per_second: 1000.0,
        status: &["http_status_code"],
        method: &["http_method"],
        route: &["http_route", "http_target"],
        ..HTTP
    },
    // The same by Node's exporter, which appends no unit.
    Profile {
        name: "otel_http_old_node",
        duration: "http_server_duration",
        per_second: 1000.0,
        status: &["http_status_code"],
        method: &["http_method"],
        route: &["http_route", "http_target"],
        ..HTTP
    },
    // prom-client users by convention; fastify-metrics 12 `dist/fastify-metrics.js` (method, route, status_code);
    // express-prom-bundle 8 (status_code, method, path); prometheus-net `HttpRequestDurationMiddleware.cs`,
    // `HttpRequestLabelNames.cs` (code, method, controller, action, endpoint); client_golang
    // `examples/middleware/httpmiddleware` where the histogram has a code.
    Profile { name: "http_request_duration", duration: "http_request_duration_seconds", ..HTTP },
    // client_golang `examples/middleware/httpmiddleware/httpmiddleware.go` (both with method and code);
    // prometheus-fastapi-instrumentator 8 `metrics.py` (handler, method, status as 2xx), whose histogram has no status.
    Profile {
        name: "http_requests_total",
        requests: "http_requests_total",
        duration: "http_request_duration_seconds",
        ..HTTP
    },
    // Spring Framework `DefaultServerRequestObservationConvention` with Micrometer's Prometheus names: method, uri, status,
    // outcome; a client that went away is status UNKNOWN there and RESET in Quarkus. Buckets only where
    // `management.metrics.distribution.percentiles-histogram` asks for them.
    Profile {
        name: "spring",
        duration: "http_server_requests_seconds",
        status: &["status"],
        method: &["method"],
        route: &["uri"],
        ..HTTP
    },
    // actix-web-prom and axum-prometheus, both `src/lib.rs`: endpoint, method, status. Both ask for a namespace or take a
    // prefix (`api_`, by default `axum_`).
    Profile {
        name: "rust_http",
        duration: "http_requests_duration_seconds",
        any_prefix: true,
        status: &["status"],
        method: &["method"],
        route: &["endpoint"],
        ..HTTP
    },
    // prometheus_flask_exporter 0.23 `__init__.py`: method, status, and path, endpoint or url_rule as it groups.
    Profile { name: "flask", duration: "flask_http_request_duration_seconds", ..HTTP },
    // starlette_exporter 0.24 `middleware.py`: app_name, method, path, status_code. Unknown paths are not counted.
    Profile {
        name: "starlette",
        requests: "starlette_requests_total",
        duration: "starlette_request_duration_seconds",
        ..HTTP
    },
    // django-prometheus 2.5 `middleware.py`: status in one counter, durations in a histogram by view and method.
    Profile {
        name: "django",
        requests: "django_http_responses_total_by_status_view_method_total",
        duration: "django_http_requests_latency_seconds_by_view_method",
        route: &["view"],
        ..HTTP
    },
    // prometheus-net `HttpRequestCountMiddleware.cs` (code, method, controller, action), where its histogram has no code.
    Profile {
        name: "aspnet",
        requests: "http_requests_received_total",
        duration: "http_request_duration_seconds",
        ..HTTP
    },
    // go-grpc-middleware `providers/prometheus/server_metrics.go` and go-grpc-prometheus before it: grpc_type,
    // grpc_service, grpc_method, grpc_code; the histogram has no code and is off by default.
    Profile {
        name: "grpc",
        requests: "grpc_server_handled_total",
        duration: "grpc_server_handling_seconds",
        answer: Answer::Grpc,
        status: &["grpc_code"],
        method: &[],
        route: &["grpc_service", "grpc_method"],
        ..HTTP
    },
    // gRPC proposal A66 "OpenTelemetry metrics": `grpc.server.call.duration` in s, grpc.method (`pkg.Service/Method`),
    // grpc.status.
    Profile {
        name: "grpc_otel",
        duration: "grpc_server_call_duration_seconds",
        answer: Answer::Grpc,
        status: &["grpc_status"],
        method: &[],
        route: &["grpc_method"],
        ..HTTP
    },
    // OpenTelemetry "Semantic conventions for RPC metrics" up to 1.37: `rpc.server.duration` in ms.
    Profile {
        name: "otel_rpc",
        duration: "rpc_server_duration_milliseconds",
        per_second: 1000.0,
        answer: Answer::Grpc,
        status: &["rpc_grpc_status_code"],
        method: &[],
        route: &["rpc_service", "rpc_method"],
        ..HTTP
    },
    // ingress-nginx `internal/ingress/metric/collectors/socket.go`, `requestTags`: status, method, path, namespace, ingress,
    // service, canary, host. 499 is a client that went away.
    Profile {
        name: "ingress_nginx",
        duration: "nginx_ingress_controller_request_duration_seconds",
        status: &["status"],
        method: &["method"],
        route: &["path"],
        ..HTTP
    },
    // Traefik 2 and 3 `pkg/observability/metrics/prometheus.go`: code, method, protocol, service. By service first, as entry
    // points count their own /metrics and pings.
    Profile {
        name: "traefik",
        duration: "traefik_service_request_duration_seconds",
        status: &["code"],
        method: &["method"],
        route: &["service"],
        ..HTTP
    },
    Profile {
        name: "traefik_entrypoint",
        duration: "traefik_entrypoint_request_duration_seconds",
        status: &["code"],
        method: &["method"],
        route: &["entrypoint"],
        never: Some(("entrypoint", "traefik")),
        ..HTTP
    },
    // Istio "Standard metrics": both sides report, the destination's is the service's own; response_code is 0 where the client
    // went away, and gRPC failures are 200 with grpc_response_status.
    Profile {
        name: "istio",
        requests: "istio_requests_total",
        duration: "istio_request_duration_milliseconds",
        per_second: 1000.0,
        grpc_code: "grpc_response_status",
        status: &["response_code"],
        method: &["request_method"],
        route: &["request_operation"],
        only: Some(("reporter", "destination")),
        layer: Layer::Proxy,
        ..HTTP
    },
    // Linkerd "Proxy metrics": by direction; response_total has status_code and, of gRPC, grpc_status_code;
    // response_latency_ms has status_code. Both of requests that the pod's own application served are inbound.
    Profile {
        name: "linkerd",
        requests: "response_total",
        duration: "response_latency_ms",
        per_second: 1000.0,
        grpc_code: "grpc_status_code",
        status: &["status_code"],
        method: &[],
        route: &["rt_route", "route_name"],
        only: Some(("direction", "inbound")),
        layer: Layer::Proxy,
        ..HTTP
    },
    // Envoy "HTTP connection manager statistics" as its Prometheus endpoint writes them: classes as one digit, durations in
    // ms, envoy_http_conn_manager_prefix; `admin` counts scrapes.
    Profile {
        name: "envoy",
        requests: "envoy_http_downstream_rq_xx",
        duration: "envoy_http_downstream_rq_time",
        per_second: 1000.0,
        status: &["envoy_response_code_class"],
        method: &[],
        route: &[],
        never: Some(("envoy_http_conn_manager_prefix", "admin")),
        layer: Layer::Proxy,
        ..HTTP
    },
    // Tempo `modules/generator/processor/spanmetrics/spanmetrics.go`: service, span_name, span_kind, status_code; in s.
    Profile {
        name: "tempo_spanmetrics",
        requests: "traces_spanmetrics_calls_total",
        duration: "traces_spanmetrics_latency",
        ..SPANS
    },
    // The collector's spanmetricsconnector `connector.go`: service.name, span.name, span.kind, status.code; with its default
    // namespace `traces.span.metrics` and, of old, without; in ms, later in s.
    Profile {
        name: "collector_spanmetrics_ms",
        requests: "traces_span_metrics_calls_total",
        duration: "traces_span_metrics_duration_milliseconds",
        per_second: 1000.0,
        ..SPANS
    },
    Profile {
        name: "collector_spanmetrics",
        requests: "traces_span_metrics_calls_total",
        duration: "traces_span_metrics_duration_seconds",
        ..SPANS
    },
    Profile {
        name: "collector_calls_ms",
        requests: "calls_total",
        duration: "duration_milliseconds",
        per_second: 1000.0,
        ..SPANS
    },
    Profile { name: "collector_calls", requests: "calls_total", duration: "duration_seconds", ..SPANS },
];

/// What rows of span metrics share.
const SPANS: Profile = Profile {
    answer: Answer::Span,
    status: &["status_code"],
    method: &["http_request_method", "http_method"],
    route: &["span_name"],
    only: Some(("span_kind", "SPAN_KIND_SERVER")),
    layer: Layer::Collector,
    ..HTTP
};

/// Labels in which a collector names the service.
pub(super) const SERVICE: &[&str] = &["service", "service_name"];

/// What a sample is in its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Requests by status.
    Requests,
    /// Cumulative requests up to a bound.
    Bucket,
    /// All requests with a duration.
    Count,
    /// Their durations together.
    Sum,
}

/// The row that applies to a page.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Index in [`PROFILES`].
    pub(super) row: usize,
    /// It has a status and a histogram.
    pub(super) is_full: bool,
}

/// Rows by every name that one of their families may go by: typed, in OpenMetrics, and without a type.
static BY_FAMILY: LazyLock<HashMap<Vec<u8>, u64>> = LazyLock::new(|| {
    let mut rows: HashMap<Vec<u8>, u64> = HashMap::new();
    for (index, row) in PROFILES.iter().enumerate() {
        let mut add = |name: String| *rows.entry(name.into_bytes()).or_default() |= 1 << index;
        add(row.duration.to_owned());
        for suffix in ["_bucket", "_count", "_sum"] {
            add(format!("{}{suffix}", row.duration));
        }
        if !row.requests.is_empty() {
            add(row.requests.to_owned());
            add(row.requests.trim_end_matches("_total").to_owned());
        }
    }
    rows
});

/// Rows that a family with a prefix may belong to.
fn prefixed(name: &[u8]) -> u64 {
    // What all of them end in; asked of every family of every page.
    let family = name.strip_suffix(suffix_of(name)).filter(|_| !name.ends_with(b"_seconds")).unwrap_or(name);
    if !family.ends_with(b"_duration_seconds") {
        return 0;
    }
    let own =
        |(index, row): (usize, &Profile)| if row.any_prefix && row.names(family) { 1 << index } else { 0 };
    PROFILES.iter().enumerate().map(own).fold(0, |rows, own| rows | own)
}

impl Profile {
    /// What a sample of that name is; `None` for one of other families.
    pub(super) fn role(&self, name: &[u8]) -> Option<Role> {
        if name == self.requests.as_bytes() && !self.requests.is_empty() {
            return Some(Role::Requests);
        }
        let at = if self.any_prefix {
            name.len().checked_sub(suffix_of(name).len())?
        } else {
            self.duration.len()
        };
        let (family, suffix) = name.split_at_checked(at)?;
        if !self.names(family) {
            return None;
        }
        match suffix {
            b"_bucket" => Some(Role::Bucket),
            b"_count" => Some(Role::Count),
            b"_sum" => Some(Role::Sum),
            _ => None,
        }
    }

    /// Whether a family is this one's histogram.
    pub(super) fn names(&self, family: &[u8]) -> bool {
        let own = self.duration.as_bytes();
        family == own
            || self.any_prefix && family.strip_suffix(own).is_some_and(|prefix| prefix.ends_with(b"_"))
    }

    /// True when the sample is one of those that count here.
    pub(super) fn wants(&self, page: &Page, sample: &Sample) -> bool {
        self.only.is_none_or(|(name, value)| page.label(sample, name.as_bytes()) == Some(value.as_bytes()))
            && self
                .never
                .is_none_or(|(name, value)| page.label(sample, name.as_bytes()) != Some(value.as_bytes()))
    }

    /// The class that a sample's status says.
    pub(super) fn class(&self, page: &Page, sample: &Sample) -> Option<Class> {
        if let Some(code) = page.label(sample, self.grpc_code.as_bytes()).filter(|code| !code.is_empty()) {
            return Class::of_grpc(code);
        }
        let status = first(page, sample, self.status)?;
        match self.answer {
            // Quarkus' word for a client that went away.
            Answer::Http if status == b"RESET" => Some(Class::ABORTED),
            Answer::Http => Class::of_http(status),
            Answer::Grpc => Class::of_grpc(status),
            Answer::Span => Class::of_span(status),
        }
    }

    /// True when the histogram's own count has the status.
    pub(super) fn counts_by_histogram(&self) -> bool {
        self.requests.is_empty()
    }
}

/// What a sample of a histogram has behind its family's name.
fn suffix_of(name: &[u8]) -> &[u8] {
    name.iter().rposition(|byte| *byte == b'_').map_or(&[], |at| &name[at..])
}

/// The first of some labels that a sample has with a value.
pub(super) fn first<'a>(page: &'a Page, sample: &Sample, names: &[&str]) -> Option<&'a [u8]> {
    names.iter().find_map(|name| page.label(sample, name.as_bytes()).filter(|value| !value.is_empty()))
}

/// The profile of a page; `None` when it has no request metrics with a status.
///
/// `families` receives the page's families that any profile could mean.
pub(super) fn find(page: &Page, families: &mut Vec<u32>) -> Option<Found> {
    families.clear();
    let mut rows = 0_u64;
    for (index, family) in page.families.iter().enumerate() {
        let name = page.bytes(family.name);
        let own = match BY_FAMILY.get(name) {
            Some(own) => *own,
            None => prefixed(name),
        };
        if own != 0 {
            rows |= own;
            families.push(index as u32);
        }
    }
    let mut partial = None;
    while rows != 0 {
        let index = rows.trailing_zeros() as usize;
        rows &= rows - 1;
        let row = &PROFILES[index];
        let (mut status, mut bucket) = (false, false);
        for sample in page.samples.iter().filter(|sample| families.contains(&sample.family)) {
            let name = page.bytes(sample.name);
            // A native histogram is count, sum and buckets at once.
            let is_native = sample.histogram != NONE && row.names(name);
            let Some(role) = row.role(name).or(is_native.then_some(Role::Count)) else { continue };
            if !row.wants(page, sample) {
                continue;
            }
            bucket |= is_native;
            match role {
                Role::Bucket => bucket = true,
                Role::Requests => status |= row.class(page, sample).is_some(),
                Role::Count if row.counts_by_histogram() => status |= row.class(page, sample).is_some(),
                Role::Count | Role::Sum => {}
            }
            if status && bucket {
                return Some(Found { row: index, is_full: true });
            }
        }
        if status && partial.is_none() {
            partial = Some(Found { row: index, is_full: false });
        }
    }
    partial
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sample::MetricKind;

    fn find_in(samples: &[(&str, &[(&str, &str)])]) -> Option<(&'static str, bool)> {
        let mut page = Page::default();
        for (name, labels) in samples {
            page.begin_family(name, MetricKind::Unknown, "");
            page.push_sample(name, labels.iter().copied(), 1.0);
        }
        find(&page, &mut Vec::new()).map(|found| (PROFILES[found.row].name, found.is_full))
    }

    #[test]
    fn the_first_row_with_status_and_histogram_wins() {
        let bucket = ("http_request_duration_seconds_bucket", &[("code", "200"), ("le", "1")][..]);
        let count = ("http_request_duration_seconds_count", &[("code", "200")][..]);
        assert_eq!(find_in(&[bucket, count]), Some(("http_request_duration", true)));
        // FastAPI: the histogram has no status, the counter has.
        let requests = ("http_requests_total", &[("status", "2xx"), ("handler", "/a")][..]);
        let bare = ("http_request_duration_seconds_bucket", &[("handler", "/a"), ("le", "1")][..]);
        assert_eq!(find_in(&[bare, requests]), Some(("http_requests_total", true)));
        assert_eq!(find_in(&[requests]), Some(("http_requests_total", false)));
        assert_eq!(find_in(&[bare]), None);
        assert_eq!(find_in(&[("promhttp_metric_handler_requests_total", &[("code", "200")])]), None);
    }

    #[test]
    fn of_a_mesh_only_the_destination_counts() {
        let by = |reporter| {
            find_in(&[
                ("istio_requests_total", &[("reporter", reporter), ("response_code", "200")]),
                ("istio_request_duration_milliseconds_bucket", &[("reporter", reporter), ("le", "5")]),
            ])
        };
        assert_eq!(by("source"), None);
        assert_eq!(by("destination"), Some(("istio", true)));
    }

    #[test]
    fn rows_fit_the_mask_and_have_names_of_their_own() {
        assert!(PROFILES.len() <= 64);
        for (index, row) in PROFILES.iter().enumerate() {
            assert!(!row.name.is_empty() && !row.duration.is_empty() && row.per_second >= 1.0);
            assert!(PROFILES[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }
}
