//! Frames container log lines into whole application lines.
//!
//! In: complete lines of one file, in order, as ranges of the batch's arena, and the pieces of a line that is too
//! long to hold. Out: [`Framed`] lines whose body lies in the arena: in place when one fragment is the whole line,
//! appended when fragments had to be joined or unescaped.
//! Invariant: a line comes out exactly once, whatever the chunk boundaries; what is not yet out begins at
//! [`pinned`](Framer::pinned) and would be framed again from there.
//!
//! CRI: `RFC3339Nano stdout|stderr P|F payload`, fragments joined per stream up to their `F`.
//! docker json-file: `{"log":"payload\n","stream":"stdout","time":"RFC3339Nano"}`; a payload without a newline is a
//! fragment. Both may occur in one file; each line says which it is by its first byte.
//! Files of applications have neither: there a line is a line ([`Framing::Lines`]).

mod lines;

use serde_json::value::RawValue;

use super::parse::unescape_into;
use super::stamp;
use crate::data::batch::{Marks, Span, Stream};
use crate::data::position::Skipping;
use crate::metrics;
use lines::{Lines, own_or_taken};

pub use lines::{Framing, own_time};

/// A line that is still without its end when it has grown to this many times the line limit is sealed as it is,
/// so that an endless line cannot hold the log's position for ever.
const SEAL_FACTOR: u64 = 16;

/// Longest header that a CRI line can have: stamp, stream, tag and three spaces, with room to spare.
pub const MAX_HEADER: usize = 64;

/// Longest line that is read as docker's: 16 KiB of payload, all of it escaped as `\u0000`, and what stands around it.
/// Source: `defaultBufSize` of moby's log copier.
pub const MAX_DOCKER: usize = 128 << 10;

/// How many bytes of a line without its newline are waited for, before the line is taken in pieces; `begin` is how
/// the line begins. Whether a line is docker's must not depend on where a read ended.
pub fn patience(begin: &[u8], max_line: usize) -> usize {
    let longest = max_line + MAX_HEADER;
    if begin.first() == Some(&b'{') { longest.max(MAX_DOCKER) } else { longest }
}

/// What stands before the payload of one physical line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The runtime's stamp, nanoseconds since the epoch; 0 when the line has none.
    pub time_unix_nano: u64,
    /// Stream.
    pub stream: Stream,
    /// True for `F`: the payload ends the application's line.
    pub full: bool,
    /// Where the payload begins in the line.
    pub payload: usize,
    /// False when the line is not as its format demands and is taken whole.
    pub well_formed: bool,
}

/// Reads a CRI header. A line without one is taken whole, as a full line of stdout.
#[inline]
pub fn cri_header(line: &[u8]) -> Header {
    read_cri_header(line).unwrap_or(Header {
        time_unix_nano: 0,
        stream: Stream::Stdout,
        full: true,
        payload: 0,
        well_formed: false,
    })
}

#[inline]
fn read_cri_header(line: &[u8]) -> Option<Header> {
    // containerd's usual stamp has nine digits and a Z, which puts the first space at 30.
    // The space behind `stdout` stands there too, when the fraction has two digits.
    let space = if line.get(29..31) == Some(b"Z ") {
        30
    } else {
        line.iter().take(MAX_HEADER).position(|byte| *byte == b' ')?
    };
    let time_unix_nano = stamp::parse(&line[..space])?;
    let rest = &line[space + 1..];
    let stream = match rest.get(..7)? {
        b"stdout " => Stream::Stdout,
        b"stderr " => Stream::Stderr,
        _ => return None,
    };
    // The tag field may carry further tags after a colon; the first one says partial or full.
    let tags = &rest[7..];
    let full = match tags.first()? {
        b'F' => true,
        b'P' => false,
        _ => return None,
    };
    let payload = match tags.get(1) {
        Some(b' ') => 2,
        None => 1,
        Some(b':') => match tags.iter().take(MAX_HEADER).position(|byte| *byte == b' ') {
            Some(at) => at + 1,
            None if tags.len() < MAX_HEADER => tags.len(),
            None => return None,
        },
        Some(_) => return None,
    };
    Some(Header { time_unix_nano, stream, full, payload: space + 8 + payload, well_formed: true })
}

#[derive(serde::Deserialize)]
struct DockerLine<'a> {
    #[serde(borrow)]
    log: &'a RawValue,
    #[serde(borrow)]
    stream: Option<&'a str>,
    #[serde(borrow)]
    time: &'a str,
}

