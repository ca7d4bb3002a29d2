//! OpenSLO v1: an `SLO` with its indicator inside or referenced, and alert policies, inside or referenced.
//!
//! In: an SLO's document, and the [`Library`] of what others refer to. Out: an objective for each of its `objectives`.

use std::collections::BTreeMap;

use super::query::{Measured, Numerator, measure, measure_ratio};
use super::{
    Document, Draft, Honoured, Reader, Reason, Refusal, duration, need, need_text, number, objective, only,
    owner, parsed, percentage, window,
};
use crate::data::yaml::{Node, Value};
use crate::slo::burn::{Severity, TIERS};
use crate::slo::objective::{Objective, Window};
use crate::slo::spec::Mode;

/// What an SLO may refer to, by kind and name.
pub(super) struct Library<'a> {
    known: BTreeMap<(&'a str, &'a str), &'a Node>,
}

impl<'a> Library<'a> {
    pub(super) fn new(documents: &'a [Document], reader: &mut Reader<'_>) -> Self {
        let mut known = BTreeMap::new();
        for document in documents {
            let root = &document.root;
            let (Some("openslo/v1"), Some(kind)) = (root.text_at("apiVersion"), root.text_at("kind")) else {
                continue;
            };
            let name = root.get("metadata").and_then(|metadata| metadata.text_at("name"));
            if kind == "SLO" {
                continue;
            }
            let Some(name) = name else {
                let refusal = Reason::new("metadata.name is missing", "give it a name").at(root);
                reader.reject(document, kind, refusal);
                continue;
            };
            if known.insert((kind, name), root).is_some() {
                let refusal = Reason::new("it is declared twice", "keep one").at(root);
                reader.reject(document, &format!("{kind} {name:?}"), refusal);
            }
        }
        Self { known }
    }

    /// The `spec` of what a node refers to.
    fn spec(&self, kind: &str, reference: &Node) -> Honoured<&'a Node> {
        let name = reference.text().unwrap_or_default();
        let Some(found) = self.known.get(&(kind, name)) else {
            let message = format!("no {kind} is called {name:?}");
            let help = "give the file that declares it too: nodewick slo import a.yaml b.yaml";
            return Err(Reason::new(message, help).at(reference));
        };
        need(found, "spec")
    }
}

pub(super) fn read(document: &Document, library: &Library<'_>, reader: &mut Reader<'_>) {
    let name = document.root.get("metadata").and_then(|metadata| metadata.text_at("name"));
    let what = format!("SLO {:?}", name.unwrap_or("without a name"));
    match drafts(&document.root, library) {
        Ok(drafts) => drafts.into_iter().for_each(|draft| match draft {
            Ok(draft) => reader.take(document, &what, draft),
            Err(refusal) => reader.reject(document, &what, refusal),
        }),
        Err(refusal) => reader.reject(document, &what, refusal),
    }
}

