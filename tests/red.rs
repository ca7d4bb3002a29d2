//! RED from end to end: lines and scraped pages in, pages of canonical families out.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodewick::data::access::{AccessTap, Phase, Request};
use nodewick::data::batch::Span;
use nodewick::data::position::{Generation, Position};
use nodewick::data::sample::{
    BucketSpan, Counts, Histogram, MetricKind, NO_TIME, Origin, OriginKind, Page, Sample,
};
use nodewick::data::trace::TraceId;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::red::{About, Config, Kind, LogTap, Matcher, Red, Slo};
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const KEY: &str = "shop_api-d994d45d6-5h9zr_uid/app/0";

fn instance(pod: &str) -> Arc<Workload> {
    let container = ContainerRef {
        namespace: "shop".into(),
        pod: pod.into(),
        uid: "uid".into(),
        container: "app".into(),
        restart: 0,
    };
    let mut directory = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    match directory.identify(&container, Default::default()) {
        Identity::Known(known) => known,
        Identity::Pending => unreachable!("a path is always known"),
    }
}

fn at(offset: u64) -> Position {
    Position { generation: Generation { device: 1, inode: 2, head: 3 }, offset, ..Position::default() }
}

/// A log that is written and read.
struct Log {
    tap: LogTap,
    workload: Arc<Workload>,
    key: Arc<str>,
    offset: u64,
    text: Vec<u8>,
    requests: Vec<Request>,
}

impl Log {
    fn new(red: &Red) -> Self {
        Self {
            tap: red.tap(),
            workload: instance("api-d994d45d6-5h9zr"),
            key: KEY.into(),
            offset: 0,
            text: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(text.as_bytes());
        Span::new(start, self.text.len())
    }

    fn line(&mut self, method: &str, route: &str, status: u16, nano: Option<u64>) -> &mut Request {
        let (method, route) = (self.text(method), self.text(route));
        let time_unix_nano = 1_700_000_000_000 * MS + self.offset * MS;
        let request = Request {
            offset: self.offset,
            time_unix_nano,
            method,
            route,
            status,
            duration_nano: nano,
            ..Request::default()
        };
        self.offset += 100;
        self.requests.push(request);
        self.requests.last_mut().expect("just pushed")
    }

    fn hand_over(&mut self) {
        self.tap.count(&self.key, &self.workload, &self.requests, &self.text, at(self.offset));
        self.requests.clear();
        self.text.clear();
    }
}

/// All samples by name and labels, less those that every series of the test has.
fn samples(page: &Page) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for sample in &page.samples {
        let mut labels: Vec<String> = page
            .labels_of(sample)
            .iter()
            .map(|label| (page.text(label.name), page.text(label.value)))
            .filter(|(name, _)| {
                !matches!(*name, "cluster" | "node" | "namespace" | "workload" | "pod" | "service")
            })
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        labels.sort();
        let name = format!("{}{{{}}}", page.text(sample.name), labels.join(","));
        assert_eq!(all.insert(name.clone(), sample.value), None, "twice in the page: {name}");
    }
    all
}

fn tick(red: &mut Red, seconds: i64) -> BTreeMap<String, f64> {
    let mut page = Page::default();
    red.tick(1_700_000_000_000 + seconds * 1000, &mut page);
    samples(&page)
}

fn requests(page: &BTreeMap<String, f64>) -> f64 {
    page.iter().filter(|(name, _)| name.starts_with("red_requests_total")).map(|(_, value)| value).sum()
}

fn red(config: &Config) -> Red {
    Red::new(config, None)
}

#[test]
fn a_counter_is_born_at_zero_in_every_class_and_true_at_the_next_tick() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    for _ in 0..7 {
        log.line("GET", "/cart/{id}", 500, Some(30 * MS));
    }
    log.hand_over();
    let first = tick(&mut red, 0);
    for class in ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"] {
        let name = format!("red_requests_total{{code_class={class},method=GET,route=/cart/{{id}}}}");
        assert_eq!(first.get(&name), Some(&0.0), "{name}");
    }
    assert_eq!(first["red_request_duration_seconds_count{method=GET,route=/cart/{id}}"], 0.0);
    let second = tick(&mut red, 15);
    assert_eq!(second["red_requests_total{code_class=5xx,method=GET,route=/cart/{id}}"], 7.0);
    assert_eq!(second["red_requests_total{code_class=2xx,method=GET,route=/cart/{id}}"], 0.0);
    assert_eq!(second["red_request_duration_seconds_bucket{le=0.025,method=GET,route=/cart/{id}}"], 0.0);
    assert_eq!(second["red_request_duration_seconds_bucket{le=0.05,method=GET,route=/cart/{id}}"], 7.0);
    assert_eq!(second["red_request_duration_seconds_bucket{le=+Inf,method=GET,route=/cart/{id}}"], 7.0);
    assert_eq!(second["red_request_duration_seconds_count{method=GET,route=/cart/{id}}"], 7.0);
    assert!((second["red_request_duration_seconds_sum{method=GET,route=/cart/{id}}"] - 0.21).abs() < 1e-9);
    assert_eq!(second["red_source_info{profile=access_log,source=log}"], 1.0);
}

