//! Prometheus remote write: to Prometheus, Mimir, VictoriaMetrics, Thanos, Cortex, Grafana Cloud.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http;

/// `[sink.remote_write.<name>]`: a receiver of Prometheus remote write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of the receiver, with its path: `https://prometheus.example.com/api/v1/write`.
    pub url: String,
    /// Certificates.
    pub tls: http::Tls,
    /// Credentials.
    pub auth: http::Auth,
}
