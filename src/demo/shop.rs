//! What the services of the make-believe shop do with a request, and the lines that they log about it.
//!
//! In: when a request begins. Out: its lines, with their times, in the traffic's order. The lines have the keys, the order
//! and the habits of pino 10 with pino-http 11 (checkout, payments) and of fastify 5 (cart), both with OpenTelemetry's pino
//! instrumentation; `seq` stands where a mixin's field would, so that every line can be accounted for.
//! Invariants: one request has one trace id in every service that it comes to; unless something is broken, no order fails.

use std::fmt::Write;

use super::chance::{base36, stack};
use super::fault::Part;
use super::traffic::{CART, PAYMENTS, PODS, Traffic};

/// Length of the text in the cart's now and then dump: more than the 16 KiB at which the runtime splits a line.
const DUMP_BYTES: usize = 21_000;
/// In how many of a hundred calls a broken service does what it should not.
const BROKEN_PERCENT: u64 = 70;

/// What all lines of one service about one request share.
pub(super) struct Scope {
    pub(super) pod: usize,
    /// Members between `time` and `seq`.
    pub(super) head: String,
}

/// Why an order failed, as checkout logs it.
struct Failure<'a> {
    message: &'a str,
    /// Where in checkout's own code.
    client: &'a str,
    /// What the other service answered.
    status: u16,
}

impl Traffic {
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

