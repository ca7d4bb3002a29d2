//! Tests of the ticks.

use std::time::Duration;

use super::*;
use crate::data::sample::{Origin, OriginKind};

fn target(instance: &str, interval: u64) -> Arc<Target> {
    let labels = vec![("instance".to_owned(), instance.to_owned())];
    Arc::new(Target {
        origin: Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() }),
        scheme: Scheme::Http,
        host: "10.0.0.1".to_owned(),
        port: 80,
        path: "/metrics".to_owned(),
        pod: None,
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(interval),
        honor_labels: false,
        honor_timestamps: true,
    })
}

/// Scrapes one target through the whole of a tick. The time of its samples.
fn scrape(schedule: &mut Schedule, now_ms: i64) -> Option<i64> {
    assert!(schedule.turn(now_ms).is_empty());
    let start = schedule.start(now_ms)?;
    assert!(schedule.end(start.id, &start.target, start.kept, true));
    schedule.taken(start.id);
    Some(start.time_unix_ms)
}

/// A schedule of one target of 10 s, and the first tick after 1,000,000.
fn one() -> (Schedule, Arc<Target>, i64) {
    let (mut schedule, target) = (Schedule::default(), target("a", 10_000));
    schedule.apply(&[Arc::clone(&target)], 1_000_000);
    let first = schedule.next_ms().expect("a tick");
    (schedule, target, first)
}

#[test]
fn ticks_are_aligned_and_the_same_in_every_life() {
    let (mut schedule, _, first) = one();
    assert!((1_000_000..1_010_000).contains(&first));
    assert_eq!(scrape(&mut schedule, first - 1), None);
    assert_eq!(scrape(&mut schedule, first), Some(first));
    assert_eq!(scrape(&mut schedule, first + 10_002), Some(first + 10_000), "2 ms are nothing");
    assert_eq!(scrape(&mut schedule, first + 20_003), Some(first + 20_003), "3 ms are told");
    assert_eq!(scrape(&mut schedule, first + 30_000), Some(first + 30_000), "and the grid stays");
    let mut again = Schedule::default();
    again.apply(&[target("a", 10_000)], 7_000_000_000);
    assert_eq!(again.next_ms().map(|at| at % 10_000), Some(first % 10_000));
}

#[test]
fn targets_are_spread_over_the_interval() {
    let mut schedule = Schedule::default();
    let all: Vec<_> = (0..300).map(|n| target(&n.to_string(), 10_000)).collect();
    schedule.apply(&all, 0);
    let mut seconds = [0; 10];
    for Reverse((at, ..)) in &schedule.heap {
        seconds[*at as usize / 1000] += 1;
    }
    // 30 each on average; chance alone leaves less than 10 or more than 60 once in a million.
    assert!(seconds.iter().all(|n| (10..60).contains(n)), "{seconds:?}");
}

#[test]
fn a_scrape_that_still_runs_is_not_doubled() {
    let (mut schedule, _, first) = one();
    schedule.turn(first);
    let start = schedule.start(first).expect("a scrape");
    schedule.turn(first + 10_000);
    assert!(schedule.start(first + 10_000).is_none());
    assert_eq!(schedule.take_skipped(), Skipped::default(), "the tick waits");
    schedule.turn(first + 20_000);
    assert_eq!(schedule.take_skipped(), Skipped { running: 1, behind: 0 });
    schedule.end(start.id, &start.target, start.kept, true);
    assert!(schedule.start(first + 20_005).is_none(), "what came of it has not been taken over");
    schedule.taken(start.id);
    assert_eq!(scrape(&mut schedule, first + 20_010), Some(first + 20_010));
    assert_eq!(scrape(&mut schedule, first + 30_000), Some(first + 30_000));
}

#[test]
fn ticks_that_nobody_could_take_are_counted_and_not_made_up_for() {
    let (mut schedule, _, first) = one();
    schedule.turn(first);
    schedule.turn(first + 35_000);
    assert_eq!(schedule.take_skipped(), Skipped { running: 0, behind: 3 });
    assert_eq!(schedule.start(first + 35_000).map(|start| start.time_unix_ms), Some(first + 35_000));
    assert!(schedule.start(first + 35_000).is_none());
    assert_eq!(schedule.next_ms(), Some(first + 40_000));
}

