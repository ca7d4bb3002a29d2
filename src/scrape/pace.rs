//! When each target is scraped.
//!
//! In: the targets as they change. Out: an [`Event`] for each scrape that has ended and each target that is no more.
//! Invariants: one task for all targets, one scrape a target at a time, so one that hangs delays no other; what is not
//! taken over delays further scrapes and is never queued without bound; when the agent stops nothing ends.

mod schedule;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::schedule::{Schedule, Start};
use super::fetch::{Fetcher, Kept};
use super::target::Target;
use super::{Event, Fetched};
use crate::data::clock::{since_epoch, unix_ms};
use crate::data::pods::{Pod, Pods};
use crate::metrics;

/// How many events may wait to be taken over. More would only hold more memory.
pub const EVENTS: usize = 16;

/// How long a change of the pods may go unseen. Changes come in bursts.
const LOOK: Duration = Duration::from_millis(500);

/// A wall clock that differs this much from the time that has passed was set.
const SET_MS: i64 = 1_000;

/// The targets as they are now.
pub type Targets = Arc<[Arc<Target>]>;

/// Finds the targets anew when pods change. Ends with `stop`, or when nobody wants them any more.
pub async fn discover(
    pods: Pods,
    mut find: impl FnMut(&[Arc<Pod>]) -> Vec<Arc<Target>>,
    targets: watch::Sender<Targets>,
    stop: CancellationToken,
) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = targets.closed() => return,
            _ = looks.tick() => {}
        }
        let version = pods.version();
        if seen == Some(version) {
            continue;
        }
        // Read before the pods: a change between the two is seen a second time.
        seen = Some(version);
        let found: Targets = find(&pods.living()).into();
        targets.send_if_modified(|known| {
            let is_new = *known != found;
            if is_new {
                *known = found;
            }
            is_new
        });
    }
}

/// Scrapes `targets` until `stop`. `observe` sees what comes of each scrape before it is handed over.
pub async fn run(
    fetcher: Fetcher,
    mut targets: watch::Receiver<Targets>,
    events: mpsc::Sender<Event>,
    mut observe: impl FnMut(&Fetched),
    stop: CancellationToken,
) {
    let mut clock = Clock::new();
    let mut schedule = Schedule::default();
    let mut fetching = FuturesUnordered::new();
    let mut outbox: VecDeque<(u64, Event)> = VecDeque::new();
    let unsent = Arc::new(AtomicUsize::new(0));
    let (channel, outside) = (events.downgrade(), Arc::clone(&unsent));
    fetcher.memory().watch(move || {
        let queued = channel.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity());
        queued + outside.load(Ordering::Relaxed)
    });
    let mut is_open = true;
    targets.mark_changed();
    loop {
        let now_ms = clock.now_ms();
        if clock.was_set() {
            schedule.set_clock(now_ms);
        }
        for gone in schedule.turn(now_ms) {
            let event = Event::Removed { target: gone.target, time_unix_ms: gone.time_unix_ms };
            outbox.push_back((0, event));
            unsent.store(outbox.len(), Ordering::Relaxed);
            fetcher.memory().hand_over(0);
        }
        // What was scraped is taken over before more is scraped.
        while outbox.is_empty()
            && let Some(start) = schedule.start(now_ms)
        {
            fetching.push(fetch(&fetcher, start));
        }
        count(&mut schedule);
        let wake = schedule.next_ms().map(|at| clock.until(at));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = targets.changed(), if is_open => {
                is_open = changed.is_ok();
                let now = Arc::clone(&targets.borrow_and_update());
                schedule.apply(&now, clock.now_ms());
                metrics::SCRAPE_TARGETS.set(schedule.len() as i64);
            }
            Some((id, fetched, kept)) = fetching.next(), if !fetching.is_empty() => {
                if schedule.end(id, &fetched.target, kept, fetched.body.is_ok()) {
                    observe(&fetched);
                    record(&fetched);
                    let length = fetched.body.as_ref().map_or(0, |body| body.bytes.len());
                    outbox.push_back((id, Event::Fetched(fetched)));
                    unsent.store(outbox.len(), Ordering::Relaxed);
                    fetcher.memory().hand_over(length);
                }
            }
            permit = events.reserve(), if !outbox.is_empty() => {
                // Whoever takes events over has ended, and the agent with it.
                let Ok(permit) = permit else { return };
                if let Some((id, event)) = outbox.pop_front() {
                    permit.send(event);
                    unsent.store(outbox.len(), Ordering::Relaxed);
                    schedule.taken(id);
                }
            }
            () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => {}
        }
    }
}

async fn fetch(fetcher: &Fetcher, start: Start) -> (u64, Fetched, Kept) {
    let Start { id, target, time_unix_ms, mut kept } = start;
    let begin = Instant::now();
    let body = fetcher.scrape(&target, &mut kept).await;
    let took = begin.elapsed();
    (id, Fetched { target, time_unix_ms, took, body }, kept)
}

fn record(fetched: &Fetched) {
    metrics::SCRAPES.inc();
    metrics::SCRAPE_SECONDS.observe(fetched.took.as_secs_f64());
    match &fetched.body {
        Ok(body) => metrics::SCRAPE_BODY_BYTES.inc_by(body.bytes.len() as u64),
        Err(failure) => metrics::SCRAPE_FAILURES.with_label_values(&[failure.reason()]).inc(),
    }
}

fn count(schedule: &mut Schedule) {
    let skipped = schedule.take_skipped();
    if skipped.running > 0 {
        metrics::SCRAPE_TICKS_SKIPPED.with_label_values(&["running"]).inc_by(skipped.running);
    }
    if skipped.behind > 0 {
        metrics::SCRAPE_TICKS_SKIPPED.with_label_values(&["behind"]).inc_by(skipped.behind);
    }
}

/// The wall clock, and whether somebody has set it.
struct Clock {
    wall_ms: i64,
    begin: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { wall_ms: unix_ms(), begin: Instant::now() }
    }

    fn now_ms(&self) -> i64 {
        unix_ms()
    }

    /// From now until a time; not at all when it has passed.
    fn until(&self, at_ms: i64) -> Duration {
        Duration::from_millis(at_ms.max(0) as u64).saturating_sub(since_epoch())
    }

    /// True when the wall clock was set since this was last asked.
    fn was_set(&mut self) -> bool {
        let now = Self::new();
        let passed = (now.begin - self.begin).as_millis() as i64;
        let was_set = (now.wall_ms - self.wall_ms - passed).abs() > SET_MS;
        // A clock that is slewed drifts slowly: only a step between two looks counts.
        *self = now;
        was_set
    }
}
