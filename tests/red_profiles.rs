//! Every profile on a page of its library: what it is taken for, and that each request in it is counted once.
//!
//! The pages in `tests/corpus/red` are dumps of the libraries where they run here, else typed after their sources; the
//! first line of each says which.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nodewick::data::sample::{NO_TIME, Origin, OriginKind, Page, Sample};
use nodewick::red::{Config, Red};
use nodewick::scrape::exposition::{Limits, parse};
use nodewick::scrape::{Body, Config as Scrape, Dialect};

/// A page, the profile that it must be taken for, its requests (`class method route`), and the observations of its
/// histogram at a bound.
struct Case {
    page: &'static str,
    profile: &'static str,
    requests: &'static [(&'static str, f64)],
    at: (&'static str, f64),
    observed: f64,
}

const fn case(
    page: &'static str,
    profile: &'static str,
    requests: &'static [(&'static str, f64)],
    at: (&'static str, f64),
    observed: f64,
) -> Case {
    Case { page, profile, requests, at, observed }
}

const CASES: &[Case] = &[
    case(
        "otel-python",
        "otel_http",
        &[("2xx GET /orders/<id>", 2.0), ("5xx GET /fail/<id>", 1.0), ("4xx GET __unmatched__", 1.0)],
        ("10", 4.0),
        4.0,
    ),
    case(
        "otel-node",
        "otel_http_node",
        &[("2xx GET __unknown__", 2.0), ("5xx GET __unknown__", 1.0), ("4xx GET __unmatched__", 1.0)],
        ("10", 4.0),
        4.0,
    ),
    case(
        "otel-python-old",
        "otel_http_old",
        &[("2xx GET /orders/<id>", 2.0), ("5xx GET /fail/<id>", 1.0), ("4xx GET __unmatched__", 1.0)],
        ("0.005", 3.0),
        4.0,
    ),
    case("otel-node-old", "otel_http_old_node", &[("2xx GET /orders/:id", 2.0)], ("0.005", 1.0), 2.0),
    case("client-golang-middleware", "http_request_duration", &[("2xx GET /orders", 2.0)], ("0.1", 1.0), 2.0),
    case("prometheus-net", "http_request_duration", &[("2xx GET orders/{id}", 2.0)], ("0.128", 1.0), 2.0),
    case(
        "fastapi-instrumentator",
        "http_requests_total",
        &[("2xx GET /orders/{id}", 2.0), ("5xx GET /fail/{id}", 1.0), ("4xx GET __unmatched__", 1.0)],
        ("1", 4.0),
        4.0,
    ),
    case("spring", "spring", &[("2xx GET /orders/{id}", 2.0), ("4xx GET /**", 1.0)], ("0.1", 2.0), 3.0),
    case("quarkus", "spring", &[("aborted GET /slow", 1.0)], ("+Inf", 1.0), 1.0),
    case("axum", "rust_http", &[("2xx GET /orders/{id}", 2.0)], ("0.1", 1.0), 2.0),
    case("actix", "rust_http", &[("2xx GET /orders/{id}", 2.0)], ("0.1", 1.0), 2.0),
    case(
        "prometheus-flask-exporter",
        "flask",
        &[("2xx GET /orders/{id}", 2.0), ("5xx GET /fail/{id}", 1.0), ("4xx GET __unmatched__", 1.0)],
        ("0.5", 4.0),
        4.0,
    ),
    case(
        "starlette-exporter",
        "starlette",
        &[("2xx GET /orders/{id}", 2.0), ("5xx GET /fail/{id}", 1.0)],
        ("1", 3.0),
        3.0,
    ),
    case(
        "django-prometheus",
        "django",
        &[("2xx GET order", 2.0), ("5xx GET __main__.f", 1.0), ("4xx GET __unmatched__", 1.0)],
        ("1", 4.0),
        4.0,
    ),
    case(
        "go-grpc-middleware",
        "grpc",
        &[
            ("2xx POST /shop.Orders/Get", 2.0),
            ("4xx POST /shop.Orders/Get", 1.0),
            ("5xx POST /shop.Orders/Get", 3.0),
        ],
        ("0.1", 5.0),
        6.0,
    ),
    case("grpc-otel", "grpc_otel", &[("2xx POST /shop.Orders/Get", 2.0)], ("0.1", 1.0), 2.0),
    case("otel-rpc", "otel_rpc", &[("2xx POST /shop.Orders/Get", 2.0)], ("0.1", 1.0), 2.0),
    case(
        "ingress-nginx",
        "ingress_nginx",
        &[("2xx GET /orders", 2.0), ("aborted GET /orders", 1.0)],
        ("0.1", 1.0),
        3.0,
    ),
    case("traefik", "traefik", &[("2xx GET api@docker", 2.0)], ("0.1", 1.0), 2.0),
    case("traefik-entrypoint", "traefik_entrypoint", &[("2xx GET web", 2.0)], ("0.1", 1.0), 2.0),
    case(
        "istio",
        "istio",
        &[
            ("2xx _OTHER __unknown__", 2.0),
            ("5xx _OTHER __unknown__", 3.0),
            ("aborted _OTHER __unknown__", 1.0),
        ],
        ("0.1", 1.0),
        6.0,
    ),
    case(
        "linkerd",
        "linkerd",
        &[("2xx _OTHER __unknown__", 2.0), ("5xx _OTHER __unknown__", 3.0)],
        ("0.1", 1.0),
        5.0,
    ),
    case(
        "envoy",
        "envoy",
        &[("2xx _OTHER __unknown__", 2.0), ("5xx _OTHER __unknown__", 1.0)],
        ("0.1", 1.0),
        3.0,
    ),
    case("tempo", "tempo_spanmetrics", SPANS, ("0.1", 1.0), 3.0),
    case("collector-ms", "collector_spanmetrics_ms", SPANS, ("0.1", 1.0), 3.0),
    case("collector-s", "collector_spanmetrics", SPANS, ("0.1", 1.0), 3.0),
    case("collector-old-ms", "collector_calls_ms", SPANS, ("0.1", 1.0), 3.0),
    case("collector-old-s", "collector_calls", SPANS, ("0.1", 1.0), 3.0),
];

