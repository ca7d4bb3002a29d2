//! Where names, quoted strings and tokens of the text formats end.
//!
//! In: the text and a place in it. Out: the place behind. Nothing is copied and nothing is judged beyond the shape.

use super::{Fault, Parsed};

/// Bits of [`CLASS`]: what a byte may be a part of.
const LABEL: u8 = 1;
const METRIC: u8 = 2;
const DIGIT: u8 = 4;
const BLANK: u8 = 8;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => LABEL | METRIC,
            b':' => METRIC,
            b'0'..=b'9' => LABEL | METRIC | DIGIT,
            b' ' | b'\t' => BLANK,
            _ => 0,
        };
        byte += 1;
    }
    class
};

#[inline]
fn run(text: &[u8], mut at: usize, of: u8) -> usize {
    while let Some(byte) = text.get(at)
        && CLASS[*byte as usize] & of != 0
    {
        at += 1;
    }
    at
}

/// Behind the spaces and tabs at `at`.
#[inline]
pub(super) fn blanks(text: &[u8], at: usize) -> usize {
    run(text, at, BLANK)
}

/// Behind the digits at `at`.
#[inline]
pub(super) fn digits(text: &[u8], at: usize) -> usize {
    run(text, at, DIGIT)
}

/// Behind the metric name at `at`; `at` itself where none begins.
#[inline]
pub(super) fn metric_name(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(byte) if CLASS[*byte as usize] & (METRIC | DIGIT) == METRIC => run(text, at + 1, METRIC),
        _ => at,
    }
}

/// Behind the label name at `at`; `at` itself where none begins.
#[inline]
pub(super) fn label_name(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        Some(byte) if CLASS[*byte as usize] & (LABEL | DIGIT) == LABEL => run(text, at + 1, LABEL),
        _ => at,
    }
}

/// Behind the line at `at`, its newline not included.
#[inline]
pub(super) fn line(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |length| at + length)
}

/// The inside of a quoted string.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted {
    /// Behind the opening quote.
    pub(super) start: usize,
    /// The closing quote.
    pub(super) end: usize,
    /// There are backslashes in it.
    pub(super) escaped: bool,
}

/// The quoted string whose opening quote stands at `at`. A newline is in it only where `newlines` are allowed, and never behind
/// a backslash.
#[inline]
pub(super) fn quoted(text: &[u8], at: usize, newlines: bool) -> Parsed<Quoted> {
    let start = at + 1;
    let (mut end, mut escaped) = (start, false);
    // A label's value is a few bytes long: a loop is done before a search has begun.
    loop {
        match text.get(end) {
            Some(b'"') => return Ok(Quoted { start, end, escaped }),
            Some(b'\\') => {
                escaped = true;
                match text.get(end + 1) {
                    None | Some(b'\n') => return Fault::at(end, "expected a character behind the backslash"),
                    Some(_) => end += 2,
                }
            }
            Some(b'\n') if !newlines => return Fault::at(at, "expected a closing quote in the line"),
            Some(_) => end += 1,
            None => return Fault::at(at, "expected a closing quote"),
        }
    }
}
