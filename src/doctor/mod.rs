//! `nodewick doctor`: what is wrong with this installation, and how to mend it.
//!
//! In: the config and this machine, the backends and the Kubernetes API, and the running agent's own pages. Out: a
//! [`Report`] of findings, each failing one with its fix. A check is one row of [`CHECKS`]; `docs/reference/doctor.md`
//! is rendered from them. Invariants: nothing is changed beyond a probe file in a state directory that no agent holds;
//! a running agent is only asked for its pages; the whole takes no longer than its slowest check.

mod agent;
mod backend;
mod certificate;
mod clock;
mod cluster;
mod config;
mod disk;
mod host;
mod logs;
mod probe;
mod report;
mod rights;
mod scrape;
pub mod status;
pub mod support;

use std::path::PathBuf;
use std::sync::OnceLock;

use parking_lot::Mutex;

pub(crate) use report::printable;
pub use report::{Colour, Finding, Report, Status};

use crate::admin::client::{Client, Sample};
use crate::config::{Config, Diagnostics, Loaded};

/// When a check is made: those of the network at the same time, those that use what others saw at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Looks at this machine only.
    Local,
    /// Waits for others.
    Network,
    /// Uses what the others saw.
    Last,
}

/// One check: a row of the table.
pub struct Check {
    /// Its name: what stands at the beginning of its lines, and its anchor in the reference.
    pub name: &'static str,
    /// What it looks at.
    pub looks_at: &'static str,
    /// What its warnings and failures mean, and what to do.
    pub means: &'static str,
    /// Made by `--pre` too.
    pub pre: bool,
    /// When it is made.
    pub stage: Stage,
    /// The check itself.
    run: fn(&Site) -> Vec<Finding>,
}

/// Every check, in the order in which they are shown.
pub const CHECKS: &[Check] = &[
    config::CONFIG,
    config::MEMORY,
    agent::AGENT,
    logs::LOG_ROOT,
    logs::LOG_LINKS,
    logs::LOG_FILES,
    disk::STATE_DIR,
    disk::STATE_SPACE,
    host::USER,
    host::INOTIFY,
    host::OPEN_FILES,
    host::KERNEL,
    scrape::HOST,
    backend::SINKS,
    scrape::SCRAPE,
    cluster::API,
    rights::RBAC,
    cluster::NODE,
    rights::RIGHTS,
    cluster::ANNOTATIONS,
    cluster::INSTALL,
    clock::CLOCK,
];

/// What is looked at.
pub struct Site {
    /// The config, or why it cannot be used.
    pub loaded: Result<Loaded, Diagnostics>,
    /// The config's file, as given or found; `None` for the built-in defaults.
    pub file: Option<PathBuf>,
    /// The agent is not installed yet: only what can be known before is looked at.
    pub pre: bool,
    /// Environment variables of this process.
    pub env: Vec<(String, String)>,
    /// `/proc` and `/sys`, or what stands for them in a test.
    pub proc: PathBuf,
    /// See [`proc`](Self::proc).
    pub sys: PathBuf,
    /// Where the agent listens, when that is not what the config says.
    pub address: Option<std::net::SocketAddr>,
    clocks: Mutex<Vec<clock::Seen>>,
    running: OnceLock<Option<Running>>,
    cluster: OnceLock<cluster::Reached>,
    survey: OnceLock<Option<cluster::Survey>>,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

/// The agent that runs here.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its listener.
    pub client: Client,
    /// Its metrics.
    pub metrics: Vec<Sample>,
}

impl Site {
    /// This machine with a config.
    pub fn new(loaded: Result<Loaded, Diagnostics>, file: Option<PathBuf>, pre: bool) -> Self {
        Self {
            loaded,
            file,
            pre,
            env: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            proc: "/proc".into(),
            sys: "/sys".into(),
            address: None,
            clocks: Mutex::default(),
            running: OnceLock::new(),
            cluster: OnceLock::new(),
            survey: OnceLock::new(),
            runtime: OnceLock::new(),
        }
    }

