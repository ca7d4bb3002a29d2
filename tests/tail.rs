//! The tail against real files, with a clock that the test moves and a sink that the test acknowledges.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nodewick::data::batch::{Fields, Marks as RecordMarks};
use nodewick::data::budget::{Budget, Signal};
use nodewick::data::delivery::{Fanout, Outlet, Shipment};
use nodewick::data::pods::{LONGEST_WAIT, Pods, Reader};
use nodewick::data::units::Percent;
use nodewick::data::workload::{Identify, PathIdentity};
use nodewick::logs::checkpoint::Marks;
use nodewick::logs::disk::OsDisk;
use nodewick::logs::env::{Entry, Env, OpenError};
use nodewick::logs::ingest::Settings;
use nodewick::logs::os::{Os, OsFile};
use nodewick::logs::process::Chain;
use nodewick::logs::registry::Registry;
use nodewick::logs::spill::{self, Spill};
use nodewick::logs::tail::{Next, Options, Start, Tail};
use parking_lot::Mutex;

const POD: &str = "shop_checkout-d994d45d6-5h9zr_d11c6e6d-84fc-49ec-95a1-4ee5155f656a";
const HOUR: u64 = 3_600_000_000_000;
/// 2026-11-22T14:00:00Z.
const BASE: u64 = 1_795_356_000_000_000_000;

/// Something that happens right after the nth listing of a container's directory, or opening of a file in it.
type Overtake = Arc<Mutex<Option<(Call, u32, Box<dyn FnOnce() + Send>)>>>;

#[derive(Clone, Copy, PartialEq)]
enum Call {
    List,
    Open,
}

impl TestEnv {
    fn count(&self, call: Call, dir: &Path) {
        let mut overtake = self.overtake.lock();
        if dir.ends_with("api")
            && let Some((awaited, countdown, _)) = overtake.as_mut()
            && *awaited == call
        {
            *countdown -= 1;
            if *countdown == 0
                && let Some((_, _, happen)) = overtake.take()
            {
                happen();
            }
        }
    }
}

/// Real files, the test's own clock.
struct TestEnv {
    os: Os,
    overtake: Overtake,
    millis: Arc<AtomicU64>,
}

impl Env for TestEnv {
    type File = OsFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let entries = self.os.list(dir);
        self.count(Call::List, dir);
        entries
    }
    fn modified(&self, dir: &Path) -> io::Result<u64> {
        self.os.modified(dir)
    }
    fn open(&self, path: &Path) -> Result<OsFile, OpenError> {
        let file = self.os.open(path);
        self.count(Call::Open, path.parent().expect("a directory"));
        file
    }
    fn open_gzip(&self, path: &Path) -> Result<OsFile, OpenError> {
        self.os.open_gzip(path)
    }
    fn identity(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.os.identity(path)
    }
    fn link_target(&self, path: &Path) -> Option<PathBuf> {
        self.os.link_target(path)
    }
    fn watch(&mut self, _: &Path) {}
    fn unwatch(&mut self, _: &Path) {}
    fn take_changes(&mut self) -> bool {
        true
    }
    fn now(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
    fn unix_nano(&self) -> u64 {
        BASE + 12 * HOUR + self.millis.load(Ordering::Relaxed) * 1_000_000
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Shipment>>>);

impl Outlet for Sink {
    fn required(&self) -> bool {
        true
    }
    fn offer(&self, shipment: Shipment) {
        self.0.lock().push(shipment);
    }
}

/// A node with one agent that can be killed and started again.
struct Rig {
    dir: tempfile::TempDir,
    millis: Arc<AtomicU64>,
    overtake: Overtake,
    sink: Sink,
    tail: Option<Tail<TestEnv>>,
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    max_open: usize,
    /// What the Kubernetes watch knows; without it the path says all.
    pods: Option<Pods>,
    /// The spill, on the rig's own disk once it is attached.
    spill: Arc<Spill>,
    /// Everything that was ever shipped, in order: (pod directory name's pod, text, time).
    shipped: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq)]
