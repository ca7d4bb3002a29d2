//! Alerts about the agent itself: whether it runs, on what, with which config.
//!
//! In: nothing. Out: [`ALERTS`]. Invariant: all that is about one agent carries `node`, by which Alertmanager finds it when
//! the agent of that node is down; what would be silent where a series is missing says so in its expression.

use super::{Alert, Case, Subject};
use crate::slo::render::Urgency;

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "NodewickDownOnNode",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
max by (cluster, node) (kube_node_status_condition{condition=\"Ready\",status=\"true\"} == 1)
unless on (cluster, node)
kube_node_info{os_image=~\"Windows.*\"}
unless on (cluster, node)
nodewick_build_info",
        hold: Some("5m"),
        summary: "{{ $labels.node }} is ready and has no nodewick",
        description: "Nothing is heard of the agent there. The kubelet keeps its logs as long as they are not rotated away.",
        cases: &[
            Case {
                what: "of two ready nodes the one without an agent",
                input: &[
                    ("kube_node_status_condition{node=\"n1\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n2\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n2\",version=\"1.0.0\"}", "1+0x20"),
                ],
                expected: &[("4m", &[]), ("6m", &["node=\"n1\""])],
            },
            Case {
                what: "a node that is not ready, one with Windows, and one whose agent has just come back",
                input: &[
                    ("kube_node_status_condition{node=\"n1\",condition=\"Ready\",status=\"true\"}", "0+0x20"),
                    ("kube_node_status_condition{node=\"n2\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_info{node=\"n2\",os_image=\"Windows Server 2022\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n3\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n3\",version=\"1.0.0\"}", "_x3 1+0x20"),
                ],
                expected: &[("6m", &[]), ("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickDownOnNode",
        urgency: Urgency::Page,
        about: Subject::Cluster,
        expr: "\
count by (cluster) (
  max by (cluster, node) (kube_node_status_condition{condition=\"Ready\",status=\"true\"} == 1)
  unless on (cluster, node)
  kube_node_info{os_image=~\"Windows.*\"}
  unless on (cluster, node)
  nodewick_build_info
)
/ on (cluster)
count by (cluster) (
  max by (cluster, node) (kube_node_status_condition{condition=\"Ready\",status=\"true\"} == 1)
)
> 0.2",
        hold: Some("5m"),
        summary: "{{ $value | humanizePercentage }} of the ready nodes have no nodewick",
        description: "More than a fifth of the nodes: not a node's own trouble. Look at the last rollout, the image, the quota.",
        cases: &[
            Case {
                what: "two nodes of five",
                input: &[
                    ("kube_node_status_condition{node=\"n1\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n2\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n3\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n4\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n5\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n1\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n2\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n3\"}", "1+0x20"),
                ],
                expected: &[("4m", &[]), ("6m", &[""])],
            },
            Case {
                what: "one node of five is a ticket",
                input: &[
                    ("kube_node_status_condition{node=\"n1\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n2\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n3\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n4\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("kube_node_status_condition{node=\"n5\",condition=\"Ready\",status=\"true\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n1\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n2\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n3\"}", "1+0x20"),
                    ("nodewick_build_info{node=\"n4\"}", "1+0x20"),
                ],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickAbsent",
        urgency: Urgency::Page,
        about: Subject::Cluster,
        expr: "absent(nodewick_build_info)",
        hold: Some("10m"),
        summary: "no nodewick is seen anywhere",
        description: "No agent has been scraped for ten minutes: either none runs, or Prometheus does not find them.",
        cases: &[
            Case {
                what: "all agents are gone",
                input: &[("nodewick_build_info{node=\"n1\"}", "1+0x5 stale _x30")],
                expected: &[("5m", &[]), ("15m", &[]), ("17m", &[""])],
            },
            Case {
                what: "one agent is left",
                input: &[
                    ("nodewick_build_info{node=\"n1\"}", "1+0x5 stale _x30"),
                    ("nodewick_build_info{node=\"n2\"}", "1+0x40"),
                ],
                expected: &[("30m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickCrashLooping",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
max by (cluster, node) (
  changes(process_start_time_seconds[30m])
  and on (cluster, node, job, instance)
  count_over_time(nodewick_logs_open[30m])
)
>= 3",
        hold: None,
        summary: "{{ $labels.node }}: nodewick was started {{ $value }} times in half an hour",
        description: "`kubectl describe pod` says how it ended: an OOM kill, a failed probe, exit code 78 for a config that cannot be used.",
        cases: &[
            Case {
                what: "three starts after the first",
                input: &[
                    (
                        "process_start_time_seconds{node=\"n1\",job=\"nodewick\",instance=\"a\"}",
                        "10+0x4 300+0x4 600+0x4 900+0x20",
                    ),
                    ("nodewick_logs_open{node=\"n1\",job=\"nodewick\",instance=\"a\"}", "20+0x35"),
                ],
                expected: &[("14m", &[]), ("16m", &["node=\"n1\""])],
            },
            Case {
                what: "one restart, and another program that restarts all the time",
                input: &[
                    (
                        "process_start_time_seconds{node=\"n1\",job=\"nodewick\",instance=\"a\"}",
                        "10+0x4 300+0x30",
                    ),
                    ("nodewick_logs_open{node=\"n1\",job=\"nodewick\",instance=\"a\"}", "20+0x35"),
                    ("process_start_time_seconds{node=\"n1\",job=\"other\",instance=\"b\"}", "10+60x35"),
                ],
                expected: &[("25m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickNearMemoryLimit",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "max by (cluster, node) (process_resident_memory_bytes / (nodewick_memory_limit_bytes > 0)) > 0.9",
        hold: Some("10m"),
        summary: "{{ $labels.node }}: nodewick uses {{ $value | humanizePercentage }} of its memory limit",
        description: "`nodewick check` adds up what it may need with this config. An OOM kill loses no line, but delays all of them.",
        cases: &[
            Case {
                what: "95 of 100",
                input: &[
                    ("process_resident_memory_bytes{node=\"n1\",job=\"nodewick\",instance=\"a\"}", "95+0x20"),
                    ("nodewick_memory_limit_bytes{node=\"n1\",job=\"nodewick\",instance=\"a\"}", "100+0x20"),
                ],
                expected: &[("9m", &[]), ("11m", &["node=\"n1\""])],
            },
            Case {
                what: "half of it, no limit at all, and another program",
                input: &[
                    ("process_resident_memory_bytes{node=\"n1\",job=\"nodewick\",instance=\"a\"}", "50+0x20"),
                    ("nodewick_memory_limit_bytes{node=\"n1\",job=\"nodewick\",instance=\"a\"}", "100+0x20"),
                    ("process_resident_memory_bytes{node=\"n2\",job=\"nodewick\",instance=\"b\"}", "95+0x20"),
                    ("nodewick_memory_limit_bytes{node=\"n2\",job=\"nodewick\",instance=\"b\"}", "0+0x20"),
                    ("process_resident_memory_bytes{node=\"n1\",job=\"other\",instance=\"c\"}", "990+0x20"),
                ],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickClockSkew",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "max by (cluster, node, peer) (abs(nodewick_clock_skew_seconds)) > 5",
        hold: Some("10m"),
        summary: "{{ $labels.node }}: its clock and that of {{ $labels.peer }} differ by {{ $value }} s",
        description: "Lines and samples get wrong times; Loki refuses lines that are ten minutes ahead. If all nodes differ from one peer, it is \
                      the peer's clock.",
        cases: &[
            Case {
                what: "90 s behind the API server",
                input: &[
                    ("nodewick_clock_skew_seconds{node=\"n1\",peer=\"kubernetes\"}", "-90+0x20"),
                    ("nodewick_clock_skew_seconds{node=\"n1\",peer=\"loki.example.com\"}", "1+0x20"),
                ],
                expected: &[("9m", &[]), ("11m", &["node=\"n1\",peer=\"kubernetes\""])],
            },
            Case {
                what: "a few seconds, and one slow answer",
                input: &[(
                    "nodewick_clock_skew_seconds{node=\"n1\",peer=\"kubernetes\"}",
                    "-4 -4 12 -4+0x20",
                )],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickConfigRejected",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "min by (cluster, node) (nodewick_config_last_reload_successful) == 0",
        hold: Some("1m"),
        summary: "{{ $labels.node }}: the new config cannot be used",
        description: "The last good one stays in force; a restart would not start. The agent's log says which line is wrong.",
        cases: &[
            Case {
                what: "a config with a mistake at minute three",
                input: &[("nodewick_config_last_reload_successful{node=\"n1\"}", "1 1 1 0+0x20")],
                expected: &[("3m", &[]), ("4m", &["node=\"n1\""])],
            },
            Case {
                what: "a good config",
                input: &[("nodewick_config_last_reload_successful{node=\"n1\"}", "1+0x20")],
                expected: &[("10m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickConfigSkew",
        urgency: Urgency::Ticket,
        about: Subject::Cluster,
        expr: "count by (cluster) (count by (cluster, hash) (nodewick_config_info)) > 1",
        hold: Some("1h"),
        summary: "agents run with {{ $value }} different configs",
        description: "For an hour: more than a rollout takes. `count by (hash) (nodewick_config_info)` says how many run with which.",
        cases: &[
            Case {
                what: "one of three nodes stays with the old config",
                input: &[
                    ("nodewick_config_info{node=\"n1\",hash=\"0a1b2c3d\"}", "1+0x9 stale _x90"),
                    ("nodewick_config_info{node=\"n1\",hash=\"44556677\"}", "_x9 1+0x90"),
                    ("nodewick_config_info{node=\"n2\",hash=\"0a1b2c3d\"}", "1+0x9 stale _x90"),
                    ("nodewick_config_info{node=\"n2\",hash=\"44556677\"}", "_x9 1+0x90"),
                    ("nodewick_config_info{node=\"n3\",hash=\"0a1b2c3d\"}", "1+0x99"),
                ],
                expected: &[("65m", &[]), ("75m", &[""])],
            },
            Case {
                what: "a rollout that takes ten minutes",
                input: &[
                    ("nodewick_config_info{node=\"n1\",hash=\"0a1b2c3d\"}", "1+0x9 stale _x90"),
                    ("nodewick_config_info{node=\"n1\",hash=\"44556677\"}", "_x9 1+0x90"),
                    ("nodewick_config_info{node=\"n2\",hash=\"0a1b2c3d\"}", "1+0x19 stale _x80"),
                    ("nodewick_config_info{node=\"n2\",hash=\"44556677\"}", "_x19 1+0x80"),
                ],
                expected: &[("75m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickWatchStale",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
time() - max by (cluster, node, resource) (nodewick_kube_last_contact_timestamp_seconds) > 300
or
max by (cluster, node, resource) (nodewick_kube_synced) == 0",
        hold: Some("5m"),
        summary: "{{ $labels.node }}: nothing is heard of {{ $labels.resource }} from Kubernetes",
        description: "Neither an event nor a bookmark for ten minutes, or never a whole list. Logs flow; new pods have labels of their path only, \
                      and their targets are not found.",
        cases: &[
            Case {
                what: "the last bookmark comes at minute five",
                input: &[
                    (
                        "nodewick_kube_last_contact_timestamp_seconds{node=\"n1\",resource=\"pods\"}",
                        "0+60x5 300+0x30",
                    ),
                    ("nodewick_kube_synced{node=\"n1\",resource=\"pods\"}", "1+0x35"),
                ],
                expected: &[("15m", &[]), ("17m", &["node=\"n1\",resource=\"pods\""])],
            },
            Case {
                what: "nobody ever answered",
                input: &[("nodewick_kube_synced{node=\"n1\",resource=\"pods\"}", "0+0x35")],
                expected: &[("4m", &[]), ("6m", &["node=\"n1\",resource=\"pods\""])],
            },
            Case {
                what: "bookmarks every minute and no event",
                input: &[
                    (
                        "nodewick_kube_last_contact_timestamp_seconds{node=\"n1\",resource=\"pods\"}",
                        "0+60x35",
                    ),
                    ("nodewick_kube_synced{node=\"n1\",resource=\"pods\"}", "1+0x35"),
                ],
                expected: &[("30m", &[])],
            },
        ],
    },
];
