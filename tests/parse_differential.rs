//! The hand-written JSON reader against serde_json: which lines are JSON, and every value picked from them.
//!
//! `PROPTEST_CASES=100000 cargo test --test parse_differential` looks longer.

use nodewick::data::batch::Fields;
use nodewick::logs::parse::{Format, Parsed, parse, reference, unescape_into};
use proptest::prelude::*;

const CORPUS: [&str; 17] = [
    include_str!("corpus/lines/pino.jsonl"),
    include_str!("corpus/lines/fastify.jsonl"),
    include_str!("corpus/lines/bunyan.jsonl"),
    include_str!("corpus/lines/winston.jsonl"),
    include_str!("corpus/lines/structlog.jsonl"),
    include_str!("corpus/lines/python-json-logger.jsonl"),
    include_str!("corpus/lines/loguru.jsonl"),
    include_str!("corpus/lines/ecs.jsonl"),
    include_str!("corpus/lines/slog.jsonl"),
    include_str!("corpus/lines/logrus.jsonl"),
    include_str!("corpus/lines/zap.jsonl"),
    include_str!("corpus/lines/zerolog.jsonl"),
    include_str!("corpus/lines/logback.jsonl"),
    include_str!("corpus/lines/serilog.jsonl"),
    include_str!("corpus/lines/gcp.jsonl"),
    include_str!("corpus/lines/json-other.jsonl"),
    include_str!("corpus/lines/hostile.jsonl"),
];

/// Keys that mean something, alone or in each other, and some that do not.
const KEYS: [&str; 40] = [
    "level",
    "severity",
    "log",
    "log.level",
    "record",
    "name",
    "no",
    "@t",
    "@mt",
    "@l",
    "trace_id",
    "traceId",
    "trace",
    "id",
    "trace.id",
    "dd",
    "dd.trace_id",
    "req",
    "headers",
    "req.headers",
    "traceparent",
    "span_id",
    "span",
    "trace_flags",
    "logging.googleapis.com/trace",
    "reqId",
    "http",
    "request",
    "method",
    "url",
    "path",
    "res",
    "statusCode",
    "status",
    "responseTime",
    "duration",
    "time",
    "ts",
    "msg",
    "k8s.namespace.name",
];

const VALUES: [&str; 36] = [
    "30",
    "\"info\"",
    "\"WARN\"",
    "\"ERROR+4\"",
    "\"nonsense\"",
    "12",
    "0",
    "-1",
    "1e308",
    "1E+400",
    "0.5",
    "true",
    "false",
    "null",
    "\"\"",
    "{}",
    "[]",
    "[1,[2,{\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}]]",
    "\"0af7651916cd43dd8448eb211c80319c\"",
    "\"00000000000000000000000000000000\"",
    "\"b7ad6b7169203331\"",
    "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"",
    "\"5060571933882717101\"",
    "5060571933882717101",
    "\"projects/p/traces/06796866738c859f2f19b7cfb3214824\"",
    "\"01\"",
    "\"GET\"",
    "\"/a/b?c=d\"",
    "\"http:\\/\\/h\\/x\"",
    "200",
    "\"404\"",
    "\"12.5ms\"",
    "1795356566695",
    "\"2026-11-22T14:27:36.383Z\"",
    "\"a\\u0041\\ud83d\\ude80\\ud800 \\\" \\\\ z\"",
    "\"Zürich — 東京 🚀\"",
];