#[test]
fn series_have_the_labels_that_rules_use_and_exemplars_with_trace_ids() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    log.line("GET", "/a", 200, Some(200 * MS)).trace_id = TraceId::new(0xabc);
    log.hand_over();
    let mut page = Page::default();
    red.tick(0, &mut page);
    red.tick(15_000, &mut page);
    let sample = page.samples.iter().find(|sample| sample.value == 1.0).expect("the request");
    let label = |name: &str| {
        page.label(sample, name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
    };
    for (name, value) in [
        ("cluster", "c"),
        ("node", "n"),
        ("namespace", "shop"),
        ("workload", "api"),
        ("pod", "api-d994d45d6-5h9zr"),
        ("service", "api"),
        ("route", "/a"),
        ("method", "GET"),
        ("code_class", "2xx"),
    ] {
        assert_eq!(label(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(page.text(sample.name), "red_requests_total");
    let witnesses: Vec<(String, String, f64)> = page
        .samples
        .iter()
        .filter(|sample| !page.exemplars_of(sample).is_empty())
        .map(|sample| {
            let exemplar = &page.exemplars_of(sample)[0];
            let label = page.exemplar_labels(exemplar)[0];
            assert_eq!(page.text(label.name), "trace_id");
            assert_eq!(exemplar.time_unix_ms, 1_700_000_000_000);
            (page.text(sample.name).to_owned(), page.text(label.value).to_owned(), exemplar.value)
        })
        .collect();
    let trace = "00000000000000000000000000000abc".to_owned();
    assert_eq!(
        witnesses,
        [
            ("red_requests_total".to_owned(), trace.clone(), 0.2),
            ("red_request_duration_seconds_bucket".to_owned(), trace, 0.2)
        ]
    );
}

#[test]
fn a_request_of_fastify_is_joined_and_counts_once() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    let id = |log: &mut Log, n: &str| log.text(n);
    for (n, status) in [("req-1", 200), ("req-2", 500)] {
        let span = id(&mut log, n);
        let begun = log.line("GET", "/ok/{id}", 0, None);
        (begun.phase, begun.request_id) = (Phase::Begun, span);
        log.line("", "", status, Some(MS)).request_id = span;
    }
    // A completion whose beginning nobody saw.
    let span = id(&mut log, "req-3");
    log.line("", "", 204, Some(MS)).request_id = span;
    let aborted = log.line("GET", "/ok/{id}", 0, Some(MS));
    aborted.phase = Phase::Aborted;
    log.line("GET", "/ok/{id}", 0, None);
    log.hand_over();
    tick(&mut red, 0);
    let page = tick(&mut red, 15);
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/ok/{id}}"], 1.0);
    assert_eq!(page["red_requests_total{code_class=5xx,method=GET,route=/ok/{id}}"], 1.0);
    assert_eq!(page["red_requests_total{code_class=aborted,method=GET,route=/ok/{id}}"], 1.0);
    assert_eq!(page["red_requests_total{code_class=2xx,method=_OTHER,route=__unknown__}"], 1.0);
    assert_eq!(requests(&page), 4.0);
}

#[test]
fn an_objective_counts_exactly_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let slos = || {
        let matcher = Matcher { namespace: Some("shop".into()), workload: Some("api".into()) };
        let exclude_routes = vec!["/healthz".to_owned()];
        let slo = |name: &str, kind| Slo {
            id: format!("shop/api/{name}"),
            matcher: matcher.clone(),
            kind,
            exclude_routes: exclude_routes.clone(),
            about: nodewick::red::About::default(),
        };
        vec![slo("available", Kind::Availability), slo("fast", Kind::Latency { threshold_nano: 180 * MS })]
    };
    let config = Config::default();
    let mut red = Red::new(&config, Some(dir.path()));
    red.declare(slos());
    let mut log = Log::new(&red);
    log.line("GET", "/a", 200, Some(180 * MS));
    log.line("GET", "/a", 503, Some(181 * MS));
    log.line("GET", "/healthz", 503, Some(181 * MS));
    log.hand_over();
    let first = tick(&mut red, 0);
    assert_eq!(first["slo_events_total{result=bad,slo_id=shop/api/available}"], 0.0);
    let check = |page: &BTreeMap<String, f64>| {
        assert_eq!(page["slo_events_total{result=good,slo_id=shop/api/available}"], 1.0);
        assert_eq!(page["slo_events_total{result=bad,slo_id=shop/api/available}"], 1.0);
        assert_eq!(page["slo_events_total{result=good,slo_id=shop/api/fast}"], 1.0);
        assert_eq!(page["slo_events_total{result=bad,slo_id=shop/api/fast}"], 1.0);
        assert_eq!(page["red_request_duration_seconds_bucket{le=0.18,method=GET,route=/a}"], 1.0);
        assert_eq!(page["red_requests_total{code_class=5xx,method=GET,route=/healthz}"], 1.0);
    };
    check(&tick(&mut red, 15));
    drop(red);
    let mut red = Red::new(&config, Some(dir.path()));
    red.declare(slos());
    assert_eq!(red.tap().counted(KEY), Some(at(300)));
    check(&tick(&mut red, 30));
}

