//! The agent's own alerts and those about workloads, judged by the programs that read them, against the metrics that exist.
//!
//! In: what `nodewick alerts render` writes, and `alerts/` as committed. Out: promtool's and amtool's word; a check that
//! expressions name only metrics and labels of the tables; a healthy agent that fires nothing; and a running agent whose page
//! has what the alerts read.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nodewick::admin::process;
use nodewick::alerts::{self, Part};
use nodewick::metrics::{Kind, TABLE};
use nodewick::slo::config::{Defaults, Severities};
use nodewick::slo::render::File;
use serde_json::Value;
use support::agent::Agent;
use tempfile::TempDir;

/// What is not the agent's: kube-state-metrics, synthetic series, Prometheus itself.
const ELSEWHERE: &[&str] = &["ALERTS", "kube_node_info", "kube_node_status_condition", "up"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<File> {
    alerts::files(&Defaults::default(), &[])
}

fn text(path: &str) -> String {
    files().into_iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is rendered")).text
}

fn read(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Alerts of all Prometheus rule files.
fn rules() -> Vec<Value> {
    let of = |path: &str| {
        list(&read(&text(path)), "groups")
            .iter()
            .flat_map(|group| list(group, "rules").to_vec())
            .collect::<Vec<_>>()
    };
    let all = [of("nodewick.yaml"), of("workloads.yaml")].concat();
    assert!(all.len() >= 30, "{}", all.len());
    all
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text"))
}

fn rendered() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for file in files() {
        let path = dir.path().join(&file.path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, file.text).expect("written");
    }
    dir
}

fn holds(program: &str, arguments: &[&str], dir: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run .ci/tools"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn promtool_takes_every_rule_file_of_the_directory() {
    let dir = root().join("alerts");
    let mut found: Vec<PathBuf> = Vec::new();
    for place in [dir.clone(), dir.join("rules")] {
        found.extend(
            std::fs::read_dir(place).expect("a directory").map(|entry| entry.expect("an entry").path()),
        );
    }
    // Alertmanager's and Loki's files and custom resources are for others.
    let is_ours = |path: &&PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.ends_with(".yaml")
            && !["loki", "alertmanager", "prometheusrule"].iter().any(|other| name.contains(other))
    };
    let mut arguments = vec!["check", "rules"];
    let names: Vec<String> = found.iter().filter(is_ours).map(|path| path.display().to_string()).collect();
    assert!(names.len() >= 4, "{names:?}");
    arguments.extend(names.iter().map(String::as_str));
    holds("promtool", &arguments, &dir);
}

// One test a file: each takes promtool some seconds.
#[test]
fn alerts_about_the_agent_behave_as_in_their_cases() {
    holds("promtool", &["test", "rules", "tests/nodewick-agent.test.yaml"], rendered().path());
}

#[test]
fn alerts_about_lines_behave_as_in_their_cases() {
    holds("promtool", &["test", "rules", "tests/nodewick-logs.test.yaml"], rendered().path());
}

#[test]
fn alerts_about_delivery_behave_as_in_their_cases() {
    holds("promtool", &["test", "rules", "tests/nodewick-delivery.test.yaml"], rendered().path());
}

#[test]
fn alerts_about_workloads_behave_as_in_their_cases() {
    holds("promtool", &["test", "rules", "tests/nodewick-workloads.test.yaml"], rendered().path());
}

#[test]
fn the_example_availability_objective_passes_its_tests() {
    holds(
        "promtool",
        &["test", "rules", "tests/shop.checkout.checkout-availability.test.yaml"],
        &root().join("alerts"),
    );
}

#[test]
fn the_example_latency_objective_passes_its_tests() {
    holds(
        "promtool",
        &["test", "rules", "tests/shop.checkout.checkout-latency.test.yaml"],
        &root().join("alerts"),
    );
}

