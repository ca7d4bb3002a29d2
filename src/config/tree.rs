//! A parsed config before it has types: values that remember where each came from.
//!
//! In: TOML text. Out: a [`Table`] with a [`Place`] for every key and value.
//! Invariant: the tree holds only what serde can take: finite numbers, 64-bit integers, valid UTF-8.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a key or a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Byte range of the config file.
    File(Range<usize>),
    /// Environment variable.
    Env(String),
    /// Command line flag, as it was given.
    Flag(String),
    /// Worked out by the agent; the text says how.
    Derived(&'static str),
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub place: Place,
    /// What an interpolation took it from (`env:TOKEN`, `file:/run/token`), if one did.
    pub taken_from: Option<String>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// A text; TOML dates are taken as text.
    Text(String),
    /// A list.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key was written.
    pub key: Place,
    /// The value.
    pub node: Node,
}

/// Keys and values.
pub type Table = BTreeMap<String, Entry>;

/// A step from a table or a list to a value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Key of a table.
    Key(String),
    /// Index of a list.
    Index(usize),
}

impl Step {
    /// A step as checks write it: `[0]` is an index.
    pub fn of_finding(text: &str) -> Self {
        let index = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')?.parse().ok());
        index.map_or_else(|| Self::Key(text.to_owned()), Self::Index)
    }
}

/// What is wrong with the text: message and byte range.
pub type Flaw = (String, Range<usize>);

impl Node {
    /// A value that no interpolation touched.
    pub fn new(value: Value, place: Place) -> Self {
        Self { value, place, taken_from: None }
    }

    /// The value for serde.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::Array(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(table) => to_json(table),
        }
    }
}

/// The table for serde.
pub fn to_json(table: &Table) -> serde_json::Value {
    table.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect()
}

/// Parses TOML; every flaw that the parser can find past the first is reported too.
pub fn parse(text: &str) -> Result<Table, Vec<Flaw>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut flaws: Vec<Flaw> = errors
        .iter()
        .map(|error| (error.message().to_owned(), error.span().unwrap_or(text.len()..text.len())))
        .collect();
    let table = table(document.into_inner(), &mut flaws);
    if flaws.is_empty() { Ok(table) } else { Err(flaws) }
}

fn table(source: DeTable<'_>, flaws: &mut Vec<Flaw>) -> Table {
    source
        .into_iter()
        .map(|(key, value)| {
            let place = Place::File(key.span());
            (key.into_inner().into_owned(), Entry { key: place, node: node(value, flaws) })
        })
        .collect()
}

fn node(source: Spanned<DeValue<'_>>, flaws: &mut Vec<Flaw>) -> Node {
    let span = source.span();
    let value = match source.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(value) => Value::Text(value.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                flaws.push((format!("{number} is beyond 64 bits"), span.clone()));
                Value::Integer(0)
            }
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => {
                flaws.push((format!("{} is not a finite number", number.as_str()), span.clone()));
                Value::Float(0.0)
            }
        },
        DeValue::Array(items) => Value::Array(items.into_iter().map(|item| node(item, flaws)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, flaws)),
    };
    Node::new(value, Place::File(span))
}

/// The node at `path` and, where its last step is a key, the place of that key.
pub fn find<'a>(root: &'a Table, path: &[Step]) -> Option<(&'a Node, Option<&'a Place>)> {
    let (first, rest) = path.split_first()?;
    let Step::Key(first) = first else { return None };
    let entry = root.get(first)?;
    let mut found = (&entry.node, Some(&entry.key));
    for step in rest {
        found = match (&found.0.value, step) {
            (Value::Table(table), Step::Key(key)) => {
                let entry = table.get(key)?;
                (&entry.node, Some(&entry.key))
            }
            (Value::Array(items), Step::Index(index)) => (items.get(*index)?, None),
            _ => return None,
        };
    }
    Some(found)
}

/// Takes the nearest enclosing key of `path` out of the tree; false when there is none.
pub fn remove(root: &mut Table, path: &[Step]) -> bool {
    // A list loses its element, so that the rest of it is still checked.
    if let [head @ .., Step::Index(index)] = path {
        if let Some(Value::Array(items)) = value_mut(root, head)
            && *index < items.len()
        {
            items.remove(*index);
            return true;
        }
        return remove(root, head);
    }
    match path {
        [Step::Key(key)] => root.remove(key).is_some(),
        [head @ .., Step::Key(key)] => match value_mut(root, head) {
            Some(Value::Table(table)) => table.remove(key).is_some(),
            _ => false,
        },
        _ => false,
    }
}

fn value_mut<'a>(root: &'a mut Table, path: &[Step]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    let Step::Key(first) = first else { return None };
    let mut value = &mut root.get_mut(first)?.node.value;
    for step in rest {
        value = match (value, step) {
            (Value::Table(table), Step::Key(key)) => &mut table.get_mut(key)?.node.value,
            (Value::Array(items), Step::Index(index)) => &mut items.get_mut(*index)?.value,
            _ => return None,
        };
    }
    Some(value)
}

/// Sets the value at `path`, making tables on the way; false when a plain value stands in the way.
pub fn set(root: &mut Table, path: &[String], node: Node) -> bool {
    let Some((last, tables)) = path.split_last() else { return false };
    let mut at = root;
    for key in tables {
        let entry = at.entry(key.clone()).or_insert_with(|| Entry {
            key: node.place.clone(),
            node: Node::new(Value::Table(Table::new()), node.place.clone()),
        });
        match &mut entry.node.value {
            Value::Table(table) => at = table,
            _ => return false,
        }
    }
    at.insert(last.clone(), Entry { key: node.place.clone(), node });
    true
}

/// `path` as people write it: `sink.loki.main.url`, `record.fields[2]`.
pub fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                push_key(&mut text, key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Appends a key, quoted where TOML wants quotes.
pub fn push_key(text: &mut String, key: &str) {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { text.push_str(key) } else { text.push_str(&format!("{key:?}")) }
}
