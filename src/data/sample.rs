//! Samples of metrics: a page is what one source (a scraped target, RED, the host) says at one time.
//!
//! The text of a page stays in its arena: the body as it was fetched, then whatever had to be unescaped or added. Samples
//! and labels are small and `Copy`. A page is reused from scrape to scrape, so that steady state allocates nothing.
//! Names and values are UTF-8; a label set is sorted by name, `__name__` among the others, once the page is final.

use std::sync::Arc;

pub use super::batch::Span;

/// The value that says that a series has ended. A NaN of its own: other NaNs are ordinary values.
/// Source: Prometheus `model/value/value.go`, `StaleNaN`.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The value that says that a series has ended.
pub const fn stale() -> f64 {
    f64::from_bits(STALE)
}

/// True for the value that says that a series has ended, and for no other NaN.
pub const fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE
}

/// What a page is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginKind {
    /// A scraped target.
    Target,
    /// Rate, errors, duration, as the agent derives them.
    Red,
    /// The node and its containers.
    Host,
    /// What the agent makes of declared objectives.
    Slo,
}

/// Who a page is of. One for each target while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What it is of.
    pub kind: OriginKind,
    /// Labels that every series of it has, sorted by name. Never `__name__`.
    pub labels: Vec<(String, String)>,
    /// OpenTelemetry resource attributes, sorted by name.
    pub resource: Vec<(String, String)>,
}

impl Origin {
    /// A label that every series has.
    pub fn label(&self, name: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(&self.labels[at].1)
    }
}

/// Type of a metric family, as OpenMetrics names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MetricKind {
    /// Not said, or `untyped`.
    #[default]
    Unknown,
    /// Goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket, and their sum.
    Histogram,
    /// A histogram whose counts go down too.
    GaugeHistogram,
    /// Quantiles, and their sum.
    Summary,
    /// Always 1; the labels say it.
    Info,
    /// One of a set.
    StateSet,
}

/// A metric family: what `# TYPE`, `# HELP` and `# UNIT` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Family {
    /// Name as in its `# TYPE` line.
    pub name: Span,
    /// Type.
    pub kind: MetricKind,
    /// Help text, unescaped.
    pub help: Span,
    /// Unit.
    pub unit: Span,
}

/// A label of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Label {
    /// Name.
    pub name: Span,
    /// Value, unescaped.
    pub value: Span,
}

/// No exemplar, no histogram.
pub const NONE: u32 = u32::MAX;
/// A sample without a time of its own.
pub const NO_TIME: i64 = i64::MIN;

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Metric name, with its suffix (`_bucket`, `_total`).
    pub name: Span,
    /// Index of its family in the page.
    pub family: u32,
    /// Index of its first label in the page.
    pub labels: u32,
    /// Number of its labels; with `__name__` once the page is final, without before.
    pub label_count: u32,
    /// Index of its newest exemplar in the page, or [`NONE`]; older ones stand before it.
    pub exemplar: u32,
    /// Number of its exemplars: one in text, perhaps more with a native histogram.
    pub exemplar_count: u32,
    /// Index of its native histogram in the page, or [`NONE`]; `value` is then its sum, or the mark of staleness.
    pub histogram: u32,
    /// Milliseconds since the epoch. Before the page is final [`NO_TIME`] where the target says none.
    pub time_unix_ms: i64,
    /// Value.
    pub value: f64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            name: Span::default(),
            family: 0,
            labels: 0,
            label_count: 0,
            exemplar: NONE,
            exemplar_count: 0,
            histogram: NONE,
            time_unix_ms: NO_TIME,
            value: 0.0,
        }
    }
}

/// An exemplar of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// Index of its first label in the page.
    pub labels: u32,
    /// Number of its labels.
    pub label_count: u32,
    /// Value.
    pub value: f64,
    /// Milliseconds since the epoch; [`NO_TIME`] where it says none.
    pub time_unix_ms: i64,
}

/// Counts of a native histogram.
#[derive(Debug, Clone, PartialEq)]
pub enum Counts {
    /// Integers; buckets are deltas to the bucket before.
    Integer {
        /// All observations.
        count: u64,
        /// Observations in the zero bucket.
        zero: u64,
        /// Of negative buckets.
        negative: Vec<i64>,
        /// Of positive buckets.
        positive: Vec<i64>,
    },
    /// Floats; buckets are absolute.
    Float {
        /// All observations.
        count: f64,
        /// Observations in the zero bucket.
        zero: f64,
        /// Of negative buckets.
        negative: Vec<f64>,
        /// Of positive buckets.
        positive: Vec<f64>,
    },
}

/// Consecutive buckets of a native histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketSpan {
    /// Gap to the span before, or for the first one its starting index.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A native histogram. Source: Prometheus `prompb/types.proto`, `Histogram`.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Counts.
    pub counts: Counts,
    /// Sum of all observations.
    pub sum: f64,
    /// Resolution, -4 to 8: buckets grow by 2^(2^-schema).
    pub schema: i32,
    /// Breadth of the zero bucket.
    pub zero_threshold: f64,
    /// Where negative buckets are.
    pub negative_spans: Vec<BucketSpan>,
    /// Where positive buckets are.
    pub positive_spans: Vec<BucketSpan>,
    /// It is a gauge histogram.
    pub gauge: bool,
}

