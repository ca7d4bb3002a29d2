//! The local store through its public doors: write, crash, restart, read.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nodewick::data::batch::{Batch, Fields, Record, Span};
use nodewick::data::budget::Budget;
use nodewick::data::delivery::{Ledger, Outlet as _, Shipment};
use nodewick::data::position::Position;
use nodewick::data::severity::Severity;
use nodewick::data::units::ByteSize;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use nodewick::sink::local::{self, Config, Filter, From, Reader};
use nodewick::tail;

const START: u64 = 1_795_357_656_000_000_000;

/// A batch of `checkout` with one record a line, a millisecond apart from `first` on; `ERR` in a line is its level.
fn batch(lines: &[String], first: u64) -> Batch {
    let mut identity =
        PathIdentity { cluster: "test".to_owned(), node: "node-a".to_owned(), environment: None };
    let container = ContainerRef::from_path("shop_checkout-d994d45d6-5h9zr_uid", "api", 0).expect("genuine");
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("a path is always known")
    };
    let (mut arena, mut records) = (Vec::new(), Vec::new());
    for (index, line) in lines.iter().enumerate() {
        let start = arena.len();
        arena.extend_from_slice(line.as_bytes());
        records.push(Record {
            time_unix_nano: START + (first + index as u64) * 1_000_000,
            body: Span::new(start, arena.len()),
            severity: if line.contains("ERR") { Severity::ERROR } else { Severity::INFO },
            ..Record::default()
        });
    }
    let permit = Budget::new(1 << 30, Arc::default()).reserve(arena.len() as u64).expect("fits");
    let end = Position { offset: first + lines.len() as u64, ..Position::default() };
    Batch {
        workload,
        path: "0.log".into(),
        start: Position::default(),
        end,
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 0,
        permit,
    }
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| format!("line {n:06} \"quoted\" \u{1b}[31m")).collect()
}

/// Starts a store, writes each batch through it, and waits until all tickets are settled.
fn write(dir: &Path, config: &Config, batches: Vec<Batch>) {
    let (outlet, writer) = local::start("t", config, dir, Fields::ALL).expect("starts");
    let ledger = Ledger::new(Position::default(), Arc::default());
    let mut records = 0;
    for batch in batches {
        records += batch.records.len() as u64;
        let ticket = ledger.issue(batch.end, 1, batch.records.len() as u64, 1).next();
        outlet.offer(Shipment { batch: Arc::new(batch), ticket });
    }
    drop(outlet);
    assert!(writer.join());
    assert_eq!(ledger.totals().delivered_records, records);
}

fn drain(reader: &mut Reader) -> Vec<String> {
    let mut found = Vec::new();
    let mut show = |entry: &local::Entry<'_>, _: &[u8]| -> io::Result<()> {
        found.push(entry.line.clone().into_owned());
        Ok(())
    };
    while reader.poll(&mut show).expect("readable") {}
    found
}

fn read(dir: &Path, from: From, filter: Filter) -> Vec<String> {
    drain(&mut Reader::open(&dir.join("local/t"), from, filter).expect("opens"))
}

fn sizes(dir: &Path) -> Vec<(String, u64)> {
    let mut found: Vec<_> = std::fs::read_dir(dir.join("local/t"))
        .expect("listed")
        .map(|entry| entry.expect("entry"))
        .map(|entry| (entry.file_name().into_string().expect("text"), entry.metadata().expect("meta").len()))
        .filter(|(name, _)| name.ends_with(".jsonl"))
        .collect();
    found.sort();
    found
}

#[test]
fn every_line_comes_back_in_order() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), &Config::default(), vec![batch(&lines(0..500), 0), batch(&lines(500..1000), 500)]);
    assert_eq!(read(dir.path(), From::Start, Filter::default()), lines(0..1000));
}

#[test]
fn the_bound_holds_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Config { max_bytes: ByteSize::kib(64), segment: ByteSize::kib(8), ..Config::default() };
    let batches = (0..40).map(|n| batch(&lines(n * 50..n * 50 + 50), n * 50)).collect();
    write(dir.path(), &config, batches);
    let sizes = sizes(dir.path());
    let total: u64 = sizes.iter().map(|(_, len)| len).sum();
    assert!(total <= 64 << 10, "{total}");
    assert!(total > 48 << 10, "what fits is kept: {total}");
    assert!(sizes.iter().all(|(_, len)| *len <= 8 << 10), "{sizes:?}");
    assert_ne!(sizes[0].0, "0000000001.jsonl");
    let kept = read(dir.path(), From::Start, Filter::default());
    assert_eq!(kept, lines(2000 - kept.len() as u64..2000), "the newest, without a gap");
}

