//! The pods of this node: what the Kubernetes watch knows, shared with whoever needs it.
//!
//! In: [`Pod`]s from the one who watches, through the [`Writer`]. Out: identities for logs through a [`Reader`], and
//! snapshots for whoever looks for targets. Invariants: one writer; a deleted pod stays for [`KEPT_AFTER_DELETION`]
//! after it was last asked for, so that its last lines find their labels; a log waits for its pod at most as long as
//! the reader allows, and then goes with what its path says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::workload::{ContainerRef, Exit, Handling, Identify, Identity, PathIdentity, Workload};

/// How long what is known of a deleted pod is kept after somebody last asked for it.
pub const KEPT_AFTER_DELETION: Duration = Duration::from_secs(600);

/// Deleted pods that are kept at most: those that were asked for last. A node has rarely more than 250 living ones.
pub const KEPT_DELETED: usize = 256;

/// How long the beginning of a log's reading waits for its pod.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A pod of this node, less everything that nobody here needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pod {
    /// The uid in its log path: `metadata.uid`, or for a static pod the kubelet's hash.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `status.podIP`, while it has one.
    pub ip: Option<IpAddr>,
    /// It shares the node's network.
    pub host_network: bool,
    /// `status.phase` is `Running`.
    pub running: bool,
    /// Its containers, init and ephemeral ones included.
    pub containers: Vec<Container>,
    /// Annotations of pod and namespace that the agent understands (`nodewick.dev/`, `slo.nodewick.dev/`,
    /// `prometheus.io/`), the pod's own first where both have one; sorted by name.
    pub annotations: Vec<(String, String)>,
    /// All labels of the pod, for selectors; sorted by name.
    pub labels: Vec<(String, String)>,
    /// `metadata.creationTimestamp`, seconds since the epoch; 0 where it is not known.
    pub created_unix: i64,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Id of its newest instance, as the runtime has it, without the runtime's name.
    pub id: Option<String>,
    /// What its records carry.
    pub traits: Arc<Traits>,
    /// How its logs are treated.
    pub handling: Arc<Handling>,
    /// Named ports (`containerPort` by name, or by its number where it has no name).
    pub ports: Vec<(String, u16)>,
    /// How instances of it ended, by restart count, newest last; two at most, as the API tells no more.
    pub exits: Vec<(u32, Exit)>,
}

/// What a container's records carry beside its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traits {
    /// OpenTelemetry `service.name`.
    pub service_name: String,
    /// OpenTelemetry `service.version`.
    pub service_version: Option<String>,
    /// OpenTelemetry `deployment.environment.name`; the agent's own setting stands before it.
    pub environment: Option<String>,
    /// Pod labels that the operator allows out, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Further resource attributes, sorted by name.
    pub attributes: Vec<(String, String)>,
    /// Loki tenant.
    pub tenant: Option<String>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// When it was deleted, or last asked for since; 0 while it lives. In nanoseconds of the reader's clock.
    gone: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    pods: RwLock<HashMap<String, Entry>>,
    version: AtomicU64,
    synced: AtomicBool,
    /// A log has asked for a pod that is not known.
    missed: AtomicBool,
    /// Since when a log has been without its pod. Whoever reads anew, after a reload, lets no log wait a second time.
    waiting: Mutex<HashMap<String, Duration>>,
}

/// The pods as the watch writes them. There is one.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

/// A look at the pods.
#[derive(Debug, Clone)]
pub struct Pods {
    shared: Arc<Shared>,
}

/// An empty directory: who writes it, and who looks.
pub fn directory() -> (Writer, Pods) {
    let shared = Arc::<Shared>::default();
    (Writer { shared: Arc::clone(&shared) }, Pods { shared })
}