#[test]
fn a_log_that_lags_is_no_data_until_it_has_caught_up() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    log.line("GET", "/a", 200, Some(MS));
    log.hand_over();
    tick(&mut red, 0);
    assert_eq!(requests(&tick(&mut red, 15)), 1.0);
    log.line("GET", "/a", 200, Some(MS));
    log.line("GET", "/new", 200, Some(MS));
    log.hand_over();
    let workload = log.workload.clone();
    log.tap.lag(KEY, &workload, 60_000_000_001);
    let lagging = tick(&mut red, 30);
    assert!(!lagging.keys().any(|name| name.starts_with("red_request")), "{lagging:?}");
    assert_eq!(lagging["red_source_lag_seconds{source=log}"], 60.000000001);
    log.tap.lag(KEY, &workload, 0);
    let back = tick(&mut red, 45);
    assert_eq!(back["red_requests_total{code_class=2xx,method=GET,route=/a}"], 2.0);
    // What nobody watched is no increase.
    assert_eq!(back["red_requests_total{code_class=2xx,method=GET,route=/new}"], 1.0);
}

#[test]
fn an_idle_route_ends_and_its_place_is_free() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    log.line("GET", "/a", 200, Some(MS));
    log.line("GET", "/b", 200, Some(MS));
    log.hand_over();
    for n in 0..42 {
        log.line("GET", "/a", 200, Some(MS));
        log.hand_over();
        tick(&mut red, n * 15);
    }
    let page = tick(&mut red, 42 * 15);
    assert!(page.contains_key("red_requests_total{code_class=2xx,method=GET,route=/a}"));
    assert!(!page.contains_key("red_requests_total{code_class=2xx,method=GET,route=/b}"));
    for n in 0..100 {
        tick(&mut red, 42 * 15 + n * 15);
    }
    assert_eq!(tick(&mut red, 4000).len(), 0, "a workload without requests ends too");
}

#[test]
fn hostile_paths_stay_within_fifty_routes() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    for n in 0..5_000_u64 {
        let word: String = (0..8).map(|at| (b'a' + (n >> (2 * at) & 3) as u8) as char).collect();
        log.line("GET", &format!("/{word}/:x"), 200, None);
        log.line("BREW", &format!("/scan/{word}.php"), 404, None);
    }
    log.hand_over();
    tick(&mut red, 0);
    let page = tick(&mut red, 15);
    let routes: std::collections::BTreeSet<&str> =
        page.keys().filter_map(|name| name.split_once("route=").map(|(_, route)| route)).collect();
    assert_eq!(routes.len(), 52, "fifty, __other__ and __unmatched__");
    assert_eq!(requests(&page), 10_000.0);
    assert_eq!(page["red_requests_total{code_class=4xx,method=_OTHER,route=__unmatched__}"], 5_000.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the order of ticks and crashes: what is published never goes down, and in the end equals what was logged.
    #[test]
    fn requests_count_once_over_ticks_crashes_and_replays(
        steps in proptest::collection::vec((0_u8..10, 1_u64..20), 1..40)
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::default();
        let mut red = Red::new(&config, Some(dir.path()));
        let (mut written, mut seconds, mut published) = (0_u64, 0, 0.0);
        // Request n is the line at offset 100 n.
        let read_to = |red: &Red, end: u64| {
            let mut log = Log::new(red);
            let start = log.tap.counted(KEY).map_or(0, |position| position.offset);
            log.offset = start;
            while log.offset < end * 100 {
                let n = log.offset / 100;
                let route = ["/a", "/b", "/c/:id"][(n % 3) as usize];
                log.line("GET", route, [200, 404, 500][(n % 7 % 3) as usize], n.is_multiple_of(2).then_some(n * MS));
            }
            log.hand_over();
        };
        for (what, many) in steps {
            match what {
                0..5 => {
                    written += many;
                    read_to(&red, written);
                }
                5..8 => {
                    seconds += 15;
                    let now = requests(&tick(&mut red, seconds));
                    prop_assert!(now >= published, "{} after {}", now, published);
                    published = now;
                }
                8 => {
                    drop(red);
                    red = Red::new(&config, Some(dir.path()));
                }
                // It is read a second time, from before what is counted.
                _ => {
                    let counted = red.tap().counted(KEY).map_or(0, |position| position.offset);
                    let mut log = Log::new(&red);
                    log.offset = counted.saturating_sub(many * 100);
                    while log.offset < counted {
                        log.line("GET", "/a", 200, None);
                    }
                    log.hand_over();
                }
            }
        }
        read_to(&red, written);
        tick(&mut red, seconds + 15);
        let page = tick(&mut red, seconds + 30);
        prop_assert_eq!(requests(&page), written as f64);
        let timed: f64 =
            page.iter().filter(|(name, _)| name.starts_with("red_request_duration_seconds_count")).map(|(_, n)| n).sum();
        prop_assert_eq!(timed, written.div_ceil(2) as f64);
    }
}

fn origin(container: &str) -> Arc<Origin> {
    let mut labels: Vec<(String, String)> = [
        ("cluster", "c"),
        ("container", container),
        ("instance", "shop.api-d994d45d6-5h9zr.app"),
        ("job", "shop/api"),
        ("namespace", "shop"),
        ("node", "n"),
        ("pod", "api-d994d45d6-5h9zr"),
        ("service", "api"),
        ("workload", "api"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    labels.sort();
    Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() })
}