/// The two readers must agree, for the whole record and for its parts.
fn agree(line: &[u8]) -> Result<(), TestCaseError> {
    let expected = reference::read(line, Fields::ALL);
    let got = parse(line, Fields::ALL);
    let shown = String::from_utf8_lossy(line).into_owned();
    prop_assert_eq!(got.format == Format::Json, expected.is_some(), "is it JSON? {}", shown);
    let Some(expected) = expected else { return Ok(()) };
    prop_assert_eq!(got, expected, "{}", shown);

    let few = parse(line, Fields::LEVEL.with(Fields::TRACE_ID).with(Fields::SPAN_ID));
    let kept = |p: Parsed| (p.format, p.severity, p.trace_id, p.span_id, p.trace_flags);
    prop_assert_eq!(kept(few), kept(got), "wanting less changes nothing: {}", shown);
    for (field, pick) in [
        (Fields::HTTP_METHOD, (|p: Parsed| format!("{:?}", p.http_method)) as fn(Parsed) -> String),
        (Fields::HTTP_ROUTE, |p| format!("{:?}{:?}", p.http_route, p.url_path)),
        (Fields::HTTP_STATUS, |p| p.http_status.to_string()),
        (Fields::DURATION_MS, |p| format!("{:?}{:?}", p.duration, p.duration_unit)),
        (Fields::REQUEST_ID, |p| format!("{:?}", p.request_id)),
        (Fields::APP_TIME, |p| p.app_time_unix_nano.to_string()),
        (Fields::SPAN_ID, |p| format!("{:?}{}", p.span_id, p.trace_flags)),
    ] {
        prop_assert_eq!(pick(parse(line, field)), pick(got), "wanting less changes nothing: {}", shown);
    }
    Ok(())
}

fn escaped_key(key: &str, at: usize) -> String {
    let at = at % key.len();
    let (head, tail) = key.split_at(at);
    format!("{head}\\u{:04x}{}", u32::from(tail.as_bytes()[0]), &tail[1..])
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(&KEYS[..]).prop_map(str::to_owned),
        2 => (proptest::sample::select(&KEYS[..]), any::<usize>()).prop_map(|(key, at)| escaped_key(key, at)),
        1 => "[a-z_.@\u{e9}-]{0,70}",
        1 => Just("\\ud800x\\n".to_owned()),
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 2 => Just(" "), 1 => Just("\t \r\n")]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        8 => proptest::sample::select(&VALUES[..]).prop_map(str::to_owned),
        1 => "[ -~&&[^\"\\\\]]{0,90}".prop_map(|text| format!("\"{text}\"")),
        1 => "-?[0-9.eE+-]{1,9}",
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            4 => proptest::collection::vec((key(), space(), inner.clone(), space()), 0..6).prop_map(object),
            1 => proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

