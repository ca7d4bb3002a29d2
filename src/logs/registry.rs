//! All container logs that are being followed, as the checkpoint and the status views see them.
//!
//! The tail enters and removes logs; everyone else only reads. Marks of logs that have not been found again since
//! the start are kept, so that a log root which is late to appear costs no position.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::checkpoint::{Mark, Marks, Seen};
use super::frozen;
use crate::data::account::{Account, Flow, Sight, Sums};
use crate::data::delivery::Ledger;
use crate::data::pods::Traits;
use crate::data::position::Position;
use crate::data::workload::{ContainerRef, Workload};

/// Logs that were closed and whose flow nobody has asked for yet.
const MOST_CLOSED: usize = 1_024;

/// Bytes of a log that were not acknowledged which make a checkpoint tell the size of its file.
pub(super) const BACKLOG: u64 = 64 << 10;

#[derive(Debug)]
struct Tracked {
    workload: Arc<Workload>,
    ledger: Arc<Ledger>,
    /// All files of the log that are not done with, oldest first.
    files: Vec<Seen>,
    last_words_told: bool,
    /// It is not shipped at present.
    excluded: bool,
    /// What its records carry, as the checkpoint keeps it.
    traits: Arc<Traits>,
    sight: Arc<Sight>,
}

#[derive(Debug, Default)]
struct State {
    logs: HashMap<Arc<str>, Tracked>,
    unclaimed: Marks,
    /// Logs that were followed to their end since the last checkpoint: what the spill has of them is not needed.
    removed: Vec<Arc<str>>,
    /// Changes when logs come or go, so that an otherwise idle agent writes a checkpoint.
    version: u64,
    /// What became of logs that are followed no more.
    closed: Sums,
    /// Their flows, until somebody asks.
    ended: VecDeque<(Arc<str>, Arc<Workload>, Flow)>,
}

/// The logs being followed.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
}

