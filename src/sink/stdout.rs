//! The stdout sink: every record as one JSON object on a line of its own.
//!
//! In: shipments. Out: lines, written by a thread of its own, so that a reader who pauses blocks nobody else.
//! Invariants: only whole lines are written, each once; a ticket is settled after its batch was written and
//! flushed; the queue of a required sink is bounded by the memory budget, that of an optional one by `queue`.
//!
//! When nobody reads any more (EPIPE), nothing further can be delivered in this process: the sink says so once,
//! leaves its tickets open, so that the lines are read again after a restart, and counts what an optional one
//! drops. Any other error (a full disk behind a redirection) is waited out.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::json::write_json;
use crate::data::batch::Fields;
use crate::data::delivery::{Outlet, Shipment};
use crate::data::units::ByteSize;
use crate::metrics;

/// Lines are handed to the kernel once they fill this many bytes, or at the end of a batch.
const CHUNK: usize = 64 << 10;

/// A buffer that a giant line has grown beyond this is given back.
const KEEP: usize = 1 << 20;

/// Pause before an error that may pass is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Lines on standard output: `[sink.stdout.<name>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// True: log files never wait for whoever reads standard output; what does not fit the queue is dropped and
    /// counted.
    pub optional: bool, // false
    /// Bytes of log data that an optional sink may hold in memory while its reader pauses. They count against the
    /// memory budget of all sinks.
    pub queue: ByteSize, // 4MiB
}

impl Default for Config {
    fn default() -> Self {
        Self { optional: false, queue: ByteSize::mib(4) }
    }
}

impl Config {
    /// What the sink may hold in memory beside the batches, in bytes, by what holds it: a chunk and the longest
    /// line of 256 KiB, of which every byte may have to be written as six.
    pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
        vec![("encoding", (CHUNK + 6 * (256 << 10)) as u64)]
    }
}

/// Why there is no stdout sink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor cannot be written to.
    #[error("standard output is closed: {0}; redirect it to a file or remove [sink.stdout]")]
    Closed(io::Error),
    /// The writing thread cannot start.
    #[error("cannot start the thread that writes standard output: {0}")]
    Thread(io::Error),
}

/// Starts a sink on the process's standard output. `name` is its `sink` label in the metrics.
pub fn open(name: &str, config: &Config, fields: Fields) -> Result<(Stdout, Drain), Error> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(Error::Closed)?);
    start(name, config, fields, file)
}

/// Starts a sink on any writer.
pub fn start(
    name: &str,
    config: &Config,
    fields: Fields,
    writer: impl Write + Send + 'static,
) -> Result<(Stdout, Drain), Error> {
    let (sender, receiver) = channel();
    let (alive, ended) = channel();
    let shared = Arc::new(Shared { name: name.to_owned(), queued: AtomicU64::new(0) });
    metrics::SINK_UP.with_label_values(&[name]).set(1);
    let mut lines = Lines { shared: Arc::clone(&shared), fields, writer, buffer: Vec::new(), failing: None };
    std::thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(move || {
            lines.run(&receiver);
            drop(alive);
        })
        .map_err(Error::Thread)?;
    let limit = config.optional.then_some(config.queue.0);
    Ok((Stdout { shared, sender, limit }, Drain { ended }))
}

#[derive(Debug)]
struct Shared {
    name: String,
    /// Bytes of batches that are queued or being written.
    queued: AtomicU64,
}

impl Shared {
    fn count(&self, outcome: &str, records: u64) {
        metrics::SINK_RECORDS.with_label_values(&[self.name.as_str(), outcome]).inc_by(records);
    }

    fn release(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Ordering::AcqRel);
        metrics::SINK_QUEUE_BYTES.with_label_values(&[&self.name]).sub(bytes as i64);
    }
}

/// The entrance to the sink. Dropping it ends the sink once its queue is written.
#[derive(Debug)]
pub struct Stdout {
    shared: Arc<Shared>,
    sender: Sender<Shipment>,
    /// Bytes that may be queued; `None` for a required sink.
    limit: Option<u64>,
}

impl Outlet for Stdout {
    fn required(&self) -> bool {
        self.limit.is_none()
    }

    fn offer(&self, shipment: Shipment) {
        let bytes = shipment.batch.permit.bytes();
        let records = shipment.batch.records.len() as u64;
        let before = self.shared.queued.fetch_add(bytes, Ordering::AcqRel);
        metrics::SINK_QUEUE_BYTES.with_label_values(&[&self.shared.name]).add(bytes as i64);
        // A batch above the whole limit fits an empty queue.
        let fits = self.limit.is_none_or(|limit| before == 0 || before + bytes <= limit);
        if fits {
            // The thread reads until this sender is dropped, so sending cannot fail.
            let _ = self.sender.send(shipment);
        } else {
            self.shared.release(bytes);
            self.shared.count("dropped", records);
        }
    }
}

