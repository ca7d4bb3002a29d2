//! From objects to the shared directory of pods: strips, resolves, enters, and resolves anew when a namespace changes.
//!
//! In: pods and namespaces as JSON, deletions, the end of a list. Out: calls of the one [`Writer`]. Invariants: of each
//! living pod at most its stripped form is kept, and only where namespaces count; a pod whose namespace is not known yet
//! is entered [`NAMESPACES_WITHIN`] later at the latest; a bad annotation never keeps a pod out.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tracing::{debug, warn};

use super::object::{Namespace, Slim};
use super::resolve::{NamespaceMeta, Place, Resolver};
use crate::data::pods::Writer;
use crate::metrics;

/// How long a pod waits for its namespace's annotations: while namespaces are being listed for the first time, and
/// afterwards, when a new namespace and its first pod come by two watches.
const NAMESPACES_WITHIN: Duration = Duration::from_secs(5);
const NAMESPACE_WITHIN: Duration = Duration::from_secs(1);

/// Complaints about annotations that are remembered, so that each is told once.
const TOLD: usize = 512;

/// What is kept of a living pod beside what is in the shared directory.
#[derive(Debug)]
struct Known {
    /// The uid of its log path.
    log_uid: String,
    namespace: String,
    /// Its stripped form, where namespaces count.
    slim: Option<Slim>,
}

/// Namespaces that are known, as far as they count.
#[derive(Debug)]
struct Namespaces {
    all: HashMap<String, NamespaceMeta>,
    /// The service account may not see them: nobody waits for them.
    denied: bool,
    /// They were listed.
    synced: bool,
}

/// See the module's header.
pub(super) struct Directory {
    writer: Writer,
    resolver: Resolver,
    /// By `metadata.uid`.
    known: HashMap<String, Known>,
    namespaces: Option<Namespaces>,
    /// Pods whose namespace is not known yet, since when.
    held: HashMap<String, (Duration, Slim)>,
    /// Uids of the list being taken: `metadata.uid`, and those of log paths.
    listing: Option<(HashSet<String>, HashSet<String>)>,
    listing_namespaces: Option<HashSet<String>>,
    told: HashSet<(String, String)>,
    synced: bool,
}

impl Directory {
    /// An empty directory. With `namespaces`, pods wait for their namespace's annotations.
    pub(super) fn new(writer: Writer, resolver: Resolver, namespaces: bool) -> Self {
        let namespaces = namespaces.then(|| Namespaces { all: HashMap::new(), denied: false, synced: false });
        Self {
            writer,
            resolver,
            known: HashMap::new(),
            namespaces,
            held: HashMap::new(),
            listing: None,
            listing_namespaces: None,
            told: HashSet::new(),
            synced: false,
        }
    }

    /// A log waits for a pod that is not known.
    pub(super) fn take_missed(&self) -> bool {
        self.writer.take_missed()
    }

    /// Number of living pods.
    pub(super) fn living(&self) -> usize {
        self.known.len() + self.held.len()
    }

    /// True once a whole list has been taken.
    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// A list begins: what it does not name is gone.
    pub(super) fn begin_list(&mut self) {
        self.listing = Some(Default::default());
    }

    /// A pod as it is now; its version.
    pub(super) fn pod(&mut self, json: &[u8], now: Duration) -> serde_json::Result<String> {
        let slim = Slim::of(json)?;
        let version = slim.version.clone();
        if let Some((uids, _)) = &mut self.listing {
            uids.insert(slim.uid.clone());
        }
        let waits = self
            .namespaces
            .as_ref()
            .is_some_and(|namespaces| !namespaces.denied && !namespaces.all.contains_key(&slim.namespace));
        if waits && !self.known.contains_key(&slim.uid) {
            let since = self.held.get(&slim.uid).map_or(now, |(since, _)| *since);
            self.held.insert(slim.uid.clone(), (since, slim));
            return Ok(version);
        }
        self.held.remove(&slim.uid);
        self.enter(slim)?;
        Ok(version)
    }

    /// A pod was deleted; `json` is its last state. Its version.
    pub(super) fn pod_deleted(&mut self, json: &[u8], now: Duration) -> serde_json::Result<String> {
        let slim = Slim::of(json)?;
        let version = slim.version.clone();
        self.held.remove(&slim.uid);
        let uid = slim.uid.clone();
        // How its containers ended is in the last state only.
        self.enter(slim)?;
        if let Some(known) = self.known.remove(&uid) {
            self.writer.delete(&known.log_uid, now);
        }
        self.count();
        Ok(version)
    }

    /// The list is whole.
    pub(super) fn end_list(&mut self, now: Duration) {
        let Some((uids, _)) = self.listing.take() else { return };
        self.known.retain(|uid, _| uids.contains(uid));
        self.held.retain(|uid, _| uids.contains(uid));
        let listed: HashSet<&str> = self.known.values().map(|known| known.log_uid.as_str()).collect();
        self.writer.synced(|uid| listed.contains(uid), now);
        self.synced = true;
        metrics::KUBE_SYNCED.with_label_values(&["pods"]).set(1);
        self.count();
    }

