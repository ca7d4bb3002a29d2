//! What a target's series carry, and what relabelling rules see of it.
//!
//! In: a pod, its container, where the agent runs. Out: labels, resource attributes and meta labels. The labels have the
//! same values as the pod's logs, so that one leads to the other.
//!
//! Sources: Prometheus, `discovery/kubernetes/pod.go` (meta labels); OpenTelemetry, "Prometheus and OpenMetrics
//! Compatibility" (resource of a target that is no pod).

use std::collections::BTreeMap;
use std::time::Duration;

use super::fixed::{self, Address};
use super::{Reason, Site};
use crate::data::pods::{Container, Pod};
use crate::data::units::Span;
use crate::data::workload::{guess_service, owner_of};
use crate::scrape::guard;
use crate::scrape::target::{PodAddress, Scheme};

/// What every meta label of Kubernetes begins with.
const META: &str = "__meta_kubernetes_";

/// Labels of a pod's series, before the rules. Some may be empty.
pub(super) fn of_pod(site: &Site, pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let owner = owner_of(&container.traits.attributes, &pod.name);
    let service = service(pod, container);
    let all = [
        ("cluster", site.cluster.clone()),
        ("namespace", pod.namespace.clone()),
        ("pod", pod.name.clone()),
        ("container", container.name.clone()),
        ("node", site.node.clone()),
        ("workload", owner.name.to_owned()),
        ("workload_kind", owner.kind.to_owned()),
        ("service", service.to_owned()),
        ("job", format!("{}/{service}", pod.namespace)),
        ("instance", instance(pod, container)),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn service<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    match container.traits.service_name.as_str() {
        "" => guess_service(&pod.name),
        known => known,
    }
}

fn instance(pod: &Pod, container: &Container) -> String {
    let parts = [pod.namespace.as_str(), &pod.name, &container.name];
    let known: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    known.join(".")
}

/// Resource attributes of a pod's series: those of its logs.
pub(super) fn resource(site: &Site, pod: &Pod, container: &Container) -> Vec<(String, String)> {
    let traits = &container.traits;
    let environment = site.environment.as_ref().or(traits.environment.as_ref());
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        if !name.is_empty() && !value.is_empty() {
            all.insert(name.to_owned(), value.to_owned());
        }
    };
    // The later one wins: an annotation may name its service's namespace and instance, but never who the pod is.
    put("service.namespace", &pod.namespace);
    put("service.instance.id", &instance(pod, container));
    for (name, value) in &traits.attributes {
        put(name, value);
    }
    for (name, value) in &traits.labels {
        put(&format!("k8s.pod.label.{name}"), value);
    }
    put("service.name", service(pod, container));
    put("service.version", traits.service_version.as_deref().unwrap_or_default());
    put("deployment.environment.name", environment.map(String::as_str).unwrap_or_default());
    put("k8s.cluster.name", &site.cluster);
    put("k8s.node.name", &site.node);
    put("k8s.namespace.name", &pod.namespace);
    put("k8s.pod.name", &pod.name);
    put("k8s.pod.uid", &pod.uid);
    put("k8s.container.name", &container.name);
    all.into_iter().collect()
}

