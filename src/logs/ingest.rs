//! Turns a chunk of a container log into records: frame, parse, enrich, process.
//!
//! In: the bytes of one read in the batch's arena. Out: records whose text lies in that arena, and how far the
//! chunk was taken. Invariant: the records depend on the log's bytes and the config alone, not on how the bytes
//! were cut into chunks; that makes a replay identical, line by line.

use memchr::memchr;

use super::annotated::Annotated;
use super::copies::Copies;
use super::count;
use super::frame::{self, Framed, Framer, Framing};
use super::inherit::{self, Inheritance};
use super::multiline::{Joiner, Kind, Language, Mode, Ready, Rules};
use super::parse::{self, DurationUnit, Parsed, Text, unescape_into};
use super::process::dedup;
use super::process::watch::Noted;
use super::process::{Chain, Dropped, LogState};
use super::requests::{self, Found};
use crate::data::batch::{Fields, Marks, Record, Span};
use crate::data::position::{Position, Skipping};
use crate::data::severity::Severity;
use crate::data::tally::{Dropping, Drops};
use crate::data::workload::Workload;

/// What is the same for all logs.
#[derive(Debug)]
pub struct Settings {
    /// Fields that leave the node.
    pub fields: Fields,
    /// Fields that the parser must find for that.
    pub want: Fields,
    /// Which lines become one record.
    pub multiline: Rules,
    /// Configured processing.
    pub chain: Chain,
    /// Line limit in bytes.
    pub max_line: usize,
}

impl Settings {
    /// Settings for a set of fields to send, with multiline joining as it is by default.
    pub fn new(fields: Fields, chain: Chain, max_line: usize) -> Self {
        let mut want = fields;
        if fields.contains(Fields::TRACE_ID) {
            want = want.with(Fields::REQUEST_ID);
        }
        want = want.with(chain.wants());
        Self { fields, want, multiline: Rules::default(), chain, max_line }
    }

    /// The same with other rules for multiline joining.
    #[must_use]
    pub fn with_multiline(self, multiline: Rules) -> Self {
        Self { multiline, ..self }
    }
}

impl Settings {
    /// From which offset a log is read again before a resume at `offset`, so that what lines learn from earlier ones
    /// is as it was.
    pub fn warm_up_start(&self, offset: u64) -> u64 {
        offset.saturating_sub(inherit::REACH).min(self.chain.warm_up_start(offset))
    }

    /// Bytes before a position that a resume reads again at most.
    pub fn warm_up_reach(&self) -> u64 {
        let far = u64::MAX / 2;
        far - self.warm_up_start(far) + self.max_line as u64
    }
}

/// How far a chunk was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the chunk that are done with: the next read begins behind them.
    pub bytes: usize,
    /// A line beyond the horizon stopped the chunk.
    pub at_horizon: bool,
    /// Records begun, before processing dropped any: lines that joined no record before them.
    pub framed: u64,
    /// Records that processing dropped.
    pub dropped: u64,
}

/// The state of one container log between chunks.
pub struct LineState {
    framer: Framer,
    joiner: Joiner,
    copies: Copies,
    /// Of lines that were held back, by stream: they come out later than their stamps say.
    held_copies: [Copies; 2],
    inheritance: Inheritance,
    process: LogState,
    /// What must be skipped by who resumes at the line that processing holds back.
    process_skipping: Skipping,
    /// What processing dropped and nobody has asked for yet.
    dropped: Dropped,
    /// What the pod's annotations say of lines; most say nothing.
    annotated: Option<Box<Annotated>>,
    /// The records as they were read, while somebody watches.
    seen: Option<Vec<Seen>>,
    /// Requests found in the lines, where somebody counts them.
    found: Option<Box<Found>>,
}

/// A record as it was read, before processing.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The record; its spans point into `text`.
    pub record: Record,
    /// Its line, then what was unescaped.
    pub text: Vec<u8>,
    /// Whether lines were joined, and of which language.
    pub kind: Kind,
}

