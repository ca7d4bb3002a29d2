//! Pods that are scraped, from the API server's watch to what a backend has: the real agent in a network of its own.
//!
//! In: pods of a make-believe API server whose addresses are reached over a link, as on a node. Out: what is asked of them,
//! which series arrive under which labels, when they end, and what the agent says of pods that it does not scrape.

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::agent::{Agent, Settings};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_kube::{FakeKube, PodSpec};
use support::fake_loki::{FakeLoki, Limits, wait_until};
use support::netns::{NODE, Net, OWN_POD, address_of};
use support::pod_servers::{Answer, Asked, PodServers};
use support::remote_write::{Receiver, Series};

/// How often pods are scraped here: as often as can be.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is waited on a machine that is busy, where nothing is to be measured.
const AMPLE: Duration = Duration::from_secs(20);

/// Bits of a value that ends a series. Source: Prometheus, `model/value/value.go`, `StaleNaN`.
const STALE: u64 = 0x7ff0_0000_0000_0002;

fn uid(n: usize) -> String {
    format!("0f2707db-554a-4ca2-a9fe-{n:012x}")
}

/// A node: the agent, whom it asks, where it sends to, and its pods.
struct Node {
    // Dropped in this order: the agent before those whom it talks to.
    agent: Agent,
    kube: FakeKube,
    loki: FakeLoki,
    sink: Receiver,
    servers: PodServers,
    root: PathBuf,
    _net: Net,
    _directory: tempfile::TempDir,
}

impl Node {
    /// `None` where no network namespace can be made, which is said.
    #[expect(clippy::print_stderr, reason = "a skipped test is said, not hidden")]
    fn start(rule: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Option<Self> {
        let net = match Net::enter() {
            Ok(net) => net,
            Err(reason) => {
                eprintln!("SKIP: {reason}");
                return None;
            }
        };
        let directory = tempfile::tempdir().expect("a directory");
        let (kube, loki, sink) = (FakeKube::start(), FakeLoki::start(Limits::default()), Receiver::of_v1());
        let servers = PodServers::start(&net, &[3000, 8080], rule);
        let root = directory.path().join("pods");
        std::fs::create_dir_all(&root).expect("a log root");
        let kubeconfig = kube.kubeconfig(&directory.path().join("kube"));
        let rest = format!(
            "[kube]\nmode = \"api\"\nkubeconfig = {kubeconfig:?}\n\n\
             [scrape]\ninterval = \"1s\"\n\n[red]\ninterval = \"1s\"\n\n\
             [sink.loki.main]\nurl = \"{}\"\n\n[sink.remote_write.main]\nurl = \"{}\"\n",
            loki.url(),
            sink.url()
        );
        let env = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("POD_IP", OWN_POD), ("NODE_IP", NODE)];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let settings = Settings { rest, env, ..Settings::default() };
        let mut agent = Agent::prepare(&directory.path().join("agent"), &root, &settings);
        agent.launch();
        agent.wait_ready();
        let node = Self { agent, kube, loki, sink, servers, root, _net: net, _directory: directory };
        let synced = || {
            let (_, page) = node.agent.get("/metrics").expect("the page");
            page.contains("nodewick_kube_synced{resource=\"pods\"} 1")
        };
        assert!(wait_until(AMPLE, synced), "nothing was listed: {}", node.agent.said());
        Some(node)
    }

    /// What the agent says of a pod.
    fn rows(&self, pod: &str) -> Vec<Value> {
        let (status, page) = self.agent.get("/targets").expect("the page");
        assert_eq!(status, 200, "{page}");
        let rows: Vec<Value> = serde_json::from_str(&page).expect("rows");
        rows.into_iter().filter(|row| row["pod"] == pod).collect()
    }

    /// Waits until there is one row of this state, and gives it.
    fn row(&self, pod: &str, state: &str) -> Value {
        let there = || self.rows(pod).iter().any(|row| row["state"] == state);
        assert!(
            wait_until(AMPLE, there),
            "{pod} is not {state}: {:?}\n{}",
            self.rows(pod),
            self.agent.said()
        );
        self.rows(pod).remove(0)
    }

