//! Drives one sink: a queue in, requests out, tickets settled.
//!
//! In: shipments, without ever blocking whoever offers them (the memory budget bounds what can be queued). Out:
//! requests through a [`Transport`], refused lines into the dead-letter file, figures into the metrics table.
//! All decisions are the [`Lane`]'s; this file only has the clock, the sockets and the file.
//!
//! When the queue is closed, what waits is still sent; the task ends when everything is settled, or at once when
//! it is killed. Tickets that are open then stay open, so their lines are read again after a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::lane::{self, Lane, Offered, Outcome, Refusal};
use super::{Answer, Wire};
use crate::data::clock;
use crate::data::delivery::{Outlet, Shipment};
use crate::metrics;

/// Name of the dead-letter file in the state directory.
pub const DEAD_LETTERS: &str = "dead-letter.jsonl";

/// Carries a request body to a backend and brings its answer.
pub trait Transport: Send + Sync + 'static {
    /// Sends one body. Never fails: what went wrong is an [`Answer`]. Ends within its own timeout.
    fn send(&self, tenant: Option<&str>, body: Bytes) -> impl Future<Output = Answer> + Send;

    /// Where to, as it may be shown.
    fn target(&self) -> &str;
}

/// Starts a sink called `name`: the entrance to its queue and the task that empties it.
///
/// The task ends when the entrance is dropped and everything is settled, or when `kill` is cancelled.
pub fn spawn<W: Wire, T: Transport>(
    name: &str,
    wire: W,
    transport: T,
    config: lane::Config,
    required: bool,
    dead: Option<DeadLetters>,
    kill: CancellationToken,
) -> (Box<dyn Outlet>, impl Future<Output = ()> + Send + use<W, T>) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the memory budget, or an optional sink's queue limit, bounds it"
    )]
    let (sender, receiver) = mpsc::unbounded_channel();
    let meter = Meter::new(name);
    let (waiting, held) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let entrance = Entrance {
        sender,
        required,
        limit: config.queue.0,
        waiting: Arc::clone(&waiting),
        held: Arc::clone(&held),
        dropped: metrics::SINK_RECORDS.with_label_values(&[name, "dropped"]),
    };
    let lane = Lane::new(wire, config, random());
    let driver =
        Driver { name: name.to_owned(), lane, transport, required, dead, meter, waiting, held, up: true };
    (Box::new(entrance), driver.run(receiver, kill))
}

struct Entrance {
    sender: mpsc::UnboundedSender<Vec<Shipment>>,
    required: bool,
    limit: u64,
    /// Bytes in the channel.
    waiting: Arc<AtomicU64>,
    /// Bytes in the lane.
    held: Arc<AtomicU64>,
    dropped: prometheus::IntCounter,
}

impl Outlet for Entrance {
    fn required(&self) -> bool {
        self.required
    }

    fn offer(&self, shipment: Shipment) {
        self.offer_all(vec![shipment]);
    }

