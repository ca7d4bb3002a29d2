//! One backend stream in a lane: what waits, what must be sent again, and what is known of it.
//!
//! Invariant: `redo` holds records that were sent before and stands before `queue`; together they are in the
//! order of the log. The first `suspect` records of `redo` hold at least one that the backend refuses for good.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::data::batch::Batch;
use crate::sink::{Parcel, StreamKey};

/// What the backend counts for an entry beside its line: a generous guess at structured metadata.
const METADATA_ALLOWANCE: u64 = 200;

/// What a line costs in a request: its length, or half of what it takes with its metadata if that is more, so
/// that a request of tiny lines is bounded too.
fn cost(length: u32) -> u64 {
    let length = u64::from(length);
    length.max((length + METADATA_ALLOWANCE) / 2)
}

/// A run of records of one shipment.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) batch: Arc<Batch>,
    /// Slot of the shipment that is owed.
    pub(super) slot: usize,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Sum of the lines' costs.
    pub(super) bytes: u64,
    /// Line bytes with metadata, as the backend's rate limits count them.
    pub(super) rated_bytes: u64,
    /// Record times, nanoseconds since the epoch.
    pub(super) oldest: u64,
    pub(super) newest: u64,
    /// When it was offered.
    pub(super) since: Duration,
}

impl Item {
    pub(super) fn new(batch: Arc<Batch>, slot: usize, from: u32, to: u32, since: Duration) -> Self {
        let mut item =
            Self { batch, slot, from, to, bytes: 0, rated_bytes: 0, oldest: u64::MAX, newest: 0, since };
        for record in &item.batch.records[from as usize..to as usize] {
            item.bytes += cost(record.body.len);
            item.rated_bytes += u64::from(record.body.len) + METADATA_ALLOWANCE;
            item.oldest = item.oldest.min(record.time_unix_nano);
            item.newest = item.newest.max(record.time_unix_nano);
        }
        item
    }

    pub(super) fn records(&self) -> u64 {
        u64::from(self.to - self.from)
    }

    /// Bytes of its lines.
    pub(super) fn line_bytes(&self) -> u64 {
        self.batch.records[self.from as usize..self.to as usize].iter().map(|r| u64::from(r.body.len)).sum()
    }

    pub(super) fn parcel(&self) -> Parcel {
        Parcel { batch: Arc::clone(&self.batch), from: self.from, to: self.to }
    }

    /// Cuts after `records` records, which must be fewer than there are; returns the first part.
    fn cut(&mut self, records: u32) -> Self {
        let middle = self.from + records;
        let first = Self::new(Arc::clone(&self.batch), self.slot, self.from, middle, self.since);
        *self = Self::new(Arc::clone(&self.batch), self.slot, middle, self.to, self.since);
        first
    }

    /// How many of its first records fit `bytes`; at least one.
    fn fitting(&self, bytes: u64) -> u32 {
        let mut sum = 0;
        let records = &self.batch.records[self.from as usize..self.to as usize];
        let fit = records.iter().take_while(|record| {
            sum += cost(record.body.len);
            sum <= bytes
        });
        (fit.count() as u32).max(1)
    }
}

/// Takes items from the front: at most `records` records and `bytes` bytes, at least one record.
pub(super) fn take_front(queue: &mut VecDeque<Item>, mut records: u64, mut bytes: u64) -> Vec<Item> {
    let mut taken: Vec<Item> = Vec::new();
    while let Some(front) = queue.front_mut() {
        if records == 0 || (!taken.is_empty() && front.bytes > bytes) {
            break;
        }
        let fit = if front.bytes > bytes { u64::from(front.fitting(bytes)) } else { front.records() };
        let fit = fit.min(records);
        let item = if fit < front.records() {
            front.cut(fit as u32)
        } else {
            queue.pop_front().expect("front was there")
        };
        records -= fit;
        bytes = bytes.saturating_sub(item.bytes);
        taken.push(item);
    }
    taken
}

/// Puts items back to the front in their order, joining runs that were cut.
pub(super) fn put_back(queue: &mut VecDeque<Item>, items: Vec<Item>) {
    for mut item in items.into_iter().rev() {
        if let Some(front) = queue.front_mut()
            && front.slot == item.slot
            && Arc::ptr_eq(&front.batch, &item.batch)
            && item.to == front.from
        {
            item.to = front.to;
            item.bytes += front.bytes;
            item.rated_bytes += front.rated_bytes;
            item.oldest = item.oldest.min(front.oldest);
            item.newest = item.newest.max(front.newest);
            *front = item;
        } else {
            queue.push_front(item);
        }
    }
}

/// A backend stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: StreamKey,
    /// Index of its tenant.
    pub(super) tenant: u32,
    pub(super) queue: VecDeque<Item>,
    pub(super) redo: VecDeque<Item>,
    pub(super) suspect: u64,
    /// A request of it is under way or parked.
    pub(super) busy: bool,
    /// It stands in the lane's list of streams with work.
    pub(super) listed: bool,
    /// When a request of it alone or a safe shared one was last accepted, and in which epoch of the endpoint.
    pub(super) accepted: Option<(Duration, u64)>,
    /// Newest record time that the backend took, nanoseconds since the epoch.
    pub(super) newest: u64,
    /// A bucket that drains at the safe share of the stream's rate.
    level: f64,
    level_at: Duration,
    /// Answers in a row that asked this stream for patience.
    pub(super) failures: u32,
    pub(super) retry_at: Duration,
    /// Bytes that its next lone request may have.
    pub(super) allow: u64,
    pub(super) used_at: Duration,
}

impl Stream {
    pub(super) fn new(key: StreamKey, tenant: u32, now: Duration) -> Self {
        Self {
            key,
            tenant,
            queue: VecDeque::new(),
            redo: VecDeque::new(),
            suspect: 0,
            busy: false,
            listed: false,
            accepted: None,
            newest: 0,
            level: 0.0,
            level_at: now,
            failures: 0,
            retry_at: Duration::ZERO,
            allow: u64::MAX,
            used_at: now,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.redo.is_empty() || !self.queue.is_empty()
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.queue.iter().map(|item| item.bytes).sum()
    }

    /// Bytes in the bucket now, when it drains at `rate` bytes per second.
    pub(super) fn level(&self, now: Duration, rate: u64) -> f64 {
        (self.level - now.saturating_sub(self.level_at).as_secs_f64() * rate as f64).max(0.0)
    }

    /// Notes that `bytes` are being sent.
    pub(super) fn fill(&mut self, now: Duration, rate: u64, bytes: u64) {
        self.level = self.level(now, rate) + bytes as f64;
        self.level_at = now;
    }
}
