//! The names of a source's series, compressed: what is needed to say that one of them has ended.
//!
//! In: final label sets of a page. Out: the same, one by one. Each entry says only how it differs from the one before it,
//! and a run of entries is compressed by snappy: a series of a kubelet's page takes about ten bytes.
//! Invariant: an entry gives back the series' own labels exactly; those of the origin are added when it is told.
//!
//! Entry, before the difference: one byte (bit 0: labels are all of the series', not only its own; then the kind of its
//! family), then by LEB128 lengths: how much of the metric's name is its family's, then name and value of each label.

use crate::data::sample::{Label, MetricKind, Page, Sample, Span};
use crate::data::varint;

use super::labels::{Common, NAME};

const KINDS: [MetricKind; 8] = [
    MetricKind::Unknown,
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
];

/// Runs of entries, oldest first. Entries of series that are no more stay until all is written anew.
#[derive(Debug, Default)]
pub(super) struct Names {
    runs: Vec<Box<[u8]>>,
    entries: usize,
}

/// Most runs before they are written anew as one.
const RUNS: usize = 6;

impl Names {
    /// True when so many entries are of series that are no more, or so many runs there are, that writing anew pays.
    pub(super) fn is_worn(&self, live: usize) -> bool {
        self.runs.len() > RUNS || self.entries > 2 * live + 64
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Box<[u8]>>() + self.runs.iter().map(|run| run.len()).sum::<usize>()
    }

    /// Appends what a writer has gathered.
    pub(super) fn append(&mut self, writer: &mut Writer) {
        if writer.entries == 0 {
            return;
        }
        let bound = snap::raw::max_compress_len(writer.text.len());
        if writer.packed.len() < bound {
            writer.packed.resize(bound, 0);
        }
        // Fails only where the buffer is too small, or above 4 GiB of names: they then end without a mark.
        if let Ok(len) = snap::raw::Encoder::new().compress(&writer.text, &mut writer.packed) {
            self.runs.push(Box::from(&writer.packed[..len]));
            self.entries += writer.entries;
        }
        writer.clear();
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.entries = 0;
    }

    /// Gives each entry to `each`, until that says false.
    pub(super) fn read(&self, reader: &mut Reader, mut each: impl FnMut(&[u8]) -> bool) {
        for run in &self.runs {
            let Ok(len) = snap::raw::decompress_len(run) else { continue };
            reader.text.resize(len, 0);
            if snap::raw::Decoder::new().decompress(run, &mut reader.text).is_err() {
                continue;
            }
            reader.entry.clear();
            let mut rest = &reader.text[..];
            while !rest.is_empty() {
                let same = number(&mut rest);
                let new = number(&mut rest).min(rest.len());
                reader.entry.truncate(same);
                reader.entry.extend_from_slice(&rest[..new]);
                rest = &rest[new..];
                if !each(&reader.entry) {
                    return;
                }
            }
        }
    }
}

/// Gathers entries.
#[derive(Default)]
pub(super) struct Writer {
    text: Vec<u8>,
    last: Vec<u8>,
    entry: Vec<u8>,
    packed: Vec<u8>,
    entries: usize,
}

impl Writer {
    /// Forgets what was gathered.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.last.clear();
        self.entries = 0;
    }

    /// Gives memory back that one large page took.
    pub(super) fn shrink(&mut self, limit: usize) {
        for buffer in [&mut self.text, &mut self.packed] {
            if buffer.capacity() > limit {
                *buffer = Vec::new();
            }
        }
    }

    /// Adds a series of a page whose labels are final. `whole`: they do not follow from its own by the ordinary rule.
    pub(super) fn push(&mut self, page: &Page, sample: &Sample, common: &Common, whole: bool) {
        let family = page.families.get(sample.family as usize);
        let kind = family.map_or(MetricKind::Unknown, |family| family.kind);
        let at = KINDS.iter().position(|known| *known == kind).unwrap_or(0) as u8;
        let of_name = family
            .map(|family| page.bytes(family.name))
            .filter(|name| page.bytes(sample.name).starts_with(name))
            .map_or(sample.name.len as usize, <[u8]>::len);
        self.entry.clear();
        self.entry.push(u8::from(whole) | at << 1);
        varint::write(&mut self.entry, of_name as u64);
        for label in page.labels_of(sample).iter().filter(|label| whole || !common.is_of(label)) {
            for text in [page.bytes(label.name), page.bytes(label.value)] {
                varint::write(&mut self.entry, text.len() as u64);
                self.entry.extend_from_slice(text);
            }
        }
        let same = self.entry.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        varint::write(&mut self.text, same as u64);
        varint::write(&mut self.text, (self.entry.len() - same) as u64);
        self.text.extend_from_slice(&self.entry[same..]);
        std::mem::swap(&mut self.entry, &mut self.last);
        self.entries += 1;
    }
}

/// Buffers for reading.
#[derive(Debug, Default)]
pub(super) struct Reader {
    text: Vec<u8>,
    entry: Vec<u8>,
}

impl Reader {
    /// Gives memory back that one large page took.
    pub(super) fn shrink(&mut self, limit: usize) {
        if self.text.capacity() > limit {
            self.text = Vec::new();
        }
    }
}

/// An entry, understood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Its labels are all that it has.
    pub(super) whole: bool,
    /// Kind of its family.
    pub(super) kind: MetricKind,
    /// How much of its name is its family's.
    family: usize,
    labels: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Understands an entry.
    pub(super) fn new(entry: &'a [u8]) -> Option<Self> {
        let (head, mut rest) = entry.split_first()?;
        let family = number(&mut rest);
        let kind = *KINDS.get(usize::from(head >> 1))?;
        Some(Self { whole: head & 1 == 1, kind, family, labels: rest })
    }

    /// Its labels, sorted.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let mut rest = self.labels;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            Some((text(&mut rest), text(&mut rest)))
        })
    }

    /// The name of its family.
    pub(super) fn family(&self) -> &'a [u8] {
        let name = self.labels().find(|(name, _)| *name == NAME).map_or(&[][..], |(_, value)| value);
        &name[..self.family.min(name.len())]
    }

    /// Appends its final labels to a page and gives the name among them.
    pub(super) fn lay(&self, page: &mut Page, common: &Common) -> Sample {
        let start = page.labels.len();
        let mut ours = if self.whole { &[][..] } else { &common.labels[..] };
        let mut metric = Span::default();
        for (name, value) in self.labels() {
            while let Some(label) = ours.first() {
                match page.bytes(label.name).cmp(name) {
                    std::cmp::Ordering::Less => page.labels.push(*label),
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => break,
                }
                ours = &ours[1..];
            }
            let is_name = name == NAME;
            let name = if is_name { common.name } else { page.push_text(name) };
            let value = page.push_text(value);
            if is_name {
                metric = value;
            }
            page.labels.push(Label { name, value });
        }
        page.labels.extend_from_slice(ours);
        Sample {
            name: metric,
            labels: start as u32,
            label_count: (page.labels.len() - start) as u32,
            ..Sample::default()
        }
    }
}

fn number(rest: &mut &[u8]) -> usize {
    varint::read(rest).unwrap_or_default() as usize
}

fn text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = number(rest).min(rest.len());
    let (text, after) = rest.split_at(len);
    *rest = after;
    text
}
