//! From `/metrics` of pods to final pages of samples.
//!
//! ```text
//! pods, static ► targets ► guard ► fetch ► exposition ► series ═► Output (raw page for RED, final page for sinks)
//! ```
//!
//! `fetch` and its pacing run on tokio; everything behind a fetched body is sync, in one thread that owns all series.

pub mod config;
pub mod exposition;
pub mod fetch;
pub mod guard;
pub mod pace;
pub mod relabel;
pub mod series;
pub mod status;
pub mod target;
pub mod targets;

pub use config::Config;

use std::sync::Arc;
use std::time::Duration;

use crate::data::sample::{Origin, Page};
use target::Target;

/// In which language a target answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Prometheus text format 0.0.4, and what says nothing of itself.
    Text,
    /// OpenMetrics 1.0 text.
    OpenMetrics,
    /// Prometheus' delimited protobuf.
    Protobuf,
}

/// A body as it was fetched, decompressed.
#[derive(Debug)]
pub struct Body {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its language, by its content type.
    pub dialect: Dialect,
}

/// What came of one scrape of a target, for the thread that owns the series.
#[derive(Debug)]
pub struct Fetched {
    /// The target.
    pub target: Arc<Target>,
    /// The tick, milliseconds since the epoch: the time of all samples without one of their own.
    pub time_unix_ms: i64,
    /// How long it took.
    pub took: Duration,
    /// The body, or why there is none.
    pub body: Result<Body, Failure>,
}

/// What the thread that owns the series is told.
#[derive(Debug)]
pub enum Event {
    /// A scrape has ended.
    Fetched(Fetched),
    /// A target is no more: two ticks and a tenth after it went, its series end, at the first tick that it missed.
    Removed {
        /// The target.
        target: Arc<Target>,
        /// The first tick that it missed, milliseconds since the epoch.
        time_unix_ms: i64,
    },
}

/// Why a scrape gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Not done in time, body included.
    #[error("not answered within {0:?}; the endpoint hangs, or raise [scrape] timeout")]
    Timeout(Duration),
    /// Another status than 200.
    #[error("the target answers {0}; check prometheus.io/path")]
    Status(u16),
    /// The body is larger than allowed, decompressed.
    #[error("the body is larger than {0} bytes; raise [scrape] body_limit, or expose less")]
    TooLarge(u64),
    /// The body breaks off or cannot be decompressed.
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// What it answers is no exposition.
    #[error("the target does not answer in a metrics format: {0}")]
    ContentType(String),
    /// The exposition is malformed.
    #[error("line {line}, column {column}: {what}")]
    Malformed {
        /// Line, from 1; the message's number in protobuf.
        line: u64,
        /// Column in bytes, from 1.
        column: u64,
        /// What is wrong.
        what: String,
    },
    /// A limit of the page is exceeded: samples, labels, lengths.
    #[error("{what} is above the limit of {limit}; raise [scrape] {key}, or expose less")]
    Limit {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The key in `[scrape]`.
        key: &'static str,
    },
    /// A rule takes the name of a series away.
    #[error("a rule leaves a series without a name; keep __name__ in [[scrape.metric_relabel]]")]
    Nameless,
    /// All bodies together hold more memory than allowed, and this one is among the large ones.
    #[error("all bodies being read together hold more memory than [scrape] memory allows")]
    Memory,
    /// The address is no longer the pod's.
    #[error("the address is no longer that of the pod")]
    Moved,
}

impl Failure {
    /// The reason as a label value: one word of a closed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge(_) => "body_too_large",
            Self::Body(_) => "body",
            Self::ContentType(_) => "content_type",
            Self::Malformed { .. } => "malformed",
            Self::Limit { .. } => "limit",
            Self::Nameless => "nameless",
            Self::Memory => "memory",
            Self::Moved => "moved",
        }
    }
}

/// Where pages go once a scrape has been read.
pub trait Output {
    /// The target's own words, before any relabelling: no `__name__` among the labels, no target labels, no times but the
    /// target's own. For RED.
    fn raw(&mut self, target: &Arc<Target>, page: &Page, time_unix_ms: i64);

    /// A final page, for sinks: see [`crate::data::sample::Collect`].
    fn page(&mut self, origin: &Arc<Origin>, page: &Page);

    /// No further page of it comes.
    fn forget(&mut self, origin: &Arc<Origin>);
}
