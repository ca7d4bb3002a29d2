//! One pass over a JSON line: validates all of it and picks the few values that matter.
//!
//! In: a line. Out: `Some` for exactly the lines that are one JSON object in UTF-8 (RFC 8259, at most [`MAX_DEPTH`]
//! deep), with what [`super::keys`] asks for. Invariant: agrees with serde_json (`super::reference`) on which lines
//! are JSON and on every picked value. Of duplicate keys the last usable value wins.
//!
//! Strings are scanned eight bytes at a time; there is no recursion and no allocation.

use super::keys::{self, Entry, LONGEST_KEY, NOWHERE, ROOT};
use super::pick::{Picks, Value};
use super::unescape::unescape_short;
use super::{Format, Parsed};
use crate::data::batch::Fields;

/// Objects and arrays within each other; a line that nests deeper is not taken as JSON.
pub const MAX_DEPTH: usize = 32;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Reads one JSON object.
pub(super) fn read(line: &[u8], want: Fields) -> Option<Parsed> {
    let start = skip_space(line, 0);
    if line.get(start) != Some(&b'{') {
        return None;
    }
    let mut scan = Scan { line, non_ascii: 0 };
    let mut picks = Picks::new(line, want);
    picks.out.format = Format::Json;
    scan.object(start + 1, &mut picks)?;
    // Strings are the only place where the grammar lets a byte beyond ASCII through.
    if scan.non_ascii & HIGHS != 0 && std::str::from_utf8(line).is_err() {
        return None;
    }
    Some(picks.finish())
}

struct Scan<'a> {
    line: &'a [u8],
    /// All words of strings, or-ed.
    non_ascii: u64,
}

/// A byte of the high bit in each place of a quote, backslash or control character. Places above the first may be
/// wrong.
#[inline(always)]
fn specials(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    (quote.wrapping_sub(ONES) | backslash.wrapping_sub(ONES) | word.wrapping_sub(ONES * 0x20)) & !word & HIGHS
}

#[inline(always)]
fn word_at(line: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*line.get(at..)?.first_chunk::<8>()?))
}

#[inline(always)]
fn skip_space(line: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = line.get(at) {
        at += 1;
    }
    at
}

