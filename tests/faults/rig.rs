//! A node, an agent and a Loki, wired together: what nearly every row needs.
//!
//! ```text
//! let mut row = Row::begin(1, "Rename rotation under load", "rename, gzip, remove");
//! let mut rig = Rig::start(Setup { rotation: Some(…), ..Setup::default() });
//! rig.load_for(rig.scale.time(4));       // containers write
//! … the fault, then rig.fault_ends() …
//! row.finish(&rig.settle(), Pass::default());
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::node::{Load, Node, Rotation};
use crate::oracle::{Oracle, Tally};
use crate::support::agent::{Agent, Settings};
use crate::support::fake_loki::{FakeLoki, Limits};

/// How often the agent's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(20);

/// How large and how long: small and short with every change, the standard load in a soak.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub soak: bool,
    seconds: u64,
}

impl Scale {
    /// `NODEWICK_SOAK=1` asks for the soak, `NODEWICK_SOAK_SECONDS` for its length per row (60).
    pub fn of_run() -> Self {
        let seconds = std::env::var("NODEWICK_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
        let soak = std::env::var("NODEWICK_SOAK").is_ok_and(|text| text == "1");
        Self { soak, seconds: seconds.unwrap_or(60) }
    }

    /// The load: a few containers and 1,000 lines per second, or the standard load L.
    pub fn load(self) -> Load {
        let (containers, lines_per_second, writers) = if self.soak { (100, 20_000, 4) } else { (8, 1000, 1) };
        Load { containers, lines_per_second, line_bytes: 300, stderr_every: 50, split_every: 97, writers }
    }

    /// One value for CI, another for the soak.
    pub fn pick<T>(self, ci: T, soak: T) -> T {
        if self.soak { soak } else { ci }
    }

    /// So many milliseconds in CI, the row's time in a soak.
    pub fn time(self, ci_millis: u64) -> Duration {
        self.pick(Duration::from_millis(ci_millis), Duration::from_secs(self.seconds))
    }

    /// Longest time for a fault-free settling phase.
    pub fn settle(self) -> Duration {
        self.pick(Duration::from_secs(20), Duration::from_secs(180))
    }
}

/// How a rig is set up.
pub struct Setup {
    pub load: Load,
    pub rotation: Option<Rotation>,
    pub limits: Limits,
    /// Further keys and tables of the agent's config, and how it is started. The sink is added.
    pub agent: Settings,
    /// Where the agent sends, when that is not the rig's own Loki: the whole `[sink…]` table.
    pub sink: Option<String>,
    /// Keys below `[sink.loki.main]`, beside its address.
    pub sink_keys: String,
    /// Starts the agent; otherwise the row calls `rig.agent.launch()`.
    pub launch: bool,
    /// The fake keeps entries and bodies: for rows that look at them. Never in a soak of millions.
    pub keep: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            load: Scale::of_run().load(),
            rotation: None,
            // Far above the load: a row that is about limits sets its own.
            limits: Limits { tenant_rate: (1e9, 1e9), stream_rate: (1e9, 1e9), ..Limits::default() },
            agent: Settings::default(),
            sink: None,
            sink_keys: String::new(),
            launch: true,
            keep: false,
        }
    }
}

/// What a row found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub tally: Tally,
    /// Highest resident set of all the agent's lives.
    pub peak_rss_bytes: u64,
    /// From the fault's end (else from the load's end) until all that was written by then had arrived.
    pub recovery: Duration,
    /// Containers whose probe line did not arrive.
    pub probes_missing: usize,
    /// The agent's metrics when the rig was ready, and at the end.
    pub before: BTreeMap<String, f64>,
    pub after: BTreeMap<String, f64>,
    /// The first few lines that were counted as corrupt, cut short.
    pub broken: Vec<String>,
}

impl Outcome {
    /// How much a metric, summed over its series, rose between the two scrapes. A restart begins at 0.
    pub fn rose(&self, metric: &str) -> f64 {
        let at = |page: &BTreeMap<String, f64>| page.get(metric).copied().unwrap_or(0.0);
        at(&self.after) - at(&self.before)
    }

