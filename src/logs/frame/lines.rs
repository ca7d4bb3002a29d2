//! Lines of applications' own files: where they begin, and which time is theirs.
//!
//! In: physical lines in order. Out: the header that a runtime would have written. Invariant: a line with a time of its
//! own, or near behind one, has the same time whenever it is read.

use super::{Header, cri_header};
use crate::data::batch::{Fields, Stream};
use crate::logs::inherit::REACH;
use crate::logs::parse;

/// How a log's bytes are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// As a container runtime writes them: CRI or docker's json-file.
    #[default]
    Runtime,
    /// As the agent itself wrote down what it was given: CRI, but a line's own time counts if it has one.
    Taken,
    /// One line of an application is one line of the file.
    Lines {
        /// Nanoseconds that are added to stamps of a millisecond or coarser, below a millisecond: lines of two files of
        /// one stream that are equal in stamp and text would be one line to a backend that stores equal entries once.
        shift_nanos: u64,
    },
}

impl Framing {
    /// Framing of the file at `path`.
    pub fn lines(path: &str) -> Self {
        Self::Lines { shift_nanos: (xxhash_rust::xxh3::xxh3_64(path.as_bytes()) % 999 + 1) * 1000 }
    }
}

/// A stamp of its own that is further in the future than this, seen from when the line was read, is not believed.
/// Loki's `creation_grace_period` is as long.
const FUTURE: u64 = 600 * 1_000_000_000;

/// How much of a line is looked at for the line's own time.
const OWN_TIME_REACH: usize = 16 << 10;

/// The application's own time of a line, 0 when it has none.
pub fn own_time(line: &[u8]) -> u64 {
    parse::parse(&line[..line.len().min(OWN_TIME_REACH)], Fields::APP_TIME).app_time_unix_nano
}

/// What is known of the lines before.
#[derive(Debug, Default)]
pub(super) struct Lines {
    framing: Framing,
    /// When what is being framed was read, wall clock; for lines that have no time of their own.
    read_time: u64,
    /// The newest line with a time of its own: the time, and where the line begins.
    own: Option<(u64, u64)>,
}

impl Lines {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    pub(super) fn set_read_time(&mut self, unix_nano: u64) {
        self.read_time = unix_nano;
    }

    /// Offsets begin anew.
    pub(super) fn next_generation(&mut self) {
        self.own = self.own.map(|(time, _)| (time, 0));
    }

    /// See [`Framer::stamp_of`](super::Framer::stamp_of).
    pub(super) fn stamp_of(&self, begin: &[u8]) -> Option<u64> {
        if !matches!(self.framing, Framing::Lines { .. }) {
            let header = cri_header(begin);
            return header.well_formed.then_some(header.time_unix_nano);
        }
        let line = memchr::memchr(b'\n', begin).map_or(begin, |end| &begin[..end]);
        Some(own_time(line)).filter(|time| *time > 0)
    }

    /// What a line says of itself. Its time is, in this order: its own; that of the line before, as a stack trace has
    /// none; when it was read.
    pub(super) fn header(&mut self, line: &[u8], offset: u64) -> Header {
        let Framing::Lines { shift_nanos } = self.framing else { return cri_header(line) };
        let own = own_time(line);
        let believed = own > 0 && (self.read_time == 0 || own <= self.read_time.saturating_add(FUTURE));
        let time_unix_nano = if believed {
            let time = if own.is_multiple_of(1_000_000) { own + shift_nanos } else { own };
            self.own = Some((time, offset));
            time
        } else {
            match self.own {
                Some((time, at)) if offset >= at && offset - at <= REACH => time,
                _ => self.read_time,
            }
        };
        // A byte order mark, and what a truncated file begins with when its writer does not append.
        let payload = if line.starts_with(b"\xef\xbb\xbf") && offset == 0 {
            3
        } else {
            line.iter().take_while(|byte| **byte == 0).count()
        };
        Header { time_unix_nano, stream: Stream::Stdout, full: true, payload, well_formed: true }
    }
}

/// The header of a line that was taken from a process: with the line's own time, if it has one.
pub(super) fn own_or_taken(header: Header, body: &[u8]) -> Header {
    let own = if header.full && header.well_formed { own_time(body) } else { 0 };
    let believed = own > 0 && own <= header.time_unix_nano.saturating_add(FUTURE);
    Header { time_unix_nano: if believed { own } else { header.time_unix_nano }, ..header }
}
