//! Which targets exist: the pods of this node by their annotations and ports, and what the operator names.
//!
//! In: the config, and the node's pods as they are. Out: for each pod its targets, or why it has none, in words. Pure:
//! the same pods give equal targets, so that whoever paces them sees by equality which are new and which are gone.
//! Invariants: a pod's target has the address that the API gave for that pod, whatever annotations and rules say; no
//! label is empty; `__*` labels end here.
//!
//! Sources: Prometheus' example `kubernetes-pods` job (what the annotations mean), `discovery/kubernetes/pod.go` (names of
//! meta labels), `scrape/target.go` (what rules see, and what becomes of it).

pub mod fixed;
mod labels;
mod reason;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Config, Mode, Static};
use super::guard::{self, Guard};
use super::relabel::{self, Rules};
use super::target::{PodAddress, Scheme, Target};
use crate::data::pods::{Container, Pod};
use crate::data::sample::{Origin, OriginKind};
use crate::data::units::Span;
use fixed::Address;
pub use reason::Reason;

/// Where the agent runs, and what it calls that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// `deployment.environment.name` of every workload, if set.
    pub environment: Option<String>,
    /// Namespace and name of the agent's own pod.
    pub own_pod: Option<(String, String)>,
}

/// A pod as its reader knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The uid in its log path.
    pub uid: String,
}

/// A target, or what might have been one and is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The pod; `None` for a static target.
    pub pod: Option<PodName>,
    /// The address as far as it is known: that of a static target that rules have dropped.
    pub address: String,
    /// The target, or why it is none.
    pub found: Result<Arc<Target>, Reason>,
}

/// Finds targets.
#[derive(Debug)]
pub struct Targets {
    mode: Mode,
    host_network: bool,
    interval: Duration,
    timeout: Duration,
    site: Site,
    guard: Guard,
    rules: Rules,
    fixed: Vec<Candidate>,
}

/// What was said of a target, before the rules.
struct Draft {
    labels: BTreeMap<String, String>,
    resource: Vec<(String, String)>,
    pod: Option<PodAddress>,
    address: Address,
    interval: Duration,
    timeout: Duration,
    honor_labels: bool,
    honor_timestamps: bool,
}

impl Targets {
    /// Who finds targets by `config`. An error where its rules cannot work; a static target that cannot be read is left
    /// out: the config's check has told of both.
    pub fn new(config: &Config, site: Site, guard: Guard) -> Result<Self, Vec<relabel::Problem>> {
        let (interval, timeout) = config.pace();
        let mut found = Self {
            mode: config.mode,
            host_network: config.host_network,
            interval,
            timeout,
            site,
            guard,
            rules: Rules::compile(&config.relabel)?,
            fixed: Vec::new(),
        };
        for of in &config.fixed {
            for text in &of.targets {
                if let Ok(address) = Address::parse(text, of.scheme, &of.path) {
                    let candidate = found.named(of, address);
                    // The same one twice would be two writers of one series.
                    if !found.fixed.contains(&candidate) {
                        found.fixed.push(candidate);
                    }
                }
            }
        }
        Ok(found)
    }

    /// All targets, and why other pods have none: the static ones first, then pods by namespace and name.
    pub fn discover(&self, pods: &[Arc<Pod>]) -> Vec<Candidate> {
        let mut sorted: Vec<&Arc<Pod>> = pods.iter().collect();
        sorted.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
        let mut found = self.fixed.clone();
        for pod in sorted {
            let name =
                PodName { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() };
            let candidate = |found| Candidate { pod: Some(name.clone()), address: String::new(), found };
            match self.of_pod(pod) {
                Ok(targets) => found.extend(targets.into_iter().map(candidate)),
                Err(reason) => found.push(candidate(Err(reason))),
            }
        }
        found
    }

    /// The targets of a pod; each may still have a reason of its own. An error is about the pod as a whole.
    fn of_pod(&self, pod: &Pod) -> Result<Vec<Result<Arc<Target>, Reason>>, Reason> {
        let said = Said::of(pod);
        let wanted = self.is_wanted(&said)?;
        if self
            .site
            .own_pod
            .as_ref()
            .is_some_and(|(namespace, name)| *namespace == pod.namespace && *name == pod.name)
        {
            return Err(Reason::OwnPod);
        }
        let named = metrics_ports(pod);
        if wanted == Wanted::ByPort && named.is_empty() {
            return Err(Reason::NotAnnotated { mode: self.mode });
        }
        if pod.host_network && !self.host_network {
            return Err(Reason::HostNetwork);
        }
        let ports = ports(pod, &said, named)?;
        let path = said.path.unwrap_or("/metrics");
        guard::path(path).map_err(|why| Reason::Path { path: path.to_owned(), why })?;
        let scheme = match said.scheme {
            None | Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => return Err(Reason::Scheme(other.to_owned())),
        };
        if !pod.running {
            return Err(Reason::NotRunning);
        }
        let ip = pod.ip.ok_or(Reason::NoAddress)?;
        // A pod on the node's network has the node's own address: the operator has allowed it.
        if !pod.host_network || ip.is_loopback() {
            self.guard.allows(ip).map_err(Reason::Denied)?;
        }
        let target = |port: u16| {
            let path = path.to_owned();
            self.finish(self.draft(pod, Address { scheme, host: ip.to_string(), port, path }, ip))
        };
        Ok(ports.into_iter().map(target).collect())
    }

