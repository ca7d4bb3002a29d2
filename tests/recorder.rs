//! The flight recorder's promise: whatever way the log is cut into reads, and wherever the agent is killed, the same
//! records come out, and what was held is held again.

use nodewick::data::batch::{Fields, Marks, Record};
use nodewick::data::position::Skipping;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::ingest::{LineState, Settings};
use nodewick::logs::process::{Chain, Config};
use proptest::prelude::*;
use std::sync::Arc;

const MAX_LINE: usize = 16 << 10;

fn settings(toml: &str) -> Settings {
    let config: Config = toml::from_str(toml).expect("valid");
    Settings::new(Fields::ALL, Chain::compile(&config).expect("compiles"), MAX_LINE)
}

fn workload() -> Arc<Workload> {
    let container = ContainerRef::from_path("shop_cart-7f4b9d6c88-x2kqp_uid", "api", 0).expect("genuine");
    let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    match paths.identify(&container, std::time::Duration::ZERO) {
        Identity::Known(workload) => workload,
        Identity::Pending => unreachable!("paths say it all"),
    }
}

/// What a sink would see of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    offset: u64,
    time: u64,
    text: String,
    released: bool,
    repeated: u32,
}

fn seen(records: &[Record], arena: &[u8]) -> Vec<Seen> {
    let one = |record: &Record| Seen {
        offset: record.offset,
        time: record.time_unix_nano,
        text: String::from_utf8_lossy(record.body.of(arena)).into_owned(),
        released: record.marks.contains(Marks::RELEASED),
        repeated: record.repeated,
    };
    records.iter().map(one).collect()
}

struct Reader<'a> {
    settings: &'a Settings,
    workload: Arc<Workload>,
    state: LineState,
    /// All before it is framed.
    at: usize,
    out: Vec<Seen>,
}

impl<'a> Reader<'a> {
    fn new(settings: &'a Settings) -> Self {
        Self { settings, workload: workload(), state: LineState::new(MAX_LINE), at: 0, out: Vec::new() }
    }

    /// Takes the log's bytes up to `to`; what is no whole line stays for the next read.
    fn read(&mut self, log: &[u8], to: usize) {
        let mut arena = log[self.at..to].to_vec();
        let mut records = Vec::new();
        let offset = self.at as u64;
        let (settings, workload) = (self.settings, &self.workload);
        let taken = self.state.ingest(settings, workload, &mut arena, 0, offset, u64::MAX, &mut records);
        self.at += taken.bytes;
        self.out.extend(seen(&records, &arena));
    }

    /// Where the checkpoint stands.
    fn position(&self) -> (u64, Skipping) {
        self.state.pinned().unwrap_or((self.at as u64, self.state.skipping()))
    }

