//! Sloth: `version: prometheus/v1`, and the `PrometheusServiceLevel` of its operator. They differ in how keys are spelt.
//!
//! In: a document. Out: an objective for each of its `slos`. Sloth's files do not name the window: it is an argument of the
//! program, 30d when it is not given.

use super::promql::Expr;
use super::query::{Numerator, measure, measure_ratio};
use super::{Document, Draft, Honoured, Reader, Reason, need, need_text, only, owner, parsed, percentage};
use crate::data::yaml::Node;
use crate::slo::spec::Mode;

/// Names of keys in one of the two forms.
struct Keys {
    origin: &'static str,
    error_query: &'static str,
    total_query: &'static str,
    error_ratio_query: &'static str,
    page_alert: &'static str,
    ticket_alert: &'static str,
    plugins: &'static str,
}

const PLAIN: Keys = Keys {
    origin: "Sloth prometheus/v1",
    error_query: "error_query",
    total_query: "total_query",
    error_ratio_query: "error_ratio_query",
    page_alert: "page_alert",
    ticket_alert: "ticket_alert",
    plugins: "slo_plugins",
};

const RESOURCE: Keys = Keys {
    origin: "Sloth PrometheusServiceLevel",
    error_query: "errorQuery",
    total_query: "totalQuery",
    error_ratio_query: "errorRatioQuery",
    page_alert: "pageAlert",
    ticket_alert: "ticketAlert",
    plugins: "sloPlugins",
};

pub(super) fn plain(document: &Document, reader: &mut Reader<'_>) {
    let root = &document.root;
    if let Err(refusal) = only(root, &["version", "service", "labels", "slos", PLAIN.plugins]) {
        return reader.reject(document, "document", refusal);
    }
    group(document, root, &PLAIN, reader);
}

pub(super) fn resource(document: &Document, reader: &mut Reader<'_>) {
    let spec = match need(&document.root, "spec") {
        Ok(spec) => spec,
        Err(refusal) => return reader.reject(document, "document", refusal),
    };
    if let Err(refusal) = only(spec, &["service", "labels", "slos", RESOURCE.plugins]) {
        return reader.reject(document, "document", refusal);
    }
    group(document, spec, &RESOURCE, reader);
}

fn group(document: &Document, group: &Node, keys: &Keys, reader: &mut Reader<'_>) {
    let service = match need_text(group, "service") {
        Ok(service) => service,
        Err(refusal) => return reader.reject(document, "document", refusal),
    };
    let slos = group.get("slos").map(Node::items).unwrap_or_default();
    if slos.is_empty() {
        let refusal = Reason::new("it declares no objective", "add slos").at(group);
        return reader.reject(document, &format!("service {service:?}"), refusal);
    }
    for slo in slos {
        let what = format!("SLO {:?}", slo.text_at("name").unwrap_or("without a name"));
        match draft(group, slo, service, keys, reader) {
            Ok(draft) => reader.take(document, &what, draft),
            Err(refusal) => reader.reject(document, &what, refusal),
        }
    }
}