/// A page of one histogram `family` with a status, as prom-client has it: `(route, code, durations)`.
fn histogram(page: &mut Page, family: &str, cells: &[(&str, &str, &[f64])]) {
    page.begin_family(family, MetricKind::Histogram, "");
    for (route, code, durations) in cells {
        let own = [("method", "GET"), ("route", *route), ("status_code", *code)];
        for (le, bound) in [("0.1", 0.1), ("0.3", 0.3), ("+Inf", f64::INFINITY)] {
            let count = durations.iter().filter(|duration| **duration <= bound).count();
            page.push_sample(&format!("{family}_bucket"), own.into_iter().chain([("le", le)]), count as f64);
        }
        page.push_sample(&format!("{family}_sum"), own, durations.iter().sum());
        page.push_sample(&format!("{family}_count"), own, durations.len() as f64);
    }
}

fn scrape(red: &mut Red, origin: &Arc<Origin>, cells: &[(&str, &str, &[f64])]) {
    let mut page = Page::default();
    histogram(&mut page, "http_request_duration_seconds", cells);
    red.scraped(origin, &page, NO_TIME);
}

#[test]
fn the_first_scrape_is_the_baseline_and_a_series_born_later_counts_whole() {
    let mut red = red(&Config::default());
    let target = origin("app");
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 10])]);
    let first = tick(&mut red, 0);
    assert_eq!(first["red_requests_total{code_class=2xx,method=GET,route=/a}"], 0.0);
    scrape(&mut red, &target, &[("/a", "200", &[0.05, 0.2].repeat(6)), ("/a", "503", &[0.5; 7])]);
    let page = tick(&mut red, 15);
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/a}"], 2.0);
    assert_eq!(page["red_requests_total{code_class=5xx,method=GET,route=/a}"], 7.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.3,method=GET,route=/a}"], 2.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=+Inf,method=GET,route=/a}"], 9.0);
    assert_eq!(page["red_request_duration_seconds_count{method=GET,route=/a}"], 9.0);
    assert_eq!(page["red_source_info{profile=http_request_duration,source=scrape}"], 1.0);
    // The application restarts.
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 3]), ("/a", "503", &[0.5; 1])]);
    let page = tick(&mut red, 30);
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/a}"], 5.0);
    assert_eq!(page["red_requests_total{code_class=5xx,method=GET,route=/a}"], 8.0);
    // A route that comes later is born at 0.
    scrape(
        &mut red,
        &target,
        &[("/a", "200", &[0.05; 3]), ("/a", "503", &[0.5; 1]), ("/b", "200", &[0.01; 4])],
    );
    let page = tick(&mut red, 45);
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/b}"], 0.0);
    assert_eq!(page["red_request_duration_seconds_count{method=GET,route=/b}"], 0.0);
    let page = tick(&mut red, 60);
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/b}"], 4.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.1,method=GET,route=/b}"], 4.0);
}

#[test]
fn a_target_goes_on_through_a_reload_and_one_that_took_its_place_is_not_forgotten() {
    let mut red = red(&Config::default());
    let before = origin("app");
    scrape(&mut red, &before, &[("/a", "200", &[0.05; 10])]);
    scrape(&mut red, &before, &[("/a", "200", &[0.05; 12])]);
    let after = origin("app");
    scrape(&mut red, &after, &[("/a", "200", &[0.05; 15])]);
    red.forget(&before);
    scrape(&mut red, &after, &[("/a", "200", &[0.05; 16])]);
    tick(&mut red, 0);
    assert_eq!(requests(&tick(&mut red, 15)), 6.0);
    // Gone for good, and back: what it has counted in between is not known to be new.
    red.forget(&after);
    scrape(&mut red, &before, &[("/a", "200", &[0.05; 20])]);
    scrape(&mut red, &before, &[("/a", "200", &[0.05; 21])]);
    assert_eq!(requests(&tick(&mut red, 30)), 7.0);
}

#[test]
fn another_source_by_config_is_taken_up_at_once_and_counts_nothing_twice() {
    use nodewick::red::SourceSetting;
    let with = |source| Config { source, ..Config::default() };
    let directory = tempfile::tempdir().expect("a directory");
    let mut red = Red::new(&with(SourceSetting::Scrape), Some(directory.path()));
    let target = origin("app");
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 1])]);
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 4])]);
    tick(&mut red, 0);
    assert_eq!(requests(&tick(&mut red, 15)), 3.0);
    let line = |red: &Red, log: &mut Option<Log>| {
        let log = log.get_or_insert_with(|| Log::new(red));
        log.tap = red.tap();
        log.line("GET", "/a", 200, Some(50 * MS));
        log.hand_over();
    };
    let mut log = None;
    // While scraped pages count, lines do not.
    line(&red, &mut log);
    assert_eq!(requests(&tick(&mut red, 30)), 3.0);
    // A new config, in a process that goes on, and then in one that starts.
    red.configure(&with(SourceSetting::Log));
    line(&red, &mut log);
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 6])]);
    assert_eq!(requests(&tick(&mut red, 45)), 4.0);
    red.configure(&with(SourceSetting::Scrape));
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 7])]);
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 8])]);
    assert_eq!(requests(&tick(&mut red, 60)), 5.0);
    tick(&mut red, 75);
    drop(red);
    let mut red = Red::new(&with(SourceSetting::Log), Some(directory.path()));
    line(&red, &mut log);
    assert_eq!(requests(&tick(&mut red, 90)), 6.0);
}

