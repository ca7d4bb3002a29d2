//! Writes an OTLP `ExportLogsServiceRequest` from parcels, straight from slices of their arenas.
//!
//! In: parcels in sending order. Out: the protobuf message, uncompressed. Consecutive parcels of one workload share
//! a `ResourceLogs`. Invariants: the same parcels always give the same bytes (no clock, no receive time: the
//! observed time is the record's own); every string is UTF-8, since one that is not would cost the whole request;
//! no attribute key is empty; nothing is allocated per record once the buffers have grown.
//!
//! Field numbers: opentelemetry-proto, `logs/v1/logs.proto`, `common/v1/common.proto`, `resource/v1/resource.proto`.

use std::borrow::Cow;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use crate::data::batch::{Batch, Fields, Marks, Record};
use crate::data::varint;
use crate::data::workload::{Origin, Workload};
use crate::sink::Parcel;
use crate::sink::json::{app_time_differs, write_rfc3339};

/// Resource attributes that say who wrote a log. The agent's own word wins over a workload's attribute of the same
/// name, except for the two `service.*` defaults, which annotations may set.
const OWN_RESOURCE_KEYS: [&str; 12] = [
    "service.name",
    "service.version",
    "deployment.environment.name",
    "k8s.cluster.name",
    "k8s.node.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.container.name",
    "k8s.container.restart_count",
    "nodewick.service_name_guessed",
    "service.instance.id",
];

/// Resource attributes that are lists of strings. Source: OpenTelemetry semantic conventions, "Container".
const LISTS: [&str; 1] = ["container.image.tags"];

/// Protobuf tags: field number and wire type in one byte.
mod tag {
    pub(super) const REQUEST_RESOURCE_LOGS: u8 = 1 << 3 | 2;
    pub(super) const RESOURCE_LOGS_RESOURCE: u8 = 1 << 3 | 2;
    pub(super) const RESOURCE_LOGS_SCOPE_LOGS: u8 = 2 << 3 | 2;
    pub(super) const RESOURCE_ATTRIBUTES: u8 = 1 << 3 | 2;
    pub(super) const SCOPE_LOGS_SCOPE: u8 = 1 << 3 | 2;
    pub(super) const SCOPE_LOGS_LOG_RECORDS: u8 = 2 << 3 | 2;
    pub(super) const SCOPE_NAME: u8 = 1 << 3 | 2;
    pub(super) const SCOPE_VERSION: u8 = 2 << 3 | 2;
    pub(super) const RECORD_TIME: u8 = 1 << 3 | 1;
    pub(super) const RECORD_SEVERITY_NUMBER: u8 = 2 << 3;
    pub(super) const RECORD_SEVERITY_TEXT: u8 = 3 << 3 | 2;
    pub(super) const RECORD_BODY: u8 = 5 << 3 | 2;
    pub(super) const RECORD_ATTRIBUTES: u8 = 6 << 3 | 2;
    pub(super) const RECORD_FLAGS: u8 = 8 << 3 | 5;
    pub(super) const RECORD_TRACE_ID: u8 = 9 << 3 | 2;
    pub(super) const RECORD_SPAN_ID: u8 = 10 << 3 | 2;
    pub(super) const RECORD_OBSERVED_TIME: u8 = 11 << 3 | 1;
    pub(super) const KEY: u8 = 1 << 3 | 2;
    pub(super) const VALUE: u8 = 2 << 3 | 2;
    pub(super) const STRING: u8 = 1 << 3 | 2;
    pub(super) const BOOL: u8 = 2 << 3;
    pub(super) const INT: u8 = 3 << 3;
    pub(super) const DOUBLE: u8 = 4 << 3 | 1;
    pub(super) const LIST: u8 = 5 << 3 | 2;
    pub(super) const ENTRY: u8 = 1 << 3 | 2;
}

/// The encoder with its reused buffers.
#[derive(Debug, Default)]
pub struct Encoder {
    resource: Vec<u8>,
    records: Vec<u8>,
    /// One record without its body.
    head: Vec<u8>,
    text: Vec<u8>,
}

