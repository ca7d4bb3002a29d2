//! A record as one JSON object: the form of the stdout sink and of the local store.
//!
//! In: a record, its batch and the fields that may leave the node. Out: the object's bytes, appended to a buffer.
//! Invariant: the output is one line of valid JSON in UTF-8 whatever the line holds, with every control character
//! escaped, so that a terminal that shows it cannot be driven by log text. Nothing is allocated per record.

use crate::data::batch::{Batch, Fields, Marks, Record};
use crate::data::workload::Origin;

/// How far the application's own time may be from the record's before it is worth a field of its own.
const APP_TIME_TOLERANCE_NANOS: u64 = 1_000_000_000;

/// Appends `record` as one JSON object, without a newline behind it.
///
/// Keys, in this order: `time` (RFC 3339, nine digits of fraction, UTC), `cluster`, `namespace`, `pod`,
/// `container` (for a log file its group), `filename` (of a log file), `restart`, `node`, `service_name`, `env`, `stream`, `level`, `trace_id`, `span_id`, `request_id`,
/// `http_method`, `http_route`, `url_path`, `http_status` (number), `duration_ms` (number), `app_time`, `labels`
/// (object), the marks (`trace_inherited`, `lossy`, `redacted`: `true`; `recorder`: `released`; `original_len`, `repeated`: numbers) and
/// last `line`. What is unknown is left out. `fields` selects the keys that [`FIELD_NAMES`] names (`http_route`
/// brings `url_path`); the others always go.
///
/// [`FIELD_NAMES`]: crate::data::batch::FIELD_NAMES
pub fn write_json(batch: &Batch, record: &Record, fields: Fields, out: &mut Vec<u8>) {
    let workload = &*batch.workload;
    out.extend_from_slice(b"{\"time\":\"");
    write_rfc3339(record.time_unix_nano, out);
    out.push(b'"');
    write_pair("cluster", workload.cluster.as_bytes(), out);
    write_pair("namespace", workload.container.namespace.as_bytes(), out);
    if fields.contains(Fields::POD) {
        write_pair("pod", workload.container.pod.as_bytes(), out);
    }
    write_pair("container", workload.container.container.as_bytes(), out);
    let origin = workload.container.origin();
    if let Origin::File(path) = origin {
        write_pair("filename", path.as_bytes(), out);
    }
    write_number("restart", u64::from(workload.container.restart), out);
    write_pair("node", workload.node.as_bytes(), out);
    write_pair("service_name", workload.service_name.as_bytes(), out);
    if fields.contains(Fields::ENV)
        && let Some(environment) = &workload.environment
    {
        write_pair("env", environment.as_bytes(), out);
    }
    if fields.contains(Fields::STREAM) && !matches!(origin, Origin::File(_)) {
        write_pair("stream", record.stream.name().as_bytes(), out);
    }
    if fields.contains(Fields::LEVEL) {
        write_pair("level", record.severity.level().as_bytes(), out);
    }
    if fields.contains(Fields::TRACE_ID)
        && let Some(id) = record.trace_id
    {
        write_pair("trace_id", &id.hex(), out);
    }
    if fields.contains(Fields::SPAN_ID)
        && let Some(id) = record.span_id
    {
        write_pair("span_id", &id.hex(), out);
    }
    for (field, key, span) in [
        (Fields::REQUEST_ID, "request_id", record.request_id),
        (Fields::HTTP_METHOD, "http_method", record.http_method),
        (Fields::HTTP_ROUTE, "http_route", record.http_route),
        (Fields::HTTP_ROUTE, "url_path", record.url_path),
    ] {
        if fields.contains(field) {
            write_pair(key, batch.text(span), out);
        }
    }
    if fields.contains(Fields::HTTP_STATUS) && record.http_status != 0 {
        write_number("http_status", u64::from(record.http_status), out);
    }
    if fields.contains(Fields::DURATION_MS) && !record.duration_ms.is_empty() {
        let text = batch.text(record.duration_ms);
        if is_json_number(text) {
            write_key("duration_ms", out);
            out.extend_from_slice(text);
        }
    }
    if fields.contains(Fields::APP_TIME) && app_time_differs(record) {
        write_key("app_time", out);
        out.push(b'"');
        write_rfc3339(record.app_time_unix_nano, out);
        out.push(b'"');
    }
    if !workload.labels.is_empty() {
        write_key("labels", out);
        for (index, (name, value)) in workload.labels.iter().enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            write_string(name.as_bytes(), out);
            out.push(b':');
            write_string(value.as_bytes(), out);
        }
        out.push(b'}');
    }
    write_marks(record, fields, out);
    write_key("line", out);
    write_string(batch.body(record), out);
    out.push(b'}');
}

