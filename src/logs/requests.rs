//! Which log lines are served requests, and what they say of them.
//!
//! In: a framed line with what [`parse`](super::parse) found in it. Out: a [`Request`] for each *access line*, held until
//! the log is counted up to it. Invariant: one line of text in a log is at most one request, whatever processing does to
//! its record, and the rule looks at the line alone.
//!
//! The rule. An access line is what a server writes once for each request that it has answered, or has seen given up:
//! - nginx's and Apache's formats, always;
//! - any line with a response status and a request (method and path or route), or a response status, a duration and a
//!   request id that joins it to another line (fastify's `request completed`);
//! - pino's `res` only beside a duration: fastify's error handler logs `req`, `res` and `err` for a request that
//!   `request completed` tells of too;
//! - a line without a duration that carries an error or a stack tells of the error, not of the request;
//! - never a line of an outgoing call: the logger's name, `span.kind` or a direction says so, or its `url` is absolute.
//!
//! Status 499 and `request aborted` are requests whose client went away. `incoming request` with a request id, a method
//! and a path is the beginning of one.

use memchr::memmem;

use super::frame::Framed;
use super::parse::{DurationUnit, Format, Parsed};
use crate::data::access::{Phase, Request};
use crate::data::batch::{Fields, Record, Span};
use crate::data::position::Position;

/// What the parser must find for the rule to be told.
pub const WANTS: Fields = Fields::HTTP_METHOD
    .with(Fields::HTTP_ROUTE)
    .with(Fields::HTTP_STATUS)
    .with(Fields::DURATION_MS)
    .with(Fields::REQUEST_ID)
    .with(Fields::TRACE_ID);

/// Requests that wait for the end of an earlier line at most, and their text in bytes. Beyond that they are counted
/// all the same, and the line that is open is not.
const HELD: usize = 4096;
const HELD_TEXT: usize = 1 << 20;

/// True when a line may be an access line: what most lines are asked.
#[inline]
pub fn may_be(parsed: &Parsed) -> bool {
    if parsed.http_status == 0 {
        return !parsed.http_method.span.is_empty()
            && (!parsed.url_path.span.is_empty() || !parsed.http_route.span.is_empty());
    }
    !parsed.http_method.span.is_empty() || !parsed.duration.is_empty()
}

/// How the request of a line ended; `None` when the line is no access line. Asked only where it [may be](may_be) one.
pub fn phase(line: &[u8], parsed: &Parsed) -> Option<Phase> {
    let has = |text: &[u8]| memmem::find(line, text).is_some();
    if parsed.format == Format::Access {
        return Some(if parsed.http_status == 499 { Phase::Aborted } else { Phase::Done });
    }
    let has_path = !parsed.url_path.span.is_empty() || !parsed.http_route.span.is_empty();
    let has_request = !parsed.http_method.span.is_empty() && has_path;
    let timed = !parsed.duration.is_empty();
    let joined = !parsed.request_id.span.is_empty();
    let is_res = parsed.format == Format::Json && (has(b"\"res\":") || has(b"\"res\" :"));
    if parsed.http_status == 0 {
        if !has_request {
            return None;
        }
        if is_res {
            return (timed && has(b"request aborted")).then_some(Phase::Aborted);
        }
        return (joined && !timed && has(b"\"incoming request\"")).then_some(Phase::Begun);
    }
    if is_res {
        if !timed || !(has_request || joined) {
            return None;
        }
        let aborted =
            parsed.http_status == 499 || has(b"\"request aborted\"") || has(b"\"premature close\"");
        return Some(if aborted { Phase::Aborted } else { Phase::Done });
    }
    if !has_request && !(timed && joined) {
        return None;
    }
    if !timed && [&b"\"err\":"[..], b"\"error\"", b"\"stack", b"\"exc", b"error=", b"err="].iter().any(|key| has(key)) {
        return None;
    }
    if is_outgoing(line, parsed) {
        return None;
    }
    Some(if parsed.http_status == 499 { Phase::Aborted } else { Phase::Done })
}

