//! Log files that applications write, against real files, with a clock that the test moves and a sink that the test
//! acknowledges: every way of rotation, with the agent running, killed and away.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nodewick::data::batch::Fields;
use nodewick::data::budget::{Budget, Signal};
use nodewick::data::delivery::{Fanout, Outlet, Shipment};
use nodewick::data::workload::{PathIdentity, Workload};
use nodewick::logs::checkpoint::Marks;
use nodewick::logs::env::{Entry, Env, OpenError};
use nodewick::logs::files::{self, Around, Identity, Sources};
use nodewick::logs::ingest::Settings;
use nodewick::logs::os::{Os, OsFile};
use nodewick::logs::process::Chain;
use nodewick::logs::registry::Registry;
use nodewick::logs::spill::{self, Spill};
use nodewick::logs::tail::{Next, Options, Start, Tail};
use parking_lot::Mutex;

/// 2026-11-22T14:00:00Z.
const BASE: u64 = 1_795_356_000_000_000_000;

struct TestEnv {
    os: Os,
    millis: Arc<AtomicU64>,
}

impl Env for TestEnv {
    type File = OsFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.os.list(dir)
    }
    fn modified(&self, dir: &Path) -> io::Result<u64> {
        self.os.modified(dir)
    }
    fn open(&self, path: &Path) -> Result<OsFile, OpenError> {
        self.os.open(path)
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
        BASE + self.millis.load(Ordering::Relaxed) * 1_000_000
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

/// What became of a line.
#[derive(Debug, Clone)]
struct Line {
    text: String,
    time: u64,
    workload: Arc<Workload>,
}

/// A directory of log files with an agent that can be killed and started again.
struct Rig {
    dir: tempfile::TempDir,
    config: String,
    around: Around,
    millis: Arc<AtomicU64>,
    sink: Sink,
    tail: Option<Tail<TestEnv>>,
    registry: Arc<Registry>,
    max_open: usize,
    shipped: Vec<Line>,
}

impl Rig {
    /// `config` is what stands below `[logs.files]`, with `DIR` for the directory of the files.
    fn new(config: &str) -> Self {
        let mut rig = Self {
            dir: tempfile::tempdir().expect("temp dir"),
            config: config.to_owned(),
            around: Around::default(),
            millis: Arc::default(),
            sink: Sink::default(),
            tail: None,
            registry: Registry::new(Marks::new()),
            max_open: 1000,
            shipped: Vec::new(),
        };
        fs::create_dir_all(rig.logs()).expect("a directory");
        rig.start(Marks::new(), Start::Oldest);
        rig
    }

    fn app() -> Self {
        Self::new("[app]\npaths = [\"DIR/*.log\"]\nservice = \"checkout\"\n")
    }

    fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    fn start(&mut self, marks: Marks, start: Start) {
        let signal = Arc::<Signal>::default();
        let budget = Budget::new(32 << 20, Arc::clone(&signal));
        self.registry = Registry::new(marks);
        let config = self.config.replace("DIR", &self.logs().to_string_lossy());
        let config: BTreeMap<String, files::Config> = toml::from_str(&config).expect("a config");
        let sources = Arc::new(Sources::compile(&config, self.around.clone()).expect("sources"));
        let options = Options {
            // There is none: only files are read.
            root: self.dir.path().join("pods"),
            tick: Duration::from_millis(100),
            rescan: Duration::from_secs(10),
            start,
            per_log: 1 << 20,
            max_open: self.max_open,
            held_deleted: 1 << 30,
            last_words: true,
            own_pod: None,
        };
        let pods = PathIdentity { cluster: "c1".into(), node: "n1".into(), environment: None };
        let tail = Tail::new(
            TestEnv {
                os: Os::new(options.root.clone(), Vec::new(), Arc::clone(&signal))
                    .with_file_roots(sources.roots()),
                millis: Arc::clone(&self.millis),
            },
            options,
            Settings::new(Fields::ALL, Chain::compile(&Default::default()).expect("no rules"), 256 << 10),
            Box::new(Identity::new(Box::new(pods), Arc::clone(&sources), "c1", "n1", "")),
            Fanout::new(vec![Box::new(self.sink.clone())]),
            budget,
            signal,
            Arc::clone(&self.registry),
            Spill::new(&spill::Config::default()),
        );
        self.tail = Some(tail.with_files(sources));
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.logs().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        path
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.path(name);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a log");
        file.write_all(text.as_bytes()).expect("written");
    }

    /// Appends the lines `from..to`.
    fn lines(&self, name: &str, from: u32, to: u32) {
        let text: String = (from..to).map(|n| format!("line {n}\n")).collect();
        self.append(name, &text);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn gzip(&self, name: &str) {
        let content = fs::read(self.path(name)).expect("a file");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content).expect("to memory");
        fs::write(self.path(&format!("{name}.gz")), gzip.finish().expect("to memory")).expect("written");
        fs::remove_file(self.path(name)).expect("removed");
    }

    fn copytruncate(&self, name: &str, to: &str) {
        fs::copy(self.path(name), self.path(to)).expect("copied");
        fs::File::options().write(true).open(self.path(name)).expect("a log").set_len(0).expect("cut");
    }

    fn run(&mut self, ticks: u32) {
        let tail = self.tail.as_mut().expect("running");
        for _ in 0..ticks {
            self.millis.fetch_add(100, Ordering::Relaxed);
            let mut steps = 0;
            while tail.step() == Next::Now {
                steps += 1;
                assert!(steps < 100_000, "the tail turns in circles");
            }
        }
    }

    fn ack(&mut self) -> Vec<String> {
        let shipments = std::mem::take(&mut *self.sink.0.lock());
        let mut texts = Vec::new();
        for shipment in shipments {
            for record in &shipment.batch.records {
                let text = String::from_utf8(shipment.batch.body(record).to_vec()).expect("UTF-8");
                texts.push(text.clone());
                let workload = Arc::clone(&shipment.batch.workload);
                self.shipped.push(Line { text, time: record.time_unix_nano, workload });
            }
            shipment.ticket.expect("required sinks get tickets").delivered();
        }
        texts
    }

    fn drain(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut quiet = 0;
        while quiet < 40 {
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

    /// Ends the agent when all is delivered, lets something happen, and starts it again.
    fn while_away(&mut self, happens: impl FnOnce(&Self)) {
        let marks = self.kill();
        happens(self);
        self.start(marks, Start::Oldest);
    }
}

fn expected(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| format!("line {n}")).collect()
}

#[test]
fn plain_lines_arrive_once_and_in_order_and_say_whose_they_are() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 500);
    rig.run(2);
    rig.lines("app.log", 500, 1000);
    assert_eq!(rig.drain(), expected(0, 1000));
    let workload = &rig.shipped[0].workload;
    assert_eq!((workload.service_name.as_str(), workload.service_name_guessed), ("checkout", false));
    assert_eq!((workload.cluster.as_str(), workload.node.as_str()), ("c1", "n1"));
    assert_eq!((workload.container.namespace.as_str(), workload.container.pod.as_str()), ("", ""));
    assert_eq!(workload.container.container, "app");
    let path = rig.path("app.log");
    let keys: Vec<String> = rig.registry.marks().into_iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, [format!("file:{}", path.display())]);
}

