//! What would have happened: history replayed through the alerts of an objective.
//!
//! In: a [`Spec`], its events and errors in five minutes at each step of a [`History`]. Out: a [`Replay`] with the alerts
//! that would have come, and a [`Rung`] for each objective of a ladder. Invariant: the same windows, thresholds, gates and
//! weights as the rules; a time without samples is neither good nor bad.
//!
//! Ranges up to six hours are sums of five-minute increases at the step's own phase. Longer ones are read as the rules
//! record them: at full five minutes, every two minutes, times the share of the range that has samples. Between samples,
//! increases are estimates, so that an alert near its threshold may flicker: one that is back within five minutes is one.

use super::burn::{Range, Severity, TIERS, Tier};
use super::number::tidy;
use super::objective::Objective;
use super::spec::Spec;

/// Seconds of a slice.
const SLICE: i64 = 300;
/// Seconds between two evaluations of long ranges.
const LONG: i64 = 120;
/// An alert that comes back sooner is the same call: Alertmanager groups what it tells for as long.
const PAUSE: i64 = 300;
/// Objectives that are tried, loosest first.
pub const LADDER: [&str; 9] =
    ["95%", "98%", "99%", "99.5%", "99.9%", "99.95%", "99.99%", "99.995%", "99.999%"];
/// Share of the budget that what is recommended may have spent: the rest is for worse weeks to come.
pub(super) const MARGIN: f64 = 0.8;
/// Pages a month that people bear.
const BEARABLE_PAGES: f64 = 2.0;
/// Bad requests that a window's budget must allow, so that a single one says little.
pub(super) const LEAST_ALLOWED: f64 = 10.0;

/// Events and errors of the five minutes before each step; NaN where there is no sample.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Seconds since the epoch of the first value.
    pub start: i64,
    /// Seconds between two values; a divisor of 300.
    pub step: i64,
    /// All requests.
    pub events: Vec<f64>,
    /// The bad ones.
    pub errors: Vec<f64>,
}

/// A page or ticket that would have come.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Who is called.
    pub severity: Severity,
    /// The tier that fired first.
    pub tier: Tier,
    /// Seconds since the epoch.
    pub starts: i64,
    /// Seconds since the epoch; `None` when it goes on at the end of the history.
    pub ends: Option<i64>,
    /// Share of the budget that was gone when it started.
    pub spent: f64,
}

/// What a stretch of history means for an objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// In the order of their starts.
    pub alerts: Vec<Alert>,
    /// Requests.
    pub events: f64,
    /// Bad requests.
    pub errors: f64,
    /// Share of the stretch that has samples.
    pub covered: f64,
    /// Share of the window's budget that is gone at the end, of the whole stretch or of its last window.
    pub spent: f64,
    /// Minutes with a page, and with a ticket.
    pub minutes: [f64; 2],
    /// Days of the stretch.
    pub days: f64,
}

/// One objective of the ladder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// The objective.
    pub objective: Objective,
    /// Pages in thirty days.
    pub pages: f64,
    /// Tickets in thirty days.
    pub tickets: f64,
    /// How many times faster than allowed the budget went, over the whole stretch.
    pub burn: f64,
    /// Bad requests that it allows in a window of this traffic.
    pub allowed: f64,
}

/// Sums over everything before an index.
struct Sums {
    events: Vec<f64>,
    errors: Vec<f64>,
    seen: Vec<f64>,
}

impl Sums {
    /// `next` is the index whose sum an index continues.
    fn new(values: impl Iterator<Item = (f64, f64)>, stride: usize) -> Self {
        let mut sums = Self { events: Vec::new(), errors: Vec::new(), seen: Vec::new() };
        for (index, (events, errors)) in values.enumerate() {
            let before = |sums: &Vec<f64>| index.checked_sub(stride).map_or(0.0, |at| sums[at]);
            // Events of which nobody knows whether they were good are not seen.
            let is_seen = events.is_finite() && errors.is_finite();
            let (events, errors) =
                if is_seen { (events, errors.clamp(0.0, events.max(0.0))) } else { (0.0, 0.0) };
            let next = (
                before(&sums.events) + events,
                before(&sums.errors) + errors,
                before(&sums.seen) + f64::from(u8::from(is_seen)),
            );
            sums.events.push(next.0);
            sums.errors.push(next.1);
            sums.seen.push(next.2);
        }
        sums
    }