struct Line {
    pod: String,
    text: String,
    time: u64,
    trace: Option<String>,
    marks: RecordMarks,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            dir: tempfile::tempdir().expect("temp dir"),
            millis: Arc::default(),
            overtake: Arc::default(),
            sink: Sink::default(),
            tail: None,
            registry: Registry::new(Marks::new()),
            budget: Budget::new(32 << 20, Arc::default()),
            max_open: 1000,
            pods: None,
            spill: Spill::new(&spill::Config::default()),
            shipped: Vec::new(),
        };
        fs::create_dir_all(rig.root()).expect("root");
        rig.start(Marks::new());
        rig
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("pods")
    }

    fn start(&mut self, marks: Marks) {
        self.start_with(marks, Start::Oldest, 32 << 20);
    }

    fn start_with(&mut self, marks: Marks, start: Start, memory: u64) {
        let signal = Arc::<Signal>::default();
        self.budget = Budget::new(memory, Arc::clone(&signal));
        self.registry = Registry::new(marks);
        let options = Options {
            root: self.root(),
            tick: Duration::from_millis(100),
            rescan: Duration::from_secs(10),
            start,
            per_log: 1 << 20,
            max_open: self.max_open,
            held_deleted: 1 << 30,
            last_words: true,
            own_pod: None,
        };
        self.tail = Some(Tail::new(
            TestEnv {
                overtake: Arc::clone(&self.overtake),
                os: Os::new(self.root(), vec![self.dir.path().join("docker")], Arc::clone(&signal)),
                millis: Arc::clone(&self.millis),
            },
            options,
            Settings::new(
                Fields::ALL,
                Chain::compile(&nodewick::logs::process::Config::default()).expect("no rules"),
                256 << 10,
            ),
            self.identify(),
            Fanout::new(vec![Box::new(self.sink.clone())]),
            Arc::clone(&self.budget),
            signal,
            Arc::clone(&self.registry),
            Arc::clone(&self.spill),
        ));
    }

    /// Gives later lives a spill that is kept in the rig's directory.
    fn keep_spill(&mut self) {
        let dir = self.dir.path().join("state");
        fs::create_dir_all(&dir).expect("dir");
        self.spill = Spill::new(&spill::Config { min_free: Percent::whole(0), ..spill::Config::default() });
        self.spill.attach(Arc::new(OsDisk::new(&dir))).expect("attaches");
    }

    fn identify(&self) -> Box<dyn Identify> {
        let paths = PathIdentity { cluster: "c1".into(), node: "n1".into(), environment: None };
        match &self.pods {
            Some(pods) => Box::new(Reader::new(pods.clone(), paths, LONGEST_WAIT)),
            None => Box::new(paths),
        }
    }

    fn log(&self, pod: &str, name: &str) -> PathBuf {
        let path = self.root().join(pod).join("api").join(name);
        fs::create_dir_all(path.parent().expect("dir")).expect("dir");
        path
    }

    fn append(&self, path: &Path, text: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("log");
        file.write_all(text.as_bytes()).expect("write");
    }

    /// Steps through `ticks` ticks, acknowledging nothing.
    fn run(&mut self, ticks: u32) {
        let tail = self.tail.as_mut().expect("running");
        for _ in 0..ticks {
            self.millis.fetch_add(100, Ordering::Relaxed);
            while tail.step() == Next::Now {}
        }
    }

    /// Takes what was shipped and acknowledges it.
    fn ack(&mut self) -> Vec<String> {
        let shipments = std::mem::take(&mut *self.sink.0.lock());
        let mut texts = Vec::new();
        for shipment in shipments {
            for record in &shipment.batch.records {
                let text = String::from_utf8(shipment.batch.body(record).to_vec()).expect("UTF-8");
                texts.push(text.clone());
                self.shipped.push(Line {
                    pod: shipment.batch.workload.container.pod.clone(),
                    text,
                    time: record.time_unix_nano,
                    trace: record.trace_id.map(|id| id.to_string()),
                    marks: record.marks,
                });
            }
            shipment.ticket.expect("required sinks get tickets").delivered();
        }
        texts
    }

    /// Runs and acknowledges until nothing comes any more.
    fn drain(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut quiet = 0;
        while quiet < 24 {
            self.run(1);
            let more = self.ack();
            quiet = if more.is_empty() { quiet + 1 } else { 0 };
            texts.extend(more);
        }
        texts
    }

    /// kill -9: what is in memory is gone; the checkpoint is what was committed.
    fn kill(&mut self) -> Marks {
        let marks = self.registry.marks().into_iter().map(|(key, mark)| (key.to_string(), mark)).collect();
        self.tail = None;
        self.sink.0.lock().clear();
        marks
    }

    /// What the kubelet does with a rotated file at the next rotation.
    fn compress(&self, live: &Path, stamp: &str) {
        let from = live.with_file_name(format!("0.log.{stamp}"));
        let content = fs::read(&from).expect("rotated");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content).expect("to memory");
        let tmp = live.with_file_name(format!("0.log.{stamp}.tmp"));
        fs::write(&tmp, gzip.finish().expect("to memory")).expect("write");
        fs::rename(tmp, live.with_file_name(format!("0.log.{stamp}.gz"))).expect("rename");
        fs::remove_file(from).expect("remove");
    }

    fn rotate(&self, live: &Path, stamp: &str) {
        let to = live.with_file_name(format!("0.log.{stamp}"));
        fs::rename(live, to).expect("rename");
    }
}

