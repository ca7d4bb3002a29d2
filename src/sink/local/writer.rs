//! The store's one thread: queue → JSON lines → durable segment → settled tickets.
//!
//! In: shipments, over a channel that never blocks the sender. Out: segments and settled tickets. Commits are grouped:
//! at most one `fdatasync` every [`COMMIT_INTERVAL`] or [`COMMIT_BYTES`], and at once when the last is older. The
//! thread ends when its [`Outlet`] dropped and all is written; a disk that still refuses then is given up after
//! [`LAST_TRY`], with tickets open, so that the lines are read again after the restart.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Config;
use super::seen::Seen;
use super::segments::{Segments, Sync};
use crate::data::batch::Fields;
use crate::data::clock;
use crate::data::delivery::{self, Shipment, Ticket};
use crate::metrics;
use crate::sink::json::write_json;

/// Shortest time between two commits, unless [`COMMIT_BYTES`] wait.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of JSON after which a commit does not wait for more.
const COMMIT_BYTES: usize = 1 << 20;
/// Capacity above which the commit buffer is given back after use.
const BUFFER_KEEP_BYTES: usize = 2 << 20;
/// Bytes of batches that may wait for an optional store.
pub(super) const OPTIONAL_QUEUE_BYTES: u64 = 4 << 20;
/// First and longest pause after a refused write.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How long a refusing disk is tried once the outlet is gone.
const LAST_TRY: Duration = Duration::from_secs(5);
/// A stored line without these could be neither shown nor recognised: they are always stored.
const IDENTITY: Fields = Fields::POD.with(Fields::STREAM).with(Fields::LEVEL);

/// Starts the thread of the store called `name`. `fields` are the record's optional keys.
///
/// A directory that cannot be written is no error here: the store warns, keeps its tickets and tries again.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(name: &str, config: &Config, state_dir: &Path, fields: Fields) -> io::Result<(Outlet, Writer)> {
    start_with(name, config, state_dir, fields, Box::new(std::fs::File::sync_data))
}

pub(super) fn start_with(
    name: &str,
    config: &Config,
    state_dir: &Path,
    fields: Fields,
    sync: Sync,
) -> io::Result<(Outlet, Writer)> {
    let dir = config.directory(name, state_dir);
    let (sender, receiver) = mpsc::channel();
    let queued_bytes = Arc::new(AtomicU64::new(0));
    let mut store = Store {
        name: name.to_owned(),
        dir: dir.clone(),
        fields: fields.with(IDENTITY),
        segments: Segments::new(dir.clone(), config.segment.0, config.max_bytes.0, sync),
        seen: Seen::default(),
        queue: Queue { receiver, waiting: VecDeque::new(), disconnected: None },
        queued_bytes: Arc::clone(&queued_bytes),
        buf: Vec::new(),
        tickets: Vec::new(),
        records: 0,
        up: true,
    };
    let thread = std::thread::Builder::new().name(format!("local-{name}")).spawn(move || store.run())?;
    let outlet = Outlet { sender, required: !config.optional, queued_bytes, name: name.to_owned() };
    Ok((outlet, Writer { dir, thread }))
}

/// The entrance to the store's queue.
#[derive(Debug)]
pub struct Outlet {
    sender: Sender<Shipment>,
    required: bool,
    queued_bytes: Arc<AtomicU64>,
    name: String,
}

impl delivery::Outlet for Outlet {
    fn required(&self) -> bool {
        self.required
    }

    fn offer(&self, shipment: Shipment) {
        let bytes = shipment.batch.arena.len() as u64;
        let records = shipment.batch.records.len() as u64;
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let full = !self.required && queued + bytes > OPTIONAL_QUEUE_BYTES;
        // A thread that is gone leaves the ticket unsettled: the lines are read again after a restart.
        if full || self.sender.send(shipment).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            if !self.required {
                metrics::SINK_RECORDS.with_label_values(&[&self.name, "dropped"]).inc_by(records);
            }
        }
    }
}

/// The running thread of a store.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    thread: JoinHandle<bool>,
}

impl Writer {
    /// Where the segments lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True when the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread, which ends once its outlet dropped and all is written. True when all was written, false
    /// when the disk refused to the last.
    pub fn join(self) -> bool {
        self.thread.join().unwrap_or(false)
    }
}

/// The receiving end, with what came in while the disk refused.
struct Queue {
    receiver: Receiver<Shipment>,
    waiting: VecDeque<Shipment>,
    /// When the outlet was first found gone.
    disconnected: Option<Instant>,
}

impl Queue {
    /// The next shipment; `None` after `timeout`, or when there will be none.
    fn next(&mut self, timeout: Option<Duration>) -> Option<Shipment> {
        if let Some(shipment) = self.waiting.pop_front() {
            return Some(shipment);
        }
        let received = match timeout {
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(timeout) => self.receiver.recv_timeout(timeout),
        };
        if matches!(received, Err(RecvTimeoutError::Disconnected)) {
            self.disconnected.get_or_insert_with(Instant::now);
        }
        received.ok()
    }