impl LineState {
    /// The state at the beginning of a log.
    pub fn new(max_line: usize) -> Self {
        Self {
            framer: Framer::new(max_line),
            joiner: Joiner::new(max_line),
            copies: Copies::default(),
            held_copies: Default::default(),
            inheritance: Inheritance::default(),
            process: LogState::default(),
            process_skipping: Skipping::default(),
            dropped: Dropped::default(),
            annotated: None,
            seen: None,
            found: None,
        }
    }

    /// The same for a log whose bytes are framed in another way.
    #[must_use]
    pub fn with_framing(self, framing: Framing) -> Self {
        Self { framer: self.framer.with_framing(framing), ..self }
    }

    /// The state at the beginning of a log that is framed as this one.
    #[must_use]
    pub fn anew(&self, max_line: usize) -> Self {
        Self::new(max_line).with_framing(self.framer.framing())
    }

    /// The same for lines that are read once more, to be shown: nothing is counted.
    #[must_use]
    pub fn quietly(mut self) -> Self {
        self.framer.mute();
        self.joiner.set_warming_up(true);
        self
    }

    /// From now on requests are looked for; `found` is what was found before.
    #[must_use]
    pub fn with_requests(self, found: Option<Box<Found>>) -> Self {
        Self { found, ..self }
    }

    /// The requests that were found.
    pub fn requests(&mut self) -> Option<&mut Box<Found>> {
        self.found.as_mut()
    }

    /// Where every line before has been framed, when all is read up to `at`. `carried` is where the oldest line began
    /// that was open when its file ended.
    pub fn framed_to(&self, at: Position, carried: Option<Position>) -> Position {
        count::framed_to(&self.framer, at, carried)
    }

    /// Where all has been framed up to `at`, what is open given up.
    pub fn read_to(&self, at: Position) -> Position {
        count::read_to(&self.framer, at)
    }

    /// True while a line is open that began in an earlier generation, whatever is held back behind the framing.
    pub fn framing_carries(&self) -> bool {
        self.framer.carries()
    }

    /// How the log's bytes are framed.
    pub fn framing(&self) -> Framing {
        self.framer.framing()
    }

    /// Says when what comes next was read, for lines that have no time of their own.
    pub fn set_read_time(&mut self, unix_nano: u64) {
        self.framer.set_read_time(unix_nano);
    }

    /// Stamp of the line that `begin` is the beginning of, when it can be told from that.
    pub fn stamp_of(&self, begin: &[u8]) -> Option<u64> {
        self.framer.stamp_of(begin)
    }

    /// Bytes of a line that [`stamp_of`](Self::stamp_of) needs.
    pub fn stamp_reach(&self) -> usize {
        if let Framing::Lines { .. } = self.framer.framing() { 4 << 10 } else { frame::MAX_HEADER }
    }

    /// Takes what annotations say of lines, from the next line on.
    pub fn set_annotated(&mut self, annotated: Option<Box<Annotated>>) {
        self.process.set_recorder(annotated.as_ref().and_then(|annotated| annotated.recorder()));
        self.annotated = annotated;
    }

    /// What annotations say of lines.
    pub fn annotated(&self) -> Option<&Annotated> {
        self.annotated.as_deref()
    }

    /// Joins lines in another way, from the next place on at which no group of lines is open.
    pub fn set_multiline(&mut self, mode: Mode) {
        self.joiner.set_mode(mode);
    }

    /// From now on everything that is read, and what each rule decides about it, is written down: for a person who
    /// asks about a few lines, never for a log. Nothing of it is counted in a metric.
    pub fn watch(&mut self) {
        self.framer.mute();
        self.joiner.set_warming_up(true);
        self.seen.get_or_insert_default();
        self.process.watch();
    }

    /// What was read and decided since this was last asked.
    pub fn take_seen(&mut self) -> (Vec<Seen>, Noted) {
        (self.seen.as_mut().map(std::mem::take).unwrap_or_default(), self.process.take_noted())
    }

