//! The last page of one source, small.
//!
//! In: a final page. Out: its samples by family, sorted by the families' names, as text without the target's labels, in
//! blocks that are compressed each by itself. Invariants: a block decompresses to about [`BLOCK`] bytes, whatever the
//! page's size; the samples of one metric stand together, as OpenMetrics demands; names are those of the classic grammar.
//!
//! A block is a run of parts: kind, key, help, unit and samples, each with its length before it. A sample is its part of
//! the metric, its name (empty: as before), its own labels, its value and its exemplar.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::data::sample::{Label, MetricKind, NO_TIME, NONE, Origin, Page, Sample, Span, is_stale};
use crate::data::varint;
use crate::sink::family::{Part, part_of};

/// Bytes of a block before compression, about.
pub(super) const BLOCK: usize = 8 << 10;

/// The last page of a source.
#[derive(Debug)]
pub(super) struct Kept {
    /// Kept, so that its address is nobody else's.
    pub(super) origin: Arc<Origin>,
    /// Whose it is, so that a collector that ends takes only its own away.
    pub(super) owner: usize,
    blocks: Vec<Box<[u8]>>,
}

impl Kept {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.len() + size_of::<Box<[u8]>>()).sum::<usize>()
            + size_of::<Self>()
    }

    /// Decompresses block `number` into `out`; false when there is none.
    pub(super) fn block(&self, number: usize, out: &mut Vec<u8>) -> bool {
        let Some(block) = self.blocks.get(number) else { return false };
        let Ok(len) = snap::raw::decompress_len(block) else { return false };
        out.resize(len, 0);
        snap::raw::Decoder::new().decompress(block, out).is_ok()
    }
}

/// A family of the page: its name in the text format is its key, so that a counter's ends in `_total` where its samples do.
#[derive(Debug, Clone, Copy)]
struct Of {
    key: (u32, u32),
    kind: MetricKind,
    help: Span,
    unit: Span,
    /// Some sample says when a metric began, perhaps far from the metric's others.
    created: bool,
    rank: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    of: u32,
    part: Part,
    group: u32,
    sample: u32,
}

/// Makes [`Kept`] pages with reused buffers.
#[derive(Default)]
pub(super) struct Keeper {
    families: Vec<Of>,
    by_key: HashMap<u64, u32, FixedState>,
    keys: Vec<u8>,
    key: Vec<u8>,
    entries: Vec<Entry>,
    groups: HashMap<(u32, u64), u32, FixedState>,
    block: Vec<u8>,
    samples: Vec<u8>,
    text: Vec<u8>,
    encoder: Option<snap::raw::Encoder>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// The page, kept for `owner`; `None` when nothing of it lives.
    pub(super) fn keep(&mut self, owner: usize, origin: &Arc<Origin>, page: &Page) -> Option<Kept> {
        self.families.clear();
        self.by_key.clear();
        self.keys.clear();
        self.entries.clear();
        self.find_families(page);
        if self.entries.is_empty() {
            return None;
        }
        self.fold_created(page);
        self.sort(page);
        let blocks = self.write(origin, page);
        Some(Kept { origin: Arc::clone(origin), owner, blocks })
    }

    fn find_families(&mut self, page: &Page) {
        let mut last: Option<(Span, u32, u32, Part)> = None;
        for (index, sample) in page.samples.iter().enumerate() {
            if is_stale(sample.value) || sample.histogram != NONE {
                continue;
            }
            let name = page.bytes(sample.name);
            let same =
                last.filter(|(before, family, ..)| *family == sample.family && page.bytes(*before) == name);
            let (of, part) = match same {
                Some((.., of, part)) => (of, part),
                None => self.family_of(page, sample, name),
            };
            last = Some((sample.name, sample.family, of, part));
            self.entries.push(Entry { of, part, group: 0, sample: index as u32 });
        }
    }

    fn family_of(&mut self, page: &Page, sample: &Sample, name: &[u8]) -> (u32, Part) {
        let family = page.families.get(sample.family as usize).copied().unwrap_or_default();
        let (base, part) = part_of(family.kind, page.bytes(family.name), name);
        let kind = match family.kind {
            // As the text format has no word for them, and a sample may have been given another name.
            MetricKind::GaugeHistogram => MetricKind::Unknown,
            MetricKind::Histogram if part == Part::Value => MetricKind::Unknown,
            MetricKind::Info if !name.ends_with(b"_info") => MetricKind::Gauge,
            kind => kind,
        };
        self.key.clear();
        self.key.extend_from_slice(&legacy(base));
        if kind == MetricKind::Counter && part == Part::Created {
            self.key.extend_from_slice(b"_total");
        }
        let of = self.family(kind);
        let known = &mut self.families[of as usize];
        known.created |= part == Part::Created;
        if known.kind != kind {
            known.kind = MetricKind::Unknown;
        }
        if known.help.is_empty() {
            known.help = family.help;
        }
        if known.unit.is_empty() {
            known.unit = family.unit;
        }
        (of, part)
    }

