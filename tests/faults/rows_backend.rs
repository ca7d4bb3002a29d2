//! Rows 24 to 30, 39, 46 and 47: backends that are down, refuse, lie or hang, and storms.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::gate::{Gate, Way};
use crate::node::{Container, Load, Rotation};
use crate::oracle::Tally;
use crate::report::{Pass, Row};
use crate::rig::{Outcome, Rig, Scale, Setup};
use crate::support::agent::Settings;
use crate::support::cri_writer::Pipe;
use crate::support::fake_loki::{Fault, Limits};

/// Neither a stream nor a tenant is limited, unless the row says so.
pub fn boundless() -> Limits {
    Limits { tenant_rate: (1e9, 1e9), stream_rate: (1e9, 1e9), ..Limits::default() }
}

/// A sink whose way leads through `gate`.
pub fn through(gate: &Gate, keys: &str) -> Option<String> {
    Some(format!("[sink.loki.main]\nurl = \"{}\"\n{keys}\n", gate.url()))
}

/// Lines in the agent's file of refused lines.
pub fn dead_letters(rig: &Rig) -> Vec<serde_json::Value> {
    let file = rig.agent.directory().join("state/dead-letter.jsonl");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON document a line")).collect()
}

/// Bytes in the files of the agent's state directory that belong to its spill.
fn spilled_on_disk(rig: &Rig) -> u64 {
    let (mut sum, mut left) = (0, vec![rig.agent.directory().join("state")]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_string_lossy().contains("spill") {
                sum += entry.metadata().map_or(0, |meta| meta.len());
            }
        }
    }
    sum
}

