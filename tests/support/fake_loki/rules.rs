//! What a Loki does with a decoded push, without sockets and without a clock of its own.
//!
//! In: a push, its tenant and the time. Out: status and text as Loki main 65e30f8 was recorded to give them, and every
//! entry that it takes. The fake server drives it by the real clock, the simulation by its own.
#![allow(dead_code, unreachable_pub, reason = "each user uses a part of it")]

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher as _;

#[path = "text.rs"]
mod text;

use text::{byte_text, go_time, parse_labels, print_labels, rfc3339};

const SECOND: i128 = 1_000_000_000;
const HOUR: i128 = 3600 * SECOND;

/// A status and its text.
pub type Reply = (u16, String);

/// Streams with what passed, in the request's order.
type Accepted = Vec<(String, Vec<Entry>)>;

/// What the fake refuses. The default is Loki's.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Wants `X-Scope-OrgID`.
    pub auth: bool,
    /// Wants this `Authorization`.
    pub authorization: Option<String>,
    /// A stream over its rate is refused as a whole (Loki's default), or entry by entry.
    pub shard_streams: bool,
    /// Bytes per second and burst of a stream.
    pub stream_rate: (f64, f64),
    /// Bytes per second and burst of a tenant.
    pub tenant_rate: (f64, f64),
    pub max_streams: usize,
    pub max_line: usize,
    pub max_label_names: usize,
    /// Compressed bytes.
    pub max_body: usize,
    /// Listing of refused entries stops here.
    pub listed: usize,
    /// Rates and bursts of streams whose label set contains the text, instead of `stream_rate`.
    pub stream_rates: Vec<(String, (f64, f64))>,
    /// A request with a line that contains this is refused as a whole, in words that say nothing.
    pub poison: Option<&'static str>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            auth: false,
            authorization: None,
            shard_streams: true,
            stream_rate: (3.0 * 1048576.0, 15.0 * 1048576.0),
            tenant_rate: (4.0 * 1048576.0, 6.0 * 1048576.0),
            max_streams: 5000,
            max_line: 262_144,
            max_label_names: 15,
            max_body: 100 << 20,
            listed: 10,
            stream_rates: Vec::new(),
            poison: None,
        }
    }
}

/// An entry as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    pub time_unix_nano: i128,
    pub line: String,
    pub metadata: Vec<(String, String)>,
}

/// An entry that was taken, as an [`Observer`] is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub tenant: &'a str,
    /// The stream's label set, as Loki prints it.
    pub labels: &'a str,
    pub entry: &'a Entry,
    /// False when the same entry was there before.
    pub stored: bool,
}

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

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// Unix nanoseconds.
    at: i128,
}

impl Bucket {
    fn full(burst: f64, now: i128) -> Self {
        Self { tokens: burst, at: now }
    }

    fn allow(&mut self, (rate, burst): (f64, f64), bytes: usize, now: i128) -> bool {
        self.tokens = (self.tokens + (now - self.at).max(0) as f64 / 1e9 * rate).min(burst);
        self.at = now;
        let fits = bytes as f64 <= self.tokens;
        if fits {
            self.tokens -= bytes as f64;
        }
        fits
    }
}

#[derive(Debug)]
struct Stored {
    newest: i128,
    entries: Vec<Entry>,
    /// Hashes of all entries.
    known: HashSet<u64, foldhash::fast::FixedState>,
    rate: Bucket,
}

/// The rules, and what was stored by them.
#[derive(Debug, Default)]
pub struct Rules {
    pub limits: Limits,
    streams: BTreeMap<(String, String), Stored>,
    tenants: BTreeMap<String, Bucket>,
    /// Streams that were refused behind a 204.
    pub masked: u64,
}

