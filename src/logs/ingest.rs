//! Turns a chunk of a container log into records: frame, parse, enrich, process.
//!
//! In: the bytes of one read in the batch's arena. Out: records whose text lies in that arena, and how far the
//! chunk was taken. Invariant: the records depend on the log's bytes and the config alone, not on how the bytes
//! were cut into chunks; that makes a replay identical, line by line.

use memchr::memchr;

use super::copies::Copies;
use super::frame::{self, Framed, Framer};
use super::inherit::{self, Inheritance};
use super::parse::{self, DurationUnit, Text, unescape_into};
use super::process::{Chain, Dropped, LogState};
use crate::data::batch::{Fields, Marks, Record, Span};
use crate::data::position::Skipping;
use crate::data::tally::Drops;
use crate::data::workload::Workload;

/// What is the same for all logs.
#[derive(Debug)]
pub struct Settings {
    /// Fields that leave the node.
    pub fields: Fields,
    /// Fields that the parser must find for that.
    pub want: Fields,
    /// Configured processing.
    pub chain: Chain,
    /// Line limit in bytes.
    pub max_line: usize,
}

impl Settings {
    /// Settings for a set of fields to send.
    pub fn new(fields: Fields, chain: Chain, max_line: usize) -> Self {
        let mut want = fields;
        if fields.contains(Fields::TRACE_ID) {
            want = want.with(Fields::REQUEST_ID);
        }
        want = want.with(chain.wants());
        Self { fields, want, chain, max_line }
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
    /// Records framed, before processing dropped any.
    pub framed: u64,
    /// Records that processing dropped.
    pub dropped: u64,
}

/// The state of one container log between chunks.
pub struct LineState {
    framer: Framer,
    copies: Copies,
    inheritance: Inheritance,
    process: LogState,
    /// What processing dropped and nobody has asked for yet.
    dropped: Dropped,
}

impl LineState {
    /// The state at the beginning of a log.
    pub fn new(max_line: usize) -> Self {
        Self {
            framer: Framer::new(max_line),
            copies: Copies::default(),
            inheritance: Inheritance::default(),
            process: LogState::default(),
            dropped: Dropped::default(),
        }
    }

    /// The stretch before a checkpoint is about to be [ingested](Self::ingest) for warmth: nothing counts.
    pub fn begin_warm_up(&mut self) {
        self.process.set_warming_up(true);
    }

    /// Sets the stamp for lines that have none, before the first line that has one.
    pub fn set_first_time(&mut self, time_unix_nano: u64) {
        self.framer.set_first_time(time_unix_nano);
    }

    /// Continues at a checkpoint, after the stretch before it was ingested for warmth.
    pub fn resume(&mut self, skipping: Skipping) {
        self.process.set_warming_up(false);
        self.dropped = Dropped::default();
        self.framer.resume(skipping);
    }

    /// A new generation of the log begins at offset 0. Records that were held back come out.
    pub fn next_generation(&mut self, settings: &Settings, arena: &mut Vec<u8>, records: &mut Vec<Record>) {
        self.close_idle(settings, u64::MAX, arena, records);
        self.framer.next_generation();
        self.inheritance.clear();
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
        self.process.reset();
    }

    /// What processing dropped since this was last asked, for the ledger; `None` when nothing.
    pub fn take_dropped(&mut self) -> Option<Drops> {
        (self.dropped != Dropped::default()).then(|| std::mem::take(&mut self.dropped).into())
    }

    /// True while a line is open that began in an earlier generation.
    pub fn carries(&self) -> bool {
        self.framer.carries()
    }

    /// Stamp of the newest line, 0 before the first.
    pub fn last_time(&self) -> u64 {
        self.framer.last_time()
    }