impl Encoder {
    /// Appends the message for `parcels` to `out`. `fields` selects what goes out beside the line: `pod` governs
    /// `log.file.path`, `env` `deployment.environment.name`, `http_route` also `url.path`; the resource's identity
    /// and `log.record.uid` always go.
    pub fn encode(&mut self, parcels: &[Parcel], fields: Fields, out: &mut Vec<u8>) {
        let mut rest = parcels;
        while let Some(first) = rest.first() {
            let workload = &first.batch.workload;
            let same = rest.iter().take_while(|parcel| is_same(&parcel.batch.workload, workload)).count();
            let (group, others) = rest.split_at(same);
            rest = others;
            self.records.clear();
            for parcel in group {
                let name = ContainerHash::of(&parcel.batch.workload);
                for record in parcel.records() {
                    self.write_record(&parcel.batch, record, fields, name);
                }
            }
            self.resource.clear();
            if workload.container.is_container() {
                write_resource(workload, fields, &mut self.resource, &mut self.text);
            } else {
                write_file_resource(workload, fields, &mut self.resource);
            }
            write_resource_entries(&self.resource, OWN_SCOPE, &self.records, out);
        }
    }

    /// Appends one `LogRecord` with its tag and length to `self.records`. Its body comes last, so that it is
    /// copied only once.
    fn write_record(&mut self, batch: &Batch, record: &Record, fields: Fields, container: ContainerHash) {
        let head = &mut self.head;
        head.clear();
        head.push(tag::RECORD_TIME);
        head.extend_from_slice(&record.time_unix_nano.to_le_bytes());
        head.push(tag::RECORD_OBSERVED_TIME);
        head.extend_from_slice(&record.time_unix_nano.to_le_bytes());
        if fields.contains(Fields::LEVEL) && !record.severity.is_unspecified() {
            head.extend_from_slice(&[tag::RECORD_SEVERITY_NUMBER, record.severity.number()]);
            write_bytes(tag::RECORD_SEVERITY_TEXT, record.severity.level().as_bytes(), head);
        }
        if let (true, Some(id)) = (fields.contains(Fields::TRACE_ID), record.trace_id) {
            write_bytes(tag::RECORD_TRACE_ID, &id.to_bytes(), head);
            if record.trace_flags != 0 {
                head.push(tag::RECORD_FLAGS);
                head.extend_from_slice(&u32::from(record.trace_flags).to_le_bytes());
            }
        }
        if let (true, Some(id)) = (fields.contains(Fields::SPAN_ID), record.span_id) {
            write_bytes(tag::RECORD_SPAN_ID, &id.to_bytes(), head);
        }
        write_attributes(batch, record, fields, container, head, &mut self.text);

        let body = utf8(batch.body(record));
        let value_len = 1 + varint::len(body.len() as u64) + body.len();
        let record_len = head.len() + 1 + varint::len(value_len as u64) + value_len;
        let out = &mut self.records;
        out.push(tag::SCOPE_LOGS_LOG_RECORDS);
        varint::write(out, record_len as u64);
        out.extend_from_slice(head);
        out.push(tag::RECORD_BODY);
        varint::write(out, value_len as u64);
        write_bytes(tag::STRING, &body, out);
    }
}

