//! `nodewick why`, `status` and `support bundle` beside a real agent that ships to a make-believe Loki.

mod support;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use support::agent::{Agent, Settings};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_kube::{FakeKube, PodSpec};
use support::fake_loki::{FakeLoki, Fault, Limits};

const UID: &str = "d11c6e6d-84fc-49ec-95a1-4ee5155f656a";
const POD_DIR: &str = "shop_checkout-0_d11c6e6d-84fc-49ec-95a1-4ee5155f656a";

struct Said {
    code: i32,
    out: String,
    error: String,
}

impl Said {
    fn line(&self, line: &str) -> &Self {
        assert!(
            self.out.lines().any(|known| known == line),
            "no line {line:?} in:\n{}{}",
            self.out,
            self.error
        );
        self
    }
}

/// An agent with its logs and its Loki.
struct Node {
    agent: Agent,
    loki: FakeLoki,
    dir: tempfile::TempDir,
}

impl Node {
    fn start(rest: &str, secret: &str) -> Self {
        let (dir, loki) = (tempfile::tempdir().expect("a directory"), FakeLoki::start(Limits::default()));
        std::fs::create_dir(dir.path().join("pods")).expect("made");
        let rest = format!("[sink.loki.main]\nurl = {:?}\n{secret}\n{rest}", loki.url());
        let settings = Settings { rest, ..Settings::default() };
        let mut agent = Agent::prepare(&dir.path().join("agent"), &dir.path().join("pods"), &settings);
        agent.launch();
        agent.wait_ready();
        Self { agent, loki, dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("pods")
    }

    fn log(&self, container: &str) -> ContainerLog {
        ContainerLog::create(&self.root(), POD_DIR, container, 0).expect("a log")
    }

    fn run(&self, args: &[&str]) -> Said {
        let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
        command.env_clear().timeout(Duration::from_secs(60)).args(args);
        command.arg("-c").arg(self.agent.directory().join("agent.toml"));
        let output = command.output().expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            error: text(&output.stderr),
        }
    }

