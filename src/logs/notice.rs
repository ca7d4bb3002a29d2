//! Lines that the agent itself writes into a log's stream: a gap marker where bytes of the log are lost, and the
//! last words of a container that ended badly or was started again.
//!
//! In: what is known of the event, and for last words the end of the ended container's log file. Out: one JSON line
//! appended to an arena, and its [`Record`]. Invariants: a notice is a function of its arguments alone, so that a
//! replay writes it byte for byte; last words show nothing that the configured processing keeps on the node.
//!
//! Both are found by their `event` field: `{namespace="shop"} | json | event="nodewick.gap"`.

use std::collections::VecDeque;

use serde::Serialize;

use super::annotated::Annotated;
use super::frame::{self, Framed, Framer};
use super::ingest::{self, Settings};
use super::process::{KEY_BYTES, LogState};
use crate::data::batch::{Fields, Record, Span, Stream};
use crate::data::delivery::Loss;
use crate::data::severity::Severity;
use crate::data::trace::TraceId;
use crate::data::workload::{Exit, Workload};

/// Bytes of an ended log's end that [`last_words`] looks at, at most.
pub const TAIL_BYTES: usize = 64 << 10;
/// Lines of last words, at most.
pub const LAST_LINES: usize = 50;
/// Bytes of one line of last words, at most; what is longer is cut.
pub const LAST_LINE_BYTES: usize = 1 << 10;
/// Bytes of all lines of last words together as the notice writes them, at most; the oldest are left out.
pub const LAST_WORDS_BYTES: usize = 32 << 10;

/// What is known of a stretch of a log that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Why.
    pub reason: Loss,
    /// Which file of the log, as a person would look for it: its name, or what is known of its generation.
    pub file: &'a str,
    /// How many bytes, where that is known.
    pub bytes: Option<u64>,
    /// Offset of the first lost byte in the file, where that is known.
    pub from: Option<u64>,
    /// Exclusive end of what is lost, where that is known.
    pub to: Option<u64>,
}

#[derive(Serialize)]
struct GapLine<'a> {
    level: &'static str,
    msg: String,
    event: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
}

/// Writes the marker of a gap.
///
/// `time_unix_nano` is where the marker stands among the log's lines: the stamp of the line before the gap or after
/// it, never the clock. `offset` is the record's place in its generation: the first lost byte, at which no other
/// record begins.
pub fn gap(arena: &mut Vec<u8>, gap: &Gap<'_>, time_unix_nano: u64, offset: u64) -> Record {
    let msg = match gap.bytes {
        Some(1) => "nodewick: 1 byte of this log is lost".to_owned(),
        Some(bytes) => format!("nodewick: {bytes} bytes of this log are lost"),
        None => "nodewick: an unknown number of bytes of this log are lost".to_owned(),
    };
    let line = GapLine {
        level: "warn",
        msg,
        event: "nodewick.gap",
        reason: gap.reason.name(),
        bytes: gap.bytes,
        file: gap.file,
        from: gap.from,
        to: gap.to,
    };
    let body = write(arena, &line);
    Record {
        time_unix_nano,
        offset,
        body,
        severity: Severity::WARN,
        stream: Stream::Stderr,
        ..Record::default()
    }
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End<'a> {
    /// Nothing is known but that one with this restart count was started in its place.
    Restarted(u32),
    /// As Kubernetes says.
    Exited(&'a Exit),
}

/// A container that ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The last bytes of its last log file, as they stand there (CRI or docker's json-file). Of more than
    /// [`TAIL_BYTES`] the beginning is not looked at.
    pub tail: &'a [u8],
    /// The tail is the whole file. Otherwise it may begin in the middle of a line.
    pub whole: bool,
    /// How it ended.
    pub end: End<'a>,
    /// The record's place in the ended log: the file's size, at which no other record begins.
    pub offset: u64,
    /// What the pod's annotations say of lines: configured processing may depend on what is found in them.
    pub annotated: Option<&'a Annotated>,
    /// The record's time where no line of the tail has a stamp; otherwise it is that of the last line.
    pub fallback_unix_nano: u64,
}

