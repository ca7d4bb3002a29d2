//! The encoder's output as `opentelemetry-proto` reads it, against literals.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

use super::*;
use crate::data::batch::{Span, Stream};
use crate::data::budget::Budget;
use crate::data::position::Position;
use crate::data::severity::Severity;
use crate::data::trace::{SpanId, TraceId};
use crate::data::workload::ContainerRef;

fn workload() -> Workload {
    Workload {
        container: ContainerRef {
            namespace: "shop".into(),
            pod: "checkout-d994d45d6-5h9zr".into(),
            uid: "d11c6e6d-84fc-49ec-95a1-4ee5155f656a".into(),
            container: "api".into(),
            restart: 3,
        },
        cluster: "prod".into(),
        node: "node-1".into(),
        service_name: "checkout".into(),
        service_name_guessed: false,
        service_version: Some("1.2.3".into()),
        environment: Some("staging".into()),
        labels: vec![("team".into(), "cart".into())],
        attributes: vec![
            ("".into(), "nameless".into()),
            ("k8s.deployment.name".into(), "checkout".into()),
            ("k8s.pod.name".into(), "forged".into()),
        ],
        tenant: None,
    }
}

fn parcel(workload: &Arc<Workload>, arena: &[u8], records: Vec<Record>) -> Parcel {
    let to = records.len() as u32;
    let batch = Batch {
        workload: Arc::clone(workload),
        path: "/var/log/pods/shop_checkout/api/3.log".into(),
        start: Position::default(),
        end: Position::default(),
        arena: arena.to_vec(),
        records,
        catching_up: false,
        sealed_unix_nano: 99,
        permit: Budget::new(1 << 20, Arc::default()).reserve(1).expect("fits"),
    };
    Parcel { batch: Arc::new(batch), from: 0, to }
}

fn encoded(parcels: &[Parcel], fields: Fields) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::default().encode(parcels, fields, &mut out);
    out
}

fn decoded(parcels: &[Parcel], fields: Fields) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(encoded(parcels, fields).as_slice()).expect("protobuf")
}

fn attributes(list: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => format!("int {number}"),
        Some(Value::DoubleValue(number)) => format!("double {number}"),
        Some(Value::BoolValue(flag)) => format!("bool {flag}"),
        other => format!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn only_record(request: &ExportLogsServiceRequest) -> LogRecord {
    assert_eq!(request.resource_logs.len(), 1);
    assert_eq!(request.resource_logs[0].scope_logs.len(), 1);
    let records = &request.resource_logs[0].scope_logs[0].log_records;
    assert_eq!(records.len(), 1);
    records[0].clone()
}

const FULL_ARENA: &[u8] = "{\"msg\":\"ü\"}POST/orders/:id/orders/7r-112.5".as_bytes();

fn full_record() -> Record {
    let mut marks = Marks::TRACE_INHERITED;
    for mark in [Marks::TRUNCATED, Marks::LOSSY, Marks::REDACTED] {
        marks.insert(mark);
    }
    Record {
        trace_id: TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c"),
        span_id: SpanId::from_hex(b"b7ad6b7169203331"),
        time_unix_nano: 1_795_354_933_124_535_840,
        app_time_unix_nano: 1_795_354_930_000_000_000,
        offset: 4096,
        body: Span::new(0, 12),
        http_method: Span::new(12, 16),
        http_route: Span::new(16, 27),
        url_path: Span::new(27, 36),
        request_id: Span::new(36, 39),
        duration_ms: Span::new(39, 43),
        http_status: 503,
        trace_flags: 1,
        original_len: 300_000,
        repeated: 4,
        severity: Severity::WARN,
        stream: Stream::Stderr,
        marks,
    }
}

#[test]
fn a_full_record_decodes_to_what_it_holds() {
    let request = decoded(&[parcel(&Arc::new(workload()), FULL_ARENA, vec![full_record()])], Fields::ALL);
    let resource = request.resource_logs[0].resource.as_ref().expect("resource");
    assert_eq!(
        attributes(&resource.attributes),
        pairs(&[
            ("service.name", "checkout"),
            ("service.namespace", "shop"),
            ("service.version", "1.2.3"),
            ("deployment.environment.name", "staging"),
            ("k8s.cluster.name", "prod"),
            ("k8s.node.name", "node-1"),
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "checkout-d994d45d6-5h9zr"),
            ("k8s.pod.uid", "d11c6e6d-84fc-49ec-95a1-4ee5155f656a"),
            ("k8s.container.name", "api"),
            ("k8s.deployment.name", "checkout"),
            ("service.instance.id", "shop.checkout-d994d45d6-5h9zr.api"),
            ("k8s.pod.label.team", "cart"),
            ("k8s.container.restart_count", "int 3"),
        ])
    );
    let scope = request.resource_logs[0].scope_logs[0].scope.as_ref().expect("scope");
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("nodewick", "0.1.0"));

    let record = only_record(&request);
    assert_eq!(record.time_unix_nano, 1_795_354_933_124_535_840);
    assert_eq!(record.observed_time_unix_nano, 1_795_354_933_124_535_840);
    assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "warn"));
    assert_eq!(record.trace_id, 0x0af7651916cd43dd8448eb211c80319c_u128.to_be_bytes());
    assert_eq!(record.span_id, 0xb7ad6b7169203331_u64.to_be_bytes());
    assert_eq!(record.flags, 1);
    assert_eq!(record.body.expect("body").value, Some(Value::StringValue("{\"msg\":\"ü\"}".to_owned())));
    assert_eq!(
        attributes(&record.attributes),
        pairs(&[
            ("log.record.uid", "01M81QWDW4BFYP1MZ3CNS3K38K"),
            ("log.iostream", "stderr"),
            ("log.file.path", "/var/log/pods/shop_checkout/api/3.log"),
            ("request.id", "r-1"),
            ("http.request.method", "POST"),
            ("http.route", "/orders/:id"),
            ("url.path", "/orders/7"),
            ("http.response.status_code", "int 503"),
            ("duration_ms", "double 12.5"),
            ("app_time", "2026-11-22T13:42:10.000000000Z"),
            ("nodewick.trace_inherited", "bool true"),
            ("nodewick.truncated", "bool true"),
            ("nodewick.original_length", "int 300000"),
            ("nodewick.lossy", "bool true"),
            ("nodewick.redacted", "bool true"),
            ("nodewick.repeated", "int 4"),
        ])
    );
}

