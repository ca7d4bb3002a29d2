//! What the Loki sink puts into a push request, read back by an independent decoder.

use std::sync::Arc;

use nodewick::data::batch::{Batch, Fields, Marks, Record, Span, Stream};
use nodewick::data::severity::Severity;
use nodewick::data::trace::{SpanId, TraceId};
use nodewick::data::workload::Workload;
use nodewick::sink::loki::Loki;
use nodewick::sink::{Parcel, Wire as _};

#[path = "support/batches.rs"]
mod batches;
#[path = "support/fake_loki.rs"]
mod fake_loki;

use batches::{batch, workload};
use fake_loki::wire::PushRequest;

/// 2026-11-22T14:13:20.000000007Z.
const TIME: i128 = 1_795_356_800_000_000_007;

fn whole(batch: Batch) -> Parcel {
    let to = batch.records.len() as u32;
    Parcel { batch: Arc::new(batch), from: 0, to }
}

fn decode(loki: &mut Loki, parcels: &[Parcel]) -> PushRequest {
    let mut body = Vec::new();
    loki.encode(parcels, &mut body);
    let raw = snap::raw::Decoder::new().decompress_vec(&body).expect("a snappy block");
    let request: PushRequest = prost::Message::decode(raw.as_slice()).expect("protobuf");
    assert_eq!(prost::Message::encode_to_vec(&request), raw, "the canonical encoding");
    request
}

fn metadata(request: &PushRequest, stream: usize, entry: usize) -> Vec<(&str, &str)> {
    let pairs = &request.streams[stream].entries[entry].metadata;
    pairs.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())).collect()
}

fn one(workload: Workload, fields: Fields, change: impl FnOnce(&mut Record, &mut Vec<u8>)) -> PushRequest {
    let mut batch = batch(&Arc::new(workload), &[(TIME, "the line")]);
    let mut record = batch.records[0];
    change(&mut record, &mut batch.arena);
    batch.records[0] = record;
    decode(&mut Loki::new(None, false, fields), &[whole(batch)])
}

fn add(arena: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = arena.len();
    arena.extend_from_slice(text);
    Span::new(start, arena.len())
}

#[test]
fn every_field_travels_in_the_order_of_the_page() {
    let mut pod = workload("checkout-d994d45d6-5h9zr", "api");
    pod.environment = Some("production".to_owned());
    pod.labels =
        vec![("app.kubernetes.io/part-of".to_owned(), "shop".to_owned()), ("1x".to_owned(), "y".to_owned())];
    let request = one(pod, Fields::ALL, |record, arena| {
        record.trace_id = TraceId::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        record.span_id = SpanId::new(0xb7ad_6b71_6920_3331);
        record.severity = Severity::WARN;
        record.stream = Stream::Stderr;
        record.request_id = add(arena, b"req-1");
        record.http_method = add(arena, b"GET");
        record.http_route = add(arena, b"/orders/:id");
        record.http_status = 503;
        record.duration_ms = add(arena, b"12.5");
        record.app_time_unix_nano = 1_795_356_795_500_000_000;
        record.marks.insert(Marks::TRACE_INHERITED);
        record.marks.insert(Marks::TRUNCATED);
        record.marks.insert(Marks::LOSSY);
        record.marks.insert(Marks::REDACTED);
        record.original_len = 300_000;
        record.repeated = 41;
    });
    assert_eq!(request.streams.len(), 1);
    assert_eq!(
        request.streams[0].labels,
        "{cluster=\"test\", container=\"api\", namespace=\"shop\", node=\"node-1\", service_name=\"checkout\"}"
    );
    let entry = &request.streams[0].entries[0];
    let stamp = entry.timestamp.expect("a timestamp");
    assert_eq!((stamp.seconds, stamp.nanos, entry.line.as_str()), (1_795_356_800, 7, "the line"));
    assert_eq!(
        metadata(&request, 0, 0),
        [
            ("pod", "checkout-d994d45d6-5h9zr"),
            ("stream", "stderr"),
            ("level", "warn"),
            ("detected_level", "warn"),
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
            ("span_id", "b7ad6b7169203331"),
            ("env", "production"),
            ("request_id", "req-1"),
            ("http_method", "GET"),
            ("http_route", "/orders/:id"),
            ("http_status", "503"),
            ("duration_ms", "12.5"),
            ("app_time", "2026-11-22T14:13:15.5Z"),
            ("app_kubernetes_io_part_of", "shop"),
            ("key_1x", "y"),
            ("trace_inherited", "true"),
            ("truncated", "true"),
            ("original_length", "300000"),
            ("encoding", "lossy"),
            ("redacted", "true"),
            ("repeated", "41"),
        ]
    );
}

#[test]
fn only_the_configured_fields_travel() {
    let fields = ["level", "trace_id", "span_id"]
        .iter()
        .filter_map(|name| Fields::by_name(name))
        .fold(Fields::NONE, Fields::with);
    let request = one(workload("p", "api"), fields, |record, arena| {
        record.severity = Severity::INFO;
        record.request_id = add(arena, b"req-1");
        record.http_status = 200;
        record.app_time_unix_nano = 1;
    });
    assert_eq!(metadata(&request, 0, 0), [("level", "info"), ("detected_level", "info")]);
}

