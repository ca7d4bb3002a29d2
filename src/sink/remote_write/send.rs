//! Sends what waits, a request at a time for each shard, and decides by the answers.
//!
//! In: sealed requests. Out: posts; counts; words for whoever asks why samples wait. Invariants: a shard's requests arrive
//! in order; the same is sent again only when nothing is wrong with it; how often one request is halved is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::buffer::{Buffer, Sealed};
use super::judge::{self, Verdict, explain, judge};
use super::meter::Reason;
use super::recode::Opened;
use super::{Counts, Protocol, Version};
use crate::data::clock;
use crate::sink::http::Client;
use crate::sink::{Answer, said};

const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
pub(super) const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

/// First wait before another try. Source: Prometheus' `min_backoff`.
const FIRST_WAIT: Duration = Duration::from_millis(30);
/// Longest wait in the first minute. Source: Prometheus' `max_backoff`.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// Longest wait after it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Requests that one refused request may be divided into. One bad series among 5,000 takes 26.
const HALVINGS: u32 = 128;
/// Answers of 500 to one request after which it is divided: perhaps it is one series.
const SUSPECT: u32 = 5;
/// A receiver that spoke version 1 is asked again whether it speaks version 2 after this long.
const ASK_AGAIN: Duration = Duration::from_secs(3600);
/// Tries without success after which the sink counts as down.
const DOWN_AFTER: u32 = 3;
/// How often what waits too long is looked for.
const TICK: Duration = Duration::from_secs(1);

/// The sending half of a sink.
pub(super) struct Sender {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) tenant: Option<HeaderValue>,
    pub(super) protocol: Protocol,
    pub(super) buffer: Arc<Buffer>,
    pub(super) standing: Standing,
}

/// What was last said of the receiver.
#[derive(Debug, Default)]
pub(super) struct Standing {
    failures: AtomicU32,
    down: AtomicBool,
    /// The refusal that was warned of last.
    refusal: Mutex<String>,
}

/// A request, or a part of one.
struct Piece {
    body: Bytes,
    version: Version,
    counts: Counts,
    /// It was made of the other version already.
    converted: bool,
}

impl Sender {
    /// Sends until the buffer is closed and empty, or `kill` is cancelled.
    pub(super) async fn run(self, shards: usize, kill: CancellationToken) {
        let all = futures_util::future::join_all((0..shards).map(|shard| self.shard(shard)));
        tokio::select! {
            () = kill.cancelled() => {}
            _ = all => {}
            () = self.tick() => {}
            () = self.negotiate() => {}
        }
        self.buffer.end();
    }

