//! What the rules of one objective recorded: the newest values, those of the last hour, and one every five minutes.
//!
//! In: the result of each rule with its time. Out: what later rules select of it. Invariants: a rule that yields nothing ends
//! its series at once; a value at a step is the newest one then, no older than Prometheus looks back; what is kept has a
//! length that the rules themselves give.

use std::collections::{BTreeMap, VecDeque};

use super::promql::{Need, Selector};
use super::query::{Vector, kahan};
use super::store::{LOOKBACK_MS, Labels, label};

/// Label sets of one name; a node has one cluster, so more than one is a change of it.
const MOST_SETS: usize = 16;
/// Values of the last hour that are kept at most: one a second for 66 minutes.
const MOST_RECENT: usize = 4_096;

/// True for names that rules make.
pub(super) fn is_recorded(name: &str) -> bool {
    name.contains(':') || name == "ALERTS"
}

/// Values at the steps of absolute time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Steps {
    pub(super) step_ms: i64,
    pub(super) most: usize,
    /// Number of the newest step: its time by `step_ms`.
    pub(super) newest: i64,
    /// Oldest first; NaN where there was none.
    pub(super) values: VecDeque<f64>,
}

impl Steps {
    fn push(&mut self, step: i64, value: Option<f64>) {
        let behind = step - self.newest;
        if self.values.is_empty() || behind > self.most as i64 {
            self.values.clear();
        } else {
            for _ in 1..behind {
                self.values.push_back(f64::NAN);
            }
        }
        self.values.push_back(value.unwrap_or(f64::NAN));
        while self.values.len() > self.most {
            self.values.pop_front();
        }
        self.newest = step;
    }

    /// Present values from step `from` on.
    fn since(&self, from: i64) -> impl Iterator<Item = f64> {
        let first = self.newest + 1 - self.values.len() as i64;
        let skipped = usize::try_from(from - first).unwrap_or(0);
        self.values.iter().skip(skipped).copied().filter(|value| !value.is_nan())
    }

    /// Forgets steps after `last`.
    fn cut(&mut self, last: i64) {
        while self.newest > last && self.values.pop_back().is_some() {
            self.newest -= 1;
        }
        if self.values.is_empty() {
            self.newest = self.newest.min(last);
        }
    }
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct One {
    pub(super) labels: Labels,
    pub(super) newest: Option<(i64, f64)>,
    pub(super) recent: VecDeque<(i64, f64)>,
    pub(super) steps: Option<Steps>,
}

/// What a name is needed for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reach {
    recent_ms: i64,
    /// Length of a step and how many.
    steps: Option<(i64, usize)>,
}

/// All series of one objective.
#[derive(Debug, Default)]
pub(super) struct Records {
    reaches: BTreeMap<String, Reach>,
    pub(super) series: BTreeMap<String, Vec<One>>,
}

impl Records {
    /// A rule selects `name` so.
    pub(super) fn follow(&mut self, name: &str, need: Need) -> Result<(), String> {
        let reach = self.reaches.entry(name.to_owned()).or_default();
        match need {
            Need::Newest => {}
            Need::Samples { reach_ms } => reach.recent_ms = reach.recent_ms.max(reach_ms),
            Need::Steps { reach_ms, step_ms } => {
                // A range that ends on a step holds one more.
                let most = usize::try_from(reach_ms / step_ms + 1).unwrap_or(1);
                reach.steps = match reach.steps {
                    Some((known, _)) if known != step_ms => {
                        return Err(format!("{name} is asked for at two different steps"));
                    }
                    Some((_, known)) => Some((step_ms, known.max(most))),
                    None => Some((step_ms, most)),
                };
            }
        }
        Ok(())
    }

    /// A series of `name` that begins now, kept as long as rules need it.
    pub(super) fn begin(&self, name: &str, labels: Labels) -> One {
        let reach = self.reaches.get(name).copied().unwrap_or_default();
        let steps =
            reach.steps.map(|(step_ms, most)| Steps { step_ms, most, newest: 0, values: VecDeque::new() });
        One { labels, newest: None, recent: VecDeque::new(), steps }
    }

    /// Takes note of what was true at the steps before `at_ms`. To be called before anything is recorded at `at_ms`.
    pub(super) fn advance(&mut self, at_ms: i64) {
        for (name, series) in &mut self.series {
            let recent_ms = self.reaches.get(name).map_or(0, |reach| reach.recent_ms);
            for one in &mut *series {
                while one.recent.front().is_some_and(|(at, _)| *at < at_ms - recent_ms) {
                    one.recent.pop_front();
                }
                let Some(steps) = &mut one.steps else { continue };
                let last = (at_ms - 1).div_euclid(steps.step_ms);
                let Some((since, value)) = one.newest else { continue };
                let from = if steps.values.is_empty() {
                    // The first step that it can speak of.
                    (since + steps.step_ms - 1).div_euclid(steps.step_ms)
                } else {
                    steps.newest + 1
                };
                // Nobody looks back further than five minutes.
                for step in from..=last.min((since + LOOKBACK_MS - 1).div_euclid(steps.step_ms)) {
                    if step * steps.step_ms >= since {
                        steps.push(step, Some(value));
                    }
                }
            }
            series.retain(|one| {
                let held = |steps: &Steps| {
                    at_ms.div_euclid(steps.step_ms) - steps.newest < steps.most as i64
                        && !steps.values.is_empty()
                };
                one.newest.is_some_and(|(at, _)| at_ms - at < LOOKBACK_MS)
                    || !one.recent.is_empty()
                    || one.steps.as_ref().is_some_and(held)
            });
        }
    }

