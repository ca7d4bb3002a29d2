//! Sampling: which records of a share are kept.
//!
//! In: a record. Out: kept or not. Invariant: the draw is a hash of the trace id, or without one of the line
//! and its time, never a random number: a replay draws alike, and so does every other node for the same trace.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::config::Sample;
use super::rules::{Error, When};
use crate::data::batch::Record;
use crate::data::severity::Severity;
use crate::data::workload::Workload;

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Sampler {
    pub(super) when: When,
    /// Draws at or below it are kept; `None` keeps nothing.
    threshold: Option<u64>,
    keep_errors: bool,
}

impl Sampler {
    pub(super) fn compile(at: &str, config: &Sample) -> Result<Self, Error> {
        Ok(Self {
            when: When::compile(at, config.conditions())?,
            threshold: config.keep.threshold(),
            keep_errors: config.keep_errors,
        })
    }

    /// True when a record that meets the conditions and drew `draw` is kept.
    pub(super) fn keeps(&self, record: &Record, draw: u64) -> bool {
        self.keep_errors && record.severity >= Severity::ERROR
            || self.threshold.is_some_and(|threshold| draw <= threshold)
    }
}

/// The draw of a record, uniform over 64 bits. All rules share it, so where several match the smallest share
/// holds, and a record kept at 1 % is also kept at 10 %.
pub(in crate::logs) fn draw(workload: &Workload, record: &Record, arena: &[u8]) -> u64 {
    if let Some(trace) = record.trace_id {
        return xxh3_64(&trace.to_bytes());
    }
    let mut hash = Xxh3::new();
    hash.update(workload.container.uid.as_bytes());
    hash.update(b"/");
    hash.update(workload.container.container.as_bytes());
    hash.update(&record.time_unix_nano.to_le_bytes());
    hash.update(record.body.of(arena));
    hash.digest()
}