#[test]
fn fields_select_what_goes_out() {
    let parcels = [parcel(&Arc::new(workload()), FULL_ARENA, vec![full_record()])];
    let record = only_record(&decoded(&parcels, Fields::LEVEL.with(Fields::SPAN_ID)));
    assert_eq!((record.severity_number, record.flags), (13, 0));
    assert_eq!((record.trace_id.len(), record.span_id.len()), (0, 8));
    let keys: Vec<_> = record.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "log.record.uid",
            "nodewick.truncated",
            "nodewick.original_length",
            "nodewick.lossy",
            "nodewick.redacted",
            "nodewick.repeated"
        ]
    );
    let none = decoded(&parcels, Fields::NONE);
    let resource = none.resource_logs[0].resource.as_ref().expect("resource");
    assert!(resource.attributes.iter().all(|pair| pair.key != "deployment.environment.name"));
    assert!(resource.attributes.iter().any(|pair| pair.key == "k8s.pod.name"));
    assert_eq!(only_record(&none).severity_number, 0);
}

#[test]
fn an_empty_record_has_a_body_and_nothing_made_up() {
    let bare = Workload { cluster: String::new(), service_version: None, environment: None, ..workload() };
    let record = Record { time_unix_nano: 7, ..Record::default() };
    let request = decoded(&[parcel(&Arc::new(bare), b"", vec![record])], Fields::ALL);
    let keys: Vec<_> = request.resource_logs[0]
        .resource
        .as_ref()
        .expect("resource")
        .attributes
        .iter()
        .map(|pair| pair.key.clone())
        .collect();
    assert!(!keys.iter().any(|key| key == "k8s.cluster.name" || key == "service.version" || key.is_empty()));
    let record = only_record(&request);
    assert_eq!(record.body.expect("body").value, Some(Value::StringValue(String::new())));
    assert_eq!((record.severity_number, record.severity_text.as_str()), (0, ""));
    let keys: Vec<_> = record.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["log.record.uid", "log.iostream", "log.file.path"]);
}

#[test]
fn annotations_may_name_the_instance_and_the_namespace_of_a_service() {
    let mut workload = workload();
    workload.attributes = vec![
        ("service.instance.id".into(), "mine".into()),
        ("service.name".into(), "forged".into()),
        ("service.namespace".into(), "payments".into()),
    ];
    workload.service_name_guessed = true;
    let request = decoded(&[parcel(&Arc::new(workload), b"x", vec![Record::default()])], Fields::ALL);
    let all = attributes(&request.resource_logs[0].resource.as_ref().expect("resource").attributes);
    let values = |key: &str| -> Vec<_> {
        all.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("service.instance.id"), ["mine"]);
    assert_eq!(values("service.namespace"), ["payments"]);
    assert_eq!(values("service.name"), ["checkout"]);
    assert_eq!(values("nodewick.service_name_guessed"), ["bool true"]);
}

