//! The make-believe node against a reader that knows nothing of the product's own parsers, and the whole demo with a
//! small stand-in for the agent.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nodewick::data::batch::{Batch, Fields, Record, Span, Stream};
use nodewick::data::budget::Budget;
use nodewick::data::delivery::{Ledger, Outlet as _, Shipment};
use nodewick::data::position::Position;
use nodewick::data::trace::TraceId;
use nodewick::data::workload::{ContainerRef, Identify, Identity, PathIdentity};
use nodewick::demo::fault::Switch;
use nodewick::demo::node::{Config, ContainerLog, MAX_FILES, Node, compress_earlier, log_dir, remove_excess};
use nodewick::demo::tally::{Counts, Tally};
use nodewick::demo::traffic::{PODS, seq_of};
use nodewick::demo::{self, Args, Error, StopAgent};
use nodewick::sink::local;
use nodewick::tail::Style;

/// A CRI line: stamp, stream, whether it ends the record, payload.
fn cri(line: &str) -> (jiff::Timestamp, &str, bool, &str) {
    let mut parts = line.splitn(4, ' ');
    let mut next = || parts.next().unwrap_or_else(|| panic!("four parts: {line:.80}"));
    let (stamp, stream, tag, payload) = (next(), next(), next(), next());
    assert_eq!(stamp.len(), "2026-11-22T14:51:10.996828606Z".len(), "nine digits of fraction: {stamp}");
    assert!(stream == "stdout" || stream == "stderr", "{stream}");
    assert!(tag == "P" || tag == "F", "{tag}");
    (stamp.parse().expect("RFC 3339"), stream, tag == "F", payload)
}

/// The records of CRI text, with their streams; whole ones only.
fn records(text: &str) -> Vec<(String, String)> {
    let mut open: HashMap<&str, String> = HashMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let (_, stream, ends, payload) = cri(line);
        let record = open.entry(stream).or_default();
        record.push_str(payload);
        if ends {
            found.push((stream.to_owned(), std::mem::take(record)));
        } else {
            assert_eq!(payload.len(), 16_384, "a fragment is full");
        }
    }
    assert!(open.values().all(String::is_empty), "the last record is whole");
    found
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("listed")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn long_lines_are_split_as_the_runtime_splits_them() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = ContainerLog::create(dir.path()).expect("created");
    let lines =
        ["short".to_owned(), "x".repeat(16_384), "y".repeat(16_385), "z".repeat(40_000), String::new()];
    let counts: Vec<_> =
        lines.iter().map(|line| log.write(Stream::Stdout, line.as_bytes()).expect("written")).collect();
    log.write(Stream::Stderr, b"oops").expect("written");
    assert_eq!(counts, [1, 1, 2, 3, 1]);
    let text = fs::read_to_string(dir.path().join("0.log")).expect("text");
    let tags: String = text.lines().map(|line| if cri(line).2 { 'F' } else { 'P' }).collect();
    assert_eq!(tags, "FFPFPPFFF");
    let stamps: Vec<_> = text.lines().map(|line| cri(line).0).collect();
    assert!(stamps.is_sorted());
    let found = records(&text);
    assert_eq!(found.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>()[..5], lines);
    assert_eq!(found[5], ("stderr".to_owned(), "oops".to_owned()));
}

#[test]
fn rotation_is_the_kubelets() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = ContainerLog::create(dir.path()).expect("created");
    let start = UNIX_EPOCH + Duration::from_secs(1_795_359_067);
    fs::write(dir.path().join("0.log.20261122-145000.tmp"), b"left by a crash").expect("written");
    for round in 0..7_u64 {
        log.write(Stream::Stdout, format!("round {round}").as_bytes()).expect("written");
        remove_excess(dir.path()).expect("removed");
        compress_earlier(dir.path()).expect("compressed");
        let now = start + Duration::from_secs(round);
        assert!(log.rename(now).expect("renamed"));
        assert!(!log.rename(now).expect("refused"), "one rotation a second");
        // The runtime has not noticed yet: the line goes to the renamed file.
        log.write(Stream::Stdout, format!("late {round}").as_bytes()).expect("written");
        log.reopen().expect("reopened");
    }
    assert_eq!(
        names(dir.path()),
        [
            "0.log",
            "0.log.20261122-145110.gz",
            "0.log.20261122-145111.gz",
            "0.log.20261122-145112.gz",
            "0.log.20261122-145113",
        ]
    );
    assert_eq!(names(dir.path()).len(), MAX_FILES);
    let newest = fs::read_to_string(dir.path().join("0.log.20261122-145113")).expect("plain");
    assert_eq!(
        records(&newest).iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(),
        ["round 6", "late 6"]
    );
    let mut oldest = String::new();
    let gz = File::open(dir.path().join("0.log.20261122-145110.gz")).expect("kept");
    flate2::read::GzDecoder::new(gz).read_to_string(&mut oldest).expect("gzip");
    assert_eq!(
        records(&oldest).iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(),
        ["round 3", "late 3"]
    );
}

