//! Allocations from bytes to encoded request, of log files and of pages of metrics, counted exactly: figures that do not
//! swing with the machine.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nodewick::data::batch::{Batch, Fields};
use nodewick::data::budget::{Budget, Signal};
use nodewick::data::position::Position;
use nodewick::data::sample::{Collect, Origin, OriginKind, Page};
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::env::{Env, LogFile};
use nodewick::logs::ingest::{LineState, Settings};
use nodewick::logs::os::{Os, OsFile};
use nodewick::logs::process::{self, Chain};
use nodewick::logs::requests::{self, Found};
use nodewick::scrape::relabel::Rules;
use nodewick::scrape::series::Book;
use nodewick::scrape::target::{Scheme, Target};
use nodewick::scrape::{self, Body, Dialect, Event, Fetched, Output};
use nodewick::sink::loki::Loki;
use nodewick::sink::remote_write::{self, Protocol};
use nodewick::sink::{Parcel, Wire};

/// Bytes that the tail reads at once.
const CHUNK: usize = 256 << 10;

/// Container log lines as containerd writes them: pino requests, one in a hundred in two fragments.
fn log(lines: usize) -> String {
    let mut file = String::new();
    for n in 0..lines {
        let body = format!(
            "{{\"level\":30,\"time\":{},\"pid\":1,\"hostname\":\"orders-7d9f8b6c5-p2x4k\",\"reqId\":\"rq-{n:09}\",\"req\":{{\"method\":\"GET\",\
             \"url\":\"/api/orders/{n}?page=2\",\"remoteAddress\":\"10.0.3.7\"}},\"res\":{{\"statusCode\":200}},\"responseTime\":{}.5,\
             \"trace_id\":\"{:032x}\",\"span_id\":\"{:016x}\",\"msg\":\"request completed\"}}",
            1_795_356_000_000_u64 + n as u64,
            n % 400,
            n + 1,
            n + 1,
        );
        let stream = if n % 50 == 0 { "stderr" } else { "stdout" };
        let mut line = |tag: &str, part: &str| {
            let (secs, nanos) = (n / 1000 % 60, n % 1000 * 1_000_000 + 7);
            writeln!(file, "2026-11-22T14:11:{secs:02}.{nanos:09}Z {stream} {tag} {part}")
                .expect("to a string");
        };
        if n % 100 == 7 {
            let (head, tail) = body.split_at(120);
            line("P", head);
            line("F", tail);
        } else {
            line("F", &body);
        }
    }
    file
}

struct Path {
    file: OsFile,
    offset: u64,
    lines: LineState,
    settings: Settings,
    workload: Arc<Workload>,
    budget: Arc<Budget>,
    loki: Loki,
    body: Vec<u8>,
    requests: usize,
}

impl Path {
    fn new(file: OsFile, fields: Fields) -> Self {
        let container = ContainerRef::from_path("shop_orders-7d9f8b6c5-p2x4k_uid", "api", 0).expect("a path");
        let mut identity = PathIdentity { cluster: "c1".into(), node: "n1".into(), environment: None };
        let Identity::Known(workload) = identity.identify(&container, Duration::ZERO) else {
            panic!("known from the path")
        };
        let chain = Chain::compile(&process::Config::default()).expect("no rules");
        Self {
            file,
            offset: 0,
            lines: LineState::new(CHUNK),
            settings: Settings::new(fields, chain, CHUNK),
            workload,
            budget: Budget::new(64 << 20, Arc::<Signal>::default()),
            loki: Loki::new(None, false, fields),
            body: Vec::new(),
            requests: 0,
        }
    }

    /// The same where somebody counts the requests in the lines.
    fn with_requests(mut self) -> Self {
        self.settings.want = self.settings.want.with(requests::WANTS);
        let mut found = Box::<Found>::default();
        found.arm(0, &Position::default());
        self.lines = LineState::new(CHUNK).with_requests(Some(found));
        self
    }

    /// Takes one chunk from the file to an encoded request; the number of lines, 0 at the end.
    fn chunk(&mut self) -> usize {
        let permit = self.budget.reserve(CHUNK as u64).expect("fits");
        let (mut arena, mut records) = self.budget.buffers(CHUNK);
        let got = self.file.read_at(self.offset, CHUNK, &mut arena).expect("reads");
        if got == 0 {
            return 0;
        }
        let taken = self.lines.ingest(
            &self.settings,
            &self.workload,
            &mut arena,
            0,
            self.offset,
            u64::MAX,
            &mut records,
        );
        self.offset += taken.bytes as u64;
        let until = self.lines.framed_to(Position { offset: self.offset, ..Position::default() }, None);
        if let Some(found) = self.lines.requests() {
            found.hand_over(&Position::default(), &until, &arena, |requests, _| {
                self.requests += requests.len()
            });
        }
        let lines = records.len();
        let batch = Batch {
            workload: Arc::clone(&self.workload),
            path: "0.log".into(),
            start: Position::default(),
            end: Position::default(),
            arena,
            records,
            catching_up: false,
            sealed_unix_nano: 0,
            permit,
        };
        let parcel = Parcel { batch: Arc::new(batch), from: 0, to: lines as u32 };
        self.body.clear();
        self.loki.encode(&[parcel], &mut self.body);
        lines
    }
}

