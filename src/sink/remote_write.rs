//! Prometheus remote write: to Prometheus, Mimir, VictoriaMetrics, Thanos, Cortex, Grafana Cloud.
//!
//! ```text
//! final pages ► collect (encodes at once, sync) ► buffer (compressed, bounded) ► send (one request in flight a shard)
//! ```
//!
//! Version 1.0 goes to any receiver. Version 2.0 is spoken once the receiver has answered an empty request of it in its
//! own terms, so no sample is ever sent in a version that its receiver reads as something else. Samples are in memory only: an outage
//! that fits the buffer loses none, what does not fit is counted with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::http::{self as outgoing, Auth, Client, Secret, Timeouts, Tls};
use crate::data::sample::{Collect, Label, MetricKind, Page, Sample};
use crate::data::units::{ByteSize, Span};
use crate::data::workload::is_tenant;

mod buffer;
mod collect;
mod histogram;
mod judge;
mod meter;
mod proto;
mod recode;
mod send;
mod snappy;
mod v1;
mod v2;

/// Which version of the protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// 2.0 if the receiver says that it speaks it, else 1.0.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 1.0: every receiver takes it.
    #[serde(rename = "1.0")]
    V1,
    /// 2.0, for receivers that speak it only.
    #[serde(rename = "2.0")]
    V2,
}

/// How requests are made up and how much waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Samples in one request. 5,000 make about 300 KB, a quarter of what a gateway takes by default (1 MB), and keep the
    /// cost of a request small beside that of its samples. Lower it if the receiver answers 413.
    pub max_samples: u64, // 5000
    /// How long samples wait for more to share a request with.
    pub deadline: Span, // 5s
    /// Bytes of requests that are kept, compressed, while the receiver does not take them. A sample takes about 60: 16 MiB
    /// are five minutes of a node with 900 samples a second. When it is full the oldest are dropped and counted.
    pub buffer: ByteSize, // 16MiB
    /// How long they are kept. Older ones are dropped and counted.
    pub buffer_age: Span, // 5m
    /// Requests in flight, each with its own targets, so that the order of a series is kept. Raise it if
    /// `nodewick_sink_buffer_age_seconds` grows while the receiver answers.
    pub shards: usize, // 2
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_samples: 5000,
            deadline: Span::secs(5),
            buffer: ByteSize::mib(16),
            buffer_age: Span::secs(300),
            shards: 2,
        }
    }
}

/// `[sink.remote_write.<name>]`: a receiver of Prometheus remote write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of the receiver, with its path: `https://prometheus.example.com/api/v1/write` (Prometheus,
    /// VictoriaMetrics), `https://mimir.example.com/api/v1/push` (Mimir, Cortex), `…/api/v1/receive` (Thanos).
    pub url: String,
    /// "auto" (2.0 if the receiver says that it speaks it, else 1.0), "1.0" or "2.0".
    pub protocol: Protocol, // auto
    /// Tenant, sent as `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// Labels that every series gets unless it has them.
    pub labels: BTreeMap<String, String>,
    /// Exemplars are sent too: trace ids beside buckets.
    pub send_exemplars: bool, // true
    /// Native histograms are sent too. Turn it off for a receiver that refuses them.
    pub send_native_histograms: bool, // true
    /// Type, help and unit of metrics are sent too: by version 1.0 once a minute, by 2.0 with the series.
    pub send_metadata: bool, // true
    /// How requests are made up and how much waits.
    pub limits: Limits,
    /// Certificates.
    pub tls: Tls,
    /// Credentials.
    pub auth: Auth,
    /// Further request headers, by name. Values are never shown.
    pub headers: BTreeMap<String, Secret>,
    /// URL of an HTTP proxy; default: the environment's `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    pub proxy: Option<Secret>,
    /// Limits on how long a request may take.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            protocol: Protocol::Auto,
            tenant: None,
            labels: BTreeMap::new(),
            send_exemplars: true,
            send_native_histograms: true,
            send_metadata: true,
            limits: Limits::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            headers: BTreeMap::new(),
            proxy: None,
            timeouts: Timeouts::default(),
        }
    }
}

