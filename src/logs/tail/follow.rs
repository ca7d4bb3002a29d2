//! What becomes of files: growth, rotation, truncation, the end.
//!
//! Called on each tick for each log. Sets how much there is to read; reading itself is in `read`.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::log::{Log, file_name};
use super::{BUSY_FOR, DIR_CHECK, DIR_CHECK_BUSY, GONE_GRACE, Tail};
use crate::data::account::Sums;
use crate::data::delivery::Loss;
use crate::data::position::{Position, Skipping};
use crate::logs::chain::{self, Glimpse, Open, Which};
use crate::logs::checkpoint::Seen;
use crate::logs::env::{Env, LogFile};
use crate::logs::files::naming::Naming;
use crate::logs::frame;
use crate::logs::notice::{self, Gap};
use crate::logs::registry::BACKLOG;
use crate::logs::resume::Missing;
use crate::logs::source::Source;
use crate::metrics;

/// How often the checkpoint is told the sizes of files with a backlog.
const REMEMBER: Duration = Duration::from_secs(1);
/// How long reads of a deleted file may fail before it is given up.
const FAILING_GRACE: Duration = Duration::from_secs(60);
/// How often the same, for the end of a file.
const END_TRIES: u8 = 100;

impl<F> Log<F> {
    /// Counts a failure to read a file's end. False when it has failed too often.
    fn may_try_again(&mut self) -> bool {
        metrics::LOG_READ_ERRORS.inc();
        self.end_errors = self.end_errors.saturating_add(1);
        self.end_errors < END_TRIES
    }
}

impl<E: Env> Tail<E> {
    /// Looks at every log for what has changed since the last tick.
    pub(super) fn look(&mut self, now: Duration) {
        let wall = self.env.unix_nano();
        let mut lag = 0;
        for index in 0..self.logs.len() {
            if !self.logs[index].may_sleep(now) || self.even_tick {
                self.look_at(index, now, wall);
            }
            lag += self.logs[index].lag();
        }
        self.forget_gone(now);
        let open = self.logs.iter().filter(|log| log.descriptors() > 0).count();
        metrics::LOGS_PARKED.set((self.logs.len() - open) as i64);
        metrics::LOGS_WAITING.set(self.pending.len() as i64);
        metrics::LOGS_OPEN.set(self.logs.len() as i64);
        metrics::LOG_LAG_BYTES.set(lag as i64);
        metrics::BUDGET_HELD_BYTES.set(self.budget.held() as i64);
    }

    fn look_at(&mut self, index: usize, now: Duration, wall: u64) {
        if self.look_at_parked(index, now) {
            return;
        }
        let log = &mut self.logs[index];
        log.waiting = false;
        self.take_later_copy(index);
        let log = &mut self.logs[index];
        let before = log.lag();
        let front_before = log.files.front().map_or(0, |front| front.size);
        let mut failing = false;
        for file in log.all_files_mut() {
            match file.file.stat() {
                Ok(stat) => {
                    file.size = stat.size;
                    let _ = file.learn_head();
                    if stat.links == 0 {
                        file.unlinked_since.get_or_insert(now);
                    }
                }
                Err(_) => failing = true,
            }
        }
        // A failed read hides what is unread until sizes are known again; until then no end is an end.
        log.failing = failing || log.failing && log.files.front().is_some_and(|front| front.unread() > 0);
        let truncated = log.files.front().is_some_and(|front| front.size < front.offset);
        if truncated && !self.take_copy(index, front_before) {
            self.truncated(index, front_before);
        }
        let log = &mut self.logs[index];
        let grows = log.lag() > before;
        // Who was growing and has stopped may have been rotated.
        let stopped = log.grew && !grows;
        log.grew = grows;
        if grows {
            log.last_growth = now;
        }
        if stopped || now >= log.next_check {
            let busy = now < log.last_growth + BUSY_FOR;
            log.next_check = now + if busy { DIR_CHECK_BUSY } else { DIR_CHECK };
            let certain = self.check_rotation(index, now, wall);
            let log = &mut self.logs[index];
            log.ended |= certain && log.ending;
        }
        if self.logs[index].excluded.is_some() {
            self.pass_over(index, false, now);
        }
        self.advance(index, now);
        let (log, lines) = (&self.logs[index], &self.logs[index].lines);
        // A look that failed hides the rest of a line.
        if log.lag() == 0 && !log.failing && (lines.pinned().is_some() || lines.carries()) {
            self.close_open_lines(index, now, wall);
        }
        if !self.logs[index].last_words_told {
            self.tell_end(index, now);
        }
        self.save_told(index);
        let log = &self.logs[index];
        if log.remembered + REMEMBER <= now && (log.lag() > BACKLOG || log.files.len() > 1) {
            self.logs[index].remembered = now;
            self.remember_files(index);
        }
        let log = &self.logs[index];
        log.sight.look(now, log.sight());
        if log.gone_since.is_some() {
            log.sight.set_gone();
        }
    }

