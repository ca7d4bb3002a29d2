//! The OTLP sink against an independent receiver: what arrives, and what each answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nodewick::data::batch::{Batch, Fields, Record, Span};
use nodewick::data::budget::Budget;
use nodewick::data::delivery::{Fanout, Ledger, Reason};
use nodewick::data::position::Position;
use nodewick::data::severity::Severity;
use nodewick::data::trace::{SpanId, TraceId};
use nodewick::data::units;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use nodewick::sink::deliver::Transport as _;
use nodewick::sink::http::{Auth, OAuth2, Secret, Timeouts, Tls};
use nodewick::sink::otlp::{Compression, Config, Otlp, Protocol, Transport};
use nodewick::sink::{Answer, Parcel, Verdict, Wire};
use serde_json::json;

#[path = "support/otlp.rs"]
mod support;
use support::Receiver;

const LINES: [&str; 3] = [
    r#"{"level":50,"msg":"paid \"ü\" 😀","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#,
    "plain \u{1b}[31mred\u{1b}[0m and a NUL \0 inside",
    "",
];

fn parcel() -> Parcel {
    let container =
        ContainerRef::from_path("shop_checkout-d994d45d6-5h9zr_uid-1", "api", 2).expect("a pod directory");
    let mut identity =
        PathIdentity { cluster: "prod".into(), node: "n1".into(), environment: Some("test".into()) };
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("paths say all")
    };
    let mut arena = Vec::new();
    let mut records = Vec::new();
    for (index, line) in LINES.iter().enumerate() {
        let start = arena.len();
        arena.extend_from_slice(line.as_bytes());
        records.push(Record {
            time_unix_nano: 1_795_354_933_000_000_000 + index as u64,
            offset: start as u64,
            body: Span::new(start, arena.len()),
            ..Record::default()
        });
    }
    records[0].severity = Severity::ERROR;
    records[0].trace_id = TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c");
    records[0].span_id = SpanId::from_hex(b"b7ad6b7169203331");
    records[0].http_status = 500;
    let batch = Batch {
        workload,
        path: "/var/log/pods/shop/api/2.log".into(),
        start: Position::default(),
        end: Position::default(),
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 0,
        permit: Budget::new(1 << 20, Arc::default()).reserve(1).expect("fits"),
    };
    Parcel { batch: Arc::new(batch), from: 0, to: 3 }
}

struct Sink {
    wire: Otlp,
    transport: Transport,
    runtime: tokio::runtime::Runtime,
}

impl Sink {
    fn new(config: &Config) -> Self {
        let (wire, transport) = config.build(Fields::ALL).expect("a valid config");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { wire, transport, runtime }
    }

    fn exchange(&mut self) -> Answer {
        let mut body = Vec::new();
        self.wire.encode(&[parcel()], &mut body);
        self.runtime.block_on(self.transport.send(Some("team-a"), Bytes::from(body)))
    }

    fn send(&mut self) -> Verdict {
        let answer = self.exchange();
        self.wire.judge(&answer, 3)
    }
}

fn config(receiver: &Receiver, protocol: Protocol, compression: Compression) -> Config {
    let port = if protocol == Protocol::Grpc { receiver.grpc } else { receiver.http };
    let endpoint = format!("http://127.0.0.1:{port}");
    Config { endpoint, protocol, compression, ..Config::default() }
}

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

