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
    // `latency` is a duration whose unit each logger has its own idea of: it times the line, and nothing is made of its value.
    let timed = !parsed.duration.is_empty() || has(b"\"latency\":");
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
        let aborted = parsed.http_status == 499 || has(b"\"request aborted\"") || has(b"\"premature close\"");
        return Some(if aborted { Phase::Aborted } else { Phase::Done });
    }
    if !(has_request || timed && joined) {
        return None;
    }
    if !timed
        && [&b"\"err\":"[..], b"\"error\"", b"\"stack", b"\"exc", b"error=", b"err="]
            .iter()
            .any(|key| has(key))
    {
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
        // Spring's client is known by its class; a service may be called so.
        let may_be_service = |client: &[u8]| client == b"webclient" && !value.contains(&b'.');
        LOGGERS.contains(&key)
            && CLIENTS.iter().any(|client| contains_letters(value, client) && !may_be_service(client))
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
        let start =
            line[lowest..end].iter().rposition(|byte| !is_word(byte)).map_or(lowest, |at| lowest + at + 1);
        let value = line[at + 1..].trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let value = &value[..value.len().min(96)];
        let len =
            value.iter().position(|byte| matches!(byte, b'"' | b',' | b'}' | b' ')).unwrap_or(value.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::parse::parse;

    fn told(line: &str) -> Option<(Phase, u16, Option<u64>)> {
        let parsed = parse(line.as_bytes(), WANTS);
        let phase = phase(line.as_bytes(), &parsed).filter(|_| may_be(&parsed))?;
        let duration = parsed.duration.of(line.as_bytes());
        let nanos = (!duration.is_empty()).then(|| nanos(duration, parsed.duration_unit)).flatten();
        Some((phase, parsed.http_status, nanos))
    }

    #[test]
    fn access_lines_of_every_logger_are_requests() {
        for (line, expected) in [
            (
                r#"{"level":30,"req":{"id":1,"method":"GET","url":"/ok/1001","headers":{"user-agent":"axios/1.6"}},"res":{"statusCode":200},"responseTime":59,"msg":"request completed"}"#,
                (Phase::Done, 200, Some(59_000_000)),
            ),
            (
                r#"{"level":50,"req":{"id":2,"method":"GET","url":"/err"},"err":{"type":"Error"},"res":{"statusCode":500},"responseTime":1,"msg":"request errored"}"#,
                (Phase::Done, 500, Some(1_000_000)),
            ),
            (
                r#"{"level":30,"req":{"id":3,"method":"GET","url":"/slow"},"res":{"statusCode":null,"headers":{}},"responseTime":501,"msg":"request aborted"}"#,
                (Phase::Aborted, 0, Some(501_000_000)),
            ),
            (
                r#"{"level":30,"req":{"id":3,"method":"GET","url":"/slow"},"res":{"statusCode":200},"responseTime":501,"msg":"request aborted"}"#,
                (Phase::Aborted, 200, Some(501_000_000)),
            ),
            (
                r#"{"level":30,"reqId":"req-1","req":{"method":"GET","url":"/ok"},"msg":"incoming request"}"#,
                (Phase::Begun, 0, None),
            ),
            (
                r#"{"level":30,"reqId":"req-1","res":{"statusCode":200},"responseTime":67.87902000000031,"msg":"request completed"}"#,
                (Phase::Done, 200, Some(67_879_020)),
            ),
            (
                r#"{"http":{"request":{"method":"GET"},"response":{"status_code":503}},"url":{"path":"/cart"},"event":{"duration":1203000001},"log.level":"error"}"#,
                (Phase::Done, 503, Some(1_203_000_001)),
            ),
            (
                r#"{"time_iso8601":"2026-11-22T14:27:36+00:00","request_method":"GET","request_uri":"/x?y=1","status":499,"request_time":"0.123"}"#,
                (Phase::Aborted, 499, Some(123_000_000)),
            ),
            (
                r#"10.1.2.3 - - [22/Nov/2026:14:27:36 +0000] "GET /items/3 HTTP/1.1" 499 0 "-" "k6/0.49" 431 0.005 [shop-cart-80] [] 10.244.0.12:3000 612 0.004 200 8f14e45fceea167a5a36dedd4bea2543"#,
                (Phase::Aborted, 499, Some(5_000_000)),
            ),
            (
                r#"::1 - - [22/Nov/2026:14:27:36 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8""#,
                (Phase::Done, 200, None),
            ),
            (
                r#"level=info msg="served" method=GET path=/orders/7 status=204 duration=12.5ms"#,
                (Phase::Done, 204, Some(12_500_000)),
            ),
            (
                r#"{"level":"info","logger":"http","msg":"request","method":"POST","path":"/orders","status":201,"latency":"1.5ms"}"#,
                (Phase::Done, 201, Some(1_500_000)),
            ),
            (
                r#"{"event":"request_finished","request_method":"GET","request_path":"/a","status_code":200,"duration_ms":3.25}"#,
                (Phase::Done, 200, Some(3_250_000)),
            ),
        ] {
            assert_eq!(told(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_looks_like_a_request_and_is_none_is_not_counted() {
        for line in [
            r#"{"level":30,"req":{"id":1,"method":"GET","url":"/ok/1001"},"msg":"order placed"}"#,
            r#"{"level":50,"reqId":"req-2","req":{"method":"GET","url":"/err"},"res":{"statusCode":500},"err":{"type":"Error","message":"boom"},"msg":"boom"}"#,
            r#"{"logger":"http.client","method":"GET","url":"/v1/pay","status":200,"duration_ms":12}"#,
            r#"{"name":"httpx","method":"GET","path":"/v1/pay","status_code":200,"duration_ms":12}"#,
            r#"{"msg":"called","method":"GET","url":"https://pay.example/v1","status":200,"duration_ms":12}"#,
            r#"{"span.kind":"client","http.method":"GET","http.route":"/v1","http.status_code":200,"duration_ms":12}"#,
            r#"{"direction":"outbound","http.method":"GET","http.target":"/v1","http.status_code":200}"#,
            r#"{"level":"error","msg":"failed","method":"GET","path":"/x","status":500,"error":"boom"}"#,
            r#"{"msg":"job done","status":200,"duration_ms":4}"#,
            r#"{"msg":"payment","status":402}"#,
            r#"level=info msg=called logger=axios method=GET path=/orders status=200 duration=3ms"#,
            r#"2026/11/22 14:27:36 [error] 29#29: *1 connect() failed, request: "GET / HTTP/1.1""#,
            "GET /x",
            "",
        ] {
            assert_eq!(told(line), None, "{line}");
        }
    }

    #[test]
    fn durations_are_exact_to_the_nanosecond() {
        for (text, unit, expected) in [
            ("0", DurationUnit::Millis, Some(0)),
            ("59", DurationUnit::Millis, Some(59_000_000)),
            ("67.87902000000031", DurationUnit::Millis, Some(67_879_020)),
            ("0.1", DurationUnit::Seconds, Some(100_000_000)),
            ("0.000000001", DurationUnit::Seconds, Some(1)),
            ("1203000001", DurationUnit::Nanos, Some(1_203_000_001)),
            ("12.5", DurationUnit::Micros, Some(12_500)),
            ("99999999999999999999", DurationUnit::Seconds, None),
            ("", DurationUnit::Seconds, None),
            ("1e3", DurationUnit::Seconds, None),
        ] {
            assert_eq!(nanos(text.as_bytes(), unit), expected, "{text}");
        }
    }
}
