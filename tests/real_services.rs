//! Real services, real loggers, the real agent: every line arrives, once, in order, as it was written.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::agent::Agent;
use support::cri_writer::{ContainerLog, FRAGMENT, Pipe, Rotator};
use support::fake_loki::{FakeLoki, Limits};
use support::otlp::Receiver;
use support::services::{Kind, Load, Running};

/// Time that a service has for its work, however busy the machine.
const WITHIN: Duration = Duration::from_secs(90);

/// Time that the agent has to ship the rest when the services have ended.
const SHIPPED: Duration = Duration::from_secs(60);

/// A node whose containers are the real services.
struct Node {
    directory: tempfile::TempDir,
    logs: Vec<(Kind, ContainerLog)>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let logs = Kind::ALL.map(|kind| {
            let log = ContainerLog::create(&directory.path().join("pods"), &kind.pod_dir(), kind.name(), 0);
            (kind, log.expect("a container log"))
        });
        Self { directory, logs: logs.into() }
    }

    fn pods(&self) -> std::path::PathBuf {
        self.directory.path().join("pods")
    }

    fn start(&self, load: Load) -> Vec<Running> {
        self.logs.iter().map(|(kind, log)| kind.start(log, load)).collect()
    }

    fn rotate_at(&self, max_bytes: u64, every: Duration) -> Vec<Rotator> {
        self.logs.iter().map(|(_, log)| log.rotate_at(max_bytes, every)).collect()
    }

    /// The agent on this node, with these sinks.
    fn agent(&self, sinks: &str) -> Agent {
        let mut agent = Agent::start(&self.directory.path().join("agent"), &self.pods(), sinks);
        agent.wait_ready();
        agent
    }

    /// Lines that the services have printed.
    fn printed(&self) -> usize {
        self.logs.iter().map(|(_, log)| log.lines().len()).sum()
    }
}

/// The log records that a receiver has, without the samples that come beside them.
fn lines_of(receiver: &Receiver) -> Vec<Value> {
    let mut records = receiver.records();
    records.retain(|record| record["signal"] == "logs");
    records
}

/// One line as it must arrive, and as it arrived.
#[derive(Debug, PartialEq, Eq)]
struct Arrival {
    line: String,
    severity: u8,
    level: String,
    trace_id: String,
    span_id: String,
}

/// What must arrive of a container's `pipe`.
fn expected(kind: Kind, log: &ContainerLog, pipe: Pipe) -> Vec<Arrival> {
    let lines = log.lines();
    let meanings = kind.expect(&lines);
    let of_pipe = lines.into_iter().zip(meanings).filter(|(line, _)| line.pipe == pipe);
    of_pipe
        .map(|(line, meaning)| Arrival {
            line: String::from_utf8(line.text).expect("loggers write UTF-8"),
            severity: meaning.severity,
            level: meaning.level.to_owned(),
            trace_id: meaning.trace_id.unwrap_or_default(),
            span_id: meaning.span_id.unwrap_or_default(),
        })
        .collect()
}

/// Compares line by line, so that a failure names the first difference and not five hundred lines.
fn same(what: &str, arrived: &[Arrival], expected: &[Arrival]) {
    let mut pairs = arrived.iter().zip(expected).enumerate();
    if let Some((number, (arrived, expected))) = pairs.find(|(_, (arrived, expected))| arrived != expected) {
        panic!("{what}, line {number}:\n arrived {arrived:?}\nexpected {expected:?}");
    }
    assert_eq!(arrived.len(), expected.len(), "{what}: lines that arrived, and lines that were printed");
}

/// Every line of the node is at Loki once, in order, with its labels and its metadata.
fn all_at_loki(node: &Node, loki: &FakeLoki) {
    let streams: Vec<_> = loki.streams().into_iter().map(|(_, labels)| labels).collect();
    let mut wanted: Vec<_> = Kind::ALL.map(labels).into();
    wanted.sort();
    assert_eq!(streams, wanted);
    for (kind, log) in &node.logs {
        let entries = loki.entries(&labels(*kind));
        for pipe in [Pipe::Stdout, Pipe::Stderr] {
            let arrived: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let metadata = |name: &str| {
                        let mut values = entry.metadata.iter().filter(|(key, _)| key == name);
                        let value = values.next().map(|(_, value)| value.clone()).unwrap_or_default();
                        assert!(values.next().is_none(), "{name} twice: {:?}", entry.metadata);
                        value
                    };
                    assert_eq!(metadata("pod"), kind.pod());
                    // Loki would guess otherwise, and a numeric level it would not know.
                    assert_eq!(metadata("detected_level"), metadata("level"));
                    let arrival = Arrival {
                        line: entry.line.clone(),
                        // Loki has words only.
                        severity: 0,
                        level: metadata("level"),
                        trace_id: metadata("trace_id"),
                        span_id: metadata("span_id"),
                    };
                    (metadata("stream"), arrival)
                })
                .filter(|(stream, _)| stream == pipe.name())
                .map(|(_, arrival)| arrival)
                .collect();
            let mut expected = expected(*kind, log, pipe);
            expected.iter_mut().for_each(|line| line.severity = 0);
            same(&format!("{kind:?} {} at Loki", pipe.name()), &arrived, &expected);
        }
    }
}

