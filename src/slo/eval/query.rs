//! The value of an expression at one time.
//!
//! In: an [`Expr`], the samples and what was recorded. Out: a [`Value`]. Invariant: labels match as they do in Prometheus: all
//! but the name must be equal, or those named by `on`; where there is nothing the result is nothing, never 0 and never NaN.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::promql::{Aggregate, Binary, Expr, Function, Op, Over, Ranged, Relabel};
use super::records::{Records, is_recorded, sum};
use super::store::{Labels, Store, label};

/// Samples at one time, without names.
pub(super) type Vector = Vec<(Labels, f64)>;

/// What an expression yields.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number.
    Scalar(f64),
    /// Samples.
    Vector(Vector),
}

impl Value {
    /// Its samples; a number has one without labels.
    pub(super) fn into_vector(self) -> Vector {
        match self {
            Self::Scalar(value) => vec![(Arc::from([]), value)],
            Self::Vector(vector) => vector,
        }
    }
}

/// What was computed already at one time: growth by selector and range.
pub(super) type Memo = RefCell<HashMap<(usize, i64), Arc<Vector>>>;

/// Where and when an expression is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Samples.
    pub store: &'a Store,
    /// What the rules of the objective recorded.
    pub records: &'a Records,
    /// What is known of `at_ms` already.
    pub memo: &'a Memo,
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
}

/// One step of a sum with what its rounding lost. Source: Prometheus 2.42, `kahanSumInc`, with Neumaier's improvement.
pub(super) fn kahan(value: f64, sum: f64, carried: f64) -> (f64, f64) {
    let total = sum + value;
    let lost = if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
    (total, carried + lost)
}

