//! A cell: all counters of one route and method of one pod.
//!
//! In: requests from lines one by one, or increases of an application's own counters. Out: values to publish.
//! Invariant: what was published never goes down, whatever the source changes to.

use std::sync::Arc;

use super::words::{CLASSES, Class};
use crate::data::trace::TraceId;

/// Upper bounds of one histogram at most, `+Inf` aside.
pub const MAX_BOUNDS: usize = 63;

/// Bounds of every histogram that is counted from lines, seconds. Source: OpenTelemetry and client libraries; 5 ms to 10 s.
const DEFAULT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// An upper bound of a bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Seconds.
    pub seconds: f64,
    /// The same in nanoseconds.
    pub nano: u64,
    /// As the label `le` has it.
    pub text: Box<str>,
}

impl Bound {
    /// A bound in seconds as it is written shortest.
    pub fn new(seconds: f64) -> Self {
        let nano = (seconds * 1e9).round().max(0.0) as u64;
        Self { seconds, nano, text: seconds.to_string().into() }
    }
}

/// Upper bounds of a histogram, ascending, without `+Inf`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bounds(Vec<Bound>);

impl Bounds {
    /// Sorted and each once; the lowest [`MAX_BOUNDS`] of them.
    pub fn new(mut bounds: Vec<Bound>) -> Self {
        bounds.retain(|bound| bound.seconds.is_finite());
        bounds.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        bounds.dedup_by(|a, b| a.seconds == b.seconds);
        bounds.truncate(MAX_BOUNDS);
        Self(bounds)
    }

    /// What lines are counted against: 5 ms to 10 s, and each of `thresholds` (nanoseconds).
    pub fn of_lines(thresholds: impl IntoIterator<Item = u64>) -> Self {
        let own = thresholds.into_iter().filter(|nano| *nano > 0).take(MAX_BOUNDS - DEFAULT.len());
        let mut bounds: Vec<Bound> = own.map(|nano| Bound::new(nano as f64 / 1e9)).collect();
        bounds.extend(DEFAULT.map(Bound::new));
        Self::new(bounds)
    }

    /// The bounds in ascending order.
    pub fn list(&self) -> &[Bound] {
        &self.0
    }

    /// Index of the bound at `seconds`.
    pub fn index(&self, seconds: f64) -> Option<usize> {
        self.0.binary_search_by(|bound| bound.seconds.total_cmp(&seconds)).ok()
    }

    /// Index of the bucket that a duration falls into: the first bound that it does not exceed.
    #[inline]
    fn bucket(&self, nano: u64) -> usize {
        self.0.iter().position(|bound| nano <= bound.nano).unwrap_or(self.0.len())
    }

    /// These and those of `other`.
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// True when all of `other` are among these.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|bound| self.index(bound.seconds).is_some())
    }
}

/// A request that stands for others in an exemplar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Witness {
    /// Its trace.
    pub trace: TraceId,
    /// Seconds that it took; 1 in a counter that knows no duration.
    pub value: f64,
    /// When, milliseconds since the epoch.
    pub time_unix_ms: i64,
}

/// All counters of one route and method of one pod.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Bounds of its histogram.
    pub bounds: Arc<Bounds>,
    /// Cumulative counts that were carried over or scraped: one a bound, and `+Inf`.
    base: Box<[u64]>,
    /// Requests counted from lines since: one a bucket, not cumulative.
    counts: Box<[u64]>,
    sum_base: f64,
    sum_nano: u128,
    /// Requests by class.
    pub classes: [u64; CLASSES.len()],
    /// The counters have been published as 0.
    pub born: bool,
    /// A duration has been seen, so that there is a histogram.
    pub timed: bool,
    /// The histogram has been published as 0.
    pub timed_born: bool,
    /// Bounds that came later and have not been published as 0, as bits.
    pub fresh: u64,
    /// By class, then by bucket. Made with the first trace id.
    witnesses: Option<Box<[Option<Witness>]>>,
}

impl Cell {
    /// A cell without requests.
    pub fn new(bounds: &Arc<Bounds>) -> Self {
        let buckets = bounds.0.len() + 1;
        Self {
            bounds: bounds.clone(),
            base: vec![0; buckets].into(),
            counts: vec![0; buckets].into(),
            sum_base: 0.0,
            sum_nano: 0,
            classes: [0; CLASSES.len()],
            born: false,
            timed: false,
            timed_born: false,
            fresh: 0,
            witnesses: None,
        }
    }

    /// A cell as it was kept: cumulative counts, `+Inf` last. `None` when they do not fit the bounds.
    pub fn restored(bounds: &Arc<Bounds>, cumulative: Vec<u64>, sum: f64, fresh: u64) -> Option<Self> {
        (cumulative.len() == bounds.0.len() + 1).then(|| Self {
            base: cumulative.into(),
            sum_base: sum,
            fresh,
            ..Self::new(bounds)
        })
    }

    /// Counts one request of a line.
    #[inline]
    pub fn count(
        &mut self,
        class: Class,
        duration_nano: Option<u64>,
        trace: Option<TraceId>,
        unix_nano: u64,
    ) {
        self.classes[class.index()] += 1;
        let mut bucket = None;
        if let Some(nano) = duration_nano {
            let index = self.bounds.bucket(nano);
            self.counts[index] += 1;
            self.sum_nano += u128::from(nano);
            self.timed = true;
            bucket = Some(index);
        }
        if let Some(trace) = trace {
            let value = duration_nano.map_or(1.0, |nano| nano as f64 / 1e9);
            let witness = Witness { trace, value, time_unix_ms: (unix_nano / 1_000_000) as i64 };
            self.witness(class.index(), witness);
            if let Some(bucket) = bucket {
                self.witness(CLASSES.len() + bucket, witness);
            }
        }
    }

