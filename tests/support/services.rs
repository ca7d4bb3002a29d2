//! Real services, whose loggers write the lines that the tests ship.
//!
//! Each is a small program in `tests/real`: it starts, calls itself a number of times, logs, and ends by itself. What it
//! prints becomes a container log. [`Kind::expect`] says what a line means, by `serde_json` and the loggers' documentation
//! alone: the agent's parser has no part in it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cri_writer::{ContainerLog, Line, Pipe};

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// express, pino, pino-http and OpenTelemetry.
    PinoTraced,
    /// express, pino, pino-http.
    Pino,
    /// fastify and OpenTelemetry.
    FastifyTraced,
    /// winston and OpenTelemetry.
    WinstonTraced,
    /// bunyan and OpenTelemetry.
    BunyanTraced,
    /// structlog and OpenTelemetry.
    Structlog,
    /// python-json-logger.
    JsonLogger,
}

/// What a line must arrive with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// OpenTelemetry severity number.
    pub severity: u8,
    /// Loki's word for it.
    pub level: &'static str,
    /// Trace id in hexadecimal, if the line has or implies one.
    pub trace_id: Option<String>,
    /// Span id in hexadecimal, if the line has or implies one.
    pub span_id: Option<String>,
}

impl Kind {
    /// All services.
    pub const ALL: [Self; 7] = [
        Self::PinoTraced,
        Self::Pino,
        Self::FastifyTraced,
        Self::WinstonTraced,
        Self::BunyanTraced,
        Self::Structlog,
        Self::JsonLogger,
    ];

