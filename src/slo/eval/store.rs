//! The samples that objectives are judged by: counters of the last hours, as they were published.
//!
//! In: samples with their own times. Out: what a selector finds, its growth over a range. Series are kept once, whoever asks
//! for them. Invariants: only what a rule selects is kept, and no longer than the farthest look back; at most
//! [`MOST_SERIES`] series for one selector, and what is refused is counted; times only go up.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use super::increase::Growth;
use super::promql::{Need, Selector};
use super::ring::Ring;
use crate::data::sample::is_stale;

/// Series that one selector of a rule may find; more are refused and counted.
pub(super) const MOST_SERIES: usize = 2_000;
/// How far back the newest sample of a series may lie, as Prometheus has it by default.
pub(super) const LOOKBACK_MS: i64 = 300_000;
/// Ticks of the clock that are kept: six hours at one a second.
const MOST_TICKS: usize = 25_000;

/// Labels sorted by name, without the metric's own.
pub(super) type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// The value of a label; empty where there is none.
pub(super) fn label<'a>(labels: &'a [(Arc<str>, Arc<str>)], name: &str) -> &'a str {
    labels.iter().find(|(own, _)| &**own == name).map_or("", |(_, value)| value)
}

/// Labels from texts. Empty values are the same as none.
#[cfg(test)]
pub(super) fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let mut all: Vec<(Arc<str>, Arc<str>)> =
        pairs.map(|(name, value)| (Arc::from(name), Arc::from(value))).collect();
    all.sort();
    all.into()
}

#[derive(Debug)]
struct Series {
    hash: u64,
    name: Arc<str>,
    labels: Labels,
    reach_ms: i64,
    ring: Ring,
}

#[derive(Debug)]
struct Slot {
    selector: Selector,
    reach_ms: i64,
    /// The series that it finds.
    found: Vec<u32>,
}

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Times of ticks; the first one has the number `base`.
    clock: VecDeque<i64>,
    base: u64,
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    known: HashMap<u64, u32, foldhash::fast::FixedState>,
    slots: Vec<Slot>,
    families: Vec<String>,
    hasher: foldhash::quality::FixedState,
    texts: HashMap<Box<str>, Arc<str>, foldhash::fast::FixedState>,
    refused: u64,
    /// There is no room for further series.
    is_full: bool,
}

impl Store {
    /// Keeps what `selector` finds, so far back; gives it its slot.
    pub(super) fn follow(&mut self, selector: &mut Selector, need: Need) {
        let reach_ms = match need {
            Need::Newest => LOOKBACK_MS,
            Need::Samples { reach_ms } | Need::Steps { reach_ms, .. } => reach_ms,
        };
        let same =
            |slot: &Slot| format!("{:?}", Unslotted(&slot.selector)) == format!("{:?}", Unslotted(selector));
        let at = match self.slots.iter().position(same) {
            Some(at) => at,
            None => {
                if !self.families.contains(&selector.name) {
                    self.families.push(selector.name.clone());
                }
                self.slots.push(Slot { selector: selector.clone(), reach_ms: 0, found: Vec::new() });
                self.slots.len() - 1
            }
        };
        self.slots[at].reach_ms = self.slots[at].reach_ms.max(reach_ms);
        selector.slot = at;
    }

