//! One objective: its rendered rules, made to run.
//!
//! In: a [`Spec`] and the samples. Out: what its rules record, and its alerts. The rules are read from the text that is
//! rendered for Prometheus, so thresholds, gates and words are the same because they are the same.
//! Invariant: a rule that is not understood is left out and named, never run as something else.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use super::super::config::Defaults;
use super::super::render::{self, Kind};
use super::super::spec::Spec;
use super::alert::{Alerts, State};
use super::promql::{self, Expr};
use super::query::{Memo, Scope, Vector};
use super::records::{Records, is_recorded};
use super::store::{Labels, Store, label};
use super::template;

/// Stands in the queries of templates where a label of the alert will be.
const PLACEHOLDER: &str = "\u{1}";
/// Groups with this interval are run at every evaluation.
const PACE_MS: i64 = 30_000;

/// An objective with its rules and what they made.
#[derive(Debug)]
pub(super) struct Objective {
    pub(super) id: String,
    pub(super) spec: Spec,
    /// Of what is counted: other counts are not those of before.
    pub(super) fingerprint: u64,
    pub(super) records: Records,
    groups: Vec<Group>,
    /// Rules that are not understood.
    pub(super) problems: Vec<String>,
}

#[derive(Debug)]
struct Group {
    interval_ms: i64,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    expr: Expr,
    labels: Vec<(Arc<str>, Arc<str>)>,
    /// What they made of the labels of the last result.
    labelled: Option<(Labels, Labels)>,
    makes: Makes,
}

#[derive(Debug)]
enum Makes {
    Record(String),
    Alert(Box<Alerting>),
}

/// A rule that alerts.
#[derive(Debug)]
pub(super) struct Alerting {
    pub(super) name: &'static str,
    hold_ms: i64,
    annotations: Vec<(&'static str, String)>,
    /// Queries that its templates have asked, parsed.
    asked: RefCell<HashMap<String, Option<Expr>>>,
    pub(super) alerts: Alerts,
}

/// Queries of one alert that stay parsed.
const MOST_ASKED: usize = 64;

impl Objective {
    pub(super) fn new(spec: &Spec, defaults: &Defaults, compression: u32, store: &mut Store) -> Self {
        let mut own = Self {
            id: spec.id(),
            spec: spec.clone(),
            fingerprint: 0,
            records: Records::default(),
            groups: Vec::new(),
            problems: Vec::new(),
        };
        let mut counted = String::new();
        for group in render::groups(spec, defaults) {
            let interval_ms = promql::duration(group.interval).unwrap_or(30_000);
            let mut rules = Vec::new();
            for mut rule in group.rules {
                if compression > 1 {
                    warn_of(compression, &mut rule);
                }
                let name = match &rule.kind {
                    Kind::Record(name) => name.as_str(),
                    Kind::Alert { name, .. } => name,
                };
                if matches!(name, "slo:sli_events:increase5m" | "slo:sli_errors:increase5m") {
                    counted.push_str(&rule.expr);
                }
                match own.compile(&rule, store) {
                    Ok(rule) => rules.push(rule),
                    Err(problem) => {
                        own.problems.push(format!("the rule {name} is not understood: {problem}"))
                    }
                }
            }
            own.groups.push(Group { interval_ms, rules });
        }
        own.fingerprint = foldhash::quality::FixedState::with_seed(0).hash_one(&counted);
        own
    }