    /// Waits `pause`; false when the outlet is gone and the last try is over.
    fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if let Some(since) = self.disconnected {
                std::thread::sleep(until.saturating_duration_since(Instant::now()).min(COMMIT_INTERVAL * 2));
                return since.elapsed() < LAST_TRY;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(shipment) => self.waiting.push_back(shipment),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => self.disconnected = Some(Instant::now()),
            }
        }
    }
}

struct Store {
    name: String,
    dir: PathBuf,
    fields: Fields,
    segments: Segments,
    seen: Seen,
    queue: Queue,
    queued_bytes: Arc<AtomicU64>,
    /// Whole lines that are not yet durable.
    buf: Vec<u8>,
    /// Settled when `buf` is durable.
    tickets: Vec<Ticket>,
    /// Records behind `tickets`.
    records: u64,
    up: bool,
}

impl Store {
    /// True when everything that was offered is durable.
    fn run(&mut self) -> bool {
        let opened = self.until_done(|store| {
            store.seen = store.segments.open()?;
            Ok(())
        });
        if !opened {
            return false;
        }
        self.account();
        let mut last: Option<Instant> = None;
        while let Some(first) = self.queue.next(None) {
            self.take(first);
            let due = last.map_or_else(Instant::now, |last| last + COMMIT_INTERVAL);
            while self.buf.len() < COMMIT_BYTES
                && let Some(more) = self.queue.next(Some(due.saturating_duration_since(Instant::now())))
            {
                self.take(more);
            }
            if !self.commit() {
                return false;
            }
            last = Some(Instant::now());
        }
        true
    }

    /// Turns a batch into lines; its memory returns to the budget here.
    fn take(&mut self, shipment: Shipment) {
        let Shipment { batch, ticket } = shipment;
        for record in &batch.records {
            if !self.seen.contains(&batch, record) {
                write_json(&batch, record, self.fields, &mut self.buf);
                self.buf.push(b'\n');
            }
        }
        self.records += batch.records.len() as u64;
        self.tickets.extend(ticket);
        let bytes = batch.arena.len() as u64;
        let queued = self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        metrics::SINK_QUEUE_BYTES.with_label_values(&[&self.name]).set(queued.cast_signed());
    }

    fn commit(&mut self) -> bool {
        let begun = Instant::now();
        let bytes = self.buf.len() as u64;
        if !self.until_done(|store| store.segments.append(&mut store.buf)) {
            return false;
        }
        let sink: &[&str] = &[&self.name];
        metrics::SINK_SENT_BYTES.with_label_values(sink).inc_by(bytes);
        metrics::SINK_REQUEST_SECONDS.with_label_values(sink).observe(begun.elapsed().as_secs_f64());
        metrics::SINK_REQUESTS.with_label_values(&[&self.name, "delivered"]).inc();
        let records = std::mem::take(&mut self.records);
        metrics::SINK_RECORDS.with_label_values(&[&self.name, "delivered"]).inc_by(records);
        metrics::SINK_LAST_SUCCESS.with_label_values(sink).set(clock::unix_ms() / 1000);
        self.account();
        for ticket in self.tickets.drain(..) {
            ticket.delivered();
        }
        if self.buf.capacity() > BUFFER_KEEP_BYTES {
            self.buf = Vec::new();
        }
        true
    }

    fn account(&mut self) {
        let sink: &[&str] = &[&self.name];
        metrics::LOCAL_STORE_BYTES.with_label_values(sink).set(self.segments.bytes().cast_signed());
        metrics::LOCAL_EVICTED_BYTES.with_label_values(sink).inc_by(self.segments.take_evicted());
        metrics::SINK_UP.with_label_values(sink).set(i64::from(self.up));
    }

    /// Tries `step` until the disk takes it. Warns once when it begins to refuse and tells when it no longer does.
    fn until_done(&mut self, mut step: impl FnMut(&mut Self) -> io::Result<()>) -> bool {
        let mut pause = BACKOFF.0;
        loop {
            let Err(error) = step(self) else {
                if !self.up {
                    info!(sink = %self.name, dir = %self.dir.display(), "local store is written again");
                    self.up = true;
                }
                return true;
            };
            metrics::SINK_REQUESTS.with_label_values(&[&self.name, "retry"]).inc();
            if self.up {
                self.up = false;
                metrics::SINK_UP.with_label_values(&[&self.name]).set(0);
                warn!(sink = %self.name, dir = %self.dir.display(), %error,
                    "local store cannot be written; log files wait until it can");
            }
            if !self.queue.pause(pause) {
                warn!(sink = %self.name, dir = %self.dir.display(), %error,
                    "local store was given up at the end; its lines are read again after the restart");
                return false;
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
