//! Relabelling in Prometheus' own vocabulary, for targets and for samples.
//!
//! In: rules as `[[scrape.relabel]]` and `[[scrape.metric_relabel]]` say them, and a set of labels. Out: the labels
//! changed, or the word that what they are of is dropped. Invariants: labels stay sorted by name, no name comes twice,
//! and none is empty or has an empty value through a rule; nothing is allocated for a sample that no rule changes.
//!
//! Names may be any UTF-8, as with Prometheus 3 by default. Source: Prometheus, `model/relabel/relabel.go`.

mod md5;
mod pattern;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::sample::{Label, Span};
use pattern::Pattern;
use template::Template;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sets `target_label` to `replacement` where the value matches `regex`.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops where the value is not that of `target_label`.
    KeepEqual,
    /// Drops where the value is that of `target_label`.
    DropEqual,
    /// Sets `target_label` to a hash of the value modulo `modulus`.
    HashMod,
    /// Copies each label whose name matches to the name that `replacement` gives.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets `target_label` to the value in lower case.
    Lowercase,
    /// Sets `target_label` to the value in upper case.
    Uppercase,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }
}

/// One rule, with Prometheus' own keys and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the rule does: replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase or
    /// uppercase.
    pub action: Action,
    /// Labels whose values, joined by the separator, are the value that the rule looks at. One that is missing is empty.
    pub source_labels: Vec<String>,
    /// What joins them.
    pub separator: String,
    /// Regular expression that the whole value must match; for labelmap, labeldrop and labelkeep the name of a label.
    pub regex: String,
    /// Label that is set. With replace it may hold groups of the regex: `${1}`.
    pub target_label: String,
    /// What it is set to, with groups of the regex (`$1`, `${name}`). Empty removes the label. With labelmap a label's new name.
    pub replacement: String,
    /// What hashmod divides by.
    pub modulus: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            action: Action::Replace,
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            regex: pattern::DEFAULT.to_owned(),
            target_label: String::new(),
            replacement: "$1".to_owned(),
            modulus: 0,
        }
    }
}

/// A rule that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule}: {message}")]
pub struct Problem {
    /// Its number, from 1.
    pub rule: usize,
    /// The key that is wrong.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub help: &'static str,
}

/// Rules, applied in their order.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    sources: Vec<Box<[u8]>>,
    separator: Box<[u8]>,
    pattern: Pattern,
    what: What,
}

/// What a rule does, with what it needs for it.
#[derive(Debug)]
enum What {
    Keep,
    Drop,
    KeepEqual(Box<[u8]>),
    DropEqual(Box<[u8]>),
    Replace { target: Template, with: Template },
    HashMod { target: Box<[u8]>, modulus: u64 },
    Map(Template),
    DropLabels,
    KeepLabels,
    Lowercase(Box<[u8]>),
    Uppercase(Box<[u8]>),
}

impl Rules {
    /// Compiles rules; all that is wrong with them is told at once.
    pub fn compile(rules: &[Config]) -> Result<Self, Vec<Problem>> {
        let mut found = Vec::with_capacity(rules.len());
        let mut problems = Vec::new();
        for (index, config) in rules.iter().enumerate() {
            match Rule::new(config) {
                Ok(rule) => found.push(rule),
                Err((key, message, help)) => problems.push(Problem { rule: index + 1, key, message, help }),
            }
        }
        if problems.is_empty() { Ok(Self(found)) } else { Err(problems) }
    }

    /// True when there is no rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies the rules to the labels of one sample, whose text is in `arena`: sorted by name, `__name__` among them,
    /// and so they are after it. New text is appended. False when the sample is dropped; its labels may then be half
    /// changed. `__name__` may be gone too, if a rule removes it.
    pub fn apply(&self, arena: &mut Vec<u8>, labels: &mut Vec<Label>) -> bool {
        self.0.iter().all(|rule| rule.apply(arena, labels))
    }

