//! The account of one container log: what was written, and what became of each byte.
//!
//! In: what the reading thread sees of the files ([`Sight`]) and what the ledger knows of the rest. Out: an
//! [`Account`], a snapshot in which written = sent + in flight + waiting + held + dropped + lost + unexplained.
//! Invariants: everything but what is seen of the files comes from the ledger and balances exactly; what is seen is
//! measured on its own, so that a remainder means bytes that nobody can explain. A snapshot taken while the log is
//! read may be off by what is between two steps; the remainder is therefore settled at each rotation.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::delivery::{Ledger, Loss, Totals};
use super::tally::{Dropping, Drops, Tally};
use super::workload::{ContainerRef, Workload};

/// The write rate is an exponential average over about this long.
const RATE_WINDOW: Duration = Duration::from_secs(30);
/// Growth over less than this is no rate.
const RATE_STEP: Duration = Duration::from_secs(1);

/// What one look at the files of a log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Bytes written since the agent began with the log: the final sizes of the generations that are left, less
    /// where it began in the first, plus the size of the live one.
    pub written_bytes: u64,
    /// Bytes not yet read, on disk or spilled.
    pub waiting_bytes: u64,
    /// Those of them that are spilled: no rotation can take them.
    pub spilled_bytes: u64,
    /// Bytes that may still be written before the kubelet deletes the oldest unread one, and those not yet read.
    pub headroom_bytes: u64,
    /// Ordinal of the newest generation.
    pub newest_ordinal: u64,
    /// Stamp of the newest line that was read, nanoseconds since the epoch; 0 before the first.
    pub read_unix_nano: u64,
}

/// What the reading thread sees of one log's files. One writer, any number of readers; cheap on both sides.
#[derive(Debug, Default)]
pub struct Sight {
    seen: AtomicBool,
    gone: AtomicBool,
    written: AtomicU64,
    waiting: AtomicU64,
    spilled: AtomicU64,
    headroom: AtomicU64,
    newest: AtomicU64,
    read_unix_nano: AtomicU64,
    /// When all was last found read, in milliseconds and plus one; 0 before that, and when it was first looked at.
    clear_at: AtomicU64,
    first_at: AtomicU64,
    unexplained: AtomicI64,
    /// Bytes a second, as the bits of an `f64`; negative while unknown.
    rate: AtomicU64,
    /// When the rate was last brought up to date, in milliseconds, and what was written then. The writer's own.
    rate_at: AtomicU64,
    rate_written: AtomicU64,
}

impl Sight {
    /// Takes note of a look at `now`, on any clock that only goes on. Called by the reading thread alone.
    pub fn look(&self, now: Duration, look: Look) {
        let Look {
            written_bytes,
            waiting_bytes,
            spilled_bytes,
            headroom_bytes,
            newest_ordinal,
            read_unix_nano,
        } = look;
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        if waiting_bytes == 0 {
            self.clear_at.store(millis, Ordering::Relaxed);
        }
        if !self.seen.load(Ordering::Relaxed) {
            self.first_at.store(millis, Ordering::Relaxed);
        }
        self.read_unix_nano.store(read_unix_nano, Ordering::Relaxed);
        self.written.store(written_bytes, Ordering::Relaxed);
        self.waiting.store(waiting_bytes, Ordering::Relaxed);
        self.spilled.store(spilled_bytes, Ordering::Relaxed);
        self.headroom.store(headroom_bytes, Ordering::Relaxed);
        self.newest.store(newest_ordinal, Ordering::Relaxed);
        self.follow_rate(now, written_bytes);
    }

