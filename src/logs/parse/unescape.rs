//! JSON string bodies as UTF-8.
//!
//! In: the text between the quotes, as it stands in the line. Out: what it says. Invariant: never fails; a lone
//! surrogate becomes U+FFFD, and an escape that JSON does not know stays as it is.

/// Appends what a JSON string body says. `text` is the body without its quotes.
pub fn unescape_into(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    pieces(text, |piece, _| {
        out.extend_from_slice(piece);
        true
    });
}

/// Appends what a JSON string body says, and calls `source` with the lengths of each piece: as appended, and as it
/// stands in `text`. Pieces of equal lengths stand there byte for byte.
pub fn unescape_by_piece(text: &[u8], out: &mut Vec<u8>, mut source: impl FnMut(usize, usize)) {
    pieces(text, |piece, used| {
        out.extend_from_slice(piece);
        source(piece.len(), used);
        true
    });
}

/// Unescapes into a buffer; `None` when it is too small.
pub(super) fn unescape_short<'b>(text: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut len = 0;
    let fits = pieces(text, |piece, _| match buffer.get_mut(len..len + piece.len()) {
        Some(place) => {
            place.copy_from_slice(piece);
            len += piece.len();
            true
        }
        None => false,
    });
    fits.then_some(&buffer[..len])
}

/// Hands on the unescaped text piece by piece, each with its length in `text`, until `push` refuses one; false when
/// it did.
fn pieces(mut text: &[u8], mut push: impl FnMut(&[u8], usize) -> bool) -> bool {
    while let Some(at) = memchr::memchr(b'\\', text) {
        if at > 0 && !push(&text[..at], at) {
            return false;
        }
        text = &text[at..];
        let simple = match text.get(1) {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'u') => 0,
            _ => b'\\',
        };
        let (pushed, used) = match simple {
            0 => match code_point(text) {
                Some((character, used)) => (push(character.encode_utf8(&mut [0; 4]).as_bytes(), used), used),
                None => (push(b"\\", 1), 1),
            },
            b'\\' if text.get(1) != Some(&b'\\') => (push(b"\\", 1), 1),
            byte => (push(&[byte], 2), 2),
        };
        if !pushed {
            return false;
        }
        text = &text[used..];
    }
    text.is_empty() || push(text, text.len())
}

/// Reads `\uXXXX`, or a surrogate pair of two; how many bytes it took.
fn code_point(text: &[u8]) -> Option<(char, usize)> {
    let high = unit(text)?;
    if (0xd800..0xdc00).contains(&high)
        && let Some(low @ 0xdc00..0xe000) = text.get(6..).and_then(unit)
        && let Some(character) = char::from_u32(0x1_0000 + ((high - 0xd800) << 10 | (low - 0xdc00)))
    {
        return Some((character, 12));
    }
    Some((char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 6))
}

fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.get(..6)?.strip_prefix(b"\\u")?;
    let mut value = 0;
    for byte in digits {
        value = value << 4 | char::from(*byte).to_digit(16)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        unescape_into(text, &mut out);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn every_escape_of_json_is_undone() {
        assert_eq!(unescaped(br#"a\"b\\c\/d\b\f\n\r\t\u00e9z"#), "a\"b\\c/d\u{8}\u{c}\n\r\t\u{e9}z");
        assert_eq!(unescaped(br"\ud83d\ude80!"), "\u{1f680}!");
        assert_eq!(unescaped("plain ü".as_bytes()), "plain ü");
        assert_eq!(unescaped(br"\\u0041"), "\\u0041");
    }

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        assert_eq!(unescaped(br"\ud83d"), "\u{fffd}");
        assert_eq!(unescaped(br"\ude80x"), "\u{fffd}x");
        assert_eq!(unescaped(br"\ud83d\u0041"), "\u{fffd}A");
        assert_eq!(unescaped(br"\ud83d\ud83d\ude80"), "\u{fffd}\u{1f680}");
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped(br"\x41\u12"), r"\x41\u12");
        assert_eq!(unescaped(br"end\"), r"end\");
    }

    #[test]
    fn short_buffers_refuse_long_text() {
        let mut buffer = [0; 4];
        assert_eq!(unescape_short(br"\u0061bcd", &mut buffer), Some(&b"abcd"[..]));
        assert_eq!(unescape_short(b"abcde", &mut buffer), None);
    }
}
