//! What is wrong with a config and where: the text that an operator reads.
//!
//! In: a key, a cause, a place in a file, the environment or the command line. Out: compiler-like text with the
//! source line, a caret and, where one is near, the key that was meant.
//! Invariant: nothing that may be a secret, and no control character of the file, reaches the text.

use std::fmt;
use std::ops::Range;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The config cannot be used.
    Error,
    /// The config works; the operator probably wants to know.
    Warning,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// In a file, with the line itself.
    Source {
        /// Name of the file as the operator gave it.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The part of the line that is shown, free of control characters and secrets.
        text: String,
        /// Characters of `text` before the caret.
        indent: usize,
        /// Carets.
        width: usize,
    },
    /// A file as a whole.
    File(String),
    /// An environment variable.
    Env(String),
    /// A command line flag.
    Flag(String),
    /// Nothing that the operator wrote.
    Nowhere,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub level: Level,
    /// Dotted key, empty when it is about no key.
    pub key: String,
    /// The cause, lower case, no full stop.
    pub message: String,
    /// What to do, if a person can act.
    pub help: Option<String>,
    /// Where.
    pub spot: Spot,
}

/// Everything that makes a config unusable; at least one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// Characters of a source line that are shown.
const LINE_WIDTH: usize = 120;
/// Findings that are printed; the rest is counted.
const SHOWN: usize = 32;

impl Diagnostic {
    /// An error without help.
    pub fn error(key: impl Into<String>, message: impl Into<String>, spot: Spot) -> Self {
        Self { level: Level::Error, key: key.into(), message: message.into(), help: None, spot }
    }

    /// A warning without help.
    pub fn warning(key: impl Into<String>, message: impl Into<String>, spot: Spot) -> Self {
        Self { level: Level::Warning, ..Self::error(key, message, spot) }
    }

    /// With a line of help.
    #[must_use]
    pub fn help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

impl Spot {
    /// The place of byte range `span` of `source`. With `redact`, what follows the first `=` of the line is masked.
    pub fn in_source(file: &str, source: &str, span: Range<usize>, redact: bool) -> Self {
        let floor = |mut at: usize| {
            at = at.min(source.len());
            while !source.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let end = floor(span.end).clamp(start, line_end);
        let line = source[..line_start].bytes().filter(|byte| *byte == b'\n').count() + 1;
        let before = source[line_start..start].chars().count();
        let width = source[start..end].trim_end().chars().count().max(1);
        let shown = printable(source[line_start..line_end].trim_end_matches('\r'), redact);
        // A long line is cut to a window that holds the caret.
        let first = if before + width.min(40) > LINE_WIDTH { before.saturating_sub(40) } else { 0 };
        let text: String = shown.chars().skip(first).take(LINE_WIDTH).collect();
        let indent = before - first;
        let room = text.chars().count().saturating_sub(indent).max(1);
        Self::Source { file: file.to_owned(), line, column: before + 1, text, indent, width: width.min(room) }
    }
}

/// `line` with control characters replaced one for one and, with `redact`, with its values masked.
fn printable(line: &str, redact: bool) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() || is_format(c) => '\u{fffd}',
        c => c,
    };
    let masked_from = if redact { line.find('=').map(|at| at + 1) } else { None };
    let mut out = String::with_capacity(line.len());
    for (at, c) in line.char_indices() {
        let hidden = masked_from.is_some_and(|from| at >= from) || is_user_info(line, at);
        out.push(if hidden && c != ' ' { '*' } else { visible(c) });
    }
    out
}

/// True when byte `at` stands between the `://` and the `@` of a URL: a name and a password.
fn is_user_info(line: &str, at: usize) -> bool {
    let Some(begin) = line[..at].rfind("://").map(|begin| begin + 3) else { return false };
    let rest = &line[begin..];
    let end = rest.find(['"', '\'', '/']).unwrap_or(rest.len());
    rest[..end].rfind('@').is_some_and(|sign| at < begin + sign)
}

/// Characters that change how a terminal orders the text around them.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spot {
            Spot::Source { file, line, column, .. } => write!(f, "{file}:{line}:{column}: ")?,
            Spot::File(name) | Spot::Env(name) | Spot::Flag(name) => write!(f, "{name}: ")?,
            Spot::Nowhere => {}
        }
        f.write_str(match self.level {
            Level::Error => "error: ",
            Level::Warning => "warning: ",
        })?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        let mut gutter = 1;
        if let Spot::Source { line, text, indent, width, .. } = &self.spot {
            let number = line.to_string();
            gutter = number.len();
            write!(
                f,
                "\n{:gutter$} |\n{number} | {text}\n{:gutter$} | {:indent$}{}",
                "",
                "",
                "",
                "^".repeat(*width)
            )?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{:gutter$} = {help}", "")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, "\n\n… and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate nearest to `word`, when it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |text: &str| text.to_ascii_lowercase().replace(['-', ' ', '.', '/'], "_");
    let word = folded(word);
    let allowed = (word.chars().count() / 3).max(1) + usize::from(word.len() > 3);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let plain = folded(candidate);
            let distance = distance(&word, &plain);
            let extended = word.len() >= 3
                && plain.len() >= 3
                && (plain.starts_with(&format!("{word}_"))
                    || plain.ends_with(&format!("_{word}"))
                    || word.starts_with(&format!("{plain}_"))
                    || word.ends_with(&format!("_{plain}")));
            if distance <= allowed && distance < plain.chars().count() {
                Some((distance, candidate))
            } else {
                extended.then_some((allowed + 1, candidate))
            }
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits that turn `a` into `b`: insertions, deletions, substitutions and swaps of neighbours
/// (optimal string alignment). Words beyond 64 characters are never near anything.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > 64 {
        return usize::MAX;
    }
    let mut older = vec![0; b.len() + 1];
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut current = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            current[j] = substitution.min(previous[j] + 1).min(current[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                current[j] = current[j].min(older[j - 2] + 1);
            }
        }
        older = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_key_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("clustr", ["cluster", "node"]), Some("cluster"));
        assert_eq!(nearest("lsiten", ["listen"]), Some("listen"));
        assert_eq!(nearest("state-dir", ["state_dir", "cluster"]), Some("state_dir"));
        assert_eq!(nearest("trace", ["trace_id", "level"]), Some("trace_id"));
        assert_eq!(nearest("banana", ["cluster", "node"]), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let spot = Spot::in_source("a.toml", "a = 1\n\tbé = \"15\"\n", 13..17, false);
        let text = Diagnostic::error("b", "wrong", spot).to_string();
        assert_eq!(text, "a.toml:2:7: error: b: wrong\n  |\n2 |  bé = \"15\"\n  |       ^^^^");
    }

    #[test]
    fn control_bytes_and_secrets_of_the_file_are_not_shown() {
        let spot = Spot::in_source("a.toml", "x\u{1b}[31m = hunter2", 0..1, true);
        let text = Diagnostic::error("", "wrong", spot).to_string();
        assert!(text.contains("x\u{fffd}[31m = *******") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn user_info_of_a_url_is_not_shown() {
        let spot = Spot::in_source("a.toml", "url = \"http://u:hunter2 x@h:1/a@b\"", 6..7, false);
        let text = Diagnostic::error("", "wrong", spot).to_string();
        assert!(text.contains("url = \"http://********* *@h:1/a@b\""), "{text}");
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let spot = Spot::in_source("a.toml", "é", 7..9, false);
        assert!(matches!(spot, Spot::Source { line: 1, column: 2, width: 1, .. }), "{spot:?}");
    }
}
