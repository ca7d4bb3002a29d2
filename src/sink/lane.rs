//! The decisions of one sink: what to send next, with what, when, and what an answer means for each record.
//!
//! In: shipments, answers, the time and a random number. Out: requests to send, refused records, and settled
//! tickets. Pure: no clock, no I/O, no async runtime, so that a simulator drives the same code as production.
//!
//! Invariants. A record is settled exactly once: taken by the backend, or refused for good in a request that
//! left no doubt. Records of a stream are sent in order, one request at a time. Records of two tenants never
//! share a request. Nothing is given up because of an answer that asks for patience, however often it comes.
//!
//! Where a success can hide refusals (Loki: the last stream's result overwrites the others'), a request is shared
//! only by streams that cannot be refused: accepted a short while ago, well below the rate of one stream, none of
//! their records far behind the newest. Every other stream goes alone, where the answer is the truth.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Parcel, Scope, StreamKey, Verdict, Wire};
use crate::data::delivery::{Reason, Shipment, Ticket};
use crate::data::units::{ByteSize, Span};

mod compose;
mod stream;
#[cfg(test)]
mod tests;

use stream::{Item, Stream, put_back};

/// First and longest wait of the exponential backoff, before jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest `Retry-After` that is honoured.
const MAX_AFTER: Duration = Duration::from_secs(300);
/// Between two requests to an endpoint that fails.
const FAULT_GAP: Duration = Duration::from_secs(1);
/// Failures in a row after which the endpoint counts as down.
const OPEN_AFTER: u32 = 3;
/// A stream that was not accepted for this long may be new to the backend again.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// A shared request holds nothing further behind its stream's newest record, or behind the wall clock. Loki
/// refuses at 60 minutes; the rest is for clocks that differ.
const NEAR: u64 = 30 * 60 * 1_000_000_000;
/// Nor anything further in the future. Loki refuses at 10 minutes.
const AHEAD: u64 = 5 * 60 * 1_000_000_000;
/// Requests are never cut below this for a 413.
const SMALLEST_REQUEST: u64 = 1 << 10;
/// Streams that are remembered before those without work are forgotten.
const REMEMBERED: usize = 4096;

/// How requests are made up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Line bytes in one request, before compression; lines below 200 bytes count as about 100 for their
    /// metadata. A full request goes at once.
    pub max_request: ByteSize, // 1MiB
    /// How long the first line of a request waits for company. Raise it for fewer requests, at the cost of delay.
    pub linger: Span, // 50ms
    /// Requests under way at once. Never more than one of the same stream.
    pub in_flight: usize, // 4
    /// The backend's limit for one stream, bytes per second; learned from its answers when lower. Streams above
    /// half of it do not share requests.
    pub stream_rate: ByteSize, // 3MB
    /// Bytes that may wait in an optional sink. Beyond it, new batches are dropped and counted.
    pub queue: ByteSize, // 8MiB
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_request: ByteSize::mib(1),
            linger: Span::millis(50),
            in_flight: 4,
            stream_rate: ByteSize(3_000_000),
            queue: ByteSize::mib(8),
        }
    }
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Names the request in [`Lane::answer`].
    pub id: u64,
    /// What it is made of; parcels of one stream stand together.
    pub parcels: Vec<Parcel>,
    /// The tenant that it goes to.
    pub tenant: Option<Arc<str>>,
    /// Records in it.
    pub records: u64,
}

/// Records that the backend refused for good.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The records.
    pub parcel: Parcel,
    /// Why.
    pub reason: Reason,
    /// What the backend said.
    pub message: Arc<str>,
}

/// What an answer came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// `delivered`, `retry`, `split` or `refused`; empty for an answer to no known request.
    pub kind: &'static str,
    /// Records that the backend has now.
    pub delivered: u64,
    /// Records that it will never have.
    pub refused: Vec<Refusal>,
    /// Records that the backend took and refused without saying which (OTLP partial success), and its message.
    pub partial: Option<(u64, String)>,
}

