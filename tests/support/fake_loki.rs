//! A Loki in the test's process: push only, with the answers of a real one.
//!
//! In: `POST /loki/api/v1/push`, decoded by code that shares nothing with the agent's writer. Out: the statuses
//! and texts that Loki main 65e30f8 was recorded to give, and what it would have stored. Faithful where it
//! matters for losing lines: a request's last stream decides its answer, an entry is stored once per timestamp,
//! line and metadata, nothing more than 60 minutes behind its stream's newest entry is taken.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::convert::Infallible;
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

#[path = "fake_loki/rules.rs"]
pub mod rules;

pub use rules::{Arrival, Entry, Limits, wire};
use rules::{Reply, Rules};

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

#[derive(Debug, Default)]
struct State {
    rules: Rules,
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
        let state = Arc::new(Mutex::new(State { rules: Rules::new(limits), ..State::default() }));
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
        change(&mut self.state().rules.limits);
    }

    /// Stored entries of the streams whose label set contains `labels`, in the order of arrival.
    pub fn entries(&self, labels: &str) -> Vec<Entry> {
        let state = self.state();
        state.rules.entries(labels)
    }

    /// Lines of the same.
    pub fn lines(&self, labels: &str) -> Vec<String> {
        self.entries(labels).into_iter().map(|entry| entry.line).collect()
    }

    /// Every stream's tenant and label set, as Loki prints it.
    pub fn streams(&self) -> Vec<(String, String)> {
        self.state().rules.streams()
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

impl State {
    /// The whole of a push: decode, distribute, ingest.
    fn push(&mut self, at: usize) -> Result<(), Reply> {
        let seen = self.seen[at].clone();
        let limits = self.rules.limits.clone();
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
        self.rules.admit(seen.body.len())?;
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
        let Self { rules, watch, .. } = self;
        rules.push(request, &tenant, now_unix_nano(), &mut |arrival| {
            if let Some(watch) = watch {
                (watch.observer)(arrival);
            }
            watch.as_ref().is_none_or(|watch| watch.keep)
        })
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
