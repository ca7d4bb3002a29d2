//! The config as it holds, for `check`: every key, its value, and where the value came from.
//!
//! In: a [`Loaded`] config. Out: one [`Setting`] a key, secrets masked. Reads the schema and the tree only, so a
//! module's config needs no code of its own to be shown.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::load::{Loaded, is_secret};
use super::schema::{self, Shape};
use super::tree::{self, Node, Step, Table, Value};

/// What is shown in place of a secret.
pub const MASK: &str = "<redacted>";

/// One key of the resolved config.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Table, dotted: `sink.loki.main`.
    pub table: String,
    /// Key in the table.
    pub key: String,
    /// Value, secrets masked; `null` for a key that is not set.
    pub value: Json,
    /// Where a value other than the default came from.
    pub origin: Option<String>,
}

impl Loaded {
    /// The config as TOML, secrets masked, with where a value came from as a comment where it is not the default.
    /// With `all`, every key; else those that somebody set. Keys that are not set stand in comments.
    pub fn show(&self, all: bool) -> String {
        let (mut out, mut table) = (String::new(), None);
        for setting in self.shown(all) {
            let origin = setting.origin.map(|origin| format!("  # {origin}")).unwrap_or_default();
            let alone = setting.key.is_empty();
            if table.as_ref() != Some(&setting.table) {
                if !out.is_empty() {
                    out.push('\n');
                }
                let _ = writeln!(out, "[{}]{}", setting.table, if alone { origin.as_str() } else { "" });
                table = Some(setting.table);
            }
            if alone {
                continue;
            }
            let mut key = String::new();
            tree::push_key(&mut key, &setting.key);
            if setting.value.is_null() {
                let _ = writeln!(out, "# {key} is not set");
            } else {
                let _ = writeln!(out, "{key} = {}{origin}", super::render::toml_value(&setting.value));
            }
        }
        out
    }

    /// All settings, or those that somebody set; a table that was written with nothing in it stands for itself.
    fn shown(&self, all: bool) -> Vec<Setting> {
        let mut settings = self.resolved();
        if all {
            return settings;
        }
        let mut shown = Vec::new();
        while !settings.is_empty() {
            let table = settings[0].table.clone();
            let end = settings.iter().position(|setting| setting.table != table).unwrap_or(settings.len());
            let set: Vec<Setting> =
                settings.drain(..end).filter(|setting| setting.origin.is_some()).collect();
            let path: Vec<Step> = parts(&table).into_iter().map(Step::Key).collect();
            match tree::find(&self.tree, &path) {
                Some((node, _)) if set.is_empty() && path.len() > 1 => {
                    let origin = Some(self.origin(node));
                    shown.push(Setting { table, key: String::new(), value: Json::Null, origin });
                }
                _ => shown.extend(set),
            }
        }
        shown
    }

    /// The same as JSON: `config` nested as in the file, `origins` by dotted key.
    pub fn show_json(&self, all: bool) -> Json {
        let (mut config, mut origins) = (serde_json::json!({}), serde_json::Map::new());
        for setting in self.shown(all) {
            // Tables come before what is in them, and no key is both: indexing makes an object of what is not there.
            let table = parts(&setting.table).into_iter().fold(&mut config, |place, part| &mut place[part]);
            let dotted = if setting.key.is_empty() {
                *table = serde_json::json!({});
                setting.table
            } else {
                let dotted = format!("{}.{}", setting.table, setting.key);
                table[setting.key] = setting.value;
                dotted
            };
            if let Some(origin) = setting.origin {
                origins.insert(dotted, origin.into());
            }
        }
        serde_json::json!({"config": config, "origins": origins})
    }

    /// Every setting, in the order of the schema's tables.
    pub fn resolved(&self) -> Vec<Setting> {
        let mut found = Vec::new();
        let root = schema::root();
        for section in super::render::SECTIONS {
            if let Some(shape) = root.key(section) {
                let node = self.tree.get(*section).map(|entry| &entry.node);
                let default = shape.default();
                self.walk(shape, node, default, &mut vec![Step::Key((*section).to_owned())], &mut found);
            }
        }
        found
    }

