//! Exact counters of objectives: which requests were good, which were bad, and traces of the bad ones.
//!
//! In: each request of a line, with its route, class and duration; of a workload without access lines the increases of its own
//! counters. Out: two counters an objective and workload. Invariant: every request that has a say counts once, as good or as
//! bad.

use super::bracket::Scraped;
use super::words::Class;
use crate::data::trace::TraceId;

/// Objectives that may match one workload.
pub const MAX_SLOS: usize = 32;

/// What makes a request bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An answer of class 5xx.
    Availability,
    /// It took longer than this.
    Latency {
        /// Nanoseconds; exactly as long is good.
        threshold_nano: u64,
    },
}

/// Whose requests an objective is about; `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matcher {
    /// Namespace.
    pub namespace: Option<String>,
    /// Workload.
    pub workload: Option<String>,
}

/// A declared objective, as far as counting goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slo {
    /// `<namespace>/<workload>/<name>`.
    pub id: String,
    /// Whose requests.
    pub matcher: Matcher,
    /// What is bad.
    pub kind: Kind,
    /// Routes that have no say, as they are published.
    pub exclude_routes: Vec<String>,
    /// What is told of it beside its counters.
    pub about: About,
}

/// Who wants an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Door {
    /// The config.
    #[default]
    Config,
    /// Annotations of the workload's pods.
    Pods,
    /// Nobody: a workload that has none of its own is observed.
    Observed,
}

/// What is told of an objective beside its counters, as label values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Who wants it.
    pub door: Door,
    /// Share that must be good: `0.9995`.
    pub objective: String,
    /// Over how long: `30d`.
    pub window: String,
    /// `observe` or `alert`.
    pub mode: String,
    /// Team that is called; may be empty.
    pub owner: String,
}

/// What a workload without an availability objective of its own is measured by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Share that must be good: `0.999`.
    pub objective: String,
    /// Over how long: `30d`.
    pub window: String,
    /// Team that is told; may be empty.
    pub owner: String,
    /// Routes that have no say.
    pub exclude_routes: Vec<String>,
}

/// Last part of the id of an objective that nobody declared.
pub const OBSERVED: &str = "observed";

impl Observed {
    /// The objective of one workload.
    pub(super) fn of(&self, namespace: &str, workload: &str) -> Slo {
        Slo {
            id: format!("{namespace}/{workload}/{OBSERVED}"),
            matcher: Matcher { namespace: Some(namespace.to_owned()), workload: Some(workload.to_owned()) },
            kind: Kind::Availability,
            exclude_routes: self.exclude_routes.clone(),
            about: About {
                door: Door::Observed,
                objective: self.objective.clone(),
                window: self.window.clone(),
                mode: "observe".to_owned(),
                owner: self.owner.clone(),
            },
        }
    }
}

impl Slo {
    /// True for one that is measured by whatever its workload's requests are counted from; the others are counted from
    /// access lines alone.
    pub fn is_observed(&self) -> bool {
        self.about.door == Door::Observed
    }

    /// True for the workloads that it is about.
    pub fn matches(&self, namespace: &str, workload: &str) -> bool {
        self.matcher.namespace.as_deref().is_none_or(|own| own == namespace)
            && self.matcher.workload.as_deref().is_none_or(|own| own == workload)
    }

    /// Whether a request is good; `None` when it has no say. A client that went away says nothing about latency, unless
    /// it had waited longer than the threshold; for availability it counts as the canonical families have it: as an event
    /// that is no error.
    pub fn is_good(&self, class: Class, duration_nano: Option<u64>) -> Option<bool> {
        match self.kind {
            Kind::Availability => Some(class != Class::SERVER_ERROR),
            Kind::Latency { threshold_nano } => {
                let good = duration_nano? <= threshold_nano;
                (class != Class::ABORTED || !good).then_some(good)
            }
        }
    }
}