/// Waits for the end of a sink whose entrance was dropped.
#[derive(Debug)]
pub struct Drain {
    ended: Receiver<()>,
}

impl Drain {
    /// True when everything queued was written within `timeout`, or can no longer be.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

/// One writer at a time, so that two sinks on one output do not mix their lines.
static TURN: Mutex<()> = Mutex::new(());

struct Lines<W> {
    shared: Arc<Shared>,
    fields: Fields,
    writer: W,
    buffer: Vec<u8>,
    /// What the output fails with at the moment, said once per change.
    failing: Option<io::ErrorKind>,
}

impl<W: Write> Lines<W> {
    fn run(&mut self, shipments: &Receiver<Shipment>) {
        while let Ok(Shipment { batch, ticket }) = shipments.recv() {
            let written = self.write(&batch);
            let (bytes, records) = (batch.permit.bytes(), batch.records.len() as u64);
            drop(batch);
            self.shared.release(bytes);
            match (written, ticket) {
                (Ok(()), ticket) => {
                    self.shared.count("delivered", records);
                    if let Some(ticket) = ticket {
                        ticket.delivered();
                    }
                }
                (Err(error), ticket) => {
                    metrics::SINK_UP.with_label_values(&[&self.shared.name]).set(0);
                    tracing::error!(
                        sink = %self.shared.name,
                        %error,
                        required = ticket.is_some(),
                        "nobody reads standard output any more; restart the agent to deliver the rest"
                    );
                    self.abandon(ticket.is_none(), records, shipments);
                    return;
                }
            }
        }
    }

    /// The output is gone: frees what is and what will be queued, until the entrance is dropped.
    fn abandon(&self, optional: bool, records: u64, shipments: &Receiver<Shipment>) {
        let count = |records| {
            if optional {
                self.shared.count("dropped", records);
            }
        };
        count(records);
        for shipment in shipments {
            self.shared.release(shipment.batch.permit.bytes());
            count(shipment.batch.records.len() as u64);
        }
    }

    fn write(&mut self, batch: &crate::data::batch::Batch) -> io::Result<()> {
        for record in &batch.records {
            write_json(batch, record, self.fields, &mut self.buffer);
            self.buffer.push(b'\n');
            if self.buffer.len() >= CHUNK {
                self.hand_over()?;
            }
        }
        self.hand_over()
    }

