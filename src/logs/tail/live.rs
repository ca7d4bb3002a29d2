//! What may change under a followed log: how its lines are handled, whether it is shipped at all, and that its
//! container has ended.
//!
//! Annotations are live, labels are not. A log that is switched off is read no further: its position moves with the end
//! of its files, and what is passed over is counted as `excluded`, so that its account balances. Switched on again it
//! goes on at the end of that moment. Positions stay on whole lines all the while.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::log::Log;
use super::{GONE_GRACE, Tail};
use crate::data::position::{Position, Skipping};
use crate::data::tally::{Dropping, Drops};
use crate::data::workload::Handling;
use crate::logs::annotated::Annotated;
use crate::logs::chain::{Glimpse, Open};
use crate::logs::env::{Env, LogFile};
use crate::logs::ingest::Settings;
use crate::logs::multiline::Mode;
use crate::logs::notice::{self, End};

/// How long the last words of a container wait for the word on how it ended. The kubelet tells within a second or two.
const EXIT_WAIT: Duration = Duration::from_secs(10);

/// How far before its end the last whole line of a file is looked for.
const LINE_REACH: u64 = 64 << 10;

/// Up to where a log is passed over: an ordinal, and the offset in that file.
pub(super) type Until = (u64, u64);

/// Wherever the log ends.
const FOR_NOW: Until = (u64::MAX, 0);

impl<F> Log<F> {
    /// The state of lines at the beginning of a log or behind a cut.
    pub(super) fn begin_lines(&mut self, settings: &Settings) {
        let found = self.lines.requests().map(std::mem::take);
        self.lines = self.lines.anew(settings.max_line).with_requests(found);
        if *self.handling != Handling::default() {
            self.handle_lines(settings, &Handling::default());
        }
    }

    /// Brings the state of lines up to date with how they are handled now.
    fn handle_lines(&mut self, settings: &Settings, before: &Handling) {
        self.lines.set_annotated(Annotated::of(&self.handling));
        // What masks the log looks at lines as they are handled now.
        self.masking = None;
        if self.handling.recorder != Some(true) && before.recorder == Some(true) {
            self.lines.drop_held(settings);
        }
        if self.handling.multiline == before.multiline {
            return;
        }
        let named = self.handling.multiline.as_deref().map(str::parse::<Mode>);
        let mode = match named {
            Some(Ok(mode)) => mode,
            Some(Err(error)) => {
                warn!(log = %self.key, error, "annotation multiline is not understood; lines are joined as configured");
                settings.multiline.for_workload(&self.workload)
            }
            None => settings.multiline.for_workload(&self.workload),
        };
        self.lines.set_multiline(mode);
    }
}

impl<E: Env> Tail<E> {
    /// Asks anew what is known of the followed logs, once anything has changed.
    pub(super) fn follow_changes(&mut self, now: Duration) {
        let version = self.identify.version();
        if self.identified == Some(version) {
            return;
        }
        self.identified = Some(version);
        if !self.pending.is_empty() || self.registry.has_excluded() {
            self.next_discovery = self.next_discovery.min(now);
        }
        for index in 0..self.logs.len() {
            let log = &mut self.logs[index];
            let container = &log.workload.container;
            if !log.last_words_told && log.exit.is_none() {
                log.exit = self.identify.exit(container, now);
            }
            if let Some(handling) = self.identify.handling(container, now)
                && *handling != *log.handling
            {
                self.handle(index, handling, now);
            }
        }
    }

    fn handle(&mut self, index: usize, handling: Arc<Handling>, now: Duration) {
        let log = &mut self.logs[index];
        let before = std::mem::replace(&mut log.handling, handling);
        log.handle_lines(&self.settings, &before);
        self.count_processed(index);
        let log = &self.logs[index];
        match (before.off, log.handling.off) {
            (false, true) => self.exclude(index, now),
            (true, false) => self.include(index, now),
            _ => {}
        }
    }

    /// The log is shipped no further.
    pub(super) fn exclude(&mut self, index: usize, now: Duration) {
        let log = &mut self.logs[index];
        info!(log = %log.key, "an annotation switches the log off; it is not read");
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        log.lines.interrupt(&self.settings, &log.workload, &mut arena, &mut records);
        log.carried = None;
        log.excluded = Some(FOR_NOW);
        self.registry.set_excluded(&log.key, true);
        self.seal(index, arena, records, 0);
        self.pass_over(index, false, now);
    }

    /// The log is shipped again, from its present end on.
    fn include(&mut self, index: usize, now: Duration) {
        let log = &mut self.logs[index];
        info!(log = %log.key, "the log is not switched off any more; it is read from its present end");
        // Its end may be in a file that is not known yet.
        log.dir_modified = 0;
        self.check_rotation(index, now, self.env.unix_nano());
        let log = &mut self.logs[index];
        for file in log.all_files_mut() {
            if let Ok(stat) = file.file.stat() {
                file.size = stat.size;
            }
        }
        if log.excluded.is_some() {
            log.excluded = Some((log.newest_ordinal(), log.files.back().map_or(0, |live| live.size)));
        }
        self.pass_over(index, false, now);
    }

