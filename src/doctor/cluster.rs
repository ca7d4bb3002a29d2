//! Checks against the Kubernetes API: that it answers, that this node is the one that is asked about, and what the
//! annotations of its pods say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::kube::Client;
use ::kube::client::Body;
use ::kube::config::{KubeConfigOptions, Kubeconfig};
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::probe::{Endpoint, Trouble};
use super::report::several;
use super::{Check, Finding, Site, Stage};
use crate::data::pods;
use crate::data::workload::{ContainerRef, owner_of};
use crate::kube::Mode;
use crate::kube::resolve::{MAX_PROBLEMS, NamespaceMeta, Place, Problem, Resolved, Resolver, Settings};
use crate::sink::http::Tls;
use crate::slo;

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
/// Bytes of an answer. This runs beside the agent, within its container's limit: pods are listed by pages.
const ANSWER: usize = 8 << 20;
/// Objects of a page.
const PAGE: usize = 20;
/// Pages of a list; the kubelet's default limit is 110 pods.
const PAGES: usize = 50;
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
    client: Client,
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

/// How the API is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// By the pod's service account.
    InCluster,
    /// By a kubeconfig.
    File(PathBuf),
}

/// What the API says of the node's pods.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Namespace and name.
    pods: BTreeSet<(String, String)>,
    problems: Vec<Problem>,
    /// About objectives, told whole.
    objectives: BTreeSet<String>,
}

impl Site {
    /// Who is asked for pods.
    pub(super) fn mode(&self) -> Mode {
        let config = &self.config().kube;
        // The token's presence is what is looked at here.
        if config.mode == Mode::Auto && self.in_pod() { Mode::Api } else { config.effective_mode() }
    }

