//! Whole pods resolved: genuine objects from `tests/corpus/kube`, each rule on its own, and hostile objects.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::data::workload::{Exit, Handling};

/// Objects as an API server 1.31 gave them out.
const CHECKOUT: &str = include_str!("../../tests/corpus/kube/pod-checkout.json");
const PENDING: &str = include_str!("../../tests/corpus/kube/pod-checkout-pending.json");
const CRASHING: &str = include_str!("../../tests/corpus/kube/pod-web-crashloop.json");
const AGENT: &str = include_str!("../../tests/corpus/kube/pod-agent-daemonset.json");
const SHOP: &str = include_str!("../../tests/corpus/kube/namespace-shop.json");

/// 2026-11-22T14:48:30Z, as the pod has it.
const CREATED: i64 = 1_795_358_910;

fn object(json: &str) -> Pod {
    serde_json::from_str(json).expect("a pod")
}

fn settings() -> Settings {
    Settings { labels: vec!["app".into(), "app.kubernetes.io/*".into()], tenants: vec!["team-a".into()] }
}

fn resolved(pod: &Pod) -> Resolved {
    Resolver::new(settings()).pod(pod, None)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs(of).into_iter().collect()
}

/// A pod with one container `api` of the image `shop/api:1`.
fn pod(annotations: &[(&str, &str)], labels: &[(&str, &str)]) -> Pod {
    let mut pod = object(
        r#"{"metadata":{"name":"checkout-x7k2p","namespace":"shop","uid":"u-1"},
            "spec":{"containers":[{"name":"api","image":"shop/api:1"}]}}"#,
    );
    pod.metadata.annotations = Some(map(annotations));
    pod.metadata.labels = Some(map(labels));
    pod
}

fn traits(pod: &Pod) -> Traits {
    Traits::clone(&resolved(pod).pod.containers[0].traits)
}

#[test]
fn a_pod_of_a_deployment_is_resolved() {
    let Resolved { pod, problems } = resolved(&object(CHECKOUT));
    assert_eq!(problems, []);
    let traits = Traits {
        service_name: "checkout".into(),
        service_version: Some("1.4.2".into()),
        environment: None,
        labels: pairs(&[
            ("app", "checkout"),
            ("app.kubernetes.io/name", "checkout"),
            ("app.kubernetes.io/version", "1.4.2"),
        ]),
        attributes: pairs(&[
            ("container.image.name", "registry.local/nodeapp"),
            ("container.image.tags", "1"),
            ("k8s.deployment.name", "checkout"),
            ("k8s.replicaset.name", "checkout-d994d45d6"),
        ]),
        tenant: None,
    };
    let expected = pods::Pod {
        uid: "d11c6e6d-84fc-49ec-95a1-4ee5155f656a".into(),
        namespace: "shop".into(),
        name: "checkout-d994d45d6-5h9zr".into(),
        ip: Some(IpAddr::V4(Ipv4Addr::new(10, 244, 0, 12))),
        host_network: false,
        running: true,
        containers: vec![Container {
            name: "api".into(),
            id: Some("1176bdd141d20b51ab7cdc97abb3cbd9319cfd1060c87d906c3731456b904850".into()),
            traits: Arc::new(traits),
            handling: Arc::new(Handling::default()),
            ports: vec![("http".into(), 3000)],
            exits: vec![],
        }],
        annotations: pairs(&[
            ("prometheus.io/path", "/metrics"),
            ("prometheus.io/port", "3000"),
            ("prometheus.io/scrape", "true"),
        ]),
        labels: pairs(&[
            ("app", "checkout"),
            ("app.kubernetes.io/name", "checkout"),
            ("app.kubernetes.io/version", "1.4.2"),
            ("pod-template-hash", "d994d45d6"),
        ]),
        created_unix: CREATED,
    };
    assert_eq!(pod, expected);
}

#[test]
fn a_container_that_crashes_again_and_again_has_the_exit_of_its_newest_instance() {
    let pod = resolved(&object(CRASHING)).pod;
    let exits: Vec<_> = pod.containers.iter().map(|of| (of.name.as_str(), of.exits.clone())).collect();
    let exit = Exit { code: 1, reason: "Error".into() };
    assert_eq!(exits, [("app", vec![]), ("crasher", vec![(10, exit)])]);
    assert_eq!(pod.containers[1].traits.service_name, "web", "no label but the Deployment says it");
    assert_eq!(pod.containers[1].traits.service_version.as_deref(), Some("1.2.3"));
}

