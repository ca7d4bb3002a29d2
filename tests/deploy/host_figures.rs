//! Host and container figures: what the chart and the Kustomize component add to the pod, and that the policies admit that
//! and nothing near it.

use std::fs;
use std::path::Path;

use nodewick::config::{Sources, load};
use serde_json::{Value, json};

use super::judge::{agent_toml, deploy, objects, of_kind, refused_by_policy, render, root};
use super::policies::{POLICIES, pod};

/// `base` with what `patch` says. As with Kustomize, lists of things with names are merged by name.
fn merged(base: Value, patch: &Value) -> Value {
    match (base, patch) {
        (Value::Object(mut base), Value::Object(patch)) => {
            for (key, value) in patch {
                let old = base.remove(key).unwrap_or(Value::Null);
                base.insert(key.clone(), merged(old, value));
            }
            Value::Object(base)
        }
        (Value::Array(mut base), Value::Array(patch)) => {
            for item in patch {
                match base.iter().position(|old| old["name"] == item["name"]) {
                    Some(at) => base[at] = merged(base[at].take(), item),
                    None => base.push(item.clone()),
                }
            }
            Value::Array(base)
        }
        (_, patch) => patch.clone(),
    }
}

/// The manifest with the component applied to it.
fn with_component() -> Vec<Value> {
    let patch = objects(&deploy("kustomize/components/host-figures/daemonset.yaml")).remove(0);
    let all = objects(&deploy("kustomize/base/daemonset.yaml"));
    let is_meant = |object: &Value| {
        object["kind"] == "DaemonSet" && object["metadata"]["name"] == patch["metadata"]["name"]
    };
    assert_eq!(all.iter().filter(|object| is_meant(object)).count(), 1);
    all.into_iter().map(|object| if is_meant(&object) { merged(object, &patch) } else { object }).collect()
}

/// Volumes of the node's directories and their mounts, by path on the node.
fn mounts(objects: &[Value]) -> Vec<(String, Value, Value)> {
    let spec = &of_kind(objects, "DaemonSet")["spec"]["template"]["spec"];
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let mounts = list(&spec["containers"][0]["volumeMounts"]);
    list(&spec["volumes"])
        .iter()
        .filter_map(|volume| {
            let path = volume["hostPath"]["path"].as_str()?.to_owned();
            let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).expect("mounted");
            Some((path, mount["mountPath"].clone(), mount["readOnly"].clone()))
        })
        .collect()
}

/// Everything that switches host figures on.
fn switched_on() -> Vec<Vec<Value>> {
    vec![
        render(json!({"host": {"enabled": true}})).objects,
        render(json!({"config": {"host": {"enabled": true, "interval": "30s"}}})).objects,
        with_component(),
    ]
}

#[test]
fn the_nodes_proc_and_cgroups_are_mounted_read_only_where_the_agent_looks() {
    let row = |path: &str, mount: &str, read_only: Value| (path.to_owned(), json!(mount), read_only);
    let plain = [
        row("/var/log/pods", "/var/log/pods", json!(true)),
        row("/var/lib/nodewick", "/var/lib/nodewick", Value::Null),
    ];
    let both =
        [row("/proc", "/host/proc", json!(true)), row("/sys/fs/cgroup", "/host/sys/fs/cgroup", json!(true))];
    for objects in switched_on() {
        assert_eq!(mounts(&objects), [&plain[..], &both[..]].concat());
    }
    for off in [json!({}), json!({"config": {"host": {"enabled": false}}})] {
        assert_eq!(mounts(&render(off).objects), plain, "without being asked for");
    }
    let root = nodewick::host::Config::default().root;
    assert_eq!(root.join("proc"), Path::new("/host/proc"));
    assert_eq!(root.join("sys/fs/cgroup"), Path::new("/host/sys/fs/cgroup"));
}

#[test]
fn what_mounts_them_also_switches_the_figures_on() {
    for objects in switched_on() {
        let spec = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
        let variables = spec["containers"][0]["env"].as_array().expect("variables").iter();
        let env = variables
            .filter_map(|variable| {
                Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.to_owned()))
            })
            .collect();
        let file = Some(("agent.toml".to_owned(), agent_toml(&objects)));
        let loaded = load::load(&Sources { file, env, ..Sources::default() })
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.config.host.enabled);
        assert!(
            loaded.config.memory_bound().fits(Some(128 << 20)).is_ok(),
            "{}",
            loaded.config.memory_bound()
        );
    }
    let kept = agent_toml(
        &render(json!({"host": {"enabled": true}, "config": {"host": {"interval": "30s"}}})).objects,
    );
    assert!(kept.contains("[host]\nenabled = true\ninterval = \"30s\"\n"), "{kept}");
}

