//! Takes final pages and writes them into requests at once: runs in the thread that owns all series.
//!
//! In: pages, each encoded from where it lies. Out: sealed requests into the [`Buffer`]. Invariants: it never blocks; all
//! pages of one origin go to one shard, in order; a request holds at most the configured number of samples.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use xxhash_rust::xxh3;

use super::buffer::{Buffer, Sealed};
use super::{Counts, Options, Version, kind_number, v1, v2};
use crate::data::sample::{Collect, MetricKind, Origin, Page};

/// Uncompressed bytes of a request, at most: receivers take 32 MiB (VictoriaMetrics) or more.
const LARGEST: usize = 4 << 20;
/// How often version 1 says a family's type and help. Prometheus does so every minute.
const METADATA_EVERY: Duration = Duration::from_secs(60);
/// Families whose metadata is remembered; others are not said.
const FAMILIES: usize = 10_000;
/// Uncompressed bytes of a metadata request, at most.
const METADATA_LARGEST: usize = 256 << 10;

/// The request that is being written.
#[derive(Debug)]
enum Writer {
    V1(Box<v1::Request>),
    V2(Box<v2::Request>),
}

impl Writer {
    fn new(version: Version) -> Self {
        match version {
            Version::V1 => Self::V1(Box::default()),
            Version::V2 => Self::V2(Box::default()),
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::V1(_) => Version::V1,
            Self::V2(_) => Version::V2,
        }
    }

    fn raw_len(&self) -> usize {
        match self {
            Self::V1(request) => request.raw_len(),
            Self::V2(request) => request.raw_len(),
        }
    }
}

/// A shard's request that is being written.
#[derive(Debug)]
struct Open {
    writer: Writer,
    counts: Counts,
    born: Instant,
}

/// The entrance of a remote_write sink.
pub(super) struct Entrance {
    buffer: Arc<Buffer>,
    options: Options,
    max_samples: u64,
    deadline: Duration,
    open: Vec<Open>,
    /// When each family's metadata was said last, by the hash of its name.
    families: HashMap<u64, Instant, foldhash::fast::RandomState>,
    metadata: Vec<u8>,
    created: v2::Created,
}

impl Entrance {
    pub(super) fn new(
        buffer: Arc<Buffer>,
        options: Options,
        shards: usize,
        max_samples: u64,
        deadline: Duration,
    ) -> Self {
        let open = |_| Open {
            writer: Writer::new(buffer.version()),
            counts: Counts::default(),
            born: Instant::now(),
        };
        Self {
            open: (0..shards).map(open).collect(),
            buffer,
            options,
            max_samples,
            deadline,
            families: HashMap::default(),
            metadata: Vec::new(),
            created: v2::Created::default(),
        }
    }

    fn seal(&mut self, shard: usize) {
        let open = &mut self.open[shard];
        if open.counts.all() == 0 {
            return;
        }
        let version = open.writer.version();
        let body = match &mut open.writer {
            Writer::V1(request) => request.seal(),
            Writer::V2(request) => request.seal(),
        };
        let counts = std::mem::take(&mut open.counts);
        self.buffer.push(shard, Sealed { body: Bytes::from(body), version, counts, born: open.born });
    }

    /// Version 1 says of families in requests without samples what version 2 says with each of them.
    fn say_metadata(&mut self, page: &Page, now: Instant) {
        for family in &page.families {
            let name = page.bytes(family.name);
            if name.is_empty() || (family.kind == MetricKind::Unknown && family.help.is_empty()) {
                continue;
            }
            let key = xxh3::xxh3_64(name);
            let room = self.families.len() < FAMILIES;
            match self.families.get_mut(&key) {
                Some(said) if now.duration_since(*said) < METADATA_EVERY => continue,
                Some(said) => *said = now,
                None if room => {
                    self.families.insert(key, now);
                }
                None => {
                    self.families.retain(|_, said| now.duration_since(*said) < METADATA_EVERY);
                    continue;
                }
            }
            let (help, unit) = (page.bytes(family.help), page.bytes(family.unit));
            v1::write_metadata(&mut self.metadata, kind_number(family.kind), name, help, unit);
            if self.metadata.len() >= METADATA_LARGEST {
                self.seal_metadata();
            }
        }
    }

    fn seal_metadata(&mut self) {
        if self.metadata.is_empty() {
            return;
        }
        let body = snap::raw::Encoder::new().compress_vec(&self.metadata).unwrap_or_default();
        self.metadata = Vec::new();
        let sealed = Sealed {
            body: Bytes::from(body),
            version: Version::V1,
            counts: Counts::default(),
            born: Instant::now(),
        };
        self.buffer.push(0, sealed);
    }
}

impl Collect for Entrance {
    fn page(&mut self, origin: &Arc<Origin>, page: &Page) {
        if page.samples.is_empty() {
            return;
        }
        let now = Instant::now();
        let shard = shard_of(origin, self.open.len());
        let version = self.buffer.version();
        if self.open[shard].writer.version() != version {
            self.seal(shard);
            self.open[shard].writer = Writer::new(version);
        }
        match &mut self.open[shard].writer {
            Writer::V1(request) => request.begin_page(),
            Writer::V2(request) => {
                request.begin_page();
                self.created.read(page);
            }
        }
        for sample in &page.samples {
            let histogram = page.histogram_of(sample).is_some();
            if histogram && !self.options.histograms {
                continue;
            }
            let open = &mut self.open[shard];
            if open.counts.all() == 0 {
                open.born = now;
            }
            match &mut open.writer {
                Writer::V1(request) => request.add(page, sample, &self.options),
                Writer::V2(request) => {
                    let created = self.created.of(page, sample);
                    request.add(page, sample, &self.options, created);
                }
            }
            if histogram {
                open.counts.histograms += 1;
            } else {
                open.counts.samples += 1;
            }
            if self.options.exemplars {
                open.counts.exemplars += page.exemplars_of(sample).len() as u64;
            }
            open.counts.see(sample.time_unix_ms);
            if open.counts.all() >= self.max_samples || open.writer.raw_len() >= LARGEST {
                self.seal(shard);
                match &mut self.open[shard].writer {
                    Writer::V1(request) => request.begin_page(),
                    Writer::V2(request) => request.begin_page(),
                }
            }
        }
        if version == Version::V1 && self.options.metadata {
            self.say_metadata(page, now);
        }
    }

    fn flush(&mut self) {
        for shard in 0..self.open.len() {
            if self.open[shard].counts.all() > 0 && self.open[shard].born.elapsed() >= self.deadline {
                self.seal(shard);
            }
        }
        self.seal_metadata();
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        for shard in 0..self.open.len() {
            self.seal(shard);
        }
        self.seal_metadata();
        self.buffer.close();
    }
}

/// All pages of one origin go one way.
fn shard_of(origin: &Origin, shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    let mut hash = origin.kind as u64;
    for (name, value) in &origin.labels {
        hash = xxh3::xxh3_64_with_seed(value.as_bytes(), xxh3::xxh3_64_with_seed(name.as_bytes(), hash));
    }
    (hash % shards as u64) as usize
}
