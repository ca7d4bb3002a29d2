//! The tail: finds container logs, reads what is new, hands out sealed batches.
//!
//! A step machine over [`Env`]: [`step`](Tail::step) does what can be done now and says when to come back. No
//! thread, no clock and no async of its own, so a simulator drives the same code.
//!
//! In: the files below the log root. Out: batches to the fan-out, entries in each log's ledger.
//! Invariants: nothing is read without credit, so memory is bounded by the budget; each byte of a log is taken
//! once, in order, oldest generation first; of the logs that feed one stream none runs more than
//! [`MAX_AHEAD`] ahead of another that has unread lines.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::chain::{self, Open, Resume};
use super::discover::{self, Candidate};
use super::env::{Env, LogFile, OpenError};
use super::ingest::{LineState, Settings};
use super::registry::Registry;
use super::{frame, inherit};
use crate::data::batch::{Batch, Record};
use crate::data::budget::{Budget, Signal};
use crate::data::delivery::{Fanout, Ledger};
use crate::data::position::{Position, Skipping};
use crate::data::workload::{Identify, Identity, Workload};
use crate::metrics;

/// Bytes read at once from one log.
const CHUNK: u64 = 256 << 10;

/// How far a log may run ahead of another one that feeds the same stream. Loki refuses lines more than an hour
/// behind the stream's newest; half of that leaves room for clocks and for what is in flight.
const MAX_AHEAD: u64 = 30 * 60 * 1_000_000_000;

/// How often a quiet log's directory is looked at for rotation and restarts. One that grows is looked at on each
/// tick: it is the growing ones that are rotated.
const DIR_CHECK: Duration = Duration::from_millis(500);

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

struct Log<F> {
    key: Arc<str>,
    live: PathBuf,
    path: Arc<str>,
    /// The live name is a symbolic link.
    linked: bool,
    restart: u32,
    /// `<ns>_<pod>_<uid>/<container>`.
    place: String,
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    /// Hash of what makes the backend stream.
    stream: u64,
    /// Oldest first; the first one is being read.
    files: VecDeque<Open<F>>,
    lines: LineState,
    /// Where a line began that was open when its generation ended.
    carried: Option<Position>,
    next_check: Duration,
    dir_modified: u64,
    gone_since: Option<Duration>,
    /// A later restart of the container exists: no line will come any more.
    ended: bool,
    finished: bool,
    deficit: i64,
    /// The next line lies beyond the horizon: wait for another log of the stream, until the next tick.
    waiting: bool,
    /// A read that was too short for its line makes the next one longer.
    long_read: bool,
}

impl<F: LogFile> Log<F> {
    /// Bytes worth reading now.
    fn unread(&self) -> u64 {
        if self.waiting { 0 } else { self.files.front().map_or(0, Open::unread) }
    }

    /// Unread bytes over all generations.
    fn lag(&self) -> u64 {
        self.files.iter().map(Open::unread).sum()
    }

