//! Multi-window, multi-burn-rate arithmetic: which share of errors alerts, when, and until when.
//!
//! In: an objective and its window. Out: factors, thresholds, and the times of detection and clearing at steady traffic.
//! Invariant: a tier fires while the share of bad events is above its threshold in both of its ranges.
//!
//! Source: Google SRE Workbook, "Alerting on SLOs", table 5-8: a page at 2 % of the budget in an hour or 5 % in six, a
//! ticket at 10 % in one day or three; the short range is a twelfth of the long one.

use std::fmt;

use super::number::tidy;
use super::objective::{Objective, Window};

/// A range of time as rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// Length in minutes.
    pub minutes: u32,
}

impl Range {
    /// Five minutes.
    pub const M5: Self = Self { minutes: 5 };
    /// Thirty minutes.
    pub const M30: Self = Self { minutes: 30 };
    /// One hour.
    pub const H1: Self = Self { minutes: 60 };
    /// Two hours.
    pub const H2: Self = Self { minutes: 120 };
    /// Six hours.
    pub const H6: Self = Self { minutes: 360 };
    /// One day.
    pub const D1: Self = Self { minutes: 1_440 };
    /// Three days.
    pub const D3: Self = Self { minutes: 4_320 };
    /// Those that are counted directly; longer ones are sums of five minutes.
    pub const DIRECT: [Self; 5] = [Self::M5, Self::M30, Self::H1, Self::H2, Self::H6];

    /// Five-minute slices in it.
    pub const fn slices(self) -> u32 {
        self.minutes / 5
    }
}

impl From<Window> for Range {
    fn from(window: Window) -> Self {
        Self { minutes: window.minutes() }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minutes {
            m if m.is_multiple_of(1_440) => write!(f, "{}d", m / 1_440),
            m if m.is_multiple_of(60) => write!(f, "{}h", m / 60),
            m => write!(f, "{m}m"),
        }
    }
}

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Somebody, now.
    Page,
    /// Somebody, on the next working day.
    Ticket,
}

/// One pair of ranges with the share of the budget that is too much for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Who is called.
    pub severity: Severity,
    /// Over it enough of the budget must have gone.
    pub long: Range,
    /// Over it the burning must go on; it makes the alert end soon.
    pub short: Range,
    /// Share of the budget in percent.
    pub share_percent: u32,
}

/// The tiers, fastest first.
pub const TIERS: [Tier; 4] = [
    Tier { severity: Severity::Page, long: Range::H1, short: Range::M5, share_percent: 2 },
    Tier { severity: Severity::Page, long: Range::H6, short: Range::M30, share_percent: 5 },
    Tier { severity: Severity::Ticket, long: Range::D1, short: Range::H2, share_percent: 10 },
    Tier { severity: Severity::Ticket, long: Range::D3, short: Range::H6, share_percent: 10 },
];

/// Minutes between two evaluations of the rules.
pub const EVALUATION_MINUTES: f64 = 0.5;

impl Tier {
    /// How many times faster than allowed the budget goes: share × window ÷ long range, with three decimals.
    pub fn factor(&self, window: Window) -> f64 {
        let exact = f64::from(self.share_percent) / 100.0 * f64::from(window.minutes())
            / f64::from(self.long.minutes);
        (exact * 1e3).round() / 1e3
    }

    /// Share of bad events above which the tier fires.
    pub fn threshold(&self, window: Window, objective: Objective) -> f64 {
        tidy(self.factor(window) * objective.budget())
    }

    /// Objectives at or below this can never make the tier fire: all requests failing is not enough.
    pub fn least_objective(&self, window: Window) -> f64 {
        1.0 - 1.0 / self.factor(window)
    }

    /// False when even a total outage stays at or below the threshold.
    pub fn is_reachable(&self, window: Window, objective: Objective) -> bool {
        self.threshold(window, objective) < 1.0
    }
}

/// Steady traffic of which a share is bad, with nothing bad before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Share of bad events, up to 1.
    pub errors: f64,
    /// How long it lasts.
    pub minutes: f64,
}

impl Fault {
    /// Share of bad events in the `range` that ends `at` minutes after the fault began.
    pub fn share(&self, range: Range, at: f64) -> f64 {
        let range = f64::from(range.minutes);
        let (from, to) = ((at - range).max(0.0), at.min(self.minutes));
        self.errors * (to - from).max(0.0) / range
    }

    /// True when the tier fires `at` minutes after the fault began.
    pub fn fires(&self, tier: &Tier, window: Window, objective: Objective, at: f64) -> bool {
        let threshold = tier.threshold(window, objective);
        self.share(tier.short, at) > threshold && self.share(tier.long, at) > threshold
    }

    /// Share of the whole window's budget that it spends.
    pub fn spends(&self, window: Window, objective: Objective) -> f64 {
        tidy(self.errors * self.minutes / (objective.budget() * f64::from(window.minutes())))
    }
}

