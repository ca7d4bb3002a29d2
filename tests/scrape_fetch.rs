//! Scrapes against real sockets: targets that hang, lie, flood, close, and such as answer well.
//!
//! In: servers on loopback that misbehave in one way each. Out: what a scrape makes of them, how long it takes and what it
//! holds. Invariant: whatever a target does, a scrape ends in time and the others' go on.

#[path = "scrape/server.rs"]
mod server;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nodewick::data::pods::{Pod, Pods, directory};
use nodewick::data::sample::{Origin, OriginKind};
use nodewick::data::units::ByteSize;
use nodewick::scrape::config::Tls;
use nodewick::scrape::fetch::{Buffers, Fetcher, Kept};
use nodewick::scrape::guard::Guard;
use nodewick::scrape::target::{PodAddress, Scheme, Target};
use nodewick::scrape::{Body, Config, Dialect, Event, Failure, Fetched, pace};
use server::{answer, gzip, request, serve};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine, where nothing is to be waited for.
const AMPLE: Duration = Duration::from_secs(20);
/// What is waited where a target hangs.
const BRIEF: Duration = Duration::from_millis(400);

fn target(at: SocketAddr, timeout: Duration) -> Target {
    let labels = vec![("instance".to_owned(), at.to_string())];
    Target {
        origin: Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() }),
        scheme: Scheme::Http,
        host: at.ip().to_string(),
        port: at.port(),
        path: "/metrics".to_owned(),
        pod: None,
        interval: Duration::from_secs(60),
        timeout,
        honor_labels: false,
        honor_timestamps: true,
    }
}

fn no_pods() -> Pods {
    directory().1
}

fn fetcher(config: &Config) -> Fetcher {
    Fetcher::new(config, Guard::default(), no_pods(), Buffers::default())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// One scrape of a server that treats each connection like this.
fn scrape_once(
    timeout: Duration,
    treat: impl Fn(TcpStream, usize) + Send + Sync + 'static,
) -> Result<Body, Failure> {
    let at = serve(treat);
    block_on(fetcher(&Config::default()).scrape(&target(at, timeout), &mut Kept::default()))
}

fn text(body: &Body) -> &str {
    std::str::from_utf8(&body.bytes).expect("text")
}

#[test]
fn a_good_answer_is_its_body() {
    let body = scrape_once(AMPLE, |mut stream, _| {
        let asked = request(&mut stream).expect("a request");
        assert!(asked.starts_with("GET /metrics HTTP/1.1\r\n"), "{asked}");
        let of = |name: &str| {
            let line = asked.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("{name} in {asked}")).to_owned()
        };
        assert_eq!(
            of("accept"),
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        );
        assert_eq!(of("accept-encoding"), "identity");
        assert_eq!(of("x-prometheus-scrape-timeout-seconds"), "20");
        assert!(of("user-agent").starts_with("nodewick/"));
        assert_eq!(of("host"), stream.local_addr().expect("an address").to_string());
        for never in ["authorization", "cookie", "proxy-authorization"] {
            assert!(!asked.to_lowercase().contains(never), "{never} in {asked}");
        }
        answer(&mut stream, "text/plain; version=0.0.4", b"a 1\n");
    });
    let body = body.expect("a body");
    assert_eq!((text(&body), body.dialect), ("a 1\n", Dialect::Text));
}

#[test]
fn protobuf_is_asked_for_when_native_histograms_are_wanted() {
    let at = serve(|mut stream, _| {
        let asked = request(&mut stream).expect("a request");
        let wanted = "accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                      application/openmetrics-text;version=1.0.0;q=0.8,";
        assert!(asked.contains(wanted), "{asked}");
        let content_type =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        answer(&mut stream, content_type, b"\0");
    });
    let config = Config { native_histograms: true, ..Config::default() };
    let body = block_on(fetcher(&config).scrape(&target(at, AMPLE), &mut Kept::default())).expect("a body");
    assert_eq!(body.dialect, Dialect::Protobuf);
}

