//! `[kube]`: how the agent learns of its node's pods.
//!
//! In: the section of the config file, and the environment that a pod has. Out: the [`Mode`] that holds, and what is
//! wrong with the section. Invariant: nothing here touches the network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::data::pods::LONGEST_WAIT;
use crate::data::units::Span;
use crate::data::workload::is_tenant;

/// Where a pod's service account is mounted.
/// Source: kubernetes.io, "Accessing the API from within a Pod".
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Port of the kubelet's authenticated API.
const KUBELET_PORT: u16 = 10250;

/// `[kube]`: how the agent learns of its node's pods, whose labels the log lines carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who is asked for the node's pods. "api" watches the API server (`pods: list, watch`), "kubelet" polls the node's
    /// kubelet (`nodes/pods: get`, Kubernetes 1.33 and newer), "path" asks nobody: lines carry what their path says.
    /// "auto" is "api" in a cluster or with a `kubeconfig`, else "path".
    pub mode: Mode,
    /// Kubeconfig file for an agent outside the cluster. Empty means the pod's service account.
    #[schemars(with = "String")]
    pub kubeconfig: PathBuf,
    /// Take annotations of namespaces as defaults for their pods: a second watch, with `namespaces: list, watch`.
    /// Turn it off where the service account may not see namespaces.
    pub namespace_annotations: bool,
    /// Labels of pods that the lines carry: exact names, or beginnings with a trailing `*`. Keep it short: each label
    /// costs bytes with every line in the backend.
    pub pod_labels: Vec<String>,
    /// Tenants that a pod or namespace may choose by annotation. Any other one is refused and counted.
    pub tenants: Vec<String>,
    /// How long the first lines of a new container wait for its labels, 10s at most. After that they go with what
    /// their path says.
    pub wait: Span,
    /// The node's kubelet, for mode "kubelet".
    pub kubelet: Kubelet,
}

/// `[kube.kubelet]`: the node's kubelet, for `mode = "kubelet"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kubelet {
    /// The kubelet's address. Empty means port 10250 of the variable `NODE_IP` (downward API, `status.hostIP`).
    pub url: String,
    /// PEM file with the authority that signed the kubelet's serving certificate. Empty means the cluster's own, which
    /// signs it where the kubelets run with `serverTLSBootstrap`. A self-signed certificate is never trusted, since
    /// the service account's token goes there.
    #[schemars(with = "String")]
    pub ca: PathBuf,
    /// File with the token that the kubelet is shown. Empty means the pod's service account.
    #[schemars(with = "String")]
    pub token_file: PathBuf,
    /// How often all pods are asked for. A new container is asked for at once.
    pub poll: Span,
}

/// Who is asked for the node's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The API server in a cluster, else nobody.
    #[default]
    Auto,
    /// The API server.
    Api,
    /// The node's kubelet.
    Kubelet,
    /// Nobody.
    Path,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            kubeconfig: PathBuf::new(),
            namespace_annotations: true,
            pod_labels: Vec::new(),
            tenants: Vec::new(),
            wait: Span(LONGEST_WAIT),
            kubelet: Kubelet::default(),
        }
    }
}

impl Default for Kubelet {
    fn default() -> Self {
        Self { url: String::new(), ca: PathBuf::new(), token_file: PathBuf::new(), poll: Span::secs(10) }
    }
}

/// Something that is wrong with the section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key below `kube`.
    pub key: &'static [&'static str],
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: &'static str,
}

impl Config {
    /// The mode that holds here: never [`Mode::Auto`].
    pub fn effective_mode(&self) -> Mode {
        match self.mode {
            Mode::Auto if !self.kubeconfig.as_os_str().is_empty() || in_cluster() => Mode::Api,
            Mode::Auto => Mode::Path,
            other => other,
        }
    }

