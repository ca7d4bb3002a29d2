//! OTLP metrics against an independent receiver: what pages become, and what each answer means.

use std::sync::Arc;
use std::time::Duration;

use nodewick::data::sample::{
    BucketSpan, Collect, Counts, Exemplar, Histogram, Label, MetricKind, NONE, Origin, OriginKind, Page,
    Sample, stale,
};
use nodewick::data::units;
use nodewick::metrics::{SINK_SAMPLES, SINK_SAMPLES_LOST};
use nodewick::sink::otlp::{Compression, Config, Protocol, metrics};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[path = "support/otlp.rs"]
mod support;
use support::Receiver;

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];
/// The time of the first page, milliseconds since the epoch.
const T: i64 = 1_795_354_933_000;
const TARGET: [(&str, &str); 6] = [
    ("cluster", "prod"),
    ("instance", "shop.checkout-0.api"),
    ("job", "shop/checkout"),
    ("namespace", "shop"),
    ("pod", "checkout-0"),
    ("workload_kind", "StatefulSet"),
];

fn origin() -> Arc<Origin> {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    Arc::new(Origin {
        kind: OriginKind::Target,
        labels: pairs(&TARGET),
        resource: pairs(&[
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "checkout-0"),
            ("service.name", "checkout"),
            ("service.namespace", "shop"),
        ]),
    })
}

/// Makes a page final, as the series do: labels sorted, with the name and the target's.
fn finish(page: &mut Page, time_unix_ms: i64) {
    for index in 0..page.samples.len() {
        let mut sample = page.samples[index];
        let mut labels = page.labels_of(&sample).to_vec();
        let name = page.push_text(b"__name__");
        labels.push(Label { name, value: sample.name });
        for (name, value) in TARGET {
            let (name, value) = (page.push_text(name.as_bytes()), page.push_text(value.as_bytes()));
            labels.push(Label { name, value });
        }
        labels.sort_by(|one, other| page.bytes(one.name).cmp(page.bytes(other.name)));
        sample.labels = page.labels.len() as u32;
        sample.label_count = labels.len() as u32;
        sample.time_unix_ms = time_unix_ms;
        page.labels.extend(labels);
        page.samples[index] = sample;
    }
}

fn page(time_unix_ms: i64, fill: impl FnOnce(&mut Page)) -> Page {
    let mut page = Page::default();
    fill(&mut page);
    finish(&mut page, time_unix_ms);
    page
}

fn counter(time_unix_ms: i64, value: f64) -> Page {
    page(time_unix_ms, |page| {
        page.begin_family("requests_total", MetricKind::Counter, "Requests.");
        page.push_sample("requests_total", [("route", "/a")], value);
    })
}

fn config(receiver: &Receiver, protocol: Protocol, compression: Compression) -> Config {
    let port = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
    Config { endpoint: format!("http://127.0.0.1:{port}"), protocol, compression, ..Config::default() }
}

/// A sink that runs on a thread of its own until it is dropped.
struct Sink {
    name: String,
    collect: Option<Box<dyn Collect>>,
    thread: Option<std::thread::JoinHandle<()>>,
    kill: CancellationToken,
}

