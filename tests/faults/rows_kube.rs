//! Rows 36, 37 and 38: an API server that is away, that forgets, that is slow, and pods that change under their logs.
//!
//! The server keeps the protocol of lists and watches (`tests/support/fake_kube.rs`). Whose labels lines carry is read off
//! the streams that arrive: each application has a service name that no path could give.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node::{Container, Load};
use crate::oracle::Name;
use crate::report::{Pass, Row};
use crate::rig::{Rig, Scale, Setup};
use crate::rows_backend::boundless;
use crate::rows_process::START;
use crate::support::agent::Settings;
use crate::support::fake_kube::{Cut, FakeKube, Fault, PodSpec};

/// Time on top of the wait for labels: the look for new files, a batch, a push, a machine that is busy.
const SLACK: Duration = Duration::from_secs(3);

/// A node whose pods an API server knows.
struct Cluster {
    // Dropped in this order: the agent before the one whom it asks.
    rig: Rig,
    kube: FakeKube,
    _directory: tempfile::TempDir,
}

impl Cluster {
    /// Sets everything up; the agent is not started. `keys` are further ones below `[kube]`.
    fn prepare(keys: &str, setup: Setup) -> Self {
        let (kube, directory) = (FakeKube::start(), tempfile::tempdir().expect("a directory"));
        let kubeconfig = kube.kubeconfig(directory.path());
        let rest = format!("[kube]\nkubeconfig = {kubeconfig:?}\n{keys}\n");
        let agent = Settings { rest, ..Settings::default() };
        let rig = Rig::start(Setup { agent, launch: false, ..setup });
        Self { rig, kube, _directory: directory }
    }

    /// The server learns of every pod that the node has.
    fn tell_all(&self) {
        let mut pods: BTreeMap<String, Vec<Arc<Container>>> = BTreeMap::new();
        for container in self.rig.node.containers() {
            pods.entry(container.name.uid.clone()).or_default().push(container);
        }
        for containers in pods.values() {
            self.kube.set(pod(containers, &service(&containers[0]), 0));
        }
    }

    /// Starts the agent; how long it took to be ready.
    fn launch(&mut self) -> Duration {
        let begun = Instant::now();
        self.rig.launch();
        self.rig.agent.wait_ready();
        begun.elapsed()
    }

    /// A new pod of one container, which has a pod of its own on the node and none at the server yet.
    fn add(&self, app: &str, number: usize) -> Arc<Container> {
        self.rig.node.add("late", app, number, "main")
    }

    /// A line by hand; how long it took to arrive.
    fn arrival(&self, container: &Container) -> Option<Duration> {
        let (seq, begun) = (container.write(), Instant::now());
        let there = || self.rig.oracle.has(container.index, seq);
        self.rig.wait(Duration::from_secs(20), there).then(|| begun.elapsed())
    }

    fn is_synced(&self) -> bool {
        let page = self.rig.agent.get("/metrics").map(|answer| answer.1).unwrap_or_default();
        page.contains("nodewick_kube_synced{resource=\"pods\"} 1")
    }

    /// The service names under which a container's namespace and name have streams.
    fn services(&self, of: &Container) -> BTreeSet<String> {
        let here =
            [format!("container={:?}", of.name.container), format!("namespace={:?}", of.name.namespace)];
        let streams = self.rig.loki.streams();
        let streams = streams.iter().filter(|(_, labels)| here.iter().all(|label| labels.contains(label)));
        streams.filter_map(|(_, labels)| label(labels, "service_name")).collect()
    }
}

/// The value of a label in a printed label set.
fn label(labels: &str, name: &str) -> Option<String> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

/// The service name that a pod's label gives: no path could.
fn service(of: &Container) -> String {
    format!("svc-{}", of.name.pod.split('-').take(2).collect::<Vec<_>>().join("-"))
}

/// A pod's object with these containers, of at least so many bytes.
fn pod(containers: &[Arc<Container>], app: &str, bytes: usize) -> Value {
    let name = &containers[0].name;
    let spec = PodSpec {
        namespace: &name.namespace,
        name: &name.pod,
        uid: &name.uid,
        app,
        container: &name.container,
        bytes,
        ..PodSpec::default()
    };
    let mut pod = spec.object();
    for (list, whole) in [("spec", "containers"), ("status", "containerStatuses")] {
        let first = pod[list][whole][0].clone();
        let all = containers.iter().map(|container| {
            let mut one = first.clone();
            one["name"] = json!(container.name.container);
            one
        });
        pod[list][whole] = all.collect();
    }
    pod
}

