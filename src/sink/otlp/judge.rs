//! What an OTLP backend's answer means, by the OTLP specification, and by Loki's habits where it is Loki.
//!
//! In: an [`Answer`]. Out: a [`Verdict`]. Invariant: nothing is called lost that the backend may still take, and
//! what the specification calls final is never sent again unchanged.
//!
//! Three decisions that the specification leaves to us, or that we take against its letter:
//! - an answer that is about the address and not about the data (a redirect, 404, 405, 407, 408, 415, gRPC
//!   UNIMPLEMENTED) is retried, since discarding every line of a node because of a mistyped URL is worse than
//!   waiting for its correction. The breaker shows it;
//! - RESOURCE_EXHAUSTED without `RetryInfo`, which the specification calls final, is retried, since gateways and
//!   quotas send it so; if it says that the message is too large, the request is split;
//! - a 400 that says that the body is too large is split, as the Collector has no 413.
//!
//! Sources: OTLP specification 1.9, "OTLP/gRPC Response", "OTLP/HTTP Response"; answers of the Collector's
//! otlpreceiver 0.153 and of Loki's `/otlp/v1/logs`, as recorded.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;

use crate::data::delivery::Reason;
use crate::sink::{Answer, Verdict, loki};

/// Bytes of a backend's message that are kept.
const MESSAGE_CAP: usize = 1024;

/// A verdict, and the warning that came with a success.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What to do.
    pub verdict: Verdict,
    /// `partial_success` with a message and nothing refused: the backend's word to whoever runs the agent.
    pub warning: Option<String>,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, warning: None }
    }
}

/// What `answer` means for a request of `records` records. `is_loki`: the endpoint is Loki's own.
pub fn judge(answer: &Answer, records: u64, is_loki: bool) -> Judgement {
    match answer {
        Answer::Unreachable { .. } => Verdict::Retry { after: None }.into(),
        Answer::Grpc { code: 0, body, .. } => accepted(body, records),
        Answer::Grpc { code, retry_after, body } => {
            grpc(*code, *retry_after, clipped(&String::from_utf8_lossy(body))).into()
        }
        Answer::Http { status: 200..=299, body, .. } => accepted(body, records),
        Answer::Http { .. } if is_loki => loki::judge::verdict(&as_push(answer), records).into(),
        Answer::Http { status, retry_after, body } => {
            http(*status, *retry_after, clipped(&status_message(body))).into()
        }
    }
}

fn accepted(body: &[u8], records: u64) -> Judgement {
    let partial = ExportLogsServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
    let Some(partial) = partial else {
        return Verdict::Delivered.into();
    };
    let refused = u64::try_from(partial.rejected_log_records).unwrap_or(0).min(records);
    let message = clipped(&partial.error_message);
    if refused > 0 {
        return Verdict::Partial { refused, message }.into();
    }
    Judgement { verdict: Verdict::Delivered, warning: (!message.is_empty()).then_some(message) }
}

fn http(status: u16, after: Option<Duration>, message: String) -> Verdict {
    match status {
        429 | 502 | 503 | 504 => Verdict::Retry { after },
        300..=399 | 404 | 405 | 407 | 408 | 415 => Verdict::Retry { after },
        401 | 403 => Verdict::Unauthorized,
        413 => Verdict::Split,
        400 if is_too_large(&message) => Verdict::Split,
        _ => Verdict::Refused { reason: Reason::Invalid, all: false, message },
    }
}

/// gRPC status codes by number: `google/rpc/code.proto`.
fn grpc(code: i32, after: Option<Duration>, message: String) -> Verdict {
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 10 | 11 | 14 | 15 => Verdict::Retry { after },
        // RESOURCE_EXHAUSTED
        8 if after.is_none() && is_too_large(&message) => Verdict::Split,
        8 => Verdict::Retry { after },
        // UNIMPLEMENTED
        12 => Verdict::Retry { after },
        // PERMISSION_DENIED, UNAUTHENTICATED
        7 | 16 => Verdict::Unauthorized,
        _ => Verdict::Refused { reason: Reason::Invalid, all: false, message },
    }
}

fn is_too_large(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("larger than max") || message.contains("body too large")
}

/// The same answer as Loki's push endpoint gives it: its OTLP endpoint has the same statuses and texts, wrapped in a
/// protobuf `Status`, and 503 for some 500.
pub fn as_push(answer: &Answer) -> Answer {
    match answer {
        Answer::Http { status, retry_after, body } if *status >= 400 => {
            Answer::Http { status: *status, retry_after: *retry_after, body: status_message(body).into() }
        }
        other => other.clone(),
    }
}

