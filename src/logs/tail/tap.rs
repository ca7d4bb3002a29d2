//! Requests in lines: handed to who counts them, each exactly once, whatever becomes of delivery.
//!
//! Two readers find them. The one that ships lines finds them on its way, at no read of its own. Where it cannot go on
//! (credit is spent, a log of the same stream has the turn) the other one ([`Counter`]) reads ahead of it for requests
//! alone and throws the text away; after a restart it first reads what was shipped and not counted.
//!
//! Invariants. A log is counted up to one position; a line is a request of the side before it or behind it by where it
//! begins. A position is one at which no line is open, or that open line's beginning, so a reader that starts there finds
//! the same lines. The shipping reader never gets ahead of the position: what it reads behind it is handed over with
//! the chunk, what it reads before it was counted by the other one.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tracing::warn;

use super::log::Log;
use super::{CHUNK, Start, Tail};
use crate::data::access::AccessTap;
use crate::data::position::Position;
use crate::logs::chain::{self, Open, same_file};
use crate::logs::checkpoint::Mark;
use crate::logs::count::Counter;
use crate::logs::env::{Env, LogFile};
use crate::logs::files::naming::Naming;
use crate::logs::frame;
use crate::logs::requests::Found;
use crate::logs::source::{Gap, Source};
use crate::metrics;

/// Bytes read ahead in one tick, over all logs.
const AHEAD: u64 = 1 << 20;
/// Bytes read in one step of what was shipped and not counted.
const BEHIND: u64 = 8 << 20;
/// A log whose first bytes, so many of them, held no request is not read ahead.
const BARREN: u64 = 1 << 20;
/// How often a file that is behind may fail to be read.
const TRIES: u8 = 100;
/// How long it is remembered how far a log that is gone is counted. File systems make the removal of a file durable
/// within a minute.
const REMEMBERED: Duration = Duration::from_secs(600);
/// So many of these at most.
const MAX_ABSENT: usize = 1000;
/// How often the files that shipping has passed are looked for.
const LOOKS: usize = 8;
/// How far before a file's end its last line is looked for.
const NEWEST_REACH: u64 = 16 << 10;

/// How far a log is counted.
pub(super) struct Counting<F> {
    /// Up to here.
    until: Position,
    /// Where the oldest line begins that is open in the shipping reader's framing and began in an earlier file.
    carried: Option<Position>,
    /// Where the shipping reader left the file before.
    left: Option<Position>,
    /// The same as `carried`, to be kept if a line is open when the next file has begun.
    leaving: Option<Position>,
    /// Reads for requests alone, while the shipping reader cannot.
    reader: Option<Box<Counter>>,
    /// Files that were shipped and are not counted, oldest first.
    before: VecDeque<Open<Source<F>>>,
    /// The shipping reader waits until what lies before it is counted.
    behind: bool,
    /// It had no credit since the last tick; it took something since then.
    starved: bool,
    took: bool,
    /// A request was found; bytes without one.
    shown: bool,
    barren: u64,
    errors: u8,
    /// What the tap was told last.
    lag: u64,
}

impl<F: LogFile> Log<F> {
    /// True while lines that were shipped are to be counted first.
    pub(super) fn counts_behind(&self) -> bool {
        self.counting.as_ref().is_some_and(|counting| counting.behind)
    }

    /// It could not be read for want of credit.
    pub(super) fn is_starved(&mut self) {
        if let Some(counting) = &mut self.counting {
            counting.starved = true;
        }
    }

    /// Where the shipping reader stands.
    fn reading_at(&self) -> Option<Position> {
        let front = self.files.front()?;
        Some(Position {
            generation: front.generation,
            ordinal: front.ordinal,
            offset: front.offset,
            ..Position::default()
        })
    }

    /// Up to where the shipping reader has given out every line.
    fn framed_to(&self) -> Option<Position> {
        let carried = self.counting.as_ref().and_then(|counting| counting.carried);
        Some(self.lines.framed_to(self.reading_at()?, carried))
    }