#[test]
fn lines_arrive_byte_for_byte_by_every_way() {
    let receiver = Receiver::start(&[]);
    let mut ways = 0;
    for (protocol, compression, encoding) in [
        (Protocol::Grpc, Compression::Gzip, json!("gzip")),
        (Protocol::Grpc, Compression::None, json!(null)),
        (Protocol::HttpProtobuf, Compression::Gzip, json!("gzip")),
        (Protocol::HttpProtobuf, Compression::Zstd, json!("zstd")),
        (Protocol::HttpProtobuf, Compression::None, json!(null)),
    ] {
        let mut config = config(&receiver, protocol, compression);
        config.headers.insert("X-Extra".into(), Secret::new("value".into()));
        assert_eq!(Sink::new(&config).send(), Verdict::Delivered, "{config:?}");
        ways += 1;
        let request = receiver.requests().pop().expect("a request");
        let headers = &request["headers"];
        assert_eq!((&headers["x-extra"], &headers["x-scope-orgid"]), (&json!("value"), &json!("team-a")));
        if protocol == Protocol::HttpProtobuf {
            assert_eq!(headers["content-encoding"], encoding);
        } else if compression == Compression::None {
            assert_eq!(headers["grpc-encoding"], json!(null));
        }
        assert!(
            headers["user-agent"].as_str().is_some_and(|agent| agent.starts_with("nodewick/")),
            "{headers}"
        );
    }
    let records = receiver.records();
    assert_eq!(records.len(), ways * 3);
    for three in records.chunks(3) {
        assert_eq!(three, &records[..3], "every way brings the same");
        for (record, line) in three.iter().zip(LINES) {
            assert_eq!(record["body"], json!(line));
        }
    }
    let first = &records[0];
    assert_eq!(first["time"], json!(1_795_354_933_000_000_000_u64));
    assert_eq!(first["observed_time"], first["time"]);
    assert_eq!((&first["severity_number"], &first["severity_text"]), (&json!(17), &json!("error")));
    assert_eq!(first["trace_id"], json!("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(first["span_id"], json!("b7ad6b7169203331"));
    assert_eq!(first["scope"]["name"], json!("nodewick"));
    assert_eq!(first["attributes"]["http.response.status_code"], json!(500));
    assert_eq!(first["attributes"]["log.iostream"], json!("stdout"));
    assert_eq!(first["resource"]["service.name"], json!("checkout"));
    assert_eq!(first["resource"]["k8s.pod.name"], json!("checkout-d994d45d6-5h9zr"));
    assert_eq!(first["resource"]["k8s.container.restart_count"], json!(2));
    assert_eq!(first["resource"]["deployment.environment.name"], json!("test"));
    let ids: std::collections::HashSet<_> =
        records[..3].iter().map(|record| record["attributes"]["log.record.uid"].to_string()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn http_answers_are_judged_by_the_specification() {
    let receiver = Receiver::start(&[]);
    let mut sink = Sink::new(&config(&receiver, Protocol::HttpProtobuf, Compression::Gzip));
    receiver.inject(
        r#"[{"http": 503, "retry_after": "7", "message": "busy", "code": 14}, {"http": 429}, {"http": 502},
            {"http": 504, "retry_after": "0"}, {"http": 500, "message": "Permanent error: x", "code": 13},
            {"http": 400, "message": "bad"}, {"http": 413}, {"http": 401}, {"http": 404},
            {"partial": 2, "message": "two too old"}, {"partial": 0, "message": "hint"}]"#,
    );
    let retry = |seconds: Option<u64>| Verdict::Retry { after: seconds.map(Duration::from_secs) };
    let invalid =
        |message: &str| Verdict::Refused { reason: Reason::Invalid, all: false, message: message.to_owned() };
    for expected in [
        retry(Some(7)),
        retry(None),
        retry(None),
        retry(Some(0)),
        invalid("Permanent error: x"),
        invalid("bad"),
        Verdict::Split,
        Verdict::Unauthorized,
        retry(None),
        Verdict::Partial { refused: 2, message: "two too old".to_owned() },
        Verdict::Delivered,
        Verdict::Delivered,
    ] {
        assert_eq!(sink.send(), expected);
    }
    assert_eq!(receiver.records().len(), 1 + 3 + 3);
}

#[test]
fn grpc_answers_are_judged_by_the_specification() {
    let receiver = Receiver::start(&[]);
    let mut sink = Sink::new(&config(&receiver, Protocol::Grpc, Compression::Gzip));
    receiver.inject(
        r#"[{"grpc": 14, "message": "busy"}, {"grpc": 8, "message": "quota", "retry_info": 1.5},
            {"grpc": 8, "message": "quota ü"}, {"grpc": 13, "message": "Permanent error: ü"}, {"grpc": 3},
            {"grpc": 7}, {"grpc": 16}, {"grpc": 12}, {"grpc": 4}, {"partial": 1, "message": "one"}]"#,
    );
    let retry = |millis: Option<u64>| Verdict::Retry { after: millis.map(Duration::from_millis) };
    let invalid =
        |message: &str| Verdict::Refused { reason: Reason::Invalid, all: false, message: message.to_owned() };
    for expected in [
        retry(None),
        retry(Some(1500)),
        retry(None),
        invalid("Permanent error: ü"),
        invalid("injected"),
        Verdict::Unauthorized,
        Verdict::Unauthorized,
        retry(None),
        retry(None),
        Verdict::Partial { refused: 1, message: "one".to_owned() },
        Verdict::Delivered,
    ] {
        assert_eq!(sink.send(), expected);
    }
    assert_eq!(receiver.records().len(), 2 + 3);
}

#[test]
fn a_message_above_the_receivers_limit_is_split() {
    let receiver = Receiver::start(&["--max-message", "600"]);
    for protocol in BOTH {
        assert_eq!(
            Sink::new(&config(&receiver, protocol, Compression::None)).send(),
            Verdict::Split,
            "{protocol:?}"
        );
    }
}

#[test]
fn lokis_path_is_appended_to_and_its_texts_are_read() {
    let receiver = Receiver::start(&["--path", "/otlp/v1/logs"]);
    let mut config = config(&receiver, Protocol::HttpProtobuf, Compression::Zstd);
    config.endpoint.push_str("/otlp");
    let mut sink = Sink::new(&config);
    let text = "entry with timestamp 2026-11-22 13:42:13 +0000 UTC ignored, reason: 'entry too far behind, entry \
                timestamp is: 2026-11-22T13:42:13Z',\\nuser 'fake', total ignored: 3 out of 3 for stream: {}";
    receiver.inject(&format!(
        r#"[{{"http": 503, "message": "empty ring", "code": 0}}, {{"http": 500, "message": "empty ring"}},
            {{"http": 400, "message": "{text}"}}]"#
    ));
    assert_eq!(sink.send(), Verdict::Retry { after: None });
    assert_eq!(sink.send(), Verdict::Retry { after: None });
    assert!(matches!(sink.send(), Verdict::Refused { reason: Reason::TooFarBehind, all: true, .. }));
    assert_eq!(sink.send(), Verdict::Delivered);
    assert!(sink.wire.success_can_mask());
}

#[test]
fn a_rotated_token_is_read_again() {
    let receiver = Receiver::start(&["--bearer", "second"]);
    for protocol in BOTH {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "first\n").expect("written");
        let mut config = config(&receiver, protocol, Compression::Gzip);
        config.auth = Auth { token_file: Some(path.clone()), ..Auth::default() };
        let mut sink = Sink::new(&config);
        assert_eq!(sink.send(), Verdict::Unauthorized, "{protocol:?}");
        std::fs::write(&path, "second\n").expect("written");
        assert_eq!(sink.send(), Verdict::Delivered, "{protocol:?}");
    }
}

