//! The admission policies: our pod passes, and every single step away from it does not.
//!
//! The expressions run in Google's CEL; `object` is the pod as the API server hands it over, defaults filled in.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::judge::{deploy, objects, of_kind, refused_by_policy, render};

pub const POLICIES: [&str; 2] = ["policies/validatingadmissionpolicy.yaml", "policies/kyverno.yaml"];

/// A pod of the template of a DaemonSet, as the API server makes it: with its defaults, and with the token's volume.
pub fn pod(objects: &[Value]) -> Value {
    let template = &of_kind(objects, "DaemonSet")["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"],
    });
    pod["metadata"]["name"] = "nodewick-x7k2p".into();
    pod["metadata"]["namespace"] = "nodewick".into();
    let spec = &mut pod["spec"];
    // The API server leaves out what is false.
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        spec.as_object_mut().expect("a spec").remove(field);
    }
    spec["restartPolicy"] = "Always".into();
    let token = json!({"name": "kube-api-access-1", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt"}},
    ]}});
    push(&mut spec["volumes"], token);
    let mount = json!({"name": "kube-api-access-1", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    push(&mut spec["containers"][0]["volumeMounts"], mount);
    pod
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("a list").push(item);
}

fn ours() -> Value {
    pod(&objects(&deploy("daemonset.yaml")))
}

/// What stands at a path such as `/spec/containers/0/ports`, made where it is missing.
fn at<'a>(pod: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').skip(1).fold(pod, |place, step| match step.parse::<usize>() {
        Ok(index) => &mut place[index],
        Err(_) => &mut place[step],
    })
}

#[test]
fn the_pods_of_manifest_and_chart_are_admitted() {
    let chart = |values: Value| pod(&render(values).objects);
    let pods = [
        ours(),
        chart(json!({})),
        chart(json!({
            "hostPaths": {"docker": "/var/lib/docker/containers"},
            "secrets": [{"name": "loki", "secretName": "x"}],
            "podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}},
        })),
    ];
    for policy in POLICIES {
        for refused in refused_by_policy(policy, &pods) {
            assert_eq!(refused, [""; 0], "{policy}");
        }
    }
}

/// A step away from our pod: what it is, where in the pod, what is there instead (`null`: nothing), and a word of the
/// message that refuses it. `@context` and `@mounts` are the container's; the mounts are config, logs, state, in order.
fn steps() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let other = |change: Value| {
        let mut container = json!({
            "name": "other", "image": "busybox",
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        });
        for (key, value) in change.as_object().expect("a map") {
            container[key] = value.clone();
        }
        json!([container])
    };
    vec![
        ("host network", "/spec/hostNetwork", json!(true), "shares no namespace"),
        ("host pids", "/spec/hostPID", json!(true), "shares no namespace"),
        ("host ipc", "/spec/hostIPC", json!(true), "shares no namespace"),
        ("a port of the node", "/spec/containers/0/ports/0/hostPort", json!(9464), "no port of the node"),
        ("the root of the node", "/spec/volumes/1/hostPath/path", json!("/"), "volumes are"),
        ("a longer path", "/spec/volumes/1/hostPath/path", json!("/var/log/pods/../../.."), "volumes are"),
        (
            "the kubelet's directory",
            "/spec/volumes/1/hostPath/path",
            json!("/var/lib/kubelet"),
            "volumes are",
        ),
        (
            "the runtime's socket",
            "/spec/volumes/2/hostPath/path",
            json!("/run/containerd/containerd.sock"),
            "volumes are",
        ),
        (
            "a claim",
            "/spec/volumes/0",
            json!({"name": "config", "persistentVolumeClaim": {"claimName": "x"}}),
            "volumes are",
        ),
        ("logs writable", "@mounts/1/readOnly", Value::Null, "writable"),
        ("logs writable, said", "@mounts/1/readOnly", json!(false), "writable"),
        ("the node's /proc, writable", "/spec/volumes/1/hostPath/path", json!("/proc"), "/host/proc"),
        ("logs elsewhere", "@mounts/1/mountPath", json!("/etc/ssl/certs"), "/host/proc"),
        ("state elsewhere", "@mounts/2/mountPath", json!("/"), "/host/proc"),
        ("a part of state", "@mounts/2/subPath", json!("x"), "subPath"),
        ("a part of state, by variable", "@mounts/2/subPathExpr", json!("$(X)"), "subPath"),
        ("mounts that travel", "@mounts/1/mountPropagation", json!("Bidirectional"), "propagation"),
        (
            "a block device",
            "/spec/containers/0/volumeDevices",
            json!([{"name": "x", "devicePath": "/dev/x"}]),
            "block devices",
        ),
        ("privileged", "@context/privileged", json!(true), "privileged"),
        ("escalation", "@context/allowPrivilegeEscalation", json!(true), "privileges"),
        ("escalation by default", "@context/allowPrivilegeEscalation", Value::Null, "privileges"),
        ("no context at all", "@context", Value::Null, "privileges"),
        ("capabilities kept", "@context/capabilities", Value::Null, "capabilities"),
        ("some capabilities dropped", "@context/capabilities/drop", json!(["NET_RAW"]), "capabilities"),
        ("a capability added", "@context/capabilities/add", json!(["DAC_READ_SEARCH"]), "capabilities"),
        ("a writable root", "@context/readOnlyRootFilesystem", json!(false), "read-only root"),
        ("a writable root by default", "@context/readOnlyRootFilesystem", Value::Null, "read-only root"),
        ("no seccomp", "/spec/securityContext/seccompProfile", Value::Null, "seccomp"),
        ("no security context", "/spec/securityContext", Value::Null, "seccomp"),
        (
            "seccomp off for the pod",
            "/spec/securityContext/seccompProfile/type",
            json!("Unconfined"),
            "seccomp",
        ),
        (
            "seccomp off for the container",
            "@context/seccompProfile",
            json!({"type": "Unconfined"}),
            "seccomp",
        ),
        (
            "AppArmor off for the pod",
            "/spec/securityContext/appArmorProfile",
            json!({"type": "Unconfined"}),
            "AppArmor",
        ),
        (
            "AppArmor off for the container",
            "@context/appArmorProfile",
            json!({"type": "Unconfined"}),
            "AppArmor",
        ),
        (
            "AppArmor off as it was written before",
            "/metadata/annotations",
            json!({"container.apparmor.security.beta.kubernetes.io/agent": "unconfined"}),
            "AppArmor",
        ),
        ("all of /proc", "@context/procMount", json!("Unmasked"), "/proc is masked"),
        (
            "another SELinux type",
            "/spec/securityContext/seLinuxOptions",
            json!({"type": "init_t"}),
            "SELinux",
        ),
        ("an SELinux user", "/spec/securityContext/seLinuxOptions", json!({"user": "system_u"}), "SELinux"),
        ("an SELinux role", "@context/seLinuxOptions", json!({"role": "system_r"}), "SELinux"),
        (
            "a sysctl",
            "/spec/securityContext/sysctls",
            json!([{"name": "kernel.msgmax", "value": "1"}]),
            "sysctls",
        ),
        (
            "Windows' own root",
            "/spec/securityContext/windowsOptions",
            json!({"hostProcess": true}),
            "sysctls",
        ),
        (
            "a probe of something else",
            "/spec/containers/0/livenessProbe/httpGet/host",
            json!("169.254.169.254"),
            "host",
        ),
        (
            "a hook to something else",
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"httpGet": {"host": "10.0.0.1", "port": 1}}}),
            "host",
        ),
        (
            "an init container as root",
            "/spec/initContainers",
            other(json!({"securityContext": {"privileged": true}})),
            "privileged",
        ),
        (
            "an ephemeral one as root",
            "/spec/ephemeralContainers",
            other(json!({"securityContext": {"privileged": true}})),
            "privileged",
        ),
        (
            "an init container that writes logs",
            "/spec/initContainers",
            other(json!({"volumeMounts": [{"name": "logs", "mountPath": "/var/log/pods"}]})),
            "writable",
        ),
        (
            "an ephemeral one without context",
            "/spec/ephemeralContainers",
            other(json!({"securityContext": null})),
            "privileges",
        ),
    ]
}