    /// The family whose key is in `self.key`.
    fn family(&mut self, kind: MetricKind) -> u32 {
        let number = self.families.len() as u32;
        let found = *self.by_key.entry(xxh3_64(&self.key)).or_insert(number);
        if found == number {
            let start = self.keys.len() as u32;
            self.keys.extend_from_slice(&self.key);
            let key = (start, self.keys.len() as u32);
            let (help, unit) = (Span::default(), Span::default());
            self.families.push(Of { key, kind, help, unit, created: false, rank: 0 });
        }
        found
    }

    /// In the text format `x_created` is a gauge of its own; beside a counter or histogram `x` it is a part of that.
    fn fold_created(&mut self, page: &Page) {
        for index in 0..self.entries.len() {
            let Entry { of, part, sample, .. } = self.entries[index];
            let kind = self.families[of as usize].kind;
            if part != Part::Value || !matches!(kind, MetricKind::Gauge | MetricKind::Unknown) {
                continue;
            }
            let name = page.bytes(page.samples[sample as usize].name);
            let Some(base) = name.strip_suffix(b"_created") else { continue };
            self.key.clear();
            self.key.extend_from_slice(base);
            let plain = self.by_key.get(&xxh3_64(&self.key)).copied();
            self.key.extend_from_slice(b"_total");
            let total = self.by_key.get(&xxh3_64(&self.key)).copied();
            let fits = |of: &u32, kinds: &[MetricKind]| kinds.contains(&self.families[*of as usize].kind);
            let whole = plain
                .filter(|of| fits(of, &[MetricKind::Histogram, MetricKind::Summary]))
                .or(total.filter(|of| fits(of, &[MetricKind::Counter])));
            if let Some(whole) = whole {
                self.entries[index] = Entry { of: whole, part: Part::Created, ..self.entries[index] };
                self.families[whole as usize].created = true;
            }
        }
    }

    /// By the families' names, then by metric, then as on the page.
    fn sort(&mut self, page: &Page) {
        let mut order: Vec<u32> = (0..self.families.len() as u32).collect();
        let key = |of: &u32| {
            let (start, end) = self.families[*of as usize].key;
            &self.keys[start as usize..end as usize]
        };
        order.sort_unstable_by(|one, other| key(one).cmp(key(other)));
        for (rank, of) in order.iter().enumerate() {
            self.families[*of as usize].rank = rank as u32;
        }
        self.groups.clear();
        for entry in &mut self.entries {
            if self.families[entry.of as usize].created {
                let sample = &page.samples[entry.sample as usize];
                let metric =
                    page.labels_of(sample).iter().fold(0, |hash, label| match page.bytes(label.name) {
                        b"__name__" | b"le" | b"quantile" => hash,
                        name => xxh3_64_with_seed(page.bytes(label.value), xxh3_64_with_seed(name, hash)),
                    });
                let number = self.groups.len() as u32;
                entry.group = *self.groups.entry((entry.of, metric)).or_insert(number);
            }
        }
        let families = &self.families;
        self.entries
            .sort_unstable_by_key(|entry| (families[entry.of as usize].rank, entry.group, entry.sample));
    }

    fn write(&mut self, origin: &Origin, page: &Page) -> Vec<Box<[u8]>> {
        let mut blocks = Vec::new();
        self.block.clear();
        let entries = std::mem::take(&mut self.entries);
        for run in entries.chunk_by(|one, other| one.of == other.of) {
            let of = self.families[run[0].of as usize];
            self.samples.clear();
            let mut name: &[u8] = b"";
            for entry in run {
                let sample = &page.samples[entry.sample as usize];
                let own = page.bytes(sample.name);
                self.samples.push(entry.part as u8);
                let shown = if own == name { Cow::Borrowed(&b""[..]) } else { legacy(own) };
                put(&shown, &mut self.samples);
                name = own;
                self.text.clear();
                write_own_labels(origin, page, sample, &mut self.text);
                put(&self.text, &mut self.samples);
                self.text.clear();
                write_number(sample.value, &mut self.text);
                put(&self.text, &mut self.samples);
                self.text.clear();
                if entry.part == Part::Bucket || of.kind == MetricKind::Counter {
                    write_exemplar(page, sample, &mut self.text);
                }
                put(&self.text, &mut self.samples);
                if self.block.len() + self.samples.len() >= BLOCK {
                    self.end_part(page, &of);
                    self.end_block(&mut blocks);
                    name = b"";
                }
            }
            self.end_part(page, &of);
        }
        self.end_block(&mut blocks);
        self.entries = entries;
        blocks
    }

    fn end_part(&mut self, page: &Page, of: &Of) {
        if self.samples.is_empty() {
            return;
        }
        self.block.push(of.kind as u8);
        put(&self.keys[of.key.0 as usize..of.key.1 as usize], &mut self.block);
        put(page.bytes(of.help), &mut self.block);
        put(page.bytes(of.unit), &mut self.block);
        put(&self.samples, &mut self.block);
        self.samples.clear();
    }

