//! Quantities as people write them in a config file: `64MiB`, `15s`, `10%`, `1000/s`.
//!
//! Every unit is part of the type, so no field is named `timeout_ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written `512B`, `64KiB`, `32MiB`, `1GiB` or with decimal units `1MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A text that is not a quantity of the expected kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not {expected}; write it like {example}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
    example: &'static str,
}

impl ByteSize {
    /// `n` kibibytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The size as a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().ok()?;
    number.is_finite().then_some((number, text[split..].trim_start()))
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.to_owned(), expected: "a size", example: "64MiB" };
        let (number, unit) = number_and_unit(text).ok_or_else(error)?;
        let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        let bytes = number * *factor as f64;
        if bytes > 1e18 {
            return Err(error());
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A span of time, written `150ms`, `15s`, `5m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

impl Span {
    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
}

const TIME_UNITS: [(&str, f64); 5] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.to_owned(), expected: "a duration", example: "15s" };
        let (number, unit) = number_and_unit(text).ok_or_else(error)?;
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        let seconds = number * factor;
        if seconds > 1e10 {
            return Err(error());
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis() as u64;
        for (name, factor) in [("d", 86_400_000_u64), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if millis >= factor && millis.is_multiple_of(factor) {
                return write!(f, "{}{name}", millis / factor);
            }
        }
        write!(f, "{millis}ms")
    }
}

/// A share of a whole, written `10%` or `0.5%`, from `0%` to `100%` in steps of a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent {
    millionths: u32,
}

impl Percent {
    /// All of it.
    pub const ALL: Self = Self { millionths: 1_000_000 };

    /// `percent` in the hundred, at most 100.
    pub const fn whole(percent: u32) -> Self {
        Self { millionths: if percent > 100 { 1_000_000 } else { percent * 10_000 } }
    }

    /// The share as millionths of the whole, 0 to 1,000,000.
    pub const fn millionths(self) -> u32 {
        self.millionths
    }

    /// Largest 64-bit hash that is within the share, `None` for `0%`: hashes are uniform, so keeping what is
    /// at or below it keeps the share.
    pub fn threshold(self) -> Option<u64> {
        if self.millionths == 0 {
            return None;
        }
        let bound = (u128::from(self.millionths) << 64) / 1_000_000;
        Some(u64::try_from(bound - 1).unwrap_or(u64::MAX))
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error =
            || UnitError { text: text.to_owned(), expected: "a share between 0% and 100%", example: "10%" };
        let (number, unit) = number_and_unit(text).ok_or_else(error)?;
        if unit != "%" || !(0.0..=100.0).contains(&number) {
            return Err(error());
        }
        Ok(Self { millionths: (number * 10_000.0).round() as u32 })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.millionths) / 10_000.0)
    }
}

/// A number of events in a period, written `100/s`, `600/m` or `5000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Events allowed in one period.
    pub count: u64,
    /// The period: a second, a minute or an hour.
    pub per: Duration,
}

const PERIODS: [(&str, u64); 3] = [("/s", 1), ("/m", 60), ("/h", 3_600)];

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.to_owned(), expected: "a rate", example: "1000/s" };
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let count = text[..split].parse().map_err(|_| error())?;
        let unit = text[split..].replace(' ', "");
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        Ok(Self { count, per: Duration::from_secs(*seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = PERIODS.iter().find(|(_, s)| *s == self.per.as_secs()).map_or("/s", |(name, _)| name);
        write!(f, "{}{unit}", self.count)
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}
as_text!(ByteSize, "ByteSize", r"^[0-9.]+ *([KMGT]iB|[kKMG]B|B)$");
as_text!(Span, "Span", r"^[0-9.]+ *(ms|s|m|h|d)$");
as_text!(Percent, "Percent", r"^[0-9.]+ *%$");
as_text!(Rate, "Rate", r"^[0-9]+ */ *[smh]$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!("64MiB".parse(), Ok(ByteSize::mib(64)));
        assert_eq!("1.5KiB".parse(), Ok(ByteSize(1536)));
        assert_eq!("1MB".parse(), Ok(ByteSize(1_000_000)));
        assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
        assert!("64".parse::<ByteSize>().is_err(), "a size needs its unit");
    }

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!("150ms".parse(), Ok(Span::millis(150)));
        assert_eq!("1.5s".parse(), Ok(Span::millis(1500)));
        assert_eq!(Span::secs(3600).to_string(), "1h");
        let error = "15".parse::<Span>().expect_err("no unit");
        assert_eq!(error.to_string(), "\"15\" is not a duration; write it like 15s");
    }

    #[test]
    fn shares_and_rates_read_as_people_write_them() {
        assert_eq!("10%".parse::<Percent>().map(Percent::millionths), Ok(100_000));
        assert_eq!("0.5 %".parse::<Percent>().map(|p| p.to_string()), Ok("0.5%".to_owned()));
        assert_eq!("100%".parse::<Percent>().map(Percent::threshold), Ok(Some(u64::MAX)));
        assert_eq!("0%".parse::<Percent>().map(Percent::threshold), Ok(None));
        assert_eq!("50%".parse::<Percent>().map(Percent::threshold), Ok(Some((1 << 63) - 1)));
        let error = "110%".parse::<Percent>().expect_err("more than all");
        assert_eq!(error.to_string(), "\"110%\" is not a share between 0% and 100%; write it like 10%");
        assert_eq!("600/m".parse(), Ok(Rate { count: 600, per: Duration::from_secs(60) }));
        assert_eq!("1000 / s".parse::<Rate>().map(|r| r.to_string()), Ok("1000/s".to_owned()));
        assert!("1000".parse::<Rate>().is_err(), "a rate needs its period");
        assert!("0.5/s".parse::<Rate>().is_err(), "half an event does not happen: write 30/m");
    }
}
