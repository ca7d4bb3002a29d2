//! How a workload fares, as far as its log tells: lines by level, bytes, panics, error patterns never seen before, secrets,
//! lines in which nothing was recognised. What alerts about workloads read.
//!
//! In: the records of a batch with their text. Out: counters. Invariants: one pass a batch, no allocation a line, and the
//! text of a line is looked at only where its severity is an error or unknown; at most [`WORKLOADS`] workloads have series of
//! their own, all later ones share `(other)`, and [`PATTERNS`] patterns of each are remembered. All counters of a workload
//! are there, at 0, before its first line, so that the first panic is growth.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use memchr::{memchr, memmem};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use xxhash_rust::xxh3::xxh3_64;

use crate::data::batch::{Marks, Record};
use crate::data::severity::Severity;
use crate::data::workload::{self, Workload};
use crate::metrics;

/// Workloads with series of their own.
const WORKLOADS: usize = 250;
/// Error patterns that are remembered of a workload.
const PATTERNS: usize = 64;
/// How long patterns are learnt before one is called new.
const LEARNING: Duration = Duration::from_secs(600);
/// Bytes of a message that make its pattern.
const PATTERN_BYTES: usize = 256;
/// Bytes of a first line that are looked at.
const LINE_BYTES: usize = 1024;

/// Levels as label values, in the order of the severity ranges.
const LEVELS: [&str; 7] = ["unknown", "trace", "debug", "info", "warn", "error", "fatal"];

/// Workloads by namespace and name.
static KNOWN: Mutex<Option<HashMap<[String; 2], Arc<Counters>>>> = Mutex::new(None);

/// The counters of one workload.
#[derive(Debug)]
struct Counters {
    lines: [IntCounter; LEVELS.len()],
    bytes: IntCounter,
    logs: IntGauge,
    panics: IntCounter,
    new_patterns: IntCounter,
    secrets: IntCounter,
    unparsed: IntCounter,
    /// `None` for what several workloads share.
    patterns: Option<Mutex<Patterns>>,
}

/// Error patterns of one workload.
#[derive(Debug, Default)]
struct Patterns {
    /// When its first line was counted.
    since: Option<Duration>,
    known: Vec<u64>,
}

/// One container log's part in the figures of its workload.
#[derive(Debug)]
pub struct Vitals(Arc<Counters>);

impl Vitals {
    /// The figures of a workload, the same for all its containers; a log more is followed until this is dropped.
    pub fn of(workload: &Workload) -> Self {
        let owner = workload::owner_of(&workload.attributes, &workload.container.pod);
        let key = [workload.container.namespace.clone(), owner.name.to_owned()];
        let mut known = KNOWN.lock();
        let known = known.get_or_insert_default();
        let counters = match known.get(&key) {
            Some(counters) => Arc::clone(counters),
            None if known.len() < WORKLOADS => {
                let counters = Arc::new(Counters::new([&key[0], &key[1]], true));
                known.insert(key, Arc::clone(&counters));
                counters
            }
            None => Arc::new(Counters::new(["(other)", "(other)"], false)),
        };
        counters.logs.inc();
        Self(counters)
    }

    /// Counts the records of a batch, whose text lies in `arena`, at `now` on a clock that never goes back.
    pub fn count(&self, arena: &[u8], records: &[Record], now: Duration) {
        let (mut lines, mut bytes, mut secrets, mut unparsed) = ([0_u64; LEVELS.len()], 0, 0, 0);
        for record in records {
            lines[usize::from(record.severity.number()).div_ceil(4)] += 1;
            bytes += u64::from(record.body.len);
            secrets += u64::from(record.marks.contains(Marks::SECRET));
            let is_error = record.severity >= Severity::ERROR;
            if is_error || record.severity.is_unspecified() {
                unparsed += u64::from(is_unparsed(record));
                self.0.look_closer(record.body.of(arena), is_error, now);
            }
        }
        for (counter, count) in self.0.lines.iter().zip(lines).filter(|(_, count)| *count > 0) {
            counter.inc_by(count);
        }
        self.0.bytes.inc_by(bytes);
        self.0.secrets.inc_by(secrets);
        self.0.unparsed.inc_by(unparsed);
        self.0.begin(now);
    }
}

