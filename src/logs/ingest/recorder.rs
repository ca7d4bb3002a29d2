//! The flight recorder of one container log, as those who follow the log see it.
//!
//! In: what the tail knows and the lines do not (the container died, memory is short, a trace failed elsewhere). Out:
//! records, and counts of what became of held ones. Invariant: whatever ends a log's state first settles what is held.

use super::super::inherit;
use super::super::process::Failed;
use super::{LineState, Settings};
use crate::data::batch::Record;
use crate::data::tally::{Recorded, Tally};
use crate::data::workload::Workload;

impl LineState {
    /// As [`Settings::warm_up_start`], for this log: a flight recorder reaches further back.
    pub fn warm_up_start(&self, settings: &Settings, offset: u64) -> u64 {
        let start = settings.chain.warm_up_start_of(&self.process, offset);
        start.saturating_sub(inherit::REACH).min(settings.warm_up_start(offset))
    }

    /// What the flight recorder holds.
    pub fn held(&self) -> Tally {
        self.process.held()
    }

    /// Memory that it takes.
    pub fn held_cost(&self) -> u64 {
        self.process.held_cost()
    }

    /// What the flight recorder did since this was last asked.
    pub fn take_recorded(&mut self) -> Option<Recorded> {
        self.process.take_recorded()
    }

    /// Forgets what the flight recorder holds: it was settled in an earlier life.
    pub fn forget_held(&mut self) {
        self.process.forget_held();
    }

    /// Gives up what the flight recorder holds.
    pub fn drop_held(&mut self, settings: &Settings) {
        settings.chain.drop_held(&mut self.process);
    }

    /// Gives up the oldest of it until `bytes` of memory are free.
    pub fn evict_held(&mut self, settings: &Settings, bytes: u64) {
        settings.chain.evict_held(&mut self.process, bytes);
    }

    /// Gives out what the flight recorder holds: of traces that failed elsewhere, or all, since the container has died.
    pub fn release_held(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        failed: Option<&Failed<'_>>,
        arena: &mut Vec<u8>,
        records: &mut Vec<Record>,
    ) {
        let (chain, state) = (&settings.chain, &mut self.process);
        self.dropped += match failed {
            Some(failed) => chain.release_traces(state, workload, failed, arena, records),
            None => chain.release_held(state, workload, arena, records),
        };
    }
}
