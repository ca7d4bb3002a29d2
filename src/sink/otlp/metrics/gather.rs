//! Puts the samples of a histogram or summary together.
//!
//! In: samples of one family with their attributes, less `le` and `quantile`. Out: one point for each set of attributes,
//! in the order of the page. Invariants: buckets are sorted by their bounds and each counts its own observations only; the
//! last one has no upper bound; their sum is the count.

use std::collections::HashMap;

use super::point::{Explicit, is_exponential};
use crate::data::sample::{Histogram, Page, Sample, is_stale};
use crate::sink::family::Part;

/// No further bucket.
const END: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Point {
    /// Where the metric's name stands in the page's arena.
    base: (usize, usize),
    attributes: (u32, u32),
    samples: u32,
    /// Sample of `_count`, of `_sum` and of the native histogram.
    count: Option<u32>,
    sum: Option<u32>,
    native: Option<u32>,
    created_ms: Option<i64>,
    first: u32,
    last: u32,
    ended: bool,
    ended_native: bool,
    time_ms: i64,
}

/// A point that can be told; without a count it has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub(super) count: Option<f64>,
    pub(super) sum: Option<f64>,
    pub(super) created_ms: Option<i64>,
    pub(super) time_ms: i64,
}

/// Points of one family with their reused buffers.
#[derive(Debug, Default)]
pub(super) struct Gather {
    points: Vec<Point>,
    attributes: Vec<u8>,
    /// Sample and the next bucket of the same point.
    buckets: Vec<(u32, u32)>,
    index: HashMap<u64, u32, foldhash::fast::FixedState>,
    sorted: Vec<(f64, f64)>,
    bounds: Vec<f64>,
    counts: Vec<u64>,
}

