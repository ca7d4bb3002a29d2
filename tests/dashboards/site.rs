//! A site with everything that the dashboards ask for: services, an agent, a Prometheus, what Kubernetes would tell.
//!
//! In: nothing. Out: [`Site::ask`], the answer of the real Prometheus to a query of a dashboard with its variables replaced.
//! Two services are called for some seconds; then one fails, and is called more. Rules are the rendered ones, evaluated every two
//! seconds instead of every thirty, as nobody waits for an hour of data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nodewick::config::{Sources, load};
use nodewick::dashboards::{Need, Query, Variable};
use nodewick::slo::render;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::agent::{Agent, Settings, free_address};
use crate::support::cri_writer::{ContainerLog, Pipe};
use crate::support::fake_kube::{FakeKube, PodSpec};
use crate::support::fake_loki::{FakeLoki, Limits, wait_until};
use crate::support::measured::{Kind, Measured};
use crate::support::prometheus::Prometheus;

/// How long the services are well, and how long one fails.
const WELL: Duration = Duration::from_secs(12);
const BROKEN: Duration = Duration::from_secs(10);
/// Time for the last of it to arrive and to be evaluated.
const PATIENCE: Duration = Duration::from_secs(60);

const POD: &str = "checkout-7d9c5b6f4-abcde";
const CART: &str = "cart-6b8f9d7c5-klmno";
const FLOOD: &str = "reports-5d4c3b2a1-pqrst";

/// What the agent does beside the objectives: rules that match, a target that nobody serves, too little memory for a backlog.
const BESIDE: &str = "\
[process]
[process.drop.probes]
url_path = \"/orders/*5\"
namespace = \"shop\"
service = \"cart\"
[process.redact]
builtin = true
[red]
interval = \"1s\"
[scrape]
interval = \"2s\"
timeout = \"2s\"
";

