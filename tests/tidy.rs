//! Hygiene as tests: what a reviewer should not have to look for.
//!
//! In: the files of the repository as text. Out: one failure a rule, with every place that breaks it. The scanning is simple text work and
//! relies on rustfmt's layout; the rules themselves are tested on small examples at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nodewick::metrics::{Kind, TABLE};
use regex::Regex;

/// Who may import whom: a module imports modules of strictly lower layers, and siblings never meet. ARCHITECTURE.md has the picture.
const LAYERS: &[(&str, u8)] = &[
    ("data", 0),
    ("version", 0),
    ("durable", 1),
    ("health", 1),
    ("metrics", 1),
    ("supervise", 1),
    ("tls", 1),
    ("admin", 2),
    ("dashboards", 2),
    ("host", 2),
    ("kube", 2),
    ("logs", 2),
    ("red", 2),
    ("scrape", 2),
    ("sink", 2),
    ("slo", 2),
    // Its exporters use sink's HTTP client.
    ("telemetry", 3),
    // It asks by sink's HTTP client.
    ("history", 3),
    // It links and names severities as `slo` does.
    ("alerts", 3),
    // It copies what `logs` makes to viewers.
    ("live", 3),
    // It puts together what all parts know.
    ("overview", 3),
    // It reads files as `logs` does.
    ("search", 3),
    // It reads what the local sink stores.
    ("tail", 3),
    // It shows all of these to people.
    ("ui", 4),
    ("config", 5),
    ("doctor", 6),
    ("inspect", 6),
    ("migrate", 6),
    // It shows sizes as `config` does.
    ("top", 6),
    // Its page explains lines.
    ("agent", 7),
    // It asks what `doctor` knows.
    ("why", 7),
    ("demo", 8),
    // It runs an agent.
    ("exec", 8),
    ("cli", 9),
    ("main", 10),
];

/// Modules that must build without an async runtime: bytes on disk and arithmetic, tested without a clock.
const WITHOUT_TOKIO: &[&str] = &["alerts", "dashboards", "data", "logs", "slo"];

/// Crates of which a second version means two of everything: connections, types that do not fit, code size.
const ONE_VERSION: &[&str] = &["axum", "http", "hyper", "prost", "rustls", "tokio", "tonic", "tower"];

/// Lines of a source file, tests included. A direction is 150 to 400; this is the end of it.
const LINES: usize = 800;

/// Files that are longer for now. They may shrink; take them off the list when they have.
const LONGER: &[(&str, usize)] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `directory` whose name ends in one of `endings`, as paths from the repository's root.
fn files(directory: &str, endings: &[&str]) -> Vec<PathBuf> {
    const ELSEWHERE: &[&str] = &["target", "node_modules", ".git", "corpus", "demo-state"];
    let (mut found, mut open) = (Vec::new(), vec![root().join(directory)]);
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if ELSEWHERE.contains(&name.as_str()) {
                // `.git` is a file in a worktree.
            } else if path.is_dir() {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> Vec<PathBuf> {
    ["src", "tests", "benches", "fuzz"].iter().flat_map(|directory| files(directory, &[".rs"])).collect()
}

/// Fails with all findings of a rule at once.
fn none(findings: Vec<String>, rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}

/// The product code of a source file: without comments and without what only tests compile. Lines keep their number.
fn product(source: &str) -> Vec<&str> {
    let (mut kept, mut lines) = (Vec::new(), source.lines().peekable());
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            kept.push("");
            let indent = line.len() - line.trim_start().len();
            // The item's own first line; it may have more attributes before it.
            let mut item = lines.next().unwrap_or("");
            while item.trim().starts_with("#[") {
                kept.push("");
                item = lines.next().unwrap_or("");
            }
            kept.push("");
            // rustfmt closes an item of several lines at the indent of its first.
            let several = !item.trim_end().ends_with([';', '}']);
            let end = |line: &str| {
                line.len() > indent
                    && line[..indent].trim().is_empty()
                    && line[indent..].starts_with(['}', ')'])
            };
            while let Some(line) = lines.next_if(|_| several) {
                kept.push("");
                if end(line) {
                    break;
                }
            }
            continue;
        }
        kept.push(without_comment(line));
    }
    kept
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

/// True for files that only tests compile: `tests.rs`, `*_tests.rs` and what lies in a `tests` directory.
fn only_tests(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
        || path.parent().is_some_and(|parent| parent.iter().any(|part| part == "tests"))
}

/// The top-level modules that a source file names, and where: `crate::x`, `crate::{x, y::z}`, `super::…::x`, `nodewick::x`.
///
/// `module` is the file's own path in the crate, `["sink", "loki"]` for `src/sink/loki.rs`.
fn imports(module: &[String], source: &str) -> BTreeMap<String, usize> {
    static PATH: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(crate::|nodewick::|(?:super::)+)(\{|[a-z_][a-z0-9_]*)").expect("a regex")
    });
    let code = product(source).join("\n");
    let mut found = BTreeMap::new();
    for path in PATH.captures_iter(&code) {
        let whole = path.get(0).expect("the match");
        let (start, next) = (&path[1], path.get(2).expect("the second group"));
        // A path by `super` reaches the crate's root only with as many steps as the file is deep.
        if start.starts_with("super") && start.matches("super::").count() < module.len() {
            continue;
        }
        let line = code[..whole.start()].matches('\n').count() + 1;
        if next.as_str() == "{" {
            for name in group(&code[next.end()..]) {
                found.entry(name).or_insert(line);
            }
        } else {
            found.entry(next.as_str().to_owned()).or_insert(line);
        }
    }
    found
}

