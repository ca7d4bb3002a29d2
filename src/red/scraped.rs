//! From applications' own counters to the canonical ones, and RED's side of the metrics thread.
//!
//! In: raw pages of targets. Out: increases in the book's cells, and every interval the page of canonical families.
//! Invariant: what a target had counted before its first scrape, or while another source counted, is never added; a value
//! below the last one counts from 0.

use std::path::Path;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::book::{Book, Declared, Identity, Source, Workload, excluded};
use super::bracket::{Adding, Neighbours};
use super::cell::{Bound, Bounds, Witness};
use super::confidence::Lines;
use super::config::{Config, SourceSetting};
use super::line::LogTap;
use super::native;
use super::profile::{self, Layer, PROFILES, Profile, Role, SERVICE};
use super::route::{Hint, OTHER_ID, RouteId};
use super::slo::{Door, Kind, Slo};
use super::state::StateFile;
use super::words::{Class, Method};
use crate::data::sample::{Histogram, NO_TIME, Origin, Page, Sample};
use crate::data::trace::TraceId;
use crate::metrics;

/// Scraped series that are remembered, over all targets.
const MAX_INPUTS: usize = 40_000;
/// Bytes that these take.
pub(super) const MEMORY: u64 = MAX_INPUTS as u64 * 80;
/// Thresholds of native histograms that a target remembers.
const MAX_NATIVES: usize = 1_024;
/// Scrapes that a series may be missing from before it counts as new.
const MISSED: u32 = 3;

/// A series of a target.
#[derive(Debug, Clone, Copy)]
struct Input {
    last: f64,
    /// Upper bound in seconds of a bucket.
    le: f64,
    seen: u32,
    role: Role,
    class: Option<Class>,
    method: Method,
    route: RouteId,
    pod: u64,
}

#[derive(Debug)]
struct Scraped {
    origin: Arc<Origin>,
    identity: Identity,
    container: String,
    pod: u64,
    row: usize,
    is_full: bool,
    inputs: HashMap<u64, Input>,
    bounds: Arc<Bounds>,
    /// Of native histograms: what each said last, by series, resolution and threshold.
    natives: HashMap<u64, [f64; 3]>,
    /// And the neighbours of thresholds among their buckets.
    near: Vec<(u64, Neighbours)>,
    scrapes: u32,
    scraped_ms: u64,
    /// It is the one of its pod that counts.
    counts: bool,
}

/// RED in the thread that owns all series.
pub struct Red {
    book: Arc<Mutex<Book>>,
    state: Option<StateFile>,
    thresholds: Arc<Mutex<Vec<u64>>>,
    /// By labels, as a target goes on through a reload, with an origin of its own in each.
    targets: HashMap<u64, Scraped>,
    /// Scrapes of targets without request metrics, so that a first one is known as such.
    plain: HashMap<u64, (Arc<Origin>, u32)>,
    inputs: usize,
    last_unix_ms: Option<i64>,
    interval_ms: u64,
    families: Vec<u32>,
}

impl Red {
    /// Opens RED. `state_dir` keeps the counters over restarts; without one they begin at 0 with each.
    pub fn new(config: &Config, state_dir: Option<&Path>) -> Self {
        // Who asks for their growth finds them at 0 first.
        for reason in ["logs", "workloads", "pods", "requests", "cells", "joins", "series"] {
            metrics::RED_REFUSED.with_label_values(&[reason]);
        }
        let thresholds = thresholds_of(config);
        let bounds = Arc::new(Bounds::of_lines(thresholds.iter().copied()));
        let thresholds = Arc::new(Mutex::new(thresholds));
        let mut book = Book::new(config.source, bounds);
        let state = state_dir.map(|dir| StateFile::open(dir, &mut book));
        book.choose(config.source);
        Self {
            book: Arc::new(Mutex::new(book)),
            state,
            thresholds,
            targets: HashMap::new(),
            plain: HashMap::new(),
            inputs: 0,
            last_unix_ms: None,
            interval_ms: interval_ms(config),
            families: Vec::new(),
        }
    }

    /// What people are shown of it.
    pub fn recent(&self) -> super::Recent {
        super::Recent::new(self.book.clone())
    }

    /// The log thread's side.
    pub fn tap(&self) -> LogTap {
        LogTap { book: self.book.clone() }
    }