    /// Tells the shipping reader which lines are not counted yet.
    fn arm(&mut self) {
        let Some(counting) = &self.counting else { return };
        let (until, behind) = (counting.until, counting.behind);
        let Some(ordinal) = self.files.front().map(|front| front.ordinal) else { return };
        if let Some(found) = self.lines.requests() {
            if behind { found.disarm() } else { found.arm(ordinal, &until) }
        }
    }

    /// Its file is about to be left.
    pub(super) fn carry_counting(&mut self) {
        let (framed, left) = (self.framed_to(), self.reading_at().map(|at| self.lines.read_to(at)));
        if let Some(counting) = &mut self.counting {
            counting.leaving = framed;
            counting.left = left;
        }
    }

    /// Its file was left.
    pub(super) fn keep_carried(&mut self) {
        let carries = self.lines.framing_carries();
        if let Some(counting) = &mut self.counting {
            counting.carried = counting.leaving.take().filter(|_| carries);
        }
    }

    /// All of its files have the next number: the first one was cut and begins anew.
    pub(super) fn renumber_counting(&mut self) {
        let Some(first) = self.files.front().map(|front| front.ordinal) else { return };
        if let Some(counting) = &mut self.counting {
            if counting.until.ordinal >= first {
                counting.until.ordinal += 1;
            }
            counting.reader = None;
            counting.carried = None;
            if std::mem::take(&mut counting.behind) {
                // What was to be counted first was cut off.
                counting.before.clear();
                counting.until = Position { ordinal: first, ..Position::default() };
                metrics::RED_MISSED.with_label_values(&["truncated"]).inc();
            }
        }
    }
}

/// Logs that are gone. What crashes bring back, a spill whose end was not durable, is counted no second time as long as
/// it is known how far they were.
#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<String, Duration>);

impl Absent {
    /// Lets `tap` forget logs that have been gone for long.
    pub(super) fn forget(&mut self, tap: &mut dyn AccessTap, is_there: impl Fn(&str) -> bool, now: Duration) {
        let before = std::mem::take(&mut self.0);
        let after = RefCell::new(HashMap::new());
        tap.forget(&|key| {
            if is_there(key) {
                return true;
            }
            let since = before.get(key).copied().unwrap_or(now);
            let stays = now < since + REMEMBERED && after.borrow().len() < MAX_ABSENT;
            if stays {
                after.borrow_mut().insert(key.to_owned(), since);
            }
            stays
        });
        self.0 = after.into_inner();
    }
}

impl<E: Env> Tail<E> {
    /// A log of the checkpoint is gone, shipped up to `shipped`.
    pub(super) fn tell_uncounted(&self, key: &str, shipped: &Position) {
        let counted = self.tap.as_ref().and_then(|tap| tap.counted(key));
        if counted.is_some_and(|counted| !counted.covers(shipped)) {
            metrics::RED_MISSED.with_label_values(&["deleted"]).inc();
            warn!(log = %key, "a log that was shipped was deleted before its requests were counted durably; RED may show some too few");
        }
    }

