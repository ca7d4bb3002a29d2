//! Rows 9 to 15: hostile files, exhausted watches and descriptors, hostile bytes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::node::Load;
use crate::report::{Pass, Row};
use crate::rig::{Outcome, Rig, Scale, Setup};
use crate::support::agent::Settings;
use crate::support::cri_writer::Pipe;

/// Numbers that look random and are the same in each run: xorshift64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

#[test]
fn row_09_links_fifos_devices_and_swapped_directories() {
    let scale = Scale::of_run();
    let injected = "0.log becomes a link to a foreign file, to /etc/shadow, to /dev/zero, a hard link, a FIFO, a device; a directory becomes a link";
    let mut row = Row::begin(9, "Links, FIFOs, devices, swapped directories", injected);
    let load = Load { containers: 4, lines_per_second: 200, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    // A foreign line would be no line of ours: it counts as corrupt, and the row fails.
    let outside = rig.path("outside");
    fs::create_dir_all(&outside).expect("a directory");
    let secret = outside.join("0.log");
    let text = format!("{} stdout F CANARY of a foreign file\n", stamp()).repeat(1000);
    fs::write(&secret, &text).expect("a foreign file");
    fs::write(outside.join("1.log"), &text).expect("a foreign file");

    let dir = |app: &str, container: &str| {
        let pod = format!("evil_{app}-7d9f8b6c5-x2k42_5c1ad1f0-0000-4000-8000-00000000e{}", app.len());
        let dir = rig.node.root().join(pod).join(container);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    };
    rig.node.start();
    symlink(&secret, dir("a", "link").join("0.log")).expect("a link");
    symlink("/etc/shadow", dir("a", "shadow").join("0.log")).expect("a link");
    symlink("/dev/zero", dir("a", "zero").join("0.log")).expect("a link");
    symlink("/proc/self/mem", dir("a", "mem").join("0.log")).expect("a link");
    let hard = fs::hard_link(outside.join("1.log"), dir("a", "hard").join("0.log"));
    hard.expect("a hard link");
    let node = |path: &Path, kind, device| mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device);
    node(&dir("a", "fifo").join("0.log"), FileType::Fifo, 0).expect("a FIFO");
    let device = rustix::fs::makedev(1, 5);
    let devices = node(&dir("a", "device").join("0.log"), FileType::CharacterDevice, device).is_ok();
    if !devices {
        row.note("no device node: that needs root");
    }
    // A FIFO that is held open for writing, so that opening it would not even wait.
    let fifo = dir("aa", "fifo").join("0.log");
    node(&fifo, FileType::Fifo, 0).expect("a FIFO");
    let open = rustix::fs::open(&fifo, rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, Mode::empty());
    let mut open = File::from(open.expect("a FIFO that opens"));
    open.write_all(&text.as_bytes()[..4000]).expect("a FIFO that takes it");
    // Directories that are links: a container's, and a pod's.
    let pod = dir("aaa", "own").parent().expect("a pod").to_owned();
    symlink(&outside, pod.join("swapped")).expect("a link");
    symlink(&outside, rig.node.root().join("evil_b-7d9f8b6c5-x2k42_5c1ad1f0-0000-4000-8000-00000000e009"))
        .expect("a link");
    // One that is followed already is swapped in the middle: file, and directory.
    let victims = [rig.node.add("evil", "victim", 900, "file"), rig.node.add("evil", "other", 901, "dir")];
    for victim in &victims {
        victim.write();
    }
    let arrived = rig.wait(scale.settle(), || victims.iter().all(|victim| rig.oracle.has(victim.index, 0)));
    row.check(arrived, "the victims' lines did not arrive before the swap");
    let live = victims[0].log.live();
    symlink(&secret, live.with_extension("new")).expect("a link");
    fs::rename(live.with_extension("new"), live).expect("a swap");
    let directory = victims[1].log.live().parent().expect("a directory").to_owned();
    fs::rename(&directory, outside.join("kept")).expect("a swap");
    symlink(&outside, &directory).expect("a link");
    rig.oracle.forget_latencies();
    std::thread::sleep(scale.time(2500));
    let latency = rig.oracle.latency(|index| index < load.containers);
    for victim in &victims {
        rig.node.retire(victim);
    }
    rig.fault_ends();
    let outcome = rig.settle();
    let skipped = outcome.rose("nodewick_log_skipped_files_total");
    row.note(format!("{skipped} files skipped; others' latency p99 {} ms", latency.p99_millis));
    row.check(skipped >= 7.0, format!("{skipped} skipped files counted"));
    let canary = rig.oracle.broken().iter().any(|line| line.contains("CANARY") || line.contains("root:"));
    row.check(!canary, "a foreign file was exported");
    row.check(latency.max_millis <= 1500, format!("the reader was held up: {latency:?}"));
    drop(open);
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

const MAX_EVENTS: &str = "/proc/sys/fs/inotify/max_queued_events";

/// Puts a sysctl back when dropped.
struct Restored(&'static str, String);

impl Restored {
    fn set(path: &'static str, value: &str) -> Option<Self> {
        let before = fs::read_to_string(path).ok()?;
        fs::write(path, value).ok()?;
        Some(Self(path, before))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = fs::write(self.0, &self.1);
    }
}

#[test]
fn row_10_event_queue_overflows() {
    let scale = Scale::of_run();
    let creates = scale.pick(3000, 50_000);
    let injected = format!("a queue of 16 events, {creates} names made and removed in the log root");
    let mut row = Row::begin(10, "inotify queue overflow", injected);
    // It counts for instances made while it holds: the agent's, which starts now.
    let Some(small) = Restored::set(MAX_EVENTS, "16") else {
        return row.skip("needs root: fs.inotify.max_queued_events cannot be written");
    };
    let load = Load { containers: 4, lines_per_second: 200, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    drop(small);
    rig.node.start();
    let (mut new, root) = (Vec::new(), rig.node.root().to_owned());
    for number in 0..creates {
        let path = root.join(format!("noise-{number}"));
        fs::create_dir(&path).and_then(|()| fs::remove_dir(&path)).expect("a directory");
        if number % (creates / 10) == creates / 20 {
            let container = rig.node.add("late", &format!("late-{number}"), 2000 + number, "main");
            container.write();
            new.push(container);
        }
    }
    rig.fault_ends();
    // Its first line is as old as the file.
    let found = rig.wait(Duration::from_secs(11), || new.iter().all(|new| rig.oracle.has(new.index, 0)));
    row.check(found, "new files were not found within the rescan interval");
    let indexes: HashSet<usize> = new.iter().map(|container| container.index).collect();
    let latency = rig.oracle.latency(|index| indexes.contains(&index));
    let outcome = rig.settle();
    row.note(format!("new files found after at most {} ms", latency.max_millis));
    row.check(latency.max_millis <= 10_500, format!("{latency:?}"));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_11_no_inotify_instances_and_no_watches() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        11,
        "inotify instances and watches exhausted",
        "a user namespace that grants 0 instances, then 8 watches",
    );
    let within = |limit: &str| -> Vec<String> {
        let script = format!("echo {limit} && exec \"$@\"");
        ["unshare", "--user", "--map-root-user", "sh", "-c", &script, "agent"].map(str::to_owned).into()
    };
    let limits = ["0 > /proc/sys/user/max_inotify_instances", "8 > /proc/sys/user/max_inotify_watches"];
    let probe = within(limits[0]);
    let works = Command::new(&probe[0]).args(&probe[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return row.skip("needs user namespaces with limits of their own");
    }
    let mut total = Outcome::default();
    for limit in limits {
        let load = Load { containers: 16, lines_per_second: scale.pick(400, 4000), ..scale.load() };
        let agent = Settings { under: within(limit), ..Settings::default() };
        let mut rig = Rig::start(Setup { load, agent, ..Setup::default() });
        let missing = || rig.agent.metric("nodewick_log_watches_missing").unwrap_or(0.0);
        let told = rig.wait(Duration::from_secs(5), || missing() > 0.0);
        row.check(told, format!("{limit}: the metric says that no watch is missing"));
        rig.node.start();
        std::thread::sleep(scale.time(1500) / 2);
        let new: Vec<_> = (0..4)
            .map(|number| {
                std::thread::sleep(Duration::from_millis(90));
                let container = rig.node.add("late", &format!("late-{number}"), 2000 + number, "main");
                container.set_rate(20.0);
                container.index
            })
            .collect();
        std::thread::sleep(scale.time(1500) / 2);
        rig.fault_ends();
        let outcome = rig.settle();
        let (all, late) = (rig.oracle.latency(|_| true), rig.oracle.latency(|index| new.contains(&index)));
        row.note(format!(
            "{limit}: p99 {} ms, new containers at most {} ms",
            all.p99_millis, late.max_millis
        ));
        row.check(all.p99_millis <= 2000, format!("{limit}: {all:?}"));
        row.check(late.max_millis <= 2500, format!("{limit}: new containers {late:?}"));
        total.add(&outcome);
    }
    row.finish(&total, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_12_too_many_open_files() {
    let scale = Scale::of_run();
    let mut row = Row::begin(12, "Too many open files", "prlimit --nofile=64, 500 logs");
    let under = ["prlimit", "--nofile=64"].map(str::to_owned);
    let works = Command::new(&under[0]).arg(&under[1]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return row.skip("needs prlimit");
    }
    let load = Load { containers: 500, lines_per_second: scale.pick(1000, 5000), ..scale.load() };
    let agent = Settings { under: under.into(), ..Settings::default() };
    let mut rig = Rig::start(Setup { load, agent, launch: false, ..Setup::default() });
    rig.launch();
    rig.wait(Duration::from_secs(2), || rig.agent.get("/health/ready").is_ok_and(|answer| answer.0 == 200));
    rig.load_for(scale.time(2000));
    rig.node.rotate_all();
    rig.load_for(scale.time(1000));
    let outcome = rig.settle();
    row.check(rig.agent.runs(), "the agent has ended");
    let parked = outcome.after.get("nodewick_logs_parked").copied().unwrap_or(0.0);
    row.note(format!("{parked} logs parked, {} received twice", outcome.tally.duplicated));
    row.check(parked > 0.0, "the metric says that no log is parked");
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_13_fragments_over_rotation_and_across_streams() {
    let scale = Scale::of_run();
    let mut row = Row::begin(
        13,
        "Fragments over a rotation, both streams interleaved",
        "P on stdout and stderr, rotation and kill -9 before their F",
    );
    let load = Load { containers: 6, lines_per_second: scale.pick(300, 6000), ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    // Those with a rate write by themselves; these three are written by hand.
    let hands: Vec<_> =
        (0..3).map(|n| rig.node.add("hand", &format!("hand-{n}"), 3000 + n, "main")).collect();
    rig.node.start();
    let rounds = scale.pick(12, 200);
    let mut split = 0;
    for round in 0..rounds {
        let mut open = Vec::new();
        for (number, hand) in hands.iter().enumerate() {
            let bytes = [400, 20_000, 70_000][(round + number) % 3];
            let (_, out) = hand.compose(bytes, 2);
            let (_, err) = hand.compose(bytes / 2, 2);
            let cut = [out.len() * (round + 1) / (rounds + 2), err.len() / 3];
            hand.log.write_record(Pipe::Stdout, 'P', &out[..cut[0]]).expect("written");
            hand.log.write_record(Pipe::Stderr, 'P', &err[..cut[1]]).expect("written");
            open.push((out, err, cut));
        }
        std::thread::sleep(Duration::from_millis(if round % 3 == 0 { 250 } else { 20 }));
        for hand in &hands {
            hand.log.rotate(Duration::from_millis(3)).expect("rotation");
        }
        // A checkpoint is at most a second old; the kubelet's four files must reach back to it.
        let restarts = round % 4 == 3;
        if restarts {
            rig.kill();
            // One more while it is down.
            hands[0].log.rotate(Duration::from_millis(3)).expect("rotation");
        }
        for (hand, (out, err, cut)) in hands.iter().zip(&open) {
            hand.log.write_record(Pipe::Stderr, 'F', &err[cut[1]..]).expect("written");
            hand.log.write_record(Pipe::Stdout, 'F', &out[cut[0]..]).expect("written");
            hand.write();
            split += 2;
        }
        if restarts {
            rig.launch();
            rig.agent.wait_ready();
        }
        // Within what the kubelet keeps.
        if round % 2 == 1 {
            let arrived = rig.wait(scale.settle(), || {
                hands.iter().all(|hand| rig.oracle.of(hand.index).0 == rig.oracle.of(hand.index).1)
            });
            row.check(arrived, format!("round {round}: a line is missing"));
        }
        if round % 4 == 2 {
            std::thread::sleep(Duration::from_millis(1300));
        }
    }
    rig.fault_ends();
    let outcome = rig.settle();
    row.note(format!("{split} records split by a rotation, {} kills", rounds / 4));
    row.finish(&outcome, Pass::default());
}

#[test]
fn row_14_line_without_an_end() {
    let scale = Scale::of_run();
    let megabytes = scale.pick(12, 1024);
    let mut row = Row::begin(
        14,
        "Line without an end",
        format!("{megabytes} MiB without a newline, and as much in P records"),
    );
    let load = Load { containers: 4, lines_per_second: 400, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    rig.oracle.accept_foreign(|text| text.starts_with("ENDLESS"));
    let hands: Vec<_> =
        (0..2).map(|n| rig.node.add("endless", &format!("endless-{n}"), 4000 + n, "main")).collect();
    rig.node.start();
    // First as much in lines of the longest kind, so that the difference is the endless line's own.
    let pace = Duration::from_millis(20);
    // At least as fast, and until the allocator has what it wants.
    let of = |hand: &std::sync::Arc<crate::node::Container>| rig.oracle.of(hand.index);
    let mut peak = 0;
    for _ in 0..5 {
        for _ in 0..(megabytes * 2).min(100) {
            for hand in &hands {
                for _ in 0..3 {
                    hand.write_sized(230_000);
                }
            }
            std::thread::sleep(pace);
        }
        let arrived = rig.wait(scale.settle(), || hands.iter().all(|hand| of(hand).0 == of(hand).1));
        row.check(arrived, "the long lines did not arrive");
        let before = std::mem::replace(&mut peak, rig.peak_rss_bytes());
        if peak < before + (256 << 10) {
            break;
        }
    }
    let base = (peak, rig.oracle.latency(|index| index < load.containers));
    rig.oracle.forget_latencies();
    let piece = "ENDLESS ".repeat(2048);
    hands[0].log.write_raw(format!("{} stdout F ", stamp()).as_bytes()).expect("written");
    for _ in 0..megabytes * 2 {
        for _ in 0..32 {
            hands[0].log.write_raw(piece.as_bytes()).expect("written");
            hands[1].log.write_record(Pipe::Stdout, 'P', piece.as_bytes()).expect("written");
        }
        std::thread::sleep(pace);
    }
    std::thread::sleep(Duration::from_millis(500));
    let during = (rig.peak_rss_bytes(), rig.oracle.latency(|index| index < load.containers));
    hands[0].log.write_raw(b"\n").expect("written");
    hands[1].log.write_record(Pipe::Stdout, 'F', b"end").expect("written");
    rig.fault_ends();
    let outcome = rig.settle();
    let grown = during.0.saturating_sub(base.0);
    row.note(format!(
        "RSS +{} KiB; others' p99 {} ms, before {} ms",
        grown >> 10,
        during.1.p99_millis,
        base.1.p99_millis
    ));
    // Between 12 MiB and nothing, an allocator on a busy machine may take a few; the soak's GiB is held to the row's limit.
    row.check(grown <= scale.pick(4, 1) << 20, format!("RSS grew by {} KiB", grown >> 10));
    let allowed = base.1.p99_millis + 100;
    row.check(during.1.p99_millis <= allowed, format!("others' latency {:?}, before {:?}", during.1, base.1));
    let cut = rig.oracle.foreign();
    let lengths: Vec<usize> = cut.iter().map(String::len).collect();
    row.check(cut.len() == 2, format!("{} pieces arrived: {lengths:?}", cut.len()));
    row.check(lengths.iter().all(|len| *len <= 256 << 10), format!("cut at {lengths:?}"));
    let told = rig.agent.metric("nodewick_log_malformed_total").unwrap_or(0.0);
    row.check(told >= 2.0, format!("{told} cut lines counted"));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_15_hostile_bytes() {
    let scale = Scale::of_run();
    let count = scale.pick(4000, 400_000);
    let mut row = Row::begin(
        15,
        "Hostile bytes",
        format!("{count} lines of random bytes, NUL, CR, ANSI, bad headers, docker JSON"),
    );
    let load = Load { containers: 4, lines_per_second: 200, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    rig.oracle.accept_foreign(|text| text.contains("HOSTILE-"));
    let hand = rig.node.add("hostile", "fuzzer", 5000, "main");
    rig.node.start();
    let mut noise = Noise(0x5eed);
    let mut bytes = Vec::new();
    for number in 0..count {
        bytes.clear();
        let len = noise.next() % 200;
        let random: Vec<u8> = (0..len).map(|_| noise.next() as u8).filter(|byte| *byte != b'\n').collect();
        let head = format!("HOSTILE-{number}-");
        let text: &[u8] = match number % 8 {
            0 => b"\x00\x00\x00 \x1b[31mred\x1b[0m \r\r",
            1 => b"\xff\xfe\xc3\x28\xed\xa0\x80\xf8\x88",
            2 => b"{\"level\":30,\"msg\":\"{{.}} ${jndi:ldap://x} %s%n\",\"__tenant__\":\"x\"}",
            _ => &random,
        };
        match number % 16 {
            // No header at all, and one that nearly is one.
            5 => bytes.extend_from_slice(head.as_bytes()),
            7 => bytes.extend_from_slice(format!("2026-13-45T99:99:99Z stdout F {head}").as_bytes()),
            11 => bytes.extend_from_slice(format!("{} stdnone X {head}", stamp()).as_bytes()),
            13 => {
                let json =
                    serde_json::json!({ "log": format!("{head}\n"), "stream": "stdout", "time": stamp() });
                bytes.extend_from_slice(json.to_string().as_bytes());
            }
            _ => {
                bytes.extend_from_slice(format!("{} stderr F {head}", stamp()).as_bytes());
                bytes.extend(text.iter().filter(|byte| **byte != b'\n'));
            }
        }
        bytes.push(b'\n');
        hand.log.write_raw(&bytes).expect("written");
        if number % 100 == 0 {
            hand.write();
        }
    }
    // A torn tail waits for the rest of its line.
    hand.log.write_raw(format!("{} stdout F HOSTILE-torn-", stamp()).as_bytes()).expect("written");
    std::thread::sleep(Duration::from_millis(900));
    let torn = rig.oracle.foreign().iter().any(|line| line.contains("HOSTILE-torn"));
    row.check(!torn, "a torn tail did not wait");
    hand.log.write_raw(b"whole\n").expect("written");
    rig.fault_ends();
    let outcome = rig.settle();
    let arrived = rig.oracle.foreign();
    let whole = arrived.iter().filter(|line| line.ends_with("HOSTILE-torn-whole")).count();
    row.check(whole == 1, format!("the torn line arrived {whole} times whole"));
    let numbers = arrived
        .iter()
        .filter_map(|line| line.split_once("HOSTILE-")?.1.split_once('-')?.0.parse::<usize>().ok());
    let numbers: HashSet<usize> = numbers.collect();
    let missing: Vec<_> = (0..count).filter(|number| !numbers.contains(number)).take(10).collect();
    row.check(
        numbers.len() == count,
        format!("{} of {count} hostile lines arrived; missing {missing:?}", numbers.len()),
    );
    let refused: Vec<_> = rig
        .loki
        .requests()
        .iter()
        .filter(|seen| seen.status >= 400)
        .map(|seen| (seen.status, seen.text.clone()))
        .collect();
    row.check(refused.is_empty(), format!("refused: {:?}", refused.first()));
    row.check(rig.agent.runs(), "the agent has ended");
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}
