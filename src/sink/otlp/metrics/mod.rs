//! The OTLP metrics sink: pages in, requests out.
//!
//! ```text
//! pages ► encode (metrics thread) ► compressed requests, bounded by bytes and age ► deliver (tokio), one at a time
//! ```
//!
//! Invariants: a page is encoded while it is borrowed and the metrics thread never waits; requests leave in the order in
//! which they were made, one at a time, so that no series goes backwards; what is dropped is counted by its reason.

mod deliver;
mod encode;
mod gather;
mod point;
mod resource;
mod starts;
mod units;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::deliver::Buffer;
use self::encode::Encoder;
use super::pack::Packer;
use super::{Error, Signal};
use crate::data::sample::{Collect, Origin, Page};
use crate::data::units::{ByteSize, Span};
use crate::metrics;
use crate::sink::loki::is_tenant;

/// How metrics wait for a backend that is away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Compressed requests that may wait in memory. Beyond it the oldest are dropped and counted.
    pub buffer: ByteSize, // 8MiB
    /// How long they may wait. What is older is dropped and counted.
    pub max_age: Span, // 5m
}

impl Default for Config {
    fn default() -> Self {
        Self { buffer: ByteSize::mib(8), max_age: Span::secs(300) }
    }
}

impl Config {
    /// What the sink may hold in memory, in bytes, by what holds it. State of points grows with the series, 32 bytes each
    /// that is a counter, a histogram or a summary.
    pub fn memory_bound(&self) -> Vec<(&'static str, u64)> {
        // The message under way: its points, its metrics, itself; a request of which one is being sent.
        vec![
            ("metrics that wait", self.buffer.0),
            ("metrics being encoded and sent", 6 * encode::MAX_REQUEST as u64),
        ]
    }
}

/// Starts the metrics of an OTLP sink: what takes pages, and the task that sends them until the former is dropped and
/// everything is sent or given up, or `kill` is cancelled.
pub fn sink(
    name: &str,
    config: &super::Config,
    kill: CancellationToken,
) -> Result<(Box<dyn Collect>, impl Future<Output = ()> + Send + use<>), Error> {
    if let Some(tenant) = config.tenant.as_deref().filter(|tenant| !is_tenant(tenant)) {
        return Err(Error::Tenant(tenant.to_owned()));
    }
    let transport = config.transport(Signal::Metrics)?;
    let buffer = Buffer::new(name, &config.metrics);
    let collector = Collector {
        encoder: Encoder::default(),
        packer: Packer::new(config.protocol, config.compression),
        buffer: Arc::clone(&buffer),
        untold: metrics::SINK_SAMPLES_LOST.with_label_values(&[name, "unsupported"]),
        counted: 0,
    };
    let task = deliver::run(
        name.to_owned(),
        transport,
        config.tenant.clone(),
        (config.protocol, config.compression),
        buffer,
        kill,
    );
    Ok((Box::new(collector), task))
}

/// Encodes pages in the metrics thread.
struct Collector {
    encoder: Encoder,
    packer: Packer,
    buffer: Arc<Buffer>,
    untold: prometheus::IntCounter,
    /// Of `encoder.untold`, what the counter knows.
    counted: u64,
}

/// Compresses a request and puts it into the buffer.
fn seal(packer: &mut Packer, buffer: &Buffer, message: &[u8], points: u64) {
    let mut body = Vec::with_capacity(message.len() / 8);
    packer.pack(message, &mut body);
    body.shrink_to_fit();
    buffer.push(body.into(), points);
}

impl Collect for Collector {
    fn page(&mut self, origin: &Arc<Origin>, page: &Page) {
        if self.buffer.is_off() {
            let points = page.samples.len() as u64;
            self.buffer.lose("unimplemented", points);
            return;
        }
        let Self { encoder, packer, buffer, .. } = self;
        encoder.page(origin, page, &mut |message, points| seal(packer, buffer, message, points));
        self.untold.inc_by(self.encoder.untold - self.counted);
        self.counted = self.encoder.untold;
    }

    fn flush(&mut self) {
        let Self { encoder, packer, buffer, .. } = self;
        encoder.flush(&mut |message, points| seal(packer, buffer, message, points));
    }

    fn forget(&mut self, origin: &Arc<Origin>) {
        self.encoder.forget(origin);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.flush();
        self.buffer.close();
    }
}