#[derive(Serialize)]
struct LastWordsLine<'a> {
    level: &'static str,
    msg: String,
    event: &'static str,
    restart: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    lines: &'a [String],
}

/// Writes the last words of a container: its last lines of both streams in order, and the last trace id in them.
/// `None` when it left no line that may be shown.
///
/// `workload` is the ended container's. What a drop rule drops or redaction replaces is not shown; where the tail is
/// not the whole file, that costs its first 16 KiB, from which it is known whether a private key is open.
pub fn last_words(
    arena: &mut Vec<u8>,
    ended: &Ended<'_>,
    settings: &Settings,
    workload: &Workload,
) -> Option<Record> {
    let mut words = Words::new(settings, workload, ended.annotated);
    let cut = ended.tail.len().saturating_sub(TAIL_BYTES);
    let whole = ended.whole && cut == 0;
    words.read(&ended.tail[cut..], whole);
    let last_time = words.framer.last_time();
    if words.lines.is_empty() {
        return None;
    }
    let (lines, trace_id) = words.finish();
    let container = &workload.container;
    let count = match lines.len() {
        1 => "its last line".to_owned(),
        count => format!("its last {count} lines"),
    };
    let (how, exit) = match ended.end {
        End::Restarted(next) => (format!("(restart {next} began)"), None),
        End::Exited(exit) if exit.reason.is_empty() => (format!("with exit code {}", exit.code), Some(exit)),
        End::Exited(exit) => (format!("with exit code {} ({})", exit.code, exit.reason), Some(exit)),
    };
    let line = LastWordsLine {
        level: "error",
        msg: format!("container {} ended {how}: {count}", container.container),
        event: "nodewick.last_words",
        restart: container.restart,
        exit_code: exit.map(|exit| exit.code),
        exit_reason: exit.map(|exit| exit.reason.as_str()).filter(|reason| !reason.is_empty()),
        trace_id: trace_id.map(|id| id.to_string()),
        lines: &lines,
    };
    let body = write(arena, &line);
    Some(Record {
        trace_id,
        time_unix_nano: if last_time == 0 { ended.fallback_unix_nano } else { last_time },
        offset: ended.offset,
        body,
        severity: Severity::ERROR,
        stream: Stream::Stderr,
        ..Record::default()
    })
}

fn write(arena: &mut Vec<u8>, line: &impl Serialize) -> Span {
    let start = arena.len();
    serde_json::to_writer(&mut *arena, line)
        .expect("a notice has no map with odd keys, and memory is no file");
    Span::new(start, arena.len())
}

/// The last lines of an ended log, while it is read.
struct Words<'a> {
    settings: &'a Settings,
    workload: &'a Workload,
    annotated: Option<&'a Annotated>,
    framer: Framer,
    state: LogState,
    /// Oldest first, each with its trace id.
    lines: VecDeque<(String, Option<TraceId>)>,
    /// By stream: the next line's beginning may lie before the tail.
    headless: [bool; 2],
}

impl<'a> Words<'a> {
    fn new(settings: &'a Settings, workload: &'a Workload, annotated: Option<&'a Annotated>) -> Self {
        Self {
            settings,
            workload,
            annotated,
            framer: Framer::new(settings.max_line),
            state: LogState::default(),
            lines: VecDeque::new(),
            headless: [false; 2],
        }
    }

