//! Rows 16, 18, 19 and 23: processes that are killed, stopped, starved and replaced.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::machine::{Cgroup, Chance};
use crate::node::{Load, Rotation};
use crate::report::{Pass, Row};
use crate::rig::{Rig, Scale, Setup};
use crate::rows_state::sequence;
use crate::support::agent::{Agent, Settings};
use crate::support::fake_loki::{Fault, wait_until};

/// Longest time from the start to readiness, whatever state is found.
pub const START: Duration = Duration::from_secs(2);

/// The agent's state directory.
pub fn state_of(rig: &Rig) -> PathBuf {
    rig.agent.directory().join("state")
}

/// Every container writes so many lines.
pub fn write(rig: &Rig, lines: u64) -> u64 {
    let containers = rig.node.containers();
    for container in &containers {
        for _ in 0..lines {
            container.write();
        }
    }
    lines * containers.len() as u64
}

/// The sum of a metric over the series that have this label.
fn labelled(agent: &Agent, metric: &str, label: &str) -> u64 {
    let page = agent.get("/metrics").map_or_else(|_| String::new(), |(_, page)| page);
    let series = page.lines().filter(|line| line.starts_with(metric) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Waits until a health page answers with `status`; false after `limit`.
pub fn answers(agent: &Agent, path: &str, status: u16, limit: Duration) -> bool {
    wait_until(limit, || agent.get(path).is_ok_and(|(found, _)| found == status))
}

#[test]
fn row_16_killed_at_random_points() {
    let scale = Scale::of_run();
    let (kills, least, most) = scale.pick((20, 100, 900), (200, 200, 2000));
    let mut chance = Chance::of_run();
    let injected = format!("{kills} × kill -9, {least}–{most} ms apart, seed {}", chance.0);
    let mut row = Row::begin(16, "kill -9 at random points", injected);
    let rotation = Rotation {
        max_bytes: scale.pick(128 << 10, 10 << 20),
        every: Duration::from_millis(scale.pick(200, 10_000)),
    };
    let mut rig = Rig::start(Setup { rotation: Some(rotation), ..Setup::default() });
    rig.node.start();
    let (mut before, mut worst) = (0, 0);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(chance.between(least, most)));
        rig.kill();
        let now = rig.oracle.tally().duplicated;
        worst = worst.max(now - before);
        before = now;
        rig.launch();
    }
    rig.agent.wait_ready();
    rig.fault_ends();
    std::thread::sleep(Duration::from_millis(500));
    let outcome = rig.settle();
    let (second, resent) = (scale.load().lines_per_second, outcome.tally.duplicated);
    row.note(format!(
        "resent per kill: {:.2} s of data on average, {:.2} s at worst; {} rotations",
        resent as f64 / (kills * second) as f64,
        worst as f64 / second as f64,
        rig.node.rotations()
    ));
    row.finish(&outcome, Pass { duplicated: Some(kills * second), ..Pass::default() });
}

#[test]
fn row_18_stopped() {
    let scale = Scale::of_run();
    let time = scale.pick(Duration::from_secs(5), Duration::from_secs(60));
    let mut row = Row::begin(18, "Pause", format!("SIGSTOP for {time:?} under load")).part("stopped");
    let mut rig = Rig::start(Setup::default());
    rig.node.start();
    std::thread::sleep(Duration::from_millis(800));
    let retries = |agent: &Agent| labelled(agent, "nodewick_sink_requests_total", "outcome=\"retry\"");
    let (before, requests) = (retries(&rig.agent), rig.loki.requests().len());
    rig.freeze(time);
    rig.fault_ends();
    let alive = answers(&rig.agent, "/health/live", 200, Duration::from_secs(5));
    row.check(alive, "not alive 5 s after the pause");
    // A pod of which only a watch or a listing can tell.
    let late = rig.node.add("late", "late-000", 777, "main");
    let seq = late.write();
    let began = Instant::now();
    row.check(rig.wait(Duration::from_secs(5), || rig.oracle.has(late.index, seq)), "watches are dead");
    row.note(format!("a new pod's line arrived after {:?}", began.elapsed()));
    std::thread::sleep(Duration::from_millis(700));
    let outcome = rig.settle();
    let retried = retries(&rig.agent) - before;
    row.note(format!("{retried} retries, {} requests afterwards", rig.loki.requests().len() - requests));
    // What was in flight may have timed out meanwhile, and nothing else.
    row.check(retried <= 4, format!("{retried} requests were tried again"));
    row.finish(&outcome, Pass { duplicated: Some(scale.load().lines_per_second), ..Pass::default() });
}