#[test]
fn the_node_writes_every_number_once_over_rotations() {
    let dir = tempfile::tempdir().expect("temp dir");
    let tally = Arc::new(Tally::default());
    let config = Config {
        root: dir.path().to_owned(),
        rate: 800,
        seed: 5,
        rotate_bytes: 120 << 10,
        switch: Switch::default(),
    };
    let node = Node::start(&config, Arc::clone(&tally)).expect("starts");
    std::thread::sleep(Duration::from_millis(3_300));
    let done = node.stop().expect("wrote without an error");
    assert!(done.rotations >= 2, "{done:?}");
    assert!(done.fragmented >= 1, "{done:?}");
    let mut all = 0;
    for pod in &PODS {
        let dir = log_dir(dir.path(), pod);
        assert!(dir.ends_with(format!("shop_{}_{}/api", pod.name, pod.uid)));
        let mut text = String::new();
        let mut files = names(&dir);
        files.rotate_left(1); // the live one is the newest
        for name in files {
            let file = File::open(dir.join(&name)).expect("there");
            if name.ends_with(".gz") {
                flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
            } else {
                (&file).read_to_string(&mut text).expect("text");
            }
        }
        let mut streams = BTreeMap::<String, u64>::new();
        for (index, (stream, line)) in records(&text).into_iter().enumerate() {
            assert_eq!(seq_of(&line), Some(index as u64), "{}: {line:.120}", pod.name);
            assert_eq!(stream == "stdout", serde_json::from_str::<serde_json::Value>(&line).is_ok());
            *streams.entry(stream).or_default() += 1;
            tally.deliver(pod.name, &line);
            all += 1;
        }
        assert!(streams["stdout"] > 100, "{streams:?}");
    }
    let counts = tally.counts();
    assert_eq!(counts, Counts { written: all, delivered: all, ..Counts::default() });
}

