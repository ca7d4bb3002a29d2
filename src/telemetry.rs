//! The agent's own logs and traces.
//!
//! In: `tracing` events and spans of this program. Out: lines on standard error, always; OTLP logs and traces, when
//! the environment (`OTEL_EXPORTER_OTLP_*`) or the config asks. Invariants: nothing here can stop or slow the
//! agent (bounded batch queues, a runtime of its own, failures said once per change); what the exporters
//! themselves do is never exported, so telemetry about telemetry cannot loop.
//!
//! This is about the agent only. Pod logs go through `sink::otlp`.

use std::fmt::Debug;
use std::io::IsTerminal;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, SdkLoggerProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::Metadata;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use crate::sink::{Answer, http as outgoing};

/// How long the rest of the own telemetry may take at exit.
const FLUSH: Duration = Duration::from_secs(2);

/// Where the exporters' own words go: standard error only.
const TARGET: &str = "nodewick::telemetry";

/// The agent's own logs and traces: `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Filter of the agent's own logs and traces, such as `info` or `warn,nodewick::sink=debug`. The environment
    /// variable `NODEWICK_LOG` comes first.
    pub log: String, // info
    /// Form of the lines on standard error.
    pub log_format: Format, // auto
    /// OTLP endpoint for the agent's own logs and traces, such as `http://collector:4318`; without one they are
    /// not exported. `OTEL_EXPORTER_OTLP_ENDPOINT` and its forms for each signal come first.
    pub otlp_endpoint: Option<String>,
    /// How that endpoint is spoken to. `OTEL_EXPORTER_OTLP_PROTOCOL` comes first. Default: `grpc` for port 4317,
    /// else `http/protobuf`, as OpenTelemetry has it.
    pub otlp_protocol: Option<Protocol>,
}

impl Default for Config {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: Format::Auto, otlp_endpoint: None, otlp_protocol: None }
    }
}

/// Form of the agent's own log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Pretty on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    Pretty,
}

/// How an OTLP endpoint is spoken to.
pub use crate::sink::otlp::Protocol;

/// Why the agent's own telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("{origin}: {text:?} is not a log filter: {why}; write it like info or warn,nodewick::sink=debug")]
    Filter {
        /// Where it was given.
        origin: &'static str,
        /// The filter.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The protocol is unknown or not supported.
    #[error("{origin}: {text:?} is not a supported OTLP protocol; use grpc or http/protobuf")]
    Protocol {
        /// The environment variable.
        origin: &'static str,
        /// Its value.
        text: String,
    },
    /// The endpoint cannot be used.
    #[error("own telemetry: {0}")]
    Endpoint(#[from] outgoing::Error),
    /// The exporter cannot be made.
    #[error("own telemetry: cannot set up the OTLP exporter: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The exporters' runtime cannot start.
    #[error("own telemetry: cannot start the exporters' thread: {0}")]
    Runtime(std::io::Error),
    /// `init` was called twice.
    #[error("own telemetry was set up before")]
    AlreadySet,
}

/// Keeps the own telemetry going. Dropping it flushes, within two seconds.
#[derive(Debug)]
#[must_use = "own telemetry ends when this drops"]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Guard {
    /// True when own logs or traces are exported by OTLP.
    pub fn exports(&self) -> bool {
        self.traces.is_some() || self.logs.is_some()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // Both at once, since each may need the whole time.
        let (traces, logs) = (self.traces.take(), self.logs.take());
        let end = Instant::now() + FLUSH;
        let traces = std::thread::spawn(move || traces.map(|provider| provider.shutdown_with_timeout(FLUSH)));
        let logs = std::thread::spawn(move || logs.map(|provider| provider.shutdown_with_timeout(FLUSH)));
        while !(traces.is_finished() && logs.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        runtime.shutdown_background();
    }
}

/// Sets up the own logs and traces of this process. Call it once, first thing, outside of any async runtime or in
/// one; keep the guard until the end.
pub fn init(config: &Config) -> Result<Guard, Error> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let filter = filter(config, &env)?;
    let plan = Plan::resolve(config, &env)?;
    let terminal = std::io::stderr().is_terminal();
    // A closed standard error must not end the agent, which is what reporting the failed write there would do.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        Format::Json => Box::new(lines.json().flatten_event(true).with_ansi(false)),
        Format::Auto if !terminal => Box::new(lines.json().flatten_event(true).with_ansi(false)),
        Format::Auto | Format::Pretty => Box::new(lines.with_ansi(terminal && env("NO_COLOR").is_none())),
    };
    let mut layers = vec![lines.with_filter(filter.clone()).boxed()];
    let mut guard = Guard { traces: None, logs: None, runtime: None };
    if plan.exports() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("telemetry")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        // gRPC channels spawn their driver on the runtime that they are made in.
        let entered = runtime.enter();
        let resource = resource(&env);
        if let Some(target) = &plan.traces {
            let exporter = Watched::new("traces", span_exporter(target, runtime.handle())?);
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource.clone())
                .build();
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("nodewick"));
            layers.push(layer.with_filter(filter.clone().and(filter_fn(is_exportable))).boxed());
            guard.traces = Some(provider);
        }
        if let Some(target) = &plan.logs {
            let exporter = Watched::new("logs", log_exporter(target, runtime.handle())?);
            let provider =
                SdkLoggerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
            let layer = OpenTelemetryTracingBridge::new(&provider);
            layers.push(layer.with_filter(filter.and(filter_fn(is_exportable))).boxed());
            guard.logs = Some(provider);
        }
        drop(entered);
        guard.runtime = Some(runtime);
    }
    tracing::subscriber::set_global_default(Registry::default().with(layers))
        .map_err(|_| Error::AlreadySet)?;
    Ok(guard)
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

