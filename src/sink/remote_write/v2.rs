//! `io.prometheus.write.v2.Request` of remote write 2.0: texts once in a table, series as references into it.
//!
//! In: samples of final pages. Out: the message in a snappy block. The table stands before the series, as receivers that
//! read in one pass need it. Invariants: no allocation per sample in steady state; the first text is the empty one; equal
//! texts have one reference.
//!
//! Source: the remote write 2.0 specification, and Prometheus `prompb/io/prometheus/write/v2/types.proto`.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use xxhash_rust::xxh3;

use super::{Options, Part, histogram, kind_number, proto};
use crate::data::sample::{MetricKind, NO_TIME, Page, Sample};

/// Places of an empty table of texts; it grows when half of them are taken.
const PLACES: usize = 1024;

/// Texts in the order of their references.
#[derive(Debug)]
pub(super) struct Symbols {
    /// Field 4 of the request, one for each text.
    encoded: Vec<u8>,
    /// Where each text stands in `encoded`.
    texts: Vec<(u32, u32)>,
    /// Reference and half a hash by place; reference 0 is a free place.
    places: Vec<(u32, u32)>,
    seed: u64,
}

impl Default for Symbols {
    fn default() -> Self {
        let seed = RandomState::new().hash_one(0_u8);
        let mut symbols = Self { encoded: Vec::new(), texts: Vec::new(), places: Vec::new(), seed };
        symbols.clear();
        symbols
    }
}

impl Symbols {
    fn clear(&mut self) {
        self.encoded.clear();
        self.encoded.extend_from_slice(&[0x22, 0]);
        self.texts.clear();
        self.texts.push((2, 0));
        self.places.clear();
        self.places.resize(PLACES, (0, 0));
    }

    fn hash(&self, text: &[u8]) -> u64 {
        xxh3::xxh3_64_with_seed(text, self.seed)
    }

    /// The reference of a text.
    pub(super) fn refer(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hash(text);
        let mask = self.places.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            let (reference, half) = self.places[place];
            if reference == 0 {
                break;
            }
            let (start, len) = self.texts[reference as usize];
            if half == (hash >> 32) as u32 && &self.encoded[start as usize..][..len as usize] == text {
                return reference;
            }
            place = (place + 1) & mask;
        }
        let reference = self.texts.len() as u32;
        proto::bytes(&mut self.encoded, 4, text);
        self.texts.push(((self.encoded.len() - text.len()) as u32, text.len() as u32));
        self.places[place] = (reference, (hash >> 32) as u32);
        if self.texts.len() * 2 > self.places.len() {
            self.grow();
        }
        reference
    }

    fn grow(&mut self) {
        let len = self.places.len() * 2;
        self.places.clear();
        self.places.resize(len, (0, 0));
        for reference in 1..self.texts.len() {
            let (start, text_len) = self.texts[reference];
            let hash = self.hash(&self.encoded[start as usize..][..text_len as usize]);
            let mut place = hash as usize & (len - 1);
            while self.places[place].0 != 0 {
                place = (place + 1) & (len - 1);
            }
            self.places[place] = (reference as u32, (hash >> 32) as u32);
        }
    }

    /// Field 4 of the request for every text.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// A request that is being written.
#[derive(Debug)]
pub(super) struct Request {
    symbols: Symbols,
    /// Field 5 of the request, one for each series.
    series: Vec<u8>,
    /// Labels of the sample before, and their references.
    before: Vec<(Part, u32, u32)>,
    now: Vec<(Part, u32, u32)>,
    /// The family that was looked at last, and its metadata message.
    family: Option<u32>,
    metadata: Vec<u8>,
    message: Vec<u8>,
    part: Vec<u8>,
    inner: Vec<u8>,
    packed: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            symbols: Symbols::default(),
            series: Vec::new(),
            before: Vec::new(),
            now: Vec::new(),
            family: None,
            metadata: Vec::new(),
            message: Vec::new(),
            part: Vec::new(),
            inner: Vec::new(),
            packed: Vec::new(),
            snappy: snap::raw::Encoder::new(),
        }
    }
}

impl Request {
    /// Uncompressed bytes so far.
    pub(super) fn raw_len(&self) -> usize {
        self.symbols.encoded.len() + self.series.len()
    }

    /// A new page begins: spans and families of the one before mean nothing in it.
    pub(super) fn begin_page(&mut self) {
        self.before.clear();
        self.family = None;
    }

