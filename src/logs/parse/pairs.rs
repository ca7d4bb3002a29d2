//! `key=value` and `key: value` in text.
//!
//! In: a line or a part of it. Out: pairs, in order. Invariant: one pass, keys are at most as long as the longest
//! known one, values end where their quote or word ends. Colour codes around keys and values are skipped.

use super::keys::{self, LONGEST_KEY, ROOT};
use super::pick::{Picks, Value};

/// One pair of a text.
pub(super) struct Pair<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// The value stood between double quotes, and whether backslashes are in it.
    pub(super) quoted: bool,
    pub(super) escaped: bool,
    /// `=` or `:`.
    pub(super) separator: u8,
    /// Where the pair begins and ends in the text.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl<'a> Pair<'a> {
    pub(super) fn as_value(&self) -> Value<'a> {
        if self.quoted { Value::Str(self.value, self.escaped) } else { Value::Bare(self.value) }
    }
}

fn is_key_byte(byte: u8) -> bool {
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
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        loop {
            let separator = self.at + memchr::memchr2(b'=', b':', self.text.get(self.at..)?)?;
            let floor = self.at;
            self.at = separator + 1;
            let Some((start, key)) = key_before(self.text, floor, separator) else { continue };
            let (value, quoted, escaped, end) = value_after(self.text, separator);
            if quoted {
                // What stands in quotes is the value's own text.
                self.at = end;
            }
            return Some(Pair { key, value, quoted, escaped, separator: self.text[separator], start, end });
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
    if start > floor && text[start - 1] == b';' || start > floor && text[start - 1] == b'[' {
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

/// The value behind a separator: its text, whether it was quoted and has backslashes, and where it ends.
fn value_after(text: &[u8], separator: usize) -> (&[u8], bool, bool, usize) {
    let mut at = separator + 1;
    if text[separator] == b':' && text.get(at) == Some(&b' ') {
        at += 1;
    }
    at += colours(&text[at..]);
    if let Some(quote @ (b'"' | b'\'')) = text.get(at) {
        let start = at + 1;
        let mut end = start;
        let mut escaped = false;
        while let Some(found) = memchr::memchr2(*quote, b'\\', &text[end..]) {
            end += found;
            if text[end] == *quote {
                return (&text[start..end], true, escaped, end + 1);
            }
            escaped = true;
            end = (end + 2).min(text.len());
        }
        return (&[], false, false, start);
    }
    let rest = &text[at..];
    let len = rest
        .iter()
        .position(|byte| {
            *byte <= b' '
                || *byte == 0x7f
                || matches!(byte, b',' | b';' | b')' | b']' | b'}' | b'"' | b'\'' | b'|')
        })
        .unwrap_or(rest.len());
    (&rest[..len], false, false, at + len)
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

/// Offers the pairs of a text. Running text gives only ids (`trace_id=…`, `traceID: …`, `"span_id":"…"`) and a level
/// written as `level=error`; `everything` says that the line is made of pairs, so all of them count.
pub(super) fn offer<'a>(text: &'a [u8], picks: &mut Picks<'a>, everything: bool) {
    for pair in Pairs::of(text) {
        let Some(entry) = keys::find(ROOT, pair.key) else { continue };
        if !entry.serves.intersects(picks.want) {
            continue;
        }
        for &(pick, rank) in &entry.picks {
            let is_level = pick.is_level() && pair.separator == b'=';
            if pick.is_id() || is_level || (everything && pair.separator == b'=') {
                picks.offer_as(pick, rank, pair.as_value());
            }
        }
    }
}

/// Offers only the ids of a text, where the line's level is known already.
pub(super) fn offer_ids<'a>(text: &'a [u8], picks: &mut Picks<'a>) {
    for pair in Pairs::of(text) {
        if let Some(entry) = keys::find(ROOT, pair.key)
            && entry.serves.intersects(picks.want)
        {
            for &(pick, rank) in entry.picks.iter().filter(|(pick, _)| pick.is_id()) {
                picks.offer_as(pick, rank, pair.as_value());
            }
        }
    }
}
