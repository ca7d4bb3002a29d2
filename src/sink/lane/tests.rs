//! The lane against scripted answers, and against a model of a backend that fails at random.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::data::batch::{Batch, Record, Span as Text};
use crate::data::budget::Budget;
use crate::data::delivery::{Ledger, Loss, Totals};
use crate::data::position::Position;
use crate::data::tally::Tally;
use crate::data::workload::{ContainerRef, Workload};
use crate::sink::Lesson;

/// 2026-11-22T14:13:20Z.
const WALL: u64 = 1_795_356_800_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// Streams are pods, tenants are namespaces starting with `tenant`; answers are read by their status.
struct Script {
    masks: bool,
}

impl Wire for Script {
    fn stream(&self, batch: &Batch) -> StreamKey {
        let pod = &batch.workload.container.pod;
        StreamKey(pod.bytes().fold(0, |key, b| key * 256 + u64::from(b)))
    }

    fn tenant<'a>(&'a self, batch: &'a Batch) -> Option<&'a str> {
        batch.workload.tenant.as_deref()
    }

    fn encode(&mut self, _: &[Parcel], _: &mut Vec<u8>) {}

    fn judge(&self, answer: &Answer, _: u64) -> Verdict {
        match answer {
            Answer::Http { status: 204, .. } => Verdict::Delivered,
            Answer::Http { status: 401, .. } => Verdict::Unauthorized,
            Answer::Http { status: 413, .. } => Verdict::Split,
            Answer::Http { status: 206, .. } => Verdict::Partial { refused: 2, message: "two".to_owned() },
            Answer::Http { status: 400, body, .. } => Verdict::Refused {
                reason: Reason::Invalid,
                all: body.as_ref() == b"all",
                message: "no".to_owned(),
            },
            Answer::Http { retry_after, .. } => Verdict::Retry { after: *retry_after },
            _ => Verdict::Retry { after: None },
        }
    }

