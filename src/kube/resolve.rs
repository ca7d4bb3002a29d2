//! From a pod object to what the agent keeps of it: identity, treatment, ports, exits.
//!
//! In: pods and namespaces as the Kubernetes API tells of them. Out: [`pods::Pod`] and the [`Problem`]s of its
//! annotations. Invariants: pure, so the same objects always give the same answer; nothing that changes while a
//! container runs is among its [`Traits`], except what an operator changes by hand, and that is frozen with the first
//! line; everything kept is bounded and of a form that Loki and OTLP take, whatever comes in.
//!
//! Of a pod these parts are read, all others may be stripped on receipt: of `metadata` name, namespace, uid, labels,
//! annotations, ownerReferences, creationTimestamp, deletionTimestamp; of `spec` hostNetwork and each container's name,
//! image and ports (init and ephemeral ones too); of `status` phase, podIP and each container's name, containerID,
//! restartCount, state and lastState. Of a namespace: what [`NamespaceMeta::new`] takes.
//!
//! Sources: OpenTelemetry semantic conventions, "Populating resources attributes in Kubernetes" (the order for each
//! `service.*` attribute), "Kubernetes" and "Container" resources (names of attributes).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::annotations::{self, Annotations, MAX_KEPT_VALUE, MAX_VALUE};
use super::exits;
use super::image::Image;
use super::owners::{self, Owners};
pub use super::problem::{MAX_PROBLEMS, Place, Problem};
use super::problem::{Problems, shown};
use crate::data::pods::{self, Container, Traits};

/// Labels that name a pod's or a namespace's environment, the first one first.
pub const ENVIRONMENT_LABELS: [&str; 3] = ["environment", "env", "app.kubernetes.io/environment"];

/// The resource attribute of the environment.
const ENVIRONMENT: &str = "deployment.environment.name";
/// Hex digits of that hash (MD5).
const HASH: usize = 32;

/// Containers of a pod that are kept.
const MAX_CONTAINERS: usize = 128;
/// Ports of a container that are kept.
const MAX_PORTS: usize = 64;
/// Bytes of a label's name: a DNS subdomain, a slash, 63 characters.
const MAX_LABEL_NAME: usize = 317;
/// Bytes of a label's value. Source: Kubernetes, "Labels and selectors".
const MAX_LABEL_VALUE: usize = 63;
/// Labels of a pod that are kept. Loki takes 128 pairs with an entry, ten of the agent's own among them.
const MAX_LABELS: usize = 96;

/// Bytes of the labels that go out; each of the pod's containers has a copy.
const MAX_LABELS_OUT: usize = 4096;

/// What the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Pod labels that go out with each line: a name, or what it begins with and `*`.
    pub labels: Vec<String>,
    /// Loki tenants that an annotation may choose.
    pub tenants: Vec<String>,
}

/// What is kept of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceMeta {
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl NamespaceMeta {
    /// Keeps of a namespace's metadata what pods inherit, within [`annotations::MAX_KEPT`] bytes each. Two that are
    /// equal give the same pods: nothing need be resolved anew.
    pub fn new(
        annotations: Option<&BTreeMap<String, String>>,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Self {
        let understood =
            annotations.into_iter().flatten().filter(|(name, _)| annotations::is_understood(name));
        // Longer than allowed stays longer than allowed, so that it is told.
        let cut = |value: &str| value[..value.floor_char_boundary(MAX_KEPT_VALUE + 8)].to_owned();
        let environment = labels.into_iter().flatten().filter(|(name, value)| {
            ENVIRONMENT_LABELS.contains(&name.as_str()) && value.len() <= MAX_LABEL_VALUE
        });
        let mut bytes = 0;
        let within = |(name, value): &(&String, &String)| {
            bytes += name.len() + value.len().min(MAX_KEPT_VALUE);
            bytes <= annotations::MAX_KEPT
        };
        Self {
            annotations: understood
                .take_while(within)
                .map(|(name, value)| (name.clone(), cut(value)))
                .collect(),
            labels: environment.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }
}

/// A pod as the agent keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// For [`pods::Writer::enter`]. Its uid is empty when no log can belong to it: a name or uid is missing or not of
    /// Kubernetes' form.
    pub pod: pods::Pod,
    /// Annotations that could not be used, [`MAX_PROBLEMS`] at most. Those of [`Place::Namespace`] come with each pod of
    /// the namespace.
    pub problems: Vec<Problem>,
}

/// Makes [`pods::Pod`]s.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    settings: Settings,
}