    fn why(&self, pod: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
        command.args(["why", pod, "-n", "shop", "-c"]).arg(self.agent.directory().join("agent.toml"));
        let output = command.output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn log(&self, pod: &str, uid: &str) -> ContainerLog {
        ContainerLog::create(&self.root, &format!("shop_{pod}_{uid}"), "api", 0).expect("a log")
    }

    /// Series of a name and a pod, as far as they have arrived.
    fn series(&self, name: &str, pod: &str) -> Vec<Series> {
        let taken = self.sink.taken().into_iter();
        taken.filter(|series| series.label("__name__") == name && series.label("pod") == pod).collect()
    }

    /// Their samples in the order of arrival, value bits and time.
    fn samples(&self, name: &str, pod: &str) -> Vec<(u64, i64)> {
        self.series(name, pod).into_iter().flat_map(|series| series.samples).collect()
    }

    fn has_ended(&self, name: &str, pod: &str) -> bool {
        self.samples(name, pod).last().is_some_and(|(bits, _)| *bits == STALE)
    }
}

/// A pod of a Deployment, as the API server shows it.
fn pod(name: &str, uid: &str, ip: IpAddr, annotations: Value) -> Value {
    let app = name.split('-').next().expect("a name");
    let mut pod = PodSpec { name, uid, app, ..PodSpec::default() }.object();
    let meta = &mut pod["metadata"];
    meta["annotations"] = annotations;
    meta["labels"]["pod-template-hash"] = json!("d994d45d6");
    meta["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
        "name": format!("{app}-d994d45d6"), "uid": "8715c3de-b953-44a4-be4e-4215821f1324"}]);
    pod["status"]["phase"] = json!("Running");
    at(&mut pod, &ip.to_string());
    pod
}

/// Gives a pod this address.
fn at(pod: &mut Value, ip: &str) {
    pod["status"]["podIP"] = json!(ip);
    pod["status"]["podIPs"] = json!([{"ip": ip}]);
}

fn scraped(port: u16) -> Value {
    json!({"prometheus.io/scrape": "true", "prometheus.io/port": port.to_string()})
}

/// A page of a service that has served so many requests.
fn page(requests: u64) -> Answer {
    Answer::Page(format!(
        "# TYPE shop_orders_total counter\nshop_orders_total{{pod=\"mine\"}} {requests}\n\
         # TYPE http_request_duration_seconds histogram\n\
         http_request_duration_seconds_bucket{{method=\"GET\",route=\"/orders/:id\",status_code=\"200\",le=\"0.1\"}} {requests}\n\
         http_request_duration_seconds_bucket{{method=\"GET\",route=\"/orders/:id\",status_code=\"200\",le=\"+Inf\"}} {requests}\n\
         http_request_duration_seconds_sum{{method=\"GET\",route=\"/orders/:id\",status_code=\"200\"}} 1.5\n\
         http_request_duration_seconds_count{{method=\"GET\",route=\"/orders/:id\",status_code=\"200\"}} {requests}\n"
    ))
}

