//! Push requests as bytes, written straight from the arena.
//!
//! Format: `logproto.PushRequest` of Loki's `pkg/push/push.proto`: streams (1) of labels (1) and entries (2);
//! an entry has a timestamp (1: seconds 1, nanos 2), the line (2) and structured metadata pairs (3: name 1,
//! value 2). What is the same for every record of a workload is encoded once.
//!
//! Invariant: at most 128 pairs and 64 KiB of metadata an entry, no empty name, no empty value.

use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_64;

use crate::data::batch::{Batch, Fields, Marks, Record, Span, Stream};
use crate::data::severity::Severity;
use crate::data::varint;
use crate::data::workload::{Origin, Workload};
use crate::sink::StreamKey;

/// Loki's default `max_label_value_length`.
const MAX_LABEL_VALUE: usize = 2048;
/// Value bytes of one metadata pair that a line can bring; ten of these leave room below Loki's 64 KiB.
const MAX_VALUE: usize = 4096;
/// Pairs that a workload's own labels may make up, below Loki's 128.
const MAX_WORKLOAD_PAIRS: usize = 100;
/// Bytes that they may have.
const MAX_WORKLOAD_BYTES: usize = 16 << 10;
/// Room for the length of a stream before it is known.
const LENGTH_ROOM: usize = 5;
/// An application time nearer to the record's own time than this says nothing new.
const APP_TIME_DIFFERS: u64 = 1_000_000_000;

const LEVELS: [Severity; 7] = [
    Severity::UNSPECIFIED,
    Severity::TRACE,
    Severity::DEBUG,
    Severity::INFO,
    Severity::WARN,
    Severity::ERROR,
    Severity::FATAL,
];

/// What all records of a workload share.
#[derive(Debug)]
pub(super) struct Known {
    /// Hash of the label set.
    pub(super) key: StreamKey,
    labels: Vec<u8>,
    /// Pairs pod, stream, level and detected_level, by stream and level.
    head: [[Vec<u8>; LEVELS.len()]; 2],
    env: Vec<u8>,
    tail: Vec<u8>,
}

impl Known {
    pub(super) fn new(workload: &Workload, fields: Fields, env_as_label: bool) -> Self {
        let labels = label_text(workload, env_as_label);
        let mut pod = Vec::new();
        let origin = workload.container.origin();
        if fields.contains(Fields::POD) {
            pair(&mut pod, b"pod", workload.container.pod.as_bytes());
            if let Origin::File(path) = origin {
                pair(&mut pod, b"filename", cut(path.as_bytes()));
            }
        }
        // A file has no streams.
        let has_streams = !matches!(origin, Origin::File(_));
        let head = [Stream::Stdout, Stream::Stderr].map(|stream| {
            LEVELS.map(|severity| {
                let mut head = pod.clone();
                if fields.contains(Fields::STREAM) && has_streams {
                    pair(&mut head, b"stream", stream.name().as_bytes());
                }
                if fields.contains(Fields::LEVEL) {
                    pair(&mut head, b"level", severity.level().as_bytes());
                    pair(&mut head, b"detected_level", severity.level().as_bytes());
                }
                head
            })
        });
        let mut env = Vec::new();
        if fields.contains(Fields::ENV)
            && let Some(environment) = &workload.environment
        {
            pair(&mut env, b"env", cut(environment.as_bytes()));
        }
        let mut tail = Vec::new();
        for (name, value) in workload.labels.iter().take(MAX_WORKLOAD_PAIRS) {
            let before = tail.len();
            pair(&mut tail, metadata_name(name).as_bytes(), cut(value.as_bytes()));
            if tail.len() > MAX_WORKLOAD_BYTES {
                tail.truncate(before);
                break;
            }
        }
        Self { key: stream_key(&labels), labels: labels.into_bytes(), head, env, tail }
    }