/// One physical line, its payload located in the arena.
#[derive(Debug, Clone, Copy)]
pub struct Fragment {
    /// Its header.
    pub header: Header,
    /// The payload.
    pub body: Span,
    /// Where the physical line begins in the file.
    pub offset: u64,
    /// Length of the payload as written; more than `body.len` when the rest was too long to hold.
    pub total: u64,
}

/// Locates the payload of the physical line `arena[start..end]` (without its newline) that stands at `offset` in
/// its file. A docker payload is unescaped to the arena's end.
#[inline]
pub fn fragment(arena: &mut Vec<u8>, start: usize, end: usize, offset: u64) -> Fragment {
    if arena.get(start) == Some(&b'{')
        && end - start <= MAX_DOCKER
        && let Some(fragment) = docker_fragment(arena, start, end, offset)
    {
        return fragment;
    }
    let header = cri_header(&arena[start..end]);
    let body = Span::new(start + header.payload.min(end - start), end);
    Fragment { header, body, offset, total: u64::from(body.len) }
}

#[cold]
fn docker_fragment(arena: &mut Vec<u8>, start: usize, end: usize, offset: u64) -> Option<Fragment> {
    let (header, payload) = docker_line(&arena[start..end])?;
    let begin = arena.len();
    let escaped = arena[start + payload.start..start + payload.end].to_vec();
    unescape_into(&escaped, arena);
    let full = arena.len() > begin && arena.last() == Some(&b'\n');
    let body = Span::new(begin, arena.len() - usize::from(full));
    Some(Fragment { header: Header { full, ..header }, body, offset, total: u64::from(body.len) })
}

/// Reads one line of docker's json-file: its header, and where its payload stands, escaped, without the quotation
/// marks. Whether the payload ends the application's line shows when it is unescaped: then a newline is its last
/// byte.
pub(super) fn docker_line(line: &[u8]) -> Option<(Header, std::ops::Range<usize>)> {
    let read: DockerLine<'_> = serde_json::from_slice(line).ok()?;
    let raw = read.log.get().as_bytes();
    let (b'"', [middle @ .., b'"']) = raw.split_first()? else { return None };
    let at = middle.as_ptr() as usize - line.as_ptr() as usize;
    let header = Header {
        time_unix_nano: stamp::parse(read.time.as_bytes())?,
        stream: if read.stream == Some("stderr") { Stream::Stderr } else { Stream::Stdout },
        full: true,
        payload: 0,
        well_formed: true,
    };
    Some((header, at..at + middle.len()))
}

/// A whole application line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framed {
    /// The runtime's stamp of the line's last fragment; that of the line before when it has none.
    pub time_unix_nano: u64,
    /// Stream.
    pub stream: Stream,
    /// The line in the arena: valid UTF-8, at most the line limit.
    pub body: Span,
    /// Where the line's first fragment begins in its file.
    pub offset: u64,
    /// Truncated and lossy.
    pub marks: Marks,
    /// Length before truncation, at most sixteen times the line limit; else 0.
    pub original_len: u32,
    /// It was out before the resume: it only teaches.
    pub known: bool,
    /// The first of its stream to end in its generation. It may have begun in the one before, where a resume in
    /// this one does not look: so it teaches nothing.
    pub first: bool,
    /// What a resume at `offset` must skip, since it was framed before.
    pub skipping: Skipping,
    /// The line began in an earlier generation: `offset` is not of this file.
    pub carried: bool,
    /// So many generations earlier.
    pub ago: u16,
}

/// Fragments of a line that wait for its end.
#[derive(Debug, Default)]
struct Pending {
    open: bool,
    /// At most the line limit.
    text: Vec<u8>,
    total: u64,
    offset: u64,
    /// What a resume at `offset` must skip: what was being skipped when the line began, and the rest of the line that
    /// the other stream had open then.
    skipping: u8,
    /// The line began in an earlier generation: `offset` is not of this file.
    carried: bool,
    ago: u16,
    /// The line was out before the resume, which began between its first fragment and its last.
    known: bool,
}

/// A physical line that is longer than a read and still without its newline.
#[derive(Debug)]
struct Long {
    header: Header,
    /// At most the line limit.
    text: Vec<u8>,
    total: u64,
    offset: u64,
    skipping: u8,
}

/// Bit of [`Skipping`]: up to the next newline, whatever stream.
const SKIP_PHYSICAL: u8 = 4;

