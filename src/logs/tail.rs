//! The tail: finds container logs, reads what is new, hands out sealed batches.
//!
//! A step machine over [`Env`]: [`step`](Tail::step) does what can be done now and says when to come back. No
//! thread, no clock and no async of its own, so a simulator drives the same code.
//!
//! In: the files below the log root. Out: batches to the fan-out, entries in each log's ledger.
//! Invariants: nothing is read without credit, so memory is bounded by the budget; each byte of a log is taken
//! once, in order, oldest generation first; of the logs that feed one stream none runs more than
//! [`MAX_AHEAD`] ahead of another that has unread lines.

mod files;
mod follow;
mod live;
mod log;
mod open;
mod park;
mod protect;
mod read;
mod recorder;
mod tap;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::discover::Candidate;
use super::env::Env;
use super::files::Sources;
use super::ingest::Settings;
use super::registry::Registry;
use super::requests;
use super::resume::Plan;
use super::spill::Spill;
use crate::data::access::AccessTap;
use crate::data::budget::{Budget, Signal};
use crate::data::delivery::{Fanout, Loss, Sealed};
use crate::data::workload::Identify;
use crate::metrics;
use log::Log;

/// Bytes read at once from one log.
const CHUNK: u64 = 256 << 10;

/// How far a log may run ahead of another one that feeds the same stream. Loki refuses lines more than an hour
/// behind the stream's newest; half of that leaves room for clocks and for what is in flight.
const MAX_AHEAD: u64 = 30 * 60 * 1_000_000_000;

/// How often a log's directory is looked at for rotation and restarts. One that stops growing is looked at at once.
const DIR_CHECK: Duration = Duration::from_secs(1);

/// The same for one that has grown lately.
const DIR_CHECK_BUSY: Duration = Duration::from_millis(400);
const BUSY_FOR: Duration = Duration::from_secs(10);

/// How soon what cannot be listed or opened is tried again, once that has lasted.
const ROOT_RETRY: Duration = Duration::from_secs(1);
const TROUBLE_IS_NEW: Duration = Duration::from_secs(10);

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
    /// Log files that may be open at once.
    pub max_open: usize,
    /// Bytes of deleted files that may be held open when they cannot be spilled.
    pub held_deleted: u64,
    /// Whether the last lines of a container that was restarted are told once more, as one event.
    pub last_words: bool,
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

/// A log whose pod is not known yet.
struct Waiting<F> {
    candidate: Candidate,
    /// Its files, open; `None` while they cannot be.
    plan: Option<Plan<F>>,
}

