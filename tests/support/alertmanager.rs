//! A real Alertmanager as a child process, and a webhook that keeps what it is told.
//!
//! Debian's package `prometheus-alertmanager` brings the program; `.ci/tools` installs it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// An Alertmanager on a port of its own. Ended by its id when dropped.
pub struct Alertmanager {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Alertmanager {
    /// One with this config file.
    pub fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for its data");
        std::fs::write(directory.path().join("alertmanager.yml"), config).expect("a config file");
        let mut child = Command::new("prometheus-alertmanager")
            .args(["--config.file=alertmanager.yml", "--storage.path=data"])
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's prometheus-alertmanager; run .ci/tools");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let at = line.contains("Listening on").then(|| line.rsplit_once("address="))??;
            Some(at.1.trim().to_owned())
        });
        // Nobody may block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it listens"), _directory: directory }
    }

    /// Where it listens: `127.0.0.1:1234`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks; the body of the answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: am\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.contains(" 200 "), "{head}");
        body.to_owned()
    }

    /// All alerts that it knows.
    pub fn alerts(&self) -> Vec<Value> {
        serde_json::from_str(&self.ask("GET", "/api/v2/alerts", "")).expect("JSON")
    }

    /// Names, objectives and nodes of the alerts that are inhibited, sorted.
    pub fn inhibited(&self) -> Vec<String> {
        let is_inhibited =
            |alert: &&Value| alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty());
        let name = |alert: &Value| {
            let label = |name: &str| alert["labels"][name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", label("alertname"), label("slo_id"), label("node"))
        };
        let mut names: Vec<String> = self.alerts().iter().filter(is_inhibited).map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes notifications on a port of its own until the test ends.
pub struct Webhook {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    /// One that answers 200 to whatever it is told.
    pub fn start() -> Self {
        Self::answering(&[])
    }

    /// One that answers with these statuses, then with 200; it keeps what it answered 200 to.
    pub fn answering(statuses: &[u16]) -> Self {
        let mut statuses = VecDeque::from(statuses.to_vec());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(said) = take(&stream) else { continue };
                let status = statuses.pop_front().unwrap_or(200);
                if status == 200 {
                    seen.lock().expect("not poisoned").push(said);
                }
                let mut stream = stream;
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
                );
            }
        });
        Self { address, told }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that it was told, oldest first.
    pub fn bodies(&self) -> Vec<Value> {
        self.told.lock().expect("not poisoned").clone()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The alerts of all notifications, oldest first: each with its `status`, labels and annotations.
    pub fn alerts(&self) -> Vec<Value> {
        self.bodies().iter().flat_map(|said| said["alerts"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// What one connection says.
fn take(stream: &TcpStream) -> Option<Value> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut from = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        from.read_line(&mut line).ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        let header = line.to_ascii_lowercase();
        if let Some(said) = header.strip_prefix("content-length:") {
            length = said.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
