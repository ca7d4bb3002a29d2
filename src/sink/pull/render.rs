//! Writes all kept pages as one.
//!
//! In: kept pages, each sorted by its families' names. Out: text in pieces of about [`PIECE`] bytes. It is a merge: each
//! source shows its next family, the least name is written with the samples of all that have it. Invariants: one block a
//! source is decompressed at a time; a family has one `# TYPE` line; where sources disagree on a type it is unknown.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::keep::{Kept, escape, take, write_label};
use crate::data::sample::MetricKind;
use crate::sink::family::Part;

/// Bytes of a piece, about.
pub(super) const PIECE: usize = 64 << 10;

/// A source and where the merge is in it.
struct Cursor {
    kept: Arc<Kept>,
    /// The target's labels as text.
    labels: Vec<u8>,
    next_block: usize,
    block: Vec<u8>,
    at: usize,
}

/// The head of a part.
struct Head<'a> {
    kind: u8,
    key: &'a [u8],
    help: &'a [u8],
    unit: &'a [u8],
    samples: &'a [u8],
    end: usize,
}

impl Cursor {
    fn new(kept: Arc<Kept>) -> Self {
        let mut labels = Vec::new();
        for (name, value) in kept.origin.labels.iter().filter(|(_, value)| !value.is_empty()) {
            if !labels.is_empty() {
                labels.push(b',');
            }
            write_label(name.as_bytes(), value.as_bytes(), &mut labels);
        }
        Self { kept, labels, next_block: 0, block: Vec::new(), at: 0 }
    }

    /// Makes the next part the present one; false at the end.
    fn load(&mut self) -> bool {
        while self.at >= self.block.len() {
            self.at = 0;
            if !self.kept.block(self.next_block, &mut self.block) {
                self.block = Vec::new();
                return false;
            }
            self.next_block += 1;
        }
        true
    }

    fn head(&self) -> Head<'_> {
        let mut rest = &self.block[self.at..];
        let kind = rest.first().copied().unwrap_or_default();
        rest = rest.get(1..).unwrap_or_default();
        let (key, help, unit) = (take(&mut rest), take(&mut rest), take(&mut rest));
        let samples = take(&mut rest);
        Head { kind, key, help, unit, samples, end: self.block.len() - rest.len() }
    }
}

/// The family being written.
struct Family {
    key: Vec<u8>,
    kind: MetricKind,
    /// Sources that have it and are not written yet.
    members: VecDeque<usize>,
    /// Lines of `_created`, a family of their own in the text format.
    created: Vec<u8>,
}

/// The merge.
pub(super) struct Render {
    open_metrics: bool,
    cursors: Vec<Cursor>,
    heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    family: Option<Family>,
    out: Vec<u8>,
    ended: bool,
}

impl Render {
    pub(super) fn new(mut pages: Vec<Arc<Kept>>, open_metrics: bool) -> Self {
        pages.sort_by(|one, other| one.origin.labels.cmp(&other.origin.labels));
        let cursors: Vec<Cursor> = pages.into_iter().map(Cursor::new).collect();
        let mut render = Self {
            open_metrics,
            heap: BinaryHeap::with_capacity(cursors.len()),
            cursors,
            family: None,
            out: Vec::new(),
            ended: false,
        };
        for number in 0..render.cursors.len() {
            render.enter(number);
        }
        render
    }

    /// Puts a source into the heap by its next family.
    fn enter(&mut self, number: usize) {
        if self.cursors[number].load() {
            let key = self.cursors[number].head().key.to_vec();
            self.heap.push(Reverse((key, number)));
        }
    }

    /// Writes the next part; false when all is written.
    fn step(&mut self) -> bool {
        let Some(mut family) = self.family.take() else { return self.begin_family() };
        let Some(number) = family.members.front().copied() else {
            self.end_family(&family);
            return true;
        };
        let cursor = &mut self.cursors[number];
        let end = {
            let head = cursor.head();
            write_samples(
                head.samples,
                &cursor.labels,
                self.open_metrics,
                &mut self.out,
                &mut family.created,
            );
            head.end
        };
        cursor.at = end;
        let goes_on = cursor.load() && cursor.head().key == family.key;
        if !goes_on {
            family.members.pop_front();
            self.enter(number);
        }
        self.family = Some(family);
        true
    }