    pub(super) fn checkout(&mut self, start_ms: f64, trace: &str) {
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
            now = self.again(now, pod, cart, "failed with ECONNRESET");
        }
        let mut found = self.read_cart(now + 1.0, trace, cart, PODS[pod].ip);
        if !found.1 {
            now = self.again(found.0, pod, cart, "was answered 500");
            found = self.read_cart(now, trace, cart, PODS[pod].ip);
        }
        now = found.0 + 1.0;
        if !found.1 {
            let client = "CartClient.read (/app/src/clients/cart.js:33:13)";
            let failure = Failure { message: "cart answered 500", client, status: 500 };
            return self.fail_order(now, start_ms, &scope, order, &failure);
        }
        if self.broken == Some(Part::Checkout) {
            // Its new sidecar holds every call up, and gives most of them up.
            now += self.random.latency(260.0);
            if self.random.chance(BROKEN_PERCENT) {
                return self.lose_charge(now, start_ms, &scope, trace, order);
            }
        }
        let (paid_ms, status) = self.charge(now, trace, pod, order, amount);
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
                let client = "PaymentsClient.charge (/app/src/clients/payments.js:48:13)";
                let failure = Failure { message: "payments answered 503", client, status };
                self.fail_order(now, start_ms, &scope, order, &failure);
            }
        }
    }

    /// A line about a second try at the cart; returns when it begins.
    fn again(&mut self, now_ms: f64, pod: usize, cart: u64, why: &str) -> f64 {
        let text = format!("cart client: GET /cart/{cart} {why}, trying again (attempt 2 of 3)");
        self.plain(now_ms + 1.0, pod, text);
        now_ms + 50.0
    }

    /// A call to payments that checkout's side gives up; it may have come there.
    fn lose_charge(&mut self, now_ms: f64, start_ms: f64, scope: &Scope, trace: &str, order: u64) {
        let took = 300.0 + self.random.latency(350.0);
        if self.random.chance(60) {
            let headers = format!(",\"traceparent\":\"00-{trace}-{}-01\"", self.random.hex(16));
            let caller = Caller { agent: "undici", headers: &headers, address: PODS[scope.pod].ip };
            let seen = self.express(PAYMENTS, "POST", "/charges", trace, caller);
            self.say(
                now_ms + took,
                &seen,
                30,
                &format!(
                    ",\"res\":{{\"statusCode\":null,\"headers\":{{}}}},\"responseTime\":{},\"msg\":\"request aborted\"",
                    took as u64
                ),
            );
        }
        let failure = Failure {
            message: "POST http://payments:3000/charges: 502 Bad Gateway",
            client: "PaymentsClient.charge (/app/src/clients/payments.js:52:13)",
            status: 502,
        };
        self.fail_order(now_ms + took + 1.0, start_ms, scope, order, &failure);
    }

    fn fail_order(&mut self, now_ms: f64, start_ms: f64, scope: &Scope, order: u64, why: &Failure<'_>) {
        let Failure { message, client, status } = why;
        let stack = stack(
            "UpstreamError",
            message,
            &[
                client,
                "process.processTicksAndRejections (node:internal/process/task_queues:105:5)",
                "async placeOrder (/app/src/routes/checkout.js:61:20)",
                "async /app/src/routes/checkout.js:22:5",
            ],
        );
        self.say(now_ms, scope, 50, &format!(",\"err\":{{\"type\":\"UpstreamError\",\"message\":\"{message}\",\"stack\":\"{stack}\",\"status\":{status}}},\"orderId\":\"{order}\",\"msg\":\"order failed\""));
        self.complete(now_ms + 0.8, start_ms, scope, 502);
    }

    /// `GET /cart/<id>` at the cart, a fastify service. Returns when it answered, and whether with the cart.
    pub(super) fn read_cart(&mut self, start_ms: f64, trace: &str, cart: u64, from: &str) -> (f64, bool) {
        let scope = self.fastify(CART, trace);
        let port = 32_768 + self.random.below(28_000);
        self.say(start_ms, &scope, 30, &format!(",\"req\":{{\"method\":\"GET\",\"url\":\"/cart/{cart}\",\"host\":\"cart:3000\",\"remoteAddress\":\"{from}\",\"remotePort\":{port}}},\"msg\":\"incoming request\""));
        let is_broken = self.broken == Some(Part::Cart);
        let took = self.random.latency(if is_broken { 120.0 } else { 8.0 });
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
        // At both tries of an order, so that it fails.
        let fails = is_broken && (u64::from(self.requests as u32) * 37 + cart) % 100 < BROKEN_PERCENT;
        let status = if fails { 500 } else { 200 };
        if fails {
            let message = "Cannot read properties of undefined (reading 'items')";
            let stack = stack(
                "TypeError",
                message,
                &[
                    "Object.<anonymous> (/app/src/cart.js:31:24)",
                    "preHandlerCallbackInner (/app/node_modules/fastify/lib/handle-request.js:190:24)",
                    "preHandlerCallback (/app/node_modules/fastify/lib/handle-request.js:155:5)",
                    "handler (/app/node_modules/fastify/lib/handle-request.js:99:7)",
                ],
            );
            self.say(done - 0.1, &scope, 50, &format!(",\"req\":{{\"method\":\"GET\",\"url\":\"/cart/{cart}\",\"host\":\"cart:3000\",\"remoteAddress\":\"{from}\",\"remotePort\":{port}}},\"res\":{{\"statusCode\":500}},\"err\":{{\"type\":\"TypeError\",\"message\":\"{message}\",\"stack\":\"{stack}\"}},\"msg\":\"{message}\""));
        }
        self.say(
            done,
            &scope,
            30,
            &format!(
                ",\"res\":{{\"statusCode\":{status}}},\"responseTime\":{took},\"msg\":\"request completed\""
            ),
        );
        (done, !fails)
    }

    /// `POST /charges` at payments. Returns when it answered and with which status.
    fn charge(&mut self, start_ms: f64, trace: &str, from: usize, order: u64, amount: f64) -> (f64, u16) {
        let headers = format!(
            ",\"content-type\":\"application/json\",\"traceparent\":\"00-{trace}-{}-01\"",
            self.random.hex(16)
        );
        let caller = Caller { agent: "undici", headers: &headers, address: PODS[from].ip };
        let scope = self.express(PAYMENTS, "POST", "/charges", trace, caller);
        let is_broken = self.broken == Some(Part::Payments);
        let took = self.random.latency(if is_broken { 420.0 } else { 38.0 });
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
            chance if is_broken && chance < BROKEN_PERCENT => 503,
            96..=99 => 402,
            _ => 200,
        };
        if status == 503 {
            self.no_ledger(done - 0.5, &scope, order, "ledger is not reachable");
        } else if self.random.chance(4) {
            // An error that the service gets over: not every one costs somebody an order.
            self.no_ledger(start_ms + took * 0.3, &scope, order, "ledger did not answer, trying again");
        }
        if status == 200 {
            let authorization = self.random.hex(8);
            self.say(done - 0.5, &scope, 30, &format!(",\"orderId\":\"{order}\",\"amount\":{amount},\"authorization\":\"{authorization}\",\"msg\":\"charge authorized\""));
        }
        self.complete(done, start_ms, &scope, status);
        (done, status)
    }

    fn no_ledger(&mut self, at_ms: f64, scope: &Scope, order: u64, what: &str) {
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
        self.say(at_ms, scope, 50, &format!(",\"err\":{{\"type\":\"Error\",\"message\":\"{message}\",\"stack\":\"{stack}\",\"errno\":-111,\"code\":\"ECONNREFUSED\",\"syscall\":\"connect\",\"address\":\"10.96.14.7\",\"port\":5432}},\"orderId\":\"{order}\",\"msg\":\"{what}\""));
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
    pub(super) fn probe(&mut self, at_ms: f64) {
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

/// Who asks.
struct Caller<'a> {
    agent: &'a str,
    /// Further header members, each with its leading comma.
    headers: &'a str,
    address: &'a str,
}

/// The bindings of every logger.
pub(super) fn base(pod: usize) -> String {
    format!(",\"pid\":1,\"hostname\":\"{}\"", PODS[pod].name)
}
