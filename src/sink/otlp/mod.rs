//! The OTLP sink. Logs: a [`Wire`] that encodes and judges, and the [`Transport`] that carries it; [`metrics`] beside.
//!
//! In: parcels of batches. Out: `ExportLogsServiceRequest` over gRPC or HTTP. Invariant: what leaves is a function
//! of the records and the config alone, so a replay is byte-identical.
//!
//! An HTTP endpoint with a path segment `otlp` is taken for Loki's own (`http://loki:3100/otlp`): its refusals are
//! read as Loki means them, and its streams are those that Loki makes of its default index labels.

use std::hash::{BuildHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::deliver::{self, DeadLetters};
use super::http::{Auth, Secret, Timeouts, Tls};
use super::loki::{self, is_tenant};
use super::{Answer, Lesson, Parcel, StreamKey, Verdict, Wire, http as outgoing, lane};
use crate::data::batch::{Batch, Fields};
use crate::data::delivery::Outlet;
use crate::data::units::ByteSize;

pub mod encode;
pub mod grpc;
pub mod judge;
pub mod metrics;
pub mod pack;
pub mod preview;

/// Header that names the tenant, by Grafana's databases.
const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

/// Resource attributes that Loki's OTLP endpoint makes stream labels by default, beside the ones that every
/// workload has here. Source: Loki, `distributor.otlp_config.default_resource_attributes_as_index_labels`.
const LOKI_INDEX_ATTRIBUTES: [&str; 11] = [
    "cloud.availability_zone",
    "cloud.region",
    "container.name",
    "deployment.environment",
    "k8s.cronjob.name",
    "k8s.daemonset.name",
    "k8s.deployment.name",
    "k8s.job.name",
    "k8s.replicaset.name",
    "k8s.statefulset.name",
    "service.instance.id",
];

/// What a sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Log lines.
    Logs,
    /// Scraped metrics, RED and the figures of the host.
    Metrics,
}

impl Signal {
    /// The path of a signal over HTTP, and its method over gRPC.
    const fn address(self) -> (&'static str, &'static str) {
        match self {
            Self::Logs => ("/v1/logs", grpc::EXPORT_LOGS),
            Self::Metrics => ("/v1/metrics", grpc::EXPORT_METRICS),
        }
    }
}

/// How OTLP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// gRPC, usually on port 4317.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP, usually on port 4318.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip: every backend takes it.
    #[default]
    Gzip,
    /// zstd: less CPU and smaller; the Collector and Loki take it.
    Zstd,
    /// Nothing: for a collector on the same node.
    None,
}

/// Line bytes in one gRPC request.
const GRPC_MAX_REQUEST: ByteSize = ByteSize::kib(512);

/// Why an OTLP backend cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint or its credentials.
    #[error(transparent)]
    Endpoint(#[from] outgoing::Error),
    /// Nobody would take the tenant.
    #[error("tenant {0:?} cannot be sent: 1 to 150 letters, digits and !-_.*'(), not '.' or '..'")]
    Tenant(String),
}

/// One OTLP backend: `[sink.otlp.<name>]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to send. gRPC: `http://host:4317`, `https://host:4317` or `host:4317` (plain). HTTP: the base URL,
    /// to which `/v1/logs` and `/v1/metrics` are appended; for Loki's own endpoint `http://host:3100/otlp`.
    pub endpoint: String,
    /// What is sent there: `["logs", "metrics"]`, or one of them. Default: both; only logs to Loki's own endpoint.
    pub signals: Option<Vec<Signal>>,
    /// `grpc` or `http/protobuf`.
    pub protocol: Protocol, // grpc
    /// `gzip`, `zstd` or `none`. Choose `zstd` for less CPU where the backend takes it.
    pub compression: Compression, // gzip
    /// True: log files never wait for this sink; when it cannot keep up, it drops and counts.
    pub optional: bool, // false
    /// Tenant, sent as `X-Scope-OrgID`; a workload's own allowed tenant comes first.
    pub tenant: Option<String>,
    /// How metrics wait for a backend that is away.
    pub metrics: metrics::Config,
    /// How requests of logs are made up. Over gRPC a request never holds more than 512 KiB of lines, since receivers take
    /// messages of at most 4 MiB by default and short lines carry several times their length in attributes.
    pub limits: lane::Config,
    /// Certificates.
    pub tls: Tls,
    /// Credentials.
    pub auth: Auth,
    /// Further request headers (gRPC: metadata), by name. Values are never shown.
    pub headers: std::collections::BTreeMap<String, Secret>,
    /// URL of an HTTP proxy. Default: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` of the environment.
    pub proxy: Option<Secret>,
    /// Limits on how long a request may take.
    pub timeouts: Timeouts,
}

