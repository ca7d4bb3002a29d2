//! What stands between braces: labels, and perhaps the metric's name in quotes.
//!
//! In: a place behind an opening brace. Out: labels in the builder, the place behind the closing brace, the name if there is one.
//! The two text formats differ: text allows white space, and labels without a comma between them; OpenMetrics neither.

use super::build::Builder;
use super::scan;
use super::{Fault, Parsed};
use crate::data::sample::Span;

/// A sample's name and labels: the name, the place behind, and whether the name stands right before a brace.
#[inline]
pub(super) fn named<const BLANKS: bool>(
    builder: &mut Builder<'_>,
    start: usize,
) -> Parsed<(Span, usize, bool)> {
    let text = builder.text;
    builder.begin();
    if let Some((name, at, is_behind_label)) = builder.begin_like_the_last(start) {
        let (at, is_end) = if is_behind_label { behind::<BLANKS>(text, at)? } else { (at, false) };
        let mut found = Some(name);
        let end = if is_end { at } else { read::<BLANKS, false>(builder, at, &mut found)? };
        return Ok((name, end, true));
    }
    let mut at = scan::metric_name(text, start);
    let mut name = (at > start).then(|| Span::new(start, at));
    let bare = name.is_some() && text.get(at) == Some(&b'{');
    if BLANKS {
        at = scan::blanks(text, at);
    }
    if text.get(at) == Some(&b'{') {
        at = read::<BLANKS, false>(builder, at + 1, &mut name)?;
    }
    match name {
        Some(name) => Ok((name, at, bare)),
        None => Fault::at(start, "expected a metric name"),
    }
}

/// The place behind the comma behind a label, or behind the brace that closes the labels: true.
#[inline]
fn behind<const BLANKS: bool>(text: &[u8], at: usize) -> Parsed<(usize, bool)> {
    let at = if BLANKS { scan::blanks(text, at) } else { at };
    match text.get(at) {
        Some(b',') => Ok((at + 1, false)),
        Some(b'}') => Ok((at + 1, true)),
        _ if BLANKS => Ok((at, false)),
        _ => Fault::at(at, "expected \",\" or \"}\" behind the label"),
    }
}

/// The labels of an exemplar.
pub(super) fn of_exemplar(builder: &mut Builder<'_>, at: usize) -> Parsed<usize> {
    read::<false, true>(builder, at, &mut None)
}

#[inline]
fn read<const BLANKS: bool, const EXEMPLAR: bool>(
    builder: &mut Builder<'_>,
    mut at: usize,
    name: &mut Option<Span>,
) -> Parsed<usize> {
    let text = builder.text;
    let skip = |at: usize| if BLANKS { scan::blanks(text, at) } else { at };
    loop {
        at = skip(at);
        let start = at;
        let label = match text.get(at) {
            Some(b'}') => return Ok(at + 1),
            Some(b'"') => {
                let quoted = scan::quoted(text, at, !EXEMPLAR)?;
                if text[quoted.start..quoted.end].contains(&0) {
                    return Fault::at(at, "expected no NUL byte in a name");
                }
                at = skip(quoted.end + 1);
                let span = builder.string(quoted)?;
                if !EXEMPLAR && let Some(next @ (b',' | b'}')) = text.get(at) {
                    if name.is_some() {
                        return Fault::at(start, "expected one metric name");
                    }
                    *name = Some(span);
                    at += 1;
                    if *next == b'}' {
                        return Ok(at);
                    }
                    continue;
                }
                span
            }
            _ => {
                let end = scan::label_name(text, at);
                if end == at {
                    return Fault::at(at, "expected a label name");
                }
                at = skip(end);
                Span::new(start, end)
            }
        };
        if text.get(at) != Some(&b'=') {
            return Fault::at(at, "expected \"=\" behind the label name");
        }
        at = skip(at + 1);
        if text.get(at) != Some(&b'"') {
            return Fault::at(at, "expected a label value in quotes");
        }
        let quoted = scan::quoted(text, at, BLANKS)?;
        let value = builder.string(quoted)?;
        if EXEMPLAR {
            builder.exemplar_label(label, value);
        } else {
            builder.label(start, label, value)?;
        }
        match behind::<BLANKS>(text, quoted.end + 1)? {
            (end, true) => return Ok(end),
            (next, false) => at = next,
        }
    }
}
