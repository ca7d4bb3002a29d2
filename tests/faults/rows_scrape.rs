//! Rows 40 to 43: pods that come and go by the thousand, targets that hang, targets that flood, annotations that lie.
//!
//! Each row has a network of its own (`tests/support/netns.rs`): pods have addresses that are not the node's, everything that
//! must not be dialled exists and is counted. Beside that the node writes logs, of which none may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Chance;
use crate::node::Load;
use crate::report::{Pass, Row};
use crate::rig::{Rig, Scale, Setup, peak_rss_bytes};
use crate::support::agent::Settings;
use crate::support::fake_kube::FakeKube;
use crate::support::netns::{NODE, Net, OWN_POD, address_of};
use crate::support::pod_servers::{Answer, Asked, PodServers};
use crate::support::remote_write::Receiver;

/// Bits of a value that ends a series. Source: Prometheus, `model/value/value.go`, `StaleNaN`.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What is waited where nothing is measured.
const AMPLE: Duration = Duration::from_secs(40);

/// Ports that pods serve on.
const PORTS: [u16; 7] = [3000, 8080, 80, 443, 6443, 10250, 2379];

/// A node whose pods are scraped.
struct Scraped {
    // Dropped in this order: the agent before those whom it talks to.
    rig: Rig,
    kube: FakeKube,
    sink: Receiver,
    servers: PodServers,
    net: Net,
    _directory: tempfile::TempDir,
}

impl Scraped {
    /// Sets everything up and waits for the agent. An error where no network namespace can be made.
    fn start(
        interval: &str,
        rule: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let net = Net::enter()?;
        let directory = tempfile::tempdir().expect("a directory");
        let (kube, sink) = (FakeKube::start(), Receiver::of_v1());
        let servers = PodServers::start(&net, &PORTS, rule);
        let kubeconfig = kube.kubeconfig(directory.path());
        let rest = format!(
            "[kube]\nmode = \"api\"\nkubeconfig = {kubeconfig:?}\nwait = \"0s\"\n\n[scrape]\ninterval = \"{interval}\"\n\n\
             [sink.remote_write.main]\nurl = \"{}\"\n",
            sink.url()
        );
        let env = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("POD_IP", OWN_POD), ("NODE_IP", NODE)];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let agent = Settings { rest, env, ..Settings::default() };
        let scale = Scale::of_run();
        let load = Load { lines_per_second: scale.pick(200, 20_000), ..scale.load() };
        let rig = Rig::start(Setup { agent, load, ..Setup::default() });
        let scraped = Self { rig, kube, sink, servers, net, _directory: directory };
        let synced = || scraped.page().contains("nodewick_kube_synced{resource=\"pods\"} 1");
        assert!(scraped.rig.wait(AMPLE, synced), "nothing was listed: {}", scraped.rig.agent.said());
        scraped.rig.node.start();
        Ok(scraped)
    }

    fn page(&self) -> String {
        self.rig.agent.get("/metrics").map(|answer| answer.1).unwrap_or_default()
    }

    /// A series of the agent's own; 0 where it is not there.
    fn own(&self, series: &str) -> f64 {
        let page = self.page();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    fn failures(&self, reason: &str) -> f64 {
        self.own(&format!("nodewick_scrape_failures_total{{reason=\"{reason}\"}}"))
    }

    fn targets(&self) -> Vec<Value> {
        let page = self.rig.agent.get("/targets").map(|answer| answer.1).unwrap_or_default();
        serde_json::from_str(&page).unwrap_or_default()
    }

    /// Pods that the agent knows to live.
    fn living(&self) -> usize {
        self.own("nodewick_kube_pods{state=\"living\"}") as usize
    }

    /// Waits until every target has been scraped at least once.
    fn all_scraped(&self) -> bool {
        patiently(|| self.targets().iter().all(|row| row["state"] != "unknown"))
    }

    /// Sets pods, waits until all that can be scraped have been, and deletes them.
    fn come_and_go(&self, pods: &[Value]) {
        let before = self.living();
        for pod in pods {
            self.kube.set(pod.clone());
        }
        let all = before + pods.len();
        assert!(patiently(|| self.living() == all), "{} of {all} pods", self.living());
        // The look for targets comes twice a second.
        std::thread::sleep(Duration::from_millis(700));
        assert!(self.all_scraped(), "targets that are not scraped: {}", self.rig.agent.said());
        for pod in pods {
            let text = |name: &str| pod["metadata"][name].as_str().expect("a text");
            self.kube.delete(text("namespace"), text("name"));
        }
        assert!(patiently(|| self.living() == before), "{} pods stay", self.living());
    }

    fn status(&self, what: &str) -> u64 {
        let pid = self.rig.agent.pid().expect("it runs").as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    }

    /// The least memory that it held within a while, so that what is freed a moment later does not count.
    fn settled_rss(&self, within: Duration) -> u64 {
        let begun = Instant::now();
        let mut least = u64::MAX;
        while begun.elapsed() < within {
            least = least.min(self.status("RssAnon:"));
            std::thread::sleep(Duration::from_millis(50));
        }
        least
    }

    /// The peak of memory is counted anew from now on.
    fn forget_peak(&self) {
        let pid = self.rig.agent.pid().expect("it runs").as_raw_nonzero();
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("our own child");
    }

    fn peak(&self) -> u64 {
        peak_rss_bytes(self.rig.agent.pid().expect("it runs").as_raw_nonzero().get()).expect("it runs")
    }

    /// Samples of a series of a pod, in the order of arrival: value bits and time.
    fn samples(&self, name: &str, pod: &str) -> Vec<(u64, i64)> {
        let taken = self.sink.taken().into_iter();
        let own = taken.filter(|series| series.label("__name__") == name && series.label("pod") == pod);
        own.flat_map(|series| series.samples).collect()
    }
}