    /// Takes what the rule of `name` yields at `at_ms`; `is_its` tells its series from those of other rules.
    pub(super) fn record(
        &mut self,
        name: &str,
        found: &Vector,
        at_ms: i64,
        is_its: impl Fn(&Labels) -> bool,
    ) {
        let keeps = self.reaches.get(name).is_some_and(|reach| reach.recent_ms > 0);
        if !self.series.contains_key(name) {
            self.series.insert(name.to_owned(), Vec::new());
        }
        let begun: Vec<One> = {
            let known = self.series.get(name).map(Vec::as_slice).unwrap_or_default();
            let room = MOST_SETS.saturating_sub(known.len());
            let is_new = |labels: &Labels| !known.iter().any(|one| one.labels == *labels);
            let new = found.iter().filter(|(labels, _)| is_new(labels)).take(room);
            new.map(|(labels, _)| self.begin(name, labels.clone())).collect()
        };
        let Some(series) = self.series.get_mut(name) else { return };
        for one in series.iter_mut().filter(|one| is_its(&one.labels)) {
            one.newest = None;
        }
        series.extend(begun);
        for (labels, value) in found {
            let Some(one) = series.iter_mut().find(|one| one.labels == *labels) else { continue };
            one.newest = Some((at_ms, *value));
            if keeps {
                one.recent.push_back((at_ms, *value));
                if one.recent.len() > MOST_RECENT {
                    one.recent.pop_front();
                }
            }
        }
    }

    fn found<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a One> {
        let all = self.series.get(&selector.name).map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|one| selector.matchers.iter().all(|m| m.is_met(label(&one.labels, &m.label))))
    }

    /// The newest values.
    pub(super) fn newest(&self, selector: &Selector, at_ms: i64) -> Vector {
        let fresh = |one: &One| one.newest.filter(|(at, _)| *at <= at_ms && at_ms - at < LOOKBACK_MS);
        self.found(selector).filter_map(|one| Some((one.labels.clone(), fresh(one)?.1))).collect()
    }

    /// What `fold` makes of the values of a range that ends at `end_ms`.
    pub(super) fn range(
        &self,
        selector: &Selector,
        range_ms: i64,
        end_ms: i64,
        fold: impl Fn(&mut dyn Iterator<Item = f64>) -> Option<f64>,
    ) -> Vector {
        let inside = |at: i64| at >= end_ms - range_ms && at <= end_ms;
        let of =
            |one: &One| fold(&mut one.recent.iter().filter(|(at, _)| inside(*at)).map(|(_, value)| *value));
        self.found(selector).filter_map(|one| Some((one.labels.clone(), of(one)?))).collect()
    }

    /// What `fold` makes of the values at the steps of a range that ends at `end_ms`.
    pub(super) fn steps(
        &self,
        selector: &Selector,
        range_ms: i64,
        end_ms: i64,
        fold: impl Fn(&mut dyn Iterator<Item = f64>) -> Option<f64>,
    ) -> Vector {
        let of = |one: &One| {
            let steps = one.steps.as_ref()?;
            let from = (end_ms - range_ms + steps.step_ms - 1).div_euclid(steps.step_ms);
            let last = end_ms.div_euclid(steps.step_ms);
            // The step that is just now is not among them yet.
            let at = last * steps.step_ms;
            let newest = one.newest.filter(|(since, _)| {
                (steps.values.is_empty() || steps.newest < last) && *since <= at && at - since < LOOKBACK_MS
            });
            fold(&mut steps.since(from).chain(newest.map(|(_, value)| value)))
        };
        self.found(selector).filter_map(|one| Some((one.labels.clone(), of(one)?))).collect()
    }

    /// Forgets what lies after `now_ms`: the clock was set back.
    pub(super) fn cut(&mut self, now_ms: i64) {
        for one in self.series.values_mut().flatten() {
            one.newest = one.newest.filter(|(at, _)| *at <= now_ms);
            one.recent.retain(|(at, _)| *at <= now_ms);
            if let Some(steps) = &mut one.steps {
                steps.cut(now_ms.div_euclid(steps.step_ms));
            }
        }
    }

    /// Moves the newest values of `name` to `at_ms`: nobody could tell their end while nothing ran.
    pub(super) fn renew(&mut self, name: &str, at_ms: i64) {
        for one in self.series.get_mut(name).map(Vec::as_mut_slice).unwrap_or_default() {
            one.newest = one.newest.map(|(_, value)| (at_ms, value));
        }
    }

    /// Every series with a value, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Labels, i64, f64)> {
        self.series.iter().flat_map(|(name, series)| {
            let newest = |one: &One| one.newest;
            series.iter().filter_map(move |one| {
                let (at, value) = newest(one)?;
                Some((name.as_str(), &one.labels, at, value))
            })
        })
    }

    /// Bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        let of = |one: &One| {
            let steps = one.steps.as_ref().map_or(0, |steps| 8 * steps.values.capacity());
            size_of::<One>() + 16 * one.recent.capacity() + steps
        };
        self.series.values().flatten().map(of).sum()
    }
}

