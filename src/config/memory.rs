//! How much memory the agent may use at most, and how much its container grants.
//!
//! In: a [`Config`] and the cgroup files. Out: a sum of named terms, and the limit to hold it against.
//! Invariant: every queue and buffer with a stated limit has its term here.

use std::fmt;
use std::path::Path;

use super::{Config, kube, process};
use crate::data::units::ByteSize;
use crate::sink::otlp::Signal;

/// What the agent may hold in memory at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBound {
    /// What holds it, and bytes.
    pub terms: Vec<(String, u64)>,
}

/// Bytes for the program itself: code that is paged in, thread stacks, TLS roots, the metrics table, allocator slack.
/// An estimate on the safe side of what an idle agent shows as resident.
const PROGRAM: u64 = 16 << 20;
/// Bytes that a connection to the machines' listener may hold: request head, rendered page.
const ADMIN_CONNECTION: u64 = 64 << 10;

/// What is remembered of one container log: 20 KiB of trace ids by request id where lines have both, the framer, the
/// ledger, the open file.
const LOG_STATE: u64 = 22 << 10;
/// What is kept of a pod: its labels and annotations, stripped and as resolved, and how its logs are treated.
const POD_STATE: u64 = 16 << 10;
/// One object of the watch in pieces and whole. etcd takes 1.5 MiB at most.
const POD_OBJECT: u64 = 2 * (3 << 19);
/// Lines at the line limit that are being joined at the same time.
const JOINED_LINES: u64 = 16;
/// Read buffers that wait to be used again: an arena and its records each.
const POOLED_BUFFERS: u64 = 8 * (384 << 10);

/// A page of host figures: 250 containers with 40 series each, 256 bytes a sample.
const HOST_PAGE: u64 = 250 * 40 * 256;

/// Compressed bodies under way and the one being made, each at most a fifth above the bytes of its lines should nothing
/// compress; and the body being encoded, of which metadata and labels at most triple the bytes of lines. What is repeated
/// in each line leaves little in the compressed form.
fn requests(limits: &crate::sink::lane::Config) -> u64 {
    (limits.in_flight as u64 + 1) * limits.max_request.0 / 5 * 6 + 3 * limits.max_request.0
}

/// Adds up the bound of `config`.
pub(super) fn bound(config: &Config) -> MemoryBound {
    let mut terms = vec![
        ("program".to_owned(), PROGRAM),
        ("log data in flight ([agent] memory)".to_owned(), config.agent.memory.0),
    ];
    let mut add = |owner: String, what: &str, bytes: u64| terms.push((format!("{owner}: {what}"), bytes));
    add("logs".to_owned(), "state of 250 container logs", 250 * LOG_STATE);
    if config.kube.effective_mode() != kube::Mode::Path {
        add("kube".to_owned(), "250 pods and the object being read", 250 * POD_STATE + POD_OBJECT);
    }
    add("logs".to_owned(), "lines being joined", JOINED_LINES * config.logs.max_line.0);
    add("logs".to_owned(), "stack traces being joined", JOINED_LINES * config.logs.max_line.0);
    add("logs".to_owned(), "pooled read buffers", POOLED_BUFFERS);
    if config.logs.spill.budget.0 > 0 {
        add("logs".to_owned(), "spill: cached frames and index", config.logs.spill.memory_bound());
    }
    if let Ok(chain) = process::Chain::compile(&config.process) {
        add("process".to_owned(), "rate limit keys", chain.memory_bound() as u64);
    }
    // Where nobody is asked for pods there are static targets only.
    let has_pods = config.kube.effective_mode() != kube::Mode::Path;
    let scrapes = config.scrape.is_on() && (has_pods || !config.scrape.fixed.is_empty());
    for (what, bytes) in config.scrape.memory_bound().into_iter().filter(|_| scrapes) {
        add("scrape".to_owned(), what, bytes);
    }
    if config.red.enabled {
        add(
            "red".to_owned(),
            "counters and what is remembered of scraped series",
            config.red.memory_bound(scrapes),
        );
    }
    // One thread makes all pages, one at a time, and a page far larger than others leaves no memory behind.
    let host = if config.host.enabled { HOST_PAGE } else { 0 };
    let scraped = if scrapes { config.scrape.page_bound() } else { 0 };
    let page = scraped.max(config.red.page_bound()).max(host);
    if page > 0 {
        add("metrics".to_owned(), "the page being made", page);
    }
    if config.evaluates().is_ok() {
        let bytes = crate::slo::eval::memory_bound(config.slo.specs().iter());
        add("evaluator".to_owned(), "samples and slices of objectives", bytes);
    }
    for (name, sink) in &config.sink.loki {
        add(format!("sink.loki.{name}"), "requests being encoded and sent", requests(&sink.limits));
    }
    for (name, sink) in &config.sink.otlp {
        if sink.takes(Signal::Logs) {
            add(format!("sink.otlp.{name}"), "requests being encoded and sent", requests(&sink.limits));
        }
        for (what, bytes) in sink.metrics.memory_bound().into_iter().filter(|_| sink.takes(Signal::Metrics)) {
            add(format!("sink.otlp.{name}"), what, bytes);
        }
    }
    for (name, sink) in &config.sink.remote_write {
        for (what, bytes) in sink.memory_bound() {
            add(format!("sink.remote_write.{name}"), what, bytes);
        }
    }
    for name in config.sink.stdout.keys() {
        add(format!("sink.stdout.{name}"), "lines being written", 1 << 20);
    }
    for (name, sink) in config.sink.stores() {
        add(format!("sink.local.{name}"), "lines being written", sink.memory_bound().0);
    }
    if config.admin.is_on() {
        let bytes = crate::admin::CONNECTIONS as u64 * ADMIN_CONNECTION;
        add("admin".to_owned(), "connections", bytes);
        if config.admin.keeps_workloads(config.sink.takes_metrics()) {
            // RED and the host are a source each.
            let fixed: u64 = config.scrape.fixed.iter().map(|of| of.targets.len() as u64).sum();
            let (series, sources) = match (scrapes, has_pods) {
                (false, _) => (0, 2),
                (true, false) => {
                    (config.scrape.series_limit.min(fixed * config.scrape.sample_limit), fixed + 2)
                }
                (true, true) => (config.scrape.series_limit, 250),
            };
            let bytes = crate::sink::pull::memory_bound(series + config.red.most_series(), sources);
            add("admin".to_owned(), "/metrics/workloads", bytes);
        }
    }
    if config.ui.is_on(config.ui.wanted_in_run(!has_pods)) {
        add("ui".to_owned(), "connections and what is kept up to date on them", crate::ui::MEMORY_BOUND);
        add("ui".to_owned(), "live lines for viewers", crate::live::MEMORY_BOUND);
        if config.red.enabled {
            add("ui".to_owned(), "history of services", crate::red::recent::MEMORY_OF_PAGE);
        }
        add("ui".to_owned(), "searches", crate::search::MEMORY_BOUND);
    }
    MemoryBound { terms }
}