    /// Appends one entry.
    #[inline]
    pub(super) fn entry(
        &self,
        out: &mut Vec<u8>,
        batch: &Batch,
        record: &Record,
        fields: Fields,
        text: &mut String,
    ) {
        let head = &self.head[record.stream as usize][level_index(record.severity)];
        let trace = record.trace_id.filter(|_| fields.contains(Fields::TRACE_ID));
        let span = record.span_id.filter(|_| fields.contains(Fields::SPAN_ID));
        let line = batch.body(record);
        let (seconds, nanos) = (record.time_unix_nano / 1_000_000_000, record.time_unix_nano % 1_000_000_000);
        let time_len = 2 + varint::len(seconds) + varint::len(nanos);
        let fixed = 2
            + time_len
            + if line.is_empty() { 0 } else { 1 + varint::len(line.len() as u64) + line.len() }
            + head.len()
            + if trace.is_some() { TRACE_PAIR.len() + 32 } else { 0 }
            + if span.is_some() { SPAN_PAIR.len() + 16 } else { 0 }
            + self.env.len()
            + self.tail.len();
        let extras = extras_len(record, fields);
        out.reserve(fixed + extras + 8);
        out.push(0x12);
        let length_at = out.len();
        varint::write(out, (fixed + extras) as u64);
        let start = out.len();
        out.extend_from_slice(&[0x0a, time_len as u8, 0x08]);
        varint::write(out, seconds);
        out.push(0x10);
        varint::write(out, nanos);
        if !line.is_empty() {
            out.push(0x12);
            varint::write(out, line.len() as u64);
            out.extend_from_slice(line);
        }
        out.extend_from_slice(head);
        if let Some(trace) = trace {
            out.extend_from_slice(TRACE_PAIR);
            out.extend_from_slice(&trace.hex());
        }
        if let Some(span) = span {
            out.extend_from_slice(SPAN_PAIR);
            out.extend_from_slice(&span.hex());
        }
        out.extend_from_slice(&self.env);
        let plain = !needs_care(record, fields);
        if extras > 0 {
            write_request_fields(out, batch, record, fields);
        }
        if !plain && fields.contains(Fields::APP_TIME) {
            write_app_time(out, record, text);
        }
        out.extend_from_slice(&self.tail);
        if !plain {
            write_marks(out, record, text);
        }
        // The guess was exact unless a value was odd: then the length is written anew.
        let length = out.len() - start;
        if length != fixed + extras {
            let (old, new) = (start - length_at, varint::len(length as u64));
            let mut rest = length as u64;
            // On the stack: an odd value must not cost an allocation a line.
            let exact: [u8; 10] = std::array::from_fn(|_| {
                let byte = rest as u8 & 0x7f;
                rest >>= 7;
                byte | if rest > 0 { 0x80 } else { 0 }
            });
            out.splice(length_at..length_at + old, exact[..new].iter().copied());
        }
    }
}

/// The key of the stream with this label set, as [`Known`] writes it and Loki prints it.
pub(super) fn stream_key(labels: &str) -> StreamKey {
    StreamKey(xxh3_64(labels.as_bytes()))
}

/// `0x1a, length, 0x0a, 8, "trace_id", 0x12, 32`, before 32 hex digits.
const TRACE_PAIR: &[u8] = b"\x1a\x2c\x0a\x08trace_id\x12\x20";
/// `0x1a, length, 0x0a, 7, "span_id", 0x12, 16`, before 16 hex digits.
const SPAN_PAIR: &[u8] = b"\x1a\x1b\x0a\x07span_id\x12\x10";

/// Starts a stream; its length is filled in by [`close_stream`], which takes what this returns.
pub(super) fn open_stream(out: &mut Vec<u8>, known: &Known) -> usize {
    out.push(0x0a);
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_ROOM]);
    out.push(0x0a);
    varint::write(out, known.labels.len() as u64);
    out.extend_from_slice(&known.labels);
    start
}

/// Writes the length of the stream that was opened at `start`.
pub(super) fn close_stream(out: &mut Vec<u8>, start: usize) {
    let from = start + LENGTH_ROOM;
    let mut length = (out.len() - from) as u64;
    let room = varint::len(length);
    for (at, byte) in out[start..start + room].iter_mut().enumerate() {
        *byte = length as u8 & 0x7f | if at + 1 < room { 0x80 } else { 0 };
        length >>= 7;
    }
    let end = out.len();
    out.copy_within(from..end, start + room);
    out.truncate(end - (LENGTH_ROOM - room));
}