    /// The stretch before a checkpoint is about to be [ingested](Self::ingest) for warmth: nothing counts.
    pub fn begin_warm_up(&mut self) {
        self.process.set_warming_up(true);
        self.joiner.set_warming_up(true);
    }

    /// Sets the stamp for lines that have none, before the first line that has one.
    pub fn set_first_time(&mut self, time_unix_nano: u64) {
        self.framer.set_first_time(time_unix_nano);
    }

    /// Continues at a checkpoint, after the stretch before it was ingested for warmth.
    pub fn resume(&mut self, settings: &Settings, workload: &Workload, skipping: Skipping) {
        // No group is open at a position that can be resumed at: the next line would have closed it. Where groups
        // were open before stays known, as processing may hold back a line of there again.
        let (mut arena, mut records) = (Vec::new(), Vec::new());
        self.joiner.close_idle(u64::MAX, &mut arena);
        self.record_rest(settings, workload, &mut arena, &mut records);
        self.framer.resume(skipping);
        self.leave(&arena);
        self.process.set_warming_up(false);
        self.joiner.set_warming_up(false);
        self.dropped = Dropped::default();
    }

    /// A new generation of the log begins at offset 0. Records that processing held back come out; what is being
    /// joined goes on.
    pub fn next_generation(&mut self, settings: &Settings, arena: &mut Vec<u8>, records: &mut Vec<Record>) {
        self.dropped += settings.chain.close_idle(&mut self.process, u64::MAX, arena, records);
        self.framer.next_generation();
        self.joiner.next_generation();
        self.inheritance.clear();
        settings.chain.drop_held(&mut self.process);
        self.process.reset();
    }

    /// Bytes are missing behind what was read last: gives out what waits for an end that is gone, and begins anew.
    pub fn interrupt(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        records: &mut Vec<Record>,
    ) {
        self.finish(settings, workload, arena, 0, records);
        self.framer.begin_anew();
        self.inheritance.clear();
        settings.chain.drop_held(&mut self.process);
        self.process.reset();
    }

    /// What processing dropped since this was last asked, for the ledger; `None` when nothing.
    pub fn take_dropped(&mut self) -> Option<Drops> {
        (self.dropped != Dropped::default()).then(|| std::mem::take(&mut self.dropped).into())
    }

    /// True while a line or a group of lines is open that began in an earlier generation.
    pub fn carries(&self) -> bool {
        self.framer.carries() || self.joiner.carries(self.least_pin())
    }

    /// Stamp of the newest line, 0 before the first.
    pub fn last_time(&self) -> u64 {
        self.framer.last_time()
    }

    /// Where the oldest line begins whose fate is open, with what was being skipped there.
    pub fn pinned(&self) -> Option<(u64, Skipping)> {
        self.least_pin().map(|place| self.joiner.floor(place))
    }

    /// Where the oldest line begins that the framer, the joiner or processing holds back.
    fn least_pin(&self) -> Option<(u64, Skipping)> {
        let process = self.process.pinned().map(|offset| (offset, self.process_skipping));
        let pins = self.framer.pinned().into_iter().chain(self.joiner.pinned()).chain(process);
        pins.min_by_key(|(offset, _)| *offset)
    }

    /// What is being skipped now.
    pub fn skipping(&self) -> Skipping {
        self.framer.skipping()
    }

