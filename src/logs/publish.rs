//! The ledger as metrics: sums over the node, and the containers that are most in danger.
//!
//! In: the accounts of all logs. Out: gauges. Invariant: at most [`WORST`] containers have series of their own, only
//! while they have a backlog, so that the number of series does not grow with the node's pods.

use std::collections::BTreeMap;

use super::registry::Registry;
use crate::data::account::{Account, Sums};
use crate::data::clock;
use crate::metrics;

/// Containers with series of their own.
pub const WORST: usize = 20;
/// Shown as time to loss when nothing is written or nothing is behind, and for anything longer: a year.
pub const NO_DANGER_SECONDS: i64 = 31_536_000;

/// Namespace, pod and container.
type Name = [String; 3];

/// How far behind a container is, over all its restarts and pods of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Backlog {
    generation_lag: u64,
    unread_bytes: u64,
    time_to_loss_seconds: i64,
}

/// Sets the gauges, and remembers which series are shown.
#[derive(Debug, Default)]
pub struct Publisher {
    shown: Vec<Name>,
}

impl Publisher {
    /// Brings the gauges up to date. Call it every few seconds.
    pub fn publish(&mut self, registry: &Registry) {
        let (accounts, node) = registry.accounts();
        publish_sums(&node);
        let unread = registry.oldest_unread(clock::now(), clock::since_epoch().as_nanos() as u64);
        metrics::LOG_OLDEST_UNREAD.set(gauge(unread.as_secs()));
        let backlogs = backlogs(&accounts);
        metrics::LOG_GENERATION_LAG_MAX
            .set(gauge(backlogs.iter().map(|(_, b)| b.generation_lag).max().unwrap_or(0)));
        metrics::LOG_TIME_TO_LOSS_MIN
            .set(backlogs.iter().map(|(_, b)| b.time_to_loss_seconds).min().unwrap_or(NO_DANGER_SECONDS));
        let worst = &backlogs[..backlogs.len().min(WORST)];
        for name in self.shown.iter().filter(|name| !worst.iter().any(|(now, _)| now == *name)) {
            remove(name);
        }
        for (name, backlog) in worst {
            let labels = name.each_ref().map(String::as_str);
            metrics::LOG_GENERATION_LAG.with_label_values(&labels).set(gauge(backlog.generation_lag));
            metrics::LOG_TIME_TO_LOSS.with_label_values(&labels).set(backlog.time_to_loss_seconds);
            metrics::LOG_UNREAD_BYTES.with_label_values(&labels).set(gauge(backlog.unread_bytes));
        }
        self.shown = worst.iter().map(|(name, _)| name.clone()).collect();
    }
}

impl Drop for Publisher {
    /// Nobody would take the series away later: those of the next publisher need not be the same.
    fn drop(&mut self) {
        for name in &self.shown {
            remove(name);
        }
    }
}

/// Takes a container's series off the page.
fn remove(name: &Name) {
    let labels = name.each_ref().map(String::as_str);
    for family in [&metrics::LOG_GENERATION_LAG, &metrics::LOG_TIME_TO_LOSS, &metrics::LOG_UNREAD_BYTES] {
        // It was set when the name was shown.
        let _ = family.remove_label_values(&labels);
    }
}

fn publish_sums(node: &Sums) {
    for (state, bytes) in [
        ("written", node.written),
        ("sent", node.sent),
        ("in_flight", node.in_flight),
        ("waiting", node.waiting),
        ("held", node.held),
        ("dropped", node.dropped_bytes()),
        ("lost", node.lost_bytes()),
    ] {
        metrics::LEDGER_BYTES.with_label_values(&[state]).set(gauge(bytes));
    }
    metrics::LEDGER_UNEXPLAINED_BYTES.set(node.unexplained);
}