    /// Asks until the answer has a text.
    fn until(&self, args: &[&str], text: &str) -> Said {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let said = self.run(args);
            if said.out.contains(text) {
                return said;
            }
            assert!(Instant::now() < deadline, "{text:?} never came:\n{}{}", said.out, said.error);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn write(log: &ContainerLog, lines: &[&str]) {
    for line in lines {
        log.write_line(Pipe::Stdout, line.as_bytes()).expect("written");
    }
}

const LINE: &str =
    "{\"level\":\"info\",\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"msg\":\"CANARY-LINE\"}";

#[test]
fn lines_that_flow_are_told_with_the_query_that_finds_them() {
    let node = Node::start("", "");
    write(&node.log("api"), &[LINE, LINE, "plain"]);
    let said = node.until(&["why", "checkout-0"], "flowing: 3 lines sent");
    assert_eq!(said.code, 0, "{}", said.out);
    said.line(&format!("shop/checkout-0 uid {UID}"))
        .line("√ api: flowing: 3 lines sent, none waiting")
        .line("    service   checkout (guessed from the pod's name)")
        .line("    lines     JSON, text; of the last 3: level 66%, trace id 66%, request id 0%")
        .line(
            "    find      {cluster=\"test\", namespace=\"shop\", service_name=\"checkout\", container=\"api\"} | pod=\"checkout-0\"",
        );
    assert!(
        said.out.contains(&format!(
            "curl -sG {}/loki/api/v1/query_range --data-urlencode 'query=",
            node.loki.url()
        ))
    );
    assert!(!said.out.contains("CANARY"), "{}", said.out);
    for name in ["shop/checkout-0", UID, "check"] {
        assert_eq!(node.run(&["why", name]).code, 0, "{name}");
    }
    assert_eq!(node.run(&["why", "checkout-0", "-n", "shop", "--container", "api"]).code, 0);
    let other = node.run(&["why", "checkout-0", "--container", "web"]);
    assert_eq!(other.code, 1);
    other.line("· the pod has no container web with logs");
    let json: serde_json::Value =
        serde_json::from_str(&node.run(&["why", "checkout-0", "-o", "json"]).out).expect("JSON");
    assert_eq!(json["flowing"], true);
    assert_eq!(json["pods"][0]["containers"][0]["account"]["delivered_records"], 3);
}

#[test]
fn a_log_file_is_found_by_its_path_and_by_its_source() {
    let app = tempfile::tempdir().expect("a directory");
    let (live, late) = (app.path().join("app.log"), app.path().join("late.log"));
    std::fs::write(&live, "level=info msg=one\nlevel=warn msg=two\n").expect("written");
    let shown = app.path().display();
    let node = Node::start(
        &format!(
            "[logs.files.app]\npaths = [\"{shown}/*.log\"]\nexclude = [\"{shown}/x*\"]\nservice = \"till\"\n"
        ),
        "",
    );
    let path = live.to_str().expect("UTF-8");
    let said = node.until(&["why", path], "flowing: 2 lines sent");
    assert_eq!(said.code, 0, "{}", said.out);
    said.line("[logs.files.app]")
        .line(&format!("√ {path}: flowing: 2 lines sent, none waiting"))
        .line("    lines     logfmt; of the last 2: level 100%, trace id 0%, request id 0% (no trace can be followed to these lines)")
        .line(&format!(
            "    find      {{cluster=\"test\", service_name=\"till\", job=\"app\"}} | filename=\"{path}\""
        ));
    for question in ["app", &format!("file:{path}")] {
        let said = node.run(&["why", question]);
        assert_eq!(said.code, 0, "{question}: {}", said.out);
        said.line(&format!("√ {path}: flowing: 2 lines sent, none waiting"));
    }
    let json: serde_json::Value =
        serde_json::from_str(&node.run(&["why", "app", "-o", "json"]).out).expect("JSON");
    assert_eq!(json["pods"][0]["source"], "app");
    assert_eq!(json["pods"][0]["containers"][0]["account"]["uid"], format!("file:{path}"));
    let gone = node.run(&["why", late.to_str().expect("UTF-8")]);
    assert_eq!(gone.code, 1);
    gone.line(&format!("× {shown}/late.log is not there; [logs.files.app] will follow it"));
    let other = node.run(&["why", &format!("{shown}/x.log")]);
    assert_eq!(other.code, 1);
    other.line(&format!("× {shown}/x.log matches no source of [logs.files], or is excluded there"));
}

#[test]
fn a_pod_that_is_not_here_is_asked_back() {
    let node = Node::start("", "");
    write(&node.log("api"), &["one"]);
    let said = node.run(&["why", "chekcout-0"]);
    assert_eq!(said.code, 1);
    assert_eq!(said.out, "× no pod \"chekcout-0\" has logs on node node-1\n  did you mean shop/checkout-0\n");
}

#[test]
fn a_backend_that_takes_nothing_is_named_with_its_words() {
    let node = Node::start("", "");
    node.loki.set_fault(Some(Fault::Status(429, None, "ingestion rate limit exceeded for user fake")));
    write(&node.log("api"), &["one"]);
    let said = node.until(&["why", "checkout-0"], "takes nothing: ");
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.out
            .contains("; loki.main takes nothing: status 429: ingestion rate limit exceeded for user fake\n"),
        "{}",
        said.out
    );
    let status = node.until(&["status"], "is down");
    assert_eq!(status.code, 1, "{}", status.out);
    assert!(status.out.starts_with("degraded  nodewick "), "{}", status.out);
    let problem =
        status.out.lines().find(|line| line.starts_with("‼ loki.main is down")).expect("it is said");
    assert!(
        problem.starts_with("‼ loki.main is down; its lines are kept and tried again; it said "),
        "{problem}"
    );
    assert!(problem.ends_with(" ago: status 429: ingestion rate limit exceeded for user fake"), "{problem}");
    node.loki.set_fault(None);
    assert_eq!(node.until(&["why", "checkout-0"], "flowing: 1 line sent").code, 0);
    let status = node.until(&["status"], "1 line delivered");
    assert_eq!(status.code, 0, "{}", status.out);
    assert!(status.out.starts_with("ok  nodewick "), "{}", status.out);
    status.line("sinks       √ loki.main  1 line delivered, 0B queued");
    assert!(status.out.lines().count() <= 24, "one screen:\n{}", status.out);
}

#[test]
fn lines_that_are_refused_for_good_or_dropped_are_counted() {
    let node = Node::start("[process.drop.noise]\ncontains = \"noise\"\n", "");
    node.loki.limit(|limits| limits.poison = Some("poisoned"));
    let (api, idle, loud) = (node.log("api"), node.log("idle"), node.log("loud"));
    write(&api, &["good", "poisoned CANARY-LINE"]);
    write(&loud, &["noise", "noise"]);
    let said = node.until(&["why", "checkout-0"], "    refused   1 lines by loki.main for good, invalid: ");
    assert!(!said.out.contains("CANARY"), "{}", said.out);
    drop(idle);
    let said = node.until(&["why", "checkout-0"], "all 2 lines since the agent's start were dropped");
    assert_eq!(said.code, 1, "one container does not flow");
    said.line("× loud: all 2 lines since the agent's start were dropped by your rules (drop)")
        .line("‼ idle: it has written nothing yet")
        .line("    dropped   2 lines (drop)");
}

#[test]
fn an_annotation_that_leaves_logs_out_is_named() {
    let server = FakeKube::start();
    let mut object = PodSpec { name: "checkout-0", uid: UID, ..PodSpec::default() }.object();
    object["metadata"]["annotations"] = json!({"fluentbit.io/exclude": "true"});
    server.set(object);
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::start(&format!("[kube]\nkubeconfig = {:?}\n", server.kubeconfig(dir.path())), "");
    write(&node.log("api"), &["one"]);
    let said = node.run(&["why", "checkout-0"]);
    assert_eq!(said.code, 1);
    said.line("× api: left out: by annotation fluentbit.io/exclude = \"true\"").line(
        "    do        kubectl -n shop annotate pod checkout-0 nodewick.dev/logs=on --overwrite; or change its template",
    );
    let mut elsewhere =
        PodSpec { name: "away-0", uid: "u9", node: "worker-3", ..PodSpec::default() }.object();
    elsewhere["metadata"]["namespace"] = json!("shop");
    server.set(elsewhere);
    let said = node.run(&["why", "shop/away-0"]);
    assert_eq!(said.code, 1);
    said.line("× away-0 is on node worker-3, not on this one (node-1); ask the agent there:");
}

#[test]
fn an_agent_that_is_gone_is_down() {
    let mut node = Node::start("", "");
    write(&node.log("api"), &["one"]);
    let address = node.agent.admin();
    assert!(node.agent.terminate().success());
    let said = node.run(&["status"]);
    assert_eq!(said.code, 2);
    assert_eq!(said.out, format!("down  {address}\n× no agent answers: Connection refused (os error 111)\n"));
    let said = node.run(&["why", "checkout-0"]);
    assert_eq!(said.code, 1);
    said.line(&format!("× api: no agent answers at {address}"));
}

/// Names, sizes and inodes below a directory.
fn listing(dir: &Path) -> Vec<(String, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    let mut names: Vec<(String, u64)> = entries
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), entry.metadata().expect("a file").ino())
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_doctor_beside_a_running_agent_touches_nothing() {
    let mut node = Node::start("", "");
    write(&node.log("api"), &["one"]);
    node.until(&["why", "checkout-0"], "flowing: 1 line sent");
    std::thread::sleep(Duration::from_millis(1500));
    let state = node.agent.directory().join("state");
    let before = listing(&state);
    let said = node.run(&["doctor"]);
    assert_eq!(listing(&state), before);
    assert!(node.agent.runs());
    let whole =
        |start: &str, end: &str| said.out.lines().any(|line| line.starts_with(start) && line.ends_with(end));
    assert!(whole("√ agent", &format!("runs at {}, alive and ready", node.agent.admin())), "{}", said.out);
    assert!(
        whole("√ state-dir", "is writable, held by the running agent")
            || whole("‼ state-dir", "positions do not survive")
    );
}