    fn follow_rate(&self, now: Duration, written: u64) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if !self.seen.swap(true, Ordering::Release) {
            self.rate_at.store(now, Ordering::Relaxed);
            self.rate_written.store(written, Ordering::Relaxed);
            self.rate.store((-1.0_f64).to_bits(), Ordering::Relaxed);
            return;
        }
        let millis = now.saturating_sub(self.rate_at.load(Ordering::Relaxed));
        if u128::from(millis) < RATE_STEP.as_millis() {
            return;
        }
        let seconds = millis as f64 / 1e3;
        let grown = written.saturating_sub(self.rate_written.load(Ordering::Relaxed)) as f64;
        let before = f64::from_bits(self.rate.load(Ordering::Relaxed));
        let current = grown / seconds;
        let rate = if before < 0.0 {
            current
        } else {
            let rate = current + (before - current) * (-seconds / RATE_WINDOW.as_secs_f64()).exp();
            // Below a byte an hour nothing is written.
            if rate < 1.0 / 3600.0 { 0.0 } else { rate }
        };
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
        self.rate_at.store(now, Ordering::Relaxed);
        self.rate_written.store(written, Ordering::Relaxed);
    }

    /// Keeps the remainder of a reconciliation: bytes written that nothing explains, negative when more is
    /// accounted for than was written. See [`Sums::remainder`].
    pub fn set_unexplained(&self, bytes: i64) {
        self.unexplained.store(bytes, Ordering::Relaxed);
    }

    /// The log's files are gone from the node: nothing will be written any more.
    pub fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// How long the oldest unread line has waited at most at `now`, on the clock of [`look`](Self::look), with the wall clock
    /// at `unix_nano`; `None` when all is read. It came after all was last read, and after the newest line that was read.
    pub fn oldest_unread(&self, now: Duration, unix_nano: u64) -> Option<Duration> {
        if !self.seen.load(Ordering::Acquire)
            || self.gone.load(Ordering::Relaxed)
            || self.waiting.load(Ordering::Relaxed) == 0
        {
            return None;
        }
        let since = |at: u64| now.saturating_sub(Duration::from_millis(at.saturating_sub(1)));
        let clear = Some(self.clear_at.load(Ordering::Relaxed)).filter(|at| *at > 0).map(since);
        let read = Some(self.read_unix_nano.load(Ordering::Relaxed)).filter(|at| *at > 0);
        let read = read.map(|at| Duration::from_nanos(unix_nano.saturating_sub(at)));
        let first = || since(self.first_at.load(Ordering::Relaxed));
        Some(clear.into_iter().chain(read).min().unwrap_or_else(first))
    }

    /// Bytes written a second; `None` before it can be told.
    pub fn write_rate(&self) -> Option<f64> {
        if !self.seen.load(Ordering::Acquire) {
            return None;
        }
        if self.gone.load(Ordering::Relaxed) {
            return Some(0.0);
        }
        Some(f64::from_bits(self.rate.load(Ordering::Relaxed))).filter(|rate| *rate >= 0.0)
    }
}

/// Bytes of lines since a log's beginning: those that were handled, lost ones included, and those that were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Read, or lost before they were.
    pub seen_bytes: u64,
    /// Lost, for any reason.
    pub lost_bytes: u64,
}

impl Flow {
    /// The flow of one log as of now.
    pub fn of(ledger: &Ledger) -> Self {
        let totals = ledger.totals();
        let lost = |unread: bool| {
            let of = Loss::ALL.iter().zip(&totals.lost).filter(|(loss, _)| loss.is_unread() || !unread);
            of.map(|(_, tally)| tally.bytes).sum::<u64>()
        };
        let recorder = totals.held.bytes + totals.dropped[Dropping::Recorder as usize].bytes;
        Self { seen_bytes: totals.read_bytes + recorder + lost(true), lost_bytes: lost(false) }
    }

    /// What came since `before`; all of it when the log was begun anew meanwhile.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.seen_bytes < before.seen_bytes || self.lost_bytes < before.lost_bytes {
            return *self;
        }
        Self {
            seen_bytes: self.seen_bytes - before.seen_bytes,
            lost_bytes: self.lost_bytes - before.lost_bytes,
        }
    }
}

impl std::ops::AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.seen_bytes += other.seen_bytes;
        self.lost_bytes += other.lost_bytes;
    }
}