/// First names of the members of a `{…}` group; `text` starts after its brace.
fn group(text: &str) -> Vec<String> {
    let (mut names, mut depth, mut member) = (Vec::new(), 0usize, String::new());
    for letter in text.chars() {
        match letter {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut member)),
            _ if depth == 0 => member.push(letter),
            _ => {}
        }
    }
    names.push(member);
    names
        .iter()
        .map(|member| member.trim().split("::").next().unwrap_or("").to_owned())
        .filter(|name| !name.is_empty() && name != "self")
        .collect()
}

/// Path of a source file's module in the crate.
fn module_of(path: &Path) -> Vec<String> {
    let below = path.strip_prefix("src").expect("a file of the crate").with_extension("");
    let mut parts: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Why `from` may not import `to`; `None` when it may.
fn crossing(from: &str, to: &str) -> Option<&'static str> {
    match (layer(from), layer(to)) {
        _ if from == to => None,
        // Items at the crate's root, such as a constant, are no module.
        (Some(_), None) => None,
        (Some(above), Some(below)) if above > below => None,
        (Some(above), Some(below)) if above == below => Some("siblings never meet"),
        _ => Some("a module imports lower layers only"),
    }
}

#[test]
fn modules_import_lower_layers_only() {
    let mut findings = Vec::new();
    for path in files("src", &[".rs"]) {
        let module = module_of(&path);
        if only_tests(&path) || module == ["lib"] || module[0] == "bin" {
            continue;
        }
        for (name, line) in imports(&module, &text(&path)) {
            if let Some(why) = crossing(&module[0], &name) {
                findings.push(format!("{}:{line}: `{}` imports `{name}`: {why}", path.display(), module[0]));
            }
        }
    }
    none(findings, "the layers of LAYERS in tests/tidy.rs");
}

#[test]
fn every_module_has_a_layer() {
    let modules: BTreeSet<String> =
        files("src", &[".rs"]).iter().map(|path| module_of(path).swap_remove(0)).collect();
    let homeless = modules.into_iter().filter(|name| name != "lib" && name != "bin" && layer(name).is_none());
    none(
        homeless.map(|name| format!("src/{name}")).collect(),
        "modules without a line in LAYERS of tests/tidy.rs",
    );
}