impl Drop for Vitals {
    fn drop(&mut self) {
        self.0.logs.dec();
    }
}

impl Counters {
    fn new(labels: [&str; 2], learns: bool) -> Self {
        let [namespace, workload] = labels;
        let counter = |family: &prometheus::IntCounterVec| family.with_label_values(&labels);
        Self {
            lines: LEVELS
                .map(|level| metrics::WORKLOAD_LINES.with_label_values(&[namespace, workload, level])),
            bytes: counter(&metrics::WORKLOAD_BYTES),
            logs: metrics::WORKLOAD_LOGS.with_label_values(&labels),
            panics: counter(&metrics::WORKLOAD_PANICS),
            new_patterns: counter(&metrics::WORKLOAD_NEW_ERROR_PATTERNS),
            secrets: counter(&metrics::WORKLOAD_SECRETS),
            unparsed: counter(&metrics::WORKLOAD_UNPARSED),
            patterns: learns.then(Mutex::default),
        }
    }

    /// Learning begins with the first line, whatever it is.
    fn begin(&self, now: Duration) {
        if let Some(patterns) = &self.patterns {
            patterns.lock().since.get_or_insert(now);
        }
    }

    /// Looks at the text of a line that is an error, or that does not say.
    fn look_closer(&self, body: &[u8], is_error: bool, now: Duration) {
        if is_panic(body, is_error) {
            self.panics.inc();
        }
        if let Some(patterns) = self.patterns.as_ref().filter(|_| is_error)
            && patterns.lock().is_new(pattern(body), now)
        {
            self.new_patterns.inc();
        }
    }
}

impl Patterns {
    /// Remembers a pattern; true when it is a new one to a workload that is known for long enough.
    fn is_new(&mut self, pattern: u64, now: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        if self.known.contains(&pattern) || self.known.len() >= PATTERNS {
            return false;
        }
        self.known.push(pattern);
        now.saturating_sub(since) >= LEARNING
    }
}

fn is_unparsed(record: &Record) -> bool {
    record.severity.is_unspecified()
        && record.app_time_unix_nano == 0
        && record.trace_id.is_none()
        && record.request_id.is_empty()
        && record.http_status == 0
}

fn first_line(body: &[u8]) -> &[u8] {
    let body = &body[..body.len().min(LINE_BYTES)];
    memchr(b'\n', body).map_or(body, |end| &body[..end])
}

/// True for the first line of what a runtime writes when a program, or one of its threads, dies of an error that nobody caught.
fn is_panic(body: &[u8], is_error: bool) -> bool {
    let begins: &[&[u8]] = match body.first() {
        Some(b'p') => &[b"panic: "],
        Some(b'f') => &[b"fatal error: "],
        Some(b't') => &[b"thread '"],
        Some(b'T') => &[b"Traceback (most recent call last)"],
        Some(b'E') => &[b"Exception in thread \""],
        Some(b'U') => &[b"Unhandled exception", b"Uncaught "],
        Some(b'P') => &[b"PHP Fatal error:"],
        _ if is_error => &[],
        _ => return false,
    };
    let line = first_line(body);
    if let Some(b't') = body.first() {
        return line.starts_with(b"thread '") && memmem::find(line, b" panicked at ").is_some();
    }
    if begins.iter().any(|begin| line.starts_with(begin)) {
        return true;
    }
    // Of what was joined the severity is an error unless it says otherwise.
    is_error
        && memchr(b'\n', body).is_some()
        && (memmem::find(line, b"http: panic serving").is_some() || is_place(line))
}

/// True for how node begins to tell of an exception that nobody caught: file and line, and nothing else.
fn is_place(line: &[u8]) -> bool {
    let starts = [&b"/"[..], b"file:///", b"node:"].iter().any(|start| line.starts_with(start));
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    starts
        && digits > 0
        && line.len() > digits
        && line[line.len() - digits - 1] == b':'
        && !line.contains(&b' ')
}