#[test]
fn the_content_type_tells_the_language() {
    let of = |content_type: &'static str, bytes: &'static [u8]| {
        let done = scrape_once(AMPLE, move |mut stream, _| {
            request(&mut stream);
            answer(&mut stream, content_type, bytes);
        });
        done.map(|body| body.dialect)
    };
    assert_eq!(
        of("application/openmetrics-text; version=1.0.0; charset=utf-8", b"# EOF\n"),
        Ok(Dialect::OpenMetrics)
    );
    assert_eq!(of("Application/OpenMetrics-Text", b"# EOF\n"), Ok(Dialect::OpenMetrics));
    assert_eq!(of("", b"a 1\n"), Ok(Dialect::Text));
    assert_eq!(of("nonsense", b"a 1\n"), Ok(Dialect::Text));
    assert_eq!(of("text/html; charset=utf-8", b"a 1\n"), Ok(Dialect::Text), "many serve it so");
    let page = of("text/html", b"\n<!DOCTYPE html>").expect_err("a web page");
    assert_eq!(
        page.to_string(),
        "the target does not answer in a metrics format: it is a web page, as \"text/html\"; check prometheus.io/path and port"
    );
    assert!(
        matches!(of("text/plain; version=0.0.4", b"<html>"), Err(Failure::ContentType(_))),
        "whatever it says"
    );
    assert!(matches!(of("application/json", b"{\"ok\":true}"), Err(Failure::ContentType(_))));
    assert_eq!(of("text/plain", b"{\"quoted.name\"} 1\n"), Ok(Dialect::Text));
}

#[test]
fn a_compressed_body_comes_decompressed() {
    let body = scrape_once(AMPLE, |mut stream, _| {
        request(&mut stream);
        let bytes = gzip(&b"a 1\n".repeat(100_000));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&bytes);
    });
    assert_eq!(body.expect("a body").bytes, b"a 1\n".repeat(100_000));
}

#[test]
fn a_damaged_or_cut_or_foreign_compression_is_no_body() {
    let of = |encoding: &'static str, bytes: Vec<u8>| {
        let done = scrape_once(AMPLE, move |mut stream, _| {
            request(&mut stream);
            let length = bytes.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {length}\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&bytes);
        });
        done.expect_err("no body")
    };
    let good = gzip(&b"a 1\n".repeat(1000));
    let mut wrong_sum = good.clone();
    let sum = wrong_sum.len() - 6;
    wrong_sum[sum] ^= 1;
    let bad = [
        ("gzip", good[..good.len() - 9].to_vec()),
        ("gzip", good[..good.len() / 2].to_vec()),
        ("gzip", wrong_sum),
        ("gzip", [&good[..], b"garbage"].concat()),
        ("gzip", b"a 1\n".to_vec()),
        ("br", b"a 1\n".to_vec()),
    ];
    for (encoding, bytes) in bad {
        let failure = of(encoding, bytes.clone());
        assert!(
            matches!(failure, Failure::Body(_)),
            "{encoding} {:?}: {failure}",
            &bytes[bytes.len().min(4)..]
        );
    }
}

#[test]
fn every_way_to_hang_ends_in_time() {
    let begin = Instant::now();
    let no_headers = scrape_once(BRIEF, |mut stream, _| {
        request(&mut stream);
        std::thread::sleep(AMPLE);
    });
    let half_a_header = scrape_once(BRIEF, |mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-ty");
        std::thread::sleep(AMPLE);
    });
    let a_byte_now_and_then = scrape_once(BRIEF, |mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        for _ in 0..200 {
            if stream.write_all(b"a").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let stuck_after_half = scrape_once(BRIEF, |mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\na 1\n\r\n");
        std::thread::sleep(AMPLE);
    });
    for result in [no_headers, half_a_header, a_byte_now_and_then, stuck_after_half] {
        assert_eq!(result.err(), Some(Failure::Timeout(BRIEF)));
    }
    assert!(begin.elapsed() < AMPLE, "{:?}", begin.elapsed());
}

