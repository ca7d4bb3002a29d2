//! A [`Story`] as a person or a program reads it.
//!
//! In: stories and the config that they were told under. Out: text, or JSON with the same facts.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::{
    Decision, Kind, MAX_ASKED, MAX_ASKED_RECORDS, Pipeline, Sent, Story, Verdict, Who, fields_of, stages,
    text_of, time,
};
use crate::config::Config;
use crate::data::batch::{Batch, Fields, Marks, Record};
use crate::kube::resolve::Problem;
use crate::sink::json::write_json;
use crate::sink::{loki, otlp};

/// What is wrong with annotations, as `nodewick doctor` says it: a line with the fix below, each behind `indent`.
pub fn problems(found: &[Problem], indent: &str) -> String {
    let mut out = String::new();
    for problem in found {
        let Problem { namespace, pod, annotation, value, what, fix, .. } = problem;
        let _ = writeln!(out, "{indent}‼ {namespace}/{pod}: {annotation} = \"{value}\" {what}");
        let _ = writeln!(out, "{indent}  → {fix}");
    }
    out
}

/// A value longer than this is shown cut.
const SHOWN: usize = 400;

/// Marks and their names.
const MARKS: [(Marks, &str); 5] = [
    (Marks::RELEASED, "released by the flight recorder"),
    (Marks::TRACE_INHERITED, "trace id inherited from an earlier line of the same request"),
    (Marks::TRUNCATED, "cut at [logs] max_line"),
    (Marks::LOSSY, "bytes that are not UTF-8 were replaced"),
    (Marks::REDACTED, "redacted"),
];

/// The stories as text.
pub fn text(pipeline: &Pipeline<'_>, stories: &[Story]) -> String {
    let mut out = String::new();
    for (index, story) in stories.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        one(&mut out, pipeline.config(), story);
    }
    out
}

fn one(out: &mut String, config: &Config, story: &Story) {
    let _ = writeln!(out, "record  {}", shown(&text_of(story.seen.record.body, &story.seen.text)));
    frame(out, story);
    parse(out, story);
    process(out, config, story);
    match &story.sent {
        Some(sent) => sinks(out, config, sent),
        None => {
            let rule = story.dropped_by().unwrap_or_else(|| "a rule".to_owned());
            let _ = writeln!(out, "  sinks    nothing is sent: dropped by {rule}");
        }
    }
}

fn frame(out: &mut String, story: &Story) {
    for (index, line) in story.lines.iter().enumerate() {
        let label = if index == 0 { "frame" } else { "" };
        let stamp = if line.time_unix_nano == 0 { "no stamp".to_owned() } else { time(line.time_unix_nano) };
        let part = if line.full { "whole" } else { "part, joined to the next one" };
        let _ = writeln!(
            out,
            "  {label:<8} line {}: {}, {stamp}, {}, {part}",
            line.number, line.form, line.stream
        );
    }
    if let Some(language) = story.joined() {
        let what = if language == "Other" {
            "by [logs.multiline]".to_owned()
        } else {
            format!("a {language} stack trace")
        };
        let _ = writeln!(out, "  {:<8} {} lines joined: {what}", "", story.lines.len());
    }
}

fn parse(out: &mut String, story: &Story) {
    let (record, text) = (&story.seen.record, &story.seen.text);
    let _ = writeln!(out, "  {:<8} {}", "parse", story.format.name());
    for (field, value) in fields_of(record, text) {
        let _ = writeln!(out, "  {:<8} {field} = {}  ({})", "", shown(&value), origin(story, field, record));
    }
    for (_, words) in MARKS.iter().filter(|(mark, _)| record.marks.contains(*mark)) {
        let _ = writeln!(out, "  {:<8} {words}", "");
    }
}

/// Where a field came from, in words.
fn origin(story: &Story, field: &str, record: &Record) -> String {
    if field == "trace_id" && record.marks.contains(Marks::TRACE_INHERITED) {
        return "inherited by request id".to_owned();
    }
    let body = record.body.of(&story.seen.text);
    let found = story.sources.iter().find(|source| source.field == field);
    match (found, field) {
        (Some(source), _) => {
            let place = source.span.start + 1;
            match story.key_of(source) {
                Some(key) if source.span.is_empty() => format!("key {key}"),
                Some(key) => format!(
                    "key {key}: {} at byte {place}",
                    shown(&String::from_utf8_lossy(source.span.of(body)))
                ),
                None => format!("the line's form, at byte {place}"),
            }
        }
        (None, "http_route") => "url_path, with ids replaced by {id}".to_owned(),
        (None, "span_id") => "traceparent".to_owned(),
        (None, _) => "the line's form".to_owned(),
    }
}

