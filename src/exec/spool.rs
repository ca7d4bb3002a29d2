//! The spool: what a process writes, kept on disk until it is delivered.
//!
//! In: bytes of two streams, any split. Out: files as a container runtime writes them (CRI), which the tail follows like
//! any log: `output.log`, and before it `output.log.<nanoseconds>`. Invariants: at most `limit` bytes that are not
//! delivered lie on disk; what has no room is counted, and its place in the stream is marked; nothing undelivered is
//! deleted; a piece of a line is never joined to one of another line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memchr::memchr;
use serde::Serialize;

use crate::data::batch::Stream;
use crate::data::position::Position;
use crate::sink::json::write_rfc3339;

/// Name of the file that is being written.
const LIVE: &str = "output.log";

/// Bytes of a line that are held back for its end; what is longer is written in fragments of this size.
const FRAGMENT: usize = 64 << 10;

/// Bytes of a file after which the next one is begun, at most.
const SEGMENT: u64 = 8 << 20;

/// Lines and bytes that were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Line ends among them.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Lost {
    /// What is lost with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { lines: memchr::memchr_iter(b'\n', bytes).count() as u64, bytes: bytes.len() as u64 }
    }

    /// Adds further losses.
    pub fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }
}

/// The path of the file that is being written.
pub fn live_path(dir: &Path) -> PathBuf {
    dir.join(LIVE)
}

/// A stream's line that has no end yet.
#[derive(Debug, Default)]
struct Open {
    text: Vec<u8>,
    /// The rest of the line is skipped: what came before it is lost.
    torn: bool,
    lost: Lost,
}

/// Writes the spool. There is one writer.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    limit: u64,
    segment: u64,
    file: Option<File>,
    /// Bytes in the live file.
    size: u64,
    /// Bytes in the others.
    behind: u64,
    open: [Open; 2],
    lost: Lost,
    last_stamp: u64,
}

