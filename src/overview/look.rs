//! One look at everything that counts: plain numbers, so that two looks give rates.
//!
//! In: the metrics of this process, the accounts of all logs, RED, objectives, targets, health. Out: a [`Look`]. Invariant: a
//! look takes locks for the time of a copy, and changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::Metric;

use crate::admin::process;
use crate::data::account::{Account, Sums};
use crate::data::clock;
use crate::data::delivery::Loss;
use crate::data::tally::Dropping;
use crate::metrics;
use crate::red::Summary;
use crate::scrape::status::Row;
use crate::sink::said::Said;
use crate::slo::eval::Report;

/// Everything as it was at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// On a clock that only goes on.
    pub(super) at: Duration,
    pub(super) time_unix_ms: i64,
    pub(super) counters: Counters,
    pub(super) gauges: Gauges,
    pub(super) node: Sums,
    pub(super) accounts: Arc<Vec<Account>>,
    pub(super) red: Arc<Summary>,
    pub(super) report: Option<Arc<Report>>,
    pub(super) rows: Arc<Vec<Row>>,
    pub(super) said: Vec<Said>,
    /// Checks that fail, and whether the agent hangs by it.
    pub(super) failing: Vec<(String, String, bool)>,
    pub(super) notes: Vec<(String, String)>,
    pub(super) oldest_unread: Duration,
}

/// What only goes up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counters {
    pub(super) read_bytes: u64,
    pub(super) records: u64,
    pub(super) unparsed: u64,
    pub(super) traced: u64,
    pub(super) kept_records: u64,
    pub(super) kept_bytes: u64,
    pub(super) delivered_records: u64,
    pub(super) delivered_bytes: u64,
    pub(super) written_bytes: u64,
    /// Records and bytes, by reason and rule.
    pub(super) dropped: BTreeMap<(String, String), (u64, u64)>,
    pub(super) lost: BTreeMap<String, (u64, u64)>,
    pub(super) samples: u64,
    pub(super) scrape_failures: u64,
    pub(super) sinks: BTreeMap<String, SinkCounters>,
    /// Delivered records and lost bytes of each log.
    pub(super) streams: HashMap<Key, (u64, u64)>,
    pub(super) cpu_seconds: f64,
}

/// A log: pod uid, container, restart.
pub(super) type Key = (String, String, u32);

/// What only goes up, of a sink.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SinkCounters {
    pub(super) of_samples: bool,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) sent_bytes: u64,
    pub(super) requests: u64,
    pub(super) retries: u64,
}

/// What goes up and down.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Gauges {
    pub(super) logs: u64,
    pub(super) logs_parked: u64,
    pub(super) logs_waiting: u64,
    pub(super) budget_held: u64,
    pub(super) budget_limit: u64,
    pub(super) spill: u64,
    pub(super) spill_limit: u64,
    pub(super) held_deleted: u64,
    pub(super) series: u64,
    pub(super) series_limit: u64,
    pub(super) restart_keys: u64,
    pub(super) memory: Option<u64>,
    pub(super) memory_limit: u64,
    pub(super) started_unix_seconds: Option<f64>,
    pub(super) sinks: BTreeMap<String, SinkGauges>,
}

/// What goes up and down, of a sink.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SinkGauges {
    pub(super) up: bool,
    pub(super) queue_bytes: u64,
    pub(super) last_success_unix_seconds: Option<i64>,
    pub(super) p99_seconds: Option<f64>,
}