    /// Metrics of the agent that are not 0 at the end.
    pub fn moved(&self) -> Vec<(&str, f64)> {
        let after = self.after.iter().filter(|(_, value)| **value != 0.0);
        after.map(|(name, value)| (name.as_str(), *value)).collect()
    }

    /// Takes another outcome of the same row into this one: sums of lines, maxima of the rest.
    pub fn add(&mut self, other: &Self) {
        let (sum, more) = (&mut self.tally, other.tally);
        sum.lines += more.lines;
        sum.lost += more.lost;
        sum.duplicated += more.duplicated;
        sum.duplicated_stored += more.duplicated_stored;
        sum.corrupt += more.corrupt;
        sum.misattributed += more.misattributed;
        sum.reordered += more.reordered;
        sum.gaps += more.gaps;
        sum.worst_latency_millis = sum.worst_latency_millis.max(more.worst_latency_millis);
        self.peak_rss_bytes = self.peak_rss_bytes.max(other.peak_rss_bytes);
        self.recovery = self.recovery.max(other.recovery);
        self.probes_missing += other.probes_missing;
        self.broken.extend(other.broken.iter().cloned());
    }
}

/// Looked at by the sampling thread.
#[derive(Default)]
struct Watched {
    pid: AtomicI32,
    peak_rss_bytes: AtomicU64,
    /// When the fault ended, and how many lines had been written by then.
    fault_end: Mutex<Option<(Instant, u64)>>,
    recovered: Mutex<Option<Duration>>,
    stop: AtomicBool,
}

/// Node, agent, Loki, oracle.
pub struct Rig {
    // Dropped in this order: the agent first, the directory last.
    pub agent: Agent,
    pub node: Node,
    pub loki: FakeLoki,
    pub oracle: Arc<Oracle>,
    pub scale: Scale,
    watched: Arc<Watched>,
    sampler: Option<JoinHandle<()>>,
    before: BTreeMap<String, f64>,
    directory: tempfile::TempDir,
}

impl Rig {
    /// Sets everything up and waits until the agent is ready. Nobody writes yet.
    pub fn start(setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (oracle, loki) = (Oracle::new(), FakeLoki::start(setup.limits));
        oracle.listen(&loki, setup.keep);
        let mut node = Node::new(&directory.path().join("pods"), setup.load, &oracle);
        if let Some(rotation) = setup.rotation {
            node.rotate_when(rotation);
        }
        let mut settings = setup.agent;
        let sink = setup
            .sink
            .unwrap_or_else(|| format!("[sink.loki.main]\nurl = \"{}\"\n{}\n", loki.url(), setup.sink_keys));
        settings.rest = format!("{}\n{sink}", settings.rest);
        let agent = Agent::prepare(&directory.path().join("agent"), node.root(), &settings);
        let watched = Arc::new(Watched::default());
        let (shared, book) = (Arc::clone(&watched), Arc::clone(&oracle));
        let sampler = std::thread::spawn(move || sample(&shared, &book));
        let mut rig = Self {
            agent,
            node,
            loki,
            oracle,
            scale: Scale::of_run(),
            watched,
            sampler: Some(sampler),
            before: BTreeMap::new(),
            directory,
        };
        if setup.launch {
            rig.launch();
            rig.agent.wait_ready();
            rig.before = rig.agent.metrics();
        }
        rig
    }

    /// A directory of the row's own; it goes with the rig.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Containers write for so long.
    pub fn load_for(&self, time: Duration) {
        self.node.start();
        std::thread::sleep(time);
        self.node.pause();
    }

    /// Starts the agent, again. Its memory is watched.
    pub fn launch(&mut self) {
        self.agent.launch();
        self.watched
            .pid
            .store(self.agent.pid().map_or(0, |pid| pid.as_raw_nonzero().get()), Ordering::Release);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.watched.pid.store(0, Ordering::Release);
        self.agent.kill();
    }

    /// SIGSTOP for so long.
    pub fn freeze(&self, time: Duration) {
        self.agent.signal(Signal::STOP);
        std::thread::sleep(time);
        self.agent.signal(Signal::CONT);
    }