/// Keys whose value says who logs.
const LOGGERS: [&[u8]; 16] = [
    b"logger",
    b"logger_name",
    b"loggerName",
    b"log.logger",
    b"name",
    b"module",
    b"component",
    b"context",
    b"category",
    b"SourceContext",
    b"scope",
    b"subsystem",
    b"target",
    b"source",
    b"library",
    b"type",
];

/// What the loggers of HTTP clients are called, in small letters.
const CLIENTS: [&[u8]; 15] = [
    b"http.client",
    b"http-client",
    b"http_client",
    b"httpclient",
    b"axios",
    b"httpx",
    b"urllib3",
    b"undici",
    b"node-fetch",
    b"resttemplate",
    b"webclient",
    b"feign",
    b"okhttp",
    b"aiohttp.client",
    b"superagent",
];

/// Keys that say on which side the line was written, and the value of the client's side.
const SIDES: [(&[u8], &[&[u8]]); 4] = [
    (b"kind", &[b"client", b"producer"]),
    (b"direction", &[b"out", b"egress", b"client"]),
    (b"side", &[b"client"]),
    (b"outgoing", &[b"true"]),
];

/// True when a line tells of a call that its writer made.
fn is_outgoing(line: &[u8], parsed: &Parsed) -> bool {
    if is_absolute(line, parsed.url_path.span) {
        return true;
    }
    values(line).any(|(key, value)| {
        let name = key.rsplit(|byte| *byte == b'.').next().unwrap_or(key);
        if SIDES.iter().any(|(side, values)| {
            (name == *side || key.strip_suffix(*side).is_some_and(|head| head.ends_with(b"_")))
                && values.iter().any(|word| starts_with_letters(value, word))
        }) {
            return true;
        }
        LOGGERS.contains(&key) && CLIENTS.iter().any(|client| contains_letters(value, client))
    })
}

/// `"key":"value"`, `"key":true` and `key=value` of a line, in order; keys of at most 24 bytes.
fn values(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    memchr::memchr2_iter(b':', b'=', line).filter_map(move |at| {
        let mut end = at;
        let quoted = end > 0 && line[end - 1] == b'"';
        end -= usize::from(quoted);
        let lowest = end.saturating_sub(24);
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let start = line[lowest..end].iter().rposition(|byte| !is_word(byte)).map_or(lowest, |at| lowest + at + 1);
        let value = line[at + 1..].trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = &value[..value.len().min(96)];
        let len = value.iter().position(|byte| matches!(byte, b'"' | b',' | b'}' | b' ')).unwrap_or(value.len());
        (start < end).then(|| (&line[start..end], &value[..len]))
    })
}

