//! How much must be good, and over how long.
//!
//! In: text such as `99.95%` and `30d`. Out: [`Objective`], [`Window`]. Invariant: an objective is above 0 and below 1 by
//! construction, so a budget is never zero and never everything.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::number::{percent, shortest, tidy};

/// The share of events that must be good: above 0, below 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Objective(f64);

/// A text that is no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectiveError {
    /// No number with a percent sign.
    #[error("{0:?} is not an objective; write it as a percentage like \"99.95%\"")]
    NoPercentage(String),
    /// A number without a percent sign.
    #[error("{0:?} has no percent sign; write {1:?}")]
    NoUnit(String, String),
    /// 0 % or less.
    #[error(
        "an objective of {0} asks for nothing, so nothing could ever miss it; write one above 0% like \"99.9%\""
    )]
    Nothing(String),
    /// 100 %.
    #[error(
        "an objective of {0} leaves no error budget to burn; write the failures you accept, like \"99.95%\""
    )]
    NoBudget(String),
    /// More than 100 %.
    #[error("an objective of {0} is more than all requests; write one below 100% like \"99.95%\"")]
    Beyond(String),
    /// Finer than a ten-millionth.
    #[error("{0} is finer than can be measured; write at most \"99.99999%\"")]
    TooFine(String),
}

/// Least share of bad events that an objective may leave: one request of ten millions.
const LEAST_BUDGET: f64 = 1e-7;

impl Objective {
    /// The objective as a share: 0.9995.
    pub const fn ratio(self) -> f64 {
        self.0
    }

    /// The share that may be bad: 0.0005 of 0.9995.
    pub fn budget(self) -> f64 {
        left(self.0)
    }
}

/// What a share leaves, to a millionth of a millionth: the difference of doubles is exact to no more.
fn left(share: f64) -> f64 {
    tidy(((1.0 - share) * 1e12).round() / 1e12)
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, ObjectiveError> {
        let text = text.trim();
        let wrong = || ObjectiveError::NoPercentage(text.to_owned());
        let number = |text: &str| {
            let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-');
            text.parse::<f64>().ok().filter(|value| plain && value.is_finite())
        };
        let Some(digits) = text.strip_suffix('%') else {
            let value = number(text).ok_or_else(wrong)?;
            let hundred = if value <= 1.0 { value * 100.0 } else { value };
            return Err(ObjectiveError::NoUnit(text.to_owned(), format!("{}%", shortest(hundred))));
        };
        let value = number(digits.trim()).ok_or_else(wrong)?;
        if value <= 0.0 {
            Err(ObjectiveError::Nothing(text.to_owned()))
        } else if value > 100.0 {
            Err(ObjectiveError::Beyond(text.to_owned()))
        } else if value >= 100.0 {
            Err(ObjectiveError::NoBudget(text.to_owned()))
        } else if left(tidy(value / 100.0)) < LEAST_BUDGET {
            Err(ObjectiveError::TooFine(text.to_owned()))
        } else {
            Ok(Self(tidy(value / 100.0)))
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&percent(self.0))
    }
}

impl<'de> Deserialize<'de> for Objective {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Objective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Objective {
    fn schema_name() -> Cow<'static, str> {
        "Objective".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": r"^[0-9.]+ *%$", "examples": ["99.9%"]})
    }
}

/// The rolling period over which the objective holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum Window {
    /// A week.
    #[serde(rename = "7d")]
    D7,
    /// Four weeks: each has the same weekdays.
    #[serde(rename = "28d")]
    D28,
    /// Thirty days.
    #[default]
    #[serde(rename = "30d")]
    D30,
    /// A quarter.
    #[serde(rename = "90d")]
    D90,
}

impl Window {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::D7, Self::D28, Self::D30, Self::D90];

    /// Length in days.
    pub const fn days(self) -> u32 {
        match self {
            Self::D7 => 7,
            Self::D28 => 28,
            Self::D30 => 30,
            Self::D90 => 90,
        }
    }

    /// Length in minutes.
    pub const fn minutes(self) -> u32 {
        self.days() * 1_440
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}d", self.days())
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        Self::ALL
            .into_iter()
            .find(|window| window.to_string() == text)
            .ok_or_else(|| format!("{text:?} is no window; write 7d, 28d, 30d or 90d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Objective>().expect_err(text).to_string()
    }

    #[test]
    fn objectives_read_as_people_write_them() {
        let objective: Objective = "99.95%".parse().expect("an objective");
        assert_eq!((objective.ratio(), objective.budget()), (0.9995, 0.0005));
        assert_eq!(objective.to_string(), "99.95%");
        assert_eq!("99 %".parse::<Objective>().expect("with a space").to_string(), "99%");
        assert_eq!("99.999%".parse::<Objective>().expect("five nines").budget(), 0.00001);
    }

    #[test]
    fn what_is_no_objective_says_what_to_write() {
        assert_eq!(
            error("0%"),
            "an objective of 0% asks for nothing, so nothing could ever miss it; write one above 0% like \"99.9%\""
        );
        assert_eq!(
            error("100%"),
            "an objective of 100% leaves no error budget to burn; write the failures you accept, like \"99.95%\""
        );
        assert_eq!(
            error("120%"),
            "an objective of 120% is more than all requests; write one below 100% like \"99.95%\""
        );
        assert_eq!(error("99.95"), "\"99.95\" has no percent sign; write \"99.95%\"");
        assert_eq!(error("0.9995"), "\"0.9995\" has no percent sign; write \"99.95%\"");
        assert_eq!(error("high"), "\"high\" is not an objective; write it as a percentage like \"99.95%\"");
        for text in ["-1%", "", "%", "NaN%", "inf%", "1e1%", "99.9%%", "99.999999999%"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }

    #[test]
    fn windows_are_a_closed_set() {
        assert_eq!("28d".parse::<Window>(), Ok(Window::D28));
        assert_eq!(Window::D90.minutes(), 129_600);
        assert_eq!(
            "14d".parse::<Window>(),
            Err("\"14d\" is no window; write 7d, 28d, 30d or 90d".to_owned())
        );
    }
}
