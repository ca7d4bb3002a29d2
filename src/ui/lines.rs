//! Lines for people: `GET /api/tail`, live, and `GET /api/search`, from the node's files.
//!
//! In: a question in the address. Out: one JSON object a record, as the local store has it, as they come: server-sent events
//! for a browser, lines (`format=ndjson`) for a terminal. Invariants: a question that cannot be answered is told what would
//! be one; a stream ends when its client leaves, and when the agent ends; a stream on which nothing happens says so every
//! [`HEARTBEAT`].
//!
//! `ns`, `service`, `pod`, `container`, `selector`, `level`, `trace`, `grep`, `since`, `until`, `limit`, `format`, and for a
//! search `timeout`, for a tail `follow`. Times are RFC 3339, seconds since the epoch, or how long ago: `15m`.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query as Params, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::unfold;
use regex::{Regex, RegexBuilder};
use tokio::time::timeout;

use crate::data::clock;
use crate::data::severity::Severity;
use crate::data::units::Span;
use crate::live::{Hub, Item, VIEWERS};
use crate::search::{self, Query, Refused, Searcher};
use crate::sink::local::Filter;

/// How often a stream on which nothing happens says so.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Lines with which a live tail begins, unless it is asked for others.
pub const LINES: usize = 50;
/// Bytes of a regular expression.
const PATTERN_BYTES: usize = 1 << 10;
/// Bytes of a compiled regular expression, and of what it may keep while it runs.
const COMPILED_BYTES: usize = 1 << 20;
/// Bytes that leave at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The routes of this file.
pub fn routes(hub: Hub, searcher: Searcher) -> Router {
    Router::new()
        .route("/api/tail", get(tail))
        .with_state(hub)
        .merge(Router::new().route("/api/search", get(search)).with_state(searcher))
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Server-sent events.
    Events,
    /// One JSON object a line.
    Lines,
}

/// A question as it was asked.
#[derive(Debug)]
struct Asked {
    filter: Filter,
    limit: Option<usize>,
    timeout: Option<Duration>,
    format: Option<Format>,
    /// A tail goes on when what was there is shown.
    follow: bool,
}

async fn tail(State(hub): State<Hub>, Params(params): Params<Vec<(String, String)>>) -> Response {
    let asked = match read(&params, false, clock::since_epoch()) {
        Ok(asked) => asked,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, &problem),
    };
    let format = asked.format.unwrap_or(Format::Events);
    let lines = asked.limit.unwrap_or(LINES).min(search::MOST);
    let Some(subscription) = hub.subscribe_from(asked.filter, lines) else {
        let text = format!(
            "{VIEWERS} others watch this agent's lines already, or it is about to end; close another tail and try again"
        );
        return busy(StatusCode::TOO_MANY_REQUESTS, &text);
    };
    let follow = asked.follow;
    let stream = unfold((Some(subscription), true), move |(subscription, first)| async move {
        let mut subscription = subscription?;
        if first {
            // The head of the answer goes out with the first bytes.
            return Some((Ok::<_, Infallible>(heartbeat(format)), (Some(subscription), false)));
        }
        let mut chunk = BytesMut::new();
        if !follow {
            // All that is there was there when the hub was asked.
            while let Some(item) = subscription.try_next() {
                write_item(&item, format, &mut chunk);
            }
            chunk.put_slice(&write_end(format));
            return (!chunk.is_empty()).then(|| (Ok(chunk.freeze()), (None, false)));
        }
        match timeout(HEARTBEAT, subscription.next()).await {
            Err(_) => return Some((Ok(heartbeat(format)), (Some(subscription), false))),
            Ok(None) => {
                let end = write_end(format);
                return (!end.is_empty()).then_some((Ok(end), (None, false)));
            }
            Ok(Some(item)) => write_item(&item, format, &mut chunk),
        }
        while chunk.len() < CHUNK_BYTES
            && let Some(item) = subscription.try_next()
        {
            write_item(&item, format, &mut chunk);
        }
        Some((Ok(chunk.freeze()), (Some(subscription), false)))
    });
    respond(format, Body::from_stream(stream))
}