    /// Begins to count a log that is taken up.
    pub(super) fn begin_counting(&mut self, log: &mut Log<E::File>, mark: Option<&Mark>) {
        let Some(tap) = &self.tap else { return };
        let Some(start) = log.framed_to() else { return };
        let mut counting = Counting {
            until: start,
            carried: None,
            left: None,
            leaving: None,
            reader: None,
            before: VecDeque::new(),
            behind: false,
            starved: false,
            took: false,
            shown: false,
            barren: 0,
            errors: 0,
            lag: 0,
        };
        // A log of an earlier life that was begun after the counts were saved; where it began, if not at its beginning,
        // nobody knows.
        let begun_since = || {
            let is_old = mark.is_some_and(|mark| mark.position != Position::default());
            (is_old && tap.is_resumed() && self.options.start == Start::Oldest).then(Position::default)
        };
        let is_off = log.excluded.is_some() || mark.is_some_and(|mark| mark.excluded);
        if let Some(counted) = tap.counted(&log.key).or_else(begun_since).filter(|_| !is_off) {
            // Numbers of files may have changed since; their beginning has not.
            if let Some(ordinal) = ordinal_of(&log.files, &counted, mark.is_none()) {
                counting.until = Position { ordinal, ..counted };
            } else if counted.ordinal > start.ordinal {
                counting.until = behind_gone(&log.files, &counted, mark).unwrap_or(start);
            } else if !start.covers(&counted) {
                // Its file was cut, and the checkpoint says so too.
            } else {
                counting.before = self.files_before(log, &counted);
                if let Some(ordinal) = ordinal_of(&counting.before, &counted, false) {
                    counting.until = Position { ordinal, ..counted };
                } else {
                    let first = counting.before.front().or(log.files.front());
                    if let Some(first) = first {
                        let (generation, ordinal) = (first.generation, first.ordinal);
                        counting.until = Position { generation, ordinal, ..Position::default() };
                    }
                    // Nothing was in the file up to which it was counted, or in the log.
                    let is_new = counted == Position::default();
                    let next = counted.ordinal + u64::from(!is_new);
                    let is_whole = counted.generation.head == 0 && counting.until.ordinal <= next;
                    if !is_whole {
                        metrics::RED_MISSED.with_label_values(&["rotated"]).inc();
                        warn!(log = %log.key, "files that were shipped were deleted before their requests were counted durably; RED may show some too few");
                    }
                }
            }
            counting.behind = !counting.until.covers(&start);
        }
        // It is known from now on, whether it has requests or not.
        if let Some(tap) = &mut self.tap
            && counting.until.generation.head != 0
        {
            tap.count(&log.key, &log.workload, &[], &[], counting.until);
        }
        log.counting = Some(Box::new(counting));
        let lines = std::mem::replace(&mut log.lines, crate::logs::ingest::LineState::new(0));
        log.lines = lines.with_requests(Some(Box::<Found>::default()));
        log.arm();
    }

    /// The files of a log that shipping has passed and counting, which came up to `counted`, perhaps has not, oldest first.
    fn files_before(&self, log: &Log<E::File>, counted: &Position) -> VecDeque<Open<Source<E::File>>> {
        let first = log.files.front().map_or(0, |first| first.ordinal);
        let on_disk = || chain::open_rotated(&self.env, &log.live, log.naming());
        // What cannot be listed or opened now may be in a moment.
        let on_disk = (0..LOOKS).find_map(|_| on_disk().ok()).unwrap_or_default();
        let is_own = |file: &Open<_>| log.files.iter().any(|own| own.begins_as(&file.generation));
        // The oldest is deleted first, so between those that are there and the log's own none is missing.
        let on_disk = on_disk.into_iter().filter(|file| !is_own(file)).rev();
        let mut files: VecDeque<_> = VecDeque::new();
        for (ordinal, file) in (0..first).rev().zip(on_disk) {
            files.push_front(Open { ordinal, ..file.map(Source::File) });
        }
        let oldest = files.front().map_or(first, |oldest| oldest.ordinal);
        let kept = self.spilled(&log.key).into_iter();
        let kept = kept.filter(|file| (counted.ordinal..oldest).contains(&file.ordinal));
        for file in kept.rev() {
            files.push_front(file);
        }
        files
    }

    /// Hands over what the shipping reader has found; the text of it lies in `arena`.
    pub(super) fn hand_over(&mut self, index: usize, arena: &[u8]) {
        let Some(tap) = &mut self.tap else { return };
        let log = &mut self.logs[index];
        let (Some(mut at), Some(reading)) = (log.framed_to(), log.reading_at()) else { return };
        let Some(counting) = &mut log.counting else { return };
        if counting.behind {
            return;
        }
        let Some(found) = log.lines.requests() else { return };
        if found.is_full() {
            at = log.lines.read_to(reading);
        }
        let Some(found) = log.lines.requests() else { return };
        let from = counting.until;
        counting.took = true;
        if from.covers(&at) {
            if !found.is_empty() {
                found.hand_over(&from, &from, arena, |_, _| {});
            }
            // The next file may have begun.
            log.arm();
            return;
        }
        found.hand_over(&from, &at, arena, |requests, text| {
            if requests.is_empty() {
                counting.barren = counting.barren.saturating_add(at.offset.saturating_sub(from.offset));
            } else {
                counting.shown = true;
            }
            tap.count(&log.key, &log.workload, requests, text, lasting(at, counting.left));
        });
        counting.until = at;
        counting.reader = None;
        log.arm();
    }

