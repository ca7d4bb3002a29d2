//! Fluent Bit's config, plugin by plugin, whichever form it had.
//!
//! In: sections. Out: our keys and rules, and a remark for what has none. Source of keys and meanings: Fluent Bit's
//! manual, "Pipeline".

use super::classic::{Key, Section};
use super::draft::{Draft, references};
use super::names::{self, Conditions};
use super::promtail::{bytes, duration, set_duration, shouted, static_label, url, whole};
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
            "filter" => filter(section, &whole, draft),
            "output" => {
                output(section, outputs, &whole, draft);
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

fn filter(section: &Section, whole: &Whole<'_>, draft: &mut Draft) {
    let plugin = section.plugin();
    let line = section.line;
    let mut scope = Conditions::default();
    if let Some(found) = section.get("match").filter(|tag| !whole.tags.iter().any(|known| known == tag)) {
        let below = found.strip_prefix("kube.var.log.containers.").or_else(|| found.strip_prefix("kube."));
        match below.and_then(of_pattern) {
            Some(conditions) => scope = conditions,
            None => {
                draft.lost(
                    line,
                    format!("filter {plugin} for the tag {found}"),
                    "tags do not exist: conditions are namespace, pod, container and service",
                );
                return;
            }
        }
    } else if section.get("match_regex").is_some() {
        draft.lost(
            line,
            format!("filter {plugin} by Match_Regex"),
            "conditions are namespace, pod, container and service",
        );
        return;
    }
    match plugin.as_str() {
        "kubernetes" => kubernetes(section, draft),
        "grep" => grep(section, &scope, draft),
        "modify" => modify(section, whole, draft),
        "record_modifier" => record_modifier(section, whole, draft),
        "multiline" => match section.get("multiline.parser") {
            Some(parsers) => multiline_parsers(parsers, line, whole, draft),
            None => draft.note(line, "`multiline` of partial messages: joined by themselves", ""),
        },
        "throttle" => throttle(section, &scope, draft),
        "parser" => draft.note(
            line,
            "filter `parser`: level, trace, request and HTTP fields are found by themselves",
            "other fields stay in the line: `| json`, `| logfmt` or `| regexp` in the query finds them",
        ),
        "stdout" => draft.note(line, "filter `stdout`: use `nodewick explain` or `nodewick tail`", ""),
        "lua" | "wasm" => draft.lost(
            line,
            format!("filter `{plugin}`"),
            "there are no scripts: see which of drop, sample, limit, dedup and redact says what it does",
        ),
        "nest" | "rewrite_tag" | "type_converter" | "aws" | "ecs" | "geoip2" => draft.lost(
            line,
            format!("filter `{plugin}`"),
            "lines are sent as the container wrote them; Kubernetes' names are labels and metadata beside them",
        ),
        _ => draft.lost(line, format!("filter `{plugin}`"), "write it by hand: docs/explanation/processing.md"),
    }
}

fn kubernetes(section: &Section, draft: &mut Draft) {
    for key in &section.keys {
        let on = is_true(&key.value);
        match key.name.as_str() {
            "k8s-logging.exclude" if on => {
                draft.note(key.line, "the annotation fluentbit.io/exclude is honoured", "");
            }
            "k8s-logging.parser" if on => draft.lost(
                key.line,
                "the annotation fluentbit.io/parser",
                "annotate with nodewick.dev/parser: json, logfmt, klog, nginx or text, where a line's look is not enough",
            ),
            "merge_log" if on => draft.note(
                key.line,
                "`Merge_Log`: JSON lines are read where they stand and sent as they are",
                "`| json` in the query finds their fields",
            ),
            "labels" if on => {
                draft.note(key.line, "pod labels go out when they are on the allow-list of the config", "");
            }
            "annotations" if on => draft.lost(key.line, "pod annotations in each record", "they are not sent"),
            "use_kubelet" if on => {
                draft.note(key.line, "metadata come from one watch of the node's own pods", "");
            }
            _ => {}
        }
    }
}

/// Our key for a field of a record, as filters name it: `log`, `$kubernetes['namespace_name']`, `level`.
fn field(name: &str) -> Option<&'static str> {
    let plain = name.trim_start_matches('$').replace("']", "").replace("['", ".").replace('"', "");
    let last = plain.rsplit('.').next().unwrap_or(&plain);
    match last {
        "log" | "message" | "msg" | "MESSAGE" => Some("log"),
        "host" => None,
        "severity" | "log_level" | "lvl" => Some("level"),
        "status" | "status_code" => Some("http_status"),
        "method" => Some("http_method"),
        "path" | "uri" | "url" => Some("url_path"),
        last => names::condition_of(last),
    }
}

