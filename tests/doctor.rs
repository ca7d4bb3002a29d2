//! `nodewick doctor` and its kin as an operator meets them: what is broken is named, with the fix, in whole lines.
//!
//! Against the real program, a make-believe Loki and API server, servers with certificates of every kind, and a real
//! agent where one has to run.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::json;

use support::cri_writer::{ContainerLog, Pipe};
use support::fake_kube::{FakeKube, PodSpec};
use support::fake_loki::{FakeLoki, Limits};

const POD_DIR: &str = "shop_checkout-0_d11c6e6d-84fc-49ec-95a1-4ee5155f656a";
const UID: &str = "d11c6e6d-84fc-49ec-95a1-4ee5155f656a";

/// A directory with a log root, a state directory and a config.
struct Place {
    dir: tempfile::TempDir,
}

struct Said {
    code: i32,
    out: String,
    error: String,
}

impl Said {
    /// The lines of the check or subject: its own and those of its fix.
    fn block(&self, label: &str) -> Vec<String> {
        let is_it = |line: &str| line.split_once(' ').is_some_and(|(_, rest)| starts(rest, label));
        let mut lines = self.out.lines().skip_while(|line| !is_it(line));
        let mut block: Vec<String> = lines.next().into_iter().map(str::to_owned).collect();
        block.extend(lines.take_while(|line| line.starts_with("   ")).map(|line| line.trim().to_owned()));
        assert!(!block.is_empty(), "no {label} in:\n{}{}", self.out, self.error);
        block[0] = squeezed(&block[0]);
        block
    }
}

fn starts(rest: &str, label: &str) -> bool {
    rest.strip_prefix(label).is_some_and(|rest| rest.starts_with(' '))
}

/// One space where there are several, and no milliseconds that differ from run to run.
fn squeezed(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let text = words.join(" ");
    match (text.rfind('('), text.ends_with(" ms)")) {
        (Some(at), true) => format!("{}(N ms)", &text[..at]),
        _ => text,
    }
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(place.root()).expect("made");
        std::fs::create_dir(place.state()).expect("made");
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn root(&self) -> PathBuf {
        self.path().join("pods")
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// A container log with a few lines.
    fn log(&self, lines: &[&str]) -> ContainerLog {
        let log = ContainerLog::create(&self.root(), POD_DIR, "api", 0).expect("a log");
        for line in lines {
            log.write_line(Pipe::Stdout, line.as_bytes()).expect("written");
        }
        log
    }

    /// Writes the config. Nothing is spilled in these tests, so that the machine's disk may be as full as it is.
    fn config(&self, rest: &str) -> PathBuf {
        let path = self.path().join("agent.toml");
        let text = format!(
            "[agent]\ncluster = \"test\"\nnode = \"node-1\"\nstate_dir = {:?}\n[logs]\nroot = {:?}\n[logs.spill]\nbudget = \"0B\"\n\
             [admin]\nlisten = \"off\"\n{rest}\n",
            self.state(),
            self.root()
        );
        std::fs::write(&path, text).expect("written");
        path
    }

    fn doctor(&self, rest: &str) -> Said {
        let config = self.config(rest);
        run(&["doctor", "-c", config.to_str().expect("UTF-8")], &[])
    }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Said {
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command.env_clear().timeout(Duration::from_secs(60)).args(args).envs(env.iter().copied());
    let output = command.output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), error: text(&output.stderr) }
}

fn loki(url: &str) -> String {
    format!("[sink.loki.main]\nurl = {url:?}\n")
}

fn kube(server: &FakeKube, place: &Place) -> String {
    let kubeconfig = server.kubeconfig(&place.path().join("kube"));
    format!("[kube]\nkubeconfig = {kubeconfig:?}\n")
}

fn pod(node: &str) -> serde_json::Value {
    PodSpec { name: "checkout-0", uid: UID, node, ..PodSpec::default() }.object()
}

// The healthy node.

