//! The way to an endpoint, step by step: name, connection, TLS, one harmless request.
//!
//! In: a URL and its TLS settings. Out: what was learned on the way, or the step that fails and what to do. Invariant:
//! each step ends within its timeout, and nothing but one GET without a body is sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use http::{HeaderMap, Uri};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection};

use super::certificate;
use crate::sink::http::Tls;

/// Bytes of an answer that are read.
const ANSWER: usize = 16 << 10;

/// Where the way ends, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is wrong.
    pub(super) text: String,
    /// What to do; may have several lines.
    pub(super) fix: String,
}

fn trouble<T>(text: impl Into<String>, fix: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble { text: text.into(), fix: fix.into() })
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct Endpoint<'a> {
    /// Its URL.
    pub(super) url: &'a Uri,
    /// Certificates.
    pub(super) tls: &'a Tls,
    /// The table of the config that has its `tls` keys: `sink.loki.main`.
    pub(super) table: String,
    /// Time to connect.
    pub(super) timeout: Duration,
    /// HTTP/2 only, as gRPC: nothing can be asked in plain HTTP/1.
    pub(super) h2: bool,
}

/// An open way to an endpoint.
pub(super) struct Way {
    stream: Stream,
    host: String,
    /// `notAfter` of its certificate, seconds since the epoch.
    pub(super) valid_until: Option<i64>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<ClientConnection, TcpStream>>),
}

/// An answer to a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    /// Status.
    pub(super) status: u16,
    /// `Date`.
    pub(super) date: Option<String>,
    /// The beginning of the body.
    pub(super) body: String,
}

/// `kubectl` arguments for a service named as `name.namespace.svc…`.
fn service(host: &str) -> Option<(&str, &str)> {
    let mut parts = host.split('.');
    let (name, namespace, svc) = (parts.next()?, parts.next()?, parts.next()?);
    (svc == "svc").then_some((namespace, name))
}

impl Endpoint<'_> {
    fn host(&self) -> &str {
        self.url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    fn is_tls(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// Resolves, connects and shakes hands.
    pub(super) fn walk(&self) -> Result<Way, Trouble> {
        let addresses = self.resolve()?;
        let socket = self.connect(&addresses)?;
        let _ = socket.set_read_timeout(Some(self.timeout));
        let _ = socket.set_write_timeout(Some(self.timeout));
        let host = self.host().to_owned();
        if !self.is_tls() {
            return Ok(Way { stream: Stream::Plain(socket), host, valid_until: None });
        }
        let (session, socket) = self.shake_hands(socket)?;
        let valid_until = session
            .peer_certificates()
            .and_then(|chain| chain.iter().filter_map(|one| certificate::not_after(one)).min());
        let stream = Stream::Tls(Box::new(rustls::StreamOwned::new(session, socket)));
        Ok(Way { stream, host, valid_until })
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let (host, port) = (self.host().to_owned(), self.port());
        let (tell, told) = mpsc::sync_channel(1);
        let name = host.clone();
        // The resolver cannot be told when to give up; the thread ends with it.
        std::thread::spawn(move || {
            let _ = tell.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        });
        let dns = match service(&host) {
            Some((namespace, name)) => {
                format!(
                    "is the Service there? kubectl -n {namespace} get service {name}\nis DNS allowed by the NetworkPolicy (port 53)?"
                )
            }
            None => format!(
                "is the name right? try `nslookup {host}` on the node; dnsPolicy: ClusterFirst for names of the cluster"
            ),
        };
        match told.recv_timeout(self.timeout) {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_)) => trouble(format!("{host} has no address"), dns),
            Ok(Err(error)) => {
                let error = error.to_string();
                let cause = error.strip_prefix("failed to lookup address information: ").unwrap_or(&error);
                trouble(format!("{host} does not resolve: {cause}"), dns)
            }
            Err(_) => trouble(
                format!("{host} does not resolve within {}", crate::data::units::Span(self.timeout)),
                format!(
                    "DNS does not answer: the node's resolver, or a NetworkPolicy without port 53\n{dns}"
                ),
            ),
        }
    }

    fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Trouble> {
        let mut last = None;
        for address in addresses.iter().take(4) {
            match TcpStream::connect_timeout(address, self.timeout) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some((address, error)),
            }
        }
        let Some((address, error)) = last else { return trouble("no address", "") };
        let pods = service(self.host()).map(|(namespace, name)| {
            format!("does it have ready pods? kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}")
        });
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => trouble(
                format!("nothing listens on {address}"),
                pods.unwrap_or_else(|| "is the port right, and the backend running?".to_owned()),
            ),
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => trouble(
                format!("{address} does not answer within {}", crate::data::units::Span(self.timeout)),
                format!(
                    "packets are dropped: a NetworkPolicy of nodewick's or the backend's namespace, or a firewall\n{}",
                    pods.unwrap_or_default()
                ),
            ),
            _ => {
                trouble(format!("cannot connect to {address}: {error}"), "see the node's routes and firewall")
            }
        }
    }

    fn shake_hands(&self, mut socket: TcpStream) -> Result<(ClientConnection, TcpStream), Trouble> {
        let mut config: ClientConfig = match self.tls.client_config() {
            Ok(config) => config,
            Err(error) => return trouble(error.to_string(), format!("[{}.tls] names the files", self.table)),
        };
        if self.h2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let Ok(name) = ServerName::try_from(self.host().to_owned()) else {
            return trouble(
                format!("{:?} is no name for a certificate", self.host()),
                "use a DNS name or an IP address",
            );
        };
        let mut session = match ClientConnection::new(Arc::new(config), name) {
            Ok(session) => session,
            Err(error) => return trouble(format!("TLS: {error}"), ""),
        };
        let deadline = Instant::now() + self.timeout;
        while session.is_handshaking() {
            if let Err(error) = session.complete_io(&mut socket) {
                return Err(self.handshake_trouble(&error));
            }
            if Instant::now() > deadline {
                return trouble(
                    "TLS: the handshake does not end",
                    "the backend is overloaded, or does not speak TLS",
                );
            }
        }
        Ok((session, socket))
    }

    fn handshake_trouble(&self, error: &std::io::Error) -> Trouble {
        let (table, host) = (&self.table, self.host());
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let (text, fix) = match cause {
            Some(rustls::Error::InvalidCertificate(cause)) => match cause {
                CertificateError::ExpiredContext { not_after, .. } => (
                    format!(
                        "the certificate of {host} expired on {}",
                        certificate::day(not_after.as_secs() as i64)
                    ),
                    "renew the backend's certificate; see also that this node's clock is right".to_owned(),
                ),
                CertificateError::Expired => (
                    format!("the certificate of {host} has expired"),
                    "renew the backend's certificate".to_owned(),
                ),
                CertificateError::NotValidYetContext { not_before, .. } => (
                    format!(
                        "its certificate is not valid before {}",
                        certificate::day(not_before.as_secs() as i64)
                    ),
                    "see that this node's clock is right".to_owned(),
                ),
                CertificateError::NotValidForNameContext { presented, .. } => (
                    format!("the certificate is not for {host}, but for {}", names(presented)),
                    "use one of these names in the URL, or a certificate that has this one".to_owned(),
                ),
                // A bad signature is that of an authority of the same name with another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                    format!("the certificate of {host} is of an authority that is not trusted here"),
                    format!(
                        "mount the authority's certificate and name it:\n[{table}.tls]\nca_file = \"/etc/nodewick/ca.pem\""
                    ),
                ),
                other => (
                    format!("the certificate of {host} is refused: {other}"),
                    "see the backend's certificate".to_owned(),
                ),
            },
            Some(rustls::Error::InvalidMessage(_)) => (
                format!("{host} does not speak TLS on port {}", self.port()),
                format!("use http://, or the port that has TLS, in [{table}]"),
            ),
            Some(rustls::Error::AlertReceived(alert)) => (
                format!("{host} refuses the TLS connection: {alert:?}"),
                format!(
                    "it may want a client certificate:\n[{table}.tls]\ncert_file = \"/etc/nodewick/tls.crt\"\nkey_file = \"/etc/nodewick/tls.key\""
                ),
            ),
            None if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                (
                    format!("{host} does not answer a TLS handshake on port {}", self.port()),
                    format!("does it speak TLS there? else use http://, in [{table}]"),
                )
            }
            _ => (format!("TLS with {host}: {error}"), "see the backend's own log of connections".to_owned()),
        };
        Trouble { text, fix }
    }
}