/// Why a receiver cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint or its credentials.
    #[error(transparent)]
    Endpoint(#[from] outgoing::Error),
    /// Nobody would take the tenant.
    #[error("tenant {0:?} cannot be sent: 1 to 150 letters, digits and !-_.*'(), not '.' or '..'")]
    Tenant(String),
    /// A label that no receiver takes.
    #[error(
        "labels: {0:?} is no label name for every series; use letters, digits and '_', not beginning with '__' or a digit"
    )]
    Label(String),
    /// A limit that leaves nothing to do.
    #[error("limits.{key} is {value}; it must be {bounds}")]
    Limit {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        bounds: &'static str,
    },
}

impl Config {
    /// What the HTTP client is made of.
    pub fn http(&self) -> outgoing::Config {
        outgoing::Config {
            tls: self.tls.clone(),
            auth: self.auth.clone(),
            headers: self.headers.clone(),
            proxy: self.proxy.clone(),
            timeouts: self.timeouts.clone(),
        }
    }

    /// Checks everything that can be checked without a connection, and makes the client.
    pub fn client(&self) -> Result<Client, Error> {
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| !is_tenant(tenant)) {
            return Err(Error::Tenant(tenant.to_owned()));
        }
        if let Some(name) = self.labels.keys().find(|name| !is_label_name(name)) {
            return Err(Error::Label(name.clone()));
        }
        let limits = &self.limits;
        let limit = |key, value: String, bounds| Err(Error::Limit { key, value, bounds });
        if !(1..=100_000).contains(&limits.max_samples) {
            return limit("max_samples", limits.max_samples.to_string(), "1 to 100000");
        }
        if !(1..=64).contains(&limits.shards) {
            return limit("shards", limits.shards.to_string(), "1 to 64");
        }
        if limits.buffer < ByteSize::mib(1) {
            return limit("buffer", limits.buffer.to_string(), "1MiB or more");
        }
        Ok(Client::new(&self.url, &self.http())?)
    }

    /// What the sink may hold in memory, in bytes, by what holds it.
    pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
        let shards = self.limits.shards as u64;
        // A request being written: its compressed bytes, and the texts that it may repeat. A sample of a page takes about
        // 60 bytes; a request of labels that never repeat may come to its largest, which is rare and not for all shards.
        let open = shards * (self.limits.max_samples * 160 + (128 << 10));
        // Halving or converting a refused request opens it: once uncompressed, once as it is written anew.
        let opened = 2 * (4 << 20);
        vec![("samples that wait", self.limits.buffer.0), ("requests being encoded and sent", open + opened)]
    }

    /// The empty request of version 1, and its headers: what asks a receiver whether it takes samples.
    pub fn question(&self) -> (::http::HeaderMap, bytes::Bytes) {
        let mut headers = send::headers(Version::V1);
        headers.extend(self.tenant_header().map(|tenant| (send::TENANT, tenant)));
        (headers, bytes::Bytes::from_static(&[0]))
    }

    fn tenant_header(&self) -> Option<HeaderValue> {
        self.tenant.as_deref().and_then(|tenant| HeaderValue::from_str(tenant).ok())
    }
}

/// True for a name that every receiver takes and that no reserved label has.
fn is_label_name(name: &str) -> bool {
    !name.starts_with("__")
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Starts a sink that counts as `label`: where pages are handed in, and the task that sends until the entrance is dropped
/// and everything is settled, or `kill` is cancelled.
pub fn sink(
    label: &str,
    config: &Config,
    kill: CancellationToken,
) -> Result<(Box<dyn Collect>, impl Future<Output = ()> + Send + use<>), Error> {
    let client = config.client()?;
    let limits = &config.limits;
    let shards = limits.shards;
    let version = if config.protocol == Protocol::V2 { Version::V2 } else { Version::V1 };
    let meter = meter::Meter::new(label, shards);
    let buffer = buffer::Buffer::new(shards, limits.buffer.0, limits.buffer_age.0, version, meter);
    let buffer = Arc::new(buffer);
    let options = Options {
        exemplars: config.send_exemplars,
        histograms: config.send_native_histograms,
        metadata: config.send_metadata,
        labels: config.labels.clone().into_iter().filter(|(_, value)| !value.is_empty()).collect(),
    };
    let entrance =
        collect::Entrance::new(Arc::clone(&buffer), options, shards, limits.max_samples, limits.deadline.0);
    let sender = send::Sender {
        name: label.to_owned(),
        client,
        tenant: config.tenant_header(),
        protocol: config.protocol,
        buffer,
        standing: send::Standing::default(),
    };
    Ok((Box::new(entrance), sender.run(shards, kill)))
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1 = 1,
    V2 = 2,
}

impl Version {
    const fn other(self) -> Self {
        match self {
            Self::V1 => Self::V2,
            Self::V2 => Self::V1,
        }
    }
}

/// What a request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    samples: u64,
    histograms: u64,
    exemplars: u64,
    newest_unix_ms: i64,
}

