//! Exact counters of declared objectives: which requests were good, which were bad.
//!
//! In: each request of a line, with its route, class and duration; of a workload without access lines the increases of its own
//! counters. Out: two counters an objective and workload. Invariant: every request that has a say counts once, as good or as
//! bad.

use super::bracket::Scraped;
use super::words::Class;

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
}

impl Slo {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slo(kind: Kind) -> Slo {
        let matcher = Matcher { namespace: Some("shop".into()), workload: Some("api".into()) };
        Slo { id: "shop/api/x".into(), matcher, kind, exclude_routes: Vec::new() }
    }

    #[test]
    fn an_objective_is_about_its_own_workload() {
        let slo = slo(Kind::Availability);
        assert!(slo.matches("shop", "api"));
        assert!(!slo.matches("shop", "web") && !slo.matches("other", "api"));
        assert!(Slo { matcher: Matcher::default(), ..slo }.matches("any", "thing"));
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
