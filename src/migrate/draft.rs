//! An `agent.toml` in the making, and the remarks that go with it.
//!
//! In: keys, rules and secrets as the translation finds them. Out: text that the loader accepts: it is loaded before it
//! is given out, and a part that the loader refuses is taken out and told. Invariant: a value given to
//! [`secret`](Draft::secret) stands nowhere in the text.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::{Kind, Migration, Remark};
use crate::config::diagnostics::Spot;
use crate::config::render::toml_value;
use crate::config::tree::push_key;
use crate::config::{self, Sources, schema};

/// Rules of one kind, by the config's own limit.
const MAX_RULES: usize = crate::logs::process::MAX_RULES;

/// A table with what its comment says.
#[derive(Debug, Clone)]
struct Part {
    path: Vec<String>,
    comment: String,
    line: usize,
    keys: Vec<(String, Json)>,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Draft {
    from: &'static str,
    parts: Vec<Part>,
    remarks: Vec<Remark>,
}

impl Draft {
    pub(super) fn new(from: &'static str) -> Self {
        Self { from, parts: Vec::new(), remarks: Vec::new() }
    }

    /// Something could not be translated.
    pub(super) fn lost(&mut self, line: usize, what: impl Into<String>, instead: impl Into<String>) {
        self.remark(Kind::Lost, line, what.into(), instead.into());
    }

    /// Something that a person should know.
    pub(super) fn note(&mut self, line: usize, what: impl Into<String>, instead: impl Into<String>) {
        self.remark(Kind::Note, line, what.into(), instead.into());
    }

    pub(super) fn note_config_map(&mut self, line: Option<usize>) {
        if let Some(line) = line {
            self.note(line, "the config within this file was translated", "");
        }
    }

