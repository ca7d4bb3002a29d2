//! `key=value` and `key: value` in text.
//!
//! In: a line or a part of it. Out: pairs, in order. Invariant: one pass, keys are at most as long as the longest
//! known one, values end where their quote or word ends. Colour codes around keys and values are skipped.

use super::keys::{self, LONGEST_KEY, ROOT};
use super::pick::{Pick, Picks, Value};

/// A key of a text and the separator behind it.
pub(super) struct Pair<'a> {
    pub(super) key: &'a [u8],
    /// Where the key begins in the text.
    pub(super) start: usize,
    /// `=` or `:`.
    pub(super) separator: u8,
    /// Where the separator stands.
    at: usize,
    /// The value, when it stands in quotes.
    quoted: Option<Found<'a>>,
}

/// A value in a text, and where it ends.
pub(super) struct Found<'a> {
    pub(super) value: Value<'a>,
    pub(super) end: usize,
}

impl<'a> Pair<'a> {
    /// The value, in the text that the pair is of. Takes time in proportion to its length.
    pub(super) fn value(self, text: &'a [u8]) -> Found<'a> {
        let Self { at, quoted, .. } = self;
        quoted.unwrap_or_else(|| bare_value(text, value_start(text, at)))
    }
}

/// Letters, digits and what joins them in keys.
pub(super) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b'@')
}

/// The pairs of a text.
pub(super) struct Pairs<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Pairs<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Passes over what stands before `at`.
    pub(super) fn go_on_at(&mut self, at: usize) {
        self.at = self.at.max(at);
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        loop {
            let at = self.at + memchr::memchr2(b'=', b':', self.text.get(self.at..)?)?;
            let floor = self.at;
            self.at = at + 1;
            let Some((start, key)) = key_before(self.text, floor, at) else { continue };
            let quoted = quoted_value(self.text, value_start(self.text, at));
            if let Some(found) = &quoted {
                // What stands in quotes is the value's own text.
                self.at = found.end;
            }
            return Some(Pair { key, start, separator: self.text[at], at, quoted });
        }
    }
}

/// The word that ends before `separator` and begins at or behind `floor`.
fn key_before(text: &[u8], floor: usize, separator: usize) -> Option<(usize, &[u8])> {
    let mut end = separator;
    if end > floor && text[end - 1] == b'm' {
        end = before_colour(text, floor, end);
    }
    let quoted = end > floor && matches!(text[end - 1], b'"' | b'\'');
    if quoted {
        end -= 1;
    }
    let lowest = floor.max(end.saturating_sub(LONGEST_KEY + 1));
    let mut start = end;
    while start > lowest && is_key_byte(text[start - 1]) {
        start -= 1;
    }
    // The final m of a colour code is no part of the key.
    if start > floor && matches!(text[start - 1], b';' | b'[') {
        start = behind_colour(text, floor, start).unwrap_or(start);
    }
    (start < end && end - start <= LONGEST_KEY).then(|| (start, &text[start..end]))
}

/// Steps back over `ESC [ 0 m` before `end`.
fn before_colour(text: &[u8], floor: usize, end: usize) -> usize {
    let mut at = end;
    while at > floor && text[at - 1] == b'm' {
        let mut open = at - 1;
        while open > floor && at - open < 12 && matches!(text[open - 1], b'0'..=b'9' | b';') {
            open -= 1;
        }
        if open < floor + 2 || text[open - 1] != b'[' || text[open - 2] != 0x1b {
            break;
        }
        at = open - 2;
    }
    at
}

/// When the word at `start` begins within a colour code (`ESC [ 3 m key`), where the key itself begins.
fn behind_colour(text: &[u8], floor: usize, start: usize) -> Option<usize> {
    let mut open = start;
    while open > floor && start - open < 12 && matches!(text[open - 1], b'0'..=b'9' | b';') {
        open -= 1;
    }
    if open < floor + 2 || text[open - 1] != b'[' || text[open - 2] != 0x1b {
        return None;
    }
    let mut at = start;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    (text.get(at) == Some(&b'm')).then_some(at + 1)
}

/// Where the value behind a separator begins: behind a space after a colon, and behind colour codes.
fn value_start(text: &[u8], separator: usize) -> usize {
    let mut at = separator + 1;
    if text[separator] == b':' && text.get(at) == Some(&b' ') {
        at += 1;
    }
    at + colours(&text[at..])
}

