//! The command as an operator meets it: exit codes, what goes to which stream, and what a start that fails says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn nodewick() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command.env_clear().timeout(Duration::from_secs(30));
    command
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("temp file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_bad_config_exits_78_in_check_and_in_run() {
    let bad = file("[agent]\nclustr = \"prod\"\n");
    for verb in [&["check"][..], &["run"], &["check", "--offline"]] {
        let output = nodewick().args(verb).arg("-c").arg(bad.path()).output().expect("runs");
        assert_eq!(output.status.code(), Some(78), "{verb:?}");
        let expected = format!(
            "{}:2:1: error: agent.clustr: unknown key\n  |\n2 | clustr = \"prod\"\n  | ^^^^^^\n  = did you mean `cluster`?\n",
            bad.path().display()
        );
        assert_eq!((text(&output.stderr), text(&output.stdout)), (expected, String::new()));
    }
}

#[test]
fn a_missing_config_file_exits_78_and_says_what_to_do() {
    let output = nodewick().args(["run", "-c", "/nonexistent/agent.toml"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        text(&output.stderr),
        "/nonexistent/agent.toml: error: cannot read the config file: No such file or directory (os error 2)\n  = \
         check the path given with -c; without -c the built-in defaults are used\n"
    );
}

#[test]
fn run_is_the_default_verb() {
    let bad = file("[agent]\nclustr = \"prod\"\n");
    assert_eq!(nodewick().arg("-c").arg(bad.path()).output().expect("runs").status.code(), Some(78));
    assert_eq!(nodewick().env("NODEWICK_CONFIG", bad.path()).output().expect("runs").status.code(), Some(78));
}

#[test]
fn the_config_may_be_named_by_a_variable() {
    let good = file("[agent]\ncluster = \"named\"\n");
    let output =
        nodewick().env("NODEWICK_CONFIG", good.path()).args(["check", "--offline"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cluster = \"named\""));
}

#[test]
fn the_memory_bound_is_shown_with_its_terms() {
    let output =
        nodewick().args(["check", "--offline", "--set", "agent.memory=1GiB"]).output().expect("runs");
    let shown = text(&output.stdout);
    assert!(shown.contains("log data in flight ([agent] memory)") && shown.contains("1 GiB"), "{shown}");
}

#[test]
fn wrong_usage_exits_2() {
    assert_eq!(nodewick().arg("--nonsense").output().expect("runs").status.code(), Some(2));
    let misplaced = nodewick().args(["-c", "/x.toml", "check"]).output().expect("runs");
    assert_eq!(misplaced.status.code(), Some(2), "a config before the verb must not be ignored");
    assert_eq!(nodewick().args(["check", "-o", "yaml"]).output().expect("runs").status.code(), Some(2));
}

#[test]
fn a_good_config_exits_0_and_shows_what_holds() {
    let good = file(
        "[agent]\ncluster = \"eu\"\n[sink.loki.main]\nurl = \"https://user:hunter2@loki:3100\"\n[sink.stdout.out]\n",
    );
    let output = nodewick().args(["check", "--offline", "-c"]).arg(good.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains(&format!("cluster = \"eu\"  # {}:2\n", good.path().display())), "{shown}");
    assert!(shown.contains("# loki main → https://<redacted>@loki:3100\n"), "{shown}");
    assert!(shown.contains("\n# total "), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn check_answers_in_json_too() {
    let good = file("[agent]\ncluster = \"eu\"\n");
    let output =
        nodewick().args(["check", "--offline", "-o", "json", "-c"]).arg(good.path()).output().expect("runs");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["config"]["agent"]["cluster"], "eu");
    assert_eq!(answer["sinks"], serde_json::json!(["local default"]));
    let terms = answer["memory_bound"]["terms"].as_array().expect("terms");
    let sum: u64 = terms.iter().map(|term| term["bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(answer["memory_bound"]["total_bytes"].as_u64(), Some(sum));

    let bad = file("[agent]\nclustr = \"eu\"\n");
    let output = nodewick().args(["check", "-o", "json", "-c"]).arg(bad.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(78));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&answer["ok"], &answer["errors"][0]["line"]), (&false.into(), &2.into()));
    assert_eq!(answer["errors"][0]["help"], "did you mean `cluster`?");
}

#[test]
fn the_environment_and_flags_reach_the_config() {
    let output = nodewick()
        .env("NODEWICK_AGENT_CLUSTER", "from-env")
        .args(["check", "--offline", "--set", "logs.root=/from/flag"])
        .output()
        .expect("runs");
    let shown = text(&output.stdout);
    assert!(shown.contains("cluster = \"from-env\"  # env NODEWICK_AGENT_CLUSTER\n"), "{shown}");
    assert!(shown.contains("root = \"/from/flag\"  # --set logs.root\n"), "{shown}");
}

#[test]
fn the_version_names_the_compiler() {
    let shown = text(&nodewick().arg("version").output().expect("runs").stdout);
    assert!(shown.starts_with("nodewick 0.1.0 (") && shown.contains("rustc 1."), "{shown}");
    assert_eq!(text(&nodewick().arg("--version").output().expect("runs").stdout), shown);
}

#[test]
fn the_first_help_screen_has_at_most_eight_verbs() {
    let help = text(&nodewick().arg("--help").output().expect("runs").stdout);
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let count = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).count();
    assert!((3..=8).contains(&count), "{help}");
}

#[test]
fn a_port_in_use_is_an_error_of_the_start_that_says_what_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let state = tempfile::tempdir().expect("temp dir");
    let config = file(&format!(
        "[agent]\nstate_dir = {:?}\n[logs]\nroot = {:?}\n[admin]\nlisten = \"{address}\"\n",
        state.path(),
        state.path()
    ));
    let output = nodewick().args(["run", "-c"]).arg(config.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).ends_with(&format!(
            "nodewick: error: cannot listen on {address}: the port is in use, perhaps by another nodewick; stop it, \
             or change [admin] listen (NODEWICK_ADMIN_LISTEN)\n"
        )),
        "{}",
        text(&output.stderr)
    );
}

