//! What `nodewick slo render` writes, judged by the programs that will read it: promtool, amtool, a live Alertmanager.
//!
//! In: `tests/slo/agent.toml` and unit tests beside it, whose expectations are checked by hand. The rendered unit tests run
//! too. Each of the ten findings about other generators' rules is a test here or a scenario there.

use std::path::{Path, PathBuf};
use std::process::Command;

use nodewick::config::{Config, Sources, load};
use nodewick::slo::render::{self, File};
use serde_json::Value;
use tempfile::TempDir;

mod support;

use support::alertmanager::Alertmanager;

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slo").join(name)
}

fn config_of(name: &str) -> Config {
    let text = std::fs::read_to_string(beside(name)).expect("the config");
    let file = Some((name.to_owned(), text));
    load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}")).config
}

fn config() -> Config {
    config_of("agent.toml")
}

fn files_of(name: &str) -> Vec<File> {
    let config = config_of(name);
    render::files(&config.slo.specs(), &config.slo.defaults, &[])
}

fn files() -> Vec<File> {
    files_of("agent.toml")
}

fn text(path: &str) -> String {
    files().into_iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is rendered")).text
}

/// All files rendered of a config and the unit tests of `tests/slo` in a directory.
fn rendered_of(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for file in files_of(name) {
        let path = dir.path().join(&file.path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, file.text).expect("written");
    }
    for test in std::fs::read_dir(beside("")).expect("tests/slo") {
        let path = test.expect("an entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    dir
}

fn rendered() -> TempDir {
    rendered_of("agent.toml")
}

/// The same with `rules/page.yaml`, the rules of an objective less the sums over days, which no page reads and which are most of
/// the work.
fn rendered_for_pages() -> TempDir {
    let dir = rendered();
    let text = text("rules/shop.api.availability.yaml");
    let groups: Vec<&str> = text.split("\n- name: ").collect();
    assert_eq!(groups.len(), 4, "a head and three groups");
    let kept = [groups[0], groups[1], groups[3]].join("\n- name: ");
    assert!(kept.contains(":alerts\n") && !kept.contains(":long\n"), "{kept}");
    std::fs::write(dir.path().join("rules/page.yaml"), kept).expect("written");
    dir
}

fn holds(program: &str, arguments: &[&str], dir: &TempDir) -> String {
    let output = Command::new(program).args(arguments).current_dir(dir.path()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run .ci/tools"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

const RULES: [&str; 7] = [
    "rules/bank.api.payments.yaml",
    "rules/bank.api.quarter.yaml",
    "rules/generic.yaml",
    "rules/shop.api.availability.yaml",
    "rules/shop.api.latency.yaml",
    "rules/shop.web.watched.yaml",
    "rules/slo.yaml",
];

#[test]
fn promtool_takes_every_rule_file() {
    let found: Vec<String> =
        files().into_iter().map(|file| file.path).filter(|path| path.starts_with("rules/")).collect();
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(sorted, RULES);
    let mut arguments = vec!["check", "rules"];
    arguments.extend(RULES);
    holds("promtool", &arguments, &rendered());
}

#[test]
fn availability_behaves_as_checked_by_hand() {
    holds("promtool", &["test", "rules", "availability.test.yaml"], &rendered());
}

#[test]
fn latency_behaves_as_checked_by_hand() {
    holds("promtool", &["test", "rules", "latency.test.yaml"], &rendered());
}

#[test]
fn neighbours_of_a_threshold_behave_as_checked_by_hand() {
    holds("promtool", &["test", "rules", "bracket.test.yaml"], &rendered());
}

#[test]
fn silence_behaves_as_checked_by_hand() {
    holds("promtool", &["test", "rules", "vanished.test.yaml"], &rendered_for_pages());
}

#[test]
fn pages_come_when_the_table_says() {
    holds("promtool", &["test", "rules", "detection.test.yaml"], &rendered_for_pages());
}

#[test]
fn slow_pages_come_and_alerts_end_when_the_table_says() {
    holds("promtool", &["test", "rules", "slow.test.yaml"], &rendered());
}

#[test]
fn objectives_without_rules_of_their_own_behave_as_checked_by_hand() {
    holds("promtool", &["test", "rules", "generic.test.yaml"], &rendered());
}

#[test]
fn a_short_memory_is_told() {
    holds("promtool", &["test", "rules", "retention.test.yaml"], &rendered());
}

#[test]
fn options_behave_as_checked_by_hand() {
    let dir = rendered_of("options.toml");
    holds("promtool", &["check", "rules", "rules/shop.api.errors.yaml", "rules/generic.yaml"], &dir);
    holds("promtool", &["test", "rules", "options.test.yaml"], &dir);
}

#[test]
fn the_bound_for_little_traffic_stands_in_shortest_decimals() {
    let rules = files_of("options.toml").into_iter().find(|file| file.path == "rules/shop.api.errors.yaml");
    let rules = rules.expect("rendered").text;
    // z = 1.96: half its square, a quarter, and the square itself.
    for part in ["+ 1.9208\n", "- 1.96 * sqrt(", "+ 0.9604))\n", "+ 3.8416)\n"] {
        assert!(rules.contains(part), "{part}");
    }
}

#[test]
fn what_is_off_leaves_no_trace() {
    for file in files() {
        for word in ["sloth", "kube_deployment", "slo_sample_trace_info", "1.9208"] {
            assert!(!file.path.starts_with("rules/") || !file.text.contains(word), "{}: {word}", file.path);
        }
    }
}

// One test a window: each takes promtool many seconds.
#[test]
fn rendered_tests_of_thirty_days_pass() {
    holds("promtool", &["test", "rules", "tests/shop.api.availability.test.yaml"], &rendered());
}

#[test]
fn rendered_tests_of_twenty_eight_days_pass() {
    holds("promtool", &["test", "rules", "tests/shop.api.latency.test.yaml"], &rendered());
}

#[test]
fn rendered_tests_of_seven_days_pass() {
    holds("promtool", &["test", "rules", "tests/bank.api.payments.test.yaml"], &rendered());
}

#[test]
fn rendered_tests_of_ninety_days_pass() {
    holds("promtool", &["test", "rules", "tests/bank.api.quarter.test.yaml"], &rendered());
}

#[test]
fn thresholds_stand_in_shortest_decimals() {
    let rules = text("rules/shop.api.availability.yaml");
    for threshold in ["> 0.0072\n", "> 0.003\n", "> 0.0015\n", "> 0.0005\n", "/ 0.0005'\n"] {
        assert!(rules.contains(threshold), "{threshold}");
    }
    // 99 % over 28 days: 13.44, 5.6, 2.8 and 0.933 times 0.01.
    let rules = text("rules/shop.api.latency.yaml");
    for threshold in ["> 0.1344\n", "> 0.056\n", "> 0.028\n", "> 0.00933\n", "le=\"0.2\""] {
        assert!(rules.contains(threshold), "{threshold}");
    }
    // 99.9 % over 90 days: 43.2, 18, 9 and 3 times 0.001.
    let rules = text("rules/bank.api.quarter.yaml");
    for threshold in ["> 0.0432\n", "> 0.018\n", "> 0.009\n", "> 0.003\n", "      owner: team-bank\n"] {
        assert!(rules.contains(threshold), "{threshold}");
    }
}

#[test]
fn what_is_observed_has_no_alerts() {
    let rules = text("rules/shop.web.watched.yaml");
    assert!(
        rules.contains("record: slo:error_budget_remaining:ratio") && !rules.contains("alert:"),
        "{rules}"
    );
    assert!(!files().iter().any(|file| file.path == "tests/shop.web.watched.test.yaml"));
}

/// Finding 9: what an application resets at every scrape is nothing to count with. Only the agent's own families are read.
#[test]
fn rules_read_the_canonical_families_only() {
    let known = [
        "red_requests_total",
        "red_request_duration_seconds_bucket",
        "red_source_lag_seconds",
        "slo_events_total",
        "slo_bracket_events_total",
        "slo_bracket_info",
        "slo_confidence_ratio",
        "ALERTS",
    ];
    let selector = regex::Regex::new(r"([A-Za-z_:][A-Za-z0-9_:]*)\{[^{]").expect("a regex");
    let mut count = 0;
    for file in files().iter().filter(|file| file.path.starts_with("rules/")) {
        for name in selector.captures_iter(&file.text).map(|found| found[1].to_owned()) {
            count += 1;
            assert!(known.contains(&name.as_str()) || name.starts_with("slo:"), "{}: {name}", file.path);
        }
    }
    assert!(count > 100, "{count} selectors");
}

/// Finding 10: a rule over the text of lines finds the line in which Loki logs that rule.
#[test]
fn rules_over_lines_never_look_at_their_text() {
    let rules = text("loki-rules.yaml");
    assert!(
        ["|=", "|~", "!=~", "| json", "| logfmt"].iter().all(|filter| !rules.contains(filter)),
        "{rules}"
    );
    let (lines, streams) =
        (rules.matches("count_over_time(").count(), rules.matches("({namespace=\"").count());
    assert!(lines > 0 && lines == streams, "{lines} and {streams}");
    assert!(rules.contains("{namespace=\"shop\", service_name=\"api\"} | http_status =~ \"5..\""), "{rules}");
    // A duration that is no number must not fail the query.
    let compared = rules.matches("duration_ms >").count();
    assert!(compared > 0 && compared == rules.matches("| __error__ = \"\"").count(), "{rules}");
}

#[test]
fn the_custom_resource_holds_the_same_groups() {
    let read = |text: &str| serde_saphyr::from_str::<Value>(text).expect("YAML");
    let resource = read(&text("prometheusrule.yaml"));
    assert_eq!(resource["kind"], "PrometheusRule");
    let mut found: Vec<Value> = resource["spec"]["groups"].as_array().expect("groups").clone();
    for path in RULES {
        for group in read(&text(path))["groups"].as_array().expect("groups") {
            let at = found
                .iter()
                .position(|own| own == group)
                .unwrap_or_else(|| panic!("{} is there", group["name"]));
            found.remove(at);
        }
    }
    assert!(found.is_empty(), "{found:?}");
    read(&text("loki-rules.yaml"));
}

#[test]
fn the_same_declarations_are_the_same_bytes() {
    assert_eq!(files(), files());
    let config = config();
    let mut specs = config.slo.specs();
    specs.reverse();
    let reversed = render::files(&specs, &config.slo.defaults, &[render::Part::Rules]);
    for file in &reversed {
        assert_eq!(file.text, text(&file.path), "{}", file.path);
    }
}

#[test]
fn every_alert_has_a_runbook_to_link_to() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let alert = regex::Regex::new(r"- alert: (\w+)").expect("a regex");
    let mut count = 0;
    for file in files().iter().filter(|file| file.path.starts_with("rules/")) {
        for name in alert.captures_iter(&file.text).map(|found| found[1].to_owned()) {
            count += 1;
            assert!(docs.join(format!("{name}.md")).exists(), "{name}");
            let link = format!("runbook_url: https://example.invalid/runbooks/{name}.md");
            assert!(file.text.contains(&link), "{name}");
        }
    }
    // Five of each of the four that alert, one more of each latency objective, two of all together, five generic ones.
    assert_eq!(count, 4 * 5 + 2 + 2 + 5);
}

#[test]
fn amtool_takes_the_snippet_and_the_example() {
    let dir = rendered();
    holds("amtool", &["check-config", "alertmanager-snippet.yaml"], &dir);
    holds("amtool", &["check-config", "alertmanager-example.yaml"], &dir);
}

/// Finding 8: a page of one objective silences its own ticket and nobody else's, not even alerts that lack the label.
#[test]
fn a_page_inhibits_the_ticket_of_its_own_objective_only() {
    let alertmanager = Alertmanager::start(&text("alertmanager-snippet.yaml"));
    let alerts = serde_json::json!([
        {"labels": {"alertname": "SLOErrorBudgetBurn", "severity": "page", "cluster": "c", "slo_id": "shop/api/a"}},
        {"labels": {"alertname": "SLOErrorBudgetBurnSlow", "severity": "ticket", "cluster": "c", "slo_id": "shop/api/a"}},
        {"labels": {"alertname": "SLOErrorBudgetBurnSlow", "severity": "ticket", "cluster": "c", "slo_id": "shop/api/b"}},
        {"labels": {"alertname": "SLOErrorBudgetBurnSlow", "severity": "ticket", "cluster": "other", "slo_id": "shop/api/a"}},
        {"labels": {"alertname": "SLOErrorBudgetBurnSlow", "severity": "ticket", "cluster": "c"}},
        {"labels": {"alertname": "SLOErrorBudgetBurn", "severity": "page", "cluster": "c"}},
        {"labels": {"alertname": "SLOTrafficVanished", "severity": "page", "cluster": "c", "slo_id": "shop/web/a"}},
        {"labels": {"alertname": "SLOErrorBudgetBurn", "severity": "page", "cluster": "c", "slo_id": "shop/web/a"}},
        {"labels": {"alertname": "NodewickDownOnNode", "severity": "ticket", "cluster": "c", "node": "n1"}},
        {"labels": {"alertname": "NodewickReadLag", "severity": "ticket", "cluster": "c", "node": "n1"}},
        {"labels": {"alertname": "NodewickReadLag", "severity": "ticket", "cluster": "c", "node": "n2"}},
        {"labels": {"alertname": "NodewickReadLag", "severity": "ticket", "cluster": "c", "node": "n3"}},
        {"labels": {"alertname": "NodewickReadLag", "severity": "page", "cluster": "c", "node": "n3"}},
        {"labels": {"alertname": "NodewickExportFailing", "severity": "ticket", "cluster": "c", "node": "n3"}},
        {"labels": {"alertname": "NodewickAbsent", "severity": "page", "cluster": "c"}},
    ]);
    alertmanager.ask("POST", "/api/v2/alerts", &alerts.to_string());
    let expected = [
        "NodewickReadLag - n1",
        "NodewickReadLag - n3",
        "SLOErrorBudgetBurn shop/web/a -",
        "SLOErrorBudgetBurnSlow shop/api/a -",
    ];
    // The answer is worked out when it is asked for, once the alerts have reached the inhibitor.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while alertmanager.inhibited() != expected && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(alertmanager.inhibited(), expected);
}
