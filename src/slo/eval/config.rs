//! `[evaluator]`: whether the agent judges its objectives itself.
//!
//! In: the table. Out: whether it runs, how often, and how fast its time goes. Invariant: an interval that the rules' own
//! look back cannot bridge is refused; so is compressed time wherever somebody might take its alerts for real.

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
    /// How many times faster the evaluator's time goes, 1 to 60: at 60 a second counts as a minute, so that an hour's window
    /// is a minute long and `for: 5m` five seconds. For demonstrations and for trying an objective out, never for production:
    /// above 1 every alert says so in its summary, nothing is written to or read from the state directory, what rules record
    /// goes to no sink, and no Alertmanager may be configured. Evaluations are at most one a second, and requests must be
    /// published often enough for four samples in five of these minutes: `interval` of `[red]` 1s at 60.
    pub compression: u32, // 1
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Mode::Auto, interval: Span::secs(30), compression: 1 }
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
/// Most that time may be compressed: more would leave less than one sample a second in five minutes.
const MOST_COMPRESSION: u32 = 60;
/// Longest time between samples, as the rules see it: four of them in their shortest range.
const MOST_BETWEEN: Duration = Duration::from_secs(75);

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

    /// What is wrong with the compression of time, and the fix: `published` is how often requests are counted, `told` says
    /// that an Alertmanager is to be told of alerts.
    pub fn compression_problem(&self, published: Span, told: bool) -> Option<(String, String)> {
        let factor = self.compression;
        if !(1..=MOST_COMPRESSION).contains(&factor) {
            let message = format!("compression is {factor}; it must be 1 to {MOST_COMPRESSION}");
            return Some((message, "1 is the time of the clock; leave the key out".to_owned()));
        }
        if factor == 1 {
            return None;
        }
        if told {
            let message = format!("time is compressed {factor} times, and an Alertmanager is told of alerts");
            let help = "compressed time is for demonstrations: remove it, or every [alertmanager.<name>]";
            return Some((message, help.to_owned()));
        }
        (published.0.saturating_mul(factor) > MOST_BETWEEN).then(|| {
            let message = format!(
                "five minutes last {} at this compression, and requests are counted every {published}",
                Span::millis(300_000 / u64::from(factor))
            );
            // In whole tenths of a second, down.
            let fits = Span::millis(75_000 / u64::from(factor) / 100 * 100);
            (message, format!("write [red] interval = \"{fits}\" or less, or compress less"))
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
    fn compressed_time_is_refused_where_it_could_be_taken_for_real() {
        let of = |compression, published, told| {
            Config { compression, ..Config::default() }.compression_problem(Span::millis(published), told)
        };
        assert_eq!(of(1, 15_000, true), None);
        assert_eq!(of(60, 1_000, false), None);
        assert_eq!(of(5, 15_000, false), None);
        assert_eq!(
            of(60, 1_000, true),
            Some((
                "time is compressed 60 times, and an Alertmanager is told of alerts".into(),
                "compressed time is for demonstrations: remove it, or every [alertmanager.<name>]".into()
            ))
        );
        assert_eq!(
            of(60, 15_000, false),
            Some((
                "five minutes last 5s at this compression, and requests are counted every 15s".into(),
                "write [red] interval = \"1200ms\" or less, or compress less".into()
            ))
        );
        assert_eq!(
            of(0, 1_000, false).map(|(message, _)| message),
            Some("compression is 0; it must be 1 to 60".into())
        );
        assert_eq!(
            of(61, 1, false).map(|(message, _)| message),
            Some("compression is 61; it must be 1 to 60".into())
        );
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
