//! Which lines of real programs and of common access loggers count as requests, by method, route and status.
//!
//! The expected rows were read off the lines by eye and with jq: `phase method route status`, and how often.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nodewick::data::access::Phase;
use nodewick::data::batch::Fields;
use nodewick::data::position::Position;
use nodewick::logs::count::Counter;
use nodewick::logs::frame::Framing;
use nodewick::logs::ingest::Settings;
use nodewick::logs::process::Chain;

/// The requests of lines that a container wrote.
fn requests(lines: &str) -> BTreeMap<String, u32> {
    let settings =
        Settings::new(Fields::ALL, Chain::compile(&Default::default()).expect("no rules"), 256 << 10);
    let mut file = String::new();
    for (n, line) in lines.lines().enumerate() {
        writeln!(file, "2026-11-22T14:27:36.{n:09}Z stdout F {line}").expect("to a string");
    }
    let mut arena = file.into_bytes();
    let mut reader = Counter::new(Position::default(), 256 << 10, Framing::Runtime);
    reader.ingest(&settings, None, &Position::default(), &mut arena);
    let until = reader.counted();
    let mut found = BTreeMap::new();
    reader.found().hand_over(&Position::default(), &until, &arena, |requests, text| {
        for request in requests {
            let phase = match request.phase {
                Phase::Begun => "begun",
                Phase::Done => "done",
                Phase::Aborted => "aborted",
            };
            let show = |span: nodewick::data::batch::Span| {
                if span.is_empty() {
                    "-".to_owned()
                } else {
                    String::from_utf8_lossy(span.of(text)).into_owned()
                }
            };
            let key = format!("{phase} {} {} {}", show(request.method), show(request.route), request.status);
            *found.entry(key).or_default() += 1;
        }
    });
    found
}

fn expect(lines: &str, expected: &[(&str, u32)]) {
    let expected: BTreeMap<String, u32> =
        expected.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect();
    assert_eq!(requests(lines), expected, "of {}", lines.get(..200).unwrap_or(lines));
}

#[test]
fn real_services_tell_of_each_request_once() {
    let pino = [
        ("done GET /child 200", 1),
        ("done GET /err 500", 1),
        ("done GET /nope 404", 1),
        ("done GET /ok/{id} 200", 3),
        ("done GET /uni 200", 2),
    ];
    expect(include_str!("corpus/access/node-pino-http-plain.jsonl"), &pino);
    let scraped: Vec<_> = pino.into_iter().chain([("done GET /metrics 200", 2)]).collect();
    expect(include_str!("corpus/access/node-pino-http-otel.jsonl"), &scraped);
    // What its error handler says of a request is no second one.
    let fastify = [
        ("begun GET /err 0", 1),
        ("begun GET /nope 0", 1),
        ("begun GET /ok 0", 1),
        ("done - - 200", 1),
        ("done - - 404", 1),
        ("done - - 500", 1),
    ];
    expect(include_str!("corpus/access/node-fastify-plain.jsonl"), &fastify);
    expect(include_str!("corpus/access/node-fastify-otel.jsonl"), &fastify);
}

#[test]
fn application_lines_of_real_programs_are_no_requests() {
    expect(include_str!("corpus/access/go-slog.jsonl"), &[]);
    expect(include_str!("corpus/access/py-ecs.jsonl"), &[]);
    expect(include_str!("corpus/access/node-winston-otel.jsonl"), &[]);
    expect(include_str!("corpus/access/node-bunyan-otel.jsonl"), &[]);
    expect(include_str!("corpus/access/py-structlog.jsonl"), &[]);
}

#[test]
fn access_lines_of_common_loggers_are_requests() {
    for (line, expected) in [
        // morgan's `combined`.
        (
            r#"::1 - - [22/Nov/2026:14:27:36 +0000] "GET /orders/7?x=1 HTTP/1.1" 200 12 "-" "curl/8.5.0""#,
            "done GET /orders/{id} 200",
        ),
        // bunyan's audit log, as restify and express-bunyan-logger write it.
        (
            r#"{"name":"orders","hostname":"h","pid":1,"level":30,"req_id":"a1","req":{"query":"","method":"GET","url":"/orders/7","headers":{}},"res":{"statusCode":200},"latency":5,"msg":"handled: 200","time":"2026-11-22T14:27:36.000Z","v":0}"#,
            "done GET /orders/{id} 200",
        ),
        // gin with zap.
        (
            r#"{"level":"info","ts":1795357656.38,"caller":"zap/zap.go:117","msg":"/orders/7","status":200,"method":"GET","path":"/orders/7","query":"","ip":"10.0.0.1","user-agent":"curl/8.5.0","latency":0.000123}"#,
            "done GET /orders/{id} 200",
        ),
        // logrus, both of its formatters.
        (
            r#"time="2026-11-22T14:27:36Z" level=info msg="request" method=GET path=/orders/7 status=200 duration=1.5ms"#,
            "done GET /orders/{id} 200",
        ),
        (
            r#"{"duration":"1.5ms","level":"info","method":"GET","msg":"request","path":"/orders/7","status":200,"time":"2026-11-22T14:27:36Z"}"#,
            "done GET /orders/{id} 200",
        ),
        // echo's own access log always has an error, mostly an empty one.
        (
            r#"{"time":"2026-11-22T14:27:36.1Z","id":"","remote_ip":"::1","host":"localhost:1323","method":"GET","uri":"/orders/7","user_agent":"curl/8.5.0","status":200,"error":"","latency":123456,"latency_human":"123.456µs","bytes_in":0,"bytes_out":13}"#,
            "done GET /orders/{id} 200",
        ),
        // A service that is called like a client is a server all the same.
        (
            r#"{"level":30,"name":"webclient","req":{"id":1,"method":"GET","url":"/orders/7"},"res":{"statusCode":200},"responseTime":3,"msg":"request completed"}"#,
            "done GET /orders/{id} 200",
        ),
        (
            r#"{"level":"info","service":"webclient","method":"GET","path":"/orders/7","status":200,"duration_ms":3}"#,
            "done GET /orders/{id} 200",
        ),
        (
            r#"{"level":"info","name":"webclient","method":"GET","path":"/orders/7","status":200,"duration_ms":3}"#,
            "done GET /orders/{id} 200",
        ),
    ] {
        expect(line, &[(expected, 1)]);
    }
}

#[test]
fn calls_that_a_program_makes_are_no_requests_of_its_own() {
    for line in [
        r#"{"level":"info","logger":"axios","method":"get","url":"https://pay.example/v1/charges","status":200,"duration_ms":41}"#,
        r#"{"level":30,"msg":"axios response","config":{"method":"get","url":"https://pay.example/v1/charges"},"status":200,"duration":41}"#,
        r#"{"level":"debug","logger":"undici","msg":"request completed","method":"GET","path":"/v1/charges","statusCode":200,"duration":41}"#,
        r#"{"name":"http-client","level":30,"method":"POST","path":"/v1/charges","statusCode":201,"responseTime":41,"msg":"done"}"#,
        r#"{"level":"info","logger":"org.springframework.web.reactive.function.client.WebClient","method":"GET","path":"/v1","status":200,"duration_ms":3}"#,
        r#"time="2026-11-22T14:27:36Z" level=info msg="outgoing" method=GET url=https://pay.example/v1/charges status=200 duration=41ms"#,
        r#"2026-11-22 14:27:36,000 INFO httpx HTTP Request: GET https://pay.example/v1/charges "HTTP/1.1 200 OK""#,
        r#"{"msg":"retrying","attempt":2,"status":503,"duration_ms":12}"#,
    ] {
        expect(line, &[]);
    }
}