    /// Goes on with another config, with all counters and all that is known of targets.
    pub fn configure(&mut self, config: &Config) {
        *self.thresholds.lock() = thresholds_of(config);
        self.interval_ms = interval_ms(config);
        let mut book = self.book.lock();
        book.choose(config.source);
        bound(&mut book, &self.thresholds.lock());
    }

    /// Declares objectives, in place of those before. Their thresholds become buckets.
    pub fn declare(&mut self, slos: Vec<Slo>) {
        self.declarer().declare(Declared { slos, ..Declared::default() });
    }

    /// Declares objectives while RED runs.
    pub fn declarer(&self) -> Declarer {
        Declarer { book: self.book.clone(), thresholds: self.thresholds.clone() }
    }

    /// Objectives that pods have declared, as far as they are known: after a restart those of the life before.
    pub fn declared_by_pods(&self) -> Vec<Slo> {
        let book = self.book.lock();
        let of_pods = book.slos.iter().filter(|slo| slo.about.door == Door::Pods);
        of_pods.map(|slo| Slo::clone(slo)).collect()
    }

    /// Takes what became of the lines of all logs since their beginning.
    pub fn lines(&mut self, logs: &[Lines]) {
        let mut book = self.book.lock();
        let clock_ms = book.clock_ms;
        book.confidence.take(logs, clock_ms);
    }

    /// Takes what RED needs of a target's raw page.
    pub fn scraped(&mut self, origin: &Arc<Origin>, raw: &Page, _time_unix_ms: i64) {
        let mut families = std::mem::take(&mut self.families);
        let found = profile::find(raw, &mut families);
        let key = key_of(origin);
        match found {
            None => {
                if !self.targets.contains_key(&key) {
                    let plain = self.plain.entry(key).or_insert_with(|| (origin.clone(), 0));
                    plain.0 = origin.clone();
                    plain.1 += 1;
                }
            }
            Some(found) => {
                self.matched(key, origin, &found, raw, &families);
            }
        }
        self.families = families;
    }

    fn matched(
        &mut self,
        key: u64,
        origin: &Arc<Origin>,
        found: &profile::Found,
        raw: &Page,
        families: &[u32],
    ) {
        let book = self.book.clone();
        let mut book = book.lock();
        if book.setting == SourceSetting::Log {
            return;
        }
        let earlier = self.plain.remove(&key).map_or(0, |(_, scrapes)| scrapes);
        let target = self.targets.entry(key).or_insert_with(|| {
            let identity = identity_of(origin);
            Scraped {
                origin: origin.clone(),
                pod: identity.pod_id(),
                identity,
                container: origin.label("container").unwrap_or_default().to_owned(),
                row: found.row,
                is_full: found.is_full,
                inputs: HashMap::new(),
                bounds: Arc::default(),
                natives: HashMap::new(),
                near: Vec::new(),
                scrapes: earlier,
                scraped_ms: 0,
                counts: false,
            }
        });
        target.origin = origin.clone();
        if target.row != found.row {
            self.inputs -= target.inputs.len();
            target.inputs.clear();
            target.scrapes = 0;
            target.row = found.row;
        }
        target.is_full = found.is_full;
        let counts = is_counted(&self.targets, key);
        let Some(target) = self.targets.get_mut(&key) else { return };
        target.counts = counts;
        let Some((pod, workload)) = book.ensure(&target.identity) else { return };
        let row = &PROFILES[target.row];
        let first = target.scrapes == 0;
        target.scrapes += 1;
        let clock_ms = book.clock_ms;
        let adds = {
            let setting = book.setting;
            let Some(workload) = book.workloads.get_mut(&workload) else { return };
            let before = workload.source;
            if counts {
                workload.source = match (before, target.is_full) {
                    (Source::Trace, _) => Source::Trace,
                    (Source::Scrape, _) | (_, true) => Source::Scrape,
                    (Source::Log, false) if setting == SourceSetting::Auto => Source::Log,
                    _ => Source::Partial,
                };
                if workload.source.is_scrape() {
                    workload.profile = row.name;
                    if target.scraped_ms > 0 {
                        let gap = clock_ms.saturating_sub(target.scraped_ms);
                        workload.scrape_gap_ms = workload.scrape_gap_ms.max(gap);
                    }
                    workload.scraped_ms = clock_ms;
                    target.scraped_ms = clock_ms;
                }
            }
            // What lines have counted is not counted again; without any, the counters count from the first scrape on.
            let went_on = before.is_scrape() || workload.from_lines == 0 && before != Source::Log;
            counts && !first && workload.source.is_scrape() && went_on
        };
        let limit = MAX_INPUTS - self.inputs.min(MAX_INPUTS) + target.inputs.len();
        let before = target.inputs.len();
        let adding = Adding::default();
        let mut reading = Reading { book: &mut book, row, raw, workload, pod, counts, adds, limit, adding };
        target.near.clear();
        reading.bounds(target, families);
        reading.begin(target);
        reading.samples(target, families);
        reading.finish();
        self.inputs = self.inputs + target.inputs.len() - before.min(self.inputs + target.inputs.len());
    }