/// What became of the bytes of one log, or of several.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Sums {
    /// Bytes written to the log since the agent began with it.
    #[serde(rename = "written_bytes")]
    pub written: u64,
    /// Bytes that every required sink took, with what the container runtime wrote around the lines.
    #[serde(rename = "sent_bytes")]
    pub sent: u64,
    /// Bytes read and not yet acknowledged.
    #[serde(rename = "in_flight_bytes")]
    pub in_flight: u64,
    /// Bytes not yet read, on disk or spilled.
    #[serde(rename = "waiting_bytes")]
    pub waiting: u64,
    /// Those of the waiting bytes that are spilled.
    #[serde(rename = "spilled_bytes")]
    pub spilled: u64,
    /// What configured processing dropped, in the order of [`Dropping::ALL`].
    #[serde(serialize_with = "by_dropping")]
    pub dropped: Drops,
    /// Bytes that the flight recorder holds back.
    #[serde(rename = "held_bytes", skip_serializing_if = "is_zero")]
    pub held: u64,
    /// Records that it holds back.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_records: u64,
    /// Records that it held back and released.
    #[serde(skip_serializing_if = "is_zero")]
    pub released_records: u64,
    /// What is lost, in the order of [`Loss::ALL`].
    #[serde(serialize_with = "by_loss")]
    pub lost: [Tally; Loss::COUNT],
    /// What was written and is not in any of these, as of the last reconciliation.
    #[serde(rename = "unexplained_bytes")]
    pub unexplained: i64,
    /// Records that every required sink took.
    pub delivered_records: u64,
}

impl Sums {
    /// The sums of one log as of now.
    pub fn of(ledger: &Ledger, sight: &Sight) -> Self {
        Self::from_totals(&ledger.totals(), sight)
    }

    fn from_totals(totals: &Totals, sight: &Sight) -> Self {
        let mut sums = Self {
            written: sight.written.load(Ordering::Relaxed),
            sent: totals.sent_bytes(),
            in_flight: totals.moving_bytes(),
            waiting: sight.waiting.load(Ordering::Relaxed),
            spilled: sight.spilled.load(Ordering::Relaxed),
            dropped: totals.dropped,
            held: totals.held.bytes,
            held_records: totals.held.records,
            released_records: totals.released_records,
            lost: totals.lost,
            unexplained: sight.unexplained.load(Ordering::Relaxed),
            delivered_records: totals.delivered_records,
        };
        if !sight.seen.load(Ordering::Acquire) {
            sums.written = sums.explained();
        }
        sums
    }

    /// Bytes dropped by configured processing, for any reason.
    pub fn dropped_bytes(&self) -> u64 {
        Tally::sum(&self.dropped).bytes
    }

    /// Bytes lost, for any reason.
    pub fn lost_bytes(&self) -> u64 {
        Tally::sum(&self.lost).bytes
    }

    fn explained(&self) -> u64 {
        self.sent + self.in_flight + self.waiting + self.held + self.dropped_bytes() + self.lost_bytes()
    }

    /// What was written less everything that is accounted for: what [`Sight::set_unexplained`] is to be told at a
    /// rotation, when what is seen of the files and the ledger speak of the same moment.
    pub fn remainder(&self) -> i64 {
        self.written.wrapping_sub(self.explained()) as i64
    }

    /// These sums when the log is forgotten: whatever is not settled by now can only be found again as a remainder.
    #[must_use]
    pub fn closed(mut self) -> Self {
        (self.in_flight, self.waiting, self.spilled, self.held, self.held_records) = (0, 0, 0, 0, 0);
        self.unexplained = self.remainder();
        self
    }
}

impl std::ops::AddAssign<&Sums> for Sums {
    fn add_assign(&mut self, other: &Self) {
        self.written += other.written;
        self.sent += other.sent;
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
        self.spilled += other.spilled;
        self.held += other.held;
        self.held_records += other.held_records;
        self.released_records += other.released_records;
        for (sum, more) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += more;
        }
        for (sum, more) in self.lost.iter_mut().zip(other.lost) {
            *sum += more;
        }
        self.unexplained += other.unexplained;
        self.delivered_records += other.delivered_records;
    }
}

