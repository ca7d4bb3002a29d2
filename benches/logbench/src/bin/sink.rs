//! The receiver of the benchmark: takes Loki pushes, OTLP/HTTP logs and remote write 1.0, and checks all that is in them.
//!
//! `sink [--port 0]` prints the address it listens on. `GET /stats` answers what has come, `GET /latency` how long it
//! took, `POST /reset` forgets both. A line is known by its token; one that comes twice is a duplicate, one that
//! comes after a later one of its file is out of order, one whose trace id differs from the id in its text is wrong. A sample
//! whose time is that of its series' last one is a duplicate, one with an earlier time is out of order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use logbench::line::Token;
use logbench::wire::{Received, ReceivedSample, read_loki, read_otlp, read_remote_write};
use logbench::{now_micros, option};

/// Largest request body that is read.
const BODY_LIMIT: usize = 64 << 20;

/// What came in so far.
#[derive(Default)]
struct Tally {
    /// One bit a line, by file.
    seen: Vec<Vec<u64>>,
    /// The latest line, by file.
    latest: Vec<usize>,
    lines: u64,
    /// Time of the last sample, by series.
    series: HashMap<u64, u64>,
    samples: u64,
    duplicates: u64,
    out_of_order: u64,
    /// Lines without a token.
    strange: u64,
    /// Lines whose trace id is not the one in their text.
    wrong: u64,
    /// Lines with a trace id.
    traced: u64,
    requests: u64,
    /// Bytes on the wire.
    bytes: u64,
    /// Bodies that could not be decoded.
    undecoded: u64,
    /// Tenths of a millisecond from writing to receipt, one for each line.
    latency: Vec<u32>,
}

impl Tally {
    fn take(&mut self, received: &Received<'_>, now: u64) {
        let line = received.line;
        let token = memchr::memmem::find(line, b"rq_").and_then(|at| Token::read(&line[at + 3..]));
        let (Some(token), true) = (token, line.starts_with(b"{") && line.ends_with(b"}")) else {
            self.strange += 1;
            return;
        };
        if self.seen.len() <= token.file {
            self.seen.resize_with(token.file + 1, Vec::new);
            self.latest.resize(token.file + 1, 0);
        }
        let (bits, bit) = (&mut self.seen[token.file], 1u64 << (token.seq % 64));
        if bits.len() <= token.seq / 64 {
            bits.resize(token.seq / 64 + 1, 0);
        }
        if bits[token.seq / 64] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        bits[token.seq / 64] |= bit;
        self.lines += 1;
        self.out_of_order += u64::from(token.seq < self.latest[token.file]);
        self.latest[token.file] = self.latest[token.file].max(token.seq);
        self.latency.push((now.saturating_sub(token.written_micros) / 100).min(u64::from(u32::MAX)) as u32);
        if !received.trace_id.is_empty() {
            self.traced += 1;
            self.wrong += u64::from(!names_trace(line, received.trace_id));
        }
    }

    fn take_sample(&mut self, sample: &ReceivedSample) {
        let last = self.series.entry(sample.series).or_insert(0);
        match sample.time_unix_ms.cmp(last) {
            Ordering::Equal => self.duplicates += 1,
            Ordering::Less => self.out_of_order += 1,
            Ordering::Greater => {
                *last = sample.time_unix_ms;
                self.samples += 1;
            }
        }
    }

    fn stats(&self) -> String {
        format!(
            "{{\"lines\":{},\"samples\":{},\"series\":{},\"duplicates\":{},\"out_of_order\":{},\"strange\":{},\"wrong\":{},\"traced\":{},\"requests\":{},\"bytes\":{},\"undecoded\":{}}}",
            self.lines,
            self.samples,
            self.series.len(),
            self.duplicates,
            self.out_of_order,
            self.strange,
            self.wrong,
            self.traced,
            self.requests,
            self.bytes,
            self.undecoded
        )
    }

