//! A rule's regular expression: anchored at both ends, with Go's meaning, and cheap where it can be.
//!
//! In: what the operator wrote, as for Prometheus. Out: whether a value matches, and where its groups are.
//! Invariants: a pattern that only lists words and their beginnings never runs a regular expression; matching takes
//! time linear in the value.

use parking_lot::{Mutex, MutexGuard};
use regex::bytes::{CaptureLocations, Regex, RegexBuilder};

/// Bytes of a compiled expression.
const MAX_BYTES: usize = 1 << 20;
/// The default: everything, as group 1.
pub(super) const DEFAULT: &str = "(.*)";

/// An anchored expression.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    /// What it comes to where it is a mere list.
    list: Option<Vec<Piece>>,
    regex: Regex,
    /// Where groups are, while one value is looked at.
    groups: Mutex<CaptureLocations>,
}

/// One alternative of a list.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// This word.
    Word(Vec<u8>),
    /// Everything that begins so; with the flag something must follow.
    Begins(Vec<u8>, bool),
    /// Everything that ends so; with the flag something must stand before.
    Ends(Vec<u8>, bool),
}

impl Piece {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Word(word) => value == word,
            Self::Begins(word, more) => {
                value.starts_with(word) && value.len() >= word.len() + usize::from(*more)
            }
            Self::Ends(word, more) => value.ends_with(word) && value.len() >= word.len() + usize::from(*more),
        }
    }
}

impl Pattern {
    /// Compiles what the operator wrote. The error is for people.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let whole = |text: &str| {
            RegexBuilder::new(&format!("^(?s:{})$", translate(text))).size_limit(MAX_BYTES).build()
        };
        let regex = whole(text).map_err(|cause| match cause {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
            // The cause points into the translated text: say its last line only.
            other => {
                other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        })?;
        let groups = Mutex::new(regex.capture_locations());
        Ok(Self { text: text.to_owned(), list: list(text), regex, groups })
    }

    /// True for the default, which takes everything.
    pub(super) fn is_default(&self) -> bool {
        self.text == DEFAULT
    }

    /// Index of a named group.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.regex.capture_names().position(|known| known == Some(name))
    }

    /// True when the whole value matches.
    #[inline]
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match &self.list {
            _ if self.is_default() => true,
            Some(list) => list.iter().any(|piece| piece.matches(value)),
            None => self.regex.is_match(value),
        }
    }

    /// Where groups are, if the whole value matches.
    pub(super) fn captures(&self, value: &[u8]) -> Option<Groups<'_>> {
        if self.is_default() {
            return Some(Groups::Whole { groups: 2, len: value.len() });
        }
        if self.list.is_some() {
            return self.matches(value).then_some(Groups::Whole { groups: 1, len: value.len() });
        }
        let mut groups = self.groups.lock();
        self.regex.captures_read(&mut groups, value)?;
        Some(Groups::Found(groups))
    }
}

/// Where the groups of a match are.
pub(super) enum Groups<'a> {
    /// So many groups, all of them the whole value.
    Whole { groups: usize, len: usize },
    /// As the expression found them.
    Found(MutexGuard<'a, CaptureLocations>),
}

impl Groups<'_> {
    /// Start and end of a group within the value; none for one that has no part in the match.
    pub(super) fn get(&self, group: usize) -> Option<(usize, usize)> {
        match self {
            Self::Whole { groups, len } => (group < *groups).then_some((0, *len)),
            Self::Found(found) => found.get(group),
        }
    }
}

/// The alternatives of a pattern that has no groups, classes or repetitions, only words with `.*` or `.+` at one end.
fn list(text: &str) -> Option<Vec<Piece>> {
    text.split('|').map(piece).collect()
}

fn piece(text: &str) -> Option<Piece> {
    let wild = |text: &str| match text {
        ".*" => Some(false),
        ".+" => Some(true),
        _ => None,
    };
    let (begin, rest) = text.split_at_checked(2).unwrap_or(("", text));
    if let Some(more) = wild(begin) {
        return Some(Piece::Ends(word(rest)?, more));
    }
    let (rest, end) = text.split_at_checked(text.len().saturating_sub(2)).unwrap_or((text, ""));
    match wild(end) {
        // `\.*`: the dot is a word's own.
        Some(more) if !rest.ends_with('\\') => Some(Piece::Begins(word(rest)?, more)),
        _ => Some(Piece::Word(word(text)?)),
    }
}

/// A text without any meaning of its own; `\.` and `\-` are the letters themselves.
fn word(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push(bytes.next().filter(|next| b"./-:".contains(next))?),
            b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'^' | b'$' => return None,
            _ => out.push(byte),
        }
    }
    Some(out)
}