fn is_same(one: &Arc<Workload>, other: &Arc<Workload>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// Name and version of the agent's own instrumentation scope.
pub(super) const OWN_SCOPE: (&[u8], &[u8]) = (b"nodewick", env!("CARGO_PKG_VERSION").as_bytes());

/// Appends a `ResourceLogs` or a `ResourceMetrics`: the fields of both have the same numbers, up to the entries of a
/// scope, which bring their own tags. Attributes of the resource bring theirs too.
pub(super) fn write_resource_entries(
    resource: &[u8],
    scope: (&[u8], &[u8]),
    entries: &[u8],
    out: &mut Vec<u8>,
) {
    let (name, version) = scope;
    let field = |bytes: &[u8]| 1 + varint::len(bytes.len() as u64) + bytes.len();
    let scope_len = field(name) + field(version);
    let scope_logs_len = 1 + varint::len(scope_len as u64) + scope_len + entries.len();
    let resource_field_len = 1 + varint::len(resource.len() as u64) + resource.len();
    let len = resource_field_len + 1 + varint::len(scope_logs_len as u64) + scope_logs_len;
    out.reserve(len + 11);
    out.push(tag::REQUEST_RESOURCE_LOGS);
    varint::write(out, len as u64);
    write_bytes(tag::RESOURCE_LOGS_RESOURCE, resource, out);
    out.push(tag::RESOURCE_LOGS_SCOPE_LOGS);
    varint::write(out, scope_logs_len as u64);
    out.push(tag::SCOPE_LOGS_SCOPE);
    varint::write(out, scope_len as u64);
    write_bytes(tag::SCOPE_NAME, name, out);
    write_bytes(tag::SCOPE_VERSION, version, out);
    out.extend_from_slice(entries);
}

/// Writes an attribute in the type that the conventions give it.
pub(super) fn write_resource_attribute(key: &str, value: &str, out: &mut Vec<u8>) {
    let write = if LISTS.contains(&key) { write_list_attribute } else { write_string_attribute };
    write(tag::RESOURCE_ATTRIBUTES, key.as_bytes(), value.as_bytes(), out);
}

/// Who wrote the log, by the semantic conventions for Kubernetes and services. `service.namespace` and
/// `service.instance.id` default as "Specify resource attributes using Kubernetes annotations" of those says.
fn write_resource(workload: &Workload, fields: Fields, out: &mut Vec<u8>, text: &mut Vec<u8>) {
    let container = &workload.container;
    let own = |key: &str| workload.attributes.iter().any(|(name, value)| name == key && !value.is_empty());
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            write_resource_attribute(key, value, out);
        }
    };
    put("service.name", &workload.service_name);
    if !own("service.namespace") {
        put("service.namespace", &container.namespace);
    }
    put("service.version", workload.service_version.as_deref().unwrap_or_default());
    if fields.contains(Fields::ENV) {
        put("deployment.environment.name", workload.environment.as_deref().unwrap_or_default());
    }
    put("k8s.cluster.name", &workload.cluster);
    put("k8s.node.name", &workload.node);
    put("k8s.namespace.name", &container.namespace);
    put("k8s.pod.name", &container.pod);
    put("k8s.pod.uid", &container.uid);
    put("k8s.container.name", &container.container);
    for (key, value) in &workload.attributes {
        // Loki and others refuse an empty key; the agent's own word must not be contradicted.
        let instance = key == "service.instance.id";
        if !key.is_empty() && (instance || !OWN_RESOURCE_KEYS.contains(&key.as_str())) {
            put(key, value);
        }
    }
    if !own("service.instance.id") {
        text.clear();
        for (index, part) in
            [&container.namespace, &container.pod, &container.container].into_iter().enumerate()
        {
            if index > 0 {
                text.push(b'.');
            }
            text.extend_from_slice(part.as_bytes());
        }
        write_string_attribute(tag::RESOURCE_ATTRIBUTES, b"service.instance.id", text, out);
    }
    for (name, value) in &workload.labels {
        text.clear();
        text.extend_from_slice(b"k8s.pod.label.");
        text.extend_from_slice(name.as_bytes());
        write_string_attribute(tag::RESOURCE_ATTRIBUTES, text, value.as_bytes(), out);
    }
    let restarts = u64::from(container.restart);
    write_int_attribute(tag::RESOURCE_ATTRIBUTES, b"k8s.container.restart_count", restarts, out);
    if workload.service_name_guessed {
        write_bool_attribute(tag::RESOURCE_ATTRIBUTES, b"nodewick.service_name_guessed", out);
    }
}

