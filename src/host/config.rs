//! `[host]`: figures of the node and its containers.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::units::Span;

/// `[host]`: figures of the node and its containers, by the names of node_exporter and cAdvisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Collect them. In Kubernetes the pod needs the node's `/proc` and `/sys/fs/cgroup`, read-only, below `root`: the
    /// how-to page "Host and container figures" has the mounts. Leave it off where node_exporter and the kubelet's cAdvisor are
    /// scraped already.
    pub enabled: bool,
    /// How often.
    pub interval: Span,
    /// Directory below which the node's `/proc` and `/sys/fs/cgroup` are mounted. Where it has no `proc`, this machine's own
    /// are read.
    #[schemars(with = "String")]
    pub root: PathBuf,
    /// Figures of the node: CPU, memory, load, disks, network, file systems, pressure.
    pub node: bool,
    /// Figures of each container: CPU, throttling, memory, kills for lack of it, disks, pressure. They need cgroup v2 and, for the names, the
    /// Kubernetes watch.
    pub containers: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, interval: Span::secs(15), root: "/host".into(), node: true, containers: true }
    }
}

impl Config {
    /// Where the node's `/proc` is.
    pub fn proc(&self) -> PathBuf {
        self.below("proc")
    }

    /// Where the node's cgroups are.
    pub fn cgroup(&self) -> PathBuf {
        self.below("sys/fs/cgroup")
    }

    fn below(&self, path: &str) -> PathBuf {
        let mounted = self.root.join(path);
        if mounted.is_dir() { mounted } else { Path::new("/").join(path) }
    }
}