impl Resolver {
    /// A resolver by the operator's settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Everything that is kept of a pod. `namespace` is its namespace, where namespaces are watched.
    pub fn pod(&self, pod: &Pod, namespace: Option<&NamespaceMeta>) -> Resolved {
        let meta = &pod.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace_name = meta.namespace.as_deref().unwrap_or_default();
        let declared = pod.spec.as_ref().map(declared).unwrap_or_default();
        let names: Vec<&str> = declared.iter().map(|container| container.name).collect();
        let mut problems = Problems::of(namespace_name, name);
        let said = annotations::read(
            meta.annotations.as_ref(),
            namespace.map(|namespace| &namespace.annotations),
            &names,
            &self.settings.tenants,
            &mut problems,
        );
        let status = pod.status.as_ref();
        let shared = Shared {
            name,
            labels: meta.labels.as_ref(),
            owners: Owners::of(meta),
            environment: environment(&said, meta, namespace),
            labels_out: self.labels_out(meta),
            said: &said,
        };
        let deleted = meta.deletion_timestamp.is_some();
        let mut containers: Vec<Container> = Vec::with_capacity(declared.len());
        for container in &declared {
            let (traits, handling) = (shared.traits(container), said.handling(container.name));
            let like = containers.iter().find(|known| *known.traits == traits);
            let traits = like.map_or_else(|| Arc::new(traits), |known| Arc::clone(&known.traits));
            let like = containers.iter().find(|known| *known.handling == handling);
            let handling = like.map_or_else(|| Arc::new(handling), |known| Arc::clone(&known.handling));
            let status = status.and_then(|status| status_of(status, container.name));
            containers.push(Container {
                name: container.name.to_owned(),
                traits,
                handling,
                ports: ports(container.ports),
                id: status.and_then(id_of),
                exits: status.map(|status| exits::of(status, deleted)).unwrap_or_default(),
            });
        }
        let pod = pods::Pod {
            uid: uid(meta),
            namespace: bounded_name(namespace_name),
            name: bounded_name(name),
            ip: status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
            host_network: pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)),
            running: status.is_some_and(|status| status.phase.as_deref() == Some("Running")),
            containers,
            annotations: said.kept.into_iter().collect(),
            labels: labels(meta).collect(),
            created_unix: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        };
        Resolved { pod, problems: problems.into_vec() }
    }

    /// The labels that the operator allows out.
    fn labels_out(&self, meta: &ObjectMeta) -> Vec<(String, String)> {
        let allowed = |name: &str| {
            self.settings.labels.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
        };
        let mut bytes = 0;
        let within = |(name, value): &(String, String)| {
            bytes += name.len() + value.len();
            bytes <= MAX_LABELS_OUT
        };
        labels(meta).filter(|(name, _)| allowed(name)).take_while(within).collect()
    }
}

/// A container as its pod's spec has it.
#[derive(Debug)]
struct Declared<'a> {
    name: &'a str,
    image: Option<&'a str>,
    ports: Option<&'a [ContainerPort]>,
}

/// The containers, init and ephemeral ones after the others; a name comes once.
fn declared(spec: &PodSpec) -> Vec<Declared<'_>> {
    let usual = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let usual = usual.map(|of| (of.name.as_str(), of.image.as_deref(), of.ports.as_deref()));
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|of| (of.name.as_str(), of.image.as_deref(), of.ports.as_deref()));
    let mut found: Vec<Declared<'_>> = Vec::new();
    for (name, image, ports) in usual.chain(ephemeral) {
        let is_new = owners::is_name(name) && found.iter().all(|known| known.name != name);
        if is_new && found.len() < MAX_CONTAINERS {
            found.push(Declared { name, image, ports });
        }
    }
    found
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|of| of.name == container)
}

/// The id of a container's newest instance: `containerd://<id>` less the runtime's name.
fn id_of(status: &ContainerStatus) -> Option<String> {
    let id = status.container_id.as_deref()?;
    let id = id.split_once("://").map_or(id, |(_, id)| id);
    let plain = (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| id.to_owned())
}

/// TCP ports by name, or by number where they have none.
fn ports(ports: Option<&[ContainerPort]>) -> Vec<(String, u16)> {
    let ports = ports.unwrap_or_default().iter().take(MAX_PORTS);
    ports
        .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0)?;
            let name = port.name.as_deref().filter(|name| owners::is_name(name) && name.len() <= 63);
            Some((name.map_or_else(|| number.to_string(), str::to_owned), number))
        })
        .collect()
}

