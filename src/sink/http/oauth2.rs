//! Access tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4).
//!
//! In: a token endpoint and a client's id and secret. Out: the `Authorization` header that holds now.
//! Invariants: one request for a token at a time; none before a sink has something to send; a token is renewed before
//! it expires, and serves until it does when renewing fails; a failing endpoint is asked ever more seldom. What the
//! endpoint answers is never shown, but for the error codes that the standard names: it may repeat a secret.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{Secret, base64, bearer_header, read_secret, sensitive};
use super::{Client, Config, Error, Timeouts, is_loopback, parse_url, shown};
use crate::data::units::Span;
use crate::sink::Answer;

/// Longest time that a request for a token may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A token is renewed this long before it expires, or at four fifths of a shorter life.
const EARLY: Duration = Duration::from_secs(60);
/// Life of a token whose answer does not tell it.
const UNTOLD: Duration = Duration::from_secs(300);
/// Shortest and longest life that is believed.
const LIFE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Longest pause that the endpoint may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// A token that was never accepted is given up for a 401 at most this often.
const DISTRUST: Duration = Duration::from_secs(30);

/// Access tokens by OAuth 2.0 client credentials. The endpoint is reached with the sink's own certificates, proxy and
/// timeouts, over https unless it is on this host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth2 {
    /// URL of the token endpoint.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Option<Secret>,
    /// File with the client's secret, read for each token; a trailing newline does not count.
    pub client_secret_file: Option<PathBuf>,
    /// Scopes to ask for.
    pub scopes: Vec<String>,
    /// Audience to ask for, where the endpoint wants one.
    pub audience: Option<String>,
    /// Further parameters of the request, by name (`resource`). Values are never shown.
    pub endpoint_params: BTreeMap<String, Secret>,
}

/// The tokens of one endpoint, for one sink.
#[derive(Debug)]
pub struct Grant {
    settings: OAuth2,
    endpoint: Client,
    state: Mutex<State>,
    /// Held while a token is asked for.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Token>,
    failure: Option<Failure>,
    /// How the client's secret is sent, once a way was accepted.
    style: Option<Style>,
    /// When a token was last given up because of a 401.
    distrusted: Option<Instant>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    renew: Instant,
    expires: Instant,
    /// A backend has accepted it.
    accepted: bool,
}

#[derive(Debug)]
struct Failure {
    why: String,
    count: u32,
    /// Not asked again before.
    until: Instant,
}

/// How the client's id and secret are sent (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// As basic authentication, which every endpoint must take.
    Header,
    /// In the body, which some take only.
    Body,
}

/// Why there is no token, and how long the endpoint wants to be left alone.
#[derive(Debug)]
struct Refusal {
    why: String,
    /// Another way of sending the secret may help.
    credential: bool,
    after: Option<Duration>,
}

