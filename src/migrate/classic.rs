//! Fluent Bit's classic form: sections in brackets, `Key Value` lines, `@` commands.
//!
//! In: text, or the files of a ConfigMap. Out: [`Section`]s with the lines of their keys. Source of the form: "Classic
//! mode, format and schema" of Fluent Bit's manual. Invariant: includes are followed only within a ConfigMap, to a
//! bounded depth and number of sections.

use super::{MAX_INPUT, unreadable};
use crate::config::diagnostics::Diagnostics;

/// Sections in all.
const MAX_SECTIONS: usize = 2_000;
/// Includes within includes.
const MAX_DEPTH: usize = 8;

/// `[INPUT]` and its keys. Commands are sections of their own: `@include`, `@set`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    /// In lower case.
    pub(super) kind: String,
    pub(super) line: usize,
    pub(super) keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    /// In lower case: keys are the same in any.
    pub(super) name: String,
    pub(super) value: String,
    pub(super) line: usize,
}

impl Section {
    /// The first value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.keys.iter().find(|key| key.name == name).map(|key| key.value.as_str())
    }

    /// The plugin.
    pub(super) fn plugin(&self) -> String {
        self.get("name").unwrap_or_default().to_ascii_lowercase()
    }
}

/// True when the first line that says something is a section or a command.
pub(super) fn looks_classic(text: &str) -> bool {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.is_some_and(|line| {
        let named = line.strip_prefix('[').and_then(|rest| rest.chars().next());
        named.is_some_and(char::is_alphabetic) || line.starts_with('@')
    })
}

/// Reads one file.
pub(super) fn read(source: &str, text: &str) -> Result<Vec<Section>, Diagnostics> {
    let mut sections = Vec::new();
    read_into(source, text, 0, &[], 0, &mut sections)?;
    Ok(sections)
}

/// Reads `fluent-bit.conf` of a ConfigMap's files, with what it includes of them.
pub(super) fn read_files(
    source: &str,
    files: &[(String, String, usize)],
) -> Result<Vec<Section>, Diagnostics> {
    let mut sections = Vec::new();
    let is_yaml = |name: &str| name.ends_with(".yaml") || name.ends_with(".yml");
    if let Some((_, text, line)) = files.iter().find(|(name, text, _)| is_yaml(name) && !looks_classic(text))
    {
        let root = super::yaml::read(source, &format!("{}{text}", "\n".repeat(*line)))?;
        return super::fluent_bit::sections(source, &root);
    }
    let main = files.iter().find(|(name, ..)| name == "fluent-bit.conf").or_else(|| files.first());
    let Some((_, text, line)) = main else {
        return Err(unreadable(source, 1, 1, "the ConfigMap has no data".to_owned(), ""));
    };
    read_into(source, text, *line, files, 0, &mut sections)?;
    // Parsers are named by the service and not included.
    for (_, text, line) in
        files.iter().filter(|(name, text, _)| name.contains("parser") && looks_classic(text))
    {
        read_into(source, text, *line, &[], 0, &mut sections)?;
    }
    Ok(sections)
}

fn read_into(
    source: &str,
    text: &str,
    offset: usize,
    files: &[(String, String, usize)],
    depth: usize,
    sections: &mut Vec<Section>,
) -> Result<(), Diagnostics> {
    if text.len() > MAX_INPUT {
        return Err(unreadable(source, 0, 0, "larger than 1MiB".to_owned(), "give one config file"));
    }
    let mut open = false;
    for (index, raw) in text.lines().enumerate() {
        let line = offset + index + 1;
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let column = (raw.len() - raw.trim_start().len() + 1) as u64;
        let fail =
            |message: &str, help: &str| unreadable(source, line as u64, column, message.to_owned(), help);
        if sections.len() >= MAX_SECTIONS {
            return Err(fail("more than 2000 sections", "give one config file"));
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let Some((kind, _)) = rest.split_once(']') else {
                return Err(fail("a section without its closing bracket", "write it as [INPUT]"));
            };
            let kind = kind.trim().to_ascii_lowercase();
            if kind.is_empty() || !kind.chars().all(|c| c.is_alphanumeric() || "_- ".contains(c)) {
                return Err(fail("a section without a name", "write it as [INPUT]"));
            }
            sections.push(Section { kind, line, keys: Vec::new() });
            open = true;
        } else if let Some(command) = trimmed.strip_prefix('@') {
            let (name, value) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
            let (name, value) = (name.to_ascii_lowercase(), value.trim());
            let base = value.rsplit('/').next().unwrap_or(value);
            let included = files.iter().find(|(name, ..)| name == base);
            match included.filter(|_| name == "include" && depth < MAX_DEPTH) {
                Some((_, text, line)) => read_into(source, text, *line, files, depth + 1, sections)?,
                None => {
                    let key = Key { name: name.clone(), value: value.to_owned(), line };
                    sections.push(Section { kind: format!("@{name}"), line, keys: vec![key] });
                }
            }
            open = false;
        } else {
            let Some(section) = sections.last_mut().filter(|_| open) else {
                return Err(fail(
                    "a key outside of any section",
                    "keys stand below [SERVICE], [INPUT], [FILTER] or [OUTPUT]",
                ));
            };
            let (name, value) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
            section.keys.push(Key { name: name.to_ascii_lowercase(), value: value.trim().to_owned(), line });
        }
    }
    if sections.is_empty() && depth == 0 {
        return Err(unreadable(source, 1, 1, "no section in it".to_owned(), "give a Fluent Bit config"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_commands_have_their_lines() {
        let found = read("x", "# c\n[INPUT]\n  Name tail\n  Path  /a b\n@SET A=1\n").expect("read");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind.as_str(), found[0].line, found[0].plugin().as_str()), ("input", 2, "tail"));
        assert_eq!(found[0].keys[1], Key { name: "path".into(), value: "/a b".into(), line: 4 });
        assert_eq!((found[1].kind.as_str(), found[1].keys[0].value.as_str()), ("@set", "A=1"));
    }

    #[test]
    fn a_key_outside_of_a_section_names_its_line_and_column() {
        let error = read("x.conf", "\n   Name tail\n").expect_err("bad").to_string();
        assert!(error.starts_with("x.conf:2:4: error: a key outside of any section"), "{error}");
        let error = read("x.conf", "[INPUT\n").expect_err("bad").to_string();
        assert!(error.starts_with("x.conf:1:1: error: a section without its closing bracket"), "{error}");
    }

    #[test]
    fn files_that_include_each_other_end() {
        let files =
            vec![("fluent-bit.conf".to_owned(), "[SERVICE]\n@INCLUDE fluent-bit.conf\n".to_owned(), 3)];
        let found = read_files("x", &files).expect("read");
        assert!(found.len() < 30, "{}", found.len());
    }
}
