//! Requests to the API server or to the kubelet, and what their answers mean.
//!
//! In: a path with its query. Out: the body as a stream, or a [`Failure`] with its reason for the metrics, the server's
//! wish when to come back, and words for a person. The `kube` crate finds the server, does TLS, and keeps the token and
//! the authority fresh as their files change; nothing of it retries, since the pace is decided in one place.
//! Invariants: no answer's text is believed beyond its length; a request without an answer ends after [`HEAD_WITHIN`].

use std::path::Path;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::kube::client::{AuthError, Body, ClientBuilder, ConfigExt as _};
use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::{Client, Config as Reach};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tower_service::Service;

use crate::data::clock;
use crate::metrics;

/// Time for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Time for the head of an answer. The server's own limit for lists is a minute; it answers watches at once.
const HEAD_WITHIN: Duration = Duration::from_secs(60);

/// Time between two pieces of an answer that is not a watch.
pub(super) const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// What is read of a refusal's body.
const LONGEST_REFUSAL: usize = 16 << 10;

/// Why a request brought nothing: a value of `reason` in the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No connection, or it broke.
    Unreachable,
    /// 401: the token is not taken.
    Unauthorized,
    /// 403: a rule is missing.
    Forbidden,
    /// 410: the place to resume from is no longer known.
    Expired,
    /// 429: too many requests.
    Throttled,
    /// Any other refusal.
    Refused,
    /// Nothing came for too long.
    Silent,
    /// What came is not what was asked for.
    Malformed,
    /// Who is to be asked, or by which credential, is not known.
    Unconfigured,
}

impl Reason {
    /// The reason as a label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Malformed => "malformed",
            Self::Unconfigured => "unconfigured",
        }
    }
}

/// A request brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Why, for the metrics and for what happens next.
    pub reason: Reason,
    /// The server's status, where there was one.
    pub status: u16,
    /// The server asks to wait for this long.
    pub retry_after: Option<Duration>,
    /// Why, for a person.
    pub text: String,
}

impl Failure {
    /// A failure without an answer.
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, status: 0, retry_after: None, text: text.into() }
    }

    /// What a `Status` object says, in an answer or in the middle of a watch.
    pub(super) fn of_status(status: &Status, code: u16, retry_after: Option<Duration>) -> Self {
        let reason = match code {
            401 => Reason::Unauthorized,
            403 => Reason::Forbidden,
            410 => Reason::Expired,
            429 => Reason::Throttled,
            _ => Reason::Refused,
        };
        let asked =
            status.details.as_ref().map(|details| details.retry_after_seconds).filter(|secs| *secs > 0);
        let message = if status.message.is_empty() { &status.reason } else { &status.message };
        let text = format!("{code} {}", clipped(message));
        let retry_after = retry_after.or(asked.map(Duration::from_secs));
        Self { reason, status: code, retry_after, text: text.trim_end().to_owned() }
    }

    /// True when another connection, with everything read anew, may fare better.
    pub(super) fn may_be_the_way(&self) -> bool {
        matches!(
            self.reason,
            Reason::Unreachable | Reason::Silent | Reason::Unconfigured | Reason::Unauthorized
        )
    }

    /// True when a person must change a rule or a credential.
    pub(super) fn is_denial(&self) -> bool {
        matches!(self.reason, Reason::Unauthorized | Reason::Forbidden)
    }
}

/// A `meta/v1` `Status`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(rename = "retryAfterSeconds")]
    retry_after_seconds: u64,
}

/// A text from outside on one line of bounded length.
fn clipped(text: &str) -> String {
    text.chars().take(300).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The body of an answer.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

/// A way to one server.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
}