/// Follows plain CRI files into a local store: just enough of an agent to try the demo with.
fn follow(root: &Path, outlet: &local::Outlet, drop_one_in: Option<u64>, stop: &AtomicBool) {
    let mut identity =
        PathIdentity { cluster: "demo".to_owned(), node: "make-believe".to_owned(), environment: None };
    let mut offsets = HashMap::<(u64, String), u64>::new();
    let mut open = HashMap::<(PathBuf, String), String>::new();
    let ledger = Ledger::new(Position::default(), Arc::default());
    let budget = Budget::new(64 << 20, Arc::default());
    let mut count = 0;
    loop {
        let last = stop.load(Ordering::SeqCst);
        for pod_dir in fs::read_dir(root).expect("root").map(|entry| entry.expect("entry")) {
            let pod_name = pod_dir.file_name().into_string().expect("text");
            let dir = pod_dir.path().join("api");
            let mut files = if dir.is_dir() { names(&dir) } else { Vec::new() };
            files.retain(|name| !name.ends_with(".gz") && !name.ends_with(".tmp"));
            files.sort_by_key(|name| (name == "0.log", name.clone()));
            for name in files {
                let Ok(mut file) = File::open(dir.join(&name)) else { continue };
                let mut head = String::new();
                (&mut file).take(30).read_to_string(&mut head).expect("text");
                if head.len() < 30 {
                    continue;
                }
                let offset = offsets.entry((file.metadata().expect("meta").ino(), head)).or_default();
                file.seek(SeekFrom::Start(*offset)).expect("seek");
                let mut text = String::new();
                file.read_to_string(&mut text).expect("text");
                let whole = text.rfind('\n').map_or(0, |at| at + 1);
                *offset += whole as u64;
                let container = ContainerRef::from_path(&pod_name, "api", 0).expect("genuine");
                let Identity::Known(workload) = identity.identify(&container, std::time::Duration::ZERO)
                else {
                    panic!("always known")
                };
                let (mut arena, mut found) = (Vec::new(), Vec::new());
                for line in text[..whole].lines() {
                    let (stamp, stream, ends, payload) = cri(line);
                    let joined = open.entry((dir.clone(), stream.to_owned())).or_default();
                    joined.push_str(payload);
                    if !ends {
                        continue;
                    }
                    let line = std::mem::take(joined);
                    count += 1;
                    if drop_one_in.is_some_and(|n| count % n == 0) {
                        continue;
                    }
                    let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                    let mut put = |text: &str| {
                        let start = arena.len();
                        arena.extend_from_slice(text.as_bytes());
                        Span::new(start, arena.len())
                    };
                    let duration = value["responseTime"].as_f64().map(|millis| millis.to_string());
                    found.push(Record {
                        time_unix_nano: u64::try_from(stamp.as_nanosecond()).expect("after 1970"),
                        body: put(&line),
                        trace_id: value["trace_id"].as_str().and_then(|id| TraceId::from_hex(id.as_bytes())),
                        http_status: value["res"]["statusCode"].as_u64().unwrap_or(0) as u16,
                        duration_ms: put(&duration.unwrap_or_default()),
                        stream: if stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
                        ..Record::default()
                    });
                }
                if found.is_empty() {
                    continue;
                }
                let ticket = ledger.issue(Position::default(), 1, found.len() as u64, 1).next();
                let batch = Batch {
                    workload,
                    path: "0.log".into(),
                    start: Position::default(),
                    end: Position::default(),
                    permit: budget.reserve(arena.len() as u64).expect("fits"),
                    arena,
                    records: found,
                    catching_up: false,
                    sealed_unix_nano: 0,
                };
                outlet.offer(Shipment { batch: Arc::new(batch), ticket });
            }
        }
        if last {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn run_demo(args: &Args, drop_one_in: Option<u64>) -> (Result<Counts, Error>, String, String) {
    let (mut out, mut notices) = (Vec::new(), Vec::new());
    let result = demo::run(
        args,
        Style::PLAIN,
        |site, _| {
            let store = local::start("demo", &local::Config::default(), &site.state_dir, Fields::ALL)?;
            let (outlet, writer) = store;
            let stop = Arc::new(AtomicBool::new(false));
            let (stopped, root) = (Arc::clone(&stop), site.log_root.clone());
            let agent = std::thread::spawn(move || follow(&root, &outlet, drop_one_in, &stopped));
            let end: StopAgent = Box::new(move || {
                stop.store(true, Ordering::SeqCst);
                agent.join().expect("the stand-in ends");
                assert!(writer.join());
            });
            Ok(end.into())
        },
        &AtomicBool::new(false),
        &mut out,
        &mut notices,
    );
    (result, String::from_utf8(out).expect("UTF-8"), String::from_utf8(notices).expect("UTF-8"))
}

fn args(seconds: u64, dir: Option<PathBuf>) -> Args {
    use nodewick::data::units::Span;
    let breaks = demo::fault::Break::Never;
    Args { rate: 100, duration: Some(Span::secs(seconds)), dir, seed: 1, quiet: false, breaks, no_open: true }
}

#[test]
fn the_demo_accounts_for_every_line() {
    let begun = SystemTime::now();
    let dir = tempfile::tempdir().expect("temp dir");
    let (result, out, notices) = run_demo(&args(7, Some(dir.path().join("demo"))), None);
    let counts = result.expect("runs");
    assert!(begun.elapsed().expect("forward") < Duration::from_secs(20));
    assert!((500..=950).contains(&counts.written), "{counts:?}");
    let wanted = Counts { written: counts.written, delivered: counts.written, ..Counts::default() };
    assert_eq!(counts, wanted);
    for pod in &PODS {
        let first = out.lines().find(|line| line.contains(pod.service)).expect("a line of each service");
        assert!(first.ends_with("  seq=0") && first.contains("istening"), "{first}");
    }
    let (tail, table) = out.split_once("\nlines      written ").expect("the table follows the tail");
    assert!(tail.lines().count() as u64 >= counts.written, "every line is shown");
    assert!(table.contains("lost 0  duplicated 0  altered 0  out of order 0"), "{table}");
    for service in ["\ncart  ", "\ncheckout  ", "\npayments  "] {
        assert!(table.contains(service), "{table}");
    }
    assert!(!out.contains('\u{1b}'), "no colours without a terminal");
    assert!(notices.contains("whether one was lost. The demo ends after 7s."), "{notices}");
    assert!(notices.contains("kept: nodewick tail"), "{notices}");
    assert!(dir.path().join("demo/state/local/demo/0000000001.jsonl").is_file());
    let rotated: usize =
        PODS.iter().map(|pod| names(&log_dir(&dir.path().join("demo/pods"), pod)).len() - 1).sum();
    assert!(rotated >= 1, "logs rotated meanwhile");
    let (again, _, _) = run_demo(&args(1, Some(dir.path().join("demo"))), None);
    assert!(matches!(again, Err(Error::NotEmpty(_))));
}

#[test]
fn a_line_that_never_arrives_is_told() {
    let (result, out, notices) = run_demo(&Args { quiet: true, ..args(1, None) }, Some(20));
    let counts = result.expect("runs");
    assert!(counts.lost() >= 3, "{counts:?}");
    assert!(
        out.starts_with(&format!("lines      written {}  delivered {}", counts.written, counts.delivered))
    );
    let place =
        notices.split_whitespace().find(|word| word.contains("nodewick-demo-")).expect("names its place");
    assert!(!Path::new(place.trim_end_matches(';')).exists(), "a temporary place is removed");
}
