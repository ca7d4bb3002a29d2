//! Outgoing HTTP for every sink: one target URL, one POST, one [`Answer`].
//!
//! In: a body and the protocol's own headers. Out: the status with at most 64 KiB of body, or why there was none.
//! Invariant: a request ends within its total timeout, credentials never travel in clear text beyond this host,
//! redirects are never followed, and no URL or error that leaves this module holds user information.
//!
//! Credential and TLS files are looked at again every few seconds, and at once after a 401, so that a rotated
//! secret needs no restart. A connection lives at most five minutes, after which the name is resolved anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as PoolClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::data::{clock, units};
use crate::metrics;

pub mod auth;
pub mod dial;
pub mod oauth2;
pub mod tls;

pub use auth::{Auth, Secret};
pub use dial::Dial;
pub use oauth2::OAuth2;
pub use tls::Tls;

/// Response bytes that are kept; the rest is not read.
pub const RESPONSE_CAP: usize = 64 << 10;

/// Age after which connections are replaced, so that a changed DNS record takes effect.
pub(super) const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);

/// How often credential and TLS files are looked at.
pub(super) const FILE_CHECK: Duration = Duration::from_secs(3);

/// How one endpoint is reached. Each sink's config has these keys at its own top level.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Certificates.
    pub tls: Tls,
    /// Credentials.
    pub auth: Auth,
    /// Further request headers, by name. Values are never shown.
    pub headers: BTreeMap<String, Secret>,
    /// URL of an HTTP proxy, with user information if it wants any. Default: `HTTP_PROXY`, `HTTPS_PROXY` and
    /// `NO_PROXY` of the environment. Loopback targets are always reached directly.
    pub proxy: Option<Secret>,
    /// Limits on how long a request may take.
    pub timeouts: Timeouts,
}

/// Limits on how long a request may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// To resolve the name, connect and shake hands. Raise it on links with long round trips.
    pub connect: units::Span, // 5s
    /// From the start of the request to the last byte of the response. Raise it when the backend is slow.
    pub total: units::Span, // 30s
    /// Between two pieces of a response that has begun.
    pub idle: units::Span, // 10s
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: units::Span::secs(5), total: units::Span::secs(30), idle: units::Span::secs(10) }
    }
}

