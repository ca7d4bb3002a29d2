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

use std::fmt::Write as _;

use super::super::burn::{Range, Severity, TIERS, Tier};
use super::super::config::Defaults;
use super::super::number::{percent, shortest};
use super::super::spec::{Mode, Sli, Spec};
use super::evidence;
use super::promql::{self, quoted};
use super::{HEADER, Urgency, yaml};

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

/// Requests in five minutes of the last hour from which silence is worth a page.
const TRAFFIC: u32 = 20;

/// The groups of one objective.
pub(super) fn groups(spec: &Spec, defaults: &Defaults) -> Vec<Group> {
    let of = Objective { spec, defaults, id: spec.id() };
    let mut found = vec![
        Group { name: format!("slo:{}:sli", of.id), interval: "30s", rules: of.counted() },
        Group { name: format!("slo:{}:long", of.id), interval: "2m", rules: of.long() },
    ];
    if spec.mode == Mode::Alert {
        found.push(Group { name: format!("slo:{}:alerts", of.id), interval: "30s", rules: of.alerts() });
    }
    found
}

/// What holds for all objectives together.
pub(super) fn common(defaults: &Defaults) -> Group {
    Group { name: "slo:rules".into(), interval: "1m", rules: vec![missing(defaults)] }
}

struct Objective<'a> {
    spec: &'a Spec,
    defaults: &'a Defaults,
    id: String,
}

