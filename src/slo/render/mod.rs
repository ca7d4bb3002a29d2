//! Files made of objectives: rules for Prometheus and Loki, their unit tests, Alertmanager's part, runbooks.
//!
//! In: [`Spec`]s and [`Defaults`]. Out: [`files`], paths and texts in a fixed order. Invariant: the same declarations give
//! the same bytes; every constant stands in its shortest decimal form.

mod alertmanager;
mod alerts;
mod common;
mod evidence;
mod generic;
mod loki;
mod promql;
mod promtool;
mod rules;
mod runbooks;
mod sloth;

use super::burn::Range;
use super::config::{Defaults, Severities};
use super::spec::{Mode, Spec};
use crate::data::yaml_text as yaml;

pub use crate::data::rendered::File;
pub use rules::{Group, Kind, Rule, text};

/// First line of every rendered file.
const HEADER: &str = "# Rendered by `nodewick slo render`; change the declarations, not this file.\n";

/// What can be rendered alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Rule file for Prometheus, Mimir, VictoriaMetrics.
    Rules,
    /// The same as a `PrometheusRule` of the Prometheus operator.
    PrometheusRule,
    /// Rule file for Loki's ruler.
    Loki,
    /// Unit tests of the rules for promtool.
    Tests,
    /// Routes and inhibition for Alertmanager, and a whole example.
    Alertmanager,
    /// A page for each alert.
    Runbooks,
}

impl Part {
    /// All parts with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Rules, "rules"),
        (Self::PrometheusRule, "prometheusrule"),
        (Self::Loki, "loki"),
        (Self::Tests, "tests"),
        (Self::Alertmanager, "alertmanager"),
        (Self::Runbooks, "runbooks"),
    ];
}

/// The queries of an objective's events and errors in five minutes, by time series as the rules record them: what is
/// recorded where it is, else what the rules would record.
pub fn five_minutes(spec: &Spec) -> [String; 2] {
    let by = promql::labels(spec);
    let id = promql::quoted(&spec.id());
    [
        ("events", promql::events(spec, Range::M5)),
        ("errors", promql::errors(spec, promql::Bound::Optimistic, Range::M5)),
    ]
    .map(|(what, raw)| format!("sum by ({by}) (slo:sli_{what}:increase5m{{slo_id={id}}})\nor\n(\n{raw}\n)"))
}

/// The requests that an objective is about, whatever the distance of their samples.
pub fn any_request(spec: &Spec, range: Range) -> String {
    format!("count(present_over_time(red_requests_total{{{}}}[{range}]))", promql::matchers(spec))
}

/// A matcher of the routes that have a say, with a comma before it; empty when all have.
pub fn route_matcher(exclude_routes: &[String]) -> String {
    if exclude_routes.is_empty() {
        return String::new();
    }
    let routes: Vec<String> = exclude_routes.iter().map(|route| promql::literal(route)).collect();
    format!(",route!~{}", promql::quoted(&routes.join("|")))
}

/// A text as a PromQL string.
pub fn quoted(text: &str) -> String {
    promql::quoted(text)
}

/// Renders `parts`, or all of them where it is empty.
pub fn files(specs: &[Spec], defaults: &Defaults, parts: &[Part]) -> Vec<File> {
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let mut found = Vec::new();
    let mut add = |path: &str, text: String| found.push(File { path: path.to_owned(), text });
    let groups: Vec<Vec<Group>> = specs.iter().map(|spec| rules::groups(spec, defaults)).collect();
    // A file an objective: its tests evaluate nothing else, and a diff shows what changed.
    if wanted(Part::Rules) {
        for (spec, groups) in specs.iter().zip(&groups) {
            add(&format!("rules/{}.yaml", slug(&spec.id())), rules::file(groups));
        }
        add("rules/generic.yaml", rules::file(&generic::groups(defaults)));
        add("rules/slo.yaml", rules::file(&[common::group(specs, defaults)]));
    }
    if wanted(Part::Tests) {
        for (spec, groups) in specs.iter().zip(&groups).filter(|(spec, _)| spec.mode == Mode::Alert) {
            let name = slug(&spec.id());
            let text = promtool::file(spec, defaults, groups, &format!("../rules/{name}.yaml"));
            add(&format!("tests/{name}.test.yaml"), text);
        }
    }
    if wanted(Part::PrometheusRule) {
        let mut all: Vec<Group> = groups.into_iter().flatten().collect();
        all.extend(generic::groups(defaults));
        all.push(common::group(specs, defaults));
        add("prometheusrule.yaml", rules::custom_resource(&all));
    }
    if wanted(Part::Loki) {
        add("loki-rules.yaml", loki::file(specs, defaults));
    }
    if wanted(Part::Alertmanager) {
        add("alertmanager-snippet.yaml", alertmanager::snippet(defaults));
        add("alertmanager-example.yaml", alertmanager::example(defaults));
    }
    if wanted(Part::Runbooks) {
        for (alert, text) in runbooks::pages() {
            add(&format!("runbooks/{alert}.md"), text);
        }
    }
    found
}

/// The rules of one objective, for who evaluates them here.
pub fn groups(spec: &Spec, defaults: &Defaults) -> Vec<Group> {
    rules::groups(spec, defaults)
}

/// How soon somebody must look, by the name that the site uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Now.
    Page,
    /// In working hours.
    Ticket,
    /// When there is time.
    Info,
}

impl Urgency {
    /// The value of the label `severity`.
    pub const fn name(self, names: Severities) -> &'static str {
        match (self, names) {
            (Self::Page, Severities::Page) => "page",
            (Self::Ticket, Severities::Page) => "ticket",
            (Self::Page, Severities::Critical) => "critical",
            (Self::Ticket, Severities::Critical) => "warning",
            (Self::Info, _) => "info",
        }
    }
}

/// A file name of an id; different ids have different names.
fn slug(id: &str) -> String {
    id.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'/' => out.push('.'),
            b'-' => out.push('-'),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("_{byte:02X}")),
        }
        out
    })
}

/// Those that call somebody.
fn alerting(specs: &[Spec]) -> impl Iterator<Item = &Spec> {
    specs.iter().filter(|spec| spec.mode == Mode::Alert)
}