#[test]
fn the_policies_admit_exactly_these_two_mounts() {
    let pods: Vec<Value> = switched_on().iter().map(|objects| pod(objects)).collect();
    let base = &pods[0];
    let index = |list: &Value, name: &str| {
        list.as_array().expect("a list").iter().position(|item| item["name"] == name).expect("there")
    };
    let step = |name: &str, key: &str, value: Value| {
        let mut pod = base.clone();
        let mounts = &mut pod["spec"]["containers"][0]["volumeMounts"];
        let at = index(mounts, name);
        mounts[at][key] = value;
        pod
    };
    let elsewhere = |path: &str| {
        let mut pod = base.clone();
        let volumes = &mut pod["spec"]["volumes"];
        let at = index(volumes, "host-proc");
        volumes[at]["hostPath"]["path"] = path.into();
        pod
    };
    let steps = [
        (step("host-proc", "readOnly", json!(false)), "may be mounted writable"),
        (step("host-cgroup", "readOnly", json!(false)), "may be mounted writable"),
        (step("host-proc", "mountPath", json!("/proc")), "/host/proc"),
        (step("host-cgroup", "mountPath", json!("/sys/fs/cgroup")), "/host/proc"),
        (step("host-proc", "subPath", json!("1/root")), "no subPath"),
        (step("host-cgroup", "mountPropagation", json!("HostToContainer")), "no propagation"),
        (elsewhere("/proc/1/root"), "volumes are"),
        (elsewhere("/sys"), "volumes are"),
    ];
    for policy in POLICIES {
        for refused in refused_by_policy(policy, &pods) {
            assert_eq!(refused, [""; 0], "{policy}");
        }
        let away: Vec<Value> = steps.iter().map(|(pod, _)| pod.clone()).collect();
        for ((_, word), refused) in steps.iter().zip(refused_by_policy(policy, &away)) {
            assert!(refused.iter().any(|message| message.contains(word)), "{policy}: {word}: {refused:?}");
        }
    }
}

#[test]
fn targets_rules_and_receivers_arrive_from_values_as_lists_of_tables() {
    let values = json!({"config": {
        "scrape": {
            "interval": "15s",
            "static": [{"targets": ["10.0.0.7:9100"], "job": "node", "labels": {"team": "platform"}}],
            "metric_relabel": [{"action": "drop", "source_labels": ["__name__"], "regex": "go_gc_.*"}],
        },
        "sink": {"remote_write": {"main": {"url": "http://prometheus.monitoring.svc:9090/api/v1/write"}}},
    }});
    let file = Some(("agent.toml".to_owned(), agent_toml(&render(values).objects)));
    let config =
        load::load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}")).config;
    assert_eq!(config.scrape.fixed[0].targets, ["10.0.0.7:9100"]);
    assert_eq!(config.scrape.fixed[0].labels["team"], "platform");
    assert_eq!(config.scrape.metric_relabel.len(), 1);
    assert_eq!(config.sink.remote_write["main"].url, "http://prometheus.monitoring.svc:9090/api/v1/write");
}

/// The blocks of a how-to page in a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/how-to").join(page)).expect("it is there");
    let fence = format!("```{language}\n");
    let begun = text.split(&fence).skip(1);
    begun.filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

#[test]
fn values_and_configs_of_the_how_to_pages_work() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    fs::write(&token, "canary").expect("written");
    let loads = |text: String| {
        let text = text.replace("/var/run/secrets/nodewick/grafana/token", token.to_str().expect("UTF-8"));
        let env = vec![("NODE_NAME".to_owned(), "node-1".to_owned())];
        let sources = Sources { file: Some(("agent.toml".to_owned(), text)), env, ..Sources::default() };
        load::load(&sources).unwrap_or_else(|error| panic!("{error}")).config
    };
    let (mut configs, mut values) = (0, 0);
    for page in ["remote-write.md", "host-figures.md", "scrape.md"] {
        for block in blocks(page, "toml") {
            loads(block);
            configs += 1;
        }
        for block in blocks(page, "yaml") {
            // Others are parts of manifests.
            if !(block.starts_with("config:") || block.starts_with("host:")) {
                continue;
            }
            let file = directory.path().join("values.yaml");
            fs::write(&file, &block).expect("written");
            let given = objects(&file).remove(0);
            let rendered = render(given).objects;
            let mut config = loads(agent_toml(&rendered));
            config.kube.mode = nodewick::kube::Mode::Api;
            let limits =
                &of_kind(&rendered, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["resources"];
            let limit = match limits["limits"]["memory"].as_str() {
                Some("128Mi") => 128 << 20,
                Some("192Mi") => 192 << 20,
                other => panic!("{page}: a limit of {other:?}"),
            };
            config.fit(Some(limit));
            assert!(config.memory_bound().fits(Some(limit)).is_ok(), "{page}: {}", config.memory_bound());
            values += 1;
        }
    }
    assert!(configs >= 4 && values >= 4, "{configs} configs and {values} values were tried");
}
