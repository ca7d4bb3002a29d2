//! Servers on loopback, a thread a connection, that do with it what a test says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};

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

/// Reads a request up to its empty line; `None` when the other side has closed.
pub(crate) fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut asked, mut buffer) = (Vec::new(), [0; 1024]);
    while !asked.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        asked.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(asked).ok()
}

/// Answers 200 with this body.
pub(crate) fn answer(stream: &mut TcpStream, content_type: &str, body: &[u8]) {
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
