//! The hub by its promises: order, filters, what is left out is told, nothing waits, secrets are covered.

use std::sync::mpsc;

use futures_util::FutureExt as _;
use regex::Regex;

use super::*;
use crate::data::batch::{Record, Span};
use crate::data::budget::Budget;
use crate::data::position::Position;
use crate::data::severity::Severity;
use crate::data::trace::TraceId;
use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use crate::logs::ingest::{LineState, Settings};
use crate::logs::process::{Chain, Config as Rules};

const SECOND: u64 = 1_000_000_000;

fn workload(pod: &str) -> Arc<Workload> {
    let container = ContainerRef::from_path(&format!("shop_{pod}_u1"), "api", 0).expect("a directory");
    let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
    match paths.identify(&container, Duration::ZERO) {
        Identity::Known(workload) => workload,
        Identity::Pending => unreachable!("paths say it all"),
    }
}

fn batch_of(workload: &Arc<Workload>, arena: Vec<u8>, records: Vec<Record>) -> Batch {
    Batch {
        workload: Arc::clone(workload),
        path: "0.log".into(),
        start: Position::default(),
        end: Position::default(),
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: SECOND,
        permit: Budget::new(u64::MAX, Arc::default()).overdraw(0),
    }
}

fn batch(pod: &str, lines: &[&str]) -> Batch {
    let (mut arena, mut records) = (Vec::new(), Vec::new());
    for line in lines {
        let start = arena.len();
        arena.extend_from_slice(line.as_bytes());
        let is_error = line.contains("error");
        records.push(Record {
            time_unix_nano: SECOND + start as u64,
            body: Span::new(start, arena.len()),
            severity: if is_error { Severity::ERROR } else { Severity::INFO },
            trace_id: if is_error { TraceId::new(0xabc) } else { None },
            ..Record::default()
        });
    }
    batch_of(&workload(pod), arena, records)
}

fn offer(hub: &Hub, batch: Batch) {
    hub.outlet().offer(Shipment { batch: Arc::new(batch), ticket: None });
}

/// What waits: each line's text, or how many were left out.
fn shown(subscription: &mut Subscription) -> Vec<String> {
    let text = |item| match item {
        Item::Line(line) => Entry::parse(&line).expect("the store's form").line.into_owned(),
        Item::Skipped(count) => format!("skipped {count}"),
    };
    std::iter::from_fn(|| subscription.try_next()).map(text).collect()
}

#[test]
fn records_come_in_order_and_in_the_stores_form() {
    let hub = Hub::without_ring(Fields::ALL);
    assert!(!hub.outlet().required(), "no file waits for a viewer");
    let mut subscription = hub.subscribe(Filter::default()).expect("the first");
    offer(&hub, batch("checkout-0", &["one"]));
    offer(&hub, batch("checkout-0", &["two", "an error"]));
    let Some(Item::Line(first)) = subscription.try_next() else { panic!("a line") };
    assert_eq!(
        String::from_utf8_lossy(&first),
        r#"{"time":"1970-01-01T00:00:01.000000000Z","cluster":"c","namespace":"shop","pod":"checkout-0","container":"api","restart":0,"node":"n","service_name":"checkout","stream":"stdout","level":"info","line":"one"}"#
    );
    assert_eq!(shown(&mut subscription), ["two", "an error"]);
}

#[test]
fn a_filter_chooses_by_each_of_its_parts() {
    let hub = Hub::without_ring(Fields::ALL);
    let all = Filter::default;
    let of = |text: &str| Some(text.to_owned());
    let cases: [(Filter, &[&str]); 8] = [
        (all(), &["one", "an error", "other"]),
        (Filter { namespace: of("none"), ..all() }, &[]),
        (Filter { pod: of("checkout"), ..all() }, &["one", "an error"]),
        (Filter { container: of("ap"), ..all() }, &[]),
        (Filter { service: of("cart"), container: of("api"), ..all() }, &["other"]),
        (Filter { level: Some(Severity::WARN), ..all() }, &["an error"]),
        (Filter { trace: of("00000000000000000000000000000abc"), ..all() }, &["an error"]),
        (Filter { grep: Regex::new("^o").ok(), ..all() }, &["one", "other"]),
    ];
    let mut viewers: Vec<_> =
        cases.iter().map(|(filter, _)| hub.subscribe(filter.clone()).expect("room for eight")).collect();
    offer(&hub, batch("checkout-0", &["one", "an error"]));
    offer(&hub, batch("cart-0", &["other"]));
    for (viewer, (filter, expected)) in viewers.iter_mut().zip(&cases) {
        assert_eq!(shown(viewer), *expected, "{filter:?}");
    }
}

#[test]
fn without_a_viewer_a_batch_is_not_looked_at() {
    let hub = Hub::without_ring(Fields::ALL);
    drop(hub.subscribe(Filter::default()).expect("one that leaves again"));
    // Whoever looked at the batch would wait for this lock.
    let locked = hub.shared.state.lock();
    let (done, is_done) = mpsc::channel();
    let other = hub.clone();
    let thread = std::thread::spawn(move || {
        offer(&other, batch("checkout-0", &["one"]));
        let _ = done.send(());
    });
    let passed = is_done.recv_timeout(Duration::from_secs(10)).is_ok();
    drop(locked);
    thread.join().expect("no panic");
    assert!(passed, "the batch waited for the hub");
}

