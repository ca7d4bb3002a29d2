//! A request that was encoded already: how much is in it, its halves, and the same in the other version of the protocol.
//!
//! In: snappy blocks of our own writing. Out: snappy blocks. Needed when a receiver refuses something: a series among
//! many, a size, or a version. Invariant: every series of the old request is in exactly one of the new ones, in order,
//! with value bits, times, exemplars and histograms as they were. A block that cannot be read (memory that was damaged)
//! is `None`, never a panic.

use super::proto::{self, Fields, Value};
use super::v2::Symbols;
use super::{Counts, Version};

/// Series of a request, uncompressed.
#[derive(Debug)]
pub(super) struct Opened {
    version: Version,
    raw: Vec<u8>,
}

impl Opened {
    /// Decompresses a request.
    pub(super) fn new(version: Version, block: &[u8]) -> Option<Self> {
        let raw = snap::raw::Decoder::new().decompress_vec(block).ok()?;
        Some(Self { version, raw })
    }

    fn series(&self) -> impl Iterator<Item = &[u8]> {
        let number = match self.version {
            Version::V1 => 1,
            Version::V2 => 5,
        };
        Fields::of(&self.raw).filter_map(move |(field, value)| match value {
            Value::Bytes(series) if field == number => Some(series),
            _ => None,
        })
    }

    /// Number of series.
    pub(super) fn len(&self) -> usize {
        self.series().count()
    }

    /// What the request holds.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for series in self.series() {
            for (field, value) in Fields::of(series) {
                let Value::Bytes(message) = value else { continue };
                match (self.version, field) {
                    (_, 2) => {
                        counts.samples += 1;
                        counts.see(time_of(message, 2));
                    }
                    (Version::V1, 3) | (Version::V2, 4) => counts.exemplars += 1,
                    (Version::V1, 4) | (Version::V2, 3) => {
                        counts.histograms += 1;
                        counts.see(time_of(message, 15));
                    }
                    _ => {}
                }
            }
        }
        counts
    }

    /// The first and the second half of its series.
    pub(super) fn halves(&self) -> [Vec<u8>; 2] {
        let middle = self.len() / 2;
        [0..middle, middle..usize::MAX].map(|range| {
            let mut raw = Vec::new();
            match self.version {
                Version::V1 => {
                    for (at, series) in self.series().enumerate() {
                        if range.contains(&at) {
                            proto::bytes(&mut raw, 1, series);
                        }
                    }
                }
                Version::V2 => {
                    // Only the texts of this half, so that halving ends in something small.
                    let texts = self.texts();
                    let mut symbols = Symbols::default();
                    let mut all = Vec::new();
                    for (at, series) in self.series().enumerate() {
                        if range.contains(&at) {
                            let series = rename(series, |number| {
                                symbols.refer(texts.get(number as usize).copied().unwrap_or_default())
                            });
                            proto::bytes(&mut all, 5, &series);
                        }
                    }
                    raw.extend_from_slice(symbols.encoded());
                    raw.extend_from_slice(&all);
                }
            }
            pack(&raw)
        })
    }

    /// The same in the other version.
    pub(super) fn converted(&self) -> Vec<u8> {
        match self.version {
            Version::V1 => self.to_v2(),
            Version::V2 => self.to_v1(),
        }
    }

    /// The texts of a request of version 2.
    fn texts(&self) -> Vec<&[u8]> {
        let texts = Fields::of(&self.raw).filter_map(|(field, value)| match value {
            Value::Bytes(text) if field == 4 => Some(text),
            _ => None,
        });
        texts.collect()
    }

    fn to_v1(&self) -> Vec<u8> {
        let texts = self.texts();
        let mut raw = Vec::new();
        let (mut out, mut part) = (Vec::new(), Vec::new());
        for series in self.series() {
            out.clear();
            for (field, value) in Fields::of(series) {
                let Value::Bytes(message) = value else { continue };
                match field {
                    1 => labels_of(&mut out, &texts, message),
                    2 => {
                        // Without the time since when it counts, which version 1 does not know.
                        part.clear();
                        for (field, value) in Fields::of(message).filter(|(field, _)| *field != 3) {
                            copy(&mut part, field, value);
                        }
                        proto::bytes(&mut out, 2, &part);
                    }
                    3 => proto::bytes(&mut out, 4, message),
                    4 => {
                        part.clear();
                        for (field, value) in Fields::of(message) {
                            match (field, value) {
                                (1, Value::Bytes(refs)) => labels_of(&mut part, &texts, refs),
                                (field, value) => copy(&mut part, field, value),
                            }
                        }
                        proto::bytes(&mut out, 3, &part);
                    }
                    _ => {}
                }
            }
            proto::bytes(&mut raw, 1, &out);
        }
        pack(&raw)
    }

    fn to_v2(&self) -> Vec<u8> {
        let mut symbols = Symbols::default();
        let (mut all, mut out, mut refs, mut part) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for series in self.series() {
            out.clear();
            refs_of(&mut refs, &mut symbols, series);
            proto::bytes(&mut out, 1, &refs);
            for (field, value) in Fields::of(series) {
                let Value::Bytes(message) = value else { continue };
                match field {
                    2 => proto::bytes(&mut out, 2, message),
                    3 => {
                        part.clear();
                        refs_of(&mut refs, &mut symbols, message);
                        proto::bytes(&mut part, 1, &refs);
                        for (field, value) in Fields::of(message).filter(|(field, _)| *field != 1) {
                            copy(&mut part, field, value);
                        }
                        proto::bytes(&mut out, 4, &part);
                    }
                    4 => proto::bytes(&mut out, 3, message),
                    _ => {}
                }
            }
            proto::bytes(&mut all, 5, &out);
        }
        let mut raw = symbols.encoded().to_vec();
        raw.extend_from_slice(&all);
        pack(&raw)
    }
}