    fn is_wanted(&self, said: &Said<'_>) -> Result<Wanted, Reason> {
        match (self.mode, said.scrape) {
            (Mode::Off, _) => Err(Reason::Off),
            (_, Some("true")) => Ok(Wanted::Annotated),
            (_, Some("false")) => Err(Reason::Declined),
            (_, Some(other)) => Err(Reason::Scrape(other.to_owned())),
            (Mode::Annotated, None) => Err(Reason::NotAnnotated { mode: self.mode }),
            (Mode::All, None) => Ok(Wanted::ByPort),
        }
    }

    fn draft(&self, pod: &Pod, address: Address, ip: IpAddr) -> Draft {
        let none = Container::default();
        let at_port = |container: &&Container| container.ports.iter().any(|(_, port)| *port == address.port);
        let container = pod.containers.iter().find(at_port).or(pod.containers.first()).unwrap_or(&none);
        let mut all = labels::of_pod(&self.site, pod, container);
        if !self.rules.is_empty() {
            labels::add_meta(&mut all, &self.site, pod, container, address.port);
        }
        Draft {
            labels: all,
            resource: labels::resource(&self.site, pod, container),
            pod: Some(PodAddress { uid: pod.uid.clone(), ip }),
            address,
            interval: self.interval,
            timeout: self.timeout,
            honor_labels: false,
            honor_timestamps: true,
        }
    }

    /// A static target.
    fn named(&self, of: &Static, address: Address) -> Candidate {
        let interval = of.interval.map_or(self.interval, |interval| interval.0);
        let timeout = of.timeout.map_or(self.timeout, |timeout| timeout.0).min(interval);
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in [("cluster", &self.site.cluster), ("node", &self.site.node), ("job", &of.job)] {
            all.insert(name.to_owned(), value.clone());
        }
        all.extend(of.labels.clone());
        let shown = authority(&address.host, address.port);
        let found = self.finish(Draft {
            labels: all,
            resource: Vec::new(),
            pod: None,
            address,
            interval,
            timeout,
            honor_labels: of.honor_labels,
            honor_timestamps: of.honor_timestamps,
        });
        Candidate { pod: None, address: shown, found }
    }

    /// Applies the rules and reads what they leave.
    fn finish(&self, draft: Draft) -> Result<Arc<Target>, Reason> {
        let Draft { labels: mut all, mut resource, pod, mut address, mut interval, mut timeout, .. } = draft;
        let has_meta = !self.rules.is_empty() || all.keys().any(|name| name.starts_with("__"));
        if has_meta {
            let given = |name: &str, value: String, all: &mut BTreeMap<String, String>| {
                all.entry(name.to_owned()).or_insert(value);
            };
            given("__address__", authority(&address.host, address.port), &mut all);
            given("__scheme__", address.scheme.word().to_owned(), &mut all);
            given("__metrics_path__", address.path.clone(), &mut all);
            given("__scrape_interval__", Span(interval).to_string(), &mut all);
            given("__scrape_timeout__", Span(timeout).to_string(), &mut all);
            if !self.rules.apply_owned(&mut all) {
                return Err(Reason::Dropped);
            }
            (address, interval, timeout) = labels::read_meta(&all, pod.as_ref())?;
            all.retain(|name, _| !name.starts_with("__"));
        }
        let instance = all.entry("instance".to_owned()).or_default();
        if instance.is_empty() {
            *instance = authority(&address.host, address.port);
        }
        all.retain(|name, value| !name.is_empty() && !value.is_empty());
        if pod.is_none() {
            resource = labels::resource_of_fixed(&self.site, &all, &address);
        }
        Ok(Arc::new(Target {
            origin: Arc::new(Origin {
                kind: OriginKind::Target,
                labels: all.into_iter().collect(),
                resource,
            }),
            scheme: address.scheme,
            host: address.host,
            port: address.port,
            path: address.path,
            pod,
            interval,
            timeout,
            honor_labels: draft.honor_labels,
            honor_timestamps: draft.honor_timestamps,
        }))
    }
}

/// Host and port as in a URL.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Why a pod is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// It says so.
    Annotated,
    /// Everything with a port named for it is.
    ByPort,
}

/// What a pod's annotations say. An empty one says nothing.
struct Said<'a> {
    scrape: Option<&'a str>,
    port: Option<&'a str>,
    path: Option<&'a str>,
    scheme: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn of(pod: &'a Pod) -> Self {
        let said = |name: &str| {
            let found = pod.annotations.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        Self {
            scrape: said("prometheus.io/scrape"),
            port: said("prometheus.io/port"),
            path: said("prometheus.io/path"),
            scheme: said("prometheus.io/scheme"),
        }
    }
}

/// Ports named for metrics, in the order of the containers, each once.
fn metrics_ports(pod: &Pod) -> Vec<u16> {
    let all = pod.containers.iter().flat_map(|container| &container.ports);
    let named = all.filter(|(name, _)| name == "metrics" || name == "http-metrics");
    once(named.map(|(_, port)| *port))
}

fn once(ports: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut found = Vec::new();
    for port in ports.filter(|port| *port != 0) {
        if !found.contains(&port) {
            found.push(port);
        }
    }
    found
}

/// The ports to scrape: what the annotation says, else those named for it, else the only one that there is.
fn ports(pod: &Pod, said: &Said<'_>, named: Vec<u16>) -> Result<Vec<u16>, Reason> {
    if let Some(text) = said.port {
        return fixed::number(text).map(|port| vec![port]).ok_or_else(|| Reason::Port(text.to_owned()));
    }
    if !named.is_empty() {
        return Ok(named);
    }
    let all = once(pod.containers.iter().flat_map(|container| &container.ports).map(|(_, port)| *port));
    match all.as_slice() {
        [only] => Ok(vec![*only]),
        [] => Err(Reason::NoPort),
        _ => Err(Reason::ManyPorts(all)),
    }
}
