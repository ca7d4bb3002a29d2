//! Numbers of the text formats, exactly those that Go's `ParseFloat` reads without the forms that came with Go 1.13.
//!
//! In: digits. Out: the nearest float, correctly rounded, or nothing. A NaN is always [`NORMAL_NAN`]: the mark of staleness
//! cannot be scraped.

use std::io::Write as _;

/// The NaN that is an ordinary value. Source: Prometheus `model/value/value.go`, `NormalNaN`.
pub const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// Powers of ten that a float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Any NaN becomes the ordinary one.
#[inline]
pub(super) fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(NORMAL_NAN) } else { value }
}

/// The number at `at` and the place behind it: behind everything up to a space, tab or newline. `None` where that is no number.
#[inline]
pub(super) fn read(text: &[u8], at: usize) -> (Option<f64>, usize) {
    match simple(text, at) {
        Some((value, end)) => (Some(value), end),
        None => {
            let end = token(text, at);
            (float(&text[at..end]), end)
        }
    }
}

/// Behind everything up to a space, tab or newline.
#[inline]
pub(super) fn token(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'\n')) {
        at += 1;
    }
    at
}

/// Up to 2^53 times or divided by a power of ten up to 10^22: both are exact floats, so that one operation rounds correctly.
/// Source: Clinger, "How to read floating point numbers accurately", 1990.
#[inline]
fn simple(text: &[u8], start: usize) -> Option<(f64, usize)> {
    let mut at = start;
    let negative = match text.get(at) {
        Some(b'-') => {
            at += 1;
            true
        }
        Some(b'+') => {
            at += 1;
            false
        }
        _ => false,
    };
    let first = at;
    let mut mantissa = 0_u64;
    let (mut digits, mut power) = (0, 0_i32);
    while let Some(digit) = digit(text, at) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
        at += 1;
    }
    digits += at - first;
    if text.get(at) == Some(&b'.') {
        at += 1;
        let point = at;
        while let Some(digit) = digit(text, at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(digit);
            at += 1;
        }
        digits += at - point;
        if digits > 19 {
            return None;
        }
        power = -((at - point) as i32);
    }
    if digits == 0 || digits > 19 {
        return None;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        let down = match text.get(at) {
            Some(b'-') => {
                at += 1;
                true
            }
            Some(b'+') => {
                at += 1;
                false
            }
            _ => false,
        };
        let first = at;
        let mut exponent = 0_i32;
        while let Some(digit) = digit(text, at) {
            exponent = exponent * 10 + digit as i32;
            at += 1;
            if at - first > 3 {
                return None;
            }
        }
        if at == first {
            return None;
        }
        power += if down { -exponent } else { exponent };
    }
    if !matches!(text.get(at), None | Some(b' ' | b'\t' | b'\n')) || mantissa > 1 << 53 {
        return None;
    }
    let value = match power {
        0 => mantissa as f64,
        1..=22 => mantissa as f64 * POWERS[power as usize],
        -22..=-1 => mantissa as f64 / POWERS[-power as usize],
        _ => return None,
    };
    Some((if negative { -value } else { value }, at))
}

#[inline]
fn digit(text: &[u8], at: usize) -> Option<u64> {
    let digit = text.get(at)?.wrapping_sub(b'0');
    (digit < 10).then_some(u64::from(digit))
}

/// Any number that Prometheus reads. What is out of range, hexadecimal or has underscores is none.
fn float(token: &[u8]) -> Option<f64> {
    let (sign, rest) = match token {
        [b'-', rest @ ..] => (-1.0, rest),
        [b'+', rest @ ..] => (1.0, rest),
        _ => (1.0, token),
    };
    if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
        return Some(sign * f64::INFINITY);
    }
    if token.eq_ignore_ascii_case(b"nan") {
        return Some(f64::from_bits(NORMAL_NAN));
    }
    if !rest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let value: f64 = std::str::from_utf8(token).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Milliseconds of a time in whole or broken seconds, cut off as Prometheus does. `None` for what is no time.
pub(super) fn millis(seconds: f64) -> Option<i64> {
    // The smallest number says that there is no time.
    seconds.is_finite().then(|| ((seconds * 1000.0) as i64).max(i64::MIN + 1))
}

/// A whole number of milliseconds. `None` where it does not fit.
#[inline]
pub(super) fn integer(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
}

