//! The book: everything that is counted, by workload and pod, and how far each log is counted.
//!
//! In: requests of logs and increases of scraped counters, from two threads under one lock. Out: what to keep and what to
//! publish. Invariant: a request changes the counters and the log's position in one step; every map has a limit, and what
//! is turned away is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::bracket::{Neighbours, Scraped};
use super::cell::{Bound, Bounds, Cell};
use super::confidence::Confidence;
use super::config::SourceSetting;
use super::joins::Joins;
use super::route::{RouteId, Routes};
use super::slo::{Door, Kind, MAX_SLOS, Observed, Slo, Tally};
use super::words::Method;
use crate::data::position::Position;
use crate::data::workload::{Workload as Instance, owner_of};
use crate::metrics;

/// Cells of all pods together. Above it requests of a new route are counted in the pod's `__other__`.
pub const MAX_CELLS: usize = 1_000;
/// Pods that are remembered.
pub const MAX_PODS: usize = 500;
/// Workloads that are remembered.
pub const MAX_WORKLOADS: usize = 500;
/// Logs that are remembered.
pub const MAX_LOGS: usize = 5_000;
/// Open requests of all logs together.
pub const MAX_JOINS: usize = 10_000;
/// Objectives of all workloads together.
pub const MAX_OBJECTIVES: usize = 500;
/// Idle time after which a route, a pod and a workload end.
pub const IDLE_MS: u64 = 600_000;
/// A log this far behind is no data.
pub const LAGGING: u64 = 60_000_000_000;
/// Without a scrape for so long, access lines take over.
pub const SILENT_MS: u64 = 120_000;

/// A cell with its exemplars takes some 1.5 KiB; an open request 200 bytes; a log 250; an objective 500.
pub const MEMORY: u64 = (MAX_CELLS as u64) * (3 << 9)
    + (MAX_JOINS as u64) * 200
    + (MAX_LOGS as u64) * 250
    + (MAX_OBJECTIVES as u64) * (1 << 9)
    + (3 << 19);
/// The 20 series of each cell in the page take 5 KiB, the three of an objective 1.
pub const PAGE: u64 = (MAX_CELLS as u64) * (5 << 10) + (MAX_OBJECTIVES as u64) * (1 << 10);

/// Where a workload's requests are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// Nothing seen yet.
    #[default]
    None,
    /// Access lines.
    Log,
    /// Its own metrics, with status and histogram.
    Scrape,
    /// Its own metrics, with status or histogram missing, as it has no access lines.
    Partial,
    /// Its spans. Nothing makes it yet.
    Trace,
}

impl Source {
    /// Whether requests of lines are counted.
    pub const fn is_log(self) -> bool {
        matches!(self, Self::Log)
    }

    /// Whether increases of scraped counters are counted.
    pub const fn is_scrape(self) -> bool {
        matches!(self, Self::Scrape | Self::Partial)
    }

    /// The label value; `None` while there is no source.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Log => Some("log"),
            Self::Scrape | Self::Partial => Some("scrape"),
            Self::Trace => Some("trace"),
        }
    }

    pub(super) const fn letter(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Log => 1,
            Self::Scrape => 2,
            Self::Partial => 3,
            Self::Trace => 4,
        }
    }

    pub(super) const fn of_letter(letter: u8) -> Self {
        match letter {
            1 => Self::Log,
            2 => Self::Scrape,
            3 => Self::Partial,
            4 => Self::Trace,
            _ => Self::None,
        }
    }
}

/// Labels of a pod's series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Cluster.
    pub cluster: String,
    /// Node.
    pub node: String,
    /// Namespace.
    pub namespace: String,
    /// Workload.
    pub workload: String,
    /// Pod.
    pub pod: String,
    /// Service.
    pub service: String,
}

impl Identity {
    /// Whose log it is. A file or a process outside of pods has no owner: there the service is the workload.
    pub fn of_instance(instance: &Instance) -> Self {
        let owner = owner_of(&instance.attributes, &instance.container.pod).name;
        let workload = if owner.is_empty() { &instance.service_name } else { owner };
        Self {
            cluster: instance.cluster.clone(),
            node: instance.node.clone(),
            namespace: instance.container.namespace.clone(),
            workload: workload.to_owned(),
            pod: instance.container.pod.clone(),
            service: instance.service_name.clone(),
        }
    }

