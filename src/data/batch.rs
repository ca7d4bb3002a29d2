//! A sealed stretch of one container log: one workload, one arena of text, one position range.

use std::sync::Arc;

use super::budget::Permit;
use super::position::Position;
use super::severity::Severity;
use super::trace::{SpanId, TraceId};
use super::workload::Workload;

/// A range of bytes in a batch's arena. Empty means absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The range `start..end`.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, len: (end - start) as u32 }
    }

    /// True when nothing is there.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The same range as seen from a text that starts `by` bytes earlier. An empty span stays empty.
    #[inline]
    pub fn shifted(self, by: usize) -> Self {
        if self.len == 0 {
            return self;
        }
        Self { start: self.start + by as u32, len: self.len }
    }

    /// The bytes of `text` in this range.
    #[inline]
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..(self.start + self.len) as usize]
    }
}

/// Which of the container's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What happened to a record on its way, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u8);

impl Marks {
    /// Nothing happened.
    pub const NONE: Self = Self(0);
    /// The trace id is that of another line with the same request id.
    pub const TRACE_INHERITED: Self = Self(1);
    /// The line was cut at the size limit; `original_len` says how long it was.
    pub const TRUNCATED: Self = Self(2);
    /// Bytes that were not UTF-8 were replaced by U+FFFD.
    pub const LOSSY: Self = Self(4);
    /// Something in the line was redacted.
    pub const REDACTED: Self = Self(8);
    /// What was redacted is a secret by a built-in rule: a key, a token, a password.
    pub const SECRET: Self = Self(16);
    /// The flight recorder let it through, since its request failed or its container died.
    pub const RELEASED: Self = Self(32);

    /// Adds the marks of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// True when all marks of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when no mark is set, the common case.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// One log line with what it says about itself. Small and `Copy`: its text stays in the batch's arena.
///
/// Every field depends only on the log's bytes and the config, so a replay gives the identical record.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Record {
    /// Trace id from the line, or inherited by request id (then marked so).
    pub trace_id: Option<TraceId>,
    /// Span id from the line.
    pub span_id: Option<SpanId>,
    /// When the container runtime took the line, nanoseconds since the epoch, plus 1 for each earlier line of
    /// the log with the same stamp and text.
    pub time_unix_nano: u64,
    /// The application's own time, nanoseconds since the epoch, when the line has one; else 0.
    pub app_time_unix_nano: u64,
    /// Where the record's first byte stands in its generation.
    pub offset: u64,
    /// The line, byte for byte as the container wrote it, without its newline.
    pub body: Span,
    /// Request id.
    pub request_id: Span,
    /// HTTP request method.
    pub http_method: Span,
    /// HTTP route: the line's own template, or the path with id-like segments replaced by `{id}`.
    pub http_route: Span,
    /// URL path without query.
    pub url_path: Span,
    /// Request duration in milliseconds, as decimal text.
    pub duration_ms: Span,
    /// Length before truncation, 0 when the line is whole.
    pub original_len: u32,
    /// How many further copies this record stands for (deduplication), 0 for itself alone.
    pub repeated: u32,
    /// HTTP response status, 0 when absent.
    pub http_status: u16,
    /// W3C trace flags.
    pub trace_flags: u8,
    /// Severity.
    pub severity: Severity,
    /// Stream.
    pub stream: Stream,
    /// What happened to it.
    pub marks: Marks,
}

/// The record fields that may leave the node beside the line, as `[record] fields` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u16);

/// Every field's name in config and in Loki's structured metadata, in the order in which it is written.
pub const FIELD_NAMES: [&str; 12] = [
    "pod",
    "stream",
    "level",
    "trace_id",
    "span_id",
    "env",
    "request_id",
    "http_method",
    "http_route",
    "http_status",
    "duration_ms",
    "app_time",
];

macro_rules! fields {
    ($($name:ident = $bit:literal),* $(,)?) => {
        impl Fields {
            $(#[doc = concat!("The field `", stringify!($name), "` in lower case.")]
            pub const $name: Self = Self(1 << $bit);)*
        }
    };
}
fields! {
    POD = 0, STREAM = 1, LEVEL = 2, TRACE_ID = 3, SPAN_ID = 4, ENV = 5, REQUEST_ID = 6, HTTP_METHOD = 7,
    HTTP_ROUTE = 8, HTTP_STATUS = 9, DURATION_MS = 10, APP_TIME = 11,
}

impl Fields {
    /// No field at all.
    pub const NONE: Self = Self(0);
    /// Every field: the default.
    pub const ALL: Self = Self((1 << FIELD_NAMES.len()) - 1);

    /// The field with this name in config.
    pub fn by_name(name: &str) -> Option<Self> {
        let bit = FIELD_NAMES.iter().position(|known| *known == name)?;
        Some(Self(1 << bit))
    }

    /// True when every field of `other` is in the set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any field of `other` is in the set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The union.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names of the fields in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FIELD_NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, name)| *name)
    }
}

/// A sealed stretch of one container log. Immutable and shared by every sink; its memory returns to the budget
/// when the last sink drops it.
#[derive(Debug)]
pub struct Batch {
    /// Who wrote it.
    pub workload: Arc<Workload>,
    /// Path of the log file when it was read, for `log.file.path`.
    pub path: Arc<str>,
    /// Where the batch begins; the generation of its records.
    pub start: Position,
    /// Exclusive end: acknowledging the batch finishes every byte of the log before this.
    pub end: Position,
    /// All text of the batch: file bytes as read, then whatever had to be joined or unescaped.
    pub arena: Vec<u8>,
    /// The records, in the log's order. Spans point into `arena`.
    pub records: Vec<Record>,
    /// True while the log has much unread data behind this batch: sinks then treat its stream as catching up.
    pub catching_up: bool,
    /// When the batch was sealed, wall clock, for latency figures only. Never sent.
    pub sealed_unix_nano: u64,
    /// The memory it holds.
    pub permit: Permit,
}

impl Batch {
    /// Text of a span.
    #[inline]
    pub fn text(&self, span: Span) -> &[u8] {
        span.of(&self.arena)
    }

    /// The line of a record.
    #[inline]
    pub fn body(&self, record: &Record) -> &[u8] {
        record.body.of(&self.arena)
    }

    /// Sum of the lengths of all lines.
    pub fn body_bytes(&self) -> u64 {
        self.records.iter().map(|r| u64::from(r.body.len)).sum()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.permit.recycle(std::mem::take(&mut self.arena), std::mem::take(&mut self.records));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_name_is_one_bit() {
        let all =
            FIELD_NAMES.iter().filter_map(|name| Fields::by_name(name)).fold(Fields::NONE, Fields::with);
        assert_eq!(all, Fields::ALL);
        assert_eq!(Fields::LEVEL.with(Fields::POD).names().collect::<Vec<_>>(), ["pod", "level"]);
        assert_eq!(Fields::by_name("app_time"), Some(Fields::APP_TIME));
        assert_eq!(Fields::by_name("nonsense"), None);
    }
}
