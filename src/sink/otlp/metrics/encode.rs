//! Writes an OTLP `ExportMetricsServiceRequest` from final pages, straight from slices of their arenas.
//!
//! In: pages. Out: requests of at most about [`MAX_REQUEST`] bytes before compression, through `seal`. The mapping is that
//! of "Prometheus and OpenMetrics Compatibility": names stay, a counter is a monotonic sum, what is unknown a gauge, info
//! and state sets are sums that are not monotonic, the samples of a histogram or summary become one point, gauge
//! histograms are dropped. A sample that says that its series has ended is a point with "no recorded value".
//! Invariants: target labels are the resource's and stand on no point; every string is UTF-8; nothing is allocated per
//! sample once the buffers have grown.
//!
//! Field numbers: opentelemetry-proto, `metrics/v1/metrics.proto`.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::gather::Gather;
use super::point::{self, Head};
use super::resource;
use super::starts::{Starts, Walk};
use super::units::unit;
use crate::data::sample::{Family, MetricKind, NO_TIME, Origin, Page, Sample, is_stale};
use crate::sink::family::{Part, part_of};
use crate::sink::otlp::encode::{
    OWN_SCOPE, utf8, write_bytes, write_resource_entries, write_string_attribute,
};

/// Bytes of a request before compression, about: receivers take messages of at most 4 MiB by default.
pub(super) const MAX_REQUEST: usize = 1 << 20;
/// Sources whose state is kept; the one that was silent for longest goes first.
const ORIGINS: usize = 4096;

/// Data types of a `Metric`, by their field numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    Gauge = 5,
    /// Cumulative; monotonic for a counter.
    Sum = 7,
    Histogram = 9,
    Exponential = 10,
    Summary = 11,
}

/// What is known of a source.
#[derive(Debug)]
struct Source {
    /// Kept, so that its address is nobody else's.
    _origin: Arc<Origin>,
    starts: Starts,
    last_ms: i64,
}

/// Takes whole requests and the number of data points in each.
pub(super) type Seal<'a> = &'a mut dyn FnMut(&[u8], u64);

/// The encoder with its reused buffers.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    sources: HashMap<usize, Source, foldhash::fast::FixedState>,
    walk: Walk,
    out: Writer,
    gather: Gather,
    order: Vec<u32>,
    /// For each family of the page the first one of the same name and type.
    firsts: Vec<u32>,
    names: HashMap<u64, u32, foldhash::fast::FixedState>,
    created: HashMap<u64, i64, foldhash::fast::FixedState>,
    attributes: Vec<u8>,
    exemplars: Vec<u8>,
    scopes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Samples that no data point can tell, since the start.
    pub(super) untold: u64,
}

/// What is being written of a page.
struct At<'a> {
    page: &'a Page,
    origin: &'a Origin,
    /// Name and version of the scope, and whether there are several.
    scope: Option<(&'a [u8], &'a [u8])>,
}

impl Encoder {
    /// Adds a page to the request under way; requests that are full go to `seal`.
    pub(super) fn page(&mut self, origin: &Arc<Origin>, page: &Page, seal: Seal<'_>) {
        if page.samples.is_empty() {
            return;
        }
        let key = Arc::as_ptr(origin) as usize;
        let mut source = self.sources.remove(&key).unwrap_or_else(|| self.new_source(origin));
        self.sort(page);
        let info = page.samples.iter().find(|sample| is_target_info(page, sample));
        let info = info.map(|sample| page.labels_of(sample)).unwrap_or_default();
        self.out.resource.clear();
        resource::write(origin, page, info, &mut self.out.resource);
        self.find_scopes(page);
        self.walk.begin(&source.starts);
        if self.scopes.is_empty() {
            self.write_scope(&At { page, origin, scope: None }, &source.starts, seal);
        } else {
            let scopes = std::mem::take(&mut self.scopes);
            for (name, version) in &scopes {
                self.write_scope(&At { page, origin, scope: Some((name, version)) }, &source.starts, seal);
            }
            self.scopes = scopes;
        }
        self.walk.finish(&mut source.starts);
        source.last_ms = page.samples.iter().map(|sample| sample.time_unix_ms).max().unwrap_or(0);
        self.sources.insert(key, source);
    }

    /// Hands over what waits.
    pub(super) fn flush(&mut self, seal: Seal<'_>) {
        self.out.seal(seal);
    }

    /// A source is no more.
    pub(super) fn forget(&mut self, origin: &Arc<Origin>) {
        self.sources.remove(&(Arc::as_ptr(origin) as usize));
    }

    fn new_source(&mut self, origin: &Arc<Origin>) -> Source {
        if self.sources.len() >= ORIGINS
            && let Some(oldest) =
                self.sources.iter().min_by_key(|(_, source)| source.last_ms).map(|(key, _)| *key)
        {
            self.sources.remove(&oldest);
        }
        Source { _origin: Arc::clone(origin), starts: Starts::default(), last_ms: 0 }
    }