    fn lesson(&self, answer: &Answer) -> Lesson {
        let mut lesson = Lesson::default();
        match answer {
            Answer::Http { status: 429, body, .. } if body.as_ref() == b"stream" => {
                lesson.scope = Scope::Stream
            }
            Answer::Http { status: 429, .. } => lesson.scope = Scope::Tenant,
            Answer::Http { status: 400, body, .. } => {
                lesson.oldest_unix_nano = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
        lesson
    }

    fn success_can_mask(&self) -> bool {
        self.masks
    }
}

fn http(status: u16, body: &'static str) -> Answer {
    Answer::Http { status, retry_after: None, body: Bytes::from_static(body.as_bytes()) }
}

struct Bench {
    lane: Lane<Script>,
    ledger: Arc<Ledger>,
    budget: Arc<Budget>,
    offset: u64,
}

impl Bench {
    fn new(masks: bool) -> Self {
        Self::with(masks, Config { linger: Span::millis(0), ..Config::default() }, 1)
    }

    fn with(masks: bool, config: Config, seed: u64) -> Self {
        let mut state = seed;
        let random = Box::new(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        });
        Self {
            lane: Lane::new(Script { masks }, config, random),
            ledger: Ledger::new(Position::default(), Arc::default()),
            budget: Budget::new(u64::MAX, Arc::default()),
            offset: 0,
        }
    }

    /// A batch of `records` lines of `length` bytes; the offsets count all records of the bench.
    fn batch(&mut self, pod: &str, tenant: Option<&str>, records: usize, length: usize, time: u64) -> Batch {
        let container = ContainerRef {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            uid: "u".to_owned(),
            container: "api".to_owned(),
            restart: 0,
        };
        let workload = Workload {
            container,
            cluster: "c".to_owned(),
            node: "n".to_owned(),
            service_name: "s".to_owned(),
            service_name_guessed: false,
            service_version: None,
            environment: None,
            labels: Vec::new(),
            attributes: Vec::new(),
            tenant: tenant.map(str::to_owned),
        };
        let records = (0..records)
            .map(|at| {
                self.offset += 1;
                Record {
                    time_unix_nano: time + at as u64,
                    offset: self.offset - 1,
                    body: Text { start: 0, len: length as u32 },
                    ..Record::default()
                }
            })
            .collect();
        Batch {
            workload: Arc::new(workload),
            path: "0.log".into(),
            start: Position::default(),
            end: Position { offset: self.offset, ..Position::default() },
            arena: vec![b'x'; length],
            records,
            catching_up: false,
            sealed_unix_nano: 0,
            permit: self.budget.reserve(1).expect("fits"),
        }
    }

    fn offer_batch(&mut self, batch: Batch, now: Duration) {
        let ticket = self.ledger.issue(batch.end, 1, batch.records.len() as u64, 1).next();
        let offered = self.lane.offer(Shipment { batch: Arc::new(batch), ticket }, now);
        assert_eq!(offered, Offered::Queued);
    }

    fn offer(&mut self, pod: &str, records: usize, now: Duration) {
        let batch = self.batch(pod, None, records, 100, WALL);
        self.offer_batch(batch, now);
    }

    fn next(&mut self, now: Duration) -> Dispatch {
        self.lane.next(now, WALL).expect("something to send")
    }

    /// Makes streams known by having each accepted alone.
    fn introduce(&mut self, pods: &[&str]) {
        for pod in pods {
            self.offer(pod, 1, Duration::ZERO);
            let dispatch = self.next(Duration::ZERO);
            assert_eq!(pods_of(&dispatch), [*pod], "a new stream goes alone");
            self.lane.answer(dispatch.id, &http(204, ""), Duration::ZERO);
        }
    }
}

fn pods_of(dispatch: &Dispatch) -> Vec<String> {
    let mut pods: Vec<String> =
        dispatch.parcels.iter().map(|p| p.batch.workload.container.pod.clone()).collect();
    pods.dedup();
    pods
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn fifty_known_slow_streams_share_one_request() {
    let mut bench = Bench::new(true);
    let pods: Vec<String> = (0..50).map(|at| format!("p{at}")).collect();
    let names: Vec<&str> = pods.iter().map(String::as_str).collect();
    bench.introduce(&names);
    for pod in &names {
        bench.offer(pod, 20, secs(1.0));
    }
    let dispatch = bench.next(secs(1.0));
    assert_eq!((pods_of(&dispatch).len(), dispatch.records), (50, 1000));
    assert!(bench.lane.next(secs(1.0), WALL).is_none());
}

#[test]
fn only_streams_that_cannot_be_refused_share() {
    let mut bench = Bench::new(true);
    bench.introduce(&["known", "other", "behind", "old", "catching", "fast", "ahead"]);
    let hour = 3600 * SECOND;
    bench.offer("known", 2, secs(1.0));
    bench.offer("other", 2, secs(1.0));
    bench.offer("new", 2, secs(1.0));
    let behind = bench.batch("behind", None, 2, 100, WALL - 31 * 60 * SECOND);
    bench.offer_batch(behind, secs(1.0));
    let old = bench.batch("old", None, 2, 100, WALL - 2 * hour);
    bench.offer_batch(old, secs(1.0));
    let ahead = bench.batch("ahead", None, 2, 100, WALL + 6 * 60 * SECOND);
    bench.offer_batch(ahead, secs(1.0));
    let mut catching = bench.batch("catching", None, 2, 100, WALL);
    catching.catching_up = true;
    bench.offer_batch(catching, secs(1.0));
    let fast = bench.batch("fast", None, 100, 16_000, WALL);
    bench.offer_batch(fast, secs(1.0));
    let mut requests = Vec::new();
    while let Some(dispatch) = bench.lane.next(secs(1.0), WALL) {
        requests.push(pods_of(&dispatch));
        bench.lane.answer(dispatch.id, &http(204, ""), secs(1.0));
    }
    requests.sort();
    requests.dedup();
    let expected: [&[&str]; 7] =
        [&["ahead"], &["behind"], &["catching"], &["fast"], &["known", "other"], &["new"], &["old"]];
    assert_eq!(requests, expected);
}

#[test]
fn the_busiest_stream_goes_last() {
    let mut bench = Bench::new(true);
    bench.introduce(&["a", "b", "c"]);
    for (pod, records) in [("a", 5), ("b", 50), ("c", 1)] {
        bench.offer(pod, records, secs(100.0));
    }
    assert_eq!(pods_of(&bench.next(secs(100.0))), ["c", "a", "b"]);
}

#[test]
fn a_stream_has_one_request_under_way_and_keeps_its_order() {
    let mut bench = Bench::new(true);
    bench.offer("a", 3, secs(0.0));
    let first = bench.next(secs(0.0));
    bench.offer("a", 3, secs(0.1));
    assert!(bench.lane.next(secs(9.0), WALL).is_none(), "the first is not answered");
    bench.lane.answer(first.id, &http(204, ""), secs(9.0));
    let second = bench.next(secs(9.0));
    assert_eq!(second.parcels[0].records()[0].offset, 3);
}

#[test]
fn tenants_never_share_a_request() {
    let mut bench = Bench::new(false);
    for (pod, tenant) in [("a", None), ("b", Some("x")), ("c", Some("y")), ("d", Some("x"))] {
        let batch = bench.batch(pod, tenant, 1, 10, WALL);
        bench.offer_batch(batch, secs(0.0));
    }
    let mut seen = Vec::new();
    while let Some(dispatch) = bench.lane.next(secs(0.0), WALL) {
        seen.push((dispatch.tenant.as_deref().map(str::to_owned), pods_of(&dispatch)));
    }
    let pods = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        seen,
        [
            (None, pods(&["a"])),
            (Some("x".to_owned()), pods(&["b", "d"])),
            (Some("y".to_owned()), pods(&["c"]))
        ]
    );
}

#[test]
fn lines_wait_for_company_but_a_full_request_goes_at_once() {
    let mut bench = Bench::with(true, Config::default(), 1);
    bench.offer("a", 1, secs(0.0));
    assert!(bench.lane.next(secs(0.0), WALL).is_none());
    assert_eq!(bench.lane.wake_at(), Some(Duration::from_millis(50)));
    assert!(bench.lane.next(Duration::from_millis(50), WALL).is_some());
    let batch = bench.batch("b", None, 6, 100_000, WALL);
    bench.offer_batch(batch, secs(1.0));
    assert!(bench.lane.next(secs(1.0), WALL).is_some());
}

#[test]
fn one_poison_line_in_550_costs_few_requests() {
    for poison in [0, 1, 274, 275, 300, 548, 549] {
        let mut bench = Bench::new(true);
        bench.offer("a", 550, secs(0.0));
        let mut requests = 0;
        let mut refused = Vec::new();
        while let Some(dispatch) = bench.lane.next(secs(0.0), WALL) {
            requests += 1;
            let bad = dispatch.parcels.iter().flat_map(Parcel::records).any(|record| record.offset == poison);
            let status = if bad { 400 } else { 204 };
            let outcome = bench.lane.answer(dispatch.id, &http(status, ""), secs(0.0));
            refused
                .extend(outcome.refused.iter().flat_map(|r| r.parcel.records().to_vec()).map(|r| r.offset));
        }
        assert_eq!(refused, [poison]);
        assert!(requests <= 14, "{requests} requests for the poison at {poison}");
        let mut totals = Totals {
            read_bytes: 1,
            committed_bytes: 1,
            delivered_records: 549,
            lost_records: 1,
            ..Totals::default()
        };
        // The whole batch stands for one byte of its log: no more of it can be lost.
        let invalid = Loss::Refused(Reason::Invalid).index();
        totals.lost[invalid] = Tally { records: 1, bytes: 1 };
        assert_eq!(bench.ledger.totals(), totals);
        assert!(bench.lane.is_idle());
    }
}

#[test]
fn a_refusal_of_all_needs_no_second_request() {
    let mut bench = Bench::new(true);
    bench.offer("a", 100, secs(0.0));
    let dispatch = bench.next(secs(0.0));
    let outcome = bench.lane.answer(dispatch.id, &http(400, "all"), secs(0.0));
    assert_eq!(outcome.refused.iter().map(|r| r.parcel.records().len()).sum::<usize>(), 100);
    assert!(bench.lane.is_idle());
    assert_eq!(bench.ledger.totals().lost_records, 100);
}

#[test]
fn a_named_oldest_time_decides_without_asking_again() {
    let mut bench = Bench::new(true);
    let batch = bench.batch("a", None, 100, 10, 1_000);
    bench.offer_batch(batch, secs(0.0));
    let dispatch = bench.next(secs(0.0));
    let outcome = bench.lane.answer(dispatch.id, &http(400, "1040"), secs(0.0));
    assert_eq!(outcome.refused.iter().map(|r| r.parcel.records().len()).sum::<usize>(), 40);
    let rest = bench.next(secs(0.0));
    assert_eq!((rest.records, rest.parcels[0].records()[0].time_unix_nano), (60, 1040));
}

#[test]
fn a_refused_shared_request_is_taken_apart_before_anything_is_final() {
    for answer in [http(400, "all"), http(429, "stream"), http(413, "")] {
        let mut bench = Bench::new(true);
        bench.introduce(&["a", "b"]);
        bench.offer("a", 2, secs(1.0));
        bench.offer("b", 2, secs(1.0));
        let shared = bench.next(secs(1.0));
        assert_eq!(pods_of(&shared), ["a", "b"]);
        let outcome = bench.lane.answer(shared.id, &answer, secs(1.0));
        assert!(outcome.refused.is_empty());
        let mut alone: Vec<_> = (0..2).map(|_| pods_of(&bench.next(secs(1.0)))).collect();
        alone.sort();
        assert_eq!(alone, [["a"], ["b"]]);
    }
}

#[test]
fn a_single_record_that_is_too_large_is_refused_for_good() {
    let mut bench = Bench::new(true);
    bench.offer("a", 4, secs(0.0));
    let mut refused = Vec::new();
    while let Some(dispatch) = bench.lane.next(secs(0.0), WALL) {
        let bad = dispatch.parcels.iter().flat_map(Parcel::records).any(|record| record.offset == 2);
        let outcome = bench.lane.answer(dispatch.id, &http(if bad { 413 } else { 204 }, ""), secs(0.0));
        refused.extend(outcome.refused.iter().map(|r| (r.reason, r.parcel.from, r.parcel.to)));
    }
    assert_eq!(refused, [(Reason::TooLarge, 2, 3)]);
    assert_eq!(bench.ledger.totals().delivered_records, 3);
}

#[test]
fn a_rate_limited_stream_waits_while_the_others_go_on() {
    let mut bench = Bench::new(true);
    bench.introduce(&["a", "b"]);
    bench.offer("slow", 2, secs(1.0));
    let lone = bench.next(secs(1.0));
    bench.lane.answer(lone.id, &http(429, "stream"), secs(1.0));
    assert!(bench.lane.is_up());
    bench.offer("a", 2, secs(1.0));
    bench.offer("b", 2, secs(1.0));
    assert_eq!(pods_of(&bench.next(secs(1.0))), ["a", "b"], "at once");
    let wake = bench.lane.wake_at().expect("a backoff");
    assert!(wake > secs(1.0) && wake <= secs(1.5), "{wake:?}");
    assert_eq!(pods_of(&bench.next(wake)), ["slow"]);
}

#[test]
fn a_stream_above_its_burst_sends_less_until_it_fits() {
    let mut bench = Bench::new(true);
    bench.offer("a", 64, secs(0.0));
    let mut now = secs(0.0);
    let mut sizes = Vec::new();
    while !bench.lane.is_idle() {
        let Some(dispatch) = bench.lane.next(now, WALL) else {
            now = bench.lane.wake_at().expect("work is left").max(now);
            continue;
        };
        sizes.push(dispatch.records);
        assert!(sizes.len() < 40, "{sizes:?}");
        let fits = dispatch.records <= 10;
        bench.lane.answer(dispatch.id, &if fits { http(204, "") } else { http(429, "stream") }, now);
    }
    assert_eq!(bench.ledger.totals().delivered_records, 64);
}

#[test]
fn a_failing_endpoint_gets_at_most_one_request_a_second() {
    for answer in [
        http(503, ""),
        http(401, ""),
        http(429, "tenant"),
        Answer::Unreachable { error: "refused".to_owned() },
    ] {
        let mut bench = Bench::new(true);
        for pod in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            bench.offer(pod, 10, secs(0.0));
        }
        let mut now = secs(0.0);
        let mut sent = Vec::new();
        while now < secs(120.0) {
            while let Some(dispatch) = bench.lane.next(now, WALL) {
                sent.push(now);
                bench.lane.answer(dispatch.id, &answer, now);
            }
            now = bench.lane.wake_at().expect("never gives up").max(now);
        }
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= secs(1.0)), "{sent:?}");
        assert!((8..=121).contains(&sent.len()), "{}", sent.len());
        assert!(!bench.lane.is_up());
        assert_eq!(bench.ledger.totals().lost_records, 0);
        while !bench.lane.is_idle() {
            let Some(dispatch) = bench.lane.next(now, WALL) else {
                now = bench.lane.wake_at().expect("work is left").max(now);
                continue;
            };
            bench.lane.answer(dispatch.id, &http(204, ""), now);
        }
        assert!(now < secs(120.0 + 31.0 + 30.0), "back within half a minute: {now:?}");
        assert_eq!(bench.ledger.totals().delivered_records, 80);
        assert!(bench.lane.is_up());
    }
}