/// Go's syntax as Rust's: they differ in what `\d`, `\w`, `\s` and `\b` take (ASCII in Go), in `\Q…\E`, in which signs
/// may be escaped, and in what stands for itself inside of a class.
/// Source: `regexp/syntax` of Go; `regex` crate, "Syntax".
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut letters = text.chars().peekable();
    // In a class: true until its first member, which may be a bracket.
    let mut class: Option<bool> = None;
    while let Some(letter) = letters.next() {
        let first = class == Some(true);
        if class.is_some() {
            class = Some(false);
        }
        match letter {
            '\\' => match letters.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') if class.is_none() => out.push_str("(?-u:\\b)"),
                Some('Q') if class.is_none() => {
                    let mut quoted = String::new();
                    while let Some(letter) = letters.next() {
                        if letter == '\\' && letters.next_if_eq(&'E').is_some() {
                            break;
                        }
                        quoted.push(letter);
                    }
                    out.push_str(&regex::escape(&quoted));
                }
                Some(sign) if sign.is_ascii_punctuation() => {
                    out.push_str(&format!("\\x{:02x}", u32::from(sign)))
                }
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if class.is_none() => {
                out.push('[');
                if letters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                class = Some(true);
            }
            '[' if letters.peek() == Some(&':') => {
                out.push('[');
                while let Some(letter) = letters.next() {
                    out.push(letter);
                    if letter == ':' && letters.next_if_eq(&']').is_some() {
                        out.push(']');
                        break;
                    }
                }
            }
            '[' if class.is_some() => out.push_str("\\["),
            ']' if first => out.push_str("\\]"),
            ']' if class.is_some() => {
                out.push(']');
                class = None;
            }
            '&' | '~' if class.is_some() => out.extend(['\\', letter]),
            '-' if class.is_some() && letters.peek() == Some(&'-') => out.push_str("\\-"),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        let compiled = Pattern::new(pattern).expect(pattern);
        let by_list = compiled.matches(value.as_bytes());
        assert_eq!(by_list, compiled.regex.is_match(value.as_bytes()), "{pattern} on {value}");
        by_list
    }

    #[test]
    fn the_whole_value_must_match() {
        assert!(matches("f|o", "f") && matches("f|o", "o"));
        assert!(!matches("f|o", "foo") && !matches("oo", "foo"));
        assert!(matches("", "") && !matches("", "a"));
        assert!(matches("line1.*line2", "line1\nline2"), "a dot takes a new line too");
    }

    #[test]
    fn a_list_of_words_runs_no_regular_expression_and_says_the_same() {
        for (pattern, yes, no) in [
            ("go_.*|process_.*|up", "go_goroutines", "nodejs_go_"),
            ("go_.*|process_.*|up", "up", "upp"),
            ("go_.+", "go_x", "go_"),
            (".*_bucket", "a_bucket", "a_bucket_b"),
            (".+_bucket", "a_bucket", "_bucket"),
            ("a\\.b|c\\-d", "a.b", "axb"),
        ] {
            let compiled = Pattern::new(pattern).expect(pattern);
            assert!(compiled.list.is_some(), "{pattern}");
            assert!(matches(pattern, yes), "{pattern} takes {yes}");
            assert!(!matches(pattern, no), "{pattern} refuses {no}");
        }
        for pattern in ["(.*)x", "a.b", "a\\.*", "a*", "[ab]", "a\\d", "^a", "a$", "..*", "a.*b", ".*a.*"] {
            let compiled = Pattern::new(pattern).expect(pattern);
            assert!(compiled.list.is_none(), "{pattern}");
        }
    }

    #[test]
    fn classes_mean_what_they_mean_in_go() {
        assert!(matches("\\d+", "12") && !matches("\\d", "٣"), "digits are those of ASCII");
        assert!(matches("[\\w-]+", "a-b_1") && !matches("\\w", "é"));
        assert!(!matches("\\s", "\u{b}") && matches("[^\\s]+", "a\u{b}"));
        assert!(matches("[a[b]", "[") && matches("[]a]", "]") && matches("[^]a]", "b"));
        assert!(matches("[a&&b]+", "a&b") && matches("[a~~b]", "~"));
        assert!(matches("[[:alpha:]\\d]+", "a1"));
        assert!(matches("a\\_b\\<c\\>\\/", "a_b<c>/"));
        assert!(matches("\\Qa.b\\E.", "a.bc") && !matches("\\Qa.b\\E.", "axbc"));
        assert!(matches("(?P<x>a)(?<y>b)", "ab") && matches("(?i)ABC", "abc"));
        assert!(matches(".", "é"), "a dot is a letter, not a byte");
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        assert_eq!(Pattern::new("(").err().as_deref(), Some("unclosed group"));
        assert_eq!(
            Pattern::new("(?:a{1000}){1000}").err().as_deref(),
            Some("the regular expression is too large")
        );
        for odd in ["\\", "[", "[a", "[[:", "a\\Q", "*", "a{2,1}", "\\p{Nope}"] {
            let _ = Pattern::new(odd);
        }
    }
}