/// A token endpoint that grants "first", then "second", as often as it is asked; its URL.
fn token_endpoint() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}/token", listener.local_addr().expect("bound"));
    // Ends with the test's process.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.ends_with(b"grant_type=client_credentials") {
                match stream.read(&mut chunk) {
                    Ok(read @ 1..) => request.extend_from_slice(&chunk[..read]),
                    _ => return,
                }
            }
            let token = if number == 0 { "first" } else { "second" };
            let body =
                format!("{{\"access_token\":\"{token}\",\"token_type\":\"bearer\",\"expires_in\":3600}}");
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    url
}

#[test]
fn a_withdrawn_access_token_is_granted_anew() {
    let receiver = Receiver::start(&["--bearer", "second"]);
    for protocol in BOTH {
        let oauth2 = OAuth2 {
            token_url: token_endpoint(),
            client_id: "agent".into(),
            client_secret: Some(Secret::new("s3cret".into())),
            ..OAuth2::default()
        };
        let mut config = config(&receiver, protocol, Compression::Gzip);
        config.auth = Auth { oauth2: Some(oauth2), ..Auth::default() };
        let mut sink = Sink::new(&config);
        assert_eq!(sink.send(), Verdict::Unauthorized, "{protocol:?}");
        assert_eq!(sink.send(), Verdict::Delivered, "{protocol:?}");
        assert_eq!(sink.send(), Verdict::Delivered, "{protocol:?}");
    }
}

