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

use serde_json::value::RawValue;

use super::parse::unescape_into;
use super::stamp;
use crate::data::batch::{Marks, Span, Stream};
use crate::data::position::Skipping;
use crate::metrics;

/// A line that is still without its end when it has grown to this many times the line limit is sealed as it is,
/// so that an endless line cannot hold the log's position for ever.
const SEAL_FACTOR: u64 = 16;

/// Longest header that a CRI line can have: stamp, stream, tag and three spaces, with room to spare.
pub const MAX_HEADER: usize = 64;

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
    let space = if line.get(30) == Some(&b' ') {
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
        Some(b':') => {
            tags.iter().take(MAX_HEADER).position(|byte| *byte == b' ').map_or(tags.len(), |at| at + 1)
        }
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
    let (header, raw) = {
        let line: DockerLine<'_> = serde_json::from_slice(&arena[start..end]).ok()?;
        let raw = line.log.get().as_bytes();
        let (b'"', [middle @ .., b'"']) = raw.split_first()? else { return None };
        let at = middle.as_ptr() as usize - arena.as_ptr() as usize;
        let header = Header {
            time_unix_nano: stamp::parse(line.time.as_bytes())?,
            stream: if line.stream == Some("stderr") { Stream::Stderr } else { Stream::Stdout },
            full: true,
            payload: 0,
            well_formed: true,
        };
        (header, at..at + middle.len())
    };
    let begin = arena.len();
    let escaped = arena[raw].to_vec();
    unescape_into(&escaped, arena);
    let full = arena.len() > begin && arena.last() == Some(&b'\n');
    let body = Span::new(begin, arena.len() - usize::from(full));
    Some(Fragment { header: Header { full, ..header }, body, offset, total: u64::from(body.len) })
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
    /// Length before truncation, else 0.
    pub original_len: u32,
    /// What must be skipped by who resumes at `offset`, since it was framed before.
    pub skipping: Skipping,
    /// The line began in an earlier generation: `offset` is not of this file.
    pub carried: bool,
}

/// Fragments of a line that wait for its end.
#[derive(Debug, Default)]
struct Pending {
    open: bool,
    /// At most the line limit.
    text: Vec<u8>,
    total: u64,
    offset: u64,
    /// What was being skipped when the line began: a resume at `offset` needs it.
    skipping: u8,
    /// The line began in an earlier generation: `offset` is not of this file.
    carried: bool,
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
    max_line: usize,
    pending: [Pending; 2],
    long: Option<Long>,
    /// Bits 0 and 1: skip that stream up to its next `F`; bit 2: skip to the next newline.
    skipping: u8,
    last_time: u64,
    /// Stamp for lines without one before the first line with one.
    first_time: u64,
}

impl Framer {
    /// A framer that cuts lines above `max_line` bytes.
    pub fn new(max_line: usize) -> Self {
        Self { max_line, pending: Default::default(), long: None, skipping: 0, last_time: 0, first_time: 0 }
    }

    /// Continues where a checkpoint was taken, after a line stamped `last_time`.
    pub fn resume(&mut self, skipping: Skipping, last_time: u64) {
        self.last_time = last_time;
        self.skipping = skipping.0;
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
            .filter(|pending| pending.open && !pending.carried)
            .map(|p| (p.offset, Skipping(p.skipping)));
        let long = self.long.iter().map(|long| (long.offset, Skipping(long.skipping)));
        pending.chain(long).min_by_key(|(offset, _)| *offset)
    }

    /// A new generation of the log begins: offsets of what is open belong to the old one.
    pub fn next_generation(&mut self) {
        for pending in &mut self.pending {
            pending.carried = pending.open;
        }
    }

    /// True while a line is open that began in an earlier generation.
    pub fn carries(&self) -> bool {
        self.pending.iter().any(|pending| pending.open && pending.carried)
    }

    /// What is being skipped now.
    pub fn skipping(&self) -> Skipping {
        Skipping(self.skipping)
    }

    /// True while a physical line without end is being read or skipped: bytes go to [`more`](Self::more).
    pub fn in_long_line(&self) -> bool {
        self.long.is_some() || self.skipping & SKIP_PHYSICAL != 0
    }

    /// Takes one fragment; gives the line that it completes.
    #[inline]
    pub fn accept(&mut self, arena: &mut Vec<u8>, fragment: Fragment) -> Option<Framed> {
        let Fragment { header, body, offset, total } = fragment;
        let time_unix_nano = if header.well_formed {
            self.last_time = header.time_unix_nano;
            header.time_unix_nano
        } else {
            metrics::LOG_MALFORMED.with_label_values(&["header"]).inc();
            if self.last_time == 0 { self.first_time } else { self.last_time }
        };
        let stream = header.stream;
        let simple = header.full
            && total == u64::from(body.len)
            && body.len as usize <= self.max_line
            && self.skipping == 0
            && !self.pending[stream as usize].open;
        if simple {
            let skipping = Skipping(self.open_streams());
            let framed = Framed {
                time_unix_nano,
                stream,
                body,
                offset,
                marks: Marks::NONE,
                original_len: 0,
                skipping,
                carried: false,
            };
            return Some(if std::str::from_utf8(body.of(arena)).is_ok() {
                framed
            } else {
                replace_invalid(arena, framed, self.max_line)
            });
        }
        self.join(arena, Fragment { header: Header { time_unix_nano, ..header }, body, offset, total })
    }