    /// The pod's number.
    pub fn pod_id(&self) -> u64 {
        hash(&[&self.cluster, &self.node, &self.namespace, &self.workload, &self.pod, &self.service])
    }

    /// The workload's number.
    pub fn workload_id(&self) -> u64 {
        hash(&[&self.cluster, &self.node, &self.namespace, &self.workload])
    }
}

fn hash(parts: &[&str]) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    xxh3_64(&bytes)
}

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// Its labels; pod and service are empty.
    pub identity: Identity,
    /// Where its requests are counted from.
    pub source: Source,
    /// Profile of the scraped families, `access_log` for lines.
    pub profile: &'static str,
    /// Requests of lines that were counted into cells.
    pub from_lines: u64,
    /// When it last had a scrape that counts, on the book's clock.
    pub scraped_ms: u64,
    /// Longest time between two of these.
    pub scrape_gap_ms: u64,
    /// Its routes.
    pub routes: Routes,
    /// Counters of the objectives that are about it, and which these are.
    pub tallies: Vec<(Arc<Slo>, Tally)>,
    /// Counters of an earlier life that no declared objective has taken yet.
    pub kept_tallies: Vec<Tally>,
    /// When it last had a request, on the book's clock.
    pub seen_ms: u64,
    /// How far its worst log is behind, nanoseconds.
    pub lag_nano: u64,
    /// It has access lines, as of the last ten minutes.
    pub has_lines: bool,
    /// When it last had one, on the book's clock.
    pub(super) lines_ms: u64,
    /// Bounds of what is counted from its lines, where its own objectives add some.
    pub(super) bounds: Option<Arc<Bounds>>,
}

/// A pod, or one service of a pod.
#[derive(Debug)]
pub struct Pod {
    /// Its labels.
    pub identity: Identity,
    /// Its workload's number.
    pub workload: u64,
    /// Its cells.
    pub cells: HashMap<(RouteId, Method), Cell>,
    /// When it last had a request, on the book's clock.
    pub seen_ms: u64,
}

/// A log.
#[derive(Debug)]
pub struct Log {
    /// Up to where it is counted.
    pub position: Position,
    /// Whose it is, once it has been heard of in this life.
    pub(super) instance: Option<Arc<Instance>>,
    /// Number of that pod and workload.
    pub(super) pod: u64,
    pub(super) workload: u64,
    /// How far counting is behind, nanoseconds.
    pub lag_nano: u64,
    /// Requests that have begun.
    pub joins: Joins,
}

/// What is to be counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// Objectives of the config and of pods.
    pub slos: Vec<Slo>,
    /// What workloads without an availability objective are measured by.
    pub observed: Option<Observed>,
    /// Keep traces of bad requests.
    pub keeps_evidence: bool,
    /// Workloads of this node's pods that have objectives.
    pub present: Vec<Identity>,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Book {
    /// Where requests may be counted from.
    pub setting: SourceSetting,
    /// Bounds of what is counted from lines.
    pub bounds: Arc<Bounds>,
    /// Objectives of the config and of pods.
    pub slos: Vec<Arc<Slo>>,
    /// What workloads without an availability objective are measured by.
    pub observed: Option<Observed>,
    /// Traces of bad requests are kept.
    pub keeps_evidence: bool,
    /// Workloads that stay, requests or not: those of this node's pods that have objectives.
    pub(super) present: Vec<u64>,
    /// Objectives of all workloads.
    pub(super) objectives: usize,
    /// How much of each workload's lines was lost.
    pub(super) confidence: Confidence,
    /// When the last tick was, milliseconds since the epoch.
    pub now_unix_ms: i64,
    /// A clock that goes up with the time of the ticks and never jumps.
    pub clock_ms: u64,
    /// Workloads by number.
    pub workloads: HashMap<u64, Workload>,
    /// Pods by number.
    pub pods: HashMap<u64, Pod>,
    /// Logs by key.
    pub logs: HashMap<Arc<str>, Log>,
    /// Cells of all pods.
    pub cells: usize,
    /// Open requests of all logs, as of the last tick.
    pub open_joins: usize,
    /// It goes on from what an earlier life kept.
    pub is_resumed: bool,
    /// Something was counted or born since the book was kept.
    pub changed: bool,
    /// A position has moved since.
    pub moved: bool,
}

