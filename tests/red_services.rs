//! RED of real services, read back from a real Prometheus: equal to what the services count themselves, exact over kills,
//! rotations, reloads and a backend that is down.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

mod support;

use support::agent::{Agent, Settings, free_address};
use support::cri_writer::{ContainerLog, Pipe};
use support::fake_loki::{FakeLoki, Limits, wait_until};
use support::measured::{Kind, Measured, get};
use support::prometheus::Prometheus;

/// Time for what was counted to arrive: everything is published every second.
const PATIENCE: Duration = Duration::from_secs(45);

/// Series by some of their labels, with a value.
type Totals = BTreeMap<String, f64>;

fn totals<const N: usize>(expected: [(&str, f64); N]) -> Totals {
    expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The time of the newest sample of a selector, in seconds.
fn newest(server: &Prometheus, selector: &str) -> Option<f64> {
    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1e3;
    let samples = server.samples(selector, "1h", now + 60.0);
    let newest = samples.values().flatten().map(|(time, _)| *time).max()?;
    Some(newest as f64 / 1e3)
}

/// `increase()` over everything, by these labels, without zeros: exact, as every series begins with 0 and nothing is
/// extrapolated beyond a newest sample.
fn increase(server: &Prometheus, metric: &str, selector: &str, by: &[&str]) -> Totals {
    let Some(at) = newest(server, &format!("{metric}{{{selector}}}")) else { return Totals::new() };
    let promql = format!("sum by ({}) (increase({metric}{{{selector}}}[1h]))", by.join(","));
    let found = server.query(&promql, Some(at));
    found
        .into_iter()
        .filter(|(_, value)| *value != 0.0)
        .map(|(labels, value)| {
            let values: Vec<&str> =
                by.iter().map(|name| labels.get(*name).map_or("", String::as_str)).collect();
            (values.join(" "), value)
        })
        .collect()
}

fn requests(server: &Prometheus, selector: &str) -> Totals {
    increase(server, "red_requests_total", selector, &["code_class", "method", "route"])
}

/// Waits for these totals of requests; fails with what is there instead.
fn expect_requests(server: &Prometheus, selector: &str, expected: &Totals, agent: &Agent) {
    let begun = Instant::now();
    loop {
        let found = requests(server, selector);
        if &found == expected {
            return;
        }
        if begun.elapsed() > PATIENCE {
            assert_eq!(&found, expected, "{selector}\n{}", agent.said());
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn never_down(server: &Prometheus) {
    let families = ["red_requests_total"].into_iter().map(str::to_owned);
    let families =
        families.chain(["bucket", "sum", "count"].map(|part| format!("red_request_duration_seconds_{part}")));
    for family in families {
        let resets = server.query(&format!("resets({family}[1h]) > 0"), None);
        assert!(resets.is_empty(), "{family} went down: {resets:?}");
    }
}

/// What the service's own histogram says: observations by class of answer; scrapes of itself aside.
fn own(service: &Measured) -> Totals {
    let (status, _, body) = get(service.address(), "/metrics", &[]);
    assert_eq!(status, 200);
    let mut found = Totals::new();
    for line in String::from_utf8_lossy(&body).lines() {
        let Some(rest) = line.strip_prefix("http_request_duration_seconds_count{") else { continue };
        let (labels, value) = rest.split_once("} ").expect("a value");
        let label = |name: &str| {
            let labels = labels.split(',').find_map(|pair| pair.strip_prefix(&format!("{name}=\"")));
            labels.map(|value| value.trim_end_matches('"')).unwrap_or_default().to_owned()
        };
        if label("route") != "/metrics" {
            let class = format!("{}xx {}", &label("status_code")[..1], label("method"));
            let value = value.split(' ').next().expect("a value");
            *found.entry(class).or_default() += value.parse::<f64>().expect("a number");
        }
    }
    found
}

fn without_routes(requests: &Totals) -> Totals {
    let mut found = Totals::new();
    for (labels, value) in requests {
        let (class, _) = labels.rsplit_once(' ').expect("a route");
        *found.entry(class.to_owned()).or_default() += value;
    }
    found
}

fn abort(address: SocketAddr, path: &str) {
    let mut connection = TcpStream::connect(address).expect("a service that listens");
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("a request");
    std::thread::sleep(Duration::from_millis(200));
}

fn agent(directory: &Path, logs: &Path, rest: &str) -> Agent {
    fs::create_dir_all(logs).expect("a log root");
    let mut agent =
        Agent::prepare(directory, logs, &Settings { rest: rest.to_owned(), ..Settings::default() });
    agent.launch();
    agent
}

#[test]
fn lines_and_the_services_own_metrics_tell_the_same() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("pods");
    let pod = |kind: Kind| format!("{}-7d9c5b6f4-abcde", kind.name());
    let services: Vec<Measured> = [Kind::PromClient, Kind::Fastify]
        .into_iter()
        .map(|kind| {
            let log = ContainerLog::create(&root, &format!("shop_{}_{}", pod(kind), kind.name()), "app", 0);
            Measured::start(kind, Some(log.expect("a log")))
        })
        .collect();
    let server = Prometheus::start();
    let loki = FakeLoki::start(Limits::default());
    let write = format!("[sink.remote_write.main]\nurl = \"{}\"\n", server.write_url());
    let mut by_lines = agent(
        &directory.path().join("lines"),
        &root,
        &format!(
            "[red]\nsource = \"log\"\ninterval = \"1s\"\n{write}[sink.loki.main]\nurl = \"{}\"\n",
            loki.url()
        ),
    );
    let targets: String = services
        .iter()
        .map(|service| {
            format!(
                "[[scrape.static]]\njob = \"{0}\"\ntargets = [\"{1}\"]\nlabels = {{namespace = \"shop\", workload = \"{0}\"}}\n",
                service.kind().name(),
                service.address()
            )
        })
        .collect();
    let mut by_scrape = agent(
        &directory.path().join("scrape"),
        &directory.path().join("none"),
        &format!(
            "[red]\nsource = \"scrape\"\ninterval = \"1s\"\n{write}[scrape]\ninterval = \"1s\"\ntimeout = \"1s\"\n{targets}"
        ),
    );
    by_lines.wait_ready();
    by_scrape.wait_ready();
    // What was counted before a first scrape nobody knows.
    assert!(wait_until(PATIENCE, || server.query("up == 1", None).len() == 2), "{}", by_scrape.said());

    // A reload in between loses nothing of either.
    for service in &services {
        for n in 100..105 {
            assert_eq!(service.call(&format!("/orders/{n}")), 200);
        }
    }
    std::thread::sleep(Duration::from_millis(2500));
    for agent in [&by_lines, &by_scrape] {
        let file = agent.directory().join("agent.toml");
        let changed =
            fs::read_to_string(&file).expect("a config").replace("[red]", "[red]\nthresholds = [\"200ms\"]");
        fs::write(&file, changed).expect("a config");
        agent.signal(Signal::HUP);
    }
    std::thread::scope(|scope| {
        for service in &services {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(service.call("/wait/1600"), 200));
            }
            scope.spawn(|| {
                for n in 0..35 {
                    assert_eq!(service.call(&format!("/orders/{n}?page=2")), 200);
                }
                for n in 0..15 {
                    assert_eq!(service.call(&format!("/fail/{n}")), 500);
                }
                for n in 0..7 {
                    assert_eq!(service.call(&format!("/not-here-{n}/x")), 404);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| abort(services[0].address(), "/wait/2000"));
        }
    });

    let line = [
        ("2xx GET /orders/{id}", 40.0),
        ("2xx GET /wait/{id}", 3.0),
        ("4xx GET __unmatched__", 7.0),
        ("5xx GET /fail/{id}", 15.0),
    ];
    let scraped = [
        ("2xx GET /orders/:id", 40.0),
        ("2xx GET /wait/:ms", 3.0),
        ("4xx GET __unmatched__", 7.0),
        ("5xx GET /fail/:id", 15.0),
    ];
    for service in &services {
        let name = service.kind().name();
        let by_line = format!("pod=\"{}\",route!=\"/metrics\"", pod(service.kind()));
        let by_scraping = format!("pod=\"{}\",route!=\"/metrics\"", service.address());
        let mut expected = totals(line);
        if service.kind() == Kind::PromClient {
            // Its own histogram knows nothing of them.
            expected.insert("aborted GET /wait/{id}".to_owned(), 2.0);
        }
        expect_requests(&server, &by_line, &expected, &by_lines);
        let mut counted = totals(scraped);
        if service.kind() == Kind::Fastify {
            // fastify-metrics counts registered routes alone.
            counted.remove("4xx GET __unmatched__");
            expected.remove("4xx GET __unmatched__");
        }
        expect_requests(&server, &by_scraping, &counted, &by_scrape);
        expected.remove("aborted GET /wait/{id}");
        assert_eq!(own(service), without_routes(&expected), "{name}");

        // Durations: as many as requests, and in their buckets where they are far from any bound.
        let count =
            |selector: &str| increase(&server, "red_request_duration_seconds_count", selector, &["route"]);
        let aborted = if service.kind() == Kind::PromClient { 2.0 } else { 0.0 };
        let counts = [
            ("/fail/{id}", 15.0),
            ("/orders/{id}", 40.0),
            ("/wait/{id}", 3.0 + aborted),
            ("__unmatched__", 7.0),
        ];
        assert_eq!(count(&by_line), totals(counts), "{name}");
        let mut counts =
            totals([("/fail/:id", 15.0), ("/orders/:id", 40.0), ("/wait/:ms", 3.0), ("__unmatched__", 7.0)]);
        if service.kind() == Kind::Fastify {
            counts.remove("__unmatched__");
        }
        assert_eq!(count(&by_scraping), counts, "{name}");
        let buckets = |selector: &str, route: &str, bounds: &str| {
            let selector = format!("{selector},route=~\"{route}\",le=~\"{bounds}\"");
            increase(&server, "red_request_duration_seconds_bucket", &selector, &["le"])
        };
        let slow = [("1", aborted), ("2.5", 3.0 + aborted), ("+Inf", 3.0 + aborted)];
        let slow: Totals = totals(slow).into_iter().filter(|(_, value)| *value > 0.0).collect();
        assert_eq!(buckets(&by_line, "/wait/.id.", "1|2[.]5|[+]Inf"), slow, "{name}");
        // fastify-metrics has no bound between 1 and 5 seconds but these.
        let bounds = buckets(&by_scraping, "/wait/:ms", "1|[+]Inf");
        assert_eq!(bounds, totals([("+Inf", 3.0)]), "{name}");
        let sources = server.query(&format!("red_source_info{{workload=\"{name}\"}}"), None);
        let mut sources: Vec<String> =
            sources.keys().map(|labels| format!("{} {}", labels["source"], labels["profile"])).collect();
        sources.sort();
        assert_eq!(sources, ["log access_log", "scrape http_request_duration"]);
    }
    never_down(&server);
}

/// Calls a service until it is told to stop, from two threads; counts the answers.
struct Traffic<'a> {
    service: &'a Measured,
    stop: AtomicBool,
    answered: AtomicU64,
}

impl Traffic<'_> {
    fn run(&self, from: u64) {
        let mut number = from;
        while !self.stop.load(Ordering::Relaxed) {
            number += 2;
            assert_eq!(self.service.call(&format!("/orders/{number}")), 200);
            self.answered.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn kills_rotations_reloads_and_restarts_count_every_request_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("pods");
    let log = ContainerLog::create(&root, "shop_checkout-7d9c5b6f4-abcde_uid", "app", 0).expect("a log");
    let service = Measured::start(Kind::PromClient, Some(log.clone()));
    let server = Prometheus::start();
    let loki = FakeLoki::start(Limits::default());
    let rest = format!(
        "[sink.remote_write.main]\nurl = \"{}\"\n[sink.loki.main]\nurl = \"{}\"\n[red]\nsource = \"log\"\n",
        server.write_url(),
        loki.url()
    );
    let mut agent = agent(&directory.path().join("agent"), &root, &format!("{rest}interval = \"1s\"\n"));
    agent.wait_ready();
    let traffic = Traffic { service: &service, stop: AtomicBool::new(false), answered: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        // A failed assertion must end the callers too.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = Stop(&traffic.stop);
        let rotator = log.rotate_at(60_000, Duration::from_millis(500));
        for from in [0, 1] {
            let traffic = &traffic;
            scope.spawn(move || traffic.run(from));
        }
        // A birth that is still in memory is lost with the agent, and `increase()` with it.
        assert!(wait_until(PATIENCE, || !requests(&server, "").is_empty()), "{}", agent.said());
        let mut random = 17_u64;
        for _ in 0..4 {
            // Neither at the beginning nor at the end of a second.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis(1300 + (random >> 33) % 900));
            agent.kill();
            std::thread::sleep(Duration::from_millis(100));
            agent.launch();
            agent.wait_ready();
        }
        let file = agent.directory().join("agent.toml");
        for (number, change) in
            ["interval = \"1s\"\nthresholds = [\"200ms\"]", "interval = \"2s\"", "interval = \"1s\""]
                .into_iter()
                .enumerate()
        {
            std::thread::sleep(Duration::from_millis(1200));
            let before = fs::read_to_string(&file).expect("a config");
            let kept = before.split("source = \"log\"\n").next().expect("a config");
            fs::write(&file, format!("{kept}source = \"log\"\n{change}\n")).expect("a config");
            agent.signal(Signal::HUP);
            let reloaded = || agent.said().matches("config reloaded").count() > number;
            assert!(wait_until(PATIENCE, reloaded), "{}", agent.said());
        }
        std::thread::sleep(Duration::from_millis(1500));
        assert!(agent.terminate().success());
        agent.launch();
        agent.wait_ready();
        std::thread::sleep(Duration::from_millis(500));
        drop(rotator);
        drop(stop);
    });
    let answered = traffic.answered.load(Ordering::Relaxed) as f64;
    assert!(log.rotations() >= 3 && answered >= 100.0, "{} {answered}", log.rotations());
    let selector = "workload=\"checkout\"";
    let expected = totals([("2xx GET /orders/{id}", answered)]);
    assert!(
        wait_until(PATIENCE, || log.lines().len() as f64 >= answered),
        "the service logs each request: {} of {answered}",
        log.lines().len()
    );
    expect_requests(&server, selector, &expected, &agent);
    // Nothing comes after it.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(requests(&server, selector), expected);
    let last = server.query("sum(red_requests_total)", None);
    assert_eq!(last.values().copied().collect::<Vec<_>>(), [answered], "the counter has gone on");
    let timed = increase(&server, "red_request_duration_seconds_count", selector, &["route"]);
    assert_eq!(timed, totals([("/orders/{id}", answered)]));
    never_down(&server);
}

#[test]
fn requests_are_counted_while_a_backend_is_down() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("pods");
    let log = ContainerLog::create(&root, "shop_checkout-7d9c5b6f4-abcde_uid", "app", 0).expect("a log");
    let server = Prometheus::start();
    fs::create_dir_all(&root).expect("a log root");
    let settings = Settings {
        agent: "memory = \"1MiB\"".to_owned(),
        rest: format!(
            "[sink.remote_write.main]\nurl = \"{}\"\n[sink.loki.main]\nurl = \"http://{}\"\n[red]\ninterval = \"1s\"\n",
            server.write_url(),
            free_address(),
        ),
        ..Settings::default()
    };
    let mut agent = Agent::prepare(&directory.path().join("agent"), &root, &settings);
    agent.launch();
    agent.wait_ready();
    // As pino-http writes them, with more headers than the memory for log data holds of all of them.
    let padding = "x".repeat(1200);
    let write = |from: u32, to: u32| {
        for n in from..to {
            let line = format!(
                "{{\"level\":30,\"time\":{},\"pid\":7,\"hostname\":\"checkout\",\"req\":{{\"id\":{n},\"method\":\"GET\",\"url\":\"/orders/{n}\",\"query\":{{}},\"headers\":{{\"cookie\":\"{padding}\"}},\"remoteAddress\":\"::1\",\"remotePort\":5}},\"res\":{{\"statusCode\":{},\"headers\":{{}}}},\"responseTime\":{},\"msg\":\"request completed\"}}",
                jiff::Timestamp::now().as_millisecond(),
                if n.is_multiple_of(10) { 503 } else { 200 },
                n % 90,
            );
            log.write_line(Pipe::Stdout, line.as_bytes()).expect("a line");
        }
    };
    let selector = "workload=\"checkout\"";
    let expected = |requests: u32| {
        let failed = f64::from(requests / 10);
        totals([("2xx GET /orders/{id}", f64::from(requests) - failed), ("5xx GET /orders/{id}", failed)])
    };
    write(0, 3000);
    expect_requests(&server, selector, &expected(3000), &agent);
    agent.kill();
    write(3000, 4000);
    agent.launch();
    expect_requests(&server, selector, &expected(4000), &agent);
    write(4000, 5000);
    expect_requests(&server, selector, &expected(5000), &agent);
    let held = increase(
        &server,
        "red_request_duration_seconds_bucket",
        &format!("{selector},le=~\"0[.]05|[+]Inf\""),
        &["le"],
    );
    // 5000 = 55 times 0 to 89 and 0 to 49; 50 ms is within 0.05.
    assert_eq!(held, totals([("0.05", 55.0 * 51.0 + 50.0), ("+Inf", 5000.0)]));
    never_down(&server);
}
