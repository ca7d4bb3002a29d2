//! Who still owes what for a log: tickets, the ledger, and the way a sealed batch reaches the sinks.
//!
//! A required sink gets a [`Ticket`] for each batch and must settle it; an optional one gets none, so it cannot
//! hold the file. A [`Ledger`] belongs to one container log. Its committed position moves over the finished
//! prefix and over nothing else. A ticket that is dropped unsettled pins the position: the lines will be read
//! again after a restart, never forgotten.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::batch::Batch;
use super::budget::Signal;
use super::position::Position;
use super::tally::{Dropping, Drops, Recorded, Tally};

/// Why lines were lost: refused for good by the backend. Each is a value of `reason` in the loss counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The backend calls the line invalid (400) and names nothing that waiting would change.
    Invalid,
    /// The line is older than the backend takes.
    TooOld,
    /// The line's timestamp is too far in the future for the backend.
    TooNew,
    /// The line is too far behind the newest of its stream.
    TooFarBehind,
    /// The line alone exceeds a size limit of the backend.
    TooLarge,
    /// OTLP partial success: the collector took the request and refused this many records.
    PartialSuccess,
}

impl Reason {
    /// Every reason, for the metrics table.
    pub const ALL: [Self; 6] =
        [Self::Invalid, Self::TooOld, Self::TooNew, Self::TooFarBehind, Self::TooLarge, Self::PartialSuccess];

    /// The reason as a label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::TooFarBehind => "too_far_behind",
            Self::TooLarge => "too_large",
            Self::PartialSuccess => "partial_success",
        }
    }
}

/// Why bytes of a log were lost. Each is a value of `reason` in the loss counters, in `/ledger`, and in the marker
/// that stands in the stream for what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The kubelet deleted the file before it was read.
    RotatedAway,
    /// The file was cut short before it was read.
    Truncated,
    /// The spill's budget was spent: the oldest of the largest backlog was given up.
    SpillFull,
    /// What was spilled could not be read back.
    SpillDamaged,
    /// Deleted files held open were over their budget.
    HeldFull,
    /// A required sink's backend refused the line for good.
    Refused(Reason),
}

impl Loss {
    /// Number of reasons.
    pub const COUNT: usize = Self::UNREAD + Reason::ALL.len();

    /// How many of them, the first of [`ALL`](Self::ALL), are about bytes that were never read.
    const UNREAD: usize = 5;

    /// Every reason.
    pub const ALL: [Self; Self::COUNT] = [
        Self::RotatedAway,
        Self::Truncated,
        Self::SpillFull,
        Self::SpillDamaged,
        Self::HeldFull,
        Self::Refused(Reason::Invalid),
        Self::Refused(Reason::TooOld),
        Self::Refused(Reason::TooNew),
        Self::Refused(Reason::TooFarBehind),
        Self::Refused(Reason::TooLarge),
        Self::Refused(Reason::PartialSuccess),
    ];

    /// The reason as a label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RotatedAway => "rotated_away",
            Self::Truncated => "truncated",
            Self::SpillFull => "spill_full",
            Self::SpillDamaged => "spill_damaged",
            Self::HeldFull => "held_full",
            Self::Refused(reason) => reason.name(),
        }
    }
    /// Its place in [`ALL`](Self::ALL), which is the order of sums by reason.
    pub const fn index(self) -> usize {
        match self {
            Self::RotatedAway => 0,
            Self::Truncated => 1,
            Self::SpillFull => 2,
            Self::SpillDamaged => 3,
            Self::HeldFull => 4,
            Self::Refused(reason) => Self::UNREAD + reason as usize,
        }
    }

    /// True when the bytes were lost before they were read; the others were read, sent and refused.
    pub const fn is_unread(self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Sums over the life of a ledger, in bytes of log lines and in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Log file bytes handed to the sinks or dropped by processing.
    pub read_bytes: u64,
    /// Log file bytes before the committed position.
    pub committed_bytes: u64,
    /// Records that every required sink took.
    pub delivered_records: u64,
    /// Records that a required sink refused for good.
    pub lost_records: u64,
    /// Records that configured processing dropped.
    pub dropped_records: u64,
    /// What configured processing dropped, by reason, in the order of [`Dropping::ALL`].
    pub dropped: Drops,
    /// What is lost, by reason, in the order of [`Loss::ALL`].
    pub lost: [Tally; Loss::COUNT],
    /// Those of the dropped bytes that belong to a stretch in flight.
    pub dropped_in_flight_bytes: u64,
    /// Log file bytes handed out and not yet settled.
    pub in_flight_bytes: u64,
    /// What the flight recorder holds now.
    pub held: Tally,
    /// Records that it held and released.
    pub released_records: u64,
    /// Held bytes that stretches entered earlier still count as theirs: the next ones count less.
    pub held_elsewhere_bytes: u64,
}

