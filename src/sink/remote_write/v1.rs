//! `prometheus.WriteRequest` of remote write 1.0.
//!
//! In: samples of final pages. Out: the message in a snappy block, one `TimeSeries` with one sample each. Most labels of a
//! page stand at the same place of the sample before: their bytes are copied from there, as many as stand together at once.
//! Invariants: no allocation per sample in steady state; a label is only ever taken for an earlier one when it is the same
//! text of the same page.

use super::{Options, Part, histogram, proto, snappy::Block};
use crate::data::sample::{Exemplar, NO_TIME, Page, Sample};

/// Bytes that are kept free for the length of a series' message: enough for 128 to 16,383 bytes, which most have.
const LENGTH: usize = 2;

/// A label of the sample before, and where it stands in the stretch that is being written.
#[derive(Debug, Clone, Copy)]
struct Written {
    part: Part,
    position: u32,
    len: u32,
}

/// A request that is being written.
#[derive(Debug, Default)]
pub(super) struct Request {
    block: Block,
    before: Vec<Written>,
    now: Vec<Written>,
    part: Vec<u8>,
}

/// Bytes of a label's message, without its tag and length.
fn label_len(name: &[u8], value: &[u8]) -> usize {
    proto::bytes_len(name.len()) + proto::bytes_len(value.len())
}

/// Appends a label to a series or an exemplar.
#[inline]
fn write_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let len = label_len(name, value);
    if len < 0x80 {
        // All lengths are one byte.
        out.extend_from_slice(&[0x0a, len as u8, 0x0a, name.len() as u8]);
        out.extend_from_slice(name);
        out.extend_from_slice(&[0x12, value.len() as u8]);
        out.extend_from_slice(value);
    } else {
        out.push(0x0a);
        proto::varint(out, len as u64);
        proto::bytes(out, 1, name);
        proto::bytes(out, 2, value);
    }
}

impl Request {
    /// Uncompressed bytes so far.
    pub(super) fn raw_len(&self) -> usize {
        self.block.len()
    }

    /// A new page begins: spans of the one before mean nothing in it.
    pub(super) fn begin_page(&mut self) {
        self.before.clear();
    }

    /// Appends a sample with its labels, its exemplars and its native histogram.
    pub(super) fn add(&mut self, page: &Page, sample: &Sample, options: &Options) {
        let Self { block, before, now, part } = self;
        if block.make_room() {
            before.clear();
        }
        now.clear();
        let out = block.stretch();
        let tag = out.len();
        out.extend_from_slice(&[0x0a; 1 + LENGTH]);
        // Labels that stand together in the sample before, and are not copied yet.
        let (mut from, mut len) = (0, 0);
        let mut at = 0;
        options.each_part(page, sample, |part| {
            if let Some(earlier) = super::find_near(before, &mut at, |earlier| earlier.part == part) {
                let position = earlier.position as usize;
                if from + len != position {
                    out.extend_from_within(from..from + len);
                    (from, len) = (position, 0);
                }
                now.push(Written { part, position: (out.len() + len) as u32, len: earlier.len });
                len += earlier.len as usize;
                return;
            }
            let (name, value) = options.text(page, part);
            // A label without a value is none.
            if value.is_empty() {
                return;
            }
            out.extend_from_within(from..from + len);
            len = 0;
            let position = out.len();
            write_label(out, name, value);
            now.push(Written { part, position: position as u32, len: (out.len() - position) as u32 });
        });
        out.extend_from_within(from..from + len);
        write_tail(out, part, page, sample, options);
        put_length(out, tag + 1, now);
        std::mem::swap(before, now);
    }

    /// The block as it is sent; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        self.before.clear();
        self.block.seal()
    }
}

/// Writes the length of what stands behind the room at `at` into it; labels move where it needs more or less room.
#[inline]
fn put_length(out: &mut Vec<u8>, at: usize, labels: &mut [Written]) {
    let start = at + LENGTH;
    let len = out.len() - start;
    if (0x80..0x4000).contains(&len) {
        out[at] = len as u8 | 0x80;
        out[at + 1] = (len >> 7) as u8;
        return;
    }
    // Five bytes: a message is far below 4 GiB.
    let mut length = [0; 5];
    let mut rest = len;
    let needed = proto::varint_len(len as u64).min(length.len());
    for (index, byte) in length[..needed].iter_mut().enumerate() {
        *byte = rest as u8 & 0x7f | if index + 1 < needed { 0x80 } else { 0 };
        rest >>= 7;
    }
    out.splice(at..start, length[..needed].iter().copied());
    for label in labels {
        label.position = label.position + needed as u32 - LENGTH as u32;
    }
}

/// The sample, its exemplars and its histogram: what follows the labels.
#[inline]
fn write_tail(out: &mut Vec<u8>, part: &mut Vec<u8>, page: &Page, sample: &Sample, options: &Options) {
    let time = sample.time_unix_ms;
    let histogram = page.histogram_of(sample);
    if histogram.is_none() {
        let of_value = if sample.value.to_bits() == 0 { 0 } else { 9 };
        let of_time = if time == 0 { 0 } else { 1 + proto::varint_len(time as u64) };
        out.extend_from_slice(&[2 << 3 | 2, (of_value + of_time) as u8]);
        proto::double(out, 1, sample.value);
        proto::number(out, 2, time as u64);
    }
    if options.exemplars {
        for exemplar in page.exemplars_of(sample) {
            part.clear();
            write_exemplar(part, page, exemplar, time);
            proto::bytes(out, 3, part);
        }
    }
    if let Some(histogram) = histogram {
        part.clear();
        histogram::write(part, histogram, sample.value, time);
        proto::bytes(out, 4, part);
    }
}

fn write_exemplar(out: &mut Vec<u8>, page: &Page, exemplar: &Exemplar, time: i64) {
    for label in page.exemplar_labels(exemplar) {
        let (name, value) = (page.bytes(label.name), page.bytes(label.value));
        write_label(out, name, value);
    }
    proto::double(out, 2, exemplar.value);
    let time = if exemplar.time_unix_ms == NO_TIME { time } else { exemplar.time_unix_ms };
    proto::number(out, 3, time as u64);
}

/// Appends one `MetricMetadata` to a request.
pub(super) fn write_metadata(out: &mut Vec<u8>, kind: u64, name: &[u8], help: &[u8], unit: &[u8]) {
    let mut message = Vec::with_capacity(name.len() + help.len() + unit.len() + 16);
    proto::number(&mut message, 1, kind);
    proto::bytes(&mut message, 2, name);
    if !help.is_empty() {
        proto::bytes(&mut message, 4, help);
    }
    if !unit.is_empty() {
        proto::bytes(&mut message, 5, unit);
    }
    proto::bytes(out, 3, &message);
}
