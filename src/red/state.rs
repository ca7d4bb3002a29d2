//! `red.state`: counters and positions on disk, together, never torn.
//!
//! In: the book. Out: the book of an earlier life. Layout: `magic(8) version(4) plain length(4) crc32c(4)`, little endian, then
//! the payload packed by zstd; the checksum covers all but itself. Numbers in it are LEB128, texts have their length before
//! them. A new file takes the old one's place by renaming, after it is durable.
//! Invariant: what is published is on disk before, so that after a crash no request counts twice and none is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
use crate::data::position::{Generation, Position, Skipping};
use crate::metrics;

/// Name in the state directory.
pub(super) const FILE: &str = "red.state";
const TEMPORARY: &str = "red.state.new";
const MAGIC: &[u8; 8] = b"NWICKRED";
const VERSION: u32 = 1;
const HEADER: usize = 20;
/// No file is read beyond this, packed or plain.
const MAX_SIZE: u64 = 32 << 20;
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
    plain: Vec<u8>,
    waiting: bool,
    quiet: u32,
    good: bool,
}

impl StateFile {
    /// Reads what an earlier life left into `book`. Never fails: a file that cannot be read is as good as none.
    pub(super) fn open(dir: &Path, book: &mut Book) -> Self {
        match read(&dir.join(FILE)) {
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
        Self { dir: dir.to_owned(), plain: Vec::new(), waiting: false, quiet: 0, good: true }
    }

    /// Takes the book as it is now, if it has changed.
    pub(super) fn encode(&mut self, book: &mut Book) {
        self.quiet += u32::from(book.moved);
        let due = book.changed || !self.good || book.moved && self.quiet >= QUIET_TICKS;
        if !due {
            return;
        }
        self.plain.clear();
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
        match write(&self.dir, &self.plain) {
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
        if self.plain.capacity() > 4 << 20 {
            self.plain = Vec::new();
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

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() < HEADER || bytes.len() as u64 > MAX_SIZE || &bytes[..8] != MAGIC {
        return Err(invalid("it is no file of RED counters"));
    }
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(8) != VERSION {
        return Err(invalid("it is of another version"));
    }
    let checked = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[HEADER..]);
    if number(16) != checked || u64::from(number(12)) > MAX_SIZE {
        return Err(invalid("its checksum is wrong"));
    }
    zstd::bulk::decompress(&bytes[HEADER..], number(12) as usize)
}

fn write(dir: &Path, plain: &[u8]) -> io::Result<()> {
    if plain.len() as u64 > MAX_SIZE {
        return Err(invalid("there is too much to keep"));
    }
    let packed = zstd::bulk::compress(plain, 1)?;
    let mut bytes = Vec::with_capacity(HEADER + packed.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &packed);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&packed);
    let temporary = dir.join(TEMPORARY);
    // Never through a link that somebody left there.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_identity(out: &mut Vec<u8>, own: &Identity) {
    for text in [&own.cluster, &own.node, &own.namespace, &own.workload, &own.pod, &own.service] {
        put_text(out, text.as_bytes());
    }
}

fn encode(book: &Book, out: &mut Vec<u8>) {
    // Bounds, each once.
    let mut bounds: Vec<&Arc<Bounds>> = Vec::new();
    for cell in book.pods.values().flat_map(|pod| pod.cells.values()) {
        if !bounds.iter().any(|own| Arc::ptr_eq(own, &cell.bounds)) {
            bounds.push(&cell.bounds);
        }
    }
    put(out, bounds.len() as u64);
    for own in &bounds {
        put(out, own.list().len() as u64);
        for bound in own.list() {
            out.extend_from_slice(&bound.seconds.to_le_bytes());
            put_text(out, bound.text.as_bytes());
        }
    }
    put(out, book.workloads.len() as u64);
    for workload in book.workloads.values() {
        put_identity(out, &workload.identity);
        out.push(workload.source.letter() | u8::from(workload.has_lines) << 4);
        put(out, workload.from_lines);
        put(out, workload.routes.iter().count() as u64);
        for (id, route) in workload.routes.iter() {
            put(out, id.0.into());
            put_text(out, route.text.as_bytes());
            out.push(u8::from(route.is_learned()) | u8::from(route.is_retired()) << 1);
        }
        let tallies = || workload.tallies.iter().map(|(_, tally)| tally).chain(&workload.kept_tallies);
        put(out, tallies().count() as u64);
        for tally in tallies() {
            put_text(out, tally.id.as_bytes());
            put(out, tally.good);
            put(out, tally.bad);
            out.push(u8::from(tally.born));
        }
    }
    put(out, book.pods.len() as u64);
    for pod in book.pods.values() {
        put_identity(out, &pod.identity);
        put(out, pod.cells.len() as u64);
        for ((route, method), cell) in &pod.cells {
            put(out, route.0.into());
            out.push(method.index());
            let own = bounds.iter().position(|own| Arc::ptr_eq(own, &cell.bounds));
            put(out, own.unwrap_or_default() as u64);
            cell.classes.iter().for_each(|count| put(out, *count));
            cell.cumulative().for_each(|count| put(out, count));
            out.extend_from_slice(&cell.sum().to_le_bytes());
            put(out, cell.fresh);
            out.push(u8::from(cell.born) | u8::from(cell.timed) << 1 | u8::from(cell.timed_born) << 2);
        }
    }
    put(out, book.logs.len() as u64);
    let mut joins_left = MAX_KEPT_JOINS;
    for (key, log) in &book.logs {
        put_text(out, key.as_bytes());
        let at = &log.position;
        for number in [at.generation.device, at.generation.inode, at.generation.head, at.ordinal, at.offset] {
            put(out, number);
        }
        out.push(at.skipping.0);
        let kept = log.joins.len().min(joins_left);
        joins_left -= kept;
        put(out, kept as u64);
        for (request, begun) in log.joins.iter().take(kept) {
            put(out, request);
            put(out, begun.time_unix_nano);
            out.push(begun.method.index());
            put_text(out, begun.path());
        }
    }
    put_declared(book, out);
}

/// What pods have declared: lines that are read before the pods are known again count by it.
fn put_declared(book: &Book, out: &mut Vec<u8>) {
    let of_pods = || book.slos.iter().filter(|slo| slo.about.door == Door::Pods).take(MAX_OBJECTIVES);
    put(out, of_pods().count() as u64);
    for slo in of_pods() {
        let matcher = &slo.matcher;
        let names =
            [matcher.namespace.as_deref(), matcher.workload.as_deref()].map(Option::unwrap_or_default);
        for text in [slo.id.as_str()].into_iter().chain(names) {
            put_text(out, text.as_bytes());
        }
        put(
            out,
            match slo.kind {
                Kind::Availability => 0,
                Kind::Latency { threshold_nano } => threshold_nano,
            },
        );
        put(out, slo.exclude_routes.len() as u64);
        slo.exclude_routes.iter().for_each(|route| put_text(out, route.as_bytes()));
        let about = &slo.about;
        for text in [&about.objective, &about.window, &about.mode, &about.owner] {
            put_text(out, text.as_bytes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (own, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(own)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A count that may not exceed `limit`.
    fn count(&mut self, limit: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= limit)
    }

    fn float(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.count(4096)?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    fn declared(&mut self) -> Option<Slo> {
        let (id, namespace, workload) =
            (self.text()?.to_owned(), self.text()?.to_owned(), self.text()?.to_owned());
        let kind = match self.number()? {
            0 => Kind::Availability,
            threshold_nano => Kind::Latency { threshold_nano },
        };
        let routes = self.count(MAX_EXCLUDED)?;
        let exclude_routes =
            (0..routes).map(|_| self.text().map(str::to_owned)).collect::<Option<Vec<String>>>()?;
        let mut text = || self.text().map(str::to_owned);
        let about =
            About { door: Door::Pods, objective: text()?, window: text()?, mode: text()?, owner: text()? };
        let matcher = Matcher { namespace: Some(namespace), workload: Some(workload) };
        Some(Slo { id, matcher, kind, exclude_routes, about })
    }

    fn identity(&mut self) -> Option<Identity> {
        Some(Identity {
            cluster: self.text()?.to_owned(),
            node: self.text()?.to_owned(),
            namespace: self.text()?.to_owned(),
            workload: self.text()?.to_owned(),
            pod: self.text()?.to_owned(),
            service: self.text()?.to_owned(),
        })
    }
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
        let mut workload = Workload::new(from.identity()?, 0);
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
        let identity = from.identity()?;
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
    let declared = if from.0.is_empty() { 0 } else { from.count(MAX_OBJECTIVES)? };
    for _ in 0..declared {
        book.slos.push(Arc::new(from.declared()?));
    }
    from.0.is_empty().then_some(())
}
