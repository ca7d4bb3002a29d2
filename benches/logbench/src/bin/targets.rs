//! The scraped side of the benchmark: many targets that all answer with the same page.
//!
//! `targets --page FILE [--gzip 1] [--port 0]` prints the address it listens on. Every path is a target of its own, `/hang`
//! is one that never answers. `GET /stats` says how often targets were asked and how far the time between two requests
//! of one was from `--interval-ms`; `POST /reset` begins anew. A page is written with one call from memory, so that what is
//! measured is the agent.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use logbench::option;

/// What the targets were asked.
#[derive(Default)]
struct Tally {
    /// When each target was asked last.
    last: HashMap<String, Instant>,
    /// Since the last reset.
    requests: u64,
    /// Since the beginning.
    total: u64,
    connections: u64,
    /// Requests since the beginning that nobody answers.
    hanging: u64,
    /// Tenths of a millisecond that each request came off its time.
    off: Vec<u32>,
}

impl Tally {
    fn take(&mut self, path: &str, interval: Duration) {
        let now = Instant::now();
        self.requests += 1;
        self.total += 1;
        match self.last.get_mut(path) {
            Some(last) => {
                let off = now.duration_since(*last).abs_diff(interval);
                self.off.push((off.as_micros() / 100).min(u128::from(u32::MAX)) as u32);
                *last = now;
            }
            None => {
                self.last.insert(path.to_owned(), now);
            }
        }
    }

    fn stats(&mut self) -> String {
        self.off.sort_unstable();
        let at = |share: f64| {
            let index = ((self.off.len() as f64 * share) as usize).min(self.off.len().saturating_sub(1));
            f64::from(self.off.get(index).copied().unwrap_or(0)) / 10.0
        };
        format!(
            "{{\"targets\":{},\"requests\":{},\"total\":{},\"hanging\":{},\"connections\":{},\"jitter_p50_ms\":{},\"jitter_p99_ms\":{},\"jitter_max_ms\":{}}}",
            self.last.len(),
            self.requests,
            self.total,
            self.hanging,
            self.connections,
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

/// The answers, head included, as they are written.
struct Pages {
    plain: Vec<u8>,
    gzip: Option<Vec<u8>>,
    interval: Duration,
}

fn answer(body: &[u8], head: &str) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn serve(connection: TcpStream, pages: &Pages, tally: &Mutex<Tally>) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut out = connection.try_clone()?;
    let mut from = BufReader::with_capacity(4 << 10, connection);
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    lock().connections += 1;
    let mut line = String::new();
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request = line.clone();
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut takes_gzip = false;
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            let header = line.to_ascii_lowercase();
            takes_gzip |= header.starts_with("accept-encoding:") && header.contains("gzip");
        }
        match (method, path) {
            ("GET", "/stats") => out.write_all(&answer(lock().stats().as_bytes(), ""))?,
            ("POST", "/reset") => {
                let mut tally = lock();
                tally.requests = 0;
                tally.connections = 0;
                tally.off.clear();
                drop(tally);
                out.write_all(&answer(b"{}", ""))?;
            }
            (_, "/hang") => {
                lock().hanging += 1;
                std::thread::sleep(Duration::from_secs(3600));
            }
            (_, path) => {
                lock().take(path, pages.interval);
                out.write_all(pages.gzip.as_ref().filter(|_| takes_gzip).unwrap_or(&pages.plain))?;
            }
        }
    }
}

fn main() -> io::Result<()> {
    let page = std::fs::read(option("--page", PathBuf::new()))?;
    let kind = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    let gzip = (option("--gzip", 0u8) == 1).then(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&page).and_then(|()| encoder.finish())
    });
    let gzip = gzip.transpose()?.map(|body| answer(&body, &format!("{kind}Content-Encoding: gzip\r\n")));
    let interval = Duration::from_millis(option("--interval-ms", 15_000));
    let pages = Arc::new(Pages { plain: answer(&page, kind), gzip, interval });
    let listener = TcpListener::bind(("127.0.0.1", option("--port", 0u16)))?;
    println!("{}", listener.local_addr()?);
    let tally = Arc::new(Mutex::new(Tally::default()));
    for connection in listener.incoming() {
        let (connection, pages, tally) = (connection?, Arc::clone(&pages), Arc::clone(&tally));
        // A target that went away is no error here: the agent closes what it no longer needs.
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || serve(connection, &pages, &tally))?;
    }
    Ok(())
}
