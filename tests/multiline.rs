//! Stack traces become one record: what every language prints, the limits, and the same answer from any restart.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use nodewick::data::batch::{Fields, Marks, Record, Stream};
use nodewick::data::position::Skipping;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::ingest::{LineState, Settings};
use nodewick::logs::inherit;
use nodewick::logs::multiline::{self, Rules};
use nodewick::logs::process::{self, Chain};
use proptest::prelude::*;

/// 2026-11-22T14:00:00Z.
const BASE: u64 = 1_795_356_000_000_000_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// A record without its arena.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Out {
    text: String,
    /// Nanoseconds behind [`BASE`].
    time: u64,
    offset: u64,
    stderr: bool,
    severity: u8,
    truncated: bool,
    original_len: u32,
    repeated: u32,
}

fn out(record: &Record, arena: &[u8]) -> Out {
    Out {
        text: String::from_utf8(record.body.of(arena).to_vec()).expect("UTF-8"),
        time: record.time_unix_nano.wrapping_sub(BASE),
        offset: record.offset,
        stderr: record.stream == Stream::Stderr,
        severity: record.severity.number(),
        truncated: record.marks.contains(Marks::TRUNCATED),
        original_len: record.original_len,
        repeated: record.repeated,
    }
}

fn cri(time: u64, stderr: bool, full: bool, text: &str) -> String {
    let nanos = time - BASE;
    let (seconds, nanos) = (nanos / SECOND, nanos % SECOND);
    let stream = if stderr { "stderr" } else { "stdout" };
    let tag = if full { "F" } else { "P" };
    let (hours, minutes, seconds) = (14 + seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("2026-11-22T{hours:02}:{minutes:02}:{seconds:02}.{nanos:09}Z {stream} {tag} {text}\n")
}

/// The lines of one stream, a millisecond apart.
fn file(lines: &[&str]) -> String {
    lines.iter().zip(0..).map(|(line, n)| cri(BASE + n * MILLI, true, true, line)).collect()
}

fn workload() -> Arc<Workload> {
    let container = ContainerRef::from_path("shop_billing-7d9f8b6c5-p2x4k_uid", "api", 0).expect("a path");
    let mut identity = PathIdentity { cluster: "c1".into(), node: "n1".into(), environment: None };
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("known from the path")
    };
    workload
}

fn settings(multiline: &str, process: &str, max_line: usize) -> Settings {
    let chain =
        Chain::compile(&toml::from_str::<process::Config>(process).expect("valid")).expect("compiles");
    let rules = Rules::compile(&toml::from_str::<multiline::Config>(multiline).expect("valid"));
    Settings::new(Fields::ALL, chain, max_line).with_multiline(rules.expect("compiles"))
}

/// The tail's treatment of one log, generation by generation, without files and clocks.
struct Log<'a> {
    settings: &'a Settings,
    workload: Arc<Workload>,
    generations: &'a [Vec<u8>],
    generation: usize,
    offset: usize,
    lines: LineState,
    carried: Option<(usize, u64, Skipping)>,
    out: Vec<Out>,
}

impl<'a> Log<'a> {
    fn new(settings: &'a Settings, generations: &'a [Vec<u8>]) -> Self {
        Self {
            settings,
            workload: workload(),
            generations,
            generation: 0,
            offset: 0,
            lines: LineState::new(settings.max_line),
            carried: None,
            out: Vec::new(),
        }
    }

    fn collect(&mut self, arena: &[u8], records: &[Record]) {
        self.out.extend(records.iter().map(|record| out(record, arena)));
    }

    /// Reads up to `end` bytes of the generation; a torn line stays.
    fn read(&mut self, end: usize) {
        let bytes = &self.generations[self.generation];
        let mut arena = bytes[self.offset..end.min(bytes.len())].to_vec();
        let mut records = Vec::new();
        let offset = self.offset as u64;
        let taken =
            self.lines.ingest(self.settings, &self.workload, &mut arena, 0, offset, u64::MAX, &mut records);
        self.offset += taken.bytes;
        self.collect(&arena, &records);
    }

    fn rest(&self) -> usize {
        self.generations[self.generation].len() - self.offset
    }

    fn rotate(&mut self) {
        assert_eq!(self.rest(), 0);
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let decided = self.decided();
        self.lines.next_generation(self.settings, &mut arena, &mut records);
        self.carried = if self.lines.carries() { self.carried.or(Some(decided)) } else { None };
        self.collect(&arena, &records);
        self.generation += 1;
        self.offset = 0;
    }

