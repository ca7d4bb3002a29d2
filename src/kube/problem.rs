//! What is wrong with an annotation, in words that name the place and the fix.
//!
//! In: a finding with whatever text it is about. Out: [`Problem`]s, for an event, `doctor` and `why`. Invariants: text
//! from annotations is cut and escaped before it gets here; one pod has at most [`MAX_PROBLEMS`].

use std::fmt::{self, Display, Formatter};

/// Findings told of one pod; the others go unsaid until these are mended.
pub const MAX_PROBLEMS: usize = 16;

/// Characters of a foreign text that a message repeats.
const SHOWN: usize = 64;

/// Words longer than this are near nothing.
const MAX_WORD: usize = 64;

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// On the pod itself.
    Pod,
    /// On its namespace: the same finding comes again with each of its pods.
    Namespace,
}

/// An annotation that could not be used. Its default applies, and the logs still flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// Whether pod or namespace has the annotation.
    pub place: Place,
    /// The annotation's whole name, escaped.
    pub annotation: String,
    /// Its value, cut and escaped.
    pub value: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Pod => write!(f, "pod {}/{}", self.namespace, self.pod)?,
            Place::Namespace => write!(f, "namespace {}", self.namespace)?,
        }
        write!(f, ": annotation {} = \"{}\": {}; {}", self.annotation, self.value, self.what, self.fix)
    }
}

/// The findings of one pod.
#[derive(Debug)]
pub(super) struct Problems {
    namespace: String,
    pod: String,
    found: Vec<Problem>,
}

impl Problems {
    pub(super) fn of(namespace: &str, pod: &str) -> Self {
        Self { namespace: shown(namespace), pod: shown(pod), found: Vec::new() }
    }

    pub(super) fn push(&mut self, place: Place, annotation: &str, value: &str, wrong: Wrong) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(Problem {
                namespace: self.namespace.clone(),
                pod: self.pod.clone(),
                place,
                annotation: shown_within(annotation, 2 * SHOWN),
                value: shown(value),
                what: wrong.what,
                fix: wrong.fix,
            });
        }
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.found
    }
}

/// What is wrong with a value, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    what: String,
    fix: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

/// Foreign text as a message may repeat it: one line, nothing unprintable, of bounded length.
pub(super) fn shown(text: &str) -> String {
    shown_within(text, SHOWN)
}

fn shown_within(text: &str, limit: usize) -> String {
    let mut out: String = text.chars().take(limit).flat_map(char::escape_debug).collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

/// The candidate that was probably meant by `word`.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.chars().take(MAX_WORD + 1).collect::<String>().to_lowercase().replace('_', "-");
    let allowed = (folded.chars().count() / 3).max(1);
    let near = candidates.into_iter().map(|candidate| (distance(&folded, candidate), candidate));
    near.filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min()
        .map(|(_, found)| found)
}

/// Edits that turn `a` into `b`, swaps of neighbours counted as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > MAX_WORD {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        let keys = ["logs", "parser", "level-field", "trace-field", "sample", "multiline", "tenant"];
        for (word, near) in [
            ("log", Some("logs")),
            ("lgos", Some("logs")),
            ("Parser", Some("parser")),
            ("level_field", Some("level-field")),
            ("multi-line", Some("multiline")),
            ("sampel", Some("sample")),
            ("tennant", Some("tenant")),
            ("scrape", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, keys), near, "{word}");
        }
        assert_eq!(nearest(&"logs".repeat(100_000), keys), None);
    }

    #[test]
    fn what_is_shown_is_one_line_and_short() {
        assert_eq!(shown("a\r\nb\u{1b}[31m\u{202e}\"é"), "a\\r\\nb\\u{1b}[31m\\u{202e}\\\"é");
        assert_eq!(shown(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
