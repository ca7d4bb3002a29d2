//! What the demo found, as a table.
//!
//! In: the entries that the store holds, as they arrive, and the node's own account. Out: text. The figures of a
//! service come from what the agent recognised in the lines (status, duration), so they show its parsing at work.
//! Bounded: histograms of one-millisecond buckets, no entry is kept.

use std::fmt::Write;
use std::time::Duration;

use super::node::Done;
use super::tally::Counts;
use super::traffic::PODS;
use crate::sink::local::Entry;
use crate::tail::escape;

/// Milliseconds that a histogram tells apart; what is longer counts as this long.
const LONGEST_MS: usize = 10_000;
/// Servers' errors begin here.
const SERVER_ERROR: u16 = 500;

/// Counts of durations by millisecond.
#[derive(Debug, Clone)]
struct Durations {
    buckets: Vec<u32>,
    count: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: vec![0; LONGEST_MS + 1], count: 0 }
    }
}

impl Durations {
    fn add(&mut self, millis: f64) {
        // Rounds up; a negative one or none at all becomes 0.
        let bucket = (millis.ceil() as usize).min(LONGEST_MS);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.count += 1;
    }

    /// The duration that `share` of all do not exceed, in whole milliseconds; `None` without any.
    fn quantile(&self, share: f64) -> Option<usize> {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut sum = 0;
        self.buckets.iter().position(|count| {
            sum += u64::from(*count);
            sum >= wanted
        })
    }

    fn show(&self, share: f64) -> String {
        self.quantile(share).map_or_else(|| "-".to_owned(), |millis| format!("{millis} ms"))
    }
}

#[derive(Debug, Default)]
struct Service {
    name: String,
    lines: u64,
    requests: u64,
    errors: u64,
    durations: Durations,
}

/// Figures of a run, gathered while it goes.
#[derive(Debug, Default)]
pub(super) struct Summary {
    services: Vec<Service>,
    lines: u64,
    traced: u64,
    latency: Durations,
}

/// What only the end of a run knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// How long the node wrote.
    pub(super) took: Duration,
    /// What the node did.
    pub(super) node: Done,
    /// Rotations that the agent says it followed.
    pub(super) followed: u64,
    /// The account of lines.
    pub(super) counts: Counts,
}

impl Summary {
    /// Notes an entry that was found in the store at `now_unix_nano`.
    pub(super) fn add(&mut self, entry: &Entry<'_>, now_unix_nano: u64) {
        self.lines += 1;
        self.traced += u64::from(!entry.trace_id.is_empty());
        if let Some(written) = entry.time_unix_nano() {
            self.latency.add(now_unix_nano.saturating_sub(written) as f64 / 1e6);
        }
        let index = self.services.iter().position(|service| service.name == entry.service_name);
        let index = index.unwrap_or_else(|| {
            // A name that is none of ours cannot make the table grow: they share a row.
            let known = PODS.iter().any(|pod| pod.service == entry.service_name);
            let name = if known { entry.service_name.to_string() } else { "(other)".to_owned() };
            self.services.iter().position(|service| service.name == name).unwrap_or_else(|| {
                self.services.push(Service { name, ..Service::default() });
                self.services.len() - 1
            })
        });
        let service = &mut self.services[index];
        service.lines += 1;
        if entry.http_status != 0
            && let Some(millis) = entry.duration_ms
        {
            service.requests += 1;
            service.errors += u64::from(entry.http_status >= SERVER_ERROR);
            service.durations.add(millis);
        }
    }

    /// The table.
    pub(super) fn show(&self, end: &End) -> String {
        let Counts { written, delivered, duplicated, altered, reordered } = end.counts;
        let mut out = String::new();
        let lost = number(end.counts.lost());
        let _ = writeln!(
            out,
            "lines      written {}  delivered {}  lost {lost}  duplicated {}  altered {}  out of order {}",
            number(written),
            number(delivered),
            number(duplicated),
            number(altered),
            number(reordered),
        );
        let _ = writeln!(
            out,
            "files      {} rotations, {} followed; {} lines of more than 16 KiB joined from fragments",
            number(end.node.rotations),
            number(end.followed),
            number(end.node.fragmented)
        );
        let share = if self.lines == 0 { 0.0 } else { self.traced as f64 * 100.0 / self.lines as f64 };
        let _ = writeln!(out, "traces     {} lines with a trace id ({share:.1} %)", number(self.traced));
        let _ = writeln!(
            out,
            "latency    from written to stored: p50 {}, p99 {}",
            self.latency.show(0.5),
            self.latency.show(0.99)
        );
        let _ = writeln!(
            out,
            "time       {:.1} s, {:.0} lines/s\n",
            end.took.as_secs_f64(),
            written as f64 / end.took.as_secs_f64().max(0.001)
        );
        let _ = writeln!(
            out,
            "{:<12}{:>9}{:>10}{:>9}{:>11}{:>11}",
            "service", "lines", "requests", "errors", "p50", "p99"
        );
        let mut services: Vec<_> = self.services.iter().collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        for service in services {
            let mut name = String::new();
            escape(&service.name, &mut name);
            let _ = writeln!(
                out,
                "{name:<12}{:>9}{:>10}{:>9}{:>11}{:>11}",
                number(service.lines),
                number(service.requests),
                number(service.errors),
                service.durations.show(0.5),
                service.durations.show(0.99),
            );
        }
        out
    }
}

/// `1234567` as `1,234,567`.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_commas() {
        assert_eq!(
            [number(0), number(999), number(1_000), number(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn quantiles_are_those_of_the_definition() {
        let mut durations = Durations::default();
        assert_eq!(durations.show(0.5), "-");
        (1..=100).for_each(|millis| durations.add(f64::from(millis)));
        assert_eq!((durations.quantile(0.5), durations.quantile(0.99)), (Some(50), Some(99)));
        durations.add(1e9);
        assert_eq!(durations.quantile(1.0), Some(LONGEST_MS));
    }

    #[test]
    fn the_table_reads_as_shown_in_the_readme() {
        let mut summary = Summary::default();
        for (service, status, millis) in [("cart", 200, 8.4), ("cart", 500, 9.0), ("checkout", 201, 71.0)] {
            let entry = Entry {
                time: "2026-11-22T14:27:36.000000000Z".into(),
                service_name: service.into(),
                trace_id: if service == "cart" {
                    "0af7651916cd43dd8448eb211c80319c".into()
                } else {
                    "".into()
                },
                http_status: status,
                duration_ms: Some(millis),
                ..Entry::default()
            };
            summary.add(&entry, 1_795_357_656_120_000_000);
        }
        let counts = Counts { written: 4, delivered: 3, ..Counts::default() };
        let node = Done { rotations: 2, fragmented: 1 };
        let end = End { took: Duration::from_secs(2), node, followed: 2, counts };
        assert_eq!(
            summary.show(&end),
            "lines      written 4  delivered 3  lost 1  duplicated 0  altered 0  out of order 0\n\
             files      2 rotations, 2 followed; 1 lines of more than 16 KiB joined from fragments\n\
             traces     2 lines with a trace id (66.7 %)\n\
             latency    from written to stored: p50 120 ms, p99 120 ms\n\
             time       2.0 s, 2 lines/s\n\
             \n\
             service         lines  requests   errors        p50        p99\n\
             cart                2         2        1       9 ms       9 ms\n\
             checkout            1         1        0      71 ms      71 ms\n"
        );
    }
}