    fn end_block(&mut self, blocks: &mut Vec<Box<[u8]>>) {
        if self.block.is_empty() {
            return;
        }
        self.packed.resize(snap::raw::max_compress_len(self.block.len()), 0);
        let encoder = self.encoder.get_or_insert_with(snap::raw::Encoder::new);
        let len = encoder.compress(&self.block, &mut self.packed).unwrap_or(0);
        blocks.push(self.packed[..len].into());
        self.block.clear();
    }
}

/// Appends bytes with their length before them.
fn put(bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes what [`put`] wrote off the front; empty at the end.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = varint::read(rest).unwrap_or_default() as usize;
    let (taken, tail) = rest.split_at(len.min(rest.len()));
    *rest = tail;
    taken
}

/// A name in the classic grammar, which every reader knows: other characters become `_`, as Prometheus escapes them.
pub(super) fn legacy(name: &[u8]) -> Cow<'_, [u8]> {
    let fits = |at: usize, byte: &u8| {
        byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':') || (at > 0 && byte.is_ascii_digit())
    };
    if name.iter().enumerate().all(|(at, byte)| fits(at, byte)) {
        return Cow::Borrowed(name);
    }
    let text = String::from_utf8_lossy(name);
    let escaped = text.chars().enumerate().map(|(at, letter)| match u8::try_from(letter) {
        Ok(byte) if fits(at, &byte) => byte,
        _ => b'_',
    });
    Cow::Owned(escaped.collect())
}

/// Appends `name="value"`.
pub(super) fn write_label(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&legacy(name));
    out.extend_from_slice(b"=\"");
    escape(value, true, out);
    out.push(b'"');
}

/// Appends text with backslashes and line ends escaped; quotes too where it stands between them.
pub(super) fn escape(text: &[u8], quoted: bool, out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quoted => out.extend_from_slice(b"\\\""),
            other => out.push(*other),
        }
    }
}

/// Labels that are neither the name nor, with the same value, the target's.
fn write_own_labels(origin: &Origin, page: &Page, sample: &Sample, out: &mut Vec<u8>) {
    for Label { name, value } in page.labels_of(sample) {
        let (name, value) = (page.bytes(*name), page.bytes(*value));
        let is_targets = || {
            let at = origin.labels.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
            at.is_ok_and(|at| origin.labels[at].1.as_bytes() == value)
        };
        if name == b"__name__" || value.is_empty() || is_targets() {
            continue;
        }
        if !out.is_empty() {
            out.push(b',');
        }
        write_label(name, value, out);
    }
}

/// Appends ` # {labels} value time`: the newest exemplar.
fn write_exemplar(page: &Page, sample: &Sample, out: &mut Vec<u8>) {
    let Some(exemplar) = page.exemplars_of(sample).last() else { return };
    out.extend_from_slice(b" # {");
    for (index, label) in page.exemplar_labels(exemplar).iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_label(page.bytes(label.name), page.bytes(label.value), out);
    }
    out.extend_from_slice(b"} ");
    write_number(exemplar.value, out);
    if exemplar.time_unix_ms != NO_TIME {
        use std::io::Write as _;
        let (seconds, millis) = (exemplar.time_unix_ms / 1000, exemplar.time_unix_ms.rem_euclid(1000));
        let _ = write!(out, " {seconds}.{millis:03}");
    }
}

/// A number as both formats write it, the shortest text that reads back the same.
pub(super) fn write_number(value: f64, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let size = value.abs();
    let _ = if value.is_nan() {
        out.write_all(b"NaN")
    } else if value.is_infinite() {
        out.write_all(if value > 0.0 { b"+Inf" } else { b"-Inf" })
    } else if size != 0.0 && !(1e-5..1e16).contains(&size) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_written_as_readers_expect() {
        let text = |value| {
            let mut out = Vec::new();
            write_number(value, &mut out);
            String::from_utf8(out).expect("text")
        };
        for (value, expected) in [
            (0.0, "0"),
            (-1.5, "-1.5"),
            (1e300, "1e300"),
            (1_795_354_933.25, "1795354933.25"),
            (2.5e-7, "2.5e-7"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(value), expected);
        }
        assert_eq!(&*legacy(b"a:b_1"), b"a:b_1");
        assert_eq!(&*legacy("1.é-x".as_bytes()), b"____x");
    }

    #[test]
    fn what_is_put_is_taken_again() {
        let mut out = Vec::new();
        put(&[b'x'; 300], &mut out);
        put(b"", &mut out);
        put(b"abc", &mut out);
        let mut rest = out.as_slice();
        assert_eq!(take(&mut rest).len(), 300);
        assert_eq!((take(&mut rest), take(&mut rest), take(&mut rest)), (&b""[..], &b"abc"[..], &b""[..]));
    }
}
