//! OpenMetrics 1.0 text.
//!
//! In: the text. Out: families, samples and exemplars in the builder. The format is strict: one space where a space is, nothing
//! but `HELP`, `TYPE`, `UNIT` and `EOF` as comments, `# EOF` at the end and nothing behind it.
//! Source: Prometheus `model/textparse/openmetricslex.l` and `openmetricsparse.go`. As Prometheus 3, a comma behind the last
//! label and an exemplar of any sample are accepted, where 2 refuses them.

use super::build::{Builder, Escapes};
use super::text::family_name;
use super::{Fault, Parsed};
use super::{labels, number, scan};
use crate::data::sample::{MetricKind, NO_TIME};

const END: &[u8] = b"# EOF";

/// Reads all of it.
pub(super) fn read(builder: &mut Builder<'_>) -> Parsed<()> {
    let text = builder.text;
    let mut at = 0;
    loop {
        let rest = &text[at..];
        match rest.first() {
            None => return Fault::at(at, "expected \"# EOF\" at the end"),
            Some(b'#') => match rest.strip_prefix(END) {
                Some(b"" | b"\n") => return Ok(()),
                Some(_) => return Fault::at(at + END.len(), "expected nothing behind \"# EOF\""),
                None => at = metadata(builder, at)?,
            },
            Some(_) => at = sample(builder, at)?,
        }
    }
}

/// A sample and the place behind its line.
#[inline]
fn sample(builder: &mut Builder<'_>, start: usize) -> Parsed<usize> {
    let text = builder.text;
    let (name, mut at, bare) = labels::named::<false>(builder, start)?;
    let (value, behind) = spaced(text, at, "expected a space and a value")?;
    at = behind;
    let mut time = NO_TIME;
    if text.get(at) == Some(&b' ') && !text[at..].starts_with(b" # {") {
        (time, at) = timestamp(text, at)?;
    }
    builder.sample(start, name, value, time)?;
    builder.remember_line(start, at, bare.then_some(name));
    if text[at..].starts_with(b" # {") {
        builder.begin_exemplar();
        at = labels::of_exemplar(builder, at + 4)?;
        let (value, behind) = spaced(text, at, "expected a space and the exemplar's value")?;
        at = behind;
        let mut time = NO_TIME;
        if text.get(at) == Some(&b' ') {
            (time, at) = timestamp(text, at)?;
        }
        if let Some(exemplar) = builder.end_exemplar(value, time) {
            builder.attach(exemplar, 1);
        }
    }
    match text.get(at) {
        Some(b'\n') => at += 1,
        None => return Fault::at(at, "expected \"# EOF\" at the end"),
        Some(_) => return Fault::at(at, "expected a new line"),
    }
    Ok(at)
}

/// A space and a number.
#[inline]
fn spaced(text: &[u8], at: usize, what: &'static str) -> Parsed<(f64, usize)> {
    if text.get(at) != Some(&b' ') {
        return Fault::at(at, what);
    }
    match number::read(text, at + 1) {
        (Some(value), end) => Ok((value, end)),
        (None, _) => Fault::at(at + 1, "expected a number"),
    }
}

/// A space and a time in seconds; as milliseconds.
fn timestamp(text: &[u8], at: usize) -> Parsed<(i64, usize)> {
    let (seconds, end) = spaced(text, at, "expected a space and a time")?;
    match number::millis(seconds) {
        Some(time) => Ok((time, end)),
        None => Fault::at(at + 1, "expected a time that is a finite number"),
    }
}

/// A line of metadata, and the place behind it.
fn metadata(builder: &mut Builder<'_>, start: usize) -> Parsed<usize> {
    let text = builder.text;
    let keyword = match text[start..] {
        [b'#', b' ', b'H', b'E', b'L', b'P', b' ', ..] => b'H',
        [b'#', b' ', b'T', b'Y', b'P', b'E', b' ', ..] => b'T',
        [b'#', b' ', b'U', b'N', b'I', b'T', b' ', ..] => b'U',
        _ => return Fault::at(start, "expected # HELP, # TYPE, # UNIT or # EOF"),
    };
    let (name, at) = family_name(builder, start + 7)?;
    let end = scan::line(text, at);
    if text.get(at) != Some(&b' ') || end == text.len() {
        return Fault::at(at, "expected a space, text and a new line");
    }
    let said = at + 1;
    let family = builder.family(start, name)?;
    match keyword {
        b'H' => builder.help(family, said, end, Escapes::Label)?,
        b'T' => {
            let kind = match &text[said..end] {
                b"counter" => MetricKind::Counter,
                b"gauge" => MetricKind::Gauge,
                b"histogram" => MetricKind::Histogram,
                b"gaugehistogram" => MetricKind::GaugeHistogram,
                b"summary" => MetricKind::Summary,
                b"info" => MetricKind::Info,
                b"stateset" => MetricKind::StateSet,
                b"unknown" => MetricKind::Unknown,
                _ => return Fault::at(said, "expected a metric type of OpenMetrics"),
            };
            builder.kind(family, kind);
        }
        _ => {
            let unit = &text[said..end];
            let before = builder.bytes(name).strip_suffix(unit);
            if !unit.is_empty() && !before.is_some_and(|before| before.ends_with(b"_")) {
                return Fault::at(said, "expected a unit that the metric name ends in");
            }
            builder.unit(family, said, end)?;
        }
    }
    Ok(end + 1)
}
