//! Who wrote a log: the container instance behind a path, with what Kubernetes says of it.
//!
//! Labels attach here, once per container, never per line. `logs` asks through [`Identify`] and does not know
//! whether the answer came from the path alone or from the Kubernetes watch.

use std::sync::Arc;
use std::time::Duration;

/// Before the path of a log file, where a pod has its uid.
const FILE: &str = "file:";
/// The same for what a process wrote.
const PROCESS: &str = "process:";

/// What a log is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A container: the kubelet keeps its log.
    Container,
    /// A file that an application writes; its path.
    File(&'a str),
    /// A process whose output the agent itself has taken.
    Process,
}

/// A container instance as the log path names it.
///
/// The path is `<namespace>_<pod>_<uid>/<container>/<restart>.log`; Kubernetes names contain no underscore. For a log
/// that is no container's see [`ContainerRef::of_file`]
/// ([decision](https://github.com/nodewick/nodewick/blob/main/docs/design/0003-files.md)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The pod's uid (for static pods, the kubelet's hash).
    pub uid: String,
    /// Name of the container in the pod.
    pub container: String,
    /// Restart count of the container: the number in the file's name.
    pub restart: u32,
}

impl ContainerRef {
    /// Reads the two directory names of a pod log path. `None` when they are not of the kubelet's form.
    pub fn from_path(pod_dir: &str, container: &str, restart: u32) -> Option<Self> {
        let mut parts = pod_dir.split('_');
        let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none()
            && [namespace, pod, uid, container].iter().all(|part| !part.is_empty() && part.len() <= 253);
        whole.then(|| Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            container: container.to_owned(),
            restart,
        })
    }

    /// A log file of the source `source`. Namespace and pod are those that the agent itself runs in, if any. The path
    /// takes the uid's place: no pod's uid has a colon.
    pub fn of_file(path: &str, source: &str, namespace: &str, pod: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: format!("{FILE}{path}"),
            container: source.to_owned(),
            restart: 0,
        }
    }

    /// What a process wrote to its standard streams, as kept at `path`.
    pub fn of_process(path: &str, source: &str, namespace: &str, pod: &str) -> Self {
        Self { uid: format!("{PROCESS}{path}"), ..Self::of_file(path, source, namespace, pod) }
    }

    /// What the log is of.
    pub fn origin(&self) -> Origin<'_> {
        match (self.uid.strip_prefix(FILE), self.uid.starts_with(PROCESS)) {
            (Some(path), _) => Origin::File(path),
            (None, true) => Origin::Process,
            (None, false) => Origin::Container,
        }
    }

    /// True for a log that the kubelet keeps.
    pub fn is_container(&self) -> bool {
        self.origin() == Origin::Container
    }

    /// The path of the log file that [`key`](Self::key) stands for, when it is not a container's.
    pub fn path_of_key(key: &str) -> Option<&str> {
        key.strip_prefix(FILE).or_else(|| key.strip_prefix(PROCESS))
    }

    /// Reads the [`key`](Self::key) of a container's log. `None` when it is not of that form.
    pub fn from_key(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let (pod_dir, container, restart) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        if parts.next().is_some() {
            return None;
        }
        Self::from_path(pod_dir, container, restart)
    }

    /// The key of this log in state files. For a container the path below the log root, without the file's suffix; for
    /// any other log a word, a colon and the path.
    pub fn key(&self) -> String {
        if !self.is_container() {
            return self.uid.clone();
        }
        format!("{}_{}_{}/{}/{}", self.namespace, self.pod, self.uid, self.container, self.restart)
    }
}

/// A container instance with everything that its records inherit. Frozen while the instance lives, since a
/// stream's labels must not change under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Which container instance.
    pub container: ContainerRef,
    /// The cluster, from config.
    pub cluster: String,
    /// The node, from config or the downward API.
    pub node: String,
    /// OpenTelemetry `service.name`.
    pub service_name: String,
    /// True when `service_name` was guessed from the pod's name, as nothing better was known.
    pub service_name_guessed: bool,
    /// OpenTelemetry `service.version`, if known.
    pub service_version: Option<String>,
    /// OpenTelemetry `deployment.environment.name`, if known.
    pub environment: Option<String>,
    /// Pod labels that the operator allows out, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Further OpenTelemetry resource attributes (`k8s.deployment.name` and its like), sorted by name.
    pub attributes: Vec<(String, String)>,
    /// Loki tenant, from the allow-list; `None` means the sink's own.
    pub tenant: Option<String>,
}