#[test]
fn a_line_has_its_own_time_or_that_of_the_line_before_or_that_of_reading() {
    let mut rig = Rig::app();
    rig.append("app.log", "no time at all\n");
    rig.append("app.log", "{\"time\":\"2026-11-22T13:59:00.123Z\",\"msg\":\"json\"}\n");
    rig.append("app.log", "    at frame (of a trace)\n");
    rig.append("app.log", "2026-11-22 13:59:01,500 ERROR plain\n");
    rig.append("app.log", "2026-11-22T13:59:02.000000001Z to the nanosecond\n");
    rig.append("app.log", "2099-01-01T00:00:00Z from the future\n");
    rig.drain();
    let times: Vec<u64> = rig.shipped.iter().map(|line| line.time).collect();
    let begin = BASE - 60_000_000_000;
    assert!((BASE..BASE + 1_000_000_000).contains(&times[0]), "{}", times[0]);
    // Less than a millisecond is added to coarse stamps, the same to all of a file.
    let shift = times[1] - (begin + 123_000_000);
    assert!((1000..1_000_000).contains(&shift), "{shift}");
    assert_eq!(times[3], begin + 1_500_000_000 + shift);
    assert_eq!(times[4], begin + 2_000_000_001);
    assert_eq!(times[5], times[4], "a time in the future is not believed");
    assert_eq!(times[2], times[1]);
}