    /// Events, errors and slices seen of the indices that end at `to` and follow `before`.
    fn between(&self, before: Option<usize>, to: usize) -> [f64; 3] {
        [&self.events, &self.errors, &self.seen].map(|sums| {
            let end = sums.get(to).copied().unwrap_or_default();
            // Sums of doubles may be less than nothing by what they lost.
            (end - before.map_or(0.0, |at| sums[at])).max(0.0)
        })
    }
}

/// History with its sums.
pub struct Replayer<'a> {
    history: &'a History,
    /// At each step's own phase.
    own: Sums,
    /// At full five minutes.
    full: Sums,
    /// Time of the first full five minutes.
    first: i64,
    stride: usize,
}

impl<'a> Replayer<'a> {
    /// Prepares a history; `None` when its step is no divisor of five minutes.
    pub fn new(history: &'a History) -> Option<Self> {
        let step = history.step;
        if step <= 0 || SLICE % step != 0 || history.events.len() != history.errors.len() {
            return None;
        }
        let stride = usize::try_from(SLICE / step).ok()?;
        let pairs = || history.events.iter().copied().zip(history.errors.iter().copied());
        let first = (history.start + SLICE - 1).div_euclid(SLICE) * SLICE;
        let skip = usize::try_from((first - history.start) / step).ok()?;
        let aligned = (first - history.start) % step == 0;
        let full =
            Sums::new(pairs().skip(skip).step_by(stride).take(if aligned { usize::MAX } else { 0 }), 1);
        Some(Self { history, own: Sums::new(pairs(), stride), full, first, stride })
    }

    /// True when no time from `from` on has a sample with requests.
    pub fn is_empty(&self, from: i64) -> bool {
        let skip =
            usize::try_from((from - self.history.start).max(0) / self.history.step).unwrap_or(usize::MAX);
        let mut pairs = self.history.events.iter().zip(&self.history.errors).skip(skip);
        !pairs.any(|(events, errors)| *events > 0.0 && errors.is_finite())
    }

    /// Share of bad events and their number in a range that is counted directly.
    fn direct(&self, range: Range, at: usize) -> Option<(f64, f64)> {
        let back = self.stride * range.slices() as usize;
        let [events, errors, _] = self.own.between(at.checked_sub(back), at);
        // What is left of sums that lost digits is no request.
        (events > 1e-6).then(|| (errors / events, errors))
    }

    /// The same of a long range, times the share of it that has samples.
    fn long(&self, range: Range, time: i64) -> Option<(f64, f64)> {
        let now = time.div_euclid(LONG) * LONG;
        let [events, errors, seen] = self.slices(now - i64::from(range.minutes) * 60, now)?;
        let coverage = (seen / f64::from(range.slices())).min(1.0);
        (events > 1e-6).then(|| (errors / events * coverage, errors))
    }

    /// Sums of the full five minutes from `from` to `to`, both included.
    fn slices(&self, from: i64, to: i64) -> Option<[f64; 3]> {
        let last = usize::try_from((to - self.first).div_euclid(SLICE)).ok()?;
        let last = last.min(self.full.events.len().checked_sub(1)?);
        let first = usize::try_from((from - self.first + SLICE - 1).div_euclid(SLICE)).unwrap_or(0);
        if first > last {
            return None;
        }
        Some(self.full.between(first.checked_sub(1), last))
    }

    fn fires(&self, spec: &Spec, objective: Objective, tier: &Tier, at: usize, time: i64) -> bool {
        let threshold = tier.threshold(spec.window, objective);
        let least = match tier.severity {
            Severity::Page => spec.page_min_bad_events,
            Severity::Ticket => spec.ticket_min_bad_events,
        };
        let Some((short, _)) = self.direct(tier.short, at) else { return false };
        if short <= threshold {
            return false;
        }
        let long =
            if tier.long > Range::H6 { self.long(tier.long, time) } else { self.direct(tier.long, at) };
        // Half a thousandth for what doubles lose.
        long.is_some_and(|(long, bad)| long > threshold && bad + 5e-4 >= f64::from(least))
    }

    /// Share of a window's budget that is gone at `time` of what began at `from`.
    fn spent(&self, spec: &Spec, objective: Objective, from: i64, time: i64) -> f64 {
        let window = Range::from(spec.window);
        let begin = from.max(time - i64::from(window.minutes) * 60);
        // The slice that ends where the stretch begins is not of it.
        let Some([events, errors, seen]) = self.slices(begin + 1, time) else { return 0.0 };
        if events <= 1e-6 {
            return 0.0;
        }
        let coverage = (seen / f64::from(window.slices())).min(1.0);
        tidy(errors / events * coverage / objective.budget())
    }