    /// The position up to which everything that was read is decided.
    fn decided(&self) -> Option<Position> {
        let file = self.files.front()?;
        if self.lines.carries()
            && let Some(carried) = self.carried
        {
            return Some(carried);
        }
        let (offset, skipping) = self.lines.pinned().unwrap_or((file.offset, self.lines.skipping()));
        Some(Position { generation: file.generation, offset, skipping })
    }
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
            self.look(now);
            self.next_tick =
                now + if self.end_check { END_CHECK.min(self.options.tick) } else { self.options.tick };
        }
        if self.order_stale {
            self.rebuild_order();
        }
        if self.read_round(now) {
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
        let files = match chain::open_all(&self.env, &candidate.path, candidate.linked) {
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
            match chain::locate(&files, &mark.position) {
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
                    warn!(log = %key, "log file of the checkpoint is gone or compressed; reading what is left");
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
            stream: stream_hash(&workload),
            ledger: Ledger::new(Position::default(), Arc::clone(&self.signal)),
            workload,
            files,
            lines: LineState::new(self.settings.max_line),
            carried: None,
            next_check: now,
            dir_modified: 0,
            gone_since: None,
            ended: false,
            finished: false,
            deficit: 0,
            waiting: false,
            long_read: false,
            key: Arc::clone(&key),
        };
        if resumed && log.files[0].offset > 0 {
            warm_up(&mut log, &self.settings);
        }
        log.lines.resume(&self.settings, skipping);
        let start = log.decided().unwrap_or_default();
        log.ledger = Ledger::new(start, Arc::clone(&self.signal));
        self.registry.enter(Arc::clone(&key), Arc::clone(&log.workload), Arc::clone(&log.ledger));
        self.by_key.insert(key, self.logs.len());
        self.logs.push(log);
        self.order_stale = true;
    }

    // Growth, rotation, end.

    /// Looks at every log for what has changed since the last tick.
    fn look(&mut self, now: Duration) {
        let wall = self.env.unix_nano();
        let mut lag = 0;
        for index in 0..self.logs.len() {
            self.look_at(index, now, wall);
            lag += self.logs[index].lag();
        }
        self.forget_gone(now);
        metrics::LOGS_OPEN.set(self.logs.len() as i64);
        metrics::LOG_LAG_BYTES.set(lag as i64);
        metrics::BUDGET_HELD_BYTES.set(self.budget.held() as i64);
    }

    fn look_at(&mut self, index: usize, now: Duration, wall: u64) {
        let log = &mut self.logs[index];
        log.waiting = false;
        let before = log.lag();
        for file in &mut log.files {
            if let Ok(stat) = file.file.stat() {
                file.size = stat.size;
                let _ = file.learn_head();
            }
        }
        let truncated = log.files.front().is_some_and(|front| front.size < front.offset);
        if truncated {
            self.truncated(index);
        }
        let log = &mut self.logs[index];
        let grows = log.lag() > before;
        if grows || now >= log.next_check {
            log.next_check = now + DIR_CHECK;
            self.check_rotation(index, now, wall);
        }
        self.advance(index);
        if self.logs[index].lag() == 0 && self.logs[index].lines.pinned().is_some() {
            self.close_open_lines(index, wall);
        }
    }

    /// copytruncate, or a log cut by hand: the file is read from its start, as a new generation.
    fn truncated(&mut self, index: usize) {
        metrics::LOG_TRUNCATIONS.inc();
        let log = &mut self.logs[index];
        warn!(log = %log.key, "log was truncated; what was written between the last read and the cut is lost");
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        log.lines.next_generation(&self.settings, &mut arena, &mut records);
        log.lines = LineState::new(self.settings.max_line);
        let front = &mut log.files[0];
        front.offset = 0;
        front.generation.head = 0;
        let _ = front.learn_head();
        log.carried = None;
        self.seal(index, arena, records, 0);
    }

    fn check_rotation(&mut self, index: usize, now: Duration, wall: u64) {
        let log = &mut self.logs[index];
        let Some(newest) = log.files.back() else { return };
        if let Some(dir) = log.live.parent()
            && let Ok(modified) = self.env.modified(dir)
        {
            // A change within the granularity of file times may hide behind an equal stamp.
            let settled = wall.saturating_sub(modified) > 100_000_000;
            if modified == log.dir_modified && settled && log.gone_since.is_none() {
                // docker rotates behind a link, in another directory.
                if !log.linked {
                    return;
                }
            } else if modified != log.dir_modified {
                log.dir_modified = modified;
                // A restart of the container appears in this directory too.
                self.next_discovery = self.next_discovery.min(now);
            }
        }
        match self.env.identity(&log.live) {
            Ok((device, inode)) if (device, inode) == (newest.generation.device, newest.generation.inode) => {
                log.gone_since = None;
                if log.files.len() == 1
                    && log.files[0].offset > 0
                    && log.files[0].unread() > 0
                    && log.files[0].head_changed()
                {
                    self.truncated(index);
                }
            }
            Ok(_) => {
                log.gone_since = None;
                self.follow_rotation(index);
            }
            Err(_) => {
                log.gone_since.get_or_insert(now);
            }
        }
    }

    /// Another file has the live name: appends it and whatever came between.
    fn follow_rotation(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let Ok(found) = chain::open_all(&self.env, &log.live, log.linked) else { return };
        let newest = log.files.back().map(|file| file.generation);
        // What is older than the newest known file has been read or is being read.
        let after = newest
            .and_then(|newest| found.iter().rposition(|file| chain::same_file(&file.generation, &newest)))
            .map_or(0, |at| at + 1);
        for file in found.into_iter().skip(after) {
            if !log.files.iter().any(|known| chain::same_file(&known.generation, &file.generation)) {
                metrics::LOG_ROTATIONS.inc();
                log.files.push_back(file);
            }
        }
    }

    /// Moves on to the next generation once the first one is read to its end and stays there.
    fn advance(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let next_begun = log.files.iter().skip(1).any(|file| file.size > 0);
        let Some(front) = log.files.front_mut() else { return };
        if !next_begun || front.unread() > 0 {
            front.ends_seen = 0;
            return;
        }
        // The writer may hold the old file for a moment after the rename: its end counts when seen three times.
        front.ends_seen += 1;
        if front.ends_seen > 2 {
            self.begin_next_generation(index);
        } else {
            self.end_check = true;
        }
    }

    fn begin_next_generation(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let front = &log.files[0];
        let rest = front.rest();
        let mut taken = 0;
        if rest > 0 {
            // A torn last line whose newline will not come any more.
            let max = rest.min(self.settings.max_line as u64 + frame::MAX_HEADER as u64) as usize;
            let _ = front.file.read_at(front.offset, max, &mut arena);
            taken = rest;
            let offset = front.offset;
            log.lines.take_torn(&self.settings, &log.workload, &mut arena, offset, &mut records);
            log.files[0].offset += rest;
        }
        let decided = log.decided();
        log.lines.next_generation(&self.settings, &mut arena, &mut records);
        log.carried = if log.lines.carries() { log.carried.or(decided) } else { None };
        if let Some(old) = log.files.pop_front() {
            let start =
                Position { generation: old.generation, offset: old.offset, skipping: Skipping::default() };
            self.seal_from(index, start, arena, records, taken);
        }
    }

    /// Forgets logs whose files are gone, once all of them is read, given out and settled.
    fn forget_gone(&mut self, now: Duration) {
        let mut index = 0;
        while index < self.logs.len() {
            let log = &self.logs[index];
            let gone = log.gone_since.is_some_and(|since| now >= since + GONE_GRACE) && log.files.len() == 1;
            if !gone || log.unread() > 0 {
                index += 1;
                continue;
            }
            if !log.finished {
                self.finish(index);
            }
            let log = &self.logs[index];
            if log.ledger.has_in_flight() {
                index += 1;
                continue;
            }
            let log = self.logs.swap_remove(index);
            self.by_key.remove(&log.key);
            self.registry.remove(&log.key);
            if let Some(moved) = self.logs.get(index) {
                self.by_key.insert(Arc::clone(&moved.key), index);
            }
            self.order_stale = true;
        }
    }

    /// Gives out a gone log's last words.
    fn finish(&mut self, index: usize) {
        let log = &mut self.logs[index];
        log.finished = true;
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let front = &mut log.files[0];
        let rest = front.rest();
        let offset = front.offset;
        if rest > 0 {
            let max = rest.min(self.settings.max_line as u64 + frame::MAX_HEADER as u64) as usize;
            let _ = front.file.read_at(offset, max, &mut arena);
            front.offset += rest;
        }
        log.lines.finish(&self.settings, &log.workload, &mut arena, offset, &mut records);
        self.seal(index, arena, records, rest);
    }

    fn close_open_lines(&mut self, index: usize, wall: u64) {
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        if log.ended && log.files.len() == 1 && log.unread() == 0 {
            let offset = log.files[0].offset;
            log.lines.finish(&self.settings, &log.workload, &mut arena, offset, &mut records);
        } else {
            log.lines.close_idle(&self.settings, wall, &mut arena, &mut records);
        }
        self.seal(index, arena, records, 0);
    }

    // Reading.

    fn rebuild_order(&mut self) {
        self.order_stale = false;
        let mut namespaces: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut streams: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, log) in self.logs.iter().enumerate() {
            namespaces.entry(&log.workload.container.namespace).or_default().push(index);
            streams.entry(log.stream).or_default().push(index);
        }
        self.namespaces = namespaces.into_values().collect();
        streams.retain(|_, logs| logs.len() > 1);
        self.shared = streams;
        self.next_namespace = 0;
    }

    /// One round of deficit round robin, namespaces then containers; true when another round may find work.
    fn read_round(&mut self, now: Duration) -> bool {
        let namespaces = std::mem::take(&mut self.namespaces);
        let mut more = false;
        let mut starved = false;
        let count = namespaces.len();
        for turn in 0..count {
            let namespace = &namespaces[(self.next_namespace + turn) % count];
            // Every log of the namespace shares the namespace's quantum.
            let busy = namespace.iter().filter(|index| self.logs[**index].unread() > 0).count();
            if busy == 0 {
                continue;
            }
            let quantum = (CHUNK / busy as u64).max(16 << 10) as i64;
            for &index in namespace {
                if self.logs[index].unread() == 0 {
                    self.logs[index].deficit = 0;
                    continue;
                }
                let log = &mut self.logs[index];
                log.deficit = (log.deficit + quantum).min(CHUNK as i64);
                if log.deficit <= 0 {
                    more = true;
                    continue;
                }
                match self.read_chunk(index, now) {
                    Read::Some(bytes) => {
                        let log = &mut self.logs[index];
                        log.deficit -= bytes as i64;
                        more |= log.unread() > 0;
                    }
                    Read::Nothing => {}
                    Read::NoCredit => starved = true,
                }
            }
            if starved && self.budget.held() >= self.budget.limit() / 10 * 9 {
                break;
            }
        }
        if count > 0 {
            self.next_namespace = (self.next_namespace + 1) % count;
        }
        self.namespaces = namespaces;
        more
    }

    /// The stamp beyond which a log must wait for another one that feeds its stream.
    fn horizon(&self, index: usize) -> u64 {
        let Some(members) = self.shared.get(&self.logs[index].stream) else { return u64::MAX };
        let wall = self.env.unix_nano();
        let mut oldest = u64::MAX;
        for &other in members {
            let log = &self.logs[other];
            // A log that is about as far as the clock cannot be far behind anything.
            let near = log.lines.last_time().saturating_add(MAX_AHEAD) >= wall;
            if other != index
                && !near
                && log.lag() > 0
                && let Some(next) = self.peek(other)
            {
                oldest = oldest.min(next);
            }
        }
        oldest.saturating_add(MAX_AHEAD)
    }

    /// Stamp of a log's next unread line, when it can be told.
    fn peek(&self, index: usize) -> Option<u64> {
        let file = self.logs[index].files.front()?;
        let mut head = Vec::with_capacity(frame::MAX_HEADER);
        file.file.read_at(file.offset, frame::MAX_HEADER, &mut head).ok()?;
        let header = frame::cri_header(&head);
        header.well_formed.then_some(header.time_unix_nano)
    }

    fn read_chunk(&mut self, index: usize, now: Duration) -> Read {
        let log = &self.logs[index];
        let in_flight = log.ledger.in_flight_bytes();
        let long = self.settings.max_line as u64 + 4096;
        let limit = if log.long_read { CHUNK.max(long) } else { CHUNK };
        let want = log.unread().min(limit);
        if in_flight > 0 && in_flight + want > self.options.per_log {
            log.ledger.wait_for_credit();
            // What came back before the wish was noted raises no signal.
            if log.ledger.in_flight_bytes() == in_flight {
                return Read::NoCredit;
            }
        }
        let Some(mut permit) = self.budget.reserve(want + want / 2) else { return Read::NoCredit };
        let horizon = self.horizon(index);
        let log = &mut self.logs[index];
        let Some(file) = log.files.front_mut() else { return Read::Nothing };
        let (mut arena, mut records) = self.budget.buffers(want as usize);
        let start =
            Position { generation: file.generation, offset: file.offset, skipping: Skipping::default() };
        match file.file.read_at(file.offset, want as usize, &mut arena) {
            Ok(0) => {
                file.size = file.offset;
                return Read::Nothing;
            }
            Ok(_) => {}
            Err(error) => {
                metrics::LOG_READ_ERRORS.inc();
                warn!(log = %log.key, %error, "cannot read log; trying again at the next tick");
                file.size = file.offset;
                return Read::Nothing;
            }
        }
        let got = arena.len();
        if got as u64 >= CHUNK / 2 {
            self.last_large_read = now;
        }
        let offset = file.offset;
        let taken =
            log.lines.ingest(&self.settings, &log.workload, &mut arena, 0, offset, horizon, &mut records);
        file.offset += taken.bytes as u64;
        let cut_short = got as u64 == want && file.rest() > (got - taken.bytes) as u64;
        log.long_read = taken.bytes == 0 && !taken.at_horizon && cut_short;
        log.waiting = taken.at_horizon;
        if !taken.at_horizon && !cut_short && taken.bytes < got {
            file.torn_at = file.offset + (got - taken.bytes) as u64;
        }
        if taken.bytes == 0 {
            return if log.long_read { Read::Some(0) } else { Read::Nothing };
        }
        metrics::LOG_READ_BYTES.inc_by(taken.bytes as u64);
        metrics::LOG_RECORDS.inc_by(taken.framed);
        if taken.dropped > 0 {
            log.ledger.count_dropped(taken.dropped);
        }
        permit.resize((arena.capacity() + records.capacity() * size_of::<Record>()) as u64);
        self.send(index, start, arena, records, taken.bytes as u64, permit);
        Read::Some(taken.bytes as u64)
    }

    /// Seals what came out without a read of its own.
    fn seal(&mut self, index: usize, arena: Vec<u8>, records: Vec<Record>, source_bytes: u64) {
        if records.is_empty() && source_bytes == 0 {
            return;
        }
        let Some(start) = self.logs[index].decided() else { return };
        self.seal_from(index, start, arena, records, source_bytes);
    }

    fn seal_from(
        &mut self,
        index: usize,
        start: Position,
        arena: Vec<u8>,
        records: Vec<Record>,
        source_bytes: u64,
    ) {
        let bytes = (arena.capacity() + records.capacity() * size_of::<Record>()) as u64;
        // A few lines at most; they must not wait for credit, so the budget is overdrawn by them.
        let permit = self.budget.overdraw(bytes);
        self.send(index, start, arena, records, source_bytes, permit);
    }

    fn send(
        &mut self,
        index: usize,
        start: Position,
        arena: Vec<u8>,
        records: Vec<Record>,
        source_bytes: u64,
        permit: crate::data::budget::Permit,
    ) {
        let sealed_unix_nano = self.env.unix_nano();
        let log = &self.logs[index];
        let Some(end) = log.decided() else { return };
        if records.is_empty() {
            let _ = log.ledger.issue(end, source_bytes, 0, 0).count();
            return;
        }
        let newest = records.last().map_or(0, |record| record.time_unix_nano);
        let catching_up =
            log.lag() > CATCHING_UP_BYTES || newest.saturating_add(CATCHING_UP_AGE) < sealed_unix_nano;
        let batch = Batch {
            workload: Arc::clone(&log.workload),
            path: Arc::clone(&log.path),
            start,
            end,
            arena,
            records,
            catching_up,
            sealed_unix_nano,
            permit,
        };
        self.fanout.ship(&log.ledger, batch, source_bytes);
    }
}

