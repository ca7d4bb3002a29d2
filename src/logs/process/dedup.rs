//! Deduplication: consecutive equal lines become the first and a last one with a count.
//!
//! In: the records of one container log, in order. Out: the same records less the copies in between. A run is a
//! maximal sequence of records with equal stream, severity and text inside one aligned window of their own time
//! and one aligned 64 KiB block of the log. Invariant: where runs begin and end is decided by the log's bytes,
//! so reading again from the start of a block gives the identical records; only closing a run of a log that
//! has fallen quiet looks at the clock, and by then no further line can belong to it.

use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::config::{Dedup, Sameness};
use super::rules::{Error, When};
use crate::data::batch::{Record, Span};

/// A run never crosses a multiple of this offset, in bytes.
pub const BLOCK_BYTES: u64 = 64 << 10;

/// Longest text of a record that is deduplicated, in bytes; a longer one passes and ends the run. Bounds what a
/// log holds back.
pub const MAX_HELD_BYTES: usize = 16 << 10;

/// A quiet log's run is closed this long after its window ended, in nanoseconds: the time a runtime may take
/// between stamping a line and writing it.
const GRACE_NANOS: u64 = 2_000_000_000;

/// The compiled rule.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) when: When,
    window_nanos: u64,
    by: Sameness,
}

/// What makes two records copies of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    text: u128,
    window: u64,
    block: u64,
}

/// The open run of one container log.
#[derive(Debug)]
struct Run {
    identity: Identity,
    /// Offset of the first suppressed copy.
    pinned: u64,
    /// Suppressed copies, the held one included.
    suppressed: u32,
    /// The last suppressed copy; its spans point into `Memory::text`.
    held: Option<Record>,
    /// Whether the held copy stands in a private key block.
    held_in_key: bool,
}

/// What deduplication remembers of one container log: at most [`MAX_HELD_BYTES`] of text.
#[derive(Debug, Default)]
pub(super) struct Memory {
    run: Option<Run>,
    text: Vec<u8>,
}

/// What became of a record.
pub(super) enum Fate {
    /// It goes on; before it, whatever [`Memory::release`] gives.
    Passes,
    /// It is held back and stands for itself.
    Held,
    /// It is held back in place of the copy that was held before, which is now only counted.
    Folded,
}

impl Folder {
    pub(super) fn compile(config: &Dedup) -> Result<Self, Error> {
        let window = config.window.0;
        if !(1..=600).contains(&window.as_secs()) {
            return Err(Error::new(
                "process.dedup.window",
                format!("{} is outside 1s to 10m", config.window),
            ));
        }
        Ok(Self {
            when: When::compile("process.dedup", config.conditions())?,
            window_nanos: window.as_nanos() as u64,
            by: config.by,
        })
    }

    fn identity(&self, record: &Record, arena: &[u8]) -> Identity {
        let body = record.body.of(arena);
        let kind = u64::from(record.severity.number()) << 1 | record.stream as u64;
        let text = match self.by {
            Sameness::Line => xxh3_128_with_seed(body, kind),
            Sameness::Message => message_hash(body, kind),
        };
        Identity {
            text,
            window: record.time_unix_nano / self.window_nanos,
            block: record.offset / BLOCK_BYTES,
        }
    }

    /// Decides about the next record that meets the conditions. `in_key`: it stands in a private key block.
    ///
    /// When it passes, the caller first releases the run before it and then the record.
    pub(super) fn next(&self, memory: &mut Memory, record: &Record, arena: &[u8], in_key: bool) -> Fate {
        if text_len(record) > MAX_HELD_BYTES {
            return Fate::Passes;
        }
        let identity = self.identity(record, arena);
        let Some(run) = memory.run.as_mut().filter(|run| run.identity == identity) else {
            return Fate::Passes;
        };
        let fate = if run.held.is_some() { Fate::Folded } else { Fate::Held };
        if run.held.is_none() {
            run.pinned = record.offset;
        }
        run.suppressed = run.suppressed.saturating_add(1);
        run.held = Some(copy_text(record, arena, &mut memory.text));
        run.held_in_key = in_key;
        fate
    }

    /// Begins a run with a record that passed.
    pub(super) fn begin(&self, memory: &mut Memory, record: &Record, arena: &[u8]) {
        memory.run = (text_len(record) <= MAX_HELD_BYTES).then(|| Run {
            identity: self.identity(record, arena),
            pinned: 0,
            suppressed: 0,
            held: None,
            held_in_key: false,
        });
    }

    /// True when no further line can belong to the open run at the time `now_unix_nano`.
    pub(super) fn is_over(&self, memory: &Memory, now_unix_nano: u64) -> bool {
        memory.run.as_ref().is_some_and(|run| {
            let end = run.identity.window.saturating_add(1).saturating_mul(self.window_nanos);
            now_unix_nano > end.saturating_add(GRACE_NANOS)
        })
    }
}

