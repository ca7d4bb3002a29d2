//! `nodewick config`, `test`, `explain`, `completions` and `man` as an operator meets them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

fn nodewick(args: &[&str]) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command.env_clear().env("NODE_NAME", "node-1").args(args).timeout(Duration::from_secs(60));
    command
}

fn run(args: &[&str]) -> Output {
    nodewick(args).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(suffix: &str, text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn name(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("UTF-8")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

const CONFIG: &str = "[agent]\ncluster = \"prod\"\n\n[sink.loki.main]\nurl = \"https://loki:3100\"\n\n\
                      [sink.loki.main.auth]\nusername = \"u\"\npassword = \"hunter2\"\n";

#[test]
fn what_was_set_is_shown_with_its_origin_and_without_its_secrets() {
    let config = file(".toml", CONFIG);
    let output = run(&["config", "show", "-c", name(&config), "--set", "logs.start=newest"]);
    let path = name(&config);
    assert_eq!(
        text(&output.stdout),
        format!(
            "[agent]\ncluster = \"prod\"  # {path}:2\nnode = \"node-1\"  # env NODE_NAME\n\n\
             [logs]\nstart = \"newest\"  # --set logs.start\n\n\
             [sink.loki.main]\nurl = \"https://loki:3100\"  # {path}:5\n\n\
             [sink.loki.main.auth]\npassword = \"<redacted>\"  # {path}:9\nusername = \"u\"  # {path}:8\n"
        )
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_effective_config_has_every_key_and_loads_again() {
    let config = file(".toml", CONFIG);
    let shown = text(&run(&["config", "show", "--effective", "-c", name(&config)]).stdout);
    assert!(shown.contains("\nmemory = \"32MiB\"\n") && shown.contains("\n# tenant is not set\n"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let again = file(".toml", &shown);
    let output = run(&["config", "show", "--effective", "-o", "json", "-c", name(&again)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let first = run(&["config", "show", "--effective", "-o", "json", "-c", name(&config)]);
    let config_of =
        |output: &Output| serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["config"].clone();
    assert_eq!(config_of(&output), config_of(&first));
    assert_eq!(config_of(&first)["sink"]["loki"]["main"]["auth"]["password"], "<redacted>");
}

#[test]
fn origins_stand_beside_the_config_in_json() {
    let output = nodewick(&["config", "show", "-o", "json"])
        .env("NODEWICK_AGENT_CLUSTER", "c")
        .output()
        .expect("runs");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        shown,
        json!({
            "config": {"agent": {"cluster": "c", "node": "node-1"}, "sink": {"local": {"default": {}}}},
            "origins": {"agent.cluster": "env NODEWICK_AGENT_CLUSTER", "agent.node": "env NODE_NAME",
                "sink.local.default": "no sink configured"},
        })
    );
}

/// Validates TOML files against the schema with PyPI's `jsonschema`; which of them are valid.
fn validate(files: &[&Path]) -> Vec<bool> {
    let python = repository().join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: `make test` makes it", python.display());
    let schema = file(".json", &text(&run(&["config", "schema"]).stdout));
    let program = "import json, sys, tomllib, jsonschema\n\
                   schema = json.load(open(sys.argv[1]))\n\
                   kind = jsonschema.validators.validator_for(schema)\n\
                   kind.check_schema(schema)\n\
                   for path in sys.argv[2:]:\n    \
                       errors = list(kind(schema).iter_errors(tomllib.load(open(path, 'rb'))))\n    \
                       print(not errors, [e.message for e in errors][:3])\n";
    let output = std::process::Command::new(python)
        .args(["-c", program, name(&schema)])
        .args(files)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| line.starts_with("True")).collect()
}

#[test]
fn the_schema_takes_our_config_and_refuses_what_the_loader_refuses() {
    let unknown = file(".toml", "[agent]\nclustr = \"x\"\n");
    let kind = file(".toml", "[logs]\nlast_words = 3\n");
    let rules = repository().join("tests/corpus/rules/agent.toml");
    let shipped = repository().join("config/agent.toml");
    assert_eq!(validate(&[&shipped, &rules, unknown.path(), kind.path()]), [true, true, false, false]);
}

#[test]
fn a_first_config_loads_without_warnings() {
    for args in [
        &[][..],
        &["--cluster", "a \"b\""],
        &["--loki", "https://loki.example.org", "--cluster", "c"],
        &["--otlp", "http://collector:4317"],
        &["--loki", "http://loki:3100", "--otlp", "http://collector:4318"],
    ] {
        let first = run(&[&["config", "init"], args].concat());
        assert_eq!(first.status.code(), Some(0), "{args:?}: {}", text(&first.stderr));
        let config = file(".toml", &text(&first.stdout));
        let check = run(&["check", "--offline", "-c", name(&config)]);
        assert_eq!((check.status.code(), text(&check.stderr)), (Some(0), String::new()), "{args:?}");
    }
    let wrong = run(&["config", "init", "--loki", "not a url"]);
    assert_eq!((wrong.status.code(), text(&wrong.stdout)), (Some(78), String::new()));
}

#[test]
fn the_cases_of_the_docs_pass() {
    let output = nodewick(&["test", "-c", "agent.toml"])
        .current_dir(repository().join("tests/corpus/rules"))
        .output()
        .expect("runs");
    assert_eq!(
        text(&output.stdout),
        "ok    health checks are dropped, other requests are not  (agent.test.toml:3)\n\
         ok    cache misses of the checkout are dropped  (agent.test.toml:16)\n\
         ok    customers' numbers and passwords are covered  (agent.test.toml:25)\n\
         ok    a stack trace is one record  (agent.test.toml:33)\n\
         ok    a line that the runtime cut in two is whole again  (agent.test.toml:46)\n\
         5 cases, 0 failed\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_failing_case_shows_what_differs_and_where() {
    let config =
        file(".toml", "[process.drop.noise]\ncontains = \"noise\"\n[process.redact]\nbuiltin = true\n");
    let cases = file(
        ".toml",
        "[[case]]\nname = \"wrong in all\"\nlines = ['level=warn msg=noise', 'password=abc', 'third']\n\n\
         [[case.expect]]\nkept = true\nlevel = \"error\"\n\n\
         [[case.expect]]\nbody = \"password=abc\"\nredacted = []\ndropped_by = \"drop.noise\"\n",
    );
    let path = name(&cases);
    let output = run(&["test", "-c", name(&config), path]);
    assert_eq!(
        text(&output.stdout),
        format!(
            "FAIL  wrong in all  ({path}:1)\n\
             \x20     record 1: kept  ({path}:6)\n        - kept\n        + dropped by drop.noise\n\
             \x20     record 1: level  ({path}:7)\n        - \"error\"\n        + \"warn\"\n\
             \x20     record 2: body  ({path}:10)\n        - \"password=abc\"\n        + \"password=[REDACTED:password]\"\n\
             \x20     record 2: redacted  ({path}:11)\n        - \n        + password\n\
             \x20     record 2: dropped_by  ({path}:12)\n        - dropped by drop.noise\n        + kept\n\
             \x20     record 3  ({path}:1)\n        - no further record\n        + \"third\"\n\
             1 case, 1 failed\n"
        )
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn sampling_limits_and_deduplication_are_told_apart() {
    let config = file(
        ".toml",
        "[process.sample.none]\nlevel = \"debug\"\nkeep = \"0%\"\n[process.limit.few]\nrate = \"2/s\"\n\
         [process.dedup]\ncontains = \"again\"\n",
    );
    let cases = file(
        ".toml",
        "[[case]]\nlines = ['level=debug x', 'again', 'again', 'again', 'b', 'c']\nexpect = [\n\
         {dropped_by = 'sample.none'}, {kept = true}, {dropped_by = 'dedup'}, {repeated = 1},\n\
         {dropped_by = 'limit.few'}, {dropped_by = 'limit.few'}]\n",
    );
    let output = run(&["test", "-c", name(&config), name(&cases)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn annotations_of_a_case_are_those_of_its_pod() {
    let config = file(".toml", "[sink.loki.main]\nurl = \"http://l\"\n");
    let cases = file(
        ".toml",
        r#"[[case]]
name = "off"
container = "api"
annotations = { "nodewick.dev/logs" = "on", "nodewick.dev/logs.api" = "off" }
lines = ["one", "two"]
expect = [{ dropped_by = "annotation", service = "" }, { kept = false }]

[[case]]
name = "level"
lines = ['{"level":"info","sev":"error"}']
annotations = { "nodewick.dev/level-field" = "sev", "resource.opentelemetry.io/service.name" = "till" }
expect = { level = "error", service = "till" }

[[case]]
name = "text"
annotations = { "nodewick.dev/parser" = "text" }
lines = ['{"level":"info","sev":"error"}']
expect = { level = "", kept = true }

[[case]]
name = "share"
annotations = { "nodewick.dev/sample" = "0.0000001" }
lines = ["one"]
expect = { dropped_by = "sample.annotation" }

[[case]]
name = "joined"
annotations = { "nodewick.dev/multiline" = "start=^BEGIN" }
lines = ["BEGIN 1", "x", "BEGIN 2"]
expect = [{ lines = 2, contains = ["x"] }, { lines = 1 }]

[[case]]
name = "misspelt"
annotations = { "nodewick.dev/parser" = "jsno" }
lines = ['{"level":"info"}']
expect = { level = "info" }
"#,
    );
    let output = run(&["test", "-c", name(&config), name(&cases)]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.ends_with("6 cases, 0 failed\n"), "{said}");
    assert_eq!(said.matches("‼").count(), 1, "{said}");
    assert!(said.contains("      ‼ default/example: nodewick.dev/parser = \"jsno\" "), "{said}");
    let bad = file(
        ".toml",
        "[[case]]\nlines = [\"x\"]\nexpect = { kept = true }\nannotations = { \"nodewick.dev/sample\" = 0.5 }\n",
    );
    let output = run(&["test", "-c", name(&config), name(&bad)]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("expected text"), "{}", text(&output.stderr));
}

#[test]
fn an_explanation_follows_the_pods_annotations() {
    let line = "{\"sev\":\"error\",\"m\":1}\n";
    let explain = |annotations: &[&str]| {
        let mut args = vec!["explain", "--set", "sink.loki.main.url=http://l"];
        for annotation in annotations {
            args.extend(["--annotation", annotation]);
        }
        nodewick(&args).write_stdin(line).output().expect("runs")
    };
    let said = explain(&["nodewick.dev/level-field=sev", "nodewick.dev/sample=99.99999999999999%"]);
    let out = text(&said.stdout);
    assert!(out.contains("\n           level = error  (key sev: error at byte 9)\n"), "{out}");
    assert!(out.contains("\n  process  sample.annotation: matches, kept\n"), "{out}");
    assert_eq!(text(&said.stderr), "");
    let off = explain(&["nodewick.dev/logs=off", "nodewick.dev/sampel=1"]);
    let out = text(&off.stdout);
    assert!(
        out.contains(
            "  process  annotation: switches the logs of this container off: they are not read\n  sinks    nothing is sent: \
             dropped by annotation\n"
        ),
        "{out}"
    );
    let told = text(&off.stderr);
    assert!(told.starts_with("‼ default/example: nodewick.dev/sampel = \"1\" "), "{told}");
    assert!(told.lines().nth(1).is_some_and(|fix| fix.starts_with("  → ")), "{told}");
    assert_eq!(explain(&["nodewick.dev/logs"]).status.code(), Some(2));
}

#[test]
fn a_bad_file_of_cases_exits_78_with_line_and_caret() {
    for (cases, place, said) in [
        (
            "[[case]]\nname = \"x\"\nlines = ['a']\nexpct = [{}]\n",
            "4:1",
            "unknown key\n  |\n4 | expct = [{}]\n  | ^^^^^",
        ),
        (
            "[[case]]\nlines = ['a']\n[[case.expect]]\nlevle = 'x'\n",
            "4:1",
            "unknown expectation\n  |\n4 | levle = 'x'\n  | ^^^^^\n  = did you mean `level`?",
        ),
        ("[[case]]\nlines = 3\nexpect = [{}]\n", "2:9", "expected a list of texts"),
        ("[[case]\n", "1:8", ""),
        ("[[case]]\nlines = ['a']\n", "1:1", "the case expects nothing"),
    ] {
        let cases = file(".toml", cases);
        let output = run(&["test", name(&cases)]);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(78), String::new()), "{error}");
        let begin = format!("{}:{place}: error: ", name(&cases));
        assert!(error.contains(&begin) && error.contains(said), "expected {begin} {said}\n{error}");
    }
    assert_eq!(run(&["test", "/nonexistent.toml"]).status.code(), Some(78));
}

#[test]
fn a_line_is_explained_through_every_stage() {
    let config = file(
        ".toml",
        "[agent]\ncluster = \"c\"\n[process.drop.health]\nurl_path = \"/healthz\"\n[process.redact]\nbuiltin = true\n\
         [sink.loki.main]\nurl = \"http://l\"\n",
    );
    let line = "2026-11-22T14:42:13.000000001Z stderr P {\"level\":50,\"password\":\n\
                2026-11-22T14:42:13.000000001Z stderr F \"hunter2\"}\n";
    let args = ["explain", "-c", name(&config), "-n", "shop", "--pod", "checkout-d994d45d6-5h9zr"];
    let output = nodewick(&args).write_stdin(line).output().expect("runs");
    let expected = r#"record  {"level":50,"password":"hunter2"}
  frame    line 1: CRI, 2026-11-22T14:42:13.000000001Z, stderr, part, joined to the next one
           line 2: CRI, 2026-11-22T14:42:13.000000001Z, stderr, whole
  parse    JSON
           level = error  (key level: 50 at byte 10)
  process  drop.health: does not match
           redact.password: replaced text in 1 place
  sinks    loki main
             labels     {cluster="c", container="main", namespace="shop", node="node-1", service_name="checkout"}
             metadata   pod=checkout-d994d45d6-5h9zr
                        stream=stderr
                        level=error
                        detected_level=error
                        redacted=true
             line       {"level":50,"password":"[REDACTED:password]"}
"#;
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

#[test]
fn an_explanation_is_there_as_json_too() {
    let config = file(
        ".toml",
        "[process.drop.all]\ncontains = \"gone\"\n[sink.otlp.main]\nendpoint = \"http://o:4317\"\n",
    );
    let docker = "{\"log\":\"trace_id=0af7651916cd43dd8448eb211c80319c kept\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-22T14:42:13Z\"}\n\
                  bare gone\n";
    let output =
        nodewick(&["explain", "-o", "json", "-c", name(&config)]).write_stdin(docker).output().expect("runs");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let [first, second] = told.as_array().expect("a list").as_slice() else { panic!("{told}") };
    assert_eq!(
        first["frame"],
        json!({"joined": null, "lines": [{"form": "docker json-file", "line": 1, "stream": "stdout",
            "time": "2026-11-22T14:42:13.000000000Z", "whole": true}]})
    );
    assert_eq!(
        first["parse"]["fields"]["trace_id"],
        json!({"value": "0af7651916cd43dd8448eb211c80319c", "key": "trace_id", "byte": 10,
            "from": "key trace_id: 0af7651916cd43dd8448eb211c80319c at byte 10"})
    );
    assert_eq!(first["process"], json!([{"rule": "drop.all", "verdict": "no_match", "places": null}]));
    let otlp = &first["sinks"]["otlp.main"];
    assert_eq!(otlp["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(otlp["resource"]["k8s.namespace.name"], "default");
    assert_eq!(otlp["attributes"]["log.iostream"], "stdout");
    assert_eq!(second["dropped_by"], "drop.all");
    assert_eq!(second["sinks"], Value::Null);
    assert_eq!(second["frame"]["lines"][0]["form"], "no runtime header");
}

#[test]
fn a_pods_log_says_by_its_path_who_wrote_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("shop_checkout-d994d45d6-5h9zr_d11c6e6d-84fc-49ec-95a1-4ee5155f656a/api");
    std::fs::create_dir_all(&log).expect("made");
    let log = log.join("3.log");
    std::fs::write(&log, "2026-11-22T14:42:13.000000001Z stdout F x\n").expect("written");
    let output =
        run(&["explain", "--set", "sink.loki.main.url=http://l", "-f", log.to_str().expect("UTF-8")]);
    let labels = r#"{container="api", namespace="shop", node="node-1", service_name="checkout"}"#;
    assert!(text(&output.stdout).contains(labels), "{}", text(&output.stdout));
    let nothing = nodewick(&["explain"]).write_stdin("").output().expect("runs");
    assert_eq!(
        (nothing.status.code(), text(&nothing.stderr)),
        (Some(1), "nodewick: error: no line to explain in standard input\n".to_owned())
    );
}

#[test]
fn the_first_screen_shows_eight_verbs_at_most() {
    let help = text(&run(&["--help"]).stdout);
    let verbs = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let named = verbs.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).count();
    assert!((1..=8).contains(&named), "{help}");
    assert!(help.contains("More verbs"), "{help}");
    // What completions know is on the first screen too, listed or under more.
    let all = [
        "run",
        "exec",
        "demo",
        "tail",
        "check",
        "explain",
        "config",
        "test",
        "migrate",
        "completions",
        "man",
    ];
    for verb in all.iter().chain(&["doctor", "why", "status", "support", "version", "top"]) {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}: {help}");
    }
}

#[test]
fn completions_and_the_manual_know_every_verb() {
    for (shell, part) in
        [("bash", "_nodewick()"), ("zsh", "#compdef nodewick"), ("fish", "complete -c nodewick")]
    {
        let output = run(&["completions", shell]);
        let script = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0));
        assert!(script.contains(part) && script.contains("migrate") && script.contains("explain"), "{shell}");
    }
    let script = file(".sh", &text(&run(&["completions", "bash"]).stdout));
    let bash = std::process::Command::new("bash").args(["-n", name(&script)]).status().expect("bash runs");
    assert!(bash.success());
    let page = text(&run(&["man"]).stdout);
    assert!(page.contains(".TH nodewick 1") && page.contains("nodewick\\-migrate(1)"), "{page}");
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(2));
}

/// A config with a rule that drops, redaction, and fewer fields than there are.
const DIFFED: &str = "[agent]\ncluster = \"c\"\n[record]\nfields = [\"pod\", \"level\", \"trace_id\", \"request_id\"]\n\
    [process.drop.health]\nurl_path = \"/healthz\"\n[process.redact]\nbuiltin = true\n\
    [process.redact.rule.order]\npattern = 'o-[0-9]+'\nreplace = 'o-#'\n[sink.loki.main]\nurl = \"http://l\"\n";

#[test]
fn a_diff_shows_what_each_stage_changed_and_which_rule_did_it() {
    let config = file(".toml", DIFFED);
    let lines = "2026-11-22T14:42:13.000000001Z stderr P {\"sev\":\"error\",\"reqId\":\"r-77\",\"order\":\"o-123\",\n\
                 2026-11-22T14:42:13.000000001Z stderr F \"password\":\"hunter2\"}\n\
                 2026-11-22T14:42:14Z stdout F {\"level\":30,\"req\":{\"url\":\"/healthz\"}}\n";
    let args = [
        "explain",
        "--diff",
        "-c",
        name(&config),
        "-n",
        "shop",
        "--pod",
        "pay-d994d45d6-5h9zr",
        "--annotation",
        "nodewick.dev/level-field=sev",
        "--annotation",
        "resource.opentelemetry.io/service.name=checkout",
    ];
    let output = nodewick(&args).write_stdin(lines).output().expect("runs");
    let expected = r#"record  {"sev":"error","reqId":"r-77","order":"o-123","password":"hunter2"}
  frame       CRI; 2 parts joined  148 → 67 bytes
    - 2026-11-22T14:42:13.000000001Z stderr P {"sev":"error","reqId":"r-77","order":"o-123",
    - 2026-11-22T14:42:13.000000001Z stderr F "password":"hunter2"}
    + {"sev":"error","reqId":"r-77","order":"o-123","password":"hunter2"}
    + stream = stderr
    + time = 2026-11-22T14:42:13.000000001Z
  parse       JSON
    + request_id = r-77
  annotations
    ~ service_name = pay → checkout
    + level = error
  rule        drop.health: does not match
  redact      password, order  67 → 77 bytes
    - {"sev":"error","reqId":"r-77","order":"o-123","password":"hunter2"}
    + {"sev":"error","reqId":"r-77","order":"o-#","password":"[REDACTED:password]"}
  seal        [record] fields and who wrote it
    - stream = stderr
    + cluster = c
    + node = node-1
    + namespace = shop
    + pod = pay-d994d45d6-5h9zr
    + container = main
    + service_name = checkout

record  {"level":30,"req":{"url":"/healthz"}}
  frame       CRI  67 → 37 bytes
    - 2026-11-22T14:42:14Z stdout F {"level":30,"req":{"url":"/healthz"}}
    + {"level":30,"req":{"url":"/healthz"}}
    + stream = stdout
    + time = 2026-11-22T14:42:14.000000000Z
  parse       JSON
    + level = info
    + http_route = /healthz
    + url_path = /healthz
  annotations
    ~ service_name = pay → checkout
  rule        drop.health: matches, dropped  37 → 0 bytes
"#;
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

#[test]
fn the_diff_is_in_the_json_with_the_rule_of_each_part() {
    let config = file(".toml", DIFFED);
    let line = "{\"order\":\"o-123\",\"password\":\"hunter2\"}\n";
    let output =
        nodewick(&["explain", "-o", "json", "-c", name(&config)]).write_stdin(line).output().expect("runs");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let stages = told[0]["diff"].as_array().expect("stages");
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["stage"].as_str()).collect();
    assert_eq!(names, ["frame", "parse", "rule", "redact", "seal"]);
    assert_eq!(
        stages[3],
        json!({"stage": "redact", "by": "password, order", "verdict": null, "outcome": "changed",
            "text": {"before": "{\"order\":\"o-123\",\"password\":\"hunter2\"}",
                "after": "{\"order\":\"o-#\",\"password\":\"[REDACTED:password]\"}",
                "parts": [{"at": 10, "before": "o-123", "after": "o-#", "rule": "redact.order"},
                    {"at": 29, "before": "hunter2", "after": "[REDACTED:password]", "rule": "redact.password"}]},
            "bytes": {"before": 38, "after": 48}, "fields": {"added": {}, "changed": {}, "removed": {}}})
    );
    assert_eq!(
        (&stages[2]["by"], &stages[2]["verdict"], &stages[2]["outcome"]),
        (&json!("drop.health"), &json!("no_match"), &json!("same"))
    );
    assert_eq!(stages[4]["fields"]["added"]["service_name"], "example");
}