    /// Replays what lies between two times, which the history should precede by three days.
    pub fn replay(&self, spec: &Spec, objective: Objective, from: i64, to: i64) -> Replay {
        let history = self.history;
        let index = |time: i64| usize::try_from((time - history.start).max(0) / history.step).unwrap_or(0);
        let begin = index(from);
        let end = (index(to) + 1).min(history.events.len());
        let mut alerts: Vec<Alert> = Vec::new();
        let mut minutes = [0.0; 2];
        for (which, severity) in [Severity::Page, Severity::Ticket].into_iter().enumerate() {
            let tiers: Vec<&Tier> = TIERS.iter().filter(|tier| tier.severity == severity).collect();
            let mut open: Option<Alert> = None;
            for at in begin..end {
                let time = history.start + history.step * i64::try_from(at).unwrap_or_default();
                let firing = tiers.iter().find(|tier| self.fires(spec, objective, tier, at, time));
                match (firing, &mut open) {
                    (Some(tier), None) => {
                        let spent = self.spent(spec, objective, from, time);
                        open = Some(Alert { severity, tier: **tier, starts: time, ends: None, spent });
                    }
                    // Back within the pause: the same call.
                    (Some(_), Some(alert)) => alert.ends = None,
                    (None, Some(alert)) => {
                        let ends = *alert.ends.get_or_insert(time);
                        if time - ends >= PAUSE {
                            alerts.extend(open.take());
                        }
                    }
                    (None, None) => {}
                }
                if firing.is_some() {
                    minutes[which] += history.step as f64 / 60.0;
                }
            }
            alerts.extend(open);
        }
        alerts.sort_by_key(|alert| alert.starts);
        let [events, errors, seen] = self.slices(from + 1, to).unwrap_or_default();
        let seconds = (to - from).max(1) as f64;
        Replay {
            alerts,
            events,
            errors,
            covered: (seen * SLICE as f64 / seconds).min(1.0),
            spent: self.spent(spec, objective, from, to),
            minutes,
            days: seconds / 86_400.0,
        }
    }

    /// The ladder, without objectives that a tier can never reach.
    pub fn ladder(&self, spec: &Spec, from: i64, to: i64) -> Vec<Rung> {
        let mut objectives: Vec<Objective> = LADDER.iter().filter_map(|text| text.parse().ok()).collect();
        objectives.push(spec.objective);
        objectives.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        objectives.dedup();
        let reachable =
            |objective: &Objective| TIERS.iter().all(|tier| tier.is_reachable(spec.window, *objective));
        objectives
            .into_iter()
            .filter(reachable)
            .map(|objective| {
                let replay = self.replay(spec, objective, from, to);
                let a_month = 30.0 / replay.days.max(1.0 / 24.0);
                let ratio = if replay.events > 0.0 { replay.errors / replay.events } else { 0.0 };
                Rung {
                    objective,
                    pages: replay.count(Severity::Page) as f64 * a_month,
                    tickets: replay.count(Severity::Ticket) as f64 * a_month,
                    burn: tidy(ratio / objective.budget()),
                    allowed: replay.events * objective.budget() * f64::from(spec.window.days()) / replay.days,
                }
            })
            .collect()
    }
}

impl Replay {
    /// Alerts of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.alerts.iter().filter(|alert| alert.severity == severity).count()
    }
}