    /// The same for labels of their own, such as a target's.
    pub fn apply_owned(&self, labels: &mut BTreeMap<String, String>) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut arena = Vec::with_capacity(4096);
        let mut put = |text: &str| {
            let start = arena.len();
            arena.extend_from_slice(text.as_bytes());
            Span::new(start, arena.len())
        };
        let of = |(name, value): (&String, &String)| Label { name: put(name), value: put(value) };
        let mut found: Vec<Label> = labels.iter().map(of).collect();
        let kept = self.apply(&mut arena, &mut found);
        let text = |span: Span| String::from_utf8_lossy(span.of(&arena)).into_owned();
        *labels = found.iter().map(|label| (text(label.name), text(label.value))).collect();
        kept
    }
}

/// The key that is wrong, how, and what to write.
type Wrong = (&'static str, String, &'static str);

impl Rule {
    fn new(config: &Config) -> Result<Self, Wrong> {
        let of_default = Config::default();
        let word = config.action.word();
        let pattern = Pattern::new(&config.regex).map_err(|cause| {
            (
                "regex",
                format!("not a regular expression: {cause}"),
                "the syntax is that of RE2, as in Prometheus",
            )
        })?;
        let sets = !matches!(
            config.action,
            Action::Keep | Action::Drop | Action::LabelMap | Action::LabelDrop | Action::LabelKeep
        );
        if sets && config.target_label.is_empty() {
            let help = "name the label that it is about: target_label = \"team\"";
            return Err(("target_label", format!("{word} needs a target_label"), help));
        }
        if config.action == Action::HashMod && config.modulus == 0 {
            return Err((
                "modulus",
                "hashmod needs a modulus above 0".to_owned(),
                "modulus = 4 makes four shards",
            ));
        }
        let foreign = |key: &'static str, is_foreign: bool, help: &'static str| {
            if is_foreign { Err((key, format!("{word} does not use {key}"), help)) } else { Ok(()) }
        };
        let cases = matches!(config.action, Action::Lowercase | Action::Uppercase);
        let compares = matches!(config.action, Action::KeepEqual | Action::DropEqual);
        let names = matches!(config.action, Action::LabelDrop | Action::LabelKeep);
        if cases || compares || names {
            let help = "leave it out";
            foreign("replacement", config.replacement != of_default.replacement, help)?;
        }
        if compares {
            let help = "it takes source_labels and target_label only";
            foreign("regex", config.regex != of_default.regex, help)?;
        }
        if compares || names {
            let help =
                if names { "it takes a regex only" } else { "it takes source_labels and target_label only" };
            foreign("modulus", config.modulus != 0, help)?;
            foreign("separator", config.separator != of_default.separator, help)?;
        }
        if names {
            let help = "it takes a regex only, which the names of labels are matched with";
            foreign("source_labels", !config.source_labels.is_empty(), help)?;
            foreign("target_label", !config.target_label.is_empty(), help)?;
        }
        if config.action == Action::LabelMap && config.replacement.is_empty() {
            let help = "leave it out for group 1 of the regex, or write \"pod_$1\"";
            return Err(("replacement", "labelmap needs a new name for the labels".to_owned(), help));
        }
        let target = || Box::from(config.target_label.as_bytes());
        let with = Template::new(&config.replacement, &pattern);
        let what = match config.action {
            Action::Replace => What::Replace { target: Template::new(&config.target_label, &pattern), with },
            Action::Keep => What::Keep,
            Action::Drop => What::Drop,
            Action::KeepEqual => What::KeepEqual(target()),
            Action::DropEqual => What::DropEqual(target()),
            Action::HashMod => What::HashMod { target: target(), modulus: config.modulus },
            Action::LabelMap => What::Map(with),
            Action::LabelDrop => What::DropLabels,
            Action::LabelKeep => What::KeepLabels,
            Action::Lowercase => What::Lowercase(target()),
            Action::Uppercase => What::Uppercase(target()),
        };
        Ok(Self {
            sources: config.source_labels.iter().map(|name| Box::from(name.as_bytes())).collect(),
            separator: config.separator.as_bytes().into(),
            pattern,
            what,
        })
    }

