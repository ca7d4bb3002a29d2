//! What bodies hold in memory, and buffers that are used again.
//!
//! In: the length of every body that is being read, and of those that wait to be read as metrics. Out: whether one may
//! still grow. Invariants: all bodies together stay near `[scrape] memory`, because above it those beyond [`SMALL`] are
//! given up; buffers that nobody uses hold at most [`KEPT_BYTES`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// A body up to this size is given up for others' sake only when all hold twice the limit.
pub const SMALL: usize = 1 << 20;
/// A body up to this size never is: a small target goes on whatever others do.
const LEAST: usize = 64 << 10;

/// What unused buffers may hold together.
const KEPT_BYTES: usize = 2 << 20;
/// Unused buffers that are kept.
const KEPT: usize = 8;

/// Buffers of bodies, used again from scrape to scrape. A clone is the same pool.
#[derive(Debug, Clone, Default)]
pub struct Buffers {
    unused: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// An empty buffer, with room for about `expected` bytes.
    pub fn take(&self, expected: usize) -> Vec<u8> {
        let mut unused = self.unused.lock();
        // The smallest that is large enough, or else the largest.
        let fits = |buffer: &Vec<u8>| (buffer.capacity() < expected, buffer.capacity().abs_diff(expected));
        let best = (0..unused.len()).min_by_key(|at| fits(&unused[*at]));
        let mut buffer = best.map(|at| unused.swap_remove(at)).unwrap_or_default();
        drop(unused);
        buffer.reserve_exact(expected);
        buffer
    }

    /// Gives a buffer back, once its body has been read as metrics; any buffer will do.
    pub fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut unused = self.unused.lock();
        let held: usize = unused.iter().map(Vec::capacity).sum();
        if buffer.capacity() > 0 && unused.len() < KEPT && held + buffer.capacity() <= KEPT_BYTES {
            unused.push(buffer);
        }
    }
}

/// How many of the bodies that were handed over still wait.
type Waiting = Box<dyn Fn() -> usize + Send + Sync>;

/// What all bodies hold.
pub(in crate::scrape) struct Memory {
    limit: usize,
    reading: AtomicUsize,
    /// Bodies that were handed over, in their order; those that are still waiting are the last ones.
    handed: Mutex<VecDeque<usize>>,
    waiting: OnceLock<Waiting>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("limit", &self.limit)
            .field("reading", &self.reading)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Nothing is held.
    pub(in crate::scrape) fn new(limit: usize) -> Self {
        Self { limit, reading: AtomicUsize::new(0), handed: Mutex::default(), waiting: OnceLock::new() }
    }

    /// Who knows how many events wait. Until it is told none does.
    pub(in crate::scrape) fn watch(&self, waiting: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.waiting.set(Box::new(waiting));
    }

    /// A body of this length, or an event without one, was handed over.
    pub(in crate::scrape) fn hand_over(&self, length: usize) {
        let mut handed = self.handed.lock();
        handed.push_back(length);
        self.settle(&mut handed);
    }

    /// What bodies hold that are being read or wait, in bytes.
    pub(in crate::scrape) fn held(&self) -> usize {
        let mut handed = self.handed.lock();
        self.settle(&mut handed);
        self.reading.load(Ordering::Relaxed) + handed.iter().sum::<usize>()
    }

    fn settle(&self, handed: &mut VecDeque<usize>) {
        let done = handed.len().saturating_sub(self.waiting.get().map_or(0, |waiting| waiting()));
        handed.drain(..done);
    }

    /// True when a body of this length has to be given up.
    fn is_over(&self, length: usize) -> bool {
        if length <= LEAST {
            return false;
        }
        let held = self.held();
        held > self.limit && (length > SMALL || held > 2 * self.limit)
    }
}

/// Why a body grows no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// It is larger than allowed.
    TooLarge,
    /// All bodies together are, and it is a large one.
    Memory,
}

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Growing<'a> {
    bytes: Vec<u8>,
    limit: usize,
    memory: &'a Memory,
    buffers: &'a Buffers,
}

impl<'a> Growing<'a> {
    pub(super) fn new(expected: usize, limit: usize, memory: &'a Memory, buffers: &'a Buffers) -> Self {
        Self { bytes: buffers.take(expected.min(limit)), limit, memory, buffers }
    }

    /// Appends, or says why not. Nothing beyond the limit is ever held.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), Full> {
        let length = self.bytes.len() + chunk.len();
        if length > self.limit {
            return Err(Full::TooLarge);
        }
        if self.memory.is_over(length) {
            return Err(Full::Memory);
        }
        if length > self.bytes.capacity() {
            // Doubling a large buffer holds the old one and the new one; pages that are not written cost nothing, so a
            // large body gets all it can ever need at once.
            let room = if length > SMALL { self.limit } else { (2 * length).clamp(16 << 10, SMALL) };
            self.bytes.reserve_exact(room.min(self.limit) - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        self.memory.reading.fetch_add(chunk.len(), Ordering::Relaxed);
        Ok(())
    }

    /// The whole body.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.memory.reading.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        self.memory.reading.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.buffers.put(std::mem::take(&mut self.bytes));
    }
}