/// Waits for what is costly to ask about.
fn patiently(mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < AMPLE {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    done()
}

/// A running pod of one container, as small as one can be.
fn pod(name: &str, number: usize, ip: &str, annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations,
            "uid": format!("0f2707db-554a-4ca2-a9fe-{number:012x}"), "labels": {"app.kubernetes.io/name": "till"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "api", "image": "registry.local/till:1",
            "ports": [{"containerPort": 3000, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": NODE}})
}

fn scraped(port: u16) -> Value {
    json!({"prometheus.io/scrape": "true", "prometheus.io/port": port.to_string()})
}

const HEALTHY: usize = 10;

/// Pods that answer well, on port 3000.
fn healthy(scraped_node: &Scraped) {
    for number in 1..=HEALTHY {
        let ip = address_of(number).to_string();
        scraped_node.kube.set(pod(&format!("good-{number}"), number, &ip, scraped(3000)));
    }
    let all_up = || {
        let up = scraped_node.targets().into_iter().filter(|row| row["state"] == "up").count();
        up == HEALTHY
    };
    assert!(scraped_node.rig.wait(AMPLE, all_up), "{}", scraped_node.rig.agent.said());
}

/// How far the distances between requests to each healthy pod are from the interval: median, 95th percentile, most.
fn jitter(asked: &[Asked], interval: Duration) -> [Duration; 3] {
    let mut off = Vec::new();
    for number in 1..=HEALTHY {
        let times: Vec<Instant> =
            asked.iter().filter(|asked| asked.ip == address_of(number)).map(|asked| asked.at).collect();
        off.extend(times.windows(2).map(|pair| (pair[1] - pair[0]).abs_diff(interval)));
    }
    off.sort_unstable();
    assert!(off.len() >= HEALTHY, "{} distances", off.len());
    [off[off.len() / 2], off[off.len() * 95 / 100], off[off.len() - 1]]
}

fn millis(times: [Duration; 3]) -> String {
    let [median, high, most] = times.map(|time| time.as_millis());
    format!("{median}/{high}/{most} ms")
}

/// What the others' ticks may be off. A machine that also builds and tests is late by itself at times.
fn check_jitter(row: &mut Row, found: [Duration; 3]) {
    let high = Duration::from_millis(Scale::of_run().pick(500, 100));
    row.check(
        found[0] <= Duration::from_millis(100),
        format!("the others' ticks are off: {}", millis(found)),
    );
    row.check(found[1] <= high, format!("the others' ticks are off: {}", millis(found)));
}

/// After the last samples until all that was held for them is free.
const SETTLE: Duration = Duration::from_millis(5500);

#[test]
fn row_40_pods_that_come_and_go_by_the_thousand() {
    let scale = Scale::of_run();
    let rounds = scale.pick(2, 10);
    let mut row = Row::begin(
        40,
        "Cardinality and churn bomb",
        format!(
            "{} pods come and go, a tenth of them scraped, each page with 50 series never seen before",
            rounds * 1000
        ),
    );
    let unique = AtomicU64::new(0);
    let rule = move |_: &Asked| {
        let lines =
            (0..50).map(|_| format!("churn{{id=\"{}\"}} 1\n", unique.fetch_add(1, Ordering::Relaxed)));
        Answer::Page(lines.collect())
    };
    let mut node = match Scraped::start("1s", rule) {
        Ok(node) => node,
        Err(reason) => return row.skip(&reason),
    };
    let mut settled = Vec::new();
    for round in 0..rounds {
        let pods: Vec<Value> = (0..1000)
            .map(|n| {
                let annotations = if n % 10 == 0 { scraped(3000) } else { json!({}) };
                let number = round * 1000 + n;
                pod(&format!("churn-{number}"), number, &address_of(number).to_string(), annotations)
            })
            .collect();
        node.come_and_go(&pods);
        // Until the series of what is gone have ended.
        let ended =
            || node.own("nodewick_scrape_targets") == 0.0 && node.own("nodewick_scrape_series") == 0.0;
        row.check(patiently(ended), "series of pods that are gone stay");
        // Requests to the backend wait for more samples, at most five seconds, and hold them.
        std::thread::sleep(SETTLE);
        settled.push(node.settled_rss(Duration::from_secs(1)));
    }
    let lines = node.page().lines().filter(|line| !line.starts_with('#')).count();
    node.rig.fault_ends();
    let outcome = node.rig.settle();
    // What the allocator keeps of peaks comes and goes by a MiB: the least of the last rounds has the least of it.
    let last = settled[1..].iter().rev().take(3).min().expect("a second round");
    let grown = last.saturating_sub(settled[0]);
    row.note(format!(
        "{} KiB more after {} pods than after the first 1,000 ({:?} KiB); {lines} series of its own",
        grown >> 10,
        rounds * 1000,
        settled.iter().map(|bytes| bytes >> 10).collect::<Vec<_>>()
    ));
    let asked = node.servers.asked().iter().map(|asked| asked.ip).collect::<BTreeSet<_>>().len();
    row.check(asked == rounds * 100, format!("{asked} pods were asked"));
    let limit = scale.pick(3, 1) << 20;
    row.check(grown <= limit, format!("{grown} bytes more than after the first 1,000 pods"));
    row.check(lines <= 2000, format!("{lines} series of its own"));
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_41_targets_that_hang() {
    let scale = Scale::of_run();
    let injected = "no answer to a connection, silence, a byte a second, 3 of each; a body without end; one that falls silent";
    let mut row = Row::begin(41, "Targets that hang or never end", injected);
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&is_silent);
    let turned = address_of(20);
    let rule = move |asked: &Asked| match asked.port {
        3000 if asked.ip == turned && silent.load(Ordering::SeqCst) => Answer::Silence,
        3000 => Answer::Page("good 1\n".to_owned()),
        8080 => Answer::Silence,
        80 => Answer::Drip,
        _ => Answer::Endless,
    };
    let mut node = match Scraped::start("1s", rule) {
        Ok(node) => node,
        Err(reason) => return row.skip(&reason),
    };
    healthy(&node);
    node.kube.set(pod("turned", 20, &turned.to_string(), scraped(3000)));
    node.servers.take_asked();
    std::thread::sleep(scale.time(3000));
    let alone = jitter(&node.servers.take_asked(), Duration::from_secs(1));
    let (before, peak) = (node.settled_rss(Duration::from_millis(300)), node.status("VmRSS:"));
    node.forget_peak();
    node.net.drop_in_pods("10.244.60.0/24");
    let mut bad = Vec::new();
    for copy in 0..3 {
        // What one body may hold is row 42's affair; three would hold three times as much.
        let kinds = if copy == 0 { 4 } else { 3 };
        for (at, (what, port)) in [("dropped", 3000), ("silent", 8080), ("drip", 80), ("endless", 443)]
            .into_iter()
            .take(kinds)
            .enumerate()
        {
            let (name, number) = (format!("{what}-{copy}"), 100 + 10 * at + copy);
            let ip = if what == "dropped" {
                format!("10.244.60.{}", copy + 1)
            } else {
                address_of(number).to_string()
            };
            node.kube.set(pod(&name, number, &ip, scraped(port)));
            bad.push(name);
        }
    }
    is_silent.store(true, Ordering::SeqCst);
    std::thread::sleep(scale.time(5000));
    let beside = jitter(&node.servers.take_asked(), Duration::from_secs(1));
    let grown = node.peak().saturating_sub(peak);
    check_jitter(&mut row, beside);
    row.check(node.failures("timeout") >= 9.0, format!("{} timeouts", node.failures("timeout")));
    bad.push("turned".to_owned());
    let down = || {
        let rows = node.targets();
        bad.iter().all(|name| rows.iter().any(|row| row["pod"] == name.as_str() && row["state"] == "down"))
    };
    row.check(node.rig.wait(AMPLE, down), "a target that hangs is not down");
    let zero = |name: &String| node.samples("up", name).last().is_some_and(|(bits, _)| *bits == 0);
    let all_zero = node.rig.wait(AMPLE, || bad.iter().all(zero));
    row.check(all_zero, "`up` of a target that hangs is not 0");
    // What fell silent ends where `up` is 0 first.
    let up = node.samples("up", "turned");
    let ended = up.iter().find(|(bits, _)| *bits == 0).map(|(_, time)| *time);
    let end = node.samples("good", "turned").last().copied();
    row.check(
        end.is_some_and(|(bits, time)| bits == STALE && Some(time) == ended),
        format!("the series of a target that fell silent end with {end:x?}, `up` is 0 at {ended:?}"),
    );
    row.note(format!(
        "distances of the others' ticks off by {} (median, 95th percentile, most), {} without the fault; {} KiB more at most of {} KiB",
        millis(beside),
        millis(alone),
        grown >> 10,
        before >> 10
    ));
    row.check(grown <= 20 << 20, format!("{grown} bytes more"));
    node.rig.fault_ends();
    let outcome = node.rig.settle();
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_42_bodies_that_are_too_large_or_wrong() {
    let scale = Scale::of_run();
    let gib = scale.pick(1, 10);
    let mut row = Row::begin(
        42,
        "Bodies that are too large or wrong",
        format!(
            "{gib} GiB of gzip, a body without end, 1,000,000 series, 21,000 series, malformed, duplicate series, false types"
        ),
    );
    let rule = move |asked: &Asked| {
        let page = |text: &str| Answer::Page(text.to_owned());
        match asked.path.as_str() {
            "/bomb" => Answer::Bomb(gib << 10),
            "/endless" => Answer::Endless,
            "/million" => Answer::Series(1_000_000),
            "/many" => Answer::Series(21_000),
            "/malformed" => page("good 1\nbad{a=\"b} 2\n"),
            "/duplicate" => page("twice{a=\"b\"} 1\ntwice{a=\"b\"} 2\nonce 3\n"),
            "/web" => page("<!doctype html><html>metrics</html>"),
            "/unended" => Answer::As("application/openmetrics-text; version=1.0.0", "good 1\n".to_owned()),
            _ => page("good 1\n"),
        }
    };
    let interval = Duration::from_secs(2);
    let mut node = match Scraped::start("2s", rule) {
        Ok(node) => node,
        Err(reason) => return row.skip(&reason),
    };
    healthy(&node);
    node.servers.take_asked();
    let small = [
        ("many", "limit"),
        ("malformed", "malformed"),
        ("web", "content_type"),
        ("unended", "malformed"),
        ("duplicate", ""),
    ];
    let large = [("bomb", "body_too_large"), ("endless", "body_too_large"), ("million", "body_too_large")];
    let mut figures = Vec::new();
    let mut number = 100;
    let phases: Vec<Vec<(&str, &str)>> =
        std::iter::once(small.to_vec()).chain(large.map(|one| vec![one])).collect();
    for phase in phases {
        let before = node.status("VmRSS:");
        node.forget_peak();
        for (path, _) in &phase {
            number += 1;
            let mut annotations = scraped(3000);
            annotations["prometheus.io/path"] = json!(format!("/{path}"));
            node.kube.set(pod(path, number, &address_of(number).to_string(), annotations));
        }
        for (path, reason) in &phase {
            let state = |wanted: &str| {
                let rows = node.targets();
                rows.into_iter().find(|row| row["pod"] == *path && row["state"] == wanted)
            };
            if reason.is_empty() {
                row.check(node.rig.wait(AMPLE, || state("up").is_some()), format!("{path} is not up"));
                continue;
            }
            let down = node.rig.wait(AMPLE, || state("down").is_some());
            let said = state("down").unwrap_or_default();
            row.check(down && said["reason"] == *reason, format!("{path}: {said}"));
            row.check(node.failures(reason) >= 1.0, format!("{path}: no failure is counted as {reason}"));
            let took = said["duration_seconds"].as_f64().unwrap_or(f64::INFINITY);
            figures.push(format!("{path} {took:.2} s"));
        }
        std::thread::sleep(scale.pick(Duration::ZERO, Duration::from_secs(10)));
        let grown = node.peak().saturating_sub(before);
        figures.push(format!("+{} KiB", grown >> 10));
        row.check(grown <= 20 << 20, format!("{phase:?}: {grown} bytes more"));
        if phase.len() > 1 {
            let twice = || node.samples("up", "duplicate").iter().any(|(bits, _)| *bits == 1_f64.to_bits());
            row.check(node.rig.wait(AMPLE, twice), "`up` of a page with a duplicate is not 1");
            let first = node.samples("twice", "duplicate");
            row.check(
                first.iter().all(|(bits, _)| *bits == 1_f64.to_bits() || *bits == STALE),
                "the second of two counts",
            );
            let dropped = node.own("nodewick_scrape_samples_total{outcome=\"duplicate\"}");
            row.check(dropped >= 1.0, "a duplicate is not counted");
            for (path, reason) in phase.iter().filter(|(_, reason)| !reason.is_empty()) {
                let zero = || node.samples("up", path).last().is_some_and(|(bits, _)| *bits == 0);
                row.check(node.rig.wait(AMPLE, zero), format!("{path} ({reason}): `up` is not 0"));
                row.check(node.samples("good", path).is_empty(), format!("{path}: half a page was taken"));
            }
        }
        for (path, _) in &phase {
            node.kube.delete("shop", path);
        }
        let gone = || node.targets().len() == HEALTHY;
        row.check(node.rig.wait(AMPLE, gone), "targets that are gone stay");
    }
    let beside = jitter(&node.servers.asked(), interval);
    check_jitter(&mut row, beside);
    row.note(format!(
        "{}; distances of the others' ticks off by {} (median, 95th percentile, most)",
        figures.join(", "),
        millis(beside)
    ));
    node.rig.fault_ends();
    let outcome = node.rig.settle();
    row.finish(&outcome, Pass::default());
}

/// Ports as somebody might write them.
const SAID_PORTS: [&str; 22] = [
    "3000",
    "8080",
    "80",
    "443",
    "6443",
    "10250",
    "2379",
    "1",
    "65535",
    "0",
    "65536",
    "-1",
    "+3000",
    "03000",
    "0xbb8",
    " 3000",
    "3000 ",
    "3000@169.254.169.254",
    "169.254.169.254:80",
    "3000\r\nHost: 127.0.0.1",
    "３０００",
    "",
];

/// Paths as somebody might write them.
const SAID_PATHS: [&str; 34] = [
    "/metrics",
    "/metrics?a=1&b=http://169.254.169.254/",
    "//evil",
    "//169.254.169.254/latest/meta-data/",
    "///127.0.0.1:10250/pods",
    "http://169.254.169.254/latest",
    "http://127.0.0.1:10250/pods",
    "@169.254.169.254/",
    "/@127.0.0.1:10250/",
    "a@10.96.0.1/",
    "/\r\nHost: 169.254.169.254\r\nX-Injected: 1",
    "/\nX-Injected: 1",
    "/%0d%0aX-Injected:%201",
    "/metrics HTTP/1.1\r\nHost: 10.96.0.1\r\n\r\nGET /",
    "/../../etc/passwd",
    "/%2e%2e/%2E%2e/",
    "\\\\169.254.169.254\\x",
    "/\\127.0.0.1",
    "/metrics#@169.254.169.254",
    "/2852039166/",
    "2130706433",
    "0x7f000001",
    "/0251.0376.0251.0376/",
    "0177.0.0.1:10250/",
    "/[::1]:10250/",
    "[fe80::1%25nw0]/",
    "/[::ffff:a9fe:a9fe]/",
    ":10250/metrics",
    ":80@127.0.0.1/",
    "?target=127.0.0.1",
    "#",
    "/\u{0}",
    "/\u{e9}\u{2100}",
    "",
];

/// Schemes as somebody might write them.
const SAID_SCHEMES: [&str; 8] =
    ["http", "https", "HTTP", "file", "gopher", "http://169.254.169.254", "unix", "https\r\n"];

/// What an API server should never say is a pod's address.
const SAID_ADDRESSES: [&str; 34] = [
    "169.254.169.254",
    "169.254.170.2",
    "127.0.0.1",
    "127.8.9.10",
    "10.96.0.1",
    "10.96.0.10",
    "10.111.255.254",
    NODE,
    OWN_POD,
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "0.1.2.3",
    "255.255.255.255",
    "224.0.0.1",
    "240.0.0.1",
    "::1",
    "::",
    "::ffff:169.254.169.254",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fe80::1",
    "fe80::1%nw0",
    "fd00:ec2::254",
    "fd77::1",
    "ff02::1",
    "2852039166",
    "0251.0376.0251.0376",
    "0x7f.1",
    "169.254.169.254:80",
    "localhost",
];

/// A pod whose annotations, and at times whose status, are made to mislead; its address is its own or a forbidden one.
fn lying(number: usize, chance: &mut Chance) -> Value {
    let one =
        |list: &[&str], chance: &mut Chance| list[chance.between(0, list.len() as u64) as usize].to_owned();
    let own = address_of(number).to_string();
    let ip = if chance.between(0, 4) == 0 { one(&SAID_ADDRESSES, chance) } else { own.clone() };
    let mut annotations = json!({"prometheus.io/scrape": "true"});
    let mut say = |name: &str, value: String| annotations[format!("prometheus.io/{name}")] = json!(value);
    // One lie at a time gets further than three.
    let lies = chance.between(0, 8);
    if lies != 0 {
        say("port", if lies & 1 == 1 { one(&SAID_PORTS, chance) } else { "3000".to_owned() });
    }
    if lies & 2 == 2 {
        let mut path = one(&SAID_PATHS, chance);
        // A letter somewhere is another one.
        if chance.between(0, 3) == 0 {
            let letters =
                ['/', '@', '\\', ':', '%', '\r', '\n', '?', '#', '.', ' ', '\u{ff0f}', '\u{7f}', '['];
            let at = chance.between(0, path.chars().count() as u64 + 1) as usize;
            let at = path.char_indices().nth(at).map_or(path.len(), |(at, _)| at);
            path.insert(at, letters[chance.between(0, letters.len() as u64) as usize]);
        }
        say("path", path);
    }
    if lies & 4 == 4 {
        say("scheme", one(&SAID_SCHEMES, chance));
    }
    let mut pod = pod(&format!("lie-{number}"), number, &ip, annotations);
    match chance.between(0, 20) {
        0 => pod["spec"]["hostNetwork"] = json!(true),
        // The second of two addresses is nobody's business.
        1 => pod["status"]["podIPs"] = json!([{"ip": ip}, {"ip": "169.254.169.254"}]),
        2 => pod["spec"]["containers"][0]["ports"][0]["hostIP"] = json!("127.0.0.1"),
        3 => pod["metadata"]["annotations"]["prometheus.io/host"] = json!("169.254.169.254"),
        4 => pod["metadata"]["annotations"]["prometheus.io/param_target"] = json!("http://127.0.0.1:10250/"),
        _ => {}
    }
    pod
}

/// In the range of the node's pods.
fn is_of_a_pod(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [10, 244, 0..64, _]))
}

#[test]
fn row_43_annotations_that_lead_elsewhere() {
    let cases = Scale::of_run().pick(5_000, 10_000);
    let mut row = Row::begin(
        43,
        "Requests to elsewhere by annotations",
        format!(
            "{cases} pods with misleading annotations and addresses, redirects to everything that is forbidden"
        ),
    );
    let rule = |asked: &Asked| {
        let IpAddr::V4(ip) = asked.ip else { return Answer::Page("good 1\n".to_owned()) };
        let number = u32::from(ip) as usize;
        let to =
            ["169.254.169.254/latest", "127.0.0.1:10250/pods", "10.96.0.1/api", NODE, OWN_POD, "8.8.8.8/"];
        match number % 3 {
            0 => Answer::Page("good 1\n".to_owned()),
            _ => {
                let scheme = if number.is_multiple_of(2) { "http:" } else { "" };
                let status = [301, 302, 303, 307, 308][number % 5];
                Answer::Redirect(status, format!("{scheme}//{}", to[number % to.len()]))
            }
        }
    };
    let mut node = match Scraped::start("1s", rule) {
        Ok(node) => node,
        Err(reason) => return row.skip(&reason),
    };
    let of_url = |url: &str| -> SocketAddr {
        let authority = url.trim_start_matches("http://").split('/').next().expect("an authority");
        authority.parse().expect("an address")
    };
    let wanted = [
        of_url(&node.kube.url()),
        of_url(&node.sink.url()),
        of_url(&node.rig.loki.url()),
        node.rig.agent.admin(),
    ];
    node.net.count(&wanted);
    // That the trap works: each kind of what is forbidden is counted once for one connection.
    let forbidden = [
        "127.0.0.1:10250",
        "192.168.77.1:10250",
        "10.244.127.1:80",
        "169.254.169.254:80",
        "10.96.0.1:443",
        "100.100.100.200:80",
        "168.63.129.16:80",
        "8.8.8.8:443",
    ];
    for address in forbidden {
        let address: SocketAddr = address.parse().expect("an address");
        drop(TcpStream::connect_timeout(&address, Duration::from_secs(5)));
    }
    let datagram = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", "10.96.0.10:53"));
    datagram.expect("it is sent");
    let trapped = node.net.take();
    let expected = [
        ("loopback", 1),
        ("the node", 1),
        ("the agent's own pod", 1),
        ("link-local", 1),
        ("services and the API server", 1),
        ("a metadata service", 2),
        ("anything else", 1),
        ("a datagram", 1),
    ];
    let expected: BTreeMap<String, u64> =
        expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    assert_eq!(trapped.forbidden, expected, "the trap does not work");
    assert_eq!(trapped.allowed, 0, "nobody is scraped yet");
    let heard = node.servers.take_dialled();
    assert!(heard.contains(&"169.254.169.254:80".parse().expect("an address")), "{heard:?}");

    let mut chance = Chance::of_run();
    let seed = chance.0;
    let (mut dialled, mut asked) = (0, 0);
    const BATCH: usize = 2500;
    for from in (0..cases).step_by(BATCH) {
        let pods: Vec<Value> = (from..from + BATCH).map(|number| lying(number, &mut chance)).collect();
        let said = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok());
        let given: BTreeSet<IpAddr> = said.filter(|ip| is_of_a_pod(*ip)).collect();
        node.come_and_go(&pods);
        for address in node.servers.take_dialled() {
            dialled += 1;
            row.check(given.contains(&address.ip()), format!("{address} is no pod's address"));
        }
        for request in node.servers.take_asked() {
            asked += 1;
            let host = format!("\r\nhost: {}:{}\r\n", request.ip, request.port);
            let head = request.head.to_ascii_lowercase();
            let is_clean = head.starts_with("get /")
                && !head.starts_with("get //")
                && head.contains(&host)
                && head.matches("\r\nhost:").count() == 1
                && !["\r\nx-injected", "authorization", "cookie", "\nx-injected"]
                    .iter()
                    .any(|bad| head.contains(bad));
            row.check(is_clean, format!("asked for {:?}", request.head));
        }
    }
    let counted = node.net.take();
    row.note(format!(
        "seed {seed}: {} connections to pods of the node ({dialled} accepted, {asked} requests), {:?} elsewhere; {} of a trap's {} kinds tried",
        counted.allowed,
        counted.forbidden,
        trapped.forbidden.len(),
        expected.len()
    ));
    row.check(counted.forbidden.is_empty(), format!("connections to {:?}, seed {seed}", counted.forbidden));
    row.check(counted.allowed >= cases as u64 / 4, format!("only {} connections at all", counted.allowed));
    row.check(asked >= cases / 10, format!("only {asked} requests at all"));
    row.check(node.failures("status") > 0.0, "no redirect was refused");
    node.rig.fault_ends();
    let outcome = node.rig.settle();
    row.finish(&outcome, Pass::default());
}