/// The strictest objective that was kept with a fifth of its budget left, pages no more than people bear, and leaves more than a few bad requests.
pub fn recommended(ladder: &[Rung]) -> Option<&Rung> {
    ladder
        .iter()
        .rev()
        .find(|rung| rung.burn <= MARGIN && rung.pages <= BEARABLE_PAGES && rung.allowed >= LEAST_ALLOWED)
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    const DAY: i64 = 86_400;
    const START: i64 = 1_772_323_200; // 2026-03-01T00:00:00Z

    fn spec() -> Spec {
        let text = "[a]\nmatch = { namespace = \"n\", workload = \"w\" }\nsli = \"availability\"\nobjective = \"99.95%\"\n";
        toml::from_str::<Config>(text).expect("a config").specs().remove(0)
    }

    /// Steady traffic of `per_minute` over `days`, of which a share is bad between two times.
    fn steady(days: i64, per_minute: f64, faults: &[(i64, i64, f64)]) -> History {
        let step = 30;
        let bad_until = |time: i64| -> f64 {
            faults
                .iter()
                .map(|(from, to, share)| (time.clamp(*from, *to) - from) as f64 / 60.0 * per_minute * share)
                .sum()
        };
        let times = (0..=days * DAY / step).map(|index| START + index * step);
        let errors = times.clone().map(|time| bad_until(time) - bad_until(time - 300));
        History {
            start: START,
            step,
            events: times.map(|_| per_minute * 5.0).collect(),
            errors: errors.collect(),
        }
    }

    fn replay(history: &History, from: i64, to: i64) -> Replay {
        Replayer::new(history).expect("a history").replay(&spec(), spec().objective, from, to)
    }

    #[test]
    fn a_ten_minute_outage_pages_and_clears_as_simulated() {
        let fault = START + 5 * DAY;
        let history = steady(8, 600.0, &[(fault, fault + 600, 1.0)]);
        let found = replay(&history, START + 3 * DAY, START + 8 * DAY);
        let alerts: Vec<_> = found
            .alerts
            .iter()
            .map(|alert| (alert.severity, alert.starts - fault, alert.ends.map(|ends| ends - fault)))
            .collect();
        // The simulation says: pages after 30 s until 40 min, tickets after 2.5 min until 370 min. The page's first tier
        // that fires is 1h/5m: 0.72% of an hour is 26 s. Long ranges are seen at full five minutes only.
        assert_eq!(alerts[0], (Severity::Page, 30, Some(2_400)));
        assert_eq!((alerts[1].0, alerts.len()), (Severity::Ticket, 2));
        assert!((150..=480).contains(&alerts[1].1), "{alerts:?}");
        assert!((22_080..=22_320).contains(&alerts[1].2.expect("it ends")), "{alerts:?}");
        // Ten minutes of 21.6.
        assert_eq!((found.spent * 1e4).round() / 1e4, 0.463);
        assert_eq!((found.events, found.errors, found.covered), (4_320_000.0, 6_000.0, 1.0));
    }

    #[test]
    fn what_was_not_seen_is_neither_good_nor_bad() {
        let mut history = steady(8, 600.0, &[]);
        for value in &mut history.events[8_640..14_400] {
            *value = f64::NAN;
        }
        let found = replay(&history, START + 3 * DAY, START + 8 * DAY);
        assert_eq!((found.alerts.len(), (found.covered * 100.0).round()), (0, 60.0));
        let none = History { events: vec![f64::NAN; 100], errors: vec![f64::NAN; 100], ..history };
        assert!(Replayer::new(&none).expect("a history").is_empty(START));
    }

    #[test]
    fn few_bad_requests_call_nobody() {
        let fault = START + 5 * DAY;
        // Four bad requests of an hour at one a minute: 6.7%, and fewer than five.
        let history = steady(8, 1.0, &[(fault, fault + 240, 1.0)]);
        assert_eq!(replay(&history, START + 3 * DAY, START + 8 * DAY).count(Severity::Page), 0);
        let history = steady(8, 1.0, &[(fault, fault + 300, 1.0)]);
        assert_eq!(replay(&history, START + 3 * DAY, START + 8 * DAY).count(Severity::Page), 1);
    }

    #[test]
    fn the_ladder_counts_calls_a_month_and_recommends_what_was_kept() {
        let fault = START + 20 * DAY;
        let history = steady(33, 600.0, &[(fault, fault + 600, 1.0)]);
        let replayer = Replayer::new(&history).expect("a history");
        let ladder = replayer.ladder(&spec(), START + 3 * DAY, START + 33 * DAY);
        let shown: Vec<_> = ladder
            .iter()
            .map(|rung| {
                (rung.objective.to_string(), rung.pages, rung.tickets, (rung.burn * 1e3).round() / 1e3)
            })
            .collect();
        // Ten minutes of 43,200 are 0.0231%: 0.463 of 99.95%'s budget, 2.315 of 99.99%'s.
        assert_eq!(shown[0], ("95%".to_owned(), 0.0, 0.0, 0.005));
        assert_eq!(shown[5], ("99.95%".to_owned(), 1.0, 1.0, 0.463));
        assert_eq!(shown[6], ("99.99%".to_owned(), 1.0, 1.0, 2.315));
        assert_eq!(recommended(&ladder).map(|rung| rung.objective.to_string()), Some("99.95%".to_owned()));
        assert_eq!(recommended(&[]), None);
    }

    #[test]
    fn a_step_that_does_not_divide_five_minutes_is_no_history() {
        for step in [0, -30, 45, 7] {
            let history = History { start: 0, step, events: vec![1.0], errors: vec![0.0] };
            assert!(Replayer::new(&history).is_none(), "{step}");
        }
    }
}