#[test]
fn pure_modules_have_no_runtime() {
    static TOKIO: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b(tokio|tokio_util)::|\basync fn\b").expect("a regex"));
    let mut findings = Vec::new();
    for module in WITHOUT_TOKIO {
        for path in files(&format!("src/{module}"), &[".rs"]).into_iter().filter(|path| !only_tests(path)) {
            for (number, line) in product(&text(&path)).iter().enumerate() {
                if TOKIO.is_match(line) {
                    findings.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    none(findings, "tokio or async in a module that must build without it");
}

#[test]
fn every_source_file_says_what_it_is() {
    let findings = sources().into_iter().filter(|path| !text(path).starts_with("//! "));
    none(findings.map(|path| path.display().to_string()).collect(), "files that do not open with `//!`");
}

#[test]
fn no_source_file_is_endless() {
    let findings = sources().into_iter().filter_map(|path| {
        let (lines, name) = (text(&path).lines().count(), path.display().to_string());
        let limit = LONGER.iter().find(|(file, _)| *file == name).map_or(LINES, |(_, lines)| *lines);
        (lines > limit).then(|| format!("{name}: {lines} lines"))
    });
    none(findings.collect(), &format!("files of more than {LINES} lines"));
}

#[test]
fn nothing_is_left_to_do() {
    static LEFT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b(?:dbg|todo|unimplemented)!").expect("a regex"));
    let mut findings = Vec::new();
    for path in sources() {
        for (number, line) in text(&path).lines().map(without_comment).enumerate() {
            if LEFT.is_match(line) {
                findings.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    none(findings, "debugging and placeholders");
}

#[test]
fn tests_are_named_as_facts() {
    let findings = sources().into_iter().flat_map(|path| {
        let found = prefixed_tests(&text(&path));
        found.into_iter().map(move |name| format!("{}: {name}", path.display()))
    });
    none(findings.collect(), "tests whose name starts with test_");
}

fn prefixed_tests(source: &str) -> Vec<String> {
    static TEST: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"#\[(?:tokio::)?test(?:\([^)]*\))?\]\s+(?:#\[[^\]]*\]\s+)*(?:async )?fn (test_\w+)")
            .expect("a regex")
    });
    TEST.captures_iter(source).map(|found| found[1].to_owned()).collect()
}

#[test]
fn no_file_names_a_path_of_the_machine_it_was_written_on() {
    // Put together here, so that this file does not find itself.
    let workplace =
        Regex::new(concat!(r"(?:^|[\s\x22'`(=:,])/wo", r"rk(?:$|[/\s\x22'`)])|\.\./sha", r"red\b"))
            .expect("a regex");
    let mut findings = Vec::new();
    for path in files(".", &["", ".md", ".rs", ".toml", ".py", ".js", ".json", ".yaml", ".yml"]) {
        // What is not text cannot name a path that a person would follow.
        let Ok(content) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in content.lines().enumerate().filter(|(_, line)| workplace.is_match(line)) {
            findings.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
        }
    }
    none(findings, "paths that exist on one machine only");
}

#[test]
fn documents_name_metrics_that_exist() {
    let table = TABLE.iter().map(|row| (row.name, row.kind == Kind::Histogram));
    let process = nodewick::admin::process::ROWS.iter().map(|row| (row.name, false));
    let known: BTreeMap<&str, bool> = table.chain(process).collect();
    let mut documents = files("docs", &[".md"]);
    documents.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(PathBuf::from));
    for directory in ["alerts", "dashboards", "deploy"] {
        documents.extend(files(directory, &[".yaml", ".yml", ".json", ".md"]));
    }
    let mut findings = Vec::new();
    for path in documents.into_iter().filter(|path| root().join(path).exists()) {
        for (name, line) in unknown_metrics(&text(&path), &known) {
            findings.push(format!("{}:{line}: {name}", path.display()));
        }
    }
    none(findings, "metrics that are not in the table of src/metrics.rs");
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut documents = files("docs", &[".md"]);
    documents.extend(files("deploy", &[".md"]));
    let top = [
        "README.md",
        "alerts/README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ];
    documents.extend(top.map(PathBuf::from));
    let mut findings = Vec::new();
    for path in documents.into_iter().filter(|path| root().join(path).exists()) {
        let document = text(&path);
        for (link, line) in links(&document) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            let missing = if !root().join(&target).exists() {
                true
            } else if anchor.is_empty() || target.extension().is_none_or(|ending| ending != "md") {
                false
            } else {
                !anchors(&text(&target)).contains(anchor)
            };
            if missing {
                findings.push(format!("{}:{line}: {link}", path.display()));
            }
        }
    }
    none(findings, "links that lead nowhere");
}

/// The lines of a document outside its blocks of code, numbered from 1.
fn prose(document: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    document.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (!fence && !code).then_some((number + 1, line))
    })
}

/// The links of a document into this repository, with their lines.
fn links(document: &str) -> Vec<(String, usize)> {
    static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\]\(([^)\s]+)\)").expect("a regex"));
    let found = prose(document)
        .flat_map(|(number, line)| LINK.captures_iter(line).map(move |found| (found[1].to_owned(), number)));
    found.filter(|(link, _)| !link.contains("://") && !link.starts_with("mailto:")).collect()
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = prose(document).filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Names that look like the agent's metrics and are none of `known`; the value says that it is a histogram.
fn unknown_metrics(document: &str, known: &BTreeMap<&str, bool>) -> Vec<(String, usize)> {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\bnodewick_[a-z0-9_]*[a-z0-9]\b").expect("a regex"));
    let mut unknown = Vec::new();
    for (number, line) in document.lines().enumerate() {
        for name in NAME.find_iter(line).map(|found| found.as_str()) {
            let series = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let histogram = series.and_then(|base| known.get(base)).is_some_and(|histogram| *histogram);
            // A library's or a file's name ends otherwise than a metric's: only what has a second word is one.
            if !histogram && !known.contains_key(name) && name.matches('_').count() > 1 {
                unknown.push((name.to_owned(), number + 1));
            }
        }
    }
    unknown
}