/// True for a tenant that Loki accepts. Source: dskit `tenant.ValidTenantID`.
pub fn is_tenant(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
    (1..=150).contains(&text.len()) && text != "." && text != ".." && text.bytes().all(allowed)
}

/// What is known of a container.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Everything that will be known.
    Known(Arc<Workload>),
    /// Its pod has not been seen yet: ask again, and hold the log's lines back meanwhile.
    Pending,
}

/// How an instance of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// The kubelet's word for it: `Error`, `OOMKilled`, `Completed`.
    pub reason: String,
}

impl Exit {
    /// It ended as it should.
    pub fn is_good(&self) -> bool {
        self.code == 0
    }
}

/// Format of a container's lines, where its annotation names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineFormat {
    /// As each line looks.
    #[default]
    Auto,
    /// JSON only.
    Json,
    /// logfmt only.
    Logfmt,
    /// klog only.
    Klog,
    /// nginx access and error lines only.
    Nginx,
    /// Plain text: nothing is looked for.
    Text,
}

/// How a container's logs are treated by the word of its pod's or namespace's annotations. May change while the
/// container lives; what its records carry as labels never does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Handling {
    /// Its logs are not shipped.
    pub off: bool,
    /// How its lines are parsed.
    pub format: LineFormat,
    /// Key in JSON and logfmt lines that has the level, before all usual ones.
    pub level_field: Option<String>,
    /// Key that has the trace id, before all usual ones.
    pub trace_field: Option<String>,
    /// Share of the lines that is kept, more than 0 and less than 1; lines of one trace are kept or dropped together.
    pub sample: Option<f64>,
    /// Name of a multiline mode: `off`, `auto`, or a language.
    pub multiline: Option<String>,
    /// Whether the flight recorder holds its debug lines back; `None`: as configured.
    pub recorder: Option<bool>,
}

/// Answers who wrote a log. Implemented by the path-only directory here and by the Kubernetes watch.
///
/// `now` is the time of the one who asks, on a clock that never goes back.
pub trait Identify: Send {
    /// Identity of a container instance.
    fn identify(&mut self, container: &ContainerRef, now: Duration) -> Identity;

    /// A number that is another one after every change of what is known.
    fn version(&self) -> u64 {
        0
    }

    /// How the container's logs are treated now; `None` when nothing is known of it.
    fn handling(&mut self, _container: &ContainerRef, _now: Duration) -> Option<Arc<Handling>> {
        None
    }

    /// How the container instance ended, if that is known.
    fn exit(&mut self, _container: &ContainerRef, _now: Duration) -> Option<Exit> {
        None
    }

    /// True when [`exit`](Self::exit) will say sooner or later how an instance of a living pod ended.
    fn knows_exits(&self) -> bool {
        false
    }

    /// Logs of which `is_there` says no are gone: nobody will ask for them again.
    fn forget(&mut self, _is_there: &dyn Fn(&str) -> bool) {}
}

/// Identity from the path and the agent's own settings alone: no API needed.
#[derive(Debug, Clone)]
pub struct PathIdentity {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// `deployment.environment.name` of every workload, if set.
    pub environment: Option<String>,
}

impl Identify for PathIdentity {
    fn identify(&mut self, container: &ContainerRef, _now: Duration) -> Identity {
        Identity::Known(Arc::new(Workload {
            container: container.clone(),
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            service_name: guess_service(&container.pod).to_owned(),
            service_name_guessed: true,
            service_version: None,
            environment: self.environment.clone(),
            labels: Vec::new(),
            attributes: Vec::new(),
            tenant: None,
        }))
    }
}

/// The alphabet of Kubernetes' generated name suffixes: no vowels, no 0, 1 or 3.
/// Source: `k8s.io/apimachinery/pkg/util/rand`.
fn is_generated(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
}

/// The pod's name less what its controller appended: `-<template hash>-<5>` of a ReplicaSet, `-<5>` of a
/// DaemonSet or Job, `-<minutes>-<5>` of a CronJob, `-<ordinal>` of a StatefulSet.
pub fn guess_service(pod: &str) -> &str {
    let Some((head, tail)) = pod.rsplit_once('-') else {
        return pod;
    };
    if head.is_empty() {
        return pod;
    }
    if tail.len() == 5
        && tail.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && let Some((owner, hash)) = head.rsplit_once('-')
        && !owner.is_empty()
        && ((6..=10).contains(&hash.len()) && is_generated(hash)
            || hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_digit()))
    {
        return owner;
    }
    if tail.len() == 5 && is_generated(tail) {
        return head;
    }
    if tail.len() <= 4 && tail.bytes().all(|b| b.is_ascii_digit()) {
        return head;
    }
    pod
}

