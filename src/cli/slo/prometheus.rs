//! How `suggest` and `backtest` reach Prometheus, and what they show while they wait.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use nodewick::data::units::Span;
use nodewick::history::{Api, Config};

/// The server that has the history.
#[derive(Debug, Args)]
pub(in crate::cli) struct Server {
    /// Prometheus, Mimir, Thanos or VictoriaMetrics: http://prometheus:9090. User information is not shown.
    #[arg(long, value_name = "URL", env = "NODEWICK_PROMETHEUS", hide_env_values = true)]
    prometheus: String,
    /// File with a bearer token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the certificates to trust.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Tenant, sent as X-Scope-OrgID.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Limit on each request.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Span,
}

impl Server {
    pub(super) fn api(&self) -> anyhow::Result<Api> {
        if self.timeout.0 < Duration::from_millis(100) {
            anyhow::bail!("--timeout {} is too short for any answer; give one like 60s", self.timeout);
        }
        Ok(Api::new(&Config {
            url: self.prometheus.clone(),
            timeout: self.timeout.0,
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
            tenant: self.tenant.clone(),
        })?)
    }
}

/// A runtime for a few requests.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// Seconds since the epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

/// One line on stderr that says how far it is; nothing where nobody looks.
pub(super) struct Progress {
    what: String,
    shown: bool,
}

impl Progress {
    pub(super) fn new(what: &str) -> Self {
        let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { what: what.to_owned(), shown: std::io::stderr().is_terminal() && !colourless }
    }

    pub(super) fn show(&self, done: usize, all: usize) {
        const WIDTH: usize = 24;
        if self.shown {
            let filled = (done * WIDTH).checked_div(all).unwrap_or(WIDTH).min(WIDTH);
            let bar = format!("{}{}", "━".repeat(filled), "╌".repeat(WIDTH - filled));
            // A terminal that went away is no reason to end.
            let _ = write!(std::io::stderr(), "\r{bar} {done}/{all} requests, {}\u{1b}[K", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}
