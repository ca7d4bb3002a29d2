//! Keeping what is about to be deleted, and giving up what cannot be kept.
//!
//! The log files are the queue, as long as the kubelet leaves them. What it will delete soon (two rotations behind the
//! live file) or has deleted already (unlinked, held by our descriptor alone) is copied into the spill while no
//! backend takes it. When neither the spill nor the bound on deleted files leaves room, the oldest of the largest
//! backlog is given up: counted in bytes, and marked in its stream when reading comes to it.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::log::Log;
use super::{CHUNK, GONE_GRACE, Tail};
use crate::data::delivery::Loss;
use crate::data::position::Position;
use crate::data::workload::Origin;
use crate::logs::chain::Open;
use crate::logs::env::{Env, LogFile};
use crate::logs::mask::Masker;
use crate::logs::source::Source;
use crate::logs::spill::{Refused, Stretch};
use crate::metrics;

/// Log bytes spilled in one tick at most, so that reading goes on.
const PER_TICK: u64 = 8 << 20;
/// The same while deleted files hold more than they may: what is not spilled then may have to be given up.
const PER_TICK_URGENT: u64 = 64 << 20;
/// A deleted file with a backlog is given this long to be delivered after all.
const UNLINKED_GRACE: Duration = Duration::from_secs(1);
/// Rotations behind the live file at which a file is in danger. The kubelet keeps four.
const DANGER: u64 = 2;
/// Bytes on disk freed at once when the spill is full.
const RELIEF: u64 = 4 << 20;

/// What became of the attempt to spill one file.
enum Spilled {
    /// All that is to be kept of it is kept.
    Whole,
    /// This tick's credit is spent, or its end is still being written.
    Partly,
    /// There is no room.
    Refused,
}

impl<E: Env> Tail<E> {
    /// Spills what is in danger, and gives up what cannot be held.
    pub(super) fn protect(&mut self, now: Duration) {
        let mut credit = PER_TICK;
        let mut held = 0;
        let mut refused = false;
        // What is unlinked goes with the process: it comes first.
        for unlinked in [true, false] {
            for index in 0..self.logs.len() {
                let log = &mut self.logs[index];
                let alone = log.behind.is_empty() && log.files.len() == 1;
                if alone && log.files[0].unlinked_since.is_none() {
                    continue;
                }
                let committed = log.ledger.committed();
                let counted = !log.counts_behind();
                let done = |file: &Open<_>| counted && committed.covers(&end_of(file));
                while log.behind.front().is_some_and(done) {
                    log.behind.pop_front();
                }
                if !refused {
                    refused = self.spill_log(index, unlinked, committed, now, UNLINKED_GRACE, &mut credit);
                }
                if unlinked {
                    held += self.held(index);
                }
            }
            if unlinked && held > self.options.held_deleted {
                held = self.press(held, refused, now);
            }
        }
        metrics::LOG_HELD_DELETED_BYTES.set(held as i64);
    }

    /// More is held in deleted files than may be: spills at once what there is room for, and gives up the rest. The
    /// bytes that are held then.
    fn press(&mut self, held: u64, mut refused: bool, now: Duration) -> u64 {
        let mut credit = PER_TICK_URGENT.min((held - self.options.held_deleted).max(PER_TICK));
        let all = credit;
        for index in 0..self.logs.len() {
            if refused || self.held(index) == 0 {
                continue;
            }
            let committed = self.logs[index].ledger.committed();
            refused = self.spill_log(index, true, committed, now, Duration::ZERO, &mut credit);
        }
        // What is in the spill is let go of once it is durable there, and the rest has its turn while it can be spilled.
        let left: u64 = self.logs.iter().map(|log| self.not_spilled(log, log.all_files())).sum();
        if left > self.options.held_deleted && (refused || credit == all) {
            self.relieve(left - self.options.held_deleted);
        }
        (0..self.logs.len()).map(|index| self.held(index)).sum()
    }

