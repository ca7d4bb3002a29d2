//! What the last lines of a log look like: format, and which of them name a level, a trace, a request.

use super::{Lines, SAMPLE};
use crate::data::batch::Fields;
use crate::data::severity::Severity;
use crate::logs::env::LogFile;
use crate::logs::frame;
use crate::logs::parse::{self, Format};

/// Looks at the end of an open log file.
pub(super) fn sample(file: &impl LogFile) -> Option<Lines> {
    let size = file.stat().ok()?.size;
    let from = size.saturating_sub(SAMPLE as u64);
    let mut bytes = Vec::new();
    while bytes.len() < SAMPLE {
        match file.read_at(from + bytes.len() as u64, SAMPLE - bytes.len(), &mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    Some(look(bytes, from > 0))
}

/// Looks at lines; the first is left out where it may have begun before.
fn look(mut bytes: Vec<u8>, torn: bool) -> Lines {
    let end = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
    let mut start = if torn { memchr::memchr(b'\n', &bytes).map_or(end, |at| at + 1) } else { 0 };
    let mut lines = Lines::default();
    let mut continued = false;
    while start < end {
        let stop = memchr::memchr(b'\n', &bytes[start..end]).map_or(end, |at| start + at);
        let fragment = frame::fragment(&mut bytes, start, stop, 0);
        start = stop + 1;
        let whole = fragment.header.full && !continued;
        continued = !fragment.header.full;
        if !whole {
            continue;
        }
        let parsed = parse::parse(fragment.body.of(&bytes), Fields::ALL);
        lines.seen += 1;
        *lines.formats.entry(name(parsed.format)).or_default() += 1;
        lines.level += u64::from(parsed.severity != Severity::default());
        lines.trace_id += u64::from(parsed.trace_id.is_some());
        lines.request_id += u64::from(!parsed.request_id.span.is_empty());
    }
    lines
}

const fn name(format: Format) -> &'static str {
    match format {
        Format::Plain => "text",
        Format::Json => "JSON",
        Format::Logfmt => "logfmt",
        Format::Klog => "klog",
        Format::Access => "access log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_tell_their_format() {
        let text = "rn of a line\n\
            2026-11-22T14:42:13.1Z stdout F {\"level\":\"info\",\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"request_id\":\"r1\"}\n\
            2026-11-22T14:42:13.2Z stdout P {\"level\":\"in\n\
            2026-11-22T14:42:13.2Z stdout F fo\"}\n\
            2026-11-22T14:42:13.3Z stderr F nothing that we know\n\
            {\"log\":\"level=warn msg=a\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-22T14:42:13.4Z\"}\n\
            2026-11-22T14:42:13.5Z stderr F not yet en";
        let lines = look(text.as_bytes().to_vec(), true);
        assert_eq!((lines.seen, lines.level, lines.trace_id, lines.request_id), (3, 2, 1, 1));
        let formats: Vec<_> = lines.formats.into_iter().collect();
        assert_eq!(formats, [("JSON", 1), ("logfmt", 1), ("text", 1)]);
        assert_eq!(look(b"no newline at all".to_vec(), true), Lines::default());
    }
}