impl Config {
    /// The URL that is dialled for logs, with what the config may leave out.
    pub fn url(&self) -> String {
        self.url_of(Signal::Logs)
    }

    /// True when `signal` is sent there.
    pub fn takes(&self, signal: Signal) -> bool {
        match &self.signals {
            Some(signals) => signals.contains(&signal),
            None => signal == Signal::Logs || !self.is_loki(),
        }
    }

    /// The URL that is dialled for a signal.
    pub fn url_of(&self, signal: Signal) -> String {
        let endpoint = self.endpoint.trim();
        let whole = match self.protocol {
            Protocol::Grpc if !endpoint.contains("://") => format!("http://{endpoint}"),
            _ => endpoint.to_owned(),
        };
        if self.protocol == Protocol::Grpc {
            return whole;
        }
        let (base, query) = whole.split_once('?').map_or((whole.as_str(), None), |(base, q)| (base, Some(q)));
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/v1/logs").or_else(|| base.strip_suffix("/v1/metrics")).unwrap_or(base);
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{base}{}{query}", signal.address().0)
    }

    /// True when the endpoint is Loki's own.
    pub fn is_loki(&self) -> bool {
        let url = self.url();
        let path =
            url.split_once("://").map_or("", |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        self.protocol == Protocol::HttpProtobuf && path.split('/').any(|segment| segment == "otlp")
    }

    /// How requests are made up, less what the protocol forbids.
    fn effective_limits(&self) -> lane::Config {
        let mut limits = self.limits.clone();
        if self.protocol == Protocol::Grpc {
            limits.max_request = limits.max_request.min(GRPC_MAX_REQUEST);
        }
        limits
    }

    /// What the sink may hold in memory beside the batches, in bytes, by what holds it.
    pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
        let limits = self.effective_limits();
        // The lane counts a line as 100 bytes at least; with its attributes such a line takes about 500. The
        // message is held twice: as records and as a whole.
        let message = 5 * limits.max_request.0;
        let requests = limits.max_request.0.saturating_mul(limits.in_flight.max(1) as u64);
        vec![("encoding", 2 * message), ("requests in flight", requests), ("answers", 64 << 10)]
    }

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

    /// The protocol's two halves. Nothing is dialled and no file is read yet.
    pub fn build(&self, fields: Fields) -> Result<(Otlp, Transport), Error> {
        Ok((Otlp::new(self, fields), self.transport(Signal::Logs)?))
    }

    /// The way of a signal to the backend. Nothing is dialled and no file is read yet.
    pub fn transport(&self, signal: Signal) -> Result<Transport, Error> {
        if let Some(tenant) = self.tenant.as_deref().filter(|tenant| !is_tenant(tenant)) {
            return Err(Error::Tenant(tenant.to_owned()));
        }
        let client = outgoing::Client::new(&self.url_of(signal), &self.http())?;
        Ok(match self.protocol {
            Protocol::Grpc => {
                Transport::Grpc(Box::new(grpc::Client::new(client, self.compression, signal.address().1)))
            }
            Protocol::HttpProtobuf => {
                let mut headers = HeaderMap::new();
                // Loki takes no parameters behind the type.
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                match self.compression {
                    Compression::Gzip => headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip")),
                    Compression::Zstd => headers.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd")),
                    Compression::None => None,
                };
                Transport::Http { client: Box::new(client), headers }
            }
        })
    }
}

/// Starts an OTLP sink: the entrance to its queue, and the task that empties it until the queue is closed and
/// everything is settled, or `kill` is cancelled. Refused lines go to `dead-letter.jsonl` in `state_dir`.
pub fn sink(
    name: &str,
    config: &Config,
    fields: Fields,
    state_dir: Option<&Path>,
    kill: CancellationToken,
) -> Result<(Box<dyn Outlet>, impl Future<Output = ()> + Send + use<>), Error> {
    let (wire, transport) = config.build(fields)?;
    let limits = config.effective_limits();
    let dead = state_dir.map(|dir| DeadLetters::new(dir.join(deliver::DEAD_LETTERS)));
    Ok(deliver::spawn(name, wire, transport, limits, !config.optional, dead, kill))
}