impl Counts {
    /// Samples, native histograms among them.
    const fn all(&self) -> u64 {
        self.samples + self.histograms
    }

    fn see(&mut self, unix_ms: i64) {
        self.newest_unix_ms = self.newest_unix_ms.max(unix_ms);
    }

    const fn covers(&self, sent: &Self) -> bool {
        self.samples >= sent.samples && self.histograms >= sent.histograms && self.exemplars >= sent.exemplars
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            samples: self.samples.saturating_sub(other.samples),
            histograms: self.histograms.saturating_sub(other.histograms),
            exemplars: self.exemplars.saturating_sub(other.exemplars),
            newest_unix_ms: self.newest_unix_ms,
        }
    }

    fn at_most(&self, sent: &Self) -> Self {
        Self {
            samples: self.samples.min(sent.samples),
            histograms: self.histograms.min(sent.histograms),
            exemplars: self.exemplars.min(sent.exemplars),
            newest_unix_ms: self.newest_unix_ms,
        }
    }
}

/// What of a page is sent.
#[derive(Debug)]
struct Options {
    exemplars: bool,
    histograms: bool,
    metadata: bool,
    /// Labels for every series that has none of that name, sorted.
    labels: Vec<(String, String)>,
}

/// Where a label comes from: equal parts of one page are equal labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Label(Label),
    Own(u32),
}

/// What is looked for among the labels of the sample before, near the place `at` where it is expected: one label more or
/// less moves all that follow by one.
#[inline]
fn find_near<'a, T>(before: &'a [T], at: &mut usize, mut is_it: impl FnMut(&T) -> bool) -> Option<&'a T> {
    for place in [*at, *at + 1, at.wrapping_sub(1)] {
        if let Some(found) = before.get(place).filter(|found| is_it(found)) {
            *at = place + 1;
            return Some(found);
        }
    }
    *at += 1;
    None
}

impl Options {
    /// The labels of a sample in order, with the sink's own. Texts are looked at only where there are own ones.
    #[inline]
    fn each_part(&self, page: &Page, sample: &Sample, mut each: impl FnMut(Part)) {
        if self.labels.is_empty() {
            return page.labels_of(sample).iter().for_each(|&label| each(Part::Label(label)));
        }
        let mut own = self.labels.iter().enumerate().peekable();
        for &label in page.labels_of(sample) {
            let name = page.bytes(label.name);
            while let Some((at, _)) = own.next_if(|(_, (own, _))| own.as_bytes() < name) {
                each(Part::Own(at as u32));
            }
            if !label.value.is_empty() {
                own.next_if(|(_, (own, _))| own.as_bytes() == name);
                each(Part::Label(label));
            }
        }
        own.for_each(|(at, _)| each(Part::Own(at as u32)));
    }

    /// Name and value of a part.
    fn text<'a>(&'a self, page: &'a Page, part: Part) -> (&'a [u8], &'a [u8]) {
        match part {
            Part::Label(label) => (page.bytes(label.name), page.bytes(label.value)),
            Part::Own(at) => {
                let (name, value) = &self.labels[at as usize];
                (name.as_bytes(), value.as_bytes())
            }
        }
    }
}

/// A type as both versions number it: `MetricMetadata.MetricType` and `Metadata.MetricType`.
const fn kind_number(kind: MetricKind) -> u64 {
    match kind {
        MetricKind::Unknown => 0,
        MetricKind::Counter => 1,
        MetricKind::Gauge => 2,
        MetricKind::Histogram => 3,
        MetricKind::GaugeHistogram => 4,
        MetricKind::Summary => 5,
        MetricKind::Info => 6,
        MetricKind::StateSet => 7,
    }
}
