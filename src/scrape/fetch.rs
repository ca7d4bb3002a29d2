//! One scrape: one GET, from a target to a body.
//!
//! In: a [`Target`], and the connection that its last scrape left. Out: the decompressed [`Body`], or a [`Failure`].
//! Invariants: everything, connecting and the last byte included, ends within the target's timeout; nothing beyond
//! `[scrape] body_limit` is held; no redirect is followed, no cookie kept, no credential sent. A connection between two
//! scrapes is only a socket: the buffers of HTTP live as long as a scrape.

mod dial;
mod memory;

pub use memory::{Buffers, SMALL};

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;

use self::dial::{Certificates, Stream};
use self::memory::{Full, Growing};
use super::guard::Guard;
use super::target::Target;
use super::{Body, Config, Dialect, Failure};
use crate::data::pods::Pods;

pub(in crate::scrape) use self::memory::Memory;

/// Read buffer of one scrape; the answer's head has to fit in.
const READ_BUFFER: usize = 64 << 10;

/// A promise of the target's up to which its buffer is made at once.
const BELIEVED: u64 = 1 << 20;

/// As Prometheus asks. Source: Prometheus 2.42 `scrape/scrape.go`, `scrapeAcceptHeader`.
const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
/// As Prometheus asks with native histograms. Source: same, `scrapeAcceptHeaderWithProtobuf`.
const ACCEPTED_NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                               encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                               application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
                               */*;q=0.1";

/// Scrapes targets. One for all of them.
#[derive(Debug)]
pub struct Fetcher {
    guard: Guard,
    pods: Pods,
    body_limit: usize,
    accept: &'static str,
    memory: Memory,
    buffers: Buffers,
    certificates: Certificates,
}

/// What a target's scrape leaves for its next one.
#[derive(Debug, Default)]
pub struct Kept {
    stream: Option<Stream>,
    length: usize,
}

impl Kept {
    /// Closes the connection.
    pub fn close(&mut self) {
        self.stream = None;
    }
}

/// Why one attempt gave nothing.
enum Fault {
    /// The connection had been closed before the target saw the request; a new one may do.
    Stale,
    /// The scrape has failed.
    Failed(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Fetcher {
    /// A fetcher within the limits of `config`. `buffers` are those that bodies come in and are given back to.
    pub fn new(config: &Config, guard: Guard, pods: Pods, buffers: Buffers) -> Self {
        Self {
            guard,
            pods,
            body_limit: config.body_limit.as_usize(),
            accept: if config.native_histograms { ACCEPTED_NATIVE } else { ACCEPTED },
            memory: Memory::new(config.memory.max(config.body_limit).as_usize()),
            buffers,
            certificates: Certificates::new(config.tls.clone()),
        }
    }

    /// What all bodies hold.
    pub(in crate::scrape) const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Scrapes a target once.
    pub async fn scrape(&self, target: &Target, kept: &mut Kept) -> Result<Body, Failure> {
        let limit = target.timeout.min(target.interval);
        let scraped = tokio::time::timeout(limit, self.scrape_in_time(target, kept)).await;
        scraped.unwrap_or(Err(Failure::Timeout(limit)))
    }

    async fn scrape_in_time(&self, target: &Target, kept: &mut Kept) -> Result<Body, Failure> {
        let stream = kept.stream.take();
        let address = self.guard.address(target, &self.pods)?;
        if let Some(stream) = stream.filter(dial::is_idle) {
            match self.attempt(target, address, stream, true, kept).await {
                Ok(body) => return Ok(body),
                Err(Fault::Failed(failure)) => return Err(failure),
                Err(Fault::Stale) => {}
            }
        }
        let stream = dial::connect(target, address, &self.certificates).await?;
        match self.attempt(target, address, stream, false, kept).await {
            Ok(body) => Ok(body),
            Err(Fault::Failed(failure)) => Err(failure),
            Err(Fault::Stale) => Err(Failure::Connect("the connection was closed".to_owned())),
        }
    }

    async fn attempt(
        &self,
        target: &Target,
        address: Option<SocketAddr>,
        stream: Stream,
        reused: bool,
        kept: &mut Kept,
    ) -> Result<Body, Fault> {
        let request = self.request(target, address)?;
        let mut builder = http1::Builder::new();
        builder.read_buf_exact_size(Some(READ_BUFFER));
        let (mut sender, connection) = builder.handshake(stream).await.map_err(|error| unreadable(&error))?;
        let mut talk = Talk { connection, is_over: false };
        let response = match talk.drive(sender.send_request(request)).await {
            Ok(response) => response,
            Err(error) if reused && !error.is_parse() => return Err(Fault::Stale),
            Err(error) if error.is_incomplete_message() => {
                return Err(Failure::Body("the connection was closed before an answer".to_owned()).into());
            }
            Err(error) => return Err(unreadable(&error).into()),
        };
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status().as_u16()).into());
        }
        let (head, incoming) = response.into_parts();
        let bytes = self.read(&mut talk, &head.headers, incoming, kept.length).await?;
        let dialect = match dialect(&head.headers, &bytes) {
            Ok(dialect) => dialect,
            Err(failure) => {
                self.buffers.put(bytes);
                return Err(failure.into());
            }
        };
        kept.length = bytes.len();
        kept.stream = talk.end(&sender).await;
        Ok(Body { bytes, dialect })
    }

    fn request(
        &self,
        target: &Target,
        address: Option<SocketAddr>,
    ) -> Result<Request<Empty<Bytes>>, Failure> {
        let timeout = target.timeout.min(target.interval).as_secs_f64();
        Request::get(&target.path)
            .header(HOST, dial::authority(target, address))
            .header(USER_AGENT, concat!("nodewick/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, self.accept)
            .header(ACCEPT_ENCODING, "gzip")
            .header("x-prometheus-scrape-timeout-seconds", timeout.to_string())
            .body(Empty::new())
            .map_err(|error| Failure::Connect(format!("there is no such URL: {error}")))
    }

    /// Reads a body to its end, decompressed.
    async fn read(
        &self,
        talk: &mut Talk,
        headers: &HeaderMap,
        incoming: Incoming,
        last: usize,
    ) -> Result<Vec<u8>, Failure> {
        let encoding = headers.get(CONTENT_ENCODING).map_or(&b"identity"[..], |value| value.as_bytes());
        let is_gzip = [&b"gzip"[..], b"x-gzip"].iter().any(|name| encoding.eq_ignore_ascii_case(name));
        if !is_gzip && !encoding.eq_ignore_ascii_case(b"identity") && !encoding.is_empty() {
            let encoding = String::from_utf8_lossy(encoding);
            return Err(Failure::Body(format!(
                "it is encoded as {encoding:?}, though only gzip was offered"
            )));
        }
        let promised = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let promised = promised.filter(|_| !is_gzip).unwrap_or(0);
        if promised > self.body_limit as u64 {
            return Err(self.too_large());
        }
        // A little more than last time, so that a page that grows by a line needs no other buffer.
        let expected = (last + last / 16).max(promised.min(BELIEVED) as usize);
        let growing = Growing::new(expected, self.body_limit, &self.memory, &self.buffers);
        let mut filling = Filling { growing, full: None };
        let mut incoming = incoming;
        if is_gzip {
            let mut decoder = MultiGzDecoder::new(filling);
            while let Some(chunk) = talk.chunk(&mut incoming).await? {
                if let Err(error) = decoder.write_all(&chunk) {
                    return Err(self.broken(decoder.get_ref(), &error));
                }
            }
            if let Err(error) = decoder.try_finish() {
                return Err(self.broken(decoder.get_ref(), &error));
            }
            filling = decoder.finish().map_err(|error| Failure::Body(format!("gzip: {error}")))?;
        } else {
            while let Some(chunk) = talk.chunk(&mut incoming).await? {
                if let Err(error) = filling.write_all(&chunk) {
                    return Err(self.broken(&filling, &error));
                }
            }
        }
        Ok(filling.growing.finish())
    }

    fn broken(&self, filling: &Filling<'_>, error: &io::Error) -> Failure {
        match filling.full {
            Some(Full::TooLarge) => self.too_large(),
            Some(Full::Memory) => Failure::Memory,
            None => Failure::Body(format!("gzip: {error}")),
        }
    }

    const fn too_large(&self) -> Failure {
        Failure::TooLarge(self.body_limit as u64)
    }
}

/// Writes into a body until it is full.
struct Filling<'a> {
    growing: Growing<'a>,
    full: Option<Full>,
}

impl Write for Filling<'_> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        match self.growing.append(chunk) {
            Ok(()) => Ok(chunk.len()),
            Err(full) => {
                self.full = Some(full);
                Err(io::Error::other("the body is full"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection while it is spoken on; nobody else drives it.
struct Talk {
    connection: http1::Connection<Stream, Empty<Bytes>>,
    is_over: bool,
}

impl Talk {
    /// Waits for `future`, which is about this connection, and moves the connection meanwhile.
    async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            // How it ended is told to whoever waits for the answer.
            self.is_over = self.is_over || self.connection.poll_without_shutdown(context).is_ready();
            future.as_mut().poll(context)
        })
        .await
    }

    /// The next piece of the body.
    async fn chunk(&mut self, incoming: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.drive(incoming.frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(unreadable(&error)),
                // Trailers say nothing.
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        return Ok(Some(chunk));
                    }
                }
            }
        }
    }

    /// The connection, where it can serve another scrape.
    async fn end(mut self, sender: &http1::SendRequest<Empty<Bytes>>) -> Option<Stream> {
        // The end of the body was seen; now it waits for another request, or closes.
        self.drive(std::future::ready(())).await;
        if self.is_over || !sender.is_ready() {
            return None;
        }
        let parts = self.connection.into_parts();
        parts.read_buf.is_empty().then_some(parts.io)
    }
}

/// In which language a body is. Missing and unknown content types are text, as for Prometheus 2; a web page is not.
fn dialect(headers: &HeaderMap, bytes: &[u8]) -> Result<Dialect, Failure> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if media_type.eq_ignore_ascii_case(b"application/openmetrics-text") {
        return Ok(Dialect::OpenMetrics);
    }
    if media_type.eq_ignore_ascii_case(b"application/vnd.google.protobuf") {
        return Ok(Dialect::Protobuf);
    }
    // Some serve an exposition as text/html. It never begins like one.
    let said = |what: &str| {
        let content_type = String::from_utf8_lossy(&content_type[..content_type.len().min(100)]);
        Err(Failure::ContentType(format!("{what}, as {content_type:?}; check prometheus.io/path and port")))
    };
    let is_json = media_type.to_ascii_lowercase().ends_with(b"json");
    match bytes.trim_ascii_start().first() {
        Some(b'<') => said("it is a web page"),
        Some(b'{' | b'[') if is_json => said("it is JSON"),
        _ => Ok(Dialect::Text),
    }
}

fn unreadable(error: &hyper::Error) -> Failure {
    Failure::Body(why(error))
}

/// An error with its causes, in one line.
fn why(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
