//! What the page says of objectives: their events, what they are, traces of bad requests, and how far lines can be trusted.
//!
//! In: the book. Out: six families. Invariant: an objective of which nothing is counted is not 0 but absent, so that whoever
//! prefers these counters falls back to the canonical ones.

use super::super::book::{Book, Workload};
use super::super::cell::Bound;
use super::super::slo::{Kind, Slo, Tally};
use super::workload_labels;
use crate::data::batch::Span;
use crate::data::sample::{Label, MetricKind, Page, Sample};

/// Traces of all objectives together; those beyond it are left out.
const MAX_SHOWN_TRACES: usize = 250;

pub(super) fn write(book: &Book, page: &mut Page) {
    confidence(book, page);
    let shows = |workload: &Workload| workload.tallies.iter().any(|(slo, _)| workload.shows(slo));
    if book.workloads.values().any(shows) {
        events(book, page);
    }
    let is_beside = |workload: &Workload| workload.tallies.iter().any(|(slo, _)| workload.is_beside(slo));
    if book.workloads.values().any(is_beside) {
        brackets(book, page);
    }
    if book.objectives > 0 {
        infos(book, page);
    }
    let mut tallies = book.workloads.values().flat_map(|workload| &workload.tallies);
    if book.keeps_evidence && tallies.any(|(_, tally)| tally.evidence.is_some()) {
        traces(book, page);
    }
}

/// A family that is being written. What its samples share stands in the page once.
struct Family<'a> {
    page: &'a mut Page,
    name: Span,
    /// Names of a workload's labels, and their values.
    workload: Vec<Label>,
}

impl<'a> Family<'a> {
    fn begin(page: &'a mut Page, name: &str, kind: MetricKind, help: &str) -> Self {
        page.begin_family(name, kind, help);
        let name = page.push_text(name.as_bytes());
        Self { page, name, workload: Vec::new() }
    }

    fn text(&mut self, text: &str) -> Span {
        self.page.push_text(text.as_bytes())
    }

    /// What follows is of this workload.
    fn of(&mut self, workload: &Workload) {
        self.workload.clear();
        for (name, value) in workload_labels(workload) {
            let label = Label { name: self.text(name), value: self.text(value) };
            self.workload.push(label);
        }
    }

    fn push(&mut self, own: &[Label], value: f64) {
        let first = self.page.labels.len();
        self.page.labels.extend_from_slice(&self.workload);
        // An empty label is the same as none.
        self.page.labels.extend(own.iter().filter(|label| !label.value.is_empty()));
        self.page.samples.push(Sample {
            name: self.name,
            family: (self.page.families.len() - 1) as u32,
            labels: first as u32,
            label_count: (self.page.labels.len() - first) as u32,
            value,
            ..Sample::default()
        });
    }

    /// Visits the objectives of which `is_shown` says so.
    fn each(
        mut self,
        book: &Book,
        is_shown: impl Fn(&Workload, &Slo) -> bool,
        mut visit: impl FnMut(&mut Self, &Slo, &Tally),
    ) {
        for workload in book.workloads.values() {
            let mut shown = workload.tallies.iter().filter(|(slo, _)| is_shown(workload, slo)).peekable();
            if shown.peek().is_some() {
                self.of(workload);
                shown.for_each(|(slo, tally)| visit(&mut self, slo, tally));
            }
        }
    }
}

fn events(book: &Book, page: &mut Page) {
    let help = "Requests that were good or bad by an objective, counted exactly.";
    let mut family = Family::begin(page, "slo_events_total", MetricKind::Counter, help);
    let [slo_id, result] = ["slo_id", "result"].map(|text| family.text(text));
    let results = ["good", "bad"].map(|text| Label { name: result, value: family.text(text) });
    family.each(book, Workload::shows, |family, slo, tally| {
        let id = Label { name: slo_id, value: family.text(&slo.id) };
        for (result, events) in results.into_iter().zip([tally.good, tally.bad]) {
            family.push(&[id, result], if tally.born { events as f64 } else { 0.0 });
        }
    });
}

