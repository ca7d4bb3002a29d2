//! The outgoing HTTP client against servers that are secured, hidden behind proxies, slow, or hostile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use nodewick::data::units::Span;
use nodewick::sink::Answer;
use nodewick::sink::http::{Client, Config, Secret, Timeouts, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// Serves each connection on a thread; ends with the test's process.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(socket));
        }
    });
    address
}

/// Reads a request head and the body that its `Content-Length` promises.
fn read_request(from: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && from.read(&mut byte).is_ok_and(|n| n == 1) {
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().expect("a number"));
    let mut body = vec![0; length];
    if from.read_exact(&mut body).is_err() {
        return head;
    }
    head + &String::from_utf8_lossy(&body)
}

fn post(client: &Client) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(client.post(HeaderMap::new(), Bytes::from_static(b"log lines")))
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Http { status, .. } => *status,
        other => panic!("{other:?}"),
    }
}

fn error(answer: Answer) -> String {
    match answer {
        Answer::Unreachable { error } => error,
        other => panic!("{other:?}"),
    }
}

fn timeouts(connect: u64, total: u64, idle: u64) -> Timeouts {
    Timeouts { connect: Span::millis(connect), total: Span::millis(total), idle: Span::millis(idle) }
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// PEM of a certificate for `name` and of its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, name: &str, clients: Option<&Self>) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(name);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM"))
                    .expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        Arc::new(builder.with_single_cert(chain, key).expect("a pair"))
    }
}

/// Answers one request over TLS; returns what was sent in it.
fn answer_tls(config: &Arc<ServerConfig>, mut socket: TcpStream) -> String {
    let mut session = ServerConnection::new(Arc::clone(config)).expect("a session");
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let request = read_request(&mut stream);
    let _ = stream.write_all(OK.as_bytes());
    let _ = stream.flush();
    request
}

#[test]
fn a_ca_file_decides_whom_to_trust_and_is_read_again_when_it_changes() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server("127.0.0.1", None);
    let received = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&received);
    let address = serve(move |socket| {
        let request = answer_tls(&server, socket);
        seen.lock().expect("sound").push_str(&request);
    });
    let dir = tempfile::tempdir().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, stranger.pem()).expect("written");
    let config =
        Config { tls: Tls { ca_file: Some(ca_file.clone()), ..Tls::default() }, ..Config::default() };
    let client = Client::new(&format!("https://{address}/push"), &config).expect("valid");
    let refused = error(post(&client));
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    assert_eq!(*received.lock().expect("sound"), "", "not a byte of the logs was sent");
    std::fs::write(&ca_file, authority.pem()).expect("written");
    let begun = Instant::now();
    while matches!(post(&client), Answer::Unreachable { .. }) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the new file is not read");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(received.lock().expect("sound").ends_with("log lines"));
    std::fs::write(&ca_file, "half a certificate").expect("written");
    std::thread::sleep(Duration::from_millis(3200));
    assert_eq!(status(&post(&client)), 204, "the last good file serves");
}

#[test]
fn a_wrong_name_gets_no_logs() {
    let authority = Authority::new();
    let server = authority.server("other.example.com", None);
    let received = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&received);
    let address = serve(move |socket| {
        seen.fetch_add(answer_tls(&server, socket).len(), Ordering::SeqCst);
    });
    let dir = tempfile::tempdir().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).expect("written");
    let config = Config { tls: Tls { ca_file: Some(ca_file), ..Tls::default() }, ..Config::default() };
    let refused = error(post(&Client::new(&format!("https://{address}"), &config).expect("valid")));
    assert!(refused.contains("not valid for name"), "{refused}");
    assert_eq!(received.load(Ordering::SeqCst), 0);
    let careless = Config { tls: Tls { insecure_skip_verify: true, ..Tls::default() }, ..Config::default() };
    assert_eq!(status(&post(&Client::new(&format!("https://{address}"), &careless).expect("valid"))), 204);
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", Some(&authority));
    let address = serve(move |socket| {
        answer_tls(&server, socket);
    });
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        Some(path)
    };
    let ca_file = write("ca.pem", authority.pem());
    let url = format!("https://{address}");
    let bare = Tls { ca_file: ca_file.clone(), ..Tls::default() };
    let config = Config { tls: bare.clone(), ..Config::default() };
    assert!(matches!(post(&Client::new(&url, &config).expect("valid")), Answer::Unreachable { .. }));
    let (certificate, key) = authority.issue("agent");
    let tls = Tls { cert_file: write("cert.pem", certificate), key_file: write("key.pem", key), ..bare };
    let config = Config { tls, ..Config::default() };
    assert_eq!(status(&post(&Client::new(&url, &config).expect("valid"))), 204);
}