/// Why an endpoint cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one that can be posted to.
    #[error("{url:?} is not an endpoint: {why}; write it like https://logs.example.com")]
    Url {
        /// The URL without user information.
        url: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A secret would travel in clear text.
    #[error("credentials for {url} would travel in clear text; use https, or remove them")]
    ClearText {
        /// The URL without user information.
        url: String,
    },
    /// A secret would be given to whoever answers.
    #[error(
        "credentials for {url} together with tls.insecure_skip_verify would be given to whoever answers; set tls.ca_file instead"
    )]
    Unverified {
        /// The URL without user information.
        url: String,
    },
    /// The token endpoint gives none.
    #[error("no access token from {url}: {why}")]
    Token {
        /// The endpoint's URL without user information.
        url: String,
        /// Why, in our words: the endpoint's may repeat a secret.
        why: String,
    },
    /// Credential keys contradict each other.
    #[error("auth: {0}")]
    Auth(&'static str),
    /// A header cannot be sent.
    #[error("header {0:?} cannot be sent: not a valid name, value, or one that belongs to the protocol")]
    Header(String),
    /// A file cannot be read or used.
    #[error("cannot use {what} {path}: {why}")]
    File {
        /// The key that names the file.
        what: &'static str,
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Certificates and keys do not make a TLS configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The proxy cannot be used.
    #[error("cannot use the proxy: {0}; write it like http://proxy.example.com:3128")]
    Proxy(&'static str),
}

/// A URL as it may be shown: without user information and query.
pub fn shown(url: &Uri) -> String {
    let host = url.host().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme_str().unwrap_or_default(), url.path())
}

/// Reads an endpoint's URL: http or https with a host. Its user information, if any, is returned apart.
pub fn parse_url(text: &str) -> Result<(Uri, Option<(String, Secret)>), Error> {
    let error = |why| Error::Url { url: without_user_info(text), why };
    let uri: Uri = text.trim().parse().map_err(|_| error("not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(error("it needs http:// or https://"));
    }
    if uri.host().unwrap_or_default().is_empty() {
        return Err(error("it has no host"));
    }
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
    let Some((user_info, host)) = authority.rsplit_once('@') else {
        return Ok((uri, None));
    };
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decode =
        |part: &str| auth::percent_decode(part).ok_or_else(|| error("its user information is not UTF-8"));
    let user = (decode(user)?, Secret::new(decode(password)?));
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(host.parse().map_err(|_| error("not a URL"))?);
    let uri = Uri::from_parts(parts).map_err(|_| error("not a URL"))?;
    Ok((uri, Some(user)))
}

/// Drops everything between `//` and the last `@` of the authority, on text that need not be a URL.
fn without_user_info(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
    let path = rest[end..].split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

/// True when traffic to this host never leaves the machine.
pub fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The client of one endpoint: a pool of connections, the credential, and the files behind both.
#[derive(Debug)]
pub struct Client {
    url: Uri,
    shown: String,
    config: Config,
    fixed: HeaderMap,
    credential: auth::Credential,
    grant: Option<Box<oauth2::Grant>>,
    route: dial::Route,
    pool: Mutex<Option<Pool>>,
}

type Connections = PoolClient<Dial, Full<Bytes>>;

#[derive(Debug)]
struct Pool {
    connections: Connections,
    since: Instant,
    /// When the files were last looked at; `None` asks for a look.
    checked: Option<Instant>,
    tls_stamp: tls::Stamp,
}

impl Client {
    /// A client that posts to `url`. Refuses settings that would show a credential to others.
    ///
    /// No file is read and nothing is dialled before the first request, except that the credential's own
    /// settings are checked.
    pub fn new(url: &str, config: &Config) -> Result<Self, Error> {
        let (url, user_info) = parse_url(url)?;
        let shown = shown(&url);
        let credential = auth::Credential::new(&config.auth, user_info)?;
        let mut fixed = HeaderMap::new();
        let mut secret_header = false;
        for (name, value) in &config.headers {
            let bad = || Error::Header(name.clone());
            let parsed = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
            if [HOST, CONTENT_LENGTH, http::header::TRANSFER_ENCODING, http::header::CONNECTION]
                .contains(&parsed)
            {
                return Err(bad());
            }
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            secret_header |= names_a_secret(parsed.as_str());
            fixed.append(parsed, value);
        }
        fixed
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("nodewick/", env!("CARGO_PKG_VERSION"))));
        let https = url.scheme_str() == Some("https");
        let secret = secret_header || credential.is_some();
        if secret && !https && !is_loopback(&url) {
            return Err(Error::ClearText { url: shown });
        }
        if config.tls.insecure_skip_verify && (secret || config.tls.cert_file.is_some()) {
            return Err(Error::Unverified { url: shown });
        }
        config.tls.check()?;
        let route = dial::Route::new(&url, config.proxy.as_ref())?;
        let grant = match &config.auth.oauth2 {
            Some(settings) => Some(Box::new(oauth2::Grant::new(settings, config)?)),
            None => None,
        };
        Ok(Self {
            url,
            shown,
            config: config.clone(),
            fixed,
            credential,
            grant,
            route,
            pool: Mutex::new(None),
        })
    }

    /// The URL as it may be shown.
    pub fn shown_url(&self) -> &str {
        &self.shown
    }

    /// The target.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The proxy that requests go through, as it may be shown.
    pub fn proxy(&self) -> Option<String> {
        self.route.proxy().map(shown)
    }

    /// Headers of every request: the configured ones and the credential, read again when its file changed, granted
    /// anew when it expires.
    pub async fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = self.fixed.clone();
        if let Some(credential) = self.credential.header(FILE_CHECK)? {
            headers.insert(AUTHORIZATION, credential);
        }
        if let Some(grant) = &self.grant {
            headers.insert(AUTHORIZATION, grant.header().await?);
        }
        Ok(headers)
    }

    /// What the backend's answer says of the credential: one that was refused is read or granted anew for the next
    /// request, and so are the certificates.
    pub fn judge_credentials(&self, answer: &Answer) {
        match answer {
            Answer::Http { status: 401 | 403, .. } | Answer::Grpc { code: 7 | 16, .. } => {
                self.distrust_credentials();
            }
            Answer::Http { .. } | Answer::Grpc { .. } => {
                if let Some(grant) = &self.grant {
                    grant.accepted();
                }
            }
            Answer::Unreachable { .. } => {}
        }
    }

    /// Makes the next request read its credential and certificates anew: the backend refused them.
    pub fn distrust_credentials(&self) {
        self.credential.distrust();
        if let Some(grant) = &self.grant {
            grant.distrust();
        }
        if let Some(pool) = &mut *self.pool.lock() {
            pool.checked = None;
        }
    }

    /// Posts `body` with `headers` beside the configured ones. Never fails: what went wrong is an [`Answer`].
    pub async fn post(&self, headers: HeaderMap, body: Bytes) -> Answer {
        self.post_with_headers(headers, body).await.0
    }

    /// The same, with the headers of the response; none when there was no response.
    pub async fn post_with_headers(&self, headers: HeaderMap, body: Bytes) -> (Answer, HeaderMap) {
        self.post_to(self.url.clone(), headers, body, RESPONSE_CAP).await
    }

    /// Posts to another path of the same endpoint and keeps up to `cap` bytes of the answer: for pages that are data.
    pub async fn ask(&self, path: &str, headers: HeaderMap, body: Bytes, cap: usize) -> Answer {
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = path.parse().ok();
        match Uri::from_parts(parts) {
            Ok(url) => self.post_to(url, headers, body, cap).await.0,
            Err(error) => Answer::Unreachable { error: error.to_string() },
        }
    }

    /// A dialler for a client of its own over the same endpoint, as gRPC needs one. Reads the TLS files.
    pub fn dial(&self) -> Result<Dial, Error> {
        Dial::new(&self.url, &self.route.tunnelled(), &self.config.tls, self.config.timeouts.connect.0)
    }

    /// The state of the TLS files now.
    pub(super) fn tls_stamp(&self) -> tls::Stamp {
        self.config.tls.stamp()
    }

    /// Limits on how long a request may take.
    pub fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }

    async fn post_to(&self, url: Uri, headers: HeaderMap, body: Bytes, cap: usize) -> (Answer, HeaderMap) {
        let total = self.config.timeouts.total.0;
        match tokio::time::timeout(total, self.exchange(url, headers, body, cap)).await {
            Ok(Ok((answer, headers))) => {
                self.judge_credentials(&answer);
                (answer, headers)
            }
            Ok(Err(error)) => (Answer::Unreachable { error }, HeaderMap::new()),
            Err(_) => {
                // The connection may hang: the next request takes a new one.
                self.pool.lock().take();
                let error = format!("no complete response within {}", units::Span(total));
                (Answer::Unreachable { error }, HeaderMap::new())
            }
        }
    }

    async fn exchange(
        &self,
        url: Uri,
        headers: HeaderMap,
        body: Bytes,
        cap: usize,
    ) -> Result<(Answer, HeaderMap), String> {
        let connections = self.connections().map_err(|error| error.to_string())?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        *request.headers_mut() = self.headers().await.map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers);
        if let Some(auth) = self.route.forward_auth() {
            request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, auth.clone());
        }
        let secrets = secrets(request.headers());
        let begun = Instant::now();
        let response = connections.request(request).await.map_err(|error| chain(&error))?;
        let (parts, mut body) = response.into_parts();
        self.see_clock(&parts.headers, begun.elapsed());
        let mut kept = BytesMut::new();
        let idle = self.config.timeouts.idle.0;
        while kept.len() < cap {
            match tokio::time::timeout(idle, body.frame()).await {
                Err(_) => return Err(format!("response stalled for {}", units::Span(idle))),
                Ok(None) => break,
                // The status is known and the backend has acted on it: a body that breaks off changes nothing
                // except for a success, whose end proves nothing either. Keep what came.
                Ok(Some(Err(_))) => break,
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        let room = cap - kept.len();
                        kept.extend_from_slice(&data[..data.len().min(room)]);
                    }
                }
            }
        }
        let retry_after = retry_after(&parts.headers);
        let mut body = kept.freeze();
        if !parts.status.is_success() {
            body = without(body, &secrets);
        }
        Ok((Answer::Http { status: parts.status.as_u16(), retry_after, body }, parts.headers))
    }

    /// Takes note of what the answering side says the time is.
    fn see_clock(&self, headers: &HeaderMap, took: Duration) {
        let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        if let (Some(ahead), Some(host)) =
            (date.and_then(|date| clock::ahead_of(date, took)), self.url.host())
        {
            metrics::CLOCK_SKEW.with_label_values(&[host]).set(ahead);
        }
    }

    /// The pool, made on first use, replaced when old or when a certificate file changed.
    fn connections(&self) -> Result<Connections, Error> {
        let now = Instant::now();
        let mut slot = self.pool.lock();
        if let Some(pool) = &mut *slot {
            let young = now.duration_since(pool.since) < MAX_CONNECTION_AGE;
            if young && pool.checked.is_some_and(|at| now.duration_since(at) < FILE_CHECK) {
                return Ok(pool.connections.clone());
            }
            pool.checked = Some(now);
            if young && pool.tls_stamp == self.config.tls.stamp() {
                return Ok(pool.connections.clone());
            }
        }
        match self.open(now) {
            Ok(pool) => Ok(slot.insert(pool).connections.clone()),
            Err(error) => match &mut *slot {
                // A half-written certificate must not stop what still works.
                Some(pool) => {
                    tracing::warn!(endpoint = %self.shown, %error, "keeping the last good certificates");
                    pool.tls_stamp = self.config.tls.stamp();
                    Ok(pool.connections.clone())
                }
                None => Err(error),
            },
        }
    }

    fn open(&self, now: Instant) -> Result<Pool, Error> {
        let tls_stamp = self.config.tls.stamp();
        let dial = Dial::new(&self.url, &self.route, &self.config.tls, self.config.timeouts.connect.0)?;
        let connections = PoolClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(4)
            .http1_max_buf_size(RESPONSE_CAP)
            .http2_max_header_list_size(RESPONSE_CAP as u32)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .build(dial);
        Ok(Pool { connections, since: now, checked: Some(now), tls_stamp })
    }
}

