//! What each stage made of a record: its text and fields before and after, and which rule did it.
//!
//! In: a [`Story`]. Out: [`Stage`]s in the order in which the agent takes them; as JSON, or as text with `-` and `+`.
//! Invariant: what a stage begins with is what the one before left; a record that is dropped has no further stage.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::explain::{shown, verdict, words};
use super::marked;
pub use super::marked::Part;
use super::{Decision, Kind, Seen, Story, Verdict, fields_of, text_of, time};
use crate::data::batch::{Fields, Marks, Record};
use crate::data::workload::Workload;
use crate::tail::Style;

/// Characters of a line that are shown around its first change.
const SHOWN: usize = 400;
/// Lines of a text that are shown.
const LINES: usize = 16;
/// Characters shown before the first change, where a line is cut.
const BEFORE: usize = 80;

/// How a stage left the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it was.
    Same,
    /// With another text or other fields.
    Changed,
    /// It ended here.
    Dropped,
}

/// A field that a stage added (`before` is empty), changed or removed (`after` is empty).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The field.
    pub name: String,
    /// Its value before.
    pub before: Option<String>,
    /// Its value after.
    pub after: Option<String>,
}

/// A text that a stage changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The text before.
    pub before: String,
    /// The text after.
    pub after: String,
    /// Where they differ.
    pub parts: Vec<Part>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `frame`, `parse`, `annotations`, `inherit`, `rule`, `redact` or `seal`.
    pub name: &'static str,
    /// What did it: the form that was read, the rule of the config, the annotation.
    pub by: Option<String>,
    /// What a rule decided.
    pub decision: Option<Decision>,
    /// How it left the record.
    pub outcome: Outcome,
    /// The text, where it was changed.
    pub text: Option<Rewritten>,
    /// Bytes of the text before.
    pub bytes_before: usize,
    /// Bytes of the text after; 0 for a record that is dropped.
    pub bytes_after: usize,
    /// Fields that were added, changed or removed.
    pub fields: Vec<Change>,
}

/// A record between two stages: its text and its fields.
#[derive(Clone, Default)]
struct Picture {
    text: Vec<u8>,
    fields: Vec<(String, String)>,
}

impl Picture {
    fn of(record: &Record, text: &[u8]) -> Self {
        let fields = fields_of(record, text).into_iter().map(|(name, value)| (name.to_owned(), value));
        Self { text: record.body.of(text).to_vec(), fields: fields.collect() }
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(own, _)| own != name);
        self
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.fields.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }

    fn value(&self, name: &str) -> Option<&String> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

/// The stages so far, and the record as the last one left it.
struct Walk {
    stages: Vec<Stage>,
    now: Picture,
}

impl Walk {
    fn step(&mut self, name: &'static str, by: Option<String>, decision: Option<Decision>, next: Picture) {
        let text = (self.now.text != next.text).then(|| {
            let lossy = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
            let (before, after) = (lossy(&self.now.text), lossy(&next.text));
            let parts = marked::parts(&before, &after);
            Rewritten { before, after, parts }
        });
        let fields = changes(&self.now, &next);
        let is_same = text.is_none() && fields.is_empty();
        self.stages.push(Stage {
            name,
            by,
            decision,
            outcome: if is_same { Outcome::Same } else { Outcome::Changed },
            text,
            bytes_before: self.now.text.len(),
            bytes_after: next.text.len(),
            fields,
        });
        self.now = next;
    }

    fn decide(&mut self, name: &'static str, decision: &Decision, dropped: bool) {
        let by = Some(decision.name());
        let bytes = self.now.text.len();
        self.stages.push(Stage {
            name,
            by,
            decision: Some(decision.clone()),
            outcome: if dropped { Outcome::Dropped } else { Outcome::Same },
            text: None,
            bytes_before: bytes,
            bytes_after: if dropped { 0 } else { bytes },
            fields: Vec::new(),
        });
    }
}

fn changes(before: &Picture, after: &Picture) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, value) in &before.fields {
        let next = after.value(name);
        if next != Some(value) {
            changes.push(Change { name: name.clone(), before: Some(value.clone()), after: next.cloned() });
        }
    }
    let added = after.fields.iter().filter(|(name, _)| before.value(name).is_none());
    changes.extend(added.map(|(name, value)| Change {
        name: name.clone(),
        before: None,
        after: Some(value.clone()),
    }));
    changes
}