    /// False when what the labels are of is dropped.
    fn apply(&self, arena: &mut Vec<u8>, labels: &mut Vec<Label>) -> bool {
        match &self.what {
            What::Map(name) => {
                self.map(name, arena, labels);
                return true;
            }
            What::DropLabels | What::KeepLabels => {
                let keeps = matches!(self.what, What::KeepLabels);
                labels.retain(|label| self.pattern.matches(label.name.of(arena)) == keeps);
                return true;
            }
            _ => {}
        }
        // What is joined or filled in stands at the end of the arena while it is looked at.
        let end = arena.len();
        let value = self.value(arena, labels);
        match &self.what {
            What::Keep | What::Drop => {
                let matches = self.pattern.matches(value.of(arena));
                arena.truncate(end);
                matches == matches!(self.what, What::Keep)
            }
            What::KeepEqual(target) | What::DropEqual(target) => {
                let other = find(arena, labels, target).map(|at| labels[at].value).unwrap_or_default();
                let equal = other.of(arena) == value.of(arena);
                arena.truncate(end);
                equal == matches!(self.what, What::KeepEqual(_))
            }
            What::Replace { target, with } => {
                self.replace(target, with, value, end, arena, labels);
                true
            }
            What::HashMod { target, modulus } => {
                let digest = md5::digest(value.of(arena));
                let last = digest.last_chunk().copied().unwrap_or_default();
                arena.truncate(end);
                let written = write_number(u64::from_be_bytes(last) % modulus, arena);
                set(arena, labels, target, written);
                true
            }
            What::Lowercase(target) | What::Uppercase(target) => {
                let written = write_case(value, matches!(self.what, What::Uppercase(_)), end, arena);
                set(arena, labels, target, written);
                true
            }
            What::Map(_) | What::DropLabels | What::KeepLabels => true,
        }
    }

    /// The value that the rule looks at: that of its one source label, or all of them joined at the end of the arena.
    fn value(&self, arena: &mut Vec<u8>, labels: &[Label]) -> Span {
        let of = |arena: &[u8], name: &[u8]| find(arena, labels, name).map(|at| labels[at].value);
        match self.sources.as_slice() {
            [] => Span::default(),
            [name] => of(arena, name).unwrap_or_default(),
            several => {
                let start = arena.len();
                for (index, name) in several.iter().enumerate() {
                    if index > 0 {
                        arena.extend_from_slice(&self.separator);
                    }
                    if let Some(value) = of(arena, name) {
                        arena.extend_from_within(range(value));
                    }
                }
                Span::new(start, arena.len())
            }
        }
    }

    /// `end` is where the arena ended before the value was made.
    fn replace(
        &self,
        target: &Template,
        with: &Template,
        value: Span,
        end: usize,
        arena: &mut Vec<u8>,
        labels: &mut Vec<Label>,
    ) {
        let Some(groups) = self.pattern.captures(value.of(arena)) else {
            arena.truncate(end);
            return;
        };
        let start = value.start as usize;
        let name_start = arena.len();
        target.fill(start, &groups, arena);
        let new_start = arena.len();
        with.fill(start, &groups, arena);
        drop(groups);
        let name = Span::new(name_start, new_start);
        let new = Span::new(new_start, arena.len());
        let known = find(arena, labels, name.of(arena));
        match known {
            Some(at) if new.is_empty() => {
                labels.remove(at);
                arena.truncate(end);
            }
            Some(at) if labels[at].value.of(arena) == new.of(arena) => arena.truncate(end),
            Some(at) => labels[at].value = keep(arena, end, new),
            None if new.is_empty() || name.is_empty() => arena.truncate(end),
            None => {
                let both = keep(arena, end, Span { start: name.start, len: name.len + new.len });
                let name = Span { start: both.start, len: name.len };
                let value = Span { start: both.start + name.len, len: new.len };
                insert(arena, labels, Label { name, value });
            }
        }
    }

