//! Native histograms of request durations: how many requests lie within a threshold.
//!
//! In: a [`Histogram`] as it was scraped. Out: counts up to the bounds around a threshold. Invariant: buckets are counted whole;
//! a threshold inside of one has two neighbours, and nothing is interpolated.
//!
//! Source: OpenTelemetry "Exponential histogram" and Prometheus `model/histogram`: the bucket `i` of schema `s` ends at
//! 2^(i · 2^-s) and holds its end.

use super::bracket::Neighbours;
use crate::data::sample::{BucketSpan, Counts, Histogram};

/// All observations.
pub(super) fn total(histogram: &Histogram) -> f64 {
    match &histogram.counts {
        Counts::Integer { count, .. } => *count as f64,
        Counts::Float { count, .. } => *count,
    }
}

/// The neighbours of `threshold` (seconds) and the observations within the upper and within the lower one. `per_second` is the
/// histogram's unit.
pub(super) fn within(histogram: &Histogram, threshold: f64, per_second: f64) -> (Neighbours, [f64; 2]) {
    let steps = 2_f64.powi(histogram.schema);
    let at = (threshold * per_second).log2() * steps;
    // What arithmetic adds to a threshold that is a bound.
    let (below, above) =
        if (at - at.round()).abs() < 1e-9 { (at.round(), at.round()) } else { (at.floor(), at.ceil()) };
    let end = |index: f64| 2_f64.powf(index / steps) / per_second;
    let bounds = [below, above].map(|index| if below == above { threshold } else { end(index) });
    let near = Neighbours {
        lower: bounds[0],
        upper: bounds[1],
        texts: bounds.map(|seconds| tidy(seconds).to_string().into()),
    };
    let lowest =
        if end(below) * per_second < histogram.zero_threshold { 0.0 } else { up_to(histogram, below) };
    (near, [up_to(histogram, above), lowest])
}

/// Four digits tell a bound from its neighbours, whatever the resolution.
fn tidy(seconds: f64) -> f64 {
    format!("{seconds:.3e}").parse().unwrap_or(seconds)
}

/// Observations up to the end of a bucket, those at zero and below it included.
fn up_to(histogram: &Histogram, index: f64) -> f64 {
    let spans = &histogram.positive_spans;
    match &histogram.counts {
        Counts::Integer { zero, negative, positive, .. } => {
            let mut running = 0_i64;
            let mut absolute = |delta: &i64| {
                running = running.saturating_add(*delta);
                running as f64
            };
            let below: f64 = negative.iter().map(&mut absolute).sum();
            running = 0;
            let mut absolute = |delta: &i64| {
                running = running.saturating_add(*delta);
                running as f64
            };
            *zero as f64 + below + sum(spans, positive.iter().map(&mut absolute), index)
        }
        Counts::Float { zero, negative, positive, .. } => {
            zero + negative.iter().sum::<f64>() + sum(spans, positive.iter().copied(), index)
        }
    }
}

fn sum(spans: &[BucketSpan], mut counts: impl Iterator<Item = f64>, index: f64) -> f64 {
    let (mut at, mut total) = (0_i64, 0.0);
    for span in spans {
        at += i64::from(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return total };
            if at as f64 <= index {
                total += count;
            }
            at += 1;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Schema 0: buckets end at powers of two. Five at zero, 10 in (1/16, 1/8], 20 in (1/8, 1/4], 30 in (1/2, 1].
    fn histogram() -> Histogram {
        Histogram {
            counts: Counts::Integer { count: 65, zero: 5, negative: Vec::new(), positive: vec![10, 10, 10] },
            sum: 30.0,
            schema: 0,
            zero_threshold: 1e-30,
            negative_spans: Vec::new(),
            positive_spans: vec![BucketSpan { offset: -3, length: 2 }, BucketSpan { offset: 1, length: 1 }],
            gauge: false,
        }
    }

    #[test]
    fn a_threshold_inside_of_a_bucket_has_two_counts() {
        let (near, counts) = within(&histogram(), 0.2, 1.0);
        assert_eq!(near.texts.map(String::from), ["0.125", "0.25"]);
        assert_eq!(counts, [35.0, 15.0]);
        assert_eq!(total(&histogram()), 65.0);
        // The same in milliseconds: 200 ms lie between 128 and 256.
        let (near, _) = within(&histogram(), 0.2, 1000.0);
        assert_eq!(near.texts.map(String::from), ["0.128", "0.256"]);
    }

    #[test]
    fn a_threshold_at_the_end_of_a_bucket_is_exact() {
        let (near, counts) = within(&histogram(), 0.25, 1.0);
        assert!(near.is_exact());
        assert_eq!(counts, [35.0, 35.0]);
        let (near, counts) = within(&histogram(), 2.0, 1.0);
        assert!(near.is_exact());
        assert_eq!(counts, [65.0, 65.0]);
    }
}
