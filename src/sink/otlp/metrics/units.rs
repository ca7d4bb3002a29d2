//! Units of OpenMetrics in the words of OpenTelemetry.
//!
//! Source: "Prometheus and OpenMetrics Compatibility", metric metadata; UCUM, as the semantic conventions use it.

use std::borrow::Cow;

const WORDS: [(&str, &str); 27] = [
    ("days", "d"),
    ("hours", "h"),
    ("minutes", "min"),
    ("seconds", "s"),
    ("milliseconds", "ms"),
    ("microseconds", "us"),
    ("nanoseconds", "ns"),
    ("bytes", "By"),
    ("kibibytes", "KiBy"),
    ("mebibytes", "MiBy"),
    ("gibibytes", "GiBy"),
    ("tebibytes", "TiBy"),
    ("kilobytes", "KBy"),
    ("megabytes", "MBy"),
    ("gigabytes", "GBy"),
    ("terabytes", "TBy"),
    ("bits", "bit"),
    ("meters", "m"),
    ("volts", "V"),
    ("amperes", "A"),
    ("joules", "J"),
    ("watts", "W"),
    ("grams", "g"),
    ("celsius", "Cel"),
    ("hertz", "Hz"),
    ("percent", "%"),
    ("ratio", "1"),
];

/// `seconds` as `s`, `bytes_per_second` as `By/s`; a word that is not known stays.
pub(super) fn unit(text: &str) -> Cow<'_, str> {
    let word = |text: &str| WORDS.iter().find(|(word, _)| *word == text).map(|(_, short)| *short);
    match text.split_once("_per_") {
        None => Cow::Borrowed(word(text).unwrap_or(text)),
        Some((what, per)) => {
            // What something is divided by stands in the singular.
            let plural = format!("{per}s");
            let per = word(per).or_else(|| word(&plural)).unwrap_or(per);
            Cow::Owned(format!("{}/{per}", word(what).unwrap_or(what)))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn units_become_ucums() {
        for (from, to) in [
            ("seconds", "s"),
            ("milliseconds", "ms"),
            ("bytes", "By"),
            ("ratio", "1"),
            ("bytes_per_second", "By/s"),
            ("meters_per_hour", "m/h"),
            ("apples", "apples"),
            ("", ""),
        ] {
            assert_eq!(super::unit(from), to, "{from}");
        }
    }
}