    fn percentiles(&mut self) -> String {
        self.latency.sort_unstable();
        let at = |share: f64| {
            let index = (self.latency.len() as f64 * share) as usize;
            let tenths = self.latency.get(index.min(self.latency.len().saturating_sub(1)));
            f64::from(tenths.copied().unwrap_or(0)) / 10.0
        };
        format!(
            "{{\"p50_ms\":{},\"p90_ms\":{},\"p99_ms\":{},\"max_ms\":{}}}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        )
    }
}

/// True when `line` has this id as its `trace_id`; OTLP carries the sixteen bytes, Loki their hexadecimal.
fn names_trace(line: &[u8], id: &[u8]) -> bool {
    const KEY: &[u8] = b"\"trace_id\":\"";
    let Some(at) = memchr::memmem::rfind(line, KEY) else { return false };
    let text = &line[at + KEY.len()..];
    if id.len() != 16 {
        return text.starts_with(id) && text.get(id.len()) == Some(&b'"');
    }
    text.len() > 32
        && id.iter().zip(text.chunks(2)).all(|(byte, pair)| format!("{byte:02x}").as_bytes() == pair)
}

struct Request {
    method: String,
    path: String,
    encoding: String,
    body: Vec<u8>,
}

impl Request {
    /// The next request of a connection; `None` at its end.
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (mut length, mut chunked, mut encoding) = (0usize, false, String::new());
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            let value = value.trim().to_ascii_lowercase();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => chunked = value == "chunked",
                "content-encoding" => encoding = value,
                _ => {}
            }
        }
        let mut body = Vec::new();
        loop {
            if chunked {
                line.clear();
                from.read_line(&mut line)?;
                length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            }
            if body.len() + length > BODY_LIMIT {
                return Err(io::Error::other("request body above the limit"));
            }
            let start = body.len();
            body.resize(start + length, 0);
            from.read_exact(&mut body[start..])?;
            if chunked {
                line.clear();
                from.read_line(&mut line)?;
            }
            if !chunked || length == 0 {
                return Ok(Some(Self { method, path, encoding, body }));
            }
        }
    }

    /// The body without its compression; `None` when it is not what it says.
    fn plain(&self) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        match self.encoding.as_str() {
            "gzip" => {
                flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain).ok().map(|_| plain)
            }
            "zstd" => zstd::stream::decode_all(&self.body[..]).ok(),
            "" | "identity" | "snappy" if self.is_loki() || self.is_remote_write() => {
                snap::raw::Decoder::new().decompress_vec(&self.body).ok()
            }
            "" | "identity" => Some(self.body.clone()),
            _ => None,
        }
    }

    fn is_remote_write(&self) -> bool {
        self.path.starts_with("/api/v1/write")
    }

    fn is_loki(&self) -> bool {
        self.path.starts_with("/loki/")
    }
}

fn answer(request: &Request, tally: &Mutex<Tally>) -> String {
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    let ok = |body: String| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/stats") => return ok(lock().stats()),
        ("GET", "/latency") => return ok(lock().percentiles()),
        ("POST", "/reset") => {
            *lock() = Tally::default();
            return ok("{}".to_owned());
        }
        _ => {}
    }
    let (now, plain) = (now_micros(), request.plain());
    let mut tally = lock();
    tally.requests += 1;
    tally.bytes += request.body.len() as u64;
    let decoded = plain.as_deref().is_some_and(|body| {
        let read = if request.is_remote_write() {
            read_remote_write(body, |sample| tally.take_sample(&sample))
        } else if request.is_loki() {
            read_loki(body, |received| tally.take(&received, now))
        } else {
            read_otlp(body, |received| tally.take(&received, now))
        };
        read.is_ok()
    });
    if !decoded {
        tally.undecoded += 1;
        return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned();
    }
    if request.is_loki() || request.is_remote_write() {
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
    } else {
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n".to_owned()
    }
}

fn serve(connection: TcpStream, tally: &Mutex<Tally>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut out = connection.try_clone()?;
    let mut from = BufReader::with_capacity(256 << 10, connection);
    while let Some(request) = Request::read(&mut from)? {
        out.write_all(answer(&request, tally).as_bytes())?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", option("--port", 0u16)))?;
    println!("{}", listener.local_addr()?);
    let tally = Arc::new(Mutex::new(Tally::default()));
    for connection in listener.incoming() {
        let (connection, tally) = (connection?, Arc::clone(&tally));
        std::thread::spawn(move || {
            if let Err(error) = serve(connection, &tally) {
                eprintln!("sink: connection ended: {error}");
            }
        });
    }
    Ok(())
}