const OBJECTIVES: &str = "\
[slo.defaults]
mode = \"alert\"
[slo.availability]
match = { namespace = \"shop\", workload = \"checkout\" }
sli = \"availability\"
objective = \"99.9%\"
[slo.latency]
match = { namespace = \"shop\", workload = \"checkout\" }
sli = \"latency\"
objective = \"99%\"
threshold = \"250ms\"
window = \"7d\"
[slo.gone]
match = { namespace = \"shop\", workload = \"legacy\" }
sli = \"availability\"
objective = \"99%\"
";

/// Values of variables.
pub(crate) type Scene = BTreeMap<&'static str, String>;

pub(crate) struct Site {
    prometheus: Prometheus,
    begun: f64,
    // What runs until the end.
    _agent: Agent,
    services: Arc<Vec<Measured>>,
    calls: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    loki: FakeLoki,
    _kube: FakeKube,
    _directory: TempDir,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch").as_secs_f64()
}

/// Serves a page on loopback for as long as the test program lives, with its marks replaced at each request.
fn serve(page: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let (address, begun) = (listener.local_addr().expect("bound"), Instant::now());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = connection.read(&mut [0; 4096]);
            let seconds = now();
            let body = page
                .replace("@NOW", &format!("{seconds:.0}"))
                .replace("@AGO", &format!("{:.0}", seconds - 600.0))
                .replace("@UP", &format!("{}", begun.elapsed().as_secs()));
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            let _ = write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

/// What is older than the test: a week ago the same service, and three hours of what rules recorded.
fn history(at: f64) -> String {
    let mut out = String::new();
    let mut series = |name: &str, labels: &str, from: f64, to: f64, value: &dyn Fn(f64) -> f64| {
        let mut time = from;
        while time <= to {
            let _ = writeln!(
                out,
                "{name}{{cluster=\"test\",namespace=\"shop\",{labels}}} {} {time:.0}",
                value(time - from)
            );
            time += 150.0;
        }
    };
    let week = at - 7.0 * 86_400.0;
    let labels = format!(
        "node=\"node-1\",workload=\"checkout\",pod=\"{POD}\",service=\"checkout\",route=\"/orders/:id\",method=\"GET\",code_class=\"2xx\""
    );
    series("red_requests_total", &labels, week - 3600.0, week + 300.0, &|since| since);
    for (id, workload, errors) in
        [("availability", "checkout", 10.0), ("latency", "checkout", 2.0), ("gone", "legacy", 0.0)]
    {
        let labels = format!("workload=\"{workload}\",slo_id=\"shop/{workload}/{id}\"");
        series("slo:sli_events:increase5m", &labels, at - 10_800.0, at - 330.0, &|_| 300.0);
        series("slo:sli_errors:increase5m", &labels, at - 10_800.0, at - 330.0, &|_| errors);
    }
    out.push_str("# EOF\n");
    out
}

impl Site {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let begun = now();
        let file = Some(("agent.toml".to_owned(), OBJECTIVES.to_owned()));
        let config =
            load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}")).config;
        for file in render::files(&config.slo.specs(), &config.slo.defaults, &[render::Part::Rules]) {
            let rules =
                file.text.replace("interval: 30s", "interval: 2s").replace("interval: 2m", "interval: 2s");
            let to = path(&file.path);
            std::fs::create_dir_all(to.parent().expect("a parent")).expect("made");
            std::fs::write(to, rules.replace("interval: 1m", "interval: 2s")).expect("written");
        }
        let admin = free_address();
        let [kube, cadvisor] = [include_str!("kube_state.prom"), include_str!("cadvisor.prom")].map(serve);
        let mut prometheus = Prometheus::with(
            &format!(
                "\
global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}
rule_files: [\"{}/rules/*.yaml\"]
scrape_configs:
- job_name: kube-state-metrics
  honor_labels: true
  static_configs: [{{targets: [\"{kube}\"], labels: {{cluster: test}}}}]
- job_name: cadvisor
  honor_labels: true
  static_configs: [{{targets: [\"{cadvisor}\"], labels: {{cluster: test, node: node-1}}}}]
- job_name: nodewick/nodewick
  static_configs:
  - targets: [\"{admin}\"]
    labels: {{cluster: test, node: node-1, namespace: nodewick, pod: nodewick-abcde, container: nodewick}}
",
                directory.path().display()
            ),
            &[],
        );
        prometheus.terminate();
        std::fs::write(path("history.om"), history(begun)).expect("written");
        let output = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([path("history.om"), prometheus.directory().join("data")])
            .output()
            .expect("promtool; run .ci/tools");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        prometheus.launch();

        let root = path("pods");
        let kubernetes = FakeKube::start();
        let kubeconfig = kubernetes.kubeconfig(&path("kube"));
        for (pod, app, uid) in
            [(POD, "checkout", "uid-1"), (CART, "cart", "uid-2"), (FLOOD, "reports", "uid-3")]
        {
            kubernetes.set(pod_object(pod, app, uid));
        }
        let log = |pod: &str, uid: &str| {
            ContainerLog::create(&root, &format!("shop_{pod}_{uid}"), "app", 0).expect("a log")
        };
        let (checkout_log, flood_log) = (log(POD, "uid-1"), log(FLOOD, "uid-3"));
        checkout_log.write_raw(b"this is no line of a container runtime\n").expect("written");
        let checkout = Measured::start(Kind::PromClientOpenMetrics, Some(checkout_log.clone()));
        let cart = Measured::start(Kind::Fastify, Some(log(CART, "uid-2")));
        let loki = FakeLoki::start(Limits::default());
        let settings = Settings {
            rest: format!(
                "{OBJECTIVES}{BESIDE}[kube]\nkubeconfig = {kubeconfig:?}\n\
                 [[scrape.static]]\njob = \"away\"\ntargets = [\"{}\"]\n[sink.loki.away]\nurl = \"http://{}\"\n\
                 [[scrape.static]]\njob = \"shop/checkout\"\ntargets = [\"{}\"]\n\
                 labels = {{namespace = \"shop\", workload = \"checkout\", pod = \"{POD}\", container = \"app\", service = \"checkout\"}}\n\
                 [sink.remote_write.main]\nurl = \"{}\"\n[sink.loki.main]\nurl = \"{}\"\n",
                free_address(),
                free_address(),
                checkout.address(),
                prometheus.write_url(),
                loki.url()
            ),
            agent: "memory = \"1MiB\"".to_owned(),
            ..Settings::default()
        };
        let mut agent = Agent::prepare_at(admin, &path("agent"), &root, &settings);
        agent.launch();
        agent.wait_ready();
        let mut site = Self {
            prometheus,
            begun,
            _agent: agent,
            services: Arc::new(vec![checkout, cart]),
            calls: None,
            loki,
            _kube: kubernetes,
            _directory: directory,
        };
        call(&site.services, WELL, false);
        call(&site.services, BROKEN, true);
        checkout_log
            .write_line(
                Pipe::Stderr,
                b"{\"level\":50,\"msg\":\"no stock, token ghp_0123456789abcdefghijABCDEFGHIJ012345\"}",
            )
            .expect("a line");
        // More than the memory holds while one of two backends is away: a backlog.
        let padding = "x".repeat(2_000);
        for number in 0..3_000 {
            flood_log.write_line(Pipe::Stdout, format!("row {number} {padding}").as_bytes()).expect("a line");
        }
        let awaited = [
            "ALERTS{alertname=\"SLOErrorBudgetBurn\",alertstate=\"firing\"}",
            "ALERTS{alertname=\"SLOErrorBudgetBurnSlow\",alertstate=\"firing\"}",
            "slo:error_budget_remaining:ratio{slo_id=\"shop/checkout/latency\"}",
            "nodewick_sink_up{sink=\"loki.away\"} == 0",
            "nodewick_log_unread_bytes",
            "nodewick_redactions_total",
        ];
        let missing = || {
            awaited.iter().filter(|query| site.prometheus.query(query, None).is_empty()).collect::<Vec<_>>()
        };
        let arrived = wait_until(PATIENCE, || {
            call(&site.services, Duration::from_millis(500), true);
            missing().is_empty()
        });
        assert!(arrived, "{:?} does not arrive: {}", missing(), site._agent.said());
        // It goes on failing while it is looked at.
        let (stop, services) = (Arc::new(AtomicBool::new(false)), Arc::clone(&site.services));
        let stopped = Arc::clone(&stop);
        let calls = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                call(&services, Duration::from_millis(500), true);
            }
        });
        site.calls = Some((stop, calls));
        site
    }

    /// What a query finds now: values of these labels, and the number. `slo:` ranges of three hours are as Grafana sends them.
    pub(crate) fn read(&self, scene: &Scene, query: &str, labels: &[&str]) -> Vec<(String, f64)> {
        let found = self.prometheus.query(&self.fill(scene, query), None);
        let rows = found.into_iter().map(|(own, value)| {
            let texts: Vec<&str> =
                labels.iter().map(|name| own.get(*name).map_or("", String::as_str)).collect();
            (texts.join(" "), value)
        });
        rows.collect()
    }

    /// Labels of the exemplars behind a query.
    pub(crate) fn exemplars(&self, promql: &str) -> Vec<BTreeMap<String, String>> {
        let found = self.prometheus.exemplars(promql, self.begun, now());
        found.into_values().flatten().map(|(labels, ..)| labels).collect()
    }

    /// Names of the labels and of the structured metadata of all lines that Loki has.
    pub(crate) fn sent_to_loki(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (_, labels) in self.loki.streams() {
            let words = labels.split(['{', ',', ' ']).filter_map(|pair| pair.split_once('='));
            names.extend(words.map(|(name, _)| name.to_owned()));
            for entry in self.loki.entries(&labels) {
                names.extend(entry.metadata.into_iter().map(|(name, _)| name));
            }
        }
        names
    }

    /// A query as Grafana would send it.
    pub(crate) fn fill(&self, scene: &Scene, query: &str) -> String {
        let end = now();
        let from = self.begun - 10_800.0;
        let mut out = query
            .replace("$__rate_interval", "5m")
            .replace("$__range", "3h")
            .replace("$__from", &format!("{:.0}", from * 1e3))
            .replace("$__to", &format!("{:.0}", end * 1e3));
        for (name, value) in scene {
            out = out.replace(&format!("${name}"), value);
        }
        out
    }

    /// Names of the labels that were found, each value with at least one; `Err` with what is wrong.
    pub(crate) fn ask(&self, scene: &Scene, query: &Query) -> Result<Vec<String>, String> {
        let promql = self.fill(scene, &query.expr);
        let found = self.answer(&promql, query.instant).map_err(|why| format!("{why}: {promql}"))?;
        let mut labels: Vec<String> = Vec::new();
        for one in &found {
            labels.extend(one["metric"].as_object().into_iter().flat_map(|labels| labels.keys().cloned()));
        }
        if found.is_empty() && !query.quiet {
            return Err(format!("is empty: {promql}"));
        }
        if !found.is_empty() && labels.is_empty() {
            // A number without labels is data too.
            labels.push(String::new());
        }
        Ok(labels)
    }

    /// Series with at least one number.
    fn answer(&self, promql: &str, instant: bool) -> Result<Vec<Value>, String> {
        let end = now();
        let query = percent(promql);
        let path = if instant {
            format!("/api/v1/query?query={query}&time={end:.3}")
        } else {
            format!("/api/v1/query_range?query={query}&start={:.3}&end={end:.3}&step=5", self.begun)
        };
        let (status, body) = self.prometheus.get(&path).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if status != 200 || answer.get("warnings").is_some() {
            return Err(format!("{status} {} {}", answer["error"], answer["warnings"]));
        }
        let data = &answer["data"];
        if data["resultType"] == "scalar" {
            return Ok(vec![serde_json::json!({"metric": {}})]);
        }
        let has_number = |one: &&Value| {
            let points = one["values"].as_array().cloned().unwrap_or_else(|| vec![one["value"].clone()]);
            points.iter().any(|point| point[1].as_str().is_some_and(|value| value != "NaN"))
        };
        Ok(data["result"].as_array().expect("a result").iter().filter(has_number).cloned().collect())
    }

    /// Values of a variable; an error when it has none.
    pub(crate) fn values(&self, scene: &Scene, variable: &Variable) -> Result<(), String> {
        if matches!(variable.need, Need::Fixed(_)) {
            return Ok(());
        }
        let query = self.fill(scene, &variable.query);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).ok_or("no label_values")?;
        let path = format!("/api/v1/label/{label}/values?match[]={}", percent(selector));
        let (status, body) = self.prometheus.get(&path).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let empty = answer["data"].as_array().is_none_or(Vec::is_empty);
        // An availability objective has no threshold.
        let may = variable.name == "threshold_seconds" && scene["slo_id"].ends_with("availability");
        if status != 200 || empty && !may {
            Err(format!("${}: {status} {body}: {query}", variable.name))
        } else {
            Ok(())
        }
    }

    /// What is wrong with the annotations: deploys must be there, with times of today; alerts must be.
    pub(crate) fn annotations(&self, scene: &Scene) -> Vec<String> {
        let mut wrong = Vec::new();
        for query in [nodewick::dashboards::deploys(), nodewick::dashboards::alerts()] {
            let promql = self.fill(scene, &query);
            match self.answer(&promql, false) {
                Ok(found) if found.is_empty() => wrong.push(format!("no annotation: {promql}")),
                Ok(found) if promql.contains("kube_replicaset_created") => {
                    let value = found[0]["values"][0][1].as_str().and_then(|text| text.parse::<f64>().ok());
                    let ago = now() * 1e3 - value.unwrap_or_default();
                    if !(500e3..2_000e3).contains(&ago) {
                        wrong.push(format!("a deploy {ago} ms ago, made ten minutes ago: {promql}"));
                    }
                }
                Ok(_) => {}
                Err(why) => wrong.push(why),
            }
        }
        wrong
    }
}

/// Calls the services as people would; broken, one of them fails and is slow.
fn call(services: &[Measured], lasting: Duration, broken: bool) {
    let [checkout, cart] = services else { return };
    let begun = Instant::now();
    let mut number = (now() * 10.0) as u64;
    while begun.elapsed() < lasting {
        number += 1;
        let (trace, span) = (format!("{:016x}{number:016x}", 0xabc), format!("{number:016x}"));
        checkout.call_traced(&format!("/orders/{number}"), &trace, &span);
        cart.call(&format!("/orders/{number}"));
        if broken {
            checkout.call_traced(&format!("/fail/{number}"), &trace, &span);
            cart.call(&format!("/fail/{number}"));
            if number.is_multiple_of(5) {
                checkout.call("/wait/400");
            }
        }
        std::thread::sleep(Duration::from_millis(60));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some((stop, calls)) = self.calls.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = calls.join();
        }
    }
}

fn pod_object(name: &str, app: &str, uid: &str) -> Value {
    let mut pod = PodSpec { name, uid, app, container: "app", ..PodSpec::default() }.object();
    let (set, _) = name.rsplit_once('-').expect("a name of a ReplicaSet's pod");
    let (_, hash) = set.rsplit_once('-').expect("a name of a Deployment's ReplicaSet");
    pod["metadata"]["labels"]["pod-template-hash"] = hash.into();
    pod["metadata"]["ownerReferences"] = serde_json::json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true}
    ]);
    pod
}

/// Values of the variables under which a dashboard is asked: everything, then one of each.
pub(crate) fn scenes(uid: &str) -> Vec<Scene> {
    let scene = |cluster: &str, namespace: &str, node: &str, slo: &str, threshold: &str| {
        Scene::from(
            [
                ("cluster", cluster),
                ("namespace", namespace),
                ("workload", "checkout"),
                ("pod", POD),
                ("node", node),
                ("slo_id", slo),
                ("threshold_seconds", threshold),
                ("what_if", "99.9"),
            ]
            .map(|(name, value)| (name, value.to_owned())),
        )
    };
    let available = "shop/checkout/availability";
    match uid {
        // Their namespace is one, and the latency objective has other queries.
        "nodewick-slo-detail" => vec![
            scene(".*", "shop", ".*", available, ""),
            scene("test", "shop", "node-1", "shop/checkout/latency", "0.25"),
        ],
        "nodewick-service" | "nodewick-nodejs" => vec![scene("test", "shop", "node-1", available, "")],
        _ => vec![scene(".*", ".*", ".*", available, ""), scene("test", "shop", "node-1", available, "")],
    }
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