impl Objective<'_> {
    fn record(&self, name: String, expr: String) -> Rule {
        Rule { kind: Kind::Record(name), expr, labels: Vec::new(), annotations: Vec::new() }
    }

    fn record_first(&self, name: String, expr: String) -> Rule {
        Rule { labels: vec![("slo_id", self.id.clone())], ..self.record(name, expr) }
    }

    /// One of this objective's own series.
    fn series(&self, name: &str) -> String {
        format!("{name}{{slo_id={}}}", quoted(&self.id))
    }

    fn window(&self) -> Range {
        self.spec.window.into()
    }

    fn counted(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for range in Range::DIRECT {
            rules.push(
                self.record_first(
                    format!("slo:sli_events:increase{range}"),
                    promql::events(self.spec, range),
                ),
            );
            rules.push(
                self.record_first(
                    format!("slo:sli_errors:increase{range}"),
                    promql::errors(self.spec, range),
                ),
            );
            rules.push(self.ratio(range));
        }
        rules.extend([Range::M5, Range::H1, Range::H6].map(|range| self.burn(range)));
        rules
    }

    /// Bad by all; no sample where there is nothing to divide by.
    fn ratio(&self, range: Range) -> Rule {
        let errors = self.series(&format!("slo:sli_errors:increase{range}"));
        let events = self.series(&format!("slo:sli_events:increase{range}"));
        self.record(format!("slo:sli_error:ratio_rate{range}"), format!("{errors} / ({events} > 0)"))
    }

    fn burn(&self, range: Range) -> Rule {
        let ratio = self.series(&format!("slo:sli_error:ratio_rate{range}"));
        let budget = shortest(self.spec.objective.budget());
        self.record(format!("slo:burn_rate:ratio_rate{range}"), format!("{ratio} / {budget}"))
    }

    fn long(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut ranges = vec![Range::D1, Range::D3];
        if !ranges.contains(&self.window()) {
            ranges.push(self.window());
        }
        for range in ranges {
            for what in ["events", "errors"] {
                let five = self.series(&format!("slo:sli_{what}:increase5m"));
                let expr = format!("sum_over_time({five}[{range}:5m])");
                rules.push(self.record(format!("slo:sli_{what}:increase{range}"), expr));
            }
            rules.push(self.ratio(range));
            // A range that ends on a full five minutes holds one slice more.
            let seen = self.series("slo:sli_events:increase5m");
            let expr = format!("clamp_max(count_over_time({seen}[{range}:5m]) / {}, 1)", range.slices());
            rules.push(self.record(format!("slo:window_coverage:ratio{range}"), expr));
        }
        rules.push(self.burn(Range::D3));
        let window = self.window();
        let ratio = self.series(&format!("slo:sli_error:ratio_rate{window}"));
        let seen = self.series(&format!("slo:window_coverage:ratio{window}"));
        let budget = shortest(self.spec.objective.budget());
        let left = format!("1 - {ratio} * {seen} / {budget}");
        rules.push(self.record("slo:error_budget_remaining:ratio".into(), left));
        for (name, value) in [
            ("slo:objective:ratio", shortest(self.spec.objective.ratio())),
            ("slo:error_budget:ratio", budget),
            ("slo:time_period:days", self.spec.window.days().to_string()),
        ] {
            rules.push(self.record_first(name.into(), format!("vector({value})")));
        }
        rules.push(self.info());
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

    fn alerts(&self) -> Vec<Rule> {
        let spec = self.spec;
        let mut rules = vec![
            self.alert(
                "SLOErrorBudgetBurn",
                Urgency::Page,
                self.burning(Severity::Page, spec.page_min_bad_events),
                evidence::burn(spec, self.defaults, "SLOErrorBudgetBurn", Range::H1),
            ),
            self.alert(
                "SLOErrorBudgetBurnSlow",
                Urgency::Ticket,
                self.burning(Severity::Ticket, spec.ticket_min_bad_events),
                evidence::burn(spec, self.defaults, "SLOErrorBudgetBurnSlow", Range::H6),
            ),
            self.held(
                "5m",
                self.alert(
                    "SLOTrafficVanished",
                    Urgency::Page,
                    self.vanished(),
                    evidence::vanished(spec, self.defaults),
                ),
            ),
            self.held(
                "6h",
                self.alert(
                    "SLOLowTraffic",
                    Urgency::Info,
                    self.low_traffic(),
                    evidence::low_traffic(spec, self.defaults),
                ),
            ),
        ];
        if let Sli::Latency { threshold } = spec.sli {
            let bound = promql::bound(threshold);
            rules.push(self.held(
                "15m",
                Rule {
                    labels: [vec![("slo_id", self.id.clone())], self.alert_labels(Urgency::Ticket)].concat(),
                    ..self.alert(
                        "SLOBucketMismatch",
                        Urgency::Ticket,
                        promql::without_bound(spec, &bound),
                        evidence::bucket(spec, self.defaults, &bound),
                    )
                },
            ));
        }
        rules
    }

    fn alert_labels(&self, urgency: Urgency) -> Vec<(&'static str, String)> {
        let mut labels = vec![
            ("severity", urgency.name(self.defaults.severities).to_owned()),
            ("slo", self.spec.name.clone()),
        ];
        if !self.spec.owner.is_empty() {
            labels.push(("owner", self.spec.owner.clone()));
        }
        labels
    }

    fn alert(
        &self,
        name: &'static str,
        urgency: Urgency,
        expr: String,
        annotations: Vec<(&'static str, String)>,
    ) -> Rule {
        let labels = self.alert_labels(urgency);
        Rule { kind: Kind::Alert { name, hold: None }, expr, labels, annotations }
    }

    fn held(&self, hold: &'static str, rule: Rule) -> Rule {
        let Kind::Alert { name, .. } = rule.kind else { return rule };
        Rule { kind: Kind::Alert { name, hold: Some(hold) }, ..rule }
    }

    fn burning(&self, severity: Severity, least: u32) -> String {
        let tiers = TIERS.iter().filter(|tier| tier.severity == severity);
        tiers.map(|tier| self.tier(tier, least)).collect::<Vec<_>>().join("\nor\n")
    }

    fn tier(&self, tier: &Tier, least: u32) -> String {
        let threshold = shortest(tier.threshold(self.spec.window, self.spec.objective));
        let ratio = |range: Range| self.series(&format!("slo:sli_error:ratio_rate{range}"));
        let seen = match tier.long {
            Range::D1 | Range::D3 => {
                format!(" * {}", self.series(&format!("slo:window_coverage:ratio{}", tier.long)))
            }
            _ => String::new(),
        };
        format!(
            "(\n  {} > {threshold}\n  and {}{seen} > {threshold}\n  and {} >= {least}\n)",
            ratio(tier.short),
            ratio(tier.long),
            self.series(&format!("slo:sli_errors:increase{}", tier.long)),
        )
    }

    /// Traffic that was there within the hour and is gone. The second half keeps it firing when the hour is over; lines that
    /// are not yet read are no silence.
    fn vanished(&self) -> String {
        let events = self.series("slo:sli_events:increase5m");
        let by = promql::labels(self.spec);
        let firing = format!(
            "ALERTS{{alertname=\"SLOTrafficVanished\",alertstate=\"firing\",slo_id={}}}",
            quoted(&self.id)
        );
        let mut out = format!(
            "(\n  max_over_time({events}[1h] offset 5m) > {TRAFFIC}\n  or\n  max by ({by}, slo_id) ({firing})\n)\nunless\n({events} > 0)"
        );
        if let Some(workload) = &self.spec.selector.workload {
            let _ = write!(
                out,
                "\nunless on ({by})\n(max by ({by}) (red_source_lag_seconds{{namespace={},workload={},source=\"log\"}}) > 60)",
                quoted(&self.spec.selector.namespace),
                quoted(workload)
            );
        }
        out
    }

    /// Even if every request failed, the gate of the page would not be reached within its ranges.
    fn low_traffic(&self) -> String {
        let events = self.series("slo:sli_events:increase6h");
        format!("{events} > 0 and {events} < {}", self.spec.page_min_bad_events)
    }
}

/// An objective is counted by an agent and has no rules here.
fn missing(defaults: &Defaults) -> Rule {
    Rule {
        kind: Kind::Alert { name: "SLORuleMissing", hold: Some("15m") },
        expr: "count by (cluster, slo_id) (slo_events_total) unless on (slo_id) slo:info".into(),
        labels: vec![("severity", Urgency::Ticket.name(defaults.severities).to_owned())],
        annotations: vec![
            ("summary", "{{ $labels.slo_id }} is declared, and no rules for it are loaded".into()),
            (
                "description",
                "An agent counts this objective and nothing evaluates it. Render the rules from the same config and load them.".into(),
            ),
            ("runbook_url", evidence::runbook(defaults, "SLORuleMissing")),
        ],
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
