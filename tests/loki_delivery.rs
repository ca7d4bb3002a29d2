//! The Loki sink end to end, over loopback, against a Loki that answers as a real one does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodewick::data::batch::Fields;
use nodewick::data::delivery::Outlet;
use nodewick::data::units::Span;
use nodewick::sink::{http, loki};
use tokio_util::sync::CancellationToken;

#[path = "support/batches.rs"]
mod batches;
#[path = "support/fake_loki.rs"]
mod fake_loki;

use batches::{Book, batch, workload};
use fake_loki::{FakeLoki, Fault, Limits, now_unix_nano, wait_until, wire};

const SECOND: i128 = 1_000_000_000;
const HOUR: i128 = 3600 * SECOND;
const PATIENCE: Duration = Duration::from_secs(30);

/// A sink with its own runtime.
struct Sink {
    outlet: Option<Box<dyn Outlet>>,
    task: Option<tokio::task::JoinHandle<()>>,
    kill: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Sink {
    fn new(config: loki::Config) -> Self {
        Self::with_state(config, None)
    }

    fn with_state(config: loki::Config, state_dir: Option<&Path>) -> Self {
        let kill = CancellationToken::new();
        let (outlet, task) =
            loki::sink("test", &config, Fields::ALL, state_dir, kill.clone()).expect("a valid config");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let task = runtime.spawn(task);
        Self { outlet: Some(outlet), task: Some(task), kill, runtime }
    }

    fn outlet(&self) -> &dyn Outlet {
        self.outlet.as_deref().expect("open")
    }

    /// Closes the entrance and waits until all is settled.
    fn drain(&mut self) {
        self.outlet.take();
        let task = self.task.take().expect("not drained before");
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, task).await })
            .expect("drains in time")
            .expect("no panic");
    }
}

fn config(loki: &FakeLoki) -> loki::Config {
    loki::Config { url: loki.url(), ..loki::Config::default() }
}

fn settles(book: &Book, delivered: u64, lost: u64) {
    assert!(wait_until(PATIENCE, || book.settled() == (delivered, lost)), "{:?}", book.settled());
}

