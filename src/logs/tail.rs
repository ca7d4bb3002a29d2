//! The tail: finds container logs, reads what is new, hands out sealed batches.
//!
//! A step machine over [`Env`]: [`step`](Tail::step) does what can be done now and says when to come back. No
//! thread, no clock and no async of its own, so a simulator drives the same code.
//!
//! In: the files below the log root. Out: batches to the fan-out, entries in each log's ledger.
//! Invariants: nothing is read without credit, so memory is bounded by the budget; each byte of a log is taken
//! once, in order, oldest generation first; of the logs that feed one stream none runs more than
//! [`MAX_AHEAD`] ahead of another that has unread lines.

mod follow;
mod log;
mod read;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::chain::{self, Open, Resume, Which};
use super::coverage::Coverage;
use super::discover::{self, Candidate};
use super::env::{Env, OpenError};
use super::ingest::{LineState, Settings};
use super::registry::Registry;
use crate::data::budget::{Budget, Signal};
use crate::data::delivery::{Fanout, Ledger, Sealed};
use crate::data::position::{Position, Skipping};
use crate::data::workload::{Identify, Identity, Workload};
use crate::metrics;
use log::{Log, stream_hash, warm_up};

/// Bytes read at once from one log.
const CHUNK: u64 = 256 << 10;

/// How far a log may run ahead of another one that feeds the same stream. Loki refuses lines more than an hour
/// behind the stream's newest; half of that leaves room for clocks and for what is in flight.
const MAX_AHEAD: u64 = 30 * 60 * 1_000_000_000;

/// How often a log's directory is looked at for rotation and restarts. One that stops growing is looked at at once.
const DIR_CHECK: Duration = Duration::from_secs(1);

/// How soon a log root that cannot be listed is tried again.
const ROOT_RETRY: Duration = Duration::from_secs(1);

/// How soon the end of a rotated file is looked at again, so that its successor need not wait for ticks.
const END_CHECK: Duration = Duration::from_millis(25);

/// A container directory without a log is looked at again this often, for as long as it is young.
const EMPTY_DIR_CHECK: Duration = Duration::from_millis(250);
const EMPTY_DIR_YOUNG: Duration = Duration::from_secs(60);

/// How long a log's file must be gone before its last words are given out and it is forgotten.
const GONE_GRACE: Duration = Duration::from_secs(2);

/// Unread bytes behind a batch that make its stream count as catching up.
const CATCHING_UP_BYTES: u64 = 1 << 20;
/// Age of a batch's newest line that makes its stream count as catching up.
const CATCHING_UP_AGE: u64 = 5 * 60 * 1_000_000_000;

/// Where to begin with a log that the checkpoint does not know.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest line on disk.
    #[default]
    Oldest,
    /// At the end of what is there when the agent starts for the first time; logs that appear later are read
    /// from their beginning.
    Newest,
}

/// What the tail is told at its start.
pub struct Options {
    /// The log root.
    pub root: PathBuf,
    /// How often growth is looked for.
    pub tick: Duration,
    /// How often everything is listed anew, whatever the events said.
    pub rescan: Duration,
    /// Where to begin.
    pub start: Start,
    /// Bytes of one log that may be in flight.
    pub per_log: u64,
    /// Namespace and pod whose logs are left out: the agent's own.
    pub own_pod: Option<(String, String)>,
}

/// When to call [`Tail::step`] again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to read and credit to read it with.
    Now,
    /// After this long, or when the signal is raised.
    Wait(Duration),
}

/// Follows all container logs below a root. See the module's header.
pub struct Tail<E: Env> {
    env: E,
    options: Options,
    settings: Settings,
    identify: Box<dyn Identify>,
    fanout: Fanout,
    budget: Arc<Budget>,
    signal: Arc<Signal>,
    registry: Arc<Registry>,
    /// Sealed and not yet handed out; empty between two steps.
    outbox: Vec<Sealed>,
    outbox_bytes: u64,
    logs: Vec<Log<E::File>>,
    by_key: HashMap<Arc<str>, usize>,
    /// Logs by namespace, for fairness; rebuilt when logs come or go.
    namespaces: Vec<Vec<usize>>,
    next_namespace: usize,
    /// Logs by stream where more than one feeds it.
    shared: HashMap<u64, Vec<usize>>,
    order_stale: bool,
    watched: HashSet<PathBuf>,
    /// Container directories that have no log yet, with the time at which they were first seen.
    empty_dirs: HashMap<PathBuf, Duration>,
    skipped: HashSet<PathBuf>,
    next_tick: Duration,
    next_discovery: Duration,
    first_listing_done: Option<Duration>,
    unclaimed_forgotten: bool,
    root_readable: bool,
    last_large_read: Duration,
    /// A rotated file is at its end, as far as one look tells.
    end_check: bool,
    even_tick: bool,
}