impl Book {
    /// An empty book.
    pub fn new(setting: SourceSetting, bounds: Arc<Bounds>) -> Self {
        Self {
            setting,
            bounds,
            slos: Vec::new(),
            observed: None,
            keeps_evidence: false,
            present: Vec::new(),
            objectives: 0,
            confidence: Confidence::default(),
            now_unix_ms: 0,
            clock_ms: 0,
            workloads: HashMap::default(),
            pods: HashMap::default(),
            logs: HashMap::default(),
            cells: 0,
            open_joins: 0,
            is_resumed: false,
            changed: false,
            moved: false,
        }
    }

    /// Sets where requests may be counted from. A workload whose source is none of these any more finds a new one.
    pub fn choose(&mut self, setting: SourceSetting) {
        self.setting = setting;
        for workload in self.workloads.values_mut() {
            let gone = match setting {
                SourceSetting::Auto => false,
                SourceSetting::Log => workload.source.is_scrape(),
                SourceSetting::Scrape => workload.source.is_log(),
            };
            if gone {
                workload.source = Source::None;
            }
        }
    }

    /// Makes sure of a pod and its workload. `None` when there are too many.
    pub fn ensure(&mut self, identity: &Identity) -> Option<(u64, u64)> {
        let (pod, workload) = (identity.pod_id(), identity.workload_id());
        self.ensure_workload(identity)?;
        if !self.pods.contains_key(&pod) {
            if self.pods.len() >= MAX_PODS {
                metrics::RED_REFUSED.with_label_values(&["pods"]).inc();
                return None;
            }
            let made = Pod {
                identity: identity.clone(),
                workload,
                cells: HashMap::default(),
                seen_ms: self.clock_ms,
            };
            self.pods.insert(pod, made);
        }
        Some((pod, workload))
    }

    /// Makes sure of a workload. `None` when there are too many.
    fn ensure_workload(&mut self, identity: &Identity) -> Option<u64> {
        let workload = identity.workload_id();
        if !self.workloads.contains_key(&workload) {
            if self.workloads.len() >= MAX_WORKLOADS {
                metrics::RED_REFUSED.with_label_values(&["workloads"]).inc();
                return None;
            }
            let own = Identity { pod: String::new(), service: String::new(), ..identity.clone() };
            let made = Workload::new(own, self.clock_ms);
            self.workloads.insert(workload, made);
            self.declare(workload);
            self.changed = true;
        }
        Some(workload)
    }

    /// Replaces the objectives. Counters go on by their id.
    pub fn declare_all(&mut self, declared: Declared) {
        self.slos = declared.slos.into_iter().map(Arc::new).collect();
        self.observed = declared.observed;
        self.keeps_evidence = declared.keeps_evidence;
        if !self.keeps_evidence {
            let tallies = self.workloads.values_mut().flat_map(|workload| &mut workload.tallies);
            tallies.for_each(|(_, tally)| tally.evidence = None);
        }
        let all: Vec<u64> = self.workloads.keys().copied().collect();
        for workload in all {
            self.declare(workload);
        }
        self.present.clear();
        for identity in &declared.present {
            let workload = self.ensure_workload(identity);
            self.present.extend(workload);
        }
        self.changed = true;
    }

