//! The hub: copies of records on their way, for people who watch.
//!
//! In: sealed batches, through an [`Outlet`] among those of the sinks, after all processing. Out: to each viewer the records
//! that its filter accepts, in order, as lines of the local store's JSON. Invariants: nothing waits for a viewer. The
//! outlet takes no ticket and keeps no batch; a viewer that is slow loses its oldest lines and is told how many; and of
//! each second the hub takes at most [`SHARE`] from the thread that reads logs. What was redacted is redacted here too,
//! since it is the sinks' own batches that are shown.

mod viewer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::data::batch::{Batch, Fields};
use crate::data::delivery::{self, Shipment};
use crate::sink::json::write_json;
use crate::sink::local::{Entry, Filter};

use viewer::Viewer;
pub use viewer::{Item, Subscription};

/// Viewers at once.
pub const VIEWERS: usize = 8;
/// Bytes of lines that wait for one viewer.
pub const QUEUE_BYTES: usize = 512 << 10;
/// Bytes of the newest lines that are kept for whoever comes next.
pub const RING_BYTES: usize = 512 << 10;
/// Most memory that a hub takes.
pub const MEMORY_BOUND: u64 = (RING_BYTES + VIEWERS * QUEUE_BYTES) as u64;
/// What viewers may take of each second of the thread that reads logs.
pub const SHARE: Duration = Duration::from_millis(200);
/// Bytes a second that are copied into the ring, so that it costs little whatever is logged.
const RING_PACE: usize = 512 << 10;
/// Records at the end of a batch that are looked at for the ring.
const RING_RECORDS: usize = 64;
/// Records between two looks at the clock.
const CLOCK_RECORDS: usize = 16;
/// A line without these could not be shown: the local store keeps them too.
const IDENTITY: Fields = Fields::POD.with(Fields::STREAM).with(Fields::LEVEL);

/// What an entry of a queue or of the ring takes beside its text.
const ENTRY_BYTES: usize = 64;

/// Shows records to viewers. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    /// Somebody watches, or the ring is kept: the only thing that is looked at otherwise.
    wanted: AtomicBool,
    state: Mutex<State>,
}

struct State {
    fields: Fields,
    ring: Option<Ring>,
    viewers: Vec<Arc<Viewer>>,
    share: Share,
    closed: bool,
    line: Vec<u8>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Hub").field("viewers", &state.viewers.len()).finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub that keeps the newest lines for whoever comes. `fields` are the record's optional keys.
    pub fn new(fields: Fields) -> Self {
        Self::with(fields, Some(Ring::default()), SHARE)
    }

    /// A hub without that: who comes sees what is read from then on.
    pub fn without_ring(fields: Fields) -> Self {
        Self::with(fields, None, SHARE)
    }

    fn with(fields: Fields, ring: Option<Ring>, share: Duration) -> Self {
        let wanted = AtomicBool::new(ring.is_some());
        let state = State {
            fields: fields.with(IDENTITY),
            ring,
            viewers: Vec::new(),
            share: Share { limit: share, begun: None, spent: Duration::ZERO },
            closed: false,
            line: Vec::new(),
        };
        Self { shared: Arc::new(Shared { wanted, state: Mutex::new(state) }) }
    }

    /// Other fields leave the node from now on.
    pub fn set_fields(&self, fields: Fields) {
        self.shared.state.lock().fields = fields.with(IDENTITY);
    }

    /// The hub as one of the places that records go to.
    pub fn outlet(&self) -> Box<dyn delivery::Outlet> {
        Box::new(Outlet { shared: Arc::clone(&self.shared) })
    }

    /// Begins to watch. `None` when enough others do, or the hub is closed.
    pub fn subscribe(&self, filter: Filter) -> Option<Subscription> {
        self.subscribe_from(filter, 0)
    }

    /// Begins to watch with the last `lines` of the newest lines that `filter` accepts, as far as they were kept.
    pub fn subscribe_from(&self, filter: Filter, lines: usize) -> Option<Subscription> {
        let mut state = self.shared.state.lock();
        if state.viewers.len() >= VIEWERS || state.closed {
            return None;
        }
        let viewer = Arc::new(Viewer::new(filter));
        if let Some(ring) = state.ring.as_ref().filter(|_| lines > 0) {
            let accepted =
                |line: &&Bytes| Entry::parse(line).is_some_and(|entry| viewer.filter.accepts(&entry));
            let mut last: Vec<&Bytes> = ring.lines.iter().rev().filter(accepted).take(lines).collect();
            last.reverse();
            viewer.push(last.into_iter().cloned(), 0);
        }
        state.viewers.push(Arc::clone(&viewer));
        self.shared.wanted.store(true, Ordering::Relaxed);
        drop(state);
        Some(Subscription::new(self.clone(), viewer))
    }