/// An expression that is searched for anywhere, as patterns.
fn searched(expression: &str) -> Option<Vec<String>> {
    let text = expression.trim().trim_matches('/');
    let (begins, ends) = (text.starts_with('^'), text.ends_with('$'));
    let found = names::globs(text)?;
    // In `^a|b` the sign belongs to the first one alone.
    if found.len() > 1 && (begins || ends) && !text.trim_matches(['^', '$']).starts_with('(') {
        return None;
    }
    let wrap = |name: String| {
        let head = if begins || name.starts_with('*') { "" } else { "*" };
        let tail = if ends || name.ends_with('*') { "" } else { "*" };
        format!("{head}{name}{tail}")
    };
    Some(found.into_iter().map(wrap).collect())
}

const LEVELS: [&str; 7] = ["trace", "debug", "info", "warn", "error", "fatal", "none"];

/// What one `Regex` or `Exclude` of a grep drops; `None` when no condition says it.
fn dropped_by(exclude: bool, name: &str, expression: &str) -> Option<Conditions> {
    let mut conditions = Conditions::default();
    let key = field(name)?;
    match key {
        "log" => {
            // What does not match an expression is no condition here.
            if !exclude {
                return None;
            }
            conditions.add("regex", vec![ours(expression.trim())]);
        }
        "level" => {
            let words = names::globs(expression.trim_matches('/'))?;
            let words: Vec<String> = words.iter().map(|word| word.trim_matches('*').to_owned()).collect();
            let levels = names::levels(&words)?;
            let dropped: Vec<String> = if exclude {
                levels
            } else {
                LEVELS
                    .iter()
                    .filter(|level| !levels.iter().any(|known| known == *level))
                    .map(|l| (*l).to_owned())
                    .collect()
            };
            conditions.add("level", dropped);
        }
        "http_status" => {
            let words = names::globs(expression)?;
            if !exclude || !words.iter().all(|word| word.parse::<u16>().is_ok()) {
                return None;
            }
            conditions.add("http_status", words);
        }
        "stream" => {
            let words = names::globs(expression)?;
            if !names::matcher(&mut conditions, "stream", if exclude { "=" } else { "!=" }, words.first()?) {
                return None;
            }
        }
        key => {
            let patterns = searched(expression)?;
            let patterns = patterns.into_iter().map(|p| if exclude { p } else { format!("!{p}") }).collect();
            conditions.add(key, patterns);
        }
    }
    Some(conditions)
}

fn grep(section: &Section, scope: &Conditions, draft: &mut Draft) {
    let operator = section.get("logical_op").unwrap_or("legacy").to_ascii_lowercase();
    let rules: Vec<&Key> =
        section.keys.iter().filter(|key| key.name == "regex" || key.name == "exclude").collect();
    let by_hand = "write a [process.drop] rule by hand: docs/explanation/processing.md";
    let mut all = Some(scope.clone());
    for key in &rules {
        let exclude = key.name == "exclude";
        let (name, expression) =
            key.value.split_once(char::is_whitespace).unwrap_or((key.value.as_str(), ""));
        let found = dropped_by(exclude, name, expression.trim());
        let Some(found) = found.and_then(|found| scope.and(&found)) else {
            let word = if exclude { "Exclude" } else { "Regex" };
            draft.lost(key.line, format!("grep: {word} by {name}"), by_hand);
            all = None;
            continue;
        };
        // Together: `AND` of excludes and `OR` of what must match drop what meets all conditions.
        let together = rules.len() > 1 && (operator == "and" && exclude || operator == "or" && !exclude);
        if together {
            all = all.and_then(|known| known.and(&found));
            continue;
        }
        let about = found.keys.last().map_or("line", |(key, _)| *key);
        let comment = format!("filter grep: {} {name}", if exclude { "Exclude" } else { "Regex" });
        draft.rule(&["process", "drop"], &format!("grep_{about}"), found.json(), key.line, comment);
    }
    let together = rules.len() > 1
        && rules
            .iter()
            .any(|key| operator == "and" && key.name == "exclude" || operator == "or" && key.name == "regex");
    if together {
        match all.filter(|all| !all.is_empty()) {
            Some(all) => draft.rule(
                &["process", "drop"],
                "grep",
                all.json(),
                section.line,
                format!("filter grep: {operator}"),
            ),
            None => draft.lost(section.line, format!("grep: its rules together ({operator})"), by_hand),
        }
    }
}