#[test]
fn a_healthy_node_is_a_list_of_ticks() {
    let (place, backend, server) = (Place::new(), FakeLoki::start(Limits::default()), FakeKube::start());
    place.log(&["one"]);
    server.set(pod("node-1"));
    let said = place.doctor(&(loki(&backend.url()) + &kube(&server, &place)));
    assert_eq!(said.code, 0, "{}{}", said.out, said.error);
    assert!(!said.out.contains('×') && !said.out.contains('\u{1b}'), "{}", said.out);
    assert_eq!(
        said.block("config"),
        [format!("√ config {}, 1 sink", place.path().join("agent.toml").display())]
    );
    assert_eq!(
        said.block("log-root"),
        [format!("√ log-root {}: 1 container log of 1 pod, CRI format", place.root().display())]
    );
    assert_eq!(
        said.block("loki.main"),
        [format!("√ loki.main {}/loki/api/v1/push, takes our requests (N ms)", backend.url())]
    );
    assert_eq!(said.block("kube-api"), [format!("√ kube-api {}, Kubernetes v1.36.0", server.url())]);
    assert_eq!(
        said.block("kube-rbac"),
        ["√ kube-rbac the service account may list and watch pods and namespaces"]
    );
    assert_eq!(said.block("kube-node"), ["√ kube-node node-1: 1 pod by the API, 1 with logs on this disk"]);
    assert_eq!(said.block("annotations"), ["√ annotations those of 1 pod are understood"]);
    assert_eq!(said.block("clock"), ["√ clock agrees with loki.main, the Kubernetes API"]);
    assert!(backend.requests().iter().all(|seen| seen.streams.is_empty()), "nothing is stored by asking");
}

#[test]
fn static_targets_are_scraped_once_where_no_agent_runs() {
    use std::io::{Read as _, Write as _};
    let place = Place::new();
    place.log(&["one"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let target = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a scrape");
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).expect("a request") > 0);
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\na 1\n";
        stream.write_all(answer.as_bytes()).expect("answered");
    });
    let said = place.doctor(&format!(
        "[sink.stdout.main]\n[[scrape.static]]\ntargets = [{address:?}, \"127.0.0.1:1\"]\n"
    ));
    target.join().expect("it was asked");
    let lines: Vec<&str> = said.out.lines().filter(|line| line.contains("127.0.0.1:1/metrics")).collect();
    assert_eq!(said.block("scrape"), ["√ scrape 1 of 2 static targets answer"]);
    assert!(
        lines.len() == 1 && lines[0].starts_with('‼') && lines[0].contains("cannot connect"),
        "{}",
        said.out
    );
}

#[test]
fn programs_get_json_and_the_exit_code_says_the_same() {
    let place = Place::new();
    let config = place.config(&loki("http://127.0.0.1:1"));
    let said = run(&["doctor", "-o", "json", "-c", config.to_str().expect("UTF-8")], &[]);
    assert_eq!(said.code, 1);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["ok"], false);
    let found =
        json["findings"].as_array().expect("a list").iter().find(|finding| finding["subject"] == "loki.main");
    assert_eq!(
        found.expect("the sink"),
        &json!({"check": "sinks", "subject": "loki.main", "status": "failure", "text": "nothing listens on 127.0.0.1:1",
            "fix": ["is the port right, and the backend running?"]})
    );
    assert_eq!(run(&["doctor", "--nonsense"], &[]).code, 2);
}

#[test]
fn a_bad_config_is_a_finding_and_exits_78() {
    let place = Place::new();
    let said = place.doctor("[agnet]\n");
    assert_eq!(said.code, 78);
    let block = said.block("config");
    assert_eq!(block[0], "× config the config cannot be used; the checks below are of the built-in one");
    assert!(block[1].contains("agent.toml:11:2: error: agnet: unknown table"), "{block:?}");
}

// This machine.

#[test]
fn a_root_that_is_not_mounted_is_named_with_the_mount() {
    let place = Place::new();
    std::fs::remove_dir(place.root()).expect("removed");
    let root = place.root().display().to_string();
    let said = place.doctor("");
    assert_eq!(said.code, 1);
    assert_eq!(
        said.block("log-root"),
        [
            format!("× log-root cannot read {root}: No such file or directory (os error 2)"),
            "→ mount the node's directory:".to_owned(),
            format!("volumeMounts: [{{name: pods, mountPath: {root}, readOnly: true}}]"),
            format!("volumes: [{{name: pods, hostPath: {{path: {root}}}}}]"),
        ]
    );
}