/// Objectives whose threshold lies between the buckets of a scraped histogram.
fn brackets(book: &Book, page: &mut Page) {
    let help = "Requests that were good or bad by the bucket above (optimistic) or below (pessimistic) an objective's threshold.";
    let mut family = Family::begin(page, "slo_bracket_events_total", MetricKind::Counter, help);
    let names = ["slo_id", "bound", "result"].map(|text| family.text(text));
    let bounds = ["optimistic", "pessimistic"].map(|text| Label { name: names[1], value: family.text(text) });
    let results = ["good", "bad"].map(|text| Label { name: names[2], value: family.text(text) });
    family.each(book, Workload::is_beside, |family, slo, tally| {
        let id = Label { name: names[0], value: family.text(&slo.id) };
        for (bound, split) in bounds.into_iter().zip(tally.scraped.beside) {
            for (result, events) in results.into_iter().zip([split.good, split.bad]) {
                family.push(&[id, bound, result], if tally.scraped.born { events as f64 } else { 0.0 });
            }
        }
    });
    let help = "Buckets around the threshold of an objective that has none of its own.";
    let mut family = Family::begin(page, "slo_bracket_info", MetricKind::Gauge, help);
    let [slo_id, lower, upper] = ["slo_id", "lower", "upper"].map(|text| family.text(text));
    family.each(book, Workload::is_beside, |family, slo, tally| {
        let id = Label { name: slo_id, value: family.text(&slo.id) };
        for pair in &tally.scraped.pairs {
            let [below, above] = pair.texts.each_ref().map(|text| family.text(text));
            family.push(&[id, Label { name: lower, value: below }, Label { name: upper, value: above }], 1.0);
        }
    });
}

fn infos(book: &Book, page: &mut Page) {
    let help =
        "An objective of a workload: declared in the config or by its pods, or observed because it has none.";
    let mut family = Family::begin(page, "slo_objective_info", MetricKind::Gauge, help);
    let names = ["slo_id", "sli", "objective", "window", "mode", "owner", "threshold_seconds"];
    let names = names.map(|name| family.text(name));
    let is_shown = |workload: &Workload, slo: &Slo| !slo.is_observed() || workload.shows(slo);
    family.each(book, is_shown, |family, slo, _| {
        let (sli, threshold) = match slo.kind {
            Kind::Availability => ("availability", None),
            Kind::Latency { threshold_nano } => ("latency", Some(Bound::new(threshold_nano as f64 / 1e9))),
        };
        let about = &slo.about;
        let threshold = threshold.as_ref().map_or("", |bound| &bound.text);
        let values = [&slo.id, sli, &about.objective, &about.window, &about.mode, &about.owner, threshold];
        let mut labels = names.map(|name| Label { name, ..Label::default() });
        for (label, value) in labels.iter_mut().zip(values) {
            label.value = family.text(value);
        }
        family.push(&labels, 1.0);
    });
}

fn traces(book: &Book, page: &mut Page) {
    let help = "Traces of the newest bad requests of the last hour, five an objective at most.";
    let mut family = Family::begin(page, "slo_sample_trace_info", MetricKind::Gauge, help);
    let [slo_id, trace_id] = ["slo_id", "trace_id"].map(|text| family.text(text));
    let mut left = MAX_SHOWN_TRACES;
    family.each(book, Workload::shows, |family, slo, tally| {
        let Some(evidence) = &tally.evidence else { return };
        let id = Label { name: slo_id, value: family.text(&slo.id) };
        for trace in evidence.recent(book.now_unix_ms).take(left) {
            let value = family.page.push_text(&trace.hex());
            family.push(&[id, Label { name: trace_id, value }], 1.0);
            left -= 1;
        }
    });
}

fn confidence(book: &Book, page: &mut Page) {
    let mut workloads = book.workloads.iter().filter(|(_, workload)| workload.source.is_log()).peekable();
    if workloads.peek().is_none() {
        return;
    }
    let help = "Share of the workload's log lines of the last hour that were not lost, by bytes. Only where requests are counted \
                from lines.";
    let mut family = Family::begin(page, "slo_confidence_ratio", MetricKind::Gauge, help);
    for (id, workload) in workloads {
        family.of(workload);
        family.push(&[], book.confidence.of(*id));
    }
}