    /// Writes and flushes the buffer. Only an output that is gone for good is an error.
    fn hand_over(&mut self) -> io::Result<()> {
        let turn = TURN.lock();
        let mut rest = self.buffer.as_slice();
        loop {
            let step =
                if rest.is_empty() { self.writer.flush().map(|()| 0) } else { self.writer.write(rest) };
            match step {
                Ok(0) if rest.is_empty() => break,
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    if self.failing.take().is_some() {
                        metrics::SINK_UP.with_label_values(&[&self.shared.name]).set(1);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Somebody made the shared descriptor non-blocking; its reader pauses.
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    if self.failing != Some(error.kind()) {
                        self.failing = Some(error.kind());
                        metrics::SINK_UP.with_label_values(&[&self.shared.name]).set(0);
                        tracing::warn!(sink = %self.shared.name, %error, "cannot write standard output; trying on");
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
        drop(turn);
        let sent = self.buffer.len() as u64;
        metrics::SINK_SENT_BYTES.with_label_values(&[&self.shared.name]).inc_by(sent);
        self.buffer.clear();
        if self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

/// True when the output never takes another byte: the reader closed it (EPIPE) or the descriptor is not open for
/// writing (EBADF).
fn is_final(error: &io::Error) -> bool {
    const EBADF: i32 = 9;
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(EBADF)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::data::batch::{Batch, Record, Span};
    use crate::data::budget::Budget;
    use crate::data::delivery::{Fanout, Ledger};
    use crate::data::position::Position;
    use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};

    fn at(offset: u64) -> Position {
        Position { offset, ..Position::default() }
    }

    fn batch(lines: &[&str], end: u64, budget: &Arc<Budget>) -> Batch {
        let container = ContainerRef::from_path("shop_web-0_uid", "api", 0).expect("a path");
        let mut identity = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
            panic!("paths say all")
        };
        let mut arena = Vec::new();
        let records = lines
            .iter()
            .map(|line| {
                let start = arena.len();
                arena.extend_from_slice(line.as_bytes());
                Record { body: Span::new(start, arena.len()), ..Record::default() }
            })
            .collect();
        Batch {
            workload,
            path: "p".into(),
            start: Position::default(),
            end: at(end),
            arena,
            records,
            catching_up: false,
            sealed_unix_nano: 0,
            permit: budget.reserve(100).expect("fits"),
        }
    }

    fn budget() -> Arc<Budget> {
        Budget::new(1 << 20, Arc::default())
    }

    fn count(sink: &str, outcome: &str) -> u64 {
        metrics::SINK_RECORDS.with_label_values(&[sink, outcome]).get()
    }

    #[test]
    fn whole_lines_come_out_and_settle_their_tickets() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (stdout, drain) = start("out-1", &Config::default(), Fields::NONE, writer).expect("started");
        let fanout = Fanout::new(vec![Box::new(stdout)]);
        let ledger = Ledger::new(at(0), Arc::default());
        let budget = budget();
        let giant = "x".repeat(3 * CHUNK);
        fanout.ship(&ledger, batch(&["one", "two\nlines"], 10, &budget), 10);
        fanout.ship(&ledger, batch(&[&giant], 20, &budget), 10);
        drop(fanout);
        let lines: Vec<serde_json::Value> = BufReader::new(reader)
            .lines()
            .map(|line| serde_json::from_str(&line.expect("UTF-8")).expect("one object a line"))
            .collect();
        let texts: Vec<_> = lines.iter().map(|line| line["line"].as_str().expect("a line")).collect();
        assert_eq!(texts, ["one", "two\nlines", &giant]);
        assert!(drain.wait(Duration::from_secs(5)));
        assert_eq!(ledger.committed(), at(20));
        assert_eq!((count("out-1", "delivered"), budget.held()), (3, 0));
    }

    #[test]
    fn a_reader_who_leaves_settles_nothing() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (stdout, drain) = start("out-2", &Config::default(), Fields::NONE, writer).expect("started");
        let fanout = Fanout::new(vec![Box::new(stdout)]);
        let ledger = Ledger::new(at(0), Arc::default());
        let budget = budget();
        drop(reader);
        fanout.ship(&ledger, batch(&["one"], 10, &budget), 10);
        fanout.ship(&ledger, batch(&["two"], 20, &budget), 10);
        drop(fanout);
        assert!(drain.wait(Duration::from_secs(5)));
        assert_eq!(ledger.committed(), at(0));
        assert_eq!((count("out-2", "delivered"), budget.held()), (0, 0));
        assert_eq!(metrics::SINK_UP.with_label_values(&["out-2"]).get(), 0);
    }

    /// Blocks in its first write until told otherwise.
    struct Gate(Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_optional_sink_drops_what_its_queue_cannot_hold() {
        let (open, gate) = sync_channel::<()>(0);
        let config = Config { optional: true, queue: ByteSize(250) };
        let (stdout, drain) = start("out-3", &config, Fields::NONE, Gate(gate)).expect("started");
        let fanout = Fanout::new(vec![Box::new(stdout)]);
        let ledger = Ledger::new(at(0), Arc::default());
        let budget = budget();
        for end in 1..=5 {
            fanout.ship(&ledger, batch(&["line"], end, &budget), 1);
        }
        assert_eq!(ledger.committed(), at(5), "the file never waits");
        assert_eq!(count("out-3", "dropped"), 3);
        drop(open);
        drop(fanout);
        assert!(drain.wait(Duration::from_secs(5)));
        assert_eq!((count("out-3", "delivered"), budget.held()), (2, 0));
        assert_eq!(metrics::SINK_QUEUE_BYTES.with_label_values(&["out-3"]).get(), 0);
    }

    /// Takes one byte at a time, between errors.
    struct Flaky(VecDeque<io::ErrorKind>, Arc<Mutex<Vec<u8>>>);

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.0.pop_front() {
                return Err(kind.into());
            }
            self.1.lock().push(bytes[0]);
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn errors_that_pass_repeat_no_byte() {
        let errors =
            [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock, io::ErrorKind::StorageFull].into();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let writer = Flaky(errors, Arc::clone(&taken));
        let (stdout, drain) = start("out-4", &Config::default(), Fields::NONE, writer).expect("started");
        let fanout = Fanout::new(vec![Box::new(stdout)]);
        let ledger = Ledger::new(at(0), Arc::default());
        fanout.ship(&ledger, batch(&["a", "b"], 10, &budget()), 10);
        drop(fanout);
        assert!(drain.wait(Duration::from_secs(5)));
        let text = String::from_utf8(taken.lock().clone()).expect("UTF-8");
        assert_eq!(text.matches("\"line\":").count(), 2);
        assert!(text.ends_with("\"line\":\"b\"}\n"), "{text}");
        assert_eq!(ledger.committed(), at(10));
        assert_eq!(metrics::SINK_UP.with_label_values(&["out-4"]).get(), 1);
    }
}