fn draft(group: &Node, slo: &Node, service: &str, keys: &Keys, reader: &Reader<'_>) -> Honoured<Draft> {
    let name = need_text(slo, "name")?;
    only(slo, &["name", "description", "objective", "plugins", "labels", "sli", "alerting"])?;
    if let Some(plugins) = group.get(keys.plugins).or_else(|| slo.get("plugins")) {
        let message = "plugins change the rules in ways that are not known here";
        return Err(Reason::new(message, "take the plugins away if the plain rules will do").at(plugins));
    }
    let objective_node = need(slo, "objective")?;
    let objective = percentage(objective_node)?;
    let sli = need(slo, "sli")?;
    only(sli, &["raw", "events", "plugin"])?;
    let measured = match (sli.get("events"), sli.get("raw"), sli.get("plugin")) {
        (Some(events), None, None) => {
            only(events, &[keys.error_query, keys.total_query])?;
            let (bad, all) = (need(events, keys.error_query)?, need(events, keys.total_query)?);
            let total = windowed(all)?;
            measure(Numerator::Bad, &windowed(bad)?, &total).map_err(|reason| reason.at(bad))?
        }
        (None, Some(raw), None) => {
            only(raw, &[keys.error_ratio_query])?;
            let query = need(raw, keys.error_ratio_query)?;
            measure_ratio(Numerator::Bad, &windowed(query)?).map_err(|reason| reason.at(query))?
        }
        (None, None, Some(plugin)) => {
            let message = "a plugin makes its query, which is not in the file";
            let help = "write the queries that the plugin makes as sli.events; `sloth generate` shows them";
            return Err(Reason::new(message, help).at(plugin));
        }
        _ => return Err(Reason::new("it needs one of events, raw and plugin", "keep one").at(sli)),
    };
    let mut notes = Vec::new();
    let (mode, runbook) = alerting(slo, keys, &mut notes)?;
    let owner = owner(&[group.get("labels"), slo.get("labels")], &mut notes);
    Ok(Draft {
        name: format!("{service}-{name}"),
        origin: format!("{}, service {service:?}, SLO {name:?}", keys.origin),
        at: slo.at,
        measured,
        objective,
        objective_at: objective_node.at,
        window: reader.options.window,
        mode,
        owner,
        runbook,
        notes,
    })
}

/// Sloth puts each window in place of `{{.window}}`; a fixed range would be the same in all of them.
fn windowed(node: &Node) -> Honoured<Expr> {
    let query = parsed(node)?;
    let is_window = |range: &Option<&str>| range.is_some_and(|range| range.replace(' ', "") == "{{.window}}");
    if !query.ranges().is_empty() && query.ranges().iter().all(is_window) {
        return Ok(query);
    }
    Err(Reason::new("a query without {{.window}} is the same over every range", "write [{{.window}}]")
        .at(node))
}

/// Whether it alerts, and its runbook.
fn alerting(slo: &Node, keys: &Keys, notes: &mut Vec<String>) -> Honoured<(Mode, String)> {
    let Some(alerting) = slo.get("alerting") else { return Ok((Mode::Alert, String::new())) };
    only(alerting, &["name", "labels", "annotations", keys.page_alert, keys.ticket_alert])?;
    let off = |key: &str| -> Honoured<bool> {
        let Some(alert) = alerting.get(key) else { return Ok(false) };
        only(alert, &["disable", "labels", "annotations"])?;
        Ok(alert.get("disable").is_some_and(Node::is_true))
    };
    let mode = match (off(keys.page_alert)?, off(keys.ticket_alert)?) {
        (false, false) => Mode::Alert,
        (true, true) => Mode::Observe,
        (page_off, _) => {
            let key = if page_off { keys.page_alert } else { keys.ticket_alert };
            let message =
                format!("{key} alone is disabled; an objective alerts with pages and tickets or not at all");
            let help = "enable both, or disable both, and let Alertmanager drop by the label severity";
            return Err(Reason::new(message, help).at(alerting.get(key).unwrap_or(alerting)));
        }
    };
    let mut runbook = String::new();
    for (key, node) in alerting.get("annotations").map(Node::entries).unwrap_or_default() {
        if runbook.is_empty() && (key == "runbook" || key == "runbook_url") {
            node.text().unwrap_or_default().clone_into(&mut runbook);
        }
    }
    let mut lost: Vec<&str> = Vec::new();
    for map in
        [Some(alerting), alerting.get(keys.page_alert), alerting.get(keys.ticket_alert)].into_iter().flatten()
    {
        lost.extend(["labels", "annotations"].into_iter().flat_map(|key| {
            map.get(key).map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.as_str())
        }));
    }
    lost.retain(|key| !["runbook", "runbook_url"].contains(key));
    lost.sort_unstable();
    lost.dedup();
    if mode == Mode::Alert && !lost.is_empty() {
        notes.push(format!(
            "labels and annotations that its alerts no longer have: {}; route alerts by severity, slo_id or owner",
            lost.join(", ")
        ));
    }
    Ok((mode, runbook))
}
