//! Figures of the node and its containers, by the names of node_exporter and cAdvisor where they exist.
//!
//! In: the node's `/proc` and cgroup v2 tree, read when asked, and the names of the node's pods. Out: one page of samples.
//! Invariants: nothing is kept between two readings but what keeps counters from going back; a file that is missing or odd
//! costs its own figures only; a hostile tree of cgroups is walked for a bounded time.

mod cgroup;
pub mod config;
mod containers;
mod filesystem;
mod node;
mod procfs;

pub use config::Config;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::data::pods::Pods;
use crate::data::sample::{MetricKind, Origin, OriginKind, Page};

/// One metric of a table: name, type, help.
#[derive(Debug, Clone, Copy)]
struct Metric {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
}

/// A row of a table of metrics.
const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

/// A row of a table of metrics.
const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

/// Reads the figures when asked.
#[derive(Debug)]
pub struct Collector {
    config: Config,
    origin: Arc<Origin>,
    pods: Option<Pods>,
    node: node::Node,
    /// File systems whose room is told, by a path on each.
    paths: Vec<PathBuf>,
}

impl Collector {
    /// A collector for this node. Containers have names as `pods` has them; without it they have none and are left out.
    /// `paths` lie on the file systems whose room is told: the log root, the state directory.
    pub fn new(config: &Config, cluster: &str, node: &str, pods: Option<Pods>, paths: Vec<PathBuf>) -> Self {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut labels = vec![pair("cluster", cluster), pair("instance", node), pair("job", "nodewick/host")];
        labels.push(pair("node", node));
        labels.retain(|(_, value)| !value.is_empty());
        let mut resource =
            vec![pair("host.name", node), pair("k8s.cluster.name", cluster), pair("k8s.node.name", node)];
        resource.retain(|(_, value)| !value.is_empty());
        let origin = Origin { kind: OriginKind::Host, labels, resource };
        Self {
            node: node::Node::new(config.proc()),
            config: config.clone(),
            origin: Arc::new(origin),
            pods,
            paths,
        }
    }

    /// Who the pages are of.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// How often it is to be asked.
    pub fn interval(&self) -> Duration {
        self.config.interval.0
    }

    /// Writes what is so now. `now` is the time on the clock of the pods' directory.
    pub fn collect(&mut self, now: Duration, page: &mut Page) {
        if self.config.node {
            self.node.collect(page);
            filesystem::collect(&self.config.proc(), &self.paths, page);
        }
        if self.config.containers
            && let Some(pods) = &self.pods
        {
            containers::collect(&self.config.cgroup(), &self.config.proc(), pods, now, page);
        }
    }
}

#[cfg(test)]
mod tests;
