//! Checks of what the service account may do: what it needs, and nothing that hurts.
//!
//! The API is asked by SelfSubjectAccessReview, which every account may do, and by the real request where there is one.

use futures_util::future::join_all;
use serde_json::json;

use super::cluster::Api;
use super::{Check, Finding, Site, Stage};

pub(super) const RBAC: Check = Check {
    name: "kube-rbac",
    looks_at: "The service account may `list` and `watch` pods, and namespaces where their annotations count.",
    means: "Apply the ClusterRole of deploy/daemonset.yaml. RBAC knows no node: whoever may list pods may list those of the \
            whole cluster; the agent asks for its own node's only, by field selector.",
    pre: false,
    stage: Stage::Network,
    run: rbac,
};

pub(super) const RIGHTS: Check = Check {
    name: "kube-rights",
    looks_at: "The service account may not do what the agent never needs: secrets, `nodes/proxy`, `pods/exec`, creating pods.",
    means: "Take these rights away: a stolen token would open the cluster. `nodes/proxy` with `get` means running commands in \
            any container of the node.",
    pre: false,
    stage: Stage::Network,
    run: rights,
};

/// One question: verb, API group, resource (with its subresource).
type Asked = (&'static str, &'static str, &'static str);

const NEEDED: &[Asked] = &[("list", "", "pods"), ("watch", "", "pods")];
const NAMESPACES: &[Asked] = &[("list", "", "namespaces"), ("watch", "", "namespaces")];
const TOO_WIDE: &[Asked] = &[
    ("get", "", "nodes/proxy"),
    ("get", "", "secrets"),
    ("list", "", "secrets"),
    ("create", "", "pods"),
    ("create", "", "pods/exec"),
];
const INSTALLED: &[Asked] = &[
    ("create", "", "namespaces"),
    ("create", "", "serviceaccounts"),
    ("create", "", "configmaps"),
    ("create", "", "services"),
    ("create", "apps", "daemonsets"),
    ("create", "rbac.authorization.k8s.io", "clusterroles"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("create", "networking.k8s.io", "networkpolicies"),
];

/// Which of the questions the API answers with yes; an error when it cannot be asked.
fn allowed(site: &Site, api: &Api, asked: &[Asked]) -> Result<Vec<bool>, String> {
    let reviews = asked.iter().map(|(verb, group, resource)| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes":
                {"verb": verb, "group": group, "resource": resource, "subresource": subresource}},
        });
        api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    });
    let answers = site.block_on(join_all(reviews)).ok_or("the system refuses a thread")?;
    answers
        .into_iter()
        .map(|answer| {
            let answer = answer?;
            match answer.status {
                200 | 201 => Ok(answer.json()["status"]["allowed"].as_bool().unwrap_or(false)),
                status => Err(format!("{status}: {}", answer.message())),
            }
        })
        .collect()
}

/// The questions that `is` holds for, as `list pods`.
fn which(asked: &[Asked], answers: &[bool], is: bool) -> Vec<String> {
    let found = asked.iter().zip(answers).filter(|(_, answer)| **answer == is);
    found.map(|((verb, _, resource), _)| format!("{verb} {resource}")).collect()
}

/// True when annotations of namespaces count.
fn wants_namespaces(site: &Site) -> bool {
    site.config().kube.namespace_annotations
}

fn rule(namespaces: bool) -> String {
    let more = if namespaces { ", namespaces" } else { "" };
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: nodewick}}\nrules:\n- {{apiGroups: [\"\"], \
         resources: [pods{more}], verbs: [list, watch]}}"
    )
}

/// The account's name in a refusal: `… User "system:serviceaccount:a:b" cannot list …`.
fn account(message: &str) -> Option<&str> {
    message.split_once("User \"")?.1.split_once('"').map(|(name, _)| name)
}

fn rbac(site: &Site) -> Vec<Finding> {
    let Some(api) = site.api() else { return Vec::new() };
    let namespaces = wants_namespaces(site);
    let mut asked = NEEDED.to_vec();
    if namespaces {
        asked.extend(NAMESPACES);
    }
    let mut missing = match allowed(site, api, &asked) {
        Ok(answers) => which(&asked, &answers, false),
        // What cannot be asked can be tried.
        Err(_) => Vec::new(),
    };
    let mut who = None;
    let mut tried = vec![("list pods", "/api/v1/pods?limit=1".to_owned())];
    if namespaces {
        tried.push(("list namespaces", "/api/v1/namespaces?limit=1".to_owned()));
    }
    for (what, path) in tried {
        match api.get(site, &path) {
            Ok(answered) if answered.status == 403 => {
                who = who.or_else(|| account(&answered.message()).map(str::to_owned));
                if !missing.iter().any(|known| known == what) {
                    missing.push(what.to_owned());
                }
            }
            Ok(answered) if answered.status != 200 => {
                let text = format!("{what} is answered with {}: {}", answered.status, answered.message());
                return vec![Finding::failure(text, "see the API server")];
            }
            Ok(_) => {}
            Err(error) => return vec![Finding::failure(format!("{what}: {error}"), "see the API server")],
        }
    }
    let who = who.unwrap_or_else(|| "the service account".to_owned());
    if missing.is_empty() {
        let what = if namespaces { "pods and namespaces" } else { "pods" };
        return vec![Finding::ok(format!("the service account may list and watch {what}"))];
    }
    let text = format!("{who} may not {}", missing.join(", "));
    if missing.iter().all(|what| what.ends_with("namespaces")) {
        let fix = format!("grant it, or do without: [kube] namespace_annotations = false\n{}", rule(true));
        return vec![Finding::failure(text, &fix)];
    }
    vec![Finding::failure(
        text,
        &format!("logs flow with what their paths say; apply and bind to the account:\n{}", rule(namespaces)),
    )]
}

fn rights(site: &Site) -> Vec<Finding> {
    let Some(api) = site.api() else { return Vec::new() };
    let Ok(answers) = allowed(site, api, TOO_WIDE) else { return Vec::new() };
    let granted = which(TOO_WIDE, &answers, true);
    if granted.is_empty() {
        return vec![Finding::ok("no right that the agent does not need, as far as was asked")];
    }
    let fix = format!(
        "find the binding that grants it: kubectl get clusterrolebindings -o wide | grep nodewick\nthe agent needs:\n{}",
        rule(true)
    );
    vec![Finding::warning(format!("the service account may {}", granted.join(", ")), &fix)]
}

/// Whether this user may apply the manifests.
pub(super) fn may_install(site: &Site, api: &Api) -> Finding {
    match allowed(site, api, INSTALLED) {
        Ok(answers) => {
            let missing = which(INSTALLED, &answers, false);
            if missing.is_empty() {
                return Finding::ok("you may create what the manifests have");
            }
            Finding::failure(
                format!("you may not {}", missing.join(", ")),
                "have a cluster administrator apply deploy/daemonset.yaml",
            )
        }
        Err(error) => Finding::warning(
            format!("your rights cannot be asked for: {error}"),
            "try `kubectl auth can-i create daemonsets -n nodewick`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_account() {
        let message = "pods is forbidden: User \"system:serviceaccount:nodewick:agent\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
        assert_eq!(account(message), Some("system:serviceaccount:nodewick:agent"));
        assert_eq!(account("forbidden"), None);
    }
}