    /// True for families that some rule selects.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.families.iter().any(|own| own == name)
    }

    /// Takes a sample of a family that is wanted. `pairs` are its labels, sorted, without its name.
    pub(super) fn take(&mut self, name: &str, pairs: &[(&str, &str)], unix_ms: i64, value: f64) {
        let Some(tick) = self.tick(unix_ms) else { return };
        let hash = self.hasher.hash_one((name, pairs));
        if let Some(&at) = self.known.get(&hash) {
            if let Some(Some(series)) = self.series.get_mut(at as usize) {
                series.ring.push(tick, value);
            }
            return;
        }
        if is_stale(value) {
            return;
        }
        let Some(wanted) = self.wanted(name, pairs) else { return };
        let mut ring = Ring::default();
        ring.push(tick, value);
        self.insert(name, pairs, hash, ring, wanted);
    }

    /// The slots that a new series is found by; `None` where there is none, or no room.
    fn wanted(&mut self, name: &str, pairs: &[(&str, &str)]) -> Option<Vec<usize>> {
        let value_of = |name: &str| pairs.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value);
        let finds = |slot: &Slot| {
            slot.selector.name == name
                && slot.selector.matchers.iter().all(|matcher| matcher.is_met(value_of(&matcher.label)))
        };
        let wanted: Vec<usize> =
            self.slots.iter().enumerate().filter(|(_, slot)| finds(slot)).map(|(at, _)| at).collect();
        if wanted.is_empty() {
            return None;
        }
        if self.is_full || wanted.iter().any(|at| self.slots[*at].found.len() >= MOST_SERIES) {
            self.refused += 1;
            return None;
        }
        Some(wanted)
    }

    fn insert(&mut self, name: &str, pairs: &[(&str, &str)], hash: u64, ring: Ring, wanted: Vec<usize>) {
        let reach_ms = wanted.iter().map(|at| self.slots[*at].reach_ms).max().unwrap_or_default();
        let name = self.text(name);
        let present = pairs.iter().filter(|(_, value)| !value.is_empty());
        let labels: Labels = present.map(|(name, value)| (self.text(name), self.text(value))).collect();
        let series = Some(Series { hash, name, labels, reach_ms, ring });
        let at = match self.free.pop() {
            Some(at) => {
                self.series[at as usize] = series;
                at
            }
            None => {
                self.series.push(series);
                (self.series.len() - 1) as u32
            }
        };
        self.known.insert(hash, at);
        for slot in wanted {
            self.slots[slot].found.push(at);
        }
    }

    /// The tick of a time; `None` when it is older than the newest and was no tick.
    fn tick(&mut self, unix_ms: i64) -> Option<u64> {
        match self.clock.back() {
            Some(&last) if last == unix_ms => {}
            Some(&last) if last > unix_ms => {
                return self.clock.binary_search(&unix_ms).ok().map(|at| self.base + at as u64);
            }
            _ => {
                self.clock.push_back(unix_ms);
                if self.clock.len() > MOST_TICKS {
                    self.clock.pop_front();
                    self.base += 1;
                }
            }
        }
        Some(self.base + self.clock.len() as u64 - 1)
    }

    /// One text for all that are equal.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        self.texts.insert(Box::from(text), Arc::clone(&shared));
        shared
    }

    /// What a selector finds: by its slot, or, when it is followed by no rule, among all that is kept.
    fn found<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a Series> {
        let slot = self.slots.get(selector.slot);
        let known = slot.map(|slot| slot.found.as_slice()).unwrap_or_default();
        let known = known.iter().filter_map(|at| self.series[*at as usize].as_ref());
        let all = if slot.is_none() { self.series.as_slice() } else { &[] };
        let finds = |series: &&Series| {
            *series.name == *selector.name
                && selector
                    .matchers
                    .iter()
                    .all(|matcher| matcher.is_met(label(&series.labels, &matcher.label)))
        };
        known.chain(all.iter().flatten().filter(finds))
    }

    /// The number of the first tick that is not before `unix_ms`.
    fn first_tick(&self, unix_ms: i64) -> u64 {
        self.base + self.clock.partition_point(|own| *own < unix_ms) as u64
    }

    fn time(&self, tick: u64) -> Option<i64> {
        self.clock.get(usize::try_from(tick.checked_sub(self.base)?).ok()?).copied()
    }

    /// Samples of a range that ends at `end_ms`, both ends in it, without marks of staleness.
    fn range<'a>(
        &'a self,
        series: &'a Series,
        range_ms: i64,
        end_ms: i64,
    ) -> impl Iterator<Item = (i64, f64)> {
        let from = self.first_tick(end_ms - range_ms).max(self.base);
        let samples = series.ring.since(from).filter(|(_, value)| !is_stale(*value));
        samples.map_while(move |(tick, value)| Some((self.time(tick).filter(|at| *at <= end_ms)?, value)))
    }

    /// Growth of each series over a range.
    pub(super) fn increase(
        &self,
        selector: &Selector,
        range_ms: i64,
        end_ms: i64,
        mut each: impl FnMut(&Labels, f64),
    ) {
        for series in self.found(selector) {
            let mut growth = Growth::default();
            self.range(series, range_ms, end_ms).for_each(|(at, value)| growth.add(at, value));
            if let Some(increase) = growth.increase(range_ms, end_ms) {
                each(&series.labels, increase);
            }
        }
    }

    /// The values of each series in a range, where it has any.
    pub(super) fn values(
        &self,
        selector: &Selector,
        range_ms: i64,
        end_ms: i64,
        mut each: impl FnMut(&Labels, &[f64]),
    ) {
        let mut values = Vec::new();
        for series in self.found(selector) {
            values.clear();
            values.extend(self.range(series, range_ms, end_ms).map(|(_, value)| value));
            if !values.is_empty() {
                each(&series.labels, &values);
            }
        }
    }

    /// The newest value of each series that has not ended.
    pub(super) fn newest(&self, selector: &Selector, at_ms: i64, mut each: impl FnMut(&Labels, f64)) {
        for series in self.found(selector) {
            let from = self.first_tick(at_ms - LOOKBACK_MS + 1).max(self.base);
            let samples = series.ring.since(from);
            let newest =
                samples.take_while(|(tick, _)| self.time(*tick).is_some_and(|at| at <= at_ms)).last();
            if let Some((_, value)) = newest.filter(|(_, value)| !is_stale(*value)) {
                each(&series.labels, value);
            }
        }
    }

    /// Forgets what lies too far back at `now_ms`.
    pub(super) fn sweep(&mut self, now_ms: i64) {
        for at in 0..self.series.len() {
            let Some(series) = &self.series[at] else { continue };
            let from = self.first_tick(now_ms - series.reach_ms);
            let Some(series) = &mut self.series[at] else { continue };
            series.ring.forget(from);
            if series.ring.is_empty() {
                self.known.remove(&series.hash);
                self.series[at] = None;
                self.free.push(at as u32);
                for slot in &mut self.slots {
                    slot.found.retain(|own| *own as usize != at);
                }
            }
        }
        self.is_full = self.bytes() as u64 > super::MOST_BYTES / 4 * 3;
        let farthest = self.slots.iter().map(|slot| slot.reach_ms).max().unwrap_or_default();
        while self.clock.front().is_some_and(|first| *first < now_ms - farthest - 60_000) {
            self.clock.pop_front();
            self.base += 1;
        }
        if self.texts.len() > 4 * self.series.len() + 1_000 {
            self.texts.retain(|_, text| Arc::strong_count(text) > 1);
        }
    }

    /// Forgets everything that is kept, not what is followed.
    pub(super) fn clear(&mut self) {
        self.base += self.clock.len() as u64;
        self.clock.clear();
        self.is_full = false;
        self.series.clear();
        self.free.clear();
        self.known.clear();
        self.slots.iter_mut().for_each(|slot| slot.found.clear());
    }

    /// The number of the first tick, and the times of all.
    pub(super) fn ticks(&self) -> (u64, &VecDeque<i64>) {
        (self.base, &self.clock)
    }

    /// All series.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Labels, &Ring)> {
        self.series.iter().flatten().map(|series| (&*series.name, &series.labels, &series.ring))
    }

    /// Begins with these ticks, before anything is taken.
    pub(super) fn begin(&mut self, base: u64, times: Vec<i64>) {
        self.clear();
        self.base = base;
        self.clock = times.into();
    }

    /// Takes a whole series, if rules still want it.
    pub(super) fn adopt(&mut self, name: &str, labels: &Labels, ring: Ring) {
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        let hash = self.hasher.hash_one((name, pairs.as_slice()));
        if self.known.contains_key(&hash) || ring.is_empty() {
            return;
        }
        if let Some(wanted) = self.wanted(name, &pairs) {
            self.insert(name, &pairs, hash, ring, wanted);
        }
    }

    /// Series that are kept.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Samples that were refused because their selector had too many series.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        let series = self.series.iter().flatten();
        let of = |series: &Series| size_of::<Series>() + 64 + 32 * series.labels.len() + series.ring.bytes();
        series.map(of).sum::<usize>() + 8 * self.clock.len()
    }
}

