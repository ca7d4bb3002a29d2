//! How instances of a container ended, by the restart count that is in their log's name.
//!
//! In: a container's status. Out: at most two exits, newest last, since the API tells no more. Invariant: an exit is
//! never told of another instance than the one that ended so.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus};

use crate::data::workload::Exit;

/// Bytes of a reason; the kubelet's own words have at most 25.
const MAX_REASON: usize = 64;
/// The kubelet's word for an instance that is gone without a trace; it counts a restart by it.
/// Source: `k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`, `convertToAPIContainerStatuses`.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// Exit codes of who was told to end and did, or was made to: 128 + SIGTERM, 128 + SIGKILL.
const TOLD_TO_END: [i32; 2] = [143, 137];
/// The kernel's doing, whoever asked for the pod's end. Source: `containerd/internal/cri/server/events.go`.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// Exits that a status tells of. `deleted`: the pod is being deleted. Its containers are told to end then, so the signals
/// that this takes are no news: nothing is said of who ended by them. An instance that ended before that is another
/// matter: the kubelet has started the next one since, or waits to.
///
/// `state.terminated` is of the newest instance, number `restartCount`. `lastState.terminated` is of the one before it,
/// except where the newest one waits to be started again: the kubelet then moves its end there without counting on
/// (CrashLoopBackOff). The container's id tells which; where an id is missing, the state does.
pub(super) fn of(status: &ContainerStatus, deleted: bool) -> Vec<(u32, Exit)> {
    let newest = u32::try_from(status.restart_count).unwrap_or(0);
    let mut exits = Vec::new();
    if let Some(end) = terminated(status.last_state.as_ref())
        && let Some(restart) = instance_of_last(status, end, newest, deleted)
        && !(deleted && end.reason.as_deref() == Some(UNKNOWN) && is_as_told(end))
    {
        exits.push((restart, exit(end)));
    }
    if let Some(end) = terminated(status.state.as_ref()) {
        exits.retain(|(restart, _)| *restart != newest);
        if !(deleted && is_as_told(end)) {
            exits.push((newest, exit(end)));
        }
    }
    exits
}

