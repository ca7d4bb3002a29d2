//! What runs a pod, from its own object alone: no right to read ReplicaSets or Jobs is needed.
//!
//! In: `metadata` of a pod. Out: [`Owners`]. Invariant: a name is told only where the pod itself proves it: a
//! Deployment by the template hash that ends its ReplicaSet's name, a CronJob by the minute that ends its Job's.
//!
//! Sources: `k8s.io/kubernetes/pkg/controller/deployment/sync.go` (a ReplicaSet is `<deployment>-<pod-template-hash>`),
//! `pkg/controller/cronjob/cronjob_controllerv2.go` (a Job is `<cronjob>-<scheduled minutes since 1970>`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The label with which a Deployment's pods name their template.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// The same of an Argo Rollout, which owns its ReplicaSets as a Deployment does.
const ROLLOUT_HASH: &str = "rollouts-pod-template-hash";
/// When a Job was due, RFC 3339; on Jobs since Kubernetes 1.21, and on pods whose template copies it.
pub(super) const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The kubelet's hash of a static pod's file, on the pod's mirror in the API. It is the uid in the log path.
/// Source: `k8s.io/kubernetes/pkg/kubelet/types/pod_update.go`.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Longest name of an object: a DNS subdomain.
pub(super) const MAX_NAME: usize = 253;
/// Longest name of a CronJob, so that its Jobs' names fit a label. Source: `ValidateCronJobCreate`.
const MAX_CRONJOB: usize = 52;
/// 2015-01-01 in minutes since 1970: no CronJob is older. Dates written as digits (`20261122`) lie below.
const FIRST_MINUTE: i64 = 23_667_840;
/// Minutes by which a pod may be younger than the time that its Job was due: late starts and retries, 31 days.
const LATEST: i64 = 31 * 24 * 60;
/// Minutes by which the clocks of control plane nodes may differ.
const SKEW: i64 = 5;

/// What runs a pod. All of it is optional: a pod may run by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owners {
    pub(super) deployment: Option<String>,
    /// An Argo Rollout. It has no attribute of its own in the semantic conventions.
    pub(super) rollout: Option<String>,
    pub(super) replica_set: Option<String>,
    pub(super) stateful_set: Option<String>,
    pub(super) daemon_set: Option<String>,
    pub(super) cron_job: Option<String>,
    pub(super) job: Option<String>,
}

impl Owners {
    /// Reads a pod's controller.
    ///
    /// A kind counts only in Kubernetes' own group: what others call a StatefulSet is not `k8s.statefulset.name`.
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let mut owners = Self::default();
        let Some(controller) = controller(meta) else { return owners };
        let name = controller.name.as_str();
        match (group(controller), controller.kind.as_str()) {
            ("apps" | "extensions", "ReplicaSet") => {
                owners.deployment = less_hash(name, meta, TEMPLATE_HASH);
                owners.rollout = less_hash(name, meta, ROLLOUT_HASH);
                owners.replica_set = Some(name.to_owned());
            }
            ("apps", "StatefulSet") => owners.stateful_set = Some(name.to_owned()),
            ("apps" | "extensions", "DaemonSet") => owners.daemon_set = Some(name.to_owned()),
            ("batch", "Job") => {
                owners.cron_job = cron_job(name, meta).map(str::to_owned);
                owners.job = Some(name.to_owned());
            }
            _ => {}
        }
        owners
    }

    /// The name that `service.name` falls back to before the pod's: the ancestor before the descendant, in the order
    /// of the semantic conventions. A Rollout stands where a Deployment does, since the name of its ReplicaSet is
    /// another one with each release.
    pub(super) fn service_name(&self) -> Option<&str> {
        [
            &self.deployment,
            &self.rollout,
            &self.replica_set,
            &self.stateful_set,
            &self.daemon_set,
            &self.cron_job,
            &self.job,
        ]
        .into_iter()
        .find_map(|name| name.as_deref())
    }

    /// Their resource attributes, by the semantic conventions for Kubernetes.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("k8s.cronjob.name", &self.cron_job),
            ("k8s.daemonset.name", &self.daemon_set),
            ("k8s.deployment.name", &self.deployment),
            ("k8s.job.name", &self.job),
            ("k8s.replicaset.name", &self.replica_set),
            ("k8s.statefulset.name", &self.stateful_set),
        ]
        .into_iter()
        .filter_map(|(key, name)| name.as_deref().map(|name| (key, name)))
    }
}

/// True when the kubelet itself runs the pod from a file: its object is a mirror that the node owns.
pub(super) fn is_static(meta: &ObjectMeta) -> bool {
    controller(meta).is_some_and(|owner| owner.kind == "Node" && owner.api_version == "v1")
}

/// The owner that manages the pod; where none says so, the first.
fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let managing = owners.iter().find(|owner| owner.controller == Some(true)).or_else(|| owners.first());
    managing.filter(|owner| is_name(&owner.name))
}

/// The API group; empty for the core.
fn group(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

/// True for what Kubernetes takes as an object's name.
pub(super) fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| inner(b) || b == b'-' || b == b'.')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

/// The ReplicaSet's name less the hash that the label has.
fn less_hash(name: &str, meta: &ObjectMeta, label: &str) -> Option<String> {
    let hash = meta.labels.as_ref()?.get(label).filter(|hash| !hash.is_empty())?;
    let owner = name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
    is_name(owner).then(|| owner.to_owned())
}

