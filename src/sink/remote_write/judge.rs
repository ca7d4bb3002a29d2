//! What a receiver's answer means for a request. Pure.
//!
//! Sources: the remote write specifications 1.0 and 2.0, and the receivers of Prometheus, Mimir, Thanos (409) and
//! VictoriaMetrics as they are written.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use super::{Counts, Version};
use crate::sink::Answer;

/// Longest wait that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

const SAMPLES: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS: HeaderName = HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The receiver has all of it.
    Delivered,
    /// It has what it counts here; the rest is refused for good.
    Partial(Counts),
    /// The same again, later.
    Retry {
        /// How long the receiver asked us to wait.
        after: Option<Duration>,
        /// It answered 500: a receiver that says so of one series says so for ever.
        perhaps_poisoned: bool,
    },
    /// The credential was refused: it is read again, then the same is sent again.
    Unauthorized,
    /// Too large: in halves.
    Split,
    /// It does not speak this version.
    OtherVersion,
    /// Something in it will never be taken.
    Refused {
        /// It may be one series among many.
        bisect: bool,
    },
}

/// What a receiver of version 2 says that it has written; `None` when it says nothing of it.
pub(super) fn written(headers: &HeaderMap) -> Option<Counts> {
    let read = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let (samples, histograms, exemplars) = (read(&SAMPLES), read(&HISTOGRAMS), read(&EXEMPLARS));
    if samples.is_none() && histograms.is_none() && exemplars.is_none() {
        return None;
    }
    Some(Counts {
        samples: samples.unwrap_or(0),
        histograms: histograms.unwrap_or(0),
        exemplars: exemplars.unwrap_or(0),
        newest_unix_ms: 0,
    })
}

/// What `answer` means for a request with `sent` in it.
pub(super) fn judge(version: Version, sent: &Counts, answer: &Answer, headers: &HeaderMap) -> Verdict {
    let Answer::Http { status, retry_after, .. } = answer else {
        return Verdict::Retry { after: None, perhaps_poisoned: false };
    };
    let after = retry_after.map(|after| after.min(LONGEST_ASKED));
    let written = if version == Version::V2 { written(headers) } else { None };
    match status {
        200..=299 => match (version, written) {
            (Version::V1, _) => Verdict::Delivered,
            // It read an empty request of version 1 in it.
            (Version::V2, None) => Verdict::OtherVersion,
            (Version::V2, Some(written)) if written.covers(sent) => Verdict::Delivered,
            // Success and nothing written contradict each other: some count wrongly (Mimir before Kafka, Cortex for what it
            // has from a replica). Version 1 has no such doubt, and equal samples are stored once.
            (Version::V2, Some(written)) if written.all() == 0 => Verdict::OtherVersion,
            (Version::V2, Some(written)) => Verdict::Partial(written),
        },
        401 | 403 => Verdict::Unauthorized,
        413 => Verdict::Split,
        415 => Verdict::OtherVersion,
        429 => Verdict::Retry { after, perhaps_poisoned: false },
        500..=599 => Verdict::Retry { after, perhaps_poisoned: *status == 500 },
        _ => match written {
            // It has written the good ones.
            Some(written) if written.all() > 0 => Verdict::Partial(written),
            _ => Verdict::Refused { bisect: matches!(status, 400 | 409 | 422) },
        },
    }
}

/// An answer for people: at most 200 characters of what the receiver said.
pub(super) fn explain(answer: &Answer) -> String {
    match answer {
        Answer::Http { status, body, .. } => {
            let said: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
            if said.is_empty() { format!("status {status}") } else { format!("status {status}: {said}") }
        }
        Answer::Grpc { code, .. } => format!("gRPC status {code}"),
        Answer::Unreachable { error } => error.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderValue;

    fn verdict(version: Version, status: u16, samples: Option<&'static str>) -> Verdict {
        let answer = Answer::Http {
            status,
            retry_after: Some(Duration::from_secs(4000)),
            body: Bytes::from_static(b"words"),
        };
        let mut headers = HeaderMap::new();
        if let Some(samples) = samples {
            headers.insert(SAMPLES, HeaderValue::from_static(samples));
        }
        judge(version, &Counts { samples: 10, ..Counts::default() }, &answer, &headers)
    }

    #[test]
    fn answers_mean_what_the_specifications_say() {
        use Verdict::*;
        let later = |perhaps_poisoned| Retry { after: Some(Duration::from_secs(300)), perhaps_poisoned };
        for (version, status, samples, expected) in [
            (Version::V1, 204, None, Delivered),
            (Version::V1, 200, Some("0"), Delivered),
            (Version::V1, 400, None, Refused { bisect: true }),
            (Version::V1, 409, None, Refused { bisect: true }),
            (Version::V1, 404, None, Refused { bisect: false }),
            (Version::V1, 413, None, Split),
            (Version::V1, 415, None, OtherVersion),
            (Version::V1, 429, None, later(false)),
            (Version::V1, 503, None, later(false)),
            (Version::V1, 500, None, later(true)),
            (Version::V1, 401, None, Unauthorized),
            (Version::V1, 403, None, Unauthorized),
            (Version::V2, 204, Some("10"), Delivered),
            (Version::V2, 204, None, OtherVersion),
            (Version::V2, 204, Some("0"), OtherVersion),
            (Version::V2, 400, Some("0"), Refused { bisect: true }),
            (Version::V2, 400, None, Refused { bisect: true }),
        ] {
            assert_eq!(verdict(version, status, samples), expected, "{version:?} {status} {samples:?}");
        }
        let some = Counts { samples: 9, ..Counts::default() };
        assert_eq!(verdict(Version::V2, 400, Some("9")), Partial(some));
        assert_eq!(verdict(Version::V2, 204, Some(" 9 ")), Partial(some));
        let none = Answer::Unreachable { error: "gone".to_owned() };
        let nothing = judge(Version::V1, &Counts::default(), &none, &HeaderMap::new());
        assert_eq!(nothing, Retry { after: None, perhaps_poisoned: false });
    }
}