#[test]
fn a_target_that_went_ends_at_the_first_tick_that_it_missed() {
    let (mut schedule, _, first) = one();
    scrape(&mut schedule, first);
    schedule.apply(&[], first + 1);
    assert_eq!(schedule.len(), 0);
    assert!(schedule.turn(first + 20_999).is_empty());
    let gone = schedule.turn(first + 21_000);
    assert_eq!(gone.iter().map(|gone| gone.time_unix_ms).collect::<Vec<_>>(), [first + 10_000]);
    assert!(schedule.slots.is_empty() && schedule.ids.is_empty() && schedule.heap.is_empty());
}

#[test]
fn a_target_that_comes_back_goes_on() {
    let (mut schedule, target, first) = one();
    scrape(&mut schedule, first);
    schedule.apply(&[], first + 1);
    schedule.apply(&[target], first + 12_000);
    assert_eq!(scrape(&mut schedule, first + 20_000), Some(first + 20_000));
    assert!(schedule.turn(first + 29_999).is_empty());
}

#[test]
fn a_target_that_was_never_scraped_goes_silently() {
    let (mut schedule, _, first) = one();
    schedule.apply(&[], first - 1);
    assert!(schedule.turn(first + 100_000).is_empty());
    assert!(schedule.slots.is_empty());
}

#[test]
fn another_path_with_the_same_labels_is_the_same_target() {
    let (mut schedule, target, first) = one();
    scrape(&mut schedule, first);
    let changed = Arc::new(Target {
        path: "/m".to_owned(),
        origin: Arc::new((*target.origin).clone()),
        ..(*target).clone()
    });
    schedule.apply(&[changed], first + 1);
    assert_eq!(schedule.slots.len(), 1);
    let next = schedule.next_ms().expect("a tick");
    schedule.turn(next);
    let start = schedule.start(next).expect("a scrape");
    assert_eq!(start.target.path, "/m");
    assert!(Arc::ptr_eq(&start.target.origin, &target.origin), "whoever knows its series by it finds them");
}

#[test]
fn other_labels_are_another_target() {
    let (mut schedule, _, first) = one();
    scrape(&mut schedule, first);
    schedule.apply(&[target("b", 10_000)], first + 1);
    assert_eq!((schedule.slots.len(), schedule.len()), (2, 1));
    let gone = schedule.turn(first + 21_000);
    assert_eq!(gone[0].target.origin.label("instance"), Some("a"));
}

#[test]
fn two_targets_with_the_same_labels_are_not_both_scraped() {
    let mut schedule = Schedule::default();
    let other = Arc::new(Target { port: 81, ..(*target("a", 10_000)).clone() });
    schedule.apply(&[target("a", 10_000), other], 0);
    assert_eq!(schedule.len(), 1);
    schedule.turn(10_000);
    assert_eq!(schedule.start(10_000).map(|start| start.target.port), Some(80));
}

#[test]
fn what_fails_while_its_target_goes_is_not_told() {
    let (mut schedule, _, first) = one();
    scrape(&mut schedule, first);
    schedule.turn(first + 10_000);
    let start = schedule.start(first + 10_000).expect("a scrape");
    schedule.apply(&[], first + 10_001);
    assert!(!schedule.end(start.id, &start.target, start.kept, false));
    let gone = schedule.turn(first + 31_000);
    assert_eq!(
        gone[0].time_unix_ms,
        first + 10_000,
        "the tick whose scrape failed is the first that it missed"
    );
}

#[test]
fn a_clock_that_is_set_back_neither_stops_scrapes_nor_turns_times_back() {
    let (mut schedule, _, first) = one();
    assert_eq!(scrape(&mut schedule, first), Some(first));
    let back = first - 3_600_000;
    schedule.set_clock(back);
    let next = schedule.next_ms().expect("a tick");
    assert!((back..back + 10_000).contains(&next));
    assert_eq!(scrape(&mut schedule, next), Some(first + 1));
    assert_eq!(scrape(&mut schedule, next + 10_000), Some(first + 2));
}