impl Totals {
    /// Bytes that every required sink took: those committed that were neither dropped nor refused.
    pub fn sent_bytes(&self) -> u64 {
        let taken = self.taken_bytes();
        taken - self.held_elsewhere_bytes.min(taken)
    }

    fn taken_bytes(&self) -> u64 {
        // What the flight recorder drops was in no stretch any more.
        let recorder = self.dropped[Dropping::Recorder as usize].bytes;
        let dropped = Tally::sum(&self.dropped).bytes - recorder - self.dropped_in_flight_bytes;
        self.committed_bytes - dropped - self.refused_bytes()
    }

    /// Bytes on their way: handed out, not settled, not dropped.
    pub fn moving_bytes(&self) -> u64 {
        let moving = self.in_flight_bytes - self.dropped_in_flight_bytes;
        let elsewhere = self.held_elsewhere_bytes - self.held_elsewhere_bytes.min(self.taken_bytes());
        moving - elsewhere.min(moving)
    }

    /// Bytes that sinks refused for good.
    pub fn refused_bytes(&self) -> u64 {
        Tally::sum(&self.lost[Loss::UNREAD..]).bytes
    }
}

/// What one sink refused of one batch, by reason, in the order of [`Reason::ALL`].
type Refusals = [Tally; Reason::ALL.len()];

#[derive(Debug)]
struct Entry {
    end: Position,
    /// Tickets not yet settled.
    open: u32,
    source_bytes: u64,
    records: u64,
    /// Bytes of it that processing dropped.
    dropped_bytes: u64,
    /// Of the sink that refused the most; nearly never any.
    refused: Option<Box<Refusals>>,
}

#[derive(Debug, Default)]
struct State {
    committed: Position,
    /// Sequence number of the front entry.
    base: u64,
    in_flight: VecDeque<Entry>,
    /// Bytes dropped of stretches that have not been entered yet.
    dropped: [u64; Dropping::COUNT],
    totals: Totals,
}

/// How far one container log is done, across its generations.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    /// The reader waits for credit on this log.
    starved: AtomicBool,
    signal: Arc<Signal>,
}