#[test]
fn a_target_that_does_not_even_connect_ends_in_time() {
    block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let listener = socket.listen(1).expect("a listener");
        let at = listener.local_addr().expect("an address");
        // Nobody accepts: the queue is full after a few.
        let mut waiting = Vec::new();
        for _ in 0..8 {
            match tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(at)).await {
                Ok(connected) => waiting.push(connected),
                Err(_) => break,
            }
        }
        let result = fetcher(&Config::default()).scrape(&target(at, BRIEF), &mut Kept::default()).await;
        assert_eq!(result.err(), Some(Failure::Timeout(BRIEF)));
    });
}

#[test]
fn the_interval_bounds_a_scrape_too() {
    let at = serve(|mut stream, _| {
        request(&mut stream);
        std::thread::sleep(AMPLE);
    });
    let target = Target { interval: BRIEF, ..target(at, AMPLE) };
    let result = block_on(fetcher(&Config::default()).scrape(&target, &mut Kept::default()));
    assert_eq!(result.err(), Some(Failure::Timeout(BRIEF)));
}

#[test]
fn nobody_there_is_no_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = listener.local_addr().expect("an address");
    drop(listener);
    let result = block_on(fetcher(&Config::default()).scrape(&target(at, AMPLE), &mut Kept::default()));
    assert!(matches!(result, Err(Failure::Connect(_))), "{result:?}");
}

#[test]
fn an_endless_body_is_given_up_at_the_limit() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let at = serve(move |mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let piece = b"a 1\n".repeat(4096);
        for _ in 0..100_000 {
            if stream.write_all(&piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let config = Config { body_limit: ByteSize::mib(1), ..Config::default() };
    let result = block_on(fetcher(&config).scrape(&target(at, AMPLE), &mut Kept::default()));
    assert_eq!(result.err(), Some(Failure::TooLarge(1 << 20)));
    // What the kernel's buffers hold beyond.
    assert!(sent.load(Ordering::Relaxed) < 64 << 20);
}

#[test]
fn a_body_at_the_limit_is_taken_and_a_promise_above_it_is_not_waited_for() {
    let config = Config { body_limit: ByteSize::mib(1), ..Config::default() };
    let of = |length: usize, is_sent: bool| {
        let at = serve(move |mut stream, _| {
            request(&mut stream);
            let _ =
                stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes());
            if is_sent {
                let _ = stream.write_all(&vec![b'\n'; length]);
            }
            request(&mut stream);
        });
        block_on(fetcher(&config).scrape(&target(at, AMPLE), &mut Kept::default()))
            .map(|body| body.bytes.len())
    };
    assert_eq!(of(1 << 20, true), Ok(1 << 20));
    assert_eq!(of((1 << 20) + 1, false), Err(Failure::TooLarge(1 << 20)));
}

#[test]
fn a_status_is_told_and_a_redirect_goes_nowhere() {
    let elsewhere = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&elsewhere);
    let trap = serve(move |_, _| seen.store(true, Ordering::Relaxed));
    for status in [301, 302, 307, 404, 500, 204] {
        let result = scrape_once(AMPLE, move |mut stream, _| {
            request(&mut stream);
            let head = format!(
                "HTTP/1.1 {status} X\r\nlocation: http://{trap}/metrics\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes());
        });
        assert_eq!(result.err(), Some(Failure::Status(status)));
    }
    assert!(!elsewhere.load(Ordering::Relaxed), "nobody was sent elsewhere");
}

#[test]
fn a_body_that_breaks_off_is_no_body() {
    for head in ["transfer-encoding: chunked\r\n\r\n400\r\na 1\n", "content-length: 100\r\n\r\na 1\n"] {
        let result = scrape_once(AMPLE, move |mut stream, _| {
            request(&mut stream);
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes());
        });
        assert!(matches!(result, Err(Failure::Body(_))), "{result:?}");
    }
    let nothing = scrape_once(AMPLE, |mut stream, _| {
        request(&mut stream);
    });
    assert_eq!(nothing.err(), Some(Failure::Body("the connection was closed before an answer".to_owned())));
}