/// What a read brought.
enum Read {
    /// So many bytes were taken.
    Some(u64),
    /// Nothing that can be taken now.
    Nothing,
    /// Credit is spent.
    NoCredit,
}

/// Re-reads a bounded stretch before a resumed position, so that what lines learn from earlier ones is as it was.
fn warm_up<F: LogFile>(log: &mut Log<F>, settings: &Settings) {
    let file = &log.files[0];
    let looks_back =
        file.offset.saturating_sub(inherit::REACH).min(settings.chain.warm_up_start(file.offset));
    // A line that ends in the stretch may have begun before it.
    let begin = looks_back.saturating_sub(settings.max_line as u64);
    log.lines.begin_warm_up();
    let mut arena = Vec::new();
    if file.file.read_at(begin, (file.offset - begin) as usize, &mut arena).is_err() {
        return;
    }
    let from = if begin == 0 { 0 } else { memchr::memchr(b'\n', &arena).map_or(arena.len(), |at| at + 1) };
    let mut records = Vec::new();
    let (offset, horizon) = (begin + from as u64, u64::MAX);
    log.lines.ingest(settings, &log.workload, &mut arena, from, offset, horizon, &mut records);
}

/// Identifies the backend stream that a workload's lines go to.
fn stream_hash(workload: &Workload) -> u64 {
    let text = [
        workload.container.namespace.as_str(),
        &workload.service_name,
        &workload.container.container,
        workload.environment.as_deref().unwrap_or(""),
        workload.tenant.as_deref().unwrap_or(""),
    ]
    .join("\0");
    xxh3_64(text.as_bytes())
}