/// `google.rpc.Status`, as far as it is read. Source: `google/rpc/status.proto`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`. Source: `google/rpc/error_details.proto`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The delay that the details of a gRPC status (`grpc-status-details-bin`, already decoded from base64) ask for.
/// A `RetryInfo` without a delay asks for none beyond our own.
pub fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = Status::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo")).map(
        |detail| RetryInfo::decode(detail.value.as_slice()).unwrap_or_default().delay.unwrap_or_default(),
    )?;
    let seconds = u64::try_from(info.seconds).unwrap_or(0);
    Some(Duration::new(seconds, u32::try_from(info.nanos).unwrap_or(0).min(999_999_999)))
}

/// What an error body says: the message of a protobuf `Status`, else the text itself.
fn status_message(body: &[u8]) -> String {
    if let Ok(status) = Status::decode(body)
        && !status.message.is_empty()
    {
        return status.message;
    }
    String::from_utf8_lossy(body).trim_end().to_owned()
}

/// At most [`MESSAGE_CAP`] bytes, of both ends.
fn clipped(text: &str) -> String {
    if text.len() <= MESSAGE_CAP {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(MESSAGE_CAP * 3 / 4);
    let tail = text.ceil_char_boundary(text.len() - MESSAGE_CAP / 4);
    format!("{} … {}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    fn http_answer(status: u16, body: &[u8]) -> Answer {
        Answer::Http { status, retry_after: None, body: Bytes::copy_from_slice(body) }
    }

    fn grpc_answer(code: i32, after: Option<u64>, message: &str) -> Answer {
        let retry_after = after.map(Duration::from_secs);
        Answer::Grpc { code, retry_after, body: Bytes::copy_from_slice(message.as_bytes()) }
    }

    fn verdict(answer: &Answer) -> Verdict {
        judge(answer, 10, false).verdict
    }

    fn loki_verdict(status: u16, message: &str) -> Verdict {
        let mut body = vec![0x12, 0x80 | (message.len() & 0x7f) as u8, (message.len() >> 7) as u8];
        body.extend_from_slice(message.as_bytes());
        judge(&http_answer(status, &body), 10, true).verdict
    }

    fn refused(reason: Reason, all: bool, message: &str) -> Verdict {
        Verdict::Refused { reason, all, message: message.to_owned() }
    }

    fn partial(rejected: i64, message: &str) -> Vec<u8> {
        let partial_success = Some(ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: message.to_owned(),
        });
        ExportLogsServiceResponse { partial_success }.encode_to_vec()
    }

    #[test]
    fn success_is_read_to_its_end() {
        assert_eq!(verdict(&http_answer(200, &[0x0a, 0])), Verdict::Delivered);
        assert_eq!(verdict(&http_answer(204, b"")), Verdict::Delivered);
        assert_eq!(verdict(&http_answer(200, b"<html>")), Verdict::Delivered);
        let some = Verdict::Partial { refused: 3, message: "too old".to_owned() };
        assert_eq!(verdict(&http_answer(200, &partial(3, "too old"))), some);
        let body = Bytes::from(partial(3, "too old"));
        assert_eq!(verdict(&Answer::Grpc { code: 0, retry_after: None, body }), some);
        let all = Verdict::Partial { refused: 10, message: String::new() };
        assert_eq!(verdict(&http_answer(200, &partial(4_000, ""))), all);
        let hint = judge(&http_answer(200, &partial(0, "deprecated")), 10, false);
        assert_eq!(hint, Judgement { verdict: Verdict::Delivered, warning: Some("deprecated".to_owned()) });
        assert_eq!(verdict(&http_answer(200, &partial(-1, ""))), Verdict::Delivered);
    }

    #[test]
    fn http_retries_what_the_specification_lists() {
        for status in [429, 502, 503, 504] {
            let after = Some(Duration::from_secs(7));
            let answer = Answer::Http { status, retry_after: after, body: Bytes::new() };
            assert_eq!(verdict(&answer), Verdict::Retry { after });
        }
        let unreachable = Answer::Unreachable { error: "reset".to_owned() };
        assert_eq!(verdict(&unreachable), Verdict::Retry { after: None });
    }

    #[test]
    fn http_refusals_of_the_collector_are_final() {
        // code 13, as the Collector answers for a permanent error
        let body = b"\x08\x0d\x12\x23Permanent error: injected permanent";
        let message = "Permanent error: injected permanent";
        assert_eq!(verdict(&http_answer(500, body)), refused(Reason::Invalid, false, message));
        assert_eq!(
            verdict(&http_answer(400, b"\x08\x03\x12\x0cproto: wrong")),
            refused(Reason::Invalid, false, "proto: wrong")
        );
        assert_eq!(verdict(&http_answer(501, b"no\n")), refused(Reason::Invalid, false, "no"));
        let too_large = b"\x08\x03\x12\x1ehttp: request body too large..";
        assert_eq!(verdict(&http_answer(400, too_large)), Verdict::Split);
        assert_eq!(verdict(&http_answer(413, b"")), Verdict::Split);
        for status in [401, 403] {
            assert_eq!(verdict(&http_answer(status, b"")), Verdict::Unauthorized);
        }
    }

    #[test]
    fn a_wrong_address_loses_nothing() {
        for status in [301, 307, 404, 405, 407, 415] {
            assert_eq!(verdict(&http_answer(status, b"404 page not found")), Verdict::Retry { after: None });
        }
        assert_eq!(verdict(&grpc_answer(12, None, "unknown service")), Verdict::Retry { after: None });
    }

    #[test]
    fn grpc_codes_follow_the_specification() {
        for code in [1, 4, 8, 10, 11, 14, 15] {
            let after = Some(Duration::from_secs(2));
            assert_eq!(verdict(&grpc_answer(code, Some(2), "x")), Verdict::Retry { after }, "{code}");
        }
        assert_eq!(verdict(&grpc_answer(14, None, "x")), Verdict::Retry { after: None });
        assert_eq!(verdict(&grpc_answer(8, None, "quota")), Verdict::Retry { after: None });
        for text in [
            "grpc: received message larger than max (5242905 vs. 4194304)",
            "SERVER: Received message larger than max (5242905 vs. 4194304)",
        ] {
            assert_eq!(verdict(&grpc_answer(8, None, text)), Verdict::Split);
        }
        for code in [7, 16] {
            assert_eq!(verdict(&grpc_answer(code, None, "x")), Verdict::Unauthorized);
        }
        for code in [2, 3, 5, 6, 9, 13, 99, -1] {
            assert_eq!(verdict(&grpc_answer(code, None, "bad")), refused(Reason::Invalid, false, "bad"));
        }
    }

    #[test]
    fn lokis_refusals_are_read_from_their_texts() {
        let behind = "entry with timestamp 2026-11-22 13:42:13.12453584 +0000 UTC ignored, reason: 'entry too far \
            behind, entry timestamp is: 2026-11-22T13:42:13Z, oldest acceptable timestamp is: \
            2026-11-22T14:42:13Z',\nuser 'fake', total ignored: 10 out of 10 for stream: {case=\"3a\"}";
        assert_eq!(loki_verdict(400, behind), refused(Reason::TooFarBehind, true, behind));
        let some = behind.replace("10 out of 10", "2 out of 10");
        assert_eq!(loki_verdict(400, &some), refused(Reason::TooFarBehind, false, &some));
        let other = behind.replace("10 out of 10", "10 out of 11");
        assert_eq!(loki_verdict(400, &other), refused(Reason::TooFarBehind, false, &other));
        for (text, reason, all) in [
            (
                "2 errors like: entry for stream '{a=\"b\"}' has timestamp too old: 2026-11-15T15:41:13Z",
                Reason::TooOld,
                false,
            ),
            (
                "entry for stream '{a=\"b\"}' has timestamp too new: 2026-11-22T15:57:13Z",
                Reason::TooNew,
                false,
            ),
            (
                "max entry size '262144' bytes exceeded for stream '{a=\"b\"}' while adding an entry",
                Reason::TooLarge,
                false,
            ),
            ("entry for stream '{a=\"b\"}' has 17 label names; limit 15", Reason::Invalid, true),
        ] {
            let text = format!("{text:130}.");
            assert_eq!(loki_verdict(400, &text), refused(reason, all, &text));
        }
        for (status, text) in
            [(503, "empty ring"), (500, "empty ring"), (429, "ingestion rate limit exceeded")]
        {
            assert_eq!(loki_verdict(status, &format!("{text:130}")), Verdict::Retry { after: None });
        }
        assert_eq!(judge(&http_answer(401, b"no org id"), 1, true).verdict, Verdict::Unauthorized);
    }

    #[test]
    fn retry_info_is_found_among_the_details() {
        // Status{8, "slow down", [Any{x}, Any{RetryInfo{3.5 s}}]}, as protobuf writes it
        let info = RetryInfo { delay: Some(Delay { seconds: 3, nanos: 500_000_000 }) };
        assert_eq!(info.encode_to_vec(), b"\x0a\x08\x08\x03\x10\x80\xca\xb5\xee\x01");
        let detail = |url: &str, value| Detail { type_url: url.to_owned(), value };
        let details = vec![
            detail("type.googleapis.com/google.rpc.DebugInfo", Vec::new()),
            detail("type.googleapis.com/google.rpc.RetryInfo", info.encode_to_vec()),
        ];
        let status = Status { code: 8, message: "slow down".to_owned(), details };
        assert_eq!(retry_delay(&status.encode_to_vec()), Some(Duration::from_millis(3500)));
        let without = Status { details: Vec::new(), ..status };
        assert_eq!(retry_delay(&without.encode_to_vec()), None);
        assert_eq!(retry_delay(b"\xff\xff"), None);
    }

    #[test]
    fn long_messages_keep_both_ends() {
        let text = format!("{}é{}", "a".repeat(3000), "z".repeat(3000));
        let short = clipped(&text);
        assert!(short.len() < 1100 && short.starts_with("aaa") && short.ends_with("zzz"));
    }
}