    /// Hands over what the other reader has found.
    fn hand_over_read(&mut self, index: usize, arena: &[u8]) {
        let Some(tap) = &mut self.tap else { return };
        let log = &mut self.logs[index];
        let Some(counting) = &mut log.counting else { return };
        let Some(reader) = &mut counting.reader else { return };
        let mut at = reader.counted();
        if reader.found().is_full() {
            at = reader.read_to();
        }
        let (from, left) = (counting.until, reader.left);
        if from.covers(&at) {
            reader.found().hand_over(&from, &from, arena, |_, _| {});
            return;
        }
        reader.found().hand_over(&from, &at, arena, |requests, text| {
            if requests.is_empty() {
                counting.barren = counting.barren.saturating_add(at.offset.saturating_sub(from.offset));
            } else {
                counting.shown = true;
            }
            tap.count(&log.key, &log.workload, requests, text, lasting(at, Some(left)));
        });
        counting.until = at;
        log.arm();
    }

    /// Counts what was shipped and not counted. True when there is more of it.
    pub(super) fn count_behind(&mut self) -> bool {
        let mut credit = BEHIND;
        let mut more = false;
        for index in 0..self.logs.len() {
            while credit > 0 && self.logs[index].counts_behind() {
                if !self.count_some(index, &mut credit) {
                    self.end_behind(index);
                }
                self.see_level(index);
            }
            more |= self.logs[index].counts_behind();
        }
        more
    }

    /// The shipping reader may go on once the other one has read up to it.
    fn see_level(&mut self, index: usize) {
        let log = &self.logs[index];
        let Some(start) = log.framed_to() else { return };
        let Some(counting) = &log.counting else { return };
        let read = counting.reader.as_ref().is_some_and(|reader| reader.at.covers(&start));
        if counting.behind && (counting.until.covers(&start) || read) {
            self.end_behind(index);
        }
    }

    /// What lies before the shipping reader is counted, or cannot be.
    fn end_behind(&mut self, index: usize) {
        let log = &mut self.logs[index];
        let Some(start) = log.framed_to() else { return };
        let Some(counting) = &mut log.counting else { return };
        counting.behind = false;
        counting.before.clear();
        if !counting.until.covers(&start)
            && let Some(tap) = &mut self.tap
        {
            // A line that was shipped in two pieces is open across the start, or a file cannot be read.
            let from = std::mem::replace(&mut counting.until, start);
            match counting.reader.take() {
                Some(mut reader) if reader.at.covers(&start) => {
                    reader.found().hand_over(&from, &start, &[], |requests, text| {
                        tap.count(&log.key, &log.workload, requests, text, start);
                    });
                }
                _ => {
                    metrics::RED_MISSED.with_label_values(&["unreadable"]).inc();
                    warn!(log = %log.key, "lines that were shipped cannot be read again for their requests; RED may show some too few");
                    tap.count(&log.key, &log.workload, &[], &[], start);
                }
            }
        }
        log.arm();
    }

    /// Reads ahead where shipping cannot go on, and tells how far counting is behind.
    pub(super) fn count_ahead(&mut self) {
        let mut credit = AHEAD;
        let count = self.logs.len();
        let mut idle = true;
        for turn in 0..count {
            let index = (self.next_ahead + turn) % count;
            let log = &mut self.logs[index];
            let backlog = log.files.len() > 1 || log.files.front().is_some_and(|front| front.unread() > 0);
            let is_ours = log.excluded.is_none() && log.naming() != Naming::Logrotate;
            let Some(counting) = &mut log.counting else { continue };
            let blocked = counting.starved || !counting.took;
            (counting.starved, counting.took) = (false, false);
            if !backlog || !is_ours {
                if counting.lag != 0 {
                    self.tell_lag(index);
                }
                continue;
            }
            if blocked && !counting.behind && (counting.shown || counting.barren < BARREN) {
                idle = false;
                let mut share = (AHEAD / 4).min(credit);
                let before = share;
                while share > 0 && self.count_some(index, &mut share) {}
                credit -= before - share;
            }
            self.tell_lag(index);
        }
        if count > 0 {
            self.next_ahead = (self.next_ahead + 1) % count;
        }
        if idle {
            self.scratch = Vec::new();
        }
    }

