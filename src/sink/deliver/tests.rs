//! The queue's entrance and the dead-letter file.

use super::*;
use crate::data::batch::{Batch, Record, Span};
use crate::data::budget::Budget;
use crate::data::delivery::Reason;
use crate::data::position::Position;
use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use crate::sink::{Parcel, StreamKey, Verdict};

struct Plain;

impl Wire for Plain {
    fn stream(&self, _: &Batch) -> StreamKey {
        StreamKey(1)
    }
    fn tenant<'a>(&'a self, _: &'a Batch) -> Option<&'a str> {
        None
    }
    fn encode(&mut self, parcels: &[Parcel], out: &mut Vec<u8>) {
        for parcel in parcels {
            for record in parcel.records() {
                out.extend_from_slice(parcel.batch.body(record));
            }
        }
    }
    fn judge(&self, answer: &Answer, _: u64) -> Verdict {
        match answer {
            Answer::Http { status: 200, .. } => Verdict::Delivered,
            _ => Verdict::Retry { after: None },
        }
    }
    fn success_can_mask(&self) -> bool {
        false
    }
}

/// Never answers.
struct Deaf;

impl Transport for Deaf {
    async fn send(&self, _: Option<&str>, _: Bytes) -> Answer {
        std::future::pending().await
    }
    fn target(&self) -> &str {
        "nowhere"
    }
}

fn batch(line: &str) -> Arc<Batch> {
    let container = ContainerRef::from_path("shop_checkout-0_uid", "api", 0).expect("a path");
    let mut identity = PathIdentity { cluster: "c".to_owned(), node: "n".to_owned(), environment: None };
    let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
        panic!("a path is always known");
    };
    Arc::new(Batch {
        workload,
        path: "0.log".into(),
        start: Position::default(),
        end: Position::default(),
        arena: line.as_bytes().to_vec(),
        records: vec![Record { body: Span::new(0, line.len()), time_unix_nano: 7, ..Record::default() }],
        catching_up: false,
        sealed_unix_nano: 0,
        permit: Budget::new(1 << 20, Arc::default()).reserve(1).expect("fits"),
    })
}

fn refusal(line: &str) -> Refusal {
    let parcel = Parcel { batch: batch(line), from: 0, to: 1 };
    Refusal { parcel, reason: Reason::TooOld, message: "so old".into() }
}

#[test]
fn a_dead_letter_is_one_json_line_with_everything_in_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(DEAD_LETTERS);
    let mut dead = DeadLetters::new(path.clone());
    dead.write("main", &[refusal("a \"quote\"\n\u{1b}[0m")]).expect("written");
    let expected = concat!(
        r#"{"sink":"main","reason":"too_old","message":"so old","cluster":"c","namespace":"shop","#,
        r#""service_name":"checkout","pod":"checkout-0","container":"api","node":"n","stream":"stdout","#,
        r#""time_unix_nano":7,"line":"a \"quote\"\n\u001b[0m"}"#,
        "\n"
    );
    assert_eq!(std::fs::read_to_string(&path).expect("there"), expected);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn dead_letters_keep_at_most_two_files_of_the_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(DEAD_LETTERS);
    let mut dead = DeadLetters::with_limit(path.clone(), 2000);
    for at in 0..50 {
        dead.write("main", &[refusal(&format!("line {at}"))]).expect("written");
    }
    let moved = dir.path().join("dead-letter.jsonl.1");
    for file in [&path, &moved] {
        assert!((1..=2000).contains(&std::fs::metadata(file).expect("there").len()));
    }
    assert!(std::fs::read_to_string(&path).expect("there").ends_with("\"line\":\"line 49\"}\n"));
    assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 2);
    drop(dead);
    let mut again = DeadLetters::with_limit(path.clone(), 2000);
    again.write("main", &[refusal("after a restart")]).expect("written");
    assert!(std::fs::metadata(&path).expect("there").len() <= 2000, "what was there before counts");
}

#[tokio::test]
async fn an_optional_sink_drops_and_counts_what_its_queue_cannot_hold() {
    let config = lane::Config { queue: crate::data::units::ByteSize(100), ..lane::Config::default() };
    let kill = CancellationToken::new();
    let (outlet, task) = spawn("optional-test", Plain, Deaf, config, false, None, kill.clone());
    let running = tokio::spawn(task);
    for _ in 0..5 {
        outlet.offer(Shipment { batch: batch("forty bytes, or very nearly forty bytes."), ticket: None });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(metrics::SINK_RECORDS.with_label_values(&["optional-test", "dropped"]).get(), 3);
    kill.cancel();
    running.await.expect("ends at once");
}

/// Takes what it likes.
struct Picky;

impl Transport for Picky {
    async fn send(&self, _: Option<&str>, body: Bytes) -> Answer {
        let status = if body.starts_with(b"good") { 200 } else { 503 };
        Answer::Http { status, retry_after: None, body: Bytes::new() }
    }
    fn target(&self) -> &str {
        "nowhere"
    }
}

#[tokio::test]
async fn a_success_is_remembered_and_a_sink_that_is_killed_holds_nothing() {
    let kill = CancellationToken::new();
    let last = metrics::SINK_LAST_SUCCESS.with_label_values(&["success-test"]);
    let queue = metrics::SINK_QUEUE_BYTES.with_label_values(&["success-test"]);
    let (outlet, task) =
        spawn("success-test", Plain, Picky, lane::Config::default(), true, None, kill.clone());
    assert!(last.get() > 1_700_000_000, "it begins with now, not with the epoch");
    last.set(1);
    let running = tokio::spawn(task);
    let until = async |holds: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !holds() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(holds());
    };
    outlet.offer(Shipment { batch: batch("bad line"), ticket: None });
    until(&|| queue.get() > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(last.get(), 1, "a refusal is no success");
    kill.cancel();
    running.await.expect("ends at once");
    assert_eq!(queue.get(), 0, "nothing waits here any more");

    let kill = CancellationToken::new();
    let (outlet, task) =
        spawn("success-test", Plain, Picky, lane::Config::default(), true, None, kill.clone());
    assert_eq!(last.get(), 1, "a sink that is started again has not succeeded by that");
    let running = tokio::spawn(task);
    outlet.offer(Shipment { batch: batch("good line"), ticket: None });
    until(&|| last.get() > 1_700_000_000).await;
    drop(outlet);
    running.await.expect("ends when all is sent");
}
