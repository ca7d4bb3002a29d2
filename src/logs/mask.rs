//! Masks secrets in raw log bytes that are about to be kept on disk.
//!
//! In: whole physical lines of one log, CRI or docker's json-file, as they stand in its file. Out: the same bytes, of
//! the same length, with `*` over everything that the configured redaction would replace in a record's line, also
//! where a secret lies across the runtime's `P` fragments or the lines of a private key.
//! Invariants: no offset changes and every line still frames and parses as it did, so that positions mean the same;
//! what is covered is not found again by redaction. JSON stays valid: a bare number or word becomes a string of
//! stars, and where there is no room for one (a single byte, three in docker's file) the digit 1 repeated.
//!
//! What a reader of the masked bytes sees differs from what was masked in two ways: the text is `***` instead of
//! `[REDACTED:rule]`, and lines with one stamp that differed in their secret alone are equal now, so that the later
//! ones get another nanosecond. Limit: lines are looked at one by one, as the application wrote them, not as
//! `multiline` joins them. A secret that shows only in a joined record, by an expression that spans lines, is masked as
//! far as it shows in its own line; the redaction of the record finds the rest, but on disk it lies as it was written.

use std::ops::Range;

use memchr::memchr;

use super::annotated::Annotated;
use super::frame::{self, Framed};
use super::ingest::{self, Settings};
use super::parse::unescape_by_piece;
use super::process::LogState;
use crate::data::batch::{Marks, Span, Stream};
use crate::data::position::Skipping;
use crate::data::workload::Workload;

/// Masks `bytes`, a stretch of a log that neither begins nor ends within a line. See [`Masker`] for several
/// stretches of one file.
pub fn mask(settings: &Settings, workload: &Workload, bytes: &mut [u8]) {
    Masker::default().mask(settings, workload, bytes, true);
}

/// Masks one file of a log stretch by stretch, in order.
#[derive(Debug, Default)]
pub struct Masker {
    /// Redaction may depend on what is found in a line.
    annotated: Option<Box<Annotated>>,
    state: LogState,
    /// By stream, an application line whose end has not been seen, and whose bytes are given up already.
    open: [Option<Line>; 2],
}

impl Masker {
    /// A masker of a log of whose lines annotations say so much.
    pub fn of(annotated: Option<&Annotated>) -> Self {
        Self { annotated: annotated.cloned().map(Box::new), ..Self::default() }
    }

    /// Takes note of whole lines before the first stretch without masking them: where a private key has begun, what
    /// follows belongs to it. [`Settings::warm_up_reach`] bytes are enough.
    pub fn follow(&mut self, settings: &Settings, workload: &Workload, bytes: &[u8]) {
        if settings.chain.redacts() {
            let lines = Lines::read(bytes, settings.max_line, true, self.open.clone());
            self.find(settings, workload, bytes, lines, &mut Vec::new());
        }
    }

    /// Masks the next stretch of whole physical lines; how many of its bytes are done.
    ///
    /// What is not done belongs to an application line that is open at the end of `bytes`, or is interleaved with
    /// one: its bytes may change once its end is known, so they must be given again with what follows them. With
    /// `last` everything is done. A caller whose stretch cannot grow any more says `last` too; then a secret that
    /// lies across the cut is masked in its first half only as far as that gives itself away; the rest is masked as
    /// a part of the whole line.
    pub fn mask(&mut self, settings: &Settings, workload: &Workload, bytes: &mut [u8], last: bool) -> usize {
        if !settings.chain.redacts() {
            return bytes.len();
        }
        let lines = Lines::read(bytes, settings.max_line, last, self.open.clone());
        let done = lines.done;
        let mut writes = Vec::new();
        self.find(settings, workload, bytes, lines, &mut writes);
        for (range, byte) in writes {
            bytes[range].fill(byte);
        }
        done
    }

    fn find(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        bytes: &[u8],
        lines: Lines,
        writes: &mut Vec<(Range<usize>, u8)>,
    ) {
        if lines.done > 0 {
            self.open = [None, None];
        }
        let context = Context { settings, workload, annotated: self.annotated.as_deref() };
        for line in lines.lines.iter().filter(|line| line.end <= lines.done) {
            cover_line(context, &mut self.state, line, false, writes);
        }
        for range in lines.long.iter().filter(|range| range.end <= lines.done) {
            // Docker's line, too long for a read: it is not seen as JSON but as text.
            let line = Line::verbatim(bytes, range.clone());
            cover(context, &mut LogState::default(), &line, line.text.len(), false, writes);
        }
        for mut line in lines.open {
            if line.end > 0 {
                cover_line(context, &mut self.state, &line, true, writes);
            }
            if line.text.len() <= MAX_OPEN {
                line.give_up();
                let stream = line.stream as usize;
                self.open[stream] = Some(line);
            }
        }
    }
}

