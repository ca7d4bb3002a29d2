//! Alerts about the agent itself and about what workloads write: rules, their unit tests, runbooks and the reference, of one
//! table.
//!
//! ```text
//! agent, logs, delivery, workloads: ALERTS ─┬─► rules ─► nodewick.yaml, workloads.yaml, the PrometheusRule
//!                                           ├─► promtool ─► tests/*.test.yaml
//! lines: ALERTS ─► loki.yaml ───────────────┴─► pages ─► a runbook each, docs/reference/alerts.md
//! ```
//!
//! In: the tables, and what a site calls severities and where its runbooks are. Out: text, byte for byte the same each time.
//! Invariants: pure; an alert reads metrics of the agent's own tables, or such as its page names; each has a case in which it
//! fires and one in which it does not, with expectations that a person can check.

mod agent;
mod delivery;
mod lines;
mod logs;
mod pages;
mod promtool;
mod rules;
mod workloads;

use crate::slo::config::Defaults;
use crate::slo::render::{File, Urgency};

pub use pages::reference;

/// First line of every rendered file.
const HEADER: &str = "# Rendered by `nodewick alerts render`; change the code, not this file.\n";

/// What can be rendered alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Rule files for Prometheus, Mimir, VictoriaMetrics.
    Rules,
    /// The same as a `PrometheusRule` of the Prometheus operator.
    #[value(name = "prometheusrule")]
    PrometheusRule,
    /// Rule file for Loki's ruler.
    Loki,
    /// Unit tests of the rules for promtool.
    Tests,
    /// A page for each alert.
    Runbooks,
}

/// What an alert is about: which labels it has, and which dashboard shows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// The agent of one node.
    Node,
    /// All agents of a cluster.
    Cluster,
    /// A workload's log.
    Log,
    /// A workload's targets.
    Targets,
}

/// One alert. Two rows of one name differ in urgency.
#[derive(Debug, Clone, Copy)]
struct Alert {
    name: &'static str,
    urgency: Urgency,
    about: Subject,
    /// PromQL.
    expr: &'static str,
    /// How long it must hold.
    hold: Option<&'static str>,
    /// One line, with Prometheus' templates.
    summary: &'static str,
    /// What is known when it fires.
    description: &'static str,
    cases: &'static [Case],
}

/// A unit test of one alert: samples a minute apart, and when it fires.
#[derive(Debug, Clone, Copy)]
struct Case {
    what: &'static str,
    /// Series and values in promtool's notation.
    input: &'static [(&'static str, &'static str)],
    /// At which time which alerts fire, by their labels without name and severity.
    expected: &'static [(&'static str, &'static [&'static str])],
}

/// A rule file and its groups.
type Table = (&'static str, &'static [(&'static str, &'static [Alert])]);

/// All alerts over metrics, by file and group.
const TABLES: &[Table] = &[
    ("nodewick", &[("agent", agent::ALERTS), ("logs", logs::ALERTS), ("delivery", delivery::ALERTS)]),
    ("workloads", &[("workloads", workloads::ALERTS)]),
];

/// Renders `parts`, or all of them where it is empty.
pub fn files(defaults: &Defaults, parts: &[Part]) -> Vec<File> {
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let mut found = Vec::new();
    let mut add = |path: String, text: String| found.push(File { path, text });
    for (name, groups) in TABLES {
        if wanted(Part::Rules) {
            add(format!("{name}.yaml"), rules::file(groups, defaults));
        }
        for (group, alerts) in groups.iter().filter(|_| wanted(Part::Tests)) {
            add(format!("tests/nodewick-{group}.test.yaml"), promtool::file(name, alerts, defaults));
        }
    }
    if wanted(Part::PrometheusRule) {
        add("nodewick-prometheusrule.yaml".to_owned(), rules::custom_resource(TABLES, defaults));
    }
    if wanted(Part::Loki) {
        add("loki.yaml".to_owned(), lines::file(defaults));
    }
    if wanted(Part::Runbooks) {
        for (alert, text) in pages::all() {
            add(format!("runbooks/{alert}.md"), text);
        }
    }
    found
}