#[test]
fn amtool_takes_the_committed_snippet_and_example() {
    for file in ["alertmanager-snippet.yaml", "alertmanager-example.yaml"] {
        holds("amtool", &["check-config", file], &root().join("alerts"));
    }
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let mut cases: BTreeMap<(String, String), [usize; 2]> = BTreeMap::new();
    for file in files().iter().filter(|file| file.path.starts_with("tests/")) {
        for case in list(&read(&file.text), "tests") {
            let title = word(&case["name"]);
            let (alert, rest) = title.split_once(" (").expect("a severity");
            let severity = rest.split_once("):").expect("a case").0;
            let fires = list(case, "promql_expr_test").iter().any(|at| !list(at, "exp_samples").is_empty());
            cases.entry((alert.to_owned(), severity.to_owned())).or_default()[usize::from(fires)] += 1;
        }
    }
    for rule in rules() {
        let key = (word(&rule["alert"]).to_owned(), word(&rule["labels"]["severity"]).to_owned());
        let [quiet, firing] = cases.remove(&key).unwrap_or_default();
        assert!(quiet > 0 && firing > 0, "{key:?}: {firing} cases fire, {quiet} do not");
    }
    assert!(cases.is_empty(), "cases of no alert: {cases:?}");
}

/// An expression without texts, ranges and label lists: names of metrics, functions and words are left.
fn names(expr: &str) -> BTreeSet<String> {
    let mut text = expr.to_owned();
    for pattern in [
        r#""(?:[^"\\]|\\.)*""#,
        r"\{[^}]*\}",
        r"\[[^\]]*\]",
        r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)",
    ] {
        text = regex::Regex::new(pattern).expect("a regex").replace_all(&text, " ").into_owned();
    }
    const WORDS: &[&str] = &["and", "or", "unless", "offset", "bool"];
    let name = regex::Regex::new(r"\b[A-Za-z_:][A-Za-z0-9_:]*\b(\s*\()?").expect("a regex");
    name.captures_iter(&text)
        .filter(|found| found.get(1).is_none())
        .map(|found| found[0].to_owned())
        .filter(|name| !WORDS.contains(&name.as_str()))
        .collect()
}

/// Labels of the agent's own metrics by name.
fn own_metrics() -> BTreeMap<&'static str, Vec<&'static str>> {
    let own = TABLE.iter().map(|row| (row.name, row.labels.to_vec()));
    own.chain(process::ROWS.iter().map(|row| (row.name, row.labels.to_vec()))).collect()
}

#[test]
fn expressions_name_metrics_and_labels_that_exist() {
    let own = own_metrics();
    let label = regex::Regex::new(r#"(\w+)\{([^}]*)\}"#).expect("a regex");
    let part = regex::Regex::new(r#"(\w+)\s*(?:=~|!~|!=|=)\s*""#).expect("a regex");
    let mut count = 0;
    for rule in rules() {
        let (alert, expr) = (word(&rule["alert"]), word(&rule["expr"]));
        let found = names(expr);
        assert!(!found.is_empty(), "{alert}");
        for name in &found {
            count += 1;
            assert!(
                own.contains_key(name.as_str()) || ELSEWHERE.contains(&name.as_str()),
                "{alert}: {name} is no metric"
            );
        }
        for selector in label.captures_iter(expr) {
            let Some(labels) = own.get(&selector[1]) else { continue };
            for name in part.captures_iter(&selector[2]) {
                assert!(labels.contains(&&name[1]), "{alert}: {} has no label {}", &selector[1], &name[1]);
            }
        }
    }
    assert!(count > 40, "{count} names");
    assert_eq!(
        names("sum by (a, b) (rate(x_total{l=\"y\"}[5m])) > on (c) group_left () z offset 1h"),
        ["x_total", "z"].map(str::to_owned).into()
    );
}

#[test]
fn every_alert_says_what_where_and_what_to_do() {
    let runbooks = root().join("docs/runbooks");
    let reference = std::fs::read_to_string(root().join("docs/reference/alerts.md")).expect("the reference");
    let loki = list(&read(&text("loki.yaml")), "groups")
        .iter()
        .flat_map(|group| list(group, "rules").to_vec())
        .collect();
    for rule in [rules(), loki].concat() {
        let alert = word(&rule["alert"]).to_owned();
        let of = |name: &str| word(&rule["annotations"][name]).to_owned();
        assert!(!of("summary").is_empty() && of("description").len() > 40, "{alert}");
        assert!(of("runbook_url").ends_with(&format!("/docs/runbooks/{alert}.md")), "{alert}");
        assert!(of("dashboard_url").starts_with("/d/nodewick-"), "{alert}");
        let page = std::fs::read_to_string(runbooks.join(format!("{alert}.md")))
            .unwrap_or_else(|_| panic!("{alert} has a page"));
        for title in ["## What it means", "## How to see it", "## What to do", "## When it is a false alarm"]
        {
            assert!(page.contains(title), "{alert}: {title}");
        }
        let severity = word(&rule["labels"]["severity"]);
        assert!(
            page.contains(severity)
                && reference.contains(&format!("| [`{alert}`](../runbooks/{alert}.md) | {severity} |")),
            "{alert}"
        );
    }
    let rendered = files().iter().filter(|file| file.path.starts_with("runbooks/")).count();
    let kept = std::fs::read_dir(&runbooks).expect("the runbooks").filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name().to_string_lossy().into_owned();
        name.starts_with("Nodewick") || name.starts_with("Workload")
    });
    assert_eq!(kept.count(), rendered, "a page of an alert that is no more");
}