fn cri(at: u64, text: &str) -> String {
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(BASE + at)).expect("in range");
    format!("{stamp} stdout F {text}\n")
}

#[test]
fn lines_arrive_once_and_in_order() {
    let mut rig = Rig::new();
    let log = rig.log(POD, "0.log");
    for n in 0..1000 {
        rig.append(&log, &cri(n * 1000, &format!("line {n}")));
        if n % 97 == 0 {
            rig.run(1);
            rig.ack();
        }
    }
    rig.drain();
    let texts: Vec<_> = rig.shipped.iter().map(|line| line.text.clone()).collect();
    let expected: Vec<_> = (0..1000).map(|n| format!("line {n}")).collect();
    assert_eq!(texts, expected);
    assert_eq!(rig.shipped[0].pod, "checkout-d994d45d6-5h9zr");
}

#[test]
fn a_line_without_a_stamp_is_delivered_with_a_time_that_backends_take() {
    let mut rig = Rig::new();
    let log = rig.log(POD, "0.log");
    rig.append(&log, "no runtime wrote this\n");
    rig.append(&log, &cri(5, "but this"));
    rig.append(&log, "and not this\n");
    assert_eq!(rig.drain(), ["no runtime wrote this", "but this", "and not this"]);
    assert!(rig.shipped[0].time >= BASE, "{}", rig.shipped[0].time);
    assert_eq!((rig.shipped[1].time, rig.shipped[2].time), (BASE + 5, BASE + 5));
}

#[test]
fn a_log_root_that_appears_late_is_read() {
    let mut rig = Rig::new();
    fs::remove_dir(rig.root()).expect("remove");
    rig.run(30);
    assert!(!rig.tail.as_ref().expect("running").root_readable());
    let log = rig.log(POD, "0.log");
    rig.append(&log, &cri(1, "at last"));
    rig.run(12);
    assert_eq!(rig.ack(), ["at last"]);
}

#[test]
fn torn_tail_waits_for_its_newline() {
    let mut rig = Rig::new();
    let log = rig.log(POD, "0.log");
    let line = cri(1, "in two writes");
    rig.append(&log, &line[..40]);
    assert_eq!(rig.drain(), [""; 0]);
    rig.append(&log, &line[40..]);
    assert_eq!(rig.drain(), ["in two writes"]);
}

#[test]
fn rename_rotation_is_followed_to_the_end_of_the_old_file() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    assert_eq!(rig.drain(), ["a"]);
    rig.append(&live, &cri(2, "b"));
    let mut old = fs::OpenOptions::new().append(true).open(&live).expect("open");
    rig.rotate(&live, "20261122-140001");
    rig.append(&live, &cri(4, "d"));
    rig.run(1);
    // The writer still holds the old file for a moment.
    old.write_all(cri(3, "c").as_bytes()).expect("write");
    assert_eq!(rig.drain(), ["b", "c", "d"]);
}

#[test]
fn several_rotations_between_two_looks_are_read_in_order() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.drain();
    for (n, text) in ["b", "c", "d"].iter().enumerate() {
        rig.append(&live, &cri(10 + n as u64, text));
        rig.rotate(&live, &format!("20261122-14000{n}"));
    }
    rig.append(&live, &cri(20, "e"));
    assert_eq!(rig.drain(), ["b", "c", "d", "e"]);
}