impl Gather {
    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.points.clear();
        self.attributes.clear();
        self.buckets.clear();
        self.index.clear();
    }

    /// Points so far.
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// Adds a sample of the metric `base`, which is a slice of the page's arena.
    pub(super) fn add(&mut self, page: &Page, index: u32, base: &[u8], part: Part, attributes: &[u8]) {
        let sample = &page.samples[index as usize];
        let start = sample.name.start as usize;
        let base = (start, start + base.len());
        let number = self.point(page, base, attributes);
        let point = &mut self.points[number];
        point.samples += 1;
        if is_stale(sample.value) {
            point.ended = true;
            point.ended_native |= part == Part::Value;
            point.time_ms = point.time_ms.max(sample.time_unix_ms);
            return;
        }
        match part {
            Part::Count => {
                point.count = Some(index);
                point.time_ms = sample.time_unix_ms;
            }
            Part::Sum => point.sum = Some(index),
            Part::Created => point.created_ms = Some((sample.value * 1000.0) as i64),
            Part::Value if page.histogram_of(sample).is_some() => {
                point.native = Some(index);
                point.time_ms = sample.time_unix_ms;
            }
            Part::Value | Part::Bucket => {
                let at = self.buckets.len() as u32;
                self.buckets.push((index, END));
                if point.first == END {
                    point.first = at;
                } else {
                    self.buckets[point.last as usize].1 = at;
                }
                point.last = at;
            }
        }
    }

    fn point(&mut self, page: &Page, base: (usize, usize), attributes: &[u8]) -> usize {
        let is = |point: &Point| {
            let (start, end) = point.attributes;
            page.arena[point.base.0..point.base.1] == page.arena[base.0..base.1]
                && &self.attributes[start as usize..end as usize] == attributes
        };
        if self.points.last().is_some_and(is) {
            return self.points.len() - 1;
        }
        let name = xxhash_rust::xxh3::xxh3_64(&page.arena[base.0..base.1]);
        let key = xxhash_rust::xxh3::xxh3_64_with_seed(attributes, name);
        if let Some(known) = self.index.get(&key) {
            return *known as usize;
        }
        let start = self.attributes.len() as u32;
        self.attributes.extend_from_slice(attributes);
        self.index.insert(key, self.points.len() as u32);
        self.points.push(Point {
            base,
            attributes: (start, self.attributes.len() as u32),
            samples: 0,
            count: None,
            sum: None,
            native: None,
            created_ms: None,
            first: END,
            last: END,
            ended: false,
            ended_native: false,
            time_ms: i64::MIN,
        });
        self.points.len() - 1
    }

    /// Where the name of a point's metric stands in the page's arena.
    pub(super) fn base(&self, number: usize) -> (usize, usize) {
        self.points[number].base
    }

    /// Attributes of a point.
    pub(super) fn attributes(&self, number: usize) -> &[u8] {
        let (start, end) = self.points[number].attributes;
        &self.attributes[start as usize..end as usize]
    }

    /// Samples of a point.
    pub(super) fn samples(&self, number: usize) -> u32 {
        self.points[number].samples
    }

    /// The native histogram of a point, if it can be told as an exponential one.
    pub(super) fn native<'a>(&self, page: &'a Page, number: usize) -> Option<&'a Histogram> {
        let sample = &page.samples[self.points[number].native? as usize];
        page.histogram_of(sample).filter(|native| is_exponential(native))
    }

    /// True when a point is a native histogram, or was one until it ended.
    pub(super) fn is_native(&self, page: &Page, number: usize) -> bool {
        let point = &self.points[number];
        self.native(page, number).is_some() || (point.ended_native && point.count.is_none())
    }

    /// The point with its buckets made ready for [`Self::explicit`]; `None` when it cannot be told, as one without a count.
    pub(super) fn whole(&mut self, page: &Page, number: usize) -> Option<Whole> {
        let point = self.points[number];
        let value = |index: Option<u32>| Some(page.samples[index? as usize].value);
        let mut whole = Whole {
            count: None,
            sum: value(point.sum),
            created_ms: point.created_ms,
            time_ms: point.time_ms,
        };
        if let Some(native) = self.native(page, number) {
            whole.count = Some(match &native.counts {
                crate::data::sample::Counts::Integer { count, .. } => *count as f64,
                crate::data::sample::Counts::Float { count, .. } => *count,
            });
            return Some(whole);
        }
        whole.count = value(point.count).filter(|count| *count >= 0.0);
        match whole.count {
            Some(count) => self.make_buckets(page, point.first, count),
            None => return (point.ended && point.count.is_none()).then_some(whole),
        }
        Some(whole)
    }

    fn make_buckets(&mut self, page: &Page, first: u32, count: f64) {
        self.sorted.clear();
        self.bounds.clear();
        self.counts.clear();
        let mut at = first;
        while let Some((index, next)) = self.buckets.get(at as usize) {
            let sample = &page.samples[*index as usize];
            let le = page.label(sample, b"le").and_then(number);
            if let Some(le) = le.filter(|le| le.is_finite()) {
                self.sorted.push((le, sample.value));
            }
            at = *next;
        }
        if !self.sorted.is_sorted_by(|one, other| one.0 <= other.0) {
            self.sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        self.sorted.dedup_by(|one, other| one.0 == other.0);
        let mut below = 0_u64;
        for (bound, cumulative) in &self.sorted {
            let cumulative = (*cumulative as u64).max(below);
            self.bounds.push(*bound);
            self.counts.push(cumulative - below);
            below = cumulative;
        }
        self.counts.push((count as u64).saturating_sub(below));
    }

    /// The classic histogram that [`Self::whole`] was last asked for.
    pub(super) fn explicit(&self, whole: &Whole) -> Option<Explicit<'_>> {
        whole.count?;
        Some(Explicit {
            count: self.counts.iter().sum(),
            sum: whole.sum,
            bounds: &self.bounds,
            counts: &self.counts,
        })
    }

    /// The samples of a point that may have exemplars: its buckets, and the native histogram.
    pub(super) fn buckets_of<'a>(
        &'a self,
        page: &'a Page,
        number: usize,
    ) -> impl Iterator<Item = &'a Sample> + 'a {
        let point = &self.points[number];
        let native = point.native.map(|index| &page.samples[index as usize]);
        let mut at = if native.is_some() { END } else { point.first };
        let buckets = std::iter::from_fn(move || {
            let (index, next) = self.buckets.get(at as usize)?;
            at = *next;
            Some(&page.samples[*index as usize])
        });
        native.into_iter().chain(buckets)
    }

    /// Quantiles of a summary and their values.
    pub(super) fn quantiles<'a>(
        &'a self,
        page: &'a Page,
        number: usize,
    ) -> impl Iterator<Item = (f64, f64)> + 'a {
        let samples = self.buckets_of(page, number);
        samples.filter_map(|sample| {
            let quantile = page.label(sample, b"quantile").and_then(self::number)?;
            (0.0..=1.0).contains(&quantile).then_some((quantile, sample.value))
        })
    }
}

fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
