//! A changed config while the real agent runs: nothing lost, nothing doubled, no restart; a bad one changes nothing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

#[path = "support/mod.rs"]
mod support;

use support::agent::{Agent, Settings};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_kube::{Cut, FakeKube, PodSpec};
use support::fake_loki::{FakeLoki, Fault, Limits, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
/// The promise where backends answer.
const RELOAD: Duration = Duration::from_secs(2);

/// How often each line has arrived at a Loki.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<HashMap<String, u32>>>);

impl Book {
    fn of(loki: &FakeLoki) -> Self {
        let book = Self::default();
        let entries = book.clone();
        loki.observe(
            true,
            Box::new(move |arrival| {
                *entries.0.lock().expect("no panic").entry(arrival.entry.line.clone()).or_default() += 1;
            }),
        );
        book
    }

    fn has(&self, line: &str) -> bool {
        self.0.lock().expect("no panic").contains_key(line)
    }

    fn lines(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }

    /// Lines that arrived more than once.
    fn doubled(&self) -> Vec<String> {
        let book = self.0.lock().expect("no panic");
        book.iter().filter(|(_, times)| **times > 1).map(|(line, _)| line.clone()).collect()
    }
}

/// A node with one container that writes numbered lines until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(log: &ContainerLog) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ended, count, log) = (Arc::clone(&stop), Arc::clone(&written), log.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !ended.load(Ordering::Acquire) {
                log.write_line(Pipe::Stdout, format!("line {number}").as_bytes()).expect("written");
                number += 1;
                count.store(number, Ordering::Release);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Number of lines written.
    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("stopped once").join().expect("no panic");
        self.written.load(Ordering::Acquire)
    }
}

