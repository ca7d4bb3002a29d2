//! Seeds that are derived from what the repository holds anyway: the corpus of the tests, the config, the formats' own writers.
//!
//! In: a target's name and the repository's root. Out: inputs by name. A line that is added to `tests/corpus` is a seed of every
//! target that it fits. Seeds by hand and former crashers are files of `fuzz/seeds/<target>/`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use nodewick::data::pods::Traits;
use nodewick::logs::checkpoint::{Mark, Store};
use nodewick::logs::disk::OsDisk;

/// A seed: a name for messages, and its bytes.
pub(crate) type Seed = (String, Vec<u8>);

/// The derived seeds of a target, in a fixed order.
pub(crate) fn of(target: &str, root: &Path) -> Vec<Seed> {
    let corpus = root.join("tests/corpus");
    match target {
        "json" => lines(&corpus.join("lines")),
        "redact" => {
            let mut seeds = files(&corpus.join("redact"), "txt");
            seeds.extend(lines(&corpus.join("lines")));
            seeds
        }
        "frame" => {
            let mut seeds: Vec<Seed> = Vec::new();
            for (at, (name, text)) in files(&corpus.join("lines"), "").into_iter().enumerate() {
                let control = [at as u8, at as u8 * 7, 40 + at as u8];
                seeds.push((format!("cri-{name}"), [cri_log(&text), control.to_vec()].concat()));
                seeds.push((format!("docker-{name}"), [docker_log(&text), control.to_vec()].concat()));
            }
            seeds
        }
        "config" => {
            let mut seeds = files(&corpus.join("config"), "toml");
            let default = fs::read(root.join("config/agent.toml")).expect("the default config");
            let text = String::from_utf8(default.clone()).expect("UTF-8");
            // Every example switched on, too.
            let uncommented: String =
                text.lines().filter(|line| !line.starts_with("# ")).map(uncomment).collect();
            seeds.push(("agent.toml".to_owned(), default));
            seeds.push(("agent-uncommented.toml".to_owned(), uncommented.into_bytes()));
            seeds
        }
        "gz" => {
            let packed = |(name, text): Seed| {
                [(name.clone(), with(&gzip(&text), [0, 3, 9])), (name, with(&text, [0x61, 90, 0]))]
            };
            files(&corpus.join("lines"), "").into_iter().take(4).flat_map(packed).collect()
        }
        "checkpoint" => checkpoints(),
        "exposition" => {
            // A few families of each dump: the fuzzer's inputs are short.
            let head = |(name, text): Seed| {
                let open = name.contains("openmetrics");
                let body = match text.windows(4).position(|end| end == b"\r\n\r\n") {
                    Some(head) if name.ends_with(".http") => &text[head + 4..],
                    _ => &text[..],
                };
                let cut = body.len().min(3000);
                let lines =
                    body[..cut].iter().rposition(|byte| *byte == b'\n').map_or(cut, |newline| newline + 1);
                let end: &[u8] = if open { b"# EOF\n" } else { b"" };
                (name, with(&[&body[..lines], end].concat(), [if open { 2 } else { 0 }]))
            };
            files(&corpus.join("metrics"), "").into_iter().map(head).collect()
        }
        _ => Vec::new(),
    }
}

fn files(dir: &Path, extension: &str) -> Vec<Seed> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file() && path.to_string_lossy().ends_with(extension))
        .collect();
    paths.sort();
    let seed = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, fs::read(path).expect("readable"))
    };
    paths.iter().map(seed).collect()
}

/// Each line of each file.
fn lines(dir: &Path) -> Vec<Seed> {
    let split = |(name, text): Seed| -> Vec<Seed> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.enumerate().map(|(at, line)| (format!("{name}-{}", at + 1), line.to_vec())).collect()
    };
    files(dir, "").into_iter().flat_map(split).collect()
}

fn with<const N: usize>(text: &[u8], control: [u8; N]) -> Vec<u8> {
    [text, &control].concat()
}

fn uncomment(line: &str) -> String {
    format!("{}\n", line.strip_prefix('#').unwrap_or(line))
}

/// Lines as containerd writes them: two streams in turn, every third line in fragments.
fn cri_log(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let stream = if at % 2 == 0 { "stdout" } else { "stderr" };
        let (first, rest) = line.split_at(if at % 3 == 2 { line.len() / 2 } else { 0 });
        let mut put = |tag: &str, part: &[u8]| {
            out.extend_from_slice(format!("2026-11-22T14:11:42.93228{at:04}Z {stream} {tag} ").as_bytes());
            out.extend_from_slice(part);
            out.push(b'\n');
        };
        if !first.is_empty() {
            put("P", first);
        }
        put("F", rest);
    }
    out
}

/// The same as docker writes them.
fn docker_log(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    for (at, line) in text.lines().filter(|line| !line.is_empty()).enumerate() {
        let stream = if at % 2 == 0 { "stdout" } else { "stderr" };
        let newline = if at % 3 == 2 { "" } else { "\n" };
        let log = serde_json::Value::from(format!("{line}{newline}"));
        let time = format!("2026-11-22T14:11:42.93228{at:04}Z");
        out.push_str(&format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n"));
    }
    out.into_bytes()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).expect("to memory");
    encoder.finish().expect("to memory")
}

/// A slot as the store writes it, alone, as a payload to seal anew, and as a list of changes.
fn checkpoints() -> Vec<Seed> {
    let dir = super::scratch();
    let (mut store, _) = Store::open(Arc::new(OsDisk::new(dir.path()))).expect("an empty directory");
    let traits = Traits {
        service_name: "checkout".to_owned(),
        environment: Some("prod".to_owned()),
        labels: vec![("team".to_owned(), "money".to_owned())],
        ..Traits::default()
    };
    let mark = Mark { traits: traits.into(), whole: true, ..Mark::default() };
    let marks = [("shop_checkout_uid/api/0", &mark), ("shop_cart_uid/api/1", &mark)];
    store.write(marks.into_iter()).expect("writable");
    let file = fs::read(dir.path().join("positions.0")).expect("the file");
    let slot = &file[..store.last_len()];
    let twice = [slot, slot].concat();
    let sealed = [&slot[16..24], &slot[28..]].concat();
    vec![
        ("file".to_owned(), with(&twice, [0])),
        ("sealed".to_owned(), with(&sealed, [1])),
        ("damage".to_owned(), with(&[1, 200, 0, 0x5a, 0, 90, 16, 0xff], [2])),
        ("cut".to_owned(), with(&[1, 100, 210, 0], [2])),
        ("longer".to_owned(), with(&[0, 9, 230, 7, 1, 9, 250, 7], [3])),
    ]
}
