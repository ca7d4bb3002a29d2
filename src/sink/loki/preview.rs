//! What Loki would be sent for one record, read back from the request itself.
//!
//! In: a batch and a record of it. Out: the stream's labels, the line and its structured metadata. Invariant: what is
//! shown was encoded by the code that encodes requests, and decoded by the protocol's own schema.

use std::sync::Arc;

use super::{Config, Loki};
use crate::data::batch::{Batch, Fields};
use crate::sink::{Parcel, Wire};

/// `logproto.PushRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<StreamAdapter>,
}

/// `logproto.StreamAdapter`.
#[derive(Clone, PartialEq, prost::Message)]
struct StreamAdapter {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryAdapter>,
}

/// `logproto.EntryAdapter`, less the timestamp.
#[derive(Clone, PartialEq, prost::Message)]
struct EntryAdapter {
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    structured_metadata: Vec<LabelPair>,
}

/// `logproto.LabelPairAdapter`.
#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// One record as Loki would get it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// The tenant's header, if one is sent.
    pub tenant: Option<String>,
    /// The stream's labels, as Loki prints them.
    pub labels: String,
    /// Structured metadata, in the order of the request.
    pub metadata: Vec<(String, String)>,
    /// The line.
    pub line: String,
}

/// What `config` would make of record number `index` of `batch`.
pub fn preview(config: &Config, fields: Fields, batch: &Arc<Batch>, index: u32) -> Preview {
    let mut wire = Loki::new(config.tenant.clone(), config.env_as_label, fields);
    let mut packed = Vec::new();
    wire.encode(&[Parcel { batch: Arc::clone(batch), from: index, to: index + 1 }], &mut packed);
    let tenant = wire.tenant(batch).map(str::to_owned);
    let raw = snap::raw::Decoder::new().decompress_vec(&packed).unwrap_or_default();
    let request = <PushRequest as prost::Message>::decode(raw.as_slice()).unwrap_or_default();
    let Some(stream) = request.streams.into_iter().next() else {
        return Preview { tenant, ..Preview::default() };
    };
    let entry = stream.entries.into_iter().next().unwrap_or_default();
    Preview {
        tenant,
        labels: stream.labels,
        metadata: entry.structured_metadata.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        line: entry.line,
    }
}