    /// A target is no more.
    pub fn forget(&mut self, origin: &Arc<Origin>) {
        let key = key_of(origin);
        // One with the same labels may have come in its place.
        let is_it = |own: &Arc<Origin>| Arc::ptr_eq(own, origin);
        if self.plain.get(&key).is_some_and(|(own, _)| is_it(own)) {
            self.plain.remove(&key);
        }
        if self.targets.get(&key).is_some_and(|target| is_it(&target.origin))
            && let Some(target) = self.targets.remove(&key)
        {
            self.inputs = self.inputs.saturating_sub(target.inputs.len());
        }
    }

    /// Makes the counters durable, then writes the page of the canonical families. Empties the page before.
    pub fn tick(&mut self, now_unix_ms: i64, page: &mut Page) {
        page.clear();
        let elapsed = self.last_unix_ms.map_or(0, |last| now_unix_ms.saturating_sub(last).max(0) as u64);
        self.last_unix_ms = Some(now_unix_ms);
        let mut book = self.book.lock();
        book.now_unix_ms = now_unix_ms;
        // The machine may have slept, or its clock been set: that is no idle time.
        book.advance(elapsed.min((2 * self.interval_ms).max(60_000)));
        let counting = self.targets.values().filter(|target| target.counts && !book.slos.is_empty());
        let counting: Vec<&Scraped> = counting.collect();
        book.beside(counting.into_iter().map(|target| {
            let own = |threshold: u64| match target.near.iter().find(|(of, _)| *of == threshold) {
                Some((_, near)) => Some(near.clone()),
                None if target.bounds.list().is_empty() => None,
                None => Some(Neighbours::of(&target.bounds, threshold)),
            };
            (target.identity.workload_id(), own)
        }));
        if let Some(state) = &mut self.state {
            state.encode(&mut book);
        }
        super::publish::write(&mut book, page);
        drop(book);
        if let Some(state) = &mut self.state {
            state.write();
        }
    }

    /// Whether the counters could be made durable the last time.
    pub fn is_durable(&self) -> bool {
        self.state.as_ref().is_none_or(StateFile::is_good)
    }
}

/// Declares objectives, from any thread.
#[derive(Debug, Clone)]
pub struct Declarer {
    book: Arc<Mutex<Book>>,
    thresholds: Arc<Mutex<Vec<u64>>>,
}

impl Declarer {
    /// Declares objectives, in place of those before. Thresholds of the config become buckets of all workloads, those of
    /// pods buckets of their own.
    pub fn declare(&self, declared: Declared) {
        let mut book = self.book.lock();
        book.declare_all(declared);
        bound(&mut book, &self.thresholds.lock());
    }
}

/// Makes thresholds of the config and of its objectives buckets.
fn bound(book: &mut Book, thresholds: &[u64]) {
    let latencies = book.slos.iter().filter_map(|slo| match slo.kind {
        Kind::Latency { threshold_nano } if slo.about.door == Door::Config => Some(threshold_nano),
        _ => None,
    });
    let bounds = Bounds::of_lines(thresholds.iter().copied().chain(latencies));
    book.set_bounds(bounds);
}

fn thresholds_of(config: &Config) -> Vec<u64> {
    let nanos = |span: &crate::data::units::Span| u64::try_from(span.0.as_nanos()).unwrap_or(u64::MAX);
    config.thresholds.iter().map(nanos).collect()
}

