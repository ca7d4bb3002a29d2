//! The application's own clock.
//!
//! In: the text of a time value. Out: nanoseconds since the epoch, or nothing. Invariant: a stamp without a zone
//! is taken as UTC, since a container rarely has another; nothing before 1970 or after 2554 is a time.

const SECOND: u64 = 1_000_000_000;

/// An epoch number in seconds, milliseconds, microseconds or nanoseconds, told apart by its size, with or without
/// a fraction.
pub(super) fn from_number(text: &[u8]) -> Option<u64> {
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let whole = digits(&text[..point])?;
    let unit = match whole {
        0 => return None,
        // Seconds until the year 5138, milliseconds from 1973 on, and so forth.
        1..100_000_000_000 => SECOND,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let fraction = match text.get(point + 1..) {
        Some(fraction) => nanos(fraction)? / (SECOND / unit),
        None => 0,
    };
    whole.checked_mul(unit)?.checked_add(fraction)
}

/// `2026-11-22T14:27:34.513Z` and its kin: `T`, `t` or a space between, `/` between date parts, any fraction
/// behind a point or comma, offset `Z`, `+01:00`, `+0100` or none.
pub(super) fn from_text(text: &[u8]) -> Option<u64> {
    if text.len() < 19 || text.len() > 48 {
        return None;
    }
    let separators = [text[4], text[7], text[10], text[13], text[16]];
    let [b'-' | b'/', b'-' | b'/', b'T' | b't' | b' ', b':', b':'] = separators else { return None };
    let seconds = civil(
        digits(&text[..4])?,
        digits(&text[5..7])?,
        digits(&text[8..10])?,
        [digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?],
    )?;
    let mut rest = &text[19..];
    let mut fraction = 0;
    if let [b'.' | b',', after @ ..] = rest {
        let end = after.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(after.len());
        fraction = nanos(&after[..end])?;
        rest = &after[end..];
    }
    let behind = zone(rest)?;
    let seconds = i64::try_from(seconds).ok()?.checked_sub(behind)?;
    u64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(fraction)
}

/// `22/Nov/2026:14:27:36 +0000`, as access logs write it.
pub(super) fn from_access_log(text: &[u8]) -> Option<u64> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    if text.len() < 20 || text[2] != b'/' || text[6] != b'/' || [text[11], text[14], text[17]] != [b':'; 3] {
        return None;
    }
    let month = MONTHS.chunks_exact(3).position(|name| *name == text[3..6])? as u64 + 1;
    let clock = [digits(&text[12..14])?, digits(&text[15..17])?, digits(&text[18..20])?];
    let seconds = civil(digits(&text[7..11])?, month, digits(&text[..2])?, clock)?;
    let seconds = i64::try_from(seconds).ok()?.checked_sub(zone(text[20..].trim_ascii_start())?)?;
    u64::try_from(seconds).ok()?.checked_mul(SECOND)
}

/// Seconds by which a zone is ahead of UTC.
fn zone(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        [] | b"Z" | b"z" | b" UTC" | b" Z" => return Some(0),
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] | [sign @ (b'+' | b'-'), h1, h0, m1, m0] => {
            (*sign, digits(&[*h1, *h0])?, digits(&[*m1, *m0])?)
        }
        [sign @ (b'+' | b'-'), h1, h0] => (*sign, digits(&[*h1, *h0])?, 0),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 3600 + minutes * 60) as i64;
    Some(if sign == b'-' { -seconds } else { seconds })
}

/// Seconds since the epoch of a date of the Gregorian calendar and a time of day.
fn civil(year: u64, month: u64, day: u64, [hour, minute, second]: [u64; 3]) -> Option<u64> {
    const DAYS: [u64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let valid = (1970..=2553).contains(&year)
        && (1..=12).contains(&month)
        && day >= 1
        && day <= DAYS[month as usize - 1]
        && (month != 2 || day < 29 || leap)
        && hour < 24
        && minute < 60
        // A leap second is the next one.
        && second <= 60;
    if !valid {
        return None;
    }
    // Days since 1 March of the year 0, so that the leap day ends a year.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9).then(|| value * 10 + u64::from(digit))
    })
}

/// A fraction of a second, cut to nine digits.
fn nanos(fraction: &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..9 {
        let digit = match fraction.get(place) {
            Some(byte) => u64::from(byte.wrapping_sub(b'0')),
            None => 0,
        };
        if digit > 9 {
            return None;
        }
        value = value * 10 + digit;
    }
    fraction.iter().skip(9).all(u8::is_ascii_digit).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_numbers_of_every_unit_are_told_apart() {
        assert_eq!(from_number(b"1795356566695"), Some(1_795_356_566_695_000_000));
        assert_eq!(from_number(b"1795357654.786844"), Some(1_795_357_654_786_844_000));
        assert_eq!(from_number(b"1795357654"), Some(1_795_357_654_000_000_000));
        assert_eq!(from_number(b"1795357654786844"), Some(1_795_357_654_786_844_000));
        assert_eq!(from_number(b"1795357654786844123"), Some(1_795_357_654_786_844_123));
        assert_eq!(from_number(b"1795356566695.25"), Some(1_795_356_566_695_250_000));
        for bad in ["0", "-1", "1e308", "", ".", "1.5e9", "99999999999999999999"] {
            assert_eq!(from_number(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn stamps_of_every_shape_are_read() {
        // date -u -d 2026-11-22T14:27:34Z +%s
        let second = 1_795_357_654 * SECOND;
        for (text, nanos) in [
            ("2026-11-22T14:27:34Z", 0),
            ("2026-11-22T14:27:34.513Z", 513_000_000),
            ("2026-11-22T14:27:34.379782092Z", 379_782_092),
            ("2026-11-22T15:27:34.5+01:00", 500_000_000),
            ("2026-11-22T09:57:34.5-0430", 500_000_000),
            ("2026-11-22 14:27:34,513", 513_000_000),
            ("2026-11-22 14:27:34.786844+00:00", 786_844_000),
            ("2026/11/22 14:27:34", 0),
            ("2026-11-22T14:27:34.1234567891Z", 123_456_789),
        ] {
            assert_eq!(from_text(text.as_bytes()), Some(second + nanos), "{text}");
        }
        assert_eq!(from_access_log(b"22/Nov/2026:15:27:34 +0100"), Some(second));
        for bad in [
            "2026-13-22T14:27:34Z",
            "2026-02-29T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T14:27:34X",
            "2026-11-22",
            "2026-11-22T24:00:00Z",
        ] {
            assert_eq!(from_text(bad.as_bytes()), None, "{bad}");
        }
        assert!(from_text(b"2028-02-29T00:00:00Z").is_some());
    }
}