/// Who wrote a log that no kubelet keeps: the service, and the pod or host that it runs in. What the environment says
/// of these counts, as nobody else knows better.
fn write_file_resource(workload: &Workload, fields: Fields, out: &mut Vec<u8>) {
    let container = &workload.container;
    let in_pod = !container.pod.is_empty();
    let environment = workload.environment.as_deref().filter(|_| fields.contains(Fields::ENV));
    let (node, group) = (&workload.node, &container.container);
    let instance = if in_pod {
        format!("{}.{}.{group}", container.namespace, container.pod)
    } else {
        format!("{node}.{group}")
    };
    let known = [
        ("service.name", workload.service_name.as_str()),
        ("service.namespace", &container.namespace),
        ("service.version", workload.service_version.as_deref().unwrap_or_default()),
        ("deployment.environment.name", environment.unwrap_or_default()),
        ("k8s.cluster.name", &workload.cluster),
        (if in_pod { "k8s.node.name" } else { "host.name" }, node),
        ("k8s.namespace.name", &container.namespace),
        ("k8s.pod.name", &container.pod),
        ("service.instance.id", &instance),
    ];
    // These two are guesses, which the environment may know better.
    let may_differ = ["service.namespace", "service.instance.id"];
    let further = workload.attributes.iter().chain(&workload.labels);
    let further: Vec<(&str, &str)> = further.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let given = |key: &str| further.iter().any(|(name, value)| *name == key && !value.is_empty());
    let own = known.into_iter().filter(|(key, _)| !(may_differ.contains(key) && given(key)));
    let of_others = further.iter().copied().enumerate().filter(|(index, (key, _))| {
        let taken = known.iter().any(|(own, value)| own == key && !value.is_empty());
        let again = further[..*index].iter().any(|(before, _)| before == key);
        !again && (!taken || may_differ.contains(key))
    });
    for (key, value) in own.chain(of_others.map(|(_, pair)| pair)) {
        if !key.is_empty() && !value.is_empty() {
            write_resource_attribute(key, value, out);
        }
    }
    if workload.service_name_guessed {
        write_bool_attribute(tag::RESOURCE_ATTRIBUTES, b"nodewick.service_name_guessed", out);
    }
}

fn write_attributes(
    batch: &Batch,
    record: &Record,
    fields: Fields,
    container: ContainerHash,
    out: &mut Vec<u8>,
    text: &mut Vec<u8>,
) {
    const ATTRIBUTE: u8 = tag::RECORD_ATTRIBUTES;
    write_string_attribute(ATTRIBUTE, b"log.record.uid", &container.record_uid(record), out);
    let origin = batch.workload.container.origin();
    if fields.contains(Fields::STREAM) && !matches!(origin, Origin::File(_)) {
        write_string_attribute(ATTRIBUTE, b"log.iostream", record.stream.name().as_bytes(), out);
    }
    // Where the agent itself keeps what a process writes is nobody's business.
    if fields.contains(Fields::POD) && !batch.path.is_empty() && origin != Origin::Process {
        write_string_attribute(ATTRIBUTE, b"log.file.path", batch.path.as_bytes(), out);
    }
    for (field, key, span) in [
        (Fields::REQUEST_ID, &b"request.id"[..], record.request_id),
        (Fields::HTTP_METHOD, b"http.request.method", record.http_method),
        (Fields::HTTP_ROUTE, b"http.route", record.http_route),
        (Fields::HTTP_ROUTE, b"url.path", record.url_path),
    ] {
        if fields.contains(field) && !span.is_empty() {
            write_string_attribute(ATTRIBUTE, key, &utf8(batch.text(span)), out);
        }
    }
    if fields.contains(Fields::HTTP_STATUS) && record.http_status != 0 {
        write_int_attribute(ATTRIBUTE, b"http.response.status_code", u64::from(record.http_status), out);
    }
    if fields.contains(Fields::DURATION_MS)
        && !record.duration_ms.is_empty()
        && let Some(value) = finite(batch.text(record.duration_ms))
    {
        write_double_attribute(ATTRIBUTE, b"duration_ms", value, out);
    }
    if fields.contains(Fields::APP_TIME) && app_time_differs(record) {
        text.clear();
        write_rfc3339(record.app_time_unix_nano, text);
        write_string_attribute(ATTRIBUTE, b"app_time", text, out);
    }
    if !record.marks.is_none() {
        if record.marks.contains(Marks::TRACE_INHERITED) && fields.contains(Fields::TRACE_ID) {
            write_bool_attribute(ATTRIBUTE, b"nodewick.trace_inherited", out);
        }
        if record.marks.contains(Marks::TRUNCATED) {
            write_bool_attribute(ATTRIBUTE, b"nodewick.truncated", out);
            write_int_attribute(ATTRIBUTE, b"nodewick.original_length", u64::from(record.original_len), out);
        }
        if record.marks.contains(Marks::LOSSY) {
            write_bool_attribute(ATTRIBUTE, b"nodewick.lossy", out);
        }
        if record.marks.contains(Marks::REDACTED) {
            write_bool_attribute(ATTRIBUTE, b"nodewick.redacted", out);
        }
        if record.marks.contains(Marks::RELEASED) {
            write_string_attribute(ATTRIBUTE, b"nodewick.recorder", b"released", out);
        }
    }
    if record.repeated != 0 {
        write_int_attribute(ATTRIBUTE, b"nodewick.repeated", u64::from(record.repeated), out);
    }
}

