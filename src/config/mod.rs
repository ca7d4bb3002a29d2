//! The config: every module's own `Config` under its table, how it is loaded, checked and rendered.
//!
//! In: a TOML file, `NODEWICK_*` variables and flags. Out: one [`Config`], or [`Diagnostics`] with line and caret.
//! Invariant: keys, defaults and docs come from the types alone; the loader, `config/agent.toml`, the reference and
//! `check` read the same schema.

mod checks;
pub mod diagnostics;
mod interpolate;
pub mod load;
pub mod memory;
pub mod render;
pub mod resolved;
pub mod schema;
pub mod tree;
mod values;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::admin;
use crate::data::batch::{FIELD_NAMES, Fields};
use crate::data::units::ByteSize;

pub use diagnostics::{Diagnostic, Diagnostics};
pub use load::{Loaded, Sources, load};
pub use memory::MemoryBound;

pub use crate::logs::process;
pub use crate::sink::{alertmanager, local, loki, otlp, remote_write, stdout};
pub use crate::{host, kube, logs, red, scrape, slo, telemetry, ui};

/// The whole config.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The agent itself: who it is, where it keeps its state, how much it may hold.
    pub agent: Agent,
    /// Where container logs are read and how.
    pub logs: logs::Config,
    /// What every record carries to the sinks.
    pub record: Record,
    /// What happens to records between reading and sending. All of it is off until configured.
    pub process: process::Config,
    /// How the agent learns of its node's pods, whose labels the lines carry.
    pub kube: kube::Config,
    /// How metrics are collected from pods and from addresses that you name.
    pub scrape: scrape::Config,
    /// Rate, errors and duration of every workload, from its access lines and its own metrics.
    pub red: red::Config,
    /// Objectives of workloads, from which rules, alerts and runbooks are rendered.
    pub slo: slo::Config,
    /// Burn rates judged by the agent itself, where no Prometheus does it.
    pub evaluator: slo::eval::Config,
    /// Alertmanagers that the evaluator tells of its alerts. Each gets all of them.
    pub alertmanager: BTreeMap<String, alertmanager::Config>,
    /// Figures of the node and its containers.
    pub host: host::Config,
    /// Where records go. Without any sink they go to the embedded local store.
    pub sink: Sinks,
    /// The listener for machines: metrics and health.
    pub admin: admin::Config,
    /// The listener for people: the status page, live lines, search.
    pub ui: ui::Config,
    /// The agent's own logs.
    pub telemetry: telemetry::Config,
}

/// `[agent]`: who the agent is, where it keeps its state, how much it may hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Name of the cluster: the Loki label `cluster` and the resource attribute `k8s.cluster.name`. Set it wherever
    /// more than one cluster writes to the same backend.
    pub cluster: String,
    /// Name of the node. Empty means the variable `NODE_NAME` (downward API), else the host name.
    pub node: String,
    /// Deployment environment (`production`, `staging`). Empty means what the pods' labels say.
    pub environment: String,
    /// The one directory that the agent writes: checkpoints, the spill of logs that are about to be deleted, dead
    /// letters and the local store. Keep it on a disk that survives restarts of the pod.
    #[schemars(with = "String")]
    pub state_dir: PathBuf,
    /// Log data held in memory between reading and acknowledgement. When it is spent, reading stops and the log
    /// files wait on disk. Raise it if `nodewick_log_lag_bytes` grows while the CPU is idle. Left at its default it is lowered,
    /// to no less than 8MiB, where the container's memory limit would not hold everything that is configured.
    pub memory: ByteSize,
    /// Let the kernel (Landlock, Linux 5.13 and newer) keep the process to the files that this config names. Turn it
    /// off if a reload must be able to name files elsewhere.
    pub landlock: bool,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            node: String::new(),
            environment: String::new(),
            state_dir: "/var/lib/nodewick".into(),
            memory: ByteSize::mib(32),
            landlock: true,
        }
    }
}

