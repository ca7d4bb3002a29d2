//! Promtail's pipeline stages.
//!
//! In: the stages of one job, and whose logs it reads. Out: rules, and remarks for what no rule says. Parsing stages
//! need no translation: a line's level, ids and request are found by themselves; what a stage takes out of a line is
//! remembered, so that a `drop` by it can be said as a condition.

use serde_json::Value as Json;

use super::draft::Draft;
use super::names::{self, Conditions};
use super::promtail::{bytes, duration, static_label, whole};
use super::rewrite;
use super::yaml::Node;

/// Depth of `match` stages within each other.
const MAX_DEPTH: usize = 8;

/// Fields that every record has here beside its line, as structured metadata.
const KNOWN_FIELDS: [&str; 14] = [
    "level",
    "detected_level",
    "trace_id",
    "traceID",
    "traceId",
    "span_id",
    "spanID",
    "request_id",
    "http_method",
    "http_route",
    "http_status",
    "duration_ms",
    "pod",
    "stream",
];

/// What is known while going through the stages of a job.
struct Walk<'a> {
    job: &'a str,
    /// Names that stages have taken out of the line, with the path or group that they come from.
    extracted: Vec<(String, String)>,
}

/// Translates the stages of a job.
pub(super) fn translate(node: &Node, scope: &Conditions, job: &str, draft: &mut Draft) {
    let mut walk = Walk { job, extracted: Vec::new() };
    stages(node, scope, &mut walk, draft, 0);
}

fn stages(node: &Node, scope: &Conditions, walk: &mut Walk<'_>, draft: &mut Draft, depth: usize) {
    if depth > MAX_DEPTH {
        draft.lost(node.line, "`match` stages nested too deeply", "write their rules by hand");
        return;
    }
    for item in node.items() {
        for (name, stage) in item.entries() {
            one(name, stage, scope, walk, draft, depth);
        }
        if let Some(name) = item.text() {
            one(name, &Node::in_line(item.line, super::yaml::Value::Null), scope, walk, draft, depth);
        }
    }
}

fn one(name: &str, stage: &Node, scope: &Conditions, walk: &mut Walk<'_>, draft: &mut Draft, depth: usize) {
    let line = stage.line;
    match name {
        "cri" | "docker" => draft.note(line, format!("`{name}`: the runtime's format is recognised by itself"), ""),
        "json" | "regex" | "logfmt" => {
            extract(name, stage, walk);
            draft.note(
                line,
                format!("`{name}`: level, trace, request and HTTP fields are found by themselves"),
                "other fields stay in the line: `| json` or `| logfmt` in the query finds them",
            );
        }
        "labels" | "structured_metadata" | "non_indexed_labels" => labels(name, stage, draft),
        "labeldrop" | "labelallow" => {
            draft.note(line, format!("`{name}`: labels are fixed and few; there is nothing to drop"), "");
        }
        "static_labels" => {
            for (label, node) in stage.entries() {
                static_label(label, &super::draft::references(node.text().unwrap_or_default()), node.line, draft);
            }
        }
        "timestamp" => draft.note(
            line,
            "`timestamp`: a record's time is the runtime's; the application's own goes out as `app_time` where it differs",
            "",
        ),
        "output" => draft.lost(
            line,
            "`output`: lines are sent as the container wrote them",
            "show one field in Grafana with `| json | line_format \"{{.message}}\"`",
        ),
        "drop" => drop(stage, scope, walk, draft),
        "match" => matches(stage, scope, walk, draft, depth),
        "limit" => limit(stage, scope, walk, draft),
        "multiline" => multiline(stage, scope, walk, draft),
        "replace" => replace(stage, scope, walk, draft),
        "sampling" => sampling(stage, scope, walk, draft),
        "tenant" => tenant(stage, scope, draft),
        "metrics" => draft.lost(line, "`metrics`: no metrics are made of lines", "use recording rules in Loki"),
        "template" | "pack" | "decolorize" | "eventlogmessage" | "geoip" => draft.lost(
            line,
            format!("`{name}`: lines and labels are not rewritten"),
            "do it in the query (`line_format`, `label_format`, `decolorize`)",
        ),
        _ => draft.lost(line, format!("pipeline stage `{name}`"), "write it by hand"),
    }
}