/// What is the same for all lines of a log.
#[derive(Clone, Copy)]
struct Context<'a> {
    settings: &'a Settings,
    workload: &'a Workload,
    annotated: Option<&'a Annotated>,
}

/// Finds what to write over in a line, also in what is beyond the limit.
fn cover_line(
    context: Context<'_>,
    state: &mut LogState,
    line: &Line,
    open: bool,
    writes: &mut Vec<(Range<usize>, u8)>,
) {
    let limit = context.settings.max_line.min(line.text.len());
    cover(context, state, line, limit, open, writes);
    if limit < line.text.len() {
        // What is beyond the limit never leaves the node; it must not lie on its disk either.
        cover(context, &mut LogState::default(), line, line.text.len(), open, writes);
    }
}

/// A stretch of a text and of the bytes that it was made from. Where the lengths are equal the bytes correspond one
/// by one, otherwise all of one stand for all of the other.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    len: usize,
    from: usize,
    from_len: usize,
}

/// Where the bytes stand that `start..end` of a text was made from.
fn origin(pieces: &[Piece], start: usize, end: usize) -> impl Iterator<Item = Range<usize>> {
    let first = pieces.partition_point(|piece| piece.start + piece.len <= start);
    pieces[first..].iter().take_while(move |piece| piece.start < end).map(move |piece| {
        if piece.len != piece.from_len {
            return piece.from..piece.from + piece.from_len;
        }
        let begin = start.max(piece.start) - piece.start;
        let stop = end.min(piece.start + piece.len) - piece.start;
        piece.from + begin..piece.from + stop
    })
}

/// Pieces that begin here or above stand in bytes that were given up before.
const GIVEN_UP: usize = usize::MAX / 2;
/// Bytes of an open line that are remembered across stretches, at most.
const MAX_OPEN: usize = 1 << 20;

/// An application's line with the places of its text in the file.
#[derive(Debug, Clone, Default)]
struct Line {
    stream: Stream,
    time_unix_nano: u64,
    /// Where its first fragment begins and its last one ends, newline included.
    start: usize,
    end: usize,
    text: Vec<u8>,
    pieces: Vec<Piece>,
    /// The text was unescaped: a quotation mark takes two bytes.
    escaped: bool,
}

impl Line {
    fn verbatim(bytes: &[u8], range: Range<usize>) -> Self {
        let mut line = Self { start: range.start, end: range.end, ..Self::default() };
        line.push(bytes, range);
        line
    }

    /// Its bytes are out of reach from now on; only its text counts.
    fn give_up(&mut self) {
        let len = self.text.len();
        self.pieces = vec![Piece { start: 0, len, from: GIVEN_UP, from_len: len }];
        (self.start, self.end) = (0, 0);
    }

    fn push(&mut self, bytes: &[u8], range: Range<usize>) {
        let (start, len) = (self.text.len(), range.len());
        self.pieces.push(Piece { start, len, from: range.start, from_len: len });
        self.text.extend_from_slice(&bytes[range]);
    }

    /// Appends an escaped payload; true when it ends with a newline, which is no part of the text.
    fn push_escaped(&mut self, bytes: &[u8], range: Range<usize>) -> bool {
        self.escaped = true;
        let (mut start, mut from) = (self.text.len(), range.start);
        let (before, pieces) = (start, &mut self.pieces);
        unescape_by_piece(&bytes[range], &mut self.text, |len, from_len| {
            pieces.push(Piece { start, len, from, from_len });
            start += len;
            from += from_len;
        });
        let full = self.text.len() > before && self.text.last() == Some(&b'\n');
        if full {
            self.text.pop();
        }
        full
    }
}

/// The application's lines in a stretch of a file, in the order of their ends.
#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    /// Physical lines of docker's file that are too long for a read.
    long: Vec<Range<usize>>,
    /// Lines whose end is not there: those that have bytes here only where these are the last ones.
    open: Vec<Line>,
    /// No line that reaches over this is complete.
    done: usize,
}