impl Ledger {
    /// A ledger whose log is done up to `committed`. Raises `signal` when credit returns.
    pub fn new(committed: Position, signal: Arc<Signal>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { committed, ..State::default() }),
            starved: AtomicBool::new(false),
            signal,
        })
    }

    /// Enters a stretch that ends at `end`, of `source_bytes` in the file, and issues `tickets` tickets for it.
    ///
    /// With no tickets the stretch is done as soon as all before it is.
    pub fn issue(
        self: &Arc<Self>,
        end: Position,
        source_bytes: u64,
        records: u64,
        tickets: u32,
    ) -> impl Iterator<Item = Ticket> + use<> {
        let seq = {
            let mut state = self.state.lock();
            let seq = state.base + state.in_flight.len() as u64;
            let held = state.totals.held_elsewhere_bytes.min(source_bytes);
            state.totals.held_elsewhere_bytes -= held;
            let source_bytes = source_bytes - held;
            state.totals.in_flight_bytes += source_bytes;
            state.totals.read_bytes += source_bytes;
            let dropped_bytes = state.place_dropped(source_bytes);
            state.in_flight.push_back(Entry {
                end,
                open: tickets,
                source_bytes,
                records,
                dropped_bytes,
                refused: None,
            });
            state.advance();
            seq
        };
        let ledger = Arc::clone(self);
        (0..tickets).map(move |_| Ticket { ledger: Arc::clone(&ledger), seq, refused: None })
    }

    /// Counts what configured processing dropped of a stretch that is about to be [issued](Self::issue).
    pub fn count_dropped(&self, drops: &Drops) {
        let mut state = self.state.lock();
        for (index, tally) in drops.iter().enumerate() {
            state.totals.dropped_records += tally.records;
            state.totals.dropped[index].records += tally.records;
            state.dropped[index] += tally.bytes;
        }
    }

    /// Counts what the flight recorder did in a stretch that is about to be [issued](Self::issue). That stretch is
    /// issued with the bytes of what was released on top of its own; those of what was taken are left out of it here.
    pub fn count_recorded(&self, recorded: &Recorded) {
        let mut state = self.state.lock();
        let totals = &mut state.totals;
        totals.held += recorded.taken;
        totals.held_elsewhere_bytes += recorded.taken.bytes;
        for gone in [recorded.released, recorded.dropped] {
            totals.held.records = totals.held.records.saturating_sub(gone.records);
            totals.held.bytes = totals.held.bytes.saturating_sub(gone.bytes);
        }
        totals.released_records += recorded.released.records;
        totals.dropped_records += recorded.dropped.records;
        totals.dropped[Dropping::Recorder as usize] += recorded.dropped;
    }

    /// The flight recorder holds this of what stands before the position that this ledger began at.
    pub fn adopt_held(&self, held: Tally) {
        self.state.lock().totals.held += held;
    }

    /// Counts bytes of the log file that are lost before they were read. For what a sink refuses see
    /// [`Ticket::lose`].
    pub fn lose_bytes(&self, loss: Loss, bytes: u64) {
        debug_assert!(loss.is_unread(), "what was read is lost with its ticket");
        self.state.lock().totals.lost[loss.index()].bytes += bytes;
    }

    /// The end of the finished prefix: what the checkpoint may say.
    pub fn committed(&self) -> Position {
        self.state.lock().committed
    }

    /// Takes note that the reader waits for credit: the signal is raised when bytes are settled.
    pub fn wait_for_credit(&self) {
        self.starved.store(true, Ordering::Release);
    }

    /// Bytes handed out and not yet settled.
    pub fn in_flight_bytes(&self) -> u64 {
        self.state.lock().totals.in_flight_bytes
    }

    /// True while any stretch is not settled.
    pub fn has_in_flight(&self) -> bool {
        !self.state.lock().in_flight.is_empty()
    }

    /// Sums since this ledger was made, and the committed position of the same moment.
    pub fn progress(&self) -> (Totals, Position) {
        let state = self.state.lock();
        (state.totals, state.committed)
    }

    /// Sums since this ledger was made.
    pub fn totals(&self) -> Totals {
        self.state.lock().totals
    }

    fn settle(&self, seq: u64, refused: Option<Box<Refusals>>) {
        let mut state = self.state.lock();
        let index = usize::try_from(seq - state.base).expect("in-flight entries fit memory");
        let entry = &mut state.in_flight[index];
        entry.open -= 1;
        let records = |refused: &Option<Box<Refusals>>| {
            refused.as_ref().map_or(0, |refused| Tally::sum(refused.as_slice()).records)
        };
        if records(&refused) > records(&entry.refused) {
            entry.refused = refused;
        }
        let freed = state.advance();
        drop(state);
        if freed && self.starved.swap(false, Ordering::AcqRel) {
            self.signal.raise();
        }
    }
}