    /// As the tail does after a restart.
    fn resume(settings: &'a Settings, log: &[u8], (offset, skipping): (u64, Skipping)) -> Self {
        let mut reader = Self::new(settings);
        if offset > 0 {
            let start = reader.state.warm_up_start(settings, offset).saturating_sub(MAX_LINE as u64) as usize;
            let from = if start == 0 {
                0
            } else {
                log[start..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(offset as usize, |at| start + at + 1)
            };
            reader.state.begin_warm_up();
            let mut arena = log[from..offset as usize].to_vec();
            let mut thrown_away = Vec::new();
            let workload = Arc::clone(&reader.workload);
            let horizon = u64::MAX;
            reader.state.ingest(settings, &workload, &mut arena, 0, from as u64, horizon, &mut thrown_away);
        }
        let workload = Arc::clone(&reader.workload);
        reader.state.resume(settings, &workload, skipping);
        reader.at = offset as usize;
        reader
    }
}

/// Something that is written: level, trace, request, bytes of padding, whether it comes in two pieces, stream, and the
/// milliseconds since the line before.
type Written = (&'static str, Option<u8>, Option<u8>, usize, bool, bool, u64);

fn written() -> impl Strategy<Value = Vec<Written>> {
    let level =
        prop::sample::select(vec!["debug", "debug", "debug", "debug", "trace", "info", "error", "fatal"]);
    let id = || prop::option::weighted(0.7, 1..6_u8);
    let padding = prop::sample::select(vec![0_usize, 40, 700, 2_500]);
    let line = (
        level,
        id(),
        id(),
        padding,
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.2),
        prop::sample::select(vec![0_u64, 10, 10, 900]),
    );
    prop::collection::vec(line, 1..260)
}

/// The log as the runtime would write it. The two pieces of a line have a line of the other stream between them.
fn log_of(lines: &[Written]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut millis = 0_u64;
    let mut late: Option<String> = None;
    for (n, (level, trace, request, padding, split, stderr, gap)) in lines.iter().enumerate() {
        millis += gap + 1;
        let stream = if *stderr { "stderr" } else { "stdout" };
        let trace = trace.map_or(String::new(), |id| format!(r#","trace_id":"{id:032x}""#));
        let request = request.map_or(String::new(), |id| format!(r#","request_id":"req-{id}""#));
        let body = format!(r#"{{"level":"{level}"{trace}{request},"msg":"{n} {}"}}"#, "x".repeat(*padding));
        let stamp = format!(
            "2026-11-22T14:{:02}:{:02}.{:03}000000Z",
            millis / 60_000,
            millis / 1000 % 60,
            millis % 1000
        );
        if late.as_ref().is_some_and(|late| late.contains(stream)) {
            log.extend_from_slice(late.take().expect("there").as_bytes());
        }
        if *split {
            let (one, other) = body.split_at(body.len() / 2);
            log.extend_from_slice(format!("{stamp} {stream} P {one}\n").as_bytes());
            if let Some(open) = late.replace(format!("{stamp} {stream} F {other}\n")) {
                log.extend_from_slice(open.as_bytes());
            }
        } else {
            log.extend_from_slice(format!("{stamp} {stream} F {body}\n").as_bytes());
        }
    }
    log.extend_from_slice(late.unwrap_or_default().as_bytes());
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_chunking_and_any_kill_give_the_same_records(
        lines in written(),
        cuts in prop::collection::vec(0..1_000_000_usize, 1..12),
        kill in 0..1_000_000_usize,
        dedup in any::<bool>(),
    ) {
        let log = log_of(&lines);
        let toml = "recorder.on = true\nrecorder.window = '64KiB'\nrecorder.age = '20s'\n";
        let settings = settings(&format!("{toml}{}", if dedup { "dedup.window = '5s'\n" } else { "" }));
        let mut whole = Reader::new(&settings);
        whole.read(&log, log.len());
        prop_assert_eq!(whole.at, log.len());

        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % log.len()).collect();
        cuts.sort_unstable();
        let kill = kill % log.len();
        let mut first = Reader::new(&settings);
        for cut in cuts.iter().filter(|cut| **cut <= kill).chain([&kill]) {
            first.read(&log, (*cut).max(first.at));
        }
        // All that came out is acknowledged, and the agent is killed.
        let position = first.position();
        let pinned = first.state.pinned().is_some();
        let mut second = Reader::resume(&settings, &log, position);
        if !pinned {
            prop_assert_eq!(first.state.held(), second.state.held(), "what was held is held again");
        }
        for cut in cuts.iter().filter(|cut| **cut > kill).chain([&log.len()]) {
            second.read(&log, (*cut).max(second.at));
        }
        prop_assert_eq!(second.state.held(), whole.state.held());
        if pinned {
            // What stands behind the position came out already and comes again, the same.
            let mut all = [first.out, second.out].concat();
            all.sort();
            all.dedup();
            let mut expected = whole.out.clone();
            expected.sort();
            prop_assert_eq!(all, expected);
        } else {
            prop_assert_eq!([first.out, second.out].concat(), whole.out);
        }
    }
}

/// The texts that come out of a log, and how many lines are held at its end.
fn out(toml: &str, lines: &[Written]) -> (Vec<String>, u64) {
    let settings = settings(toml);
    let log = log_of(lines);
    let mut reader = Reader::new(&settings);
    reader.read(&log, log.len());
    let number = |seen: &Seen| {
        let text: serde_json::Value = serde_json::from_str(&seen.text).expect("JSON");
        let msg = text["msg"].as_str().expect("a message");
        let mark = if seen.released { "*" } else { "" };
        format!("{mark}{}", msg.split(' ').next().expect("a number"))
    };
    (reader.out.iter().map(number).collect(), reader.state.held().records)
}

#[test]
fn a_line_is_released_by_its_trace_or_by_its_request() {
    let line = |level, trace, request| (level, trace, request, 0, false, false, 0);
    let lines = [
        line("debug", Some(1), None),
        line("debug", None, Some(2)),
        line("debug", None, None),
        line("trace", Some(3), Some(4)),
        line("warn", Some(1), Some(2)),
        line("error", Some(1), Some(2)),
        line("error", None, Some(4)),
        line("error", None, None),
    ];
    let (texts, held) = out("recorder.on = true", &lines);
    assert_eq!(texts, ["4", "*0", "*1", "5", "*3", "6", "7"]);
    assert_eq!(held, 1, "what has neither trace nor request waits for the container's end");
}

#[test]
fn what_is_too_old_or_too_far_back_is_not_released() {
    let debug = |padding, gap| ("debug", Some(1), None, padding, false, false, gap);
    let error = ("error", Some(1), None, 0, false, false, 0);
    assert_eq!(
        out("recorder = { on = true, age = '1s' }", &[debug(0, 0), debug(0, 1500), error]).0,
        ["*1", "2"]
    );
    let far: Vec<Written> = (0..40).map(|_| debug(2_500, 0)).chain([error]).collect();
    let (texts, held) = out("recorder = { on = true, window = '64KiB' }", &far);
    // A line takes 2610 bytes of the log: the error stands 25 of them behind what is still within 64 KiB.
    assert_eq!((texts.len(), texts[0].as_str(), held), (26, "*15", 0));
}

#[test]
fn conditions_say_which_lines_are_held_and_rules_before_it_stand() {
    let line = |level, trace| (level, Some(trace), None, 0, false, false, 0);
    let lines = [line("debug", 1), line("info", 1), line("debug", 2), line("error", 1)];
    assert_eq!(out("recorder = { on = true, container = 'web' }", &lines).0, ["0", "1", "2", "3"]);
    assert_eq!(
        out("recorder = { on = true, contains = '000002\"' }", &lines),
        (vec!["0".into(), "1".into(), "3".into()], 1)
    );
    let toml = "recorder.on = true\ndrop.debug.level = 'debug'";
    assert_eq!(out(toml, &lines), (vec!["1".into(), "3".into()], 0), "what is dropped is never held");
}

#[test]
fn what_is_released_is_redacted() {
    let settings = settings("recorder.on = true\nredact.builtin = true");
    let log = b"2026-11-22T14:00:00Z stdout F {\"level\":\"debug\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"password\":\"hunter2\"}\n\
        2026-11-22T14:00:01Z stdout F {\"level\":\"error\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\"}\n";
    let mut reader = Reader::new(&settings);
    reader.read(log, log.len());
    assert_eq!(
        reader.out[0].text,
        r#"{"level":"debug","trace_id":"0af7651916cd43dd8448eb211c80319c","password":"[REDACTED:password]"}"#
    );
}

#[test]
fn a_window_or_an_age_out_of_range_is_refused_by_name() {
    for (toml, expected) in [
        ("recorder.window = '1KiB'", "process.recorder.window: 1KiB is outside 64KiB to 16MiB"),
        ("recorder.age = '2h'", "process.recorder.age: 2h is outside 1s to 1h"),
    ] {
        let config: Config = toml::from_str(toml).expect("valid toml");
        assert_eq!(Chain::compile(&config).expect_err("out of range").to_string(), expected);
    }
}

#[test]
fn explain_says_what_is_held_and_what_is_released() {
    use nodewick::inspect::{Pipeline, Who, explain};
    let config = nodewick::config::Config::default();
    let pipeline = Pipeline::new(&config).expect("compiles");
    let annotations = vec![("nodewick.dev/flight-recorder".to_owned(), "on".to_owned())];
    let who = Who { annotations, ..Who::default() };
    let input = br#"{"level":"debug","trace_id":"0af7651916cd43dd8448eb211c80319c","msg":"one"}
{"level":"debug","msg":"two"}
{"level":"error","trace_id":"0af7651916cd43dd8448eb211c80319c","msg":"three"}
"#;
    let stories = pipeline.run(&who, input, 1_795_356_000_000_000_000);
    let fates: Vec<_> = stories.iter().map(|story| (story.dropped_by(), story.is(Marks::RELEASED))).collect();
    assert_eq!(fates, [(None, true), (Some("recorder".to_owned()), false), (None, false)]);
    let text = explain::text(&pipeline, &stories);
    for said in [
        "  process  recorder: held back by the flight recorder: sent if a line of its trace is an error or the container dies\n",
        "           recorder: released by the flight recorder: its trace or request failed\n",
        "  sinks    nothing is sent: dropped by recorder\n",
    ] {
        assert!(text.contains(said), "{said}\nnot in\n{text}");
    }
}

#[test]
fn a_trace_that_failed_a_window_before_a_line_is_known_after_a_restart_a_window_behind_it() {
    let settings = settings("recorder = { on = true, window = '256KiB' }");
    let line = |level, trace, padding| (level, trace, None, padding, false, false, 0);
    let filler = || (0..95).map(|_| line("info", None, 2_500));
    let error = line("error", Some(1), 0);
    let debug = line("debug", Some(1), 0);
    let lines: Vec<Written> = std::iter::once(error).chain(filler()).chain([debug]).chain(filler()).collect();
    let log = log_of(&lines);
    let mut first = Reader::new(&settings);
    first.read(&log, log.len());
    assert!(first.out[96].released && first.state.held().records == 0, "it passed");
    let second = Reader::resume(&settings, &log, first.position());
    assert_eq!(second.state.held().records, 0, "it was sent, so it is not held");
}
