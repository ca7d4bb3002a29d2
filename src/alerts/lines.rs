//! Alerts over the text of lines, for Loki's ruler: what only words can tell.
//!
//! In: the table. Out: a rule file. Invariant: Loki logs the queries that it runs, and a rule finds the text that it looks for
//! in that log too; so every query leaves out lines that have its own function's name in them, and the services that store
//! and show logs.

use std::fmt::Write as _;

use super::{HEADER, Subject, rules};
use crate::data::yaml_text as yaml;
use crate::slo::config::Defaults;
use crate::slo::render::Urgency;

/// An alert on words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub(super) name: &'static str,
    /// RE2, without the quotes.
    pattern: &'static str,
    pub(super) summary: &'static str,
    description: &'static str,
}

/// Time in which a line counts.
const RANGE: &str = "10m";
/// Function by which a query is known in Loki's own log.
const OWN: &str = "count_over_time";
/// Services whose logs hold other people's queries and lines.
const STORES: &str = ".*(loki|grafana|promtail|alloy|nodewick).*";

pub(super) const ALERTS: &[Words] = &[
    Words {
        name: "WorkloadHeapExhausted",
        pattern: "JavaScript heap out of memory|java\\\\.lang\\\\.OutOfMemoryError|fatal error: runtime: out of memory|MemoryError$",
        summary: "{{ $labels.namespace }}/{{ $labels.service_name }} ran out of heap",
        description: "Lines in ten minutes that say so: {{ $value }}. The runtime's own limit was reached, not the container's: the kernel kills \
                      without a word.",
    },
    Words {
        name: "WorkloadDiskFull",
        pattern: "(?i)no space left on device|ENOSPC",
        summary: "{{ $labels.namespace }}/{{ $labels.service_name }} cannot write: no space left",
        description: "Lines in ten minutes that say so: {{ $value }}. A volume, an emptyDir with a limit, or the node's disk is full.",
    },
    Words {
        name: "WorkloadCertificateExpired",
        pattern: "(?i)certificate has expired|CERT_HAS_EXPIRED|certificate expired",
        summary: "{{ $labels.namespace }}/{{ $labels.service_name }} meets a certificate that has expired",
        description: "Lines in ten minutes that say so: {{ $value }}. The line names the peer; its certificate must be renewed.",
    },
];

const ABOUT: &str = "\
# For Loki's ruler: what only the text of a line can tell. All else is in nodewick.yaml and workloads.yaml, for Prometheus.
# `service_name` is a stream label of nodewick's sinks.
";

pub(super) fn file(defaults: &Defaults) -> String {
    let mut out = format!("{HEADER}{ABOUT}groups:\n- name: nodewick:lines\n  interval: 1m\n  rules:\n");
    for alert in ALERTS {
        let _ = write!(
            out,
            "  - alert: {}\n    expr: {}\n    labels:\n      severity: {}\n      workload: {}\n    annotations:\n",
            alert.name,
            yaml::value(&query(alert), 6),
            Urgency::Ticket.name(defaults.severities),
            yaml::scalar("{{ $labels.service_name }}"),
        );
        for (name, text) in [
            ("summary", alert.summary.to_owned()),
            ("description", alert.description.to_owned()),
            (
                "dashboard_url",
                rules::dashboard(Subject::Log, defaults).replace("$labels.workload", "$labels.service_name"),
            ),
            ("runbook_url", rules::runbook(alert.name, defaults)),
        ] {
            let _ = writeln!(out, "      {name}: {}", yaml::scalar(&text));
        }
    }
    out
}

pub(super) fn query(alert: &Words) -> String {
    format!(
        "sum by (cluster, namespace, service_name) (\n  {OWN}({{namespace=~\".+\", service_name!~\"{STORES}\"}} != \"{OWN}\" |~ \"{}\" \
         [{RANGE}])\n) > 0",
        alert.pattern
    )
}
