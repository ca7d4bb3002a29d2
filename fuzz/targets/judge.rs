//! What backends answer: any status with any body, for Loki and for OTLP over HTTP and gRPC.
//!
//! In: a body and the status behind it. Properties: data is called delivered only by a success, refused never by a server error
//! that may pass; no more records are refused than were sent; texts that are kept are bounded; a wait is bounded by the message.

use bytes::Bytes;
use nodewick::data::batch::Fields;
use nodewick::sink::loki::Loki;
use nodewick::sink::otlp::judge;
use nodewick::sink::{Answer, Verdict, Wire};

/// Bytes of a backend's message that are kept: 1024 characters of four bytes at most.
const MESSAGE: usize = 4096;

pub(super) fn run(data: &[u8]) {
    let Some((body, [a, b, c])) = super::split_control::<3>(data) else { return };
    let records = u64::from(c) + 1;
    let status = 100 + u16::from_le_bytes([a, b]) % 500;
    let http = Answer::Http { status, retry_after: None, body: Bytes::copy_from_slice(body) };
    let grpc =
        Answer::Grpc { code: i32::from(a % 18), retry_after: None, body: Bytes::copy_from_slice(body) };

    let loki = Loki::new(None, false, Fields::ALL);
    let verdict = loki.judge(&http, records);
    bounded(&verdict, records);
    match status {
        200..=299 => assert_eq!(verdict, Verdict::Delivered),
        401 | 403 => assert_eq!(verdict, Verdict::Unauthorized),
        400 | 422 => assert!(matches!(verdict, Verdict::Refused { .. } | Verdict::Retry { .. })),
        413 => assert_eq!(verdict, Verdict::Split),
        _ => assert!(matches!(verdict, Verdict::Retry { .. }), "{status}: {verdict:?}"),
    }
    let lesson = loki.lesson(&http);
    assert_ne!(lesson.stream_rate, Some(0), "a rate of nothing would stop the stream for ever");
    assert!(lesson.oldest_unix_nano.is_none() || status == 400);

    for is_loki in [false, true] {
        let verdict = judge::judge(&http, records, is_loki).verdict;
        bounded(&verdict, records);
        let success = matches!(verdict, Verdict::Delivered | Verdict::Partial { .. });
        assert_eq!(success, (200..=299).contains(&status), "{status}: {verdict:?}");
        if matches!(status, 429 | 502 | 503 | 504) {
            assert!(matches!(verdict, Verdict::Retry { .. }), "{status}: {verdict:?}");
        }
    }
    let verdict = judge::judge(&grpc, records, false).verdict;
    bounded(&verdict, records);
    let success = matches!(verdict, Verdict::Delivered | Verdict::Partial { .. });
    assert_eq!(success, a % 18 == 0, "{verdict:?}");
    let _ = judge::retry_delay(body);
}

fn bounded(verdict: &Verdict, records: u64) {
    match verdict {
        Verdict::Partial { refused, message } => {
            assert!((1..=records).contains(refused));
            assert!(message.len() <= MESSAGE);
        }
        Verdict::Refused { message, .. } => assert!(message.len() <= MESSAGE),
        _ => {}
    }
}