/// What only goes up, now. The accounts say what became of bytes.
pub(super) fn counters(accounts: &[Account], node: &Sums) -> Counters {
    let mut found = Counters {
        read_bytes: metrics::LOG_READ_BYTES.get(),
        records: metrics::LOG_RECORDS.get(),
        unparsed: sum(&*metrics::WORKLOAD_UNPARSED),
        kept_records: sum(&*metrics::WORKLOAD_LINES),
        kept_bytes: sum(&*metrics::WORKLOAD_BYTES),
        delivered_records: node.delivered_records,
        delivered_bytes: node.sent,
        written_bytes: node.written,
        ..Counters::default()
    };
    each(&*metrics::WORKLOAD_RECORDS, |metric| {
        if label(metric, "trace") != "none" {
            found.traced += value(metric);
        }
    });
    // By rule the records are known, by reason the bytes too.
    each(&*metrics::RECORDS_DROPPED, |metric| {
        let key = (label(metric, "reason").to_owned(), label(metric, "rule").to_owned());
        found.dropped.insert(key, (value(metric), 0));
    });
    for (reason, tally) in Dropping::ALL.iter().zip(&node.dropped) {
        let rules: Vec<_> = found.dropped.keys().filter(|(own, _)| own == reason.name()).cloned().collect();
        match rules.as_slice() {
            [] => drop(
                found.dropped.insert((reason.name().into(), String::new()), (tally.records, tally.bytes)),
            ),
            [only] => drop(found.dropped.insert(only.clone(), (tally.records, tally.bytes))),
            _ => {}
        }
    }
    for (reason, tally) in Loss::ALL.iter().zip(&node.lost) {
        found.lost.insert(reason.name().to_owned(), (tally.records, tally.bytes));
    }
    each(&*metrics::SCRAPE_SAMPLES, |metric| {
        if label(metric, "outcome") == "taken" {
            found.samples += value(metric);
        }
    });
    found.scrape_failures = sum(&*metrics::SCRAPE_FAILURES);
    sinks(&mut found.sinks);
    for account in accounts {
        let key = (account.uid.clone(), account.container.clone(), account.restart);
        found.streams.insert(key, (account.sums.delivered_records, account.sums.lost_bytes()));
    }
    found
}

fn sinks(found: &mut BTreeMap<String, SinkCounters>) {
    each(&*metrics::SINK_RECORDS, |metric| {
        let of = found.entry(label(metric, "sink").to_owned()).or_default();
        match label(metric, "outcome") {
            "delivered" => of.delivered += value(metric),
            "lost" => of.lost += value(metric),
            _ => {}
        }
    });
    each(&*metrics::SINK_SAMPLES, |metric| {
        let of = found.entry(label(metric, "sink").to_owned()).or_default();
        of.of_samples = true;
        if label(metric, "outcome") == "delivered" {
            of.delivered += value(metric);
        }
    });
    each(&*metrics::SINK_SAMPLES_LOST, |metric| {
        let of = found.entry(label(metric, "sink").to_owned()).or_default();
        of.of_samples = true;
        of.lost += value(metric);
    });
    each(&*metrics::SINK_SENT_BYTES, |metric| {
        found.entry(label(metric, "sink").to_owned()).or_default().sent_bytes += value(metric);
    });
    each(&*metrics::SINK_REQUESTS, |metric| {
        let of = found.entry(label(metric, "sink").to_owned()).or_default();
        of.requests += value(metric);
        if label(metric, "outcome") == "retry" {
            of.retries += value(metric);
        }
    });
}