/// Joins fragments of one container log. See the module's header.
#[derive(Debug)]
pub struct Framer {
    lines: Lines,
    max_line: usize,
    pending: [Pending; 2],
    long: Option<Long>,
    /// Bits 0 and 1: skip that stream up to its next `F`; bit 2: skip to the next newline.
    skipping: u8,
    last_time: u64,
    /// Stamp for lines without one before the first line with one.
    first_time: u64,
    /// Streams of which no line has ended in this generation yet, as bits.
    firsts: u8,
    /// Whether malformed lines are counted.
    counts: bool,
}

impl Framer {
    /// A framer that cuts lines above `max_line` bytes.
    pub fn new(max_line: usize) -> Self {
        Self {
            lines: Lines::default(),
            max_line,
            pending: Default::default(),
            long: None,
            skipping: 0,
            last_time: 0,
            first_time: 0,
            firsts: 3,
            counts: true,
        }
    }

    /// From now on nothing is counted: these lines are shown to a person, not shipped.
    pub fn mute(&mut self) {
        self.counts = false;
    }

    fn count(&self, reason: &str) {
        if self.counts {
            metrics::LOG_MALFORMED.with_label_values(&[reason]).inc();
        }
    }

    /// The same for a log whose bytes are framed in another way.
    #[must_use]
    pub fn with_framing(self, framing: Framing) -> Self {
        Self { lines: Lines::new(framing), ..self }
    }

    /// How the log's bytes are framed.
    pub fn framing(&self) -> Framing {
        self.lines.framing()
    }

    /// Says when what comes next was read, wall clock.
    pub fn set_read_time(&mut self, unix_nano: u64) {
        self.lines.set_read_time(unix_nano);
    }

    /// Locates the payload of a physical line, see [`fragment`].
    #[inline]
    pub fn fragment(&mut self, arena: &mut Vec<u8>, start: usize, end: usize, offset: u64) -> Fragment {
        match self.lines.framing() {
            Framing::Runtime => fragment(arena, start, end, offset),
            Framing::Taken => {
                let taken = fragment(arena, start, end, offset);
                Fragment { header: own_or_taken(taken.header, taken.body.of(arena)), ..taken }
            }
            Framing::Lines { .. } => {
                let header = self.lines.header(&arena[start..end], offset);
                let body = Span::new(start + header.payload, end);
                Fragment { header, body, offset, total: u64::from(body.len) }
            }
        }
    }

    /// Stamp of the line that `begin` is the beginning of, when it can be told from that.
    pub fn stamp_of(&self, begin: &[u8]) -> Option<u64> {
        self.lines.stamp_of(begin)
    }

    /// Continues where a checkpoint was taken, after the stretch before it was framed for warmth.
    ///
    /// What is open here began before the position, so it was out when the position was taken: its end comes as
    /// [`known`](Framed::known).
    pub fn resume(&mut self, skipping: Skipping) {
        self.long = None;
        self.skipping = skipping.0;
        for (stream, pending) in self.pending.iter_mut().enumerate() {
            if pending.open {
                pending.known = true;
                pending.carried = false;
                pending.ago = 0;
                self.skipping &= !(1 << stream);
            }
        }
    }

    /// Forgets what is open or being skipped: its end is lost.
    pub fn begin_anew(&mut self) {
        self.pending = Default::default();
        self.long = None;
        self.skipping = 0;
    }

    /// Sets the stamp for lines that have none, before the first line that has one: a backend refuses 1970.
    pub fn set_first_time(&mut self, time_unix_nano: u64) {
        self.first_time = time_unix_nano;
    }

    /// Stamp of the newest line seen, 0 before the first.
    pub fn last_time(&self) -> u64 {
        self.last_time
    }

    /// Where the oldest line begins that is not yet out, with what was being skipped there.
    pub fn pinned(&self) -> Option<(u64, Skipping)> {
        let pending = self
            .pending
            .iter()
            .filter(|pending| pending.open && !pending.carried && !pending.known)
            .map(|p| (p.offset, Skipping(p.skipping)));
        let long = self.long.iter().map(|long| (long.offset, Skipping(long.skipping)));
        pending.chain(long).min_by_key(|(offset, _)| *offset)
    }

    /// A new generation of the log begins: offsets of what is open belong to the old one.
    pub fn next_generation(&mut self) {
        for pending in &mut self.pending {
            pending.carried = pending.open;
            pending.ago = if pending.open { pending.ago.saturating_add(1) } else { 0 };
        }
        self.firsts = 3;
        self.lines.next_generation();
    }

    /// True while a line is open that began in an earlier generation.
    pub fn carries(&self) -> bool {
        self.pending.iter().any(|pending| pending.open && pending.carried && !pending.known)
    }