#[test]
fn row_18_starved_of_cpu() {
    let scale = Scale::of_run();
    let (time, share) = scale.pick((Duration::from_secs(4), 10), (Duration::from_secs(60), 50));
    let mut row = Row::begin(18, "CPU starvation", format!("{share} thousandths of a CPU for {time:?}"))
        .part("starved");
    let group = match Cgroup::cpu(share) {
        Ok(group) => group,
        Err(reason) => return row.skip(&reason),
    };
    let mut rig = Rig::start(Setup::default());
    let pid = rig.agent.pid().expect("the agent runs").as_raw_nonzero().get();
    rig.node.start();
    std::thread::sleep(Duration::from_millis(500));
    let lag = |rig: &Rig| rig.oracle.written() - rig.oracle.distinct();
    let before = lag(&rig);
    if let Err(reason) = group.enter(pid) {
        return row.skip(&reason);
    }
    std::thread::sleep(time);
    let starved = lag(&rig);
    group.leave(pid);
    rig.fault_ends();
    std::thread::sleep(Duration::from_millis(500));
    let outcome = rig.settle();
    let retried = labelled(&rig.agent, "nodewick_sink_requests_total", "outcome=\"retry\"");
    row.note(format!("{before} lines behind before, {starved} at its end; {retried} retries"));
    row.check(starved > 2 * before, "it had all the CPU it needed: the fault is no fault");
    row.check(retried <= 4, format!("{retried} requests were tried again"));
    row.finish(&outcome, Pass { duplicated: Some(scale.load().lines_per_second), ..Pass::default() });
}

#[test]
fn row_19_backlog_of_the_first_run_in_64_mib() {
    let scale = Scale::of_run();
    let (containers, lines, bytes) = scale.pick((4, 900, 1500), (20, 6000, 600));
    let mut chance = Chance::of_run();
    let backlog = (containers as u64 * 5 * lines * bytes as u64) >> 20;
    let injected =
        format!("{backlog} MiB in five generations, memory limit 64 MiB, kill -9 while catching up");
    let mut row = Row::begin(19, "Backlog of the first run", injected);
    let group = match Cgroup::memory(64 << 20) {
        Ok(group) => group,
        Err(reason) => return row.skip(&reason),
    };
    let load = Load { containers, lines_per_second: 0, line_bytes: bytes, ..scale.load() };
    // What must be configured down for so little memory: data in flight, the spill's index, requests.
    let agent = Settings {
        agent: "memory = \"8MiB\"".to_owned(),
        logs: "spill.budget = \"64MiB\"".to_owned(),
        under: group.under(),
        ..Settings::default()
    };
    let limits = "[sink.loki.main.limits]\nmax_request = \"512KiB\"\nin_flight = 1\n".to_owned();
    let mut rig = Rig::start(Setup { load, agent, sink_keys: limits, launch: false, ..Setup::default() });
    for generation in 0..5 {
        write(&rig, lines);
        if generation < 4 {
            rig.node.rotate_all();
        }
    }
    let (state, mut lives, mut idle) = (state_of(&rig), 0, 0);
    // Lives of which none can finish by itself.
    let (count, least, most) = scale.pick((5, 400, 800), (10, 1000, 5000));
    for _ in 0..count {
        let (before, durable) = (rig.oracle.distinct(), sequence(&state));
        rig.launch();
        // From readiness on: how long a loaded machine takes to start a process is not the row's matter.
        rig.agent.wait_ready();
        std::thread::sleep(Duration::from_millis(chance.between(least, most)));
        rig.kill();
        let left = rig.oracle.written() - rig.oracle.distinct();
        lives += u64::from(left > 0);
        idle += u64::from(left > 0 && (rig.oracle.distinct() == before || sequence(&state) == durable));
    }
    let caught_up = rig.oracle.distinct() as f64 / rig.oracle.written() as f64;
    rig.launch();
    rig.agent.wait_ready();
    rig.fault_ends();
    let outcome =
        rig.settle_within(scale.pick(Duration::from_secs(40), scale.settle()), Duration::from_secs(3));
    row.note(format!(
        "{lives} lives ended before the backlog did, with {:.0} % of it sent",
        caught_up * 100.0
    ));
    row.check(lives > 0, "the backlog is too small: no life was cut short");
    row.check(idle == 0, format!("{idle} lives made no progress"));
    let killed = group.out_of_memory_kills();
    row.check(killed == 0, format!("{killed} times killed for want of memory"));
    let recovery = scale.pick(Duration::from_secs(40), Duration::from_secs(180));
    row.finish(&outcome, Pass { rss_mib: 64, recovery, ..Pass::default() });
}

