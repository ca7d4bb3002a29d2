//! Unit tests of processing rules: cases in TOML, what is expected of each record, and how reality differs.
//!
//! In: the text of a case file. Out: [`Case`]s with their lines in the file, or [`Diagnostics`] with line and caret; and
//! for each case that was run, its differences. Invariant: a key that is not understood is an error, so that a misspelt
//! expectation cannot pass.

use std::fmt::Write as _;
use std::ops::Range;

use super::{NO_HEADER, Pipeline, Story, Who, fields_of, text_of};
use crate::config::diagnostics::{Diagnostic, Diagnostics, Spot, nearest};
use crate::config::tree::{self, Entry, Node, Place, Table, Value};
use crate::data::batch::Marks;
use crate::kube::resolve::Problem;

/// Cases of one file, at most.
const MAX_CASES: usize = 10_000;

/// The stamp of the first line without one: 2026-01-01T00:00:00Z. Each further line is a millisecond later.
const FIRST_STAMP: u64 = 1_767_225_600_000_000_000;

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name, for people.
    pub name: String,
    /// Where it begins in its file, from 1.
    pub line: usize,
    /// Who wrote the lines.
    pub who: Who,
    /// Stream of the lines that do not say it themselves.
    pub stream: &'static str,
    /// The lines: raw, CRI or docker json-file.
    pub lines: Vec<String>,
    /// What is expected of each record, in their order.
    pub expect: Vec<Expect>,
}

/// What is expected of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    /// Where it stands in its file, from 1.
    pub line: usize,
    /// Each expectation with its own line.
    pub wants: Vec<(usize, Want)>,
}

/// One expectation.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// The record is sent, or not.
    Kept(bool),
    /// The rule that drops it: `drop.health`.
    DroppedBy(String),
    /// The line has these texts in it.
    Contains(Vec<String>),
    /// The line has none of these texts in it.
    Lacks(Vec<String>),
    /// A field, by its name, has this value; empty for a field that is absent.
    Field(&'static str, String),
    /// These redaction rules found something, in any order.
    Redacted(Vec<String>),
}

/// One difference between what was expected and what was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Line of the expectation in its file.
    pub line: usize,
    /// What it is about: `record 1: level`.
    pub about: String,
    /// What was expected.
    pub expected: String,
    /// What was.
    pub got: String,
}

const CASE_KEYS: [&str; 11] = [
    "name",
    "namespace",
    "pod",
    "container",
    "service",
    "labels",
    "annotations",
    "stream",
    "lines",
    "input",
    "expect",
];

/// Expectations about fields, as `[record] fields` and the docs name them.
const FIELDS: [&str; 18] = [
    "body",
    "level",
    "trace_id",
    "span_id",
    "request_id",
    "http_method",
    "http_route",
    "url_path",
    "http_status",
    "duration_ms",
    "app_time",
    "stream",
    "service",
    "lines",
    "repeated",
    "truncated",
    "trace_inherited",
    "released",
];
const OTHERS: [&str; 5] = ["kept", "dropped_by", "contains", "lacks", "redacted"];