impl Scope<'_> {
    /// The value of `expr`.
    pub(super) fn eval(&self, expr: &Expr) -> Value {
        match expr {
            Expr::Number(number) => Value::Scalar(*number),
            Expr::Select(selector) if is_recorded(&selector.name) => {
                Value::Vector(self.records.newest(selector, self.at_ms))
            }
            Expr::Select(selector) => {
                let mut found = Vec::new();
                self.store.newest(selector, self.at_ms, |labels, value| found.push((labels.clone(), value)));
                Value::Vector(found)
            }
            Expr::Over(over, ranged) => Value::Vector(self.over(*over, ranged).as_ref().clone()),
            Expr::Call(function, arguments) => self.call(*function, arguments),
            Expr::Relabel(relabel) => {
                let vector = self.eval(&relabel.of).into_vector();
                Value::Vector(
                    vector.into_iter().map(|(labels, value)| (made(relabel, labels), value)).collect(),
                )
            }
            Expr::Aggregate(aggregate, by, inner) => {
                let found = match &**inner {
                    Expr::Over(over, ranged) => self.over(*over, ranged),
                    other => Arc::new(self.eval(other).into_vector()),
                };
                Value::Vector(gather(*aggregate, by, &found))
            }
            Expr::Binary(binary) => self.binary(binary),
        }
    }

    fn over(&self, over: Over, ranged: &Ranged) -> Arc<Vector> {
        let end_ms = self.at_ms - ranged.offset_ms;
        let (of, range_ms) = (&ranged.of, ranged.range_ms);
        if is_recorded(&of.name) {
            let found = match ranged.step_ms {
                Some(_) => self.records.steps(of, range_ms, end_ms, |values| fold(over, values)),
                None => self.records.range(of, range_ms, end_ms, |values| fold(over, values)),
            };
            return Arc::new(found);
        }
        let mut found = Vec::new();
        if over != Over::Increase {
            self.store.values(of, range_ms, end_ms, |labels, values| {
                found.extend(fold(over, &mut values.iter().copied()).map(|value| (labels.clone(), value)));
            });
            return Arc::new(found);
        }
        let key = (of.slot, range_ms);
        let may_keep = of.slot != usize::MAX && ranged.offset_ms == 0;
        if let Some(known) = self.memo.borrow().get(&key).filter(|_| may_keep) {
            return Arc::clone(known);
        }
        self.store.increase(of, range_ms, end_ms, |labels, value| found.push((labels.clone(), value)));
        let found = Arc::new(found);
        if may_keep {
            self.memo.borrow_mut().insert(key, Arc::clone(&found));
        }
        found
    }

    fn call(&self, function: Function, arguments: &[Expr]) -> Value {
        let number = |at: usize| match arguments.get(at).map(|argument| self.eval(argument)) {
            Some(Value::Scalar(number)) => number,
            Some(Value::Vector(vector)) if vector.len() == 1 => vector[0].1,
            _ => f64::NAN,
        };
        let each = |change: &dyn Fn(f64) -> f64| {
            let vector =
                arguments.first().map(|argument| self.eval(argument).into_vector()).unwrap_or_default();
            Value::Vector(vector.into_iter().map(|(labels, value)| (labels, change(value))).collect())
        };
        match function {
            Function::Vector => Value::Vector(vec![(Arc::from([]), number(0))]),
            Function::Scalar => Value::Scalar(number(0)),
            Function::Sqrt => each(&f64::sqrt),
            Function::Abs => each(&f64::abs),
            Function::ClampMin => {
                let least = number(1);
                each(&|value: f64| if value.is_nan() || least.is_nan() { f64::NAN } else { value.max(least) })
            }
            Function::ClampMax => {
                let most = number(1);
                each(&|value: f64| if value.is_nan() || most.is_nan() { f64::NAN } else { value.min(most) })
            }
        }
    }

    fn binary(&self, binary: &Binary) -> Value {
        let Binary { op, left, right, on, ignores } = binary;
        let (on, ignores) = (on.as_deref(), *ignores);
        let op = *op;
        let (left, right) = (self.eval(left), self.eval(right));
        if op.is_set() {
            let (left, right) = (left.into_vector(), right.into_vector());
            return Value::Vector(combine(op, left, right, (on, ignores)));
        }
        let keeps = |left: f64, right: f64, kept: f64| {
            if op.compares() {
                compare(op, left, right).then_some(kept)
            } else {
                Some(compute(op, left, right))
            }
        };
        match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) if op.compares() => {
                Value::Scalar(f64::from(u8::from(compare(op, left, right))))
            }
            (Value::Scalar(left), Value::Scalar(right)) => Value::Scalar(compute(op, left, right)),
            (Value::Vector(left), Value::Scalar(right)) => {
                let found = left
                    .into_iter()
                    .filter_map(|(labels, value)| Some((labels, keeps(value, right, value)?)));
                Value::Vector(found.collect())
            }
            (Value::Scalar(left), Value::Vector(right)) => {
                let found = right
                    .into_iter()
                    .filter_map(|(labels, value)| Some((labels, keeps(left, value, value)?)));
                Value::Vector(found.collect())
            }
            (Value::Vector(left), Value::Vector(right)) => {
                let found = left.into_iter().filter_map(|(labels, value)| {
                    let (_, other) =
                        right.iter().find(|(other, _)| match_on(&labels, other, (on, ignores)))?;
                    let value = keeps(value, *other, value)?;
                    let labels = match on {
                        Some(on) if !op.compares() && !ignores => kept(&labels, on),
                        _ => labels,
                    };
                    Some((labels, value))
                });
                Value::Vector(found.collect())
            }
        }
    }
}

/// Labels, one of them made of another; made empty, it goes.
fn made(relabel: &Relabel, labels: Labels) -> Labels {
    let Some(found) = relabel.pattern.captures(label(&labels, &relabel.source)) else { return labels };
    let mut value = String::new();
    found.expand(&relabel.replacement, &mut value);
    let mut all: Vec<_> = labels.iter().filter(|(name, _)| **name != *relabel.target).cloned().collect();
    if !value.is_empty() {
        all.push((relabel.target.as_str().into(), value.into()));
        all.sort();
    }
    all.into()
}

fn fold(over: Over, values: &mut dyn Iterator<Item = f64>) -> Option<f64> {
    match over {
        Over::Sum => sum(values),
        Over::Count => Some(values.count()).filter(|count| *count > 0).map(|count| count as f64),
        Over::Max => values.reduce(|a, b| if b > a || a.is_nan() { b } else { a }),
        Over::Min => values.reduce(|a, b| if b < a || a.is_nan() { b } else { a }),
        Over::Last => values.last(),
        Over::Present => values.next().map(|_| 1.0),
        // Of recorded values nobody asks it; they are no counters.
        Over::Increase => None,
    }
}

