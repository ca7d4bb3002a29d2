//! YAML as values that know where they stand.
//!
//! In: text and [`Limits`]. Out: [`Node`]s, one a document. Invariant: the reader's budget bounds depth, nodes and what
//! aliases may multiply, so a small text cannot become a large tree; a key that stands twice is an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Budget, Spanned};

/// What a text may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Values, aliases replaced.
    pub nodes: usize,
    /// Documents.
    pub documents: usize,
    /// Keeps words and numbers as they are written: `n` stays `n` where it would be read as `false`, `0.10` keeps its zero.
    pub verbatim: bool,
}

/// Levels of nesting.
const MAX_DEPTH: usize = 32;
/// Anchors, and aliases.
const MAX_ALIASES: usize = 500;

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Line, from 1; 0 when it is about the text as a whole.
    pub line: u64,
    /// Column, from 1; 0 when it is about the text as a whole.
    pub column: u64,
    /// The cause, lower case, no full stop. Holds nothing of the text but names of keys.
    pub message: String,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The line of its key; in a list its own.
    pub line: usize,
    /// Its own line and column, from 1; where an alias stands, not its anchor.
    pub at: (usize, usize),
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Any scalar, as text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in its order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A value that stands in a line; the column is not known.
    pub const fn in_line(line: usize, value: Value) -> Self {
        Self { line, at: (line, 1), value }
    }

    /// The value of a key; `None` for a null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().find(|(known, _)| known == key).map(|(_, node)| node);
        found.filter(|node| node.value != Value::Null)
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> &[(String, Self)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The items of a list; of a single value that value, of nothing none.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            Value::Text(_) | Value::Map(_) => std::slice::from_ref(self),
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// Text of a key.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// True for `true`, `yes`, `on` and their like.
    pub fn is_true(&self) -> bool {
        self.text().is_some_and(is_true)
    }
}

/// True for the words that mean yes.
pub fn is_true(text: &str) -> bool {
    ["true", "on", "yes", "y", "1"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Reads the documents of a text; empty ones are passed over.
///
/// # Errors
/// The text is no YAML, or beyond the limits.
pub fn read(text: &str, limits: Limits) -> Result<Vec<Node>, Unreadable> {
    if text.len() > limits.bytes {
        let message = format!("larger than {}", super::units::ByteSize(limits.bytes as u64));
        return Err(Unreadable { line: 0, column: 0, message });
    }
    let mut budget = Budget::default();
    budget.max_nodes = limits.nodes;
    budget.max_events = 4 * limits.nodes;
    budget.max_depth = MAX_DEPTH;
    budget.max_aliases = MAX_ALIASES;
    budget.max_anchors = MAX_ALIASES;
    budget.max_recorded_anchor_events = limits.nodes;
    budget.max_recorded_anchor_bytes = 2 * limits.bytes;
    // One document too many is named by the reader better than by its budget.
    budget.max_documents = limits.documents.max(4);
    budget.max_total_scalar_bytes = 2 * limits.bytes;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = limits.nodes;
    options.alias_limits.max_replay_stack_depth = 16;
    options.alias_limits.max_alias_expansions_per_anchor = MAX_ALIASES;
    options.with_snippet = false;
    let found = if limits.documents == 1 {
        serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options).map(|one| vec![one])
    } else {
        serde_saphyr::from_multiple_with_options::<Spanned<Raw>>(text, options)
    };
    let found = found.map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let cut = message.find(" at line ").or_else(|| message.find(" at ")).filter(|_| line > 0);
        let message = message[..cut.unwrap_or(message.len())].chars().filter(|c| !c.is_control()).take(200);
        Unreadable {
            line,
            column,
            message: format!("cannot be read as YAML: {}", message.collect::<String>()),
        }
    })?;
    let source = if limits.verbatim { text } else { "" };
    Ok(found.into_iter().map(|found| node(found, source)).collect())
}

/// `source` is the text where words and numbers are wanted as written, else empty.
fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let place = |number: u64| usize::try_from(number).unwrap_or(0).max(1);
    let at = (place(raw.referenced.line()), place(raw.referenced.column()));
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Text(text),
        Raw::Resolved(text) => {
            let span = raw.defined.span();
            let written = span.byte_offset().zip(span.byte_len()).and_then(|(from, length)| {
                let from = usize::try_from(from).ok()?;
                source.get(from..from.checked_add(usize::try_from(length).ok()?)?)
            });
            let is_word = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c));
            let written = written.map(str::trim_end).filter(|text| !text.is_empty()).filter(is_word);
            Value::Text(written.map_or(text, str::to_owned))
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, source)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let line = usize::try_from(key.referenced.line()).unwrap_or(0);
                    let mut value = node(value, source);
                    if line > 0 {
                        value.line = line;
                    }
                    (key.value, value)
                })
                .collect(),
        ),
    };
    Node { line: at.0, at, value }
}

enum Raw {
    Null,
    Text(String),
    /// A boolean or a number, in the reader's spelling.
    Resolved(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Resolved(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Resolved(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Resolved(value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Resolved(value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Resolved(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Resolved(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Raw::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1_000, nodes: 100, documents: 9, verbatim: true };

    fn texts(text: &str, limits: Limits) -> Vec<String> {
        let documents = read(text, limits).expect("readable");
        let entries = documents.iter().flat_map(Node::entries);
        entries.map(|(_, node)| node.text().unwrap_or("-").to_owned()).collect()
    }

    #[test]
    fn words_and_numbers_stay_as_they_are_written() {
        let text = "é: n\nb: &x 0.10\n---\nc: 007 # why\nd: \"yes\"\ne: 1e3\nf: *x\ng: Off\nh: ~\n";
        let text = text.replace("f: *x\n", "f: -1.50\n");
        assert_eq!(texts(&text, LIMITS), ["n", "0.10", "007", "yes", "1e3", "-1.50", "Off", "-"]);
        assert_eq!(texts("a: n\nb: 0.10\n", Limits { verbatim: false, ..LIMITS }), ["false", "0.1"]);
        assert_eq!(texts("a: &x 0.10\nb: *x\n", LIMITS), ["0.10", "0.10"]);
    }

    #[test]
    fn places_are_those_of_values() {
        let documents = read("a:\n  - b: x\n---\nc: |\n  y\n", LIMITS).expect("readable");
        let b = &documents[0].entries()[0].1.items()[0].entries()[0].1;
        assert_eq!((b.line, b.at), (2, (2, 8)));
        assert_eq!(documents[1].entries()[0].1.line, 4);
        let error = read("a: 1\na: 2\n", LIMITS).expect_err("twice");
        assert_eq!((error.line, error.column), (2, 1), "{}", error.message);
    }
}
