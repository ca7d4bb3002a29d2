//! How every objective stands: what the page `/slos` shows.
//!
//! In: an evaluator. Out: a [`Report`] to serialize. Invariant: what has no data is `null`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::burn::Range;
use super::super::number::shortest;
use super::super::spec::Sli;
use super::Evaluator;
use super::alert::State;
use super::objective::Objective;

/// The page `/slos`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the agent evaluates its objectives.
    pub evaluator: bool,
    /// Why it does not; empty when it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How many times faster its time goes than the clock: 1, except in demonstrations. Spans and windows on this page are of
    /// its own time, moments are of the clock.
    #[serde(default = "one")]
    pub compression: u32,
    /// When it did last, milliseconds since the epoch.
    pub evaluated_unix_ms: Option<i64>,
    /// Every objective.
    pub objectives: Vec<Row>,
}

/// One objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `<namespace>/<workload>/<name>`.
    pub slo_id: String,
    /// What is measured.
    pub sli: String,
    /// Longest good duration, of latency.
    pub threshold_seconds: Option<f64>,
    /// Share that must be good.
    pub objective: f64,
    /// Over how long.
    pub window: String,
    /// "observe" or "alert".
    pub mode: String,
    /// Who answers for it.
    pub owner: String,
    /// Share of good events by range.
    pub good: BTreeMap<String, Option<f64>>,
    /// Events by range.
    pub events: BTreeMap<String, Option<f64>>,
    /// How many times faster than allowed the budget goes, by range.
    pub burn_rate: BTreeMap<String, Option<f64>>,
    /// Share of the budget that is left.
    pub budget_remaining: Option<f64>,
    /// Share of each long range that was seen.
    pub coverage: BTreeMap<String, Option<f64>>,
    /// Seconds until the budget is gone at the rate of the last hour.
    pub exhausted_in_seconds: Option<f64>,
    /// Every alert that it may raise.
    pub alerts: Vec<AlertRow>,
    /// What cannot be evaluated here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRow {
    /// Its name.
    pub name: String,
    /// "inactive", "pending", "firing" or "resolved".
    pub state: String,
    /// Since when, milliseconds since the epoch.
    pub since_unix_ms: Option<i64>,
    /// What it says.
    pub annotations: BTreeMap<String, String>,
}

const fn one() -> u32 {
    1
}

/// The page while nothing is evaluated.
pub fn off(reason: &str) -> Report {
    Report {
        evaluator: false,
        reason: reason.to_owned(),
        compression: one(),
        evaluated_unix_ms: None,
        objectives: Vec::new(),
    }
}

impl Evaluator {
    /// How every objective stands.
    pub fn report(&self) -> Report {
        let at_ms = self.last_ms.unwrap_or_default();
        Report {
            evaluator: true,
            reason: String::new(),
            compression: self.compression(),
            evaluated_unix_ms: self.last_unix_ms(),
            objectives: self.objectives.iter().map(|objective| self.row(objective, at_ms)).collect(),
        }
    }

    fn row(&self, objective: &Objective, at_ms: i64) -> Row {
        let spec = &objective.spec;
        let window: Range = spec.window.into();
        let value = |name: String| objective.value(&name, at_ms);
        let mut ranges = Range::DIRECT.to_vec();
        ranges.extend([Range::D1, Range::D3, window]);
        let by = |ranges: &[Range], of: &dyn Fn(&Range) -> Option<f64>| {
            ranges.iter().map(|range| (range.to_string(), of(range))).collect::<BTreeMap<_, _>>()
        };
        let burns = [Range::M5, Range::H1, Range::H6, Range::D3];
        let left = value("slo:error_budget_remaining:ratio".into());
        let burning = value("slo:burn_rate:ratio_rate1h".into()).filter(|burn| *burn > 0.0);
        let seconds = f64::from(spec.window.minutes()) * 60.0;
        let alerts = objective.alerting().map(|alerting| {
            // The one that matters most, should there be several.
            let rank = |state: State| match state {
                State::Firing => 2,
                State::Pending => 1,
                State::Resolved => 0,
            };
            let alert = alerting.alerts.all.values().max_by_key(|alert| rank(alert.state));
            AlertRow {
                name: alerting.name.to_owned(),
                state: alert.map_or("inactive", |alert| alert.state.name()).to_owned(),
                since_unix_ms: alert.map(|alert| match alert.state {
                    State::Pending => self.unix_ms(alert.active_unix_ms),
                    State::Firing => self.unix_ms(alert.fired_unix_ms),
                    State::Resolved => self.unix_ms(alert.resolved_unix_ms),
                }),
                annotations: alert.map(|alert| alert.annotations.clone()).unwrap_or_default(),
            }
        });
        Row {
            slo_id: objective.id.clone(),
            sli: spec.sli.name().to_owned(),
            threshold_seconds: match spec.sli {
                Sli::Latency { threshold } => Some(threshold.as_secs_f64()),
                Sli::Availability => None,
            },
            objective: shortest(spec.objective.ratio()).parse().unwrap_or_default(),
            window: spec.window.to_string(),
            mode: spec.mode.name().to_owned(),
            owner: spec.owner.clone(),
            good: by(&ranges, &|range| Some(1.0 - value(format!("slo:sli_error:ratio_rate{range}"))?)),
            events: by(&ranges, &|range| value(format!("slo:sli_events:increase{range}"))),
            burn_rate: by(&burns, &|range| value(format!("slo:burn_rate:ratio_rate{range}"))),
            budget_remaining: left,
            coverage: by(&[Range::D1, Range::D3, window], &|range| {
                value(format!("slo:window_coverage:ratio{range}"))
            }),
            exhausted_in_seconds: left
                .zip(burning)
                .map(|(left, burning)| (left.max(0.0) * seconds / burning * 1e3).round() / 1e3),
            alerts: alerts.collect(),
            problems: objective.problems.clone(),
        }
    }
}