/// What became of an offered shipment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It waits for its turn, or held no record and is settled.
    Queued,
    /// The queue of an optional sink was full.
    Dropped {
        /// Records in it.
        records: u64,
    },
}

#[derive(Debug)]
struct Owed {
    ticket: Option<Ticket>,
    open: u64,
    held_bytes: u64,
}

#[derive(Debug)]
struct Request {
    id: u64,
    parts: Vec<(usize, Vec<Item>)>,
    records: u64,
    bytes: u64,
    sent_at: Duration,
    failures: u32,
    retry_at: Duration,
}

/// How the endpoint fares.
#[derive(Debug, Default)]
struct Endpoint {
    /// Failures in a row, concurrent ones counted once.
    failures: u32,
    failed_at: Duration,
    retry_at: Duration,
    sent_at: Option<Duration>,
    /// The one request that tries whether a failing endpoint is back.
    probe: Option<u64>,
    /// Grows with each outage: what was known of streams before it is void.
    epoch: u64,
}

/// A random number, uniform over `u64`.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// The state of one sink.
pub struct Lane<W> {
    wire: W,
    config: Config,
    random: Random,
    owed: Vec<Option<Owed>>,
    free_owed: Vec<usize>,
    streams: Vec<Stream>,
    by_key: HashMap<(StreamKey, u32), usize, foldhash::fast::RandomState>,
    tenants: Vec<Option<Arc<str>>>,
    /// Streams with work that are not busy, in the order in which their turn came.
    waiting: VecDeque<usize>,
    in_flight: Vec<Request>,
    parked: VecDeque<Request>,
    endpoint: Endpoint,
    next_id: u64,
    max_request: u64,
    stream_rate: u64,
    held_bytes: u64,
    draining: bool,
}

impl<W: Wire> Lane<W> {
    /// An empty lane.
    pub fn new(wire: W, config: Config, random: Random) -> Self {
        Self {
            max_request: config.max_request.0.max(SMALLEST_REQUEST),
            stream_rate: config.stream_rate.0.max(1),
            wire,
            config,
            random,
            owed: Vec::new(),
            free_owed: Vec::new(),
            streams: Vec::new(),
            by_key: HashMap::default(),
            tenants: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            parked: VecDeque::new(),
            endpoint: Endpoint::default(),
            next_id: 0,
            held_bytes: 0,
            draining: false,
        }
    }

    /// The protocol, to encode what [`next`](Self::next) returns.
    pub fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Takes a shipment into the queue of its stream. `now` is monotonic time since any fixed moment.
    pub fn offer(&mut self, shipment: Shipment, now: Duration) -> Offered {
        let Shipment { batch, ticket } = shipment;
        let records = batch.records.len() as u64;
        if records == 0 {
            if let Some(ticket) = ticket {
                ticket.delivered();
            }
            return Offered::Queued;
        }
        let held_bytes = batch.arena.len() as u64;
        if ticket.is_none() && self.held_bytes > 0 && self.held_bytes + held_bytes > self.config.queue.0 {
            return Offered::Dropped { records };
        }
        self.held_bytes += held_bytes;
        let index = self.stream_of(&batch, now);
        let owed = Owed { ticket, open: records, held_bytes };
        let slot = match self.free_owed.pop() {
            Some(slot) => {
                self.owed[slot] = Some(owed);
                slot
            }
            None => {
                self.owed.push(Some(owed));
                self.owed.len() - 1
            }
        };
        self.streams[index].queue.push_back(Item::new(batch, slot, 0, records as u32, now));
        self.list(index);
        Offered::Queued
    }

