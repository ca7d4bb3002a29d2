//! What would happen: a fault of so many errors for so long, against one objective.
//!
//! In: a [`Spec`], a [`Fault`], the traffic. Out: when each severity alerts and ends, and what the fault spends.
//! Invariant: steady traffic, nothing bad before, evaluated every 30 s with the gates of the rules.

use std::fmt::Write as _;

use super::burn::{EVALUATION_MINUTES, Fault, Severity, TIERS};
use super::number::shortest;
use super::spec::Spec;

/// When one severity alerts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alert {
    /// Who is called.
    pub severity: Severity,
    /// Minutes from the start of the fault.
    pub starts: f64,
    /// Minutes from the start of the fault.
    pub ends: f64,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// First alert of each severity, if it comes.
    pub alerts: Vec<Alert>,
    /// Share of the budget of the whole window.
    pub spent: f64,
    /// Gates that held an alert back, though the share of errors was enough.
    pub held_back: Vec<Severity>,
}

/// Goes through the fault and its aftermath. `per_minute` are all requests.
pub fn simulate(spec: &Spec, fault: Fault, per_minute: f64) -> Outcome {
    let (mut alerts, mut held_back) = (Vec::new(), Vec::new());
    for (severity, least) in
        [(Severity::Page, spec.page_min_bad_events), (Severity::Ticket, spec.ticket_min_bad_events)]
    {
        let tiers: Vec<_> = TIERS.iter().filter(|tier| tier.severity == severity).collect();
        // The end of the longest range after the fault: nothing is left of it then.
        let longest = tiers.iter().map(|tier| tier.long.minutes).max().unwrap_or_default();
        let steps = ((fault.minutes + f64::from(longest)) / EVALUATION_MINUTES).ceil() as u64 + 1;
        let (mut starts, mut ends, mut gated) = (None, None, false);
        for step in 0..steps {
            let at = step as f64 * EVALUATION_MINUTES;
            let mut fires = false;
            for tier in &tiers {
                if fault.fires(tier, spec.window, spec.objective, at) {
                    let bad = fault.share(tier.long, at) * f64::from(tier.long.minutes) * per_minute;
                    // Half a thousandth for what doubles lose.
                    let enough = bad + 5e-4 >= f64::from(least);
                    fires |= enough;
                    gated |= !enough;
                }
            }
            match (fires, starts, ends) {
                (true, None, _) => starts = Some(at),
                (false, Some(_), None) => ends = Some(at),
                (true, Some(_), Some(_)) => ends = None,
                _ => {}
            }
        }
        if let (Some(starts), Some(ends)) = (starts, ends) {
            alerts.push(Alert { severity, starts, ends });
        } else if gated {
            held_back.push(severity);
        }
    }
    Outcome { alerts, spent: fault.spends(spec.window, spec.objective), held_back }
}

impl Outcome {
    /// For people.
    pub fn text(&self, spec: &Spec, fault: Fault, per_minute: f64) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{}: {} {} over {}", spec.id(), spec.sli.name(), spec.objective, spec.window);
        let _ = writeln!(
            out,
            "  {} of {} requests a minute are bad for {}",
            super::number::percent(fault.errors),
            shortest(per_minute),
            duration(fault.minutes)
        );
        for severity in [Severity::Page, Severity::Ticket] {
            let name = match severity {
                Severity::Page => "page  ",
                Severity::Ticket => "ticket",
            };
            match self.alerts.iter().find(|alert| alert.severity == severity) {
                Some(alert) if alert.ends >= fault.minutes => {
                    let _ = writeln!(
                        out,
                        "  {name}  after {}, until {} after it is over",
                        duration(alert.starts),
                        duration(alert.ends - fault.minutes)
                    );
                }
                Some(alert) => {
                    let _ = writeln!(
                        out,
                        "  {name}  after {}, until {} after the start",
                        duration(alert.starts),
                        duration(alert.ends)
                    );
                }
                None if self.held_back.contains(&severity) => {
                    let least = match severity {
                        Severity::Page => spec.page_min_bad_events,
                        Severity::Ticket => spec.ticket_min_bad_events,
                    };
                    let _ = writeln!(out, "  {name}  none: fewer than {least} bad requests");
                }
                None => {
                    let _ = writeln!(out, "  {name}  none: the budget burns too slowly");
                }
            }
        }
        let _ = writeln!(out, "  budget  {} spent", super::number::percent((self.spent * 1e6).round() / 1e6));
        out
    }
}

/// Minutes as people say them: `43m30s`, `6h`, `1d12h`.
pub fn duration(minutes: f64) -> String {
    let mut seconds = (minutes * 60.0).round() as u64;
    let mut out = String::new();
    for (name, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            let _ = write!(out, "{}{name}", seconds / length);
            seconds %= length;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    fn spec() -> Spec {
        let text = "[a]\nmatch = { namespace = \"n\", workload = \"w\" }\nsli = \"availability\"\nobjective = \"99.95%\"\n";
        toml::from_str::<Config>(text).expect("a config").specs().remove(0)
    }

    fn of(errors: f64, minutes: f64, per_minute: f64) -> Vec<(f64, f64)> {
        let outcome = simulate(&spec(), Fault { errors, minutes }, per_minute);
        outcome.alerts.iter().map(|alert| (alert.starts, alert.ends)).collect()
    }

    #[test]
    fn one_percent_for_two_hours_pages() {
        let fault = Fault { errors: 0.01, minutes: 120.0 };
        assert_eq!(
            simulate(&spec(), fault, 600.0).text(&spec(), fault, 600.0),
            "n/w/a: availability 99.95% over 30d\n  1% of 600 requests a minute are bad for 2h\n  \
             page    after 43m30s, until 21m after it is over\n  ticket  none: the budget burns too slowly\n  \
             budget  5.5556% spent\n"
        );
    }

    #[test]
    fn a_short_outage_clears_within_half_an_hour() {
        assert_eq!(of(1.0, 10.0, 600.0), [(0.5, 40.0), (2.5, 370.0)]);
    }

    #[test]
    fn few_bad_requests_call_nobody() {
        let fault = Fault { errors: 1.0, minutes: 3.0 };
        let outcome = simulate(&spec(), fault, 0.5);
        assert_eq!(
            (outcome.alerts.len(), outcome.held_back.as_slice()),
            (0, &[Severity::Page, Severity::Ticket][..])
        );
        assert!(outcome.text(&spec(), fault, 0.5).contains("page    none: fewer than 5 bad requests"));
        assert_eq!(of(0.0004, 1440.0, 600.0), [], "within the objective");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(43.5), "43m30s");
        assert_eq!(duration(2160.0), "1d12h");
        assert_eq!(duration(0.0), "0s");
    }
}
