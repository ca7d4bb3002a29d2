//! logfmt: a line of `key=value` pairs (logrus, go-kit, slog's text handler, HashiCorp).
//!
//! In: a line. Out: its fields. Invariant: a line counts as logfmt when it begins with a pair and has a second one
//! close behind it; anything else is text that may hold pairs.

use super::Format;
use super::pairs::{self, Pairs};
use super::pick::Picks;

pub(super) fn read<'a>(line: &'a [u8], picks: &mut Picks<'a>) -> bool {
    if !is_logfmt(line) {
        return false;
    }
    picks.out.format = Format::Logfmt;
    pairs::offer(line, picks, true);
    true
}

/// How far into a line its second pair may begin, bytes: a quoted message may stand before it.
const REGION: usize = 4096;

fn is_logfmt(line: &[u8]) -> bool {
    let line = &line[..line.len().min(REGION)];
    let lead = pairs::colours(line);
    // The first word is a pair: a key of word characters, then the sign.
    let key = line[lead..].iter().take(64).position(|byte| !pairs::is_key_byte(*byte));
    let Some(key) = key.filter(|len| *len > 0) else { return false };
    if !matches!(line.get(lead + key), Some(b'=' | 0x1b)) {
        return false;
    }
    let mut pairs = Pairs::of(line);
    let mut next = || {
        loop {
            let pair = pairs.next()?;
            if pair.separator == b'=' {
                return Some((pair.start, pair.value(line).end));
            }
        }
    };
    let (Some((_, end)), Some((start, _))) = (next(), next()) else { return false };
    // A bare word between pairs is a flag; a sentence is not logfmt.
    let gap = line.get(end..start).unwrap_or_default();
    gap.contains(&b' ') && gap.iter().filter(|byte| **byte == b' ').count() <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_pairs_is_logfmt_and_a_sentence_is_not() {
        for line in [
            &b"time=2026-11-22T14:27:36.383Z level=INFO msg=\"text handler\" k=\"v w\""[..],
            b"level=info msg=x",
            b"\x1b[36mlevel\x1b[0m=info msg=x",
            b"ts=1 caller=a.go:3 debug level=warn",
        ] {
            assert!(is_logfmt(line), "{}", String::from_utf8_lossy(line));
        }
        for line in [
            &b"a=1"[..],
            b"started with a=1 b=2",
            b"a=1 and then quite some words before b=2",
            b"",
            b"x: y",
            b"query=a=b=c",
        ] {
            assert!(!is_logfmt(line), "{}", String::from_utf8_lossy(line));
        }
    }
}
