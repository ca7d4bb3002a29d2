//! Objectives of workloads that are counted from scraped histograms: exactly where a bucket stands at the threshold, else
//! against the buckets beside it.
//!
//! In: the buckets of a target and their increases, page by page. Out: what they add to an objective: good and bad requests,
//! or, without a bucket at the threshold, both twice: optimistic with the next bucket above as good, pessimistic with the
//! next one below. Invariant: nothing is interpolated; an increase adds to the exact counters or to those beside the
//! threshold, never to both; no counter goes down.

use std::sync::Arc;

use super::cell::Bounds;
use super::slo::{Kind, Slo, Tally};

/// Pairs of neighbours of one objective that are told: versions of one application.
const MAX_PAIRS: usize = 4;

/// The buckets around a threshold; the same one twice where it has its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Seconds of the last bound at or below it; 0, within which nothing is, where there is none.
    pub lower: f64,
    /// Seconds of the first bound at or above it; infinite where there is none.
    pub upper: f64,
    /// Both as the label `le` has them.
    pub texts: [Box<str>; 2],
}

impl Neighbours {
    /// Those of a threshold among the bounds of a histogram.
    pub fn of(bounds: &Bounds, threshold_nano: u64) -> Self {
        let below = bounds.list().iter().rev().find(|bound| bound.nano <= threshold_nano);
        let above = bounds.list().iter().find(|bound| bound.nano >= threshold_nano);
        Self {
            lower: below.map_or(0.0, |bound| bound.seconds),
            upper: above.map_or(f64::INFINITY, |bound| bound.seconds),
            texts: [
                below.map_or_else(|| "0".into(), |bound| bound.text.clone()),
                above.map_or_else(|| "+Inf".into(), |bound| bound.text.clone()),
            ],
        }
    }

    /// True when a bucket stands at the threshold.
    pub fn is_exact(&self) -> bool {
        self.lower == self.upper
    }
}

/// Good and bad requests by one bucket. Cumulative counts of one page may be a little apart, so bad ones are what all are
/// ahead of the good ones, and what was once bad stays so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    all: u64,
    /// Within the bucket.
    pub good: u64,
    /// Not within it.
    pub bad: u64,
}

impl Split {
    /// Takes increases, and says by how much good and bad have grown.
    fn add(&mut self, all: u64, good: u64) -> (u64, u64) {
        self.all += all;
        self.good += good;
        let bad = self.bad.max(self.all.saturating_sub(self.good));
        let grown = bad - self.bad;
        self.bad = bad;
        (good, grown)
    }
}

/// What scraped pages have said of one objective of a workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scraped {
    /// A histogram of a target that counts has been read.
    pub is_seen: bool,
    /// Neighbours of the threshold in targets that have no bucket there; while there are any, all is counted beside it.
    pub pairs: Vec<Neighbours>,
    /// By the bucket at the threshold.
    exact: Split,
    /// By the next bucket above, and by the next one below.
    pub beside: [Split; 2],
    /// The counters beside the threshold have been published as 0.
    pub born: bool,
}

impl Scraped {
    /// Notes the neighbours of a target.
    pub fn note(&mut self, near: &Neighbours) {
        if !near.is_exact() && !self.pairs.contains(near) && self.pairs.len() < MAX_PAIRS {
            self.pairs.push(near.clone());
        }
    }

    /// Takes what a page adds. Returns what the exact counters grow by.
    fn take(&mut self, page: &Counted) -> (u64, u64) {
        if self.pairs.is_empty() {
            return self.exact.add(page.all, page.within[0]);
        }
        for (split, within) in self.beside.iter_mut().zip(page.within) {
            split.add(page.all, within);
        }
        (0, 0)
    }
}

/// What one page adds to one latency objective.
#[derive(Debug)]
struct Counted {
    near: Neighbours,
    all: u64,
    /// Within the upper and within the lower neighbour.
    within: [u64; 2],
}

/// What one page adds to the latency objectives of its workload, in their order.
#[derive(Debug, Default)]
pub(super) struct Adding(Vec<Option<Counted>>);

impl Adding {
    /// For the objectives of a workload and the buckets of a target.
    pub(super) fn new<'a>(slos: impl Iterator<Item = &'a Slo>, bounds: &Bounds) -> Self {
        let counted = |slo: &Slo| match slo.kind {
            Kind::Latency { threshold_nano } => {
                Some(Counted { near: Neighbours::of(bounds, threshold_nano), all: 0, within: [0; 2] })
            }
            Kind::Availability => None,
        };
        Self(slos.map(counted).collect())
    }

    /// Takes the increase of a bucket; `silent` are the objectives in which its route has no say, as bits.
    pub(super) fn bucket(&mut self, seconds: f64, requests: u64, silent: u32) {
        for (index, counted) in self.0.iter_mut().enumerate() {
            let Some(counted) = counted.as_mut().filter(|_| silent >> index & 1 == 0) else { continue };
            if seconds == f64::INFINITY {
                counted.all += requests;
            }
            for (bound, within) in
                [counted.near.upper, counted.near.lower].into_iter().zip(&mut counted.within)
            {
                if bound == seconds {
                    *within += requests;
                }
            }
        }
    }

    /// Takes increases of a native histogram for the objective at `index`: all of it, and what is within either neighbour.
    pub(super) fn native(&mut self, index: usize, all: u64, within: [u64; 2]) {
        let Some(Some(counted)) = self.0.get_mut(index) else { return };
        counted.all += all;
        counted.within[0] += within[0];
        counted.within[1] += within[1];
    }

    /// Adds it to the objectives that it was made for.
    pub(super) fn finish(self, tallies: &mut [(Arc<Slo>, Tally)]) {
        for ((_, tally), counted) in tallies.iter_mut().zip(self.0) {
            let Some(counted) = counted else { continue };
            let (good, bad) = tally.scraped.take(&counted);
            tally.good += good;
            tally.bad += bad;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::Bound;
    use super::*;

    const MS: u64 = 1_000_000;

    fn near(bounds: &[f64], threshold_nano: u64) -> (bool, [String; 2]) {
        let bounds = Bounds::new(bounds.iter().map(|seconds| Bound::new(*seconds)).collect());
        let near = Neighbours::of(&bounds, threshold_nano);
        (near.is_exact(), near.texts.map(String::from))
    }

    #[test]
    fn neighbours_are_the_buckets_around_a_threshold() {
        let prom_client = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        assert_eq!(near(&prom_client, 200 * MS), (false, ["0.1".to_owned(), "0.25".to_owned()]));
        assert_eq!(near(&prom_client, 250 * MS), (true, ["0.25".to_owned(), "0.25".to_owned()]));
        assert_eq!(near(&prom_client, MS), (false, ["0".to_owned(), "0.005".to_owned()]));
        assert_eq!(near(&prom_client, 20_000 * MS), (false, ["10".to_owned(), "+Inf".to_owned()]));
    }

    #[test]
    fn what_was_bad_stays_bad_and_a_page_torn_in_two_counts_once() {
        let mut split = Split::default();
        assert_eq!(split.add(10, 8), (8, 2));
        // The bucket was read before its request had reached all of them.
        assert_eq!(split.add(0, 1), (1, 0));
        assert_eq!(split.add(1, 0), (0, 0));
        assert_eq!((split.good, split.bad), (9, 2));
    }
}
