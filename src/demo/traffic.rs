//! The requests of a make-believe shop, as the log lines that its services write about them.
//!
//! In: a seed and a rate. Out: an endless sequence of [`Event`]s in the order of their (virtual) times. Pure: equal
//! seeds give equal sequences, as long as nothing is broken meanwhile. What the services do, and in which words they
//! log it, is in [`shop`](super::shop).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::time::Duration;

use super::chance::Random;
use super::fault::Part;
use super::shop::{Scope, base};
use crate::data::batch::Stream;

/// A container of the make-believe node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    /// OpenTelemetry service name.
    pub service: &'static str,
    /// Pod name, with its ReplicaSet's hash.
    pub name: &'static str,
    /// Pod uid.
    pub uid: &'static str,
    /// Pod address.
    pub ip: &'static str,
}

/// The namespace of every pod.
pub const NAMESPACE: &str = "shop";
/// The container of every pod.
pub const CONTAINER: &str = "api";

/// Every container of the node.
pub const PODS: [Pod; 4] = [
    Pod {
        service: "checkout",
        name: "checkout-d994d45d6-5h9zr",
        uid: "d11c6e6d-84fc-49ec-95a1-4ee5155f656a",
        ip: "10.244.0.12",
    },
    Pod {
        service: "checkout",
        name: "checkout-d994d45d6-gwr5m",
        uid: "7f8362ae-cac2-4800-ad6a-113b421e4fc0",
        ip: "10.244.0.13",
    },
    Pod {
        service: "cart",
        name: "cart-7f4b9d6c88-x2kqp",
        uid: "0c5a1f0e-6a5e-4c62-9c0f-3d7cf2a4b9d1",
        ip: "10.244.0.21",
    },
    Pod {
        service: "payments",
        name: "payments-5c9d8b7f4d-zxcvb",
        uid: "b2e4c8a6-1d3f-4e5a-8b7c-9f0e1d2c3b4a",
        ip: "10.244.0.34",
    },
];
pub(super) const CART: usize = 2;
pub(super) const PAYMENTS: usize = 3;

/// One line that a container writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, since the start of the node.
    pub at: Duration,
    /// Index in [`PODS`].
    pub pod: usize,
    /// Where to.
    pub stream: Stream,
    /// What.
    text: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// A pino line: level, what stands between `time` and `seq`, and the members behind.
    Pino { level: u8, head: String, tail: String },
    /// Any other line.
    Plain(String),
}

impl Event {
    /// Appends the line, without a newline, as written at `time_unix_milli` with the container's `seq`th number.
    pub fn write(&self, time_unix_milli: u64, seq: u64, out: &mut String) {
        let _ = match &self.text {
            Text::Pino { level, head, tail } => {
                write!(out, "{{\"level\":{level},\"time\":{time_unix_milli}{head},\"seq\":{seq}{tail}}}")
            }
            Text::Plain(text) => write!(out, "{text} seq={seq}"),
        };
    }
}

