//! The judge: what was written against what arrived, line by line, without keeping the lines.
//!
//! In: every line that a container of the node writes, and every entry that the backend took. Out: a [`Tally`]. Per
//! container a bit and the number of bytes on disk per line, and a histogram of latencies: ten million lines take about
//! 60 MB and no text.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::line::{self, Read};
use crate::support::fake_loki::{Arrival, FakeLoki};

/// Foreign and broken lines that are kept to be looked at.
const SHOWN: usize = 20_000;

/// A container, as lines and labels name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

/// What became of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Written.
    pub lines: u64,
    /// Written, and not arrived.
    pub lost: u64,
    /// Arrived once more than needed, as the backend received them.
    pub duplicated: u64,
    /// The same after the backend's own deduplication.
    pub duplicated_stored: u64,
    /// Arrived otherwise than written.
    pub corrupt: u64,
    /// Arrived under labels of another pod or container.
    pub misattributed: u64,
    /// Arrived for the first time behind a later line of the same container and pipe.
    pub reordered: u64,
    /// Longest time from writing to arrival.
    pub worst_latency_millis: u64,
    /// Gaps that the agent told of in the streams.
    pub gaps: u64,
}

/// A line that the agent itself wrote into a stream: `nodewick.gap`, `nodewick.last_words`.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub event: String,
    /// The pod that it is attributed to.
    pub pod: String,
    /// The line, as JSON.
    pub line: serde_json::Value,
}

/// Latencies of some containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    pub lines: u64,
    pub p50_millis: u64,
    pub p99_millis: u64,
    pub max_millis: u64,
}

/// Counts by eighths of powers of two, so that a percentile is at most an eighth too high.
#[derive(Debug, Clone)]
struct Histogram {
    counts: [u32; 8 * 30],
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; 8 * 30], max: 0 }
    }
}

impl Histogram {
    fn add(&mut self, millis: u64) {
        self.max = self.max.max(millis);
        let index = if millis < 8 {
            millis
        } else {
            let power = u64::from(millis.ilog2());
            (power - 2) * 8 + ((millis >> (power - 3)) & 7)
        };
        let last = self.counts.len() - 1;
        self.counts[(index as usize).min(last)] += 1;
    }

    /// Largest value of a bucket.
    fn upper(index: usize) -> u64 {
        if index < 8 {
            return index as u64;
        }
        let (power, eighth) = (index as u64 / 8 + 2, index as u64 % 8);
        ((8 + eighth + 1) << (power - 3)) - 1
    }
}

#[derive(Debug, Default)]
struct Column {
    /// Bytes on disk of each line, frames and headers included.
    bytes: Vec<u32>,
    seen: Vec<u64>,
    distinct: u64,
    received: u64,
    stored: u64,
    /// Latest line that arrived, by pipe.
    latest: [Option<u64>; 2],
    latency: Histogram,
}

#[derive(Debug)]
struct Book {
    name: Name,
    /// As the stream's label set spells them.
    labels: [String; 2],
    column: Mutex<Column>,
}

type Accept = Box<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
struct Shared {
    by_name: HashMap<(String, String), usize>,
    books: Vec<Arc<Book>>,
    foreign: Vec<String>,
    broken: Vec<String>,
    notices: Vec<Notice>,
    accept: Option<Accept>,
}

/// The books. All methods may be called from any thread.
#[derive(Default)]
pub struct Oracle {
    shared: Mutex<Shared>,
    written: AtomicU64,
    distinct: AtomicU64,
    corrupt: AtomicU64,
    misattributed: AtomicU64,
    reordered: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Oracle {
    /// Empty books.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Judges whatever `loki` takes from now on. `keep` says whether the fake keeps the entries too.
    pub fn listen(self: &Arc<Self>, loki: &FakeLoki, keep: bool) {
        let oracle = Arc::clone(self);
        loki.observe(
            keep,
            Box::new(move |arrival: Arrival<'_>| {
                let metadata = |name: &str| {
                    let mut pairs = arrival.entry.metadata.iter();
                    pairs.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
                };
                let (pod, pipe) = (metadata("pod"), metadata("stream"));
                oracle.arrived(arrival.labels, pod, pipe, &arrival.entry.line, arrival.stored);
            }),
        );
    }

    /// Lines that are none of ours and are taken as such, rather than as corrupt, when `accept` says so.
    pub fn accept_foreign(&self, accept: impl Fn(&str) -> bool + Send + Sync + 'static) {
        lock(&self.shared).accept = Some(Box::new(accept));
    }

    /// Opens the books of a container; its lines are numbered from 0.
    pub fn open(&self, name: &Name) -> usize {
        let mut shared = lock(&self.shared);
        let labels = [format!("container={:?}", name.container), format!("namespace={:?}", name.namespace)];
        let book = Book { name: name.clone(), labels, column: Mutex::default() };
        shared.books.push(Arc::new(book));
        let index = shared.books.len() - 1;
        shared.by_name.insert((name.uid.clone(), name.container.clone()), index);
        index
    }