#[test]
fn log_files_are_looked_for_and_no_pods_are_missed_beside_them() {
    let place = Place::new();
    std::fs::remove_dir(place.root()).expect("removed");
    let app = place.path().join("app");
    std::fs::create_dir(&app).expect("made");
    std::fs::write(app.join("a.log"), "one\n").expect("written");
    std::fs::write(app.join("a.log.1"), "zero\n").expect("written");
    std::fs::hard_link(app.join("a.log"), app.join("b.out")).expect("linked");
    let shown = app.display();
    let said = place.doctor(&format!(
        "[sink.stdout.main]\n[logs.files.app]\npaths = [\"{shown}/*.log\"]\n[logs.files.late]\npaths = [\"{shown}/*.txt\"]\n\
         [logs.files.unmounted]\npaths = [\"{shown}/deep/*.log\"]\n[logs.files.twice]\npaths = [\"{shown}/*.out\"]\n"
    ));
    assert!(!said.out.contains("log-root"), "{}", said.out);
    // One of its names is that of another file: neither is followed.
    let found = said.block("logs.files.twice");
    assert!(found[0].starts_with("× ") && found[0].contains("1 of 1 file cannot be read: "), "{found:?}");
    let found = said.block("logs.files.late");
    assert!(
        found[0].starts_with("‼ ") && found[0].contains(&format!("no file matches {shown}/*.txt")),
        "{found:?}"
    );
    let found = said.block("logs.files.unmounted");
    assert!(found[0].contains(&format!("{shown}/deep does not exist")), "{found:?}");
    std::fs::remove_file(app.join("b.out")).expect("removed");
    let said = place.doctor(&format!("[sink.stdout.main]\n[logs.files.app]\npaths = [\"{shown}/*.log\"]\n"));
    let found = said.block("logs.files.app");
    assert!(found[0].starts_with("√ ") && found[0].contains("1 readable file of "), "{found:?}");
}

#[test]
fn a_root_with_another_layout_is_told_from_an_empty_one() {
    let place = Place::new();
    assert_eq!(
        place.doctor("").block("log-root")[0],
        format!("‼ log-root {} is empty: no pod of this node has logs", place.root().display())
    );
    std::fs::write(place.root().join("checkout_shop_api-0123.log"), "x").expect("written");
    let said = place.doctor("");
    assert_eq!(
        said.block("log-root")[0],
        format!(
            "× log-root {} is not laid out as <namespace>_<pod>_<uid>/<container>/<restart>.log",
            place.root().display()
        )
    );
    std::fs::create_dir(place.root().join("pods")).expect("made");
    assert_eq!(
        place.doctor("").block("log-root"),
        [
            format!("× log-root {0} has no pod logs, but {0}/pods may", place.root().display()),
            "→ [logs]".to_owned(),
            format!("root = \"{}/pods\"", place.root().display()),
        ]
    );
}

#[test]
fn links_to_a_place_that_is_not_mounted_are_named() {
    let place = Place::new();
    let dir = place.root().join(POD_DIR).join("api");
    std::fs::create_dir_all(&dir).expect("made");
    std::os::unix::fs::symlink("/var/lib/docker/containers/0/0-json.log", dir.join("0.log")).expect("a link");
    let block = place.doctor("").block("log-links");
    assert_eq!(
        block[0],
        "× log-links 1 of 1 logs are links into /var/lib/docker/containers, which is not mounted"
    );
    assert_eq!(block[1], "→ mount it at the same path:");
    std::fs::remove_file(dir.join("0.log")).expect("removed");
    std::os::unix::fs::symlink("/data/docker/containers/0/0-json.log", dir.join("0.log")).expect("a link");
    let block = place.doctor("").block("log-links");
    assert_eq!(
        block[0],
        "× log-links 1 of 1 logs are links to places that are not allowed, such as /data/docker/containers/0/0-json.log"
    );
    assert_eq!(block.last().expect("a fix"), "symlink_roots = [\"/data/docker/containers\"]");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let place = Place::new();
    std::fs::remove_dir(place.state()).expect("removed");
    std::fs::write(place.state(), "x").expect("written");
    assert_eq!(
        place.doctor("").block("state-dir"),
        [
            format!("× state-dir {} is not a directory", place.state().display()),
            "→ remove it, or change [agent] state_dir".to_owned(),
        ]
    );
}

