//! Wiring of what people see of lines: the hub that shows them live, and the search of the node's files.
//!
//! In: each pipeline's config and parts. Out: a hub and a searcher that outlive pipelines. Invariants: search reads by the
//! same config as the pipeline does, with rules and an identity of its own; while no pipeline reads there is nothing to
//! search, and no search holds on to what a pipeline has left.

use std::sync::Arc;

use axum::Router;
use parking_lot::Mutex;

use crate::config::Config;
use crate::data::delivery::Outlet;
use crate::data::pods::{Pods, Reader};
use crate::data::workload::{Identify, PathIdentity};
use crate::live::Hub;
use crate::logs::driver::{Driver, own_pod};
use crate::logs::files::{Identity, Sources};
use crate::logs::ingest::Settings;
use crate::logs::multiline::Rules;
use crate::logs::process::Chain;
use crate::search::{Node, Searcher};

/// The hub and the searcher.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    hub: Hub,
    searcher: Searcher,
}

/// What a pipeline knows its logs by.
pub(super) struct Searched {
    pub(super) pods: Option<Pods>,
    pub(super) sources: Arc<Sources>,
}

impl Lines {
    /// Nothing is read yet.
    pub(super) fn new(config: &Config) -> Self {
        Self { hub: Hub::new(config.record.fields.0), searcher: Searcher::default() }
    }

    /// What the listener for people serves of it.
    pub(super) fn routes(&self) -> Router {
        crate::ui::lines::routes(self.hub.clone(), self.searcher.clone())
    }

    /// One more place that the records of a pipeline go to.
    pub(super) fn outlet(&self, config: &Config) -> Box<dyn Outlet> {
        self.hub.set_fields(config.record.fields.0);
        self.hub.outlet()
    }

    /// What the pipeline reads is what is searched.
    pub(super) fn search_in(&self, config: &Config, of: Searched, driver: &Driver) {
        let Searched { pods, sources } = of;
        let agent = &config.agent;
        let paths = PathIdentity {
            cluster: agent.cluster.clone(),
            node: agent.node.clone(),
            environment: Some(agent.environment.clone()).filter(|name| !name.is_empty()),
        };
        let said: Box<dyn Identify> = match pods {
            Some(pods) => Box::new(Reader::new(pods, paths, config.kube.wait.0)),
            None => Box::new(paths),
        };
        let identify =
            Identity::new(said, Arc::clone(&sources), &agent.cluster, &agent.node, &agent.environment);
        let (process, multiline) = (config.process.clone(), config.logs.multiline.clone());
        let (fields, max_line) = (config.record.fields.0, config.logs.max_line.as_usize());
        let settings = move || {
            let chain = Chain::compile(&process).ok()?.quietly();
            let rules = Rules::compile(&multiline).ok()?;
            Some(Settings::new(fields, chain, max_line).with_multiline(rules))
        };
        self.searcher.set(Some(Node {
            root: config.logs.reads_pods().then(|| config.logs.root.clone()),
            symlink_roots: config.logs.symlink_roots.clone(),
            settings: Box::new(settings),
            sources,
            identify: Mutex::new(Box::new(identify)),
            registry: Arc::clone(&driver.registry),
            spill: Arc::clone(&driver.spill),
            own_pod: config.logs.exclude_self.then(own_pod).flatten(),
        }));
    }

    /// The pipeline ends, perhaps for another one.
    pub(super) fn rest(&self) {
        self.searcher.set(None);
    }

    /// The process ends: nobody watches any more.
    pub(super) fn end(&self) {
        self.searcher.set(None);
        self.hub.close();
    }
}
