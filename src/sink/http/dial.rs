//! Connections: direct, through a proxy's tunnel (https), or by a proxy's forwarding (plain http).
//!
//! Invariant: resolving, connecting, the proxy's answer and the TLS handshake together end within the connect
//! timeout; a loopback target is never reached through a proxy.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::auth::Secret;
use super::{Error, Tls, is_loopback};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// The way to an endpoint.
#[derive(Debug, Clone)]
pub(super) enum Route {
    /// Straight there.
    Direct,
    /// By CONNECT through a proxy.
    Tunnel { proxy: Uri, auth: Option<HeaderValue> },
    /// A proxy takes the request itself.
    Forward { proxy: Uri, auth: Option<HeaderValue> },
}

impl Route {
    /// The way to `url` through `proxy`, or through what the environment names.
    pub(super) fn new(url: &Uri, proxy: Option<&Secret>) -> Result<Self, Error> {
        if is_loopback(url) {
            return Ok(Self::Direct);
        }
        let matcher = match proxy {
            None => Matcher::from_env(),
            Some(proxy) => Matcher::builder().all(proxy.expose()).build(),
        };
        let Some(found) = matcher.intercept(url) else {
            return if proxy.is_some() { Err(Error::Proxy("not a URL")) } else { Ok(Self::Direct) };
        };
        if found.uri().scheme_str() != Some("http") {
            return Err(Error::Proxy("only proxies that speak plain http are supported"));
        }
        let (proxy, mut auth) = (found.uri().clone(), found.basic_auth().cloned());
        if let Some(auth) = &mut auth {
            auth.set_sensitive(true);
        }
        if url.scheme_str() == Some("https") {
            Ok(Self::Tunnel { proxy, auth })
        } else {
            Ok(Self::Forward { proxy, auth })
        }
    }

    /// The same way for a protocol that no proxy forwards, as gRPC: by a tunnel even when it is plain.
    pub(super) fn tunnelled(&self) -> Self {
        match self.clone() {
            Self::Forward { proxy, auth } => Self::Tunnel { proxy, auth },
            other => other,
        }
    }

    /// The proxy on the way.
    pub(super) fn proxy(&self) -> Option<&Uri> {
        match self {
            Self::Direct => None,
            Self::Tunnel { proxy, .. } | Self::Forward { proxy, .. } => Some(proxy),
        }
    }

    /// The header that a forwarding proxy wants in each request.
    pub(super) fn forward_auth(&self) -> Option<&HeaderValue> {
        match self {
            Self::Forward { auth, .. } => auth.as_ref(),
            _ => None,
        }
    }
}

/// Opens connections for one endpoint, TLS included.
#[derive(Debug, Clone)]
pub struct Dial {
    inner: HttpsConnector<Path>,
    timeout: Duration,
}

impl Dial {
    /// A dialler for `url`. Reads the TLS files when the URL is https.
    pub(super) fn new(url: &Uri, route: &Route, tls: &Tls, timeout: Duration) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(timeout));
        http.set_keepalive(Some(Duration::from_secs(30)));
        let path = match route {
            Route::Direct => Path::Direct(http),
            Route::Forward { proxy, .. } => Path::Forward(http, proxy.clone()),
            Route::Tunnel { proxy, auth } => {
                let tunnel = Tunnel::new(proxy.clone(), http);
                Path::Tunnel(match auth {
                    Some(auth) => tunnel.with_auth(auth.clone()),
                    None => tunnel,
                })
            }
        };
        let https = url.scheme_str() == Some("https");
        let config = if https { tls.client_config()? } else { Tls::none() };
        let builder = HttpsConnectorBuilder::new().with_tls_config(config);
        let builder = if https { builder.https_only() } else { builder.https_or_http() };
        Ok(Self { inner: builder.enable_http1().enable_http2().wrap_connector(path), timeout })
    }
}

impl Service<Uri> for Dial {
    type Response = MaybeHttpsStream<Wired>;
    type Error = BoxError;
    type Future = Dialling<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.inner.call(target);
        let timeout = self.timeout;
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(done) => done,
                Err(_) => Err(format!("no connection within {}", crate::data::units::Span(timeout)).into()),
            }
        })
    }
}

/// The TCP part of a connection.
#[derive(Debug, Clone)]
enum Path {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpConnector>),
    Forward(HttpConnector, Uri),
}

impl Service<Uri> for Path {
    type Response = Wired;
    type Error = BoxError;
    type Future = Dialling<Wired>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(http) | Self::Forward(http, _) => http.poll_ready(cx).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match self {
            Self::Direct(http) => {
                let connecting = http.call(target);
                Box::pin(async move { Ok(Wired { io: connecting.await?, forwarded: false }) })
            }
            Self::Forward(http, proxy) => {
                let connecting = http.call(proxy.clone());
                Box::pin(async move { Ok(Wired { io: connecting.await?, forwarded: true }) })
            }
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(target);
                Box::pin(async move { Ok(Wired { io: connecting.await?, forwarded: false }) })
            }
        }
    }
}

/// A TCP connection that knows whether its other end is a forwarding proxy, which wants absolute URLs.
#[derive(Debug)]
pub struct Wired {
    io: TokioIo<TcpStream>,
    forwarded: bool,
}

impl Connection for Wired {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.forwarded)
    }
}

impl Read for Wired {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Wired {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