fn interval_ms(config: &Config) -> u64 {
    u64::try_from(config.interval.0.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A target by what its series carry.
fn key_of(origin: &Origin) -> u64 {
    origin.labels.iter().fold(0, |hash, (name, value)| {
        let hash = xxh3_64_with_seed(name.as_bytes(), hash);
        xxh3_64_with_seed(value.as_bytes(), hash)
    })
}

/// Whose page it is: the labels that every series of the target has.
fn identity_of(origin: &Origin) -> Identity {
    let label = |name: &str| origin.label(name).unwrap_or_default().to_owned();
    let or = |one: String, other: &str| if one.is_empty() { label(other) } else { one };
    let service = or(label("service"), "job");
    Identity {
        cluster: label("cluster"),
        node: label("node"),
        namespace: label("namespace"),
        workload: or(label("workload"), if label("service").is_empty() { "job" } else { "service" }),
        pod: or(label("pod"), "instance"),
        service,
    }
}

/// True for the one target of a pod that counts: the application before a proxy, one a container.
fn is_counted(targets: &HashMap<u64, Scraped>, key: u64) -> bool {
    let Some(own) = targets.get(&key) else { return false };
    let layer = PROFILES[own.row].layer;
    let port = |target: &Scraped| target.origin.label("instance").unwrap_or_default().to_owned();
    !targets.iter().filter(|(other, it)| **other != key && it.pod == own.pod).any(|(other, it)| {
        let its = PROFILES[it.row].layer;
        its < layer
            || its == layer
                && it.container == own.container
                && (!it.is_full, it.row, port(it), *other) < (!own.is_full, own.row, port(own), key)
    })
}

/// One value of a series: a sample, or a part of a native histogram.
#[derive(Debug, Clone, Copy)]
struct Part {
    key: u64,
    role: Role,
    /// Upper bound in seconds of a bucket.
    le: f64,
    value: f64,
}

struct Reading<'a> {
    book: &'a mut Book,
    row: &'static Profile,
    raw: &'a Page,
    workload: u64,
    pod: u64,
    counts: bool,
    adds: bool,
    limit: usize,
    /// For the latency objectives of the workload.
    adding: Adding,
}

impl Reading<'_> {
    /// Makes ready what the page adds to objectives, if it counts for any.
    fn begin(&mut self, target: &Scraped) {
        let Some(workload) = self.book.workloads.get_mut(&self.workload) else { return };
        if !self.counts || workload.has_lines || !workload.source.is_scrape() {
            return;
        }
        for (slo, tally) in &mut workload.tallies {
            if let Kind::Latency { threshold_nano } = slo.kind
                && !target.bounds.list().is_empty()
            {
                tally.scraped.is_seen = true;
                tally.scraped.note(&Neighbours::of(&target.bounds, threshold_nano));
            }
        }
        self.adding = Adding::new(workload.tallies.iter().map(|(slo, _)| &**slo), &target.bounds);
    }

    /// Adds it.
    fn finish(self) {
        if let Some(workload) = self.book.workloads.get_mut(&self.workload) {
            self.adding.finish(&mut workload.tallies);
        }
    }

    fn le(&self, sample: &Sample) -> Option<f64> {
        let text = std::str::from_utf8(self.raw.label(sample, b"le")?).ok()?;
        let value: f64 = text.parse().ok()?;
        (!value.is_nan()).then(|| seconds(value, self.row.per_second))
    }

    /// Makes the target's bounds those of its page.
    fn bounds(&self, target: &mut Scraped, families: &[u32]) {
        let mut new: Vec<Bound> = Vec::new();
        for sample in self.raw.samples.iter().filter(|sample| families.contains(&sample.family)) {
            if self.row.role(self.raw.bytes(sample.name)) != Some(Role::Bucket) {
                continue;
            }
            let Some(le) = self.le(sample).filter(|le| le.is_finite()) else { continue };
            if target.bounds.index(le).is_none() && !new.iter().any(|bound| bound.seconds == le) {
                let mut bound = Bound::new(le);
                if self.row.per_second == 1.0 {
                    bound.text =
                        self.raw.label(sample, b"le").map(String::from_utf8_lossy).unwrap_or_default().into();
                }
                new.push(bound);
            }
        }
        if !new.is_empty() {
            target.bounds = Arc::new(target.bounds.union(&Bounds::new(new)));
        }
    }

    fn samples(&mut self, target: &mut Scraped, families: &[u32]) {
        let scrape = target.scrapes;
        let mut seen = 0;
        for sample in self.raw.samples.iter().filter(|sample| families.contains(&sample.family)) {
            let name = self.raw.bytes(sample.name);
            if let Some(histogram) = self.raw.histogram_of(sample).filter(|_| self.row.names(name)) {
                if self.row.wants(self.raw, sample) {
                    seen += self.native(target, sample, histogram);
                }
                continue;
            }
            let Some(role) = self.row.role(name) else { continue };
            if !self.row.wants(self.raw, sample) {
                continue;
            }
            let le = if role == Role::Bucket { self.le(sample) } else { Some(0.0) };
            let Some(le) = le else { continue };
            let part = Part { key: self.key(sample), role, le, value: sample.value };
            seen += usize::from(self.part(target, sample, part).is_some());
        }
        if seen != target.inputs.len() {
            target.inputs.retain(|_, input| input.seen + MISSED >= scrape);
        }
    }

    /// Takes one value of a series. `None` when it is of no use or there are too many.
    fn part(&mut self, target: &mut Scraped, sample: &Sample, part: Part) -> Option<Input> {
        if part.value.is_nan() || part.value < 0.0 {
            return None;
        }
        let scrape = target.scrapes;
        let mut input = match target.inputs.get(&part.key) {
            Some(input) => *input,
            None => {
                if target.inputs.len() >= self.limit {
                    metrics::RED_REFUSED.with_label_values(&["series"]).inc();
                    return None;
                }
                let mut input = self.describe(sample, part.role, part.le, &target.identity)?;
                if self.counts && self.adds_or_first(scrape) {
                    self.place(&mut input, sample, &target.bounds);
                }
                input
            }
        };
        let increase = if part.value < input.last { part.value } else { part.value - input.last };
        if self.adds && increase > 0.0 {
            self.place(&mut input, sample, &target.bounds);
            self.add(&input, sample, increase);
        }
        input.last = part.value;
        input.seen = scrape;
        target.inputs.insert(part.key, input);
        Some(input)
    }

    /// Takes a native histogram: its count, its sum, and for each latency objective what is within the neighbours of the
    /// threshold. Returns how many values of it are remembered.
    fn native(&mut self, target: &mut Scraped, sample: &Sample, histogram: &Histogram) -> usize {
        let key = self.key(sample);
        let of = |part: u64| xxh3_64_with_seed(&part.to_le_bytes(), key);
        let all = native::total(histogram);
        let is_new = !target.inputs.contains_key(&of(0));
        // The objectives are counted below, by the buckets of this histogram and not by those that the cell has.
        let adding = std::mem::take(&mut self.adding);
        let parts = [
            Part { key: of(0), role: Role::Count, le: 0.0, value: all },
            Part { key: of(1), role: Role::Bucket, le: f64::INFINITY, value: all },
            Part { key: of(2), role: Role::Sum, le: 0.0, value: histogram.sum },
        ];
        let taken = parts.map(|part| self.part(target, sample, part));
        self.adding = adding;
        let Some(workload) = self.book.workloads.get_mut(&self.workload) else { return 0 };
        let Some(counted) = taken[0].as_ref().filter(|_| self.counts) else { return 0 };
        let silent = workload.routes.get(counted.route).map_or(0, |route| route.excluded);
        for (index, (slo, tally)) in workload.tallies.iter_mut().enumerate() {
            let Kind::Latency { threshold_nano } = slo.kind else { continue };
            let (near, within) = native::within(histogram, threshold_nano as f64 / 1e9, self.row.per_second);
            if !workload.has_lines && workload.source.is_scrape() {
                tally.scraped.is_seen = true;
                tally.scraped.note(&near);
            }
            if !target.near.iter().any(|(of, _)| *of == threshold_nano) {
                target.near.push((threshold_nano, near));
            }
            if target.natives.len() >= MAX_NATIVES {
                target.natives.clear();
            }
            let now = [all, within[0], within[1]];
            // Another resolution has other buckets, whose counts so far are no increase.
            let key = of(threshold_nano ^ (histogram.schema as u64) << 56);
            let last = target.natives.insert(key, now);
            let last = last.unwrap_or(if is_new { [0.0; 3] } else { now });
            if !self.adds || silent >> index & 1 == 1 {
                continue;
            }
            let from = if now[0] < last[0] { [0.0; 3] } else { last };
            let grown: [u64; 3] = std::array::from_fn(|at| (now[at] - from[at]).max(0.0).round() as u64);
            self.adding.native(index, grown[0], [grown[1], grown[2]]);
        }
        taken.iter().flatten().count()
    }

    /// A series is shown from 0 on as soon as it is known, if its source counts.
    fn adds_or_first(&self, scrape: u32) -> bool {
        self.adds
            || scrape == 1
                && self.book.workloads.get(&self.workload).is_some_and(|workload| workload.source.is_scrape())
    }

    fn key(&self, sample: &Sample) -> u64 {
        let mut hash = xxh3_64(self.raw.bytes(sample.name));
        for label in self.raw.labels_of(sample) {
            hash = xxh3_64_with_seed(self.raw.bytes(label.name), hash);
            hash = xxh3_64_with_seed(self.raw.bytes(label.value), hash);
        }
        hash
    }

    /// What a series is of. `None` for one that RED has no use for.
    fn describe(&self, sample: &Sample, role: Role, le: f64, identity: &Identity) -> Option<Input> {
        let class = match role {
            Role::Requests => Some(self.row.class(self.raw, sample)?),
            Role::Count if self.row.counts_by_histogram() => self.row.class(self.raw, sample),
            _ => None,
        };
        let method = match profile::first(self.raw, sample, self.row.method) {
            Some(method) => Method::of(method),
            None if self.row.answer == profile::Answer::Grpc => Method::POST,
            None => Method::OTHER,
        };
        let pod = match self.row.layer {
            Layer::Collector => {
                let service = profile::first(self.raw, sample, SERVICE)?;
                let service = String::from_utf8_lossy(service).into_owned();
                Identity { service, ..identity.clone() }.pod_id()
            }
            _ => self.pod,
        };
        Some(Input { last: 0.0, le, seen: 0, role, class, method, route: OTHER_ID, pod })
    }

    /// Makes sure of the cell that a series belongs to.
    fn place(&mut self, input: &mut Input, sample: &Sample, bounds: &Arc<Bounds>) {
        let clock_ms = self.book.clock_ms;
        if self.row.layer == Layer::Collector && !self.book.pods.contains_key(&input.pod) {
            let Some(own) = self.book.pods.get(&self.pod) else { return };
            let service = profile::first(self.raw, sample, SERVICE).unwrap_or_default();
            let service = String::from_utf8_lossy(service).into_owned();
            let identity = Identity { service, ..own.identity.clone() };
            if self.book.ensure(&identity).is_none() {
                return;
            }
        }
        let Some(workload) = self.book.workloads.get_mut(&self.workload) else { return };
        workload.seen_ms = clock_ms;
        let unanswered = matches!(profile::first(self.raw, sample, self.row.status), Some(b"404" | b"405"));
        let hint = if unanswered { Hint::Unanswered } else { Hint::Own };
        let resolved = match self.row.route {
            names if self.row.answer == profile::Answer::Grpc => {
                let mut route = Vec::with_capacity(64);
                for name in names {
                    route.push(b'/');
                    let part = self.raw.label(sample, name.as_bytes()).unwrap_or_default();
                    route.extend_from_slice(part.strip_prefix(b"/").unwrap_or(part));
                }
                workload.routes.resolve(&route, Hint::Own, clock_ms)
            }
            names => {
                let raw = profile::first(self.raw, sample, names).unwrap_or_default();
                workload.routes.resolve(raw, hint, clock_ms)
            }
        };
        input.route = resolved.id;
        if resolved.is_new && !workload.tallies.is_empty() {
            let tallies = &workload.tallies;
            workload.routes.exclude_one(resolved.id, |route| excluded(tallies, route));
        }
        if let Some(pod) = self.book.pods.get_mut(&self.pod) {
            pod.seen_ms = clock_ms;
        }
        if let Some(pod) = self.book.pods.get_mut(&input.pod) {
            pod.seen_ms = clock_ms;
        }
        let book = &mut *self.book;
        let key = (input.route, input.method);
        if let Some(cell) = Book::cell(&mut book.pods, &mut book.cells, input.pod, key, bounds) {
            if Arc::ptr_eq(&cell.bounds, &book.bounds) {
                cell.rebound(bounds);
            } else if !cell.bounds.covers(bounds) {
                let union = Arc::new(cell.bounds.union(bounds));
                cell.rebound(&union);
            }
            cell.timed |= input.role == Role::Bucket;
            book.changed = true;
        }
    }

    fn add(&mut self, input: &Input, sample: &Sample, increase: f64) {
        if input.role == Role::Bucket
            && let Some(workload) = self.book.workloads.get(&self.workload)
        {
            let silent = workload.routes.get(input.route).map_or(0, |route| route.excluded);
            self.adding.bucket(input.le, increase.round() as u64, silent);
        }
        let book = &mut *self.book;
        let Some(pod) = book.pods.get_mut(&input.pod) else { return };
        let cell = match pod.cells.get_mut(&(input.route, input.method)) {
            Some(cell) => cell,
            None => match pod.cells.get_mut(&(OTHER_ID, Method::OTHER)) {
                Some(cell) => cell,
                None => return,
            },
        };
        let requests = increase.round() as u64;
        let witness = witness_of(self.raw, sample, self.row.per_second);
        match input.role {
            Role::Requests | Role::Count => {
                if let Some(class) = input.class {
                    if let Some(workload) = book.workloads.get_mut(&self.workload) {
                        let trace = witness.filter(|_| book.keeps_evidence);
                        observe(workload, input.route, class, requests, trace, book.now_unix_ms);
                    }
                    cell.classes[class.index()] += requests;
                    if let Some(witness) = witness {
                        cell.class_witness(class, witness);
                    }
                }
            }
            Role::Bucket => {
                let index = if input.le.is_finite() {
                    cell.bounds.index(input.le)
                } else {
                    Some(cell.bounds.list().len())
                };
                if let Some(index) = index {
                    cell.add_bucket(index, requests);
                    if let Some(witness) = witness {
                        cell.bucket_witness(index, witness);
                    }
                }
            }
            Role::Sum => cell.add_sum(increase / self.row.per_second),
        }
    }
}

