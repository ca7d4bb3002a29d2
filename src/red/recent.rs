//! What people are shown of RED: each workload's figures as a whole, of the last minute, and a short history.
//!
//! In: the book, every [`STEP`]. Out: a [`Summary`]. Invariants: it only reads the book; at most [`SERVICES`] workloads and
//! [`STEPS`] steps of each are remembered; a workload whose lines are read far behind shows no rate, as what is counted just
//! now did not happen just now.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;

use super::book::{Book, Workload};
use super::words::Class;

/// Workloads that are shown, the busiest first.
pub const SERVICES: usize = 200;
/// Time between two looks.
pub const STEP: Duration = Duration::from_secs(5);
/// Steps that are remembered: five minutes.
pub const STEPS: usize = 60;
/// Steps of a minute.
const MINUTE: usize = 12;
/// Steps that a point of the history covers, where requests are counted from lines: one alone would flutter.
const SMOOTH: usize = 3;
/// Workloads and steps that are remembered where nobody has a page to look at them.
const WITHOUT_PAGE: (usize, usize) = (32, 12);
/// Bytes that a workload takes: 13 histograms of 16 bounds, names, and the steps of its history three times, as a summary is
/// read while the next one is made.
const fn each(steps: usize) -> u64 {
    (13 * (16 * 16 + 40) + 600 + 3 * 24 * steps) as u64
}
/// Bytes that all of it takes without a page.
pub const MEMORY: u64 = WITHOUT_PAGE.0 as u64 * each(WITHOUT_PAGE.1);
/// Bytes that it takes beyond that where there is a page.
pub const MEMORY_OF_PAGE: u64 = SERVICES as u64 * each(STEPS) - MEMORY;
/// Bounds of a histogram that are told apart.
const BOUNDS: usize = 16;

/// What is known of all workloads.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// When, milliseconds since the epoch; 0 before the first look.
    pub time_unix_ms: i64,
    /// The busiest first.
    pub services: Vec<Service>,
    /// Workloads that are left out.
    pub omitted: usize,
}

/// One workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Workload.
    pub workload: String,
    /// Name of the service of one of its pods.
    pub service: String,
    /// Where its requests are counted from; empty while nowhere.
    pub source: &'static str,
    /// Share of its lines that was not lost, over the last hour.
    pub confidence: f64,
    /// How far counting is behind, seconds.
    pub lag_seconds: f64,
    /// Since the counters began.
    pub whole: Figures,
    /// In the last minute, and how much of it there was.
    pub minute: Figures,
    /// Seconds that `minute` covers; 0 before the second look.
    pub minute_seconds: f64,
    /// Oldest first.
    pub history: Vec<Step>,
}

/// Figures of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Requests.
    pub requests: u64,
    /// Answered with a 5xx.
    pub errors: u64,
    /// Median, seconds.
    pub p50: Option<f64>,
    /// 99th percentile, seconds.
    pub p99: Option<f64>,
}

/// One step of the history.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Step {
    /// Its end, milliseconds since the epoch.
    pub time_unix_ms: i64,
    /// Requests a second.
    pub per_second: f32,
    /// Errors a second.
    pub errors_per_second: f32,
    /// 99th percentile, seconds.
    pub p99: Option<f32>,
}

/// Looks at the book every step.
#[derive(Debug)]
pub struct Recent {
    book: Arc<Mutex<Book>>,
    known: HashMap<u64, Known>,
    last_unix_ms: Option<i64>,
    services: usize,
    steps: usize,
}

/// What is remembered of one workload.
#[derive(Debug, Default)]
struct Known {
    last: Totals,
    /// The last minute, step by step.
    minute: VecDeque<(f64, Totals)>,
    history: VecDeque<Step>,
}

