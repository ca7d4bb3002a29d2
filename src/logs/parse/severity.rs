//! Levels of every logger as OpenTelemetry severity numbers.
//!
//! In: a level word or number and the scale it belongs to. Out: a [`Severity`], unspecified when unknown.
//! Source: OpenTelemetry Logs Data Model, appendix B, and for winston's npm levels `@opentelemetry/winston-transport`.

use crate::data::severity::Severity;

/// pino and bunyan: 10 trace, 20 debug, 30 info, 40 warn, 50 error, 60 fatal; numbers between belong to the
/// lower level. Below 10 and from 100 on the scale is another one.
#[inline]
pub(super) fn from_pino(level: u32) -> Severity {
    match level {
        10..20 => Severity::TRACE,
        20..30 => Severity::DEBUG,
        30..40 => Severity::INFO,
        40..50 => Severity::WARN,
        50..60 => Severity::ERROR,
        60..100 => Severity::FATAL,
        _ => Severity::UNSPECIFIED,
    }
}

/// Logback's integers: 5000 trace, 10000 debug, 20000 info, 30000 warn, 40000 error.
pub(super) fn from_logback(value: u32) -> Severity {
    match value {
        5_000 => Severity::TRACE,
        10_000 => Severity::DEBUG,
        20_000 => Severity::INFO,
        30_000 => Severity::WARN,
        40_000 => Severity::ERROR,
        50_000 => Severity::FATAL,
        _ => Severity::UNSPECIFIED,
    }
}

/// Python's `levelno` (loguru adds 5 trace and 25 success).
pub(super) fn from_python(level: u32) -> Severity {
    match level {
        5..10 => Severity::TRACE,
        10..20 => Severity::DEBUG,
        20..30 => Severity::INFO,
        30..40 => Severity::WARN,
        40..50 => Severity::ERROR,
        50..60 => Severity::CRITICAL,
        _ => Severity::UNSPECIFIED,
    }
}

/// Serilog's words: as anywhere, save that Verbose lies below Debug.
pub(super) fn from_serilog(word: &[u8]) -> Severity {
    if word.eq_ignore_ascii_case(b"verbose") { Severity::TRACE } else { from_word(word) }
}

/// Any logger's level word in any case, digits of pino's scale, and slog's `ERROR+4`.
pub(super) fn from_word(word: &[u8]) -> Severity {
    let number = match word {
        [] => return Severity::UNSPECIFIED,
        [b'0'..=b'9', ..] => return word_digits(word).map_or(Severity::UNSPECIFIED, from_pino),
        // A single letter is a level only where a level must stand.
        [letter] => match letter.to_ascii_uppercase() {
            b'T' | b'V' => 1,
            b'D' => 5,
            b'I' => 9,
            b'N' => 10,
            b'W' => 13,
            b'E' => 17,
            b'C' | b'F' => 21,
            _ => 0,
        },
        _ => match known_word(word) {
            0 => return slog_offset(word),
            number => number,
        },
    };
    Severity::new(number)
}

/// The number of a level word of two letters or more, 0 when it is none.
pub(super) fn known_word(word: &[u8]) -> u8 {
    let mut lower = [0; 13];
    let Some(lower) = lower.get_mut(..word.len()) else { return 0 };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    match &*lower {
        b"trace" | b"trc" | b"trce" | b"silly" | b"finest" => 1,
        b"finer" => 2,
        b"debug" | b"dbg" | b"dbug" | b"debu" | b"fine" => 5,
        b"verbose" => 6,
        b"http" => 7,
        b"config" => 8,
        b"info" | b"inf" | b"information" | b"informational" | b"success" => 9,
        b"notice" => 10,
        b"warn" | b"wrn" | b"warning" => 13,
        b"error" | b"err" | b"erro" | b"severe" | b"fail" => 17,
        b"crit" | b"dpanic" => 18,
        b"alert" | b"panic" => 19,
        b"critical" | b"fatal" | b"ftl" | b"fata" | b"emerg" | b"emergency" => 21,
        _ => 0,
    }
}

fn word_digits(word: &[u8]) -> Option<u32> {
    if word.len() > 4 {
        return None;
    }
    word.iter().try_fold(0, |value, byte| char::from(*byte).to_digit(10).map(|digit| value * 10 + digit))
}

/// Go's log/slog counts in steps of four, as OpenTelemetry does: `INFO-2` is DEBUG3, `ERROR+4` is FATAL.
fn slog_offset(word: &[u8]) -> Severity {
    let Some(sign) = word.iter().position(|byte| matches!(byte, b'+' | b'-')) else {
        return Severity::UNSPECIFIED;
    };
    let base = match &word[..sign] {
        b"DEBUG" => 5,
        b"INFO" => 9,
        b"WARN" => 13,
        b"ERROR" => 17,
        _ => return Severity::UNSPECIFIED,
    };
    let Some(offset) = word_digits(&word[sign + 1..]).filter(|_| word.len() > sign + 1) else {
        return Severity::UNSPECIFIED;
    };
    let offset = i64::from(offset);
    let number = if word[sign] == b'+' { base + offset } else { base - offset };
    Severity::new(number.clamp(1, 24) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_every_logger_have_their_number() {
        for (word, number) in [
            ("silly", 1),
            ("verbose", 6),
            ("http", 7),
            ("debug", 5),
            ("INFO", 9),
            ("Information", 9),
            ("notice", 10),
            ("WARN", 13),
            ("warning", 13),
            ("Error", 17),
            ("dpanic", 18),
            ("CRITICAL", 21),
            ("crit", 18),
            ("panic", 19),
            ("alert", 19),
            ("emerg", 21),
            ("fatal", 21),
            ("FTL", 21),
            ("I", 9),
            ("30", 9),
            ("55", 17),
            ("ERROR+4", 21),
            ("INFO-2", 7),
            ("DEBUG-4", 1),
            ("ERROR+40", 24),
            ("DEBUG-9", 1),
        ] {
            assert_eq!(from_word(word.as_bytes()).number(), number, "{word}");
        }
        for word in
            ["", "x", "errors", "information!", "INFO+", "INFO+x", "9", "200", "unbelievably long level"]
        {
            assert_eq!(from_word(word.as_bytes()), Severity::UNSPECIFIED, "{word}");
        }
        assert_eq!(from_serilog(b"Verbose").number(), 1);
    }

    #[test]
    fn numbers_between_pinos_levels_belong_to_the_lower_one() {
        for (level, number) in [
            (9, 0),
            (10, 1),
            (19, 1),
            (20, 5),
            (30, 9),
            (35, 9),
            (40, 13),
            (50, 17),
            (60, 21),
            (99, 21),
            (100, 0),
        ] {
            assert_eq!(from_pino(level).number(), number, "{level}");
        }
    }
}