impl Writer {
    /// Enters a pod or what is new of it. True when something is.
    pub fn enter(&mut self, pod: Pod) -> bool {
        let mut pods = self.shared.pods.write();
        let known = pods.get(&pod.uid);
        if known.is_some_and(|entry| *entry.pod == pod && entry.gone.load(Ordering::Relaxed) == 0) {
            return false;
        }
        pods.insert(pod.uid.clone(), Entry { pod: Arc::new(pod), gone: AtomicU64::new(0) });
        drop(pods);
        self.changed();
        true
    }

    /// A pod was deleted. What is known of it stays for a while.
    pub fn delete(&mut self, uid: &str, now: Duration) {
        if let Some(entry) = self.shared.pods.read().get(uid) {
            let now = now.as_nanos().max(1) as u64;
            let _ = entry.gone.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.changed();
    }

    /// Everything that the API knows has been entered: pods of which `is_listed` says no were deleted meanwhile.
    pub fn synced(&mut self, is_listed: impl Fn(&str) -> bool, now: Duration) {
        let gone: Vec<String> =
            self.shared.pods.read().keys().filter(|uid| !is_listed(uid)).cloned().collect();
        for uid in gone {
            self.delete(&uid, now);
        }
        self.shared.synced.store(true, Ordering::Release);
        self.changed();
    }

    /// Forgets pods that were deleted and that nobody has asked for since a while, or that are too many.
    pub fn forget(&mut self, now: Duration) {
        let mut limit = now.saturating_sub(KEPT_AFTER_DELETION).as_nanos() as u64;
        let mut pods = self.shared.pods.write();
        let mut deleted: Vec<u64> = pods.values().map(|entry| entry.gone.load(Ordering::Relaxed)).collect();
        deleted.retain(|gone| *gone != 0);
        if deleted.len() > KEPT_DELETED {
            deleted.sort_unstable_by(|a, b| b.cmp(a));
            limit = limit.max(deleted[KEPT_DELETED]);
        }
        pods.retain(|_, entry| {
            let gone = entry.gone.load(Ordering::Relaxed);
            gone == 0 || gone > limit
        });
        let enough = 2 * (pods.len() + KEPT_DELETED);
        if pods.capacity() > 2 * enough {
            pods.shrink_to(enough);
        }
    }

    /// True when a log has asked for a pod that is not known since this was last asked: it waits for its labels.
    pub fn take_missed(&self) -> bool {
        self.shared.missed.swap(false, Ordering::AcqRel)
    }

    /// A look at what is written.
    pub fn pods(&self) -> Pods {
        Pods { shared: Arc::clone(&self.shared) }
    }

    fn changed(&self) {
        self.shared.version.fetch_add(1, Ordering::Release);
    }
}

impl Pods {
    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// True once the API's whole answer has been taken.
    pub fn is_synced(&self) -> bool {
        self.shared.synced.load(Ordering::Acquire)
    }

    /// Pods that live, in no order.
    pub fn living(&self) -> Vec<Arc<Pod>> {
        let pods = self.shared.pods.read();
        let living = pods.values().filter(|entry| entry.gone.load(Ordering::Relaxed) == 0);
        living.map(|entry| Arc::clone(&entry.pod)).collect()
    }

    /// A pod that lives, by the uid in its log path.
    pub fn living_pod(&self, uid: &str) -> Option<Arc<Pod>> {
        let pods = self.shared.pods.read();
        let entry = pods.get(uid).filter(|entry| entry.gone.load(Ordering::Relaxed) == 0)?;
        Some(Arc::clone(&entry.pod))
    }

    /// Pods that are known, deleted ones that are still kept included.
    pub fn len(&self) -> usize {
        self.shared.pods.read().len()
    }

