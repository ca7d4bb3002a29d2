//! The Helm chart, rendered by Helm's own engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nodewick::config::{Sources, load};
use serde_json::{Value, json};

use super::judge::{agent_toml, deploy, lint, objects, of_kind, refused_by_kubernetes, render, render_cases};

/// Labels and annotations that only Helm's releases have.
const HELM: [&str; 3] = ["helm.sh/chart", "app.kubernetes.io/managed-by", "checksum/config"];

/// Objects by kind and name, less what only Helm adds, and with the config read as TOML: its comments may differ.
fn compared(objects: &[Value]) -> BTreeMap<String, Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for name in HELM {
                    map.remove(name);
                }
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    for object in objects {
        let mut object = object.clone();
        strip(&mut object);
        if let Some(text) = object["data"]["agent.toml"].as_str() {
            let table: toml::Table = toml::from_str(text).expect("TOML");
            object["data"]["agent.toml"] = serde_json::to_value(table).expect("JSON");
        }
        let name = object["metadata"]["name"].as_str().expect("a name");
        let key = format!("{} {name}", object["kind"].as_str().expect("a kind"));
        assert!(found.insert(key.clone(), object).is_none(), "two of {key}");
    }
    found
}

#[test]
fn defaults_render_the_plain_manifest() {
    let mut plain = compared(&objects(&deploy("daemonset.yaml")));
    // A release's namespace is made by who installs it.
    assert!(plain.remove("Namespace nodewick").is_some());
    let chart = compared(&render(json!({})).objects);
    assert_eq!(plain.keys().collect::<Vec<_>>(), chart.keys().collect::<Vec<_>>());
    for (name, object) in &plain {
        let (plain, chart) = (pretty(object), pretty(&chart[name]));
        assert!(plain == chart, "{name} differs\ndeploy/daemonset.yaml:\n{plain}\nthe chart:\n{chart}");
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON")
}

#[test]
fn helm_finds_nothing_to_say_but_that_an_icon_is_missing() {
    assert_eq!(lint(&deploy("helm/nodewick")), [(1, "icon is recommended".to_owned())]);
}

/// A value for every key of values.yaml that is off or empty by default.
fn everything() -> Value {
    json!({
        "nameOverride": "agent",
        "fullnameOverride": "log-agent",
        "commonLabels": {"team": "platform"},
        "secrets": [{"name": "loki", "secretName": "loki-credentials"}],
        "image": {"digest": format!("sha256:{}", "0f".repeat(32)), "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "mirror"}],
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
        "hostPaths": {"docker": "/var/lib/docker/containers"},
        "priorityClassName": "system-node-critical",
        "resourceQuota": {"enabled": true},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}},
        "minReadySeconds": 5,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]},
        ]}}},
        "podAnnotations": {"example.com/a": "1"},
        "podLabels": {"example.com/l": "2"},
        "podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}},
        "extraArgs": ["--set", "agent.cluster=prod"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraEnvFrom": [{"secretRef": {"name": "otel"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": true}],
        "service": {"annotations": {"a": "b"}},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        },
        "podMonitor": {"enabled": true, "labels": {"release": "prometheus"}, "metricRelabelings": [{"action": "labeldrop", "regex": "le"}]},
        "prometheusRule": {"enabled": true},
        "dashboards": {"enabled": true},
    })
}