/// A small tmpfs, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn a_full_disk_that_forgets_is_named() {
    let place = Place::new();
    let Some(tmpfs) = Tmpfs::mount(&place.state(), "2m") else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let full = std::fs::write(tmpfs.0.join("filler"), vec![1; 3 << 20]).expect_err("the disk is full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let config = place.config("").display().to_string();
    let said = run(&["doctor", "-c", &config, "--set", "logs.spill.budget=1GiB"], &[]);
    assert_eq!(said.code, 1);
    assert_eq!(
        said.block("state-dir")[0],
        format!("‼ state-dir {} is on tmpfs: positions do not survive", place.state().display())
    );
    assert_eq!(
        said.block("state-space")[0],
        "× state-space the state directory's disk is full: 0B of 2 MiB are free"
    );
    assert!(!tmpfs.0.join(format!(".probe-{}", std::process::id())).exists());
}

// Backends.

#[test]
fn refused_credentials_and_missing_tenants_are_told_apart() {
    let place = Place::new();
    let wants = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        FakeLoki::start(limits)
    };
    let backend = wants(|limits| limits.authorization = Some("Bearer right".to_owned()));
    let url = format!("{}/loki/api/v1/push", backend.url());
    let wrong = loki(&backend.url()) + "auth.token = \"wrong\"\n";
    let block = place.doctor(&wrong).block("loki.main");
    assert!(
        block[0].starts_with(&format!("× loki.main {url}: our credentials are refused (401)")),
        "{block:?}"
    );
    assert_eq!(
        block[1..],
        [
            "→ give or renew the credentials; a file is read again when it changes:",
            "[sink.loki.main.auth]",
            "token_file = \"/var/run/secrets/nodewick/token\"",
        ]
    );
    let right = loki(&backend.url()) + "auth.token = \"right\"\n";
    assert_eq!(
        place.doctor(&right).block("loki.main"),
        [format!("√ loki.main {url}, takes our requests (N ms)")]
    );
    let backend = wants(|limits| limits.auth = true);
    let url = format!("{}/loki/api/v1/push", backend.url());
    assert_eq!(
        place.doctor(&loki(&backend.url())).block("loki.main"),
        [
            format!("× loki.main {url}: 401: Loki wants a tenant (no org id)"),
            "→ [sink.loki.main]".to_owned(),
            "tenant = \"<your tenant>\"".to_owned(),
        ]
    );
}

#[test]
fn a_name_that_does_not_resolve_is_told_with_its_service() {
    let said = Place::new().doctor(&loki("http://loki-gateway.loki.svc.nodewick-test.invalid"));
    let block = said.block("loki.main");
    assert!(
        block[0].starts_with("× loki.main loki-gateway.loki.svc.nodewick-test.invalid does not resolve"),
        "{block:?}"
    );
    assert!(
        block
            .iter()
            .any(|line| line.ends_with("is the Service there? kubectl -n loki get service loki-gateway")),
        "{block:?}"
    );
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

    /// A server that answers a zero-stream push as Loki does, with a certificate for `name` until a day.
    fn serve(&self, name: &str, until: (i32, u8, u8)) -> SocketAddr {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        let config = Arc::new(config);
        serve(move |mut socket| {
            let mut session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            answer(&mut rustls::Stream::new(&mut session, &mut socket), "");
        })
    }
}

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

/// Answers one request as Loki answers a push without streams.
fn answer(stream: &mut (impl Read + Write), headers: &str) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = stream.read_exact(&mut body);
    let text = "error at least one valid stream is required for ingestion\n";
    let _ = write!(
        stream,
        "HTTP/1.1 422 Unprocessable Entity\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    let _ = stream.flush();
}

