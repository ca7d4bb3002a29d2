//! Pods and namespaces as they arrive, less everything that nobody here reads.
//!
//! In: an object's JSON, 44 KiB of it usual and 1 MiB possible. Out: a [`Slim`] pod of a few KiB as JSON, from which the
//! typed pod is made whenever it is resolved. Managed fields, environment, volumes, probes and conditions are skipped
//! where they stand and never held.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::annotations::{MAX_KEPT_VALUE, is_understood};
use super::resolve::NamespaceMeta;

/// Bytes of an annotation's value that are kept: more than are allowed, so that what is too long is told.
const LONGEST_ANNOTATION: usize = MAX_KEPT_VALUE + 8;

type Texts<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

#[derive(Deserialize, Serialize)]
struct Whole<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    spec: Option<Spec<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    status: Option<State<'a>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    namespace: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    uid: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    labels: Option<Texts<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Texts<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    creation_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    owner_references: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    node_name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_network: Option<bool>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ephemeral_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize, Serialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    image: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ports: Option<&'a RawValue>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    phase: Option<Cow<'a, str>>,
    #[serde(rename = "podIP", borrow, default, skip_serializing_if = "Option::is_none")]
    pod_ip: Option<Cow<'a, str>>,
    #[serde(rename = "podIPs", borrow, default, skip_serializing_if = "Option::is_none")]
    pod_ips: Option<&'a RawValue>,
    #[serde(rename = "hostIP", borrow, default, skip_serializing_if = "Option::is_none")]
    host_ip: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    container_statuses: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    init_container_statuses: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ephemeral_container_statuses: Option<&'a RawValue>,
}

/// A pod, stripped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slim {
    /// `metadata.uid`.
    pub(super) uid: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// `metadata.resourceVersion`; empty in the kubelet's answer.
    pub(super) version: String,
    /// What is left of it, as JSON.
    pub(super) json: Box<[u8]>,
}

/// What is read of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) version: String,
    /// What its pods inherit.
    pub(super) meta: NamespaceMeta,
}

impl Slim {
    /// Strips a pod.
    pub(super) fn of(json: &[u8]) -> serde_json::Result<Self> {
        let mut whole: Whole<'_> = serde_json::from_slice(json)?;
        if whole.metadata.uid.is_empty() || whole.metadata.name.is_empty() {
            return Err(serde::de::Error::custom("a pod without uid or name"));
        }
        if let Some(annotations) = &mut whole.metadata.annotations {
            annotations.retain(|name, _| is_understood(name));
            for value in annotations.values_mut().filter(|value| value.len() > LONGEST_ANNOTATION) {
                let end = value.floor_char_boundary(LONGEST_ANNOTATION);
                value.to_mut().truncate(end);
            }
        }
        Ok(Self {
            uid: whole.metadata.uid.to_string(),
            namespace: whole.metadata.namespace.to_string(),
            version: whole.metadata.resource_version.to_string(),
            json: serde_json::to_vec(&whole)?.into_boxed_slice(),
        })
    }

    /// The pod as everyone else knows it, without what was stripped.
    pub(super) fn pod(&self) -> serde_json::Result<Pod> {
        serde_json::from_slice(&self.json)
    }
}

impl Namespace {
    /// Reads a namespace.
    pub(super) fn of(json: &[u8]) -> serde_json::Result<Self> {
        let whole: Whole<'_> = serde_json::from_slice(json)?;
        if whole.metadata.name.is_empty() {
            return Err(serde::de::Error::custom("a namespace without a name"));
        }
        let owned = |texts: Option<Texts<'_>>| -> BTreeMap<String, String> {
            let texts = texts.unwrap_or_default().into_iter();
            texts.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
        };
        let (annotations, labels) = (owned(whole.metadata.annotations), owned(whole.metadata.labels));
        Ok(Self {
            name: whole.metadata.name.to_string(),
            version: whole.metadata.resource_version.to_string(),
            meta: NamespaceMeta::new(Some(&annotations), Some(&labels)),
        })
    }
}

