//! What the raw bytes of a log must hold for any of its records to be found.
//!
//! In: the trace id or the regular expression that is looked for. Out: a search over raw bytes that is at least as fast as
//! reading them; `None` where nothing can be said. Invariant: a stretch of a log in which nothing is found holds no record
//! that is looked for, but for one that takes over its trace id from an earlier line.
//!
//! What stands in a record need not stand in the file: a trace id is written in several forms, docker escapes its lines,
//! redaction writes texts of its own, and a runtime cuts long lines into pieces.

use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};

use crate::logs::frame::Framing;
use crate::logs::process::Chain;

/// A shorter text is found everywhere.
const SHORTEST: usize = 3;

/// What to look for in raw bytes.
#[derive(Debug)]
pub(super) struct Needle {
    pattern: Regex,
}

impl Needle {
    /// What must be there for a record of the trace that begins with `trace`, in lower case.
    pub(super) fn of_trace(trace: &str) -> Option<Self> {
        let mut forms = vec![trace.to_owned()];
        // AWS X-Ray parts the first eight digits from the others.
        if let Some((seconds, rest)) = trace.split_at_checked(8).filter(|(_, rest)| !rest.is_empty()) {
            forms.push(format!("{seconds}-{rest}"));
        }
        if trace.bytes().take(16).all(|digit| digit == b'0') {
            // A 64-bit id may be written without its zeros, or in decimal.
            let low = trace.get(16..).filter(|low| low.len() == 16)?;
            let decimal = u64::from_str_radix(low, 16).ok().filter(|id| *id != 0)?;
            forms = vec![low.to_owned(), decimal.to_string()];
        }
        let forms: Vec<String> = forms.iter().map(|form| regex::escape(form)).collect();
        Self::new(&forms.join("|"), true)
    }

    /// What must be there for a line that matches `pattern` after the rules of `chain`.
    pub(super) fn of_pattern(pattern: &str, chain: &Chain) -> Option<Self> {
        let literal = literal(pattern)?;
        if chain.may_write(&literal) {
            return None;
        }
        Self::new(&regex::escape(&literal), false)
    }

    fn new(pattern: &str, any_case: bool) -> Option<Self> {
        let pattern = RegexBuilder::new(pattern).case_insensitive(any_case).unicode(false).build().ok()?;
        Some(Self { pattern })
    }

    /// Where in a stretch of whole physical lines the first thing stands that may be part of a record.
    pub(super) fn find(&self, bytes: &[u8], framing: Framing) -> Option<usize> {
        let hit = self.pattern.find(bytes).map(|found| found.start());
        // What is cut into pieces may have been cut within the text.
        let piece = match framing {
            Framing::Runtime | Framing::Taken => first_piece(bytes),
            Framing::Lines { .. } => None,
        };
        hit.into_iter().chain(piece).min()
    }
}

/// Where the first line stands that a runtime has cut.
fn first_piece(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'{') {
        // docker's json-file: a whole line ends in an escaped newline.
        let whole = memmem::find_iter(bytes, br#"\n","stream""#).count();
        let lines = memchr::memchr_iter(b'\n', bytes).count();
        return (whole < lines).then_some(0);
    }
    memmem::find(bytes, b" P ")
}

/// The longest text that every match of `pattern` holds, as far as that is plain to see.
fn literal(pattern: &str) -> Option<String> {
    // Flags change what letters mean.
    if pattern.contains("(?") {
        return None;
    }
    let (mut best, mut run) = (String::new(), String::new());
    let mut chars = pattern.chars().peekable();
    let mut end = |run: &mut String| {
        if run.len() > best.len() {
            best.clone_from(run);
        }
        run.clear();
    };
    while let Some(char) = chars.next() {
        match char {
            '|' => return None,
            '(' => {
                end(&mut run);
                skip_group(&mut chars)?;
            }
            '[' => {
                end(&mut run);
                skip_class(&mut chars)?;
            }
            '*' | '?' | '{' => {
                // What came before may be missing.
                run.pop();
                end(&mut run);
                if char == '{' {
                    chars.by_ref().find(|char| *char == '}')?;
                }
            }
            '\\' => match chars.next()? {
                escaped if escaped.is_ascii_punctuation() && is_plain(escaped) => run.push(escaped),
                escaped => {
                    end(&mut run);
                    // `\p{…}`, `\x{…}`: whatever is in the braces is no text.
                    if escaped.is_ascii_alphanumeric() && chars.peek() == Some(&'{') {
                        chars.by_ref().find(|char| *char == '}')?;
                    } else if escaped.is_ascii_alphanumeric() && !"dDsSwWbBAznrt".contains(escaped) {
                        return None;
                    }
                }
            },
            '.' | '^' | '$' | '+' | ')' => end(&mut run),
            char if is_plain(char) => run.push(char),
            _ => end(&mut run),
        }
    }
    end(&mut run);
    (best.len() >= SHORTEST).then_some(best)
}

