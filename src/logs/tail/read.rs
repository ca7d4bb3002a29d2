//! Reading with credit: who may read how much, and what a read becomes.
//!
//! Deficit round robin over namespaces, then containers, so that a storm in one pod costs only that pod. Nothing
//! is read without memory from the budget, and no log holds more than its share in flight.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::log::file_name;
use super::{CATCHING_UP_AGE, CATCHING_UP_BYTES, CHUNK, MAX_AHEAD, Tail};
use crate::data::batch::{Batch, Record};
use crate::data::budget::Permit;
use crate::data::delivery::{Loss, Sealed};
use crate::data::position::{Position, Skipping};
use crate::logs::chain::Glimpse;
use crate::logs::env::{Env, LogFile};
use crate::logs::notice;
use crate::logs::resume::Missing;
use crate::logs::source::{Gap, Source};
use crate::metrics;

/// Log bytes that are sealed before they are handed out.
const OUTBOX: u64 = 512 << 10;

/// What a read brought.
enum Read {
    /// So many bytes were taken.
    Some(u64),
    /// Nothing that can be taken now.
    Nothing,
    /// Credit is spent.
    NoCredit,
}

impl<E: Env> Tail<E> {
    /// Hands out what was sealed. In bursts, since each batch that is handed out alone wakes the sinks' threads.
    pub(super) fn ship(&mut self) {
        self.outbox_bytes = 0;
        if !self.outbox.is_empty() {
            self.fanout.ship_all(self.outbox.drain(..));
        }
    }

