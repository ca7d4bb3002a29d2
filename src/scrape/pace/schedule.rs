//! Whose turn it is: ticks of targets, as arithmetic.
//!
//! In: the targets as they are now, and what time it is. Out: scrapes to start, and targets that are no more. Invariants: a
//! target's ticks lie at multiples of its interval plus an offset of its own, which is the same after a restart; its times
//! only go up; it is never scraped twice at the same time; of ticks that had to wait only the newest is kept.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tracing::warn;
use xxhash_rust::xxh3::Xxh3;

use crate::scrape::fetch::Kept;
use crate::scrape::target::{Scheme, Target};

/// A scrape that begins this late still has the time of its tick: equal distances compress best.
/// Source: Prometheus `scrape/scrape.go`, `ScrapeTimestampTolerance`.
const TOLERANCE_MS: i64 = 2;

/// A target by what its series carry: two with the same labels would write the same series.
#[derive(Debug)]
struct ByLabels(Arc<Target>);

impl Hash for ByLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.origin.labels.hash(state);
    }
}

impl PartialEq for ByLabels {
    fn eq(&self, other: &Self) -> bool {
        self.0.origin.labels == other.0.origin.labels
    }
}

impl Eq for ByLabels {}

/// What a target's scrape is at.
#[derive(Debug)]
enum State {
    /// Between two scrapes.
    Idle(Kept),
    /// Being fetched.
    Fetching,
    /// Fetched, and not yet taken over.
    Handing(Kept),
}

#[derive(Debug)]
struct Slot {
    target: Arc<Target>,
    state: State,
    /// A tick that has come and whose scrape has not begun.
    due_ms: Option<i64>,
    /// The tick that comes next.
    next_ms: i64,
    /// The newest time that was given out.
    last_ms: Option<i64>,
    /// Entries of the heap with another version are void.
    version: u32,
    /// The first tick that it missed, since it is no target any more.
    gone_ms: Option<i64>,
}

/// A scrape to be started.
#[derive(Debug)]
pub(super) struct Start {
    /// Its slot.
    pub id: u64,
    /// The target.
    pub target: Arc<Target>,
    /// The time of its samples, milliseconds since the epoch.
    pub time_unix_ms: i64,
    /// What the last scrape left.
    pub kept: Kept,
}

/// A target that is no more.
#[derive(Debug)]
pub(super) struct Gone {
    /// The target.
    pub target: Arc<Target>,
    /// The first tick that it missed.
    pub time_unix_ms: i64,
}

/// Ticks that were let pass since it was last asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Because the target's last scrape was still running.
    pub running: u64,
    /// Because what was scraped is not taken over fast enough.
    pub behind: u64,
}

/// The ticks of all targets.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    slots: HashMap<u64, Slot>,
    ids: HashMap<ByLabels, u64>,
    last_id: u64,
    heap: BinaryHeap<Reverse<(i64, u64, u32)>>,
    ready: VecDeque<u64>,
    skipped: Skipped,
}