    /// Bytes of those of a log's `files` that are deleted, kept from being freed, and that the spill has not got whole.
    fn not_spilled<'a>(
        &self,
        log: &Log<E::File>,
        files: impl Iterator<Item = &'a Open<Source<E::File>>>,
    ) -> u64
    where
        E::File: 'a,
    {
        let mut held = files.filter(|file| is_held(file)).peekable();
        if held.peek().is_none() {
            return 0;
        }
        let (kept, committed) = (self.spill.stretches(&log.key), log.ledger.committed());
        held.filter(|file| !is_spilled(&kept, file, committed)).map(|file| file.size).sum()
    }

    /// The process ends: keeps what is only held by its descriptors.
    pub fn rescue(&mut self) {
        let now = self.env.now();
        for index in 0..self.logs.len() {
            let log = &mut self.logs[index];
            for file in log.all_files_mut() {
                if file.file.stat().is_ok_and(|stat| stat.links == 0) {
                    file.unlinked_since.get_or_insert(Duration::ZERO);
                }
            }
            let committed = self.logs[index].ledger.committed();
            let mut credit = u64::MAX;
            if self.spill_log(index, true, committed, now, Duration::ZERO, &mut credit) {
                return;
            }
        }
    }

    /// Spills a log's files that are in danger: the unlinked ones, or those that soon will be. True when refused.
    fn spill_log(
        &mut self,
        index: usize,
        unlinked: bool,
        committed: Position,
        now: Duration,
        grace: Duration,
        credit: &mut u64,
    ) -> bool {
        let newest = self.logs[index].newest_ordinal();
        let is_spool = self.logs[index].workload.container.origin() == Origin::Process;
        let files = self.logs[index].all_files().count();
        for at in 0..files {
            let Some(file) = self.logs[index].all_files().nth(at) else { break };
            let waited = file.unlinked_since.is_some_and(|since| now >= since + grace);
            // What the agent itself keeps of a process is deleted by nobody else.
            let chosen = if unlinked { waited } else { !is_spool && newest - file.ordinal >= DANGER };
            if !chosen || !file.file.is_file() || committed.covers(&end_of(file)) {
                continue;
            }
            match self.spill_file(index, at, committed, credit) {
                Spilled::Whole => self.let_go(index, at, newest, committed, now),
                Spilled::Partly => return false,
                Spilled::Refused => return true,
            }
        }
        false
    }

    fn spill_file(&mut self, index: usize, at: usize, committed: Position, credit: &mut u64) -> Spilled {
        let margin = self.settings.warm_up_reach();
        let key = Arc::clone(&self.logs[index].key);
        let is_newest = at + 1 == self.logs[index].all_files().count();
        let Some(file) = self.logs[index].all_files().nth(at) else { return Spilled::Whole };
        let need = needed(file, committed);
        let mut from = covered(&self.spill.stretches(&key), file.ordinal, need, |stretch| stretch.end);
        if from == need && need > 0 {
            from = line_start(&file.file, need.saturating_sub(margin));
        }
        if from >= file.size {
            return Spilled::Whole;
        }
        let ordinal = file.ordinal;
        let mut masker = match self.logs[index].masking.take() {
            Some((of, at, masker)) if (of, at) == (ordinal, from) => masker,
            _ => self.masker(index, at, from),
        };
        let mut chunk = Vec::new();
        let log = &mut self.logs[index];
        let Some(file) = log.all_files().nth(at) else { return Spilled::Whole };
        let mut done = Spilled::Whole;
        while from < file.size {
            if *credit == 0 {
                done = Spilled::Partly;
                break;
            }
            chunk.clear();
            let want = (file.size - from).min(CHUNK);
            if !file.file.read_at(from, want as usize, &mut chunk).is_ok_and(|read| read > 0) {
                done = Spilled::Partly;
                break;
            }
            let at_end = from + chunk.len() as u64 == file.size;
            match memchr::memrchr(b'\n', &chunk) {
                Some(end) => chunk.truncate(end + 1),
                // The last line of a file that may still be written to waits for its end.
                None if at_end && is_newest => break,
                None => {}
            }
            let last = at_end && !is_newest;
            let masked = masker.mask(&self.settings, &log.workload, &mut chunk, last);
            if masked == 0 && at_end {
                // What is open at the live end waits for its own end.
                break;
            }
            // A line that is longer than a chunk can only be masked piece by piece.
            if masked > 0 {
                chunk.truncate(masked);
            } else {
                masker.mask(&self.settings, &log.workload, &mut chunk, true);
            }
            match self.spill.append(&key, file.generation, file.ordinal, from, &chunk) {
                Ok(()) => {}
                Err(Refused::Failed(error)) => {
                    metrics::SPILL_FAILURES.inc();
                    warn!(log = %key, %error, "cannot spill");
                    done = Spilled::Refused;
                    break;
                }
                Err(_) => {
                    done = Spilled::Refused;
                    break;
                }
            }
            from += chunk.len() as u64;
            *credit = credit.saturating_sub(chunk.len() as u64);
        }
        log.masking = Some((ordinal, from, masker));
        done
    }

    /// What masks a file from `from` on, with what it must know of the lines before.
    fn masker(&self, index: usize, at: usize, from: u64) -> Masker {
        let log = &self.logs[index];
        let mut masker = Masker::of(log.lines.annotated());
        let begin = from.saturating_sub(self.settings.warm_up_reach());
        let mut before = Vec::new();
        if begin < from
            && let Some(file) = log.all_files().nth(at)
            && file.file.read_at(begin, (from - begin) as usize, &mut before).is_ok()
        {
            masker.follow(&self.settings, &log.workload, &before);
        }
        masker
    }

    /// Lets go of an unlinked file that is durably kept, so that its blocks are freed.
    fn let_go(&mut self, index: usize, at: usize, newest: u64, committed: Position, now: Duration) {
        let log = &mut self.logs[index];
        let key = Arc::clone(&log.key);
        let quiet = now > log.last_growth + GONE_GRACE;
        let Some(file) = log.all_files().nth(at) else { return };
        if file.unlinked_since.is_none() || (file.ordinal == newest && !quiet) {
            return;
        }
        let (ordinal, generation, size) = (file.ordinal, file.generation, file.size);
        let need = needed(file, committed);
        if covered(&self.spill.stretches(&key), ordinal, need, |stretch| stretch.durable_end) >= size {
            let source = self.spilled_source(&key, ordinal, generation, size);
            if let Some(file) = self.logs[index].all_files_mut().nth(at) {
                file.file = source;
                file.unlinked_since = None;
            }
        }
    }

    /// Bytes of deleted files that a log keeps from being freed.
    fn held(&self, index: usize) -> u64 {
        let files = self.logs[index].all_files();
        files.filter(|file| is_held(file)).map(|file| file.size).sum()
    }

    /// Gives up the oldest of the largest backlog until `excess` bytes of deleted files are free, or room in the
    /// spill is made for them.
    fn relieve(&mut self, mut excess: u64) {
        if let Some((key, stored)) = self.spill.largest()
            && let Some(&index) = self.by_key.get(&key)
            && (0..self.logs.len()).all(|other| self.held(other) <= stored)
            && self.give_up_spilled(index)
        {
            return;
        }
        while excess > 0 {
            let Some(index) = (0..self.logs.len()).max_by_key(|index| self.given_up_next(*index)) else {
                return;
            };
            let freed = self.give_up_held(index);
            if freed == 0 {
                return;
            }
            excess = excess.saturating_sub(freed);
        }
    }

    /// Bytes of unlinked files that a log could give up: those that reading has not passed and the spill has not got.
    fn given_up_next(&self, index: usize) -> u64 {
        let log = &self.logs[index];
        self.not_spilled(log, log.files.iter())
    }

    fn give_up_spilled(&mut self, index: usize) -> bool {
        let log = &mut self.logs[index];
        for file in &log.files {
            if file.file.is_file() || file.unread() == 0 {
                continue;
            }
            if let Some(range) = self.spill.give_up(&log.key, file.ordinal, file.offset, RELIEF) {
                let bytes = range.end - range.start;
                warn!(log = %log.key, bytes, "the spill is full; the oldest of the largest backlog is given up");
                log.lose(Loss::SpillFull, bytes);
                log.given_up.push((file.ordinal, range));
                return true;
            }
        }
        false
    }

    /// Closes a log's oldest unlinked file that is not read; the bytes that this frees.
    fn give_up_held(&mut self, index: usize) -> u64 {
        let log = &mut self.logs[index];
        let (kept, committed) = (self.spill.stretches(&log.key), log.ledger.committed());
        let wanted = |file: &&mut Open<Source<E::File>>| is_held(file) && !is_spilled(&kept, file, committed);
        let Some(file) = log.files.iter_mut().find(wanted) else { return 0 };
        let Ok(stat) = file.file.stat() else { return 0 };
        let bytes = file.rest();
        warn!(log = %log.key, bytes, "deleted files hold too much disk space; the oldest of the largest backlog is given up");
        file.file = Source::Closed(stat);
        file.unlinked_since = None;
        log.given_up.push((file.ordinal, file.offset..file.size));
        log.lose(Loss::HeldFull, bytes);
        stat.size
    }
}