#[test]
fn retry_after_is_kept_up_to_five_minutes() {
    for (asked, kept) in [(60, 60), (600, 300)] {
        let mut bench = Bench::new(true);
        bench.offer("a", 1, secs(0.0));
        let dispatch = bench.next(secs(0.0));
        let after = Some(Duration::from_secs(asked));
        let answer = Answer::Http { status: 503, retry_after: after, body: Bytes::new() };
        bench.lane.answer(dispatch.id, &answer, secs(0.0));
        assert_eq!(bench.lane.wake_at(), Some(Duration::from_secs(kept)));
        assert!(bench.lane.next(Duration::from_secs(kept - 1), WALL).is_none());
    }
}

#[test]
fn an_unanswered_request_is_sent_again_as_it_was() {
    let mut bench = Bench::new(true);
    bench.introduce(&["a", "b"]);
    bench.offer("a", 3, secs(1.0));
    bench.offer("b", 3, secs(1.0));
    let shape = |d: &Dispatch| {
        d.parcels.iter().map(|p| (Arc::as_ptr(&p.batch).addr(), p.from, p.to)).collect::<Vec<_>>()
    };
    let first = bench.next(secs(1.0));
    bench.lane.answer(first.id, &Answer::Unreachable { error: "reset".to_owned() }, secs(1.0));
    bench.offer("a", 3, secs(1.0));
    let again = bench.next(secs(9.0));
    assert_eq!(shape(&first), shape(&again));
}