    /// The config; the built-in one while the operator's cannot be used, so that the rest can be looked at.
    pub fn config(&self) -> &Config {
        static BUILT_IN: OnceLock<Config> = OnceLock::new();
        match &self.loaded {
            Ok(loaded) => &loaded.config,
            Err(_) => BUILT_IN.get_or_init(Config::default),
        }
    }

    /// The value of a variable that is set and not empty.
    fn var(&self, name: &str) -> Option<&str> {
        let found = self.env.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The listener of the agent that may run here; `None` when it has none.
    pub(crate) fn client(&self) -> Option<Client> {
        let configured = || self.config().admin.address().ok().flatten();
        Some(Client::new(self.address.or_else(configured)?))
    }

    /// Namespace and name of the pod that this is.
    pub(crate) fn own_pod(&self) -> Option<(&str, &str)> {
        Some((self.var("POD_NAMESPACE")?, self.var("POD_NAME")?))
    }

    /// The agent that runs here and answers; asked once.
    fn running(&self) -> Option<&Running> {
        let look = || {
            let client = self.client()?;
            let metrics = client.metrics().ok()?;
            Some(Running { client, metrics })
        };
        self.running.get_or_init(look).as_ref()
    }

    /// Waits for what is asynchronous. `None` when the system refuses a thread.
    fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        if self.runtime.get().is_none() {
            let made = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let _ = self.runtime.set(made.ok()?);
        }
        Some(self.runtime.get()?.block_on(future))
    }

    /// True inside a pod.
    fn in_pod(&self) -> bool {
        self.var("KUBERNETES_SERVICE_HOST").is_some()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Makes all checks.
pub fn examine(site: &Site) -> Report {
    let wanted: Vec<&Check> = CHECKS.iter().filter(|check| check.pre || !site.pre).collect();
    let mut found: Vec<Vec<Finding>> = wanted.iter().map(|_| Vec::new()).collect();
    // Threads end with the scope: no check outlives the report.
    std::thread::scope(|scope| {
        let mut waiting = Vec::new();
        for (at, check) in wanted.iter().enumerate().filter(|(_, check)| check.stage == Stage::Network) {
            waiting.push((at, scope.spawn(|| (check.run)(site))));
        }
        for (at, check) in wanted.iter().enumerate().filter(|(_, check)| check.stage == Stage::Local) {
            found[at] = (check.run)(site);
        }
        for (at, thread) in waiting {
            found[at] = thread.join().unwrap_or_default();
        }
    });
    for (at, check) in wanted.iter().enumerate().filter(|(_, check)| check.stage == Stage::Last) {
        found[at] = (check.run)(site);
    }
    let mut findings = Vec::new();
    for (check, mut of_check) in wanted.iter().zip(found) {
        for finding in &mut of_check {
            finding.check = check.name;
        }
        findings.append(&mut of_check);
    }
    Report { findings }
}

/// `docs/reference/doctor.md`.
pub fn reference() -> String {
    use std::fmt::Write as _;
    let mut out = String::from(
        "<!-- Rendered from the code by `make render`; change the code, not this file. -->\n\
         # What `nodewick doctor` looks at\n\n\
         `√` is fine, `‼` works but deserves a look, `×` must be mended; the lines below a `‼` or `×` say how. Exit code: 0 \
         when nothing fails (warnings included), 1 when something does, 78 when the config cannot be used. `-o json` gives \
         the same as `{ok, findings: [{check, subject, status, text, fix}]}`.\n\n\
         `--pre` makes the checks marked *before installing*, from a laptop with a kubeconfig or on a node without the \
         agent. Where an agent runs, `doctor` only reads its health and metrics; it never touches its state.\n\n\
         In the cluster: `kubectl -n nodewick exec <pod> -- /nodewick doctor`.\n",
    );
    for check in CHECKS {
        let pre = if check.pre { " *Also before installing.*" } else { "" };
        let _ = write!(out, "\n## {}\n\n{}{pre}\n\n{}\n", check.name, check.looks_at, check.means);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checks_are_anchors_and_unique() {
        let mut names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn every_check_says_what_it_looks_at_and_what_to_do() {
        for check in CHECKS {
            assert!(check.looks_at.ends_with('.') && check.means.ends_with('.'), "{}", check.name);
        }
    }
}
