//! The listener for machines: own metrics and health, no log content.
//!
//! In: HTTP/1.1 requests. Out: `/metrics` (Prometheus text or OpenMetrics), `/health/live`, `/health/ready` and their
//! aliases (`?verbose` lists the sub-checks), and `/ledger`: what became of each container log's bytes, as a JSON array
//! (`?worst=20` for the 20 logs that are most in danger, worst first), and `/sinks`: what each backend last answered when it
//! did not take a request, `/metrics/workloads`: the last samples of every target, for a Prometheus that scrapes them here, and
//! further pages of JSON that the wiring gives: `/targets`, what became of each scrape target, `/slos`, how objectives stand,
//! `/overview`, all of it with rates.
//! Invariants: at most [`CONNECTIONS`] connections at once, none lives longer than [`CONNECTION_LIFE`], and a client
//! that does not finish its request head is cut off after [`HEAD_TIMEOUT`]. All of them run inside one task.

pub mod client;
pub mod listener;
pub mod openmetrics;
pub mod process;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::write::GzEncoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Report};

use listener::HEAD_BYTES;
pub use listener::{CONNECTIONS, HEAD_TIMEOUT};

/// Time until a connection is closed, whatever it does.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(120);

/// `[admin]`: the listener for machines.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port of `/metrics` and the health probes; empty or `off` means no listener. It shows no log
    /// content. Bind it to `127.0.0.1` where nothing outside the pod scrapes or probes it.
    pub listen: String,
    /// `/metrics/workloads`: the last samples of every target, of RED and of the host, for a Prometheus that scrapes the
    /// agent. "auto": on when no sink takes metrics, so that nothing is kept for nothing; "on"; "off". Costs about 30 KiB
    /// for a target of 1,600 samples.
    pub workloads: Workloads,
}

/// Whether `/metrics/workloads` is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Workloads {
    /// When no sink takes metrics.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "0.0.0.0:9464".to_owned(), workloads: Workloads::Auto }
    }
}

impl Config {
    /// The address to bind, `None` for no listener.
    pub fn address(&self) -> Result<Option<SocketAddr>, String> {
        if !self.is_on() {
            return Ok(None);
        }
        let text = self.listen.trim();
        // `:9464` is how other agents write "every address".
        let full = if text.starts_with(':') {
            format!("0.0.0.0{text}")
        } else {
            text.replacen("localhost:", "127.0.0.1:", 1)
        };
        full.parse().map(Some).map_err(|_| format!("{text:?} is not an IP address with a port"))
    }

    /// True when `/metrics/workloads` is served; `sent`: some sink takes metrics.
    pub fn keeps_workloads(&self, sent: bool) -> bool {
        self.is_on()
            && match self.workloads {
                Workloads::Auto => !sent,
                Workloads::On => true,
                Workloads::Off => false,
            }
    }

    /// True when there is a listener.
    pub fn is_on(&self) -> bool {
        !matches!(self.listen.trim(), "" | "off")
    }
}

/// The listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "cannot listen on {0}: the port is in use, perhaps by another nodewick; stop it, or change [admin] listen \
         (NODEWICK_ADMIN_LISTEN)"
    )]
    InUse(SocketAddr),
    /// Any other cause.
    #[error("cannot listen on {address}: {cause}; change [admin] listen (NODEWICK_ADMIN_LISTEN)")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
}

/// Writes the accounts of all container logs as a JSON array; of the `worst` ones only, where a number is given.
pub type LedgerPage = Arc<dyn Fn(Option<usize>) -> String + Send + Sync>;

/// Writes what each backend last said when it did not take a request, as a JSON array.
pub type SinksPage = Arc<dyn Fn() -> String + Send + Sync>;

/// Writes a page as JSON.
pub type JsonPage = Arc<dyn Fn() -> String + Send + Sync>;

/// Writes the samples of all workloads in pieces, as OpenMetrics if asked; `None` when enough others are being written.
pub type WorkloadsPage = Arc<dyn Fn(bool) -> Option<Pieces> + Send + Sync>;

/// A page in pieces.
pub type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// The listener, bound but not yet serving.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    ledger: Option<LedgerPage>,
    sinks: Option<SinksPage>,
    further: Vec<(&'static str, JsonPage)>,
    workloads: Option<WorkloadsPage>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What the pages show.
#[derive(Clone)]
struct Pages {
    health: Health,
    ledger: Option<LedgerPage>,
    sinks: Option<SinksPage>,
    workloads: Option<WorkloadsPage>,
}

impl Admin {
    /// Binds `address`, so that a port in use is an error of the start.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let fail = |cause: io::Error| match cause.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Other { address, cause },
        };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, ledger: None, sinks: None, workloads: None, further: Vec::new() })
    }

    /// Serves `/ledger` too.
    #[must_use]
    pub fn with_ledger(self, page: LedgerPage) -> Self {
        Self { ledger: Some(page), ..self }
    }

    /// Serves `/sinks` too.
    #[must_use]
    pub fn with_sinks(self, page: SinksPage) -> Self {
        Self { sinks: Some(page), ..self }
    }

    /// Serves a further page of JSON, such as `/targets`. A path is given once, and is none of those above.
    #[must_use]
    pub fn with_page(mut self, path: &'static str, page: JsonPage) -> Self {
        self.further.push((path, page));
        self
    }

    /// Serves `/metrics/workloads` too.
    #[must_use]
    pub fn with_workloads(self, page: WorkloadsPage) -> Self {
        Self { workloads: Some(page), ..self }
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `leave` is cancelled.
    pub async fn serve(self, health: Health, leave: CancellationToken) -> Result<(), Infallible> {
        let pages = Pages { health, ledger: self.ledger, sinks: self.sinks, workloads: self.workloads };
        let router = router(pages, &self.further);
        listener::serve(&self.listener, &router, CONNECTION_LIFE, &leave).await;
        Ok(())
    }
}

