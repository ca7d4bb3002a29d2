//! Sends requests of metrics, one at a time.
//!
//! In: compressed requests from the metrics thread, which never waits. Out: requests through a [`Transport`], figures into
//! the metrics table. What waits is bounded by bytes (the oldest goes first) and by age. By the OTLP specification a
//! request is sent again for 429, 502, 503, 504, an unreachable endpoint and the gRPC codes that it lists, with their
//! `Retry-After` or `RetryInfo`; every other refusal is final, and `partial_success` is counted and never sent again. One
//! that is too large is sent in halves.
//!
//! An endpoint that has no metrics (404, UNIMPLEMENTED) is told once, what comes is dropped and counted, and one request
//! in [`OFF`] finds out whether it has them now.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::super::deliver::Transport as _;
use super::super::judge::{self, Judgement};
use super::super::pack::Packer;
use super::super::{Compression, Protocol, Transport, grpc};
use super::Config;
use crate::data::clock;
use crate::metrics;
use crate::sink::deliver::Mix;
use crate::sink::{Answer, Verdict, said};

/// First and longest wait between two tries, before jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest wait that a backend may ask for.
const MAX_AFTER: Duration = Duration::from_secs(300);
/// Failures in a row after which the endpoint counts as down.
const DOWN_AFTER: u32 = 3;
/// How long an endpoint without metrics is left alone.
const OFF: Duration = Duration::from_secs(600);

/// One request.
#[derive(Debug, Clone)]
struct Packed {
    body: Bytes,
    points: u64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Packed>,
    bytes: u64,
    closed: bool,
}

/// Requests that wait.
pub(super) struct Buffer {
    name: String,
    limit: u64,
    max_age: Duration,
    queue: Mutex<Queue>,
    arrived: Notify,
    /// The endpoint takes no metrics at present.
    off: AtomicBool,
    queue_bytes: prometheus::IntGauge,
}