fn labels(kind: Kind) -> String {
    let name = kind.name();
    format!(
        "{{cluster=\"test\", container=\"{name}\", namespace=\"shop\", node=\"node-1\", service_name=\"{name}\"}}"
    )
}

/// Every line of the node is at an OTLP receiver once, in order, with its resource and its severity.
fn all_at_otlp(node: &Node, protocol: &str, records: &[Value]) {
    for (kind, log) in &node.logs {
        for pipe in [Pipe::Stdout, Pipe::Stderr] {
            let own = records.iter().filter(|record| {
                record["resource"]["k8s.container.name"] == kind.name()
                    && record["attributes"]["log.iostream"] == pipe.name()
            });
            let arrived: Vec<_> = own
                .map(|record| {
                    let text = |value: &Value| value.as_str().expect("text").to_owned();
                    assert_eq!(record["resource"]["service.name"], kind.name());
                    assert_eq!(record["resource"]["k8s.namespace.name"], "shop");
                    assert_eq!(record["resource"]["k8s.pod.name"], kind.pod());
                    Arrival {
                        line: text(&record["body"]),
                        severity: record["severity_number"].as_u64().map_or(0, |number| number as u8),
                        level: String::new(),
                        trace_id: text(&record["trace_id"]),
                        span_id: text(&record["span_id"]),
                    }
                })
                .collect();
            let mut expected = expected(*kind, log, pipe);
            expected.iter_mut().for_each(|line| line.level.clear());
            same(&format!("{kind:?} {} over {protocol}", pipe.name()), &arrived, &expected);
        }
    }
    let uids: BTreeSet<_> =
        records.iter().map(|record| record["attributes"]["log.record.uid"].to_string()).collect();
    assert_eq!(uids.len(), records.len(), "every record has an id of its own");
}