#[test]
fn severities_and_links_are_the_sites_own() {
    let defaults = Defaults {
        severities: Severities::Critical,
        runbook_url: "https://wiki.example.com/runbooks/".to_owned(),
        grafana_url: "https://grafana.example.com/".to_owned(),
        ..Defaults::default()
    };
    let found = alerts::files(&defaults, &[Part::Rules, Part::Loki]);
    let all: String = found.iter().map(|file| file.text.as_str()).collect();
    assert_eq!(found.len(), 3);
    assert!(all.contains("severity: critical") && all.contains("severity: warning"));
    assert!(!all.contains("severity: page") && !all.contains("severity: ticket"));
    assert!(all.contains("runbook_url: https://wiki.example.com/runbooks/NodewickAbsent.md\n"));
    assert!(all.contains("https://grafana.example.com/d/nodewick-agent?var-cluster="));
    assert_eq!(alerts::files(&defaults, &[]), alerts::files(&defaults, &[]), "the same bytes each time");
}

/// What some alerts say when they fire in their cases; the rest is looked at for failed templates only.
const SAID: &[&str] = &[
    r#"summary="n1 is ready and has no nodewick""#,
    r#"summary="40% of the ready nodes have no nodewick""#,
    r#"description="Bytes in ten minutes: 4ki. The agent's own log names the containers.""#,
    r#"description="Holes of unknown size in ten minutes: 1. The agent's own log names the containers.""#,
    r#"summary="n1: its clock and that of kubernetes differ by 90 s""#,
    r#"summary="n1: lines have waited for 13m 0s to be read""#,
    r#"description="Worst of its logs: 2 rotations behind.""#,
    r#"description="Worst of its logs: 0 rotations behind, 10m 0s until unread bytes are deleted.""#,
    r#"description="The newest that was delivered is 4m 0s older than the newest that is there. Five minutes are kept in memory.""#,
    r#"dashboard_url="/d/nodewick-agent?var-cluster=&var-node=n1""#,
    r#"dashboard_url="/d/nodewick-logs?var-cluster=&var-namespace=shop&var-workload=till""#,
];