#[test]
fn certificates_are_told_by_what_is_wrong_with_them() {
    let (place, authority, stranger) = (Place::new(), Authority::new(), Authority::new());
    let ca = |authority: &Authority, name: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, authority.issuer.pem()).expect("written");
        path
    };
    let (trusted, other) = (ca(&authority, "ca.pem"), ca(&stranger, "other.pem"));
    let look = |address: SocketAddr, ca: &Path| {
        let said = place.doctor(&format!("{}tls.ca_file = {ca:?}\n", loki(&format!("https://{address}"))));
        said.block("loki.main")
    };
    let good = authority.serve("127.0.0.1", (2049, 12, 31));
    assert_eq!(
        look(good, &trusted),
        [format!(
            "√ loki.main https://{good}/loki/api/v1/push, certificate until 2049-12-31, takes our requests (N ms)"
        )]
    );
    assert_eq!(
        look(good, &other),
        [
            "× loki.main the certificate of 127.0.0.1 is of an authority that is not trusted here",
            "→ mount the authority's certificate and name it:",
            "[sink.loki.main.tls]",
            "ca_file = \"/etc/nodewick/ca.pem\"",
        ]
    );
    assert_eq!(
        look(authority.serve("127.0.0.1", (2024, 2, 29)), &trusted),
        [
            "× loki.main the certificate of 127.0.0.1 expired on 2024-02-29",
            "→ renew the backend's certificate; see also that this node's clock is right",
        ]
    );
    assert_eq!(
        look(authority.serve("logs.example.com", (2049, 12, 31)), &trusted)[0],
        "× loki.main the certificate is not for 127.0.0.1, but for logs.example.com"
    );
    let plain = serve(|mut socket| {
        let _ = socket.read(&mut [0; 1024]);
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    });
    assert_eq!(
        look(plain, &trusted)[0],
        format!("× loki.main 127.0.0.1 does not speak TLS on port {}", plain.port())
    );
}

#[test]
fn a_clock_that_is_an_hour_off_is_told() {
    let an_hour_ago = jiff::Timestamp::now() - jiff::Span::new().hours(1);
    let date = an_hour_ago.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let address = serve(move |mut socket| answer(&mut socket, &format!("date: {date}\r\n")));
    let said = Place::new().doctor(&loki(&format!("http://{address}")));
    let block = said.block("clock");
    assert!(
        block[0].starts_with("‼ clock this node is 3") || block[0].contains("is 1h ahead of loki.main"),
        "{block:?}"
    );
    assert!(block[0].ends_with("ahead of loki.main"), "{block:?}");
    assert!(block[1].starts_with("→ set up NTP on the node"), "{block:?}");
}

// Kubernetes.

#[test]
fn a_wrong_node_name_is_told_with_the_right_one() {
    let (place, server) = (Place::new(), FakeKube::start());
    place.log(&["one"]);
    server.set(pod("worker-7"));
    let said = place.doctor(&kube(&server, &place));
    assert_eq!(said.code, 1);
    assert_eq!(
        said.block("kube-node"),
        [
            "× kube-node this disk has the logs of node worker-7, the config says node-1",
            "→ [agent] node or NODE_NAME must be worker-7; by the downward API:",
            "env:",
            "- name: NODE_NAME",
            "valueFrom: {fieldRef: {fieldPath: spec.nodeName}}",
        ]
    );
}

#[test]
fn missing_rights_are_told_with_the_rule() {
    let (place, server) = (Place::new(), FakeKube::start());
    server.behave(|behaviour| behaviour.forbidden = vec!["pods"]);
    let said = place.doctor(&kube(&server, &place));
    assert_eq!(said.code, 1);
    assert_eq!(
        said.block("kube-rbac"),
        [
            "× kube-rbac system:serviceaccount:nodewick:nodewick may not list pods, watch pods",
            "→ logs flow with what their paths say; apply and bind to the account:",
            "apiVersion: rbac.authorization.k8s.io/v1",
            "kind: ClusterRole",
            "metadata: {name: nodewick}",
            "rules:",
            "- {apiGroups: [\"\"], resources: [pods, namespaces], verbs: [list, watch]}",
        ]
    );
    server.behave(|behaviour| behaviour.forbidden = vec!["namespaces"]);
    let block = place.doctor(&kube(&server, &place)).block("kube-rbac");
    assert_eq!(
        block[..2],
        [
            "× kube-rbac system:serviceaccount:nodewick:nodewick may not list namespaces, watch namespaces",
            "→ grant it, or do without: [kube] namespace_annotations = false",
        ]
    );
    let without = place.doctor(&(kube(&server, &place) + "namespace_annotations = false\n"));
    assert_eq!(without.block("kube-rbac"), ["√ kube-rbac the service account may list and watch pods"]);
}

