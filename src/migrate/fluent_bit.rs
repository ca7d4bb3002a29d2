//! Fluent Bit's config, plugin by plugin, whichever form it had.
//!
//! In: sections. Out: our keys and rules, and a remark for what has none. Source of keys and meanings: Fluent Bit's
//! manual, "Pipeline".

mod filters;
mod outputs;

use super::classic::{Key, Section};
use super::draft::{Draft, references};
use super::names::{self, Conditions};
use super::unreadable;
use super::yaml::{Node, Value, is_true};
use crate::config::diagnostics::Diagnostics;

/// Multiline parsers that come with Fluent Bit; ours join all of these by themselves.
const BUILT_IN: [&str; 6] = ["cri", "docker", "java", "go", "python", "ruby"];

/// The sections of the YAML form.
pub(super) fn sections(source: &str, root: &Node) -> Result<Vec<Section>, Diagnostics> {
    let mut found = Vec::new();
    for (key, node) in root.entries() {
        match key.as_str() {
            "pipeline" => {
                for (kind, list) in node.entries() {
                    let kind = kind.trim_end_matches('s');
                    found.extend(list.items().iter().map(|item| section(kind, item)));
                }
            }
            "parsers" | "multiline_parsers" => {
                found.extend(node.items().iter().map(|item| section(key.trim_end_matches('s'), item)));
            }
            "includes" => {
                for item in node.items() {
                    let value = item.text().unwrap_or_default().to_owned();
                    let key = Key { name: "include".to_owned(), value, line: item.line };
                    found.push(Section { kind: "@include".to_owned(), line: item.line, keys: vec![key] });
                }
            }
            "env" => {
                for (name, item) in node.entries() {
                    let value = format!("{name}={}", item.text().unwrap_or_default());
                    let key = Key { name: "set".to_owned(), value, line: item.line };
                    found.push(Section { kind: "@set".to_owned(), line: item.line, keys: vec![key] });
                }
            }
            _ => found.push(section(key, node)),
        }
    }
    if !found.iter().any(|section| ["input", "filter", "output", "service"].contains(&section.kind.as_str()))
    {
        let help = "a Fluent Bit config has `pipeline:` with inputs, filters and outputs";
        return Err(unreadable(source, 1, 1, "not a Fluent Bit config".to_owned(), help));
    }
    Ok(found)
}

fn section(kind: &str, node: &Node) -> Section {
    let mut keys = Vec::new();
    for (name, value) in node.entries() {
        let name = name.to_ascii_lowercase();
        match &value.value {
            Value::Text(text) => keys.push(Key { name, value: text.clone(), line: value.line }),
            Value::List(items) => {
                for item in items {
                    let text = match &item.value {
                        Value::Text(text) => text.clone(),
                        // A rule of a multiline parser: `state`, `regex`, `next_state`.
                        _ => ["state", "regex", "next_state"]
                            .iter()
                            .filter_map(|key| item.text_at(key))
                            .map(|part| format!("\"{part}\""))
                            .collect::<Vec<_>>()
                            .join(" "),
                    };
                    keys.push(Key {
                        name: name.trim_end_matches('s').to_owned(),
                        value: text.clone(),
                        line: item.line,
                    });
                    if name.ends_with('s') {
                        keys.push(Key { name: name.clone(), value: text, line: item.line });
                    }
                }
            }
            Value::Map(_) => keys.push(Key { name, value: "{…}".to_owned(), line: value.line }),
            Value::Null => {}
        }
    }
    Section { kind: kind.to_ascii_lowercase(), line: node.line, keys }
}

/// What is known of the whole config while its parts are translated.
struct Whole<'a> {
    sections: &'a [Section],
    /// Variables that the config itself sets.
    set: Vec<(String, String)>,
    /// Tags of the inputs that read pods' logs.
    tags: Vec<String>,
    inputs: usize,
}

impl Whole<'_> {
    /// A value with its variables replaced: those that the config sets, then references to the environment.
    fn text(&self, value: &str) -> String {
        let mut text = value.to_owned();
        for (name, value) in &self.set {
            if text.len() < 4096 {
                text = text.replace(&format!("${{{name}}}"), value);
            }
        }
        references(&text)
    }

    /// The expression of a parser that the config has itself.
    fn parser(&self, kind: &str, name: &str) -> Option<String> {
        let named = |section: &&Section| {
            section.kind == kind && section.get("name").is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        let section = self.sections.iter().find(named)?;
        if kind == "parser" {
            return section.get("regex").map(|expression| expression.trim_matches('/').to_owned());
        }
        let rule = section.keys.iter().find(|key| key.name == "rule" && key.value.contains("start_state"))?;
        let mut parts = rule.value.split('"').filter(|part| !part.trim().is_empty());
        parts.next()?;
        let expression = parts.next()?;
        Some(expression.trim_start_matches('/').trim_end_matches('/').to_owned())
    }
}

