//! The pods of this node, as the Kubernetes API or the node's kubelet tells of them.
//!
//! In: pod objects from a watch or a poll. Out: what logs, scraping and SLOs need of them, in
//! [`data::pods`](crate::data::pods). Invariants: only this node's pods are asked for; an object is stripped on receipt;
//! no log waits for the API longer than it may, and none is lost because the API is away.
//!
//! [`watch`] follows a resource of the API server, [`kubelet`] polls the node's own; both tell a [`Directory`], which
//! asks the [`resolve`]r what an object means and enters it.

pub mod annotations;
mod client;
mod config;
mod directory;
mod exits;
mod image;
mod kubelet;
mod object;
mod owners;
mod pace;
mod problem;
pub mod reference;
pub mod resolve;
mod split;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::data::clock;
use crate::data::pods::Writer;
use crate::data::workload::ContainerRef;
use crate::health::Health;
use crate::metrics;

pub use client::{Failure, Reason};
pub use config::{Config, Kubelet, Mode, Problem};
pub use watch::Patience;

use client::Api;
use directory::Directory;
use pace::Pace;
use watch::{Follower, Watch};

/// Name of the note on the health page.
pub const NOTE: &str = "kube";

/// How often the directory is kept in order.
const TICK: Duration = Duration::from_millis(500);

/// How long pod directories without any pod of this node are believed to be just behind.
const WRONG_NODE_AFTER: Duration = Duration::from_secs(5);

/// Everything that following the node's pods needs.
pub struct Following {
    /// `[kube]`.
    pub config: Config,
    /// Name of this node in Kubernetes.
    pub node: String,
    /// Directory of the kubelet's pod logs, to tell a wrong node name by.
    pub log_root: PathBuf,
    /// How long silences are borne.
    pub patience: Patience,
}

/// What the followers share.
struct Shared {
    directory: Mutex<Directory>,
    health: Health,
    /// Words about what is wrong, by resource.
    notes: Mutex<Notes>,
    mode: Mode,
}

#[derive(Default)]
struct Notes {
    pods: Option<String>,
    namespaces: Option<String>,
    node: Option<String>,
}

impl Following {
    /// Follows this node's pods for ever, or not at all where nobody is to be asked.
    pub async fn run(self, writer: Writer, health: Health) {
        let mode = self.config.effective_mode();
        if mode == Mode::Path {
            return std::future::pending().await;
        }
        let namespaces = self.config.namespace_annotations && mode == Mode::Api;
        // 0 until all is listed: one that is never reached must not look like one that nobody asks.
        metrics::KUBE_SYNCED.with_label_values(&["pods"]);
        if namespaces {
            metrics::KUBE_SYNCED.with_label_values(&["namespaces"]);
        }
        let settings = resolve::Settings {
            labels: self.config.pod_labels.clone(),
            tenants: self.config.tenants.clone(),
        };
        let resolver = resolve::Resolver::new(settings);
        let shared = Arc::new(Shared {
            directory: Mutex::new(Directory::new(writer, resolver, namespaces)),
            health,
            notes: Mutex::default(),
            mode,
        });
        let pods = Pods { shared: Arc::clone(&shared), told: None };
        let tidying = self.tidy(&shared);
        if mode == Mode::Kubelet {
            let kubelet = &self.config.kubelet;
            let connect = || async move {
                let unset = |text| Failure::new(Reason::Unconfigured, text);
                let address = kubelet.address().map_err(unset)?;
                Api::kubelet(address, &kubelet.ca_file(), &kubelet.token())
            };
            let polling = kubelet::run(pods, Pace::new(pace::random()), kubelet.poll.0, connect);
            tokio::join!(polling, tidying);
            return;
        }
        let connect = || Api::cluster(&self.config.kubeconfig);
        let selector = watch::encoded(&format!("spec.nodeName={}", self.node));
        let watching = Watch::new(pods, Pace::new(pace::random()), self.patience, &selector).run(connect);
        if namespaces {
            let follower = Namespaces { shared: Arc::clone(&shared), told: None };
            let others = Watch::new(follower, Pace::new(pace::random()), self.patience, "").run(connect);
            tokio::join!(watching, others, tidying);
        } else {
            tokio::join!(watching, tidying);
        }
    }

    /// Keeps the directory in order, and looks whether the node's name can be right.
    async fn tidy(&self, shared: &Shared) {
        let mut suspicious: Option<Instant> = None;
        loop {
            tokio::time::sleep(TICK).await;
            let (synced, living) = {
                let mut directory = shared.directory.lock();
                directory.tick(clock::now());
                (directory.is_synced(), directory.living())
            };
            if !synced || living > 0 || shared.mode == Mode::Kubelet {
                suspicious = None;
                if shared.notes.lock().node.is_some() {
                    shared.note(|notes| notes.node = None);
                }
                continue;
            }
            // Whoever has no answer knows nothing of new pods.
            if shared.notes.lock().pods.is_some() {
                suspicious = None;
                continue;
            }
            let since = *suspicious.get_or_insert_with(Instant::now);
            if since.elapsed() < WRONG_NODE_AFTER || shared.notes.lock().node.is_some() {
                continue;
            }
            let pods = pod_directories(&self.log_root);
            if pods > 0 {
                let node = &self.node;
                metrics::KUBE_ERRORS.with_label_values(&["pods", "wrong_node"]).inc();
                warn!(%node, pod_directories = pods,
                    "the API knows no pod of this node, and yet there are logs; set NODE_NAME from spec.nodeName (downward API) or [agent] node to the node's name in Kubernetes");
                let text = format!(
                    "the API knows no pod of node {node:?}, and yet there are logs of {pods}; set NODE_NAME from spec.nodeName or [agent] node"
                );
                shared.note(|notes| notes.node = Some(text));
            } else {
                suspicious = None;
            }
        }
    }
}

