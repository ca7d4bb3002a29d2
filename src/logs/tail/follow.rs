//! What becomes of files: growth, rotation, truncation, the end.
//!
//! Called on each tick for each log. Sets how much there is to read; reading itself is in `read`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::{DIR_CHECK, GONE_GRACE, Tail};
use crate::data::position::{Position, Skipping};
use crate::logs::chain::{self, Open, Which};
use crate::logs::env::{Env, LogFile};
use crate::logs::frame;
use crate::logs::ingest::LineState;
use crate::metrics;

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
        metrics::LOGS_OPEN.set(self.logs.len() as i64);
        metrics::LOG_LAG_BYTES.set(lag as i64);
        metrics::BUDGET_HELD_BYTES.set(self.budget.held() as i64);
    }

    fn look_at(&mut self, index: usize, now: Duration, wall: u64) {
        let log = &mut self.logs[index];
        log.waiting = false;
        let before = log.lag();
        for file in &mut log.files {
            if let Ok(stat) = file.file.stat() {
                file.size = stat.size;
                let _ = file.learn_head();
            }
        }
        let truncated = log.files.front().is_some_and(|front| front.size < front.offset);
        if truncated {
            self.truncated(index);
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
            log.next_check = now + DIR_CHECK;
            self.check_rotation(index, now, wall);
        }
        self.advance(index);
        if self.logs[index].lag() == 0 && self.logs[index].lines.pinned().is_some() {
            self.close_open_lines(index, wall);
        }
    }

    /// copytruncate, or a log cut by hand: the file is read from its start, as a new generation.
    fn truncated(&mut self, index: usize) {
        metrics::LOG_TRUNCATIONS.inc();
        let log = &mut self.logs[index];
        warn!(log = %log.key, "log was truncated; what was written between the last read and the cut is lost");
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        log.lines.finish(&self.settings, &log.workload, &mut arena, 0, &mut records);
        log.lines = LineState::new(self.settings.max_line);
        log.lines.set_first_time(self.env.unix_nano());
        let front = &mut log.files[0];
        front.offset = 0;
        front.generation.head = 0;
        let _ = front.learn_head();
        log.carried = None;
        self.seal(index, arena, records, 0);
    }

    fn check_rotation(&mut self, index: usize, now: Duration, wall: u64) {
        let log = &mut self.logs[index];
        let Some(newest) = log.files.back() else { return };
        if let Some(dir) = log.live.parent()
            && let Ok(modified) = self.env.modified(dir)
        {
            // A change within the granularity of file times may hide behind an equal stamp.
            let settled = wall.saturating_sub(modified) > 100_000_000;
            if modified == log.dir_modified && settled && log.gone_since.is_none() {
                // docker rotates behind a link, in another directory.
                if !log.linked {
                    return;
                }
            } else if modified != log.dir_modified {
                log.dir_modified = modified;
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
                {
                    self.truncated(index);
                }
            }
            Ok(_) => {
                log.gone_since = None;
                self.follow_rotation(index);
            }
            Err(_) => {
                log.gone_since.get_or_insert(now);
            }
        }
    }

    /// Another file has the live name: appends it and whatever came between.
    fn follow_rotation(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let open = |which| chain::open_all(&self.env, &log.live, log.linked, which).ok();
        let Some(mut found) = open(Which::Plain) else {
            // Overtaken by a further rotation: the next look must not take the directory for unchanged.
            log.dir_modified = 0;
            return;
        };
        let newest = log.files.back().map(|file| file.generation);
        let place = |found: &VecDeque<Open<E::File>>| {
            let newest = newest?;
            found.iter().rposition(|file| chain::same_generation(&file.generation, &newest))
        };
        let mut at = place(&found);
        // Compressed already: the agent was held up over several rotations. What came between may be, too.
        if at.is_none()
            && let Some(all) = open(Which::All)
        {
            found = all;
            at = place(&found);
        }
        // What is older than the newest known file has been read or is being read.
        let after = at.map_or(0, |at| at + 1);
        for file in found.into_iter().skip(after) {
            if !log.files.iter().any(|known| chain::same_generation(&known.generation, &file.generation)) {
                metrics::LOG_ROTATIONS.inc();
                log.files.push_back(file);
            }
        }
    }

    /// Moves on to the next generation once the first one is read to its end and stays there.
    fn advance(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let next_begun = log.files.iter().skip(1).any(|file| file.size > 0);
        let Some(front) = log.files.front_mut() else { return };
        if !next_begun || front.unread() > 0 {
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
        let rest = front.rest();
        let mut taken = 0;
        if rest > 0 {
            // A torn last line whose newline will not come any more.
            let max = rest.min(self.settings.max_line as u64 + frame::MAX_HEADER as u64) as usize;
            let _ = front.file.read_at(front.offset, max, &mut arena);
            taken = rest;
            let offset = front.offset;
            log.lines.take_torn(&self.settings, &log.workload, &mut arena, offset, &mut records);
            log.files[0].offset += rest;
        }
        let decided = log.decided();
        log.lines.next_generation(&self.settings, &mut arena, &mut records);
        log.carried = if log.lines.carries() { log.carried.or(decided) } else { None };
        if let Some(old) = log.files.pop_front() {
            let start =
                Position { generation: old.generation, offset: old.offset, skipping: Skipping::default() };
            self.seal_from(index, start, arena, records, taken);
        }
    }

    /// Forgets logs whose files are gone, once all of them is read, given out and settled.
    fn forget_gone(&mut self, now: Duration) {
        let mut index = 0;
        while index < self.logs.len() {
            let log = &self.logs[index];
            let gone = log.gone_since.is_some_and(|since| now >= since + GONE_GRACE) && log.files.len() == 1;
            if !gone || log.unread() > 0 {
                index += 1;
                continue;
            }
            if !log.finished {
                self.finish(index);
                self.ship();
            }
            let log = &self.logs[index];
            if log.ledger.has_in_flight() {
                index += 1;
                continue;
            }
            let log = self.logs.swap_remove(index);
            self.by_key.remove(&log.key);
            self.registry.remove(&log.key);
            if let Some(moved) = self.logs.get(index) {
                self.by_key.insert(Arc::clone(&moved.key), index);
            }
            self.order_stale = true;
        }
    }

    /// Gives out a gone log's last words.
    fn finish(&mut self, index: usize) {
        let log = &mut self.logs[index];
        log.finished = true;
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        let front = &mut log.files[0];
        let rest = front.rest();
        let offset = front.offset;
        if rest > 0 {
            let max = rest.min(self.settings.max_line as u64 + frame::MAX_HEADER as u64) as usize;
            let _ = front.file.read_at(offset, max, &mut arena);
            front.offset += rest;
        }
        log.lines.finish(&self.settings, &log.workload, &mut arena, offset, &mut records);
        self.seal(index, arena, records, rest);
    }

    fn close_open_lines(&mut self, index: usize, wall: u64) {
        let log = &mut self.logs[index];
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        if log.ended && log.files.len() == 1 && log.unread() == 0 {
            let offset = log.files[0].offset;
            log.lines.finish(&self.settings, &log.workload, &mut arena, offset, &mut records);
        } else {
            let dropped = log.lines.close_idle(&self.settings, &log.workload, wall, &mut arena, &mut records);
            if dropped > 0 {
                log.ledger.count_dropped(dropped);
            }
        }
        self.seal(index, arena, records, 0);
    }
}
