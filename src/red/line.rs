//! Requests of access lines into the book.
//!
//! In: stretches of logs with the requests found in them. Out: counters and positions in the book.
//! Invariant: a request counts when its last line has come, once; a line before the counted position counts no more.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::book::{Book, Identity, Log, MAX_JOINS, MAX_LOGS, Pod, Source, Workload, excluded};
use super::cell::Bounds;
use super::config::SourceSetting;
use super::joins::{Begun, Joins};
use super::route::Hint;
use super::words::{Class, Method};
use crate::data::access::{AccessTap, Phase, Request};
use crate::data::position::Position;
use crate::data::workload::Workload as Instance;
use crate::metrics;

/// The log thread's hand on the book.
#[derive(Debug, Clone)]
pub struct LogTap {
    pub(super) book: Arc<Mutex<Book>>,
}

impl AccessTap for LogTap {
    fn counted(&self, key: &str) -> Option<Position> {
        self.book.lock().logs.get(key).map(|log| log.position)
    }

    fn is_resumed(&self) -> bool {
        self.book.lock().is_resumed
    }

    fn count(
        &mut self,
        key: &Arc<str>,
        workload: &Arc<Instance>,
        requests: &[Request],
        text: &[u8],
        until: Position,
    ) {
        self.book.lock().count(key, workload, requests, text, until);
    }

    fn lag(&mut self, key: &str, _workload: &Arc<Instance>, nanos: u64) {
        if let Some(log) = self.book.lock().logs.get_mut(key) {
            log.lag_nano = nanos;
        }
    }

    fn forget(&mut self, is_there: &dyn Fn(&str) -> bool) {
        let mut book = self.book.lock();
        let before = book.logs.len();
        book.logs.retain(|key, _| is_there(key));
        if book.logs.len() != before {
            book.moved = true;
        }
    }
}

/// True when two positions are in the same file: a head that is not known yet is no other file.
fn same_file(a: &Position, b: &Position) -> bool {
    let (one, two) = (a.generation, b.generation);
    a.ordinal == b.ordinal
        && (one.device, one.inode) == (two.device, two.inode)
        && (one.head == two.head || one.head == 0 || two.head == 0)
}

/// What counting one request needs of the book.
struct Counting<'a> {
    workload: &'a mut Workload,
    pods: &'a mut HashMap<u64, Pod>,
    cells: &'a mut usize,
    bounds: &'a Arc<Bounds>,
    pod: u64,
    clock_ms: u64,
    keeps_evidence: bool,
    now_unix_ms: i64,
}

impl Book {
    /// Counts a stretch of a log; see [`AccessTap::count`].
    pub fn count(
        &mut self,
        key: &Arc<str>,
        instance: &Arc<Instance>,
        requests: &[Request],
        text: &[u8],
        until: Position,
    ) {
        if !self.logs.contains_key(key) {
            if self.logs.len() >= MAX_LOGS {
                metrics::RED_REFUSED.with_label_values(&["logs"]).inc_by(requests.len().max(1) as u64);
                return;
            }
            let log = Log {
                position: Position::default(),
                instance: None,
                pod: 0,
                workload: 0,
                lag_nano: 0,
                joins: Joins::default(),
            };
            self.logs.insert(key.clone(), log);
        }
        let Some(log) = self.logs.get_mut(key) else { return };
        let known = log.position;
        let repeated = if same_file(&known, &until) { known.offset } else { 0 };
        if until.offset > repeated || repeated == 0 {
            log.position = until;
        }
        self.moved = true;
        if requests.is_empty() {
            return;
        }
        let current = log.instance.as_ref().is_some_and(|own| Arc::ptr_eq(own, instance));
        let there = current && self.pods.contains_key(&log.pod) && self.workloads.contains_key(&log.workload);
        if !there {
            let Some((pod, workload)) = self.ensure(&Identity::of_instance(instance)) else {
                metrics::RED_REFUSED.with_label_values(&["requests"]).inc_by(requests.len() as u64);
                return;
            };
            let Some(log) = self.logs.get_mut(key) else { return };
            log.instance = Some(instance.clone());
            (log.pod, log.workload) = (pod, workload);
        }
        let Some(log) = self.logs.get_mut(key) else { return };
        let Some(workload) = self.workloads.get_mut(&log.workload) else { return };
        if let Some(pod) = self.pods.get_mut(&log.pod) {
            pod.seen_ms = self.clock_ms;
        }
        workload.seen_ms = self.clock_ms;
        workload.has_lines = true;
        workload.lines_ms = self.clock_ms;
        let lines_wanted = self.setting != SourceSetting::Scrape;
        if lines_wanted && matches!(workload.source, Source::None | Source::Partial) {
            workload.source = Source::Log;
            workload.profile = "access_log";
        }
        let bounds = workload.bounds.clone().unwrap_or_else(|| self.bounds.clone());
        let mut counting = Counting {
            workload,
            pods: &mut self.pods,
            cells: &mut self.cells,
            bounds: &bounds,
            keeps_evidence: self.keeps_evidence,
            now_unix_ms: self.now_unix_ms,
            pod: log.pod,
            clock_ms: self.clock_ms,
        };
        let joins_left = self.open_joins < MAX_JOINS;
        for request in requests {
            if request.offset < repeated {
                continue;
            }
            counting.one(&mut log.joins, request, text, joins_left);
        }
        self.changed = true;
    }
}