async fn search(State(searcher): State<Searcher>, Params(params): Params<Vec<(String, String)>>) -> Response {
    let asked = match read(&params, true, clock::since_epoch()) {
        Ok(asked) => asked,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, &problem),
    };
    let format = asked.format.unwrap_or(Format::Lines);
    let query = Query {
        filter: asked.filter,
        limit: asked.limit.unwrap_or(search::LIMIT),
        deadline: asked.timeout.unwrap_or(search::DEADLINE),
    };
    let results = match searcher.start(query) {
        Ok(results) => results,
        Err(refused) => {
            let status = match refused {
                Refused::Busy => StatusCode::TOO_MANY_REQUESTS,
                Refused::NotReading | Refused::NoThread => StatusCode::SERVICE_UNAVAILABLE,
            };
            return busy(status, &refused.to_string());
        }
    };
    let stream = unfold(Some(results), move |results| async move {
        let mut results = results?;
        match timeout(HEARTBEAT, results.recv()).await {
            Err(_) => Some((Ok::<_, Infallible>(heartbeat(format)), Some(results))),
            Ok(Some(lines)) if format == Format::Lines => Some((Ok(lines), Some(results))),
            Ok(Some(lines)) => {
                let mut chunk = BytesMut::with_capacity(lines.len() + 64);
                for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    write_line(line, format, &mut chunk);
                }
                Some((Ok(chunk.freeze()), Some(results)))
            }
            Ok(None) => {
                let end = write_end(format);
                (!end.is_empty()).then_some((Ok(end), None))
            }
        }
    });
    respond(format, Body::from_stream(stream))
}

fn respond(format: Format, body: Body) -> Response {
    let kind = match format {
        Format::Events => "text/event-stream",
        Format::Lines => "application/x-ndjson",
    };
    // A proxy in between must not wait for more.
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")];
    (headers, [("x-accel-buffering", "no")], body).into_response()
}