    /// The next request to send now, if any. `wall_unix_nano` is the wall clock, which only decides whether
    /// records are recent enough to share a request.
    pub fn next(&mut self, now: Duration, wall_unix_nano: u64) -> Option<Dispatch> {
        if self.in_flight.len() >= self.config.in_flight.max(1) && self.endpoint.failures == 0 {
            return None;
        }
        if self.endpoint.failures > 0 && (self.endpoint.probe.is_some() || now < self.endpoint.retry_at) {
            return None;
        }
        let mut request = match self.parked.iter().position(|request| request.retry_at <= now) {
            Some(index) => self.parked.remove(index)?,
            None => self.build(now, wall_unix_nano)?,
        };
        request.sent_at = now;
        if self.endpoint.failures > 0 {
            self.endpoint.probe = Some(request.id);
        }
        self.endpoint.sent_at = Some(now);
        for (index, items) in &request.parts {
            let bytes = items.iter().map(|item| item.rated_bytes).sum();
            self.streams[*index].fill(now, self.stream_rate / 2, bytes);
        }
        let dispatch = Dispatch {
            id: request.id,
            parcels: request.parts.iter().flat_map(|(_, items)| items.iter().map(Item::parcel)).collect(),
            tenant: self.tenants[self.streams[request.parts[0].0].tenant as usize].clone(),
            records: request.records,
        };
        self.in_flight.push(request);
        Some(dispatch)
    }

    /// Takes in what the backend answered to request `id`.
    pub fn answer(&mut self, id: u64, answer: &Answer, now: Duration) -> Outcome {
        let Some(index) = self.in_flight.iter().position(|request| request.id == id) else {
            return Outcome::default();
        };
        let request = self.in_flight.swap_remove(index);
        if self.endpoint.probe == Some(id) {
            self.endpoint.probe = None;
        }
        let lesson = self.wire.lesson(answer);
        if let Some(rate) = lesson.stream_rate {
            self.stream_rate = self.stream_rate.min(rate.max(1));
        }
        let mut outcome = Outcome::default();
        match self.wire.judge(answer, request.records) {
            Verdict::Delivered => {
                self.endpoint_answered(now);
                outcome.kind = "delivered";
                self.delivered(request, now, &mut outcome);
            }
            Verdict::Partial { refused, message } => {
                self.endpoint_answered(now);
                outcome.kind = "delivered";
                self.partly_delivered(request, refused, message, now, &mut outcome);
            }
            Verdict::Retry { after } => {
                outcome.kind = "retry";
                match lesson.scope {
                    Scope::Endpoint => {
                        self.endpoint_failed(&request, after, now);
                        self.park(request, after, now);
                    }
                    Scope::Tenant => {
                        self.endpoint_failed(&request, after, now);
                        self.slow_down(request, None, now);
                    }
                    Scope::Stream => {
                        self.endpoint_answered(now);
                        self.slow_down(request, Some(after), now);
                    }
                }
            }
            Verdict::Unauthorized => {
                outcome.kind = "retry";
                self.endpoint_failed(&request, None, now);
                self.park(request, None, now);
            }
            Verdict::Split => {
                self.endpoint_answered(now);
                outcome.kind = "split";
                if request.records == 1 {
                    let message: Arc<str> = "the backend says that this record alone is too large".into();
                    self.refuse_all(request, Reason::TooLarge, &message, &mut outcome);
                } else {
                    self.max_request = (request.bytes / 2).clamp(SMALLEST_REQUEST, self.max_request);
                    for (index, items) in request.parts {
                        let bytes: u64 = items.iter().map(|item| item.bytes).sum();
                        self.streams[index].allow = (bytes / 2).max(1);
                        self.send_again(index, items);
                    }
                }
            }
            Verdict::Refused { reason, all, message } => {
                self.endpoint_answered(now);
                outcome.kind = "refused";
                let message: Arc<str> = message.into();
                if request.parts.len() > 1 {
                    // A stream that should not have been in a shared request casts doubt on all of them.
                    let doubt = reason == Reason::TooFarBehind || lesson.stream_rate.is_some();
                    if doubt && self.wire.success_can_mask() {
                        for (index, items) in request.parts {
                            self.send_again(index, items);
                        }
                    } else {
                        self.divide(request, lesson.stream, now);
                    }
                } else if all || request.records == 1 {
                    let index = request.parts[0].0;
                    self.refuse_all(request, reason, &message, &mut outcome);
                    self.streams[index].suspect = 0;
                } else {
                    self.narrow(request, reason, &message, lesson.oldest_unix_nano, &mut outcome);
                }
            }
        }
        outcome
    }

