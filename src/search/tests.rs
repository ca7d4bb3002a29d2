//! Searches over real files: rotated, compressed, spilled; against a plain look at the same lines; what must not be shown.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::data::batch::Fields;
use crate::data::position::Generation;
use crate::data::severity::Severity;
use crate::data::workload::{ContainerRef, Handling, Identify, Identity, PathIdentity};
use crate::logs::checkpoint::Marks;
use crate::logs::disk::OsDisk;
use crate::logs::files::{self, Around, Sources};
use crate::logs::ingest::Settings;
use crate::logs::process::{Chain, Config as Rules};
use crate::logs::registry::Registry;
use crate::logs::spill::{Config as SpillConfig, Spill};
use crate::sink::local::Entry;

/// 2026-11-22T14:00:00Z.
const BEGIN: u64 = 1_795_356_000;

/// A node on disk.
struct Place {
    dir: tempfile::TempDir,
    rules: String,
    handling: Handling,
    files: BTreeMap<String, files::Config>,
    spill: Arc<Spill>,
}

/// Paths, and one handling for all.
struct Said(PathIdentity, Arc<Handling>);

impl Identify for Said {
    fn identify(&mut self, container: &ContainerRef, now: Duration) -> Identity {
        self.0.identify(container, now)
    }

    fn handling(&mut self, _: &ContainerRef, _: Duration) -> Option<Arc<Handling>> {
        Some(Arc::clone(&self.1))
    }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let state = dir.path().join("state");
        fs::create_dir(&state).expect("dir");
        let config = SpillConfig { min_free: "0%".parse().expect("a share"), ..SpillConfig::default() };
        let spill = Spill::new(&config);
        spill.attach(Arc::new(OsDisk::new(&state))).expect("an empty directory");
        let (rules, handling, files) = (String::new(), Handling::default(), BTreeMap::new());
        Self { dir, rules, handling, files, spill }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("pods")
    }

    /// The directory of a container.
    fn container(&self, pod: &str) -> PathBuf {
        let dir = self.root().join(format!("shop_{pod}_u-{pod}")).join("api");
        fs::create_dir_all(&dir).expect("dir");
        dir
    }

    fn searcher(&self) -> Searcher {
        let paths = PathIdentity { cluster: "c".into(), node: "n".into(), environment: None };
        let sources = Arc::new(Sources::compile(&self.files, Around::default()).expect("valid"));
        let said = Said(paths, Arc::new(self.handling.clone()));
        let said = files::Identity::new(Box::new(said), Arc::clone(&sources), "c", "n", "");
        let rules: Rules = toml::from_str(&self.rules).expect("valid rules");
        let settings = move || {
            let chain = Chain::compile(&rules).expect("valid rules").quietly();
            Some(Settings::new(Fields::ALL, chain, 64 << 10))
        };
        let searcher = Searcher::default();
        searcher.set(Some(Node {
            root: Some(self.root()).filter(|root| root.exists()),
            symlink_roots: Vec::new(),
            settings: Box::new(settings),
            sources,
            identify: Mutex::new(Box::new(said)),
            registry: Registry::new(Marks::new()),
            spill: Arc::clone(&self.spill),
            own_pod: Some(("shop".into(), "self".into())),
        }));
        searcher
    }

    /// The lines that a search shows, and what it says at the end.
    fn search(&self, query: Query) -> (Vec<String>, serde_json::Value) {
        let (stored, end) = collect(self.searcher().start(query).expect("the first"));
        let line = |stored: &String| {
            let entry = Entry::parse(stored.as_bytes()).expect("the store's form");
            entry.line.into_owned()
        };
        (stored.iter().map(line).collect(), end)
    }

    fn grep(&self, pattern: &str) -> Vec<String> {
        self.search(grep(pattern)).0
    }
}

fn grep(pattern: &str) -> Query {
    let filter = Filter { grep: Some(Regex::new(pattern).expect("valid")), ..Filter::default() };
    Query { filter, deadline: LONGEST, limit: MOST }
}

/// All lines of a search but the last one, and that.
fn collect(mut results: Results) -> (Vec<String>, serde_json::Value) {
    let mut text = Vec::new();
    while let Some(chunk) = results.blocking_recv() {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).expect("UTF-8");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines.pop().expect("a last line");
    let last: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    (lines, last["searched"].clone())
}