    /// Takes the bytes that stand in `arena` from `from` on; they begin at `offset` in their file. Lines stamped
    /// later than `horizon` stay unread.
    #[expect(clippy::too_many_arguments, reason = "the inner loop's whole context, all of it borrowed")]
    pub fn ingest(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        from: usize,
        offset: u64,
        horizon: u64,
        records: &mut Vec<Record>,
    ) -> Taken {
        // Asked once for the whole chunk: logs without annotations have lines that know of none.
        if self.annotated.is_none() {
            self.take_chunk::<false>(settings, workload, arena, from, offset, horizon, records)
        } else {
            self.take_chunk::<true>(settings, workload, arena, from, offset, horizon, records)
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the inner loop's whole context, all of it borrowed")]
    fn take_chunk<const ANNOTATED: bool>(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        from: usize,
        offset: u64,
        horizon: u64,
        records: &mut Vec<Record>,
    ) -> Taken {
        let filled = arena.len();
        let mut taken = Taken::default();
        let mut at = from;
        if self.framer.in_long_line() {
            let Some(newline) = memchr(b'\n', &arena[at..filled]) else {
                self.framer.more(&arena[at..filled], offset);
                taken.bytes = filled - from;
                if let Some(framed) = self.framer.seal_long(arena) {
                    self.join::<ANNOTATED>(settings, workload, arena, framed, records, &mut taken);
                }
                self.leave(arena);
                return taken;
            };
            self.framer.more(&arena[at..at + newline], offset);
            if let Some(framed) = self.framer.end_long(arena) {
                self.join::<ANNOTATED>(settings, workload, arena, framed, records, &mut taken);
            }
            at += newline + 1;
        }
        while let Some(len) = memchr(b'\n', &arena[at..filled]) {
            let fragment = self.framer.fragment(arena, at, at + len, offset + (at - from) as u64);
            if fragment.header.time_unix_nano > horizon {
                taken.at_horizon = true;
                break;
            }
            if let Some(framed) = self.framer.accept(arena, fragment) {
                self.join::<ANNOTATED>(settings, workload, arena, framed, records, &mut taken);
            }
            at += len + 1;
        }
        // A line that does not fit a read is taken in pieces.
        let patience = frame::patience(&arena[at..filled], settings.max_line);
        if !taken.at_horizon && filled - at > patience {
            self.framer.more(&arena[at..filled], offset + (at - from) as u64);
            at = filled;
        }
        self.leave(arena);
        taken.bytes = at - from;
        taken
    }

    /// Takes what stands in `arena` as a line whose newline will not come any more: its file has been left.
    pub fn take_torn(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        offset: u64,
        records: &mut Vec<Record>,
    ) {
        let end = arena.len();
        let framed = if self.framer.in_long_line() {
            self.framer.more(arena, offset);
            self.framer.end_long(arena)
        } else {
            let fragment = self.framer.fragment(arena, 0, end, offset);
            self.framer.accept(arena, fragment)
        };
        if let Some(framed) = framed {
            self.join_single(settings, workload, arena, framed, records);
        }
        self.leave(arena);
    }

    /// Gives out what waits for an end, since the container has ended. What stands in `arena` is a last line
    /// without a newline.
    pub fn finish(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        offset: u64,
        records: &mut Vec<Record>,
    ) {
        if !arena.is_empty() {
            self.take_torn(settings, workload, arena, offset, records);
        }
        let rest: Vec<Framed> = self.framer.finish(arena).collect();
        for framed in rest {
            self.join_single(settings, workload, arena, framed, records);
        }
        self.close_idle(settings, workload, u64::MAX, arena, records);
    }

    /// Closes what only waits for further lines, once the wall clock says that none can belong to it.
    pub fn close_idle(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        now_unix_nano: u64,
        arena: &mut Vec<u8>,
        records: &mut Vec<Record>,
    ) {
        self.joiner.close_idle(now_unix_nano, arena);
        self.record_rest(settings, workload, arena, records);
        self.dropped += settings.chain.close_idle(&mut self.process, now_unix_nano, arena, records);
        self.leave(arena);
    }

    /// The arena is about to go: keeps what is still needed of it.
    fn leave(&mut self, arena: &[u8]) {
        self.copies.leave(arena);
        for copies in &mut self.held_copies {
            copies.leave(arena);
        }
        self.joiner.leave(arena);
        self.joiner.prune(self.least_pin().map(|(offset, _)| offset));
    }

    /// Takes a framed line that does not come with a chunk.
    #[inline(never)]
    fn join_single(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        framed: Framed,
        records: &mut Vec<Record>,
    ) {
        if self.annotated.is_none() {
            self.join::<false>(settings, workload, arena, framed, records, &mut Taken::default());
        } else {
            self.join::<true>(settings, workload, arena, framed, records, &mut Taken::default());
        }
    }

    /// Takes a framed line: makes its record, or joins it to a group.
    #[inline]
    fn join<const ANNOTATED: bool>(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        framed: Framed,
        records: &mut Vec<Record>,
        taken: &mut Taken,
    ) {
        if self.joiner.passes(framed.body.of(arena)) {
            taken.framed += u64::from(!framed.known);
            let line = Ready { framed, kind: Kind::Passed };
            taken.dropped += self.record::<ANNOTATED, true>(settings, workload, arena, line, records);
            return;
        }
        // Requests are counted in the order of the file: what is held back comes out of it later.
        if let Some(found) = &mut self.found {
            count::find(found, settings, self.annotated.as_deref(), arena, framed);
        }
        let begun = self.joiner.take(&settings.multiline, workload, arena, framed);
        taken.framed += u64::from(begun && !framed.known);
        taken.dropped += self.record_ready::<ANNOTATED>(settings, workload, arena, records);
    }

    /// Makes the records of the lines that came out of the joiner; the number of records that processing dropped.
    fn record_ready<const ANNOTATED: bool>(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        records: &mut Vec<Record>,
    ) -> u64 {
        let ready = self.joiner.take_ready();
        let dropped = ready
            .iter()
            .map(|line| self.record::<ANNOTATED, false>(settings, workload, arena, *line, records))
            .sum();
        self.joiner.put_back(ready);
        dropped
    }

    /// The same for what does not come out with a chunk.
    fn record_rest(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        records: &mut Vec<Record>,
    ) {
        if self.annotated.is_none() {
            self.record_ready::<false>(settings, workload, arena, records);
        } else {
            self.record_ready::<true>(settings, workload, arena, records);
        }
    }

    /// Makes the record of a line; the number of records that processing dropped. `COUNTED` for a line that was not
    /// looked at for a request before.
    #[inline]
    fn record<const ANNOTATED: bool, const COUNTED: bool>(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        line: Ready,
        records: &mut Vec<Record>,
    ) -> u64 {
        let Ready { framed, kind } = line;
        let body = framed.body;
        let copies = match kind {
            Kind::Passed => &mut self.copies,
            Kind::Alone | Kind::Joined(_) => &mut self.held_copies[framed.stream as usize],
        };
        let shift = copies.shift(framed.time_unix_nano, arena, body.start, body.start + body.len);
        let parsed = match self.annotated.as_deref().filter(|_| ANNOTATED) {
            Some(annotated) => annotated.parse(body.of(arena), annotated.wants(settings.want)),
            None => parse::parse(body.of(arena), settings.want),
        };
        let mut record = record_of(parsed, arena, framed);
        if COUNTED
            && let Some(found) = &mut self.found
            && requests::may_be(&parsed)
        {
            found.take(arena, &framed, &parsed, &record);
        }
        record.time_unix_nano += shift;
        if let Kind::Joined(language) = kind
            && settings.want.contains(Fields::LEVEL)
        {
            record.severity = joined_severity(body.of(arena), language, record.severity);
        }
        if !record.request_id.is_empty() && settings.fields.contains(Fields::TRACE_ID) {
            let request_id = record.request_id.of(arena);
            if let Some(trace) = record.trace_id {
                // The offset of a carried line is of another file; its id would reach as far as chance has it.
                if !framed.first && !framed.carried {
                    self.inheritance.learn(request_id, trace, record.offset);
                }
            } else if let Some(trace) = self.inheritance.recall(request_id, record.offset) {
                record.trace_id = Some(trace);
                record.marks.insert(Marks::TRACE_INHERITED);
            }
        }
        if framed.known {
            let keeps = |annotated: &Annotated| annotated.keeps(workload, &record, arena);
            if (ANNOTATED || !settings.chain.is_noop()) && self.annotated.as_deref().is_none_or(keeps) {
                settings.chain.relearn(&mut self.process, workload, record, arena);
            }
            return 0;
        }
        if let Some(seen) = &mut self.seen {
            let mut text = Vec::new();
            let record = dedup::copy_text(&record, arena, &mut text);
            seen.push(Seen { record, text, kind });
        }
        if ANNOTATED && self.is_sampled_out(settings, workload, arena, &record) {
            return 1;
        }
        if settings.chain.is_noop() && !(ANNOTATED && self.process.wants_recorder()) {
            records.push(record);
            return 0;
        }
        self.process.set_apart(framed.carried);
        let mut dropped = settings.chain.apply(&mut self.process, workload, arena, record, records);
        if self.process.pinned() == Some(framed.offset) {
            self.process_skipping = framed.skipping;
        }
        if framed.carried {
            // Who resumes in this generation does not see the line: no later one may depend on it.
            dropped += settings.chain.close_idle(&mut self.process, u64::MAX, arena, records);
        }
        let count = u64::from(dropped.records());
        if count > 0 {
            self.dropped += dropped;
        }
        count
    }

    /// True when a record does not stay, by the share that the pod's annotation names. Processing sees it all the same:
    /// a private key may begin in it.
    fn is_sampled_out(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &[u8],
        record: &Record,
    ) -> bool {
        let Some(annotated) = self.annotated.as_ref().filter(|it| !it.keeps(workload, record, arena)) else {
            return false;
        };
        if !settings.chain.is_noop() {
            settings.chain.follow(&mut self.process, workload, record, arena);
        }
        self.dropped.sample += 1;
        self.dropped.bytes[Dropping::Sample as usize] += u64::from(record.body.len);
        if self.process.counts() {
            annotated.count_dropped();
        }
        true
    }
}

/// The severity of a trace: that of its first line, as what follows may say anything; else an error.
fn joined_severity(body: &[u8], language: Language, whole: Severity) -> Severity {
    let first = memchr(b'\n', body).map_or(body, |end| &body[..end]);
    match parse::parse(first, Fields::LEVEL).severity {
        Severity::UNSPECIFIED if language == Language::Other => whole,
        Severity::UNSPECIFIED => Severity::ERROR,
        // Go's server says `http: panic serving`, and npm has a level of that name.
        found if language == Language::Go && found < Severity::INFO => Severity::ERROR,
        found => found,
    }
}

/// What a framed line says about itself, as a record that nothing has been done to.
#[inline]
pub(super) fn read_record(want: Fields, arena: &mut Vec<u8>, framed: Framed) -> Record {
    record_of(parse::parse(framed.body.of(arena), want), arena, framed)
}

/// The same for a log that may have annotations.
pub(super) fn read_annotated(
    annotated: Option<&Annotated>,
    want: Fields,
    arena: &mut Vec<u8>,
    framed: Framed,
) -> Record {
    let Some(annotated) = annotated else { return read_record(want, arena, framed) };
    let parsed = annotated.parse(framed.body.of(arena), annotated.wants(want));
    record_of(parsed, arena, framed)
}

/// The record of a framed line that says so much about itself.
#[inline]
pub(super) fn record_of(parsed: Parsed, arena: &mut Vec<u8>, framed: Framed) -> Record {
    let body = framed.body;
    let base = body.start as usize;
    let mut record = Record {
        trace_id: parsed.trace_id,
        span_id: parsed.span_id,
        time_unix_nano: framed.time_unix_nano,
        app_time_unix_nano: parsed.app_time_unix_nano,
        offset: framed.offset,
        body,
        request_id: text(arena, base, parsed.request_id),
        http_method: text(arena, base, parsed.http_method),
        http_route: text(arena, base, parsed.http_route),
        url_path: text(arena, base, parsed.url_path),
        duration_ms: millis(arena, base, parsed.duration, parsed.duration_unit),
        original_len: framed.original_len,
        repeated: 0,
        http_status: parsed.http_status,
        trace_flags: parsed.trace_flags,
        severity: parsed.severity,
        stream: framed.stream,
        marks: framed.marks,
    };
    if record.http_route.is_empty() && !record.url_path.is_empty() {
        record.http_route = route_of(arena, record.url_path);
    }
    record
}

#[inline]
fn text(arena: &mut Vec<u8>, base: usize, text: Text) -> Span {
    let span = text.span.shifted(base);
    if !text.escaped || span.is_empty() {
        return span;
    }
    let escaped = span.of(arena).to_vec();
    let start = arena.len();
    unescape_into(&escaped, arena);
    Span::new(start, arena.len())
}

/// The duration as decimal milliseconds.
#[inline]
fn millis(arena: &mut Vec<u8>, base: usize, duration: Span, unit: DurationUnit) -> Span {
    let span = duration.shifted(base);
    if span.is_empty() || unit == DurationUnit::Millis {
        return span;
    }
    let Some(value) = std::str::from_utf8(span.of(arena)).ok().and_then(|text| text.parse::<f64>().ok())
    else {
        return Span::default();
    };
    let value = match unit {
        DurationUnit::Millis => value,
        DurationUnit::Seconds => value * 1e3,
        DurationUnit::Micros => value / 1e3,
        DurationUnit::Nanos => value / 1e6,
    };
    let start = arena.len();
    // Six decimals are a nanosecond; no exponent, no trailing zeros.
    let text = format!("{value:.6}");
    arena.extend_from_slice(text.trim_end_matches('0').trim_end_matches('.').as_bytes());
    Span::new(start, arena.len())
}

/// The path with its id-like segments replaced by `{id}`, in place when it has none.
fn route_of(arena: &mut Vec<u8>, path: Span) -> Span {
    if !path.of(arena).split(|byte| *byte == b'/').any(is_id) {
        return path;
    }
    let start = arena.len();
    let (mut at, end) = (path.start as usize, (path.start + path.len) as usize);
    loop {
        let len = memchr(b'/', &arena[at..end]).unwrap_or(end - at);
        if is_id(&arena[at..at + len]) {
            arena.extend_from_slice(b"{id}");
        } else {
            arena.extend_from_within(at..at + len);
        }
        at += len;
        if at == end {
            return Span::new(start, arena.len());
        }
        arena.push(b'/');
        at += 1;
    }
}

/// True for `name@host.domain`, the at sign written as it is or as `%40`.
#[cold]
fn is_email(segment: &[u8]) -> bool {
    let at = memchr(b'@', segment).map(|at| (at, at + 1));
    let at = at.or_else(|| memchr::memmem::find(segment, b"%40").map(|at| (at, at + 3)));
    at.is_some_and(|(name, host)| {
        let dot = memchr(b'.', &segment[host..]);
        name > 0 && dot.is_some_and(|dot| dot > 0 && host + dot + 1 < segment.len())
    })
}

/// True for a path segment that names one thing rather than a kind of thing: all digits, a UUID, a long hex
/// string, a long mixture of letters with digits, or an email address.
fn is_id(segment: &[u8]) -> bool {
    let (mut digits, mut ats) = (0, false);
    for byte in segment {
        digits += usize::from(byte.is_ascii_digit());
        ats |= matches!(byte, b'@' | b'%');
    }
    if ats && is_email(segment) {
        return true;
    }
    if digits == 0 {
        return false;
    }
    if digits == segment.len() {
        return true;
    }
    let hex = segment.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    hex && segment.len() >= 8
        || segment.len() >= 16
            && digits >= 4
            && segment.iter().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(b))
}

mod recorder;
#[cfg(test)]
mod tests;