/// A selector without its place, for comparing.
struct Unslotted<'a>(&'a Selector);

impl std::fmt::Debug for Unslotted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.0.name, self.0.matchers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::promql::{Expr, parse};
    use super::*;
    use crate::data::sample::stale;

    fn selector(text: &str) -> Selector {
        let Ok(Expr::Select(selector)) = parse(text) else { panic!("{text}") };
        selector
    }

    fn store(text: &str) -> (Store, Selector) {
        let (mut store, mut selector) = (Store::default(), selector(text));
        store.follow(&mut selector, Need::Samples { reach_ms: 3_600_000 });
        (store, selector)
    }

    fn grown(store: &Store, slot: &Selector, end_ms: i64) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        store.increase(slot, 300_000, end_ms, |labels, value| {
            found.push((label(labels, "pod").to_owned(), value))
        });
        found
    }

    #[test]
    fn only_what_is_selected_is_kept_and_marks_are_no_samples() {
        let (mut store, slot) = store("a{x=\"1\"}");
        for (at, value) in [(0, 0.0), (60_000, 10.0), (120_000, 20.0), (180_000, stale())] {
            store.take("a", &[("pod", "p"), ("x", "1")], at, value);
            store.take("a", &[("pod", "q"), ("x", "2")], at, value);
            store.take("b", &[("pod", "p"), ("x", "1")], at, value);
        }
        assert_eq!(store.len(), 1);
        assert_eq!(grown(&store, &slot, 120_000), [("p".to_owned(), 20.0)]);
        let mut newest = Vec::new();
        store.newest(&slot, 120_000, |_, value| newest.push(value));
        store.newest(&slot, 180_000, |_, value| newest.push(value + 1_000.0));
        store.newest(&slot, 500_000, |_, value| newest.push(value + 1_000.0));
        assert_eq!(newest, [20.0], "an ended series and one that is too old are not there");
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let (mut store, slot) = store("a");
        for at in 0..20 {
            store.take("a", &[("pod", "old")], at * 15_000, at as f64);
        }
        for at in 400..420 {
            store.take("a", &[("pod", "new")], at * 15_000, at as f64);
        }
        store.sweep(420 * 15_000);
        assert_eq!(store.len(), 1);
        assert_eq!(grown(&store, &slot, 419 * 15_000).len(), 1);
        store.take("a", &[("pod", "old")], 421 * 15_000, 1.0);
        assert_eq!(store.len(), 2, "it may come back");
    }

    #[test]
    fn too_many_series_are_refused_and_counted() {
        let (mut store, _) = store("a");
        for pod in 0..MOST_SERIES + 3 {
            store.take("a", &[("pod", &pod.to_string())], 0, 1.0);
        }
        assert_eq!((store.len(), store.refused()), (MOST_SERIES, 3));
    }

    #[test]
    fn time_does_not_run_backwards() {
        let (mut store, slot) = store("a");
        store.take("a", &[("pod", "p")], 60_000, 1.0);
        store.take("a", &[("pod", "p")], 120_000, 5.0);
        store.take("a", &[("pod", "p")], 90_000, 900.0);
        store.take("a", &[("pod", "p")], 60_000, 900.0);
        assert_eq!(
            grown(&store, &slot, 120_000),
            [("p".to_owned(), 5.0)],
            "4 in 60 s from 1 at 60 s: 0 at 45 s"
        );
    }
}
