//! What Loki's answers mean, by their texts.
//!
//! Source: answers recorded from Loki main 65e30f8. Errors of the distributor (age, labels, sizes) drop entries
//! and pass the rest on; an error of the ingester (too far behind, a stream's rate, the number of streams)
//! replaces theirs, and of several failed entries the last one decides the status.

use std::time::Duration;

use crate::data::delivery::Reason;
use crate::sink::{Answer, Lesson, Scope, StreamKey, Verdict};

use super::entry::stream_key;

/// The ingester lists no more refused entries than this.
const LISTED: u64 = 10;
/// Message bytes that are kept.
const MESSAGE: usize = 1024;

const STREAM_RATE: &str = "Per stream rate limit exceeded";
const STREAM_LIMIT: &str = "maximum active stream limit exceeded";
const TENANT_RATE: &str = "ingestion rate limit exceeded";

/// What an answer to a push of `records` records means.
pub(in crate::sink) fn verdict(answer: &Answer, records: u64) -> Verdict {
    let (status, retry_after, body) = match answer {
        Answer::Http { status, retry_after, body } => (*status, *retry_after, body),
        Answer::Grpc { .. } | Answer::Unreachable { .. } => return Verdict::Retry { after: None },
    };
    match status {
        200..=299 => Verdict::Delivered,
        401 | 403 => Verdict::Unauthorized,
        413 => Verdict::Split,
        400 | 422 => refused(&String::from_utf8_lossy(body), records, retry_after),
        // Everything else is about the server or the way to it (a wrong path, a proxy), not about the lines.
        _ => Verdict::Retry { after: retry_after },
    }
}

fn refused(text: &str, records: u64, after: Option<Duration>) -> Verdict {
    // A tenant that Loki does not take says nothing against the lines, nor does a server that is not Loki: a
    // proxy's error page, or a TLS port that was spoken to in plain http.
    let about_tenant = ["tenant ID ", "multiple org IDs present", "no org id"];
    let not_loki = ["<", "Client sent an HTTP request to an HTTPS server"];
    if about_tenant.iter().chain(&not_loki).any(|start| text.trim_start().starts_with(start)) {
        return Verdict::Retry { after };
    }
    let reason = if text.contains("entry too far behind") {
        Reason::TooFarBehind
    } else if text.contains("timestamp too old") {
        Reason::TooOld
    } else if text.contains("timestamp too new") {
        Reason::TooNew
    } else if text.contains("max entry size") || text.contains("structured metadata too large") {
        Reason::TooLarge
    } else {
        Reason::Invalid
    };
    let message = text.trim_end().chars().take(MESSAGE).collect();
    Verdict::Refused { reason, all: concerns_all(text, records), message }
}

/// True when the answer leaves no doubt that every record was refused for good.
fn concerns_all(text: &str, records: u64) -> bool {
    if records == 1 {
        return true;
    }
    // Labels belong to the stream, not to a line.
    let labels = [
        "couldn't parse labels",
        " label names; limit ",
        "has label name too long",
        "has label value too long",
        "has duplicate label name",
    ];
    if labels.iter().any(|part| text.contains(part)) {
        return true;
    }
    if text.contains(STREAM_RATE) || text.contains(STREAM_LIMIT) {
        return false;
    }
    if let Some((ignored, of)) = total_ignored(text) {
        // Entries that are not listed may have been refused for the rate alone.
        return ignored == of && ignored <= LISTED;
    }
    let counted: u64 =
        text.split("; ").filter_map(|part| part.split_once(" errors like: ")?.0.parse::<u64>().ok()).sum();
    counted >= records
}

/// `total ignored: n out of m` of the ingester's last line.
fn total_ignored(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.rsplit_once("total ignored: ")?;
    let (ignored, rest) = rest.split_once(" out of ")?;
    let of = rest.split(' ').next()?;
    Some((ignored.parse().ok()?, of.parse().ok()?))
}

/// What an answer teaches.
pub(in crate::sink) fn lesson(answer: &Answer) -> Lesson {
    let Answer::Http { status: status @ (400 | 429), body, .. } = answer else {
        return Lesson::default();
    };
    let text = String::from_utf8_lossy(body);
    let scope = match () {
        () if *status != 429 => Scope::Endpoint,
        () if text.contains(STREAM_RATE) || text.contains(STREAM_LIMIT) => Scope::Stream,
        () if text.contains(TENANT_RATE) => Scope::Tenant,
        () => Scope::Endpoint,
    };
    let oldest_unix_nano = text
        .match_indices(OLDEST)
        .filter_map(|(at, _)| {
            let rest = &text[at + OLDEST.len()..];
            let time: jiff::Timestamp = rest[..=rest.find('Z')?].parse().ok()?;
            u64::try_from(time.as_nanosecond()).ok()
        })
        .max();
    Lesson {
        scope,
        oldest_unix_nano: oldest_unix_nano.filter(|_| *status == 400),
        stream_rate: stream_rate(&text),
        stream: stream_named(&text),
    }
}

/// The first stream that the text names, as Loki prints label sets: which is how the agent writes them.
fn stream_named(text: &str) -> Option<StreamKey> {
    let start = text.find("stream '{").map(|at| at + "stream '".len());
    let start = start.or_else(|| text.find("for stream: {").map(|at| at + "for stream: ".len()))?;
    let labels = &text[start..];
    let (mut quoted, mut escaped) = (false, false);
    let end = labels.bytes().position(|byte| {
        let closes = byte == b'}' && !quoted;
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some(stream_key(&labels[..=end]))
}

const OLDEST: &str = "oldest acceptable timestamp is: ";

/// `(limit: 3MB/sec)` after the text about a stream's rate.
fn stream_rate(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(STREAM_RATE)?;
    let (limit, _) = rest.strip_prefix(" (limit: ")?.split_once("/sec")?;
    limit.parse::<crate::data::units::ByteSize>().ok().map(|size| size.0).filter(|rate| *rate > 0)
}
