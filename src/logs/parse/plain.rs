//! Text of no particular shape: the level where loggers put it, ids wherever they are named.
//!
//! In: any line. Out: its fields. Invariant: a level word counts only in a level's place: at the start, or behind
//! nothing but time stamps, brackets and separators. A sentence with the word "error" in it is no error.

use super::pairs;
use super::pick::{Pick, Picks, Value};
use super::{ids, severity, time};
use crate::data::batch::Fields;

/// How far into a line a level is looked for, bytes and words.
const REGION: usize = 200;
const WORDS: usize = 12;

/// Beginnings that say what follows.
const OPENINGS: [(&[u8], u8); 11] = [
    (b"Traceback (most recent call last):", 17),
    (b"panic: ", 17),
    (b"fatal error: ", 21),
    (b"thread '", 0),
    (b"Exception in thread ", 17),
    (b"Unhandled exception", 17),
    (b"Uncaught ", 17),
    (b"PHP Fatal error:", 17),
    (b"PHP Parse error:", 17),
    (b"PHP Warning:", 13),
    (b"PHP Notice:", 10),
];

pub(super) fn read<'a>(line: &'a [u8], picks: &mut Picks<'a>) -> bool {
    level(line, picks);
    if picks.want.intersects(Fields::APP_TIME) {
        let lead = pairs::colours(line);
        let text = line[lead..].strip_prefix(b"[").unwrap_or(&line[lead..]);
        picks.out.app_time_unix_nano = stamp(text).unwrap_or(0);
    }
    spring(line, picks);
    pairs::offer(line, picks, false);
    true
}

/// A time stamp at the beginning of a text.
fn stamp(text: &[u8]) -> Option<u64> {
    let head = &text[..text.len().min(36)];
    let len = head
        .get(11..)?
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b':' | b'.' | b',' | b'+' | b'-' | b'Z'));
    time::from_text(&head[..len.map_or(head.len(), |len| len + 11)])
}

/// Takes the level from its place, if it has one.
pub(super) fn level(line: &[u8], picks: &mut Picks<'_>) {
    if !picks.want.intersects(Fields::LEVEL) {
        return;
    }
    let line = &line[..line.len().min(REGION)];
    let start = &line[pairs::colours(line)..];
    for (opening, number) in OPENINGS {
        if start.starts_with(opening) {
            let number = match number {
                0 if memchr::memmem::find(start, b"' panicked at").is_none() => continue,
                0 => 17,
                number => number,
            };
            picks.take_level_word(number);
            return;
        }
    }
    let mut words = Words { text: line, at: 0 };
    // What stood before: nothing, a separator, or a stamp.
    let mut separated = true;
    let mut stamped = false;
    let mut in_brackets = false;
    for _ in 0..WORDS {
        let Some(word) = words.next() else { return };
        let bracketed = in_brackets || word.text.starts_with(b"[");
        let core = word.core();
        let number = severity::known_word(core);
        let closed = word.text.ends_with(b"]");
        let colon = word.text[word.core_end()..].contains(&b':') || words.colon_follows();
        if number != 0 {
            let capitals = core.iter().all(u8::is_ascii_uppercase);
            let alone = (bracketed && closed && word.text.starts_with(b"["))
                || colon
                || (word.tab_before && word.tab_after)
                || (separated && stamped && words.separator_follows());
            if capitals || alone {
                picks.take_level_word(number);
                return;
            }
        }
        if is_separator(word.text) {
            separated = true;
            continue;
        }
        in_brackets = bracketed && !closed;
        if is_stamp(core) || bracketed {
            stamped |= !bracketed || is_stamp(core);
            separated = false;
            continue;
        }
        // A name counts as furniture only between separators: `… - billing - ERROR - …`.
        if !(separated && stamped && words.separator_follows()) {
            return;
        }
    }
}

fn is_separator(word: &[u8]) -> bool {
    word.iter().all(|byte| matches!(byte, b'-' | b'|' | b':' | b'>' | b'#'))
}