/// The bound does not fit what the container grants.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the memory bound of {bound} is above the container's limit of {limit}; the largest term is {term} with \
     {largest}: lower it, or raise the limit"
)]
pub struct TooLarge {
    bound: Human,
    limit: Human,
    term: String,
    largest: Human,
}

impl MemoryBound {
    /// The sum of the terms.
    pub fn total(&self) -> u64 {
        self.terms.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The largest term that an operator can change; the program itself is not one.
    pub fn largest(&self) -> Option<&(String, u64)> {
        self.terms.iter().filter(|(name, _)| name != "program").max_by_key(|(_, bytes)| *bytes)
    }

    /// Holds the bound against `limit` bytes.
    pub fn fits(&self, limit: Option<u64>) -> Result<(), TooLarge> {
        let Some(limit) = limit else { return Ok(()) };
        let bound = self.total();
        if bound <= limit {
            return Ok(());
        }
        let (term, largest) = self.largest().cloned().unwrap_or_default();
        Err(TooLarge { bound: Human(bound), limit: Human(limit), term, largest: Human(largest) })
    }
}

/// Bytes with one decimal in the largest unit that keeps them readable: `61.2 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor {
                let value = self.0 as f64 / factor as f64;
                return if self.0.is_multiple_of(factor) {
                    write!(f, "{value} {unit}")
                } else {
                    write!(f, "{value:.1} {unit}")
                };
            }
        }
        write!(f, "{}", ByteSize(self.0))
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.terms.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, bytes) in &self.terms {
            writeln!(f, "{name:width$}  {:>10}", Human(*bytes).to_string())?;
        }
        write!(f, "{:width$}  {:>10}", "total", Human(self.total()).to_string())
    }
}

/// The memory limit of this process's cgroup, v2 or v1; `None` when there is none.
///
/// Source: kernel `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`) and `cgroup-v1/memory.rst`.
pub fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_below(Path::new("/sys/fs/cgroup"), &own)
}