    async fn tick(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.buffer.expire();
        }
    }

    /// Asks a receiver with an empty request whether it speaks version 2, until it says so or not, and once in a while
    /// again. Nothing is lost by asking: version 1 reads nothing in it.
    async fn negotiate(&self) {
        let mut tries = 0;
        loop {
            if self.protocol == Protocol::Auto && self.buffer.version() == Version::V1 {
                match self.ask().await {
                    Some(speaks) => {
                        tries = 0;
                        if speaks {
                            tracing::info!(sink = %self.name, "the receiver speaks remote_write 2.0");
                            self.buffer.set_version(Version::V2);
                        }
                    }
                    None => {
                        tries += 1;
                        tokio::time::sleep(wait(tries, Duration::from_secs(120))).await;
                        continue;
                    }
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Whether the receiver speaks version 2; `None` when it cannot be told now.
    async fn ask(&self) -> Option<bool> {
        let empty = snap::raw::Encoder::new().compress_vec(&[0x22, 0]).ok()?;
        let (answer, headers) = self.post(Version::V2, Bytes::from(empty)).await;
        match answer {
            Answer::Http { status: 200..=299, .. } => Some(judge::written(&headers).is_some()),
            Answer::Http { status: 401 | 403 | 429 | 500..=599, .. } => None,
            Answer::Http { .. } => Some(false),
            _ => None,
        }
    }

    async fn post(&self, version: Version, body: Bytes) -> (Answer, HeaderMap) {
        let mut headers = headers(version);
        headers.extend(self.tenant.clone().map(|tenant| (TENANT, tenant)));
        self.client.post_with_headers(headers, body).await
    }

    async fn shard(&self, shard: usize) {
        while let Some(sealed) = self.buffer.next(shard).await {
            let bytes = sealed.body.len() as u64;
            self.deliver(shard, sealed).await;
            self.buffer.done(shard, bytes);
        }
    }

    /// Sends a request until all of it is settled.
    async fn deliver(&self, shard: usize, sealed: Sealed) {
        let begun = Instant::now();
        let mut halvings = 0;
        // Parts that come later in the request lie deeper.
        let mut pieces = vec![Piece {
            body: sealed.body,
            version: sealed.version,
            counts: sealed.counts,
            converted: false,
        }];
        let mut passed = false;
        while let Some(mut piece) = pieces.pop() {
            let (mut tries, mut errors) = (0, 0);
            loop {
                let sent = Instant::now();
                self.buffer.meter.sent(piece.body.len());
                let (answer, headers) = self.post(piece.version, piece.body.clone()).await;
                let took = sent.elapsed();
                let verdict = judge(piece.version, &piece.counts, &answer, &headers);
                let meter = &self.buffer.meter;
                if let Verdict::Retry { perhaps_poisoned: true, .. } = verdict {
                    errors += 1;
                    if errors >= SUSPECT {
                        if halvings < HALVINGS
                            && let Some(halves) = halves(&piece)
                        {
                            meter.answered(took, "split");
                            halvings += 1;
                            pieces.extend(halves);
                            break;
                        }
                        if passed {
                            meter.answered(took, "refused");
                            self.refused(shard, Reason::Refused, &piece.counts, &answer);
                            break;
                        }
                    }
                }
                match verdict {
                    Verdict::Delivered => {
                        meter.answered(took, "delivered");
                        self.buffer.delivered(shard, &piece.counts);
                        self.is_up();
                        passed = true;
                        break;
                    }
                    Verdict::Partial(written) => {
                        meter.answered(took, "refused");
                        let written = Counts { newest_unix_ms: piece.counts.newest_unix_ms, ..written };
                        let written = written.at_most(&piece.counts);
                        self.buffer.delivered(shard, &written);
                        self.refused(shard, Reason::Refused, &piece.counts.minus(&written), &answer);
                        self.is_up();
                        break;
                    }
                    Verdict::Retry { .. } | Verdict::Unauthorized => {
                        meter.answered(took, "retry");
                        tries += 1;
                        self.is_failing(&answer);
                        // Metadata comes again by itself.
                        if piece.counts.all() == 0 {
                            break;
                        }
                        if self.buffer.is_too_old(sealed.born) {
                            self.buffer.lost(shard, Reason::TooOld, &piece.counts);
                            break;
                        }
                        let mut pause = wait(tries, begun.elapsed());
                        if let Verdict::Retry { after: Some(after), .. } = verdict {
                            pause = pause.max(after);
                        }
                        tokio::time::sleep(pause).await;
                        self.buffer.meter.retried(&piece.counts);
                    }
                    Verdict::OtherVersion => {
                        meter.answered(took, "retry");
                        let other = piece.version.other();
                        if self.protocol != Protocol::Auto || piece.converted || piece.counts.all() == 0 {
                            self.refused(shard, Reason::Unsupported, &piece.counts, &answer);
                            break;
                        }
                        let Some(opened) = Opened::new(piece.version, &piece.body) else {
                            self.refused(shard, Reason::Unsupported, &piece.counts, &answer);
                            break;
                        };
                        if self.buffer.version() == piece.version {
                            tracing::info!(sink = %self.name, from = ?piece.version, to = ?other, "the receiver does not speak this version of remote_write");
                            self.buffer.set_version(other);
                        }
                        piece.body = Bytes::from(opened.converted());
                        piece.version = other;
                        piece.converted = true;
                    }
                    Verdict::Split => match halves(&piece) {
                        Some(halves) => {
                            meter.answered(took, "split");
                            pieces.extend(halves);
                            break;
                        }
                        None => {
                            meter.answered(took, "refused");
                            self.refused(shard, Reason::TooLarge, &piece.counts, &answer);
                            break;
                        }
                    },
                    Verdict::Refused { bisect } => {
                        self.is_up();
                        let parts = if bisect && halvings < HALVINGS { halves(&piece) } else { None };
                        match parts {
                            Some(parts) => {
                                meter.answered(took, "split");
                                halvings += 1;
                                pieces.extend(parts);
                            }
                            None => {
                                meter.answered(took, "refused");
                                self.refused(shard, Reason::Refused, &piece.counts, &answer);
                            }
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Counts what was refused, and warns when it is for another reason than the last time.
    fn refused(&self, shard: usize, reason: Reason, counts: &Counts, answer: &Answer) {
        self.buffer.lost(shard, reason, counts);
        let error = explain(answer);
        said::note(&self.name, &error);
        // Times and values in the receiver's words change with each sample, its reason does not.
        let kind: String = error.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        let mut last = self.standing.refusal.lock();
        if *last != kind {
            *last = kind;
            tracing::warn!(
                sink = %self.name, endpoint = self.client.shown_url(), reason = reason.name(), samples = counts.all(), %error,
                "the receiver refused samples for good; they are dropped and counted"
            );
        }
    }

    fn is_up(&self) {
        self.standing.failures.store(0, Ordering::Relaxed);
        if self.standing.down.swap(false, Ordering::Relaxed) {
            self.buffer.meter.up(true);
            tracing::info!(sink = %self.name, endpoint = self.client.shown_url(), "sink is back");
        }
    }

    fn is_failing(&self, answer: &Answer) {
        let error = explain(answer);
        said::note(&self.name, &error);
        let failures = self.standing.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= DOWN_AFTER && !self.standing.down.swap(true, Ordering::Relaxed) {
            self.buffer.meter.up(false);
            tracing::warn!(sink = %self.name, endpoint = self.client.shown_url(), %error, "sink is down, retrying");
        }
    }
}

/// What every request of a version says of itself.
pub(super) fn headers(version: Version) -> HeaderMap {
    let (content_type, number) = match version {
        Version::V1 => ("application/x-protobuf", "0.1.0"),
        Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    headers.insert(VERSION, HeaderValue::from_static(number));
    headers
}

/// The halves of a piece, the first one last; `None` when it is one series, or cannot be read.
fn halves(piece: &Piece) -> Option<[Piece; 2]> {
    let opened = Opened::new(piece.version, &piece.body).filter(|opened| opened.len() > 1)?;
    let [first, second] = opened.halves().map(|body| {
        let counts = Opened::new(piece.version, &body).map(|opened| opened.counts()).unwrap_or_default();
        Piece { body: Bytes::from(body), version: piece.version, counts, converted: piece.converted }
    });
    Some([second, first])
}

/// How long to wait before try `tries + 1` of a request that has been tried for `since`: exponential, with jitter.
fn wait(tries: u32, since: Duration) -> Duration {
    let longest = if since > Duration::from_secs(60) { LONGEST_WAIT } else { LONG_WAIT };
    let exact = FIRST_WAIT.saturating_mul(1 << (tries - 1).min(20)).min(longest);
    // Jitter needs no secrecy: the clock's low digits.
    let now = clock::since_epoch();
    let part = f64::from(now.subsec_nanos() % 1024) / 1024.0;
    exact.mul_f64(0.75 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_30_ms_to_5_s_and_later_to_30_s() {
        for (tries, since, least, most) in
            [(1, 0, 22, 38), (2, 0, 45, 75), (9, 1, 3_750, 6_250), (50, 61, 22_500, 37_500)]
        {
            let wait = wait(tries, Duration::from_secs(since)).as_millis();
            assert!((least..=most).contains(&wait), "{tries}: {wait}");
        }
    }
}
