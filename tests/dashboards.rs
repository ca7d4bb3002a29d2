//! Grafana's dashboards, judged as JSON, and every query of them asked of a real Prometheus that the real agent fed.
//!
//! In: the committed files. Real Node services are scraped and their logs read by the agent, one of them fails for a while;
//! kube-state-metrics and cAdvisor are pages of fixtures; what is older than the test comes as blocks that promtool makes.

mod support;

#[path = "dashboards/promql.rs"]
mod promql;

#[path = "dashboards/site.rs"]
mod site;

use std::collections::{BTreeMap, BTreeSet};

use nodewick::dashboards::{boards, files, metrics};
use nodewick::metrics::{Kind, TABLE};
use regex::Regex;
use serde_json::Value;

/// A dashboard as Grafana reads it.
struct Board {
    uid: String,
    json: Value,
}

impl Board {
    /// Panels without the headings of rows.
    fn panels(&self) -> Vec<&Value> {
        self.all().into_iter().filter(|panel| panel["type"] != "row").collect()
    }

    fn all(&self) -> Vec<&Value> {
        self.json["panels"].as_array().expect("panels").iter().collect()
    }

    fn variables(&self) -> Vec<&Value> {
        self.json["templating"]["list"].as_array().expect("variables").iter().collect()
    }

    fn name(&self, panel: &Value) -> String {
        format!("{}: {}", self.uid, panel["title"].as_str().unwrap_or_default())
    }
}

