//! A receiver of remote write in the test's process, and pages to send to it.
//!
//! Requests are decoded by messages written from the specifications (`prompb/remote.proto`, `prompb/types.proto`,
//! `io/prometheus/write/v2/types.proto`), which share nothing with the agent's writer. What it answers, each test says.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message as _;

/// Remote write 1.0.
pub mod v1 {
    use prost::{Enumeration, Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<MetricMetadata>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(string, tag = "2")]
        pub metric_family_name: String,
        #[prost(string, tag = "4")]
        pub help: String,
        #[prost(string, tag = "5")]
        pub unit: String,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<Histogram>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct Label {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct Histogram {
        #[prost(oneof = "Count", tags = "1, 2")]
        pub count: Option<Count>,
        #[prost(double, tag = "3")]
        pub sum: f64,
        #[prost(sint32, tag = "4")]
        pub schema: i32,
        #[prost(double, tag = "5")]
        pub zero_threshold: f64,
        #[prost(oneof = "ZeroCount", tags = "6, 7")]
        pub zero_count: Option<ZeroCount>,
        #[prost(message, repeated, tag = "8")]
        pub negative_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "9")]
        pub negative_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "10")]
        pub negative_counts: Vec<f64>,
        #[prost(message, repeated, tag = "11")]
        pub positive_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "12")]
        pub positive_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "13")]
        pub positive_counts: Vec<f64>,
        #[prost(enumeration = "ResetHint", tag = "14")]
        pub reset_hint: i32,
        #[prost(int64, tag = "15")]
        pub timestamp: i64,
    }
    #[derive(Clone, Copy, PartialEq, Oneof)]
    pub enum Count {
        #[prost(uint64, tag = "1")]
        Int(u64),
        #[prost(double, tag = "2")]
        Float(f64),
    }
    #[derive(Clone, Copy, PartialEq, Oneof)]
    pub enum ZeroCount {
        #[prost(uint64, tag = "6")]
        Int(u64),
        #[prost(double, tag = "7")]
        Float(f64),
    }
    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub offset: i32,
        #[prost(uint32, tag = "2")]
        pub length: u32,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
    #[repr(i32)]
    pub enum ResetHint {
        Unknown = 0,
        Yes = 1,
        No = 2,
        Gauge = 3,
    }
}

/// Remote write 2.0. Its histograms agree with those of 1.0.
pub mod v2 {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Request {
        #[prost(string, repeated, tag = "4")]
        pub symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<super::v1::Histogram>,
        #[prost(message, repeated, tag = "4")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
        #[prost(int64, tag = "6")]
        pub created_timestamp: i64,
    }
    #[derive(Clone, PartialEq, Message)]
    pub struct Exemplar {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }
    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
        #[prost(int64, tag = "3")]
        pub start_timestamp: i64,
    }
    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Metadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }
}

/// Labels, value and milliseconds since the epoch of an exemplar.
pub type Witness = (Vec<(String, String)>, f64, i64);

/// A series as it arrived, in whatever version.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// In the order in which they were sent.
    pub labels: Vec<(String, String)>,
    /// Bits of the value and milliseconds since the epoch.
    pub samples: Vec<(u64, i64)>,
    /// What its samples' exemplars said.
    pub exemplars: Vec<Witness>,
    pub histograms: Vec<v1::Histogram>,
    /// Type, help, unit: version 2.
    pub metadata: Option<(i32, String, String)>,
    /// Since when it counts, as both forms of version 2 say it.
    pub created: (i64, i64),
}

impl Series {
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    /// Header values by lower-case name.
    pub headers: BTreeMap<String, String>,
    pub is_v2: bool,
    pub series: Vec<Series>,
    pub metadata: Vec<v1::MetricMetadata>,
    /// Compressed bytes of the body.
    pub bytes: usize,
    /// The status that was answered.
    pub status: u16,
}

impl Seen {
    /// Samples, native histograms among them.
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.samples.len() + series.histograms.len()).sum()
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub delay: Duration,
    /// The connection is closed instead.
    pub close: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn saying(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// 204 as a receiver of version 2 gives it.
    pub fn written(seen: &Seen) -> Self {
        let count = |of: fn(&Series) -> usize| seen.series.iter().map(of).sum::<usize>();
        Self::status(204)
            .with("X-Prometheus-Remote-Write-Samples-Written", count(|series| series.samples.len()))
            .with("X-Prometheus-Remote-Write-Histograms-Written", count(|series| series.histograms.len()))
            .with("X-Prometheus-Remote-Write-Exemplars-Written", count(|series| series.exemplars.len()))
    }
}

type Rule = Box<dyn FnMut(&Seen) -> Reply + Send>;

struct State {
    rule: Rule,
    seen: Vec<Seen>,
}

