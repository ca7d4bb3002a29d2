//! Texts from the environment, from flags and from references, as the keys and types that they stand for.
//!
//! In: a text and the shape of its place, or the name of a variable. Out: a value, or a key path. The schema decides.

use super::schema::Shape;
use super::tree::{self, Node, Place, Value};

/// `text` as the type that belongs at its place: variables, flags and interpolations give text only.
pub(super) fn coerce(text: String, shape: Option<Shape>) -> Value {
    let Some(shape) = shape else { return Value::Text(text) };
    if shape.allows("string") && !shape.allows("array") {
        return Value::Text(text);
    }
    let trimmed = text.trim();
    if shape.allows("boolean")
        && let Ok(value) = trimmed.parse()
    {
        return Value::Bool(value);
    }
    if shape.allows("integer")
        && let Ok(value) = trimmed.parse()
    {
        return Value::Integer(value);
    }
    if shape.allows("number")
        && let Some(value) = trimmed.parse().ok().filter(|value: &f64| value.is_finite())
    {
        return Value::Float(value);
    }
    let structured =
        (shape.allows("array") && trimmed.starts_with('[')) || (shape.is_table() && trimmed.starts_with('{'));
    if structured
        && let Ok(mut parsed) = tree::parse(&format!("v = {trimmed}"))
        && let Some(entry) = parsed.remove("v")
    {
        return entry.node.value;
    }
    if shape.allows("array") {
        let place = Place::Derived("list");
        let words = trimmed.split(',').map(str::trim).filter(|word| !word.is_empty());
        return Value::Array(
            words.map(|word| Node::new(coerce(word.to_owned(), shape.items()), place.clone())).collect(),
        );
    }
    Value::Text(text)
}

/// Variables that Kubernetes sets for a service called `nodewick` or `nodewick-…`.
pub(super) fn is_service_link(rest: &str) -> bool {
    rest == "PORT"
        || rest.ends_with("_PORT")
        || rest.starts_with("SERVICE_")
        || rest.contains("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || rest.starts_with("PORT_")
        || ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| rest.split_once("PORT_").is_some_and(|(_, port)| port.contains(protocol)))
}

/// A variable that names no key.
pub(super) struct Unmatched {
    /// The table as far as it was known.
    pub(super) section: Option<String>,
    /// The keys that it has.
    pub(super) candidates: Vec<&'static str>,
}

/// The key that a variable names: `agent_state_dir`, `sink_loki_main_url`, `sink__loki__my_name__url`.
pub(super) fn env_path(root: Shape, rest: &str) -> Result<(Vec<String>, Shape), Unmatched> {
    let mut shape = root;
    let mut path: Vec<String> = Vec::new();
    let mut at = 0;
    loop {
        let left = &rest[at..];
        let step = |key: &str| {
            let after = left.strip_prefix(key)?;
            let gap = if after.is_empty() {
                0
            } else if after.starts_with("__") {
                2
            } else if after.starts_with('_') {
                1
            } else {
                return None;
            };
            Some(key.len() + gap)
        };
        let keys = shape.keys();
        // The longest key wins: `max_line` before a key `max`.
        let fixed = keys.iter().filter_map(|key| Some((step(key)?, *key))).max();
        let chosen = match fixed {
            Some((used, key)) => shape.key(key).map(|inner| (used, key.to_owned(), inner)),
            None => shape.named().and_then(|inner| {
                let end = left.find("__").or_else(|| left.find('_')).unwrap_or(left.len());
                let name = &left[..end];
                (!name.is_empty()).then(|| (step(name).unwrap_or(end), name.to_owned(), inner))
            }),
        };
        let Some((used, key, inner)) = chosen else {
            let section = (at > 0).then(|| path.join("__"));
            return Err(Unmatched { section, candidates: keys });
        };
        at += used;
        path.push(key);
        shape = inner;
        if at >= rest.len() {
            if shape.is_table() && !shape.allows("string") && path.len() < 2 {
                return Err(Unmatched { section: None, candidates: keys });
            }
            return Ok((path, shape));
        }
    }
}
