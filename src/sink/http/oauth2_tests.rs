//! Facts about access tokens, against a token endpoint and a backend in this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// Answers every request with what `respond` makes of its number, from 0, and its text.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(respond: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (seen, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (requests, ended, respond) = (Arc::clone(&seen), Arc::clone(&stop), Arc::new(respond));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let (requests, respond) = (Arc::clone(&requests), Arc::clone(&respond));
                std::thread::spawn(move || {
                    let Ok(mut stream) = stream else { return };
                    while let Some(request) = read_request(&mut stream) {
                        let number = {
                            let mut requests = requests.lock();
                            requests.push(request.clone());
                            requests.len() - 1
                        };
                        if stream.write_all(respond(number, &request).as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen, stop }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn count(&self) -> usize {
        self.seen.lock().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener, which ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// One request with its body, if it has one of a stated length.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(|n| n.trim().parse::<usize>().expect("a length"))
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

fn reply(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn grant(number: usize, expires_in: &str) -> String {
    reply("200 OK", &format!("{{\"access_token\":\"token-{number}\",\"token_type\":\"Bearer\"{expires_in}}}"))
}

fn settings(token_url: String) -> OAuth2 {
    OAuth2 {
        token_url,
        client_id: "agent one".to_owned(),
        client_secret: Some(Secret::new("canary:+/".to_owned())),
        ..OAuth2::default()
    }
}

fn client(url: &str, oauth2: OAuth2) -> Client {
    let auth = super::super::Auth { oauth2: Some(oauth2), ..super::super::Auth::default() };
    let timeouts = Timeouts { total: Span::secs(2), ..Timeouts::default() };
    Client::new(url, &Config { auth, timeouts, ..Config::default() }).expect("valid")
}

/// A backend that takes everything.
fn backend() -> Server {
    Server::start(|_, _| reply("200 OK", ""))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

async fn post(client: &Client) -> Answer {
    client.post(HeaderMap::new(), Bytes::from_static(b"lines")).await
}

fn status(answer: &Answer) -> u16 {
    match answer {
        Answer::Http { status, .. } => *status,
        other => panic!("{other:?}"),
    }
}

fn why(answer: &Answer) -> &str {
    match answer {
        Answer::Unreachable { error } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_request_is_the_standards_and_one_token_serves_many_requests_at_once() {
    let tokens = Server::start(|number, _| {
        std::thread::sleep(Duration::from_millis(100));
        grant(number, ",\"expires_in\":3600")
    });
    let backend = backend();
    let mut oauth2 = settings(tokens.url("/token"));
    oauth2.scopes = vec!["logs.write".into(), "a&b".into()];
    oauth2.audience = Some("https://logs".into());
    oauth2.endpoint_params = [("resource".to_owned(), Secret::new("x y".into()))].into();
    let client = client(&backend.url("/push"), oauth2);
    assert_eq!(tokens.count(), 0, "nothing is asked for before it is needed");
    run(async {
        let answers = tokio::join!(post(&client), post(&client), post(&client), post(&client));
        assert_eq!([&answers.0, &answers.1, &answers.2, &answers.3].map(status), [200; 4]);
    });
    let asked = tokens.seen.lock().clone();
    assert_eq!(asked.len(), 1, "one at a time, and the others wait for it");
    assert!(asked[0].starts_with("POST /token HTTP/1.1\r\n"), "{}", asked[0]);
    let lower = asked[0].to_ascii_lowercase();
    assert!(lower.contains("content-type: application/x-www-form-urlencoded\r\n"), "{lower}");
    // "agent+one:canary%3A%2B%2F", by RFC 6749, section 2.3.1.
    assert!(asked[0].contains("Basic YWdlbnQrb25lOmNhbmFyeSUzQSUyQiUyRg==\r\n"), "{}", asked[0]);
    let body = asked[0].split_once("\r\n\r\n").expect("a body").1;
    assert_eq!(
        body,
        "grant_type=client_credentials&scope=logs.write+a%26b&audience=https%3A%2F%2Flogs&resource=x+y"
    );
    for request in backend.seen.lock().iter() {
        assert!(request.contains("Bearer token-0\r\n"), "{request}");
    }
    assert_eq!(backend.count(), 4);
}

#[test]
fn an_expired_token_is_replaced_before_it_is_used() {
    let tokens = Server::start(|number, _| grant(number, ",\"expires_in\":\"1\""));
    let backend = backend();
    let client = client(&backend.url("/"), settings(tokens.url("/")));
    run(async {
        assert_eq!(status(&post(&client).await), 200);
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(status(&post(&client).await), 200);
    });
    assert_eq!(tokens.count(), 2, "renewed at four fifths of its life");
    let requests = backend.seen.lock();
    assert!(requests[0].contains("Bearer token-0\r\n") && requests[1].contains("Bearer token-1\r\n"));
}

#[test]
fn a_refused_token_is_replaced_once_and_not_for_every_refusal() {
    let tokens = Server::start(|number, _| grant(number, ",\"expires_in\":3600"));
    let backend = Server::start(|_, request| {
        reply(if request.contains("token-1") { "200 OK" } else { "401 Unauthorized" }, "")
    });
    let client = client(&backend.url("/"), settings(tokens.url("/")));
    run(async {
        assert_eq!(status(&post(&client).await), 401);
        assert_eq!(status(&post(&client).await), 200);
        assert_eq!(tokens.count(), 2);
        // It was accepted, so that a refusal means that it was withdrawn.
        client.distrust_credentials();
        assert_eq!(status(&post(&client).await), 401);
        for _ in 0..5 {
            assert_eq!(status(&post(&client).await), 401);
        }
    });
    assert_eq!(tokens.count(), 3, "a fresh token that is refused is no reason to ask for another at once");
}

#[test]
fn a_token_that_holds_serves_while_renewing_fails() {
    let tokens = Server::start(|number, _| match number {
        0 => grant(0, ",\"expires_in\":3"),
        _ => reply("503 Service Unavailable", "canary"),
    });
    let backend = backend();
    let client = client(&backend.url("/"), settings(tokens.url("/")));
    run(async {
        assert_eq!(status(&post(&client).await), 200);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(status(&post(&client).await), 200);
        assert_eq!(tokens.count(), 2);
        assert_eq!(status(&post(&client).await), 200);
        assert_eq!(tokens.count(), 2, "the endpoint rests after a failure");
        tokio::time::sleep(Duration::from_millis(700)).await;
        let answer = post(&client).await;
        assert_eq!(why(&answer), format!("no access token from http://{}/: status 503", tokens.address));
    });
}

#[test]
fn what_is_no_token_is_an_error_that_shows_nothing_of_it() {
    for (answer, said) in [
        (reply("200 OK", "canary"), "its answer is not a JSON object with a token"),
        (reply("200 OK", "{\"access_token\":7}"), "its answer is not a JSON object with a token"),
        (reply("200 OK", "{\"token\":\"canary\"}"), "its answer has no access_token"),
        (
            reply("200 OK", "{\"access_token\":\"\"}"),
            "its access_token is empty or has bytes that no header can carry",
        ),
        (
            reply("200 OK", "{\"access_token\":\"canary\\r\\nX: y\"}"),
            "its access_token is empty or has bytes that no header can carry",
        ),
        (
            reply("200 OK", "{\"access_token\":\"canary\",\"token_type\":\"mac\"}"),
            "its token is not a bearer token",
        ),
        (
            reply("401 Unauthorized", "{\"error\":\"invalid_client\",\"error_description\":\"canary\"}"),
            "status 401, invalid_client",
        ),
        (reply("400 Bad Request", "{\"error\":\"canary\"}"), "status 400"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/canary\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            "it redirects, which is not followed; give the URL that it leads to",
        ),
    ] {
        let tokens = Server::start(move |_, _| answer.clone());
        let backend = backend();
        let client = client(&backend.url("/"), settings(tokens.url("/t?key=canary")));
        let answer = run(post(&client));
        assert_eq!(why(&answer), format!("no access token from http://{}/t: {said}", tokens.address));
        assert_eq!(backend.count(), 0, "nothing is sent without a token");
        assert!(!format!("{client:?}").contains("canary:"), "{client:?}");
    }
}

#[test]
fn an_endpoint_that_wants_the_secret_in_the_body_gets_it_there() {
    let tokens = Server::start(|number, request| {
        if request.contains("client_id=agent+one&client_secret=canary%3A%2B%2F") {
            grant(number, "")
        } else {
            reply("400 Bad Request", "{\"error\":\"invalid_request\"}")
        }
    });
    let backend = backend();
    let client = client(&backend.url("/"), settings(tokens.url("/")));
    run(async {
        assert_eq!(status(&post(&client).await), 200);
        client.distrust_credentials();
        assert_eq!(status(&post(&client).await), 200);
    });
    assert_eq!(tokens.count(), 3, "what worked is remembered");
    assert!(!tokens.seen.lock()[2].to_ascii_lowercase().contains("authorization:"));
}

#[test]
fn an_endpoint_that_hangs_is_given_up_and_left_alone() {
    let tokens = Server::start(|_, _| {
        std::thread::sleep(Duration::from_secs(4));
        String::new()
    });
    let backend = backend();
    let client = client(&backend.url("/"), settings(tokens.url("/")));
    let begun = Instant::now();
    run(async {
        let answer = post(&client).await;
        assert!(why(&answer).ends_with("no complete response within 1s"), "{answer:?}");
        // Within the first pause.
        let answer = post(&client).await;
        assert!(why(&answer).starts_with("no access token from "), "{answer:?}");
    });
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(tokens.count(), 1);
}

#[test]
fn a_secret_file_is_read_for_each_token() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("secret");
    let tokens = Server::start(|number, request| {
        // "agent+one:two"
        let good = request.contains("YWdlbnQrb25lOnR3bw==");
        if good { grant(number, "") } else { reply("401 Unauthorized", "") }
    });
    let backend = backend();
    let oauth2 =
        OAuth2 { client_secret: None, client_secret_file: Some(path.clone()), ..settings(tokens.url("/")) };
    let client = client(&backend.url("/"), oauth2);
    run(async {
        let missing = post(&client).await;
        assert!(why(&missing).contains("auth.oauth2.client_secret_file"), "{missing:?}");
        std::fs::write(&path, "two\n").expect("written");
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(status(&post(&client).await), 200);
    });
}

#[test]
fn settings_that_would_show_a_secret_or_contradict_each_other_are_refused() {
    let refused = |change: &dyn Fn(&mut OAuth2)| {
        let mut oauth2 = settings("https://id.example.com/token".to_owned());
        change(&mut oauth2);
        Grant::new(&oauth2, &Config::default()).expect_err("refused").to_string()
    };
    assert_eq!(
        refused(&|o| o.token_url = "http://id.example.com/token".into()),
        "credentials for http://id.example.com/token would travel in clear text; use https, or remove them"
    );
    assert_eq!(refused(&|o| o.token_url = String::new()), "auth: oauth2 needs token_url");
    assert_eq!(refused(&|o| o.client_id = String::new()), "auth: oauth2 needs client_id");
    assert_eq!(
        refused(&|o| o.client_secret = None),
        "auth: oauth2 needs client_secret or client_secret_file"
    );
    assert_eq!(
        refused(&|o| o.client_secret_file = Some("/x".into())),
        "auth: oauth2.client_secret and oauth2.client_secret_file exclude each other"
    );
    assert_eq!(
        refused(&|o| o.token_url = "https://u:canary@id.example.com".into()),
        "auth: oauth2.token_url holds a password; use client_id and client_secret"
    );
    let repeated = |o: &mut OAuth2| {
        o.endpoint_params.insert("grant_type".into(), Secret::new("password".into()));
    };
    assert_eq!(refused(&repeated), "auth: oauth2.endpoint_params repeats what has a key of its own");
    let skip: Config = toml::from_str("tls.insecure_skip_verify = true").expect("valid");
    let auth = super::super::Auth {
        oauth2: Some(settings("https://id.example.com".into())),
        ..super::super::Auth::default()
    };
    assert!(matches!(
        Client::new("https://x.example.com", &Config { auth: auth.clone(), ..skip }),
        Err(Error::Unverified { .. })
    ));
    assert!(matches!(
        Client::new("http://x.example.com", &Config { auth, ..Config::default() }),
        Err(Error::ClearText { .. })
    ));
}

#[test]
fn failures_are_asked_about_ever_more_seldom() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let tokens = Server::start(move |_, _| {
        seen.fetch_add(1, Ordering::Relaxed);
        reply("500 Internal Server Error", "")
    });
    let backend = backend();
    let client = client(&backend.url("/"), settings(tokens.url("/")));
    run(async {
        for _ in 0..30 {
            assert!(matches!(post(&client).await, Answer::Unreachable { .. }));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // 1.5 s: at 0, at 0.25 to 0.5, half to one second later, and the next only after another second at least.
    assert!((2..=4).contains(&count.load(Ordering::Relaxed)), "{count:?}");
}