impl Grant {
    /// Checks the settings. `config` is the sink's own, for certificates, proxy and timeouts.
    pub fn new(settings: &OAuth2, config: &Config) -> Result<Self, Error> {
        let bad = |why| Err(Error::Auth(why));
        if settings.token_url.is_empty() {
            return bad("oauth2 needs token_url");
        }
        if settings.client_id.is_empty() {
            return bad("oauth2 needs client_id");
        }
        match (&settings.client_secret, &settings.client_secret_file) {
            (None, None) => return bad("oauth2 needs client_secret or client_secret_file"),
            (Some(_), Some(_)) => {
                return bad("oauth2.client_secret and oauth2.client_secret_file exclude each other");
            }
            _ => {}
        }
        let has_own_key = |name: &str| match name {
            "grant_type" | "client_id" | "client_secret" => true,
            "scope" => !settings.scopes.is_empty(),
            "audience" => settings.audience.is_some(),
            _ => false,
        };
        if settings.endpoint_params.keys().any(|name| has_own_key(name)) {
            return bad("oauth2.endpoint_params repeats what has a key of its own");
        }
        let (url, user_info) = parse_url(&settings.token_url)?;
        if user_info.is_some() {
            return bad("oauth2.token_url holds a password; use client_id and client_secret");
        }
        if url.scheme_str() != Some("https") && !is_loopback(&url) {
            return Err(Error::ClearText { url: shown(&url) });
        }
        let total = PATIENCE.min(config.timeouts.total.0 / 2);
        let endpoint = Config {
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            timeouts: Timeouts { total: Span(total), ..config.timeouts.clone() },
            ..Config::default()
        };
        Ok(Self {
            settings: settings.clone(),
            endpoint: Client::new(&settings.token_url, &endpoint)?,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// The header to send; asks the endpoint for a token where there is none that holds.
    pub async fn header(&self) -> Result<HeaderValue, Error> {
        if let Some(header) = self.held(true) {
            return Ok(header);
        }
        // What still holds serves while somebody else renews it.
        let _turn = match (self.turn.try_lock(), self.held(false)) {
            (Ok(turn), _) => turn,
            (Err(_), Some(header)) => return Ok(header),
            (Err(_), None) => self.turn.lock().await,
        };
        if let Some(header) = self.held(true) {
            return Ok(header);
        }
        let resting =
            self.state.lock().failure.as_ref().filter(|f| Instant::now() < f.until).map(|f| f.why.clone());
        let why = match resting {
            Some(why) => why,
            None => match self.ask().await {
                Ok(header) => return Ok(header),
                Err(why) => why,
            },
        };
        self.held(false).ok_or_else(|| Error::Token { url: self.endpoint.shown_url().to_owned(), why })
    }

    /// The token at hand, if it need not be renewed (`fresh`), or if it has not expired.
    fn held(&self, fresh: bool) -> Option<HeaderValue> {
        let now = Instant::now();
        let state = self.state.lock();
        let token = state.token.as_ref()?;
        (now < if fresh { token.renew } else { token.expires }).then(|| token.header.clone())
    }

    /// A backend took the token.
    pub fn accepted(&self) {
        if let Some(token) = &mut self.state.lock().token {
            token.accepted = true;
        }
    }

    /// A backend refused the token: the next request asks for another. One that was refused from its first use is no
    /// reason to ask again and again.
    pub fn distrust(&self) {
        let mut state = self.state.lock();
        let again = state.distrusted.is_none_or(|at| at.elapsed() >= DISTRUST);
        if state.token.as_ref().is_some_and(|token| token.accepted || again) {
            state.token = None;
            state.distrusted = Some(Instant::now());
        }
    }

    /// Asks for a token and keeps it, or keeps why there is none.
    async fn ask(&self) -> Result<HeaderValue, String> {
        let known = self.state.lock().style;
        let first = known.unwrap_or(Style::Header);
        let mut style = first;
        let mut answer = self.request(first).await;
        if known.is_none()
            && let Err(refusal) = &answer
            && refusal.credential
            && let Ok(granted) = self.request(Style::Body).await
        {
            (style, answer) = (Style::Body, Ok(granted));
        }
        let mut state = self.state.lock();
        match answer {
            Ok(token) => {
                let header = token.header.clone();
                if state.failure.take().is_some() {
                    tracing::info!(endpoint = self.endpoint.shown_url(), "access tokens are granted again");
                }
                state.style = Some(style);
                state.token = Some(token);
                Ok(header)
            }
            Err(Refusal { why, after, .. }) => {
                let count = state.failure.as_ref().map_or(0, |failure| failure.count) + 1;
                let pause = (BACKOFF.0 * 2_u32.saturating_pow(count.min(8) - 1)).min(BACKOFF.1);
                // Many agents lose an endpoint at once and must not come back at once.
                let pause = pause / 2 + pause.mul_f64(chance() / 2.0);
                let until =
                    Instant::now() + after.map_or(pause, |after| after.min(LONGEST_RETRY_AFTER).max(pause));
                state.failure = Some(Failure { why: why.clone(), count, until });
                Err(why)
            }
        }
    }

    async fn request(&self, style: Style) -> Result<Token, Refusal> {
        let refusal = |why: String| Refusal { why, credential: false, after: None };
        let file;
        let secret = match (&self.settings.client_secret, &self.settings.client_secret_file) {
            (Some(secret), _) => secret.expose(),
            (None, Some(path)) => {
                file = read_secret(path).map_err(|why| {
                    refusal(format!("cannot use auth.oauth2.client_secret_file {}: {why}", path.display()))
                })?;
                file.expose().trim_end_matches(['\n', '\r'])
            }
            (None, None) => unreachable!("one of them is given"),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut form = String::from("grant_type=client_credentials");
        match style {
            Style::Header => {
                let pair = format!("{}:{}", form_encoded(&self.settings.client_id), form_encoded(secret));
                let header = sensitive(format!("Basic {}", base64(pair.as_bytes())));
                headers.insert(AUTHORIZATION, header.expect("base64 is a header value"));
            }
            Style::Body => {
                push(&mut form, "client_id", &self.settings.client_id);
                push(&mut form, "client_secret", secret);
            }
        }
        if !self.settings.scopes.is_empty() {
            push(&mut form, "scope", &self.settings.scopes.join(" "));
        }
        if let Some(audience) = &self.settings.audience {
            push(&mut form, "audience", audience);
        }
        for (name, value) in &self.settings.endpoint_params {
            push(&mut form, name, value.expose());
        }
        let sent = Instant::now();
        match self.post(headers, form.into()).await {
            Answer::Http { status: 200..=299, body, .. } => {
                token(&body, sent).map_err(|why| refusal(why.to_owned()))
            }
            Answer::Http { status: 300..=399, .. } => {
                Err(refusal("it redirects, which is not followed; give the URL that it leads to".to_owned()))
            }
            Answer::Http { status, retry_after, body } => {
                let code = error_code(&body);
                let why = match code {
                    Some(code) => format!("status {status}, {code}"),
                    None => format!("status {status}"),
                };
                let credential = matches!(status, 400 | 401 | 403);
                Err(Refusal { why, credential, after: retry_after })
            }
            Answer::Unreachable { error } => Err(refusal(error)),
            Answer::Grpc { .. } => Err(refusal("it does not speak HTTP".to_owned())),
        }
    }

    /// A future with a name: the client that asks is of the type that it asks for.
    fn post(&self, headers: HeaderMap, body: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.endpoint.post(headers, body))
    }
}

/// Reads a successful answer (RFC 6749, section 5.1). It came for a request that was sent at `sent`.
fn token(body: &[u8], sent: Instant) -> Result<Token, &'static str> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: Option<Secret>,
        token_type: Option<String>,
        expires_in: Option<Seconds>,
    }
    // Some endpoints write the number as text.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(f64),
        Text(String),
    }
    let granted: Granted =
        serde_json::from_slice(body).map_err(|_| "its answer is not a JSON object with a token")?;
    if granted.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("its token is not a bearer token");
    }
    let token = granted.access_token.ok_or("its answer has no access_token")?;
    let token = token.expose();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its access_token is empty or has bytes that no header can carry");
    }
    let seconds = match granted.expires_in {
        None => None,
        Some(Seconds::Number(seconds)) => Some(seconds),
        Some(Seconds::Text(text)) => text.trim().parse().ok(),
    };
    let life = seconds.filter(|seconds| seconds.is_finite()).map_or(UNTOLD, |seconds| {
        Duration::from_secs_f64(seconds.clamp(LIFE.0.as_secs_f64(), LIFE.1.as_secs_f64()))
    });
    let expires = sent + life;
    let renew = expires - EARLY.min(life / 5);
    Ok(Token {
        header: bearer_header(token).ok_or("no header can carry its token")?,
        renew,
        expires,
        accepted: false,
    })
}

/// The error code of a refusal, if it is one of the standard's (RFC 6749, section 5.2).
fn error_code(body: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Refused {
        error: String,
    }
    const CODES: [&str; 8] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "temporarily_unavailable",
        "server_error",
    ];
    let refused: Refused = serde_json::from_slice(body).ok()?;
    CODES.into_iter().find(|code| *code == refused.error)
}

fn push(form: &mut String, name: &str, value: &str) {
    form.push('&');
    form.push_str(&form_encoded(name));
    form.push('=');
    form.push_str(&form_encoded(value));
}

/// `application/x-www-form-urlencoded`, as RFC 6749, appendix B, wants it.
fn form_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("a String takes every write"),
        }
    }
    out
}

/// A number from 0 to 1. Spreading needs no secrecy.
fn chance() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
#[path = "oauth2_tests.rs"]
mod tests;