/// Told of every entry that is taken; says whether it is to be kept.
pub type Take<'a> = &'a mut dyn FnMut(Arrival<'_>) -> bool;

impl Rules {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Stored entries of the streams whose label set contains `labels`, in the order of arrival.
    pub fn entries(&self, labels: &str) -> Vec<Entry> {
        let streams = self.streams.iter().filter(|((_, name), _)| name.contains(labels));
        streams.flat_map(|(_, stored)| stored.entries.iter().cloned()).collect()
    }

    /// Every stream's tenant and label set.
    pub fn streams(&self) -> Vec<(String, String)> {
        self.streams.keys().cloned().collect()
    }

    /// Refuses a body of so many compressed bytes, if they are too many.
    pub fn admit(&self, size: usize) -> Result<(), Reply> {
        let max = self.limits.max_body;
        if size > max {
            return Err((
                413,
                format!("request body too large: message size too large than max ({size} vs {max})"),
            ));
        }
        Ok(())
    }

    /// Takes what may be taken of a push, at `now` in Unix nanoseconds.
    pub fn push(
        &mut self,
        request: wire::PushRequest,
        tenant: &str,
        now: i128,
        take: Take<'_>,
    ) -> Result<(), Reply> {
        let limits = self.limits.clone();
        if request.streams.is_empty() {
            return Err((422, "error at least one valid stream is required for ingestion".to_owned()));
        }
        let poisoned = |line: &str| limits.poison.is_some_and(|poison| line.contains(poison));
        if request.streams.iter().flat_map(|stream| &stream.entries).any(|entry| poisoned(&entry.line)) {
            return Err((400, "unprocessable".to_owned()));
        }
        let (accepted, complaint) = self.distribute(request, tenant, &limits, now)?;
        self.ingest(accepted, tenant, &limits, now, take)?;
        complaint.map_or(Ok(()), Err)
    }

    /// Labels, age and sizes: what does not pass is dropped, the rest goes on.
    fn distribute(
        &mut self,
        request: wire::PushRequest,
        tenant: &str,
        limits: &Limits,
        now: i128,
    ) -> Result<(Accepted, Option<Reply>), Reply> {
        // Per stream and kind: how many, and the first text.
        let mut errors: Vec<((usize, &str), usize, String)> = Vec::new();
        let mut accepted = Vec::new();
        let (mut lines, mut bytes) = (0, 0);
        for (index, stream) in request.streams.into_iter().enumerate() {
            let mut complain = |kind: &'static str, text: String| match errors
                .iter_mut()
                .find(|(key, ..)| *key == (index, kind))
            {
                Some((_, count, _)) => *count += 1,
                None => errors.push(((index, kind), 1, text)),
            };
            let mut labels = parse_labels(&stream.labels)
                .map_err(|error| (400, format!("couldn't parse labels: {error}")))?;
            labels.retain(|(_, value)| !value.is_empty());
            labels.sort();
            if !labels.iter().any(|(name, _)| name == "service_name") {
                labels.push(("service_name".to_owned(), "unknown_service".to_owned()));
                labels.sort();
            }
            let name = print_labels(&labels);
            let counted = labels.iter().filter(|(name, _)| name != "service_name").count();
            if counted > limits.max_label_names {
                complain(
                    "names",
                    format!(
                        "entry for stream '{name}' has {counted} label names; limit {}",
                        limits.max_label_names
                    ),
                );
                continue;
            }
            if let Some((long, _)) = labels.iter().find(|(name, _)| name.len() > 1024) {
                complain("name", format!("stream '{name}' has label name too long: '{long}'"));
                continue;
            }
            if let Some((_, long)) = labels.iter().find(|(_, value)| value.len() > 2048) {
                complain("value", format!("stream '{name}' has label value too long: '{long}'"));
                continue;
            }
            let mut entries = Vec::new();
            for entry in stream.entries {
                if entry.metadata.iter().any(|pair| pair.name.is_empty()) {
                    return Err((500, "label name is empty".to_owned()));
                }
                let stamp = entry.timestamp.unwrap_or_default();
                let time = i128::from(stamp.seconds) * SECOND + i128::from(stamp.nanos);
                let pairs = entry.metadata.len();
                let size: usize = entry.metadata.iter().map(|pair| pair.name.len() + pair.value.len()).sum();
                if time < now - 7 * 24 * HOUR {
                    complain(
                        "old",
                        format!(
                            "entry for stream '{name}' has timestamp too old: {}, oldest acceptable timestamp is: {}",
                            rfc3339(time),
                            rfc3339(now - 7 * 24 * HOUR)
                        ),
                    );
                } else if time > now + 600 * SECOND {
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
                } else if pairs > 128 {
                    complain(
                        "pairs",
                        format!(
                            "stream '{name}' has too many structured metadata labels: '{pairs}', limit: '128'. Please see `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it"
                        ),
                    );
                } else if size > 65536 {
                    complain(
                        "metadata",
                        format!(
                            "stream '{name}' has structured metadata too large: '{size}' bytes, limit: '65536' bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it"
                        ),
                    );
                } else {
                    lines += 1;
                    bytes += entry.line.len() + size;
                    let metadata = entry.metadata.into_iter().map(|pair| (pair.name, pair.value)).collect();
                    entries.push(Entry { time_unix_nano: time, line: entry.line, metadata });
                }
            }
            accepted.push((name, entries));
        }
        let bucket =
            self.tenants.entry(tenant.to_owned()).or_insert_with(|| Bucket::full(limits.tenant_rate.1, now));
        if !bucket.allow(limits.tenant_rate, bytes, now) {
            return Err((
                429,
                format!(
                    "ingestion rate limit exceeded for user {tenant} (limit: {:.0} bytes/sec) while attempting to ingest '{lines}' lines totaling '{bytes}' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased",
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

    /// Streams in the request's order. The result of the last one is the result.
    fn ingest(
        &mut self,
        streams: Vec<(String, Vec<Entry>)>,
        tenant: &str,
        limits: &Limits,
        now: i128,
        take: Take<'_>,
    ) -> Result<(), Reply> {
        let mut result = Ok(());
        for (name, entries) in streams {
            if entries.is_empty() {
                continue;
            }
            self.masked += u64::from(result.is_err());
            result = self.ingest_stream(name, entries, tenant, limits, now, take);
        }
        result
    }

    fn ingest_stream(
        &mut self,
        name: String,
        entries: Vec<Entry>,
        tenant: &str,
        limits: &Limits,
        now: i128,
        take: Take<'_>,
    ) -> Result<(), Reply> {
        let own = limits.stream_rates.iter().find(|(part, _)| name.contains(part.as_str()));
        let stream_rate = own.map_or(limits.stream_rate, |(_, rate)| *rate);
        let key = (tenant.to_owned(), name.clone());
        let active = self.streams.keys().filter(|(of, _)| of == tenant).count();
        if !self.streams.contains_key(&key) && active >= limits.max_streams {
            return Err((
                429,
                format!(
                    "maximum active stream limit exceeded when trying to create stream {name}, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: '{tenant}'"
                ),
            ));
        }
        let stored = self.streams.entry(key).or_insert_with(|| Stored {
            newest: i128::MIN,
            entries: Vec::new(),
            known: HashSet::default(),
            rate: Bucket::full(stream_rate.1, now),
        });
        let total = entries.len();
        // Time, status and reason of each refused entry.
        let mut failed: Vec<(i128, u16, String)> = Vec::new();
        let mut taken: Vec<Entry> = Vec::new();
        let mut newest = stored.newest;
        let rate_text = |bytes: usize| {
            format!(
                "Per stream rate limit exceeded (limit: {}/sec) while attempting to ingest for stream '{name}' totaling {}, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased",
                byte_text(stream_rate.0 as usize),
                byte_text(bytes)
            )
        };
        let size = |entry: &Entry| {
            entry.line.len()
                + entry.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        for entry in entries {
            let time = entry.time_unix_nano;
            let bytes = size(&entry);
            if !limits.shard_streams && !stored.rate.allow(stream_rate, bytes, now) {
                failed.push((time, 429, rate_text(bytes)));
            } else if newest != i128::MIN && time < newest - HOUR {
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
        if limits.shard_streams && !stored.rate.allow(stream_rate, sum, now) {
            failed =
                taken.drain(..).map(|entry| (entry.time_unix_nano, 429, rate_text(size(&entry)))).collect();
            newest = stored.newest;
        }
        stored.newest = newest;
        for entry in taken {
            let hash = foldhash::fast::FixedState::with_seed(0).hash_one(&entry);
            let new = stored.known.insert(hash);
            let keep = take(Arrival { tenant, labels: &name, entry: &entry, stored: new });
            if new && keep {
                stored.entries.push(entry);
            }
        }
        let Some((_, status, _)) = failed.last() else {
            return Ok(());
        };
        let mut text = String::new();
        for (time, _, reason) in failed.iter().take(limits.listed) {
            text.push_str(&format!("entry with timestamp {} ignored, reason: '{reason}',\n", go_time(*time)));
        }
        text.push_str(&format!(
            "user '{tenant}', total ignored: {} out of {total} for stream: {name}",
            failed.len()
        ));
        Err((*status, text))
    }
}
