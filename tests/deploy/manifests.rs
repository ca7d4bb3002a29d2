//! `deploy/daemonset.yaml` and what stands beside it, as Kubernetes and the agent see them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use nodewick::config::{Sources, load};
use nodewick::supervise::Deadlines;
use serde_json::{Value, json};

use super::agent_process::Agent;
use super::judge::{self, agent_toml, deploy, objects, of_kind, refused_by_kubernetes, root};

/// Versions that the manifests must suit: the oldest that anybody runs, and today's.
const VERSIONS: [&str; 4] = ["1.28", "1.31", "1.34", "1.37"];

fn manifest() -> Vec<Value> {
    objects(&deploy("daemonset.yaml"))
}

fn pod_spec(objects: &[Value]) -> Value {
    of_kind(objects, "DaemonSet")["spec"]["template"]["spec"].clone()
}

fn container(objects: &[Value]) -> Value {
    let containers = pod_spec(objects)["containers"].as_array().cloned().unwrap_or_default();
    assert_eq!(containers.len(), 1, "one container");
    containers[0].clone()
}

#[test]
fn every_object_is_valid_for_old_and_new_clusters() {
    assert_eq!(refused_by_kubernetes(&manifest(), &VERSIONS), [""; 0]);
    let mut extra = objects(&deploy("gke/resourcequota.yaml"));
    for patch in ["overlays/example", "components/host-figures"] {
        let patches = objects(&deploy(&format!("kustomize/{patch}/daemonset.yaml")));
        extra.extend(patches.into_iter().map(|mut patch| {
            // A patch lacks what the base has.
            patch["spec"]["selector"] = json!({"matchLabels": {}});
            patch
        }));
    }
    assert_eq!(refused_by_kubernetes(&extra, &VERSIONS), [""; 0]);
    // ValidatingAdmissionPolicy is v1 since 1.30.
    let policy = objects(&deploy("policies/validatingadmissionpolicy.yaml"));
    assert_eq!(refused_by_kubernetes(&policy, &VERSIONS[1..]), [""; 0]);
}

#[test]
fn a_misspelt_field_would_be_found() {
    let mut broken = manifest();
    let set = broken.iter_mut().find(|object| object["kind"] == "DaemonSet").expect("there");
    set["spec"]["template"]["spec"]["tolerationz"] = json!([]);
    let found = refused_by_kubernetes(&broken, &["1.31"]);
    assert!(found.len() == 1 && found[0].contains("tolerationz"), "{found:?}");
}

#[test]
fn one_file_brings_everything_that_runs() {
    let objects = manifest();
    let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "Service",
            "NetworkPolicy",
            "DaemonSet"
        ]
    );
    for object in &objects {
        let is_cluster_wide = ["Namespace", "ClusterRole", "ClusterRoleBinding"].map(Value::from);
        let namespace =
            if is_cluster_wide.contains(&object["kind"]) { Value::Null } else { "nodewick".into() };
        assert_eq!(object["metadata"]["namespace"], namespace, "{}", object["kind"]);
    }
}

#[test]
fn rights_are_list_and_watch_on_pods_and_namespaces() {
    let objects = manifest();
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
    ]);
    assert_eq!(of_kind(&objects, "ClusterRole")["rules"], rules);
    let binding = of_kind(&objects, "ClusterRoleBinding");
    let subject = json!([{"kind": "ServiceAccount", "name": "nodewick", "namespace": "nodewick"}]);
    assert_eq!(binding["subjects"], subject);
    assert_eq!(binding["roleRef"]["name"], "nodewick");
    assert_eq!(of_kind(&objects, "ServiceAccount")["automountServiceAccountToken"], false);
}

#[test]
fn the_pod_has_uid_0_and_nothing_else_of_root() {
    let objects = manifest();
    let pod = pod_spec(&objects);
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert_eq!(pod[field], false, "{field}");
    }
    assert_eq!(
        pod["securityContext"],
        json!({"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}})
    );
    let container = container(&objects);
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        })
    );
    // A port of the node would keep the next agent from starting beside the old one.
    assert_eq!(container["ports"], json!([{"name": "metrics", "containerPort": 9464, "protocol": "TCP"}]));
    assert_eq!(
        container["resources"],
        json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}})
    );
}

