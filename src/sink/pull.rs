//! The page that others fetch: the last page of every source, for a Prometheus that scrapes the agent.
//!
//! In: final pages, in the metrics thread. Out: Prometheus text or OpenMetrics at any time, in pieces. Invariants: of each
//! source only the last page is kept, compressed in blocks; a render holds one block a source beside the piece that it
//! writes; at most [`RENDERS`] run at once; a family stands once, in the order of names, whoever has samples of it; samples
//! carry their target's labels and no time; series that have ended and native histograms are not on it.

mod keep;
mod render;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::data::sample::{Collect, Origin, Page};
use crate::metrics;
use keep::{Keeper, Kept};

/// Renders at once.
pub const RENDERS: usize = 2;

type Sources = HashMap<usize, Arc<Kept>, foldhash::fast::FixedState>;

/// What the page may hold in memory, in bytes, with this many series of this many sources: the pages, measured at 16 to 22
/// bytes a series, and a block for each source and a piece for each render at once.
pub fn memory_bound(series: u64, sources: u64) -> u64 {
    24 * series + RENDERS as u64 * (sources * keep::BLOCK as u64 + 2 * render::PIECE as u64)
}

/// The last page of every source. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Workloads {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    sources: Mutex<Sources>,
    renders: AtomicUsize,
    collectors: AtomicUsize,
}

impl Workloads {
    /// What takes the pages, in the metrics thread.
    pub fn collector(&self) -> Box<dyn Collect> {
        let owner = self.shared.collectors.fetch_add(1, Ordering::Relaxed);
        Box::new(Collector { shared: Arc::clone(&self.shared), owner, keeper: Keeper::default() })
    }

    /// The page, piece by piece, as it is now; `None` while [`RENDERS`] others are being written.
    pub fn render(&self, open_metrics: bool) -> Option<Box<dyn Iterator<Item = Bytes> + Send>> {
        let slot = Slot::take(&self.shared)?;
        let pages: Vec<_> = self.shared.sources.lock().values().cloned().collect();
        Some(Box::new(render::Render::new(pages, open_metrics).inspect(move |_| {
            // Held until the last piece is gone.
            let _ = &slot;
        })))
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.shared.sources.lock().values().map(|kept| kept.bytes()).sum()
    }
}

/// One of the renders at once.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let more = |running: usize| (running < RENDERS).then_some(running + 1);
        shared.renders.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.renders.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Collector {
    shared: Arc<Shared>,
    owner: usize,
    keeper: Keeper,
}

impl Collector {
    fn put(&mut self, origin: &Arc<Origin>, kept: Option<Arc<Kept>>) {
        let key = Arc::as_ptr(origin) as usize;
        let added = kept.as_ref().map_or(0, |kept| kept.bytes());
        let mut sources = self.shared.sources.lock();
        let before = match kept {
            Some(kept) => sources.insert(key, kept),
            None => sources.remove(&key),
        };
        let removed = before.map_or(0, |kept| kept.bytes());
        metrics::WORKLOADS_PAGE_BYTES.add(added as i64 - removed as i64);
    }
}

impl Collect for Collector {
    fn page(&mut self, origin: &Arc<Origin>, page: &Page) {
        let kept = self.keeper.keep(self.owner, origin, page).map(Arc::new);
        self.put(origin, kept);
    }

    fn flush(&mut self) {}

    fn forget(&mut self, origin: &Arc<Origin>) {
        self.put(origin, None);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // A reload begins anew: what its targets say comes with their next pages, perhaps before this one ends.
        let mut removed = 0;
        self.shared.sources.lock().retain(|_, kept| {
            let stays = kept.owner != self.owner;
            removed += if stays { 0 } else { kept.bytes() };
            stays
        });
        metrics::WORKLOADS_PAGE_BYTES.sub(removed as i64);
    }
}