#[test]
fn equal_lines_of_two_files_of_one_stream_differ_in_time() {
    let mut rig = Rig::app();
    for name in ["a.log", "b.log"] {
        rig.append(name, "2026-11-22T13:59:00Z GET /healthz 200\n");
        rig.append(name, "2026-11-22T13:59:00Z GET /healthz 200\n");
    }
    rig.drain();
    let mut times: Vec<u64> = rig.shipped.iter().map(|line| line.time).collect();
    times.sort_unstable();
    times.dedup();
    assert_eq!((rig.shipped.len(), times.len()), (4, 4));
}

#[test]
fn rotation_by_rename_costs_no_line() {
    let mut rig = Rig::app();
    let mut n = 0;
    for round in 0..6 {
        rig.lines("app.log", n, n + 50);
        rig.run(3);
        // Written between the last look and the rename, and by a writer that still holds the old file.
        rig.lines("app.log", n + 50, n + 60);
        for at in (1..round + 1).rev() {
            if rig.path(&format!("app.log.{at}")).exists() {
                rig.rename(&format!("app.log.{at}"), &format!("app.log.{}", at + 1));
            }
        }
        rig.rename("app.log", "app.log.1");
        rig.lines("app.log.1", n + 60, n + 70);
        n += 70;
        rig.lines("app.log", n, n + 5);
        n += 5;
        rig.run(8);
    }
    rig.drain();
    let texts: Vec<_> = rig.shipped.iter().map(|line| line.text.clone()).collect();
    assert!(texts.is_empty() || texts == expected(0, n), "lost, twice or out of order");
    assert_eq!(texts.len(), n as usize);
}

#[test]
fn several_rotations_while_the_agent_was_away_are_read_in_order_also_inside_gzip() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 100);
    assert_eq!(rig.drain(), expected(0, 100));
    rig.while_away(|rig| {
        rig.lines("app.log", 100, 150);
        rig.rename("app.log", "app.log.1");
        rig.lines("app.log", 150, 200);
        rig.gzip("app.log.1");
        rig.rename("app.log.1.gz", "app.log.2.gz");
        rig.rename("app.log", "app.log.1");
        rig.lines("app.log", 200, 250);
    });
    assert_eq!(rig.drain(), expected(100, 250));
}

#[test]
fn rotation_by_date_is_followed_running_and_away() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 10);
    rig.run(3);
    rig.rename("app.log", "app.log-20261122");
    rig.lines("app.log", 10, 20);
    assert_eq!(rig.drain(), expected(0, 20));
    rig.while_away(|rig| {
        rig.lines("app.log", 20, 30);
        rig.rename("app.log", "app.log-20261123");
        rig.gzip("app.log-20261122");
        rig.gzip("app.log-20261123");
        rig.lines("app.log", 30, 40);
    });
    assert_eq!(rig.drain(), expected(20, 40));
}

