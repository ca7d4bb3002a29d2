//! `[scrape]`: what is scraped, how often, within which limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::relabel;
use super::target::Scheme;
use super::targets::fixed;
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
    /// How often each target is scraped; 1s at least.
    pub interval: Span,
    /// How long one scrape may take, body included; never longer than the interval.
    pub timeout: Span,
    /// Scrape pods that share the node's network too. Off, since an annotation on such a pod can name any port of the node.
    pub host_network: bool,
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
    /// Bodies that are being read at the same time may hold this much together; above it those beyond 1MiB are given up.
    /// One body alone may always be as large as `body_limit`. Raise it for many targets with pages of several MiB, together
    /// with the memory limit of the pod.
    pub memory: ByteSize,
    /// Ask for Prometheus' protobuf format, the only one with native histograms. It costs targets and agent more than text.
    pub native_histograms: bool,
    /// Addresses that no pod's target may have, as ranges: `["10.96.0.0/12"]`. Loopback, link-local and metadata addresses,
    /// the node's own and the API server are denied in any case, and the cluster's service range where the API server's
    /// address tells it (kubeadm, k3s, EKS, AKS, GKE, OpenShift, MicroK8s).
    pub deny: Vec<String>,
    /// Certificates of static targets with https.
    pub tls: Tls,
    /// Targets by address, beside the pods: `[[scrape.static]] targets = ["127.0.0.1:3000"]`.
    #[serde(rename = "static")]
    pub fixed: Vec<Static>,
    /// Rules for targets, in Prometheus' `relabel_configs` vocabulary: they see `__address__`, `__scheme__`,
    /// `__metrics_path__`, `__param_*` and `__meta_kubernetes_*`, and may drop a target or set its labels.
    pub relabel: Vec<relabel::Config>,
    /// Rules for samples, in Prometheus' `metric_relabel_configs` vocabulary: they see all labels of a sample and
    /// `__name__`, and may drop it or change them.
    pub metric_relabel: Vec<relabel::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Annotated,
            interval: Span::secs(30),
            timeout: TIMEOUT,
            host_network: false,
            body_limit: ByteSize::mib(16),
            sample_limit: 20_000,
            label_limit: 64,
            name_limit: 256,
            label_value_limit: 1024,
            series_limit: 200_000,
            memory: ByteSize::mib(16),
            native_histograms: false,
            deny: Vec::new(),
            tls: Tls::default(),
            fixed: Vec::new(),
            relabel: Vec::new(),
            metric_relabel: Vec::new(),
        }
    }
}

/// `[scrape.tls]`: whom to trust behind static targets with https. A pod's certificate is rarely for its address and is never
/// verified; no target is ever sent a credential.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificates of the authorities to trust, instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// `[[scrape.static]]`: targets by address. They are your word: no address is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Static {
    /// Addresses with ports: `127.0.0.1:3000`, `[::1]:3000`, or whole URLs: `https://db.internal:9187/probe?target=a`.
    pub targets: Vec<String>,
    /// Path of those that are no URLs with one.
    pub path: String,
    /// Scheme of those that are no URLs.
    pub scheme: Scheme,
    /// The label `job` of their series.
    pub job: String,
    /// Further labels of their series.
    pub labels: BTreeMap<String, String>,
    /// How often they are scraped; without it as all others.
    pub interval: Option<Span>,
    /// How long one scrape may take; without it as for all others.
    pub timeout: Option<Span>,
    /// Let a label of the target's own win over one that the agent sets, instead of renaming it `exported_*`. For
    /// federation and gateways.
    pub honor_labels: bool,
    /// Take the times that the target says for its samples.
    pub honor_timestamps: bool,
}

impl Default for Static {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            path: "/metrics".to_owned(),
            scheme: Scheme::Http,
            job: "static".to_owned(),
            labels: BTreeMap::new(),
            interval: None,
            timeout: None,
            honor_labels: false,
            honor_timestamps: true,
        }
    }
}