    /// What is being skipped now.
    pub fn skipping(&self) -> Skipping {
        Skipping(self.skipping)
    }

    /// What a resume at this place must skip: beside that, the rest of every line that is open here. When a resume
    /// begins here, those lines are out, else it would begin where they began.
    #[inline]
    pub fn skipping_on_resume(&self) -> Skipping {
        let [first, second] = &self.pending;
        Skipping(self.skipping | u8::from(first.open) | u8::from(second.open) << 1)
    }

    /// True while a physical line without end is being read or skipped: bytes go to [`more`](Self::more).
    pub fn in_long_line(&self) -> bool {
        self.long.is_some() || self.skipping & SKIP_PHYSICAL != 0
    }

    /// Takes one fragment; gives the line that it completes.
    #[inline]
    pub fn accept(&mut self, arena: &mut Vec<u8>, fragment: Fragment) -> Option<Framed> {
        let Fragment { header, body, offset, total } = fragment;
        if self.last_time == 0 && offset > 0 {
            // Begun in the middle of a file.
            self.firsts = 0;
        }
        let time_unix_nano = if header.well_formed {
            self.last_time = header.time_unix_nano;
            header.time_unix_nano
        } else {
            self.count("header");
            if self.last_time == 0 { self.first_time } else { self.last_time }
        };
        let stream = header.stream;
        let simple = header.full
            && total == u64::from(body.len)
            && body.len as usize <= self.max_line
            && self.skipping == 0
            && !self.pending[stream as usize].open;
        if simple {
            let framed = Framed {
                time_unix_nano,
                stream,
                body,
                offset,
                marks: Marks::NONE,
                original_len: 0,
                known: false,
                first: self.take_first(stream),
                skipping: self.skipping_on_resume(),
                carried: false,
                ago: 0,
            };
            return Some(if std::str::from_utf8(body.of(arena)).is_ok() {
                framed
            } else {
                self.count("utf8");
                replace_invalid(arena, framed, self.max_line)
            });
        }
        self.join(arena, Fragment { header: Header { time_unix_nano, ..header }, body, offset, total })
    }

    fn join(&mut self, arena: &mut Vec<u8>, fragment: Fragment) -> Option<Framed> {
        let Fragment { header, body, offset, total } = fragment;
        let bit = 1_u8 << header.stream as usize;
        if self.skipping & bit != 0 {
            if header.full {
                self.skipping &= !bit;
            }
            return None;
        }
        let max_line = self.max_line;
        let skipping = self.skipping_on_resume().0;
        let pending = &mut self.pending[header.stream as usize];
        if !pending.open {
            pending.open = true;
            pending.text.clear();
            pending.total = 0;
            pending.offset = offset;
            pending.skipping = skipping;
            pending.carried = false;
            pending.ago = 0;
            pending.known = false;
        }
        let room = max_line.saturating_sub(pending.text.len()).min(body.len as usize);
        pending.text.extend_from_slice(&body.of(arena)[..room]);
        pending.total += total;
        if !header.full {
            if pending.total <= max_line as u64 * SEAL_FACTOR {
                return None;
            }
            self.skipping |= bit;
        }
        Some(self.finish_pending(arena, header.stream, header.time_unix_nano))
    }

    fn take_first(&mut self, stream: Stream) -> bool {
        let bit = 1 << stream as usize;
        let first = self.firsts & bit != 0;
        self.firsts &= !bit;
        first
    }

    fn finish_pending(&mut self, arena: &mut Vec<u8>, stream: Stream, time_unix_nano: u64) -> Framed {
        let pending = &mut self.pending[stream as usize];
        pending.open = false;
        let start = arena.len();
        arena.extend_from_slice(&pending.text);
        let mut framed = Framed {
            time_unix_nano,
            stream,
            body: Span::new(start, arena.len()),
            offset: pending.offset,
            marks: Marks::NONE,
            original_len: 0,
            known: pending.known,
            first: false,
            skipping: Skipping(pending.skipping),
            carried: pending.carried,
            ago: pending.ago,
        };
        if pending.total > pending.text.len() as u64 {
            framed.marks.insert(Marks::TRUNCATED);
            // How far beyond its end a sealed line was read depends on the reads.
            let original = pending.total.min(self.max_line as u64 * SEAL_FACTOR);
            framed.original_len = u32::try_from(original).unwrap_or(u32::MAX);
            if self.counts {
                metrics::LOG_MALFORMED.with_label_values(&["truncated"]).inc();
            }
            // The cut may have split a character: give back the bytes of the broken one, three at most.
            let text = framed.body.of(arena);
            if let Err(error) = std::str::from_utf8(text)
                && error.error_len().is_none()
            {
                framed.body.len = error.valid_up_to() as u32;
            }
        }
        pending.text.clear();
        pending.text.shrink_to(32 << 10);
        framed.first = self.take_first(stream);
        if std::str::from_utf8(framed.body.of(arena)).is_err() {
            self.count("utf8");
            framed = replace_invalid(arena, framed, self.max_line);
        }
        framed
    }