#[test]
fn a_torn_tail_is_cut_and_the_store_goes_on() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), &Config::default(), vec![batch(&lines(0..10), 0)]);
    let path = dir.path().join("local/t/0000000001.jsonl");
    let mut text = std::fs::read(&path).expect("read");
    text.extend_from_slice(b"{\"time\":\"2026-11-22T14:27:37.000000000Z\",\"line\":\"torn");
    std::fs::write(&path, text).expect("written");
    let mut reader =
        Reader::open(&dir.path().join("local/t"), From::Start, Filter::default()).expect("opens");
    assert_eq!(drain(&mut reader), lines(0..10), "a torn line is not shown");
    write(dir.path(), &Config::default(), vec![batch(&lines(10..20), 10)]);
    assert_eq!(drain(&mut reader), lines(10..20), "the reader that was there goes on");
    assert_eq!(read(dir.path(), From::Start, Filter::default()), lines(0..20));
}

#[test]
fn a_replay_after_a_crash_is_stored_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Config { segment: ByteSize::kib(4), ..Config::default() };
    write(dir.path(), &config, vec![batch(&lines(0..100), 0)]);
    assert!(sizes(dir.path()).len() > 3, "the replay spans segments");
    write(dir.path(), &config, vec![batch(&lines(40..100), 40), batch(&lines(100..120), 100)]);
    assert_eq!(read(dir.path(), From::Start, Filter::default()), lines(0..120));
}

#[test]
fn the_same_text_at_another_time_is_another_line() {
    let dir = tempfile::tempdir().expect("temp dir");
    let same = vec!["same".to_owned(); 3];
    write(dir.path(), &Config::default(), vec![batch(&same, 0)]);
    write(dir.path(), &Config::default(), vec![batch(&same, 2)]);
    assert_eq!(read(dir.path(), From::Start, Filter::default()).len(), 5);
}

#[test]
fn a_reader_follows_over_segments_live() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Config { segment: ByteSize::kib(4), ..Config::default() };
    let mut reader =
        Reader::open(&dir.path().join("local/t"), From::Start, Filter::default()).expect("no store yet");
    assert_eq!(drain(&mut reader), Vec::<String>::new());
    for round in 0..6 {
        let from = round * 37;
        write(dir.path(), &config, vec![batch(&lines(from..from + 37), from)]);
        assert_eq!(drain(&mut reader), lines(from..from + 37), "round {round}");
    }
    assert!(sizes(dir.path()).len() >= 5);
    assert_eq!(reader.missed_segments(), 0);
}

#[test]
fn a_reader_slower_than_retention_says_what_it_missed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Config { max_bytes: ByteSize::kib(16), segment: ByteSize::kib(4), ..Config::default() };
    write(dir.path(), &config, vec![batch(&lines(0..5), 0)]);
    let mut reader =
        Reader::open(&dir.path().join("local/t"), From::Start, Filter::default()).expect("opens");
    assert_eq!(drain(&mut reader).len(), 5);
    write(dir.path(), &config, (0..10).map(|n| batch(&lines(n * 50 + 5..n * 50 + 55), n * 50 + 5)).collect());
    let rest = drain(&mut reader);
    assert!(reader.missed_segments() > 0);
    assert_eq!(rest.last(), lines(504..505).last(), "and goes on to the end");
}

#[test]
fn last_counts_what_the_filter_accepts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let config = Config { segment: ByteSize::kib(4), ..Config::default() };
    let mut text = lines(0..200);
    for index in [3, 77, 150, 199] {
        text[index].push_str(" ERR");
    }
    write(dir.path(), &config, vec![batch(&text, 0)]);
    let errors = Filter { level: Some(Severity::ERROR), ..Filter::default() };
    let wanted = [text[77].clone(), text[150].clone(), text[199].clone()];
    assert_eq!(read(dir.path(), From::Last(3), errors), wanted);
    assert_eq!(read(dir.path(), From::Last(2), Filter::default()), text[198..]);
    assert_eq!(read(dir.path(), From::Last(0), Filter::default()), Vec::<String>::new());
    assert_eq!(read(dir.path(), From::End, Filter::default()), Vec::<String>::new());
    assert_eq!(read(dir.path(), From::Last(10_000), Filter::default()).len(), 200);
}

