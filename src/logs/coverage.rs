//! Which workloads log no trace ids: records by workload and by how they came to a trace id.
//!
//! Bounded: at most [`WORKLOADS`] workloads have a series of their own, all later ones share `(other)`.

use std::collections::HashSet;

use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::data::batch::{Marks, Record};
use crate::data::workload::Workload;
use crate::metrics;

/// Workloads with series of their own; three series each.
const WORKLOADS: usize = 250;

static KNOWN: Mutex<Option<HashSet<(String, String)>>> = Mutex::new(None);

/// The counters of one workload.
#[derive(Debug, Clone)]
pub struct Coverage {
    own: IntCounter,
    inherited: IntCounter,
    none: IntCounter,
}

impl Coverage {
    /// The counters of a workload; the same ones for all its containers.
    pub fn of(workload: &Workload) -> Self {
        let mut known = KNOWN.lock();
        let known = known.get_or_insert_default();
        let key = (workload.container.namespace.clone(), workload.service_name.clone());
        let mut labels = [workload.container.namespace.as_str(), workload.service_name.as_str()];
        if !known.contains(&key) {
            if known.len() < WORKLOADS {
                known.insert(key);
            } else {
                labels = ["(other)", "(other)"];
            }
        }
        let counter = |trace| metrics::WORKLOAD_RECORDS.with_label_values(&[labels[0], labels[1], trace]);
        Self { own: counter("own"), inherited: counter("inherited"), none: counter("none") }
    }

    /// Counts the records of a batch.
    pub fn count(&self, records: &[Record]) {
        let (mut own, mut inherited) = (0, 0);
        for record in records {
            let is_inherited = record.marks.contains(Marks::TRACE_INHERITED);
            own += u64::from(record.trace_id.is_some() && !is_inherited);
            inherited += u64::from(is_inherited);
        }
        self.own.inc_by(own);
        self.inherited.inc_by(inherited);
        self.none.inc_by(records.len() as u64 - own - inherited);
    }
}