#[test]
fn what_is_no_http_is_said_to_be_none() {
    for said in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "\0\0\0\0\0\0\0\0\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
        let result = scrape_once(AMPLE, move |mut stream, _| {
            request(&mut stream);
            let _ = stream.write_all(said.as_bytes());
            request(&mut stream);
        });
        assert!(matches!(result, Err(Failure::Body(_))), "{said:?}: {result:?}");
    }
}

#[test]
fn headers_without_end_are_given_up() {
    let result = scrape_once(AMPLE, |mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        let line = format!("x-a: {}\r\n", "b".repeat(1000));
        for _ in 0..100_000 {
            if stream.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    assert!(matches!(result, Err(Failure::Body(_))), "{result:?}");
}

#[test]
fn an_old_server_is_read_until_it_closes() {
    let body = scrape_once(AMPLE, |mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\na 1\nb 2\n");
    });
    assert_eq!(text(&body.expect("a body")), "a 1\nb 2\n");
}

/// Scrapes one server several times with what the scrape before has left; what came, and how many connections it took.
fn scrape_again(
    times: usize,
    treat: impl Fn(TcpStream, usize) + Send + Sync + 'static,
) -> (Vec<String>, usize) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let at = serve(move |stream, n| {
        count.fetch_add(1, Ordering::Relaxed);
        treat(stream, n);
    });
    let fetcher = fetcher(&Config::default());
    let bodies = block_on(async {
        let mut kept = Kept::default();
        let mut bodies = Vec::new();
        for _ in 0..times {
            let body = fetcher.scrape(&target(at, AMPLE), &mut kept).await.expect("a body");
            bodies.push(text(&body).to_owned());
            // Time for the other side to close.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bodies
    });
    (bodies, connections.load(Ordering::Relaxed))
}

#[test]
fn a_connection_is_used_again() {
    let (bodies, connections) = scrape_again(5, |mut stream, _| {
        let mut n = 0;
        while request(&mut stream).is_some() {
            n += 1;
            answer(&mut stream, "text/plain", format!("a {n}\n").as_bytes());
        }
    });
    assert_eq!(bodies, ["a 1\n", "a 2\n", "a 3\n", "a 4\n", "a 5\n"]);
    assert_eq!(connections, 1);
}

#[test]
fn a_server_that_closes_idle_connections_is_no_failure() {
    let (bodies, connections) = scrape_again(3, |mut stream, n| {
        request(&mut stream);
        answer(&mut stream, "text/plain", format!("a {n}\n").as_bytes());
    });
    assert_eq!((bodies.len(), connections), (3, 3));
}

#[test]
fn a_server_that_closes_when_it_is_asked_again_is_asked_once_more() {
    let (bodies, connections) = scrape_again(2, |mut stream, n| {
        request(&mut stream);
        answer(&mut stream, "text/plain", format!("a {n}\n").as_bytes());
        // It takes the second request, and closes.
        request(&mut stream);
    });
    assert_eq!((bodies, connections), (vec!["a 0\n".to_owned(), "a 1\n".to_owned()], 2));
}

#[test]
fn garbage_after_a_body_costs_the_connection_and_nothing_else() {
    let (bodies, connections) = scrape_again(2, |mut stream, _| {
        while request(&mut stream).is_some() {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na 1\nHTTP/1.1 200 OK\r\nevil: yes\r\n\r\n",
            );
        }
    });
    assert_eq!((bodies, connections), (vec!["a 1\n".to_owned(); 2], 2));
}

