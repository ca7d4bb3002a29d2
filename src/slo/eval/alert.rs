//! The life of an alert: pending, firing, resolved.
//!
//! In: at each evaluation what the alert's expression yields. Out: the alerts that are, and those that ended lately.
//! Invariants: an alert fires when its expression has yielded it for as long as its rule says; it begins to fire once and
//! keeps that time; one that fired and ended is kept for [`KEEP_RESOLVED_MS`], so that its end is told.
//!
//! Source: Prometheus 2.42, `rules/alerting.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::Labels;

/// How long the end of an alert is told.
pub const KEEP_RESOLVED_MS: i64 = 15 * 60_000;

/// Where an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its expression holds, not yet for long enough.
    Pending,
    /// It fires.
    Firing,
    /// It fired and has ended.
    Resolved,
}

impl State {
    /// As `ALERTS` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// One alert.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alert {
    /// Where it is.
    pub state: State,
    /// When its expression began to hold, milliseconds since the epoch.
    pub active_unix_ms: i64,
    /// When it began to fire; 0 before.
    pub fired_unix_ms: i64,
    /// When it ended; 0 before.
    pub resolved_unix_ms: i64,
    /// What its expression yields.
    pub value: f64,
    /// What it says, as of its last evaluation.
    pub annotations: BTreeMap<String, String>,
}

/// All alerts of one rule, by their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Alerts {
    /// The alerts.
    pub all: BTreeMap<Labels, Alert>,
}

impl Alerts {
    /// Takes what the expression yields at `at_ms`. True when something began to fire or ended.
    pub(super) fn step(
        &mut self,
        found: &[(Labels, f64)],
        at_ms: i64,
        hold_ms: i64,
        annotate: impl Fn(&Labels, f64) -> BTreeMap<String, String>,
    ) -> bool {
        let mut changed = false;
        for (labels, value) in found {
            match self.all.get_mut(labels) {
                Some(alert) if alert.state != State::Resolved => alert.value = *value,
                _ => {
                    let alert = Alert {
                        state: State::Pending,
                        active_unix_ms: at_ms,
                        fired_unix_ms: 0,
                        resolved_unix_ms: 0,
                        value: *value,
                        annotations: BTreeMap::new(),
                    };
                    self.all.insert(Arc::clone(labels), alert);
                }
            }
        }
        self.all.retain(|labels, alert| {
            if !found.iter().any(|(own, _)| own == labels) {
                match alert.state {
                    State::Pending => return false,
                    State::Firing => {
                        (alert.state, alert.resolved_unix_ms) = (State::Resolved, at_ms);
                        changed = true;
                    }
                    State::Resolved => return at_ms - alert.resolved_unix_ms <= KEEP_RESOLVED_MS,
                }
                return true;
            }
            if alert.state == State::Pending && at_ms - alert.active_unix_ms >= hold_ms {
                (alert.state, alert.fired_unix_ms) = (State::Firing, at_ms);
                changed = true;
            }
            if alert.state == State::Firing {
                // Nobody hears of one that is pending.
                alert.annotations = annotate(labels, alert.value);
            }
            true
        });
        changed
    }

    /// The clock was set back to `now_ms`: nothing began later than that.
    pub(super) fn cut(&mut self, now_ms: i64) {
        for alert in self.all.values_mut() {
            for time in [&mut alert.active_unix_ms, &mut alert.fired_unix_ms, &mut alert.resolved_unix_ms] {
                *time = (*time).min(now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::labels;
    use super::*;

    const M: i64 = 60_000;

    fn step(alerts: &mut Alerts, holds: bool, minute: i64) -> Option<State> {
        let found: Vec<(Labels, f64)> = holds.then(|| (labels([("slo_id", "x")]), 2.0)).into_iter().collect();
        alerts.step(&found, minute * M, 5 * M, |_, value| BTreeMap::from([("v".into(), value.to_string())]));
        alerts.all.values().next().map(|alert| alert.state)
    }

    #[test]
    fn an_alert_fires_after_its_hold_and_is_kept_when_it_ends() {
        let mut alerts = Alerts::default();
        assert_eq!(step(&mut alerts, true, 0), Some(State::Pending));
        assert_eq!(step(&mut alerts, true, 4), Some(State::Pending));
        assert_eq!(step(&mut alerts, true, 5), Some(State::Firing));
        assert_eq!(step(&mut alerts, true, 90), Some(State::Firing));
        let alert = alerts.all.values().next().expect("it fires").clone();
        assert_eq!(
            (alert.active_unix_ms, alert.fired_unix_ms, alert.annotations["v"].as_str()),
            (0, 5 * M, "2")
        );
        assert_eq!(step(&mut alerts, false, 91), Some(State::Resolved));
        assert_eq!(
            step(&mut alerts, false, 106),
            Some(State::Resolved),
            "its end is told for fifteen minutes"
        );
        assert_eq!(step(&mut alerts, false, 107), None);
    }

    #[test]
    fn an_interruption_begins_anew() {
        let mut alerts = Alerts::default();
        step(&mut alerts, true, 0);
        assert_eq!(step(&mut alerts, false, 4), None);
        assert_eq!(step(&mut alerts, true, 5), Some(State::Pending));
        assert_eq!(step(&mut alerts, true, 10), Some(State::Firing));
        step(&mut alerts, false, 11);
        assert_eq!(step(&mut alerts, true, 12), Some(State::Pending), "one that comes back is a new one");
    }

    #[test]
    fn a_rule_without_a_hold_fires_at_once() {
        let mut alerts = Alerts::default();
        let found = [(labels([("slo_id", "x")]), 1.0)];
        assert!(alerts.step(&found, M, 0, |_, _| BTreeMap::new()));
        assert_eq!(alerts.all.values().next().map(|alert| alert.fired_unix_ms), Some(M));
        assert!(!alerts.step(&found, 2 * M, 0, |_, _| BTreeMap::new()));
    }
}