/// Probes readiness all the time; the answers that were not 200.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Probe {
    fn start(address: std::net::SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut bad = Vec::new();
            while !ended.load(Ordering::Acquire) {
                let ask = || -> std::io::Result<String> {
                    let mut connection = std::net::TcpStream::connect(address)?;
                    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
                    connection.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n")?;
                    let mut answer = String::new();
                    connection.read_to_string(&mut answer)?;
                    Ok(answer)
                };
                match ask() {
                    Ok(answer)
                        if answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200") => {}
                    Ok(answer) => bad.push(answer),
                    Err(error) => bad.push(error.to_string()),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            bad
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("no panic")
    }
}

struct Rig {
    agent: Agent,
    base: String,
    log: ContainerLog,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn start(rest: &str) -> Self {
        let mut rig = Self::prepare(rest);
        rig.agent.launch();
        rig.agent.wait_ready();
        rig
    }

    fn prepare(rest: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let logs = dir.path().join("pods");
        let log = ContainerLog::create(&logs, "shop_api-1_u1", "api", 0).expect("a log").without_books();
        let home = dir.path().join("agent");
        let agent = Agent::prepare(&home, &logs, &Settings::default());
        let base = fs::read_to_string(home.join("agent.toml")).expect("written");
        fs::write(home.join("agent.toml"), format!("{base}{rest}")).expect("written");
        Self { agent, base, log, _dir: dir }
    }

    fn file(&self) -> PathBuf {
        self.agent.directory().join("agent.toml")
    }

    /// Puts another config in place, as a ConfigMap does: at once.
    fn write(&self, rest: &str) {
        self.write_whole(&format!("{}{rest}", self.base));
    }

    fn write_whole(&self, text: &str) {
        let new = self.agent.directory().join("agent.toml.new");
        fs::write(&new, text).expect("written");
        fs::rename(new, self.file()).expect("renamed");
    }

    /// What the agent has said since it said `before` bytes.
    fn log(&self) -> String {
        fs::read_to_string(self.agent.directory().join("agent.log")).expect("its output")
    }

    fn wait_said(&self, times: usize, words: &str, limit: Duration) {
        assert!(
            wait_until(limit, || self.log().matches(words).count() >= times),
            "never said {words:?} {times} times:\n{}",
            self.log()
        );
    }

    /// Replaces the config and waits for it to be in force; how long that took.
    fn reload(&self, rest: &str) -> Duration {
        let before = self.log().matches("reading goes on\"").count();
        let begun = Instant::now();
        self.write(rest);
        self.wait_said(before + 1, "reading goes on\"", PATIENCE);
        begun.elapsed()
    }
}

fn loki(name: &str, loki: &FakeLoki) -> String {
    format!("[sink.loki.{name}]\nurl = \"{}\"\n", loki.url())
}

#[test]
fn reloads_under_load_lose_and_double_nothing_and_readiness_holds() {
    let (first, second) = (FakeLoki::start(Limits::default()), FakeLoki::start(Limits::default()));
    let (one, two) = (Book::of(&first), Book::of(&second));
    let rig = Rig::start(&loki("one", &first));
    let pid = rig.agent.pid();
    let probe = Probe::start(rig.agent.admin());
    let writer = Writer::start(&rig.log);
    assert!(wait_until(PATIENCE, || one.lines() > 200));
    let mut slowest = Duration::ZERO;
    for rest in [
        format!("{}{}", loki("one", &first), loki("two", &second)),
        format!("{}{}[record]\nfields = [\"pod\"]\n", loki("one", &first), loki("two", &second)),
        format!("{}[logs.multiline]\nmode = \"off\"\n", loki("one", &first)),
        format!("{}[process.drop.x]\ncontains = [\"never said\"]\n", loki("one", &first)),
        loki("one", &first),
    ] {
        slowest = slowest.max(rig.reload(&rest));
        std::thread::sleep(Duration::from_millis(300));
    }
    let written = writer.stop();
    assert!(wait_until(PATIENCE, || one.lines() as u64 == written), "{} of {written}", one.lines());
    assert_eq!(one.doubled(), Vec::<String>::new());
    assert_eq!(two.doubled(), Vec::<String>::new());
    assert!(two.lines() > 0, "the sink that came and went got its part");
    assert_eq!(probe.stop(), Vec::<String>::new());
    assert_eq!(rig.agent.pid(), pid);
    assert!(slowest < RELOAD, "{slowest:?}");
    let page = rig.agent.get("/metrics").expect("the metrics page").1;
    assert!(
        !page.contains("nodewick_sink_up{sink=\"loki.two\"}"),
        "a sink that is gone is neither up nor down"
    );
    assert_eq!(rig.agent.metric("nodewick_config_last_reload_successful"), Some(1.0));
}

#[test]
fn a_bad_config_changes_nothing_and_says_where_it_is_wrong() {
    let backend = FakeLoki::start(Limits::default());
    let book = Book::of(&backend);
    let mut rig = Rig::start(&loki("one", &backend));
    let good_at = rig.agent.metric("nodewick_config_last_reload_success_timestamp_seconds");
    assert_eq!(rig.agent.metric("nodewick_config_last_reload_successful"), Some(1.0));
    rig.write(&format!("{}optionall = true\n", loki("one", &backend)));
    rig.wait_said(1, "the last good one stays in force", RELOAD);
    let said = rig.log();
    assert!(said.contains("agent.toml:20:1: error: sink.loki.one.optionall: unknown key"), "{said}");
    assert!(said.contains("optionall = true\\n   | ^^^^^^^^^"), "a caret below the key:\n{said}");
    assert!(said.contains("did you mean `optional`?"), "{said}");
    assert_eq!(rig.agent.metric("nodewick_config_last_reload_successful"), Some(0.0));
    assert_eq!(rig.agent.metric("nodewick_config_last_reload_success_timestamp_seconds"), good_at);
    let (status, page) = rig.agent.get("/health/ready?verbose").expect("answers");
    assert_eq!(status, 200, "logs flow: {page}");
    assert!(page.contains("[!]config: the last good config is in force"), "{page}");
    rig.log.write_line(Pipe::Stdout, b"still here").expect("written");
    assert!(wait_until(PATIENCE, || book.has("still here")));

    // A file that is no TOML, one that is gone, one that needs more memory than there is: each is told once.
    rig.write_whole("no toml at all");
    rig.wait_said(2, "the last good one stays in force", RELOAD);
    fs::remove_file(rig.file()).expect("removed");
    rig.wait_said(3, "the last good one stays in force", Duration::from_secs(12));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.log().matches("the last good one stays in force").count(), 3);
    assert!(rig.agent.runs());

    rig.reload(&format!("{}tenant = \"a\"\n", loki("one", &backend)));
    assert_eq!(rig.agent.metric("nodewick_config_last_reload_successful"), Some(1.0));
    let page = rig.agent.get("/health/ready?verbose").expect("answers").1;
    assert!(!page.contains("[!]config"), "{page}");
    rig.log.write_line(Pipe::Stdout, b"and again").expect("written");
    assert!(wait_until(PATIENCE, || book.has("and again")));
    assert!(rig.agent.terminate().success());
}