#[test]
fn the_state_directory_is_all_that_it_may_write() {
    let objects = manifest();
    let config = config(&agent_toml(&objects)).config;
    let mounts = container(&objects)["volumeMounts"].as_array().cloned().expect("mounts");
    let writable: Vec<&Value> = mounts.iter().filter(|mount| mount["readOnly"] != true).collect();
    assert_eq!(writable.len(), 1);
    let state = config.agent.state_dir.to_str().expect("UTF-8");
    assert_eq!(writable[0]["mountPath"], state);
    let logs = config.logs.root.to_str().expect("UTF-8");
    assert!(mounts.iter().any(|mount| mount["mountPath"] == logs && mount["readOnly"] == true));
    // The node's directories are mounted where the agent looks for them.
    let pod = pod_spec(&objects);
    for volume in pod["volumes"].as_array().expect("volumes") {
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).expect("mounted");
            assert_eq!(mount["mountPath"], path);
        }
    }
}

fn config(text: &str) -> nodewick::config::Loaded {
    let file = Some(("agent.toml".to_owned(), text.to_owned()));
    let env = vec![("NODE_NAME".to_owned(), "node-1".to_owned())];
    load::load(&Sources { file, env, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn its_config_is_one_and_fits_the_memory_limit() {
    let loaded = config(&agent_toml(&manifest()));
    assert_eq!(loaded.config.sink.loki["main"].url, "http://loki-gateway.loki.svc");
    let warnings: Vec<&str> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(warnings, ["agent.cluster"], "the one thing that only the operator knows");
    let mut config = loaded.config;
    // In a cluster there is no page for people unless it is asked for; pods are watched and scraped, and the default log
    // memory makes room for that.
    config.ui.listen = "off".to_owned();
    assert!(config.memory_bound().total() <= 120 << 20, "{}", config.memory_bound());
    config.kube.mode = nodewick::kube::Mode::Api;
    config.fit(Some(128 << 20));
    let bound = config.memory_bound();
    assert!(bound.fits(Some(128 << 20)).is_ok(), "{bound}");
    assert!(config.agent.memory.0 >= 16 << 20, "{}", config.agent.memory);
}

#[test]
fn the_overlay_example_has_a_config_that_loads() {
    let directory = tempfile::tempdir().expect("a directory");
    let password = directory.path().join("password");
    fs::write(&password, "canary").expect("written");
    let text = fs::read_to_string(deploy("kustomize/overlays/example/agent.toml")).expect("it is there");
    let text = text.replace("/var/run/secrets/nodewick/loki/password", password.to_str().expect("UTF-8"));
    let loaded = config(&text);
    assert_eq!(loaded.config.agent.cluster, "prod-eu-1");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_grace_period_is_longer_than_the_agents_end() {
    let grace = pod_spec(&manifest())["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let deadlines = Deadlines::default();
    assert_eq!(grace, 30);
    assert!(Duration::from_secs(grace) > deadlines.exit && deadlines.exit > deadlines.flush);
}

#[test]
fn an_update_leaves_no_node_without_an_agent() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    assert_eq!(of_kind(&manifest(), "DaemonSet")["spec"]["updateStrategy"], strategy);
}

#[test]
fn every_node_has_one() {
    let pod = pod_spec(&manifest());
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
}

/// Text of all files below `src`.
fn sources() -> String {
    let (mut text, mut open) = (String::new(), vec![root().join("src")]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    text
}

#[test]
fn the_variables_are_the_ones_that_the_agent_reads() {
    let container = container(&manifest());
    let field = |variable: &Value| {
        let name = variable["name"].as_str().expect("a name").to_owned();
        (name, variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().expect("a field").to_owned())
    };
    let given: Vec<(String, String)> = container["env"].as_array().expect("env").iter().map(field).collect();
    let given: Vec<(&str, &str)> =
        given.iter().map(|(name, field)| (name.as_str(), field.as_str())).collect();
    assert_eq!(
        given,
        [
            ("NODE_IP", "status.hostIP"),
            ("NODE_NAME", "spec.nodeName"),
            ("POD_IP", "status.podIP"),
            ("POD_NAME", "metadata.name"),
            ("POD_NAMESPACE", "metadata.namespace"),
        ]
    );
    let sources = sources();
    for name in ["NODE_IP", "NODE_NAME", "POD_NAME", "POD_NAMESPACE"] {
        assert!(sources.contains(&format!("\"{name}\"")), "nothing reads {name}");
    }
}

#[test]
fn its_arguments_start_the_agent_and_its_probes_are_answered() {
    let objects = manifest();
    let container = container(&objects);
    assert_eq!(container["args"], json!(["run", "--config", "/etc/nodewick/agent.toml"]));
    let help = Command::new(env!("CARGO_BIN_EXE_nodewick")).args(["run", "--help"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&help.stdout).contains("--config"), "{help:?}");
    let port = nodewick::admin::Config::default().address().expect("valid").expect("on").port();
    assert_eq!(container["ports"][0]["containerPort"], port);
    assert_eq!(of_kind(&objects, "Service")["spec"]["ports"][0]["port"], port);

    let directory = tempfile::tempdir().expect("a directory");
    let logs = directory.path().join("pods");
    fs::create_dir(&logs).expect("made");
    // The sink as it is shipped: its name resolves nowhere, and the agent is alive and ready all the same.
    let mut agent = Agent::start(directory.path(), &logs, &agent_toml(&objects));
    agent.wait_ready();
    for probe in ["livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        assert_eq!(agent.get(path).expect("answered").0, 200, "{probe} {path}");
        assert_eq!(container[probe]["httpGet"]["port"], "metrics");
    }
    assert_eq!(agent.get("/metrics").expect("answered").0, 200);
    assert!(agent.terminate().success());
}

#[test]
fn its_image_is_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let objects = manifest();
    assert_eq!(container(&objects)["image"], format!("ghcr.io/nodewick/nodewick:{version}"));
    let versions: BTreeSet<&str> = objects
        .iter()
        .filter_map(|object| object["metadata"]["labels"]["app.kubernetes.io/version"].as_str())
        .collect();
    assert_eq!(versions, BTreeSet::from([version]));
    let chart = objects_of("helm/nodewick/Chart.yaml");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
}

fn objects_of(path: &str) -> Value {
    objects(&deploy(path)).remove(0)
}

#[test]
fn the_service_and_the_network_policy_mean_the_agents_pods() {
    let objects = manifest();
    let labels = &of_kind(&objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"];
    let selectors = [
        &of_kind(&objects, "DaemonSet")["spec"]["selector"]["matchLabels"],
        &of_kind(&objects, "Service")["spec"]["selector"],
        &of_kind(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ];
    for selector in selectors {
        let selector = selector.as_object().expect("labels");
        assert!(selector.len() == 2 && selector.iter().all(|(name, value)| labels[name] == *value));
    }
    // Headless: no variables of a service appear in other pods either.
    assert_eq!(of_kind(&objects, "Service")["spec"]["clusterIP"], "None");
    assert_eq!(of_kind(&objects, "NetworkPolicy")["spec"]["policyTypes"], json!(["Ingress"]));
}

#[test]
fn the_namespace_admits_the_pod() {
    let objects = manifest();
    let labels = &of_kind(&objects, "Namespace")["metadata"]["labels"];
    for mode in ["enforce", "audit", "warn"] {
        assert_eq!(labels[format!("pod-security.kubernetes.io/{mode}")], "privileged");
    }
}

#[test]
fn the_kustomize_base_is_the_manifest() {
    let base = fs::read_to_string(deploy("kustomize/base/daemonset.yaml")).expect("it is there");
    let manifest = fs::read_to_string(deploy("daemonset.yaml")).expect("it is there");
    assert!(base == manifest, "they differ; run `make render` and commit it");
}

#[test]
fn the_overlay_example_builds() {
    let built = Command::new("kubectl").arg("kustomize").arg(deploy("kustomize/overlays/example")).output();
    let Ok(built) = built else {
        eprintln!("skipped: no kubectl here, which carries kustomize");
        return;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("built.yaml");
    fs::write(&file, built.stdout).expect("written");
    let objects = judge::objects(&file);
    assert_eq!(refused_by_kubernetes(&objects, &["1.31"]), [""; 0]);
    let container = container(&objects);
    assert_eq!(
        container["image"],
        concat!("registry.example.com/mirror/nodewick:", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(container["resources"]["limits"]["memory"], "192Mi");
    let config = of_kind(&objects, "ConfigMap");
    assert_eq!(config["metadata"]["name"], "nodewick", "the name that the pod mounts");
    assert!(agent_toml(&objects).contains("tenant = \"platform\""), "{config}");
}

#[test]
fn nothing_in_deploy_asks_for_more_rights() {
    // Words that would be in a manifest that took more than it says.
    const NEVER: [&str; 7] = [
        "nodes/proxy",
        "\"*\"",
        "cluster-admin",
        "privileged: true",
        "hostNetwork: true",
        "hostPID: true",
        "SYS_ADMIN",
    ];
    let mut open = vec![deploy("")];
    let mut seen = 0;
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            if !path.extension().is_some_and(|ending| ending == "yaml" || ending == "tpl") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            seen += 1;
            for word in NEVER {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
    assert!(seen > 15, "{seen} files");
}
