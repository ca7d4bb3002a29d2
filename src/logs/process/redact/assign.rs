//! Secrets that their name gives away: `"password":"…"`, `token=…`, `--api-key …`, `Authorization: Bearer …`.
//!
//! In: a text and where a part of such a name stands in it. Out: the range of the value. Understands JSON, JSON
//! within a JSON string (any depth of `\"`), logfmt, query strings, `util.inspect` and plain prose. Invariant:
//! the value never includes its quotation marks or the structure around it.

use super::find::{looks_random, run_end};

/// Longest name that is looked at, in bytes to each side of its telling part.
const MAX_NAME: usize = 48;

/// A value and how it was written.
struct Value {
    from: usize,
    to: usize,
    quoted: bool,
    /// `name: value` without quotes, as prose has it too.
    prose: bool,
}

/// What the name says of its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    /// Surely a password.
    Password,
    /// `pass`: may also count tests.
    Pass,
    /// A secret or a key; in prose also the name of a thing.
    Secret,
    /// A token; in prose also a parser's word.
    Token,
}

/// The value of a password, secret, token or key whose name has a telling part at `start`; the flag says that it
/// is an AWS secret.
pub(super) fn assignment(text: &[u8], start: usize, _end: usize) -> Option<(usize, usize, bool)> {
    let (name_from, name_to) = name_around(text, start)?;
    let mut buffer = [0; 2 * MAX_NAME];
    let plain = normalised(&text[name_from..name_to], &mut buffer);
    let name = classify(plain, &text[name_from..name_to])?;
    let value = value_of(text, name_from, name_to)?;
    let written = &text[value.from..value.to];
    if is_mask(written) {
        return None;
    }
    if !value.quoted
        && matches!(written, b"true" | b"false" | b"null" | b"nil" | b"none" | b"None" | b"undefined")
    {
        return None;
    }
    let path = written.starts_with(b"/") && (plain.ends_with(b"pwd") || plain.ends_with(b"key"));
    let number = written.iter().all(u8::is_ascii_digit);
    let secret = match name {
        Name::Password => true,
        Name::Pass => !number,
        Name::Secret if value.prose => looks_random(written),
        Name::Secret => true,
        Name::Token if value.prose || !value.quoted && number => looks_random(written),
        Name::Token => true,
    };
    let aws = contains(plain, b"secretaccesskey") || contains(plain, b"aws");
    (secret && !path).then_some((value.from, value.to, aws))
}

/// The credential of an `Authorization` header, without its scheme.
pub(super) fn authorization(text: &[u8], start: usize, _end: usize) -> Option<(usize, usize)> {
    let (name_from, name_to) = name_around(text, start)?;
    let mut buffer = [0; 2 * MAX_NAME];
    if !normalised(&text[name_from..name_to], &mut buffer).ends_with(b"authorization") {
        return None;
    }
    let value = value_of(text, name_from, name_to)?;
    let written = &text[value.from..value.to];
    if is_mask(written) {
        return None;
    }
    const SCHEMES: [(&str, bool); 9] = [
        ("bearer", false),
        ("basic", false),
        ("token", false),
        ("apikey", false),
        ("negotiate", false),
        ("ntlm", false),
        ("digest", true),
        ("aws4-hmac-sha256", true),
        ("hawk", true),
    ];
    for (scheme, to_end_of_line) in SCHEMES {
        let len = scheme.len();
        let named = written.get(..len).is_some_and(|w| w.eq_ignore_ascii_case(scheme.as_bytes()));
        if !named {
            continue;
        }
        let from = run_end(text, value.from + len, |b| b == b' ');
        if from == value.from + len {
            continue;
        }
        let to = match (value.quoted, to_end_of_line) {
            (true, _) => value.to,
            (false, true) => run_end(text, from, |b| !matches!(b, b'\n' | b'\r')),
            (false, false) => unquoted_end(text, from),
        };
        return (to > from && !is_mask(&text[from..to])).then_some((from, to));
    }
    let secret = if value.quoted { written.len() >= 8 } else { looks_random(written) };
    secret.then_some((value.from, value.to))
}

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')
}