    fn book(&self, index: usize) -> Arc<Book> {
        Arc::clone(&lock(&self.shared).books[index])
    }

    /// The next line of a container is about to be written, with so many bytes on disk.
    pub fn writes(&self, index: usize, bytes: usize) {
        lock(&self.book(index).column).bytes.push(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// The line took so many bytes on disk: fractions of seconds have no trailing zeros, so that is known only then.
    pub fn wrote(&self, index: usize, seq: u64, bytes: usize) {
        if let Some(known) = lock(&self.book(index).column).bytes.get_mut(seq as usize) {
            *known = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
    }

    /// An entry was taken by the backend. `labels` is its stream's label set, the rest is its metadata.
    pub fn arrived(&self, labels: &str, pod: Option<&str>, pipe: Option<&str>, text: &str, stored: bool) {
        let said = match line::read(text) {
            Read::Whole(said) => said,
            read => {
                let mut shared = lock(&self.shared);
                if let Some(notice) = notice(text, pod) {
                    if stored && shared.notices.len() < SHOWN {
                        shared.notices.push(notice);
                    }
                    return;
                }
                let accepted =
                    read == Read::Foreign && shared.accept.as_ref().is_some_and(|accept| accept(text));
                let kept = if accepted { &mut shared.foreign } else { &mut shared.broken };
                if kept.len() < SHOWN && stored {
                    kept.push(text.to_owned());
                }
                if !accepted {
                    self.corrupt.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        };
        let book = {
            let shared = lock(&self.shared);
            // Borrowed keys of pairs do not look up; two short strings do not matter.
            let key = (said.pod_uid.to_owned(), said.container.to_owned());
            shared.by_name.get(&key).map(|index| Arc::clone(&shared.books[*index]))
        };
        let Some(book) = book else {
            self.corrupt.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let at_home = book.labels.iter().all(|label| labels.contains(label.as_str()))
            && pod.is_none_or(|pod| pod == book.name.pod);
        if !at_home {
            self.misattributed.fetch_add(1, Ordering::Relaxed);
        }
        let latency = line::unix_millis().saturating_sub(said.unix_millis);
        let mut column = lock(&book.column);
        let (word, bit) = ((said.seq / 64) as usize, 1u64 << (said.seq % 64));
        if said.seq >= column.bytes.len() as u64 {
            self.corrupt.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if column.seen.len() <= word {
            column.seen.resize(word + 1, 0);
        }
        column.received += 1;
        column.stored += u64::from(stored);
        if column.seen[word] & bit == 0 {
            column.seen[word] |= bit;
            column.distinct += 1;
            self.distinct.fetch_add(1, Ordering::Relaxed);
            column.latency.add(latency);
            let latest = &mut column.latest[usize::from(pipe == Some("stderr"))];
            if latest.is_some_and(|latest| latest > said.seq) {
                self.reordered.fetch_add(1, Ordering::Relaxed);
            }
            *latest = Some(latest.map_or(said.seq, |latest| latest.max(said.seq)));
        }
    }

    /// Lines written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines that arrived at least once so far.
    pub fn distinct(&self) -> u64 {
        self.distinct.load(Ordering::Relaxed)
    }

    /// True when this line of a container has arrived.
    pub fn has(&self, index: usize, seq: u64) -> bool {
        let book = self.book(index);
        let column = lock(&book.column);
        column.seen.get((seq / 64) as usize).is_some_and(|word| word & (1 << (seq % 64)) != 0)
    }

    /// Lines of one container: written, and arrived at least once.
    pub fn of(&self, index: usize) -> (u64, u64) {
        let book = self.book(index);
        let column = lock(&book.column);
        (column.bytes.len() as u64, column.distinct)
    }

    /// Numbers of a container's lines that have not arrived, and what they take on disk, in bytes.
    pub fn lost(&self, index: usize) -> Vec<(u64, u64)> {
        let book = self.book(index);
        let column = lock(&book.column);
        let seen = |seq: usize| column.seen.get(seq / 64).is_some_and(|word| word & (1 << (seq % 64)) != 0);
        let lines = column.bytes.iter().enumerate();
        lines.filter(|(seq, _)| !seen(*seq)).map(|(seq, bytes)| (seq as u64, u64::from(*bytes))).collect()
    }

    /// What became of all lines so far.
    pub fn tally(&self) -> Tally {
        let books = lock(&self.shared).books.clone();
        let mut tally = Tally {
            corrupt: self.corrupt.load(Ordering::Relaxed),
            misattributed: self.misattributed.load(Ordering::Relaxed),
            reordered: self.reordered.load(Ordering::Relaxed),
            gaps: lock(&self.shared).notices.iter().filter(|notice| notice.event == "nodewick.gap").count()
                as u64,
            ..Tally::default()
        };
        for book in books {
            let column = lock(&book.column);
            tally.lines += column.bytes.len() as u64;
            tally.lost += column.bytes.len() as u64 - column.distinct;
            tally.duplicated += column.received - column.distinct;
            tally.duplicated_stored += column.stored.saturating_sub(column.distinct);
            tally.worst_latency_millis = tally.worst_latency_millis.max(column.latency.max);
        }
        tally
    }

    /// Latencies of the containers that `which` picks by their index, since the last [`forget_latencies`](Self::forget_latencies).
    pub fn latency(&self, which: impl Fn(usize) -> bool) -> Latency {
        let books = lock(&self.shared).books.clone();
        let (mut sum, mut all) = (Histogram::default(), Latency::default());
        for (_, book) in books.iter().enumerate().filter(|(index, _)| which(*index)) {
            let column = lock(&book.column);
            for (sum, count) in sum.counts.iter_mut().zip(&column.latency.counts) {
                *sum += count;
            }
            all.max_millis = all.max_millis.max(column.latency.max);
        }
        all.lines = sum.counts.iter().map(|count| u64::from(*count)).sum();
        let percentile = |share: f64| {
            let wanted = (all.lines as f64 * share).ceil() as u64;
            let mut before = 0;
            let found = sum.counts.iter().position(|count| {
                before += u64::from(*count);
                before >= wanted
            });
            found.map_or(0, Histogram::upper).min(all.max_millis)
        };
        (all.p50_millis, all.p99_millis) = (percentile(0.5), percentile(0.99));
        all
    }

    /// Begins the latencies anew: before a fault, and after it.
    pub fn forget_latencies(&self) {
        for book in lock(&self.shared).books.clone() {
            lock(&book.column).latency = Histogram::default();
        }
    }

    /// Lines that were none of ours and accepted as such, at most 20,000.
    pub fn foreign(&self) -> Vec<String> {
        lock(&self.shared).foreign.clone()
    }

    /// What the agent itself wrote into the streams, at most 20,000.
    pub fn notices(&self) -> Vec<Notice> {
        lock(&self.shared).notices.clone()
    }

    /// The first lines that were counted as corrupt.
    pub fn broken(&self) -> Vec<String> {
        lock(&self.shared).broken.clone()
    }
}

/// Reads a line of the agent's own: it names its event, and none of a container's lines here does.
fn notice(text: &str, pod: Option<&str>) -> Option<Notice> {
    if !text.contains("\"event\":\"nodewick.") || text.contains("HOSTILE-") {
        return None;
    }
    let line: serde_json::Value = serde_json::from_str(text).ok()?;
    let event = line.get("event")?.as_str()?.to_owned();
    Some(Notice { event, pod: pod.unwrap_or_default().to_owned(), line })
}

#[test]
fn every_way_to_go_wrong_is_counted() {
    let oracle = Oracle::new();
    let name = |uid: &str| Name {
        namespace: "shop".to_owned(),
        pod: format!("pod-{uid}"),
        uid: uid.to_owned(),
        container: "main".to_owned(),
    };
    let (a, _b) = (oracle.open(&name("a")), oracle.open(&name("b")));
    let labels = "{container=\"main\", namespace=\"shop\"}";
    let mut lines = Vec::new();
    for seq in 0..6 {
        let mut text = String::new();
        line::write("a", "main", seq, 300, &mut text);
        oracle.writes(a, text.len() + 40);
        lines.push(text);
    }
    let arrive = |pod: &str, text: &str, stored| {
        oracle.arrived(labels, Some(pod), Some("stdout"), text, stored);
    };
    arrive("pod-a", &lines[0], true);
    arrive("pod-a", &lines[0], false); // received twice
    arrive("pod-a", &lines[2], true);
    arrive("pod-a", &lines[1], true); // out of order
    arrive("pod-b", &lines[3], true); // under another pod
    arrive("pod-a", &lines[4][..200], true); // broken
    arrive("pod-a", &lines[3], true); // stored twice
    arrive("pod-a", r#"{"level":"warn","event":"nodewick.gap","bytes":7}"#, true);
    let tally = oracle.tally();
    assert_eq!((tally.lines, tally.lost), (6, 2));
    assert_eq!((tally.duplicated, tally.duplicated_stored), (2, 1));
    assert_eq!((tally.corrupt, tally.misattributed, tally.reordered, tally.gaps), (1, 1, 1, 1));
    let lost: Vec<_> = oracle.lost(a).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(lost, [4, 5]);
}

#[test]
fn percentiles_are_at_most_an_eighth_too_high() {
    for millis in [0, 7, 8, 9, 100, 1023, 1024, 40_000] {
        let mut histogram = Histogram::default();
        histogram.add(millis);
        let index = histogram.counts.iter().position(|count| *count == 1).expect("one");
        let upper = Histogram::upper(index);
        assert!(upper >= millis && upper <= millis + millis / 8, "{millis}: {upper}");
    }
}