fn drafts(root: &Node, library: &Library<'_>) -> Honoured<Vec<Honoured<Draft>>> {
    let metadata = need(root, "metadata")?;
    let name = need_text(metadata, "name")?;
    let spec = need(root, "spec")?;
    only(
        spec,
        &[
            "description",
            "service",
            "indicator",
            "indicatorRef",
            "timeWindow",
            "budgetingMethod",
            "objectives",
            "alertPolicies",
        ],
    )?;
    let objectives = need(spec, "objectives")?;
    let composite = |node: &&Node| {
        ["indicator", "indicatorRef", "compositeWeight"].iter().any(|key| node.get(key).is_some())
    };
    if let Some(node) = objectives.items().iter().find(composite) {
        let message = "a composite of several indicators cannot be honoured";
        return Err(Reason::new(message, "declare an objective for each indicator").at(node));
    }
    let method = need(spec, "budgetingMethod")?;
    if method.text() != Some("Occurrences") {
        let message = format!("budgetingMethod {:?} cannot be honoured", method.text().unwrap_or_default());
        let help = "requests are counted, not slices of time: write Occurrences if that is what you mean";
        return Err(Reason::new(message, help).at(method));
    }
    let window = rolling(need(spec, "timeWindow")?)?;
    let measured = indicator(spec, library)?;
    let mut notes = Vec::new();
    let mode = alerting(spec, window, library, &mut notes)?;
    let owner = owner(&[metadata.get("labels")], &mut notes);
    let service = spec.text_at("service").unwrap_or_default();
    let several = objectives.items().len() > 1;
    if objectives.items().is_empty() {
        return Err(Reason::new("it has no objective", "add one with its target").at(objectives));
    }
    let draft = |(index, node): (usize, &Node)| -> Honoured<Draft> {
        only(node, &["displayName", "target", "targetPercent"])
            .map_err(|refusal| of_threshold(node, refusal))?;
        let (objective, objective_at) = target(node)?;
        let own = node.text_at("displayName").map_or_else(|| (index + 1).to_string(), str::to_owned);
        Ok(Draft {
            name: if several { format!("{name}-{own}") } else { name.to_owned() },
            origin: format!("OpenSLO SLO {name:?}, service {service:?}"),
            at: if several { node.at } else { root.at },
            measured: measured.clone(),
            objective,
            objective_at,
            window,
            mode,
            owner: owner.clone(),
            runbook: String::new(),
            notes: notes.clone(),
        })
    };
    Ok(objectives.items().iter().enumerate().map(draft).collect())
}

/// Keys of threshold metrics and slices of time say more than that they are unknown.
fn of_threshold(node: &Node, other: Refusal) -> Refusal {
    for (key, message) in [
        ("op", "a threshold on a value cannot be honoured: requests are counted"),
        ("value", "a threshold on a value cannot be honoured: requests are counted"),
        ("timeSliceTarget", "slices of time cannot be honoured: requests are counted"),
        ("timeSliceWindow", "slices of time cannot be honoured: requests are counted"),
    ] {
        if let Some(found) = node.get(key) {
            return Reason::new(message, "write a ratioMetric of good and total requests").at(found);
        }
    }
    other
}

fn target(node: &Node) -> Honoured<(Objective, (usize, usize))> {
    match (node.get("target"), node.get("targetPercent")) {
        (Some(target), None) => Ok((objective(number(target)? * 100.0, target)?, target.at)),
        (None, Some(target)) => Ok((percentage(target)?, target.at)),
        _ => Err(Reason::new("it needs one of target and targetPercent", "keep one").at(node)),
    }
}

fn rolling(node: &Node) -> Honoured<Window> {
    let [one] = node.items() else {
        return Err(Reason::new("it needs exactly one time window", "keep one").at(node));
    };
    only(one, &["duration", "isRolling", "calendar"])?;
    if let Some(calendar) = one.get("calendar") {
        let message = "a calendar window cannot be honoured: windows roll";
        return Err(Reason::new(message, "write duration: 30d and isRolling: true").at(calendar));
    }
    if !one.get("isRolling").is_some_and(Node::is_true) {
        let message = "the window does not say that it rolls";
        return Err(Reason::new(message, "write isRolling: true").at(one));
    }
    window(need(one, "duration")?)
}