impl Schedule {
    /// Takes over the targets as they are now.
    pub(super) fn apply(&mut self, targets: &[Arc<Target>], now_ms: i64) {
        let mut there = std::collections::HashSet::with_capacity(targets.len());
        for target in targets {
            let id = match self.ids.entry(ByLabels(Arc::clone(target))) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(vacant) => {
                    self.last_id += 1;
                    vacant.insert(self.last_id);
                    let slot = Slot {
                        target: Arc::clone(target),
                        state: State::Idle(Kept::default()),
                        due_ms: None,
                        next_ms: first_tick(target, now_ms),
                        last_ms: None,
                        version: 0,
                        gone_ms: None,
                    };
                    self.heap.push(Reverse((slot.next_ms, self.last_id, 0)));
                    self.slots.insert(self.last_id, slot);
                    there.insert(self.last_id);
                    continue;
                }
            };
            if there.insert(id) {
                self.renew(id, target, now_ms);
            } else if self.slots.get(&id).is_some_and(|slot| *slot.target != **target) {
                warn!(host = %target.host, port = target.port, path = %target.path,
                    "a target has the labels of another one and is not scraped; give it labels of its own");
            }
        }
        let gone: Vec<u64> = self.slots.keys().filter(|id| !there.contains(id)).copied().collect();
        for id in gone {
            self.leave(id);
        }
        let enough = 4 * self.slots.len() + 64;
        if self.heap.len() > enough {
            let slots = &self.slots;
            self.heap.retain(|Reverse((_, id, version))| {
                slots.get(id).is_some_and(|slot| slot.version == *version)
            });
        }
    }

    /// A target that was known by its labels.
    fn renew(&mut self, id: u64, target: &Arc<Target>, now_ms: i64) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let is_back = slot.gone_ms.take().is_some();
        if slot.target == *target {
            if !is_back {
                return;
            }
        } else {
            let moved = |t: &Target| (t.scheme, t.host.clone(), t.port, t.pod.clone());
            if moved(&slot.target) != moved(target)
                && let State::Idle(kept) | State::Handing(kept) = &mut slot.state
            {
                kept.close();
            }
            // What knows the series by their origin finds them again.
            slot.target = if slot.target.origin == target.origin {
                Arc::new(Target { origin: Arc::clone(&slot.target.origin), ..(**target).clone() })
            } else {
                Arc::clone(target)
            };
        }
        slot.version += 1;
        slot.next_ms = first_tick(&slot.target, now_ms.max(slot.last_ms.map_or(i64::MIN, |last| last + 1)));
        self.heap.push(Reverse((slot.next_ms, id, slot.version)));
    }

    /// A target that is one no more. Its series end when it has not come back.
    fn leave(&mut self, id: u64) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.gone_ms.is_some() {
            return;
        }
        if let State::Idle(kept) | State::Handing(kept) = &mut slot.state {
            kept.close();
        }
        let missed = slot.due_ms.take().unwrap_or(slot.next_ms);
        let missed = missed.max(slot.last_ms.map_or(i64::MIN, |last| last + 1));
        slot.gone_ms = Some(missed);
        slot.version += 1;
        let interval = interval_ms(&slot.target);
        self.heap.push(Reverse((missed + interval + interval / 10, id, slot.version)));
    }

    /// Lets ticks come up to now. Returns the targets that are no more.
    pub(super) fn turn(&mut self, now_ms: i64) -> Vec<Gone> {
        let mut gone = Vec::new();
        while let Some(Reverse((at, id, version))) = self.heap.peek().copied()
            && at <= now_ms
        {
            self.heap.pop();
            let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.version == version) else { continue };
            if let Some(time_unix_ms) = slot.gone_ms {
                let target = Arc::clone(&slot.target);
                self.ids.remove(&ByLabels(Arc::clone(&target)));
                // What was never scraped has nothing that could end.
                if let Some(Slot { last_ms: Some(_), .. }) = self.slots.remove(&id) {
                    gone.push(Gone { target, time_unix_ms });
                }
                continue;
            }
            let interval = interval_ms(&slot.target);
            let passed = (now_ms - at) / interval;
            let tick = at + passed * interval;
            let waited = slot.due_ms.replace(tick).is_some();
            slot.next_ms = tick + interval;
            let missed = passed as u64 + u64::from(waited);
            match slot.state {
                State::Fetching => self.skipped.running += missed,
                _ => self.skipped.behind += missed,
            }
            if !waited && matches!(slot.state, State::Idle(_)) {
                self.ready.push_back(id);
            }
            self.heap.push(Reverse((slot.next_ms, id, version)));
        }
        gone
    }

    /// The next scrape to be started.
    pub(super) fn start(&mut self, now_ms: i64) -> Option<Start> {
        while let Some(id) = self.ready.pop_front() {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            let State::Idle(kept) = &mut slot.state else { continue };
            let Some(tick) = slot.due_ms.take() else { continue };
            let kept = std::mem::take(kept);
            slot.state = State::Fetching;
            let tolerance = TOLERANCE_MS.min(interval_ms(&slot.target) / 100);
            // Where the clock was set back a tick may lie ahead.
            let time = if (0..=tolerance).contains(&(now_ms - tick)) { tick } else { now_ms };
            let time_unix_ms = time.max(slot.last_ms.map_or(i64::MIN, |last| last + 1));
            slot.last_ms = Some(time_unix_ms);
            return Some(Start { id, target: Arc::clone(&slot.target), time_unix_ms, kept });
        }
        None
    }

    /// A scrape has ended. True when what came of it is to be handed over: for a target that is gone, only what is good.
    pub(super) fn end(&mut self, id: u64, target: &Target, mut kept: Kept, is_good: bool) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else { return false };
        let has_moved = slot.target.host != target.host
            || slot.target.port != target.port
            || slot.target.scheme != target.scheme
            || slot.target.pod != target.pod;
        if slot.gone_ms.is_some() || has_moved {
            kept.close();
        }
        slot.state = State::Handing(kept);
        if slot.gone_ms.is_some() && !is_good {
            // The tick of this scrape is the one that it missed.
            slot.gone_ms = slot.last_ms;
            self.taken(id);
            return false;
        }
        true
    }

    /// What came of a scrape was taken over: the target may be scraped again.
    pub(super) fn taken(&mut self, id: u64) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if let State::Handing(kept) = &mut slot.state {
            slot.state = State::Idle(std::mem::take(kept));
            if slot.due_ms.is_some() {
                self.ready.push_back(id);
            }
        }
    }

    /// The wall clock was set: ticks are found anew.
    pub(super) fn set_clock(&mut self, now_ms: i64) {
        self.heap.clear();
        for (id, slot) in &mut self.slots {
            let interval = interval_ms(&slot.target);
            slot.next_ms = first_tick(&slot.target, now_ms);
            let at = slot.gone_ms.map_or(slot.next_ms, |_| now_ms + interval + interval / 10);
            self.heap.push(Reverse((at, *id, slot.version)));
        }
    }

    /// When there is something to do next, milliseconds since the epoch.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Ticks that were let pass since this was last asked.
    pub(super) fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    /// Targets that are scraped.
    pub(super) fn len(&self) -> usize {
        self.slots.values().filter(|slot| slot.gone_ms.is_none()).count()
    }
}

fn interval_ms(target: &Target) -> i64 {
    i64::try_from(target.interval.as_millis()).unwrap_or(i64::MAX / 4).clamp(1, i64::MAX / 4)
}

/// The target's first tick that is not before `now_ms`.
fn first_tick(target: &Target, now_ms: i64) -> i64 {
    let interval = interval_ms(target);
    let offset = (hash(target) % interval as u64) as i64;
    now_ms + (offset - now_ms).rem_euclid(interval)
}

/// The same for the same target in every life of the agent.
fn hash(target: &Target) -> u64 {
    let mut hash = Xxh3::new();
    let mut text = |text: &str| {
        hash.update(text.as_bytes());
        hash.update(&[0xff]);
    };
    for (name, value) in &target.origin.labels {
        text(name);
        text(value);
    }
    text(if target.scheme == Scheme::Https { "https" } else { "http" });
    text(&target.host);
    text(&target.port.to_string());
    text(&target.path);
    hash.digest()
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
