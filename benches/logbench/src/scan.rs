//! Reading container log lines with as little work as possible. Used by the floor only.

use memchr::{memchr, memchr2};

/// A CRI line taken apart.
pub struct Cri<'a> {
    /// Nanoseconds since the epoch.
    pub time_unix_nano: u64,
    /// True when the line goes on in the next record.
    pub partial: bool,
    /// What the container wrote.
    pub body: &'a [u8],
}

impl<'a> Cri<'a> {
    /// Takes `<stamp> stdout|stderr P|F <body>` apart; stamps of nanosecond precision in UTC, as `loggen` writes.
    #[inline]
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let rest = line.get(30..)?;
        if rest.len() < 10 || rest[0] != b' ' || rest[7] != b' ' || rest[9] != b' ' {
            return None;
        }
        Some(Self { time_unix_nano: nanos(&line[..30]), partial: rest[8] == b'P', body: &rest[10..] })
    }
}

#[inline]
fn nanos(stamp: &[u8]) -> u64 {
    let number = |from: usize, to: usize| {
        stamp[from..to].iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit & 15))
    };
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Days from the civil date, counted from March so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19);
    seconds * 1_000_000_000 + number(20, 29)
}

/// The top-level fields that the floor takes from a line, as they stand there; empty when absent.
#[derive(Default)]
pub struct Picked<'a> {
    /// `level`
    pub level: &'a [u8],
    /// `time`
    pub time: &'a [u8],
    /// `trace_id`, with its quotes.
    pub trace_id: &'a [u8],
    /// `span_id`, with its quotes.
    pub span_id: &'a [u8],
    /// `msg`, with its quotes.
    pub msg: &'a [u8],
}

/// One pass over a JSON object; stops as soon as all five fields are found. `None` when it is no JSON object.
#[inline]
pub fn pick(json: &[u8]) -> Option<Picked<'_>> {
    let (mut picked, mut missing) = (Picked::default(), 5);
    if json.first() != Some(&b'{') {
        return None;
    }
    let mut at = 1;
    while *json.get(at)? == b'"' {
        let key_end = string_end(json, at + 1)?;
        let value = key_end + 2;
        let value_end = value_end(json, value)?;
        let slot = match &json[at + 1..key_end] {
            b"level" => Some(&mut picked.level),
            b"time" => Some(&mut picked.time),
            b"trace_id" => Some(&mut picked.trace_id),
            b"span_id" => Some(&mut picked.span_id),
            b"msg" => Some(&mut picked.msg),
            _ => None,
        };
        if let Some(slot) = slot {
            *slot = &json[value..value_end];
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
        match json.get(value_end)? {
            b',' => at = value_end + 1,
            _ => break,
        }
    }
    Some(picked)
}

/// Index of the quote that ends the string whose text starts at `at`.
#[inline]
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Index one past the value that starts at `at`.
#[inline]
fn value_end(json: &[u8], mut at: usize) -> Option<usize> {
    match *json.get(at)? {
        b'"' => Some(string_end(json, at + 1)? + 1),
        b'{' | b'[' => {
            let mut depth = 0usize;
            loop {
                match *json.get(at)? {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return Some(at + 1),
                    b'}' | b']' => depth -= 1,
                    b'"' => at = string_end(json, at + 1)?,
                    _ => {}
                }
                at += 1;
            }
        }
        _ => Some(at + json[at..].iter().position(|byte| matches!(byte, b',' | b'}'))?),
    }
}

/// The text between the quotes of a JSON string that needs no unescaping.
#[inline]
pub fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        _ => text,
    }
}

/// The first newline at or after `from`.
#[inline]
pub fn newline(bytes: &[u8], from: usize) -> Option<usize> {
    memchr(b'\n', &bytes[from..]).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_apart_into_time_flag_and_body() {
        let cri = Cri::read(b"2026-11-22T14:09:26.695123456Z stderr P {\"a\":1}").expect("a CRI line");
        assert_eq!(cri.time_unix_nano, 1_795_356_566_695_123_456);
        assert!(cri.partial);
        assert_eq!(cri.body, b"{\"a\":1}");
        let leap = Cri::read(b"2024-02-29T00:00:00.000000001Z stdout F x").expect("a CRI line");
        assert_eq!(leap.time_unix_nano, 1_709_164_800_000_000_001);
    }

    #[test]
    fn only_top_level_fields_are_picked() {
        let json =
            br#"{"level":30,"req":{"level":1,"a":["}",{"msg":"no"}]},"q":"\"","trace_id":"ab","msg":"m\\"}"#;
        let picked = pick(json).expect("a JSON object");
        assert_eq!(picked.level, b"30");
        assert_eq!(unquoted(picked.trace_id), b"ab");
        assert_eq!(picked.msg, br#""m\\""#);
        assert_eq!(picked.span_id, b"");
    }
}
