//! A target: where to scrape, how, and what its series carry.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::sample::Origin;

/// The pod behind a target, to be looked at again before each dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodAddress {
    /// The pod's uid in [`crate::data::pods::Pods`].
    pub uid: String,
    /// The address that the API gave for it.
    pub ip: IpAddr,
}

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In clear text.
    #[default]
    Http,
    /// With TLS. A pod's certificate is rarely for its address: it is not verified, and no credential is ever sent.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that says none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Where to scrape, how, and what its series carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What its series carry.
    pub origin: Arc<Origin>,
    /// http or https.
    pub scheme: Scheme,
    /// Host name or IP address (IPv6 without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
    /// The pod, for a target that annotations made; `None` for one that the operator named.
    pub pod: Option<PodAddress>,
    /// How often.
    pub interval: Duration,
    /// How long one scrape may take; at most the interval.
    pub timeout: Duration,
    /// A label of the target's own wins over ours, instead of being renamed `exported_*`.
    pub honor_labels: bool,
    /// Times that the target says are taken.
    pub honor_timestamps: bool,
}

impl Target {
    /// Host and port as in a URL.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL, for people.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.word(), self.address(), self.path)
    }
}