#[test]
fn an_answer_that_never_comes_is_unreachable() {
    let receiver = Receiver::start(&[]);
    for protocol in BOTH {
        let mut config = config(&receiver, protocol, Compression::Gzip);
        config.timeouts = Timeouts { total: units::Span::millis(500), ..Timeouts::default() };
        let mut sink = Sink::new(&config);
        receiver.inject(r#"[{"hang": 1.5}]"#);
        let answer = sink.exchange();
        assert!(
            matches!(&answer, Answer::Unreachable { error } if error == "no complete response within 500ms"),
            "{answer:?}"
        );
        assert_eq!(sink.send(), Verdict::Delivered, "the next request takes a new connection");
    }
    receiver.inject(r#"[{"accept_then_close": true}]"#);
    let mut sink = Sink::new(&config(&receiver, Protocol::HttpProtobuf, Compression::Gzip));
    assert!(matches!(sink.exchange(), Answer::Unreachable { .. }));
}

#[test]
fn a_backend_that_is_down_is_found_again() {
    let gone = Receiver::start(&[]);
    let ports = (gone.grpc, gone.http);
    drop(gone);
    for (protocol, port) in [(Protocol::Grpc, ports.0), (Protocol::HttpProtobuf, ports.1)] {
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut sink = Sink::new(&Config { endpoint, protocol, ..Config::default() });
        for _ in 0..2 {
            let answer = sink.exchange();
            assert!(
                matches!(&answer, Answer::Unreachable { error } if error.contains("refused")),
                "{answer:?} should name its cause"
            );
        }
    }
}

#[test]
fn tls_trusts_the_given_authority_only_and_shows_the_client_certificate() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        (rcgen::Issuer::new(params, key), pem)
    };
    let (issuer, ca_pem) = authority("good");
    let (_, other_pem) = authority("other");
    let leaf = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names");
        let key = rcgen::KeyPair::generate().expect("a key");
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    let (cert, key) = leaf(&["localhost", "127.0.0.1"]);
    let (client_cert, client_key) = leaf(&["agent"]);
    let (ca, other) = (write("ca.pem", &ca_pem), write("other.pem", &other_pem));
    let (cert, key) = (write("cert.pem", &cert), write("key.pem", &key));
    let path = |path: &std::path::Path| path.display().to_string();
    let receiver =
        Receiver::start(&["--tls-cert", &path(&cert), "--tls-key", &path(&key), "--client-ca", &path(&ca)]);
    for protocol in BOTH {
        let mut config = config(&receiver, protocol, Compression::Gzip);
        config.endpoint = config.endpoint.replace("http://", "https://");
        config.tls = Tls {
            ca_file: Some(ca.clone()),
            cert_file: Some(write("client.pem", &client_cert)),
            key_file: Some(write("client.key", &client_key)),
            ..Tls::default()
        };
        assert_eq!(Sink::new(&config).send(), Verdict::Delivered, "{protocol:?}");
        let strange =
            Config { tls: Tls { ca_file: Some(other.clone()), ..config.tls.clone() }, ..config.clone() };
        assert!(matches!(Sink::new(&strange).exchange(), Answer::Unreachable { .. }), "{protocol:?}");
        let nameless = Config { tls: Tls { ca_file: Some(ca.clone()), ..Tls::default() }, ..config };
        assert!(matches!(Sink::new(&nameless).exchange(), Answer::Unreachable { .. }), "{protocol:?}");
    }
    assert_eq!(receiver.records().len(), 2 * 3);
}

/// `count` lines of one container log, numbered from `first`.
fn numbered(first: u64, count: u64) -> Batch {
    let Parcel { batch, .. } = parcel();
    let mut arena = Vec::new();
    let records = (first..first + count)
        .map(|number| {
            let start = arena.len();
            arena.extend_from_slice(format!("line {number}").as_bytes());
            let time_unix_nano = 1_795_354_933_000_000_000 + number;
            Record {
                time_unix_nano,
                offset: number,
                body: Span::new(start, arena.len()),
                ..Record::default()
            }
        })
        .collect();
    Batch {
        workload: Arc::clone(&batch.workload),
        path: Arc::clone(&batch.path),
        start: Position::default(),
        end: Position { offset: first + count, ..Position::default() },
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 0,
        permit: Budget::new(1 << 20, Arc::default()).reserve(1).expect("fits"),
    }
}

