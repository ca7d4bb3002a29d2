//! The real agent against an API server that keeps the protocol of lists and watches: whose labels lines carry, what is
//! asked of the server, and what happens when it is slow, away, forgetful or says no.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodewick::data::clock;
use nodewick::data::pods::{self, Pods, Reader};
use nodewick::data::workload::{ContainerRef, Identify as _, Identity, PathIdentity};
use nodewick::health::Health;
use nodewick::kube::{self, Following, Patience};
use nodewick::logs::env::Env as _;
use nodewick::logs::os::Os;
use serde_json::json;

mod support;

use support::agent::{Agent, Settings, free_address};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_kube::{Cut, FakeKube, Fault, PodSpec, namespace};
use support::fake_loki::{FakeLoki, Limits, wait_until};

const SECOND: Duration = Duration::from_secs(1);

/// A uid as Kubernetes makes them.
fn uid(n: usize) -> String {
    format!("0f2707db-554a-4ca2-a9fe-{n:012x}")
}

/// A node with an agent, its API server and its Loki.
struct Rig {
    kube: FakeKube,
    loki: FakeLoki,
    agent: Agent,
    root: PathBuf,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new(kube: FakeKube, keys: &str) -> Self {
        let mut rig = Self::prepare(kube, keys);
        rig.agent.launch();
        rig.agent.wait_ready();
        rig
    }

    fn prepare(kube: FakeKube, keys: &str) -> Self {
        let directory = tempfile::tempdir().expect("temp dir");
        let (root, loki) = (directory.path().join("pods"), FakeLoki::start(Limits::default()));
        std::fs::create_dir_all(&root).expect("a log root");
        let kubeconfig = kube.kubeconfig(&directory.path().join("kube"));
        let rest = format!(
            "[kube]\nkubeconfig = {kubeconfig:?}\n{keys}\n\n[sink.loki.main]\nurl = \"{}\"\n",
            loki.url()
        );
        let settings = Settings { rest, ..Settings::default() };
        let agent = Agent::prepare(&directory.path().join("agent"), &root, &settings);
        Self { kube, loki, agent, root, _directory: directory }
    }

    /// A log of a container of a pod in `shop`.
    fn log(&self, pod: &str, uid: &str) -> ContainerLog {
        ContainerLog::create(&self.root, &format!("shop_{pod}_{uid}"), "api", 0).expect("a log")
    }

    fn has(&self, labels: &str, line: &str) -> bool {
        self.loki.lines(labels).iter().any(|found| found == line)
    }

    /// Time until a line has arrived under these labels.
    fn arrival(&self, labels: &str, line: &str) -> Duration {
        let begin = Instant::now();
        let there = wait_until(15 * SECOND, || self.has(labels, line));
        assert!(there, "{line:?} is not under {labels}: {:?}\n{:?}", self.loki.streams(), self.kube.seen());
        begin.elapsed()
    }

    fn synced(&self) {
        let synced = || {
            let (_, page) = self.agent.get("/metrics").expect("the page");
            page.contains("nodewick_kube_synced{resource=\"pods\"} 1")
        };
        assert!(wait_until(10 * SECOND, synced), "nothing was listed: {:?}", self.kube.seen());
    }

    /// Bytes of memory that the agent holds and that no file is behind.
    fn resident(&self) -> u64 {
        let pid = self.agent.pid().expect("it runs").as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    }
}

fn write(log: &ContainerLog, line: &str) {
    log.write_line(Pipe::Stdout, line.as_bytes()).expect("written");
}

fn pod<'a>(name: &'a str, uid: &'a str, app: &'a str) -> PodSpec<'a> {
    PodSpec { name, uid, app, ..PodSpec::default() }
}

const TILL: &str = "service_name=\"till\"";

