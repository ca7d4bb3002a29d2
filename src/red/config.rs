//! `[red]`: how rate, errors and durations are derived.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[red]`: rate, errors and duration of every workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Derive them.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true }
    }
}