#[test]
fn everything_switched_on_is_valid_too() {
    let rendered = render(everything());
    let (operators, mut kubernetes): (Vec<Value>, Vec<Value>) =
        rendered.objects.into_iter().partition(|object| {
            object["apiVersion"].as_str().is_some_and(|version| version.starts_with("monitoring.coreos.com/"))
        });
    assert_eq!(refused_by_kubernetes(&kubernetes, &["1.28", "1.37"]), [""; 0]);
    let pod = &of_kind(&kubernetes, "DaemonSet")["spec"]["template"];
    assert_eq!(
        pod["spec"]["containers"][0]["image"],
        format!("ghcr.io/nodewick/nodewick@sha256:{}", "0f".repeat(32))
    );
    assert_eq!(pod["spec"]["securityContext"]["seLinuxOptions"]["type"], "spc_t");
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 0, "what is added takes nothing away");
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let writable: Vec<&Value> = mounts.iter().filter(|mount| mount["readOnly"] != true).collect();
    assert_eq!(writable, [&json!({"name": "state", "mountPath": "/var/lib/nodewick"})]);
    assert_eq!(
        of_kind(&kubernetes, "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"][0]["values"],
        json!(["system-node-critical"])
    );
    let monitor = of_kind(&operators, "PodMonitor");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "metrics");
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        of_kind(&kubernetes, "DaemonSet")["spec"]["selector"]["matchLabels"]
    );
    kubernetes.retain(|object| object["metadata"]["labels"]["team"] != "platform");
    assert_eq!(kubernetes, [] as [Value; 0], "every object has the common labels");
}

#[test]
fn what_is_switched_off_is_not_there() {
    let values = json!({
        "rbac": {"create": false},
        "serviceAccount": {"create": false, "name": "shared"},
        "service": {"enabled": false},
        "networkPolicy": {"enabled": false},
        "priorityClassName": "",
        "tolerations": [],
        "updateStrategy": {"type": "OnDelete", "rollingUpdate": null},
    });
    let objects = render(values).objects;
    let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(kinds, ["ConfigMap", "DaemonSet"]);
    let set = &of_kind(&objects, "DaemonSet")["spec"];
    assert_eq!(set["updateStrategy"], json!({"type": "OnDelete"}));
    let pod = &set["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "shared");
    assert!(pod.get("priorityClassName").is_none() && pod.get("tolerations").is_none());
}

#[test]
fn rights_follow_who_is_asked_for_the_pods() {
    let directory = tempfile::tempdir().expect("a directory");
    let chart = copy_of_chart(directory.path());
    // Which keys there are is another fact.
    fs::remove_file(chart.join("values.schema.json")).expect("it was there");
    let case = |kube: Value| json!({"values": {"config": {"kube": kube}}});
    let modes = [
        case(json!({"mode": "api", "namespace_annotations": false})),
        case(json!({"mode": "kubelet"})),
        case(json!({"mode": "path"})),
    ];
    let rendered: Vec<Vec<Value>> = render_cases(&chart, &modes)
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|error| panic!("{error}")).objects)
        .collect();
    assert_eq!(
        of_kind(&rendered[0], "ClusterRole")["rules"],
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}])
    );
    assert_eq!(
        of_kind(&rendered[1], "ClusterRole")["rules"],
        json!([{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}])
    );
    let is_right =
        |object: &&Value| object["kind"].as_str().is_some_and(|kind| kind.starts_with("ClusterRole"));
    assert_eq!(rendered[2].iter().filter(is_right).count(), 0);
    let token = |objects: &[Value]| {
        of_kind(objects, "DaemonSet")["spec"]["template"]["spec"]["automountServiceAccountToken"].clone()
    };
    assert_eq!(rendered.iter().map(|objects| token(objects)).collect::<Vec<_>>(), [true, true, false]);
}

/// A copy of the chart.
fn copy_of_chart(directory: &Path) -> std::path::PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("readable") {
            let entry = entry.expect("an entry");
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if from.is_dir() {
                copy(&from, &to);
            } else {
                fs::copy(&from, &to).expect("copied");
            }
        }
    }
    let chart = directory.join("nodewick");
    copy(&deploy("helm/nodewick"), &chart);
    chart
}