    /// copytruncate, or a log cut by hand: the file is read from its start, as a new generation.
    pub(super) fn truncated(&mut self, index: usize, size_before: u64) {
        metrics::LOG_TRUNCATIONS.inc();
        let log = &mut self.logs[index];
        let written = size_before.max(log.files[0].offset);
        let last_time = log.lines.last_time();
        log.written_before += written as i64;
        let lost = written - log.files[0].offset;
        if lost > 0 {
            log.lose(Loss::Truncated, lost);
        }
        warn!(log = %log.key, "log was truncated; what was written between the last read and the cut is lost");
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        log.lines.finish(&self.settings, &log.workload, &mut arena, 0, &mut records);
        self.hand_over(index, &arena);
        self.logs[index].lines.drop_held(&self.settings);
        self.count_processed(index);
        let log = &mut self.logs[index];
        log.begin_lines(&self.settings);
        log.lines.set_first_time(self.env.unix_nano());
        for file in &mut log.files {
            file.ordinal += 1;
        }
        log.renumber_counting();
        let front = &mut log.files[0];
        front.offset = 0;
        front.torn_at = 0;
        front.glimpse = Glimpse::default();
        front.generation.head = 0;
        let _ = front.learn_head();
        log.carried = None;
        if lost > 0 {
            let file = file_name(&log.files[0].generation);
            let gap = Gap { reason: Loss::Truncated, file: &file, bytes: Some(lost), from: None, to: None };
            records.push(notice::gap(&mut arena, &gap, last_time, 0));
        }
        self.seal(index, arena, records, 0);
    }

    /// Looks whether another file has the live name. False when that cannot be told now.
    pub(super) fn check_rotation(&mut self, index: usize, now: Duration, wall: u64) -> bool {
        let log = &mut self.logs[index];
        let Some(newest) = log.files.back() else { return true };
        if let Some(dir) = log.live.parent()
            && let Ok(modified) = self.env.modified(dir)
        {
            if modified == log.dir_modified && log.gone_since.is_none() {
                // docker rotates behind a link, in another directory.
                if !log.linked {
                    return true;
                }
            } else if modified != log.dir_modified {
                // A further change within the granularity of file times would hide behind an equal stamp: a fresh one
                // is not believed yet.
                let settled = wall.saturating_sub(modified) > 100_000_000;
                log.dir_modified = if settled { modified } else { 0 };
                // A restart of the container appears in this directory too.
                self.next_discovery = self.next_discovery.min(now);
            }
        }
        match self.env.identity(&log.live) {
            Ok((device, inode)) if (device, inode) == (newest.generation.device, newest.generation.inode) => {
                log.gone_since = None;
                if log.files.len() == 1
                    && log.files[0].offset > 0
                    && log.files[0].unread() > 0
                    && log.files[0].head_changed()
                    && !self.take_copy(index, 0)
                {
                    // It has grown beyond its old size meanwhile: how much is lost cannot be told.
                    self.truncated(index, 0);
                }
                true
            }
            Ok(_) => {
                log.gone_since = None;
                self.follow_rotation(index)
            }
            Err(_) => {
                if !self.is_renamed(index) {
                    self.logs[index].gone_since.get_or_insert(now);
                }
                true
            }
        }
    }