/// A rolling update: a second agent on the same state starts, the first one is asked to end.
fn rolling_update(row: &mut Row, rig: &mut Rig, stall: bool) {
    let second = Settings {
        state_dir: Some(state_of(rig)),
        rest: format!("[sink.loki.main]\nurl = \"{}\"\n", rig.loki.url()),
        ..Settings::default()
    };
    let mut second = Agent::prepare(&rig.path("second"), rig.node.root(), &second);
    rig.node.start();
    std::thread::sleep(rig.scale.time(1200));
    second.launch();
    row.check(answers(&second, "/health/ready", 200, START), "the second one is not ready while it waits");
    if stall {
        rig.loki.set_fault(Some(Fault::Hang));
        std::thread::sleep(Duration::from_millis(700));
    }
    let mut unready = 0;
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        let first = &mut rig.agent;
        let ending = scope.spawn(move || {
            let began = Instant::now();
            let status = first.terminate();
            (began.elapsed(), status)
        });
        while !ending.is_finished() {
            unready += u32::from(second.get("/health/ready").map_or(0, |(status, _)| status) != 200);
            std::thread::sleep(Duration::from_millis(50));
        }
        let (took, status) = ending.join().expect("an end");
        longest = took;
        row.check(status.success() || stall, format!("the first one ended with {status}"));
    });
    row.note(format!("the first one ended after {longest:?}"));
    row.check(longest <= Duration::from_secs(25), format!("the first one took {longest:?} to end"));
    row.check(unready == 0, format!("the waiting one was not ready {unready} times"));
    rig.loki.set_fault(None);
    rig.fault_ends();
    let arrived = rig.oracle.distinct();
    let taken_over = rig.wait(Duration::from_secs(5), || rig.oracle.distinct() > arrived);
    row.check(taken_over, "the second one does not take over");
    std::mem::swap(&mut rig.agent, &mut second);
    std::thread::sleep(Duration::from_millis(500));
    row.check(
        answers(&rig.agent, "/health/ready", 200, Duration::from_secs(5)),
        "not ready once it has taken over",
    );
}

#[test]
fn row_23_rolling_update() {
    let mut row = Row::begin(23, "Rolling update", "a second agent on the same state, SIGTERM to the first");
    let mut rig = Rig::start(Setup::default());
    rolling_update(&mut row, &mut rig, false);
    let outcome = rig.settle();
    // All that was in flight was answered before the first one ended.
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_23_rolling_update_while_the_backend_stalls() {
    let mut row =
        Row::begin(23, "Rolling update", "the same while the backend answers nothing").part("stalled");
    let mut rig = Rig::start(Setup::default());
    rolling_update(&mut row, &mut rig, true);
    let outcome = rig.settle();
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}
