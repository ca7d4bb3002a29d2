//! Objectives in the running agent: declared by annotations of pods, observed where nobody declared any, exact over kills,
//! with the traces of bad requests and the share of lines that was lost.
//!
//! In: pods of a make-believe API server, CRI logs with the lines of a real service behind pino-http, and a scraped page. Out:
//! what `/metrics/workloads` and `nodewick why` say. Expected counts are those of the sample, counted by hand: of its ten
//! requests two are of `/metrics` and have no say; of the eight others one is a 500, and three took longer than 20 ms
//! (22, 41 and 47), one of them longer than 45.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use support::agent::{Agent, Settings};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_kube::{FakeKube, PodSpec};
use support::fake_loki::{FakeLoki, Fault, Limits, wait_until};

const SAMPLE: &str = include_str!("corpus/access/node-pino-http-otel.jsonl");

/// What is waited on a machine that is busy, where nothing is to be measured.
const AMPLE: Duration = Duration::from_secs(20);

const POD: &str = "checkout-d994d45d6-5h9zr";
const UID: &str = "d11c6e6d-84fc-49ec-95a1-4ee5155f656a";

/// A node: the agent, whom it asks, where it sends to, and its logs.
struct Node {
    // Dropped in this order: the agent before those whom it talks to.
    agent: Agent,
    kube: FakeKube,
    loki: FakeLoki,
    root: PathBuf,
    _directory: tempfile::TempDir,
}

impl Node {
    fn prepare(rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (kube, loki) = (FakeKube::start(), FakeLoki::start(Limits::default()));
        let root = directory.path().join("pods");
        std::fs::create_dir_all(&root).expect("a log root");
        let kubeconfig = kube.kubeconfig(&directory.path().join("kube"));
        let rest = format!(
            "[kube]\nmode = \"api\"\nkubeconfig = {kubeconfig:?}\n\n[scrape]\ninterval = \"1s\"\n\n[red]\ninterval = \"1s\"\n\n\
             [sink.loki.main]\nurl = \"{}\"\n\n{rest}",
            loki.url()
        );
        let settings = Settings { rest, ..Settings::default() };
        let agent = Agent::prepare(&directory.path().join("agent"), &root, &settings);
        Self { agent, kube, loki, root, _directory: directory }
    }

    fn start(&mut self) {
        self.agent.launch();
        self.agent.wait_ready();
    }

    fn pod(&self, name: &str, uid: &str, annotations: Value) {
        let mut pod = PodSpec { name, uid, app: "till", ..PodSpec::default() }.object();
        pod["metadata"]["annotations"] = annotations;
        self.kube.set(pod);
    }

    fn log(&self, pod: &str, uid: &str) -> ContainerLog {
        ContainerLog::create(&self.root, &format!("shop_{pod}_{uid}"), "api", 0).expect("a log")
    }

    fn page(&self) -> String {
        self.agent.get("/metrics/workloads").map(|(_, page)| page).unwrap_or_default()
    }

    /// Good and bad events of an objective of `shop`; `None` while it is not on the page.
    fn events(&self, slo: &str) -> Option<(f64, f64)> {
        let page = self.page();
        let of = |result: &str| {
            let slo_id = format!("shop/{slo}");
            values(&page, "slo_events_total", &[("slo_id", &slo_id), ("result", result)]).first().copied()
        };
        of("good").zip(of("bad"))
    }

    fn until(&self, what: &str, done: impl FnMut() -> bool) {
        assert!(
            wait_until(AMPLE, done),
            "never: {what}\n{}\n{}",
            of_objectives(&self.page()),
            self.agent.said()
        );
    }

