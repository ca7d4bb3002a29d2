//! Alerts about what takes lines and samples: backends, buffers, limits.
//!
//! In: nothing. Out: [`ALERTS`]. Invariant: nothing fires for want of data to deliver.

use super::{Alert, Case, Subject};
use crate::slo::render::Urgency;

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "NodewickExportFailing",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
time() - max by (cluster, node, sink) (nodewick_sink_last_success_timestamp_seconds) > 300
and on (cluster, node, sink)
(
  max by (cluster, node, sink) (min_over_time(nodewick_sink_queue_bytes[5m])) > 0
  or
  max by (cluster, node, sink) (min_over_time(nodewick_sink_samples_queue_bytes[5m])) > 0
)",
        hold: None,
        summary: "{{ $labels.node }}: sink {{ $labels.sink }} has delivered nothing for {{ $value | humanizeDuration }}",
        description: "And data has waited for it all the time. `nodewick status` shows what the backend said last.",
        cases: &[
            Case {
                what: "the last success is at minute five and lines wait from then on",
                input: &[
                    ("nodewick_sink_last_success_timestamp_seconds{node=\"n1\",sink=\"main\"}", "0+60x5 300+0x30"),
                    ("nodewick_sink_queue_bytes{node=\"n1\",sink=\"main\"}", "0+0x5 5000+100x30"),
                ],
                expected: &[("10m", &[]), ("12m", &["node=\"n1\",sink=\"main\""])],
            },
            Case {
                what: "a sink of samples that has never delivered anything since it was started",
                input: &[
                    ("nodewick_sink_last_success_timestamp_seconds{node=\"n1\",sink=\"metrics\"}", "0+0x30"),
                    ("nodewick_sink_samples_queue_bytes{node=\"n1\",sink=\"metrics\"}", "100+100x30"),
                ],
                expected: &[("5m", &[]), ("7m", &["node=\"n1\",sink=\"metrics\""])],
            },
            Case {
                what: "nothing to deliver for half an hour, then lines of this minute; another one is busy and delivers",
                input: &[
                    ("nodewick_sink_last_success_timestamp_seconds{node=\"n1\",sink=\"idle\"}", "0+0x40"),
                    ("nodewick_sink_queue_bytes{node=\"n1\",sink=\"idle\"}", "0+0x30 700 0+0x9"),
                    ("nodewick_sink_last_success_timestamp_seconds{node=\"n1\",sink=\"busy\"}", "0+60x40"),
                    ("nodewick_sink_queue_bytes{node=\"n1\",sink=\"busy\"}", "9000+0x40"),
                ],
                expected: &[("20m", &[]), ("31m", &[]), ("40m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickBufferFullSoon",
        urgency: Urgency::Page,
        about: Subject::Node,
        expr: "\
max by (cluster, node) (
  predict_linear(nodewick_spill_bytes[30m], 1800) > nodewick_spill_limit_bytes
  and nodewick_spill_limit_bytes > 0
  and nodewick_spill_bytes > 0.1 * nodewick_spill_limit_bytes
)",
        hold: Some("5m"),
        summary: "{{ $labels.node }}: the spill is full in less than half an hour",
        description: "At the pace of the last half hour it would hold {{ $value | humanize1024 }}B then, more than [logs.spill] budget. When it \
                      is full, the oldest lines of the largest backlog are given up.",
        cases: &[
            Case {
                what: "a limit of 1,000 and 20 more every minute: 900 in half an hour at minute 15, 1,100 at minute 25",
                input: &[
                    ("nodewick_spill_bytes{node=\"n1\"}", "0+20x60"),
                    ("nodewick_spill_limit_bytes{node=\"n1\"}", "1000+0x60"),
                ],
                expected: &[("15m", &[]), ("27m", &["node=\"n1\""])],
            },
            Case {
                what: "a spill that is off, an empty one, and one that drains",
                input: &[
                    ("nodewick_spill_bytes{node=\"n1\"}", "0+0x60"),
                    ("nodewick_spill_limit_bytes{node=\"n1\"}", "0+0x60"),
                    ("nodewick_spill_bytes{node=\"n2\"}", "0+0x60"),
                    ("nodewick_spill_limit_bytes{node=\"n2\"}", "1000+0x60"),
                    ("nodewick_spill_bytes{node=\"n3\"}", "900-10x60"),
                    ("nodewick_spill_limit_bytes{node=\"n3\"}", "1000+0x60"),
                ],
                expected: &[("30m", &[]), ("50m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickBufferFull",
        urgency: Urgency::Page,
        about: Subject::Node,
        expr: "\
label_replace(
  max by (cluster, node) (nodewick_spill_bytes / (nodewick_spill_limit_bytes > 0)),
  \"buffer\", \"spill\", \"\", \"\"
) > 0.95
or
label_replace(
  max by (cluster, node) (nodewick_budget_held_bytes / (nodewick_budget_limit_bytes > 0))
  unless
  max by (cluster, node) (nodewick_log_oldest_unread_age_seconds) < 60,
  \"buffer\", \"memory\", \"\", \"\"
) > 0.95",
        hold: Some("5m"),
        summary: "{{ $labels.node }}: {{ $labels.buffer }} is {{ $value | humanizePercentage }} full",
        description: "memory: reading has stopped, and log files wait until they are rotated away. spill: what is rotated away from now on \
                      is lost.",
        cases: &[
            Case {
                what: "memory is full from minute two on and lines wait",
                input: &[
                    ("nodewick_budget_held_bytes{node=\"n1\"}", "100 100 960+0x20"),
                    ("nodewick_budget_limit_bytes{node=\"n1\"}", "1000+0x22"),
                    ("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "0 0 60+60x20"),
                ],
                expected: &[("6m", &[]), ("8m", &["node=\"n1\",buffer=\"memory\""])],
            },
            Case {
                what: "the spill is full",
                input: &[
                    ("nodewick_spill_bytes{node=\"n1\"}", "960+0x20"),
                    ("nodewick_spill_limit_bytes{node=\"n1\"}", "1000+0x20"),
                ],
                expected: &[("4m", &[]), ("6m", &["node=\"n1\",buffer=\"spill\""])],
            },
            Case {
                what: "a spill that is off, and memory that is full with nothing waiting",
                input: &[
                    ("nodewick_spill_bytes{node=\"n1\"}", "0+0x20"),
                    ("nodewick_spill_limit_bytes{node=\"n1\"}", "0+0x20"),
                    ("nodewick_budget_held_bytes{node=\"n1\"}", "990+0x20"),
                    ("nodewick_budget_limit_bytes{node=\"n1\"}", "1000+0x20"),
                    ("nodewick_log_oldest_unread_age_seconds{node=\"n1\"}", "2+0x20"),
                ],
                expected: &[("15m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickRemoteWriteBehind",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
max by (cluster, node, sink) (nodewick_sink_newest_sample_timestamp_seconds{stage=\"taken\"})
- on (cluster, node, sink)
max by (cluster, node, sink) (nodewick_sink_newest_sample_timestamp_seconds{stage=\"delivered\"})
> 120",
        hold: Some("2m"),
        summary: "{{ $labels.node }}: samples reach {{ $labels.sink }} late",
        description: "{{ if gt $value 1e9 }}None has been delivered yet.{{ else }}The newest that was delivered is {{ $value | \
                      humanizeDuration }} older than the newest that is there.{{ end }} Five minutes are kept in memory.",
        cases: &[
            Case {
                what: "the receiver falls behind by half a minute every minute",
                input: &[
                    ("nodewick_sink_newest_sample_timestamp_seconds{node=\"n1\",sink=\"main\",stage=\"taken\"}", "0+60x30"),
                    ("nodewick_sink_newest_sample_timestamp_seconds{node=\"n1\",sink=\"main\",stage=\"delivered\"}", "0+30x30"),
                ],
                expected: &[("6m", &[]), ("8m", &["node=\"n1\",sink=\"main\""])],
            },
            Case {
                what: "a scrape interval behind, and a sink that has no targets",
                input: &[
                    ("nodewick_sink_newest_sample_timestamp_seconds{node=\"n1\",sink=\"main\",stage=\"taken\"}", "60+60x30"),
                    ("nodewick_sink_newest_sample_timestamp_seconds{node=\"n1\",sink=\"main\",stage=\"delivered\"}", "0+60x30"),
                    ("nodewick_sink_newest_sample_timestamp_seconds{node=\"n1\",sink=\"idle\",stage=\"taken\"}", "0+0x30"),
                    ("nodewick_sink_newest_sample_timestamp_seconds{node=\"n1\",sink=\"idle\",stage=\"delivered\"}", "0+0x30"),
                ],
                expected: &[("20m", &[])],
            },
        ],
    },
    Alert {
        name: "NodewickCardinalityLimit",
        urgency: Urgency::Ticket,
        about: Subject::Node,
        expr: "\
label_replace(
  max by (cluster, node) (nodewick_scrape_series / (nodewick_scrape_series_limit > 0)) > 0.9
  or
  sum by (cluster, node) (increase(nodewick_scrape_samples_total{outcome=\"series_limit\"}[15m])) > 0,
  \"limit\", \"scrape\", \"\", \"\"
)
or
label_replace(
  sum by (cluster, node) (increase(nodewick_red_refused_total{reason=~\"logs|workloads|pods|requests|series\"}[15m])) > 0,
  \"limit\", \"red\", \"\", \"\"
)",
        hold: None,
        summary: "{{ $labels.node }}: series are at the limit of {{ $labels.limit }}",
        description: "New series are refused, or soon will be; those that are there go on. scrape: [scrape] series_limit over all targets. \
                      red: workloads, pods or series that rate, errors and durations have no room for.",
        cases: &[
            Case {
                what: "more than nine tenths of the series",
                input: &[
                    ("nodewick_scrape_series{node=\"n1\"}", "800+20x20"),
                    ("nodewick_scrape_series_limit{node=\"n1\"}", "1000+0x20"),
                ],
                expected: &[("5m", &[]), ("6m", &["node=\"n1\",limit=\"scrape\""])],
            },
            Case {
                what: "a page whose new series are refused, and RED without room",
                input: &[
                    ("nodewick_scrape_samples_total{node=\"n1\",outcome=\"series_limit\"}", "0+0x4 10+10x20"),
                    ("nodewick_red_refused_total{node=\"n2\",reason=\"workloads\"}", "0+0x4 3+0x20"),
                ],
                expected: &[
                    ("4m", &[]),
                    ("6m", &["node=\"n1\",limit=\"scrape\"", "node=\"n2\",limit=\"red\""]),
                ],
            },
            Case {
                what: "half of the series, and a service with very many routes",
                input: &[
                    ("nodewick_scrape_series{node=\"n1\"}", "500+0x20"),
                    ("nodewick_scrape_series_limit{node=\"n1\"}", "1000+0x20"),
                    ("nodewick_scrape_samples_total{node=\"n1\",outcome=\"series_limit\"}", "0+0x20"),
                    ("nodewick_red_refused_total{node=\"n1\",reason=\"cells\"}", "0+40x20"),
                ],
                expected: &[("15m", &[])],
            },
        ],
    },
];