#[test]
fn a_configmap_swap_and_a_changed_secret_are_seen_without_a_signal() {
    let backend = FakeLoki::start(Limits { auth: true, ..Limits::default() });
    let book = Book::of(&backend);
    let mut rig = Rig::prepare(&loki("one", &backend));
    let volume = rig.agent.directory().to_owned();
    let secret = volume.join("tenant");
    // As the kubelet lays out a ConfigMap: a link through a link to a directory with a date.
    let put = |version: &str, text: &str| {
        fs::create_dir_all(volume.join(version)).expect("made");
        fs::write(volume.join(version).join("agent.toml"), text).expect("written");
        std::os::unix::fs::symlink(version, volume.join("..data_tmp")).expect("linked");
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("swapped");
    };
    fs::write(&secret, "team-a\n").expect("written");
    let base = rig.base.clone();
    let tenant = |cluster: &str| {
        let base = base.replace("cluster = \"test\"", &format!("cluster = \"{cluster}\""));
        format!("{base}{}tenant = \"${{file:{}}}\"\n", loki("one", &backend), secret.display())
    };
    put("..2026_1", &tenant("a"));
    fs::remove_file(rig.file()).expect("removed");
    std::os::unix::fs::symlink("..data/agent.toml", rig.file()).expect("linked");
    rig.agent.launch();
    rig.agent.wait_ready();
    put("..2026_2", &tenant("b"));
    rig.wait_said(1, "reading goes on\"", RELOAD);
    rig.log.write_line(Pipe::Stdout, b"after the swap").expect("written");
    assert!(wait_until(PATIENCE, || book.has("after the swap")));
    assert!(
        backend
            .streams()
            .iter()
            .any(|(tenant, labels)| tenant == "team-a" && labels.contains("cluster=\"b\""))
    );

    fs::write(&secret, "team-b\n").expect("written");
    rig.wait_said(2, "reading goes on\"", RELOAD);
    rig.log.write_line(Pipe::Stdout, b"for another team").expect("written");
    assert!(wait_until(PATIENCE, || book.has("for another team")));
    assert!(backend.streams().iter().any(|(tenant, _)| tenant == "team-b"), "{:?}", backend.streams());
    // A signal without a change is a good reload and stops nothing.
    rig.agent.signal(Signal::HUP);
    rig.wait_said(3, "config reloaded", RELOAD);
    assert_eq!(rig.log().matches("reading goes on\"").count(), 2);
}

#[test]
fn keys_that_need_a_restart_are_named_and_the_rest_holds() {
    let (first, second) = (FakeLoki::start(Limits::default()), FakeLoki::start(Limits::default()));
    let two = Book::of(&second);
    let rig = Rig::start(&loki("one", &first));
    let moved = format!("{}{}[telemetry]\nlog = \"warn\"\n", rig.base, loki("two", &second))
        .replace("state_dir = \"", "state_dir = \"/elsewhere");
    rig.write_whole(&moved);
    rig.wait_said(1, "reading goes on\"", RELOAD);
    let said = rig.log();
    for key in ["agent.state_dir", "telemetry.*"] {
        assert!(
            said.contains("a changed key takes effect at the next restart of nodewick only")
                && said.contains(&format!("\"key\":\"{key}\"")),
            "{said}"
        );
    }
    assert_eq!(rig.agent.metric("nodewick_config_keys_awaiting_restart"), Some(2.0));
    let page = rig.agent.get("/health/ready?verbose").expect("answers").1;
    assert!(page.contains("restart nodewick for agent.state_dir, telemetry.* to take effect"), "{page}");
    rig.log.write_line(Pipe::Stdout, b"to the new one").expect("written");
    assert!(wait_until(PATIENCE, || two.has("to the new one")));
    assert!(!Path::new("/elsewhere").exists());
}

