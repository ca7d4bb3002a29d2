//! RED from end to end: lines and scraped pages in, pages of canonical families out.

#[path = "support/red.rs"]
mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;

use nodewick::data::access::{AccessTap, Phase};
use nodewick::data::sample::{MetricKind, NO_TIME, Origin, OriginKind, Page};
use nodewick::data::trace::TraceId;
use nodewick::red::{Config, Kind, Matcher, Red, Slo};
use proptest::prelude::*;
use rig::{KEY, Log, MS, at, samples, tick};

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
