//! `[host]`: figures of the node and its containers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[host]`: figures of the node and its containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Collect them. In Kubernetes this needs `/proc` and `/sys` of the node mounted, see the how-to page.
    pub enabled: bool,
}
