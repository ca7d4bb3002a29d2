//! Data points as protobuf.
//!
//! Field numbers: opentelemetry-proto, `metrics/v1/metrics.proto`. Invariant: nothing is allocated; a point is written into
//! the caller's buffer without its own tag and length.

use crate::data::sample::{Counts, Exemplar, Histogram, NO_TIME, Page};
use crate::data::varint;
use crate::sink::otlp::encode::{utf8, write_bytes, write_string_attribute};

/// Says that a series has ended. Source: `DataPointFlags`.
const NO_RECORDED_VALUE: u8 = 1;
/// Buckets of a native histogram that are written, gaps included.
const BUCKETS: usize = 4096;

const fn bytes(field: u8) -> u8 {
    field << 3 | 2
}

fn fixed(field: u8, value: u64, out: &mut Vec<u8>) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn double(field: u8, value: f64, out: &mut Vec<u8>) {
    fixed(field, value.to_bits(), out);
}

/// Milliseconds since the epoch as nanoseconds; what lies before the epoch is unknown.
fn nanos(time_ms: i64) -> u64 {
    u64::try_from(time_ms).unwrap_or(0).saturating_mul(1_000_000)
}

/// What all points have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    /// Attributes one after the other, each a byte in place of its tag, its length and a `KeyValue`.
    pub(super) attributes: &'a [u8],
    /// When it began, for what is cumulative.
    pub(super) start_ms: Option<i64>,
    /// Its time.
    pub(super) time_ms: i64,
}

impl Head<'_> {
    /// Start and time have the same numbers in every kind of point, attributes and flags have not.
    fn write(&self, attributes: u8, ended: Option<u8>, out: &mut Vec<u8>) {
        if let Some(start_ms) = self.start_ms {
            fixed(2, nanos(start_ms), out);
        }
        fixed(3, nanos(self.time_ms), out);
        let mut rest = self.attributes;
        while let Some((_, tail)) = rest.split_first() {
            // The length of the KeyValue, as a varint.
            let mut len = 0_usize;
            let mut head = 0;
            for byte in tail {
                len |= usize::from(byte & 0x7f) << (7 * head);
                head += 1;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let end = (head + len).min(tail.len());
            out.push(bytes(attributes));
            out.extend_from_slice(&tail[..end]);
            rest = &tail[end..];
        }
        if let Some(flags) = ended {
            out.extend_from_slice(&[flags << 3, NO_RECORDED_VALUE]);
        }
    }
}

/// A `NumberDataPoint`; without a value it says that the series has ended.
pub(super) fn number(head: Head<'_>, value: Option<f64>, exemplars: &[u8], out: &mut Vec<u8>) {
    head.write(7, value.is_none().then_some(8), out);
    if let Some(value) = value {
        double(4, value, out);
    }
    with_exemplars(5, exemplars, out);
}

/// Counts and bounds of a histogram: buckets are one more than bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explicit<'a> {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) bounds: &'a [f64],
    pub(super) counts: &'a [u64],
}

/// A `HistogramDataPoint`.
pub(super) fn histogram(head: Head<'_>, value: Option<Explicit<'_>>, exemplars: &[u8], out: &mut Vec<u8>) {
    head.write(9, value.is_none().then_some(10), out);
    if let Some(value) = value {
        fixed(4, value.count, out);
        if let Some(sum) = value.sum {
            double(5, sum, out);
        }
        out.push(bytes(6));
        varint::write(out, value.counts.len() as u64 * 8);
        value.counts.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        if !value.bounds.is_empty() {
            out.push(bytes(7));
            varint::write(out, value.bounds.len() as u64 * 8);
            value.bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes()));
        }
    }
    with_exemplars(8, exemplars, out);
}

/// A `SummaryDataPoint` of quantiles and their values.
pub(super) fn summary(
    head: Head<'_>,
    value: Option<(u64, f64)>,
    quantiles: impl Iterator<Item = (f64, f64)>,
    out: &mut Vec<u8>,
) {
    head.write(7, value.is_none().then_some(8), out);
    if let Some((count, sum)) = value {
        fixed(4, count, out);
        double(5, sum, out);
        for (quantile, value) in quantiles {
            out.extend_from_slice(&[bytes(6), 18]);
            double(1, quantile, out);
            double(2, value, out);
        }
    }
}