fn process(out: &mut String, config: &Config, story: &Story) {
    if story.decisions.is_empty() {
        let redacts = config.process.redact.builtin || !config.process.redact.rule.is_empty();
        let words = if redacts { "no rule is about it; nothing to redact" } else { "no rule is configured" };
        let _ = writeln!(out, "  {:<8} {words}", "process");
    }
    for (index, step) in story.decisions.iter().enumerate() {
        let label = if index == 0 { "process" } else { "" };
        let _ = writeln!(out, "  {label:<8} {}: {}", step.name(), words(step));
    }
}

/// A decision in words.
pub(super) fn words(step: &Decision) -> String {
    if step.kind == Kind::Annotation {
        return "switches the logs of this container off: they are not read".to_owned();
    }
    match step.verdict {
        Verdict::OtherContainer => "not about this container".to_owned(),
        Verdict::NoMatch => "does not match".to_owned(),
        Verdict::Kept => "matches, kept".to_owned(),
        Verdict::Dropped => "matches, dropped".to_owned(),
        Verdict::Held if step.kind == Kind::Recorder => {
            "held back by the flight recorder: sent if a line of its trace is an error or the container dies"
                .to_owned()
        }
        Verdict::Released => "released by the flight recorder: its trace or request failed".to_owned(),
        Verdict::Held => "a copy of the line before: held until it is known how many follow".to_owned(),
        Verdict::Folded => "a copy: the one that is sent counts it".to_owned(),
        Verdict::Redacted(1) => "replaced text in 1 place".to_owned(),
        Verdict::Redacted(count) => format!("replaced text in {count} places"),
    }
}

fn sinks(out: &mut String, config: &Config, sent: &Sent) {
    let fields = config.record.fields.0;
    let mut label = "sinks";
    let mut head = |out: &mut String, name: String| {
        let _ = writeln!(out, "  {label:<8} {name}");
        label = "";
    };
    let pairs = |out: &mut String, title: &str, pairs: &[(String, String)]| {
        for (index, (name, value)) in pairs.iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            let _ = writeln!(out, "  {:<10} {title:<10} {name}={}", "", shown(value));
        }
    };
    for (name, sink) in &config.sink.loki {
        head(out, format!("loki {name}"));
        let preview = loki::preview::preview(sink, fields, &sent.batch, sent.index);
        let _ = writeln!(out, "  {:<10} {:<10} {}", "", "labels", preview.labels);
        pairs(out, "metadata", &preview.metadata);
        if let Some(tenant) = &preview.tenant {
            let _ = writeln!(out, "  {:<10} {:<10} {tenant}", "", "tenant");
        }
        let _ = writeln!(out, "  {:<10} {:<10} {}", "", "line", shown(&preview.line));
    }
    for (name, sink) in &config.sink.otlp {
        head(out, format!("otlp {name}"));
        let preview = otlp::preview::preview(sink, fields, &sent.batch, sent.index);
        pairs(out, "resource", &preview.resource);
        let mut record = Vec::new();
        if preview.severity_number > 0 {
            let severity = format!("{} {}", preview.severity_number, preview.severity_text);
            record.push(("severity".to_owned(), severity));
        }
        let ids = [("trace_id", &preview.trace_id), ("span_id", &preview.span_id)];
        let ids = ids.into_iter().filter(|(_, id)| !id.is_empty());
        record.extend(ids.map(|(name, id)| (name.to_owned(), id.clone())));
        pairs(out, "record", &record);
        pairs(out, "attributes", &preview.attributes);
        let _ = writeln!(out, "  {:<10} {:<10} {}", "", "body", shown(&preview.body));
    }
    let stdout = config.sink.stdout.keys().map(|name| ("stdout", name.as_str()));
    let stores = config.sink.stores();
    let local = stores.iter().map(|(name, _)| ("local", *name));
    for (kind, name) in stdout.chain(local) {
        head(out, format!("{kind} {name}"));
        let _ = writeln!(out, "  {:<10} {}", "", json_line(&sent.batch, sent.record(), fields));
    }
}

