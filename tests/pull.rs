//! `/metrics/workloads`: what is on the page, and that a real Prometheus reads the same from it.

mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodewick::admin::Admin;
use nodewick::data::sample::{Exemplar, Label, MetricKind, Origin, OriginKind, Page, stale};
use nodewick::health::Health;
use nodewick::sink::pull::Workloads;
use support::prometheus::{Labels, Prometheus};
use tokio_util::sync::CancellationToken;

fn origin(pairs: &[(&str, &str)]) -> Arc<Origin> {
    let labels = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() })
}

/// Makes a page final, as the series do: labels sorted, with the name and the target's.
fn finish(page: &mut Page, origin: &Origin) {
    for index in 0..page.samples.len() {
        let mut sample = page.samples[index];
        let mut labels = page.labels_of(&sample).to_vec();
        let name = page.push_text(b"__name__");
        labels.push(Label { name, value: sample.name });
        for (name, value) in &origin.labels {
            let (name, value) = (page.push_text(name.as_bytes()), page.push_text(value.as_bytes()));
            labels.push(Label { name, value });
        }
        labels.sort_by(|one, other| page.bytes(one.name).cmp(page.bytes(other.name)));
        sample.labels = page.labels.len() as u32;
        sample.label_count = labels.len() as u32;
        sample.time_unix_ms = 1_795_354_933_000;
        page.labels.extend(labels);
        page.samples[index] = sample;
    }
}

fn page(origin: &Origin, fill: impl FnOnce(&mut Page)) -> Page {
    let mut page = Page::default();
    fill(&mut page);
    finish(&mut page, origin);
    page
}

/// Reads the classic text format, as plain as the corpus is: no times, no escapes.
fn read(page: &mut Page, text: &str) {
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let kind = match kind {
                "counter" => MetricKind::Counter,
                "gauge" => MetricKind::Gauge,
                "histogram" => MetricKind::Histogram,
                "summary" => MetricKind::Summary,
                _ => MetricKind::Unknown,
            };
            page.begin_family(name, kind, "Help.");
        } else if !line.starts_with('#') && !line.is_empty() {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("a brace");
            let labels = labels.split_terminator("\",").map(|label| {
                let (name, value) = label.split_once("=\"").expect("a label");
                (name, value.trim_end_matches('"'))
            });
            page.push_sample(name, labels, value.parse().expect("a number"));
        }
    }
}

fn kubelet() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/metrics/kubelet.prom");
    std::fs::read_to_string(path).expect("the corpus")
}

fn text(workloads: &Workloads, open_metrics: bool) -> String {
    let pieces: Vec<u8> = workloads.render(open_metrics).expect("a render").flatten().collect();
    String::from_utf8(pieces).expect("UTF-8")
}

/// Two targets that agree on most things.
fn two_targets() -> Workloads {
    let workloads = Workloads::default();
    let mut collect = workloads.collector();
    let one = origin(&[("instance", "a:1"), ("job", "one")]);
    let sent = page(&one, |page| {
        page.begin_family("orders", MetricKind::Counter, "Orders \\ made.");
        for shop in ["x", "y\"z"] {
            page.push_sample("orders_total", [("shop", shop)], 1.0);
            page.push_sample("orders_created", [("shop", shop)], 1_795_354_000.5);
        }
        page.begin_family("build", MetricKind::Info, "");
        page.push_sample("build_info", [("version", "1")], 1.0);
        page.begin_family("gone", MetricKind::Gauge, "");
        page.push_sample("gone", [], stale());
        page.begin_family("depth", MetricKind::Gauge, "");
        page.push_sample("depth", [], -0.5);
        let labels = page.labels.len() as u32;
        let label = Label { name: page.push_text(b"trace_id"), value: page.push_text(b"4bf9") };
        page.labels.push(label);
        page.exemplars.push(Exemplar {
            labels,
            label_count: 1,
            value: 0.25,
            time_unix_ms: 1_795_354_932_250,
        });
        (page.samples[0].exemplar, page.samples[0].exemplar_count) = (0, 1);
    });
    collect.page(&one, &sent);
    let two = origin(&[("instance", "b:1"), ("job", "two")]);
    let sent = page(&two, |page| {
        page.begin_family("took_seconds", MetricKind::Histogram, "");
        page.push_sample("took_seconds_bucket", [("le", "+Inf")], 3.0);
        page.push_sample("took_seconds_sum", [], 1e-7);
        page.push_sample("took_seconds_count", [], 3.0);
        // As Python's client says it in the classic format.
        page.begin_family("orders_total", MetricKind::Counter, "Other words.");
        page.push_sample("orders_total", [("shop", "x")], 7.0);
        page.push_sample("orders_total", [("shop", "w")], 8.0);
        page.begin_family("orders_created", MetricKind::Gauge, "");
        page.push_sample("orders_created", [("shop", "x")], 5.0);
        page.push_sample("orders_created", [("shop", "w")], 6.0);
        page.begin_family("depth", MetricKind::Counter, "");
        page.push_sample("depth", [], 4.0);
    });
    collect.page(&two, &sent);
    // The pages stay while their collector lives.
    std::mem::forget(collect);
    workloads
}