/// A line as containerd writes it, `millis` after the beginning.
fn cri(millis: u64, text: &str) -> String {
    let mut line = Vec::new();
    crate::sink::json::write_rfc3339(BEGIN * 1_000_000_000 + millis * 1_000_000, &mut line);
    format!("{} stdout F {text}\n", String::from_utf8(line).expect("digits"))
}

fn gzip(path: &Path, content: &str) {
    let file = fs::File::create(path).expect("file");
    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    out.write_all(content.as_bytes()).expect("written");
    out.finish().expect("written");
}

#[test]
fn all_files_of_a_container_are_searched_in_their_order() {
    let place = Place::new();
    let dir = place.container("checkout-0");
    gzip(&dir.join("0.log.20261122-140001.gz"), &cri(1, "needle in gzip"));
    fs::write(dir.join("0.log.20261122-140002"), cri(2, "needle rotated") + &cri(3, "hay")).expect("file");
    fs::write(dir.join("0.log"), cri(4, "needle live") + &cri(5, "needle without an end").replace('\n', ""))
        .expect("file");
    // The agent's own lines are left out, as they are not sent either.
    fs::write(place.container("self").join("0.log"), cri(1, "needle of the agent")).expect("file");
    let spilled = cri(0, "needle spilled");
    let key: Arc<str> = "shop_checkout-0_u-checkout-0/api/0".into();
    let generation = Generation { device: 1, inode: 1, head: 77 };
    place.spill.append(&key, generation, 0, 0, spilled.as_bytes()).expect("kept");
    let gone: Arc<str> = "shop_gone-0_u-gone/api/0".into();
    place.spill.append(&gone, generation, 0, 0, cri(9, "needle of a deleted pod").as_bytes()).expect("kept");
    place.spill.sync().expect("synced");
    let (lines, end) = place.search(grep("needle"));
    assert_eq!(
        lines,
        ["needle spilled", "needle in gzip", "needle rotated", "needle live", "needle of a deleted pod"]
    );
    assert_eq!(end["complete"], true, "{end}");
    assert_eq!((&end["logs"], &end["files"]), (&2.into(), &5.into()), "{end}");
    assert_eq!((&end["matches"], &end["shown"]), (&5.into(), &5.into()), "{end}");
}

