//! From a service that fails to the person who is called: a real Node service, the agent, Prometheus with the rendered rules,
//! Alertmanager with the rendered routes, a webhook.
//!
//! The rules are those that `nodewick slo render` writes. They are evaluated every second instead of every thirty, and the
//! slices of the day-long range are shorter, so that the test ends within a minute; ranges and thresholds are as rendered.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

mod support;

use support::agent::{Agent, Settings};
use support::alertmanager::{Alertmanager, Webhook};
use support::cri_writer::ContainerLog;
use support::measured::{Kind, Measured};
use support::prometheus::Prometheus;

const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for something; what it was, or `None`.
fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return Some(found);
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn slo(workload: &str) -> String {
    format!(
        "[slo.orders]\nmatch = {{ namespace = \"shop\", workload = \"{workload}\" }}\nsli = \"availability\"\n\
         objective = \"99.95%\"\nmode = \"alert\"\nowner = \"team-shop\"\n"
    )
}

/// What `nodewick slo render` writes for a config.
fn render(config: &Path, out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_nodewick"))
        .args(["slo", "render", "-c"])
        .arg(config)
        .arg("--out")
        .arg(out)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Notifications of an alert with a status.
fn told(webhook: &Webhook, name: &str, status: &str) -> Option<Value> {
    webhook
        .alerts()
        .into_iter()
        .find(|alert| alert["labels"]["alertname"] == name && alert["status"] == status)
}

#[test]
fn an_outage_pages_once_with_its_evidence_and_its_end_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("pods");
    let kind = Kind::PromClient;
    let pod = format!("{}-7d9c5b6f4-abcde", kind.name());
    let log = ContainerLog::create(&root, &format!("shop_{pod}_{}", kind.name()), "app", 0).expect("a log");
    let service = Measured::start(kind, Some(log));

    let config = directory.path().join("slo.toml");
    fs::write(&config, format!("[agent]\ncluster = \"test\"\n\n{}", slo(kind.name()))).expect("a config");
    let out = directory.path().join("slo");
    render(&config, &out);

    let webhook = Webhook::start();
    let receiver = format!("  webhook_configs:\n  - url: {:?}\n", webhook.url());
    let routes = fs::read_to_string(out.join("alertmanager-snippet.yaml")).expect("rendered");
    let routes = routes
        .replace("- name: pages\n", &format!("- name: pages\n{receiver}"))
        .replace("- name: tickets\n", &format!("- name: tickets\n{receiver}"))
        .replace("group_wait: 10s", "group_wait: 1s")
        .replace("group_wait: 30s", "group_wait: 1s")
        .replace("group_interval: 5m", "group_interval: 1s");
    let alertmanager = Alertmanager::start(&routes);

    let rules = directory.path().join("rules");
    fs::create_dir_all(&rules).expect("a directory");
    for entry in fs::read_dir(out.join("rules")).expect("rendered").map(|entry| entry.expect("an entry")) {
        let text = fs::read_to_string(entry.path()).expect("rendered");
        let text = text
            .replace("interval: 30s", "interval: 1s")
            .replace("interval: 2m", "interval: 2s")
            .replace("[1d:5m]", "[1d:10s]");
        fs::write(rules.join(entry.file_name()), text).expect("a rule file");
    }
    let server = Prometheus::with(
        &format!(
            "global: {{}}\nrule_files: [\"{}/*.yaml\"]\nalerting:\n  alertmanagers:\n  - static_configs:\n    - targets: [\"{}\"]\n",
            rules.display(),
            alertmanager.address()
        ),
        &[],
    );

    let rest = format!(
        "[red]\nsource = \"log\"\ninterval = \"1s\"\n[sink.remote_write.main]\nurl = \"{}\"\nlimits.deadline = \"1s\"\n{}",
        server.write_url(),
        slo(kind.name())
    );
    let settings = Settings { rest, ..Settings::default() };
    let mut agent = Agent::prepare(&directory.path().join("agent"), &root, &settings);
    agent.launch();
    agent.wait_ready();

    // Nothing is wrong, and nothing is said.
    for n in 0..20 {
        assert_eq!(service.call(&format!("/orders/{n}")), 200);
    }
    let events = || server.query("slo:sli_events:increase5m > 0", None).into_values().next();
    assert!(wait_for(events).is_some(), "{}\n{}", agent.said(), server.said());
    assert_eq!(webhook.alerts(), Vec::<Value>::new());

    // Six failures of 26 requests: a page, and the ticket behind it is not sent.
    for n in 0..6 {
        assert_eq!(service.call(&format!("/fail/{n}")), 500);
    }
    let page = wait_for(|| told(&webhook, "SLOErrorBudgetBurn", "firing"));
    let page = page.unwrap_or_else(|| panic!("nobody is paged\n{}\n{}", agent.said(), server.said()));
    let id = format!("shop/{}/orders", kind.name());
    for (label, value) in
        [("slo_id", id.as_str()), ("severity", "page"), ("owner", "team-shop"), ("cluster", "test")]
    {
        assert_eq!(page["labels"][label], value, "{page:#}");
    }
    let said = |name: &str| page["annotations"][name].as_str().unwrap_or_default().to_owned();
    assert!(said("summary").contains(kind.name()) && said("summary").contains("99.95%"), "{page:#}");
    assert!(said("description").contains("times as fast as allowed"), "{page:#}");
    // How many they are said to be, Prometheus extrapolates.
    assert!(said("top_routes").starts_with("/fail/{id} "), "{page:#}");
    assert!(said("worst_pods").starts_with(&format!("{pod} ")), "{page:#}");
    assert!(said("logs_query").contains("http_status") && said("logs_query").contains("shop"), "{page:#}");
    assert!(said("runbook_url").ends_with("/SLOErrorBudgetBurn.md"), "{page:#}");
    assert!(said("dashboard_url").contains("nodewick-slo-detail"), "{page:#}");
    let ticket = format!("SLOErrorBudgetBurnSlow {id} -");
    assert!(
        wait_for(|| alertmanager.inhibited().contains(&ticket).then_some(())).is_some(),
        "no ticket is held back"
    );
    assert_eq!(told(&webhook, "SLOErrorBudgetBurnSlow", "firing"), None, "the page says it already");

    // Six of 2,600 are less than 0.3 %, the least that pages.
    std::thread::scope(|scope| {
        for part in 0..4 {
            let service = &service;
            scope.spawn(move || {
                for n in 0..650 {
                    assert_eq!(service.call(&format!("/orders/{}", part * 1000 + n)), 200);
                }
            });
        }
    });
    let end = wait_for(|| told(&webhook, "SLOErrorBudgetBurn", "resolved"));
    assert!(end.is_some(), "its end is not told\n{}\n{}", agent.said(), server.said());
    let pages = webhook.alerts().into_iter().filter(|alert| alert["labels"]["severity"] == "page");
    assert!(
        pages.clone().all(|alert| alert["labels"]["slo_id"] == id.as_str()),
        "{:#?}",
        pages.collect::<Vec<_>>()
    );
}
