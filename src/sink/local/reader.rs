//! Follows a store's segments: from the start, from the last lines, or since a time, filtered, live.
//!
//! In: the directory of a store, which another thread or process may be writing, rotating and trimming. Out: each
//! complete stored line once, in the store's order. Invariant: only complete lines are seen, so a torn tail that a
//! restarted writer cuts off was never shown.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memchr::{memchr, memchr_iter, memrchr};
use serde::Deserialize;

use super::Filter;
use super::segments::{list, path_of};
use crate::data::severity::Severity;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// A line longer than this is passed over: the store writes none.
const LINE_LIMIT_BYTES: usize = 4 << 20;

/// One stored record, borrowed from its line.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Entry<'a> {
    /// When the container runtime took the line, RFC 3339 in UTC.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// Cluster.
    #[serde(borrow)]
    pub cluster: Cow<'a, str>,
    /// Namespace of the pod.
    #[serde(borrow)]
    pub namespace: Cow<'a, str>,
    /// Pod.
    #[serde(borrow)]
    pub pod: Cow<'a, str>,
    /// Container.
    #[serde(borrow)]
    pub container: Cow<'a, str>,
    /// Path of the log file, of one that is no container's.
    #[serde(borrow)]
    pub filename: Cow<'a, str>,
    /// Restart count of the container.
    pub restart: u32,
    /// Node.
    #[serde(borrow)]
    pub node: Cow<'a, str>,
    /// OpenTelemetry `service.name`.
    #[serde(borrow)]
    pub service_name: Cow<'a, str>,
    /// `stdout` or `stderr`.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// `trace` to `fatal`; empty when the line does not say.
    #[serde(borrow)]
    pub level: Cow<'a, str>,
    /// 32 hex digits, or empty.
    #[serde(borrow)]
    pub trace_id: Cow<'a, str>,
    /// 16 hex digits, or empty.
    #[serde(borrow)]
    pub span_id: Cow<'a, str>,
    /// Request id, or empty.
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
    /// HTTP request method, or empty.
    #[serde(borrow)]
    pub http_method: Cow<'a, str>,
    /// HTTP route, or empty.
    #[serde(borrow)]
    pub http_route: Cow<'a, str>,
    /// HTTP status, 0 when absent.
    pub http_status: u16,
    /// Request duration in milliseconds.
    pub duration_ms: Option<f64>,
    /// The line as the container wrote it.
    #[serde(borrow)]
    pub line: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// Reads a stored line; `None` when it is none.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok().filter(|entry: &Self| !entry.time.is_empty())
    }

    /// The record's time in nanoseconds since the epoch.
    pub fn time_unix_nano(&self) -> Option<u64> {
        let time: jiff::Timestamp = self.time.parse().ok()?;
        u64::try_from(time.as_nanosecond()).ok()
    }

    /// The level as a severity.
    pub fn severity(&self) -> Severity {
        severity_of(&self.level).unwrap_or(Severity::UNSPECIFIED)
    }
}

/// The lowest severity of a level's range, by the level's name.
pub(super) fn severity_of(level: &str) -> Option<Severity> {
    Some(match level {
        "trace" => Severity::TRACE,
        "debug" => Severity::DEBUG,
        "info" => Severity::INFO,
        "warn" => Severity::WARN,
        "error" => Severity::ERROR,
        "fatal" => Severity::FATAL,
        _ => return None,
    })
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest stored record.
    Start,
    /// The last `n` records that the filter accepts.
    Last(usize),
    /// The end: only what comes from now on.
    End,
}

/// Reads a store, live.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    filter: Filter,
    sequence: u64,
    offset: u64,
    file: Option<File>,
    /// A later segment was seen: once this one has nothing more, go on there.
    successor: Option<u64>,
    chunk: Vec<u8>,
    missed_segments: u64,
    /// Inside a line that is too long to read, up to its newline.
    passing_over: bool,
}

