//! The machines' listener over a real socket: health, metrics in both text forms, and its limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nodewick::admin::{Admin, BindError};
use nodewick::health::Health;
use tokio_util::sync::CancellationToken;

/// Serves `health` on a free port while `test` talks to it.
fn serving(health: &Health, test: impl FnOnce(SocketAddr) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let health = health.clone();
    runtime.block_on(async move {
        let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
        let address = admin.address();
        let leave = CancellationToken::new();
        let served = tokio::spawn(admin.serve(health, leave.clone()));
        let result = tokio::task::spawn_blocking(move || test(address)).await;
        leave.cancel();
        served.await.expect("no panic").expect("no failure");
        result.expect("the test passes");
    });
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = connect(address);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = request(address, "GET", path, "");
    (status, body)
}

#[test]
fn every_alias_answers_its_probe() {
    let health = Health::new();
    let state = health.check("state_dir");
    state.fail("read-only file system");
    health.check("logs_root").pass();
    let _beat = health.heartbeat("log_thread", Duration::from_secs(60));
    serving(&health, move |address| {
        for path in ["/health/live", "/livez", "/healthz", "/-/healthy"] {
            assert_eq!(get(address, path), (200, "ok".to_owned()), "{path}");
        }
        for path in ["/health/ready", "/readyz", "/-/ready"] {
            assert_eq!(get(address, path).0, 503, "{path}");
        }
        assert_eq!(
            get(address, "/readyz?verbose"),
            (
                503,
                "[+]log_thread ok\n[-]state_dir failed: read-only file system\n[+]logs_root ok\nready check failed\n"
                    .to_owned()
            )
        );
        assert_eq!(
            get(address, "/livez?verbose=1"),
            (200, "[+]log_thread ok\nlive check passed\n".to_owned())
        );
        state.pass();
        assert_eq!(get(address, "/readyz"), (200, "ok".to_owned()));
    });
}

#[test]
fn a_stuck_main_loop_fails_liveness() {
    let health = Health::new();
    let _beat = health.heartbeat("log_thread", Duration::ZERO);
    std::thread::sleep(Duration::from_millis(20));
    serving(&health, |address| {
        let (status, body) = get(address, "/livez");
        assert_eq!(status, 503);
        assert!(body.starts_with("[-]log_thread failed: no sign of life for "), "{body}");
    });
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    serving(&Health::new(), |address| {
        assert_eq!(get(address, "/").0, 404);
        assert_eq!(get(address, "/metrics/../etc").0, 404);
        assert_eq!(request(address, "POST", "/metrics", "Content-Length: 0\r\n").0, 405);
        assert_eq!(request(address, "DELETE", "/health/live", "").0, 405);
        let (status, _, body) = request(address, "HEAD", "/health/live", "");
        assert_eq!((status, body.as_str()), (200, ""));
    });
}

#[test]
fn metrics_are_prometheus_text_by_default() {
    nodewick::metrics::LOG_RECORDS.inc_by(0);
    serving(&Health::new(), |address| {
        let (status, head, body) = request(address, "GET", "/metrics", "");
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(
            body.contains("# TYPE nodewick_log_records_total counter\nnodewick_log_records_total "),
            "{body}"
        );
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_start_time_seconds ",
            "nodewick_build_info{version=\"0.1.0\",",
        ] {
            assert!(body.lines().any(|line| line.starts_with(name)), "{name} is missing: {body}");
        }
        assert!(!body.contains("# EOF"));
    });
}

#[test]
fn metrics_are_openmetrics_where_asked_for() {
    nodewick::metrics::SINK_REQUEST_SECONDS.with_label_values(&["loki"]).observe(0.2);
    serving(&Health::new(), |address| {
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";
        let (status, head, body) = request(address, "GET", "/metrics", accept);
        assert_eq!(status, 200);
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
            "{head}"
        );
        assert!(body.ends_with("\n# EOF\n") && body.matches("# EOF").count() == 1);
        assert!(body.contains("# TYPE nodewick_log_records counter\n"), "{body}");
        assert!(body.lines().any(|line| line.starts_with("nodewick_log_records_total ")), "{body}");
        // Every sample belongs to the family declared last, families do not repeat, and no line is empty.
        let (mut family, mut kind, mut seen) = (String::new(), String::new(), Vec::new());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').expect("name and type");
                assert!(!seen.contains(&name.to_owned()), "{name} is declared twice");
                assert!(of != "counter" || !name.ends_with("_total"), "{line}");
                (family, kind) = (name.to_owned(), of.to_owned());
                seen.push(family.clone());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().expect("a name");
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_count", "_sum"],
                    _ => &[""],
                };
                let suffix = name.strip_prefix(family.as_str()).expect("a sample of its family");
                assert!(suffixes.contains(&suffix), "{line}");
                line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
            } else {
                assert!(line.starts_with("# HELP ") || line == "# EOF", "{line}");
            }
        }
    });
}

#[test]
fn a_client_that_never_finishes_its_head_is_cut_off() {
    serving(&Health::new(), |address| {
        let begin = Instant::now();
        let mut slow = connect(address);
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("sent");
        let mut answer = Vec::new();
        // Either a 408 or a bare close; what counts is that it ends.
        let _ = slow.read_to_end(&mut answer);
        assert!(begin.elapsed() < Duration::from_secs(12), "still open after {:?}", begin.elapsed());
        assert_eq!(get(address, "/livez").0, 200);
    });
}

#[test]
fn idle_connections_do_not_lock_out_probes_for_ever() {
    serving(&Health::new(), |address| {
        let idle: Vec<TcpStream> = (0..80).map(|_| connect(address)).collect();
        assert_eq!(get(address, "/livez").0, 200, "answered once the idle ones are cut off");
        drop(idle);
    });
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    serving(&Health::new(), |address| {
        let mut stream = connect(address);
        // The server may close before it has read all of it.
        let _ = stream
            .write_all(format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(64 << 10)).as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    });
}

#[test]
fn a_port_in_use_names_the_address_and_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(Admin::bind(address)).expect_err("in use");
    assert!(matches!(error, BindError::InUse(at) if at == address));
    assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("[admin] listen"));
}
