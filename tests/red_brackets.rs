//! Latency objectives of scraped workloads: exact where the histogram has a bucket at the threshold, else counted against the
//! buckets on both sides of it, and never beside access lines that tell it exactly.

#[path = "support/red.rs"]
mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;

use nodewick::data::sample::{
    BucketSpan, Counts, Histogram, MetricKind, NO_TIME, Origin, OriginKind, Page, Sample,
};
use nodewick::red::{About, Config, Kind, Matcher, Red, Slo};
use rig::{Log, MS, samples, tick};

fn red(config: &Config) -> Red {
    Red::new(config, None)
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
    let own = page.iter().filter(|(name, _)| {
        let counted = name.starts_with("slo_events") || name.starts_with("slo_bracket");
        counted && name.contains("shop/api/fast")
    });
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
    // Lines stop and requests go on: after ten minutes scrapes count, 1,000 requests in each of the last seven of 45.
    let mut seconds = 45;
    for scrape in 0..45 {
        thousands(&mut red, &target, &PROM_CLIENT, 2.0 + f64::from(scrape));
        tick(&mut red, seconds);
        seconds += 15;
    }
    let page = fast(&tick(&mut red, seconds));
    assert_eq!(page.len(), 5, "{page:?}");
    assert_eq!(page[0], ("slo_bracket_events_total{bound=optimistic,result=bad}".to_owned(), 35.0));
    assert_eq!(page[1], ("slo_bracket_events_total{bound=optimistic,result=good}".to_owned(), 6_965.0));
}