/// An answer that is an error, as JSON.
fn refuse(status: StatusCode, problem: &str) -> Response {
    let body = serde_json::json!({ "error": problem }).to_string();
    (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

fn busy(status: StatusCode, problem: &str) -> Response {
    let mut response = refuse(status, problem);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// Appends one JSON object.
fn write_line(line: &[u8], format: Format, out: &mut BytesMut) {
    if format == Format::Events {
        out.put_slice(b"data: ");
    }
    out.put_slice(line);
    out.put_slice(if format == Format::Events { b"\n\n" } else { b"\n" });
}

fn write_item(item: &Item, format: Format, out: &mut BytesMut) {
    match item {
        Item::Line(line) => write_line(line, format, out),
        Item::Skipped(count) => {
            write_line(serde_json::json!({ "skipped": count }).to_string().as_bytes(), format, out);
        }
    }
}

/// What says that the stream lives.
fn heartbeat(format: Format) -> Bytes {
    Bytes::from_static(match format {
        Format::Events => b": still here\n\n",
        Format::Lines => b"\n",
    })
}

/// The end, for who would come again otherwise.
fn write_end(format: Format) -> Bytes {
    Bytes::from_static(match format {
        Format::Events => b"event: end\ndata: {}\n\n",
        Format::Lines => b"",
    })
}

/// Reads a question. `now` is the time since the epoch. The error says what would be understood.
fn read(params: &[(String, String)], searches: bool, now: Duration) -> Result<Asked, String> {
    let mut asked =
        Asked { filter: Filter::default(), limit: None, timeout: None, format: None, follow: true };
    for (key, value) in params {
        let value = value.trim();
        if value.is_empty() {
            // A form sends what was not filled in.
            continue;
        }
        let text = || Some(value.to_owned());
        let filter = &mut asked.filter;
        match key.as_str() {
            "ns" | "namespace" => filter.namespace = text(),
            "service" => filter.service = text(),
            "pod" => filter.pod = text(),
            "container" => filter.container = text(),
            "selector" => filter.selector = text(),
            "level" => filter.level = Some(level(value)?),
            "trace" => filter.trace = Some(trace(value)?),
            "grep" => filter.grep = Some(pattern(value)?),
            "since" => filter.since_unix_nano = Some(time("since", value, now)?),
            "until" => filter.until_unix_nano = Some(time("until", value, now)?),
            "limit" => asked.limit = Some(limit(value, usize::from(searches))?),
            "format" => {
                asked.format = Some(match value {
                    "sse" => Format::Events,
                    "ndjson" => Format::Lines,
                    _ => return Err(format!("format: {value:?} is none; use sse or ndjson")),
                });
            }
            "follow" if !searches => {
                asked.follow = match value {
                    "yes" | "true" | "1" => true,
                    "no" | "false" | "0" => false,
                    _ => return Err(format!("follow: {value:?} is neither yes nor no")),
                };
            }
            "timeout" if searches => {
                let longest = search::LONGEST;
                let given: Span =
                    value.parse().map_err(|_| format!("timeout: {value:?} is no duration like 10s"))?;
                if given.0 > longest || given.0.is_zero() {
                    return Err(format!(
                        "timeout: {value} is not above 0 and at most {}s",
                        longest.as_secs()
                    ));
                }
                asked.timeout = Some(given.0);
            }
            other => {
                let further = if searches { "timeout" } else { "follow" };
                return Err(format!(
                    "{other:?} is not understood; use ns, service, pod, container, selector, level, trace, grep, \
                     since, until, limit, format, {further}"
                ));
            }
        }
    }
    Ok(asked)
}

fn level(text: &str) -> Result<Severity, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "trace" => Severity::TRACE,
        "debug" => Severity::DEBUG,
        "info" => Severity::INFO,
        "warn" | "warning" => Severity::WARN,
        "error" => Severity::ERROR,
        "fatal" | "critical" => Severity::FATAL,
        _ => {
            return Err(format!("level: {text:?} is none; use trace, debug, info, warn, error or fatal"));
        }
    })
}

fn trace(text: &str) -> Result<String, String> {
    let id = text.trim_end_matches('…').to_ascii_lowercase();
    let valid = (4..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid { Ok(id) } else { Err(format!("trace: {text:?} is no trace id; give 4 to 32 hex digits of it")) }
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > PATTERN_BYTES {
        return Err(format!(
            "grep: the expression is longer than {PATTERN_BYTES} bytes; look for less of it"
        ));
    }
    let built = RegexBuilder::new(text)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .nest_limit(64)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            "grep: the expression is too large; use smaller counts in {…}, or fewer of \\w, \\d".to_owned()
        }
        other => {
            let text = other.to_string();
            let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("grep: {cause}; the syntax is that of Rust's regex crate, without look-around and backreferences")
        }
    })
}

fn limit(text: &str, least: usize) -> Result<usize, String> {
    let most = search::MOST;
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("limit: {text:?} is no number from {least} to {most}"))
}

/// A time in nanoseconds since the epoch.
fn time(key: &str, text: &str, now: Duration) -> Result<u64, String> {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).ok();
    let ago = || text.parse::<Span>().ok().and_then(|ago| nanos(now.saturating_sub(ago.0)));
    let seconds = || {
        let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
        nanos(Duration::try_from_secs_f64(number).ok()?)
    };
    let stamp = || {
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_nanosecond()).ok()
    };
    seconds().or_else(stamp).or_else(ago).ok_or_else(|| {
        format!(
            "{key}: {text:?} is no time; give how long ago (15m), RFC 3339 (2026-11-22T14:51:07Z), or seconds since the epoch"
        )
    })
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
