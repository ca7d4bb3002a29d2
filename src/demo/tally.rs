//! Which lines were written and which of them arrived, exactly.
//!
//! In: every line that a container writes, before it is written; every line that the store holds. Out: counts.
//! Invariant: a line is outstanding, delivered once, or found wanting (duplicated, altered, out of order), never
//! silently gone. Memory is that of the lines under way, bounded by [`Tally::is_full`].

use std::collections::VecDeque;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::traffic::{PODS, seq_of};

/// Lines under way above which the writers wait.
const OUTSTANDING_LIMIT: u64 = 1_000_000;

/// Sums over all containers, in lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Written by the containers.
    pub written: u64,
    /// Of these, found in the store.
    pub delivered: u64,
    /// Found again.
    pub duplicated: u64,
    /// Found with another text, or never written at all.
    pub altered: u64,
    /// Found behind a later line of the same container.
    pub reordered: u64,
}

impl Counts {
    /// Written and not found.
    pub fn lost(&self) -> u64 {
        self.written - self.delivered
    }
}

#[derive(Debug, Default)]
struct Log {
    counts: Counts,
    /// Number of the first line in `waiting`.
    base: u64,
    /// Hashes of the lines from `base` on; `None` once delivered. The front is never `None`.
    waiting: VecDeque<Option<u64>>,
    newest: Option<u64>,
}

/// The account of one run.
#[derive(Debug, Default)]
pub struct Tally {
    logs: [Mutex<Log>; PODS.len()],
}

impl Tally {
    /// Enters the next line of a container, whose number the line holds; `line` gets that number.
    pub fn write(&self, pod: usize, line: impl FnOnce(u64) -> u64) {
        let mut log = self.logs[pod].lock();
        let hash = line(log.counts.written);
        log.counts.written += 1;
        log.waiting.push_back(Some(hash));
    }

    /// The hash of a line, as [`write`](Self::write) wants it.
    pub fn hash(line: &str) -> u64 {
        xxh3_64(line.as_bytes())
    }

    /// Notes a line that the store holds.
    pub fn deliver(&self, pod_name: &str, line: &str) {
        let Some(pod) = PODS.iter().position(|pod| pod.name == pod_name) else {
            self.logs[0].lock().counts.altered += 1;
            return;
        };
        let mut guard = self.logs[pod].lock();
        let log = &mut *guard;
        let Some(seq) = seq_of(line).filter(|seq| *seq < log.counts.written) else {
            log.counts.altered += 1;
            return;
        };
        let index = seq.checked_sub(log.base).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| log.waiting.get_mut(index)) else {
            log.counts.duplicated += 1;
            return;
        };
        match *slot {
            None => log.counts.duplicated += 1,
            Some(hash) if hash != Self::hash(line) => log.counts.altered += 1,
            Some(_) => {
                *slot = None;
                log.counts.delivered += 1;
                log.counts.reordered += u64::from(log.newest.is_some_and(|newest| newest > seq));
                log.newest = log.newest.max(Some(seq));
            }
        }
        while let Some(None) = log.waiting.front() {
            log.waiting.pop_front();
            log.base += 1;
        }
    }

    /// The sums so far.
    pub fn counts(&self) -> Counts {
        self.logs.iter().fold(Counts::default(), |sum, log| {
            let counts = log.lock().counts;
            Counts {
                written: sum.written + counts.written,
                delivered: sum.delivered + counts.delivered,
                duplicated: sum.duplicated + counts.duplicated,
                altered: sum.altered + counts.altered,
                reordered: sum.reordered + counts.reordered,
            }
        })
    }

    /// True when so much is under way that the writers must wait.
    pub fn is_full(&self) -> bool {
        self.counts().lost() > OUTSTANDING_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: u64) -> (Tally, Vec<String>) {
        let tally = Tally::default();
        let mut texts = Vec::new();
        for _ in 0..lines {
            tally.write(0, |seq| {
                texts.push(format!("text seq={seq}"));
                Tally::hash(&texts[texts.len() - 1])
            });
        }
        (tally, texts)
    }

    #[test]
    fn each_fate_of_a_line_is_counted() {
        let (tally, lines) = written(6);
        let pod = PODS[0].name;
        for line in [&lines[0], &lines[2], &lines[1], &lines[2], &lines[0], &lines[5]] {
            tally.deliver(pod, line);
        }
        tally.deliver(pod, "other text seq=3");
        tally.deliver(pod, "text seq=99");
        tally.deliver(pod, "no number");
        tally.deliver("stranger", &lines[3]);
        let counts = tally.counts();
        let wanted = Counts { written: 6, delivered: 4, duplicated: 2, altered: 4, reordered: 1 };
        assert_eq!(counts, wanted);
        assert_eq!(counts.lost(), 2);
    }

    #[test]
    fn delivered_lines_take_no_memory() {
        let (tally, lines) = written(1_000);
        lines.iter().for_each(|line| tally.deliver(PODS[0].name, line));
        assert_eq!(tally.counts().lost(), 0);
        assert!(tally.logs[0].lock().waiting.is_empty());
    }
}