/// True when the record carries the application's own time and it is more than a second off the record's.
pub(crate) fn app_time_differs(record: &Record) -> bool {
    record.app_time_unix_nano != 0
        && record.app_time_unix_nano.abs_diff(record.time_unix_nano) > APP_TIME_TOLERANCE_NANOS
}

fn write_marks(record: &Record, fields: Fields, out: &mut Vec<u8>) {
    if !record.marks.is_none() {
        for (mark, key) in [
            (Marks::TRACE_INHERITED, "trace_inherited"),
            (Marks::LOSSY, "lossy"),
            (Marks::REDACTED, "redacted"),
        ] {
            let wanted = mark != Marks::TRACE_INHERITED || fields.contains(Fields::TRACE_ID);
            if wanted && record.marks.contains(mark) {
                write_key(key, out);
                out.extend_from_slice(b"true");
            }
        }
        if record.marks.contains(Marks::RELEASED) {
            write_key("recorder", out);
            out.extend_from_slice(b"\"released\"");
        }
        if record.marks.contains(Marks::TRUNCATED) {
            write_number("original_len", u64::from(record.original_len), out);
        }
    }
    if record.repeated != 0 {
        write_number("repeated", u64::from(record.repeated), out);
    }
}

fn write_key(key: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends `,"key":"value"`; nothing when the value is empty.
fn write_pair(key: &str, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        write_key(key, out);
        write_string(value, out);
    }
}

fn write_number(key: &str, value: u64, out: &mut Vec<u8>) {
    write_key(key, out);
    write_decimal(value, out);
}

/// Appends `value` in decimal.
pub(crate) fn write_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// True when `text` is a number by RFC 8259.
pub(crate) fn is_json_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let count = digits(exponent);
        return count != 0 && count == exponent.len();
    }
    rest.is_empty()
}

