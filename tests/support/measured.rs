//! Real services with `/metrics`: started, called, ended by their ids.
//!
//! Each is a small program in `tests/real`; it listens on a free port, prints it as `{"port":N}` and serves until it is
//! killed. Its other lines are its log: they go into a container log where one is given.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::cri_writer::{ContainerLog, Pipe};
use super::services::python;

/// Time that a service has to listen.
const START: Duration = Duration::from_secs(60);

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// express, pino-http, prom-client.
    PromClient,
    /// The same in OpenMetrics, with exemplars.
    PromClientOpenMetrics,
    /// express, express-prom-bundle.
    Bundle,
    /// fastify, fastify-metrics.
    Fastify,
    /// Python's prometheus_client, which answers in OpenMetrics when asked.
    Python,
}

impl Kind {
    /// All services.
    pub const ALL: [Self; 5] =
        [Self::PromClient, Self::PromClientOpenMetrics, Self::Bundle, Self::Fastify, Self::Python];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PromClient => "checkout",
            Self::PromClientOpenMetrics => "orders",
            Self::Bundle => "catalog",
            Self::Fastify => "cart",
            Self::Python => "search",
        }
    }

    fn command(self) -> Command {
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
        let node = |script: &str| {
            let modules = real.join("node_modules");
            assert!(modules.exists(), "{} is missing: `make test` installs it", modules.display());
            let mut command = Command::new("node");
            command.arg(real.join("node/metrics").join(script));
            command
        };
        match self {
            Self::PromClient => node("prom_client.js"),
            Self::PromClientOpenMetrics => {
                let mut command = node("prom_client.js");
                command.env("OPENMETRICS", "1");
                command
            }
            Self::Bundle => node("bundle.js"),
            Self::Fastify => node("fastify.js"),
            Self::Python => {
                let mut command = Command::new(python());
                command.arg("-B").arg(real.join("python/with_metrics.py"));
                command
            }
        }
    }
}

/// A service that runs; killed by its id when dropped.
pub struct Measured {
    kind: Kind,
    address: SocketAddr,
    child: Child,
}

impl Measured {
    /// Starts it, and waits until it listens. What it logs goes into `log`.
    pub fn start(kind: Kind, log: Option<ContainerLog>) -> Self {
        let mut child = kind
            .command()
            .env("PYTHONUTF8", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}; run `make test`", kind.name()));
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let (found, port) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                let value = serde_json::from_slice::<Value>(&line).unwrap_or_default();
                if let (None, Some(port)) = (value.get("level"), value["port"].as_u64()) {
                    let _ = found.send(port as u16);
                } else if let Some(log) = &log {
                    log.write_line(Pipe::Stdout, &line).expect("the log can be written");
                }
            }
        });
        let port = port.recv_timeout(START);
        let mut service = Self { kind, address: ([127, 0, 0, 1], 0).into(), child };
        service.address.set_port(port.unwrap_or_else(|_| panic!("{} does not listen", kind.name())));
        service
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls a path of it; the status.
    pub fn call(&self, path: &str) -> u16 {
        get(self.address, path, &[]).0
    }

    /// The same as part of a trace.
    pub fn call_traced(&self, path: &str, trace_id: &str, span_id: &str) -> u16 {
        get(self.address, path, &[("traceparent", &format!("00-{trace_id}-{span_id}-01"))]).0
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status, content type and body of a GET over a connection of its own; status 0 when there is no answer.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
    let answer = || -> std::io::Result<(u16, String, Vec<u8>)> {
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        connection.write_all(format!("{head}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        let end =
            answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let content_type = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
        });
        Ok((status, content_type.unwrap_or_default(), body))
    };
    answer().unwrap_or_default()
}