/// The account of one container log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// Name of the container.
    pub container: String,
    /// Restart count of the container.
    pub restart: u32,
    /// `service.name` under which its lines go out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// That name was guessed from the pod's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub service_name_guessed: bool,
    /// `deployment.environment.name` of its lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Tenant of its lines, where it is not the sink's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What became of its bytes.
    #[serde(flatten)]
    pub sums: Sums,
    /// How many rotations the acknowledged position is behind the live file.
    pub generation_lag: u64,
    /// Bytes that may still be written before the kubelet deletes the oldest unread one, and those not yet read:
    /// less `waiting_bytes` it is the room that is left.
    pub headroom_bytes: u64,
    /// Bytes written a second, averaged over half a minute; `None` before it can be told.
    #[serde(rename = "write_bytes_per_second")]
    pub write_rate: Option<f64>,
    /// Seconds until the kubelet deletes what is unread if nothing more is read: (headroom − unread) / write rate.
    /// `None` when nothing is written.
    #[serde(rename = "time_to_loss_seconds")]
    pub time_to_loss: Option<f64>,
    /// The log's files are gone from the node.
    pub gone: bool,
}

impl Account {
    /// A snapshot.
    pub fn of(container: &ContainerRef, ledger: &Ledger, sight: &Sight) -> Self {
        let (totals, committed) = ledger.progress();
        let sums = Sums::from_totals(&totals, sight);
        let headroom_bytes = sight.headroom.load(Ordering::Relaxed);
        let write_rate = sight.write_rate();
        let left = headroom_bytes.saturating_sub(sums.waiting);
        Self {
            namespace: container.namespace.clone(),
            pod: container.pod.clone(),
            uid: container.uid.clone(),
            container: container.container.clone(),
            restart: container.restart,
            service_name: String::new(),
            service_name_guessed: false,
            environment: None,
            tenant: None,
            generation_lag: sight.newest.load(Ordering::Relaxed).saturating_sub(committed.ordinal),
            headroom_bytes,
            write_rate,
            time_to_loss: write_rate.filter(|rate| *rate > 0.0).map(|rate| left as f64 / rate),
            gone: sight.gone.load(Ordering::Relaxed),
            sums,
        }
    }

    /// With what its lines carry beside the container's names.
    #[must_use]
    pub fn of_workload(self, workload: &Workload) -> Self {
        Self {
            service_name: workload.service_name.clone(),
            service_name_guessed: workload.service_name_guessed,
            environment: workload.environment.clone(),
            tenant: workload.tenant.clone(),
            ..self
        }
    }

    /// What tells it from other accounts, in the order in which they are listed.
    pub fn name(&self) -> (&str, &str, &str, u32, &str) {
        (&self.namespace, &self.pod, &self.container, self.restart, &self.uid)
    }

    /// True when a backlog is there that a rotation could reach.
    pub fn is_behind(&self) -> bool {
        self.generation_lag > 0 || self.sums.waiting > 0
    }
}

/// Puts the accounts that are most in danger first: by generation lag, then by unread bytes, then by name.
pub fn sort_worst_first(accounts: &mut [Account]) {
    accounts.sort_by(|a, b| {
        (b.generation_lag, b.sums.waiting)
            .cmp(&(a.generation_lag, a.sums.waiting))
            .then_with(|| a.name().cmp(&b.name()))
    });
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn by_reason<S: Serializer>(
    serializer: S,
    reasons: impl Iterator<Item = (&'static str, Tally)>,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown {
        records: u64,
        bytes: u64,
    }
    let mut map = serializer.serialize_map(None)?;
    for (reason, Tally { records, bytes }) in reasons.filter(|(_, tally)| *tally != Tally::default()) {
        map.serialize_entry(reason, &Shown { records, bytes })?;
    }
    map.end()
}

fn by_dropping<S: Serializer>(drops: &Drops, serializer: S) -> Result<S::Ok, S::Error> {
    by_reason(serializer, Dropping::ALL.iter().map(|reason| reason.name()).zip(*drops))
}

fn by_loss<S: Serializer>(lost: &[Tally; Loss::COUNT], serializer: S) -> Result<S::Ok, S::Error> {
    by_reason(serializer, Loss::ALL.iter().map(|reason| reason.name()).zip(*lost))
}

#[cfg(test)]
mod tests;