    /// Highest resident set of all the agent's lives so far.
    pub fn peak_rss_bytes(&self) -> u64 {
        std::thread::sleep(2 * SAMPLE);
        self.watched.peak_rss_bytes.load(Ordering::Acquire)
    }

    /// The fault is over: from now on recovery is timed, up to the arrival of what is written by now.
    pub fn fault_ends(&self) {
        let end = (Instant::now(), self.oracle.written());
        *self.watched.fault_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        *self.watched.recovered.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until `done` says so, at most `limit`.
    pub fn wait(&self, limit: Duration, done: impl FnMut() -> bool) -> bool {
        crate::support::fake_loki::wait_until(limit, done)
    }

    /// Waits until everything that was written has arrived, at most `limit`. While containers write, that may never be.
    pub fn wait_arrived(&self, limit: Duration) -> bool {
        self.wait(limit, || self.oracle.distinct() >= self.oracle.written())
    }

    /// The fault-free end of a row: writing stops, everything has the time to arrive, each living container writes
    /// a probe line, and what became of all lines is told.
    pub fn settle(&mut self) -> Outcome {
        self.settle_within(self.scale.settle(), Duration::from_secs(3))
    }

    /// The same for a row that knows that lines are missing: once all probes have arrived, so has every line before
    /// them that ever will, save for those of deleted pods; `grace` is for these.
    pub fn settle_within(&mut self, limit: Duration, grace: Duration) -> Outcome {
        self.node.pause();
        if self.watched.fault_end.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.fault_ends();
        }
        let began = Instant::now();
        let living: Vec<_> =
            self.node.containers().into_iter().filter(|container| !container.is_gone()).collect();
        let probes: Vec<_> = living.iter().map(|container| (container.index, container.write())).collect();
        let missing = || probes.iter().filter(|(index, seq)| !self.oracle.has(*index, *seq)).count();
        self.wait(limit, || missing() == 0);
        let left = limit.saturating_sub(began.elapsed());
        self.wait_arrived(grace.min(left));
        // Whatever is sent a second time comes soon after.
        std::thread::sleep(Duration::from_millis(300));
        let recovered = *self.watched.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.watched.fault_end.lock().unwrap_or_else(PoisonError::into_inner).map(|(end, _)| end);
        Outcome {
            tally: self.oracle.tally(),
            peak_rss_bytes: self.watched.peak_rss_bytes.load(Ordering::Acquire),
            recovery: recovered.unwrap_or_else(|| {
                // What is lost never arrives: then the probes' arrival is what counts.
                end.map_or(Duration::ZERO, |end| end.elapsed().saturating_sub(grace))
            }),
            probes_missing: missing(),
            before: self.before.clone(),
            after: self.agent.metrics(),
            broken: self.oracle.broken().iter().take(4).map(|line| excerpt(line)).collect(),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.watched.stop.store(true, Ordering::Release);
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
    }
}

/// Samples the agent's memory and notices when it has caught up.
fn sample(watched: &Watched, oracle: &Oracle) {
    while !watched.stop.load(Ordering::Acquire) {
        let pid = watched.pid.load(Ordering::Acquire);
        if pid > 0
            && let Some(bytes) = peak_rss_bytes(pid)
        {
            watched.peak_rss_bytes.fetch_max(bytes, Ordering::AcqRel);
        }
        if let Some((end, lines)) = *watched.fault_end.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut recovered = watched.recovered.lock().unwrap_or_else(PoisonError::into_inner);
            if recovered.is_none() && oracle.distinct() >= lines {
                *recovered = Some(end.elapsed());
            }
        }
        std::thread::sleep(SAMPLE);
    }
}

/// Both ends of a line.
fn excerpt(line: &str) -> String {
    let letters = line.chars().count();
    let head: String = line.chars().take(150).collect();
    let tail: String = line.chars().skip(letters.saturating_sub(60).max(150)).collect();
    format!("{head} … {tail} ({letters} letters)")
}

/// `VmHWM` of a process.
pub fn peak_rss_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