#[test]
fn the_first_line_of_a_new_container_ships_with_its_labels_within_two_seconds() {
    let rig = Rig::new(FakeKube::start(), "pod_labels = [\"app\"]");
    rig.synced();
    let known = uid(1);
    rig.kube.set(pod("till-a", &known, "till").object());
    let log = rig.log("till-a", &known);
    write(&log, "first");
    let took = rig.arrival(TILL, "first");
    assert!(took < 2 * SECOND, "{took:?}");
    // The kubelet makes the directory before the event comes.
    let late = uid(2);
    let log = rig.log("till-b", &late);
    write(&log, "early");
    std::thread::sleep(SECOND);
    assert!(rig.loki.lines("").iter().all(|line| line != "early"), "it waits for its labels");
    rig.kube.set(pod("till-b", &late, "till").object());
    let took = rig.arrival(TILL, "early");
    assert!(took < 2 * SECOND, "{took:?}");
    let entry = rig.loki.entries(TILL).into_iter().find(|entry| entry.line == "early").expect("it came");
    let label = entry.metadata.iter().find(|(name, _)| name.contains("app"));
    assert_eq!(label.map(|(_, value)| value.as_str()), Some("till"), "{:?}", entry.metadata);
    assert_eq!(rig.kube.lists("pods"), 1);
    assert_eq!(rig.kube.lists("namespaces"), 1);
    let unscoped = rig.kube.seen().into_iter().filter(|seen| {
        seen.resource == "pods"
            && seen.query.get("fieldSelector").map(String::as_str) != Some("spec.nodeName=node-1")
    });
    assert_eq!(unscoped.count(), 0, "only this node's pods are asked for");
}

#[test]
fn without_an_api_lines_go_by_their_path_after_the_wait_and_later_ones_have_labels() {
    let kube = FakeKube::start();
    kube.behave(|behaviour| behaviour.away = true);
    let mut rig = Rig::prepare(kube, "wait = \"2s\"");
    let (old, new) = (uid(1), uid(2));
    rig.kube.set(pod("checkout-d994d45d6-5h9zr", &old, "till").object());
    let log = rig.log("checkout-d994d45d6-5h9zr", &old);
    write(&log, "one");
    let begin = Instant::now();
    rig.agent.launch();
    rig.agent.wait_ready();
    assert!(begin.elapsed() < 2 * SECOND, "ready after {:?}", begin.elapsed());
    let took = rig.arrival("service_name=\"checkout\"", "one");
    assert!(took < 5 * SECOND, "{took:?}");
    rig.kube.behave(|behaviour| behaviour.away = false);
    rig.synced();
    // Each watch comes back at a time of its own, and a pod is known with its namespace.
    let namespaces = || {
        let (_, page) = rig.agent.get("/metrics").expect("the page");
        page.contains("nodewick_kube_synced{resource=\"namespaces\"} 1")
    };
    assert!(wait_until(20 * SECOND, namespaces), "{:?}", rig.kube.seen());
    write(&log, "two");
    rig.arrival("service_name=\"checkout\"", "two");
    assert!(!rig.has(TILL, "two"), "labels are frozen for the container's life");
    rig.kube.set(pod("checkout-d994d45d6-7k2wq", &new, "till").object());
    let log = rig.log("checkout-d994d45d6-7k2wq", &new);
    write(&log, "three");
    assert!(rig.arrival(TILL, "three") < 2 * SECOND);
    assert!(rig.agent.metric("nodewick_kube_errors_total").unwrap_or(0.0) >= 1.0);
    assert_eq!(rig.agent.said().matches("Kubernetes does not tell").count(), 2, "once a resource");
}

#[test]
fn a_watch_that_ends_is_resumed_without_a_list() {
    let rig = Rig::new(FakeKube::start(), "");
    rig.synced();
    for (n, cut) in [Cut::Clean, Cut::Abort, Cut::Clean, Cut::Abort].into_iter().enumerate() {
        let (uid, name) = (uid(n + 1), format!("till-{n}"));
        rig.kube.cut(cut);
        // In the gap, and told by the resumed watch.
        rig.kube.set(pod(&name, &uid, "till").object());
        let log = rig.log(&name, &uid);
        write(&log, &name);
        let took = rig.arrival(TILL, &name);
        assert!(took < 8 * SECOND, "{cut:?}: {took:?}");
    }
    assert_eq!(rig.kube.lists("pods"), 1, "{:?}", rig.kube.seen());
    assert!(rig.kube.count("watch", "pods") >= 4);
}