    /// Copies labels to new names. What a copy makes is not looked at again.
    fn map(&self, to: &Template, arena: &mut Vec<u8>, labels: &mut Vec<Label>) {
        let mut copies: Vec<Label> = Vec::new();
        for label in labels.iter().filter(|label| !label.value.is_empty()) {
            let Some(groups) = self.pattern.captures(label.name.of(arena)) else { continue };
            let written = arena.len();
            to.fill(label.name.start as usize, &groups, arena);
            if arena.len() > written {
                copies.push(Label { name: Span::new(written, arena.len()), value: label.value });
            }
        }
        for copy in copies {
            match find(arena, labels, copy.name.of(arena)) {
                Some(at) => labels[at].value = copy.value,
                None => insert(arena, labels, copy),
            }
        }
    }
}

fn range(span: Span) -> std::ops::Range<usize> {
    span.start as usize..span.start as usize + span.len as usize
}

/// Where the label of a name is.
#[inline]
fn find(arena: &[u8], labels: &[Label], name: &[u8]) -> Option<usize> {
    // A sample has a dozen labels: looking at each is not slower than halving.
    labels.iter().position(|label| label.name.len as usize == name.len() && label.name.of(arena) == name)
}

/// Enters a label of a new name where it belongs.
fn insert(arena: &[u8], labels: &mut Vec<Label>, label: Label) {
    let name = label.name.of(arena);
    let at = labels.partition_point(|known| known.name.of(arena) < name);
    labels.insert(at, label);
}

/// Sets a label to text in the arena; empty text removes it.
fn set(arena: &mut Vec<u8>, labels: &mut Vec<Label>, name: &[u8], value: Span) {
    match find(arena, labels, name) {
        Some(at) if value.is_empty() => {
            labels.remove(at);
        }
        Some(at) => labels[at].value = value,
        None if value.is_empty() => {}
        None => {
            let start = arena.len();
            arena.extend_from_slice(name);
            insert(arena, labels, Label { name: Span::new(start, start + name.len()), value });
        }
    }
}

/// Moves text to `end` and forgets all that stood there beside it.
fn keep(arena: &mut Vec<u8>, end: usize, text: Span) -> Span {
    arena.copy_within(range(text), end);
    arena.truncate(end + text.len as usize);
    Span::new(end, arena.len())
}

fn write_number(mut number: u64, arena: &mut Vec<u8>) -> Span {
    let start = arena.len();
    loop {
        arena.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    arena[start..].reverse();
    Span::new(start, arena.len())
}

/// The value in lower or upper case. Text is written only where a letter changes.
fn write_case(value: Span, up: bool, end: usize, arena: &mut Vec<u8>) -> Span {
    let text = value.of(arena);
    if text.is_ascii() {
        let changes = |b: &u8| if up { b.is_ascii_lowercase() } else { b.is_ascii_uppercase() };
        if !text.iter().any(changes) {
            return value;
        }
        let written = if value.start as usize >= end {
            value
        } else {
            arena.extend_from_within(range(value));
            Span::new(end, arena.len())
        };
        let text = &mut arena[range(written)];
        if up {
            text.make_ascii_uppercase()
        } else {
            text.make_ascii_lowercase()
        }
        return written;
    }
    // Letter by letter, as Go does: what becomes several letters stays, but for the dotted I.
    let one = |letter: char| {
        if up {
            let mut all = letter.to_uppercase();
            all.next().filter(|_| all.next().is_none()).unwrap_or(letter)
        } else {
            letter.to_lowercase().next().unwrap_or(letter)
        }
    };
    let text: String = String::from_utf8_lossy(text).chars().map(one).collect();
    arena.truncate(end);
    arena.extend_from_slice(text.as_bytes());
    Span::new(end, arena.len())
}