    /// Viewers at present.
    pub fn viewers(&self) -> usize {
        self.shared.state.lock().viewers.len()
    }

    /// The end: every viewer sees what waits for it and then the end, and nobody comes any more.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        self.shared.wanted.store(false, Ordering::Relaxed);
        for viewer in state.viewers.drain(..) {
            viewer.close();
        }
    }

    fn leave(&self, viewer: &Arc<Viewer>) {
        let mut state = self.shared.state.lock();
        state.viewers.retain(|other| !Arc::ptr_eq(other, viewer));
        let wanted = !state.closed && (state.ring.is_some() || !state.viewers.is_empty());
        self.shared.wanted.store(wanted, Ordering::Relaxed);
    }
}

struct Outlet {
    shared: Arc<Shared>,
}

impl delivery::Outlet for Outlet {
    fn required(&self) -> bool {
        false
    }

    fn offer(&self, shipment: Shipment) {
        if self.shared.wanted.load(Ordering::Relaxed) {
            self.shared.state.lock().take(&shipment.batch);
        }
    }
}

impl State {
    fn take(&mut self, batch: &Batch) {
        let viewers: Vec<Arc<Viewer>> = self
            .viewers
            .iter()
            .filter(|viewer| viewer.filter.accepts_workload(&batch.workload))
            .cloned()
            .collect();
        if !viewers.is_empty() {
            self.show(batch, &viewers);
        }
        self.keep(batch);
    }

    /// Gives each viewer what its filter accepts. Each record is encoded once.
    fn show(&mut self, batch: &Batch, viewers: &[Arc<Viewer>]) {
        let mut found: Vec<Vec<Bytes>> = viewers.iter().map(|_| Vec::new()).collect();
        let mut looked_at = batch.records.len();
        let mut clock = Instant::now();
        for (index, record) in batch.records.iter().enumerate() {
            if index % CLOCK_RECORDS == 0 && index > 0 {
                clock = self.share.spend(clock);
            }
            if self.share.is_spent(clock) {
                looked_at = index;
                break;
            }
            let mut encoded: Option<Bytes> = None;
            for (viewer, found) in viewers.iter().zip(&mut found) {
                if viewer.filter.accepts_record(batch, record) {
                    let line = encoded.get_or_insert_with(|| {
                        self.line.clear();
                        write_json(batch, record, self.fields, &mut self.line);
                        Bytes::copy_from_slice(&self.line)
                    });
                    found.push(line.clone());
                }
            }
        }
        self.share.spend(clock);
        let skipped = (batch.records.len() - looked_at) as u64;
        for (viewer, found) in viewers.iter().zip(found) {
            viewer.push(found.into_iter(), skipped);
        }
    }

    /// Keeps the last records of the batch for whoever comes next.
    fn keep(&mut self, batch: &Batch) {
        let Some(ring) = &mut self.ring else { return };
        if !ring.may_take(batch.sealed_unix_nano) {
            return;
        }
        let first = batch.records.len().saturating_sub(RING_RECORDS);
        for record in &batch.records[first..] {
            self.line.clear();
            write_json(batch, record, self.fields, &mut self.line);
            ring.push(&self.line);
        }
        if self.line.capacity() > QUEUE_BYTES {
            self.line = Vec::new();
        }
    }
}

/// The newest lines.
#[derive(Default)]
struct Ring {
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// The second in which `taken` bytes were taken.
    second: u64,
    taken: usize,
}

impl Ring {
    fn may_take(&mut self, unix_nano: u64) -> bool {
        let second = unix_nano / 1_000_000_000;
        if second != self.second {
            (self.second, self.taken) = (second, 0);
        }
        self.taken < RING_PACE
    }

    fn push(&mut self, line: &[u8]) {
        let bytes = line.len() + ENTRY_BYTES;
        self.taken += bytes;
        if bytes > RING_BYTES / 4 {
            return;
        }
        self.bytes += bytes;
        self.lines.push_back(Bytes::copy_from_slice(line));
        while self.bytes > RING_BYTES
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len() + ENTRY_BYTES;
        }
    }
}

/// How much of the present second viewers have taken.
struct Share {
    limit: Duration,
    begun: Option<Instant>,
    spent: Duration,
}

impl Share {
    /// Counts the time since `from`; the time now.
    fn spend(&mut self, from: Instant) -> Instant {
        let now = Instant::now();
        self.spent += now - from;
        now
    }

    fn is_spent(&mut self, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= Duration::from_secs(1)) {
            (self.begun, self.spent) = (Some(now), Duration::ZERO);
        }
        self.spent >= self.limit
    }
}

#[cfg(test)]
mod tests;
