//! Histograms of the protobuf format, classic and native.
//!
//! In: a `Histogram` message. Out: `_count`, `_sum` and a `_bucket` sample for each bucket, `+Inf` among them whether it is said
//! or not; or, when native buckets are there, one sample with all of them.
//! Invariant: a native histogram has as many buckets as its spans say; integer buckets add up without overflow, none below zero.

use super::build::Builder;
use super::number::canonical;
use super::protobuf::{Family, Metric, labelled, read_exemplar};
use super::wire::{Fields, Stretch, zigzag};
use super::{Fault, Parsed};
use crate::data::sample::{BucketSpan, Counts, Histogram, MetricKind};

/// Resolutions with a base of two. Source: Prometheus `model/histogram/generic.go`.
const SCHEMAS: std::ops::RangeInclusive<i64> = -4..=8;

/// What a histogram says, its buckets aside.
#[derive(Debug, Default)]
struct Head {
    count: u64,
    count_float: f64,
    sum: f64,
    schema: i64,
    zero_threshold: f64,
    zero: u64,
    zero_float: f64,
    spans: u64,
    exemplars: u64,
}

pub(super) fn read(builder: &mut Builder<'_>, family: &Family, metric: &Metric) -> Parsed<()> {
    let mut head = Head::default();
    let mut fields = Fields::new(builder.text, metric.inner);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => head.count = fields.whole(value)?,
            2 => head.sum = canonical(fields.float(value)?),
            4 => head.count_float = fields.float(value)?,
            5 => head.schema = zigzag(fields.whole(value)?),
            6 => head.zero_threshold = fields.float(value)?,
            7 => head.zero = fields.whole(value)?,
            8 => head.zero_float = fields.float(value)?,
            9 | 12 => head.spans += 1,
            16 => head.exemplars += 1,
            _ => {}
        }
    }
    if head.spans > 0 || head.zero_threshold > 0.0 || head.zero > 0 {
        return native(builder, family, metric, &head);
    }
    classic(builder, family, metric, &head)
}

fn classic(builder: &mut Builder<'_>, family: &Family, metric: &Metric, head: &Head) -> Parsed<()> {
    let count = either(head.count_float, head.count);
    builder.sample_of(family.id, family.count, count, metric.time_unix_ms)?;
    builder.repeat(metric.labels, metric.label_count);
    builder.sample_of(family.id, family.sum, head.sum, metric.time_unix_ms)?;
    let mut fields = Fields::new(builder.text, metric.inner);
    let mut place = 0;
    while let Some((field, value)) = fields.next()? {
        if field != 3 {
            continue;
        }
        let (mut cumulative, mut cumulative_float, mut bound, mut exemplar) = (0, 0.0, 0.0, None);
        let mut inside = Fields::new(builder.text, fields.bytes(value)?);
        while let Some((field, value)) = inside.next()? {
            match field {
                1 => cumulative = inside.whole(value)?,
                2 => bound = inside.float(value)?,
                3 => exemplar = Some(inside.bytes(value)?),
                4 => cumulative_float = inside.float(value)?,
                _ => {}
            }
        }
        labelled(builder, metric, b"le", place, bound)?;
        let cumulative = either(cumulative_float, cumulative);
        builder.sample_of(family.id, family.bucket, cumulative, metric.time_unix_ms)?;
        if let Some(message) = exemplar
            && let Some(place) = read_exemplar(builder, message, false)?
        {
            builder.attach(place, 1);
        }
        if bound == f64::INFINITY {
            return Ok(());
        }
        place += 1;
    }
    labelled(builder, metric, b"le", place, f64::INFINITY)?;
    builder.sample_of(family.id, family.bucket, count, metric.time_unix_ms)
}

/// A float where one is said, else the integer.
fn either(float: f64, integer: u64) -> f64 {
    if float == 0.0 { integer as f64 } else { canonical(float) }
}