#[test]
fn an_annotated_pod_is_scraped_under_the_labels_of_its_logs_and_others_are_told_why_not() {
    let requests = AtomicU64::new(0);
    let Some(node) = Node::start(move |_| page(5 * requests.fetch_add(1, Ordering::Relaxed))) else { return };
    const POD: &str = "checkout-d994d45d6-5h9zr";
    let ip = address_of(1);
    let begun = Instant::now();
    node.kube.set(pod(POD, &uid(1), ip, scraped(3000)));
    assert!(wait_until(AMPLE, || !node.servers.asked_of(ip).is_empty()), "{}", node.agent.said());
    let first = node.servers.asked_of(ip).remove(0);
    let took = first.at - begun;
    assert!(took <= INTERVAL + Duration::from_secs(2), "scraped after {took:?}");
    assert_eq!((first.port, first.path.as_str()), (3000, "/metrics"));
    let head = first.head.to_ascii_lowercase();
    assert!(head.contains("\r\nhost: 10.244.0.2:3000\r\n"), "{head}");
    assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");

    // Its own log line, and the series.
    node.log(POD, &uid(1)).write_line(Pipe::Stdout, b"hello").expect("written");
    assert!(wait_until(AMPLE, || node.loki.entries("").iter().any(|entry| entry.line == "hello")));
    assert!(wait_until(AMPLE, || !node.series("up", POD).is_empty()));
    let labels: BTreeMap<String, String> = node.series("up", POD)[0].labels.iter().cloned().collect();
    let expected = [
        ("__name__", "up"),
        ("cluster", "test"),
        ("container", "api"),
        ("instance", "shop.checkout-d994d45d6-5h9zr.api"),
        ("job", "shop/checkout"),
        ("namespace", "shop"),
        ("node", "node-1"),
        ("pod", "checkout-d994d45d6-5h9zr"),
        ("service", "checkout"),
        ("workload", "checkout"),
        ("workload_kind", "Deployment"),
    ];
    let expected: BTreeMap<String, String> =
        expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    assert_eq!(labels, expected);
    let stream =
        "cluster=\"test\", container=\"api\", namespace=\"shop\", node=\"node-1\", service_name=\"checkout\"";
    let entry = node.loki.entries(stream).into_iter().find(|entry| entry.line == "hello");
    let entry = entry.unwrap_or_else(|| panic!("not under {stream}: {:?}", node.loki.streams()));
    let told = |name: &str| {
        let found = entry.metadata.iter().find(|(known, _)| known.replace('.', "_").ends_with(name));
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(told("pod"), Some(POD), "{:?}", entry.metadata);

    // An app's own label of the same name is renamed, and its histogram becomes the canonical family.
    assert_eq!(node.series("shop_orders_total", POD)[0].label("exported_pod"), "mine");
    let red = || {
        let all = node.series("red_requests_total", POD);
        all.into_iter().find(|one| one.label("code_class") == "2xx" && one.label("route") == "/orders/:id")
    };
    assert!(wait_until(AMPLE, || red().is_some()), "{}", node.agent.said());
    let one = red().expect("it is there");
    for (name, value) in
        [("namespace", "shop"), ("workload", "checkout"), ("service", "checkout"), ("method", "GET")]
    {
        assert_eq!(one.label(name), value, "{:?}", one.labels);
    }
    let values = || -> Vec<f64> {
        let all = node.series("red_requests_total", POD).into_iter();
        let all = all.filter(|one| one.label("code_class") == "2xx");
        all.flat_map(|one| one.samples).map(|(bits, _)| f64::from_bits(bits)).collect()
    };
    assert!(wait_until(AMPLE, || values().last().is_some_and(|last| *last >= 5.0)), "{:?}", values());
    assert_eq!(values()[0], 0.0, "a counter is born at 0");

    // What the agent says of it, and of pods that it does not scrape.
    let up = node.row(POD, "up");
    assert_eq!(up["url"], "http://10.244.0.2:3000/metrics");
    assert_eq!((&up["uid"], &up["labels"]["workload"]), (&json!(uid(1)), &json!("checkout")));
    assert_eq!(up["samples"], 5);
    let mut others = Vec::new();
    let mut other =
        |name: &'static str, reason: &'static str, says: &'static str, change: &dyn Fn(&mut Value)| {
            let number = 10 + others.len();
            let mut object = pod(name, &uid(number), address_of(number), scraped(3000));
            change(&mut object);
            node.kube.set(object);
            node.log(name, &uid(number)).write_line(Pipe::Stdout, b"here").expect("written");
            others.push((name, reason, says));
        };
    other("plain-d994d45d6-a", "not_annotated", "no annotation asks for it", &|pod| {
        pod["metadata"]["annotations"] = json!({});
    });
    other("host-d994d45d6-a", "host_network", "shares the node's network", &|pod| {
        pod["spec"]["hostNetwork"] = json!(true);
        at(pod, NODE);
    });
    other("portless-d994d45d6-a", "no_port", "no port is known", &|pod| {
        pod["metadata"]["annotations"] = json!({"prometheus.io/scrape": "true"});
        pod["spec"]["containers"][0]["ports"] = json!([]);
    });
    other("evil-d994d45d6-a", "bad_path", "names another host", &|pod| {
        pod["metadata"]["annotations"]["prometheus.io/path"] = json!("//169.254.169.254/latest");
    });
    other("cloud-d994d45d6-a", "denied_address", "link-local; clouds keep credentials there", &|pod| {
        at(pod, "169.254.169.254");
    });
    for (name, reason, says) in others {
        let row = node.row(name, "not_scraped");
        assert_eq!(row["reason"], reason, "{row}");
        assert!(row["message"].as_str().is_some_and(|message| message.contains(says)), "{row}");
        let told = || node.why(name).contains(says);
        assert!(wait_until(AMPLE, told), "why {name}:\n{}", node.why(name));
    }
    let told = || node.why(POD).contains("http://10.244.0.2:3000/metrics is up: 5 samples");
    assert!(wait_until(AMPLE, told), "{}", node.why(POD));
    let asked: Vec<IpAddr> = node.servers.asked().iter().map(|asked| asked.ip).collect();
    assert!(asked.iter().all(|asked| *asked == ip), "{asked:?}");
}

