//! What a log's records carry, frozen when its first line is read.
//!
//! In: the identity as it is known now, and what the checkpoint says. Out: the identity under which the log goes out.
//! Invariants: a stream's labels and attributes never change under it, over restarts of the agent included, so that a
//! replay is byte for byte what it was; what is frozen is what the checkpoint keeps, bound included.
//!
//! Cluster and node are the agent's own settings and are not frozen: who changes them means it.

use std::sync::Arc;

use super::checkpoint::Mark;
use crate::data::pods::Traits;
use crate::data::workload::Workload;

/// Bytes of a name, version, label or attribute, at most; what is longer is cut. Kubernetes' own label values have
/// 63 at most.
pub const VALUE_BYTES: usize = 1 << 10;

/// Bytes of all labels and attributes of one log together, at most; the last ones by name are left out.
pub const PAIRS_BYTES: usize = 8 << 10;

/// The identity under which a log goes out: the one that it was begun with where `mark` knows it, else `known`.
pub fn freeze(known: Arc<Workload>, mark: Option<&Mark>) -> Arc<Workload> {
    // A mark without a name is one of a log of which nothing was sent.
    let mark = mark.filter(|mark| !mark.traits.service_name.is_empty());
    let mut traits = traits(&known);
    let mut guessed = known.service_name_guessed;
    if let Some(mark) = mark {
        guessed = mark.service_name_guessed;
        if mark.whole {
            traits = (*mark.traits).clone();
        } else {
            traits.service_name.clone_from(&mark.traits.service_name);
            traits.environment.clone_from(&mark.traits.environment);
        }
    }
    bound(&mut traits);
    let Traits { service_name, service_version, environment, labels, attributes, tenant } = traits;
    let frozen = Workload {
        container: known.container.clone(),
        cluster: known.cluster.clone(),
        node: known.node.clone(),
        service_name,
        service_name_guessed: guessed,
        service_version,
        environment,
        labels,
        attributes,
        tenant,
    };
    if frozen == *known { known } else { Arc::new(frozen) }
}

/// What the checkpoint keeps of an identity.
pub fn traits(workload: &Workload) -> Traits {
    Traits {
        service_name: workload.service_name.clone(),
        service_version: workload.service_version.clone(),
        environment: workload.environment.clone(),
        labels: workload.labels.clone(),
        attributes: workload.attributes.clone(),
        tenant: workload.tenant.clone(),
    }
}

/// Cuts what is too long, the same way each time. The tenant comes from the operator's list and is never cut: a part
/// of a tenant's name would be another tenant.
fn bound(traits: &mut Traits) {
    cut(&mut traits.service_name);
    traits.service_version.iter_mut().chain(&mut traits.environment).for_each(cut);
    let mut room = PAIRS_BYTES;
    for pairs in [&mut traits.labels, &mut traits.attributes] {
        pairs.iter_mut().for_each(|(_, value)| cut(value));
        pairs.retain(|(name, value)| {
            let left = room.checked_sub(name.len() + value.len());
            // Once one does not fit, none of the later ones is taken.
            room = left.unwrap_or(0);
            left.is_some()
        });
    }
}

fn cut(text: &mut String) {
    let mut end = text.len().min(VALUE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
    use std::time::Duration;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn workload() -> Workload {
        let container = ContainerRef::from_path("shop_till-0_u1", "api", 2).expect("a path");
        let mut paths =
            PathIdentity { cluster: "c".into(), node: "n".into(), environment: Some("prod".into()) };
        match paths.identify(&container, Duration::ZERO) {
            Identity::Known(workload) => (*workload).clone(),
            Identity::Pending => unreachable!("paths say it all"),
        }
    }

    fn mark(whole: bool) -> Mark {
        let traits = Traits {
            service_name: "checkout".into(),
            service_version: Some("1.2".into()),
            environment: None,
            labels: vec![pair("team", "money")],
            attributes: vec![pair("k8s.deployment.name", "checkout")],
            tenant: Some("shop".into()),
        };
        Mark { traits: Arc::new(traits), service_name_guessed: false, whole, ..Mark::default() }
    }

    #[test]
    fn the_mark_stands_before_what_is_known_now() {
        let frozen = freeze(Arc::new(workload()), Some(&mark(true)));
        assert_eq!(traits(&frozen), *mark(true).traits);
        assert_eq!((frozen.service_name_guessed, frozen.cluster.as_str()), (false, "c"));
        assert_eq!(frozen.container.restart, 2);
    }

    #[test]
    fn a_mark_of_an_earlier_version_knows_name_and_environment_only() {
        let known = Workload { labels: vec![pair("team", "new")], ..workload() };
        let frozen = freeze(Arc::new(known), Some(&mark(false)));
        assert_eq!((frozen.service_name.as_str(), frozen.environment.as_deref()), ("checkout", None));
        assert_eq!((frozen.labels.as_slice(), frozen.tenant.as_deref()), (&[pair("team", "new")][..], None));
    }

    #[test]
    fn without_a_mark_all_is_as_known_and_shares_its_memory() {
        let known = Arc::new(workload());
        assert!(Arc::ptr_eq(&known, &freeze(Arc::clone(&known), None)));
        assert!(Arc::ptr_eq(&known, &freeze(Arc::clone(&known), Some(&Mark::default()))));
    }

    #[test]
    fn what_is_too_long_is_cut_alike_each_time() {
        let long = "é".repeat(VALUE_BYTES);
        let many = |kind: &str| (0..9).map(|n| pair(&format!("{kind}{n}"), &long)).collect::<Vec<_>>();
        let known = Workload { labels: many("a"), attributes: many("b"), ..workload() };
        let frozen = freeze(Arc::new(known), None);
        // Seven pairs of 2 + 1024 bytes fit into 8192.
        assert_eq!((frozen.labels.len(), frozen.attributes.len()), (7, 0));
        assert_eq!(frozen.labels[6].1.len(), 1024);
        assert_eq!(freeze(Arc::clone(&frozen), None), frozen);
    }
}