/// True for what stands in the file as it stands in the line, whoever writes it.
fn is_plain(char: char) -> bool {
    (char.is_ascii_graphic() || char == ' ') && !"\"\\<>&".contains(char)
}

fn skip_group(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match chars.next()? {
            '\\' => drop(chars.next()?),
            '[' => skip_class(chars)?,
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    Some(())
}

fn skip_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<()> {
    let mut depth = 1;
    let mut first = true;
    while depth > 0 {
        match chars.next()? {
            '\\' => drop(chars.next()?),
            '^' if first => continue,
            ']' if first => {}
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        first = false;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::process::Config;

    #[test]
    fn the_longest_certain_text_of_a_pattern_is_looked_for() {
        for (pattern, text) in [
            ("payment declined", Some("payment declined")),
            (r"order \d+ failed: timeout", Some(" failed: timeout")),
            (r"10\.0\.0\.1", Some("10.0.0.1")),
            ("colou?r.*shade", Some("shade")),
            ("abc+def", Some("abc")),
            ("status=[45]..", Some("status=")),
            ("user (alice|bob) left", Some("user ")),
            (r"say \x{41}bcd[\]x]efgh", Some("efgh")),
            ("x{0,3}yes", Some("yes")),
            // None of these is certain.
            ("alice|bob", None),
            ("(?i)declined", None),
            ("ab", None),
            (r"\x41bcd", None),
            ("[]abc]", None),
            ("a\"b<c>", None),
            ("(abc)?", None),
        ] {
            assert_eq!(literal(pattern).as_deref(), text, "{pattern}");
        }
    }

    #[test]
    fn what_redaction_may_write_is_no_certain_text() {
        let config: Config = toml::from_str("[redact]\nbuiltin = true").expect("valid");
        let chain = Chain::compile(&config).expect("valid");
        for (pattern, certain) in [
            ("REDACTED", false),
            (r"token=\[REDACTED", false),
            ("jwt", false),
            ("token=", true),
            ("jwt ok", true),
        ] {
            assert_eq!(Needle::of_pattern(pattern, &chain).is_some(), certain, "{pattern}");
        }
    }

    #[test]
    fn a_trace_is_found_in_each_form_of_its_id() {
        let id = "5759e988bd862e3fe1be46a994272793";
        for (trace, text) in [
            (id, "trace=5759e988bd862e3fe1be46a994272793"),
            (id, "trace=5759E988BD862E3FE1BE46A994272793"),
            (id, "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"),
            (&id[..10], "Root=1-5759e988-bd862e3fe1be46a994272793"),
            (&id[..6], "00-5759e988bd862e3fe1be46a994272793-00f067aa0ba902b7-01"),
            ("0000000000000000463ac35c9f6413ad", "x-b3-traceid: 463ac35c9f6413ad"),
            ("0000000000000000463ac35c9f6413ad", "dd.trace_id=5060571933882717101"),
            ("0000000000000000463ac35c9f6413ad", "t=0000000000000000463ac35c9f6413ad"),
        ] {
            let needle = Needle::of_trace(trace).expect("certain");
            assert!(needle.find(text.as_bytes(), Framing::Runtime).is_some(), "{trace} in {text}");
            assert_eq!(needle.find(b"another line\n", Framing::Runtime), None);
        }
        // The beginning of a 64-bit id says nothing of its decimal digits.
        for trace in ["0000", "0000000000000000", "0000000000000000463ac3"] {
            assert!(Needle::of_trace(trace).is_none(), "{trace}");
        }
        assert!(Needle::of_trace("000000000000000146").is_some(), "fifteen zeros are of a long id");
    }

    #[test]
    fn pieces_of_a_line_may_hold_anything() {
        let needle = Needle::of_trace("abcdef0123456789abcdef0123456789").expect("certain");
        let find = |bytes: &[u8]| needle.find(bytes, Framing::Runtime);
        assert_eq!(find(b"2026-11-22T14:51:07.0Z stdout F one\n"), None);
        assert_eq!(find(b"2026-11-22T14:51:07.0Z stdout P abcd\n"), Some(29));
        let whole = br#"{"log":"one\n","stream":"stdout","time":"2026-11-22T14:51:07.0Z"}"#;
        let piece = br#"{"log":"one","stream":"stdout","time":"2026-11-22T14:51:07.0Z"}"#;
        let lines = |lines: &[&[u8]]| [lines.join(&b'\n'), b"\n".to_vec()].concat();
        assert_eq!(find(&lines(&[whole, whole])), None);
        assert_eq!(find(&lines(&[whole, piece, whole])), Some(0));
        // A file of an application has no pieces, whatever its lines look like.
        let framing = Framing::Lines { shift_nanos: 0 };
        assert_eq!(needle.find(&lines(&[piece, piece]), framing), None);
    }
}
