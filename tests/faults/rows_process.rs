//! Rows 16 to 23: processes, memory, disks.
//!
//! What damages the checkpoint between two lives looks at its file by itself: two slots, each `magic(8) version(4)
//! length(4) sequence(8) crc32c(4) payload`, little endian.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::machine::{Cgroup, Chance, Mount, failing_syncs};
use crate::node::{Load, Rotation};
use crate::report::{Pass, Row};
use crate::rig::{Rig, Scale, Setup};
use crate::support::agent::{Agent, Settings};
use crate::support::fake_loki::{Fault, wait_until};

/// Bytes of a slot before its payload.
const HEADER: usize = 28;

/// Longest time from the start to readiness, whatever state is found.
const START: Duration = Duration::from_secs(2);

/// The checkpoint's files, by name.
fn files(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.display().to_string().contains("/positions.")).collect();
    files.sort();
    files
}

/// Sequence and place of both slots of a checkpoint file; a sequence of 0 is no slot.
fn slots(file: &[u8]) -> [(u64, usize); 2] {
    let half = file.len() / 2;
    [0, half].map(|at| {
        let header = file.get(at..at + HEADER).filter(|header| header.starts_with(b"NWICKPOS"));
        let sequence = header.and_then(|header| header[16..24].try_into().ok()).map_or(0, u64::from_le_bytes);
        (sequence, at)
    })
}

/// The newest sequence on disk; 0 without any.
fn sequence(state: &Path) -> u64 {
    let read = files(state).into_iter().filter_map(|path| fs::read(path).ok());
    read.flat_map(|file| slots(&file)).map(|(sequence, _)| sequence).max().unwrap_or(0)
}

/// Bytes of a slot that are used.
fn used(slot: &[u8]) -> usize {
    let len = slot.get(12..16).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
    (HEADER + len as usize).min(slot.len())
}

/// Writes a slot's checksum anew: what is in it is then meant.
fn seal(slot: &mut [u8]) {
    let used = used(slot);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&slot[..24]), &slot[HEADER..used]);
    slot[24..HEADER].copy_from_slice(&crc.to_le_bytes());
}

fn state_of(rig: &Rig) -> PathBuf {
    rig.agent.directory().join("state")
}