#[test]
fn a_workload_has_one_source_and_a_switch_counts_nothing_twice() {
    let mut red = red(&Config::default());
    let mut log = Log::new(&red);
    let target = origin("app");
    let mut lines = |many: usize| {
        for _ in 0..many {
            log.line("GET", "/a", 200, Some(50 * MS));
        }
        log.hand_over();
    };
    let total = |page: &BTreeMap<String, f64>| page["red_requests_total{code_class=2xx,method=GET,route=/a}"];
    lines(3);
    tick(&mut red, 0);
    assert_eq!(total(&tick(&mut red, 15)), 3.0);
    // Its own metrics have all 3: they take over, and go on from there.
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 3])]);
    assert_eq!(total(&tick(&mut red, 30)), 3.0);
    lines(2);
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 5])]);
    let page = tick(&mut red, 45);
    assert_eq!(total(&page), 5.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=+Inf,method=GET,route=/a}"], 5.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.1,method=GET,route=/a}"], 5.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.3,method=GET,route=/a}"], 2.0);
    // No scrape for more than two minutes: lines take over again.
    for n in 4..16 {
        tick(&mut red, n * 15);
    }
    lines(4);
    assert_eq!(total(&tick(&mut red, 240)), 9.0);
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 9])]);
    assert_eq!(total(&tick(&mut red, 255)), 9.0);
    scrape(&mut red, &target, &[("/a", "200", &[0.05; 10])]);
    assert_eq!(total(&tick(&mut red, 270)), 10.0);
}

/// A page of prom-client's histogram with these bounds: 1000 requests for each `thousands`, of which 800 took 50 ms, 195 took
/// 150 ms and 5 took 400 ms.
fn thousands(red: &mut Red, origin: &Arc<Origin>, bounds: &[(&str, f64)], thousands: f64) {
    let mut page = Page::default();
    let family = "http_request_duration_seconds";
    page.begin_family(family, MetricKind::Histogram, "");
    for (route, times) in [("/a", 1.0), ("/healthz", 7.0)] {
        let own = [("method", "GET"), ("route", route), ("status_code", "200")];
        for (le, bound) in bounds.iter().copied().chain([("+Inf", f64::INFINITY)]) {
            let within = [(0.05, 800.0), (0.15, 195.0), (0.4, 5.0)];
            let within: f64 = within.iter().filter(|(took, _)| *took <= bound).map(|(_, count)| count).sum();
            let labels = own.into_iter().chain([("le", le)]);
            page.push_sample(&format!("{family}_bucket"), labels, within * times * thousands);
        }
        page.push_sample(&format!("{family}_sum"), own, 71.25 * times * thousands);
        page.push_sample(&format!("{family}_count"), own, 1000.0 * times * thousands);
    }
    red.scraped(origin, &page, NO_TIME);
}

const PROM_CLIENT: [(&str, f64); 11] = [
    ("0.005", 0.005),
    ("0.01", 0.01),
    ("0.025", 0.025),
    ("0.05", 0.05),
    ("0.1", 0.1),
    ("0.25", 0.25),
    ("0.5", 0.5),
    ("1", 1.0),
    ("2.5", 2.5),
    ("5", 5.0),
    ("10", 10.0),
];

fn fast_and_available() -> Vec<Slo> {
    let slo = |name: &str, kind| Slo {
        id: format!("shop/api/{name}"),
        matcher: Matcher { namespace: Some("shop".into()), workload: Some("api".into()) },
        kind,
        exclude_routes: vec!["/healthz".to_owned()],
        about: About::default(),
    };
    vec![slo("fast", Kind::Latency { threshold_nano: 200 * MS }), slo("available", Kind::Availability)]
}

/// What is published of the objective `fast`, by the last words of each series.
fn fast(page: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let own = page.iter().filter(|(name, _)| name.starts_with("slo_") && name.contains("shop/api/fast"));
    own.map(|(name, value)| (name.replace(",slo_id=shop/api/fast", ""), *value)).collect()
}

