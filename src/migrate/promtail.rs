//! Promtail's config, section by section; its pipelines are in [`stages`](super::stages).
//!
//! Source of keys and meanings: "Promtail configuration reference" of Grafana Loki 3.

use std::collections::BTreeSet;

use super::draft::{Draft, references};
use super::names::{self, Conditions};
use super::stages;
use super::yaml::{Node, Value};

/// Labels that every stream has here, by Promtail's names, and what becomes of each.
const SAME_LABELS: [&str; 4] = ["namespace", "container", "cluster", "service_name"];
/// Labels that are here under another name.
const OTHER_LABELS: [(&str, &str); 6] = [
    ("app", "label `service_name`"),
    ("service", "label `service_name`"),
    ("node_name", "label `node`"),
    ("node", "label `node`"),
    ("pod", "structured metadata `pod`"),
    ("stream", "structured metadata `stream`"),
];

/// The values of the Helm chart as the config that the chart makes of them; `None` for anything else.
pub(super) fn of_helm_values(root: &Node, draft: &mut Draft) -> Option<Node> {
    let config = root.get("config").filter(|_| root.get("scrape_configs").is_none())?;
    draft.note(config.line, "these are values of the Helm chart: its own scrape_configs are assumed", "");
    let map = |line: usize, entries: Vec<(&str, Node)>| {
        let entries = entries.into_iter().map(|(key, node)| (key.to_owned(), node)).collect();
        Node::in_line(line, Value::Map(entries))
    };
    let mut entries: Vec<(&str, Node)> =
        ["clients", "positions"].iter().filter_map(|key| Some((*key, config.get(key)?.clone()))).collect();
    let role = Node::in_line(config.line, Value::List(Vec::new()));
    let name = Node::in_line(config.line, Value::Text("kubernetes-pods".to_owned()));
    let mut job = vec![("job_name", name), ("kubernetes_sd_configs", role)];
    for (key, node) in config.get("snippets").map(Node::entries).unwrap_or_default() {
        match key.as_str() {
            "pipelineStages" => job.push(("pipeline_stages", node.clone())),
            "extraRelabelConfigs" => job.push(("relabel_configs", node.clone())),
            _ if matches!(&node.value, Value::Null) || node.items().is_empty() || node.text() == Some("") => {
            }
            _ => draft.lost(node.line, format!("`config.snippets.{key}`"), "give the rendered promtail.yaml"),
        }
    }
    let job = map(config.line, job);
    entries.push(("scrape_configs", Node::in_line(config.line, Value::List(vec![job]))));
    Some(map(config.line, entries))
}

/// The whole config.
pub(super) fn translate(root: &Node, draft: &mut Draft) {
    for (key, node) in root.entries() {
        match key.as_str() {
            "clients" => {
                for (number, client) in node.items().iter().enumerate() {
                    self::client(client, number, draft);
                }
            }
            "client" => client(node, 0, draft),
            "scrape_configs" => {
                let of_pods = node.items().iter().filter(|job| job.get("kubernetes_sd_configs").is_some());
                let alone = of_pods.count() < 2;
                for job in node.items() {
                    scrape_config(job, alone, draft);
                }
            }
            "server" => server(node, draft),
            "positions" => draft.note(
                node.line,
                "Promtail's positions are not taken over: the first start reads from the oldest line on disk",
                "lines that Promtail has sent already come again; `[logs] start = \"newest\"` skips what is on disk",
            ),
            "limits_config" => limits(node, draft),
            "target_config" | "tracing" | "options" => {
                draft.note(node.line, format!("`{key}` has no counterpart and needs none"), "");
            }
            "wal" => draft.note(
                node.line,
                "a write-ahead log is not needed: positions move when Loki has acknowledged, and [logs.spill] keeps what is about to be deleted",
                "",
            ),
            _ => draft.lost(node.line, format!("unknown section `{key}`"), "look its meaning up and write it by hand"),
        }
    }
    if root.get("scrape_configs").is_none() {
        draft.note(1, "no scrape_configs: every pod's log of the node is read", "");
    }
    if root.get("clients").is_none() && root.get("client").is_none() {
        draft.lost(1, "no clients: nowhere to send to", "set [sink.loki.main] url");
    }
}

