//! Rows 17, 20, 21 and 22: what becomes of the state directory, its file system and its disk.
//!
//! What damages the checkpoint between two lives looks at its file by itself: two slots, each `magic(8) version(4)
//! length(4) sequence(8) crc32c(4) payload`, little endian.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::machine::{Chance, Mount, failing_syncs};
use crate::node::Load;
use crate::report::{Pass, Row};
use crate::rig::{Outcome, Rig, Scale, Setup};
use crate::rows_process::{START, answers, state_of, write};
use crate::support::agent::Settings;
use crate::support::fake_loki::{Fault, wait_until};

/// Bytes of a slot before its payload.
const HEADER: usize = 28;

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
pub fn sequence(state: &Path) -> u64 {
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
                    if sector == torn || (round % 4 == 2 && chance.number().is_multiple_of(2)) {
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
        write(&rig, 3);
        row.check(rig.wait_arrived(scale.settle()), format!("{what}: lines are missing before"));
        // Their answers are read soon; a checkpoint follows, unless one holds them already.
        std::thread::sleep(Duration::from_millis(60));
        let durable = sequence(&state);
        wait_until(Duration::from_millis(600), || sequence(&state) > durable);
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

/// Offset, header length, source length and ordinal of each frame of a spill segment. Frames begin at multiples of 4 KiB:
/// `magic(8) version(2) header length(2) header crc32c(4) payload crc32c(4) payload length(4) source length(4)
/// key length(2) mask(1) 0(1) ordinal(8) …`.
fn frames(segment: &[u8]) -> Vec<(usize, usize, u64, u64)> {
    let number = |at: usize, len: usize| {
        let bytes = segment.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let starts = (0..segment.len()).step_by(4096).filter(|at| segment[*at..].starts_with(b"NWICKSPL"));
    starts.map(|at| (at, number(at + 10, 2) as usize, number(at + 24, 4), number(at + 32, 8))).collect()
}

/// What befalls the spill between two lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SpillDamage {
    /// Segments of garbage beside the good ones.
    Garbage,
    /// A bit of the payload of a frame whose file is gone.
    Flip,
    /// The same frame's header.
    Header,
}

/// Logs that are only in the spill any more, a kill, a damage, and a life that sends what is left.
fn corrupt_spill(row: &mut Row, damage: SpillDamage, chance: &mut Chance) -> Outcome {
    let scale = Scale::of_run();
    let (containers, lines) = scale.pick((2, 60), (20, 5000));
    let load = Load { containers, lines_per_second: 0, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    let state = state_of(&rig);
    write(&rig, 1);
    row.check(rig.wait_arrived(scale.settle()), "the first lines are missing");
    rig.loki.set_fault(Some(Fault::EmptyRing));
    // The first two generations are deleted; a file is spilled once two others have followed it.
    for _ in 0..6 {
        write(&rig, lines);
        std::thread::sleep(scale.pick(Duration::from_millis(350), Duration::from_secs(5)));
        rig.node.rotate_all();
    }
    std::thread::sleep(Duration::from_millis(500));
    rig.kill();
    let mut segments: Vec<_> = fs::read_dir(&state)
        .expect("a state directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("spill."))
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    let all: Vec<_> = (segments.iter())
        .flat_map(|path| {
            let found = frames(&fs::read(path).expect("a segment"));
            found.into_iter().map(|frame| (path.clone(), frame))
        })
        .collect();
    let oldest = all.iter().min_by_key(|(_, frame)| frame.3);
    row.check(oldest.is_some(), "nothing was spilled: the fault is no fault");
    let mut may_lose = 0;
    match (damage, oldest) {
        (SpillDamage::Garbage, _) => {
            for (name, len) in [("spill.900001", 0), ("spill.900002", 5), ("spill.900003", 100_000)] {
                let mut garbage = vec![0; len];
                noise(&mut garbage, chance);
                fs::write(state.join(name), garbage).expect("a file of garbage");
            }
            fs::create_dir(state.join("spill.900004")).expect("a directory");
        }
        (_, Some((path, (at, header, source, _)))) => {
            let mut segment = fs::read(path).expect("a segment");
            let within = if damage == SpillDamage::Flip { at + header + 9 } else { at + 20 };
            segment[within] ^= 0x10;
            fs::write(path, segment).expect("a segment that can be written");
            may_lose = *source;
        }
        (_, None) => {}
    }
    rig.loki.set_fault(None);
    let began = Instant::now();
    rig.launch();
    rig.agent.wait_ready();
    let start = began.elapsed();
    row.check(start <= START, format!("{damage:?}: the start took {start:?}"));
    rig.fault_ends();
    let mut outcome = rig.settle_within(scale.settle(), Duration::from_millis(700));
    let lost = rig
        .node
        .containers()
        .iter()
        .flat_map(|container| rig.oracle.lost(container.index))
        .collect::<Vec<_>>();
    let bytes = lost.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let metric = |name| outcome.after.get(name).copied().unwrap_or(0.0) as u64;
    let told = metric("nodewick_log_lost_bytes_total");
    row.note(format!(
        "{damage:?}: {} frames spilled, {bytes} bytes lost of a frame of {may_lose}, {told} told, {} markers, {} damaged frames counted",
        all.len(),
        outcome.tally.gaps,
        metric("nodewick_spill_damaged_frames_total"),
    ));
    row.check(bytes <= may_lose, format!("{damage:?}: {bytes} bytes lost, the frame had {may_lose}"));
    row.check(told == bytes, format!("{damage:?}: {bytes} bytes lost, {told} told"));
    let gaps = outcome.tally.gaps;
    row.check(
        gaps == u64::from(bytes > 0),
        format!("{damage:?}: {gaps} markers tell of it: {:?}", rig.oracle.notices()),
    );
    // What the damage took was judged here.
    outcome.tally.lost -= lost.len() as u64;
    outcome
}

#[test]
fn row_20_corrupt_spill() {
    let (scale, mut chance) = (Scale::of_run(), Chance::of_run());
    let injected = format!("garbage segments; a frame's payload or header flipped; seed {}", chance.0);
    let mut row = Row::begin(20, "Corrupt spill", injected).part("spill");
    let mut outcome = corrupt_spill(&mut row, SpillDamage::Garbage, &mut chance);
    for damage in scale.pick(&[SpillDamage::Flip][..], &[SpillDamage::Flip, SpillDamage::Header]) {
        outcome.add(&corrupt_spill(&mut row, *damage, &mut chance));
    }
    // One frame each time, told once: its loss was judged above.
    let gaps = outcome.tally.gaps;
    row.finish(&outcome, Pass { gaps: Some(gaps), ..Pass::default() });
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
