//! Drives the tail in the real world: one thread reads, one makes checkpoints durable.
//!
//! The reading thread sleeps on the signal between ticks. The checkpoint thread drives the [`Keeper`]: every second in
//! which something was acknowledged, after 8 MiB acknowledged, and once more at the end. It shares no lock with the
//! reader that is held over I/O, so a slow disk delays checkpoints and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::checkpoint::{Marks, Opened, Store};
use super::disk::{Disk, OsDisk};
use super::env::Env;
use super::files::Sources;
use super::keeper::Keeper;
use super::os::Os;
use super::private;
use super::registry::Registry;
use super::spill::Spill;
use super::tail::{Next, Options, Start, Tail};
use super::{Config, ingest::Settings};
use crate::data::access::AccessTap;
use crate::data::budget::{Budget, Signal};
use crate::data::clock;
use crate::data::delivery::{Fanout, Loss};
use crate::data::workload::Identify;
use crate::metrics;

/// How often an unusable state directory is tried again.
const STATE_RETRY: Duration = Duration::from_secs(5);

/// What others may ask the driver.
#[derive(Debug, Default)]
pub struct Status {
    /// Milliseconds since start at which the reading thread last came round.
    heartbeat_millis: AtomicU64,
    started: std::sync::OnceLock<Instant>,
    root_readable: AtomicBool,
    state_durable: AtomicBool,
    first_pass_done: AtomicBool,
}

impl Status {
    /// Time since the reading thread last came round.
    pub fn heartbeat_age(&self) -> Duration {
        let started = self.started.get_or_init(Instant::now);
        let beat = Duration::from_millis(self.heartbeat_millis.load(Ordering::Relaxed));
        started.elapsed().saturating_sub(beat)
    }

    /// True when the log root can be listed.
    pub fn root_readable(&self) -> bool {
        self.root_readable.load(Ordering::Relaxed)
    }

    /// True when positions are being made durable.
    pub fn state_durable(&self) -> bool {
        self.state_durable.load(Ordering::Relaxed)
    }

    /// True once all logs have been looked for.
    pub fn first_pass_done(&self) -> bool {
        self.first_pass_done.load(Ordering::Acquire)
    }