impl Writer {
    /// A spool in `dir`, which is made (mode 0700) if it is missing, with at most `limit` bytes that are not delivered.
    /// What an earlier life left there goes out too.
    pub fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut writer = Self {
            dir: dir.to_owned(),
            limit,
            segment: SEGMENT.min(limit / 4).max(1 << 10),
            file: None,
            size: 0,
            behind: 0,
            open: Default::default(),
            lost: Lost::default(),
            last_stamp: 0,
        };
        writer.reopen()?;
        writer.behind = writer.rotated()?.iter().map(|(_, _, size)| size).sum();
        Ok(writer)
    }

    /// What was not kept since the spool was opened.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Bytes on disk that are not delivered, given how far delivery is; `None` says that nothing is.
    pub fn undelivered(&self, delivered: Option<Position>) -> u64 {
        let all = self.size + self.behind;
        let Some(position) = delivered else { return all };
        let files = self.rotated().unwrap_or_default();
        let live = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.ino());
        let files = files.into_iter().map(|(_, inode, size)| (inode, size)).chain([(live, self.size)]);
        let mut left = 0;
        let mut found = false;
        for (inode, size) in files {
            if inode == position.generation.inode {
                left = size.saturating_sub(position.offset);
                found = true;
            } else {
                left += size;
            }
        }
        if found { left } else { all }
    }

    /// Deletes files of which every byte is delivered.
    pub fn release(&mut self, delivered: Option<Position>) {
        let Some(position) = delivered else { return };
        let Ok(files) = self.rotated() else { return };
        let live = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| meta.ino());
        let at = files.iter().position(|(_, inode, _)| *inode == position.generation.inode);
        let done = match at {
            Some(at) => at,
            None if live == Some(position.generation.inode) => files.len(),
            None => return,
        };
        for (path, _, size) in &files[..done] {
            if fs::remove_file(path).is_ok() {
                self.behind = self.behind.saturating_sub(*size);
            }
        }
    }

    /// True when what is not delivered leaves no room for more.
    pub fn is_full(&self, delivered: Option<Position>) -> bool {
        // The sum is cheap and never too small; only when it is large a look at the files is worth it.
        self.size + self.behind >= self.limit && self.undelivered(delivered) >= self.limit
    }

    /// Takes bytes that were read from a stream at `time_unix_nano`. `before` is what was lost of the stream before
    /// them; with `no_room` they are lost too.
    pub fn take(&mut self, stream: Stream, bytes: &[u8], time_unix_nano: u64, before: Lost, no_room: bool) {
        let mut out = Vec::with_capacity(bytes.len() + 256);
        let mut rest = bytes;
        if before != Lost::default() {
            self.tear(stream, before, time_unix_nano, &mut out);
        }
        if no_room {
            self.tear(stream, Lost::of(bytes), time_unix_nano, &mut out);
            if bytes.last() == Some(&b'\n') {
                self.open[stream as usize].torn = false;
            }
            rest = &[];
        }
        let open = &mut self.open[stream as usize];
        if open.torn && !rest.is_empty() {
            let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let skipped = Lost::of(&rest[..end]);
            open.lost.add(skipped);
            self.lost.add(skipped);
            open.torn = rest[end - 1] != b'\n';
            rest = &rest[end..];
        }
        if !rest.is_empty() && open.lost != Lost::default() {
            let lost = std::mem::take(&mut open.lost);
            write_gap(stream, lost, time_unix_nano, &mut out);
        }
        while let Some(end) = memchr(b'\n', rest) {
            open.text.extend_from_slice(&rest[..end]);
            write_line(stream, true, &open.text, time_unix_nano, &mut out);
            open.text.clear();
            rest = &rest[end + 1..];
        }
        open.text.extend_from_slice(rest);
        while open.text.len() >= FRAGMENT {
            let after = open.text.split_off(FRAGMENT);
            write_line(stream, false, &open.text, time_unix_nano, &mut out);
            open.text = after;
        }
        self.write(&out, time_unix_nano);
    }

    /// Both streams have ended: what has no newline is a line all the same.
    pub fn end(&mut self, time_unix_nano: u64) {
        let mut out = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let open = std::mem::take(&mut self.open[stream as usize]);
            if open.lost != Lost::default() {
                write_gap(stream, open.lost, time_unix_nano, &mut out);
            }
            if !open.text.is_empty() {
                write_line(stream, true, &open.text, time_unix_nano, &mut out);
            }
        }
        self.write(&out, time_unix_nano);
        if let Some(file) = &self.file {
            let _ = file.sync_data();
        }
    }

    /// Something of a stream is lost: what is open is given out as it is, and the line that goes on is skipped.
    fn tear(&mut self, stream: Stream, lost: Lost, time_unix_nano: u64, out: &mut Vec<u8>) {
        let open = &mut self.open[stream as usize];
        if !open.text.is_empty() {
            write_line(stream, true, &open.text, time_unix_nano, out);
            open.text.clear();
        }
        open.torn = true;
        open.lost.add(lost);
        self.lost.add(lost);
    }

    fn write(&mut self, bytes: &[u8], time_unix_nano: u64) {
        if bytes.is_empty() {
            return;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.segment {
            self.rotate(time_unix_nano);
        }
        let opened = if self.file.is_none() { self.reopen() } else { Ok(()) };
        let written = opened.and_then(|()| match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        });
        match written {
            Ok(()) => self.size += bytes.len() as u64,
            Err(_) => {
                // A full disk, say. How much is there shows when the file is opened the next time.
                self.file = None;
                let lost = Lost::of(bytes);
                self.lost.add(lost);
                self.open[0].lost.add(lost);
            }
        }
    }

    fn rotate(&mut self, time_unix_nano: u64) {
        self.last_stamp = time_unix_nano.max(self.last_stamp + 1);
        let to = self.dir.join(format!("{LIVE}.{:019}", self.last_stamp));
        if fs::rename(live_path(&self.dir), to).is_ok() {
            self.file = None;
            self.behind += self.size;
            self.size = 0;
        }
    }

    /// Opens the live file at its end; a line that was torn there is ended.
    fn reopen(&mut self) -> io::Result<()> {
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).to_owned();
        let mut file = options.open(live_path(&self.dir))?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        self.file = Some(file);
        self.size = size;
        Ok(())
    }

    /// The files before the live one, oldest first: path, inode, size.
    fn rotated(&self) -> io::Result<Vec<(PathBuf, u64, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let stamp = name.to_str().and_then(|name| name.strip_prefix(LIVE)?.strip_prefix('.'));
            if stamp.is_some_and(|stamp| stamp.len() == 19 && stamp.bytes().all(|b| b.is_ascii_digit())) {
                let meta = entry.metadata()?;
                found.push((entry.path(), meta.ino(), meta.len()));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn write_line(stream: Stream, full: bool, text: &[u8], time_unix_nano: u64, out: &mut Vec<u8>) {
    write_rfc3339(time_unix_nano, out);
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(if full { b" F " } else { b" P " });
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The agent's own word for lines that are lost, in their place.
fn write_gap(stream: Stream, lost: Lost, time_unix_nano: u64, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Gap {
        level: &'static str,
        msg: String,
        event: &'static str,
        reason: &'static str,
        lines: u64,
        bytes: u64,
    }
    let gap = Gap {
        level: "warn",
        msg: format!("nodewick: {} bytes of this stream are lost", lost.bytes),
        event: "nodewick.gap",
        reason: "spool_full",
        lines: lost.lines,
        bytes: lost.bytes,
    };
    let text = serde_json::to_vec(&gap).expect("a gap has no map with odd keys, and memory is no file");
    write_line(stream, true, &text, time_unix_nano, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::position::Generation;

    /// 2026-11-22T14:00:00Z.
    const TIME: u64 = 1_795_356_000_000_000_000;

    fn read(dir: &Path) -> String {
        String::from_utf8_lossy(&fs::read(live_path(dir)).expect("the spool")).into_owned()
    }

    fn payloads(dir: &Path) -> Vec<String> {
        read(dir).lines().map(|line| line.split_once(' ').expect("a stamp").1.to_owned()).collect()
    }

    #[test]
    fn lines_are_written_as_a_runtime_does_whatever_the_split() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut spool = Writer::open(dir.path(), 1 << 20).expect("opens");
        for (stream, bytes) in [
            (Stream::Stdout, &b"one\ntw"[..]),
            (Stream::Stderr, b"\n"),
            (Stream::Stdout, b"o\r\n"),
            (Stream::Stderr, b"no newline"),
        ] {
            spool.take(stream, bytes, TIME, Lost::default(), false);
        }
        spool.end(TIME + 1);
        assert_eq!(
            read(dir.path()),
            "2026-11-22T14:00:00.000000000Z stdout F one\n2026-11-22T14:00:00.000000000Z stderr F \n\
             2026-11-22T14:00:00.000000000Z stdout F two\r\n2026-11-22T14:00:00.000000001Z stderr F no newline\n"
        );
    }

    #[test]
    fn a_long_line_is_written_in_fragments() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut spool = Writer::open(dir.path(), 1 << 20).expect("opens");
        spool.take(Stream::Stdout, &vec![b'x'; FRAGMENT + 5], TIME, Lost::default(), false);
        spool.take(Stream::Stdout, b"y\n", TIME, Lost::default(), false);
        let lines = payloads(dir.path());
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0][..9], lines[0].len()), ("stdout P ", FRAGMENT + 9));
        assert_eq!(lines[1], "stdout F xxxxxy");
    }

    #[test]
    fn what_is_lost_is_told_in_its_place_and_tears_no_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut spool = Writer::open(dir.path(), 1 << 20).expect("opens");
        spool.take(Stream::Stdout, b"whole\nbegun", TIME, Lost::default(), false);
        spool.take(Stream::Stdout, b" rest\nnext\n", TIME, Lost { lines: 3, bytes: 30 }, false);
        spool.take(Stream::Stdout, b"dropped\n", TIME, Lost::default(), true);
        spool.take(Stream::Stdout, b"after\n", TIME, Lost::default(), false);
        assert_eq!(
            payloads(dir.path()),
            [
                "stdout F whole",
                "stdout F begun",
                r#"stdout F {"level":"warn","msg":"nodewick: 36 bytes of this stream are lost","event":"nodewick.gap","reason":"spool_full","lines":4,"bytes":36}"#,
                "stdout F next",
                r#"stdout F {"level":"warn","msg":"nodewick: 8 bytes of this stream are lost","event":"nodewick.gap","reason":"spool_full","lines":1,"bytes":8}"#,
                "stdout F after",
            ]
        );
        assert_eq!(spool.lost(), Lost { lines: 5, bytes: 44 });
    }

    #[test]
    fn files_are_deleted_when_they_are_delivered_and_not_before() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut spool = Writer::open(dir.path(), 64 << 10).expect("opens");
        let chunk = [b"0123456789".repeat(800), b"\n".to_vec()].concat();
        for n in 0..10 {
            spool.take(Stream::Stdout, &chunk, TIME + n, Lost::default(), false);
        }
        let files = spool.rotated().expect("listed");
        assert!(files.len() >= 3, "{files:?}");
        assert!(spool.is_full(None));
        let at = |inode, offset| {
            Some(Position {
                generation: Generation { inode, ..Generation::default() },
                offset,
                ..Position::default()
            })
        };
        spool.release(at(files[1].1, 5));
        assert_eq!(spool.rotated().expect("listed"), files[1..]);
        assert!(!spool.is_full(at(files[2].1, 0)));
        let live = fs::metadata(live_path(dir.path())).expect("the spool");
        assert_eq!(spool.undelivered(at(live.ino(), live.len())), 0);
        spool.release(at(live.ino(), 0));
        assert_eq!(spool.rotated().expect("listed"), []);
    }

    #[test]
    fn a_later_life_goes_on_behind_a_torn_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(live_path(dir.path()), "2026-11-22T14:00:00.000000000Z stdout F to").expect("written");
        let mut spool = Writer::open(dir.path(), 1 << 20).expect("opens");
        spool.take(Stream::Stdout, b"new\n", TIME, Lost::default(), false);
        assert_eq!(payloads(dir.path()), ["stdout F to", "stdout F new"]);
    }
}