#[test]
fn one_process_at_a_time_writes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (first, first_writer) =
        local::start("t", &Config::default(), dir.path(), Fields::ALL).expect("starts");
    let ledger = Ledger::new(Position::default(), Arc::default());
    let ticket = ledger.issue(Position::default(), 1, 1, 1).next();
    first.offer(Shipment { batch: Arc::new(batch(&lines(0..1), 0)), ticket });
    while ledger.totals().delivered_records == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = std::thread::spawn({
        let dir = dir.path().to_owned();
        move || write(&dir, &Config::default(), vec![batch(&lines(1..2), 1)])
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(read(dir.path(), From::Start, Filter::default()), lines(0..1), "the second one waits");
    drop(first);
    assert!(first_writer.join());
    second.join().expect("the second one wrote");
    assert_eq!(read(dir.path(), From::Start, Filter::default()), lines(0..2));
}

#[test]
fn jq_or_any_json_reader_reads_the_segments() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), &Config::default(), vec![batch(&lines(0..3), 0)]);
    let path = dir.path().join("local/t/0000000001.jsonl");
    let text = std::fs::read_to_string(&path).expect("UTF-8");
    for (index, line) in text.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["line"], format!("line {index:06} \"quoted\" \u{1b}[31m"));
        assert_eq!(value["service_name"], "checkout");
        assert_eq!(value["time"], format!("2026-11-22T14:27:36.{index:03}000000Z"));
    }
    if let Ok(jq) = Command::new("jq").arg("-r").arg(".pod").arg(&path).output() {
        assert_eq!(String::from_utf8_lossy(&jq.stdout).lines().count(), 3);
    }
}

#[test]
fn tail_shows_the_last_lines_that_match_and_ends() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut text: Vec<String> = (0..50).map(|n| format!("{{\"msg\":\"step\",\"n\":{n}}}")).collect();
    text[7] = "{\"msg\":\"ERR first\",\"n\":7}".to_owned();
    text[31] = "{\"msg\":\"ERR \\u001b[2Jsecond\",\"n\":31}".to_owned();
    write(dir.path(), &Config::default(), vec![batch(&text, 0)]);
    let shown = |words: &[&str]| {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: tail::Args,
        }
        let words = ["tail", "--no-follow"].iter().chain(words);
        let args = <Cli as clap::Parser>::try_parse_from(words).expect("valid").args;
        let (mut out, mut notices) = (Vec::new(), Vec::new());
        let store = tail::find_store(dir.path());
        let stop = std::sync::atomic::AtomicBool::new(false);
        tail::run(&args, &store, tail::Style::PLAIN, false, &mut out, &mut notices, &stop).expect("shows");
        assert_eq!(notices, b"");
        String::from_utf8(out).expect("UTF-8")
    };
    assert_eq!(
        shown(&["--level", "error"]),
        "14:27:36.007 ERROR checkout/api  ERR first  n=7\n14:27:36.031 ERROR checkout/api  ERR \\x1b[2Jsecond  n=31\n"
    );
    assert_eq!(shown(&["5h9zr", "--lines", "2", "-o", "raw"]), format!("{}\n{}\n", text[48], text[49]));
    assert_eq!(shown(&["--grep", "\"n\":3$|n\":3}", "-n", "shop", "-o", "raw"]), format!("{}\n", text[3]));
    assert_eq!(shown(&["-n", "other"]), "");
    let stored = std::fs::read_to_string(dir.path().join("local/t/0000000001.jsonl")).expect("text");
    assert_eq!(shown(&["--lines", "50", "-o", "json"]), stored);
}

#[test]
fn a_store_that_is_removed_by_hand_begins_anew() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (outlet, writer) = local::start("t", &Config::default(), dir.path(), Fields::ALL).expect("starts");
    let ledger = Ledger::new(Position::default(), Arc::default());
    let send = |range: std::ops::Range<u64>, settled: u64| {
        let batch = batch(&lines(range.clone()), range.start);
        let ticket = ledger.issue(batch.end, 1, range.end - range.start, 1).next();
        outlet.offer(Shipment { batch: Arc::new(batch), ticket });
        while ledger.totals().delivered_records < settled {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    };
    send(0..5, 5);
    std::fs::remove_dir_all(dir.path().join("local")).expect("removed");
    send(5..8, 8);
    assert_eq!(read(dir.path(), From::Start, Filter::default()), lines(5..8));
    drop(outlet);
    assert!(writer.join());
}
