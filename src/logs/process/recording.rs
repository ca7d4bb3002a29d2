//! The flight recorder among the other steps: what it makes of each record, and what a log's follower asks of it.
//!
//! In: records on their way from sampling to deduplication; the container's end; traces that failed elsewhere. Out:
//! records, with what was held sent on by way of limits and redaction. Invariant: whatever leaves a ring is counted in
//! [`Recorded`] once, and while records are read again nothing is.

use super::recorder::{Cause, Counts, Held, Pool, tally};
use super::sample;
use super::watch::{Kind, Verdict};
use super::{Chain, Dropped, LogState};
use crate::data::batch::{Fields, Marks, Record};
use crate::data::severity::Severity;
use crate::data::tally::{Recorded, Tally};
use crate::data::trace::TraceId;
use crate::data::workload::Workload;

/// Traces that failed in other containers.
pub struct Failed<'a> {
    /// Whether a trace is one of them.
    pub is: &'a dyn Fn(&TraceId) -> bool,
    /// There are some that were not asked about before.
    pub any_new: bool,
}

/// What the flight recorder looks at.
pub(in crate::logs) const WANTS: Fields = Fields::LEVEL.with(Fields::TRACE_ID).with(Fields::REQUEST_ID);

/// What the flight recorder makes of a record.
pub(super) enum Recording {
    Held,
    Passes,
    /// It is an error, and these were held of its trace and request.
    Releases(Vec<Held>),
}

impl LogState {
    /// Takes what the container's annotations say of the flight recorder.
    pub fn set_recorder(&mut self, wish: Option<bool>) {
        if self.wish != wish {
            self.wish = wish;
            self.scope = None;
        }
    }

    /// Says whether nothing may depend on the next record.
    #[inline]
    pub(in crate::logs) fn set_apart(&mut self, apart: bool) {
        self.apart = apart;
    }

    /// True when annotations switch the flight recorder on.
    #[inline]
    pub(in crate::logs) fn wants_recorder(&self) -> bool {
        self.wish == Some(true)
    }

    /// What the flight recorder holds.
    pub fn held(&self) -> Tally {
        self.ring.as_ref().map(|ring| ring.tally()).unwrap_or_default()
    }

    /// Memory that it takes.
    pub(in crate::logs) fn held_cost(&self) -> u64 {
        self.ring.as_ref().map_or(0, |ring| ring.cost())
    }

    /// What the flight recorder did since this was last asked; `None` when nothing.
    pub fn take_recorded(&mut self) -> Option<Recorded> {
        self.recorded.take()
    }

    /// Forgets what the flight recorder holds and did: it was settled before.
    pub(in crate::logs) fn forget_held(&mut self) {
        (self.ring, self.recorded) = (None, Counts::default());
    }
}

impl Chain {
    /// The same for a log with this state, whose flight recorder reaches further back.
    pub(in crate::logs) fn warm_up_start_of(&self, state: &LogState, offset: u64) -> u64 {
        let start = self.warm_up_start(offset);
        if !state.wish.unwrap_or(self.recorder.on) {
            return start;
        }
        // What reaches the steps behind it depends on what it held.
        start.saturating_sub(self.recorder.window()).min(offset.saturating_sub(self.recorder.reach()))
    }

    /// What all flight recorders of this config hold together.
    pub fn recorder_pool(&self) -> &Pool {
        self.recorder.pool()
    }

    /// Bytes of memory that they may take together, as configured.
    pub fn recorder_memory(&self) -> u64 {
        self.recorder.memory
    }

    /// What the flight recorder makes of a record.
    pub(super) fn record(
        &self,
        state: &mut LogState,
        record: &mut Record,
        in_key: bool,
        arena: &[u8],
    ) -> Recording {
        let (counts, told) = (!state.warming_up, state.counts());
        let recorder = &self.recorder;
        let ring = state.ring.get_or_insert_with(|| Box::new(recorder.ring()));
        let mut gone = recorder.advance(ring, record);
        let mut recording = Recording::Passes;
        if record.severity >= Severity::ERROR {
            recording = Recording::Releases(ring.fail(record, arena));
        } else if recorder.is_held(record)
            && (state.wish == Some(true) || recorder.when.matches(record, arena))
        {
            let bytes = u64::from(record.body.len);
            if ring.has_failed(record, arena) {
                record.marks.insert(Marks::RELEASED);
                recorder.count_released(Cause::Passed, u64::from(told));
            } else {
                gone += recorder.hold(ring, record, arena, in_key);
                state.recorded.0.taken +=
                    Tally { records: u64::from(counts), bytes: if counts { bytes } else { 0 } };
                recording = Recording::Held;
            }
            if state.notes.wanted() {
                let verdict =
                    if matches!(recording, Recording::Held) { Verdict::Held } else { Verdict::Released };
                state.notes.add(record.offset, Kind::Recorder, 0, verdict);
            }
        }
        if counts {
            self.give_up(state, gone);
        }
        recording
    }