#[test]
fn an_api_that_was_away_is_resumed_without_a_list_and_known_pods_never_wait() {
    let rig = Rig::new(FakeKube::start(), "wait = \"3s\"");
    let known = uid(1);
    rig.kube.set(pod("till-a", &known, "till").object());
    rig.synced();
    let log = rig.log("till-a", &known);
    write(&log, "before");
    rig.arrival(TILL, "before");
    rig.kube.behave(|behaviour| behaviour.away = true);
    write(&log, "meanwhile");
    assert!(rig.arrival(TILL, "meanwhile") < 2 * SECOND);
    let restarted =
        ContainerLog::create(&rig.root, &format!("shop_till-a_{known}"), "api", 1).expect("a log");
    write(&restarted, "restarted");
    assert!(rig.arrival(TILL, "restarted") < 3 * SECOND, "the pod is known");
    std::thread::sleep(2 * SECOND);
    rig.kube.behave(|behaviour| behaviour.away = false);
    let new = uid(2);
    rig.kube.set(pod("till-b", &new, "till").object());
    assert!(wait_until(20 * SECOND, || rig.agent.metric("nodewick_kube_pods").unwrap_or(0.0) >= 4.0));
    assert_eq!(rig.kube.lists("pods"), 1, "{:?}", rig.kube.seen());
}

#[test]
fn what_was_compacted_is_listed_once_and_what_is_gone_is_gone() {
    for gone_as_status in [false, true] {
        let kube = FakeKube::start();
        kube.behave(|behaviour| behaviour.gone_as_status = gone_as_status);
        let (stays, goes, comes) = (uid(1), uid(2), uid(3));
        kube.set(pod("till-a", &stays, "till").object());
        kube.set(pod("till-b", &goes, "till").object());
        let rig = Rig::new(kube, "");
        rig.synced();
        rig.kube.delete("shop", "till-b");
        rig.kube.compact();
        rig.kube.cut(Cut::Abort);
        rig.kube.set(pod("till-c", &comes, "till").object());
        let log = rig.log("till-c", &comes);
        write(&log, "new");
        let took = rig.arrival(TILL, "new");
        assert!(took < 10 * SECOND, "{took:?}");
        assert_eq!(rig.kube.lists("pods"), 2, "{:?}", rig.kube.seen());
        let (_, page) = rig.agent.get("/metrics").expect("the page");
        assert!(page.contains("nodewick_kube_pods{state=\"living\"} 2"), "{page}");
        assert!(
            page.contains("nodewick_kube_errors_total{reason=\"expired\",resource=\"pods\"} 1"),
            "{page}"
        );
    }
}

#[test]
fn a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks() {
    let kube = FakeKube::start();
    kube.behave(|behaviour| behaviour.fault = Some(Fault { status: 429, retry_after: Some(3) }));
    let rig = Rig::new(kube, "");
    assert!(wait_until(5 * SECOND, || rig.kube.count("streaming_list", "pods") == 1));
    rig.kube.behave(|behaviour| behaviour.fault = None);
    let log = rig.log("till-a", &uid(1));
    write(&log, "first");
    rig.kube.set(pod("till-a", &uid(1), "till").object());
    rig.arrival(TILL, "first");
    let seen: Vec<Instant> =
        rig.kube.seen().iter().filter(|seen| seen.resource == "pods").map(|seen| seen.at).collect();
    let pause = seen[1].duration_since(seen[0]);
    assert!(pause >= 3 * SECOND && pause < 6 * SECOND, "{pause:?}");
}

#[test]
fn a_missing_right_is_told_once_with_its_rule_and_logs_flow() {
    let kube = FakeKube::start();
    kube.behave(|behaviour| behaviour.forbidden = vec!["pods", "namespaces"]);
    let rig = Rig::new(kube, "wait = \"1s\"");
    let log = rig.log("checkout-d994d45d6-5h9zr", &uid(1));
    write(&log, "line");
    assert!(rig.arrival("service_name=\"checkout\"", "line") < 4 * SECOND);
    assert!(wait_until(5 * SECOND, || rig.kube.count("streaming_list", "pods") >= 2));
    let said = rig.agent.said();
    assert_eq!(
        said.matches("resources [\\\"pods\\\"], verbs [\\\"list\\\", \\\"watch\\\"]").count(),
        1,
        "{said}"
    );
    let (status, page) = rig.agent.get("/health/ready?verbose").expect("the page");
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("[!]kube: pods: 403 pods is forbidden"), "{page}");
    let (_, metrics) = rig.agent.get("/metrics").expect("the page");
    assert!(
        metrics.contains("nodewick_kube_errors_total{reason=\"forbidden\",resource=\"pods\"}"),
        "{metrics}"
    );
    rig.kube.behave(|behaviour| behaviour.forbidden = Vec::new());
    let mended = || {
        let (_, page) = rig.agent.get("/health/ready?verbose").expect("the page");
        !page.contains("403 pods")
    };
    assert!(wait_until(20 * SECOND, mended), "{}", rig.agent.said());
}