const SECRETS: [&str; 9] = [
    "CANARY-TOKEN-1",
    "CANARY-HEADER-2",
    "CANARY-ENV-3",
    "CANARY-FILE-4",
    "CANARY-CLIENT-5",
    "CANARY-PARAM-6",
    "CANARY-CLIENTFILE-7",
    "CANARY-PROXY-8",
    "CANARY-LINE",
];

#[test]
fn a_support_bundle_has_neither_secrets_nor_lines() {
    let secret = "auth.token_file = \"TOKEN_FILE\"\nheaders = { X-Api-Key = \"CANARY-HEADER-2\" }\n";
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    std::fs::write(&token, "CANARY-FILE-4\n").expect("written");
    // The URL of the tokens repeats what is secret: it is masked by the secrets' own texts.
    let client = dir.path().join("client");
    std::fs::write(&client, "CANARY-CLIENTFILE-7\n").expect("written");
    let node = Node::start(
        &format!(
            "[sink.otlp.other]\nendpoint = \"http://user:CANARY-TOKEN-1@127.0.0.1:1\"\noptional = true\n\
             [sink.otlp.granted]\nendpoint = \"http://127.0.0.1:1\"\noptional = true\n\
             proxy = \"http://p:CANARY-PROXY-8@127.0.0.1:1\"\n\
             auth.oauth2 = {{ token_url = \"http://127.0.0.1:1/CANARY-CLIENT-5/CANARY-PARAM-6/CANARY-CLIENTFILE-7\", \
             client_id = \"c\", client_secret = \"CANARY-CLIENT-5\", endpoint_params = {{ resource = \"CANARY-PARAM-6\" }} }}\n\
             [sink.otlp.filed]\nendpoint = \"http://127.0.0.1:1\"\noptional = true\n\
             auth.oauth2 = {{ token_url = \"http://127.0.0.1:1\", client_id = \"c\", client_secret_file = {client:?} }}\n"
        ),
        &secret.replace("TOKEN_FILE", token.to_str().expect("UTF-8")),
    );
    node.loki.limit(|limits| limits.poison = Some("poisoned"));
    write(&node.log("api"), &[LINE, "poisoned CANARY-LINE"]);
    node.until(&["why", "checkout-0"], "refused   1 lines");
    let file = dir.path().join("bundle.tar.gz");
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command.env_clear().env("MY_PASSWORD", "CANARY-ENV-3").timeout(Duration::from_secs(60));
    command
        .args(["support", "bundle", "-o"])
        .arg(&file)
        .arg("-c")
        .arg(node.agent.directory().join("agent.toml"));
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n", file.display()));
    assert!(said.contains("not in it: log lines, secrets, values of environment variables"), "{said}");
    let packed = std::fs::read(&file).expect("the archive");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
    let mut names = Vec::new();
    let mut everything = packed.clone();
    everything.extend(said.as_bytes());
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        assert!(!text.trim().is_empty(), "{name} is empty");
        names.push(name.trim_start_matches("nodewick-support/").to_owned());
        everything.extend(text.as_bytes());
        match names.last().expect("a name").as_str() {
            "environment.txt" => assert_eq!(text, "MY_PASSWORD\n"),
            "config.toml" => {
                assert!(text.contains("cluster = \"test\"") && text.contains("<redacted>"), "{text}");
                let masked = "http://127.0.0.1:1/<redacted>/<redacted>/<redacted>";
                assert!(text.contains(masked), "{text}");
            }
            "ledger.json" => assert!(text.contains("\"pod\":\"checkout-0\""), "{text}"),
            "checkpoint.txt" => assert!(text.contains("checkout-0"), "{text}"),
            "logs.txt" => assert!(text.contains(&format!("{POD_DIR}/api/0.log")), "{text}"),
            "doctor.txt" => assert!(text.contains("√ loki.main"), "{text}"),
            _ => {}
        }
    }
    assert_eq!(
        names,
        [
            "README.txt",
            "version.txt",
            "config.toml",
            "doctor.txt",
            "doctor.json",
            "health.txt",
            "metrics.txt",
            "ledger.json",
            "checkpoint.txt",
            "logs.txt",
            "state.txt",
            "environment.txt",
            "system.txt"
        ]
    );
    for secret in SECRETS {
        let found = everything.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} is in the archive");
    }
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
}