/// Counters of one workload, or what they grew by.
#[derive(Debug, Clone, Default, PartialEq)]
struct Totals {
    requests: u64,
    errors: u64,
    /// Requests by upper bound in seconds, ascending; not cumulative.
    buckets: Vec<(f64, u64)>,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (bound, count) in &other.buckets {
            self.bucket(*bound, *count);
        }
    }

    fn bucket(&mut self, bound: f64, count: u64) {
        match self.buckets.binary_search_by(|(own, _)| own.total_cmp(&bound)) {
            Ok(at) => self.buckets[at].1 += count,
            // Beyond what is told apart a bucket counts into the next one up, so that nothing looks faster than it was.
            Err(at) if self.buckets.len() >= BOUNDS && at < self.buckets.len() => self.buckets[at].1 += count,
            Err(at) => self.buckets.insert(at, (bound, count)),
        }
    }

    /// What came since `before`; all of it where a counter went back.
    fn since(&self, before: &Self) -> Self {
        if self.requests < before.requests || self.errors < before.errors {
            return self.clone();
        }
        let old = |bound: f64| before.buckets.iter().find(|(own, _)| *own == bound).map_or(0, |(_, n)| *n);
        Self {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            buckets: self.buckets.iter().map(|(le, n)| (*le, n.saturating_sub(old(*le)))).collect(),
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            requests: self.requests,
            errors: self.errors,
            p50: quantile(0.5, &self.buckets),
            p99: quantile(0.99, &self.buckets),
        }
    }
}

/// The duration that a share of requests did not exceed, by linear interpolation inside its bucket; of what is above the
/// last bound, that bound. As `histogram_quantile` of Prometheus does it.
fn quantile(share: f64, buckets: &[(f64, u64)]) -> Option<f64> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    let rank = share * all as f64;
    let (mut seen, mut lower) = (0_u64, 0.0);
    for (bound, count) in buckets {
        if bound.is_infinite() {
            break;
        }
        let next = seen + count;
        if next as f64 >= rank && *count > 0 {
            return Some(lower + (bound - lower) * (rank - seen as f64) / *count as f64);
        }
        (seen, lower) = (next, *bound);
    }
    // Everything is slower than any bound says how.
    (lower > 0.0).then_some(lower)
}

impl Recent {
    pub(super) fn new(book: Arc<Mutex<Book>>, has_page: bool) -> Self {
        let (services, steps) = if has_page { (SERVICES, STEPS) } else { WITHOUT_PAGE };
        Self { book, known: HashMap::default(), last_unix_ms: None, services, steps }
    }

    /// Looks at the book.
    pub fn look(&mut self, now_unix_ms: i64) -> Summary {
        let before = self.last_unix_ms.replace(now_unix_ms);
        let seconds = before.map_or(0.0, |before| (now_unix_ms - before).max(0) as f64 / 1e3);
        let shared = Arc::clone(&self.book);
        let book = shared.lock();
        let mut totals: HashMap<u64, (Totals, &str)> = HashMap::default();
        for pod in book.pods.values() {
            let (sum, service) = totals.entry(pod.workload).or_default();
            if service.is_empty() {
                *service = &pod.identity.service;
            }
            for cell in pod.cells.values() {
                sum.requests += cell.requests();
                sum.errors += cell.classes[Class::SERVER_ERROR.index()];
                let mut below = 0;
                let bounds = cell.bounds.list().iter().map(|bound| bound.seconds).chain([f64::INFINITY]);
                for (bound, counted) in bounds.zip(cell.cumulative()) {
                    sum.bucket(bound, counted.saturating_sub(below));
                    below = counted;
                }
            }
        }
        let mut known = std::mem::take(&mut self.known);
        let mut found: Vec<(u64, Service)> = Vec::new();
        for (id, workload) in &book.workloads {
            let Some(source) = workload.source.name() else { continue };
            let (now, service) = totals.remove(id).unwrap_or_default();
            // Counters of an earlier life are nothing that happens now; a workload that is new begins at nothing.
            let mut of = known.remove(id).unwrap_or_else(|| Known {
                last: if before.is_none() { now.clone() } else { Totals::default() },
                ..Known::default()
            });
            let lagging = workload.is_lagging() && !workload.source.is_scrape();
            of.step(now_unix_ms, seconds, &now, if source == "scrape" { MINUTE } else { SMOOTH }, lagging);
            while of.history.len() > self.steps {
                of.history.pop_front();
            }
            found.push((*id, of.service(workload, service, source, book.confidence.of(*id), &now, &book)));
            self.known.insert(*id, of);
        }
        drop(book);
        found.sort_by(|(_, a), (_, b)| {
            let busy = |of: &Service| (of.minute.requests, of.whole.requests);
            busy(b).cmp(&busy(a)).then_with(|| (&a.namespace, &a.workload).cmp(&(&b.namespace, &b.workload)))
        });
        let omitted = found.len().saturating_sub(self.services);
        // Whoever is not shown keeps its counters, and begins its history anew once it is.
        for (id, _) in found.drain(found.len() - omitted..) {
            if let Some(of) = self.known.get_mut(&id) {
                *of = Known {
                    last: Totals { buckets: Vec::new(), ..std::mem::take(&mut of.last) },
                    ..Known::default()
                };
            }
        }
        let services = found.into_iter().map(|(_, service)| service).collect();
        Summary { time_unix_ms: now_unix_ms, services, omitted }
    }
}