    /// Sets the bounds of what is counted from lines.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        if *self.bounds == bounds {
            return;
        }
        self.bounds = Arc::new(bounds);
        let shared = &self.bounds;
        self.workloads.values_mut().for_each(|workload| workload.bound(shared));
    }

    /// Gives a workload the objectives that are about it.
    pub(super) fn declare(&mut self, workload: u64) {
        let Some(workload) = self.workloads.get_mut(&workload) else { return };
        self.objectives -= workload.tallies.len();
        let mut known: BTreeMap<String, Tally> = std::mem::take(&mut workload.kept_tallies)
            .into_iter()
            .chain(std::mem::take(&mut workload.tallies).into_iter().map(|(_, tally)| tally))
            .map(|tally| (tally.id.clone(), tally))
            .collect();
        let identity = &workload.identity;
        let own = self.slos.iter().filter(|slo| slo.matches(&identity.namespace, &identity.workload));
        let mut own: Vec<Arc<Slo>> = own.cloned().collect();
        let beyond = own.len().saturating_sub(MAX_SLOS);
        own.truncate(MAX_SLOS);
        if let Some(observed) = &self.observed
            && own.len() < MAX_SLOS
            && own.iter().all(|slo| slo.kind != Kind::Availability)
        {
            let observed = observed.of(&identity.namespace, &identity.workload);
            if own.iter().all(|slo| slo.id != observed.id) {
                own.push(Arc::new(observed));
            }
        }
        let room = MAX_OBJECTIVES.saturating_sub(self.objectives);
        let refused = beyond + own.len().saturating_sub(room);
        if refused > 0 {
            metrics::RED_REFUSED.with_label_values(&["objectives"]).inc_by(refused as u64);
            own.truncate(room);
        }
        workload.tallies = own
            .into_iter()
            .map(|slo| {
                let new = || Tally { id: slo.id.clone(), ..Tally::default() };
                let tally = known.remove(&slo.id).unwrap_or_else(new);
                (slo, tally)
            })
            .collect();
        self.objectives += workload.tallies.len();
        // An objective may come back: at a start before the pods are known, in a rollout, with the next config.
        workload.kept_tallies = known.into_values().take(MAX_SLOS).collect();
        workload.bound(&self.bounds);
        let tallies = &workload.tallies;
        workload.routes.exclude(|route| excluded(tallies, route));
    }

    /// Notes anew between which buckets the thresholds of objectives lie, by the targets that count now. A workload that has
    /// none any more stays as it was: its last requests are not to be hidden by exact counters of nothing.
    pub(super) fn beside<Near: Fn(u64) -> Option<Neighbours>>(
        &mut self,
        targets: impl Iterator<Item = (u64, Near)>,
    ) {
        let mut begun: Vec<(u64, usize)> = Vec::new();
        for (id, near) in targets {
            let Some(workload) = self.workloads.get_mut(&id).filter(|own| own.source.is_scrape()) else {
                continue;
            };
            for (index, (slo, tally)) in workload.tallies.iter_mut().enumerate() {
                let Kind::Latency { threshold_nano } = slo.kind else { continue };
                let Some(near) = near(threshold_nano) else { continue };
                if !begun.contains(&(id, index)) {
                    begun.push((id, index));
                    tally.scraped.pairs.clear();
                }
                tally.scraped.note(&near);
            }
        }
    }

    /// Moves the book's clock to the time of a tick: never back, and never by a jump.
    pub fn advance(&mut self, elapsed_ms: u64) {
        self.clock_ms += elapsed_ms;
        let before = self.clock_ms.saturating_sub(IDLE_MS);
        for workload in self.workloads.values_mut() {
            workload.lag_nano = 0;
        }
        self.open_joins = 0;
        for log in self.logs.values() {
            self.open_joins += log.joins.len();
            if let Some(workload) = self.workloads.get_mut(&log.workload) {
                workload.lag_nano = workload.lag_nano.max(log.lag_nano);
            }
        }
        for (id, workload) in &mut self.workloads {
            if self.clock_ms < IDLE_MS {
                continue;
            }
            let idle = workload.routes.expire(before);
            if idle.is_empty() {
                continue;
            }
            self.changed = true;
            for pod in self.pods.values_mut().filter(|pod| pod.workload == *id) {
                pod.cells.retain(|(route, _), _| !idle.contains(route));
            }
        }
        if self.clock_ms >= IDLE_MS {
            self.pods.retain(|_, pod| pod.seen_ms >= before);
            let (pods, present) = (&self.pods, &self.present);
            self.workloads.retain(|id, workload| {
                workload.seen_ms >= before
                    || present.contains(id)
                    || pods.values().any(|pod| pod.workload == *id)
            });
            self.objectives = self.workloads.values().map(|workload| workload.tallies.len()).sum();
        }
        self.cells = self.pods.values().map(|pod| pod.cells.len()).sum();
        let (setting, clock) = (self.setting, self.clock_ms);
        for workload in self.workloads.values_mut() {
            let silent = clock - workload.scraped_ms > SILENT_MS.max(3 * workload.scrape_gap_ms);
            if setting == SourceSetting::Auto && workload.source.is_scrape() && silent {
                workload.source = Source::None;
            }
            workload.has_lines &= clock.saturating_sub(workload.lines_ms) < IDLE_MS;
        }
    }

    /// The cell of a route and method of a pod, made when there is none.
    ///
    /// `None` when the pod is gone. Beyond the limit of cells it is the pod's cell for all other routes.
    #[inline]
    pub fn cell<'a>(
        pods: &'a mut HashMap<u64, Pod>,
        cells: &mut usize,
        pod: u64,
        key: (RouteId, Method),
        bounds: &Arc<Bounds>,
    ) -> Option<&'a mut Cell> {
        let pod = pods.get_mut(&pod)?;
        let key = if *cells >= MAX_CELLS && !pod.cells.contains_key(&key) {
            metrics::RED_REFUSED.with_label_values(&["cells"]).inc();
            (super::route::OTHER_ID, Method::OTHER)
        } else {
            key
        };
        Some(pod.cells.entry(key).or_insert_with(|| {
            *cells += 1;
            Cell::new(bounds)
        }))
    }
}