fn seconds(time: Option<Duration>) -> f64 {
    time.map_or(f64::INFINITY, |time| time.as_secs_f64())
}

#[test]
fn row_36_an_api_server_that_is_away() {
    let scale = Scale::of_run();
    let wait = Duration::from_secs(scale.pick(2, 10));
    let mut row = Row::begin(
        36,
        "API unavailable at start and for 10 min",
        format!(
            "connections closed from the start on and later again, {wait:?} of patience for labels, a kill -9"
        ),
    );
    let load = Load { lines_per_second: scale.pick(500, 20_000), ..scale.load() };
    let keys = format!("wait = \"{}s\"", wait.as_secs());
    let mut cluster = Cluster::prepare(&keys, Setup { load, ..Setup::default() });
    cluster.tell_all();
    cluster.kube.behave(|behaviour| behaviour.away = true);
    cluster.rig.node.start();
    let ready = cluster.launch();
    row.check(ready <= START, format!("ready after {ready:?}"));
    std::thread::sleep(wait + scale.time(1500));
    row.check(cluster.rig.oracle.distinct() > 0, "nothing arrives without an API");
    let by_path: BTreeSet<_> = cluster.rig.loki.streams().into_iter().collect();
    row.check(
        by_path.iter().all(|(_, labels)| !labels.contains("svc-")),
        "somebody knows what nobody could tell",
    );
    // It comes back: nothing changes for who flows, new pods have their labels.
    cluster.kube.behave(|behaviour| behaviour.away = false);
    let synced = cluster.rig.wait(Duration::from_secs(70), || cluster.is_synced());
    row.check(synced, "not synced after the API came back");
    let fresh = cluster.add("new-one", 7001);
    cluster.kube.set(pod(&[Arc::clone(&fresh)], "svc-new-one", 0));
    let labelled = cluster.arrival(&fresh);
    row.check(labelled.is_some_and(|took| took < wait), format!("a new pod's line took {labelled:?}"));
    row.check(
        cluster.services(&fresh) == BTreeSet::from(["svc-new-one".to_owned()]),
        format!("a new pod goes out under {:?}", cluster.services(&fresh)),
    );
    // Away again, and the agent is killed meanwhile: it knows no pod, and its checkpoint what it called each log.
    cluster.kube.behave(|behaviour| behaviour.away = true);
    let known = cluster.arrival(&fresh);
    row.check(known.is_some_and(|took| took < SLACK), format!("a known pod's line took {known:?}"));
    std::thread::sleep(scale.time(700));
    cluster.rig.kill();
    let again = cluster.launch();
    row.check(again <= START, format!("ready after {again:?} the second time"));
    let unknown = cluster.add("new-two", 7002);
    let took = cluster.arrival(&unknown);
    row.check(took.is_some_and(|took| took <= wait + SLACK), format!("an unknown pod's line took {took:?}"));
    cluster.kube.behave(|behaviour| behaviour.away = false);
    row.check(
        cluster.rig.wait(Duration::from_secs(70), || cluster.is_synced()),
        "not synced after the API came back for the second time",
    );
    cluster.rig.node.pause();
    cluster.rig.fault_ends();
    let outcome = cluster.rig.settle();
    // One stream a container, as its path has it: over the outage, the API's return and the kill.
    let streams = cluster.rig.loki.streams().into_iter();
    let old: Vec<_> = streams.filter(|(_, labels)| !labels.contains("namespace=\"late\"")).collect();
    let changed: Vec<_> = old.iter().filter(|(_, labels)| labels.contains("svc-")).collect();
    row.check(changed.is_empty(), format!("labels changed over the outage or the kill: {changed:?}"));
    row.check(
        old.len() == load.containers,
        format!("{} streams of {} containers", old.len(), load.containers),
    );
    let lists = cluster.kube.lists("pods");
    let worst = Duration::from_millis(outcome.tally.worst_latency_millis);
    row.note(format!(
        "ready after {} and {} ms; a line waited {:.1} s at most; {lists} lists in two lives; a new pod's first line {:.1} s",
        ready.as_millis(),
        again.as_millis(),
        worst.as_secs_f64(),
        seconds(labelled)
    ));
    row.check(lists == 2, format!("{lists} lists in two lives"));
    row.check(worst <= wait + SLACK, format!("a line waited {worst:?}"));
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_37_watches_that_drop_and_answers_that_are_none() {
    let scale = Scale::of_run();
    let large = scale.pick(20, 250);
    let mut row = Row::begin(
        37,
        "Watch drop, 410 Gone, slow watch, 429, large objects",
        format!("each under load, a new pod behind each; {large} pods of 44 KiB and one of 1 MiB"),
    );
    let load = Load { lines_per_second: scale.pick(500, 20_000), ..scale.load() };
    let mut cluster = Cluster::prepare("", Setup { load, ..Setup::default() });
    cluster.tell_all();
    let ready = cluster.launch();
    row.check(ready <= START, format!("ready after {ready:?}"));
    row.check(cluster.rig.wait(Duration::from_secs(20), || cluster.is_synced()), "not synced");
    cluster.rig.node.start();
    let mut slowest: (&str, Duration) = ("", Duration::ZERO);
    let rounds = scale.pick(1, 6);
    let mut number = 7100;
    for round in 0..rounds {
        // One 410 only: what a second one within five minutes costs is row 37's limit on lists, not on logs.
        let what = ["drop", "cut", "slow", "busy", "large", if round == 0 { "gone" } else { "drop" }];
        for what in what {
            match what {
                "drop" => cluster.kube.cut(Cut::Clean),
                "cut" => cluster.kube.cut(Cut::Abort),
                "slow" => {
                    cluster.kube.behave(|behaviour| behaviour.slow = Duration::from_millis(300));
                    cluster.kube.cut(Cut::Clean);
                }
                "busy" => {
                    let fault = Fault { status: 429, retry_after: Some(1) };
                    cluster.kube.behave(|behaviour| behaviour.fault = Some(fault));
                    cluster.kube.cut(Cut::Abort);
                    std::thread::sleep(Duration::from_millis(2500));
                    cluster.kube.behave(|behaviour| behaviour.fault = None);
                }
                "gone" => {
                    cluster.kube.compact();
                    cluster.kube.cut(Cut::Gone);
                }
                _ => {
                    for other in 0..large {
                        let (name, uid) =
                            (format!("large-{round}-{other}"), format!("large-{round}-{other}"));
                        let bytes = if other == 0 { 1 << 20 } else { 44 << 10 };
                        let large = PodSpec { name: &name, uid: &uid, bytes, ..PodSpec::default() };
                        cluster.kube.set(large.object());
                    }
                }
            }
            number += 1;
            let app = format!("after-{number}");
            let fresh = cluster.add(&app, number);
            cluster.kube.set(pod(&[Arc::clone(&fresh)], &format!("svc-{app}"), 0));
            let took = cluster.arrival(&fresh);
            row.check(
                took.is_some_and(|took| took < Duration::from_secs(10)),
                format!("{what}: a new pod's line took {took:?}"),
            );
            if let Some(took) = took.filter(|took| *took > slowest.1) {
                slowest = (what, took);
            }
            let wanted = format!("service_name=\"svc-{app}\"");
            let labelled = cluster.rig.loki.streams().iter().any(|(_, labels)| labels.contains(&wanted));
            row.check(labelled, format!("{what}: no stream of svc-{app}"));
            cluster.kube.behave(|behaviour| behaviour.slow = Duration::ZERO);
            std::thread::sleep(scale.time(300) / 6);
        }
        // What was large goes, so that a node's pods stay as many as a node's.
        for other in 0..large {
            cluster.kube.delete("shop", &format!("large-{round}-{other}"));
        }
    }
    cluster.rig.node.pause();
    cluster.rig.fault_ends();
    let outcome = cluster.rig.settle();
    let by_path = cluster.rig.loki.streams().into_iter().filter(|(_, labels)| !labels.contains("\"svc-"));
    let by_path: Vec<_> = by_path.collect();
    row.check(by_path.is_empty(), format!("streams without their pods' labels: {by_path:?}"));
    let (lists, watches) = (cluster.kube.lists("pods"), cluster.kube.count("watch", "pods"));
    row.note(format!(
        "{lists} lists, {watches} watches; a new pod's first line {:.1} s at most ({}); {} MiB from the server",
        slowest.1.as_secs_f64(),
        slowest.0,
        cluster.kube.sent_bytes() >> 20
    ));
    row.check(lists == 2, format!("{lists} lists: one at the start and one after the 410 are allowed"));
    let worst = Duration::from_millis(outcome.tally.worst_latency_millis);
    row.check(worst <= Duration::from_secs(10) + SLACK, format!("a line waited {worst:?}"));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_38_pods_that_change_under_their_logs() {
    let scale = Scale::of_run();
    let rounds = scale.pick(4, 40);
    let mut row = Row::begin(
        38,
        "Label change, pod name reuse, late metadata",
        format!("every pod relabelled under load, kill -9, {rounds} pods of one name one after the other"),
    );
    let load = Load { lines_per_second: scale.pick(300, 2000), ..scale.load() };
    let setup = Setup { load, limits: boundless(), keep: true, ..Setup::default() };
    let mut cluster = Cluster::prepare("pod_labels = [\"app\"]", setup);
    cluster.tell_all();
    let ready = cluster.launch();
    row.check(ready <= START, format!("ready after {ready:?}"));
    cluster.rig.node.start();
    std::thread::sleep(scale.time(1000));
    // Labels change mid-stream, and the agent is killed before and behind that.
    let pods: BTreeMap<String, String> = cluster
        .rig
        .node
        .containers()
        .iter()
        .map(|container| (container.name.pod.clone(), container.name.namespace.clone()))
        .collect();
    for (name, namespace) in &pods {
        cluster.kube.edit(namespace, name, |pod| {
            pod["metadata"]["labels"] = json!({"app": "moved", "app.kubernetes.io/name": "moved"});
        });
    }
    std::thread::sleep(scale.time(1000));
    cluster.rig.kill();
    let again = cluster.launch();
    row.check(again <= START, format!("ready after {again:?} the second time"));
    std::thread::sleep(scale.time(500));
    // One name, one pod after the other; of every second one the server tells late.
    for round in 0..rounds {
        let reused = cluster.rig.node.add("shop", "reused", 7300 + round, "main");
        let object = pod(&[Arc::clone(&reused)], &format!("svc-{}", reused.name.uid), 0);
        let late = round % 2 == 1;
        if !late {
            cluster.kube.set(object.clone());
        }
        for _ in 0..5 {
            reused.write();
        }
        if late {
            std::thread::sleep(Duration::from_millis(400));
            let early = cluster.rig.oracle.of(reused.index).1;
            row.check(early == 0, format!("{early} lines went out before anyone knew their pod"));
            cluster.kube.set(object);
        }
        let arrived = || {
            let (written, arrived) = cluster.rig.oracle.of(reused.index);
            written == arrived
        };
        row.check(cluster.rig.wait(Duration::from_secs(20), arrived), "lines of a reused name do not arrive");
        cluster.kube.delete("shop", &reused.name.pod);
        cluster.rig.node.delete_pod(&reused.name.uid).expect("a pod that is there");
    }
    cluster.rig.node.pause();
    cluster.rig.fault_ends();
    let outcome = cluster.rig.settle();
    // Under which labels each container's lines were stored, to the byte.
    let mut labels: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (_, stream) in cluster.rig.loki.streams() {
        for entry in cluster.rig.loki.entries(&stream) {
            let crate::line::Read::Whole(said) = crate::line::read(&entry.line) else { continue };
            let out = entry.metadata.iter().filter(|(name, _)| name.contains("app") || name.contains("pod"));
            let out: Vec<String> = out.map(|(name, value)| format!("{name}={value}")).collect();
            // The level is the line's own, the same in all of them.
            let whole = format!("{stream} {}", out.join(" "));
            labels.entry((said.pod_uid.to_owned(), said.container.to_owned())).or_default().insert(whole);
        }
    }
    let changed: Vec<_> = labels.iter().filter(|(_, sets)| sets.len() != 1).collect();
    row.check(changed.is_empty(), format!("label sets that changed: {changed:?}"));
    let mut wrong = Vec::new();
    for container in cluster.rig.node.containers() {
        let Name { uid, container: name, pod, .. } = &container.name;
        let wanted = if pod.starts_with("reused") { format!("svc-{uid}") } else { service(&container) };
        let sets = labels.get(&(uid.clone(), name.clone())).cloned().unwrap_or_default();
        let names: BTreeSet<_> = sets.iter().filter_map(|set| label(set, "service_name")).collect();
        let app = format!("app={wanted}");
        if names != BTreeSet::from([wanted]) || !sets.iter().all(|set| set.contains(&app)) {
            wrong.push((uid.clone(), sets));
        }
    }
    row.note(format!(
        "{} containers, each under one label set; {rounds} pods of one name, {} of them known late",
        labels.len(),
        rounds / 2
    ));
    row.check(wrong.is_empty(), format!("lines under other labels than their pod's first ones: {wrong:?}"));
    row.check(!labels.is_empty(), "no line was looked at");
    row.finish(&outcome, Pass::default());
}
