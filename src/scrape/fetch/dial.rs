//! Connections to targets: straight, without proxies; for a pod to the one address that the guard gave.
//!
//! Invariants: a name is resolved anew for each connection, and for static targets only; no credential and no client
//! certificate is ever shown. A pod's certificate is not verified, a static target's is.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use super::why;
use crate::scrape::Failure;
use crate::scrape::config::Tls;
use crate::scrape::target::{Scheme, Target};
use crate::tls;

/// A connection to a target.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// TLS for both kinds of targets; made when the first one needs it.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    config: Tls,
    any: OnceLock<Arc<ClientConfig>>,
    verified: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Certificates {
    pub(super) fn new(config: Tls) -> Self {
        Self { config, ..Self::default() }
    }

    fn for_target(&self, target: &Target) -> Result<Arc<ClientConfig>, Failure> {
        if target.pod.is_some() || self.config.insecure_skip_verify {
            return Ok(Arc::clone(self.any.get_or_init(|| {
                let builder = tls::builder().dangerous().with_custom_certificate_verifier(tls::accept_any());
                Arc::new(builder.with_no_client_auth())
            })));
        }
        let made = self.verified.get_or_init(|| verify(self.config.ca_file.as_deref()).map(Arc::new));
        made.clone().map_err(Failure::Connect)
    }
}

fn verify(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let Some(path) = ca_file else {
        let builder = tls::builder().try_with_platform_verifier();
        return Ok(builder
            .map_err(|error| format!("no platform certificates: {error}"))?
            .with_no_client_auth());
    };
    let unusable = |error: &dyn std::fmt::Display| {
        format!("[scrape.tls] ca_file {} cannot be used: {error}", path.display())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"it holds no certificate"));
    }
    Ok(tls::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Connects. `address` is the guard's answer: the literal address of a pod, or `None` where the host decides.
pub(super) async fn connect(
    target: &Target,
    address: Option<SocketAddr>,
    certificates: &Certificates,
) -> Result<Stream, Failure> {
    let connected = match address {
        Some(address) => TcpStream::connect(address).await,
        None => TcpStream::connect((target.host.as_str(), target.port)).await,
    };
    let stream = connected.map_err(|error| Failure::Connect(error.to_string()))?;
    // It only delays; without it the request still goes.
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(stream);
    if target.scheme == Scheme::Http {
        return Ok(MaybeHttpsStream::Http(stream));
    }
    let uri =
        Uri::builder().scheme("https").authority(authority(target, address)).path_and_query("/").build();
    let uri = uri.map_err(|error| Failure::Connect(error.to_string()))?;
    let config = certificates.for_target(target)?;
    let mut connector = HttpsConnector::from((Given(Some(stream)), config));
    connector.call(uri).await.map_err(|error| Failure::Connect(why(&*error)))
}

/// Host and port as in a URL.
pub(super) fn authority(target: &Target, address: Option<SocketAddr>) -> String {
    match address {
        Some(address) => address.to_string(),
        None if target.host.contains(':') => format!("[{}]:{}", target.host, target.port),
        None => format!("{}:{}", target.host, target.port),
    }
}

/// True while the other side has neither closed an idle connection nor said anything on it.
pub(super) fn is_idle(stream: &Stream) -> bool {
    let tcp = match stream {
        MaybeHttpsStream::Http(stream) => stream.inner(),
        MaybeHttpsStream::Https(stream) => stream.inner().get_ref().0.inner().inner(),
    };
    let mut byte = [0];
    let mut buffer = tokio::io::ReadBuf::new(&mut byte);
    tcp.poll_peek(&mut Context::from_waker(std::task::Waker::noop()), &mut buffer).is_pending()
}

/// Hands over a connection that is already there.
struct Given(Option<TokioIo<TcpStream>>);

impl Service<Uri> for Given {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| std::io::Error::other("it was handed over before")))
    }
}
