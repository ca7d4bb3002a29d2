//! TLS before the make-believe Loki: a server whose certificate is exchanged while it runs.
//!
//! In: a certificate, an upstream address. Out: an https address; requests are passed on in clear over loopback.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How often a connection that waits looks whether its certificate still holds.
const LOOK: Duration = Duration::from_millis(50);

/// An authority of the test's own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    /// Its own certificate, for those who are to trust it.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server with a new certificate for `name`.
    pub fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth();
        Arc::new(config.with_single_cert(chain, key).expect("a pair"))
    }
}

struct Shared {
    server: Mutex<Arc<ServerConfig>>,
    upstream: Mutex<Option<SocketAddr>>,
    /// Grows with each exchange: older connections end.
    version: AtomicU64,
    /// Bytes of requests that came through a handshake.
    received: AtomicU64,
    stop: AtomicBool,
}

/// A running server. Ends when dropped.
pub struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    pub fn start(server: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("non-blocking");
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            upstream: Mutex::default(),
            version: AtomicU64::new(0),
            received: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while !of_thread.stop.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((socket, _)) => {
                        let shared = Arc::clone(&of_thread);
                        // A connection that fails is the agent's affair.
                        connections.push(std::thread::spawn(move || drop(serve(socket, &shared))));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Leads to this base URL from now on.
    pub fn lead_to(&self, url: &str) {
        let address = url.trim_start_matches("http://").parse().expect("an address");
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Shows another certificate from now on; open connections are closed.
    pub fn exchange(&self, server: Arc<ServerConfig>) {
        *self.shared.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
        self.shared.version.fetch_add(1, Ordering::AcqRel);
        std::thread::sleep(4 * LOOK);
    }

    /// Bytes of requests so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Acquire)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Passes on one request after the other.
fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK))?;
    let version = shared.version.load(Ordering::Acquire);
    let config = Arc::clone(&shared.server.lock().unwrap_or_else(PoisonError::into_inner));
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut agent = StreamOwned::new(session, socket);
    let holds = || shared.version.load(Ordering::Acquire) == version && !shared.stop.load(Ordering::Acquire);
    while let Some(request) = message(&mut agent, holds)? {
        shared.received.fetch_add(request.len() as u64, Ordering::AcqRel);
        let upstream = *shared.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut backend = TcpStream::connect(upstream.ok_or(io::ErrorKind::NotConnected)?)?;
        backend.set_read_timeout(Some(LOOK))?;
        backend.write_all(&request)?;
        let response = message(&mut backend, || !shared.stop.load(Ordering::Acquire))?;
        agent.write_all(&response.ok_or(io::ErrorKind::UnexpectedEof)?)?;
        agent.flush()?;
    }
    Ok(())
}

/// Reads a head and the body that it tells of; `None` at the end, or once `holds` no longer does.
fn message(from: &mut impl Read, holds: impl Fn() -> bool) -> io::Result<Option<Vec<u8>>> {
    let (mut bytes, mut wanted) = (Vec::new(), None);
    let mut room = [0; 16 << 10];
    while wanted.is_none_or(|wanted| bytes.len() < wanted) {
        match from.read(&mut room) {
            Ok(0) => return Ok(None),
            Ok(read) => bytes.extend_from_slice(&room[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if !holds() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
        if wanted.is_none()
            && let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            wanted = Some(end + 4 + length.unwrap_or(0_usize));
        }
    }
    Ok(Some(bytes))
}