#[test]
fn a_restarted_container_is_found_and_the_old_one_read_to_its_end() {
    let mut rig = Rig::new();
    let first = rig.log(POD, "0.log");
    rig.append(&first, &cri(1, "a"));
    assert_eq!(rig.drain(), ["a"]);
    rig.append(&first, &cri(2, "last words").replace(" F ", " P "));
    let second = rig.log(POD, "1.log");
    rig.append(&second, &cri(3, "again"));
    let mut texts = rig.drain();
    texts.sort();
    assert_eq!(texts[..2], ["again", "last words"]);
    let told = r#"{"level":"error","msg":"container api ended (restart 1 began): its last 2 lines","event":"nodewick.last_words","restart":0,"lines":["a","last words"]}"#;
    assert_eq!(texts[2..], [told]);
}

#[test]
fn an_unlinked_file_is_read_to_its_end_and_forgotten() {
    let mut rig = Rig::new();
    let log = rig.log(POD, "0.log");
    rig.append(&log, &cri(1, "a"));
    rig.run(1);
    rig.append(&log, &cri(2, "b"));
    fs::remove_dir_all(rig.root().join(POD)).expect("remove");
    assert_eq!(rig.drain(), ["a", "b"]);
    rig.run(40);
    assert_eq!(rig.tail.as_ref().expect("running").open_logs(), 0);
    assert!(rig.registry.marks().is_empty());
}

#[test]
fn after_a_kill_unacknowledged_lines_come_again_byte_for_byte() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    let body = |n: u64| {
        let trace =
            if n.is_multiple_of(3) { format!(",\"trace_id\":\"{:032x}\"", n / 3 + 1) } else { String::new() };
        format!("{{\"level\":30,\"reqId\":\"req-{}\"{trace},\"n\":{n},\"msg\":\"x\"}}", n / 3)
    };
    for n in 0..300 {
        rig.append(&live, &cri(n / 2, &body(n)));
    }
    rig.run(3);
    let first: Vec<_> = rig.sink.0.lock().iter().map(|s| s.batch.records.len()).collect();
    assert_eq!(first.iter().sum::<usize>(), 300);
    rig.ack();
    for n in 300..600 {
        rig.append(&live, &cri(n / 2, &body(n)));
        if n % 50 == 0 {
            rig.run(1);
        }
    }
    rig.run(2);
    // Half of the batches are acknowledged, then the process dies.
    let taken: Vec<Shipment> = {
        let mut queue = rig.sink.0.lock();
        let half = queue.len() / 2;
        queue.drain(..half).collect()
    };
    let acked: usize = taken.iter().map(|shipment| shipment.batch.records.len()).sum();
    for shipment in taken {
        shipment.ticket.expect("ticket").delivered();
    }
    let pending: Vec<(u64, Option<String>)> = rig
        .sink
        .0
        .lock()
        .iter()
        .flat_map(|s| {
            s.batch
                .records
                .iter()
                .map(|r| (r.time_unix_nano, r.trace_id.map(|id| id.to_string())))
                .collect::<Vec<_>>()
        })
        .collect();
    let marks = rig.kill();
    rig.start(marks);
    let texts = rig.drain();
    let expected: Vec<_> = (300 + acked as u64..600).map(body).collect();
    assert_eq!(texts, expected);
    let again: Vec<_> = rig.shipped[300..].iter().map(|line| (line.time, line.trace.clone())).collect();
    assert_eq!(again, pending, "times and inherited trace ids are the same the second time");
}

#[test]
fn a_restart_after_rotations_resumes_in_the_renamed_file() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.append(&live, &cri(2, "b"));
    rig.drain();
    let marks = rig.kill();
    rig.append(&live, &cri(3, "c"));
    rig.rotate(&live, "20261122-140001");
    rig.append(&live, &cri(4, "d"));
    rig.rotate(&live, "20261122-140002");
    rig.append(&live, &cri(5, "e"));
    rig.start(marks);
    assert_eq!(rig.drain(), ["c", "d", "e"]);
}

#[test]
fn a_rotation_between_listing_and_opening_leaves_no_hole() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.drain();
    let marks = rig.kill();
    rig.append(&live, &cri(2, "b"));
    rig.rotate(&live, "20261122-140001");
    rig.append(&live, &cri(3, "c"));
    let (from, to) = (live.clone(), live.with_file_name("0.log.20261122-140002"));
    let rotate = move || {
        fs::rename(&from, to).expect("rename");
        fs::write(&from, cri(4, "d")).expect("write");
    };
    // The first listing finds the log, the second one its generations.
    *rig.overtake.lock() = Some((Call::List, 2, Box::new(rotate)));
    rig.start(marks);
    assert_eq!(rig.drain(), ["b", "c", "d"]);
}

