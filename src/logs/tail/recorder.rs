//! The flight recorders of all logs: what they may hold together, whose trace failed elsewhere, whose container died.
//!
//! In: what each log's lines hold and let go. Out: batches of released records, exact counts in the ledgers, the memory
//! they take out of the budget. Invariant: a held byte is in the ledger once: held, then released into a batch or
//! dropped. What one log releases for itself is decided by its bytes ([`crate::logs::process::recorder`]); what it
//! releases for a neighbour is best effort, and not known any more after a restart.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Tail;
use super::log::Log;
use crate::data::batch::Record;
use crate::data::budget::Permit;
use crate::data::severity::Severity;
use crate::data::trace::TraceId;
use crate::logs::env::Env;
use crate::logs::process::Failed;
use crate::metrics;

/// Traces that failed on the node and are remembered, the newest.
const MAX_FAILED: usize = 1024;

/// What the tail knows of all flight recorders.
#[derive(Default)]
pub(super) struct Recorders {
    /// The memory that rings take out of the budget.
    permit: Option<Permit>,
    /// Traces that failed, the newest last.
    failed: VecDeque<TraceId>,
    /// In which log each failed first.
    known: HashMap<TraceId, Arc<str>>,
    /// Some of them the rings have not been asked about.
    any_new: bool,
    /// Something was held or has failed since the rings were last looked at.
    changed: bool,
    /// Held when the figures were last shown.
    shown: Option<(u64, u64)>,
}

impl<F> Log<F> {
    /// After the resume: what was held before the kill is held again, or was settled by the container's end.
    pub(super) fn adopt_held(&mut self) {
        if self.last_words_told {
            self.lines.forget_held();
        }
        let held = self.lines.held();
        self.written_before += held.bytes as i64;
        self.ledger.adopt_held(held);
    }
}

impl<E: Env> Tail<E> {
    /// Tells the ledger what processing did to a log's records. How many released bytes the next stretch has more.
    pub(super) fn count_processed(&mut self, index: usize) -> u64 {
        let log = &mut self.logs[index];
        if let Some(drops) = log.lines.take_dropped() {
            log.ledger.count_dropped(&drops);
        }
        let Some(recorded) = log.lines.take_recorded() else { return 0 };
        log.ledger.count_recorded(&recorded);
        self.recorders.changed = true;
        recorded.released.bytes
    }

    /// Takes note of traces that fail, for what other containers hold of them.
    pub(super) fn note_failures(&mut self, index: usize, records: &[Record]) {
        if !self.settings.chain.recorder_pool().is_used() {
            return;
        }
        for record in records.iter().filter(|record| record.severity >= Severity::ERROR) {
            let Some(trace) = record.trace_id else { continue };
            let recorders = &mut self.recorders;
            if let Entry::Vacant(vacant) = recorders.known.entry(trace) {
                vacant.insert(Arc::clone(&self.logs[index].key));
                recorders.failed.push_back(trace);
                (recorders.changed, recorders.any_new) = (true, true);
            }
        }
        while self.recorders.failed.len() > MAX_FAILED {
            if let Some(oldest) = self.recorders.failed.pop_front() {
                self.recorders.known.remove(&oldest);
            }
        }
    }

    /// Releases what failed in a neighbour, and keeps all rings within their memory.
    pub(super) fn follow_recorders(&mut self) {
        if std::mem::take(&mut self.recorders.changed) {
            if !self.recorders.known.is_empty() {
                let known = std::mem::take(&mut self.recorders.known);
                let any_new = std::mem::take(&mut self.recorders.any_new);
                for index in 0..self.logs.len() {
                    let own = Arc::clone(&self.logs[index].key);
                    // What a log says itself, its own lines have decided.
                    let is = |trace: &TraceId| known.get(trace).is_some_and(|of| *of != own);
                    self.release(index, Some(&Failed { is: &is, any_new }));
                }
                self.recorders.known = known;
                // What a release counted is no news.
                self.recorders.changed = false;
            }
            self.relieve_recorders();
        }
        let pool = self.settings.chain.recorder_pool();
        let now = (pool.records(), pool.bytes());
        if self.recorders.shown != Some(now) {
            self.recorders.shown = Some(now);
            metrics::RECORDER_HELD_RECORDS.set(now.0 as i64);
            metrics::RECORDER_HELD_BYTES.set(now.1 as i64);
            let budget = &self.budget;
            self.recorders.permit.get_or_insert_with(|| budget.overdraw(0)).resize(now.1);
            if now.1 == 0 {
                self.recorders.permit = None;
            }
        }
    }

    /// The container has ended: what it held goes out when it died, and is given up when it ended well.
    pub(super) fn settle_held(&mut self, index: usize) {
        let log = &mut self.logs[index];
        if log.exit.as_ref().is_some_and(|exit| exit.is_good()) || log.excluded.is_some() {
            log.lines.drop_held(&self.settings);
            // Nothing is told, so nobody need have it first.
            log.told_saved = true;
            self.registry.set_last_words_told(&log.key);
            self.count_processed(index);
        } else {
            self.release(index, None);
        }
    }

    /// Lets the checkpoint know that a container's end was told, once every sink has what was told: else it is told
    /// again.
    pub(super) fn save_told(&mut self, index: usize) {
        let log = &mut self.logs[index];
        if log.last_words_told && !log.told_saved && !log.ledger.has_in_flight() && self.outbox.is_empty() {
            log.told_saved = true;
            self.registry.set_last_words_told(&log.key);
        }
    }

    /// Seals what a ring gives out: of traces that failed elsewhere, or all of it.
    fn release(&mut self, index: usize, failed: Option<&Failed<'_>>) {
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        log.lines.release_held(&self.settings, &log.workload, failed, &mut arena, &mut records);
        if records.is_empty() {
            // Limits may have dropped them all: their bytes still want a stretch.
            let Some(start) = self.logs[index].decided() else { return };
            let released = self.count_processed(index);
            if released > 0 {
                self.seal_from(index, start, arena, records, released);
            }
            return;
        }
        self.seal(index, arena, records, 0);
    }

    /// While all rings together hold too much, the one that holds most gives up its oldest.
    fn relieve_recorders(&mut self) {
        let limit = self.settings.chain.recorder_memory().min(self.budget.limit() / 4);
        // Each round empties a ring or brings all within the limit.
        for _ in 0..self.logs.len() {
            let held = self.settings.chain.recorder_pool().bytes();
            if held <= limit {
                return;
            }
            let largest = (0..self.logs.len()).max_by_key(|index| self.logs[*index].lines.held_cost());
            let Some(index) = largest else { return };
            let log = &mut self.logs[index];
            log.lines.evict_held(&self.settings, held - limit);
            self.count_processed(index);
        }
    }
}
