//! Who may ask: the one gate in front of every route of the people's listener.
//!
//! In: a request. Out: the same request, or why not. What a browser can be made to do by another page is refused here: names
//! that are bound to this address by somebody's DNS (`Host`), requests that another origin sends (`Origin`, `Sec-Fetch-Site`),
//! and requests without the header that only a page's own script can set. Every answer gets the headers that forbid whatever
//! the page does not need. Invariant: a route that is added later stands behind the same gate.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::session::Sessions;

/// What a request that changes or computes something must carry, with any value: no form and no plain link can.
pub const HEADER: HeaderName = HeaderName::from_static("x-nodewick");

/// All that the page needs, and nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (HeaderName::from_static("content-security-policy"), CONTENT_SECURITY_POLICY),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("x-frame-options"), "DENY"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// What the gate knows.
#[derive(Debug)]
pub struct Guard {
    address: SocketAddr,
    sessions: Sessions,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It names another host.
    Host,
    /// Another origin sends it.
    Origin,
    /// It lacks the header that a page's own script sets.
    Header,
    /// Nobody has signed in.
    Token,
}

impl Refused {
    fn status(self) -> StatusCode {
        if self == Self::Token { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Host => {
                "this page answers to localhost and to IP addresses only, so that no other site can reach it through a \
                 name of its own; use kubectl port-forward and http://localhost\n"
            }
            Self::Origin => "refused: another site has sent this request\n",
            Self::Header => "refused: a request that does something must carry the header x-nodewick: 1\n",
            Self::Token => "sign in at /sign-in, or send the header Authorization: Bearer <[ui] token>\n",
        }
    }
}

impl Guard {
    /// A gate for the listener at `address`.
    pub fn new(address: SocketAddr, sessions: Sessions) -> Self {
        Self { address, sessions }
    }

    /// Who is signed in.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Whether a request may pass; the first thing that stands against it.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refused> {
        let host = only(headers, &HOST).ok_or(Refused::Host)?;
        if !self.is_own(host) {
            return Err(Refused::Host);
        }
        let acts = !matches!(*method, Method::GET | Method::HEAD);
        // The sign-in form is no script; a browser that keeps its referrer to itself says "null" for it.
        let is_form = path == "/sign-in";
        match only(headers, &ORIGIN) {
            None if headers.contains_key(ORIGIN) => return Err(Refused::Origin),
            None => {}
            Some("null") if is_form => {}
            Some(origin) if is_same(origin, host) => {}
            Some(_) => return Err(Refused::Origin),
        }
        let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        let other = matches!(site, Some("cross-site" | "same-site"));
        if other && (acts || path.starts_with("/api/")) {
            return Err(Refused::Origin);
        }
        if acts && !is_form && !headers.contains_key(HEADER) {
            return Err(Refused::Header);
        }
        let is_open = matches!(path, "/sign-in" | "/favicon.ico") || path.starts_with("/assets/");
        if self.sessions.are_needed() && !is_open {
            let bearer = only(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
            let signed_in = bearer.is_some_and(|token| self.sessions.is_token(token.trim()))
                || cookies(headers).any(|(name, value)| self.sessions.is_open(name, value));
            if !signed_in {
                return Err(Refused::Token);
            }
        }
        Ok(())
    }

    /// True for a host that no foreign name server can have bound to this listener: an IP address, or localhost.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((name, port)) if port.is_empty() || is_port(port.strip_prefix(':')) => name,
                _ => return false,
            },
            None => match host.split_once(':') {
                Some((name, port)) if is_port(Some(port)) => name,
                Some(_) => return false,
                None => host,
            },
        };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let Ok(ip) = name.parse::<IpAddr>() else { return false };
        let own = self.address.ip();
        ip.is_loopback() || ip == own || own.is_unspecified()
    }
}