/// The sum as Prometheus adds it up.
pub(super) fn sum(values: &mut dyn Iterator<Item = f64>) -> Option<f64> {
    let (mut total, mut carried, mut any) = (0.0, 0.0, false);
    for value in values {
        (total, carried) = kahan(value, total, carried);
        any = true;
    }
    any.then(|| if total.is_infinite() { total } else { total + carried })
}

#[cfg(test)]
mod tests {
    use super::super::promql::{Expr, parse};
    use super::super::store::labels;
    use super::*;

    const M: i64 = 60_000;

    fn selector() -> Selector {
        let Ok(Expr::Select(selector)) = parse("a:b{slo_id=\"x\"}") else { panic!("a selector") };
        selector
    }

    fn records() -> Records {
        let mut records = Records::default();
        records.follow("a:b", Need::Steps { reach_ms: 60 * M, step_ms: 5 * M }).expect("one step");
        records.follow("a:b", Need::Samples { reach_ms: 65 * M }).expect("samples");
        records
    }

    fn record(records: &mut Records, at_ms: i64, value: Option<f64>) {
        let found: Vector = value.map(|value| (labels([("slo_id", "x")]), value)).into_iter().collect();
        records.advance(at_ms);
        records.record("a:b", &found, at_ms, |_| true);
    }

    fn summed(records: &Records, range: i64, at: i64) -> Option<f64> {
        records.steps(&selector(), range * M, at, sum).first().map(|(_, value)| *value)
    }

    #[test]
    fn steps_hold_what_was_newest_at_each_five_minutes() {
        let mut records = records();
        for half in 0..=40 {
            record(&mut records, half * M / 2, Some(half as f64));
        }
        // At 0, 5, 10, 15 and 20 minutes: 0 + 10 + 20 + 30 + 40, both ends in the range.
        assert_eq!(summed(&records, 20, 20 * M), Some(100.0));
        assert_eq!(summed(&records, 10, 20 * M), Some(90.0));
        record(&mut records, 20 * M + 30_000, Some(41.0));
        assert_eq!(summed(&records, 10, 20 * M + 30_000), Some(70.0), "15 and 20: the tenth minute is out");
    }

    #[test]
    fn a_gap_has_no_values_beyond_five_minutes() {
        let mut records = records();
        record(&mut records, 4 * M, Some(1.0));
        // Nothing ran until the 22nd minute: the 5th still knows, the 10th, 15th and 20th do not.
        record(&mut records, 22 * M, Some(2.0));
        record(&mut records, 26 * M, None);
        assert_eq!(summed(&records, 60, 26 * M), Some(3.0));
        let count = records.steps(&selector(), 60 * M, 26 * M, |values| Some(values.count() as f64));
        assert_eq!(count[0].1, 2.0);
        record(&mut records, 300 * M, Some(7.0));
        assert_eq!(summed(&records, 60, 300 * M), Some(7.0), "what is older than the range is gone");
    }

    #[test]
    fn a_rule_that_yields_nothing_ends_its_series_at_once() {
        let mut records = records();
        record(&mut records, M, Some(1.0));
        assert_eq!(records.newest(&selector(), M).len(), 1);
        assert_eq!(records.newest(&selector(), 5 * M + 59_999).len(), 1);
        assert_eq!(records.newest(&selector(), 6 * M).len(), 0);
        record(&mut records, M + 30_000, None);
        assert_eq!(records.newest(&selector(), M + 30_000).len(), 0);
        assert_eq!(summed(&records, 60, 5 * M), None);
        assert_eq!(records.range(&selector(), 60 * M, 2 * M, sum)[0].1, 1.0);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_the_future_away() {
        let mut records = records();
        for minute in 0..=30 {
            record(&mut records, minute * M, Some(1.0));
        }
        records.cut(12 * M);
        assert_eq!(summed(&records, 60, 12 * M), Some(3.0), "at 0, 5 and 10 minutes");
        assert!(records.newest(&selector(), 12 * M).is_empty());
    }
}
