//! The YAML of other agents' configs: one document, or what a ConfigMap or Helm values hold.
//!
//! In: text. Out: [`Node`]s, which know their lines. Invariant: bounded by [`MAX_INPUT`] and [`MAX_NODES`].

use super::{MAX_INPUT, unreadable};
use crate::config::diagnostics::Diagnostics;
use crate::data::yaml::{self, Limits};
pub(super) use crate::data::yaml::{Node, Value, is_true};

/// Values in a config, aliases replaced.
const MAX_NODES: usize = 50_000;

/// Reads one document.
pub(super) fn read(source: &str, text: &str) -> Result<Node, Diagnostics> {
    let limits = Limits { bytes: MAX_INPUT, nodes: MAX_NODES, documents: 1, verbatim: false };
    let node = match yaml::read(text, limits) {
        Ok(documents) => documents.into_iter().next(),
        Err(error) => {
            let help = if error.line == 0 {
                "give one config file"
            } else {
                "give the config file itself, after Helm or other templates were filled in"
            };
            return Err(unreadable(source, error.line, error.column, error.message, help));
        }
    };
    match node {
        Some(node) if matches!(node.value, Value::Map(_)) => Ok(node),
        _ => Err(unreadable(source, 1, 1, "not a config: a map of keys was expected".to_owned(), "")),
    }
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