impl Workload {
    /// A workload without requests.
    pub fn new(identity: Identity, now_ms: u64) -> Self {
        Self {
            identity,
            source: Source::None,
            profile: "access_log",
            from_lines: 0,
            scraped_ms: now_ms,
            scrape_gap_ms: 0,
            routes: Routes::default(),
            tallies: Vec::new(),
            kept_tallies: Vec::new(),
            seen_ms: now_ms,
            lag_nano: 0,
            has_lines: false,
            lines_ms: now_ms,
            bounds: None,
        }
    }

    /// Makes the thresholds that its own pods declare buckets of its own, beside those that all workloads have.
    fn bound(&mut self, shared: &Arc<Bounds>) {
        let own = self.tallies.iter().filter_map(|(slo, _)| match slo.kind {
            Kind::Latency { threshold_nano } if slo.about.door == Door::Pods => Some(threshold_nano),
            _ => None,
        });
        let own = Bounds::new(own.map(|nano| Bound::new(nano as f64 / 1e9)).collect());
        if shared.covers(&own) {
            self.bounds = None;
            return;
        }
        let bounds = shared.union(&own);
        if self.bounds.as_deref() != Some(&bounds) {
            self.bounds = Some(Arc::new(bounds));
        }
    }

    /// True for an objective that has something to show: one that is counted from lines alone would say that there are no
    /// requests where they are counted elsewhere.
    pub(super) fn shows(&self, slo: &Slo) -> bool {
        if slo.is_observed() {
            return self.source.name().is_some() && (self.source.is_scrape() || !self.is_lagging());
        }
        if self.takes_scrapes(slo) {
            return true;
        }
        if let Some(scraped) = self.scraped(slo) {
            return scraped.pairs.is_empty();
        }
        let waits = self.source == Source::None && slo.kind == Kind::Availability;
        (self.has_lines || self.source.is_log() || waits) && !self.is_lagging()
    }

    /// What scraped histograms say of a latency objective, where there are no lines that would tell it exactly.
    fn scraped(&self, slo: &Slo) -> Option<&Scraped> {
        if self.has_lines || !self.source.is_scrape() || slo.kind == Kind::Availability {
            return None;
        }
        let (_, tally) = self.tallies.iter().find(|(own, _)| own.id == slo.id)?;
        Some(&tally.scraped).filter(|scraped| scraped.is_seen)
    }

    /// True for an objective that is counted against the buckets beside its threshold.
    pub(super) fn is_beside(&self, slo: &Slo) -> bool {
        self.scraped(slo).is_some_and(|scraped| !scraped.pairs.is_empty())
    }

    /// True for an objective that is counted from scraped counters: one that nobody declared by the workload's source, a
    /// declared one where there are no lines that would tell it exactly. How long
    /// requests took, histograms tell ([`bracket`](super::bracket)).
    pub(super) fn takes_scrapes(&self, slo: &Slo) -> bool {
        let untold = slo.kind == Kind::Availability && !self.has_lines;
        self.source.is_scrape() && (slo.is_observed() || untold)
    }

    /// True while what its lines say is too late to be shown.
    pub fn is_lagging(&self) -> bool {
        self.lag_nano > LAGGING
    }
}

/// In which objectives a route has no say, as bits.
pub(super) fn excluded(tallies: &[(Arc<Slo>, Tally)], route: &str) -> u32 {
    let says_nothing = |slo: &Slo| slo.exclude_routes.iter().any(|own| own == route);
    tallies
        .iter()
        .enumerate()
        .filter(|(_, (slo, _))| says_nothing(slo))
        .fold(0, |bits, (index, _)| bits | 1 << index)
}