    fn give_up(&self, state: &mut LogState, gone: Tally) {
        if gone.records > 0 {
            if state.counts() {
                self.recorder.count_dropped(gone.records);
            }
            state.recorded.0.dropped += gone;
        }
    }

    /// Sends on what was held. While records are read again it is thrown away: it was out before.
    pub(super) fn send_held(
        &self,
        state: &mut LogState,
        held: Vec<Held>,
        cause: Cause,
        arena: &mut Vec<u8>,
        out: &mut Vec<Record>,
        dropped: &mut Dropped,
    ) {
        if held.is_empty() || state.warming_up {
            return;
        }
        let tally = tally(held.iter());
        if state.counts() {
            self.recorder.count_released(cause, tally.records);
        }
        state.recorded.0.released += tally;
        for held in held {
            let (record, in_key) = held.into_arena(arena);
            if state.notes.wanted() {
                state.notes.add(record.offset, Kind::Recorder, 0, Verdict::Released);
            }
            self.send(state, arena, record, in_key, out, dropped);
        }
    }

    /// Gives out all that the flight recorder holds: the container has died.
    pub fn release_held(
        &self,
        state: &mut LogState,
        workload: &Workload,
        arena: &mut Vec<u8>,
        out: &mut Vec<Record>,
    ) -> Dropped {
        let held = state.ring.as_mut().map(|ring| ring.take_all()).unwrap_or_default();
        self.send_on(state, workload, held, Cause::Death, arena, out)
    }

    /// Gives out what the flight recorder holds of these traces: they failed in another container.
    pub fn release_traces(
        &self,
        state: &mut LogState,
        workload: &Workload,
        failed: &Failed<'_>,
        arena: &mut Vec<u8>,
        out: &mut Vec<Record>,
    ) -> Dropped {
        let held =
            state.ring.as_mut().map(|ring| ring.take_traces(failed.is, failed.any_new)).unwrap_or_default();
        self.send_on(state, workload, held, Cause::Neighbour, arena, out)
    }

    fn send_on(
        &self,
        state: &mut LogState,
        workload: &Workload,
        held: Vec<Held>,
        cause: Cause,
        arena: &mut Vec<u8>,
        out: &mut Vec<Record>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        if state.scope.as_ref().is_none_or(|scope| scope.chain != self.id) {
            state.scope = Some(self.scope(workload, state.wish));
        }
        self.send_held(state, held, cause, arena, out, &mut dropped);
        dropped
    }

    /// Gives up all that the flight recorder holds.
    pub fn drop_held(&self, state: &mut LogState) {
        if let Some(mut ring) = state.ring.take() {
            let gone = tally(ring.take_all().iter());
            if !state.warming_up {
                self.give_up(state, gone);
            }
        }
    }

    /// Gives up the oldest of what the flight recorder holds until `bytes` of memory are free.
    pub fn evict_held(&self, state: &mut LogState, bytes: u64) {
        let gone = state.ring.as_mut().map(|ring| ring.evict(bytes)).unwrap_or_default();
        self.give_up(state, gone);
    }

    /// Takes a record that was out before the resume, and whose end is read only now: the flight recorder knew it.
    pub(in crate::logs) fn relearn(
        &self,
        state: &mut LogState,
        workload: &Workload,
        mut record: Record,
        arena: &[u8],
    ) {
        if state.scope.as_ref().is_none_or(|scope| scope.chain != self.id) {
            state.scope = Some(self.scope(workload, state.wish));
        }
        let Some(scope) = state.scope.as_deref().filter(|scope| scope.recorder) else { return };
        let drops = self.drops.iter().zip(&scope.drops);
        let samplers = self.samplers.iter().zip(&scope.samplers);
        let is_out = drops.into_iter().any(|((when, _), about)| *about && when.matches(&record, arena))
            || samplers.into_iter().any(|((rule, _), about)| {
                *about
                    && rule.when.matches(&record, arena)
                    && !rule.keeps(&record, sample::draw(workload, &record, arena))
            });
        if !is_out {
            // What it releases is out already, and counts as sent.
            if let Recording::Releases(held) = self.record(state, &mut record, false, arena) {
                state.recorded.0.released += tally(held.iter());
            }
        }
    }
}