/// True when a header of this name usually carries a secret.
fn names_a_secret(name: &str) -> bool {
    name == "cookie" || ["auth", "token", "key", "secret", "password"].iter().any(|part| name.contains(part))
}

/// The values that a request carries and nobody may see.
pub(super) fn secrets(headers: &HeaderMap) -> Vec<HeaderValue> {
    headers.values().filter(|value| value.is_sensitive()).cloned().collect()
}

/// An answer without what it repeats of the request's secrets: a gateway in debug mode shows what it was sent, and
/// refusals are logged.
pub(super) fn without(mut body: Bytes, secrets: &[HeaderValue]) -> Bytes {
    for value in secrets {
        // `Bearer x` repeats `x` too. Shorter words are not secrets, and stand in many a text.
        let word = value.as_bytes().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        for secret in [value.as_bytes(), word].into_iter().filter(|secret| secret.len() >= 4) {
            if memchr::memmem::find(&body, secret).is_none() {
                continue;
            }
            let mut kept = BytesMut::with_capacity(body.len());
            let mut from = 0;
            for at in memchr::memmem::find_iter(&body, secret) {
                kept.extend_from_slice(&body[from..at]);
                kept.extend_from_slice(b"<redacted>");
                from = at + secret.len();
            }
            kept.extend_from_slice(&body[from..]);
            body = kept.freeze();
        }
    }
    body
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// `Retry-After` as RFC 9110 has it: seconds, or an HTTP date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// True for a status that says success.
pub fn is_success(status: u16) -> bool {
    StatusCode::from_u16(status).is_ok_and(|status| status.is_success())
}

/// The client behind a shared handle, as sinks hold it.
pub type Shared = Arc<Client>;

#[cfg(test)]
mod tests;