    fn offer_all(&self, mut shipments: Vec<Shipment>) {
        let held = self.held.load(Ordering::Acquire);
        shipments.retain(|shipment| {
            let bytes = shipment.batch.arena.len() as u64;
            let before = self.waiting.fetch_add(bytes, Ordering::AcqRel) + held;
            let full = !self.required && before > 0 && before + bytes > self.limit;
            if full {
                self.waiting.fetch_sub(bytes, Ordering::AcqRel);
                self.dropped.inc_by(shipment.batch.records.len() as u64);
            }
            !full
        });
        let bytes: u64 = shipments.iter().map(|shipment| shipment.batch.arena.len() as u64).sum();
        if self.sender.send(shipments).is_err() {
            // The sink has ended: its tickets stay open, so the lines will be read again.
            self.waiting.fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

struct Driver<W, T> {
    name: String,
    lane: Lane<W>,
    transport: T,
    required: bool,
    dead: Option<DeadLetters>,
    meter: Meter,
    /// Bytes in the channel.
    waiting: Arc<AtomicU64>,
    /// Bytes in the lane.
    held: Arc<AtomicU64>,
    up: bool,
}

impl<W: Wire, T: Transport> Driver<W, T> {
    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Vec<Shipment>>, kill: CancellationToken) {
        let start = Instant::now();
        let transport = Arc::new(self.transport);
        let mut open = true;
        let mut under_way = FuturesUnordered::new();
        let mut arrived = Vec::new();
        loop {
            while let Some(dispatch) = self.lane.next(start.elapsed(), wall_unix_nano()) {
                let mut body = Vec::new();
                self.lane.wire().encode(&dispatch.parcels, &mut body);
                let body = Bytes::from(body);
                self.meter.sent_bytes.inc_by(body.len() as u64);
                let span = tracing::info_span!(
                    "send",
                    otel.kind = "client",
                    sink = %self.name,
                    records = dispatch.records,
                    bytes = body.len(),
                    status = tracing::field::Empty,
                );
                let transport = Arc::clone(&transport);
                under_way.push(
                    async move {
                        let begun = Instant::now();
                        let answer = transport.send(dispatch.tenant.as_deref(), body).await;
                        tracing::Span::current().record("status", status_of(&answer));
                        (dispatch.id, answer, begun.elapsed())
                    }
                    .instrument(span),
                );
            }
            self.held.store(self.lane.held_bytes(), Ordering::Release);
            self.meter.queue_bytes.set(i64::try_from(self.lane.held_bytes()).unwrap_or(i64::MAX));
            if !open && self.lane.is_idle() && under_way.is_empty() {
                return;
            }
            let wake = self.lane.wake_at();
            tokio::select! {
                biased;
                () = kill.cancelled() => {
                    // Nothing waits here any more: it is read again.
                    self.meter.queue_bytes.set(0);
                    return;
                }
                Some((id, answer, took)) = under_way.next(), if !under_way.is_empty() => {
                    self.meter.seconds.observe(took.as_secs_f64());
                    let outcome = self.lane.answer(id, &answer, start.elapsed());
                    if outcome.kind == "retry" {
                        super::said::note(&self.name, &answer.explain());
                    }
                    let refused = account(&self.name, &self.meter, self.required, outcome);
                    if let Some(dead) = self.dead.as_ref().filter(|_| !refused.is_empty()) {
                        bury(dead.clone(), self.name.clone(), refused).await;
                    }
                    let now_up = self.lane.is_up();
                    if now_up != self.up {
                        self.up = now_up;
                        self.meter.up.set(i64::from(now_up));
                        if now_up {
                            tracing::info!(sink = %self.name, endpoint = transport.target(), "sink is back");
                        } else {
                            let error = answer.explain();
                            tracing::warn!(sink = %self.name, endpoint = transport.target(), %error, "sink is down, retrying");
                        }
                    }
                }
                count = receiver.recv_many(&mut arrived, 64), if open => {
                    if count == 0 {
                        open = false;
                        self.lane.drain();
                    }
                    let now = start.elapsed();
                    for shipment in arrived.drain(..).flatten() {
                        self.waiting.fetch_sub(shipment.batch.arena.len() as u64, Ordering::AcqRel);
                        if let Offered::Dropped { records } = self.lane.offer(shipment, now) {
                            self.meter.dropped.inc_by(records);
                        }
                    }
                }
                () = until(start, wake), if wake.is_some() => {}
            }
        }
    }
}

/// Sleeps until `wake` after `start`. Tokio's timer has milliseconds: never early.
async fn until(start: Instant, wake: Option<Duration>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until((start + wake).into()).await;
    }
}

/// Counts what an answer came to; the records that are refused for good.
fn account(name: &str, meter: &Meter, required: bool, outcome: Outcome) -> Vec<Refusal> {
    if !outcome.kind.is_empty() {
        metrics::SINK_REQUESTS.with_label_values(&[name, outcome.kind]).inc();
    }
    meter.delivered.inc_by(outcome.delivered);
    if outcome.delivered > 0 {
        meter.last_success.set(clock::unix_ms() / 1000);
    }
    if let Some((refused, message)) = &outcome.partial {
        lost(meter, required, crate::data::delivery::Reason::PartialSuccess.name(), *refused);
        if *refused > 0 || !message.is_empty() {
            tracing::warn!(sink = name, refused, %message, "backend took a request in part");
        }
    }
    if outcome.refused.is_empty() {
        return Vec::new();
    }
    for refusal in &outcome.refused {
        lost(meter, required, refusal.reason.name(), refusal.parcel.records().len() as u64);
    }
    let first = &outcome.refused[0];
    let records: usize = outcome.refused.iter().map(|refusal| refusal.parcel.records().len()).sum();
    tracing::warn!(sink = name, records, reason = first.reason.name(), message = %first.message, "backend refused lines for good");
    outcome.refused
}

/// Writes refused records to the dead-letter file on a thread that may wait for the disk: a slow one holds up this
/// sink's next answer and nothing else. With the file's limit, and one answer at a time, this is bounded.
async fn bury(mut dead: DeadLetters, name: String, refused: Vec<Refusal>) {
    let written =
        tokio::task::spawn_blocking(move || dead.write(&name, &refused).map_err(|error| (name, error)));
    if let Ok(Err((sink, error))) = written.await {
        tracing::warn!(%sink, %error, "cannot write refused lines to the dead-letter file");
    }
}

fn lost(meter: &Meter, required: bool, reason: &'static str, records: u64) {
    meter.lost.inc_by(records);
    if required {
        metrics::RECORDS_LOST.with_label_values(&[reason]).inc_by(records);
    }
}

fn status_of(answer: &Answer) -> i64 {
    match answer {
        Answer::Http { status, .. } => i64::from(*status),
        Answer::Grpc { code, .. } => i64::from(*code),
        Answer::Unreachable { .. } => -1,
    }
}

fn wall_unix_nano() -> u64 {
    clock::since_epoch().as_nanos() as u64
}

/// Numbers for jitter, which needs no secrecy: a counter through a mixing function (SplitMix64), seeded per process and sink.
pub(super) struct Mix(u64);

impl Mix {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher as _, Hasher as _};
        Self(std::hash::RandomState::new().build_hasher().finish())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn random() -> lane::Random {
    let mut mix = Mix::new();
    Box::new(move || mix.next())
}

struct Meter {
    delivered: prometheus::IntCounter,
    lost: prometheus::IntCounter,
    dropped: prometheus::IntCounter,
    sent_bytes: prometheus::IntCounter,
    seconds: prometheus::Histogram,
    queue_bytes: prometheus::IntGauge,
    last_success: prometheus::IntGauge,
    up: prometheus::IntGauge,
}

impl Meter {
    fn new(name: &str) -> Self {
        let records = |outcome| metrics::SINK_RECORDS.with_label_values(&[name, outcome]);
        let up = metrics::SINK_UP.with_label_values(&[name]);
        up.set(1);
        Self {
            delivered: records("delivered"),
            lost: records("lost"),
            dropped: records("dropped"),
            sent_bytes: metrics::SINK_SENT_BYTES.with_label_values(&[name]),
            seconds: metrics::SINK_REQUEST_SECONDS.with_label_values(&[name]),
            queue_bytes: metrics::SINK_QUEUE_BYTES.with_label_values(&[name]),
            last_success: super::last_success(name),
            up,
        }
    }
}

/// The file of lines that a backend refused for good: JSON lines, at most 16 MiB, then moved to `.1`.
///
/// Shared by all sinks of a state directory: clones write to one file.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    path: PathBuf,
    file: Arc<Mutex<Option<(File, u64)>>>,
    limit: u64,
}

