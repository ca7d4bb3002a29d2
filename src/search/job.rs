//! What one search may use, what it has used, and the way to whoever asked.
//!
//! In: the records that were found in one log after another. Out: chunks of whole lines, and the last line that says what
//! was searched. Invariants: of each log the newest records stay when they are more than asked for; nothing waits for a
//! client beyond the deadline; at most [`HELD_BYTES`] of records are held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::{Sender, error::TrySendError};

/// Bytes of records that are held until their log is read.
pub(super) const HELD_BYTES: usize = 4 << 20;
/// Bytes of records that one search gives out.
const SHOWN_BYTES: usize = 32 << 20;
/// Bytes of logs that one search reads.
pub(super) const READ_BYTES: u64 = 4 << 30;
/// After so many bytes others have their turn.
const PACE_BYTES: u64 = 1 << 20;
/// For so long.
const PACE: Duration = Duration::from_millis(1);
/// Lines go out in chunks of about this size.
const CHUNK_BYTES: usize = 64 << 10;
/// How long a client that does not read is waited for, again and again until the deadline.
const CLIENT_PAUSE: Duration = Duration::from_millis(5);
/// How long the end of a search waits for its client.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Files that could not be read are told by name, so many of them.
const NAMED: usize = 20;

/// Why a search ended before everything was searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cut {
    /// Its time was over.
    Deadline,
    /// It had read as much as it may.
    Bytes,
    /// As many records were found as were asked for, or as may be shown.
    Limit,
    /// The agent stops, or takes up a new config.
    Stopping,
    /// Whoever asked does not read, or has left.
    Client,
}

/// A file that was not searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Skipped {
    file: String,
    reason: String,
}

/// What was searched: the last line of the stream, under `searched`.
#[derive(Debug, Clone, Default, Serialize)]
struct Searched {
    /// All that was asked for was searched, and all that was found is shown.
    complete: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
    /// Container and file logs that were looked into.
    logs: u64,
    /// Files that were read, at least in part.
    files: u64,
    /// Files that were passed over, since their lines are too old or too new.
    files_out_of_range: u64,
    /// Files and logs that could not be read, or were not to be.
    files_skipped: u64,
    /// Bytes of logs that were read, decompressed.
    bytes: u64,
    /// Records that were found.
    matches: u64,
    /// Records that were shown. Where they are fewer, older ones were left out.
    shown: u64,
    milliseconds: u64,
    /// The first of those that were skipped, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<Skipped>,
}

/// One search.
pub(super) struct Job {
    begun: Instant,
    deadline: Instant,
    stopping: Arc<AtomicBool>,
    client: Sender<Bytes>,
    limit: usize,
    held: VecDeque<Vec<u8>>,
    held_bytes: usize,
    shown_bytes: usize,
    paced: u64,
    read_limit: u64,
    searched: Searched,
    buffer: Vec<u8>,
}

impl Job {
    pub(super) fn new(
        limit: usize,
        time: Duration,
        read_limit: u64,
        stopping: Arc<AtomicBool>,
        client: Sender<Bytes>,
    ) -> Self {
        let begun = Instant::now();
        Self {
            begun,
            deadline: begun + time,
            stopping,
            client,
            limit,
            held: VecDeque::new(),
            held_bytes: 0,
            shown_bytes: 0,
            paced: 0,
            read_limit,
            searched: Searched::default(),
            buffer: Vec::new(),
        }
    }

    /// Whether the search may go on.
    pub(super) fn check(&mut self) -> Result<(), Cut> {
        if self.client.is_closed() {
            return Err(Cut::Client);
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Cut::Stopping);
        }
        if self.searched.bytes >= self.read_limit {
            return Err(Cut::Bytes);
        }
        if self.searched.bytes - self.paced >= PACE_BYTES {
            self.paced = self.searched.bytes;
            std::thread::sleep(PACE);
        }
        if Instant::now() >= self.deadline { Err(Cut::Deadline) } else { Ok(()) }
    }

    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// A buffer that is needed no more.
    pub(super) fn put_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > self.buffer.capacity() && buffer.capacity() <= 4 << 20 {
            buffer.clear();
            self.buffer = buffer;
        }
    }

    /// A log is to be looked into, unless enough was found.
    pub(super) fn begin_log(&mut self) -> Result<(), Cut> {
        if self.limit == 0 || self.shown_bytes >= SHOWN_BYTES {
            return Err(Cut::Limit);
        }
        self.searched.logs += 1;
        Ok(())
    }

    /// A file is read.
    pub(super) fn opened(&mut self) {
        self.searched.files += 1;
    }

    /// Files are not read, since their lines are too old or too new.
    pub(super) fn passed_over(&mut self, files: u64) {
        self.searched.files_out_of_range += files;
    }

    /// Bytes were read.
    pub(super) fn read(&mut self, bytes: u64) {
        self.searched.bytes += bytes;
    }

    /// A file, or all of a log, is not searched.
    pub(super) fn skip(&mut self, file: &str, reason: &str) {
        self.searched.files_skipped += 1;
        if self.searched.skipped.len() < NAMED {
            self.searched.skipped.push(Skipped { file: file.to_owned(), reason: reason.to_owned() });
        }
    }

    /// A record was found: its line, with the newline.
    pub(super) fn found(&mut self, line: Vec<u8>) {
        self.searched.matches += 1;
        self.held_bytes += line.len();
        self.held.push_back(line);
        while self.held.len() > self.limit || self.held_bytes > HELD_BYTES {
            let Some(oldest) = self.held.pop_front() else { break };
            self.held_bytes -= oldest.len();
        }
    }

    /// A log is searched: what was found in it goes out.
    pub(super) fn end_log(&mut self) -> Result<(), Cut> {
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        self.limit -= held.len();
        let mut chunk = Vec::new();
        for line in held {
            self.shown_bytes += line.len();
            self.searched.shown += 1;
            if !chunk.is_empty() && chunk.len() + line.len() > CHUNK_BYTES {
                self.send(std::mem::take(&mut chunk))?;
            }
            chunk.extend_from_slice(&line);
        }
        if !chunk.is_empty() {
            self.send(chunk)?;
        }
        Ok(())
    }

    /// Says what was searched.
    pub(super) fn finish(mut self, cut: Option<Cut>) {
        self.deadline = self.deadline.max(Instant::now() + LAST_WORD);
        let rest = self.end_log().err();
        let searched = &mut self.searched;
        let left_out = (searched.shown < searched.matches).then_some(Cut::Limit);
        searched.cut = cut.or(rest).or(left_out);
        searched.complete = searched.cut.is_none();
        searched.milliseconds = self.begun.elapsed().as_millis() as u64;
        let mut line = serde_json::to_vec(&serde_json::json!({ "searched": searched })).unwrap_or_default();
        line.push(b'\n');
        // Whoever reads is told even when the agent stops.
        self.stopping = Arc::default();
        self.deadline = Instant::now() + LAST_WORD;
        let _ = self.send(line);
    }

    fn send(&self, chunk: Vec<u8>) -> Result<(), Cut> {
        let mut chunk = Bytes::from(chunk);
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(Cut::Stopping);
            }
            chunk = match self.client.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Cut::Client),
                Err(TrySendError::Full(chunk)) => chunk,
            };
            if Instant::now() >= self.deadline {
                return Err(Cut::Client);
            }
            std::thread::sleep(CLIENT_PAUSE);
        }
    }
}
