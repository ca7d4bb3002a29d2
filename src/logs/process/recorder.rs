//! The flight recorder: debug and trace lines wait in a ring, and leave it only where something went wrong.
//!
//! In: the records of one container log, in order. Out: the same less those below info, which are held back; when a
//! record is an error, those that were held of its trace or request come out, with a mark and with their own time, and
//! what follows of that trace is not held any more. What nothing releases leaves the ring in the order in which it came
//! and is counted. Invariant: what a ring holds at a position depends on the [`Recorder::reach`] bytes of log before it
//! and on the config alone, so reading these again without shipping fills it as it was; only the bound for all rings
//! together ([`evict`](Ring::evict)) looks at anything else. The text in a ring is raw, and is redacted on its way out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus::IntCounter;
use xxhash_rust::xxh3::xxh3_64;

use super::config::Recorder as Config;
use super::dedup::{copy_text, spans_mut};
use super::rules::{Error, When};
use crate::data::batch::{Marks, Record, Span};
use crate::data::severity::Severity;
use crate::data::tally::{Recorded, Tally};
use crate::data::trace::TraceId;
use crate::metrics;

/// Records of one container that are held at most.
pub const MAX_LINES: usize = 4096;
/// Failed traces and requests of one container that are remembered at most, the newest.
const MAX_FAILED: usize = 64;

/// Why a record came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A record of its trace or request is an error.
    Error,
    /// It came after that error and was not held at all.
    Passed,
    /// A record of its trace in another container is an error.
    Neighbour,
    /// Its container died.
    Death,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Error, Self::Passed, Self::Neighbour, Self::Death];

    /// The cause as a label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Passed => "passed",
            Self::Neighbour => "neighbour",
            Self::Death => "death",
        }
    }
}

/// What all rings together hold.
#[derive(Debug, Default)]
pub struct Pool {
    records: AtomicU64,
    bytes: AtomicU64,
    used: AtomicBool,
}

impl Pool {
    /// True once a container has a flight recorder.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Records that are held.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes of memory that they take.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The compiled rule.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) on: bool,
    pub(super) when: When,
    pub(super) memory: u64,
    window: u64,
    age_nanos: u64,
    pool: Arc<Pool>,
    dropped: IntCounter,
    released: [IntCounter; Cause::ALL.len()],
}

impl Recorder {
    pub(super) fn compile(config: &Config) -> Result<Self, Error> {
        let (window, age) = (config.window.0, config.age.0);
        if !((64 << 10)..=(16 << 20)).contains(&window) {
            return Err(Error::new(
                "process.recorder.window",
                format!("{} is outside 64KiB to 16MiB", config.window),
            ));
        }
        if !(1..=3600).contains(&age.as_secs()) {
            return Err(Error::new("process.recorder.age", format!("{} is outside 1s to 1h", config.age)));
        }
        Ok(Self {
            on: config.on,
            when: When::compile("process.recorder", config.conditions())?,
            memory: config.memory.0,
            window,
            age_nanos: age.as_nanos() as u64,
            pool: Arc::default(),
            dropped: metrics::RECORDS_DROPPED.with_label_values(&["recorder", "recorder"]),
            released: Cause::ALL.map(|cause| metrics::RECORDER_RELEASED.with_label_values(&[cause.name()])),
        })
    }

    /// What the rings of this config hold together.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Bytes of log before a position that decide what is held there: a window of lines, and before each of them a
    /// window in which its trace may have failed.
    pub(super) fn reach(&self) -> u64 {
        2 * self.window
    }