/// A time of the past as a CRI record's stamp.
pub fn stamp_ago(nanos: i128) -> String {
    let at = jiff::Timestamp::now().as_nanosecond() - nanos;
    let at = jiff::Timestamp::from_nanosecond(at).expect("a time of this century");
    at.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

pub const SECOND: i128 = 1_000_000_000;
pub const HOUR: i128 = 3600 * SECOND;

/// While containers go on writing: how fast the agent catches up, in lines per second, from the first line that arrives
/// after the fault until it is at most a second behind.
fn catch_up(rig: &Rig, limit: Duration) -> Option<f64> {
    let before = rig.oracle.distinct();
    if !rig.wait(limit, || rig.oracle.distinct() > before) {
        return None;
    }
    let (began, from) = (Instant::now(), rig.oracle.distinct());
    let second = rig.scale.load().lines_per_second;
    if !rig.wait(limit, || rig.oracle.written() - rig.oracle.distinct() <= second) {
        return None;
    }
    Some((rig.oracle.distinct() - from) as f64 / began.elapsed().as_secs_f64().max(0.01))
}

#[test]
fn row_24_backend_down() {
    let scale = Scale::of_run();
    let outage = scale.time(3000);
    let mut row = Row::begin(
        24,
        "Backend down",
        format!("connections refused, then packets swallowed, {outage:?} each"),
    );
    let gate = Gate::start();
    let keys = "timeouts.connect = \"1s\"\ntimeouts.total = \"2s\"\ntimeouts.idle = \"1s\"";
    let mut rig = Rig::start(Setup { sink: through(&gate, keys), ..Setup::default() });
    gate.lead_to(&rig.loki.url());
    let mut slowest = Duration::ZERO;
    for way in [Way::Refused, Way::BlackHole] {
        rig.node.start();
        row.check(
            rig.wait(scale.settle(), || rig.oracle.distinct() > 500),
            "nothing arrives before the fault",
        );
        gate.set(way);
        std::thread::sleep(outage);
        let ready = rig.agent.get("/health/live").map_or(0, |answer| answer.0);
        row.check(ready == 200, format!("{way:?}: liveness answers {ready}"));
        gate.set(Way::Through);
        let end = Instant::now();
        let rate = catch_up(&rig, scale.settle().max(Duration::from_secs(45)));
        rig.node.pause();
        slowest = slowest.max(end.elapsed());
        let load = scale.load().lines_per_second as f64;
        row.note(format!("{way:?}: caught up at {:.1} times the load", rate.unwrap_or(0.0) / load));
        row.check(
            rate.is_some_and(|rate| rate >= 5.0 * load),
            format!("{way:?}: caught up at {rate:?} lines/s"),
        );
        row.check(rig.wait_arrived(scale.settle()), format!("{way:?}: lines are missing afterwards"));
    }
    rig.fault_ends();
    let outcome = rig.settle();
    let spilled = outcome.rose("nodewick_spill_written_bytes_total");
    row.note(format!("recovered within {:.1} s", slowest.as_secs_f64()));
    // The longest wait of the backoff is 30 s.
    row.check(slowest <= Duration::from_secs(32), format!("recovery took {slowest:?}"));
    row.check(
        scale.soak || spilled == 0.0,
        format!("{spilled} bytes were spilled though no rotation endangered them"),
    );
    row.finish(&outcome, Pass::default());
}

/// Rotations delete undelivered lines during the outage, so that it must spill. What it then does, with the row.
fn row_24_that_spills(mut row: Row, kill: bool) {
    let scale = Scale::of_run();
    let gate = Gate::start();
    let load =
        Load { containers: scale.pick(4, 100), lines_per_second: scale.pick(1200, 20_000), ..scale.load() };
    let outage = scale.time(6000);
    // Eight times during the outage, at about 300 bytes a line.
    let of_log = outage.as_secs() * load.lines_per_second / load.containers as u64 * 300;
    let max_bytes = scale.pick(64 << 10, of_log / 8);
    let rotation = Rotation { max_bytes, every: Duration::from_millis(200) };
    // Generations are small here, so looks are frequent: each file of a log takes one.
    let agent = Settings {
        agent: scale.pick("memory = \"1MiB\"", "").to_owned(),
        logs: scale.pick("per_log = \"128KiB\"\ntick = \"50ms\"", "").to_owned(),
        ..Settings::default()
    };
    // A full request goes at once: as large beside a log's share of the memory as by default.
    let keys = scale.pick("limits.max_request = \"128KiB\"", "");
    let keys = format!("timeouts.connect = \"1s\"\ntimeouts.total = \"2s\"\n{keys}");
    let setup =
        Setup { load, rotation: Some(rotation), agent, sink: through(&gate, &keys), ..Setup::default() };
    let mut rig = Rig::start(setup);
    gate.lead_to(&rig.loki.url());
    rig.node.start();
    row.check(rig.wait(scale.settle(), || rig.oracle.distinct() > 500), "nothing arrives before the fault");
    gate.set(Way::Refused);
    let before = rig.node.rotations();
    std::thread::sleep(outage);
    let during = (rig.node.rotations() - before) / load.containers;
    if kill {
        rig.kill();
        rig.launch();
        rig.agent.wait_ready();
        std::thread::sleep(Duration::from_millis(500));
    }
    let metric = |rig: &Rig, name| rig.agent.metric(name).unwrap_or(0.0);
    let spilled =
        if kill { spilled_on_disk(&rig) as f64 } else { metric(&rig, "nodewick_spill_written_bytes_total") };
    gate.set(Way::Through);
    let began = Instant::now();
    let rate = if kill { None } else { catch_up(&rig, scale.settle().max(Duration::from_secs(40))) };
    rig.node.pause();
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(45)), Duration::from_secs(3));
    let empty = rig.wait(Duration::from_secs(6), || metric(&rig, "nodewick_spill_bytes") == 0.0);
    row.note(format!(
        "{during} rotations of each log meanwhile, {spilled} bytes spilled; caught up at {:.1} times the load, all within {:.1} s",
        rate.unwrap_or(0.0) / load.lines_per_second as f64,
        began.elapsed().as_secs_f64(),
    ));
    for notice in rig.oracle.notices().iter().take(3) {
        row.note(format!("told: {}", notice.line));
    }
    row.check(during > 4, format!("only {during} rotations: nothing undelivered was deleted"));
    row.check(spilled > 0.0, "nothing was spilled");
    row.check(empty && spilled_on_disk(&rig) == 0, format!("{} bytes stay spilled", spilled_on_disk(&rig)));
    let fast = kill || rate.is_some_and(|rate| rate >= 5.0 * load.lines_per_second as f64);
    row.check(fast, format!("caught up at {rate:?} lines/s"));
    // Over the backoff's longest wait.
    row.finish(&outcome, Pass { recovery: Duration::from_secs(40), ..Pass::default() });
}