/// Directories of pods below the log root.
fn pod_directories(root: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(root) else { return 0 };
    let names = entries.flatten().take(10_000).filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| ContainerRef::from_path(name, "any", 0).is_some()).count()
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock();
        change(&mut notes);
        let all = [&notes.pods, &notes.namespaces, &notes.node];
        let text = all.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ");
        self.health.note(NOTE, Some(text).filter(|text| !text.is_empty()));
    }

    /// Tells a change of fortune once; the words for the health page.
    fn tell(&self, resource: &str, failure: Option<&Failure>, told: &mut Option<Reason>) -> Option<String> {
        let Some(failure) = failure else {
            if told.take().is_some() {
                info!(resource, "Kubernetes answers again");
            }
            return None;
        };
        let help = self.help(resource, failure.reason);
        if told.replace(failure.reason) != Some(failure.reason) {
            warn!(resource, reason = failure.reason.name(), error = %failure, help,
                "Kubernetes does not tell what is on this node; logs flow, new ones carry what their path says");
        }
        Some(format!("{resource}: {failure}; {help}"))
    }

    /// What a person can do.
    fn help(&self, resource: &str, reason: Reason) -> &'static str {
        match (reason, self.mode, resource) {
            (Reason::Forbidden, Mode::Kubelet, _) => {
                "add to the agent's ClusterRole: apiGroups [\"\"], resources [\"nodes/pods\"], verbs [\"get\"] (Kubernetes 1.33 and newer; never nodes/proxy), or set [kube] mode = \"path\""
            }
            (Reason::Forbidden, _, "namespaces") => {
                "add to the agent's ClusterRole: apiGroups [\"\"], resources [\"namespaces\"], verbs [\"list\", \"watch\"], or set [kube] namespace_annotations = false"
            }
            (Reason::Forbidden, ..) => {
                "add to the agent's ClusterRole: apiGroups [\"\"], resources [\"pods\"], verbs [\"list\", \"watch\"], and bind it to the agent's service account, or set [kube] mode = \"path\""
            }
            (Reason::Unauthorized, Mode::Kubelet, _) => {
                "the kubelet does not take the token; run it with --authentication-token-webhook, and give the agent a service account token"
            }
            (Reason::Unauthorized, ..) => {
                "the token is not taken; see that the service account exists and its token is mounted"
            }
            (Reason::Unreachable | Reason::Silent, Mode::Kubelet, _) => {
                "see [kube.kubelet] url (NODE_IP) and ca: the kubelet's certificate must be signed by it"
            }
            (Reason::Unreachable | Reason::Silent, ..) => {
                "it is tried again; see that the network policy lets the agent reach the API server"
            }
            (Reason::Unconfigured, ..) => {
                "nothing is asked until that is mended; a token file holds the token alone, without a newline"
            }
            _ => "it is tried again",
        }
    }
}

/// Who is told of pods.
struct Pods {
    shared: Arc<Shared>,
    told: Option<Reason>,
}

impl Follower for Pods {
    const RESOURCE: &'static str = "pods";

    fn begin(&mut self) {
        self.shared.directory.lock().begin_list();
    }

    fn set(&mut self, json: &[u8]) -> serde_json::Result<String> {
        self.shared.directory.lock().pod(json, clock::now())
    }

    fn delete(&mut self, json: &[u8]) -> serde_json::Result<String> {
        self.shared.directory.lock().pod_deleted(json, clock::now())
    }

    fn whole(&mut self) {
        self.shared.directory.lock().end_list(clock::now());
    }

    fn wanted(&mut self) -> bool {
        self.shared.directory.lock().take_missed()
    }

    fn fare(&mut self, failure: Option<&Failure>) {
        let text = self.shared.tell(Self::RESOURCE, failure, &mut self.told);
        self.shared.note(|notes| notes.pods = text);
    }
}

/// Who is told of namespaces.
struct Namespaces {
    shared: Arc<Shared>,
    told: Option<Reason>,
}

impl Follower for Namespaces {
    const RESOURCE: &'static str = "namespaces";

    fn begin(&mut self) {
        self.shared.directory.lock().begin_namespaces();
    }

    fn set(&mut self, json: &[u8]) -> serde_json::Result<String> {
        self.shared.directory.lock().namespace(json)
    }

    fn delete(&mut self, json: &[u8]) -> serde_json::Result<String> {
        self.shared.directory.lock().namespace_deleted(json)
    }

    fn whole(&mut self) {
        self.shared.directory.lock().end_namespaces();
    }

    fn wanted(&mut self) -> bool {
        false
    }

    fn fare(&mut self, failure: Option<&Failure>) {
        if failure.is_some_and(Failure::is_denial) {
            self.shared.directory.lock().namespaces_denied();
        }
        let text = self.shared.tell(Self::RESOURCE, failure, &mut self.told);
        self.shared.note(|notes| notes.namespaces = text);
    }
}