    fn remark(&mut self, kind: Kind, line: usize, what: String, instead: String) {
        let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
        let instead: String =
            instead.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
        let remark = Remark { line: line.max(1), kind, what, instead };
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    /// True when our config has this key: another release may have more.
    pub(super) fn knows(path: &[&str]) -> bool {
        path.iter().try_fold(schema::root(), |shape, key| shape.key(key).or_else(|| shape.named())).is_some()
    }

    fn part(&mut self, path: &[&str], line: usize) -> &mut Part {
        let found = self.parts.iter().position(|part| part.path == path);
        let index = found.unwrap_or_else(|| {
            let path = path.iter().map(|part| (*part).to_owned()).collect();
            self.parts.push(Part { path, comment: String::new(), line, keys: Vec::new() });
            self.parts.len() - 1
        });
        &mut self.parts[index]
    }

    /// Begins a table, with a comment that says where it comes from.
    pub(super) fn table(&mut self, path: &[&str], line: usize, comment: impl Into<String>) {
        let comment = comment.into();
        let part = self.part(path, line);
        if part.comment.is_empty() {
            part.comment = comment;
        }
    }

    /// Sets a key; the first value holds, another one is told.
    pub(super) fn set(&mut self, path: &[&str], key: &str, value: impl Into<Json>, line: usize) {
        let value = value.into();
        let part = self.part(path, line);
        match part.keys.iter().find(|(known, _)| known == key) {
            None => part.keys.push((key.to_owned(), value)),
            Some((_, known)) if *known == value => {}
            Some(_) => {
                let what = format!("a second value for `{}.{key}`", path.join("."));
                self.lost(line, what, "there is one for the whole agent; the first one was taken");
            }
        }
    }

    /// Adds a key to an inline table (`headers`).
    pub(super) fn set_inner(&mut self, path: &[&str], key: &str, inner: &str, value: String, line: usize) {
        let part = self.part(path, line);
        match part.keys.iter_mut().find(|(known, _)| known == key) {
            Some((_, Json::Object(map))) => {
                map.insert(inner.to_owned(), value.into());
            }
            _ => {
                let map = Map::from_iter([(inner.to_owned(), Json::from(value))]);
                part.keys.push((key.to_owned(), map.into()));
            }
        }
    }

    /// The text that stands for a secret: the reference that the source has already, or one to `variable`, with a note.
    pub(super) fn secret(&mut self, value: &str, variable: &str, what: &str, line: usize) -> String {
        if let Some(name) = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            && is_variable(name)
        {
            return format!("${{env:{name}}}");
        }
        self.note(
            line,
            format!("{what} is a secret and was left out"),
            format!("give it to the agent in the variable {variable}, or use the key's `_file` form where it has one"),
        );
        format!("${{env:{variable}}}")
    }

    /// Adds a named rule: `kind` is `["process", "drop"]`. The same rule twice is one.
    pub(super) fn rule(
        &mut self,
        kind: &[&str],
        name: &str,
        keys: Vec<(String, Json)>,
        line: usize,
        comment: impl Into<String>,
    ) {
        let same_kind = |part: &&Part| {
            part.path.len() == kind.len() + 1 && part.path.iter().zip(kind).all(|(one, other)| one == other)
        };
        let mut names = Vec::new();
        for part in self.parts.iter().filter(same_kind) {
            if part.keys == keys {
                return;
            }
            names.push(part.path[kind.len()].clone());
        }
        if names.len() >= MAX_RULES {
            let what = format!("more than {MAX_RULES} rules of [{}]", kind.join("."));
            self.lost(line, what, "join rules: a list in a condition matches if one of its values does");
            return;
        }
        let name = free_name(name, &names);
        let mut path: Vec<String> = kind.iter().map(|part| (*part).to_owned()).collect();
        path.push(name);
        self.parts.push(Part { path, comment: comment.into(), line, keys });
    }

    /// Renders, loads what was rendered, and takes out what the loader refuses.
    pub(super) fn finish(mut self, source: &str) -> Migration {
        // Each round takes a part or a sink's headers out, so it ends.
        let mut toml = self.render(source).0;
        for _ in 0..=2 * self.parts.len() {
            let (text, lines) = self.render(source);
            toml = text;
            let sources = Sources {
                file: Some(("agent.toml".to_owned(), toml.clone())),
                env: variables(&toml),
                ..Sources::default()
            };
            let Err(bad) = config::load(&sources) else { break };
            let Some(diagnostic) = bad.0.first() else { break };
            let line = if let Spot::Source { line, .. } = diagnostic.spot { line } else { 0 };
            let help = diagnostic.help.clone().unwrap_or_else(|| "write it by hand".to_owned());
            let Some(index) = self.refused(&lines, line, &diagnostic.key, &diagnostic.message) else {
                self.parts.clear();
                self.lost(1, format!("all of it: {}", diagnostic.message), help);
                continue;
            };
            let path = self.parts[index].path.clone();
            let at = self.parts[index].line;
            let headers = self.parts[index].keys.iter().position(|(key, _)| key == "headers");
            if let Some(key) = headers.filter(|_| diagnostic.message.contains("credentials")) {
                self.parts[index].keys.remove(key);
                self.lost(at, format!("[{}] headers: {}", path.join("."), diagnostic.message), help);
                continue;
            }
            self.lost(at, format!("[{}]: {}", path.join("."), diagnostic.message), help);
            // What is below a sink goes with it.
            self.parts.retain(|part| !part.path.starts_with(&path));
            if path.last().is_some_and(|last| last == "auth") {
                // Other credentials stand in the headers.
                for part in self.parts.iter_mut().filter(|part| part.path == path[..path.len() - 1]) {
                    part.keys.retain(|(key, _)| key != "headers");
                }
            }
        }
        self.remarks.sort_by_key(|remark| remark.line);
        Migration { source: source.to_owned(), toml, remarks: self.remarks }
    }

    /// The part that a diagnostic of the loader is about: at `line` of the text, or named by the key or the message.
    fn refused(&self, lines: &[(usize, usize)], line: usize, key: &str, message: &str) -> Option<usize> {
        let named = |text: &str, part: &Part| {
            let path = part.path.join(".");
            text.strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':']))
        };
        // A refused rule is named by the message where only its table has a place.
        let deepest = |text: &str| {
            let fitting =
                self.parts.iter().enumerate().filter(|(_, part)| part.path.len() > 2 && named(text, part));
            fitting.max_by_key(|(_, part)| part.path.len()).map(|(index, _)| index)
        };
        let placed =
            lines.iter().rev().find(|(begin, _)| line > 0 && *begin <= line).map(|(_, index)| *index);
        let index = deepest(message)
            .or(placed)
            .or_else(|| deepest(key))
            .or_else(|| self.parts.iter().position(|part| named(key, part)))?;
        // Credentials that cannot travel as they are said cost the credentials, not the sink.
        let path = &self.parts[index].path;
        let auth = self.parts.iter().position(|part| {
            part.path.len() == path.len() + 1
                && part.path.starts_with(path)
                && part.path[path.len()] == "auth"
        });
        Some(auth.filter(|_| message.contains("credentials")).unwrap_or(index))
    }

    /// The text, and at which of its lines each part begins.
    fn render(&self, source: &str) -> (String, Vec<(usize, usize)>) {
        let mut out = format!(
            "# Translated from the {} config {} by `nodewick migrate`.\n\
             # `nodewick check -c FILE` says what it comes to; what could not be translated was told on standard error.\n",
            self.from,
            one_line(source)
        );
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        let section = |index: &usize| {
            let first = self.parts[*index].path.first().map_or("", String::as_str);
            config::render::SECTIONS.iter().position(|known| *known == first).unwrap_or(usize::MAX)
        };
        order.sort_by_key(|index| {
            let path = &self.parts[*index].path;
            // A sink's inner tables follow it, and a section's rules its own keys; rules stay in the source's order.
            let sorted = path.first().is_some_and(|first| first == "sink" || first == "logs");
            (section(index), if sorted { path.clone() } else { Vec::new() })
        });
        let mut lines = Vec::new();
        for index in order {
            let part = &self.parts[index];
            if part.keys.is_empty() && part.path.len() < 3 {
                continue;
            }
            out.push('\n');
            lines.push((out.matches('\n').count() + 1, index));
            for line in wrapped(&part.comment) {
                let _ = writeln!(out, "# {line}");
            }
            let mut path = String::new();
            for (index, key) in part.path.iter().enumerate() {
                if index > 0 {
                    path.push('.');
                }
                push_key(&mut path, key);
            }
            let _ = writeln!(out, "[{path}]");
            for (key, value) in &part.keys {
                let mut name = String::new();
                push_key(&mut name, key);
                let _ = writeln!(out, "{name} = {}", toml_value(value));
            }
        }
        (out, lines)
    }
}