/// Digits with what stands between them in dates, times, addresses and process numbers; names of days, months and
/// zones.
fn is_stamp(word: &[u8]) -> bool {
    const NAMES: &[u8] = b"MonTueWedThuFriSatSunJanFebMarAprMayJunJulAugSepOctNovDecUTCGMT";
    if word.len() == 3 && NAMES.chunks_exact(3).any(|name| name == word) {
        return true;
    }
    word.iter().any(u8::is_ascii_digit)
        && word.iter().all(|byte| {
            byte.is_ascii_digit()
                || matches!(byte, b'-' | b':' | b'/' | b'.' | b',' | b'+' | b'T' | b'Z' | b'#' | b'*')
        })
}

/// Words of a text, colour codes aside.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

struct Word<'a> {
    text: &'a [u8],
    tab_before: bool,
    tab_after: bool,
}

impl Word<'_> {
    /// The word without brackets and punctuation around it, and without what follows it directly: `ERROR` of
    /// `[ERROR]`, `ERROR:root:x` and `ERROR[0012]`.
    fn core(&self) -> &[u8] {
        let start = self.core_start();
        &self.text[start..self.core_end().max(start)]
    }

    fn core_start(&self) -> usize {
        self.text
            .iter()
            .position(|byte| !matches!(byte, b'[' | b'(' | b'<' | b'|'))
            .unwrap_or(self.text.len())
    }

    fn core_end(&self) -> usize {
        let start = self.core_start();
        let rest = &self.text[start..];
        if rest.first().is_some_and(u8::is_ascii_alphabetic) {
            let len =
                rest.iter().position(|byte| matches!(byte, b']' | b')' | b'>' | b'|' | b':' | b',' | b'['));
            return start + len.unwrap_or(rest.len());
        }
        let trim = rest
            .iter()
            .rev()
            .take_while(|byte| matches!(byte, b']' | b')' | b'>' | b'|' | b':' | b','))
            .count();
        self.text.len() - trim
    }
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Word<'a>> {
        let mut tab_before = false;
        loop {
            match *self.text.get(self.at)? {
                0x1b => self.at += pairs::colours(&self.text[self.at..]).max(1),
                byte if byte <= b' ' => {
                    tab_before |= byte == b'\t';
                    self.at += 1;
                }
                _ => break,
            }
        }
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|byte| *byte <= b' ').unwrap_or(rest.len());
        self.at += len;
        Some(Word { text: &rest[..len], tab_before, tab_after: rest.get(len) == Some(&b'\t') })
    }

    /// True when a colour ends here and a colon comes.
    fn colon_follows(&self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.get(pairs::colours(rest)) == Some(&b':')
    }

    /// True when the next word is `-` or `|`.
    fn separator_follows(&self) -> bool {
        let mut ahead = Words { text: self.text, at: self.at };
        ahead.next().is_some_and(|word| is_separator(word.text))
    }
}

/// Spring's correlation: `[service,trace,span]`, `[service,trace,span,true]` of Sleuth, `[trace-span]` of Boot 3.
fn spring<'a>(line: &'a [u8], picks: &mut Picks<'a>) {
    if !picks.want.intersects(Fields::TRACE_ID.with(Fields::SPAN_ID)) {
        return;
    }
    let mut at = 0;
    // A line has few brackets before its message.
    for _ in 0..8 {
        let Some(open) = line.get(at..).and_then(|rest| memchr::memchr(b'[', rest)) else { return };
        let start = at + open + 1;
        let Some(len) = memchr::memchr(b']', &line[start..line.len().min(start + 160)]) else {
            at = start;
            continue;
        };
        let inside = &line[start..start + len];
        at = start + len;
        let mut parts = inside.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let (trace, span) = match (parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(trace), Some(span)) => (trace, span),
            (Some(both), None, None) if both.len() == 49 && both[32] == b'-' => (&both[..32], &both[33..]),
            _ => continue,
        };
        if ids::trace_b3(trace).is_some() && ids::span_hex(span).is_some() {
            picks.offer_as(Pick::TraceB3, 40, Value::Bare(trace));
            picks.offer_as(Pick::SpanHex, 40, Value::Bare(span));
            return;
        }
    }
}