fn server(node: &Node, draft: &mut Draft) {
    for (key, node) in node.entries() {
        let Some(text) = node.text() else { continue };
        match key.as_str() {
            "http_listen_port" if text == "0" => draft.set(&["admin"], "listen", "off", node.line),
            "http_listen_port" => draft.note(
                node.line,
                "metrics and health are at [admin] listen, 0.0.0.0:9464 by default",
                "probes: /health/ready and /health/live; metrics have other names",
            ),
            "log_level" => match names::levels(&[text.to_owned()]) {
                Some(level) => draft.set(&["telemetry"], "log", level[0].clone(), node.line),
                None => draft.set(&["telemetry"], "log", references(text), node.line),
            },
            "disable" if node.is_true() => draft.set(&["admin"], "listen", "off", node.line),
            _ => draft.note(node.line, format!("`server.{key}` needs no translation"), ""),
        }
    }
}

fn limits(node: &Node, draft: &mut Draft) {
    let on = |key: &str| node.get(key).is_none_or(Node::is_true);
    let rate = node.text_at("readline_rate").unwrap_or("10000");
    if node.get("readline_rate_enabled").is_some_and(Node::is_true) && on("readline_rate_drop") {
        let rule =
            vec![("rate".to_owned(), format!("{}/s", whole(rate)).into()), ("key".to_owned(), "node".into())];
        draft.rule(&["process", "limit"], "readline_rate", rule, node.line, "limits_config.readline_rate");
    } else if node.get("readline_rate_enabled").is_some_and(Node::is_true) {
        draft.lost(
            node.line,
            "`limits_config.readline_rate` slows reading down",
            "reading here stops by itself when [agent] memory is spent; [process.limit] drops instead",
        );
    }
    if let Some(size) = node.get("max_line_size").filter(|size| size.text() != Some("0")) {
        let bytes = size.text().and_then(bytes);
        match bytes {
            Some(bytes) => draft.set(&["logs"], "max_line", format!("{bytes}B"), size.line),
            None => draft.lost(size.line, "`limits_config.max_line_size` is no size", "set [logs] max_line"),
        }
        if !node.get("max_line_size_truncate").is_some_and(Node::is_true) {
            draft.note(size.line, "longer lines are cut and marked, not dropped", "");
        }
    }
    if let Some(streams) = node.get("max_streams").filter(|streams| streams.text() != Some("0")) {
        draft.lost(
            streams.line,
            "`limits_config.max_streams`",
            "labels are fixed here: one stream a container",
        );
    }
}

/// Digits of a rate, at least 1.
pub(super) fn whole(text: &str) -> u64 {
    text.trim().parse::<f64>().map_or(1, |rate| rate.ceil().clamp(1.0, 1e12) as u64)
}

/// A size as Promtail writes it: bytes, or with a unit.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let size = number * factor;
    (size.is_finite() && size < 1e15).then_some(size as u64)
}