#[test]
fn a_partial_success_counts_and_is_never_repeated() {
    let mut bench = Bench::new(false);
    bench.offer("a", 5, secs(0.0));
    let dispatch = bench.next(secs(0.0));
    let outcome = bench.lane.answer(dispatch.id, &http(206, ""), secs(0.0));
    assert_eq!((outcome.delivered, outcome.partial), (3, Some((2, "two".to_owned()))));
    assert!(bench.lane.is_idle());
    let totals = bench.ledger.totals();
    assert_eq!((totals.delivered_records, totals.lost_records), (3, 2));
}

#[test]
fn an_optional_sink_drops_what_exceeds_its_queue() {
    let mut bench = Bench::with(true, Config { queue: ByteSize(250), ..Config::default() }, 1);
    let mut offers = Vec::new();
    for _ in 0..3 {
        let batch = bench.batch("a", None, 7, 100, WALL);
        offers.push(bench.lane.offer(Shipment { batch: Arc::new(batch), ticket: None }, secs(0.0)));
    }
    assert_eq!(offers, [Offered::Queued, Offered::Queued, Offered::Dropped { records: 7 }]);
    assert_eq!(bench.lane.held_bytes(), 200);
}

#[test]
fn after_an_outage_streams_prove_themselves_again() {
    let mut bench = Bench::new(true);
    bench.introduce(&["a", "b"]);
    bench.offer("a", 1, secs(1.0));
    let mut now = secs(1.0);
    for _ in 0..4 {
        let dispatch = bench.next(now);
        bench.lane.answer(dispatch.id, &http(503, ""), now);
        now = bench.lane.wake_at().expect("retries");
    }
    let dispatch = bench.next(now);
    bench.lane.answer(dispatch.id, &http(204, ""), now);
    bench.offer("a", 1, now);
    bench.offer("b", 1, now);
    assert_eq!(pods_of(&bench.next(now)), ["a"], "accepted since");
    assert_eq!(pods_of(&bench.next(now)), ["b"]);
}