fn is_port(port: Option<&str>) -> bool {
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// True when `origin` is the page at `host`.
fn is_same(origin: &str, host: &str) -> bool {
    let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    own.is_some_and(|own| own.eq_ignore_ascii_case(host))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// The gate as a layer.
pub(super) async fn gate(State(page): State<super::State>, request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path();
    let checked = match request.uri().authority() {
        // A proxy's request: this is none.
        Some(_) => Err(Refused::Host),
        None => page.guard.check(request.method(), path, request.headers()),
    };
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(Refused::Token) if path == "/" && *request.method() == Method::GET => {
            axum::response::Redirect::to("/sign-in").into_response()
        }
        Err(refused) => (refused.status(), refused.text()).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str, token: Option<&str>) -> Guard {
        Guard::new(address.parse().expect("an address"), Sessions::new(token.map(str::to_owned)))
    }

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in of {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    fn get(guard: &Guard, path: &str, of: &[(&str, &str)]) -> Result<(), Refused> {
        guard.check(&Method::GET, path, &headers(of))
    }

    fn post(guard: &Guard, path: &str, of: &[(&str, &str)]) -> Result<(), Refused> {
        guard.check(&Method::POST, path, &headers(of))
    }

    #[test]
    fn only_names_that_nobody_else_can_bind_are_answered() {
        let local = guard("127.0.0.1:9465", None);
        for host in
            ["localhost", "localhost:9465", "LOCALHOST:31337", "127.0.0.1:1", "127.8.8.8", "[::1]:9465"]
        {
            assert_eq!(get(&local, "/", &[("host", host)]), Ok(()), "{host}");
        }
        let foreign = [
            "evil.example",
            "localhost.evil.example:9465",
            "127.0.0.1.evil.example",
            "10.0.0.7:9465",
            "",
            "[::1",
            "[::1]x",
            "localhost:",
            "localhost:99999",
            "localhost:80:80",
            "[2001:db8::1]:9465",
            "0x7f000001",
        ];
        for host in foreign {
            assert_eq!(get(&local, "/", &[("host", host)]), Err(Refused::Host), "{host:?}");
        }
        assert_eq!(get(&local, "/", &[]), Err(Refused::Host));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(get(&local, "/", &twice), Err(Refused::Host));
    }

    #[test]
    fn an_address_of_the_node_is_answered_where_it_listens_there() {
        let token = "correct horse battery";
        let own = [("host", "10.0.0.7:9465"), ("authorization", "Bearer correct horse battery")];
        assert_eq!(get(&guard("10.0.0.7:9465", Some(token)), "/", &own), Ok(()));
        assert_eq!(get(&guard("0.0.0.0:9465", Some(token)), "/", &own), Ok(()));
        assert_eq!(get(&guard("10.0.0.8:9465", Some(token)), "/", &own), Err(Refused::Host));
        let named = [("host", "node.example"), ("authorization", "Bearer correct horse battery")];
        assert_eq!(get(&guard("0.0.0.0:9465", Some(token)), "/", &named), Err(Refused::Host));
    }

    #[test]
    fn what_another_origin_sends_is_refused() {
        let guard = guard("127.0.0.1:9465", None);
        let host = ("host", "localhost:8080");
        let own = ("x-nodewick", "1");
        assert_eq!(post(&guard, "/api/explain", &[host, own]), Ok(()), "curl sends no origin");
        assert_eq!(post(&guard, "/api/explain", &[host, own, ("origin", "http://localhost:8080")]), Ok(()));
        for origin in
            ["http://evil.example", "http://localhost:8081", "null", "http://localhost:8080.evil", ""]
        {
            let sent = [host, own, ("origin", origin)];
            assert_eq!(post(&guard, "/api/explain", &sent), Err(Refused::Origin), "{origin:?}");
        }
        assert_eq!(post(&guard, "/api/explain", &[host]), Err(Refused::Header));
        let twice = [host, own, ("origin", "http://localhost:8080"), ("origin", "http://evil.example")];
        assert_eq!(post(&guard, "/api/explain", &twice), Err(Refused::Origin));
        let site = ("sec-fetch-site", "cross-site");
        assert_eq!(get(&guard, "/api/search", &[host, site]), Err(Refused::Origin));
        assert_eq!(get(&guard, "/", &[host, site]), Ok(()), "a link on another page leads here");
        for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            let checked = guard.check(&method, "/api/overview", &headers(&[host]));
            assert_eq!(checked, Err(Refused::Header), "{method}");
        }
    }

    #[test]
    fn with_a_token_nothing_but_the_door_is_open() {
        let guard = guard("127.0.0.1:9465", Some("correct horse battery"));
        let host = ("host", "localhost");
        for path in ["/", "/api/overview", "/api/tail", "/api/events", "/nothing"] {
            assert_eq!(get(&guard, path, &[host]), Err(Refused::Token), "{path}");
            let wrong = [host, ("authorization", "Bearer correct horse batterz")];
            assert_eq!(get(&guard, path, &wrong), Err(Refused::Token), "{path}");
            let right = [host, ("authorization", "Bearer correct horse battery")];
            assert_eq!(get(&guard, path, &right), Ok(()), "{path}");
        }
        for path in ["/sign-in", "/assets/style.css"] {
            assert_eq!(get(&guard, path, &[host]), Ok(()), "{path}");
        }
        let form = [host, ("origin", "null")];
        assert_eq!(post(&guard, "/sign-in", &form), Ok(()));
        assert_eq!(
            post(&guard, "/sign-in", &[host, ("origin", "http://evil.example")]),
            Err(Refused::Origin)
        );
        let session = guard.sessions().open().expect("random bytes");
        let pair = session.split(';').next().expect("a pair").to_owned();
        assert_eq!(get(&guard, "/", &[host, ("cookie", &format!("other=1; {pair}"))]), Ok(()));
        assert_eq!(get(&guard, "/", &[host, ("cookie", &format!("{pair}0"))]), Err(Refused::Token));
    }
}
