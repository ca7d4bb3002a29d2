//! Encoded requests that wait for the receiver, bounded in bytes and age.
//!
//! In: sealed requests, from the thread that owns all series, without blocking. Out: the same in order, one queue a shard.
//! Invariants: what is held never exceeds the bound; when it is full the oldest goes first; every sample that goes
//! unsent is counted with its reason.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::meter::{Meter, Reason};
use super::{Counts, Version};

/// A request as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    /// Its body.
    pub(super) body: Bytes,
    /// Its version.
    pub(super) version: Version,
    /// What is in it. A request without any is metadata alone.
    pub(super) counts: Counts,
    /// When its first sample was taken.
    pub(super) born: Instant,
}

#[derive(Debug, Default)]
struct Queues {
    waiting: Vec<VecDeque<Sealed>>,
    /// Bytes waiting and in flight.
    bytes: u64,
    /// When the first sample of each shard's request in flight was taken, and what of it is not settled.
    in_flight: Vec<Option<(Instant, Counts)>>,
    closed: bool,
}

/// The buffer between the thread that takes samples and the task that sends them.
#[derive(Debug)]
pub(super) struct Buffer {
    queues: Mutex<Queues>,
    wake: Vec<Notify>,
    limit: u64,
    age: Duration,
    /// The version that is written now.
    version: AtomicU8,
    /// Nobody sends any more.
    ended: AtomicBool,
    /// Time of the newest sample taken.
    newest: AtomicI64,
    pub(super) meter: Meter,
}

impl Buffer {
    /// An empty buffer of `limit` bytes and `age`.
    pub(super) fn new(shards: usize, limit: u64, age: Duration, version: Version, meter: Meter) -> Self {
        let queues = Queues {
            waiting: vec![VecDeque::new(); shards],
            in_flight: vec![None; shards],
            ..Queues::default()
        };
        Self {
            queues: Mutex::new(queues),
            wake: (0..shards).map(|_| Notify::new()).collect(),
            limit,
            age,
            version: AtomicU8::new(version as u8),
            ended: AtomicBool::new(false),
            newest: AtomicI64::new(0),
            meter,
        }
    }

    /// The version that is written now.
    pub(super) fn version(&self) -> Version {
        if self.version.load(Ordering::Relaxed) == Version::V2 as u8 { Version::V2 } else { Version::V1 }
    }

    /// Writes this version from now on.
    pub(super) fn set_version(&self, version: Version) {
        self.version.store(version as u8, Ordering::Relaxed);
    }

    /// Appends a request; what no longer fits is dropped, the oldest first.
    pub(super) fn push(&self, shard: usize, sealed: Sealed) {
        if self.ended.load(Ordering::Acquire) {
            self.meter.lost(Reason::Shutdown, &sealed.counts);
            return;
        }
        let newest = self.newest.fetch_max(sealed.counts.newest_unix_ms, Ordering::Relaxed);
        self.meter.taken(newest.max(sealed.counts.newest_unix_ms));
        let mut queues = self.queues.lock();
        let len = sealed.body.len() as u64;
        while queues.bytes + len > self.limit {
            let oldest =
                queues.waiting.iter().enumerate().filter_map(|(at, q)| Some((q.front()?.born, at))).min();
            let Some((_, oldest)) = oldest else {
                // What is in flight fills it alone.
                self.meter.lost(Reason::BufferFull, &sealed.counts);
                return;
            };
            let dropped = queues.waiting[oldest].pop_front().expect("it has a front");
            queues.bytes -= dropped.body.len() as u64;
            self.meter.lost(Reason::BufferFull, &dropped.counts);
        }
        queues.bytes += len;
        queues.waiting[shard].push_back(sealed);
        self.meter.pending(queues.bytes);
        drop(queues);
        self.wake[shard].notify_one();
    }

    /// The next request of a shard; `None` when there is none and never will be. What was handed out before is done with
    /// once [`done`](Self::done) says so.
    pub(super) async fn next(&self, shard: usize) -> Option<Sealed> {
        loop {
            {
                let mut queues = self.queues.lock();
                if let Some(sealed) = queues.waiting[shard].pop_front() {
                    queues.in_flight[shard] = Some((sealed.born, sealed.counts));
                    return Some(sealed);
                }
                if queues.closed {
                    return None;
                }
            }
            self.wake[shard].notified().await;
        }
    }

    /// The receiver has these of what was handed out.
    pub(super) fn delivered(&self, shard: usize, counts: &Counts) {
        self.settle(shard, counts);
        self.meter.delivered(counts);
    }

    /// These of what was handed out will never arrive.
    pub(super) fn lost(&self, shard: usize, reason: Reason, counts: &Counts) {
        self.settle(shard, counts);
        self.meter.lost(reason, counts);
    }

    fn settle(&self, shard: usize, counts: &Counts) {
        if let Some((_, left)) = &mut self.queues.lock().in_flight[shard] {
            *left = left.minus(counts);
        }
    }

    /// A request of `bytes` that was handed out is done with.
    pub(super) fn done(&self, shard: usize, bytes: u64) {
        let mut queues = self.queues.lock();
        queues.bytes = queues.bytes.saturating_sub(bytes);
        queues.in_flight[shard] = None;
        self.meter.pending(queues.bytes);
    }

    /// True for a request that has waited too long.
    pub(super) fn is_too_old(&self, born: Instant) -> bool {
        born.elapsed() > self.age
    }

    /// Drops what has waited too long, and tells the meter how long the oldest has waited.
    pub(super) fn expire(&self) {
        let mut queues = self.queues.lock();
        let mut freed = 0;
        for queue in &mut queues.waiting {
            while queue.front().is_some_and(|front| self.is_too_old(front.born)) {
                let dropped = queue.pop_front().expect("it has a front");
                freed += dropped.body.len() as u64;
                self.meter.lost(Reason::TooOld, &dropped.counts);
            }
        }
        queues.bytes = queues.bytes.saturating_sub(freed);
        let waiting = queues.waiting.iter().filter_map(|queue| Some(queue.front()?.born));
        let oldest = waiting.chain(queues.in_flight.iter().flatten().map(|(born, _)| *born)).min();
        self.meter.pending(queues.bytes);
        self.meter.waited(oldest.map(|born| born.elapsed()).unwrap_or_default());
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.queues.lock().closed = true;
        for wake in &self.wake {
            wake.notify_one();
        }
    }

    /// Nobody sends any more: what waits is lost.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let mut queues = self.queues.lock();
        for queue in &mut queues.waiting {
            for dropped in queue.drain(..) {
                self.meter.lost(Reason::Shutdown, &dropped.counts);
            }
        }
        for (_, left) in queues.in_flight.iter_mut().filter_map(Option::take) {
            self.meter.lost(Reason::Shutdown, &left);
        }
        queues.bytes = 0;
        self.meter.pending(0);
        self.meter.waited(Duration::ZERO);
    }
}