    fn compile(&mut self, rule: &render::Rule, store: &mut Store) -> Result<Rule, String> {
        let mut expr = promql::parse(&rule.expr)?;
        self.follow(&mut expr, store)?;
        let label = |(name, value): &(&'static str, String)| (Arc::from(*name), Arc::from(value.as_str()));
        let makes = match &rule.kind {
            Kind::Record(name) => Makes::Record(name.clone()),
            Kind::Alert { name, hold } => {
                for (_, text) in &rule.annotations {
                    for query in template::queries(text, PLACEHOLDER) {
                        let mut expr = promql::parse(&query)?;
                        without_placeholders(&mut expr);
                        self.follow(&mut expr, store)?;
                    }
                }
                Makes::Alert(Box::new(Alerting {
                    name,
                    hold_ms: hold.map_or(Some(0), promql::duration).ok_or("its hold is no duration")?,
                    annotations: rule.annotations.clone(),
                    asked: RefCell::default(),
                    alerts: Alerts::default(),
                }))
            }
        };
        Ok(Rule { expr, labels: rule.labels.iter().map(label).collect(), labelled: None, makes })
    }

    fn follow(&mut self, expr: &mut Expr, store: &mut Store) -> Result<(), String> {
        let mut result = Ok(());
        expr.selectors(&mut |selector, need| {
            if is_recorded(&selector.name) {
                let followed = self.records.follow(&selector.name, need);
                if result.is_ok() {
                    result = followed;
                }
            } else if matches!(need, promql::Need::Steps { .. }) {
                result = Err(format!("a subquery of {} is not kept", selector.name));
            } else {
                store.follow(selector, need);
            }
        });
        result
    }

    /// Runs the rules that are due at `at_ms`, where `last_ms` was the evaluation before. True when an alert changed.
    pub(super) fn evaluate(&mut self, store: &Store, memo: &Memo, at_ms: i64, last_ms: Option<i64>) -> bool {
        self.records.advance(at_ms);
        let mut changed = false;
        let Self { records, groups, .. } = self;
        for group in groups {
            let turn = |at: i64| at.div_euclid(group.interval_ms);
            // Groups of the rules' own pace follow the evaluator's; slower ones keep theirs.
            if group.interval_ms > PACE_MS && last_ms.is_some_and(|last| turn(last) == turn(at_ms)) {
                continue;
            }
            for rule in &mut group.rules {
                let scope = Scope { store, records, memo, at_ms };
                let found = scope.eval(&rule.expr).into_vector();
                let found: Vector =
                    found.into_iter().map(|(labels, value)| (rule.label(labels), value)).collect();
                match &mut rule.makes {
                    Makes::Record(name) => records.record(name, &found, at_ms, |_| true),
                    Makes::Alert(alerting) => {
                        let (fired, shown) = alerting.step(&scope, &found);
                        changed |= fired;
                        let name = alerting.name;
                        records.record("ALERTS", &shown, at_ms, |labels| label(labels, "alertname") == name);
                    }
                }
            }
        }
        changed
    }

    pub(super) fn alerting(&self) -> impl Iterator<Item = &Alerting> {
        self.groups.iter().flat_map(|group| &group.rules).filter_map(|rule| match &rule.makes {
            Makes::Alert(alerting) => Some(&**alerting),
            Makes::Record(_) => None,
        })
    }

    pub(super) fn alerting_mut(&mut self) -> impl Iterator<Item = &mut Alerting> {
        self.groups.iter_mut().flat_map(|group| &mut group.rules).filter_map(|rule| match &mut rule.makes {
            Makes::Alert(alerting) => Some(&mut **alerting),
            Makes::Record(_) => None,
        })
    }

    /// The newest value of one of its series, at `at_ms`.
    pub(super) fn value(&self, name: &str, at_ms: i64) -> Option<f64> {
        let selector = promql::Selector { name: name.to_owned(), matchers: Vec::new(), slot: usize::MAX };
        let (_, value) = self.records.newest(&selector, at_ms).into_iter().next()?;
        Some(value).filter(|value| value.is_finite())
    }

    pub(super) fn set_back(&mut self, now_ms: i64) {
        self.records.cut(now_ms);
        self.alerting_mut().for_each(|alerting| alerting.alerts.cut(now_ms));
    }
}

impl Rule {
    /// Labels of a result with the rule's own.
    fn label(&mut self, found: Labels) -> Labels {
        if self.labels.is_empty() {
            return found;
        }
        match &self.labelled {
            Some((from, made)) if *from == found => Arc::clone(made),
            _ => {
                let made = with(&found, &self.labels);
                self.labelled = Some((found, Arc::clone(&made)));
                made
            }
        }
    }
}

impl Alerting {
    /// Steps its alerts; whether one changed, and `ALERTS` of them.
    fn step(&mut self, scope: &Scope<'_>, found: &Vector) -> (bool, Vector) {
        let name = [(Arc::from("alertname"), Arc::from(self.name))];
        let found: Vector = found.iter().map(|(labels, value)| (with(labels, &name), *value)).collect();
        let asked = &self.asked;
        let query = |text: &str| {
            let mut asked = asked.borrow_mut();
            if asked.len() >= MOST_ASKED && !asked.contains_key(text) {
                asked.clear();
            }
            let expr = asked.entry(text.to_owned()).or_insert_with(|| promql::parse(text).ok());
            expr.as_ref().map(|expr| scope.eval(expr).into_vector()).unwrap_or_default()
        };
        let annotations = &self.annotations;
        let annotate = |labels: &Labels, value: f64| {
            let said = annotations.iter().map(|(name, text)| {
                let text = template::expand(text, labels, value, &query);
                (
                    (*name).to_owned(),
                    text.unwrap_or_else(|error| format!("<error expanding template: {error}>")),
                )
            });
            said.collect::<BTreeMap<_, _>>()
        };
        let changed = self.alerts.step(&found, scope.at_ms, self.hold_ms, annotate);
        let active = self.alerts.all.iter().filter(|(_, alert)| alert.state != State::Resolved);
        let shown = active.map(|(labels, alert)| {
            let state = [(Arc::from("alertstate"), Arc::from(alert.state.name()))];
            (with(labels, &state), 1.0)
        });
        (changed, shown.collect())
    }
}

/// Says in an alert that its time is no real one: who reads only the first words must not take it for real.
fn warn_of(compression: u32, rule: &mut render::Rule) {
    if let Some((_, summary)) = rule.annotations.iter_mut().find(|(name, _)| *name == "summary") {
        *summary = format!("[demonstration, time x{compression}] {summary}");
    }
    if let Kind::Alert { .. } = rule.kind {
        let said = format!(
            "The evaluator's time goes {compression} times faster than the clock: windows and spans in this alert are that much \
             shorter than they say. Nobody is to be called."
        );
        rule.annotations.push(("time_compression", said));
    }
}

/// Labels with further ones, which take the place of their namesakes.
fn with(labels: &Labels, further: &[(Arc<str>, Arc<str>)]) -> Labels {
    if further.is_empty() {
        return Arc::clone(labels);
    }
    let mut all: Vec<(Arc<str>, Arc<str>)> =
        labels.iter().filter(|(name, _)| !further.iter().any(|(own, _)| own == name)).cloned().collect();
    all.extend_from_slice(further);
    all.sort();
    all.into()
}

/// What a label of the alert will be is not known before: anything may stand there.
fn without_placeholders(expr: &mut Expr) {
    expr.selectors(&mut |selector, _| {
        selector
            .matchers
            .retain(|matcher| !matches!(&matcher.test, promql::Test::Text(_, text) if text == PLACEHOLDER));
    });
}