/// Reads a case file; `name` is how messages call it.
///
/// # Errors
/// Everything that is wrong with it, each with line and caret.
pub fn read(name: &str, text: &str) -> Result<Vec<Case>, Diagnostics> {
    let mut reader = Reader { name, text, found: Vec::new() };
    let cases = match tree::parse(text) {
        Ok(table) => reader.file(&table),
        Err(flaws) => {
            for (message, span) in flaws.into_iter().take(1) {
                reader.fail("", message.replace('\n', ", "), &Place::File(span), None);
            }
            Vec::new()
        }
    };
    if reader.found.is_empty() { Ok(cases) } else { Err(Diagnostics(reader.found)) }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn fail(&mut self, key: &str, message: impl Into<String>, place: &Place, help: Option<String>) {
        let span = span_of(place);
        let spot = Spot::in_source(self.name, self.text, span, false);
        self.found.push(Diagnostic::error(key, message, spot).help(help));
    }

    fn line(&self, place: &Place) -> usize {
        let at = span_of(place).start.min(self.text.len());
        self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn file(&mut self, table: &Table) -> Vec<Case> {
        for (key, entry) in table.iter().filter(|(key, _)| *key != "case") {
            self.fail(
                key,
                "unknown key",
                &entry.key,
                Some("a file of cases has [[case]] tables only".to_owned()),
            );
        }
        let Some(entry) = table.get("case") else {
            if self.found.is_empty() {
                let help = "write a table [[case]] for each case".to_owned();
                self.found.push(
                    Diagnostic::error("", "no case in this file", Spot::File(self.name.to_owned()))
                        .help(Some(help)),
                );
            }
            return Vec::new();
        };
        let Value::Array(items) = &entry.node.value else {
            self.fail("case", "expected a list of tables", &entry.key, Some("write [[case]]".to_owned()));
            return Vec::new();
        };
        items.iter().take(MAX_CASES).filter_map(|item| self.case(item)).collect()
    }

    fn case(&mut self, item: &Node) -> Option<Case> {
        let Value::Table(table) = &item.value else {
            self.fail("case", "expected a table", &item.place, Some("write [[case]]".to_owned()));
            return None;
        };
        for (key, entry) in table.iter().filter(|(key, _)| !CASE_KEYS.contains(&key.as_str())) {
            let help = nearest(key, CASE_KEYS).map(|near| format!("did you mean `{near}`?"));
            let help = help.unwrap_or_else(|| format!("a case has {}", CASE_KEYS.join(", ")));
            self.fail(key, "unknown key", &entry.key, Some(help));
        }
        let mut get = |key: &str| table.get(key).and_then(|entry| self.text(key, entry));
        let who = Who {
            namespace: get("namespace"),
            pod: get("pod"),
            container: get("container"),
            service: get("service"),
            ..Who::default()
        };
        let name = get("name");
        let stream = match get("stream").as_deref() {
            None | Some("stdout") => "stdout",
            Some("stderr") => "stderr",
            Some(_) => {
                let place = table.get("stream").map_or(&item.place, |entry| &entry.node.place);
                self.fail("stream", "expected \"stdout\" or \"stderr\"", place, None);
                "stdout"
            }
        };
        let mut pairs = |key: &str, example: &str| {
            table.get(key).map(|entry| self.pairs(key, example, entry)).unwrap_or_default()
        };
        let labels = pairs("labels", "{ app = \"x\" }");
        let annotations = pairs("annotations", "{ \"nodewick.dev/parser\" = \"json\" }");
        let line = self.line(&item.place);
        let name = name.unwrap_or_else(|| format!("case at line {line}"));
        let lines = match (table.get("lines"), table.get("input")) {
            (Some(entry), None) => self.texts("lines", entry),
            (None, Some(entry)) => {
                let text = self.text("input", entry).unwrap_or_default();
                text.trim_end_matches('\n').split('\n').map(str::to_owned).collect()
            }
            (Some(_), Some(entry)) => {
                self.fail(
                    "input",
                    "stands beside `lines`",
                    &entry.key,
                    Some("give one of the two".to_owned()),
                );
                Vec::new()
            }
            (None, None) => {
                let help = "give lines = ['…'] or input = '''…'''".to_owned();
                self.fail("lines", "the case has no lines", &item.place, Some(help));
                Vec::new()
            }
        };
        let Some(entry) = table.get("expect") else {
            let help = "add a table [[case.expect]] for each record".to_owned();
            self.fail("expect", "the case expects nothing", &item.place, Some(help));
            return None;
        };
        let expect = match &entry.node.value {
            Value::Array(items) => items.iter().filter_map(|item| self.expect(item)).collect(),
            Value::Table(_) => self.expect(&entry.node).into_iter().collect(),
            _ => {
                self.fail(
                    "expect",
                    "expected a list of tables",
                    &entry.key,
                    Some("write [[case.expect]]".to_owned()),
                );
                Vec::new()
            }
        };
        Some(Case { name, line, who: Who { labels, annotations, ..who }, stream, lines, expect })
    }

    fn expect(&mut self, item: &Node) -> Option<Expect> {
        let Value::Table(table) = &item.value else {
            self.fail("expect", "expected a table", &item.place, None);
            return None;
        };
        let mut wants = Vec::new();
        for (key, entry) in table {
            let want = match key.as_str() {
                "kept" => match &entry.node.value {
                    Value::Bool(kept) => Some(Want::Kept(*kept)),
                    _ => {
                        self.fail(key, "expected true or false", &entry.node.place, None);
                        None
                    }
                },
                "dropped_by" => self.text(key, entry).map(Want::DroppedBy),
                "contains" => Some(Want::Contains(self.texts(key, entry))),
                "lacks" => Some(Want::Lacks(self.texts(key, entry))),
                "redacted" => Some(Want::Redacted(self.texts(key, entry))),
                _ => match FIELDS.iter().find(|known| *known == key) {
                    Some(field) => self.scalar(key, entry).map(|value| Want::Field(field, value)),
                    None => {
                        let known = OTHERS.iter().chain(&FIELDS).copied();
                        let help = nearest(key, known.clone()).map(|near| format!("did you mean `{near}`?"));
                        let all = || format!("known: {}", known.collect::<Vec<_>>().join(", "));
                        self.fail(key, "unknown expectation", &entry.key, Some(help.unwrap_or_else(all)));
                        None
                    }
                },
            };
            let line = self.line(&entry.key);
            wants.extend(want.map(|want| (line, want)));
        }
        wants.sort_by_key(|(line, _)| *line);
        Some(Expect { line: self.line(&item.place), wants })
    }

    /// A table of texts.
    fn pairs(&mut self, key: &str, example: &str, entry: &Entry) -> Vec<(String, String)> {
        let Value::Table(table) = &entry.node.value else {
            let help = Some(format!("{key} = {example}"));
            self.fail(key, "expected a table", &entry.node.place, help);
            return Vec::new();
        };
        table.iter().filter_map(|(key, entry)| Some((key.clone(), self.text(key, entry)?))).collect()
    }

    fn text(&mut self, key: &str, entry: &Entry) -> Option<String> {
        match &entry.node.value {
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.fail(
                    key,
                    "expected text",
                    &entry.node.place,
                    Some("put it in quotation marks".to_owned()),
                );
                None
            }
        }
    }

    /// Text, a number or a truth value, as text.
    fn scalar(&mut self, key: &str, entry: &Entry) -> Option<String> {
        match &entry.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Array(_) | Value::Table(_) => {
                self.fail(key, "expected one value", &entry.node.place, None);
                None
            }
        }
    }

    /// One text or a list of them.
    fn texts(&mut self, key: &str, entry: &Entry) -> Vec<String> {
        let help = || Some(format!("write {key} = ['…', '…']"));
        match &entry.node.value {
            Value::Text(text) => vec![text.clone()],
            Value::Array(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match &item.value {
                        Value::Text(text) => texts.push(text.clone()),
                        _ => self.fail(key, "expected text", &item.place, help()),
                    }
                }
                texts
            }
            _ => {
                self.fail(key, "expected a list of texts", &entry.node.place, help());
                Vec::new()
            }
        }
    }
}

