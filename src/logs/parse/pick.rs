//! Chooses among everything that a line offers: validates values, ranks their sources, fills [`Parsed`].
//!
//! In: values with the reading that [`super::keys`] gives them, in any order. Out: one [`Parsed`].
//! Invariant: a value that is not usable (junk id, unknown level, status 7) counts as absent, so a lower-ranked
//! usable one serves; of usable ones the best rank wins wherever it stands, and at equal rank the last.

use super::keys::{Entry, WEAK};
use super::unescape::unescape_short;
use super::{DurationUnit, Parsed, Text, http, ids, pairs, severity, time};
use crate::data::batch::{Fields, Span};
use crate::data::severity::Severity;
use crate::data::trace::{SpanId, TraceId};

/// What a value is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    Nothing,
    /// A level word, or a number of pino's scale.
    Level,
    /// A level word of Serilog, whose Verbose is the finest.
    LevelSerilog,
    /// OpenTelemetry's number.
    SeverityNumber,
    /// Logback's `level_value`.
    LevelLogback,
    /// Python's `levelno`.
    LevelPython,
    /// `@t`: with `@mt` the mark of Serilog's compact format, where an absent level means Information.
    SerilogTime,
    SerilogTemplate,
    TraceHex,
    TraceGcp,
    Traceparent,
    TraceXray,
    TraceB3,
    TraceDatadog,
    SpanHex,
    SpanDatadog,
    TraceFlags,
    Sampled,
    RequestId,
    Method,
    Url,
    Route,
    Status,
    Millis,
    Seconds,
    Micros,
    Nanos,
    /// A duration with its unit: `12.5ms`.
    WithUnit,
    Time,
}

/// The fields by which HTTP is recognised: each is evidence for the others.
const HTTP: Fields =
    Fields::HTTP_METHOD.with(Fields::HTTP_ROUTE).with(Fields::HTTP_STATUS).with(Fields::DURATION_MS);
const TRACE: Fields = Fields::TRACE_ID.with(Fields::SPAN_ID);

/// Fields that are read together, since one decides whether another counts.
#[inline]
pub(super) const fn closure(want: Fields) -> Fields {
    let mut all = want;
    if want.intersects(TRACE) {
        all = all.with(TRACE);
    }
    if want.intersects(HTTP) {
        all = all.with(HTTP);
    }
    all
}

impl Pick {
    /// The fields it can serve.
    pub(super) const fn serves(self) -> Fields {
        match self {
            Self::Nothing => Fields::NONE,
            Self::Level
            | Self::LevelSerilog
            | Self::SeverityNumber
            | Self::LevelLogback
            | Self::LevelPython
            | Self::SerilogTime
            | Self::SerilogTemplate => Fields::LEVEL,
            Self::TraceHex
            | Self::TraceGcp
            | Self::Traceparent
            | Self::TraceXray
            | Self::TraceB3
            | Self::TraceDatadog
            | Self::SpanHex
            | Self::SpanDatadog
            | Self::TraceFlags
            | Self::Sampled => TRACE,
            Self::RequestId => Fields::REQUEST_ID,
            Self::Method
            | Self::Url
            | Self::Route
            | Self::Status
            | Self::Millis
            | Self::Seconds
            | Self::Micros
            | Self::Nanos
            | Self::WithUnit => HTTP,
            Self::Time => Fields::APP_TIME,
        }
    }

    /// True for trace and span ids, flags and request ids: what may be picked out of running text.
    pub(super) const fn is_id(self) -> bool {
        self.serves().intersects(TRACE.with(Fields::REQUEST_ID))
    }

    /// True for levels.
    pub(super) const fn is_level(self) -> bool {
        self.serves().intersects(Fields::LEVEL)
    }

    const fn goal(self) -> Goal {
        match self {
            Self::TraceHex
            | Self::TraceGcp
            | Self::Traceparent
            | Self::TraceXray
            | Self::TraceB3
            | Self::TraceDatadog => Goal::Trace,
            Self::SpanHex | Self::SpanDatadog => Goal::Span,
            Self::TraceFlags | Self::Sampled => Goal::Flags,
            Self::RequestId => Goal::Request,
            Self::Method => Goal::Method,
            Self::Url => Goal::Url,
            Self::Route => Goal::Route,
            Self::Status => Goal::Status,
            Self::Millis | Self::Seconds | Self::Micros | Self::Nanos | Self::WithUnit => Goal::Duration,
            Self::Time => Goal::Time,
            _ => Goal::Severity,
        }
    }
}