    /// Passes over what is there of a log that is not shipped: whole lines of the live file, everything of others and
    /// at the `last` look.
    pub(super) fn pass_over(&mut self, index: usize, last: bool, now: Duration) {
        let log = &mut self.logs[index];
        let Some((ordinal, until)) = log.excluded else { return };
        let is_live = log.files.len() == 1 && !last;
        let Some(front) = log.files.front_mut() else { return };
        let (from, at) = (front.offset, front.ordinal);
        let end = match at.cmp(&ordinal) {
            Ordering::Less => front.size.max(from),
            Ordering::Equal => until.clamp(from, front.size.max(from)),
            Ordering::Greater => from,
        };
        let end = if is_live { line_end(front, from, end) } else { end };
        if at >= ordinal {
            log.excluded = None;
            self.registry.set_excluded(&log.key, false);
        }
        if end == from {
            front.torn_at = if front.size > from && log.excluded.is_some() { front.size } else { 0 };
            return;
        }
        let start = Position {
            generation: front.generation,
            ordinal: at,
            offset: from,
            skipping: Skipping::default(),
        };
        front.offset = end;
        front.torn_at = if front.size > end && log.excluded.is_some() { front.size } else { 0 };
        front.glimpse = Glimpse::default();
        front.missing_before = None;
        // What was given up before is counted as lost.
        let mut given_up = 0;
        for (_, range) in log.given_up.iter_mut().filter(|(of, _)| *of == at) {
            given_up += range.end.min(end).saturating_sub(range.start.max(from));
            range.start = range.start.max(end);
        }
        log.given_up.retain(|(_, range)| range.start < range.end);
        let bytes = (end - from).saturating_sub(given_up);
        let mut drops = Drops::default();
        drops[Dropping::Excluded as usize].bytes = bytes;
        log.ledger.count_dropped(&drops);
        self.seal_from(index, start, Vec::new(), Vec::new(), bytes);
        let log = &self.logs[index];
        log.sight.look(now, log.sight());
    }

    /// Tells the last words of a container that ended badly, or was restarted and nobody knows how it ended, once all
    /// of its log is read.
    pub(super) fn tell_end(&mut self, index: usize, now: Duration) {
        let log = &mut self.logs[index];
        if !log.ended && log.exit.is_none() {
            return;
        }
        // A failed read hides what is unread.
        if log.files.len() > 1 || log.lag() > 0 || log.failing {
            return;
        }
        let since = *log.end_seen.get_or_insert(now);
        if log.exit.is_none() && self.identify.knows_exits() {
            log.exit = self.identify.exit(&log.workload.container, now);
            if log.exit.is_none() && now < since + EXIT_WAIT {
                return;
            }
        }
        if log.exit.as_ref().is_some_and(|exit| !exit.is_good()) && !log.ended {
            // The runtime may still be writing what the container said last.
            let quiet = now >= since + GONE_GRACE && log.is_over(now);
            if !quiet || log.lines.pinned().is_some() || log.lines.carries() {
                return;
            }
        }
        log.last_words_told = true;
        self.settle_held(index);
        let log = &self.logs[index];
        if !self.options.last_words {
            return;
        }
        let end = match &log.exit {
            Some(exit) if exit.is_good() => return,
            Some(exit) => End::Exited(exit),
            None => {
                let restarts = self.logs.iter().filter(|other| other.place == log.place);
                End::Restarted(restarts.map(|other| other.restart).max().unwrap_or(log.restart))
            }
        };
        if log.excluded.is_some() {
            return;
        }
        let Some(front) = log.files.front() else { return };
        let begin = front.offset.saturating_sub(notice::TAIL_BYTES as u64);
        let mut tail = Vec::new();
        if front.file.read_at(begin, notice::TAIL_BYTES, &mut tail).is_err() {
            return;
        }
        let ended = notice::Ended {
            tail: &tail,
            whole: begin == 0,
            end,
            offset: front.offset,
            annotated: log.lines.annotated(),
            fallback_unix_nano: log.lines.last_time(),
        };
        let mut arena = Vec::new();
        let record = notice::last_words(&mut arena, &ended, &self.settings, &log.workload);
        self.seal(index, arena, record.into_iter().collect(), 0);
    }
}

/// The end of the last whole line of a file between `from`, where one begins, and `to`.
fn line_end<F: LogFile>(file: &Open<F>, from: u64, to: u64) -> u64 {
    let begin = from.max(to.saturating_sub(LINE_REACH));
    let mut chunk = Vec::new();
    // What cannot be read is passed over all the same.
    if begin == to || file.file.read_at(begin, (to - begin) as usize, &mut chunk).is_err() {
        return to;
    }
    match memchr::memrchr(b'\n', &chunk) {
        Some(newline) => begin + newline as u64 + 1,
        // A line that is longer than that is not waited for.
        None if begin > from => to,
        None => from,
    }
}
