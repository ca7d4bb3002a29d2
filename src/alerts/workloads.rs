//! Alerts about workloads, by what the agents count of their logs and targets.
//!
//! In: nothing. Out: [`ALERTS`]. Invariants: sums over all nodes, labels `namespace` and `workload`; what is
//! compared with earlier hours stays silent until there are some, and nothing fires for ever because a workload is as it
//! always was.

use super::{Alert, Case, Subject};
use crate::slo::render::Urgency;

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "WorkloadScrapeFailing",
        urgency: Urgency::Ticket,
        about: Subject::Targets,
        expr: "avg by (cluster, namespace, workload) (up{workload!=\"\"}) < 0.5",
        hold: Some("5m"),
        summary: "{{ $labels.namespace }}/{{ $labels.workload }}: {{ $value | humanizePercentage }} of its targets can be scraped",
        description: "Its own metrics are missing, and so are alerts that read them. `nodewick why <pod>` says why a target fails.",
        cases: &[
            Case {
                what: "two of three targets are down from minute four on",
                input: &[
                    ("up{namespace=\"shop\",workload=\"till\",pod=\"a\"}", "1 1 1 1 0+0x20"),
                    ("up{namespace=\"shop\",workload=\"till\",pod=\"b\"}", "1 1 1 1 0+0x20"),
                    ("up{namespace=\"shop\",workload=\"till\",pod=\"c\"}", "1+0x24"),
                ],
                expected: &[("8m", &[]), ("10m", &["namespace=\"shop\",workload=\"till\""])],
            },
            Case {
                what: "one of two, and a target that is no workload's",
                input: &[
                    ("up{namespace=\"shop\",workload=\"till\",pod=\"a\"}", "0+0x24"),
                    ("up{namespace=\"shop\",workload=\"till\",pod=\"b\"}", "1+0x24"),
                    ("up{job=\"node\"}", "0+0x24"),
                ],
                expected: &[("20m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadPanic",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "sum by (cluster, namespace, workload) (increase(nodewick_workload_panics_total[10m])) > 0",
        hold: None,
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} panicked",
        description: "Its log has a panic, or an exception that nobody caught, in the last ten minutes.",
        cases: &[
            Case {
                what: "one panic at minute five",
                input: &[
                    ("nodewick_workload_panics_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}", "0+0x4 1+0x30"),
                    ("nodewick_workload_panics_total{node=\"n2\",namespace=\"shop\",workload=\"till\"}", "0+0x35"),
                ],
                expected: &[("4m", &[]), ("5m", &["namespace=\"shop\",workload=\"till\""]), ("20m", &[])],
            },
            Case {
                what: "panics of yesterday",
                input: &[("nodewick_workload_panics_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}", "3+0x30")],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadErrorBurst",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "\
sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total{level=~\"error|fatal\"}[5m])) > 50
and
sum by (cluster, namespace, workload) (rate(nodewick_workload_lines_total{level=~\"error|fatal\"}[5m]))
> 10 * avg_over_time(
  sum by (cluster, namespace, workload) (rate(nodewick_workload_lines_total{level=~\"error|fatal\"}[5m]))[6h:5m] offset 1h
)",
        hold: Some("5m"),
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} logs many more errors than usual",
        description: "Lines of level error or fatal in five minutes: {{ printf \"%.0f\" $value }}, more than ten times the mean of the six hours before the last.",
        cases: &[
            Case {
                what: "one error a minute for three hours, then forty",
                input: &[(
                    "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"till\",level=\"error\"}",
                    "0+1x180 220+40x30",
                )],
                expected: &[("180m", &[]), ("183m", &[]), ("190m", &["namespace=\"shop\",workload=\"till\""])],
            },
            Case {
                what: "a new workload, of which nobody knows what is usual",
                input: &[(
                    "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"new\",level=\"fatal\"}",
                    "_x10 0+60x30",
                )],
                expected: &[("20m", &[]), ("30m", &[])],
            },
            Case {
                what: "forty errors a minute, as always, and info lines by the thousand",
                input: &[
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"till\",level=\"error\"}",
                        "0+40x240",
                    ),
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"web\",level=\"info\"}",
                        "0+0x180 5000+5000x60",
                    ),
                ],
                expected: &[("60m", &[]), ("230m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadNewErrorPattern",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "sum by (cluster, namespace, workload) (increase(nodewick_workload_new_error_patterns_total[15m])) > 0",
        hold: None,
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} logs an error that it has not logged before",
        description: "New patterns in fifteen minutes: {{ printf \"%.0f\" $value }}. Ids and numbers in a message make no new pattern.",
        cases: &[
            Case {
                what: "a new one at minute five",
                input: &[(
                    "nodewick_workload_new_error_patterns_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                    "0+0x4 1+0x40",
                )],
                expected: &[("4m", &[]), ("6m", &["namespace=\"shop\",workload=\"till\""]), ("30m", &[])],
            },
            Case {
                what: "an agent that starts again and begins to count at 0",
                input: &[(
                    "nodewick_workload_new_error_patterns_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                    "7+0x9 0+0x30",
                )],
                expected: &[("12m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadLogFlood",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "\
sum by (cluster, namespace, workload) (rate(nodewick_workload_log_bytes_total[10m])) > 1048576
and
sum by (cluster, namespace, workload) (rate(nodewick_workload_log_bytes_total[10m]))
> 5 * avg_over_time(
  sum by (cluster, namespace, workload) (rate(nodewick_workload_log_bytes_total[10m]))[6h:10m] offset 1h
)",
        hold: Some("10m"),
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} writes {{ $value | humanize1024 }}B of logs a second",
        description: "More than 1 MiB a second and more than five times the mean of the six hours before the last. It costs money and pushes other \
                      lines out of the kubelet's files.",
        cases: &[
            Case {
                what: "6 MB a minute (100 kB/s) for two hours, then 120 MB a minute (2 MB/s)",
                input: &[(
                    "nodewick_workload_log_bytes_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                    "0+6000000x120 840000000+120000000x40",
                )],
                expected: &[("120m", &[]), ("128m", &[]), ("145m", &["namespace=\"shop\",workload=\"till\""])],
            },
            Case {
                what: "2 MB/s as always, and a quiet one that writes twenty times as much as before, 200 kB/s",
                input: &[
                    (
                        "nodewick_workload_log_bytes_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                        "0+120000000x160",
                    ),
                    (
                        "nodewick_workload_log_bytes_total{node=\"n1\",namespace=\"shop\",workload=\"web\"}",
                        "0+600000x120 72000000+12000000x40",
                    ),
                ],
                expected: &[("60m", &[]), ("150m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadSilent",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "\
sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total[15m])) == 0
and
sum by (cluster, namespace, workload) (nodewick_workload_logs) > 0
and
(
  min_over_time(sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total[15m]))[3h:15m] offset 15m) >= 10
  and
  sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total[15m] offset 3h)) > 0
  or
  max by (cluster, namespace, workload) (ALERTS{alertname=\"WorkloadSilent\",alertstate=\"firing\"})
)",
        hold: None,
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} has stopped logging",
        description: "It runs, wrote lines in every quarter of an hour for three hours, and none in the last fifteen minutes: it may hang.",
        cases: &[
            Case {
                what: "two lines a minute for four hours, then none for as long as it is looked at",
                input: &[
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"till\",level=\"info\"}",
                        "0+2x240 480+0x200",
                    ),
                    ("nodewick_workload_logs{node=\"n1\",namespace=\"shop\",workload=\"till\"}", "1+0x440"),
                ],
                expected: &[
                    ("240m", &[]),
                    ("250m", &[]),
                    ("258m", &["namespace=\"shop\",workload=\"till\""]),
                    ("430m", &["namespace=\"shop\",workload=\"till\""]),
                ],
            },
            Case {
                what: "one that was scaled to zero, one that says something once an hour, and one that talked at its start only",
                input: &[
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"gone\",level=\"info\"}",
                        "0+2x240 480+0x200",
                    ),
                    ("nodewick_workload_logs{node=\"n1\",namespace=\"shop\",workload=\"gone\"}", "1+0x240 0+0x200"),
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"hourly\",level=\"info\"}",
                        "0+0x58 50+0x59 100+0x59 150+0x59 200+0x200",
                    ),
                    ("nodewick_workload_logs{node=\"n1\",namespace=\"shop\",workload=\"hourly\"}", "1+0x440"),
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"young\",level=\"info\"}",
                        "_x200 0+20x30 600+0x200",
                    ),
                    ("nodewick_workload_logs{node=\"n1\",namespace=\"shop\",workload=\"young\"}", "_x200 1+0x230"),
                ],
                expected: &[("245m", &[]), ("250m", &[]), ("258m", &[]), ("300m", &[]), ("400m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadSecretLeak",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "sum by (cluster, namespace, workload) (increase(nodewick_workload_secret_records_total[15m])) > 0",
        hold: None,
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} writes secrets into its log",
        description: "Lines with a key, a token or a password in fifteen minutes: {{ printf \"%.0f\" $value }}. They were redacted before they left \
                      the node; the files on the node have them.",
        cases: &[
            Case {
                what: "a token at minute five",
                input: &[(
                    "nodewick_workload_secret_records_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                    "0+0x4 1+0x40",
                )],
                expected: &[("4m", &[]), ("6m", &["namespace=\"shop\",workload=\"till\""]), ("30m", &[])],
            },
            Case {
                what: "none since the morning",
                input: &[(
                    "nodewick_workload_secret_records_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                    "12+0x40",
                )],
                expected: &[("30m", &[])],
            },
        ],
    },
    Alert {
        name: "WorkloadUnparsed",
        urgency: Urgency::Ticket,
        about: Subject::Log,
        expr: "\
sum by (cluster, namespace, workload) (increase(nodewick_workload_unparsed_records_total[30m]))
/ sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total[30m]))
> 0.5
and
sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total[30m])) > 100
and
sum by (cluster, namespace, workload) (increase(nodewick_workload_unparsed_records_total[1d] offset 1h))
/ sum by (cluster, namespace, workload) (increase(nodewick_workload_lines_total[1d] offset 1h))
< 0.1",
        hold: Some("15m"),
        summary: "{{ $labels.namespace }}/{{ $labels.workload }}: nothing is recognised in {{ $value | humanizePercentage }} of its lines any more",
        description: "Yesterday it was less than a tenth. Its log format has changed: levels, trace ids and requests are missing from then on.",
        cases: &[
            Case {
                what: "ten lines a minute, all recognised for three hours, then none",
                input: &[
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"till\",level=\"info\"}",
                        "0+10x180 1800+0x60",
                    ),
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"till\",level=\"unknown\"}",
                        "0+0x180 10+10x60",
                    ),
                    (
                        "nodewick_workload_unparsed_records_total{node=\"n1\",namespace=\"shop\",workload=\"till\"}",
                        "0+0x180 10+10x60",
                    ),
                ],
                expected: &[("180m", &[]), ("190m", &[]), ("220m", &["namespace=\"shop\",workload=\"till\""])],
            },
            Case {
                what: "plain text, as always",
                input: &[
                    (
                        "nodewick_workload_lines_total{node=\"n1\",namespace=\"shop\",workload=\"old\",level=\"unknown\"}",
                        "0+10x240",
                    ),
                    (
                        "nodewick_workload_unparsed_records_total{node=\"n1\",namespace=\"shop\",workload=\"old\"}",
                        "0+10x240",
                    ),
                ],
                expected: &[("100m", &[]), ("230m", &[])],
            },
        ],
    },
];
