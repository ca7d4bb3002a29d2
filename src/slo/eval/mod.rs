//! Objectives judged on the node itself, where no Prometheus does it.
//!
//! ```text
//! final pages of RED ─► store (samples, 6 h) ─┐
//!                                             ├─► rules as rendered ─► records (values, five-minute slices) ─► page, report
//!                            every 30 s ──────┘                    └─► alerts (pending, firing, resolved)
//! ```
//!
//! In: pages, and the time. Out: alerts to send, a page of what the rules record, a report, and bytes that bring all of it
//! back after a restart. Its time may go faster than the clock (`[evaluator] compression`): then every time that comes in is
//! multiplied and every time that goes out divided, and nothing between knows of it. Invariants: pure, no file and no network is touched; what runs are the rules that are rendered for
//! Prometheus, and it does with them what Prometheus does; no data is nothing, never 100 %; every kept thing has a limit.

mod alert;
pub mod config;
pub mod increase;
mod objective;
pub mod promql;
mod query;
mod records;
mod report;
mod ring;
mod save;
mod store;
mod template;

use std::collections::BTreeMap;

use super::config::Defaults;
use super::spec::Spec;
use crate::data::sample::{MetricKind, Page};

pub use crate::durable::Damage;
pub use alert::{KEEP_RESOLVED_MS, State};
pub use config::{Config, Mode};
use objective::Objective;
use query::Memo;
pub use report::{AlertRow, Report, Row, off};
pub use save::FORM;
use store::Store;

/// Bytes of samples that are kept for all objectives together; beyond three quarters no further series are taken.
pub const MOST_BYTES: u64 = 16 << 20;
/// How far the clock may be set back without anything being forgotten, and how far ahead a sample's time may lie.
const TOLERANCE_MS: i64 = 300_000;

/// What may be held in memory for these objectives, in bytes: samples, and two slices of eight bytes every five minutes of
/// the windows, with a copy of all that while it is written to disk.
pub fn memory_bound<'a>(specs: impl Iterator<Item = &'a Spec>) -> u64 {
    let slices: u64 = specs.map(|spec| u64::from(spec.window.minutes()) / 5 * 16 + (64 << 10)).sum();
    if slices == 0 { 0 } else { MOST_BYTES + 2 * slices }
}

/// An alert to tell of.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began to fire, milliseconds since the epoch.
    pub starts_unix_ms: i64,
    /// When it ended; `None` while it fires.
    pub ended_unix_ms: Option<i64>,
}

/// Judges objectives.
#[derive(Debug)]
pub struct Evaluator {
    store: Store,
    objectives: Vec<Objective>,
    interval_ms: i64,
    /// How many times faster its time goes than the clock.
    compression: i64,
    /// In its own time, as every time that is kept.
    last_ms: Option<i64>,
    set_back: u64,
}

impl Evaluator {
    /// Nothing is known yet.
    pub fn new(specs: &[Spec], defaults: &Defaults, config: &Config) -> Self {
        let mut store = Store::default();
        let objectives =
            specs.iter().map(|spec| Objective::new(spec, defaults, config.compression, &mut store)).collect();
        let interval_ms = i64::try_from(config.interval.0.as_millis()).unwrap_or(30_000).max(1_000);
        let compression = i64::from(config.compression.max(1));
        Self { store, objectives, interval_ms, compression, last_ms: None, set_back: 0 }
    }

    /// A time of the clock as its own: since the epoch, so that a restart changes nothing.
    fn own_ms(&self, unix_ms: i64) -> i64 {
        unix_ms.saturating_mul(self.compression)
    }

    /// The time of the clock from which on it is `own_ms` here.
    fn unix_ms(&self, own_ms: i64) -> i64 {
        own_ms.div_euclid(self.compression) + i64::from(own_ms.rem_euclid(self.compression) > 0)
    }