impl<'a> Scan<'a> {
    /// Reads from behind the outermost brace to the line's end. `None` when it is not JSON.
    #[inline]
    fn object(&mut self, mut at: usize, picks: &mut Picks<'a>) -> Option<()> {
        let line = self.line;
        let want = picks.want;
        // The containers we are in: a bit each, 1 for an object, and the node of each object's keys.
        let mut kinds = 1_u32;
        let mut nodes = [NOWHERE; MAX_DEPTH];
        let mut depth = 1;
        let mut node = ROOT;

        at = skip_space(line, at);
        if line.get(at) == Some(&b'}') {
            return self.end(at + 1);
        }
        'member: loop {
            // A key, its colon, and what the key means.
            at = skip_space(line, at);
            if line.get(at) != Some(&b'"') {
                return None;
            }
            at += 1;
            let start = at;
            let mut entry: Option<&'static Entry> = None;
            let word = word_at(line, at).unwrap_or(0);
            let found = specials(word);
            if found != 0 && line.get(at + (found.trailing_zeros() as usize >> 3)) == Some(&b'"') {
                // Most keys are shorter than eight bytes: the word just read is all that the look-up needs.
                let len = found.trailing_zeros() as usize >> 3;
                self.non_ascii |= word;
                at += len;
                if node != NOWHERE {
                    let mask = (1 << (8 * len)) - 1;
                    entry = keys::find_word(node, &line[start..at], word & mask);
                }
            } else {
                let (end, escaped) = self.string(start)?;
                at = end;
                if node != NOWHERE {
                    let key = &line[start..end];
                    entry = if escaped { find_escaped(node, key) } else { keys::find(node, key) };
                }
            }
            at += 1;
            if line.get(at) == Some(&b':') {
                at += 1;
            } else {
                at = skip_space(line, at);
                if line.get(at) != Some(&b':') {
                    return None;
                }
                at += 1;
            }
            entry = entry.filter(|entry| entry.serves.intersects(want));

            'value: loop {
                let mut byte = *line.get(at)?;
                if byte <= b' ' {
                    at = skip_space(line, at);
                    byte = *line.get(at)?;
                }
                match byte {
                    b'"' => {
                        let start = at + 1;
                        let (end, escaped) = self.string(start)?;
                        at = end + 1;
                        if let Some(entry) = entry {
                            picks.offer(entry, Value::Str(&line[start..end], escaped));
                        }
                    }
                    b'0'..=b'9' | b'-' => {
                        let end = number(line, at)?;
                        if let Some(entry) = entry {
                            picks.offer(entry, Value::Num(&line[at..end]));
                        }
                        at = end;
                    }
                    b'{' | b'[' => {
                        if depth == MAX_DEPTH {
                            return None;
                        }
                        nodes[depth] = node;
                        depth += 1;
                        let is_object = byte == b'{';
                        kinds = kinds << 1 | u32::from(is_object);
                        // Nothing is picked from lists.
                        node = match entry {
                            Some(entry) if is_object => entry.child,
                            _ => NOWHERE,
                        };
                        at = skip_space(line, at + 1);
                        let close = if is_object { b'}' } else { b']' };
                        if line.get(at) != Some(&close) {
                            if is_object {
                                continue 'member;
                            }
                            entry = None;
                            continue 'value;
                        }
                        at += 1;
                        depth -= 1;
                        kinds >>= 1;
                        node = nodes[depth];
                    }
                    b't' => {
                        at = literal(line, at, b"true")?;
                        if let Some(entry) = entry {
                            picks.offer(entry, Value::True);
                        }
                    }
                    b'f' => {
                        at = literal(line, at, b"false")?;
                        if let Some(entry) = entry {
                            picks.offer(entry, Value::False);
                        }
                    }
                    b'n' => {
                        at = literal(line, at, b"null")?;
                        if let Some(entry) = entry {
                            picks.offer(entry, Value::Null);
                        }
                    }
                    _ => return None,
                }
                // Behind a value: a comma, or the end of one or more containers.
                loop {
                    let mut byte = *line.get(at)?;
                    if byte <= b' ' {
                        at = skip_space(line, at);
                        byte = *line.get(at)?;
                    }
                    at += 1;
                    match byte {
                        b',' if kinds & 1 == 1 => continue 'member,
                        b',' => {
                            entry = None;
                            continue 'value;
                        }
                        b'}' if kinds & 1 == 1 => {}
                        b']' if kinds & 1 == 0 => {}
                        _ => return None,
                    }
                    depth -= 1;
                    if depth == 0 {
                        return self.end(at);
                    }
                    kinds >>= 1;
                    node = nodes[depth];
                }
            }
        }
    }

    fn end(&self, at: usize) -> Option<()> {
        (skip_space(self.line, at) == self.line.len()).then_some(())
    }

    /// Scans a string body from behind its opening quote; where its closing quote stands, and whether escapes are
    /// in it.
    #[inline]
    fn string(&mut self, mut at: usize) -> Option<(usize, bool)> {
        let line = self.line;
        let mut escaped = false;
        loop {
            if let Some(word) = word_at(line, at) {
                self.non_ascii |= word;
                let found = specials(word);
                if found == 0 {
                    at += 8;
                    continue;
                }
                at += found.trailing_zeros() as usize >> 3;
            } else {
                loop {
                    let byte = *line.get(at)?;
                    if byte == b'"' || byte == b'\\' || byte < 0x20 {
                        break;
                    }
                    self.non_ascii |= u64::from(byte);
                    at += 1;
                }
            }
            match line.get(at)? {
                b'"' => return Some((at, escaped)),
                b'\\' => {
                    escaped = true;
                    at = escape(line, at)?;
                }
                _ => return None,
            }
        }
    }
}

/// Passes one escape.
fn escape(line: &[u8], at: usize) -> Option<usize> {
    match line.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => line.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 6),
        _ => None,
    }
}

/// Passes `true`, `false` or `null`.
fn literal(line: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    line.get(at..)?.starts_with(word).then_some(at + word.len())
}

/// Passes a number by the grammar of RFC 8259, section 6, whatever its size.
#[inline]
fn number(line: &[u8], mut at: usize) -> Option<usize> {
    let digits = |mut at: usize| {
        while let Some(b'0'..=b'9') = line.get(at) {
            at += 1;
        }
        at
    };
    if line[at] == b'-' {
        at += 1;
    }
    at = match line.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits(at + 1),
        _ => return None,
    };
    if line.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        if end == at + 1 {
            return None;
        }
        at = end;
    }
    if let Some(b'e' | b'E') = line.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = line.get(at) {
            at += 1;
        }
        let end = digits(at);
        if end == at {
            return None;
        }
        at = end;
    }
    Some(at)
}

/// Looks up a key with escapes, such as `trace\u005fid`.
#[cold]
fn find_escaped(node: u8, key: &[u8]) -> Option<&'static Entry> {
    keys::find(node, unescape_short(key, &mut [0; LONGEST_KEY])?)
}