fn filter(config: &Config, env: Env<'_>) -> Result<EnvFilter, Error> {
    let (origin, text) = match env("NODEWICK_LOG") {
        Some(text) => ("NODEWICK_LOG", text),
        None => ("telemetry.log", config.log.clone()),
    };
    EnvFilter::try_new(&text).map_err(|error| Error::Filter { origin, text, why: error.to_string() })
}

/// What the exporters themselves log and trace must not be exported again.
fn is_exportable(metadata: &Metadata<'_>) -> bool {
    const EXPORTERS: [&str; 10] = [
        "opentelemetry",
        "tonic",
        "h2",
        "hyper",
        "tower",
        "rustls",
        "reqwest",
        "tokio_util",
        "nodewick::sink::http",
        TARGET,
    ];
    let target = metadata.target();
    !EXPORTERS.iter().any(|prefix| target.starts_with(prefix))
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// With the signal's path for HTTP.
    endpoint: String,
    protocol: Protocol,
}

/// What is exported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    traces: Option<Target>,
    logs: Option<Target>,
}

impl Plan {
    fn exports(&self) -> bool {
        self.traces.is_some() || self.logs.is_some()
    }

    /// Reads config and environment as OpenTelemetry's "Protocol Exporter" and "General SDK Configuration" say.
    fn resolve(config: &Config, env: Env<'_>) -> Result<Self, Error> {
        if env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(Self::default());
        }
        let traces = Target::resolve(
            config,
            env,
            "OTEL_TRACES_EXPORTER",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "/v1/traces",
        )?;
        let logs = Target::resolve(
            config,
            env,
            "OTEL_LOGS_EXPORTER",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
            "/v1/logs",
        )?;
        Ok(Self { traces, logs })
    }
}

