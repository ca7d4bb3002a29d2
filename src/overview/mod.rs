//! One picture of a running agent, for everybody who shows it: the status page, `nodewick top`, scripts.
//!
//! ```text
//! counters, accounts, targets, RED, objectives, health ──► Snapshot ─┐
//!                                        one of some seconds before ─┴─► Overview ─► JSON
//! ```
//!
//! In: what each part of the agent knows. Out: an [`Overview`], with rates between two looks. It is the same at `/overview` of
//! the machines' listener and at `/api/overview` of the people's. Invariants: no log content in it; every list has a limit,
//! and [`Omitted`] says what a limit left out; what is not known is absent, never 0.

mod look;
mod objectives;
mod observe;
mod parts;

use serde::{Deserialize, Serialize};

pub use crate::scrape::status::State as TargetState;
pub use observe::{Accounts, EVERY, Observer, Sources};

/// Container logs that are listed, the worst first.
pub const STREAMS: usize = 500;
/// Services that are listed, the busiest first.
pub const SERVICES: usize = 200;
/// Targets that are listed, those that are down first.
pub const TARGETS: usize = 500;
/// Objectives that are listed, those that burn first.
pub const OBJECTIVES: usize = 200;
/// Bytes of any text that came from outside.
pub const TEXT: usize = 512;

/// One picture of a running agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// Who it is and how it is.
    pub agent: About,
    /// What flows through it.
    pub pipeline: Pipeline,
    /// What it scrapes, in sum.
    pub scraping: Scraping,
    /// Rate, errors and durations, the busiest service first.
    pub services: Vec<Service>,
    /// How objectives stand.
    pub objectives: Objectives,
    /// What is scraped, and what is not and why; those that are down first.
    pub targets: Vec<Target>,
    /// One row a container log, the worst first.
    pub streams: Vec<Stream>,
    /// Where everything goes.
    pub sinks: Vec<Sink>,
    /// What a person should know, the worst first. Empty is good.
    pub issues: Vec<Issue>,
    /// What the limits left out.
    pub omitted: Omitted,
}

/// Who the agent is and how it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Its node.
    pub node: String,
    /// Its cluster; may be empty.
    pub cluster: String,
    /// Time of the picture, milliseconds since the epoch.
    pub time_unix_ms: i64,
    /// Since its start.
    pub uptime_seconds: f64,
    /// Over how long the rates are; `None` in a first picture, which has none.
    pub rates_over_seconds: Option<f64>,
    /// The worst of its issues.
    pub state: Level,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// What its container may use; `None` when nothing limits it.
    pub memory_limit_bytes: Option<u64>,
    /// CPU time, as a share of one core.
    pub cpu_cores: Option<f64>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    #[default]
    Ok,
    /// Worth knowing.
    Notice,
    /// Something does not work as it should; nothing is lost yet.
    Degraded,
    /// It does not do its work, or something is lost.
    Down,
}

/// Lines and bytes that passed a place since the start, and how fast they do.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// Lines since the start.
    pub lines: u64,
    /// Bytes since the start.
    pub bytes: u64,
    /// Lines a second.
    pub lines_per_second: Option<f64>,
    /// Bytes a second.
    pub bytes_per_second: Option<f64>,
}

/// The way of log lines, in the order in which they go it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pipeline {
    /// Container logs that are followed.
    pub logs: u64,
    /// Of these, logs without an open file.
    pub logs_parked: u64,
    /// Container logs that are not read yet because their pod is not known.
    pub logs_waiting: u64,
    /// What containers write, by the sizes of their files; it has no lines.
    pub written: Flow,
    /// What was read of the files.
    pub read: Flow,
    /// Lines in which something was recognised: a level, a time, a trace id, a request. It has no bytes.
    pub parsed: Flow,
    /// What configured processing let through.
    pub processed: Flow,
    /// What every required sink has taken.
    pub delivered: Flow,
    /// Share of the lines that carry a trace id, since the start.
    pub traced_ratio: Option<f64>,
    /// What was dropped because the config says so, by reason and rule.
    pub dropped: Vec<Loss>,
    /// What was lost, by reason. Empty is good.
    pub lost: Vec<Loss>,
    /// What stands between the stages.
    pub pressure: Pressure,
    /// What became of the bytes written.
    pub ledger: Ledger,
}

/// Lines that did not get through, and why.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// Why, as one word of a closed set.
    pub reason: String,
    /// By which rule of the config; empty where there is none.
    pub rule: String,
    /// How much, and how fast.
    pub flow: Flow,
}

