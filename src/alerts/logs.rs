//! Alerts about lines on their way: lost, about to be lost, late.
//!
//! In: nothing. Out: [`ALERTS`]. Invariant: a guard against a false alarm is an `unless`, never an `and`: where its series is
//! missing the alert fires all the same.

use super::{Alert, Case, Subject};
use crate::slo::render::Urgency;

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "NodewickLossUnaccounted",
        urgency: Urgency::Page,
        about: Subject::Node,
        expr: "sum by (cluster, node) (abs(nodewick_ledger_unexplained_bytes)) > 0",
        hold: Some("15m"),
        summary: "{{ $labels.node }}: {{ $value | humanize1024 }}B of logs are unaccounted for",
        description: "What was written to logs is more, or less, than the sum of what was sent, dropped, lost and what waits. Either a \
                      log was tampered with, or it is a bug in nodewick.",
        cases: &[
            Case {
                what: "512 bytes that nobody can explain, from the fifth minute on",
                input: &[("nodewick_ledger_unexplained_bytes{node=\"n1\"}", "0+0x4 512+0x40")],
                expected: &[("19m", &[]), ("21m", &["node=\"n1\""])],
            },
            Case {
                what: "more is accounted for than was written",
                input: &[("nodewick_ledger_unexplained_bytes{node=\"n1\"}", "-512+0x40")],
                expected: &[("16m", &["node=\"n1\""])],
            },
            Case {
                what: "the ledger balances",
                input: &[("nodewick_ledger_unexplained_bytes{node=\"n1\"}", "0+0x40")],
                expected: &[("30m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickRotatedBeforeRead",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
sum by (cluster, node, reason) (increase(nodewick_log_lost_bytes_total[10m])) > 0
or
label_replace(sum by (cluster, node) (increase(nodewick_log_gaps_total[10m])) > 0, \"reason\", \"gap\", \"\", \"\")",
        hold: None,
        summary: "{{ $labels.node }}: logs were lost before they could be read ({{ $labels.reason }})",
        description: "{{ if eq $labels.reason \"gap\" }}Holes of unknown size{{ else }}Bytes{{ end }} in ten minutes: {{ if eq $labels.reason \
                      \"gap\" }}{{ printf \"%.0f\" $value }}{{ else }}{{ $value | humanize1024 }}{{ end }}. The agent's own log names the \
                      containers.",
        cases: &[
            Case {
                what: "four kilobytes were rotated away",
                input: &[
                    ("nodewick_log_lost_bytes_total{node=\"n1\",reason=\"rotated_away\"}", "0+0x4 4096+0x30"),
                    ("nodewick_log_lost_bytes_total{node=\"n1\",reason=\"truncated\"}", "0+0x40"),
                    ("nodewick_log_gaps_total{node=\"n1\"}", "0+0x40"),
                ],
                expected: &[("4m", &[]), ("6m", &["node=\"n1\",reason=\"rotated_away\""]), ("20m", &[])],
            },
            Case {
                what: "a hole of unknown size",
                input: &[("nodewick_log_gaps_total{node=\"n1\"}", "0+0x4 1+0x30")],
                expected: &[("6m", &["node=\"n1\",reason=\"gap\""])],
            },
            Case {
                what: "what was lost long ago",
                input: &[("nodewick_log_lost_bytes_total{node=\"n1\",reason=\"spill_full\"}", "4096+0x40")],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickRotationRisk",
        urgency: Urgency::Page,
        about: Subject::Node,
        expr: "\
max by (cluster, node) (nodewick_log_generation_lag_max) >= 2
or
(
  max by (cluster, node) (nodewick_log_time_to_loss_min_seconds) < 900
  unless
  max by (cluster, node) (nodewick_log_oldest_unread_age_seconds) < 15
)",
        hold: Some("1m"),
        summary: "{{ $labels.node }}: the kubelet is about to delete logs that are not delivered",
        description: "Worst of its logs:\
                      {{ range query (printf \"max(nodewick_log_generation_lag_max{cluster=%q,node=%q})\" $labels.cluster $labels.node) }} {{ .Value }} rotations \
                      behind{{ end }}\
                      {{ range query (printf \"min(nodewick_log_time_to_loss_min_seconds{cluster=%q,node=%q})\" $labels.cluster $labels.node) }}\
                      {{ if lt .Value 31536000.0 }}, {{ .Value | humanizeDuration }} until unread bytes are deleted{{ end }}{{ end }}.",
        cases: &[
            Case {
                what: "two rotations behind",
                input: &[
                    ("nodewick_log_generation_lag_max{node=\"n1\"}", "0+0x4 2+0x20"),
                    ("nodewick_log_time_to_loss_min_seconds{node=\"n1\"}", "31536000+0x24"),
                ],
                expected: &[("5m", &[]), ("6m", &["node=\"n1\""])],
            },
            Case {
                what: "ten minutes until unread bytes are deleted",
                input: &[
                    ("nodewick_log_generation_lag_max{node=\"n1\"}", "0+0x24"),
                    ("nodewick_log_time_to_loss_min_seconds{node=\"n1\"}", "600+0x24"),
                    ("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "20+60x24"),
                ],
                expected: &[("0m", &[]), ("2m", &["node=\"n1\""])],
            },
            Case {
                what: "the same where nobody says how old unread lines are",
                input: &[("nodewick_log_time_to_loss_min_seconds{node=\"n1\"}", "600+0x24")],
                expected: &[("2m", &["node=\"n1\""])],
            },
            Case {
                what: "a log that is written fast and read as fast, rotated a moment ago",
                input: &[
                    ("nodewick_log_generation_lag_max{node=\"n1\"}", "0 1 0+0x20"),
                    ("nodewick_log_time_to_loss_min_seconds{node=\"n1\"}", "30+0x24"),
                    ("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "1+0x24"),
                ],
                expected: &[("1m", &[]), ("20m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickLinesDropped",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
(
  sum by (cluster, node, reason) (increase(nodewick_records_lost_total[10m]))
  or
  sum by (cluster, node, reason) (increase(nodewick_records_dropped_total{reason=\"rate_limit\"}[10m]))
)
/ on (cluster, node) group_left ()
sum by (cluster, node) (increase(nodewick_log_records_total[10m]))
> 0.001",
        hold: None,
        summary: "{{ $labels.node }}: {{ $value | humanizePercentage }} of the lines do not arrive ({{ $labels.reason }})",
        description: "In ten minutes. rate_limit is a rule of [process.limit]; any other reason is a backend's word: dead-letter.jsonl in the \
                      state directory has the lines.",
        cases: &[
            Case {
                what: "two lines of a thousand are refused as too old",
                input: &[
                    ("nodewick_records_lost_total{node=\"n1\",reason=\"too_old\"}", "0+2x30"),
                    ("nodewick_records_lost_total{node=\"n1\",reason=\"invalid\"}", "0+0x30"),
                    ("nodewick_log_records_total{node=\"n1\"}", "0+1000x30"),
                ],
                expected: &[("15m", &["node=\"n1\",reason=\"too_old\""])],
            },
            Case {
                what: "a rate limit takes one line of a hundred",
                input: &[
                    ("nodewick_records_dropped_total{node=\"n1\",reason=\"rate_limit\",rule=\"pods\"}", "0+10x30"),
                    ("nodewick_log_records_total{node=\"n1\"}", "0+1000x30"),
                ],
                expected: &[("15m", &["node=\"n1\",reason=\"rate_limit\""])],
            },
            Case {
                what: "drop and sample rules do what they are for, and one line of two thousand is refused",
                input: &[
                    ("nodewick_records_dropped_total{node=\"n1\",reason=\"drop\",rule=\"health\"}", "0+500x30"),
                    ("nodewick_records_dropped_total{node=\"n1\",reason=\"sample\",rule=\"debug\"}", "0+400x30"),
                    ("nodewick_records_lost_total{node=\"n1\",reason=\"too_large\"}", "0+1x30"),
                    ("nodewick_log_records_total{node=\"n1\"}", "0+2000x30"),
                ],
                expected: &[("15m", &[])],
            },
            Case {
                what: "nothing is written at all",
                input: &[
                    ("nodewick_records_lost_total{node=\"n1\",reason=\"too_old\"}", "0+0x30"),
                    ("nodewick_log_records_total{node=\"n1\"}", "0+0x30"),
                ],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickLinesDropped",
        urgency: Urgency::Page,
        about: Subject::Node,
        expr: "\
sum by (cluster, node, reason) (increase(nodewick_records_lost_total[10m]))
/ on (cluster, node) group_left ()
sum by (cluster, node) (increase(nodewick_log_records_total[10m]))
> 0.05",
        hold: None,
        summary: "{{ $labels.node }}: {{ $value | humanizePercentage }} of the lines are lost ({{ $labels.reason }})",
        description: "In ten minutes. Backends refused them for good; dead-letter.jsonl in the state directory has them, up to 16 MiB.",
        cases: &[
            Case {
                what: "six lines of a hundred",
                input: &[
                    ("nodewick_records_lost_total{node=\"n1\",reason=\"too_far_behind\"}", "0+60x30"),
                    ("nodewick_log_records_total{node=\"n1\"}", "0+1000x30"),
                ],
                expected: &[("15m", &["node=\"n1\",reason=\"too_far_behind\""])],
            },
            Case {
                what: "four of a hundred are a ticket, and so is a rate limit",
                input: &[
                    ("nodewick_records_lost_total{node=\"n1\",reason=\"too_far_behind\"}", "0+40x30"),
                    ("nodewick_records_dropped_total{node=\"n1\",reason=\"rate_limit\",rule=\"pods\"}", "0+500x30"),
                    ("nodewick_log_records_total{node=\"n1\"}", "0+1000x30"),
                ],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickReadLag",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "max by (cluster, node) (nodewick_log_oldest_unread_age_seconds) > 60",
        hold: Some("10m"),
        summary: "{{ $labels.node }}: lines have waited for {{ $value | humanizeDuration }} to be read",
        description: "The files keep them until they are rotated away. Usually a backend is slow or down, or the agent has too little CPU.",
        cases: &[
            Case {
                what: "the oldest unread line grows older from the fifth minute on",
                input: &[("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "0+0x4 0+60x30")],
                expected: &[("16m", &[]), ("18m", &["node=\"n1\""])],
            },
            Case {
                what: "a burst that is read within five minutes",
                input: &[("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "0+0x4 70 130 190 130 70 0+0x30")],
                expected: &[("9m", &[]), ("16m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickReadLag",
        urgency: Urgency::Page,
        about: Subject::Node,
        expr: "max by (cluster, node) (nodewick_log_oldest_unread_age_seconds) > 600",
        hold: Some("10m"),
        summary: "{{ $labels.node }}: lines have waited for {{ $value | humanizeDuration }} to be read",
        description: "The files keep them until they are rotated away. Usually a backend is slow or down, or the agent has too little CPU.",
        cases: &[
            Case {
                what: "the oldest unread line grows older from the start",
                input: &[("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "0+60x40")],
                expected: &[("20m", &[]), ("22m", &["node=\"n1\""])],
            },
            Case {
                what: "five minutes are a ticket",
                input: &[("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "300+0x40")],
                expected: &[("30m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickCheckpointStale",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
time() - max by (cluster, node) (nodewick_checkpoint_timestamp_seconds) > 300
and on (cluster, node)
sum by (cluster, node) (rate(nodewick_log_read_bytes_total[5m])) > 0
unless on (cluster, node)
sum by (cluster, node) (increase(nodewick_sink_records_total{outcome=\"delivered\"}[5m])) == 0",
        hold: Some("1m"),
        summary: "{{ $labels.node }}: positions have not been saved for {{ $value | humanizeDuration }}",
        description: "Lines are read and delivered. A restart now would send those of this time once more.",
        cases: &[
            Case {
                what: "lines flow and the last checkpoint is of minute five",
                input: &[
                    ("nodewick_checkpoint_timestamp_seconds{node=\"n1\"}", "0+60x5 300+0x30"),
                    ("nodewick_log_read_bytes_total{node=\"n1\"}", "0+5000x40"),
                    ("nodewick_sink_records_total{node=\"n1\",sink=\"main\",outcome=\"delivered\"}", "0+50x40"),
                ],
                expected: &[("10m", &[]), ("13m", &["node=\"n1\""])],
            },
            Case {
                what: "nothing is written on one node, and on the other the backend takes nothing",
                input: &[
                    ("nodewick_checkpoint_timestamp_seconds{node=\"n1\"}", "0+0x40"),
                    ("nodewick_log_read_bytes_total{node=\"n1\"}", "7000+0x40"),
                    ("nodewick_checkpoint_timestamp_seconds{node=\"n2\"}", "0+0x40"),
                    ("nodewick_log_read_bytes_total{node=\"n2\"}", "0+5000x40"),
                    ("nodewick_sink_records_total{node=\"n2\",sink=\"main\",outcome=\"delivered\"}", "9+0x40"),
                ],
                expected: &[("30m", &[])],
            },
        ],
    },
];
