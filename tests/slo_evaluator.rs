//! The embedded evaluator with real parts: alerts that reach a live Alertmanager and a webhook behind it, and the whole agent
//! that is killed while an alert fires, or finds its state damaged.
//!
//! What the rules yield is compared with a real Prometheus in `slo_differential.rs`; the arithmetic is tested beside it.

#[path = "support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod agent;
    pub mod alertmanager;
    pub mod cri_writer;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nodewick::sink::alertmanager::{self, Alert, List};
use nodewick::slo::Config as Slo;
use nodewick::slo::eval::{Config, Evaluator};
use serde_json::Value;
use support::agent::{Agent, Settings};
use support::alertmanager::{Alertmanager, Webhook};
use support::cri_writer::{ContainerLog, Pipe};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time that something may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const M: i64 = 60_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Waits until `found` finds something.
fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A config of Alertmanager that tells a webhook, at once and by objective.
fn at_once(webhook: &Webhook) -> String {
    format!(
        "route:\n  receiver: hook\n  group_by: [cluster, slo_id, alertname]\n  group_wait: 1s\n  group_interval: 1s\n\
         receivers:\n- name: hook\n  webhook_configs:\n  - url: {}\n    send_resolved: true\n",
        webhook.url()
    )
}

/// A service over the last hours, as it would have been published, with a fault from `from` to `to`, in minutes before now.
struct Service {
    evaluator: Evaluator,
    at_ms: i64,
    end_ms: i64,
    fault: (i64, i64),
    counts: BTreeMap<&'static str, f64>,
}

impl Service {
    fn new(hours: i64, fault: (i64, i64)) -> Self {
        let slo: Slo = toml::from_str(
            "defaults = { mode = \"alert\", owner = \"team-shop\" }\n[up]\nmatch = { namespace = \"shop\", workload = \"checkout\" }\n\
             sli = \"availability\"\nobjective = \"99.95%\"\n",
        )
        .expect("an objective");
        let end_ms = now_ms() / 30_000 * 30_000;
        let evaluator = Evaluator::new(&slo.specs(), &slo.defaults, &Config::default());
        Self { evaluator, at_ms: end_ms - hours * 60 * M, end_ms, fault, counts: BTreeMap::new() }
    }

    /// Goes on until so many minutes before now.
    fn until(&mut self, minutes: i64) {
        while self.at_ms < self.end_ms - minutes * M {
            self.at_ms += 30_000;
            let ago = self.end_ms - self.at_ms;
            let is_bad = ago <= self.fault.0 * M && ago > self.fault.1 * M;
            // 200 requests in 30 s; in the fault 90 of them fail, 60 at /pay and 30 at /login.
            let pay = if is_bad { 60.0 } else { 0.0 };
            for (key, grown) in
                [("/pay 5xx", pay), ("/login 5xx", pay / 2.0), ("/pay 2xx", 200.0 - pay * 1.5)]
            {
                let count = self.counts.entry(key).or_default();
                *count += grown;
                let (route, class) = key.split_once(' ').expect("two words");
                let labels = [
                    ("cluster", "test"),
                    ("code_class", class),
                    ("namespace", "shop"),
                    ("node", "n1"),
                    ("pod", "checkout-1"),
                    ("route", route),
                    ("service", "checkout"),
                    ("workload", "checkout"),
                ];
                self.evaluator.take_one("red_requests_total", &labels, self.at_ms, *count);
            }
            self.evaluator.evaluate(self.at_ms);
        }
    }

    /// All alerts as they are told now.
    fn list(&self) -> List {
        let told = self.evaluator.told().into_iter().map(|told| Alert {
            labels: told.labels,
            annotations: told.annotations,
            starts_unix_ms: told.starts_unix_ms,
            ends_unix_ms: told.ended_unix_ms.unwrap_or(now_ms() + 4 * M),
            is_resolved: told.ended_unix_ms.is_some(),
            generator_url: "http://grafana.example.com".into(),
        });
        Arc::new(told.collect())
    }
}

