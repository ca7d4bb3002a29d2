//! What a line says about itself: severity, trace, request.
//!
//! In: one line as the container wrote it. Out: [`Parsed`], whose spans point into that line. Invariant: pure,
//! never panics, allocates nothing, and depends on nothing but the line's bytes.
//!
//! [`FORMATS`] lists the shapes in the order in which they are tried. A further format is one file here and one
//! line there; a further key of JSON or logfmt is one row of [`keys::RULES`].

mod access;
mod block;
mod hints;
mod http;
mod ids;
mod json;
mod keys;
mod klog;
mod logfmt;
mod pairs;
mod pick;
mod plain;
#[doc(hidden)]
pub mod reference;
mod severity;
pub mod sources;
mod time;
mod unescape;

pub use hints::Hints;
pub use json::MAX_DEPTH;
pub use unescape::{unescape_by_piece, unescape_into};

use pick::Picks;

use crate::data::batch::{Fields, Span};
use crate::data::severity::Severity;
use crate::data::trace::{SpanId, TraceId};

/// Text found in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Text {
    /// Where it stands in the line; empty when absent.
    pub span: Span,
    /// True when it still holds JSON escapes and must be unescaped before use.
    pub escaped: bool,
}

/// A duration found in a line: decimal text and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DurationUnit {
    /// Milliseconds: the text can be used as it stands.
    #[default]
    Millis,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// Which shape the line had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Nothing that we recognise.
    #[default]
    Plain,
    /// One JSON object.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// `I0102 15:04:05.000000 ...` of Kubernetes components.
    Klog,
    /// nginx or Apache access log.
    Access,
}

/// What a line says about itself. All of it is optional.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parsed {
    /// Shape of the line.
    pub format: Format,
    /// Severity.
    pub severity: Severity,
    /// Trace id, validated.
    pub trace_id: Option<TraceId>,
    /// Span id, validated.
    pub span_id: Option<SpanId>,
    /// W3C trace flags.
    pub trace_flags: u8,
    /// The application's own time, nanoseconds since the epoch; 0 when absent or unreadable.
    pub app_time_unix_nano: u64,
    /// Request id.
    pub request_id: Text,
    /// HTTP method.
    pub http_method: Text,
    /// HTTP route template.
    pub http_route: Text,
    /// URL path, without scheme, host, query and fragment.
    pub url_path: Text,
    /// Request duration, in `duration_unit`.
    pub duration: Span,
    /// Unit of `duration`.
    pub duration_unit: DurationUnit,
    /// HTTP status, 0 when absent.
    pub http_status: u16,
}

/// Tries to read a line as one format; false, and nothing picked, when the line has another.
type Read = for<'a> fn(&'a [u8], &mut Picks<'a>) -> bool;

/// The formats, most telling first. The last one takes any line.
const FORMATS: [Read; 5] = [json::read, klog::read, access::read, logfmt::read, plain::read];

/// Reads one line. `want` says which fields will be used; others may be left out. It never changes the used ones.
///
/// `url_path` comes with `HTTP_ROUTE`, `trace_flags` with `TRACE_ID` or `SPAN_ID`.
pub fn parse(line: &[u8], want: Fields) -> Parsed {
    read(Picks::new(line, want))
}

#[inline]
fn read(mut picks: Picks<'_>) -> Parsed {
    let line = picks.line();
    for read in FORMATS {
        if read(line, &mut picks) {
            break;
        }
    }
    picks.finish()
}