impl Counting<'_> {
    #[inline]
    fn one(&mut self, joins: &mut Joins, request: &Request, text: &[u8], joins_left: bool) {
        let id = request.request_id;
        let id = if id.is_empty() { None } else { Some(xxh3_64(id.of(text))) };
        let route = request.route.of(text);
        if request.phase == Phase::Begun {
            if let Some(id) = id {
                let begun = Begun::new(request.time_unix_nano, Method::of(request.method.of(text)), route);
                if !joins_left && !joins.is_open(id) || !joins.begin(id, begun) {
                    metrics::RED_REFUSED.with_label_values(&["joins"]).inc();
                }
            }
            return;
        }
        let class = match request.phase {
            Phase::Aborted => Class::ABORTED,
            _ => match Class::of_status(request.status) {
                Some(class) => class,
                None => return,
            },
        };
        let mut begun = None;
        if let Some(id) = id
            && !joins.is_empty()
        {
            begun = joins.end(id, request.time_unix_nano);
        }
        let method = match &begun {
            Some(begun) if request.method.is_empty() => begun.method,
            _ => Method::of(request.method.of(text)),
        };
        let raw = match &begun {
            Some(begun) if route.is_empty() => begun.path(),
            _ => route,
        };
        let hint = if matches!(request.status, 404 | 405) { Hint::Unanswered } else { Hint::Line };
        let resolved = self.workload.routes.resolve(raw, hint, self.clock_ms);
        if resolved.is_new && !self.workload.tallies.is_empty() {
            let tallies = &self.workload.tallies;
            self.workload.routes.exclude_one(resolved.id, |route| excluded(tallies, route));
        }
        if !self.workload.tallies.is_empty() {
            let silent = self.workload.routes.get(resolved.id).map_or(0, |route| route.excluded);
            for (index, (slo, tally)) in self.workload.tallies.iter_mut().enumerate() {
                if silent >> index & 1 == 1 {
                    continue;
                }
                if slo.is_observed() && !self.workload.source.is_log() {
                    continue;
                }
                let Some(good) = slo.is_good(class, request.duration_nano) else { continue };
                tally.count(good, 1);
                if !good
                    && self.keeps_evidence
                    && let Some(trace) = request.trace_id
                {
                    let at = match request.time_unix_nano {
                        0 => self.now_unix_ms,
                        nano => (nano / 1_000_000) as i64,
                    };
                    tally.witness(trace, at);
                }
            }
        }
        if !self.workload.source.is_log() {
            return;
        }
        self.workload.from_lines += 1;
        let key = (resolved.id, method);
        if let Some(cell) = Book::cell(self.pods, self.cells, self.pod, key, self.bounds) {
            if !Arc::ptr_eq(&cell.bounds, self.bounds) {
                cell.rebound(self.bounds);
            }
            cell.count(class, request.duration_nano, request.trace_id, request.time_unix_nano);
        }
    }
}
