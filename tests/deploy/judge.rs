//! Asks `judge.py`, in the Python environment that `make test` brings in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file below `deploy/`.
pub fn deploy(path: &str) -> PathBuf {
    root().join("deploy").join(path)
}

/// The answer of `judge.py` to a verb, its arguments and what it reads from its standard input.
fn ask(verb: &str, args: &[&str], input: &Value) -> Value {
    let python = root().join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing; .ci/tools makes it", python.display());
    let mut child = Command::new(python)
        .arg(root().join("tests/deploy/judge.py"))
        .arg(verb)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut stdin = child.stdin.take().expect("piped");
    // A verb that needs no input may have ended already.
    let _ = stdin.write_all(input.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "judge.py {verb}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("judge.py answers JSON")
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => panic!("not a list: {other}"),
    }
}

/// The objects of a YAML file.
pub fn objects(path: &Path) -> Vec<Value> {
    let path = path.to_str().expect("UTF-8");
    list(list(ask("yaml", &[path], &Value::Null)).remove(0))
}

/// The one object of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "objects of kind {kind}");
    found[0]
}

/// What Kubernetes of these versions would refuse of the objects; nothing, if all is well.
pub fn refused_by_kubernetes(objects: &[Value], versions: &[&str]) -> Vec<String> {
    texts(&ask("schemas", versions, &json!(objects)))
}

/// What the chart makes of values.
pub struct Rendered {
    /// All objects.
    pub objects: Vec<Value>,
    /// What Helm shows after installing.
    pub notes: String,
}

/// Renders a chart once for each case of `values`, `name` and `namespace`; Helm's error where it refuses.
pub fn render_cases(chart: &Path, cases: &[Value]) -> Vec<Result<Rendered, String>> {
    let answers = list(ask("render", &[chart.to_str().expect("UTF-8")], &json!(cases)));
    let read = |answer: Value| match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(Rendered {
            objects: list(answer["objects"].clone()),
            notes: answer["notes"].as_str().unwrap_or_default().to_owned(),
        }),
    };
    answers.into_iter().map(read).collect()
}

/// Renders our chart with `values` as the release `nodewick` in the namespace `nodewick`.
pub fn render(values: Value) -> Rendered {
    let case = json!({"values": values});
    render_cases(&deploy("helm/nodewick"), &[case]).remove(0).unwrap_or_else(|error| panic!("{error}"))
}

/// Helm's findings about a chart: severity and text.
pub fn lint(chart: &Path) -> Vec<(u64, String)> {
    let report = ask("lint", &[chart.to_str().expect("UTF-8")], &json!({}));
    let message = |message: &Value| {
        (message["severity"].as_u64().unwrap_or(9), message["error"].as_str().unwrap_or_default().to_owned())
    };
    list(report["messages"].clone()).iter().map(message).collect()
}

/// For each pod the messages with which the policy of a file refuses it.
pub fn refused_by_policy(policy: &str, pods: &[Value]) -> Vec<Vec<String>> {
    let path = deploy(policy);
    let answers = list(ask("policy", &[path.to_str().expect("UTF-8")], &json!(pods)));
    answers.iter().map(texts).collect()
}

fn texts(value: &Value) -> Vec<String> {
    list(value.clone()).iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// The TOML file that a ConfigMap holds for the agent.
pub fn agent_toml(objects: &[Value]) -> String {
    of_kind(objects, "ConfigMap")["data"]["agent.toml"].as_str().expect("agent.toml").to_owned()
}