fn time_of(message: &[u8], number: u64) -> i64 {
    let time = Fields::of(message).find_map(|(field, value)| match value {
        Value::Number(time) if field == number => Some(time as i64),
        _ => None,
    });
    time.unwrap_or_default()
}

fn copy(out: &mut Vec<u8>, field: u64, value: Value<'_>) {
    let tag = field << 3;
    match value {
        Value::Number(number) => {
            proto::varint(out, tag);
            proto::varint(out, number);
        }
        Value::Fixed(bits) => {
            proto::varint(out, tag | 1);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Value::Bytes(bytes) => {
            proto::varint(out, tag | 2);
            proto::varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }
}

/// Packed references as labels of version 1, each field 1.
fn labels_of(out: &mut Vec<u8>, texts: &[&[u8]], mut refs: &[u8]) {
    while let (Some(name), Some(value)) = (proto::read_varint(&mut refs), proto::read_varint(&mut refs)) {
        let text = |number: u64| texts.get(number as usize).copied().unwrap_or_default();
        let (name, value) = (text(name), text(value));
        out.push(0x0a);
        proto::varint(out, (proto::bytes_len(name.len()) + proto::bytes_len(value.len())) as u64);
        proto::bytes(out, 1, name);
        proto::bytes(out, 2, value);
    }
}

/// Labels of version 1, each field 1 of `message`, as packed references.
fn refs_of(out: &mut Vec<u8>, symbols: &mut Symbols, message: &[u8]) {
    out.clear();
    for (field, label) in Fields::of(message) {
        let Value::Bytes(label) = label else { continue };
        if field != 1 {
            continue;
        }
        let mut texts = [&[][..]; 2];
        for (field, text) in Fields::of(label) {
            if let (1 | 2, Value::Bytes(text)) = (field, text) {
                texts[field as usize - 1] = text;
            }
        }
        for text in texts {
            proto::varint(out, u64::from(symbols.refer(text)));
        }
    }
}

/// A series of version 2 with other references.
fn rename(series: &[u8], mut other: impl FnMut(u64) -> u32) -> Vec<u8> {
    let (mut out, mut part, mut refs) = (Vec::with_capacity(series.len()), Vec::new(), Vec::new());
    let packed = |mut old: &[u8], refs: &mut Vec<u8>, other: &mut dyn FnMut(u64) -> u32| {
        refs.clear();
        while let Some(reference) = proto::read_varint(&mut old) {
            proto::varint(refs, u64::from(other(reference)));
        }
    };
    for (field, value) in Fields::of(series) {
        match (field, value) {
            (1, Value::Bytes(old)) => {
                packed(old, &mut refs, &mut other);
                proto::bytes(&mut out, 1, &refs);
            }
            (4, Value::Bytes(exemplar)) => {
                part.clear();
                for (field, value) in Fields::of(exemplar) {
                    match (field, value) {
                        (1, Value::Bytes(old)) => {
                            packed(old, &mut refs, &mut other);
                            proto::bytes(&mut part, 1, &refs);
                        }
                        (field, value) => copy(&mut part, field, value),
                    }
                }
                proto::bytes(&mut out, 4, &part);
            }
            (5, Value::Bytes(metadata)) => {
                part.clear();
                for (field, value) in Fields::of(metadata) {
                    match (field, value) {
                        (3 | 4, Value::Number(old)) => {
                            proto::number(&mut part, field as u8, u64::from(other(old)));
                        }
                        (field, value) => copy(&mut part, field, value),
                    }
                }
                proto::bytes(&mut out, 5, &part);
            }
            (field, value) => copy(&mut out, field, value),
        }
    }
    out
}

fn pack(raw: &[u8]) -> Vec<u8> {
    // It fails above 4 GiB only, and what we were given was far below.
    snap::raw::Encoder::new().compress_vec(raw).unwrap_or_default()
}
