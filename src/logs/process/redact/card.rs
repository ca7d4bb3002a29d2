//! Payment card numbers: 13 to 19 digits, whole or in groups, with an issuer's prefix and a right check digit.
//!
//! In: a text. Out: ranges. A number without gaps in its class of bytes (digits, space, `-`) is at least 13 long,
//! so one byte in 13 is enough to find it. Sources: ISO/IEC 7812 (length, Luhn check digit), the issuers' ranges.
//! No issuer's numbers begin with 1, so times since the epoch in ms, µs and ns are none.

/// Shortest number.
const MIN_DIGITS: usize = 13;

fn class(b: u8) -> bool {
    b.is_ascii_digit() || b == b' ' || b == b'-'
}

/// Calls `found` with the range of each card number.
#[inline]
pub(super) fn find(text: &[u8], mut found: impl FnMut(usize, usize)) {
    let mut at = MIN_DIGITS - 1;
    while at < text.len() {
        if !class(text[at]) {
            at += MIN_DIGITS;
            continue;
        }
        let from = text[..at].iter().rposition(|b| !class(*b)).map_or(0, |n| n + 1);
        let to = text[at..].iter().position(|b| !class(*b)).map_or(text.len(), |n| at + n);
        if to - from >= MIN_DIGITS {
            in_run(text, from, to, &mut found);
        }
        // The next number begins at `to + 1` at the earliest.
        at = to + MIN_DIGITS;
    }
}