fn indicator(spec: &Node, library: &Library<'_>) -> Honoured<Measured> {
    let sli = match (spec.get("indicator"), spec.get("indicatorRef")) {
        (Some(inside), None) => {
            only(inside, &["apiVersion", "kind", "metadata", "spec"])?;
            need(inside, "spec")?
        }
        (None, Some(reference)) => library.spec("SLI", reference)?,
        _ => return Err(Reason::new("it needs one of indicator and indicatorRef", "keep one").at(spec)),
    };
    only(sli, &["description", "thresholdMetric", "ratioMetric"])?;
    if let Some(threshold) = sli.get("thresholdMetric") {
        let message =
            "a thresholdMetric compares a value, and values of quantiles or gauges cannot be added up";
        let help = "write a ratioMetric: good = the bucket at the threshold, total = the count";
        return Err(Reason::new(message, help).at(threshold));
    }
    let ratio = need(sli, "ratioMetric")?;
    only(ratio, &["counter", "good", "bad", "total", "raw", "rawType"])?;
    if let Some(counter) = ratio.get("counter").filter(|counter| !counter.is_true()) {
        let message = "a gauge counts no requests";
        return Err(Reason::new(message, "use counters, and counter: true").at(counter));
    }
    match (ratio.get("good"), ratio.get("bad"), ratio.get("raw")) {
        (Some(good), None, None) => pair(Numerator::Good, good, need(ratio, "total")?, library),
        (None, Some(bad), None) => pair(Numerator::Bad, bad, need(ratio, "total")?, library),
        (None, None, Some(raw)) => {
            let of = need(ratio, "rawType")?;
            let numerator = match of.text() {
                Some("success") => Numerator::Good,
                Some("failure") => Numerator::Bad,
                _ => return Err(Reason::new("rawType is neither", "write success or failure").at(of)),
            };
            let query = query(raw, library)?;
            measure_ratio(numerator, &parsed(query)?).map_err(|reason| reason.at(query))
        }
        _ => {
            Err(Reason::new("it needs good or bad with total, or raw", "keep one of good and bad").at(ratio))
        }
    }
}

fn pair(numerator: Numerator, part: &Node, total: &Node, library: &Library<'_>) -> Honoured<Measured> {
    let (part, total) = (query(part, library)?, query(total, library)?);
    let all = parsed(total)?;
    measure(numerator, &parsed(part)?, &all).map_err(|reason| reason.at(part))
}

/// The PromQL of a metric source.
fn query<'n>(metric: &'n Node, library: &Library<'_>) -> Honoured<&'n Node> {
    only(metric, &["metricSource"])?;
    let source = need(metric, "metricSource")?;
    only(source, &["metricSourceRef", "type", "spec"])?;
    let (kind, at) = match (source.get("type"), source.get("metricSourceRef")) {
        (Some(kind), _) => (kind.text(), kind),
        (None, Some(reference)) => (library.spec("DataSource", reference)?.text_at("type"), reference),
        (None, None) => (None, source),
    };
    let kind = kind.unwrap_or_default();
    if !kind.eq_ignore_ascii_case("prometheus") {
        let message = if kind.is_empty() {
            "its source does not say that it is Prometheus".to_owned()
        } else {
            format!("queries of {kind:?} are not read")
        };
        return Err(Reason::new(message, "write type: Prometheus and PromQL").at(at));
    }
    let spec = need(source, "spec")?;
    only(spec, &["query", "promql", "queryType"])?;
    match (spec.get("query"), spec.get("promql")) {
        (Some(query), None) | (None, Some(query)) if matches!(query.value, Value::Text(_)) => Ok(query),
        _ => Err(Reason::new("it has no query", "write spec: { query: sum(rate(…)) }").at(spec)),
    }
}

