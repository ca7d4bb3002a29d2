//! The two routes over real connections, and the terminal against them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser as _;

use super::*;
use crate::data::batch::{Batch, Fields, Record, Span as Text};
use crate::data::budget::Budget;
use crate::data::delivery::Shipment;
use crate::data::position::Position;
use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use crate::tail::{self, Remote, Style, remote};

const NOW: Duration = Duration::from_secs(1_795_359_067);

fn asked(query: &[(&str, &str)]) -> Result<Asked, String> {
    let params: Vec<_> = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    read(&params, true, NOW)
}

/// A listener with these routes, while it lives.
struct Listener {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listener {
    fn new(hub: &Hub, searcher: &Searcher, address: &str) -> Self {
        let routes = routes(hub.clone(), searcher.clone());
        let listener = std::net::TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                tokio::select! {
                    _ = axum::serve(listener, routes) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Sends a request; the connection.
    fn ask(&self, path: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).expect("it listens");
        connection.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        write!(connection, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address).expect("sent");
        connection
    }

    /// The whole answer.
    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        self.ask(path).read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

fn offer(hub: &Hub, lines: &[(u64, &str)]) {
    let container = ContainerRef::from_path("shop_checkout-0_u1", "api", 0).expect("a directory");
    let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    let Identity::Known(workload) = paths.identify(&container, Duration::ZERO) else {
        unreachable!("paths say it all")
    };
    let (mut arena, mut records) = (Vec::new(), Vec::new());
    for (second, line) in lines {
        let start = arena.len();
        arena.extend_from_slice(line.as_bytes());
        records.push(Record {
            time_unix_nano: second * 1_000_000_000,
            body: Text::new(start, arena.len()),
            ..Record::default()
        });
    }
    let batch = Batch {
        workload,
        path: "0.log".into(),
        start: Position::default(),
        end: Position::default(),
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 1,
        permit: Budget::new(u64::MAX, Arc::default()).overdraw(0),
    };
    hub.outlet().offer(Shipment { batch: Arc::new(batch), ticket: None });
}

/// Reads until the answer holds `text`.
fn read_until(connection: &mut TcpStream, text: &str) -> String {
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = connection.read(&mut piece).expect("more");
        answer.extend_from_slice(&piece[..read]);
        let seen = String::from_utf8_lossy(&answer).into_owned();
        if seen.contains(text) {
            return seen;
        }
        assert!(read > 0, "it ended with {seen}");
    }
}

#[test]
fn a_question_reads_as_documented() {
    let asked_for = asked(&[
        ("ns", "shop"),
        ("service", ""),
        ("level", "WARN"),
        ("trace", "0AF76519…"),
        ("since", "15m"),
        ("until", "2026-11-22T14:51:07.5Z"),
        ("limit", "7"),
        ("timeout", "30s"),
    ])
    .expect("valid");
    assert_eq!(asked_for.filter.namespace.as_deref(), Some("shop"));
    assert_eq!(asked_for.filter.service, None, "what was not filled in");
    assert_eq!(asked_for.filter.level, Some(Severity::WARN));
    assert_eq!(asked_for.filter.trace.as_deref(), Some("0af76519"));
    assert_eq!(asked_for.filter.since_unix_nano, Some(1_795_358_167_000_000_000));
    assert_eq!(asked_for.filter.until_unix_nano, Some(1_795_359_067_500_000_000));
    assert_eq!((asked_for.limit, asked_for.timeout), (Some(7), Some(Duration::from_secs(30))));
    let seconds = asked(&[("since", "1795358167.5")]).expect("valid");
    assert_eq!(seconds.filter.since_unix_nano, Some(1_795_358_167_500_000_000));
}

#[test]
fn what_is_not_understood_is_told_with_what_would_be() {
    for (key, value, error) in [
        ("level", "loud", "level: \"loud\" is none; use trace, debug, info, warn, error or fatal"),
        ("trace", "xyz", "trace: \"xyz\" is no trace id; give 4 to 32 hex digits of it"),
        ("limit", "0", "limit: \"0\" is no number from 1 to 10000"),
        ("timeout", "2h", "timeout: 2h is not above 0 and at most 60s"),
        (
            "since",
            "soon",
            "since: \"soon\" is no time; give how long ago (15m), RFC 3339 (2026-11-22T14:51:07Z), or seconds since the epoch",
        ),
        (
            "grep",
            "(",
            "grep: unclosed group; the syntax is that of Rust's regex crate, without look-around and backreferences",
        ),
        (
            "grep",
            "\\w{1000}{1000}",
            "grep: the expression is too large; use smaller counts in {…}, or fewer of \\w, \\d",
        ),
        (
            "colour",
            "red",
            "\"colour\" is not understood; use ns, service, pod, container, selector, level, trace, grep, since, until, limit, format, timeout",
        ),
    ] {
        assert_eq!(asked(&[(key, value)]).expect_err(key), error);
    }
    let long = "a".repeat(2_000);
    assert!(
        asked(&[("grep", &long)]).expect_err("long").starts_with("grep: the expression is longer than 1024")
    );
}

#[test]
fn a_browser_gets_events_and_a_terminal_lines() {
    let (hub, searcher) = (Hub::new(Fields::ALL), Searcher::default());
    let listener = Listener::new(&hub, &searcher, "127.0.0.1:0");
    offer(&hub, &[(1, "one"), (2, "two")]);
    let mut events = listener.ask("/api/tail?limit=1");
    let seen = read_until(&mut events, "\"line\":\"two\"}\n\n");
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(seen.contains("\r\n\r\n: still here\n\ndata: {\"time\":\"1970-01-01T00:00:02"), "{seen}");
    offer(&hub, &[(3, "three")]);
    read_until(&mut events, "\"line\":\"three\"}\n\n");
    let answer = listener.get("/api/tail?format=ndjson&follow=no&grep=o");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let lines: Vec<&str> = body.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() == 2 && lines[0].contains("\"one\"") && lines[1].contains("\"two\""), "{body}");
    hub.close();
    let mut rest = String::new();
    events.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "event: end\ndata: {}\n\n");
}