#[test]
fn families_stand_once_with_the_samples_of_all_targets() {
    let workloads = two_targets();
    assert_eq!(
        text(&workloads, false),
        r#"# TYPE build_info gauge
build_info{version="1",instance="a:1",job="one"} 1
# TYPE depth untyped
depth{instance="a:1",job="one"} -0.5
depth{instance="b:1",job="two"} 4
# HELP orders_total Orders \\ made.
# TYPE orders_total counter
orders_total{shop="x",instance="a:1",job="one"} 1
orders_total{shop="y\"z",instance="a:1",job="one"} 1
orders_total{shop="x",instance="b:1",job="two"} 7
orders_total{shop="w",instance="b:1",job="two"} 8
# TYPE orders_created gauge
orders_created{shop="x",instance="a:1",job="one"} 1795354000.5
orders_created{shop="y\"z",instance="a:1",job="one"} 1795354000.5
orders_created{shop="x",instance="b:1",job="two"} 5
orders_created{shop="w",instance="b:1",job="two"} 6
# TYPE took_seconds histogram
took_seconds_bucket{le="+Inf",instance="b:1",job="two"} 3
took_seconds_sum{instance="b:1",job="two"} 1e-7
took_seconds_count{instance="b:1",job="two"} 3
"#
    );
    assert_eq!(
        text(&workloads, true),
        r#"# TYPE build info
build_info{version="1",instance="a:1",job="one"} 1
# TYPE depth unknown
depth{instance="a:1",job="one"} -0.5
depth{instance="b:1",job="two"} 4
# HELP orders Orders \\ made.
# TYPE orders counter
orders_total{shop="x",instance="a:1",job="one"} 1 # {trace_id="4bf9"} 0.25 1795354932.250
orders_created{shop="x",instance="a:1",job="one"} 1795354000.5
orders_total{shop="y\"z",instance="a:1",job="one"} 1
orders_created{shop="y\"z",instance="a:1",job="one"} 1795354000.5
orders_total{shop="x",instance="b:1",job="two"} 7
orders_created{shop="x",instance="b:1",job="two"} 5
orders_total{shop="w",instance="b:1",job="two"} 8
orders_created{shop="w",instance="b:1",job="two"} 6
# TYPE took_seconds histogram
took_seconds_bucket{le="+Inf",instance="b:1",job="two"} 3
took_seconds_sum{instance="b:1",job="two"} 1e-7
took_seconds_count{instance="b:1",job="two"} 3
# EOF
"#
    );
}

#[test]
fn a_real_page_is_kept_small_and_comes_back_whole() {
    let source = kubelet();
    let workloads = Workloads::default();
    let mut collect = workloads.collector();
    let mut expected = BTreeMap::new();
    for number in 0..3 {
        let instance = format!("n{number}");
        let target = origin(&[("instance", &instance), ("job", "kubelet")]);
        let sent = page(&target, |page| read(page, &source));
        assert!(sent.samples.len() > 1500);
        collect.page(&target, &sent);
        for line in source.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, own) = series.split_once('{').unwrap_or((series, "}"));
            let own = own.trim_end_matches('}');
            // A label without a value is none, as Prometheus has it; the others are sorted.
            let mut labels: Vec<_> =
                own.split_terminator("\",").map(|label| label.trim_end_matches('"')).collect();
            labels.retain(|label| !label.ends_with('='));
            labels.sort_unstable();
            let own: String = labels.iter().map(|label| format!("{label}\",")).collect();
            let series = format!("{name}{{{own}instance=\"{instance}\",job=\"kubelet\"}}");
            expected.insert(series, value.parse::<f64>().expect("a number").to_bits());
        }
    }
    assert!(workloads.bytes() / 3 < 30 << 10, "{} bytes a page", workloads.bytes() / 3);
    let rendered = text(&workloads, false);
    let mut found = BTreeMap::new();
    let mut types = Vec::new();
    for line in rendered.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            types.push(family.split(' ').next().expect("a name").to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(
                found.insert(series.to_owned(), value.parse::<f64>().expect("a number").to_bits()).is_none()
            );
        }
    }
    for (series, value) in &expected {
        assert_eq!(found.remove(series), Some(*value), "{series}");
    }
    assert_eq!(found, BTreeMap::new(), "nothing else");
    assert!(types.is_sorted_by(|one, other| one < other), "each family once");
    // A reload's collector is there before the one before it ends.
    let mut next = workloads.collector();
    let target = origin(&[("instance", "next")]);
    next.page(&target, &page(&target, |page| read(page, "# TYPE a gauge\na 1\n")));
    drop(collect);
    assert_eq!(text(&workloads, false), "# HELP a Help.\n# TYPE a gauge\na{instance=\"next\"} 1\n");
    next.forget(&target);
    assert_eq!(workloads.bytes(), 0);
}