#[inline]
fn level_index(severity: Severity) -> usize {
    usize::from(severity.number().div_ceil(4))
}

/// True when the record has a pair that few records have: an application time of its own, or a mark.
#[inline]
fn needs_care(record: &Record, fields: Fields) -> bool {
    !record.marks.is_none()
        || record.repeated > 0
        || record.app_time_unix_nano != 0
            && fields.contains(Fields::APP_TIME)
            && record.app_time_unix_nano.abs_diff(record.time_unix_nano) > APP_TIME_DIFFERS
}

/// A name as it stands in a pair: tag, length, name, and the tag of the value.
const REQUEST_ID: &[u8; 13] = b"\x0a\x0arequest_id\x12";
const HTTP_METHOD: &[u8; 14] = b"\x0a\x0bhttp_method\x12";
const HTTP_ROUTE: &[u8; 13] = b"\x0a\x0ahttp_route\x12";
const HTTP_STATUS: &[u8; 14] = b"\x0a\x0bhttp_status\x12";
const DURATION_MS: &[u8; 14] = b"\x0a\x0bduration_ms\x12";

const REQUEST_FIELDS: Fields = Fields::REQUEST_ID
    .with(Fields::HTTP_METHOD)
    .with(Fields::HTTP_ROUTE)
    .with(Fields::HTTP_STATUS)
    .with(Fields::DURATION_MS);

/// Bytes of the pairs that the request fields will take, if no value is odd.
#[inline]
fn extras_len(record: &Record, fields: Fields) -> usize {
    if !fields.intersects(REQUEST_FIELDS) {
        return 0;
    }
    let text = |field: Fields, span: Span, name: usize| {
        if span.is_empty() || !fields.contains(field) { 0 } else { named_len(name, span.len as usize) }
    };
    let status = record.http_status != 0 && fields.contains(Fields::HTTP_STATUS);
    text(Fields::REQUEST_ID, record.request_id, REQUEST_ID.len())
        + text(Fields::HTTP_METHOD, record.http_method, HTTP_METHOD.len())
        + text(Fields::HTTP_ROUTE, record.http_route, HTTP_ROUTE.len())
        + if status { named_len(HTTP_STATUS.len(), decimal_len(record.http_status)) } else { 0 }
        + text(Fields::DURATION_MS, record.duration_ms, DURATION_MS.len())
}

#[inline]
fn write_request_fields(out: &mut Vec<u8>, batch: &Batch, record: &Record, fields: Fields) {
    if !record.request_id.is_empty() && fields.contains(Fields::REQUEST_ID) {
        write_text(out, REQUEST_ID, batch.text(record.request_id));
    }
    if !record.http_method.is_empty() && fields.contains(Fields::HTTP_METHOD) {
        write_text(out, HTTP_METHOD, batch.text(record.http_method));
    }
    if !record.http_route.is_empty() && fields.contains(Fields::HTTP_ROUTE) {
        write_text(out, HTTP_ROUTE, batch.text(record.http_route));
    }
    if record.http_status != 0 && fields.contains(Fields::HTTP_STATUS) {
        let mut digits = [0_u8; 5];
        let length = decimal_len(record.http_status);
        let mut rest = record.http_status;
        for digit in digits[..length].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        write_text(out, HTTP_STATUS, &digits[..length]);
    }
    if !record.duration_ms.is_empty() && fields.contains(Fields::DURATION_MS) {
        write_text(out, DURATION_MS, batch.text(record.duration_ms));
    }
}

/// Appends a pair with one of the names above. Text that is long or not UTF-8 takes the slow way.
#[inline]
fn write_text<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], text: &[u8]) {
    if text.len() < 0x80 - 16 && text.is_ascii() {
        out.extend_from_slice(&[0x1a, (N + 1 + text.len()) as u8]);
        out.extend_from_slice(name);
        out.push(text.len() as u8);
        out.extend_from_slice(text);
    } else {
        pair(out, &name[2..N - 1], cut(String::from_utf8_lossy(text).as_bytes()));
    }
}

