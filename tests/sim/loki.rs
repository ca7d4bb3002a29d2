//! A Loki without sockets and clocks: bodies in, the answers of a real one out.
//!
//! Statuses and texts are those that Loki main 65e30f8 was recorded to give. What matters for losing lines is
//! modelled: an entry is stored once per timestamp, line and metadata of a stream; nothing more than 60 minutes behind
//! its stream's newest is taken; rates of streams and of the tenant; the last stream of a request decides its answer,
//! so that a 204 can hide refusals.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use nodewick::sink::Answer;
use xxhash_rust::xxh3::xxh3_64;

use crate::chance::note;
use crate::world::{BASE, SECOND};

const HOUR: u64 = 3600 * SECOND;

/// Loki's push messages, from `pkg/push/push.proto`.
pub mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        pub streams: Vec<Stream>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Stream {
        #[prost(string, tag = "1")]
        pub labels: String,
        #[prost(message, repeated, tag = "2")]
        pub entries: Vec<Entry>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(message, optional, tag = "1")]
        pub timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        pub line: String,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<Pair>,
    }
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Pair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
}

/// What is refused. The default is Loki's.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A stream over its rate is refused as a whole (Loki's default), or entry by entry.
    pub shard_streams: bool,
    /// Bytes per second and burst of a stream.
    pub stream_rate: (f64, f64),
    /// Bytes per second and burst of a tenant.
    pub tenant_rate: (f64, f64),
    pub max_streams: usize,
    pub max_line: usize,
    /// Compressed bytes.
    pub max_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shard_streams: true,
            stream_rate: (3.0 * 1048576.0, 15.0 * 1048576.0),
            tenant_rate: (4.0 * 1048576.0, 6.0 * 1048576.0),
            max_streams: 5000,
            max_line: 262_144,
            max_body: 100 << 20,
        }
    }
}

/// An entry that came through.
#[derive(Debug)]
pub struct Received {
    pub labels: String,
    pub time: u64,
    pub line: String,
    pub metadata: Vec<(String, String)>,
    /// It was not there before.
    pub fresh: bool,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: u64,
}

impl Bucket {
    fn allow(&mut self, (rate, burst): (f64, f64), bytes: usize, now: u64) -> bool {
        let passed = now.saturating_sub(self.at) as f64 / 1e9;
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.at = now;
        let fits = bytes as f64 <= self.tokens;
        if fits {
            self.tokens -= bytes as f64;
        }
        fits
    }
}

#[derive(Debug)]
struct Stream {
    newest: u64,
    known: HashSet<u64>,
    rate: Bucket,
}

#[derive(Debug, Default)]
pub struct Loki {
    pub limits: Limits,
    streams: BTreeMap<String, Stream>,
    tenant: Option<Bucket>,
    /// Everything that came through since it was last looked at.
    pub received: Vec<Received>,
    /// Answers by status, for the figures.
    pub statuses: HashMap<u16, u64>,
    /// Streams that were refused behind a 204.
    pub masked: u64,
}

type Reply = (u16, String);
type Entries = Vec<(u64, String, Vec<(String, String)>)>;

/// The answer with a text, as Loki ends it.
pub fn answer(status: u16, text: &str) -> Answer {
    let body = if status == 204 { Bytes::new() } else { Bytes::from(format!("{text}\n")) };
    Answer::Http { status, retry_after: None, body }
}

/// Decodes a push.
pub fn decode(body: &[u8]) -> wire::PushRequest {
    let raw = snap::raw::Decoder::new().decompress_vec(body).expect("the agent sends snappy blocks");
    prost::Message::decode(raw.as_slice()).expect("the agent sends push requests")
}

