//! Imported objectives as tables of `agent.toml`.
//!
//! In: [`Imported`]. Out: TOML. Invariant: the loader reads back the same [`Spec`]: window, mode and routes are written
//! out, so that `[slo.defaults]` changes none of them.

use std::fmt::Write as _;

use super::Imported;
use crate::slo::number::shortest;
use crate::slo::spec::{Sli, Spec};

pub(in crate::slo) fn toml(imported: &[Imported]) -> String {
    let mut out = String::from("# Imported by `nodewick slo import`.\n");
    if !imported.is_empty() {
        out.push_str(
            "# Alerts also need a few bad requests, not only a share of them: page_min_bad_events in [slo.defaults].\n",
        );
    }
    for one in imported {
        let _ = write!(out, "\n# from {}: {}\n", one.place, one.origin);
        for note in &one.notes {
            let _ = writeln!(out, "# note: {note}");
        }
        table(&mut out, &one.spec);
    }
    out
}

/// One `[slo.<name>]`.
pub(in crate::slo) fn table(out: &mut String, spec: &Spec) {
    let _ = writeln!(out, "[slo.{}]", spec.name);
    let selector = &spec.selector;
    let mut keys = vec![format!("namespace = {}", quoted(&selector.namespace))];
    for (key, value) in
        [("workload", &selector.workload), ("service", &selector.service), ("route", &selector.route)]
    {
        keys.extend(value.as_ref().map(|value| format!("{key} = {}", quoted(value))));
    }
    let _ = writeln!(out, "match = {{ {} }}", keys.join(", "));
    let _ = writeln!(out, "sli = \"{}\"", spec.sli.name());
    let _ = writeln!(out, "objective = \"{}\"", spec.objective);
    if let Sli::Latency { threshold } = spec.sli {
        let _ = writeln!(out, "threshold = \"{}\"", span(threshold));
    }
    let _ = writeln!(out, "window = \"{}\"", spec.window);
    let _ = writeln!(out, "mode = \"{}\"", spec.mode.name());
    let routes: Vec<String> = spec.exclude_routes.iter().map(|route| quoted(route)).collect();
    let _ = writeln!(out, "exclude_routes = [{}]", routes.join(", "));
    for (key, text) in [("owner", &spec.owner), ("runbook", &spec.runbook)] {
        if !text.is_empty() {
            let _ = writeln!(out, "{key} = {}", quoted(text));
        }
    }
}

/// A duration as the config has it, without rounding: `250ms`, `1s`, `0.5ms`.
pub(in crate::slo) fn span(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 1.0 && duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", shortest(seconds * 1e3))
    }
}

pub(in crate::slo) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
