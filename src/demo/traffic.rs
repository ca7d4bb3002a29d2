//! The requests of a make-believe shop, as the log lines that its services write about them.
//!
//! In: a seed and a rate. Out: an endless sequence of [`Event`]s in the order of their (virtual) times. Pure: equal
//! seeds give equal sequences. The lines have the keys, the order and the habits of pino 10 with pino-http 11
//! (checkout, payments) and of fastify 5 (cart), both with OpenTelemetry's pino instrumentation; `seq` stands where a
//! mixin's field would, so that every line can be accounted for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::time::Duration;

use super::chance::{Random, base36, stack};
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
const CART: usize = 2;
const PAYMENTS: usize = 3;

/// Length of the text in the cart's now and then dump: more than the 16 KiB at which the runtime splits a line.
const DUMP_BYTES: usize = 21_000;

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
    random: Random,
    lines_per_second: f64,
    /// Lines made so far, which paces the requests.
    made: u64,
    requests: u64,
    request_ids: [u64; PODS.len()],
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

/// What all lines of one service about one request share.
struct Scope {
    pod: usize,
    /// Members between `time` and `seq`.
    head: String,
}

impl Traffic {
    /// Traffic that makes `lines_per_second` lines on average.
    pub fn new(seed: u64, lines_per_second: f64) -> Self {
        let mut traffic = Self {
            random: Random(seed ^ 0x6e6f_6465_7769_636b),
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

    fn push(&mut self, at_ms: f64, pod: usize, stream: Stream, text: Text) {
        let at = Duration::from_secs_f64(at_ms.max(0.0) / 1e3);
        self.made += 1;
        self.waiting.push(Reverse(Due(at, self.made, Event { at, pod, stream, text })));
    }

    fn pino(&mut self, at_ms: f64, pod: usize, level: u8, head: &str, tail: &str) {
        let text = Text::Pino { level, head: head.to_owned(), tail: tail.to_owned() };
        self.push(at_ms, pod, Stream::Stdout, text);
    }

    fn say(&mut self, at_ms: f64, scope: &Scope, level: u8, tail: &str) {
        self.pino(at_ms, scope.pod, level, &scope.head, tail);
    }

    fn plain(&mut self, at_ms: f64, pod: usize, text: String) {
        self.push(at_ms, pod, Stream::Stderr, Text::Plain(text));
    }

    /// The bindings of pino-http for a request, with the ids that the instrumentation adds.
    fn express(&mut self, pod: usize, method: &str, url: &str, trace: &str, from: Caller<'_>) -> Scope {
        self.request_ids[pod] += 1;
        let id = self.request_ids[pod];
        let port = 32_768 + self.random.below(28_000);
        let span = self.random.hex(16);
        let host = PODS[pod].service;
        let mut head = base(pod);
        let _ = write!(
            head,
            ",\"req\":{{\"id\":{id},\"method\":\"{method}\",\"url\":\"{url}\",\"query\":{{}},\"params\":{{}},\"headers\":{{\"host\":\"{host}:3000\",\"user-agent\":\"{}\",\"accept\":\"*/*\"{}}},\"remoteAddress\":\"{}\",\"remotePort\":{port}}},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",\"trace_flags\":\"01\"",
            from.agent, from.headers, from.address
        );
        Scope { pod, head }
    }

    /// The bindings of fastify's logger for a request.
    fn fastify(&mut self, pod: usize, trace: &str) -> Scope {
        self.request_ids[pod] += 1;
        let (id, span) = (base36(self.request_ids[pod]), self.random.hex(16));
        let mut head = base(pod);
        let _ = write!(
            head,
            ",\"reqId\":\"req-{id}\",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",\"trace_flags\":\"01\""
        );
        Scope { pod, head }
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

    fn checkout(&mut self, start_ms: f64, trace: &str) {
        let pod = self.random.below(2) as usize;
        let cart = 1_000 + self.random.below(9_000);
        let order = 100_000 + self.requests;
        let items = 1 + self.random.below(6);
        let amount = (500 + self.random.below(19_500)) as f64 / 100.0;
        let headers =
            format!(",\"content-type\":\"application/json\",\"x-request-id\":\"{}\"", self.random.hex(32));
        let shopper =
            ["Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "okhttp/5.3.0"];
        let agent = shopper[self.random.below(2) as usize];
        let caller = Caller { agent, headers: &headers, address: "10.244.0.1" };
        let scope = self.express(pod, "POST", "/checkout", trace, caller);
        let mut now = start_ms + self.random.latency(1.5);
        self.say(
            now,
            &scope,
            30,
            &format!(",\"cartId\":\"{cart}\",\"items\":{items},\"msg\":\"checkout started\""),
        );
        if self.random.chance(3) {
            self.plain(
                now + 1.0,
                pod,
                format!(
                    "cart client: GET /cart/{cart} failed with ECONNRESET, trying again (attempt 2 of 3)"
                ),
            );
            now += 50.0;
        }
        now = self.read_cart(now + 1.0, trace, cart, PODS[pod].ip);
        let (paid_ms, status) = self.charge(now + 1.0, trace, pod, order, amount);
        now = paid_ms + self.random.latency(2.0);
        match status {
            200 => {
                self.say(
                    now,
                    &scope,
                    30,
                    &format!(",\"orderId\":\"{order}\",\"amount\":{amount},\"msg\":\"order placed\""),
                );
                self.complete(now + 0.8, start_ms, &scope, 201);
            }
            402 => {
                self.say(
                    now,
                    &scope,
                    40,
                    &format!(
                        ",\"orderId\":\"{order}\",\"reason\":\"card_declined\",\"msg\":\"payment refused\""
                    ),
                );
                self.complete(now + 0.8, start_ms, &scope, 402);
            }
            _ => {
                let message = "payments answered 503";
                let stack = stack(
                    "UpstreamError",
                    message,
                    &[
                        "PaymentsClient.charge (/app/src/clients/payments.js:48:13)",
                        "process.processTicksAndRejections (node:internal/process/task_queues:105:5)",
                        "async placeOrder (/app/src/routes/checkout.js:61:20)",
                        "async /app/src/routes/checkout.js:22:5",
                    ],
                );
                self.say(now, &scope, 50, &format!(",\"err\":{{\"type\":\"UpstreamError\",\"message\":\"{message}\",\"stack\":\"{stack}\",\"status\":503}},\"orderId\":\"{order}\",\"msg\":\"order failed\""));
                self.complete(now + 0.8, start_ms, &scope, 502);
            }
        }
    }

    /// `GET /cart/<id>` at the cart, a fastify service. Returns when it answered.
    fn read_cart(&mut self, start_ms: f64, trace: &str, cart: u64, from: &str) -> f64 {
        let scope = self.fastify(CART, trace);
        let port = 32_768 + self.random.below(28_000);
        self.say(start_ms, &scope, 30, &format!(",\"req\":{{\"method\":\"GET\",\"url\":\"/cart/{cart}\",\"host\":\"cart:3000\",\"remoteAddress\":\"{from}\",\"remotePort\":{port}}},\"msg\":\"incoming request\""));
        let took = self.random.latency(8.0);
        if self.random.chance(15) {
            self.say(
                start_ms + took * 0.4,
                &scope,
                20,
                &format!(",\"key\":\"cart:{cart}\",\"ttl\":300,\"msg\":\"cache miss\""),
            );
        }
        if self.requests % 60 == 5 {
            let mut dump = String::with_capacity(DUMP_BYTES + 64);
            while dump.len() < DUMP_BYTES {
                let _ = write!(dump, "sku-{:05} x{}; ", self.random.below(100_000), 1 + self.random.below(9));
            }
            self.say(
                start_ms + took * 0.6,
                &scope,
                20,
                &format!(",\"cartId\":\"{cart}\",\"dump\":\"{dump}\",\"msg\":\"cart as stored\""),
            );
        }
        let done = start_ms + took;
        if self.random.chance(1) {
            let stack = stack(
                "TypeError",
                "Cannot read properties of undefined (reading 'items')",
                &[
                    "Object.<anonymous> (/app/src/cart.js:31:24)",
                    "preHandlerCallbackInner (/app/node_modules/fastify/lib/handle-request.js:190:24)",
                    "preHandlerCallback (/app/node_modules/fastify/lib/handle-request.js:155:5)",
                    "handler (/app/node_modules/fastify/lib/handle-request.js:99:7)",
                ],
            );
            let message = "Cannot read properties of undefined (reading 'items')";
            self.say(done - 0.1, &scope, 50, &format!(",\"req\":{{\"method\":\"GET\",\"url\":\"/cart/{cart}\",\"host\":\"cart:3000\",\"remoteAddress\":\"{from}\",\"remotePort\":{port}}},\"res\":{{\"statusCode\":500}},\"err\":{{\"type\":\"TypeError\",\"message\":\"{message}\",\"stack\":\"{stack}\"}},\"msg\":\"{message}\""));
            self.say(
                done,
                &scope,
                30,
                &format!(
                    ",\"res\":{{\"statusCode\":500}},\"responseTime\":{took},\"msg\":\"request completed\""
                ),
            );
        } else {
            self.say(
                done,
                &scope,
                30,
                &format!(
                    ",\"res\":{{\"statusCode\":200}},\"responseTime\":{took},\"msg\":\"request completed\""
                ),
            );
        }
        done
    }

    /// `POST /charges` at payments. Returns when it answered and with which status.
    fn charge(&mut self, start_ms: f64, trace: &str, from: usize, order: u64, amount: f64) -> (f64, u16) {
        let headers = format!(
            ",\"content-type\":\"application/json\",\"traceparent\":\"00-{trace}-{}-01\"",
            self.random.hex(16)
        );
        let caller = Caller { agent: "undici", headers: &headers, address: PODS[from].ip };
        let scope = self.express(PAYMENTS, "POST", "/charges", trace, caller);
        let took = self.random.latency(38.0);
        let done = start_ms + took;
        if took > 150.0 {
            self.say(
                start_ms + took * 0.9,
                &scope,
                40,
                &format!(
                    ",\"gateway\":\"acme-pay\",\"elapsedMs\":{},\"msg\":\"gateway is slow\"",
                    took as u64
                ),
            );
        }
        let status = match self.random.below(100) {
            0..=2 => 503,
            3..=6 => 402,
            _ => 200,
        };
        match status {
            200 => {
                let authorization = self.random.hex(8);
                self.say(done - 0.5, &scope, 30, &format!(",\"orderId\":\"{order}\",\"amount\":{amount},\"authorization\":\"{authorization}\",\"msg\":\"charge authorized\""));
                self.complete(done, start_ms, &scope, 200);
            }
            402 => self.complete(done, start_ms, &scope, 402),
            _ => {
                let message = "connect ECONNREFUSED 10.96.14.7:5432";
                let stack = stack(
                    "Error",
                    message,
                    &[
                        "/app/node_modules/pg-pool/index.js:45:11",
                        "process.processTicksAndRejections (node:internal/process/task_queues:105:5)",
                        "async Ledger.reserve (/app/src/ledger.js:19:18)",
                        "async charge (/app/src/routes/charges.js:37:3)",
                    ],
                );
                self.say(done - 0.5, &scope, 50, &format!(",\"err\":{{\"type\":\"Error\",\"message\":\"{message}\",\"stack\":\"{stack}\",\"errno\":-111,\"code\":\"ECONNREFUSED\",\"syscall\":\"connect\",\"address\":\"10.96.14.7\",\"port\":5432}},\"orderId\":\"{order}\",\"msg\":\"ledger is not reachable\""));
                self.complete(done, start_ms, &scope, 503);
            }
        }
        (done, status)
    }

    /// pino-http's own line at the end of a response.
    fn complete(&mut self, at_ms: f64, start_ms: f64, scope: &Scope, status: u16) {
        let length = 8 + self.random.below(400);
        let millis = (at_ms - start_ms).round().max(0.0) as u64;
        let res = format!(
            ",\"res\":{{\"statusCode\":{status},\"headers\":{{\"x-powered-by\":\"Express\",\"content-type\":\"application/json; charset=utf-8\",\"content-length\":\"{length}\",\"etag\":\"W/\\\"{length:x}-Nv24HbD1i+MHVjOdNPLzttklKUw\\\"\"}}}}"
        );
        if status >= 500 {
            let message = format!("failed with status code {status}");
            let stack = stack(
                "Error",
                &message,
                &[
                    "onResFinished (/app/node_modules/pino-http/logger.js:115:39)",
                    "ServerResponse.onResponseComplete (/app/node_modules/pino-http/logger.js:178:14)",
                    "ServerResponse.emit (node:events:536:35)",
                    "onFinish (node:_http_outgoing:1031:10)",
                ],
            );
            self.say(at_ms, scope, 50, &format!("{res},\"err\":{{\"type\":\"Error\",\"message\":\"{message}\",\"stack\":\"{stack}\"}},\"responseTime\":{millis},\"msg\":\"request errored\""));
        } else {
            let level = if status >= 400 { 40 } else { 30 };
            self.say(
                at_ms,
                scope,
                level,
                &format!("{res},\"responseTime\":{millis},\"msg\":\"request completed\""),
            );
        }
    }

    /// The kubelet's readiness probe of every pod.
    fn probe(&mut self, at_ms: f64) {
        for pod in [0, 1, PAYMENTS] {
            let trace = self.random.hex(32);
            let caller = Caller {
                agent: "kube-probe/1.31",
                headers: ",\"connection\":\"close\"",
                address: "10.244.0.1",
            };
            let scope = self.express(pod, "GET", "/healthz", &trace, caller);
            self.complete(at_ms + 1.0 + pod as f64, at_ms + pod as f64, &scope, 200);
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

/// Who asks.
struct Caller<'a> {
    agent: &'a str,
    /// Further header members, each with its leading comma.
    headers: &'a str,
    address: &'a str,
}

fn base(pod: usize) -> String {
    format!(",\"pid\":1,\"hostname\":\"{}\"", PODS[pod].name)
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
