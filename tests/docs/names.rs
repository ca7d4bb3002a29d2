//! Names in the documents: metrics, variables, keys of the config, paths of the listeners.
//!
//! In: the documents, and the sources that give these names. Out: each name that nothing has.

use super::*;

/// Texts of the files below `directories` whose name ends in one of `endings`, each behind its path.
fn texts(directories: &[&str], endings: &[&str]) -> String {
    let mut open: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    let mut text = String::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root().join(&directory)).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = directory.join(entry.file_name());
            let name = path.to_string_lossy().into_owned();
            if name.ends_with("node_modules") || name.ends_with("target") || name.starts_with("tests/docs") {
                // Others' files, and this test's own examples.
            } else if entry.path().is_dir() {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let _ = writeln!(text, "{name}");
                text.push_str(&fs::read_to_string(entry.path()).expect("a source file"));
            }
        }
    }
    text
}

/// Names of published families that no source file has.
pub(super) fn unknown_families(document: &str, sources: &str) -> Vec<(usize, String)> {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b(?:red|slo)_[a-z0-9_]*[a-z0-9]\b").expect("a regex"));
    let mut found = Vec::new();
    for (number, line) in document.lines().enumerate() {
        for name in NAME.find_iter(line).map(|name| name.as_str()) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            if !sources.contains(base) {
                found.push((number + 1, name.to_owned()));
            }
        }
    }
    found
}

#[test]
fn the_families_of_metrics_that_documents_name_are_published() {
    // Tests have such names too.
    let sources = texts(&["src", "tests"], &[".rs"]);
    let mut findings = Vec::new();
    for document in DOCUMENTS.iter() {
        let found = unknown_families(&document.text, &sources);
        findings.extend(found.into_iter().map(|(line, name)| at(&document.path, line, &name)));
    }
    none(&findings, "metrics that no source file names");
}

/// Variables that stand for keys of the config and do not; the others must be named in the sources.
pub(super) fn unknown_variables(document: &str, sources: &str) -> Vec<(usize, String)> {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\bNODEWICK_[A-Z0-9_]*[A-Z0-9]\b").expect("a regex"));
    let mut found = Vec::new();
    for (number, line) in document.lines().enumerate() {
        for name in NAME.find_iter(line).map(|name| name.as_str()) {
            let env = vec![(name.to_owned(), "1".to_owned())];
            let loaded = load(&Sources { env, ..Sources::default() });
            let said = match loaded {
                Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect(),
                Err(problems) => problems.to_string(),
            };
            let is_key = !said.contains("has no such key") && !said.contains("no key answers");
            if !is_key && !sources.contains(name) {
                found.push((number + 1, name.to_owned()));
            }
        }
    }
    found
}

#[test]
fn the_variables_that_documents_name_are_read() {
    // Those of the tests, the fuzz targets and the image's build are documented too.
    let mut sources = texts(&["src", "tests", "fuzz", "deploy/image", "benches"], &[".rs", ".py", "build"]);
    sources.push_str(&fs::read_to_string(root().join("Makefile")).expect("it is there"));
    let mut findings = Vec::new();
    for document in DOCUMENTS.iter() {
        let found = unknown_variables(&document.text, &sources);
        findings.extend(found.into_iter().map(|(line, name)| at(&document.path, line, &name)));
    }
    none(&findings, "variables that nothing reads");
}

/// The paths that listeners serve, from the calls that route them.
pub(super) fn routes(source: &str) -> BTreeSet<String> {
    static ROUTE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?:\.route\(|\.with_page\(|for path in \[)\s*((?:"/[^"]*"(?:,\s*)?)+)"#)
            .expect("a regex")
    });
    static PATH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""(/[^"]*)""#).expect("a regex"));
    let product = source.split("\n#[cfg(test)]").next().unwrap_or_default();
    let calls = ROUTE.captures_iter(product).map(|call| call[1].to_owned()).collect::<Vec<_>>().join(",");
    PATH.captures_iter(&calls).map(|path| path[1].to_owned()).collect()
}

#[test]
fn every_path_of_the_listeners_is_in_their_reference() {
    let page = fs::read_to_string(root().join("docs/reference/http.md")).expect("it is there");
    let mut all = BTreeSet::new();
    let (mut open, mut files) = (
        ["src/admin", "src/ui", "src/agent"].map(|at| root().join(at)).to_vec(),
        vec![root().join("src/agent.rs")],
    );
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    for file in files
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs"))
    {
        all.extend(routes(&fs::read_to_string(file).expect("a source file")));
    }
    assert!(all.contains("/metrics") && all.contains("/targets"), "{all:?}");
    let missing: Vec<String> = all.into_iter().filter(|path| !page.contains(&format!("`{path}`"))).collect();
    none(&missing, "paths that docs/reference/http.md does not name");
}

/// Keys and tables that prose names as `[kube] tenants` or `[process.drop.<name>]`, and the config does not have.
pub(super) fn unknown_keys(document: &str) -> Vec<(usize, String)> {
    static KEY: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"`(\[{1,2}[a-z][a-z0-9_.<>]*\]{1,2})(?: ([a-z][a-z0-9_.]*)(?: = [^`]*)?)?`")
            .expect("a regex")
    });
    let (mut found, mut code) = (Vec::new(), false);
    for (number, line) in document.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        // One bare word in brackets may be anything.
        let is_key = |name: &regex::Captures<'_>| name.get(2).is_some() || name[1].contains(['.', '_']);
        for name in KEY.captures_iter(line).filter(|name| !fence && !code && is_key(name)) {
            let key = name.get(2).map(|key| format!("{} = 0\n", key.as_str())).unwrap_or_default();
            let text = format!("{}\n{key}", name[1].replace("<name>", "x").replace("<sink>", "loki"));
            let said = config_problems(&text).concat();
            if said.contains("unknown key") || said.contains("unknown table") {
                found.push((number + 1, name[0].to_owned()));
            }
        }
    }
    found
}

#[test]
fn the_keys_that_documents_name_are_keys_of_the_config() {
    let mut findings = Vec::new();
    for document in DOCUMENTS.iter() {
        let found = unknown_keys(&document.text);
        findings.extend(found.into_iter().map(|(line, name)| at(&document.path, line, &name)));
    }
    none(&findings, "keys that the config does not have");
}
