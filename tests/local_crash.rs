//! kill -9 in the middle of writing: what was acknowledged is there, and a replay is stored once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nodewick::data::batch::{Batch, Fields, Record, Span};
use nodewick::data::budget::Budget;
use nodewick::data::delivery::{Ledger, Outlet as _, Shipment};
use nodewick::data::position::Position;
use nodewick::data::units::ByteSize;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use nodewick::sink::local::{self, Config, Filter, From, Reader};

const DIR: &str = "NODEWICK_TEST_CRASH_DIR";
const FIRST: &str = "NODEWICK_TEST_CRASH_FIRST";
const LINES_PER_BATCH: u64 = 25;

fn line(number: u64) -> String {
    format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat((number % 97) as usize))
}

/// Not a test by itself: the process that is killed. Writes from line `FIRST` on and prints how far it is durable.
#[test]
fn child_that_is_killed() {
    let (Ok(dir), Ok(first)) = (std::env::var(DIR), std::env::var(FIRST)) else { return };
    let first: u64 = first.parse().expect("a number");
    let config = Config { segment: ByteSize::kib(64), ..Config::default() };
    let (outlet, _writer) = local::start("t", &config, dir.as_ref(), Fields::ALL).expect("starts");
    let ledger = Ledger::new(Position { offset: first, ..Position::default() }, Arc::default());
    let mut identity = PathIdentity { cluster: "c".to_owned(), node: "n".to_owned(), environment: None };
    let container = ContainerRef::from_path("shop_cart-7f4b9d6c88-x2kqp_uid", "api", 0).expect("genuine");
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("always known")
    };
    let budget = Budget::new(1 << 30, Arc::default());
    let mut told = first;
    for round in 0..100_000 {
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let from = first + round * LINES_PER_BATCH;
        for number in from..from + LINES_PER_BATCH {
            let start = arena.len();
            arena.extend_from_slice(line(number).as_bytes());
            let time_unix_nano = 1_795_357_656_000_000_000 + number * 1_000;
            records.push(Record { time_unix_nano, body: Span::new(start, arena.len()), ..Record::default() });
        }
        let end = Position { offset: from + LINES_PER_BATCH, ..Position::default() };
        let ticket = ledger.issue(end, arena.len() as u64, LINES_PER_BATCH, 1).next();
        let batch = Batch {
            workload: Arc::clone(&workload),
            path: "0.log".into(),
            start: Position::default(),
            end,
            permit: budget.reserve(arena.len() as u64).expect("fits"),
            arena,
            records,
            catching_up: false,
            sealed_unix_nano: 0,
        };
        outlet.offer(Shipment { batch: Arc::new(batch), ticket });
        if ledger.committed().offset > told {
            told = ledger.committed().offset;
            // Past the harness, which would hold it back.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "durable {told}");
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn kill_9_loses_nothing_and_a_replay_is_stored_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut durable = 0;
    for kill in 0..8_u64 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .env(FIRST, durable.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut told = BufReader::new(child.stderr.take().expect("piped")).lines();
        for _ in 0..=kill % 3 {
            let word = told.next().expect("the child goes on").expect("text");
            durable = word.strip_prefix("durable ").expect("the child's own line").parse().expect("a number");
        }
        // A different moment each time, most of them behind a further commit, which is then replayed.
        std::thread::sleep(std::time::Duration::from_millis(kill * 97 % 260));
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
    let mut found = Vec::new();
    let mut reader =
        Reader::open(&dir.path().join("local/t"), From::Start, Filter::default()).expect("opens");
    let mut each = |entry: &local::Entry<'_>, _: &[u8]| {
        found.push(entry.line.clone().into_owned());
        Ok(())
    };
    while reader.poll(&mut each).expect("readable") {}
    assert!(durable > 500, "{durable} lines were acknowledged");
    assert!(found.len() as u64 >= durable, "{} of {durable}", found.len());
    let wanted: Vec<String> = (0..found.len() as u64).map(line).collect();
    assert!(found == wanted, "each line once and in order: {} stored", found.len());
}