#[test]
fn row_24_backend_down_while_rotations_delete() {
    let injected = "connections refused, the kubelet deletes what was not delivered";
    let row = Row::begin(24, "Backend down", injected).part("spill");
    row_24_that_spills(row, false);
}

#[test]
fn row_24_backend_down_while_rotations_delete_and_a_kill() {
    let injected = "connections refused, the kubelet deletes what was not delivered, kill -9";
    let row = Row::begin(24, "Backend down", injected).part("killed");
    row_24_that_spills(row, true);
}

#[test]
fn row_25_the_whole_backend_refuses() {
    let scale = Scale::of_run();
    let mut row =
        Row::begin(25, "Global 429 with and without Retry-After, 503, 500", "each for a while, under load");
    let mut rig = Rig::start(Setup::default());
    let faults = [
        (429, Some("2"), "too many requests"),
        (
            429,
            None,
            "ingestion rate limit exceeded for user fake (limit: 20971 bytes/sec) while attempting to ingest '30' lines totaling '23750' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased",
        ),
        (503, None, "no healthy upstream"),
        (500, None, "empty ring"),
    ];
    rig.node.start();
    for (status, after, text) in faults {
        let before = rig.oracle.distinct();
        let flows = rig.wait(Duration::from_secs(35), || rig.oracle.distinct() > before + 200);
        row.check(flows, format!("{status}: nothing arrives before the fault"));
        rig.loki.forget_requests();
        rig.loki.set_fault(Some(Fault::Status(status, after, text)));
        std::thread::sleep(scale.time(2800));
        let seen: Vec<_> = rig.loki.requests().into_iter().filter(|seen| seen.status == status).collect();
        rig.loki.set_fault(None);
        let Some(first) = seen.first().map(|seen| seen.at) else {
            row.check(false, format!("{status}: no request was refused"));
            continue;
        };
        // Those that were under way when the first answer came do not count: at most three others.
        let later: Vec<_> = seen.iter().filter(|seen| seen.at - first > Duration::from_millis(150)).collect();
        row.check(seen.len() - later.len() <= 4, format!("{status}: {} requests at once", seen.len()));
        let gaps = std::iter::once(first).chain(later.iter().map(|seen| seen.at)).collect::<Vec<_>>();
        let least = gaps.windows(2).map(|pair| pair[1] - pair[0]).min();
        row.note(format!("{status} {after:?}: {} requests, at least {least:?} apart", seen.len()));
        row.check(
            least.is_none_or(|least| least >= Duration::from_millis(850)),
            format!("{status}: requests {least:?} apart"),
        );
        if let Some(seconds) = after.and_then(|text| text.parse().ok()) {
            let wait = Duration::from_secs(seconds) - Duration::from_millis(20);
            row.check(least.is_none_or(|least| least >= wait), format!("Retry-After {seconds}: {least:?}"));
        }
    }
    rig.node.pause();
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(35)), Duration::from_secs(3));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_26_one_stream_is_refused_for_its_rate() {
    let scale = Scale::of_run();
    let mut row =
        Row::begin(26, "429 for one stream only", "one stream limited to a third of what it writes");
    let mut rig = Rig::start(Setup::default());
    let loud = rig.node.add("limited", "limited", 9000, "main");
    loud.set_rate(300.0);
    let others = |index: usize| index != loud.index;
    rig.load_for(Duration::from_secs(1));
    rig.wait_arrived(scale.settle());
    rig.oracle.forget_latencies();
    rig.load_for(scale.time(2500));
    rig.wait_arrived(scale.settle());
    let baseline = rig.oracle.latency(others);
    rig.oracle.forget_latencies();
    rig.loki.forget_requests();
    rig.loki.limit(|limits| limits.stream_rates = vec![("namespace=\"limited\"".into(), (30e3, 60e3))]);
    rig.load_for(scale.time(4000));
    rig.wait(scale.settle(), || {
        rig.node.containers().iter().filter(|one| one.index != loud.index).all(|one| {
            let (written, arrived) = rig.oracle.of(one.index);
            written == arrived
        })
    });
    let during = rig.oracle.latency(others);
    let refused = rig.loki.requests().iter().filter(|seen| seen.status == 429).count();
    let behind = rig.oracle.of(loud.index);
    rig.loki.limit(|limits| limits.stream_rates.clear());
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(40)), Duration::from_secs(3));
    row.note(format!(
        "others' p99 {} ms, before {} ms; {refused} × 429, the limited stream was {} lines behind",
        during.p99_millis,
        baseline.p99_millis,
        behind.0 - behind.1
    ));
    row.check(refused > 0 && behind.0 > behind.1, "the limit was not met");
    // A look every 200 ms and 50 ms of linger are what a line waits at most when nothing is wrong.
    let allowed = 2 * baseline.p99_millis.max(250);
    row.check(during.p99_millis <= allowed, format!("others: {during:?}, before {baseline:?}"));
    // What shared a push with the refused stream is sent again.
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_27_poison_lines() {
    let scale = Scale::of_run();
    let every = scale.pick(500, 10_000);
    let mut row =
        Row::begin(27, "Poison line", format!("a request with such a line is a 400, one line in {every}"));
    let limits = Limits { poison: Some("POISON-"), ..boundless() };
    let mut rig = Rig::start(Setup { limits, ..Setup::default() });
    let time = scale.time(3500);
    rig.load_for(Duration::from_secs(1));
    rig.wait_arrived(scale.settle());
    rig.oracle.forget_latencies();
    rig.loki.forget_requests();
    rig.load_for(time);
    rig.wait_arrived(scale.settle());
    let victim = rig.node.container(0);
    let clean = (rig.loki.requests().len(), rig.oracle.latency(|index| index == victim.index));
    rig.oracle.forget_latencies();
    rig.loki.forget_requests();
    let poisons = time.as_millis() as u64 * scale.load().lines_per_second / 1000 / every;
    rig.node.start();
    for number in 0..poisons {
        std::thread::sleep(time / poisons as u32);
        let text = format!("POISON-{number} this line is refused");
        victim.log.write_line(Pipe::Stdout, text.as_bytes()).expect("written");
    }
    rig.node.pause();
    rig.fault_ends();
    rig.wait_arrived(scale.settle());
    let requests = rig.loki.requests().len();
    let held_up = rig.oracle.latency(|_| true);
    let outcome = rig.settle();
    let letters = dead_letters(&rig);
    let extra = requests.saturating_sub(clean.0) as u64 / poisons.max(1);
    let counted = outcome.rose("nodewick_records_lost_total") as u64;
    row.note(format!(
        "{poisons} poisons, {extra} extra requests each; longest latency {} ms, before {} ms",
        held_up.max_millis, clean.1.max_millis
    ));
    row.check(letters.len() as u64 == poisons, format!("{} dead letters", letters.len()));
    let theirs =
        |letter: &serde_json::Value| letter["line"].as_str().is_some_and(|line| line.starts_with("POISON-"));
    row.check(letters.iter().all(theirs), "a line that is no poison is among the dead letters");
    row.check(counted == poisons, format!("{counted} counted as lost"));
    row.check(extra <= 20, format!("{extra} extra requests a poison"));
    row.check(
        held_up.max_millis <= clean.1.max_millis + 1000,
        format!("lines waited {} ms, before {} ms", held_up.max_millis, clean.1.max_millis),
    );
    row.finish(&outcome, Pass { duplicated: None, ..Pass::default() });
}