/// A running receiver. Ends when dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Receiver {
    /// Starts one that answers by `rule`.
    pub fn start(rule: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State { rule: Box::new(rule), seen: Vec::new() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(connection), state) = (connection, Arc::clone(&shared)) else { continue };
                std::thread::spawn(move || serve(connection, &state));
            }
        });
        Self { address, state, stop }
    }

    /// One that takes everything in version 1 and knows no other.
    pub fn of_v1() -> Self {
        Self::start(|seen| Reply::status(if seen.is_v2 { 415 } else { 204 }))
    }

    pub fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// Answers by another rule from now on.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Reply + Send + 'static) {
        self.state.lock().expect("not poisoned").rule = Box::new(rule);
    }

    /// Every request so far that had series in it.
    pub fn seen(&self) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| !seen.series.is_empty()).collect()
    }

    /// Every request so far, questions and metadata too.
    pub fn all(&self) -> Vec<Seen> {
        self.state.lock().expect("not poisoned").seen.clone()
    }

    /// Series of the requests that were answered with 2xx, in order.
    pub fn taken(&self) -> Vec<Series> {
        let seen = self.seen().into_iter().filter(|seen| (200..300).contains(&seen.status));
        seen.flat_map(|seen| seen.series).collect()
    }

    /// Waits until so many samples were taken.
    pub fn wait_for(&self, samples: usize) {
        let begun = Instant::now();
        loop {
            let taken: usize =
                self.taken().iter().map(|series| series.samples.len() + series.histograms.len()).sum();
            if taken >= samples {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{taken} of {samples} samples arrived");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `condition` holds of the requests so far.
    pub fn wait_until(&self, condition: impl Fn(&[Seen]) -> bool) {
        let begun = Instant::now();
        while !condition(&self.all()) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it did not come about: {:?}",
                self.statuses()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Statuses of the requests so far that had series in them.
    pub fn statuses(&self) -> Vec<u16> {
        self.seen().iter().map(|seen| seen.status).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(connection: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let len: usize = headers.get("content-length")?.parse().ok()?;
        let mut body = vec![0; len];
        reader.read_exact(&mut body).ok()?;
        let mut seen = decode(headers, &body);
        let reply = {
            let mut state = state.lock().expect("not poisoned");
            let reply = (state.rule)(&seen);
            seen.status = if reply.close { 0 } else { reply.status };
            state.seen.push(seen);
            reply
        };
        std::thread::sleep(reply.delay);
        if reply.close {
            return None;
        }
        let mut head = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        writer.write_all(format!("{head}\r\n{}", reply.body).as_bytes()).ok()?;
    }
}

fn decode(headers: BTreeMap<String, String>, body: &[u8]) -> Seen {
    assert_eq!(headers.get("content-encoding").map(String::as_str), Some("snappy"));
    let raw = snap::raw::Decoder::new().decompress_vec(body).expect("a snappy block");
    let kind = headers.get("content-type").expect("a content type").clone();
    let version = headers.get("x-prometheus-remote-write-version").expect("a version").clone();
    let is_v2 = match (kind.as_str(), version.as_str()) {
        ("application/x-protobuf", "0.1.0") => false,
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0") => true,
        other => panic!("{other:?} is no remote write"),
    };
    let (series, metadata) = if is_v2 {
        let request = v2::Request::decode(raw.as_slice()).expect("a request of version 2");
        let symbols = request.symbols;
        assert_eq!(symbols.first().map(String::as_str), Some(""), "the first symbol is the empty text");
        (request.timeseries.into_iter().map(|series| of_v2(&symbols, series)).collect(), Vec::new())
    } else {
        let request = v1::WriteRequest::decode(raw.as_slice()).expect("a request of version 1");
        (request.timeseries.into_iter().map(of_v1).collect(), request.metadata)
    };
    Seen { at: Instant::now(), headers, is_v2, series, metadata, bytes: body.len(), status: 0 }
}

fn of_v1(series: v1::TimeSeries) -> Series {
    let labels = |labels: Vec<v1::Label>| labels.into_iter().map(|l| (l.name, l.value)).collect();
    Series {
        labels: labels(series.labels),
        samples: series.samples.iter().map(|sample| (sample.value.to_bits(), sample.timestamp)).collect(),
        exemplars: series.exemplars.into_iter().map(|e| (labels(e.labels), e.value, e.timestamp)).collect(),
        histograms: series.histograms,
        ..Series::default()
    }
}

fn of_v2(symbols: &[String], series: v2::TimeSeries) -> Series {
    let labels = |refs: &[u32]| -> Vec<(String, String)> {
        assert_eq!(refs.len() % 2, 0);
        refs.chunks(2).map(|r| (symbols[r[0] as usize].clone(), symbols[r[1] as usize].clone())).collect()
    };
    let text = |reference: u32| symbols[reference as usize].clone();
    Series {
        labels: labels(&series.labels_refs),
        samples: series.samples.iter().map(|sample| (sample.value.to_bits(), sample.timestamp)).collect(),
        exemplars: series.exemplars.iter().map(|e| (labels(&e.labels_refs), e.value, e.timestamp)).collect(),
        metadata: series.metadata.map(|m| (m.kind, text(m.help_ref), text(m.unit_ref))),
        created: (
            series.created_timestamp,
            series.samples.first().map(|sample| sample.start_timestamp).unwrap_or_default(),
        ),
        histograms: series.histograms,
    }
}