/// The whole config.
pub(super) fn translate(sections: &[Section], draft: &mut Draft) {
    let mut whole = Whole {
        sections,
        set: Vec::new(),
        tags: vec!["*".to_owned(), "**".to_owned(), "kube.*".to_owned()],
        inputs: 0,
    };
    for section in sections {
        if section.kind == "@set" {
            for key in &section.keys {
                if let Some((name, value)) = key.value.split_once('=') {
                    // What may be a secret stays a reference, for the environment to hold.
                    if is_secret(name) {
                        draft.note(
                            key.line,
                            format!("the variable {} may be a secret and was left out", name.trim()),
                            "give it to the agent in the environment",
                        );
                    } else {
                        whole.set.push((name.trim().to_owned(), value.trim().to_owned()));
                    }
                }
            }
        } else if section.kind == "input" {
            whole.inputs += 1;
            whole.tags.extend(section.get("tag").map(str::to_owned));
        }
    }
    let mut outputs = 0;
    for section in sections {
        match section.kind.as_str() {
            "service" => service(section, draft),
            "input" => input(section, &whole, draft),
            "filter" => filters::filter(section, &whole, draft),
            "output" => {
                outputs::output(section, outputs, &whole, draft);
                outputs += 1;
            }
            "@set" | "parser" | "multiline_parser" => {}
            "@include" => draft.lost(
                section.line,
                format!("@INCLUDE {}", section.keys.first().map_or("", |key| key.value.as_str())),
                "what it includes was not read: give that file to `nodewick migrate` too, or a ConfigMap that holds both",
            ),
            kind => draft.lost(section.line, format!("section [{}]", kind.to_ascii_uppercase()), "write it by hand"),
        }
    }
    if outputs == 0 {
        draft.note(1, "no output: lines go to the local store on the node", "set [sink.loki.main] url");
    }
}

/// True for the name of a variable or key that may hold a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "token", "secret", "key", "auth", "credential"].iter().any(|word| name.contains(word))
}

fn service(section: &Section, draft: &mut Draft) {
    for key in &section.keys {
        match key.name.as_str() {
            "log_level" => {
                if let Some(level) = names::levels(std::slice::from_ref(&key.value)) {
                    draft.set(&["telemetry"], "log", level[0].clone(), key.line);
                }
            }
            "http_server" if is_true(&key.value) => draft.note(
                key.line,
                "metrics and health are at [admin] listen, 0.0.0.0:9464 by default",
                "probes: /health/ready and /health/live",
            ),
            "storage.path" => draft.note(
                key.line,
                "file system buffering needs no setting: positions move when a backend has acknowledged, and [logs.spill] keeps what is about to be deleted",
                "",
            ),
            "plugins_file" | "streams_file" => {
                draft.lost(key.line, format!("`{}`", key.name), "there are no plug-ins and no stream processor");
            }
            _ => {}
        }
    }
}

fn input(section: &Section, whole: &Whole<'_>, draft: &mut Draft) {
    let plugin = section.plugin();
    if plugin != "tail" {
        draft.lost(
            section.line,
            format!("input `{plugin}`"),
            "keep another agent for it: pods' logs and files only",
        );
        return;
    }
    let path = section.get("path").unwrap_or_default();
    let line =
        |name: &str| section.keys.iter().find(|key| key.name == name).map_or(section.line, |key| key.line);
    let of_pods = |path: &str| path.contains("/var/log/containers") || path.contains("/var/log/pods");
    if path.split(',').all(|path| of_pods(path.trim())) {
        for pattern in path.split(',') {
            input_path(pattern.trim(), line("path"), whole, draft);
        }
    } else if Draft::knows(&["logs", "files", "main", "paths"]) {
        let paths: Vec<String> = path.split(',').map(|path| whole.text(path.trim())).collect();
        let tag = section.get("tag").unwrap_or("files").trim_matches(['*', '.']).to_owned();
        let keys = vec![("paths".to_owned(), paths.into()), ("service".to_owned(), tag.clone().into())];
        draft.rule(&["logs", "files"], &tag, keys, line("path"), "input tail");
    } else {
        draft.lost(line("path"), "files that are no pods' logs", "this release reads pods' logs only");
    }
    for key in &section.keys {
        match key.name.as_str() {
            "exclude_path" => {
                for pattern in key.value.split(',') {
                    exclude_path(pattern.trim(), key.line, draft);
                }
            }
            "multiline.parser" => multiline_parsers(&key.value, key.line, whole, draft),
            "multiline" if is_true(&key.value) => {
                let name = section.get("parser_firstline").unwrap_or_default();
                match whole.parser("parser", name) {
                    Some(expression) => start_rule(name, &expression, key.line, draft),
                    None => draft.lost(
                        key.line,
                        format!("`Multiline` by the parser {name}, which is not in this file"),
                        "put its expression in [logs.multiline.rule] start",
                    ),
                }
            }
            "db" => draft.note(
                key.line,
                "Fluent Bit's positions are not taken over: the first start reads from the oldest line on disk",
                "lines that it has sent already come again; `[logs] start = \"newest\"` skips what is on disk",
            ),
            "mem_buf_limit" => {
                draft.note(key.line, "`Mem_Buf_Limit` is [agent] memory, one for all: 32MiB by default", "");
            }
            "skip_long_lines" => draft.note(key.line, "long lines are cut and marked, never skipped: [logs] max_line", ""),
            "parser" | "docker_mode" => {
                draft.note(key.line, "the runtime's format and JSON, logfmt, klog and nginx lines are recognised by themselves", "");
            }
            "read_from_head" | "name" | "path" | "tag" | "tag_regex" | "refresh_interval" | "rotate_wait" | "db.sync"
            | "db.locking" | "db.journal_mode" | "buffer_chunk_size" | "buffer_max_size" | "storage.type" | "key"
            | "alias" | "log_level" | "ignore_older" | "inotify_watcher" | "path_key" | "offset_key" | "docker_mode_flush"
            | "parser_firstline" | "skip_empty_lines" | "threaded" | "static_batch_size" | "multiline_flush" => {}
            _ => draft.lost(key.line, format!("input tail: `{}`", key.name), "write it by hand: docs/reference/config.md"),
        }
    }
}