/// What each stage made of the record. `sent` are the fields that leave the node.
pub fn stages(story: &Story, sent: Fields) -> Vec<Stage> {
    let raw: Vec<&[u8]> = story.lines.iter().map(|line| line.text.as_slice()).collect();
    let mut walk = Walk { stages: Vec::new(), now: Picture { text: raw.join(&b'\n'), fields: Vec::new() } };
    let seen = &story.seen;
    let framed = framed(story);
    walk.step("frame", Some(form(story)), None, framed.clone());

    // What the line says by itself, then what annotations make of it, then what it has from an earlier line.
    let plain = story.plain.as_ref().unwrap_or(seen);
    let with = |seen: &Seen| {
        let mut next = framed.clone();
        let own = Picture::of(&seen.record, &seen.text);
        let is_inherited = seen.record.marks.contains(Marks::TRACE_INHERITED);
        let own = if is_inherited { own.without("trace_id") } else { own };
        next.fields.extend(own.fields);
        next
    };
    walk.step("parse", Some(story.plain_format.name().to_owned()), None, with(plain));
    if story.is_annotated {
        let own = identity(&story.unannotated, Fields::ALL);
        let mut before = walk.now.clone();
        before.fields.extend(own);
        let mut next = with(seen);
        next.fields.extend(identity(&story.workload, Fields::ALL));
        walk.now = before;
        // Where they switch the log off, that is all there is to say.
        if !story.handling.off {
            walk.step("annotations", None, None, next);
        }
        walk.now = with(seen);
    }
    if seen.record.marks.contains(Marks::TRACE_INHERITED)
        && let Some(trace) = seen.record.trace_id
    {
        let mut next = walk.now.clone();
        next.set("trace_id", String::from_utf8_lossy(&trace.hex()).into_owned());
        walk.step("inherit", Some("request_id".to_owned()), None, next);
    }
    let by_redaction = |decision: &&Decision| decision.kind == Kind::Redact;
    let rules: Vec<&Decision> = story.decisions.iter().filter(|own| !by_redaction(own)).collect();
    for (index, decision) in rules.iter().enumerate() {
        let is_last = index + 1 == rules.len();
        let name = if decision.kind == Kind::Annotation { "annotations" } else { "rule" };
        let is_dropped = story.sent.is_none() && is_last;
        let repeated = story.sent.as_ref().map_or(0, |sent| sent.record().repeated);
        if decision.kind == Kind::Dedup && repeated > 0 {
            let mut next = walk.now.clone();
            next.set("repeated", repeated.to_string());
            walk.step(name, Some(decision.name()), Some((*decision).clone()), next);
        } else if decision.verdict == Verdict::Released {
            let mut next = walk.now.clone();
            next.set("released", "true");
            walk.step(name, Some(decision.name()), Some((*decision).clone()), next);
        } else {
            walk.decide(name, decision, is_dropped);
        }
    }
    let Some(out) = &story.sent else { return walk.stages };
    redact(&mut walk, story, out.record(), &out.batch.arena);
    let mut next = walk.now.clone();
    next.fields.extend(identity(&out.batch.workload, sent));
    next.fields.retain(|(name, _)| leaves(name, sent));
    walk.step("seal", Some("[record] fields and who wrote it".to_owned()), None, next);
    walk.stages
}

/// The record as the runtime's form gives it.
fn framed(story: &Story) -> Picture {
    let record = &story.seen.record;
    let mut framed = Picture { text: record.body.of(&story.seen.text).to_vec(), fields: Vec::new() };
    framed.set("stream", record.stream.name());
    // A line without a stamp has the time at which somebody asks.
    if story.lines.first().is_some_and(|line| line.time_unix_nano > 0) {
        framed.set("time", time(record.time_unix_nano));
    }
    if record.original_len > 0 {
        framed.set("original_bytes", record.original_len.to_string());
    }
    if record.marks.contains(Marks::LOSSY) {
        framed.set("not_utf8", "replaced");
    }
    framed
}

/// What read the physical lines, and joined them.
fn form(story: &Story) -> String {
    let form = story.lines.first().map_or("", |line| line.form);
    match (story.lines.len(), story.joined()) {
        (0 | 1, _) => form.to_owned(),
        (lines, Some(language)) if language == "Other" => {
            format!("{form}; {lines} lines joined by [logs.multiline]")
        }
        (lines, Some(language)) => format!("{form}; {lines} lines joined: a {language} stack trace"),
        (lines, None) => format!("{form}; {lines} parts joined"),
    }
}