fn span_of(place: &Place) -> Range<usize> {
    match place {
        Place::File(span) => span.clone(),
        _ => 0..0,
    }
}

impl Case {
    /// Runs the case; what differs.
    pub fn run(&self, pipeline: &Pipeline<'_>) -> Vec<Difference> {
        let stories = pipeline.run(&self.who, &self.input(), FIRST_STAMP);
        let mut differences = Vec::new();
        for (index, expect) in self.expect.iter().enumerate() {
            let about = format!("record {}", index + 1);
            match stories.get(index) {
                Some(story) => compare(story, expect, &about, &mut differences),
                None => differences.push(Difference {
                    line: expect.line,
                    about,
                    expected: "a record".to_owned(),
                    got: format!("the lines make {} in all", count(stories.len(), "record")),
                }),
            }
        }
        for (index, story) in stories.iter().enumerate().skip(self.expect.len()) {
            differences.push(Difference {
                line: self.line,
                about: format!("record {}", index + 1),
                expected: "no further record".to_owned(),
                got: quoted(&text_of(story.seen.record.body, &story.seen.text)),
            });
        }
        differences
    }

    /// The lines as a runtime would have written them: what has no header gets one.
    fn input(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, line) in self.lines.iter().flat_map(|line| line.split('\n')).enumerate() {
            let form = super::physical_lines(line.as_bytes()).first().map_or(NO_HEADER, |line| line.form);
            if form == NO_HEADER {
                let stamp = super::time(FIRST_STAMP + index as u64 * 1_000_000);
                out.extend_from_slice(format!("{stamp} {} F ", self.stream).as_bytes());
            }
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        out
    }
}