#[test]
fn pods_do_not_wait_for_namespaces_that_may_not_be_seen() {
    let kube = FakeKube::start();
    kube.behave(|behaviour| behaviour.forbidden = vec!["namespaces"]);
    let rig = Rig::new(kube, "");
    rig.synced();
    rig.kube.set(pod("till-a", &uid(1), "till").object());
    let log = rig.log("till-a", &uid(1));
    write(&log, "line");
    assert!(rig.arrival(TILL, "line") < 2 * SECOND);
    let said = rig.agent.said();
    assert!(said.contains("namespace_annotations = false"), "{said}");
}

#[test]
fn a_token_that_is_not_taken_is_read_again() {
    let rig = Rig::new(FakeKube::start(), "");
    rig.synced();
    rig.kube.behave(|behaviour| behaviour.token = Some("token-2".into()));
    let token = rig.agent.directory().parent().expect("a directory").join("kube/token");
    std::fs::write(token, "token-2").expect("written");
    rig.kube.cut(Cut::Clean);
    rig.kube.set(pod("till-a", &uid(1), "till").object());
    let log = rig.log("till-a", &uid(1));
    write(&log, "line");
    assert!(rig.arrival(TILL, "line") < 8 * SECOND);
    assert!(rig.kube.seen().iter().any(|seen| seen.status == 401));
    assert_eq!(rig.kube.lists("pods"), 1);
}

#[test]
fn a_node_that_the_api_does_not_know_is_told_with_the_fix() {
    let kube = FakeKube::start();
    let uid = uid(1);
    kube.set(PodSpec { node: "ip-10-0-0-7", ..pod("till-a", &uid, "till") }.object());
    let rig = Rig::new(kube, "wait = \"1s\"");
    let log = rig.log("checkout-d994d45d6-5h9zr", &uid);
    write(&log, "line");
    rig.arrival("service_name=\"checkout\"", "line");
    let told = || rig.agent.said().contains("set NODE_NAME from spec.nodeName");
    assert!(wait_until(15 * SECOND, told), "{}", rig.agent.said());
    let (status, page) = rig.agent.get("/health/ready?verbose").expect("the page");
    assert!(status == 200 && page.contains("[!]kube: the API knows no pod of node \"node-1\""), "{page}");
}

#[test]
fn no_line_goes_under_labels_that_are_not_its_own() {
    let rig = Rig::new(FakeKube::start(), "");
    rig.synced();
    // A name that comes again with another uid and another app, over and over, as StatefulSets do.
    let mut expected = Vec::new();
    for n in 0..6 {
        let (uid, app) = (uid(n + 1), format!("app-{n}"));
        if n > 0 {
            rig.kube.delete("shop", "db-0");
        }
        let log = rig.log("db-0", &uid);
        write(&log, &format!("{app} early"));
        if n % 2 == 1 {
            // Late metadata: the line is there before its pod is known.
            std::thread::sleep(SECOND / 2);
        }
        rig.kube.set(pod("db-0", &uid, &app).object());
        rig.arrival(&format!("service_name=\"{app}\""), &format!("{app} early"));
        // Labels that change while the container lives do not change its stream.
        rig.kube.edit("shop", "db-0", |pod| {
            pod["metadata"]["labels"]["app.kubernetes.io/name"] = json!("renamed");
        });
        std::thread::sleep(SECOND / 4);
        write(&log, &format!("{app} late"));
        rig.arrival(&format!("service_name=\"{app}\""), &format!("{app} late"));
        expected.push(app);
    }
    for app in &expected {
        let lines = rig.loki.lines(&format!("service_name=\"{app}\""));
        assert!(lines.iter().all(|line| line.starts_with(app.as_str())), "{app}: {lines:?}");
        assert_eq!(lines.len(), 2, "{app}: {lines:?}");
    }
    assert_eq!(rig.loki.lines("service_name=\"renamed\"").len(), 0);
    assert_eq!(rig.loki.lines("").len(), 12);
}