    /// What cannot work, whatever the cluster is like.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        if self.wait.0 > LONGEST_WAIT {
            let message = format!("{} is too long: a log would look dead meanwhile", self.wait);
            found.push(Problem { key: &["wait"], message, help: "10s at most" });
        }
        if self.kubelet.poll.0 < Duration::from_secs(1) || self.kubelet.poll.0 > Duration::from_secs(300) {
            let message = format!("{} is no sensible interval", self.kubelet.poll);
            found.push(Problem { key: &["kubelet", "poll"], message, help: "1s to 5m; the default is 10s" });
        }
        for label in &self.pod_labels {
            let stem = label.strip_suffix('*').unwrap_or(label);
            if label.is_empty() || stem.contains('*') || stem.chars().any(char::is_whitespace) {
                let message = format!("{label:?} names no label");
                let help = "write a label's name (\"team\"), or its beginning with a trailing * (\"app.example.com/*\")";
                found.push(Problem { key: &["pod_labels"], message, help });
            }
        }
        for tenant in &self.tenants {
            if !is_tenant(tenant) {
                let message = format!("{tenant:?} cannot be a tenant");
                let help = "150 letters, digits and !-_.*'() at most, as Loki wants it";
                found.push(Problem { key: &["tenants"], message, help });
            }
        }
        if !self.kubelet.url.is_empty()
            && let Err(message) = kubelet_url(&self.kubelet.url)
        {
            let help = "write it like \"https://10.0.0.7:10250\", or leave it empty and set NODE_IP";
            found.push(Problem { key: &["kubelet", "url"], message, help });
        }
        found
    }
}

impl Kubelet {
    /// The kubelet's address. The error says what to set.
    pub fn address(&self) -> Result<http::Uri, String> {
        if !self.url.is_empty() {
            return kubelet_url(&self.url);
        }
        let ip = std::env::var("NODE_IP").unwrap_or_default();
        match ip.parse::<std::net::IpAddr>() {
            Ok(ip) => {
                let url = format!("https://{}", std::net::SocketAddr::new(ip, KUBELET_PORT));
                url.parse().map_err(|error| format!("{url} is not a URL: {error}"))
            }
            Err(_) => Err(
                "the kubelet's address is not known; set NODE_IP from status.hostIP, or [kube.kubelet] url"
                    .to_owned(),
            ),
        }
    }

    /// File of the authority to trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        if self.ca.as_os_str().is_empty() {
            Path::new(SERVICE_ACCOUNT).join("ca.crt")
        } else {
            self.ca.clone()
        }
    }

    /// File of the token to show.
    pub(crate) fn token(&self) -> PathBuf {
        if self.token_file.as_os_str().is_empty() {
            Path::new(SERVICE_ACCOUNT).join("token")
        } else {
            self.token_file.clone()
        }
    }
}

/// An absolute URL; plain http only to this machine, since a credential goes with it.
fn kubelet_url(url: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() => Err("not a URL: the host is missing".to_owned()),
        Some("https") => Ok(uri),
        Some("http") if loopback => Ok(uri),
        Some("http") => Err("the token is not sent over plain http to another machine".to_owned()),
        _ => Err("the scheme is not https".to_owned()),
    }
}

/// True in a pod with a service account.
fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
        && Path::new(SERVICE_ACCOUNT).join("token").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(config: &Config) -> Vec<String> {
        config.problems().iter().map(|problem| problem.key.join(".")).collect()
    }

    #[test]
    fn the_default_has_no_problem_and_asks_nobody_outside_a_cluster() {
        assert!(Config::default().problems().is_empty());
        let outside = Config { kubeconfig: "/etc/kubeconfig".into(), ..Config::default() };
        assert_eq!(outside.effective_mode(), Mode::Api);
        assert_eq!(Config { mode: Mode::Path, ..outside }.effective_mode(), Mode::Path);
    }

    #[test]
    fn what_cannot_work_is_named_by_its_key() {
        let mut config = Config { wait: Span::secs(11), ..Config::default() };
        assert_eq!(keys(&config), ["wait"]);
        config.wait = Span::secs(10);
        config.kubelet.poll = Span::millis(900);
        config.kubelet.url = "http://10.0.0.7:10250".into();
        config.pod_labels = vec!["team".into(), "example.com/*".into(), "a*b".into(), "".into()];
        config.tenants = vec!["blue".into(), "a/b".into()];
        assert_eq!(keys(&config), ["kubelet.poll", "pod_labels", "pod_labels", "tenants", "kubelet.url"]);
    }

    #[test]
    fn a_token_goes_over_plain_http_to_this_machine_only() {
        assert!(kubelet_url("http://127.0.0.1:8080").is_ok());
        assert!(kubelet_url("http://[::1]:8080").is_ok());
        assert!(kubelet_url("https://10.0.0.7:10250").is_ok());
        assert!(kubelet_url("http://10.0.0.7:10255").is_err());
        assert!(kubelet_url("10.0.0.7:10250").is_err());
    }
}
