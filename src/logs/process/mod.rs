//! Configured processing of records: drop, sample, deduplicate, limit, redact. All off until configured.
//!
//! In: the records of a container log, one by one in order, with their text in an arena. Out: the records that
//! go on, perhaps with new text at the arena's end, and how many were dropped for which reason. Invariant:
//! what happens to a record depends on the log's bytes and the config alone (for limits whose key spans several
//! logs see [`limit`]), so a replay that first reads from [`Chain::warm_up_start`] without shipping gives the
//! identical records.
//!
//! The order: what is dropped costs nothing further; what the flight recorder holds neither begins a run of copies
//! nor ends one, and what it releases goes on behind deduplication; deduplication stands before the limits, as its counts must
//! be the same in every replay and limits are not; redaction comes last, so that conditions and comparisons see
//! what the container wrote and only what leaves the node is searched. The copy that deduplication holds back
//! is raw text in memory, and is redacted when it goes on.

pub mod config;
pub mod dedup;
pub mod limit;
pub mod recorder;
mod recording;
mod redact;
pub(in crate::logs) mod rules;
mod sample;
pub mod watch;

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntCounter;

pub use self::config::Config;
pub(super) use self::redact::Cover;
pub use self::rules::{Error, MAX_RULES};
pub(super) use self::sample::draw;

use self::dedup::{BLOCK_BYTES, Fate, Folder, Memory};
use self::limit::Limiter;
use self::recorder::{Cause, Counts, Recorder, Ring};
pub use self::recording::Failed;
use self::recording::Recording;
pub(super) use self::recording::WANTS as RECORDER_WANTS;
use self::redact::{KeyState, Redactor};
use self::rules::When;
use self::sample::Sampler;
use self::watch::{Kind, Noted, Notes, Verdict};
use crate::data::batch::{Fields, Record};
use crate::data::tally::{Dropping, Drops, Tally};
use crate::data::workload::Workload;
use crate::metrics;

/// Bytes before a position within which a private key that is still open may have begun: 128 lines of 80.
pub(super) const KEY_BYTES: u64 = 16 << 10;

/// The compiled rules, shared by all container logs.
#[derive(Debug)]
pub struct Chain {
    /// Tells this chain from another one in a log's state.
    id: u64,
    noop: bool,
    drops: Vec<(When, IntCounter)>,
    samplers: Vec<(Sampler, IntCounter)>,
    dedup: Option<(Folder, IntCounter)>,
    limiters: Vec<(Limiter, IntCounter)>,
    recorder: Recorder,
    redactor: Option<Redactor>,
}

/// How many records were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// By a drop rule.
    pub drop: u32,
    /// By a sampling rule.
    pub sample: u32,
    /// By a rate limit.
    pub rate_limit: u32,
    /// Folded into a copy that says so.
    pub dedup: u32,
    /// Bytes of their lines, in the order of [`Dropping::ALL`].
    pub bytes: [u64; Dropping::COUNT],
}

impl Dropped {
    /// Records dropped for any reason.
    pub fn records(&self) -> u32 {
        self.drop + self.sample + self.rate_limit + self.dedup
    }
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.drop += other.drop;
        self.sample += other.sample;
        self.rate_limit += other.rate_limit;
        self.dedup += other.dedup;
        for (bytes, more) in self.bytes.iter_mut().zip(other.bytes) {
            *bytes += more;
        }
    }
}

impl From<Dropped> for Drops {
    fn from(dropped: Dropped) -> Self {
        // What is excluded or recorded never comes here.
        let records = [dropped.drop, dropped.sample, dropped.rate_limit, dropped.dedup, 0, 0];
        std::array::from_fn(|n| Tally { records: u64::from(records[n]), bytes: dropped.bytes[n] })
    }
}

/// What the chain remembers of one container log: at most [`dedup::MAX_HELD_BYTES`] of text and a few words.
#[derive(Debug, Default)]
pub struct LogState {
    memory: Memory,
    keys: KeyState,
    scope: Option<Box<Scope>>,
    warming_up: bool,
    notes: Notes,
    /// What the container's annotations say of the flight recorder.
    wish: Option<bool>,
    ring: Option<Box<Ring>>,
    recorded: Counts,
    /// The next record may not be seen by who resumes here: nothing may depend on it.
    apart: bool,
}

