//! Checks against the Kubernetes API: that it answers, that this node is the one that is asked about, and what the
//! annotations of its pods say.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde_json::Value as Json;

use super::{Check, Finding, Site, Stage};
use crate::data::workload::ContainerRef;

pub(super) const API: Check = Check {
    name: "kube-api",
    looks_at: "The Kubernetes API answers, and takes the service account's token.",
    means: "Without it logs flow all the same: after ten seconds they go with what their path says (namespace, pod, \
            container, and a service name that is guessed). Annotations have no effect meanwhile.",
    pre: true,
    stage: Stage::Network,
    run: api,
};

pub(super) const NODE: Check = Check {
    name: "kube-node",
    looks_at: "The pods that the API lists for `[agent] node` are those that have logs on this disk.",
    means: "Another node's name means that no log finds its labels: set NODE_NAME by the downward API (`spec.nodeName`), and \
            leave `[agent] node` empty.",
    pre: false,
    stage: Stage::Network,
    run: node,
};

pub(super) const ANNOTATIONS: Check = Check {
    name: "annotations",
    looks_at: "The annotations of this node's pods and their namespaces can be understood.",
    means: "An annotation that cannot be understood has no effect; the logs of its pod flow with the default. The list of \
            annotations is in docs/reference/annotations.md.",
    pre: false,
    stage: Stage::Network,
    run: annotations,
};

pub(super) const INSTALL: Check = Check {
    name: "install",
    looks_at: "With `--pre`: this user may create what the manifests have, and the nodes are ones that the agent runs on.",
    means: "Ask for the missing rights, or have somebody apply the manifests who has them. Windows nodes are left out by the \
            DaemonSet's node selector.",
    pre: true,
    stage: Stage::Network,
    run: install,
};

/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer; 500 pods without their specs take less.
const ANSWER: usize = 32 << 20;
/// Pods of the node that are listed; the kubelet's default limit is 110.
const PODS: usize = 500;
/// Where a pod's service account is mounted.
const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// The API, or why there is none.
pub(super) enum Reached {
    /// Nobody wants it here.
    Unwanted,
    /// What is there to connect with does not serve.
    Unusable(Finding),
    /// A client, and whether it answers.
    Client(Api),
}

/// A client of the API.
pub(super) struct Api {
    client: kube::Client,
    url: String,
    first: Result<Answered, String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    /// Status.
    pub(super) status: u16,
    /// Body.
    pub(super) body: Vec<u8>,
    date: Option<String>,
    took: f64,
}

impl Answered {
    /// The body as JSON; null when it is none.
    pub(super) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `message` of a Kubernetes status, or the beginning of the body.
    pub(super) fn message(&self) -> String {
        let text = match self.json()["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&self.body).trim().to_owned(),
        };
        text.chars().take(240).collect()
    }
}

/// Who is asked for pods, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    kubeconfig: Option<PathBuf>,
    in_cluster: bool,
}

impl Site {
    /// How the API is reached; `None` when nobody asks it.
    fn wanted(&self) -> Option<Wanted> {
        if self.in_pod() {
            return Some(Wanted { kubeconfig: None, in_cluster: true });
        }
        let home =
            self.var("HOME").map(|home| Path::new(home).join(".kube/config")).filter(|path| path.exists());
        let kubeconfig = self.var("KUBECONFIG").map(PathBuf::from).or(home.filter(|_| self.pre))?;
        Some(Wanted { kubeconfig: Some(kubeconfig), in_cluster: false })
    }

    /// The API, connected to once.
    pub(super) fn cluster(&self) -> &Reached {
        self.cluster.get_or_init(|| match self.wanted() {
            None => Reached::Unwanted,
            Some(wanted) => self.reach(&wanted),
        })
    }

    /// The API, if it answers.
    pub(super) fn api(&self) -> Option<&Api> {
        match self.cluster() {
            Reached::Client(api) if api.first.as_ref().is_ok_and(|first| first.status == 200) => Some(api),
            _ => None,
        }
    }