    /// Samples in the order of their families, which is the page's own order nearly always. Series that have ended may
    /// stand in a family of their own at the end: they belong to the one of the same name.
    fn sort(&mut self, page: &Page) {
        self.firsts.clear();
        self.names.clear();
        for (index, family) in page.families.iter().enumerate() {
            let key = xxh3_64_with_seed(page.bytes(family.name), family.kind as u64);
            self.firsts.push(*self.names.entry(key).or_insert(index as u32));
        }
        self.order.clear();
        self.order.extend(0..page.samples.len() as u32);
        let firsts = &self.firsts;
        let family = |sample: &Sample| firsts.get(sample.family as usize).copied().unwrap_or(u32::MAX);
        if !page.samples.is_sorted_by_key(family) {
            self.order.sort_by_key(|index| family(&page.samples[*index as usize]));
        }
    }

    /// The scopes that samples name by `otel_scope_name` and `otel_scope_version`; none when no sample does.
    fn find_scopes(&mut self, page: &Page) {
        /// More than a program has; the rest keeps the labels.
        const SCOPES: usize = 256;
        self.scopes.clear();
        if memchr::memmem::find(&page.arena, b"otel_scope_").is_none() {
            return;
        }
        for sample in &page.samples {
            let scope = scope_of(page, sample);
            let known = |(name, version): &(Vec<u8>, Vec<u8>)| {
                (name.as_slice(), version.as_slice()) == (scope.0, scope.1)
            };
            if self.scopes.len() < SCOPES && !self.scopes.iter().any(known) {
                self.scopes.push((scope.0.to_vec(), scope.1.to_vec()));
            }
        }
    }

    fn write_scope(&mut self, at: &At<'_>, starts: &Starts, seal: Seal<'_>) {
        self.out.scope = at.scope.filter(|(name, _)| !name.is_empty()).map_or_else(
            || (OWN_SCOPE.0.to_vec(), OWN_SCOPE.1.to_vec()),
            |(name, version)| (utf8(name).into_owned(), utf8(version).into_owned()),
        );
        let order = std::mem::take(&mut self.order);
        let firsts = std::mem::take(&mut self.firsts);
        let of = |index: &u32| firsts.get(page_sample(at.page, *index).family as usize);
        for run in order.chunk_by(|one, other| of(one) == of(other)) {
            let family = of(&run[0]).and_then(|family| at.page.families.get(*family as usize));
            let family = family.copied().unwrap_or_default();
            match family.kind {
                MetricKind::GaugeHistogram => self.untold += run.len() as u64,
                MetricKind::Histogram | MetricKind::Summary => {
                    self.write_gathered(at, &family, run, starts, seal)
                }
                _ => self.write_numbers(at, &family, run, starts, seal),
            }
        }
        self.order = order;
        self.firsts = firsts;
        self.out.end_metric();
        self.out.end_resource();
    }

    /// Counters, gauges, and what is told as these.
    fn write_numbers(&mut self, at: &At<'_>, family: &Family, run: &[u32], starts: &Starts, seal: Seal<'_>) {
        let page = at.page;
        let family_name = page.bytes(family.name);
        self.created.clear();
        if family.kind == MetricKind::Counter {
            for sample in run.iter().map(|index| page_sample(page, *index)) {
                let (base, part) = part_of(family.kind, family_name, page.bytes(sample.name));
                if part == Part::Created && !is_stale(sample.value) {
                    self.write_attributes(at, sample, b"");
                    let key = xxh3_64_with_seed(&self.attributes, seed(base));
                    self.created.insert(key, (sample.value * 1000.0) as i64);
                }
            }
        }
        let mut name: &[u8] = b"";
        for sample in run.iter().map(|index| page_sample(page, *index)) {
            if !self.is_of_scope(at, sample) || is_target_info(page, sample) || is_scope_info(page, sample) {
                continue;
            }
            let own = page.bytes(sample.name);
            let (_, part) = part_of(family.kind, family_name, own);
            if part == Part::Created {
                continue;
            }
            if sample.histogram != crate::data::sample::NONE {
                self.untold += 1;
                continue;
            }
            if own != name {
                name = own;
                let data = match family.kind {
                    MetricKind::Counter | MetricKind::Info | MetricKind::StateSet => Data::Sum,
                    _ => Data::Gauge,
                };
                self.out.begin_metric(page, family, name, data);
            }
            self.write_attributes(at, sample, b"");
            let value = (!is_stale(sample.value)).then_some(sample.value);
            let mut start_ms = None;
            if family.kind == MetricKind::Counter {
                let key = xxh3_64_with_seed(&self.attributes, seed(name));
                start_ms = match (value, self.created_of(family_name, name)) {
                    (None, _) => {
                        self.walk.end(starts, key);
                        None
                    }
                    (Some(_), Some(created)) => Some(created.min(sample.time_unix_ms)),
                    (Some(value), None) => Some(self.walk.start(starts, key, value, sample.time_unix_ms)),
                };
            }
            self.exemplars.clear();
            for exemplar in page.exemplars_of(sample) {
                point::exemplar(page, exemplar, sample.time_unix_ms, &mut self.exemplars);
            }
            let head = Head { attributes: &self.attributes, start_ms, time_ms: time_of(sample) };
            let exemplars = &self.exemplars;
            self.out.point(|out| point::number(head, value, exemplars, out), seal);
        }
    }