#[test]
fn pods_that_go_change_and_pass_their_address_on_are_never_mixed() {
    let generation = Arc::new(AtomicU64::new(1));
    let now = Arc::clone(&generation);
    let rule = move |asked: &Asked| {
        let generation = now.load(Ordering::SeqCst);
        Answer::Page(format!("generation {generation}\nport {}\n", asked.port))
    };
    let Some(node) = Node::start(rule) else { return };
    let (gone, heir, set, moved) =
        ("first-d994d45d6-a", "second-d994d45d6-b", "web-d994d45d6-0", "moved-d994d45d6-c");
    let (ip, of_set, of_moved) = (address_of(1), address_of(2), address_of(3));
    let beside = "beside-d994d45d6-a";
    node.kube.set(pod(gone, &uid(1), ip, scraped(3000)));
    node.kube.set(pod(set, &uid(2), of_set, scraped(3000)));
    node.kube.set(pod(moved, &uid(3), of_moved, scraped(3000)));
    node.kube.set(pod(beside, &uid(4), address_of(4), scraped(3000)));
    for name in [gone, set, moved, beside] {
        assert!(wait_until(AMPLE, || node.samples("generation", name).len() >= 2), "{}", node.agent.said());
    }

    // Other annotations: the same series, from another place.
    node.kube.edit("shop", moved, |pod| {
        pod["metadata"]["annotations"] = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080",
            "prometheus.io/path": "/other?a=1"});
    });
    // A pod that is done keeps its address in the API until it is deleted, though another one has it.
    node.kube.edit("shop", beside, |pod| pod["status"]["phase"] = json!("Succeeded"));
    // Deleted; and one of a StatefulSet, which comes again by the same name.
    let deleted = Instant::now();
    node.kube.delete("shop", gone);
    node.kube.delete("shop", set);
    assert!(wait_until(AMPLE, || node.rows(gone).is_empty() && node.rows(set).is_empty()));
    assert_eq!(node.row(beside, "not_scraped")["reason"], "not_running");
    let known = deleted.elapsed();
    // What was being asked when it went may still come.
    std::thread::sleep(Duration::from_millis(300));
    let asked = node.servers.asked_of(ip).len();
    generation.store(2, Ordering::SeqCst);
    node.kube.set(pod(set, &uid(12), of_set, scraped(3000)));
    let tenant = "tenant-d994d45d6-d";
    node.kube.set(pod(tenant, &uid(14), address_of(4), scraped(3000)));
    assert!(wait_until(AMPLE, || node.has_ended("up", gone)), "{:?}", node.samples("up", gone));
    assert_eq!(
        node.servers.asked_of(ip).len(),
        asked,
        "nobody is asked at the address of a pod that is gone"
    );
    let arrived = node.sink.seen().into_iter().find(|seen| {
        let ends = |series: &Series| series.samples.iter().any(|(bits, _)| *bits == STALE);
        seen.series.iter().any(|series| series.label("pod") == gone && ends(series))
    });
    let waited = arrived.expect("it came").at - deleted;
    assert!(waited >= INTERVAL, "its series ended after {waited:?}");
    // A request to the backend waits for more samples, at most five seconds.
    assert!(waited <= known + 3 * INTERVAL + Duration::from_secs(12), "its series ended after {waited:?}");
    node.kube.set(pod(heir, &uid(11), ip, scraped(3000)));
    for name in [heir, tenant] {
        assert!(wait_until(AMPLE, || node.samples("generation", name).len() >= 2), "{}", node.agent.said());
    }
    assert!(wait_until(AMPLE, || {
        node.samples("generation", set).iter().any(|(bits, _)| *bits == 2_f64.to_bits())
    }));
    assert!(wait_until(AMPLE, || node.has_ended("up", beside)));

    // One page each, by time. What ends, ends at its first missed tick, and with everything of the target's.
    for name in ["generation", "up", "scrape_samples_scraped"] {
        for of in [gone, beside] {
            let samples = node.samples(name, of);
            let (end, before) = samples.split_last().expect("samples");
            assert_eq!(end.0, STALE, "{name} of {of}");
            let last = before.last().expect("samples").1;
            let distance = end.1 - last;
            assert!(
                (1..=1_100).contains(&distance),
                "{name} of {of} ends {distance} ms after its last sample"
            );
            assert!(before.iter().all(|(bits, _)| *bits != STALE), "{name} of {of} ends twice: {samples:?}");
        }
    }
    let values = |name: &str, of: &str| -> Vec<f64> {
        let samples = node.samples(name, of).into_iter().filter(|(bits, _)| *bits != STALE);
        samples.map(|(bits, _)| f64::from_bits(bits)).collect()
    };
    for (of, only) in [(gone, 1.0), (beside, 1.0), (heir, 2.0), (tenant, 2.0)] {
        let found = values("generation", of);
        assert!(found.iter().all(|value| *value == only), "{of}: {found:?}");
    }
    let mut times: Vec<i64> = node.samples("generation", set).into_iter().map(|(_, time)| time).collect();
    let sorted = times.clone();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times, sorted, "times of a series only go up");
    let (first, second) = (node.samples("generation", gone), node.samples("generation", heir));
    assert!(first.last().expect("samples").1 < second[0].1);
    // The same labels over another port, and no end in between.
    let ports = values("port", moved);
    assert!(ports.contains(&3000.0) && ports.last() == Some(&8080.0), "{ports:?}");
    assert!(ports.is_sorted(), "{ports:?}");
    assert!(node.samples("port", moved).iter().all(|(bits, _)| *bits != STALE));
    let last = node.servers.asked_of(of_moved).pop().expect("it is asked");
    assert_eq!((last.port, last.path.as_str()), (8080, "/other?a=1"));

    // No more of it, by its annotation.
    node.kube
        .edit("shop", moved, |pod| pod["metadata"]["annotations"]["prometheus.io/scrape"] = json!("false"));
    assert_eq!(node.row(moved, "not_scraped")["reason"], "declined");
    assert!(wait_until(AMPLE, || node.has_ended("port", moved)), "{:?}", node.samples("port", moved));
    // A tick that comes between a pod's end and the next look for targets is refused, and nothing else has failed.
    let (_, page) = node.agent.get("/metrics").expect("the page");
    let failures = page.lines().filter(|line| line.starts_with("nodewick_scrape_failures_total{"));
    let failures: Vec<_> =
        failures.filter(|line| !line.contains("\"moved\"") && !line.ends_with(" 0")).collect();
    assert!(failures.is_empty(), "{failures:?}");
}
