//! All container logs that are being followed, as the checkpoint and the status views see them.
//!
//! The tail enters and removes logs; everyone else only reads. Marks of logs that have not been found again since
//! the start are kept, so that a log root which is late to appear costs no position.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoint::{Mark, Marks, Seen};
use crate::data::delivery::{Ledger, Totals};
use crate::data::workload::Workload;

#[derive(Debug)]
struct Tracked {
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    /// All files of the log that are not done with, oldest first.
    files: Vec<Seen>,
    last_words_told: bool,
}

#[derive(Debug, Default)]
struct State {
    logs: HashMap<Arc<str>, Tracked>,
    unclaimed: Marks,
    /// Changes when logs come or go, so that an otherwise idle agent writes a checkpoint.
    version: u64,
}

/// The logs being followed.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
}

/// A container log for the status views.
#[derive(Debug, Clone)]
pub struct LogStatus {
    /// Its key: `<ns>_<pod>_<uid>/<container>/<restart>`.
    pub key: Arc<str>,
    /// Who writes it.
    pub workload: Arc<Workload>,
    /// What became of it.
    pub totals: Totals,
    /// Bytes handed out and not yet settled.
    pub in_flight_bytes: u64,
}

impl Registry {
    /// A registry that knows what the checkpoint said.
    pub fn new(marks: Marks) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { unclaimed: marks, ..State::default() }) })
    }

    /// What the checkpoint says of a log that may be [claimed](Self::claim).
    pub(super) fn mark(&self, key: &str) -> Option<Mark> {
        self.state.lock().unclaimed.get(key).cloned()
    }

    /// A log of the checkpoint has been found and will be [entered](Self::enter).
    pub(super) fn claim(&self, key: &str) {
        self.state.lock().unclaimed.remove(key);
    }

    /// Forgets logs of the checkpoint that are not on disk any more.
    pub(super) fn forget_unclaimed(&self) -> usize {
        let mut state = self.state.lock();
        let gone = state.unclaimed.len();
        state.unclaimed = Marks::new();
        state.version += u64::from(gone > 0);
        gone
    }

    pub(super) fn enter(
        &self,
        key: Arc<str>,
        workload: Arc<Workload>,
        ledger: Arc<Ledger>,
        last_words_told: bool,
    ) {
        let mut state = self.state.lock();
        state.logs.insert(key, Tracked { workload, ledger, files: Vec::new(), last_words_told });
        state.version += 1;
    }

    /// The files of a log have become others.
    pub(super) fn set_files(&self, key: &str, files: Vec<Seen>) {
        let mut state = self.state.lock();
        if let Some(tracked) = state.logs.get_mut(key)
            && tracked.files != files
        {
            tracked.files = files;
            state.version += 1;
        }
    }

    /// The last words of a log are told: not again after a restart.
    pub(super) fn set_last_words_told(&self, key: &str) {
        let mut state = self.state.lock();
        if let Some(tracked) = state.logs.get_mut(key) {
            tracked.last_words_told = true;
            state.version += 1;
        }
    }

    pub(super) fn remove(&self, key: &str) {
        let mut state = self.state.lock();
        state.logs.remove(key);
        state.version += 1;
    }

    /// Changes whenever the checkpoint would.
    pub fn version(&self) -> (u64, u64) {
        let state = self.state.lock();
        let committed = state.logs.values().map(|tracked| tracked.ledger.totals().committed_bytes).sum();
        (state.version, committed)
    }

    /// The marks of all logs, as of now.
    pub fn marks(&self) -> Vec<(Arc<str>, Mark)> {
        let state = self.state.lock();
        let known = state.logs.iter().map(|(key, tracked)| {
            let position = tracked.ledger.committed();
            let files = tracked.files.iter().filter(|seen| seen.ordinal >= position.ordinal);
            let mut files: Vec<Seen> = files.copied().collect();
            if files.len() == 1 && files[0].ordinal == position.ordinal {
                files.clear();
            }
            let mark = Mark {
                position,
                service_name: tracked.workload.service_name.clone(),
                service_name_guessed: tracked.workload.service_name_guessed,
                environment: tracked.workload.environment.clone(),
                last_words_told: tracked.last_words_told,
                files,
            };
            (Arc::clone(key), mark)
        });
        let unclaimed = state.unclaimed.iter().map(|(key, mark)| (Arc::from(key.as_str()), mark.clone()));
        known.chain(unclaimed).collect()
    }

    /// All logs being followed, in no order.
    pub fn status(&self) -> Vec<LogStatus> {
        let state = self.state.lock();
        state
            .logs
            .iter()
            .map(|(key, tracked)| LogStatus {
                key: Arc::clone(key),
                workload: Arc::clone(&tracked.workload),
                totals: tracked.ledger.totals(),
                in_flight_bytes: tracked.ledger.in_flight_bytes(),
            })
            .collect()
    }

    /// True when everything that was read has been settled.
    pub fn is_settled(&self) -> bool {
        self.state.lock().logs.values().all(|tracked| tracked.ledger.in_flight_bytes() == 0)
    }
}
