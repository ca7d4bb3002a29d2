//! Which series a source had on its last page, and what a line of the next one is beside them.
//!
//! In: the hash of each series in the order of a page. Out: whether it is known, new, or there already; at the end, which
//! are lost. Held for a source: eight bytes a line. A page is expected to have the same series in the same order as the
//! one before; while that holds, a line costs one comparison, and only where it fails are the series looked up by a table
//! that all sources share.
//! Invariant: what is known changes only when a page has been accepted as a whole.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::labels::FLAGS;
use super::names::Names;

/// The series takes the time of the scrape, and so its end is marked.
const TRACKED: u64 = 0b01;
/// The series stands on an earlier line of the same page.
const REPEATED: u64 = 0b10;

const BEFORE: u8 = 1;
const BEFORE_TRACKED: u8 = 2;
const NOW: u8 = 4;
const NOW_TRACKED: u8 = 8;
const TOLD: u8 = 16;

/// The series of a source.
#[derive(Debug, Default)]
pub(super) struct Known {
    lines: Box<[u64]>,
    /// Names of those that are tracked.
    pub(super) names: Names,
    /// Different series.
    live: usize,
    tracked: usize,
    /// All have been marked as ended, because a scrape failed.
    pub(super) ended: bool,
}

impl Known {
    /// Different series.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Lines of the last page.
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + self.names.bytes()
    }
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Its series is known.
    Known {
        /// Its last sample had the time of its scrape.
        was_tracked: bool,
    },
    /// Its series was not on the page before.
    New,
    /// Its series was on an earlier line of this page.
    Repeated,
    /// Its series would be new, but there is no room for it.
    Refused,
}

/// A table whose keys are hashes.
pub(super) type Table<V> = HashMap<u64, V, BuildHasherDefault<Same>>;

/// Takes a hash for a hash.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        // The lowest bits are flags, and the table takes its place from them.
        self.0.rotate_right(FLAGS.count_ones())
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A walk through the lines of one page.
#[derive(Debug, Default)]
pub(super) struct Walk {
    seen: Table<u8>,
    lines: Vec<u64>,
    at: usize,
    unexpected: bool,
}

impl Walk {
    /// Begins a page.
    pub(super) fn begin(&mut self) {
        self.at = 0;
        self.unexpected = false;
    }

    /// The next line. `room`: how many more new series there may be.
    #[inline]
    pub(super) fn line(&mut self, known: &Known, hash: u64, tracked: bool, room: &mut u64) -> Line {
        let line = hash | u64::from(tracked);
        if !self.unexpected {
            if let Some(expected) = known.lines.get(self.at)
                && expected & !REPEATED == line
            {
                self.at += 1;
                return if expected & REPEATED != 0 {
                    Line::Repeated
                } else {
                    Line::Known { was_tracked: tracked }
                };
            }
            self.look_up(known);
        }
        let seen = self.seen.entry(hash).or_insert(0);
        if *seen & NOW != 0 {
            self.lines.push(line | REPEATED);
            return Line::Repeated;
        }
        let found = if *seen & BEFORE != 0 {
            Line::Known { was_tracked: *seen & BEFORE_TRACKED != 0 }
        } else if *room == 0 {
            return Line::Refused;
        } else {
            *room -= 1;
            Line::New
        };
        *seen |= if tracked { NOW | NOW_TRACKED } else { NOW };
        self.lines.push(line);
        found
    }

    /// The lines are not those of the page before: fills the table.
    fn look_up(&mut self, known: &Known) {
        self.unexpected = true;
        self.fill(known);
        self.lines.clear();
        self.lines.extend_from_slice(&known.lines[..self.at]);
        for line in self.lines.iter().filter(|line| *line & REPEATED == 0) {
            let bits = if line & TRACKED != 0 { NOW | NOW_TRACKED } else { NOW };
            if let Some(seen) = self.seen.get_mut(&(line & !FLAGS)) {
                *seen |= bits;
            }
        }
    }

    fn fill(&mut self, known: &Known) {
        self.seen.clear();
        for line in known.lines.iter().filter(|line| *line & REPEATED == 0) {
            let bits = if line & TRACKED != 0 { BEFORE | BEFORE_TRACKED } else { BEFORE };
            self.seen.insert(line & !FLAGS, bits);
        }
    }

    /// The page has ended and is accepted. True when series are lost, each to be found by [`Walk::is_lost`].
    pub(super) fn settle(&mut self, known: &mut Known) -> bool {
        let was_ended = std::mem::replace(&mut known.ended, false);
        if !self.unexpected {
            if self.at == known.lines.len() {
                return false;
            }
            self.look_up(known);
        }
        let lost =
            !was_ended && self.seen.values().any(|bits| bits & (BEFORE_TRACKED | NOW) == BEFORE_TRACKED);
        if *known.lines != self.lines[..] {
            known.lines = Box::from(&self.lines[..]);
            known.live = self.lines.iter().filter(|line| *line & REPEATED == 0).count();
            known.tracked = self.lines.iter().filter(|line| *line & (REPEATED | TRACKED) == TRACKED).count();
        }
        lost
    }

    /// There is no page: all series of the source are lost. Not if they have been told before.
    pub(super) fn lose_all(&mut self, known: &mut Known) -> bool {
        self.unexpected = true;
        if std::mem::replace(&mut known.ended, true) {
            return false;
        }
        self.fill(known);
        known.tracked > 0
    }

    /// True, once, for a series that was on the page before and is not on this one.
    pub(super) fn is_lost(&mut self, hash: u64) -> bool {
        match self.seen.get_mut(&hash) {
            Some(bits) if *bits & (BEFORE_TRACKED | NOW | TOLD) == BEFORE_TRACKED => {
                *bits |= TOLD;
                true
            }
            _ => false,
        }
    }

    /// True when the names of what is known are to be written anew.
    pub(super) fn is_worn(known: &Known) -> bool {
        known.names.is_worn(known.tracked)
    }

    /// Gives memory back that one large page took.
    pub(super) fn shrink(&mut self, limit: usize) {
        if self.seen.capacity() > limit {
            self.seen = Table::default();
            self.lines = Vec::new();
        }
    }
}