/// Time for a scrape where nobody says one.
const TIMEOUT: Span = Span::secs(10);
/// Shortest interval: below it a scrape is a load test.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval: backends hold a series for ended five minutes after its last sample; a day is surely a slip.
const MOST_INTERVAL: Duration = Duration::from_secs(86_400);

/// Something that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key below `scrape`; `[0]` is a place in a list.
    pub key: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// Bytes that are remembered of a series: its hash, and its name and labels compressed.
const SERIES: u64 = 20;
/// Bytes of a sample in a page, with the entries of a dozen labels; their text is the body's.
const PAGE_SAMPLE: u64 = 256;

impl Config {
    /// True when anything may be scraped.
    pub fn is_on(&self) -> bool {
        self.mode != Mode::Off || !self.fixed.is_empty()
    }

    /// Bytes that scraping may hold beside the page being read, by what holds it.
    pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
        if !self.is_on() {
            return Vec::new();
        }
        vec![
            ("bodies being read", self.memory.max(self.body_limit).0),
            ("known series", self.series_limit.saturating_mul(SERIES)),
        ]
    }

    /// Bytes of the page being read.
    pub fn page_bound(&self) -> u64 {
        if self.is_on() { self.sample_limit.saturating_mul(PAGE_SAMPLE) } else { 0 }
    }

    /// Interval and timeout of all that say none of their own.
    pub fn pace(&self) -> (Duration, Duration) {
        (self.interval.0, self.timeout.0.min(self.interval.0))
    }

    /// Everything that cannot work.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut add = |key: &[&str], message: String, help: &str| {
            let key = key.iter().map(|part| (*part).to_owned()).collect();
            found.push(Problem { key, message, help: help.to_owned() });
        };
        check_interval(self.interval, &["interval"], &mut add);
        // The default follows a shorter interval; what somebody wrote must fit.
        let said = Some(self.timeout).filter(|timeout| *timeout != TIMEOUT);
        check_timeout(said, self.interval, &["timeout"], &mut add);
        for (index, of) in self.fixed.iter().enumerate() {
            let at = format!("[{index}]");
            for text in &of.targets {
                if let Err((message, help)) = fixed::Address::parse(text, of.scheme, &of.path) {
                    add(&["static", &at, "targets"], message, help);
                }
            }
            if of.targets.is_empty() {
                let help = "write targets = [\"127.0.0.1:3000\"]";
                add(&["static", &at], "has no targets".to_owned(), help);
            }
            for name in of.labels.keys().filter(|name| name.is_empty() || *name == "__name__") {
                let message = format!("{name:?} cannot be a label of a target");
                add(&["static", &at, "labels"], message, "name it like \"team\"");
            }
            if let Some(interval) = of.interval {
                check_interval(interval, &["static", &at, "interval"], &mut add);
            }
            let interval = of.interval.unwrap_or(self.interval);
            check_timeout(of.timeout, interval, &["static", &at, "timeout"], &mut add);
        }
        for (key, rules) in [("relabel", &self.relabel), ("metric_relabel", &self.metric_relabel)] {
            for problem in relabel::Rules::compile(rules).err().unwrap_or_default() {
                let at = format!("[{}]", problem.rule - 1);
                add(&[key, &at, problem.key], problem.message, problem.help);
            }
        }
        found
    }
}

fn check_interval(interval: Span, key: &[&str], add: &mut impl FnMut(&[&str], String, &str)) {
    if interval.0 < LEAST_INTERVAL || interval.0 > MOST_INTERVAL {
        add(key, format!("{interval} is no sensible interval"), "1s to 1d; the default is 30s");
    }
}

fn check_timeout(
    timeout: Option<Span>,
    interval: Span,
    key: &[&str],
    add: &mut impl FnMut(&[&str], String, &str),
) {
    let Some(timeout) = timeout else { return };
    if timeout > interval {
        let message = format!("{timeout} is longer than the interval of {interval}");
        add(
            key,
            message,
            "a scrape must end before the next one begins: lower the timeout, or raise the interval",
        );
    } else if timeout.0.is_zero() {
        add(key, "leaves no time for a scrape".to_owned(), "the default is 10s");
    }
}
