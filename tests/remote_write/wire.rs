//! What arrives, by an independent decoder.

use nodewick::data::sample::{MetricKind, STALE, stale};
use nodewick::sink::remote_write::Protocol;

use super::pages::{Builder, Sink, config, histogram, load, origin};
use super::support::remote_write::{Receiver, Reply, Series, v1};

/// A page of everything.
fn everything(at: i64) -> Builder {
    let mut page = Builder::new(&origin("a"), at);
    page.family("requests", MetricKind::Counter, "Requests so far.", "");
    page.sample("requests_total", &[("code", "200"), ("zone", "é \"x\"\n")], 7.0);
    page.exemplar(
        &[("span_id", "b7ad6b7169203331"), ("trace_id", "0af7651916cd43dd8448eb211c80319c")],
        0.25,
        None,
    );
    page.sample("requests_created", &[("code", "200"), ("zone", "é \"x\"\n")], 1_700_000_000.25);
    page.family("odd", MetricKind::Gauge, "Odd values.", "");
    for (name, value) in [
        ("zero", 0.0),
        ("minus_zero", -0.0),
        ("nan", f64::NAN),
        ("payload", f64::from_bits(0x7ff8_0000_0000_1234)),
        ("stale", stale()),
        ("infinite", f64::NEG_INFINITY),
        ("tiny", 5e-324),
    ] {
        page.sample("odd", &[("kind", name)], value);
    }
    page.sample_at("odd", &[("kind", "before 1970")], 1.0, -5);
    page.family("rpc_seconds", MetricKind::Histogram, "Time.", "seconds");
    page.sample("rpc_seconds", &[], 12.5);
    page.histogram(histogram());
    page.exemplar(&[("trace_id", "1")], 1.5, Some(at - 10));
    page.exemplar(&[("trace_id", "2")], 3.5, Some(at - 5));
    page.sample("rpc_seconds", &[("ended", "yes")], stale());
    page.histogram(histogram());
    page
}

fn check(series: &[Series], at: i64) {
    let names: Vec<&str> = series.iter().map(|series| series.label("__name__")).collect();
    assert_eq!(names[..2], ["requests_total", "requests_created"]);
    assert_eq!(series.len(), 12);
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        series[0].labels,
        [
            own("__name__", "requests_total"),
            own("cluster", "test"),
            own("code", "200"),
            own("instance", "a"),
            own("job", "shop/api"),
            own("zone", "é \"x\"\n"),
        ]
    );
    assert_eq!(series[0].samples, [(7.0_f64.to_bits(), at)]);
    let ids = vec![own("span_id", "b7ad6b7169203331"), own("trace_id", "0af7651916cd43dd8448eb211c80319c")];
    assert_eq!(series[0].exemplars, [(ids, 0.25, at)]);
    let bits: Vec<u64> = series[2..9].iter().map(|series| series.samples[0].0).collect();
    assert_eq!(
        bits,
        [0, 1 << 63, f64::NAN.to_bits(), 0x7ff8_0000_0000_1234, STALE, f64::NEG_INFINITY.to_bits(), 1]
    );
    assert_eq!(series[9].samples, [(1.0_f64.to_bits(), -5)]);
    let native = v1::Histogram {
        count: Some(v1::Count::Int(6)),
        sum: 12.5,
        schema: 0,
        zero_threshold: 0.001,
        zero_count: Some(v1::ZeroCount::Int(1)),
        positive_spans: vec![v1::BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![2, 1],
        timestamp: at,
        ..Default::default()
    };
    assert_eq!(series[10].histograms, [native]);
    assert!(series[10].samples.is_empty());
    let exemplars: Vec<_> =
        series[10].exemplars.iter().map(|(labels, value, at)| (labels[0].1.as_str(), *value, *at)).collect();
    assert_eq!(exemplars, [("1", 1.5, at - 10), ("2", 3.5, at - 5)]);
    let ended = &series[11].histograms[0];
    assert_eq!((ended.sum.to_bits(), ended.timestamp, ended.positive_deltas.len()), (STALE, at, 0));
}

const AT: i64 = 1_800_000_000_123;

#[test]
fn version_1_carries_everything_bit_by_bit() {
    let receiver = Receiver::of_v1();
    let mut sink = Sink::start("rw.v1", &config(&receiver.url()));
    sink.page(&origin("a"), &everything(AT).page);
    sink.end();
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].headers["user-agent"].starts_with("nodewick/"));
    check(&seen[0].series, AT);
}