    /// What `_created` says of the counter whose attributes were just written.
    fn created_of(&self, family: &[u8], name: &[u8]) -> Option<i64> {
        if self.created.is_empty() {
            return None;
        }
        let base = name.strip_suffix(b"_total").unwrap_or(family);
        self.created.get(&xxh3_64_with_seed(&self.attributes, seed(base))).copied()
    }

    /// Histograms and summaries, whose samples become one point.
    fn write_gathered(&mut self, at: &At<'_>, family: &Family, run: &[u32], starts: &Starts, seal: Seal<'_>) {
        let page = at.page;
        let family_name = page.bytes(family.name);
        let is_histogram = family.kind == MetricKind::Histogram;
        let extra: &[u8] = if is_histogram { b"le" } else { b"quantile" };
        let mut gather = std::mem::take(&mut self.gather);
        gather.clear();
        for index in run {
            let sample = page_sample(page, *index);
            if !self.is_of_scope(at, sample) {
                continue;
            }
            let (base, part) = part_of(family.kind, family_name, page.bytes(sample.name));
            self.write_attributes(at, sample, extra);
            gather.add(page, *index, base, part, &self.attributes);
        }
        let mut metric: Option<(&[u8], Data)> = None;
        for number in 0..gather.len() {
            let base = gather.base(number);
            let data = match (gather.is_native(page, number), is_histogram) {
                (true, true) => Data::Exponential,
                (false, true) => Data::Histogram,
                (_, false) => Data::Summary,
            };
            let Some(whole) = gather.whole(page, number) else {
                self.untold += u64::from(gather.samples(number));
                continue;
            };
            let name = &page.arena[base.0..base.1];
            if metric != Some((name, data)) {
                metric = Some((name, data));
                self.out.begin_metric(page, family, name, data);
            }
            let attributes = gather.attributes(number);
            let key = xxh3_64_with_seed(attributes, seed(name));
            let start_ms = match (whole.count, whole.created_ms) {
                (None, _) => {
                    self.walk.end(starts, key);
                    None
                }
                (Some(_), Some(created)) => Some(created.min(whole.time_ms)),
                (Some(count), None) => Some(self.walk.start(starts, key, count, whole.time_ms)),
            };
            self.exemplars.clear();
            for sample in gather.buckets_of(page, number) {
                for exemplar in page.exemplars_of(sample) {
                    point::exemplar(page, exemplar, sample.time_unix_ms, &mut self.exemplars);
                }
            }
            let head = Head { attributes, start_ms, time_ms: whole.time_ms };
            let (exemplars, scratch) = (&self.exemplars, &mut self.attributes);
            self.out.point(
                |out| match data {
                    Data::Exponential => {
                        let native = whole.count.and_then(|_| gather.native(page, number));
                        point::exponential(head, native, exemplars, scratch, out);
                    }
                    Data::Summary => {
                        let value = whole.count.map(|count| (count as u64, whole.sum.unwrap_or(0.0)));
                        point::summary(head, value, gather.quantiles(page, number), out);
                    }
                    _ => point::histogram(head, gather.explicit(&whole), exemplars, out),
                },
                seal,
            );
        }
        self.gather = gather;
    }

    /// Writes the attributes of a sample: what is neither its name, nor the target's, nor `extra`.
    fn write_attributes(&mut self, at: &At<'_>, sample: &Sample, extra: &[u8]) {
        self.attributes.clear();
        let mut targets = at.origin.labels.iter().peekable();
        for label in at.page.labels_of(sample) {
            let name = at.page.bytes(label.name);
            let value = at.page.bytes(label.value);
            if name == b"__name__" || name == extra || name.is_empty() {
                continue;
            }
            while targets.peek().is_some_and(|(target, _)| target.as_bytes() < name) {
                targets.next();
            }
            if targets
                .peek()
                .is_some_and(|(target, known)| target.as_bytes() == name && known.as_bytes() == value)
            {
                continue;
            }
            if at.scope.is_some() && (name == b"otel_scope_name" || name == b"otel_scope_version") {
                continue;
            }
            write_string_attribute(0, &utf8(name), &utf8(value), &mut self.attributes);
        }
    }