#[test]
fn a_pod_of_a_daemon_set_is_named_by_it() {
    let traits = traits(&object(AGENT));
    assert_eq!((traits.service_name.as_str(), traits.service_version.as_deref()), ("agent", Some("1")));
    let expected = pairs(&[
        ("container.image.name", "registry.local/busybox"),
        ("container.image.tags", "1"),
        ("k8s.daemonset.name", "agent"),
    ]);
    assert_eq!(traits.attributes, expected);
}

#[test]
fn what_records_carry_is_known_before_the_container_starts_and_does_not_change_when_it_does() {
    let pending = object(PENDING);
    let mut started = pending.clone();
    let status = serde_json::from_str(
        r#"{"phase":"Running","podIP":"10.0.0.9","containerStatuses":[{"name":"api","ready":true,"restartCount":7,
            "image":"sha256:9371","imageID":"sha256:9371","containerID":"containerd://b977","state":{"running":{}}}]}"#,
    );
    started.status = Some(status.expect("a status"));
    assert_eq!(resolved(&pending).pod.ip, None);
    assert_eq!(traits(&pending), traits(&started));
}

#[test]
fn the_service_is_named_in_the_conventions_order() {
    let annotation = ("resource.opentelemetry.io/service.name", "till");
    let instance = ("app.kubernetes.io/instance", "checkout-eu");
    let name = ("app.kubernetes.io/name", "checkout");
    let owner = |kind: &str, api: &str, name: &str| {
        format!(r#"[{{"apiVersion":"{api}","kind":"{kind}","name":"{name}","uid":"o","controller":true}}]"#)
    };
    let replica_set = owner("ReplicaSet", "apps/v1", "web-d994d45d6");
    let hash = ("pod-template-hash", "d994d45d6");
    for (annotations, labels, owner, service) in [
        (&[annotation][..], &[instance, name][..], replica_set.as_str(), "till"),
        (&[], &[instance, name, hash], &replica_set, "checkout-eu"),
        (&[], &[name, hash], &replica_set, "checkout"),
        (&[], &[hash], &replica_set, "web"),
        (&[], &[], &replica_set, "web-d994d45d6"),
        (&[], &[], &owner("StatefulSet", "apps/v1", "db"), "db"),
        (&[], &[], &owner("DaemonSet", "apps/v1", "agent"), "agent"),
        (&[], &[], &owner("Job", "batch/v1", "backup-29920320"), "backup"),
        (&[], &[], &owner("Job", "batch/v1", "migrate"), "migrate"),
        (&[], &[], &owner("CloneSet", "apps.kruise.io/v1alpha1", "x"), "checkout-x7k2p"),
        (&[], &[], "[]", "checkout-x7k2p"),
        (
            &[("resource.opentelemetry.io/service.name", " ")],
            &[("app.kubernetes.io/name", "")],
            "[]",
            "checkout-x7k2p",
        ),
    ] {
        let mut pod = pod(annotations, labels);
        pod.metadata.owner_references = serde_json::from_str(owner).expect("owners");
        assert_eq!(traits(&pod).service_name, service, "{annotations:?} {labels:?} {owner}");
    }
    let mut nameless = pod(&[], &[]);
    nameless.metadata.name = None;
    assert_eq!(traits(&nameless).service_name, "api");
}

#[test]
fn the_version_is_the_annotations_the_labels_or_the_images() {
    let label = ("app.kubernetes.io/version", "1.4.2");
    let said = ("resource.opentelemetry.io/service.version", "2026-11");
    for (pod, version) in [
        (pod(&[said], &[label]), Some("2026-11")),
        (pod(&[], &[label]), Some("1.4.2")),
        (pod(&[], &[]), Some("1")),
        (pod(&[], &[("app.kubernetes.io/version", "a\nb")]), Some("1")),
    ] {
        assert_eq!(traits(&pod).service_version.as_deref(), version);
    }
}

#[test]
fn any_resource_annotation_is_an_attribute_and_stands_before_what_is_known_otherwise() {
    let traits = traits(&pod(
        &[
            ("resource.opentelemetry.io/service.namespace", "storefront"),
            ("resource.opentelemetry.io/service.instance.id", "7"),
            ("resource.opentelemetry.io/container.image.tags", "stable"),
            ("resource.opentelemetry.io/team", "payments"),
            ("resource.opentelemetry.io/k8s.pod.uid", "forged"),
        ],
        &[],
    ));
    let expected = pairs(&[
        ("container.image.name", "shop/api"),
        ("container.image.tags", "stable"),
        ("service.instance.id", "7"),
        ("service.namespace", "storefront"),
        ("team", "payments"),
    ]);
    assert_eq!(traits.attributes, expected);
}

#[test]
fn the_environment_is_the_annotations_the_pods_or_the_namespaces() {
    let said = ("resource.opentelemetry.io/deployment.environment.name", "prod-eu");
    let namespace = NamespaceMeta::new(None, Some(&map(&[("env", "staging"), ("team", "storefront")])));
    let empty = NamespaceMeta::default();
    for (annotations, labels, namespace, environment) in [
        (&[said][..], &[("environment", "test")][..], &namespace, Some("prod-eu")),
        (&[], &[("env", "dev"), ("environment", "test")], &namespace, Some("test")),
        (&[], &[("app.kubernetes.io/environment", "qa"), ("env", "dev")], &namespace, Some("dev")),
        (&[], &[("app.kubernetes.io/environment", "qa")], &namespace, Some("qa")),
        (&[], &[("environment", "")], &namespace, Some("staging")),
        (&[], &[], &namespace, Some("staging")),
        (&[], &[], &empty, None),
    ] {
        let found = Resolver::new(settings()).pod(&pod(annotations, labels), Some(namespace));
        let traits = &found.pod.containers[0].traits;
        assert_eq!(traits.environment.as_deref(), environment, "{annotations:?} {labels:?}");
        assert!(traits.attributes.iter().all(|(key, _)| key != ENVIRONMENT));
    }
}

#[test]
fn a_namespaces_annotations_are_inherited_and_its_others_are_not_kept() {
    let genuine: k8s_openapi::api::core::v1::Namespace = serde_json::from_str(SHOP).expect("a namespace");
    let meta = &genuine.metadata;
    assert_eq!(NamespaceMeta::new(meta.annotations.as_ref(), meta.labels.as_ref()), NamespaceMeta::default());
    let said = map(&[
        ("nodewick.dev/tenant", "team-a"),
        ("nodewick.dev/parser", "json"),
        ("resource.opentelemetry.io/team", "payments"),
        ("prometheus.io/scrape", "true"),
    ]);
    let namespace = NamespaceMeta::new(Some(&said), None);
    let found =
        Resolver::new(settings()).pod(&pod(&[("nodewick.dev/parser", "klog")], &[]), Some(&namespace));
    assert_eq!(found.problems, []);
    let container = &found.pod.containers[0];
    assert_eq!(container.traits.tenant.as_deref(), Some("team-a"));
    assert_eq!(container.handling.format, crate::data::workload::LineFormat::Klog);
    assert!(container.traits.attributes.contains(&("team".into(), "payments".into())));
    let kept = [
        ("nodewick.dev/parser", "klog"),
        ("nodewick.dev/tenant", "team-a"),
        ("prometheus.io/scrape", "true"),
    ];
    assert_eq!(found.pod.annotations, pairs(&kept));
}

#[test]
fn a_namespace_that_is_too_much_is_told_and_bounded() {
    let said = BTreeMap::from([("nodewick.dev/logs".to_owned(), "é".repeat(100_000))]);
    let namespace = NamespaceMeta::new(Some(&said), None);
    assert_eq!(namespace.annotations["nodewick.dev/logs"].len(), 4104);
    let found = Resolver::new(settings()).pod(&pod(&[], &[]), Some(&namespace));
    let told: Vec<_> = found.problems.iter().map(|problem| (problem.place, problem.what.as_str())).collect();
    assert_eq!(told, [(Place::Namespace, "has 4104 bytes, more than 1024")]);
}

#[test]
fn a_mirror_of_a_static_pod_has_the_uid_of_its_log_path() {
    const HASH: &str = "1f8b2b1a3c4d5e6f708192a3b4c5d6e7";
    let mirror = |annotations: &[(&str, &str)], owner: &str| {
        let mut pod = pod(annotations, &[]);
        let owner = format!(
            r#"[{{"apiVersion":"v1","kind":"{owner}","name":"node-1","uid":"n","controller":true}}]"#
        );
        pod.metadata.owner_references = serde_json::from_str(&owner).expect("owners");
        resolved(&pod).pod.uid
    };
    let both = [("kubernetes.io/config.hash", HASH), ("kubernetes.io/config.mirror", HASH)];
    assert_eq!(mirror(&both, "Node"), HASH);
    for (annotations, owner) in [
        (&both[..], "ConfigMap"),
        (&[("kubernetes.io/config.hash", HASH)], "Node"),
        (&[("kubernetes.io/config.mirror", "d11c6e6d-84fc-49ec-95a1-4ee5155f656a")], "Node"),
        (&[("kubernetes.io/config.mirror", "../../../../../../etc/passwd0000")], "Node"),
    ] {
        assert_eq!(mirror(annotations, owner), "u-1", "{annotations:?} {owner}");
    }
}

#[test]
fn an_object_that_can_have_no_log_has_no_uid() {
    for (name, namespace, uid, expected) in [
        ("a", "b", "u-1", "u-1"),
        ("", "b", "u-1", ""),
        ("a_b", "b", "u-1", ""),
        ("a", "../b", "u-1", ""),
        ("a", "b", "", ""),
        ("a", "b", "u/1", ""),
        ("a\r\n", "b", "u-1", ""),
    ] {
        let mut pod = pod(&[], &[]);
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some(namespace.into());
        pod.metadata.uid = Some(uid.into());
        assert_eq!(resolved(&pod).pod.uid, expected, "{name} {namespace} {uid}");
    }
    assert_eq!(resolved(&Pod::default()).pod, pods::Pod::default());
}

#[test]
fn init_and_ephemeral_containers_are_containers() {
    let found = resolved(&object(
        r#"{"metadata":{"name":"p","namespace":"n","uid":"u"},
            "spec":{"hostNetwork":true,
                "containers":[{"name":"api","ports":[{"containerPort":80},{"containerPort":53,"protocol":"UDP"},
                    {"containerPort":70000},{"containerPort":0},{"name":"a b","containerPort":81}]},{"name":"api"}],
                "initContainers":[{"name":"migrate","image":"m:1"}],
                "ephemeralContainers":[{"name":"debugger","image":"busybox"},{"name":"no_name"}]},
            "status":{"phase":"Pending","podIP":"fd00::7","initContainerStatuses":[{"name":"migrate","ready":false,
                "restartCount":0,"image":"m:1","imageID":"","state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]}}"#,
    ))
    .pod;
    let names: Vec<_> = found.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["api", "migrate", "debugger"]);
    assert_eq!(found.containers[0].ports, [("80".into(), 80), ("81".into(), 81)]);
    assert_eq!(found.containers[1].exits, [(0, Exit { code: 0, reason: "Completed".into() })]);
    assert_eq!(found.ip, Some("fd00::7".parse().expect("an address")));
    assert_eq!((found.host_network, found.running), (true, false));
}

#[test]
fn labels_go_out_by_the_allow_list_only() {
    let labels =
        [("app", "a"), ("app.kubernetes.io/name", "b"), ("apps", "c"), ("team", "d"), ("app2", "x\ny")];
    let with = |allowed: &[&str]| {
        let settings = Settings {
            labels: allowed.iter().map(|name| (*name).to_owned()).collect(),
            ..Settings::default()
        };
        let pod = Resolver::new(settings).pod(&pod(&[], &labels), None).pod;
        pod.containers[0].traits.labels.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), [""; 0]);
    assert_eq!(with(&["app"]), ["app"]);
    assert_eq!(with(&["team", "app.kubernetes.io/*"]), ["app.kubernetes.io/name", "team"]);
    assert_eq!(with(&["*"]), ["app", "app.kubernetes.io/name", "apps", "team"]);
}

#[test]
fn annotations_that_are_not_understood_make_no_difference() {
    let mut whole = pod(
        &[
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
            ("kubernetes.io/config.mirror", "1f8b2b1a3c4d5e6f708192a3b4c5d6e7"),
            ("batch.kubernetes.io/cronjob-scheduled-timestamp", "2026-11-21T00:00:00Z"),
            ("nodewick.dev/parser", "json"),
            ("resource.opentelemetry.io/team", "payments"),
            ("fluentbit.io/exclude", "true"),
            ("prometheus.io/port", "9090"),
        ],
        &[],
    );
    for (api, kind, name) in [("v1", "Node", "node-1"), ("batch/v1", "Job", "backup-29920320")] {
        let owner = format!(
            r#"[{{"apiVersion":"{api}","kind":"{kind}","name":"{name}","uid":"o","controller":true}}]"#
        );
        whole.metadata.owner_references = serde_json::from_str(&owner).expect("owners");
        whole.metadata.creation_timestamp = serde_json::from_str(r#""2029-01-01T00:00:00Z""#).ok();
        let mut stripped = whole.clone();
        let kept = stripped.metadata.annotations.as_mut().expect("some");
        kept.retain(|name, _| annotations::is_understood(name));
        assert_eq!(kept.len(), 6);
        assert_eq!(resolved(&stripped), resolved(&whole));
    }
    let traits = traits(&whole);
    assert!(traits.attributes.contains(&("k8s.cronjob.name".into(), "backup".into())), "{traits:?}");
}

#[test]
fn containers_that_are_alike_share_what_is_known_of_them() {
    let containers = resolved(&object(CRASHING)).pod.containers;
    assert!(Arc::ptr_eq(&containers[0].traits, &containers[1].traits));
    assert!(Arc::ptr_eq(&containers[0].handling, &containers[1].handling));
}

/// Bytes of text that are kept of a pod.
fn size(pod: &pods::Pod) -> usize {
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>();
    let containers = pod.containers.iter().map(|container| {
        let traits = &container.traits;
        let texts =
            [&traits.service_version, &traits.environment, &traits.tenant, &container.handling.multiline];
        container.name.len()
            + traits.service_name.len()
            + texts.into_iter().flatten().map(String::len).sum::<usize>()
            + pairs(&traits.labels)
            + pairs(&traits.attributes)
    });
    pod.uid.len()
        + pod.namespace.len()
        + pod.name.len()
        + pairs(&pod.annotations)
        + pairs(&pod.labels)
        + containers.sum::<usize>()
}

/// Texts that are near to what is meant, and texts that are not near to anything.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9.%=*_/:@-]{0,40}",
        Just("on".to_owned()),
        Just("start=(\\w{9}){9}".to_owned()),
        Just("a\r\nb\u{202e}\0".to_owned()),
        (1_usize..200_000).prop_map(|length| "é".repeat(length / 2)),
    ]
}

fn name() -> impl Strategy<Value = String> {
    let prefix = prop_oneof![
        Just(""),
        Just("nodewick.dev/"),
        Just("resource.opentelemetry.io/"),
        Just("fluentbit.io/exclude"),
        Just("prometheus.io/"),
        Just("app.kubernetes.io/"),
        Just("kubernetes.io/config."),
    ];
    let key = prop_oneof![
        "(logs|parser|sample|multiline|tenant|level-field|mirror|name|version|service.name|environment)(\\.api)?",
        "[-_.a-z]{0,8}",
        text(),
    ];
    (prefix, key).prop_map(|(prefix, key)| format!("{prefix}{key}"))
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(name(), text(), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_an_object_says_the_answer_is_bounded_and_of_good_form(
        annotations in texts(),
        labels in texts(),
        namespace in texts(),
        names in proptest::collection::vec(text(), 5),
        image in text(),
        restart_count in any::<i32>(),
    ) {
        let mut pod = object(CRASHING);
        let meta = &mut pod.metadata;
        meta.annotations = Some(annotations);
        meta.labels = Some(labels);
        if names[0].len() % 2 == 0 {
            (meta.name, meta.namespace) = (Some(names[0].clone()), Some(names[1].clone()));
            meta.uid = Some(names[2].clone());
        }
        if let Some(owner) = meta.owner_references.iter_mut().flatten().next() {
            owner.name = names[3].clone();
        }
        let container = &mut pod.spec.as_mut().expect("a spec").containers[0];
        (container.name, container.image) = (names[4].clone(), Some(image));
        pod.status.as_mut().expect("a status").container_statuses.as_mut().expect("some")[1].restart_count =
            restart_count;

        let namespace = NamespaceMeta::new(Some(&namespace), Some(&namespace));
        let resolver = Resolver::new(Settings { labels: vec!["*".into()], tenants: vec!["on".into()] });
        let found = resolver.pod(&pod, Some(&namespace));
        prop_assert_eq!(&found, &resolver.pod(&pod, Some(&namespace)), "the same objects give the same answer");
        prop_assert!(size(&found.pod) <= 128 << 10, "{} bytes", size(&found.pod));
        prop_assert!(found.problems.len() <= MAX_PROBLEMS);
        for problem in &found.problems {
            let told = problem.to_string();
            prop_assert!(told.len() < 4096 && !told.chars().any(char::is_control), "{told}");
        }
        let uid = &found.pod.uid;
        prop_assert!(uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        for container in &found.pod.containers {
            let traits = &container.traits;
            prop_assert!(!traits.service_name.is_empty());
            let texts = [Some(&traits.service_name), traits.service_version.as_ref(), traits.environment.as_ref()];
            for text in texts.into_iter().flatten() {
                prop_assert!(text.len() <= MAX_VALUE && !text.chars().any(char::is_control), "{text:?}");
            }
            for (key, value) in &traits.attributes {
                prop_assert!(!key.is_empty() && key.is_ascii() && !value.is_empty());
                prop_assert!(!value.chars().any(char::is_control) && !key.starts_with("k8s.pod."), "{key}={value:?}");
            }
            for pairs in [&traits.attributes, &traits.labels] {
                prop_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "sorted, each once");
            }
            let sample = container.handling.sample;
            prop_assert!(sample.is_none_or(|share| share > 0.0 && share < 1.0));
        }
    }
}