/// What waits where.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Log data in memory.
    pub budget_held_bytes: u64,
    /// What of it there may be.
    pub budget_limit_bytes: u64,
    /// Reading rests because memory is full: the files wait.
    pub is_blocked: bool,
    /// Not yet read, on disk or spilled.
    pub unread_bytes: u64,
    /// How long the oldest unread line has waited at most.
    pub oldest_unread_seconds: f64,
    /// Until the kubelet deletes unread bytes, of the log that is worst off; `None` when none is in danger.
    pub time_to_loss_seconds: Option<f64>,
    /// On disk in the spill.
    pub spill_bytes: u64,
    /// What of it there may be; 0 when it is off.
    pub spill_limit_bytes: u64,
    /// Of deleted files that are held open.
    pub held_deleted_bytes: u64,
    /// In the queues of all sinks.
    pub queue_bytes: u64,
}

/// What became of the bytes written: the sum of all but `written_bytes` is `written_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Written since the agent began with each log.
    pub written_bytes: u64,
    /// Taken by every required sink.
    pub sent_bytes: u64,
    /// Read and not yet acknowledged.
    pub in_flight_bytes: u64,
    /// Not yet read.
    pub waiting_bytes: u64,
    /// Dropped by configured processing.
    pub dropped_bytes: u64,
    /// Lost.
    pub lost_bytes: u64,
    /// In none of these; anything but 0 is a bug or a file that was tampered with.
    pub unexplained_bytes: i64,
}

/// What is scraped, in sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scraping {
    /// Targets whose last scrape was good.
    pub up: u64,
    /// Targets whose last scrape failed.
    pub down: u64,
    /// Targets that were not scraped yet.
    pub unknown: u64,
    /// Pods and addresses that are no target.
    pub not_scraped: u64,
    /// Series that targets have now.
    pub series: u64,
    /// Series that they may have together.
    pub series_limit: u64,
    /// Samples taken a second.
    pub samples_per_second: Option<f64>,
    /// Scrapes that gave nothing, a second.
    pub failures_per_second: Option<f64>,
}

/// Rate, errors and durations of one workload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Workload.
    pub workload: String,
    /// Name of the service, as its lines carry it.
    pub service: String,
    /// Where its requests are counted from: "log", "scrape"; empty while nowhere.
    pub source: String,
    /// Share of its lines in the last hour that was not lost, so that they can be trusted to tell everything.
    pub confidence: f64,
    /// How far counting is behind.
    pub lag_seconds: f64,
    /// Since the counters began.
    pub whole: Red,
    /// In the last minute, or what there is of it.
    pub last_minute: Red,
    /// The last minutes, oldest first: for a small line.
    pub history: Vec<Point>,
}

/// Figures of requests over some time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Red {
    /// Requests in that time.
    pub requests: u64,
    /// Of these answered with a 5xx.
    pub errors: u64,
    /// Requests a second; `None` where the time is not known.
    pub per_second: Option<f64>,
    /// Errors by requests; `None` without requests.
    pub error_ratio: Option<f64>,
    /// Half of the requests took no longer, by the buckets of their histogram; `None` without durations.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 requests took no longer.
    pub p99_seconds: Option<f64>,
}

/// One step of a service's history.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Its end, milliseconds since the epoch.
    pub time_unix_ms: i64,
    /// Requests a second.
    pub per_second: f64,
    /// Errors a second.
    pub errors_per_second: f64,
    /// 99 of 100 requests took no longer.
    pub p99_seconds: Option<f64>,
}

/// How objectives stand.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Objectives {
    /// Whether the agent judges them itself.
    pub evaluated: bool,
    /// Why it does not; empty when it does.
    pub reason: String,
    /// When it did last, milliseconds since the epoch.
    pub evaluated_unix_ms: Option<i64>,
    /// Each of them, those that burn first.
    pub rows: Vec<Objective>,
}

/// How one objective stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Objective {
    /// `<namespace>/<workload>/<name>`.
    pub id: String,
    /// What is measured: "availability", "latency".
    pub sli: String,
    /// Longest good duration, of latency.
    pub threshold_seconds: Option<f64>,
    /// Share that must be good.
    pub objective: f64,
    /// Over how long: "30d".
    pub window: String,
    /// "observe" or "alert".
    pub mode: String,
    /// Who answers for it; may be empty.
    pub owner: String,
    /// How it stands.
    pub state: ObjectiveState,
    /// Share that was good over its window; `None` without traffic.
    pub good_ratio: Option<f64>,
    /// Events over its window.
    pub events: Option<f64>,
    /// Share of the budget that is left; below 0 when more than all of it is gone.
    pub budget_left: Option<f64>,
    /// Share of the window of which something is known.
    pub coverage: Option<f64>,
    /// Until the budget is gone at the rate of the last hour; `None` when it will not be.
    pub exhausted_in_seconds: Option<f64>,
    /// How fast the budget goes, over the pairs of ranges that alerts are made of.
    pub burns: Vec<Burn>,
    /// Alerts of it that are pending or firing.
    pub alerts: Vec<Alert>,
    /// What cannot be evaluated here.
    pub problems: Vec<String>,
}

