//! Each kind of rule by example, the texts of its errors, and that a replay gives the identical records.

use std::sync::Arc;

use nodewick::data::batch::{Record, Span, Stream};
use nodewick::data::severity::Severity;
use nodewick::data::trace::TraceId;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::process::dedup::{BLOCK_BYTES, MAX_HELD_BYTES};
use nodewick::logs::process::{Chain, Config, Dropped, LogState};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn workload(pod: &str) -> Arc<Workload> {
    let mut identity = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    let container = ContainerRef::from_path(&format!("shop_{pod}_uid-{pod}"), "api", 0).expect("valid");
    match identity.identify(&container, std::time::Duration::ZERO) {
        Identity::Known(workload) => workload,
        Identity::Pending => panic!("a path is enough"),
    }
}

fn chain(toml: &str) -> Chain {
    Chain::compile(&toml::from_str::<Config>(toml).expect("valid toml")).expect("valid rules")
}

fn error(toml: &str) -> String {
    match toml::from_str::<Config>(toml) {
        Ok(config) => Chain::compile(&config).expect_err("must be refused").to_string(),
        Err(error) => error.message().to_owned(),
    }
}

/// One log as it passes the chain.
struct Log {
    chain: Chain,
    state: LogState,
    workload: Arc<Workload>,
    arena: Vec<u8>,
    out: Vec<Record>,
    offset: u64,
    dropped: Dropped,
}

impl Log {
    fn new(toml: &str) -> Self {
        Self {
            chain: chain(toml),
            state: LogState::default(),
            workload: workload("checkout-0"),
            arena: Vec::new(),
            out: Vec::new(),
            offset: 0,
            dropped: Dropped::default(),
        }
    }

    /// Passes a line at `seconds`, with `with` to set more of its record.
    fn line(&mut self, seconds: f64, text: &str, with: impl FnOnce(&mut Record)) {
        let from = self.arena.len();
        self.arena.extend_from_slice(text.as_bytes());
        let mut record = Record {
            body: Span::new(from, self.arena.len()),
            offset: self.offset,
            time_unix_nano: (seconds * SECOND as f64) as u64,
            ..Record::default()
        };
        with(&mut record);
        self.offset = record.offset + text.len() as u64 + 1;
        self.dropped +=
            self.chain.apply(&mut self.state, &self.workload, &mut self.arena, record, &mut self.out);
    }

    fn idle(&mut self, seconds: f64) {
        let now = (seconds * SECOND as f64) as u64;
        self.dropped += self.chain.close_idle(&mut self.state, now, &mut self.arena, &mut self.out);
    }

    /// Text and `repeated` of what came out.
    fn seen(&self) -> Vec<(String, u32)> {
        let text = |r: &Record| String::from_utf8_lossy(r.body.of(&self.arena)).into_owned();
        self.out.iter().map(|r| (text(r), r.repeated)).collect()
    }
}

fn plain(_: &mut Record) {}

#[test]
fn nothing_configured_changes_nothing() {
    let mut log = Log::new("");
    assert!(log.chain.is_noop());
    log.line(1.0, "password=x", plain);
    log.line(1.0, "password=x", plain);
    assert_eq!(log.seen(), [("password=x".to_owned(), 0), ("password=x".to_owned(), 0)]);
    assert_eq!(log.dropped, Dropped::default());
}

#[test]
fn a_drop_rule_needs_all_its_conditions() {
    let mut log = Log::new(
        r#"
        [drop.health]
        namespace = ["shop", "bank"]
        service = "check*"
        stream = "stdout"
        level = "<= info"
        contains = ["health", "ready"]
        regex = '(?i)GET'
        http_status = "2xx"
        "#,
    );
    let matching = |r: &mut Record| {
        r.severity = Severity::INFO;
        r.http_status = 204;
    };
    log.line(1.0, "get /health", matching);
    assert_eq!((log.out.len(), log.dropped.drop, log.dropped.bytes), (0, 1, [11, 0, 0, 0, 0, 0]));
    log.line(1.0, "get /orders", matching);
    log.line(1.0, "put /ready", matching);
    log.line(1.0, "get /ready", |r| (r.http_status, r.severity) = (500, Severity::INFO));
    log.line(1.0, "get /ready", |r| (r.http_status, r.severity) = (200, Severity::WARN));
    log.line(1.0, "get /ready", |r| (r.http_status, r.severity) = (200, Severity::UNSPECIFIED));
    log.line(1.0, "get /ready", |r| {
        matching(r);
        r.stream = Stream::Stderr;
    });
    assert_eq!((log.out.len(), log.dropped.drop), (6, 1));
    log.workload = workload("orders-0");
    log.state = LogState::default();
    log.line(1.0, "get /ready", matching);
    assert_eq!(log.out.len(), 7, "another service is out of scope");
}