/// The whole name around `at`; `None` when it is too long to be one.
fn name_around(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let reach = at.saturating_sub(MAX_NAME);
    let from = text[reach..at].iter().rposition(|b| !name_byte(*b)).map_or(reach, |n| reach + n + 1);
    let reach = text.len().min(at + MAX_NAME);
    let to = run_end(&text[..reach], at, name_byte);
    (to < at + MAX_NAME).then_some((from, to))
}

/// The name in lower case without separators.
fn normalised<'a>(name: &[u8], buffer: &'a mut [u8; 2 * MAX_NAME]) -> &'a [u8] {
    let mut len = 0;
    for byte in name.iter().filter(|b| b.is_ascii_alphanumeric()) {
        buffer[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    &buffer[..len]
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

fn classify(plain: &[u8], written: &[u8]) -> Option<Name> {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| plain.ends_with(suffix.as_bytes()));
    if ends(&[
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "passwordconfirmation",
        "confirmpassword",
        "passwordhash",
    ]) || plain.len() > 1
        && plain[plain.len() - 1].is_ascii_digit()
        && plain[..plain.len() - 1].ends_with(b"password")
    {
        return Some(Name::Password);
    }
    if ends(&["pass"]) {
        let before = written.len().checked_sub(5).map(|n| written[n]);
        return before.is_none_or(|b| !b.is_ascii_alphanumeric()).then_some(Name::Pass);
    }
    if ends(&["secret", "secretkey", "secretaccesskey", "apikey", "accesskey", "privatekey", "secretvalue"]) {
        return Some(Name::Secret);
    }
    if !ends(&["token"]) {
        return None;
    }
    // Where a listing goes on, or a parser's complaint: no secrets.
    let harmless =
        ["pagetoken", "nexttoken", "continuationtoken", "cancellationtoken", "synctoken", "resumetoken"];
    (!ends(&harmless)).then_some(Name::Token)
}

/// The value after a name, if one is assigned.
fn value_of(text: &[u8], name_from: usize, name_to: usize) -> Option<Value> {
    let get = |at: usize| text.get(at).copied().unwrap_or(b' ');
    let starts = |at: usize, with: &[&str]| {
        with.iter().find(|w| text[at..].starts_with(w.as_bytes())).map(|w| at + w.len())
    };
    let mut at = name_to;
    // `user[password]=…`
    at = starts(at, &["]", "%5D", "%5d"]).unwrap_or(at);
    let name_quoted = match closing_quote(text, at) {
        Some(after) => {
            at = after;
            true
        }
        None => false,
    };
    let spaces = |at: usize| at + text[at..].iter().take(4).take_while(|b| **b == b' ').count();
    let before_sign = spaces(at);
    let option = get(name_from) == b'-';
    let (after_sign, colon) = if let Some(after) = starts(before_sign, &["=>", ":=", "%3D", "%3d"]) {
        (after, false)
    } else if get(before_sign) == b'=' && get(before_sign + 1) != b'=' {
        (before_sign + 1, false)
    } else if let Some(after) = starts(before_sign, &[":", "%3A", "%3a"]) {
        (after, true)
    } else if name_quoted && get(before_sign) == b',' {
        // `["X-Api-Key","…"]`, `["--password","…"]`; a list of words is none.
        let listed =
            option || text[name_from..name_to].contains(&b'-') || get(name_from).is_ascii_uppercase();
        let value = spaces(before_sign + 1);
        if !listed || closing_quote(text, value).is_none() {
            return None;
        }
        (before_sign + 1, false)
    } else if option && before_sign > at {
        (at, false)
    } else {
        return None;
    };
    let mut from = spaces(after_sign);
    let spaced = before_sign > at && from > after_sign;
    if let Some(after) = closing_quote(text, from) {
        let quote = text[after - 1];
        let slashes = after - 1 - from;
        from = after;
        let to = quoted_end(text, from, quote, slashes);
        return (to > from).then_some(Value { from, to, quoted: true, prose: false });
    }
    if matches!(get(from), b'{' | b'[' | b'(' | b'<') && (colon || name_quoted) {
        return None;
    }
    let to = unquoted_end(text, from);
    let prose = !name_quoted && (colon || spaced);
    (to > from).then_some(Value { from, to, quoted: false, prose })
}

/// Position after a quotation mark at `at`, with any backslashes before it.
fn closing_quote(text: &[u8], at: usize) -> Option<usize> {
    let mark = run_end(&text[..text.len().min(at + 16)], at, |b| b == b'\\');
    matches!(text.get(mark), Some(b'"' | b'\'' | b'`')).then_some(mark + 1)
}

/// End of a value that was opened by `quote` after `slashes` backslashes.
fn quoted_end(text: &[u8], from: usize, quote: u8, slashes: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        let byte = text[at];
        if byte == b'\n' && quote != b'"' {
            return at;
        }
        if byte != quote && byte != b'"' {
            at += 1;
            continue;
        }
        let before = text[from..at].iter().rev().take_while(|b| **b == b'\\').count();
        let closes = if byte != quote {
            // Another kind of quotation mark ends the string that all of this stands in, unless it is escaped.
            before.is_multiple_of(2) && quote != b'"'
        } else if slashes == 0 {
            before.is_multiple_of(2)
        } else {
            before <= slashes
        };
        if closes {
            return if slashes == 0 { at } else { at - before };
        }
        at += 1;
    }
    text.len()
}