    fn walk(
        &self,
        shape: Shape,
        node: Option<&Node>,
        default: Option<&Json>,
        path: &mut Vec<Step>,
        found: &mut Vec<Setting>,
    ) {
        let empty = Table::new();
        let table = match node.map(|node| &node.value) {
            Some(Value::Table(table)) => table,
            _ => &empty,
        };
        let mut inner_tables = Vec::new();
        for key in super::render::ordered(&tree::dotted(path), shape) {
            let Some(inner) = shape.key(key) else { continue };
            let node = table.get(key).map(|entry| &entry.node);
            let default = inner.default().or_else(|| default.and_then(|value| value.get(key)));
            if inner.is_table() && !inner.allows("string") {
                inner_tables.push((key.to_owned(), inner, node, default));
                continue;
            }
            path.push(Step::Key(key.to_owned()));
            let value = node.map(Node::to_json).or_else(|| default.cloned()).unwrap_or(Json::Null);
            let changed = node.filter(|_| Some(&value) != default);
            let from_file =
                node.and_then(|node| node.taken_from.as_ref()).is_some_and(|from| from.contains("file:"));
            let secret = is_secret(path) || inner.is_secret() || from_file;
            found.push(Setting {
                table: tree::dotted(&path[..path.len() - 1]),
                key: key.to_owned(),
                value: masked(value, secret),
                origin: changed.map(|node| self.origin(node)),
            });
            path.pop();
        }
        if let Some(inner) = shape.named() {
            // A key of the shape's own, as `defaults` in `[slo]`, is no name that the operator chose.
            for (name, entry) in table.iter().filter(|(name, _)| shape.key(name).is_none()) {
                path.push(Step::Key(name.clone()));
                if inner.is_table() {
                    let before = found.len();
                    self.walk(inner, Some(&entry.node), None, path, found);
                    if found.len() == before {
                        // A table without keys is still there: a stdout sink with nothing set.
                        let origin = Some(self.origin(&entry.node));
                        found.push(Setting {
                            table: tree::dotted(path),
                            key: String::new(),
                            value: Json::Null,
                            origin,
                        });
                    }
                } else {
                    let from_file = entry.node.taken_from.as_ref().is_some_and(|from| from.contains("file:"));
                    let secret = is_secret(path) || inner.is_secret() || from_file;
                    found.push(Setting {
                        table: tree::dotted(&path[..path.len() - 1]),
                        key: name.clone(),
                        value: masked(entry.node.to_json(), secret),
                        origin: Some(self.origin(&entry.node)),
                    });
                }
                path.pop();
            }
        }
        for (key, inner, node, default) in inner_tables {
            path.push(Step::Key(key));
            // A section that may be left out and is left out has nothing to show.
            if node.is_some() || default.is_some_and(|value| !value.is_null()) {
                self.walk(inner, node, default, path, found);
            }
            path.pop();
        }
    }
}

/// The keys of a dotted path; a quoted one may hold dots.
fn parts(dotted: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in dotted.chars() {
        match c {
            _ if escaped => {
                part.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts
}

/// `value` without secrets: texts masked whole where `secret`, passwords taken out of URLs everywhere.
fn masked(value: Json, secret: bool) -> Json {
    match value {
        Json::Null => Json::Null,
        Json::String(text) if text.is_empty() => Json::String(text),
        Json::Array(items) => items.into_iter().map(|item| masked(item, secret)).collect(),
        Json::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let secret = secret || is_secret(&[Step::Key(key.clone())]);
                (key, masked(value, secret))
            })
            .collect(),
        _ if secret => MASK.into(),
        Json::String(text) => without_user_info(&text).into(),
        other => other,
    }
}

/// A URL without what stands before its `@`.
pub fn without_user_info(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{MASK}@{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_user_info() {
        assert_eq!(without_user_info("http://u:p@loki:3100/x@y"), "http://<redacted>@loki:3100/x@y");
        assert_eq!(without_user_info("http://loki:3100"), "http://loki:3100");
        assert_eq!(without_user_info("plain@text"), "plain@text");
    }
}
