//! Makes positions and spilled bytes durable, in the order that loses nothing.
//!
//! A step machine: [`step`](Keeper::step) does what is due at `now` and says when to come back. First what was
//! spilled is synced, then the checkpoint is written, and only what a durable checkpoint has passed is released
//! from the spill. A thread drives it in production, a simulator in tests.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::checkpoint::Store;
use super::disk::Disk;
use super::registry::Registry;
use super::spill::Spill;
use crate::metrics;

/// Longest time between two checkpoints while lines are acknowledged; a quarter of it soon after the start.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Acknowledged bytes after which a checkpoint is due at once.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// How long after the start a backlog is to be expected.
const BUSY_START: Duration = Duration::from_secs(10);
/// Longest time that spilled bytes wait for their sync.
const SPILL_SYNC: Duration = Duration::from_millis(100);

/// Keeps the checkpoint and the spill of one agent.
pub struct Keeper {
    store: Option<Store>,
    registry: Arc<Registry>,
    spill: Arc<Spill>,
    /// Bytes before a position that a resume reads again for warmth.
    margin: u64,
    /// Version of the registry, and acknowledged bytes, as of the last checkpoint.
    written: Option<(u64, u64)>,
    last_write: Option<Duration>,
    started: Option<Duration>,
    durable: bool,
}

impl Keeper {
    /// A keeper of what `registry` and `spill` hold; `store` may come [later](Self::attach). A resume reads `margin`
    /// bytes before a position again.
    pub fn new(registry: Arc<Registry>, spill: Arc<Spill>, margin: u64, store: Option<Store>) -> Self {
        let durable = store.is_some();
        Self { store, registry, spill, margin, written: None, last_write: None, started: None, durable }
    }

    /// True when there is nowhere to write to yet.
    pub fn is_detached(&self) -> bool {
        self.store.is_none()
    }

    /// True while positions are being made durable.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Begins to write to `disk`. Positions of this life count; what an unreadable directory held before is too
    /// late now.
    pub fn attach(&mut self, disk: Arc<dyn Disk>) {
        self.store = Store::open(Arc::clone(&disk)).ok().map(|(store, _)| store);
        if self.store.is_some()
            && let Err(error) = self.spill.attach(disk)
        {
            warn!(%error, "cannot use the state directory for spilling");
        }
    }

    /// Does what is due at `now`, monotonic time; everything when `stopping`. `unix_secs` is the wall clock. How
    /// long nothing will be due.
    pub fn step(&mut self, now: Duration, unix_secs: u64, stopping: bool) -> Duration {
        let started = *self.started.get_or_insert(now);
        let spilling = self.spill.is_dirty();
        if spilling && let Err(error) = self.spill.sync() {
            metrics::SPILL_FAILURES.inc();
            warn!(%error, "cannot make spilled bytes durable; they are spilled again");
        }
        let version = self.registry.version();
        let changed = self.written != Some(version);
        let grown =
            self.written.is_some_and(|(_, bytes)| version.1.saturating_sub(bytes) >= CHECKPOINT_BYTES);
        // An agent that dies again soon after its start, time and again, must have got on each time. The first
        // checkpoint is due at once and tells whether the directory can be used, but nothing is acknowledged by then.
        let starting = now < started + BUSY_START;
        let interval = if starting { CHECKPOINT_INTERVAL / 4 } else { CHECKPOINT_INTERVAL };
        let late = self.last_write.is_none_or(|last| now >= last + interval);
        if changed && (grown || stopping || late) && self.store.is_some() {
            self.last_write = Some(now);
            self.write(version, unix_secs);
        }
        if spilling {
            return SPILL_SYNC;
        }
        // Looked at often only while bytes are acknowledged: then much may come within a second.
        let busy = changed || starting;
        if busy { CHECKPOINT_INTERVAL / 4 } else { CHECKPOINT_INTERVAL }
    }

    fn write(&mut self, version: (u64, u64), unix_secs: u64) {
        let Some(store) = &mut self.store else { return };
        let removed = self.registry.take_removed();
        let marks = self.registry.marks();
        let result = store.write(marks.iter().map(|(key, mark)| (&**key, mark)));
        let was = std::mem::replace(&mut self.durable, result.is_ok());
        match result {
            Ok(()) => {
                self.written = Some(version);
                metrics::CHECKPOINT_TIMESTAMP.set(unix_secs as i64);
                if !was {
                    info!("checkpoints are durable again");
                }
                for (key, mark) in &marks {
                    self.spill.release(key, &mark.position, self.margin);
                }
                // Only what was followed to its end: a log that is not entered yet may need what is kept of it.
                for key in removed {
                    self.spill.forget(&key);
                }
            }
            Err(error) => {
                self.registry.put_back_removed(removed);
                metrics::CHECKPOINT_FAILURES.inc();
                if was {
                    error!(%error, "cannot make the checkpoint durable; running on, but a restart would send again what it has sent (check space, mount and rights of [agent] state_dir)");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::checkpoint::{Mark, Marks};
    use crate::logs::disk::OsDisk;
    use crate::logs::spill::Config;

    #[test]
    fn a_checkpoint_is_due_four_times_a_second_soon_after_the_start_and_once_later() {
        let dir = tempfile::tempdir().expect("temp dir");
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(dir.path()));
        let (store, _) = Store::open(Arc::clone(&disk)).expect("opens");
        let registry = Registry::new(Marks::from([("a/b/0".to_owned(), Mark::default())]));
        let mut keeper = Keeper::new(Arc::clone(&registry), Spill::new(&Config::default()), 0, Some(store));
        let marks = || Store::open(Arc::clone(&disk)).expect("opens").1.marks.len();
        let mut step = |millis| {
            keeper.step(Duration::from_millis(millis), 0, false);
            keeper.last_write.map(|at| at.as_millis())
        };
        assert_eq!((step(0), marks()), (Some(0), 1));
        registry.forget_unclaimed(|_| false);
        assert_eq!((step(240), marks()), (Some(0), 1));
        assert_eq!((step(250), marks()), (Some(250), 0));
        // Nothing has changed.
        assert_eq!(step(11_000), Some(250));
        registry.remove("a/b/0");
        assert_eq!(step(12_000), Some(12_000));
        registry.remove("a/b/0");
        assert_eq!((step(12_250), step(12_990), step(13_000)), (Some(12_000), Some(12_000), Some(13_000)));
    }
}