fn starts_with_letters(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

fn contains_letters(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// True when the path is that of an absolute URL under a bare `url` or `uri`: servers log what they were asked for.
fn is_absolute(line: &[u8], path: Span) -> bool {
    let start = path.start as usize;
    if path.is_empty() || start < 8 {
        return false;
    }
    let head = &line[start.saturating_sub(300)..start];
    let Some(quote) = head.iter().rposition(|byte| matches!(byte, b'"' | b'=' | b' ')) else { return false };
    if quote + 1 == head.len() || memmem::find(&head[quote..], b"//").is_none() {
        return false;
    }
    let key = head[..quote + usize::from(head[quote] == b'=')].trim_ascii_end();
    [&b"\"url\":"[..], b"\"uri\":", b" url=", b" uri="].iter().any(|name| key.ends_with(name))
}

/// A duration as nanoseconds: decimal text, exact to the nanosecond, what is finer cut off.
pub fn nanos(text: &[u8], unit: DurationUnit) -> Option<u64> {
    let digits = match unit {
        DurationUnit::Seconds => 9,
        DurationUnit::Millis => 6,
        DurationUnit::Micros => 3,
        DurationUnit::Nanos => 0,
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..point], text.get(point + 1..).unwrap_or_default());
    if whole.is_empty() {
        return None;
    }
    let fraction = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(digits);
    whole.iter().copied().chain(fraction).try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// The requests of a log that are found and not handed over yet.
#[derive(Debug)]
pub struct Found {
    /// The file that is being read.
    ordinal: u64,
    /// Lines that begin before this were counted: ordinal and offset.
    counted: (u64, u64),
    /// With the ordinal of the file in which the line begins; their text lies in the arena of the read.
    requests: Vec<Request>,
    ordinals: Vec<u64>,
    held: Held,
}

impl Default for Found {
    fn default() -> Self {
        let counted = (u64::MAX, u64::MAX);
        Self { ordinal: 0, counted, requests: Vec::new(), ordinals: Vec::new(), held: Held::default() }
    }
}

/// Requests behind a line that is still open, with their own copy of their text.
#[derive(Debug, Default)]
struct Held {
    requests: Vec<Request>,
    ordinals: Vec<u64>,
    text: Vec<u8>,
}

impl Found {
    /// Says of what file the next lines are, and from where on they are not counted yet: `counted`.
    pub fn arm(&mut self, ordinal: u64, counted: &Position) {
        self.ordinal = ordinal;
        self.counted = (counted.ordinal, counted.offset);
    }

    /// From now on nothing is counted.
    pub fn disarm(&mut self) {
        self.counted = (u64::MAX, u64::MAX);
    }

    /// Takes a line that [may be](may_be) an access line.
    #[inline(never)]
    pub fn take(&mut self, arena: &[u8], framed: &Framed, parsed: &Parsed, record: &Record) {
        let ordinal = self.ordinal.saturating_sub(u64::from(framed.ago));
        if (ordinal, framed.offset) < self.counted {
            return;
        }
        let Some(phase) = phase(framed.body.of(arena), parsed) else { return };
        let duration = parsed.duration.shifted(framed.body.start as usize);
        self.requests.push(Request {
            time_unix_nano: framed.time_unix_nano,
            offset: framed.offset,
            phase,
            method: record.http_method,
            route: record.http_route,
            status: parsed.http_status,
            duration_nano: nanos(duration.of(arena), parsed.duration_unit).filter(|_| !duration.is_empty()),
            request_id: record.request_id,
            trace_id: parsed.trace_id,
        });
        self.ordinals.push(ordinal);
    }

    /// True when nothing was found.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.held.requests.is_empty()
    }

    /// True when more waits for an open line than may.
    pub fn is_full(&self) -> bool {
        self.held.requests.len() + self.requests.len() > HELD || self.held.text.len() > HELD_TEXT
    }

    /// Gives to `hand`, in one call, the requests of lines that begin from `from` on and before `until`, with the text
    /// that they lie in, and keeps what comes later. `arena` has the text of what was found since the last time.
    pub fn hand_over(
        &mut self,
        from: &Position,
        until: &Position,
        arena: &[u8],
        hand: impl FnOnce(&[Request], &[u8]),
    ) {
        let place = |position: &Position| (position.ordinal, position.offset);
        let (from, until) = (place(from), place(until));
        let places = self.ordinals.iter().zip(&self.requests).map(|(of, request)| (*of, request.offset));
        if self.held.requests.is_empty() && places.clone().all(|at| at >= from && at < until) {
            hand(&self.requests, arena);
        } else {
            for (request, ordinal) in self.requests.iter().zip(&self.ordinals) {
                self.held.keep(*request, *ordinal, arena);
            }
            let Held { requests, ordinals, text } = std::mem::take(&mut self.held);
            let mut ready = Vec::new();
            for (request, ordinal) in requests.into_iter().zip(ordinals) {
                let at = (ordinal, request.offset);
                if at >= until {
                    self.held.keep(request, ordinal, &text);
                } else if at >= from {
                    ready.push(request);
                }
            }
            hand(&ready, &text);
        }
        self.requests.clear();
        self.ordinals.clear();
    }
}

impl Held {
    fn keep(&mut self, request: Request, ordinal: u64, text: &[u8]) {
        let mut copy = |span: Span| {
            let start = self.text.len();
            self.text.extend_from_slice(span.of(text));
            Span::new(start, self.text.len())
        };
        let request = Request {
            method: copy(request.method),
            route: copy(request.route),
            request_id: copy(request.request_id),
            ..request
        };
        self.requests.push(request);
        self.ordinals.push(ordinal);
    }
}
