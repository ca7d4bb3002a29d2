//! The directory told by hand: pods before their namespaces, lists with and without a pod, last states.

use super::*;
use crate::data::pods::{self, Pods};
use crate::kube::resolve::Settings;

const UID: &str = "d34d0f3a-f306-4c1c-90ef-976c2c61c955";

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn directory(namespaces: bool) -> (Directory, Pods) {
    let (writer, pods) = pods::directory();
    let settings = Settings { tenants: vec!["blue".into(), "green".into()], ..Settings::default() };
    (Directory::new(writer, Resolver::new(settings), namespaces), pods)
}

fn pod(uid: &str) -> Vec<u8> {
    format!(
        r#"{{"metadata":{{"name":"till-a","namespace":"shop","uid":"{uid}","resourceVersion":"7"}},
            "spec":{{"containers":[{{"name":"api","image":"till:1"}}]}},"status":{{"phase":"Running"}}}}"#
    )
    .into_bytes()
}

fn namespace(tenant: &str) -> Vec<u8> {
    format!(
        r#"{{"metadata":{{"name":"shop","resourceVersion":"8","annotations":{{"nodewick.dev/tenant":"{tenant}"}}}}}}"#
    )
    .into_bytes()
}

fn tenant(pods: &Pods) -> Option<String> {
    pods.get(UID, secs(0)).expect("a pod").containers[0].traits.tenant.clone()
}

#[test]
fn a_pod_waits_for_its_namespace_and_is_resolved_with_it() {
    let (mut directory, pods) = directory(true);
    assert_eq!(directory.pod(&pod(UID), secs(10)).expect("a pod"), "7");
    assert!(pods.is_empty(), "its tenant is not known yet");
    assert_eq!(directory.namespace(&namespace("blue")).expect("a namespace"), "8");
    assert_eq!(tenant(&pods).as_deref(), Some("blue"));
    directory.namespace(&namespace("green")).expect("a namespace");
    assert_eq!(tenant(&pods).as_deref(), Some("green"), "a change reaches pods that are there");
}

#[test]
fn a_pod_whose_namespace_does_not_come_is_entered_all_the_same() {
    let (mut directory, pods) = directory(true);
    directory.pod(&pod(UID), secs(10)).expect("a pod");
    directory.tick(secs(14));
    assert!(pods.is_empty());
    directory.tick(secs(15));
    assert_eq!(pods.len(), 1);
    // Once namespaces are listed, one that is missing is a second late at most.
    let (mut directory, pods) = self::directory(true);
    directory.begin_namespaces();
    directory.end_namespaces();
    directory.pod(&pod(UID), secs(10)).expect("a pod");
    directory.tick(secs(11));
    assert_eq!(pods.len(), 1);
}

#[test]
fn nobody_waits_for_namespaces_that_may_not_be_seen_or_do_not_count() {
    let (mut directory, pods) = directory(true);
    directory.pod(&pod(UID), secs(10)).expect("a pod");
    directory.namespaces_denied();
    directory.tick(secs(10));
    assert_eq!(pods.len(), 1);
    let (mut directory, pods) = self::directory(false);
    directory.pod(&pod(UID), secs(10)).expect("a pod");
    assert_eq!(pods.len(), 1);
}

#[test]
fn what_a_list_does_not_name_is_gone_and_what_it_names_stays() {
    let (mut directory, pods) = directory(false);
    let other = UID.replace('d', "e");
    directory.begin_list();
    directory.pod(&pod(UID), secs(1)).expect("a pod");
    directory.pod(&pod(&other), secs(1)).expect("a pod");
    assert!(!pods.is_synced());
    directory.end_list(secs(1));
    assert!(pods.is_synced() && pods.living().len() == 2);
    directory.begin_list();
    directory.pod(&pod(&other), secs(2)).expect("a pod");
    directory.end_list(secs(2));
    assert_eq!(pods.living().iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>(), [other]);
    assert_eq!((pods.len(), directory.living()), (2, 1), "the other one is kept for its last lines");
}

#[test]
fn the_last_state_of_a_pod_tells_how_its_containers_ended() {
    let (mut directory, pods) = directory(false);
    directory.pod(&pod(UID), secs(1)).expect("a pod");
    let last = String::from_utf8(pod(UID)).expect("UTF-8").replace(
        r#""phase":"Running""#,
        r#""phase":"Failed","containerStatuses":[{"name":"api","restartCount":0,"image":"","imageID":"","ready":false,
            "containerID":"containerd://a","state":{"terminated":{"exitCode":137,"reason":"OOMKilled","containerID":"containerd://a"}}}]"#,
    );
    directory.pod_deleted(last.as_bytes(), secs(2)).expect("a pod");
    let kept = pods.get(UID, secs(3)).expect("it is kept");
    assert!(pods.living().is_empty());
    let (restart, exit) = kept.containers[0].exits.last().expect("an exit");
    assert_eq!((*restart, exit.code, exit.reason.as_str()), (0, 137, "OOMKilled"));
}

#[test]
fn a_rollout_leaves_no_bad_ends_of_containers_that_were_told_to_end() {
    let (mut directory, pods) = directory(false);
    let ended = |code: i32| {
        let pod = String::from_utf8(pod(UID)).expect("UTF-8");
        let pod = pod.replace(
            r#""resourceVersion""#,
            r#""deletionTimestamp":"2026-11-23T01:00:30Z","resourceVersion""#,
        );
        pod.replace(
            r#""phase":"Running""#,
            &format!(
                r#""phase":"Running","containerStatuses":[{{"name":"api","restartCount":0,"image":"","imageID":"","ready":false,
                "containerID":"containerd://a","state":{{"terminated":{{"exitCode":{code},"reason":"Error","containerID":"containerd://a"}}}}}}]"#
            ),
        )
    };
    let exits = || pods.get(UID, secs(3)).expect("a pod").containers[0].exits.len();
    directory.pod(ended(143).as_bytes(), secs(1)).expect("a pod");
    assert_eq!(exits(), 0);
    directory.pod(ended(1).as_bytes(), secs(1)).expect("a pod");
    assert_eq!(exits(), 1, "a crash at the end is one");
    directory.pod_deleted(ended(137).as_bytes(), secs(2)).expect("a pod");
    assert_eq!(exits(), 0);
}

#[test]
fn the_mirror_of_a_static_pod_is_known_by_the_uid_of_its_logs() {
    let (mut directory, pods) = directory(false);
    let hash = "4fb9a1d1f5b4c3e2a1908f7e6d5c4b3a";
    let mirror = format!(
        r#"{{"metadata":{{"name":"etcd-node-1","namespace":"kube-system","uid":"{UID}","resourceVersion":"7",
            "annotations":{{"kubernetes.io/config.hash":"{hash}","kubernetes.io/config.mirror":"{hash}"}},
            "ownerReferences":[{{"apiVersion":"v1","kind":"Node","name":"node-1","uid":"n","controller":true}}]}},
            "spec":{{"containers":[{{"name":"etcd"}}]}}}}"#
    );
    directory.pod(mirror.as_bytes(), secs(1)).expect("a pod");
    assert!(pods.get(hash, secs(1)).is_some());
    directory.pod_deleted(mirror.as_bytes(), secs(2)).expect("a pod");
    assert!(pods.living().is_empty());
}

#[test]
fn what_is_no_pod_is_refused_and_changes_nothing() {
    let (mut directory, pods) = directory(false);
    for text in ["", "{}", "[]", r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":null}"#] {
        assert!(directory.pod(text.as_bytes(), secs(1)).is_err(), "{text}");
    }
    assert!(pods.is_empty());
}