impl Api {
    /// The API server of the pod's cluster, or of a kubeconfig.
    pub(super) async fn cluster(kubeconfig: &Path) -> Result<Self, Failure> {
        let reach = if kubeconfig.as_os_str().is_empty() {
            Reach::incluster_env().map_err(|error| {
                let text = format!(
                    "no service account is mounted ({error}); set automountServiceAccountToken, or [kube] kubeconfig, or [kube] mode = \"path\""
                );
                Failure::new(Reason::Unconfigured, text)
            })?
        } else {
            let unusable = |error: &dyn std::error::Error| {
                let text = format!("cannot use the kubeconfig {}: {}", kubeconfig.display(), chain(error));
                Failure::new(Reason::Unconfigured, text)
            };
            let file = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(&error))?;
            let options = KubeConfigOptions::default();
            Reach::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))?
        };
        Self::new(reach)
    }

    /// A kubelet by its address, the file of its authority and the file of the token to show.
    pub(super) fn kubelet(address: http::Uri, ca: &Path, token: &Path) -> Result<Self, Failure> {
        let https = address.scheme_str() == Some("https");
        let mut reach = Reach::new(address);
        reach.root_cert_file = https.then(|| ca.to_owned());
        reach.auth_info.token_file = Some(token.to_string_lossy().into_owned());
        Self::new(reach)
    }

    fn new(reach: Reach) -> Result<Self, Failure> {
        let unusable = |error: ::kube::Error| Failure::new(Reason::Unconfigured, chain(&error));
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        // A watch is silent for a minute at a time: the kernel finds out sooner whether anybody is there.
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(10)));
        tcp.set_keepalive_retries(Some(3));
        let connector = reach.rustls_https_connector_with_connector(tcp).map_err(unusable)?;
        let base = reach.base_uri_layer();
        let auth = reach.auth_layer().map_err(unusable)?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .build::<_, Body>(connector);
        let builder = ClientBuilder::new(Plain(http), reach.default_namespace.clone());
        let client = match auth {
            Some(auth) => builder.with_layer(&auth).with_layer(&base).build(),
            None => builder.with_layer(&base).build(),
        };
        Ok(Self { client })
    }

    /// The body of the answer to a GET; anything but 200 is a failure.
    pub(super) async fn get(&self, path: &str) -> Result<Pieces, Failure> {
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("nodewick/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(|error| Failure::new(Reason::Malformed, error.to_string()))?;
        let begun = Instant::now();
        let answer = match tokio::time::timeout(HEAD_WITHIN, self.client.send(request)).await {
            Err(_) => return Err(Failure::new(Reason::Silent, "no answer within a minute")),
            Ok(Err(error)) => return Err(Failure::new(unreachable_or(&error), chain(&error))),
            Ok(Ok(answer)) => answer,
        };
        let (head, body) = answer.into_parts();
        let date = head.headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(ahead) = date.and_then(|date| clock::ahead_of(date, begun.elapsed())) {
            metrics::CLOCK_SKEW.with_label_values(&["kubernetes"]).set(ahead);
        }
        let broken = |error: ::kube::Error| Failure::new(Reason::Unreachable, chain(&error));
        let mut pieces = body.into_data_stream().map(move |piece| piece.map_err(broken));
        if head.status == StatusCode::OK {
            return Ok(pieces.boxed());
        }
        let asked = head.headers.get(header::RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
        let mut text = Vec::new();
        while let Ok(Some(Ok(piece))) = tokio::time::timeout(PIECE_WITHIN, pieces.next()).await {
            text.extend_from_slice(&piece[..piece.len().min(LONGEST_REFUSAL - text.len())]);
            if text.len() == LONGEST_REFUSAL {
                break;
            }
        }
        let status = serde_json::from_slice(&text).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&text).into_owned(),
            ..Status::default()
        });
        Err(Failure::of_status(&status, head.status.as_u16(), asked))
    }
}

/// The HTTP client with its errors as the layers around it want them.
#[derive(Clone)]
struct Plain(Http);

type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Body>;

impl Service<Request<Body>> for Plain {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.0, cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = Service::call(&mut self.0, request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

/// A credential that cannot be read is another matter than a server that cannot be reached.
fn unreachable_or(error: &::kube::Error) -> Reason {
    match error {
        ::kube::Error::Auth(_) => Reason::Unconfigured,
        ::kube::Error::Service(cause) if cause.is::<AuthError>() => Reason::Unconfigured,
        _ => Reason::Unreachable,
    }
}

/// An error with its causes, none of them twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    clipped(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(body: &str, code: u16, header: Option<u64>) -> Failure {
        let status = serde_json::from_str(body).expect("a Status");
        Failure::of_status(&status, code, header.map(Duration::from_secs))
    }

    #[test]
    fn a_status_says_what_is_wrong_and_when_to_come_back() {
        let denied = failure(
            r#"{"kind":"Status","status":"Failure","message":"pods is forbidden: User \"x\" cannot list","reason":"Forbidden","code":403}"#,
            403,
            None,
        );
        assert_eq!((denied.reason, denied.retry_after), (Reason::Forbidden, None));
        assert_eq!(denied.text, "403 pods is forbidden: User \"x\" cannot list");
        let busy = r#"{"message":"too many requests","code":429,"details":{"retryAfterSeconds":7}}"#;
        assert_eq!(failure(busy, 429, None).retry_after, Some(Duration::from_secs(7)));
        assert_eq!(failure(busy, 429, Some(2)).retry_after, Some(Duration::from_secs(2)), "the header wins");
        let gone = r#"{"kind":"Status","message":"too old resource version: 5 (278)","reason":"Expired","code":410}"#;
        assert_eq!(failure(gone, 410, None).reason, Reason::Expired);
    }

    #[test]
    fn what_a_server_says_stays_on_one_short_line() {
        let long = format!(r#"{{"message":"a\nb{}"}}"#, "x".repeat(1000));
        let text = failure(&long, 500, None).text;
        assert!(text.starts_with("500 a b") && text.len() < 320, "{text}");
    }
}