#[test]
fn what_is_unknown_is_left_out() {
    let mut bare = workload("p", "api");
    bare.cluster.clear();
    bare.environment = Some(String::new());
    let request = one(bare, Fields::ALL, |record, _| {
        // Within a second of the record's own time: nothing new.
        record.app_time_unix_nano = 1_795_356_799_500_000_000;
    });
    assert_eq!(
        request.streams[0].labels,
        "{container=\"api\", namespace=\"shop\", node=\"node-1\", service_name=\"checkout\"}"
    );
    assert_eq!(metadata(&request, 0, 0), [("pod", "p"), ("stream", "stdout")]);
}

#[test]
fn parcels_of_a_stream_become_one_stream_and_others_their_own() {
    let (one, two) = (Arc::new(workload("checkout-1", "api")), Arc::new(workload("checkout-2", "api")));
    let other = Arc::new(workload("checkout-1", "sidecar"));
    let line = "y".repeat(300);
    let parcels = [
        whole(batch(&one, &[(TIME, "a"), (TIME + 1, &line)])),
        Parcel { from: 1, ..whole(batch(&two, &[(TIME + 2, "skipped"), (TIME + 3, "b")])) },
        whole(batch(&other, &[(TIME, "c")])),
    ];
    let mut loki = Loki::new(Some("t".to_owned()), false, Fields::ALL);
    assert_eq!(loki.stream(&parcels[0].batch), loki.stream(&parcels[1].batch));
    assert_ne!(loki.stream(&parcels[0].batch), loki.stream(&parcels[2].batch));
    assert_eq!(loki.tenant(&parcels[0].batch), Some("t"));
    let request = decode(&mut loki, &parcels);
    let lines: Vec<Vec<&str>> =
        request.streams.iter().map(|s| s.entries.iter().map(|entry| entry.line.as_str()).collect()).collect();
    assert_eq!(lines, [vec!["a", &line, "b"], vec!["c"]]);
    assert_eq!(metadata(&request, 0, 2)[0], ("pod", "checkout-2"));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    loki.encode(&parcels, &mut first);
    loki.encode(&parcels, &mut second);
    assert_eq!(first, second, "the same records are the same bytes");
}

#[test]
fn hostile_values_keep_the_request_valid() {
    let mut hostile = workload("p", "a\"b\\c\n\u{1}é");
    hostile.service_name = "s".repeat(3000);
    hostile.labels = (0..300).map(|at| (format!("label-{at}"), "v".repeat(1000))).collect();
    hostile.labels.push((String::new(), "no name".to_owned()));
    let request = one(hostile, Fields::ALL, |record, arena| {
        record.request_id = add(arena, &[b'r', 0xff, b'q']);
        record.http_route = add(arena, "é".repeat(100_000).as_bytes());
        record.http_status = u16::MAX;
    });
    let labels = &request.streams[0].labels;
    assert!(labels.contains("container=\"a\\\"b\\\\c\\n\\x01é\""), "{labels}");
    assert!(labels.contains(&format!("service_name=\"{}\"", "s".repeat(2048))));
    let pairs = metadata(&request, 0, 0);
    assert!(pairs.len() <= 128, "{}", pairs.len());
    assert!(pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 65_536);
    assert!(pairs.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
    let value = |name: &str| pairs.iter().find(|(found, _)| *found == name).expect("there").1;
    assert_eq!(value("request_id"), "r\u{fffd}q");
    assert_eq!(value("http_route"), "é".repeat(2048));
    assert_eq!(value("http_status"), "65535");
}

#[test]
fn the_environment_is_a_label_only_when_configured() {
    let mut pod = workload("p", "api");
    pod.environment = Some("staging".to_owned());
    let parcels = [whole(batch(&Arc::new(pod), &[(TIME, "")]))];
    let request = decode(&mut Loki::new(None, true, Fields::NONE), &parcels);
    assert_eq!(
        request.streams[0].labels,
        "{cluster=\"test\", container=\"api\", env=\"staging\", namespace=\"shop\", node=\"node-1\", service_name=\"checkout\"}"
    );
    assert_eq!(request.streams[0].entries[0].line, "", "an empty line is a line");
    assert_eq!(metadata(&request, 0, 0), []);
}

#[test]
fn the_bytes_of_a_small_request_are_these() {
    let mut pod = workload("p", "c");
    pod.cluster.clear();
    pod.node.clear();
    pod.service_name = "s".to_owned();
    pod.container.namespace = "n".to_owned();
    let mut batch = batch(&Arc::new(pod), &[(1_000_000_002, "hi")]);
    batch.records[0].severity = Severity::ERROR;
    let mut body = Vec::new();
    Loki::new(None, false, Fields::LEVEL).encode(&[whole(batch)], &mut body);
    let raw = snap::raw::Decoder::new().decompress_vec(&body).expect("a snappy block");
    let expected = b"\x0a\x67\x0a\x30{container=\"c\", namespace=\"n\", service_name=\"s\"}\
        \x12\x33\x0a\x04\x08\x01\x10\x02\x12\x02hi\
        \x1a\x0e\x0a\x05level\x12\x05error\
        \x1a\x17\x0a\x0edetected_level\x12\x05error";
    assert_eq!(raw, expected);
}