/// A Go duration (`1m30s`, `500ms`) as ours; `None` when it is none.
pub(super) fn duration(text: &str) -> Option<String> {
    let (mut rest, mut millis) = (text.trim(), 0.0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        millis += number
            * match &rest[end..unit_end] {
                "us" | "µs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 6e4,
                "h" => 3.6e6,
                "d" => 8.64e7,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (millis.is_finite() && millis < 1e13).then(|| format!("{}ms", millis.ceil() as u64))
}

fn client(client: &Node, number: usize, draft: &mut Draft) {
    let name = client.text_at("name").filter(|name| {
        (1..=40).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    let name = match (name, number) {
        (Some(name), _) => name.to_owned(),
        (None, 0) => "main".to_owned(),
        (None, number) => format!("main_{}", number + 1),
    };
    let path = ["sink", "loki", name.as_str()];
    let variable = |what: &str| {
        let tag = if number == 0 { String::new() } else { format!("_{}", number + 1) };
        format!("LOKI{tag}_{what}")
    };
    draft.table(&path, client.line, "clients: every line goes to each Loki, and none waits for another one.");
    for (key, node) in client.entries() {
        let line = node.line;
        let text = node.text().map(references);
        match (key.as_str(), text) {
            ("name", _) => {}
            ("url", Some(_)) => {
                url(draft, &path, "url", node.text().unwrap_or_default(), &variable, line);
            }
            ("tenant_id", Some(text)) => draft.set(&path, "tenant", text, line),
            ("batchwait", Some(text)) => set_duration(draft, &[&path[..], &["limits"]].concat(), "linger", &text, line),
            ("batchsize", Some(text)) => match bytes(&text) {
                Some(size) => draft.set(&[&path[..], &["limits"]].concat(), "max_request", format!("{size}B"), line),
                None => draft.lost(line, "`batchsize` is no size", "set `limits.max_request`"),
            },
            ("timeout", Some(text)) => set_duration(draft, &[&path[..], &["timeouts"]].concat(), "total", &text, line),
            ("backoff_config", _) => draft.note(
                line,
                "`backoff_config` is not needed: what Loki does not take is sent again without end, with growing pauses",
                "",
            ),
            ("external_labels", _) => external_labels(node, draft),
            ("basic_auth", _) => basic_auth(node, &path, &variable, draft),
            ("authorization", _) => {
                let kind = node.text_at("type").unwrap_or("Bearer");
                if kind.eq_ignore_ascii_case("bearer") {
                    token(node, "credentials", &path, &variable, draft);
                } else {
                    draft.lost(line, "`authorization` of another type than Bearer", "set it as a header");
                }
            }
            ("bearer_token" | "bearer_token_file", _) => token(client, "bearer_token", &path, &variable, draft),
            ("tls_config", _) => tls(node, client, &path, draft),
            ("headers", _) => {
                for (header, value) in node.entries() {
                    let name = variable(&format!("HEADER_{}", shouted(header)));
                    let text = draft.secret(value.text().unwrap_or_default(), &name, &format!("header `{header}`"), value.line);
                    draft.set_inner(&path, "headers", header, text, value.line);
                }
            }
            ("proxy_url", Some(text)) => {
                let shown = if text.contains('@') {
                    draft.secret(&text, &variable("PROXY_URL"), "`proxy_url` with its password", line)
                } else {
                    text
                };
                draft.set(&path, "proxy", shown, line);
            }
            ("oauth2", _) => oauth2(node, &path, &variable, draft),
            ("drop_rate_limited_batches", _) => draft.note(line, "what Loki limits is sent again, never dropped", ""),
            ("follow_redirects" | "enable_http2" | "stream_lag_labels", _) => {
                draft.note(line, format!("`{key}` has no counterpart and needs none"), "");
            }
            _ => draft.lost(line, format!("client key `{key}`"), "write it by hand: docs/reference/config.md"),
        }
    }
}

/// A URL without the password in it.
pub(super) fn url(
    draft: &mut Draft,
    path: &[&str],
    key: &str,
    text: &str,
    variable: &dyn Fn(&str) -> String,
    line: usize,
) {
    // A query may hold a token, and what is no URL may hold anything.
    if text.contains(['?', '#']) || text.contains('@') && !text.contains("://") {
        let shown = draft.secret(text, &variable("URL"), "the URL with its query", line);
        draft.set(path, key, shown, line);
        return;
    }
    let authority = text.split_once("://").map(|(scheme, rest)| {
        let end = rest.find('/').unwrap_or(rest.len());
        (scheme, &rest[..end], &rest[end..])
    });
    if let Some((scheme, authority, rest)) = authority
        && let Some((user, host)) = authority.rsplit_once('@')
    {
        let auth = [path, &["auth"]].concat();
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        draft.set(path, key, references(&format!("{scheme}://{host}{rest}")), line);
        draft.set(&auth, "username", references(user), line);
        let shown = draft.secret(password, &variable("PASSWORD"), "the password in the URL", line);
        draft.set(&auth, "password", shown, line);
        return;
    }
    draft.set(path, key, references(text), line);
}

pub(super) fn set_duration(draft: &mut Draft, path: &[&str], key: &str, text: &str, line: usize) {
    match duration(text) {
        Some(duration) => draft.set(path, key, duration, line),
        None => {
            draft.lost(line, format!("`{key}`: not a duration"), format!("set `{}.{key}`", path.join(".")))
        }
    }
}

fn basic_auth(node: &Node, path: &[&str], variable: &dyn Fn(&str) -> String, draft: &mut Draft) {
    let auth = [path, &["auth"]].concat();
    for (key, node) in node.entries() {
        let text = node.text().unwrap_or_default();
        match key.as_str() {
            "username" => draft.set(&auth, "username", references(text), node.line),
            "password" => {
                let shown = draft.secret(text, &variable("PASSWORD"), "`basic_auth.password`", node.line);
                draft.set(&auth, "password", shown, node.line);
            }
            "password_file" => draft.set(&auth, "password_file", references(text), node.line),
            _ => draft.lost(node.line, format!("`basic_auth.{key}`"), "set `auth.username` by hand"),
        }
    }
}

/// A bearer token under `key`, or in a file under `<key>_file`.
fn token(node: &Node, key: &str, path: &[&str], variable: &dyn Fn(&str) -> String, draft: &mut Draft) {
    let auth = [path, &["auth"]].concat();
    if let Some(token) = node.get(key) {
        let text = token.text().unwrap_or_default();
        let shown = draft.secret(text, &variable("TOKEN"), &format!("`{key}`"), token.line);
        draft.set(&auth, "token", shown, token.line);
    }
    if let Some(file) = node.get(&format!("{key}_file")) {
        draft.set(&auth, "token_file", references(file.text().unwrap_or_default()), file.line);
    }
}

fn tls(node: &Node, client: &Node, path: &[&str], draft: &mut Draft) {
    let tls = [path, &["tls"]].concat();
    let credentials =
        ["basic_auth", "bearer_token", "bearer_token_file", "authorization", "headers", "oauth2"];
    for (key, node) in node.entries() {
        let text = references(node.text().unwrap_or_default());
        match key.as_str() {
            "ca_file" | "cert_file" | "key_file" => draft.set(&tls, key, text, node.line),
            "insecure_skip_verify" if !node.is_true() => {}
            "insecure_skip_verify" if credentials.iter().any(|key| client.get(key).is_some()) => draft.lost(
                node.line,
                "`insecure_skip_verify` beside credentials would give them to anybody",
                "name the authority's certificate in `tls.ca_file`",
            ),
            "insecure_skip_verify" => draft.set(&tls, key, true, node.line),
            _ => draft.lost(
                node.line,
                format!("`tls_config.{key}`"),
                "the name in the URL is what is verified",
            ),
        }
    }
}

/// Client credentials, where this release has them.
fn oauth2(node: &Node, path: &[&str], variable: &dyn Fn(&str) -> String, draft: &mut Draft) {
    if !Draft::knows(&["sink", "loki", "main", "auth", "oauth2"]) {
        draft.lost(
            node.line,
            "`oauth2`",
            "put a token in a file that is renewed and name it in `auth.token_file`",
        );
        return;
    }
    let auth = [path, &["auth", "oauth2"]].concat();
    for (key, node) in node.entries() {
        let text = node.text().unwrap_or_default();
        match key.as_str() {
            "client_secret" => {
                let shown =
                    draft.secret(text, &variable("CLIENT_SECRET"), "`oauth2.client_secret`", node.line);
                draft.set(&auth, key, shown, node.line);
            }
            "client_id" | "client_secret_file" | "token_url"
                if Draft::knows(&["sink", "loki", "main", "auth", "oauth2", key]) =>
            {
                draft.set(&auth, key, references(text), node.line);
            }
            "scopes" if Draft::knows(&["sink", "loki", "main", "auth", "oauth2", "scopes"]) => {
                let scopes: Vec<String> =
                    node.items().iter().filter_map(Node::text).map(str::to_owned).collect();
                draft.set(&auth, "scopes", scopes, node.line);
            }
            _ => draft.lost(
                node.line,
                format!("`oauth2.{key}`"),
                "see `auth.oauth2` in docs/reference/config.md",
            ),
        }
    }
}

/// A header's name as part of a variable's.
pub(super) fn shouted(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .take(40)
        .collect()
}

/// Labels that every line gets.
pub(super) fn external_labels(node: &Node, draft: &mut Draft) {
    for (label, node) in node.entries() {
        static_label(label, &references(node.text().unwrap_or_default()), node.line, draft);
    }
}

/// A label with one value for all lines.
pub(super) fn static_label(label: &str, value: &str, line: usize, draft: &mut Draft) {
    match label {
        "cluster" | "cluster_name" | "k8s_cluster" => draft.set(&["agent"], "cluster", value, line),
        "env" | "environment" | "deployment_environment" => draft.set(&["agent"], "environment", value, line),
        "node" | "node_name" | "host" | "hostname" => {
            draft.set(&["agent"], "node", value, line);
        }
        "job" => draft.lost(line, "label `job`", "there is none: select by `service_name`, `namespace` and `cluster`"),
        _ => draft.lost(
            line,
            format!("label `{label}`"),
            "labels are fixed: cluster, namespace, service_name, container, node (and env); use [agent] cluster or environment",
        ),
    }
}

/// One job. `alone`: it is the only one about pods, so that what it leaves out nobody else reads.
fn scrape_config(job: &Node, alone: bool, draft: &mut Draft) {
    let mut scope = Conditions::default();
    let mut lost_labels = BTreeSet::new();
    let is_kubernetes = job.get("kubernetes_sd_configs").is_some();
    for (key, node) in job.entries() {
        let line = node.line;
        match key.as_str() {
            "job_name" | "pipeline_stages" | "encoding" | "decompression" => {}
            "kubernetes_sd_configs" => {
                let other =
                    node.items().iter().any(|sd| sd.text_at("role").is_some_and(|role| role != "pod"));
                if other {
                    draft.lost(
                        line,
                        "discovery of another role than `pod`",
                        "only pods of this node are read",
                    );
                }
            }
            "static_configs" | "file_sd_configs" => static_configs(job, node, draft),
            "relabel_configs" => relabel(node, alone, &mut scope, &mut lost_labels, draft),
            "docker_sd_configs" => draft.lost(line, "`docker_sd_configs`", "only pods and files are read"),
            "journal" | "syslog" | "windows_events" | "gcplog" | "azure_event_hubs" | "kafka"
            | "cloudflare" | "gelf" | "heroku_drain" | "loki_push_api" | "consul_sd_configs" => {
                draft.lost(
                    line,
                    format!("source `{key}`"),
                    "keep another agent for it: pods' logs and files only",
                );
            }
            _ => draft.lost(line, format!("scrape_configs key `{key}`"), "write it by hand"),
        }
    }
    if is_kubernetes && !lost_labels.is_empty() {
        let labels = lost_labels.into_iter().collect::<Vec<_>>().join(", ");
        let line = job.get("relabel_configs").map_or(job.line, |node| node.line);
        draft.lost(
            line,
            format!("labels made by relabelling: {labels}"),
            "labels are fixed; pod labels on the allow-list go out as structured metadata",
        );
    }
    if let Some(node) = job.get("pipeline_stages") {
        let name = job.text_at("job_name").unwrap_or("job");
        stages::translate(node, &scope, name, draft);
    }
}

fn static_configs(job: &Node, node: &Node, draft: &mut Draft) {
    let name = job.text_at("job_name").unwrap_or("files");
    for config in node.items() {
        let Some(labels) = config.get("labels") else {
            draft.lost(config.line, "a target without labels", "name the files in [logs.files]");
            continue;
        };
        let path = labels.text_at("__path__").unwrap_or_default();
        if path.contains("/var/log/pods") || path.contains("/var/log/containers") {
            draft.note(labels.line, "pods' logs are found by themselves", "");
        } else if path.is_empty() {
            draft.lost(config.line, "a target without `__path__`", "name the files in [logs.files]");
        } else if Draft::knows(&["logs", "files", "main", "paths"]) {
            let mut keys = vec![("paths".to_owned(), vec![references(path)].into())];
            let service = ["service_name", "app", "job"].iter().find_map(|label| labels.text_at(label));
            keys.push(("service".to_owned(), service.unwrap_or(name).into()));
            draft.rule(&["logs", "files"], name, keys, config.line, format!("scrape_configs, job {name}"));
        } else {
            draft.lost(labels.line, format!("files of job `{name}`"), "this release reads pods' logs only");
        }
        for (label, node) in labels.entries() {
            if !label.starts_with("__") && !["job", "app", "service_name"].contains(&label.as_str()) {
                static_label(label, &references(node.text().unwrap_or_default()), node.line, draft);
            }
        }
    }
}

/// Relabelling: what it keeps and drops, and which labels it makes.
fn relabel(
    node: &Node,
    alone: bool,
    scope: &mut Conditions,
    lost_labels: &mut BTreeSet<String>,
    draft: &mut Draft,
) {
    for rule in node.items() {
        let sources: Vec<&str> = rule
            .get("source_labels")
            .map(Node::items)
            .unwrap_or_default()
            .iter()
            .filter_map(Node::text)
            .collect();
        let action = rule.text_at("action").unwrap_or("replace").to_ascii_lowercase();
        let expression = rule.text_at("regex").unwrap_or("(.*)");
        let line = rule.line;
        match action.as_str() {
            "keep" | "drop" => keep_or_drop(&action, &sources, expression, line, alone, scope, draft),
            "replace" | "lowercase" | "uppercase" => {
                let target = rule.text_at("target_label").unwrap_or_default();
                if SAME_LABELS.contains(&target) || target.starts_with("__") || target.is_empty() {
                    continue;
                }
                match OTHER_LABELS.iter().find(|(name, _)| *name == target) {
                    Some((_, place)) => draft.note(line, format!("label `{target}` is here {place}"), ""),
                    None => {
                        lost_labels.insert(target.to_owned());
                    }
                }
            }
            "labelmap" => {
                lost_labels.insert(format!("labelmap {expression}"));
            }
            "labeldrop" | "labelkeep" | "hashmod" => {
                draft.note(line, format!("relabelling by `{action}` has no counterpart and needs none"), "");
            }
            _ => draft.lost(line, format!("relabelling by `{action}`"), "write a rule by hand"),
        }
    }
}

fn keep_or_drop(
    action: &str,
    sources: &[&str],
    expression: &str,
    line: usize,
    alone: bool,
    scope: &mut Conditions,
    draft: &mut Draft,
) {
    // What drops pods without a name or label keeps all that have one; several jobs share the pods out like that.
    let empty = expression.trim_matches(['^', '$']).is_empty();
    let anything = matches!(expression.trim_matches(['^', '$', '(', ')']), ".+" | ".*");
    if action == "drop" && empty || action == "keep" && anything || !alone && (empty || anything) {
        draft.note(
            line,
            format!("relabelling: {action} by whether a label is there has no counterpart"),
            "all pods are read",
        );
        return;
    }
    let [source] = sources else {
        draft.lost(
            line,
            format!("relabelling: {action} by several labels"),
            "write [process.drop] rules with namespace, pod, container or service",
        );
        return;
    };
    if source.contains("node_name") || source.contains("host") {
        draft.note(line, "each agent reads the logs of its own node", "");
        return;
    }
    if let Some(annotation) = source.strip_prefix("__meta_kubernetes_pod_annotation_") {
        draft.lost(
            line,
            format!("{action} by the annotation {annotation}"),
            "annotate pods with nodewick.dev/logs: \"off\" (or fluentbit.io/exclude: \"true\")",
        );
        return;
    }
    if ["phase", "ready"].iter().any(|word| source.ends_with(word)) {
        draft.note(
            line,
            format!("{action} by the pod's state is not needed: logs are read to their end"),
            "",
        );
        return;
    }
    let mut kept = Conditions::default();
    let operator = if action == "keep" { "=~" } else { "!~" };
    if !names::matcher(&mut kept, source, operator, expression) {
        let label = source.trim_start_matches("__meta_kubernetes_");
        draft.lost(
            line,
            format!("relabelling: {action} by {label}"),
            "write a [process.drop] rule with namespace, pod, container or service",
        );
        return;
    }
    if !alone {
        let (key, patterns) = kept.keys[0].clone();
        let held = scope.add(key, patterns);
        let what = format!("{action} by {key} in one of several jobs about pods");
        let instead = if held {
            "its stages hold for those pods only; all pods are read: write one [process.drop] rule for what no job reads"
        } else {
            "all pods are read: write [process.drop] rules by hand"
        };
        draft.lost(line, what, instead);
        return;
    }
    // A log that is not wanted is dropped here; the rest of the pipeline holds for what is left.
    let (key, patterns) = kept.keys[0].clone();
    let dropped: Vec<String> = if action == "drop" {
        patterns.iter().map(|name| name.trim_start_matches('!').to_owned()).collect()
    } else {
        patterns.iter().map(|name| format!("!{name}")).collect()
    };
    let mut rule = Conditions::default();
    rule.add(key, dropped);
    let name = format!("{action}_{key}");
    draft.rule(
        &["process", "drop"],
        &name,
        rule.json(),
        line,
        format!("relabel_configs: {action} by {source}"),
    );
    let _ = scope;
}