impl Registry {
    /// A registry that knows what the checkpoint said.
    pub fn new(marks: Marks) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { unclaimed: marks, ..State::default() }) })
    }

    /// What the checkpoint says of a log that has not been [entered](Self::enter) yet.
    pub(super) fn mark(&self, key: &str) -> Option<Mark> {
        self.state.lock().unclaimed.get(key).cloned()
    }

    /// Keys of logs that are no container's and that the checkpoint knows, as far as they have not been entered.
    pub(super) fn unclaimed_files(&self) -> HashSet<String> {
        let state = self.state.lock();
        let of_files = |key: &&String| ContainerRef::path_of_key(key).is_some();
        state.unclaimed.keys().filter(of_files).cloned().collect()
    }

    /// The identity under which a log goes out, or would, when `known` is what is known of it now.
    pub fn identity(&self, key: &str, known: Arc<Workload>) -> Arc<Workload> {
        let state = self.state.lock();
        if let Some(tracked) = state.logs.get(key) {
            return Arc::clone(&tracked.workload);
        }
        // What the operator configures of a file counts at once.
        let configured = !known.container.is_container() && !known.container.container.is_empty();
        if configured { known } else { frozen::freeze(known, state.unclaimed.get(key)) }
    }

    /// True when a log is switched off.
    pub fn is_excluded(&self, key: &str) -> bool {
        let state = self.state.lock();
        state.logs.get(key).is_some_and(|tracked| tracked.excluded)
            || state.unclaimed.get(key).is_some_and(|mark| mark.excluded)
    }

    /// Keys of logs that are no container's, followed ones and those that the checkpoint knows.
    pub fn files(&self) -> HashSet<String> {
        let state = self.state.lock();
        let keys = state.logs.keys().map(|key| &**key).chain(state.unclaimed.keys().map(String::as_str));
        keys.filter(|key| ContainerRef::path_of_key(key).is_some()).map(str::to_owned).collect()
    }

    /// Forgets logs of the checkpoint that are not on disk any more, and tells what was known of them. Those that are
    /// switched off stay, see [`forget_excluded`](Self::forget_excluded), and those of which `may_come_back` says so.
    pub(super) fn forget_unclaimed(&self, may_come_back: impl Fn(&str) -> bool) -> Marks {
        let mut state = self.state.lock();
        let all = std::mem::take(&mut state.unclaimed);
        let stays = |(key, mark): &(String, Mark)| mark.excluded || may_come_back(key);
        let (stay, gone): (Marks, Marks) = all.into_iter().partition(stays);
        state.unclaimed = stay;
        state.version += u64::from(!Marks::is_empty(&gone));
        gone
    }

    /// Takes note that a log which is not followed is switched off: nothing of it is waited for any more, and should it
    /// be switched on it begins at its end. True when that is news.
    pub(super) fn exclude(&self, key: &str) -> bool {
        let mut state = self.state.lock();
        let mark = state.unclaimed.entry(key.to_owned()).or_default();
        let news = !mark.excluded || mark.position != Position::default();
        (mark.excluded, mark.position) = (true, Position::default());
        mark.files.clear();
        state.version += u64::from(news);
        news
    }

    /// True while a log that is on disk is not followed because it is switched off.
    pub(super) fn has_excluded(&self) -> bool {
        self.state.lock().unclaimed.values().any(|mark| mark.excluded)
    }

    /// Forgets logs that were switched off and of which `is_there` says no.
    pub(super) fn forget_excluded(&self, is_there: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let before = state.unclaimed.len();
        state.unclaimed.retain(|key, mark| !mark.excluded || is_there(key));
        state.version += u64::from(state.unclaimed.len() != before);
    }

    /// A followed log is switched off, or on again.
    pub(super) fn set_excluded(&self, key: &str, excluded: bool) {
        let mut state = self.state.lock();
        if let Some(tracked) = state.logs.get_mut(key) {
            tracked.excluded = excluded;
            state.version += 1;
        }
    }

    pub(super) fn enter(
        &self,
        key: Arc<str>,
        workload: Arc<Workload>,
        ledger: Arc<Ledger>,
        sight: Arc<Sight>,
        last_words_told: bool,
    ) {
        let mut state = self.state.lock();
        // In one step: a checkpoint that is written meanwhile must know the log either way.
        state.unclaimed.remove(&*key);
        state.removed.retain(|removed| *removed != key);
        let traits = Arc::new(frozen::traits(&workload));
        let files = Vec::new();
        let tracked = Tracked { workload, ledger, files, last_words_told, excluded: false, traits, sight };
        if let Some(before) = state.logs.insert(Arc::clone(&key), tracked) {
            state.close(key, &before);
        }
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
        if let Some((key, tracked)) = state.logs.remove_entry(key) {
            state.close(Arc::clone(&key), &tracked);
            state.removed.push(key);
        }
        state.version += 1;
    }

    /// Logs that were removed since this was last asked.
    pub(super) fn take_removed(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.state.lock().removed)
    }

    /// Takes back what [`take_removed`](Self::take_removed) gave: the checkpoint without them is not durable.
    pub(super) fn put_back_removed(&self, keys: Vec<Arc<str>>) {
        let mut state = self.state.lock();
        let gone: Vec<_> = keys.into_iter().filter(|key| !state.logs.contains_key(&**key)).collect();
        state.removed.extend(gone);
    }

    /// How long the oldest unread line of all logs has waited at most, see [`Sight::oldest_unread`]; nothing when all is read.
    pub fn oldest_unread(&self, now: Duration, unix_nano: u64) -> Duration {
        let state = self.state.lock();
        let waited = state.logs.values().filter_map(|tracked| tracked.sight.oldest_unread(now, unix_nano));
        waited.max().unwrap_or_default()
    }

    /// The accounts of all logs being followed, in no order, and the sums over all logs since the start, those that
    /// are followed no more included.
    pub fn accounts(&self) -> (Vec<Account>, Sums) {
        let state = self.state.lock();
        let mut node = state.closed.clone();
        let accounts: Vec<Account> = state
            .logs
            .values()
            .map(|tracked| {
                let account = Account::of(&tracked.workload.container, &tracked.ledger, &tracked.sight);
                account.of_workload(&tracked.workload)
            })
            .collect();
        drop(state);
        for account in &accounts {
            node += &account.sums;
        }
        (accounts, node)
    }

    /// What became of the lines of each log: first those that have ended since this was last asked, then the others.
    pub fn flows(&self) -> Vec<(Arc<str>, Arc<Workload>, Flow)> {
        let mut state = self.state.lock();
        let mut flows: Vec<_> = std::mem::take(&mut state.ended).into();
        let live = state.logs.iter();
        flows.extend(live.map(|(key, of)| (Arc::clone(key), Arc::clone(&of.workload), Flow::of(&of.ledger))));
        flows
    }

    /// Up to where a log is acknowledged, while it is followed.
    pub fn position(&self, key: &str) -> Option<Position> {
        self.state.lock().logs.get(key).map(|tracked| tracked.ledger.committed())
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
            let alone = files.len() == 1 && files[0].ordinal == position.ordinal;
            // A little that is on its way need not be told: it would make every checkpoint longer.
            if alone && files[0].size <= position.offset + BACKLOG {
                files.clear();
            }
            let mark = Mark {
                position,
                traits: Arc::clone(&tracked.traits),
                service_name_guessed: tracked.workload.service_name_guessed,
                whole: true,
                last_words_told: tracked.last_words_told,
                excluded: tracked.excluded,
                files,
            };
            (Arc::clone(key), mark)
        });
        let unclaimed = state.unclaimed.iter().map(|(key, mark)| (Arc::from(key.as_str()), mark.clone()));
        known.chain(unclaimed).collect()
    }

    /// True when everything that was read has been settled.
    pub fn is_settled(&self) -> bool {
        self.state.lock().logs.values().all(|tracked| tracked.ledger.in_flight_bytes() == 0)
    }
}

