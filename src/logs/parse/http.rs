//! What HTTP values look like: methods, paths, routes, durations.
//!
//! In: the text of a value, possibly with JSON escapes. Out: the part that counts, or whether it is one at all.

use super::DurationUnit;

/// A token of letters, as methods are.
pub(super) fn is_method(text: &[u8]) -> bool {
    (3..=16).contains(&text.len()) && text.iter().all(u8::is_ascii_alphabetic)
}

/// A method of RFC 9110, RFC 5789 or QUERY, in capitals or small letters.
pub(super) fn is_known_method(text: &[u8]) -> bool {
    const KNOWN: [&[u8]; 10] =
        [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"PATCH", b"OPTIONS", b"CONNECT", b"TRACE", b"QUERY"];
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(text))
}

/// The path of a URL or request target: without scheme, authority, query and fragment. Empty when there is none.
/// A slash may be written `\/`.
pub(super) fn path_of(url: &[u8]) -> &[u8] {
    let start = if starts_with_slash(url) && !starts_with_slash(after_slash(url)) {
        0
    } else {
        // An authority ends at the next slash; without one the path is empty.
        let authority = match url.iter().position(|byte| *byte == b':') {
            Some(colon) if colon > 0 && is_scheme(&url[..colon]) => &url[colon + 1..],
            None if starts_with_slash(url) => url,
            Some(_) if starts_with_slash(url) => url,
            _ => return &[],
        };
        if !starts_with_slash(authority) || !starts_with_slash(after_slash(authority)) {
            return &[];
        }
        let host = after_slash(after_slash(authority));
        let Some(end) = host.iter().position(|byte| matches!(byte, b'/' | b'\\' | b'?' | b'#')) else {
            return &[];
        };
        if !starts_with_slash(&host[end..]) {
            return &[];
        }
        url.len() - host.len() + end
    };
    let path = &url[start..];
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    &path[..end]
}

fn is_scheme(text: &[u8]) -> bool {
    text.len() <= 16
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn starts_with_slash(text: &[u8]) -> bool {
    matches!(text, [b'/', ..] | [b'\\', b'/', ..])
}

fn after_slash(text: &[u8]) -> &[u8] {
    match text {
        [b'\\', b'/', rest @ ..] | [b'/', rest @ ..] => rest,
        _ => text,
    }
}

/// A route template: a path, or `*`.
pub(super) fn is_route(text: &[u8]) -> bool {
    starts_with_slash(text) || text == b"*"
}

/// Plain decimal digits with at most one point: no sign, no exponent.
pub(super) fn is_decimal(text: &[u8]) -> bool {
    let mut points = 0;
    let plain = text.iter().all(|byte| {
        points += usize::from(*byte == b'.');
        byte.is_ascii_digit() || *byte == b'.'
    });
    plain
        && points <= 1
        && text.len() <= 24
        && text.first().is_some_and(u8::is_ascii_digit)
        && text.last().is_some_and(u8::is_ascii_digit)
}

/// `12.5ms`, `1.5s`, `250µs`, `80ns`: Go's and Rust's way to print a short duration.
pub(super) fn duration_with_unit(text: &[u8]) -> Option<(&[u8], DurationUnit)> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        b"ms" | b" ms" => DurationUnit::Millis,
        b"s" | b" s" => DurationUnit::Seconds,
        b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => DurationUnit::Micros,
        b"ns" => DurationUnit::Nanos,
        _ => return None,
    };
    is_decimal(number).then_some((number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_url_is_kept() {
        for (url, path) in [
            ("/a/b?c=d#e", "/a/b"),
            ("/", "/"),
            ("/a#b?c", "/a"),
            ("http://h:80/x?y", "/x"),
            ("https://u:p@h/x", "/x"),
            ("http://h", ""),
            ("http://h?x=/y", ""),
            ("//h/x", "/x"),
            ("*", ""),
            ("", ""),
            ("a/b", ""),
            ("/t:1", "/t:1"),
            (r"http:\/\/h\/x\/y?z", r"\/x\/y"),
            (r"\/x\/y", r"\/x\/y"),
            ("mailto:x@y", ""),
        ] {
            assert_eq!(String::from_utf8_lossy(path_of(url.as_bytes())), path, "{url}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration_with_unit(b"12.5ms"), Some((&b"12.5"[..], DurationUnit::Millis)));
        assert_eq!(duration_with_unit("250µs".as_bytes()), Some((&b"250"[..], DurationUnit::Micros)));
        assert_eq!(duration_with_unit(b"3s"), Some((&b"3"[..], DurationUnit::Seconds)));
        for bad in ["1m2s", "12", "ms", "-1s", "1.2.3s", ".5s", "1e3s"] {
            assert_eq!(duration_with_unit(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_plain_decimals() {
        for good in ["0", "41", "40.34382299999925"] {
            assert!(is_decimal(good.as_bytes()), "{good}");
        }
        for bad in ["", "-1", "1e308", "1.", ".", "1.2.3", "1_000", "NaN"] {
            assert!(!is_decimal(bad.as_bytes()), "{bad}");
        }
    }
}