fn modify(section: &Section, whole: &Whole<'_>, draft: &mut Draft) {
    let conditional = section.keys.iter().any(|key| key.name == "condition");
    for key in &section.keys {
        match key.name.as_str() {
            "name" | "match" | "alias" | "log_level" => {}
            "add" | "set" if !conditional => added(key, whole, draft),
            _ => draft.lost(
                key.line,
                format!("filter modify: `{}`", key.name),
                "lines are sent as the container wrote them; [process.redact] replaces text in them",
            ),
        }
    }
}

/// A key with one value in every record.
fn added(key: &Key, whole: &Whole<'_>, draft: &mut Draft) {
    let (name, value) = key.value.split_once(char::is_whitespace).unwrap_or((key.value.as_str(), ""));
    if is_secret(name) {
        draft.lost(
            key.line,
            format!("the key {name} in every record"),
            "it may be a secret; nothing of it was taken",
        );
        return;
    }
    static_label(name, &whole.text(value.trim()), key.line, draft);
}

fn record_modifier(section: &Section, whole: &Whole<'_>, draft: &mut Draft) {
    for key in &section.keys {
        match key.name.as_str() {
            "name" | "match" | "alias" | "log_level" => {}
            "record" => added(key, whole, draft),
            _ => draft.lost(
                key.line,
                format!("filter record_modifier: `{}`", key.name),
                "lines are sent as the container wrote them; `[record] fields` chooses what goes beside them",
            ),
        }
    }
}

fn throttle(section: &Section, scope: &Conditions, draft: &mut Draft) {
    let rate = whole(section.get("rate").unwrap_or("1"));
    let interval = section.get("interval").unwrap_or("1s");
    let unit = match interval.trim() {
        "1" | "1s" => "s",
        "1m" | "60s" => "m",
        "1h" | "60m" => "h",
        _ => {
            draft.lost(
                section.line,
                format!("throttle with an interval of {interval}"),
                "periods are a second, a minute and an hour",
            );
            return;
        }
    };
    draft.note(section.line, "throttle: a limit counts in aligned periods, not over a sliding window", "");
    let mut keys =
        vec![("rate".to_owned(), format!("{rate}/{unit}").into()), ("key".to_owned(), "node".into())];
    keys.extend(scope.json());
    draft.rule(&["process", "limit"], "throttle", keys, section.line, "filter throttle");
}

fn output(section: &Section, number: usize, whole: &Whole<'_>, draft: &mut Draft) {
    let plugin = section.plugin();
    let name = if number == 0 { "main".to_owned() } else { format!("main_{}", number + 1) };
    let routed = |draft: &mut Draft| {
        let other = section.get("match").is_some_and(|tag| !whole.tags.iter().any(|known| known == tag));
        if other || section.get("match_regex").is_some() {
            draft.lost(
                section.line,
                format!("output {plugin} for some tags only"),
                "every line goes to every sink; drop what nobody wants",
            );
        }
    };
    match plugin.as_str() {
        "loki" => {
            loki(section, &name, whole, draft);
            routed(draft);
        }
        "opentelemetry" => {
            otlp(section, &name, whole, draft);
            routed(draft);
        }
        "stdout" => {
            draft.table(&["sink", "stdout", &name], section.line, "output stdout");
            routed(draft);
        }
        "null" => draft.note(section.line, "output `null` needs no translation", ""),
        _ => draft.lost(
            section.line,
            format!("output `{plugin}`"),
            "sinks are Loki, OTLP, stdout and a local store: send OTLP to a collector that writes there",
        ),
    }
}

/// Scheme, host and port of an output.
fn base(section: &Section, port: &str, whole: &Whole<'_>) -> String {
    let scheme = if section.get("tls").is_some_and(is_true) { "https" } else { "http" };
    let host = whole.text(section.get("host").unwrap_or("127.0.0.1"));
    let port = whole.text(section.get("port").unwrap_or(port));
    format!("{scheme}://{host}:{port}")
}