#[test]
fn row_28_answers_that_mix_what_to_do() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        28,
        "Mixed 400 and 429, partial accept, 413",
        "one stream over its rate with lines that are too old and too far behind; requests above 12 kB are a 413",
    );
    let slow = ("namespace=\"mixed\"".to_owned(), (25e3, 25e3));
    let limits = Limits { shard_streams: false, stream_rates: vec![slow], max_body: 12_000, ..boundless() };
    let mut rig = Rig::start(Setup { limits, ..Setup::default() });
    rig.oracle.accept_foreign(|text| text.starts_with("STALE-") || text.starts_with("BEHIND-"));
    let hand = rig.node.add("mixed", "mixed", 9001, "main");
    rig.node.start();
    let end = Instant::now() + scale.time(3500);
    let (mut number, mut stale) = (0, 0);
    while Instant::now() < end {
        hand.write();
        number += 1;
        let old = match number % 60 {
            20 => Some((8 * 24 * HOUR, "STALE")),
            40 => Some((2 * HOUR, "BEHIND")),
            _ => None,
        };
        if let Some((ago, what)) = old {
            let line = format!("{} stdout F {what}-{number}\n", stamp_ago(ago));
            hand.log.write_raw(line.as_bytes()).expect("written");
            stale += 1;
        }
        std::thread::sleep(Duration::from_millis(6));
    }
    rig.node.pause();
    let seen = rig.loki.requests();
    rig.loki.limit(|limits| (limits.stream_rates.clear(), limits.max_body = 100 << 20).1);
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(40)), Duration::from_secs(3));
    let with = |status: u16| seen.iter().filter(|seen| seen.status == status).count();
    let part = |seen: &&crate::support::fake_loki::Seen| {
        let ignored = seen.text.rsplit_once("total ignored: ").and_then(|(_, rest)| {
            let (ignored, rest) = rest.split_once(" out of ")?;
            Some((ignored.to_owned(), rest.split(' ').next()?.to_owned()))
        });
        ignored.is_some_and(|(ignored, of)| ignored != of)
    };
    let parts = seen.iter().filter(part).count();
    row.note(format!(
        "{} × 400, {} × 429, {} × 413, {parts} of them took a part",
        with(400),
        with(429),
        with(413)
    ));
    row.check(with(400) > 0 && with(429) > 0 && with(413) > 0 && parts > 0, "not every case was met");
    let letters = dead_letters(&rig);
    let own = |letter: &&serde_json::Value| letter["line"].as_str().is_some_and(|line| line.starts_with('{'));
    let wrong = letters.iter().filter(own).count();
    let counted = outcome.rose("nodewick_records_lost_total") as u64;
    let arrived = rig.oracle.foreign().len() as u64;
    row.check(wrong == 0, format!("{wrong} retryable lines are dead letters"));
    row.check(
        letters.len() as u64 == stale && counted == stale && arrived == 0,
        format!(
            "{stale} refused lines: {} dead letters, {counted} counted, {arrived} arrived",
            letters.len()
        ),
    );
    // A backend that takes a smaller line behind a larger one that it refuses has itself changed their order.
    row.finish(&outcome, Pass { reordered: u64::MAX, ..Pass::default() });
}

