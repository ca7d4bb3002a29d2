//! A Loki in the test's process: push only, with the answers of a real one.
//!
//! In: `POST /loki/api/v1/push`, decoded by code that shares nothing with the agent's writer. Out: the statuses
//! and texts that Loki main 65e30f8 was recorded to give, and what it would have stored. Faithful where it
//! matters for losing lines: a request's last stream decides its answer, an entry is stored once per timestamp,
//! line and metadata, nothing more than 60 minutes behind its stream's newest entry is taken.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

#[path = "fake_loki/text.rs"]
mod text;

use text::{byte_text, go_time, parse_labels, print_labels, rfc3339};

const SECOND: i128 = 1_000_000_000;
const HOUR: i128 = 3600 * SECOND;

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

/// What happens to a request before Loki's own rules.
#[derive(Debug, Clone)]
pub enum Fault {
    /// As it starts and stops: 500 `empty ring`.
    EmptyRing,
    /// This status, with a `Retry-After` and a text.
    Status(u16, Option<&'static str>, &'static str),
    /// Closed without a response, nothing taken.
    Closed,
    /// Taken, then closed without a response.
    AckLost,
    /// Taken, then reset without a response.
    AckReset,
    /// Read, and never answered.
    Hang,
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

/// Told of every entry that is taken, in the order of arrival, while the fake answers its request.
pub type Observer = Box<dyn Fn(Arrival<'_>) + Send>;

struct Watch {
    observer: Observer,
    /// Entries and bodies are kept too.
    keep: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// A request as it was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub status: u16,
    pub text: String,
    pub tenant: String,
    pub content_type: String,
    pub authorization: String,
    /// Label sets in the request's order, as sent, with the number of entries.
    pub streams: Vec<(String, usize)>,
    pub body: Bytes,
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
    at: Instant,
}

impl Bucket {
    fn full(burst: f64) -> Self {
        Self { tokens: burst, at: Instant::now() }
    }

    fn allow(&mut self, (rate, burst): (f64, f64), bytes: usize, now: Instant) -> bool {
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * rate).min(burst);
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

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    streams: BTreeMap<(String, String), Stored>,
    tenants: BTreeMap<String, Bucket>,
    once: VecDeque<Fault>,
    standing: Option<Fault>,
    seen: Vec<Seen>,
    watch: Option<Watch>,
}

/// A running fake. Ends when dropped.
#[derive(Debug)]
pub struct FakeLoki {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeLoki {
    /// Starts on a free port of the loopback interface.
    pub fn start(limits: Limits) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State { limits, ..State::default() }));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, shared) => {}
                }
            });
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What befalls the next requests, one each.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().once.extend(faults);
    }

    /// What befalls every request from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().standing = fault;
    }

    /// Tells `observer` of every entry from now on. With `keep` false neither entries nor the bodies of requests
    /// are remembered: a soak has ten million of them.
    pub fn observe(&self, keep: bool, observer: Observer) {
        self.state().watch = Some(Watch { observer, keep });
    }

    /// Changes limits.
    pub fn limit(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.state().limits);
    }

    /// Stored entries of the streams whose label set contains `labels`, in the order of arrival.
    pub fn entries(&self, labels: &str) -> Vec<Entry> {
        let state = self.state();
        let streams = state.streams.iter().filter(|((_, name), _)| name.contains(labels));
        streams.flat_map(|(_, stored)| stored.entries.iter().cloned()).collect()
    }

    /// Lines of the same.
    pub fn lines(&self, labels: &str) -> Vec<String> {
        self.entries(labels).into_iter().map(|entry| entry.line).collect()
    }

    /// Every stream's tenant and label set, as Loki prints it.
    pub fn streams(&self) -> Vec<(String, String)> {
        self.state().streams.keys().cloned().collect()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state().seen.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic in the fake")
    }
}

impl Drop for FakeLoki {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&reset);
            let service = service_fn(move |request| handle(request, Arc::clone(&state), Arc::clone(&flag)));
            let mut connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            let _ = (&mut connection).await;
            if reset.load(Ordering::Acquire) {
                // Closing a socket that does not linger resets its connection.
                let _ = connection.into_parts().io.into_inner().set_zero_linger();
            }
        });
    }
}

