//! What every recognised logger's lines say, line by line, and what hostile lines do not.
//!
//! The rows of `EXPECTED` were read off the corpus by eye: format, severity number, trace id, span id, trace flags,
//! request id, method, route, path, status, duration with unit, the application's time in Unix nanoseconds.

use nodewick::data::batch::Fields;
use nodewick::data::severity::Severity;
use nodewick::logs::parse::{DurationUnit, Format, Parsed, Text, parse, unescape_into};

/// A file of the corpus and what its lines say.
type File = (&'static str, &'static str, &'static [&'static str]);

const EXPECTED: &[File] = &[
    (
        "bunyan.jsonl",
        include_str!("corpus/lines/bunyan.jsonl"),
        &[
            "json 9 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 1 - GET - /a 0 - 1795356569777000000",
            "json 17 - - 0 - - - - 0 - 1795356569777000000",
            "json 5 - - 0 - - - - 0 - 1795356569777000000",
            "json 9 - - 0 - GET - /b 0 - 1795356569847000000",
            "json 17 - - 0 - - - - 0 - 1795356569875000000",
            "json 5 - - 0 - - - - 0 - 1795356569875000000",
        ],
    ),
    (
        "ecs.jsonl",
        include_str!("corpus/lines/ecs.jsonl"),
        &[
            "json 9 0af7651916cd43dd8448eb211c80319c - 0 - GET - - 0 - 1795357655075000000",
            "json 17 - - 0 - - - - 0 - 1795357655075000000",
            "json 13 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 0 a-1 GET - /cart 503 1203000000ns 1795357656001000000",
            "json 5 4bf92f3577b34da6a3ce929d0e0e4736 b7ad6b7169203331 0 a-2 PUT - /cart/7 204 5000000ns 1795357656002000000",
            "json 21 - - 0 - GET /cart/:id - 200 - 1795357656003000000",
        ],
    ),
    (
        "fastify.jsonl",
        include_str!("corpus/lines/fastify.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795356566889000000",
            "json 9 0af7651916cd43dd8448eb211c80319c 054d93632ee3fe7f 1 req-1 GET - /ok 0 - 1795356569151000000",
            "json 9 0af7651916cd43dd8448eb211c80319c 054d93632ee3fe7f 1 req-1 - - - 0 - 1795356569179000000",
            "json 9 0af7651916cd43dd8448eb211c80319c 054d93632ee3fe7f 1 req-1 - - - 200 40.34382299999925ms 1795356569225000000",
            "json 9 a7be3ccbc5b5f8079d4b75fef7edc95e a3b1fb1061ac89d9 1 req-2 GET - /err 0 - 1795356569236000000",
            "json 9 a7be3ccbc5b5f8079d4b75fef7edc95e a3b1fb1061ac89d9 1 req-2 - - - 500 80.51260200000252ms 1795356569316000000",
            "json 9 453117e6c6e51724aef8a85a94e367f9 a7baeb9a11926c83 1 req-3 GET - /nope 0 - 1795356569348000000",
        ],
    ),
    (
        "gcp.jsonl",
        include_str!("corpus/lines/gcp.jsonl"),
        &[
            "json 10 06796866738c859f2f19b7cfb3214824 000000000000004a 1 - - - - 0 - 0",
            "json 21 - - 0 - - - - 0 - 1795357656000000000",
            "json 9 - - 0 - GET - /cart 200 0.012s 0",
            "json 0 - - 0 - - - - 0 - 0",
            "json 14 06796866738c859f2f19b7cfb3214824 000000000000004a 1 - - - - 0 - 0",
        ],
    ),
    (
        "hostile.jsonl",
        include_str!("corpus/lines/hostile.jsonl"),
        &[
            "json 0 - - 0 - - - - 0 - 0",
            "json 9 - - 0 - - - - 0 - 0",
            "json 9 0af7651916cd43dd8448eb211c80319c - 0 - - - - 0 - 0",
            "json 9 - - 0 - - - - 0 - 0",
            "json 9 - - 0 - - - - 0 - 0",
            "json 0 - - 0 - - - - 0 - 0",
            "json 0 - - 0 - - - - 0 - 0",
            "json 17 4bf92f3577b34da6a3ce929d0e0e4736 - 0 - - - - 0 - 0",
            "json 9 - - 0 - - - - 0 - 0",
            "json 17 - - 0 - - - - 0 - 0",
            "json 9 - - 0 - - - - 0 - 0",
            "json 9 4bf92f3577b34da6a3ce929d0e0e4736 - 0 - - - - 0 - 0",
            "json 9 - - 0 - - - - 0 - 0",
        ],
    ),
    (
        "json-other.jsonl",
        include_str!("corpus/lines/json-other.jsonl"),
        &[
            "json 0 - - 0 8f14e45fceea167a5a36dedd4bea2543 GET - /a/b 499 0.012s 1795357656000000000",
            "json 13 5759e988bd862e3fe1be46a994272793 - 0 - - - - 0 - 0",
            "json 9 0000000000000000463ac35c9f6413ad 00000000000004d2 0 - - - - 0 - 0",
            "json 9 6550a1b700000000463ac35c9f6413ad 000000000000000c 0 - - - - 0 - 0",
            "json 9 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 0 h-1 PATCH - /cart/1 200 0.25s 0",
            "json 13 0af7651916cd43dd8448eb211c80319c - 0 a\"b - - - 0 - 0",
        ],
    ),
    (
        "klog.log",
        include_str!("corpus/lines/klog.log"),
        &[
            "klog 9 - - 0 - - - - 0 - 0",
            "klog 13 - - 0 - - - - 0 - 0",
            "klog 17 0af7651916cd43dd8448eb211c80319c - 0 - - - - 0 - 0",
            "klog 21 - - 0 - - - - 0 - 0",
            "klog 9 - - 0 - - - - 0 - 0",
        ],
    ),
    (
        "logback.jsonl",
        include_str!("corpus/lines/logback.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357656512000000",
            "json 13 65f1c3a2b4d5e6f708192a3b4c5d6e7f 08192a3b4c5d6e7f 0 - - - - 0 - 1795357657001000000",
            "json 17 65f1c3a2b4d5e6f708192a3b4c5d6e7f 08192a3b4c5d6e7f 0 m-1 - - - 0 - 1795357657002000000",
            "json 5 - - 0 - - - - 0 - 1795357657003000000",
            "json 1 65f1c3a2b4d5e6f708192a3b4c5d6e7f 08192a3b4c5d6e7f 0 c-7 - - - 0 - 0",
            "json 21 0000000000000000463ac35c9f6413ad a2fb4a1d1a96d312 0 - - - - 0 - 1795357657005000000",
        ],
    ),
    (
        "logfmt.log",
        include_str!("corpus/lines/logfmt.log"),
        &[
            "logfmt 9 - - 0 - - - - 0 - 1795357656383000000",
            "logfmt 13 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 0 - - - - 0 - 1795357656000000000",
            "logfmt 17 - - 0 - - - - 0 - 1795357656384000000",
            "logfmt 9 0000000000000000463ac35c9f6413ad - 0 pq-1 GET - /api/v1/query 200 12.5ms 0",
            "logfmt 5 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 1 - - - - 0 - 0",
        ],
    ),
    (
        "logrus.jsonl",
        include_str!("corpus/lines/logrus.jsonl"),
        &[
            "json 9 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 0 b41d - - - 0 - 1795357656000000000",
            "json 13 - - 0 - - - - 0 - 1795357656000000000",
            "json 17 - - 0 - GET - /v1/items 502 31ms 1795357656000000000",
            "json 19 - - 0 - - - - 0 - 1795357656000000000",
            "json 21 - - 0 - - - - 0 - 1795357656000000000",
            "json 1 - - 0 - - - - 0 - 1795357656000000000",
        ],
    ),
    (
        "loguru.jsonl",
        include_str!("corpus/lines/loguru.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357654786844000",
            "json 17 - - 0 - - - - 0 - 1795357654787476000",
            "json 13 0af7651916cd43dd8448eb211c80319c - 0 q-9 - - - 0 - 1795357654800000000",
            "json 5 - - 0 - - - - 0 - 1795357654900000000",
            "json 17 - - 0 - - - - 0 - 1795357654900000000",
        ],
    ),
    (
        "nginx.log",
        include_str!("corpus/lines/nginx.log"),
        &[
            "access 0 - - 0 - GET - /cart 200 - 1795357656000000000",
            "access 0 - - 0 - POST - /orders 502 - 1795357656000000000",
            "access 0 - - 0 8f14e45fceea167a5a36dedd4bea2543 GET - /items/3 499 0.005s 1795357656000000000",
            "plain 17 - - 0 - - - - 0 - 1795357656000000000",
            "plain 10 - - 0 - - - - 0 - 1795357656000000000",
            "access 9 - - 0 - PUT - /items/4 201 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
        ],
    ),
    (
        "pino.jsonl",
        include_str!("corpus/lines/pino.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795356566695000000",
            "json 9 0af7651916cd43dd8448eb211c80319c 3dfc7154038ba03f 1 1 GET - /ok/1001 0 - 1795356567591000000",
            "json 9 0af7651916cd43dd8448eb211c80319c e44e2373aff76665 1 1 GET - /ok/1001 200 41ms 1795356567622000000",
            "json 17 0af7651916cd43dd8448eb211c80319c 10620be81d44fe4b 1 2 GET - /err 0 - 1795356567631000000",
            "json 17 0af7651916cd43dd8448eb211c80319c 9cffad4562bce3fb 1 2 GET - /err 500 22ms 1795356567648000000",
            "json 13 0af7651916cd43dd8448eb211c80319c b9f0797be40b1ab5 1 - - - - 0 - 1795356567703000000",
            "json 9 0af7651916cd43dd8448eb211c80319c 0c1e7802cba9f3b5 1 3 GET - /uni 200 47ms 1795356567740000000",
            "json 9 0af7651916cd43dd8448eb211c80319c 9facc5845b47e841 1 4 GET - /uni 200 1ms 1795356567744000000",
            "json 9 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 1 1 GET - /ok/1001 0 - 1795356567909000000",
            "json 9 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 1 1 GET - /ok/1001 200 59ms 1795356567963000000",
            "json 9 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 1 4 GET - /uni 200 9ms 1795356568156000000",
            "json 9 - - 0 8 GET - /ok/3 200 44ms 1795356568483000000",
        ],
    ),
    (
        "plain.log",
        include_str!("corpus/lines/plain.log"),
        &[
            "plain 9 - - 0 - - - - 0 - 1795357654513000000",
            "plain 17 - - 0 - - - - 0 - 1795357654513000000",
            "plain 17 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 5 - - 0 - - - - 0 - 1795357654516000000",
            "plain 0 - - 0 - - - - 0 - 1795357656000000000",
            "plain 17 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 13 65f1c3a2b4d5e6f708192a3b4c5d6e7f 08192a3b4c5d6e7f 0 - - - - 0 - 1795357656513000000",
            "plain 17 - - 0 - - - - 0 - 0",
            "plain 21 0af7651916cd43dd8448eb211c80319c - 0 - - - - 0 - 1795357656513000000",
            "plain 5 - - 0 - - - - 0 - 1795357656000000000",
            "plain 9 0af7651916cd43dd8448eb211c80319c - 0 - - - - 0 - 1795357656513000000",
            "plain 13 - - 0 - - - - 0 - 0",
            "plain 21 - - 0 - - - - 0 - 1795357656513000000",
            "plain 9 - - 0 - - - - 0 - 0",
            "plain 13 0af7651916cd43dd8448eb211c80319c - 0 - - - - 0 - 1795357656513000000",
            "plain 17 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 0 - - 0 - - - - 0 - 1795357656000000000",
            "plain 0 - - 0 - - - - 0 - 0",
            "plain 17 - - 0 - - - - 0 - 0",
        ],
    ),
    (
        "python-json-logger.jsonl",
        include_str!("corpus/lines/python-json-logger.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357654282000000",
            "json 13 - - 0 - - - - 0 - 1795357654282000000",
            "json 17 - - 0 - - - - 0 - 1795357654282000000",
            "json 21 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 1 - - - - 0 - 1795357654300000000",
            "json 5 - - 0 - - - - 0 - 1795357654301000000",
            "json 13 0000000000000000463ac35c9f6413ad 000000000000000b 0 - - - - 0 - 1795357654302000000",
        ],
    ),
    (
        "serilog.jsonl",
        include_str!("corpus/lines/serilog.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357656123456700",
            "json 13 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 0 - - - - 0 - 1795357656200000000",
            "json 17 - - 0 - - - - 0 - 1795357656300000000",
            "json 9 - - 0 0HN7:00000001 GET - /cart 200 34.7081ms 1795357656400000000",
            "json 1 - - 0 - - - - 0 - 1795357656500000000",
            "json 21 - - 0 - - - - 0 - 1795354056600000000",
        ],
    ),
    (
        "slog.jsonl",
        include_str!("corpus/lines/slog.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357656379782092",
            "json 13 - - 0 - GET - - 504 - 1795357656379908021",
            "json 17 0af7651916cd43dd8448eb211c80319c - 0 - - - - 0 - 1795357656379912758",
            "json 5 - - 0 - - - - 0 - 1795357656379930020",
            "json 21 - - 0 - - - - 0 - 1795357656380013879",
            "json 21 - - 0 - - - - 0 - 1795357656382003135",
            "json 7 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 0 - - - - 0 - 1795357656400000000",
        ],
    ),
    (
        "structlog.jsonl",
        include_str!("corpus/lines/structlog.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357653883501000",
            "json 13 5a6ab4bd595ceb1bd1e0892cfa1bdc7d 1a5aa091bcca2b35 0 r1 - - - 0 - 1795357653883787000",
            "json 17 5a6ab4bd595ceb1bd1e0892cfa1bdc7d 1a5aa091bcca2b35 0 r1 - - - 0 - 1795357653883875000",
            "json 21 5a6ab4bd595ceb1bd1e0892cfa1bdc7d 1a5aa091bcca2b35 0 r1 - - - 0 - 1795357653884110000",
            "json 5 - - 0 r2 POST - /orders 201 8.25ms 1795357654000000000",
        ],
    ),
    (
        "winston.jsonl",
        include_str!("corpus/lines/winston.jsonl"),
        &[
            "json 9 0af7651916cd43dd8448eb211c80319c 121abce93ac62cdb 1 - - - - 0 - 1795356569772000000",
            "json 13 0af7651916cd43dd8448eb211c80319c 121abce93ac62cdb 1 - - - - 0 - 1795356569775000000",
            "json 17 0af7651916cd43dd8448eb211c80319c 121abce93ac62cdb 1 - - - - 0 - 1795356569775000000",
            "json 9 60646adb01a061dde8e8d512bbf3b2a5 82e7cb548f256e6e 1 - - - - 0 - 1795356569816000000",
            "json 13 60646adb01a061dde8e8d512bbf3b2a5 82e7cb548f256e6e 1 - - - - 0 - 1795356569846000000",
            "json 17 60646adb01a061dde8e8d512bbf3b2a5 82e7cb548f256e6e 1 - - - - 0 - 1795356569846000000",
            "json 1 - - 0 - - - - 0 - 1795356569900000000",
            "json 6 - - 0 - - - - 0 - 1795356569901000000",
            "json 7 - - 0 7c1e GET - /cart 200 12.5ms 1795356569902000000",
        ],
    ),
    (
        "zap.jsonl",
        include_str!("corpus/lines/zap.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357656381808700",
            "json 5 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 1 - - - - 0 - 1795357656390000000",
            "json 13 - - 0 - DELETE - /cart/9 404 1.25ms 1795357656400000000",
            "json 18 - - 0 - - - - 0 - 1795357656410000000",
            "json 19 - - 0 - - - - 0 - 1795357656420000000",
            "json 21 - - 0 - - - - 0 - 1795357656430000000",
            "json 17 4bf92f3577b34da6a3ce929d0e0e4736 - 0 - - - - 0 - 1795357656440000000",
        ],
    ),
    (
        "zerolog.jsonl",
        include_str!("corpus/lines/zerolog.jsonl"),
        &[
            "json 9 - - 0 - - - - 0 - 1795357656000000000",
            "json 17 - - 0 - - - - 0 - 1795357656000000000",
            "json 5 - - 0 cq1 GET - /items/3 200 8ms 1795357656000000000",
            "json 13 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 1 - - - - 0 - 1795357656000000000",
            "json 1 - - 0 - - - - 0 - 1795357656123000000",
            "json 0 - - 0 - - - - 0 - 1795357656000000000",
        ],
    ),
];

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty())
}