/// The way to the backend.
#[derive(Debug)]
pub enum Transport {
    /// gRPC.
    Grpc(Box<grpc::Client>),
    /// HTTP with the protocol's own headers.
    Http {
        /// The client.
        client: Box<outgoing::Client>,
        /// Content type and encoding.
        headers: HeaderMap,
    },
}

impl deliver::Transport for Transport {
    async fn send(&self, tenant: Option<&str>, body: Bytes) -> Answer {
        let tenant =
            tenant.and_then(|tenant| HeaderValue::from_str(tenant).ok()).map(|value| (TENANT, value));
        match self {
            Self::Grpc(client) => client.export(tenant.into_iter().collect(), body).await,
            Self::Http { client, headers } => {
                let mut headers = headers.clone();
                headers.extend(tenant);
                client.post(headers, body).await
            }
        }
    }

    fn target(&self) -> &str {
        match self {
            Self::Grpc(client) => client.shown_url(),
            Self::Http { client, .. } => client.shown_url(),
        }
    }
}

/// The protocol: encodes requests and judges answers.
pub struct Otlp {
    fields: Fields,
    tenant: Option<String>,
    is_loki: bool,
    encoder: encode::Encoder,
    message: Vec<u8>,
    packer: pack::Packer,
    /// Hash of the last warning that came with a success, so that each is logged once per change.
    warned: AtomicU64,
}

impl std::fmt::Debug for Otlp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Otlp")
            .field("packer", &self.packer)
            .field("is_loki", &self.is_loki)
            .finish_non_exhaustive()
    }
}

impl Otlp {
    /// The protocol as `config` wants it, with these record fields.
    pub fn new(config: &Config, fields: Fields) -> Self {
        Self {
            fields,
            tenant: config.tenant.clone(),
            is_loki: config.is_loki(),
            encoder: encode::Encoder::default(),
            message: Vec::new(),
            packer: pack::Packer::new(config.protocol, config.compression),
            warned: AtomicU64::new(0),
        }
    }
}

/// A hash that is the same in every run.
fn stable_hasher() -> impl Hasher {
    xxhash_rust::xxh3::Xxh3DefaultBuilder::new().build_hasher()
}

impl Wire for Otlp {
    /// For Loki, what its default index labels tell apart: not the pod's uid, not the restart. Elsewhere the
    /// container instance, since nothing but its own order matters.
    fn stream(&self, batch: &Batch) -> StreamKey {
        let workload = &*batch.workload;
        let container = &workload.container;
        let mut hash = stable_hasher();
        if self.is_loki {
            (self.tenant(batch), &workload.service_name, &workload.cluster).hash(&mut hash);
            (&container.namespace, &container.pod, &container.container).hash(&mut hash);
            if self.fields.contains(Fields::ENV) {
                workload.environment.hash(&mut hash);
            }
            for (name, value) in &workload.attributes {
                if LOKI_INDEX_ATTRIBUTES.contains(&name.as_str()) || name == "service.namespace" {
                    (name, value).hash(&mut hash);
                }
            }
        } else {
            (&container.uid, &container.container, container.restart).hash(&mut hash);
        }
        StreamKey(hash.finish())
    }

    fn tenant<'a>(&'a self, batch: &'a Batch) -> Option<&'a str> {
        batch.workload.tenant.as_deref().filter(|tenant| is_tenant(tenant)).or(self.tenant.as_deref())
    }

    /// For HTTP the body; for gRPC the frame with its header of flag and length.
    fn encode(&mut self, parcels: &[Parcel], out: &mut Vec<u8>) {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        self.encoder.encode(parcels, self.fields, &mut message);
        self.packer.pack(&message, out);
        self.message = message;
    }

    fn judge(&self, answer: &Answer, records: u64) -> Verdict {
        let judge::Judgement { verdict, warning } = judge::judge(answer, records, self.is_loki);
        if let Some(message) = warning {
            let mut hash = stable_hasher();
            message.hash(&mut hash);
            let hash = hash.finish();
            if self.warned.swap(hash, Ordering::Relaxed) != hash {
                tracing::warn!(message, "OTLP backend took a request with a warning");
            }
        }
        verdict
    }

