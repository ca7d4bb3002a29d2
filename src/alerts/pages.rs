//! A page for each alert, and the reference of all.
//!
//! In: the tables, and what a person should know of each alert. Out: Markdown. Invariant: every alert has a page, and every
//! page an alert; both are tested.

use std::fmt::Write as _;

use super::{Subject, TABLES, lines};
use crate::slo::config::Severities;
use crate::slo::render::Urgency;

/// One alert's page in parts, so that each is there.
struct Page {
    alert: &'static str,
    means: &'static str,
    see: &'static str,
    act: &'static str,
    false_alarm: &'static str,
}

mod agent;
mod workloads;

fn pages() -> impl Iterator<Item = &'static Page> {
    agent::PAGES.iter().chain(workloads::PAGES)
}

/// All pages: alert and text.
pub(super) fn all() -> impl Iterator<Item = (&'static str, String)> {
    pages().map(|page| {
        let mut out = format!(
            "<!-- Rendered by `nodewick alerts render`; change the code, not this file. -->\n# {}\n\n",
            page.alert
        );
        let severities: Vec<String> = rows(page.alert)
            .map(|row| {
                row.hold
                    .map_or_else(|| row.severity.to_owned(), |hold| format!("{} after {hold}", row.severity))
            })
            .collect();
        let _ = writeln!(out, "Severity: {}", severities.join(", "));
        for (title, text) in [
            ("What it means", page.means),
            ("How to see it", page.see),
            ("What to do", page.act),
            ("When it is a false alarm", page.false_alarm),
        ] {
            let _ = write!(out, "\n## {title}\n\n{text}\n");
        }
        for row in rows(page.alert) {
            let language = if row.is_logql { "logql" } else { "promql" };
            let _ =
                write!(out, "\n## The condition ({})\n\n```{language}\n{}\n```\n", row.severity, row.expr);
        }
        (page.alert, out)
    })
}

/// An alert as the reference lists it.
struct Row {
    name: &'static str,
    severity: &'static str,
    hold: Option<&'static str>,
    labels: &'static str,
    expr: String,
    is_logql: bool,
}

fn every_row() -> impl Iterator<Item = Row> {
    let of_metrics =
        TABLES.iter().flat_map(|(_, groups)| groups.iter()).flat_map(|(_, alerts)| alerts.iter());
    let of_metrics = of_metrics.map(|alert| Row {
        name: alert.name,
        severity: alert.urgency.name(Severities::Page),
        hold: alert.hold,
        labels: match alert.about {
            Subject::Node => "cluster, node",
            Subject::Cluster => "cluster",
            Subject::Log | Subject::Targets => "cluster, namespace, workload",
        },
        expr: alert.expr.to_owned(),
        is_logql: false,
    });
    let of_lines = lines::ALERTS.iter().map(|alert| Row {
        name: alert.name,
        severity: Urgency::Ticket.name(Severities::Page),
        hold: None,
        labels: "cluster, namespace, service_name, workload",
        expr: lines::query(alert),
        is_logql: true,
    });
    of_metrics.chain(of_lines)
}

fn rows(name: &str) -> impl Iterator<Item = Row> {
    every_row().filter(move |row| row.name == name)
}

const ABOUT: &str = "\
What `nodewick alerts render --out DIR` writes, and what stands in `alerts/`: alerts about the agent (`nodewick.yaml`), about
workloads (`workloads.yaml`), both as a `PrometheusRule`, alerts over the text of lines for Loki's ruler (`loki.yaml`), unit
tests for promtool and the runbooks. Alerts on objectives come from `nodewick slo render` ([how](../how-to/slo.md)); the example
objectives of `config/agent.toml` are rendered beside them.

`[slo.defaults] severities`, `runbook_url` and `grafana_url` hold for these alerts too.

What they need:

- Prometheus scrapes `/metrics` of every agent with the label `node`, and with `honor_labels: true`: figures about workloads have
  a `namespace` of their own. The chart's `podMonitor.enabled` does both. `cluster` is kept where it is there.
- `NodewickDownOnNode` needs kube-state-metrics (`kube_node_status_condition`, and `kube_node_info` where there are Windows nodes).
- `WorkloadScrapeFailing` reads `up` as the agent writes it, through remote write, OTLP or `/metrics/workloads`.
- `WorkloadSilent` reads its own `ALERTS`: rules must be evaluated where their results can be read.
- Prometheus 2.26 or newer, or what speaks its language (Mimir, Thanos, VictoriaMetrics).

Load them: `rule_files` of Prometheus, `prometheusRule.enabled` of the chart, or the kustomize component `components/alerts`.
Test them: `promtool test rules tests/*.test.yaml`.
";

/// `docs/reference/alerts.md`: a row an alert.
pub fn reference() -> String {
    let mut out = format!(
        "<!-- Rendered from the code by `make render`; change the code, not this file. -->\n# Alerts reference\n\n{ABOUT}\n\
         | alert | severity | for | labels | means |\n|---|---|---|---|---|\n"
    );
    for row in every_row() {
        let means = pages().find(|page| page.alert == row.name).map_or("", |page| page.means);
        let first = means.split_inclusive(". ").next().unwrap_or_default().trim_end();
        let _ = writeln!(
            out,
            "| [`{0}`](../runbooks/{0}.md) | {1} | {2} | {3} | {first} |",
            row.name,
            row.severity,
            row.hold.unwrap_or(""),
            row.labels
        );
    }
    out
}