impl Memory {
    /// Closes the open run. Gives the record that stands for the suppressed copies, its text appended to
    /// `arena`, and whether it stands in a private key block.
    pub(super) fn release(&mut self, arena: &mut Vec<u8>) -> Option<(Record, bool)> {
        let run = self.run.take()?;
        let mut record = run.held?;
        let base = arena.len();
        arena.extend_from_slice(&self.text);
        for span in spans_mut(&mut record) {
            *span = span.shifted(base);
        }
        // An empty body has no place of its own, yet must lie within the arena.
        if record.body.is_empty() {
            record.body = Span::new(base, base);
        }
        record.repeated = run.suppressed - 1;
        if self.text.capacity() > 1024 {
            self.text = Vec::new();
        }
        Some((record, run.held_in_key))
    }

    /// Offset of the first suppressed copy of the open run.
    pub(super) fn pinned(&self) -> Option<u64> {
        self.run.as_ref().filter(|run| run.held.is_some()).map(|run| run.pinned)
    }
}

/// Every span of a record, its line first.
pub(super) fn spans_mut(record: &mut Record) -> [&mut Span; 6] {
    [
        &mut record.body,
        &mut record.request_id,
        &mut record.http_method,
        &mut record.http_route,
        &mut record.url_path,
        &mut record.duration_ms,
    ]
}

/// True when `inner` lies within `outer`.
pub(super) fn within(inner: Span, outer: Span) -> bool {
    inner.start >= outer.start && inner.start + inner.len <= outer.start + outer.len
}

/// Bytes that a copy of the record's text takes.
fn text_len(record: &Record) -> usize {
    let mut record = *record;
    let [body, rest @ ..] = spans_mut(&mut record);
    let beside: usize = rest.iter().filter(|s| !within(***s, *body)).map(|s| s.len as usize).sum();
    body.len as usize + beside
}

/// Copies the record's text to `text`, in place of what is there, and gives the record with spans into it.
pub(in crate::logs) fn copy_text(record: &Record, arena: &[u8], text: &mut Vec<u8>) -> Record {
    text.clear();
    text.extend_from_slice(record.body.of(arena));
    let mut copy = *record;
    let [body, rest @ ..] = spans_mut(&mut copy);
    for span in rest {
        if span.is_empty() {
            continue;
        }
        if within(*span, *body) {
            span.start -= body.start;
        } else {
            let start = text.len();
            text.extend_from_slice(span.of(arena));
            span.start = start as u32;
        }
    }
    body.start = 0;
    copy
}

/// Hash of a line with its numbers and hexadecimal ids left out.
///
/// Words are runs of ASCII letters and digits. A word of digits, or of at least four hexadecimal digits with a
/// decimal one among them, or a hexadecimal group after such a word and `-` (a uuid), counts as one number; in
/// other words each run of digits does. Numbers joined by `.` are one number.
fn message_hash(body: &[u8], kind: u64) -> u128 {
    let mut hash = Xxh3::with_seed(kind);
    let mut buffer = [0_u8; 256];
    let mut filled = 0;
    // The last two symbols written.
    let mut last = [0_u8; 2];
    let mut put = |byte: u8, last: &mut [u8; 2]| {
        if filled == buffer.len() {
            hash.update(&buffer);
            filled = 0;
        }
        buffer[filled] = byte;
        filled += 1;
        *last = [last[1], byte];
    };
    const NUMBER: u8 = 0;
    let mut at = 0;
    while at < body.len() {
        let byte = body[at];
        if !byte.is_ascii_alphanumeric() {
            let joins = byte == b'.' && last[1] == NUMBER && body.get(at + 1).is_some_and(u8::is_ascii_digit);
            if !joins {
                put(byte, &mut last);
            }
            at += 1;
            continue;
        }
        let word_len = body[at..].iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(body.len() - at);
        let word = &body[at..at + word_len];
        at += word_len;
        let digits = word.iter().filter(|b| b.is_ascii_digit()).count();
        let hex = word.len() >= 4 && word.iter().all(u8::is_ascii_hexdigit);
        let after_number = last == [NUMBER, b'-'];
        if digits == word.len() || hex && (digits > 0 || after_number) {
            if last[1] != NUMBER {
                put(NUMBER, &mut last);
            }
            continue;
        }
        for letter in word {
            if !letter.is_ascii_digit() {
                put(*letter, &mut last);
            } else if last[1] != NUMBER {
                put(NUMBER, &mut last);
            }
        }
    }
    let tail = filled;
    hash.update(&buffer[..tail]);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_do_not_make_a_message_another_one() {
        for (one, other, same) in [
            ("took 12 ms", "took 12.75 ms", true),
            (r#"{"time":1795356566695,"msg":"x"}"#, r#"{"time":1795356566711,"msg":"x"}"#, true),
            ("id 8f14e45f-ceea-467f-a8f2-deadbeefcafe", "id 45c48cce-2e2d-7fbd-beef-0123456789ab", true),
            ("trace 0af7651916cd43dd8448eb211c80319c", "trace b7ad6b71692033310af7651916cd43dd", true),
            ("2026-11-22T14:09:29.772Z ok", "2026-11-23T01:00:00.001Z ok", true),
            ("conn12 closed", "conn7 closed", true),
            ("took 12 ms", "took 12 s", false),
            ("cafe open", "face open", false),
            ("a b", "a  b", false),
        ] {
            assert_eq!(
                message_hash(one.as_bytes(), 0) == message_hash(other.as_bytes(), 0),
                same,
                "{one} | {other}"
            );
        }
        assert_ne!(message_hash(b"x", 0), message_hash(b"x", 1), "another severity or stream");
    }
}
