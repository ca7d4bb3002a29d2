//! `red.state`: counters and positions on disk, together, never torn.
//!
//! In: the book. Out: the book of an earlier life, in a file of the [form](crate::durable::Form) that all such files have, of
//! values as [`pack`](crate::data::pack) writes them.
//! Invariant: what is published is on disk before, so that after a crash no request counts twice and none is lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::book::{
    Book, Identity, Log, MAX_CELLS, MAX_LOGS, MAX_OBJECTIVES, MAX_PODS, MAX_WORKLOADS, Pod, Source, Workload,
};
use super::cell::{Bound, Bounds, Cell, MAX_BOUNDS};
use super::joins::{Begun, Joins};
use super::route::{MAX_LENGTH, RouteId};
use super::slo::{About, Door, Kind, MAX_SLOS, Matcher, Slo, Tally};
use super::words::{CLASSES, Method};
use crate::data::pack::{Reader, Writer};
use crate::data::position::{Generation, Position, Skipping};
use crate::durable::Form;
use crate::metrics;

/// Name in the state directory.
pub(super) const FILE: &str = "red.state";
/// No file is read beyond 32 MiB, packed or plain.
const FORM: Form = Form { magic: b"NWICKRED", version: 1, most: 32 << 20 };
/// Open requests that are kept.
const MAX_KEPT_JOINS: usize = 1_000;
/// Routes without a say of one objective that are read back.
const MAX_EXCLUDED: usize = 1_000;
/// Ticks after which positions alone are worth a write: what lies between has no requests.
const QUIET_TICKS: u32 = 20;

/// The file, and what is to be written to it next.
#[derive(Debug)]
pub(super) struct StateFile {
    dir: PathBuf,
    plain: Writer,
    waiting: bool,
    quiet: u32,
    good: bool,
}

impl StateFile {
    /// Reads what an earlier life left into `book`. Never fails: a file that cannot be read is as good as none.
    pub(super) fn open(dir: &Path, book: &mut Book) -> Self {
        match FORM.read(&dir.join(FILE)) {
            Ok(plain) => {
                if decode(&plain, book).is_some() {
                    book.is_resumed = true;
                } else {
                    damaged(dir, book, "it breaks off");
                }
            }
            // From its first tick on it is an earlier life for the next one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => book.changed = true,
            Err(error) => damaged(dir, book, &error.to_string()),
        }
        Self { dir: dir.to_owned(), plain: Writer::default(), waiting: false, quiet: 0, good: true }
    }

    /// Takes the book as it is now, if it has changed.
    pub(super) fn encode(&mut self, book: &mut Book) {
        self.quiet += u32::from(book.moved);
        let due = book.changed || !self.good || book.moved && self.quiet >= QUIET_TICKS;
        if !due {
            return;
        }
        self.plain.0.clear();
        encode(book, &mut self.plain);
        self.waiting = true;
        self.quiet = 0;
        (book.changed, book.moved) = (false, false);
    }

    /// Makes durable what was taken. On an error counting goes on in memory, and the next tick tries again.
    pub(super) fn write(&mut self) {
        if !std::mem::take(&mut self.waiting) {
            return;
        }
        match FORM.write(&self.dir, FILE, &self.plain.0) {
            Ok(()) if !self.good => {
                self.good = true;
                info!(dir = %self.dir.display(), "RED counters are durable again");
            }
            Ok(()) => {}
            Err(error) => {
                metrics::RED_STATE_FAILURES.inc();
                if std::mem::replace(&mut self.good, false) {
                    warn!(
                        dir = %self.dir.display(), %error,
                        "RED counters cannot be made durable; they go on in memory, and a crash may count requests twice"
                    );
                }
            }
        }
        // A burst of churn must not hold its memory for ever.
        if self.plain.0.capacity() > 4 << 20 {
            self.plain = Writer::default();
        }
    }

    /// Whether the last write succeeded.
    pub(super) fn is_good(&self) -> bool {
        self.good
    }
}

fn damaged(dir: &Path, book: &mut Book, error: &str) {
    metrics::CHECKPOINT_CORRUPT.with_label_values(&[FILE]).inc();
    warn!(file = %dir.join(FILE).display(), error, "RED counters of an earlier life cannot be read; they begin at 0");
    let (setting, bounds) = (book.setting, book.bounds.clone());
    *book = Book::new(setting, bounds);
}

fn put_identity(out: &mut Writer, own: &Identity) {
    for text in [&own.cluster, &own.node, &own.namespace, &own.workload, &own.pod, &own.service] {
        out.text(text);
    }
}

