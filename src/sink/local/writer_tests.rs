//! What needs a disk that misbehaves on command.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::data::batch::{Batch, Record, Span};
use crate::data::budget::Budget;
use crate::data::delivery::{Ledger, Outlet as _};
use crate::data::position::Position;
use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};

fn batch(lines: &[&str], first_time: u64) -> Batch {
    let mut identity =
        PathIdentity { cluster: "test".to_owned(), node: "node-a".to_owned(), environment: None };
    let container = ContainerRef::from_path("shop_checkout-d994d45d6-5h9zr_uid", "api", 0).expect("genuine");
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("a path is always known")
    };
    let mut arena = Vec::new();
    let mut records = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let start = arena.len();
        arena.extend_from_slice(line.as_bytes());
        let body = Span::new(start, arena.len());
        records.push(Record { time_unix_nano: first_time + index as u64, body, ..Record::default() });
    }
    let permit = Budget::new(1 << 20, Arc::default()).reserve(arena.len() as u64).expect("fits");
    Batch {
        workload,
        path: "0.log".into(),
        start: Position::default(),
        end: Position { offset: first_time, ..Position::default() },
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 0,
        permit,
    }
}

fn send(outlet: &Outlet, ledger: &Arc<Ledger>, batch: Batch) {
    let end = batch.end;
    let records = batch.records.len() as u64;
    let ticket = ledger.issue(end, 10, records, 1).next();
    outlet.offer(Shipment { batch: Arc::new(batch), ticket });
}

fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    done()
}

#[test]
fn a_ticket_is_settled_only_after_the_sync() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (entered, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (entered_in, release_in) = (Arc::clone(&entered), Arc::clone(&release));
    let sync: Sync = Box::new(move |file| {
        assert!(file.metadata()?.len() > 0, "written before synced");
        entered_in.fetch_add(1, Ordering::SeqCst);
        while !release_in.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        file.sync_data()
    });
    let (outlet, writer) =
        start_with("t", &Config::default(), dir.path(), Fields::ALL, sync).expect("thread starts");
    let ledger = Ledger::new(Position::default(), Arc::default());
    send(&outlet, &ledger, batch(&["one"], 100));
    assert!(until(Duration::from_secs(5), || entered.load(Ordering::SeqCst) == 1));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ledger.committed().offset, 0, "written, not yet durable");
    release.store(true, Ordering::SeqCst);
    assert!(until(Duration::from_secs(5), || ledger.committed().offset == 100));
    drop(outlet);
    assert!(writer.join());
}

#[test]
fn a_failed_sync_keeps_the_ticket_and_goes_on_in_another_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let sync: Sync = Box::new(move |file| match counted.fetch_add(1, Ordering::SeqCst) {
        1 | 2 => Err(io::Error::from_raw_os_error(5)),
        _ => file.sync_data(),
    });
    let (outlet, writer) =
        start_with("t", &Config::default(), dir.path(), Fields::ALL, sync).expect("thread starts");
    let ledger = Ledger::new(Position::default(), Arc::default());
    send(&outlet, &ledger, batch(&["first"], 100));
    assert!(until(Duration::from_secs(5), || ledger.committed().offset == 100));
    send(&outlet, &ledger, batch(&["second"], 200));
    assert!(until(Duration::from_secs(5), || ledger.committed().offset == 200));
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    drop(outlet);
    assert!(writer.join());
    let store = dir.path().join("local/t");
    let first = std::fs::read_to_string(store.join("0000000001.jsonl")).expect("kept");
    assert!(first.ends_with("\"line\":\"first\"}\n"), "{first}");
    assert_eq!(std::fs::read_dir(&store).expect("listed").count(), 3, "two segments and the lock");
    let all: String = std::fs::read_dir(&store)
        .expect("listed")
        .map(|entry| std::fs::read_to_string(entry.expect("entry").path()).expect("text"))
        .collect();
    assert_eq!(all.matches("second").count(), 1, "{all}");
}

#[test]
fn an_unwritable_directory_holds_tickets_until_it_can_be_written() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("local"), b"in the way").expect("written");
    let (outlet, writer) =
        start("t", &Config::default(), dir.path(), Fields::ALL).expect("the thread starts all the same");
    let ledger = Ledger::new(Position::default(), Arc::default());
    send(&outlet, &ledger, batch(&["one", "two"], 100));
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(ledger.committed().offset, 0);
    std::fs::remove_file(dir.path().join("local")).expect("removed");
    assert!(until(Duration::from_secs(8), || ledger.committed().offset == 100));
    drop(outlet);
    assert!(writer.join());
}

#[test]
fn an_optional_store_drops_rather_than_queue_without_bound() {
    let dir = tempfile::tempdir().expect("temp dir");
    let release = Arc::new(AtomicBool::new(false));
    let release_in = Arc::clone(&release);
    let sync: Sync = Box::new(move |_| {
        while !release_in.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let config = Config { optional: true, ..Config::default() };
    let (outlet, writer) = start_with("opt", &config, dir.path(), Fields::ALL, sync).expect("starts");
    assert!(!outlet.required());
    let line = "x".repeat(200_000);
    for time in 0..40 {
        outlet.offer(Shipment { batch: Arc::new(batch(&[&line], time)), ticket: None });
    }
    assert!(outlet.queued_bytes.load(Ordering::SeqCst) <= OPTIONAL_QUEUE_BYTES);
    assert!(metrics::SINK_RECORDS.with_label_values(&["opt", "dropped"]).get() >= 10);
    release.store(true, Ordering::SeqCst);
    drop(outlet);
    assert!(writer.join());
}
