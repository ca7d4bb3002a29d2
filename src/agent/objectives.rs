//! Objectives as rate, errors and durations count them: those of the config, those that pods declare by annotations, and
//! one for each workload that has none.
//!
//! ```text
//! [slo] ───────────┐
//! pods' annotations ┴► Follow ─► red::Declared
//! ```
//!
//! In: `[slo]`, and the watch of the node's pods. Out: what [`Red`](crate::red::Red) counts, and the thresholds that need a
//! bucket of their own because nobody counts against them: objectives of a service or a route are measured by the histogram.
//!
//! Invariants: the newest pod of a workload decides; the config's word stands before a pod's; a line is never counted before
//! the objectives of its pod are known, as the thread that counts looks for a change first ([`Watching`]); what is odd is said
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::config::{Config, red, slo};
use crate::data::access::{AccessTap, Request};
use crate::data::clock;
use crate::data::pods::{Pod, Pods};
use crate::data::position::Position;
use crate::data::units::Span;
use crate::data::workload::{Workload, owner_of};
use crate::metrics;
use crate::slo::annotations;

/// How long the objectives of a workload hold whose last pod is gone: its last lines are still to be read, and the next pod
/// may be about to start.
const GRACE: Duration = Duration::from_secs(600);
/// Workloads whose pods declare something; RED counts no more of them.
const MOST_WORKLOADS: usize = 500;
/// Things that were said and are not said again.
const MOST_SAID: usize = 512;
/// Problems of one pod that are told.
const MOST_PROBLEMS: usize = 16;

/// Objectives of whole workloads, counted as `slo_events_total`.
pub(super) fn counted(config: &slo::Config) -> Vec<red::Slo> {
    let specs = config.specs().into_iter().filter(slo::Spec::is_counted);
    specs.map(|spec| to_count(spec, red::Door::Config)).collect()
}

/// An objective of a whole workload as it is counted.
fn to_count(spec: slo::Spec, door: red::Door) -> red::Slo {
    red::Slo {
        id: spec.id(),
        matcher: red::Matcher {
            namespace: Some(spec.selector.namespace.clone()),
            workload: spec.selector.workload.clone(),
        },
        kind: match spec.sli {
            slo::Sli::Availability => red::Kind::Availability,
            slo::Sli::Latency { threshold } => {
                red::Kind::Latency { threshold_nano: u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX) }
            }
        },
        about: red::About {
            door,
            objective: slo::number::shortest(spec.objective.ratio()),
            window: spec.window.to_string(),
            mode: spec.mode.name().to_owned(),
            owner: spec.owner,
        },
        exclude_routes: spec.exclude_routes,
    }
}

/// What a workload is measured by that has no availability objective.
fn observed(defaults: &slo::config::Defaults) -> Option<red::Observed> {
    defaults.observed.0.map(|objective| red::Observed {
        objective: slo::number::shortest(objective.ratio()),
        window: defaults.window.to_string(),
        owner: defaults.owner.clone(),
        exclude_routes: defaults.exclude_routes.clone(),
    })
}

/// `[red]` with a bucket at the threshold of every objective that the histogram measures.
pub(super) fn with_buckets(red: &red::Config, config: &slo::Config) -> red::Config {
    let mut red = red.clone();
    for spec in config.specs().iter().filter(|spec| !spec.is_counted()) {
        if let slo::Sli::Latency { threshold } = spec.sli
            && !red.thresholds.contains(&Span(threshold))
        {
            red.thresholds.push(Span(threshold));
        }
    }
    red
}

/// Keeps what RED counts in step with the config and the node's pods.
pub(super) struct Follow {
    pods: Pods,
    /// Version of the pods that was looked at last.
    seen: AtomicU64,
    declarer: red::Declarer,
    state: Mutex<State>,
}

/// What was said and is not said again, from one pipeline to the next.
pub(super) type Said = BTreeSet<String>;

