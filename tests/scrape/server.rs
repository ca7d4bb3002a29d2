//! Servers on loopback, a thread a connection, that do with it what a test says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Connections that a server takes at most.
const CONNECTIONS: usize = 10_000;

/// Starts a server; it gives each connection, and its number from 0, to `treat`.
pub(crate) fn serve(treat: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = listener.local_addr().expect("an address");
    let treat = Arc::new(treat);
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().take(CONNECTIONS).enumerate() {
            let (Ok(stream), treat) = (stream, Arc::clone(&treat)) else { return };
            std::thread::spawn(move || treat(stream, n));
        }
    });
    at
}

/// Starts a server that answers every request over TLS with this body. Returns its authority as PEM too.
pub(crate) fn serve_tls(body: &'static [u8]) -> (SocketAddr, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
    let config = Arc::new(config);
    let at = serve(move |mut stream, _| {
        let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
        let mut stream = rustls::Stream::new(&mut session, &mut stream);
        while request(&mut stream).is_some() {
            answer(&mut stream, "text/plain", body);
        }
    });
    (at, authority)
}

/// Reads a request up to its empty line; `None` when the other side has closed.
pub(crate) fn request(stream: &mut impl Read) -> Option<String> {
    let (mut asked, mut buffer) = (Vec::new(), [0; 1024]);
    while !asked.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        asked.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(asked).ok()
}

/// Answers 200 with this body.
pub(crate) fn answer(stream: &mut impl Write, content_type: &str, body: &[u8]) {
    let typed =
        if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
    let mut answer = format!("HTTP/1.1 200 OK\r\n{typed}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    let _ = stream.write_all(&answer);
}

/// Compresses.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector");
    encoder.finish().expect("a vector")
}

/// Compresses to deflate blocks that may be repeated: they end at a byte and refer to nothing before.
pub(crate) fn block(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1024);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(bytes, &mut out, FlushCompress::Full).expect("it compresses");
    out
}
