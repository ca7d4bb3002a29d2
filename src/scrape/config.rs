//! `[scrape]`: what is scraped, how often, within which limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::units::{ByteSize, Span};

/// Which pods are scraped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None. Static targets still are.
    Off,
    /// Those with `prometheus.io/scrape: "true"`.
    #[default]
    Annotated,
    /// Those, and every pod with a port named `metrics` or `http-metrics`, unless it says `prometheus.io/scrape: "false"`.
    All,
}

/// `[scrape]`: how metrics are collected from pods and from addresses that you name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which pods of this node are scraped: "off", "annotated" (those with `prometheus.io/scrape: "true"`) or "all" (also
    /// those with a port named `metrics` or `http-metrics`).
    pub mode: Mode,
    /// How often each target is scraped.
    pub interval: Span,
    /// How long one scrape may take, body included; never longer than the interval.
    pub timeout: Span,
    /// Largest body of one scrape, decompressed.
    pub body_limit: ByteSize,
    /// Samples of one scrape. A target that exposes more is not scraped at all, so that nothing is missing unnoticed.
    pub sample_limit: u64,
    /// Labels of one sample.
    pub label_limit: u64,
    /// Length of the name of a metric or a label in bytes.
    pub name_limit: u64,
    /// Length of a label's value in bytes.
    pub label_value_limit: u64,
    /// Series of all targets together. Above it known series go on, and new ones are refused and counted.
    pub series_limit: u64,
    /// Bodies that are being read at the same time may hold this much together.
    pub memory: ByteSize,
    /// Targets by address, beside the pods: `[[scrape.static]] targets = ["127.0.0.1:3000"]`.
    #[serde(rename = "static")]
    pub fixed: Vec<Static>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Annotated,
            interval: Span::secs(30),
            timeout: Span::secs(10),
            body_limit: ByteSize::mib(16),
            sample_limit: 20_000,
            label_limit: 64,
            name_limit: 256,
            label_value_limit: 1024,
            series_limit: 200_000,
            memory: ByteSize::mib(32),
            fixed: Vec::new(),
        }
    }
}

/// `[[scrape.static]]`: targets by address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Static {
    /// Addresses with ports: `127.0.0.1:3000`.
    pub targets: Vec<String>,
}
