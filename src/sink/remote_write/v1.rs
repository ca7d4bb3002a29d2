//! `prometheus.WriteRequest` of remote write 1.0.
//!
//! In: samples of final pages. Out: the message in a snappy block, one `TimeSeries` with one sample each. Most labels of a
//! page stand at the same place of the sample before, and of the others most have come before in the page: the block is
//! told where, and nothing is written twice to be compressed again.
//! Invariants: no allocation per sample in steady state; a label is only ever taken for an earlier one when it is the same
//! text of the same page.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::snappy::{Block, REACH};
use super::{Options, Part, histogram, proto};
use crate::data::sample::{Exemplar, Label, NO_TIME, Page, Sample, Span};

/// Longest message that is told by what came before: then all of it, and the sample before, is in reach.
const LONGEST: usize = REACH / 4;

/// Texts of labels that are remembered, by hash.
const TEXTS: usize = 512;

/// Where a span begins that is a label of the sink's own; its length is which.
const OWN: u32 = u32::MAX;

/// A label that stands in the block.
#[derive(Debug, Clone, Copy)]
struct Written {
    label: Label,
    at: u32,
    len: u32,
}

/// A request that is being written.
#[derive(Debug, Default)]
pub(super) struct Request {
    block: Block,
    texts: Texts,
    last: Option<Last>,
    /// Labels of this sample and the one before, where the sink adds its own; else they stand in the page.
    merged: Vec<Label>,
    merged_before: Vec<Label>,
    /// Where each label of the sample before ends, from the first one's beginning.
    ends: Vec<u32>,
    new_ends: Vec<u32>,
    pieces: Vec<Piece>,
    tail: Vec<u8>,
    tail_before: Vec<u8>,
    part: Vec<u8>,
}

/// The sample before, as it stands in the block and in the page.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// Where its message begins, with its tag.
    at: usize,
    /// Bytes of the message, without tag and length.
    len: usize,
    /// First of its labels in the page, and their number.
    labels: usize,
    count: usize,
}

/// What a message's labels are put together from.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// Bytes that stand in the block.
    Copy { from: usize, len: usize },
    /// A label that has not come yet, and where it begins, from the first one's beginning.
    New { label: Label, at: u32 },
}

/// Where labels of the page stand in the block, by their texts. One that takes another's place drives it out.
#[derive(Debug)]
struct Texts {
    places: Box<[Option<Written>; TEXTS]>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { places: Box::new([None; TEXTS]) }
    }
}

impl Texts {
    fn forget(&mut self) {
        self.places.fill(None);
    }

    /// The place of a label's text.
    #[inline]
    fn place(&mut self, name: &[u8], value: &[u8]) -> &mut Option<Written> {
        let hash = xxh3_64_with_seed(value, name.len() as u64);
        &mut self.places[hash as usize % TEXTS]
    }
}

/// True for labels at the same places of the page.
#[inline]
fn is_same(a: &Label, b: &Label) -> bool {
    (a.name.start ^ b.name.start)
        | (a.name.len ^ b.name.len)
        | (a.value.start ^ b.value.start)
        | (a.value.len ^ b.value.len)
        == 0
}