    /// Reads a little for requests alone. False when there is nothing more to read of the log now.
    fn count_some(&mut self, index: usize, credit: &mut u64) -> bool {
        let mut arena = std::mem::take(&mut self.scratch);
        let more = self.count_chunk(index, credit, &mut arena);
        arena.clear();
        self.scratch = arena;
        more
    }

    fn count_chunk(&mut self, index: usize, credit: &mut u64, arena: &mut Vec<u8>) -> bool {
        let max_line = self.settings.max_line;
        let read_time = self.env.unix_nano();
        let settings = &self.settings;
        let log = &mut self.logs[index];
        let Some(counting) = log.counting.as_deref_mut() else { return false };
        let Counting { until, reader, before, errors, behind, .. } = counting;
        let framing = log.lines.framing();
        let reader = reader.get_or_insert_with(|| Box::new(Counter::new(*until, max_line, framing)));
        reader.set_read_time(read_time);
        let annotated = log.lines.annotated();
        let at = reader.at;
        arena.clear();
        let mut files = before.iter().chain(&log.behind).chain(&log.files);
        let Some(file) = files.by_ref().find(|file| file.ordinal >= at.ordinal) else { return false };
        if file.ordinal > at.ordinal {
            // Gone: what was open in it will not end.
            reader.skip(settings, annotated, until, arena, at.offset);
            let next = (file.generation, file.ordinal);
            reader.next_file(settings, annotated, until, &mut Vec::new(), next);
            self.hand_over_read(index, arena);
            return true;
        }
        let next = files.find(|next| next.ordinal > at.ordinal);
        let passed = log.files.front().is_some_and(|front| front.ordinal > file.ordinal);
        let rest = file.size.saturating_sub(at.offset);
        let want = rest.min(CHUNK.max((max_line + 4096) as u64).max(frame::MAX_DOCKER as u64 + 4096));
        if want > 0 {
            *credit = credit.saturating_sub(want);
            match file.file.read_at(at.offset, want as usize, arena) {
                Ok(_) => *errors = 0,
                Err(error) => {
                    if let Some(Gap { until: end }) = Gap::of(&error) {
                        reader.skip(settings, annotated, until, arena, *end);
                        self.hand_over_read(index, arena);
                        return true;
                    }
                    *errors = errors.saturating_add(1);
                    return *behind && *errors < TRIES;
                }
            }
        }
        let got = arena.len() as u64;
        if got > 0 {
            let taken = reader.ingest(settings, annotated, until, arena) as u64;
            if taken > 0 {
                let more = reader.at.offset < file.size || next.is_some();
                self.hand_over_read(index, arena);
                return more;
            }
        }
        // The file's end, as far as one look tells: its writer may hold it for a moment after a rotation.
        let Some(next) = next.filter(|next| passed || next.size > 0) else { return false };
        let (seen, size) = reader.ends_seen;
        reader.ends_seen = (if size == file.size { seen + 1 } else { 1 }, file.size);
        if !passed && (reader.ends_seen.0 <= 2 || got < rest) {
            return false;
        }
        arena.truncate(max_line + frame::MAX_HEADER);
        reader.next_file(settings, annotated, until, arena, (next.generation, next.ordinal));
        self.hand_over_read(index, arena);
        true
    }

