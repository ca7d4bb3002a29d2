//! The tables' cases as unit tests, for `promtool test rules`.
//!
//! In: rows with their cases. Out: a file that evaluates the rule file beside it. Invariant: expectations stand here as they
//! stand in the table; nothing is worked out.

use std::fmt::Write as _;

use super::{Alert, HEADER};
use crate::data::yaml_text as yaml;
use crate::slo::config::Defaults;

pub(super) fn file(table: &str, alerts: &[Alert], defaults: &Defaults) -> String {
    let mut out = format!("{HEADER}rule_files:\n- ../{table}.yaml\nevaluation_interval: 1m\ntests:\n");
    for alert in alerts {
        let severity = alert.urgency.name(defaults.severities);
        for case in alert.cases {
            let name = format!("{} ({severity}): {}", alert.name, case.what);
            let _ = writeln!(out, "- name: {}\n  interval: 1m\n  input_series:", yaml::scalar(&name));
            for (series, values) in case.input {
                let (series, values) = (yaml::scalar(series), yaml::scalar(values));
                let _ = writeln!(out, "  - series: {series}\n    values: {values}");
            }
            out.push_str("  promql_expr_test:\n");
            let own = format!("alertname=\"{}\",alertstate=\"firing\",severity=\"{severity}\"", alert.name);
            for (at, fires) in case.expected {
                let expr = yaml::scalar(&format!("ALERTS{{{own}}}"));
                let _ = writeln!(out, "  - expr: {expr}\n    eval_time: {at}");
                if fires.is_empty() {
                    out.push_str("    exp_samples: []\n");
                    continue;
                }
                out.push_str("    exp_samples:\n");
                for labels in *fires {
                    let comma = if labels.is_empty() { "" } else { "," };
                    let labels = yaml::scalar(&format!("ALERTS{{{own}{comma}{labels}}}"));
                    let _ = writeln!(out, "    - labels: {labels}\n      value: 1");
                }
            }
        }
    }
    out
}
