//! Covering: the same secrets that redaction replaces, as ranges to write over where they stand.
//!
//! In: a record whose line points into an arena. Out: ranges of the line. Invariant: every byte of text that
//! redaction would replace lies in a range, and a line that is valid JSON stays so when stars stand in the ranges
//! (a bare value's range is the whole value, to become a string of the same length).

use super::{Redactor, is_json, merge};
use crate::data::batch::Record;

/// A range of a line to write over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::logs) struct Cover {
    /// First byte.
    pub(in crate::logs) start: usize,
    /// Exclusive end.
    pub(in crate::logs) end: usize,
    /// A whole number or word of JSON, which only a string can stand in for.
    pub(in crate::logs) bare: bool,
}

impl Redactor {
    /// Where the line of `record` must be covered, in order and without overlaps. `in_key` as for
    /// [`redact`](Self::redact).
    pub(in crate::logs::process) fn covers(
        &self,
        scope: &[bool],
        in_key: bool,
        record: &Record,
        arena: &[u8],
    ) -> Vec<Cover> {
        let mut hits = self.find_in_line(scope, in_key, record, arena);
        if hits.is_empty() {
            return Vec::new();
        }
        merge(&mut hits);
        let line = record.body.of(arena);
        let plain: Vec<Cover> =
            hits.iter().map(|hit| whole_characters(line, hit.start, hit.end, false)).collect();
        let json = matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) && is_json(line);
        if !json || is_json(&starred(line, &plain)) {
            return plain;
        }
        // Each string and number that a hit touches for itself, as redaction does where it must.
        self.edits_by_value(line, &hits)
            .iter()
            .map(|edit| whole_characters(line, edit.start, edit.end, edit.text.first() == Some(&b'"')))
            .collect()
    }
}

/// Widens a range so that it cuts no character: a person's pattern may speak of bytes.
fn whole_characters(line: &[u8], mut start: usize, mut end: usize, bare: bool) -> Cover {
    let inside = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    while start > 0 && inside(start) {
        start -= 1;
    }
    while inside(end) {
        end += 1;
    }
    Cover { start, end, bare }
}

fn starred(line: &[u8], covers: &[Cover]) -> Vec<u8> {
    let mut out = line.to_vec();
    for cover in covers {
        out[cover.start..cover.end].fill(b'*');
    }
    out
}