fn rendered() -> Vec<Board> {
    files()
        .into_iter()
        .filter(|file| file.path.ends_with(".json"))
        .map(|file| {
            let json: Value = serde_json::from_str(&file.text).expect("JSON");
            Board { uid: json["uid"].as_str().expect("a uid").to_owned(), json }
        })
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn dashboards_have_the_promised_addresses() {
    let uids: Vec<String> = rendered().into_iter().map(|board| board.uid).collect();
    let promised = [
        "oncall",
        "slo-overview",
        "slo-detail",
        "red-overview",
        "service",
        "nodejs",
        "logs",
        "cluster",
        "agent",
    ];
    assert_eq!(uids, promised.map(|name| format!("nodewick-{name}")));
    assert!(uids.iter().all(|uid| uid.len() <= 40));
}

#[test]
fn dashboards_are_as_grafana_provisions_them() {
    for board in rendered() {
        let json = &board.json;
        assert!(json.get("__inputs").is_none() && json["id"].is_null(), "{}", board.uid);
        assert_eq!(json["editable"], false, "{}", board.uid);
        assert_eq!(json["schemaVersion"], 39, "{}", board.uid);
        assert_eq!(json["tags"], serde_json::json!(["nodewick"]), "{}", board.uid);
        let link = &json["links"][0];
        assert_eq!(
            (text(link, "type"), &link["asDropdown"]),
            ("dashboards", &Value::Bool(true)),
            "{}",
            board.uid
        );
        assert_eq!(link["tags"], json["tags"], "{}", board.uid);
        assert!(
            text(json, "description").len() > 40 && text(json, "title").starts_with("nodewick / "),
            "{}",
            board.uid
        );
        let names: Vec<&str> = board.variables().into_iter().map(|variable| text(variable, "name")).collect();
        assert_eq!(
            names[..3],
            ["prometheus_datasource", "loki_datasource", "tempo_datasource"],
            "{}",
            board.uid
        );
        assert!(names.contains(&"cluster"), "{}", board.uid);
        for variable in board.variables().into_iter().filter(|variable| text(variable, "type") == "query") {
            assert_eq!(variable["refresh"], 2, "{}: {}", board.uid, text(variable, "name"));
        }
        let annotations: Vec<&str> = json["annotations"]["list"]
            .as_array()
            .expect("annotations")
            .iter()
            .map(|annotation| text(annotation, "name"))
            .collect();
        assert_eq!(annotations, ["Annotations & Alerts", "Deploys", "Alerts"], "{}", board.uid);
    }
}

#[test]
fn panels_say_what_they_show_and_what_to_do() {
    let mut findings = Vec::new();
    for board in rendered() {
        let mut titles = BTreeSet::new();
        for panel in board.panels() {
            let name = board.name(panel);
            if text(panel, "title").len() < 3 || !titles.insert(text(panel, "title").to_owned()) {
                findings.push(format!("{name}: no title of its own"));
            }
            let about = text(panel, "description");
            if about.len() < 25 || !about.ends_with(['.', ')']) {
                findings.push(format!("{name}: description {about:?}"));
            }
            if text(&panel["fieldConfig"]["defaults"], "unit").is_empty() {
                findings.push(format!("{name}: no unit"));
            }
            if text(&panel["fieldConfig"]["defaults"], "noValue").is_empty() {
                findings.push(format!("{name}: nothing says that there is no data"));
            }
            let custom = &panel["fieldConfig"]["defaults"]["custom"];
            if panel["type"] == "timeseries" && custom["spanNulls"] != false {
                findings.push(format!("{name}: a gap is drawn over"));
            }
            if panel["type"] == "table" && text(&panel["targets"][0], "queryType") != "traceql" {
                let sorted = &panel["options"]["sortBy"][0];
                let titles = panel["transformations"].as_array().and_then(|all| all.last());
                let titles =
                    titles.and_then(|last| last["options"]["renameByName"].as_object()).expect("columns");
                if !titles.values().any(|title| *title == sorted["displayName"]) {
                    findings.push(format!("{name}: sorted by {sorted}, which is no column"));
                }
            }
        }
    }
    none(&findings, "panels");
}

#[test]
fn panels_neither_overlap_nor_stick_out() {
    for board in rendered() {
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in board.all() {
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{}", board.name(panel));
            let side = |name: &str| panel["gridPos"][name].as_u64().expect("a side");
            let (left, top, width, height) = (side("x"), side("y"), side("w"), side("h"));
            assert!(width > 0 && height > 0 && left + width <= 24, "{}", board.name(panel));
            for cell in (left..left + width).flat_map(|x| (top..top + height).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{} lies on another panel at {cell:?}", board.name(panel));
            }
        }
    }
}

#[test]
fn links_lead_to_dashboards_and_set_variables_that_they_have() {
    let boards = rendered();
    let variables: BTreeMap<&str, BTreeSet<&str>> = boards
        .iter()
        .map(|board| (board.uid.as_str(), board.variables().into_iter().map(|v| text(v, "name")).collect()))
        .collect();
    let link = Regex::new(r#""url": "(/d/[^"]*)""#).expect("a regex");
    let set = Regex::new(r"[?&]var-([a-z_]+)=|\$\{([a-z_]+):queryparam\}").expect("a regex");
    let mut links = 0;
    for file in files().into_iter().filter(|file| file.path.ends_with(".json")) {
        for found in link.captures_iter(&file.text) {
            links += 1;
            let url = &found[1];
            let uid = url["/d/".len()..].split('?').next().expect("a uid");
            let known = variables.get(uid).unwrap_or_else(|| panic!("{}: {url} leads nowhere", file.path));
            for variable in set.captures_iter(url) {
                let name = variable.get(1).or(variable.get(2)).expect("a name").as_str();
                assert!(known.contains(name), "{}: {url}: {uid} has no {name}", file.path);
            }
        }
    }
    assert!(links >= 12, "only {links} links");
    // What the links of alerts set: `/d/nodewick-slo-detail?var-cluster=…&var-slo_id=…`.
    assert!(["cluster", "slo_id"].iter().all(|name| variables["nodewick-slo-detail"].contains(name)));
}

#[test]
fn columns_that_links_read_are_there() {
    let field = Regex::new(r"__data\.fields\.([a-z_]+)").expect("a regex");
    for board in rendered() {
        for panel in board.panels() {
            let whole = panel.to_string();
            for found in field.captures_iter(&whole) {
                let names = &panel["transformations"].as_array().expect("a table").last().expect("columns")["options"]
                    ["renameByName"];
                assert!(names.get(&found[1]).is_some(), "{}: no column {}", board.name(panel), &found[1]);
            }
        }
    }
}

#[test]
fn variables_are_defined_before_they_are_used() {
    let used = Regex::new(r"\$(?:\{([a-zA-Z_]+)[^}]*\}|([a-zA-Z_]+))").expect("a regex");
    for board in rendered() {
        let defined: BTreeSet<&str> = board.variables().into_iter().map(|v| text(v, "name")).collect();
        let mut seen = BTreeSet::new();
        for found in used.captures_iter(&board.json.to_string()) {
            let name = found.get(1).or(found.get(2)).expect("a name").as_str();
            // Grafana's own begin with two underscores.
            if !name.starts_with("__") {
                assert!(defined.contains(name), "{}: ${name} is not defined", board.uid);
                seen.insert(name.to_owned());
            }
        }
        let unused: Vec<&&str> =
            defined.iter().filter(|name| !seen.contains(**name) && !name.ends_with("_datasource")).collect();
        assert!(unused.is_empty(), "{}: {unused:?} are not used", board.uid);
        let mut before = BTreeSet::new();
        for variable in board.variables() {
            for found in used.captures_iter(&variable.to_string()) {
                let name = found.get(1).or(found.get(2)).expect("a name").as_str();
                assert!(
                    name.starts_with("__") || before.contains(name),
                    "{}: {} needs {name}",
                    board.uid,
                    text(variable, "name")
                );
            }
            before.insert(text(variable, "name").to_owned());
        }
    }
}

#[test]
fn ranges_follow_the_time_shown() {
    let fixed = Regex::new(r"rate\([^\[]*\[\d+[smd]\]").expect("a regex");
    for board in rendered() {
        for panel in board.panels() {
            for target in panel["targets"].as_array().expect("targets") {
                let expr = text(target, "expr");
                let name = board.name(panel);
                match text(&target["datasource"], "type") {
                    "prometheus" => {
                        assert!(!expr.contains("$__interval") && !expr.contains("$__auto"), "{name}: {expr}");
                        assert!(!fixed.is_match(expr), "{name}: a fixed range: {expr}");
                        assert!(!expr.contains("or vector("), "{name}: hides that there is no data: {expr}");
                    }
                    "loki" => {
                        assert!(!expr.contains("$__rate_interval"), "{name}: {expr}");
                        if text(target, "queryType") == "range" && expr.contains("_over_time") {
                            assert!(expr.contains("[$__auto]"), "{name}: {expr}");
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn queries_name_metrics_that_somebody_exports() {
    let own: BTreeMap<&str, bool> = TABLE.iter().map(|row| (row.name, row.kind == Kind::Histogram)).collect();
    let process: BTreeSet<&str> = nodewick::admin::process::ROWS.iter().map(|row| row.name).collect();
    let known = |name: &str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        own.get(name) == Some(&false)
            || base.is_some_and(|base| own.get(base) == Some(&true))
            || process.contains(name)
            || metrics::exporter(name).is_some()
    };
    let (mut findings, mut used) = (Vec::new(), BTreeSet::new());
    for board in boards() {
        let queries = board.rows.iter().flat_map(|row| &row.panels).flat_map(|panel| &panel.queries);
        let exprs = queries
            .filter(|query| query.source == nodewick::dashboards::Source::Prometheus)
            .map(|query| query.expr.clone())
            .chain([nodewick::dashboards::deploys(), nodewick::dashboards::alerts()]);
        for expr in exprs {
            let names = promql::metrics(&expr);
            assert!(!names.is_empty() || expr.starts_with("vector("), "{expr} names no metric");
            for name in names {
                if !known(&name) {
                    findings.push(format!("{}: {name} in {expr}", board.uid));
                }
                used.insert(name);
            }
        }
    }
    none(&findings, "metrics that nobody exports");
    for (_, names) in metrics::EXTERNAL {
        for name in *names {
            assert!(used.iter().any(|used| used.starts_with(name)), "{name} is listed and no panel uses it");
        }
    }
}

#[test]
fn logql_is_as_lokis_grammar_has_it() {
    let mut seen = 0;
    for board in rendered() {
        for panel in board.panels() {
            for target in panel["targets"].as_array().expect("targets") {
                if text(&target["datasource"], "type") == "loki" {
                    seen += 1;
                    let checked = promql::check_logql(text(target, "expr"));
                    assert!(
                        checked.is_ok(),
                        "{}: {}: {}",
                        board.name(panel),
                        checked.unwrap_err(),
                        text(target, "expr")
                    );
                }
            }
        }
    }
    assert!(seen >= 6, "{seen} queries of logs");
}

#[test]
fn the_check_of_logql_finds_what_loki_refuses() {
    for (bad, why) in [
        ("{cluster=~\".*\"}", "no matcher of the stream that cannot be empty"),
        ("{namespace=\"a\"} | level=~\"x", "a text without its end"),
        ("sum by (level) (count_over_time({namespace=\"a\"}[5m])", "a bracket without its other half"),
        ("count_over_time({namespace=\"a\"})", "a range is missing"),
        ("rate_of({namespace=\"a\"}[5m])", "no function of LogQL: rate_of"),
        ("{namespace=\"a\"} | jsonx", "no stage of LogQL: jsonx"),
    ] {
        assert_eq!(promql::check_logql(bad), Err(why.to_owned()), "{bad}");
    }
    assert_eq!(
        promql::check_logql("{namespace=\"a\"} |= \"x\" | json | level=\"\" | drop __error__"),
        Ok(())
    );
}

#[test]
fn names_of_metrics_are_found_in_queries() {
    assert_eq!(
        promql::metrics(
            "sum by (a, b) (rate(x_total{c=\"y_total\"}[$__rate_interval])) / on (a) group_left (d) z or \
                vector(1)"
        ),
        ["x_total", "z"]
    );
    assert_eq!(
        promql::metrics("max({__name__=~\"slo:sli:ratio(7|28)d\",slo_id=\"$slo_id\"}) unless a"),
        ["a", "slo:sli:ratio28d", "slo:sli:ratio7d"]
    );
}

#[test]
fn the_verb_writes_them_and_finds_what_was_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let nodewick = |more: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("the program");
        command.args(["dashboards", "render", "--out"]).arg(directory.path()).args(more).assert()
    };
    nodewick(&["--check"]).code(1);
    nodewick(&[]).success();
    for file in files() {
        let written = std::fs::read_to_string(directory.path().join(&file.path)).expect("written");
        assert_eq!(written, file.text, "{}", file.path);
    }
    nodewick(&["--check"]).success().stdout("");
    std::fs::write(directory.path().join("grafana/nodewick-agent.json"), "{}").expect("written");
    let said = nodewick(&["--check"]).code(1);
    let said = String::from_utf8_lossy(&said.get_output().stderr).into_owned();
    assert!(said.contains("nodewick-agent.json differs from what would be written"), "{said}");
}

#[test]
fn what_is_rendered_of_objectives_has_their_dashboards_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("the program");
    let arguments = ["slo", "render", "--only", "dashboards", "--out"];
    command.env_clear().args(arguments).arg(directory.path()).assert().success();
    for uid in ["nodewick-slo-overview", "nodewick-slo-detail"] {
        let written = std::fs::read_to_string(directory.path().join(format!("dashboards/{uid}.json")));
        let file = files().into_iter().find(|file| file.path == format!("grafana/{uid}.json"));
        assert_eq!(written.expect("written"), file.expect("one of the nine").text);
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 1, "nothing else is written");
}

#[test]
fn provisioning_joins_logs_traces_and_metrics() {
    let file = |name: &str| {
        let path = format!("provisioning/{name}/nodewick.yaml");
        let text = files().into_iter().find(|file| file.path == path).expect("rendered").text;
        serde_saphyr::from_str::<Value>(&text).expect("YAML")
    };
    let provider = &file("dashboards")["providers"][0];
    assert_eq!((text(provider, "type"), &provider["allowUiUpdates"]), ("file", &Value::Bool(false)));
    let sources = file("datasources");
    let source = |kind: &str| {
        let all = sources["datasources"].as_array().expect("data sources");
        all.iter().find(|source| text(source, "type") == kind).expect("a data source").clone()
    };
    let (prometheus, loki, tempo) = (source("prometheus"), source("loki"), source("tempo"));
    let exemplars = &prometheus["jsonData"]["exemplarTraceIdDestinations"][0];
    assert_eq!(
        (text(exemplars, "name"), text(exemplars, "datasourceUid")),
        ("trace_id", text(&tempo, "uid"))
    );
    for field in loki["jsonData"]["derivedFields"].as_array().expect("derived fields") {
        assert_eq!(
            (text(field, "datasourceUid"), text(field, "url")),
            (text(&tempo, "uid"), "$${__value.raw}")
        );
    }
    let by_line = Regex::new(text(&loki["jsonData"]["derivedFields"][1], "matcherRegex")).expect("a regex");
    let line = r#"{"level":50,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","msg":"x"}"#;
    assert_eq!(&by_line.captures(line).expect("found")[1], "4bf92f3577b34da6a3ce929d0e0e4736");
    let to_logs = &tempo["jsonData"]["tracesToLogsV2"];
    assert_eq!(text(to_logs, "datasourceUid"), text(&loki, "uid"));
    assert_eq!(text(to_logs, "query"), "{$${__tags}} | trace_id=\"$${__trace.traceId}\"");
}

/// What does not happen in the test: loss, errors of the API server, ticks left out; and a limit that its machine has not.
const STAYS_EMPTY: [&str; 5] = [
    "nodewick_kube_errors_total",
    "nodewick_memory_limit_bytes",
    "nodewick_red_missed_total",
    "nodewick_scrape_ticks_skipped_total",
    "nodewick_sink_samples_lost_total",
];

#[test]
fn every_query_has_data_in_a_prometheus_that_the_agent_fed() {
    let site = site::Site::start();
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for board in boards() {
        for scene in site::scenes(board.uid) {
            for variable in &board.variables {
                wrong.extend(site.values(&scene, variable).err().map(|why| format!("{} {why}", board.uid)));
            }
            for panel in board.rows.iter().flat_map(|row| &row.panels) {
                let mut labels = BTreeSet::new();
                let mut empty = true;
                for query in &panel.queries {
                    if query.source != nodewick::dashboards::Source::Prometheus {
                        empty = false;
                        continue;
                    }
                    asked += 1;
                    match site.ask(&scene, query) {
                        Ok(found) => {
                            // What is empty while all is well has data here, where it is not.
                            if found.is_empty()
                                && !STAYS_EMPTY.iter().any(|metric| query.expr.contains(metric))
                            {
                                wrong.push(format!(
                                    "{} / {}: is empty in the outage too: {}",
                                    board.uid, panel.title, query.expr
                                ));
                            }
                            empty &= found.is_empty();
                            labels.extend(found);
                        }
                        Err(why) => wrong.push(format!("{} / {}: {why}", board.uid, panel.title)),
                    }
                }
                // A table's columns are labels of what was found.
                let missing = panel
                    .columns
                    .iter()
                    .filter(|column| !column.field.starts_with('#') && !labels.contains(&column.field));
                if !empty && panel.queries[0].source == nodewick::dashboards::Source::Prometheus {
                    // An alert has some of its labels only.
                    let missing: Vec<&str> = missing.map(|column| column.field.as_str()).collect();
                    if !missing.is_empty() && panel.title != "Firing alerts" {
                        wrong.push(format!("{} / {}: no label {missing:?}", board.uid, panel.title));
                    }
                }
            }
            wrong.extend(site.annotations(&scene).into_iter().map(|why| format!("{} {why}", board.uid)));
        }
    }
    assert!(asked > 300, "{asked} queries asked");
    none(&wrong, "queries without data");
    they_say_what_happened(&site);
    what_logql_asks_for_is_sent(&site);
}

/// A query of a panel.
fn query_of(uid: &str, title: &str, at: usize) -> String {
    let board = boards().into_iter().find(|board| board.uid == uid).expect("a dashboard");
    let panel = board.rows.iter().flat_map(|row| &row.panels).find(|panel| panel.title == title);
    panel.unwrap_or_else(|| panic!("{uid} has no {title}")).queries[at].expr.clone()
}

/// What a person would read off the dashboards, which is what was done to the services.
fn they_say_what_happened(site: &site::Site) {
    let read = |uid: &str, title: &str, at: usize, labels: &[&str]| -> Vec<(String, f64)> {
        let scene = site::scenes(uid).pop().expect("a scene");
        site.read(&scene, &query_of(uid, title, at), labels)
    };
    let one = |text: &str, value: f64| vec![(text.to_owned(), value)];
    let states = read("nodewick-slo-overview", "Objectives by state", 0, &["slo_id"]);
    assert!(states.contains(&("shop/checkout/availability".to_owned(), 3.0)), "it pages: {states:?}");
    assert_eq!(read("nodewick-oncall", "Pages firing", 0, &[]).len(), 1);
    let vanished = read("nodewick-oncall", "Vanished traffic", 0, &["slo_id"]);
    assert_eq!(vanished, one("shop/legacy/gone", 300.0));
    assert!(
        read("nodewick-oncall", "Agent trouble by node", 0, &["trouble"])
            .contains(&("a backend does not answer".to_owned(), 1.0))
    );
    let pages_at: Vec<(String, f64)> = [("gone", 14.4), ("availability", 14.4), ("latency", 3.36)]
        .map(|(name, factor)| {
            (
                if name == "gone" { "shop/legacy/gone".to_owned() } else { format!("shop/checkout/{name}") },
                factor,
            )
        })
        .into();
    let found = read("nodewick-slo-overview", "Objectives by state", 9, &["slo_id"]);
    for (id, factor) in pages_at {
        let near = found.iter().any(|(own, value)| *own == id && (value - factor).abs() < 1e-9);
        assert!(near, "{id} pages at {factor}, as 14.4 is for 30 days: {found:?}");
    }
    // The last scene is of the latency objective: slow requests, by their route.
    let slow = read("nodewick-slo-detail", "Routes by share of the budget", 1, &["route", "class"]);
    assert!(slow.len() == 1 && slow[0].0 == "/wait/:ms slow", "{slow:?}");
    let failed = site.read(
        &site::scenes("nodewick-slo-detail")[0],
        &query_of("nodewick-slo-detail", "Routes by share of the budget", 1),
        &["route", "class"],
    );
    assert!(failed.len() == 1 && failed[0].0 == "/fail/:id 5xx" && failed[0].1 > 20.0, "{failed:?}");
    assert_eq!(
        read("nodewick-red-overview", "Deployments without RED", 0, &["deployment"]),
        one("worker", 1.0)
    );
    assert_eq!(read("nodewick-cluster", "Nodes not ready", 0, &[]), one("", 1.0));
    assert_eq!(
        read("nodewick-cluster", "Pods that do not run", 0, &["pod"]),
        one("checkout-7d9c5b6f4-pending", 1.0)
    );
    // Four of them by half a core of eight: 0.75 / 8.
    assert_eq!(read("nodewick-cluster", "CPU requested", 0, &[]), one("", 0.093_75));
    let routes = read("nodewick-service", "Routes by errors", 1, &["route"]);
    assert!(
        routes.contains(&("/fail/:id".to_owned(), 1.0)) && routes.contains(&("/orders/:id".to_owned(), 0.0)),
        "{routes:?}"
    );
    // A point of the chart of durations leads to a trace.
    let durations =
        site.fill(&site::scenes("nodewick-service")[0], &query_of("nodewick-service", "Durations", 2));
    let exemplars = site.exemplars(&durations);
    assert!(
        exemplars.iter().any(|labels| labels.get("trace_id").is_some_and(|id| id.len() == 32)),
        "{exemplars:?}"
    );
}

/// Labels of streams and fields that queries of logs name are what the agent sends.
fn what_logql_asks_for_is_sent(site: &site::Site) {
    let sent = site.sent_to_loki();
    for name in ["cluster", "namespace", "service_name", "level", "trace_id"] {
        assert!(sent.contains(name), "{name} is not among {sent:?}");
    }
}