/// Policies may only ask for what the tiers do.
fn alerting(spec: &Node, window: Window, library: &Library<'_>, notes: &mut Vec<String>) -> Honoured<Mode> {
    let policies = spec.get("alertPolicies").map(Node::items).unwrap_or_default();
    if policies.is_empty() {
        return Ok(Mode::Observe);
    }
    let mut asked = Vec::new();
    for policy in policies {
        let policy = inside_or_referenced(policy, "alertPolicyRef", "AlertPolicy", library)?;
        only(
            policy,
            &[
                "description",
                "alertWhenNoData",
                "alertWhenResolved",
                "alertWhenBreaching",
                "conditions",
                "notificationTargets",
            ],
        )?;
        if let Some(breaching) = policy.get("alertWhenBreaching").filter(|node| !node.is_true()) {
            let message = "a policy that does not alert on burning cannot be honoured";
            return Err(Reason::new(message, "write alertWhenBreaching: true").at(breaching));
        }
        if policy.get("alertWhenNoData").is_some_and(Node::is_true) {
            notes.push(
                "alertWhenNoData: SLOTrafficVanished pages when traffic that was there is gone".to_owned(),
            );
        }
        if policy.get("notificationTargets").is_some_and(|targets| !targets.items().is_empty()) {
            notes.push(
                "who is notified is a matter of Alertmanager's routes: its notificationTargets are gone"
                    .to_owned(),
            );
        }
        for condition in need(policy, "conditions")?.items() {
            let condition = inside_or_referenced(condition, "conditionRef", "AlertCondition", library)?;
            asked.push(tier(condition, window)?);
        }
    }
    let more: Vec<String> = TIERS
        .iter()
        .enumerate()
        .filter(|(index, _)| !asked.contains(index))
        .map(|(_, tier)| {
            format!("{} at {} times over {}", severity(tier.severity), tier.factor(window), tier.long)
        })
        .collect();
    if !more.is_empty() {
        notes.push(format!("it also alerts by the tiers that it did not ask for: {}", more.join(", ")));
    }
    Ok(Mode::Alert)
}

fn inside_or_referenced<'n>(
    node: &'n Node,
    key: &str,
    kind: &str,
    library: &Library<'n>,
) -> Honoured<&'n Node> {
    match node.get(key) {
        Some(reference) => library.spec(kind, reference),
        None => need(node, "spec"),
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Page => "page",
        Severity::Ticket => "ticket",
    }
}

/// The tier that a condition is.
fn tier(condition: &Node, window: Window) -> Honoured<usize> {
    only(condition, &["description", "severity", "condition"])?;
    let asked = need(condition, "condition")?;
    only(asked, &["kind", "op", "threshold", "lookbackWindow", "alertAfter"])?;
    let tiers: Vec<String> = TIERS
        .iter()
        .map(|tier| format!("{} over {} ({})", tier.factor(window), tier.long, severity(tier.severity)))
        .collect();
    let refuse = |node: &Node, message: String| {
        let help =
            format!("over {window} alerts come at {}; leave the policy out to observe", tiers.join(", "));
        Err(Reason::new(message, help).at(node))
    };
    if let Some(kind) = asked.get("kind").filter(|kind| kind.text() != Some("burnrate")) {
        return refuse(kind, "only burnrate conditions are read".to_owned());
    }
    let op = need(asked, "op")?;
    if !matches!(op.text(), Some("gt" | "gte")) {
        return refuse(op, "an alert on burning too slowly cannot be honoured".to_owned());
    }
    if let Some(after) = asked
        .get("alertAfter")
        .filter(|after| after.text().and_then(duration).is_none_or(|after| !after.is_zero()))
    {
        return refuse(after, "alertAfter cannot be honoured: the short range does its work".to_owned());
    }
    let (threshold, lookback) = (need(asked, "threshold")?, need(asked, "lookbackWindow")?);
    let minutes = lookback.text().and_then(duration).map(|lookback| lookback.as_secs() / 60);
    let factor = number(threshold)?;
    let name = need_text(condition, "severity")?;
    let found = TIERS.iter().position(|tier| {
        (tier.factor(window) - factor).abs() < 1e-9 && minutes == Some(u64::from(tier.long.minutes))
    });
    match found {
        None => {
            let lookback = lookback.text().unwrap_or_default();
            refuse(
                threshold,
                format!("an alert at {factor} times the allowed rate over {lookback} is no tier"),
            )
        }
        Some(index) => {
            let fits = match TIERS[index].severity {
                Severity::Page => ["page", "critical"],
                Severity::Ticket => ["ticket", "warning"],
            };
            if fits.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                Ok(index)
            } else {
                let of = severity(TIERS[index].severity);
                refuse(
                    need(condition, "severity")?,
                    format!("this tier is a {of}, and the severity is {name:?}"),
                )
            }
        }
    }
}