#[test]
fn a_date_before_the_extension_is_no_log_of_its_own() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 10);
    assert_eq!(rig.drain(), expected(0, 10));
    rig.rename("app.log", "app-2026-11-22.log");
    // The application comes back to its log only later.
    assert_eq!(rig.drain(), [""; 0]);
    rig.lines("app.log", 10, 20);
    assert_eq!(rig.drain(), expected(10, 20));
    rig.while_away(|rig| {
        rig.lines("app.log", 20, 30);
        rig.rename("app.log", "app-2026-11-23.log");
    });
    assert_eq!(rig.drain(), expected(20, 30), "the rest of what was renamed while the agent was away");
    rig.lines("app.log", 30, 40);
    assert_eq!(rig.drain(), expected(30, 40));
}

#[test]
fn files_with_a_date_in_their_names_are_logs_of_their_own_where_there_is_no_other() {
    let mut rig = Rig::app();
    rig.lines("app-2026-11-22.log", 0, 10);
    assert_eq!(rig.drain(), expected(0, 10));
    rig.lines("app-2026-11-23.log", 10, 20);
    assert_eq!(rig.drain(), expected(10, 20));
    rig.while_away(|rig| rig.lines("app-2026-11-23.log", 20, 30));
    assert_eq!(rig.drain(), expected(20, 30));
}

#[test]
fn a_file_that_was_compressed_where_it_was_is_read_to_its_end() {
    let mut rig = Rig::app();
    rig.lines("app-2026-11-22.log", 0, 10);
    assert_eq!(rig.drain(), expected(0, 10));
    rig.while_away(|rig| {
        rig.lines("app-2026-11-22.log", 10, 20);
        rig.gzip("app-2026-11-22.log");
        rig.lines("app-2026-11-23.log", 20, 30);
    });
    let mut texts = rig.drain();
    texts.sort();
    assert_eq!(texts, expected(10, 30));
    rig.gzip("app-2026-11-23.log");
    assert_eq!(rig.drain(), [""; 0]);
    assert_eq!(rig.registry.marks().len(), 0, "done with, and not kept for ever");
}

#[test]
fn copytruncate_costs_no_line_that_was_copied() {
    let mut rig = Rig::app();
    let mut n = 0;
    for round in 1..5 {
        rig.lines("app.log", n, n + 100);
        rig.run(3);
        rig.ack();
        // Copied before it was read.
        rig.lines("app.log", n + 100, n + 150);
        rig.copytruncate("app.log", &format!("app.log-2026112{round}"));
        n += 150;
        rig.lines("app.log", n, n + 10);
        n += 10;
        rig.drain();
    }
    let texts: Vec<_> = rig.shipped.iter().map(|line| line.text.clone()).collect();
    assert_eq!(texts, expected(0, n));
}

#[test]
fn copytruncate_twice_before_the_first_copy_is_read() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 100);
    rig.run(3);
    rig.lines("app.log", 100, 200);
    rig.copytruncate("app.log", "app.log-20261121");
    rig.lines("app.log", 200, 250);
    rig.run(1);
    rig.copytruncate("app.log", "app.log-20261122");
    rig.lines("app.log", 250, 260);
    rig.drain();
    let texts: Vec<_> = rig.shipped.iter().map(|line| line.text.clone()).collect();
    assert_eq!(texts, expected(0, 260));
}

#[test]
fn copytruncate_while_the_agent_was_away_is_read_from_the_compressed_copy() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 100);
    assert_eq!(rig.drain(), expected(0, 100));
    rig.while_away(|rig| {
        rig.lines("app.log", 100, 150);
        rig.copytruncate("app.log", "app.log.1");
        rig.gzip("app.log.1");
        rig.lines("app.log", 150, 160);
    });
    assert_eq!(rig.drain(), expected(100, 160));
}

#[test]
fn a_file_that_outgrew_its_cut_before_it_was_seen_is_read_on_in_the_copy() {
    let mut rig = Rig::app();
    rig.lines("app.log", 0, 100);
    rig.drain();
    rig.copytruncate("app.log", "app.log.1");
    rig.lines("app.log", 100, 400);
    rig.drain();
    let texts: Vec<_> = rig.shipped.iter().map(|line| line.text.clone()).collect();
    assert_eq!(texts, expected(0, 400));
}