    /// Tells how far counting is behind the newest line.
    fn tell_lag(&mut self, index: usize) {
        let wall = self.env.unix_nano();
        let log = &self.logs[index];
        let Some(counting) = &log.counting else { return };
        let (read, last) = match &counting.reader {
            Some(reader) => (reader.at, reader.last_time()),
            None => (log.reading_at().unwrap_or_default(), log.lines.last_time()),
        };
        let newest = log.files.iter().rev().find(|file| file.size > 0);
        let level = newest.is_none_or(|newest| {
            (read.ordinal, read.offset) >= (newest.ordinal, newest.size)
                || read.ordinal == newest.ordinal && newest.torn_at == newest.size
        });
        let is_ours = log.excluded.is_none() && (counting.shown || counting.barren < BARREN);
        let lag = match newest {
            Some(newest) if !level && is_ours => {
                let stamp = self.newest_stamp(log, newest).unwrap_or(wall);
                let last = if last == 0 { stamp_at(log, &read).unwrap_or(stamp) } else { last };
                stamp.saturating_sub(last).max(1)
            }
            _ => 0,
        };
        let log = &mut self.logs[index];
        if let (Some(counting), Some(tap)) = (&mut log.counting, &mut self.tap)
            && counting.lag != lag
        {
            counting.lag = lag;
            tap.lag(&log.key, &log.workload, lag);
        }
    }

    /// Stamp of the last whole line of a file.
    fn newest_stamp(&self, log: &Log<E::File>, file: &Open<Source<E::File>>) -> Option<u64> {
        let begin = file.size.saturating_sub(NEWEST_REACH);
        let mut tail = Vec::new();
        file.file.read_at(begin, (file.size - begin) as usize, &mut tail).ok()?;
        let end = memchr::memrchr(b'\n', &tail)?;
        let start = memchr::memrchr(b'\n', &tail[..end]).map_or(0, |newline| newline + 1);
        log.lines.stamp_of(&tail[start..=end])
    }
}

/// The position by which a later life finds its way. A file without a line has nothing to be known by but its number,
/// which is soon another file's: the end of the file before says the same.
fn lasting(at: Position, left: Option<Position>) -> Position {
    let is_nameless = at.generation.head == 0 && at.offset == 0;
    left.filter(|left| is_nameless && left.ordinal < at.ordinal).unwrap_or(at)
}

/// Stamp of the line at a position.
fn stamp_at<F: LogFile>(log: &Log<F>, at: &Position) -> Option<u64> {
    let file = log.files.iter().find(|file| file.ordinal == at.ordinal)?;
    let mut head = Vec::new();
    file.file.read_at(at.offset, log.lines.stamp_reach(), &mut head).ok()?;
    log.lines.stamp_of(&head)
}

/// Where counting goes on when the file up to which it came is gone, and older ones that were counted are still there:
/// at the first file that the checkpoint does not know as an older one.
fn behind_gone<F: LogFile>(
    files: &VecDeque<Open<Source<F>>>,
    counted: &Position,
    mark: Option<&Mark>,
) -> Option<Position> {
    let seen = mark.map_or(&[][..], |mark| &mark.files);
    let is_older = |file: &&Open<Source<F>>| {
        let kept = !file.file.is_file() && file.ordinal < counted.ordinal;
        let seen = seen.iter().find(|seen| file.begins_as(&seen.generation));
        kept || seen.is_some_and(|seen| seen.ordinal < counted.ordinal)
    };
    let older = files.iter().take_while(is_older).count();
    let newest = files.back()?;
    Some(match files.get(older) {
        Some(next) => Position { generation: next.generation, ordinal: next.ordinal, ..Position::default() },
        None => Position {
            generation: newest.generation,
            ordinal: newest.ordinal,
            offset: newest.size,
            ..Position::default()
        },
    })
}

/// The number that the file of a position has now. A file that had no line yet is known by its inode alone, which other
/// files may have by now: it must have kept its number too, unless files were `renumbered`.
fn ordinal_of<F: LogFile>(
    files: &VecDeque<Open<Source<F>>>,
    counted: &Position,
    renumbered: bool,
) -> Option<u64> {
    let wanted = &counted.generation;
    let fits = |file: &&Open<Source<F>>| file.size >= counted.offset || !file.file.is_file();
    let is_same = |file: &Open<Source<F>>| {
        same_file(&file.generation, wanted) && (renumbered || file.ordinal == counted.ordinal)
    };
    let begins = |file: &&Open<Source<F>>| file.begins_as(wanted) || (wanted.head == 0 && is_same(file));
    let mut alike = files.iter().filter(fits).filter(begins);
    let first = alike.next()?;
    let same = std::iter::once(first).chain(alike).find(|file| file.ordinal == counted.ordinal);
    Some(same.unwrap_or(first).ordinal)
}
