//! What stands between braces: labels, and perhaps the metric's name in quotes.
//!
//! In: a place behind an opening brace. Out: labels in the builder, the place behind the closing brace, the name if there is one.
//! The two text formats differ: text allows white space, and labels without a comma between them; OpenMetrics neither.

use super::build::Builder;
use super::scan;
use super::{Fault, Parsed};
use crate::data::sample::Span;

/// The labels of a sample. `name` is set where the metric's name is among them.
#[inline]
pub(super) fn of_sample<const BLANKS: bool>(
    builder: &mut Builder<'_>,
    at: usize,
    name: &mut Option<Span>,
) -> Parsed<usize> {
    read::<BLANKS, false>(builder, at, name)
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
        at = skip(quoted.end + 1);
        match text.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => return Ok(at + 1),
            _ if BLANKS => {}
            _ => return Fault::at(at, "expected \",\" or \"}\" behind the label"),
        }
    }
}