/// Resource attributes of a static target's series, by its final labels.
pub(super) fn resource_of_fixed(
    site: &Site,
    labels: &BTreeMap<String, String>,
    address: &Address,
) -> Vec<(String, String)> {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let all = [
        ("deployment.environment.name", site.environment.clone().unwrap_or_default()),
        ("k8s.cluster.name", label("cluster")),
        ("server.address", address.host.clone()),
        ("server.port", address.port.to_string()),
        ("service.instance.id", label("instance")),
        ("service.name", label("job")),
        ("url.scheme", address.scheme.word().to_owned()),
    ];
    let known = all.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Adds what rules may look at: Prometheus' meta labels of a pod, as far as the fact is known here.
pub(super) fn add_meta(
    all: &mut BTreeMap<String, String>,
    site: &Site,
    pod: &Pod,
    container: &Container,
    port: u16,
) {
    let mut put = |name: &str, value: &str| {
        all.insert(format!("{META}{name}"), value.to_owned());
    };
    put("namespace", &pod.namespace);
    put("pod_name", &pod.name);
    put("pod_ip", &pod.ip.map(|ip| ip.to_string()).unwrap_or_default());
    put("pod_uid", &pod.uid);
    put("pod_node_name", &site.node);
    put("pod_phase", "Running");
    put("pod_container_name", &container.name);
    put("pod_container_port_number", &port.to_string());
    put("pod_container_port_protocol", "TCP");
    if let Some((name, _)) = container.ports.iter().find(|(_, number)| *number == port) {
        // A port without a name is known by its number.
        put("pod_container_port_name", if *name == port.to_string() { "" } else { name });
    }
    let attribute = |name: &str| {
        let found = container.traits.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    for (attribute, name) in [
        (attribute("k8s.deployment.name"), "pod_deployment_name"),
        (attribute("k8s.job.name"), "pod_job_name"),
        (attribute("k8s.cronjob.name"), "pod_cronjob_name"),
    ] {
        if let Some(value) = attribute {
            put(name, value);
        }
    }
    // The controller is the parent itself, not the ancestor.
    let controllers = [
        (attribute("k8s.replicaset.name"), "ReplicaSet"),
        (attribute("k8s.statefulset.name"), "StatefulSet"),
        (attribute("k8s.daemonset.name"), "DaemonSet"),
        (attribute("k8s.job.name"), "Job"),
    ];
    if let Some((Some(name), kind)) = controllers.into_iter().find(|(name, _)| name.is_some()) {
        put("pod_controller_kind", kind);
        put("pod_controller_name", name);
    }
    for (name, value) in &pod.labels {
        let name = sanitized(name);
        put(&format!("pod_label_{name}"), value);
        put(&format!("pod_labelpresent_{name}"), "true");
    }
    for (name, value) in &pod.annotations {
        let name = sanitized(name);
        put(&format!("pod_annotation_{name}"), value);
        put(&format!("pod_annotationpresent_{name}"), "true");
    }
}

/// A name as Prometheus writes it into that of a label. Source: `util/strutil/strconv.go`, `SanitizeLabelName`.
fn sanitized(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

/// Where and how often, as the rules leave it. A pod's address can only change its port.
pub(super) fn read_meta(
    all: &BTreeMap<String, String>,
    pod: Option<&PodAddress>,
) -> Result<(Address, Duration, Duration), Reason> {
    let get = |name: &str| all.get(name).map(String::as_str).unwrap_or_default();
    let wrong = |name: &'static str, why: &'static str| Reason::Relabelled {
        name,
        value: get(name).chars().take(256).collect(),
        why,
    };
    let scheme = match get("__scheme__") {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(wrong("__scheme__", "neither http nor https")),
    };
    let address = |why| wrong("__address__", why);
    let (host, port) = fixed::split(get("__address__")).ok_or_else(|| address("no host and port"))?;
    let port = match port {
        Some(port) => fixed::number(port).ok_or_else(|| address("no port from 1 to 65535"))?,
        None => scheme.default_port(),
    };
    if let Some(pod) = pod
        && host.parse() != Ok(pod.ip)
    {
        return Err(address(
            "only the port of a pod can be changed: its own address is the only one to dial",
        ));
    }
    let mut path = get("__metrics_path__").to_owned();
    for (name, value) in all {
        if let Some(name) = name.strip_prefix("__param_").filter(|name| !name.is_empty()) {
            path.push(if path.contains('?') { '&' } else { '?' });
            encode(name, &mut path);
            path.push('=');
            encode(value, &mut path);
        }
    }
    if pod.is_some() {
        guard::path(&path).map_err(|why| wrong("__metrics_path__", why))?;
    } else if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'#')
    {
        return Err(wrong(
            "__metrics_path__",
            "it does not begin with /, or holds a blank, a # or what is not ASCII",
        ));
    }
    let span = |name: &'static str| {
        let found: Result<Span, _> = get(name).parse();
        found.map(|span| span.0).map_err(|_| wrong(name, "no duration such as 15s"))
    };
    let (interval, timeout) = (span("__scrape_interval__")?, span("__scrape_timeout__")?);
    if interval < Duration::from_secs(1) || interval > Duration::from_secs(86_400) {
        return Err(wrong("__scrape_interval__", "it must be 1s to 1d"));
    }
    if timeout.is_zero() || timeout > interval {
        return Err(wrong("__scrape_timeout__", "it must be above 0 and at most the interval"));
    }
    let host = pod.map_or_else(|| host.to_owned(), |pod| pod.ip.to_string());
    Ok((Address { scheme, host, port, path }, interval, timeout))
}

/// Appends text as a URL's query wants it.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}
