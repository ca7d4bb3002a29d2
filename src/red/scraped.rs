//! From applications' own counters to the canonical ones, and RED's side of the metrics thread.
//!
//! In: raw pages of targets. Out: increases in the book's cells, and every interval the page of canonical families.
//! Invariant: what a target had counted before its first scrape, or while another source counted, is never added; a value
//! below the last one counts from 0.

mod reading;

use std::path::Path;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::book::{Book, Declared, Identity, Source};
use super::bracket::{Adding, Neighbours};
use super::cell::Bounds;
use super::confidence::Lines;
use super::config::{Config, SourceSetting};
use super::line::LogTap;
use super::profile::{self, PROFILES, Role};
use super::route::RouteId;
use super::slo::{Door, Kind, Slo};
use super::state::StateFile;
use super::words::{Class, Method};
use crate::data::sample::{Origin, Page};
use crate::metrics;
use reading::Reading;

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

    /// What people are shown of it: more of it where they have a page.
    pub fn recent(&self, has_page: bool) -> super::Recent {
        super::Recent::new(self.book.clone(), has_page)
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