/// `[record]`: what every record carries to the sinks.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// Fields beside the line itself that go out with each record. Leave out what nobody queries: each costs CPU
    /// here and bytes in the backend.
    pub fields: FieldSet,
}

/// A set of record fields, written as a list of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldSet(pub Fields);

impl Default for FieldSet {
    fn default() -> Self {
        Self(Fields::ALL)
    }
}

struct FieldName(Fields);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        Fields::by_name(&name).map(Self).ok_or_else(|| serde::de::Error::unknown_variant(&name, &FIELD_NAMES))
    }
}

impl<'de> Deserialize<'de> for FieldSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<FieldName>::deserialize(deserializer)?;
        Ok(Self(names.into_iter().fold(Fields::NONE, |set, name| set.with(name.0))))
    }
}

impl Serialize for FieldSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.names())
    }
}

impl JsonSchema for FieldSet {
    fn schema_name() -> Cow<'static, str> {
        "FieldSet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "array", "uniqueItems": true, "items": {"type": "string", "enum": FIELD_NAMES}
        })
    }
}

/// `[sink.<kind>.<name>]`: the sinks by kind and name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sinks {
    /// Grafana Loki.
    pub loki: BTreeMap<String, loki::Config>,
    /// Any OTLP receiver of logs: an OpenTelemetry collector, a vendor's endpoint.
    pub otlp: BTreeMap<String, otlp::Config>,
    /// Any receiver of Prometheus remote write: Prometheus, Mimir, VictoriaMetrics, Grafana Cloud.
    pub remote_write: BTreeMap<String, remote_write::Config>,
    /// JSON lines on standard output.
    pub stdout: BTreeMap<String, stdout::Config>,
    /// The embedded store on disk that the status page and `nodewick tail` read.
    pub local: BTreeMap<String, local::Config>,
}

/// Name of the local store that serves when no sink is configured.
pub const DEFAULT_STORE: &str = "default";

impl Sinks {
    /// True when nothing is configured that takes logs, so that the embedded store serves.
    pub fn is_empty(&self) -> bool {
        let otlp = self.otlp.values().any(|sink| sink.takes(otlp::Signal::Logs));
        self.loki.is_empty() && !otlp && self.stdout.is_empty() && self.local.is_empty()
    }

    /// True when a sink takes metrics, so that they need not be kept for whoever may fetch them.
    pub fn takes_metrics(&self) -> bool {
        !self.remote_write.is_empty() || self.otlp.values().any(|sink| sink.takes(otlp::Signal::Metrics))
    }

    /// The local stores that run: those configured, or the embedded default when no sink is.
    pub fn stores(&self) -> Vec<(&str, local::Config)> {
        if self.is_empty() {
            return vec![(DEFAULT_STORE, local::Config::default())];
        }
        self.local.iter().map(|(name, sink)| (name.as_str(), sink.clone())).collect()
    }
}

impl Config {
    /// Where `[agent] memory` is left at its default and all together is above `limit`, lowers it to what is left, but not
    /// below 8MiB; what it was lowered to. A page that nobody asked for (`[ui] listen = "auto"`) is off where even that
    /// leaves too little.
    pub fn fit(&mut self, limit: Option<u64>) -> Option<ByteSize> {
        const LEAST: u64 = 8 << 20;
        let default = Agent::default().memory;
        let limit = limit?;
        let above = self.memory_bound().total().checked_sub(limit).filter(|above| *above > 0)?;
        // In whole MiB, as people read it.
        let left = default.0.saturating_sub(above) >> 20 << 20;
        if self.agent.memory != default || left < LEAST {
            if self.ui.is_on(true) && !self.ui.is_on(false) {
                let asked = std::mem::replace(&mut self.ui.listen, "off".to_owned());
                let fitted = self.fit(Some(limit));
                if self.memory_bound().fits(Some(limit)).is_ok() {
                    return fitted;
                }
                self.ui.listen = asked;
            }
            return None;
        }
        self.agent.memory = ByteSize(left);
        Some(self.agent.memory)
    }

