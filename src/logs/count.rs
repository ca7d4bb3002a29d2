//! Reading a log for its requests alone: behind or ahead of the reader that ships it.
//!
//! In: bytes of the log's files, in order, from a position up to which the log is counted. Out: requests, and the
//! position up to which it is counted then; the text is thrown away. Invariant: lines are framed as the shipping reader
//! frames them, so both find the same lines at the same places, and either can go on where the other one stopped.

use memchr::memchr;

use super::annotated::Annotated;
use super::frame::{self, Framed, Framer, Framing};
use super::ingest::{self, Settings};
use super::parse;
use super::requests::{self, Found};
use crate::data::position::{Generation, Position};

/// A reader for requests. See the module's header.
#[derive(Debug)]
pub struct Counter {
    framer: Framer,
    found: Found,
    /// Where it reads next: file and offset.
    pub at: Position,
    /// Where the oldest line begins that was open when its file ended.
    carried: Option<Position>,
    /// Where it left the file before.
    pub left: Position,
    /// How often the end of its file was found reached after the next one had begun, and the file's size then.
    pub ends_seen: (u8, u64),
}

impl Counter {
    /// A reader that goes on where a log is counted up to.
    pub fn new(counted: Position, max_line: usize, framing: Framing) -> Self {
        let mut framer = Framer::new(max_line).with_framing(framing);
        framer.resume(counted.skipping);
        Self { framer, found: Found::default(), at: counted, carried: None, left: counted, ends_seen: (0, 0) }
    }

    /// Says when what comes next was read.
    pub fn set_read_time(&mut self, unix_nano: u64) {
        self.framer.set_read_time(unix_nano);
        self.framer.set_first_time(unix_nano);
    }

    /// Stamp of the newest line, 0 before the first.
    pub fn last_time(&self) -> u64 {
        self.framer.last_time()
    }

    /// What was found.
    pub fn found(&mut self) -> &mut Found {
        &mut self.found
    }

    /// The position up to which every line is found.
    pub fn counted(&self) -> Position {
        framed_to(&self.framer, self.at, self.carried)
    }

    /// Where it has read to, what is open given up.
    pub fn read_to(&self) -> Position {
        read_to(&self.framer, self.at)
    }

    /// Takes the bytes in `arena`, which stand at the reader's place; lines before `counted` are known. Bytes taken.
    pub fn ingest(
        &mut self,
        settings: &Settings,
        annotated: Option<&Annotated>,
        counted: &Position,
        arena: &mut Vec<u8>,
    ) -> usize {
        self.found.arm(self.at.ordinal, counted);
        let filled = arena.len();
        let offset = self.at.offset;
        let mut at = 0;
        if self.framer.in_long_line() {
            let newline = memchr(b'\n', &arena[..filled]);
            self.framer.more(&arena[..newline.unwrap_or(filled)], offset);
            let framed =
                if newline.is_some() { self.framer.end_long(arena) } else { self.framer.seal_long(arena) };
            self.count(settings, annotated, arena, framed);
            at = newline.map_or(filled, |newline| newline + 1);
        }
        while let Some(len) = memchr(b'\n', &arena[at..filled]) {
            let fragment = self.framer.fragment(arena, at, at + len, offset + at as u64);
            let framed = self.framer.accept(arena, fragment);
            self.count(settings, annotated, arena, framed);
            at += len + 1;
        }
        if filled - at > frame::patience(&arena[at..filled], settings.max_line) {
            self.framer.more(&arena[at..filled], offset + at as u64);
            at = filled;
        }
        self.at.offset += at as u64;
        at
    }

    /// The file has ended, and with it what stands in `arena`, a last line without its newline; the next begins.
    pub fn next_file(
        &mut self,
        settings: &Settings,
        annotated: Option<&Annotated>,
        counted: &Position,
        arena: &mut Vec<u8>,
        next: (Generation, u64),
    ) {
        self.found.arm(self.at.ordinal, counted);
        let offset = self.at.offset;
        if !arena.is_empty() {
            let framed = if self.framer.in_long_line() {
                self.framer.more(arena, offset);
                self.framer.end_long(arena)
            } else {
                let fragment = self.framer.fragment(arena, 0, arena.len(), offset);
                self.framer.accept(arena, fragment)
            };
            self.count(settings, annotated, arena, framed);
            self.at.offset += arena.len() as u64;
        }
        let before = self.counted();
        self.framer.next_generation();
        self.carried = if self.framer.carries() { self.carried.or(Some(before)) } else { None };
        self.left = Position { skipping: self.framer.skipping_on_resume(), ..self.at };
        self.at = Position { generation: next.0, ordinal: next.1, offset: 0, ..Position::default() };
        self.ends_seen = (0, 0);
    }

    /// Bytes up to `until` are missing: what is open will not end any more.
    pub fn skip(
        &mut self,
        settings: &Settings,
        annotated: Option<&Annotated>,
        counted: &Position,
        arena: &mut Vec<u8>,
        until: u64,
    ) {
        self.found.arm(self.at.ordinal, counted);
        let rest: Vec<Framed> = self.framer.finish(arena).collect();
        for framed in rest {
            self.count(settings, annotated, arena, Some(framed));
        }
        self.framer.begin_anew();
        self.carried = None;
        self.at.offset = until.max(self.at.offset + 1);
    }

    fn count(
        &mut self,
        settings: &Settings,
        annotated: Option<&Annotated>,
        arena: &mut Vec<u8>,
        framed: Option<Framed>,
    ) {
        let Some(framed) = framed else { return };
        find(&mut self.found, settings, annotated, arena, framed);
    }
}

/// Looks for a request in a line that makes no record here.
pub(super) fn find(
    found: &mut Found,
    settings: &Settings,
    annotated: Option<&Annotated>,
    arena: &mut Vec<u8>,
    framed: Framed,
) {
    // The same fields as for a record: what one value is taken for depends on the others.
    let body = framed.body.of(arena);
    let parsed = match annotated {
        Some(annotated) => annotated.parse(body, settings.want),
        None => parse::parse(body, settings.want),
    };
    if requests::may_be(&parsed) {
        let record = ingest::record_of(parsed, arena, framed);
        found.take(arena, &framed, &parsed, &record);
    }
}

/// The position up to which a framer has read; who goes on there skips the rest of what is open.
pub(super) fn read_to(framer: &Framer, at: Position) -> Position {
    Position { skipping: framer.skipping_on_resume(), ..at }
}

/// The position up to which all lines are out of a framer that has read up to `at`.
pub(super) fn framed_to(framer: &Framer, at: Position, carried: Option<Position>) -> Position {
    if framer.carries()
        && let Some(carried) = carried
    {
        return carried;
    }
    let (offset, skipping) = framer.pinned().unwrap_or((at.offset, framer.skipping_on_resume()));
    Position { offset, skipping, ..at }
}
