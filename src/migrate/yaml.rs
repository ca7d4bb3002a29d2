//! YAML as values that know their lines.
//!
//! In: text. Out: [`Node`]s. Invariant: the reader's budget bounds depth, nodes and what aliases may multiply, so a
//! small text cannot become a large tree.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Budget, Spanned};

use super::{MAX_INPUT, unreadable};
use crate::config::diagnostics::Diagnostics;

/// Values in a config, aliases replaced.
const MAX_NODES: usize = 50_000;

/// A value and the line of its key, or its own in a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    /// Any scalar, as text.
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key; `None` for a null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().find(|(known, _)| known == key).map(|(_, node)| node);
        found.filter(|node| node.value != Value::Null)
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The items of a list; of a single value that value, of nothing none.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            Value::Text(_) | Value::Map(_) => std::slice::from_ref(self),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// Text of a key.
    pub(super) fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// True for `true`, `yes`, `on` and their like.
    pub(super) fn is_true(&self) -> bool {
        self.text().is_some_and(is_true)
    }
}

/// True for the words that mean yes.
pub(super) fn is_true(text: &str) -> bool {
    ["true", "on", "yes", "1"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Reads one document.
pub(super) fn read(source: &str, text: &str) -> Result<Node, Diagnostics> {
    if text.len() > MAX_INPUT {
        return Err(unreadable(source, 0, 0, "larger than 1MiB".to_owned(), "give one config file"));
    }
    let mut budget = Budget::default();
    budget.max_nodes = MAX_NODES;
    budget.max_events = 4 * MAX_NODES;
    budget.max_depth = 32;
    budget.max_aliases = 500;
    budget.max_anchors = 500;
    budget.max_recorded_anchor_events = MAX_NODES;
    budget.max_recorded_anchor_bytes = 2 * MAX_INPUT;
    budget.max_documents = 4;
    budget.max_total_scalar_bytes = 2 * MAX_INPUT;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = MAX_NODES;
    options.alias_limits.max_replay_stack_depth = 16;
    options.alias_limits.max_alias_expansions_per_anchor = 500;
    options.with_snippet = false;
    let found = serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let cut = message.find(" at line ").or_else(|| message.find(" at ")).filter(|_| line > 0);
        let message = message[..cut.unwrap_or(message.len())].chars().filter(|c| !c.is_control()).take(200);
        let help = "give the config file itself, after Helm or other templates were filled in";
        unreadable(
            source,
            line,
            column,
            format!("cannot be read as YAML: {}", message.collect::<String>()),
            help,
        )
    })?;
    let node = node(found);
    if matches!(node.value, Value::Map(_)) {
        return Ok(node);
    }
    Err(unreadable(source, 1, 1, "not a config: a map of keys was expected".to_owned(), ""))
}

/// The files of a ConfigMap: name, text and the line before the text's first one.
pub(super) fn config_map(root: &Node) -> Option<Vec<(String, String, usize)>> {
    if root.text_at("kind") != Some("ConfigMap") {
        return None;
    }
    let files = root.get("data")?.entries().iter();
    Some(files.filter_map(|(name, node)| Some((name.clone(), node.text()?.to_owned(), node.line))).collect())
}

/// Fluent Bit's Helm values, whose `config` has the sections as texts: as one file that includes them.
pub(super) fn helm_values(root: &Node) -> Option<Vec<(String, String, usize)>> {
    let parts = ["service", "inputs", "filters", "outputs", "customParsers"];
    let config = root.get("config").filter(|_| root.get("pipeline").is_none())?;
    let found = parts.iter().filter_map(|name| Some((*name, config.get(name)?))).collect::<Vec<_>>();
    let main: String = found.iter().map(|(name, _)| format!("@INCLUDE {name}\n")).collect();
    let mut files = vec![("fluent-bit.conf".to_owned(), main, config.line)];
    for (name, node) in found {
        files.push((name.to_owned(), node.text()?.to_owned(), node.line));
    }
    (files.len() > 1).then_some(files)
}

/// What a ConfigMap holds, if `root` is one: the file of one of these names, else its only one; with lines as in the
/// outer text.
pub(super) fn in_config_map(
    source: &str,
    root: Node,
    names: &[&str],
) -> Result<(Node, Option<usize>), Diagnostics> {
    let Some(files) = config_map(&root) else { return Ok((root, None)) };
    let named = files.iter().find(|(name, ..)| names.contains(&name.as_str())).or_else(|| files.first());
    let Some((_, text, line)) = named else {
        return Err(unreadable(source, root.line as u64, 1, "the ConfigMap has no data".to_owned(), ""));
    };
    // The same lines as in the outer text, for the places in messages.
    let padded = format!("{}{text}", "\n".repeat(*line));
    Ok((read(source, &padded)?, Some(*line)))
}

fn node(raw: Spanned<Raw>) -> Node {
    let line = usize::try_from(raw.referenced.line()).unwrap_or(0).max(1);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => Value::List(items.into_iter().map(node).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let line = usize::try_from(key.referenced.line()).unwrap_or(0);
                    let mut value = node(value);
                    if line > 0 {
                        value.line = line;
                    }
                    (key.value, value)
                })
                .collect(),
        ),
    };
    Node { line, value }
}

enum Raw {
    Null,
    Text(String),
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
                Ok(Raw::Text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_string()))
            }

            fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_string()))
            }

            fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_string()))
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