#[test]
fn health_checks_are_dropped_by_path() {
    let mut log = Log::new(r#"drop.health.url_path = ["/healthz", "/health/*", "!/health/deep"]"#);
    for (path, kept) in [("/healthz", 0), ("/healthz2", 1), ("/health/live", 1), ("/health/deep", 2), ("", 3)]
    {
        let at = log.arena.len();
        log.line(1.0, path, |r| {
            r.url_path = if path.is_empty() { Span::default() } else { Span::new(at, at + path.len()) }
        });
        assert_eq!(log.out.len(), kept, "{path}");
    }
}

#[test]
fn a_trace_is_kept_or_dropped_as_a_whole_and_alike_everywhere() {
    let mut one = Log::new("sample.all.keep = \"30%\"");
    let mut other = Log::new("sample.all.keep = \"30%\"");
    other.workload = workload("orders-7");
    let mut kept = 0;
    for n in 1..=1000_u128 {
        let trace = TraceId::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let before = one.out.len();
        for part in ["a", "b", "c"] {
            one.line(n as f64, part, |r| r.trace_id = trace);
        }
        other.line(1.0, "elsewhere", |r| r.trace_id = trace);
        let lines = one.out.len() - before;
        assert!(lines == 0 || lines == 3, "{lines} of 3 lines");
        kept += lines / 3;
        assert_eq!(other.out.len(), kept);
    }
    assert!((250..350).contains(&kept), "{kept} of 1000");
    assert_eq!(one.dropped.sample as usize, 3 * (1000 - kept));
}

#[test]
fn errors_are_kept_unless_they_are_to_be_sampled_too() {
    let mut log = Log::new("sample.all.keep = \"0%\"");
    log.line(1.0, "bad", |r| r.severity = Severity::ERROR);
    log.line(1.0, "good", |r| r.severity = Severity::WARN);
    assert_eq!(log.seen(), [("bad".to_owned(), 0)]);
    let mut log = Log::new("sample.all = { keep = \"0%\", keep_errors = false }");
    log.line(1.0, "bad", |r| r.severity = Severity::ERROR);
    assert_eq!(log.out.len(), 0);
}

#[test]
fn lines_without_a_trace_are_drawn_one_by_one_and_rules_nest() {
    let mut tenth = Log::new("sample.all.keep = \"10%\"");
    let mut both = Log::new("sample = { a.keep = \"10%\", b.keep = \"50%\" }");
    let mut half = Log::new("sample.all.keep = \"50%\"");
    for n in 0..2000 {
        for log in [&mut tenth, &mut both, &mut half] {
            log.line(f64::from(n), "same text", plain);
        }
    }
    let times = |log: &Log| log.out.iter().map(|r| r.time_unix_nano).collect::<Vec<_>>();
    assert!((150..250).contains(&tenth.out.len()), "{}", tenth.out.len());
    assert!((900..1100).contains(&half.out.len()), "{}", half.out.len());
    assert_eq!(times(&tenth), times(&both), "the smallest share holds");
    assert!(times(&tenth).iter().all(|t| times(&half).contains(t)));
}

#[test]
fn a_limit_counts_in_aligned_periods_of_the_lines_own_time() {
    let mut log = Log::new("limit.all = { rate = \"2/s\", key = \"node\" }");
    for at in [10.0, 10.5, 10.9, 11.0, 11.1, 11.2, 99.0] {
        log.line(at, &at.to_string(), plain);
    }
    let seen: Vec<_> = log.seen().into_iter().map(|(text, _)| text).collect();
    assert_eq!(seen, ["10", "10.5", "11", "11.1", "99"]);
    assert_eq!(log.dropped.rate_limit, 2);
}

#[test]
fn each_value_of_a_key_has_its_own_limit() {
    let mut log = Log::new("limit.all = { rate = \"1/m\", key = [\"pod\", \"level\"] }");
    for severity in [Severity::INFO, Severity::INFO, Severity::ERROR] {
        log.line(1.0, "x", |r| r.severity = severity);
    }
    assert_eq!(log.out.len(), 2);
    // Another pod, by the same chain.
    log.workload = workload("checkout-1");
    log.state = LogState::default();
    log.line(1.0, "x", |r| r.severity = Severity::INFO);
    assert_eq!(log.out.len(), 3);
    // One service over its pods.
    let mut log = Log::new("limit.all.rate = \"1/m\"");
    log.line(1.0, "x", plain);
    log.workload = workload("checkout-1");
    log.state = LogState::default();
    log.line(2.0, "x", plain);
    assert_eq!(log.out.len(), 1);
}

#[test]
fn a_run_becomes_its_first_and_its_last_copy_with_a_count() {
    let mut log = Log::new("[dedup]");
    for n in 0..5 {
        log.line(10.0 + f64::from(n), "again", plain);
    }
    assert_eq!(log.seen(), [("again".to_owned(), 0)]);
    assert_eq!(log.state.pinned(), Some(6), "the second copy, after `again` and its newline");
    log.line(15.0, "other", plain);
    assert_eq!(log.seen()[1..], [("again".to_owned(), 3), ("other".to_owned(), 0)]);
    assert_eq!((log.out[1].offset, log.out[1].time_unix_nano), (24, 14 * SECOND));
    assert_eq!(log.state.pinned(), None);
    // In: 6. Out: 3, and 3 that are counted.
    assert_eq!(log.dropped.dedup, 3);
}

#[test]
fn a_single_copy_is_simply_sent() {
    let mut log = Log::new("[dedup]");
    for text in ["a", "a", "b"] {
        log.line(1.0, text, plain);
    }
    assert_eq!(log.seen(), [("a".to_owned(), 0), ("a".to_owned(), 0), ("b".to_owned(), 0)]);
    assert_eq!(log.dropped.dedup, 0);
}

#[test]
fn a_run_ends_with_its_window_its_block_and_at_another_severity_or_stream() {
    let mut log = Log::new("[dedup]");
    log.line(9.8, "x", plain);
    log.line(9.9, "x", plain);
    log.line(10.0, "x", plain);
    assert_eq!(log.out.len(), 3, "another window of 10 s");
    log.line(10.1, "x", |r| r.offset = BLOCK_BYTES);
    assert_eq!(log.out.len(), 4, "another block");
    log.line(10.2, "x", |r| r.severity = Severity::ERROR);
    assert_eq!(log.out.len(), 5, "another severity");
    log.line(10.3, "x", |r| (r.severity, r.stream) = (Severity::ERROR, Stream::Stderr));
    assert_eq!(log.out.len(), 6, "another stream");
    assert!(log.out.iter().all(|r| r.repeated == 0));
}

#[test]
fn a_quiet_log_closes_its_run_when_the_window_is_over() {
    let mut log = Log::new("[dedup]");
    for _ in 0..3 {
        log.line(11.0, "x", plain);
    }
    // The batch is sealed and another one begun: the text must come from the log's own memory.
    log.arena = b"next batch".to_vec();
    log.out.clear();
    log.idle(21.9);
    assert_eq!((log.out.len(), log.state.pinned()), (0, Some(2)));
    log.idle(22.1);
    assert_eq!(log.seen(), [("x".to_owned(), 1)]);
    assert_eq!(log.state.pinned(), None);
    log.idle(30.0);
    assert_eq!(log.out.len(), 1);
}

#[test]
fn the_end_of_a_generation_closes_the_run_at_once() {
    let mut log = Log::new("[dedup]");
    log.line(1.0, "x", plain);
    log.line(1.0, "x", plain);
    log.dropped += log.chain.close_idle(&mut log.state, u64::MAX, &mut log.arena, &mut log.out);
    log.state.reset();
    log.line(1.0, "x", |r| r.offset = 0);
    assert_eq!(log.out.len(), 3);
}

#[test]
fn messages_fold_though_their_numbers_differ_and_keep_their_own_text() {
    let mut log = Log::new("dedup.by = \"message\"");
    for n in 1..=4 {
        let text = format!("{{\"time\":179535656669{n},\"id\":\"r-{n}\",\"msg\":\"lost\"}}");
        let id = text.find("r-").expect("there");
        let at = log.arena.len();
        log.line(1.0, &text, |r| r.request_id = Span::new(at + id, at + id + 3));
    }
    log.line(2.0, "end", plain);
    assert_eq!(
        log.seen()[..2],
        [
            ("{\"time\":1795356566691,\"id\":\"r-1\",\"msg\":\"lost\"}".to_owned(), 0),
            ("{\"time\":1795356566694,\"id\":\"r-4\",\"msg\":\"lost\"}".to_owned(), 2),
        ]
    );
    assert_eq!(log.out[1].request_id.of(&log.arena), b"r-4");
}

#[test]
fn long_lines_are_not_held_back() {
    let mut log = Log::new("[dedup]");
    let long = "x".repeat(MAX_HELD_BYTES + 1);
    for _ in 0..3 {
        log.line(1.0, &long, plain);
    }
    assert_eq!(log.out.len(), 3);
    assert_eq!(log.state.pinned(), None);
}

#[test]
fn the_held_copy_is_redacted_when_it_goes_on() {
    let mut log = Log::new("dedup = {}\nredact.builtin = true");
    for _ in 0..3 {
        log.line(1.0, "password=hunter2", plain);
    }
    log.idle(100.0);
    assert_eq!(
        log.seen(),
        [("password=[REDACTED:password]".to_owned(), 0), ("password=[REDACTED:password]".to_owned(), 1)]
    );
}

#[test]
fn errors_name_the_key_and_the_way_out() {
    for (toml, expected) in [
        (
            "drop.all = {}",
            "process.drop.all: has no condition and would drop every record; give at least one, or namespace = \"*\" if you mean it",
        ),
        ("drop.x.regex = '('", "process.drop.x.regex: bad regular expression \"(\": unclosed group"),
        ("drop.x.contains = ''", "process.drop.x.contains: the empty text is in every line; remove it"),
        (
            "drop.x.level = 'loud'",
            "\"loud\" is not a level; write trace, debug, info, warn, error, fatal or none, or compare, as in \"<= debug\"",
        ),
        ("drop.x.http_status = 99", "\"99\" is not an HTTP status; write 404, \"4xx\" or \"500-504\""),
        ("drop.x.pod = []", "an empty list matches nothing; leave the key out or name a value"),
        ("sample.x.keep = '101%'", "\"101%\" is not a share between 0% and 100%; write it like 10%"),
        ("limit.x.rate = '10'", "\"10\" is not a rate; write it like 1000/s"),
        (
            "limit.x.rate = '0/s'",
            "process.limit.x.rate: a rate of 0 drops everything; use [process.drop] for that",
        ),
        ("dedup.window = '1h'", "process.dedup.window: 1h is outside 1s to 10m"),
        (
            "drop.'Bad Name'.pod = 'x'",
            "process.drop.Bad Name: a rule's name is 1 to 40 of a-z, 0-9, '_' and '-'; rename the table",
        ),
        (
            "redact.rule.jwt.pattern = 'x'",
            "process.redact.rule.jwt: a built-in rule has this name; choose another",
        ),
        (
            "redact.rule.y.pattern = 'x*'",
            "process.redact.rule.y.pattern: \"x*\" matches the empty text; it must match something",
        ),
        (
            "redact.rule.y.pattern = '(\\w{200}){200}'",
            "process.redact.rule.y.pattern: the regular expression is too large; use smaller repetitions",
        ),
    ] {
        assert_eq!(error(toml), expected);
    }
    let unknown = error("drop.x.namspace = 'a'");
    assert!(unknown.starts_with("unknown field `namspace`, expected one of `namespace`, `pod`"), "{unknown}");
    let rule = error("redact = { builtin = true, except = ['visa'] }");
    assert!(
        rule.starts_with("process.redact.except: \"visa\" is no built-in rule; they are jwt, aws_key,"),
        "{rule}"
    );
}

#[test]
fn a_config_reads_back_as_it_was_written() {
    let config: Config = toml::from_str(
        "drop.a = { level = '<= debug', http_status = [200, '4xx'] }\nsample.b.keep = '0.5%'\n\
         limit.c = { rate = '600/m', key = ['pod', 'level'] }\n[dedup]\nwindow = '30s'\n[redact]\nip = true",
    )
    .expect("valid");
    let text = toml::to_string(&config).expect("serialises");
    assert_eq!(toml::from_str::<Config>(&text).expect("valid"), config);
    let schema = serde_json::to_string(&schemars::schema_for!(Config)).expect("serialises");
    assert!(schema.contains("\"keep_errors\"") && schema.contains("\"http_route\""));
}

/// A record of a made-up log: everything that decides its fate.
#[derive(Debug, Clone)]
struct Line {
    text: &'static str,
    gap_millis: u64,
    padding: u64,
    trace: u8,
    stderr: bool,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let text = prop::sample::select(vec!["same", "same", "same", "same", "same", "same", "same", "other"]);
    let line = (
        text,
        0..400_u64,
        prop::sample::select(vec![0_u64, 3_000, 9_000, 20_000]),
        0..4_u8,
        prop::bool::weighted(0.1),
    );
    let line = line.prop_map(|(text, gap_millis, padding, trace, stderr)| Line {
        text,
        gap_millis,
        padding,
        trace,
        stderr,
    });
    prop::collection::vec(line, 1..200)
}

/// Everything a sink would see of a record, spans as text.
fn view(record: &Record, arena: &[u8]) -> (u64, u64, u32, String, u8) {
    let text = String::from_utf8_lossy(record.body.of(arena)).into_owned();
    (record.offset, record.time_unix_nano, record.repeated, text, record.severity.number())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Stops after any record, as a crash would, goes back to what was committed and reads on: what was sent
    /// before the committed offset and what is sent after it make up exactly what one pass sends.
    #[test]
    fn a_replay_from_the_committed_offset_gives_the_identical_tail(log in lines(), stop in 0..200_usize) {
        let toml = "sample.some.keep = '60%'\ndedup.window = '5s'";
        let workload = workload("checkout-0");
        let chain = chain(toml);
        let mut records = Vec::new();
        let (mut offset, mut time) = (0, 1_795_356_566 * SECOND);
        for line in &log {
            time += line.gap_millis * 1_000_000;
            records.push((line.text, Record {
                offset,
                time_unix_nano: time,
                trace_id: TraceId::new(u128::from(line.trace)),
                stream: if line.stderr { Stream::Stderr } else { Stream::Stdout },
                severity: Severity::INFO,
                ..Record::default()
            }));
            offset += line.text.len() as u64 + 1 + line.padding;
        }
        // Passes records from `from` on; each as a batch of its own, so that no text survives in the arena.
        let pass = |state: &mut LogState, from: u64, to: u64, all: &mut Vec<(u64, u64, u32, String, u8)>| {
            for (text, record) in records.iter().filter(|(_, r)| (from..to).contains(&r.offset)) {
                let mut arena = text.as_bytes().to_vec();
                let mut out = Vec::new();
                let record = Record { body: Span::new(0, arena.len()), ..*record };
                chain.apply(state, &workload, &mut arena, record, &mut out);
                all.extend(out.iter().map(|r| view(r, &arena)));
            }
        };
        let close = |state: &mut LogState, all: &mut Vec<(u64, u64, u32, String, u8)>| {
            let (mut arena, mut out) = (Vec::new(), Vec::new());
            chain.close_idle(state, u64::MAX, &mut arena, &mut out);
            all.extend(out.iter().map(|r| view(r, &arena)));
        };
        let mut whole = Vec::new();
        let mut state = LogState::default();
        pass(&mut state, 0, u64::MAX, &mut whole);
        close(&mut state, &mut whole);

        let read_to = records.get(stop).map_or(offset, |(_, r)| r.offset);
        let (mut sent, mut state) = (Vec::new(), LogState::default());
        pass(&mut state, 0, read_to, &mut sent);
        let committed = state.pinned().unwrap_or(read_to);
        prop_assert!(sent.iter().all(|r| r.0 < committed), "nothing behind the pin was sent");

        let mut state = LogState::default();
        state.set_warming_up(true);
        pass(&mut state, chain.warm_up_start(committed), committed, &mut Vec::new());
        state.set_warming_up(false);
        prop_assert_eq!(state.pinned(), None);
        pass(&mut state, committed, u64::MAX, &mut sent);
        close(&mut state, &mut sent);
        prop_assert_eq!(sent, whole);
    }
}