/// The parts of a name below /var/log/containers, `<pod>_<namespace>_<container>-<id>.log`, as conditions.
fn of_pattern(pattern: &str) -> Option<Conditions> {
    let name = pattern.rsplit('/').next()?.trim_end_matches(".log");
    let mut conditions = Conditions::default();
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-.*".contains(c));
    match name.split('_').collect::<Vec<_>>().as_slice() {
        ["*"] | [""] => {}
        // A beginning is the pod's; with a star before it the text may stand in any part.
        [pod] if plain(pod) && !pod.starts_with('*') && pod.ends_with('*') => {
            conditions.add("pod", vec![(*pod).to_owned()]);
        }
        [pod, namespace, container] if [pod, namespace, container].iter().all(|part| plain(part)) => {
            if *pod != "*" {
                conditions.add("pod", vec![(*pod).to_owned()]);
            }
            if *namespace != "*" {
                conditions.add("namespace", vec![(*namespace).to_owned()]);
            }
            // The id behind the container's name takes a star of its own.
            let container =
                container.strip_suffix("-*").or_else(|| container.strip_suffix('*')).unwrap_or(container);
            if !container.is_empty() && container != "*" {
                conditions.add("container", vec![container.to_owned()]);
            }
        }
        [pod, namespace, "*" | ""] | [pod, namespace] if plain(pod) && plain(namespace) => {
            if *pod != "*" {
                conditions.add("pod", vec![(*pod).to_owned()]);
            }
            if *namespace != "*" {
                conditions.add("namespace", vec![namespace.trim_end_matches('*').to_owned()]);
            }
        }
        _ => return None,
    }
    Some(conditions)
}

fn input_path(pattern: &str, line: usize, whole: &Whole<'_>, draft: &mut Draft) {
    match of_pattern(pattern) {
        Some(conditions) if conditions.is_empty() => {}
        // Only one name can be excluded as a rule says it: all others of that key.
        Some(conditions) if conditions.keys.len() == 1 && whole.inputs == 1 && !pattern.contains(',') => {
            let (key, values) = conditions.keys[0].clone();
            let mut rule = Conditions::default();
            rule.add(key, values.iter().map(|value| format!("!{value}")).collect());
            draft.rule(&["process", "drop"], &format!("other_{key}"), rule.json(), line, "input tail: Path");
        }
        _ => draft.lost(
            line,
            format!("Path {pattern}: only some pods"),
            "all pods of the node are read: write [process.drop] rules with namespace, pod or container",
        ),
    }
}

fn exclude_path(pattern: &str, line: usize, draft: &mut Draft) {
    match of_pattern(pattern) {
        Some(conditions) if !conditions.is_empty() => {
            let about = conditions.keys.iter().map(|(key, _)| *key).collect::<Vec<_>>().join("_");
            draft.rule(
                &["process", "drop"],
                &format!("exclude_{about}"),
                conditions.json(),
                line,
                "input tail: Exclude_Path",
            );
        }
        _ => draft.lost(
            line,
            format!("Exclude_Path {pattern}"),
            "write a [process.drop] rule with namespace, pod or container",
        ),
    }
}

fn multiline_parsers(value: &str, line: usize, whole: &Whole<'_>, draft: &mut Draft) {
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if BUILT_IN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            draft.note(line, format!("multiline parser `{name}`: recognised by itself"), "");
        } else if let Some(expression) = whole.parser("multiline_parser", name) {
            start_rule(name, &expression, line, draft);
        } else {
            draft.lost(
                line,
                format!("multiline parser {name}, which is not in this file"),
                "put the expression of its first line in [logs.multiline.rule] start",
            );
        }
    }
}

fn start_rule(name: &str, expression: &str, line: usize, draft: &mut Draft) {
    draft.note(
        line,
        format!("multiline by {name} holds for all logs: JSON lines that do not match are joined too"),
        "name the services that need it: `service = \"billing-*\"`",
    );
    let keys = vec![("start".to_owned(), ours(expression).into())];
    draft.rule(&["logs", "multiline", "rule"], name, keys, line, format!("multiline parser {name}"));
}

/// An expression of Onigmo in our syntax, where they differ in how a group is named.
fn ours(expression: &str) -> String {
    expression.replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!")
}
