//! How far lines can be trusted to tell everything: which share of a workload's lines was not lost.
//!
//! In: what became of each log's bytes, as sums since its beginning. Out: a share between 0 and 1 over the last hour, in steps
//! of five minutes. Invariant: sums that go down are those of a log that was begun anew, so nothing is taken off; what is
//! kept is bounded.

use std::sync::Arc;

use foldhash::HashMap;

use super::book::{MAX_LOGS, MAX_WORKLOADS};
use crate::data::account::Flow;

/// Length of a step.
const STEP_MS: u64 = 300_000;
/// Steps of an hour, and the one that has begun.
const STEPS: usize = 13;

/// What became of the lines of one log.
#[derive(Debug, Clone)]
pub struct Lines {
    /// Which log.
    pub key: Arc<str>,
    /// Number of its workload: [`Identity::workload_id`](super::book::Identity::workload_id).
    pub workload: u64,
    /// Since its beginning.
    pub flow: Flow,
}

/// The last hour of all workloads.
#[derive(Debug, Default)]
pub(super) struct Confidence {
    logs: HashMap<Arc<str>, Flow>,
    workloads: HashMap<u64, Hour>,
}

#[derive(Debug, Default)]
struct Hour {
    steps: [Flow; STEPS],
    /// Number of the newest step.
    step: u64,
}

impl Confidence {
    /// Takes the sums of all logs that there are, on a clock that only goes on.
    pub(super) fn take(&mut self, logs: &[Lines], clock_ms: u64) {
        let step = clock_ms / STEP_MS;
        self.workloads.values_mut().for_each(|hour| hour.advance(step));
        let mut known = HashMap::default();
        for log in logs.iter().take(MAX_LOGS) {
            let before = known.get(&log.key).or_else(|| self.logs.get(&log.key)).copied().unwrap_or_default();
            let more = log.flow.since(&before);
            known.insert(log.key.clone(), log.flow);
            if more == Flow::default() {
                continue;
            }
            if self.workloads.len() >= MAX_WORKLOADS && !self.workloads.contains_key(&log.workload) {
                continue;
            }
            let hour = self.workloads.entry(log.workload).or_insert_with(|| Hour { step, ..Hour::default() });
            hour.steps[(step % STEPS as u64) as usize] += more;
        }
        self.logs = known;
        self.workloads.retain(|_, hour| hour.steps.iter().any(|step| *step != Flow::default()));
    }

    /// The share of a workload's lines that was not lost, by bytes; 1 where nothing is known to be lost.
    pub(super) fn of(&self, workload: u64) -> f64 {
        let Some(hour) = self.workloads.get(&workload) else { return 1.0 };
        let mut sum = Flow::default();
        hour.steps.iter().for_each(|step| sum += *step);
        if sum.seen_bytes == 0 {
            return if sum.lost_bytes == 0 { 1.0 } else { 0.0 };
        }
        (1.0 - sum.lost_bytes as f64 / sum.seen_bytes as f64).clamp(0.0, 1.0)
    }
}

impl Hour {
    fn advance(&mut self, step: u64) {
        for passed in (self.step + 1..=step).take(STEPS) {
            self.steps[(passed % STEPS as u64) as usize] = Flow::default();
        }
        // After a long time the steps that were emptied are all there are.
        self.step = self.step.max(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(key: &str, seen_bytes: u64, lost_bytes: u64) -> Lines {
        Lines { key: key.into(), workload: 7, flow: Flow { seen_bytes, lost_bytes } }
    }

    #[test]
    fn what_was_lost_within_the_hour_lowers_the_share() {
        let mut confidence = Confidence::default();
        assert_eq!(confidence.of(7), 1.0);
        confidence.take(&[log("a", 800, 0), log("b", 200, 0)], 0);
        assert_eq!(confidence.of(7), 1.0);
        confidence.take(&[log("a", 1_800, 250), log("b", 200, 0)], 15_000);
        assert_eq!(confidence.of(7), 0.875, "250 of 2000");
        assert_eq!(confidence.of(8), 1.0);
        // The same sums again are nothing new.
        confidence.take(&[log("a", 1_800, 250), log("b", 200, 0)], 30_000);
        assert_eq!(confidence.of(7), 0.875);
        // An hour on what came then counts alone.
        confidence.take(&[log("a", 2_800, 250), log("b", 200, 0)], 3_000_000);
        assert_eq!(confidence.of(7), 1.0 - 250.0 / 3_000.0);
        confidence.take(&[log("a", 2_800, 250), log("b", 200, 0)], 3_930_000);
        assert_eq!(confidence.of(7), 1.0);
        confidence.take(&[], 90_000_000);
        assert!(confidence.workloads.is_empty() && confidence.logs.is_empty());
    }

    #[test]
    fn a_log_that_begins_anew_takes_nothing_off() {
        let mut confidence = Confidence::default();
        confidence.take(&[log("a", 1_000, 100)], 0);
        confidence.take(&[log("a", 1_000, 0)], 15_000);
        assert_eq!(confidence.of(7), 0.95);
        // Its end and its next beginning in one look.
        confidence.take(&[log("a", 2_000, 0), log("a", 0, 0)], 30_000);
        assert_eq!(confidence.of(7), 1.0 - 100.0 / 3_000.0);
    }
}
