//! When cumulative points began.
//!
//! In: each cumulative point of a page, by a hash of its name and attributes. Out: the start time that its data point
//! carries. By the data model, "Cumulative streams: handling unknown start time": a first point starts at its own time
//! (nothing is known before it), further ones keep that start, and one whose value fell starts at the time of the point
//! before it. Invariant: 32 bytes a point; a point that is not seen for [`KEPT_MS`] is forgotten.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// How long a point is remembered that is in no page, milliseconds. A target's own times may skip a page or two.
const KEPT_MS: i64 = 5 * 60 * 1000;

#[derive(Debug, Clone, Copy)]
struct Seen {
    key: u64,
    value: f64,
    start_ms: i64,
    time_ms: i64,
}

/// The cumulative points of one origin, in the order of its pages.
#[derive(Debug, Default)]
pub(super) struct Starts {
    seen: Vec<Seen>,
}

/// A walk through one page.
#[derive(Debug, Default)]
pub(super) struct Walk {
    next: Vec<Seen>,
    taken: Vec<bool>,
    at: usize,
    index: HashMap<u64, u32, FixedState>,
}

impl Walk {
    /// Begins a page.
    pub(super) fn begin(&mut self, known: &Starts) {
        self.next.clear();
        self.next.reserve(known.seen.len());
        self.taken.clear();
        self.taken.resize(known.seen.len(), false);
        self.at = 0;
        self.index.clear();
    }

    /// The start of a point at `time_ms` with this value (or count of observations).
    pub(super) fn start(&mut self, known: &Starts, key: u64, value: f64, time_ms: i64) -> i64 {
        let start_ms = match self.find(known, key) {
            Some(before) if value < before.value => before.time_ms.min(time_ms),
            Some(before) => before.start_ms.min(time_ms),
            None => time_ms,
        };
        self.next.push(Seen { key, value, start_ms, time_ms });
        start_ms
    }

    /// A point has ended: should it come again, it begins anew.
    pub(super) fn end(&mut self, known: &Starts, key: u64) {
        self.find(known, key);
    }

    /// Ends a page.
    pub(super) fn finish(&mut self, known: &mut Starts) {
        let newest = self.next.iter().map(|seen| seen.time_ms).max().unwrap_or(i64::MIN);
        for (seen, taken) in known.seen.iter().zip(&self.taken) {
            if !taken && newest.saturating_sub(seen.time_ms) < KEPT_MS {
                self.next.push(*seen);
            }
        }
        known.seen.clear();
        known.seen.extend_from_slice(&self.next);
        // A page that shrank for good does not keep its largest size.
        if known.seen.capacity() > 2 * known.seen.len() + 64 {
            known.seen.shrink_to_fit();
        }
    }

    /// Pages mostly repeat their order, so the next one expected is looked at first.
    fn find(&mut self, known: &Starts, key: u64) -> Option<Seen> {
        if let Some(seen) = known.seen.get(self.at)
            && seen.key == key
        {
            self.taken[self.at] = true;
            self.at += 1;
            return Some(*seen);
        }
        if self.index.is_empty() {
            let places = known.seen.iter().enumerate().map(|(at, seen)| (seen.key, at as u32));
            self.index.extend(places);
        }
        let at = *self.index.get(&key)? as usize;
        self.taken[at] = true;
        self.at = at + 1;
        Some(known.seen[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(walk: &mut Walk, known: &mut Starts, points: &[(u64, f64)], time_ms: i64) -> Vec<i64> {
        walk.begin(known);
        let starts =
            points.iter().map(|(key, value)| walk.start(known, *key, *value, time_ms)).collect::<Vec<_>>();
        walk.finish(known);
        starts
    }

    #[test]
    fn a_point_starts_when_it_is_first_seen_and_anew_after_it_fell() {
        let (mut walk, mut known) = (Walk::default(), Starts::default());
        assert_eq!(page(&mut walk, &mut known, &[(1, 5.0), (2, 7.0)], 1000), [1000, 1000]);
        assert_eq!(page(&mut walk, &mut known, &[(1, 5.0), (2, 9.0)], 2000), [1000, 1000]);
        assert_eq!(page(&mut walk, &mut known, &[(1, 4.0), (2, 9.0)], 3000), [2000, 1000]);
        assert_eq!(page(&mut walk, &mut known, &[(1, 6.0), (2, 9.0)], 4000), [2000, 1000]);
    }

    #[test]
    fn another_order_and_new_points_change_nothing_for_the_others() {
        let (mut walk, mut known) = (Walk::default(), Starts::default());
        page(&mut walk, &mut known, &[(1, 1.0), (2, 1.0), (3, 1.0)], 1000);
        let starts = page(&mut walk, &mut known, &[(3, 1.0), (9, 1.0), (1, 1.0), (2, 1.0)], 2000);
        assert_eq!(starts, [1000, 2000, 1000, 1000]);
    }

    #[test]
    fn a_point_that_skips_a_page_is_remembered_and_one_that_ended_is_not() {
        let (mut walk, mut known) = (Walk::default(), Starts::default());
        page(&mut walk, &mut known, &[(1, 1.0), (2, 1.0)], 1000);
        assert_eq!(page(&mut walk, &mut known, &[(2, 1.0)], 2000), [1000]);
        assert_eq!(page(&mut walk, &mut known, &[(1, 1.0), (2, 1.0)], 3000), [1000, 1000]);
        walk.begin(&known);
        walk.end(&known, 1);
        walk.start(&known, 2, 1.0, 4000);
        walk.finish(&mut known);
        assert_eq!(page(&mut walk, &mut known, &[(1, 1.0), (2, 1.0)], 5000), [5000, 1000]);
        assert_eq!(page(&mut walk, &mut known, &[(2, 1.0)], 5000 + KEPT_MS), [1000]);
        assert_eq!(known.seen.len(), 1, "forgotten");
    }
}