fn told(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn a_threshold_between_buckets_is_counted_against_both_neighbours() {
    let mut red = red(&Config::default());
    red.declare(fast_and_available());
    let target = origin("app");
    thousands(&mut red, &target, &PROM_CLIENT, 3.0);
    let rows = |good: [f64; 2], bad: [f64; 2]| {
        told(&[
            ("slo_bracket_events_total{bound=optimistic,result=bad}", bad[0]),
            ("slo_bracket_events_total{bound=optimistic,result=good}", good[0]),
            ("slo_bracket_events_total{bound=pessimistic,result=bad}", bad[1]),
            ("slo_bracket_events_total{bound=pessimistic,result=good}", good[1]),
            ("slo_bracket_info{lower=0.1,upper=0.25}", 1.0),
        ])
    };
    // The first scrape is the baseline; counters are born at 0, and the exact ones say nothing.
    assert_eq!(fast(&tick(&mut red, 0)), rows([0.0; 2], [0.0; 2]));
    thousands(&mut red, &target, &PROM_CLIENT, 5.0);
    let page = tick(&mut red, 15);
    // Of 2,000 requests 0.5 % took longer than 0.25 s and 20 % longer than 0.1 s; /healthz has no say.
    assert_eq!(fast(&page), rows([1990.0, 1600.0], [10.0, 400.0]));
    // Statuses need no bucket.
    assert_eq!(page["slo_events_total{result=good,slo_id=shop/api/available}"], 2000.0);
    // The application restarts.
    thousands(&mut red, &target, &PROM_CLIENT, 1.0);
    assert_eq!(fast(&tick(&mut red, 30)), rows([2985.0, 2400.0], [15.0, 600.0]));
}

#[test]
fn a_bucket_at_the_threshold_is_exact_and_a_new_version_may_bring_it() {
    let mut red = red(&Config::default());
    red.declare(fast_and_available());
    let objectives = |red: &mut Red, seconds: i64| {
        let mut page = Page::default();
        red.tick(1_700_000_000_000 + seconds * 1000, &mut page);
        let name = |sample: &Sample| page.text(sample.name).to_owned();
        let mut own = Page::default();
        let of_slo = page.samples.iter().filter(|sample| name(sample).starts_with("slo_"));
        for sample in of_slo {
            own.begin_family(&name(sample), MetricKind::Unknown, "");
            let labels = page.labels_of(sample).iter();
            let labels = labels.map(|label| (page.text(label.name), page.text(label.value)));
            own.push_sample(&name(sample), labels, sample.value);
        }
        fast(&samples(&own))
    };
    let old = origin("app");
    thousands(&mut red, &old, &PROM_CLIENT, 0.0);
    objectives(&mut red, 0);
    thousands(&mut red, &old, &PROM_CLIENT, 1.0);
    // The next version has the bucket. While both run, all is counted beside the threshold, exactly or not.
    let mut labels = old.labels.clone();
    for (name, value) in &mut labels {
        if ["pod", "instance"].contains(&name.as_str()) {
            value.push_str("-new");
        }
    }
    let new = Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() });
    let own = [&PROM_CLIENT[..5], &[("0.2", 0.2)], &PROM_CLIENT[5..]].concat();
    thousands(&mut red, &new, &own, 0.0);
    objectives(&mut red, 15);
    thousands(&mut red, &new, &own, 1.0);
    let page = objectives(&mut red, 30);
    assert_eq!(page[0], ("slo_bracket_events_total{bound=optimistic,result=bad}".to_owned(), 10.0));
    assert_eq!(page[2], ("slo_bracket_events_total{bound=pessimistic,result=bad}".to_owned(), 205.0));
    assert_eq!(page.len(), 5);
    red.forget(&old);
    objectives(&mut red, 45);
    thousands(&mut red, &new, &own, 3.0);
    // The last pages say what happened since, and nothing of what was counted beside the threshold.
    let rows = told(&[("slo_events_total{result=bad}", 10.0), ("slo_events_total{result=good}", 1990.0)]);
    assert_eq!(objectives(&mut red, 60), rows);
    // The last target is gone: its counters stay as they are.
    red.forget(&new);
    assert_eq!(objectives(&mut red, 75), rows);
}

/// A page of a native histogram of resolution 0: buckets end at powers of two. 800 requests took up to 1/8 s, 195 up to 1/4 s and
/// 5 up to 1/2 s, each `thousands` times.
fn native(red: &mut Red, origin: &Arc<Origin>, thousands: i64) {
    let mut page = Page::default();
    let family = "http_request_duration_seconds";
    page.begin_family(family, MetricKind::Histogram, "");
    for (route, times) in [("/a", 1), ("/healthz", 7)] {
        let own = [("method", "GET"), ("route", route), ("status_code", "200")];
        page.push_sample(family, own, 0.0);
        let [first, second, third] = [800, 195, 5].map(|count| count * times * thousands);
        page.histograms.push(Histogram {
            counts: Counts::Integer {
                count: (first + second + third) as u64,
                zero: 0,
                negative: Vec::new(),
                positive: vec![first, second - first, third - second],
            },
            sum: 100.0 * (times * thousands) as f64,
            schema: 0,
            zero_threshold: 1e-30,
            negative_spans: Vec::new(),
            positive_spans: vec![BucketSpan { offset: -3, length: 3 }],
            gauge: false,
        });
        let last = page.samples.last_mut().expect("a sample");
        last.histogram = page.histograms.len() as u32 - 1;
    }
    red.scraped(origin, &page, NO_TIME);
}

