//! Secrets stay inside: every kind of them in the config of the real agent, against backends that refuse and repeat
//! what they were sent, with all of its own logging on. Then every output is searched. And its listener, abused.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

#[path = "support/mod.rs"]
mod support;

use support::agent::{Agent, Settings};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_loki::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers everything with 401 and the request itself, as a gateway in debug mode does.
struct Echo {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&requests);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                    let mut request = Vec::new();
                    let mut chunk = [0; 16 << 10];
                    while let Ok(read @ 1..) = stream.read(&mut chunk) {
                        request.extend_from_slice(&chunk[..read]);
                    }
                    count.fetch_add(1, Ordering::Release);
                    let head = String::from_utf8_lossy(&request);
                    // The headers first, so that what is logged of the answer holds them.
                    let mut words: Vec<&str> = head.lines().filter(|line| line.contains(':')).collect();
                    words.sort_by_key(|line| !line.to_ascii_lowercase().starts_with("authorization"));
                    let body = words.join(" ");
                    let _ = write!(
                        stream,
                        "HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                });
            }
        });
        Self { address, requests }
    }
}

/// The secrets of the test, in each form in which they could show up.
struct Canaries(Vec<String>);

impl Canaries {
    fn hits(&self, text: &str) -> Vec<&str> {
        self.0.iter().filter(|canary| text.contains(canary.as_str())).map(String::as_str).collect()
    }