    /// Whether the agent evaluates its objectives; why not.
    pub fn evaluates(&self) -> Result<(), &'static str> {
        self.evaluator.runs(self.slo.specs().len(), self.sink.takes_metrics())
    }

    /// Everything that may be held in memory at once, by what holds it.
    pub fn memory_bound(&self) -> MemoryBound {
        memory::bound(self)
    }
}

/// The keys of a section in the order in which its struct declares them, for rendering.
fn declared_order(section: &str) -> Vec<&'static str> {
    match section {
        "agent" => fields_of::<Agent>(),
        "logs" => fields_of::<logs::Config>(),
        "logs.multiline" => fields_of::<logs::multiline::Config>(),
        "logs.multiline.rule.billing" | "logs.multiline.rule.<name>" => fields_of::<logs::multiline::Rule>(),
        "logs.files.app" | "logs.files.<name>" => fields_of::<logs::files::Config>(),
        "logs.spill" => fields_of::<logs::spill::Config>(),
        "record" => fields_of::<Record>(),
        "process" => fields_of::<process::Config>(),
        "kube" => fields_of::<kube::Config>(),
        "kube.kubelet" => fields_of::<kube::Kubelet>(),
        "scrape" => fields_of::<scrape::Config>(),
        "scrape.tls" => fields_of::<scrape::config::Tls>(),
        "scrape.static" => fields_of::<scrape::config::Static>(),
        "scrape.relabel" | "scrape.metric_relabel" => fields_of::<scrape::relabel::Config>(),
        "red" => fields_of::<red::Config>(),
        "slo.defaults" => fields_of::<slo::config::Defaults>(),
        "slo.checkout-latency" | "slo.<name>" => fields_of::<slo::config::Declared>(),
        "slo.checkout-latency.match" | "slo.<name>.match" => fields_of::<slo::config::Match>(),
        "evaluator" => fields_of::<slo::eval::Config>(),
        "alertmanager.main" | "alertmanager.<name>" => fields_of::<alertmanager::Config>(),
        "host" => fields_of::<host::Config>(),
        "sink" => fields_of::<Sinks>(),
        "sink.loki.main" | "sink.loki.<name>" => fields_of::<loki::Config>(),
        "sink.otlp.main" | "sink.otlp.<name>" => fields_of::<otlp::Config>(),
        "sink.otlp.main.metrics" | "sink.otlp.<name>.metrics" => fields_of::<otlp::metrics::Config>(),
        "sink.remote_write.main" | "sink.remote_write.<name>" => fields_of::<remote_write::Config>(),
        "sink.stdout.main" | "sink.stdout.<name>" => fields_of::<stdout::Config>(),
        "sink.local.main" | "sink.local.<name>" => fields_of::<local::Config>(),
        "sink.loki.main.auth.oauth2"
        | "sink.loki.<name>.auth.oauth2"
        | "sink.otlp.main.auth.oauth2"
        | "sink.otlp.<name>.auth.oauth2"
        | "sink.remote_write.main.auth.oauth2"
        | "alertmanager.main.auth.oauth2"
        | "alertmanager.<name>.auth.oauth2"
        | "sink.remote_write.<name>.auth.oauth2" => fields_of::<crate::sink::http::OAuth2>(),
        "admin" => fields_of::<admin::Config>(),
        "ui" => fields_of::<ui::Config>(),
        "telemetry" => fields_of::<telemetry::Config>(),
        _ => Vec::new(),
    }
}

/// The field names that a derived `Deserialize` asks for, in order.
fn fields_of<T: serde::de::DeserializeOwned>() -> Vec<&'static str> {
    struct Ask<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only field names are asked for"))
        }

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend_from_slice(fields);
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields = Vec::new();
    let asked = T::deserialize(Ask(&mut fields));
    debug_assert!(asked.is_err(), "the question has no value to give");
    fields
}