    fn idle(&mut self, wall: u64) {
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        self.lines.close_idle(self.settings, &self.workload, wall, &mut arena, &mut records);
        self.collect(&arena, &records);
    }

    fn finish(&mut self) {
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let offset = self.offset as u64;
        self.lines.finish(self.settings, &self.workload, &mut arena, offset, &mut records);
        self.collect(&arena, &records);
        assert_eq!(self.lines.pinned(), None);
    }

    /// As the tail tells it to the ledger.
    fn decided(&self) -> (usize, u64, Skipping) {
        if let (true, Some(carried)) = (self.lines.carries(), self.carried) {
            return carried;
        }
        let (offset, skipping) = self.lines.pinned().unwrap_or((self.offset as u64, self.lines.skipping()));
        (self.generation, offset, skipping)
    }

    /// The agent dies, with everything acknowledged that came out, and begins again at its position.
    fn restart(&mut self) {
        let (generation, offset, skipping) = self.decided();
        (self.generation, self.offset, self.carried) = (generation, offset as usize, None);
        self.lines = LineState::new(self.settings.max_line);
        if offset > 0 {
            let back = offset.saturating_sub(inherit::REACH).min(self.settings.chain.warm_up_start(offset));
            let begin = back.saturating_sub(self.settings.max_line as u64) as usize;
            self.lines.begin_warm_up();
            let mut arena = self.generations[generation][begin..offset as usize].to_vec();
            let from = match begin {
                0 => 0,
                _ => arena.iter().position(|byte| *byte == b'\n').map_or(arena.len(), |at| at + 1),
            };
            let mut ignored = Vec::new();
            let at = (begin + from) as u64;
            self.lines.ingest(self.settings, &self.workload, &mut arena, from, at, u64::MAX, &mut ignored);
        }
        self.lines.resume(self.settings, &self.workload, skipping);
        self.lines.set_first_time(BASE);
    }
}

/// Everything in one pass.
fn read_all(settings: &Settings, generations: &[Vec<u8>]) -> Vec<Out> {
    let mut log = Log::new(settings, generations);
    log.read(usize::MAX);
    for _ in 1..generations.len() {
        log.rotate();
        log.read(usize::MAX);
    }
    log.finish();
    log.out
}

fn read(multiline: &str, text: &str) -> Vec<Out> {
    read_all(&settings(multiline, "", 256 << 10), &[text.as_bytes().to_vec()])
}

fn texts(out: &[Out]) -> Vec<&str> {
    out.iter().map(|record| record.text.as_str()).collect()
}

/// The sections of a corpus file: label and text. `=== line` is a record of one line, `=== java` a trace.
fn sections(text: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("=== ") {
            Some(label) => sections.push((label.to_owned(), Vec::new())),
            None => sections.last_mut().expect("a label comes first").1.push(line),
        }
    }
    sections.into_iter().map(|(label, lines)| (label, lines.join("\n"))).collect()
}

