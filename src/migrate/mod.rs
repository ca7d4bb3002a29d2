//! From another agent's config to ours: Promtail's YAML, Fluent Bit's classic and YAML forms.
//!
//! In: the text of one config. Out: a [`Migration`]: an `agent.toml` that the loader accepts, and a remark for whatever
//! could not be said in it, with its line. Invariants: the input is bounded and never expanded beyond that; a value
//! that may be a secret never reaches the output, where a `${env:…}` reference stands for it; nothing is left out in
//! silence.

mod classic;
mod draft;
mod fluent_bit;
mod names;
mod promtail;
mod rewrite;
mod stages;
mod yaml;

use std::fmt;

use crate::config::diagnostics::Diagnostics;

/// Bytes of a config that are read.
pub const MAX_INPUT: usize = 1 << 20;

/// What a remark says of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It could not be translated; something will be different.
    Lost,
    /// It needs no translation, or a person should know.
    Note,
}

/// What a person should know of one place of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Line of the source, from 1.
    pub line: usize,
    /// How grave it is.
    pub kind: Kind,
    /// What stands there.
    pub what: String,
    /// What to do instead.
    pub instead: String,
}

/// A translated config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Name of the source in messages.
    pub source: String,
    /// The `agent.toml`.
    pub toml: String,
    /// In the order of their lines.
    pub remarks: Vec<Remark>,
}

impl Migration {
    /// True when something could not be translated.
    pub fn is_lossy(&self) -> bool {
        self.remarks.iter().any(|remark| remark.kind == Kind::Lost)
    }
}

impl fmt::Display for Migration {
    /// The report for people: a remark a line, then a summary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for remark in &self.remarks {
            let kind = match remark.kind {
                Kind::Lost => "not translated",
                Kind::Note => "note",
            };
            writeln!(f, "{}:{}: {kind}: {}", self.source, remark.line, remark.what)?;
            if !remark.instead.is_empty() {
                writeln!(f, "  = {}", remark.instead)?;
            }
        }
        let lost = self.remarks.iter().filter(|remark| remark.kind == Kind::Lost).count();
        match lost {
            0 => write!(f, "everything was translated"),
            1 => write!(f, "1 part was not translated"),
            _ => write!(f, "{lost} parts were not translated"),
        }
    }
}

/// Translates a Promtail config.
///
/// # Errors
/// The text is no YAML, or none that is read: larger than [`MAX_INPUT`], too deep, too many aliases.
pub fn promtail(source: &str, text: &str) -> Result<Migration, Diagnostics> {
    let root = yaml::read(source, text)?;
    let (root, inner) = yaml::in_config_map(source, root, &["promtail.yaml", "config.yaml"])?;
    let mut draft = draft::Draft::new("Promtail");
    draft.note_config_map(inner);
    let root = promtail::of_helm_values(&root, &mut draft).unwrap_or(root);
    promtail::translate(&root, &mut draft);
    Ok(draft.finish(source))
}

/// Translates a Fluent Bit config, classic or YAML, as it looks.
///
/// # Errors
/// The text is neither.
pub fn fluent_bit(source: &str, text: &str) -> Result<Migration, Diagnostics> {
    let mut draft = draft::Draft::new("Fluent Bit");
    let sections = if classic::looks_classic(text) {
        classic::read(source, text)?
    } else {
        let root = yaml::read(source, text)?;
        if let Some(files) = yaml::config_map(&root).or_else(|| yaml::helm_values(&root)) {
            draft.note_config_map(Some(root.line));
            classic::read_files(source, &files)?
        } else {
            fluent_bit::sections(source, &root)?
        }
    };
    fluent_bit::translate(&sections, &mut draft);
    Ok(draft.finish(source))
}

/// One diagnostic at a line and column of the source; the line itself is not shown, as it may hold a secret.
fn unreadable(source: &str, line: u64, column: u64, message: String, help: &str) -> Diagnostics {
    use crate::config::diagnostics::{Diagnostic, Spot};
    let place = if line == 0 { source.to_owned() } else { format!("{source}:{line}:{}", column.max(1)) };
    let help = Some(help.to_owned()).filter(|help| !help.is_empty());
    Diagnostics(vec![Diagnostic::error("", message, Spot::File(place)).help(help)])
}
