//! Node-side search: what a node's log files hold, while the backend is down or has not got it yet.
//!
//! In: a [`Query`]. Out: a stream of records as they would be sent, in the local store's JSON, one line each, and a last
//! line that says what was searched. Invariants: what is shown went through the agent's own stages, so secrets are
//! covered and what rules or annotations keep back is not shown; nothing is counted, acknowledged or changed; at most
//! [`SEARCHES`] run at once, each in a thread of its own, for a bounded time over bounded bytes.
//!
//! The logs that were written to last come first; within a log records are in its order, and when there are more than
//! asked for the newest of them stay.

mod job;
mod log;
mod needle;
mod node;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::sink::local::Filter;
use job::Job;

pub use node::Node;

/// Searches at once.
pub const SEARCHES: usize = 2;
/// Records of one search, unless it says otherwise.
pub const LIMIT: usize = 1_000;
/// Records of one search at most.
pub const MOST: usize = 10_000;
/// Time of one search, unless it says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Time of one search at most.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Most memory that searches take: records held, chunks on their way, a chunk in the stages and what they hold, the
/// expression's automaton.
pub const MEMORY_BOUND: u64 = SEARCHES as u64 * (job::HELD_BYTES as u64 + (11 << 19));
/// Chunks that wait for the client.
const QUEUE: usize = 4;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which records.
    pub filter: Filter,
    /// How many at most.
    pub limit: usize,
    /// For how long.
    pub deadline: Duration,
}

impl Default for Query {
    fn default() -> Self {
        Self { filter: Filter::default(), limit: LIMIT, deadline: DEADLINE }
    }
}

/// Why a search is not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Enough others run.
    #[error("{SEARCHES} searches are running on this node already; wait for one to end, or end it")]
    Busy,
    /// Nothing is read yet, or any more.
    #[error(
        "the agent does not read logs at this moment (it starts, stops, or takes up a new config); try again"
    )]
    NotReading,
    /// The system refuses a thread.
    #[error("the system refuses a thread for the search; try again")]
    NoThread,
}

/// Lines of a running search, in chunks of whole ones. Dropping it ends the search.
pub type Results = mpsc::Receiver<Bytes>;

/// Searches the logs of this node. Clones are the same searcher.
#[derive(Clone, Default)]
pub struct Searcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    node: Mutex<Option<(Arc<Node>, Arc<AtomicBool>)>>,
    running: AtomicUsize,
}

impl std::fmt::Debug for Searcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let running = self.shared.running.load(Ordering::Relaxed);
        f.debug_struct("Searcher").field("running", &running).finish_non_exhaustive()
    }
}

/// A search that runs.
struct Turn(Arc<Shared>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Searcher {
    /// What is searched from now on; `None` when the agent reads no logs. Searches of what was there before end.
    pub fn set(&self, node: Option<Node>) {
        let node = node.map(|node| (Arc::new(node), Arc::new(AtomicBool::new(false))));
        if let Some((_, stopping)) = std::mem::replace(&mut *self.shared.node.lock(), node) {
            stopping.store(true, Ordering::Relaxed);
        }
    }

    /// Searches that run.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Begins a search.
    ///
    /// # Errors
    /// When enough others run, or nothing can be searched now.
    pub fn start(&self, query: Query) -> Result<Results, Refused> {
        self.start_within(query, job::READ_BYTES)
    }

    fn start_within(&self, query: Query, read_limit: u64) -> Result<Results, Refused> {
        let (node, stopping) = self.shared.node.lock().clone().ok_or(Refused::NotReading)?;
        if self.shared.running.fetch_add(1, Ordering::AcqRel) >= SEARCHES {
            self.shared.running.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused::Busy);
        }
        let turn = Turn(Arc::clone(&self.shared));
        let (client, results) = mpsc::channel(QUEUE);
        let (limit, time) = (query.limit.clamp(1, MOST), query.deadline.min(LONGEST));
        let search = move || {
            let _turn = turn;
            yield_to_others();
            let mut job = Job::new(limit, time, read_limit, stopping, client);
            let cut = node.search(&query.filter, &mut job).err();
            job.finish(cut);
        };
        std::thread::Builder::new().name("search".into()).spawn(search).map_err(|_| Refused::NoThread)?;
        Ok(results)
    }
}

/// Gives this thread the lowest priority: it reads what the agent reads anyway.
fn yield_to_others() {
    // Where it is refused the pauses must do.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
}