#[test]
fn every_step_away_is_refused_for_its_own_reason() {
    let steps = steps();
    let ours = ours();
    let pods: Vec<Value> = steps
        .iter()
        .map(|(_, path, value, _)| {
            let mut pod = ours.clone();
            let path = path.replace("@context", "/spec/containers/0/securityContext");
            let path = path.replace("@mounts", "/spec/containers/0/volumeMounts");
            if value.is_null() {
                let (parent, key) = path.rsplit_once('/').expect("a path");
                at(&mut pod, parent).as_object_mut().expect("a map").remove(key).expect("it was there");
            } else {
                *at(&mut pod, &path) = strip_nulls(value.clone());
            }
            pod
        })
        .collect();
    for policy in POLICIES {
        let mut used = BTreeSet::new();
        for ((what, _, _, word), refused) in steps.iter().zip(refused_by_policy(policy, &pods)) {
            assert!(refused.iter().any(|message| message.contains(word)), "{policy}: {what}: {refused:?}");
            used.extend(refused);
        }
        assert_eq!(used.len(), 14, "{policy}: every rule refuses something: {used:#?}");
    }
}

/// A map as the API server has it: what is null is not there.
fn strip_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, strip_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(strip_nulls).collect(),
        other => other,
    }
}

#[test]
fn init_and_ephemeral_containers_as_careful_as_ours_are_admitted() {
    let mut pod = ours();
    let careful = json!([{
        "name": "debugger", "image": "busybox",
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    }]);
    pod["spec"]["initContainers"] = careful.clone();
    pod["spec"]["ephemeralContainers"] = careful;
    for policy in POLICIES {
        assert_eq!(refused_by_policy(policy, std::slice::from_ref(&pod)), [[""; 0]]);
    }
}

#[test]
fn kyverno_has_the_same_rules_for_the_same_pods() {
    let kubernetes = objects(&deploy(POLICIES[0]));
    let (policy, binding) = (
        of_kind(&kubernetes, "ValidatingAdmissionPolicy"),
        of_kind(&kubernetes, "ValidatingAdmissionPolicyBinding"),
    );
    let kyverno = objects(&deploy(POLICIES[1])).remove(0);
    let rule = &kyverno["spec"]["rules"][0];
    assert_eq!(rule["validate"]["cel"]["variables"], policy["spec"]["variables"]);
    assert_eq!(rule["validate"]["cel"]["expressions"], policy["spec"]["validations"]);
    assert_eq!(rule["validate"]["failureAction"], "Enforce");
    assert_eq!(
        rule["match"]["any"],
        json!([{"resources": {
            "kinds": ["Pod", "Pod/ephemeralcontainers"], "namespaces": ["nodewick"], "operations": ["CREATE", "UPDATE"],
        }}])
    );
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    assert_eq!(
        binding["spec"]["matchResources"]["namespaceSelector"],
        json!({"matchLabels": {"kubernetes.io/metadata.name": "nodewick"}})
    );
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    assert_eq!(
        policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"],
        json!(["pods", "pods/ephemeralcontainers"])
    );
}
