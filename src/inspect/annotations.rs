//! Pod annotations of somebody who asks, through the agent's own resolver.
//!
//! In: a container and the annotations that its pod would have. Out: how its logs are handled, what its records carry,
//! and what is wrong with the annotations. Invariant: what they mean is decided by [`Resolver`] alone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::config::Config;
use crate::data::pods::Traits;
use crate::data::workload::{ContainerRef, Handling, Workload};
use crate::kube::resolve::{Problem, Resolver, Settings};

/// The attribute that names a service.
const SERVICE_NAME: &str = "resource.opentelemetry.io/service.name";

/// What the annotations come to.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) handling: Handling,
    pub(super) problems: Vec<Problem>,
    traits: Option<Arc<Traits>>,
    names_service: bool,
}

/// Reads the annotations of a container's pod; without any nothing is asked.
pub(super) fn read(container: &ContainerRef, annotations: &[(String, String)], config: &Config) -> Said {
    if annotations.is_empty() {
        return Said::default();
    }
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(container.pod.clone()),
            namespace: Some(container.namespace.clone()),
            uid: Some(container.uid.clone()),
            annotations: Some(annotations.iter().cloned().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container { name: container.container.clone(), ..Container::default() }],
            ..PodSpec::default()
        }),
        status: None,
    };
    let settings = Settings { labels: Vec::new(), tenants: config.kube.tenants.clone() };
    let resolved = Resolver::new(settings).pod(&pod, None);
    let known = resolved.pod.containers.into_iter().next();
    Said {
        handling: known.as_ref().map(|known| (*known.handling).clone()).unwrap_or_default(),
        problems: resolved.problems,
        traits: known.map(|known| known.traits),
        names_service: annotations.iter().any(|(name, _)| name == SERVICE_NAME),
    }
}

impl Said {
    /// Puts what the annotations say into what the records carry.
    pub(super) fn apply(&self, workload: &mut Workload) {
        let Some(traits) = &self.traits else { return };
        if self.names_service {
            workload.service_name.clone_from(&traits.service_name);
            workload.service_name_guessed = false;
        }
        if traits.environment.is_some() {
            workload.environment.clone_from(&traits.environment);
        }
        workload.service_version.clone_from(&traits.service_version);
        workload.attributes.clone_from(&traits.attributes);
        workload.tenant.clone_from(&traits.tenant);
    }
}
