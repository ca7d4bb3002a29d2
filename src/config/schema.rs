//! Which keys a config may have, read from the JSON schema that the types render.
//!
//! In: the schema of [`Config`](super::Config). Out: a [`Shape`] for any place in it: its keys, type, default and
//! doc line. The loader, the reference and `check` all walk shapes, so no key is listed twice by hand.

use std::sync::LazyLock;

use serde_json::Value;

use super::Config;

static ROOT: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Config).to_value());

/// Nesting that is walked; deeper schemas do not exist.
const DEPTH: usize = 12;

/// What may stand at one place of the config.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The schema as referred to: holds the default and the description of the key.
    node: &'static Value,
}

/// The shape of the whole config.
pub fn root() -> Shape {
    Shape { node: &ROOT }
}

/// The JSON Schema of the whole config, for editors and validators.
pub fn json() -> &'static Value {
    &ROOT
}

impl Shape {
    /// The schemas that a value may match, references followed, `null` left out.
    fn alternatives(self) -> Vec<&'static Value> {
        let mut found = Vec::new();
        expand(self.node, &mut found, 0);
        found
    }

    /// What the type is called in the schema, for the unit types.
    fn names(self, node: &'static Value, found: &mut Vec<&'static str>, depth: usize) {
        if depth > DEPTH {
            return;
        }
        if let Some(name) = node["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            found.push(name);
        }
        for list in ["anyOf", "oneOf", "allOf"] {
            for inner in node[list].as_array().into_iter().flatten() {
                self.names(inner, found, depth + 1);
            }
        }
    }

    /// True when the type has this name in the schema: `Span`, `ByteSize`.
    pub fn is(self, name: &str) -> bool {
        let mut found = Vec::new();
        self.names(self.node, &mut found, 0);
        found.contains(&name)
    }

    /// True when a value may have this JSON type.
    pub fn allows(self, kind: &str) -> bool {
        self.alternatives().iter().any(|schema| match &schema["type"] {
            Value::String(one) => one == kind,
            Value::Array(many) => many.iter().any(|one| one == kind),
            _ => false,
        })
    }

    /// The keys of a table with fixed keys, sorted.
    pub fn keys(self) -> Vec<&'static str> {
        let mut keys: Vec<&str> = self
            .alternatives()
            .into_iter()
            .filter_map(|schema| schema["properties"].as_object())
            .flat_map(|properties| properties.keys().map(String::as_str))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The shape of a fixed key.
    pub fn key(self, key: &str) -> Option<Self> {
        self.alternatives()
            .into_iter()
            .find_map(|schema| schema["properties"].get(key))
            .map(|node| Self { node })
    }

    /// The shape of the values of a table whose keys the operator chooses.
    pub fn named(self) -> Option<Self> {
        self.alternatives()
            .into_iter()
            .map(|schema| &schema["additionalProperties"])
            .find(|node| node.is_object())
            .map(|node| Self { node })
    }

    /// The shape of a list's elements.
    pub fn items(self) -> Option<Self> {
        self.alternatives()
            .into_iter()
            .map(|schema| &schema["items"])
            .find(|node| node.is_object())
            .map(|node| Self { node })
    }

    /// True for anything that has keys.
    pub fn is_table(self) -> bool {
        !self.keys().is_empty() || self.named().is_some() || self.allows("object")
    }

    /// True when the key must be given.
    pub fn requires(self, key: &str) -> bool {
        self.alternatives()
            .iter()
            .any(|schema| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key)))
    }

    /// The default, if there is one that can be written.
    pub fn default(self) -> Option<&'static Value> {
        self.node.get("default").filter(|value| !value.is_null())
    }

    /// A value to show in examples.
    pub fn example(self) -> Option<&'static Value> {
        self.node["examples"].as_array().and_then(|examples| examples.first())
    }

    /// The values of a closed set, if the type is one.
    pub fn choices(self) -> Vec<String> {
        let mut found = Vec::new();
        for schema in self.alternatives() {
            let one = schema.get("const").into_iter();
            for value in schema["enum"].as_array().into_iter().flatten().chain(one) {
                if let Some(text) = value.as_str() {
                    found.push(text.to_owned());
                }
            }
        }
        found
    }

    /// The doc comment of the key, or of its type where the key has none.
    pub fn doc(self) -> String {
        let own = self.node["description"].as_str();
        let text =
            own.or_else(|| self.alternatives().iter().find_map(|schema| schema["description"].as_str()));
        text.unwrap_or_default()
            .split("\n\n")
            .map(|part| part.replace('\n', " "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// True when the type says that its value is a secret.
    pub fn is_secret(self) -> bool {
        std::iter::once(self.node)
            .chain(self.alternatives())
            .any(|schema| schema["format"] == "password" || schema["writeOnly"] == true)
    }

    /// How the type is called in the reference.
    pub fn type_name(self) -> String {
        if self.is("Span") {
            return "duration".to_owned();
        }
        if self.is("ByteSize") {
            return "size".to_owned();
        }
        let choices = self.choices();
        if choices.len() > 5 {
            return "name".to_owned();
        }
        if !choices.is_empty() {
            return choices.iter().map(|choice| format!("`\"{choice}\"`")).collect::<Vec<_>>().join(" or ");
        }
        if let Some(items) = self.items() {
            return format!(
                "list of {}",
                if items.is_table() { "tables".to_owned() } else { items.type_name() }
            );
        }
        if self.is_table() {
            return "table".to_owned();
        }
        for (kind, name) in
            [("string", "text"), ("integer", "integer"), ("number", "number"), ("boolean", "boolean")]
        {
            if self.allows(kind) {
                return name.to_owned();
            }
        }
        "any".to_owned()
    }
}

fn expand(node: &'static Value, found: &mut Vec<&'static Value>, depth: usize) {
    if depth > DEPTH || node["type"] == "null" {
        return;
    }
    if let Some(path) = node["$ref"].as_str() {
        if let Some(target) = path.strip_prefix('#').and_then(|pointer| ROOT.pointer(pointer)) {
            expand(target, found, depth + 1);
        }
    } else {
        found.push(node);
    }
    for list in ["anyOf", "oneOf", "allOf"] {
        for inner in node[list].as_array().into_iter().flatten() {
            expand(inner, found, depth + 1);
        }
    }
}

/// Every table of the schema as people write it (`[sink.loki.<name>]`) with its keys.
pub fn tables() -> Vec<(String, Vec<&'static str>)> {
    let mut found = Vec::new();
    collect(root(), String::new(), &mut found, 0);
    found
}

fn collect(shape: Shape, path: String, found: &mut Vec<(String, Vec<&'static str>)>, depth: usize) {
    if depth > DEPTH {
        return;
    }
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let keys = shape.keys();
    for key in &keys {
        if let Some(inner) = shape.key(key).filter(|inner| inner.is_table()) {
            collect(inner, join(key), found, depth + 1);
        }
    }
    if let Some(inner) = shape.named().filter(|inner| inner.is_table()) {
        collect(inner, join("<name>"), found, depth + 1);
    }
    if !keys.is_empty() && !path.is_empty() {
        found.push((path, keys));
    }
}