/// How an objective stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveState {
    /// Nothing was asked of the service: no verdict.
    #[default]
    NoTraffic,
    /// Within its budget.
    Ok,
    /// The budget is gone; it does not burn just now.
    Exhausted,
    /// A pair of ranges is above its threshold.
    Burning,
    /// An alert is firing.
    Firing,
}

/// How fast a budget goes over one pair of ranges; 1 spends exactly all of it by the end of the window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Burn {
    /// Who would be called: "page" or "ticket".
    pub severity: String,
    /// The long range: "1h".
    pub long: String,
    /// The short range: "5m".
    pub short: String,
    /// Over the long range; `None` without traffic.
    pub long_burn: Option<f64>,
    /// Over the short range; `None` without traffic.
    pub short_burn: Option<f64>,
    /// Above this in both ranges it is too fast.
    pub threshold: f64,
    /// It is too fast.
    pub is_over: bool,
}

/// An alert that is pending or firing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// "pending" or "firing".
    pub state: String,
    /// Since when, milliseconds since the epoch.
    pub since_unix_ms: Option<i64>,
    /// What it says, in a line.
    pub summary: String,
}

/// What is scraped, or not and why.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// Namespace of the pod; empty for a static target.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Where it is scraped.
    pub url: String,
    /// Label `job` of its series.
    pub job: String,
    /// Whether it answers.
    pub state: TargetState,
    /// Why it is scraped, or why not, as one word of a closed set.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// How often it is scraped.
    pub interval_seconds: Option<f64>,
    /// How long ago it was last scraped.
    pub age_seconds: Option<f64>,
    /// How long that took.
    pub duration_seconds: Option<f64>,
    /// Samples of its last good scrape.
    pub samples: Option<u64>,
    /// What its last failed scrape said; it may have been good since.
    pub last_error: Option<String>,
    /// How long ago that was.
    pub last_error_age_seconds: Option<f64>,
}

/// One container log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Container.
    pub container: String,
    /// Restart count of the container.
    pub restart: u32,
    /// Service that its lines name.
    pub service: String,
    /// What its container writes, by the size of its files.
    pub bytes_per_second: Option<f64>,
    /// Lines of it that sinks take.
    pub lines_per_second: Option<f64>,
    /// Bytes written since the agent began with it.
    pub written_bytes: u64,
    /// Lines that every required sink took.
    pub delivered_lines: u64,
    /// Not yet acknowledged: unread and in flight.
    pub lag_bytes: u64,
    /// The same as time, at the rate at which it is written; `None` when nothing is written.
    pub lag_seconds: Option<f64>,
    /// Rotations by which the acknowledged position is behind the live file.
    pub generation_lag: u64,
    /// Until the kubelet deletes what is unread if nothing more is read; `None` when nothing is in danger.
    pub time_to_loss_seconds: Option<f64>,
    /// Bytes lost since the agent began with it.
    pub lost_bytes: u64,
    /// Bytes dropped because the config says so.
    pub dropped_bytes: u64,
    /// How it stands.
    pub state: StreamState,
}

/// How a container log stands, in one word; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// Its files are gone from the node.
    Gone,
    /// Nothing is written and nothing waits.
    #[default]
    Idle,
    /// What is written is delivered.
    Live,
    /// More than a few seconds wait.
    Behind,
    /// What waits is deleted within ten minutes.
    InDanger,
    /// Something of it was lost in the last minutes.
    Losing,
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sink {
    /// Kind and name: "loki.main".
    pub name: String,
    /// "logs" or "metrics".
    pub signal: String,
    /// Its backend answers; `None` where there is nobody who would.
    pub up: Option<bool>,
    /// Lines, or samples, that it delivered; bytes are those of compressed requests.
    pub delivered: Flow,
    /// Lines or samples that its backend refused for good or that it could not keep.
    pub lost: u64,
    /// Requests a second.
    pub requests_per_second: Option<f64>,
    /// Requests a second that had to be sent again.
    pub retries_per_second: Option<f64>,
    /// 99 of 100 requests since the start took no longer.
    pub p99_seconds: Option<f64>,
    /// In its queue or in flight.
    pub queue_bytes: u64,
    /// How long ago its backend last took something.
    pub last_success_age_seconds: Option<f64>,
    /// What its backend last said when it did not take a request; it may have taken some since.
    pub last_error: Option<String>,
    /// How long ago that was.
    pub last_error_age_seconds: Option<f64>,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Issue {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a check, a sink, a log.
    pub about: String,
    /// What is the case, and where a person can act, what to do.
    pub text: String,
}

/// How many rows the limits left out of each list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Omitted {
    /// Services.
    pub services: u64,
    /// Targets.
    pub targets: u64,
    /// Container logs.
    pub streams: u64,
    /// Objectives.
    pub objectives: u64,
}