/// Ships 40 numbered lines in four batches through the whole sink and waits for its end.
fn ship(receiver: &Receiver, protocol: Protocol, state: &std::path::Path) -> (Arc<Ledger>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let config = config(receiver, protocol, Compression::Gzip);
    let kill = tokio_util::sync::CancellationToken::new();
    let (outlet, task) =
        nodewick::sink::otlp::sink("otlp-test", &config, Fields::ALL, Some(state), kill).expect("valid");
    let task = runtime.spawn(task);
    let fanout = Fanout::new(vec![outlet]);
    let ledger = Ledger::new(Position::default(), Arc::default());
    for first in [0, 10, 20, 30] {
        fanout.ship(&ledger, numbered(first, 10), 10);
    }
    drop(fanout);
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), task).await });
    ended.expect("the sink ends by itself").expect("without a panic");
    let text = |record: &serde_json::Value| record["body"].as_str().expect("a string").to_owned();
    (ledger, receiver.records().iter().map(text).collect())
}

fn lines(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

#[test]
fn lines_arrive_once_and_in_order_through_a_backend_that_stumbles() {
    for (protocol, faults) in [
        (Protocol::HttpProtobuf, r#"[{"http": 503, "retry_after": "1"}, {"http": 429}, {"http": 413}]"#),
        (
            Protocol::Grpc,
            r#"[{"grpc": 14}, {"grpc": 8, "retry_info": 0.5}, {"grpc": 8, "message": "received message larger than max (9 vs. 4)"}]"#,
        ),
    ] {
        let receiver = Receiver::start(&[]);
        let state = tempfile::tempdir().expect("temporary directory");
        receiver.inject(faults);
        let (ledger, arrived) = ship(&receiver, protocol, state.path());
        assert_eq!(arrived, lines(0..40), "{protocol:?}");
        assert_eq!((ledger.committed().offset, ledger.totals().lost_records), (40, 0));
    }
}

#[test]
fn the_backends_wish_to_wait_is_granted() {
    let receiver = Receiver::start(&[]);
    let state = tempfile::tempdir().expect("temporary directory");
    receiver.inject(r#"[{"http": 503, "retry_after": "2"}]"#);
    ship(&receiver, Protocol::HttpProtobuf, state.path());
    let at: Vec<f64> =
        receiver.requests().iter().map(|request| request["at"].as_f64().expect("a time")).collect();
    assert!(at[1] - at[0] >= 2.0, "{at:?}");
}

#[test]
fn one_poisoned_line_costs_only_itself() {
    for protocol in BOTH {
        let receiver = Receiver::start(&["--poison", "line 17"]);
        let state = tempfile::tempdir().expect("temporary directory");
        let (ledger, arrived) = ship(&receiver, protocol, state.path());
        assert_eq!(arrived, lines((0..40).filter(|number| *number != 17)), "{protocol:?}");
        assert_eq!((ledger.committed().offset, ledger.totals().lost_records), (40, 1));
        let dead = std::fs::read_to_string(state.path().join("dead-letter.jsonl")).expect("dead letters");
        assert_eq!(dead.lines().count(), 1);
        let letter: serde_json::Value = serde_json::from_str(&dead).expect("JSON");
        assert_eq!((&letter["line"], &letter["message"]), (&json!("line 17"), &json!("poisoned")));
    }
}

#[test]
fn partial_success_is_counted_and_never_sent_again() {
    for protocol in BOTH {
        let receiver = Receiver::start(&[]);
        let state = tempfile::tempdir().expect("temporary directory");
        receiver.inject(r#"[{"partial": 3, "message": "three too old"}]"#);
        let (ledger, arrived) = ship(&receiver, protocol, state.path());
        assert_eq!(arrived.len(), 37, "{protocol:?}");
        assert_eq!((ledger.committed().offset, ledger.totals().lost_records), (40, 3));
    }
}