fn shown(line: &[u8], text: Text) -> String {
    let mut out = Vec::new();
    if text.escaped {
        unescape_into(text.span.of(line), &mut out);
    } else {
        out.extend_from_slice(text.span.of(line));
    }
    String::from_utf8(out).expect("text of a UTF-8 line")
}

fn row(line: &[u8]) -> String {
    let parsed = parse(line, Fields::ALL);
    let or_dash = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
    let unit = match parsed.duration_unit {
        _ if parsed.duration.is_empty() => "",
        DurationUnit::Millis => "ms",
        DurationUnit::Seconds => "s",
        DurationUnit::Micros => "us",
        DurationUnit::Nanos => "ns",
    };
    let cells = [
        format!("{:?}", parsed.format).to_lowercase(),
        parsed.severity.number().to_string(),
        or_dash(parsed.trace_id.map(|id| id.to_string()).unwrap_or_default()),
        or_dash(parsed.span_id.map(|id| id.to_string()).unwrap_or_default()),
        parsed.trace_flags.to_string(),
        or_dash(shown(line, parsed.request_id)),
        or_dash(shown(line, parsed.http_method)),
        or_dash(shown(line, parsed.http_route)),
        or_dash(shown(line, parsed.url_path)),
        parsed.http_status.to_string(),
        or_dash(String::from_utf8_lossy(parsed.duration.of(line)).into_owned() + unit),
        parsed.app_time_unix_nano.to_string(),
    ];
    cells.join(" ")
}