    fn is_of_scope(&self, at: &At<'_>, sample: &Sample) -> bool {
        at.scope.is_none_or(|scope| scope_of(at.page, sample) == scope)
    }
}

fn page_sample(page: &Page, index: u32) -> &Sample {
    &page.samples[index as usize]
}

fn seed(name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, 0)
}

/// A final page's samples all have a time; one without would be at the epoch.
fn time_of(sample: &Sample) -> i64 {
    if sample.time_unix_ms == NO_TIME { 0 } else { sample.time_unix_ms }
}

fn is_target_info(page: &Page, sample: &Sample) -> bool {
    page.bytes(sample.name) == b"target_info"
}

fn is_scope_info(page: &Page, sample: &Sample) -> bool {
    page.bytes(sample.name) == b"otel_scope_info"
}

fn scope_of<'a>(page: &'a Page, sample: &Sample) -> (&'a [u8], &'a [u8]) {
    let label = |name: &[u8]| page.label(sample, name).unwrap_or_default();
    (label(b"otel_scope_name"), label(b"otel_scope_version"))
}

/// Nested messages, each written before its length is known: points into data, data into a metric, metrics into the
/// resource's, these into the request.
#[derive(Debug, Default)]
struct Writer {
    resource: Vec<u8>,
    scope: (Vec<u8>, Vec<u8>),
    /// Name, description, unit and metadata of the metric under way.
    head: Vec<u8>,
    data: Option<(Data, bool)>,
    points: Vec<u8>,
    point: Vec<u8>,
    metrics: Vec<u8>,
    request: Vec<u8>,
    /// Points in the request under way.
    count: u64,
}

impl Writer {
    fn begin_metric(&mut self, page: &Page, family: &Family, name: &[u8], data: Data) {
        self.end_metric();
        self.data = Some((data, family.kind == MetricKind::Counter));
        self.head.clear();
        write_bytes(1 << 3 | 2, &utf8(name), &mut self.head);
        for (field, text) in [(2, page.text(family.help)), (3, &unit(page.text(family.unit)))] {
            if !text.is_empty() {
                write_bytes(field << 3 | 2, text.as_bytes(), &mut self.head);
            }
        }
        write_string_attribute(
            12 << 3 | 2,
            b"prometheus.type",
            type_name(family.kind).as_bytes(),
            &mut self.head,
        );
    }

    fn point(&mut self, write: impl FnOnce(&mut Vec<u8>), seal: Seal<'_>) {
        self.point.clear();
        write(&mut self.point);
        write_bytes(1 << 3 | 2, &self.point, &mut self.points);
        self.count += 1;
        if self.request.len() + self.metrics.len() + self.points.len() >= MAX_REQUEST {
            let data = self.data;
            self.end_metric();
            self.end_resource();
            self.seal(seal);
            // The metric goes on in the next request.
            self.data = data;
        }
    }

    fn end_metric(&mut self) {
        let Some((data, is_monotonic)) = self.data.take() else { return };
        if self.points.is_empty() {
            return;
        }
        match data {
            // Cumulative, and whether monotonic.
            Data::Sum => {
                self.points.extend_from_slice(&[2 << 3, 2]);
                if is_monotonic {
                    self.points.extend_from_slice(&[3 << 3, 1]);
                }
            }
            Data::Histogram | Data::Exponential => self.points.extend_from_slice(&[2 << 3, 2]),
            Data::Gauge | Data::Summary => {}
        }
        self.point.clear();
        self.point.extend_from_slice(&self.head);
        write_bytes((data as u8) << 3 | 2, &self.points, &mut self.point);
        write_bytes(2 << 3 | 2, &self.point, &mut self.metrics);
        self.points.clear();
    }

    fn end_resource(&mut self) {
        if self.metrics.is_empty() {
            return;
        }
        let scope = (self.scope.0.as_slice(), self.scope.1.as_slice());
        write_resource_entries(&self.resource, scope, &self.metrics, &mut self.request);
        self.metrics.clear();
    }

    fn seal(&mut self, seal: Seal<'_>) {
        if !self.request.is_empty() {
            seal(&self.request, self.count);
        }
        self.request.clear();
        self.count = 0;
    }
}

/// The type as the metadata names it. Source: "Prometheus and OpenMetrics Compatibility", metric metadata.
fn type_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Unknown => "unknown",
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
        MetricKind::GaugeHistogram => "gaugehistogram",
        MetricKind::Summary => "summary",
        MetricKind::Info => "info",
        MetricKind::StateSet => "stateset",
    }
}