    fn lesson(&self, answer: &Answer) -> Lesson {
        if self.is_loki { loki::judge::lesson(&judge::as_push(answer)) } else { Lesson::default() }
    }

    fn success_can_mask(&self) -> bool {
        self.is_loki
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::data::batch::{Record, Span};
    use crate::data::budget::Budget;
    use crate::data::position::Position;
    use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};

    fn parcel(container: &ContainerRef) -> Parcel {
        let mut identity = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        let Identity::Known(workload) = identity.identify(container, std::time::Duration::ZERO) else {
            panic!("paths say all")
        };
        let batch = Batch {
            workload,
            path: "p".into(),
            start: Position::default(),
            end: Position::default(),
            arena: b"one line".to_vec(),
            records: vec![Record { body: Span::new(0, 8), ..Record::default() }],
            catching_up: false,
            sealed_unix_nano: 0,
            permit: Budget::new(10, Arc::default()).reserve(1).expect("fits"),
        };
        Parcel { batch: Arc::new(batch), from: 0, to: 1 }
    }

    fn container() -> ContainerRef {
        ContainerRef::from_path("shop_web-0_uid-1", "api", 0).expect("a path")
    }

    fn config(endpoint: &str, protocol: Protocol, compression: Compression) -> Config {
        Config { endpoint: endpoint.to_owned(), protocol, compression, ..Config::default() }
    }

    #[test]
    fn endpoints_are_completed_and_loki_is_told_by_its_path() {
        for (protocol, endpoint, url, is_loki) in [
            (Protocol::Grpc, "collector:4317", "http://collector:4317", false),
            (Protocol::Grpc, "https://collector:4317", "https://collector:4317", false),
            (Protocol::HttpProtobuf, "http://c:4318", "http://c:4318/v1/logs", false),
            (Protocol::HttpProtobuf, "http://c:4318/", "http://c:4318/v1/logs", false),
            (Protocol::HttpProtobuf, " http://c:4318/v1/logs ", "http://c:4318/v1/logs", false),
            (
                Protocol::HttpProtobuf,
                "http://otlp:4318/x/v1/logs/?a=b",
                "http://otlp:4318/x/v1/logs?a=b",
                false,
            ),
            (Protocol::HttpProtobuf, "http://loki:3100/otlp", "http://loki:3100/otlp/v1/logs", true),
            (Protocol::HttpProtobuf, "https://g/eu/otlp/", "https://g/eu/otlp/v1/logs", true),
        ] {
            let config = config(endpoint, protocol, Compression::Gzip);
            assert_eq!((config.url().as_str(), config.is_loki()), (url, is_loki), "{endpoint}");
            assert!(config.build(Fields::ALL).is_ok(), "{endpoint}");
        }
        assert!(config("", Protocol::Grpc, Compression::Gzip).build(Fields::ALL).is_err());
        let read = |endpoint| config(endpoint, Protocol::HttpProtobuf, Compression::Gzip);
        assert_eq!(
            read("http://c:4318/x/v1/logs?a=b").url_of(Signal::Metrics),
            "http://c:4318/x/v1/metrics?a=b"
        );
        assert_eq!(read("http://c:4318/v1/metrics").url(), "http://c:4318/v1/logs");
        assert!(
            read("http://c:4318").takes(Signal::Metrics) && !read("http://l/otlp").takes(Signal::Metrics)
        );
        let logs = Config { signals: Some(vec![Signal::Logs]), ..read("http://c:4318") };
        assert!(logs.takes(Signal::Logs) && !logs.takes(Signal::Metrics));
    }

    #[test]
    fn the_config_reads_the_names_of_the_contract() {
        let read: Config =
            toml::from_str("endpoint = \"a:1\"\nprotocol = \"http/protobuf\"\ncompression = \"zstd\"")
                .expect("valid");
        assert_eq!((read.protocol, read.compression), (Protocol::HttpProtobuf, Compression::Zstd));
        let read: Config = toml::from_str("endpoint = \"a:1\"").expect("valid");
        assert_eq!((read.protocol, read.compression), (Protocol::Grpc, Compression::Gzip));
        assert!(toml::from_str::<Config>("protocol = \"http/json\"").is_err());
    }