#[test]
fn a_line_costs_no_allocation_from_file_to_request() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("0.log");
    std::fs::write(&path, log(40_000)).expect("writes");
    let os = Os::new(dir.path().to_owned(), vec![], Arc::default());
    let three = Fields::LEVEL.with(Fields::TRACE_ID).with(Fields::SPAN_ID);
    for (fields, counts) in [(three, false), (Fields::ALL, false), (three, true), (Fields::ALL, true)] {
        let mut hot = Path::new(os.open(&path).expect("opens"), fields);
        if counts {
            hot = hot.with_requests();
        }
        for _ in 0..4 {
            assert!(hot.chunk() > 0, "warm-up");
        }
        let mut lines = 0;
        let counted = allocation_counter::measure(|| {
            loop {
                let more = hot.chunk();
                if more == 0 {
                    break;
                }
                lines += more;
            }
        });
        assert!(lines > 30_000, "{lines} lines");
        let each = counted.count_total as f64 / lines as f64;
        assert!(each <= 0.05, "{} allocations for {lines} lines: {each:.4} a line", counted.count_total);
        assert_eq!(hot.requests, if counts { 40_000 } else { 0 });
    }
}

/// What counting costs: time for reading lines with it against without it, in turns. Not a gate: machines differ.
#[test]
#[ignore = "a measurement: cargo test --release --test alloc -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "it is run to be read")]
fn what_counting_requests_costs() {
    let dir = tempfile::tempdir().expect("temp dir");
    let os = Os::new(dir.path().to_owned(), vec![], Arc::default());
    let mut plain = String::new();
    for n in 0..40_000 {
        let (secs, nanos) = (n / 1000 % 60, n % 1000 * 1_000_000 + 7);
        writeln!(plain, "2026-11-22T14:11:{secs:02}.{nanos:09}Z stdout F {{\"level\":30,\"time\":{},\"pid\":1,\"msg\":\"order {n} was placed by customer {}\",\"items\":[1,2,3]}}", 1_795_356_000_000_u64 + n, n * 7)
            .expect("to a string");
    }
    let three = Fields::LEVEL.with(Fields::TRACE_ID).with(Fields::SPAN_ID);
    for (name, text) in [("plain lines", plain), ("access lines", log(40_000))] {
        let path = dir.path().join("0.log");
        std::fs::write(&path, text).expect("writes");
        for (fields, which) in [(three, "three fields"), (Fields::ALL, "all fields")] {
            let mut best = [f64::MAX; 2];
            for turn in 0..20 {
                let counts = turn % 2 == 1;
                let mut hot = Path::new(os.open(&path).expect("opens"), fields);
                if counts {
                    hot = hot.with_requests();
                }
                let (begin, mut lines) = (std::time::Instant::now(), 0);
                loop {
                    let more = hot.chunk();
                    if more == 0 {
                        break;
                    }
                    lines += more;
                }
                let each = begin.elapsed().as_nanos() as f64 / lines as f64;
                best[usize::from(counts)] = best[usize::from(counts)].min(each);
            }
            println!(
                "{name}, {which}: {:.0} ns a line, {:.0} with counting: x{:.2}",
                best[0],
                best[1],
                best[1] / best[0]
            );
        }
    }
}

/// Hands final pages to remote_write, as the agent does.
struct ToSink(Box<dyn Collect>);

impl Output for ToSink {
    fn raw(&mut self, _: &Arc<Target>, _: &Page, _: i64) {}

    fn page(&mut self, origin: &Arc<Origin>, page: &Page) {
        self.0.page(origin, page);
    }

    fn forget(&mut self, _: &Arc<Origin>) {}
}

/// Allocations of three pages in steady state, from fetched bodies to requests of 5,000 samples.
fn three_pages(body: &str, protocol: Protocol) -> u64 {
    let config = remote_write::Config {
        url: "http://127.0.0.1:9/api/v1/write".to_owned(),
        protocol,
        limits: remote_write::Limits { shards: 1, ..remote_write::Limits::default() },
        ..remote_write::Config::default()
    };
    let (collect, _sending) = remote_write::sink("alloc", &config, Default::default()).expect("a sink");
    let mut out = ToSink(collect);
    let labels = [("cluster", "c1"), ("instance", "127.0.0.1:9100"), ("job", "static"), ("node", "n1")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let target = Arc::new(Target {
        origin: Arc::new(Origin { kind: OriginKind::Target, labels, resource: Vec::new() }),
        scheme: Scheme::Http,
        host: "127.0.0.1".to_owned(),
        port: 9100,
        path: "/metrics".to_owned(),
        pod: None,
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        honor_labels: false,
        honor_timestamps: true,
    });
    let mut book = Book::new(&scrape::Config::default(), Rules::default());
    let mut bytes = Vec::with_capacity(body.len() + (64 << 10));
    let mut page = |tick: i64| {
        bytes.clear();
        bytes.extend_from_slice(body.as_bytes());
        let event = Event::Fetched(Fetched {
            target: Arc::clone(&target),
            time_unix_ms: 1_800_000_000_000 + tick * 15_000,
            took: Duration::from_millis(3),
            body: Ok(Body { bytes: std::mem::take(&mut bytes), dialect: Dialect::Text }),
        });
        let report = book.take(event, &mut out);
        assert_eq!(report.failure, None);
        bytes = book.take_buffer();
    };
    // Ten pages of 1,634 samples are three requests: every buffer has grown.
    (0..10).for_each(&mut page);
    allocation_counter::measure(|| (10..13).for_each(&mut page)).count_total
}

#[test]
fn a_sample_costs_no_allocation_from_body_to_request() {
    let kubelet = include_str!("corpus/metrics/kubelet.prom");
    assert_eq!(kubelet.lines().filter(|line| !line.starts_with('#')).count(), 1629);
    // Three pages are 4,902 samples, and one request is sealed meanwhile.
    for (protocol, bound) in [(Protocol::V1, 60), (Protocol::V2, 60)] {
        let counted = three_pages(kubelet, protocol);
        assert!(counted <= bound, "{protocol:?}: {counted} allocations for three pages");
    }
}