/// A running agent; killed by its pid when the test ends before it does.
struct Agent {
    child: Child,
    address: String,
    _config: tempfile::NamedTempFile,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    fn start(state_dir: &str, root: &str) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let config = file(&format!(
            "[agent]\nstate_dir = {state_dir:?}\n[logs]\nroot = {root:?}\n[admin]\nlisten = \"{port}\"\n"
        ));
        let child = Command::new(env!("CARGO_BIN_EXE_nodewick"))
            .env_clear()
            .args(["run", "-c"])
            .arg(config.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let agent = Self { child, address: port.to_string(), _config: config };
        let deadline = Instant::now() + Duration::from_secs(15);
        while TcpStream::connect(&agent.address).is_err() {
            assert!(Instant::now() < deadline, "the listener did not open");
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    fn wait_for(&self, path: &str, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let answer = self.get(path);
            if answer.contains(what) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what:?} never came: {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        self.child.wait().expect("ended").code()
    }
}

#[test]
fn a_running_agent_is_ready_and_ends_with_0_on_sigterm() {
    let state = tempfile::tempdir().expect("temp dir");
    let root = state.path().to_str().expect("UTF-8");
    let agent = Agent::start(root, root);
    let answer = agent.wait_for("/readyz?verbose", "HTTP/1.1 200 OK");
    assert!(answer.contains("[+]state_dir ok\n") && answer.contains("[+]logs_root ok\n"), "{answer}");
    assert!(agent.get("/metrics").contains("nodewick_build_info{"));
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn an_unusable_state_directory_and_log_root_run_degraded_and_not_ready() {
    let agent = Agent::start("/proc/nowhere/state", "/nonexistent/pods");
    let answer = agent.wait_for("/health/ready", "[-]state_dir failed: cannot make /proc/nowhere/state: ");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("mount a writable directory there or change [agent] state_dir"), "{answer}");
    assert!(answer.contains("mount the node's /var/log/pods or change [logs] root"), "{answer}");
    assert!(agent.get("/health/live").starts_with("HTTP/1.1 200 "));
    assert_eq!(agent.terminate(), Some(0));
}
