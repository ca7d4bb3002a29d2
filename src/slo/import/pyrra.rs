//! Pyrra's `ServiceLevelObjective` (pyrra.dev/v1alpha1): ratio, latency, latencyNative, bool_gauge.
//!
//! In: a document. Out: an objective. Its metrics are bare series without `rate`.

use super::promql::Expr;
use super::query::{Measured, Numerator, measure, measure_native};
use super::{
    Document, Draft, Honoured, Reader, Reason, duration, need, need_text, only, parsed, percentage, window,
};
use crate::data::yaml::Node;
use crate::slo::spec::Mode;

/// Labels of the resource that Pyrra passes on to its alerts begin with this.
const PASSED_ON: &str = "pyrra.dev/";

pub(super) fn read(document: &Document, reader: &mut Reader<'_>) {
    let name = document.root.get("metadata").and_then(|metadata| metadata.text_at("name"));
    let what = format!("ServiceLevelObjective {:?}", name.unwrap_or("without a name"));
    match draft(&document.root) {
        Ok(draft) => reader.take(document, &what, draft),
        Err(refusal) => reader.reject(document, &what, refusal),
    }
}

fn draft(root: &Node) -> Honoured<Draft> {
    let metadata = need(root, "metadata")?;
    let name = need_text(metadata, "name")?;
    let spec = need(root, "spec")?;
    only(
        spec,
        &[
            "description",
            "target",
            "window",
            "indicator",
            "alerting",
            "partial_response_strategy",
            "partialResponseStrategy",
            "performanceOverAccuracy",
            "performance_over_accuracy",
            "ruleOutput",
        ],
    )?;
    let target = need(spec, "target")?;
    let objective = percentage(target)?;
    let window = window(need(spec, "window")?)?;
    let measured = indicator(need(spec, "indicator")?)?;
    let mut notes = Vec::new();
    let mode = alerting(spec, &mut notes)?;
    if ["performanceOverAccuracy", "performance_over_accuracy"]
        .iter()
        .any(|key| spec.get(key).is_some_and(Node::is_true))
    {
        notes.push("its rules preferred speed to accuracy; these are accurate".to_owned());
    }
    let mut owner = String::new();
    for (key, node) in metadata.get("labels").map(Node::entries).unwrap_or_default() {
        let Some(label) = key.strip_prefix(PASSED_ON) else { continue };
        let value = node.text().unwrap_or_default();
        if label == "owner" || label == "team" && owner.is_empty() {
            value.clone_into(&mut owner);
        } else {
            notes.push(format!("a label that its alerts no longer have: {label}={value:?}"));
        }
    }
    let namespace = metadata.text_at("namespace").map(|of| format!("{of}/")).unwrap_or_default();
    Ok(Draft {
        name: name.to_owned(),
        origin: format!("Pyrra ServiceLevelObjective {namespace}{name}"),
        at: root.at,
        measured,
        objective,
        objective_at: target.at,
        window,
        mode,
        owner,
        runbook: String::new(),
        notes,
    })
}

fn indicator(node: &Node) -> Honoured<Measured> {
    only(node, &["ratio", "latency", "latencyNative", "bool_gauge"])?;
    let [(kind, inner)] = node.entries() else {
        return Err(Reason::new("it needs one of ratio, latency and latencyNative", "keep one").at(node));
    };
    let pair = |one: &str, good: Numerator| -> Honoured<Measured> {
        only(inner, &[one, "total", "grouping"])?;
        ungrouped(inner)?;
        let (part, total) = (metric(inner, one)?, metric(inner, "total")?);
        let all = bare(total)?;
        measure(good, &bare(part)?, &all).map_err(|reason| reason.at(part))
    };
    match kind.as_str() {
        "ratio" => pair("errors", Numerator::Bad),
        "latency" => pair("success", Numerator::Good),
        "latencyNative" => {
            only(inner, &["latency", "total", "grouping"])?;
            ungrouped(inner)?;
            let latency = need(inner, "latency")?;
            let Some(threshold) = latency.text().and_then(duration).filter(|latency| !latency.is_zero())
            else {
                let message = "the latency is no duration".to_owned();
                return Err(Reason::new(message, "write it like 200ms").at(latency));
            };
            let total = metric(inner, "total")?;
            measure_native(&bare(total)?, threshold).map_err(|reason| reason.at(total))
        }
        _ => {
            let message = "bool_gauge counts samples of a gauge, not requests";
            let help = "declare an objective on the requests that a failing probe stands for";
            Err(Reason::new(message, help).at(inner))
        }
    }
}

fn metric<'n>(inner: &'n Node, key: &str) -> Honoured<&'n Node> {
    let node = need(inner, key)?;
    only(node, &["metric"])?;
    need(node, "metric")
}

/// Pyrra writes `rate` itself.
fn bare(node: &Node) -> Honoured<Expr> {
    match parsed(node)? {
        Expr::Series(series) if series.range.is_none() => Ok(Expr::Series(series)),
        _ => {
            let help = "write the series alone, like http_requests_total{job=\"api\"}";
            Err(Reason::new("a metric of Pyrra is a series without rate()", help).at(node))
        }
    }
}

/// A grouping makes an objective for each value of a label.
fn ungrouped(inner: &Node) -> Honoured<()> {
    match inner.get("grouping") {
        Some(grouping) if !grouping.items().is_empty() => {
            let labels: Vec<&str> = grouping.items().iter().filter_map(Node::text).collect();
            let message = format!("grouping by {} makes one objective of many", labels.join(", "));
            let help = "declare one for each value, or take the grouping away if one for all will do";
            Err(Reason::new(message, help).at(grouping))
        }
        _ => Ok(()),
    }
}

fn alerting(spec: &Node, notes: &mut Vec<String>) -> Honoured<Mode> {
    let tiers =
        "its alerts had Pyrra's own tiers; here they are the SRE Workbook's (`nodewick slo simulate`)";
    let Some(alerting) = spec.get("alerting") else {
        notes.push(tiers.to_owned());
        return Ok(Mode::Alert);
    };
    only(alerting, &["disabled", "burnrates", "absent", "name", "absentName", "severities"])?;
    let off = alerting.get("disabled").is_some_and(Node::is_true)
        || alerting.get("burnrates").is_some_and(|node| !node.is_true());
    if off {
        if alerting.get("absent").is_some_and(Node::is_true) {
            let message = "an objective that alerts on absence alone cannot be said";
            let help = "set absent: false too, or let the burn rates alert";
            return Err(Reason::new(message, help).at(alerting));
        }
        if alerting.get("absent").is_none() {
            notes.push(
                "Pyrra still alerted when the metric was absent; an observed objective calls nobody"
                    .to_owned(),
            );
        }
        return Ok(Mode::Observe);
    }
    notes.push(tiers.to_owned());
    if alerting.get("absent").is_some_and(|node| !node.is_true()) {
        notes.push("it did not alert on absence; here SLOTrafficVanished does".to_owned());
    }
    let custom: Vec<&str> = ["name", "absentName", "severities"]
        .into_iter()
        .filter(|key| alerting.get(key).is_some_and(|node| node.text() != Some("")))
        .collect();
    if !custom.is_empty() {
        notes.push(format!("what its alerts no longer have of their own: {}", custom.join(", ")));
    }
    Ok(Mode::Alert)
}
