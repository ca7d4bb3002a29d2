//! A real Prometheus, and a real VictoriaMetrics, as child processes: started on a free port with a directory of their own,
//! asked by their query API, stopped, started again on the same data, ended by their ids when dropped.
//!
//! Debian's packages `prometheus` and `victoria-metrics` bring the programs; `.ci/tools` installs them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::agent::free_address;

/// Time that a server has to become ready: a loaded machine starts several at once.
const START: Duration = Duration::from_secs(60);

/// Labels of a series, `__name__` among them.
pub type Labels = BTreeMap<String, String>;

/// A server and its directory. Ended by its id when dropped.
pub struct Server {
    program: &'static str,
    arguments: Vec<String>,
    ready: &'static str,
    address: SocketAddr,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    fn start(
        program: &'static str,
        ready: &'static str,
        arguments: impl Fn(SocketAddr, &Path) -> Vec<String>,
    ) -> Self {
        let mut said = String::new();
        // Another process may take the port between our finding it free and the server's binding it.
        for _ in 0..5 {
            let directory = tempfile::tempdir().expect("a directory for its data");
            let address = free_address();
            let arguments = arguments(address, directory.path());
            let mut server = Self { program, arguments, ready, address, directory, child: None };
            match server.try_launch() {
                Ok(()) => return server,
                Err(error) => said = error,
            }
        }
        panic!("{program} does not start: {said}");
    }

