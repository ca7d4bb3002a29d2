//! Which pod is meant: by name, `namespace/name`, uid, or the beginning of a name.

use std::collections::BTreeSet;

use crate::config::diagnostics::nearest;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Pod: name, `namespace/name`, uid, or the beginning of a name.
    pub pod: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Container.
    pub container: Option<String>,
}

/// A pod of this node: namespace, name, uid.
pub(super) type Known = (String, String, String);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These, all of one namespace and name.
    Pods(Vec<Known>),
    /// None, and these may have been meant.
    None(Vec<String>),
}

/// Names that are proposed.
const PROPOSED: usize = 5;

impl Question {
    /// Namespace and name as asked for.
    pub(super) fn parts(&self) -> (Option<&str>, &str) {
        match self.pod.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (self.namespace.as_deref(), &self.pod),
        }
    }

    /// The pods that are meant among those that are known.
    pub(super) fn find(&self, known: &BTreeSet<Known>) -> Found {
        let (namespace, name) = self.parts();
        let here: Vec<&Known> =
            known.iter().filter(|(of, ..)| namespace.is_none_or(|namespace| namespace == of)).collect();
        let exact: Vec<&Known> =
            here.iter().copied().filter(|(_, pod, uid)| pod == name || uid == name).collect();
        let mut chosen = exact;
        if chosen.is_empty() && !name.is_empty() {
            chosen = here
                .iter()
                .copied()
                .filter(|(_, pod, uid)| pod.starts_with(name) || uid.starts_with(name))
                .collect();
        }
        let names: BTreeSet<String> = chosen.iter().map(|(of, pod, _)| format!("{of}/{pod}")).collect();
        match names.len() {
            1 => Found::Pods(chosen.into_iter().cloned().collect()),
            0 => Found::None(near(name, known)),
            _ => Found::None(names.into_iter().take(PROPOSED).collect()),
        }
    }
}

/// Pods whose name is near: those that contain it, or whose service's name is a slip of the hand away.
fn near(name: &str, known: &BTreeSet<Known>) -> Vec<String> {
    let shown = |(namespace, pod, _): &Known| format!("{namespace}/{pod}");
    let mut found: BTreeSet<String> =
        known.iter().filter(|(_, pod, _)| name.len() >= 3 && pod.contains(name)).map(shown).collect();
    if found.is_empty() {
        let guess = crate::data::workload::guess_service;
        let pods = known.iter().map(|(_, pod, _)| pod.as_str());
        let services = known.iter().map(|(_, pod, _)| guess(pod));
        if let Some(near) = nearest(guess(name), services).or_else(|| nearest(name, pods)) {
            found.extend(known.iter().filter(|(_, pod, _)| pod == near || guess(pod) == near).map(shown));
        }
    }
    found.into_iter().take(PROPOSED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<Known> {
        [
            ("shop", "checkout-d994d45d6-5h9zr", "u1"),
            ("shop", "checkout-d994d45d6-7bxk2", "u2"),
            ("shop", "web-0", "u3"),
            ("shop", "web-0", "u4"),
            ("bank", "web-0", "u5"),
            ("bank", "ledger-0", "u6"),
        ]
        .iter()
        .map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned()))
        .collect()
    }

    fn found(pod: &str, namespace: Option<&str>) -> Result<Vec<String>, Vec<String>> {
        let question = Question { pod: pod.into(), namespace: namespace.map(str::to_owned), container: None };
        match question.find(&known()) {
            Found::Pods(pods) => Ok(pods.into_iter().map(|(_, _, uid)| uid).collect()),
            Found::None(near) => Err(near),
        }
    }

    #[test]
    fn a_pod_is_found_by_name_uid_and_beginning() {
        assert_eq!(found("ledger-0", None), Ok(vec!["u6".into()]));
        assert_eq!(found("u6", None), Ok(vec!["u6".into()]));
        assert_eq!(found("led", None), Ok(vec!["u6".into()]));
        assert_eq!(found("bank/web-0", None), Ok(vec!["u5".into()]));
        assert_eq!(found("web-0", Some("bank")), Ok(vec!["u5".into()]));
        assert_eq!(found("shop/web-0", None), Ok(vec!["u3".into(), "u4".into()]), "made anew under its name");
    }

    #[test]
    fn what_is_not_clear_is_asked_back() {
        let both = vec!["bank/web-0".to_owned(), "shop/web-0".to_owned()];
        assert_eq!(found("web-0", None), Err(both));
        let checkouts =
            vec!["shop/checkout-d994d45d6-5h9zr".to_owned(), "shop/checkout-d994d45d6-7bxk2".to_owned()];
        assert_eq!(found("checkout", None), Err(checkouts.clone()));
        assert_eq!(found("chekcout-d994d45d6-aaaaa", None), Err(checkouts));
        assert_eq!(found("ledgre-0", None), Err(vec!["bank/ledger-0".to_owned()]));
        assert_eq!(found("ledger-0", Some("shop")), Err(vec!["bank/ledger-0".to_owned()]));
        assert_eq!(found("nothing-like-it", None), Err(Vec::new()));
        assert_eq!(found("", None), Err(Vec::new()));
    }
}
