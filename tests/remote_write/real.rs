//! Against a real Prometheus and a real VictoriaMetrics.

use std::time::{Duration, Instant};

use nodewick::data::sample::{MetricKind, stale};
use nodewick::sink::remote_write::{Config, Protocol};

use super::pages::{Builder, Sink, config, histogram, load, lost, now, origin, samples};
use super::support::prometheus::{Prometheus, Server, VictoriaMetrics};

/// As an operator would have it.
fn auto(url: &str) -> Config {
    Config { protocol: Protocol::Auto, send_metadata: true, ..config(url) }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends three pages, five seconds apart; in the last one some series have ended.
fn send_three_pages(name: &'static str, url: &str, at: i64, with_histograms: bool) {
    let mut sink = Sink::start(name, &auto(url));
    let target = origin("web-1:8080");
    for round in 0..3 {
        let mut page = Builder::new(&target, at + round * 5000);
        page.family("requests", MetricKind::Counter, "Requests.", "");
        let ended = round == 2;
        page.sample("requests_total", &[("code", "200")], [7.0, 19.25, 123456.75][round as usize]);
        page.sample("requests_total", &[("code", "500")], if ended { stale() } else { round as f64 });
        page.family("odd", MetricKind::Gauge, "Odd.", "");
        page.sample("odd", &[("kind", "nan")], f64::NAN);
        page.sample("odd", &[("kind", "inf")], f64::INFINITY);
        page.sample("odd", &[("kind", "tiny")], 5e-324);
        page.sample("odd", &[("kind", "zero")], 0.0);
        page.sample("odd", &[("kind", "text \"\\ ü")], 1.0);
        page.family("latency_seconds", MetricKind::Histogram, "Latency.", "seconds");
        page.sample("latency_seconds_bucket", &[("le", "0.5")], round as f64);
        page.exemplar(&[("trace_id", &format!("trace-{round}"))], 0.25, Some(at + round * 5000 - 100));
        if with_histograms {
            page.sample("native_seconds", &[], if ended { stale() } else { 12.5 });
            page.histogram(histogram());
        }
        sink.page(&target, &page.page);
    }
    sink.end();
}

fn check_three_pages(server: &Server, at: i64) {
    let end = (at + 10_000) as f64 / 1000.0;
    let all = server.samples("requests_total{job=\"shop/api\"}", "1m", end);
    assert_eq!(all.len(), 2);
    for (labels, samples) in &all {
        assert_eq!((labels["cluster"].as_str(), labels["instance"].as_str()), ("test", "web-1:8080"));
        assert_eq!(labels.len(), 5);
        match labels["code"].as_str() {
            "200" => assert_eq!(samples[..], [(at, 7.0), (at + 5000, 19.25), (at + 10_000, 123456.75)]),
            _ => assert_eq!(samples[..2], [(at, 0.0), (at + 5000, 1.0)]),
        }
    }
    // It is gone at once, not after the lookback of five minutes.
    let of = |code: &str, at: f64| server.query(&format!("requests_total{{code={code:?}}}"), Some(at)).len();
    assert_eq!((of("500", end - 1.0), of("500", end), of("200", end)), (1, 0, 1));
    let value = |kind: &str| {
        let found = server.query(&format!("odd{{kind={kind:?}}}"), Some(end));
        found.into_values().next()
    };
    assert_eq!(value("inf"), Some(f64::INFINITY));
    assert_eq!(value("zero"), Some(0.0));
    assert_eq!(value("text \"\\ ü"), Some(1.0));
}

#[test]
fn prometheus_finds_samples_staleness_exemplars_and_native_histograms() {
    let prometheus = Prometheus::start();
    let at = now() - 20_000;
    send_three_pages("rw.prometheus", &prometheus.write_url(), at, true);
    assert_eq!(samples("rw.prometheus", "refused") + samples("rw.prometheus", "dropped"), 0);
    check_three_pages(&prometheus, at);
    let end = (at + 10_000) as f64 / 1000.0;
    let value = |query: &str, at: f64| prometheus.query(query, Some(at)).into_values().collect::<Vec<_>>();
    assert!(value("odd{kind=\"nan\"}", end)[0].is_nan());
    assert_eq!(value("odd{kind=\"tiny\"}", end), [5e-324]);
    assert_eq!(value("histogram_count(native_seconds)", end - 1.0), [6.0]);
    assert_eq!(value("histogram_sum(native_seconds)", end - 1.0), [12.5]);
    // Three of six are in (2, 4]: the median is the end of the third, 2.
    assert_eq!(value("histogram_quantile(0.5, native_seconds)", end - 1.0), [2.0]);
    assert!(value("histogram_count(native_seconds)", end).is_empty(), "it has ended");
    let exemplars = prometheus.exemplars("latency_seconds_bucket", end - 60.0, end + 60.0);
    let exemplars: Vec<_> = exemplars.into_values().next().expect("a series with exemplars");
    let exemplars: Vec<_> =
        exemplars.iter().map(|(labels, time, value)| (labels["trace_id"].as_str(), *time, *value)).collect();
    assert_eq!(
        exemplars,
        [("trace-0", at - 100, 0.25), ("trace-1", at + 4900, 0.25), ("trace-2", at + 9900, 0.25)]
    );
}

#[test]
fn victoria_metrics_finds_samples_and_staleness() {
    let victoria = VictoriaMetrics::start();
    let at = now() - 20_000;
    send_three_pages("rw.victoria", &victoria.write_url(), at, false);
    assert_eq!(samples("rw.victoria", "refused") + samples("rw.victoria", "dropped"), 0);
    victoria.flush();
    let raw = victoria.export("requests_total{code=\"200\"}");
    let raw: Vec<_> = raw.into_values().next().expect("a series");
    assert_eq!(raw, [(at, Some(7.0)), (at + 5000, Some(19.25)), (at + 10_000, Some(123456.75))]);
    let ended = victoria.export("requests_total{code=\"500\"}").into_values().next().expect("a series");
    assert_eq!(ended[..2], [(at, Some(0.0)), (at + 5000, Some(1.0))]);
    let end = (at + 10_000) as f64 / 1000.0;
    assert!(victoria.query("requests_total{code=\"500\"}", Some(end + 1.0)).is_empty(), "it has ended");
    assert_eq!(victoria.query("requests_total{code=\"200\"}", Some(end + 1.0)).len(), 1);
}

#[test]
fn an_outage_of_prometheus_loses_nothing_and_order_stays() {
    let mut prometheus = Prometheus::start();
    let mut config = auto(&prometheus.write_url());
    config.limits.max_samples = 100;
    let mut sink = Sink::start("rw.outage", &config);
    let target = origin("web-1:8080");
    let at = now() - 60_000;
    for round in 0..40 {
        if round == 10 {
            wait_for("the first arrive", || sink.samples("delivered") == 1000);
            prometheus.stop();
        }
        sink.page(&target, &load(&target, 100, f64::from(round), at + i64::from(round) * 1000));
        if round == 30 {
            assert_eq!(sink.samples("delivered"), 1000);
            prometheus.launch();
        }
    }
    sink.end();
    assert_eq!(samples("rw.outage", "delivered"), 4000);
    assert_eq!(samples("rw.outage", "refused") + samples("rw.outage", "dropped"), 0);
    let found = prometheus.samples("load", "10m", now() as f64 / 1000.0);
    assert_eq!(found.len(), 100);
    for (labels, samples) in found {
        let number: f64 = labels["series"].parse().expect("a number");
        let expected: Vec<_> =
            (0..40).map(|round| (at + i64::from(round) * 1000, number + f64::from(round))).collect();
        assert_eq!(samples, expected);
    }
}

#[test]
fn what_prometheus_calls_out_of_order_is_alone_refused() {
    let prometheus = Prometheus::start();
    let target = origin("web-1:8080");
    let at = now() - 20_000;
    let mut sink = Sink::start("rw.order", &auto(&prometheus.write_url()));
    let mut ahead = Builder::new(&target, at + 1000);
    for series in ["7", "33"] {
        ahead.sample("load", &[("series", series)], 1000.0);
    }
    sink.page(&target, &ahead.page);
    sink.end();
    let mut sink = Sink::start("rw.order2", &auto(&prometheus.write_url()));
    sink.page(&target, &load(&target, 100, 0.0, at));
    sink.end();
    assert_eq!((samples("rw.order2", "delivered"), lost("rw.order2", "refused")), (98, 2));
    let found = prometheus.samples("load", "10m", now() as f64 / 1000.0);
    let of = |series: &str| {
        let found = found.iter().find(|(labels, _)| labels["series"] == series);
        found.map(|(_, samples)| samples.clone()).unwrap_or_default()
    };
    assert_eq!((found.len(), of("7"), of("8")), (100, vec![(at + 1000, 1000.0)], vec![(at, 8.0)]));
}

#[test]
fn neither_receiver_reads_anything_into_a_request_of_version_2() {
    let (prometheus, victoria) = (Prometheus::start(), VictoriaMetrics::start());
    let servers: [(&str, &Server, String); 2] =
        [("rw.v2p", &prometheus, prometheus.write_url()), ("rw.v2v", &victoria, victoria.write_url())];
    for (name, server, url) in servers {
        let mut fixed = config(&url);
        fixed.protocol = Protocol::V2;
        let mut sink = Sink::start(name, &fixed);
        let target = origin("web-1:8080");
        sink.page(&target, &load(&target, 10, 0.0, now()));
        sink.end();
        // They say 204 or 200 without the headers of version 2: nothing counts as delivered, and nothing was stored.
        assert_eq!(lost(name, "unsupported"), 10);
        assert_eq!(server.query("count({__name__=~\"..*\",series!=\"\"})", None).len(), 0);
    }
}