    /// Another file has the live name: appends it and whatever came between.
    fn follow_rotation(&mut self, index: usize) -> bool {
        let log = &self.logs[index];
        let newer = self.newer_files(&log.live, log.naming(), &log.files);
        let log = &mut self.logs[index];
        let Some(newer) = newer else {
            // Overtaken by a further rotation: the next look must not take the directory for unchanged.
            log.dir_modified = 0;
            return false;
        };
        let found_new = !newer.is_empty();
        log.files.extend(newer);
        if found_new {
            self.remember_files(index);
        }
        true
    }

    /// What has come behind the files that are known of a log, oldest first. `None` when that cannot be told now.
    pub(super) fn newer_files(
        &self,
        live: &Path,
        naming: Naming,
        known: &VecDeque<Open<Source<E::File>>>,
    ) -> Option<Vec<Open<Source<E::File>>>> {
        let open = |which| chain::open_all(&self.env, live, naming, which).ok();
        let mut found = open(Which::Plain)?;
        let newest = known.back();
        let place = |found: &VecDeque<Open<E::File>>| {
            let newest = newest?;
            chain::place(newest, newest.file.is_file(), found)
        };
        let mut at = place(&found);
        // Compressed already: the agent was held up over several rotations. What came between may be, too.
        if at.is_none() {
            found = open(Which::All)?;
            at = place(&found);
        }
        // What is older than the newest known file has been read or is being read.
        let after = at.map_or(0, |at| at + 1);
        // Without its predecessor among them, nobody knows what else came and went.
        let mut missing = at.is_none().then_some(Missing { bytes: 0, exact: false });
        let mut ordinal = newest.map_or(0, |newest| newest.ordinal);
        let mut newer = Vec::new();
        for file in found.into_iter().skip(after) {
            if !known.iter().chain(&newer).any(|known| is_known(known, &file, at.is_some())) {
                metrics::LOG_ROTATIONS.inc();
                ordinal += 1;
                let mut file = file.map(Source::File);
                file.ordinal = ordinal;
                file.missing_before = missing.take();
                newer.push(file);
            }
        }
        Some(newer)
    }

    /// Tells the checkpoint which files the log has.
    pub(super) fn remember_files(&mut self, index: usize) {
        let log = &self.logs[index];
        let seen =
            |file: &Open<_>| Seen { generation: file.generation, ordinal: file.ordinal, size: file.size };
        let files = log.all_files().map(seen).collect();
        self.registry.set_files(&log.key, files);
    }

    /// Moves on to the next generation once the first one is read to its end and stays there.
    fn advance(&mut self, index: usize, now: Duration) {
        let log = &mut self.logs[index];
        // Of a container that has ended nothing will be written to the next file if nothing is there.
        let over = log.ended || log.gone_since.is_some_and(|since| now >= since + GONE_GRACE);
        let next_begun = log.files.iter().skip(1).any(|file| file.size > 0 || over);
        let Some(front) = log.files.front_mut() else { return };
        if !next_begun || front.unread() > 0 || log.failing {
            front.ends_seen = 0;
            return;
        }
        // The writer may hold the old file for a moment after the rename: its end counts when seen three times.
        front.ends_seen += 1;
        if front.ends_seen > 2 {
            self.begin_next_generation(index);
        } else {
            self.end_check = true;
        }
    }