fn compare(story: &Story, expect: &Expect, about: &str, differences: &mut Vec<Difference>) {
    let (record, text) = story.outcome();
    let body = text_of(record.body, text);
    let dropped = story.dropped_by();
    let fate = || dropped.clone().map_or_else(|| "kept".to_owned(), |rule| format!("dropped by {rule}"));
    let mut differ = |line: usize, what: &str, expected: String, got: String| {
        differences.push(Difference { line, about: format!("{about}: {what}"), expected, got });
    };
    for (line, want) in &expect.wants {
        match want {
            Want::Kept(kept) => {
                if *kept != story.sent.is_some() {
                    let expected = if *kept { "kept" } else { "dropped" };
                    differ(*line, "kept", expected.to_owned(), fate());
                }
            }
            Want::DroppedBy(rule) => {
                if dropped.as_ref() != Some(rule) {
                    differ(*line, "dropped_by", format!("dropped by {rule}"), fate());
                }
            }
            Want::Contains(texts) => {
                for text in texts.iter().filter(|text| !body.contains(text.as_str())) {
                    differ(*line, "contains", quoted(text), quoted(&body));
                }
            }
            Want::Lacks(texts) => {
                for text in texts.iter().filter(|text| body.contains(text.as_str())) {
                    differ(*line, "lacks", format!("no {}", quoted(text)), quoted(&body));
                }
            }
            Want::Field(field, value) => {
                let got = field_of(story, field);
                if got != *value {
                    differ(*line, field, quoted(value), quoted(&got));
                }
            }
            Want::Redacted(rules) => {
                let (mut wanted, mut found) = (rules.clone(), story.redacted());
                wanted.sort();
                found.sort_unstable();
                if wanted != found {
                    differ(*line, "redacted", wanted.join(", "), found.join(", "));
                }
            }
        }
    }
}

/// A field of a story as text; empty when absent.
fn field_of(story: &Story, field: &str) -> String {
    let (record, text) = story.outcome();
    match field {
        "body" => text_of(record.body, text),
        "stream" => record.stream.name().to_owned(),
        "service" => {
            story.sent.as_ref().map(|sent| sent.batch.workload.service_name.clone()).unwrap_or_default()
        }
        "lines" => story.lines.len().to_string(),
        "repeated" => record.repeated.to_string(),
        "truncated" => story.is(Marks::TRUNCATED).to_string(),
        "trace_inherited" => story.is(Marks::TRACE_INHERITED).to_string(),
        "released" => story.is(Marks::RELEASED).to_string(),
        _ => {
            let found = fields_of(record, text).into_iter().find(|(name, _)| *name == field);
            found.map(|(_, value)| value).unwrap_or_default()
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// What is printed of one case that ran: `file` is how the operator called its file, `problems` are those of its
/// annotations.
pub fn report(file: &str, case: &Case, problems: &[Problem], differences: &[Difference]) -> String {
    let mark = if differences.is_empty() { "ok  " } else { "FAIL" };
    let mut out = format!("{mark}  {}  ({file}:{})\n", case.name, case.line);
    out.push_str(&super::explain::problems(problems, "      "));
    for difference in differences {
        let _ = write!(
            out,
            "      {}  ({file}:{})\n        - {}\n        + {}\n",
            difference.about, difference.line, difference.expected, difference.got
        );
    }
    out
}

/// The last line of the report.
pub fn summary(cases: usize, failed: usize) -> String {
    format!("{}, {failed} failed\n", count(cases, "case"))
}
