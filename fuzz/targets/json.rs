//! Reading a line: the one-pass JSON reader against serde_json, and every other format for what must always hold.
//!
//! In: a line. Properties: both readers agree on which lines are JSON and on every value; asking for fewer fields never changes
//! the others; every span lies in the line.

use nodewick::data::batch::{Fields, Span};
use nodewick::logs::parse::{Format, Parsed, parse, reference, unescape_into};

/// One field and what of the result belongs to it.
type Part = (Fields, fn(&Parsed) -> String);

const PARTS: [Part; 8] = [
    (Fields::LEVEL, |p| format!("{:?}", p.severity)),
    (Fields::TRACE_ID, |p| format!("{:?} {}", p.trace_id, p.trace_flags)),
    (Fields::SPAN_ID, |p| format!("{:?} {}", p.span_id, p.trace_flags)),
    (Fields::REQUEST_ID, |p| format!("{:?}", p.request_id)),
    (Fields::HTTP_METHOD, |p| format!("{:?}", p.http_method)),
    (Fields::HTTP_ROUTE, |p| format!("{:?} {:?}", p.http_route, p.url_path)),
    (Fields::HTTP_STATUS, |p| format!("{}", p.http_status)),
    (Fields::DURATION_MS, |p| format!("{:?} {:?}", p.duration, p.duration_unit)),
];

pub(super) fn run(line: &[u8]) {
    let got = parse(line, Fields::ALL);
    let expected = reference::read(line, Fields::ALL);
    assert_eq!(got.format == Format::Json, expected.is_some(), "is it JSON?");
    if let Some(expected) = expected {
        assert_eq!(got, expected, "the two readers disagree");
    }
    for (field, part) in PARTS {
        assert_eq!(part(&parse(line, field)), part(&got), "asking for less changes what is found");
    }
    let inside = |span: Span| span.start as usize + span.len as usize <= line.len();
    assert!(inside(got.duration));
    for text in [got.request_id, got.http_method, got.http_route, got.url_path] {
        assert!(inside(text.span));
        if let (Ok(_), false) = (std::str::from_utf8(line), text.span.is_empty()) {
            let found = text.span.of(line);
            assert!(std::str::from_utf8(found).is_ok(), "a text is cut within a character");
            let mut plain = Vec::new();
            unescape_into(found, &mut plain);
            assert!(std::str::from_utf8(&plain).is_ok(), "unescaping breaks a character");
            assert!(text.escaped || plain == found, "escapes that are not marked");
        }
    }
}