fn size(entry: &(u64, String, Vec<(String, String)>)) -> usize {
    entry.1.len() + entry.2.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

impl Loki {
    /// Takes a push at `now`.
    pub fn push(&mut self, request: wire::PushRequest, compressed: usize, now: u64) -> Answer {
        let streams: Vec<_> = request.streams.iter().map(|s| (s.labels.len(), s.entries.len())).collect();
        let (status, text) = self.decide(request, compressed, now).err().unwrap_or((204, String::new()));
        note(|| {
            let text: String = text.chars().take(300).collect();
            format!("{:>11.6} loki: {status} {text:?} to {} B, {streams:?}", now as f64 / 1e9, compressed)
        });
        *self.statuses.entry(status).or_default() += 1;
        answer(status, &text)
    }

    fn decide(&mut self, request: wire::PushRequest, compressed: usize, now: u64) -> Result<(), Reply> {
        let limits = self.limits;
        if compressed > limits.max_body {
            let max = limits.max_body;
            return Err((
                413,
                format!("request body too large: message size too large than max ({compressed} vs {max})"),
            ));
        }
        if request.streams.is_empty() {
            return Err((422, "error at least one valid stream is required for ingestion".to_owned()));
        }
        // A rule in front of Loki: one bad line and nothing of the request passes.
        if request.streams.iter().flat_map(|s| &s.entries).any(|entry| entry.line.contains("POISON")) {
            return Err((400, "request blocked: a line matches rule 941100".to_owned()));
        }
        let (accepted, complaint) = self.distribute(request, limits, now)?;
        let mut result = Ok(());
        let count = accepted.len();
        for (at, (labels, entries)) in accepted.into_iter().enumerate() {
            if !entries.is_empty() {
                let one = self.ingest(labels, entries, limits, now);
                self.masked += u64::from(one.is_err() && at + 1 < count);
                result = one;
            }
        }
        result?;
        complaint.map_or(Ok(()), Err)
    }

    /// Age and sizes: what does not pass is dropped, the rest goes on.
    fn distribute(
        &mut self,
        request: wire::PushRequest,
        limits: Limits,
        now: u64,
    ) -> Result<(Vec<(String, Entries)>, Option<Reply>), Reply> {
        let wall = BASE + now;
        let oldest = wall - 7 * 24 * HOUR;
        let mut errors: Vec<((usize, &str), usize, String)> = Vec::new();
        let mut accepted = Vec::new();
        let (mut lines, mut bytes) = (0, 0);
        for (index, stream) in request.streams.into_iter().enumerate() {
            let name = stream.labels;
            let mut complain = |kind: &'static str, text: String| match errors
                .iter_mut()
                .find(|(key, ..)| *key == (index, kind))
            {
                Some((_, count, _)) => *count += 1,
                None => errors.push(((index, kind), 1, text)),
            };
            let mut entries = Vec::new();
            for entry in stream.entries {
                let stamp = entry.timestamp.unwrap_or_default();
                let time = (stamp.seconds as u64).wrapping_mul(SECOND).wrapping_add(stamp.nanos as u64);
                if time < oldest {
                    complain(
                        "old",
                        format!(
                            "entry for stream '{name}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
                            rfc3339(time),
                            rfc3339(oldest)
                        ),
                    );
                } else if time > wall + 600 * SECOND {
                    complain(
                        "new",
                        format!("entry for stream '{name}' has timestamp too new: {}", rfc3339(time)),
                    );
                } else if entry.line.len() > limits.max_line {
                    complain(
                        "size",
                        format!(
                            "max entry size '{}' bytes exceeded for stream '{name}' while adding an entry with length '{}' bytes",
                            limits.max_line,
                            entry.line.len()
                        ),
                    );
                } else {
                    let metadata = entry.metadata.into_iter().map(|pair| (pair.name, pair.value)).collect();
                    let entry = (time, entry.line, metadata);
                    lines += 1;
                    bytes += size(&entry);
                    entries.push(entry);
                }
            }
            accepted.push((name, entries));
        }
        let tenant = self.tenant.get_or_insert_with(|| Bucket { tokens: limits.tenant_rate.1, at: now });
        if !tenant.allow(limits.tenant_rate, bytes, now) {
            return Err((
                429,
                format!(
                    "ingestion rate limit exceeded for user fake (limit: {:.0} bytes/sec) while attempting to ingest '{lines}' lines totaling '{bytes}' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased",
                    limits.tenant_rate.0
                ),
            ));
        }
        let complaint = match errors.as_slice() {
            [] => None,
            [(_, 1, text)] => Some((400, text.clone())),
            many => {
                let texts: Vec<_> =
                    many.iter().map(|(_, n, text)| format!("{n} errors like: {text}")).collect();
                Some((400, texts.join("; ")))
            }
        };
        Ok((accepted, complaint))
    }

    fn ingest(&mut self, name: String, entries: Entries, limits: Limits, now: u64) -> Result<(), Reply> {
        if !self.streams.contains_key(&name) && self.streams.len() >= limits.max_streams {
            return Err((
                429,
                format!(
                    "maximum active stream limit exceeded when trying to create stream {name}, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'fake'"
                ),
            ));
        }
        let stream = self.streams.entry(name.clone()).or_insert_with(|| Stream {
            newest: 0,
            known: HashSet::new(),
            rate: Bucket { tokens: limits.stream_rate.1, at: now },
        });
        let total = entries.len();
        let rate_text = |bytes: usize| {
            format!(
                "Per stream rate limit exceeded (limit: {}/sec) while attempting to ingest for stream '{name}' totaling {}, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased",
                byte_text(limits.stream_rate.0 as usize),
                byte_text(bytes)
            )
        };
        // Time, status and reason of each refused entry.
        let mut failed: Vec<(u64, u16, String)> = Vec::new();
        let mut taken = Vec::new();
        let mut newest = stream.newest;
        for entry in entries {
            let (time, bytes) = (entry.0, size(&entry));
            if !limits.shard_streams && !stream.rate.allow(limits.stream_rate, bytes, now) {
                failed.push((time, 429, rate_text(bytes)));
            } else if time + HOUR < newest {
                failed.push((
                    time,
                    400,
                    format!(
                        "entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}",
                        rfc3339(time),
                        rfc3339(newest - HOUR)
                    ),
                ));
            } else {
                newest = newest.max(time);
                taken.push(entry);
            }
        }
        let sum: usize = taken.iter().map(size).sum();
        if limits.shard_streams && !stream.rate.allow(limits.stream_rate, sum, now) {
            failed = taken.drain(..).map(|entry| (entry.0, 429, rate_text(size(&entry)))).collect();
            newest = stream.newest;
        }
        stream.newest = newest;
        for (time, line, metadata) in taken {
            let mut key = Vec::with_capacity(line.len() + 64);
            key.extend_from_slice(&time.to_le_bytes());
            key.extend_from_slice(line.as_bytes());
            for (name, value) in &metadata {
                key.extend([&b"\0"[..], name.as_bytes(), b"\0", value.as_bytes()].concat());
            }
            let fresh = stream.known.insert(xxh3_64(&key));
            self.received.push(Received { labels: name.clone(), time, line, metadata, fresh });
        }
        let Some((_, status, _)) = failed.last() else { return Ok(()) };
        let mut text = String::new();
        for (time, _, reason) in failed.iter().take(10) {
            text.push_str(&format!("entry with timestamp {} ignored, reason: '{reason}',\n", go_time(*time)));
        }
        text.push_str(&format!(
            "user 'fake', total ignored: {} out of {total} for stream: {name}",
            failed.len()
        ));
        Err((*status, text))
    }
}

fn timestamp(time: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time)).expect("in range")
}

/// Go's `time.RFC3339`: whole seconds.
fn rfc3339(time: u64) -> String {
    timestamp(time / SECOND * SECOND).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Go's `Time.String()` in UTC: trailing zeros of the fraction are cut.
fn go_time(time: u64) -> String {
    let fraction = format!("{:09}", time % SECOND);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction} +0000 UTC", timestamp(time).strftime("%Y-%m-%d %H:%M:%S"))
}

/// Loki's byte sizes: the largest unit of 1024 that leaves at least one.
fn byte_text(bytes: usize) -> String {
    for (unit, name) in [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")] {
        if bytes >= unit {
            let value = format!("{:.1}", bytes as f64 / unit as f64);
            return format!("{}{name}", value.trim_end_matches(".0"));
        }
    }
    format!("{bytes}B")
}