    fn begin_next_generation(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let front = &log.files[0];
        let (rest, offset) = (front.rest(), front.offset);
        let mut taken = 0;
        if rest > 0 {
            // A torn last line whose newline will not come any more.
            let max = rest.min(self.settings.max_line as u64 + frame::MAX_HEADER as u64) as usize;
            if front.file.read_at(offset, max, &mut arena).is_err() && log.may_try_again() {
                return;
            }
            taken = rest;
            log.lines.take_torn(&self.settings, &log.workload, &mut arena, offset, &mut records);
            log.files[0].offset += rest;
        }
        let decided = log.decided();
        log.carry_counting();
        log.lines.next_generation(&self.settings, &mut arena, &mut records);
        log.keep_carried();
        log.carried = if log.lines.carries() { log.carried.or(decided) } else { None };
        if let Some(old) = log.files.pop_front() {
            let start = Position {
                generation: old.generation,
                ordinal: old.ordinal,
                offset: old.offset,
                skipping: Skipping::default(),
            };
            log.written_before += old.size as i64;
            log.largest = if old.size > log.largest / 2 { old.size } else { log.largest };
            log.behind.push_back(old);
            self.seal_from(index, start, arena, records, taken);
            self.remember_files(index);
            self.reconcile(index);
        }
    }

    /// Holds what was written against what became of it.
    fn reconcile(&mut self, index: usize) {
        // What is sealed must be in the ledger.
        self.ship();
        let log = &self.logs[index];
        log.sight.look(self.env.now(), log.sight());
        log.sight.set_unexplained(Sums::of(&log.ledger, &log.sight).remainder());
    }

    /// Forgets logs whose files are gone, once all of them is read, given out and settled.
    fn forget_gone(&mut self, now: Duration) {
        let mut index = 0;
        while index < self.logs.len() {
            let log = &self.logs[index];
            let gone = log.gone_since.is_some_and(|since| now >= since + GONE_GRACE) && log.files.len() == 1;
            // A failed read hides what is unread until the next look.
            let hidden = log.failing && log.gone_since.is_some_and(|since| now < since + FAILING_GRACE);
            if !gone || log.unread() > 0 || log.counts_behind() || hidden {
                index += 1;
                continue;
            }
            if !log.finished {
                self.finish(index, now);
                self.ship();
            }
            let log = &self.logs[index];
            if !log.finished || log.ledger.has_in_flight() {
                index += 1;
                continue;
            }
            self.reconcile(index);
            let log = self.logs.swap_remove(index);
            if let Some(tap) = &mut self.tap {
                tap.lag(&log.key, &log.workload, 0);
            }
            self.by_key.remove(&log.key);
            self.delivered.insert(Arc::clone(&log.key));
            self.registry.remove(&log.key);
            if let Some(moved) = self.logs.get(index) {
                self.by_key.insert(Arc::clone(&moved.key), index);
            }
            self.order_stale = true;
        }
    }

    /// Gives out a gone log's last words.
    fn finish(&mut self, index: usize, now: Duration) {
        self.pass_over(index, true, now);
        let log = &mut self.logs[index];
        log.finished = true;
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let front = &log.files[0];
        let rest = front.rest();
        let offset = front.offset;
        if rest > 0 {
            let max = rest.min(self.settings.max_line as u64 + frame::MAX_HEADER as u64) as usize;
            if front.file.read_at(offset, max, &mut arena).is_err() && log.may_try_again() {
                log.finished = false;
                return;
            }
            log.files[0].offset += rest;
        }
        log.lines.finish(&self.settings, &log.workload, &mut arena, offset, &mut records);
        log.lines.drop_held(&self.settings);
        self.seal(index, arena, records, rest);
    }

    fn close_open_lines(&mut self, index: usize, now: Duration, wall: u64) {
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        if log.is_over(now) && log.files.len() == 1 && log.unread() == 0 {
            let offset = log.files[0].offset;
            log.lines.finish(&self.settings, &log.workload, &mut arena, offset, &mut records);
        } else {
            log.lines.close_idle(&self.settings, &log.workload, wall, &mut arena, &mut records);
        }
        self.seal(index, arena, records, 0);
    }
}

/// True when a file that was found is one that the log has.
fn is_known<F: LogFile>(known: &Open<Source<F>>, found: &Open<F>, placed: bool) -> bool {
    let held = known.file.is_file();
    if placed && known.naming == Naming::Logrotate {
        // It stands behind the newest known one; that it begins alike says nothing.
        return held && chain::same_file(&known.generation, &found.generation);
    }
    chain::is_known(known, held, found)
}