    fn read(&mut self, tail: &[u8], whole: bool) {
        let begin = match (whole, memchr::memchr(b'\n', tail)) {
            (true, _) => 0,
            (false, Some(newline)) => newline + 1,
            (false, None) => tail.len(),
        };
        // What stands before may be the beginning of a secret.
        let guarded = !whole && self.settings.chain.redacts();
        self.headless = [guarded; 2];
        let show_from = if guarded { KEY_BYTES } else { 0 };
        let mut at = begin;
        let mut arena = Vec::new();
        while at < tail.len() {
            let len = memchr::memchr(b'\n', &tail[at..]).unwrap_or(tail.len() - at);
            arena.clear();
            arena.extend_from_slice(&tail[at..at + len]);
            let fragment = frame::fragment(&mut arena, 0, len, at as u64);
            if let Some(framed) = self.framer.accept(&mut arena, fragment) {
                self.take(framed, &mut arena, show_from);
            }
            at += len + 1;
        }
        arena.clear();
        let rest: Vec<Framed> = self.framer.finish(&mut arena).collect();
        for framed in rest {
            self.take(framed, &mut arena, show_from);
        }
    }

    fn take(&mut self, framed: Framed, arena: &mut Vec<u8>, show_from: u64) {
        let want = self.settings.want.with(Fields::TRACE_ID);
        let record = ingest::read_annotated(self.annotated, want, arena, framed);
        let shown = self.settings.chain.conceal(&mut self.state, self.workload, arena, record);
        let headless = std::mem::take(&mut self.headless[framed.stream as usize]);
        let Some(record) = shown.filter(|record| !headless && record.offset >= show_from) else { return };
        let text = String::from_utf8_lossy(record.body.of(arena));
        let mut end = text.len().min(LAST_LINE_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back((text[..end].to_owned(), record.trace_id));
    }

    /// The newest lines that fit, and the last trace id in them.
    fn finish(self) -> (Vec<String>, Option<TraceId>) {
        let mut room = LAST_WORDS_BYTES;
        let mut shown = VecDeque::new();
        let mut trace_id = None;
        for (line, trace) in self.lines.into_iter().rev() {
            let written = serde_json::to_string(&line).map_or(usize::MAX, |text| text.len() + 1);
            let Some(left) = room.checked_sub(written) else { break };
            room = left;
            trace_id = trace_id.or(trace);
            shown.push_front(line);
        }
        (shown.into(), trace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::delivery::Reason;
    use crate::data::workload::{ContainerRef, Handling, Identify, Identity, PathIdentity};
    use crate::logs::process::{Chain, Config};

    fn settings(config: &str) -> Settings {
        let config: Config = toml::from_str(config).expect("config");
        Settings::new(Fields::ALL, Chain::compile(&config).expect("rules"), 256 << 10)
    }

    fn workload() -> std::sync::Arc<Workload> {
        let container = ContainerRef::from_path("shop_api-6d5_u1", "api", 2).expect("a pod's directory");
        let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        match paths.identify(&container, std::time::Duration::ZERO) {
            Identity::Known(workload) => workload,
            Identity::Pending => unreachable!("paths say it all"),
        }
    }

    fn ended(tail: &[u8]) -> Ended<'_> {
        Ended {
            tail,
            whole: true,
            end: End::Restarted(3),
            offset: tail.len() as u64,
            annotated: None,
            fallback_unix_nano: 7,
        }
    }

    fn words(tail: &[u8], whole: bool, config: &str) -> Option<(String, Record)> {
        let mut arena = b"before".to_vec();
        let ended = Ended { whole, ..ended(tail) };
        let record = last_words(&mut arena, &ended, &settings(config), &workload())?;
        assert!(arena.starts_with(b"before"));
        Some((String::from_utf8(record.body.of(&arena).to_vec()).expect("UTF-8"), record))
    }

    fn lines_of(text: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value["lines"]
            .as_array()
            .expect("lines")
            .iter()
            .map(|l| l.as_str().expect("text").to_owned())
            .collect()
    }

    #[test]
    fn a_gap_says_what_is_lost_where_and_why() {
        let mut arena = b"x".to_vec();
        let known = Gap {
            reason: Loss::SpillFull,
            file: "0.log.20261122-145107",
            bytes: Some(1_048_576),
            from: Some(4096),
            to: Some(1_052_672),
        };
        let record = gap(&mut arena, &known, 42, 4096);
        assert_eq!(
            std::str::from_utf8(record.body.of(&arena)).expect("UTF-8"),
            r#"{"level":"warn","msg":"nodewick: 1048576 bytes of this log are lost","event":"nodewick.gap","reason":"spill_full","bytes":1048576,"file":"0.log.20261122-145107","from":4096,"to":1052672}"#
        );
        assert_eq!((record.time_unix_nano, record.offset, record.severity), (42, 4096, Severity::WARN));
        assert_eq!(record.body.start, 1);
    }

    #[test]
    fn a_gap_of_unknown_size_says_so() {
        let mut arena = Vec::new();
        let unknown = Gap { reason: Loss::RotatedAway, file: "a \"b\"\n", bytes: None, from: None, to: None };
        let record = gap(&mut arena, &unknown, 1, 0);
        assert_eq!(
            std::str::from_utf8(record.body.of(&arena)).expect("UTF-8"),
            r#"{"level":"warn","msg":"nodewick: an unknown number of bytes of this log are lost","event":"nodewick.gap","reason":"rotated_away","file":"a \"b\"\n"}"#
        );
    }

    #[test]
    fn every_loss_has_its_own_name() {
        let names: std::collections::HashSet<_> = Loss::ALL.iter().map(|loss| loss.name()).collect();
        assert_eq!(names.len(), Loss::COUNT);
        assert_eq!(Loss::Refused(Reason::TooOld).name(), "too_old");
    }

    #[test]
    fn last_words_hold_both_streams_in_order_and_the_last_trace_id() {
        let tail = concat!(
            "2026-11-22T14:00:00.000000001Z stdout F {\"msg\":\"one\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}\n",
            "2026-11-22T14:00:00.000000002Z stderr P pan\n",
            "2026-11-22T14:00:00.000000003Z stdout F two\n",
            "2026-11-22T14:00:00.000000004Z stderr F ic: boom\n",
            "2026-11-22T14:00:00.000000005Z stderr P goroutine 1",
        );
        let (text, record) = words(tail.as_bytes(), true, "").expect("last words");
        assert_eq!(
            text,
            r#"{"level":"error","msg":"container api ended (restart 3 began): its last 4 lines","event":"nodewick.last_words","restart":2,"trace_id":"0af7651916cd43dd8448eb211c80319c","lines":["{\"msg\":\"one\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}","two","panic: boom","goroutine 1"]}"#
        );
        assert_eq!(record.trace_id, TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(record.time_unix_nano, 1_795_356_000_000_000_005);
        assert_eq!((record.severity, record.offset), (Severity::ERROR, tail.len() as u64));
    }

    #[test]
    fn last_words_say_how_the_container_ended() {
        let line = b"2026-11-22T14:00:00Z stdout F bye\n";
        for (code, reason, shown) in [
            (
                137,
                "OOMKilled",
                r#"ended with exit code 137 (OOMKilled): its last line","event":"nodewick.last_words","restart":2,"exit_code":137,"exit_reason":"OOMKilled","lines""#,
            ),
            (
                -1,
                "",
                r#"ended with exit code -1: its last line","event":"nodewick.last_words","restart":2,"exit_code":-1,"lines""#,
            ),
        ] {
            let exit = Exit { code, reason: reason.to_owned() };
            let mut arena = Vec::new();
            let ended = Ended { end: End::Exited(&exit), ..ended(line) };
            last_words(&mut arena, &ended, &settings(""), &workload()).expect("last words");
            assert!(String::from_utf8_lossy(&arena).contains(shown), "{}", String::from_utf8_lossy(&arena));
        }
    }

    #[test]
    fn last_words_of_dockers_json_lines_are_unescaped() {
        let tail = concat!(
            r#"{"log":"bro"#,
            "\n",
            r#"{"log":"say \"hi\"\n","stream":"stdout","time":"2026-11-22T14:00:00Z"}"#,
            "\n"
        );
        let (text, _) = words(tail.as_bytes(), false, "").expect("last words");
        assert_eq!(
            text,
            r#"{"level":"error","msg":"container api ended (restart 3 began): its last line","event":"nodewick.last_words","restart":2,"lines":["say \"hi\""]}"#
        );
    }

    #[test]
    fn last_words_keep_their_bounds() {
        let mut tail = String::new();
        for n in 0..60 {
            tail.push_str(&format!("2026-11-22T14:00:00Z stdout F {n}\n"));
        }
        let (text, _) = words(tail.as_bytes(), true, "").expect("last words");
        let lines = lines_of(&text);
        assert_eq!((lines.len(), lines[0].as_str(), lines[49].as_str()), (50, "10", "59"));

        // 1023 bytes and a character of two: the cut falls before it.
        let long = format!("2026-11-22T14:00:00Z stdout F {}é\n", "x".repeat(1023)).repeat(40);
        let (text, _) = words(long.as_bytes(), true, "").expect("last words");
        let lines = lines_of(&text);
        assert_eq!((lines.len(), lines[0].len()), (31, 1023));
        assert!(text.len() < LAST_WORDS_BYTES + 256);
    }

    #[test]
    fn nothing_written_leaves_no_last_words() {
        assert_eq!(words(b"", true, ""), None);
        assert_eq!(words(b"the middle of a line", false, ""), None);
        let (_, record) = words(b"not a line of any runtime", true, "").expect("taken whole");
        assert_eq!(record.time_unix_nano, 7);
    }

    #[test]
    fn last_words_show_no_secret_and_nothing_that_is_dropped() {
        let config = "redact.builtin = true\n[drop.noise]\ncontains = [\"ping\"]\n";
        let tail = concat!(
            "2026-11-22T14:00:00Z stdout F password=hunter2hunter2 user=1\n",
            "2026-11-22T14:00:00Z stdout F ping\n",
            "2026-11-22T14:00:00Z stderr F -----BEGIN RSA PRIVATE KEY-----\n",
            "2026-11-22T14:00:00Z stderr F MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MhgHcTz6sE2I2yPB\n",
            "2026-11-22T14:00:00Z stderr F -----END RSA PRIVATE KEY-----\n",
            "2026-11-22T14:00:00Z stderr F fatal\n",
        );
        let (text, _) = words(tail.as_bytes(), true, config).expect("last words");
        assert_eq!(
            lines_of(&text),
            [
                "password=[REDACTED:password] user=1",
                "[REDACTED:private_key]",
                "[REDACTED:private_key]",
                "[REDACTED:private_key]",
                "fatal"
            ]
        );
    }

    #[test]
    fn last_words_see_lines_as_annotations_say() {
        let config = "[drop.noise]\nlevel = [\"debug\"]\n";
        let tail = b"2026-11-22T14:00:00Z stdout F {\"sev\":\"debug\",\"n\":1}\n2026-11-22T14:00:00Z stdout F {\"sev\":\"info\"}\n";
        let named = Handling { level_field: Some("sev".into()), ..Handling::default() };
        let annotated = Annotated::of(&named).expect("annotations");
        let mut arena = Vec::new();
        let ended = Ended { annotated: Some(&annotated), ..ended(tail) };
        last_words(&mut arena, &ended, &settings(config), &workload()).expect("last words");
        assert_eq!(lines_of(&String::from_utf8(arena).expect("UTF-8")), ["{\"sev\":\"info\"}"]);
    }

    #[test]
    fn a_tail_that_begins_inside_a_key_shows_none_of_it() {
        let line = "2026-11-22T14:00:00Z stderr F MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MhgHcTz6sE2I2yPB\n";
        let mut tail = line.repeat(5);
        tail.push_str("2026-11-22T14:00:00Z stderr F -----END RSA PRIVATE KEY-----\n");
        assert_eq!(words(tail.as_bytes(), false, "redact.builtin = true"), None);
        tail.push_str(&"2026-11-22T14:00:00Z stderr F harmless\n".repeat(600));
        let (text, _) = words(tail.as_bytes(), false, "redact.builtin = true").expect("last words");
        assert_eq!(lines_of(&text), vec!["harmless"; 50]);
    }
}