    /// Where the oldest line begins whose fate is open, with what was being skipped there.
    pub fn pinned(&self) -> Option<(u64, Skipping)> {
        let process = self.process.pinned().map(|offset| (offset, Skipping(0)));
        self.framer.pinned().into_iter().chain(process).min_by_key(|(offset, _)| *offset)
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
        let filled = arena.len();
        let mut taken = Taken::default();
        let mut at = from;
        if self.framer.in_long_line() {
            let Some(newline) = memchr(b'\n', &arena[at..filled]) else {
                self.framer.more(&arena[at..filled], offset);
                taken.bytes = filled - from;
                if let Some(framed) = self.framer.seal_long(arena) {
                    taken.framed += u64::from(!framed.known);
                    taken.dropped += self.record(settings, workload, arena, framed, records);
                }
                return taken;
            };
            self.framer.more(&arena[at..at + newline], offset);
            if let Some(framed) = self.framer.end_long(arena) {
                taken.framed += u64::from(!framed.known);
                taken.dropped += self.record(settings, workload, arena, framed, records);
            }
            at += newline + 1;
        }
        while let Some(len) = memchr(b'\n', &arena[at..filled]) {
            let fragment = frame::fragment(arena, at, at + len, offset + (at - from) as u64);
            if fragment.header.time_unix_nano > horizon {
                taken.at_horizon = true;
                break;
            }
            if let Some(framed) = self.framer.accept(arena, fragment) {
                taken.framed += u64::from(!framed.known);
                taken.dropped += self.record(settings, workload, arena, framed, records);
            }
            at += len + 1;
        }
        // A line that does not fit a read is taken in pieces.
        let patience = frame::patience(&arena[at..filled], settings.max_line);
        if !taken.at_horizon && filled - at > patience {
            self.framer.more(&arena[at..filled], offset + (at - from) as u64);
            at = filled;
        }
        self.copies.leave(arena);
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
            let fragment = frame::fragment(arena, 0, end, offset);
            self.framer.accept(arena, fragment)
        };
        if let Some(framed) = framed {
            self.record(settings, workload, arena, framed, records);
        }
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
            self.record(settings, workload, arena, framed, records);
        }
        self.close_idle(settings, u64::MAX, arena, records);
        self.copies.leave(arena);
    }

    /// Closes what only waits for further lines, once the wall clock says that none can belong to it.
    pub fn close_idle(
        &mut self,
        settings: &Settings,
        now_unix_nano: u64,
        arena: &mut Vec<u8>,
        records: &mut Vec<Record>,
    ) {
        self.dropped += settings.chain.close_idle(&mut self.process, now_unix_nano, arena, records);
    }

    /// Makes the record of a framed line; the number of records that processing dropped.
    #[inline]
    fn record(
        &mut self,
        settings: &Settings,
        workload: &Workload,
        arena: &mut Vec<u8>,
        framed: Framed,
        records: &mut Vec<Record>,
    ) -> u64 {
        let body = framed.body;
        let shift = self.copies.shift(framed.time_unix_nano, arena, body.start, body.start + body.len);
        let mut record = read_record(settings.want, arena, framed);
        record.time_unix_nano += shift;
        if !record.request_id.is_empty() && settings.fields.contains(Fields::TRACE_ID) {
            let request_id = record.request_id.of(arena);
            if let Some(trace) = record.trace_id {
                if !framed.first {
                    self.inheritance.learn(request_id, trace, record.offset);
                }
            } else if let Some(trace) = self.inheritance.recall(request_id, record.offset) {
                record.trace_id = Some(trace);
                record.marks.insert(Marks::TRACE_INHERITED);
            }
        }
        if framed.known {
            return 0;
        }
        if settings.chain.is_noop() {
            records.push(record);
            return 0;
        }
        let dropped = settings.chain.apply(&mut self.process, workload, arena, record, records);
        let count = u64::from(dropped.records());
        if count > 0 {
            self.dropped += dropped;
        }
        count
    }
}

/// What a framed line says about itself, as a record that nothing has been done to.
#[inline]
pub(super) fn read_record(want: Fields, arena: &mut Vec<u8>, framed: Framed) -> Record {
    let body = framed.body;
    let parsed = parse::parse(body.of(arena), want);
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

/// The path with its id-like segments replaced by `:id`, in place when it has none.
fn route_of(arena: &mut Vec<u8>, path: Span) -> Span {
    if !path.of(arena).split(|byte| *byte == b'/').any(is_id) {
        return path;
    }
    let start = arena.len();
    let (mut at, end) = (path.start as usize, (path.start + path.len) as usize);
    loop {
        let len = memchr(b'/', &arena[at..end]).unwrap_or(end - at);
        if is_id(&arena[at..at + len]) {
            arena.extend_from_slice(b":id");
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

/// True for a path segment that names one thing rather than a kind of thing: all digits, a UUID, a long hex
/// string, or a long mixture of letters with digits.
fn is_id(segment: &[u8]) -> bool {
    let digits = segment.iter().filter(|byte| byte.is_ascii_digit()).count();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> String {
        let mut arena = path.as_bytes().to_vec();
        let span = Span::new(0, arena.len());
        let route = route_of(&mut arena, span);
        String::from_utf8(route.of(&arena).to_vec()).expect("UTF-8")
    }

    #[test]
    fn id_like_segments_of_a_path_become_a_template() {
        assert_eq!(route("/healthz"), "/healthz");
        assert_eq!(route("/ok/1001"), "/ok/:id");
        assert_eq!(route("/v1/users/42/orders/"), "/v1/users/:id/orders/");
        assert_eq!(route("/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x"), "/o/:id/x");
        assert_eq!(route("/api/v2/cart"), "/api/v2/cart");
        assert_eq!(route("/s/cus_Na6dX7aXxi11N4"), "/s/:id");
    }

    #[test]
    fn durations_come_out_in_milliseconds() {
        for (text, unit, expected) in [
            ("40.34382299999925", DurationUnit::Millis, "40.34382299999925"),
            ("0.25", DurationUnit::Seconds, "250"),
            ("1203000000", DurationUnit::Nanos, "1203"),
            ("15", DurationUnit::Micros, "0.015"),
            ("junk", DurationUnit::Seconds, ""),
        ] {
            let mut arena = text.as_bytes().to_vec();
            let span = Span::new(0, arena.len());
            let out = millis(&mut arena, 0, span, unit);
            assert_eq!(String::from_utf8_lossy(out.of(&arena)), expected);
        }
    }
}
