//! OTLP over gRPC: one unary `Export` call per request, over a tonic channel.
//!
//! In: a whole gRPC frame (flag, length, message), already compressed, so that a retry costs no second encoding.
//! Out: an [`Answer`]. Invariant: a call ends within its total timeout; a channel lives at most five minutes and
//! is replaced when a certificate file changes or when it hung, so that a rotated certificate or a changed DNS
//! record needs no restart.
//!
//! There are no HTTP/2 keepalive pings: gRPC servers close a connection that pings more than once in five
//! minutes, and the total timeout already finds one that is dead.

use std::future::poll_fn;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

use super::Compression;
use super::judge::retry_delay;
use crate::data::units;
use crate::sink::Answer;
use crate::sink::http::{self as outgoing, Error, FILE_CHECK, MAX_CONNECTION_AGE, RESPONSE_CAP};

/// The method that takes logs. Source: opentelemetry-proto, `collector/logs/v1/logs_service.proto`.
pub const EXPORT_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// The method that takes metrics. Source: opentelemetry-proto, `collector/metrics/v1/metrics_service.proto`.
pub const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Bytes before a message: one of flags, four of length.
pub(super) const FRAME_HEADER: usize = 5;

/// The client of one gRPC endpoint. Address, credentials, certificates, proxy and timeouts are those of the
/// outgoing HTTP client that it is made from.
#[derive(Debug)]
pub struct Client {
    endpoint: outgoing::Client,
    target: Uri,
    encoding: Option<HeaderValue>,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    channel: Channel,
    since: Instant,
    checked: Instant,
    stamp: outgoing::tls::Stamp,
}

impl Client {
    /// A client for `method` at the host of `endpoint`, whose path is not used. Nothing is dialled before the first call.
    pub fn new(endpoint: outgoing::Client, compression: Compression, method: &'static str) -> Self {
        let mut parts = endpoint.url().clone().into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static(method));
        let target = Uri::from_parts(parts).expect("a URL with another path is a URL");
        let encoding = match compression {
            Compression::Gzip => Some(HeaderValue::from_static("gzip")),
            Compression::Zstd => Some(HeaderValue::from_static("zstd")),
            Compression::None => None,
        };
        Self { endpoint, target, encoding, open: Mutex::new(None) }
    }

    /// The endpoint's URL as it may be shown.
    pub fn shown_url(&self) -> &str {
        self.endpoint.shown_url()
    }

    /// Sends one frame. Never fails: what went wrong is an [`Answer`]. A response that is not gRPC's, from a
    /// gateway in between, is an HTTP answer.
    pub async fn export(&self, headers: http::HeaderMap, frame: Bytes) -> Answer {
        let total = self.endpoint.timeouts().total.0;
        match tokio::time::timeout(total, self.exchange(headers, frame)).await {
            Ok(Ok(answer)) => {
                self.endpoint.judge_credentials(&answer);
                answer
            }
            Ok(Err(error)) => Answer::Unreachable { error },
            Err(_) => {
                self.open.lock().take();
                Answer::Unreachable { error: format!("no complete response within {}", units::Span(total)) }
            }
        }
    }

    async fn exchange(&self, headers: http::HeaderMap, frame: Bytes) -> Result<Answer, String> {
        let mut channel = self.channel().map_err(|error| error.to_string())?;
        let mut request = Request::new(Body::new(Full::new(frame)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        let credentials = self.endpoint.headers().await.map_err(|error| error.to_string())?;
        let all = request.headers_mut();
        *all = credentials;
        let secrets = outgoing::secrets(all);
        all.extend(headers);
        all.insert(TE, HeaderValue::from_static("trailers"));
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if let Some(encoding) = &self.encoding {
            all.insert(GRPC_ENCODING, encoding.clone());
        }
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|error| outgoing::chain(&error))?;
        let response = channel.call(request).await.map_err(|error| outgoing::chain(&error))?;
        let (parts, mut body) = response.into_parts();
        let mut kept = BytesMut::new();
        let mut status = tonic::Status::from_header_map(&parts.headers);
        while status.is_none() {
            match body.frame().await {
                None => break,
                // The call was not completed: whether the records were taken is not known.
                Some(Err(error)) if parts.status == 200 => return Err(outgoing::chain(&error)),
                Some(Err(_)) => break,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let room = RESPONSE_CAP.saturating_sub(kept.len());
                        kept.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    Err(frame) => {
                        status = frame.trailers_ref().and_then(tonic::Status::from_header_map);
                    }
                },
            }
        }
        if let Some(status) = status {
            let body = match status.code() {
                tonic::Code::Ok => message(kept.freeze()),
                _ => outgoing::without(Bytes::copy_from_slice(status.message().as_bytes()), &secrets),
            };
            let retry_after = retry_delay(status.details());
            return Ok(Answer::Grpc { code: status.code() as i32, retry_after, body });
        }
        if parts.status == 200 {
            return Err("response without a gRPC status".to_owned());
        }
        let retry_after = outgoing::retry_after(&parts.headers);
        let body = outgoing::without(kept.freeze(), &secrets);
        Ok(Answer::Http { status: parts.status.as_u16(), retry_after, body })
    }

    /// The channel, made on first use, replaced when old or when a certificate file changed.
    fn channel(&self) -> Result<Channel, Error> {
        let now = Instant::now();
        let mut slot = self.open.lock();
        if let Some(open) = &mut *slot {
            let young = now.duration_since(open.since) < MAX_CONNECTION_AGE;
            if young && now.duration_since(open.checked) < FILE_CHECK {
                return Ok(open.channel.clone());
            }
            open.checked = now;
            if young && open.stamp == self.endpoint.tls_stamp() {
                return Ok(open.channel.clone());
            }
        }
        let stamp = self.endpoint.tls_stamp();
        match self.endpoint.dial() {
            Ok(dial) => {
                // Made from the connector alone: `Endpoint` would add a TLS layer of its own.
                let channel = Channel::new(dial, Channel::builder(self.endpoint.url().clone()));
                *slot = Some(Open { channel: channel.clone(), since: now, checked: now, stamp });
                Ok(channel)
            }
            Err(error) => match &mut *slot {
                // A half-written certificate must not stop what still works.
                Some(open) => {
                    tracing::warn!(endpoint = %self.shown_url(), %error, "keeping the last good certificates");
                    open.stamp = stamp;
                    Ok(open.channel.clone())
                }
                None => Err(error),
            },
        }
    }
}

/// The message of a response's only frame; empty when it is cut or compressed, which was not offered.
fn message(mut body: Bytes) -> Bytes {
    if body.len() < FRAME_HEADER || body.get_u8() != 0 {
        return Bytes::new();
    }
    let len = body.get_u32() as usize;
    if len > body.len() { Bytes::new() } else { body.split_to(len) }
}
