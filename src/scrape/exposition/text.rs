//! Prometheus text format 0.0.4, with the quoted names of Prometheus 3.
//!
//! In: the text. Out: families and samples in the builder. A missing last newline is forgiven, as Prometheus does; a carriage
//! return is not, since it is a part of the value or of the type before it.
//! Source: Prometheus `model/textparse/promlex.l` and `promparse.go`.

use super::build::{Builder, Escapes};
use super::{Fault, Parsed};
use super::{labels, number, scan};
use crate::data::sample::{MetricKind, NO_TIME, Span};

/// Reads all of it.
pub(super) fn read(builder: &mut Builder<'_>) -> Parsed<()> {
    let text = builder.text;
    let mut at = 0;
    loop {
        at = scan::blanks(text, at);
        match text.get(at) {
            None => return Ok(()),
            Some(b'\n') => at += 1,
            Some(b'#') => at = comment(builder, at)?,
            Some(_) => at = sample(builder, at)?,
        }
    }
}

/// A sample and the place behind its line.
#[inline]
fn sample(builder: &mut Builder<'_>, start: usize) -> Parsed<usize> {
    let text = builder.text;
    let (name, mut at, bare) = labels::named::<true>(builder, start)?;
    at = scan::blanks(text, at);
    let (value, end) = number::read(text, at);
    let Some(value) = value else {
        return Fault::at(at, "expected a value");
    };
    at = scan::blanks(text, end);
    let mut time = NO_TIME;
    if text.get(at).is_some_and(u8::is_ascii_digit) {
        let end = scan::digits(text, at);
        time = match number::integer(&text[at..end]) {
            Some(time) => time,
            None => return Fault::at(at, "expected a time that fits 63 bits"),
        };
        at = scan::blanks(text, end);
    }
    match text.get(at) {
        None => {}
        Some(b'\n') => at += 1,
        Some(_) if time == NO_TIME => return Fault::at(at, "expected a time or a new line"),
        Some(_) => return Fault::at(at, "expected a new line behind the time"),
    }
    builder.sample(start, name, value, time)?;
    builder.remember_line(start, at, bare.then_some(name));
    Ok(at)
}

/// What begins with `#`, and the place behind its line.
fn comment(builder: &mut Builder<'_>, start: usize) -> Parsed<usize> {
    let text = builder.text;
    let keyword = scan::blanks(text, start + 1);
    let help = text[keyword..].starts_with(b"HELP");
    let mut at = scan::blanks(text, keyword + 4);
    if keyword == start + 1 || at == keyword + 4 || !(help || text[keyword..].starts_with(b"TYPE")) {
        return Ok(scan::line(text, start));
    }
    let (family, behind) = family_name(builder, at)?;
    at = behind;
    let end = scan::line(text, at);
    // One character parts the name from what is said of it.
    let said = (at + 1).min(end);
    let family = builder.family(start, family)?;
    if help {
        // Nothing but white space is no text.
        let said = if scan::blanks(text, at) == end { end } else { said };
        builder.help(family, said, end, Escapes::Help)?;
    } else {
        let kind = match &text[said..end] {
            b"counter" => MetricKind::Counter,
            b"gauge" => MetricKind::Gauge,
            b"histogram" => MetricKind::Histogram,
            b"summary" => MetricKind::Summary,
            b"untyped" => MetricKind::Unknown,
            _ => return Fault::at(said, "expected counter, gauge, histogram, summary or untyped"),
        };
        builder.kind(family, kind);
    }
    Ok(end)
}

/// The name of a family, bare or quoted, and the place behind it.
pub(super) fn family_name(builder: &mut Builder<'_>, at: usize) -> Parsed<(Span, usize)> {
    let text = builder.text;
    if text.get(at) == Some(&b'"') {
        let quoted = scan::quoted(text, at, true)?;
        if text[quoted.start..quoted.end].contains(&0) {
            return Fault::at(at, "expected no NUL byte in a name");
        }
        return Ok((builder.string(quoted)?, quoted.end + 1));
    }
    match scan::metric_name(text, at) {
        end if end > at => Ok((Span::new(at, end), end)),
        _ => Fault::at(at, "expected a metric name"),
    }
}