/// Appends a bound as Prometheus writes it: the shortest digits that read back, `.0` behind a whole number, an exponent below
/// 1e-4 and from 1e6 on. Source: Prometheus `model/labels/float.go`, Go `strconv.FormatFloat(f, 'g', -1, 64)`.
pub(super) fn write_bound(out: &mut Vec<u8>, bound: f64) {
    if !bound.is_finite() {
        let text: &[u8] = match bound {
            f64::INFINITY => b"+Inf",
            f64::NEG_INFINITY => b"-Inf",
            _ => b"NaN",
        };
        out.extend_from_slice(text);
        return;
    }
    if bound == 0.0 {
        out.extend_from_slice(b"0.0");
        return;
    }
    let start = out.len();
    // Writing to memory does not fail.
    let _ = write!(out, "{bound:e}");
    let mark = out[start..].iter().position(|byte| *byte == b'e').map_or(out.len(), |mark| start + mark);
    let digits = &out[(mark + 1).min(out.len())..];
    let (down, digits) = digits.strip_prefix(b"-").map_or((false, digits), |digits| (true, digits));
    let exponent = digits.iter().fold(0_i32, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    if (down && exponent > 4) || (!down && exponent >= 6) {
        out.truncate(mark);
        let _ = write!(out, "e{}{exponent:02}", if down { '-' } else { '+' });
        return;
    }
    out.truncate(start);
    let _ = write!(out, "{bound}");
    if !out[start..].contains(&b'.') {
        out.extend_from_slice(b".0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        let (value, end) = read(text.as_bytes(), 0);
        assert_eq!(end, text.len(), "{text}");
        value
    }

    #[test]
    fn numbers_are_those_of_go_before_1_13() {
        for (text, expected) in [
            ("0", 0.0),
            ("1", 1.0),
            ("+1", 1.0),
            ("-1", -1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("-.5", -0.5),
            ("007", 7.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("1e-3", 0.001),
            ("1e0003", 1000.0),
            ("1e-400", 0.0),
            ("Inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-INFINITY", f64::NEG_INFINITY),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("123456789012345678901234567890", 1.234_567_890_123_456_8e29),
            ("7.424100000000001e-05", 7.424_100_000_000_001e-5),
            ("1.7976931348623157e308", f64::MAX),
            ("5e-324", f64::from_bits(1)),
        ] {
            assert_eq!(value(text).map(f64::to_bits), Some(expected.to_bits()), "{text}");
        }
        assert_eq!(value("-0").map(f64::to_bits), Some((-0.0_f64).to_bits()));
        for text in ["NaN", "nan", "nAn"] {
            assert_eq!(value(text).map(f64::to_bits), Some(NORMAL_NAN), "{text}");
        }
        for text in [
            "", "+", "-", ".", "e5", "1e", "1e+", "1_2", "0x10", "0x1p-3", "0x1P-3", "1p3", "+NaN", "-nan",
            "infi", "infinit", "1e309", "-1e999", "1\r", "true", "1.2.3", "--1", "1e5.5", "١", "1,5", "1d",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn bounds_are_written_as_prometheus_writes_them() {
        for (bound, expected) in [
            (1.0, "1.0"),
            (-1.0, "-1.0"),
            (0.0, "0.0"),
            (-0.0, "0.0"),
            (0.1, "0.1"),
            (2.5, "2.5"),
            (10.0, "10.0"),
            (123_456.0, "123456.0"),
            (999_999.5, "999999.5"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.000_05, "5e-05"),
            (0.000_012_5, "1.25e-05"),
            (1e100, "1e+100"),
            (-1.5e-7, "-1.5e-07"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = b"x".to_vec();
            write_bound(&mut out, bound);
            assert_eq!(String::from_utf8_lossy(&out[1..]), expected);
        }
    }

    #[test]
    fn times_are_cut_off_to_milliseconds() {
        assert_eq!(millis(1_520_879_607.789), Some(1_520_879_607_789));
        assert_eq!(millis(0.0019), Some(1));
        assert_eq!(millis(-1.5), Some(-1500));
        assert_eq!(millis(f64::NAN), None);
        assert_eq!(millis(f64::NEG_INFINITY), None);
        assert_eq!(millis(-1e300), Some(i64::MIN + 1));
        assert_eq!(integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer(b"9223372036854775808"), None);
    }
}