    /// Bytes of log before a line that decide whether it is held at all.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn ring(&self) -> Ring {
        self.pool.used.store(true, Ordering::Relaxed);
        Ring {
            held: VecDeque::new(),
            failed: VecDeque::new(),
            text_bytes: 0,
            asked: 0,
            oldest_offset: u64::MAX,
            oldest_time: u64::MAX,
            pool: Arc::clone(&self.pool),
        }
    }

    /// True for a record that is held unless its trace has failed. One longer than a quarter of the window is not: it
    /// would cost all others.
    pub(super) fn is_held(&self, record: &Record) -> bool {
        let below_info = record.severity != Severity::UNSPECIFIED && record.severity < Severity::INFO;
        below_info && u64::from(record.body.len) <= self.window / 4
    }

    /// From now on nothing is counted.
    pub(super) fn count_nothing(&mut self) {
        self.dropped = super::uncounted();
        self.released = Cause::ALL.map(|_| super::uncounted());
    }

    pub(super) fn count_dropped(&self, records: u64) {
        self.dropped.inc_by(records);
    }

    pub(super) fn count_released(&self, cause: Cause, records: u64) {
        self.released[cause as usize].inc_by(records);
    }

    /// Makes room before a record: what is too far behind it leaves.
    pub(super) fn advance(&self, ring: &mut Ring, record: &Record) -> Tally {
        let (offset, time) = (record.offset, record.time_unix_nano);
        let far = |held_offset: u64, held_time: u64| {
            offset > held_offset.saturating_add(self.window)
                || time > held_time.saturating_add(self.age_nanos)
        };
        ring.failed.retain(|failed| !far(failed.offset, failed.time_unix_nano));
        if !far(ring.oldest_offset, u64::MAX) && !far(u64::MAX, ring.oldest_time) {
            return Tally::default();
        }
        let gone = ring.take(|held| far(held.record.offset, held.record.time_unix_nano));
        tally(gone.iter())
    }

    /// Holds a record back; what had to leave for it.
    pub(super) fn hold(&self, ring: &mut Ring, record: &Record, arena: &[u8], in_key: bool) -> Tally {
        let mut text = Vec::new();
        let copy = copy_text(record, arena, &mut text);
        ring.push(Held {
            record: copy,
            request: request_of(record, arena),
            in_key,
            text: text.into_boxed_slice(),
        });
        let mut gone = Tally::default();
        while ring.held.len() > MAX_LINES || ring.text_bytes > self.window {
            let Some(oldest) = ring.pop() else { break };
            gone += tally(std::iter::once(&oldest));
        }
        gone
    }
}

/// A record that is held back.
#[derive(Debug)]
pub(super) struct Held {
    /// Its spans point into `text`.
    record: Record,
    /// Hash of its request id, 0 without one.
    request: u64,
    in_key: bool,
    text: Box<[u8]>,
}

impl Held {
    fn cost(&self) -> u64 {
        (self.text.len() + size_of::<Self>()) as u64
    }

    /// The record with its text at the end of `arena`, marked, and whether it stands in a private key block.
    pub(super) fn into_arena(self, arena: &mut Vec<u8>) -> (Record, bool) {
        let base = arena.len();
        arena.extend_from_slice(&self.text);
        let mut record = self.record;
        for span in spans_mut(&mut record) {
            *span = span.shifted(base);
        }
        if record.body.is_empty() {
            record.body = Span::new(base, base);
        }
        record.marks.insert(Marks::RELEASED);
        (record, self.in_key)
    }
}

/// A trace or request of which a record was an error.
#[derive(Debug, Clone, Copy)]
struct Failed {
    trace: Option<TraceId>,
    request: u64,
    offset: u64,
    time_unix_nano: u64,
}

/// What is held of one container log.
#[derive(Debug)]
pub(super) struct Ring {
    /// In the order in which they came.
    held: VecDeque<Held>,
    /// The one that failed last stands last.
    failed: VecDeque<Failed>,
    text_bytes: u64,
    /// So many of the held ones are known not to be of a trace that failed elsewhere.
    asked: usize,
    /// Not above the least of what is held.
    oldest_offset: u64,
    oldest_time: u64,
    pool: Arc<Pool>,
}

impl Ring {
    /// What is held, in bytes of lines.
    pub(super) fn tally(&self) -> Tally {
        tally(self.held.iter())
    }

    /// Memory that it takes.
    pub(super) fn cost(&self) -> u64 {
        self.held.iter().map(Held::cost).sum()
    }

    /// True when a record's trace or request has failed.
    pub(super) fn has_failed(&self, record: &Record, arena: &[u8]) -> bool {
        if self.failed.is_empty() {
            return false;
        }
        let request = request_of(record, arena);
        self.failed.iter().any(|failed| matches(record.trace_id, request, failed.trace, failed.request))
    }