/// promtool shows what it did not expect: every alert that fires in a case, with its texts.
#[test]
fn texts_are_filled_in() {
    let dir = rendered();
    let mut said = String::new();
    for group in ["agent", "logs", "delivery", "workloads"] {
        let path = dir.path().join(format!("tests/nodewick-{group}.test.yaml"));
        let mut file = read(&std::fs::read_to_string(&path).expect("written"));
        // The cases of workloads are of hours; those that fire early say enough.
        let is_short =
            |at: &Value| word(&at["eval_time"]).trim_end_matches('m').parse::<u32>().is_ok_and(|at| at < 100);
        for case in file["tests"].as_array_mut().expect("cases") {
            let alert = word(&case["name"]).split(' ').next().expect("a name").to_owned();
            let fires: Vec<Value> = list(case, "promql_expr_test")
                .iter()
                .filter(|at| is_short(at) && !list(at, "exp_samples").is_empty())
                .map(|at| serde_json::json!({"eval_time": at["eval_time"], "alertname": alert, "exp_alerts": []}))
                .collect();
            let case = case.as_object_mut().expect("a case");
            case.remove("promql_expr_test");
            case.insert("alert_rule_test".to_owned(), fires.into());
        }
        file["tests"].as_array_mut().expect("cases").retain(|case| !list(case, "alert_rule_test").is_empty());
        std::fs::write(&path, file.to_string()).expect("written");
        let output = Command::new("promtool").args(["test", "rules"]).arg(&path).output().expect("promtool");
        assert!(!output.status.success(), "nothing fires");
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        said.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    let fired = said.matches("Annotations:{").count();
    assert!(fired > 25, "{fired} alerts: {said}");
    assert!(!said.contains("error expanding") && !said.contains("<no value>"), "{said}");
    for text in SAID {
        assert!(said.contains(text), "{text} is not in {said}");
    }
}

/// A rule over the text of lines finds the line in which Loki logs that rule, and those of whoever shows logs.
#[test]
fn rules_over_lines_leave_out_the_logs_of_queries() {
    let file = read(&text("loki.yaml"));
    let rules = list(&file["groups"][0], "rules");
    assert!(rules.len() >= 3);
    let services = regex::Regex::new("^(?:.*(loki|grafana|promtail|alloy|nodewick).*)$").expect("a regex");
    for rule in rules {
        let expr = word(&rule["expr"]);
        assert_eq!(expr.matches("count_over_time(").count(), 1, "{expr}");
        // The line filter stands first, and its text is a part of every such query's own text.
        let guard = expr.find(" != \"count_over_time\" ").expect("the guard");
        assert!(guard < expr.find(" |~ ").expect("a pattern"), "{expr}");
        let pattern =
            expr.split(" |~ \"").nth(1).and_then(|rest| rest.split("\" [").next()).expect("a pattern");
        let pattern = regex::Regex::new(&pattern.replace(r"\\", r"\")).expect("RE2");
        assert!(!pattern.is_match("count_over_time"), "{expr}");
        assert!(expr.contains("service_name!~\".*(loki|grafana|promtail|alloy|nodewick).*\""), "{expr}");
        assert!(["loki-read", "grafana", "nodewick"].iter().all(|name| services.is_match(name)));
    }
    let says = |alert: &str, line: &str| {
        let rule = rules.iter().find(|rule| rule["alert"] == alert).expect("the alert");
        let pattern = word(&rule["expr"]).split(" |~ \"").nth(1).and_then(|rest| rest.split("\" [").next());
        regex::Regex::new(&pattern.expect("a pattern").replace(r"\\", r"\")).expect("RE2").is_match(line)
    };
    assert!(says(
        "WorkloadHeapExhausted",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"
    ));
    assert!(says(
        "WorkloadHeapExhausted",
        "Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space"
    ));
    assert!(!says("WorkloadHeapExhausted", "heap used: 17 MB"));
    assert!(
        says("WorkloadDiskFull", "Error: ENOSPC: no space left on device, write")
            && !says("WorkloadDiskFull", "disk is fine")
    );
    assert!(says("WorkloadCertificateExpired", "x509: certificate has expired or is not yet valid"));
    assert!(!says("WorkloadCertificateExpired", "certificate renewed"));
}

/// Two hours of a healthy agent with nothing to do, each of its metrics with a value that such an agent has.
#[test]
fn an_idle_healthy_agent_fires_nothing() {
    let dir = rendered();
    let mut out = String::from(
        "rule_files:\n- nodewick.yaml\n- workloads.yaml\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n",
    );
    let processes = process::ROWS.iter().map(|row| (row.name, row.labels, row.name == "nodewick_build_info"));
    let own = TABLE.iter().filter(|row| row.kind != Kind::Histogram).map(|row| (row.name, row.labels, false));
    for (name, labels, is_info) in own.chain(processes) {
        let values = match name {
            "process_start_time_seconds" | "nodewick_config_last_reload_success_timestamp_seconds" => {
                "10+0x120"
            }
            // It has nothing to deliver and has not for a while; nothing was acknowledged since.
            "nodewick_sink_last_success_timestamp_seconds" | "nodewick_checkpoint_timestamp_seconds" => {
                "10+0x120"
            }
            "nodewick_sink_newest_sample_timestamp_seconds" => "0+60x120",
            "nodewick_kube_last_contact_timestamp_seconds" => "0+60x120",
            "nodewick_log_time_to_loss_min_seconds" => "31536000+0x120",
            "process_resident_memory_bytes" => "30+0x120",
            "nodewick_config_last_reload_successful" | "nodewick_kube_synced" | "nodewick_sink_up" => {
                "1+0x120"
            }
            "nodewick_config_info" => "1+0x120",
            "nodewick_workload_logs" | "nodewick_logs_open" => "12+0x120",
            _ if is_info => "1+0x120",
            _ if name.ends_with("_limit_bytes") || name.ends_with("_limit") => "1000+0x120",
            _ => "0+0x120",
        };
        let stages: &[&str] = if labels.contains(&"stage") { &["taken", "delivered"] } else { &["x"] };
        for stage in stages {
            let labels: Vec<String> = labels
                .iter()
                .map(|label| format!("{label}=\"{}\"", if *label == "stage" { stage } else { "x" }))
                .chain(["node=\"n1\"", "job=\"nodewick\"", "instance=\"a\""].map(str::to_owned))
                .collect();
            let _ = writeln!(out, "  - series: '{name}{{{}}}'\n    values: {values}", labels.join(","));
        }
    }
    out.push_str("  - series: 'kube_node_status_condition{node=\"n1\",condition=\"Ready\",status=\"true\"}'\n    values: 1+0x120\n");
    out.push_str(
        "  - series: 'up{namespace=\"x\",workload=\"x\"}'\n    values: 1+0x120\n  promql_expr_test:\n",
    );
    for minute in [1, 11, 30, 75, 119] {
        let _ = writeln!(out, "  - expr: 'ALERTS'\n    eval_time: {minute}m\n    exp_samples: []");
    }
    std::fs::write(dir.path().join("idle.test.yaml"), out).expect("written");
    holds("promtool", &["test", "rules", "idle.test.yaml"], dir.path());
}

#[test]
fn a_running_agent_has_what_the_alerts_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = directory.path().join("logs");
    let log = logs.join("shop_till-7d9f8b6c5-p2x4k_u1/api");
    std::fs::create_dir_all(&log).expect("made");
    let mut lines = String::new();
    for (n, line) in [
        "{\"level\":\"info\",\"msg\":\"started\"}",
        "{\"level\":\"error\",\"msg\":\"cannot reach db\"}",
        "plain words",
        "{\"level\":\"info\",\"msg\":\"login\",\"password\":\"hunter2hunter2\"}",
        "panic: it broke",
        "",
        "goroutine 1 [running]:",
        "main.main()",
        "\t/app/main.go:7 +0x1d",
        "{\"level\":\"info\",\"msg\":\"started\"}",
    ]
    .iter()
    .enumerate()
    {
        let _ = writeln!(lines, "2026-11-22T14:00:00.0000000{n:02}Z stderr F {line}");
    }
    std::fs::write(log.join("0.log"), lines).expect("written");
    let mut agent = Agent::start(
        &directory.path().join("agent"),
        &logs,
        "[sink.local.store]\n[process.redact]\nbuiltin = true\n",
    );
    agent.wait_ready();
    let of = "namespace=\"shop\",workload=\"till\"";
    let wanted = [
        format!("nodewick_workload_lines_total{{level=\"error\",{of}}} 2"),
        format!("nodewick_workload_lines_total{{level=\"info\",{of}}} 3"),
        format!("nodewick_workload_lines_total{{level=\"unknown\",{of}}} 1"),
        format!("nodewick_workload_lines_total{{level=\"warn\",{of}}} 0"),
        format!("nodewick_workload_panics_total{{{of}}} 1"),
        format!("nodewick_workload_secret_records_total{{{of}}} 1"),
        format!("nodewick_workload_unparsed_records_total{{{of}}} 1"),
        format!("nodewick_workload_new_error_patterns_total{{{of}}} 0"),
        format!("nodewick_workload_logs{{{of}}} 1"),
        "nodewick_log_oldest_unread_age_seconds 0".to_owned(),
        "nodewick_log_lost_bytes_total{reason=\"rotated_away\"} 0".to_owned(),
        "nodewick_records_lost_total{reason=\"too_old\"} 0".to_owned(),
        "nodewick_config_info{hash=\"".to_owned(),
        "nodewick_config_last_reload_successful 1".to_owned(),
        "nodewick_sink_last_success_timestamp_seconds{sink=\"local.store\"} 1".to_owned(),
        "nodewick_spill_limit_bytes ".to_owned(),
    ];
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let page = agent.get("/metrics").map(|(_, page)| page).unwrap_or_default();
        let missing: Vec<&String> = wanted.iter().filter(|line| !page.contains(line.as_str())).collect();
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{missing:#?}\n{page}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