    /// Takes bytes of a physical line that is longer than a read: its beginning or its middle, without a newline.
    pub fn more(&mut self, bytes: &[u8], offset: u64) {
        if self.skipping & SKIP_PHYSICAL != 0 {
            return;
        }
        let (max_line, skipping) = (self.max_line, self.skipping_on_resume().0);
        let header = if self.long.is_none() { Some(self.lines.header(bytes, offset)) } else { None };
        let long = self.long.get_or_insert_with(|| Long {
            header: header.unwrap_or_else(|| cri_header(bytes)),
            text: Vec::new(),
            total: 0,
            offset,
            skipping,
        });
        let payload = if long.total == 0 && long.text.is_empty() { long.header.payload } else { 0 };
        let bytes = &bytes[payload.min(bytes.len())..];
        let room = max_line.saturating_sub(long.text.len()).min(bytes.len());
        long.text.extend_from_slice(&bytes[..room]);
        long.total += bytes.len() as u64;
    }

    /// Seals a physical line that has grown beyond all bounds; the rest, up to its newline, is skipped.
    pub fn seal_long(&mut self, arena: &mut Vec<u8>) -> Option<Framed> {
        if self.long.as_ref()?.total <= self.max_line as u64 * SEAL_FACTOR {
            return None;
        }
        let header = self.long.as_ref()?.header;
        let framed = self.end_long_as(arena, true);
        self.skipping |= SKIP_PHYSICAL;
        if !header.full {
            self.skipping |= 1 << header.stream as usize;
        }
        framed
    }

    /// The newline of a long physical line has come.
    pub fn end_long(&mut self, arena: &mut Vec<u8>) -> Option<Framed> {
        if self.skipping & SKIP_PHYSICAL != 0 {
            self.skipping &= !SKIP_PHYSICAL;
            return None;
        }
        self.end_long_as(arena, false)
    }

    fn end_long_as(&mut self, arena: &mut Vec<u8>, force_full: bool) -> Option<Framed> {
        let long = self.long.take()?;
        let start = arena.len();
        arena.extend_from_slice(&long.text);
        let fragment = Fragment {
            header: Header { full: long.header.full || force_full, ..long.header },
            body: Span::new(start, arena.len()),
            offset: long.offset,
            total: long.total,
        };
        self.accept(arena, fragment)
    }

    /// Gives out what waits for an end that will not come, since the container has ended: the runtime writes an
    /// unterminated last line as a final `P`.
    pub fn finish(&mut self, arena: &mut Vec<u8>) -> impl Iterator<Item = Framed> + use<> {
        let long = if self.long.is_some() { self.end_long_as(arena, true) } else { None };
        let time = self.last_time;
        let mut rest = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let pending = &self.pending[stream as usize];
            (pending.open && !pending.known).then(|| self.finish_pending(arena, stream, time))
        });
        rest.sort_by_key(|framed| framed.map_or(u64::MAX, |framed| framed.offset));
        long.into_iter().chain(rest.into_iter().flatten())
    }

    /// Bytes held for lines that are not yet out.
    pub fn held_bytes(&self) -> usize {
        self.pending.iter().map(|pending| pending.text.capacity()).sum::<usize>()
            + self.long.as_ref().map_or(0, |long| long.text.capacity())
    }
}

/// Replaces what is not UTF-8 by U+FFFD in a copy at the arena's end.
#[cold]
fn replace_invalid(arena: &mut Vec<u8>, mut framed: Framed, max_line: usize) -> Framed {
    let clean = String::from_utf8_lossy(framed.body.of(arena)).into_owned();
    let mut end = clean.len().min(max_line);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    if end < clean.len() && !framed.marks.contains(Marks::TRUNCATED) {
        framed.marks.insert(Marks::TRUNCATED);
        framed.original_len = framed.body.len;
    }
    let start = arena.len();
    arena.extend_from_slice(&clean.as_bytes()[..end]);
    framed.body = Span::new(start, arena.len());
    framed.marks.insert(Marks::LOSSY);
    framed
}

#[cfg(test)]
mod tests;
