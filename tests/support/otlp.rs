//! Starts `otlp_receiver.py` and reads what it took.

#![allow(dead_code, reason = "each test file uses another part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running receiver; it ends with its standard input, at the latest when this drops.
pub(crate) struct Receiver {
    child: Child,
    stdin: Option<ChildStdin>,
    dir: tempfile::TempDir,
    /// Port of OTLP over HTTP.
    pub(crate) http: u16,
    /// Port of OTLP over gRPC.
    pub(crate) grpc: u16,
}

/// The Python of the test environment, which `make test` creates.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing; create it: python3 -m venv target/venv && \
         target/venv/bin/pip install -r tests/support/requirements.txt",
        python.display()
    );
    python
}

impl Receiver {
    /// Starts a receiver with further arguments.
    pub(crate) fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/otlp_receiver.py");
        let mut child = Command::new(python())
            .arg(script)
            .arg("--records")
            .arg(dir.path().join("records.jsonl"))
            .arg("--requests")
            .arg(dir.path().join("requests.jsonl"))
            .args(args)
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver starts");
        let stdin = child.stdin.take();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the receiver speaks");
        let ports: Value =
            serde_json::from_str(&line).expect("the receiver says its ports; see its standard error above");
        let port =
            |name: &str| ports[name].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        Self { child, stdin, dir, http: port("http"), grpc: port("grpc") }
    }

    /// Makes the next requests answer by these faults, as the receiver's head describes them.
    pub(crate) fn inject(&self, faults: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).expect("the receiver listens");
        write!(
            stream,
            "POST /_faults HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{faults}",
            faults.len()
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }

    /// Every record and span taken so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.lines("records.jsonl")
    }

    /// Every request seen so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.lines("requests.jsonl")
    }

    /// Waits until `done` is true of the records, at most 15 s; returns them.
    pub(crate) fn wait_for(&self, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let records = self.records();
            if done(&records) {
                return records;
            }
            assert!(Instant::now() < end, "the receiver only has {records:#?}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join(name)).expect("the receiver's file");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
