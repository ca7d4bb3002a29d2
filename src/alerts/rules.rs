//! The tables as Prometheus rules.
//!
//! In: rows. Out: rule files. Invariant: every alert has a severity, a summary, a description, its runbook and a dashboard
//! that is set to what it is about.

use super::{Alert, HEADER, Subject, Table};
use crate::data::yaml_text as yaml;
use crate::slo::config::Defaults;
use crate::slo::render::{Group, Kind, Rule, text};

/// Time between evaluations.
const INTERVAL: &str = "1m";

fn group(name: &str, alerts: &[Alert], defaults: &Defaults) -> Group {
    let rules = alerts.iter().map(|alert| rule(alert, defaults)).collect();
    Group { name: format!("nodewick:{name}"), interval: INTERVAL, rules }
}

fn rule(alert: &Alert, defaults: &Defaults) -> Rule {
    Rule {
        kind: Kind::Alert { name: alert.name, hold: alert.hold },
        expr: alert.expr.to_owned(),
        labels: vec![("severity", alert.urgency.name(defaults.severities).to_owned())],
        annotations: vec![
            ("summary", alert.summary.to_owned()),
            ("description", alert.description.to_owned()),
            ("dashboard_url", dashboard(alert.about, defaults)),
            ("runbook_url", runbook(alert.name, defaults)),
        ],
    }
}

/// Address of the dashboard that shows more.
pub(super) fn dashboard(about: Subject, defaults: &Defaults) -> String {
    let (uid, variables): (_, &[&str]) = match about {
        Subject::Node => ("nodewick-agent", &["cluster", "node"]),
        Subject::Cluster => ("nodewick-agent", &["cluster"]),
        Subject::Log => ("nodewick-logs", &["cluster", "namespace", "workload"]),
        Subject::Targets => ("nodewick-service", &["cluster", "namespace", "workload"]),
    };
    let set: Vec<String> =
        variables.iter().map(|name| format!("var-{name}={{{{ $labels.{name} | urlquery }}}}")).collect();
    format!("{}/d/{uid}?{}", defaults.grafana_url.trim_end_matches('/'), set.join("&"))
}

/// Address of the page about an alert.
pub(super) fn runbook(alert: &str, defaults: &Defaults) -> String {
    format!("{}/{alert}.md", defaults.runbook_url.trim_end_matches('/'))
}

/// A rule file of Prometheus.
pub(super) fn file(groups: &[(&str, &[Alert])], defaults: &Defaults) -> String {
    let groups: Vec<Group> = groups.iter().map(|(name, alerts)| group(name, alerts, defaults)).collect();
    format!("{HEADER}{}", text(&groups))
}

/// All tables as a resource of the Prometheus operator.
pub(super) fn custom_resource(tables: &[Table], defaults: &Defaults) -> String {
    let all = tables.iter().flat_map(|(_, groups)| groups.iter());
    let groups: Vec<Group> = all.map(|(name, alerts)| group(name, alerts, defaults)).collect();
    format!(
        "{HEADER}apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: nodewick-alerts\n  labels:\n    \
         app.kubernetes.io/name: nodewick\n    app.kubernetes.io/component: alerts\nspec:\n{}",
        yaml::indented(&text(&groups), 2)
    )
}
