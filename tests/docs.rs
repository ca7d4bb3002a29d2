//! The documents hold: their configs load, their commands parse, their rules pass, and each of them can be found.
//!
//! In: README.md, ARCHITECTURE.md, CONTRIBUTING.md, SECURITY.md and what lies below docs, deploy and alerts, as text. Out: one failure
//! a rule, with every place that breaks it. Links, anchors and the agent's own metrics are tests/tidy.rs' to check.
//!
//! A fenced block says by its info string what it is: `toml` is a whole config, `toml fragment: <why>` is none; `yaml` parses, and
//! rules, Prometheus', Alertmanager's and Helm values are given to who reads them; `sh`, `console` and bare blocks have commands;
//! `console` is moreover run where all of its commands are `nodewick`'s and must print what stands below them, with the page's
//! configs as `agent.toml`. tests/docs/names.rs checks names; tests/docs/rules.rs has an
//! example of each rule that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use nodewick::config::{Sources, load};
use regex::Regex;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A document: its path from the repository's root, and its text.
struct Document {
    path: PathBuf,
    text: String,
}

/// All documents for people. CHANGELOG.md tells of the past, which need not hold.
static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from).into();
    let mut open: Vec<PathBuf> = ["docs", "deploy", "alerts"].map(PathBuf::from).into();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root().join(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text =
            fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Document { path, text }
    };
    paths.into_iter().map(read).collect()
});

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    /// Line of its first line of text, from 1.
    line: usize,
    info: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let (mut found, mut open): (Vec<Block>, Option<(Block, usize)>) = (Vec::new(), None);
    for (number, line) in document.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                let block = Block { line: number + 2, info: info.trim().to_owned(), text: String::new() };
                open = Some((block, indent));
            }
            (Some(_), Some(_)) => found.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), None) => {
                let line = line.get((*indent).min(line.len() - line.trim_start().len())..).unwrap_or(line);
                let _ = writeln!(block.text, "{line}");
            }
            (None, None) => {}
        }
    }
    found
}

/// What a rule finds in every block of every document.
fn in_blocks(rule: impl Fn(&Block) -> Vec<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for document in DOCUMENTS.iter() {
        for block in blocks(&document.text) {
            let found = rule(&block);
            findings.extend(found.into_iter().map(|text| at(&document.path, block.line, &text)));
        }
    }
    findings
}

fn at(path: &Path, line: usize, text: &str) -> String {
    format!("{}:{line}: {}", path.display(), text.trim_end().replace('\n', "\n    "))
}

fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}

// Configs.

/// A word behind `toml` or `yaml` says why the block is no whole config: `toml fragment: cases of the test verb`.
fn fragment(info: &str) -> Option<Result<(), String>> {
    let rest = info.split_once(' ')?.1;
    let reason = rest.strip_prefix("fragment:").map(str::trim);
    Some(match reason {
        Some(reason) if reason.len() > 5 => Ok(()),
        _ => Err(format!("`{info}`: write `fragment: <why it is no whole config>`")),
    })
}

/// Why a text is no config; each variable that it names has a value.
fn config_problems(text: &str) -> Vec<String> {
    static VARIABLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)").expect("a regex"));
    // Files that a config refers to are on another machine.
    static FILE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\{file:[^}]*\}").expect("a regex"));
    let text = FILE.replace_all(text, "0123456789abcdef");
    let env =
        VARIABLE.captures_iter(&text).map(|found| (found[1].to_owned(), "10.0.0.1".to_owned())).collect();
    let file = Some(("block".to_owned(), text.clone().into_owned()));
    match load(&Sources { file, env, host: Some("node-1".into()), ..Sources::default() }) {
        Ok(_) => Vec::new(),
        Err(problems) => vec![problems.to_string()],
    }
}

fn toml_problems(block: &Block) -> Vec<String> {
    match block.info.split(' ').next() {
        Some("toml") => match fragment(&block.info) {
            None => config_problems(&block.text),
            Some(Ok(())) => {
                toml::from_str::<toml::Table>(&block.text).err().map(|e| e.to_string()).into_iter().collect()
            }
            Some(Err(problem)) => vec![problem],
        },
        _ => Vec::new(),
    }
}

