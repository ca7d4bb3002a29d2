//! The table of every metric that the agent exposes about itself, and the handles to count with.
//!
//! One row a metric: `nodewick_<noun>_<unit>[_total]`, base units, at most three labels, each a closed set.
//! `docs/reference/metrics.md` is rendered from this table; a dashboard or an alert may only name what is here.

use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The kind of a metric, as Prometheus names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// One metric of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name on the page.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it counts, one sentence.
    pub help: &'static str,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// The registry behind `/metrics`, with every metric of the table registered.
pub fn registry() -> &'static Registry {
    register_all();
    &REGISTRY
}

/// Seconds for anything that goes over the network.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

macro_rules! handle {
    (counter, []) => {
        IntCounter
    };
    (counter, [$($label:literal),+]) => {
        IntCounterVec
    };
    (gauge, []) => {
        IntGauge
    };
    (gauge, [$($label:literal),+]) => {
        IntGaugeVec
    };
    (histogram, []) => {
        Histogram
    };
    (histogram, [$($label:literal),+]) => {
        HistogramVec
    };
}

macro_rules! make {
    (counter, $name:literal, $help:expr, []) => { IntCounter::new($name, $help) };
    (counter, $name:literal, $help:expr, [$($label:literal),+]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+])
    };
    (gauge, $name:literal, $help:expr, []) => { IntGauge::new($name, $help) };
    (gauge, $name:literal, $help:expr, [$($label:literal),+]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),+])
    };
    (histogram, $name:literal, $help:expr, []) => {
        prometheus::Histogram::with_opts(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()))
    };
    (histogram, $name:literal, $help:expr, [$($label:literal),+]) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()), &[$($label),+])
    };
}

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (histogram) => {
        Kind::Histogram
    };
}

macro_rules! table {
    ($($kind:ident $handle:ident = $name:literal $labels:tt, $help:literal;)*) => {
        /// Every metric of the agent itself, in the order of the data flow.
        pub const TABLE: &[Row] = &[$(Row { name: $name, kind: kind!($kind), labels: &$labels, help: $help }),*];

        $(#[doc = $help]
        pub static $handle: LazyLock<handle!($kind, $labels)> = LazyLock::new(|| {
            let metric = make!($kind, $name, $help, $labels).expect("table rows are valid metrics");
            REGISTRY.register(Box::new(metric.clone())).expect("table rows have unique names");
            metric
        });)*

        fn register_all() {
            $(LazyLock::force(&$handle);)*
        }
    };
}