/// Starts the client of an Alertmanager in a thread of its own; it ends with `kill`.
fn client(
    url: &str,
    heard: watch::Receiver<List>,
    kill: CancellationToken,
    note: Box<dyn Fn(Option<String>) + Send>,
) -> std::thread::JoinHandle<()> {
    let config = alertmanager::Config { url: url.to_owned(), ..Default::default() };
    let task = alertmanager::sink("alertmanager.test", &config, heard, kill, note).expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || runtime.block_on(task))
}

fn has_alert(body: &Value, status: &str, name: &str) -> bool {
    let alerts = body["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
    alerts.iter().any(|alert| alert["status"] == status && alert["labels"]["alertname"] == name)
}

#[test]
fn a_page_reaches_the_webhook_with_its_evidence_and_so_does_its_end() {
    let webhook = Webhook::start();
    let alertmanager = Alertmanager::start(&at_once(&webhook));
    // Ten minutes of 45 % errors, fifty minutes ago. At first it is as if it were a quarter of an hour later.
    let mut service = Service::new(4, (50, 40));
    service.until(25);
    let (alerts, heard) = watch::channel(service.list());
    // The first list counts as seen.
    let kill = CancellationToken::new();
    let client = client(&format!("http://{}", alertmanager.address()), heard, kill.clone(), Box::new(|_| {}));
    alerts.send_replace(service.list());
    let page = wait("the page", || {
        webhook.bodies().into_iter().find(|body| has_alert(body, "firing", "SLOErrorBudgetBurn"))
    });
    assert_eq!(page["groupLabels"]["slo_id"], "shop/checkout/up");
    let alert = &page["alerts"][0];
    for (name, value) in [
        ("severity", "page"),
        ("cluster", "test"),
        ("workload", "checkout"),
        ("owner", "team-shop"),
        ("slo", "up"),
    ] {
        assert_eq!(alert["labels"][name], value, "{alert:#}");
    }
    let said = |name: &str| alert["annotations"][name].as_str().unwrap_or_default();
    // In the last hour 1800 of 24000 failed, less what its ends leave out: twenty times 60 and 30 of them.
    assert_eq!(said("top_routes"), "/pay 1200; /login 600; ");
    assert_eq!(said("worst_pods"), "checkout-1 1800; ");
    assert_eq!(said("summary"), "shop/checkout: availability SLO 99.95% is burning");
    assert!(
        said("description").starts_with("Over 1h the error budget burns 150.0 times as fast as allowed."),
        "{alert:#}"
    );
    assert!(
        said("logs_query").contains("service_name=\"checkout\"")
            && said("runbook_url").ends_with("SLOErrorBudgetBurn.md")
    );
    assert_eq!(alert["generatorURL"], "http://grafana.example.com");
    // On to the present: it has ended meanwhile.
    service.until(0);
    assert!(
        service
            .list()
            .iter()
            .any(|alert| alert.is_resolved && alert.labels["alertname"] == "SLOErrorBudgetBurn")
    );
    alerts.send_replace(service.list());
    wait("the end", || {
        webhook.bodies().into_iter().find(|body| has_alert(body, "resolved", "SLOErrorBudgetBurn"))
    });
    let pages =
        webhook.bodies().iter().filter(|body| has_alert(body, "firing", "SLOErrorBudgetBurn")).count();
    assert_eq!(pages, 1, "one page for one fault");
    kill.cancel();
    client.join().expect("it ends");
}

#[test]
fn each_alertmanager_gets_every_alert_and_one_that_is_down_is_asked_again() {
    let mut service = Service::new(2, (30, 0));
    service.until(0);
    let (slow, good) = (Webhook::answering(&[503, 500]), Webhook::start());
    let (alerts, heard) = watch::channel(List::default());
    let kill = CancellationToken::new();
    let notes = Arc::<Mutex<Vec<Option<String>>>>::default();
    let kept = Arc::clone(&notes);
    let note = Box::new(move |why| kept.lock().expect("not poisoned").push(why));
    let clients = [
        client(&format!("http://{}", slow.address()), heard.clone(), kill.clone(), note),
        client(&format!("http://{}/api/v2/alerts", good.address()), heard, kill.clone(), Box::new(|_| {})),
    ];
    alerts.send_replace(service.list());
    let names = |receiver: &Webhook| {
        let bodies = receiver.bodies();
        let alerts = bodies.iter().flat_map(|body| body.as_array().cloned().unwrap_or_default());
        alerts
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    for receiver in [&slow, &good] {
        wait("both alerts", || {
            let names = names(receiver);
            let both = ["SLOErrorBudgetBurn", "SLOErrorBudgetBurnSlow"];
            both.iter().all(|name| names.iter().any(|own| own == name)).then_some(())
        });
    }
    // The last sender goes: what was told need not be told again, and the clients end.
    drop(alerts);
    clients.into_iter().for_each(|client| client.join().expect("it ends"));
    let notes = notes.lock().expect("not poisoned").clone();
    assert!(
        notes[0].as_ref().is_some_and(|why| why.contains("alertmanager.test") && why.contains("status 503")),
        "{notes:?}"
    );
    assert_eq!(notes.last(), Some(&None), "it is over");
}

const LINE: &[u8] = br#"{"level":50,"time":1700000000000,"req":{"method":"GET","url":"/pay"},"res":{"statusCode":500},"responseTime":12,"msg":"request errored"}"#;

fn agent(directory: &Path, logs: &Path, alertmanager: &str) -> Agent {
    let rest = format!(
        "[kube]\nmode = \"path\"\n[scrape]\nmode = \"off\"\n[red]\ninterval = \"1s\"\n[evaluator]\ninterval = \"5s\"\n\
         [slo.up]\nmatch = {{ namespace = \"shop\", workload = \"api\" }}\nsli = \"availability\"\nobjective = \"99.9%\"\nmode = \
         \"alert\"\n[alertmanager.main]\nurl = \"http://{alertmanager}\"\n"
    );
    Agent::prepare(directory, logs, &Settings { rest, ..Settings::default() })
}

/// The row of the page in `/slos`: its state and since when.
fn page(agent: &Agent) -> Option<(String, Option<i64>)> {
    let (_, body) = agent.get("/slos").ok()?;
    let report: Value = serde_json::from_str(&body).ok()?;
    let alerts = report["objectives"][0]["alerts"].as_array()?.clone();
    let page = alerts.iter().find(|alert| alert["name"] == "SLOErrorBudgetBurn")?.clone();
    Some((page["state"].as_str()?.to_owned(), page["since_unix_ms"].as_i64()))
}

#[test]
fn an_agent_that_is_killed_while_an_alert_fires_goes_on_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = directory.path().join("pods");
    let log = ContainerLog::create(&logs, "shop_api-d994d45d6-5h9zr_u1", "app", 0).expect("a log");
    log.write_line(Pipe::Stdout, LINE).expect("written");
    let receiver = Webhook::start();
    let mut agent = agent(&directory.path().join("agent"), &logs, &receiver.address().to_string());
    agent.launch();
    agent.wait_ready();
    let (status, body) = agent.get("/slos").expect("the page");
    assert!(status == 200 && body.contains("\"slo_id\":\"shop/api/up\""), "{body}");
    let since = wait("the page fires", || {
        for _ in 0..3 {
            log.write_line(Pipe::Stdout, LINE).expect("written");
        }
        page(&agent).filter(|(state, _)| state == "firing").map(|(_, since)| since.expect("since when"))
    });
    let told = |receiver: &Webhook| {
        let bodies = receiver.bodies();
        let alerts = bodies.iter().flat_map(|body| body.as_array().cloned().unwrap_or_default());
        alerts.filter(|alert| alert["labels"]["alertname"] == "SLOErrorBudgetBurn").collect::<Vec<_>>()
    };
    let first = wait("it is told", || told(&receiver).first().cloned());
    assert_eq!(first["labels"]["slo_id"], "shop/api/up");
    assert_eq!(first["labels"]["cluster"], "test");
    // An alert is told before the page of the same evaluation is published.
    for series in
        ["slo:burn_rate:ratio_rate5m{", "slo:objective:ratio{", "ALERTS{alertname=\"SLOErrorBudgetBurn\""]
    {
        wait(series, || agent.get("/metrics/workloads").ok().filter(|(_, page)| page.contains(series)));
    }
    let before = told(&receiver).len();
    agent.kill();
    agent.launch();
    agent.wait_ready();
    let again = wait("it fires on", || page(&agent).filter(|(state, _)| state == "firing"));
    assert_eq!(again.1, Some(since), "it is the same alert");
    let last = wait("it is told again", || told(&receiver).get(before).cloned());
    assert_eq!(last["startsAt"], first["startsAt"], "so that nobody is called twice");
    // A damaged file is said, and everything begins anew.
    agent.kill();
    let state = directory.path().join("agent/state/evaluator.state");
    let mut bytes = std::fs::read(&state).expect("the state");
    let at = bytes.len() / 2;
    bytes[at] ^= 0x55;
    std::fs::write(&state, bytes).expect("damaged");
    agent.launch();
    agent.wait_ready();
    assert!(
        page(&agent).is_some_and(|(_, begun)| begun != Some(since)),
        "it does not believe what is damaged"
    );
    assert!(agent.said().contains("what was known of objectives cannot be read"), "{}", agent.said());
    agent.terminate();
}

/// What is wrong with a config.
fn said(text: &str) -> String {
    use nodewick::config::{Sources, load};
    let file = Some(("agent.toml".to_owned(), text.to_owned()));
    match load(&Sources { file, ..Sources::default() }) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn bad_values_are_told_with_their_place_and_the_fix() {
    let error = said("[evaluator]\ninterval = \"7s\"\n");
    assert!(error.contains("interval is 7s; it must be 5s to 60s and a part of five minutes"), "{error}");
    assert!(error.contains("agent.toml:2"), "{error}");
    let error = said("[evaluator]\nmode = \"maybe\"\n");
    assert!(error.contains("auto") && error.contains("agent.toml:2"), "{error}");
    let error = said("[alertmanager.main]\n");
    assert!(error.contains("write url = \"http://alertmanager:9093\""), "{error}");
    let error = said("[alertmanager.main]\nurl = \"alertmanager:9093\"\n");
    assert!(error.contains("agent.toml:2"), "{error}");
    let error = said("[alertmanager.main]\nurl = \"http://am.example.com\"\nauth.password = \"x\"\n");
    assert!(error.contains("alertmanager"), "{error}");
}

#[test]
fn where_nothing_is_evaluated_the_page_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = directory.path().join("pods");
    std::fs::create_dir_all(&logs).expect("made");
    let rest = "[kube]\nmode = \"path\"\n[evaluator]\nmode = \"off\"\n".to_owned();
    let settings = Settings { rest, ..Settings::default() };
    let mut agent = Agent::prepare(&directory.path().join("agent"), &logs, &settings);
    agent.launch();
    agent.wait_ready();
    let (status, body) = agent.get("/slos").expect("the page");
    let report: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &report["evaluator"]), (200, &Value::Bool(false)));
    assert_eq!(report["reason"], "[evaluator] mode is \"off\"");
    agent.terminate();
}

#[test]
fn the_demo_says_that_an_objective_burns() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nodewick"))
        .args(["demo", "--quiet", "--for", "12s", "--rate", "300"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(
        said.matches("PAGE  [demonstration, time x60] shop/checkout: availability SLO 99.9% is burning\n")
            .count(),
        1,
        "{said}"
    );
}