#[test]
fn every_config_in_the_documents_loads() {
    none(&in_blocks(toml_problems), "configs that do not load");
}

// YAML and JSON.

/// Documents of a YAML stream, and why they are none.
fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let parts = text.split("\n---\n").map(|part| part.strip_prefix("---\n").unwrap_or(part));
    parts
        .filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#')))
        .map(|part| serde_saphyr::from_str::<Value>(part).map_err(|error| error.to_string()))
        .collect()
}

/// Runs a checker on a file; what it says when it fails.
fn refused(program: &str, arguments: &[&str], text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("block.yaml");
    fs::write(&file, text).expect("written");
    let output =
        Command::new(program).args(arguments).arg(&file).current_dir(&dir).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run .ci/tools"));
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Vec::new() } else { vec![String::from_utf8_lossy(&said).into_owned()] }
}

fn yaml_problems(block: &Block) -> Vec<String> {
    if block.info.split(' ').next() != Some("yaml") {
        return Vec::new();
    }
    let parts = match yaml(&block.text) {
        Ok(parts) => parts,
        Err(problem) => return vec![problem],
    };
    match fragment(&block.info) {
        Some(Ok(())) => return Vec::new(),
        Some(Err(problem)) => return vec![problem],
        None => {}
    }
    let mut problems = Vec::new();
    for part in &parts {
        let has = |key: &str| part.get(key).is_some();
        if has("groups") {
            problems.extend(refused("promtool", &["check", "rules"], &block.text));
        } else if has("route") && has("receivers") {
            problems.extend(refused("amtool", &["check-config"], &block.text));
        } else if has("scrape_configs") || has("rule_files") {
            problems.extend(refused("promtool", &["check", "config", "--syntax-only"], &block.text));
        } else if let Some(config) = part.get("config").filter(|config| config.is_object()) {
            problems.extend(helm_problems(part, config));
        }
    }
    problems
}

/// Values of the chart: the keys of its own, and `config:`, which is the agent's config as a map.
fn helm_problems(values: &Value, config: &Value) -> Vec<String> {
    static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let text =
            fs::read_to_string(root().join("deploy/helm/nodewick/values.schema.json")).expect("it is there");
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        schema["properties"].as_object().expect("an object").keys().cloned().collect()
    });
    let keys = values.as_object().into_iter().flat_map(|table| table.keys());
    let mut problems: Vec<String> =
        keys.filter(|key| !KEYS.contains(*key)).map(|key| format!("the chart has no value {key}")).collect();
    match toml::to_string(&without_null(config)) {
        Ok(text) => problems.extend(config_problems(&text)),
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

/// `null` takes a key of the chart's defaults away.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let kept = table.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_null(value))).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn every_yaml_block_is_taken_by_who_reads_it() {
    none(&in_blocks(yaml_problems), "YAML that is refused");
}

fn other_problems(block: &Block) -> Vec<String> {
    match block.info.as_str() {
        "json" => {
            serde_json::from_str::<Value>(&block.text).err().map(|e| e.to_string()).into_iter().collect()
        }
        "js" => {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("block.mjs");
            fs::write(&file, &block.text).expect("written");
            let output =
                Command::new("node").arg("--check").arg(&file).output().expect("node; run .ci/tools");
            if output.status.success() {
                Vec::new()
            } else {
                vec![String::from_utf8_lossy(&output.stderr).into_owned()]
            }
        }
        _ => Vec::new(),
    }
}

#[test]
fn json_and_programs_in_the_documents_parse() {
    none(&in_blocks(other_problems), "JSON and JavaScript that do not parse");
}

// Commands.