    fn try_launch(&mut self) -> Result<(), String> {
        let output = self.directory.path().join("output");
        let output =
            OpenOptions::new().create(true).append(true).open(output).expect("a file for its output");
        let child = Command::new(self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run .ci/tools", self.program));
        let child = self.child.insert(child);
        let begun = Instant::now();
        loop {
            if let Some(ended) = child.try_wait().expect("our own child") {
                self.child = None;
                return Err(format!("ended with {ended}: {}", self.said()));
            }
            if get(self.address, self.ready).is_ok_and(|(status, _)| status == 200)
                && child.try_wait().expect("our own child").is_none()
            {
                return Ok(());
            }
            if begun.elapsed() > START {
                self.stop();
                return Err(format!("not ready after {START:?}: {}", self.said()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts it again, on the same port with the same data.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.program);
        let program = self.program;
        self.try_launch().unwrap_or_else(|error| panic!("{program} does not start again: {error}"));
    }

    /// Ends it (kill -9: both keep a write-ahead log, or flush within a second) and waits for the end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Ends it politely, with SIGTERM, so that everything is on disk.
    pub fn terminate(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid =
            i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begun = Instant::now();
        while child.try_wait().expect("our own child").is_none() {
            if begun.elapsed() > START {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own directory: data, config, output.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let (status, body) = get(self.address, path)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Status and body of a POST.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        ask(self.address, "POST", path, headers, body)
    }

    /// What it printed, its end.
    pub fn said(&self) -> String {
        let text = fs::read(self.directory.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }

    /// `data` of an answer of the query API; panics with the server's words when it refuses.
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
        let path = format!("{path}?{}", query.join("&"));
        let (status, body) = self.get(&path).expect("an answer");
        let answer: Value =
            serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {status}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {body}");
        answer["data"].clone()
    }

    /// An instant query: value by labels. `at` is in seconds since the epoch; `None` is now.
    pub fn query(&self, promql: &str, at: Option<f64>) -> BTreeMap<Labels, f64> {
        let data = match at {
            Some(at) => self.api("/api/v1/query", &[("query", promql), ("time", &format!("{at:.3}"))]),
            None => self.api("/api/v1/query", &[("query", promql)]),
        };
        let results = data["result"].as_array().expect("a vector");
        results.iter().map(|one| (labels(&one["metric"]), number(&one["value"][1]))).collect()
    }

    /// The raw samples of `selector` in the `window` (`5m`) up to `at`, by labels: milliseconds since the epoch and value.
    /// Marks of staleness are not among them: the query engine hides them.
    pub fn samples(&self, selector: &str, window: &str, at: f64) -> BTreeMap<Labels, Vec<(i64, f64)>> {
        let promql = format!("{selector}[{window}]");
        let data = self.api("/api/v1/query", &[("query", &promql), ("time", &format!("{at:.3}"))]);
        let results = data["result"].as_array().expect("a matrix");
        results
            .iter()
            .map(|one| {
                let points = one["values"].as_array().map(Vec::as_slice).unwrap_or_default();
                (
                    labels(&one["metric"]),
                    points.iter().map(|point| (millis(&point[0]), number(&point[1]))).collect(),
                )
            })
            .collect()
    }

    /// A range query: points by labels, milliseconds since the epoch and value. A gap is where a series had ended.
    pub fn range(&self, promql: &str, start: f64, end: f64, step: f64) -> BTreeMap<Labels, Vec<(i64, f64)>> {
        let [start, end, step] = [start, end, step].map(|seconds| format!("{seconds:.3}"));
        let parameters = [("query", promql), ("start", &start), ("end", &end), ("step", &step)];
        let data = self.api("/api/v1/query_range", &parameters);
        let results = data["result"].as_array().expect("a matrix");
        results
            .iter()
            .map(|one| {
                let points = one["values"].as_array().map(Vec::as_slice).unwrap_or_default();
                (
                    labels(&one["metric"]),
                    points.iter().map(|point| (millis(&point[0]), number(&point[1]))).collect(),
                )
            })
            .collect()
    }

    /// Every label set that matches, over all time.
    pub fn series(&self, selector: &str) -> Vec<Labels> {
        let data =
            self.api("/api/v1/series", &[("match[]", selector), ("start", "0"), ("end", "99999999999")]);
        data.as_array().expect("label sets").iter().map(labels).collect()
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failure")]
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.program, self.said());
        }
    }
}

/// A Prometheus that takes remote write, exemplars and native histograms.
pub struct Prometheus(Server);

impl std::ops::Deref for Prometheus {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl std::ops::DerefMut for Prometheus {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

impl Prometheus {
    /// One that only receives.
    pub fn start() -> Self {
        Self::with("", &[])
    }

    /// One with this config file (YAML: `scrape_configs`, `rule_files`, `alerting`) and further arguments.
    pub fn with(config: &str, further: &[&str]) -> Self {
        let config = if config.is_empty() { "global: {}\n" } else { config };
        Self(Server::start("prometheus", "/-/ready", |address, directory| {
            let file = directory.join("prometheus.yml");
            fs::write(&file, config).expect("a config file");
            let mut arguments = vec![
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".to_owned(),
                "--web.enable-lifecycle".to_owned(),
                "--enable-feature=exemplar-storage,native-histograms".to_owned(),
                "--storage.tsdb.retention.time=3650d".to_owned(),
                "--log.level=info".to_owned(),
            ];
            arguments.extend(further.iter().map(|&argument| argument.to_owned()));
            arguments
        }))
    }

    /// Where samples are written to.
    pub fn write_url(&self) -> String {
        self.url("/api/v1/write")
    }

    /// The config file; [`reload`](Self::reload) makes Prometheus read it again.
    pub fn config_file(&self) -> PathBuf {
        self.directory().join("prometheus.yml")
    }

    /// Makes it read its config again.
    pub fn reload(&self) {
        let (status, body) = self.post("/-/reload", &[], b"").expect("an answer");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }

    /// Exemplars of `promql` between two times in seconds, by the labels of their series.
    pub fn exemplars(&self, promql: &str, start: f64, end: f64) -> BTreeMap<Labels, Vec<(Labels, i64, f64)>> {
        let [start, end] = [start, end].map(|seconds| format!("{seconds:.3}"));
        let data =
            self.api("/api/v1/query_exemplars", &[("query", promql), ("start", &start), ("end", &end)]);
        let results = data.as_array().expect("exemplars by series");
        results
            .iter()
            .map(|one| {
                let exemplars = one["exemplars"].as_array().expect("exemplars").iter();
                let exemplars =
                    exemplars.map(|e| (labels(&e["labels"]), millis(&e["timestamp"]), number(&e["value"])));
                (labels(&one["seriesLabels"]), exemplars.collect())
            })
            .collect()
    }
}

/// A VictoriaMetrics that takes remote write.
pub struct VictoriaMetrics(Server);

impl std::ops::Deref for VictoriaMetrics {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl std::ops::DerefMut for VictoriaMetrics {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

impl VictoriaMetrics {
    /// One whose newest samples are found at once (after [`flush`](Self::flush)).
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with further arguments.
    pub fn with(further: &[&str]) -> Self {
        Self(Server::start("victoria-metrics", "/health", |address, directory| {
            let mut arguments = vec![
                format!("-storageDataPath={}", directory.join("data").display()),
                format!("-httpListenAddr={address}"),
                "-retentionPeriod=100y".to_owned(),
                "-search.latencyOffset=0s".to_owned(),
                "-search.disableCache".to_owned(),
                "-memory.allowedBytes=64MB".to_owned(),
            ];
            arguments.extend(further.iter().map(|&argument| argument.to_owned()));
            arguments
        }))
    }

    /// Where samples are written to.
    pub fn write_url(&self) -> String {
        self.url("/api/v1/write")
    }

    /// Makes what it has taken visible to queries.
    pub fn flush(&self) {
        assert_eq!(self.get("/internal/force_flush").expect("an answer").0, 200);
    }

    /// Every raw sample of `selector`, by labels: milliseconds since the epoch and value. `None` is a NaN: JSON has none.
    pub fn export(&self, selector: &str) -> BTreeMap<Labels, Vec<(i64, Option<f64>)>> {
        let path = format!(
            "/api/v1/export?match[]={}&start=0&end=99999999999&reduce_mem_usage=1",
            percent(selector)
        );
        let (status, body) = self.get(&path).expect("an answer");
        assert_eq!(status, 200, "{body}");
        let mut found: BTreeMap<Labels, Vec<(i64, Option<f64>)>> = BTreeMap::new();
        for line in body.lines() {
            let one: Value = serde_json::from_str(line).expect("a line of JSON");
            let values = one["values"].as_array().expect("values").iter();
            let times = one["timestamps"].as_array().expect("times").iter();
            let samples =
                times.zip(values).map(|(time, value)| (time.as_i64().expect("a time"), optional(value)));
            let series = found.entry(labels(&one["metric"])).or_default();
            series.extend(samples);
            series.sort_by_key(|(time, _)| *time);
        }
        found
    }
}

fn labels(value: &Value) -> Labels {
    let object = value.as_object().expect("labels");
    object.iter().map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect()
}

fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().expect("a number"),
        value => value.as_f64().expect("a number"),
    }
}

/// VictoriaMetrics writes infinities as text in its export.
fn optional(value: &Value) -> Option<f64> {
    match value {
        Value::Null => None,
        value => Some(number(value)),
    }
}

fn millis(seconds: &Value) -> i64 {
    (seconds.as_f64().expect("seconds") * 1000.0).round() as i64
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    ask(address, "GET", path, &[], b"")
}

/// One request over a connection of its own. HTTP/1.0, so that the answer is never chunked.
fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<(u16, Vec<u8>)> {
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    connection.write_all(body)?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    Ok((status, answer.split_off(end + 4)))
}