fn compute(op: Op, left: f64, right: f64) -> f64 {
    match op {
        Op::Add => left + right,
        Op::Subtract => left - right,
        Op::Multiply => left * right,
        Op::Divide => left / right,
        Op::Power => left.powf(right),
        _ => f64::NAN,
    }
}

fn compare(op: Op, left: f64, right: f64) -> bool {
    match op {
        Op::Equal => left == right,
        Op::NotEqual => left != right,
        Op::Greater => left > right,
        Op::Less => left < right,
        Op::GreaterEqual => left >= right,
        Op::LessEqual => left <= right,
        _ => false,
    }
}

fn match_on(left: &Labels, right: &Labels, (on, ignores): (Option<&[String]>, bool)) -> bool {
    match on {
        Some(names) if ignores => {
            let rest = |labels: &Labels| {
                let kept = labels.iter().filter(|(name, _)| !names.iter().any(|own| **own == **name));
                kept.cloned().collect::<Vec<_>>()
            };
            rest(left) == rest(right)
        }
        Some(on) => on.iter().all(|name| label(left, name) == label(right, name)),
        None => left == right,
    }
}

fn kept(labels: &Labels, names: &[String]) -> Labels {
    labels.iter().filter(|(own, _)| names.iter().any(|name| **name == **own)).cloned().collect()
}

fn combine(op: Op, left: Vector, right: Vector, on: (Option<&[String]>, bool)) -> Vector {
    match op {
        Op::And | Op::Unless => left
            .into_iter()
            .filter(|(labels, _)| {
                right.iter().any(|(other, _)| match_on(labels, other, on)) == (op == Op::And)
            })
            .collect(),
        _ => {
            let mut all = left;
            let own = all.len();
            for (labels, value) in right {
                if !all[..own].iter().any(|(other, _)| match_on(&labels, other, on)) {
                    all.push((labels, value));
                }
            }
            all
        }
    }
}