/// The containers with a backlog, the worst first: by generation lag, then by unread bytes, then by name.
fn backlogs(accounts: &[Account]) -> Vec<(Name, Backlog)> {
    let mut by_name: BTreeMap<Name, Backlog> = BTreeMap::new();
    for account in accounts.iter().filter(|account| account.is_behind()) {
        let name = [&account.namespace, &account.pod, &account.container].map(String::clone);
        // Saturates.
        let seconds = account.time_to_loss.map_or(NO_DANGER_SECONDS, |seconds| seconds as i64);
        let backlog = by_name.entry(name).or_insert(Backlog {
            generation_lag: 0,
            unread_bytes: 0,
            time_to_loss_seconds: NO_DANGER_SECONDS,
        });
        backlog.generation_lag = backlog.generation_lag.max(account.generation_lag);
        backlog.unread_bytes += account.sums.waiting;
        backlog.time_to_loss_seconds = backlog.time_to_loss_seconds.min(seconds);
    }
    let mut backlogs: Vec<(Name, Backlog)> = by_name.into_iter().collect();
    backlogs.sort_by_key(|(_, b)| std::cmp::Reverse((b.generation_lag, b.unread_bytes)));
    backlogs
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::account::{Look, Sight};
    use crate::data::delivery::Ledger;
    use crate::data::position::Position;
    use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
    use crate::logs::checkpoint::Marks;
    use std::sync::Arc;
    use std::time::Duration;

    fn enter(registry: &Registry, pod: &str, restart: u32) -> Arc<Sight> {
        let container =
            ContainerRef::from_path(&format!("publish_{pod}_u1"), "api", restart).expect("a directory");
        let mut paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        let Identity::Known(workload) = paths.identify(&container, std::time::Duration::ZERO) else {
            unreachable!("paths say it all")
        };
        let sight = Arc::<Sight>::default();
        let ledger = Ledger::new(Position::default(), Arc::default());
        registry.enter(container.key().into(), workload, ledger, Arc::clone(&sight), false);
        sight
    }

    /// The published series of a family: pod and value.
    fn series(name: &str) -> Vec<(String, i64)> {
        let families = metrics::registry().gather();
        let family = families.iter().find(|family| family.name() == name);
        let mut found: Vec<(String, i64)> = family
            .into_iter()
            .flat_map(|family| family.get_metric())
            .map(|metric| {
                let pod = metric.get_label().iter().find(|label| label.name() == "pod");
                (
                    pod.map_or_else(String::new, |l| l.value().to_owned()),
                    metric.get_gauge().get_value() as i64,
                )
            })
            .collect();
        found.sort();
        found
    }

    /// One test, since the gauges are the process's own.
    #[test]
    fn only_the_worst_containers_with_a_backlog_have_series() {
        let registry = Registry::new(Marks::new());
        let mut publisher = Publisher::default();
        publisher.publish(&registry);
        assert_eq!(series("nodewick_log_generation_lag"), []);
        assert_eq!(series("nodewick_log_generation_lag_max"), [(String::new(), 0)]);
        assert_eq!(series("nodewick_log_time_to_loss_min_seconds"), [(String::new(), 31_536_000)]);

        let sights: Vec<Arc<Sight>> = (0..25).map(|n| enter(&registry, &format!("p{n:02}"), 0)).collect();
        for (n, sight) in sights.iter().enumerate() {
            // p00 has nothing unread; p01 the least, p24 the most.
            let unread = n as u64 * 10;
            let look = Look {
                written_bytes: unread,
                waiting_bytes: unread,
                headroom_bytes: 1240,
                ..Look::default()
            };
            sight.look(Duration::ZERO, Look { written_bytes: 0, ..look });
            sight.look(Duration::from_secs(10), look);
        }
        let again = enter(&registry, "p24", 1);
        again.look(
            Duration::ZERO,
            Look { written_bytes: 7, waiting_bytes: 7, newest_ordinal: 2, ..Look::default() },
        );
        publisher.publish(&registry);
        let unread = series("nodewick_log_unread_bytes");
        let pods: Vec<String> = (5..25).map(|n| format!("p{n:02}")).collect();
        assert_eq!(unread.iter().map(|(pod, _)| pod.clone()).collect::<Vec<_>>(), pods);
        assert_eq!((unread[0].1, unread[19].1), (50, 247), "both restarts count");
        assert_eq!(series("nodewick_log_generation_lag")[19], ("p24".to_owned(), 2));
        // (1240 − 50) / 5 and (1240 − 240) / 24.
        let times = series("nodewick_log_time_to_loss_seconds");
        assert_eq!((times[0].1, times[19].1), (238, 41));
        assert_eq!(series("nodewick_log_time_to_loss_min_seconds"), [(String::new(), 41)]);
        assert_eq!(series("nodewick_log_generation_lag_max"), [(String::new(), 2)]);

        for sight in &sights {
            sight.look(Duration::from_secs(11), Look { written_bytes: 9, ..Look::default() });
        }
        sights[3]
            .look(Duration::from_secs(12), Look { written_bytes: 9, waiting_bytes: 1, ..Look::default() });
        registry.remove("publish_p24_u1/api/1");
        publisher.publish(&registry);
        assert_eq!(series("nodewick_log_unread_bytes"), [("p03".to_owned(), 1)]);
        assert_eq!(series("nodewick_log_time_to_loss_seconds"), [("p03".to_owned(), 0)]);
        drop(publisher);
        assert_eq!(series("nodewick_log_time_to_loss_seconds"), []);
    }
}