#[test]
fn rights_that_nobody_needs_are_a_warning() {
    let (place, server) = (Place::new(), FakeKube::start());
    server.behave(|behaviour| behaviour.granted = vec!["get nodes/proxy", "list secrets"]);
    let said = place.doctor(&kube(&server, &place));
    assert_eq!(
        said.block("kube-rights")[0],
        "‼ kube-rights the service account may get nodes/proxy, list secrets"
    );
}

#[test]
fn an_absent_api_and_a_refused_token_are_told_apart() {
    let (place, server) = (Place::new(), FakeKube::start());
    server.behave(|behaviour| {
        behaviour.fault = Some(support::fake_kube::Fault { status: 503, retry_after: None })
    });
    let config = kube(&server, &place);
    let said = place.doctor(&config);
    assert!(said.block("kube-api")[0].starts_with("√ kube-api"), "the version is told without a right");
    assert!(
        said.block("kube-rbac")[0].starts_with("× kube-rbac list pods is answered with 503"),
        "{}",
        said.out
    );
    drop(server);
    let said = place.doctor(&config);
    assert_eq!(said.code, 1);
    let block = said.block("kube-api");
    assert!(block[0].contains("cannot be reached: ") && block[0].contains("Connection refused"), "{block:?}");
    assert_eq!(
        block[1..],
        [
            "→ does a NetworkPolicy allow egress to the API server (port 443 or 6443)?",
            "logs flow meanwhile, with what their paths say",
        ]
    );
    let missing = place.doctor("[kube]\nkubeconfig = \"/nonexistent/kubeconfig\"\n");
    assert!(
        missing.block("kube-api")[0]
            .starts_with("× kube-api cannot use the kubeconfig /nonexistent/kubeconfig: "),
        "{}",
        missing.out
    );
    let bare = place.doctor("[kube]\nmode = \"api\"\n");
    assert_eq!(bare.block("kube-api")[0], "× kube-api no service account token is mounted");
}

#[test]
fn a_malformed_annotation_is_told_with_its_pod() {
    let (place, server) = (Place::new(), FakeKube::start());
    place.log(&["one"]);
    let mut object = pod("node-1");
    object["metadata"]["annotations"] = json!({"nodewick.dev/logs": "offf"});
    server.set(object);
    let said = place.doctor(&kube(&server, &place));
    assert_eq!(said.code, 0, "the logs flow: {}", said.out);
    let block = said.block("annotations");
    assert_eq!(
        block[0],
        "‼ annotations shop/checkout-0: nodewick.dev/logs = \"offf\" is neither on nor off, so the logs are shipped"
    );
    assert_eq!(block[1], "→ write \"on\" or \"off\"");
}

#[test]
fn before_installing_only_what_can_be_known_is_looked_at() {
    let (place, server) = (Place::new(), FakeKube::start());
    let config = place.config("").display().to_string();
    let kubeconfig = server.kubeconfig(&place.path().join("kube")).display().to_string();
    server.behave(|behaviour| behaviour.granted = vec!["create daemonsets", "create namespaces"]);
    let said = run(&["doctor", "--pre", "-c", &config], &[("KUBECONFIG", &kubeconfig)]);
    assert_eq!(said.code, 1);
    assert_eq!(said.block("kube-api"), [format!("√ kube-api {}, Kubernetes v1.36.0", server.url())]);
    assert_eq!(
        said.block("install"),
        [
            "× install you may not create serviceaccounts, create configmaps, create services, create clusterroles, create \
             clusterrolebindings, create networkpolicies",
            "→ have a cluster administrator apply deploy/daemonset.yaml",
        ]
    );
    assert!(!said.out.contains("state-dir") && !said.out.contains("kube-rbac"), "{}", said.out);
}