fn quoted_value(text: &[u8], at: usize) -> Option<Found<'_>> {
    let quote = *text.get(at).filter(|byte| matches!(byte, b'"' | b'\''))?;
    let start = at + 1;
    let mut end = start;
    let mut escaped = false;
    while let Some(found) = memchr::memchr2(quote, b'\\', &text[end..]) {
        end += found;
        if text[end] == quote {
            return Some(Found { value: Value::Str(&text[start..end], escaped), end: end + 1 });
        }
        escaped = true;
        end = (end + 2).min(text.len());
    }
    None
}

fn bare_value(text: &[u8], at: usize) -> Found<'_> {
    let rest = &text[at..];
    let ends = |byte: &u8| {
        *byte <= b' '
            || *byte == 0x7f
            || matches!(byte, b',' | b';' | b')' | b']' | b'}' | b'"' | b'\'' | b'|')
    };
    let len = rest.iter().position(ends).unwrap_or(rest.len());
    Found { value: Value::Bare(&rest[..len]), end: at + len }
}

/// Length of the colour codes (CSI sequences) at the beginning of a text.
pub(super) fn colours(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some([0x1b, b'[']) = text.get(at..at + 2) {
        let rest = &text[at + 2..];
        // Parameters and intermediates, then one final byte. Source: ECMA-48, 5.4.
        match rest.iter().take(32).position(|byte| (0x40..=0x7e).contains(byte)) {
            Some(end) => at += end + 3,
            None => break,
        }
    }
    at
}

/// A word without the colour codes before and behind it.
#[inline]
pub(super) fn without_colours(word: &[u8]) -> &[u8] {
    if word.first() != Some(&0x1b) {
        return word;
    }
    let word = &word[colours(word)..];
    &word[..memchr::memchr(0x1b, word).unwrap_or(word.len())]
}

/// Offers the pairs of a text. Running text gives only ids (`trace_id=…`, `traceID: …`, `"span_id":"…"`) and a level
/// written as `level=error`; `everything` says that the line is made of pairs, so all of them count.
pub(super) fn offer<'a>(text: &'a [u8], picks: &mut Picks<'a>, everything: bool) {
    offer_where(text, picks, |pick, separator| {
        pick.is_id() || (separator == b'=' && (everything || pick.is_level()))
    });
}

/// Offers only the ids of a text, where the line's own form gives the rest.
pub(super) fn offer_ids<'a>(text: &'a [u8], picks: &mut Picks<'a>) {
    offer_where(text, picks, |pick, _| pick.is_id());
}

fn offer_where<'a>(text: &'a [u8], picks: &mut Picks<'a>, counts: impl Fn(Pick, u8) -> bool) {
    let mut pairs = Pairs::of(text);
    while let Some(pair) = pairs.next() {
        let Some(entry) = keys::find(ROOT, pair.key) else { continue };
        let separator = pair.separator;
        if !entry.picks.iter().any(|(pick, _)| counts(*pick, separator)) {
            continue;
        }
        // The value is passed over whether it is wanted or not: where further pairs begin must not depend on that.
        let found = pair.value(text);
        if entry.serves.intersects(picks.want) {
            for &(pick, rank) in entry.picks.iter().filter(|(pick, _)| counts(*pick, separator)) {
                picks.offer_as(pick, rank, found.value);
            }
        }
        // A value is read once, so a line costs time in proportion to its length.
        pairs.go_on_at(found.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let text = text.as_bytes();
        Pairs::of(text)
            .map(|pair| {
                let key = String::from_utf8_lossy(pair.key).into_owned();
                let value = match pair.value(text).value {
                    Value::Str(value, _) | Value::Bare(value) => String::from_utf8_lossy(value).into_owned(),
                    _ => String::new(),
                };
                (key, value)
            })
            .collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn keys_and_values_are_found_in_any_dress() {
        assert_eq!(pairs("a=1 b=\"x y\" c='z'"), owned(&[("a", "1"), ("b", "x y"), ("c", "z")]));
        assert_eq!(pairs("done (trace_id: ab12), ok"), owned(&[("trace_id", "ab12")]));
        assert_eq!(pairs("got {\"span_id\":\"ff\"}"), owned(&[("span_id", "ff")]));
        assert_eq!(pairs("\u{1b}[3mtrace_id\u{1b}[0m\u{1b}[2m=\u{1b}[0mab"), owned(&[("trace_id", "ab")]));
        assert_eq!(
            pairs("msg=\"level=error \\\" x=1\" y=2"),
            owned(&[("msg", "level=error \\\" x=1"), ("y", "2")])
        );
        assert_eq!(pairs("a=\"open"), owned(&[("a", "")]));
        assert_eq!(pairs("= : =a :b"), owned(&[]));
    }
}