/// Every container writes so many lines.
fn write(rig: &Rig, lines: u64) -> u64 {
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
fn answers(agent: &Agent, path: &str, status: u16, limit: Duration) -> bool {
    wait_until(limit, || agent.get(path).is_ok_and(|(found, _)| found == status))
}

#[test]
fn row_16_killed_at_random_points() {
    let scale = Scale::of_run();
    let (kills, least, most) = scale.pick((20, 100, 900), (200, 200, 5000));
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
fn row_17_writes_that_never_reached_the_disk() {
    let scale = Scale::of_run();
    let (lives, life) = (scale.pick(5, 40), Duration::from_millis(1700));
    let mut chance = Chance::of_run();
    let injected = format!(
        "kill -9, then the newest slot becomes what it was before, torn at 512 B or zeroed; {lives} lives, seed {}",
        chance.0
    );
    let mut row = Row::begin(17, "Power loss", injected).part("images");
    let mut rig = Rig::start(Setup::default());
    let state = state_of(&rig);
    rig.node.start();
    let mut slowest = Duration::ZERO;
    for round in 0..lives {
        std::thread::sleep(life / 2);
        let before = files(&state).last().and_then(|path| fs::read(path).ok()).unwrap_or_default();
        std::thread::sleep(life / 2 + Duration::from_millis(chance.between(0, 300)));
        rig.kill();
        let path = files(&state).pop().expect("a checkpoint");
        let mut file = fs::read(&path).expect("a checkpoint");
        let (half, newest) = (file.len() / 2, slots(&file).into_iter().max().expect("two slots").1);
        let older = before.get(newest..newest + half).map_or_else(|| vec![0; half], <[u8]>::to_vec);
        let slot = &mut file[newest..newest + half];
        let written = used(slot).div_ceil(512).max(1);
        match round % 4 {
            // The write never reached the disk.
            0 => slot.copy_from_slice(&older),
            // Some of its sectors did.
            1 | 2 => {
                let torn = chance.between(0, written as u64) as usize;
                for sector in 0..written {
                    if sector == torn || (round % 4 == 2 && chance.number() % 2 == 0) {
                        let at = sector * 512..(sector + 1) * 512;
                        slot[at.clone()].copy_from_slice(&older[at]);
                    }
                }
            }
            _ => slot.fill(0),
        }
        fs::write(&path, file).expect("a checkpoint that can be written");
        let began = Instant::now();
        rig.launch();
        rig.agent.wait_ready();
        slowest = slowest.max(began.elapsed());
    }
    rig.fault_ends();
    let outcome = rig.settle();
    let (second, resent) = (scale.load().lines_per_second, outcome.tally.duplicated);
    row.note(format!(
        "resent per life: {:.2} s of data on average; slowest start {slowest:?}",
        resent as f64 / (lives * second) as f64
    ));
    row.check(slowest <= START, format!("a start took {slowest:?}"));
    row.finish(&outcome, Pass { duplicated: Some(2 * lives * second), ..Pass::default() });
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
    let backlog = containers as u64 * 5 * lines * bytes as u64 >> 20;
    let injected =
        format!("{backlog} MiB in five generations, memory limit 64 MiB, kill -9 while catching up");
    let mut row = Row::begin(19, "Backlog of the first run", injected);
    let group = match Cgroup::memory(64 << 20) {
        Ok(group) => group,
        Err(reason) => return row.skip(&reason),
    };
    let load = Load { containers, lines_per_second: 0, line_bytes: bytes, ..scale.load() };
    let agent =
        Settings { agent: "memory = \"8MiB\"".to_owned(), under: group.under(), ..Settings::default() };
    let limits = "[sink.loki.main.limits]\nmax_request = \"512KiB\"\nin_flight = 2\n".to_owned();
    let mut rig = Rig::start(Setup { load, agent, sink_keys: limits, launch: false, ..Setup::default() });
    for generation in 0..5 {
        write(&rig, lines);
        if generation < 4 {
            rig.node.rotate_all();
        }
    }
    let (state, mut lives, mut idle) = (state_of(&rig), 0, 0);
    // Lives of which none can finish by itself.
    for _ in 0..scale.pick(5, 20) {
        let (before, durable) = (rig.oracle.distinct(), sequence(&state));
        rig.launch();
        std::thread::sleep(Duration::from_millis(chance.between(500, 900)));
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

/// What a damaged checkpoint may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// Nothing at all.
    Nothing,
    /// What was acknowledged after the slot before.
    Slot,
    /// Everything on disk is sent again.
    All,
}

/// A damage: file, place of the newest slot, place of the older one.
type Damage = fn(&mut Vec<u8>, usize, usize, &mut Chance);

fn half(file: &mut [u8], at: usize) -> &mut [u8] {
    let half = file.len() / 2;
    &mut file[at..at + half]
}

fn flip(slot: &mut [u8], chance: &mut Chance) {
    let at = chance.between(0, used(slot) as u64) as usize;
    slot[at] ^= 1 << chance.between(0, 8);
}

fn from_the_future(slot: &mut [u8]) {
    slot[8..12].copy_from_slice(&99_u32.to_le_bytes());
    seal(slot);
}

fn noise(bytes: &mut [u8], chance: &mut Chance) {
    bytes.iter_mut().for_each(|byte| *byte = chance.number() as u8);
}

const DAMAGES: &[(&str, Cost, Damage)] = &[
    ("nothing", Cost::Nothing, |_, _, _, _| {}),
    ("older slot zeroed", Cost::Nothing, |file, _, older, _| half(file, older).fill(0)),
    ("older slot flipped", Cost::Nothing, |file, _, older, chance| flip(half(file, older), chance)),
    ("older slot of the future", Cost::Nothing, |file, _, older, _| from_the_future(half(file, older))),
    ("newest slot zeroed", Cost::Slot, |file, newest, _, _| half(file, newest).fill(0)),
    ("newest slot flipped", Cost::Slot, |file, newest, _, chance| flip(half(file, newest), chance)),
    ("newest slot of noise", Cost::Slot, |file, newest, _, chance| noise(half(file, newest), chance)),
    ("newest slot of the future", Cost::Slot, |file, newest, _, _| from_the_future(half(file, newest))),
    ("newest slot claims four GiB", Cost::Slot, |file, newest, _, _| {
        half(file, newest)[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    }),
    ("truncated", Cost::All, |file, _, _, chance| {
        let len = chance.between(0, file.len() as u64) as usize;
        file.truncate(len);
    }),
    ("empty", Cost::All, |file, _, _, _| file.clear()),
    ("both slots zeroed", Cost::All, |file, _, _, _| file.fill(0)),
    ("both slots flipped", Cost::All, |file, newest, older, chance| {
        flip(half(file, newest), chance);
        flip(half(file, older), chance);
    }),
    ("both slots of the future", Cost::All, |file, newest, older, _| {
        from_the_future(half(file, newest));
        from_the_future(half(file, older));
    }),
    ("noise", Cost::All, |file, _, _, chance| noise(file, chance)),
    // Whole by its checksum, and the last that there can be.
    ("both slots with the last sequence", Cost::All, |file, newest, older, _| {
        for at in [newest, older] {
            half(file, at)[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
            seal(half(file, at));
        }
    }),
    ("128 MiB of zeros", Cost::All, |file, _, _, _| {
        file.clear();
        file.resize(128 << 20, 0);
    }),
];

/// Entries that are no checkpoint of ours, beside one that is.
fn strangers(state: &Path, present: bool) {
    let garbage =
        ["positions.99999", "positions.18446744073709551615", "positions.x", "positions.", "positions.-1"];
    for name in garbage {
        let path = state.join(name);
        let _ = if present { fs::write(path, b"garbage") } else { fs::remove_file(path) };
    }
    let directory = state.join("positions.77");
    let _ = if present { fs::create_dir(directory) } else { fs::remove_dir(directory) };
}

#[test]
fn row_20_corrupt_state() {
    let scale = Scale::of_run();
    let mut chance = Chance::of_run();
    let rounds = scale.pick(1, 20);
    let injected = format!("{} damages × {rounds} to positions.*, seed {}", DAMAGES.len() + 1, chance.0);
    let mut row = Row::begin(20, "Corrupt state", injected);
    let load = Load { lines_per_second: 0, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    let state = state_of(&rig);
    let stranger: Damage = |_, _, _, _| {};
    let all = DAMAGES.iter().copied().chain([("files of others", Cost::Nothing, stranger)]);
    let mut slowest = Duration::ZERO;
    for (what, cost, damage) in (0..rounds).flat_map(|_| all.clone()) {
        // One slot holds these lines …
        let durable = sequence(&state);
        write(&rig, 3);
        row.check(rig.wait_arrived(scale.settle()), format!("{what}: lines are missing before"));
        let written = wait_until(Duration::from_secs(5), || sequence(&state) > durable);
        row.check(written, format!("{what}: no checkpoint was written before"));
        // … and the other one these too.
        let last = write(&rig, 1);
        row.check(rig.wait_arrived(scale.settle()), format!("{what}: lines are missing before"));
        rig.agent.terminate();
        let path = files(&state).pop().expect("a checkpoint");
        let mut file = fs::read(&path).expect("a checkpoint");
        let mut found = slots(&file);
        found.sort_unstable();
        let [(before, older), (_, newest)] = found;
        row.check(before > 0, format!("{what}: only one slot was written"));
        damage(&mut file, newest, older, &mut chance);
        fs::write(&path, file).expect("a checkpoint that can be written");
        if what == "files of others" {
            strangers(&state, true);
        }
        let resent = rig.oracle.tally().duplicated;
        let began = Instant::now();
        rig.launch();
        rig.agent.wait_ready();
        let start = began.elapsed();
        slowest = slowest.max(start);
        row.check(start <= START, format!("{what}: the start took {start:?}"));
        // Once these have arrived, so has all that is sent again before them.
        write(&rig, 1);
        row.check(rig.wait_arrived(scale.settle()), format!("{what}: lines are missing after"));
        let resent = rig.oracle.tally().duplicated - resent;
        let allowed = match cost {
            Cost::Nothing => 0,
            Cost::Slot => last,
            Cost::All => rig.oracle.written(),
        };
        row.check(resent <= allowed, format!("{what}: {resent} lines were sent again, {allowed} allowed"));
        let told = rig.agent.metric("nodewick_checkpoint_corrupt_total").unwrap_or(0.0);
        let whole = cost != Cost::All || what == "truncated";
        row.check(whole || told >= 1.0, format!("{what}: not told"));
        strangers(&state, false);
    }
    rig.fault_ends();
    let outcome = rig.settle();
    row.note(format!("slowest start {slowest:?}"));
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_21_state_disk_full() {
    let scale = Scale::of_run();
    let mut row = Row::begin(21, "State disk full", "a small file system, filled to the last byte; kill -9");
    let place = tempfile::tempdir().expect("a temporary directory");
    let at = place.path().join("mount");
    let image = place.path().join("image");
    let mount = match Mount::ext4(&image, &at, 8).or_else(|_| Mount::tmpfs(&at, 2048)) {
        Ok(mount) => mount,
        Err(reason) => return row.skip(&reason),
    };
    let state = at.join("state");
    let agent = Settings { state_dir: Some(state.clone()), ..Settings::default() };
    let mut rig = Rig::start(Setup { agent, ..Setup::default() });
    rig.node.start();
    row.check(wait_until(Duration::from_secs(5), || sequence(&state) > 0), "no checkpoint at first");
    let filled = mount.fill("filler");
    row.note(format!("{} KiB filled", filled >> 10));
    for life in 0..3 {
        let durable = sequence(&state);
        let advanced = wait_until(Duration::from_secs(5), || sequence(&state) >= durable + 2);
        row.check(advanced, format!("life {life}: the checkpoint does not advance"));
        let ready = answers(&rig.agent, "/health/ready", 200, Duration::from_secs(1));
        row.check(ready, format!("life {life}: not ready"));
        let failures = rig.agent.metric("nodewick_checkpoint_failures_total").unwrap_or(0.0);
        row.check(failures == 0.0, format!("life {life}: {failures} checkpoints failed"));
        std::thread::sleep(scale.time(200) / 3);
        rig.kill();
        rig.launch();
        rig.agent.wait_ready();
    }
    rig.fault_ends();
    fs::remove_file(at.join("filler")).expect("the filler");
    let outcome = rig.settle();
    let (second, resent) = (scale.load().lines_per_second, outcome.tally.duplicated);
    row.note(format!("resent per kill: {:.2} s of data", resent as f64 / (3 * second) as f64));
    row.finish(&outcome, Pass { duplicated: Some(3 * second), ..Pass::default() });
    drop(rig);
    drop(mount);
}

#[test]
fn row_21_state_disk_full_from_the_start() {
    let mut row = Row::begin(21, "State disk full", "full at the first start, space later").part("first");
    let place = tempfile::tempdir().expect("a temporary directory");
    let at = place.path().join("mount");
    let mount = match Mount::tmpfs(&at, 2048) {
        Ok(mount) => mount,
        Err(reason) => return row.skip(&reason),
    };
    fs::create_dir(at.join("state")).expect("a state directory");
    mount.fill("filler");
    let agent = Settings { state_dir: Some(at.join("state")), ..Settings::default() };
    let mut rig = Rig::start(Setup { agent, launch: false, ..Setup::default() });
    rig.node.start();
    rig.launch();
    let delivers = rig.wait(Duration::from_secs(5), || rig.oracle.distinct() > 200);
    row.check(delivers, "nothing is delivered");
    row.check(answers(&rig.agent, "/health/ready", 503, Duration::from_secs(5)), "it counts as ready");
    row.check(rig.agent.runs(), "it ended");
    fs::remove_file(at.join("filler")).expect("the filler");
    row.check(answers(&rig.agent, "/health/ready", 200, Duration::from_secs(10)), "not ready with space");
    rig.fault_ends();
    rig.kill();
    rig.launch();
    rig.agent.wait_ready();
    let outcome = rig.settle();
    row.finish(&outcome, Pass { duplicated: Some(rig.scale.load().lines_per_second), ..Pass::default() });
    drop(rig);
    drop(mount);
}

/// While nothing can be made durable: alive, not ready, counted, and delivering.
fn degraded(row: &mut Row, rig: &mut Rig, when: &str) {
    row.check(
        answers(&rig.agent, "/health/ready", 503, Duration::from_secs(8)),
        format!("{when}: it counts as ready"),
    );
    row.check(answers(&rig.agent, "/health/live", 200, Duration::from_secs(1)), format!("{when}: not alive"));
    row.check(rig.agent.runs(), format!("{when}: it ended"));
    let arrived = rig.oracle.distinct();
    let delivers = rig.wait(Duration::from_secs(5), || rig.oracle.distinct() > arrived);
    row.check(delivers, format!("{when}: nothing is delivered"));
}

#[test]
fn row_22_file_system_turns_read_only() {
    let mut row =
        Row::begin(22, "Read-only remount", "an ext4 with an error turns read-only; kill -9; mounted anew");
    let place = tempfile::tempdir().expect("a temporary directory");
    let (image, at) = (place.path().join("image"), place.path().join("mount"));
    let mount = match Mount::ext4(&image, &at, 8) {
        Ok(mount) => mount,
        Err(reason) => return row.skip(&reason),
    };
    let agent = Settings { state_dir: Some(at.join("state")), ..Settings::default() };
    let mut rig = Rig::start(Setup { agent, ..Setup::default() });
    rig.node.start();
    std::thread::sleep(rig.scale.time(1300) / 2);
    if let Err(reason) = mount.break_ext4() {
        return row.skip(&reason);
    }
    degraded(&mut row, &mut rig, "read-only");
    let failures = rig.agent.metric("nodewick_checkpoint_failures_total").unwrap_or(0.0);
    row.check(failures >= 1.0, "no failed checkpoint is counted");
    rig.kill();
    rig.launch();
    row.check(answers(&rig.agent, "/health/live", 200, START), "does not start on a read-only file system");
    degraded(&mut row, &mut rig, "started read-only");
    rig.kill();
    mount.end();
    let mount = Mount::ext4_again(&image, &at).expect("the file system that it was");
    rig.launch();
    row.check(
        answers(&rig.agent, "/health/ready", 200, Duration::from_secs(8)),
        "not ready when mounted anew",
    );
    rig.fault_ends();
    let outcome = rig.settle();
    row.note(format!("{failures} failures counted, {} lines sent again", outcome.tally.duplicated));
    row.finish(&outcome, Pass::default());
    drop(rig);
    drop(mount);
}

#[test]
fn row_22_syncs_that_fail() {
    let mut row = Row::begin(22, "fsync EIO", "strace fails fsync and fdatasync from the fifth on; kill -9")
        .part("sync");
    let place = tempfile::tempdir().expect("a temporary directory");
    let flag = place.path().join("fail");
    let under = match failing_syncs(&flag) {
        Ok(under) => under,
        Err(reason) => return row.skip(&reason),
    };
    let mut rig = Rig::start(Setup { agent: Settings { under, ..Settings::default() }, ..Setup::default() });
    let state = state_of(&rig);
    rig.node.start();
    degraded(&mut row, &mut rig, "EIO");
    std::thread::sleep(rig.scale.time(2500));
    let failures = rig.agent.metric("nodewick_checkpoint_failures_total").unwrap_or(0.0);
    row.check(failures >= 2.0, format!("{failures} failures counted"));
    let kept = files(&state).len();
    row.check((1..=2).contains(&kept), format!("{kept} checkpoint files"));
    // A life that begins with what was never made durable, and then one whose disk works.
    rig.kill();
    rig.launch();
    degraded(&mut row, &mut rig, "EIO again");
    rig.kill();
    fs::remove_file(&flag).expect("the flag");
    rig.launch();
    rig.agent.wait_ready();
    rig.fault_ends();
    let outcome = rig.settle();
    row.note(format!("{failures} failures counted, {} lines sent again", outcome.tally.duplicated));
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_22_unwritable_at_the_start() {
    let mut row =
        Row::begin(22, "Unwritable at the start", "read-only bind mount, gone while it runs").part("start");
    let place = tempfile::tempdir().expect("a temporary directory");
    let state = place.path().join("state");
    let mount = match Mount::read_only(&state) {
        Ok(mount) => mount,
        Err(reason) => return row.skip(&reason),
    };
    let agent = Settings { state_dir: Some(state.clone()), ..Settings::default() };
    let mut rig = Rig::start(Setup { agent, launch: false, ..Setup::default() });
    rig.node.start();
    rig.launch();
    row.check(answers(&rig.agent, "/health/live", 200, START), "it does not start");
    degraded(&mut row, &mut rig, "unwritable");
    mount.end();
    row.check(answers(&rig.agent, "/health/ready", 200, Duration::from_secs(12)), "not ready once writable");
    row.check(sequence(&state) > 0, "ready without a checkpoint");
    rig.kill();
    rig.launch();
    rig.agent.wait_ready();
    rig.fault_ends();
    let outcome = rig.settle();
    row.finish(&outcome, Pass { duplicated: Some(rig.scale.load().lines_per_second), ..Pass::default() });
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
