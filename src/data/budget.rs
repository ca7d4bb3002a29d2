//! The memory budget: bytes of log data that may be held between reading and acknowledgement.
//!
//! Nothing is read without a [`Permit`], and a permit's bytes return when it drops. The reader sleeps on
//! [`Signal`] while the budget is spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::batch::Record;

/// Large arenas kept for reuse. Fresh ones would cost a page fault for every 4 KiB read.
const POOLED: usize = 8;
/// Arenas of at least this capacity are pooled; smaller ones are cheap to allocate.
pub const POOLED_CAPACITY: usize = 128 << 10;

/// Wakes the one thread that reads logs: credit came back, a directory changed, or it is time to stop.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Mutex<bool>,
    condvar: Condvar,
}

impl Signal {
    /// Wakes the waiter now or at its next [`wait`](Self::wait).
    pub fn raise(&self) {
        let mut raised = self.raised.lock();
        if !*raised {
            *raised = true;
            self.condvar.notify_one();
        }
    }

    /// Sleeps until raised or until `timeout` passed; true when it was raised.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut raised = self.raised.lock();
        if !*raised {
            self.condvar.wait_for(&mut raised, timeout);
        }
        std::mem::take(&mut *raised)
    }
}

/// A bounded number of bytes, shared by all container logs.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
    starved: std::sync::atomic::AtomicBool,
    signal: Arc<Signal>,
    pool: Mutex<Vec<(Vec<u8>, Vec<Record>)>>,
}

impl Budget {
    /// A budget of `limit` bytes that raises `signal` when bytes return to a starved reader.
    pub fn new(limit: u64, signal: Arc<Signal>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicU64::new(0),
            starved: false.into(),
            signal,
            pool: Mutex::default(),
        })
    }

    /// Takes `bytes`, or nothing when they do not fit. A request above the whole limit fits an empty budget.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let before = self.held.fetch_add(bytes, Ordering::AcqRel);
        if before != 0 && before + bytes > self.limit {
            self.held.fetch_sub(bytes, Ordering::AcqRel);
            self.starved.store(true, Ordering::Release);
            // Bytes that came back before the flag was up raised no signal: look once more.
            let held = self.held.load(Ordering::Acquire);
            if held != 0 && held + bytes > self.limit {
                return None;
            }
            self.held.fetch_add(bytes, Ordering::AcqRel);
        }
        Some(Permit { budget: Arc::clone(self), bytes })
    }

    /// Takes `bytes` whether they fit or not, for the little that must not wait.
    pub fn overdraw(self: &Arc<Self>, bytes: u64) -> Permit {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Permit { budget: Arc::clone(self), bytes }
    }

    /// An empty arena and record list for a batch of about `bytes`, reused when large.
    pub fn buffers(&self, bytes: usize) -> (Vec<u8>, Vec<Record>) {
        if bytes >= POOLED_CAPACITY
            && let Some(buffers) = self.pool.lock().pop()
        {
            return buffers;
        }
        (Vec::with_capacity(bytes + bytes / 16 + 64), Vec::with_capacity(bytes / 256 + 1))
    }

    /// Lets go of pooled buffers: nothing large has been read for a while.
    pub fn trim(&self) {
        *self.pool.lock() = Vec::new();
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

/// Bytes taken from a [`Budget`]; they return when it drops.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Permit {
    /// Bytes held by this permit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Corrects the permit to what is really held, once that is known.
    pub fn resize(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.held.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            self.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Takes a finished batch's buffers back for reuse.
    pub(super) fn recycle(&self, mut arena: Vec<u8>, mut records: Vec<Record>) {
        if arena.capacity() < POOLED_CAPACITY || arena.capacity() > 1 << 20 {
            return;
        }
        arena.clear();
        records.clear();
        let mut pool = self.budget.pool.lock();
        if pool.len() < POOLED {
            pool.push((arena, records));
        }
    }

    fn give_back(&self, bytes: u64) {
        self.budget.held.fetch_sub(bytes, Ordering::AcqRel);
        if bytes > 0 && self.budget.starved.swap(false, Ordering::AcqRel) {
            self.budget.signal.raise();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_return_when_the_permit_drops() {
        let budget = Budget::new(100, Arc::default());
        let first = budget.reserve(80).expect("fits");
        assert!(budget.reserve(30).is_none());
        drop(first);
        assert!(budget.reserve(30).is_some());
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_starved_reader_is_woken() {
        let signal = Arc::<Signal>::default();
        let budget = Budget::new(10, Arc::clone(&signal));
        let permit = budget.reserve(10).expect("fits");
        assert!(budget.reserve(1).is_none());
        drop(permit);
        assert!(signal.wait(Duration::ZERO));
    }
}