impl Target {
    fn resolve(
        config: &Config,
        env: Env<'_>,
        exporter: &str,
        own_endpoint: &str,
        own_protocol: &'static str,
        path: &str,
    ) -> Result<Option<Self>, Error> {
        if env(exporter).is_some_and(|value| value == "none") {
            return Ok(None);
        }
        let (endpoint, whole) =
            match (env(own_endpoint), env("OTEL_EXPORTER_OTLP_ENDPOINT"), &config.otlp_endpoint) {
                (Some(endpoint), ..) => (endpoint, true),
                (None, Some(endpoint), _) => (endpoint, false),
                (None, None, Some(endpoint)) => (endpoint.clone(), false),
                (None, None, None) => return Ok(None),
            };
        let mut endpoint = endpoint.trim().to_owned();
        if !endpoint.contains("://") {
            endpoint.insert_str(0, "http://");
        }
        let named = |origin: &'static str| env(origin).map(|text| (origin, text));
        let protocol = match (
            named(own_protocol).or_else(|| named("OTEL_EXPORTER_OTLP_PROTOCOL")),
            config.otlp_protocol,
        ) {
            (Some((_, text)), _) if text == "grpc" => Protocol::Grpc,
            (Some((_, text)), _) if text == "http/protobuf" => Protocol::HttpProtobuf,
            (Some((origin, text)), _) => return Err(Error::Protocol { origin, text }),
            (None, Some(protocol)) => protocol,
            (None, None) if endpoint.trim_end_matches('/').ends_with(":4317") => Protocol::Grpc,
            (None, None) => Protocol::HttpProtobuf,
        };
        if protocol == Protocol::HttpProtobuf && !whole {
            endpoint.truncate(endpoint.trim_end_matches('/').len());
            endpoint.push_str(path);
        }
        Ok(Some(Self { endpoint, protocol }))
    }
}

/// Who the agent is: `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, else its own name, and what the downward
/// API says of its pod.
fn resource(env: Env<'_>) -> Resource {
    let given = env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_given = |key: &str| given.split(',').any(|pair| pair.trim().split('=').next() == Some(key));
    let mut own = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    for (key, variable) in [
        ("k8s.node.name", "NODE_NAME"),
        ("k8s.pod.name", "POD_NAME"),
        ("k8s.namespace.name", "POD_NAMESPACE"),
    ] {
        own.extend(env(variable).map(|value| KeyValue::new(key, value)));
    }
    own.retain(|pair| !is_given(pair.key.as_str()));
    let builder = Resource::builder().with_attributes(own);
    let named = env("OTEL_SERVICE_NAME").is_some() || is_given("service.name");
    if named { builder.build() } else { builder.with_service_name("nodewick").build() }
}

fn span_exporter(target: &Target, runtime: &tokio::runtime::Handle) -> Result<SpanExporter, Error> {
    let builder = SpanExporter::builder();
    Ok(match target.protocol {
        Protocol::Grpc => builder.with_tonic().with_endpoint(&target.endpoint).build()?,
        Protocol::HttpProtobuf => builder
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&target.endpoint)
            .with_http_client(Post::new(target, runtime)?)
            .build()?,
    })
}

fn log_exporter(target: &Target, runtime: &tokio::runtime::Handle) -> Result<LogExporter, Error> {
    let builder = LogExporter::builder();
    Ok(match target.protocol {
        Protocol::Grpc => builder.with_tonic().with_endpoint(&target.endpoint).build()?,
        Protocol::HttpProtobuf => builder
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&target.endpoint)
            .with_http_client(Post::new(target, runtime)?)
            .build()?,
    })
}

/// The sinks' HTTP client (https, proxies, bounded answers) as the SDK wants one. The SDK's batch threads are no
/// runtime's, so requests run on ours.
#[derive(Debug)]
struct Post {
    client: outgoing::Shared,
    runtime: tokio::runtime::Handle,
}

impl Post {
    fn new(target: &Target, runtime: &tokio::runtime::Handle) -> Result<Self, Error> {
        let client = outgoing::Client::new(&target.endpoint, &outgoing::Config::default())?;
        Ok(Self { client: client.into(), runtime: runtime.clone() })
    }
}

impl HttpClient for Post {
    fn send_bytes<'client, 'result>(
        &'client self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'result>>
    where
        'client: 'result,
        Self: 'result,
    {
        let client = self.client.clone();
        let (parts, body) = request.into_parts();
        let posted = self.runtime.spawn(async move { client.post(parts.headers, body).await });
        Box::pin(async move {
            match posted.await? {
                Answer::Http { status, retry_after, body } => {
                    let mut response = http::Response::builder().status(status);
                    if let Some(after) = retry_after {
                        response = response.header(http::header::RETRY_AFTER, after.as_secs());
                    }
                    Ok(response.body(body)?)
                }
                Answer::Unreachable { error } => Err(error.into()),
                Answer::Grpc { .. } => Err("an HTTP client gave a gRPC answer".into()),
            }
        })
    }
}

/// An exporter whose failures are said once per change, on standard error only.
#[derive(Debug)]
struct Watched<E> {
    signal: &'static str,
    failing: AtomicBool,
    exporter: E,
}

impl<E> Watched<E> {
    fn new(signal: &'static str, exporter: E) -> Self {
        Self { signal, failing: AtomicBool::new(false), exporter }
    }

