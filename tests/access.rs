//! Requests in logs reach who counts them, once each: through chunks cut anywhere, crashes, and blocked delivery.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nodewick::data::access::{AccessTap, Phase, Request};
use nodewick::data::batch::Fields;
use nodewick::data::budget::{Budget, Signal};
use nodewick::data::delivery::{Fanout, Outlet, Shipment};
use nodewick::data::position::Position;
use nodewick::data::workload::{PathIdentity, Workload};
use nodewick::logs::checkpoint::Marks;
use nodewick::logs::count::Counter;
use nodewick::logs::frame::Framing;
use nodewick::logs::ingest::Settings;
use nodewick::logs::os::Os;
use nodewick::logs::process::Chain;
use nodewick::logs::registry::Registry;
use nodewick::logs::requests::WANTS;
use nodewick::logs::spill::{self, Spill};
use nodewick::logs::tail::{Next, Options, Start, Tail};
use parking_lot::Mutex;
use proptest::prelude::*;

const POD: &str = "shop_checkout-d994d45d6-5h9zr_d11c6e6d-84fc-49ec-95a1-4ee5155f656a";

/// What was counted.
#[derive(Default)]
struct Book {
    counts: BTreeMap<String, u32>,
    routes: BTreeMap<String, u32>,
    begun: u32,
    positions: BTreeMap<String, Position>,
    lag: BTreeMap<String, u64>,
}

#[derive(Clone, Default)]
struct Double(Arc<Mutex<Book>>);

impl AccessTap for Double {
    fn counted(&self, key: &str) -> Option<Position> {
        self.0.lock().positions.get(key).copied()
    }
    fn count(
        &mut self,
        key: &Arc<str>,
        _: &Arc<Workload>,
        requests: &[Request],
        text: &[u8],
        until: Position,
    ) {
        let mut book = self.0.lock();
        for request in requests {
            if request.phase == Phase::Begun {
                book.begun += 1;
                continue;
            }
            let shown =
                |span: nodewick::data::batch::Span| String::from_utf8_lossy(span.of(text)).into_owned();
            *book.counts.entry(shown(request.request_id)).or_default() += 1;
            *book.routes.entry(format!("{} {}", shown(request.method), shown(request.route))).or_default() +=
                1;
        }
        book.positions.insert(key.to_string(), until);
    }
    fn lag(&mut self, key: &str, _: &Arc<Workload>, nanos: u64) {
        self.0.lock().lag.insert(key.to_owned(), nanos);
    }
    fn forget(&mut self, _: &dyn Fn(&str) -> bool) {}
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Shipment>>>);

impl Outlet for Sink {
    fn required(&self) -> bool {
        true
    }
    fn offer(&self, shipment: Shipment) {
        self.0.lock().push(shipment);
    }
}

fn request(id: usize) -> String {
    format!(
        r#"{{"level":30,"reqId":"r{id}","req":{{"method":"GET","url":"/orders/{id}?page=2"}},"res":{{"statusCode":200}},"responseTime":7.5,"msg":"request completed"}}"#
    )
}

fn stamp(n: usize) -> String {
    format!("2026-11-22T14:{:02}:{:02}.{:09}Z", n / 60_000 % 60, n / 1000 % 60, n % 1000 * 1_000_000)
}

struct Rig {
    dir: tempfile::TempDir,
    double: Double,
    sink: Sink,
    tail: Tail<Os>,
}