/// The tightest limit from the cgroup named in `own` (`/proc/self/cgroup`) up to `root`.
fn limit_below(root: &Path, own: &str) -> Option<u64> {
    let mut tightest: Option<u64> = None;
    for line in own.lines().take(64) {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (base, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let relative = Path::new(path.trim_start_matches('/'));
        // In a container the path may be the host's, which is not mounted: then only the root itself is there.
        let safe = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let start = if safe { base.join(relative) } else { base.clone() };
        for directory in start.ancestors().take_while(|directory| directory.starts_with(&base)) {
            let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
            // v1 writes "no limit" as the largest page-aligned number, v2 as `max`.
            if let Some(limit) = text.trim().parse::<u64>().ok().filter(|limit| *limit < 1 << 60) {
                tightest = Some(tightest.map_or(limit, |known| known.min(limit)));
            }
        }
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn without_page() -> Config {
        let mut config = Config::default();
        config.ui.listen = "off".to_owned();
        config
    }

    #[test]
    fn a_page_that_nobody_asked_for_gives_way_before_the_agent_does() {
        let mut config = Config::default();
        config.kube.mode = kube::Mode::Path;
        let with_page = config.memory_bound().total();
        let mut off = without_page();
        off.kube.mode = kube::Mode::Path;
        let limit = off.memory_bound().total();
        assert!(with_page - limit > 24 << 20, "the page costs more than the log memory could give");
        assert_eq!((config.fit(Some(limit)), config.ui.listen.as_str()), (None, "off"));
        assert!(config.memory_bound().fits(Some(limit)).is_ok());
        // Who asks for it gets it, or an error.
        config.ui.listen = "127.0.0.1:9465".to_owned();
        assert_eq!((config.fit(Some(limit)), config.ui.listen.as_str()), (None, "127.0.0.1:9465"));
        assert!(config.memory_bound().fits(Some(limit)).is_err());
        // Where it does not help it stays as it was.
        config.ui.listen = "auto".to_owned();
        assert_eq!((config.fit(Some(1 << 20)), config.ui.listen.as_str()), (None, "auto"));
    }

    #[test]
    fn the_default_log_memory_gives_way_to_a_small_container_and_a_configured_one_does_not() {
        let mut config = without_page();
        let total = config.memory_bound().total();
        assert_eq!(config.fit(None), None);
        assert_eq!(config.fit(Some(total)), None);
        assert_eq!(config.fit(Some(total - 1)), Some(ByteSize::mib(31)));
        assert!(config.memory_bound().fits(Some(total - 1)).is_ok());
        let mut config = without_page();
        assert_eq!(config.fit(Some(total - (24 << 20))), Some(ByteSize::mib(8)));
        let mut config = without_page();
        assert_eq!(
            config.fit(Some(total - (25 << 20))),
            None,
            "with less it would make no progress worth the name"
        );
        let mut config = without_page();
        config.agent.memory = ByteSize::mib(33);
        assert_eq!(config.fit(Some(1 << 20)), None);
        // What the manifests grant holds a node's pods, Loki and a receiver of samples.
        let mut config = Config::default();
        config.kube.mode = kube::Mode::Api;
        config.sink.loki.insert("main".into(), Default::default());
        config.sink.remote_write.insert("main".into(), Default::default());
        let _ = config.fit(Some(128 << 20));
        assert!(config.memory_bound().fits(Some(128 << 20)).is_ok(), "{}", config.memory_bound());
    }

    #[test]
    fn default_bound_is_at_most_120_mib() {
        let mut config = Config::default();
        config.sink.local.insert("default".to_owned(), Default::default());
        let total = config.memory_bound().total();
        assert!(total <= 120 << 20, "{}", config.memory_bound());
        assert!(total > 32 << 20);
    }

    #[test]
    fn a_bound_above_the_limit_names_the_largest_term() {
        let bound = MemoryBound { terms: vec![("program".into(), 100 << 20), ("queue".into(), 64 << 20)] };
        assert_eq!(bound.fits(None), Ok(()));
        assert_eq!(bound.fits(Some(164 << 20)), Ok(()));
        assert_eq!(
            bound.fits(Some(128 << 20)).expect_err("too large").to_string(),
            "the memory bound of 164 MiB is above the container's limit of 128 MiB; the largest term is queue with \
             64 MiB: lower it, or raise the limit"
        );
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().expect("temp dir");
        let pod = root.path().join("kubepods/pod1");
        fs::create_dir_all(pod.join("c1")).expect("made");
        fs::write(pod.join("c1/memory.max"), "max\n").expect("written");
        fs::write(pod.join("memory.max"), "134217728\n").expect("written");
        assert_eq!(limit_below(root.path(), "0::/kubepods/pod1/c1\n"), Some(134_217_728));
        assert_eq!(limit_below(root.path(), "0::/elsewhere\n"), None);
        assert_eq!(limit_below(root.path(), "0::/../../escape\n"), None);
    }

    #[test]
    fn the_first_cgroup_version_is_read_too() {
        let root = tempfile::tempdir().expect("temp dir");
        let own = "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n";
        fs::create_dir_all(root.path().join("memory")).expect("made");
        fs::write(root.path().join("memory/memory.limit_in_bytes"), "9223372036854771712").expect("written");
        assert_eq!(limit_below(root.path(), own), None);
        fs::write(root.path().join("memory/memory.limit_in_bytes"), "67108864").expect("written");
        assert_eq!(limit_below(root.path(), own), Some(67_108_864));
    }
}