/// The variables that a text refers to, with values that a loader can work with.
fn variables(toml: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in toml.match_indices("${env:") {
        let rest = &toml[at + 6..];
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let value = match name.to_ascii_uppercase() {
            name if name.contains("URL") || name.contains("ENDPOINT") => "https://host.example:3100",
            name if name.contains("PORT") => "3100",
            // Not this host: credentials may not travel to another one in clear text.
            _ => "host.example",
        };
        found.push((name, value.to_owned()));
    }
    found
}

/// True for the name of an environment variable.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `${VAR}`, `${VAR:default}` and `${VAR:-default}` as our references.
pub(super) fn references(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            out.push_str(&rest[at..]);
            return out;
        };
        let (name, default) = match inner[..end].split_once(':') {
            // One of ours already.
            Some(("env", reference)) if is_variable(reference.split(':').next().unwrap_or_default()) => {
                out.push_str(&rest[at..at + 2 + end + 1]);
                rest = &inner[end + 1..];
                continue;
            }
            Some((name, default)) => (name, Some(default.strip_prefix('-').unwrap_or(default))),
            None => (&inner[..end], None),
        };
        if is_variable(name) {
            let default = default.map(|default| format!(":-{default}")).unwrap_or_default();
            let _ = write!(out, "${{env:{name}{default}}}");
        } else {
            out.push_str(&rest[at..at + 2 + end + 1]);
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    out
}

/// A rule's name of the allowed letters that none of `taken` is.
fn free_name(wanted: &str, taken: &[String]) -> String {
    let plain: String = wanted
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '_' })
        .take(32)
        .collect();
    let plain = plain.trim_matches(['_', '-']);
    let plain = if plain.is_empty() { "rule" } else { plain };
    let mut name = plain.to_owned();
    let mut number = 2;
    while taken.contains(&name) {
        name = format!("{plain}_{number}");
        number += 1;
    }
    name
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// Lines of at most about a hundred columns.
fn wrapped(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in one_line(text).split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 98 {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_references() {
        for (text, expected) in [
            ("http://${HOST}:${PORT:-3100}/x", "http://${env:HOST}:${env:PORT:-3100}/x"),
            ("${A:b}", "${env:A:-b}"),
            ("${1} ${", "${1} ${"),
            ("${env:A}/${env:B:-c}", "${env:A}/${env:B:-c}"),
            ("plain", "plain"),
        ] {
            assert_eq!(references(text), expected);
        }
    }

    #[test]
    fn a_rules_name_is_made_of_what_is_allowed_and_is_free() {
        assert_eq!(free_name("Drop: Health!", &[]), "drop__health");
        assert_eq!(free_name("x", &["x".to_owned(), "x_2".to_owned()]), "x_3");
        assert_eq!(free_name("***", &[]), "rule");
    }

    #[test]
    fn what_the_loader_refuses_is_taken_out_and_told() {
        let mut draft = Draft::new("test");
        draft.set(&["agent"], "cluster", "c", 1);
        draft.rule(&["process", "drop"], "bad", vec![("regex".to_owned(), "(".into())], 7, "");
        let done = draft.finish("x.yaml");
        assert!(
            done.is_lossy() && done.toml.contains("cluster = \"c\"") && !done.toml.contains("regex"),
            "{done:?}"
        );
        assert_eq!(done.remarks[0].line, 7);
        assert!(done.remarks[0].what.contains("bad regular expression"), "{done:?}");
    }
}