/// Remembers what a parsing stage takes out of the line.
fn extract(kind: &str, stage: &Node, walk: &mut Walk<'_>) {
    match kind {
        "regex" => {
            let expression = stage.text_at("expression").unwrap_or_default();
            for part in expression.split("(?P<").skip(1) {
                if let Some((name, _)) = part.split_once('>') {
                    walk.extracted.push((name.to_owned(), name.to_owned()));
                }
            }
        }
        _ => {
            let found = stage.get("expressions").or_else(|| stage.get("mapping"));
            for (name, node) in found.map(Node::entries).unwrap_or_default() {
                let path = node.text().filter(|path| !path.is_empty()).unwrap_or(name);
                walk.extracted.push((name.clone(), path.to_owned()));
            }
        }
    }
}

impl Walk<'_> {
    /// Our condition for a name that was taken out of the line.
    fn condition(&self, source: &str) -> Option<&'static str> {
        let path =
            self.extracted.iter().rev().find(|(name, _)| name == source).map_or(source, |(_, path)| path);
        let last = path.rsplit('.').next().unwrap_or(path).trim_matches(['"', '`']);
        Some(match last {
            "level" | "lvl" | "severity" | "log_level" | "loglevel" | "detected_level" => "level",
            "method" | "http_method" | "verb" | "request_method" => "http_method",
            "status" | "status_code" | "statusCode" | "http_status" | "code" => "http_status",
            "path" | "uri" | "url" | "request_uri" | "url_path" | "request_path" => "url_path",
            "route" | "http_route" => "http_route",
            _ => names::condition_of(source)?,
        })
    }
}

fn labels(kind: &str, stage: &Node, draft: &mut Draft) {
    let mut lost = Vec::new();
    for (label, _) in stage.entries() {
        if KNOWN_FIELDS.contains(&label.as_str()) {
            if kind == "labels" {
                draft.note(
                    stage.line,
                    format!("label `{label}` is structured metadata here"),
                    format!("query it as `{{…}} | {label}=\"…\"`"),
                );
            }
        } else if !["namespace", "container", "cluster", "service_name"].contains(&label.as_str()) {
            lost.push(label.as_str());
        }
    }
    if !lost.is_empty() {
        draft.lost(
            stage.line,
            format!("`{kind}`: {}", lost.join(", ")),
            "the value stays in the line: `| json` or `| logfmt` in the query finds it",
        );
    }
}

/// Adds a rule with the conditions of its scope.
fn rule(
    draft: &mut Draft,
    walk: &Walk<'_>,
    (kind, stage): (&str, &Node),
    name: &str,
    mut keys: Vec<(String, Json)>,
    conditions: &Conditions,
) {
    keys.extend(conditions.json());
    let comment = format!("pipeline stage of job {}", walk.job);
    draft.rule(&["process", kind], name, keys, stage.line, comment);
}

fn drop(stage: &Node, scope: &Conditions, walk: &Walk<'_>, draft: &mut Draft) {
    let line = stage.line;
    let by_hand = "write a [process.drop] rule by hand: docs/explanation/processing.md";
    let mut own = Conditions::default();
    if let Some(age) = stage.get("older_than") {
        draft.lost(
            age.line,
            "`drop` by age (older_than)",
            "Loki's limits refuse old lines; what it refuses is counted",
        );
        return;
    }
    if let Some(size) = stage.get("longer_than") {
        let only =
            stage.entries().iter().all(|(key, _)| key == "longer_than" || key == "drop_counter_reason");
        match size.text().and_then(bytes) {
            Some(bytes) if only && bytes < 10_000 => {
                own.add("regex", vec![format!("(?s)^.{{{}}}", bytes + 1)]);
            }
            _ => {
                let instead = "longer lines are cut and marked: [logs] max_line";
                draft.lost(size.line, "`drop` by length (longer_than)", instead);
                return;
            }
        }
    }
    let sources: Vec<&str> =
        stage.get("source").map(Node::items).unwrap_or_default().iter().filter_map(Node::text).collect();
    let expression = stage.text_at("expression");
    let value = stage.text_at("value");
    let said = match (sources.as_slice(), expression, value) {
        ([], Some(expression), None) => own.add("regex", vec![expression.to_owned()]),
        ([], None, None) => !own.is_empty(),
        ([source], expression, value) => {
            let key = walk.condition(source);
            let patterns = match (value, expression) {
                (Some(value), None) => Some(vec![value.to_owned()]),
                (None, Some(expression)) => names::globs(expression),
                _ => None,
            };
            match (key, patterns) {
                (Some("level"), Some(patterns)) => {
                    names::levels(&patterns).is_some_and(|levels| own.add("level", levels))
                }
                (Some("stream"), Some(patterns)) if patterns.len() == 1 => own.add("stream", patterns),
                (Some(key), Some(patterns)) => own.add(key, patterns),
                _ => false,
            }
        }
        _ => false,
    };
    let Some(conditions) = Some(&own).filter(|_| said).and_then(|own| scope.and(own)) else {
        let source = if sources.is_empty() { String::new() } else { format!(" by {}", sources.join(", ")) };
        draft.lost(line, format!("`drop`{source}"), by_hand);
        return;
    };
    let name = stage.text_at("drop_counter_reason").unwrap_or(walk.job);
    rule(draft, walk, ("drop", stage), name, Vec::new(), &conditions);
}

