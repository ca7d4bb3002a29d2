//! Stamps of container runtimes: the reader by hand against jiff.
//!
//! In: a text. Property: for every text of the runtimes' shape, both give the same instant or both refuse. Leap seconds are left
//! out: the agent counts `:60` as the next second, jiff as `:59`.

use nodewick::logs::stamp;

pub(super) fn run(data: &[u8]) {
    let got = stamp::parse(data);
    let Some(text) = shaped(data) else {
        // Digits beyond nanoseconds are ignored, and jiff refuses them.
        let long_fraction = data.get(19) == Some(&b'.') && data.len() > 30;
        assert!(got.is_none() || long_fraction, "taken without being of the shape");
        return;
    };
    let year: i16 = text[..4].parse().expect("four digits");
    if text[17..].starts_with("60") {
        return;
    }
    // RFC 3339 ends at 23:59; jiff takes a few hours more.
    let offset_in_range = text.ends_with('Z') || &text[text.len() - 5..text.len() - 3] < "24";
    let expected = text
        .parse::<jiff::Timestamp>()
        .ok()
        .filter(|_| offset_in_range && (1970..=2553).contains(&year))
        .and_then(|stamp| u64::try_from(stamp.as_nanosecond()).ok());
    assert_eq!(got, expected, "{text}");
}

/// The text when it is `YYYY-MM-DDTHH:MM:SS[.f](Z|±HH:MM)` with at most nine digits of fraction.
fn shaped(data: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(data).ok().filter(|text| text.is_ascii())?;
    let (fixed, rest) = text.split_at_checked(19)?;
    let like = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                like => byte == like,
            })
    };
    if !like(fixed, "0000-00-00T00:00:00") {
        return None;
    }
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (1..=9).contains(&(fraction.len() - zone.len())).then_some(zone)?
        }
        None => rest,
    };
    (zone == "Z" || like(zone, "+00:00") || like(zone, "-00:00")).then_some(text)
}
