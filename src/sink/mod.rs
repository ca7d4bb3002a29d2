//! From sealed batches to backends.
//!
//! `deliver` drives one queue per sink: it coalesces, encodes, sends, reads the verdict and settles tickets. The
//! decisions are made by a pure step machine in `lane`; a backend is one file that implements [`Wire`].

pub mod alertmanager;
pub mod deliver;
pub mod family;
pub mod http;
pub mod json;
pub mod lane;
pub mod local;
pub mod loki;
pub mod otlp;
pub mod pull;
pub mod remote_write;
pub mod said;
pub mod stdout;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::data::batch::{Batch, Record};
use crate::data::clock;
use crate::data::delivery::Reason;
use crate::metrics;

/// A run of records of one batch: what a request is made of.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The batch.
    pub batch: Arc<Batch>,
    /// First record.
    pub from: u32,
    /// One past the last record.
    pub to: u32,
}

impl Parcel {
    /// The records.
    pub fn records(&self) -> &[Record] {
        &self.batch.records[self.from as usize..self.to as usize]
    }
}

/// What came back for a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// An HTTP response; `body` holds at most 64 KiB of it.
    Http {
        /// Status code.
        status: u16,
        /// `Retry-After`, if sent.
        retry_after: Option<Duration>,
        /// Body.
        body: Bytes,
    },
    /// A gRPC status.
    Grpc {
        /// Status code, 0 for OK.
        code: i32,
        /// `RetryInfo` of the status details, if sent.
        retry_after: Option<Duration>,
        /// The response message when the code is 0, else the UTF-8 status message.
        body: Bytes,
    },
    /// No answer: the connection failed, broke or timed out. The request may or may not have been taken.
    Unreachable {
        /// Why, for the log.
        error: String,
    },
}

impl Answer {
    /// The answer for the log: at most 200 characters of what the backend said.
    pub(crate) fn explain(&self) -> String {
        let said = |body: &Bytes| String::from_utf8_lossy(body).trim().chars().take(200).collect::<String>();
        match self {
            Self::Http { status, body, .. } => format!("status {status}: {}", said(body)),
            Self::Grpc { code, body, .. } => format!("gRPC status {code}: {}", said(body)),
            Self::Unreachable { error } => error.clone(),
        }
    }
}

/// What an answer means for the request. A decision, not a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend has all of it.
    Delivered,
    /// The backend took the request and refused this many records for good. Never sent again.
    Partial {
        /// Records refused.
        refused: u64,
        /// What the backend said.
        message: String,
    },
    /// Send the same again, later: nothing is wrong with the data.
    Retry {
        /// How long the backend asked us to wait.
        after: Option<Duration>,
    },
    /// The credential was refused: read it again, then send the same again.
    Unauthorized,
    /// Too large: send it in halves.
    Split,
    /// Something in it will never be taken. A shared request is sent again stream by stream; a lone stream is
    /// bisected down to the refused records.
    Refused {
        /// Why.
        reason: Reason,
        /// True when the answer says that every record was refused, so that bisecting is pointless.
        all: bool,
        /// What the backend said.
        message: String,
    },
}

/// How much of the work an answer that asks for patience is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// The endpoint: every request would be answered alike.
    #[default]
    Endpoint,
    /// The tenant's rate, which a smaller request may fit under.
    Tenant,
    /// One stream of the request; the others go on.
    Stream,
}

/// What an answer teaches beside its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lesson {
    /// Whom a retry concerns.
    pub scope: Scope,
    /// No record of the (lone) stream before this time will ever be taken, nanoseconds since the epoch.
    pub oldest_unix_nano: Option<u64>,
    /// The backend's limit for one stream, bytes per second.
    pub stream_rate: Option<u64>,
    /// The stream that it complains about.
    pub stream: Option<StreamKey>,
}

/// Identifies a backend stream: two batches with equal keys share the backend's order, rate and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey(pub u64);

/// One backend's protocol. Pure: bytes in, bytes out, no I/O and no clock.
pub trait Wire: Send + 'static {
    /// The stream that a batch belongs to.
    fn stream(&self, batch: &Batch) -> StreamKey;

    /// The tenant that a batch goes to; parcels of different tenants never share a request.
    fn tenant<'a>(&'a self, batch: &'a Batch) -> Option<&'a str>;

    /// Appends the whole request body for `parcels` to `out`, compressed as the protocol wants it. The same
    /// parcels always give the same bytes. Parcels of one stream stand next to each other, in order.
    fn encode(&mut self, parcels: &[Parcel], out: &mut Vec<u8>);

    /// What `answer` means for a request of `records` records.
    fn judge(&self, answer: &Answer, records: u64) -> Verdict;

    /// What `answer` says beyond its verdict.
    fn lesson(&self, _answer: &Answer) -> Lesson {
        Lesson::default()
    }

    /// True when a success answer to a request of several streams can hide that some were refused, as Loki's
    /// does. Then only streams that cannot be refused share a request.
    fn success_can_mask(&self) -> bool;
}

/// When the backend of the sink called `name` last took something. A sink that is new has not failed yet: it begins with now.
fn last_success(name: &str) -> prometheus::IntGauge {
    let gauge = metrics::SINK_LAST_SUCCESS.with_label_values(&[name]);
    if gauge.get() == 0 {
        gauge.set(clock::unix_ms() / 1000);
    }
    gauge
}