/// Keys that both outputs have; true when the key was one of them.
fn common(
    key: &Key,
    section: &Section,
    path: &[&str],
    prefix: &str,
    whole: &Whole<'_>,
    draft: &mut Draft,
) -> bool {
    let (auth, tls) = ([path, &["auth"]].concat(), [path, &["tls"]].concat());
    let text = whole.text(&key.value);
    let line = key.line;
    match key.name.as_str() {
        "name"
        | "match"
        | "match_regex"
        | "alias"
        | "host"
        | "port"
        | "tls"
        | "log_level"
        | "workers"
        | "compress"
        | "tls.debug"
        | "tls.vhost"
        | "retry_limit"
        | "storage.total_limit_size" => {
            if key.name == "retry_limit" {
                draft.note(line, "`Retry_Limit`: what a backend does not take is sent again without end", "");
            }
        }
        name if name.starts_with("net.") => {
            if name == "net.connect_timeout" {
                let seconds = format!("{}s", whole_seconds(&text));
                set_duration(draft, &[path, &["timeouts"]].concat(), "connect", &seconds, line);
            }
        }
        "http_user" => draft.set(&auth, "username", text, line),
        "http_passwd" => {
            let shown = draft.secret(&key.value, &format!("{prefix}_PASSWORD"), "`http_passwd`", line);
            draft.set(&auth, "password", shown, line);
        }
        "bearer_token" => {
            let shown = draft.secret(&key.value, &format!("{prefix}_TOKEN"), "`bearer_token`", line);
            draft.set(&auth, "token", shown, line);
        }
        "tls.ca_file" => draft.set(&tls, "ca_file", text, line),
        "tls.crt_file" => draft.set(&tls, "cert_file", text, line),
        "tls.key_file" => draft.set(&tls, "key_file", text, line),
        "tls.verify" if is_true(&key.value) => {}
        "tls.verify"
            if ["http_user", "bearer_token", "header"].iter().any(|key| section.get(key).is_some()) =>
        {
            draft.lost(
                line,
                "`tls.verify off` beside credentials would give them to anybody",
                "name the authority's certificate in `tls.ca_file`",
            )
        }
        "tls.verify" => draft.set(&tls, "insecure_skip_verify", true, line),
        "header" => {
            let (name, value) = key.value.split_once(char::is_whitespace).unwrap_or((key.value.as_str(), ""));
            let variable = format!("{prefix}_HEADER_{}", shouted(name));
            let shown = draft.secret(value.trim(), &variable, &format!("header `{name}`"), line);
            draft.set_inner(path, "headers", name, shown, line);
        }
        "proxy" => {
            let shown = if text.contains('@') {
                draft.secret(&text, &format!("{prefix}_PROXY_URL"), "`proxy` with its password", line)
            } else {
                text
            };
            draft.set(path, "proxy", shown, line);
        }
        _ => return false,
    }
    true
}

fn whole_seconds(text: &str) -> String {
    text.chars().take_while(char::is_ascii_digit).collect()
}

fn loki(section: &Section, name: &str, whole: &Whole<'_>, draft: &mut Draft) {
    let path = ["sink", "loki", name];
    draft.table(&path, section.line, "output loki");
    let uri = section.get("uri").filter(|uri| *uri != "/loki/api/v1/push").unwrap_or_default();
    let address = match section.get("url") {
        Some(url) => url.to_owned(),
        None => format!("{}{uri}", base(section, "3100", whole)),
    };
    let line =
        |name: &str| section.keys.iter().find(|key| key.name == name).map_or(section.line, |key| key.line);
    url(draft, &path, "url", &address, &|what| format!("LOKI_{what}"), line("host"));
    for key in &section.keys {
        if common(key, section, &path, "LOKI", whole, draft) {
            continue;
        }
        match key.name.as_str() {
            "uri" | "url" => {}
            "tenant_id" => draft.set(&path, "tenant", whole.text(&key.value), key.line),
            "tenant_id_key" => draft.lost(
                key.line,
                "a tenant from the record",
                "annotate namespaces or pods with nodewick.dev/tenant, from the allow-list in the config",
            ),
            "labels" | "label_keys" | "label_map_path" | "auto_kubernetes_labels" | "labelkeys" | "labelmappath"
            | "autokubernetesLabels" | "autokuberneteslabels" => loki_labels(key, whole, draft),
            "structured_metadata" | "structured_metadata_map_keys" => draft.lost(
                key.line,
                format!("`{}`", key.name),
                "level, trace_id, span_id, request and HTTP fields and allow-listed pod labels are sent by themselves",
            ),
            "line_format" | "drop_single_key" | "remove_keys" | "lineformat" | "removekeys" => draft.note(
                key.line,
                format!("`{}`: the line is sent as the container wrote it, with nothing around it", key.name),
                "queries that read Fluent Bit's JSON around it (`| json | line_format \"{{.log}}\"`) need no such step any more",
            ),
            "batchwait" => {
                let text = whole.text(&key.value);
                let text = if text.bytes().all(|b| b.is_ascii_digit()) { format!("{text}s") } else { text };
                if duration(&text).is_some() {
                    set_duration(draft, &[&path[..], &["limits"]].concat(), "linger", &text, key.line);
                }
            }
            "batchsize" => {
                if let Some(size) = bytes(&key.value).filter(|size| *size > 0) {
                    draft.set(&[&path[..], &["limits"]].concat(), "max_request", format!("{size}B"), key.line);
                }
            }
            _ => draft.lost(key.line, format!("output loki: `{}`", key.name), "write it by hand: docs/reference/config.md"),
        }
    }
}