#[test]
fn an_images_tags_are_a_list_as_the_conventions_have_them() {
    let mut workload = workload();
    // Long enough for lengths of two bytes.
    let tag = "v".repeat(128);
    workload.attributes = vec![
        ("container.image.name".into(), "registry.example/shop".into()),
        ("container.image.tags".into(), tag.clone()),
    ];
    let request = decoded(&[parcel(&Arc::new(workload), b"x", vec![Record::default()])], Fields::ALL);
    let resource = request.resource_logs[0].resource.as_ref().expect("resource");
    let value = |key: &str| {
        let pair = resource.attributes.iter().find(|pair| pair.key == key);
        pair.and_then(|pair| pair.value.clone()).and_then(|value| value.value)
    };
    assert_eq!(value("container.image.name"), Some(Value::StringValue("registry.example/shop".into())));
    let Some(Value::ArrayValue(list)) = value("container.image.tags") else { panic!("no list") };
    let entries: Vec<_> = list.values.into_iter().filter_map(|entry| entry.value).collect();
    assert_eq!(entries, [Value::StringValue(tag)]);
    assert!(value("service.instance.id").is_some(), "what follows is in its place");
}

#[test]
fn neighbours_of_one_workload_share_a_resource() {
    let (one, equal) = (Arc::new(workload()), Arc::new(workload()));
    let other = Arc::new(Workload { service_name: "orders".into(), ..workload() });
    let line = |text: &[u8]| vec![Record { body: Span::new(0, text.len()), ..Record::default() }];
    let parcels = [
        parcel(&one, b"a", line(b"a")),
        parcel(&equal, b"b", line(b"b")),
        parcel(&other, b"c", line(b"c")),
        parcel(&one, b"d", line(b"d")),
    ];
    let request = decoded(&parcels, Fields::NONE);
    let bodies: Vec<Vec<String>> = request
        .resource_logs
        .iter()
        .map(|resource| {
            let text = |record: &LogRecord| match record.body.as_ref().and_then(|body| body.value.clone()) {
                Some(Value::StringValue(text)) => text,
                other => panic!("{other:?}"),
            };
            resource.scope_logs[0].log_records.iter().map(text).collect()
        })
        .collect();
    assert_eq!(bodies, [vec!["a", "b"], vec!["c"], vec!["d"]]);
}

#[test]
fn long_lines_and_bad_bytes_do_not_break_the_message() {
    // Lengths around the steps of a varint, on every level of nesting.
    for len in [0, 1, 100, 126, 127, 128, 129, 16_100, 16_383, 16_384, 16_385, 262_144] {
        let line = "x".repeat(len);
        let record = Record { body: Span::new(0, len), ..Record::default() };
        let request =
            decoded(&[parcel(&Arc::new(workload()), line.as_bytes(), vec![record; 3])], Fields::ALL);
        let records = &request.resource_logs[0].scope_logs[0].log_records;
        assert_eq!(records.len(), 3);
        assert_eq!(records[2].body.clone().expect("body").value, Some(Value::StringValue(line)));
    }
    let record = Record { body: Span::new(0, 4), request_id: Span::new(1, 2), ..Record::default() };
    let request = decoded(&[parcel(&Arc::new(workload()), b"a\xffb\0", vec![record])], Fields::REQUEST_ID);
    let record = only_record(&request);
    assert_eq!(record.body.expect("body").value, Some(Value::StringValue("a\u{fffd}b\0".to_owned())));
    assert_eq!(attributes(&record.attributes)[1], ("request.id".to_owned(), "\u{fffd}".to_owned()));
}

#[test]
fn a_replay_gives_the_same_bytes_and_the_same_ids() {
    let make = || [parcel(&Arc::new(workload()), FULL_ARENA, vec![full_record(), full_record()])];
    let mut encoder = Encoder::default();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    encoder.encode(&make(), Fields::ALL, &mut first);
    encoder.encode(&make(), Fields::ALL, &mut second);
    assert_eq!(first, second);
}

#[test]
fn record_ids_tell_records_apart_and_sort_by_time() {
    let at = |offset, time_unix_nano| Record { offset, time_unix_nano, ..Record::default() };
    let mut restarted = workload();
    restarted.container.restart = 4;
    let (this, other) = (ContainerHash::of(&workload()), ContainerHash::of(&restarted));
    let ids = [
        this.record_uid(&at(0, 1_795_354_933_124_000_000)),
        this.record_uid(&at(1, 1_795_354_933_124_000_000)),
        this.record_uid(&at(0, 1_795_354_933_124_000_001)),
        other.record_uid(&at(0, 1_795_354_933_124_000_000)),
    ];
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 4);
    // All share the millisecond, 1_795_354_933_124 = 01M81QWDW4 in Crockford's base 32.
    assert!(ids.iter().all(|id| id.starts_with(b"01M81QWDW4")), "{}", String::from_utf8_lossy(&ids[0]));
    assert!(this.record_uid(&at(0, 1_795_354_933_125_000_000)) > ids[0]);
}