/// A backend that stores, refuses and fails at random, and keeps the books.
struct Model {
    stored: BTreeMap<u64, u32>,
    first_stored: Vec<(String, u64)>,
    random: u64,
}

impl Model {
    fn roll(&mut self, sides: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % sides
    }

    fn is_poison(offset: u64) -> bool {
        offset % 97 == 13
    }

    fn take(&mut self, dispatch: &Dispatch) -> bool {
        let mut refused = false;
        for parcel in &dispatch.parcels {
            for record in parcel.records() {
                if Self::is_poison(record.offset) {
                    refused = true;
                    continue;
                }
                let copies = self.stored.entry(record.offset).or_insert(0);
                *copies += 1;
                if *copies == 1 {
                    self.first_stored.push((parcel.batch.workload.container.pod.clone(), record.offset));
                }
            }
        }
        refused
    }

    fn answer(&mut self, dispatch: &Dispatch, faulty: bool) -> Answer {
        if faulty {
            match self.roll(10) {
                0 => return http(503, ""),
                1 => return http(429, "stream"),
                2 => return http(429, "tenant"),
                3 => return Answer::Unreachable { error: "refused".to_owned() },
                4 => {
                    self.take(dispatch);
                    return Answer::Unreachable { error: "acknowledgement lost".to_owned() };
                }
                5 if dispatch.records > 1 => return http(413, ""),
                6 => return http(401, ""),
                _ => {}
            }
        }
        if self.take(dispatch) { http(400, "") } else { http(204, "") }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_answers_every_record_is_settled_once(seed in 1_u64.., masks: bool, rounds in 1_usize..60) {
        let mut bench = Bench::with(masks, Config { linger: Span::millis(20), ..Config::default() }, seed);
        let mut model = Model { stored: BTreeMap::new(), first_stored: Vec::new(), random: seed };
        let mut now = Duration::ZERO;
        let mut under_way: Vec<Dispatch> = Vec::new();
        let mut refused = BTreeSet::new();
        let mut delivered = 0;
        let mut steps = 0;
        for round in 0.. {
            if round < rounds {
                let pod = ["a", "b", "c", "d", "e"][model.roll(5) as usize];
                let tenant = (pod == "e").then_some("other");
                let (records, length) = (model.roll(300) as usize, model.roll(4000) as usize);
                let mut batch = bench.batch(pod, tenant, records, length, WALL);
                batch.catching_up = model.roll(4) == 0;
                bench.offer_batch(batch, now);
            } else if bench.lane.is_idle() {
                break;
            }
            let faulty = round < rounds + 30;
            while let Some(dispatch) = bench.lane.next(now, WALL) {
                under_way.push(dispatch);
                steps += 1;
            }
            prop_assert!(steps < 100_000, "does not end");
            prop_assert!(bench.lane.wake_at().is_none_or(|wake| wake > now), "spins");
            if !under_way.is_empty() && model.roll(3) > 0 {
                let at = model.roll(under_way.len() as u64) as usize;
                let dispatch = under_way.swap_remove(at);
                let answer = model.answer(&dispatch, faulty);
                let outcome = bench.lane.answer(dispatch.id, &answer, now);
                delivered += outcome.delivered;
                for refusal in outcome.refused {
                    for record in refusal.parcel.records() {
                        prop_assert!(refused.insert(record.offset), "refused twice");
                    }
                }
            } else if let Some(wake) = bench.lane.wake_at() {
                now = now.max(wake) + Duration::from_millis(1);
            } else {
                prop_assert!(!under_way.is_empty() || round < rounds || bench.lane.is_idle(), "stuck");
            }
        }
        let poison: BTreeSet<u64> = (0..bench.offset).filter(|offset| Model::is_poison(*offset)).collect();
        prop_assert_eq!(&refused, &poison);
        prop_assert_eq!(model.stored.len() as u64, bench.offset - poison.len() as u64);
        prop_assert_eq!(delivered, model.stored.len() as u64);
        let totals = bench.ledger.totals();
        prop_assert_eq!(totals.lost_records, poison.len() as u64);
        prop_assert_eq!(totals.delivered_records, delivered);
        prop_assert_eq!(bench.ledger.in_flight_bytes(), 0);
        prop_assert_eq!(bench.lane.held_bytes(), 0);
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for (pod, offset) in &model.first_stored {
            let before = last.insert(pod, *offset);
            prop_assert!(before.is_none_or(|before| before < *offset), "out of order in {}", pod);
        }
    }
}