/// Minutes from the start of a lasting fault to the first alert of a severity, on the grid of evaluations: threshold ×
/// long range ÷ errors. `None`: it never alerts.
pub fn detection_minutes(
    severity: Severity,
    window: Window,
    objective: Objective,
    errors: f64,
) -> Option<f64> {
    let tiers = TIERS.iter().filter(|tier| tier.severity == severity);
    let times = tiers.filter_map(|tier| {
        let threshold = tier.threshold(window, objective);
        (errors > threshold).then(|| tidy(threshold * f64::from(tier.long.minutes) / errors))
    });
    let first = times.reduce(f64::min)?;
    Some((first / EVALUATION_MINUTES).ceil() * EVALUATION_MINUTES)
}

/// Whole minutes from the end of a fault until no tier of a severity fires any more. `None`: none fired at its end.
pub fn clearing_minutes(
    severity: Severity,
    window: Window,
    objective: Objective,
    fault: Fault,
) -> Option<f64> {
    let tiers = TIERS.iter().filter(|tier| tier.severity == severity);
    let ends = tiers.filter_map(|tier| {
        let threshold = tier.threshold(window, objective);
        // While the range slides off the fault, what is left of it shrinks until it is no more than allowed.
        let end = |range: Range| {
            (fault.share(range, fault.minutes) > threshold)
                .then(|| f64::from(range.minutes) - threshold * f64::from(range.minutes) / fault.errors)
        };
        Some(end(tier.short)?.min(end(tier.long)?))
    });
    ends.reduce(f64::max).map(f64::floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objective(text: &str) -> Objective {
        text.parse().expect("an objective")
    }

    fn factors(window: Window) -> [f64; 4] {
        TIERS.map(|tier| tier.factor(window))
    }

    #[test]
    fn factors_are_those_of_the_workbook() {
        assert_eq!(factors(Window::D30), [14.4, 6.0, 3.0, 1.0]);
        assert_eq!(factors(Window::D28), [13.44, 5.6, 2.8, 0.933]);
        assert_eq!(factors(Window::D7), [3.36, 1.4, 0.7, 0.233]);
        assert_eq!(factors(Window::D90), [43.2, 18.0, 9.0, 3.0]);
        for tier in TIERS {
            assert_eq!(tier.long.minutes, tier.short.minutes * 12);
        }
    }

    #[test]
    fn thresholds_of_three_and_a_half_nines() {
        let thresholds = TIERS.map(|tier| tier.threshold(Window::D30, objective("99.95%")));
        assert_eq!(thresholds, [0.0072, 0.003, 0.0015, 0.0005]);
        let thresholds = TIERS.map(|tier| tier.threshold(Window::D28, objective("99.95%")));
        assert_eq!(thresholds, [0.00672, 0.0028, 0.0014, 0.0004665]);
    }

    #[test]
    fn a_tier_has_a_least_objective() {
        let least = TIERS.map(|tier| (tier.least_objective(Window::D30) * 1e4).round() / 1e2);
        assert_eq!(least, [93.06, 83.33, 66.67, 0.0]);
        assert!(!TIERS[0].is_reachable(Window::D30, objective("93.05%")));
        assert!(TIERS[0].is_reachable(Window::D30, objective("93.06%")));
        assert!(!TIERS[0].is_reachable(Window::D90, objective("97.6%")));
    }

    #[test]
    fn detection_is_as_measured() {
        let page = |errors| detection_minutes(Severity::Page, Window::D30, objective("99.95%"), errors);
        assert_eq!(page(1.0), Some(0.5));
        assert_eq!(page(0.1), Some(4.5));
        assert_eq!(page(0.01), Some(43.5));
        assert_eq!(page(0.004), Some(270.0));
        assert_eq!(page(0.003), None, "as much as the slow page allows");
        let ticket = |errors| detection_minutes(Severity::Ticket, Window::D30, objective("99.95%"), errors);
        assert_eq!(ticket(0.001), Some(2160.0), "a day and a half: 0.0005 of three days, at twice that");
        assert_eq!(ticket(0.0005), None, "within the objective");
    }

    #[test]
    fn a_ten_minute_outage_clears_as_measured() {
        let fault = Fault { errors: 1.0, minutes: 10.0 };
        let clears = |severity| clearing_minutes(severity, Window::D30, objective("99.95%"), fault);
        assert_eq!(clears(Severity::Page), Some(29.0));
        assert_eq!(clears(Severity::Ticket), Some(359.0));
        assert_eq!(fault.spends(Window::D30, objective("99.95%")), 0.462962962963, "10 of 21.6 minutes");
        let blip = Fault { errors: 0.0001, minutes: 10.0 };
        assert_eq!(clearing_minutes(Severity::Page, Window::D30, objective("99.95%"), blip), None);
    }
}
