//! What an OTLP receiver would be sent for one record, read back from the message itself.
//!
//! In: a batch and a record of it. Out: resource, attributes, ids, severity and body. Invariant: what is shown was
//! encoded by the code that encodes requests, and decoded by the protocol's own schema.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message as _;

use super::{Config, Otlp, encode::Encoder};
use crate::data::batch::{Batch, Fields};
use crate::sink::{Parcel, Wire};

/// One record as a receiver would get it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// The tenant's header, if one is sent.
    pub tenant: Option<String>,
    /// Attributes of the resource, in the order of the message.
    pub resource: Vec<(String, String)>,
    /// Severity number, 0 when none is sent.
    pub severity_number: i32,
    /// Severity text.
    pub severity_text: String,
    /// Trace id as hex, empty when none is sent.
    pub trace_id: String,
    /// Span id as hex, empty when none is sent.
    pub span_id: String,
    /// Attributes of the record.
    pub attributes: Vec<(String, String)>,
    /// The line.
    pub body: String,
}

/// What `config` would make of record number `index` of `batch`.
pub fn preview(config: &Config, fields: Fields, batch: &Arc<Batch>, index: u32) -> Preview {
    let mut message = Vec::new();
    let parcel = Parcel { batch: Arc::clone(batch), from: index, to: index + 1 };
    Encoder::default().encode(&[parcel], fields, &mut message);
    let tenant = Otlp::new(config, fields).tenant(batch).map(str::to_owned);
    let request = ExportLogsServiceRequest::decode(message.as_slice()).unwrap_or_default();
    let Some(logs) = request.resource_logs.into_iter().next() else {
        return Preview { tenant, ..Preview::default() };
    };
    let record = logs.scope_logs.into_iter().flat_map(|scope| scope.log_records).next().unwrap_or_default();
    Preview {
        tenant,
        resource: logs.resource.map(|resource| pairs(resource.attributes)).unwrap_or_default(),
        severity_number: record.severity_number,
        severity_text: record.severity_text,
        trace_id: hex(&record.trace_id),
        span_id: hex(&record.span_id),
        attributes: pairs(record.attributes),
        body: record.body.map(text).unwrap_or_default(),
    }
}

fn pairs(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let pair = |KeyValue { key, value, .. }| (key, value.map(text).unwrap_or_default());
    attributes.into_iter().map(pair).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => list.values.into_iter().map(text).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