/// A workload by namespace and name.
type Name = (String, String);

#[derive(Default)]
struct State {
    cluster: String,
    node: String,
    defaults: slo::config::Defaults,
    /// Objectives of the config that are counted, and the ids of all.
    config: Vec<red::Slo>,
    taken: BTreeSet<String>,
    /// What pods declare.
    known: BTreeMap<Name, Known>,
    said: Said,
    current: Option<red::Declared>,
}

#[derive(Debug, Default)]
struct Known {
    slos: Vec<red::Slo>,
    /// Since when no pod of it lives.
    gone: Option<Duration>,
}

impl Follow {
    /// Declares what is known by now: the config's word and that of pods; `before` is what pods declared in an earlier life.
    pub(super) fn new(
        config: &Config,
        pods: Pods,
        declarer: red::Declarer,
        before: Vec<red::Slo>,
        said: Said,
    ) -> Self {
        let mut known: BTreeMap<Name, Known> = BTreeMap::new();
        for slo in before {
            let red::Matcher { namespace, workload } = slo.matcher.clone();
            let name = (namespace.unwrap_or_default(), workload.unwrap_or_default());
            known.entry(name).or_default().slos.push(slo);
        }
        let state = State {
            cluster: config.agent.cluster.clone(),
            node: config.agent.node.clone(),
            defaults: config.slo.defaults.clone(),
            config: counted(&config.slo),
            taken: config.slo.specs().iter().map(slo::Spec::id).collect(),
            known,
            said,
            ..State::default()
        };
        let follow = Self { pods, seen: AtomicU64::new(0), declarer, state: Mutex::new(state) };
        follow.look();
        follow
    }

    /// What was said by now.
    pub(super) fn said(&self) -> Said {
        self.state.lock().said.clone()
    }

    /// Looks at the pods if there is anything new.
    #[inline]
    pub(super) fn refresh(&self) {
        if self.pods.version() != self.seen.load(Ordering::Acquire) {
            self.look();
        }
    }

    /// Looks at the pods, and at what has been gone for long.
    pub(super) fn look(&self) {
        let mut state = self.state.lock();
        // What changes while they are looked at is looked at next time.
        let version = self.pods.version();
        let synced = self.pods.is_synced();
        if let Some(declared) = state.look(&self.pods.living(), synced, clock::now()) {
            self.declarer.declare(declared);
        }
        self.seen.store(version, Ordering::Release);
    }
}