/// The words of a shell line, and `|`, `;`, `&&` and redirections as words of their own; no expansion.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_word): (Vec<String>, String, bool) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('"'), '\\') | (None, '\\') => word.extend(letters.next()),
            (Some(_), _) => word.push(letter),
            (None, '\'' | '"') => (quote, is_word) = (Some(letter), true),
            (None, '#') if !is_word => break,
            (None, ' ' | '\t' | '|' | ';' | '&' | '>' | '(' | ')') => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
                if !matches!(letter, ' ' | '\t') {
                    words.push(letter.to_string());
                }
            }
            (None, _) => {
                word.push(letter);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// The arguments of every `nodewick` on a line of a shell.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let parts = words.split(|word| matches!(word.as_str(), "|" | ";" | "&" | "(" | ")"));
    let is_ours = |word: &str| {
        matches!(
            word,
            "nodewick" | "./nodewick" | "/nodewick" | "target/debug/nodewick" | "target/release/nodewick"
        )
    };
    let is_setting = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let mut found = Vec::new();
    for part in parts {
        let mut rest = part.iter().skip_while(|word| is_setting(word) || *word == "sudo");
        let first = rest.next().map(String::as_str).unwrap_or_default();
        // `kubectl exec … -- /nodewick why`, `sudo -u nodewick nodewick check`, `perf record -- nodewick run`.
        let after = match first {
            first if is_ours(first) => Some(rest.cloned().collect::<Vec<_>>()),
            "kubectl" | "docker" | "podman" | "perf" | "nice" => (1..part.len())
                .find(|place| part[place - 1] == "--" && is_ours(&part[*place]))
                .map(|place| part[place + 1..].to_vec()),
            // `make demo ARGS="--for 20s"`.
            "make" if rest.next().is_some_and(|word| word == "demo") => {
                let flags = rest.find_map(|word| word.strip_prefix("ARGS=")).unwrap_or_default();
                let flags = flags.split_whitespace().map(str::to_owned);
                Some(std::iter::once("demo".to_owned()).chain(flags).collect())
            }
            _ => None,
        };
        found.extend(after.map(|arguments| arguments.into_iter().take_while(|word| word != ">").collect()));
    }
    found
}

/// The lines of a block that are typed. In a block with a prompt that is what stands behind one.
fn typed(block: &Block) -> Vec<(usize, String)> {
    let kind = block.info.split(' ').next().unwrap_or_default();
    if !matches!(kind, "" | "sh" | "console") {
        return Vec::new();
    }
    let has_prompt = block.text.lines().any(|line| line.starts_with("$ "));
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in block.text.lines().enumerate() {
        let line = match &open {
            None if has_prompt => match line.strip_prefix("$ ") {
                Some(line) => line,
                None => continue,
            },
            _ => line,
        };
        let continues = open.is_some();
        let (place, mut whole) = open.take().unwrap_or((block.line + number, String::new()));
        let line = if continues { line.trim_start() } else { line };
        whole.push_str(line.trim_end_matches('\\').trim_end());
        if line.ends_with('\\') {
            whole.push(' ');
            open = Some((place, whole));
        } else {
            found.push((place, whole));
        }
    }
    found
}

/// The commands that a document's prose names in backticks; `a|b` stands for both.
fn named(document: &str) -> Vec<(usize, Vec<String>)> {
    static CODE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"`nodewick ([^`]+)`").expect("a regex"));
    let (mut found, mut code) = (Vec::new(), false);
    for (number, line) in document.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        if fence || code {
            continue;
        }
        for command in CODE.captures_iter(line) {
            let command = command[1].replace("\\|", "|");
            // What stands for any verb names none.
            if command.starts_with('<') || command.starts_with('…') {
                continue;
            }
            let mut all: Vec<Vec<String>> = vec![Vec::new()];
            for word in command.split_whitespace().take_while(|word| !matches!(*word, "…" | "|")) {
                let choices: Vec<&str> =
                    if word.starts_with('<') { vec![word] } else { word.split('|').collect() };
                all = all
                    .iter()
                    .flat_map(|arguments| {
                        choices
                            .iter()
                            .map(move |choice| [arguments.clone(), vec![(*choice).to_owned()]].concat())
                    })
                    .collect();
            }
            found.extend(all.into_iter().map(|arguments| (number + 1, arguments)));
        }
    }
    found
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewick"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}