#[cold]
fn write_app_time(out: &mut Vec<u8>, record: &Record, text: &mut String) {
    let app_time = record.app_time_unix_nano;
    if app_time == 0 || app_time.abs_diff(record.time_unix_nano) <= APP_TIME_DIFFERS {
        return;
    }
    if let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(app_time)) {
        text.clear();
        let _ = write!(text, "{time}");
        pair(out, b"app_time", text.as_bytes());
    }
}

#[cold]
fn write_marks(out: &mut Vec<u8>, record: &Record, text: &mut String) {
    let mut number = |out: &mut Vec<u8>, name: &[u8], value: u32| {
        text.clear();
        let _ = write!(text, "{value}");
        pair(out, name, text.as_bytes());
    };
    if record.marks.contains(Marks::TRACE_INHERITED) {
        pair(out, b"trace_inherited", b"true");
    }
    if record.marks.contains(Marks::TRUNCATED) {
        pair(out, b"truncated", b"true");
        number(out, b"original_length", record.original_len);
    }
    if record.marks.contains(Marks::LOSSY) {
        pair(out, b"encoding", b"lossy");
    }
    if record.marks.contains(Marks::REDACTED) {
        pair(out, b"redacted", b"true");
    }
    if record.marks.contains(Marks::RELEASED) {
        pair(out, b"nodewick_recorder", b"released");
    }
    if record.repeated > 0 {
        number(out, b"repeated", record.repeated);
    }
}

/// Appends a metadata pair; an empty name or value is none.
fn pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if name.is_empty() || value.is_empty() {
        return;
    }
    let inner =
        2 + varint::len(name.len() as u64) + name.len() + varint::len(value.len() as u64) + value.len();
    out.push(0x1a);
    varint::write(out, inner as u64);
    out.push(0x0a);
    varint::write(out, name.len() as u64);
    out.extend_from_slice(name);
    out.push(0x12);
    varint::write(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Bytes of a pair whose encoded name has `name` bytes.
#[inline]
fn named_len(name: usize, value: usize) -> usize {
    let inner = name + varint::len(value as u64) + value;
    1 + varint::len(inner as u64) + inner
}

/// At most [`MAX_VALUE`] bytes of UTF-8, whole characters.
fn cut(text: &[u8]) -> &[u8] {
    cut_to(text, MAX_VALUE)
}

fn cut_to(text: &[u8], max: usize) -> &[u8] {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while end > 0 && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

/// A name as Loki would make it: letters, digits and underscores, not led by a digit (`key_` is put before it).
fn metadata_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str("key_");
    }
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
    out
}

/// The label set as Loki prints it: sorted names, values quoted as Go quotes them, empty ones left out.
fn label_text(workload: &Workload, env_as_label: bool) -> String {
    let environment = workload.environment.as_deref().filter(|_| env_as_label).unwrap_or_default();
    // A group of files is what others call a job.
    let name = workload.container.container.as_str();
    let (container, job) = match workload.container.origin() {
        Origin::Container => (name, ""),
        Origin::File(_) => ("", name),
        Origin::Process => ("", ""),
    };
    let labels = [
        ("cluster", workload.cluster.as_str()),
        ("container", container),
        ("env", environment),
        ("job", job),
        ("namespace", &workload.container.namespace),
        ("node", &workload.node),
        ("service_name", &workload.service_name),
    ];
    let mut text = String::from("{");
    for (name, value) in labels.into_iter().filter(|(_, value)| !value.is_empty()) {
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(name);
        text.push('=');
        let value = cut_to(value.as_bytes(), MAX_LABEL_VALUE);
        quote(&mut text, &String::from_utf8_lossy(value));
    }
    text.push('}');
    text
}

/// A Go string literal, as `strconv.Quote` writes it and Loki's label parser reads it.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[inline]
fn decimal_len(value: u16) -> usize {
    match value {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        _ => 5,
    }
}