#[test]
fn a_pod_is_dialled_by_its_address_whatever_the_host_says() {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let trap = serve(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    // An address of TEST-NET-1, where nobody is.
    let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let (mut writer, pods) = directory();
    writer.enter(Pod { uid: "a".to_owned(), ip: Some(ip), running: true, ..Pod::default() });
    let fetcher = Fetcher::new(&Config::default(), Guard::default(), pods, Buffers::default());
    let of = |ip| Target {
        pod: Some(PodAddress { uid: "a".to_owned(), ip }),
        ..target(trap, Duration::from_millis(100))
    };
    let result = block_on(fetcher.scrape(&of(ip), &mut Kept::default()));
    assert!(
        matches!(result, Err(Failure::Timeout(_) | Failure::Connect(_) | Failure::Status(_))),
        "{result:?}"
    );
    let result = block_on(fetcher.scrape(&of(trap.ip()), &mut Kept::default()));
    assert_eq!(result.err(), Some(Failure::Moved), "the API gives another address");
    assert_eq!(reached.load(Ordering::Relaxed), 0);
}

#[test]
fn large_bodies_together_hold_no_more_than_allowed() {
    const MIB: usize = 1 << 20;
    let at = serve(|mut stream, _| {
        request(&mut stream);
        let _ =
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 8 * MIB).as_bytes());
        let _ = stream.write_all(&vec![b'\n'; 6 * MIB]);
        std::thread::sleep(Duration::from_secs(2));
        let _ = stream.write_all(&vec![b'\n'; 2 * MIB]);
        request(&mut stream);
    });
    let small = serve(|mut stream, _| {
        request(&mut stream);
        std::thread::sleep(Duration::from_secs(1));
        answer(&mut stream, "text/plain", &vec![b'\n'; MIB]);
    });
    let config = Config { memory: ByteSize::mib(10), body_limit: ByteSize::mib(9), ..Config::default() };
    let fetcher = fetcher(&config);
    let scrape = async |at| fetcher.scrape(&target(at, AMPLE), &mut Kept::default()).await;
    let (a, b, c) = block_on(async { tokio::join!(scrape(at), scrape(at), scrape(small)) });
    let failed = [&a, &b].iter().filter(|result| matches!(result, Err(Failure::Memory))).count();
    assert!(failed >= 1, "{:?} {:?}", a.err(), b.err());
    assert_eq!(c.map(|body| body.bytes.len()), Ok(MIB), "a small one is not given up for others' sake");
    let alone = block_on(scrape(at)).map(|body| body.bytes.len());
    assert_eq!(alone, Ok(8 * MIB), "what was given up is held no more");
}

#[test]
fn a_static_targets_certificate_is_verified_unless_that_is_switched_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let (at, authority) = server::serve_tls(b"a 1\n");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority).expect("written");
    let of = |tls: Tls| {
        let config = Config { tls, ..Config::default() };
        let target = Target { scheme: Scheme::Https, ..target(at, AMPLE) };
        let fetcher = fetcher(&config);
        block_on(async {
            let mut kept = Kept::default();
            fetcher.scrape(&target, &mut kept).await?;
            fetcher.scrape(&target, &mut kept).await.map(|body| text(&body).to_owned())
        })
    };
    let unknown = of(Tls::default()).expect_err("nobody knows the authority");
    assert!(matches!(unknown, Failure::Connect(_)), "{unknown}");
    assert_eq!(of(Tls { ca_file: Some(ca_file), ..Tls::default() }), Ok("a 1\n".to_owned()));
    assert_eq!(of(Tls { insecure_skip_verify: true, ..Tls::default() }), Ok("a 1\n".to_owned()));
    let missing = of(Tls { ca_file: Some("/nowhere/ca.pem".into()), ..Tls::default() }).expect_err("no file");
    let said = missing.to_string();
    assert!(
        said.starts_with("cannot connect: [scrape.tls] ca_file /nowhere/ca.pem cannot be used: "),
        "{said}"
    );
}

const CHILD: &str = "NODEWICK_TEST_BOMB";

