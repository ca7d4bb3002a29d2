//! Trace ids for lines that log none: the id of an earlier line of the container with the same request id.
//!
//! A replay must give the same records, so what is remembered is a function of a bounded stretch of the log: an
//! id serves for [`REACH`] bytes after the line that carried it, and only lines with an id of their own teach one.
//! Whoever resumes in the middle of a log re-reads that stretch first.

use xxhash_rust::xxh3::xxh3_64;

use crate::data::trace::TraceId;

/// Bytes of log over which a request id is remembered.
pub const REACH: u64 = 64 << 10;

const SLOTS: usize = 512;

#[derive(Clone, Copy)]
struct Slot {
    request: u64,
    trace: TraceId,
    offset: u64,
}

/// What one container log has taught. 20 KiB once its lines carry both ids, nothing before.
#[derive(Default)]
pub struct Inheritance {
    slots: Vec<Option<Slot>>,
}

impl Inheritance {
    /// Learns from a line at `offset` that carries both ids.
    #[inline]
    pub fn learn(&mut self, request_id: &[u8], trace: TraceId, offset: u64) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let request = xxh3_64(request_id);
        self.slots[request as usize % SLOTS] = Some(Slot { request, trace, offset });
    }

    /// The trace that a line at `offset` with this request id belongs to.
    #[inline]
    pub fn recall(&self, request_id: &[u8], offset: u64) -> Option<TraceId> {
        if self.slots.is_empty() {
            return None;
        }
        let request = xxh3_64(request_id);
        let slot = self.slots[request as usize % SLOTS]?;
        (slot.request == request && offset.checked_sub(slot.offset)? <= REACH).then_some(slot.trace)
    }

    /// Forgets all: a new generation begins.
    pub fn clear(&mut self) {
        self.slots = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_inherited_within_reach_and_no_further() {
        let trace = TraceId::new(7).expect("not zero");
        let mut memory = Inheritance::default();
        assert_eq!(memory.recall(b"req-1", 10), None);
        memory.learn(b"req-1", trace, 100);
        assert_eq!(memory.recall(b"req-1", 100 + REACH), Some(trace));
        assert_eq!(memory.recall(b"req-1", 101 + REACH), None);
        assert_eq!(memory.recall(b"req-2", 200), None);
    }
}
