//! The page of the canonical families; what it says of objectives is in `objectives`.
//!
//! In: the book. Out: samples with all labels, exemplars with trace ids. Texts that series share stand in the page once.
//! Invariant: a counter that is new is 0 in its first page and true from the next on; what lags is not in the page.

mod objectives;

use super::book::{Book, Identity, Workload};
use super::cell::{Cell, Witness};
use super::words::CLASSES;
use crate::data::batch::Span;
use crate::data::sample::{Exemplar, Label, MetricKind, NO_TIME, Page, Sample};

const REQUESTS: &str = "red_requests_total";
const DURATION: &str = "red_request_duration_seconds";

/// Writes the whole page and marks what was published as born.
pub(super) fn write(book: &mut Book, page: &mut Page) {
    births(book);
    let names = Names::new(page);
    let class_values = CLASSES.map(|class| page.push_text(class.as_bytes()));
    page.begin_family(REQUESTS, MetricKind::Counter, "Requests served, by class of the answer.");
    let requests = page.push_text(REQUESTS.as_bytes());
    each_cell(book, page, &names, |page, names, cell, base| {
        for (class, value) in CLASSES.iter().enumerate().map(|(at, _)| (at, class_values[at])) {
            let counted = if cell.born { cell.classes[class] } else { 0 };
            let label = Label { name: names.code_class, value };
            let witness = cell.witness_of_class(class).filter(|_| cell.born);
            push(page, requests, base, Some(label), counted as f64, witness, names.trace_id);
        }
    });
    let help = "Time to serve a request. Exact at every bound when counted from lines.";
    page.begin_family(DURATION, MetricKind::Histogram, help);
    let bucket = page.push_text(b"red_request_duration_seconds_bucket");
    let sum = page.push_text(b"red_request_duration_seconds_sum");
    let count = page.push_text(b"red_request_duration_seconds_count");
    let infinity = page.push_text(b"+Inf");
    let mut bounds: Vec<(*const super::cell::Bounds, Vec<Span>)> = Vec::new();
    each_cell(book, page, &names, |page, names, cell, base| {
        if !cell.timed {
            return;
        }
        let address = std::sync::Arc::as_ptr(&cell.bounds);
        let texts = match bounds.iter().position(|(own, _)| *own == address) {
            Some(at) => at,
            None => {
                let texts = cell.bounds.list().iter().map(|bound| page.push_text(bound.text.as_bytes()));
                let texts = texts.chain([infinity]).collect();
                bounds.push((address, texts));
                bounds.len() - 1
            }
        };
        let mut total = 0;
        for (at, counted) in cell.cumulative().enumerate() {
            total = counted;
            let known = cell.timed_born && (at >= 64 || cell.fresh >> at & 1 == 0);
            let label = Label { name: names.le, value: bounds[texts].1[at] };
            let witness = cell.witness_of_bucket(at).filter(|_| known);
            push(
                page,
                bucket,
                base,
                Some(label),
                if known { counted as f64 } else { 0.0 },
                witness,
                names.trace_id,
            );
        }
        let (all, seconds) = if cell.timed_born { (total as f64, cell.sum()) } else { (0.0, 0.0) };
        push(page, sum, base, None, seconds, None, names.trace_id);
        push(page, count, base, None, all, None, names.trace_id);
    });
    objectives::write(book, page);
    sources(book, page);
    born(book);
}

/// What was counted while nobody watched, as when an agent reads logs from long before its start, was never born: its first
/// value is the true one, and no increase.
fn births(book: &mut Book) {
    for pod in book.pods.values_mut() {
        if !book.workloads.get(&pod.workload).is_some_and(is_hidden) {
            continue;
        }
        for cell in pod.cells.values_mut() {
            (cell.born, cell.timed_born, cell.fresh) = (true, cell.timed, 0);
        }
    }
    for workload in book.workloads.values_mut().filter(|workload| workload.is_lagging()) {
        for (_, tally) in &mut workload.tallies {
            tally.born = true;
        }
    }
}

/// Marks all that stands in the page as born.
fn born(book: &mut Book) {
    for pod in book.pods.values_mut() {
        for cell in pod.cells.values_mut() {
            if !cell.born || cell.timed && !cell.timed_born || cell.fresh != 0 {
                book.changed = true;
            }
            cell.born = true;
            cell.timed_born = cell.timed;
            cell.fresh = 0;
        }
    }
    for workload in book.workloads.values_mut() {
        let beside: Vec<bool> = workload.tallies.iter().map(|(slo, _)| workload.is_beside(slo)).collect();
        for ((_, tally), _) in workload.tallies.iter_mut().zip(beside).filter(|(_, beside)| *beside) {
            tally.scraped.born = true;
        }
        let shown: Vec<bool> = workload.tallies.iter().map(|(slo, _)| workload.shows(slo)).collect();
        for ((_, tally), _) in workload.tallies.iter_mut().zip(shown).filter(|(_, shown)| *shown) {
            book.changed |= !tally.born;
            tally.born = true;
        }
    }
}