/// The uid in the pod's log path, or nothing where there can be none.
///
/// A static pod's object in the API is a mirror with a uid of its own; its logs are below the hash of its file. The
/// annotation that has it is believed of a pod that a node owns, and only in the hash's own form, which is never that
/// of another pod's uid: who may write annotations cannot speak for other pods.
fn uid(meta: &ObjectMeta) -> String {
    let of_kind = |text: &&str| (1..=owners::MAX_NAME).contains(&text.len());
    let is_name = |name: &Option<String>| name.as_deref().is_some_and(owners::is_name);
    if !is_name(&meta.name) || !is_name(&meta.namespace) {
        return String::new();
    }
    let mirror = meta.annotations.as_ref().and_then(|annotations| annotations.get(owners::MIRROR));
    let hash = mirror.filter(|hash| {
        hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    if let Some(hash) = hash.filter(|_| owners::is_static(meta)) {
        return hash.clone();
    }
    let plain = |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    meta.uid.as_deref().filter(of_kind).filter(plain).unwrap_or_default().to_owned()
}

fn bounded_name(name: &str) -> String {
    if owners::is_name(name) { name.to_owned() } else { shown(name) }
}

/// The pod's labels that are of Kubernetes' form, by name.
fn labels(meta: &ObjectMeta) -> impl Iterator<Item = (String, String)> {
    let labels = meta.labels.iter().flatten();
    labels
        .filter(|(name, value)| {
            (1..=MAX_LABEL_NAME).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_graphic())
                && value.len() <= MAX_LABEL_VALUE
                && !value.chars().any(char::is_control)
        })
        .take(MAX_LABELS)
        .map(|(name, value)| (name.clone(), value.clone()))
}

/// The value of a label, where it has one.
fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, name: &str) -> Option<&'a str> {
    let value = labels?.get(name)?.trim();
    let plain = !value.is_empty() && annotations::plain(value, MAX_LABEL_VALUE).is_ok();
    plain.then_some(value)
}

/// The annotation, then the pod's label, then its namespace's.
fn environment(said: &Annotations, meta: &ObjectMeta, namespace: Option<&NamespaceMeta>) -> Option<String> {
    let of = |labels| ENVIRONMENT_LABELS.iter().find_map(|name| label(labels, name));
    let said = said.resource.get(ENVIRONMENT).map(String::as_str);
    let found = said.or_else(|| of(meta.labels.as_ref())).or_else(|| of(namespace.map(|of| &of.labels)));
    found.map(str::to_owned)
}

/// What all containers of a pod share.
#[derive(Debug)]
struct Shared<'a> {
    name: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
    owners: Owners,
    environment: Option<String>,
    labels_out: Vec<(String, String)>,
    said: &'a Annotations,
}

impl Shared<'_> {
    /// What a container's records carry. `service.namespace` and `service.instance.id` are here where an annotation sets
    /// them: their defaults, as the names of pod, container and node, are the sink's to write. The container's id is
    /// not: it is another one after each restart, and known only after the first lines.
    fn traits(&self, container: &Declared<'_>) -> Traits {
        let image = container.image.and_then(Image::parse);
        let said = |key: &str| self.said.resource.get(key).map(String::as_str);
        let service_name = said("service.name")
            .or_else(|| label(self.labels, "app.kubernetes.io/instance"))
            .or_else(|| label(self.labels, "app.kubernetes.io/name"))
            .or_else(|| self.owners.service_name())
            .or(Some(self.name).filter(|name| owners::is_name(name)))
            .unwrap_or(container.name);
        let service_version = said("service.version")
            .or_else(|| label(self.labels, "app.kubernetes.io/version"))
            .map(str::to_owned)
            .or_else(|| image.and_then(|image| image.version()));
        let mut attributes = self.said.resource.clone();
        for own in ["service.name", "service.version", ENVIRONMENT] {
            attributes.remove(own);
        }
        let image = image.into_iter().flat_map(|image| {
            let name = Some(image.name).filter(|name| !name.is_empty());
            [("container.image.name", name), ("container.image.tags", image.tag)]
        });
        let image = image.filter_map(|(key, value)| value.map(|value| (key, value)));
        for (key, value) in self.owners.attributes().chain(image) {
            attributes.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        Traits {
            service_name: service_name.to_owned(),
            service_version,
            environment: self.environment.clone(),
            labels: self.labels_out.clone(),
            attributes: attributes.into_iter().collect(),
            tenant: self.said.tenant(container.name),
        }
    }
}

const _: () = assert!(MAX_VALUE <= 2048, "Loki takes label values of 2048 bytes");

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