/// True when a deleted file is there for our descriptor alone.
fn is_held<F>(file: &Open<Source<F>>) -> bool {
    file.unlinked_since.is_some() && file.file.is_file()
}

/// True when all that is still needed of a file was spilled.
fn is_spilled<F>(kept: &[Stretch], file: &Open<F>, committed: Position) -> bool {
    covered(kept, file.ordinal, needed(file, committed), |stretch| stretch.end) >= file.size
}

/// The position behind a file's last byte.
fn end_of<F>(file: &Open<F>) -> Position {
    Position { generation: file.generation, ordinal: file.ordinal, offset: file.size, ..Position::default() }
}

/// From where on a file is still needed.
fn needed<F>(file: &Open<F>, committed: Position) -> u64 {
    if file.ordinal == committed.ordinal { committed.offset } else { 0 }
}

/// How far a file is kept without a hole from `need` on; a failed sync may have left one.
fn covered(kept: &[Stretch], ordinal: u64, need: u64, end: impl Fn(&Stretch) -> u64) -> u64 {
    let of_file = kept.iter().filter(|stretch| stretch.ordinal == ordinal);
    of_file.fold(need, |at, stretch| if stretch.start <= at { at.max(end(stretch)) } else { at })
}

/// The first line that begins at or behind `from`.
fn line_start<F: LogFile>(file: &F, from: u64) -> u64 {
    if from == 0 {
        return 0;
    }
    let mut chunk = Vec::new();
    match file.read_at(from - 1, CHUNK as usize, &mut chunk) {
        Ok(_) => memchr::memchr(b'\n', &chunk).map_or(from, |end| from + end as u64),
        Err(_) => from,
    }
}