/// The workload that a pod belongs to, as a person would name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner<'a> {
    /// Its kind as Kubernetes spells it: `Deployment`. Empty where none is known.
    pub kind: &'static str,
    /// Its name. The same one from release to release.
    pub name: &'a str,
}

/// The workload of a pod by its resource attributes (see [`crate::data::pods::Traits::attributes`]), the ancestor before
/// the descendant; without one the pod's name less its suffix, and no kind.
///
/// A ReplicaSet that no Deployment owns is named as its pod says: that of an Argo Rollout has another name with each release.
pub fn owner_of<'a>(attributes: &'a [(String, String)], pod: &'a str) -> Owner<'a> {
    const KINDS: [(&str, &str); 6] = [
        ("k8s.deployment.name", "Deployment"),
        ("k8s.statefulset.name", "StatefulSet"),
        ("k8s.daemonset.name", "DaemonSet"),
        ("k8s.cronjob.name", "CronJob"),
        ("k8s.job.name", "Job"),
        ("k8s.replicaset.name", "ReplicaSet"),
    ];
    let named = |key: &str| attributes.iter().find(|(name, value)| name == key && !value.is_empty());
    for (key, kind) in KINDS {
        if let Some((_, name)) = named(key) {
            let name = if kind == "ReplicaSet" { guess_service(pod) } else { name.as_str() };
            return Owner { kind, name };
        }
    }
    Owner { kind: "", name: guess_service(pod) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_container() {
        let found = ContainerRef::from_path(
            "shop_checkout-d994d45d6-5h9zr_d11c6e6d-84fc-49ec-95a1-4ee5155f656a",
            "api",
            3,
        )
        .expect("genuine path");
        assert_eq!(found.namespace, "shop");
        assert_eq!(found.pod, "checkout-d994d45d6-5h9zr");
        assert_eq!(found.restart, 3);
        assert_eq!(ContainerRef::from_key(&found.key()), Some(found));
        for other in ["a_b_c/d", "a_b_c/d/x", "a_b_c/d/-1", "a_b/d/0", "a_b_c/d/0/e", ""] {
            assert_eq!(ContainerRef::from_key(other), None, "{other}");
        }
        assert!(ContainerRef::from_path("lost+found", "api", 0).is_none());
        assert!(ContainerRef::from_path("a_b_c_d", "api", 0).is_none());
    }

    #[test]
    fn the_service_is_the_pod_without_its_controllers_suffix() {
        for (pod, service) in [
            ("checkout-d994d45d6-5h9zr", "checkout"),
            ("orders-7d9f8b6c5-p2x4k", "orders"),
            ("my-api-gateway-5c9d8b7f4d-zxcvb", "my-api-gateway"),
            ("node-exporter-x7k2p", "node-exporter"),
            ("postgres-0", "postgres"),
            ("backup-29384756-4vkqz", "backup"),
            ("standalone", "standalone"),
            ("etcd-control-plane", "etcd-control-plane"),
        ] {
            assert_eq!(guess_service(pod), service, "{pod}");
        }
    }

    #[test]
    fn a_pods_workload_is_its_ancestor_before_its_parent() {
        let of = |attributes: &[(&str, &str)], pod: &str| {
            let attributes: Vec<(String, String)> =
                attributes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let owner = owner_of(&attributes, pod);
            format!("{}/{}", owner.kind, owner.name)
        };
        let pod = "checkout-d994d45d6-5h9zr";
        let replica_set = ("k8s.replicaset.name", "checkout-d994d45d6");
        assert_eq!(of(&[("k8s.deployment.name", "till"), replica_set], pod), "Deployment/till");
        assert_eq!(of(&[replica_set], pod), "ReplicaSet/checkout");
        assert_eq!(
            of(&[("k8s.cronjob.name", "nightly"), ("k8s.job.name", "nightly-29384756")], pod),
            "CronJob/nightly"
        );
        assert_eq!(of(&[("k8s.statefulset.name", "db")], "db-0"), "StatefulSet/db");
        assert_eq!(of(&[("k8s.daemonset.name", "")], "exporter-x7k2p"), "/exporter");
        assert_eq!(of(&[], "standalone"), "/standalone");
    }
}
