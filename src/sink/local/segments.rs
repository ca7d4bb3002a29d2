//! The segment files of a store: open with recovery, append durably, remove the oldest.
//!
//! In: whole lines. Out: files. Invariant: [`Segments::append`] takes from its buffer exactly the lines that are
//! durable, so that a failed call is simply made again; the sum of all segments never passes `max_bytes`.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memchr::memrchr;
use rustix::fs::{FlockOperation, flock};
use tracing::warn;

use super::reader::Entry;
use super::seen::Seen;

/// Makes what was written to a file durable.
pub(super) type Sync = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

const SUFFIX: &str = ".jsonl";

/// The file that holds segment `sequence`.
pub(super) fn path_of(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:010}{SUFFIX}"))
}

/// The sequences of all segments in `dir`, ascending; none when there is no such directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        found.extend(stem.filter(|stem| stem.len() >= 10).and_then(|stem| stem.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// A segment that is being written.
struct Current {
    sequence: u64,
    file: File,
    /// Bytes that are durable: the file's length between calls.
    len: u64,
}

/// All segments of a store, owned by its one writer.
pub(super) struct Segments {
    dir: PathBuf,
    segment_bytes: u64,
    max_bytes: u64,
    sync: Sync,
    /// Held while this process writes.
    lock: Option<File>,
    /// Complete segments, oldest first, with their lengths.
    closed: VecDeque<(u64, u64)>,
    closed_bytes: u64,
    current: Option<Current>,
    next: u64,
    evicted_bytes: u64,
}

impl Segments {
    /// The segments below `dir`; nothing is touched before [`open`](Self::open).
    pub(super) fn new(dir: PathBuf, segment_bytes: u64, max_bytes: u64, sync: Sync) -> Self {
        Self {
            dir,
            segment_bytes: segment_bytes.min(max_bytes / 2).max(1),
            max_bytes,
            sync,
            lock: None,
            closed: VecDeque::new(),
            closed_bytes: 0,
            current: None,
            next: 1,
            evicted_bytes: 0,
        }
    }