/// What the process has held at most, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// The other half of the next test, in a process of its own so that nobody else's memory counts.
#[test]
fn a_bomb_is_defused() {
    let Ok(at) = std::env::var(CHILD) else { return };
    let at: SocketAddr = at.parse().expect("an address");
    block_on(async {
        let fetcher = fetcher(&Config::default());
        let nobody = target("127.0.0.1:1".parse().expect("an address"), AMPLE);
        let _ = fetcher.scrape(&nobody, &mut Kept::default()).await;
        let before = peak();
        for _ in 0..5 {
            let begin = Instant::now();
            let result = fetcher.scrape(&target(at, AMPLE), &mut Kept::default()).await;
            assert_eq!(result.err(), Some(Failure::TooLarge(16 << 20)));
            assert!(begin.elapsed() < AMPLE, "{:?}", begin.elapsed());
        }
        let grown = peak() - before;
        assert!(grown < 20 << 10, "{grown} KiB");
        assert!(grown > 10 << 10, "{grown} KiB: it was never near the limit, so nothing was shown");
    });
}

#[test]
fn ten_gigabytes_in_ten_megabytes_are_given_up_at_the_limit() {
    let at = serve(|mut stream, _| {
        request(&mut stream);
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: gzip\r\n\r\n");
        // A block that ends at a byte and refers to nothing before: 1 MiB of blanks, 10,000 times.
        let block = server::block(&vec![b' '; 1 << 20]);
        let _ = stream.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        for _ in 0..10_000 {
            if stream.write_all(&block).is_err() {
                return;
            }
        }
    });
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_bomb_is_defused"])
        .env(CHILD, at.to_string())
        .output()
        .expect("a process");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

/// Runs targets for a while; what was told.
fn run_for(targets: Vec<Target>, how_long: Duration, config: &Config) -> Vec<(Fetched, SystemTime)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let all: pace::Targets = targets.into_iter().map(Arc::new).collect();
    let (_keep, targets) = watch::channel(all);
    let (sender, mut events) = mpsc::channel(pace::EVENTS);
    let (stop, fetcher) = (CancellationToken::new(), fetcher(config));
    let running = runtime.spawn(pace::run(fetcher, targets, sender, |_| {}, stop.clone()));
    let seen = runtime.block_on(async {
        let end = tokio::time::Instant::now() + how_long;
        let mut seen = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout_at(end, events.recv()).await {
            match event {
                Event::Fetched(fetched) => seen.push((fetched, SystemTime::now())),
                Event::Removed { .. } => panic!("nothing was removed"),
            }
        }
        stop.cancel();
        seen
    });
    runtime.block_on(running).expect("it ends");
    seen
}

#[test]
fn one_that_hangs_delays_no_other() {
    let good = serve(|mut stream, _| {
        while request(&mut stream).is_some() {
            answer(&mut stream, "text/plain", b"a 1\n");
        }
    });
    let hangs = serve(|mut stream, _| {
        request(&mut stream);
        std::thread::sleep(AMPLE);
    });
    let of = |at: SocketAddr, n: usize, interval: u64| {
        let labels = vec![("instance".to_owned(), n.to_string())];
        let interval = Duration::from_millis(interval);
        let origin = Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() });
        Target { origin, interval, timeout: interval, ..target(at, interval) }
    };
    let mut targets: Vec<Target> = (0..20).map(|n| of(good, n, 500)).collect();
    targets.extend((20..25).map(|n| of(hangs, n, 1500)));
    let seen = run_for(targets, Duration::from_secs(6), &Config::default());
    let mut late = Vec::new();
    let mut hung = 0;
    for (fetched, at) in &seen {
        if fetched.target.port == hangs.port() {
            assert_eq!(fetched.body.as_ref().err(), Some(&Failure::Timeout(Duration::from_millis(1500))));
            hung += 1;
            continue;
        }
        assert!(fetched.body.is_ok(), "{:?}", fetched.body);
        let tick = SystemTime::UNIX_EPOCH + Duration::from_millis(fetched.time_unix_ms as u64);
        // Late by the time of its samples and by the time of its arrival.
        late.push(at.duration_since(tick).unwrap_or_default());
    }
    late.sort_unstable();
    assert!(late.len() > 100 && hung >= 5, "{} {hung}", late.len());
    assert!(late[late.len() / 2] < Duration::from_millis(100), "{:?}", late[late.len() / 2]);
    // With one after the other it would be at least the 1.5 s that each of the five takes.
    assert!(late[late.len() - 1] < Duration::from_millis(1500), "{:?}", late[late.len() - 1]);
}

