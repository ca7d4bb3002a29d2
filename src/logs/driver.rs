//! Drives the tail in the real world: one thread reads, one makes checkpoints durable.
//!
//! The reading thread sleeps on the signal between ticks. The checkpoint thread writes every second in which
//! something was acknowledged, and after 8 MiB acknowledged, and once more at the end. It shares no lock with the
//! reader that is held over I/O, so a slow disk delays checkpoints and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{error, info, warn};

use super::checkpoint::{Marks, Store};
use super::env::Env;
use super::os::Os;
use super::registry::Registry;
use super::tail::{Next, Options, Tail};
use super::{Config, ingest::Settings};
use crate::data::budget::{Budget, Signal};
use crate::data::delivery::Fanout;
use crate::data::workload::Identify;
use crate::metrics;

/// Longest time between two checkpoints while lines are acknowledged.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Acknowledged bytes after which a checkpoint is due at once.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// How long after the start a backlog is to be expected.
const BUSY_START: Duration = Duration::from_secs(10);
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
        self.first_pass_done.load(Ordering::Relaxed)
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
    /// Creates the directory, mode 0700, and takes its lock. `Ok(None)` when another agent holds it.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
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
    signal: Arc<Signal>,
    stop_reading: Arc<AtomicBool>,
    stop_checkpoints: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    checkpoints: Option<JoinHandle<()>>,
}

/// Starts reading. `state` is the locked state directory, or where it will be once it can be used.
#[expect(clippy::too_many_arguments, reason = "the wiring of the whole log path, called once")]
pub fn spawn(
    config: &Config,
    settings: Settings,
    identify: Box<dyn Identify>,
    fanout: Fanout,
    budget: Arc<Budget>,
    signal: Arc<Signal>,
    state: Result<StateDir, PathBuf>,
    on_exit: impl FnOnce() + Send + 'static,
) -> io::Result<Driver> {
    let status = Arc::<Status>::default();
    status.beat();
    let (store, marks) = match &state {
        Ok(state) => open_store(state.path()),
        Err(_) => (None, Marks::new()),
    };
    status.state_durable.store(store.is_some(), Ordering::Relaxed);
    let registry = Registry::new(marks);
    let options = Options {
        root: config.root.clone(),
        tick: config.tick.0,
        rescan: config.rescan.0,
        start: config.start,
        per_log: config.per_log.0,
        own_pod: config.exclude_self.then(own_pod).flatten(),
    };
    let os = Os::new(config.root.clone(), config.symlink_roots.clone(), Arc::clone(&signal));
    metrics::BUDGET_LIMIT_BYTES.set(budget.limit() as i64);
    let tail = Tail::new(
        os,
        options,
        settings,
        identify,
        fanout,
        budget,
        Arc::clone(&signal),
        Arc::clone(&registry),
    );
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
        let (stop, status, registry) =
            (Arc::clone(&stop_checkpoints), Arc::clone(&status), Arc::clone(&registry));
        std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            keep_checkpoints(store, state, &registry, &stop, &status);
        })?
    };
    Ok(Driver {
        registry,
        status,
        signal,
        stop_reading,
        stop_checkpoints,
        reader: Some(reader),
        checkpoints: Some(checkpoints),
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

    /// Writes the last checkpoint. Call it when the sinks are done.
    pub fn stop_checkpoints(&mut self) {
        self.stop_checkpoints.store(true, Ordering::Release);
        if let Some(checkpoints) = self.checkpoints.take() {
            checkpoints.thread().unpark();
            let _ = checkpoints.join();
        }
    }
}

fn read<E: Env>(mut tail: Tail<E>, stop: &AtomicBool, status: &Status, signal: &Signal) {
    let mut steps = 0_u64;
    while !stop.load(Ordering::Acquire) {
        let next = tail.step();
        steps += 1;
        if steps == 1 || next != Next::Now {
            status.first_pass_done.store(true, Ordering::Relaxed);
            status.root_readable.store(tail.root_readable(), Ordering::Relaxed);
        }
        status.beat();
        if let Next::Wait(duration) = next {
            signal.wait(duration);
        }
    }
}

fn own_pod() -> Option<(String, String)> {
    let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    Some((set("POD_NAMESPACE")?, set("POD_NAME")?))
}

fn open_store(dir: &Path) -> (Option<Store>, Marks) {
    match Store::open(dir) {
        Ok((store, opened)) => {
            for path in &opened.corrupt {
                metrics::CHECKPOINT_CORRUPT.with_label_values(&["positions"]).inc();
                let file = path.display();
                warn!(%file, "no slot of this checkpoint file can be read; if no other file serves, every log on disk is read again (duplicates, no loss)");
            }
            (Some(store), opened.marks)
        }
        Err(error) => {
            let dir = dir.display();
            error!(%dir, %error, "cannot read checkpoints; every log on disk is read again (duplicates, no loss)");
            (None, Marks::new())
        }
    }
}

fn keep_checkpoints(
    mut store: Option<Store>,
    mut state: Result<StateDir, PathBuf>,
    registry: &Registry,
    stop: &AtomicBool,
    status: &Status,
) {
    let mut written = None;
    let started = Instant::now();
    // The first one is due at once: an agent that dies again soon after its start must have got on.
    let mut last_write: Option<Instant> = None;
    let mut last_retry = Instant::now();
    loop {
        let stopping = stop.load(Ordering::Acquire);
        if store.is_none() && (stopping || last_retry.elapsed() >= STATE_RETRY) {
            last_retry = Instant::now();
            if let Err(path) = &state
                && let Ok(Some(opened)) = StateDir::open(path)
            {
                state = Ok(opened);
            }
            if let Ok(dir) = &state {
                // Positions of this life count; what an unreadable directory held before is too late now.
                store = Store::open(dir.path()).ok().map(|(store, _)| store);
            }
        }
        let version = registry.version();
        let changed = written != Some(version);
        let grown =
            written.is_some_and(|(_, bytes): (u64, u64)| version.1.saturating_sub(bytes) >= CHECKPOINT_BYTES);
        let due = grown || stopping || last_write.is_none_or(|last| last.elapsed() >= CHECKPOINT_INTERVAL);
        if changed
            && due
            && let Some(store) = &mut store
        {
            let marks = registry.marks();
            let result = store.write(marks.iter().map(|(key, mark)| (&**key, mark)));
            last_write = Some(Instant::now());
            let was = status.state_durable.swap(result.is_ok(), Ordering::Relaxed);
            match result {
                Ok(()) => {
                    written = Some(version);
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
                    metrics::CHECKPOINT_TIMESTAMP.set(now as i64);
                    if !was {
                        info!("checkpoints are durable again");
                    }
                }
                Err(error) => {
                    metrics::CHECKPOINT_FAILURES.inc();
                    if was {
                        error!(%error, "cannot make the checkpoint durable; running on, but a restart would send again what it has sent (check space, mount and rights of [agent] state_dir)");
                    }
                }
            }
        }
        if stopping {
            return;
        }
        // Looked at often only while bytes are acknowledged: then much may come within a second.
        let busy = changed || started.elapsed() < BUSY_START;
        std::thread::park_timeout(if busy { CHECKPOINT_INTERVAL / 4 } else { CHECKPOINT_INTERVAL });
    }
}