fn object(members: Vec<(String, &str, String, &str)>) -> String {
    let members: Vec<String> = members
        .into_iter()
        .map(|(key, before, value, after)| format!("{before}\"{key}\"{after}:{before}{value}{after}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn document() -> impl Strategy<Value = String> {
    (proptest::collection::vec((key(), space(), value(), space()), 0..8), space(), space())
        .prop_map(|(members, before, after)| format!("{before}{}{after}", object(members)))
}

fn corpus_line() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<Vec<u8>> = CORPUS.iter().flat_map(|file| file.lines()).map(|line| line.into()).collect();
    proptest::sample::select(lines)
}

/// Flips, cuts, doubles and splices.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let bytes =
        prop_oneof![proptest::sample::select(&b"{}[]\",:\\ \x00\x1f\x7f\x80\xff0e.-tn/u"[..]), any::<u8>()];
    let edit = (any::<prop::sample::Index>(), bytes, 0..5_u8, 1..40_usize);
    (corpus_line(), proptest::collection::vec(edit, 0..4)).prop_map(|(mut line, edits)| {
        for (place, byte, kind, len) in edits {
            if line.is_empty() {
                break;
            }
            let at = place.index(line.len());
            match kind {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                2 => line.truncate(at),
                3 => {
                    line.drain(at..(at + len).min(line.len()));
                }
                _ => {
                    let piece: Vec<u8> = line[at..(at + len).min(line.len())].to_vec();
                    line.splice(at..at, piece);
                }
            }
        }
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_readers_agree_on_documents(line in document()) {
        agree(line.as_bytes())?;
    }

    #[test]
    fn both_readers_agree_on_damaged_documents(line in document(), place: prop::sample::Index, byte: u8) {
        let mut line = line.into_bytes();
        let at = place.index(line.len());
        line[at] = byte;
        agree(&line)?;
    }

    #[test]
    fn both_readers_agree_on_damaged_log_lines(line in mutated()) {
        agree(&line)?;
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
        agree(&line)?;
    }

    #[test]
    fn texts_of_odd_bytes_are_read_without_a_panic(
        words in proptest::collection::vec(proptest::sample::select(&[
            "a", "=", ":", " ", "\"", "'", "\\", "\u{1b}[", "0m", "m", ";", "[", "]", "{", "}", "trace_id", "level",
            "ERROR", "info", "-", "|", "2026-11-22", "14:27:36,513", "GET /x HTTP/1.1", "200", "E1122 14:27:36.384000", ",",
            "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "ü", "\t",
        ][..]), 0..40)
    ) {
        let line = words.concat();
        let parsed = parse(line.as_bytes(), Fields::ALL);
        for text in [parsed.request_id, parsed.http_method, parsed.http_route, parsed.url_path] {
            prop_assert!(text.span.start as usize + text.span.len as usize <= line.len());
        }
    }

    #[test]
    fn unescaping_agrees_with_serde_json(text in any::<String>(), ascii: bool) {
        let json = if ascii {
            let mut json = String::from("\"");
            for unit in text.encode_utf16() {
                json.push_str(&format!("\\u{unit:04X}"));
            }
            json + "\""
        } else {
            serde_json::to_string(&text).expect("a string is JSON")
        };
        let mut out = Vec::new();
        unescape_into(&json.as_bytes()[1..json.len() - 1], &mut out);
        prop_assert_eq!(out, text.into_bytes());
    }
}

#[test]
fn both_readers_agree_on_every_line_of_the_corpus_and_every_prefix_of_it() {
    for line in CORPUS.iter().flat_map(|file| file.lines()) {
        agree(line.as_bytes()).expect(line);
        for end in (0..line.len()).step_by(if line.len() > 800 { 37 } else { 3 }) {
            agree(&line.as_bytes()[..end]).expect(line);
        }
    }
}

#[test]
fn both_readers_agree_on_the_edges_of_the_grammar() {
    for line in [
        "{}",
        " {} ",
        "{ }\r",
        "{\t\"a\"\n:\r1 }",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":-0}",
        "{\"a\":-0.0E-0}",
        "{\"a\":+1}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":tru}",
        "{\"a\":truee}",
        "{\"a\":nul}",
        "{\"a\":[1,]}",
        "{\"a\":[,]}",
        "{\"a\":[]]}",
        "{\"a\":[}}",
        "{}{}",
        "{} x",
        "[]",
        "1",
        "\"a\"",
        "",
        " ",
        "{",
        "{\"",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"\\ud800\":1}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"\u{7f}\"}",
        "{\"a\":NaN}",
        "{\"a\":1 2}",
        "{\"a\":\"b\" \"c\"}",
        "{\"a\" 1}",
        "\u{feff}{}",
        "{\"\":{\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}}",
        "{\"trace\":{\"\":{\"id\":\"0af7651916cd43dd8448eb211c80319c\"}}}",
        "{\"a\":\"",
    ] {
        agree(line.as_bytes()).expect(line);
    }
    agree(b"{\"a\":\"\xff\"}").expect("invalid UTF-8");
    agree(b"{\"\xc3\":1}").expect("invalid UTF-8");
    agree(b"\xef\xbb\xbf{}").expect("byte order mark");
}

#[test]
fn nesting_up_to_32_is_json_and_33_is_not() {
    for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
        for depth in 29..35 {
            let line = format!("{{\"level\":40,\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            agree(line.as_bytes()).expect("agreement");
            let parsed = parse(line.as_bytes(), Fields::ALL);
            assert_eq!(parsed.format == Format::Json, depth <= 31, "{depth} containers within the object");
        }
    }
}