#[test]
fn row_29_answers_that_never_end() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        29,
        "Accept and hang, 1 B/s, header flood, huge body",
        "each for a while; timeouts of 2 s instead of 30 s",
    );
    let defaults = nodewick::sink::http::Timeouts::default();
    row.check(
        [defaults.connect.0, defaults.total.0, defaults.idle.0].map(|span| span.as_secs()) == [5, 30, 10],
        format!("defaults: {defaults:?}"),
    );
    let gate = Gate::start();
    let keys = "timeouts.connect = \"1s\"\ntimeouts.total = \"2s\"\ntimeouts.idle = \"1500ms\"";
    let load = Load { lines_per_second: scale.pick(400, 20_000), ..scale.load() };
    // The first round fills what may be in flight, so that a longer one of the others holds no more.
    let agent = Settings {
        agent: scale.pick("memory = \"1MiB\"", "").to_owned(),
        logs: scale.pick("per_log = \"32KiB\"", "").to_owned(),
        ..Settings::default()
    };
    let mut rig = Rig::start(Setup { load, agent, sink: through(&gate, keys), ..Setup::default() });
    gate.lead_to(&rig.loki.url());
    rig.node.start();
    // A first round without the fault, so that what an outage holds in memory is not charged to the answers.
    gate.set(Way::Refused);
    std::thread::sleep(scale.time(3000));
    gate.set(Way::Through);
    let flows = |rig: &Rig| {
        let before = rig.oracle.distinct();
        rig.wait(Duration::from_secs(35), || rig.oracle.distinct() > before + 100)
    };
    row.check(flows(&rig), "nothing arrives before the fault");
    let base = rig.peak_rss_bytes();
    for way in [Way::Drip, Way::HeaderFlood, Way::HugeBody] {
        gate.set(way);
        std::thread::sleep(scale.time(1500));
        rig.wait(Duration::from_secs(15), || gate.was_given_up());
        let (connections, longest) = gate.take_held();
        gate.set(Way::Through);
        row.note(format!("{way:?}: {connections} connections, held {:.1} s at most", longest.as_secs_f64()));
        row.check(connections > 0, format!("{way:?}: nobody connected"));
        row.check(longest > Duration::ZERO, format!("{way:?}: no slot was freed"));
        row.check(longest <= Duration::from_secs(3), format!("{way:?}: a slot was held for {longest:?}"));
        row.check(flows(&rig), format!("{way:?}: nothing arrives afterwards"));
    }
    rig.loki.set_fault(Some(Fault::Hang));
    rig.loki.forget_requests();
    // Four requests hang at once at most; one that comes later has the slot of one that was given up.
    let freed = rig.wait(Duration::from_secs(15), || {
        let seen = rig.loki.requests();
        seen.first()
            .zip(seen.last())
            .is_some_and(|(first, last)| last.at - first.at > Duration::from_millis(1500))
    });
    row.check(freed, "hang: no slot was freed");
    rig.loki.set_fault(None);
    row.check(flows(&rig), "hang: nothing arrives afterwards");
    rig.node.pause();
    rig.fault_ends();
    let grown = rig.peak_rss_bytes().saturating_sub(base);
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(35)), Duration::from_secs(3));
    row.note(format!("RSS +{} KiB", grown >> 10));
    row.check(grown <= 8 << 20, format!("RSS grew by {} KiB", grown >> 10));
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_30_acknowledgements_that_are_lost() {
    let scale = Scale::of_run();
    let times = scale.pick(4, 40);
    let mut row = Row::begin(30, "Ack lost after commit", format!("stored, then a TCP reset, {times} times"));
    let mut rig = Rig::start(Setup { keep: true, ..Setup::default() });
    rig.node.start();
    for _ in 0..times {
        std::thread::sleep(scale.pick(Duration::from_millis(2400), Duration::from_secs(20)) / times);
        let before = rig.oracle.distinct();
        rig.loki.inject([Fault::AckReset]);
        rig.wait(Duration::from_secs(10), || rig.oracle.distinct() > before + 100);
    }
    rig.node.pause();
    rig.fault_ends();
    let outcome = rig.settle();
    // A request that came again came with the same bytes, and nothing else was sent twice.
    let mut bodies: HashMap<_, (u64, u64)> = HashMap::new();
    for seen in rig.loki.requests() {
        let records: usize = seen.streams.iter().map(|(_, records)| records).sum();
        let entry = bodies.entry(seen.body.clone()).or_default();
        *entry = (entry.0 + 1, records as u64);
    }
    let again: Vec<_> = bodies.values().filter(|(times, _)| *times > 1).collect();
    let resent: u64 = again.iter().map(|(times, records)| (times - 1) * records).sum();
    let largest = bodies.values().map(|(_, records)| *records).max().unwrap_or(0);
    row.note(format!("{} requests came again, {resent} lines in them", again.len()));
    row.check(!again.is_empty(), "no request came again");
    row.check(
        resent == outcome.tally.duplicated,
        format!("{resent} lines in identical requests, {} received twice", outcome.tally.duplicated),
    );
    let allowed = largest * u64::from(times);
    row.finish(&outcome, Pass { duplicated: Some(allowed), ..Pass::default() });
}