impl Lines {
    fn read(bytes: &[u8], max_line: usize, last: bool, mut open: [Option<Line>; 2]) -> Self {
        let mut read = Self { done: bytes.len(), ..Self::default() };
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |len| at + len);
            let next = (end + 1).min(bytes.len());
            let physical = &bytes[at..end];
            let docker = if physical.first() == Some(&b'{') { frame::docker_line(physical) } else { None };
            if docker.is_some() && physical.len() > max_line {
                read.long.push(at..end);
            }
            let header = docker.as_ref().map_or_else(|| frame::cri_header(physical), |(header, _)| *header);
            let slot = &mut open[header.stream as usize];
            let line =
                slot.get_or_insert_with(|| Line { stream: header.stream, start: at, ..Line::default() });
            let full = match docker {
                Some((_, payload)) => line.push_escaped(bytes, at + payload.start..at + payload.end),
                None => {
                    line.push(bytes, at + header.payload.min(physical.len())..end);
                    header.full
                }
            };
            line.time_unix_nano = header.time_unix_nano;
            line.end = next;
            if full && let Some(line) = slot.take() {
                read.lines.push(line);
            }
            at = next;
        }
        let [first, second] = open;
        let mut rest: Vec<Line> = first.into_iter().chain(second).collect();
        rest.sort_by_key(|line| line.start);
        if last {
            read.open = rest;
            return read;
        }
        if let Some(start) = rest.iter().filter(|line| line.end > 0).map(|line| line.start).min() {
            read.done = start;
            // A line of the other stream may reach over that place: it is not done then, nor what it reaches over.
            for line in read.lines.iter().rev() {
                if line.start < read.done && line.end > read.done {
                    read.done = line.start;
                }
            }
        }
        // What was open before and has no more here stays so.
        rest.retain(|line| line.end == 0);
        read.open = rest;
        read
    }
}

/// Finds what to write over in the first `limit` bytes of a line.
fn cover(
    context: Context<'_>,
    state: &mut LogState,
    line: &Line,
    limit: usize,
    open: bool,
    writes: &mut Vec<(Range<usize>, u8)>,
) {
    let Context { settings, workload, annotated } = context;
    // As the framer does: what is not UTF-8 becomes U+FFFD.
    let (mut arena, mut clean) = (Vec::with_capacity(limit), Vec::new());
    let mut from = 0;
    for chunk in line.text[..limit].utf8_chunks() {
        for (text, from_len) in [
            (chunk.valid(), chunk.valid().len()),
            (if chunk.invalid().is_empty() { "" } else { "\u{fffd}" }, chunk.invalid().len()),
        ] {
            if !text.is_empty() {
                clean.push(Piece { start: arena.len(), len: text.len(), from, from_len });
                arena.extend_from_slice(text.as_bytes());
                from += from_len;
            }
        }
    }
    let framed = Framed {
        time_unix_nano: line.time_unix_nano,
        stream: line.stream,
        body: Span::new(0, arena.len()),
        offset: line.start as u64,
        marks: Marks::NONE,
        original_len: 0,
        known: false,
        first: false,
        skipping: Skipping::default(),
        carried: false,
        ago: 0,
    };
    let record = ingest::read_annotated(annotated, settings.want, &mut arena, framed);
    let covers = if open {
        settings.chain.covers_open(state, workload, &record, &arena)
    } else {
        settings.chain.covers(state, workload, &record, &arena)
    };
    for cover in covers {
        let places: Vec<Range<usize>> = origin(&clean, cover.start, cover.end)
            .flat_map(|text| origin(&line.pieces, text.start, text.end))
            .filter(|range| range.start < GIVEN_UP)
            .collect();
        if cover.bare {
            write_bare(&places, line.escaped, writes);
        } else {
            writes.extend(places.into_iter().map(|range| (range, b'*')));
        }
    }
}

/// Writes a JSON string of stars over a bare value.
fn write_bare(places: &[Range<usize>], escaped: bool, writes: &mut Vec<(Range<usize>, u8)>) {
    let mark: &[u8] = if escaped { b"\\\"" } else { b"\"" };
    let mut bytes: Vec<usize> = places.iter().cloned().flatten().collect();
    // An escaped mark must not be torn by the end of a fragment.
    let whole = |ends: &[usize]| ends.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let room = bytes.len() >= 2 * mark.len()
        && whole(&bytes[..mark.len()])
        && whole(&bytes[bytes.len() - mark.len()..]);
    if !room {
        writes.extend(places.iter().map(|range| (range.clone(), b'1')));
        return;
    }
    writes.extend(places.iter().map(|range| (range.clone(), b'*')));
    let closing = bytes.split_off(bytes.len() - mark.len());
    for (at, byte) in bytes.iter().zip(mark).chain(closing.iter().zip(mark)) {
        writes.push((*at..*at + 1, *byte));
    }
}

#[cfg(test)]
mod tests;