#[test]
fn what_a_stuck_backend_holds_goes_to_its_successor() {
    let (stuck, healthy) = (FakeLoki::start(Limits::default()), FakeLoki::start(Limits::default()));
    let book = Book::of(&healthy);
    let mut rig = Rig::start(&loki("one", &stuck));
    stuck.set_fault(Some(Fault::Hang));
    let writer = Writer::start(&rig.log);
    assert!(
        wait_until(PATIENCE, || !stuck.requests().is_empty() || writer.written.load(Ordering::Acquire) > 500)
    );
    std::thread::sleep(Duration::from_millis(500));
    let took = rig.reload(&loki("one", &healthy));
    assert!(took < Duration::from_secs(14), "a stuck backend is waited for, but not for ever: {took:?}");
    let written = writer.stop();
    assert!(wait_until(PATIENCE, || book.lines() as u64 == written), "{} of {written}", book.lines());
    assert_eq!(book.doubled(), Vec::<String>::new());
    // Asked to end in the midst of a hand-over, it ends: nothing is started for that.
    healthy.set_fault(Some(Fault::Hang));
    rig.log.write_line(Pipe::Stdout, b"last").expect("written");
    std::thread::sleep(Duration::from_millis(500));
    rig.write(&loki("two", &healthy));
    rig.wait_said(2, "a new config: what was read is flushed", PATIENCE);
    let begun = Instant::now();
    assert!(rig.agent.terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}

/// An API server that knows the rig's pod, and a rig whose agent asks it. `[kube]` has further keys in front.
struct Cluster {
    rig: Rig,
    kube: FakeKube,
    backend: FakeLoki,
    kubeconfig: PathBuf,
}

/// Under the pod's own label, rather than under what its name says.
const TILL: &str = "service_name=\"till\"";

impl Cluster {
    fn start(keys: &str, away: bool) -> Self {
        let (kube, backend) = (FakeKube::start(), FakeLoki::start(Limits::default()));
        kube.set(PodSpec { name: "api-1", uid: "u1", ..PodSpec::default() }.object());
        kube.behave(|behaviour| behaviour.away = away);
        let rig = Rig::prepare("");
        let kubeconfig = kube.kubeconfig(&rig.agent.directory().join("kube"));
        let mut cluster = Self { rig, kube, backend, kubeconfig };
        cluster.rig.write(&cluster.config(keys, 0));
        cluster.rig.agent.launch();
        cluster.rig.agent.wait_ready();
        cluster
    }

    /// Another `round`, another config.
    fn config(&self, keys: &str, round: usize) -> String {
        let (kubeconfig, loki) = (&self.kubeconfig, loki("one", &self.backend));
        let rule = format!("[process.drop.x]\ncontains = [\"never said {round}\"]\n");
        format!("[kube]\nkubeconfig = {kubeconfig:?}\n{keys}\n{loki}{rule}")
    }

    /// Time until a line has arrived under these labels.
    fn arrival(&self, labels: &str, line: &str) -> Duration {
        let begun = Instant::now();
        let there = || self.backend.lines(labels).iter().any(|found| found == line);
        let (streams, seen) = (self.backend.streams(), self.kube.seen());
        assert!(wait_until(PATIENCE, there), "{line:?} is not under {labels}: {streams:?}\n{seen:?}");
        begun.elapsed()
    }

    /// The same of a line that an instance of the pod's container writes as its first.
    fn first_arrival(&self, restart: u32, labels: &str) -> Duration {
        let root = self.rig.log.live().parent().and_then(Path::parent).and_then(Path::parent);
        let log = ContainerLog::create(root.expect("a log root"), "shop_api-1_u1", "api", restart);
        let line = format!("first of {restart}");
        log.expect("a log").write_line(Pipe::Stdout, line.as_bytes()).expect("written");
        self.arrival(labels, &line)
    }

    fn health(&self) -> String {
        self.rig.agent.get("/health/ready?verbose").expect("answers").1
    }
}

#[test]
fn reloads_keep_the_pod_watch_and_no_line_waits() {
    let cluster = Cluster::start("", false);
    cluster.rig.log.write_line(Pipe::Stdout, b"before").expect("written");
    cluster.arrival(TILL, "before");
    for round in 1..=3 {
        // From the second one on nobody would answer.
        cluster.kube.behave(|behaviour| behaviour.away = round > 1);
        cluster.rig.reload(&cluster.config("", round as usize));
        let took = cluster.first_arrival(round, TILL);
        assert!(took < RELOAD, "round {round}: {took:?}");
    }
    cluster.kube.behave(|behaviour| behaviour.away = false);
    cluster.kube.set(PodSpec { name: "new", uid: "u2", ..PodSpec::default() }.object());
    let known = || cluster.rig.agent.metric("nodewick_kube_pods").is_some_and(|pods| pods >= 2.0);
    assert!(wait_until(PATIENCE, known), "{:?}", cluster.kube.seen());
    assert_eq!(cluster.kube.lists("pods"), 1, "{:?}", cluster.kube.seen());
    assert_eq!(cluster.kube.lists("namespaces"), 1, "{:?}", cluster.kube.seen());
}

#[test]
fn a_log_that_went_by_its_path_does_not_wait_again_after_a_reload() {
    let cluster = Cluster::start("wait = \"5s\"", true);
    cluster.rig.log.write_line(Pipe::Stdout, b"before").expect("written");
    let by_path = "service_name=\"api\"";
    let waited = cluster.arrival(by_path, "before");
    assert!(waited > Duration::from_secs(3), "it waits for its pod: {waited:?}");
    for round in 1..=2 {
        cluster.rig.reload(&cluster.config("wait = \"5s\"", round));
        let line = format!("after {round}");
        cluster.rig.log.write_line(Pipe::Stdout, line.as_bytes()).expect("written");
        let took = cluster.arrival(by_path, &line);
        assert!(took < RELOAD, "round {round}: {took:?}");
    }
    assert!(cluster.health().contains("[!]kube"), "the watch still says what is wrong");
}

#[test]
fn a_reload_that_changes_what_is_watched_begins_anew_and_one_without_kubernetes_ends_the_watch() {
    let cluster = Cluster::start("", false);
    assert!(cluster.first_arrival(0, TILL) < RELOAD);
    cluster.rig.reload(&cluster.config("pod_labels = [\"app\"]", 0));
    assert!(cluster.first_arrival(1, TILL) < RELOAD);
    let entries = cluster.backend.entries(TILL);
    let entry = entries.iter().find(|entry| entry.line == "first of 1").expect("it came");
    assert!(entry.metadata.iter().any(|(name, value)| name.contains("app") && value == "till"), "{entry:?}");
    assert_eq!(cluster.kube.lists("pods"), 2, "{:?}", cluster.kube.seen());
    // How long logs wait is nothing that the watch needs to know.
    cluster.rig.reload(&cluster.config("pod_labels = [\"app\"]\nwait = \"4s\"", 0));
    assert_eq!(cluster.kube.lists("pods"), 2, "{:?}", cluster.kube.seen());

    cluster.kube.behave(|behaviour| behaviour.forbidden = vec!["pods", "namespaces"]);
    cluster.kube.cut(Cut::Clean);
    assert!(wait_until(PATIENCE, || cluster.health().contains("[!]kube")), "{}", cluster.health());
    cluster.rig.reload(&cluster.config("mode = \"path\"", 0));
    assert!(!cluster.health().contains("[!]kube"), "{}", cluster.health());
    cluster.kube.forget_seen();
    assert!(cluster.first_arrival(2, "service_name=\"api\"") < RELOAD);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.kube.seen().len(), 0, "{:?}", cluster.kube.seen());
    assert!(!cluster.health().contains("[!]kube"), "{}", cluster.health());
}