#[test]
fn a_slow_viewer_loses_its_oldest_lines_and_is_told_how_many() {
    let hub = Hub::without_ring(Fields::ALL);
    let mut slow = hub.subscribe(Filter::default()).expect("a viewer");
    let mut other = hub.subscribe(Filter { pod: Some("cart".into()), ..Filter::default() }).expect("another");
    let text = "x".repeat(10_000);
    for n in 0..100 {
        offer(&hub, batch("checkout-0", &[&format!("{n} {text}")]));
    }
    offer(&hub, batch("cart-0", &["last"]));
    let seen = shown(&mut slow);
    let skipped: usize = seen[0].strip_prefix("skipped ").expect("told first").parse().expect("a number");
    // 512 KiB hold 51 lines of some 10,250 bytes with their fields.
    assert_eq!((skipped, seen.len()), (49, 53), "100 lines, and one that says what is missing");
    assert!(seen[1].starts_with("49 x") && seen[51].starts_with("99 x") && seen[52] == "last");
    assert_eq!(shown(&mut other), ["last"], "nobody else is told");
}

#[test]
fn who_takes_more_than_its_share_of_the_readers_time_is_told_what_was_not_looked_at() {
    let hub = Hub::with(Fields::ALL, None, Duration::ZERO);
    let mut viewer = hub.subscribe(Filter::default()).expect("a viewer");
    let mut other = hub.subscribe(Filter { pod: Some("cart".into()), ..Filter::default() }).expect("another");
    offer(&hub, batch("checkout-0", &["one", "two", "three"]));
    offer(&hub, batch("checkout-0", &["four"]));
    assert_eq!(shown(&mut viewer), ["skipped 4"]);
    assert_eq!(shown(&mut other), Vec::<String>::new());
}

#[test]
fn who_comes_begins_with_the_last_lines() {
    let hub = Hub::new(Fields::ALL);
    offer(&hub, batch("checkout-0", &["one", "two", "an error"]));
    offer(&hub, batch("cart-0", &["other"]));
    let pod = |pod: &str| Filter { pod: Some(pod.to_owned()), ..Filter::default() };
    let mut viewer = hub.subscribe_from(pod("checkout"), 2).expect("a viewer");
    offer(&hub, batch("checkout-0", &["three"]));
    assert_eq!(shown(&mut viewer), ["two", "an error", "three"]);
    assert_eq!(shown(&mut hub.subscribe(pod("checkout")).expect("another")), Vec::<String>::new());
}

#[test]
fn the_newest_lines_take_a_bounded_place_and_a_bounded_time() {
    let mut ring = Ring::default();
    let line = vec![b'x'; 1_000];
    for second in 1..=4 {
        let mut taken = 0;
        while ring.may_take(second * SECOND) {
            ring.push(&line);
            taken += 1;
        }
        // 512 KiB a second, of 1,064 bytes each.
        assert_eq!(taken, 493);
    }
    assert_eq!(ring.lines.len(), 492);
    assert!(ring.bytes <= RING_BYTES, "{}", ring.bytes);
    ring.push(&vec![b'x'; RING_BYTES]);
    assert_eq!(ring.lines.len(), 492, "one line does not push out all others");
}

#[test]
fn eight_may_watch_and_the_next_one_when_one_leaves() {
    let hub = Hub::new(Fields::ALL);
    let mut viewers: Vec<_> = (0..8).map(|_| hub.subscribe(Filter::default())).collect();
    assert!(viewers.iter().all(Option::is_some));
    assert!(hub.subscribe(Filter::default()).is_none());
    viewers.pop();
    assert!(hub.subscribe(Filter::default()).is_some());
}

#[test]
fn at_the_end_what_waits_is_shown_and_then_the_end() {
    let hub = Hub::new(Fields::ALL);
    let mut viewer = hub.subscribe(Filter::default()).expect("a viewer");
    assert!(viewer.next().now_or_never().is_none(), "it waits");
    offer(&hub, batch("checkout-0", &["one"]));
    hub.close();
    offer(&hub, batch("checkout-0", &["too late"]));
    assert!(matches!(viewer.next().now_or_never(), Some(Some(Item::Line(_)))));
    assert_eq!(viewer.next().now_or_never(), Some(None));
    assert!(hub.subscribe(Filter::default()).is_none(), "nobody comes any more");
}

#[test]
fn a_secret_is_covered_before_a_viewer_sees_its_line() {
    let rules: Rules = toml::from_str("[redact]\nbuiltin = true").expect("valid");
    let chain = Chain::compile(&rules).expect("valid");
    let settings = Settings::new(Fields::ALL, chain, 256 << 10);
    let workload = workload("checkout-0");
    let mut lines = LineState::new(256 << 10);
    let mut arena =
        b"2026-11-22T14:51:07.000000001Z stdout F login with Authorization: Bearer abcdef0123456789abcdef0123456789\n"
            .to_vec();
    let mut records = Vec::new();
    lines.ingest(&settings, &workload, &mut arena, 0, 0, u64::MAX, &mut records);
    let hub = Hub::new(Fields::ALL);
    let mut viewer = hub.subscribe(Filter::default()).expect("a viewer");
    offer(&hub, batch_of(&workload, arena, records));
    let mut late = hub.subscribe_from(Filter::default(), 10).expect("one who comes later");
    for viewer in [&mut viewer, &mut late] {
        let Some(Item::Line(line)) = viewer.try_next() else { panic!("a line") };
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(line.contains("login with Authorization: Bearer [REDACTED:"), "{line}");
        assert!(!line.contains("abcdef0123456789"), "{line}");
    }
}