/// The version that a bookmark or any other object carries, and whether it ends the initial events of a streaming list.
///
/// Source: Kubernetes API concepts, "Streaming lists": the annotation `k8s.io/initial-events-end`.
pub(super) fn bookmark(json: &[u8]) -> serde_json::Result<(String, bool)> {
    let whole: Whole<'_> = serde_json::from_slice(json)?;
    let all = whole.metadata.annotations.unwrap_or_default();
    let ends = all.get("k8s.io/initial-events-end").is_some_and(|value| value == "true");
    Ok((whole.metadata.resource_version.into_owned(), ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENUINE: &str = include_str!("../../tests/corpus/kube/podlist-shop.json");
    const WATCHLIST: &str = include_str!("../../tests/corpus/kube/watchlist-1.36.jsonl");

    fn genuine() -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(GENUINE).expect("JSON");
        list["items"].as_array().expect("a list").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stripped_pod_keeps_what_its_labels_are_made_of() {
        let json = genuine().into_iter().find(|pod| pod.contains("checkout-d994d45d6-fv4rz")).expect("a pod");
        let slim = Slim::of(json.as_bytes()).expect("a pod");
        assert_eq!(slim.uid, "d34d0f3a-f306-4c1c-90ef-976c2c61c955");
        assert_eq!((slim.namespace.as_str(), slim.version.as_str()), ("shop", "796"));
        let pod = slim.pod().expect("typed");
        let whole: Pod = serde_json::from_str(&json).expect("typed");
        assert_eq!(pod.metadata.labels, whole.metadata.labels);
        assert_eq!(pod.metadata.annotations, whole.metadata.annotations);
        assert_eq!(pod.metadata.owner_references, whole.metadata.owner_references);
        let (status, before) = (pod.status.expect("a status"), whole.status.expect("a status"));
        assert_eq!(status.container_statuses, before.container_statuses);
        assert_eq!((status.pod_ip, status.phase), (before.pod_ip, before.phase));
        let (spec, before) = (pod.spec.expect("a spec"), whole.spec.expect("a spec"));
        assert_eq!(spec.containers[0].ports, before.containers[0].ports);
        assert_eq!(spec.containers[0].image, before.containers[0].image);
        assert_eq!((spec.containers[0].env.as_ref(), spec.volumes), (None, None));
        assert!(slim.json.len() < json.len() / 2, "{} of {} bytes", slim.json.len(), json.len());
    }

    #[test]
    fn what_large_pods_are_large_by_is_not_kept() {
        let filler = "x".repeat(200 << 10);
        let json = format!(
            r#"{{"metadata":{{"name":"a","uid":"u","managedFields":[{{"f":"{filler}"}}],"annotations":{{"big":"{filler}","nodewick.dev/logs":"off"}}}},
               "spec":{{"containers":[{{"name":"c","env":[{{"name":"E","value":"{filler}"}}]}}]}}}}"#
        );
        let slim = Slim::of(json.as_bytes()).expect("a pod");
        assert_eq!(
            String::from_utf8_lossy(&slim.json),
            r#"{"metadata":{"name":"a","uid":"u","annotations":{"nodewick.dev/logs":"off"}},"spec":{"containers":[{"name":"c"}]}}"#
        );
    }

    #[test]
    fn a_bookmark_has_a_version_and_may_end_the_initial_events() {
        let last = WATCHLIST.lines().last().expect("a line");
        let event: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(event["type"], "BOOKMARK");
        let (version, ends) = bookmark(event["object"].to_string().as_bytes()).expect("a bookmark");
        assert!(ends && !version.is_empty());
        let (_, ends) = bookmark(br#"{"metadata":{"resourceVersion":"7","annotations":null}}"#).expect("one");
        assert!(!ends);
    }

    #[test]
    fn a_namespace_is_its_name_and_what_the_agent_reads() {
        let json = br#"{"metadata":{"name":"shop","resourceVersion":"9","labels":{"env":"staging","team":"x"},
            "annotations":{"nodewick.dev/tenant":"blue","kubectl.kubernetes.io/last-applied-configuration":"{}"}}}"#;
        let namespace = Namespace::of(json).expect("a namespace");
        assert_eq!(namespace.name, "shop");
        let texts = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let (annotations, labels) = (texts("nodewick.dev/tenant", "blue"), texts("env", "staging"));
        assert_eq!(namespace.meta, NamespaceMeta::new(Some(&annotations), Some(&labels)));
    }
}