    fn beat(&self) {
        let started = self.started.get_or_init(Instant::now);
        self.heartbeat_millis.store(started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// The state directory: locked for one agent at a time.
pub struct StateDir {
    path: PathBuf,
    /// Holds the lock while it lives.
    _lock: std::fs::File,
}

impl StateDir {
    /// Creates the directory, mode 0700, and takes its lock. `Ok(None)` when another agent holds it. A directory that
    /// others may look into is made private where it is nobody else's.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let name = path.join("lock");
        let lock = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            // A directory that has become read-only still tells where reading stopped.
            .or_else(|error| std::fs::File::open(&name).map_err(|_| error))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                private::tighten(path);
                Ok(Some(Self { path: path.to_owned(), _lock: lock }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The log path, running.
pub struct Driver {
    /// All logs being followed.
    pub registry: Arc<Registry>,
    /// How the threads fare.
    pub status: Arc<Status>,
    /// What was kept of files that the kubelet has deleted.
    pub spill: Arc<Spill>,
    signal: Arc<Signal>,
    stop_reading: Arc<AtomicBool>,
    stop_checkpoints: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    checkpoints: Option<JoinHandle<Result<StateDir, PathBuf>>>,
    /// There was a checkpoint when it started.
    resumed: bool,
}

/// What one driver leaves to the next one of the same process.
pub struct Legacy {
    /// The state directory, still locked, or where it will be once it can be used.
    pub state: Result<StateDir, PathBuf>,
    /// Where every log is acknowledged up to, whether or not it could be made durable. `None` when nothing is known
    /// yet that `[logs] start` would not decide again.
    pub marks: Option<Marks>,
}

impl From<Result<StateDir, PathBuf>> for Legacy {
    /// The first driver of a process: the checkpoint says where to begin.
    fn from(state: Result<StateDir, PathBuf>) -> Self {
        Self { state, marks: None }
    }
}

/// Starts reading. `legacy` holds the state directory and, after an earlier driver of this process, where that one
/// stopped; without that the checkpoint says where to begin. `tap` counts the
/// requests that lines tell of; it saves what it counts when it likes: what was delivered and not saved is read again after a
/// crash, as long as it is on disk.
#[expect(clippy::too_many_arguments, reason = "the wiring of the whole log path, called once")]
pub fn spawn(
    config: &Config,
    settings: Settings,
    identify: Box<dyn Identify>,
    fanout: Fanout,
    budget: Arc<Budget>,
    signal: Arc<Signal>,
    sources: Arc<Sources>,
    legacy: impl Into<Legacy>,
    tap: Option<Box<dyn AccessTap>>,
    on_exit: impl FnOnce() + Send + 'static,
) -> io::Result<Driver> {
    let Legacy { state, marks } = legacy.into();
    let status = Arc::<Status>::default();
    status.beat();
    let spill = Spill::new(&config.spill);
    let (store, mut opened) = match &state {
        Ok(state) => open_state(state.path(), &spill),
        Err(_) => (None, Opened::default()),
    };
    if let Some(marks) = marks {
        // What this process knows is at least as new, and all there is where nothing could be made durable.
        opened = Opened { marks, any: true, corrupt: Vec::new() };
    }
    // What was skipped at the first start is skipped once: later lives know where they were, or read everything.
    let resumed = opened.any;
    let start = if resumed { Start::Oldest } else { config.start };
    status.state_durable.store(store.is_some(), Ordering::Relaxed);
    let registry = Registry::new(opened.marks);
    let options = Options {
        root: config.root.clone(),
        tick: config.tick.0,
        rescan: config.rescan.0,
        start,
        per_log: config.per_log.0,
        max_open: max_open(),
        held_deleted: held_deleted(config),
        last_words: config.last_words,
        own_pod: config.exclude_self.then(own_pod).flatten(),
    };
    let os = Os::new(config.root.clone(), config.symlink_roots.clone(), Arc::clone(&signal))
        .with_file_roots(sources.roots());
    metrics::BUDGET_LIMIT_BYTES.set(budget.limit() as i64);
    // Counters that are born with the first loss would show no growth by it.
    for loss in Loss::ALL {
        match loss {
            Loss::Refused(reason) => drop(metrics::RECORDS_LOST.with_label_values(&[reason.name()])),
            unread => drop(metrics::LOG_LOST_BYTES.with_label_values(&[unread.name()])),
        }
    }
    let keeper = Keeper::new(Arc::clone(&registry), Arc::clone(&spill), settings.warm_up_reach(), store);
    let tail = Tail::new(
        os,
        options,
        settings,
        identify,
        fanout,
        budget,
        Arc::clone(&signal),
        Arc::clone(&registry),
        Arc::clone(&spill),
    )
    .with_files(sources)
    .with_tap(tap);
    let stop_reading = Arc::<AtomicBool>::default();
    let stop_checkpoints = Arc::<AtomicBool>::default();
    let reader = {
        let (stop, status, signal) = (Arc::clone(&stop_reading), Arc::clone(&status), Arc::clone(&signal));
        std::thread::Builder::new().name("logs".into()).spawn(move || {
            read(tail, &stop, &status, &signal);
            on_exit();
        })?
    };
    let checkpoints = {
        let (stop, status) = (Arc::clone(&stop_checkpoints), Arc::clone(&status));
        std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || keep(keeper, state, &stop, &status))?
    };
    Ok(Driver {
        registry,
        status,
        spill,
        signal,
        stop_reading,
        stop_checkpoints,
        reader: Some(reader),
        checkpoints: Some(checkpoints),
        resumed,
    })
}

impl Driver {
    /// Stops reading and lets go of the sinks' entrances, so that they run dry.
    pub fn stop_reading(&mut self) {
        self.stop_reading.store(true, Ordering::Release);
        self.signal.raise();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Writes the last checkpoint, once. Call it when the sinks are done.
    pub fn stop_checkpoints(&mut self) -> Option<Legacy> {
        self.stop_checkpoints.store(true, Ordering::Release);
        let checkpoints = self.checkpoints.take()?;
        checkpoints.thread().unpark();
        let state = checkpoints.join().ok()?;
        let known = self.resumed || self.status.first_pass_done();
        let marks = || {
            self.registry.marks().into_iter().map(|(key, mark)| (key.to_string(), mark)).collect::<Marks>()
        };
        Some(Legacy { state, marks: known.then(marks) })
    }
}

fn read<E: Env>(mut tail: Tail<E>, stop: &AtomicBool, status: &Status, signal: &Signal) {
    let mut steps = 0_u64;
    while !stop.load(Ordering::Acquire) {
        let next = tail.step();
        steps += 1;
        if steps == 1 || next != Next::Now {
            status.root_readable.store(tail.root_readable(), Ordering::Relaxed);
            // Last: whoever sees it sees what the pass has found.
            status.first_pass_done.store(true, Ordering::Release);
        }
        status.beat();
        if let Next::Wait(duration) = next {
            signal.wait(duration);
        }
    }
    tail.rescue();
}

/// Descriptors that everything but log files may need: sockets, state, listeners, the watcher.
const OTHER_DESCRIPTORS: u64 = 40;

/// Log files that may be open at once: what the system grants, after asking for as much as it may.
fn max_open() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(1 << 16, |maximum| maximum.min(1 << 16));
    if limit.current.is_some_and(|current| current < most) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    }
    let granted = getrlimit(Resource::Nofile).current.unwrap_or(most);
    usize::try_from(granted.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX)
}

/// Bytes of deleted log files that may be held open: a twentieth of the file system at most.
fn held_deleted(config: &Config) -> u64 {
    let space = OsDisk::new(&config.root).space();
    let share = space.map_or(u64::MAX, |space| space.total / 20);
    config.spill.held_deleted.0.min(share)
}

/// Namespace and name of the pod that this process runs in, as the downward API tells.
pub fn own_pod() -> Option<(String, String)> {
    let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    Some((set("POD_NAMESPACE")?, set("POD_NAME")?))
}

/// The checkpoint and the spill of an earlier life.
fn open_state(dir: &Path, spill: &Spill) -> (Option<Store>, Opened) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(dir));
    if let Err(error) = spill.attach(Arc::clone(&disk)) {
        warn!(dir = %dir.display(), %error, "cannot use the state directory for spilling");
    }
    match Store::open(disk) {
        Ok((store, opened)) => {
            for name in &opened.corrupt {
                metrics::CHECKPOINT_CORRUPT.with_label_values(&["positions"]).inc();
                let file = dir.join(name);
                warn!(file = %file.display(), "no slot of this checkpoint file can be read; if no other file serves, every log on disk is read again (duplicates, no loss)");
            }
            (Some(store), opened)
        }
        Err(error) => {
            let dir = dir.display();
            error!(%dir, %error, "cannot read checkpoints; every log on disk is read again (duplicates, no loss)");
            (None, Opened { any: true, ..Opened::default() })
        }
    }
}

fn keep(
    mut keeper: Keeper,
    mut state: Result<StateDir, PathBuf>,
    stop: &AtomicBool,
    status: &Status,
) -> Result<StateDir, PathBuf> {
    let started = Instant::now();
    let mut last_retry = Instant::now();
    loop {
        let stopping = stop.load(Ordering::Acquire);
        if keeper.is_detached() && (stopping || last_retry.elapsed() >= STATE_RETRY) {
            last_retry = Instant::now();
            if let Err(path) = &state
                && let Ok(Some(opened)) = StateDir::open(path)
            {
                state = Ok(opened);
            }
            if let Ok(dir) = &state {
                keeper.attach(Arc::new(OsDisk::new(dir.path())));
            }
        }
        let unix_secs = clock::since_epoch().as_secs();
        let wait = keeper.step(started.elapsed(), unix_secs, stopping);
        status.state_durable.store(keeper.is_durable(), Ordering::Relaxed);
        if stopping {
            return state;
        }
        std::thread::park_timeout(wait);
    }
}