/// What goes up and down, now.
pub(super) fn gauges(cpu_seconds: &mut f64) -> Gauges {
    let of = |gauge: &prometheus::IntGauge| u64::try_from(gauge.get()).unwrap_or_default();
    let mut found = Gauges {
        logs: of(&metrics::LOGS_OPEN),
        logs_parked: of(&metrics::LOGS_PARKED),
        logs_waiting: of(&metrics::LOGS_WAITING),
        budget_held: of(&metrics::BUDGET_HELD_BYTES),
        budget_limit: of(&metrics::BUDGET_LIMIT_BYTES),
        spill: of(&metrics::SPILL_BYTES),
        spill_limit: of(&metrics::SPILL_LIMIT_BYTES),
        held_deleted: of(&metrics::LOG_HELD_DELETED_BYTES),
        series: of(&metrics::SCRAPE_SERIES),
        series_limit: of(&metrics::SCRAPE_SERIES_LIMIT),
        restart_keys: of(&metrics::CONFIG_RESTART_KEYS),
        memory_limit: of(&metrics::MEMORY_LIMIT_BYTES),
        ..Gauges::default()
    };
    for family in process::gather() {
        let first = family.get_metric().first();
        let gauge = first.map(|metric| metric.get_gauge().get_value());
        match family.name() {
            "process_resident_memory_bytes" => found.memory = gauge.map(|bytes| bytes as u64),
            "process_start_time_seconds" => found.started_unix_seconds = gauge,
            "process_cpu_seconds_total" => {
                *cpu_seconds = first.map(|metric| metric.get_counter().get_value()).unwrap_or_default();
            }
            _ => {}
        }
    }
    // Those that run: each says whether its backend answers.
    each(&*metrics::SINK_UP, |metric| {
        let up = metric.get_gauge().get_value() > 0.0;
        found.sinks.insert(label(metric, "sink").to_owned(), SinkGauges { up, ..SinkGauges::default() });
    });
    for queue in [&*metrics::SINK_QUEUE_BYTES, &*metrics::SINK_SAMPLES_QUEUE_BYTES] {
        each(queue, |metric| {
            if let Some(of) = found.sinks.get_mut(label(metric, "sink")) {
                of.queue_bytes += metric.get_gauge().get_value().max(0.0) as u64;
            }
        });
    }
    each(&*metrics::SINK_LAST_SUCCESS, |metric| {
        if let Some(of) = found.sinks.get_mut(label(metric, "sink")) {
            of.last_success_unix_seconds = Some(metric.get_gauge().get_value() as i64);
        }
    });
    each(&*metrics::SINK_REQUEST_SECONDS, |metric| {
        if let Some(of) = found.sinks.get_mut(label(metric, "sink")) {
            of.p99_seconds = quantile(0.99, metric);
        }
    });
    found
}

/// The bound of the bucket in which a share of the observations lies; of what is above the last bound, that bound.
fn quantile(share: f64, metric: &Metric) -> Option<f64> {
    let histogram = metric.get_histogram();
    let rank = share * histogram.get_sample_count() as f64;
    if rank <= 0.0 {
        return None;
    }
    let buckets = histogram.get_bucket();
    let found = buckets.iter().find(|bucket| bucket.cumulative_count() as f64 >= rank);
    found.or(buckets.last()).map(prometheus::proto::Bucket::upper_bound)
}

fn each(family: &impl Collector, mut visit: impl FnMut(&Metric)) {
    family.collect().iter().flat_map(|family| family.get_metric()).for_each(&mut visit);
}

fn sum(family: &impl Collector) -> u64 {
    let mut sum = 0;
    each(family, |metric| sum += value(metric));
    sum
}

fn value(metric: &Metric) -> u64 {
    metric.get_counter().get_value() as u64
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

/// Now, as the epoch has it.
pub(super) fn unix_ms() -> i64 {
    clock::unix_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_finds_what_sinks_count_by_their_names() {
        let name = "look.one";
        metrics::SINK_UP.with_label_values(&[name]).set(1);
        metrics::SINK_RECORDS.with_label_values(&[name, "delivered"]).inc_by(70);
        metrics::SINK_RECORDS.with_label_values(&[name, "lost"]).inc_by(3);
        metrics::SINK_SENT_BYTES.with_label_values(&[name]).inc_by(900);
        metrics::SINK_REQUESTS.with_label_values(&[name, "delivered"]).inc_by(5);
        metrics::SINK_REQUESTS.with_label_values(&[name, "retry"]).inc_by(2);
        metrics::SINK_QUEUE_BYTES.with_label_values(&[name]).set(44);
        (0..100).for_each(|_| metrics::SINK_REQUEST_SECONDS.with_label_values(&[name]).observe(0.02));
        let found = counters(&[], &Sums::default());
        let expected = SinkCounters {
            of_samples: false,
            delivered: 70,
            lost: 3,
            sent_bytes: 900,
            requests: 7,
            retries: 2,
        };
        assert_eq!(found.sinks[name], expected);
        let gauges = gauges(&mut 0.0);
        let of = &gauges.sinks[name];
        assert_eq!((of.up, of.queue_bytes, of.p99_seconds), (true, 44, Some(0.025)));
        assert!(gauges.memory.is_some_and(|bytes| bytes > 1 << 20));
    }
}