table! {
    // logs
    gauge LOGS_OPEN = "nodewick_logs_open" [],
        "Container logs that are being followed.";
    gauge LOGS_PARKED = "nodewick_logs_parked" [],
        "Container logs of these without an open file, because file descriptors are scarce or the log is only in the spill.";
    gauge LOGS_WAITING = "nodewick_logs_waiting_for_labels" [],
        "Container logs that are not read yet because their pod is not known; after ten seconds they go with what their path says.";
    counter LOG_READ_BYTES = "nodewick_log_read_bytes_total" [],
        "Bytes read from container log files.";
    counter LOG_RECORDS = "nodewick_log_records_total" [],
        "Records framed from container log files.";
    counter WORKLOAD_RECORDS = "nodewick_workload_records_total" ["namespace", "service", "trace"],
        "Records by workload and by how they came to a trace id (own, inherited, none): which services log no trace ids.";
    counter WORKLOAD_LINES = "nodewick_workload_lines_total" ["namespace", "workload", "level"],
        "Records of a workload by level (trace, debug, info, warn, error, fatal, unknown), after configured dropping. At most 250 workloads have series of their own, later ones share (other).";
    counter WORKLOAD_BYTES = "nodewick_workload_log_bytes_total" ["namespace", "workload"],
        "Bytes of a workload's lines, after configured dropping.";
    gauge WORKLOAD_LOGS = "nodewick_workload_logs" ["namespace", "workload"],
        "Container logs of a workload that are followed on this node.";
    counter WORKLOAD_PANICS = "nodewick_workload_panics_total" ["namespace", "workload"],
        "Lines of a workload that tell of a panic or of an exception that nobody caught.";
    counter WORKLOAD_NEW_ERROR_PATTERNS = "nodewick_workload_new_error_patterns_total" ["namespace", "workload"],
        "Patterns of error lines (their message without what looks like an id or a number) that a workload had not written before. The first ten minutes teach; 64 patterns a workload are kept, and none is new after that.";
    counter WORKLOAD_SECRETS = "nodewick_workload_secret_records_total" ["namespace", "workload"],
        "Records of a workload from which a secret was removed by a built-in rule (a key, a token, a password; addresses are none).";
    counter WORKLOAD_UNPARSED = "nodewick_workload_unparsed_records_total" ["namespace", "workload"],
        "Records of a workload in which nothing was recognised: no level, time, trace id or request.";
    gauge LOG_OLDEST_UNREAD = "nodewick_log_oldest_unread_age_seconds" [],
        "How long the oldest unread line of any container log has waited at most, 0 when all is read.";
    gauge LOG_LAG_BYTES = "nodewick_log_lag_bytes" [],
        "Bytes on disk that are not yet read, over all container logs.";
    gauge LOG_WATCHES_MISSING = "nodewick_log_watches_missing" [],
        "Directory watches that the system refused; those directories are polled instead.";
    counter LOG_ROTATIONS = "nodewick_log_rotations_total" [],
        "Log files that were rotated away and followed to their end.";
    counter LOG_TRUNCATIONS = "nodewick_log_truncations_total" [],
        "Log files that became shorter than what was read of them; what was written before the cut may be lost.";
    counter LOG_GAPS = "nodewick_log_gaps_total" [],
        "Holes in logs of which nobody knows the size, logs that vanished with a backlog while the agent was away, and compressed files that are damaged: lines are lost there.";
    counter LOG_READ_ERRORS = "nodewick_log_read_errors_total" [],
        "Reads of a log file that failed and are tried again.";
    counter LOG_MALFORMED = "nodewick_log_malformed_total" ["kind"],
        "Lines that were not as their format demands, by kind; they are delivered all the same.";
    counter LOG_MULTILINE = "nodewick_log_multiline_records_total" ["language"],
        "Records that were joined from several lines, by the language of their stack trace (java, python, go, node, dotnet, ruby, rust, php, other).";
    counter LOG_SKIPPED_FILES = "nodewick_log_skipped_files_total" ["reason"],
        "Files below the log root that are not read, by reason.";
    counter LOG_LOST_BYTES = "nodewick_log_lost_bytes_total" ["reason"],
        "Bytes that were lost before they could be read, by reason.";
    gauge LOG_HELD_DELETED_BYTES = "nodewick_log_held_deleted_bytes" [],
        "Bytes of deleted log files that are held open because they are neither delivered nor spilled.";
    gauge SPILL_BYTES = "nodewick_spill_bytes" [],
        "Bytes on disk that the spill holds.";
    gauge SPILL_LIMIT_BYTES = "nodewick_spill_limit_bytes" [],
        "Bytes on disk that the spill may hold ([logs.spill] budget), 0 when it is off.";
    counter SPILL_WRITTEN_BYTES = "nodewick_spill_written_bytes_total" [],
        "Log bytes that were spilled because the kubelet was about to delete them.";
    counter SPILL_FAILURES = "nodewick_spill_failures_total" [],
        "Spilled stretches that could not be made durable and are spilled again.";
    counter SPILL_DAMAGED = "nodewick_spill_damaged_frames_total" [],
        "Spilled frames that could not be read back.";
    counter RECORDS_DROPPED = "nodewick_records_dropped_total" ["reason", "rule"],
        "Records that configured processing dropped, by reason (drop, sample, rate_limit, dedup, recorder) and rule; the rule annotation is the sample annotation of pods; reason recorder are lines that the flight recorder held back and nothing released.";
    gauge RECORDER_HELD_RECORDS = "nodewick_recorder_held_records" [],
        "Records that the flight recorder holds back.";
    gauge RECORDER_HELD_BYTES = "nodewick_recorder_held_bytes" [],
        "Memory of the records that the flight recorder holds back; part of the log data in memory.";
    counter RECORDER_RELEASED = "nodewick_recorder_released_records_total" ["cause"],
        "Records that the flight recorder released, by cause: error (of their trace or request), passed (they came after it), neighbour (an error of their trace in another container), death (of the container).";
    counter REDACTIONS = "nodewick_redactions_total" ["rule"],
        "Pieces of text that were redacted before they left the node, by rule.";
    counter RECORDS_LOST = "nodewick_records_lost_total" ["reason"],
        "Records that a required sink refused for good, by reason.";
    // ledger
    gauge LEDGER_BYTES = "nodewick_ledger_bytes" ["state"],
        "Log file bytes since the start by what became of them (written, sent, in_flight, waiting, held, dropped, lost): written is the sum of the others and of what is unexplained. Lines dropped or refused count without what the runtime wrote around them.";
    gauge LEDGER_UNEXPLAINED_BYTES = "nodewick_ledger_unexplained_bytes" [],
        "Bytes written to logs that the ledger cannot account for, as of each log's last rotation; anything but 0 is a bug or a file that was tampered with.";
    gauge LOG_GENERATION_LAG_MAX = "nodewick_log_generation_lag_max" [],
        "Rotations by which the acknowledged position of the worst container log is behind its live file.";
    gauge LOG_TIME_TO_LOSS_MIN = "nodewick_log_time_to_loss_min_seconds" [],
        "Least time over all container logs with a backlog until the kubelet deletes unread bytes at the present write rate; 31536000 (a year) when none is in danger.";
    gauge LOG_GENERATION_LAG = "nodewick_log_generation_lag" ["namespace", "pod", "container"],
        "Rotations by which the acknowledged position is behind the live file, of the 20 worst containers with a backlog.";
    gauge LOG_TIME_TO_LOSS = "nodewick_log_time_to_loss_seconds" ["namespace", "pod", "container"],
        "Time until the kubelet deletes unread bytes at the present write rate, of the 20 worst containers with a backlog; 31536000 (a year) when nothing is written.";
    gauge LOG_UNREAD_BYTES = "nodewick_log_unread_bytes" ["namespace", "pod", "container"],
        "Bytes not yet read, on disk or spilled, of the 20 worst containers with a backlog.";
    // config
    gauge CONFIG_RELOAD_SUCCESSFUL = "nodewick_config_last_reload_successful" [],
        "1 when the config as last read is in force, 0 when it could not be used and the last good one stays in force.";
    gauge CONFIG_RELOAD_TIMESTAMP = "nodewick_config_last_reload_success_timestamp_seconds" [],
        "When a config was last found good, at the start or by a reload, seconds since the epoch.";
    gauge CONFIG_RESTART_KEYS = "nodewick_config_keys_awaiting_restart" [],
        "Keys (or whole tables) of the config that were changed since the start and take effect at the next restart only.";
    gauge CONFIG_INFO = "nodewick_config_info" ["hash"],
        "Always 1; the hash is of the config in force without the node's name and without what comes from the environment or from files, so that all nodes of one rollout have the same.";
    // Kubernetes
    counter KUBE_EVENTS = "nodewick_kube_watch_events_total" ["resource", "type"],
        "Events of the watches by resource (pods, namespaces) and type (added, modified, deleted, bookmark, error).";
    counter KUBE_REQUESTS = "nodewick_kube_requests_total" ["resource", "verb"],
        "Requests to the API server or the kubelet by resource and verb (list, streaming_list, watch, get): at most one list in five minutes in steady state.";
    counter KUBE_ERRORS = "nodewick_kube_errors_total" ["resource", "reason"],
        "Requests and watches that failed by reason (unreachable, unauthorized, forbidden, expired, throttled, refused, silent, malformed, unconfigured); logs flow all the same.";
    gauge KUBE_SYNCED = "nodewick_kube_synced" ["resource"],
        "1 once everything has been listed since the start; without it lines carry what their path says.";
    gauge KUBE_PODS = "nodewick_kube_pods" ["state"],
        "Pods of this node: living, and kept, which includes deleted ones whose last lines may still be read.";
    gauge KUBE_LAST_CONTACT = "nodewick_kube_last_contact_timestamp_seconds" ["resource"],
        "When the API server or the kubelet last sent anything, seconds since the epoch.";
    counter KUBE_ANNOTATION_PROBLEMS = "nodewick_kube_annotation_problems_total" [],
        "Annotations of pods and namespaces that are not understood or not allowed, each value counted once.";
    // scrape
    counter SCRAPE_SAMPLES = "nodewick_scrape_samples_total" ["outcome"],
        "Samples of scraped pages by outcome: taken, dropped by a rule, duplicate (on the same page), repeated (own time as before), out_of_order, out_of_bounds (own time an hour behind or ten minutes ahead), own_up (named as one of the synthetic series), series_limit (a new series above [scrape] series_limit), failed (the page was not taken).";
    counter SCRAPE_SERIES_ENDED = "nodewick_scrape_series_ended_total" [],
        "Series that were marked as ended, because a page lacks them, a scrape failed or a target is no more.";
    gauge SCRAPE_SERIES = "nodewick_scrape_series" [],
        "Series that scraped targets have now, together; [scrape] series_limit bounds them.";
    gauge SCRAPE_SERIES_LIMIT = "nodewick_scrape_series_limit" [],
        "Series that scraped targets may have together ([scrape] series_limit).";
    // memory
    gauge MEMORY_LIMIT_BYTES = "nodewick_memory_limit_bytes" [],
        "Memory that the agent's container may use, 0 when nothing limits it.";
    gauge BUDGET_HELD_BYTES = "nodewick_budget_held_bytes" [],
        "Bytes of log data held in memory.";
    gauge BUDGET_LIMIT_BYTES = "nodewick_budget_limit_bytes" [],
        "Bytes of log data that may be held in memory.";
    // state
    gauge CHECKPOINT_TIMESTAMP = "nodewick_checkpoint_timestamp_seconds" [],
        "When the checkpoint was last made durable, seconds since the epoch.";
    counter CHECKPOINT_FAILURES = "nodewick_checkpoint_failures_total" [],
        "Checkpoints that could not be made durable.";
    counter CHECKPOINT_CORRUPT = "nodewick_checkpoint_corrupt_total" ["file"],
        "State files of which no slot could be read at start.";
    // scrape
    gauge SCRAPE_TARGETS = "nodewick_scrape_targets" [],
        "Targets that are scraped.";
    counter SCRAPES = "nodewick_scrapes_total" [],
        "Scrapes that have ended, well or not.";
    counter SCRAPE_FAILURES = "nodewick_scrape_failures_total" ["reason"],
        "Scrapes that gave nothing, by reason: connect, timeout, status, body_too_large, body, content_type, malformed, limit, memory, moved.";
    histogram SCRAPE_SECONDS = "nodewick_scrape_duration_seconds" [],
        "How long scrapes took, from connecting to the last byte.";
    counter SCRAPE_BODY_BYTES = "nodewick_scrape_body_bytes_total" [],
        "Bytes of scraped bodies, decompressed.";
    counter SCRAPE_TICKS_SKIPPED = "nodewick_scrape_ticks_skipped_total" ["reason"],
        "Scrapes that were left out because the one before was still running (running), or because what was scraped is not taken over fast enough (behind).";
    // rate, errors, duration
    counter RED_REFUSED = "nodewick_red_refused_total" ["reason"],
        "What RED turned away at a limit, by reason: logs, workloads and pods that are too many and the requests in their lines (requests), routes counted as __other__ (cells), open requests that cannot be joined (joins), series of scraped families (series), objectives that are not counted (objectives).";
    counter RED_MISSED = "nodewick_red_missed_total" ["reason"],
        "Times that lines of a log were shipped and were gone before a restart could count their requests, so that RED may show some too few, by reason: rotated (files were deleted before they were read again), deleted (the whole log was), truncated, unreadable.";
    counter RED_STATE_FAILURES = "nodewick_red_state_failures_total" [],
        "Times that the RED counters could not be made durable; counting goes on, but a crash may count requests twice.";
    // objectives
    counter EVALUATIONS = "nodewick_evaluator_evaluations_total" [],
        "Times that the agent has evaluated its objectives itself; it stands still where a Prometheus does it.";
    gauge EVALUATOR_SERIES = "nodewick_evaluator_series" [],
        "Series whose samples of the last six hours are kept to judge objectives.";
    counter EVALUATOR_REFUSED = "nodewick_evaluator_samples_refused_total" [],
        "Samples of series beyond what is kept to judge objectives, so that these may see too few events.";
    counter EVALUATOR_STATE_FAILURES = "nodewick_evaluator_state_failures_total" [],
        "Times that what is known of objectives could not be made durable; it goes on in memory, but a restart forgets it.";
    counter ALERTMANAGER_ALERTS = "nodewick_alertmanager_alerts_total" ["alertmanager", "outcome"],
        "Alerts that were told to an Alertmanager, by outcome (delivered, refused, retried); each is told once a minute.";
    gauge ALERTMANAGER_UP = "nodewick_alertmanager_up" ["alertmanager"],
        "1 while an Alertmanager takes alerts, 0 when the last ones were not taken.";
    // sinks
    counter SINK_RECORDS = "nodewick_sink_records_total" ["sink", "outcome"],
        "Records by sink and outcome (delivered, lost, dropped).";
    counter SINK_REQUESTS = "nodewick_sink_requests_total" ["sink", "outcome"],
        "Requests by sink and outcome (delivered, retry, split, refused).";
    counter SINK_SENT_BYTES = "nodewick_sink_sent_bytes_total" ["sink"],
        "Bytes of request bodies sent, compressed.";
    histogram SINK_REQUEST_SECONDS = "nodewick_sink_request_duration_seconds" ["sink"],
        "Time from sending a request to its answer.";
    gauge SINK_QUEUE_BYTES = "nodewick_sink_queue_bytes" ["sink"],
        "Bytes that wait in a sink's queue or in flight.";
    gauge SINK_UP = "nodewick_sink_up" ["sink"],
        "1 while the sink's backend answers, 0 while its breaker is open.";
    gauge SINK_LAST_SUCCESS = "nodewick_sink_last_success_timestamp_seconds" ["sink"],
        "When the sink's backend last took something, seconds since the epoch; before that, when the sink was started.";
    gauge CLOCK_SKEW = "nodewick_clock_skew_seconds" ["peer"],
        "This node's clock less that of who answered (a backend's host, or kubernetes), by the Date header of the last answer.";
    counter SINK_SAMPLES = "nodewick_sink_samples_total" ["sink", "outcome"],
        "Samples of metrics by sink and outcome (delivered, refused, dropped); retried counts those that were sent once more. A native histogram is one sample, over OTLP every histogram.";
    counter SINK_SAMPLES_LOST = "nodewick_sink_samples_lost_total" ["sink", "reason"],
        "Samples (data points over OTLP) that a backend of metrics did not get, by sink and reason (buffer_full, too_old, refused, partial_success, too_large, unimplemented, unsupported, shutdown).";
    counter SINK_EXEMPLARS = "nodewick_sink_exemplars_total" ["sink", "outcome"],
        "Exemplars by sink and outcome (delivered, lost).";
    gauge SINK_BUFFER_AGE = "nodewick_sink_buffer_age_seconds" ["sink"],
        "How long the oldest samples have waited in a sink's buffer or in flight.";
    gauge SINK_NEWEST_SAMPLE = "nodewick_sink_newest_sample_timestamp_seconds" ["sink", "stage"],
        "Time of the newest sample that a sink has taken, and of the newest that it has delivered: their difference is the lag.";
    gauge SINK_SHARDS = "nodewick_sink_shards" ["sink"],
        "Requests that a sink of samples has in flight at most.";
    gauge SINK_SAMPLES_QUEUE_BYTES = "nodewick_sink_samples_queue_bytes" ["sink"],
        "Bytes of compressed samples that wait for a backend, by sink.";
    gauge WORKLOADS_PAGE_BYTES = "nodewick_workloads_page_bytes" [],
        "Bytes that /metrics/workloads keeps: the last page of each source, compressed.";
    gauge LOCAL_STORE_BYTES = "nodewick_local_store_bytes" ["sink"],
        "Bytes that a local store holds on disk.";
    counter LOCAL_EVICTED_BYTES = "nodewick_local_evicted_bytes_total" ["sink"],
        "Bytes of the oldest segments that a local store removed to keep its bound.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_keeps_the_naming_rules() {
        for row in TABLE {
            assert!(row.name.starts_with("nodewick_"), "{}", row.name);
            assert_eq!(row.kind == Kind::Counter, row.name.ends_with("_total"), "{}", row.name);
            assert!(row.labels.len() <= 3 && row.help.ends_with('.'), "{}", row.name);
        }
    }
}