#[test]
fn version_2_carries_everything_with_metadata_and_start_times() {
    let receiver = Receiver::start(Reply::written);
    let mut config = config(&receiver.url());
    config.protocol = Protocol::V2;
    config.send_metadata = true;
    let mut sink = Sink::start("rw.v2", &config);
    sink.page(&origin("a"), &everything(AT).page);
    sink.end();
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1);
    let series = &seen[0].series;
    check(series, AT);
    assert_eq!(series[0].metadata, Some((1, "Requests so far.".to_owned(), String::new())));
    assert_eq!(series[2].metadata, Some((2, "Odd values.".to_owned(), String::new())));
    assert_eq!(series[10].metadata, Some((3, "Time.".to_owned(), "seconds".to_owned())));
    assert_eq!(series[0].created, (1_700_000_000_250, 1_700_000_000_250));
    assert_eq!(series[2].created, (0, 0));
}

#[test]
fn many_pages_in_one_request_arrive_whole_and_in_order() {
    let receiver = Receiver::of_v1();
    let mut config = config(&receiver.url());
    config.limits.max_samples = 4000;
    let mut sink = Sink::start("rw.many", &config);
    let origins: Vec<_> = (0..20).map(|at| origin(&format!("pod-{at}:8080"))).collect();
    for round in 0..5 {
        for origin in &origins {
            sink.page(origin, &load(origin, 300, f64::from(round), AT + i64::from(round) * 1000));
        }
    }
    sink.end();
    let taken = receiver.taken();
    assert_eq!(taken.len(), 20 * 300 * 5);
    let mut last = std::collections::BTreeMap::new();
    for series in taken {
        assert_eq!(series.labels.len(), 5);
        assert!(series.labels.is_sorted(), "{:?}", series.labels);
        let number: f64 = series.label("series").parse().expect("a number");
        let round = (series.samples[0].1 - AT) / 1000;
        assert_eq!(f64::from_bits(series.samples[0].0), number + round as f64);
        let before = last.insert(series.labels, round);
        assert_eq!(before.unwrap_or(-1) + 1, round, "each series' samples come one after the other");
    }
    assert_eq!(last.len(), 20 * 300);
    assert!(receiver.seen().iter().all(|seen| seen.samples() <= 4000));
}

#[test]
fn what_is_turned_off_is_not_sent_and_the_sinks_labels_are_added() {
    let receiver = Receiver::of_v1();
    let mut config = config(&receiver.url());
    config.send_exemplars = false;
    config.send_native_histograms = false;
    config.tenant = Some("team-a".to_owned());
    for (name, value) in [("Area", "x"), ("cluster", "ours"), ("region", "eu"), ("zz", "last"), ("none", "")]
    {
        config.labels.insert(name.to_owned(), value.to_owned());
    }
    let mut sink = Sink::start("rw.labels", &config);
    sink.page(&origin("a"), &everything(AT).page);
    sink.end();
    let seen = receiver.seen();
    assert_eq!(seen[0].headers["x-scope-orgid"], "team-a");
    assert_eq!(seen[0].series.len(), 10);
    let names: Vec<_> = seen[0].series[0].labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Area", "__name__", "cluster", "code", "instance", "job", "region", "zone", "zz"]);
    assert_eq!(seen[0].series[0].label("cluster"), "test", "the series' own stays");
    assert!(seen[0].series.iter().all(|series| series.exemplars.is_empty() && series.histograms.is_empty()));
}

#[test]
fn version_1_says_types_and_help_once_a_minute() {
    let receiver = Receiver::of_v1();
    let mut config = config(&receiver.url());
    config.send_metadata = true;
    let mut sink = Sink::start("rw.metadata", &config);
    for round in 0..3 {
        sink.page(&origin("a"), &everything(AT + round).page);
        sink.flush();
    }
    sink.end();
    let said: Vec<_> = receiver.all().into_iter().flat_map(|seen| seen.metadata).collect();
    let said: Vec<_> = said
        .iter()
        .map(|m| (m.kind, m.metric_family_name.as_str(), m.help.as_str(), m.unit.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (1, "requests", "Requests so far.", ""),
            (2, "odd", "Odd values.", ""),
            (3, "rpc_seconds", "Time.", "seconds")
        ]
    );
}