fn gather(aggregate: Aggregate, by: &[String], found: &Vector) -> Vector {
    if let Aggregate::Top(most) = aggregate {
        // Of equal ones the first by name, so that it is always the same.
        let mut sorted: Vector = found.iter().filter(|(_, value)| !value.is_nan()).cloned().collect();
        sorted.sort_by(|(a_labels, a), (b_labels, b)| b.total_cmp(a).then_with(|| a_labels.cmp(b_labels)));
        sorted.truncate(most);
        return sorted;
    }
    let mut groups: Vec<(Labels, f64, u32)> = Vec::new();
    let mut by_values: HashMap<Vec<&str>, usize> = HashMap::new();
    for (labels, value) in found {
        let key: Vec<&str> = by.iter().map(|name| label(labels, name)).collect();
        let at = *by_values.entry(key).or_insert_with(|| {
            let start = match aggregate {
                Aggregate::Sum | Aggregate::Avg => 0.0,
                Aggregate::Count => 1.0,
                _ => f64::NAN,
            };
            groups.push((kept(labels, by), start, 0));
            groups.len() - 1
        });
        let (_, total, count) = &mut groups[at];
        *count += 1;
        match aggregate {
            Aggregate::Sum | Aggregate::Avg => *total += value,
            Aggregate::Count => *total = f64::from(*count),
            Aggregate::Max if total.is_nan() || value > total => *total = *value,
            Aggregate::Min if total.is_nan() || value < total => *total = *value,
            _ => {}
        }
    }
    let mean = aggregate == Aggregate::Avg;
    groups
        .into_iter()
        .map(|(labels, total, count)| (labels, if mean { total / f64::from(count) } else { total }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::promql::{Need, parse};
    use super::*;

    /// Two pods that grow 60 a minute, the second with errors of 6 a minute on one route.
    fn store() -> Store {
        let mut store = Store::default();
        let Ok(Expr::Select(mut selector)) = parse("r{namespace=\"n\"}") else { panic!("a selector") };
        store.follow(&mut selector, Need::Samples { reach_ms: 3_600_000 });
        for half in 0..=20_i64 {
            let take = |store: &mut Store, pod: &str, class: &str, value: i64| {
                let labels = [("class", class), ("namespace", "n"), ("pod", pod), ("route", "/a")];
                store.take("r", &labels, half * 30_000, value as f64);
            };
            take(&mut store, "p", "2xx", half * 30);
            take(&mut store, "q", "2xx", half * 27);
            take(&mut store, "q", "5xx", half * 3);
        }
        store
    }

    fn ask(text: &str) -> Value {
        let (store, records, memo) = (store(), Records::default(), Memo::default());
        let scope = Scope { store: &store, records: &records, memo: &memo, at_ms: 600_000 };
        scope.eval(&parse(text).expect(text))
    }

    fn one(text: &str) -> Option<f64> {
        let found = ask(text).into_vector();
        assert!(found.len() < 2, "{text}: {found:?}");
        found.first().map(|(_, value)| *value)
    }

    #[test]
    fn sums_are_of_the_growth_of_each_series() {
        assert_eq!(one("sum by (namespace) (increase(r{namespace=\"n\"}[5m]))"), Some(600.0));
        assert_eq!(one("sum by (namespace) (increase(r{class=\"5xx\"}[5m]))"), Some(30.0));
        assert_eq!(one("sum by (namespace) (increase(r{class=\"4xx\"}[5m]))"), None);
        let by_pod = ask("sum by (pod) (increase(r[5m]))").into_vector();
        assert_eq!(
            by_pod.iter().map(|(labels, value)| (label(labels, "pod"), *value)).collect::<Vec<_>>(),
            [("p", 300.0), ("q", 300.0)]
        );
        assert_eq!(one("count(r)"), Some(3.0));
        assert_eq!(one("max by (namespace) (r)"), Some(600.0));
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(one("sum by (a) (increase(x[5m])) / (sum by (a) (increase(x[5m])) > 0)"), None);
        assert_eq!(one("vector(0) / (vector(0) > 0)"), None);
        assert_eq!(one("0 * sum(increase(r[5m]))"), Some(0.0));
        assert_eq!(one("sum(increase(x[5m])) or 0 * sum(increase(r[5m]))"), Some(0.0));
    }

    #[test]
    fn sets_and_comparisons_keep_the_left_side() {
        assert_eq!(one("vector(5) > 3 and vector(1)"), Some(5.0));
        assert_eq!(one("vector(5) > 5 or vector(1)"), Some(1.0));
        assert_eq!(one("vector(5) unless vector(1) > 0"), None);
        assert_eq!(one("vector(5) unless vector(1) > 1"), Some(5.0));
        assert_eq!(one("vector(5) unless on (namespace) sum by (namespace) (r)"), Some(5.0));
        assert_eq!(one("sum by (namespace) (r) unless on (namespace) max by (namespace) (r)"), None);
        assert_eq!(one("1 - vector(0.25) * 2 / 5"), Some(0.9));
        assert_eq!(one("clamp_max(vector(7) / 2, 1)"), Some(1.0));
        assert_eq!(one("clamp_min(vector(1) - 3, 0)"), Some(0.0));
        assert_eq!(one("-2 ^ 2 + sqrt(vector(9))"), Some(-1.0));
    }

    #[test]
    fn a_label_is_made_of_another() {
        let found = ask("label_replace(sum by (pod) (r), \"le\", \"x$1\", \"pod\", \"(p)\")").into_vector();
        let labels: Vec<_> =
            found.iter().map(|(labels, _)| (label(labels, "le"), label(labels, "pod"))).collect();
        assert_eq!(labels, [("xp", "p"), ("", "q")]);
        assert_eq!(
            one(
                "sum by (pod) (r{pod=\"p\"}) and on (pod, a) label_replace(sum by (pod) (r), \"a\", \"$1\", \"b\", \"(.*)\")"
            ),
            Some(600.0)
        );
        assert_eq!(
            one(
                "sum by (pod) (r{pod=\"p\"}) and on (pod, a) label_replace(sum by (pod) (r), \"a\", \"1\", \"b\", \"\")"
            ),
            None
        );
    }

    #[test]
    fn the_largest_come_first() {
        let found = ask("topk(1, sum by (class, pod) (increase(r[5m])) > 0)").into_vector();
        assert_eq!((label(&found[0].0, "pod"), found[0].1), ("p", 300.0));
        assert_eq!(one("topk(3, sum by (route) (increase(r{class=\"5xx\"}[5m])) > 0)"), Some(30.0));
    }
}
