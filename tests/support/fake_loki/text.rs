//! How Loki spells label sets, times and sizes, and how it reads label sets.

use super::SECOND;

fn timestamp(time: i128) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(time).expect("in range")
}

/// Go's `time.RFC3339`: whole seconds.
pub(super) fn rfc3339(time: i128) -> String {
    timestamp(time.div_euclid(SECOND) * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Go's `Time.String()` in UTC: trailing zeros of the fraction are cut.
pub(super) fn go_time(time: i128) -> String {
    let fraction = format!("{:09}", time.rem_euclid(SECOND));
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction} +0000 UTC", timestamp(time).strftime("%Y-%m-%d %H:%M:%S"))
}

/// Loki's byte sizes: the largest unit of 1024 that leaves at least one.
pub(super) fn byte_text(bytes: usize) -> String {
    for (unit, name) in [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")] {
        if bytes >= unit {
            let value = format!("{:.1}", bytes as f64 / unit as f64);
            return format!("{}{name}", value.trim_end_matches(".0"));
        }
    }
    format!("{bytes}B")
}

pub(super) fn print_labels(labels: &[(String, String)]) -> String {
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// `{a="b", c="d"}` with Go's escapes.
pub(super) fn parse_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let unexpected = |at: usize, what: &str| format!("1:{}: parse error: {what}", at + 1);
    let chars: Vec<char> = text.chars().collect();
    let mut labels = Vec::new();
    let mut at = 0;
    let skip = |at: &mut usize| {
        while chars.get(*at).is_some_and(|c| *c == ' ') {
            *at += 1;
        }
    };
    if chars.is_empty() {
        return Ok(labels);
    }
    if chars[0] != '{' {
        return Err(unexpected(0, "expected a label set"));
    }
    at += 1;
    loop {
        skip(&mut at);
        if chars.get(at) == Some(&'}') {
            return if at + 1 == chars.len() {
                Ok(labels)
            } else {
                Err(unexpected(at + 1, "unexpected end"))
            };
        }
        let mut name = String::new();
        while let Some(c) = chars.get(at).filter(|c| c.is_ascii_alphanumeric() || **c == '_') {
            name.push(*c);
            at += 1;
        }
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            let what = chars
                .get(at)
                .map_or_else(String::new, |c| format!("unexpected character inside braces: '{c}'"));
            return Err(unexpected(at, &what));
        }
        if chars.get(at) != Some(&'=') {
            let what = chars
                .get(at)
                .map_or_else(String::new, |c| format!("unexpected character inside braces: '{c}'"));
            return Err(unexpected(at, &what));
        }
        at += 1;
        if chars.get(at) != Some(&'"') {
            return Err(unexpected(at, "unexpected identifier in label set, expected string"));
        }
        at += 1;
        let mut value = String::new();
        loop {
            match chars.get(at) {
                None => return Err(unexpected(at, "unterminated quoted string")),
                Some('"') => break,
                Some('\\') => {
                    at += 1;
                    match chars.get(at) {
                        Some('n') => value.push('\n'),
                        Some('t') => value.push('\t'),
                        Some('r') => value.push('\r'),
                        Some('x') => {
                            let hex: String = chars.iter().skip(at + 1).take(2).collect();
                            let code =
                                u8::from_str_radix(&hex, 16).map_err(|_| unexpected(at, "bad escape"))?;
                            value.push(char::from(code));
                            at += 2;
                        }
                        Some(c @ ('"' | '\\')) => value.push(*c),
                        _ => return Err(unexpected(at, "bad escape")),
                    }
                }
                Some(c) => value.push(*c),
            }
            at += 1;
        }
        at += 1;
        labels.push((name, value));
        skip(&mut at);
        if chars.get(at) == Some(&',') {
            at += 1;
        }
    }
}