    /// Name of the service and of its container.
    pub fn name(self) -> &'static str {
        match self {
            Self::PinoTraced => "checkout",
            Self::Pino => "catalog",
            Self::FastifyTraced => "orders",
            Self::WinstonTraced => "payments",
            Self::BunyanTraced => "cart",
            Self::Structlog => "search",
            Self::JsonLogger => "billing",
        }
    }

    /// Name of the pod's directory: a pod of a Deployment.
    pub fn pod_dir(self) -> String {
        format!("shop_{}-7d9f8b6c5-x2k4{}_{}", self.name(), self.digit(), self.uid())
    }

    /// The pod's name.
    pub fn pod(self) -> String {
        format!("{}-7d9f8b6c5-x2k4{}", self.name(), self.digit())
    }

    fn digit(self) -> u8 {
        // Kubernetes' suffixes know no 0, 1 and 3.
        [2, 4, 5, 6, 7, 8, 9][self.index()]
    }

    fn uid(self) -> String {
        format!("5c1ad1f0-0000-4000-8000-00000000000{}", self.index())
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).expect("a kind is one of all")
    }

    /// First half of the trace id of each of its requests; the other half is the request's number, from 1.
    pub fn seed(self) -> String {
        format!("{:016x}", 0xa0 + self.index())
    }

    fn command(self) -> Command {
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
        let node = |script: &str, traced: bool| {
            installed(&real.join("node_modules"));
            let mut command = Command::new("node");
            if traced {
                command.arg("--require").arg(real.join("node/otel.js"));
            }
            command.arg(real.join("node").join(script));
            command
        };
        let python = |script: &str| {
            let mut command = Command::new(python());
            command.arg("-B").arg(real.join("python").join(script));
            command
        };
        let mut command = match self {
            Self::PinoTraced => node("pino.js", true),
            Self::Pino => node("pino.js", false),
            Self::FastifyTraced => node("fastify.js", true),
            Self::WinstonTraced => node("winston.js", true),
            Self::BunyanTraced => node("bunyan.js", true),
            Self::Structlog => python("with_structlog.py"),
            Self::JsonLogger => python("with_json_logger.py"),
        };
        // Its spans go nowhere, and it asks no cloud who it is.
        for exporter in ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"] {
            command.env(exporter, "none");
        }
        command.env("OTEL_NODE_RESOURCE_DETECTORS", "none").env("PYTHONUTF8", "1").env("SEED", self.seed());
        command
    }

    /// Starts the service; what it prints goes into `log`.
    pub fn start(self, log: &ContainerLog, load: Load) -> Running {
        let mut child = self
            .command()
            .env("REQUESTS", load.requests.to_string())
            .env("PAUSE_MS", load.pause.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}; run `make test`", self.name()));
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (first, second) = (log.clone(), log.clone());
        let pipes = vec![
            std::thread::spawn(move || first.copy(Pipe::Stdout, stdout)),
            std::thread::spawn(move || second.copy(Pipe::Stderr, stderr)),
        ];
        Running { kind: self, child, pipes }
    }

    /// What `lines`, all of one container in their order, must arrive with.
    pub fn expect(self, lines: &[Line]) -> Vec<Expected> {
        let (mut by_request, mut generation, mut begun) = (HashMap::new(), 0, Vec::new());
        let each = lines.iter().map(|line| {
            // Request ids are forgotten at a rotation: the file before may be gone when the next is read again.
            if line.generation != generation {
                by_request.clear();
                begun.clear();
                generation = line.generation;
            }
            // The first line of a stream may have begun in the file before, so it teaches nothing.
            let is_first = !begun.contains(&line.pipe);
            begun.push(line.pipe);
            if is_first {
                return self.expect_line(&line.text, &mut by_request.clone());
            }
            self.expect_line(&line.text, &mut by_request)
        });
        each.collect()
    }

    fn expect_line(self, line: &[u8], by_request: &mut HashMap<String, String>) -> Expected {
        let line: Value = serde_json::from_slice(line).expect("a logger writes JSON");
        let text = |path: &str| line.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let severity = match self {
            Self::PinoTraced | Self::Pino | Self::FastifyTraced | Self::BunyanTraced => {
                // pino and bunyan: trace 10, debug 20, info 30, warn 40, error 50, fatal 60.
                line["level"].as_u64().map(|level| (level as u8 / 10 - 1) * 4 + 1)
            }
            Self::WinstonTraced | Self::Structlog => text("/level").map(|word| severity_of(&word)),
            Self::JsonLogger => text("/severity").map(|word| severity_of(&word)),
        };
        // The header has the caller's span: the nearest that a line without a span of its own can name.
        let header = text("/req/headers/traceparent").unwrap_or_default();
        let mut header = header.split('-').skip(1).map(str::to_owned);
        let (caller_trace, caller_span) = (header.next(), header.next());
        let (mut trace_id, span_id) = match text("/trace_id") {
            Some(own) => (Some(own), text("/span_id")),
            None => (caller_trace, caller_span),
        };
        if let Some(request) = text("/request_id") {
            // Inheritance: a line without a trace id has that of an earlier line with the same request id.
            match &trace_id {
                Some(id) => drop(by_request.insert(request, id.clone())),
                None => trace_id = by_request.get(&request).cloned(),
            }
        }
        let severity = severity.expect("a logger writes a level");
        let level = ["trace", "debug", "info", "warn", "error", "fatal"][usize::from(severity - 1) / 4];
        Expected { severity, level, trace_id, span_id }
    }

    /// True when the logger writes, or the line implies, a trace id on every line of a request.
    pub fn names_traces(self) -> bool {
        self != Self::JsonLogger
    }
}

/// OpenTelemetry's number for a word: "Mapping of `SeverityNumber`" in the logs data model; `critical` is Python's
/// highest level, which OpenTelemetry's own Python handler maps to FATAL.
fn severity_of(word: &str) -> u8 {
    match word.to_ascii_lowercase().as_str() {
        "debug" => 5,
        "info" => 9,
        "warn" | "warning" => 13,
        "error" => 17,
        "critical" => 21,
        other => panic!("no service here writes level {other:?}"),
    }
}

/// What a service has to do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests that it makes to itself, or pieces of work.
    pub requests: u32,
    /// Time between two of them.
    pub pause: Duration,
}

/// A service that runs; killed by its id when dropped.
pub struct Running {
    kind: Kind,
    child: Child,
    pipes: Vec<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Waits until the service has ended by itself and all that it printed is in its log.
    pub fn finish(mut self, within: Duration) {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status;
            }
            assert!(Instant::now() < deadline, "{} has not ended within {within:?}", self.kind.name());
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{} ended with {status}", self.kind.name());
        for pipe in self.pipes.drain(..) {
            pipe.join().expect("no panic").expect("the log can be written");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when the service has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter with the packages that the tests need.
pub fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    installed(&python);
    python
}

fn installed(path: &Path) {
    assert!(path.exists(), "{} is missing: `make test` installs it", path.display());
}
