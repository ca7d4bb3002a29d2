//! Who writes a log file.
//!
//! In: questions about any log. Out: for files and processes an answer from the config and the environment, at once
//! and for ever; for containers that of whoever knows the pods. Invariant: a file's identity depends on its path and
//! the agent's settings alone.

use std::sync::Arc;
use std::time::Duration;

use super::Sources;
use crate::data::workload::{self, ContainerRef, Exit, Handling, Identify, Workload};

/// Answers for files, and passes questions about containers on.
pub struct Identity {
    pods: Box<dyn Identify>,
    sources: Arc<Sources>,
    cluster: String,
    node: String,
    environment: Option<String>,
}

impl Identity {
    /// `pods` knows containers; the rest are the agent's own settings.
    pub fn new(
        pods: Box<dyn Identify>,
        sources: Arc<Sources>,
        cluster: &str,
        node: &str,
        environment: &str,
    ) -> Self {
        let environment = Some(environment.to_owned()).filter(|name| !name.is_empty());
        Self { pods, sources, cluster: cluster.to_owned(), node: node.to_owned(), environment }
    }

    fn workload(&self, container: &ContainerRef) -> Workload {
        let around = self.sources.around();
        let source = self.sources.of(container);
        let named = source.and_then(|source| source.service.clone());
        let guessed = source.is_none_or(|source| source.guessed);
        let service = named.or_else(|| around.service.clone());
        let service_name_guessed = guessed || service.is_none();
        let fallback = || match container.container.as_str() {
            "" => "unknown_service".to_owned(),
            name => name.to_owned(),
        };
        Workload {
            container: container.clone(),
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            service_name: service.unwrap_or_else(fallback),
            service_name_guessed,
            service_version: around.version.clone(),
            environment: source
                .and_then(|source| source.environment.clone())
                .or_else(|| self.environment.clone())
                .or_else(|| around.environment.clone()),
            labels: source.map_or_else(Vec::new, |source| source.labels.clone()),
            attributes: around.attributes.clone(),
            tenant: None,
        }
    }
}

impl Identify for Identity {
    fn identify(&mut self, container: &ContainerRef, now: Duration) -> workload::Identity {
        if container.is_container() {
            return self.pods.identify(container, now);
        }
        workload::Identity::Known(Arc::new(self.workload(container)))
    }

    fn version(&self) -> u64 {
        self.pods.version()
    }

    fn handling(&mut self, container: &ContainerRef, now: Duration) -> Option<Arc<Handling>> {
        if container.is_container() {
            return self.pods.handling(container, now);
        }
        let format = self.sources.of(container)?.format;
        Some(Arc::new(Handling { format, ..Handling::default() }))
    }

    fn exit(&mut self, container: &ContainerRef, now: Duration) -> Option<Exit> {
        if container.is_container() { self.pods.exit(container, now) } else { None }
    }

    fn knows_exits(&self) -> bool {
        self.pods.knows_exits()
    }

    fn forget(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.pods.forget(is_there);
    }
}
