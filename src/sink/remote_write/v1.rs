//! `prometheus.WriteRequest` of remote write 1.0, written straight into a snappy block.
//!
//! In: samples of final pages. Out: the block, one `TimeSeries` with one sample each. Most labels of a page stand a few
//! hundred bytes further up already: at the same place of the sample before, or where they were written last. They are
//! neither written nor searched for: a copy element points at them. Invariants: no allocation per sample in steady state;
//! a label is only ever taken for an earlier one when all its bytes are equal.

use std::hash::{BuildHasher as _, RandomState};

use xxhash_rust::xxh3;

use super::{Options, Part, histogram, proto, snappy::Snappy};
use crate::data::sample::{Exemplar, NO_TIME, Page, Sample};

/// Labels that are remembered: one for each place that their hash names.
const REMEMBERED: usize = 2048;

/// A label that stands in the block.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    hash: u64,
    /// Where its name and value stand in `texts`.
    text: u32,
    name_len: u32,
    value_len: u32,
    /// Where it was written last.
    position: u32,
}

/// A label of the sample before.
#[derive(Debug, Clone, Copy)]
struct Written {
    part: Part,
    position: u32,
    len: u32,
    /// It stands near the same place of the sample before it, at `position` until it is written anew.
    is_near: bool,
}

/// A request that is being written.
#[derive(Debug)]
pub(super) struct Request {
    block: Snappy,
    known: Vec<Known>,
    texts: Vec<u8>,
    before: Vec<Written>,
    now: Vec<Written>,
    tail: Vec<u8>,
    part: Vec<u8>,
    seed: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            block: Snappy::default(),
            known: vec![Known::default(); REMEMBERED],
            texts: Vec::new(),
            before: Vec::new(),
            now: Vec::new(),
            tail: Vec::new(),
            part: Vec::new(),
            // A target cannot choose labels that all fall into one place.
            seed: RandomState::new().hash_one(0_u8),
        }
    }
}

/// Bytes of a label's message, without its tag and length.
fn label_len(name: &[u8], value: &[u8]) -> usize {
    proto::bytes_len(name.len()) + proto::bytes_len(value.len())
}

impl Request {
    /// Uncompressed bytes so far.
    pub(super) fn raw_len(&self) -> usize {
        self.block.position() as usize
    }

    /// A new page begins: spans of the one before mean nothing in it.
    pub(super) fn begin_page(&mut self) {
        self.before.clear();
    }

    /// Appends a sample with its labels, its exemplars and its native histogram.
    pub(super) fn add(&mut self, page: &Page, sample: &Sample, options: &Options) {
        let Self { block, known, texts, before, now, tail, part, seed } = self;
        now.clear();
        let (mut size, mut at) = (0, 0);
        options.each_part(page, sample, |part| {
            if let Some(earlier) = super::find_near(before, &mut at, |earlier| earlier.part == part) {
                size += earlier.len as usize;
                now.push(Written { part, position: earlier.position, len: earlier.len, is_near: true });
                return;
            }
            let (name, value) = options.text(page, part);
            // A label without a value is none.
            if !value.is_empty() {
                let inner = label_len(name, value);
                let len = 1 + proto::varint_len(inner as u64) + inner;
                size += len;
                now.push(Written { part, position: 0, len: len as u32, is_near: false });
            }
        });
        tail.clear();
        write_tail(tail, part, page, sample, options);
        size += tail.len();

        let literal = block.literal();
        let start = literal.len();
        literal.push(0x0a);
        proto::varint(literal, size as u64);
        block.end_literal(start);
        for written in now.iter_mut() {
            let from = std::mem::replace(&mut written.position, block.position());
            if written.is_near {
                block.copy(from, written.len);
                continue;
            }
            let (name, value) = options.text(page, written.part);
            let hash = xxh3::xxh3_64_with_seed(value, xxh3::xxh3_64_with_seed(name, *seed));
            let slot = &mut known[hash as usize % REMEMBERED];
            let is_known = slot.hash == hash && slot.name_len as usize == name.len() && {
                let text = &texts[slot.text as usize..];
                slot.value_len as usize == value.len()
                    && text.starts_with(name)
                    && text[name.len()..].starts_with(value)
            };
            if is_known {
                block.copy(slot.position, written.len);
                slot.position = written.position;
                continue;
            }
            *slot = Known {
                hash,
                text: texts.len() as u32,
                name_len: name.len() as u32,
                value_len: value.len() as u32,
                position: written.position,
            };
            texts.extend_from_slice(name);
            texts.extend_from_slice(value);
            let literal = block.literal();
            let start = literal.len();
            literal.push(0x0a);
            proto::varint(literal, label_len(name, value) as u64);
            proto::bytes(literal, 1, name);
            proto::bytes(literal, 2, value);
            block.end_literal(start);
        }
        let literal = block.literal();
        let start = literal.len();
        literal.extend_from_slice(tail);
        block.end_literal(start);
        std::mem::swap(before, now);
    }

    /// The block as it is sent; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        let sealed = self.block.seal();
        self.before.clear();
        self.known.fill(Known::default());
        self.texts.clear();
        // A large request is over: what it needed is not needed while little happens.
        self.block.shrink(2 * sealed.len());
        self.texts.shrink_to(64 << 10);
        sealed
    }
}

/// The sample, its exemplars and its histogram: what follows the labels.
fn write_tail(out: &mut Vec<u8>, part: &mut Vec<u8>, page: &Page, sample: &Sample, options: &Options) {
    let time = sample.time_unix_ms;
    let histogram = page.histogram_of(sample);
    if histogram.is_none() {
        part.clear();
        proto::double(part, 1, sample.value);
        proto::number(part, 2, time as u64);
        proto::bytes(out, 2, part);
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
        out.push(0x0a);
        proto::varint(out, label_len(name, value) as u64);
        proto::bytes(out, 1, name);
        proto::bytes(out, 2, value);
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
