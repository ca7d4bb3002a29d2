//! The floor: the least that a log agent can do with container logs, as a measure for agents that do more.
//!
//! In: `floor DIR HOST:PORT`, the logs below DIR as they are when it starts. Out: Loki pushes. One thread polls every
//! file, splits CRI lines, joins fragments, picks five JSON fields in one pass, writes Loki's protocol buffer, compresses it
//! with snappy and waits for each answer. It has no checkpoint, no discovery, no retry, no limit and no second sink.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logbench::scan::{Cri, newline, pick, unquoted};
use logbench::wire;

/// Bytes of one read.
const CHUNK: usize = 256 << 10;
/// Reads of one file before the next file has its turn.
const TURN: usize = 16;
/// Encoded bytes that make a request.
const REQUEST: usize = 1 << 20;
/// Time after which a smaller request goes out.
const FLUSH: Duration = Duration::from_millis(1000);
/// Time between two looks at the files when there is little to read.
const POLL: Duration = Duration::from_millis(200);

struct Log {
    file: File,
    labels: Vec<u8>,
    /// Bytes after the last newline.
    torn: Vec<u8>,
    /// Fragments of a line whose end has not come.
    open: Vec<u8>,
    /// Encoded entries that wait for the next request.
    entries: Vec<u8>,
}

impl Log {
    fn new(path: &Path) -> std::io::Result<Self> {
        let names: Vec<_> = path.iter().rev().filter_map(|part| part.to_str()).collect();
        let pod: Vec<_> = names[2].split('_').collect();
        let labels = format!(
            r#"{{cluster="bench", container="{}", namespace="{}", node="bench-node", pod="{}"}}"#,
            names[1], pod[0], pod[1]
        );
        Ok(Self {
            file: File::open(path)?,
            labels: labels.into_bytes(),
            torn: Vec::new(),
            open: Vec::new(),
            entries: Vec::new(),
        })
    }

    fn take(&mut self, chunk: &[u8]) {
        let mut from = 0;
        while let Some(end) = newline(chunk, from) {
            if self.torn.is_empty() {
                line(&mut self.open, &mut self.entries, &chunk[from..end]);
            } else {
                self.torn.extend_from_slice(&chunk[from..end]);
                line(&mut self.open, &mut self.entries, &self.torn);
                self.torn.clear();
            }
            from = end + 1;
        }
        self.torn.extend_from_slice(&chunk[from..]);
    }
}

#[inline]
fn line(open: &mut Vec<u8>, entries: &mut Vec<u8>, line: &[u8]) {
    let Some(cri) = Cri::read(line) else { return };
    if cri.partial {
        open.extend_from_slice(cri.body);
    } else if open.is_empty() {
        encode(entries, cri.time_unix_nano, cri.body);
    } else {
        open.extend_from_slice(cri.body);
        encode(entries, cri.time_unix_nano, open);
        open.clear();
    }
}

#[inline]
fn encode(entries: &mut Vec<u8>, time_unix_nano: u64, body: &[u8]) {
    match pick(body) {
        Some(found) if !found.trace_id.is_empty() => {
            let metadata = [(&b"level"[..], found.level), (&b"trace_id"[..], unquoted(found.trace_id))];
            wire::entry(entries, time_unix_nano, body, &metadata);
        }
        _ => wire::entry(entries, time_unix_nano, body, &[]),
    }
}

struct Push {
    connection: TcpStream,
    host: String,
    request: Vec<u8>,
    compressed: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl Push {
    fn send(&mut self, logs: &mut [Log]) -> std::io::Result<()> {
        self.request.clear();
        for log in logs.iter_mut().filter(|log| !log.entries.is_empty()) {
            self.request.push(0x0a);
            wire::varint(&mut self.request, (wire::field_len(log.labels.len()) + log.entries.len()) as u64);
            wire::field(&mut self.request, 0x0a, &log.labels);
            self.request.extend_from_slice(&log.entries);
            log.entries.clear();
        }
        let room = snap::raw::max_compress_len(self.request.len());
        self.compressed.resize(room.max(self.compressed.len()), 0);
        let len = self.snappy.compress(&self.request, &mut self.compressed).expect("room for the worst case");
        let head = format!(
            "POST /loki/api/v1/push HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {len}\r\n\r\n",
            self.host
        );
        self.connection.write_all(head.as_bytes())?;
        self.connection.write_all(&self.compressed[..len])?;
        let mut answer = [0; 512];
        let len = self.connection.read(&mut answer)?;
        assert!(answer[..len].starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer[..len]));
        Ok(())
    }
}

fn find_logs(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pod in fs::read_dir(root)? {
        for container in fs::read_dir(pod?.path())? {
            found.push(container?.path().join("0.log"));
        }
    }
    found.sort();
    Ok(found)
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, root, address] = args.as_slice() else { panic!("usage: floor DIR HOST:PORT") };
    let mut logs =
        find_logs(Path::new(root))?.iter().map(|path| Log::new(path)).collect::<Result<Vec<_>, _>>()?;
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let mut push = Push {
        connection,
        host: address.clone(),
        request: Vec::new(),
        compressed: Vec::new(),
        snappy: snap::raw::Encoder::new(),
    };
    let (mut chunk, mut waiting, mut sent) = (vec![0; CHUNK], 0, Instant::now());
    loop {
        let mut read = 0;
        for at in 0..logs.len() {
            for _ in 0..TURN {
                let log = &mut logs[at];
                let len = log.file.read(&mut chunk)?;
                if len == 0 {
                    break;
                }
                let before = log.entries.len();
                log.take(&chunk[..len]);
                read += len;
                waiting += log.entries.len() - before;
                if waiting >= REQUEST {
                    push.send(&mut logs)?;
                    (waiting, sent) = (0, Instant::now());
                }
            }
        }
        if waiting > 0 && sent.elapsed() >= FLUSH {
            push.send(&mut logs)?;
            (waiting, sent) = (0, Instant::now());
        }
        if read < CHUNK / 4 {
            std::thread::sleep(POLL);
        }
    }
}