impl DeadLetters {
    /// Size at which the file is moved to `.1`, which replaces the one moved before.
    pub const LIMIT: u64 = 16 << 20;

    /// Dead letters at `path`, which is made when the first line is refused.
    pub fn new(path: PathBuf) -> Self {
        Self::with_limit(path, Self::LIMIT)
    }

    /// The same with another size limit, in bytes.
    pub fn with_limit(path: PathBuf, limit: u64) -> Self {
        Self { path, file: Arc::default(), limit }
    }

    /// Appends the refused lines, whole, with the labels and the reason.
    pub fn write(&mut self, sink: &str, refused: &[Refusal]) -> io::Result<()> {
        let mut slot = self.file.lock();
        let mut text = Vec::new();
        for refusal in refused {
            for record in refusal.parcel.records() {
                letter(&mut text, sink, refusal, record)?;
                if text.len() >= 256 << 10 {
                    self.append(&mut slot, &text)?;
                    text.clear();
                }
            }
        }
        self.append(&mut slot, &text)
    }

    fn append(&self, slot: &mut Option<(File, u64)>, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if slot.as_ref().is_some_and(|(_, size)| *size > 0 && size + text.len() as u64 > self.limit) {
            *slot = None;
            let mut moved = self.path.clone().into_os_string();
            moved.push(".1");
            std::fs::rename(&self.path, moved)?;
        }
        let (file, size) = match slot {
            Some(open) => open,
            None => {
                // Refused lines are log content: for the owner's eyes only.
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
                let size = file.metadata()?.len();
                slot.insert((file, size))
            }
        };
        let written = file.write_all(text);
        *size += text.len() as u64;
        if written.is_err() {
            *slot = None;
        }
        written
    }
}

/// One refused line as JSON.
fn letter(
    out: &mut Vec<u8>,
    sink: &str,
    refusal: &Refusal,
    record: &crate::data::batch::Record,
) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Letter<'a> {
        sink: &'a str,
        reason: &'static str,
        message: &'a str,
        cluster: &'a str,
        namespace: &'a str,
        service_name: &'a str,
        pod: &'a str,
        container: &'a str,
        node: &'a str,
        stream: &'static str,
        time_unix_nano: u64,
        line: std::borrow::Cow<'a, str>,
    }
    let batch = &refusal.parcel.batch;
    let workload = &batch.workload;
    let letter = Letter {
        sink,
        reason: refusal.reason.name(),
        message: &refusal.message,
        cluster: &workload.cluster,
        namespace: &workload.container.namespace,
        service_name: &workload.service_name,
        pod: &workload.container.pod,
        container: &workload.container.container,
        node: &workload.node,
        stream: record.stream.name(),
        time_unix_nano: record.time_unix_nano,
        line: String::from_utf8_lossy(batch.body(record)),
    };
    serde_json::to_writer(&mut *out, &letter)?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests;