/// The counters of one objective and workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Which objective.
    pub id: String,
    /// Good requests.
    pub good: u64,
    /// Bad requests.
    pub bad: u64,
    /// Both have been published as 0.
    pub born: bool,
    /// What scraped histograms say of it.
    pub scraped: Scraped,
    /// Traces of bad requests; made with the first one.
    pub(super) evidence: Option<Box<Evidence>>,
}

/// Traces that are kept of one objective.
pub const MAX_TRACES: usize = 5;
/// Age from which a trace is no evidence any more.
const EVIDENCE_MS: i64 = 3_600_000;

/// The newest traces of bad requests, by the time of the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence([Option<(TraceId, i64)>; MAX_TRACES]);

impl Evidence {
    /// Takes the trace of a bad request at `unix_ms`, in place of the oldest one.
    pub fn add(&mut self, trace: TraceId, unix_ms: i64) {
        if let Some((_, known)) = self.0.iter_mut().flatten().find(|(known, _)| *known == trace) {
            *known = unix_ms.max(*known);
            return;
        }
        let oldest = self.0.iter_mut().min_by_key(|place| place.map_or(i64::MIN, |(_, at)| at));
        if let Some(place) = oldest
            && place.is_none_or(|(_, at)| at <= unix_ms)
        {
            *place = Some((trace, unix_ms));
        }
    }

    /// Traces of the hour before `now_unix_ms`.
    pub fn recent(&self, now_unix_ms: i64) -> impl Iterator<Item = TraceId> {
        let recent = move |(_, at): &&(TraceId, i64)| *at >= now_unix_ms - EVIDENCE_MS;
        self.0.iter().flatten().filter(recent).map(|(trace, _)| *trace)
    }
}

impl Tally {
    /// Counts events.
    #[inline]
    pub(super) fn count(&mut self, good: bool, events: u64) {
        if good {
            self.good += events;
        } else {
            self.bad += events;
        }
    }

    /// Keeps the trace of a bad request.
    pub(super) fn witness(&mut self, trace: TraceId, unix_ms: i64) {
        self.evidence.get_or_insert_default().add(trace, unix_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slo(kind: Kind) -> Slo {
        let matcher = Matcher { namespace: Some("shop".into()), workload: Some("api".into()) };
        Slo { id: "shop/api/x".into(), matcher, kind, exclude_routes: Vec::new(), about: About::default() }
    }

    #[test]
    fn an_objective_is_about_its_own_workload() {
        let slo = slo(Kind::Availability);
        assert!(slo.matches("shop", "api"));
        assert!(!slo.matches("shop", "web") && !slo.matches("other", "api"));
        assert!(Slo { matcher: Matcher::default(), ..slo }.matches("any", "thing"));
    }

    #[test]
    fn the_newest_five_traces_of_an_hour_are_evidence() {
        let trace = |id: u128| TraceId::new(id).expect("not zero");
        let mut evidence = Evidence::default();
        for (id, at) in [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50), (3, 35), (6, 5), (7, 60)] {
            evidence.add(trace(id), at);
        }
        let ids = |now| {
            let mut ids: Vec<u128> = evidence.recent(now).map(TraceId::get).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(0), [2, 3, 4, 5, 7]);
        assert_eq!(ids(3_600_040), [4, 5, 7]);
    }

    #[test]
    fn only_what_the_service_did_wrong_is_bad() {
        let available = slo(Kind::Availability);
        assert_eq!(available.is_good(Class::SERVER_ERROR, None), Some(false));
        assert_eq!(available.is_good(Class::CLIENT_ERROR, None), Some(true));
        assert_eq!(available.is_good(Class::ABORTED, None), Some(true));
        let fast = slo(Kind::Latency { threshold_nano: 200 });
        assert_eq!(fast.is_good(Class::SUCCESS, Some(200)), Some(true));
        assert_eq!(fast.is_good(Class::SUCCESS, Some(201)), Some(false));
        assert_eq!(fast.is_good(Class::SUCCESS, None), None);
        assert_eq!(fast.is_good(Class::ABORTED, Some(100)), None);
        assert_eq!(fast.is_good(Class::ABORTED, Some(300)), Some(false));
    }
}