/// Why the program does not know these arguments. `--help` is put at their end, so that nothing is done: whatever stands before it
/// is parsed first.
fn parse_problem(arguments: &[String]) -> Option<String> {
    let mut arguments = arguments.to_vec();
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    arguments.insert(end, "--help".to_owned());
    let output = binary().args(&arguments).output().expect("runs");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_command_in_the_documents_is_one_that_the_program_knows() {
    let mut places: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for document in DOCUMENTS.iter() {
        let in_blocks = blocks(&document.text);
        let in_blocks = in_blocks.iter().flat_map(|block| {
            typed(block)
                .into_iter()
                .flat_map(|(line, text)| invocations(&text).into_iter().map(move |one| (line, one)))
        });
        for (line, arguments) in in_blocks.chain(named(&document.text)) {
            places.entry(arguments).or_insert_with(|| format!("{}:{line}", document.path.display()));
        }
    }
    assert!(places.len() > 60, "only {} commands were found", places.len());
    let places: Vec<(Vec<String>, String)> = places.into_iter().collect();
    let check = |(arguments, place): &(Vec<String>, String)| {
        parse_problem(arguments)
            .map(|why| format!("{place}: nodewick {}: {}", arguments.join(" "), why.trim()))
    };
    let (one, two) = places.split_at(places.len() / 2);
    let findings = std::thread::scope(|scope| {
        let other = scope.spawn(|| two.iter().filter_map(check).collect::<Vec<_>>());
        let mut found: Vec<String> = one.iter().filter_map(check).collect();
        found.extend(other.join().expect("the other half"));
        found
    });
    none(&findings, "commands that the program refuses");
}

/// Verbs that need a config and a directory and nothing else, so that what the documents say of them can be done.
const DOABLE: &[&str] = &[
    "check",
    "config",
    "slo lint",
    "slo render",
    "slo simulate",
    "alerts",
    "dashboards",
    "completions",
    "man",
    "version",
];

/// What they are given as `agent.toml`.
const CONFIG: &str = "[agent]\ncluster = \"c\"\n[slo.checkout-availability]\nmatch = { namespace = \"shop\", workload = \"checkout\" \
                      }\nsli = \"availability\"\nobjective = \"99.9%\"\n[slo.defaults]\nretention = \"31d\"\n";

#[test]
fn commands_that_need_nothing_do_what_the_documents_ask_for() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("config")).expect("made");
    for file in ["agent.toml", "config/agent.toml"] {
        fs::write(dir.path().join(file), CONFIG).expect("written");
    }
    let mut all = BTreeSet::new();
    for document in DOCUMENTS.iter() {
        for (_, text) in blocks(&document.text).iter().flat_map(typed) {
            let is_doable = |one: &Vec<String>| {
                let verbs = one.join(" ");
                DOABLE.iter().any(|verb| verbs.starts_with(verb))
                    && !verbs.contains("manifests")
                    && !verbs.contains("/etc/")
            };
            all.extend(invocations(&text).into_iter().filter(is_doable));
        }
    }
    assert!(all.len() >= 12, "only {} commands can be done: {all:?}", all.len());
    let mut findings = Vec::new();
    for mut arguments in all {
        if arguments[0] == "check" && !arguments.iter().any(|word| word == "--offline") {
            arguments.push("--offline".to_owned());
        }
        let output = binary().args(&arguments).current_dir(&dir).output().expect("runs");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            findings.push(format!("nodewick {}: {}: {said}", arguments.join(" "), output.status));
        }
    }
    none(&findings, "documented commands that fail");
}

#[test]
fn every_verb_explains_itself() {
    let page = fs::read_to_string(root().join("docs/reference/cli.md")).expect("it is there");
    let verbs: Vec<Vec<String>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## `nodewick ")?.strip_suffix('`'))
        .map(|verbs| verbs.split(' ').map(str::to_owned).collect())
        .collect();
    assert!(verbs.len() > 20, "{verbs:?}");
    let silent =
        verbs.iter().filter_map(|verb| parse_problem(verb).map(|why| format!("{}: {why}", verb.join(" "))));
    none(&silent.collect::<Vec<_>>(), "verbs of the reference that have no --help");
}

/// The commands of a `console` block with what stands below each.
fn transcript(block: &Block) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => {
                let _ = writeln!(output, "{line}");
            }
            (None, None) => {}
        }
    }
    found
}