    /// Appends a sample with its labels, metadata, exemplars and native histogram. `created_unix_ms` is 0 where nobody
    /// knows since when it counts.
    pub(super) fn add(&mut self, page: &Page, sample: &Sample, options: &Options, created_unix_ms: i64) {
        let Self { symbols, series, before, now, family, metadata, message, part, inner, .. } = self;
        if *family != Some(sample.family) {
            *family = Some(sample.family);
            metadata.clear();
            if options.metadata
                && let Some(family) = page.families.get(sample.family as usize)
            {
                proto::number(metadata, 1, kind_number(family.kind));
                proto::number(metadata, 3, u64::from(symbols.refer(page.bytes(family.help))));
                proto::number(metadata, 4, u64::from(symbols.refer(page.bytes(family.unit))));
            }
        }
        message.clear();
        part.clear();
        now.clear();
        let mut at = 0;
        options.each_part(page, sample, |label| {
            let (name, value) = match super::find_near(before, &mut at, |(earlier, ..)| *earlier == label) {
                Some((_, name, value)) => (*name, *value),
                None => {
                    let (name, value) = options.text(page, label);
                    // A label without a value is none.
                    if value.is_empty() {
                        return;
                    }
                    (symbols.refer(name), symbols.refer(value))
                }
            };
            proto::varint(part, u64::from(name));
            proto::varint(part, u64::from(value));
            now.push((label, name, value));
        });
        std::mem::swap(before, now);
        proto::bytes(message, 1, part);
        let time = sample.time_unix_ms;
        part.clear();
        match page.histogram_of(sample) {
            None => {
                proto::double(part, 1, sample.value);
                proto::number(part, 2, time as u64);
                proto::number(part, 3, created_unix_ms as u64);
                proto::bytes(message, 2, part);
            }
            Some(histogram) => {
                histogram::write(part, histogram, sample.value, time);
                proto::bytes(message, 3, part);
            }
        }
        if options.exemplars {
            for exemplar in page.exemplars_of(sample) {
                part.clear();
                inner.clear();
                for label in page.exemplar_labels(exemplar) {
                    proto::varint(inner, u64::from(symbols.refer(page.bytes(label.name))));
                    proto::varint(inner, u64::from(symbols.refer(page.bytes(label.value))));
                }
                proto::bytes(part, 1, inner);
                proto::double(part, 2, exemplar.value);
                let at = if exemplar.time_unix_ms == NO_TIME { time } else { exemplar.time_unix_ms };
                proto::number(part, 3, at as u64);
                proto::bytes(message, 4, part);
            }
        }
        if !metadata.is_empty() {
            proto::bytes(message, 5, metadata);
        }
        // The release candidates of the specification had it here, the final one in the sample: each receiver reads its own.
        proto::number(message, 6, created_unix_ms as u64);
        proto::bytes(series, 5, message);
    }

    /// The block as it is sent; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        let symbols = self.symbols.encoded.len();
        self.symbols.encoded.extend_from_slice(&self.series);
        let raw = &self.symbols.encoded;
        let room = snap::raw::max_compress_len(raw.len());
        if self.packed.len() < room {
            self.packed.resize(room, 0);
        }
        let written = self
            .snappy
            .compress(raw, &mut self.packed)
            .expect("the output has the size that snappy asks for");
        let sealed = self.packed[..written].to_vec();
        // A large request is over: what it needed is not needed while little happens.
        let series = self.series.len();
        self.symbols.clear();
        self.symbols.encoded.shrink_to(2 * (symbols + series));
        self.series.clear();
        self.series.shrink_to(2 * series);
        if self.packed.len() > 4 * room {
            self.packed = Vec::new();
        }
        self.before.clear();
        self.family = None;
        sealed
    }
}

/// Since when the series of a page count, as its `_created` series say.
#[derive(Debug, Default)]
pub(super) struct Created {
    /// Milliseconds since the epoch by family and labels.
    times: HashMap<u64, i64, foldhash::fast::RandomState>,
}

impl Created {
    /// Reads a page. Most pages have none.
    pub(super) fn read(&mut self, page: &Page) {
        self.times.clear();
        for sample in &page.samples {
            let seconds = sample.value;
            if page.bytes(sample.name).ends_with(b"_created")
                && seconds > 0.0
                && seconds < 1e11
                && let Some(key) = series_key(page, sample)
            {
                self.times.insert(key, (seconds * 1000.0) as i64);
            }
        }
    }

    /// Since when a sample's series counts, milliseconds since the epoch; 0 when the page does not say.
    pub(super) fn of(&self, page: &Page, sample: &Sample) -> i64 {
        if self.times.is_empty() || page.bytes(sample.name).ends_with(b"_created") {
            return 0;
        }
        let created = series_key(page, sample).and_then(|key| self.times.get(&key).copied()).unwrap_or(0);
        if created <= sample.time_unix_ms { created } else { 0 }
    }
}

/// What the series of one counter, histogram or summary have in common.
fn series_key(page: &Page, sample: &Sample) -> Option<u64> {
    let family = page.families.get(sample.family as usize)?;
    if !matches!(family.kind, MetricKind::Counter | MetricKind::Histogram | MetricKind::Summary) {
        return None;
    }
    let mut key = u64::from(sample.family);
    for label in page.labels_of(sample) {
        let name = page.bytes(label.name);
        if !matches!(name, b"__name__" | b"le" | b"quantile") {
            key = xxh3::xxh3_64_with_seed(name, key);
            key = xxh3::xxh3_64_with_seed(page.bytes(label.value), key);
        }
    }
    Some(key)
}