/// Appends `nanos` since the epoch as `2026-11-22T13:42:13.124535840Z`.
pub fn write_rfc3339(nanos: u64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    for (value, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (fraction, 9, b'Z'),
    ] {
        let mut divisor = 10_u64.pow(width - 1);
        while divisor > 0 {
            out.push(b'0' + (value / divisor % 10) as u8);
            divisor /= 10;
        }
        out.push(end);
    }
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Appends `text` as a JSON string. Bytes that are not UTF-8 become U+FFFD; C0 and C1 controls and DEL are escaped.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if std::str::from_utf8(text).is_ok() {
        write_escaped(text, out);
    } else {
        for chunk in text.utf8_chunks() {
            write_escaped(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// True for bytes that may not stand in the output as they are (0xc2 only before 0x80..=0x9f, a C1 control).
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = true;
        i += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0x7f] = true;
    table[0xc2] = true;
    table
};

fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut clean = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if !SPECIAL[usize::from(byte)] {
            at += 1;
            continue;
        }
        let (code, len) = match (byte, text.get(at + 1)) {
            (0xc2, Some(&next)) if next < 0xa0 => (next, 2),
            (0xc2, _) => {
                at += 1;
                continue;
            }
            _ => (byte, 1),
        };
        out.extend_from_slice(&text[clean..at]);
        at += len;
        clean = at;
        match code {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(code >> 4)]);
                out.push(HEX[usize::from(code & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[clean..]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::batch::{Span, Stream};
    use crate::data::budget::Budget;
    use crate::data::position::Position;
    use crate::data::severity::Severity;
    use crate::data::trace::{SpanId, TraceId};
    use crate::data::workload::{ContainerRef, Workload};

    fn batch(arena: &[u8]) -> Batch {
        let workload = Workload {
            container: ContainerRef {
                namespace: "shop".into(),
                pod: "checkout-1".into(),
                uid: "u".into(),
                container: "api".into(),
                restart: 2,
            },
            cluster: "prod".into(),
            node: "n1".into(),
            service_name: "checkout".into(),
            service_name_guessed: true,
            service_version: None,
            environment: Some("test".into()),
            labels: vec![("team".into(), "a\"b".into())],
            attributes: Vec::new(),
            tenant: None,
        };
        Batch {
            workload: Arc::new(workload),
            path: "/var/log/pods/x/api/2.log".into(),
            start: Position::default(),
            end: Position::default(),
            arena: arena.to_vec(),
            records: Vec::new(),
            catching_up: false,
            sealed_unix_nano: 0,
            permit: Budget::new(1 << 20, Arc::default()).reserve(1).expect("fits"),
        }
    }

    fn written(batch: &Batch, record: &Record, fields: Fields) -> String {
        let mut out = Vec::new();
        write_json(batch, record, fields, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_full_record_has_every_key_in_order() {
        let batch = batch(b"{\"msg\":\"hi\"}\nPOST/orders/:id/orders/7r-112.5");
        let record = Record {
            trace_id: TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c"),
            span_id: SpanId::from_hex(b"b7ad6b7169203331"),
            time_unix_nano: 1_795_354_933_124_535_840,
            app_time_unix_nano: 1_795_354_930_000_000_000,
            body: Span::new(0, 12),
            http_method: Span::new(13, 17),
            http_route: Span::new(17, 28),
            url_path: Span::new(28, 37),
            request_id: Span::new(37, 40),
            duration_ms: Span::new(40, 44),
            http_status: 201,
            original_len: 99,
            repeated: 4,
            severity: Severity::WARN,
            stream: Stream::Stderr,
            marks: {
                let mut marks = Marks::TRUNCATED;
                marks.insert(Marks::REDACTED);
                marks
            },
            ..Record::default()
        };
        assert_eq!(
            written(&batch, &record, Fields::ALL),
            concat!(
                r#"{"time":"2026-11-22T13:42:13.124535840Z","cluster":"prod","namespace":"shop","pod":"checkout-1","#,
                r#""container":"api","restart":2,"node":"n1","service_name":"checkout","env":"test","#,
                r#""stream":"stderr","level":"warn","trace_id":"0af7651916cd43dd8448eb211c80319c","#,
                r#""span_id":"b7ad6b7169203331","request_id":"r-1","http_method":"POST","#,
                r#""http_route":"/orders/:id","url_path":"/orders/7","http_status":201,"duration_ms":12.5,"#,
                r#""app_time":"2026-11-22T13:42:10.000000000Z","labels":{"team":"a\"b"},"#,
                r#""redacted":true,"original_len":99,"repeated":4,"line":"{\"msg\":\"hi\"}"}"#,
            )
        );
    }

    #[test]
    fn without_fields_only_the_stream_and_the_line_go() {
        let batch = batch(b"x");
        let record = Record { body: Span::new(0, 1), severity: Severity::INFO, ..Record::default() };
        assert_eq!(
            written(&batch, &record, Fields::NONE),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000000000Z","cluster":"prod","namespace":"shop","container":"api","#,
                r#""restart":2,"node":"n1","service_name":"checkout","labels":{"team":"a\"b"},"line":"x"}"#,
            )
        );
    }

    #[test]
    fn hostile_lines_stay_one_valid_line_and_read_back() {
        for (line, read) in [
            (&b"a\0b\x1b[2Jc\x7f\r\n\t\\\""[..], "a\0b\x1b[2Jc\x7f\r\n\t\\\""),
            ("\u{9b}31m \u{a0}é € 😀 \u{80}".as_bytes(), "\u{9b}31m \u{a0}é € 😀 \u{80}"),
            (b"bad \xff\xc2 tail \xc2", "bad \u{fffd}\u{fffd} tail \u{fffd}"),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            write_string(line, &mut out);
            let text = std::str::from_utf8(&out).expect("UTF-8");
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert_eq!(serde_json::from_str::<String>(text).expect("JSON"), read);
        }
    }

    #[test]
    fn times_agree_with_an_independent_calendar() {
        for nanos in
            [0, 951_782_399_999_999_999, 951_782_400_000_000_001, 4_102_444_800_123_456_789, u64::MAX]
        {
            let mut out = Vec::new();
            write_rfc3339(nanos, &mut out);
            let expected = jiff::Timestamp::from_nanosecond(i128::from(nanos)).expect("in range");
            assert_eq!(String::from_utf8(out).expect("ASCII"), format!("{expected:.9}"));
        }
    }

    #[test]
    fn only_json_numbers_pass_as_numbers() {
        for good in ["0", "12", "12.5", "-1", "1e3", "1.5E-7", "0.001"] {
            assert!(is_json_number(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", ".5", "5.", "01", "1e", "1e+", "0x1", "NaN", "1 ", "1,2", "1.2.3"] {
            assert!(!is_json_number(bad.as_bytes()), "{bad}");
        }
    }
}
