//! The lines of the make-believe node: they say who wrote them, which one it is, and whether they are whole.
//!
//! A line looks as pino prints it and carries `pod_uid`, `container`, `seq`, `len` and, at its end, the crc32c of all
//! before it. So the oracle can judge each line by itself, whatever became of its neighbours.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands before the checksum.
const CRC: &str = ",\"crc\":\"";

/// Bytes from the checksum's comma to the end.
const END: usize = CRC.len() + 8 + 2;

/// Text for messages. Its words repeat about as much as those of a service's log.
const WORDS: &str = "request completed for customer order shipped to warehouse after payment was captured by provider; \
cache miss on product catalogue, falling back to replica in zone b; retrying upstream call with backoff because \
the connection was reset by peer while reading the response header from the inventory service at port 8443; ";

/// Longest text that is cut from [`WORDS`] at once.
const PIECE: usize = 97;

/// What a line says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    pub pod_uid: &'a str,
    pub container: &'a str,
    pub seq: u64,
    /// When it was written.
    pub unix_millis: u64,
}

/// Whether a text is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<'a> {
    /// Whole.
    Whole(Said<'a>),
    /// It begins like one and is not whole.
    Broken,
    /// Nothing of ours.
    Foreign,
}

/// Writes one line of about `bytes` bytes into `out`, without its newline.
pub fn write(pod_uid: &str, container: &str, seq: u64, bytes: usize, out: &mut String) {
    out.clear();
    let now = unix_millis();
    // An odd factor scatters the lengths, so that no chunk boundary falls always alike.
    let spread = (bytes / 10).max(1) as u64;
    let len = bytes as u64 + seq.wrapping_mul(7919) % spread;
    let noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now;
    let _ = write!(
        out,
        "{{\"level\":30,\"time\":{now},\"pod_uid\":\"{pod_uid}\",\"container\":\"{container}\",\"seq\":{seq},\"len\":{len},\"reqId\":\"{noise:016x}\",\"msg\":\""
    );
    let mut at = (noise % 200) as usize;
    while out.len() + END + 1 < len as usize {
        let rest = len as usize - out.len() - END - 1;
        let piece = rest.min(PIECE).min(WORDS.len() - at);
        out.push_str(&WORDS[at..at + piece]);
        at = (at + piece) % WORDS.len();
    }
    out.push('"');
    let crc = crc32c::crc32c(out.as_bytes());
    let _ = write!(out, "{CRC}{crc:08x}\"}}");
}

/// Reads a line back.
pub fn read(text: &str) -> Read<'_> {
    let Some(rest) = text.strip_prefix("{\"level\":30,\"time\":") else { return Read::Foreign };
    let whole = || {
        let (body, end) = text.split_at_checked(text.len().checked_sub(END)?)?;
        let crc = end.strip_prefix(CRC)?.strip_suffix("\"}")?;
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let (unix_millis, rest) = rest.split_once(",\"pod_uid\":\"")?;
        let (pod_uid, rest) = rest.split_once("\",\"container\":\"")?;
        let (container, rest) = rest.split_once("\",\"seq\":")?;
        let (seq, rest) = rest.split_once(",\"len\":")?;
        let (len, _) = rest.split_once(',')?;
        let said =
            Said { pod_uid, container, seq: seq.parse().ok()?, unix_millis: unix_millis.parse().ok()? };
        // A line that is shorter than what it must say is longer than it was asked to be.
        (len.parse::<usize>().ok()? <= text.len()).then_some(said)
    };
    whole().map_or(Read::Broken, Read::Whole)
}

/// The wall clock in milliseconds.
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[test]
fn a_line_tells_itself_whole_broken_and_foreign() {
    let mut text = String::new();
    for (seq, bytes) in [(0, 300), (1, 300), (77, 1000), (5, 40_000), (9, 10)] {
        write("uid-1", "main", seq, bytes, &mut text);
        let Read::Whole(said) = read(&text) else { panic!("{text}") };
        assert_eq!((said.pod_uid, said.container, said.seq), ("uid-1", "main", seq));
        assert!(text.len() >= bytes && text.len() <= (bytes + bytes / 10).max(260), "{} bytes", text.len());
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        assert_eq!(read(&text[..text.len() - 1]), Read::Broken);
        assert_eq!(read(&text.replacen("main", "side", 1)), Read::Broken);
        assert_eq!(read(&text[10..]), Read::Foreign);
    }
}