    fn begin_family(&mut self) -> bool {
        let Some(Reverse((key, first))) = self.heap.pop() else { return false };
        let mut members = VecDeque::from([first]);
        while let Some(Reverse((other, number))) = self.heap.peek() {
            if *other != key {
                break;
            }
            members.push_back(*number);
            self.heap.pop();
        }
        let heads = || members.iter().map(|number| self.cursors[*number].head());
        let first = kind_of(self.cursors[first].head().kind);
        let kind = if heads().all(|head| kind_of(head.kind) == first) { first } else { MetricKind::Unknown };
        let help = heads().map(|head| head.help).find(|help| !help.is_empty()).unwrap_or_default();
        let unit = heads().map(|head| head.unit).find(|unit| !unit.is_empty()).unwrap_or_default();
        let mut out = std::mem::take(&mut self.out);
        if self.open_metrics {
            let (name, kind) = open_metrics_name(&key, kind);
            write_heads(name, kind, help, &mut out);
            // A unit has to be the end of the name.
            let fits = name.strip_suffix(unit).is_some_and(|rest| rest.ends_with(b"_"));
            if !unit.is_empty() && fits {
                for part in [&b"# UNIT "[..], name, b" ", unit, b"\n"] {
                    out.extend_from_slice(part);
                }
            }
        } else {
            write_heads(&key, text_kind(kind), help, &mut out);
        }
        self.out = out;
        self.family = Some(Family { key, kind, members, created: Vec::new() });
        true
    }

    fn end_family(&mut self, family: &Family) {
        if family.created.is_empty() {
            return;
        }
        let base = match family.kind {
            MetricKind::Counter => family.key.strip_suffix(b"_total").unwrap_or(&family.key),
            _ => &family.key,
        };
        write_heads(&[base, b"_created"].concat(), "gauge", b"", &mut self.out);
        self.out.extend_from_slice(&family.created);
    }
}

impl Iterator for Render {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        self.out.reserve(PIECE);
        while self.out.len() < PIECE {
            if !self.step() {
                self.ended = true;
                if self.open_metrics {
                    self.out.extend_from_slice(b"# EOF\n");
                }
                break;
            }
        }
        Some(std::mem::take(&mut self.out).into())
    }
}

fn write_heads(name: &[u8], kind: &str, help: &[u8], out: &mut Vec<u8>) {
    if !help.is_empty() {
        out.extend_from_slice(b"# HELP ");
        out.extend_from_slice(name);
        out.push(b' ');
        // OpenMetrics has quotes escaped as well; readers of both take them as they are.
        escape(help, false, out);
        out.push(b'\n');
    }
    out.extend_from_slice(b"# TYPE ");
    out.extend_from_slice(name);
    out.push(b' ');
    out.extend_from_slice(kind.as_bytes());
    out.push(b'\n');
}

fn write_samples(
    mut samples: &[u8],
    labels: &[u8],
    open_metrics: bool,
    out: &mut Vec<u8>,
    created: &mut Vec<u8>,
) {
    let mut name: &[u8] = b"";
    while let Some((part, rest)) = samples.split_first() {
        samples = rest;
        let own_name = take(&mut samples);
        if !own_name.is_empty() {
            name = own_name;
        }
        let (own, value, exemplar) = (take(&mut samples), take(&mut samples), take(&mut samples));
        let out = if !open_metrics && *part == Part::Created as u8 { &mut *created } else { &mut *out };
        out.extend_from_slice(name);
        if !own.is_empty() || !labels.is_empty() {
            out.push(b'{');
            out.extend_from_slice(own);
            if !own.is_empty() && !labels.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(labels);
            out.push(b'}');
        }
        out.push(b' ');
        out.extend_from_slice(value);
        if open_metrics {
            out.extend_from_slice(exemplar);
        }
        out.push(b'\n');
    }
}

fn kind_of(number: u8) -> MetricKind {
    use MetricKind::{Counter, Gauge, Histogram, Info, StateSet, Summary, Unknown};
    let kinds = [Counter, Gauge, Histogram, Info, StateSet, Summary];
    kinds.into_iter().find(|kind| *kind as u8 == number).unwrap_or(Unknown)
}

fn text_kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge | MetricKind::Info | MetricKind::StateSet => "gauge",
        MetricKind::Histogram => "histogram",
        MetricKind::Summary => "summary",
        MetricKind::Unknown | MetricKind::GaugeHistogram => "untyped",
    }
}

/// Name and type in OpenMetrics, where a counter's family is named without `_total` and an info's without `_info`.
fn open_metrics_name(key: &[u8], kind: MetricKind) -> (&[u8], &'static str) {
    match kind {
        MetricKind::Counter => match key.strip_suffix(b"_total") {
            Some(base) if !base.is_empty() => (base, "counter"),
            _ => (key, "unknown"),
        },
        MetricKind::Info => match key.strip_suffix(b"_info") {
            Some(base) if !base.is_empty() => (base, "info"),
            _ => (key, "unknown"),
        },
        MetricKind::StateSet => (key, "stateset"),
        MetricKind::Unknown | MetricKind::GaugeHistogram => (key, "unknown"),
        other => (key, text_kind(other)),
    }
}
