//! Living with few file descriptors: logs that are read to their end are closed and only looked at by name.
//!
//! A parked log keeps its place, its lines' state and its ledger; its file is found again by identity when the name
//! shows that something has happened. So any number of logs can be followed with any number of descriptors, as long
//! as not all of them write at once.

use std::collections::VecDeque;
use std::time::Duration;

use tracing::warn;

use super::Tail;
use super::log::Log;
use crate::data::position::{Position, Skipping};
use crate::logs::chain::{Open, Which};
use crate::logs::checkpoint::Mark;
use crate::logs::env::{Env, LogFile, OpenError};
use crate::logs::source::Source;
use crate::metrics;

/// Fewer logs are never kept open.
const FEWEST: usize = 8;
/// How long a want of descriptors is remembered before twice as many are tried.
const FORGIVEN_AFTER: Duration = Duration::from_secs(2);

impl<F: LogFile> Log<F> {
    /// True when nothing of the log needs its descriptor now, and no line of it waits for others or for time.
    fn is_idle(&self) -> bool {
        self.behind.is_empty()
            && self.files.len() == 1
            && self.gone_since.is_none()
            && self.files[0].file.is_file()
            && self.files[0].unread() == 0
            && self.files[0].unlinked_since.is_none()
            && self.lines.pinned().is_none()
            && !self.lines.carries()
            && !self.has_last_words()
    }

    /// The container has ended and something of its log is still to be told.
    fn has_last_words(&self) -> bool {
        let told = self.last_words_told;
        self.ending && !(self.ended && told) || self.exit.is_some() && !told
    }

    fn is_parked(&self) -> bool {
        matches!(self.files.front(), Some(Open { file: Source::Parked(_), .. }))
    }
}

impl<E: Env> Tail<E> {
    /// Files that are open.
    fn descriptors(&self) -> usize {
        let held = self.pending.values().filter_map(|waiting| waiting.plan.as_ref());
        let held: usize = held.map(|plan| plan.files.iter().filter(|file| file.file.is_file()).count()).sum();
        self.logs.iter().map(Log::descriptors).sum::<usize>() + held
    }

    /// Closes idle logs until another file may be opened. False when none is idle.
    pub(super) fn make_room(&mut self) -> bool {
        let mut open = self.descriptors();
        while open >= self.options.max_open.min(self.open_limit.0).max(FEWEST) {
            // The one that has been quiet for longest will be missed least.
            let idle = self.logs.iter_mut().filter(|log| log.is_idle()).min_by_key(|log| log.last_growth);
            let Some(log) = idle else { return false };
            let front = &mut log.files[0];
            let Ok(stat) = front.file.stat() else { return false };
            if stat.size != front.size {
                front.size = stat.size;
                continue;
            }
            front.file = Source::Parked(stat);
            open -= 1;
        }
        true
    }

    /// The system has no descriptor left: from now on fewer logs are kept open.
    pub(super) fn out_of_descriptors(&mut self, error: &OpenError, now: Duration) -> bool {
        let OpenError::Io(error) = error else { return false };
        // EMFILE and ENFILE.
        if !matches!(error.raw_os_error(), Some(23 | 24)) {
            return false;
        }
        let open = self.descriptors();
        let first = self.open_limit.0 == usize::MAX;
        self.open_limit = (open.saturating_sub(2).max(FEWEST), now);
        if !first {
            return true;
        }
        warn!(
            kept_open = self.open_limit.0,
            "no file descriptor is left; quiet logs are closed and looked at by name (raise the limit of open files)"
        );
        true
    }

    /// Tries with more open files again after a while without want of descriptors.
    pub(super) fn forgive(&mut self, now: Duration) {
        let (limit, taught) = self.open_limit;
        if limit < self.options.max_open && now >= taught + FORGIVEN_AFTER {
            self.open_limit = (limit.saturating_mul(2), now);
        }
    }

    /// Looks at a parked log by name, and takes it up again when something has happened. True while it is parked.
    pub(super) fn look_at_parked(&mut self, index: usize, now: Duration) -> bool {
        let log = &self.logs[index];
        if !log.is_parked() {
            return false;
        }
        let front = &log.files[0];
        let known = (front.generation.device, front.generation.inode);
        let size = front.size;
        // The end of a container that was restarted is found with its file open.
        let ends = log.has_last_words();
        match self.env.identity(&log.live) {
            Ok(found) => {
                let log = &mut self.logs[index];
                // It was missing in the middle of a rotation only.
                log.gone_since = None;
                if found == known && !ends && self.env.size(&log.live).is_ok_and(|now| now == size) {
                    return true;
                }
            }
            Err(_) if self.is_renamed(index) => return true,
            Err(_) => {
                self.logs[index].gone_since.get_or_insert(now);
                return true;
            }
        }
        if !self.make_room() {
            return true;
        }
        self.unpark(index, now);
        self.logs[index].is_parked()
    }

    fn unpark(&mut self, index: usize, now: Duration) {
        let log = &self.logs[index];
        let front = &log.files[0];
        let position = Position {
            generation: front.generation,
            ordinal: front.ordinal,
            offset: front.offset,
            skipping: Skipping::default(),
        };
        let mark = Mark { position, ..Mark::default() };
        let plan = match self.plan(&log.live, log.naming(), Which::Plain, Vec::new(), Some(&mark)) {
            Ok(plan) => plan,
            Err(error) => {
                self.out_of_descriptors(&error, now);
                return;
            }
        };
        let log = &mut self.logs[index];
        if plan.truncated {
            metrics::LOG_TRUNCATIONS.inc();
        }
        let mut files: VecDeque<_> = plan.files;
        if plan.resumed
            && let Some(first) = files.front_mut()
        {
            first.torn_at = log.files[0].torn_at;
            first.glimpse = log.files[0].glimpse;
        }
        log.files = files;
        log.dir_modified = 0;
        self.remember_files(index);
    }
}