    /// How the API is reached; `None` when nobody asks it.
    fn wanted(&self) -> Option<Wanted> {
        let configured = &self.config().kube.kubeconfig;
        if !configured.as_os_str().is_empty() {
            return Some(Wanted::File(configured.clone()));
        }
        if self.mode() == Mode::Api || (self.pre && self.in_pod()) {
            return Some(Wanted::InCluster);
        }
        let home =
            self.var("HOME").map(|home| Path::new(home).join(".kube/config")).filter(|path| path.exists());
        self.var("KUBECONFIG").map(PathBuf::from).or(home).filter(|_| self.pre).map(Wanted::File)
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
            // A server that does not tell its version may tell of pods.
            Reached::Client(api) if api.first.as_ref().is_ok_and(|first| first.status != 401) => Some(api),
            _ => None,
        }
    }

    fn reach(&self, wanted: &Wanted) -> Reached {
        let loaded = self.block_on(async {
            let Wanted::File(file) = wanted else {
                return ::kube::Config::incluster().map_err(|error| chain(&error));
            };
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| chain(&error))?;
            let options = KubeConfigOptions::default();
            ::kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| chain(&error))
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
        // What the API answers is what is to be told.
        config.default_retry = false;
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let made = self.block_on(async {
            let client = Client::try_from(config).map_err(|error| chain(&error))?;
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
        if let Wanted::File(file) = wanted {
            let fix = "give another one by [kube] kubeconfig or KUBECONFIG; try `kubectl version` with it";
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

async fn ask(client: &Client, method: Method, path: &str, body: Option<Json>) -> Result<Answered, String> {
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
    if !site.pre && site.mode() == Mode::Kubelet {
        return vec![kubelet(site)];
    }
    let api = match site.cluster() {
        Reached::Unwanted if site.pre => return Vec::new(),
        Reached::Unwanted => {
            return vec![Finding::ok("nobody is asked: lines carry what their path says ([kube] mode)")];
        }
        Reached::Unusable(finding) => return vec![finding.clone()],
        Reached::Client(api) => api,
    };
    let url = &api.url;
    let token = "the token is not this cluster's, or has expired: restart the pod; a mounted token is renewed by the kubelet";
    vec![match &api.first {
        Ok(first) if first.status == 200 => {
            let version = first.json()["gitVersion"].as_str().unwrap_or("of an unknown version").to_owned();
            Finding::ok(format!("{url}, Kubernetes {version}"))
        }
        Ok(first) if first.status == 401 => {
            Finding::failure(format!("{url} refuses our credentials (401)"), token)
        }
        Ok(first) if first.status >= 500 => Finding::failure(
            format!("{url} answers {}: {}", first.status, first.message()),
            "see the API server's logs",
        ),
        Ok(_) => Finding::ok(format!("{url} answers")),
        Err(error) => Finding::failure(
            format!("{url} cannot be reached: {error}"),
            "does a NetworkPolicy allow egress to the API server (port 443 or 6443)?\nlogs flow meanwhile, with what their \
             paths say",
        ),
    }]
}

/// The node's kubelet, for `mode = "kubelet"`.
fn kubelet(site: &Site) -> Finding {
    let config = &site.config().kube.kubelet;
    let url = match config.address() {
        Ok(url) => url,
        Err(error) => {
            return Finding::failure(
                error,
                "env:\n- name: NODE_IP\n  valueFrom: {fieldRef: {fieldPath: status.hostIP}}",
            );
        }
    };
    let token = match std::fs::read_to_string(config.token()) {
        Ok(token) => token.trim().to_owned(),
        Err(error) => {
            let text = format!("cannot read the token {}: {error}", config.token().display());
            return Finding::failure(
                text,
                "spec: {serviceAccountName: nodewick, automountServiceAccountToken: true}",
            );
        }
    };
    let tls = Tls { ca_file: Some(config.ca_file()), ..Tls::default() };
    let endpoint = Endpoint {
        url: &url,
        tls: &tls,
        table: "kube.kubelet".to_owned(),
        timeout: Duration::from_secs(5),
        h2: false,
    };
    let shown = url.to_string().trim_end_matches('/').to_owned();
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = http::HeaderValue::try_from(format!("Bearer {token}")) {
        headers.insert(http::header::AUTHORIZATION, value);
    }
    let got = match endpoint.walk() {
        Ok(way) => way.get("/pods", &headers),
        Err(Trouble { text, fix }) => {
            let fix = fix.replace("[kube.kubelet.tls]\nca_file", "[kube.kubelet]\nca");
            return Finding::failure(format!("the kubelet: {text}"), &fix);
        }
    };
    match got {
        Ok(got) if got.status == 200 => Finding::ok(format!("the kubelet at {shown} lists its pods")),
        Ok(got) if got.status == 401 => Finding::failure(
            format!("the kubelet at {shown} refuses our token (401)"),
            "run it with --authentication-token-webhook; is the token this cluster's?",
        ),
        Ok(got) if got.status == 403 => Finding::failure(
            format!("the kubelet at {shown} does not let us list its pods (403)"),
            "Kubernetes 1.33 or newer, and in the agent's ClusterRole (never nodes/proxy):\n- {apiGroups: [\"\"], resources: \
             [nodes/pods], verbs: [get]}",
        ),
        Ok(got) => Finding::failure(
            format!("the kubelet at {shown} answers {}", got.status),
            "see the kubelet's log on the node",
        ),
        Err(error) => {
            Finding::failure(format!("the kubelet at {shown}: {error}"), "see the kubelet's log on the node")
        }
    }
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

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue", default)]
    next: String,
}

/// Lists by pages. False when the API refuses, or answers what is not a list.
fn list<T: DeserializeOwned>(
    site: &Site,
    api: &Api,
    resource: &str,
    selector: &str,
    mut each: impl FnMut(T),
) -> bool {
    let mut next = String::new();
    for _ in 0..PAGES {
        let selector = escaped(selector);
        let more = if next.is_empty() { String::new() } else { format!("&continue={}", escaped(&next)) };
        let path = format!("/api/v1/{resource}?fieldSelector={selector}&limit={PAGE}{more}");
        let Ok(answered) = api.get(site, &path) else { return false };
        if answered.status != 200 {
            return false;
        }
        let Ok(page) = serde_json::from_slice::<Page<T>>(&answered.body) else { return false };
        page.items.into_iter().for_each(&mut each);
        next = page.metadata.next;
        if next.is_empty() {
            break;
        }
    }
    true
}

impl Site {
    fn resolver(&self) -> Resolver {
        let config = &self.config().kube;
        Resolver::new(Settings { labels: config.pod_labels.clone(), tenants: config.tenants.clone() })
    }

    /// What namespaces say of their pods' logs; one namespace where it is named.
    fn namespaces(&self, api: &Api, only: Option<&str>) -> BTreeMap<String, NamespaceMeta> {
        let mut found = BTreeMap::new();
        if self.config().kube.namespace_annotations {
            let selector = only.map(|name| format!("metadata.name={name}")).unwrap_or_default();
            list::<Namespace>(self, api, "namespaces", &selector, |namespace| {
                let meta = namespace.metadata;
                let kept = NamespaceMeta::new(meta.annotations.as_ref(), meta.labels.as_ref());
                found.extend(meta.name.map(|name| (name, kept)));
            });
        }
        found
    }

    /// The node's pods, asked once. `None` when the API does not tell.
    fn survey(&self) -> Option<&Survey> {
        let look = || {
            let api = self.api()?;
            let (resolver, namespaces) = (self.resolver(), self.namespaces(api, None));
            let mut survey = Survey::default();
            let selector = format!("spec.nodeName={}", self.config().agent.node);
            let told = list::<Pod>(self, api, "pods", &selector, |pod| {
                let namespace = pod.metadata.namespace.as_ref().and_then(|name| namespaces.get(name));
                let Resolved { pod, problems } = resolver.pod(&pod, namespace);
                survey.objectives.extend(about_objectives(&pod, &self.config().slo.defaults));
                survey.pods.insert((pod.namespace, pod.name));
                survey.problems.extend(problems);
            });
            told.then_some(survey)
        };
        self.survey.get_or_init(look).as_ref()
    }
}

fn node(site: &Site) -> Vec<Finding> {
    // A refusal is another check's.
    let (Some(api), Some(survey)) = (site.api(), site.survey()) else { return Vec::new() };
    let node = &site.config().agent.node;
    let here = pods_on_disk(site);
    let both = here.intersection(&survey.pods).count();
    let fix = "env:\n- name: NODE_NAME\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}";
    if both > 0 || here.is_empty() {
        let text = format!(
            "{node}: {} by the API, {} with logs on this disk",
            several(survey.pods.len(), "pod"),
            here.len()
        );
        return vec![Finding::ok(text)];
    }
    let real = here.iter().take(5).find_map(|(namespace, name)| node_of(site, api, namespace, name));
    let text = match (&real, survey.pods.len()) {
        (Some(real), _) => format!("this disk has the logs of node {real}, the config says {node}"),
        (None, 0) => {
            format!("the API knows no pod of node {node}, and {} pods have logs on this disk", here.len())
        }
        (None, known) => {
            format!(
                "none of the {} pods with logs on this disk is among the {known} of node {node}",
                here.len()
            )
        }
    };
    let set = match real {
        Some(real) => format!("[agent] node or NODE_NAME must be {real}; by the downward API:\n"),
        None => "set the node's name in Kubernetes by the downward API:\n".to_owned(),
    };
    vec![Finding::failure(text, &format!("{set}{fix}"))]
}

fn one_pod(namespace: &str, name: &str) -> String {
    format!("metadata.name={name},metadata.namespace={namespace}")
}

/// The node of a pod.
fn node_of(site: &Site, api: &Api, namespace: &str, name: &str) -> Option<String> {
    let mut found = None;
    list::<Pod>(site, api, "pods", &one_pod(namespace, name), |pod| {
        found = pod.spec.and_then(|spec| spec.node_name);
    });
    found
}

/// What the annotations of a pod come to.
#[derive(Debug, Default)]
pub(crate) struct Annotated {
    /// What a person should know.
    pub(crate) notes: Vec<String>,
    /// Containers whose logs are left out, with why and what to do.
    pub(crate) off: Vec<(String, (String, String))>,
}

/// Annotations that can switch logs off: what their names begin with.
const SWITCHES: [&str; 2] = ["nodewick.dev/logs", "fluentbit.io/exclude"];

impl Site {
    /// The node of a pod, by the API's word.
    pub(crate) fn node_of(&self, namespace: &str, name: &str) -> Option<String> {
        node_of(self, self.api()?, namespace, name)
    }

    /// What the annotations of a pod say of its logs.
    pub(crate) fn annotations_of(&self, namespace: &str, name: &str, uid: &str) -> Annotated {
        let mut said = Annotated::default();
        let Some(api) = self.api() else { return said };
        let metas = self.namespaces(api, Some(namespace));
        let resolver = self.resolver();
        list::<Pod>(self, api, "pods", &one_pod(namespace, name), |pod| {
            let switches = switches(pod.metadata.annotations.as_ref());
            let Resolved { pod, problems } = resolver.pod(&pod, metas.get(namespace));
            if pod.uid != uid {
                return;
            }
            said.notes.extend(problems.iter().map(Problem::to_string));
            said.notes.extend(about_objectives(&pod, &self.config().slo.defaults));
            let (why, fix) = if switches.is_empty() {
                (
                    format!("by an annotation of namespace {namespace}"),
                    format!("kubectl annotate namespace {namespace} nodewick.dev/logs=on --overwrite"),
                )
            } else {
                (
                    format!("by annotation {switches}"),
                    format!(
                        "kubectl -n {namespace} annotate pod {name} nodewick.dev/logs=on --overwrite; or change its template"
                    ),
                )
            };
            let off = pod.containers.into_iter().filter(|container| container.handling.off);
            said.off.extend(off.map(|container| (container.name, (why.clone(), fix.clone()))));
        });
        said
    }
}

/// What is wrong with the annotations about objectives of a pod, its namespace's included.
fn about_objectives(pod: &pods::Pod, defaults: &slo::config::Defaults) -> Vec<String> {
    let pairs = || pod.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let attributes = pod.containers.first().map_or(&[][..], |container| &container.traits.attributes);
    let workload = owner_of(attributes, &pod.name).name;
    let (_, problems) = slo::annotations::read(pairs(), &pod.namespace, workload, defaults);
    let told = problems.iter().take(MAX_PROBLEMS).map(|problem| {
        let value = pairs().find(|(name, _)| *name == problem.annotation()).map(|(_, value)| value);
        slo::annotations::told(&pod.namespace, &pod.name, value.unwrap_or_default(), problem)
    });
    told.collect()
}

/// The pod's own annotations that can switch logs off, as they are written.
fn switches(annotations: Option<&BTreeMap<String, String>>) -> String {
    let of = annotations.into_iter().flatten();
    let found = of.filter(|(name, _)| SWITCHES.iter().any(|switch| name.starts_with(switch)));
    let shown: Vec<String> = found.take(4).map(|(name, value)| format!("{name} = {value:?}")).collect();
    shown.join(", ")
}

fn annotations(site: &Site) -> Vec<Finding> {
    let Some(survey) = site.survey() else { return Vec::new() };
    if survey.problems.is_empty() && survey.objectives.is_empty() {
        return vec![Finding::ok(format!("those of {} are understood", several(survey.pods.len(), "pod")))];
    }
    // A namespace's comes again with each of its pods.
    let mut told = BTreeSet::new();
    let mut findings = Vec::new();
    for problem in &survey.problems {
        let whose = match problem.place {
            Place::Pod => format!("{}/{}", problem.namespace, problem.pod),
            Place::Namespace => format!("namespace {}", problem.namespace),
        };
        let text = format!("{whose}: {} = \"{}\" {}", problem.annotation, problem.value, problem.what);
        if told.insert(text.clone()) && told.len() <= SHOWN {
            findings.push(Finding::warning(text, &problem.fix));
        }
    }
    for text in &survey.objectives {
        if told.insert(text.clone()) && told.len() <= SHOWN {
            findings.push(Finding::warning(text, "until then what it says does not hold"));
        }
    }
    if told.len() > SHOWN {
        let text = format!("{} more annotations are not understood", told.len() - SHOWN);
        findings.push(Finding::warning(text, "mend these first; -o json shows no more either"));
    }
    findings
}

/// Bad annotations that are shown.
const SHOWN: usize = 10;

fn install(site: &Site) -> Vec<Finding> {
    if !site.pre {
        return Vec::new();
    }
    let Some(api) = site.api() else { return Vec::new() };
    let mut findings = vec![super::rights::may_install(site, api)];
    if let Ok(answered) = api.get(site, "/api/v1/nodes?limit=100")
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
    let listed = |set: BTreeSet<String>| {
        let shown: Vec<String> = set.iter().take(4).cloned().collect();
        let more = set.len().saturating_sub(shown.len());
        if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
    };
    let windows = nodes.iter().filter(|info| info["operatingSystem"] == "windows").count();
    let text = format!(
        "{} nodes, {}, {}",
        nodes.len(),
        listed(of("containerRuntimeVersion")),
        listed(of("architecture"))
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
    fn a_selector_is_escaped_in_the_query() {
        assert_eq!(escaped("spec.nodeName=ip-10-0-0-1.ec2"), "spec.nodeName%3Dip-10-0-0-1.ec2");
        assert_eq!(escaped("a&b=c"), "a%26b%3Dc");
    }
}
