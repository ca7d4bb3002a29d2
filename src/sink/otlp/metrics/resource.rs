//! Who a page's data points are of: the resource.
//!
//! In: an origin, and the labels of its own `target_info`. Out: resource attributes, each said once. By "Prometheus and
//! OpenMetrics Compatibility", `job` and `instance` are `service.namespace`, `service.name` and `service.instance.id`. Our
//! other target labels are in the resource by the names of the semantic conventions; one that has none there keeps its
//! own name. Invariant: a target label is an attribute of the resource and never of a data point.

use crate::data::sample::{Label, Origin, Page};
use crate::sink::otlp::encode::{utf8, write_resource_attribute};

/// Target labels and the attribute that says the same. Source: OpenTelemetry semantic conventions, "Kubernetes".
const SAME: [(&str, &str); 6] = [
    ("cluster", "k8s.cluster.name"),
    ("container", "k8s.container.name"),
    ("namespace", "k8s.namespace.name"),
    ("node", "k8s.node.name"),
    ("pod", "k8s.pod.name"),
    ("service", "service.name"),
];

/// Appends the fields of a `Resource`. `info`: labels of `target_info`, which add to what is known.
pub(super) fn write(origin: &Origin, page: &Page, info: &[Label], out: &mut Vec<u8>) {
    let mut known: Vec<(&str, &str)> = Vec::with_capacity(origin.resource.len() + 8);
    let add = |key: &'static str, value: &str, known: &mut Vec<(&str, &str)>| {
        !value.is_empty() && !known.iter().any(|(other, _)| *other == key)
    };
    for (key, value) in &origin.resource {
        if !key.is_empty() && !value.is_empty() {
            known.push((key, value));
        }
    }
    if let Some(job) = origin.label("job") {
        let (namespace, name) = job.split_once('/').unwrap_or(("", job));
        if !known.iter().any(|(key, _)| *key == "service.name") {
            if add("service.namespace", namespace, &mut known) {
                known.push(("service.namespace", namespace));
            }
            if !name.is_empty() {
                known.push(("service.name", name));
            }
        }
    }
    if let Some(instance) = origin.label("instance")
        && add("service.instance.id", instance, &mut known)
    {
        known.push(("service.instance.id", instance));
    }
    for (name, value) in &origin.labels {
        let said = SAME.iter().find(|(label, _)| label == name).map(|(_, key)| *key);
        let key = match said {
            // The service's own name may differ from the attribute that an operator has set.
            Some("service.name") if known.iter().any(|(key, _)| *key == "service.name") => continue,
            Some(key) => key,
            None if name == "job" || name == "instance" => continue,
            None => name,
        };
        if !value.is_empty() && !known.iter().any(|(other, _)| *other == key) {
            known.push((key, value));
        }
    }
    for (key, value) in &known {
        write_resource_attribute(key, value, out);
    }
    for label in info {
        let (name, value) = (page.bytes(label.name), page.bytes(label.value));
        let ours = name == b"__name__" || origin.labels.iter().any(|(known, _)| known.as_bytes() == name);
        let again = known.iter().any(|(key, _)| key.as_bytes() == name);
        if !ours && !again && !value.is_empty() {
            write_resource_attribute(
                &String::from_utf8_lossy(name),
                &String::from_utf8_lossy(&utf8(value)),
                out,
            );
        }
    }
}