impl Reader {
    /// A reader of the store in `dir`, which need not exist yet.
    ///
    /// # Errors
    /// When the directory or a segment in it cannot be read.
    pub fn open(dir: &Path, from: From, filter: Filter) -> io::Result<Self> {
        let mut reader = Self {
            dir: dir.to_owned(),
            filter,
            sequence: 0,
            offset: 0,
            file: None,
            successor: None,
            chunk: Vec::new(),
            missed_segments: 0,
            passing_over: false,
        };
        let sequences = list(dir)?;
        match from {
            From::Start => reader.skip_older(&sequences),
            From::Last(count) => reader.seek_last(&sequences, count)?,
            From::End => {
                if let Some(&sequence) = sequences.last() {
                    reader.sequence = sequence;
                    reader.offset = end_of_lines(&path_of(dir, sequence))?;
                }
            }
        }
        Ok(reader)
    }

    /// Segments that were removed before they were read: this reader was slower than the store's retention.
    pub fn missed_segments(&self) -> u64 {
        self.missed_segments
    }

    /// Shows what is new, at most about 256 KiB of it: `each` gets the record and its stored line. `Ok(true)` when
    /// there may be more at once; else poll again in a while.
    ///
    /// # Errors
    /// Those of reading, and those of `each`, after which reading goes on behind that line.
    pub fn poll(&mut self, each: &mut dyn FnMut(&Entry<'_>, &[u8]) -> io::Result<()>) -> io::Result<bool> {
        if !self.ensure_file()? {
            return Ok(false);
        }
        let Some(file) = &self.file else { return Ok(false) };
        let mut filled = 0;
        loop {
            if filled == self.chunk.len() {
                self.chunk.resize(filled + CHUNK_BYTES, 0);
            }
            let read = file.read_at(&mut self.chunk[filled..], self.offset + filled as u64)?;
            let newline = memchr(b'\n', &self.chunk[filled..filled + read]).is_some();
            filled += read;
            if newline || read == 0 || filled >= LINE_LIMIT_BYTES {
                break;
            }
        }
        let Some(end) = memrchr(b'\n', &self.chunk[..filled]).map(|at| at + 1) else {
            if filled >= LINE_LIMIT_BYTES {
                self.offset += filled as u64;
                self.passing_over = true;
                return Ok(true);
            }
            return self.at_end();
        };
        self.successor = None;
        let mut start = 0;
        for newline in memchr_iter(b'\n', &self.chunk[..end]) {
            let line = &self.chunk[start..newline];
            self.offset += (newline + 1 - start) as u64;
            start = newline + 1;
            if std::mem::take(&mut self.passing_over) {
                continue;
            }
            if let Some(entry) = self.filter.pick(line) {
                each(&entry, line)?;
            }
        }
        if self.chunk.len() > CHUNK_BYTES * 2 {
            self.chunk = Vec::new();
        }
        Ok(true)
    }

    /// Nothing complete is left in this segment: go on in the next one if there is one, after a second look.
    fn at_end(&mut self) -> io::Result<bool> {
        if let Some(next) = self.successor.take() {
            self.sequence = next;
            self.offset = 0;
            self.file = None;
            self.passing_over = false;
            return Ok(true);
        }
        let sequences = list(&self.dir)?;
        self.successor = sequences.iter().copied().find(|sequence| *sequence > self.sequence);
        if let Some(&oldest) = sequences.first()
            && oldest > self.sequence
        {
            // Retention passed by: this segment is held open and was read to its end, those between are gone.
            self.missed_segments += oldest - self.sequence - 1;
            self.sequence = oldest - 1;
        }
        Ok(self.successor.is_some())
    }

    fn ensure_file(&mut self) -> io::Result<bool> {
        if self.file.is_some() {
            return Ok(true);
        }
        let Some(sequence) = list(&self.dir)?.into_iter().find(|sequence| *sequence >= self.sequence) else {
            return Ok(false);
        };
        match File::open(path_of(&self.dir, sequence)) {
            Ok(file) => {
                if sequence != self.sequence {
                    self.missed_segments += if self.sequence == 0 { 0 } else { sequence - self.sequence };
                    self.offset = 0;
                }
                self.sequence = sequence;
                self.file = Some(file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Begins at the first segment that was written to after the filter's time.
    fn skip_older(&mut self, sequences: &[u64]) {
        let Some(since) = self.filter.since_unix_nano else { return };
        let since = SystemTime::UNIX_EPOCH + Duration::from_nanos(since);
        let modified =
            |sequence: u64| path_of(&self.dir, sequence).metadata().and_then(|meta| meta.modified());
        let first = sequences.iter().find(|sequence| modified(**sequence).is_ok_and(|time| time >= since));
        self.sequence = first.or(sequences.last()).copied().unwrap_or(0);
    }

    /// Begins at the oldest of the last `count` records that the filter accepts.
    fn seek_last(&mut self, sequences: &[u64], count: usize) -> io::Result<()> {
        let mut wanted = count;
        for (age, &sequence) in sequences.iter().rev().enumerate() {
            let text = match std::fs::read(path_of(&self.dir, sequence)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            };
            let mut hits = VecDeque::new();
            let mut start = 0;
            for newline in memchr_iter(b'\n', &text) {
                if wanted > 0 && self.filter.pick(&text[start..newline]).is_some() {
                    if hits.len() == wanted {
                        hits.pop_front();
                    }
                    hits.push_back(start as u64);
                }
                start = newline + 1;
            }
            wanted -= hits.len();
            if let Some(&first) = hits.front() {
                (self.sequence, self.offset) = (sequence, first);
            } else if age == 0 {
                (self.sequence, self.offset) = (sequence, start as u64);
            }
            if wanted == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Where the last complete line of a file ends.
fn end_of_lines(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = memrchr(b'\n', part) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    const LINE: &[u8] = br#"{"time":"2026-11-22T14:27:36.381000000Z","cluster":"c","namespace":"shop","pod":"checkout-d994d45d6-5h9zr","container":"api","restart":2,"node":"n","service_name":"checkout","stream":"stdout","level":"error","trace_id":"0af7651916cd43dd8448eb211c80319c","http_status":500,"duration_ms":41.5,"line":"{\"msg\":\"no\"}"}"#;

    #[test]
    fn a_stored_line_reads_back() {
        let entry = Entry::parse(LINE).expect("a stored line");
        assert_eq!((entry.restart, entry.http_status, entry.duration_ms), (2, 500, Some(41.5)));
        assert_eq!(entry.line, "{\"msg\":\"no\"}");
        assert_eq!(entry.time_unix_nano(), Some(1_795_357_656_381_000_000));
        assert!(Entry::parse(b"{}").is_none());
        assert!(Entry::parse(b"{\"time\":").is_none());
    }

    #[test]
    fn each_filter_selects_and_refuses() {
        let entry = Entry::parse(LINE).expect("a stored line");
        let yes = |filter: Filter| assert!(filter.accepts(&entry), "{filter:?}");
        let no = |filter: Filter| assert!(!filter.accepts(&entry), "{filter:?}");
        yes(Filter::default());
        yes(Filter { namespace: Some("shop".into()), ..Filter::default() });
        no(Filter { namespace: Some("sho".into()), ..Filter::default() });
        yes(Filter { service: Some("check".into()), ..Filter::default() });
        no(Filter { service: Some("cart".into()), ..Filter::default() });
        yes(Filter { selector: Some("checkout/api".into()), ..Filter::default() });
        yes(Filter { selector: Some("5h9zr".into()), ..Filter::default() });
        no(Filter { selector: Some("api/checkout".into()), ..Filter::default() });
        yes(Filter { level: Some(Severity::WARN), ..Filter::default() });
        no(Filter { level: Some(Severity::FATAL), ..Filter::default() });
        yes(Filter { trace: Some("0af76519".into()), ..Filter::default() });
        no(Filter { trace: Some("af76519".into()), ..Filter::default() });
        yes(Filter { grep: Regex::new("m.g").ok(), ..Filter::default() });
        no(Filter { grep: Regex::new("^msg").ok(), ..Filter::default() });
        yes(Filter { since_unix_nano: Some(1_795_357_656_381_000_000), ..Filter::default() });
        no(Filter { since_unix_nano: Some(1_795_357_656_381_000_001), ..Filter::default() });
    }
}