impl State {
    fn close(&mut self, key: Arc<str>, tracked: &Tracked) {
        if self.ended.len() >= MOST_CLOSED {
            self.ended.pop_front();
        }
        self.ended.push_back((key, Arc::clone(&tracked.workload), Flow::of(&tracked.ledger)));
        self.closed += &Sums::of(&tracked.ledger, &tracked.sight).closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::account::Look;
    use crate::data::delivery::{Loss, Ticket};
    use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
    use std::time::Duration;

    fn enter(registry: &Registry, pod: &str) -> (Arc<Ledger>, Arc<Sight>) {
        let container = ContainerRef::from_path(&format!("shop_{pod}_u1"), "api", 0).expect("a directory");
        let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        let Identity::Known(workload) = paths.identify(&container, std::time::Duration::ZERO) else {
            unreachable!("paths say it all")
        };
        let (ledger, sight) = (Ledger::new(Position::default(), Arc::default()), Arc::<Sight>::default());
        registry.enter(container.key().into(), workload, Arc::clone(&ledger), Arc::clone(&sight), false);
        (ledger, sight)
    }

    #[test]
    fn the_sums_of_a_node_outlive_its_logs() {
        let registry = Registry::new(Marks::new());
        let (gone, seen) = enter(&registry, "gone");
        let (stays, _) = enter(&registry, "stays");
        seen.look(Duration::ZERO, Look { written_bytes: 130, waiting_bytes: 20, ..Look::default() });
        gone.issue(Position::default(), 70, 7, 1).for_each(Ticket::delivered);
        gone.lose_bytes(Loss::RotatedAway, 40);
        stays.issue(Position::default(), 5, 1, 1).for_each(Ticket::delivered);
        let (accounts, before) = registry.accounts();
        assert_eq!((accounts.len(), before.written, before.sent, before.waiting), (2, 135, 75, 20));
        registry.remove("shop_gone_u1/api/0");
        registry.remove("never there");
        let (accounts, after) = registry.accounts();
        assert_eq!(accounts.iter().map(|a| a.pod.as_str()).collect::<Vec<_>>(), ["stays"]);
        assert_eq!((after.written, after.sent, after.lost_bytes()), (135, 75, 40));
        assert_eq!((after.waiting, after.unexplained), (0, 20), "nobody can read them any more");
    }
}