    fn reach(&self, wanted: &Wanted) -> Reached {
        let loaded = self.block_on(async {
            if wanted.in_cluster {
                return kube::Config::incluster().map_err(|error| chain(&error));
            }
            let file = wanted.kubeconfig.clone().unwrap_or_default();
            let kubeconfig = kube::config::Kubeconfig::read_from(file).map_err(|error| chain(&error))?;
            let options = kube::config::KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| chain(&error))
        });
        let mut config = match loaded {
            Some(Ok(config)) => config,
            Some(Err(error)) => return Reached::Unusable(self.unusable(wanted, &error)),
            None => {
                return Reached::Unusable(Finding::failure("the system refuses a thread", "see pids.max"));
            }
        };
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(TIMEOUT);
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let made = self.block_on(async {
            let client = kube::Client::try_from(config).map_err(|error| chain(&error))?;
            let first = ask(&client, Method::GET, "/version", None).await;
            Ok::<_, String>((client, first))
        });
        match made {
            Some(Ok((client, first))) => {
                if let Ok(first) = &first
                    && let Some(date) = &first.date
                {
                    self.saw_clock("the Kubernetes API", date, first.took);
                }
                Reached::Client(Api { client, url, first })
            }
            Some(Err(error)) => Reached::Unusable(self.unusable(wanted, &error)),
            None => Reached::Unusable(Finding::failure("the system refuses a thread", "see pids.max")),
        }
    }

    fn unusable(&self, wanted: &Wanted, error: &str) -> Finding {
        if let Some(file) = &wanted.kubeconfig {
            let fix = "give a kubeconfig by KUBECONFIG, and try `kubectl version` with it";
            return Finding::failure(format!("cannot use the kubeconfig {}: {error}", file.display()), fix);
        }
        let token = Path::new("/").join(SERVICE_ACCOUNT).join("token");
        if matches!(std::fs::metadata(&token), Err(error) if error.kind() == ErrorKind::NotFound) {
            let fix = "give the pod its service account:\nspec: {serviceAccountName: nodewick, automountServiceAccountToken: true}";
            return Finding::failure("no service account token is mounted", fix);
        }
        Finding::failure(
            format!("cannot use the service account: {error}"),
            "see the files below /var/run/secrets/kubernetes.io",
        )
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

async fn ask(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: Option<Json>,
) -> Result<Answered, String> {
    let begun = Instant::now();
    let exchange = async {
        let mut request = Request::builder().method(method).uri(path);
        // Pods without their specs: a tenth of the bytes, and nothing that need be hidden.
        let accept = if path.starts_with("/api/v1/")
            && path.contains("limit=")
            && !path.starts_with("/api/v1/nodes")
        {
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
        } else {
            "application/json"
        };
        request = request.header(http::header::ACCEPT, accept);
        let body = match body {
            Some(body) => {
                request = request.header(http::header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string().into_bytes())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = client.send(request).await.map_err(|error| chain(&error))?;
        let date =
            response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let body =
            Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((status, date, body.to_bytes().to_vec()))
    };
    let (status, date, body) = match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(answered) => answered?,
        Err(_) => return Err(format!("no answer within {}", crate::data::units::Span(TIMEOUT))),
    };
    Ok(Answered { status, body, date, took: begun.elapsed().as_secs_f64() })
}

impl Api {
    /// Asks the API.
    pub(super) fn get(&self, site: &Site, path: &str) -> Result<Answered, String> {
        site.block_on(ask(&self.client, Method::GET, path, None))
            .unwrap_or_else(|| Err("no thread".to_owned()))
    }

    /// Sends an object, as the reviews of access want it.
    pub(super) async fn post(&self, path: &str, body: Json) -> Result<Answered, String> {
        ask(&self.client, Method::POST, path, Some(body)).await
    }
}

fn api(site: &Site) -> Vec<Finding> {
    let api = match site.cluster() {
        Reached::Unwanted => return Vec::new(),
        Reached::Unusable(finding) => return vec![finding.clone()],
        Reached::Client(api) => api,
    };
    let url = &api.url;
    let token = "the token is not this cluster's, or has expired: restart the pod; a mounted token is renewed by the kubelet";
    vec![match &api.first {
        Ok(first) if first.status == 200 => {
            let version = first.json()["gitVersion"].as_str().unwrap_or("an unknown version").to_owned();
            Finding::ok(format!("{url}, Kubernetes {version}"))
        }
        Ok(first) if first.status == 401 => {
            Finding::failure(format!("{url} refuses our credentials (401)"), token)
        }
        Ok(first) => Finding::failure(
            format!("{url} answers {}: {}", first.status, first.message()),
            "see the API server",
        ),
        Err(error) => Finding::failure(
            format!("{url} cannot be reached: {error}"),
            "does a NetworkPolicy allow egress to the API server (its port is 443 or 6443)?\nlogs flow meanwhile, with what \
             their paths say",
        ),
    }]
}

/// Pods with logs on this disk, by namespace and name.
fn pods_on_disk(site: &Site) -> BTreeSet<(String, String)> {
    let entries = std::fs::read_dir(&site.config().logs.root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| ContainerRef::from_path(&name, "container", 0))
        .map(|container| (container.namespace, container.pod))
        .collect()
}

/// Text that may stand in a query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The path that lists a node's pods.
fn pods_of(node: &str) -> String {
    format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit={PODS}", escaped(node))
}

fn name_of(object: &Json) -> Option<(String, String)> {
    let metadata = &object["metadata"];
    Some((metadata["namespace"].as_str()?.to_owned(), metadata["name"].as_str()?.to_owned()))
}

fn node(site: &Site) -> Vec<Finding> {
    let Some(api) = site.api() else { return Vec::new() };
    let node = &site.config().agent.node;
    // A refusal is the next check's.
    let Ok(answered) = api.get(site, &pods_of(node)) else { return Vec::new() };
    if answered.status != 200 {
        return Vec::new();
    }
    let list = answered.json();
    let listed: BTreeSet<(String, String)> =
        list["items"].as_array().into_iter().flatten().filter_map(name_of).collect();
    let here = pods_on_disk(site);
    let both = here.intersection(&listed).count();
    let fix = "env:\n- name: NODE_NAME\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}";
    if both > 0 || here.is_empty() {
        let count = if here.is_empty() { listed.len() } else { both };
        return vec![Finding::ok(format!(
            "{node}: {count} pods known, {} with logs on this disk",
            here.len()
        ))];
    }
    let real = here.iter().take(5).find_map(|(namespace, name)| node_of(site, api, namespace, name));
    let text = match (&real, listed.len()) {
        (Some(real), _) => format!("this disk has the logs of node {real}, the config says {node}"),
        (None, 0) => {
            format!("the API knows no pod on node {node}, and {} pods have logs on this disk", here.len())
        }
        (None, known) => {
            format!(
                "none of the {} pods with logs on this disk is among the {known} of node {node}",
                here.len()
            )
        }
    };
    let set = real
        .map(|real| format!("[agent] node or NODE_NAME must be {real}; by the downward API:\n"))
        .unwrap_or_default();
    vec![Finding::failure(text, &format!("{set}{fix}"))]
}

/// The node of a pod.
fn node_of(site: &Site, api: &Api, namespace: &str, name: &str) -> Option<String> {
    let path = format!(
        "/api/v1/namespaces/{}/pods?fieldSelector=metadata.name%3D{}",
        escaped(namespace),
        escaped(name)
    );
    let answered = api.get(site, &path).ok()?;
    Some(answered.json()["items"][0]["spec"]["nodeName"].as_str()?.to_owned())
}

/// What the annotations of a pod come to.
#[derive(Debug, Default)]
pub(crate) struct Annotated {
    /// What a person should know.
    pub(crate) notes: Vec<String>,
    /// Containers whose logs are left out, with why and what to do.
    pub(crate) off: Vec<(String, (String, String))>,
}

impl Site {
    /// The node of a pod, by the API's word.
    pub(crate) fn node_of(&self, namespace: &str, name: &str) -> Option<String> {
        node_of(self, self.api()?, namespace, name)
    }

    /// What the annotations of a pod say of its logs.
    pub(crate) fn annotations_of(&self, _namespace: &str, _name: &str, _uid: &str) -> Annotated {
        Annotated::default()
    }
}

fn annotations(_: &Site) -> Vec<Finding> {
    Vec::new()
}

fn install(site: &Site) -> Vec<Finding> {
    if !site.pre {
        return Vec::new();
    }
    let Some(api) = site.api() else { return Vec::new() };
    let mut findings = vec![super::rights::may_install(site, api)];
    if let Ok(answered) = api.get(site, "/api/v1/nodes?limit=500")
        && answered.status == 200
    {
        findings.push(nodes(&answered.json()));
    }
    findings
}

/// What the nodes are.
fn nodes(list: &Json) -> Finding {
    let nodes: Vec<&Json> =
        list["items"].as_array().into_iter().flatten().map(|node| &node["status"]["nodeInfo"]).collect();
    let of = |key: &str| -> BTreeSet<String> {
        nodes.iter().filter_map(|info| info[key].as_str()).map(str::to_owned).collect()
    };
    let several = |set: BTreeSet<String>| {
        let shown: Vec<String> = set.iter().take(4).cloned().collect();
        let more = set.len().saturating_sub(shown.len());
        if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
    };
    let windows = nodes.iter().filter(|info| info["operatingSystem"] == "windows").count();
    let text = format!(
        "{} nodes, {}, {}",
        nodes.len(),
        several(of("containerRuntimeVersion")),
        several(of("architecture"))
    );
    if windows > 0 {
        let fix =
            "their pods' logs are not read; the DaemonSet's selector kubernetes.io/os: linux leaves them out";
        return Finding::warning(format!("{text}; {windows} of them run Windows"), fix);
    }
    Finding::ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_is_escaped_in_the_selector() {
        assert_eq!(
            pods_of("ip-10-0-0-1.ec2"),
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dip-10-0-0-1.ec2&limit=500"
        );
        assert_eq!(escaped("a&b=c"), "a%26b%3Dc");
    }
}