/// True when the end is what comes of being told to end.
fn is_as_told(end: &ContainerStateTerminated) -> bool {
    TOLD_TO_END.contains(&end.exit_code) && end.reason.as_deref() != Some(OUT_OF_MEMORY)
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

/// The restart count of the instance whose end is `lastState`.
fn instance_of_last(
    status: &ContainerStatus,
    end: &ContainerStateTerminated,
    newest: u32,
    deleted: bool,
) -> Option<u32> {
    let id = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    let waits =
        status.state.as_ref().is_none_or(|state| state.running.is_none() && state.terminated.is_none());
    let is_newest = match (id(&status.container_id), id(&end.container_id)) {
        (Some(current), Some(ended)) => current == ended,
        _ if end.reason.as_deref() == Some(UNKNOWN) => deleted,
        _ => waits,
    };
    if is_newest { Some(newest) } else { newest.checked_sub(1) }
}

fn exit(end: &ContainerStateTerminated) -> Exit {
    let reason = end.reason.as_deref().unwrap_or_default();
    let plain = !reason.is_empty()
        && reason.len() <= MAX_REASON
        && reason.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let reason = match (plain, end.exit_code) {
        (true, _) => reason,
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    Exit { code: end.exit_code, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(json: &str, deleted: bool) -> Vec<(u32, i32, String)> {
        let head = r#"{"name":"api","image":"","imageID":"","ready":false,"#;
        let status: ContainerStatus = serde_json::from_str(&format!("{head}{json}}}")).expect("a status");
        of(&status, deleted).into_iter().map(|(restart, exit)| (restart, exit.code, exit.reason)).collect()
    }

    fn said(restart: u32, code: i32, reason: &str) -> (u32, i32, String) {
        (restart, code, reason.to_owned())
    }

    const OOM: &str =
        r#"{"terminated":{"exitCode":137,"reason":"OOMKilled","containerID":"containerd://a"}}"#;

    #[test]
    fn a_running_container_tells_of_the_instance_before() {
        for id in [r#""containerID":"containerd://b","#, ""] {
            let status = format!(r#"{id}"restartCount":3,"state":{{"running":{{}}}},"lastState":{OOM}"#);
            assert_eq!(exits(&status, false), [said(2, 137, "OOMKilled")], "{status}");
        }
    }

    #[test]
    fn a_terminated_container_tells_of_itself_and_of_the_instance_before() {
        let state = r#"{"terminated":{"exitCode":0,"reason":"Completed","containerID":"containerd://b"}}"#;
        let status =
            format!(r#""containerID":"containerd://b","restartCount":1,"state":{state},"lastState":{OOM}"#);
        assert_eq!(exits(&status, false), [said(0, 137, "OOMKilled"), said(1, 0, "Completed")]);
    }

    #[test]
    fn a_container_that_waits_to_be_started_again_has_its_own_end_as_the_last() {
        for id in [r#""containerID":"containerd://a","#, ""] {
            let waiting = r#"{"waiting":{"reason":"CrashLoopBackOff"}}"#;
            let status = format!(r#"{id}"restartCount":10,"state":{waiting},"lastState":{OOM}"#);
            assert_eq!(exits(&status, false), [said(10, 137, "OOMKilled")], "{status}");
        }
    }

    #[test]
    fn a_container_that_was_made_and_does_not_start_tells_of_the_instance_before() {
        let waiting = r#"{"waiting":{"reason":"RunContainerError"}}"#;
        let status =
            format!(r#""containerID":"containerd://b","restartCount":2,"state":{waiting},"lastState":{OOM}"#);
        assert_eq!(exits(&status, false), [said(1, 137, "OOMKilled")]);
    }

    #[test]
    fn what_vanished_was_the_instance_before_unless_the_pod_is_being_deleted() {
        let last = r#"{"terminated":{"exitCode":137,"reason":"ContainerStatusUnknown"}}"#;
        let status = format!(r#""restartCount":1,"state":{{"waiting":{{}}}},"lastState":{last}"#);
        assert_eq!(exits(&status, false), [said(0, 137, "ContainerStatusUnknown")]);
        let status = status.replace(":1,", ":0,");
        assert_eq!(exits(&status, true), [], "what vanished with its pod was told to");
        let status = status.replace("137", "1");
        assert_eq!(exits(&status, true), [said(0, 1, "ContainerStatusUnknown")]);
    }

    #[test]
    fn a_pod_that_is_being_deleted_has_no_bad_end_by_the_signals_that_this_takes() {
        let ended = |code: i32, reason: &str| {
            let end = format!(r#"{{"exitCode":{code},"reason":"{reason}","containerID":"containerd://b"}}"#);
            format!(
                r#""containerID":"containerd://b","restartCount":3,"state":{{"terminated":{end}}},"lastState":{{}}"#
            )
        };
        for code in [143, 137] {
            assert_eq!(exits(&ended(code, "Error"), true), [], "{code}");
            assert_eq!(exits(&ended(code, "Error"), false), [said(3, code, "Error")]);
        }
        // A crash while it ends, the kernel's doing, and a good end stay what they are.
        assert_eq!(exits(&ended(1, "Error"), true), [said(3, 1, "Error")]);
        assert_eq!(exits(&ended(137, "OOMKilled"), true), [said(3, 137, "OOMKilled")]);
        assert_eq!(exits(&ended(0, "Completed"), true), [said(3, 0, "Completed")]);
        // So does what happened to the instance before: nobody had asked for the pod's end yet.
        let killed = r#"{"terminated":{"exitCode":137,"reason":"Error","containerID":"containerd://a"}}"#;
        let status = ended(143, "Error").replace("\"lastState\":{}", &format!("\"lastState\":{killed}"));
        assert_eq!(exits(&status, true), [said(2, 137, "Error")]);
    }

    #[test]
    fn a_count_that_cannot_be_is_no_instance() {
        let status = format!(r#""restartCount":-7,"state":{{"running":{{}}}},"lastState":{OOM}"#);
        assert_eq!(exits(&status, false), []);
        let status = r#""restartCount":0,"state":{"running":{}},"lastState":{}"#;
        assert_eq!(exits(status, false), []);
    }

    #[test]
    fn a_reason_that_is_not_the_kubelets_is_replaced() {
        for (reason, code, expected) in [
            ("a\\nb", 1, "Error"),
            ("", 0, "Completed"),
            ("é", 2, "Error"),
            ("StartError", 128, "StartError"),
        ] {
            let end = format!(r#"{{"terminated":{{"exitCode":{code},"reason":"{reason}"}}}}"#);
            assert_eq!(
                exits(&format!(r#""restartCount":0,"state":{end}"#), false),
                [said(0, code, expected)]
            );
        }
    }
}