impl State {
    /// What is to be counted, when it is something else than before.
    fn look(&mut self, pods: &[Arc<Pod>], synced: bool, now: Duration) -> Option<red::Declared> {
        let mut newest: BTreeMap<Name, &Pod> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.namespace.is_empty()) {
            let held = newest.entry((pod.namespace.clone(), workload_of(pod).to_owned())).or_insert(pod);
            if (pod.created_unix, &pod.name) > (held.created_unix, &held.name) {
                *held = pod;
            }
        }
        for (name, pod) in &newest {
            // Until all pods are known, what an earlier life knew is newer than what the oldest pod says.
            if synced || !self.known.contains_key(name) {
                self.read(name, pod);
            }
        }
        let is_over = |known: &mut Known| now.saturating_sub(*known.gone.get_or_insert(now)) >= GRACE;
        self.known.retain(|name, known| newest.contains_key(name) || !synced || !is_over(known));
        let declared = self.declared(&newest);
        (self.current.as_ref() != Some(&declared)).then(|| {
            self.current = Some(declared.clone());
            declared
        })
    }

    /// Reads what the newest pod of a workload declares.
    fn read(&mut self, name: &Name, pod: &Pod) {
        let (namespace, workload) = name;
        let pairs = || pod.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        if !annotations::any(pairs().map(|(name, _)| name)) {
            self.known.remove(name);
            return;
        }
        let (specs, problems) = annotations::read(pairs(), namespace, workload, &self.defaults);
        for problem in problems.iter().take(MOST_PROBLEMS) {
            let of = problem.annotation();
            let value = pairs().find(|(name, _)| *name == of).map(|(_, value)| value).unwrap_or_default();
            let text = annotations::told(namespace, &pod.name, value, problem);
            // Pods of one workload have the same.
            if self.is_news(format!("{namespace}/{workload} {of} {value}")) {
                metrics::KUBE_ANNOTATION_PROBLEMS.inc();
                warn!(
                    problem = text,
                    "an annotation about objectives is not understood; what it says does not hold"
                );
            }
        }
        let mut slos: Vec<red::Slo> = specs.into_iter().map(|spec| to_count(spec, red::Door::Pods)).collect();
        slos.retain(|slo| {
            let taken = self.taken.contains(&slo.id);
            if taken && self.is_news(format!("taken {}", slo.id)) {
                warn!(
                    slo_id = slo.id,
                    "config and pods declare the same objective; the config's word stands"
                );
            }
            !taken
        });
        let before = self.known.get(name);
        if before.is_none() && self.known.len() >= MOST_WORKLOADS {
            metrics::RED_REFUSED.with_label_values(&["objectives"]).inc_by(slos.len() as u64);
            return;
        }
        for slo in &slos {
            let other = before.and_then(|before| before.slos.iter().find(|known| known.id == slo.id));
            if other.is_some_and(|other| other != slo) {
                info!(
                    slo_id = slo.id, pod = pod.name, objective = slo.about.objective, window = slo.about.window,
                    mode = slo.about.mode, kind = ?slo.kind,
                    "the newest pod of a workload declares an objective otherwise; it is counted by that from now on"
                );
            }
        }
        self.known.insert(name.clone(), Known { slos, gone: None });
    }

    fn declared(&self, newest: &BTreeMap<Name, &Pod>) -> red::Declared {
        let of_pods = self.known.values().flat_map(|known| &known.slos);
        let slos: Vec<red::Slo> = self.config.iter().chain(of_pods).cloned().collect();
        let has_some =
            |(namespace, workload): &&Name| slos.iter().any(|slo| slo.matches(namespace, workload));
        let present = newest.keys().filter(has_some).map(|(namespace, workload)| red::Identity {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            namespace: namespace.clone(),
            workload: workload.clone(),
            ..red::Identity::default()
        });
        red::Declared {
            present: present.collect(),
            observed: observed(&self.defaults),
            keeps_evidence: self.defaults.trace_evidence,
            slos,
        }
    }

    fn is_news(&mut self, what: String) -> bool {
        if self.said.len() >= MOST_SAID {
            self.said.clear();
        }
        self.said.insert(what)
    }
}

/// The workload that a pod's requests are counted of.
fn workload_of(pod: &Pod) -> &str {
    let attributes = pod.containers.first().map_or(&[][..], |container| &container.traits.attributes);
    owner_of(attributes, &pod.name).name
}

/// RED's hand in the thread that reads logs, which looks for objectives before it counts.
pub(super) struct Watching {
    pub(super) tap: red::LogTap,
    pub(super) follow: Arc<Follow>,
}

impl AccessTap for Watching {
    fn counted(&self, key: &str) -> Option<Position> {
        self.tap.counted(key)
    }

    fn is_resumed(&self) -> bool {
        self.tap.is_resumed()
    }

    fn count(
        &mut self,
        key: &Arc<str>,
        workload: &Arc<Workload>,
        requests: &[Request],
        text: &[u8],
        until: Position,
    ) {
        if !requests.is_empty() {
            self.follow.refresh();
        }
        self.tap.count(key, workload, requests, text, until);
    }

    fn lag(&mut self, key: &str, workload: &Arc<Workload>, nanos: u64) {
        self.tap.lag(key, workload, nanos);
    }

    fn forget(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.tap.forget(is_there);
    }
}

#[cfg(test)]
#[path = "objectives_tests.rs"]
mod tests;