fn finite(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Text as it may stand in a protobuf string.
pub(super) fn utf8(text: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(repaired) => Cow::Owned(repaired.into_bytes()),
    }
}

/// The container instance as a number: the part of a record's id that its whole log shares.
#[derive(Debug, Clone, Copy)]
struct ContainerHash(u64);

impl ContainerHash {
    fn of(workload: &Workload) -> Self {
        let mut hash = Xxh3::new();
        hash.update(workload.container.uid.as_bytes());
        hash.update(b"/");
        hash.update(workload.container.container.as_bytes());
        hash.update(b"/");
        hash.update(&workload.container.restart.to_le_bytes());
        Self(hash.digest())
    }

    /// The id of a record, in the form of a ULID: 48 bits of milliseconds, 80 bits of hash, sorted by time.
    ///
    /// It depends on the container instance, the record's place in its file and the record's own time. The time
    /// also names the generation: device and inode would not do, since the kubelet compresses a rotated file into
    /// a new one, and two generations never have the same nanosecond at the same offset.
    fn record_uid(self, record: &Record) -> [u8; 26] {
        const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let mut place = [0_u8; 16];
        place[..8].copy_from_slice(&record.offset.to_le_bytes());
        place[8..].copy_from_slice(&record.time_unix_nano.to_le_bytes());
        let random = xxh3_128_with_seed(&place, self.0) & ((1 << 80) - 1);
        let mut id = u128::from(record.time_unix_nano / 1_000_000) << 80 | random;
        let mut out = [0_u8; 26];
        for digit in out.iter_mut().rev() {
            *digit = CROCKFORD[(id & 31) as usize];
            id >>= 5;
        }
        out
    }
}

#[inline]
pub(super) fn write_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends tag and length of a `KeyValue` whose `AnyValue` has `value_len` bytes, its key, and the value's tag and
/// length; the value follows.
#[inline]
fn write_key(tag: u8, key: &[u8], value_len: usize, out: &mut Vec<u8>) {
    let len = 1 + varint::len(key.len() as u64) + key.len() + 1 + varint::len(value_len as u64) + value_len;
    out.push(tag);
    varint::write(out, len as u64);
    write_bytes(tag::KEY, key, out);
    out.push(tag::VALUE);
    varint::write(out, value_len as u64);
}

#[inline]
pub(super) fn write_string_attribute(tag: u8, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    write_key(tag, key, 1 + varint::len(value.len() as u64) + value.len(), out);
    write_bytes(tag::STRING, value, out);
}

/// Appends an attribute that is a list of one string.
fn write_list_attribute(tag: u8, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let entry = 1 + varint::len(value.len() as u64) + value.len();
    let list = 1 + varint::len(entry as u64) + entry;
    write_key(tag, key, 1 + varint::len(list as u64) + list, out);
    out.push(tag::LIST);
    varint::write(out, list as u64);
    out.push(tag::ENTRY);
    varint::write(out, entry as u64);
    write_bytes(tag::STRING, value, out);
}

fn write_int_attribute(tag: u8, key: &[u8], value: u64, out: &mut Vec<u8>) {
    write_key(tag, key, 1 + varint::len((value as usize) as u64), out);
    out.push(tag::INT);
    varint::write(out, value);
}

fn write_double_attribute(tag: u8, key: &[u8], value: f64, out: &mut Vec<u8>) {
    write_key(tag, key, 9, out);
    out.push(tag::DOUBLE);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn write_bool_attribute(tag: u8, key: &[u8], out: &mut Vec<u8>) {
    write_key(tag, key, 2, out);
    out.extend_from_slice(&[tag::BOOL, 1]);
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