#[test]
fn a_restart_resumes_inside_a_compressed_file() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.append(&live, &cri(2, "b"));
    rig.drain();
    let marks = rig.kill();
    rig.append(&live, &cri(3, "c"));
    for n in 1..=4 {
        rig.rotate(&live, &format!("20261122-14000{n}"));
        rig.append(&live, &cri(10 * n, &format!("after {n}")));
        if n > 1 {
            rig.compress(&live, &format!("20261122-14000{}", n - 1));
        }
    }
    rig.start(marks);
    assert_eq!(rig.drain(), ["c", "after 1", "after 2", "after 3", "after 4"]);
    // And once more from a position that names the compressed file.
    let marks = rig.kill();
    rig.append(&live, &cri(99, "z"));
    rig.start(marks);
    assert_eq!(rig.drain(), ["z"]);
}

#[test]
fn an_agent_that_was_held_up_over_several_rotations_reads_them_all() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.drain();
    rig.append(&live, &cri(2, "b"));
    for n in 1..=4 {
        rig.rotate(&live, &format!("20261122-14000{n}"));
        rig.append(&live, &cri(10 * n, &format!("after {n}")));
        if n > 1 {
            rig.compress(&live, &format!("20261122-14000{}", n - 1));
        }
    }
    assert_eq!(rig.drain(), ["b", "after 1", "after 2", "after 3", "after 4"]);
}

#[test]
fn a_first_start_reads_what_is_compressed_too() {
    let mut rig = Rig::new();
    rig.kill();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a"));
    rig.rotate(&live, "20261122-140001");
    rig.compress(&live, "20261122-140001");
    rig.append(&live, &cri(2, "b"));
    rig.start(Marks::new());
    assert_eq!(rig.drain(), ["a", "b"]);
}

#[test]
fn an_open_fragment_survives_a_kill_and_a_rotation() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "whole"));
    rig.append(&live, &cri(2, "first-").replace(" F ", " P "));
    assert_eq!(rig.drain(), ["whole"]);
    rig.rotate(&live, "20261122-140001");
    rig.append(&live, &cri(3, "second-").replace(" F ", " P "));
    assert_eq!(rig.drain(), [""; 0]);
    let marks = rig.kill();
    rig.append(&live, &cri(4, "third"));
    rig.start(marks);
    assert_eq!(rig.drain(), ["first-second-third"]);
}

#[test]
fn a_reused_inode_with_another_first_line_is_another_log() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "old pod's line, long enough to be beyond"));
    rig.drain();
    rig.shipped.clear();
    let mut marks = rig.kill();
    fs::remove_file(&live).expect("remove");
    rig.append(&live, &cri(9, "new"));
    rig.append(&live, &cri(10, "and longer than what the old file had been, so that its offset would fit"));
    // Whatever inode the file system gave, the checkpoint shall name this one.
    use std::os::unix::fs::MetadataExt;
    let inode = fs::metadata(&live).expect("file").ino();
    marks.values_mut().for_each(|mark| mark.position.generation.inode = inode);
    rig.start(marks);
    let texts = rig.drain();
    assert!(texts[0].contains(r#""event":"nodewick.gap""#), "{}", texts[0]);
    assert!(texts[0].contains("an unknown number of bytes"), "{}", texts[0]);
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[1], "new");
    assert_eq!(rig.shipped[0].time, BASE + 9, "the marker has the stamp of the line behind the gap");
}

#[test]
fn a_truncated_log_is_read_from_its_start() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "a long line before the cut"));
    rig.drain();
    fs::OpenOptions::new().write(true).open(&live).expect("open").set_len(0).expect("truncate");
    rig.append(&live, &cri(2, "b"));
    assert_eq!(rig.drain(), ["b"]);
}

#[test]
fn a_log_that_was_cut_and_has_outgrown_its_length_is_read_from_its_start() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "first"));
    rig.append(&live, &cri(2, "equally long 1"));
    assert_eq!(rig.drain().len(), 2);
    fs::OpenOptions::new().write(true).open(&live).expect("open").set_len(0).expect("truncate");
    // The same bytes at the beginning, and others where reading stopped.
    rig.append(&live, &cri(1, "first"));
    rig.append(&live, &cri(3, "equally long 2"));
    rig.append(&live, &cri(4, "longer"));
    assert_eq!(rig.drain(), ["first", "equally long 2", "longer"]);
}