const SPANS: &[(&str, f64)] = &[("2xx _OTHER GET /orders/:id", 2.0), ("5xx _OTHER GET /orders/:id", 1.0)];

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/red")
}

fn read(page: &str) -> Page {
    let bytes = std::fs::read(directory().join(format!("{page}.prom"))).expect("a page of the corpus");
    let mut read = Page::default();
    parse(Body { bytes, dialect: Dialect::Text }, &Limits::from(&Scrape::default()), &mut read)
        .unwrap_or_else(|failure| panic!("{page}: {failure}"));
    read
}

/// What RED publishes of a page that appears in a target that has been watched before.
fn published(raw: &Page) -> Page {
    let mut red = Red::new(&Config::default(), None);
    let labels = [("instance", "a"), ("job", "shop/api"), ("namespace", "shop"), ("workload", "api")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let target = Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() });
    let mut page = Page::default();
    red.scraped(&target, &Page::default(), NO_TIME);
    red.scraped(&target, raw, NO_TIME);
    red.tick(1_700_000_000_000, &mut page);
    red.tick(1_700_000_015_000, &mut page);
    page
}

#[test]
fn every_page_is_taken_for_its_library_and_counted_whole() {
    for case in CASES {
        let name = case.page;
        let page = &published(&read(name));
        let of = |family: &str| {
            let family = family.as_bytes().to_owned();
            page.samples.iter().filter(move |sample| page.bytes(sample.name) == family)
        };
        let label = |sample: &Sample, name: &str| {
            let value = page.label(sample, name.as_bytes()).unwrap_or_default();
            String::from_utf8(value.to_vec()).expect("text")
        };
        let profiles: Vec<String> = of("red_source_info").map(|sample| label(sample, "profile")).collect();
        assert_eq!(profiles, [case.profile], "{name}");
        let requests: BTreeMap<String, f64> = of("red_requests_total")
            .filter(|sample| sample.value != 0.0)
            .map(|sample| {
                let [class, method, route] =
                    ["code_class", "method", "route"].map(|name| label(sample, name));
                (format!("{class} {method} {route}"), sample.value)
            })
            .collect();
        let expected: BTreeMap<String, f64> =
            case.requests.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
        assert_eq!(requests, expected, "{name}");
        let bucket: f64 = of("red_request_duration_seconds_bucket")
            .filter(|sample| label(sample, "le").parse::<f64>() == case.at.0.parse::<f64>())
            .map(|sample| sample.value)
            .sum();
        assert_eq!(bucket, case.at.1, "{name}: le={}", case.at.0);
        let observed: f64 = of("red_request_duration_seconds_count").map(|sample| sample.value).sum();
        assert_eq!(observed, case.observed, "{name}");
    }
}

#[test]
fn every_page_of_the_corpus_has_its_case() {
    let mut pages: Vec<String> = std::fs::read_dir(directory())
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").display().to_string())
        .collect();
    pages.sort();
    let mut cases: Vec<&str> = CASES.iter().map(|case| case.page).collect();
    cases.sort_unstable();
    assert_eq!(pages, cases);
}