impl Buffer {
    pub(super) fn new(name: &str, config: &Config) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            limit: config.buffer.0,
            max_age: config.max_age.0,
            queue: Mutex::default(),
            arrived: Notify::new(),
            off: AtomicBool::new(false),
            queue_bytes: metrics::SINK_SAMPLES_QUEUE_BYTES.with_label_values(&[name]),
        })
    }

    /// Adds a request; the oldest ones make room.
    pub(super) fn push(&self, body: Bytes, points: u64) {
        let mut lost = 0;
        {
            let mut queue = self.queue.lock();
            queue.bytes += body.len() as u64;
            queue.waiting.push_back(Packed { body, points, since: Instant::now() });
            while queue.bytes > self.limit && queue.waiting.len() > 1 {
                lost += queue.pop().map_or(0, |packed| packed.points);
            }
            self.shown(&queue);
        }
        self.lose("buffer_full", lost);
        self.arrived.notify_one();
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    /// True while the endpoint takes no metrics.
    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Counts points that are lost.
    pub(super) fn lose(&self, reason: &str, points: u64) {
        if points > 0 {
            metrics::SINK_SAMPLES_LOST.with_label_values(&[self.name.as_str(), reason]).inc_by(points);
        }
    }

    fn shown(&self, queue: &Queue) {
        self.queue_bytes.set(i64::try_from(queue.bytes).unwrap_or(i64::MAX));
    }

    /// The oldest request that is not too old.
    fn take(&self) -> Option<Packed> {
        let mut lost = 0;
        let taken = {
            let mut queue = self.queue.lock();
            let taken = loop {
                match queue.pop() {
                    Some(packed) if packed.since.elapsed() > self.max_age => lost += packed.points,
                    other => break other,
                }
            };
            self.shown(&queue);
            taken
        };
        self.lose("too_old", lost);
        taken
    }

    /// Waits for a request; `None` when none will come.
    async fn next(&self) -> Option<Packed> {
        loop {
            if let Some(packed) = self.take() {
                return Some(packed);
            }
            if self.queue.lock().closed {
                return None;
            }
            self.arrived.notified().await;
        }
    }

    fn empty(&self) -> u64 {
        let mut queue = self.queue.lock();
        let points = queue.waiting.drain(..).map(|packed| packed.points).sum();
        queue.bytes = 0;
        self.shown(&queue);
        points
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Packed> {
        let packed = self.waiting.pop_front()?;
        self.bytes -= packed.body.len() as u64;
        Some(packed)
    }
}

/// Sends until nothing more comes and all is sent or given up, or until `kill` is cancelled.
pub(super) async fn run(
    name: String,
    transport: Transport,
    tenant: Option<String>,
    way: (Protocol, Compression),
    buffer: Arc<Buffer>,
    kill: CancellationToken,
) {
    let mut sender = Sender {
        delivered: metrics::SINK_SAMPLES.with_label_values(&[name.as_str(), "delivered"]),
        up: metrics::SINK_UP.with_label_values(&[name.as_str()]),
        last_success: crate::sink::last_success(&name),
        name,
        transport,
        tenant,
        way,
        buffer: Arc::clone(&buffer),
        failures: 0,
        told: None,
        random: Mix::new(),
    };
    sender.up.set(1);
    let work = async {
        while let Some(packed) = buffer.next().await {
            sender.deliver(packed).await;
        }
    };
    tokio::select! {
        () = kill.cancelled() => buffer.lose("shutdown", buffer.empty()),
        () = work => {}
    }
}

struct Sender {
    name: String,
    transport: Transport,
    tenant: Option<String>,
    way: (Protocol, Compression),
    buffer: Arc<Buffer>,
    delivered: prometheus::IntCounter,
    up: prometheus::IntGauge,
    last_success: prometheus::IntGauge,
    failures: u32,
    /// What was last said of a refusal or a warning.
    told: Option<String>,
    random: Mix,
}

impl Sender {
    /// Sends a request until it is taken, refused or too old.
    async fn deliver(&mut self, packed: Packed) {
        // Halves of a request that is too large; their number is bounded by the points.
        let mut parts = vec![packed];
        while let Some(packed) = parts.pop() {
            let answer = self.send(packed.body.clone()).await;
            if lacks_metrics(&answer) {
                self.count("refused");
                self.rest(&answer, packed.points).await;
                continue;
            }
            let Judgement { verdict, warning } = judge::judge(&answer, packed.points, false);
            if let Some(message) = warning {
                self.tell("OTLP backend took metrics with a warning", message);
            }
            match verdict {
                Verdict::Delivered => {
                    self.count("delivered");
                    self.last_success.set(clock::unix_ms() / 1000);
                    self.delivered.inc_by(packed.points);
                    self.works(true, &answer);
                }
                Verdict::Partial { refused, message } => {
                    self.count("delivered");
                    self.last_success.set(clock::unix_ms() / 1000);
                    self.delivered.inc_by(packed.points - refused.min(packed.points));
                    self.buffer.lose("partial_success", refused);
                    self.works(true, &answer);
                    self.tell("OTLP backend took a request of metrics in part", message);
                }
                Verdict::Refused { message, .. } => {
                    self.count("refused");
                    self.buffer.lose("refused", packed.points);
                    // It answers: it is not down.
                    self.works(true, &answer);
                    self.tell("OTLP backend refused metrics for good", message);
                }
                Verdict::Split => {
                    self.count("split");
                    match halves(&packed, self.way) {
                        Some([first, second]) => parts.extend([second, first]),
                        None => self.buffer.lose("too_large", packed.points),
                    }
                }
                Verdict::Retry { after } => self.wait(packed, after, &answer, &mut parts).await,
                Verdict::Unauthorized => self.wait(packed, None, &answer, &mut parts).await,
            }
        }
    }

    async fn send(&self, body: Bytes) -> Answer {
        metrics::SINK_SENT_BYTES.with_label_values(&[self.name.as_str()]).inc_by(body.len() as u64);
        let span = tracing::info_span!("send", otel.kind = "client", sink = %self.name, bytes = body.len());
        let begun = Instant::now();
        let answer = self.transport.send(self.tenant.as_deref(), body).instrument(span).await;
        let seconds = metrics::SINK_REQUEST_SECONDS.with_label_values(&[self.name.as_str()]);
        seconds.observe(begun.elapsed().as_secs_f64());
        answer
    }

    /// Waits before the same request is sent again, unless it is too old by then.
    async fn wait(
        &mut self,
        packed: Packed,
        after: Option<Duration>,
        answer: &Answer,
        parts: &mut Vec<Packed>,
    ) {
        self.count("retry");
        said::note(&self.name, &answer.explain());
        self.works(false, answer);
        let doublings = self.failures.saturating_sub(1).min(16);
        let wait = BACKOFF.0.saturating_mul(1 << doublings).min(BACKOFF.1);
        let wait = after.unwrap_or(wait.mul_f64(self.jitter())).min(MAX_AFTER);
        tokio::time::sleep(wait).await;
        if packed.since.elapsed() > self.buffer.max_age {
            self.buffer.lose("too_old", packed.points);
        } else {
            parts.push(packed);
        }
    }

    /// The endpoint has no metrics: what comes is dropped until it is time to ask again.
    async fn rest(&mut self, answer: &Answer, points: u64) {
        self.buffer.lose("unimplemented", points);
        let error = answer.explain();
        said::note(&self.name, &error);
        let told = "no metrics there".to_owned();
        if self.told.as_ref() != Some(&told) {
            let endpoint = self.transport.target();
            tracing::warn!(sink = %self.name, endpoint, %error,
                "the OTLP endpoint takes no metrics: they are dropped; set signals = [\"logs\"] in this sink, or correct its endpoint");
            self.told = Some(told);
        }
        self.up.set(0);
        self.buffer.off.store(true, Ordering::Relaxed);
        self.buffer.lose("unimplemented", self.buffer.empty());
        let closed = async {
            while !self.buffer.queue.lock().closed {
                self.buffer.arrived.notified().await;
            }
        };
        let _ = tokio::time::timeout(OFF, closed).await;
        self.buffer.off.store(false, Ordering::Relaxed);
    }

    fn count(&self, outcome: &str) {
        metrics::SINK_REQUESTS.with_label_values(&[self.name.as_str(), outcome]).inc();
    }

    /// Takes note of whether the endpoint works; says so when that changes.
    fn works(&mut self, works: bool, answer: &Answer) {
        let endpoint = self.transport.target();
        if works {
            if self.failures >= DOWN_AFTER {
                tracing::info!(sink = %self.name, endpoint, "sink is back");
            }
            self.failures = 0;
            self.up.set(1);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures == DOWN_AFTER {
            self.up.set(0);
            let error = answer.explain();
            tracing::warn!(sink = %self.name, endpoint, %error, "sink is down, retrying");
        }
    }

    /// Says something once per change.
    fn tell(&mut self, what: &str, message: String) {
        if self.told.as_ref() != Some(&message) {
            tracing::warn!(sink = %self.name, %message, "{what}");
            self.told = Some(message);
        }
    }

    /// Between a half and one and a half.
    fn jitter(&mut self) -> f64 {
        0.5 + (self.random.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// True when the endpoint answers that it has no metrics.
fn lacks_metrics(answer: &Answer) -> bool {
    matches!(answer, Answer::Http { status: 404 | 405, .. } | Answer::Grpc { code: 12, .. })
}

/// A request in halves: by resources, then by metrics. `None` when it is a single metric.
fn halves(packed: &Packed, (protocol, compression): (Protocol, Compression)) -> Option<[Packed; 2]> {
    let body = if protocol == Protocol::Grpc { packed.body.get(grpc::FRAME_HEADER..)? } else { &packed.body };
    let mut plain = Vec::new();
    // What we compressed ourselves; the bound is one request's.
    match compression {
        Compression::None => plain.extend_from_slice(body),
        Compression::Gzip => {
            flate2::read::GzDecoder::new(body).read_to_end(&mut plain).ok()?;
        }
        Compression::Zstd => plain = zstd::bulk::decompress(body, 4 * super::encode::MAX_REQUEST).ok()?,
    }
    let mut first = ExportMetricsServiceRequest::decode(plain.as_slice()).ok()?;
    let mut second = ExportMetricsServiceRequest::default();
    let resources = first.resource_metrics.len();
    if resources > 1 {
        second.resource_metrics = first.resource_metrics.split_off(resources / 2);
    } else {
        let scope = first.resource_metrics.first_mut()?.scope_metrics.first_mut()?;
        let metrics = scope.metrics.len();
        if metrics < 2 {
            return None;
        }
        let rest = scope.metrics.split_off(metrics / 2);
        second = first.clone();
        second.resource_metrics[0].scope_metrics[0].metrics = rest;
    }
    let mut packer = Packer::new(protocol, compression);
    let mut pack = |request: &ExportMetricsServiceRequest| {
        let mut body = Vec::new();
        packer.pack(&request.encode_to_vec(), &mut body);
        Packed { body: body.into(), points: points_of(request), since: packed.since }
    };
    Some([pack(&first), pack(&second)])
}

fn points_of(request: &ExportMetricsServiceRequest) -> u64 {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    });
    points.sum::<usize>() as u64
}