    fn expect(&self, slo: &str, good: f64, bad: f64) {
        self.until(&format!("{slo} has {good} good and {bad} bad"), || self.events(slo) == Some((good, bad)));
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
        command.env_clear().timeout(Duration::from_secs(60)).args(arguments);
        command.arg("-c").arg(self.agent.directory().join("agent.toml"));
        let output = command.output().expect("runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

/// Values of the samples of a family that have these labels.
fn values(page: &str, family: &str, labels: &[(&str, &str)]) -> Vec<f64> {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let of_family = page.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
    let with_labels = of_family.filter_map(|rest| rest.split_once("} "));
    let found =
        with_labels.filter(|(own, _)| wanted.iter().all(|pair| own.split(',').any(|own| own == pair)));
    found
        .map(|(_, value)| value.split(' ').next().and_then(|text| text.parse().ok()).expect("a number"))
        .collect()
}

fn of_objectives(page: &str) -> String {
    page.lines()
        .filter(|line| line.starts_with("slo_") || line.starts_with("red_source"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Writes the sample's lines as if they had just been written, with ids of traces of their own where `trace` says so.
fn write_sample(log: &ContainerLog, trace: Option<&str>) {
    let now = jiff::Timestamp::now().as_millisecond();
    for line in SAMPLE.lines() {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        line["time"] = json!(now);
        if let Some(trace) = trace {
            line["trace_id"] = json!(trace);
        }
        log.write_line(Pipe::Stdout, line.to_string().as_bytes()).expect("written");
    }
}

fn annotations(latency: &str) -> Value {
    json!({
        "slo.nodewick.dev/availability": "99.95%/30d",
        "slo.nodewick.dev/latency": latency,
        "slo.nodewick.dev/owner": "team-shop",
    })
}

#[test]
fn annotated_objectives_count_exactly_over_a_kill() {
    let mut node = Node::prepare("");
    node.pod(POD, UID, annotations("99% < 20ms / 28d"));
    let log = node.log(POD, UID);
    // All of it is there before the agent knows the pod.
    write_sample(&log, None);
    node.start();
    node.expect("checkout/availability", 7.0, 1.0);
    node.expect("checkout/latency", 5.0, 3.0);
    let page = node.page();
    let info = |labels: &[(&str, &str)]| values(&page, "slo_objective_info", labels);
    let common =
        [("namespace", "shop"), ("workload", "checkout"), ("mode", "observe"), ("owner", "team-shop")];
    let availability =
        [("slo_id", "shop/checkout/availability"), ("sli", "availability"), ("objective", "0.9995")];
    assert_eq!(
        info(&[&common[..], &availability, &[("window", "30d")]].concat()),
        [1.0],
        "{}",
        of_objectives(&page)
    );
    let latency = [("slo_id", "shop/checkout/latency"), ("sli", "latency"), ("objective", "0.99")];
    let more = [("window", "28d"), ("threshold_seconds", "0.02"), ("cluster", "test"), ("node", "node-1")];
    assert_eq!(info(&[&common[..], &latency, &more].concat()), [1.0], "{}", of_objectives(&page));
    assert_eq!(node.events("checkout/observed"), None, "it has an availability objective");
    // The threshold has a bucket of its own.
    let bucket = [("workload", "checkout"), ("le", "0.02"), ("route", "/err")];
    assert_eq!(values(&page, "red_request_duration_seconds_bucket", &bucket), [0.0]);
    assert_eq!(values(&page, "slo_confidence_ratio", &[("workload", "checkout")]), [1.0]);

    write_sample(&log, None);
    node.expect("checkout/availability", 14.0, 2.0);
    node.agent.kill();
    write_sample(&log, None);
    // Nobody says what the pod declares before the log is read again.
    node.kube.behave(|behaviour| {
        behaviour.fault = Some(support::fake_kube::Fault { status: 503, retry_after: None });
    });
    node.start();
    node.expect("checkout/availability", 21.0, 3.0);
    node.expect("checkout/latency", 15.0, 9.0);
    node.kube.behave(|behaviour| behaviour.fault = None);
}

#[test]
fn objectives_follow_their_pods_annotations() {
    let mut node = Node::prepare("");
    node.pod(POD, UID, annotations("99% < 20ms"));
    let log = node.log(POD, UID);
    node.start();
    // Born before the first request.
    node.expect("checkout/availability", 0.0, 0.0);
    write_sample(&log, None);
    node.expect("checkout/availability", 7.0, 1.0);
    node.expect("checkout/latency", 5.0, 3.0);
    let annotate = |annotations: Value| {
        node.kube.edit("shop", POD, |pod| pod["metadata"]["annotations"] = annotations);
    };
    annotate(annotations("99% < 45ms"));
    let threshold = |threshold: &str| {
        let labels = [("slo_id", "shop/checkout/latency"), ("threshold_seconds", threshold)];
        values(&node.page(), "slo_objective_info", &labels) == [1.0]
    };
    node.until("the threshold is 45 ms", || threshold("0.045"));
    write_sample(&log, None);
    // What was counted stays: five and three, then seven and one.
    node.expect("checkout/latency", 12.0, 4.0);
    node.expect("checkout/availability", 14.0, 2.0);
    assert!(node.agent.said().contains("declares an objective otherwise"), "{}", node.agent.said());

    annotate(json!({"slo.nodewick.dev/availability": "100%/30d", "slo.nodewick.dev/latency": "99% < 45ms"}));
    node.until("a wrong objective is none, and the service is observed", || {
        node.events("checkout/availability").is_none() && node.events("checkout/observed").is_some()
    });
    assert_eq!(node.agent.metric("nodewick_kube_annotation_problems_total"), Some(1.0));
    let said = node.run(&["why", POD]);
    let problem = "pod shop/checkout-d994d45d6-5h9zr: annotation slo.nodewick.dev/availability = \"100%/30d\": an objective of 100% \
                   leaves no error budget to burn; write the failures you accept, like \"99.95%\"; write it like \"99.95%/30d\"";
    assert!(said.contains(problem), "{said}");
    annotate(json!({}));
    node.until("nothing is declared", || node.events("checkout/latency").is_none());
    annotate(annotations("99% < 45ms"));
    node.expect("checkout/availability", 14.0, 2.0);
}

/// Serves one page to whoever asks, for as long as the test runs.
struct Served {
    address: SocketAddr,
    body: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Served {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("a bound listener");
        let (body, asked) = (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default());
        let (page, count) = (Arc::clone(&body), Arc::clone(&asked));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { continue };
                let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
                let mut request = Vec::new();
                let mut chunk = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    match connection.read(&mut chunk) {
                        Ok(read) if read > 0 => request.extend_from_slice(&chunk[..read]),
                        _ => break,
                    }
                }
                let body = page.lock().clone();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = connection.write_all((head + &body).as_bytes());
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, body, asked }
    }

    /// A page as prom-client writes it, with so many requests by status; of `/metrics` alone there are errors that have no say.
    fn show(&self, good: u64, bad: u64) {
        let mut page = "# TYPE http_request_duration_seconds histogram\n".to_owned();
        for (route, status, count) in [("/a", 200, good), ("/a", 500, bad), ("/metrics", 500, bad)] {
            let labels = format!("method=\"GET\",route=\"{route}\",status_code=\"{status}\"");
            for le in ["0.1", "+Inf"] {
                page += &format!("http_request_duration_seconds_bucket{{le=\"{le}\",{labels}}} {count}\n");
            }
            page += &format!("http_request_duration_seconds_sum{{{labels}}} {}\n", count as f64 * 0.01);
            page += &format!("http_request_duration_seconds_count{{{labels}}} {count}\n");
        }
        *self.body.lock() = page;
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[test]
fn every_service_is_observed_by_what_its_requests_are_counted_from() {
    let served = Served::start();
    served.show(10, 4);
    let mut node = Node::prepare(&format!(
        "[slo.defaults]\nowner = \"platform\"\n[slo.web-latency]\nmatch = {{ namespace = \"shop\", workload = \"web\" }}\n\
         sli = \"latency\"\nobjective = \"99%\"\nthreshold = \"100ms\"\n\
         [slo.pay-availability]\nmatch = {{ namespace = \"shop\", workload = \"pay\" }}\nsli = \"availability\"\n\
         objective = \"99%\"\nexclude_routes = []\n\
         [[scrape.static]]\njob = \"web\"\ntargets = [\"{0}\"]\nlabels = {{namespace = \"shop\", workload = \"web\"}}\n\
         [[scrape.static]]\njob = \"pay\"\ntargets = [\"{0}\"]\nlabels = {{namespace = \"shop\", workload = \"pay\"}}\n",
        served.address
    ));
    node.pod(POD, UID, json!({}));
    write_sample(&node.log(POD, UID), None);
    node.start();
    node.expect("checkout/observed", 7.0, 1.0);
    node.expect("web/observed", 0.0, 0.0);
    let scrapes = served.asked();
    node.until("it was scraped", || served.asked() >= scrapes + 6);
    served.show(17, 7);
    node.expect("web/observed", 7.0, 3.0);
    // Where no lines tell it, a declared availability is counted so too; this one excludes no route.
    node.expect("pay/pay-availability", 7.0, 6.0);
    assert_eq!(node.events("pay/observed"), None);
    let page = node.page();
    for workload in ["checkout", "web"] {
        let slo_id = format!("shop/{workload}/observed");
        let labels = [
            ("slo_id", slo_id.as_str()),
            ("sli", "availability"),
            ("objective", "0.999"),
            ("window", "30d"),
            ("mode", "observe"),
            ("owner", "platform"),
        ];
        assert_eq!(values(&page, "slo_objective_info", &labels), [1.0], "{}", of_objectives(&page));
    }
    // Its histogram has a bucket at the threshold, and the ten requests between two scrapes are all within it.
    assert_eq!(node.events("web/web-latency"), Some((10.0, 0.0)));
    assert_eq!(values(&page, "slo_objective_info", &[("slo_id", "shop/web/web-latency")]), [1.0]);
    assert_eq!(values(&page, "slo_confidence_ratio", &[]), [1.0], "of the workload with lines alone");
    assert!(!page.contains("slo_sample_trace_info"), "nobody asked for traces");
}

#[test]
fn evidence_and_lost_lines_are_told() {
    let mut node = Node::prepare("[slo.defaults]\nobserved = \"off\"\ntrace_evidence = true\n");
    node.pod(POD, UID, annotations("99% < 20ms"));
    let log = node.log(POD, UID);
    write_sample(&log, Some("not-a-trace"));
    for n in 1..=7 {
        write_sample(&log, Some(&format!("{n:032x}")));
    }
    node.start();
    node.expect("checkout/availability", 56.0, 8.0);
    let traces = |slo: &str| {
        let page = node.page();
        let slo = format!("slo_id=\"shop/checkout/{slo}\"");
        let lines =
            page.lines().filter(|line| line.starts_with("slo_sample_trace_info{") && line.contains(&slo));
        let id = |line: &str| {
            let (_, rest) = line.split_once("trace_id=\"").expect("a trace id");
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        let mut ids: Vec<String> = lines.map(id).collect();
        ids.sort();
        ids
    };
    let newest: Vec<String> = (3..=7).map(|n| format!("{n:032x}")).collect();
    node.until("the newest five", || traces("availability") == newest);
    assert_eq!(traces("latency"), newest);
    node.until("all is delivered", || {
        node.loki.lines("service_name=\"till\"").len() == 8 * SAMPLE.lines().count()
    });
    let confidence = || values(&node.page(), "slo_confidence_ratio", &[("workload", "checkout")]);
    assert_eq!(confidence(), [1.0]);
    // As many lines again, which Loki refuses for good.
    node.loki.set_fault(Some(Fault::Status(400, None, "entry too weird")));
    (0..8).for_each(|_| write_sample(&log, None));
    node.until("half of the lines are lost", || confidence().first().is_some_and(|share| *share < 0.55));
    assert!(confidence()[0] > 0.45, "{:?}", confidence());
    node.expect("checkout/availability", 112.0, 16.0);
}

#[test]
fn manifests_declare_as_their_pods_will() {
    let dir = tempfile::tempdir().expect("a directory");
    let manifest = dir.path().join("shop.yaml");
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: checkout\nspec:\n  template:\n    metadata:\n      \
                annotations:\n        slo.nodewick.dev/availability: \"99.95%/30d\"\n        slo.nodewick.dev/mode: alert\n";
    std::fs::write(&manifest, text).expect("written");
    let out = dir.path().join("out");
    let run = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
        command.env_clear().current_dir(dir.path()).timeout(Duration::from_secs(60)).args(arguments);
        let output = command.output().expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let manifests = ["--manifests", "shop.yaml", "--namespace", "shop"];
    let (code, said) = run(&[&["slo", "render", "--only", "rules", "--out", "out"], &manifests[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let rules =
        std::fs::read_to_string(out.join("rules/shop.checkout.availability.yaml")).expect("a rule file");
    assert!(rules.contains("alert: SLOErrorBudgetBurn\n") && rules.contains("> 0.0072"), "{rules}");
    let (code, said) = run(&[&["slo", "lint"], &manifests[..]].concat());
    let line = "shop/checkout/availability: availability 99.95% over 30d, alerts; 0.05% of the requests may be bad, as in 21m36s \
                of outage";
    assert!(code == Some(0) && said.contains(line), "{said}");
    let (code, said) = run(&[&["slo", "simulate", "--errors", "1%", "--for", "2h"], &manifests[..]].concat());
    assert!(code == Some(0) && said.contains("after 43m30s"), "{said}");
    let (code, said) = run(&["slo", "render", "--out", "out", "--manifests", "shop.yaml"]);
    let problem = "shop.yaml:3: error: metadata: Deployment checkout has objectives and names no namespace";
    assert!(code == Some(1) && said.contains(problem), "{code:?} {said}");
}
