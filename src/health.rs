//! Whether the agent is alive and ready, as named checks that its parts set.
//!
//! In: `pass`/`fail` from whoever knows, `beat` from long-running loops. Out: a [`Report`] for the probes.
//! Invariant: liveness depends on heartbeats only. Readiness never depends on a backend: buffering is normal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The health of the agent; clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    checks: Mutex<Vec<Entry>>,
    heartbeats: Mutex<Vec<Arc<Pulse>>>,
    notes: Mutex<Vec<(&'static str, String)>>,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    /// `None` when it passes.
    failure: Option<String>,
}

#[derive(Debug)]
struct Pulse {
    name: &'static str,
    within: Duration,
    started: Instant,
    /// Milliseconds from `started` to the last beat.
    last: AtomicU64,
}

/// One named condition of readiness, set by whoever knows it.
#[derive(Debug, Clone)]
pub struct Check {
    name: &'static str,
    shared: Arc<Shared>,
}

/// The sign of life of one loop.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    pulse: Arc<Pulse>,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Name of the check.
    pub name: &'static str,
    /// Why it fails; `None` when it passes.
    pub failure: Option<String>,
}

/// The answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every check that counts for the probe.
    pub lines: Vec<Line>,
}

impl Default for Health {
    fn default() -> Self {
        let shared = Shared {
            started: Instant::now(),
            checks: Mutex::default(),
            heartbeats: Mutex::default(),
            notes: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Health {
    /// A health without checks: alive and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// A condition of readiness. It fails as "not checked yet" until it is set. The same name gives the same check.
    pub fn check(&self, name: &'static str) -> Check {
        let mut checks = self.shared.checks.lock();
        if !checks.iter().any(|entry| entry.name == name) {
            checks.push(Entry { name, failure: Some("not checked yet".to_owned()) });
        }
        Check { name, shared: Arc::clone(&self.shared) }
    }

    /// Something that a person who looks should know and that fails no probe; `None` when it is over.
    pub fn note(&self, name: &'static str, text: Option<String>) {
        let mut notes = self.shared.notes.lock();
        notes.retain(|(known, _)| *known != name);
        notes.extend(text.map(|text| (name, text)));
    }

    /// Everything that was [noted](Self::note), by name.
    pub fn notes(&self) -> Vec<(&'static str, String)> {
        let mut notes = self.shared.notes.lock().clone();
        notes.sort_unstable();
        notes
    }

    /// The sign of life of a loop that beats at least every `within`; it counts as beaten now.
    pub fn heartbeat(&self, name: &'static str, within: Duration) -> Heartbeat {
        let pulse = Arc::new(Pulse { name, within, started: self.shared.started, last: AtomicU64::new(0) });
        let heartbeat = Heartbeat { pulse: Arc::clone(&pulse) };
        heartbeat.beat();
        self.shared.heartbeats.lock().push(pulse);
        heartbeat
    }

    /// Whether every loop still turns.
    pub fn live(&self) -> Report {
        self.live_at(Instant::now())
    }

    fn live_at(&self, now: Instant) -> Report {
        let lines = self.shared.heartbeats.lock().iter().map(|pulse| pulse.line(now)).collect();
        Report { lines }
    }

    /// Whether the agent does its work: alive, and every check passes.
    pub fn ready(&self) -> Report {
        let mut report = self.live();
        let checks = self.shared.checks.lock();
        report
            .lines
            .extend(checks.iter().map(|entry| Line { name: entry.name, failure: entry.failure.clone() }));
        report
    }
}

impl Check {
    /// The condition holds.
    pub fn pass(&self) {
        self.set(None);
    }

    /// The condition does not hold; `reason` says what a person can do.
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, failure: Option<String>) {
        let mut checks = self.shared.checks.lock();
        if let Some(entry) = checks.iter_mut().find(|entry| entry.name == self.name) {
            entry.failure = failure;
        }
    }
}

impl Heartbeat {
    /// The loop turned. One atomic store: cheap enough for every turn.
    pub fn beat(&self) {
        let millis = self.pulse.started.elapsed().as_millis();
        self.pulse.last.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Pulse {
    fn line(&self, now: Instant) -> Line {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let silent = now.saturating_duration_since(self.started).saturating_sub(last);
        let failure = (silent > self.within).then(|| {
            format!(
                "no sign of life for {} s, expected one every {} s",
                silent.as_secs(),
                self.within.as_secs()
            )
        });
        Line { name: self.name, failure }
    }
}

impl Report {
    /// True when nothing fails.
    pub fn is_ok(&self) -> bool {
        self.lines.iter().all(|line| line.failure.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_waits_for_every_check() {
        let health = Health::new();
        let state = health.check("state_dir");
        assert!(!health.ready().is_ok());
        state.pass();
        assert!(health.ready().is_ok());
        health.check("state_dir").fail("read-only file system");
        let failure = Some("read-only file system".to_owned());
        assert_eq!(health.ready().lines, [Line { name: "state_dir", failure }]);
        assert!(health.live().is_ok(), "a failing check is no reason to be restarted");
    }

    #[test]
    fn a_note_fails_no_probe() {
        let health = Health::new();
        health.note("pods", Some("the API is away".to_owned()));
        health.note("pods", Some("the API answers 403".to_owned()));
        assert!(health.ready().is_ok() && health.live().is_ok());
        assert_eq!(health.notes(), [("pods", "the API answers 403".to_owned())]);
        health.note("pods", None);
        assert!(health.notes().is_empty());
    }

    #[test]
    fn a_silent_loop_is_not_alive() {
        let health = Health::new();
        let heartbeat = health.heartbeat("log_thread", Duration::from_secs(30));
        let soon = Instant::now() + Duration::from_secs(29);
        let late = Instant::now() + Duration::from_secs(31);
        assert!(health.live_at(soon).is_ok());
        let failure = health.live_at(late).lines[0].failure.clone().expect("silent for too long");
        assert!(failure.starts_with("no sign of life for 3"), "{failure}");
        heartbeat.beat();
        assert!(health.live().is_ok());
    }
}