#[test]
fn every_loggers_lines_say_what_they_say() {
    for (name, text, rows) in EXPECTED {
        assert_eq!(lines(text).count(), rows.len(), "{name} has a row for each line");
        for (number, (line, expected)) in lines(text).zip(*rows).enumerate() {
            assert_eq!(row(line.as_bytes()), *expected, "{name}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn every_format_has_five_lines_or_more() {
    for (name, text, _) in EXPECTED {
        assert!(lines(text).count() >= 5, "{name}");
    }
}

#[test]
fn ten_thousand_levels_of_nesting_are_text() {
    let line = format!("{{\"level\":30,\"a\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let parsed = parse(line.as_bytes(), Fields::ALL);
    assert_eq!((parsed.format, parsed.severity), (Format::Plain, Severity::UNSPECIFIED));
    assert_eq!(parse("[".repeat(10_000).as_bytes(), Fields::ALL), Parsed::default());
}

#[test]
fn bytes_that_are_no_text_say_nothing() {
    for line in [
        &b""[..],
        b"\0",
        b"\0\0{}\0",
        b"\xff\xfe\xfd",
        b"\x1b[",
        b"\x1b[31",
        b"\r",
        b"   ",
        b"{",
        b"\"",
        b"=",
        b":",
        b"=\"",
    ] {
        assert_eq!(parse(line, Fields::ALL), Parsed::default(), "{line:?}");
    }
}

#[test]
fn an_object_that_is_not_utf8_is_text() {
    let line = b"{\"level\":50,\"msg\":\"\xc3\x28\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}";
    let parsed = parse(line, Fields::ALL);
    assert_eq!((parsed.format, parsed.severity), (Format::Plain, Severity::UNSPECIFIED));
    assert_eq!(parsed.trace_id.map(|id| id.to_string()).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
}

#[test]
fn an_object_cut_short_keeps_its_trace_id() {
    let line = br#"{"level":50,"trace_id":"0af7651916cd43dd8448eb211c80319c","msg":"a very lo"#;
    let parsed = parse(line, Fields::ALL);
    assert_eq!(parsed.format, Format::Plain);
    assert_eq!(parsed.trace_id.map(|id| id.to_string()).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
}

#[test]
fn every_documented_trace_field_is_read() {
    const HEX: &str = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{HEX}-b7ad6b7169203331-01");
    let cases = [
        ("trace_id", HEX, HEX),
        ("traceId", HEX, HEX),
        ("traceID", HEX, HEX),
        ("TraceId", HEX, HEX),
        ("trace.id", HEX, HEX),
        ("otelTraceID", HEX, HEX),
        ("traceparent", parent.as_str(), HEX),
        ("req.headers.traceparent", parent.as_str(), HEX),
        ("dd.trace_id", "5060571933882717101", "0000000000000000463ac35c9f6413ad"),
        ("logging.googleapis.com/trace", "projects/p/traces/0af7651916cd43dd8448eb211c80319c", HEX),
        ("x_b3_traceid", "463ac35c9f6413ad", "0000000000000000463ac35c9f6413ad"),
        ("xray_trace_id", "1-5759e988-bd862e3fe1be46a994272793", "5759e988bd862e3fe1be46a994272793"),
        ("contextMap.traceId", HEX, HEX),
        ("mdc.traceId", HEX, HEX),
        ("mdc.trace_id", HEX, HEX),
    ];
    for (path, value, expected) in cases {
        let dotted = format!("{{\"{path}\":\"{value}\"}}");
        let keys: Vec<&str> = path.split('.').collect();
        let nested = format!("{{\"{}\":\"{value}\"{}", keys.join("\":{\""), "}".repeat(keys.len()));
        let logfmt = format!("level=info {path}={value}");
        let text = format!("done with it ({path}: {value})");
        for line in [dotted, nested, logfmt, text] {
            let parsed = parse(line.as_bytes(), Fields::ALL);
            assert_eq!(parsed.trace_id.map(|id| id.to_string()).as_deref(), Some(expected), "{line}");
        }
    }
}

#[test]
fn the_records_own_trace_beats_the_callers_wherever_it_stands() {
    let header =
        r#""req":{"headers":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}"#;
    let own = r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736""#;
    for line in [format!("{{{header},{own}}}"), format!("{{{own},{header}}}")] {
        let parsed = parse(line.as_bytes(), Fields::ALL);
        assert_eq!(
            parsed.trace_id.map(|id| id.to_string()).as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        assert_eq!(parsed.span_id, None, "the caller's span is of another trace");
        assert_eq!(parsed.trace_flags, 0);
    }
}

#[test]
fn words_that_may_mean_http_need_another_sign_of_it() {
    let method = |line: &str| shown(line.as_bytes(), parse(line.as_bytes(), Fields::ALL).http_method);
    let path = |line: &str| shown(line.as_bytes(), parse(line.as_bytes(), Fields::ALL).url_path);
    assert_eq!(method(r#"{"method":"GET","msg":"x"}"#), "");
    assert_eq!(path(r#"{"path":"/var/lib/data","msg":"compacted"}"#), "");
    assert_eq!(method(r#"{"method":"GET","path":"/x"}"#), "GET");
    assert_eq!(path(r#"{"method":"GET","path":"/x"}"#), "/x");
    assert_eq!(method(r#"{"status":200,"method":"delete"}"#), "delete");
    assert_eq!(method(r#"{"status":200,"method":"placeOrder"}"#), "");
}