/// What the conditions about containers say of this one, asked once.
#[derive(Debug)]
struct Scope {
    chain: u64,
    drops: Vec<bool>,
    samplers: Vec<bool>,
    recorder: bool,
    dedup: bool,
    /// The container's part of the key, where the rule is about it.
    limiters: Vec<Option<u64>>,
    own_redactions: Vec<bool>,
}

impl LogState {
    /// Offset of the first record whose fate is not yet settled: the log's committed end may not pass it.
    pub fn pinned(&self) -> Option<u64> {
        self.memory.pinned()
    }

    /// Forgets the log's text: a new generation begins. First close what is open with
    /// [`Chain::close_idle`] at `u64::MAX`, or it is lost.
    pub fn reset(&mut self) {
        self.memory = Memory::default();
        self.keys = KeyState::default();
    }

    /// From now on what each rule decides is noted, and counted in no metric.
    pub fn watch(&mut self) {
        self.notes.begin();
    }

    /// What was decided and replaced since this was last asked.
    pub fn take_noted(&mut self) -> Noted {
        self.notes.take()
    }

    /// While true, records are read again only to bring this state up to date: nothing is counted, and what
    /// `apply` gives out must be thrown away.
    pub fn set_warming_up(&mut self, warming_up: bool) {
        self.warming_up = warming_up;
    }

    /// Whether what is dropped and redacted is counted: not while the state only warms up, nor for a person who asks.
    pub(super) fn counts(&self) -> bool {
        !self.warming_up && !self.notes.wanted()
    }
}

impl Chain {
    /// Compiles the rules.
    ///
    /// # Errors
    /// Names the key whose value cannot be used, and why.
    pub fn compile(config: &Config) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let counter = |reason: &str, rule: &str| metrics::RECORDS_DROPPED.with_label_values(&[reason, rule]);

