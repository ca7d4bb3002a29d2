//! What the annotations of a pod make of its log's lines: how they are parsed, and which of them are kept.
//!
//! In: the [`Handling`] of a container. Out: parsed lines, and for each record whether it stays. Invariant: both depend
//! on the line and the annotations alone, so a replay under the same annotations gives the same records. A log without
//! annotations has none of this.

use prometheus::IntCounter;

use super::parse::{self, Hints, Parsed};
use super::process;
use crate::data::batch::{Fields, Record};
use crate::data::workload::{Handling, Workload};
use crate::metrics;

/// What annotations say of the lines of one log.
#[derive(Debug, Clone)]
pub struct Annotated {
    hints: Option<Hints>,
    sample: Option<Sample>,
    recorder: Option<bool>,
}

#[derive(Debug, Clone)]
struct Sample {
    /// Draws at or below it are kept.
    threshold: u64,
    dropped: IntCounter,
}

impl Annotated {
    /// What `handling` says of lines; `None` when it says nothing.
    pub fn of(handling: &Handling) -> Option<Box<Self>> {
        let hints = Hints::of(handling);
        let sample = handling.sample.filter(|share| (0.0..1.0).contains(share)).map(|share| Sample {
            // 2^64 draws.
            threshold: (share * 18_446_744_073_709_551_616.0) as u64,
            dropped: metrics::RECORDS_DROPPED.with_label_values(&["sample", "annotation"]),
        });
        let recorder = handling.recorder;
        let any = hints.is_some() || sample.is_some() || recorder.is_some();
        any.then(|| Box::new(Self { hints, sample, recorder }))
    }

    /// The same, with nothing counted.
    #[must_use]
    pub fn quietly(mut self) -> Self {
        if let Some(sample) = &mut self.sample {
            sample.dropped = process::uncounted();
        }
        self
    }

    /// The fields that must be parsed where `want` are sent.
    pub fn wants(&self, want: Fields) -> Fields {
        // Lines of a trace may inherit their id by request id.
        let needs = Fields::TRACE_ID.with(Fields::REQUEST_ID);
        let want = if self.sample.is_some() { want.with(needs) } else { want };
        if self.recorder == Some(true) { want.with(process::RECORDER_WANTS) } else { want }
    }

    /// Whether the flight recorder is on, where annotations say it.
    pub fn recorder(&self) -> Option<bool> {
        self.recorder
    }

    /// How lines are read, where annotations say it.
    pub fn hints(&self) -> Option<&Hints> {
        self.hints.as_ref()
    }

    /// Reads one line.
    pub fn parse(&self, line: &[u8], want: Fields) -> Parsed {
        match &self.hints {
            Some(hints) => hints.parse(line, want),
            None => parse::parse(line, want),
        }
    }

    /// True when a record stays. All lines of one trace share its fate; those without a trace id are drawn one by
    /// one, by their text and stamp.
    pub fn keeps(&self, workload: &Workload, record: &Record, arena: &[u8]) -> bool {
        let Some(sample) = &self.sample else { return true };
        process::draw(workload, record, arena) <= sample.threshold
    }

    /// Counts a record that does not stay.
    pub fn count_dropped(&self) {
        if let Some(sample) = &self.sample {
            sample.dropped.inc();
        }
    }
}