/// Looks through a run of digits and separators for groups that make a number.
fn in_run(text: &[u8], from: usize, to: usize, found: &mut impl FnMut(usize, usize)) {
    // Start and end of up to five groups of digits, the last ones seen.
    let mut groups: [(usize, usize); 5] = [(0, 0); 5];
    let mut held = 0;
    let mut at = from;
    while at < to {
        if !text[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let end = text[at..to].iter().position(|b| !b.is_ascii_digit()).map_or(to, |n| at + n);
        if held == groups.len() {
            groups.rotate_left(1);
            held -= 1;
        }
        groups[held] = (at, end);
        held += 1;
        if end - at >= MIN_DIGITS {
            if bounded(text, at, end) && is_card(text, at, end) {
                found(at, end);
            }
            held = 0;
        } else {
            for first in 0..held {
                if grouped(text, &groups[first..held])
                    && bounded(text, groups[first].0, end)
                    && is_card(text, groups[first].0, end)
                {
                    // `4-4-4-4` may still grow by a group of three; the sixteen digits are the secret either way.
                    found(groups[first].0, end);
                    held = 0;
                    break;
                }
            }
        }
        at = end;
    }
}

/// True when the groups have the sizes that cards are printed in, with one and the same separator between them.
fn grouped(text: &[u8], groups: &[(usize, usize)]) -> bool {
    let Some((first, _)) = groups.first() else {
        return false;
    };
    let separator = groups.first().and_then(|(_, end)| text.get(*end));
    let even = groups.windows(2).all(|pair| pair[1].0 - pair[0].1 == 1 && text.get(pair[0].1) == separator);
    let size = |n: usize| groups[n].1 - groups[n].0;
    let sizes = match groups.len() {
        3 => size(0) == 4 && size(1) == 6 && matches!(size(2), 4 | 5),
        4 => (0..4).all(|n| size(n) == 4),
        5 => (0..4).all(|n| size(n) == 4) && size(4) == 3,
        _ => false,
    };
    even && sizes && text[*first].is_ascii_digit()
}

/// True when the number is not a part of a longer word or of a decimal fraction.
fn bounded(text: &[u8], from: usize, to: usize) -> bool {
    let joins = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let escape = from >= 2 && text[from - 2] == b'\\' && matches!(text[from - 1], b'n' | b't' | b'r');
    let left = from > 0
        && !escape
        && (joins(text[from - 1])
            || text[from - 1] == b'.' && from >= 2 && text[from - 2].is_ascii_digit()
            // `deadbeef-4111…`: a part of a uuid or a name.
            || text[from - 1] == b'-' && from >= 2 && text[from - 2].is_ascii_alphabetic());
    let right = text.get(to).is_some_and(|b| {
        joins(*b)
            || *b == b'.' && text.get(to + 1).is_some_and(u8::is_ascii_digit)
            || *b == b'-' && text.get(to + 1).is_some_and(u8::is_ascii_alphabetic)
    });
    !left && !right && !named_id(&text[from.saturating_sub(20)..from])
}

/// True when the name before a number says that it is a span or trace id.
fn named_id(before: &[u8]) -> bool {
    let name_end = before.iter().rposition(u8::is_ascii_alphanumeric).map_or(0, |n| n + 1);
    let mut name = [0; 20];
    let mut len = 0;
    for byte in before[..name_end].iter().filter(|b| b.is_ascii_alphanumeric()) {
        name[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    [&b"spanid"[..], b"traceid", b"parentid"].iter().any(|id| name[..len].ends_with(id))
}

/// Issuer's prefix, length and check digit.
fn is_card(text: &[u8], from: usize, to: usize) -> bool {
    let mut digits = [0_u8; 19];
    let mut len = 0;
    for byte in text[from..to].iter().filter(|b| b.is_ascii_digit()) {
        if len == digits.len() {
            return false;
        }
        digits[len] = byte - b'0';
        len += 1;
    }
    let digits = &digits[..len];
    if len < MIN_DIGITS || digits.iter().all(|d| *d == digits[0]) {
        return false;
    }
    let prefix = digits[..4].iter().fold(0_u32, |sum, d| sum * 10 + u32::from(*d));
    let issued = match len {
        13 => prefix / 1000 == 4,
        14 => matches!(prefix / 10, 300..=305) || matches!(prefix / 100, 36 | 38 | 39),
        15 => matches!(prefix / 100, 34 | 37),
        16..=19 => {
            prefix / 1000 == 4 && len != 17
                || len == 16 && (matches!(prefix / 100, 51..=55) || matches!(prefix, 2221..=2720))
                || matches!(prefix, 6011 | 3528..=3589)
                || matches!(prefix / 10, 644..=649)
                || matches!(prefix / 100, 62 | 65)
        }
        _ => false,
    };
    issued && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(n, digit)| {
            let value = u32::from(*digit) * if n % 2 == 1 { 2 } else { 1 };
            value / 10 + value % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        find(text.as_bytes(), |from, to| all.push(&text[from..to]));
        all
    }

    #[test]
    fn card_numbers_are_found_whole_and_in_groups() {
        for (text, expected) in [
            ("4111111111111111", "4111111111111111"),
            ("paid with 4111 1111 1111 1111 on 12/29", "4111 1111 1111 1111"),
            ("2026-11-22 5555-5555-5555-4444 ok", "5555-5555-5555-4444"),
            (r#"{"pan":"378282246310005"}"#, "378282246310005"),
            ("amex 3782 822463 10005.", "3782 822463 10005"),
            ("id 12 4 6011111111111117, next", "6011111111111117"),
            (r#"{"msg":"a\n4222222222222"}"#, "4222222222222"),
            ("x 30569309025904 y", "30569309025904"),
        ] {
            assert_eq!(cards(text), [expected], "{text}");
        }
    }

    #[test]
    fn times_ids_and_fractions_are_no_cards() {
        for text in [
            "1795356566695",
            "1795356566695123",
            "1795356566695123456",
            "4111111111111112",
            "0.4111111111111111",
            r#"{"span_id":"4111111111111111"}"#,
            "4111111111111111a",
            "deadbeef-4111-1111-1111-1111",
            "41111111111111110000000000000000",
            "0000000000000000",
        ] {
            assert_eq!(cards(text), [""; 0], "{text}");
        }
    }
}