/// Counts scraped requests for the objectives that are counted from them.
fn observe(
    workload: &mut Workload,
    route: RouteId,
    class: Class,
    requests: u64,
    witness: Option<Witness>,
    now_unix_ms: i64,
) {
    let silent = workload.routes.get(route).map_or(0, |route| route.excluded);
    for index in 0..workload.tallies.len() {
        if silent >> index & 1 == 1 || !workload.takes_scrapes(&workload.tallies[index].0) {
            continue;
        }
        let (slo, tally) = &mut workload.tallies[index];
        let Some(good) = slo.is_good(class, None) else { continue };
        tally.count(good, requests);
        if let Some(witness) = witness.filter(|_| !good) {
            tally.witness(
                witness.trace,
                if witness.time_unix_ms == 0 { now_unix_ms } else { witness.time_unix_ms },
            );
        }
    }
}

/// A bound in seconds, without the dust of a division.
fn seconds(value: f64, per_second: f64) -> f64 {
    if per_second == 1.0 || !value.is_finite() {
        return value;
    }
    format!("{:.11e}", value / per_second).parse().unwrap_or(value / per_second)
}

/// The exemplar of a sample, if it names a trace.
fn witness_of(page: &Page, sample: &Sample, per_second: f64) -> Option<Witness> {
    let exemplar = page.exemplars_of(sample).last()?;
    let named = page.exemplar_labels(exemplar).iter().find(|label| {
        let name = page.bytes(label.name);
        name.eq_ignore_ascii_case(b"trace_id") || name.eq_ignore_ascii_case(b"traceid")
    })?;
    let trace = TraceId::from_hex(page.bytes(named.value))?;
    let time_unix_ms = if exemplar.time_unix_ms == NO_TIME { 0 } else { exemplar.time_unix_ms };
    Some(Witness { trace, value: exemplar.value / per_second, time_unix_ms })
}