/// The members of [`Parsed`] that ranks are kept for.
#[derive(Clone, Copy)]
enum Goal {
    Severity,
    Trace,
    Span,
    Flags,
    Request,
    Method,
    Url,
    Route,
    Status,
    Duration,
    Time,
}
const GOALS: usize = 11;
/// Nothing was found yet.
const NONE: u8 = u8::MAX;
/// Ranks below any in the table: what a line's own syntax says (klog header, access log) beats pairs in it.
pub(super) const SYNTAX: u8 = 0;

/// Longest request id that is taken, bytes. Longer ones are tokens or payloads.
const MAX_REQUEST_ID: usize = 256;
/// Longest URL and route that is taken, bytes.
const MAX_URL: usize = 2048;

/// A value in a line.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// A string: its raw text, and whether escapes are in it.
    Str(&'a [u8], bool),
    /// A number of JSON.
    Num(&'a [u8]),
    /// A word without quotes in text: string or number.
    Bare(&'a [u8]),
    True,
    False,
    Null,
}

/// Collects one line's values.
pub(super) struct Picks<'a> {
    line: &'a [u8],
    /// Fields to look at, closed under [`closure`].
    pub(super) want: Fields,
    pub(super) out: Parsed,
    ranks: [u8; GOALS],
    /// The best traceparent: it lends its span id and flags when the record is of the same trace.
    parent: Option<(TraceId, SpanId, u8)>,
    parent_rank: u8,
    serilog: u8,
    /// What was taken from where, while somebody asks.
    seen: Option<&'a mut Vec<Seen>>,
}

/// A value that was taken; a later one for the same field stands before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) pick: Pick,
    pub(super) rank: u8,
    /// Where it stands in the line.
    pub(super) span: Span,
}

impl<'a> Picks<'a> {
    #[inline]
    pub(super) fn new(line: &'a [u8], want: Fields) -> Self {
        Self {
            line,
            want: closure(want),
            out: Parsed::default(),
            ranks: [NONE; GOALS],
            parent: None,
            parent_rank: NONE,
            serilog: 0,
            seen: None,
        }
    }

    /// From now on, what is taken is written down in `seen`.
    pub(super) fn note_in(mut self, seen: &'a mut Vec<Seen>) -> Self {
        self.seen = Some(seen);
        self
    }

