//! The config: any text as a config file.
//!
//! In: the file. Properties: it loads or is refused with at least one error; what is wrong in a file is shown with its line, a caret
//! within that line and no control character; what was loaded, written out as `check` shows it, loads again to the same.

use std::collections::BTreeMap;

use nodewick::config::diagnostics::{Level, Spot};
use nodewick::config::load::Loaded;
use nodewick::config::render::toml_value;
use nodewick::config::resolved::{MASK, Setting};
use nodewick::config::tree::push_key;
use nodewick::config::{Diagnostic, Sources, load};

const FILE: &str = "agent.toml";

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Whatever such a key names would be opened.
    if text.contains("file") || text.contains("\\u") || text.contains("\\U") {
        return;
    }
    match load(&sources(text)) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| explained(warning, text));
            assert!(loaded.config.memory_bound().total() > 0);
            writes_back(&loaded);
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(errors.0.iter().all(|error| error.level == Level::Error));
            errors.0.iter().for_each(|error| explained(error, text));
            printable(&errors.to_string());
        }
    }
}

fn sources(text: &str) -> Sources {
    Sources {
        file: Some((FILE.to_owned(), text.to_owned())),
        env: vec![("SET".to_owned(), "set".to_owned())],
        set: Vec::new(),
        host: Some("host-1".to_owned()),
    }
}

fn explained(diagnostic: &Diagnostic, source: &str) {
    assert!(!diagnostic.message.is_empty());
    printable(&diagnostic.to_string());
    match &diagnostic.spot {
        Spot::Source { file, line, column, text, indent, width } => {
            assert_eq!(file, FILE);
            let lines = source.matches('\n').count() + 1;
            assert!((1..=lines).contains(line), "line {line} of {lines}");
            let length = source.split('\n').nth(line - 1).map_or(0, |line| line.chars().count());
            assert!((1..=length + 1).contains(column), "column {column} of {length}");
            // A carriage return at the end is no part of what is shown.
            let room = text.chars().count() + 2;
            assert!(*width >= 1 && indent + width <= room, "the caret is beside the line: {diagnostic}");
            assert!(diagnostic.to_string().starts_with(&format!("{FILE}:{line}:{column}: ")));
        }
        // What is about no place of the file is about a key, or the whole.
        Spot::Nowhere => {
            assert!(!diagnostic.key.is_empty() || diagnostic.level == Level::Warning, "{diagnostic}")
        }
        other => panic!("nothing else was given: {other:?}"),
    }
}

fn printable(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

/// What `check` shows of a config is a config that says the same. Secrets are masked and do not come back.
fn writes_back(loaded: &Loaded) {
    let settings = loaded.resolved();
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for setting in settings.iter().filter(|setting| setting.origin.is_some()) {
        let table = tables.entry(&setting.table).or_default();
        if !setting.key.is_empty() {
            push_key(table, &setting.key);
            table.push_str(&format!(" = {}\n", toml_value(&setting.value)));
        }
    }
    let text: String = tables.iter().map(|(table, keys)| format!("[{table}]\n{keys}")).collect();
    // A reference that was put in is not written as one, and a dollar in it would be.
    if text.contains(MASK) || text.contains("${") {
        return;
    }
    let again = load(&sources(&text)).unwrap_or_else(|errors| panic!("{errors}\n---\n{text}"));
    let values = |settings: Vec<Setting>| -> Vec<_> {
        settings.into_iter().map(|setting| (setting.table, setting.key, setting.value)).collect()
    };
    assert_eq!(values(again.resolved()), values(settings), "written out:\n{text}");
}