/// `job=fluentbit, namespace=$kubernetes['namespace_name'], $stream`.
fn loki_labels(key: &Key, whole: &Whole<'_>, draft: &mut Draft) {
    if key.name.starts_with("auto") {
        if is_true(&key.value) {
            draft.lost(
                key.line,
                "all pod labels as stream labels",
                "labels are fixed; pod labels on the allow-list go out as structured metadata",
            );
        }
        return;
    }
    if key.name.contains("map") {
        draft.lost(
            key.line,
            "labels by a map file",
            "labels are cluster, namespace, service_name, container and node",
        );
        return;
    }
    for part in key.value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, part));
        let from_record =
            value.trim().starts_with('$') && !value.trim().starts_with("${") || key.name != "labels";
        let name = name.trim().trim_start_matches('$');
        if !from_record {
            if is_secret(name) {
                draft.lost(
                    key.line,
                    format!("label `{name}`"),
                    "it may be a secret; nothing of it was taken",
                );
            } else {
                static_label(name, &whole.text(value.trim()), key.line, draft);
            }
            continue;
        }
        let last = value.trim().trim_end_matches("']").rsplit(['\'', '.', '$']).next().unwrap_or(name);
        match names::condition_of(last) {
            Some("namespace" | "container" | "service") => {}
            Some(_) => draft.note(key.line, format!("`{name}` is structured metadata here"), ""),
            None => draft.lost(
                key.line,
                format!("label `{name}` from the record"),
                "labels are fixed; the value stays in the line",
            ),
        }
    }
}

fn otlp(section: &Section, name: &str, whole: &Whole<'_>, draft: &mut Draft) {
    let path = ["sink", "otlp", name];
    draft.table(&path, section.line, "output opentelemetry");
    let grpc = section.get("grpc").is_some_and(is_true)
        || section.get("port").is_some_and(|port| port.trim() == "4317");
    let uri = section.get("logs_uri").unwrap_or("/v1/logs");
    let address = base(section, "4318", whole);
    let line =
        |name: &str| section.keys.iter().find(|key| key.name == name).map_or(section.line, |key| key.line);
    if grpc {
        url(draft, &path, "endpoint", &address, &|what| format!("OTLP_{what}"), line("host"));
        draft.set(&path, "protocol", "grpc", line("grpc"));
    } else {
        let uri = uri.strip_suffix("/v1/logs").unwrap_or_else(|| {
            draft.lost(
                line("logs_uri"),
                "`logs_uri` that does not end in /v1/logs",
                "/v1/logs is appended to the endpoint",
            );
            ""
        });
        let address = format!("{address}{}", whole.text(uri));
        url(draft, &path, "endpoint", &address, &|what| format!("OTLP_{what}"), line("host"));
        draft.set(&path, "protocol", "http/protobuf", section.line);
    }
    for key in &section.keys {
        if common(key, section, &path, "OTLP", whole, draft) {
            continue;
        }
        match key.name.as_str() {
            "logs_uri" | "grpc" | "log_response_payload" | "http2" | "metrics_uri" | "traces_uri" => {}
            "add_label" => {
                let (name, value) =
                    key.value.split_once(char::is_whitespace).unwrap_or((key.value.as_str(), ""));
                static_label(name, &whole.text(value.trim()), key.line, draft);
            }
            name if name.starts_with("logs_") => draft.note(
                key.line,
                format!("`{name}`: body, severity, trace and span id are found by themselves"),
                "",
            ),
            _ => draft.lost(
                key.line,
                format!("output opentelemetry: `{}`", key.name),
                "write it by hand: docs/reference/config.md",
            ),
        }
    }
}