#[test]
fn a_native_histogram_counts_by_the_buckets_around_a_threshold() {
    let mut red = red(&Config::default());
    red.declare(fast_and_available());
    let target = origin("app");
    native(&mut red, &target, 4);
    tick(&mut red, 0);
    native(&mut red, &target, 6);
    let page = tick(&mut red, 15);
    let rows = [
        ("slo_bracket_events_total{bound=optimistic,result=bad}", 10.0),
        ("slo_bracket_events_total{bound=optimistic,result=good}", 1990.0),
        ("slo_bracket_events_total{bound=pessimistic,result=bad}", 400.0),
        ("slo_bracket_events_total{bound=pessimistic,result=good}", 1600.0),
        ("slo_bracket_info{lower=0.125,upper=0.25}", 1.0),
    ];
    assert_eq!(fast(&page), told(&rows));
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/a}"], 2000.0);
    assert_eq!(page["red_request_duration_seconds_count{method=GET,route=/a}"], 2000.0);
    assert_eq!(page["red_request_duration_seconds_sum{method=GET,route=/a}"], 200.0);
    assert_eq!(page["slo_events_total{result=good,slo_id=shop/api/available}"], 2000.0);
    // The application restarts.
    native(&mut red, &target, 1);
    assert_eq!(fast(&tick(&mut red, 30))[2].1, 600.0);
}

#[test]
fn access_lines_count_an_objective_and_scrapes_do_not_count_it_again() {
    let mut red = red(&Config::default());
    red.declare(fast_and_available());
    let target = origin("app");
    thousands(&mut red, &target, &PROM_CLIENT, 0.0);
    tick(&mut red, 0);
    let mut log = Log::new(&red);
    log.line("GET", "/a", 200, Some(150 * MS));
    log.line("GET", "/a", 200, Some(201 * MS));
    log.hand_over();
    thousands(&mut red, &target, &PROM_CLIENT, 1.0);
    let rows =
        |good, bad| told(&[("slo_events_total{result=bad}", bad), ("slo_events_total{result=good}", good)]);
    tick(&mut red, 15);
    assert_eq!(fast(&tick(&mut red, 30)), rows(1.0, 1.0));
    // Lines stop and requests go on: after ten minutes of it scrapes count, from where lines have left off.
    let mut seconds = 45;
    for scrape in 0..45 {
        thousands(&mut red, &target, &PROM_CLIENT, 2.0 + f64::from(scrape));
        tick(&mut red, seconds);
        seconds += 15;
    }
    let page = fast(&tick(&mut red, seconds));
    assert_eq!(page.len(), 5, "{page:?}");
    assert!(page[3].0.starts_with("slo_bracket_events_total") && page[3].1 < 5_000.0, "{page:?}");
}

#[test]
fn a_proxy_beside_the_application_counts_nothing_again() {
    let mut red = red(&Config::default());
    let (app, proxy) = (origin("app"), origin("istio-proxy"));
    let istio = |red: &mut Red, count: f64| {
        let mut page = Page::default();
        let own = [("reporter", "destination"), ("response_code", "200")];
        page.begin_family("istio_requests_total", MetricKind::Counter, "");
        page.push_sample("istio_requests_total", own, count);
        page.begin_family("istio_request_duration_milliseconds", MetricKind::Histogram, "");
        let name = "istio_request_duration_milliseconds_bucket";
        page.push_sample(name, own.into_iter().chain([("le", "5")]), count);
        page.push_sample(name, own.into_iter().chain([("le", "+Inf")]), count);
        red.scraped(&proxy, &page, NO_TIME);
    };
    for n in 1..4 {
        scrape(&mut red, &app, &[("/a", "200", &vec![0.05; 10 * n])]);
        istio(&mut red, 10.0 * n as f64);
        tick(&mut red, 15 * n as i64);
    }
    assert_eq!(requests(&tick(&mut red, 60)), 20.0);
    red.forget(&app);
    istio(&mut red, 40.0);
    istio(&mut red, 55.0);
    let page = tick(&mut red, 75);
    assert_eq!(page["red_requests_total{code_class=2xx,method=_OTHER,route=__unknown__}"], 0.0);
    let page = tick(&mut red, 90);
    assert_eq!(page["red_requests_total{code_class=2xx,method=_OTHER,route=__unknown__}"], 25.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.005,method=_OTHER,route=__unknown__}"], 25.0);
}

#[test]
fn a_damaged_file_is_as_good_as_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut red = Red::new(&Config::default(), Some(dir.path()));
    let mut log = Log::new(&red);
    log.line("GET", "/a", 200, Some(MS));
    log.hand_over();
    tick(&mut red, 0);
    tick(&mut red, 15);
    let path = dir.path().join("red.state");
    let whole = std::fs::read(&path).expect("kept");
    for at in [0, 9, 13, 17, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let red = Red::new(&Config::default(), Some(dir.path()));
        assert_eq!(red.tap().counted(KEY), None, "byte {at}");
    }
    std::fs::write(&path, &whole).expect("written");
    assert_eq!(Red::new(&Config::default(), Some(dir.path())).tap().counted(KEY), Some(at(100)));
    std::fs::remove_dir_all(dir.path()).expect("removed");
    let mut log = Log::new(&red);
    log.offset = 100;
    log.line("GET", "/a", 200, Some(MS));
    log.hand_over();
    assert_eq!(requests(&tick(&mut red, 30)), 2.0, "counting goes on in memory");
    assert!(!red.is_durable());
}

