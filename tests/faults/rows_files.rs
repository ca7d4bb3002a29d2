//! Rows 1 to 8: files and rotation.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::{Container, Load, Rotation};
use crate::oracle::Tally;
use crate::report::{Pass, Row};
use crate::rig::{Outcome, Rig, Scale, Setup};
use crate::support::agent::Settings;
use crate::support::cri_writer::{ContainerLog, Pipe};
use crate::support::fake_loki::Fault;

/// Rotations after which a file that was live is gone: the kubelet keeps five files, four of them rotated.
const KEPT: usize = 4;

#[test]
fn row_01_rename_rotation_under_load() {
    let scale = Scale::of_run();
    let (max_bytes, every) = scale.pick((32 << 10, 100), (512 << 10, 1000));
    let injected = format!("renamed over {} KiB, looked at every {every} ms", max_bytes >> 10);
    let mut row = Row::begin(1, "Rename rotation under load", injected);
    let rotation = Rotation { max_bytes, every: Duration::from_millis(every) };
    let mut rig = Rig::start(Setup { rotation: Some(rotation), ..Setup::default() });
    rig.load_for(scale.time(4000));
    let outcome = rig.settle();
    let rotations = rig.node.rotations();
    row.note(format!("{rotations} rotations"));
    let could = (scale.load().lines_per_second * scale.time(4000).as_secs() * 300 / max_bytes) as usize;
    row.check(
        rotations >= could / 2 && rotations > 0,
        format!("only {rotations} rotations, {could} were possible"),
    );
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_02_compressed_and_unlinked_before_it_is_read() {
    let scale = Scale::of_run();
    let (every, loud) = scale.pick((800, 4000.0), (10_000, 33_000.0));
    let every = Duration::from_millis(every);
    // Not quite three looks: of what the agent has not read, the first file is compressed, the others are near.
    let frozen = every * 5 / 2;
    let injected = format!("SIGSTOP {frozen:?}, one container at {loud} lines/s, rotated every {every:?}");
    let mut row = Row::begin(2, "Plain file compressed and unlinked before its end is read", injected);
    let rotation = Rotation { max_bytes: scale.pick(64 << 10, 10 << 20), every };
    let load = Load { containers: 4, lines_per_second: 400, ..scale.load() };
    let mut rig = Rig::start(Setup { load, rotation: Some(rotation), ..Setup::default() });
    rig.node.container(0).set_rate(loud);
    rig.load_for(every / 2);
    rig.node.start();
    let before = rig.node.container(0).log.rotations();
    rig.freeze(frozen);
    rig.fault_ends();
    let during = rig.node.container(0).log.rotations() - before;
    std::thread::sleep(scale.pick(Duration::from_millis(500), Duration::from_secs(5)));
    let outcome = rig.settle();
    row.note(format!("{during} rotations while it was stopped"));
    row.check((2..=KEPT).contains(&during), format!("{during} rotations while it was stopped"));
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_03_down_for_up_to_four_rotations() {
    let scale = Scale::of_run();
    let mut row =
        Row::begin(3, "Agent down across rotations", "kill -9, then 1, 2, 3, 4 rotations, then a start");
    let mut rig = Rig::start(Setup::default());
    let piece = scale.time(2500) / 20;
    for rotations in 1..=KEPT {
        rig.node.start();
        // The checkpoint is at most a second old: past the rotations of the round before.
        std::thread::sleep(Duration::from_millis(1300).max(piece));
        rig.kill();
        for _ in 0..rotations {
            std::thread::sleep(piece);
            rig.node.rotate_all();
        }
        std::thread::sleep(piece);
        rig.launch();
        rig.agent.wait_ready();
        rig.node.pause();
        rig.fault_ends();
        let arrived = rig.wait_arrived(scale.settle());
        row.check(arrived, format!("not all had arrived after {rotations} rotations"));
    }
    let outcome = rig.settle();
    let second = scale.load().lines_per_second;
    row.note(format!("{} resent over {KEPT} kills", outcome.tally.duplicated));
    row.finish(&outcome, Pass { duplicated: Some(KEPT as u64 * second), ..Pass::default() });
}

#[test]
fn row_04_down_for_eight_rotations() {
    let scale = Scale::of_run();
    let mut row = Row::begin(4, "Agent down for more rotations than are kept", "kill -9, 8 rotations, start");
    let mut rig = Rig::start(Setup::default());
    let piece = scale.time(2500) / 20;
    rig.node.start();
    std::thread::sleep(Duration::from_millis(1500));
    rig.kill();
    // Numbers of the first lines that are still on disk when the agent starts again.
    let mut kept_from = Vec::new();
    for rotation in 0..8 {
        std::thread::sleep(piece);
        rig.node.pause();
        rig.node.rotate_all();
        if rotation + KEPT + 1 == 8 {
            kept_from = rig.node.containers().iter().map(|container| container.written()).collect();
        }
        rig.node.start();
    }
    std::thread::sleep(piece);
    rig.launch();
    rig.agent.wait_ready();
    rig.fault_ends();
    std::thread::sleep(Duration::from_millis(500));
    let outcome = rig.settle();
    let (mut bytes, mut logs) = (0, 0);
    for (container, from) in rig.node.containers().iter().zip(&kept_from) {
        let lost = rig.oracle.lost(container.index);
        logs += u64::from(!lost.is_empty());
        bytes += lost.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let (first, last) = (lost.first().map(|line| line.0), lost.last().map(|line| line.0));
        let whole = first.zip(last).is_none_or(|(first, last)| last - first + 1 == lost.len() as u64);
        row.check(whole, format!("{}: the loss has holes", container.name.pod));
        let on_disk = last.is_none_or(|last| last < *from);
        row.check(
            on_disk,
            format!("{}: line {last:?} is lost, {from} and later are on disk", container.name.pod),
        );
    }
    let metric = |name| outcome.after.get(name).copied().unwrap_or(0.0) as u64;
    let (gaps, told) = (metric("nodewick_log_gaps_total"), metric("nodewick_log_lost_bytes_total"));
    row.note(format!(
        "{bytes} bytes of {logs} logs gone; reported: {gaps} gaps, {told} bytes, {} markers",
        outcome.tally.gaps
    ));
    row.check(outcome.tally.gaps == logs, format!("{} gap markers, {logs} gaps", outcome.tally.gaps));
    row.check(logs > 0, "nothing was lost: the fault is no fault");
    row.check(gaps == logs, format!("{gaps} gaps reported, {logs} logs have one"));
    // The end of what was lost is never known when its file is gone; what is told must then be told as a gap.
    row.check(told == 0 || told == bytes, format!("{told} lost bytes reported, {bytes} are lost"));
    let outcome = Outcome { tally: Tally { lost: 0, ..outcome.tally }, ..outcome };
    let second = scale.load().lines_per_second;
    row.finish(&outcome, Pass { duplicated: Some(second), gaps: None, ..Pass::default() });
}

#[test]
fn row_05_copytruncate() {
    let scale = Scale::of_run();
    // Longer than a tick: a copy of ten megabytes takes its time.
    let copying = Duration::from_millis(400);
    let mut row =
        Row::begin(5, "copytruncate", format!("copied and truncated each second, {copying:?} apart"));
    let load = Load { containers: 4, lines_per_second: scale.pick(400, 4000), ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    rig.node.start();
    let (end, mut cuts) = (Instant::now() + scale.time(3500), 0);
    // What may be lost: lines from the copy to the cut, by container.
    let mut between: Vec<Vec<(u64, u64)>> = vec![Vec::new(); load.containers];
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(600));
        let containers = rig.node.containers();
        let copied: Vec<u64> = containers
            .iter()
            .map(|container| {
                let live = container.log.live();
                fs::copy(live, live.with_extension("log.1")).expect("a copy");
                container.written().saturating_sub(1)
            })
            .collect();
        std::thread::sleep(copying);
        for (number, container) in containers.iter().enumerate() {
            let cut = container.log.held(|live| OpenOptions::new().write(true).open(live)?.set_len(0));
            cut.expect("a cut");
            between[number].push((copied[number], container.written()));
            cuts += 1;
        }
    }
    rig.fault_ends();
    let outcome = rig.settle();
    let mut lost = 0;
    for (container, between) in rig.node.containers().iter().zip(&between) {
        for (seq, _) in rig.oracle.lost(container.index) {
            lost += 1;
            let allowed = between.iter().any(|(from, to)| (*from..=*to).contains(&seq));
            row.check(allowed, format!("{} line {seq} is lost outside {between:?}", container.name.pod));
        }
    }
    let counted = outcome.rose("nodewick_log_truncations_total");
    row.note(format!("{cuts} cuts, {counted} counted, {lost} lines lost between copy and cut"));
    row.check(counted as usize == cuts, format!("{counted} truncations counted, there were {cuts}"));
    // A line that is cut in its middle is the cut's doing.
    let outcome = Outcome { tally: Tally { lost: 0, ..outcome.tally }, ..outcome };
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_05_truncated_and_outgrown_between_two_looks() {
    let scale = Scale::of_run();
    let mut row =
        Row::begin(5, "copytruncate", "truncated, and longer than before by the next look").part("outgrown");
    let load = Load { containers: 4, lines_per_second: 0, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    for round in 0..3 {
        for container in rig.node.containers() {
            for _ in 0..20 {
                container.write();
            }
        }
        rig.wait_arrived(Duration::from_secs(3));
        for container in rig.node.containers() {
            let cut = container.log.held(|live| OpenOptions::new().write(true).open(live)?.set_len(0));
            cut.expect("a cut");
            for _ in 0..90 {
                container.write();
            }
        }
        let arrived = rig.wait_arrived(Duration::from_secs(3));
        row.check(arrived, format!("round {round}: lines are missing after the cut"));
        if !arrived {
            break;
        }
    }
    let outcome = rig.settle();
    row.finish(&outcome, Pass { duplicated: Some(0), ..Pass::default() });
}

#[test]
fn row_06_inodes_that_come_again_and_equal_beginnings() {
    let scale = Scale::of_run();
    let (rounds, at_once, equal) = scale.pick((5, 40, 1000), (100, 100, 1000));
    let injected =
        format!("{rounds} × {at_once} files unlinked and made anew, {equal} equal first KiB, empty files");
    let mut row = Row::begin(6, "Inode reuse, equal and empty first lines", injected);
    let load = Load { containers: 0, lines_per_second: 0, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    rig.oracle.accept_foreign(|text| text.starts_with("EQUAL "));
    let mut inodes = HashSet::new();
    let (mut number, mut reused) = (0, 0);
    // Containers whose file is unlinked and made anew in the same directory, under the same name and under the next.
    let churn: Vec<_> = (0..at_once)
        .map(|at| rig.node.add("churn", &format!("churn-{at:03}"), 50_000 + at, "main"))
        .collect();
    for round in 0..rounds {
        // While the agent runs, its handles keep the inodes; a file system gives them away again once it is down.
        let down = round % 2 == 1;
        if down {
            rig.kill();
        }
        let restart = u32::try_from(round / 2).expect("few rounds");
        for container in &churn {
            let directory = container.log.live().parent().expect("a directory");
            for file in fs::read_dir(directory).expect("a directory") {
                fs::remove_file(file.expect("an entry").path()).expect("a file that can be removed");
            }
            let pod_dir = container.pod_directory().file_name().expect("a name").to_string_lossy();
            let log = ContainerLog::create(rig.node.root(), &pod_dir, "main", restart).expect("a log");
            let meta = fs::metadata(log.live()).expect("a live log");
            reused += usize::from(!inodes.insert(MetadataExt::ino(&meta)));
            // As many bytes as in the file before: an offset that is taken over hides them all.
            for _ in 0..5 {
                let (_, text) = container.compose(300, 1);
                log.write_line(Pipe::Stdout, &text).expect("a log that can be written");
            }
        }
        if down {
            rig.launch();
        }
        row.check(rig.wait_arrived(scale.settle()), format!("round {round}: lines are missing"));
    }
    churn.iter().for_each(|container| rig.node.retire(container));
    // One head for all, and every fifth stays empty for a while.
    let head = format!("EQUAL {}", "x".repeat(1024));
    let stamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ");
    let record = format!("{stamp} stdout F {head}\n");
    let mut all = Vec::new();
    for _ in 0..equal {
        number += 1;
        let container = rig.node.add("equal", &format!("twin-{number:05}"), number, "main");
        if number % 5 != 0 {
            container.log.write_raw(record.as_bytes()).expect("a log that can be written");
            container.write();
        }
        all.push((container, number % 5 == 0));
    }
    row.check(rig.wait_arrived(scale.settle()), "lines behind equal beginnings are missing");
    rig.kill();
    for (container, empty) in &all {
        if *empty {
            container.log.write_raw(record.as_bytes()).expect("a log that can be written");
        }
        container.write();
    }
    rig.launch();
    rig.agent.wait_ready();
    rig.fault_ends();
    let outcome = rig.settle();
    let heads = rig.oracle.foreign().len();
    row.note(format!("{reused} inodes came again; {heads} equal heads arrived"));
    row.check(heads == equal, format!("{heads} of {equal} equal first lines arrived"));
    row.check(reused > 0, "no inode came again: this file system does not reuse them");
    // What was written between the last checkpoint and the kill cannot be known to have been all.
    row.finish(&outcome, Pass { gaps: None, ..Pass::default() });
}

#[test]
fn row_07_pods_deleted_unread_and_pods_of_half_a_second() {
    let scale = Scale::of_run();
    let (pods, backlog, short) = scale.pick((3, 9000, 12), (20, 60_000, 1000));
    let injected =
        format!("{pods} pods deleted with {backlog} lines unread, backend refusing; {short} pods of 0.5 s");
    let mut row = Row::begin(7, "Pod deleted with a backlog, pods of half a second", injected);
    let load = Load { containers: 4, lines_per_second: 200, ..scale.load() };
    let mut rig = Rig::start(Setup { load, ..Setup::default() });
    rig.node.start();
    rig.loki.set_fault(Some(Fault::EmptyRing));
    let mut doomed = Vec::new();
    for number in 0..pods {
        let container = rig.node.add("doomed", &format!("doomed-{number}"), 10_000 + number, "main");
        for _ in 0..backlog {
            container.write();
        }
        doomed.push(container);
    }
    std::thread::sleep(Duration::from_millis(700));
    for container in &doomed {
        rig.node.delete_pod(&container.name.uid).expect("a pod that can be deleted");
    }
    std::thread::sleep(Duration::from_millis(1500));
    let unread = rig.oracle.written() - rig.oracle.distinct();
    row.check(unread > pods as u64 * backlog, "the backlog had been read before the pods went");
    rig.loki.set_fault(None);
    rig.fault_ends();
    for batch in 0..short / 4 {
        let pods: Vec<_> = (0..4)
            .map(|number| {
                let number = 20_000 + batch * 4 + number;
                let container = rig.node.add("short", &format!("job-{number}"), number, "main");
                container.write();
                container
            })
            .collect();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(100));
            for container in &pods {
                container.write();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        for container in pods {
            // Its last line is as old as the kubelet makes it: the container has ended before its pod is removed.
            rig.node.delete_pod(&container.name.uid).expect("a pod that can be deleted");
        }
    }
    let outcome = rig.settle_within(scale.settle(), Duration::from_secs(6));
    let missing = |prefix: &str| {
        let all = rig.node.containers();
        let of = all.iter().filter(|container| container.name.pod.starts_with(prefix));
        of.map(|container| rig.oracle.lost(container.index).len()).sum::<usize>()
    };
    row.note(format!(
        "{unread} lines were unread when the pods went; missing: {} of deleted pods, {} of short ones",
        missing("doomed"),
        missing("job")
    ));
    row.finish(&outcome, Pass::default());
}

/// A small file system of memory; unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir_all(&at).expect("a mount point");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(&at)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    /// Bytes in use, and bytes in all.
    fn usage(&self) -> (u64, u64) {
        let stat = rustix::fs::statvfs(&self.0).expect("a file system");
        ((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_blocks * stat.f_frsize)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A handle of the agent may still be open: lazily.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Bytes of deleted files that a process holds open.
fn held_deleted_bytes(pid: i32) -> u64 {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let held = entries.flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_string_lossy().ends_with(".log (deleted)").then_some(())?;
        fs::metadata(entry.path()).ok().map(|meta| meta.len())
    });
    held.sum()
}

#[test]
fn row_08_deleted_files_do_not_fill_the_node() {
    let held = Scale::of_run().pick(8 << 20, 100 << 20);
    let row = Row::begin(8, "Deleted files that are held fill the node", "");
    delete_unread(row, held);
}

#[test]
fn row_08_deleted_files_are_spilled_before_they_are_given_up() {
    let row = Row::begin(8, "Deleted files that are held fill the node", "").part("at once");
    delete_unread(row, 1 << 20);
}

/// Deletes pods whose logs nobody has taken, while `held` bytes of deleted files may be held.
fn delete_unread(mut row: Row, held: u64) {
    let scale = Scale::of_run();
    let (pods, each, disk, budget) =
        scale.pick((6, 3 << 20, 24 << 20, 1 << 20), (50, 40 << 20, 4 << 30, 200 << 20_u64));
    let injected = format!(
        "backend down, {pods} pods deleted with {} MiB unread each, spill budget {} MiB on {} MiB, {} MiB may be held",
        each >> 20,
        budget >> 20,
        disk >> 20,
        held >> 20
    );
    row.injected(injected);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(tmpfs) = Tmpfs::mount(directory.path().join("state"), disk) else {
        return row.skip("needs root: no file system can be mounted");
    };
    let load = Load { containers: 2, lines_per_second: 100, ..scale.load() };
    let agent = Settings {
        agent: "memory = \"8MiB\"".to_owned(),
        logs: format!("[logs.spill]\nbudget = \"{}MiB\"\nheld_deleted = \"{}MiB\"", budget >> 20, held >> 20),
        state_dir: Some(tmpfs.0.clone()),
        ..Settings::default()
    };
    let mut rig = Rig::start(Setup { load, agent, launch: false, ..Setup::default() });
    rig.launch();
    rig.agent.wait_ready();
    rig.node.start();
    rig.loki.set_fault(Some(Fault::EmptyRing));
    let (mut most_disk, mut most_held, mut full) = (0, 0, false);
    let pid = rig.agent.pid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let mut look = || {
        let (used, all) = tmpfs.usage();
        most_disk = used.max(most_disk);
        // A look between two ticks may see more; what stays is what counts.
        full |= (all - used) * 100 < all * 15;
        held_deleted_bytes(pid)
    };
    let mut doomed: Vec<Arc<Container>> = Vec::new();
    for number in 0..pods {
        let container = rig.node.add("doomed", &format!("doomed-{number}"), 10_000 + number, "main");
        for _ in 0..each / 340 {
            container.write();
        }
        // Found, and begun to be read.
        std::thread::sleep(scale.pick(Duration::from_millis(300), Duration::from_secs(1)));
        rig.node.delete_pod(&container.name.uid).expect("a pod that can be deleted");
        doomed.push(container);
        look();
    }
    let end = Instant::now() + scale.pick(Duration::from_secs(4), Duration::from_secs(60));
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        let now = look();
        // Two ticks after the last deletion.
        if end - Instant::now() < scale.pick(Duration::from_secs(2), Duration::from_secs(30)) {
            most_held = now.max(most_held);
        }
    }
    rig.loki.set_fault(None);
    rig.fault_ends();
    let outcome = rig.settle_within(scale.settle(), Duration::from_secs(4));
    let lost: u64 =
        doomed.iter().flat_map(|container| rig.oracle.lost(container.index)).map(|(_, bytes)| bytes).sum();
    let metric = |name: &str| outcome.after.get(name).copied().unwrap_or(0.0) as u64;
    let (told, spilled) =
        (metric("nodewick_log_lost_bytes_total"), metric("nodewick_spill_written_bytes_total"));
    let marked: u64 = rig.oracle.notices().iter().filter_map(|notice| notice.line["bytes"].as_u64()).sum();
    row.note(format!(
        "{spilled} bytes spilled, {most_disk} on disk at most, {most_held} in deleted files; {lost} bytes lost, {told} counted, {marked} in markers"
    ));
    row.check(spilled > 0, "nothing was spilled");
    row.check(lost > 0, "nothing was lost: the budget was not exceeded");
    row.check(told == lost, format!("{told} lost bytes counted, {lost} are lost"));
    row.check(marked == lost, format!("{marked} bytes in gap markers, {lost} are lost"));
    // Beside the spill: two slots of checkpoints.
    let allowed = budget + budget / 20 + (1 << 20);
    row.check(most_disk <= allowed, format!("{most_disk} bytes on disk, {allowed} allowed"));
    row.check(!full, "less than 15 % of the file system were free");
    let allowed = held + held / 20;
    row.check(most_held <= allowed, format!("{most_held} bytes in deleted files, {allowed} allowed"));
    let outcome = Outcome { tally: Tally { lost: 0, ..outcome.tally }, ..outcome };
    row.finish(&outcome, Pass { gaps: None, ..Pass::default() });
}