/// Posts a push as an agent would that does not know about masking.
fn naive_push(loki: &FakeLoki, streams: &[(&str, &[(i128, &str)])]) -> u16 {
    let streams = streams.iter().map(|(labels, lines)| wire::Stream {
        labels: (*labels).to_owned(),
        entries: lines
            .iter()
            .map(|(time, line)| wire::Entry {
                timestamp: Some(wire::Timestamp {
                    seconds: i64::try_from(time / SECOND).expect("fits"),
                    nanos: i32::try_from(time % SECOND).expect("fits"),
                }),
                line: (*line).to_owned(),
                metadata: Vec::new(),
            })
            .collect(),
    });
    let raw = prost::Message::encode_to_vec(&wire::PushRequest { streams: streams.collect() });
    let body = snap::raw::Encoder::new().compress_vec(&raw).expect("compresses");
    let client = http::Client::new(&format!("{}/loki/api/v1/push", loki.url()), &http::Config::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut headers = ::http::HeaderMap::new();
    headers.insert("content-type", ::http::HeaderValue::from_static("application/x-protobuf"));
    match runtime.block_on(client.expect("valid").post(headers, body.into())) {
        nodewick::sink::Answer::Http { status, .. } => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_naive_shared_push_loses_lines_behind_a_204() {
    let loki = FakeLoki::start(Limits::default());
    let now = now_unix_nano();
    let (a, b) = ("{service_name=\"a\"}", "{service_name=\"b\"}");
    assert_eq!(naive_push(&loki, &[(a, &[(now, "newest")])]), 204);
    let status = naive_push(&loki, &[(a, &[(now - 2 * HOUR, "behind")]), (b, &[(now, "good")])]);
    assert_eq!(status, 204, "the last stream's result hides the first one's");
    assert_eq!(loki.lines("\"a\""), ["newest"], "and the line is gone");
    assert_eq!(loki.lines("\"b\""), ["good"]);
}

#[test]
fn no_line_is_lost_to_a_masking_204() {
    let loki = FakeLoki::start(Limits { max_streams: 2, ..Limits::default() });
    let sink = Sink::new(config(&loki));
    let now = now_unix_nano();
    let (a, b, c) = (
        Arc::new(workload("checkout-1", "a")),
        Arc::new(workload("checkout-1", "b")),
        Arc::new(workload("checkout-1", "c")),
    );
    let (of_a, of_b, of_c) = (Book::new(), Book::new(), Book::new());
    of_a.ship(sink.outlet(), batch(&a, &[(now, "a newest")]));
    of_b.ship(sink.outlet(), batch(&b, &[(now, "b first")]));
    settles(&of_a, 1, 0);
    settles(&of_b, 1, 0);
    // Offered together: A with a line that Loki will never take, C over the limit of streams, B good.
    of_a.ship(sink.outlet(), batch(&a, &[(now - 2 * HOUR, "a behind"), (now + 1, "a good")]));
    of_c.ship(sink.outlet(), batch(&c, &[(now, "c waits")]));
    of_b.ship(sink.outlet(), batch(&b, &[(now + 1, "b second")]));
    settles(&of_b, 2, 0);
    settles(&of_a, 2, 1);
    assert_eq!(of_c.settled(), (0, 0), "neither delivered nor lost: it waits");
    loki.limit(|limits| limits.max_streams = 3);
    settles(&of_c, 1, 0);
    assert_eq!(loki.lines("container=\"a\""), ["a newest", "a good"]);
    assert_eq!(loki.lines("container=\"b\""), ["b first", "b second"]);
    assert_eq!(loki.lines("container=\"c\""), ["c waits"]);
}

#[test]
fn a_rate_lower_than_configured_is_learned_before_it_can_be_masked() {
    let loki = FakeLoki::start(Limits { stream_rate: (20_000.0, 20_000.0), ..Limits::default() });
    let sink = Sink::new(config(&loki));
    let line = "x".repeat(200);
    let (busy, quiet) = (Arc::new(workload("checkout-1", "busy")), Arc::new(workload("checkout-1", "quiet")));
    let (of_busy, of_quiet) = (Book::new(), Book::new());
    let mut sent = (0, 0);
    for round in 0..12 {
        let now = now_unix_nano();
        let lines: Vec<(i128, String)> =
            (0..20).map(|at| (now + at, format!("{round} {at} {line}"))).collect();
        let lines: Vec<(i128, &str)> = lines.iter().map(|(time, line)| (*time, line.as_str())).collect();
        of_busy.ship(sink.outlet(), batch(&busy, &lines));
        of_quiet.ship(sink.outlet(), batch(&quiet, &[(now, "quiet"), (now + 1, "quieter")]));
        sent = (sent.0 + 20, sent.1 + 2);
        std::thread::sleep(Duration::from_millis(60));
    }
    settles(&of_quiet, sent.1, 0);
    settles(&of_busy, sent.0, 0);
    assert_eq!(loki.lines("\"busy\"").len() as u64, sent.0);
    assert_eq!(loki.lines("\"quiet\"").len() as u64, sent.1);
    assert!(loki.requests().iter().any(|seen| seen.status == 429), "the limit was met");
}

#[test]
fn one_poison_line_in_550_is_found_and_put_aside() {
    let loki = FakeLoki::start(Limits { max_line: 1000, ..Limits::default() });
    let state = tempfile::tempdir().expect("a directory");
    let mut sink = Sink::with_state(config(&loki), Some(state.path()));
    let now = now_unix_nano();
    let poison = format!("poison \"\u{1b}[31m{}", "é".repeat(1000));
    let lines: Vec<(i128, String)> = (0..550)
        .map(|at| (now + at, if at == 401 { poison.clone() } else { format!("line {at}") }))
        .collect();
    let lines: Vec<(i128, &str)> = lines.iter().map(|(time, line)| (*time, line.as_str())).collect();
    let book = Book::new();
    let begun = Instant::now();
    book.ship(sink.outlet(), batch(&Arc::new(workload("checkout-1", "api")), &lines));
    settles(&book, 549, 1);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    sink.drain();
    assert_eq!(loki.lines("api").len(), 549);
    assert!(loki.requests().len() <= 21, "{} requests", loki.requests().len());
    let letters = std::fs::read_to_string(state.path().join("dead-letter.jsonl")).expect("a dead letter");
    let letter: serde_json::Value = serde_json::from_str(letters.trim_end()).expect("one JSON line");
    assert_eq!(letter["line"], poison.as_str());
    assert_eq!(letter["reason"], "too_large");
    assert_eq!((&letter["pod"], &letter["namespace"]), (&"checkout-1".into(), &"shop".into()));
    let message = letter["message"].as_str().expect("text");
    assert!(
        message.starts_with("max entry size '1000' bytes exceeded for stream '{cluster=\"test\", "),
        "{message}"
    );
}

#[test]
fn a_poison_line_among_fifty_streams_costs_few_requests() {
    let loki = FakeLoki::start(Limits { max_line: 1000, ..Limits::default() });
    let sink = Sink::new(config(&loki));
    let streams: Vec<_> = (0..50).map(|at| Arc::new(workload("checkout-1", &format!("c{at}")))).collect();
    let book = Book::new();
    for stream in &streams {
        book.ship(sink.outlet(), batch(stream, &[(now_unix_nano(), "first")]));
    }
    settles(&book, 50, 0);
    loki.forget_requests();
    let poison = "x".repeat(1001);
    for (at, stream) in streams.iter().enumerate() {
        let now = now_unix_nano();
        let mut lines: Vec<(i128, &str)> = (0..11).map(|line| (now + line, "good")).collect();
        if at == 17 {
            lines[5].1 = &poison;
        }
        book.ship(sink.outlet(), batch(stream, &lines));
    }
    settles(&book, 50 + 549, 1);
    let requests = loki.requests();
    assert!(requests[0].streams.len() > 10, "they shared a request");
    assert!(requests.len() <= 20, "{} requests", requests.len());
    assert_eq!(loki.lines("service_name").len(), 50 + 549);
}

#[test]
fn a_400_that_hides_rate_limited_lines_loses_only_those_that_are_refused() {
    let loki = FakeLoki::start(Limits {
        shard_streams: false,
        stream_rate: (20_000.0, 4_000.0),
        ..Limits::default()
    });
    let sink = Sink::new(config(&loki));
    let now = now_unix_nano();
    let book = Book::new();
    let stream = Arc::new(workload("checkout-1", "api"));
    book.ship(sink.outlet(), batch(&stream, &[(now, "newest")]));
    settles(&book, 1, 0);
    let long = "x".repeat(1500);
    let mut lines: Vec<(i128, String)> = (1..13).map(|at| (now + at, format!("{at} {long}"))).collect();
    lines.push((now - 2 * HOUR, "behind".to_owned()));
    let lines: Vec<(i128, &str)> = lines.iter().map(|(time, line)| (*time, line.as_str())).collect();
    book.ship(sink.outlet(), batch(&stream, &lines));
    settles(&book, 13, 1);
    assert_eq!(loki.lines("api").len(), 13);
    let hiding = loki.requests().into_iter().find(|seen| seen.status == 400).expect("a 400");
    assert!(hiding.text.contains("Per stream rate limit exceeded"), "the case was met: {}", hiding.text);
}

#[test]
fn a_413_is_split_until_it_fits() {
    let loki = FakeLoki::start(Limits { max_body: 3000, ..Limits::default() });
    let sink = Sink::new(config(&loki));
    let now = now_unix_nano();
    let mut state = 1_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    let lines: Vec<(i128, String)> =
        (0..200).map(|at| (now + at, (0..10).map(|_| noise()).collect::<String>())).collect();
    let lines: Vec<(i128, &str)> = lines.iter().map(|(time, line)| (*time, line.as_str())).collect();
    let book = Book::new();
    book.ship(sink.outlet(), batch(&Arc::new(workload("checkout-1", "api")), &lines));
    settles(&book, 200, 0);
    let stored = loki.lines("api");
    let expected: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
    assert_eq!(stored, expected);
    assert!(loki.requests().iter().any(|seen| seen.status == 413), "the case was met");
}

#[test]
fn a_lost_acknowledgement_is_repeated_byte_for_byte() {
    let loki = FakeLoki::start(Limits::default());
    loki.inject([Fault::AckLost, Fault::EmptyRing]);
    let sink = Sink::new(config(&loki));
    let now = now_unix_nano();
    let book = Book::new();
    let stream = Arc::new(workload("checkout-1", "api"));
    book.ship(sink.outlet(), batch(&stream, &[(now, "one"), (now + 1, "two")]));
    settles(&book, 2, 0);
    let requests = loki.requests();
    assert_eq!(requests.iter().map(|seen| seen.status).collect::<Vec<_>>(), [204, 500, 204]);
    assert!(requests.windows(2).all(|pair| pair[0].body == pair[1].body));
    assert_eq!(loki.lines("api"), ["one", "two"]);
}

#[test]
fn a_401_rereads_the_token_and_loses_nothing() {
    let loki = FakeLoki::start(Limits { authorization: Some("Bearer old".to_owned()), ..Limits::default() });
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "old\n").expect("written");
    let auth = http::Auth { token_file: Some(token.clone()), ..http::Auth::default() };
    let sink = Sink::new(loki::Config { auth, ..config(&loki) });
    let now = now_unix_nano();
    let book = Book::new();
    let stream = Arc::new(workload("checkout-1", "api"));
    book.ship(sink.outlet(), batch(&stream, &[(now, "one")]));
    settles(&book, 1, 0);
    loki.limit(|limits| limits.authorization = Some("Bearer new".to_owned()));
    book.ship(sink.outlet(), batch(&stream, &[(now + 1, "two")]));
    assert!(wait_until(PATIENCE, || loki.requests().iter().any(|seen| seen.status == 401)));
    std::fs::write(&token, "new\n").expect("written");
    settles(&book, 2, 0);
    assert_eq!(loki.lines("api"), ["one", "two"]);
}

#[test]
fn replicas_that_share_a_stream_never_overtake_each_other() {
    let loki = FakeLoki::start(Limits::default());
    let mut sink = Sink::new(config(&loki));
    let now = now_unix_nano();
    let replicas = [Arc::new(workload("checkout-1", "api")), Arc::new(workload("checkout-2", "api"))];
    let books = [Book::new(), Book::new()];
    let mut expected = Vec::new();
    for at in 0..200_i128 {
        let which = usize::from(at % 3 == 0);
        let line = format!("{at}");
        books[which].ship(sink.outlet(), batch(&replicas[which], &[(now + at, &line)]));
        expected.push(line);
        if at % 20 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    sink.drain();
    assert_eq!(loki.streams().len(), 1);
    let stored = loki.entries("api");
    assert_eq!(stored.iter().map(|entry| entry.line.clone()).collect::<Vec<_>>(), expected);
    let pod =
        |at: usize| stored[at].metadata.iter().find(|(name, _)| name == "pod").expect("a pod").1.clone();
    assert_eq!((pod(0), pod(1)), ("checkout-2".to_owned(), "checkout-1".to_owned()));
}

#[test]
fn an_endpoint_that_starts_up_gets_about_one_request_a_second() {
    let loki = FakeLoki::start(Limits::default());
    loki.set_fault(Some(Fault::EmptyRing));
    let sink = Sink::new(config(&loki));
    let now = now_unix_nano();
    let book = Book::new();
    for at in 0..20 {
        let stream = Arc::new(workload("checkout-1", &format!("c{at}")));
        book.ship(sink.outlet(), batch(&stream, &[(now, "line")]));
    }
    std::thread::sleep(Duration::from_secs(4));
    let tried = loki.requests().len();
    assert!((2..=8).contains(&tried), "{tried} requests in 4 s, four of them at once at first");
    loki.set_fault(None);
    settles(&book, 20, 0);
}

#[test]
fn a_hanging_backend_frees_its_slot_at_the_timeout() {
    let loki = FakeLoki::start(Limits::default());
    loki.inject([Fault::Hang]);
    let timeouts = http::Timeouts { total: Span::millis(300), ..http::Timeouts::default() };
    let sink = Sink::new(loki::Config { timeouts, ..config(&loki) });
    let book = Book::new();
    book.ship(sink.outlet(), batch(&Arc::new(workload("checkout-1", "api")), &[(now_unix_nano(), "line")]));
    settles(&book, 1, 0);
    assert_eq!(loki.requests().len(), 2);
}

#[test]
fn draining_sends_what_waits_and_a_kill_leaves_tickets_open() {
    let loki = FakeLoki::start(Limits::default());
    let stream = Arc::new(workload("checkout-1", "api"));
    let mut sink = Sink::new(config(&loki));
    let book = Book::new();
    book.ship(sink.outlet(), batch(&stream, &[(now_unix_nano(), "last words")]));
    sink.drain();
    assert_eq!(book.settled(), (1, 0));

    loki.set_fault(Some(Fault::Hang));
    let mut sink = Sink::new(config(&loki));
    let book = Book::new();
    book.ship(sink.outlet(), batch(&stream, &[(now_unix_nano(), "unheard")]));
    assert!(wait_until(PATIENCE, || loki.requests().len() == 2));
    sink.kill.cancel();
    sink.drain();
    assert_eq!(book.settled(), (0, 0));
    assert!(book.ledger.in_flight_bytes() > 0, "still owed: the lines will be read again");
}

#[test]
fn tenants_travel_in_their_own_requests() {
    let loki = FakeLoki::start(Limits { auth: true, ..Limits::default() });
    let mut sink = Sink::new(loki::Config { tenant: Some("main".to_owned()), ..config(&loki) });
    let book = Book::new();
    let now = now_unix_nano();
    let mut other = workload("checkout-1", "api");
    other.tenant = Some("other".to_owned());
    let (own, other) = (Arc::new(workload("checkout-1", "api")), Arc::new(other));
    for at in 0..5 {
        book.ship(sink.outlet(), batch(&own, &[(now + at, "mine")]));
        book.ship(sink.outlet(), batch(&other, &[(now + at, "theirs")]));
        std::thread::sleep(Duration::from_millis(60));
    }
    sink.drain();
    assert_eq!(book.settled(), (10, 0));
    let tenants: Vec<String> = loki.streams().into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(tenants, ["main", "other"]);
    assert_eq!(loki.lines("api").len(), 10);
}
