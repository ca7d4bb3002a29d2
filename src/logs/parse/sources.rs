//! Where in a line each field was found, for a person who asks (`nodewick explain`).
//!
//! In: one line. Out: what [`parse`](super::parse) says of it, and a [`Source`] for each field that it took from a
//! value. Invariant: it is the same reading by the same code; it only takes notes.

use super::keys::RULES;
use super::pick::{Pick, Picks, Seen};
use super::{Format, Hints, Parsed};
use crate::data::batch::{Fields, Span};

/// Where a field comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The field: `level`, `trace_id`, `span_id`, `trace_flags`, `request_id`, `http_method`, `url_path`,
    /// `http_route`, `http_status`, `duration_ms`, `app_time`.
    pub field: &'static str,
    /// The key whose value it is, as a path from the line's root; `None` when the line's own form says it (the
    /// request of an access log, klog's first letter).
    pub key: Option<&'static str>,
    /// The value in the line; empty for `true` and `false`.
    pub span: Span,
}

impl Format {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain text",
            Self::Json => "JSON",
            Self::Logfmt => "logfmt",
            Self::Klog => "klog",
            Self::Access => "access log",
        }
    }
}

/// Reads a line as [`parse`](super::parse) does, or as annotations say, and tells where it found what. What was found
/// under a key that an annotation names has no key here.
pub fn parse_with_sources(line: &[u8], want: Fields, hints: Option<&Hints>) -> (Parsed, Vec<Source>) {
    let mut seen = Vec::new();
    let picks = Picks::new(line, want).note_in(&mut seen);
    let parsed = match hints {
        Some(hints) => hints.read(picks),
        None => super::read(picks),
    };
    let mut sources: Vec<Source> = Vec::new();
    for found in seen {
        let Some(field) = field(found.pick) else { continue };
        let source = Source { field, key: key_of(line, found), span: found.span };
        match sources.iter_mut().find(|known| known.field == field) {
            Some(known) => *known = source,
            None => sources.push(source),
        }
    }
    (parsed, sources)
}

/// The row of the table that a value was taken by: of several with one rank, the one whose key stands before it.
fn key_of(line: &[u8], found: Seen) -> Option<&'static str> {
    let before = &line[..found.span.start as usize];
    let cut = before.iter().rposition(|byte| !b"\"':= \t\\".contains(byte)).map_or(0, |at| at + 1);
    let before = &before[..cut];
    let rows = RULES.iter().filter(|rule| rule.pick == found.pick && rule.rank == found.rank);
    let stands_before = |path: &str| {
        let last = path.rsplit('.').next().unwrap_or(path);
        before.ends_with(path.as_bytes()) || before.ends_with(last.as_bytes())
    };
    // A value of no text (`true`) has no place to look before.
    let mut fitting = rows.filter(|rule| found.span.is_empty() || stands_before(rule.path));
    let best = fitting.next()?;
    Some(fitting.fold(best, |best, rule| if rule.path.len() > best.path.len() { rule } else { best }).path)
}

fn field(pick: Pick) -> Option<&'static str> {
    Some(match pick {
        Pick::Nothing | Pick::SerilogTime | Pick::SerilogTemplate => return None,
        Pick::Level | Pick::LevelSerilog | Pick::SeverityNumber | Pick::LevelLogback | Pick::LevelPython => {
            "level"
        }
        Pick::TraceHex
        | Pick::TraceGcp
        | Pick::Traceparent
        | Pick::TraceXray
        | Pick::TraceB3
        | Pick::TraceDatadog => "trace_id",
        Pick::SpanHex | Pick::SpanDatadog => "span_id",
        Pick::TraceFlags | Pick::Sampled => "trace_flags",
        Pick::RequestId => "request_id",
        Pick::Method => "http_method",
        Pick::Url => "url_path",
        Pick::Route => "http_route",
        Pick::Status => "http_status",
        Pick::Millis | Pick::Seconds | Pick::Micros | Pick::Nanos | Pick::WithUnit => "duration_ms",
        Pick::Time => "app_time",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(line: &str) -> Vec<(&'static str, Option<&'static str>, String)> {
        let (_, sources) = parse_with_sources(line.as_bytes(), Fields::ALL, None);
        let shown = |source: &Source| String::from_utf8_lossy(source.span.of(line.as_bytes())).into_owned();
        sources.iter().map(|source| (source.field, source.key, shown(source))).collect()
    }

    #[test]
    fn a_field_names_the_key_and_the_value_that_it_was_taken_from() {
        let line =
            r#"{"level":50,"req":{"id":"r-1","method":"GET"},"traceId":"0af7651916cd43dd8448eb211c80319c"}"#;
        assert_eq!(
            keys(line),
            [
                ("level", Some("level"), "50".to_owned()),
                ("request_id", Some("req.id"), "r-1".to_owned()),
                ("http_method", Some("req.method"), "GET".to_owned()),
                ("trace_id", Some("traceId"), "0af7651916cd43dd8448eb211c80319c".to_owned()),
            ]
        );
    }

    #[test]
    fn of_two_values_the_one_that_counts_is_named() {
        let line = "level=info msg=x traceID=4bf92f3577b34da6a3ce929d0e0e4736 trace_id=0af7651916cd43dd8448eb211c80319c";
        let found = keys(line);
        let trace = found.iter().find(|(field, ..)| *field == "trace_id").expect("there");
        assert_eq!((trace.1, trace.2.as_str()), (Some("trace_id"), "0af7651916cd43dd8448eb211c80319c"));
    }

    #[test]
    fn what_an_access_logs_form_says_has_no_key() {
        let line = r#"10.0.0.1 - - [22/Nov/2026:14:42:13 +0000] "GET /cart HTTP/1.1" 200 512 "-" "curl/8""#;
        let found = keys(line);
        assert!(found.contains(&("http_method", None, "GET".to_owned())), "{found:?}");
        assert!(found.contains(&("http_status", None, "200".to_owned())), "{found:?}");
    }
}