#[test]
fn nothing_unacknowledged_is_lost_by_kill_in_the_middle_of_a_rotation() {
    for step in 0..6 {
        let mut rig = Rig::app();
        rig.lines("app.log", 0, 50);
        rig.drain();
        rig.lines("app.log", 50, 100);
        rig.run(2);
        // Not acknowledged.
        let mut marks = None;
        let mut kill_at = |at: u32, rig: &mut Rig| {
            if step == at {
                marks = Some(rig.kill());
            }
        };
        kill_at(0, &mut rig);
        rig.rename("app.log", "app.log.1");
        kill_at(1, &mut rig);
        rig.lines("app.log", 100, 150);
        kill_at(2, &mut rig);
        if step > 2 {
            rig.run(1);
        }
        kill_at(3, &mut rig);
        rig.gzip("app.log.1");
        kill_at(4, &mut rig);
        if step > 4 {
            rig.run(12);
        }
        kill_at(5, &mut rig);
        let marks = marks.expect("killed once");
        rig.start(marks, Start::Oldest);
        assert_eq!(rig.drain(), expected(50, 150), "killed at {step}");
    }
}

#[test]
fn files_that_begin_with_the_same_lines_are_told_apart() {
    let banner = "=== checkout 1.2.3 starting ===\n";
    let mut rig = Rig::app();
    rig.append("app.log", banner);
    assert_eq!(rig.drain(), [banner.trim()]);
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", banner);
    assert_eq!(rig.drain(), [banner.trim()], "a second file with the same beginning");
    rig.lines("app.log", 0, 10);
    assert_eq!(rig.drain(), expected(0, 10));
    rig.while_away(|rig| {
        rig.lines("app.log", 10, 20);
        rig.rename("app.log.1", "app.log.2");
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", banner);
    });
    let mut after = expected(10, 20);
    after.push(banner.trim().to_owned());
    assert_eq!(rig.drain(), after);
}

#[test]
fn a_pattern_finds_files_that_come_later_and_leaves_out_what_is_excluded() {
    let mut rig = Rig::new("[app]\npaths = [\"DIR/**/*.log\"]\nexclude = [\"DIR/**/debug*.log\"]\n");
    rig.lines("a.log", 0, 1);
    assert_eq!(rig.drain(), ["line 0"]);
    rig.lines("deep/er/b.log", 1, 2);
    rig.lines("deep/er/debug.log", 7, 8);
    rig.lines("deep/er/.hidden.log", 8, 9);
    rig.lines("deep/er/b.txt", 9, 10);
    assert_eq!(rig.drain(), ["line 1"]);
    assert_eq!(rig.shipped[1].workload.service_name, "app", "nothing else names the service");
    assert!(rig.shipped[1].workload.service_name_guessed);
}

#[test]
fn a_file_that_two_patterns_match_is_read_once() {
    let mut rig = Rig::new(
        "[a]\npaths = [\"DIR/*.log\", \"DIR/app*\"]\nservice = \"first\"\n[b]\npaths = [\"DIR/app.log\"]\nservice = \"second\"\n",
    );
    rig.lines("app.log", 0, 10);
    assert_eq!(rig.drain(), expected(0, 10));
    rig.rename("app.log", "app.log.1");
    rig.lines("app.log", 10, 20);
    assert_eq!(rig.drain(), expected(10, 20), "app* matches the rotated file too");
    assert_eq!(rig.shipped[0].workload.service_name, "first");
    let path = rig.path("other.log");
    fs::hard_link(rig.path("app.log"), path).expect("a second name");
    assert_eq!(rig.drain(), [""; 0]);
}