#[test]
fn a_trace_is_found_with_the_lines_that_inherit_it() {
    let place = Place::new();
    let id = "0af7651916cd43dd8448eb211c80319c";
    // The first line of a file teaches nothing: it may be the end of another one.
    let lines = cri(0, "zeroth")
        + &cri(1, &format!(r#"{{"msg":"first","trace_id":"{id}","request_id":"r-1"}}"#))
        + &cri(2, r#"{"msg":"second","request_id":"r-1"}"#)
        + &cri(3, r#"{"msg":"third","request_id":"r-2"}"#)
        + &cri(4, &format!("fourth trace_id={}", id.to_uppercase()));
    fs::write(place.container("checkout-0").join("0.log"), lines).expect("file");
    for trace in [id, &id[..8]] {
        let filter = Filter { trace: Some(trace.to_owned()), ..Filter::default() };
        let (lines, _) = place.search(Query { filter, ..Query::default() });
        let words: Vec<bool> = lines
            .iter()
            .map(|line| line.contains("first") || line.contains("second") || line.contains("fourth"))
            .collect();
        assert_eq!(words, [true, true, true], "{lines:?}");
    }
}

#[test]
fn a_secret_is_covered_as_on_the_way_out() {
    let mut place = Place::new();
    place.rules = "[redact]\nbuiltin = true".to_owned();
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEAcanarycanarycanarycanarycanary\ncanary/canary+canarycanarycanarycanarycanary==\n-----END RSA PRIVATE KEY-----";
    let hay: String =
        (0..20_000).map(|n| cri(n, &format!("hay {n} and more of it to fill the file"))).collect();
    let mut lines = hay.clone();
    lines += &cri(30_000, "needle one password=canary-hunter2secret");
    lines += &hay;
    lines += &cri(50_000, "needle Authorization: Bearer canarycanary0123456789canarycanary");
    for line in key.lines() {
        lines += &cri(50_001, line);
    }
    lines += &cri(50_002, "needle behind the key");
    fs::write(place.container("checkout-0").join("0.log"), &lines).expect("file");
    for query in [grep("needle"), grep("canary"), grep("REDACTED"), grep("KEY|needle"), grep("canarycanary")]
    {
        let (stored, end) = collect(place.searcher().start(query.clone()).expect("begun"));
        assert_eq!(end["complete"], true, "{end}");
        for line in &stored {
            assert!(!line.contains("canary"), "{query:?} shows {line}");
        }
    }
    assert_eq!(
        place.grep("needle"),
        [
            "needle one password=[REDACTED:password]",
            "needle Authorization: Bearer [REDACTED:authorization]",
            "needle behind the key"
        ]
    );
    // What redaction writes is found, though it stands in no file.
    assert_eq!(place.grep("REDACTED:password"), ["needle one password=[REDACTED:password]"]);
    assert_eq!(place.grep("canary"), Vec::<String>::new(), "nobody finds out by asking");
}

#[test]
fn what_rules_or_annotations_keep_back_is_not_shown() {
    let mut place = Place::new();
    place.rules = "[drop.health]\ncontains = 'GET /healthz'".to_owned();
    let lines = cri(1, "GET /healthz needle") + &cri(2, "GET /pay needle");
    fs::write(place.container("checkout-0").join("0.log"), lines).expect("file");
    assert_eq!(place.grep("needle"), ["GET /pay needle"]);
    place.handling.off = true;
    let (lines, end) = place.search(grep("needle"));
    assert_eq!((lines.len(), &end["files_skipped"]), (0, &1.into()));
    assert_eq!(end["skipped"][0]["reason"], "switched off by an annotation");
}

#[test]
fn files_of_applications_are_searched_too() {
    let mut place = Place::new();
    let dir = place.dir.path().join("app");
    fs::create_dir(&dir).expect("dir");
    fs::write(dir.join("app.log.1"), "2026-11-22T14:00:00.5Z needle old\n").expect("file");
    fs::write(
        dir.join("app.log"),
        "2026-11-22T14:00:01.5Z hay\n{\"time\":\"2026-11-22T14:00:02Z\",\"msg\":\"needle new\"}\n",
    )
    .expect("file");
    let paths = vec![dir.join("*.log").to_string_lossy().into_owned()];
    place.files.insert("app".into(), files::Config { paths, service: "till".into(), ..Default::default() });
    let (stored, end) = collect(place.searcher().start(grep("needle")).expect("begun"));
    assert_eq!(end["complete"], true, "{end}");
    let entries: Vec<Entry<'_>> = stored.iter().filter_map(|line| Entry::parse(line.as_bytes())).collect();
    let of = |entry: &Entry<'_>| (entry.time.to_string(), entry.service_name.to_string());
    // A coarse stamp is shifted below the millisecond by the file's name, so only its beginning is looked at.
    let seen: Vec<_> =
        entries.iter().map(of).map(|(time, service)| (time[..23].to_owned(), service)).collect();
    let expected = [("2026-11-22T14:00:00.500", "till"), ("2026-11-22T14:00:02.000", "till")];
    assert_eq!(seen, expected.map(|(time, service)| (time.to_owned(), service.to_owned())));
}

#[test]
fn a_range_of_time_is_kept_and_passes_over_files() {
    let place = Place::new();
    let dir = place.container("checkout-0");
    let hour = 3_600_000;
    let hour_of = |hour_number: u64| -> String {
        (0..3_600)
            .map(|n| {
                cri(
                    hour_number * hour + n * 1000,
                    &format!("hour {hour_number} second {n}, which is a line like others"),
                )
            })
            .collect()
    };
    fs::write(dir.join("0.log.20261122-150000"), hour_of(0)).expect("file");
    fs::write(dir.join("0.log.20261122-160000"), hour_of(1)).expect("file");
    fs::write(dir.join("0.log"), hour_of(2)).expect("file");
    let at = |hour_number: u64, second: u64| (BEGIN + hour_number * 3_600 + second) * 1_000_000_000;
    let filter =
        Filter { since_unix_nano: Some(at(1, 3_597)), until_unix_nano: Some(at(2, 1)), ..Filter::default() };
    let (lines, end) = place.search(Query { filter: filter.clone(), ..Query::default() });
    let begin = |line: &String| line.split(',').next().unwrap_or_default().to_owned();
    let lines: Vec<String> = lines.iter().map(begin).collect();
    assert_eq!(
        lines,
        [
            "hour 1 second 3597",
            "hour 1 second 3598",
            "hour 1 second 3599",
            "hour 2 second 0",
            "hour 2 second 1"
        ]
    );
    assert_eq!(end["files_out_of_range"], 1, "{end}");
    let all = hour_of(0).len() as u64 * 3;
    assert!(end["bytes"].as_u64().expect("a number") < all, "{end}: the whole of {all} was read");
    // The same by looking through raw bytes.
    let filter = Filter { grep: Regex::new("which is a line").ok(), ..filter };
    assert_eq!(place.search(Query { filter, ..Query::default() }).0.len(), 5);
}

#[test]
fn of_more_than_is_asked_for_the_newest_are_shown() {
    let place = Place::new();
    let lines: String = (0..50).map(|n| cri(n, &format!("needle {n}"))).collect();
    fs::write(place.container("checkout-0").join("0.log"), lines).expect("file");
    let (lines, end) = place.search(Query { limit: 2, ..grep("needle") });
    assert_eq!(lines, ["needle 48", "needle 49"]);
    assert_eq!((&end["complete"], &end["cut"]), (&false.into(), &"limit".into()));
    assert_eq!((&end["matches"], &end["shown"]), (&50.into(), &2.into()));
    let (_, end) = place.search(Query { limit: 50, ..grep("needle") });
    assert_eq!(end["complete"], true, "{end}");
}

#[test]
fn a_level_and_an_unlucky_pattern_go_through_all_lines() {
    let place = Place::new();
    let hay: String = (0..3_000).map(|n| cri(n, &format!("hay {n}"))).collect();
    let found = cri(4_000, r#"{"level":"error","msg":"broken"}"#);
    fs::write(place.container("checkout-0").join("0.log"), hay.clone() + &found + &hay).expect("file");
    let filter = Filter { level: Some(Severity::WARN), ..Filter::default() };
    let (lines, _) = place.search(Query { filter, ..Query::default() });
    assert_eq!(lines, [r#"{"level":"error","msg":"broken"}"#]);
    // Backtracking would take for ever.
    let begun = Instant::now();
    assert_eq!(place.grep("(a+)+(x|y)*$z").len(), 0);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn lines_that_a_runtime_has_cut_are_searched_whole() {
    let place = Place::new();
    let stamp = "2026-11-22T14:00:00.000000001Z";
    let hay: String = (0..30_000).map(|n| cri(n, &format!("hay {n}"))).collect();
    let cut = format!("{stamp} stdout P begins nee\n{stamp} stdout F dle ends\n");
    fs::write(place.container("checkout-0").join("0.log"), hay.clone() + &cut + &hay).expect("file");
    assert_eq!(place.grep("needle"), ["begins needle ends"]);
}

#[test]
fn a_search_ends_in_time_and_says_so() {
    let place = Place::new();
    fs::write(place.container("checkout-0").join("0.log"), cri(1, "needle")).expect("file");
    let (lines, end) = place.search(Query { deadline: Duration::ZERO, ..grep("needle") });
    assert_eq!((lines.len(), &end["complete"], &end["cut"]), (0, &false.into(), &"deadline".into()));
    let results = place.searcher().start_within(grep("needle"), 0).expect("begun");
    let (_, end) = collect(results);
    assert_eq!((&end["complete"], &end["cut"]), (&false.into(), &"bytes".into()));
}

#[test]
fn two_search_at_once_and_one_that_left_makes_room() {
    let place = Place::new();
    // More than may wait for a client.
    let lines: String = (0..9_000).map(|n| cri(n, &format!("needle {n} {}", "x".repeat(100)))).collect();
    fs::write(place.container("checkout-0").join("0.log"), lines).expect("file");
    let searcher = place.searcher();
    let first = searcher.start(grep("needle")).expect("the first");
    let second = searcher.start(grep("needle")).expect("the second");
    assert_eq!(searcher.start(grep("needle")).err(), Some(Refused::Busy));
    assert_eq!(
        Refused::Busy.to_string(),
        "2 searches are running on this node already; wait for one to end, or end it"
    );
    drop(first);
    let begun = Instant::now();
    while searcher.running() > 1 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(searcher.running(), 1, "who left is searched for no longer");
    let third = searcher.start(grep("needle")).expect("there is room");
    assert_eq!(collect(third).1["shown"], 9_000);
    // A new config, or the end, ends what runs.
    searcher.set(None);
    assert_eq!(collect(second).1["cut"], "stopping");
    assert_eq!(searcher.start(grep("needle")).err(), Some(Refused::NotReading));
}

#[test]
fn nothing_is_counted_and_nothing_moves() {
    let mut place = Place::new();
    place.rules = "[redact]\nbuiltin = true\n[drop.only-of-this-test]\ncontains = 'hay'".to_owned();
    let lines = cri(1, "hay") + &cri(2, "needle password=canary-hunter2secret") + "no header\n";
    fs::write(place.container("checkout-0").join("0.log"), lines).expect("file");
    let dropped = crate::metrics::RECORDS_DROPPED.with_label_values(&["drop", "only-of-this-test"]);
    let key = "shop_checkout-0_u-checkout-0/api/0";
    assert_eq!(place.grep("needle").len(), 1);
    assert_eq!(dropped.get(), 0, "what is not shown was not dropped");
    assert!(place.spill.stretches(key).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any lines, cut into any files, of which some are compressed and some are only in the spill, are found as a plain
    /// look at all lines finds them.
    #[test]
    fn a_search_finds_what_a_plain_look_finds(
        lines in prop::collection::vec((0_u8..12, 0_usize..4_000), 1..60),
        cuts in prop::collection::vec(1_usize..40, 0..5),
        forms in prop::collection::vec(0_u8..3, 6),
    ) {
        let place = Place::new();
        let dir = place.container("checkout-0");
        let text = |n: usize, kind: u8, len: usize| match kind {
            0 => format!("line {n} needle {}", "y".repeat(len)),
            1 => format!("line {n} {} needle", "y".repeat(len * 20)),
            _ => format!("line {n} {}", "x".repeat(len)),
        };
        let all: Vec<String> = lines.iter().enumerate().map(|(n, (kind, len))| text(n, *kind, *len)).collect();
        let (mut files, mut rest) = (Vec::new(), &all[..]);
        for cut in cuts {
            let (file, more) = rest.split_at(cut.min(rest.len()));
            if !file.is_empty() { files.push(file); }
            rest = more;
        }
        files.push(rest);
        let mut number = 0;
        let (mut on_disk, last) = (false, files.len() - 1);
        for (index, file) in files.iter().enumerate() {
            let content: String = file.iter().map(|line| { number += 1; cri(number, line) }).collect();
            let rotated = dir.join(format!("0.log.20261122-14000{index}"));
            match forms[index] {
                _ if index == last => fs::write(dir.join("0.log"), content).expect("file"),
                // The kubelet deletes the oldest first.
                0 if !on_disk => {
                    let key: Arc<str> = "shop_checkout-0_u-checkout-0/api/0".into();
                    let generation = Generation { device: 1, inode: 9 + index as u64, head: 77 + index as u64 };
                    for (n, piece) in content.as_bytes().chunks(128 << 10).enumerate() {
                        let start = (n * (128 << 10)) as u64;
                        place.spill.append(&key, generation, index as u64, start, piece).expect("kept");
                    }
                }
                1 => { on_disk = true; gzip(&dir.join(format!("0.log.20261122-14000{index}.gz")), &content) }
                _ => { on_disk = true; fs::write(&rotated, content).expect("file") }
            }
        }
        let _ = place.spill.sync();
        let reference: Vec<String> = all.iter().filter(|line| line.contains("needle")).map(|line| {
            // The line limit of this node.
            line[..line.len().min(64 << 10)].to_owned()
        }).filter(|line| line.contains("needle")).collect();
        // A number, a kind and a length say it all, and can be read.
        let brief = |lines: Vec<String>| -> Vec<String> {
            lines.iter().map(|line| format!("{} {}", line.chars().take(10).collect::<String>(), line.len())).collect()
        };
        prop_assert_eq!(brief(place.grep("needle")), brief(reference.clone()), "through raw bytes");
        prop_assert_eq!(brief(place.grep("nee(d)le")), brief(reference), "through all stages");
    }
}
