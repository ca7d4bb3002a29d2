//! The words for what is wrong: serde's and the TOML parser's messages as an operator would want them.
//!
//! In: a cause and its surroundings. Out: message, key and help. Invariant: with `secret`, no value is repeated.

use super::diagnostics::nearest;
use super::schema::{self, Shape};
use super::tree::{self, Node, Step, Value};

/// The line that holds byte `at`.
pub(super) fn line_at(text: &str, at: usize) -> &str {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or_default()
}

/// The key on the line of a syntax error, as far as the text tells, and what to do about the error.
pub(super) fn around(text: &str, span: &std::ops::Range<usize>, message: &str) -> (String, Option<String>) {
    let line = line_at(text, span.start).trim();
    let offset = span.start.min(text.len());
    let header = |line: &str| {
        line.trim().strip_prefix('[')?.split(']').next().map(|name| name.trim_matches('[').to_owned())
    };
    let is_key = |key: &str| {
        !key.is_empty()
            && key.len() <= 128
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let table = text
        .get(..offset)
        .unwrap_or_default()
        .lines()
        .rev()
        .skip(1)
        .find_map(header)
        .filter(|name| is_key(name));
    let own = line.split(['=', ':']).next().unwrap_or_default().trim();
    let key = match (table, is_key(own)) {
        (Some(table), true) => format!("{table}.{own}"),
        (None, true) => own.to_owned(),
        (_, false) => String::new(),
    };
    let yaml = !line.contains('=') && line.split_once(':').is_some_and(|(key, _)| is_key(key.trim()));
    let help = if yaml {
        Some("TOML is written [table] and key = \"value\", not key: value".to_owned())
    } else if message.contains("must be quoted") {
        Some("put the text in double quotes".to_owned())
    } else if message.contains("duplicate key") {
        Some("keep one of them".to_owned())
    } else if message.contains("invalid basic string") {
        Some("close the text with a double quote on the same line".to_owned())
    } else {
        None
    };
    (key, help)
}

/// What was probably meant by an unknown key: a near key of the same table, else the table where it belongs.
pub(super) fn suggest(key: &str, keys: &[&'static str], path: &[Step], entry: &tree::Entry) -> String {
    if let Some(near) = nearest(key, keys.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    let is_table = matches!(entry.node.value, Value::Table(_));
    let tables = schema::tables();
    let mut homes: Vec<String> = tables
        .iter()
        .filter(|(_, keys)| !is_table && keys.contains(&key))
        .map(|(table, _)| format!("[{table}]"))
        .collect();
    // Most keys that stand in the wrong table are a sink's.
    homes.sort_by_key(|home| !home.starts_with("[sink."));
    homes.truncate(3);
    if !homes.is_empty() {
        return format!("`{key}` belongs in {}", homes.join(" or "));
    }
    let elsewhere = tables.iter().flat_map(|(table, keys)| keys.iter().map(move |key| (table, *key)));
    let near = nearest(key, elsewhere.clone().map(|(_, key)| key));
    if let (Some(near), false) = (near, is_table)
        && let Some((table, _)) = elsewhere.clone().find(|(_, key)| *key == near)
    {
        return format!("did you mean `{near}` in [{table}]?");
    }
    let kind = if path.len() == 1 || is_table { "tables" } else { "keys" };
    format!("known {kind}: {}", keys.join(", "))
}

/// serde's words for a misfit as an operator would want them, and the help that goes with them.
pub(super) fn explain(
    cause: &str,
    shape: Option<Shape>,
    node: Option<&Node>,
    secret: bool,
) -> (String, Option<String>) {
    let quoted = |text: &str| text.split('`').nth(1).map(str::to_owned);
    if let Some(rest) = cause.strip_prefix("missing field ") {
        let field = rest.trim_matches('`');
        return (format!("needs the key `{field}`"), None);
    }
    if cause.starts_with("unknown variant ") || cause.starts_with("unknown field ") {
        let mut words = cause.split('`').skip(1).step_by(2);
        let wrong = words.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = words.collect();
        let near = nearest(&wrong, known.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        let list = known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let what = if secret { "the value".to_owned() } else { format!("{wrong:?}") };
        return (format!("{what} is not one of {list}"), near);
    }
    let unit = shape.and_then(|shape| {
        if shape.is("Span") {
            Some(("a duration", "15s"))
        } else if shape.is("ByteSize") {
            Some(("a size", "64MiB"))
        } else {
            None
        }
    });
    if let Some(rest) = cause.strip_prefix("invalid type: ") {
        if let Some((name, example)) = unit {
            let value = match node.map(|node| &node.value) {
                Some(Value::Integer(number)) if !secret => number.to_string(),
                Some(Value::Float(number)) if !secret => number.to_string(),
                _ => "this".to_owned(),
            };
            return (format!("{value} is not {name}; write it like \"{example}\""), None);
        }
        let (got, wanted) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        let wanted = if wanted.starts_with("struct ") || wanted == "a map" { "a table" } else { wanted };
        let wanted = wanted.replace("a sequence", "a list").replace("a string", "a text in quotes");
        let got = match (got.split_once(' '), secret) {
            (Some((kind, _)), true) => kind.to_owned(),
            _ => got.replace('`', "").replace("map", "a table").replace("sequence", "a list"),
        };
        return (format!("expected {wanted}, found {got}"), None);
    }
    if secret {
        let kind = cause.split([':', '"']).next().map(str::trim).filter(|kind| !kind.is_empty());
        let message = kind.filter(|kind| kind.starts_with("invalid")).unwrap_or("the value is not valid");
        return (format!("{message} (not shown: it may be a secret)"), None);
    }
    let known: Vec<String> = shape.map(Shape::choices).unwrap_or_default();
    let near = quoted(cause).or_else(|| match node.map(|node| &node.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    });
    let help = near.and_then(|word| nearest(&word, known.iter().map(String::as_str)).map(str::to_owned));
    (cause.replace('\n', " "), help.map(|near| format!("did you mean \"{near}\"?")))
}