fn matches(stage: &Node, scope: &Conditions, walk: &mut Walk<'_>, draft: &mut Draft, depth: usize) {
    let line = stage.line;
    let text = stage.text_at("selector").unwrap_or_default();
    let (conditions, rest) = match names::selector(text) {
        Ok(found) => found,
        Err(why) => {
            draft.lost(
                line,
                format!("`match`: the selector cannot be read: {why}"),
                "write its rules by hand",
            );
            return;
        }
    };
    let both = scope.and(&conditions);
    let (Some(both), true) = (both, rest.is_empty()) else {
        let what =
            if rest.is_empty() { "conditions that exclude each other".to_owned() } else { rest.join(", ") };
        draft.lost(
            line,
            format!("`match` with {what}"),
            "conditions are namespace, pod, container, service, stream, level, contains and regex",
        );
        return;
    };
    if stage.text_at("action") == Some("drop") {
        if both.is_empty() {
            draft.lost(line, "`match` that drops everything", "write it by hand if you mean it");
            return;
        }
        let name = stage.text_at("drop_counter_reason").or_else(|| stage.text_at("pipeline_name"));
        rule(draft, walk, ("drop", stage), name.unwrap_or("match"), Vec::new(), &both);
    } else if let Some(inner) = stage.get("stages") {
        stages(inner, &both, walk, draft, depth + 1);
    }
}

fn limit(stage: &Node, scope: &Conditions, walk: &Walk<'_>, draft: &mut Draft) {
    let line = stage.line;
    let rate = stage.text_at("rate").unwrap_or("1");
    if !stage.get("drop").is_some_and(Node::is_true) {
        draft.lost(
            line,
            "`limit` that slows reading down",
            "reading takes turns by namespace and stops when memory is spent; `drop: true` is [process.limit]",
        );
        return;
    }
    let key = match stage.text_at("by_label_name") {
        None => "node",
        Some(label) => match names::condition_of(label) {
            Some(key @ ("namespace" | "pod" | "container" | "service" | "level")) => key,
            _ => {
                let what = format!("`limit` by label {label}");
                draft.lost(
                    line,
                    what,
                    "keys are node, namespace, pod, container, service, level and http_route",
                );
                return;
            }
        },
    };
    // Below one a second the rate is said by the minute or the hour.
    let number: f64 = rate.trim().parse().unwrap_or(1.0);
    let rate = match number {
        number if number >= 1.0 => format!("{}/s", whole(rate)),
        number if number * 60.0 >= 1.0 => format!("{}/m", (number * 60.0).ceil()),
        number => format!("{}/h", (number * 3600.0).ceil().max(1.0)),
    };
    if stage.get("burst").is_some() {
        draft.note(
            line,
            "`burst`: a limit counts in aligned periods, which lets a burst of one period through",
            "",
        );
    }
    let keys = vec![("rate".to_owned(), rate.into()), ("key".to_owned(), key.into())];
    rule(draft, walk, ("limit", stage), walk.job, keys, scope);
}