    /// Remembers an exemplar of a class.
    pub fn class_witness(&mut self, class: Class, witness: Witness) {
        self.witness(class.index(), witness);
    }

    /// Remembers an exemplar of a bucket.
    pub fn bucket_witness(&mut self, bucket: usize, witness: Witness) {
        self.witness(CLASSES.len() + bucket, witness);
    }

    fn witness(&mut self, slot: usize, witness: Witness) {
        let slots = CLASSES.len() + self.counts.len();
        let witnesses = self.witnesses.get_or_insert_with(|| vec![None; slots].into());
        if let Some(place) = witnesses.get_mut(slot)
            && place.is_none_or(|known| known.time_unix_ms <= witness.time_unix_ms)
        {
            *place = Some(witness);
        }
    }

    /// The exemplar of a class.
    pub fn witness_of_class(&self, class: usize) -> Option<Witness> {
        *self.witnesses.as_ref()?.get(class)?
    }

    /// The exemplar of a bucket.
    pub fn witness_of_bucket(&self, bucket: usize) -> Option<Witness> {
        *self.witnesses.as_ref()?.get(CLASSES.len() + bucket)?
    }

    /// Adds to the cumulative count of the bound at `index`; the number of bounds stands for `+Inf`.
    pub fn add_bucket(&mut self, index: usize, requests: u64) {
        if let Some(base) = self.base.get_mut(index) {
            *base += requests;
            self.timed = true;
        }
    }

    /// Adds to the sum of durations, seconds.
    pub fn add_sum(&mut self, seconds: f64) {
        if seconds > 0.0 && seconds.is_finite() {
            self.sum_base += seconds;
        }
    }

    /// Cumulative counts of all bounds and `+Inf`, in order.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        let mut counted = 0;
        self.base.iter().zip(&self.counts).map(move |(base, count)| {
            counted += count;
            base + counted
        })
    }

    /// Sum of all durations, seconds.
    pub fn sum(&self) -> f64 {
        self.sum_base + self.sum_nano as f64 / 1e9
    }

    /// Goes on with other bounds. Counts of bounds in both go on; a new one begins at 0.
    pub fn rebound(&mut self, bounds: &Arc<Bounds>) {
        if Arc::ptr_eq(&self.bounds, bounds) {
            return;
        }
        if self.bounds == *bounds {
            self.bounds = bounds.clone();
            return;
        }
        let old: Vec<u64> = self.cumulative().collect();
        let (mut base, mut fresh) = (Vec::with_capacity(bounds.0.len() + 1), 0);
        for (index, bound) in bounds.0.iter().enumerate() {
            match self.bounds.index(bound.seconds) {
                Some(known) => {
                    base.push(old[known]);
                    fresh |= (self.fresh >> known & 1) << index;
                }
                None => {
                    base.push(0);
                    fresh |= 1 << index;
                }
            }
        }
        base.push(old.last().copied().unwrap_or(0));
        self.counts = vec![0; base.len()].into();
        self.base = base.into();
        self.sum_base = self.sum();
        self.sum_nano = 0;
        self.bounds = bounds.clone();
        self.fresh = fresh;
        self.witnesses = None;
    }

    /// Requests of all classes.
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le(bounds: &Bounds) -> Vec<&str> {
        bounds.list().iter().map(|bound| &*bound.text).collect()
    }

    #[test]
    fn a_threshold_has_its_own_bucket_and_equality_is_inside() {
        let bounds = Arc::new(Bounds::of_lines([200_000_000]));
        assert_eq!(
            le(&bounds),
            ["0.005", "0.01", "0.025", "0.05", "0.1", "0.2", "0.25", "0.5", "1", "2.5", "5", "10"]
        );
        let mut cell = Cell::new(&bounds);
        cell.count(Class::SUCCESS, Some(200_000_000), None, 0);
        cell.count(Class::SUCCESS, Some(200_000_001), None, 0);
        cell.count(Class::SUCCESS, Some(11_000_000_000), None, 0);
        cell.count(Class::SUCCESS, None, None, 0);
        assert_eq!(cell.cumulative().collect::<Vec<_>>(), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 3]);
        assert_eq!(cell.classes, [0, 4, 0, 0, 0, 0]);
        assert!((cell.sum() - 11.400_000_001).abs() < 1e-9);
    }

    #[test]
    fn other_bounds_keep_what_both_have_and_the_total() {
        let mut cell = Cell::new(&Arc::new(Bounds::of_lines([])));
        cell.count(Class::SUCCESS, Some(30_000_000), None, 0);
        cell.count(Class::SUCCESS, Some(400_000_000), None, 0);
        let own = Arc::new(Bounds::new(vec![Bound::new(0.3), Bound::new(0.1), Bound::new(0.1)]));
        cell.rebound(&own);
        assert_eq!(cell.cumulative().collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(cell.fresh, 0b10);
        cell.add_bucket(1, 4);
        cell.add_bucket(2, 4);
        cell.rebound(&Arc::new(Bounds::of_lines([])));
        assert_eq!(cell.cumulative().collect::<Vec<_>>(), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6]);
        assert!((cell.sum() - 0.43).abs() < 1e-9);
    }
}