fn router(pages: Pages, further: &[(&'static str, JsonPage)]) -> Router {
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/workloads", get(workloads))
        .route("/ledger", get(ledger))
        .route("/sinks", get(sinks));
    for path in ["/health/live", "/livez", "/healthz", "/-/healthy"] {
        router = router.route(path, get(live));
    }
    for path in ["/health/ready", "/readyz", "/-/ready"] {
        router = router.route(path, get(ready));
    }
    for (path, page) in further {
        let page = Arc::clone(page);
        router = router.route(path, get(move || async move { json(page()) }));
    }
    router.with_state(pages)
}

fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

async fn live(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    probe("live", &pages.health.live(), &[], query.as_deref())
}

async fn ready(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    probe("ready", &pages.health.ready(), &pages.health.notes(), query.as_deref())
}

/// The answer to a probe in the form of the Kubernetes API server's own `/readyz?verbose`.
/// Notes stand below the checks and change nothing.
fn probe(name: &str, report: &Report, notes: &[(&str, String)], query: Option<&str>) -> Response {
    let ok = report.is_ok();
    let verbose = query.unwrap_or_default().split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = String::new();
    if verbose || !ok {
        for line in &report.lines {
            match &line.failure {
                None => body.push_str(&format!("[+]{} ok\n", line.name)),
                Some(reason) => {
                    body.push_str(&format!("[-]{} failed: {}\n", line.name, reason.replace('\n', " ")))
                }
            }
        }
        for (about, text) in notes {
            body.push_str(&format!("[!]{about}: {}\n", text.replace('\n', " ")));
        }
        body.push_str(&format!("{name} check {}\n", if ok { "passed" } else { "failed" }));
    } else {
        body.push_str("ok");
    }
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

async fn ledger(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let Some(page) = pages.ledger else { return StatusCode::NOT_FOUND.into_response() };
    let mut worst = None;
    for pair in query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("worst", number)) if let Ok(number) = number.parse() => worst = Some(number),
            _ => {
                let text = "/ledger takes ?worst=<number of container logs> and nothing else\n";
                return (StatusCode::BAD_REQUEST, text).into_response();
            }
        }
    }
    json(page(worst))
}

async fn sinks(State(pages): State<Pages>) -> Response {
    let Some(page) = pages.sinks else { return StatusCode::NOT_FOUND.into_response() };
    json(page())
}

async fn workloads(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let Some(page) = pages.workloads else {
        let text =
            "not kept: a sink takes metrics; set [admin] workloads = \"on\" to serve them here as well\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let open_metrics = openmetrics::wanted(header(ACCEPT));
    let Some(pieces) = page(open_metrics) else {
        let text = "enough others are being served; try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response();
    };
    let kind =
        if open_metrics { openmetrics::CONTENT_TYPE } else { "text/plain; version=0.0.4; charset=utf-8" };
    let fixed = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (VARY, "accept, accept-encoding")];
    let gzip = header(ACCEPT_ENCODING).split(',').any(|part| {
        let (name, weight) = part.split_once(';').unwrap_or((part, ""));
        name.trim().eq_ignore_ascii_case("gzip") && weight.replace(' ', "") != "q=0"
    });
    if gzip {
        let body = body_of(Box::new(Gzip { pieces: Some(pieces), encoder: new_gzip() }));
        return (fixed, [(CONTENT_ENCODING, "gzip")], body).into_response();
    }
    (fixed, body_of(pieces)).into_response()
}

/// A body that is made as it is read; others have their turn between two pieces.
fn body_of(pieces: Pieces) -> Body {
    Body::from_stream(futures_util::stream::unfold(pieces, |mut pieces| async move {
        tokio::task::yield_now().await;
        let piece = pieces.next()?;
        Some((Ok::<_, Infallible>(piece), pieces))
    }))
}

/// Pieces of a page, compressed.
struct Gzip {
    pieces: Option<Pieces>,
    encoder: GzEncoder<Vec<u8>>,
}

fn new_gzip() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), flate2::Compression::fast())
}

impl Iterator for Gzip {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while let Some(pieces) = &mut self.pieces {
            match pieces.next() {
                Some(piece) => {
                    self.encoder.write_all(&piece).ok()?;
                    if self.encoder.get_ref().len() >= HEAD_BYTES {
                        return Some(std::mem::take(self.encoder.get_mut()).into());
                    }
                }
                None => {
                    self.pieces = None;
                    return Some(std::mem::replace(&mut self.encoder, new_gzip()).finish().ok()?.into());
                }
            }
        }
        None
    }
}

async fn metrics(headers: HeaderMap) -> Response {
    let mut families = crate::metrics::registry().gather();
    families.extend(process::gather());
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, body) = if openmetrics::wanted(accept) {
        (openmetrics::CONTENT_TYPE, openmetrics::encode(&families))
    } else {
        let mut text = String::new();
        match prometheus::TextEncoder::new().encode_utf8(&families, &mut text) {
            Ok(()) => ("text/plain; version=0.0.4; charset=utf-8", text),
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    ([(CONTENT_TYPE, kind)], body).into_response()
}