#[test]
fn one_version_of_everything_that_matters() {
    let lock = text(Path::new("Cargo.lock"));
    let versions = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    assert_eq!(versions("tokio"), 1, "Cargo.lock is not as this test reads it");
    let several = ONE_VERSION.iter().filter(|name| versions(name) > 1);
    none(
        several.map(|name| format!("{name}: {} versions", versions(name))).collect(),
        "crates in several versions",
    );
}

// The rules themselves.

const EXAMPLE: &str = "\
//! Header that names crate::agent.
use crate::data::batch::{Batch, Span};
use crate::{
    metrics, // a comment with crate::config in it
    supervise::{self, Stop},
};

fn open() -> super::super::kube::Watch {
    super::helper() // crate::agent
}

#[cfg(test)]
#[path = \"x.rs\"]
mod elsewhere;

#[cfg(test)]
mod tests {
    use crate::demo::Node;

    #[test]
    fn a_fact() {}
}

use crate::sink;
";

#[test]
fn imports_of_product_code_are_found() {
    let module = ["logs".to_owned(), "tail".to_owned()];
    let found: Vec<_> = imports(&module, EXAMPLE).into_iter().collect();
    let expected = [("data", 2), ("kube", 8), ("metrics", 3), ("sink", 24), ("supervise", 3)];
    assert_eq!(found, expected.map(|(name, line)| (name.to_owned(), line)));
}

#[test]
fn layers_know_up_down_and_sideways() {
    assert_eq!(crossing("logs", "data"), None);
    assert_eq!(crossing("logs", "logs"), None);
    assert_eq!(crossing("logs", "sink"), Some("siblings never meet"));
    assert_eq!(crossing("data", "metrics"), Some("a module imports lower layers only"));
    assert_eq!(crossing("sink", "config"), Some("a module imports lower layers only"));
    assert_eq!(crossing("main", "agent"), None);
}

#[test]
fn a_prefixed_test_is_found_and_an_unknown_metric_too() {
    assert!(prefixed_tests(EXAMPLE).is_empty());
    assert_eq!(prefixed_tests("#[test]\n    #[ignore]\n    fn test_a() {}"), ["test_a"]);
    assert_eq!(prefixed_tests("#[tokio::test(flavor = \"x\")]\n    async fn test_b() {}"), ["test_b"]);
    let known = BTreeMap::from([("nodewick_wait_seconds", true), ("nodewick_logs_open", false)]);
    let document =
        "`nodewick_wait_seconds_bucket` nodewick_logs_open\nnodewick_logs_open_count nodewick_logs";
    assert_eq!(unknown_metrics(document, &known), [("nodewick_logs_open_count".to_owned(), 2)]);
}

#[test]
fn links_and_anchors_of_a_document_are_found() {
    let document = "# One `two`: three\n[a](b.md#c) [d](https://e.f) and\n```\n# no [g](h)\n```\n[i](#j)\n";
    assert_eq!(links(document), [("b.md#c".to_owned(), 2), ("#j".to_owned(), 6)]);
    assert_eq!(anchors(document), BTreeSet::from(["one-two-three".to_owned()]));
}