    fn noted(&self, result: OTelSdkResult) -> OTelSdkResult {
        match &result {
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(target: TARGET, signal = self.signal, %error, "own telemetry is not exported");
                }
            }
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(target: TARGET, signal = self.signal, "own telemetry is exported again");
                }
            }
        }
        result
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.noted(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: opentelemetry_sdk::logs::LogExporter> opentelemetry_sdk::logs::LogExporter for Watched<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.noted(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(config: &Config, env: &[(&str, &str)]) -> Result<Plan, Error> {
        let find =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Plan::resolve(config, &find)
    }

    fn target(endpoint: &str, protocol: Protocol) -> Option<Target> {
        Some(Target { endpoint: endpoint.to_owned(), protocol })
    }

    #[test]
    fn nothing_is_exported_unless_asked() {
        let found = plan(&Config::default(), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).expect("valid");
        assert_eq!(found, Plan::default());
        let config = Config { otlp_endpoint: Some("http://c:4318".into()), ..Config::default() };
        let found = plan(&config, &[("OTEL_SDK_DISABLED", "true")]).expect("valid");
        assert_eq!(found, Plan::default());
        let found = plan(&config, &[("OTEL_TRACES_EXPORTER", "none")]).expect("valid");
        assert_eq!(
            (found.traces, found.logs),
            (None, target("http://c:4318/v1/logs", Protocol::HttpProtobuf))
        );
    }

    #[test]
    fn the_environment_comes_before_the_config() {
        let config = Config {
            otlp_endpoint: Some("config:4317".into()),
            otlp_protocol: Some(Protocol::Grpc),
            ..Config::default()
        };
        let found = plan(&config, &[]).expect("valid");
        assert_eq!(found.traces, target("http://config:4317", Protocol::Grpc));
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://env/base/"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ];
        let found = plan(&config, &env).expect("valid");
        assert_eq!(found.traces, target("https://env/base/v1/traces", Protocol::HttpProtobuf));
        assert_eq!(found.logs, target("https://env/base/v1/logs", Protocol::HttpProtobuf));
    }

    #[test]
    fn a_signals_own_endpoint_is_taken_as_it_is() {
        let env = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:9/custom"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://l:4317/"),
        ];
        let found = plan(&Config::default(), &env).expect("valid");
        assert_eq!(found.traces, target("http://t:9/custom", Protocol::HttpProtobuf));
        assert_eq!(found.logs, target("http://l:4317/", Protocol::Grpc));
        let env =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json")];
        let error = plan(&Config::default(), &env).expect_err("not supported").to_string();
        assert_eq!(
            error,
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL: \"http/json\" is not a supported OTLP protocol; use grpc or http/protobuf"
        );
    }

    #[test]
    fn a_bad_filter_is_named_with_its_origin() {
        let config = Config { log: "nodewick=loud".into(), ..Config::default() };
        let error = filter(&config, &|_| None).expect_err("no level").to_string();
        assert!(error.starts_with("telemetry.log: \"nodewick=loud\" is not a log filter: "), "{error}");
        let env = |name: &str| (name == "NODEWICK_LOG").then(|| "debug".to_owned());
        assert_eq!(filter(&config, &env).expect("the environment wins").to_string(), "debug");
        assert_eq!(filter(&Config::default(), &|_| None).expect("the default").to_string(), "info");
    }

    #[test]
    fn the_resource_names_the_agent_unless_the_environment_does() {
        let name = |env: &[(&str, &str)]| {
            let find =
                |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            resource(&find).get(&"service.name".into()).map(|value| value.to_string())
        };
        assert_eq!(name(&[("NODE_NAME", "n")]).as_deref(), Some("nodewick"));
        assert_ne!(
            name(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=mine")]).as_deref(),
            Some("nodewick")
        );
    }
}