#[test]
fn https_goes_through_a_proxys_tunnel() {
    let authority = Authority::new();
    let server = authority.server("logs.example.com", None);
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let proxy = serve(move |mut socket| {
        let head = read_request(&mut socket);
        socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("written");
        let request = answer_tls(&server, socket);
        seen.lock().expect("sound").extend([head, request]);
    });
    let dir = tempfile::tempdir().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).expect("written");
    let config = Config {
        tls: Tls { ca_file: Some(ca_file), ..Tls::default() },
        proxy: Some(Secret::new(format!("http://user:pass@{proxy}"))),
        ..Config::default()
    };
    let client = Client::new("https://logs.example.com/push", &config).expect("valid");
    assert_eq!(status(&post(&client)), 204);
    std::thread::sleep(Duration::from_millis(50));
    let heads = heads.lock().expect("sound");
    assert!(heads[0].starts_with("CONNECT logs.example.com:443 HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{}", heads[0]);
    assert!(heads[1].starts_with("POST /push HTTP/1.1\r\n"), "{}", heads[1]);
    assert!(!heads[1].to_lowercase().contains("proxy-authorization"));
}

#[test]
fn plain_http_is_forwarded_by_a_proxy() {
    let seen = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&seen);
    let proxy = serve(move |mut socket| {
        *heard.lock().expect("sound") = read_request(&mut socket);
        let _ = socket.write_all(OK.as_bytes());
    });
    let config = Config { proxy: Some(Secret::new(format!("http://u:p@{proxy}"))), ..Config::default() };
    let client = Client::new("http://logs.example.com/push", &config).expect("valid");
    assert_eq!(status(&post(&client)), 204);
    let request = seen.lock().expect("sound").clone();
    assert!(request.starts_with("POST http://logs.example.com/push HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("proxy-authorization: Basic dTpw"), "{request}");
}

#[test]
fn a_response_is_read_up_to_its_cap_and_a_redirect_is_an_answer() {
    let address = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 100000000\r\n\r\n",
        );
        let chunk = [b'x'; 65536];
        while socket.write_all(&chunk).is_ok() {}
    });
    let client = Client::new(&format!("http://{address}"), &Config::default()).expect("valid");
    let Answer::Http { status, body, .. } = post(&client) else { panic!("no answer") };
    assert_eq!((status, body.len()), (302, 65_536));
}

#[test]
fn what_drips_stalls_or_floods_ends_in_time() {
    let drip = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while socket.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let stall = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx");
        std::thread::sleep(Duration::from_secs(20));
    });
    let flood = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
        while socket.write_all(b"X-Flood: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {}
    });
    let silent = serve(|_socket| std::thread::sleep(Duration::from_secs(20)));
    for (address, expected) in [
        (drip, "no complete response within 1s"),
        (stall, "response stalled for 300ms"),
        (silent, "no complete response within 1s"),
        (flood, "message head is too large"),
    ] {
        let config = Config { timeouts: timeouts(500, 1000, 300), ..Config::default() };
        let client = Client::new(&format!("http://{address}"), &config).expect("valid");
        let begun = Instant::now();
        let text = error(post(&client));
        assert!(text.contains(expected), "{text} instead of {expected}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn a_tls_handshake_that_hangs_ends_at_the_connect_timeout() {
    let address = serve(|_socket| std::thread::sleep(Duration::from_secs(20)));
    let tls = Tls { insecure_skip_verify: true, ..Tls::default() };
    let config = Config { tls, timeouts: timeouts(300, 5000, 1000), ..Config::default() };
    let text = error(post(&Client::new(&format!("https://{address}"), &config).expect("valid")));
    assert!(text.contains("no connection within 300ms"), "{text}");
}

/// What it says the time is tells how far this machine's clock is off.
#[test]
fn the_date_of_an_answer_becomes_the_clock_skew() {
    use nodewick::metrics::CLOCK_SKEW;
    let address = serve(|mut socket| {
        read_request(&mut socket);
        let hour_ahead = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let date = hour_ahead.strftime("%a, %d %b %Y %H:%M:%S GMT");
        let _ = write!(socket, "HTTP/1.1 204 No Content\r\nDate: {date}\r\n\r\n");
    });
    // Another name than other tests of this process use.
    let url = format!("http://localhost:{}/push", address.port());
    let client = Client::new(&url, &Config::default()).expect("usable");
    assert_eq!(status(&post(&client)), 204);
    let found = CLOCK_SKEW.with_label_values(&["localhost"]).get();
    assert!((-3602..=-3590).contains(&found), "{found}");
}
