//! One pass over a JSON line: validates all of it and picks the few values that matter.
//!
//! In: a line. Out: `Some` for exactly the lines that are one JSON object in UTF-8 (RFC 8259, at most [`MAX_DEPTH`]
//! deep), with what [`super::keys`] asks for. Invariant: agrees with serde_json (`super::reference`) on which lines
//! are JSON and on every picked value. Of duplicate keys the last usable value wins.
//!
//! Strings are scanned sixty-four bytes at a time; there is no recursion and no allocation.

use super::Format;
use super::keys::{self, Entry, LONGEST_KEY, NOWHERE, ROOT};
use super::pick::{Picks, Value};
use super::unescape::unescape_short;

/// Objects and arrays within each other; a line that nests deeper is not taken as JSON.
pub const MAX_DEPTH: usize = 32;

/// Reads one JSON object into `picks`; false when the line is none, and then `picks` is as it was.
#[inline]
pub(super) fn read<'a>(line: &'a [u8], picks: &mut Picks<'a>) -> bool {
    let start = skip_space(line, 0);
    if line.get(start) != Some(&b'{') {
        return false;
    }
    let mut scan = Scan::new(line);
    // Strings are the only place where the grammar lets a byte beyond ASCII through.
    let valid =
        scan.object(start + 1, picks).is_some() && (scan.non_ascii == 0 || std::str::from_utf8(line).is_ok());
    if valid {
        picks.out.format = Format::Json;
    } else {
        picks.reset();
    }
    valid
}

/// A cursor over a line that knows, for one block of it, where strings may end.
struct Scan<'a> {
    line: &'a [u8],
    /// Where the block begins.
    base: usize,
    /// The block's specials, lowest bit first.
    block: u64,
    /// Not 0 once a byte beyond ASCII was seen.
    non_ascii: u64,
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
    fn new(line: &'a [u8]) -> Self {
        let mut scan = Self { line, base: 0, block: 0, non_ascii: 0 };
        scan.next_block(0);
        scan
    }

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
            let (end, escaped) = self.string(start)?;
            at = end;
            if node != NOWHERE {
                let key = &line[start..end];
                entry = match word_at(line, start) {
                    _ if escaped => find_escaped(node, key),
                    _ if !keys::may_serve(*key.first().unwrap_or(&0), key.len(), want) => None,
                    _ if key.len() > LONGEST_KEY => None,
                    Some(word) if key.len() >= 8 => keys::find_word(node, key, word),
                    Some(word) => keys::find_word(node, key, word & ((1 << (8 * key.len())) - 1)),
                    None => keys::find(node, key),
                };
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
    #[inline(always)]
    fn string(&mut self, start: usize) -> Option<(usize, bool)> {
        let at = self.next_special(start)?;
        if self.line[at] == b'"' { Some((at, false)) } else { self.string_with_escapes(at) }
    }

    #[inline(never)]
    fn string_with_escapes(&mut self, mut at: usize) -> Option<(usize, bool)> {
        loop {
            match self.line[at] {
                b'"' => return Some((at, true)),
                b'\\' => at = escape(self.line, at)?,
                _ => return None,
            }
            at = self.next_special(at)?;
        }
    }

    /// The next quote, backslash or control character at or behind `at`.
    #[inline(always)]
    fn next_special(&mut self, at: usize) -> Option<usize> {
        let offset = at - self.base;
        if offset < 64 {
            let ahead = self.block >> offset;
            if ahead != 0 {
                return Some(at + ahead.trailing_zeros() as usize);
            }
            return self.next_block(self.base + 64);
        }
        self.next_block(at)
    }

    /// The first special at or behind `at`, in a block loaded from there.
    #[inline]
    fn next_block(&mut self, mut at: usize) -> Option<usize> {
        loop {
            let ahead = match self.line.get(at..)?.first_chunk::<64>() {
                Some(bytes) => {
                    self.base = at;
                    self.load(bytes)
                }
                // The last block ends where the line ends.
                None => match self.line.last_chunk::<64>() {
                    Some(bytes) => {
                        self.base = self.line.len() - 64;
                        self.load(bytes);
                        self.block.checked_shr((at - self.base) as u32).unwrap_or(0)
                    }
                    None => {
                        let mut bytes = [b' '; 64];
                        bytes[..self.line.len()].copy_from_slice(self.line);
                        self.base = 0;
                        self.load(&bytes);
                        self.block.checked_shr(at as u32).unwrap_or(0)
                    }
                },
            };
            if ahead != 0 {
                return Some(at + ahead.trailing_zeros() as usize);
            }
            at += 64;
        }
    }

    #[inline(always)]
    fn load(&mut self, bytes: &[u8; 64]) -> u64 {
        let (block, non_ascii) = super::block::specials(bytes);
        self.block = block;
        self.non_ascii |= non_ascii;
        block
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

/// Passes decimal digits.
#[inline(always)]
fn digits(line: &[u8], mut at: usize) -> usize {
    while let Some(word) = word_at(line, at) {
        let found = super::block::non_digits(word);
        if found != 0 {
            return at + (found.trailing_zeros() as usize >> 3);
        }
        at += 8;
    }
    while let Some(b'0'..=b'9') = line.get(at) {
        at += 1;
    }
    at
}

/// Passes a number by the grammar of RFC 8259, section 6, whatever its size.
#[inline]
fn number(line: &[u8], mut at: usize) -> Option<usize> {
    if line[at] == b'-' {
        at += 1;
    }
    at = match line.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits(line, at + 1),
        _ => return None,
    };
    if line.get(at) == Some(&b'.') {
        let end = digits(line, at + 1);
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
        let end = digits(line, at);
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