impl State {
    /// Moves the committed position over the finished prefix; true when bytes were freed.
    fn advance(&mut self) -> bool {
        let mut moved = false;
        while self.in_flight.front().is_some_and(|front| front.open == 0)
            && let Some(front) = self.in_flight.pop_front()
        {
            self.base += 1;
            self.committed = front.end;
            let totals = &mut self.totals;
            totals.in_flight_bytes -= front.source_bytes;
            totals.dropped_in_flight_bytes -= front.dropped_bytes;
            totals.committed_bytes += front.source_bytes;
            let mut lost_records = 0;
            // The sums must balance whatever a sink says.
            let mut room = front.source_bytes - front.dropped_bytes;
            for (tally, refused) in
                totals.lost[Loss::UNREAD..].iter_mut().zip(front.refused.iter().flat_map(|r| **r))
            {
                let bytes = refused.bytes.min(room);
                room -= bytes;
                lost_records += refused.records;
                *tally += Tally { records: refused.records, bytes };
            }
            totals.lost_records += lost_records;
            totals.delivered_records += front.records - lost_records.min(front.records);
            moved = true;
        }
        moved
    }

    /// Places the bytes that were dropped in a stretch of `source_bytes`, as far as it has room for them; how many.
    fn place_dropped(&mut self, source_bytes: u64) -> u64 {
        let mut placed = 0;
        for (waiting, tally) in self.dropped.iter_mut().zip(&mut self.totals.dropped) {
            let bytes = (*waiting).min(source_bytes - placed);
            *waiting -= bytes;
            tally.bytes += bytes;
            placed += bytes;
        }
        self.totals.dropped_in_flight_bytes += placed;
        placed
    }
}

/// One required sink's promise for one batch. Settle it with [`delivered`](Self::delivered), after
/// [`lose`](Self::lose) for every record that the backend refused for good. Dropping it settles nothing.
#[must_use]
#[derive(Debug)]
pub struct Ticket {
    ledger: Arc<Ledger>,
    seq: u64,
    refused: Option<Box<Refusals>>,
}

impl Ticket {
    /// Notes records of the batch as refused for good, with the bytes of their lines.
    pub fn lose(&mut self, reason: Reason, records: u64, bytes: u64) {
        self.refused.get_or_insert_default()[reason as usize] += Tally { records, bytes };
    }

    /// The backend has everything that was not [lost](Self::lose).
    pub fn delivered(mut self) {
        let refused = self.refused.take();
        self.ledger.settle(self.seq, refused);
    }
}

/// A batch on its way to one sink.
#[derive(Debug)]
pub struct Shipment {
    /// What to send.
    pub batch: Arc<Batch>,
    /// What to settle; `None` for an optional sink.
    pub ticket: Option<Ticket>,
}

/// The entrance to one sink's own queue.
pub trait Outlet: Send {
    /// True when the file waits for this sink.
    fn required(&self) -> bool;

    /// Queues a shipment. Never blocks: the memory budget bounds what can be queued. An optional sink whose
    /// queue is full counts and drops it.
    fn offer(&self, shipment: Shipment);

    /// Queues several at once, in order. Worth a wake-up of the sink's thread only once.
    fn offer_all(&self, shipments: Vec<Shipment>) {
        for shipment in shipments {
            self.offer(shipment);
        }
    }
}

/// A sealed batch with the ledger of its log, and the bytes that it covers in the file.
#[derive(Debug)]
pub struct Sealed {
    /// The ledger that it is entered in.
    pub ledger: Arc<Ledger>,
    /// The batch.
    pub batch: Batch,
    /// What it covers in the file.
    pub source_bytes: u64,
}

/// All sinks, as the log path sees them.
pub struct Fanout {
    outlets: Vec<Box<dyn Outlet>>,
    required: u32,
}

impl Fanout {
    /// A fan-out to `outlets`.
    pub fn new(outlets: Vec<Box<dyn Outlet>>) -> Self {
        let required = outlets.iter().filter(|outlet| outlet.required()).count() as u32;
        Self { outlets, required }
    }

