//! Native histograms as both versions of remote write have them: `prometheus.Histogram` and
//! `io.prometheus.write.v2.Histogram` agree field by field.
//!
//! Source: Prometheus `prompb/types.proto` and `prompb/io/prometheus/write/v2/types.proto`.

use super::proto;
use crate::data::sample::{BucketSpan, Counts, Histogram, is_stale};

/// `Histogram.ResetHint` of a gauge histogram.
const GAUGE: u64 = 3;

/// Appends the message of `histogram` at `time_unix_ms`. A `value` that is the mark of staleness makes it one: a histogram
/// without counts whose sum is that mark.
pub(super) fn write(out: &mut Vec<u8>, histogram: &Histogram, value: f64, time_unix_ms: i64) {
    if is_stale(value) {
        proto::double(out, 3, value);
        proto::number(out, 15, time_unix_ms as u64);
        return;
    }
    // The counts say by their field of which kind they are, so they are written when they are 0 too.
    match &histogram.counts {
        Counts::Integer { count, .. } => always(out, 1, *count),
        Counts::Float { count, .. } => always_double(out, 2, *count),
    }
    proto::double(out, 3, histogram.sum);
    proto::number(out, 4, proto::zigzag(i64::from(histogram.schema)));
    proto::double(out, 5, histogram.zero_threshold);
    match &histogram.counts {
        Counts::Integer { zero, negative, positive, .. } => {
            always(out, 6, *zero);
            spans(out, 8, &histogram.negative_spans);
            deltas(out, 9, negative);
            spans(out, 11, &histogram.positive_spans);
            deltas(out, 12, positive);
        }
        Counts::Float { zero, negative, positive, .. } => {
            always_double(out, 7, *zero);
            spans(out, 8, &histogram.negative_spans);
            doubles(out, 10, negative);
            spans(out, 11, &histogram.positive_spans);
            doubles(out, 13, positive);
        }
    }
    proto::number(out, 14, if histogram.gauge { GAUGE } else { 0 });
    proto::number(out, 15, time_unix_ms as u64);
}

fn always(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    proto::varint(out, value);
}

fn always_double(out: &mut Vec<u8>, number: u8, value: f64) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn spans(out: &mut Vec<u8>, number: u8, spans: &[BucketSpan]) {
    for span in spans {
        let (offset, length) = (proto::zigzag(i64::from(span.offset)), u64::from(span.length));
        let size = |value: u64| if value == 0 { 0 } else { 1 + proto::varint_len(value) };
        out.push(number << 3 | 2);
        proto::varint(out, (size(offset) + size(length)) as u64);
        proto::number(out, 1, offset);
        proto::number(out, 2, length);
    }
}

fn deltas(out: &mut Vec<u8>, number: u8, deltas: &[i64]) {
    if deltas.is_empty() {
        return;
    }
    let size: usize = deltas.iter().map(|&delta| proto::varint_len(proto::zigzag(delta))).sum();
    out.push(number << 3 | 2);
    proto::varint(out, size as u64);
    for &delta in deltas {
        proto::varint(out, proto::zigzag(delta));
    }
}

fn doubles(out: &mut Vec<u8>, number: u8, counts: &[f64]) {
    if counts.is_empty() {
        return;
    }
    out.push(number << 3 | 2);
    proto::varint(out, 8 * counts.len() as u64);
    for count in counts {
        out.extend_from_slice(&count.to_bits().to_le_bytes());
    }
}
