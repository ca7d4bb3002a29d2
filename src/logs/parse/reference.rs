//! The JSON reader once more, by serde_json: the oracle that the hand-written one is held against.
//!
//! In and out as `super::json::read`. It shares the validation and ranking of values and nothing of the reading:
//! grammar and escapes are serde_json's, paths are matched by walking the rules. Slow; for tests and fuzzing only.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::MAX_DEPTH;
use super::keys::RULES;
use super::pick::{Picks, Value};
use super::{Format, Parsed};
use crate::data::batch::Fields;

/// Reads one JSON object with serde_json. `None` where the line is not one, or nests deeper than 32.
pub fn read(line: &[u8], want: Fields) -> Option<Parsed> {
    let text = std::str::from_utf8(line).ok()?;
    let document: &RawValue = serde_json::from_str(text).ok()?;
    if !document.get().starts_with('{') {
        return None;
    }
    let mut picks = Picks::new(line, want);
    picks.out.format = Format::Json;
    walk(document.get(), Some(&mut Vec::new()), 1, &mut picks)?;
    Some(picks.finish())
}

/// Visits the members of a container. `path` is `None` within lists, where nothing is picked.
fn walk<'a>(
    container: &'a str,
    path: Option<&mut Vec<u8>>,
    depth: usize,
    picks: &mut Picks<'a>,
) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    if container.starts_with('[') {
        let items: Items<'a> = serde_json::from_str(container).ok()?;
        for item in items.0 {
            if item.starts_with(['{', '[']) {
                walk(item, None, depth + 1, picks)?;
            }
        }
        return Some(());
    }
    let members: Members<'a> = serde_json::from_str(container).ok()?;
    let mut nowhere = Vec::new();
    let picking = path.is_some();
    let path = path.unwrap_or(&mut nowhere);
    for (key, value) in members.0 {
        let before = path.len();
        if depth > 1 {
            path.push(b'.');
        }
        path.extend_from_slice(&key);
        match value.as_bytes()[0] {
            b'{' => walk(value, picking.then_some(&mut *path), depth + 1, picks)?,
            b'[' => walk(value, None, depth + 1, picks)?,
            first if picking => {
                let value = match first {
                    b'"' => {
                        let body = &value[1..value.len() - 1];
                        Value::Str(body.as_bytes(), body.contains('\\'))
                    }
                    b't' => Value::True,
                    b'f' => Value::False,
                    b'n' => Value::Null,
                    _ => Value::Num(value.as_bytes()),
                };
                for rule in RULES.iter().filter(|rule| rule.path.as_bytes() == *path) {
                    picks.offer_as(rule.pick, rule.rank, value);
                }
            }
            _ => {}
        }
        path.truncate(before);
    }
    Some(())
}

struct Items<'a>(Vec<&'a str>);
struct Members<'a>(Vec<(Vec<u8>, &'a str)>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<&RawValue>()? {
                    items.push(item.get());
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = object.next_key::<&RawValue>()? {
                    let key = serde_json::from_str::<Key>(key.get()).map_err(de::Error::custom)?.0;
                    members.push((key, object.next_value::<&RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A key's bytes. Read as bytes, since serde_json then lets lone surrogates pass, as it does in values.
struct Key(Vec<u8>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl Visitor<'_> for Collect {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Collect)
    }
}
