//! One page of a target: what its series have grown by, added to the book.
//!
//! In: the families that a profile found. Out: increases in the cells of a pod and in the objectives of its workload.
//! Invariant: what a series had counted before it was first seen is added only where its target was known.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Input, MAX_NATIVES, MISSED, Scraped};
use crate::data::sample::{Histogram, NO_TIME, Page, Sample};
use crate::data::trace::TraceId;
use crate::metrics;
use crate::red::book::{Book, Identity, Workload, excluded};
use crate::red::bracket::{Adding, Neighbours};
use crate::red::cell::{Bound, Bounds, Witness};
use crate::red::native;
use crate::red::profile::{self, Layer, Profile, Role, SERVICE};
use crate::red::route::{Hint, OTHER_ID, RouteId};
use crate::red::slo::Kind;
use crate::red::words::{Class, Method};

/// One value of a series: a sample, or a part of a native histogram.
#[derive(Debug, Clone, Copy)]
struct Part {
    key: u64,
    role: Role,
    /// Upper bound in seconds of a bucket.
    le: f64,
    value: f64,
}

/// The reading of one page of a target.
pub(super) struct Reading<'a> {
    pub(super) book: &'a mut Book,
    pub(super) row: &'static Profile,
    pub(super) raw: &'a Page,
    pub(super) workload: u64,
    pub(super) pod: u64,
    /// Whether this target is the one of its kind that counts.
    pub(super) counts: bool,
    /// Whether what has grown is added.
    pub(super) adds: bool,
    /// Series that the target may have.
    pub(super) limit: usize,
    /// For the latency objectives of the workload.
    pub(super) adding: Adding,
}

impl Reading<'_> {
    /// Makes ready what the page adds to objectives, if it counts for any.
    pub(super) fn begin(&mut self, target: &Scraped) {
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
    pub(super) fn finish(self) {
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
    pub(super) fn bounds(&self, target: &mut Scraped, families: &[u32]) {
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

    /// Takes every sample of the families.
    pub(super) fn samples(&mut self, target: &mut Scraped, families: &[u32]) {
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