    /// The streams whose line is open, as bits of [`Skipping`].
    #[inline]
    fn open_streams(&self) -> u8 {
        u8::from(self.pending[0].open) | u8::from(self.pending[1].open) << 1
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
        // The other stream's open line comes out before this position can be resumed at: its rest is skipped then.
        let skipping = self.skipping | self.open_streams();
        let pending = &mut self.pending[header.stream as usize];
        if !pending.open {
            pending.open = true;
            pending.text.clear();
            pending.total = 0;
            pending.offset = offset;
            pending.skipping = skipping;
            pending.carried = false;
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
            skipping: Skipping(pending.skipping),
            carried: pending.carried,
        };
        if pending.total > pending.text.len() as u64 {
            framed.marks.insert(Marks::TRUNCATED);
            framed.original_len = u32::try_from(pending.total).unwrap_or(u32::MAX);
            metrics::LOG_MALFORMED.with_label_values(&["truncated"]).inc();
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
        if std::str::from_utf8(framed.body.of(arena)).is_err() {
            framed = replace_invalid(arena, framed, self.max_line);
        }
        framed
    }

    /// Takes bytes of a physical line that is longer than a read: its beginning or its middle, without a newline.
    pub fn more(&mut self, bytes: &[u8], offset: u64) {
        if self.skipping & SKIP_PHYSICAL != 0 {
            return;
        }
        let (max_line, skipping) = (self.max_line, self.skipping);
        let long = self.long.get_or_insert_with(|| Long {
            header: cri_header(bytes),
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
        let was_full = self.long.as_ref()?.header.full;
        let framed = self.end_long_as(arena, true);
        self.skipping |= SKIP_PHYSICAL;
        if let Some(framed) = &framed
            && !was_full
        {
            self.skipping |= 1 << framed.stream as usize;
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
            self.pending[stream as usize].open.then(|| self.finish_pending(arena, stream, time))
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
    metrics::LOG_MALFORMED.with_label_values(&["utf8"]).inc();
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames whole physical lines and gives (stream, text, offset, truncated, lossy).
    fn frame(framer: &mut Framer, file: &str) -> Vec<(Stream, String, u64)> {
        let mut arena = file.as_bytes().to_vec();
        let mut out = Vec::new();
        let mut start = 0;
        for line in file.split_inclusive('\n') {
            let fragment = fragment(&mut arena, start, start + line.len() - 1, start as u64);
            if let Some(framed) = framer.accept(&mut arena, fragment) {
                let text = String::from_utf8(framed.body.of(&arena).to_vec()).expect("UTF-8");
                out.push((framed.stream, text, framed.offset));
            }
            start += line.len();
        }
        out
    }

    #[test]
    fn cri_headers_of_both_runtimes_are_read() {
        let containerd = cri_header(b"2026-11-22T14:11:42.93228Z stderr P half");
        assert_eq!(containerd.time_unix_nano, 1_795_356_702_932_280_000);
        assert_eq!(
            (containerd.stream, containerd.full, containerd.well_formed),
            (Stream::Stderr, false, true)
        );
        let conmon = b"2026-11-22T15:11:42.932284897+01:00 stdout F whole";
        let header = cri_header(conmon);
        assert_eq!(header.time_unix_nano, 1_795_356_702_932_284_897);
        assert_eq!(&conmon[header.payload..], b"whole");
        let tagged = b"2026-11-22T14:11:42.932284897Z stdout F:extra:tags payload";
        assert_eq!(&tagged[cri_header(tagged).payload..], b"payload");
        for empty in
            [&b"2026-11-22T14:11:42.932284897Z stdout F "[..], b"2026-11-22T14:11:42.932284897Z stdout F"]
        {
            assert_eq!(cri_header(empty).payload, empty.len());
        }
        for bad in
            [&b""[..], b"x", b"2026-11-22T14:11:42Z stdin F x", b"2026-11-22T14:11:42Z stdout X x", b"{"]
        {
            assert!(!cri_header(bad).well_formed);
        }
    }

    #[test]
    fn fragments_join_per_stream() {
        let mut framer = Framer::new(1 << 18);
        let lines = frame(
            &mut framer,
            "2026-11-22T14:11:42.1Z stdout P ab\n2026-11-22T14:11:42.2Z stderr P xy\n\
             2026-11-22T14:11:42.3Z stdout F cd\n2026-11-22T14:11:42.4Z stderr F z\n",
        );
        assert_eq!(lines, [(Stream::Stdout, "abcd".into(), 0), (Stream::Stderr, "xyz".into(), 35)]);
        assert_eq!(framer.pinned(), None);
    }

    #[test]
    fn an_open_fragment_pins_the_position() {
        let mut framer = Framer::new(1 << 18);
        let lines = frame(
            &mut framer,
            "2026-11-22T14:11:42.1Z stdout F one\n2026-11-22T14:11:42.2Z stderr P xy\n2026-11-22T14:11:42.3Z stdout F two\n",
        );
        assert_eq!(lines.len(), 2);
        assert_eq!(framer.pinned(), Some((36, Skipping(0))));
    }

    #[test]
    fn docker_lines_are_unescaped_and_joined() {
        let mut framer = Framer::new(1 << 18);
        let lines = frame(
            &mut framer,
            concat!(
                r#"{"log":"say \"hi\"\n","stream":"stderr","time":"2026-11-22T14:11:42.1Z"}"#,
                "\n",
                r#"{"log":"half ","stream":"stdout","time":"2026-11-22T14:11:42.2Z"}"#,
                "\n",
                r#"{"log":"whole\n","stream":"stdout","time":"2026-11-22T14:11:42.3Z"}"#,
                "\n",
            ),
        );
        assert_eq!(lines[0], (Stream::Stderr, "say \"hi\"".into(), 0));
        assert_eq!((lines[1].0, lines[1].1.as_str()), (Stream::Stdout, "half whole"));
    }

    #[test]
    fn an_over_long_line_is_cut_marked_and_its_rest_skipped() {
        let mut framer = Framer::new(8);
        let mut file = String::from("2026-11-22T14:11:42.1Z stdout P 0123456\n");
        file.push_str("2026-11-22T14:11:42.1Z stdout F 789\n");
        let mut arena = file.as_bytes().to_vec();
        let first = fragment(&mut arena, 0, 39, 0);
        assert_eq!(framer.accept(&mut arena, first), None);
        let second = fragment(&mut arena, 40, 75, 40);
        let framed = framer.accept(&mut arena, second).expect("whole");
        assert_eq!(framed.body.of(&arena), b"01234567");
        assert!(framed.marks.contains(Marks::TRUNCATED));
        assert_eq!(framed.original_len, 10);
    }

    #[test]
    fn endless_fragments_are_sealed_and_do_not_pin() {
        let mut framer = Framer::new(4);
        let mut sealed = 0;
        for n in 0..100_u64 {
            let mut arena = b"2026-11-22T14:11:42.1Z stdout P 0123456".to_vec();
            let end = arena.len();
            let piece = fragment(&mut arena, 0, end, n * 40);
            sealed += u32::from(framer.accept(&mut arena, piece).is_some());
        }
        assert_eq!(sealed, 1);
        assert_eq!(framer.pinned(), None);
        assert_eq!(framer.skipping(), Skipping(1));
        assert_eq!(frame(&mut framer, "2026-11-22T14:11:42.1Z stdout F end\n"), []);
        assert_eq!(frame(&mut framer, "2026-11-22T14:11:42.1Z stdout F next\n").len(), 1);
    }

    #[test]
    fn a_long_physical_line_comes_out_once() {
        let mut framer = Framer::new(8);
        framer.more(b"2026-11-22T14:11:42.1Z stderr F abcdef", 100);
        framer.more(b"ghijkl", 138);
        assert_eq!(framer.pinned(), Some((100, Skipping(0))));
        let mut arena = Vec::new();
        let framed = framer.end_long(&mut arena).expect("ends");
        assert_eq!((framed.body.of(&arena), framed.original_len), (&b"abcdefgh"[..], 12));
        assert_eq!(framed.stream, Stream::Stderr);
        assert_eq!(framer.pinned(), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_marked() {
        let mut framer = Framer::new(1 << 18);
        let mut arena = b"2026-11-22T14:11:42.1Z stdout F a\xffb\0".to_vec();
        let end = arena.len();
        let piece = fragment(&mut arena, 0, end, 0);
        let framed = framer.accept(&mut arena, piece).expect("whole");
        assert_eq!(framed.body.of(&arena), "a\u{fffd}b\0".as_bytes());
        assert!(framed.marks.contains(Marks::LOSSY));
    }

    #[test]
    fn a_final_fragment_comes_out_when_the_container_has_ended() {
        let mut framer = Framer::new(1 << 18);
        assert_eq!(frame(&mut framer, "2026-11-22T14:11:42.1Z stdout P bye\n"), []);
        let mut arena = Vec::new();
        let last: Vec<_> = framer.finish(&mut arena).collect();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].body.of(&arena), b"bye");
    }
}