/// The number that [`Event::write`] put into a line.
pub fn seq_of(line: &str) -> Option<u64> {
    let digits = match line.strip_prefix('{') {
        Some(object) => object.split_once(",\"seq\":")?.1,
        None => line.rsplit_once(" seq=")?.1,
    };
    let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The endless traffic of the node.
#[derive(Debug)]
pub struct Traffic {
    pub(super) random: Random,
    /// What does not work just now.
    pub(super) broken: Option<Part>,
    lines_per_second: f64,
    /// Lines made so far, which paces the requests.
    made: u64,
    pub(super) requests: u64,
    pub(super) request_ids: [u64; PODS.len()],
    next_request_ms: f64,
    next_probe_ms: f64,
    waiting: BinaryHeap<Reverse<Due>>,
}

/// An event with its place in the order.
#[derive(Debug)]
struct Due(Duration, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

impl Traffic {
    /// Traffic that makes `lines_per_second` lines on average.
    pub fn new(seed: u64, lines_per_second: f64) -> Self {
        let mut traffic = Self {
            random: Random(seed ^ 0x6e6f_6465_7769_636b),
            broken: None,
            lines_per_second: lines_per_second.max(0.1),
            made: 0,
            requests: 0,
            request_ids: [0; PODS.len()],
            next_request_ms: 5.0,
            next_probe_ms: 1_500.0,
            waiting: BinaryHeap::new(),
        };
        for (index, pod) in PODS.iter().enumerate() {
            let message = if index == CART {
                format!(",\"msg\":\"Server listening at http://{}:3000\"", pod.ip)
            } else {
                ",\"msg\":\"listening\"".to_owned()
            };
            traffic.pino(index as f64, index, 30, &base(index), &message);
        }
        traffic.plain(4.0, PAYMENTS, "(node:1) [DEP0040] DeprecationWarning: The `punycode` module is deprecated. Please use a userland alternative instead.".to_owned());
        traffic
    }

    /// Breaks a service, or mends what is broken, for the requests from now on.
    pub fn set_broken(&mut self, broken: Option<Part>) {
        self.broken = broken;
    }

    fn push(&mut self, at_ms: f64, pod: usize, stream: Stream, text: Text) {
        let at = Duration::from_secs_f64(at_ms.max(0.0) / 1e3);
        self.made += 1;
        self.waiting.push(Reverse(Due(at, self.made, Event { at, pod, stream, text })));
    }

    fn pino(&mut self, at_ms: f64, pod: usize, level: u8, head: &str, tail: &str) {
        let text = Text::Pino { level, head: head.to_owned(), tail: tail.to_owned() };
        self.push(at_ms, pod, Stream::Stdout, text);
    }

    pub(super) fn say(&mut self, at_ms: f64, scope: &Scope, level: u8, tail: &str) {
        self.pino(at_ms, scope.pod, level, &scope.head, tail);
    }

    pub(super) fn plain(&mut self, at_ms: f64, pod: usize, text: String) {
        self.push(at_ms, pod, Stream::Stderr, Text::Plain(text));
    }

    /// One request from outside. Returns nothing: its lines wait for their time.
    fn request(&mut self, start_ms: f64) {
        self.requests += 1;
        let trace = self.random.hex(32);
        if self.random.chance(30) {
            let cart = 1_000 + self.random.below(9_000);
            self.read_cart(start_ms, &trace, cart, "10.244.0.1");
        } else {
            self.checkout(start_ms, &trace);
        }
    }
}

impl Iterator for Traffic {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let next = self.next_request_ms.min(self.next_probe_ms);
            let due = self.waiting.peek().map(|Reverse(due)| due.0.as_secs_f64() * 1e3);
            if due.is_some_and(|due| due <= next) {
                return self.waiting.pop().map(|Reverse(Due(_, _, event))| event);
            }
            if self.next_probe_ms <= self.next_request_ms {
                self.probe(self.next_probe_ms);
                self.next_probe_ms += 10_000.0;
                continue;
            }
            let start = self.next_request_ms;
            self.request(start);
            // The next one comes when the lines made so far are due at the wanted rate, give or take.
            let paced = self.made as f64 / self.lines_per_second * 1e3;
            let jitter = -self.random.unit().ln() * 0.5 * 7e3 / self.lines_per_second;
            self.next_request_ms = paced.max(start) + jitter.min(2_000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn line(event: &Event, seq: u64) -> String {
        let mut out = String::new();
        event.write(1_795_356_567_622, seq, &mut out);
        out
    }

    #[test]
    fn equal_seeds_make_equal_traffic() {
        let take = |seed| Traffic::new(seed, 50.0).take(500).collect::<Vec<_>>();
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn every_line_is_json_or_says_its_number_in_text() {
        let mut levels = HashMap::<u64, u32>::new();
        let mut longest = 0;
        for (seq, event) in Traffic::new(1, 50.0).take(5_000).enumerate() {
            let line = line(&event, seq as u64);
            assert_eq!(seq_of(&line), Some(seq as u64), "{line}");
            assert!(!line.contains('\n'));
            longest = longest.max(line.len());
            if event.stream == Stream::Stderr {
                continue;
            }
            let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(value["hostname"], PODS[event.pod].name);
            assert!(value["msg"].is_string());
            *levels.entry(value["level"].as_u64().expect("a number")).or_default() += 1;
        }
        for level in [20, 30, 40, 50] {
            assert!(levels[&level] >= 10, "{levels:?}");
        }
        assert!(levels[&30] > 3_500, "{levels:?}");
        assert!(longest > 16 << 10, "some lines are split by the runtime");
    }

    #[test]
    fn a_trace_spans_the_services() {
        let mut services = HashMap::<String, Vec<usize>>::new();
        for event in Traffic::new(3, 50.0).take(2_000) {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&line(&event, 0))
                && let Some(trace) = value["trace_id"].as_str()
            {
                assert!(crate::data::trace::TraceId::from_hex(trace.as_bytes()).is_some());
                services.entry(trace.to_owned()).or_default().push(event.pod);
            }
        }
        let wide = services.values().filter(|pods| pods.contains(&CART) && pods.contains(&PAYMENTS)).count();
        assert!(wide > 100, "{wide} traces cross services");
    }

    /// Requests that checkout answered, and those that it answered with a 5xx; the median of their durations.
    fn answered(broken: Option<Part>) -> (usize, usize, u64) {
        let mut traffic = Traffic::new(11, 50.0);
        traffic.set_broken(broken);
        let mut took: Vec<(u64, u64)> = Vec::new();
        for event in traffic.take(8_000).filter(|event| event.pod < CART && event.stream == Stream::Stdout) {
            let value: serde_json::Value = serde_json::from_str(&line(&event, 0)).expect("JSON");
            if let (Some(status), "/checkout") =
                (value["res"]["statusCode"].as_u64(), value["req"]["url"].as_str().unwrap_or_default())
            {
                took.push((value["responseTime"].as_u64().expect("a number"), status));
            }
        }
        took.sort_unstable();
        (took.len(), took.iter().filter(|(_, status)| *status >= 500).count(), took[took.len() / 2].0)
    }

    #[test]
    fn nothing_fails_until_a_service_is_broken() {
        let (all, failed, median) = answered(None);
        assert!(all > 500 && failed == 0 && (30..100).contains(&median), "{failed} of {all}, {median} ms");
        for part in [Part::Checkout, Part::Cart, Part::Payments] {
            let (all, failed, broken_median) = answered(Some(part));
            let share = failed as f64 / all as f64;
            assert!((0.4..0.8).contains(&share), "{part:?}: {failed} of {all}");
            assert!(broken_median > 2 * median, "{part:?}: {broken_median} ms instead of {median}");
        }
    }

    #[test]
    fn a_broken_checkout_says_why_with_a_stack_and_a_trace() {
        let mut traffic = Traffic::new(5, 50.0);
        traffic.set_broken(Some(Part::Checkout));
        let mut pods = HashMap::<String, std::collections::BTreeSet<usize>>::new();
        let mut failed = Vec::new();
        for event in traffic.take(3_000).filter(|event| event.stream == Stream::Stdout) {
            let value: serde_json::Value = serde_json::from_str(&line(&event, 0)).expect("JSON");
            let trace = value["trace_id"].as_str().unwrap_or_default().to_owned();
            pods.entry(trace.clone()).or_default().insert(event.pod);
            if value["msg"] == "order failed" {
                assert_eq!((value["level"].as_u64(), value["err"]["status"].as_u64()), (Some(50), Some(502)));
                let stack = value["err"]["stack"].as_str().expect("a stack");
                assert!(stack.starts_with(
                    "UpstreamError: POST http://payments:3000/charges: 502 Bad Gateway\n    at "
                ));
                failed.push(trace);
            }
        }
        assert!(failed.len() > 50, "{}", failed.len());
        let wide = failed.iter().filter(|trace| pods[*trace].len() == 3).count();
        assert!(wide > failed.len() / 3, "{wide} of {} failed requests reached payments", failed.len());
    }

    #[test]
    fn the_rate_is_kept_and_time_never_runs_back() {
        for rate in [10.0, 50.0, 2_000.0] {
            let events: Vec<_> = Traffic::new(1, rate).take(20_000).collect();
            assert!(events.is_sorted_by_key(|event| event.at));
            let seconds = events.last().expect("some").at.as_secs_f64();
            let reached = events.len() as f64 / seconds;
            assert!((reached / rate - 1.0).abs() < 0.05, "{reached} lines/s for {rate}");
        }
    }

    #[test]
    fn the_keys_stand_in_the_order_of_the_genuine_logger() {
        let done = Traffic::new(1, 50.0)
            .map(|event| line(&event, 9))
            .find(|line| line.contains("\"req\":{\"id\"") && line.contains("request completed"))
            .expect("endless");
        let keys = [
            "{\"level\":",
            ",\"time\":1795356567622",
            ",\"pid\":1",
            ",\"hostname\":",
            ",\"req\":{\"id\":",
            ",\"method\":",
            ",\"url\":",
            ",\"query\":{}",
            ",\"params\":{}",
            ",\"headers\":{\"host\":",
            ",\"remoteAddress\":",
            ",\"remotePort\":",
            ",\"trace_id\":",
            ",\"span_id\":",
            ",\"trace_flags\":\"01\"",
            ",\"seq\":9",
            ",\"res\":{\"statusCode\":",
            ",\"responseTime\":",
            ",\"msg\":\"request completed\"}",
        ];
        let places: Vec<_> = keys.iter().map(|key| line_find(&done, key)).collect();
        assert!(places.is_sorted(), "{done}");
        assert_eq!(done.matches(",\"req\":{").count(), 1);
    }

    fn line_find(line: &str, key: &str) -> usize {
        line.find(key).unwrap_or_else(|| panic!("{key} in {line}"))
    }
}