    /// Takes the store over: creates it, cuts a torn tail off, and reads what it holds already. May be called again
    /// after an error.
    pub(super) fn open(&mut self) -> io::Result<Seen> {
        self.create_dir()?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => {
                io::Error::new(io::ErrorKind::WouldBlock, "another process writes to this store")
            }
            other => other.into(),
        })?;
        self.closed.clear();
        self.closed_bytes = 0;
        self.current = None;
        let sequences = list(&self.dir)?;
        self.next = sequences.last().map_or(1, |last| last.saturating_add(1));
        let mut seen = Seen::default();
        for (age, &sequence) in sequences.iter().rev().enumerate() {
            let path = path_of(&self.dir, sequence);
            let mut len = fs::metadata(&path)?.len();
            if age == 0 || !seen.is_full() {
                let whole = scan(&path, &mut seen)?;
                if age == 0 && whole < len {
                    let torn_bytes = len - whole;
                    warn!(file = %path.display(), torn_bytes, "torn end of the local store was cut off");
                    OpenOptions::new().write(true).open(&path)?.set_len(whole)?;
                    len = whole;
                }
            }
            self.closed.push_front((sequence, len));
            self.closed_bytes += len;
        }
        if let Some(&(sequence, len)) = self.closed.back()
            && len < self.segment_bytes
        {
            let file = OpenOptions::new().append(true).open(path_of(&self.dir, sequence))?;
            self.closed.pop_back();
            self.closed_bytes -= len;
            self.current = Some(Current { sequence, file, len });
        }
        self.evict(0)?;
        self.lock = Some(lock);
        seen.seal();
        Ok(seen)
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.closed_bytes + self.current.as_ref().map_or(0, |current| current.len)
    }

    /// Bytes removed to keep the bound since the last call.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted_bytes)
    }

    /// Writes the whole lines in `buf` and makes them durable. What is durable is taken from `buf`, also when the
    /// call fails; the rest can be offered again.
    pub(super) fn append(&mut self, buf: &mut Vec<u8>) -> io::Result<()> {
        self.forget_removed()?;
        let mut done = 0;
        let result = loop {
            let rest = &buf[done..];
            if rest.is_empty() {
                break Ok(());
            }
            match self.append_some(rest) {
                Ok(len) => done += len,
                Err(error) => break Err(error),
            }
        };
        buf.drain(..done);
        result
    }

    fn create_dir(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Forgets segments that somebody removed by hand: what is written to an unlinked file nobody can read.
    fn forget_removed(&mut self) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        if current.file.metadata()?.nlink() == 0 {
            warn!(dir = %self.dir.display(), "local store was removed under the agent; a new one is begun");
            self.current = None;
            self.create_dir()?;
            let left = list(&self.dir)?;
            self.closed.retain(|(sequence, _)| left.contains(sequence));
            self.closed_bytes = self.closed.iter().map(|(_, len)| len).sum();
        }
        Ok(())
    }

    /// Writes as many of the lines as the current segment has room for, at least one.
    fn append_some(&mut self, lines: &[u8]) -> io::Result<usize> {
        let len = self.current.as_ref().map_or(0, |current| current.len);
        let room = self.segment_bytes.saturating_sub(len);
        let take = fitting(lines, room);
        if take == 0 && len > 0 {
            self.close();
            return Ok(0);
        }
        let take =
            if take == 0 { memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1) } else { take };
        self.evict(take as u64)?;
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.create()?,
        };
        if let Err(error) = current.file.write_all(&lines[..take]) {
            // A part may stand in the file: take it back, or leave the file as it is and go on in another.
            if current.file.set_len(current.len).is_ok() {
                self.current = Some(current);
            } else {
                self.abandon(current);
            }
            return Err(error);
        }
        if let Err(error) = (self.sync)(&current.file) {
            // After a failed sync the kernel may have dropped the pages: the file is never trusted again.
            let _ = current.file.set_len(current.len);
            self.abandon(current);
            return Err(error);
        }
        current.len += take as u64;
        self.current = Some(current);
        Ok(take)
    }

    fn create(&mut self) -> io::Result<Current> {
        let sequence = self.next;
        let path = path_of(&self.dir, sequence);
        let open = || OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_dir().and_then(|()| open()),
            other => other,
        };
        match file {
            Ok(file) => {
                self.next += 1;
                // The name must survive a power loss as surely as the lines do.
                File::open(&self.dir)?.sync_all()?;
                Ok(Current { sequence, file, len: 0 })
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    self.next += 1;
                }
                Err(error)
            }
        }
    }

    fn close(&mut self) {
        if let Some(current) = self.current.take() {
            self.closed_bytes += current.len;
            self.closed.push_back((current.sequence, current.len));
        }
    }

    fn abandon(&mut self, current: Current) {
        if current.len == 0 {
            let _ = fs::remove_file(path_of(&self.dir, current.sequence));
        } else {
            self.current = Some(current);
            self.close();
        }
    }

    /// Removes the oldest segments until `coming` more bytes fit.
    fn evict(&mut self, coming: u64) -> io::Result<()> {
        while self.bytes() + coming > self.max_bytes {
            let Some(&(sequence, len)) = self.closed.front() else { break };
            match fs::remove_file(path_of(&self.dir, sequence)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.closed.pop_front();
            self.closed_bytes -= len;
            self.evicted_bytes += len;
        }
        Ok(())
    }
}

/// The longest prefix of whole lines within `room` bytes, 0 when the first does not fit.
fn fitting(lines: &[u8], room: u64) -> usize {
    if lines.len() as u64 <= room {
        return lines.len();
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    memrchr(b'\n', &lines[..room]).map_or(0, |at| at + 1)
}

/// Enters the lines of a segment in `seen`. Returns the length up to the last line that looks like a stored object:
/// what a crash tore or left as zeros at the end is not part of it.
fn scan(path: &Path, seen: &mut Seen) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
    let (mut line, mut end, mut whole) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(whole);
        }
        end += read as u64;
        if line.starts_with(b"{") && line.ends_with(b"}\n") {
            whole = end;
            if let Some(entry) = Entry::parse(&line) {
                seen.insert(&entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_zeroed_ends_are_no_lines() {
        let file = tempfile::NamedTempFile::new().expect("temp file");
        for (text, whole) in [
            (&b"{\"a\":1}\n{\"b\":2}\n"[..], 16),
            (b"{\"a\":1}\n{\"b\"", 8),
            (b"{\"a\":1}\n{\"b\":2}", 8),
            (b"{\"a\":1}\n\0\0\0\n\0\0", 8),
            (b"\0\0\n{\"a\":1}\n", 11),
            (b"{\"a\"", 0),
            (b"", 0),
        ] {
            fs::write(file.path(), text).expect("written");
            let found = scan(file.path(), &mut Seen::default()).expect("read");
            assert_eq!(found, whole, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn only_whole_lines_fit() {
        assert_eq!(fitting(b"aa\nbb\ncc\n", 9), 9);
        assert_eq!(fitting(b"aa\nbb\ncc\n", 8), 6);
        assert_eq!(fitting(b"aa\nbb\ncc\n", 2), 0);
    }
}