#[test]
fn row_39_log_storm() {
    let scale = Scale::of_run();
    let mut row =
        Row::begin(39, "Log storm", "one container as fast as the machine writes, Loki's own limits");
    let quiet = scale.pick(20, 99);
    let load = Load { containers: quiet, lines_per_second: quiet as u64 * 5, ..scale.load() };
    let rotation = Rotation { max_bytes: scale.pick(2 << 20, 10 << 20), every: Duration::from_millis(100) };
    // The backend has room for everybody but one: its limit of a stream is Loki's default.
    let limits = Limits { tenant_rate: (1e9, 1e9), ..Limits::default() };
    let mut rig = Rig::start(Setup { load, rotation: Some(rotation), limits, ..Setup::default() });
    let storm = rig.node.add("storm", "storm", 9002, "main");
    rig.load_for(Duration::from_millis(700));
    rig.wait_arrived(scale.settle());
    rig.oracle.forget_latencies();
    rig.node.start();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (storm, stop) = (Arc::clone(&storm), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                storm.write_sized(2000);
            }
        })
    };
    let (began, time) = (Instant::now(), scale.time(1800));
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the storm's writer");
    let bytes = storm.written() as f64 * 2100.0;
    let rate = bytes / began.elapsed().as_secs_f64() / 1e6;
    rig.node.pause();
    let is_quiet = |index: usize| index != storm.index;
    let all_quiet = |rig: &Rig| {
        rig.node.containers().iter().filter(|one| one.index != storm.index).all(|one: &Arc<Container>| {
            let (written, arrived) = rig.oracle.of(one.index);
            written == arrived
        })
    };
    row.check(rig.wait(Duration::from_secs(5), || all_quiet(&rig)), "lines of quiet containers are missing");
    let latency = rig.oracle.latency(is_quiet);
    rig.loki.limit(|limits| limits.stream_rate = (1e9, 1e9));
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(60)), Duration::from_secs(3));
    let lost = rig.oracle.lost(storm.index);
    let bytes: u64 = lost.iter().map(|(_, bytes)| bytes).sum();
    let told = outcome.rose("nodewick_log_lost_bytes_total") + outcome.rose("nodewick_log_gaps_total");
    row.note(format!(
        "the storm wrote {rate:.0} MB/s for {time:?}; quiet p99 {} ms; the storm lost {} lines, {bytes} bytes, told {told}",
        latency.p99_millis,
        lost.len()
    ));
    row.check(latency.p99_millis <= 2000, format!("quiet containers: {latency:?}"));
    row.check(lost.is_empty() || told > 0.0, "the storm's loss is not told");
    let others = outcome.tally.lost - lost.len() as u64;
    let tally = Tally { lost: others, ..outcome.tally };
    let outcome = Outcome { tally, ..outcome };
    row.finish(&outcome, Pass { gaps: None, recovery: Duration::from_secs(90), ..Pass::default() });
}

