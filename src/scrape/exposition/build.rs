//! A page while it is being read: which family a sample is of, which labels it has, and whether that is still within limits.
//!
//! In: names, labels, values in the order of the body. Out: families, samples, labels and exemplars of the page.
//! Invariant: every span lies in the body or in the text behind it, every index in the page.

use std::hash::BuildHasher;

use super::number;
use super::scan::Quoted;
use super::{Dialect, Fault, Limits, Parsed};
use crate::data::sample::{Exemplar, Family, Label, MetricKind, NONE, Page, Sample, Span};

/// Characters of all names and values of an exemplar's labels. Prometheus drops an exemplar with more and keeps its sample.
/// Source: OpenMetrics 1.0, "Exemplars"; Prometheus `model/exemplar/exemplar.go`.
const EXEMPLAR_CHARACTERS: usize = 128;

/// Native buckets and spans that a page may hold for each sample that it may hold: a byte of a body can say a bucket, which is
/// eight bytes in memory. Generous: a histogram of client_golang has at most 160.
const NATIVE_PER_SAMPLE: u64 = 16;

/// Which escapes a text has. An unknown one stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// `\\` and `\n`.
    Help,
    /// Those and `\"`.
    Label,
}

/// Families by name: open addressing over their places in the page.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Place of a family plus 1; 0 is free. A power of two of them, at most half in use.
    slots: Vec<u32>,
    used: usize,
    hasher: foldhash::fast::RandomState,
}

impl Index {
    pub(super) fn clear(&mut self) {
        self.slots.fill(0);
        self.used = 0;
    }

    /// The family with this name, or else the slot where it belongs.
    fn find<'n>(&self, name: &[u8], name_of: impl Fn(u32) -> &'n [u8]) -> Result<u32, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mut slot = self.hasher.hash_one(name) as usize & (self.slots.len() - 1);
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                taken if name_of(taken - 1) == name => return Ok(taken - 1),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn insert<'n>(&mut self, family: u32, name_of: impl Fn(u32) -> &'n [u8]) {
        if self.slots.len() < 2 * (self.used + 1) {
            let doubled = (self.slots.len() * 2).max(256);
            self.slots.clear();
            self.slots.resize(doubled, 0);
            for known in 0..family {
                if let Err(slot) = self.find(name_of(known), &name_of) {
                    self.slots[slot] = known + 1;
                }
            }
        }
        if let Err(slot) = self.find(name_of(family), &name_of) {
            self.slots[slot] = family + 1;
            self.used += 1;
        }
    }
}

/// A page while it is being read.
pub(super) struct Builder<'a> {
    /// The body.
    pub(super) text: &'a [u8],
    /// The page; its arena is still empty.
    pub(super) page: &'a mut Page,
    pub(super) limits: &'a Limits,
    index: &'a mut Index,
    /// What will stand behind the body.
    extra: &'a mut Vec<u8>,
    /// All of the body is UTF-8: its parts need not be looked at.
    utf8: bool,
    /// Family of the last metadata or sample.
    current: u32,
    /// Name of the last sample of it.
    last: Span,
    /// First label of the sample that is being read.
    first: usize,
    /// A bit for each label name of it, to see quickly that none comes twice.
    seen: u64,
    /// The line before, where the next one may begin alike.
    line: Option<Line>,
    exemplar_first: usize,
    exemplar_characters: usize,
    exemplar_twice: bool,
    /// Native buckets and spans so far.
    native: u64,
    /// `le` and `quantile`, once they stand behind the body.
    bound_names: Vec<(&'static [u8], Span)>,
    /// Bounds by their place in the last metric, with their text.
    bounds: Vec<(u64, Span)>,
    /// Number of the protobuf message, from 1; 0 in text.
    pub(super) message: u64,
}

/// A line that was read: the next one often begins alike, and what is the same is not read again.
#[derive(Debug, Clone, Copy)]
struct Line {
    start: usize,
    end: usize,
    name: Span,
    /// Its labels in the page.
    first: usize,
    count: usize,
    seen: u64,
}

