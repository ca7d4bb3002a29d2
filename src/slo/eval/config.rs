//! `[evaluator]`: whether the agent judges its objectives itself.
//!
//! In: the table. Out: whether it runs, and how often. Invariant: an interval that the rules' own look back cannot bridge is
//! refused.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::units::Span;

/// `[evaluator]`: burn rates judged by the agent itself, where no Prometheus does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// "auto": on where there are objectives and no sink takes metrics, since whoever takes them evaluates the rendered
    /// rules; "on": also beside such a sink, which then must not evaluate the same rules; "off".
    pub mode: Mode, // auto
    /// Time between two evaluations. The rules are made for 30s.
    pub interval: Span, // 30s
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Mode::Auto, interval: Span::secs(30) }
    }
}

/// Whether the evaluator runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where there are objectives and no sink takes metrics.
    #[default]
    Auto,
    /// Where there are objectives.
    On,
    /// Never.
    Off,
}

/// Shortest and longest time between two evaluations.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

impl Config {
    /// What is wrong with the interval.
    pub fn problem(&self) -> Option<String> {
        let given = self.interval.0;
        let is_whole = given.subsec_nanos() == 0 && 300 % given.as_secs().max(1) == 0;
        (given < INTERVALS.0 || given > INTERVALS.1 || !is_whole).then(|| {
            format!(
                "interval is {}; it must be 5s to 60s and a part of five minutes, like 10s, 15s or 30s",
                self.interval
            )
        })
    }

    /// Whether it runs: `objectives` are how many there are, `sent` says that a sink takes metrics.
    pub fn runs(&self, objectives: usize, sent: bool) -> Result<(), &'static str> {
        match self.mode {
            Mode::Off => Err("[evaluator] mode is \"off\""),
            _ if objectives == 0 => Err("no objectives are declared; write [slo.<name>]"),
            Mode::Auto if sent => Err(
                "a sink takes metrics, so whoever receives them evaluates the rendered rules; [evaluator] mode = \"on\" \
                     evaluates here as well",
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_where_nobody_else_evaluates() {
        let of = |mode| Config { mode, ..Config::default() };
        assert_eq!(of(Mode::Auto).runs(1, false), Ok(()));
        assert!(of(Mode::Auto).runs(1, true).expect_err("sent").contains("mode = \"on\""));
        assert!(of(Mode::Auto).runs(0, false).expect_err("nothing").contains("no objectives"));
        assert_eq!(of(Mode::On).runs(1, true), Ok(()));
        assert!(of(Mode::Off).runs(1, false).is_err());
    }

    #[test]
    fn intervals_that_are_no_part_of_five_minutes_are_refused() {
        let of = |seconds| Config { interval: Span::secs(seconds), ..Config::default() }.problem();
        assert_eq!((of(30), of(10), of(5), of(60)), (None, None, None, None));
        assert_eq!(
            of(7).as_deref(),
            Some("interval is 7s; it must be 5s to 60s and a part of five minutes, like 10s, 15s or 30s")
        );
        assert!(of(0).is_some() && of(1).is_some() && of(300).is_some());
    }
}