/// The connection is closed without a response.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn handle(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    reset: Arc<AtomicBool>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let header = |name: &str| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (fault, reply) = {
        let mut state = state.lock().expect("no panic in the fake");
        let fault = state.once.pop_front().or_else(|| state.standing.clone());
        let seen = Seen {
            at: Instant::now(),
            status: 0,
            text: String::new(),
            tenant: header("x-scope-orgid"),
            content_type: header("content-type"),
            authorization: header("authorization"),
            streams: Vec::new(),
            body: body.clone(),
        };
        state.seen.push(seen);
        let at = state.seen.len() - 1;
        let reply = match &fault {
            Some(Fault::EmptyRing) => (500, "empty ring".to_owned()),
            Some(Fault::Status(status, _, text)) => (*status, (*text).to_owned()),
            Some(Fault::Closed | Fault::Hang) => (0, String::new()),
            None | Some(Fault::AckLost | Fault::AckReset) => {
                match (parts.method.as_str(), parts.uri.path()) {
                    ("POST", "/loki/api/v1/push") => {
                        state.push(at).map_or_else(|reply| reply, |()| (204, String::new()))
                    }
                    (_, "/loki/api/v1/push") => (405, String::new()),
                    _ => (404, "404 page not found".to_owned()),
                }
            }
        };
        state.seen[at].status = reply.0;
        if state.watch.as_ref().is_some_and(|watch| !watch.keep) {
            state.seen[at].body = Bytes::new();
        }
        state.seen[at].text.clone_from(&reply.1);
        (fault, reply)
    };
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Closed | Fault::AckLost) => return Err(Closed),
        Some(Fault::AckReset) => {
            reset.store(true, Ordering::Release);
            return Err(Closed);
        }
        _ => {}
    }
    let (status, text) = reply;
    let mut response = Response::builder().status(status);
    if let Some(Fault::Status(_, Some(after), _)) = fault {
        response = response.header("retry-after", after);
    }
    if status == 204 {
        return Ok(response.body(Full::default()).expect("valid"));
    }
    let response = response
        .header("content-type", "text/plain; charset=utf-8")
        .header("x-content-type-options", "nosniff")
        .body(Full::from(format!("{text}\n")));
    Ok(response.expect("valid"))
}

type Reply = (u16, String);

/// Streams with what passed, in the request's order.
type Accepted = Vec<(String, Vec<Entry>)>;

impl State {
    /// The whole of a push: decode, distribute, ingest.
    fn push(&mut self, at: usize) -> Result<(), Reply> {
        let seen = self.seen[at].clone();
        let limits = self.limits.clone();
        if limits.authorization.as_ref().is_some_and(|wanted| *wanted != seen.authorization) {
            return Err((401, "invalid authentication credentials".to_owned()));
        }
        let tenant = match (limits.auth, seen.tenant.as_str()) {
            (false, _) => "fake".to_owned(),
            (true, "") => return Err((401, "no org id".to_owned())),
            (true, tenant) if tenant.contains('|') => {
                return Err((400, "multiple org IDs present".to_owned()));
            }
            (true, tenant) if tenant.contains('/') => {
                return Err((400, format!("tenant ID '{tenant}' contains unsupported character '/'")));
            }
            (true, tenant) => tenant.to_owned(),
        };
        let size = seen.body.len();
        if size > limits.max_body {
            let max = limits.max_body;
            return Err((
                413,
                format!("request body too large: message size too large than max ({size} vs {max})"),
            ));
        }
        match seen.content_type.split(';').next().unwrap_or_default() {
            "" => return Err((400, "mime: no media type".to_owned())),
            "application/json" => return Err((400, "the fake takes protobuf only".to_owned())),
            _ => {}
        }
        let raw = snap::raw::Decoder::new()
            .decompress_vec(&seen.body)
            .map_err(|_| (400, "snappy: corrupt input".to_owned()))?;
        let request: wire::PushRequest = prost::Message::decode(raw.as_slice())
            .map_err(|_| (400, "proto: illegal wireType 7".to_owned()))?;
        self.seen[at].streams = request.streams.iter().map(|s| (s.labels.clone(), s.entries.len())).collect();
        if request.streams.is_empty() {
            return Err((422, "error at least one valid stream is required for ingestion".to_owned()));
        }
        let poisoned = |line: &str| limits.poison.is_some_and(|poison| line.contains(poison));
        if request.streams.iter().flat_map(|stream| &stream.entries).any(|entry| poisoned(&entry.line)) {
            return Err((400, "unprocessable".to_owned()));
        }
        let (accepted, complaint) = self.distribute(request, &tenant, &limits)?;
        self.ingest(accepted, &tenant, &limits)?;
        complaint.map_or(Ok(()), Err)
    }

    /// Labels, age and sizes: what does not pass is dropped, the rest goes on.
    fn distribute(
        &mut self,
        request: wire::PushRequest,
        tenant: &str,
        limits: &Limits,
    ) -> Result<(Accepted, Option<Reply>), Reply> {
        let now = now_unix_nano();
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
            self.tenants.entry(tenant.to_owned()).or_insert_with(|| Bucket::full(limits.tenant_rate.1));
        if !bucket.allow(limits.tenant_rate, bytes, Instant::now()) {
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
    ) -> Result<(), Reply> {
        let mut result = Ok(());
        for (name, entries) in streams {
            if entries.is_empty() {
                continue;
            }
            result = self.ingest_stream(name, entries, tenant, limits);
        }
        result
    }

    fn ingest_stream(
        &mut self,
        name: String,
        entries: Vec<Entry>,
        tenant: &str,
        limits: &Limits,
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
            rate: Bucket::full(stream_rate.1),
        });
        let total = entries.len();
        // As the ingester does: one look at the clock for all entries of a stream.
        let now = Instant::now();
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
            if let Some(watch) = &self.watch {
                (watch.observer)(Arrival { tenant, labels: &name, entry: &entry, stored: new });
            }
            if new && self.watch.as_ref().is_none_or(|watch| watch.keep) {
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

pub fn now_unix_nano() -> i128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as i128
}

/// Waits until `done` says so, at most `limit`.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    done()
}