    #[track_caller]
    fn absent(&self, place: &str, text: &str) {
        let hits = self.hits(text);
        let around = hits.first().map(|hit| {
            let at = text.find(*hit).expect("just found");
            String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(300)..(at + 100).min(text.len())])
                .into_owned()
        });
        assert!(hits.is_empty(), "{place} shows {hits:?}: … {} …", around.unwrap_or_default());
    }
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("listed").flatten() {
        if entry.path().is_dir() {
            files_below(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn nodewick(args: &[&str], config: &Path, env: &[(String, String)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nodewick"))
        .args(args)
        .arg("-c")
        .arg(config)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .expect("runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn no_output_of_the_agent_holds_a_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let (home, pods) = (dir.path().join("agent"), dir.path().join("pods"));
    let log = ContainerLog::create(&pods, "shop_api-1_u1", "api", 0).expect("a log");
    let echo = Echo::start();
    let secrets = dir.path().join("secrets");
    fs::create_dir_all(&secrets).expect("made");
    let canary = |name: &str| format!("canary-{name}-7d1f3b");
    for name in ["password-file", "token-file", "client-file", "header-file", "tenantless"] {
        fs::write(secrets.join(name), format!("{}\n", canary(name))).expect("written");
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["agent".to_owned()])
        .expect("valid")
        .self_signed(&key)
        .expect("signed");
    fs::write(secrets.join("key.pem"), key.serialize_pem()).expect("written");
    fs::write(secrets.join("cert.pem"), certificate.pem()).expect("written");
    let key_line = key.serialize_pem().lines().nth(1).expect("a line of base64").to_owned();
    let at = |name: &str| format!("{:?}", secrets.join(name));
    let (host, url) = (echo.address, format!("http://{}", echo.address));
    let env = vec![
        ("CANARY_TOKEN".to_owned(), canary("env-token")),
        ("NODEWICK_SINK__LOKI__PASSWORD__AUTH_PASSWORD".to_owned(), canary("env-password")),
        ("NODEWICK_LOG".to_owned(), "trace".to_owned()),
    ];
    let rest = format!(
        "[sink.loki.password]\nurl = \"{url}\"\nauth = {{ username = \"u\" }}\n\
         [sink.loki.userinfo]\nurl = \"http://someone:{}@{host}\"\n\
         [sink.loki.passfile]\nurl = \"{url}\"\nauth = {{ username = \"u\", password_file = {} }}\n\
         [sink.loki.header]\nurl = \"{url}\"\nheaders = {{ X-Api-Key = \"${{file:{}}}\", Cookie = \"{}\" }}\n\
         [sink.loki.oauth2]\nurl = \"{url}\"\n[sink.loki.oauth2.auth.oauth2]\ntoken_url = \"{url}/token\"\n\
         client_id = \"c\"\nclient_secret = \"{}\"\nendpoint_params = {{ resource = \"{}\" }}\n\
         [sink.otlp.oauth2file]\nendpoint = \"{url}\"\nprotocol = \"http/protobuf\"\n\
         auth.oauth2 = {{ token_url = \"{url}/token\", client_id = \"c\", client_secret_file = {} }}\n\
         [sink.otlp.token]\nendpoint = \"{url}\"\nprotocol = \"http/protobuf\"\nauth.token = \"${{env:CANARY_TOKEN}}\"\n\
         [sink.otlp.grpc]\nendpoint = \"{url}\"\nauth.token_file = {}\n\
         [sink.loki.tls]\nurl = \"https://{host}\"\ntls = {{ cert_file = {}, key_file = {} }}\n\
         [sink.loki.proxy]\nurl = \"http://logs.example.com\"\nproxy = \"http://p:{}@{host}\"\n",
        canary("user-info"),
        at("password-file"),
        secrets.join("header-file").display(),
        canary("cookie"),
        canary("client-secret"),
        canary("param"),
        at("client-file"),
        at("token-file"),
        at("cert.pem"),
        at("key.pem"),
        canary("proxy"),
    );
    let mut canaries = vec!["7d1f3b".to_owned(), key_line];
    // What basic authentication makes of them.
    for pair in [
        ("u", canary("env-password")),
        ("someone", canary("user-info")),
        ("u", canary("password-file")),
        ("c", canary("client-secret")),
        ("c", canary("client-file")),
        ("p", canary("proxy")),
    ] {
        canaries.push(base64(format!("{}:{}", pair.0, pair.1).as_bytes()));
    }
    let canaries = Canaries(canaries);
    assert_eq!(canaries.hits("canary-x-7d1f3b").len(), 1, "the search finds what is there");

    let settings = Settings { rest, env: env.clone(), ..Settings::default() };
    let mut agent = Agent::prepare(&home, &pods, &settings);
    let config = home.join("agent.toml");
    agent.launch();
    agent.wait_ready();
    log.write_line(Pipe::Stdout, b"an honest line").expect("written");
    let tried = || echo.requests.load(Ordering::Acquire);
    assert!(wait_until(PATIENCE, || tried() >= 10), "only {} requests", tried());
    std::thread::sleep(Duration::from_secs(2));

    for page in [
        "/metrics",
        "/health/ready?verbose",
        "/health/live?verbose",
        "/ledger",
        "/ledger?worst=nothing",
        "/config",
        "/debug/pprof/",
        "/",
    ] {
        canaries.absent(page, &agent.get(page).expect("answers").1);
    }
    for args in [&["check"][..], &["check", "-o", "json"], &["check", "--offline"]] {
        let said = nodewick(args, &config, &env);
        assert!(said.contains("<redacted>"), "{said}");
        canaries.absent(&args.join(" "), &said);
    }
    // A config that is wrong right beside its secrets, before and while the agent runs.
    let good = fs::read_to_string(&config).expect("written");
    for (from, to) in [
        ("username = \"u\"", "usernam = \"u\""),
        ("client_secret = ", "client_secrt = "),
        ("auth.token = \"", "auth.token = \"\" \""),
        ("auth.token = \"", "auth.token = 7 #"),
        ("proxy = \"http://p", "proxy = \"ftp://p"),
        ("url = \"http://someone", "url = \"tcp://someone"),
        ("url = \"http://someone", "uri = \"http://someone"),
        ("Cookie = ", "\"Coo kie\" = "),
        ("resource = ", "grant_type = "),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&config, good.replace(from, to)).expect("written");
        let said = nodewick(&["check"], &config, &env);
        assert!(said.contains("error"), "{from} → {to}: {said}");
        canaries.absent(&format!("check of {to}"), &said);
        std::thread::sleep(Duration::from_millis(300));
    }
    let log_text = || {
        fs::read(home.join("agent.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .expect("its output")
    };
    assert!(wait_until(PATIENCE, || log_text().contains("the last good one stays in force")));
    agent.signal(Signal::ABORT);
    assert!(wait_until(PATIENCE, || !agent.runs()));
    let said = log_text();
    for proof in ["status 401", "TRACE", "no access token from", "hardening: "] {
        assert!(said.contains(proof), "the log is as loud as it gets: {proof}");
    }
    canaries.absent("the log", &said);
    let mut files = Vec::new();
    files_below(&home, &mut files);
    files.retain(|file| *file != config);
    assert!(files.iter().any(|file| file.starts_with(home.join("state"))), "{files:?}");
    for file in files {
        assert!(!file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")), "{file:?}");
        let text = String::from_utf8_lossy(&fs::read(&file).expect("readable")).into_owned();
        canaries.absent(&file.display().to_string(), &text);
    }
}

/// Standard base64, by code that shares nothing with the agent's.
fn base64(bytes: &[u8]) -> String {
    let digits: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let mut text: String = bits
        .as_bytes()
        .chunks(6)
        .map(|six| {
            let six = format!("{:0<6}", std::str::from_utf8(six).expect("digits"));
            digits[usize::from_str_radix(&six, 2).expect("binary")]
        })
        .collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// SplitMix64: the same requests in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

#[test]
fn an_abused_listener_goes_on_answering() {
    let dir = tempfile::tempdir().expect("a directory");
    let pods = dir.path().join("pods");
    let _log = ContainerLog::create(&pods, "shop_api-1_u1", "api", 0).expect("a log");
    let mut agent = Agent::start(&dir.path().join("agent"), &pods, "");
    agent.wait_ready();
    let address = agent.admin();

    // More clients than are served, none of which ever ends its request: one drop at a time.
    let mut loris: Vec<TcpStream> =
        (0..80).map(|_| TcpStream::connect(address).expect("the kernel's queue")).collect();
    for stream in &mut loris {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nX-A: ").expect("sent");
    }
    std::thread::sleep(Duration::from_millis(300));
    let descriptors =
        fs::read_dir(format!("/proc/{}/fd", agent.pid().expect("runs").as_raw_nonzero())).expect("listed");
    let sockets = descriptors
        .flatten()
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
        .count();
    assert!((64..=70).contains(&sockets), "64 connections, the listener, and the runtime's own: {sockets}");
    let begun = Instant::now();
    let mut honest = TcpStream::connect(address).expect("queued");
    honest.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    honest.write_all(b"GET /livez HTTP/1.0\r\n\r\n").expect("sent");
    for (index, stream) in loris.iter_mut().enumerate() {
        // Some keep the connection warm, which does not help them.
        if index % 2 == 0 {
            let _ = stream.write_all(b"b");
        }
    }
    let mut answer = String::new();
    honest.read_to_string(&mut answer).expect("answered");
    assert!(answer.contains(" 200 "), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(12), "two rounds of five seconds: {:?}", begun.elapsed());
    drop(loris);

    // Requests of every shape, the same in each run.
    let mut chance = Chance(0x5eed);
    let pieces = [
        "/",
        "..",
        "%2e%2e",
        "metrics",
        "ledger",
        "?worst=",
        "health/ready",
        "?verbose",
        "%00",
        "\u{1f980}",
        " ",
        "#",
        "//",
        "-1",
        "99999999999999999999",
        "&",
        "=",
        "\t",
        "HTTP/9.9",
        "http://x/",
        "*",
        "etc/passwd",
        "%",
        "%zz",
        "A",
        ";",
    ];
    let methods = ["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "PUT", "G\0T", "", "PRI"];
    let (until, mut requests) = (Instant::now() + Duration::from_secs(3), 0);
    while Instant::now() < until {
        let method = methods[chance.below(methods.len())];
        let mut target = String::from(if chance.below(4) == 0 { "" } else { "/" });
        for _ in 0..chance.below(8) {
            target.push_str(pieces[chance.below(pieces.len())]);
        }
        if chance.below(50) == 0 {
            target.push_str(&"a".repeat(chance.below(40_000)));
        }
        let version = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""][chance.below(4)];
        let length =
            ["", "Content-Length: 5\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n"]
                [chance.below(4)];
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        let request =
            format!("{method} {target} {version}\r\nHost: a\r\nConnection: close\r\n{length}\r\nhello");
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        // Closed, reset or silent: nothing that the next client would feel.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 500 ") && !answer.contains("root:x:"), "{request:?}: {answer}");
        requests += 1;
    }
    assert!(requests > 50, "{requests}");
    assert!(agent.runs());
    assert_eq!(agent.get("/health/ready").expect("answers").0, 200);
    assert!(agent.terminate().success());
}