#[test]
fn promtool_takes_the_page() {
    let source = kubelet();
    let workloads = two_targets();
    let mut collect = workloads.collector();
    for instance in ["n0", "n1"] {
        let target = origin(&[("instance", instance), ("job", "kubelet")]);
        collect.page(&target, &page(&target, |page| read(page, &source)));
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool of Debian's prometheus; run .ci/tools");
    let rendered = text(&workloads, false);
    child.stdin.take().expect("piped").write_all(rendered.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stderr);
    // 3: it has opinions on names. 1: it cannot read the page.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}

#[test]
fn two_renders_at_once_are_enough() {
    let workloads = two_targets();
    let (one, two) = (workloads.render(true), workloads.render(true));
    assert!(one.is_some() && two.is_some() && workloads.render(true).is_none());
    drop(one);
    assert!(workloads.render(false).is_some());
}

/// Serves the page until the guard drops.
struct Served {
    address: SocketAddr,
    leave: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn start(workloads: Workloads) -> Self {
        let leave = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let token = leave.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
                sender.send(admin.address()).expect("awaited");
                let page = move |open_metrics| workloads.render(open_metrics);
                let admin = admin.with_workloads(Arc::new(page));
                admin.serve(Health::new(), token).await.expect("never fails");
            });
        });
        let address = receiver.recv().expect("an address");
        Self { address, leave, thread: Some(thread) }
    }

    fn get(&self, headers: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        write!(stream, "GET /metrics/workloads HTTP/1.0\r\n{headers}\r\n").expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        let at = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let body = answer.split_off(at);
        (String::from_utf8(answer).expect("text").to_ascii_lowercase(), body)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.leave.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_page_is_served_as_asked_for() {
    let workloads = two_targets();
    let served = Served::start(workloads.clone());
    let (head, body) = served.get("");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, text(&workloads, false).into_bytes());
    let (head, body) =
        served.get("Accept: application/openmetrics-text;version=1.0.0\r\nAccept-Encoding: gzip\r\n");
    assert!(
        head.contains("application/openmetrics-text") && head.contains("content-encoding: gzip"),
        "{head}"
    );
    let mut plain = String::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut plain).expect("gzip");
    assert_eq!(plain, text(&workloads, true));
    let held = (workloads.render(true), workloads.render(true));
    let (head, _) = served.get("");
    assert!(head.starts_with("http/1.0 503") && head.contains("retry-after: 5"), "{head}");
    drop(held);
}

#[test]
fn a_real_prometheus_reads_the_same() {
    let source = kubelet();
    let workloads = two_targets();
    let mut collect = workloads.collector();
    let target = origin(&[("instance", "n0"), ("job", "kubelet")]);
    collect.page(&target, &page(&target, |page| read(page, &source)));
    let served = Served::start(workloads);
    let config = format!(
        "scrape_configs:\n- job_name: nodewick\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  honor_labels: true\n  \
         metrics_path: /metrics/workloads\n  static_configs:\n  - targets: ['{}']\n",
        served.address
    );
    let prometheus = Prometheus::with(&config, &[]);
    let end = Instant::now() + Duration::from_secs(45);
    let found = loop {
        let found = prometheus.query("{job=\"kubelet\"}", None);
        if !found.is_empty() || Instant::now() > end {
            break found;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut expected = BTreeMap::new();
    for line in source.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, own) = series.split_once('{').unwrap_or((series, "}"));
        let mut labels = Labels::new();
        for label in own.trim_end_matches('}').split_terminator("\",") {
            let (name, value) = label.split_once("=\"").expect("a label");
            let value = value.trim_end_matches('"');
            if !value.is_empty() {
                labels.insert(name.to_owned(), value.to_owned());
            }
        }
        for (name, value) in [("__name__", name), ("instance", "n0"), ("job", "kubelet")] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        expected.insert(labels, value.parse::<f64>().expect("a number").to_bits());
    }
    let found: BTreeMap<_, _> = found.into_iter().map(|(labels, value)| (labels, value.to_bits())).collect();
    assert_eq!(found.len(), expected.len());
    for (labels, value) in &expected {
        assert_eq!(found.get(labels), Some(value), "{labels:?}");
    }
    let orders = prometheus.query("sum(orders_total)", None);
    assert_eq!(orders.values().copied().collect::<Vec<_>>(), [17.0]);
}