    /// Enters `batch` in `ledger` and offers it to every sink. `source_bytes` is what it covers in the file.
    pub fn ship(&self, ledger: &Arc<Ledger>, batch: Batch, source_bytes: u64) {
        self.ship_all(std::iter::once(Sealed { ledger: Arc::clone(ledger), batch, source_bytes }));
    }

    /// Enters each batch in its ledger and offers all of them to every sink.
    pub fn ship_all(&self, sealed: impl Iterator<Item = Sealed>) {
        let mut queues: Vec<Vec<Shipment>> = self.outlets.iter().map(|_| Vec::new()).collect();
        for Sealed { ledger, batch, source_bytes } in sealed {
            let records = batch.records.len() as u64;
            let batch = Arc::new(batch);
            let mut tickets = ledger.issue(batch.end, source_bytes, records, self.required);
            for (outlet, queue) in self.outlets.iter().zip(&mut queues) {
                let ticket = if outlet.required() { tickets.next() } else { None };
                queue.push(Shipment { batch: Arc::clone(&batch), ticket });
            }
        }
        for (outlet, queue) in self.outlets.iter().zip(queues) {
            if !queue.is_empty() {
                outlet.offer_all(queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { offset, ..Position::default() }
    }

    fn one(ledger: &Arc<Ledger>, offset: u64) -> Ticket {
        ledger.issue(at(offset), 10, 1, 1).next().expect("one ticket")
    }

    #[test]
    fn only_a_finished_prefix_is_committed() {
        let ledger = Ledger::new(at(0), Arc::default());
        let first = one(&ledger, 10);
        let second = one(&ledger, 20);
        second.delivered();
        assert_eq!(ledger.committed(), at(0));
        first.delivered();
        assert_eq!(ledger.committed(), at(20));
        assert_eq!(ledger.in_flight_bytes(), 0);
    }

    #[test]
    fn slowest_sink_holds_the_offset() {
        let ledger = Ledger::new(at(0), Arc::default());
        let mut tickets: Vec<_> = ledger.issue(at(10), 10, 1, 2).collect();
        tickets.pop().expect("two tickets").delivered();
        assert_eq!(ledger.committed(), at(0));
        tickets.pop().expect("one left").delivered();
        assert_eq!(ledger.committed(), at(10));
    }

    #[test]
    fn dropped_ticket_pins_the_offset() {
        let ledger = Ledger::new(at(0), Arc::default());
        drop(one(&ledger, 10));
        one(&ledger, 20).delivered();
        assert_eq!(ledger.committed(), at(0));
    }

    #[test]
    fn a_stretch_without_tickets_commits_in_its_turn() {
        let ledger = Ledger::new(at(0), Arc::default());
        let first = one(&ledger, 10);
        assert_eq!(ledger.issue(at(20), 10, 0, 0).count(), 0);
        assert_eq!(ledger.committed(), at(0));
        first.delivered();
        assert_eq!(ledger.committed(), at(20));
    }

    #[test]
    fn lost_records_are_counted_once_over_sinks() {
        let ledger = Ledger::new(at(0), Arc::default());
        let tickets: Vec<_> = ledger.issue(at(10), 10, 5, 2).collect();
        for mut ticket in tickets {
            ticket.lose(Reason::TooOld, 2, 4);
            ticket.delivered();
        }
        let totals = ledger.totals();
        assert_eq!((totals.lost_records, totals.delivered_records), (2, 3));
        assert_eq!(totals.lost[Loss::Refused(Reason::TooOld).index()], Tally { records: 2, bytes: 4 });
        assert_eq!((totals.committed_bytes, totals.sent_bytes()), (10, 6));
    }

    #[test]
    fn reasons_stand_where_their_index_says() {
        for (index, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!((loss.index(), loss.is_unread()), (index, index < 5), "{}", loss.name());
        }
    }
}
