//! Configured processing of records: drop, redact, sample, rate limit, deduplicate.

use crate::data::batch::Record;
use crate::data::workload::Workload;

/// Compiled rules.
#[derive(Debug, Default)]
pub struct Chain;

/// State per log.
#[derive(Debug, Default)]
pub struct LogState;

impl Chain {
    /// Nothing configured.
    pub fn is_noop(&self) -> bool {
        true
    }
    /// Applies.
    pub fn apply(
        &self,
        _: &mut LogState,
        _: &Workload,
        _: &mut Vec<u8>,
        record: Record,
        out: &mut Vec<Record>,
    ) -> u64 {
        out.push(record);
        0
    }
    /// Closes.
    pub fn close_idle(&self, _: &mut LogState, _: u64, _: &mut Vec<u8>, _: &mut Vec<Record>) {}
}

impl LogState {
    /// Pinned.
    pub fn pinned(&self) -> Option<u64> {
        None
    }
    /// Reset.
    pub fn reset(&mut self) {}
}
