//! Fluent Bit's filters as rules.

use super::super::classic::{Key, Section};
use super::super::draft::Draft;
use super::super::names::{self, Conditions};
use super::super::promtail::{static_label, whole};
use super::super::yaml::is_true;
use super::{Whole, is_secret, multiline_parsers, of_pattern, ours};

pub(super) fn filter(section: &Section, whole: &Whole<'_>, draft: &mut Draft) {
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