/// What one source says at one time.
#[derive(Debug, Default)]
pub struct Page {
    /// All text of the page.
    pub arena: Vec<u8>,
    /// Metric families in the order of the page.
    pub families: Vec<Family>,
    /// Samples in the order of the page.
    pub samples: Vec<Sample>,
    /// Labels of all samples and exemplars.
    pub labels: Vec<Label>,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
    /// Native histograms.
    pub histograms: Vec<Histogram>,
}

impl Page {
    /// Empties the page; its memory stays.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.families.clear();
        self.samples.clear();
        self.labels.clear();
        self.exemplars.clear();
        self.histograms.clear();
    }

    /// Bytes that the page holds, filled or not; those of native histograms are not in it.
    pub fn held(&self) -> usize {
        self.arena.capacity()
            + self.families.capacity() * size_of::<Family>()
            + self.samples.capacity() * size_of::<Sample>()
            + self.labels.capacity() * size_of::<Label>()
            + self.exemplars.capacity() * size_of::<Exemplar>()
            + self.histograms.capacity() * size_of::<Histogram>()
    }

    /// The bytes of a span; UTF-8 once the page has been parsed.
    #[inline]
    pub fn bytes(&self, span: Span) -> &[u8] {
        span.of(&self.arena)
    }

    /// The text of a span; empty where it is no UTF-8.
    pub fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    /// Appends text to the arena.
    pub fn push_text(&mut self, text: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(text);
        Span::new(start, self.arena.len())
    }

    /// Labels of a sample.
    #[inline]
    pub fn labels_of(&self, sample: &Sample) -> &[Label] {
        &self.labels[sample.labels as usize..(sample.labels + sample.label_count) as usize]
    }

    /// The value of a sample's label.
    pub fn label(&self, sample: &Sample, name: &[u8]) -> Option<&[u8]> {
        let found = self.labels_of(sample).iter().find(|label| self.bytes(label.name) == name)?;
        Some(self.bytes(found.value))
    }

    /// Exemplars of a sample, oldest first.
    pub fn exemplars_of(&self, sample: &Sample) -> &[Exemplar] {
        if sample.exemplar == NONE {
            return &[];
        }
        let end = sample.exemplar as usize + 1;
        &self.exemplars[end - sample.exemplar_count as usize..end]
    }

    /// Labels of an exemplar.
    pub fn exemplar_labels(&self, exemplar: &Exemplar) -> &[Label] {
        &self.labels[exemplar.labels as usize..(exemplar.labels + exemplar.label_count) as usize]
    }

    /// The native histogram of a sample.
    pub fn histogram_of(&self, sample: &Sample) -> Option<&Histogram> {
        self.histograms.get(sample.histogram as usize)
    }

    /// Begins a family; further samples are of it. For pages that the agent makes itself.
    pub fn begin_family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let name = self.push_text(name.as_bytes());
        let help = self.push_text(help.as_bytes());
        self.families.push(Family { name, kind, help, unit: Span::default() });
    }

    /// Appends a sample of the family that was begun last. `labels` need not be sorted and have no `__name__`.
    pub fn push_sample<'a>(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) {
        let name = self.push_text(name.as_bytes());
        let first = self.labels.len() as u32;
        for (name, value) in labels {
            let name = self.push_text(name.as_bytes());
            let value = self.push_text(value.as_bytes());
            self.labels.push(Label { name, value });
        }
        self.samples.push(Sample {
            name,
            family: (self.families.len() - 1) as u32,
            labels: first,
            label_count: self.labels.len() as u32 - first,
            value,
            ..Sample::default()
        });
    }
}

/// Takes pages to a backend. Called by the one thread that owns all series.
///
/// A page that is handed over is final: every label set is sorted, has `__name__` and the origin's labels and is unique in
/// the page, every sample has its time, and a series' times only go up from page to page.
pub trait Collect: Send {
    /// Takes what it needs of a page, without ever blocking: what is not taken in time is dropped and counted.
    fn page(&mut self, origin: &Arc<Origin>, page: &Page);

    /// Nothing more is to be taken just now: sends what waits. Called about once a second, and at the end.
    fn flush(&mut self);

    /// A source will say nothing more.
    fn forget(&mut self, _origin: &Arc<Origin>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_of_staleness_is_stale() {
        assert!(is_stale(stale()));
        assert!(!is_stale(f64::NAN) && !is_stale(0.0));
        assert_eq!(stale().to_bits(), 0x7ff0_0000_0000_0002);
    }

    #[test]
    fn a_page_of_the_agents_own_reads_back() {
        let mut page = Page::default();
        page.begin_family("red_requests_total", MetricKind::Counter, "Requests.");
        page.push_sample("red_requests_total", [("route", "/a"), ("method", "GET")], 2.0);
        let sample = page.samples[0];
        assert_eq!(page.text(sample.name), "red_requests_total");
        assert_eq!(page.label(&sample, b"method"), Some(&b"GET"[..]));
        assert_eq!(page.label(&sample, b"pod"), None);
        assert!(page.exemplars_of(&sample).is_empty() && page.histogram_of(&sample).is_none());
        page.clear();
        assert!(page.samples.is_empty() && page.arena.is_empty());
    }
}