fn redact(walk: &mut Walk, story: &Story, record: &Record, arena: &[u8]) {
    let redacted: Vec<&Decision> =
        story.decisions.iter().filter(|decision| decision.kind == Kind::Redact).collect();
    if redacted.is_empty() {
        return;
    }
    let mut next = walk.now.clone();
    next.text = record.body.of(arena).to_vec();
    for (name, value) in fields_of(record, arena) {
        next.set(name, value);
    }
    let by: Vec<&str> = redacted.iter().map(|decision| decision.rule.as_str()).collect();
    walk.step("redact", Some(by.join(", ")), None, next);
    // The agent says itself what it replaced, and by which rule.
    let Some(text) = walk.stages.last_mut().and_then(|stage| stage.text.as_mut()) else { return };
    let exact: Option<Vec<Part>> = story
        .replaced
        .iter()
        .map(|replaced| {
            Some(Part {
                at: replaced.start,
                before: text.before.get(replaced.start..replaced.end)?.to_owned(),
                after: String::from_utf8_lossy(&replaced.text).into_owned(),
                rule: Some(format!("redact.{}", replaced.rule)),
            })
        })
        .collect();
    if let Some(parts) = exact.filter(|parts| !parts.is_empty()) {
        text.parts = parts;
    }
}

/// What a record carries of who wrote it.
fn identity(workload: &Arc<Workload>, sent: Fields) -> Vec<(String, String)> {
    let container = &workload.container;
    let mut fields = Vec::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            fields.push((name.to_owned(), value.to_owned()));
        }
    };
    add("cluster", &workload.cluster);
    add("node", &workload.node);
    add("namespace", &container.namespace);
    if sent.contains(Fields::POD) {
        add("pod", &container.pod);
    }
    add("container", &container.container);
    add("service_name", &workload.service_name);
    add("service_version", workload.service_version.as_deref().unwrap_or_default());
    if sent.contains(Fields::ENV) {
        add("env", workload.environment.as_deref().unwrap_or_default());
    }
    add("tenant", workload.tenant.as_deref().unwrap_or_default());
    for (name, value) in &workload.labels {
        add(&format!("label.{name}"), value);
    }
    for (name, value) in &workload.attributes {
        add(name, value);
    }
    fields
}

/// True for a field that leaves the node where `sent` do.
fn leaves(name: &str, sent: Fields) -> bool {
    // The path goes where its route goes.
    let name = if name == "url_path" { "http_route" } else { name };
    Fields::by_name(name).is_none_or(|field| sent.contains(field))
}

/// The stages as JSON, one object each.
pub fn json(stages: &[Stage]) -> Json {
    stages.iter().map(stage_json).collect()
}

fn stage_json(stage: &Stage) -> Json {
    let mut fields = json!({"added": {}, "changed": {}, "removed": {}});
    for change in &stage.fields {
        match (&change.before, &change.after) {
            (Some(before), Some(after)) => {
                fields["changed"][&change.name] = json!({"before": before, "after": after});
            }
            (None, after) => fields["added"][&change.name] = json!(after),
            (before, None) => fields["removed"][&change.name] = json!(before),
        }
    }
    let text = stage.text.as_ref().map(|text| {
        let part = |part: &Part| {
            json!({"at": part.at, "before": part.before, "after": part.after, "rule": part.rule})
        };
        json!({"before": text.before, "after": text.after, "parts": text.parts.iter().map(part).collect::<Vec<_>>()})
    });
    let outcome = match stage.outcome {
        Outcome::Same => "same",
        Outcome::Changed => "changed",
        Outcome::Dropped => "dropped",
    };
    json!({
        "stage": stage.name,
        "by": stage.by,
        "verdict": stage.decision.as_ref().map(verdict),
        "outcome": outcome,
        "text": text,
        "bytes": {"before": stage.bytes_before, "after": stage.bytes_after},
        "fields": fields,
    })
}

/// The stages of each story as text.
pub fn text(stories: &[Story], sent: Fields, style: Style) -> String {
    let mut out = String::new();
    for (index, story) in stories.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "record  {}", shown(&text_of(story.seen.record.body, &story.seen.text)));
        for stage in stages(story, sent) {
            one(&mut out, &stage, style);
        }
    }
    out
}