impl Rig {
    fn new(dir: tempfile::TempDir, double: Double, fields: Fields, memory: u64, rules: &str) -> Self {
        let root = dir.path().join("pods");
        fs::create_dir_all(root.join(POD).join("api")).expect("root");
        let signal = Arc::<Signal>::default();
        let sink = Sink::default();
        let config: nodewick::logs::process::Config = toml::from_str(rules).expect("rules");
        let tail = Tail::new(
            Os::new(root.clone(), Vec::new(), Arc::clone(&signal)),
            Options {
                root,
                tick: Duration::from_millis(1),
                rescan: Duration::from_secs(1),
                start: Start::Oldest,
                per_log: 1 << 20,
                max_open: 1000,
                held_deleted: 1 << 30,
                last_words: true,
                own_pod: None,
            },
            Settings::new(fields, Chain::compile(&config).expect("compiles"), 256 << 10),
            Box::new(PathIdentity { cluster: "c1".into(), node: "n1".into(), environment: None }),
            Fanout::new(vec![Box::new(sink.clone())]),
            Budget::new(memory, Arc::clone(&signal)),
            signal,
            Registry::new(Marks::new()),
            Spill::new(&spill::Config::default()),
        )
        .with_tap(Some(Box::new(double.clone())));
        Self { dir, double, sink, tail }
    }

    fn write(&self, text: &str) {
        let path = self.dir.path().join("pods").join(POD).join("api/0.log");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("opens");
        file.write_all(text.as_bytes()).expect("writes");
    }

    /// Steps until `done`, or for as long as a loaded machine may need.
    fn until(&mut self, what: &str, done: impl Fn(&Book) -> bool) {
        for _ in 0..20_000 {
            if let Next::Wait(_) = self.tail.step() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if done(&self.double.0.lock()) {
                return;
            }
        }
        panic!("{what}: {:?}", self.double.0.lock().counts.len());
    }