/// Waits until `arrived` says that all `lines` are there; says how many when they are not.
fn wait_for(agent: &Agent, lines: usize, arrived: impl Fn() -> usize) {
    let deadline = Instant::now() + SHIPPED;
    while arrived() < lines {
        assert!(Instant::now() < deadline, "{} of {lines} lines arrived\n{}", arrived(), agent.said());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads a container log back as a person would: newest file last, lines split at newlines, fragments joined per pipe.
fn read_back(log: &ContainerLog) -> Vec<(Pipe, Vec<u8>)> {
    let mut text = String::new();
    for path in log.rotated().expect("a directory") {
        let file = File::open(&path).expect("a rotated log");
        if path.extension().is_some_and(|end| end == "gz") {
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
        } else {
            { file }.read_to_string(&mut text).expect("text");
        }
    }
    File::open(log.live()).and_then(|mut file| file.read_to_string(&mut text)).expect("the live log");
    let (mut lines, mut open) = (Vec::new(), [String::new(), String::new()]);
    let mut before = String::new();
    for record in text.lines() {
        let parts: Vec<&str> = record.splitn(4, ' ').collect();
        let [stamp, pipe, tag, text] = parts[..] else { panic!("not a record: {record:?}") };
        let trimmed = !stamp.contains('.') || !stamp.ends_with("0Z");
        assert!(stamp.ends_with('Z') && trimmed, "{stamp}: UTC, without trailing zeros");
        // Without its zone a stamp sorts as text, whatever the length of its fraction.
        let stamp = stamp.trim_end_matches('Z').to_owned();
        assert!(before <= stamp, "{before} comes before {stamp}");
        before = stamp;
        let pipe = if pipe == "stdout" { Pipe::Stdout } else { Pipe::Stderr };
        let joined = &mut open[usize::from(pipe == Pipe::Stderr)];
        joined.push_str(text);
        match tag {
            "P" => assert_eq!(text.len(), FRAGMENT),
            "F" => lines.push((pipe, std::mem::take(joined).into_bytes())),
            other => panic!("tag {other:?}"),
        }
    }
    assert_eq!(open, ["", ""], "every fragment is finished");
    lines
}

#[test]
fn the_log_files_hold_what_the_services_printed() {
    let node = Node::new();
    let rotators = node.rotate_at(40_000, Duration::from_millis(150));
    for running in node.start(Load { requests: 20, pause: Duration::from_millis(20) }) {
        running.finish(WITHIN);
    }
    drop(rotators);
    for (kind, log) in &node.logs {
        let read = read_back(log);
        let wrote: Vec<_> = log.lines().into_iter().map(|line| (line.pipe, line.text)).collect();
        assert!(log.rotations() >= 2, "{kind:?} was rotated {} times", log.rotations());
        assert!(log.rotated().expect("a directory").len() <= 4);
        // Rotation has thrown the oldest lines away, as the kubelet does; what is left is the end of what was written.
        assert!(wrote.ends_with(&read), "{kind:?}: {} lines on disk, {} written", read.len(), wrote.len());
        assert!(read.len() > 50, "{kind:?}: {} lines on disk", read.len());
        assert!(
            wrote.iter().any(|(_, text)| text.len() > 2 * FRAGMENT),
            "{kind:?} wrote a line of three fragments"
        );
    }
}

#[test]
fn each_request_can_be_told_by_its_trace_id() {
    let node = Node::new();
    for running in node.start(Load { requests: 10, pause: Duration::ZERO }) {
        running.finish(WITHIN);
    }
    for (kind, log) in &node.logs {
        let lines = log.lines();
        let expected = kind.expect(&lines);
        let found: BTreeSet<_> = expected.iter().filter_map(|line| line.trace_id.clone()).collect();
        let wanted: Vec<_> = (1..=10).map(|number| format!("{}{number:016x}", kind.seed())).collect();
        if kind.names_traces() {
            assert_eq!(found.into_iter().collect::<Vec<_>>(), wanted, "{kind:?}");
        } else {
            assert!(found.is_empty(), "{kind:?}");
        }
        for level in ["debug", "info", "warn", "error"] {
            assert!(expected.iter().any(|line| line.level == level), "{kind:?} wrote no {level}");
        }
    }
}

#[test]
fn every_line_arrives_once_at_loki_and_over_otlp() {
    let (loki, grpc, http) = (FakeLoki::start(Limits::default()), Receiver::start(&[]), Receiver::start(&[]));
    let node = Node::new();
    let mut agent = node.agent(&format!(
        "[sink.loki.main]\nurl = \"{}\"\n\n\
         [sink.otlp.grpc]\nendpoint = \"http://127.0.0.1:{}\"\nprotocol = \"grpc\"\n\n\
         [sink.otlp.http]\nendpoint = \"http://127.0.0.1:{}\"\nprotocol = \"http/protobuf\"\n",
        loki.url(),
        grpc.grpc,
        http.http
    ));
    let rotators = node.rotate_at(100_000, Duration::from_millis(700));
    for running in node.start(Load { requests: 30, pause: Duration::from_millis(100) }) {
        running.finish(WITHIN);
    }
    drop(rotators);
    let printed = node.printed();
    wait_for(&agent, printed, || loki.entries("").len());
    wait_for(&agent, printed, || lines_of(&grpc).len());
    wait_for(&agent, printed, || lines_of(&http).len());
    assert!(agent.terminate().success(), "{}", agent.said());

    let rotations: usize = node.logs.iter().map(|(_, log)| log.rotations()).sum();
    assert!(rotations >= 7, "only {rotations} rotations");
    all_at_loki(&node, &loki);
    all_at_otlp(&node, "gRPC", &lines_of(&grpc));
    all_at_otlp(&node, "HTTP", &lines_of(&http));
}

#[test]
fn kill_9_during_rotation_loses_and_doubles_nothing() {
    let loki = FakeLoki::start(Limits::default());
    let node = Node::new();
    let mut agent = node.agent(&format!("[sink.loki.main]\nurl = \"{}\"\n", loki.url()));
    let rotators = node.rotate_at(60_000, Duration::from_millis(800));
    let services = node.start(Load { requests: 100, pause: Duration::from_millis(100) });
    // Uneven times, so that a kill falls into every phase of a tick, a push and a rotation.
    for (up, down) in [(1700, 50), (900, 600), (1330, 210), (470, 400), (1110, 0), (760, 330), (1490, 130)] {
        std::thread::sleep(Duration::from_millis(up));
        agent.kill();
        std::thread::sleep(Duration::from_millis(down));
        agent.launch();
    }
    for running in services {
        running.finish(WITHIN);
    }
    drop(rotators);
    wait_for(&agent, node.printed(), || loki.entries("").len());
    assert!(agent.terminate().success(), "{}", agent.said());

    let rotations: usize = node.logs.iter().map(|(_, log)| log.rotations()).sum();
    assert!(rotations >= 35, "only {rotations} rotations");
    all_at_loki(&node, &loki);
}