#[test]
fn every_trace_of_the_corpus_is_one_record_and_every_other_line_its_own() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/multiline");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the corpus is there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 9, "{files:?}");
    let mut wrong = String::new();
    for path in files {
        let expected = sections(&std::fs::read_to_string(&path).expect("readable"));
        let lines: Vec<&str> = expected.iter().flat_map(|(_, text)| text.split('\n')).collect();
        let got = read("", &file(&lines));
        let expected_texts: Vec<&str> = expected.iter().map(|(_, text)| text.as_str()).collect();
        for (n, (got, want)) in texts(&got).iter().zip(&expected_texts).enumerate() {
            if got != want {
                wrong
                    .push_str(&format!("{} record {n}:\n--- want\n{want}\n--- got\n{got}\n", path.display()));
                break;
            }
        }
        if got.len() != expected.len() {
            wrong.push_str(&format!("{}: {} records, not {}\n", path.display(), got.len(), expected.len()));
        }
        for (record, (label, _)) in got.iter().zip(&expected) {
            if label != "line" && record.severity < 13 {
                wrong.push_str(&format!(
                    "{}: severity {} of {}\n",
                    path.display(),
                    record.severity,
                    record.text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_trace_keeps_the_offset_and_time_of_its_first_line() {
    let got = read("", &file(&["up", "Error: x", "    at a (/a.js:1:2)", "down"]));
    assert_eq!(texts(&got), ["up", "Error: x\n    at a (/a.js:1:2)", "down"]);
    assert_eq!((got[1].offset, got[1].time), (43, MILLI));
    assert_eq!((got[0].severity, got[1].severity, got[2].severity), (0, 17, 0));
}

#[test]
fn the_streams_are_joined_separately() {
    let mut text = String::new();
    for (n, (stderr, line)) in [
        (true, "java.lang.Error: one"),
        (false, "java.lang.Error: two"),
        (true, "\tat a.A.one(A.java:1)"),
        (false, "\tat a.A.two(A.java:2)"),
        (false, r#"{"msg":"ends it"}"#),
        (true, "\tat a.A.one(A.java:3)"),
    ]
    .into_iter()
    .enumerate()
    {
        text.push_str(&cri(BASE + n as u64 * MILLI, stderr, true, line));
    }
    let got = read("", &text);
    let expected = [
        "java.lang.Error: two\n\tat a.A.two(A.java:2)",
        r#"{"msg":"ends it"}"#,
        "java.lang.Error: one\n\tat a.A.one(A.java:1)\n\tat a.A.one(A.java:3)",
    ];
    assert_eq!(texts(&got), expected);
    assert!(!got[0].stderr && got[2].stderr);
}

#[test]
fn fragments_within_a_trace_are_joined_first() {
    let mut text = cri(BASE, true, true, "java.lang.Error: x");
    text.push_str(&cri(BASE + 1, true, false, "\tat a.A.o"));
    text.push_str(&cri(BASE + 2, false, true, "between"));
    text.push_str(&cri(BASE + 3, true, true, "ne(A.java:1)"));
    let got = read("", &text);
    assert_eq!(texts(&got), ["between", "java.lang.Error: x\n\tat a.A.one(A.java:1)"]);
}

#[test]
fn a_longer_trace_goes_on_in_a_further_record() {
    let frames: Vec<String> = (0..1100).map(|n| format!("\tat a.A.f(A.java:{n})")).collect();
    let lines: Vec<&str> = ["java.lang.StackOverflowError"]
        .into_iter()
        .chain(frames.iter().map(String::as_str))
        .chain(["after"])
        .collect();
    let got = read("", &file(&lines));
    let counts: Vec<usize> = got.iter().map(|record| record.text.lines().count()).collect();
    assert_eq!(counts, [500, 500, 101, 1]);
    assert!(got[1].text.starts_with("\tat a.A.f(A.java:499)\n"), "{}", &got[1].text[..40]);
    let exactly: Vec<&str> = lines[..501].to_vec();
    let counts: Vec<usize> = read("", &file(&exactly)).iter().map(|r| r.text.lines().count()).collect();
    assert_eq!(counts, [500, 1], "501 lines");
}

#[test]
fn no_record_grows_beyond_the_line_limit() {
    let frame = format!("\tat a.A.f(A.java:{})", "1".repeat(80));
    let lines: Vec<&str> = ["java.lang.Error: x"].into_iter().chain([frame.as_str(); 9]).collect();
    let got = read_all(&settings("", "", 400), &[file(&lines).into_bytes()]);
    assert_eq!(got.iter().map(|record| record.text.len()).collect::<Vec<_>>(), [315, 395, 197]);
    assert!(got.iter().all(|record| !record.truncated && record.original_len == 0));
}

#[test]
fn a_cut_line_marks_the_record() {
    let long = format!("java.lang.Error: {}", "x".repeat(500));
    let mut text = cri(BASE, true, true, &long);
    text.push_str(&cri(BASE, true, true, "\tat a.A.f(A.java:1)"));
    // The first line fills the record.
    let got = read_all(&settings("", "", 400), &[text.clone().into_bytes()]);
    assert_eq!(
        got.iter().map(|r| (r.text.len(), r.truncated, r.original_len)).collect::<Vec<_>>(),
        [(400, true, 517), (19, false, 0)]
    );
    let got = read_all(&settings("", "", 600), &[text.into_bytes()]);
    assert_eq!(got.iter().map(|r| (r.text.len(), r.truncated)).collect::<Vec<_>>(), [(537, false)]);
}

#[test]
fn a_line_stamped_later_than_two_seconds_never_joins() {
    for (gap, records) in [(2 * SECOND, 1), (2 * SECOND + 1, 2)] {
        let mut text = cri(BASE, true, true, "java.lang.Error: x");
        text.push_str(&cri(BASE + gap, true, true, "\tat a.A.f(A.java:1)"));
        assert_eq!(read("", &text).len(), records, "{gap}");
    }
    // The other stream's stamps count too: a trace that nothing follows does not hold the log's position.
    let settings = settings("", "", 1 << 18);
    let mut text = cri(BASE, true, true, "java.lang.Error: x");
    text.push_str(&cri(BASE + 3 * SECOND, false, true, "x"));
    let generations = [text.into_bytes()];
    let mut log = Log::new(&settings, &generations);
    log.read(usize::MAX);
    assert_eq!(texts(&log.out), ["java.lang.Error: x", "x"]);
    assert_eq!(log.lines.pinned(), None);
}

#[test]
fn a_quiet_log_gives_its_trace_out_once_no_line_can_belong_to_it() {
    let settings = settings("", "", 1 << 18);
    let generations = [file(&["up", "Error: x", "    at a (/a.js:1:2)"]).into_bytes()];
    let mut log = Log::new(&settings, &generations);
    log.read(usize::MAX);
    assert_eq!(texts(&log.out), ["up"]);
    assert_eq!(log.lines.pinned(), Some((43, Skipping(0))));
    log.idle(BASE + MILLI + 3 * SECOND);
    assert_eq!(log.out.len(), 1, "still within the slack");
    log.idle(BASE + MILLI + 3 * SECOND + 1);
    assert_eq!(texts(&log.out), ["up", "Error: x\n    at a (/a.js:1:2)"]);
    assert_eq!(log.lines.pinned(), None);
}

#[test]
fn ordinary_lines_are_not_held_back() {
    let settings = settings("", "", 1 << 18);
    for line in [
        "listening on 8080",
        "  indented: yaml",
        "",
        "INFO errors: 0",
        "\tat",
        "{",
        "0 exceptions",
        "no error here",
    ] {
        let generations = [file(&[line]).into_bytes()];
        let mut log = Log::new(&settings, &generations);
        log.read(usize::MAX);
        assert_eq!((texts(&log.out), log.lines.pinned()), (vec![line], None));
    }
}

#[test]
fn a_trace_split_by_rotation_is_joined_once() {
    let settings = settings("", "", 1 << 18);
    let lines = ["up", "java.lang.Error: x", "\tat a.A.one(A.java:1)", "\tat a.A.two(A.java:2)", "down"];
    let whole = file(&lines);
    for cut in 1..lines.len() {
        let at: usize = whole.split_inclusive('\n').take(cut).map(str::len).sum();
        let (old, new) = whole.split_at(at);
        let generations = [old.as_bytes().to_vec(), new.as_bytes().to_vec()];
        let expected = ["up", "java.lang.Error: x\n\tat a.A.one(A.java:1)\n\tat a.A.two(A.java:2)", "down"];
        assert_eq!(texts(&read_all(&settings, &generations)), expected, "cut before line {cut}");
        // A restart right behind the rotation reads the old file again.
        let mut log = Log::new(&settings, &generations);
        log.read(usize::MAX);
        log.rotate();
        let position = log.decided();
        assert_eq!(position.0, usize::from(cut == 1 || cut == 5), "cut before line {cut}");
        log.restart();
        if log.generation == 0 {
            log.read(usize::MAX);
            log.rotate();
        }
        log.read(usize::MAX);
        log.finish();
        assert_eq!(texts(&log.out), expected, "restart, cut before line {cut}");
    }
}

#[test]
fn equal_traces_under_one_stamp_are_told_apart() {
    let mut text = String::new();
    for _ in 0..2 {
        text.push_str(&cri(BASE, true, true, "Error: x"));
        text.push_str(&cri(BASE, true, true, "    at a (/a.js:1:2)"));
    }
    text.push_str(&cri(BASE + 5, false, true, "between"));
    text.push_str(&cri(BASE + 6, true, true, "end"));
    let got = read("", &text);
    assert_eq!(got.iter().map(|r| r.time).collect::<Vec<_>>(), [0, 5, 1, 6]);
}

#[test]
fn a_dropped_trace_is_dropped_whole() {
    let settings = settings("", "[drop.noise]\ncontains = \"HealthCheck\"\n", 1 << 18);
    let text = file(&["Error: HealthCheck", "    at a (/a.js:1:2)", "down"]);
    assert_eq!(texts(&read_all(&settings, &[text.into_bytes()])), ["down"]);
}

#[test]
fn rules_choose_by_workload() {
    let text = file(&["Error: x", "    at a (/a.js:1:2)", "2026 one", "two", r#"{"a":1}"#, "2026 three"]);
    let off = ["Error: x", "    at a (/a.js:1:2)", "2026 one", "two", r#"{"a":1}"#, "2026 three"];
    let auto = ["Error: x\n    at a (/a.js:1:2)", "2026 one", "two", r#"{"a":1}"#, "2026 three"];
    let start = ["Error: x\n    at a (/a.js:1:2)", "2026 one\ntwo\n{\"a\":1}", "2026 three"];
    for (config, expected) in [
        ("mode = \"off\"", &off[..]),
        ("mode = \"off\"\n[rule.a]\nmode = \"auto\"\nservice = \"billing\"", &auto),
        ("[rule.a]\nstart = '^2026'\nnamespace = \"shop\"\ncontainer = \"a*\"", &start),
        ("[rule.a]\nstart = '^2026'\nnamespace = \"!shop\"", &auto),
        ("[rule.a]\nmode = \"off\"\npod = \"billing-*\"\n[rule.b]\nstart = '^2026'", &off),
    ] {
        assert_eq!(texts(&read(config, &text)), expected, "{config}");
    }
    assert_eq!(
        read("max_lines = 2", &file(&["Error: x", "  at a (/a.js:1:2)", "  at b (/a.js:1:2)"])).len(),
        2
    );
    assert_eq!(
        read(
            "max_wait = \"100ms\"",
            &(cri(BASE, true, true, "Error: x") + &cri(BASE + 101 * MILLI, true, true, "  at b (/a.js:1:2)"))
        )
        .len(),
        2
    );
}

#[test]
fn what_cannot_be_used_is_refused_by_its_key() {
    for (config, expected) in [
        ("max_lines = 1", "logs.multiline.max_lines: 1 is outside 2 to 10000"),
        ("max_wait = \"2m\"", "logs.multiline.max_wait: 2m is outside 100ms to 1m"),
        (
            "[rule.a]\nstart = '^('",
            "logs.multiline.rule.a.start: bad regular expression \"^(\": unclosed group",
        ),
        (
            "[rule.a]\nservice = \"x\"",
            "logs.multiline.rule.a: says nothing; give mode = \"off\" or start = '<regex>'",
        ),
        (
            "[rule.a]\nmode = \"off\"\nstart = 'x'",
            "logs.multiline.rule.a: has both mode and start; leave one of them out",
        ),
        (
            "[rule.a]\nmode = \"off\"\npod = \"\"",
            "logs.multiline.rule.a.pod: an empty name matches nothing; remove it",
        ),
    ] {
        let config = toml::from_str::<multiline::Config>(config).expect("well-typed");
        assert_eq!(Rules::compile(&config).expect_err("refused").to_string(), expected);
    }
}

/// A line that some trace begins or goes on with, or an ordinary one.
const POOL: [&str; 22] = [
    "java.lang.IllegalStateException: x",
    "\tat org.example.Shop.buy(Shop.java:42)",
    "\tat org.example.Shop.buy(Shop.java:42)",
    "Caused by: java.lang.Error: y",
    "Traceback (most recent call last):",
    "  File \"/app/a.py\", line 1, in f",
    "ValueError: z",
    "During handling of the above exception, another exception occurred:",
    "",
    "",
    "panic: boom",
    "goroutine 1 [running]:",
    "main.main()",
    "thread 'main' panicked at src/main.rs:1:2:",
    "ordinary",
    "ordinary",
    r#"{"msg":"json","reqId":"r-1"}"#,
    "2026-11-22 ERROR failed",
    "/app/a.js:3",
    "    ^",
    "a line that is a good deal longer than the others, so that fragments of it are cut somewhere in the middle of it",
    "E: unknown Error",
];

#[derive(Debug, Clone)]
struct Line {
    pool: usize,
    stderr: bool,
    gap: u64,
    fragments: bool,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let gap = prop_oneof![5 => Just(0), 8 => Just(MILLI), 3 => Just(700 * MILLI), 1 => Just(2_500 * MILLI), 1 => Just(9 * SECOND)];
    let line = (0..POOL.len(), any::<bool>(), gap, prop::bool::weighted(0.15));
    let line = line.prop_map(|(pool, stderr, gap, fragments)| Line { pool, stderr, gap, fragments });
    prop::collection::vec(line, 1..80)
}

/// Physical lines with their stamps. Fragments of a line lie apart: other lines come between.
///
/// Behind a rotation no two lines have one stamp: who resumes there knows the copies of its own generation only.
fn physical(lines: &[Line], split: usize) -> Vec<(u64, String)> {
    let mut time = BASE;
    let mut physical = Vec::new();
    // The rest of a line whose first fragment was written, by stream.
    let mut open: [Option<String>; 2] = [None, None];
    for (n, line) in lines.iter().enumerate() {
        time += line.gap + if n >= split { MILLI } else { 0 };
        // Who resumes within a line of the other stream skips its rest, and so learns nothing from it: such a
        // line has a text of its own.
        let own = if line.fragments { format!(" {n}") } else { String::new() };
        let text =
            open[usize::from(line.stderr)].take().unwrap_or_else(|| format!("{}{own}", POOL[line.pool]));
        let cut = line.fragments && text.len() > 8;
        let (head, tail) = if cut { text.split_at(text.len() / 2) } else { (text.as_str(), "") };
        open[usize::from(line.stderr)] = cut.then(|| tail.to_owned());
        physical.push((time, cri(time, line.stderr, !cut, head)));
    }
    physical
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// However the bytes are cut into reads, wherever the agent dies, whenever the log falls quiet.
    #[test]
    fn records_depend_on_the_bytes_alone(
        lines in lines(),
        cuts in prop::collection::vec((1_usize..400, 0_u8..10), 1..40),
        rotation in prop::option::of(0_usize..80),
        dedup in any::<bool>(),
        max_line in prop_oneof![Just(120_usize), Just(4_000)],
        max_lines in prop_oneof![Just(4_u32), Just(500)],
        start in prop::bool::weighted(0.2),
    ) {
        let process = if dedup { "[dedup]\nwindow = \"10s\"" } else { "" };
        let mut multiline = format!("max_lines = {max_lines}\n");
        if start {
            multiline.push_str("[rule.a]\nstart = '^[a-z]'");
        }
        let settings = settings(&multiline, process, max_line);
        let split = rotation.unwrap_or(usize::MAX).min(lines.len());
        let physical = physical(&lines, split);
        let bytes = |lines: &[(u64, String)]| lines.iter().map(|line| line.1.as_str()).collect::<String>().into_bytes();
        let mut generations = vec![bytes(&physical[..split])];
        if split < physical.len() {
            generations.push(bytes(&physical[split..]));
        }
        let expected = read_all(&settings, &generations);

        let mut log = Log::new(&settings, &generations);
        let mut calm = Log::new(&settings, &generations);
        let mut turns = cuts.iter().cycle();
        for step in 0..20_000 {
            prop_assert!(step < 19_999, "no progress");
            let (len, event) = *turns.next().expect("endless");
            // Restarts cease, so that the end is reached.
            let event = if step > 60 { 0 } else { event };
            if log.rest() == 0 {
                if log.generation + 1 == generations.len() {
                    break;
                }
                log.rotate();
                if event == 9 {
                    log.restart();
                }
                continue;
            }
            // A line that is longer than a read makes the next one longer.
            let mut end = log.offset + len;
            let before = log.offset;
            while log.offset == before {
                log.read(end);
                end += 300;
            }
            if event >= 7 {
                // The wall clock may be as late as the next line's stamp.
                let at = log.offset + generations[..log.generation].iter().map(Vec::len).sum::<usize>();
                let mut upto = 0;
                let mut wall = BASE;
                for (time, line) in &physical {
                    wall = wall.max(*time);
                    upto += line.len();
                    if upto > at {
                        break;
                    }
                }
                log.idle(wall);
            }
            if event >= 8 {
                log.restart();
            }
        }
        log.finish();

        // Without restarts the order is the same too.
        for &(len, _) in cuts.iter().cycle() {
            if calm.rest() == 0 {
                if calm.generation + 1 == generations.len() {
                    break;
                }
                calm.rotate();
                continue;
            }
            let (mut end, before) = (calm.offset + len, calm.offset);
            while calm.offset == before {
                calm.read(end);
                end += 300;
            }
        }
        calm.finish();
        prop_assert_eq!(&calm.out, &expected);
        let set = |out: &[Out]| out.iter().cloned().collect::<BTreeSet<_>>();
        let (got, want) = (set(&log.out), set(&expected));
        let missing: Vec<_> = want.difference(&got).collect();
        let extra: Vec<_> = got.difference(&want).collect();
        prop_assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}, extra {extra:#?}");
    }
}