/// The samples of one family in a dump, read as simply as the dumps are written.
fn dump(text: &str, family: &str) -> Page {
    let mut page = Page::default();
    page.begin_family(family, MetricKind::Histogram, "");
    for line in text.lines().filter(|line| line.starts_with(&format!("{family}_"))) {
        let (name, rest) = line.split_once('{').expect("labels");
        let (labels, rest) = rest.split_once("} ").expect("a value");
        let value = rest.split(' ').next().expect("a value").parse().expect("a number");
        let labels = labels.split(',').map(|pair| {
            let (name, value) = pair.split_once('=').expect("a label");
            (name, value.trim_matches('"'))
        });
        page.push_sample(name, labels, value);
        if let Some((_, exemplar)) = line.split_once(" # {trace_id=\"") {
            let (trace, rest) = exemplar.split_once("\"} ").expect("a trace id");
            let mut numbers = rest.split(' ').map(|number| number.parse::<f64>().expect("a number"));
            let label = nodewick::data::sample::Label {
                name: page.push_text(b"trace_id"),
                value: page.push_text(trace.as_bytes()),
            };
            let labels = page.labels.len() as u32;
            page.labels.push(label);
            let exemplar = nodewick::data::sample::Exemplar {
                labels,
                label_count: 1,
                value: numbers.next().expect("a value"),
                time_unix_ms: (numbers.next().expect("a time") * 1e3) as i64,
            };
            let at = page.exemplars.len() as u32;
            page.exemplars.push(exemplar);
            let sample = page.samples.last_mut().expect("just pushed");
            (sample.exemplar, sample.exemplar_count) = (at, 1);
        }
    }
    page
}

/// What RED makes of a dump that appears in a target that has been watched before.
fn of_dump(text: &str) -> (Page, BTreeMap<String, f64>) {
    let mut red = red(&Config::default());
    let target = origin("app");
    red.scraped(&target, &Page::default(), NO_TIME);
    red.scraped(&target, &dump(text, "http_request_duration_seconds"), NO_TIME);
    tick(&mut red, 0);
    let mut page = Page::default();
    red.tick(1_700_000_015_000, &mut page);
    let all = samples(&page);
    (page, all)
}

#[test]
fn express_prom_bundles_own_dump_is_understood() {
    let (_, page) = of_dump(include_str!("corpus/metrics/express-prom-bundle.prom"));
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/ok}"], 1.0);
    assert_eq!(page["red_requests_total{code_class=5xx,method=GET,route=/err}"], 1.0);
    assert_eq!(page["red_requests_total{code_class=4xx,method=GET,route=__unmatched__}"], 1.0);
    assert_eq!(requests(&page), 3.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.1,method=GET,route=/ok}"], 0.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.3,method=GET,route=/ok}"], 1.0);
    assert_eq!(page["red_request_duration_seconds_sum{method=GET,route=/ok}"], 0.157955453);
    assert!(!page.keys().any(|name| name.contains("le=0.25")), "its bounds are kept as they are");
}

#[test]
fn prom_clients_own_dumps_are_understood() {
    let (_, page) = of_dump(include_str!("corpus/metrics/prom-client-default.prom"));
    assert_eq!(page["red_requests_total{code_class=2xx,method=GET,route=/ok/:id}"], 3.0);
    assert_eq!(page["red_requests_total{code_class=5xx,method=GET,route=/err}"], 1.0);
    assert_eq!(page["red_requests_total{code_class=4xx,method=GET,route=__unmatched__}"], 1.0);
    assert_eq!(page["red_request_duration_seconds_bucket{le=0.025,method=GET,route=/ok/:id}"], 2.0);
    assert_eq!(page["red_request_duration_seconds_count{method=GET,route=/ok/:id}"], 3.0);
    let (page, _) = of_dump(include_str!("corpus/metrics/prom-client-openmetrics-exemplars.http"));
    let sample = page
        .samples
        .iter()
        .find(|sample| {
            page.label(sample, b"le") == Some(b"0.05") && page.label(sample, b"route") == Some(b"/ok/:id")
        })
        .expect("the bucket");
    let exemplar = page.exemplars_of(sample)[0];
    assert_eq!((exemplar.value, exemplar.time_unix_ms), (0.025320699, 1_795_356_568_839));
    assert_eq!(page.text(page.exemplar_labels(&exemplar)[0].value), "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn counting_allocates_nothing_once_routes_are_known() {
    let red = red(&Config::default());
    let mut log = Log::new(&red);
    let fill = |log: &mut Log| {
        for n in 0..100 {
            let id = log.text(&format!("req-{n}"));
            let begun = log.line("GET", "/ok/{id}", 0, None);
            (begun.phase, begun.request_id) = (Phase::Begun, id);
            let done = log.line("", "", 200, Some(MS));
            (done.request_id, done.trace_id) = (id, TraceId::new(7));
            log.line("POST", "/cart", 503, Some(90 * MS));
        }
    };
    fill(&mut log);
    log.hand_over();
    fill(&mut log);
    let (key, workload, until) = (log.key.clone(), log.workload.clone(), at(log.offset));
    let counted =
        allocation_counter::measure(|| log.tap.count(&key, &workload, &log.requests, &log.text, until));
    assert_eq!(counted.count_total, 0);
}