/// End of a value without quotation marks.
fn unquoted_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        match text[at] {
            b if b.is_ascii_whitespace() => return at,
            b'"' | b'\'' | b'`' | b'&' | b'<' | b'>' => return at,
            b',' | b';' | b')' | b']' | b'}' | b'|' if ends_field(&text[at + 1..]) => return at,
            // An escaped backslash belongs to the value; an escaped line end or quotation mark ends it.
            b'\\' if matches!(text.get(at + 1), Some(b'\\' | b'/')) => at += 2,
            b'\\' if matches!(text.get(at + 1), None | Some(b'n' | b't' | b'r' | b'"' | b'\'' | b'u')) => {
                return at;
            }
            _ => at += 1,
        }
    }
    at.min(text.len())
}

/// True when what follows a punctuation mark is no continuation of a value: the end, more punctuation, or
/// another `name=`.
fn ends_field(rest: &[u8]) -> bool {
    let Some(next) = rest.first() else {
        return true;
    };
    if next.is_ascii_whitespace()
        || matches!(next, b'"' | b'\'' | b'\\' | b',' | b';' | b')' | b']' | b'}' | b'&')
    {
        return true;
    }
    let name = run_end(&rest[..rest.len().min(MAX_NAME)], 0, name_byte);
    name > 0 && matches!(rest.get(name), Some(b'=' | b':'))
}

/// True for what is masked already, so that a second pass changes nothing.
fn is_mask(value: &[u8]) -> bool {
    let lower =
        |prefix: &str| value.get(..prefix.len()).is_some_and(|v| v.eq_ignore_ascii_case(prefix.as_bytes()));
    value.iter().all(|b| matches!(b, b'*' | b'.' | b'x' | b'X' | b'-' | b'%'))
        || value.starts_with("•".as_bytes())
        || [
            "[redacted",
            "<redacted",
            "redacted",
            "[filtered",
            "<hidden",
            "[hidden",
            "***",
            "(redacted",
            "[secret",
        ]
        .iter()
        .any(|mask| lower(mask))
        || lower("Bearer [REDACTED")
}