#[test]
fn who_leaves_makes_room_and_who_is_too_many_is_told() {
    let (hub, searcher) = (Hub::new(Fields::ALL), Searcher::default());
    let listener = Listener::new(&hub, &searcher, "127.0.0.1:0");
    let mut viewers: Vec<TcpStream> = (0..VIEWERS).map(|_| listener.ask("/api/tail")).collect();
    for viewer in &mut viewers {
        read_until(viewer, "still here");
    }
    let answer = listener.get("/api/tail");
    assert!(answer.starts_with("HTTP/1.0 429"), "{answer}");
    assert!(answer.contains("{\"error\":\"8 others watch this agent's lines already"), "{answer}");
    viewers.clear();
    let begun = std::time::Instant::now();
    while hub.viewers() > 0 && begun.elapsed() < Duration::from_secs(20) {
        // A viewer that has left is found out by what is sent to it.
        offer(&hub, &[(1, "line")]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(hub.viewers(), 0);
    assert!(listener.get("/api/search").starts_with("HTTP/1.0 503"), "nothing is read yet");
    assert!(listener.get("/api/search?level=loud").starts_with("HTTP/1.0 400"));
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: tail::Args,
}

/// A terminal whose output others may read.
#[derive(Clone, Default)]
struct Screen(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let begun = std::time::Instant::now();
        while !self.text().contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(30), "no {text:?} in {:?}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn the_terminal_follows_over_a_broken_connection_and_shows_each_line_once() {
    let (hub, searcher) = (Hub::new(Fields::ALL), Searcher::default());
    let listener = Listener::new(&hub, &searcher, "127.0.0.1:0");
    let address = listener.address;
    offer(&hub, &[(1, "one"), (2, "two \u{1b}[31m")]);
    let args = Cli::parse_from(["tail", "-o", "raw", "--lines", "1"]).args;
    let (screen, notices, stop) = (Screen::default(), Screen::default(), Arc::new(AtomicBool::new(false)));
    let thread = {
        let (mut out, mut notices, stop) = (screen.clone(), notices.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let agent = Remote::new(&format!("http://{address}"), None).expect("an address");
            remote::run(&args, &agent, Style::PLAIN, true, &mut out, &mut notices, &stop)
        })
    };
    screen.wait_for("two \\x1b[31m\n");
    drop(listener);
    notices.wait_for("connecting again");
    offer(&hub, &[(3, "while nobody listened")]);
    let again = Listener::new(&hub, &searcher, &address.to_string());
    screen.wait_for("while nobody listened\n");
    notices.wait_for(&format!("connected to http://{address} again"));
    offer(&hub, &[(4, "live again")]);
    screen.wait_for("live again\n");
    stop.store(true, Ordering::Relaxed);
    assert!(thread.join().expect("no panic").expect("no error"));
    assert_eq!(screen.text(), "two \\x1b[31m\nwhile nobody listened\nlive again\n");
    drop(again);
}

#[test]
fn the_terminal_says_who_does_not_answer_and_what_is_answered() {
    let (mut out, mut notices) = (Vec::new(), Vec::new());
    let stop = AtomicBool::new(false);
    let mut run = |address: SocketAddr, words: &[&str]| {
        let args = Cli::parse_from(std::iter::once("tail").chain(words.iter().copied())).args;
        let agent = Remote::new(&format!("http://{address}"), None).expect("an address");
        remote::run(&args, &agent, Style::PLAIN, false, &mut out, &mut notices, &stop)
    };
    let hub = Hub::new(Fields::ALL);
    let listener = Listener::new(&hub, &Searcher::default(), "127.0.0.1:0");
    let error = run(listener.address, &["--search", "--level", "error"]).expect_err("nothing is read");
    assert_eq!(
        error.to_string(),
        format!(
            "http://{} answers: the agent does not read logs at this moment (it starts, stops, or takes up a new config); try again",
            listener.address
        )
    );
    let address = listener.address;
    drop(listener);
    let error = run(address, &[]).expect_err("nobody listens").to_string();
    assert!(
        error.starts_with(&format!("cannot reach the agent at http://{address}: Connection refused")),
        "{error}"
    );
    assert!(
        error.contains("[ui] listen = \"127.0.0.1:9465\"") && error.contains("kubectl port-forward"),
        "{error}"
    );
}