#[test]
fn row_46_replicas_of_one_stream_after_two_hours() {
    let scale = Scale::of_run();
    let lines = scale.pick(4000, 200_000);
    let mut row = Row::begin(
        46,
        "Two replicas of one stream, two hours of outage",
        format!("three files of {lines} lines: two hours, the first hour, the last half hour"),
    );
    let mut total = Outcome::default();
    // The order in which directories are found is not the order of their lines.
    for orders in [[2.0, 0.0, 2.0, 1.0, 0.5, 0.0], [0.5, 0.0, 2.0, 1.0, 2.0, 0.0]] {
        let load = Load { containers: 0, lines_per_second: 0, ..scale.load() };
        let mut rig = Rig::start(Setup { load, launch: false, ..Setup::default() });
        let mut text = Vec::new();
        for (number, hours) in orders.chunks(2).enumerate() {
            let replica = rig.node.add("shop", "checkout", 9100 + number, "main");
            let (from, to) = ((hours[0] * HOUR as f64) as i128, (hours[1] * HOUR as f64) as i128);
            text.clear();
            for line in 0..lines {
                let (_, body) = replica.compose(300, 1);
                let ago = from - (from - to) * line / lines + SECOND;
                text.extend_from_slice(format!("{} stdout F ", stamp_ago(ago)).as_bytes());
                text.extend_from_slice(&body);
                text.push(b'\n');
            }
            replica.log.write_raw(&text).expect("written");
        }
        rig.launch();
        rig.agent.wait_ready();
        rig.fault_ends();
        let outcome = rig.settle();
        let refused: Vec<_> = rig.loki.requests().into_iter().filter(|seen| seen.status == 400).collect();
        let behind = refused.iter().filter(|seen| seen.text.contains("too far behind")).count();
        row.check(behind == 0, format!("{behind} requests refused as too far behind"));
        let counted = outcome.after.get("nodewick_records_lost_total").copied().unwrap_or(0.0);
        row.check(counted == 0.0, format!("{counted} lines refused"));
        total.add(&outcome);
    }
    row.finish(&total, Pass::default());
}