impl<E: Env> Tail<E> {
    /// A tail that has not looked at anything yet.
    #[expect(clippy::too_many_arguments, reason = "the wiring of the whole log path, called once")]
    pub fn new(
        env: E,
        options: Options,
        settings: Settings,
        identify: Box<dyn Identify>,
        fanout: Fanout,
        budget: Arc<Budget>,
        signal: Arc<Signal>,
        registry: Arc<Registry>,
    ) -> Self {
        Self {
            env,
            options,
            settings,
            identify,
            fanout,
            budget,
            signal,
            registry,
            outbox: Vec::new(),
            outbox_bytes: 0,
            logs: Vec::new(),
            by_key: HashMap::new(),
            namespaces: Vec::new(),
            next_namespace: 0,
            shared: HashMap::new(),
            order_stale: false,
            watched: HashSet::new(),
            empty_dirs: HashMap::new(),
            skipped: HashSet::new(),
            next_tick: Duration::ZERO,
            next_discovery: Duration::ZERO,
            first_listing_done: None,
            unclaimed_forgotten: false,
            root_readable: true,
            last_large_read: Duration::ZERO,
            end_check: false,
            even_tick: false,
        }
    }

    /// Does what can be done now.
    pub fn step(&mut self) -> Next {
        let now = self.env.now();
        if now >= self.next_tick {
            if self.env.take_changes() || now >= self.next_discovery {
                self.discover(now);
            }
            self.end_check = false;
            self.even_tick = !self.even_tick;
            self.look(now);
            self.next_tick =
                now + if self.end_check { END_CHECK.min(self.options.tick) } else { self.options.tick };
        }
        if self.order_stale {
            self.rebuild_order();
        }
        let more = self.read_round(now);
        self.ship();
        if more {
            return Next::Now;
        }
        Next::Wait(self.next_tick.saturating_sub(self.env.now()))
    }

    /// True when the log root could be listed last time.
    pub fn root_readable(&self) -> bool {
        self.root_readable
    }

    /// Number of logs followed.
    pub fn open_logs(&self) -> usize {
        self.logs.len()
    }

    // Discovery.

    fn discover(&mut self, now: Duration) {
        self.next_discovery = now + self.options.rescan;
        let found = match discover::list(&self.env, &self.options.root) {
            Ok(found) => found,
            Err(error) => {
                if self.root_readable {
                    let root = self.options.root.display();
                    warn!(%root, %error, "cannot list the log root; nothing is read until it can be (check the mount and [logs] root)");
                }
                self.root_readable = false;
                self.next_discovery = now + ROOT_RETRY.min(self.options.rescan);
                return;
            }
        };
        if !self.root_readable {
            self.root_readable = true;
            info!(root = %self.options.root.display(), "log root can be listed again");
        }
        self.watch(&found.directories);
        let first = self.first_listing_done.is_none();
        for candidate in found.logs {
            self.consider(candidate, first, now);
        }
        self.note_empty_dirs(found.empty, now);
        self.mark_ended();
        let since = *self.first_listing_done.get_or_insert(now);
        if !self.unclaimed_forgotten && now >= since + Duration::from_secs(60) {
            self.unclaimed_forgotten = true;
            let forgotten = self.registry.forget_unclaimed();
            if forgotten > 0 {
                info!(forgotten, "logs of the checkpoint that are no longer on disk are forgotten");
            }
        }
        if now > self.last_large_read + Duration::from_secs(5) {
            self.budget.trim();
        }
    }

    fn watch(&mut self, directories: &[PathBuf]) {
        let wanted: HashSet<&PathBuf> = directories.iter().collect();
        let gone: Vec<PathBuf> = self.watched.iter().filter(|dir| !wanted.contains(dir)).cloned().collect();
        for dir in gone {
            self.env.unwatch(&dir);
            self.watched.remove(&dir);
        }
        for dir in directories {
            if !self.watched.contains(dir) {
                self.env.watch(dir);
                self.watched.insert(dir.clone());
                // Whatever came between listing and watching is found by one more listing.
                self.next_discovery = self.next_tick;
            }
        }
    }

    fn note_empty_dirs(&mut self, empty: Vec<PathBuf>, now: Duration) {
        let before = std::mem::take(&mut self.empty_dirs);
        for dir in empty {
            let since = before.get(&dir).copied().unwrap_or(now);
            if now < since + EMPTY_DIR_YOUNG {
                self.next_discovery = self.next_discovery.min(now + EMPTY_DIR_CHECK);
            }
            self.empty_dirs.insert(dir, since);
        }
    }

    /// Of several restarts of a container only the newest still writes.
    fn mark_ended(&mut self) {
        let mut newest: HashMap<&str, u32> = HashMap::new();
        for log in &self.logs {
            let restart = newest.entry(&log.place).or_default();
            *restart = log.restart.max(*restart);
        }
        let ended: Vec<bool> = self.logs.iter().map(|log| newest[log.place.as_str()] > log.restart).collect();
        for (log, ended) in self.logs.iter_mut().zip(ended) {
            log.ended = ended;
        }
    }