    /// True when none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A pod by the uid in its log path. `now` renews the time that a deleted one is kept.
    pub fn get(&self, uid: &str, now: Duration) -> Option<Arc<Pod>> {
        let pods = self.shared.pods.read();
        let entry = pods.get(uid)?;
        if entry.gone.load(Ordering::Relaxed) != 0 {
            entry.gone.store(now.as_nanos().max(1) as u64, Ordering::Relaxed);
        }
        Some(Arc::clone(&entry.pod))
    }
}

/// Identities from the watch; from the path where the watch does not know the pod in time.
#[derive(Debug)]
pub struct Reader {
    pods: Pods,
    paths: PathIdentity,
    longest_wait: Duration,
}

impl Reader {
    /// A reader that lets a log wait for its pod for `longest_wait`.
    pub fn new(pods: Pods, paths: PathIdentity, longest_wait: Duration) -> Self {
        Self { pods, paths, longest_wait }
    }

    /// The pod's container, if the pod is the one that the path names: a name may come again with another uid, and
    /// the uid alone decides.
    fn container<T>(&self, of: &ContainerRef, now: Duration, what: impl Fn(&Container) -> T) -> Option<T> {
        let pod = self.pods.get(&of.uid, now)?;
        let same = pod.namespace == of.namespace && pod.name == of.pod;
        let found = pod.containers.iter().find(|container| same && container.name == of.container);
        found.map(what)
    }
}

impl Identify for Reader {
    fn identify(&mut self, container: &ContainerRef, now: Duration) -> Identity {
        let known = self.container(container, now, |found| Arc::clone(&found.traits));
        let Some(traits) = known else {
            let since = *self.pods.shared.waiting.lock().entry(container.key()).or_insert(now);
            if now < since + self.longest_wait {
                self.pods.shared.missed.store(true, Ordering::Release);
                return Identity::Pending;
            }
            return self.paths.identify(container, now);
        };
        self.pods.shared.waiting.lock().remove(&container.key());
        Identity::Known(Arc::new(Workload {
            container: container.clone(),
            cluster: self.paths.cluster.clone(),
            node: self.paths.node.clone(),
            service_name: traits.service_name.clone(),
            service_name_guessed: false,
            service_version: traits.service_version.clone(),
            environment: self.paths.environment.clone().or_else(|| traits.environment.clone()),
            labels: traits.labels.clone(),
            attributes: traits.attributes.clone(),
            tenant: traits.tenant.clone(),
        }))
    }

    fn version(&self) -> u64 {
        self.pods.version()
    }

    fn handling(&mut self, container: &ContainerRef, now: Duration) -> Option<Arc<Handling>> {
        self.container(container, now, |found| Arc::clone(&found.handling))
    }

    fn exit(&mut self, container: &ContainerRef, now: Duration) -> Option<Exit> {
        let found = self.container(container, now, |found| {
            found
                .exits
                .iter()
                .find(|(restart, _)| *restart == container.restart)
                .map(|(_, exit)| exit.clone())
        });
        found.flatten()
    }

    fn knows_exits(&self) -> bool {
        true
    }