#[test]
fn annotations_of_a_namespace_are_those_of_its_pods() {
    let kube = FakeKube::start();
    kube.set(namespace("shop", json!({"nodewick.dev/tenant": "blue"})));
    let rig = Rig::new(kube, "tenants = [\"blue\", \"green\"]");
    rig.loki.limit(|limits| limits.auth = true);
    rig.synced();
    for (n, tenant) in ["blue", "green"].into_iter().enumerate() {
        let (uid, name) = (uid(n + 1), format!("till-{n}"));
        rig.kube.set(namespace("shop", json!({"nodewick.dev/tenant": tenant})));
        std::thread::sleep(SECOND / 4);
        rig.kube.set(pod(&name, &uid, "till").object());
        let log = rig.log(&name, &uid);
        write(&log, tenant);
        rig.arrival(TILL, tenant);
    }
    let mut tenants: Vec<String> = rig.loki.streams().into_iter().map(|(tenant, _)| tenant).collect();
    tenants.sort();
    assert_eq!(tenants, ["blue", "green"]);
}

#[test]
fn a_server_without_streaming_lists_is_listed_page_by_page() {
    let kube = FakeKube::start();
    kube.behave(|behaviour| {
        behaviour.streaming_lists = false;
        behaviour.page = 3;
    });
    for n in 1..=7 {
        kube.set(pod(&format!("till-{n}"), &uid(n), "till").object());
    }
    kube.set(PodSpec { node: "other", ..pod("far", &uid(99), "till") }.object());
    let rig = Rig::new(kube, "");
    rig.synced();
    let (_, page) = rig.agent.get("/metrics").expect("the page");
    assert!(page.contains("nodewick_kube_pods{state=\"living\"} 7"), "{page}");
    assert_eq!(rig.kube.count("list", "pods"), 3, "three pages of one list");
    let log = rig.log("till-7", &uid(7));
    write(&log, "line");
    rig.arrival(TILL, "line");
    rig.kube.set(pod("till-8", &uid(8), "till").object());
    let log = rig.log("till-8", &uid(8));
    write(&log, "eighth");
    assert!(rig.arrival(TILL, "eighth") < 2 * SECOND);
    assert_eq!(rig.kube.count("list", "pods"), 3);
    assert_eq!(rig.kube.count("streaming_list", "pods"), 1, "it is tried once");
}

#[test]
fn a_kubelet_is_asked_by_turns_and_at_once_for_a_log_that_waits() {
    let kube = FakeKube::start();
    let directory = tempfile::tempdir().expect("temp dir");
    kube.kubeconfig(directory.path());
    kube.behave(|behaviour| behaviour.token = Some("token-1".into()));
    let keys = format!(
        "mode = \"kubelet\"\n\n[kube.kubelet]\nurl = \"{}\"\ntoken_file = {:?}\npoll = \"30s\"",
        kube.url(),
        directory.path().join("token")
    );
    let rig = Rig::new(kube, &keys);
    rig.synced();
    assert_eq!(rig.kube.count("kubelet", "pods"), 1);
    rig.kube.set(pod("till-a", &uid(1), "till").object());
    let log = rig.log("till-a", &uid(1));
    write(&log, "line");
    assert!(rig.arrival(TILL, "line") < 2500 * SECOND / 1000);
    let begin = Instant::now();
    rig.kube.forget_seen();
    // Of this one the kubelet never hears.
    write(&rig.log("nobody", &uid(2)), "nobody's");
    std::thread::sleep(4 * SECOND);
    let asked = rig.kube.count("kubelet", "pods") as u64;
    assert!((2..=begin.elapsed().as_secs() + 1).contains(&asked), "{asked} times");
    assert_eq!(rig.kube.seen().iter().filter(|seen| seen.verb != "kubelet").count(), 0);
    rig.kube.behave(|behaviour| behaviour.forbidden = vec!["nodes/pods"]);
    let told = || rig.agent.said().contains("nodes/pods\\\"], verbs [\\\"get\\\"]");
    assert!(wait_until(15 * SECOND, told), "{}", rig.agent.said());
}