fn is_hidden(workload: &Workload) -> bool {
    workload.is_lagging() && !workload.source.is_scrape()
}

struct Names {
    pairs: [Span; 6],
    route: Span,
    method: Span,
    code_class: Span,
    le: Span,
    trace_id: Span,
}

impl Names {
    fn new(page: &mut Page) -> Self {
        let mut text = |text: &str| page.push_text(text.as_bytes());
        Self {
            pairs: ["cluster", "node", "namespace", "workload", "pod", "service"].map(&mut text),
            route: text("route"),
            method: text("method"),
            code_class: text("code_class"),
            le: text("le"),
            trace_id: text("trace_id"),
        }
    }
}

/// Labels of a series less its last one.
type Base = [Label; 8];

fn each_cell(
    book: &Book,
    page: &mut Page,
    names: &Names,
    mut visit: impl FnMut(&mut Page, &Names, &Cell, &Base),
) {
    for pod in book.pods.values() {
        let Some(workload) = book.workloads.get(&pod.workload).filter(|workload| !is_hidden(workload)) else {
            continue;
        };
        let values = values(&pod.identity).map(|value| page.push_text(value.as_bytes()));
        let mut base: Base = [Label::default(); 8];
        for (at, value) in values.into_iter().enumerate() {
            base[at] = Label { name: names.pairs[at], value };
        }
        for ((route, method), cell) in &pod.cells {
            let Some(route) = workload.routes.get(*route) else { continue };
            base[6] = Label { name: names.route, value: page.push_text(route.text.as_bytes()) };
            base[7] = Label { name: names.method, value: page.push_text(method.name().as_bytes()) };
            visit(page, names, cell, &base);
        }
    }
}

fn values(identity: &Identity) -> [&str; 6] {
    [
        &identity.cluster,
        &identity.node,
        &identity.namespace,
        &identity.workload,
        &identity.pod,
        &identity.service,
    ]
}

fn push(
    page: &mut Page,
    name: Span,
    base: &Base,
    last: Option<Label>,
    value: f64,
    witness: Option<Witness>,
    trace_id: Span,
) {
    let first = page.labels.len() as u32;
    // An empty label is the same as none.
    page.labels.extend(base.iter().filter(|label| !label.value.is_empty()));
    page.labels.extend(last);
    let mut sample = Sample {
        name,
        family: (page.families.len() - 1) as u32,
        labels: first,
        label_count: page.labels.len() as u32 - first,
        value,
        ..Sample::default()
    };
    if let Some(witness) = witness {
        let trace = page.push_text(&witness.trace.hex());
        let labels = page.labels.len() as u32;
        page.labels.push(Label { name: trace_id, value: trace });
        sample.exemplar = page.exemplars.len() as u32;
        sample.exemplar_count = 1;
        let time_unix_ms = if witness.time_unix_ms == 0 { NO_TIME } else { witness.time_unix_ms };
        page.exemplars.push(Exemplar { labels, label_count: 1, value: witness.value, time_unix_ms });
    }
    page.samples.push(sample);
}

fn workload_labels(workload: &Workload) -> impl Iterator<Item = (&str, &str)> {
    let own = &workload.identity;
    [
        ("cluster", &*own.cluster),
        ("node", &*own.node),
        ("namespace", &*own.namespace),
        ("workload", &*own.workload),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
}

fn sources(book: &Book, page: &mut Page) {
    page.begin_family("red_source_info", MetricKind::Gauge, "Where a workload's requests are counted from.");
    let known: Vec<(&Workload, &str)> =
        book.workloads.values().filter_map(|workload| Some((workload, workload.source.name()?))).collect();
    for (workload, source) in &known {
        let own = [("profile", workload.profile), ("source", *source)];
        page.push_sample("red_source_info", workload_labels(workload).chain(own), 1.0);
    }
    let help = "How far counting is behind: the newest line, or the last scrape. Above 60 s of lines nothing is shown.";
    page.begin_family("red_source_lag_seconds", MetricKind::Gauge, help);
    for (workload, source) in &known {
        let lag = if workload.source.is_scrape() {
            book.clock_ms.saturating_sub(workload.scraped_ms) as f64 / 1e3
        } else {
            workload.lag_nano as f64 / 1e9
        };
        page.push_sample(
            "red_source_lag_seconds",
            workload_labels(workload).chain([("source", *source)]),
            lag,
        );
    }
}