#[test]
fn links_are_not_followed() {
    let mut rig = Rig::app();
    fs::write(rig.dir.path().join("secret"), "secret\n").expect("a file");
    std::os::unix::fs::symlink(rig.dir.path().join("secret"), rig.path("evil.log")).expect("a link");
    std::os::unix::fs::symlink(rig.dir.path(), rig.path("up")).expect("a link");
    rig.lines("app.log", 0, 1);
    assert_eq!(rig.drain(), ["line 0"]);
}

#[test]
fn the_pod_around_a_sidecar_is_told() {
    let mut rig = Rig::app();
    rig.around = Around {
        namespace: "shop".into(),
        pod: "checkout-1".into(),
        version: Some("1.2".into()),
        environment: Some("prod".into()),
        attributes: vec![("team".into(), "core".into())],
        ..Around::default()
    };
    rig.config.push_str("labels = { tier = \"web\" }\n");
    let marks = rig.kill();
    rig.start(marks, Start::Oldest);
    rig.lines("app.log", 0, 1);
    rig.drain();
    let workload = &rig.shipped[0].workload;
    assert_eq!(
        (workload.container.namespace.as_str(), workload.container.pod.as_str()),
        ("shop", "checkout-1")
    );
    assert_eq!(
        (workload.service_version.as_deref(), workload.environment.as_deref()),
        (Some("1.2"), Some("prod"))
    );
    assert_eq!(workload.attributes, [("team".to_owned(), "core".to_owned())]);
    assert_eq!(workload.labels, [("tier".to_owned(), "web".to_owned())]);
}

#[test]
fn with_few_descriptors_every_file_is_read_all_the_same() {
    let mut rig = Rig::app();
    rig.max_open = 8;
    let marks = rig.kill();
    rig.start(marks, Start::Oldest);
    for file in 0..20 {
        rig.lines(&format!("a{file}x.log"), file, file + 1);
    }
    let mut texts = rig.drain();
    for file in 0..20 {
        rig.rename(&format!("a{file}x.log"), &format!("a{file}x.log.1"));
        rig.lines(&format!("a{file}x.log"), 100 + file, 101 + file);
    }
    texts.extend(rig.drain());
    texts.sort();
    let mut all: Vec<String> = expected(0, 20).into_iter().chain(expected(100, 120)).collect();
    all.sort();
    assert_eq!(texts, all);
}

#[test]
fn newest_begins_at_the_end_of_what_is_there() {
    let mut rig = Rig::app();
    rig.tail = None;
    rig.lines("app.log.1", 0, 10);
    rig.lines("app.log", 10, 20);
    rig.start(Marks::new(), Start::Newest);
    assert_eq!(rig.drain(), [""; 0]);
    rig.lines("app.log", 20, 30);
    assert_eq!(rig.drain(), expected(20, 30));
    rig.tail = None;
    rig.start(Marks::new(), Start::Oldest);
    assert_eq!(rig.drain(), expected(0, 30), "the oldest line on disk is in a rotated file");
}

#[test]
fn a_long_line_is_cut_and_the_next_one_is_whole() {
    let mut rig = Rig::app();
    rig.append("app.log", &format!("{}\nline 1\n", "x".repeat(1 << 20)));
    let texts = rig.drain();
    assert_eq!((texts[0].len(), texts[1].as_str()), (256 << 10, "line 1"));
}

#[test]
fn sources_that_cannot_be_used_say_why() {
    for (config, problem) in [
        ("[app]\n", "app.paths: not set"),
        ("[app]\npaths = [\"app.log\"]\n", "app.paths: \"app.log\" is not an absolute path"),
        ("[app]\npaths = [\"/a.log\"]\nexclude = [\"/\"]\n", "app.exclude: \"/\" names no file"),
        ("[\"a b\"]\npaths = [\"/a.log\"]\n", "a source's name"),
    ] {
        let config: BTreeMap<String, files::Config> = toml::from_str(config).expect("a config");
        let error = Sources::compile(&config, Around::default()).expect_err("refused").to_string();
        assert!(error.contains(problem), "{error}");
    }
}
