//! Times and exemplars of series that state their own: what the last ones were.
//!
//! In: a sample with a time of its own. Out: whether it may be passed on. Only sources that state times, or exemplars
//! without a time, have this; all others pay nothing.
//! Invariant: what is passed on of a series goes up in time. What is older than [`OLDEST_MS`] is never passed on, so that
//! an entry of that age can be forgotten.

use super::known::Table;

/// Samples that are further behind the scrape are not taken. Source: Prometheus' head takes nothing older than half a
/// block of two hours before its newest sample (`tsdb/head_append.go`, `appendableMinValidTime`).
pub(super) const OLDEST_MS: i64 = 3_600_000;
/// Samples that are further ahead of the scrape are not taken. Source: Prometheus `scrape/scrape.go`, `maxAheadTime`.
pub(super) const AHEAD_MS: i64 = 600_000;

/// What becomes of a sample by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is passed on.
    Take,
    /// It is the last one again.
    Same,
    /// It is not after the last one.
    OutOfOrder,
    /// It is too old, or too far in the future.
    OutOfBounds,
}

/// Last times and exemplars.
#[derive(Debug, Default)]
pub(super) struct Times {
    last: Table<Last>,
    exemplars: Table<u64>,
    page: u32,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    time_unix_ms: i64,
    bits: u64,
    page: u32,
}

impl Times {
    /// Begins a page.
    pub(super) fn begin(&mut self) {
        self.page = self.page.wrapping_add(1);
    }

    /// A sample that states its time. `floor`: when its series had the time of a scrape last.
    pub(super) fn own(&mut self, hash: u64, time: i64, value: f64, tick: i64, floor: Option<i64>) -> Verdict {
        if time > tick.saturating_add(AHEAD_MS) || time < tick.saturating_sub(OLDEST_MS) {
            return Verdict::OutOfBounds;
        }
        if floor.is_some_and(|floor| time <= floor) {
            return Verdict::OutOfOrder;
        }
        let new = Last { time_unix_ms: time, bits: value.to_bits(), page: self.page };
        let Some(last) = self.last.get_mut(&hash) else {
            self.last.insert(hash, new);
            return Verdict::Take;
        };
        if time == last.time_unix_ms && new.bits == last.bits {
            return Verdict::Same;
        }
        if time <= last.time_unix_ms || last.page == self.page {
            return Verdict::OutOfOrder;
        }
        *last = new;
        Verdict::Take
    }

    /// A sample that takes the time of its scrape, of a series that may have stated a later one.
    pub(super) fn is_before(&self, hash: u64, tick: i64) -> bool {
        self.last.get(&hash).is_some_and(|last| tick <= last.time_unix_ms)
    }

    /// True when an exemplar without a time is not the one that its series had last.
    pub(super) fn is_new_exemplar(&mut self, hash: u64, exemplar: u64) -> bool {
        self.exemplars.insert(hash, exemplar) != Some(exemplar)
    }

    /// Forgets what no longer matters. `lines`: of the page that ends.
    pub(super) fn end(&mut self, tick: i64, lines: usize) {
        if self.last.len() > 2 * lines + 64 {
            self.last.retain(|_, last| last.time_unix_ms >= tick.saturating_sub(OLDEST_MS));
            self.last.shrink_to_fit();
        }
        if self.exemplars.len() > 2 * lines + 64 {
            self.exemplars = Table::default();
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.last.capacity() * (size_of::<(u64, Last)>() + 1) + self.exemplars.capacity() * 17
    }
}
