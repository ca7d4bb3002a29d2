//! What the page says of objectives: their events, what they are, traces of bad requests, and how far lines can be trusted.
//!
//! In: the book. Out: four families. Invariant: an objective without events of its own source is not 0 but absent, so that
//! whoever prefers these counters falls back to the canonical ones.

use super::super::book::{Book, Workload};
use super::super::cell::Bound;
use super::super::slo::{Kind, Slo, Tally};
use super::workload_labels;
use crate::data::sample::{MetricKind, Page};

const EVENTS: &str = "slo_events_total";
const INFO: &str = "slo_objective_info";
const TRACE: &str = "slo_sample_trace_info";
const CONFIDENCE: &str = "slo_confidence_ratio";

pub(super) fn write(book: &Book, page: &mut Page) {
    confidence(book, page);
    let shows = |workload: &Workload| workload.tallies.iter().any(|(slo, _)| workload.shows(slo));
    if book.workloads.values().any(shows) {
        events(book, page);
    }
    if book.objectives > 0 {
        infos(book, page);
    }
    let mut tallies = book.workloads.values().flat_map(|workload| &workload.tallies);
    if book.keeps_evidence && tallies.any(|(_, tally)| tally.evidence.is_some()) {
        traces(book, page);
    }
}

fn events(book: &Book, page: &mut Page) {
    let help = "Requests that were good or bad by an objective, counted exactly.";
    page.begin_family(EVENTS, MetricKind::Counter, help);
    each(book, |workload, slo, tally| {
        if !workload.shows(slo) {
            return;
        }
        for (result, value) in [("good", tally.good), ("bad", tally.bad)] {
            let own = [("slo_id", slo.id.as_str()), ("result", result)];
            let value = if tally.born { value as f64 } else { 0.0 };
            page.push_sample(EVENTS, workload_labels(workload).chain(own), value);
        }
    });
}

fn infos(book: &Book, page: &mut Page) {
    let help =
        "An objective of a workload: declared in the config or by its pods, or observed because it has none.";
    page.begin_family(INFO, MetricKind::Gauge, help);
    each(book, |workload, slo, _| {
        if slo.is_observed() && !workload.shows(slo) {
            return;
        }
        let (sli, threshold) = match slo.kind {
            Kind::Availability => ("availability", None),
            Kind::Latency { threshold_nano } => ("latency", Some(Bound::new(threshold_nano as f64 / 1e9))),
        };
        let own = [
            ("slo_id", slo.id.as_str()),
            ("sli", sli),
            ("objective", &slo.about.objective),
            ("window", &slo.about.window),
            ("mode", &slo.about.mode),
            ("owner", &slo.about.owner),
            ("threshold_seconds", threshold.as_ref().map_or("", |bound| &bound.text)),
        ];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        page.push_sample(INFO, workload_labels(workload).chain(own), 1.0);
    });
}

fn traces(book: &Book, page: &mut Page) {
    let help = "Traces of the newest bad requests of the last hour, five an objective at most.";
    page.begin_family(TRACE, MetricKind::Gauge, help);
    each(book, |workload, slo, tally| {
        let Some(evidence) = tally.evidence.as_ref().filter(|_| workload.shows(slo)) else { return };
        for trace in evidence.recent(book.now_unix_ms) {
            let hex = trace.hex();
            let own = [("slo_id", slo.id.as_str()), ("trace_id", str::from_utf8(&hex).unwrap_or_default())];
            page.push_sample(TRACE, workload_labels(workload).chain(own), 1.0);
        }
    });
}

fn each(book: &Book, mut visit: impl FnMut(&Workload, &Slo, &Tally)) {
    for workload in book.workloads.values() {
        for (slo, tally) in &workload.tallies {
            visit(workload, slo, tally);
        }
    }
}

fn confidence(book: &Book, page: &mut Page) {
    let help = "Share of the workload's log lines of the last hour that were not lost, by bytes; where requests are counted from \
                lines, as much of them is counted.";
    if !book.workloads.values().any(|workload| workload.source.is_log()) {
        return;
    }
    page.begin_family(CONFIDENCE, MetricKind::Gauge, help);
    for (id, workload) in book.workloads.iter().filter(|(_, workload)| workload.source.is_log()) {
        page.push_sample(CONFIDENCE, workload_labels(workload), book.confidence.of(*id));
    }
}
