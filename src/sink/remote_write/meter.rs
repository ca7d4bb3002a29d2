//! What is counted of one remote_write sink.

use std::time::Duration;

use super::Counts;
use crate::data::clock;
use crate::metrics;

/// Why samples were not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The buffer was full: the oldest went.
    BufferFull,
    /// They waited longer than the buffer keeps them.
    TooOld,
    /// The receiver refused them for good.
    Refused,
    /// One series alone is larger than the receiver takes.
    TooLarge,
    /// The receiver speaks neither version.
    Unsupported,
    /// The agent had to end before they were sent.
    Shutdown,
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::TooOld => "too_old",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The sink's series of the metrics table.
#[derive(Debug)]
pub(super) struct Meter {
    name: String,
    delivered: prometheus::IntCounter,
    dropped: prometheus::IntCounter,
    refused: prometheus::IntCounter,
    retried: prometheus::IntCounter,
    exemplars_delivered: prometheus::IntCounter,
    exemplars_lost: prometheus::IntCounter,
    sent_bytes: prometheus::IntCounter,
    seconds: prometheus::Histogram,
    queue_bytes: prometheus::IntGauge,
    waited: prometheus::IntGauge,
    taken: prometheus::IntGauge,
    sent: prometheus::IntGauge,
    last_success: prometheus::IntGauge,
    up: prometheus::IntGauge,
}

impl Meter {
    pub(super) fn new(name: &str, shards: usize) -> Self {
        let samples = |outcome| metrics::SINK_SAMPLES.with_label_values(&[name, outcome]);
        let exemplars = |outcome| metrics::SINK_EXEMPLARS.with_label_values(&[name, outcome]);
        let newest = |stage| metrics::SINK_NEWEST_SAMPLE.with_label_values(&[name, stage]);
        let up = metrics::SINK_UP.with_label_values(&[name]);
        up.set(1);
        metrics::SINK_SHARDS.with_label_values(&[name]).set(shards as i64);
        Self {
            name: name.to_owned(),
            delivered: samples("delivered"),
            dropped: samples("dropped"),
            refused: samples("refused"),
            retried: samples("retried"),
            exemplars_delivered: exemplars("delivered"),
            exemplars_lost: exemplars("lost"),
            sent_bytes: metrics::SINK_SENT_BYTES.with_label_values(&[name]),
            seconds: metrics::SINK_REQUEST_SECONDS.with_label_values(&[name]),
            queue_bytes: metrics::SINK_QUEUE_BYTES.with_label_values(&[name]),
            waited: metrics::SINK_BUFFER_AGE.with_label_values(&[name]),
            taken: newest("taken"),
            sent: newest("delivered"),
            last_success: crate::sink::last_success(name),
            up,
        }
    }

    /// The receiver has these.
    pub(super) fn delivered(&self, counts: &Counts) {
        self.delivered.inc_by(counts.all());
        self.exemplars_delivered.inc_by(counts.exemplars);
        if counts.all() > 0 {
            self.last_success.set(clock::unix_ms() / 1000);
        }
        let seconds = counts.newest_unix_ms / 1000;
        if counts.all() > 0 && seconds > self.sent.get() {
            self.sent.set(seconds);
        }
    }

    /// These will never arrive.
    pub(super) fn lost(&self, reason: Reason, counts: &Counts) {
        let by_receiver = matches!(reason, Reason::Refused | Reason::TooLarge | Reason::Unsupported);
        if by_receiver { &self.refused } else { &self.dropped }.inc_by(counts.all());
        self.exemplars_lost.inc_by(counts.exemplars);
        if counts.all() > 0 {
            metrics::SINK_SAMPLES_LOST.with_label_values(&[&self.name, reason.name()]).inc_by(counts.all());
        }
    }

    /// These are sent once more.
    pub(super) fn retried(&self, counts: &Counts) {
        self.retried.inc_by(counts.all());
    }

    /// A request was sent.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// It was answered after this long, with this outcome.
    pub(super) fn answered(&self, took: Duration, outcome: &str) {
        self.seconds.observe(took.as_secs_f64());
        metrics::SINK_REQUESTS.with_label_values(&[&self.name, outcome]).inc();
    }

    /// Bytes that wait or are in flight.
    pub(super) fn pending(&self, bytes: u64) {
        self.queue_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How long the oldest has waited.
    pub(super) fn waited(&self, age: Duration) {
        self.waited.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    }

    /// Time of the newest sample that was taken.
    pub(super) fn taken(&self, unix_ms: i64) {
        self.taken.set(unix_ms / 1000);
    }

    /// The receiver answers, or does not.
    pub(super) fn up(&self, up: bool) {
        self.up.set(i64::from(up));
    }
}
