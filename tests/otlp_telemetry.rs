//! The agent's own logs and traces, as an independent OTLP receiver and a reader of standard error see them.
//!
//! A process has one global subscriber, so each case runs this test program again, as a child that only logs.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nodewick::telemetry;
use serde_json::{Value, json};

#[path = "support/otlp.rs"]
mod support;
use support::Receiver;

/// Runs in the child only.
#[test]
#[ignore = "the other tests run it in a process of its own"]
fn child() {
    let guard = telemetry::init(&telemetry::Config::default()).expect("a valid environment");
    {
        let span = tracing::info_span!(target: "nodewick::logs", "catch_up", file = "0.log");
        let _entered = span.enter();
        tracing::info!(target: "nodewick::logs", lost_bytes = 7_u64, "log rotated away before it was read");
        tracing::debug!(target: "nodewick::logs", "too fine");
        tracing::warn!(target: "hyper_util::client", "the exporter's own words");
    }
    drop(guard);
}

fn command(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.starts_with("NODEWICK_") {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().copied());
    command
}

fn run(env: &[(&str, &str)]) -> Output {
    let output = command(env).output().expect("the child runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The child's own log lines: what is JSON on its standard error.
fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stderr).expect("UTF-8");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn own_logs_are_json_where_nobody_watches() {
    let lines = lines(&run(&[]));
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["message"], json!("log rotated away before it was read"));
    assert_eq!(
        (&lines[0]["level"], &lines[0]["lost_bytes"], &lines[0]["target"]),
        (&json!("INFO"), &json!(7), &json!("nodewick::logs"))
    );
    assert_eq!(lines[0]["span"]["name"], json!("catch_up"));
}

#[test]
fn a_closed_standard_error_does_not_end_the_agent() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command(&[]).stderr(writer).output().expect("the child runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_filter_comes_from_the_environment() {
    let lines = lines(&run(&[("NODEWICK_LOG", "off,nodewick::logs=debug")]));
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().expect("a message")).collect();
    assert_eq!(messages, ["log rotated away before it was read", "too fine"]);
}

#[test]
fn own_logs_and_traces_arrive_by_both_protocols() {
    for protocol in ["grpc", "http/protobuf"] {
        let receiver = Receiver::start(&[]);
        let port = if protocol == "grpc" { receiver.grpc } else { receiver.http };
        let started = Instant::now();
        run(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=platform"),
            ("NODE_NAME", "node-1"),
        ]);
        assert!(started.elapsed() < Duration::from_secs(5), "flushing took {:?}", started.elapsed());
        let all = receiver.records();
        let of = |signal: &str| all.iter().filter(|one| one["signal"] == json!(signal)).collect::<Vec<_>>();
        let (logs, spans) = (of("logs"), of("traces"));
        assert_eq!((logs.len(), spans.len()), (1, 1), "{protocol}: {all:#?}");
        assert_eq!(logs[0]["body"], json!("log rotated away before it was read"));
        assert_eq!(
            (&logs[0]["severity_number"], &logs[0]["attributes"]["lost_bytes"]),
            (&json!(9), &json!(7))
        );
        assert_eq!(spans[0]["name"], json!("catch_up"));
        assert_eq!(spans[0]["attributes"]["file"], json!("0.log"));
        assert_eq!(logs[0]["trace_id"], spans[0]["trace_id"], "{protocol}: the log belongs to the span");
        for one in [logs[0], spans[0]] {
            assert_eq!(one["resource"]["service.name"], json!("nodewick"));
            assert_eq!(one["resource"]["team"], json!("platform"));
            assert_eq!(one["resource"]["k8s.node.name"], json!("node-1"));
        }
    }
}

#[test]
fn a_collector_that_is_down_neither_stops_nor_holds_the_agent() {
    let gone = Receiver::start(&[]);
    let ports = [("grpc", gone.grpc), ("http/protobuf", gone.http)];
    drop(gone);
    for (protocol, port) in ports {
        let started = Instant::now();
        let output = run(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ]);
        assert!(started.elapsed() < Duration::from_secs(4), "{protocol}: {:?}", started.elapsed());
        let failures = lines(&output)
            .iter()
            .filter(|line| line["message"] == json!("own telemetry is not exported"))
            .count();
        assert!((1..=2).contains(&failures), "{protocol}: once for each signal, not {failures}");
    }
}
