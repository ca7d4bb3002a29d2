//! Real services, real loggers, the real agent: every line arrives, once, in order, as it was written.

mod support;

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use support::cri_writer::{ContainerLog, FRAGMENT, Line, Pipe};
use support::services::{Kind, Load, Running};

const WITHIN: Duration = Duration::from_secs(90);

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

    fn start(&self, load: Load) -> Vec<Running> {
        self.logs.iter().map(|(kind, log)| kind.start(log, load)).collect()
    }
}

/// Reads a container log back as a person would: newest file last, lines split at newlines, fragments joined per pipe.
fn read_back(log: &ContainerLog) -> Vec<Line> {
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
            "F" => lines.push(Line { pipe, text: std::mem::take(joined).into_bytes() }),
            other => panic!("tag {other:?}"),
        }
    }
    assert_eq!(open, ["", ""], "every fragment is finished");
    lines
}

#[test]
fn the_log_files_hold_what_the_services_printed() {
    let node = Node::new();
    let rotators: Vec<_> =
        node.logs.iter().map(|(_, log)| log.rotate_at(40_000, Duration::from_millis(150))).collect();
    for running in node.start(Load { requests: 20, pause: Duration::from_millis(20) }) {
        running.finish(WITHIN);
    }
    drop(rotators);
    for (kind, log) in &node.logs {
        let (read, wrote) = (read_back(log), log.lines());
        assert!(log.rotations() >= 2, "{kind:?} was rotated {} times", log.rotations());
        assert!(log.rotated().expect("a directory").len() <= 4);
        // Rotation has thrown the oldest lines away, as the kubelet does; what is left is the end of what was written.
        assert!(wrote.ends_with(&read), "{kind:?}: {} lines on disk, {} written", read.len(), wrote.len());
        assert!(read.len() > 50, "{kind:?}: {} lines on disk", read.len());
        assert!(
            wrote.iter().any(|line| line.text.len() > 2 * FRAGMENT),
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
        let expected = kind.expect(lines.iter().map(|line| line.text.as_slice()));
        let found: std::collections::BTreeSet<_> =
            expected.iter().filter_map(|line| line.trace_id.clone()).collect();
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