/// Hash of what an error line says, whatever ids, numbers and times are in it.
fn pattern(body: &[u8]) -> u64 {
    let text = message(first_line(body));
    let (mut out, mut len, mut word, mut has_digit) = ([0_u8; PATTERN_BYTES], 0, 0, false);
    for byte in text {
        let is_word = byte.is_ascii_alphanumeric() || *byte >= 0x80;
        if !is_word {
            if has_digit {
                (out[word], len, has_digit) = (b'#', word + 1, false);
            }
            if len == 0 || out[len - 1] == b' ' {
                continue;
            }
        }
        if len == PATTERN_BYTES {
            break;
        }
        out[len] = if is_word { *byte } else { b' ' };
        len += 1;
        has_digit |= byte.is_ascii_digit();
        if !is_word {
            word = len;
        }
    }
    if has_digit {
        (out[word], len) = (b'#', word + 1);
    }
    let end = out[..len].iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    xxh3_64(&out[..end])
}

/// The message of a line where it can be told from the rest, else the line.
fn message(line: &[u8]) -> &[u8] {
    const JSON: [&[u8]; 3] = [b"\"msg\":", b"\"message\":", b"\"error\":"];
    const LOGFMT: [&[u8]; 2] = [b" msg=", b" message="];
    let is_json = line.first() == Some(&b'{');
    for key in if is_json { &JSON[..] } else { &LOGFMT } {
        let Some(at) = memmem::find(line, key) else { continue };
        let value = line[at + key.len()..].trim_ascii_start();
        let (text, end) = match value.strip_prefix(b"\"") {
            Some(text) => (text, b'"'),
            // A number or an object.
            None if is_json => continue,
            None => (value, b' '),
        };
        let mut escaped = false;
        let stop = text.iter().position(|byte| {
            let ends = *byte == end && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        });
        return &text[..stop.unwrap_or(text.len())];
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::batch::Span;
    use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};

    fn vitals(namespace: &str, pod: &str) -> Vitals {
        let container =
            ContainerRef::from_path(&format!("{namespace}_{pod}_u1"), "api", 0).expect("a directory");
        let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        let Identity::Known(workload) = paths.identify(&container, Duration::ZERO) else {
            unreachable!("paths say it all")
        };
        Vitals::of(&workload)
    }

    fn batch(lines: &[(&str, Severity)]) -> (Vec<u8>, Vec<Record>) {
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        for (line, severity) in lines {
            let body = Span::new(arena.len(), arena.len() + line.len());
            arena.extend_from_slice(line.as_bytes());
            records.push(Record { body, severity: *severity, ..Record::default() });
        }
        (arena, records)
    }

    #[test]
    fn figures_of_a_workload_are_those_of_all_its_pods() {
        let labels = ["vitals-a", "till"];
        let (one, other) =
            (vitals("vitals-a", "till-7d9f8b6c5-p2x4k"), vitals("vitals-a", "till-7d9f8b6c5-aaaaa"));
        assert_eq!(metrics::WORKLOAD_LOGS.with_label_values(&labels).get(), 2);
        let (arena, mut records) = batch(&[
            ("started", Severity::INFO),
            ("plain", Severity::UNSPECIFIED),
            ("10.0.0.1 - - GET / 200", Severity::UNSPECIFIED),
            ("it broke", Severity::ERROR),
            ("panic: it broke\ngoroutine 1 [running]:", Severity::FATAL),
        ]);
        records[0].marks.insert(Marks::SECRET);
        records[2].http_status = 200;
        one.count(&arena, &records, Duration::ZERO);
        other.count(&arena, &records[..1], Duration::ZERO);
        let level = |level| metrics::WORKLOAD_LINES.with_label_values(&["vitals-a", "till", level]).get();
        assert_eq!(LEVELS.map(level), [2, 0, 0, 2, 0, 1, 1]);
        let of = |family: &prometheus::IntCounterVec| family.with_label_values(&labels).get();
        assert_eq!(of(&metrics::WORKLOAD_BYTES), 7 + 5 + 22 + 8 + 38 + 7);
        assert_eq!((of(&metrics::WORKLOAD_PANICS), of(&metrics::WORKLOAD_SECRETS)), (1, 2));
        assert_eq!((of(&metrics::WORKLOAD_UNPARSED), of(&metrics::WORKLOAD_NEW_ERROR_PATTERNS)), (1, 0));
        drop(one);
        assert_eq!(metrics::WORKLOAD_LOGS.with_label_values(&labels).get(), 1);
    }

    #[test]
    fn a_pattern_is_new_once_and_not_while_patterns_are_learnt() {
        let vitals = vitals("vitals-b", "web-7d9f8b6c5-p2x4k");
        let new = || metrics::WORKLOAD_NEW_ERROR_PATTERNS.with_label_values(&["vitals-b", "web"]).get();
        let say = |text: &str, seconds: u64| {
            let (arena, records) = batch(&[(text, Severity::ERROR)]);
            vitals.count(&arena, &records, Duration::from_secs(seconds));
            new()
        };
        assert_eq!(say("order 17 failed", 0), 0);
        assert_eq!(say("cannot reach 10.0.3.7:5432", 599), 0, "still learning");
        assert_eq!(say("order 18 failed", 700), 0, "known but for its number");
        assert_eq!(say("disk full", 701), 1);
        assert_eq!(say("disk full", 702), 1, "once");
        for n in 0..100_u32 {
            // Words without digits, so that each is a pattern of its own.
            let word: String = format!("{n:03}").bytes().map(|b| char::from(b - b'0' + b'a')).collect();
            say(&word, 800);
        }
        // Three were known.
        assert_eq!(new(), 1 + 64 - 3, "the table is full, and nothing is new any more");
    }

    #[test]
    fn patterns_are_what_lines_say_without_their_ids() {
        let same = |one: &str, other: &str| pattern(one.as_bytes()) == pattern(other.as_bytes());
        assert!(same(
            "2026-11-22T14:11:00Z ERROR order 17 failed",
            "2026-11-23T09:00:59Z ERROR order 20456 failed"
        ));
        assert!(
            !same("user a1b2c3d4 unknown", "user ffee0011-2233 unknown"),
            "two words with digits are not one"
        );
        assert!(same(
            r#"{"level":50,"time":1795356000000,"pid":1,"msg":"cannot reach db-1","err":{"stack":"a"}}"#,
            r#"{"level":50,"time":1795356999999,"pid":9,"msg":"cannot reach db-2","err":{"stack":"b"}}"#
        ));
        assert!(!same(r#"{"msg":"cannot read"}"#, r#"{"msg":"cannot write"}"#));
        assert!(same(
            "ts=1 level=error msg=\"a \\\"b\\\" c\" x=y",
            "ts=2 level=error msg=\"a \\\"b\\\" c\" x=z"
        ));
        assert!(same(r#"{"error":{"code":7},"x":"a"}"#, r#"{"error":{"code":8},"x":"a"}"#));
        assert!(!same("a", "b") && same("", ""));
        let long = "word ".repeat(1000);
        assert!(same(&long, &format!("{long}more")), "what is far behind does not count");
    }

    #[test]
    fn panics_are_told_from_errors_that_were_caught() {
        for (text, is_error) in [
            ("panic: runtime error: index out of range\n\ngoroutine 1 [running]:", true),
            ("fatal error: all goroutines are asleep - deadlock!", false),
            ("2026/11/22 14:11:00 http: panic serving 10.0.0.1:5: boom\ngoroutine 7 [running]:", true),
            ("thread 'main' panicked at src/main.rs:2:5:\nboom", true),
            ("Traceback (most recent call last):\n  File \"a.py\", line 1", true),
            ("Exception in thread \"main\" java.lang.NullPointerException\n\tat a.B.c(B.java:1)", true),
            ("Unhandled exception. System.Exception: boom\n   at P.Main()", true),
            (
                "/app/index.js:5\n        throw new Error('boom')\n        ^\n\nError: boom\n    at a (/app/index.js:5:9)",
                true,
            ),
            ("PHP Fatal error:  Uncaught Exception: boom in /a.php:3", false),
        ] {
            assert!(is_panic(text.as_bytes(), is_error), "{text}");
        }
        for (text, is_error) in [
            ("ERROR:root:failed\nTraceback (most recent call last):\n  File \"a.py\", line 1", true),
            ("2026-11-22 ERROR java.lang.IllegalStateException: boom\n\tat a.B.c(B.java:1)", true),
            ("Error: boom\n    at a (/app/index.js:5:9)", true),
            ("thread 'main' is idle", false),
            ("/healthz served to 10.0.0.1:80", false),
            ("/app/data:80", false),
            ("", false),
            ("", true),
        ] {
            assert!(!is_panic(text.as_bytes(), is_error), "{text}");
        }
    }
}