fn encode(book: &Book, out: &mut Writer) {
    // Bounds, each once.
    let mut bounds: Vec<&Arc<Bounds>> = Vec::new();
    for cell in book.pods.values().flat_map(|pod| pod.cells.values()) {
        if !bounds.iter().any(|own| Arc::ptr_eq(own, &cell.bounds)) {
            bounds.push(&cell.bounds);
        }
    }
    out.number(bounds.len() as u64);
    for own in &bounds {
        out.number(own.list().len() as u64);
        for bound in own.list() {
            out.float(bound.seconds);
            out.text(&bound.text);
        }
    }
    out.number(book.workloads.len() as u64);
    for workload in book.workloads.values() {
        put_identity(out, &workload.identity);
        out.byte(workload.source.letter() | u8::from(workload.has_lines) << 4);
        out.number(workload.from_lines);
        out.number(workload.routes.iter().count() as u64);
        for (id, route) in workload.routes.iter() {
            out.number(id.0.into());
            out.text(&route.text);
            out.byte(u8::from(route.is_learned()) | u8::from(route.is_retired()) << 1);
        }
        let tallies = || workload.tallies.iter().map(|(_, tally)| tally).chain(&workload.kept_tallies);
        out.number(tallies().count() as u64);
        for tally in tallies() {
            out.text(&tally.id);
            out.number(tally.good);
            out.number(tally.bad);
            out.byte(u8::from(tally.born));
        }
    }
    out.number(book.pods.len() as u64);
    for pod in book.pods.values() {
        put_identity(out, &pod.identity);
        out.number(pod.cells.len() as u64);
        for ((route, method), cell) in &pod.cells {
            out.number(route.0.into());
            out.byte(method.index());
            let own = bounds.iter().position(|own| Arc::ptr_eq(own, &cell.bounds));
            out.number(own.unwrap_or_default() as u64);
            cell.classes.iter().for_each(|count| out.number(*count));
            cell.cumulative().for_each(|count| out.number(count));
            out.float(cell.sum());
            out.number(cell.fresh);
            out.byte(u8::from(cell.born) | u8::from(cell.timed) << 1 | u8::from(cell.timed_born) << 2);
        }
    }
    out.number(book.logs.len() as u64);
    let mut joins_left = MAX_KEPT_JOINS;
    for (key, log) in &book.logs {
        out.text(key);
        let at = &log.position;
        for number in [at.generation.device, at.generation.inode, at.generation.head, at.ordinal, at.offset] {
            out.number(number);
        }
        out.byte(at.skipping.0);
        let kept = log.joins.len().min(joins_left);
        joins_left -= kept;
        out.number(kept as u64);
        for (request, begun) in log.joins.iter().take(kept) {
            out.number(request);
            out.number(begun.time_unix_nano);
            out.byte(begun.method.index());
            out.bytes(begun.path());
        }
    }
    put_declared(book, out);
}

/// What pods have declared: lines that are read before the pods are known again count by it.
fn put_declared(book: &Book, out: &mut Writer) {
    let of_pods = || book.slos.iter().filter(|slo| slo.about.door == Door::Pods).take(MAX_OBJECTIVES);
    out.number(of_pods().count() as u64);
    for slo in of_pods() {
        let matcher = &slo.matcher;
        let names =
            [matcher.namespace.as_deref(), matcher.workload.as_deref()].map(Option::unwrap_or_default);
        for text in [slo.id.as_str()].into_iter().chain(names) {
            out.text(text);
        }
        out.number(match slo.kind {
            Kind::Availability => 0,
            Kind::Latency { threshold_nano } => threshold_nano,
        });
        out.number(slo.exclude_routes.len() as u64);
        slo.exclude_routes.iter().for_each(|route| out.text(route));
        let about = &slo.about;
        for text in [&about.objective, &about.window, &about.mode, &about.owner] {
            out.text(text);
        }
    }
}

fn declared(from: &mut Reader<'_>) -> Option<Slo> {
    let (id, namespace, workload) =
        (from.text()?.to_owned(), from.text()?.to_owned(), from.text()?.to_owned());
    let kind = match from.number()? {
        0 => Kind::Availability,
        threshold_nano => Kind::Latency { threshold_nano },
    };
    let routes = from.count(MAX_EXCLUDED)?;
    let exclude_routes =
        (0..routes).map(|_| from.text().map(str::to_owned)).collect::<Option<Vec<String>>>()?;
    let mut text = || from.text().map(str::to_owned);
    let about =
        About { door: Door::Pods, objective: text()?, window: text()?, mode: text()?, owner: text()? };
    let matcher = Matcher { namespace: Some(namespace), workload: Some(workload) };
    Some(Slo { id, matcher, kind, exclude_routes, about })
}