    fn consider(&mut self, candidate: Candidate, first_listing: bool, now: Duration) {
        let key = candidate.container.key();
        if self.by_key.contains_key(key.as_str()) {
            return;
        }
        if let Some((namespace, pod)) = &self.options.own_pod
            && (namespace, pod) == (&candidate.container.namespace, &candidate.container.pod)
        {
            return;
        }
        let Identity::Known(workload) = self.identify.identify(&candidate.container) else {
            self.next_discovery = self.next_discovery.min(now + EMPTY_DIR_CHECK);
            return;
        };
        let known = self.registry.knows(&key);
        let which = if known || self.options.start == Start::Newest { Which::Plain } else { Which::All };
        let files = match chain::open_all(&self.env, &candidate.path, candidate.linked, which) {
            Ok(files) => files,
            Err(OpenError::Missing) => {
                // In the middle of a rotation, or already gone.
                self.next_discovery = self.next_discovery.min(now + EMPTY_DIR_CHECK);
                return;
            }
            Err(error) => {
                if self.skipped.len() < 4096 && self.skipped.insert(candidate.path.clone()) {
                    metrics::LOG_SKIPPED_FILES.with_label_values(&[error.reason()]).inc();
                    let file = candidate.path.display();
                    warn!(%file, %error, "log file is not read");
                }
                return;
            }
        };
        self.skipped.remove(&candidate.path);
        self.open(key.into(), candidate, workload, files, first_listing, now);
    }

    fn open(
        &mut self,
        key: Arc<str>,
        candidate: Candidate,
        mut workload: Arc<Workload>,
        mut files: VecDeque<Open<E::File>>,
        first_listing: bool,
        now: Duration,
    ) {
        let mark = self.registry.claim(&key);
        let mut skipping = Skipping::default();
        let mut resumed = false;
        if let Some(mark) = &mark {
            if mark.service_name != workload.service_name || mark.environment != workload.environment {
                let mut frozen = (*workload).clone();
                frozen.service_name.clone_from(&mark.service_name);
                frozen.service_name_guessed = mark.service_name_guessed;
                frozen.environment.clone_from(&mark.environment);
                workload = Arc::new(frozen);
            }
            let mut found = chain::locate(&files, &mark.position);
            if found == Resume::Missing
                && mark.position != Position::default()
                && let Ok(all) = chain::open_all(&self.env, &candidate.path, candidate.linked, Which::All)
            {
                // Compressed while the agent was away: the offset in the content is the same.
                files = all;
                found = chain::locate(&files, &mark.position);
            }
            match found {
                Resume::At(index) => {
                    files.drain(..index);
                    files[0].offset = mark.position.offset;
                    skipping = mark.position.skipping;
                    resumed = true;
                }
                Resume::Truncated(index) => {
                    files.drain(..index);
                    metrics::LOG_TRUNCATIONS.inc();
                    warn!(log = %key, offset = mark.position.offset, size = files[0].size,
                        "log is shorter than what was read of it; it was truncated and is read from its start");
                }
                Resume::Missing if mark.position != Position::default() => {
                    warn!(log = %key, "log file of the checkpoint is gone; what it held behind the saved position is lost, and all that is left is read");
                    metrics::LOG_GAPS.inc();
                }
                Resume::Missing => {}
            }
        } else if self.options.start == Start::Newest && first_listing {
            files.drain(..files.len() - 1);
            files[0].offset = files[0].size;
        }
        let mut log = Log {
            place: key.rsplit_once('/').map_or_else(String::new, |(place, _)| place.to_owned()),
            path: candidate.path.to_string_lossy().into(),
            live: candidate.path,
            linked: candidate.linked,
            restart: candidate.container.restart,
            coverage: Coverage::of(&workload),
            stream: stream_hash(&workload),
            ledger: Ledger::new(Position::default(), Arc::clone(&self.signal)),
            workload,
            files,
            lines: LineState::new(self.settings.max_line),
            carried: None,
            next_check: now,
            dir_modified: 0,
            grew: false,
            last_growth: now,
            gone_since: None,
            ended: false,
            finished: false,
            deficit: 0,
            waiting: false,
            failing: false,
            long_read: false,
            key: Arc::clone(&key),
        };
        if resumed && log.files[0].offset > 0 {
            warm_up(&mut log, &self.settings);
        }
        log.lines.resume(&self.settings, &log.workload, skipping);
        log.lines.set_first_time(self.env.unix_nano());
        let start = log.decided().unwrap_or_default();
        log.ledger = Ledger::new(start, Arc::clone(&self.signal));
        self.registry.enter(Arc::clone(&key), Arc::clone(&log.workload), Arc::clone(&log.ledger));
        self.by_key.insert(key, self.logs.len());
        self.logs.push(log);
        self.order_stale = true;
    }
}