    /// When [`next`](Self::next) should be asked again, if nothing else happens before. `None` while only an
    /// answer or a shipment can change anything.
    pub fn wake_at(&self) -> Option<Duration> {
        let failing = self.endpoint.failures > 0;
        if failing && self.endpoint.probe.is_some()
            || !failing && self.in_flight.len() >= self.config.in_flight.max(1)
        {
            return None;
        }
        let parked = self.parked.iter().map(|request| request.retry_at);
        let linger = self.linger();
        let waiting = self.waiting.iter().map(|&index| {
            let stream = &self.streams[index];
            let due = match (stream.redo.front(), stream.queue.front()) {
                (None, Some(first)) => first.since + linger,
                _ => Duration::ZERO,
            };
            due.max(stream.retry_at)
        });
        let earliest = parked.chain(waiting).min()?;
        Some(if failing { earliest.max(self.endpoint.retry_at) } else { earliest })
    }

    /// True when every shipment is settled.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.parked.is_empty() && self.waiting.is_empty()
    }

    /// Bytes of batches that are not settled.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// False after several failures in a row, until the endpoint answers again.
    pub fn is_up(&self) -> bool {
        self.endpoint.failures < OPEN_AFTER
    }

    /// Sends what waits without lingering from now on: nothing more will come.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    fn linger(&self) -> Duration {
        if self.draining { Duration::ZERO } else { self.config.linger.0 }
    }

    fn stream_of(&mut self, batch: &crate::data::batch::Batch, now: Duration) -> usize {
        let key = self.wire.stream(batch);
        let name = self.wire.tenant(batch);
        let tenant = match self.tenants.iter().position(|known| known.as_deref() == name) {
            Some(index) => index as u32,
            None => {
                self.tenants.push(name.map(Arc::from));
                self.tenants.len() as u32 - 1
            }
        };
        if let Some(&index) = self.by_key.get(&(key, tenant)) {
            self.streams[index].used_at = now;
            return index;
        }
        let stream = Stream::new(key, tenant, now);
        // Only streams that are at rest may be forgotten; what is known of them has expired anyway.
        let forgotten = (self.streams.len() >= REMEMBERED).then(|| {
            self.streams.iter().position(|old| {
                !old.busy
                    && !old.has_work()
                    && now.saturating_sub(old.used_at) > KNOWN_FOR
                    && old.retry_at <= now
            })
        });
        let index = match forgotten.flatten() {
            Some(index) => {
                let old = &self.streams[index];
                self.by_key.remove(&(old.key, old.tenant));
                self.streams[index] = stream;
                index
            }
            None => {
                self.streams.push(stream);
                self.streams.len() - 1
            }
        };
        self.by_key.insert((key, tenant), index);
        index
    }

    /// Enters a stream in the list of those with work.
    fn list(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if !stream.busy && !stream.listed && stream.has_work() {
            stream.listed = true;
            self.waiting.push_back(index);
        }
    }

    /// Puts records back to be sent again alone.
    fn send_again(&mut self, index: usize, items: Vec<Item>) {
        let stream = &mut self.streams[index];
        put_back(&mut stream.redo, items);
        stream.busy = false;
        self.list(index);
    }

    fn delivered(&mut self, request: Request, now: Duration, outcome: &mut Outcome) {
        let full = request.bytes >= self.max_request / 2;
        if full && self.max_request < self.config.max_request.0 {
            self.max_request = (self.max_request + self.max_request / 16).min(self.config.max_request.0);
        }
        for (index, items) in request.parts {
            let epoch = self.endpoint.epoch;
            let stream = &mut self.streams[index];
            stream.accepted = Some((now, epoch));
            stream.failures = 0;
            stream.retry_at = Duration::ZERO;
            stream.allow = stream.allow.saturating_mul(2);
            stream.busy = false;
            for item in items {
                let stream = &mut self.streams[index];
                stream.newest = stream.newest.max(item.newest);
                stream.suspect = stream.suspect.saturating_sub(item.records());
                outcome.delivered += item.records();
                self.settle(item.slot, item.records());
            }
            self.list(index);
        }
    }

    fn partly_delivered(
        &mut self,
        mut request: Request,
        refused: u64,
        message: String,
        now: Duration,
        outcome: &mut Outcome,
    ) {
        let refused = refused.min(request.records);
        let mut left = refused;
        for item in request.parts.iter().flat_map(|(_, items)| items) {
            let lost = left.min(item.records());
            left -= lost;
            // Which ones is not said: their share of the bytes.
            let bytes = item.line_bytes() * lost / item.records().max(1);
            self.lose(item.slot, Reason::PartialSuccess, lost, bytes);
        }
        request.failures = 0;
        self.delivered(request, now, outcome);
        outcome.delivered -= refused;
        outcome.partial = Some((refused, message));
    }

    fn refuse_all(&mut self, request: Request, reason: Reason, message: &Arc<str>, outcome: &mut Outcome) {
        for (index, items) in request.parts {
            let stream = &mut self.streams[index];
            stream.busy = false;
            stream.failures = 0;
            for item in items {
                let stream = &mut self.streams[index];
                stream.suspect = stream.suspect.saturating_sub(item.records());
                self.refuse(item, reason, message, outcome);
            }
            self.list(index);
        }
    }

    fn refuse(&mut self, item: Item, reason: Reason, message: &Arc<str>, outcome: &mut Outcome) {
        let records = item.records();
        outcome.refused.push(Refusal { parcel: item.parcel(), reason, message: Arc::clone(message) });
        self.lose(item.slot, reason, records, item.line_bytes());
        self.settle(item.slot, records);
    }

    /// A lone stream was refused in part: finds out which records, with as few requests as can be.
    fn narrow(
        &mut self,
        request: Request,
        reason: Reason,
        message: &Arc<str>,
        oldest: Option<u64>,
        outcome: &mut Outcome,
    ) {
        let mut found = false;
        for (index, items) in request.parts {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                // The backend named a time before which it takes nothing: no need to ask again for those.
                let bound = oldest.filter(|bound| item.oldest < *bound);
                let Some(bound) = bound else {
                    kept.push(item);
                    continue;
                };
                found = true;
                let mut from = item.from;
                let too_old = |at: u32| item.batch.records[at as usize].time_unix_nano < bound;
                while from < item.to {
                    let old = too_old(from);
                    let to = (from..item.to).find(|at| too_old(*at) != old).unwrap_or(item.to);
                    let run = Item::new(Arc::clone(&item.batch), item.slot, from, to, item.since);
                    if old {
                        self.refuse(run, reason, message, outcome);
                    } else {
                        kept.push(run);
                    }
                    from = to;
                }
            }
            self.streams[index].failures = 0;
            // Without that, all is known is that one of these at least is refused.
            self.streams[index].suspect = if found { 0 } else { request.records };
            self.send_again(index, kept);
        }
    }

    /// Notes records of a shipment as refused for good.
    fn lose(&mut self, slot: usize, reason: Reason, records: u64, bytes: u64) {
        if records > 0
            && let Some(Some(owed)) = self.owed.get_mut(slot)
            && let Some(ticket) = &mut owed.ticket
        {
            ticket.lose(reason, records, bytes);
        }
    }

    /// Settles `records` records of a shipment, lost or not.
    fn settle(&mut self, slot: usize, records: u64) {
        let Some(Some(owed)) = self.owed.get_mut(slot) else {
            return;
        };
        owed.open -= records;
        if owed.open == 0
            && let Some(owed) = self.owed[slot].take()
        {
            self.held_bytes -= owed.held_bytes;
            self.free_owed.push(slot);
            if let Some(ticket) = owed.ticket {
                ticket.delivered();
            }
        }
    }

    /// Something in a shared request was refused: the stream that the answer names goes alone and the others
    /// together; without a name, halves. So that a stream is alone when anything becomes final, at the cost of
    /// few requests.
    fn divide(&mut self, mut request: Request, named: Option<StreamKey>, now: Duration) {
        let named = request.parts.iter().position(|(index, _)| Some(self.streams[*index].key) == named);
        let rest = match named {
            Some(at) => {
                let alone = request.parts.remove(at);
                std::mem::replace(&mut request.parts, vec![alone])
            }
            None => request.parts.split_off(request.parts.len() / 2),
        };
        for parts in [request.parts, rest] {
            let mut part = self.request(parts);
            part.retry_at = now;
            self.parked.push_back(part);
        }
    }

    /// The same bytes again, later: the streams in it wait.
    fn park(&mut self, mut request: Request, after: Option<Duration>, now: Duration) {
        request.failures += 1;
        request.retry_at = now + self.backoff(request.failures).max(after.unwrap_or_default().min(MAX_AFTER));
        self.parked.push_back(request);
    }

    /// A rate or a number of streams was exceeded. A shared request is taken apart, so that the next answer is
    /// about one stream; a lone stream waits (`patience`) and, if that did not help, sends less at once.
    fn slow_down(&mut self, request: Request, patience: Option<Option<Duration>>, now: Duration) {
        let lone = request.parts.len() == 1;
        for (index, items) in request.parts {
            if lone {
                let failures = self.streams[index].failures + 1;
                let wait = match patience {
                    Some(after) => self.backoff(failures).max(after.unwrap_or_default().min(MAX_AFTER)),
                    None => Duration::ZERO,
                };
                let stream = &mut self.streams[index];
                stream.failures = failures;
                stream.retry_at = now + wait;
                stream.allow = if failures > 1 {
                    (request.bytes / 2).max(1)
                } else {
                    stream.allow.min(self.stream_rate)
                };
            }
            self.send_again(index, items);
        }
    }

    /// Full jitter over an exponential that starts at half a second and ends at thirty.
    fn backoff(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(6);
        let ceiling = (BACKOFF.0 * (1 << doublings)).min(BACKOFF.1);
        let unit = ((self.random)() >> 11) as f64 / (1_u64 << 53) as f64;
        ceiling.mul_f64(unit)
    }

    fn endpoint_failed(&mut self, request: &Request, after: Option<Duration>, now: Duration) {
        // Requests that were under way together fail together: one failure.
        if self.endpoint.failures == 0 || request.sent_at >= self.endpoint.failed_at {
            self.endpoint.failures += 1;
            self.endpoint.failed_at = now;
            if self.endpoint.failures == OPEN_AFTER {
                self.endpoint.epoch += 1;
            }
        }
        let wait = self.backoff(self.endpoint.failures).max(after.unwrap_or_default().min(MAX_AFTER));
        let gap = self.endpoint.sent_at.map_or(now, |at| at + FAULT_GAP);
        self.endpoint.retry_at = self.endpoint.retry_at.max(now + wait).max(gap);
    }

    fn endpoint_answered(&mut self, now: Duration) {
        if self.endpoint.failures >= OPEN_AFTER {
            for request in &mut self.parked {
                request.retry_at = request.retry_at.min(now);
            }
        }
        self.endpoint.failures = 0;
        self.endpoint.retry_at = Duration::ZERO;
    }
}