#[test]
fn row_47_a_204_that_hides_a_refusal() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        47,
        "A push of several streams answered 204 while an earlier stream was refused",
        "limits of streams and of their number lowered under load; the last stream's result is the answer",
    );
    let load = Load { lines_per_second: 0, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    // From nearly nothing to more than a stream may have.
    for (number, container) in rig.node.containers().iter().enumerate() {
        container
            .set_rate([4.0, 300.0, 15.0, 600.0, 40.0, 8.0, 120.0, 70.0][number % 8] * scale.pick(1.0, 4.0));
    }
    rig.load_for(Duration::from_secs(1));
    rig.wait_arrived(scale.settle());
    let streams = rig.loki.streams().len();
    rig.loki.limit(|limits| {
        limits.stream_rate = (60e3, 90e3);
        limits.max_streams = streams;
    });
    rig.node.start();
    std::thread::sleep(scale.time(2500) / 2);
    // One that the backend has no room for, beside all those that it knows.
    let late = rig.node.add("late", "late", 9003, "main");
    late.set_rate(20.0);
    std::thread::sleep(scale.time(2500) / 2);
    rig.node.pause();
    let seen = rig.loki.requests();
    let shared = seen.iter().filter(|seen| seen.status == 204 && seen.streams.len() > 1).count();
    let limited = seen.iter().filter(|seen| seen.text.contains("Per stream rate limit")).count();
    let no_room = seen.iter().filter(|seen| seen.text.contains("maximum active stream limit")).count();
    rig.loki.limit(|limits| (limits.stream_rate = (1e9, 1e9), limits.max_streams = 5000).1);
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle().max(Duration::from_secs(40)), Duration::from_secs(3));
    row.note(format!(
        "{shared} shared pushes, {limited} refusals for the rate, {no_room} for the number of streams"
    ));
    row.check(shared > 0 && limited > 0 && no_room > 0, "not every case was met");
    let gone = outcome.rose("nodewick_records_lost_total");
    row.check(gone == 0.0, format!("{gone} lines refused for good"));
    row.finish(&outcome, Pass::default());
}
