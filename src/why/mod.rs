//! `nodewick why <pod or file>`: where are my logs, and my metrics?
//!
//! In: the running agent's account of its logs, the log files' names and sizes, and the config. Out: an [`Answer`] for
//! each container of the pod: found, read, dropped, sent, and what keeps its lines; and each scrape target of it, or why it has
//! none. Invariants: nothing is changed; of log
//! files at most the last [`SAMPLE`] bytes are looked at, to tell their format, and no line is ever shown.

mod files;
mod find;
mod gather;
mod letters;
mod lines;
mod metrics;
mod render;
mod verdict;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use crate::scrape::status::Row as Target;
pub use find::Question;
pub use gather::ask;

/// Bytes of a log file that are looked at to tell its format.
pub const SAMPLE: usize = 64 << 10;

/// A count of records and of their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What became of one container log, as `/ledger` tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Name of the container.
    pub container: String,
    /// Its restart count.
    pub restart: u32,
    /// `service.name` of its records.
    pub service_name: String,
    /// That name was guessed from the pod's.
    pub service_name_guessed: bool,
    /// Its environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Its tenant, where it is not the sink's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Bytes written since the agent began with it.
    pub written_bytes: u64,
    /// Bytes that every required sink took.
    pub sent_bytes: u64,
    /// Bytes read and not yet acknowledged.
    pub in_flight_bytes: u64,
    /// Bytes not yet read.
    pub waiting_bytes: u64,
    /// Those of them that are spilled.
    pub spilled_bytes: u64,
    /// Bytes that the flight recorder holds back.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_bytes: u64,
    /// Records that it holds back.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_records: u64,
    /// Records that it held back and released.
    #[serde(skip_serializing_if = "is_zero")]
    pub released_records: u64,
    /// What configured processing dropped, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// What is lost, by reason.
    pub lost: BTreeMap<String, Count>,
    /// Records that every required sink took.
    pub delivered_records: u64,
    /// Rotations by which the acknowledged position is behind the live file.
    pub generation_lag: u64,
    /// Bytes written a second.
    pub write_bytes_per_second: Option<f64>,
    /// Seconds until unread bytes are deleted.
    pub time_to_loss_seconds: Option<f64>,
    /// Its files are gone.
    pub gone: bool,
}

/// The files of a container instance on this disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Files, rotated ones included.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds since one of them was written.
    pub age_seconds: u64,
    /// Why the live one cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What the last lines look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// Lines that were looked at.
    pub seen: u64,
    /// Formats with the number of lines.
    pub formats: BTreeMap<&'static str, u64>,
    /// Lines that name a level.
    pub level: u64,
    /// Lines that name a trace id.
    pub trace_id: u64,
    /// Lines that name a request id.
    pub request_id: u64,
}

/// Lines that a backend refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letters {
    /// The sink.
    pub sink: String,
    /// Why, as a word.
    pub reason: String,
    /// How many of them the dead-letter file still has.
    pub count: u64,
    /// What the backend said last.
    pub message: String,
}

/// Whether lines flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// They do.
    Flowing,
    /// There is nothing that could.
    Idle,
    /// They do not.
    Stopped,
}

/// One container of the pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Restart count of the instance that is told of: the newest.
    pub restart: u32,
    /// Whether its lines flow.
    pub flow: Flow,
    /// In one sentence.
    pub verdict: String,
    /// What to do about it; empty when nothing need be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// Its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// What the agent says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// What its last lines look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Lines>,
    /// What was refused for good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<Letters>,
    /// LogQL that finds its lines in Loki.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logql: Option<String>,
    /// The command that asks Loki for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curl: Option<String>,
}

/// A sink, and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sink {
    /// Kind and name.
    pub name: String,
    /// Its backend answers.
    pub up: bool,
    /// What it last answered when it did not take a request, and how many seconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<(String, u64)>,
}

/// A pod on this node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it stands for log files of an application: their source in `[logs.files]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What Kubernetes says that matters here: annotations, problems with them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its scrape targets, or why it has none, as `/targets` tells it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Target>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Lines of the pod flow, and nothing of it is stopped.
    pub flowing: bool,
    /// The pod; several when it was made anew under the same name, the newest first.
    pub pods: Vec<Pod>,
    /// The sinks.
    pub sinks: Vec<Sink>,
    /// Why nothing was found, or how it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What may have been meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub did_you_mean: Vec<String>,
}