    fn step(&mut self, times: usize) {
        for _ in 0..times {
            self.tail.step();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn requests_are_counted_whatever_fields_are_sent_and_whatever_is_dropped() {
    let rules = "[drop.all]\ncontains = \"request completed\"\n";
    let mut rig =
        Rig::new(tempfile::tempdir().expect("dir"), Double::default(), Fields::LEVEL, 32 << 20, rules);
    let mut text = String::new();
    for n in 0..100 {
        writeln!(text, "{} stdout F {}", stamp(n), request(n)).expect("to a string");
        writeln!(text, "{} stdout F just text {n}", stamp(n)).expect("to a string");
    }
    rig.write(&text);
    rig.until("all are counted", |book| book.counts.len() == 100);
    let book = rig.double.0.lock();
    assert!(book.counts.values().all(|count| *count == 1));
    assert_eq!(book.routes.get("GET /orders/{id}"), Some(&100));
}

#[test]
fn counting_goes_on_while_delivery_is_blocked_and_nothing_is_counted_again_behind_it() {
    // Room for one read, and nobody acknowledges it.
    let mut rig = Rig::new(tempfile::tempdir().expect("dir"), Double::default(), Fields::ALL, 600 << 10, "");
    let mut text = String::new();
    for n in 0..8000 {
        writeln!(text, "{} stdout F {}", stamp(n), request(n)).expect("to a string");
    }
    rig.write(&text);
    rig.until("all are counted ahead", |book| book.counts.len() == 8000);
    rig.until("counting is level", |book| book.lag.values().all(|lag| *lag == 0));
    let shipped: usize = rig.sink.0.lock().iter().map(|it| it.batch.records.len()).sum();
    assert!(shipped < 8000, "delivery is blocked after {shipped}");
    let mut delivered = shipped;
    for _ in 0..1000 {
        for mut shipment in rig.sink.0.lock().drain(..) {
            if let Some(ticket) = shipment.ticket.take() {
                ticket.delivered();
            }
        }
        rig.step(2);
        delivered += rig.sink.0.lock().iter().map(|it| it.batch.records.len()).sum::<usize>();
        if delivered >= 8000 {
            break;
        }
    }
    assert_eq!(delivered, 8000);
    rig.step(20);
    let book = rig.double.0.lock();
    assert_eq!(book.counts.len(), 8000);
    assert!(book.counts.values().all(|count| *count == 1), "each once");
}

#[test]
fn what_an_earlier_life_counted_is_not_counted_again_when_its_lines_are() {
    let double = Double::default();
    let mut rig = Rig::new(tempfile::tempdir().expect("dir"), double.clone(), Fields::ALL, 32 << 20, "");
    let text: String = (0..50).map(|n| format!("{} stdout F {}\n", stamp(n), request(n))).collect();
    rig.write(&text);
    rig.until("the first half", |book| book.counts.len() == 50);
    // Dies without a checkpoint: every line is read again.
    let Rig { dir, .. } = rig;
    let mut rig = Rig::new(dir, double, Fields::ALL, 32 << 20, "");
    let text: String = (50..100).map(|n| format!("{} stdout F {}\n", stamp(n), request(n))).collect();
    rig.write(&text);
    rig.until("the second half", |book| book.counts.len() == 100);
    assert!(rig.sink.0.lock().iter().map(|it| it.batch.records.len()).sum::<usize>() >= 100);
    assert!(rig.double.0.lock().counts.values().all(|count| *count == 1));
}

/// Lines of two streams, some in fragments, some of them requests.
fn log() -> impl Strategy<Value = (String, usize)> {
    proptest::collection::vec((0..4_u8, 1..5_usize, any::<bool>()), 1..60).prop_map(|lines| {
        let mut open: [Vec<String>; 2] = [Vec::new(), Vec::new()];
        let mut file = String::new();
        let mut requests = 0;
        let mut n = 0;
        let mut take = |open: &mut Vec<String>, stream: &str, file: &mut String| {
            let piece = open.remove(0);
            let tag = if open.is_empty() { 'F' } else { 'P' };
            n += 1;
            writeln!(file, "{} {stream} {tag} {piece}", stamp(n)).expect("to a string");
        };
        for (kind, pieces, err) in lines {
            let at = usize::from(err);
            let stream = ["stdout", "stderr"];
            // The stream's last line ends first; the other's may stay open.
            while !open[at].is_empty() {
                take(&mut open[at], stream[at], &mut file);
            }
            let line = if kind == 0 {
                "text".repeat(pieces * 3)
            } else {
                requests += 1;
                request(requests)
            };
            let size = line.len().div_ceil(pieces);
            open[at] =
                line.as_bytes().chunks(size).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
            take(&mut open[at], stream[at], &mut file);
        }
        for (at, stream) in ["stdout", "stderr"].into_iter().enumerate() {
            while !open[at].is_empty() {
                take(&mut open[at], stream, &mut file);
            }
        }
        (file, requests)
    })
}

proptest! {
    #[test]
    fn each_request_is_found_once_however_chunks_are_cut_and_wherever_the_reader_starts_again(
        (file, requests) in log(),
        cuts in proptest::collection::vec((1..700_usize, 0..4_u8), 1..200),
    ) {
        let settings = Settings::new(WANTS, Chain::compile(&Default::default()).expect("no rules"), 64 << 10);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut until = Position::default();
        let mut reader = Counter::new(until, 64 << 10, Framing::Runtime);
        let mut cuts = cuts.into_iter().cycle();
        let mut want = 0;
        let mut begun_at = 0;
        while (until.offset as usize) < file.len() {
            let (size, dice) = cuts.next().expect("endless");
            if dice == 0 && until.offset > begun_at {
                begun_at = until.offset;
                want = 0;
                // Another reader goes on where all is counted.
                reader = Counter::new(until, 64 << 10, Framing::Runtime);
            }
            let at = reader.at.offset as usize;
            want += size;
            let mut arena = file.as_bytes()[at..file.len().min(at + want)].to_vec();
            if reader.ingest(&settings, None, &until, &mut arena) > 0 {
                want = 0;
            }
            let next = reader.counted();
            let next = if until.covers(&next) { until } else { next };
            reader.found().hand_over(&until, &next, &arena, |found, text| {
                for request in found {
                    let id = String::from_utf8_lossy(request.request_id.of(text)).into_owned();
                    *counts.entry(id).or_default() += 1;
                }
            });
            until = next;
        }
        prop_assert_eq!(counts.len(), requests);
        prop_assert!(counts.values().all(|count| *count == 1));
    }
}
