//! Batches made by hand, and a ledger that says what became of them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::sync::Arc;

use nodewick::data::batch::{Batch, Record, Span};
use nodewick::data::budget::Budget;
use nodewick::data::delivery::{Ledger, Outlet, Shipment};
use nodewick::data::position::Position;
use nodewick::data::workload::{ContainerRef, Workload};

/// A container of a pod, with everything else at one value.
pub fn workload(pod: &str, container: &str) -> Workload {
    Workload {
        container: ContainerRef {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            uid: format!("uid-of-{pod}"),
            container: container.to_owned(),
            restart: 0,
        },
        cluster: "test".to_owned(),
        node: "node-1".to_owned(),
        service_name: "checkout".to_owned(),
        service_name_guessed: true,
        service_version: None,
        environment: None,
        labels: Vec::new(),
        attributes: Vec::new(),
        tenant: None,
    }
}

/// A batch of lines with their times, nanoseconds since the epoch.
pub fn batch(workload: &Arc<Workload>, lines: &[(i128, &str)]) -> Batch {
    let mut arena = Vec::new();
    let mut records = Vec::new();
    for (time, line) in lines {
        let start = arena.len();
        arena.extend_from_slice(line.as_bytes());
        records.push(Record {
            time_unix_nano: u64::try_from(*time).expect("after 1970"),
            offset: start as u64,
            body: Span::new(start, arena.len()),
            ..Record::default()
        });
    }
    let permit = Budget::new(u64::MAX, Arc::default()).reserve(arena.len() as u64).expect("fits");
    Batch {
        workload: Arc::clone(workload),
        path: "0.log".into(),
        start: Position::default(),
        end: Position { offset: arena.len() as u64, ..Position::default() },
        arena,
        records,
        catching_up: false,
        sealed_unix_nano: 0,
        permit,
    }
}

/// One log's books.
pub struct Book {
    pub ledger: Arc<Ledger>,
}

impl Book {
    pub fn new() -> Self {
        Self { ledger: Ledger::new(Position::default(), Arc::default()) }
    }

    /// Ships a batch through a required outlet.
    pub fn ship(&self, outlet: &dyn Outlet, batch: Batch) {
        let records = batch.records.len() as u64;
        let ticket = self.ledger.issue(batch.end, batch.arena.len() as u64, records, 1).next();
        outlet.offer(Shipment { batch: Arc::new(batch), ticket });
    }

    /// Records delivered and lost so far.
    pub fn settled(&self) -> (u64, u64) {
        let totals = self.ledger.totals();
        (totals.delivered_records, totals.lost_records)
    }
}