/// True when a native histogram can be told as an exponential one.
pub(super) fn is_exponential(native: &Histogram) -> bool {
    (-4..=8).contains(&native.schema) && !native.gauge
}

/// An `ExponentialHistogramDataPoint`. `scratch` is emptied.
pub(super) fn exponential(
    head: Head<'_>,
    value: Option<&Histogram>,
    exemplars: &[u8],
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    head.write(1, value.is_none().then_some(10), out);
    if let Some(native) = value {
        let (count, zero) = match &native.counts {
            Counts::Integer { count, zero, .. } => (*count, *zero),
            Counts::Float { count, zero, .. } => (*count as u64, *zero as u64),
        };
        fixed(4, count, out);
        double(5, native.sum, out);
        out.push(6 << 3);
        varint::write(out, zigzag(native.schema));
        fixed(7, zero, out);
        for (field, spans, is_positive) in
            [(8, &native.positive_spans, true), (9, &native.negative_spans, false)]
        {
            if spans.is_empty() {
                continue;
            }
            scratch.clear();
            match &native.counts {
                Counts::Integer { positive, negative, .. } => {
                    let deltas = if is_positive { positive } else { negative };
                    let mut sum = 0_i64;
                    let counts = deltas.iter().map(|delta| {
                        sum = sum.saturating_add(*delta);
                        u64::try_from(sum).unwrap_or(0)
                    });
                    buckets(spans, counts, scratch);
                }
                Counts::Float { positive, negative, .. } => {
                    let counts = if is_positive { positive } else { negative };
                    buckets(spans, counts.iter().map(|count| *count as u64), scratch);
                }
            }
            // Prometheus numbers a bucket by its upper bound, OpenTelemetry by its lower one.
            let offset = zigzag(spans[0].offset.saturating_sub(1));
            let len = 1
                + varint::len((offset as usize) as u64)
                + 1
                + varint::len(scratch.len() as u64)
                + scratch.len();
            out.push(bytes(field));
            varint::write(out, len as u64);
            out.push(1 << 3);
            varint::write(out, offset);
            write_bytes(bytes(2), scratch, out);
        }
        if native.zero_threshold != 0.0 {
            double(14, native.zero_threshold, out);
        }
    }
    with_exemplars(11, exemplars, out);
}

fn buckets(
    spans: &[crate::data::sample::BucketSpan],
    mut counts: impl Iterator<Item = u64>,
    out: &mut Vec<u8>,
) {
    let mut written = 0;
    for (index, span) in spans.iter().enumerate() {
        let gap = if index == 0 { 0 } else { usize::try_from(span.offset).unwrap_or(0) };
        for _ in 0..gap.min(BUCKETS - written) {
            out.push(0);
            written += 1;
        }
        for count in counts.by_ref().take((span.length as usize).min(BUCKETS - written)) {
            varint::write(out, count);
            written += 1;
        }
    }
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

/// Exemplars are kept one after the other, each a length of four bytes and its message.
fn with_exemplars(field: u8, mut exemplars: &[u8], out: &mut Vec<u8>) {
    while let Some((len, rest)) = exemplars.split_first_chunk::<4>() {
        let (message, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        write_bytes(bytes(field), message, out);
        exemplars = rest;
    }
}

/// Appends an exemplar as [`with_exemplars`] reads it. One without a time has the sample's.
pub(super) fn exemplar(page: &Page, exemplar: &Exemplar, time_ms: i64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let time_ms = if exemplar.time_unix_ms == NO_TIME { time_ms } else { exemplar.time_unix_ms };
    fixed(2, nanos(time_ms), out);
    double(3, exemplar.value, out);
    for label in page.exemplar_labels(exemplar) {
        let (name, value) = (page.bytes(label.name), page.bytes(label.value));
        let mut id = [0_u8; 16];
        match name {
            b"trace_id" if hex(value, &mut id) => write_bytes(bytes(5), &id, out),
            b"span_id" if hex(value, &mut id[..8]) => write_bytes(bytes(4), &id[..8], out),
            _ => write_string_attribute(bytes(7), &utf8(name), &utf8(value), out),
        }
    }
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Reads an id of exactly `out`'s length; one of zeroes is none.
fn hex(text: &[u8], out: &mut [u8]) -> bool {
    if text.len() != 2 * out.len() {
        return false;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |digit: u8| (digit as char).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return false };
        *byte = (high << 4 | low) as u8;
    }
    out.iter().any(|byte| *byte != 0)
}