    /// A record is an error: what was held of its trace and request.
    pub(super) fn fail(&mut self, record: &Record, arena: &[u8]) -> Vec<Held> {
        let (trace, request) = (record.trace_id, request_of(record, arena));
        if trace.is_none() && request == 0 {
            return Vec::new();
        }
        self.failed.retain(|failed| (failed.trace, failed.request) != (trace, request));
        if self.failed.len() == MAX_FAILED {
            self.failed.pop_front();
        }
        let (offset, time_unix_nano) = (record.offset, record.time_unix_nano);
        self.failed.push_back(Failed { trace, request, offset, time_unix_nano });
        self.take(|held| matches(held.record.trace_id, held.request, trace, request))
    }

    /// What is held of traces that failed; only what came since this was last asked, unless `again`.
    pub(super) fn take_traces(&mut self, failed: &dyn Fn(&TraceId) -> bool, again: bool) -> Vec<Held> {
        let from = if again { 0 } else { self.asked };
        let is = |held: &Held| held.record.trace_id.as_ref().is_some_and(failed);
        let taken = if self.held.iter().skip(from).any(is) { self.take(is) } else { Vec::new() };
        self.asked = self.held.len();
        taken
    }

    /// All that is held.
    pub(super) fn take_all(&mut self) -> Vec<Held> {
        self.failed.clear();
        self.take(|_| true)
    }

    /// Gives up the oldest until `bytes` of memory are free.
    pub(super) fn evict(&mut self, bytes: u64) -> Tally {
        let (mut free, mut gone) = (0, Tally::default());
        while free < bytes
            && let Some(oldest) = self.pop()
        {
            free += oldest.cost();
            gone += tally(std::iter::once(&oldest));
        }
        gone
    }

    fn push(&mut self, held: Held) {
        self.oldest_offset = self.oldest_offset.min(held.record.offset);
        self.oldest_time = self.oldest_time.min(held.record.time_unix_nano);
        self.text_bytes += held.text.len() as u64;
        self.pool.records.fetch_add(1, Ordering::Relaxed);
        self.pool.bytes.fetch_add(held.cost(), Ordering::Relaxed);
        self.held.push_back(held);
    }

    fn pop(&mut self) -> Option<Held> {
        let oldest = self.held.pop_front()?;
        self.left(&oldest);
        self.asked = self.asked.saturating_sub(1);
        Some(oldest)
    }

    fn left(&mut self, held: &Held) {
        self.text_bytes -= held.text.len() as u64;
        self.pool.records.fetch_sub(1, Ordering::Relaxed);
        self.pool.bytes.fetch_sub(held.cost(), Ordering::Relaxed);
    }

    fn take(&mut self, wanted: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut taken = Vec::new();
        if self.held.iter().any(&wanted) {
            let (asked, before) = (self.asked, std::mem::take(&mut self.held));
            for (index, held) in before.into_iter().enumerate() {
                if wanted(&held) {
                    self.left(&held);
                    self.asked -= usize::from(index < asked);
                    taken.push(held);
                } else {
                    self.held.push_back(held);
                }
            }
        }
        self.oldest_offset = self.held.iter().map(|held| held.record.offset).min().unwrap_or(u64::MAX);
        self.oldest_time = self.held.iter().map(|held| held.record.time_unix_nano).min().unwrap_or(u64::MAX);
        taken
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.take_all();
    }
}

/// What the flight recorder did to one log and nobody has asked for yet.
#[derive(Debug, Default)]
pub(super) struct Counts(pub(super) Recorded);

impl Counts {
    pub(super) fn take(&mut self) -> Option<Recorded> {
        (self.0 != Recorded::default()).then(|| std::mem::take(&mut self.0))
    }
}

pub(super) fn tally<'a>(held: impl Iterator<Item = &'a Held>) -> Tally {
    let mut sum = Tally::default();
    for held in held {
        sum += Tally { records: 1, bytes: u64::from(held.record.body.len) };
    }
    sum
}

fn matches(trace: Option<TraceId>, request: u64, failed: Option<TraceId>, failed_request: u64) -> bool {
    trace.is_some() && trace == failed || request != 0 && request == failed_request
}

fn request_of(record: &Record, arena: &[u8]) -> u64 {
    if record.request_id.is_empty() { 0 } else { xxh3_64(record.request_id.of(arena)).max(1) }
}
