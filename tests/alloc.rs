//! Allocations from file bytes to encoded request, counted exactly: figures that do not swing with the machine.

use std::fmt::Write as _;
use std::sync::Arc;

use nodewick::data::batch::{Batch, Fields};
use nodewick::data::budget::{Budget, Signal};
use nodewick::data::position::Position;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity, Workload};
use nodewick::logs::env::{Env, LogFile};
use nodewick::logs::ingest::{LineState, Settings};
use nodewick::logs::os::{Os, OsFile};
use nodewick::logs::process::{self, Chain};
use nodewick::logs::requests::{self, Found};
use nodewick::sink::loki::Loki;
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
        let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO) else {
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