    /// A list of namespaces begins.
    pub(super) fn begin_namespaces(&mut self) {
        self.listing_namespaces = Some(HashSet::new());
    }

    /// A namespace as it is now; its version.
    pub(super) fn namespace(&mut self, json: &[u8]) -> serde_json::Result<String> {
        let namespace = Namespace::of(json)?;
        if let Some(listed) = &mut self.listing_namespaces {
            listed.insert(namespace.name.clone());
        }
        let Some(namespaces) = &mut self.namespaces else { return Ok(namespace.version) };
        namespaces.denied = false;
        let before = namespaces.all.insert(namespace.name.clone(), namespace.meta);
        let changed = before.as_ref() != namespaces.all.get(&namespace.name);
        if changed {
            self.resolve_namespace(&namespace.name);
        }
        Ok(namespace.version)
    }

    /// A namespace was deleted; its version.
    pub(super) fn namespace_deleted(&mut self, json: &[u8]) -> serde_json::Result<String> {
        let namespace = Namespace::of(json)?;
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.all.remove(&namespace.name);
        }
        Ok(namespace.version)
    }

    /// The list of namespaces is whole.
    pub(super) fn end_namespaces(&mut self) {
        if let (Some(listed), Some(namespaces)) = (self.listing_namespaces.take(), &mut self.namespaces) {
            namespaces.all.retain(|name, _| listed.contains(name));
            namespaces.synced = true;
        }
        metrics::KUBE_SYNCED.with_label_values(&["namespaces"]).set(1);
    }

    /// The service account may not see namespaces: pods go without their annotations.
    pub(super) fn namespaces_denied(&mut self) {
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.denied = namespaces.all.is_empty();
        }
    }

    /// Enters pods that have waited long enough for their namespace, and forgets what nobody asks for.
    pub(super) fn tick(&mut self, now: Duration) {
        let within = match &self.namespaces {
            Some(namespaces) if namespaces.denied => Duration::ZERO,
            Some(namespaces) if namespaces.synced => NAMESPACE_WITHIN,
            _ => NAMESPACES_WITHIN,
        };
        let due: Vec<String> = self
            .held
            .iter()
            .filter(|(_, (since, _))| now >= *since + within)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            if let Some((_, slim)) = self.held.remove(&uid) {
                self.enter_again(slim);
            }
        }
        self.writer.forget(now);
        metrics::KUBE_PODS.with_label_values(&["kept"]).set(self.writer.pods().len() as i64);
    }

    /// Everything of a namespace whose annotations are others now.
    fn resolve_namespace(&mut self, name: &str) {
        let held: Vec<String> = self
            .held
            .iter()
            .filter(|(_, (_, slim))| slim.namespace == name)
            .map(|(uid, _)| uid.clone())
            .collect();
        let mut again: Vec<Slim> =
            held.iter().filter_map(|uid| self.held.remove(uid)).map(|(_, slim)| slim).collect();
        let known = self.known.values().filter(|known| known.namespace == name);
        again.extend(known.filter_map(|known| known.slim.clone()));
        for slim in again {
            self.enter_again(slim);
        }
    }

    /// Enters what has been read before.
    fn enter_again(&mut self, slim: Slim) {
        let uid = slim.uid.clone();
        if let Err(error) = self.enter(slim) {
            warn!(uid, %error, "a pod cannot be read; its logs go with what their path says");
        }
    }

    fn enter(&mut self, slim: Slim) -> serde_json::Result<()> {
        let pod = slim.pod()?;
        let namespace = self.namespaces.as_ref().and_then(|namespaces| namespaces.all.get(&slim.namespace));
        let resolved = self.resolver.pod(&pod, namespace);
        for problem in &resolved.problems {
            // A namespace's finding comes with each of its pods.
            let who = if problem.place == Place::Pod { problem.pod.as_str() } else { "" };
            let key = (format!("{}/{who}/{}", problem.namespace, problem.annotation), problem.value.clone());
            if self.told.len() >= TOLD {
                self.told.clear();
            }
            if self.told.insert(key) {
                metrics::KUBE_ANNOTATION_PROBLEMS.inc();
                warn!(%problem, "an annotation is not understood; its default applies");
            }
        }
        if resolved.pod.uid.is_empty() {
            debug!(uid = %slim.uid, "no log can belong to this pod");
            return Ok(());
        }
        let keeps = self.namespaces.is_some();
        let known = Known {
            log_uid: resolved.pod.uid.clone(),
            namespace: slim.namespace.clone(),
            slim: keeps.then(|| slim.clone()),
        };
        self.writer.enter(resolved.pod);
        self.known.insert(slim.uid, known);
        self.count();
        Ok(())
    }

    fn count(&self) {
        metrics::KUBE_PODS.with_label_values(&["living"]).set(self.living() as i64);
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