    /// Rules that cannot be evaluated here, by objective.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        self.objectives.iter().flat_map(|objective| {
            objective.problems.iter().map(|problem| (objective.id.as_str(), problem.as_str()))
        })
    }

    /// Takes what it needs of a final page. A sample's own time counts, unless it lies so far ahead of `now_ms` that one of
    /// the two clocks is wrong.
    pub fn take(&mut self, page: &Page, now_ms: i64) {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for sample in &page.samples {
            let name = page.text(sample.name);
            if !self.store.wants(name) {
                continue;
            }
            pairs.clear();
            let labels =
                page.labels_of(sample).iter().map(|label| (page.text(label.name), page.text(label.value)));
            pairs.extend(labels.filter(|(name, value)| *name != "__name__" && !value.is_empty()));
            let at = if sample.time_unix_ms > now_ms + TOLERANCE_MS { now_ms } else { sample.time_unix_ms };
            let at = self.own_ms(at);
            self.store.take(name, &pairs, at, sample.value);
        }
    }

    /// Takes one sample; `labels` are sorted, without the name.
    pub fn take_one(&mut self, name: &str, labels: &[(&str, &str)], unix_ms: i64, value: f64) {
        if self.store.wants(name) {
            let at = self.own_ms(unix_ms);
            self.store.take(name, labels, at, value);
        }
    }

    /// The time of the evaluation that is due at `now_ms`: whole intervals since the epoch, as its own time goes. `None`: none
    /// is.
    pub fn due(&self, now_ms: i64) -> Option<i64> {
        let now_ms = self.own_ms(now_ms);
        let at_ms = now_ms.div_euclid(self.interval_ms) * self.interval_ms;
        match self.last_ms {
            Some(last) if at_ms <= last && last - now_ms <= self.own_ms(TOLERANCE_MS) => None,
            _ => Some(self.unix_ms(at_ms)),
        }
    }

    /// Runs the rules at `at_ms`. True when an alert began to fire or ended.
    ///
    /// A clock that was set back by more than five minutes takes samples and values of the future away; by less, nothing is
    /// evaluated until it has caught up.
    pub fn evaluate(&mut self, at_ms: i64) -> bool {
        let at_ms = self.own_ms(at_ms);
        if self.last_ms.is_some_and(|last| at_ms < last) {
            self.store.clear();
            self.objectives.iter_mut().for_each(|objective| objective.set_back(at_ms));
            self.set_back += 1;
        }
        self.store.sweep(at_ms);
        let (memo, mut changed) = (Memo::default(), false);
        for objective in &mut self.objectives {
            changed |= objective.evaluate(&self.store, &memo, at_ms, self.last_ms);
        }
        self.last_ms = Some(at_ms);
        changed
    }

    /// Alerts that fire, and those that ended within the last quarter of an hour of its own time.
    pub fn told(&self) -> Vec<Told> {
        let alerting = self.objectives.iter().flat_map(Objective::alerting);
        let all = alerting.flat_map(|alerting| &alerting.alerts.all);
        let told = all.filter(|(_, alert)| alert.state != State::Pending).map(|(labels, alert)| Told {
            labels: labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            annotations: alert.annotations.clone(),
            starts_unix_ms: self.unix_ms(alert.fired_unix_ms),
            ended_unix_ms: (alert.state == State::Resolved).then(|| self.unix_ms(alert.resolved_unix_ms)),
        });
        told.collect()
    }

    /// How many times faster its time goes than the clock: 1, except in demonstrations.
    pub fn compression(&self) -> u32 {
        u32::try_from(self.compression).unwrap_or(u32::MAX)
    }

    /// Writes what the rules recorded, at its newest, by the names that they have in Prometheus.
    pub fn write(&self, page: &mut Page) {
        page.clear();
        let Some(last_ms) = self.last_ms else { return };
        let mut names: BTreeMap<&str, Vec<(&store::Labels, f64)>> = BTreeMap::new();
        for objective in &self.objectives {
            for (name, labels, at_ms, value) in objective.records.all() {
                if last_ms - at_ms < store::LOOKBACK_MS {
                    names.entry(name).or_default().push((labels, value));
                }
            }
        }
        for (name, series) in names {
            page.begin_family(name, MetricKind::Gauge, "Recorded by the evaluator of objectives.");
            for (labels, value) in series {
                page.push_sample(name, labels.iter().map(|(name, value)| (&**name, &**value)), value);
            }
        }
    }

    /// When rules ran last, milliseconds since the epoch.
    pub fn last_unix_ms(&self) -> Option<i64> {
        self.last_ms.map(|last| self.unix_ms(last))
    }

    /// The value of one recorded series of an objective.
    pub fn value(&self, slo_id: &str, name: &str) -> Option<f64> {
        self.objectives.iter().find(|objective| objective.id == slo_id)?.value(name, self.last_ms?)
    }

    /// True while this alert of an objective fires.
    pub fn fires(&self, slo_id: &str, alert: &str) -> bool {
        let objective = self.objectives.iter().find(|objective| objective.id == slo_id);
        let alerting = objective.into_iter().flat_map(Objective::alerting).filter(|own| own.name == alert);
        alerting.flat_map(|own| own.alerts.all.values()).any(|alert| alert.state == State::Firing)
    }

    /// Samples that were refused because there were too many series.
    pub fn refused(&self) -> u64 {
        self.store.refused()
    }

    /// Series whose samples are kept.
    pub fn series(&self) -> usize {
        self.store.len()
    }

    /// How often the clock was set back by more than could be waited for.
    pub fn clock_set_back(&self) -> u64 {
        self.set_back
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.store.bytes() + self.objectives.iter().map(|objective| objective.records.bytes()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