fn json_line(batch: &Batch, record: &Record, fields: Fields) -> String {
    let mut line = Vec::new();
    write_json(batch, record, fields, &mut line);
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// A value on one line, its control characters escaped, cut when it is long.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN) + 8);
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// The stories as JSON, one object a record.
pub fn json(pipeline: &Pipeline<'_>, stories: &[Story]) -> Vec<Json> {
    stories.iter().map(|story| story_json(pipeline.config(), story)).collect()
}

fn story_json(config: &Config, story: &Story) -> Json {
    let (record, text) = (&story.seen.record, &story.seen.text);
    let lines: Vec<Json> = story
        .lines
        .iter()
        .map(|line| {
            let stamp = (line.time_unix_nano > 0).then(|| time(line.time_unix_nano));
            json!({"line": line.number, "form": line.form, "time": stamp, "stream": line.stream, "whole": line.full})
        })
        .collect();
    let mut fields = serde_json::Map::new();
    for (field, value) in fields_of(record, text) {
        let source = story.sources.iter().find(|source| source.field == field);
        let byte = source.filter(|source| !source.span.is_empty()).map(|source| source.span.start + 1);
        fields.insert(
            field.to_owned(),
            json!({"value": value, "key": source.and_then(|source| story.key_of(source)), "byte": byte,
                "from": origin(story, field, record)}),
        );
    }
    let decisions: Vec<Json> = story
        .decisions
        .iter()
        .map(|step| {
            let places = if let Verdict::Redacted(count) = step.verdict { Some(count) } else { None };
            json!({"rule": step.name(), "verdict": verdict(step), "places": places})
        })
        .collect();
    json!({
        "body": text_of(record.body, text),
        "frame": {"lines": lines, "joined": story.joined()},
        "parse": {"format": story.format.name(), "fields": fields},
        "process": decisions,
        "dropped_by": story.dropped_by(),
        "sinks": story.sent.as_ref().map(|sent| sinks_json(config, sent)),
        "diff": stages::json(&stages::stages(story, config.record.fields.0)),
    })
}

/// A decision as programs read it.
pub(super) fn verdict(step: &Decision) -> &'static str {
    match step.verdict {
        Verdict::OtherContainer => "other_container",
        Verdict::NoMatch => "no_match",
        Verdict::Kept => "kept",
        Verdict::Dropped => "dropped",
        Verdict::Held => "held",
        Verdict::Folded => "folded",
        Verdict::Released => "released",
        Verdict::Redacted(_) => "redacted",
    }
}

/// Lines explained to who asks a running agent, as JSON: `records` as [`json`] has them, `problems` with the
/// annotations, and how much was left out (`records_left_out`, `bytes_left_out`).
///
/// At most [`MAX_ASKED`] bytes are read and [`MAX_ASKED_RECORDS`] records told, so that an answer costs a bounded time.
///
/// # Errors
/// Names the key of the config whose value cannot be used; a running agent's config has none.
pub fn answer(
    config: &Config,
    who: &Who,
    input: &[u8],
    now_unix_nano: u64,
) -> Result<String, crate::logs::process::Error> {
    let pipeline = Pipeline::new(config)?;
    let taken = &input[..input.len().min(MAX_ASKED)];
    let mut stories = pipeline.run(who, taken, now_unix_nano);
    let left_out = stories.len().saturating_sub(MAX_ASKED_RECORDS);
    stories.truncate(MAX_ASKED_RECORDS);
    let problems: Vec<Json> = pipeline
        .problems(who)
        .iter()
        .map(|problem| {
            json!({"annotation": problem.annotation, "value": problem.value, "what": problem.what, "fix": problem.fix})
        })
        .collect();
    let answer = json!({
        "records": json(&pipeline, &stories),
        "problems": problems,
        "records_left_out": left_out,
        "bytes_left_out": input.len() - taken.len(),
    });
    Ok(answer.to_string())
}

fn sinks_json(config: &Config, sent: &Sent) -> Json {
    let fields = config.record.fields.0;
    let object = |pairs: Vec<(String, String)>| -> Json {
        pairs
            .into_iter()
            .map(|(name, value)| (name, Json::from(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut all = serde_json::Map::new();
    for (name, sink) in &config.sink.loki {
        let preview = loki::preview::preview(sink, fields, &sent.batch, sent.index);
        let value = json!({"labels": preview.labels, "metadata": object(preview.metadata),
            "tenant": preview.tenant, "line": preview.line});
        all.insert(format!("loki.{name}"), value);
    }
    for (name, sink) in &config.sink.otlp {
        let preview = otlp::preview::preview(sink, fields, &sent.batch, sent.index);
        let value = json!({"resource": object(preview.resource), "severity_number": preview.severity_number,
            "severity_text": preview.severity_text, "trace_id": preview.trace_id, "span_id": preview.span_id,
            "attributes": object(preview.attributes), "tenant": preview.tenant, "body": preview.body});
        all.insert(format!("otlp.{name}"), value);
    }
    let stdout = config.sink.stdout.keys().map(|name| format!("stdout.{name}"));
    let stores = config.sink.stores();
    for name in stdout.chain(stores.iter().map(|(name, _)| format!("local.{name}"))) {
        let line = json_line(&sent.batch, sent.record(), fields);
        all.insert(name, serde_json::from_str(&line).unwrap_or(Json::String(line)));
    }
    all.into()
}