/// The CronJob of a Job, when its name ends in the minute at which it was due.
fn cron_job<'a>(job: &'a str, meta: &ObjectMeta) -> Option<&'a str> {
    let (name, digits) = job.rsplit_once('-')?;
    let plain = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let minute = digits.parse::<i64>().ok().filter(|_| plain)?;
    if !is_name(name) || name.len() > MAX_CRONJOB || minute < FIRST_MINUTE {
        return None;
    }
    let scheduled = meta.annotations.as_ref().and_then(|annotations| annotations.get(SCHEDULED));
    let due = scheduled.filter(|text| text.len() <= 64).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let created = meta.creation_timestamp.as_ref().map(|time| time.0.as_second().div_euclid(60));
    let fits = due.is_some_and(|due| due.as_second().div_euclid(60) == minute)
        || created.is_none_or(|created| (created - LATEST..=created + SKEW).contains(&minute));
    fits.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(json: &str) -> ObjectMeta {
        serde_json::from_str(json).expect("metadata")
    }

    fn owned(api: &str, kind: &str, name: &str, rest: &str) -> Owners {
        let owner = format!(
            r#"{{"apiVersion":"{api}","kind":"{kind}","name":"{name}","uid":"u","controller":true}}"#
        );
        Owners::of(&meta(&format!(r#"{{"name":"p","ownerReferences":[{owner}]{rest}}}"#)))
    }

    fn some(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn a_replica_set_that_ends_in_the_template_hash_is_of_a_deployment() {
        let hash = r#","labels":{"pod-template-hash":"d994d45d6"}"#;
        assert_eq!(
            owned("apps/v1", "ReplicaSet", "checkout-d994d45d6", hash),
            Owners {
                deployment: some("checkout"),
                replica_set: some("checkout-d994d45d6"),
                ..Owners::default()
            }
        );
        for (name, labels) in [
            ("checkout-d994d45d6", ""),
            ("checkout-d994d45d6", r#","labels":{"pod-template-hash":""}"#),
            ("checkout-5h9zr", hash),
            ("-d994d45d6", hash),
            ("xd994d45d6", hash),
        ] {
            assert_eq!(owned("apps/v1", "ReplicaSet", name, labels).deployment, None, "{name} {labels}");
        }
    }

    #[test]
    fn a_rollout_stands_where_a_deployment_does_without_being_one() {
        let found = owned(
            "apps/v1",
            "ReplicaSet",
            "web-6f9b7",
            r#","labels":{"rollouts-pod-template-hash":"6f9b7"}"#,
        );
        assert_eq!((found.deployment.as_deref(), found.service_name()), (None, Some("web")));
        assert_eq!(found.attributes().collect::<Vec<_>>(), [("k8s.replicaset.name", "web-6f9b7")]);
    }

    #[test]
    fn other_controllers_are_named_as_they_are() {
        for (api, kind, attribute) in [
            ("apps/v1", "StatefulSet", Some("k8s.statefulset.name")),
            ("apps/v1", "DaemonSet", Some("k8s.daemonset.name")),
            ("batch/v1", "Job", Some("k8s.job.name")),
            ("apps/v1", "ReplicaSet", Some("k8s.replicaset.name")),
            ("v1", "Node", None),
            ("apps.kruise.io/v1", "StatefulSet", None),
            ("argoproj.io/v1alpha1", "Rollout", None),
            ("v1", "ReplicationController", None),
        ] {
            let owners = owned(api, kind, "main", "");
            let found: Vec<_> = owners.attributes().collect();
            let expected: Vec<_> = attribute.into_iter().map(|key| (key, "main")).collect();
            assert_eq!(found, expected, "{api} {kind}");
        }
    }

    #[test]
    fn a_job_that_ends_in_the_minute_it_was_due_is_of_a_cron_job() {
        // 29920320 minutes: 2026-11-21T00:00:00Z.
        let day = |date: &str| format!(r#","creationTimestamp":"{date}T00:00:03Z""#);
        for (job, rest, cron_job) in [
            ("backup-29920320", day("2026-11-21"), Some("backup")),
            ("backup-29920320", day("2026-11-29"), Some("backup")),
            ("backup-29920320", String::new(), Some("backup")),
            ("backup-29920320", day("2026-11-20"), None),
            ("backup-29920320", day("2027-01-21"), None),
            ("migrate-20261121", day("2026-11-21"), None),
            ("migrate-20261121", String::new(), None),
            ("backup-2992032", String::new(), None),
            ("backup-2992032x", String::new(), None),
            ("29920320", String::new(), None),
            ("backup", String::new(), None),
        ] {
            let found = owned("batch/v1", "Job", job, &rest);
            assert_eq!(found.cron_job.as_deref(), cron_job, "{job} {rest}");
            assert_eq!(found.job.as_deref(), Some(job));
        }
        let scheduled = r#","creationTimestamp":"2028-01-01T00:00:00Z",
            "annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-11-21T01:00:00+01:00"}"#;
        let late = owned("batch/v1", "Job", "backup-29920320", scheduled);
        assert_eq!(late.service_name(), Some("backup"), "the annotation proves it, however late the pod");
    }

    #[test]
    fn the_controller_counts_not_the_first_owner() {
        let two = r#"{"ownerReferences":[
            {"apiVersion":"v1","kind":"ConfigMap","name":"cm","uid":"1"},
            {"apiVersion":"apps/v1","kind":"DaemonSet","name":"agent","uid":"2","controller":true}]}"#;
        assert_eq!(Owners::of(&meta(two)).daemon_set.as_deref(), Some("agent"));
    }

    #[test]
    fn a_name_that_kubernetes_would_not_take_is_no_owner() {
        for name in ["", "a b", "Ä", "a\\r\\nb", "-a", "a-", "a_b"] {
            assert_eq!(owned("apps/v1", "DaemonSet", name, ""), Owners::default(), "{name}");
        }
        let long = "a".repeat(254);
        assert_eq!(owned("apps/v1", "DaemonSet", &long, ""), Owners::default());
    }
}
