//! Who looks, when, and what is kept between two looks.
//!
//! In: what each part of the agent knows, as [`Sources`]. Out: the newest [`Overview`]. Invariant: however many ask, there is
//! one look in [`EVERY`] at most, and none while nobody asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::look::{self, Look};
use super::{About, Overview, parts};
use crate::data::account::{Account, Sums};
use crate::data::clock;
use crate::health::Health;
use crate::red::Summary;
use crate::scrape::status::Board;
use crate::sink::said;
use crate::slo::eval::Report;

/// Least time between two looks.
pub const EVERY: Duration = Duration::from_millis(900);
/// The same after a first one, which has no rates.
const SOON: Duration = Duration::from_millis(200);
/// Rates are of about this long.
const RATES: Duration = Duration::from_secs(5);
/// After this long without a look rates would say nothing of now.
const COLD: Duration = Duration::from_secs(15);

/// All logs' accounts and the sums over them, while logs are read.
pub type Accounts = Arc<dyn Fn() -> Option<(Vec<Account>, Sums, Duration)> + Send + Sync>;

/// What each part of the agent knows.
#[derive(Clone)]
pub struct Sources {
    /// Its node.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Accounts of all logs, the sums of the node, and how long the oldest unread line waits.
    pub accounts: Accounts,
    /// What became of targets.
    pub board: Board,
    /// What is shown of RED.
    pub red: Arc<dyn Fn() -> Arc<Summary> + Send + Sync>,
    /// How objectives stand.
    pub slos: Arc<dyn Fn() -> Arc<Report> + Send + Sync>,
    /// Checks and notes.
    pub health: Health,
}

/// Looks for whoever asks. Clones are the same observer.
#[derive(Clone)]
pub struct Observer(Arc<Shared>);

struct Shared {
    sources: Sources,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first, of the last seconds.
    looks: VecDeque<Look>,
    newest: Arc<Overview>,
}

impl Observer {
    /// An observer of these.
    pub fn new(sources: Sources) -> Self {
        Self(Arc::new(Shared { sources, state: Mutex::default() }))
    }

    /// The newest picture, of now or of less than a second ago.
    pub fn observe(&self) -> Arc<Overview> {
        let mut state = self.0.state.lock();
        let now = clock::now();
        if let Some(last) = state.looks.back() {
            let age = now.saturating_sub(last.at);
            let enough = if state.looks.len() == 1 { SOON } else { EVERY };
            if age < enough {
                return Arc::clone(&state.newest);
            }
            if age > COLD {
                state.looks.clear();
            }
        }
        let look = self.look(now);
        state.take(look, &self.0.sources)
    }

    /// The same with rates: where nobody has looked for a while, of two looks with a moment between them.
    pub async fn observe_with_rates(&self) -> Arc<Overview> {
        let first = self.observe();
        if first.agent.rates_over_seconds.is_some() {
            return first;
        }
        tokio::time::sleep(SOON + SOON / 2).await;
        self.observe()
    }

    fn look(&self, now: Duration) -> Look {
        let from = &self.0.sources;
        let (accounts, node, oldest_unread) = (from.accounts)().unwrap_or_default();
        let mut cpu_seconds = 0.0;
        let gauges = look::gauges(&mut cpu_seconds);
        let counters = look::Counters { cpu_seconds, ..look::counters(&accounts, &node) };
        let (live, ready) = (from.health.live(), from.health.ready());
        let failing = ready.lines.iter().filter_map(|line| {
            let hangs = live.lines.iter().any(|own| own.name == line.name && own.failure.is_some());
            Some((line.name.to_owned(), line.failure.clone()?, hangs))
        });
        Look {
            at: now,
            time_unix_ms: look::unix_ms(),
            counters,
            gauges,
            node,
            accounts: Arc::new(accounts),
            red: (from.red)(),
            report: Some((from.slos)()),
            rows: Arc::new(from.board.rows(look::unix_ms())),
            said: said::all(),
            failing: failing.collect(),
            notes: from.health.notes().into_iter().map(|(name, text)| (name.to_owned(), text)).collect(),
            oldest_unread,
        }
    }
}

impl State {
    fn take(&mut self, look: Look, sources: &Sources) -> Arc<Overview> {
        self.looks.push_back(look);
        while self.looks.len() > 2 && self.looks[1].at + RATES <= self.looks[self.looks.len() - 1].at {
            self.looks.pop_front();
        }
        let now = &self.looks[self.looks.len() - 1];
        let before = (self.looks.len() > 1).then(|| &self.looks[0]);
        let mut overview = parts::overview(now, before);
        let About { node, cluster, .. } = &mut overview.agent;
        (*node, *cluster) = (sources.node.clone(), sources.cluster.clone());
        self.newest = Arc::new(overview);
        // Of older looks only the counters are of use.
        let newest = self.looks.len() - 1;
        for old in self.looks.iter_mut().take(newest) {
            (old.accounts, old.red, old.rows) = Default::default();
            old.report = None;
        }
        Arc::clone(&self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> Observer {
        Observer::new(Sources {
            node: "node-1".into(),
            cluster: "c".into(),
            accounts: Arc::new(|| None),
            board: Board::default(),
            red: Arc::new(Arc::default),
            slos: Arc::new(|| Arc::new(crate::slo::eval::off("it is switched off"))),
            health: Health::new(),
        })
    }

    #[test]
    fn a_second_asker_gets_the_same_picture() {
        let observer = observer();
        let (first, second) = (observer.observe(), observer.clone().observe());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((first.agent.node.as_str(), first.agent.rates_over_seconds), ("node-1", None));
        assert_eq!(first.objectives.reason, "it is switched off");
    }

    #[tokio::test]
    async fn a_picture_with_rates_takes_two_looks_with_a_moment_between() {
        let picture = observer().observe_with_rates().await;
        assert!(picture.agent.rates_over_seconds.is_some_and(|seconds| seconds >= 0.2));
    }

    #[test]
    fn looks_reach_back_a_few_seconds_only() {
        let observer = observer();
        let mut state = State::default();
        for second in 0..60 {
            let look = Look { at: Duration::from_secs(second), ..Look::default() };
            let overview = state.take(look, &observer.0.sources);
            let expected = (second > 0).then(|| second.min(5) as f64);
            assert_eq!(overview.agent.rates_over_seconds, expected, "after {second} s");
        }
        assert_eq!(state.looks.len(), 6);
    }
}