impl Sink {
    fn start(name: &str, config: &Config) -> Self {
        let kill = CancellationToken::new();
        let (collect, task) = metrics::sink(name, config, kill.clone()).expect("a valid config");
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(task);
        });
        Self { name: name.to_owned(), collect: Some(collect), thread: Some(thread), kill }
    }

    fn send(&mut self, origin: &Arc<Origin>, page: &Page) {
        let collect = self.collect.as_mut().expect("runs");
        collect.page(origin, page);
        collect.flush();
    }

    /// Closes the entrance and waits until all is sent.
    fn finish(mut self) {
        self.collect.take();
        self.thread.take().expect("runs").join().expect("no panic");
    }

    fn delivered(&self) -> u64 {
        SINK_SAMPLES.with_label_values(&[self.name.as_str(), "delivered"]).get()
    }

    fn lost(&self, reason: &str) -> u64 {
        SINK_SAMPLES_LOST.with_label_values(&[self.name.as_str(), reason]).get()
    }

    /// Waits until `done`, at most 15 s.
    fn wait(&self, done: impl Fn(&Self) -> bool) {
        for _ in 0..750 {
            if done(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not in time; delivered {}", self.delivered());
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.kill.cancel();
        self.collect.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends one page; the points that arrive.
fn points_of(name: &str, page: &Page) -> Vec<Value> {
    let receiver = Receiver::start(&[]);
    let mut sink = Sink::start(name, &config(&receiver, Protocol::HttpProtobuf, Compression::Gzip));
    sink.send(&origin(), page);
    sink.finish();
    receiver.records()
}

#[test]
fn a_counter_arrives_whole_by_every_way() {
    let receiver = Receiver::start(&[]);
    for (number, (protocol, compression)) in [
        (Protocol::Grpc, Compression::Gzip),
        (Protocol::Grpc, Compression::None),
        (Protocol::HttpProtobuf, Compression::Gzip),
        (Protocol::HttpProtobuf, Compression::Zstd),
        (Protocol::HttpProtobuf, Compression::None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut config = config(&receiver, protocol, compression);
        config.tenant = Some("team-a".into());
        let mut sink = Sink::start(&format!("otlpm.way{number}"), &config);
        sink.send(&origin(), &counter(T, 7.0));
        sink.wait(|sink| sink.delivered() == 1);
        let request = receiver.requests().pop().expect("a request");
        assert_eq!(request["signal"], "metrics");
        assert_eq!(request["headers"]["x-scope-orgid"], "team-a");
    }
    let records = receiver.records();
    assert_eq!(records.len(), 5);
    let expected = json!({
        "signal": "metrics",
        "resource": {
            "k8s.namespace.name": "shop", "k8s.pod.name": "checkout-0", "service.name": "checkout",
            "service.namespace": "shop", "service.instance.id": "shop.checkout-0.api",
            "k8s.cluster.name": "prod", "workload_kind": "StatefulSet",
        },
        "scope": {"name": "nodewick", "version": env!("CARGO_PKG_VERSION")},
        "name": "requests_total", "description": "Requests.", "unit": "", "kind": "sum",
        "metadata": {"prometheus.type": "counter"}, "temporality": 2, "monotonic": true,
        "attributes": {"route": "/a"}, "start": 1_795_354_933_000_000_000_u64,
        "time": 1_795_354_933_000_000_000_u64, "flags": 0, "exemplars": [], "value": 7.0,
    });
    for record in records {
        assert_eq!(record, expected);
    }
}

#[test]
fn a_start_is_kept_until_the_value_falls() {
    let receiver = Receiver::start(&[]);
    let mut sink = Sink::start("otlpm.reset", &config(&receiver, Protocol::Grpc, Compression::Gzip));
    let origin = origin();
    for (step, value) in [5.0, 8.0, 2.0, 3.0, stale(), 4.0].into_iter().enumerate() {
        sink.send(&origin, &counter(T + 15_000 * step as i64, value));
    }
    sink.finish();
    let seconds = |record: &Value, key: &str| {
        let nanos = record[key].as_u64().expect("a time");
        (nanos != 0).then(|| nanos / 1_000_000_000 - T as u64 / 1000)
    };
    let found: Vec<_> = receiver
        .records()
        .iter()
        .map(|record| {
            (
                seconds(record, "start"),
                seconds(record, "time"),
                record["value"].as_f64(),
                record["flags"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (Some(0), Some(0), Some(5.0), Some(0)),
            (Some(0), Some(15), Some(8.0), Some(0)),
            (Some(15), Some(30), Some(2.0), Some(0)),
            (Some(15), Some(45), Some(3.0), Some(0)),
            (None, Some(60), None, Some(1)),
            (Some(75), Some(75), Some(4.0), Some(0)),
        ]
    );
}

#[test]
fn histograms_and_summaries_are_put_together() {
    let sent = page(T, |page| {
        page.begin_family("seconds", MetricKind::Histogram, "");
        for route in ["/a", "/b"] {
            for (le, value) in [("0.1", 3.0), ("+Inf", 9.0), ("0.5", 7.0)] {
                page.push_sample("seconds_bucket", [("route", route), ("le", le)], value);
            }
            page.push_sample("seconds_sum", [("route", route)], 2.5);
        }
        for route in ["/a", "/b"] {
            page.push_sample("seconds_count", [("route", route)], 9.0);
        }
        // Without a count it cannot be told.
        page.push_sample("seconds_bucket", [("route", "/c"), ("le", "1")], 1.0);
        page.begin_family("pause", MetricKind::Summary, "");
        page.push_sample("pause", [("quantile", "0.5")], 0.25);
        page.push_sample("pause", [("quantile", "0.99")], f64::NAN);
        page.push_sample("pause_sum", [], 1.5);
        page.push_sample("pause_count", [], 4.0);
    });
    let records = points_of("otlpm.whole", &sent);
    let brief: Vec<Value> = records
        .iter()
        .map(|record| {
            json!([record["name"], record["kind"], record["attributes"], record["count"], record["sum"]])
        })
        .collect();
    assert_eq!(
        brief,
        [
            json!(["seconds", "histogram", {"route": "/a"}, 9, 2.5]),
            json!(["seconds", "histogram", {"route": "/b"}, 9, 2.5]),
            json!(["pause", "summary", {}, 4, 1.5]),
        ]
    );
    assert_eq!(records[0]["bounds"], json!([0.1, 0.5]));
    assert_eq!(records[0]["counts"], json!([3, 4, 2]));
    assert_eq!((&records[0]["temporality"], &records[2]["temporality"]), (&json!(2), &json!(0)));
    assert_eq!(records[2]["quantiles"], json!([[0.5, 0.25], [0.99, "nan"]]));
    assert_eq!(SINK_SAMPLES_LOST.with_label_values(&["otlpm.whole", "unsupported"]).get(), 1);
}

#[test]
fn created_says_when_a_counter_and_a_histogram_began() {
    let sent = page(T, |page| {
        page.begin_family("orders", MetricKind::Counter, "");
        for shop in ["a", "b"] {
            page.push_sample("orders_total", [("shop", shop)], 1.0);
            page.push_sample("orders_created", [("shop", shop)], 1_795_354_000.5);
        }
        page.begin_family("took", MetricKind::Histogram, "");
        page.push_sample("took_bucket", [("le", "+Inf")], 1.0);
        page.push_sample("took_count", [], 1.0);
        page.push_sample("took_created", [], 1_795_354_001.0);
    });
    let brief: Vec<Value> = points_of("otlpm.created", &sent)
        .iter()
        .map(|record| json!([record["name"], record["start"], record["bounds"]]))
        .collect();
    assert_eq!(
        brief,
        [
            json!(["orders_total", 1_795_354_000_500_000_000_u64, null]),
            json!(["orders_total", 1_795_354_000_500_000_000_u64, null]),
            json!(["took", 1_795_354_001_000_000_000_u64, []]),
        ]
    );
}

#[test]
fn what_has_ended_says_so_in_its_own_type() {
    let sent = page(T, |page| {
        page.begin_family("alive", MetricKind::Gauge, "");
        page.push_sample("alive", [], 1.0);
        page.begin_family("part", MetricKind::Histogram, "");
        page.push_sample("part_bucket", [("le", "+Inf")], 1.0);
        page.push_sample("part_count", [], 1.0);
        page.begin_family("gone", MetricKind::Histogram, "");
        page.push_sample("gone_bucket", [("le", "1")], stale());
        page.push_sample("gone_bucket", [("le", "+Inf")], stale());
        page.push_sample("gone_count", [], stale());
        page.push_sample("gone_sum", [], stale());
        page.begin_family("left", MetricKind::Gauge, "");
        page.push_sample("left", [("a", "b")], stale());
        // One bucket of a histogram that lives.
        page.begin_family("part", MetricKind::Histogram, "");
        page.push_sample("part_bucket", [("le", "1")], stale());
    });
    let brief: Vec<Value> = points_of("otlpm.ended", &sent)
        .iter()
        .map(|record| json!([record["name"], record["kind"], record["flags"], record["counts"]]))
        .collect();
    assert_eq!(
        brief,
        [
            json!(["alive", "gauge", 0, null]),
            json!(["part", "histogram", 0, [1]]),
            json!(["gone", "histogram", 1, []]),
            json!(["left", "gauge", 1, null]),
        ]
    );
}

#[test]
fn other_types_follow_the_specification() {
    let sent = page(T, |page| {
        page.begin_family("build", MetricKind::Info, "");
        page.push_sample("build_info", [("version", "1")], 1.0);
        page.begin_family("state", MetricKind::StateSet, "");
        page.push_sample("state", [("state", "on")], 1.0);
        page.begin_family("odd", MetricKind::Unknown, "");
        page.push_sample("odd", [], f64::INFINITY);
        page.begin_family("queue", MetricKind::GaugeHistogram, "");
        page.push_sample("queue_bucket", [("le", "+Inf")], 1.0);
        page.begin_family("size", MetricKind::Gauge, "");
        let unit = page.push_text(b"bytes_per_second");
        page.families.last_mut().expect("begun").unit = unit;
        page.push_sample("size", [("otel_scope_name", "lib"), ("otel_scope_version", "2"), ("x", "y")], 1.0);
        page.begin_family("target", MetricKind::Info, "");
        page.push_sample("target_info", [("os_type", "linux")], 1.0);
    });
    let mut brief: Vec<Value> = points_of("otlpm.types", &sent)
        .iter()
        .map(|record| {
            assert_eq!(record["resource"]["os_type"], "linux");
            let monotonic = &record["monotonic"];
            let from = &record["metadata"]["prometheus.type"];
            let scope = &record["scope"]["name"];
            json!([
                record["name"],
                record["kind"],
                monotonic,
                from,
                record["unit"],
                scope,
                record["attributes"]
            ])
        })
        .collect();
    brief.sort_by_key(|line| line[0].to_string());
    assert_eq!(
        brief,
        [
            json!(["build_info", "sum", false, "info", "", "nodewick", {"version": "1"}]),
            json!(["odd", "gauge", false, "unknown", "", "nodewick", {}]),
            json!(["size", "gauge", false, "gauge", "By/s", "lib", {"x": "y"}]),
            json!(["state", "sum", false, "stateset", "", "nodewick", {"state": "on"}]),
        ]
    );
}

#[test]
fn exemplars_bring_their_trace() {
    let sent = page(T, |page| {
        page.begin_family("requests_total", MetricKind::Counter, "");
        page.push_sample("requests_total", [], 1.0);
        let labels = page.labels.len() as u32;
        for (name, value) in [
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
            ("span_id", "b7ad6b7169203331"),
            ("order", "17"),
        ] {
            let label =
                Label { name: page.push_text(name.as_bytes()), value: page.push_text(value.as_bytes()) };
            page.labels.push(label);
        }
        page.exemplars.push(Exemplar { labels, label_count: 3, value: 0.5, time_unix_ms: T - 1 });
        let sample = page.samples.last_mut().expect("pushed");
        (sample.exemplar, sample.exemplar_count) = (0, 1);
    });
    let records = points_of("otlpm.exemplar", &sent);
    assert_eq!(
        records[0]["exemplars"],
        json!([{
            "value": 0.5, "time": 1_795_354_932_999_000_000_u64, "span_id": "b7ad6b7169203331",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "attributes": {"order": "17"},
        }])
    );
}

#[test]
fn a_native_histogram_is_an_exponential_one() {
    let sent = page(T, |page| {
        page.begin_family("native", MetricKind::Histogram, "");
        page.push_sample("native", [("a", "b")], 12.5);
        let at = page.samples.len() - 1;
        page.histograms.push(Histogram {
            counts: Counts::Integer { count: 11, zero: 1, negative: vec![2], positive: vec![3, -1, 1] },
            sum: 12.5,
            schema: 3,
            zero_threshold: 0.001,
            negative_spans: vec![BucketSpan { offset: -2, length: 1 }],
            positive_spans: vec![BucketSpan { offset: 1, length: 2 }, BucketSpan { offset: 2, length: 1 }],
            gauge: false,
        });
        page.samples[at] = Sample { histogram: 0, ..page.samples[at] };
        assert_ne!(page.samples[at].histogram, NONE);
    });
    let records = points_of("otlpm.native", &sent);
    let record = &records[0];
    assert_eq!(
        json!([record["kind"], record["count"], record["sum"], record["scale"], record["zero_count"]]),
        json!(["exponential_histogram", 11, 12.5, 3, 1])
    );
    // Prometheus' bucket 1 ends where OpenTelemetry's bucket 0 ends.
    assert_eq!(record["positive"], json!([0, [3, 2, 0, 0, 3]]));
    assert_eq!(record["negative"], json!([-3, [2]]));
    assert_eq!(record["zero_threshold"], 0.001);
}

#[test]
fn what_asks_for_patience_is_sent_again_in_order() {
    for protocol in BOTH {
        let receiver = Receiver::start(&[]);
        let name = format!("otlpm.retry.{protocol:?}");
        let mut sink = Sink::start(&name, &config(&receiver, protocol, Compression::Gzip));
        let faults = match protocol {
            Protocol::Grpc => r#"[{"grpc": 14}, {"grpc": 8, "retry_info": 0.1}, {}]"#,
            Protocol::HttpProtobuf => r#"[{"http": 503}, {"http": 429, "retry_after": "0"}, {}]"#,
        };
        receiver.inject(faults);
        let origin = origin();
        for step in 0..3 {
            sink.send(&origin, &counter(T + step * 1000, step as f64));
        }
        sink.wait(|sink| sink.delivered() == 3);
        let values: Vec<_> = receiver.records().iter().map(|record| record["value"].as_f64()).collect();
        assert_eq!(values, [Some(0.0), Some(1.0), Some(2.0)], "{protocol:?}");
        assert_eq!(receiver.requests().len(), 5);
    }
}

#[test]
fn what_is_refused_is_counted_and_not_sent_again() {
    for protocol in BOTH {
        let receiver = Receiver::start(&[]);
        let name = format!("otlpm.refused.{protocol:?}");
        let mut sink = Sink::start(&name, &config(&receiver, protocol, Compression::Gzip));
        let faults = match protocol {
            Protocol::Grpc => r#"[{"grpc": 3}, {"partial": 1, "message": "too many"}, {}]"#,
            Protocol::HttpProtobuf => r#"[{"http": 400}, {"partial": 1, "message": "too many"}, {}]"#,
        };
        receiver.inject(faults);
        let origin = origin();
        for step in 0..3 {
            sink.send(&origin, &counter(T + step * 1000, step as f64));
        }
        sink.wait(|sink| sink.delivered() == 1);
        assert_eq!((sink.lost("refused"), sink.lost("partial_success")), (1, 1), "{protocol:?}");
        assert_eq!(receiver.requests().len(), 3);
        assert_eq!(receiver.records().last().expect("taken")["value"], 2.0);
    }
}

#[test]
fn an_endpoint_without_metrics_is_left_alone() {
    for protocol in BOTH {
        let receiver = Receiver::start(&["--no-metrics"]);
        let name = format!("otlpm.none.{protocol:?}");
        let mut sink = Sink::start(&name, &config(&receiver, protocol, Compression::Gzip));
        let origin = origin();
        sink.send(&origin, &counter(T, 1.0));
        sink.wait(|sink| sink.lost("unimplemented") == 1);
        sink.send(&origin, &counter(T + 1000, 1.0));
        sink.wait(|sink| sink.lost("unimplemented") == 2);
        sink.finish();
    }
}

#[test]
fn what_waits_too_long_or_is_too_much_is_dropped_oldest_first() {
    let receiver = Receiver::start(&[]);
    let mut config = config(&receiver, Protocol::HttpProtobuf, Compression::None);
    config.metrics.buffer = units::ByteSize(1500);
    let mut sink = Sink::start("otlpm.full", &config);
    // The first request is on its way and hangs; the others wait.
    receiver.inject(r#"[{"hang": 1.5}]"#);
    let origin = origin();
    sink.send(&origin, &counter(T, 0.0));
    std::thread::sleep(Duration::from_millis(400));
    for step in 1..20 {
        sink.send(&origin, &counter(T + step * 1000, step as f64));
    }
    assert!(sink.lost("buffer_full") > 10);
    sink.wait(|sink| sink.delivered() + sink.lost("buffer_full") == 20);
    let records = receiver.records();
    assert_eq!(records.last().expect("taken")["value"], 19.0, "the newest survive");
    let mut aged = config;
    aged.metrics.max_age = units::Span::millis(200);
    aged.endpoint = "http://127.0.0.1:9".into();
    let mut sink = Sink::start("otlpm.old", &aged);
    sink.send(&origin, &counter(T, 0.0));
    sink.wait(|sink| sink.lost("too_old") == 1);
}

#[test]
fn a_large_page_goes_in_several_requests_and_a_request_that_is_too_large_in_halves() {
    let receiver = Receiver::start(&["--max-message", "200000"]);
    let mut sink = Sink::start("otlpm.large", &config(&receiver, Protocol::HttpProtobuf, Compression::Gzip));
    let sent = page(T, |page| {
        for family in 0..20 {
            let name = format!("gauge_{family}");
            page.begin_family(&name, MetricKind::Gauge, "");
            for number in 0..1000 {
                page.push_sample(&name, [("number", number.to_string().as_str())], f64::from(number));
            }
        }
    });
    sink.send(&origin(), &sent);
    sink.wait(|sink| sink.delivered() == 20_000);
    let mut found: Vec<_> = receiver
        .records()
        .iter()
        .map(|record| format!("{} {}", record["name"], record["attributes"]["number"]))
        .collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 20_000);
}