    /// The line that is read.
    #[inline]
    pub(super) fn line(&self) -> &'a [u8] {
        self.line
    }

    /// Forgets everything that was offered.
    #[cold]
    pub(super) fn reset(&mut self) {
        let seen = self.seen.take();
        *self = Self { seen, ..Self::new(self.line, self.want) };
        if let Some(seen) = &mut self.seen {
            seen.clear();
        }
    }

    /// Offers a value under each reading of its key.
    #[inline]
    pub(super) fn offer(&mut self, entry: &Entry, value: Value<'a>) {
        for &(pick, rank) in &entry.picks {
            if pick == Pick::Nothing {
                break;
            }
            self.offer_as(pick, rank, value);
        }
    }

    /// Offers a value under one reading.
    pub(super) fn offer_as(&mut self, pick: Pick, rank: u8, value: Value<'a>) {
        let goal = pick.goal() as usize;
        if rank > self.ranks[goal] || !self.want.intersects(pick.serves()) {
            return;
        }
        if self.take(pick, rank, value) {
            self.ranks[goal] = rank;
            if self.seen.is_some() {
                self.note(pick, rank, value);
            }
        }
    }

    #[cold]
    fn note(&mut self, pick: Pick, rank: u8, value: Value<'a>) {
        let span = match value {
            Value::Str(text, _) | Value::Num(text) | Value::Bare(text) => self.span(text),
            Value::True | Value::False | Value::Null => Span::default(),
        };
        if let Some(seen) = &mut self.seen {
            seen.push(Seen { pick, rank, span });
        }
    }

    /// Takes a value before all others of its kind. True when it is usable.
    pub(super) fn prefer(&mut self, pick: Pick, value: Value<'a>) -> bool {
        let taken = self.want.intersects(pick.serves()) && self.take(pick, SYNTAX, value);
        if taken {
            self.ranks[pick.goal() as usize] = SYNTAX;
            if self.seen.is_some() {
                self.note(pick, SYNTAX, value);
            }
        }
        taken
    }

    /// True when the value is usable and was taken.
    fn take(&mut self, pick: Pick, rank: u8, value: Value<'a>) -> bool {
        match pick {
            Pick::Nothing => false,
            Pick::Level | Pick::LevelSerilog => self.take_level(pick, value),
            Pick::SeverityNumber => {
                self.take_severity(digits(value).map_or(0, |n| if n <= 24 { n as u8 } else { 0 }))
            }
            Pick::LevelLogback => {
                self.take_severity(digits(value).map_or(0, |n| severity::from_logback(n).number()))
            }
            Pick::LevelPython => {
                self.take_severity(digits(value).map_or(0, |n| severity::from_python(n).number()))
            }
            Pick::SerilogTime => {
                self.serilog |= 1;
                false
            }
            Pick::SerilogTemplate => {
                self.serilog |= 2;
                false
            }
            Pick::TraceHex
            | Pick::TraceGcp
            | Pick::TraceXray
            | Pick::TraceB3
            | Pick::Traceparent
            | Pick::TraceDatadog
            | Pick::SpanHex
            | Pick::SpanDatadog => match value {
                Value::Str(text, false) | Value::Bare(text) => self.take_id(pick, rank, text),
                Value::Str(text, true) => self.take_escaped_id(pick, rank, text),
                // Datadog writes decimal ids as strings or numbers.
                Value::Num(text) if matches!(pick, Pick::TraceDatadog | Pick::SpanDatadog) => {
                    self.take_id(pick, rank, text)
                }
                _ => false,
            },
            Pick::TraceFlags => {
                let flags = match value {
                    Value::Str(text, false) | Value::Bare(text) => ids::flags_hex(text),
                    Value::Num(_) => digits(value).and_then(|n| u8::try_from(n).ok()),
                    _ => None,
                };
                flags.inspect(|flags| self.out.trace_flags = *flags).is_some()
            }
            Pick::Sampled => {
                let sampled = match value {
                    Value::True => true,
                    Value::False => false,
                    Value::Str(text, false) | Value::Bare(text) if text.eq_ignore_ascii_case(b"true") => true,
                    Value::Str(text, false) | Value::Bare(text) if text.eq_ignore_ascii_case(b"false") => {
                        false
                    }
                    _ => return false,
                };
                self.out.trace_flags = u8::from(sampled);
                true
            }
            Pick::RequestId => match value {
                Value::Str(text, escaped)
                    if !text.is_empty() && text.len() <= MAX_REQUEST_ID && text != b"-" =>
                {
                    self.out.request_id = Text { span: self.span(text), escaped };
                    true
                }
                Value::Num(text) | Value::Bare(text)
                    if !text.is_empty() && text.len() <= MAX_REQUEST_ID && text != b"-" =>
                {
                    self.out.request_id = Text { span: self.span(text), escaped: false };
                    true
                }
                _ => false,
            },
            Pick::Method => match value {
                Value::Str(text, false) | Value::Bare(text)
                    if http::is_method(text) && (rank < WEAK || http::is_known_method(text)) =>
                {
                    self.out.http_method = Text { span: self.span(text), escaped: false };
                    true
                }
                _ => false,
            },
            Pick::Url => match value {
                Value::Str(text, _) | Value::Bare(text) if text.len() <= MAX_URL => {
                    let path = http::path_of(text);
                    if path.is_empty() {
                        return false;
                    }
                    let escaped = matches!(value, Value::Str(_, true)) && path.contains(&b'\\');
                    self.out.url_path = Text { span: self.span(path), escaped };
                    true
                }
                _ => false,
            },
            Pick::Route => match value {
                Value::Str(text, escaped) if text.len() <= MAX_URL && http::is_route(text) => {
                    self.out.http_route = Text { span: self.span(text), escaped };
                    true
                }
                Value::Bare(text) if text.len() <= MAX_URL && http::is_route(text) => {
                    self.out.http_route = Text { span: self.span(text), escaped: false };
                    true
                }
                _ => false,
            },
            Pick::Status => match digits(value) {
                Some(status @ 100..=599) => {
                    self.out.http_status = status as u16;
                    true
                }
                _ => false,
            },
            Pick::Millis => self.take_duration(value, DurationUnit::Millis),
            Pick::Seconds => self.take_duration(value, DurationUnit::Seconds),
            Pick::Micros => self.take_duration(value, DurationUnit::Micros),
            Pick::Nanos => self.take_duration(value, DurationUnit::Nanos),
            Pick::WithUnit => match value {
                Value::Str(text, false) | Value::Bare(text) => match http::duration_with_unit(text) {
                    Some((number, unit)) => self.set_duration(number, unit),
                    None => false,
                },
                _ => false,
            },
            Pick::Time => {
                let time = match value {
                    Value::Num(text) => time::from_number(text),
                    Value::Str(text, false) => time::from_text(text),
                    Value::Bare(text) => time::from_text(text).or_else(|| time::from_number(text)),
                    _ => None,
                };
                time.inspect(|time| self.out.app_time_unix_nano = *time).is_some()
            }
        }
    }

    #[cold]
    fn take_escaped_id(&mut self, pick: Pick, rank: u8, text: &[u8]) -> bool {
        unescape_short(text, &mut [0; 192]).is_some_and(|text| self.take_id(pick, rank, text))
    }

    #[inline]
    fn take_id(&mut self, pick: Pick, rank: u8, text: &[u8]) -> bool {
        let trace = match pick {
            Pick::SpanHex => return set(&mut self.out.span_id, ids::span_hex(text)),
            Pick::SpanDatadog => return set(&mut self.out.span_id, ids::span_datadog(text)),
            Pick::TraceHex => ids::trace_hex(text),
            Pick::TraceGcp => ids::trace_gcp(text),
            Pick::TraceXray => ids::trace_xray(text),
            Pick::TraceB3 => ids::trace_b3(text),
            Pick::TraceDatadog => ids::trace_datadog(text),
            _ => {
                let Some((trace, span, flags)) = ids::traceparent(text) else { return false };
                if rank <= self.parent_rank {
                    self.parent_rank = rank;
                    self.parent = Some((trace, span, flags));
                }
                Some(trace)
            }
        };
        set(&mut self.out.trace_id, trace)
    }

    fn take_level(&mut self, pick: Pick, value: Value<'a>) -> bool {
        let mut buffer = [0; 32];
        let severity = match value {
            Value::Num(_) => digits(value).map_or(Severity::UNSPECIFIED, severity::from_pino),
            // winston colours the word even within JSON.
            _ => match plain(value, &mut buffer).map(pairs::without_colours) {
                Some(word) if pick == Pick::LevelSerilog => severity::from_serilog(word),
                Some(word) => severity::from_word(word),
                None => Severity::UNSPECIFIED,
            },
        };
        self.take_severity(severity.number())
    }

    pub(super) fn take_severity(&mut self, number: u8) -> bool {
        if number != 0 {
            self.out.severity = Severity::new(number);
        }
        number != 0
    }

    /// Takes a level that the line's own form gives.
    pub(super) fn take_level_word(&mut self, number: u8) {
        if self.take_severity(number) {
            self.ranks[Goal::Severity as usize] = SYNTAX;
        }
    }

    fn take_duration(&mut self, value: Value<'a>, unit: DurationUnit) -> bool {
        match value {
            Value::Num(text) | Value::Str(text, false) | Value::Bare(text) if http::is_decimal(text) => {
                self.set_duration(text, unit)
            }
            _ => false,
        }
    }

    fn set_duration(&mut self, number: &[u8], unit: DurationUnit) -> bool {
        self.out.duration = self.span(number);
        self.out.duration_unit = unit;
        true
    }

    /// Where a part of the line stands in it.
    fn span(&self, part: &[u8]) -> Span {
        let start = part.as_ptr().addr() - self.line.as_ptr().addr();
        Span::new(start, start + part.len())
    }

    /// True once a level was taken.
    pub(super) fn has_severity(&self) -> bool {
        self.ranks[Goal::Severity as usize] != NONE
    }

    /// Settles what depends on several values.
    #[inline]
    pub(super) fn finish(mut self) -> Parsed {
        if let Some((trace, span, flags)) = self.parent
            && self.out.trace_id == Some(trace)
        {
            if self.out.span_id.is_none() {
                self.out.span_id = Some(span);
            }
            if self.ranks[Goal::Flags as usize] == NONE {
                self.out.trace_flags = flags;
            }
        }
        if self.serilog == 3 && !self.has_severity() && self.want.intersects(Fields::LEVEL) {
            self.out.severity = Severity::INFO;
        }
        let [method, url] = [self.ranks[Goal::Method as usize], self.ranks[Goal::Url as usize]];
        if (method >= WEAK && method != NONE) || (url >= WEAK && url != NONE) {
            self.settle_weak(method, url);
        }
        self.out
    }

    /// `method` and `path` mean many things; they are HTTP's only beside each other, a status or a route.
    #[cold]
    fn settle_weak(&mut self, method: u8, url: u8) {
        let other = self.out.http_status != 0 || !self.out.http_route.span.is_empty();
        if method >= WEAK && !other && url == NONE {
            self.out.http_method = Text::default();
        }
        if url >= WEAK && !other && method == NONE {
            self.out.url_path = Text::default();
        }
    }
}

fn set<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    if value.is_some() {
        *place = value;
        return true;
    }
    false
}

/// Text of a string or bare word, without escapes; `None` for other values and for text longer than the buffer.
fn plain<'b>(value: Value<'b>, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    match value {
        Value::Str(text, false) | Value::Bare(text) => Some(text),
        Value::Str(text, true) => unescape_short(text, buffer),
        _ => None,
    }
}

/// A small non-negative whole number, as number or as text.
fn digits(value: Value<'_>) -> Option<u32> {
    match value {
        Value::Num(text) | Value::Str(text, false) | Value::Bare(text) if (1..=9).contains(&text.len()) => {
            let mut number = 0_u32;
            for byte in text {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    return None;
                }
                number = number * 10 + u32::from(digit);
            }
            Some(number)
        }
        _ => None,
    }
}