fn sampling(stage: &Node, scope: &Conditions, walk: &Walk<'_>, draft: &mut Draft) {
    let rate = stage.text_at("rate").and_then(|rate| rate.trim().parse::<f64>().ok());
    let Some(rate) = rate.filter(|rate| (0.0..=1.0).contains(rate)) else {
        draft.lost(stage.line, "`sampling` without a rate from 0 to 1", "write [process.sample] by hand");
        return;
    };
    let percent = (rate * 1e6).round() / 1e4;
    let keys =
        vec![("keep".to_owned(), format!("{percent}%").into()), ("keep_errors".to_owned(), false.into())];
    draft.note(stage.line, "`sampling`: lines of one trace are kept or dropped together", "");
    rule(draft, walk, ("sample", stage), walk.job, keys, scope);
}

fn multiline(stage: &Node, scope: &Conditions, walk: &Walk<'_>, draft: &mut Draft) {
    let line = stage.line;
    let Some(first) = stage.text_at("firstline") else {
        draft.lost(line, "`multiline` without `firstline`", "stack traces are joined by themselves");
        return;
    };
    let (conditions, whole_scope) = scope.about_containers();
    if !whole_scope {
        draft.lost(
            line,
            "`multiline` for some lines of a container",
            "[logs.multiline.rule] chooses by namespace, pod, container and service",
        );
        return;
    }
    if conditions.is_empty() {
        draft.note(
            line,
            "`multiline` for all logs: JSON lines that do not match are joined too",
            "name the services that need it, or remove the rule: stack traces are joined by themselves",
        );
    }
    let mut keys = vec![("start".to_owned(), first.into())];
    keys.extend(conditions.json());
    let comment = format!("pipeline stage `multiline` of job {}", walk.job);
    draft.rule(&["logs", "multiline", "rule"], walk.job, keys, line, comment);
    if let Some(wait) = stage.get("max_wait_time") {
        match wait.text().and_then(duration) {
            Some(wait_for) => draft.set(&["logs", "multiline"], "max_wait", wait_for, wait.line),
            None => draft.lost(wait.line, "`max_wait_time` is no duration", "set [logs.multiline] max_wait"),
        }
    }
    if let Some(lines) = stage.get("max_lines") {
        match lines
            .text()
            .and_then(|text| text.parse::<u32>().ok())
            .filter(|lines| (2..=10_000).contains(lines))
        {
            Some(count) => draft.set(&["logs", "multiline"], "max_lines", count, lines.line),
            None => {
                draft.lost(lines.line, "`max_lines` outside 2 to 10000", "set [logs.multiline] max_lines")
            }
        }
    }
}

fn replace(stage: &Node, scope: &Conditions, walk: &Walk<'_>, draft: &mut Draft) {
    let line = stage.line;
    let by_hand = "write [process.redact.rule] by hand, with the new text in `replace`";
    if stage.get("source").is_some() {
        draft.lost(
            line,
            "`replace` in an extracted value",
            "[process.redact.rule] works on the line and all fields",
        );
        return;
    }
    let expression = stage.text_at("expression").unwrap_or_default();
    let new = stage.text_at("replace").unwrap_or_default();
    let Some((pattern, replacement)) = rewrite::replace(expression, new) else {
        let what =
            if new.contains("{{") { "`replace` by a template" } else { "`replace`: the form of its groups" };
        draft.lost(line, what, by_hand);
        return;
    };
    let keys = vec![("pattern".to_owned(), pattern.into()), ("replace".to_owned(), replacement.into())];
    let mut keys = keys;
    keys.extend(scope.json());
    let comment = format!("pipeline stage `replace` of job {}", walk.job);
    draft.rule(&["process", "redact", "rule"], walk.job, keys, line, comment);
}

fn tenant(stage: &Node, scope: &Conditions, draft: &mut Draft) {
    let line = stage.line;
    match stage.text_at("value") {
        Some(value) if scope.is_empty() => {
            draft.set(&["sink", "loki", "main"], "tenant", super::draft::references(value), line);
        }
        _ => draft.lost(
            line,
            "`tenant` by label or line",
            "annotate namespaces or pods with nodewick.dev/tenant, from the allow-list in the config",
        ),
    }
}
