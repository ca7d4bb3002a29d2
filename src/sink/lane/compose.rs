//! What goes into the next request, and with whom.
//!
//! Invariant: a request that several streams share holds only what cannot be refused for its stream's sake, as
//! far as that can be known, and what was sent before goes alone.

use std::time::Duration;

use super::stream::{Item, Stream, take_front};
use super::{AHEAD, KNOWN_FOR, Lane, NEAR, Request, Wire};

impl<W: Wire> Lane<W> {
    /// Makes up a new request of what waits.
    pub(super) fn build(&mut self, now: Duration, wall: u64) -> Option<Request> {
        let linger = self.linger();
        // Streams that may share: index, tenant, whether its first line waited long enough.
        let mut sharers: Vec<(usize, u32, bool)> = Vec::new();
        let mut alone = None;
        for &index in &self.waiting {
            let stream = &self.streams[index];
            if stream.retry_at > now {
                continue;
            }
            let Some(first) = stream.queue.front().filter(|_| stream.redo.is_empty()) else {
                alone = alone.or(Some(index));
                continue;
            };
            let due = first.since + linger <= now;
            if self.may_share(stream, first, 0, now, wall) {
                sharers.push((index, stream.tenant, due));
            } else if alone.is_none() && (due || self.is_full(stream, first)) {
                alone = Some(index);
            }
        }
        // One tenant a request: the one that waited longest, else any that fills a request.
        let due = sharers.iter().find(|(_, _, due)| *due).map(|(_, tenant, _)| *tenant);
        let tenant = due.or_else(|| {
            let mut sums: Vec<u64> = vec![0; self.tenants.len()];
            sharers.iter().find_map(|&(index, tenant, _)| {
                let sum = &mut sums[tenant as usize];
                *sum += self.streams[index].queued_bytes();
                (*sum >= self.max_request).then_some(tenant)
            })
        });
        if let Some(tenant) = tenant {
            sharers.retain(|(_, of, _)| *of == tenant);
            let candidates = sharers.into_iter().map(|(index, ..)| index).collect();
            return Some(self.build_shared(candidates, now, wall));
        }
        alone.map(|index| self.build_alone(index))
    }

    /// A stream that goes alone is worth a request of its own at half of the size: its log's share of the memory
    /// budget may hold no more.
    fn is_full(&self, stream: &Stream, first: &Item) -> bool {
        let enough = self.max_request / 2;
        first.bytes >= enough || stream.queued_bytes() >= enough
    }

    /// True when an item cannot be refused for its stream's sake, so that its stream may share a request.
    /// `taken` bytes of the stream are in the request already.
    fn may_share(&self, stream: &Stream, item: &Item, taken: u64, now: Duration, wall: u64) -> bool {
        if !self.wire.success_can_mask() {
            return item.bytes <= self.max_request;
        }
        let safe = self.stream_rate / 2;
        let known = stream
            .accepted
            .is_some_and(|(at, epoch)| epoch == self.endpoint.epoch && now.saturating_sub(at) < KNOWN_FOR);
        known
            && !item.batch.catching_up
            && item.bytes <= self.max_request
            && item.oldest.saturating_add(NEAR) >= stream.newest.max(item.newest).max(wall)
            && item.newest <= wall.saturating_add(AHEAD)
            && stream.level(now, safe) + (taken + item.rated_bytes) as f64 <= safe as f64
    }

    fn build_shared(&mut self, candidates: Vec<usize>, now: Duration, wall: u64) -> Request {
        let mut parts: Vec<(usize, Vec<Item>)> = Vec::with_capacity(candidates.len());
        let mut levels: Vec<(f64, usize)> = Vec::with_capacity(candidates.len());
        let mut bytes = 0;
        for index in candidates {
            let mut items = Vec::new();
            let mut taken = 0;
            while let Some(first) = self.streams[index].queue.front() {
                let full = bytes > 0 && bytes + first.bytes > self.max_request;
                if full || !self.may_share(&self.streams[index], first, taken, now, wall) {
                    break;
                }
                bytes += first.bytes;
                taken += first.rated_bytes;
                items.extend(self.streams[index].queue.pop_front());
            }
            if !items.is_empty() {
                let level = self.streams[index].level(now, self.stream_rate / 2) + taken as f64;
                levels.push((level, parts.len()));
                parts.push((index, items));
            }
        }
        if self.wire.success_can_mask() {
            // The last stream's result is the answer: the busiest goes last, so that a rate limit lower than
            // the one we know of shows itself at the first stream that runs into it.
            levels.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            parts = levels.iter().map(|(_, at)| std::mem::take(&mut parts[*at])).collect();
        }
        self.request(parts)
    }

    fn build_alone(&mut self, index: usize) -> Request {
        let max_request = self.max_request;
        let stream = &mut self.streams[index];
        let bytes = max_request.min(stream.allow);
        let items = if stream.redo.is_empty() {
            take_front(&mut stream.queue, u64::MAX, bytes)
        } else {
            // Half of what is known to hold a refused record; the last suspect goes by itself.
            let records = if stream.suspect > 0 { stream.suspect.div_ceil(2) } else { u64::MAX };
            take_front(&mut stream.redo, records, bytes)
        };
        self.request(vec![(index, items)])
    }

    /// A request of these parts, whose streams are busy from now on.
    pub(super) fn request(&mut self, parts: Vec<(usize, Vec<Item>)>) -> Request {
        for (index, _) in &parts {
            let stream = &mut self.streams[*index];
            stream.busy = true;
            stream.listed = false;
        }
        let streams = &self.streams;
        self.waiting.retain(|&index| streams[index].listed);
        let items = || parts.iter().flat_map(|(_, items)| items);
        let (records, bytes) = (items().map(Item::records).sum(), items().map(|item| item.bytes).sum());
        let id = self.next_id;
        self.next_id += 1;
        Request { id, parts, records, bytes, sent_at: Duration::ZERO, failures: 0, retry_at: Duration::ZERO }
    }
}