#[test]
fn reading_stops_when_credit_is_spent_and_goes_on_when_it_returns() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    let line = cri(1, &"x".repeat(1000));
    rig.append(&live, &line.repeat(6000));
    rig.run(5);
    let in_flight: usize = rig.sink.0.lock().iter().map(|s| s.batch.arena.len()).sum();
    assert!(in_flight <= 1 << 20, "{in_flight} bytes of one log are in flight");
    assert!(in_flight >= 700 << 10, "{in_flight} bytes of one log are in flight");
    assert_eq!(rig.drain().len(), 6000);
    assert_eq!(rig.budget.held(), 0);
}

#[test]
fn logs_of_one_stream_are_read_oldest_first() {
    let mut rig = Rig::new();
    let other = "shop_checkout-d994d45d6-7k2qx_e11c6e6d-84fc-49ec-95a1-4ee5155f656b";
    for (pod, name) in [(POD, "one"), (other, "two")] {
        let log = rig.log(pod, "0.log");
        for minute in 0..240_u64 {
            rig.append(&log, &cri(minute * 60_000_000_000, &format!("{name} {minute}")));
        }
    }
    rig.drain();
    assert_eq!(rig.shipped.len(), 480);
    let mut newest = 0;
    for line in &rig.shipped {
        assert!(
            line.time + HOUR > newest,
            "{} comes {} s too late",
            line.text,
            (newest - line.time) / 1_000_000_000
        );
        newest = newest.max(line.time);
    }
}

#[test]
fn the_piece_of_an_old_line_holds_no_other_log_of_the_stream() {
    let mut rig = Rig::new();
    let other = rig.log("shop_checkout-d994d45d6-7k2qx_e11c6e6d-84fc-49ec-95a1-4ee5155f656b", "0.log");
    rig.append(&other, &cri(1, "crashed"));
    rig.append(&other, cri(2, "in the middle of").trim_end());
    let log = rig.log(POD, "0.log");
    for minute in 0..240_u64 {
        rig.append(&log, &cri(minute * 60_000_000_000, &format!("{minute}")));
    }
    assert_eq!(rig.drain().len(), 241);
}

#[test]
fn a_giant_line_is_cut_and_the_next_one_is_whole() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, &"x".repeat(3 << 20)));
    rig.append(&live, &cri(2, "next"));
    let texts = rig.drain();
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0].len(), 256 << 10);
    assert_eq!(texts[1], "next");
    assert!(rig.shipped[0].marks.contains(RecordMarks::TRUNCATED));
}

#[test]
fn a_line_without_end_cannot_hold_the_log_for_ever() {
    let mut rig = Rig::new();
    let live = rig.log(POD, "0.log");
    rig.append(&live, cri(1, "").trim_end());
    for _ in 0..40 {
        rig.append(&live, &"y".repeat(256 << 10));
        rig.run(1);
        rig.ack();
    }
    assert_eq!(rig.shipped.len(), 1, "sealed once");
    let position = rig.registry.marks()[0].1.position.offset;
    assert!(position > 4 << 20, "the position moves on: {position}");
    rig.append(&live, "end\n");
    rig.append(&live, &cri(2, "next"));
    assert_eq!(rig.drain(), ["next"]);
}

#[test]
fn the_newest_start_skips_what_was_there_before() {
    let mut rig = Rig::new();
    rig.kill();
    let live = rig.log(POD, "0.log");
    rig.append(&live, &cri(1, "before"));
    rig.start_with(Marks::new(), Start::Newest, 32 << 20);
    assert_eq!(rig.drain(), [""; 0]);
    rig.append(&live, &cri(2, "after"));
    let late = rig.log("shop_cart-d994d45d6-5h9zr_uid2", "0.log");
    rig.append(&late, &cri(3, "late"));
    let mut texts = rig.drain();
    texts.sort();
    assert_eq!(texts, ["after", "late"]);
}

#[path = "tail/traces.rs"]
mod traces;

#[path = "tail/places.rs"]
mod places;
#[path = "tail/pods.rs"]
mod pods;
#[path = "tail/recorder.rs"]
mod recorder;