        rules::check_names("process.drop", config.drop.keys())?;
        let mut drops = Vec::new();
        for (name, rule) in &config.drop {
            let at = format!("process.drop.{name}");
            if rule.conditions().is_empty() {
                return Err(Error::new(
                    at,
                    "has no condition and would drop every record; give at least one, or namespace = \"*\" if you mean it",
                ));
            }
            drops.push((When::compile(&at, rule.conditions())?, counter("drop", name)));
        }
        rules::check_names("process.sample", config.sample.keys())?;
        let mut samplers = Vec::new();
        for (name, rule) in &config.sample {
            samplers
                .push((Sampler::compile(&format!("process.sample.{name}"), rule)?, counter("sample", name)));
        }
        let dedup = match &config.dedup {
            Some(rule) => Some((Folder::compile(rule)?, counter("dedup", "dedup"))),
            None => None,
        };
        rules::check_names("process.limit", config.limit.keys())?;
        let mut limiters = Vec::new();
        for (name, rule) in &config.limit {
            limiters.push((
                Limiter::compile(&format!("process.limit.{name}"), rule)?,
                counter("rate_limit", name),
            ));
        }
        let recorder = Recorder::compile(&config.recorder)?;
        let redactor = Redactor::compile(&config.redact)?;
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            noop: drops.is_empty()
                && samplers.is_empty()
                && dedup.is_none()
                && limiters.is_empty()
                && !recorder.on
                && redactor.is_none(),
            drops,
            samplers,
            dedup,
            limiters,
            recorder,
            redactor,
        })
    }

    /// The same rules for records that are read once more, to be shown: nothing is counted.
    #[must_use]
    pub fn quietly(mut self) -> Self {
        let counters = self.drops.iter_mut().map(|(_, counter)| counter);
        let counters = counters.chain(self.samplers.iter_mut().map(|(_, counter)| counter));
        let counters = counters.chain(self.dedup.iter_mut().map(|(_, counter)| counter));
        for counter in counters.chain(self.limiters.iter_mut().map(|(_, counter)| counter)) {
            *counter = uncounted();
        }
        self.recorder.count_nothing();
        if let Some(redactor) = &mut self.redactor {
            redactor.count_nothing();
        }
        self
    }

    /// True when redaction may write `text`, or a part of it, in the place of what it covers.
    pub fn may_write(&self, text: &str) -> bool {
        self.redactor.as_ref().is_some_and(|redactor| redactor.may_write(text))
    }

    /// True when nothing is configured: records pass untouched.
    #[inline]
    pub fn is_noop(&self) -> bool {
        self.noop
    }

    /// The parsed fields that the rules look at: parsing must find them even where no sink sends them.
    pub fn wants(&self) -> Fields {
        let mut fields = Fields::NONE;
        for (when, _) in &self.drops {
            fields = fields.with(when.wants());
        }
        for (sampler, _) in &self.samplers {
            // Lines of a trace may inherit their id by request id; errors are kept.
            let needs = Fields::TRACE_ID.with(Fields::REQUEST_ID).with(Fields::LEVEL);
            fields = fields.with(sampler.when.wants()).with(needs);
        }
        if let Some((folder, _)) = &self.dedup {
            fields = fields.with(folder.when.wants()).with(Fields::LEVEL);
        }
        for (limiter, _) in &self.limiters {
            fields = fields.with(limiter.wants());
        }
        if self.recorder.on {
            fields = fields.with(self.recorder.when.wants()).with(RECORDER_WANTS);
        }
        self.redactor.as_ref().map_or(fields, |redactor| fields.with(redactor.wants()))
    }

    /// From which offset a log must be read again, without shipping, so that reading on from `offset` gives what
    /// it gave before. At most 80 KiB before it; `offset` itself when no rule looks back.
    pub fn warm_up_start(&self, offset: u64) -> u64 {
        if self.dedup.is_none() && self.redactor.is_none() {
            return offset;
        }
        let back = if self.redactor.is_some() { KEY_BYTES } else { 0 };
        offset.saturating_sub(back) / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Most bytes that all rules together hold beside the logs' own states ([`LogState`], one a log).
    pub fn memory_bound(&self) -> usize {
        self.limiters.len() * 2 * limit::MAX_KEYS * 48
    }

    /// Appends to `out` what becomes of `record`: nothing, itself (perhaps redacted: its text written anew at
    /// the end of `arena`), or before it also a record that stands for suppressed copies.
    ///
    /// Records must come in the log's order, all of them.
    #[inline]
    pub fn apply(
        &self,
        state: &mut LogState,
        workload: &Workload,
        arena: &mut Vec<u8>,
        record: Record,
        out: &mut Vec<Record>,
    ) -> Dropped {
        if self.noop && !state.wants_recorder() {
            out.push(record);
            return Dropped::default();
        }
        self.process(state, workload, arena, record, out)
    }

    /// Closes a dedup run whose window passed by wall clock while the log was quiet. Call it only for a log that
    /// is read to its end, or lines that belong to the run may still come.
    ///
    /// `u64::MAX` closes any run: for the end of a generation. Not for a shutdown: [`LogState::pinned`] sees to
    /// it that the run is read again after the restart. A log that comes to its end needs nothing else.
    pub fn close_idle(
        &self,
        state: &mut LogState,
        now_unix_nano: u64,
        arena: &mut Vec<u8>,
        out: &mut Vec<Record>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        if let Some((folder, _)) = &self.dedup
            && (now_unix_nano == u64::MAX || folder.is_over(&state.memory, now_unix_nano))
        {
            self.release(state, arena, out, &mut dropped);
        }
        dropped
    }

    fn scope(&self, workload: &Workload, wish: Option<bool>) -> Box<Scope> {
        Box::new(Scope {
            chain: self.id,
            drops: self.drops.iter().map(|(when, _)| when.in_scope(workload)).collect(),
            samplers: self.samplers.iter().map(|(rule, _)| rule.when.in_scope(workload)).collect(),
            recorder: wish.unwrap_or(self.recorder.on && self.recorder.when.in_scope(workload)),
            dedup: self.dedup.as_ref().is_some_and(|(folder, _)| folder.when.in_scope(workload)),
            limiters: self
                .limiters
                .iter()
                .map(|(rule, _)| rule.when.in_scope(workload).then(|| rule.seed(workload)))
                .collect(),
            own_redactions: self.redactor.as_ref().map(|rules| rules.scope(workload)).unwrap_or_default(),
        })
    }

    fn process(
        &self,
        state: &mut LogState,
        workload: &Workload,
        arena: &mut Vec<u8>,
        record: Record,
        out: &mut Vec<Record>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        if state.scope.as_ref().is_none_or(|scope| scope.chain != self.id) {
            state.scope = Some(self.scope(workload, state.wish));
            if !state.scope.as_ref().is_some_and(|scope| scope.recorder) {
                self.drop_held(state);
            }
            // A run that another chain opened ends where this one's rules begin to hold.
            self.release(state, arena, out, &mut dropped);
        }
        let in_key =
            self.redactor.as_ref().is_some_and(|rules| rules.follow_keys(&mut state.keys, &record, arena));
        let mut record = record;
        let Some(scope) = state.scope.as_deref() else {
            return dropped;
        };
        let counts = state.counts();
        let notes = &mut state.notes;

        for (rule, ((when, counter), in_scope)) in self.drops.iter().zip(&scope.drops).enumerate() {
            let about = *in_scope && when.matches(&record, arena);
            if notes.wanted() {
                notes.add(record.offset, Kind::Drop, rule, verdict(*in_scope, about, Verdict::Dropped));
            }
            if about {
                tally(&mut dropped.drop, counter, counts);
                dropped.bytes[Dropping::Drop as usize] += u64::from(record.body.len);
                return dropped;
            }
        }
        let mut draw = None;
        for (index, ((rule, counter), in_scope)) in self.samplers.iter().zip(&scope.samplers).enumerate() {
            let about = *in_scope && rule.when.matches(&record, arena);
            let keeps = !about
                || rule.keeps(&record, *draw.get_or_insert_with(|| sample::draw(workload, &record, arena)));
            if notes.wanted() {
                let decided = if keeps { Verdict::Kept } else { Verdict::Dropped };
                notes.add(record.offset, Kind::Sample, index, verdict(*in_scope, about, decided));
            }
            if !keeps {
                tally(&mut dropped.sample, counter, counts);
                dropped.bytes[Dropping::Sample as usize] += u64::from(record.body.len);
                return dropped;
            }
        }
        if scope.recorder && !state.apart {
            match self.record(state, &mut record, in_key, arena) {
                Recording::Held => return dropped,
                Recording::Passes => {}
                Recording::Releases(held) => {
                    self.send_held(state, held, Cause::Error, arena, out, &mut dropped);
                }
            }
        }
        let Some(scope) = state.scope.as_deref() else {
            return dropped;
        };
        let notes = &mut state.notes;
        if let Some((folder, counter)) = &self.dedup {
            let about = scope.dedup && folder.when.matches(&record, arena);
            let fate =
                if about { folder.next(&mut state.memory, &record, arena, in_key) } else { Fate::Passes };
            if notes.wanted() {
                let decided = match fate {
                    Fate::Held => Verdict::Held,
                    Fate::Folded => Verdict::Folded,
                    Fate::Passes => Verdict::Kept,
                };
                notes.add(record.offset, Kind::Dedup, 0, verdict(scope.dedup, about, decided));
            }
            match fate {
                Fate::Held => return dropped,
                Fate::Folded => {
                    tally(&mut dropped.dedup, counter, counts);
                    dropped.bytes[Dropping::Dedup as usize] += u64::from(record.body.len);
                    return dropped;
                }
                Fate::Passes => {
                    self.release(state, arena, out, &mut dropped);
                    if about {
                        folder.begin(&mut state.memory, &record, arena);
                    }
                }
            }
        }
        self.send(state, arena, record, in_key, out, &mut dropped);
        dropped
    }

    /// Sends on the record that stands for the open run, if it holds one.
    fn release(
        &self,
        state: &mut LogState,
        arena: &mut Vec<u8>,
        out: &mut Vec<Record>,
        dropped: &mut Dropped,
    ) {
        if let Some((record, in_key)) = state.memory.release(arena) {
            self.send(state, arena, record, in_key, out, dropped);
        }
    }

    /// Name of a redaction rule that a step tells of.
    pub fn redaction(&self, rule: usize) -> &str {
        self.redactor.as_ref().map_or("", |rules| rules.name(rule))
    }

    /// True when redaction is configured.
    pub(super) fn redacts(&self) -> bool {
        self.redactor.is_some()
    }

    /// Takes note of one more record of a log; true when it stands in a private key that began before it.
    pub(super) fn follow(
        &self,
        state: &mut LogState,
        workload: &Workload,
        record: &Record,
        arena: &[u8],
    ) -> bool {
        if state.scope.as_ref().is_none_or(|scope| scope.chain != self.id) {
            state.scope = Some(self.scope(workload, state.wish));
        }
        self.redactor.as_ref().is_some_and(|rules| rules.follow_keys(&mut state.keys, record, arena))
    }

    /// Redacts a record that is read once more, to be shown within another one. Nothing is counted, sampled,
    /// limited or folded; `None` when a drop rule keeps it from leaving the node.
    ///
    /// Records must come in the log's order, all of them, with a state of their own.
    pub(super) fn conceal(
        &self,
        state: &mut LogState,
        workload: &Workload,
        arena: &mut Vec<u8>,
        mut record: Record,
    ) -> Option<Record> {
        let in_key = self.follow(state, workload, &record, arena);
        let scope = state.scope.as_deref()?;
        let dropped = self
            .drops
            .iter()
            .zip(&scope.drops)
            .any(|((when, _), in_scope)| *in_scope && when.matches(&record, arena));
        if dropped {
            return None;
        }
        if let Some(redactor) = &self.redactor {
            redactor.redact(&scope.own_redactions, in_key, true, &mut record, arena);
        }
        Some(record)
    }

    /// Where a record's line must be covered for nothing to be left in it that redaction would replace, in order
    /// and without overlaps. Positions count from the line's start.
    ///
    /// Records must come in the log's order, all of them, with a state of their own.
    pub(super) fn covers(
        &self,
        state: &mut LogState,
        workload: &Workload,
        record: &Record,
        arena: &[u8],
    ) -> Vec<Cover> {
        let in_key = self.follow(state, workload, record, arena);
        match (&self.redactor, &state.scope) {
            (Some(redactor), Some(scope)) => redactor.covers(&scope.own_redactions, in_key, record, arena),
            _ => Vec::new(),
        }
    }

    /// As [`covers`](Self::covers), for a record of which only the beginning is known: the state stays as it is.
    pub(super) fn covers_open(
        &self,
        state: &mut LogState,
        workload: &Workload,
        record: &Record,
        arena: &[u8],
    ) -> Vec<Cover> {
        let keys = state.keys;
        let covers = self.covers(state, workload, record, arena);
        state.keys = keys;
        covers
    }

    /// The last steps: limits and redaction.
    fn send(
        &self,
        state: &mut LogState,
        arena: &mut Vec<u8>,
        mut record: Record,
        in_key: bool,
        out: &mut Vec<Record>,
        dropped: &mut Dropped,
    ) {
        let Some(scope) = state.scope.as_deref() else {
            return;
        };
        for (index, ((rule, counter), seed)) in self.limiters.iter().zip(&scope.limiters).enumerate() {
            let about = seed.filter(|_| rule.when.matches(&record, arena));
            let admits = about.is_none_or(|seed| rule.admits(seed, &record, arena));
            if state.notes.wanted() {
                let decided = if admits { Verdict::Kept } else { Verdict::Dropped };
                let verdict = verdict(seed.is_some(), about.is_some(), decided);
                state.notes.add(record.offset, Kind::Limit, index, verdict);
            }
            if !admits {
                tally(&mut dropped.rate_limit, counter, state.counts());
                dropped.bytes[Dropping::RateLimit as usize] += u64::from(record.body.len);
                return;
            }
        }
        let counts = state.counts();
        if let Some(redactor) = &self.redactor
            && !state.warming_up
        {
            if state.notes.wanted() {
                for (rule, count) in redactor.found(&scope.own_redactions, in_key, &record, arena) {
                    state.notes.add(record.offset, Kind::Redact, rule, Verdict::Redacted(count));
                }
                state.notes.add_replaced(redactor.replaced(&scope.own_redactions, in_key, &record, arena));
            }
            redactor.redact(&scope.own_redactions, in_key, counts, &mut record, arena);
        }
        out.push(record);
    }
}

/// A counter that nobody sees.
pub(super) fn uncounted() -> IntCounter {
    IntCounter::new("uncounted", "not exposed").expect("a valid name")
}

/// A rule's word on a record, for the notes.
fn verdict(in_scope: bool, about: bool, decided: Verdict) -> Verdict {
    match (in_scope, about) {
        (false, _) => Verdict::OtherContainer,
        (true, false) => Verdict::NoMatch,
        (true, true) => decided,
    }
}

#[inline]
fn tally(count: &mut u32, counter: &IntCounter, counts: bool) {
    *count += 1;
    if counts {
        counter.inc();
    }
}