impl Known {
    fn step(&mut self, now_unix_ms: i64, seconds: f64, now: &Totals, smooth: usize, lagging: bool) {
        let grown = now.since(&std::mem::replace(&mut self.last, now.clone()));
        if lagging || seconds <= 0.0 {
            self.minute.clear();
            return;
        }
        self.minute.push_back((seconds, grown));
        while self.minute.len() > MINUTE {
            self.minute.pop_front();
        }
        let (over, sum) = self.last_steps(smooth);
        let p99 = quantile(0.99, &sum.buckets).map(|seconds| seconds as f32);
        self.history.push_back(Step {
            time_unix_ms: now_unix_ms,
            per_second: (sum.requests as f64 / over) as f32,
            errors_per_second: (sum.errors as f64 / over) as f32,
            p99,
        });
    }

    fn last_steps(&self, steps: usize) -> (f64, Totals) {
        let (mut over, mut sum) = (0.0, Totals::default());
        for (seconds, grown) in self.minute.iter().rev().take(steps) {
            over += seconds;
            sum.add(grown);
        }
        (over, sum)
    }

    fn service(
        &self,
        workload: &Workload,
        service: &str,
        source: &'static str,
        confidence: f64,
        now: &Totals,
        book: &Book,
    ) -> Service {
        let (minute_seconds, minute) = self.last_steps(MINUTE);
        let lag_seconds = if workload.source.is_scrape() {
            book.clock_ms.saturating_sub(workload.scraped_ms) as f64 / 1e3
        } else {
            workload.lag_nano as f64 / 1e9
        };
        Service {
            namespace: workload.identity.namespace.clone(),
            workload: workload.identity.workload.clone(),
            service: service.to_owned(),
            source,
            confidence,
            lag_seconds,
            whole: now.figures(),
            minute: minute.figures(),
            minute_seconds,
            history: self.history.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::red::book::{Identity, Pod, Source};
    use crate::red::cell::{Bounds, Cell};
    use crate::red::config::SourceSetting;
    use crate::red::route::RouteId;
    use crate::red::words::Method;

    fn book() -> (Arc<Mutex<Book>>, u64) {
        let bounds = Arc::new(Bounds::of_lines([]));
        let mut book = Book::new(SourceSetting::Auto, Arc::clone(&bounds));
        let of = |text: &str| text.to_owned();
        let identity = Identity {
            namespace: of("shop"),
            workload: of("cart"),
            pod: of("cart-1"),
            service: of("cart-api"),
            ..Identity::default()
        };
        let id = identity.workload_id();
        let mut workload = Workload::new(identity.clone(), 0);
        workload.source = Source::Log;
        book.workloads.insert(id, workload);
        let pod_id = identity.pod_id();
        let cells = [((RouteId(1), Method::at(0).expect("a method")), Cell::new(&bounds))];
        book.pods
            .insert(pod_id, Pod { identity, workload: id, cells: cells.into_iter().collect(), seen_ms: 0 });
        (Arc::new(Mutex::new(book)), id)
    }

    fn serve(book: &Arc<Mutex<Book>>, good: u64, bad: u64, millis: u64) {
        let mut book = book.lock();
        let cell =
            book.pods.values_mut().next().and_then(|pod| pod.cells.values_mut().next()).expect("a cell");
        for (class, count) in [(Class::SUCCESS, good), (Class::SERVER_ERROR, bad)] {
            (0..count).for_each(|_| cell.count(class, Some(millis * 1_000_000), None, 0));
        }
    }

    #[test]
    fn the_first_look_has_no_rate_and_what_was_counted_before_is_none() {
        let (book, _) = book();
        serve(&book, 90, 10, 40);
        let mut recent = Recent::new(Arc::clone(&book), true);
        let first = recent.look(1_000_000).services.remove(0);
        assert_eq!((first.whole.requests, first.whole.errors), (100, 10));
        assert_eq!((first.minute_seconds, first.minute.requests, first.history.len()), (0.0, 0, 0));
        assert_eq!((first.service.as_str(), first.source), ("cart-api", "log"));
        serve(&book, 45, 5, 40);
        let second = recent.look(1_005_000).services.remove(0);
        assert_eq!((second.minute_seconds, second.minute.requests, second.minute.errors), (5.0, 50, 5));
        let step = second.history[0];
        assert_eq!((step.time_unix_ms, step.per_second, step.errors_per_second), (1_005_000, 10.0, 1.0));
        assert_eq!(second.whole.requests, 150);
    }

    #[test]
    fn quantiles_interpolate_inside_their_bucket_and_stop_at_the_last_bound() {
        assert_eq!(quantile(0.5, &[]), None);
        assert_eq!(quantile(0.5, &[(0.1, 0), (f64::INFINITY, 0)]), None);
        // 10 up to 100 ms, 10 up to 200 ms: the 15th of 20 stands in the middle of the second.
        assert_eq!(quantile(0.75, &[(0.1, 10), (0.2, 10), (f64::INFINITY, 0)]), Some(0.15000000000000002));
        assert_eq!(quantile(0.5, &[(0.1, 10), (0.2, 10), (f64::INFINITY, 0)]), Some(0.1));
        assert_eq!(quantile(0.99, &[(0.1, 1), (f64::INFINITY, 9)]), Some(0.1));
    }

    #[test]
    fn a_minute_forgets_what_is_older_and_history_is_bounded() {
        let (book, id) = book();
        let mut recent = Recent::new(Arc::clone(&book), true);
        recent.look(0);
        serve(&book, 1_000, 0, 1);
        for step in 1..=80 {
            recent.look(step * 5_000);
        }
        let service = recent.look(405_000).services.remove(0);
        assert_eq!((service.minute.requests, service.minute_seconds), (0, 60.0));
        assert_eq!(service.history.len(), 60);
        assert_eq!(service.history[59].time_unix_ms, 405_000);
        assert_eq!(service.minute.p99, None);
        // A log that is read a long way behind says nothing of now.
        book.lock().workloads.get_mut(&id).expect("there").lag_nano = 61_000_000_000;
        serve(&book, 500, 0, 1);
        let service = recent.look(410_000).services.remove(0);
        assert_eq!((service.minute.requests, service.minute_seconds, service.lag_seconds), (0, 0.0, 61.0));
        assert_eq!(service.history.len(), 60, "nothing is added");
    }

    #[test]
    fn the_busiest_services_are_kept_and_the_others_counted() {
        let (book, _) = book();
        {
            let mut book = book.lock();
            for n in 0..205 {
                let identity = Identity { workload: format!("w{n:03}"), ..Identity::default() };
                let mut workload = Workload::new(identity.clone(), 0);
                workload.source = Source::Log;
                book.workloads.insert(identity.workload_id(), workload);
            }
        }
        let mut recent = Recent::new(Arc::clone(&book), true);
        recent.look(0);
        serve(&book, 5, 0, 1);
        let summary = recent.look(5_000);
        assert_eq!((summary.services.len(), summary.omitted), (200, 6));
        assert_eq!(summary.services[0].workload, "cart");
    }

    #[test]
    fn bounds_beyond_the_limit_count_into_the_next_one_up() {
        let mut totals = Totals::default();
        for n in 1..=16 {
            totals.bucket(f64::from(n), 1);
        }
        totals.bucket(2.5, 7);
        assert_eq!(totals.buckets.len(), 16);
        assert_eq!(totals.buckets[2], (3.0, 8));
    }
}