#[test]
fn an_agent_whose_api_comes_late_is_ready_at_once() {
    let directory = tempfile::tempdir().expect("temp dir");
    let address = free_address();
    let nowhere = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, nowhere.to_string()).expect("written");
    let root = directory.path().join("pods");
    std::fs::create_dir_all(&root).expect("a root");
    let rest = format!("[kube]\nkubeconfig = {kubeconfig:?}\n");
    let settings = Settings { rest, ..Settings::default() };
    let mut agent = Agent::prepare(&directory.path().join("agent"), &root, &settings);
    let begin = Instant::now();
    agent.launch();
    agent.wait_ready();
    assert!(begin.elapsed() < 2 * SECOND, "{:?}", begin.elapsed());
    let kube = FakeKube::start_at(address);
    kube.set(pod("till-a", &uid(1), "till").object());
    assert!(wait_until(15 * SECOND, || agent.metric("nodewick_kube_synced").unwrap_or(0.0) >= 1.0));
    assert!(agent.terminate().success());
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is worth reading")]
fn the_pods_of_a_full_node_take_little_memory() {
    for streaming_lists in [true, false] {
        let kube = FakeKube::start();
        kube.behave(|behaviour| behaviour.streaming_lists = streaming_lists);
        let warm = uid(0);
        kube.set(PodSpec { bytes: 44 << 10, ..pod("warm", &warm, "till") }.object());
        let rig = Rig::new(kube, "");
        rig.synced();
        std::thread::sleep(SECOND);
        let before = rig.resident();
        // By a list of everything, after the agent has lost its place.
        rig.kube.compact();
        let template = PodSpec { bytes: 44 << 10, ..pod("x", "u", "till") }.object();
        for n in 1..250 {
            let mut pod = template.clone();
            pod["metadata"]["name"] = json!(format!("till-{n}"));
            pod["metadata"]["uid"] = json!(uid(n));
            rig.kube.set(pod);
        }
        rig.kube.cut(Cut::Gone);
        write(&rig.log("nobody", &uid(4000)), "somebody waits");
        let full = || {
            let (_, page) = rig.agent.get("/metrics").expect("the page");
            page.contains("nodewick_kube_pods{state=\"living\"} 250")
        };
        assert!(wait_until(20 * SECOND, full), "{:?}", rig.kube.seen());
        std::thread::sleep(SECOND);
        let grown = rig.resident().saturating_sub(before);
        assert!(rig.kube.sent_bytes() > 10 << 20, "{} bytes", rig.kube.sent_bytes());
        println!("streaming lists {streaming_lists}: 250 pods of 44 KiB took {} KiB", grown >> 10);
        assert!(grown <= 5 << 20, "{grown} bytes more");
    }
}

#[test]
fn an_object_of_a_megabyte_is_read_and_not_kept() {
    let rig = Rig::new(FakeKube::start(), "");
    rig.synced();
    let uid = uid(1);
    rig.kube.set(PodSpec { bytes: 1 << 20, ..pod("till-a", &uid, "till") }.object());
    let log = rig.log("till-a", &uid);
    write(&log, "line");
    assert!(rig.arrival(TILL, "line") < 3 * SECOND);
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is worth reading")]
fn pods_that_come_and_go_leave_nothing_behind() {
    let rig = Rig::new(FakeKube::start(), "");
    rig.synced();
    let template = pod("x", "u", "till").object();
    let churn = |range: std::ops::Range<usize>| {
        let last = range.end;
        for n in range {
            let (name, uid) = (format!("till-{n}"), uid(n));
            let mut pod = template.clone();
            pod["metadata"]["name"] = json!(name);
            pod["metadata"]["uid"] = json!(uid);
            rig.kube.set(pod);
            rig.kube.delete("shop", &name);
        }
        // Everything has come through when a pod at the end has.
        let end = uid(900_000 + last);
        rig.kube.set(pod("end", &end, "till").object());
        let log = rig.log("end", &end);
        write(&log, &format!("end {last}"));
        rig.arrival(TILL, &format!("end {last}"));
        rig.kube.delete("shop", "end");
        std::thread::sleep(3 * SECOND);
        rig.resident()
    };
    churn(0..1000);
    let before = churn(1000..2000);
    let after = churn(2000..6000);
    let grown = after.saturating_sub(before);
    println!("4,000 pods of churn took {} KiB", grown >> 10);
    // The figure for 10,000 pods holds for fewer all the more.
    assert!(grown <= 1 << 20, "{grown} bytes more");
    assert_eq!(rig.kube.lists("pods"), 1);
    let (_, page) = rig.agent.get("/metrics").expect("the page");
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 2000, "{series} series");
}

/// The watch by itself, with less patience than an agent has.
struct Alone {
    pods: Pods,
    paths: Reader,
    _runtime: tokio::runtime::Runtime,
}