fn identity(from: &mut Reader<'_>) -> Option<Identity> {
    Some(Identity {
        cluster: from.text()?.to_owned(),
        node: from.text()?.to_owned(),
        namespace: from.text()?.to_owned(),
        workload: from.text()?.to_owned(),
        pod: from.text()?.to_owned(),
        service: from.text()?.to_owned(),
    })
}

fn decode(plain: &[u8], book: &mut Book) -> Option<()> {
    let mut from = Reader(plain);
    let mut bounds = Vec::new();
    for _ in 0..from.count(MAX_CELLS + MAX_PODS)? {
        let mut own = Vec::new();
        for _ in 0..from.count(MAX_BOUNDS)? {
            let seconds = from.float()?;
            own.push(Bound { text: from.text()?.into(), ..Bound::new(seconds) });
        }
        let (count, own) = (own.len(), Bounds::new(own));
        // Bounds that are not as they were written would shift all counts.
        (own.list().len() == count).then_some(())?;
        bounds.push(if own == *book.bounds { book.bounds.clone() } else { Arc::new(own) });
    }
    for _ in 0..from.count(MAX_WORKLOADS)? {
        let mut workload = Workload::new(identity(&mut from)?, 0);
        let source = from.byte()?;
        workload.source = Source::of_letter(source & 0xf);
        workload.has_lines = source >> 4 & 1 == 1;
        workload.from_lines = from.number()?;
        for _ in 0..from.count(4096)? {
            let id = RouteId(u32::try_from(from.number()?).ok()?);
            let text = from.text().filter(|text| text.len() <= MAX_LENGTH)?;
            let bits = from.byte()?;
            workload.routes.restore(id, text, bits & 1 != 0, bits & 2 != 0, 0);
        }
        for _ in 0..from.count(2 * MAX_SLOS)? {
            let id = from.text()?.to_owned();
            let (good, bad, born) = (from.number()?, from.number()?, from.byte()? != 0);
            let tally = Tally { id, good, bad, born, ..Tally::default() };
            workload.kept_tallies.push(tally);
        }
        book.workloads.insert(workload.identity.workload_id(), workload);
    }
    for _ in 0..from.count(MAX_PODS)? {
        let identity = identity(&mut from)?;
        let (id, workload) = (identity.pod_id(), identity.workload_id());
        let mut pod = Pod { identity, workload, cells: Default::default(), seen_ms: 0 };
        for _ in 0..from.count(MAX_CELLS + MAX_PODS)? {
            let route = RouteId(u32::try_from(from.number()?).ok()?);
            let method = Method::at(from.byte()?)?;
            let own = bounds.get(usize::try_from(from.number()?).ok()?)?;
            let mut classes = [0; CLASSES.len()];
            for count in &mut classes {
                *count = from.number()?;
            }
            let cumulative = (0..=own.list().len()).map(|_| from.number()).collect::<Option<Vec<u64>>>()?;
            let sum = from.float()?;
            let fresh = from.number()?;
            let bits = from.byte()?;
            let mut cell = Cell::restored(own, cumulative, sum, fresh)?;
            cell.classes = classes;
            (cell.born, cell.timed, cell.timed_born) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            pod.cells.insert((route, method), cell);
        }
        book.cells += pod.cells.len();
        book.pods.insert(id, pod);
    }
    for _ in 0..from.count(MAX_LOGS)? {
        let key: Arc<str> = from.text()?.into();
        let generation = Generation { device: from.number()?, inode: from.number()?, head: from.number()? };
        let (ordinal, offset) = (from.number()?, from.number()?);
        let skipping = Skipping(from.byte()?);
        let mut joins = Joins::default();
        let mut open = Vec::new();
        for _ in 0..from.count(MAX_KEPT_JOINS)? {
            let (request, time) = (from.number()?, from.number()?);
            let method = Method::at(from.byte()?)?;
            open.push((request, Begun::new(time, method, from.text()?.as_bytes())));
        }
        open.sort_by_key(|(_, begun)| begun.time_unix_nano);
        for (request, begun) in open {
            joins.begin(request, begun);
        }
        let position = Position { generation, ordinal, offset, skipping };
        let log = Log { position, instance: None, pod: 0, workload: 0, lag_nano: 0, joins };
        book.logs.insert(key, log);
    }
    // Files of before have no more.
    let objectives = if from.0.is_empty() { 0 } else { from.count(MAX_OBJECTIVES)? };
    for _ in 0..objectives {
        book.slos.push(Arc::new(declared(&mut from)?));
    }
    from.0.is_empty().then_some(())
}
