//! `[red]`: how rate, errors and durations are derived.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::units::Span;

/// Where requests are counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceSetting {
    /// The workload's own metrics if they have a status and a histogram, else its access lines.
    #[default]
    Auto,
    /// Access lines only.
    Log,
    /// The workloads' own metrics only.
    Scrape,
}

/// `[red]`: rate, errors and duration of every workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Derive them.
    pub enabled: bool,
    /// Where requests are counted from: "auto" (a workload's own metrics if they have a status and a histogram, else its
    /// access lines), "log" or "scrape". One source a workload, so that nothing counts twice.
    pub source: SourceSetting,
    /// How often the figures are published.
    pub interval: Span,
    /// Durations that get a histogram bucket of their own, beside 5 ms to 10 s: `["200ms"]`. Access lines are counted
    /// against them exactly; what an application's own histogram does not have, nobody can know.
    pub thresholds: Vec<Span>,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, source: SourceSetting::Auto, interval: Span::secs(15), thresholds: Vec::new() }
    }
}

impl Config {
    /// Bytes of its page while it is made.
    pub const fn page_bound(&self) -> u64 {
        if self.enabled { super::book::PAGE } else { 0 }
    }

    /// Bytes that RED may hold beside its page: what is counted, and, where anything is scraped, what is remembered of that.
    pub const fn memory_bound(&self, scrapes: bool) -> u64 {
        if !self.enabled {
            return 0;
        }
        super::book::MEMORY + super::recent::MEMORY + if scrapes { super::scraped::MEMORY } else { 0 }
    }

    /// Series that RED publishes at most.
    pub const fn most_series(&self) -> u64 {
        if self.enabled {
            super::book::MAX_CELLS as u64 * 20 + super::book::MAX_OBJECTIVES as u64 * 4
        } else {
            0
        }
    }
}