    #[test]
    fn grpc_requests_stay_below_a_receivers_default_limit() {
        let grpc = config("a:1", Protocol::Grpc, Compression::Gzip);
        assert_eq!(grpc.effective_limits().max_request, ByteSize::kib(512));
        assert_eq!(grpc.memory_bound()[0], ("encoding", 5 << 20));
        let http = config("http://a", Protocol::HttpProtobuf, Compression::Gzip);
        assert_eq!(http.effective_limits().max_request, ByteSize::mib(1));
        // The worst that fits: lines of nothing, each counted as 100 bytes, with every attribute.
        let lines = GRPC_MAX_REQUEST.0 / 100;
        let Parcel { batch, .. } = parcel(&container());
        let path = "/var/log/pods/a-long-namespace_a-long-deployment-name-d994d45d6-5h9zr_d11c6e6d-84fc-49ec-95a1-4ee5155f656a/container/0.log";
        let record = Record {
            trace_id: crate::data::trace::TraceId::new(1),
            span_id: crate::data::trace::SpanId::new(1),
            severity: crate::data::severity::Severity::INFO,
            http_status: 200,
            request_id: Span::new(0, 8),
            http_method: Span::new(0, 4),
            http_route: Span::new(0, 8),
            url_path: Span::new(0, 8),
            ..Record::default()
        };
        let batch = Batch {
            workload: Arc::clone(&batch.workload),
            path: path.into(),
            start: Position::default(),
            end: Position::default(),
            arena: batch.arena.clone(),
            records: vec![record; lines as usize],
            catching_up: false,
            sealed_unix_nano: 0,
            permit: Budget::new(10, Arc::default()).reserve(1).expect("fits"),
        };
        let parcel = Parcel { batch: Arc::new(batch), from: 0, to: lines as u32 };
        let mut message = Vec::new();
        encode::Encoder::default().encode(&[parcel], Fields::ALL, &mut message);
        assert!(message.len() < 4 << 20, "{} bytes", message.len());
    }

    #[test]
    fn every_compression_holds_the_same_message() {
        let parcels = [parcel(&container()), parcel(&container())];
        let encode = |protocol, compression| {
            let mut wire = Otlp::new(&config("http://c", protocol, compression), Fields::ALL);
            let mut out = b"before".to_vec();
            wire.encode(&parcels, &mut out);
            let mut again = b"before".to_vec();
            wire.encode(&parcels, &mut again);
            assert_eq!(out, again, "the same parcels give the same bytes");
            out.split_off(6)
        };
        let plain = encode(Protocol::HttpProtobuf, Compression::None);
        assert!(plain.windows(8).any(|window| window == b"one line"));
        let mut unzipped = Vec::new();
        let zipped = encode(Protocol::HttpProtobuf, Compression::Gzip);
        flate2::read::GzDecoder::new(zipped.as_slice()).read_to_end(&mut unzipped).expect("gzip");
        assert_eq!(unzipped, plain);
        let packed = encode(Protocol::HttpProtobuf, Compression::Zstd);
        assert_eq!(zstd::bulk::decompress(&packed, plain.len()).expect("zstd"), plain);
        let framed = encode(Protocol::Grpc, Compression::None);
        assert_eq!(framed[0], 0);
        assert_eq!(framed[1..5], (plain.len() as u32).to_be_bytes());
        assert_eq!(framed[5..], plain);
        let framed = encode(Protocol::Grpc, Compression::Gzip);
        assert_eq!((framed[0], &framed[5..]), (1, zipped.as_slice()));
        assert_eq!(framed[1..5], (zipped.len() as u32).to_be_bytes());
    }

    #[test]
    fn lokis_streams_outlive_a_restart_and_others_do_not() {
        let restarted = ContainerRef { restart: 1, ..container() };
        let other = ContainerRef { container: "proxy".into(), ..container() };
        for (endpoint, joined) in [("http://loki/otlp", true), ("http://collector", false)] {
            let wire = Otlp::new(&config(endpoint, Protocol::HttpProtobuf, Compression::Gzip), Fields::ALL);
            let key = |container: &ContainerRef| wire.stream(&parcel(container).batch);
            assert_eq!(key(&container()), key(&container()));
            assert_eq!(key(&container()) == key(&restarted), joined, "{endpoint}");
            assert_ne!(key(&container()), key(&other));
            assert_eq!(wire.success_can_mask(), joined);
        }
    }
}
