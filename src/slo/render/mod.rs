//! Files made of objectives: rules for Prometheus and Loki, their unit tests, Alertmanager's part, runbooks.
//!
//! In: [`Spec`]s and [`Defaults`]. Out: [`files`], paths and texts in a fixed order. Invariant: the same declarations give
//! the same bytes; every constant stands in its shortest decimal form.

mod alertmanager;
mod evidence;
mod loki;
mod promql;
mod promtool;
mod rules;
mod runbooks;
mod yaml;

use super::config::{Defaults, Severities};
use super::spec::{Mode, Spec};

pub use rules::{Group, Kind, Rule};

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

/// A rendered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path below the directory that was asked for.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Renders `parts`, or all of them where it is empty.
pub fn files(specs: &[Spec], defaults: &Defaults, parts: &[Part]) -> Vec<File> {
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let mut found = Vec::new();
    let mut add = |path: &str, text: String| found.push(File { path: path.to_owned(), text });
    let groups = rules::groups(specs, defaults);
    if wanted(Part::Rules) {
        add("prometheus-rules.yaml", rules::file(&groups));
    }
    if wanted(Part::PrometheusRule) {
        add("prometheusrule.yaml", rules::custom_resource(&groups));
    }
    if wanted(Part::Loki) {
        add("loki-rules.yaml", loki::file(specs, defaults));
    }
    if wanted(Part::Tests) {
        add("tests/prometheus-rules.test.yaml", promtool::file(specs, "../prometheus-rules.yaml"));
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

/// Severities by the names that the site uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Page,
    Ticket,
    Info,
}

impl Urgency {
    const fn name(self, names: Severities) -> &'static str {
        match (self, names) {
            (Self::Page, Severities::Page) => "page",
            (Self::Ticket, Severities::Page) => "ticket",
            (Self::Page, Severities::Critical) => "critical",
            (Self::Ticket, Severities::Critical) => "warning",
            (Self::Info, _) => "info",
        }
    }
}

/// Those that call somebody.
fn alerting(specs: &[Spec]) -> impl Iterator<Item = &Spec> {
    specs.iter().filter(|spec| spec.mode == Mode::Alert)
}
