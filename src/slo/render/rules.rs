//! Recording rules and alerts of objectives.
//!
//! In: specs. Out: [`Group`]s, and the two files that hold them. Three groups an objective: what is counted every 30 s, what
//! is summed over days every 2 m, and the alerts where its mode is `alert`. Join key of all of it is `slo_id`.
//!
//! What is not obvious, each with a regression test on promtool:
//! - Long ratios are sums of errors by sums of events, never averages of ratios, and no traffic is no sample, not NaN.
//! - Long ratios in alerts and the budget are multiplied by the share of the window that was seen: a young service has not
//!   spent what it had no time to spend.
//! - Alerts need a least number of bad events, since one error at one request a minute is hundreds of times too much.
//! - No series is not health: traffic that was there and is gone is an alert of its own, which keeps itself firing.
//! - A threshold between two buckets has two ratios: pages read the optimistic one, which is what every record without a word
//!   in its name is, tickets the pessimistic one.

use std::fmt::Write as _;

use super::super::burn::Range;
use super::super::config::Defaults;
use super::super::number::{percent, shortest};
use super::super::spec::{Mode, Sli, Spec};
use super::promql::{self, Bound, quoted};
use super::{HEADER, alerts, sloth, yaml};

/// Rules that are evaluated together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, unique in the file.
    pub name: String,
    /// Time between evaluations.
    pub interval: &'static str,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A recording rule or an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which, with its name.
    pub kind: Kind,
    /// PromQL, maybe of several lines.
    pub expr: String,
    /// Labels that are added.
    pub labels: Vec<(&'static str, String)>,
    /// What an alert says.
    pub annotations: Vec<(&'static str, String)>,
}

impl Rule {
    /// A recording rule.
    pub(super) fn record(name: String, expr: String, labels: Vec<(&'static str, String)>) -> Self {
        Self { kind: Kind::Record(name), expr, labels, annotations: Vec::new() }
    }

    /// An alert that fires at once.
    pub(super) fn alert(
        name: &'static str,
        expr: String,
        labels: Vec<(&'static str, String)>,
        annotations: Vec<(&'static str, String)>,
    ) -> Self {
        Self { kind: Kind::Alert { name, hold: None }, expr, labels, annotations }
    }

    /// The same once it has held for `hold`.
    pub(super) fn held(self, hold: &'static str) -> Self {
        match self.kind {
            Kind::Alert { name, .. } => Self { kind: Kind::Alert { name, hold: Some(hold) }, ..self },
            Kind::Record(_) => self,
        }
    }
}

/// What a rule makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A series.
    Record(String),
    /// An alert.
    Alert {
        /// Its name.
        name: &'static str,
        /// How long it must hold.
        hold: Option<&'static str>,
    },
}

/// Errors of these ranges are also counted pessimistically: what tickets look at.
const PESSIMISTIC: [Range; 3] = [Range::M5, Range::H2, Range::H6];

/// The groups of one objective.
pub(super) fn groups(spec: &Spec, defaults: &Defaults) -> Vec<Group> {
    let of = Objective { spec, defaults, id: spec.id() };
    let mut found = vec![
        Group { name: format!("slo:{}:sli", of.id), interval: "30s", rules: of.counted() },
        Group { name: format!("slo:{}:long", of.id), interval: "2m", rules: of.long() },
    ];
    if spec.mode == Mode::Alert {
        found.push(Group { name: format!("slo:{}:alerts", of.id), interval: "30s", rules: alerts::of(&of) });
    }
    found
}

/// One objective, and what its series are called.
pub(super) struct Objective<'a> {
    pub(super) spec: &'a Spec,
    pub(super) defaults: &'a Defaults,
    pub(super) id: String,
}

impl Objective<'_> {
    fn record(&self, name: String, expr: String) -> Rule {
        Rule::record(name, expr, Vec::new())
    }

    fn record_first(&self, name: String, expr: String) -> Rule {
        Rule::record(name, expr, vec![("slo_id", self.id.clone())])
    }

    /// One that Sloth's dashboards read too.
    fn record_for_sloth(&self, name: String, expr: String) -> Rule {
        Rule::record(name, expr, sloth::labels(self))
    }

    /// One of this objective's own series.
    pub(super) fn series(&self, name: &str) -> String {
        format!("{name}{{slo_id={}}}", quoted(&self.id))
    }

    /// Which labels two series must share, where one of them has Sloth's labels too.
    pub(super) fn on(&self) -> String {
        if self.defaults.sloth_labels {
            format!("on ({}, slo_id) ", promql::labels(self.spec))
        } else {
            String::new()
        }
    }

    fn window(&self) -> Range {
        self.spec.window.into()
    }

    /// True when its threshold may lie between two buckets.
    pub(super) fn may_be_bracketed(&self) -> bool {
        matches!(self.spec.sli, Sli::Latency { .. }) && self.spec.is_counted()
    }

    fn counted(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for range in Range::DIRECT {
            let errors = |bound| promql::errors(self.spec, bound, range);
            let name = |bound: Bound| format!("{}{range}", bound.errors());
            rules.push(
                self.record_first(
                    format!("slo:sli_events:increase{range}"),
                    promql::events(self.spec, range),
                ),
            );
            rules.push(self.record_first(name(Bound::Optimistic), errors(Bound::Optimistic)));
            if self.may_be_bracketed() && PESSIMISTIC.contains(&range) {
                rules.push(self.record_first(name(Bound::Pessimistic), errors(Bound::Pessimistic)));
                if range != Range::M5 {
                    rules.push(self.ratio(Bound::Pessimistic, range));
                }
            }
            rules.push(self.ratio(Bound::Optimistic, range));
        }
        rules.extend([Range::M5, Range::H1, Range::H6].map(|range| self.burn(range)));
        rules
    }

    /// Bad by all; no sample where there is nothing to divide by.
    fn ratio(&self, bound: Bound, range: Range) -> Rule {
        let errors = self.series(&format!("{}{range}", bound.errors()));
        let events = self.series(&format!("slo:sli_events:increase{range}"));
        self.record_for_sloth(format!("{}{range}", bound.ratio()), format!("{errors} / ({events} > 0)"))
    }

    fn burn(&self, range: Range) -> Rule {
        let ratio = self.series(&format!("slo:sli_error:ratio_rate{range}"));
        let budget = shortest(self.spec.objective.budget());
        self.record(format!("slo:burn_rate:ratio_rate{range}"), format!("{ratio} / {budget}"))
    }

    /// Sums of five minutes. By labels, so that what was recorded under others before is not lost.
    fn slices(&self, name: &str, range: Range) -> String {
        let five = self.series(&format!("{name}5m"));
        format!("sum by ({}, slo_id) (sum_over_time({five}[{range}:5m]))", promql::labels(self.spec))
    }

    fn long(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut ranges = vec![Range::D1, Range::D3];
        if !ranges.contains(&self.window()) {
            ranges.push(self.window());
        }
        for range in ranges {
            let mut names = vec!["slo:sli_events:increase", Bound::Optimistic.errors()];
            let is_bracketed = self.may_be_bracketed() && range <= Range::D3;
            if is_bracketed {
                names.push(Bound::Pessimistic.errors());
            }
            for name in names {
                rules.push(self.record(format!("{name}{range}"), self.slices(name, range)));
            }
            rules.push(self.ratio(Bound::Optimistic, range));
            if is_bracketed {
                rules.push(self.ratio(Bound::Pessimistic, range));
            }
            // A range that ends on a full five minutes holds one slice more.
            let seen = self.series("slo:sli_events:increase5m");
            let by = promql::labels(self.spec);
            let expr = format!(
                "clamp_max(sum by ({by}, slo_id) (count_over_time({seen}[{range}:5m])) / {}, 1)",
                range.slices()
            );
            rules.push(self.record(format!("slo:window_coverage:ratio{range}"), expr));
        }
        rules.push(self.burn(Range::D3));
        let window = self.window();
        let ratio = self.series(&format!("slo:sli_error:ratio_rate{window}"));
        let seen = self.series(&format!("slo:window_coverage:ratio{window}"));
        let budget = shortest(self.spec.objective.budget());
        let left = format!("1 - {ratio} * {}{seen} / {budget}", self.on());
        rules.push(self.record("slo:error_budget_remaining:ratio".into(), left));
        for (name, value) in [
            ("slo:objective:ratio", shortest(self.spec.objective.ratio())),
            ("slo:error_budget:ratio", budget),
            ("slo:time_period:days", self.spec.window.days().to_string()),
        ] {
            let rule = self.record_first(name.into(), format!("vector({value})"));
            rules.push(Rule { labels: [rule.labels, sloth::labels(self)].concat(), ..rule });
        }
        rules.push(self.info());
        rules.extend(sloth::records(self));
        rules
    }

    fn info(&self) -> Rule {
        let spec = self.spec;
        let mut labels = vec![
            ("slo_id", self.id.clone()),
            ("slo", spec.name.clone()),
            ("sli", spec.sli.name().to_owned()),
            ("namespace", spec.selector.namespace.clone()),
            (spec.selector.subject_label(), spec.selector.subject().to_owned()),
            ("objective", shortest(spec.objective.ratio())),
            ("window", spec.window.to_string()),
            ("mode", spec.mode.name().to_owned()),
        ];
        if let Sli::Latency { threshold } = spec.sli {
            labels.push(("threshold_seconds", promql::bound(threshold)));
        }
        if !spec.owner.is_empty() {
            labels.push(("owner", spec.owner.clone()));
        }
        Rule { labels, ..self.record("slo:info".into(), "vector(1)".into()) }
    }
}

/// A rule file of Prometheus.
pub(super) fn file(groups: &[Group]) -> String {
    format!("{HEADER}{}", text(groups))
}

/// The same as a resource of the Prometheus operator.
pub(super) fn custom_resource(groups: &[Group]) -> String {
    format!(
        "{HEADER}apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: nodewick-slo\n  labels:\n    \
         app.kubernetes.io/name: nodewick\n    app.kubernetes.io/component: slo-rules\nspec:\n{}",
        yaml::indented(&text(groups), 2)
    )
}

/// Groups as a rule file has them, from `groups:` on.
pub fn text(groups: &[Group]) -> String {
    if groups.is_empty() {
        return "groups: []\n".to_owned();
    }
    let mut out = String::from("groups:\n");
    for group in groups {
        let _ =
            write!(out, "- name: {}\n  interval: {}\n  rules:\n", yaml::scalar(&group.name), group.interval);
        for rule in &group.rules {
            write_rule(&mut out, rule);
        }
    }
    out
}

fn write_rule(out: &mut String, rule: &Rule) {
    match &rule.kind {
        Kind::Record(name) => {
            let _ = writeln!(out, "  - record: {name}");
        }
        Kind::Alert { name, .. } => {
            let _ = writeln!(out, "  - alert: {name}");
        }
    }
    let _ = writeln!(out, "    expr: {}", yaml::value(&rule.expr, 6));
    if let Kind::Alert { hold: Some(hold), .. } = rule.kind {
        let _ = writeln!(out, "    for: {hold}");
    }
    for (key, pairs) in [("labels", &rule.labels), ("annotations", &rule.annotations)] {
        if !pairs.is_empty() {
            let _ = writeln!(out, "    {key}:");
        }
        for (name, value) in pairs {
            let _ = writeln!(out, "      {name}: {}", yaml::scalar(value));
        }
    }
}

/// What an alert is about, for people: `availability SLO 99.95%`, `latency SLO 99% < 200ms`.
pub(super) fn title(spec: &Spec) -> String {
    match spec.sli {
        Sli::Availability => format!("availability SLO {}", spec.objective),
        Sli::Latency { threshold } => {
            let threshold = crate::data::units::Span(threshold);
            format!("latency SLO {} < {threshold}", percent(spec.objective.ratio()))
        }
    }
}