/// Follows all container logs below a root. See the module's header.
pub struct Tail<E: Env> {
    env: E,
    options: Options,
    settings: Settings,
    identify: Box<dyn Identify>,
    /// Log files outside the kubelet's care.
    sources: Arc<Sources>,
    fanout: Fanout,
    budget: Arc<Budget>,
    signal: Arc<Signal>,
    registry: Arc<Registry>,
    spill: Arc<Spill>,
    /// Sealed and not yet handed out; empty between two steps.
    outbox: Vec<Sealed>,
    outbox_bytes: u64,
    logs: Vec<Log<E::File>>,
    by_key: HashMap<Arc<str>, usize>,
    /// Logs whose pod is not known yet.
    pending: HashMap<Arc<str>, Waiting<E::File>>,
    /// Version of what is known of pods, when it was last looked at.
    identified: Option<u64>,
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
    /// Logs that were followed to their end and that the spill still has until the next checkpoint.
    delivered: HashSet<Arc<str>>,
    next_tick: Duration,
    next_discovery: Duration,
    first_listing_done: Option<Duration>,
    unclaimed_forgotten: bool,
    root_readable: bool,
    /// Since when something that is there cannot be listed or opened.
    trouble_since: Option<Duration>,
    /// Log files that may be open at once as experience has it, and when it last taught.
    open_limit: (usize, Duration),
    last_large_read: Duration,
    /// A rotated file is at its end, as far as one look tells.
    end_check: bool,
    even_tick: bool,
    /// Who counts requests.
    tap: Option<Box<dyn AccessTap>>,
    /// Bytes that are read for their requests alone.
    scratch: Vec<u8>,
    /// Whose turn it is to be read ahead.
    next_ahead: usize,
    /// Logs that are gone, and how far they are counted is still remembered.
    absent: tap::Absent,
    /// What flight recorders hold, of all logs.
    recorders: recorder::Recorders,
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
        spill: Arc<Spill>,
    ) -> Self {
        Self {
            env,
            options,
            settings,
            identify,
            sources: Arc::default(),
            fanout,
            budget,
            signal,
            registry,
            spill,
            outbox: Vec::new(),
            outbox_bytes: 0,
            logs: Vec::new(),
            by_key: HashMap::new(),
            pending: HashMap::new(),
            identified: None,
            namespaces: Vec::new(),
            next_namespace: 0,
            shared: HashMap::new(),
            order_stale: false,
            watched: HashSet::new(),
            empty_dirs: HashMap::new(),
            skipped: HashSet::new(),
            delivered: HashSet::new(),
            next_tick: Duration::ZERO,
            next_discovery: Duration::ZERO,
            first_listing_done: None,
            unclaimed_forgotten: false,
            root_readable: true,
            trouble_since: None,
            open_limit: (usize::MAX, Duration::ZERO),
            last_large_read: Duration::ZERO,
            end_check: false,
            even_tick: false,
            tap: None,
            scratch: Vec::new(),
            next_ahead: 0,
            absent: tap::Absent::default(),
            recorders: recorder::Recorders::default(),
        }
    }

    /// Follows log files of applications too, as far as the environment opens them.
    #[must_use]
    pub fn with_files(self, sources: Arc<Sources>) -> Self {
        Self { sources, ..self }
    }

    /// Hands the requests that are found in lines to `tap`.
    #[must_use]
    pub fn with_tap(mut self, tap: Option<Box<dyn AccessTap>>) -> Self {
        if tap.is_some() {
            self.settings.want = self.settings.want.with(requests::WANTS);
        }
        Self { tap, ..self }
    }

    /// Does what can be done now.
    pub fn step(&mut self) -> Next {
        let now = self.env.now();
        self.follow_changes(now);
        let ticks = now >= self.next_tick;
        if ticks {
            if self.env.take_changes() || now >= self.next_discovery {
                self.discover(now);
            }
            self.end_check = false;
            self.even_tick = !self.even_tick;
            self.look(now);
            self.protect(now);
            self.next_tick =
                now + if self.end_check { END_CHECK.min(self.options.tick) } else { self.options.tick };
        }
        if self.order_stale {
            self.rebuild_order();
        }
        let behind = self.tap.is_some() && self.count_behind();
        let more = self.read_round(now) || behind;
        self.follow_recorders();
        self.ship();
        if ticks && self.tap.is_some() {
            self.count_ahead();
        }
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
        let trouble = self.trouble_since.take();
        self.forgive(now);
        let found = match self.list() {
            Ok(found) => found,
            Err(error) => {
                if self.root_readable {
                    let root = self.options.root.display();
                    warn!(%root, %error, "cannot list the log root; nothing is read until it can be (check the mount and [logs] root)");
                }
                self.root_readable = false;
                self.try_again(trouble, now);
                return;
            }
        };
        if !self.root_readable {
            self.root_readable = true;
            info!(root = %self.options.root.display(), "log root can be listed again");
        }
        self.watch(&found.directories);
        if found.incomplete {
            self.try_again(trouble, now);
        }
        let first = self.first_listing_done.is_none();
        let there: HashSet<Arc<str>> = found.logs.iter().map(|log| log.container.key().into()).collect();
        for candidate in found.logs {
            if !self.consider(candidate, first, now) {
                self.try_again(trouble, now);
            }
        }
        if !found.incomplete {
            self.consider_vanished(&there, now);
            let (followed, pending, spilled) = (&self.by_key, &self.pending, self.spill.keys());
            let is_there = |key: &str| {
                there.contains(key)
                    || followed.contains_key(key)
                    || pending.contains_key(key)
                    || spilled.iter().any(|kept| **kept == *key)
            };
            self.identify.forget(&is_there);
            if let Some(tap) = &mut self.tap {
                self.absent.forget(tap.as_mut(), is_there, now);
            }
            if self.unclaimed_forgotten {
                self.registry.forget_excluded(|key| there.contains(key));
            }
        }
        self.consider_spilled(now);
        self.note_empty_dirs(found.empty, now);
        self.mark_ended();
        let since = *self.first_listing_done.get_or_insert(now);
        if !self.unclaimed_forgotten && now >= since + Duration::from_secs(60) {
            self.unclaimed_forgotten = true;
            self.forget_unclaimed();
        }
        if now > self.last_large_read + Duration::from_secs(5) {
            self.budget.trim();
        }
    }

    /// Logs of the checkpoint that have not been found are gone, and with them what was not acknowledged.
    fn forget_unclaimed(&mut self) {
        let gone = self.registry.forget_unclaimed(|key| self.may_come_back(key));
        let mut bytes = 0;
        for (log, mark) in &gone {
            let position = mark.position;
            self.tell_uncounted(log, &position);
            let lost: u64 = mark
                .files
                .iter()
                .map(|seen| {
                    let read = if seen.ordinal == position.ordinal { position.offset } else { 0 };
                    seen.size.saturating_sub(read)
                })
                .sum();
            if lost > 0 {
                metrics::LOG_GAPS.inc();
                warn!(%log, at_least = lost, "log was deleted while the agent was away, with bytes that were not delivered");
            }
            bytes += lost;
        }
        metrics::LOG_LOST_BYTES.with_label_values(&[Loss::RotatedAway.name()]).inc_by(bytes);
        if !gone.is_empty() {
            let forgotten = gone.len();
            info!(forgotten, "logs of the checkpoint that are no longer on disk are forgotten");
        }
    }

    /// Something that is there cannot be had now: looks again soon, and less often when that lasts.
    fn try_again(&mut self, since: Option<Duration>, now: Duration) {
        let since = *self.trouble_since.get_or_insert(since.unwrap_or(now));
        let delay = if now < since + TROUBLE_IS_NEW { EMPTY_DIR_CHECK } else { ROOT_RETRY };
        self.next_discovery = self.next_discovery.min(now + delay);
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
            if ended && !log.ending {
                log.ending = true;
                // It may have been rotated just before: its end is where its newest file ends.
                log.next_check = Duration::ZERO;
                log.dir_modified = 0;
            }
        }
    }
}
