//! logfmt: a line of `key=value` pairs (logrus, go-kit, slog's text handler, HashiCorp).
//!
//! In: a line. Out: its fields. Invariant: a line counts as logfmt when it begins with a pair and has a second one
//! behind it; anything else is text that may hold pairs.

use super::pairs::{self, Pairs};
use super::pick::Picks;
use super::{Format, Parsed};
use crate::data::batch::Fields;

pub(super) fn read(line: &[u8], want: Fields) -> Option<Parsed> {
    let lead = pairs::colours(line);
    let mut pairs = Pairs::of(line).filter(|pair| pair.separator == b'=');
    let first = pairs.next()?;
    if first.start > lead + line[lead..].len().min(8)
        || !line[lead..first.start].iter().all(|b| b" \x1b[0123456789;m".contains(b))
    {
        return None;
    }
    let second = pairs.next()?;
    // The pairs follow each other; a bare word between them is a flag, a sentence is not logfmt.
    let gap = line.get(first.end..second.start).unwrap_or_default();
    if gap.iter().filter(|byte| **byte == b' ').count() > 2 {
        return None;
    }
    let mut picks = Picks::new(line, want);
    picks.out.format = Format::Logfmt;
    pairs::offer(line, &mut picks, true);
    Some(picks.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_pairs_is_logfmt_and_a_sentence_is_not() {
        for line in [
            &b"time=2026-11-22T14:27:36.383Z level=INFO msg=\"text handler\" k=\"v w\""[..],
            b"level=info msg=x",
            b"ts=1 caller=a.go:3 debug level=warn",
        ] {
            assert!(read(line, Fields::ALL).is_some(), "{}", String::from_utf8_lossy(line));
        }
        for line in
            [&b"a=1"[..], b"started with a=1 b=2", b"a=1 and then quite some words before b=2", b"", b"x: y"]
        {
            assert!(read(line, Fields::ALL).is_none(), "{}", String::from_utf8_lossy(line));
        }
    }
}