/// Name and value of a label.
#[inline]
fn text<'a>(page: &'a Page, options: &'a Options, label: Label) -> (&'a [u8], &'a [u8]) {
    match label.name.start {
        OWN => options.text(page, Part::Own(label.name.len)),
        _ => (page.bytes(label.name), page.bytes(label.value)),
    }
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
        self.last = None;
        self.texts.forget();
    }

    /// Appends a sample with its labels, its exemplars and its native histogram.
    pub(super) fn add(&mut self, page: &Page, sample: &Sample, options: &Options) {
        let mut labels = self.gather(page, sample, options);
        if labels > LONGEST {
            // Too long to be in reach of what follows: it stands for itself, and so does the next.
            self.begin_page();
            labels = self.gather(page, sample, options);
        }
        let Self { block, last, pieces, tail, tail_before, part, .. } = self;
        std::mem::swap(tail, tail_before);
        tail.clear();
        write_tail(tail, part, page, sample, options);
        let at = block.len();
        let len = labels + tail.len();

        let mut run = Run { from: 0, len: 0 };
        match last {
            Some(last) if last.len == len => run.copy(block, last.at, head_len(len)),
            _ => write_head(block.new_bytes(), len),
        }
        for piece in pieces.iter() {
            match *piece {
                Piece::Copy { from, len } => run.copy(block, from, len),
                Piece::New { label, .. } => {
                    run.end(block);
                    let (name, value) = text(page, options, label);
                    write_label(block.new_bytes(), name, value);
                }
            }
        }
        match last {
            // Many values are the same, most begin with the same bytes, and the time at the end is that of the page.
            Some(last) if tail.len() <= LONGEST => {
                let start = last.at + head_len(last.len) + last.len - tail_before.len();
                let both = tail.iter().zip(tail_before.iter());
                let first = both.take_while(|(a, b)| a == b).count();
                let first = if first < SHORTEST && !run.ends_at(start) { 0 } else { first };
                run.copy(block, start, first);
                run.end(block);
                let (tail, before) = (&tail[first..], &tail_before[first..]);
                let both = tail.iter().rev().zip(before.iter().rev());
                let end = both.take_while(|(a, b)| a == b).count();
                let end = if end < SHORTEST { 0 } else { end };
                block.new_bytes().extend_from_slice(&tail[..tail.len() - end]);
                run.copy(block, start + first + before.len() - end, end);
            }
            _ => {
                run.end(block);
                block.new_bytes().extend_from_slice(tail);
            }
        }
        run.end(block);
        *last = Some(Last { at, len, labels: sample.labels as usize, count: sample.label_count as usize });
        std::mem::swap(&mut self.merged, &mut self.merged_before);
        let base = at + head_len(len);
        for piece in &self.pieces {
            let Piece::New { label, at } = *piece else { continue };
            let (name, value) = text(page, options, label);
            let len = proto::bytes_len(label_len(name, value)) as u32;
            *self.texts.place(name, value) = Some(Written { label, at: base as u32 + at, len });
        }
        if len > LONGEST {
            self.begin_page();
        }
    }

    /// Puts together a sample's labels; their bytes.
    #[inline]
    fn gather(&mut self, page: &Page, sample: &Sample, options: &Options) -> usize {
        let Self { block, texts, last, merged, merged_before, ends, new_ends, pieces, .. } = self;
        let (now, before) = if options.labels.is_empty() {
            let before = last.map_or(0..0, |last| last.labels..last.labels + last.count);
            (page.labels_of(sample), &page.labels[before])
        } else {
            merged.clear();
            options.each_part(page, sample, |part| {
                merged.push(match part {
                    Part::Label(label) => label,
                    Part::Own(which) => {
                        Label { name: Span { start: OWN, len: which }, value: Span::default() }
                    }
                });
            });
            (&merged[..], if last.is_some() { &merged_before[..] } else { &[] })
        };
        let base = last.map_or(0, |last| last.at + head_len(last.len));
        let start_of = |ends: &[u32], place: usize| place.checked_sub(1).map_or(0, |before| ends[before]);
        let end = block.len();
        pieces.clear();
        new_ends.clear();
        // Labels that stand together in the sample before.
        let (mut from, mut run) = (0, 0);
        let (mut place, mut labels) = (0, 0);
        for label in now {
            // One label more or less moves all that follow by one.
            let near = (place..before.len().min(place + 3)).find(|near| is_same(label, &before[*near]));
            if let Some(near) = near {
                let start = start_of(ends, near);
                if from + run != start {
                    push_copy(pieces, base + from as usize, run as usize);
                    (from, run) = (start, 0);
                }
                let len = ends[near] - start;
                run += len;
                labels += len;
                place = near + 1;
                new_ends.push(labels);
                continue;
            }
            push_copy(pieces, base + from as usize, run as usize);
            run = 0;
            let (name, value) = text(page, options, *label);
            // A label without a value is none.
            if value.is_empty() {
                new_ends.push(labels);
                continue;
            }
            let same = |other: Label| text(page, options, other) == (name, value);
            // The metric's name says the same as the one before it, line by line.
            if before.get(place).is_some_and(|before| same(*before)) {
                let start = start_of(ends, place);
                (from, run) = (start, ends[place] - start);
                labels += run;
                place += 1;
            } else {
                let found = *texts.place(name, value);
                match found.filter(|found| same(found.label) && end - (found.at as usize) < REACH - LONGEST) {
                    Some(found) => {
                        push_copy(pieces, found.at as usize, found.len as usize);
                        labels += found.len;
                    }
                    None => {
                        pieces.push(Piece::New { label: *label, at: labels });
                        labels += proto::bytes_len(label_len(name, value)) as u32;
                    }
                }
            }
            new_ends.push(labels);
        }
        push_copy(pieces, base + from as usize, run as usize);
        std::mem::swap(ends, new_ends);
        labels as usize
    }

    /// The block as it is sent; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        self.begin_page();
        self.block.seal()
    }
}

/// Fewer bytes cost more as a copy.
const SHORTEST: usize = 4;

#[inline]
fn push_copy(pieces: &mut Vec<Piece>, from: usize, len: usize) {
    if len > 0 {
        pieces.push(Piece::Copy { from, len });
    }
}

/// Bytes that stand together in the block and are not copied yet.
struct Run {
    from: usize,
    len: usize,
}

impl Run {
    #[inline]
    fn ends_at(&self, at: usize) -> bool {
        self.len > 0 && self.from + self.len == at
    }

    #[inline]
    fn copy(&mut self, block: &mut Block, from: usize, len: usize) {
        if self.from + self.len != from {
            self.end(block);
            self.from = from;
        }
        self.len += len;
    }

    #[inline]
    fn end(&mut self, block: &mut Block) {
        if self.len > 0 {
            block.copy(self.from, self.len);
        }
        self.len = 0;
    }
}

/// Bytes of a series' tag and length.
#[inline]
fn head_len(len: usize) -> usize {
    1 + proto::varint_len(len as u64)
}

#[inline]
fn write_head(out: &mut Vec<u8>, len: usize) {
    out.push(0x0a);
    proto::varint(out, len as u64);
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