/// Bytes that both begin with, or a few less.
#[inline]
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut same = 0;
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same
}

/// One of 64 bits, by a label's name; it is not empty.
#[inline]
fn name_bit(name: &[u8]) -> u64 {
    1 << ((name[0] as usize ^ (name[name.len() - 1] as usize) << 2 ^ name.len()) & 63)
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        text: &'a [u8],
        page: &'a mut Page,
        limits: &'a Limits,
        index: &'a mut Index,
        extra: &'a mut Vec<u8>,
        dialect: Dialect,
    ) -> Self {
        Self {
            // A length in protobuf may cut a character: there every string is looked at.
            utf8: dialect != Dialect::Protobuf && std::str::from_utf8(text).is_ok(),
            text,
            page,
            limits,
            index,
            extra,
            current: NONE,
            last: Span::default(),
            first: 0,
            seen: 0,
            line: None,
            exemplar_first: 0,
            exemplar_characters: 0,
            exemplar_twice: false,
            native: 0,
            bound_names: Vec::new(),
            bounds: Vec::new(),
            message: 0,
        }
    }

    /// The bytes of a span, in the body or behind it.
    #[inline]
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        within(self.text, self.extra, span)
    }

    /// Appends text behind the body.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Span {
        let start = self.text.len() + self.extra.len();
        parts.iter().for_each(|part| self.extra.extend_from_slice(part));
        Span::new(start, self.text.len() + self.extra.len())
    }

    /// The inside of a quoted string, unescaped.
    #[inline]
    pub(super) fn string(&mut self, quoted: Quoted) -> Parsed<Span> {
        self.check_utf8(quoted.start, quoted.end)?;
        if quoted.escaped {
            return Ok(self.unescape(quoted.start, quoted.end, Escapes::Label));
        }
        Ok(Span::new(quoted.start, quoted.end))
    }

    #[inline]
    pub(super) fn check_utf8(&self, start: usize, end: usize) -> Parsed<()> {
        if !self.utf8
            && let Err(error) = std::str::from_utf8(&self.text[start..end])
        {
            return Fault::at(start + error.valid_up_to(), "expected UTF-8");
        }
        Ok(())
    }

    #[cold]
    fn unescape(&mut self, start: usize, end: usize, escapes: Escapes) -> Span {
        let behind = self.text.len() + self.extra.len();
        let mut rest = &self.text[start..end];
        while let Some(backslash) = memchr::memchr(b'\\', rest) {
            self.extra.extend_from_slice(&rest[..backslash]);
            let length = match rest.get(backslash + 1) {
                Some(b'\\') => {
                    self.extra.push(b'\\');
                    2
                }
                Some(b'n') => {
                    self.extra.push(b'\n');
                    2
                }
                Some(b'"') if escapes == Escapes::Label => {
                    self.extra.push(b'"');
                    2
                }
                _ => {
                    self.extra.push(b'\\');
                    1
                }
            };
            rest = &rest[backslash + length..];
        }
        self.extra.extend_from_slice(rest);
        Span::new(behind, self.text.len() + self.extra.len())
    }

    /// The family of this name, which the next samples are likely of. `at` is where the name stands.
    pub(super) fn family(&mut self, at: usize, name: Span) -> Parsed<u32> {
        self.check_name(at, name, "the length of a metric name")?;
        self.last = Span::default();
        if self.current != NONE && self.name_of(self.current) == self.bytes(name) {
            return Ok(self.current);
        }
        let (text, extra, families) = (self.text, &*self.extra, &self.page.families);
        let found = self
            .index
            .find(within(text, extra, name), |family| within(text, extra, families[family as usize].name));
        self.current = match found {
            Ok(known) => known,
            Err(_) => self.new_family(name)?,
        };
        Ok(self.current)
    }

    fn name_of(&self, family: u32) -> &[u8] {
        self.bytes(self.page.families[family as usize].name)
    }

    fn new_family(&mut self, name: Span) -> Parsed<u32> {
        if self.page.families.len() as u64 >= self.limits.samples {
            let limit = self.limits.samples;
            return Err(Fault::Limit { what: "the number of metric families", limit, key: "sample_limit" });
        }
        let family = self.page.families.len() as u32;
        self.page.families.push(Family { name, ..Family::default() });
        let (text, extra, families) = (self.text, &*self.extra, &self.page.families);
        self.index.insert(family, |family| within(text, extra, families[family as usize].name));
        Ok(family)
    }

    /// What the family is for, without escapes.
    pub(super) fn plain_help(&mut self, family: u32, start: usize, end: usize) -> Parsed<()> {
        self.check_utf8(start, end)?;
        self.page.families[family as usize].help = Span::new(start, end);
        Ok(())
    }

    /// What the family is for.
    pub(super) fn help(&mut self, family: u32, start: usize, end: usize, escapes: Escapes) -> Parsed<()> {
        self.check_utf8(start, end)?;
        let escaped = memchr::memchr(b'\\', &self.text[start..end]).is_some();
        let help = if escaped { self.unescape(start, end, escapes) } else { Span::new(start, end) };
        self.page.families[family as usize].help = help;
        Ok(())
    }

    /// The type of a family.
    pub(super) fn kind(&mut self, family: u32, kind: MetricKind) {
        self.page.families[family as usize].kind = kind;
    }

    /// The unit of a family.
    pub(super) fn unit(&mut self, family: u32, start: usize, end: usize) -> Parsed<()> {
        self.check_utf8(start, end)?;
        self.page.families[family as usize].unit = Span::new(start, end);
        Ok(())
    }

    /// A sample begins: what follows are its labels.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.first = self.page.labels.len();
        self.seen = 0;
    }

    /// A sample begins at `start`: with what its line has in common with the one before, which need not be read again. The
    /// metric's name, the place behind, and whether that is behind a label or behind the brace. Nothing where too little is
    /// the same.
    #[inline]
    pub(super) fn begin_like_the_last(&mut self, start: usize) -> Option<(Span, usize, bool)> {
        let line = self.line.take()?;
        let name = line.name.len as usize;
        let before = &self.text[line.start..line.end];
        let common = common_prefix(before, &self.text[start..]);
        if common <= name {
            return None;
        }
        // Whole labels, with their closing quotes.
        let labels = &self.page.labels[line.first..line.first + line.count];
        let is_whole = |label: &&Label| {
            let end = (label.value.start + label.value.len) as usize;
            // A text with escapes stands elsewhere.
            label.value.start as usize > line.start && end < line.start + common
        };
        let count = labels.iter().take_while(is_whole).count();
        let at = match labels[..count].last() {
            Some(label) => (label.value.start + label.value.len) as usize + 1 - line.start,
            None => name + 1,
        };
        self.seen = if count == line.count {
            line.seen
        } else {
            labels[..count].iter().fold(0, |seen, label| seen | name_bit(self.bytes(label.name)))
        };
        self.page.labels.extend_from_within(line.first..line.first + count);
        Some((line.name, start + at, count > 0))
    }

    /// The line that began at `start` has been read to `end`. `name` is the metric's, if it stood before a brace.
    #[inline]
    pub(super) fn remember_line(&mut self, start: usize, end: usize, name: Option<Span>) {
        let (first, count) = (self.first, self.page.labels.len() - self.first);
        self.line = name.map(|name| Line { start, end, name, first, count, seen: self.seen });
    }

    /// A sample begins that has the labels of an earlier one, and perhaps more.
    pub(super) fn repeat(&mut self, first: usize, count: usize) {
        self.first = self.page.labels.len();
        self.page.labels.extend_from_within(first..first + count);
    }

    /// Name and value of a label that says a bound: `le` or `quantile`. Metrics of a family have the same bounds at the same
    /// places, so that each stands behind the body once.
    pub(super) fn bound(&mut self, name: &'static [u8], place: usize, bound: f64) -> (Span, Span) {
        let known = self.bound_names.iter().find(|(known, _)| *known == name);
        let name = match known {
            Some((_, span)) => *span,
            None => {
                let span = self.push(&[name]);
                self.bound_names.push((name, span));
                span
            }
        };
        if let Some((bits, span)) = self.bounds.get(place)
            && *bits == bound.to_bits()
        {
            return (name, *span);
        }
        let start = self.text.len() + self.extra.len();
        number::write_bound(self.extra, bound);
        let span = Span::new(start, self.text.len() + self.extra.len());
        if self.bounds.len() == place {
            self.bounds.push((bound.to_bits(), span));
        } else if let Some(known) = self.bounds.get_mut(place) {
            *known = (bound.to_bits(), span);
        }
        (name, span)
    }

    /// Takes a number of native buckets or spans off what the page may hold.
    pub(super) fn native(&mut self, count: u64) -> Parsed<()> {
        self.native += count;
        let limit = self.limits.samples.saturating_mul(NATIVE_PER_SAMPLE);
        if self.native > limit {
            return Err(Fault::Limit { what: "the number of native buckets", limit, key: "sample_limit" });
        }
        Ok(())
    }

    /// A label of the sample that was begun. `at` is where it stands.
    #[inline]
    pub(super) fn label(&mut self, at: usize, name: Span, value: Span) -> Parsed<()> {
        self.check_name(at, name, "the length of a label name")?;
        if u64::from(value.len) > self.limits.label_value {
            let limit = self.limits.label_value;
            return Err(Fault::Limit {
                what: "the length of a label value",
                limit,
                key: "label_value_limit",
            });
        }
        if (self.page.labels.len() - self.first) as u64 >= self.limits.labels {
            let limit = self.limits.labels;
            return Err(Fault::Limit { what: "the number of labels of a sample", limit, key: "label_limit" });
        }
        let bytes = within(self.text, self.extra, name);
        let bit = name_bit(bytes);
        let again = self.seen & bit != 0
            && self.page.labels[self.first..]
                .iter()
                .any(|other| within(self.text, self.extra, other.name) == bytes);
        if again || bytes == b"__name__" {
            return Fault::at(at, "expected every label once");
        }
        self.seen |= bit;
        self.page.labels.push(Label { name, value });
        Ok(())
    }

    #[inline]
    fn check_name(&self, at: usize, name: Span, what: &'static str) -> Parsed<()> {
        if name.is_empty() {
            return Fault::at(at, "expected a name that is not empty");
        }
        if u64::from(name.len) > self.limits.name {
            return Err(Fault::Limit { what, limit: self.limits.name, key: "name_limit" });
        }
        Ok(())
    }

    /// Ends the sample that was begun. `at` is where it stands.
    #[inline]
    pub(super) fn sample(&mut self, at: usize, name: Span, value: f64, time_unix_ms: i64) -> Parsed<()> {
        let family = self.family_of(at, name)?;
        self.sample_of(family, name, value, time_unix_ms)
    }

    /// Ends the sample that was begun, of a family that is known.
    #[inline]
    pub(super) fn sample_of(&mut self, family: u32, name: Span, value: f64, time_unix_ms: i64) -> Parsed<()> {
        if self.page.samples.len() as u64 >= self.limits.samples {
            let limit = self.limits.samples;
            return Err(Fault::Limit { what: "the number of samples", limit, key: "sample_limit" });
        }
        let label_count = (self.page.labels.len() - self.first) as u32;
        self.page.samples.push(Sample {
            name,
            family,
            labels: self.first as u32,
            label_count,
            time_unix_ms,
            value,
            ..Sample::default()
        });
        Ok(())
    }

    /// The family of a sample's name.
    #[inline]
    fn family_of(&mut self, at: usize, name: Span) -> Parsed<u32> {
        let bytes = self.bytes(name);
        if self.last.len == name.len && !name.is_empty() && self.bytes(self.last) == bytes {
            return Ok(self.current);
        }
        self.search_family(at, name)
    }

    fn search_family(&mut self, at: usize, name: Span) -> Parsed<u32> {
        self.check_name(at, name, "the length of a metric name")?;
        let bytes = self.bytes(name);
        let of_current = self.current != NONE && self.is_of(bytes, self.current);
        if !of_current {
            let (text, extra, families) = (self.text, &*self.extra, &self.page.families);
            let name_of = |family: u32| within(text, extra, families[family as usize].name);
            let found = self.index.find(bytes, name_of).ok().or_else(|| {
                let mut stems = SUFFIXES.iter().filter_map(|suffix| bytes.strip_suffix(*suffix));
                stems.find_map(|stem| {
                    let family = self.index.find(stem, name_of).ok()?;
                    self.is_of(bytes, family).then_some(family)
                })
            });
            self.current = match found {
                Some(family) => family,
                None => self.new_family(name)?,
            };
        }
        self.last = name;
        Ok(self.current)
    }

    /// True when a sample of this name is of the family.
    fn is_of(&self, name: &[u8], family: u32) -> bool {
        let family = &self.page.families[family as usize];
        match name.strip_prefix(self.bytes(family.name)) {
            None => false,
            Some(b"") => true,
            Some(suffix) => match family.kind {
                MetricKind::Counter => matches!(suffix, b"_total" | b"_created"),
                MetricKind::Histogram => matches!(suffix, b"_bucket" | b"_sum" | b"_count" | b"_created"),
                MetricKind::GaugeHistogram => {
                    matches!(suffix, b"_bucket" | b"_gsum" | b"_gcount" | b"_sum" | b"_count")
                }
                MetricKind::Summary => matches!(suffix, b"_sum" | b"_count" | b"_created"),
                MetricKind::Info => suffix == b"_info",
                MetricKind::Gauge | MetricKind::StateSet | MetricKind::Unknown => false,
            },
        }
    }

    /// An exemplar begins: what follows are its labels.
    pub(super) fn begin_exemplar(&mut self) {
        self.exemplar_first = self.page.labels.len();
        self.exemplar_characters = 0;
        self.exemplar_twice = false;
    }

    /// A label of the exemplar that was begun.
    pub(super) fn exemplar_label(&mut self, name: Span, value: Span) {
        let characters = |span: Span| self.bytes(span).iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        // An empty name counts too, so that there are never more labels than characters.
        self.exemplar_characters += characters(name).max(1) + characters(value);
        if self.exemplar_characters > EXEMPLAR_CHARACTERS {
            return;
        }
        let bytes = self.bytes(name);
        self.exemplar_twice |=
            self.page.labels[self.exemplar_first..].iter().any(|other| self.bytes(other.name) == bytes);
        self.page.labels.push(Label { name, value });
    }

    /// Ends the exemplar that was begun: its place, or `None` when Prometheus would drop it.
    pub(super) fn end_exemplar(&mut self, value: f64, time_unix_ms: i64) -> Option<u32> {
        if self.exemplar_characters > EXEMPLAR_CHARACTERS || self.exemplar_twice {
            self.page.labels.truncate(self.exemplar_first);
            return None;
        }
        let labels = self.exemplar_first as u32;
        let label_count = self.page.labels.len() as u32 - labels;
        self.page.exemplars.push(Exemplar { labels, label_count, value, time_unix_ms });
        Some(self.page.exemplars.len() as u32 - 1)
    }

    /// Forgets the exemplar that was begun.
    pub(super) fn discard_exemplar(&mut self) {
        self.page.labels.truncate(self.exemplar_first);
    }

    /// Gives the last sample its exemplars: `exemplar` is the newest.
    pub(super) fn attach(&mut self, exemplar: u32, count: u32) {
        if let Some(sample) = self.page.samples.last_mut() {
            sample.exemplar = exemplar;
            sample.exemplar_count = count;
        }
    }
}

/// What may stand behind a family's name in a sample's.
const SUFFIXES: [&[u8]; 8] =
    [b"_bucket", b"_sum", b"_count", b"_total", b"_created", b"_info", b"_gsum", b"_gcount"];

#[inline]
fn within<'s>(text: &'s [u8], extra: &'s [u8], span: Span) -> &'s [u8] {
    match (span.start as usize).checked_sub(text.len()) {
        None => span.of(text),
        Some(start) => &extra[start..start + span.len as usize],
    }
}