impl Alone {
    fn new(kube: &FakeKube, directory: &std::path::Path, patience: Patience) -> Self {
        let (writer, pods) = pods::directory();
        let config = kube::Config {
            kubeconfig: kube.kubeconfig(directory),
            namespace_annotations: false,
            ..kube::Config::default()
        };
        let following = Following { config, node: "node-1".into(), log_root: directory.to_owned(), patience };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(following.run(writer, Health::new()));
        let paths = PathIdentity { cluster: String::new(), node: "node-1".into(), environment: None };
        Self { paths: Reader::new(pods.clone(), paths, 60 * SECOND), pods, _runtime: runtime }
    }

    fn knows(&self, uid: &str) -> bool {
        self.pods.get(uid, clock::now()).is_some()
    }
}

#[test]
fn a_watch_that_has_died_silently_is_resumed_without_a_list() {
    let (kube, directory) = (FakeKube::start(), tempfile::tempdir().expect("temp dir"));
    let patience = Patience { watch: Some(2 * SECOND), grace: SECOND, ..Patience::default() };
    let alone = Alone::new(&kube, directory.path(), patience);
    assert!(wait_until(5 * SECOND, || alone.pods.is_synced()));
    kube.behave(|behaviour| behaviour.silent = true);
    // The watch that runs learns of its silence with the first event that it does not send.
    kube.set(pod("till-a", &uid(1), "till").object());
    assert!(wait_until(12 * SECOND, || kube.count("watch", "pods") >= 1), "{:?}", kube.seen());
    kube.behave(|behaviour| behaviour.silent = false);
    kube.cut(Cut::Clean);
    assert!(wait_until(12 * SECOND, || alone.knows(&uid(1))), "{:?}", kube.seen());
    assert_eq!(kube.lists("pods"), 1, "{:?}", kube.seen());
}

#[test]
fn a_silence_is_doubted_as_soon_as_a_log_waits() {
    let (kube, directory) = (FakeKube::start(), tempfile::tempdir().expect("temp dir"));
    let patience = Patience { doubtful: 2 * SECOND, ..Patience::default() };
    let mut alone = Alone::new(&kube, directory.path(), patience);
    assert!(wait_until(5 * SECOND, || alone.pods.is_synced()));
    kube.behave(|behaviour| behaviour.silent = true);
    std::thread::sleep(4 * SECOND);
    kube.set(pod("till-a", &uid(1), "till").object());
    std::thread::sleep(SECOND / 2);
    assert_eq!(kube.count("watch", "pods"), 0, "nobody waits");
    let log = ContainerRef::from_path(&format!("shop_till-a_{}", uid(1)), "api", 0).expect("a path");
    kube.behave(|behaviour| behaviour.silent = false);
    let known =
        wait_until(8 * SECOND, || matches!(alone.paths.identify(&log, clock::now()), Identity::Known(_)));
    assert!(known, "{:?}", kube.seen());
    assert_eq!((kube.lists("pods"), kube.count("watch", "pods")), (1, 1));
}

#[test]
fn a_server_that_takes_a_streaming_list_for_a_watch_is_listed_plainly() {
    let (kube, directory) = (FakeKube::start(), tempfile::tempdir().expect("temp dir"));
    kube.behave(|behaviour| behaviour.ancient = true);
    kube.set(pod("till-a", &uid(1), "till").object());
    let patience = Patience { initial: SECOND, ..Patience::default() };
    let alone = Alone::new(&kube, directory.path(), patience);
    assert!(wait_until(8 * SECOND, || alone.pods.is_synced()), "{:?}", kube.seen());
    assert!(alone.knows(&uid(1)));
    assert_eq!(kube.count("list", "pods"), 1);
}

#[test]
fn a_deleted_pod_is_told_apart_from_a_living_one_by_the_same_clock_that_logs_are_read_by() {
    let (kube, directory) = (FakeKube::start(), tempfile::tempdir().expect("temp dir"));
    kube.set(pod("till-a", &uid(1), "till").object());
    let alone = Alone::new(&kube, directory.path(), Patience::default());
    assert!(wait_until(5 * SECOND, || alone.pods.living().len() == 1));
    kube.delete("shop", "till-a");
    assert!(wait_until(5 * SECOND, || alone.pods.living().is_empty()));
    // The tail's own clock: were its epoch another one, the pod would be gone already or stay for ever.
    let os = Os::new(directory.path().to_owned(), Vec::new(), Arc::default());
    let apart = os.now().abs_diff(clock::now());
    assert!(apart < SECOND, "{apart:?} between the two clocks");
    assert!(alone.pods.get(&uid(1), os.now()).is_some(), "it is kept for its last lines");
}