    pub(super) fn rebuild_order(&mut self) {
        self.order_stale = false;
        let mut namespaces: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut streams: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, log) in self.logs.iter().enumerate() {
            namespaces.entry(&log.workload.container.namespace).or_default().push(index);
            streams.entry(log.stream).or_default().push(index);
        }
        self.namespaces = namespaces.into_values().collect();
        streams.retain(|_, logs| logs.len() > 1);
        self.shared = streams;
        self.next_namespace = 0;
    }

    /// One round of deficit round robin, namespaces then containers; true when another round may find work.
    pub(super) fn read_round(&mut self, now: Duration) -> bool {
        let namespaces = std::mem::take(&mut self.namespaces);
        let mut more = false;
        let mut starved = false;
        let count = namespaces.len();
        for turn in 0..count {
            let namespace = &namespaces[(self.next_namespace + turn) % count];
            // Every log of the namespace shares the namespace's quantum.
            let busy = namespace.iter().filter(|index| self.logs[**index].unread() > 0).count();
            if busy == 0 {
                continue;
            }
            let quantum = (CHUNK / busy as u64).max(16 << 10) as i64;
            for &index in namespace {
                if self.logs[index].unread() == 0 {
                    self.logs[index].deficit = 0;
                    continue;
                }
                let log = &mut self.logs[index];
                log.deficit = (log.deficit + quantum).min(CHUNK as i64);
                if log.deficit <= 0 {
                    more = true;
                    continue;
                }
                match self.read_chunk(index, now) {
                    Read::Some(bytes) => {
                        let log = &mut self.logs[index];
                        log.deficit -= bytes as i64;
                        more |= log.unread() > 0;
                    }
                    Read::Nothing => {}
                    Read::NoCredit => {
                        starved = true;
                        self.logs[index].is_starved();
                    }
                }
            }
            if starved && self.budget.held() >= self.budget.limit() / 10 * 9 {
                break;
            }
        }
        if count > 0 {
            self.next_namespace = (self.next_namespace + 1) % count;
        }
        self.namespaces = namespaces;
        more
    }

    /// The stamp beyond which a log must wait for another one that feeds its stream.
    fn horizon(&self, index: usize) -> u64 {
        let Some(members) = self.shared.get(&self.logs[index].stream) else { return u64::MAX };
        let wall = self.env.unix_nano();
        let mut oldest = u64::MAX;
        for &other in members {
            let log = &self.logs[other];
            // A log that is about as far as the clock cannot be far behind anything.
            let near = log.lines.last_time().saturating_add(MAX_AHEAD) >= wall;
            if other != index
                && !near
                && log.holds_others()
                && let Some(next) = self.peek(other)
            {
                oldest = oldest.min(next);
            }
        }
        oldest.saturating_add(MAX_AHEAD)
    }

    /// Stamp of a log's next unread line, when it can be told.
    fn peek(&self, index: usize) -> Option<u64> {
        let file = self.logs[index].files.front()?;
        let lines = &self.logs[index].lines;
        let mut head = Vec::with_capacity(lines.stamp_reach());
        file.file.read_at(file.offset, lines.stamp_reach(), &mut head).ok()?;
        lines.stamp_of(&head)
    }

    fn read_chunk(&mut self, index: usize, now: Duration) -> Read {
        if self.logs[index].files.front().is_some_and(|front| front.missing_before.is_some()) {
            self.tell_missing(index);
        }
        let log = &self.logs[index];
        let in_flight = log.ledger.in_flight_bytes();
        let long = self.settings.max_line as u64 + 4096;
        let limit = if log.long_read { CHUNK.max(long) } else { CHUNK };
        // The live file may have been cut and be longer than before by now: what was read last must still be there.
        let Some(front) = log.files.front() else { return Read::Nothing };
        let is_live = log.files.len() == 1 && front.file.is_file();
        let begin = if is_live { front.glimpse.begin(front.offset) } else { front.offset };
        let again = front.offset - begin;
        let want = log.unread().min(if log.long_read { limit } else { limit - again });
        if in_flight > 0 && in_flight + want > self.options.per_log {
            log.ledger.wait_for_credit();
            // What came back before the wish was noted raises no signal.
            if log.ledger.in_flight_bytes() == in_flight {
                return Read::NoCredit;
            }
        }
        let Some(mut permit) = self.budget.reserve(want + want / 2) else { return Read::NoCredit };
        let horizon = self.horizon(index);
        let read_time = self.env.unix_nano();
        let log = &mut self.logs[index];
        log.lines.set_read_time(read_time);
        let Some(file) = log.files.front_mut() else { return Read::Nothing };
        let again = again as usize;
        let (mut arena, mut records) = self.budget.buffers(want as usize + again);
        let start = Position {
            generation: file.generation,
            ordinal: file.ordinal,
            offset: file.offset,
            skipping: Skipping::default(),
        };
        match file.file.read_at(begin, want as usize + again, &mut arena) {
            Ok(_) if is_live && file.glimpse.contradicts(&arena, begin) => {
                if !self.take_copy(index, 0) {
                    // How much is lost cannot be told.
                    self.truncated(index, 0);
                }
                return Read::Some(0);
            }
            Ok(read) if read <= again => {
                file.size = file.offset;
                return Read::Nothing;
            }
            Ok(_) => log.failing = false,
            Err(error) => {
                if let Some(until) = Gap::of(&error).map(|gap| gap.until) {
                    self.skip_gap(index, until);
                    return Read::Some(0);
                }
                log.failing = true;
                metrics::LOG_READ_ERRORS.inc();
                warn!(log = %log.key, %error, "cannot read log; trying again at the next tick");
                file.size = file.offset;
                return Read::Nothing;
            }
        }
        let got = arena.len() - again;
        if got as u64 >= CHUNK / 2 {
            self.last_large_read = now;
        }
        let offset = file.offset;
        file.glimpse = Glimpse::of(&arena, begin);
        let taken =
            log.lines.ingest(&self.settings, &log.workload, &mut arena, again, offset, horizon, &mut records);
        file.offset += taken.bytes as u64;
        let cut_short = got as u64 == want && file.rest() > (got - taken.bytes) as u64;
        log.long_read = taken.bytes == 0 && !taken.at_horizon && cut_short;
        log.waiting = taken.at_horizon;
        if !taken.at_horizon && !cut_short && taken.bytes < got {
            file.torn_at = file.offset + (got - taken.bytes) as u64;
        }
        if taken.bytes == 0 {
            return if log.long_read { Read::Some(0) } else { Read::Nothing };
        }
        metrics::LOG_READ_BYTES.inc_by(taken.bytes as u64);
        metrics::LOG_RECORDS.inc_by(taken.framed);
        permit.resize((arena.capacity() + records.capacity() * size_of::<Record>()) as u64);
        self.send(index, start, arena, records, taken.bytes as u64, permit);
        // What is read waits no more; the ledger has it when the outbox is handed out.
        let log = &self.logs[index];
        log.sight.look(now, log.sight());
        Read::Some(taken.bytes as u64)
    }

    /// Marks in the stream that files before the front one are lost.
    fn tell_missing(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let Some(front) = log.files.front_mut() else { return };
        let Some(Missing { bytes, exact }) = front.missing_before.take() else { return };
        if exact {
            warn!(log = %log.key, bytes, "log files were deleted before they were read; what they held is lost");
        } else {
            warn!(log = %log.key, at_least = bytes, "log files were deleted before they were read; nobody knows how much they held");
            metrics::LOG_GAPS.inc();
        }
        let (file, offset) = (file_name(&front.generation), front.offset);
        log.lose(Loss::RotatedAway, bytes);
        log.written_before += bytes as i64;
        let gap = notice::Gap {
            reason: Loss::RotatedAway,
            file: &file,
            bytes: (exact || bytes > 0).then_some(bytes),
            from: None,
            to: None,
        };
        self.mark_gap(index, None, &gap, offset);
    }

    /// Goes on behind bytes that are not there any more, and marks the place in the stream.
    fn skip_gap(&mut self, index: usize, until: u64) {
        let Some(start) = self.logs[index].decided() else { return };
        let log = &mut self.logs[index];
        let Some(front) = log.files.front_mut() else { return };
        let (from, ordinal) = (front.offset, front.ordinal);
        let until = until.clamp(from + 1, front.size.max(from + 1));
        let closed = matches!(front.file, Source::Closed(_));
        front.offset = until;
        let file = file_name(&front.generation);
        let bytes = until - from;
        let known = log.given_up.iter().any(|(of, range)| *of == ordinal && range.contains(&from));
        log.given_up.retain(|(of, range)| *of > ordinal || (*of == ordinal && range.end > until));
        let reason = match (closed, known) {
            (true, _) => Loss::HeldFull,
            (false, true) => Loss::SpillFull,
            (false, false) => Loss::SpillDamaged,
        };
        if !closed && !known {
            warn!(log = %log.key, bytes, "what was spilled of this log cannot be read back; it is lost");
            log.lose(reason, bytes);
        }
        let gap = notice::Gap { reason, file: &file, bytes: Some(bytes), from: Some(from), to: Some(until) };
        self.mark_gap(index, Some(start), &gap, from);
    }

    /// Puts the marker of a hole at `offset` into the stream. What was open before it comes out, and reading begins
    /// anew behind it. The batch begins at `start`, or where the log stands then.
    fn mark_gap(&mut self, index: usize, start: Option<Position>, gap: &notice::Gap<'_>, offset: u64) {
        let next = self.peek(index);
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        log.lines.interrupt(&self.settings, &log.workload, &mut arena, &mut records);
        log.carried = None;
        let time = next.unwrap_or(log.lines.last_time());
        records.push(notice::gap(&mut arena, gap, time, offset));
        let Some(start) = start.or_else(|| log.decided()) else { return };
        self.seal_from(index, start, arena, records, 0);
    }

    /// Seals what came out without a read of its own.
    pub(super) fn seal(&mut self, index: usize, arena: Vec<u8>, records: Vec<Record>, source_bytes: u64) {
        if records.is_empty() && source_bytes == 0 {
            self.hand_over(index, &arena);
            self.count_processed(index);
            return;
        }
        let Some(start) = self.logs[index].decided() else { return };
        self.seal_from(index, start, arena, records, source_bytes);
    }

    pub(super) fn seal_from(
        &mut self,
        index: usize,
        start: Position,
        arena: Vec<u8>,
        records: Vec<Record>,
        source_bytes: u64,
    ) {
        let bytes = (arena.capacity() + records.capacity() * size_of::<Record>()) as u64;
        // A few lines at most; they must not wait for credit, so the budget is overdrawn by them.
        let permit = self.budget.overdraw(bytes);
        self.send(index, start, arena, records, source_bytes, permit);
    }

    fn send(
        &mut self,
        index: usize,
        start: Position,
        arena: Vec<u8>,
        records: Vec<Record>,
        source_bytes: u64,
        permit: Permit,
    ) {
        let sealed_unix_nano = self.env.unix_nano();
        self.hand_over(index, &arena);
        let source_bytes = source_bytes + self.count_processed(index);
        self.note_failures(index, &records);
        let log = &self.logs[index];
        let Some(end) = log.decided() else { return };
        if records.is_empty() {
            // The ledger takes stretches in the log's order.
            self.ship();
            let log = &self.logs[index];
            let _ = log.ledger.issue(end, source_bytes, 0, 0).count();
            return;
        }
        log.coverage.count(&records);
        log.vitals.count(&arena, &records, self.env.now());
        let newest = records.last().map_or(0, |record| record.time_unix_nano);
        let catching_up =
            log.lag() > CATCHING_UP_BYTES || newest.saturating_add(CATCHING_UP_AGE) < sealed_unix_nano;
        let batch = Batch {
            workload: Arc::clone(&log.workload),
            path: Arc::clone(&log.path),
            start,
            end,
            arena,
            records,
            catching_up,
            sealed_unix_nano,
            permit,
        };
        self.outbox_bytes += source_bytes;
        self.outbox.push(Sealed { ledger: Arc::clone(&log.ledger), batch, source_bytes });
        if self.outbox_bytes >= OUTBOX {
            self.ship();
        }
    }
}