/// What is different when the commands of a block are run in `dir`.
fn differences(block: &Block, dir: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for (command, expected) in transcript(block) {
        let [arguments] = &invocations(&command)[..] else {
            problems.push(format!("a console block has one nodewick a line, not: {command}"));
            continue;
        };
        let output = binary().args(arguments).current_dir(dir).output().expect("runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if said != expected {
            problems.push(format!("$ {command}\nprints\n{said}"));
        }
    }
    problems
}

/// The page's whole configs, one after the other, as `agent.toml`.
fn page_config(document: &str) -> String {
    let configs = blocks(document).into_iter().filter(|block| block.info == "toml");
    configs.map(|block| block.text).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_console_blocks_show_is_what_is_printed() {
    let (mut findings, mut run) = (Vec::new(), 0);
    for document in DOCUMENTS.iter() {
        let consoles: Vec<Block> =
            blocks(&document.text).into_iter().filter(|block| block.info == "console").collect();
        if consoles.is_empty() {
            continue;
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("agent.toml"), page_config(&document.text)).expect("written");
        for block in consoles {
            run += 1;
            let found = differences(&block, dir.path());
            findings.extend(found.into_iter().map(|text| at(&document.path, block.line, &text)));
        }
    }
    assert!(run >= 3, "only {run} console blocks were run");
    none(&findings, "console blocks that show something else");
}

// Finding the way.

/// Documents of this repository that a document links to.
fn leads_to(document: &Document) -> Vec<PathBuf> {
    static LINK: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)").expect("a regex"));
    let links = LINK.captures_iter(&document.text).map(|found| found[1].to_owned());
    let here = document.path.parent().unwrap_or(Path::new(""));
    links
        .filter(|link| !link.contains("://") && link.ends_with(".md"))
        .map(|link| straight(&here.join(link)))
        .collect()
}

/// A path without `.` and `..`.
fn straight(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.iter() {
        match part.to_str() {
            Some("..") => drop(out.pop()),
            Some(".") => {}
            _ => out.push(part),
        }
    }
    out
}

/// Documents that no chain of links from `start` reaches.
fn orphans(documents: &[Document], start: &str) -> Vec<String> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![PathBuf::from(start)]);
    while let Some(path) = open.pop() {
        if let Some(document) = documents.iter().find(|document| document.path == path)
            && reached.insert(path)
        {
            open.extend(leads_to(document));
        }
    }
    documents
        .iter()
        .filter(|one| !reached.contains(&one.path))
        .map(|one| one.path.display().to_string())
        .collect()
}

#[test]
fn every_document_is_reached_from_the_index() {
    none(&orphans(&DOCUMENTS, "docs/README.md"), "documents that docs/README.md does not lead to");
}

#[test]
fn the_index_lists_every_page_but_runbooks_itself() {
    let index = DOCUMENTS.iter().find(|one| one.path == Path::new("docs/README.md")).expect("it is there");
    let listed: BTreeSet<PathBuf> = leads_to(index).into_iter().collect();
    let pages =
        DOCUMENTS.iter().filter(|one| one.path.starts_with("docs") && !one.path.starts_with("docs/runbooks"));
    let missing = pages.filter(|one| one.path != index.path && !listed.contains(&one.path));
    none(
        &missing.map(|one| one.path.display().to_string()).collect::<Vec<_>>(),
        "pages that docs/README.md does not list",
    );
}

#[test]
fn every_page_opens_with_a_heading_and_what_it_is_for() {
    let mut findings = Vec::new();
    for document in DOCUMENTS.iter().filter(|document| document.path.starts_with("docs")) {
        let mut lines = document.text.lines().filter(|line| !line.is_empty() && !line.starts_with("<!--"));
        if !lines.next().is_some_and(|line| line.starts_with("# ")) || lines.next().is_none() {
            findings.push(document.path.display().to_string());
        }
    }
    none(&findings, "pages without a heading");
}

#[path = "docs/names.rs"]
mod names;
#[path = "docs/rules.rs"]
mod rules;