    fn forget(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.pods.shared.waiting.lock().retain(|key, _| is_there(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(uid: &str) -> ContainerRef {
        ContainerRef::from_path(&format!("shop_checkout-d994d45d6-5h9zr_{uid}"), "api", 0).expect("genuine")
    }

    fn pod(uid: &str, service: &str) -> Pod {
        let traits = Arc::new(Traits { service_name: service.into(), ..Traits::default() });
        Pod {
            uid: uid.into(),
            namespace: "shop".into(),
            name: "checkout-d994d45d6-5h9zr".into(),
            containers: vec![Container { name: "api".into(), traits, ..Container::default() }],
            ..Pod::default()
        }
    }

    fn reader(pods: Pods) -> Reader {
        let paths = PathIdentity { cluster: String::new(), node: "n".into(), environment: None };
        Reader::new(pods, paths, LONGEST_WAIT)
    }

    fn service(identity: Identity) -> Option<(String, bool)> {
        match identity {
            Identity::Known(workload) => Some((workload.service_name.clone(), workload.service_name_guessed)),
            Identity::Pending => None,
        }
    }

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_log_waits_ten_seconds_for_its_pod_and_then_goes_with_its_path() {
        let (mut writer, pods) = directory();
        let mut reader = reader(pods);
        let log = container("u1");
        assert_eq!(service(reader.identify(&log, secs(5))), None);
        assert_eq!(service(reader.identify(&log, secs(14))), None);
        assert_eq!(service(reader.identify(&log, secs(15))), Some(("checkout".into(), true)));
        writer.enter(pod("u1", "till"));
        assert_eq!(service(reader.identify(&log, secs(16))), Some(("till".into(), false)));
    }

    #[test]
    fn who_reads_anew_lets_no_log_wait_a_second_time() {
        let (_writer, pods) = directory();
        let mut first = reader(pods.clone());
        let (log, other) = (container("u1"), container("u2"));
        assert_eq!(service(first.identify(&log, secs(5))), None);
        assert_eq!(service(first.identify(&log, secs(15))), Some(("checkout".into(), true)));
        assert_eq!(service(first.identify(&other, secs(15))), None);
        let mut second = reader(pods);
        assert_eq!(service(second.identify(&log, secs(16))), Some(("checkout".into(), true)));
        assert_eq!(service(second.identify(&other, secs(24))), None);
        assert_eq!(service(second.identify(&other, secs(25))), Some(("checkout".into(), true)));
        second.forget(&|key| key == other.key());
        assert_eq!(service(second.identify(&log, secs(26))), None, "a log that was gone begins anew");
    }

    #[test]
    fn a_pod_of_the_same_name_with_another_uid_is_another_pod() {
        let (mut writer, pods) = directory();
        let mut reader = reader(pods);
        writer.enter(pod("u1", "till"));
        assert_eq!(service(reader.identify(&container("u2"), secs(1))), None);
        let moved = ContainerRef { namespace: "other".into(), ..container("u1") };
        assert_eq!(
            service(reader.identify(&moved, secs(1))),
            None,
            "a uid under another namespace is not believed"
        );
    }

    #[test]
    fn a_deleted_pod_is_known_until_ten_minutes_after_it_was_last_asked_for() {
        let (mut writer, pods) = directory();
        let mut reader = reader(pods.clone());
        writer.enter(pod("u1", "till"));
        writer.synced(|_| false, secs(100));
        assert!(pods.living().is_empty());
        assert_eq!(service(reader.identify(&container("u1"), secs(600))), Some(("till".into(), false)));
        writer.forget(secs(1199));
        assert_eq!(pods.len(), 1);
        writer.forget(secs(1200));
        assert_eq!(pods.len(), 0);
    }

    #[test]
    fn of_many_deleted_pods_the_last_ones_are_kept() {
        let (mut writer, pods) = directory();
        for n in 0..1000_u64 {
            writer.enter(pod(&n.to_string(), "till"));
            writer.delete(&n.to_string(), secs(n + 1));
        }
        writer.enter(pod("living", "till"));
        writer.forget(secs(1001));
        assert_eq!(pods.len(), 257);
        assert!(pods.get("999", secs(1001)).is_some() && pods.get("744", secs(1001)).is_some());
        assert!(pods.get("743", secs(1001)).is_none());
    }

    #[test]
    fn a_log_that_waits_is_seen_by_the_one_who_writes() {
        let (mut writer, pods) = directory();
        let mut reader = reader(pods);
        assert!(!writer.take_missed());
        reader.identify(&container("u1"), secs(1));
        assert!(writer.take_missed());
        assert!(!writer.take_missed(), "it is told once");
        writer.enter(pod("u1", "till"));
        reader.identify(&container("u1"), secs(2));
        assert!(!writer.take_missed(), "nobody waits any more");
    }

    #[test]
    fn only_news_raise_the_version() {
        let (mut writer, pods) = directory();
        assert!(writer.enter(pod("u1", "till")));
        let version = pods.version();
        assert!(!writer.enter(pod("u1", "till")));
        assert_eq!(pods.version(), version);
        assert!(writer.enter(pod("u1", "kasse")));
        assert_ne!(pods.version(), version);
    }
}