fn one(out: &mut String, stage: &Stage, style: Style) {
    let by = stage.by.as_deref().unwrap_or_default();
    let _ = write!(out, "  {:<11} {by}", stage.name);
    if let Some(decision) = &stage.decision {
        let _ = write!(out, ": {}", words(decision));
    }
    match stage.outcome {
        Outcome::Dropped => {
            let _ = write!(out, "  {} → 0 bytes", stage.bytes_before);
        }
        Outcome::Same if stage.decision.is_none() => out.push_str("  nothing changed"),
        _ if stage.text.is_some() => {
            let _ = write!(out, "  {} → {} bytes", stage.bytes_before, stage.bytes_after);
        }
        _ => {}
    }
    while out.ends_with(' ') {
        out.pop();
    }
    out.push('\n');
    if let Some(text) = &stage.text {
        let old = text.parts.iter().map(|part| (part.at, part.before.len()));
        text_lines(out, '-', &text.before, &old.collect::<Vec<_>>(), style);
        let mut shift = 0_isize;
        let new = text.parts.iter().map(|part| {
            let at = part.at.saturating_add_signed(shift);
            shift += part.after.len() as isize - part.before.len() as isize;
            (at, part.after.len())
        });
        text_lines(out, '+', &text.after, &new.collect::<Vec<_>>(), style);
    }
    for change in &stage.fields {
        let (sign, value) = match (&change.before, &change.after) {
            (Some(before), Some(after)) => ('~', format!("{} → {}", shown(before), shown(after))),
            (None, Some(after)) => ('+', shown(after)),
            (before, _) => ('-', before.as_deref().map(shown).unwrap_or_default()),
        };
        let name = shown(&change.name);
        let text = format!("{sign} {name} = {value}");
        let _ = writeln!(out, "    {}", paint(&text, colour(sign), style));
    }
}

fn colour(sign: char) -> &'static str {
    match sign {
        '-' => "31",
        '+' => "32",
        _ => "33",
    }
}

fn paint(text: &str, code: &str, style: Style) -> String {
    if style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A text with its changed stretches marked, line by line.
fn text_lines(out: &mut String, sign: char, text: &str, marks: &[(usize, usize)], style: Style) {
    let mut begin = 0;
    for (count, own) in text.split('\n').enumerate() {
        if count == LINES {
            let more = text[begin..].split('\n').count();
            let _ = writeln!(
                out,
                "    {} … and {more} more lines",
                paint(&sign.to_string(), colour(sign), style)
            );
            return;
        }
        let end = begin + own.len();
        let within = marks.iter().filter(|(from, len)| *from < end && from + len > begin);
        let within: Vec<(usize, usize)> = within
            .map(|(from, len)| {
                let (from, to) = ((*from).max(begin), (from + len).min(end));
                (from - begin, to - from)
            })
            .collect();
        line(out, sign, own, &within, style);
        begin = end + 1;
    }
}

/// One line of it, cut around its first change.
fn line(out: &mut String, sign: char, text: &str, marks: &[(usize, usize)], style: Style) {
    let _ = write!(out, "    {} ", paint(&sign.to_string(), colour(sign), style));
    let first = marks.first().map_or(0, |(at, _)| *at);
    let ahead = text[..text.floor_char_boundary(first)].chars().count();
    let skip = if text.chars().count() > SHOWN { ahead.saturating_sub(BEFORE) } else { 0 };
    let bold = format!("1;{}", colour(sign));
    let mut run = String::new();
    let mut was_marked = false;
    let flush = |out: &mut String, run: &mut String, is_marked: bool| {
        out.push_str(&if is_marked { paint(run, &bold, style) } else { std::mem::take(run) });
        run.clear();
    };
    if skip > 0 {
        out.push('…');
    }
    let mut marks = marks.iter().peekable();
    for (count, (at, c)) in text.char_indices().skip(skip).enumerate() {
        while marks.next_if(|(from, len)| from + len <= at).is_some() {}
        let is_marked = marks.peek().is_some_and(|(from, _)| *from <= at);
        if is_marked != was_marked {
            flush(out, &mut run, was_marked);
            was_marked = is_marked;
        }
        if count == SHOWN {
            run.push('…');
            break;
        }
        crate::tail::escape(c.encode_utf8(&mut [0; 4]), &mut run);
    }
    flush(out, &mut run, was_marked);
    out.push('\n');
}