/// A copy of the chart, with rules and a dashboard in it.
fn chart_with_files(directory: &Path) -> std::path::PathBuf {
    let chart = copy_of_chart(directory);
    let rules = "groups:\n  - name: node\n    rules:\n      - alert: Lag\n        expr: up == 0\n        annotations:\n          summary: '{{ $labels.node }} lags'\n";
    fs::write(chart.join("files/rules/extra.yaml"), rules).expect("written");
    fs::write(chart.join("files/dashboards/extra.json"), "{\"title\": \"{{node}}\"}\n").expect("written");
    chart
}

#[test]
fn rules_and_dashboards_are_taken_from_files_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let chart = chart_with_files(directory.path());
    let on = json!({"values": {
        "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": true, "annotations": {"folder": "Logs"}},
    }});
    let rendered = render_cases(&chart, &[on, json!({"values": {}})]);
    let [Ok(on), Ok(off)] = &rendered[..] else { panic!("both render") };
    let named = |name: &str| on.objects.iter().find(|object| object["metadata"]["name"] == name);
    let rule = named("nodewick-extra").expect("the rule");
    assert_eq!(rule["kind"], "PrometheusRule");
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(rule["spec"]["groups"][0]["rules"][0]["annotations"]["summary"], "{{ $labels.node }} lags");
    let dashboard = named("nodewick-dashboard-extra").expect("the dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(dashboard["metadata"]["annotations"]["folder"], "Logs");
    assert_eq!(dashboard["data"]["extra.json"], "{\"title\": \"{{node}}\"}\n");
    let of_grafana = |object: &&Value| object["metadata"]["labels"]["grafana_dashboard"] == "1";
    let uids =
        on.objects.iter().filter(of_grafana).flat_map(|object| object["data"].as_object().expect("files"));
    let uids: Vec<String> = uids
        .filter_map(|(_, text)| {
            serde_json::from_str::<Value>(text.as_str()?).ok()?["uid"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(uids.len(), 9, "the chart's own: {uids:?}");
    let is_ours = |object: &&Value| object["kind"] == "PrometheusRule" || of_grafana(object);
    assert_eq!(off.objects.iter().filter(is_ours).count(), 0);
}

/// The chart's own alerts come as they are in `alerts/`.
#[test]
fn the_chart_brings_the_alerts_of_the_repository() {
    let on = json!({"values": {"prometheusRule": {"enabled": true}}});
    let rendered = render_cases(&deploy("helm/nodewick"), &[on]);
    let [Ok(on)] = &rendered[..] else { panic!("it renders") };
    for (name, file) in [("nodewick-agent", "nodewick.yaml"), ("nodewick-workloads", "workloads.yaml")] {
        let rule = on.objects.iter().find(|object| object["metadata"]["name"] == name).expect("the rules");
        let kept = objects(&Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts").join(file)).remove(0);
        assert_eq!(rule["kind"], "PrometheusRule");
        assert_eq!(rule["spec"]["groups"], kept["groups"], "{name}");
    }
}

#[test]
fn wrong_values_are_refused_where_they_are() {
    let cases = [
        (json!({"imgae": {}}), "additional properties 'imgae' not allowed"),
        (json!({"image": {"tagg": "1"}}), "at '/image'"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "at '/image/pullPolicy'"),
        (json!({"image": {"digest": "abc"}}), "at '/image/digest'"),
        (json!({"rbac": {"create": "yes"}}), "at '/rbac/create'"),
        (json!({"terminationGracePeriodSeconds": 5}), "at '/terminationGracePeriodSeconds'"),
        (json!({"updateStrategy": {"type": "Recreate"}}), "at '/updateStrategy/type'"),
        (json!({"tolerations": {"operator": "Exists"}}), "at '/tolerations'"),
        (json!({"hostPaths": {"state": "var/lib"}}), "at '/hostPaths/state'"),
        (json!({"secrets": [{"name": "Loki_1", "secretName": "x"}]}), "at '/secrets/0/name'"),
        (json!({"resources": {"limit": {}}}), "at '/resources'"),
        (json!({"podMonitor": {"interval": "soon"}}), "at '/podMonitor/interval'"),
        (
            json!({"dashboards": {"labels": {"grafana_dashboard": 1}}}),
            "at '/dashboards/labels/grafana_dashboard'",
        ),
        (json!({"config": {"sinks": {}}}), "additional properties 'sinks' not allowed"),
        (
            json!({"config": {"sink": {"loki": {"main": {"urll": "http://loki"}}}}}),
            "at '/config/sink/loki/main'",
        ),
        (json!({"config": {"agent": "x"}}), "at '/config/agent'"),
        (
            json!({"config": {"process": {"drop": {"health": {"urlpath": "/"}}}}}),
            "at '/config/process/drop/health'",
        ),
        (json!({"config": {"admin": {"listen": "off"}}}), "the kubelet's probes need a port"),
        (json!({"config": {"admin": {"listen": "127.0.0.1:9464"}}}), "the kubelet's probes need a port"),
    ];
    let values: Vec<Value> = cases.iter().map(|(values, _)| json!({"values": values})).collect();
    for ((values, part), answer) in cases.iter().zip(render_cases(&deploy("helm/nodewick"), &values)) {
        let error = answer.err().unwrap_or_else(|| panic!("accepted: {values}"));
        assert!(error.contains(part), "{values}\n{error}");
    }
}

#[test]
fn the_config_arrives_as_it_was_meant() {
    let config = json!({
        "agent": {"cluster": "prod \"eu\" \\1\n", "memory": "64MiB"},
        "logs": {
            "symlink_roots": ["/a", "/b"],
            "last_words": false,
            "multiline": {"max_lines": 10_000, "rule": {"ab": {"start": "^\\d{4}-", "service": ["x", "!y"]}}},
        },
        "process": {
            "sample": {"debug": {"keep": "10%", "level": "<= debug"}},
            "limit": {"pods": {"rate": "1000/s", "key": ["pod", "level"]}},
            "dedup": {},
        },
        "sink": {
            "loki": {"main": {
                "url": "http://loki:3100",
                "headers": {"x.dotted": "a&b<c>"},
                "limits": {"in_flight": 7, "max_request": "2MiB"},
                "auth": {"password_file": "/dev/null", "username": "${env:USER_OF_LOKI}"},
            }},
        },
        "admin": {"listen": "[::]:9999"},
    });
    let rendered = render(json!({"config": config}));
    let text = agent_toml(&rendered.objects);
    let table: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(pretty(&serde_json::to_value(table).expect("JSON")), pretty(&config), "{text}");
    // Helm hands on every number as a float; the agent counts in integers.
    assert!(text.contains("in_flight = 7\n") && text.contains("max_lines = 10000\n"), "{text}");
    assert!(!text.contains("[sink]") && text.contains("[process.dedup]\n"), "{text}");
    let pod = &of_kind(&rendered.objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["ports"][0]["containerPort"], 9999);
    assert_eq!(of_kind(&rendered.objects, "Service")["spec"]["ports"][0]["port"], 9999);

    let env =
        vec![("NODE_NAME".to_owned(), "node-1".to_owned()), ("USER_OF_LOKI".to_owned(), "me".to_owned())];
    let file = Some(("agent.toml".to_owned(), text.replace("http://loki:3100", "https://loki:3100")));
    let loaded =
        load::load(&Sources { file, env, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config.sink.loki["main"].limits.in_flight, 7);
    assert_eq!(loaded.config.agent.cluster, "prod \"eu\" \\1\n");
    assert!(loaded.config.process.dedup.is_some(), "an empty table switches it on");
}

#[test]
fn the_default_sink_can_be_taken_away() {
    let values = json!({"config": {"sink": {"loki": {"main": null}, "otlp": {"collector": {"endpoint": "http://otel:4317"}}}}});
    let text = agent_toml(&render(values).objects);
    let file = Some(("agent.toml".to_owned(), text));
    let config =
        load::load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}")).config;
    assert!(config.sink.loki.is_empty());
    assert_eq!(config.sink.otlp["collector"].endpoint, "http://otel:4317");
}

#[test]
fn a_changed_config_rolls_out_and_nothing_else_does() {
    let case = |values: Value| json!({"values": values});
    let cases = [
        case(json!({})),
        case(json!({"config": {"agent": {"cluster": "a"}}})),
        case(json!({"podMonitor": {"enabled": true}, "networkPolicy": {"enabled": false}})),
    ];
    let templates: Vec<Value> = render_cases(&deploy("helm/nodewick"), &cases)
        .into_iter()
        .map(|rendered| of_kind(&rendered.unwrap_or_else(|error| panic!("{error}")).objects, "DaemonSet")["spec"]["template"].clone())
        .collect();
    let sum = |template: &Value| template["metadata"]["annotations"]["checksum/config"].clone();
    assert!(sum(&templates[0]).as_str().is_some_and(|sum| sum.len() == 64));
    assert_ne!(sum(&templates[0]), sum(&templates[1]));
    assert_eq!(templates[0], templates[2]);
}

#[test]
fn releases_do_not_share_objects_of_the_cluster() {
    let cases = [
        json!({"values": {}, "namespace": "nodewick"}),
        json!({"values": {}, "namespace": "monitoring"}),
        json!({"values": {}, "namespace": "monitoring", "name": "a-release-name-of-just-the-most-bytes-that-helm-allows"}),
    ];
    let mut names = Vec::new();
    for rendered in render_cases(&deploy("helm/nodewick"), &cases) {
        let objects = rendered.unwrap_or_else(|error| panic!("{error}")).objects;
        names.push(of_kind(&objects, "ClusterRole")["metadata"]["name"].clone());
        let binding = of_kind(&objects, "ClusterRoleBinding");
        assert_eq!(
            binding["subjects"][0]["namespace"],
            of_kind(&objects, "DaemonSet")["metadata"]["namespace"]
        );
        assert_eq!(refused_by_kubernetes(&objects, &["1.31"]), [""; 0]);
        for object in &objects {
            let name = object["metadata"]["name"].as_str().expect("a name");
            let limit = if object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster")) {
                253
            } else {
                63
            };
            assert!(name.len() <= limit, "{name}");
        }
    }
    names.dedup();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn notes_say_what_is_left_to_do() {
    let plain = render(json!({})).notes;
    for part in [
        "config.agent.cluster is not set",
        "kubectl -n nodewick rollout status daemonset/nodewick",
        "pod-security.kubernetes.io/enforce=privileged",
        "On GKE",
    ] {
        assert!(plain.contains(part), "{part} is not in\n{plain}");
    }
    let done =
        render(json!({"config": {"agent": {"cluster": "prod"}}, "resourceQuota": {"enabled": true}})).notes;
    assert!(!done.contains("is not set") && !done.contains("On GKE"), "{done}");
}

#[test]
fn every_value_is_documented_by_its_default_or_the_schema() {
    let values = objects(&deploy("helm/nodewick/values.yaml")).remove(0);
    let schema: Value = serde_json::from_str(
        &fs::read_to_string(deploy("helm/nodewick/values.schema.json")).expect("it is there"),
    )
    .expect("JSON");
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().expect("a map").keys().cloned().collect();
        keys.sort();
        keys
    };
    // `global` is Helm's own, for charts that have this one as a part.
    let known: Vec<String> = keys(&schema["properties"]).into_iter().filter(|key| key != "global").collect();
    assert_eq!(keys(&values), known);
    let templates: String = fs::read_dir(deploy("helm/nodewick/templates"))
        .expect("readable")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("text"))
        .collect();
    for key in known {
        assert!(templates.contains(&format!(".Values.{key}")), "no template uses {key}");
    }
}
