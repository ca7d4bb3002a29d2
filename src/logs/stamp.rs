//! RFC 3339 timestamps as container runtimes write them, by hand: this runs once a line.
//!
//! containerd trims trailing zeros of the fraction and writes `Z`; conmon writes nine digits and `+00:00`.

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)` as nanoseconds since the epoch.
///
/// `None` for anything else, for years before 1970 and after 2554 (where nanoseconds leave 64 bits), and for
/// fields out of range. A leap second (`:60`) counts as the next second.
#[inline]
pub fn parse(text: &[u8]) -> Option<u64> {
    let fixed: &[u8; 19] = text.get(..19)?.try_into().ok()?;
    if fixed[4] != b'-' || fixed[7] != b'-' || fixed[10] != b'T' || fixed[13] != b':' || fixed[16] != b':' {
        return None;
    }
    let (y1, y2) = (two(fixed[0], fixed[1])?, two(fixed[2], fixed[3])?);
    let (month, day) = (two(fixed[5], fixed[6])?, two(fixed[8], fixed[9])?);
    let (hour, minute, second) =
        (two(fixed[11], fixed[12])?, two(fixed[14], fixed[15])?, two(fixed[17], fixed[18])?);
    let year = y1 * 100 + y2;
    if !(1970..=2553).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || day > 28 && day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0_u64;
    if let [b'.', fraction @ ..] = rest {
        let mut digits = 0;
        let mut scale = 100_000_000_u64;
        while let Some(byte) = fraction.get(digits)
            && byte.is_ascii_digit()
        {
            nanos += u64::from(byte - b'0') * scale;
            scale /= 10;
            digits += 1;
        }
        if digits == 0 {
            return None;
        }
        rest = &fraction[digits..];
    }
    let offset_secs: i64 = match rest {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let secs = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if *sign == b'+' { secs } else { -secs }
        }
        _ => return None,
    };
    let days = days_from_civil(u64::from(year), u64::from(month), u64::from(day));
    let secs = days * 86_400 + u64::from(hour) * 3600 + u64::from(minute) * 60 + u64::from(second);
    let secs = secs.checked_add_signed(-offset_secs)?;
    Some(secs * 1_000_000_000 + nanos)
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
#[inline]
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runtimes_stamps_are_read() {
        assert_eq!(parse(b"1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse(b"2026-11-22T14:11:42.932284897Z"), Some(1_795_356_702_932_284_897));
        assert_eq!(parse(b"2026-11-22T14:11:42.93Z"), Some(1_795_356_702_930_000_000));
        assert_eq!(parse(b"2026-11-22T15:11:42.932284897+01:00"), Some(1_795_356_702_932_284_897));
    }

    #[test]
    fn anything_else_is_no_stamp() {
        for text in [
            &b""[..],
            b"2026-11-22",
            b"2026-11-22T14:11:42",
            b"2026-11-22T14:11:42.Z",
            b"2026-13-22T14:11:42Z",
            b"2026-02-29T14:11:42Z",
            b"2026-04-31T14:11:42Z",
            b"2100-02-29T14:11:42Z",
            b"2026-11-22T14:11:42+24:00",
            b"2026-11-22T14:11:42+01:60",
            b"2026-11-22 14:11:42Z",
            b"2026-11-22T14:11:42.5Zx",
            b"x026-11-22T14:11:42.5Z",
        ] {
            assert_eq!(parse(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(secs in 0_i64..16_000_000_000, nanos in 0_i32..1_000_000_000) {
            let stamp = jiff::Timestamp::new(secs, nanos).expect("in range");
            let expected = secs as u64 * 1_000_000_000 + nanos as u64;
            prop_assert_eq!(parse(stamp.to_string().as_bytes()), Some(expected));
        }
    }
}