#[test]
fn when_nobody_takes_over_scraping_waits_and_holds_little() {
    let scrapes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&scrapes);
    let at = serve(move |mut stream, _| {
        while request(&mut stream).is_some() {
            count.fetch_add(1, Ordering::Relaxed);
            answer(&mut stream, "text/plain", b"a 1\n");
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let interval = Duration::from_millis(100);
    let all: pace::Targets = (0..5)
        .map(|n| {
            let labels = vec![("instance".to_owned(), n.to_string())];
            let origin = Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() });
            Arc::new(Target { origin, interval, ..target(at, interval) })
        })
        .collect();
    let (_keep, targets) = watch::channel(all);
    let (sender, mut events) = mpsc::channel(2);
    let stop = CancellationToken::new();
    runtime.spawn(pace::run(fetcher(&Config::default()), targets, sender, |_| {}, stop.clone()));
    std::thread::sleep(Duration::from_secs(3));
    // Two in the channel, and at most one of each target beside.
    let before = scrapes.load(Ordering::Relaxed);
    assert!((1..=12).contains(&before), "{before}");
    runtime.block_on(async {
        for _ in 0..30 {
            let event = tokio::time::timeout(AMPLE, events.recv()).await.expect("in time");
            assert!(matches!(event, Some(Event::Fetched(_))));
        }
    });
    assert!(scrapes.load(Ordering::Relaxed) > before);
    stop.cancel();
}

#[test]
fn a_target_that_goes_is_told_once_and_the_end_of_the_agent_is_not() {
    let at = serve(|mut stream, _| {
        while request(&mut stream).is_some() {
            answer(&mut stream, "text/plain", b"a 1\n");
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let interval = Duration::from_millis(200);
    let one = Arc::new(Target { interval, ..target(at, interval) });
    let (change, targets) = watch::channel::<pace::Targets>(vec![one].into());
    let (sender, mut events) = mpsc::channel(pace::EVENTS);
    let stop = CancellationToken::new();
    let running =
        runtime.spawn(pace::run(fetcher(&Config::default()), targets, sender, |_| {}, stop.clone()));
    runtime.block_on(async {
        let mut last = 0;
        for _ in 0..3 {
            let Some(Event::Fetched(fetched)) = events.recv().await else { panic!("a scrape") };
            assert!(fetched.time_unix_ms > last);
            last = fetched.time_unix_ms;
        }
        change.send_replace(Vec::new().into());
        loop {
            match tokio::time::timeout(AMPLE, events.recv()).await.expect("in time") {
                Some(Event::Fetched(fetched)) => last = fetched.time_unix_ms,
                Some(Event::Removed { time_unix_ms, .. }) => {
                    assert!(time_unix_ms > last && time_unix_ms <= last + 400, "{time_unix_ms} after {last}");
                    break;
                }
                None => panic!("it runs"),
            }
        }
        stop.cancel();
        assert!(events.recv().await.is_none());
        running.await.expect("it ends");
    });
}

#[test]
fn pods_that_change_are_seen_within_a_second() {
    let (mut writer, pods) = directory();
    let find = |pods: &[Arc<Pod>]| {
        let ip = |pod: &Arc<Pod>| SocketAddr::new(pod.ip.expect("an address"), 80);
        pods.iter().map(|pod| Arc::new(target(ip(pod), AMPLE))).collect()
    };
    let (sender, mut targets) = watch::channel::<pace::Targets>(Vec::new().into());
    block_on(async {
        let stop = CancellationToken::new();
        let discovering = pace::discover(pods, find, sender, stop.clone());
        let testing = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let ip = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
            writer.enter(Pod { uid: "a".to_owned(), ip, running: true, ..Pod::default() });
            let begin = Instant::now();
            tokio::time::timeout(AMPLE, targets.changed()).await.expect("in time").expect("a change");
            assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
            assert_eq!(targets.borrow_and_update()[0].host, "192.0.2.7");
            stop.cancel();
        };
        tokio::join!(discovering, testing);
    });
}