/// One side of a native histogram.
#[derive(Debug, Default)]
struct Side {
    spans: Vec<BucketSpan>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

fn native(builder: &mut Builder<'_>, family: &Family, metric: &Metric, head: &Head) -> Parsed<()> {
    if !SCHEMAS.contains(&head.schema) {
        return Fault::at(metric.at, "expected a native histogram's schema from -4 to 8");
    }
    let float = head.count_float > 0.0 || head.zero_float > 0.0;
    let (mut negative, mut positive) = (Side::default(), Side::default());
    let mut fields = Fields::new(builder.text, metric.inner);
    while let Some((field, value)) = fields.next()? {
        let side = if field <= 11 { &mut negative } else { &mut positive };
        match field {
            9 | 12 => {
                builder.native(1)?;
                side.spans.push(span(builder.text, fields.bytes(value)?)?);
            }
            10 | 13 if !float => fields.list(value, |delta| {
                side.deltas.push(zigzag(delta));
                builder.native(1)
            })?,
            11 | 14 if float => fields.floats(value, |count| {
                side.counts.push(count);
                builder.native(1)
            })?,
            _ => {}
        }
    }
    check(metric.at, &negative)?;
    check(metric.at, &positive)?;
    let counts = if float {
        Counts::Float {
            count: head.count_float,
            zero: head.zero_float,
            negative: negative.counts,
            positive: positive.counts,
        }
    } else {
        Counts::Integer {
            count: head.count,
            zero: head.zero,
            negative: negative.deltas,
            positive: positive.deltas,
        }
    };
    builder.page.histograms.push(Histogram {
        counts,
        sum: head.sum,
        schema: head.schema as i32,
        zero_threshold: head.zero_threshold,
        negative_spans: negative.spans,
        positive_spans: positive.spans,
        gauge: family.kind == MetricKind::GaugeHistogram,
    });
    builder.sample_of(family.id, family.name, head.sum, metric.time_unix_ms)?;
    let histogram = builder.page.histograms.len() as u32 - 1;
    if let Some(sample) = builder.page.samples.last_mut() {
        sample.histogram = histogram;
    }
    native_exemplars(builder, metric, head.exemplars > 0)
}

fn span(text: &[u8], message: Stretch) -> Parsed<BucketSpan> {
    let mut span = BucketSpan::default();
    let mut fields = Fields::new(text, message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => span.offset = zigzag(fields.whole(value)?) as i32,
            2 => span.length = fields.whole(value)? as u32,
            _ => {}
        }
    }
    Ok(span)
}

/// Checks one side, so that whoever adds deltas up neither runs out of spans nor over.
fn check(at: usize, side: &Side) -> Parsed<()> {
    let told: u64 = side.spans.iter().map(|span| u64::from(span.length)).sum();
    if told != (side.deltas.len() + side.counts.len()) as u64 {
        return Fault::at(at, "expected as many native buckets as their spans have");
    }
    let mut deltas = side.deltas.iter();
    let sums = deltas.try_fold((0_i64, 0_i64), |(bucket, sum), delta| {
        let bucket = bucket.checked_add(*delta).filter(|bucket| *bucket >= 0)?;
        Some((bucket, sum.checked_add(bucket)?))
    });
    match sums {
        Some(_) => Ok(()),
        None => Fault::at(at, "expected no native bucket below zero"),
    }
}

/// The exemplars of a native histogram: its own, or else those of its classic buckets. Only those with a time, oldest first.
fn native_exemplars(builder: &mut Builder<'_>, metric: &Metric, own: bool) -> Parsed<()> {
    let first = builder.page.exemplars.len();
    let mut fields = Fields::new(builder.text, metric.inner);
    while let Some((field, value)) = fields.next()? {
        match field {
            16 if own => {
                let message = fields.bytes(value)?;
                read_exemplar(builder, message, true)?;
            }
            3 if !own => {
                let mut inside = Fields::new(builder.text, fields.bytes(value)?);
                while let Some((field, value)) = inside.next()? {
                    if field == 3 {
                        let message = inside.bytes(value)?;
                        read_exemplar(builder, message, true)?;
                    }
                }
            }
            _ => {}
        }
    }
    let found = builder.page.exemplars.len() - first;
    if found > 0 {
        builder.page.exemplars[first..].sort_unstable_by_key(|exemplar| exemplar.time_unix_ms);
        builder.attach(builder.page.exemplars.len() as u32 - 1, found as u32);
    }
    Ok(())
}