/// Names of a certificate, as rustls tells them: `DnsName("a.example.com")`.
fn names(presented: &[String]) -> String {
    let shown: Vec<&str> =
        presented.iter().take(4).map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
    if shown.is_empty() { "no name at all".to_owned() } else { shown.join(", ") }
}

impl Way {
    /// Asks once, with the headers that the endpoint wants, and closes.
    pub(super) fn get(self, path: &str, headers: &HeaderMap) -> std::io::Result<Got> {
        let mut request =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.host).into_bytes();
        for (name, value) in headers {
            request.extend_from_slice(name.as_str().as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        match self.stream {
            Stream::Plain(stream) => exchange(stream, &request),
            Stream::Tls(stream) => exchange(*stream, &request),
        }
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Got> {
    stream.write_all(request)?;
    stream.flush()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 2048]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while answer.len() < ANSWER && Instant::now() < deadline {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            // What has come may be enough: not every server says goodbye.
            Err(error) if answer.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    got(&answer).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn got(answer: &[u8]) -> Option<Got> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let date = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("date"))
        .map(|(_, value)| value.trim().to_owned());
    Some(Got { status, date, body: body.chars().take(400).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_the_cluster_is_told_by_its_name() {
        assert_eq!(service("loki-gateway.loki.svc.cluster.local"), Some(("loki", "loki-gateway")));
        assert_eq!(service("loki-gateway.loki.svc"), Some(("loki", "loki-gateway")));
        assert_eq!(service("logs.example.com"), None);
        assert_eq!(service("127.0.0.1"), None);
    }

    #[test]
    fn an_answer_has_a_status_and_a_date() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\nX: y\r\n\r\nnot ready\n";
        let found = got(text).expect("an answer");
        assert_eq!((found.status, found.body.as_str()), (503, "not ready\n"));
        assert_eq!(found.date.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(got(b"\x16\x03\x01"), None);
        assert_eq!(got(b"HTTP/1."), None);
    }
}
