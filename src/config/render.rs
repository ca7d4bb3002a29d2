//! `config/agent.toml` and the references, rendered from the types and tables that the code uses.
//!
//! In: the schema of [`Config`](super::Config) and the metrics table. Out: text. A test holds the committed files
//! against it; `NODEWICK_RENDER=1` makes the test write them.
//! Invariant: the rendered file loads to exactly the defaults.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::schema::{self, Shape};
use super::tree::push_key;
use crate::metrics::{self, Kind};

/// The sections in the order in which an operator meets them.
pub const SECTIONS: &[&str] = &[
    "agent",
    "logs",
    "record",
    "process",
    "kube",
    "scrape",
    "red",
    "slo",
    "evaluator",
    "alertmanager",
    "host",
    "sink",
    "admin",
    "telemetry",
];

/// A second example of a named table, as short as people write it.
const SHORT_EXAMPLES: &[(&str, &str)] = &[(
    "slo",
    "
# # An objective as short as it can be.
# [slo.checkout-availability]
# match = { namespace = \"shop\", workload = \"checkout\" }
# sli = \"availability\"
# objective = \"99.95%\"
# mode = \"alert\"
",
)];

/// Values and names for the commented examples, by path: what an operator would write there. A path that is not in
/// the schema is never looked up.
const EXAMPLES: &[(&str, &str)] = &[
    ("sink.loki.main.url", "\"http://loki-gateway.loki.svc\""),
    ("sink.remote_write.main.url", "\"http://prometheus.monitoring.svc:9090/api/v1/write\""),
    ("sink.remote_write.main.auth.oauth2.token_url", "\"https://id.example.com/oauth2/token\""),
    ("sink.remote_write.main.auth.oauth2.client_id", "\"nodewick\""),
    ("sink.remote_write.main.auth.oauth2.client_secret_file", "\"/etc/nodewick/secrets/client-secret\""),
    ("alertmanager.main.url", "\"http://alertmanager.monitoring.svc:9093\""),
    ("alertmanager.main.auth.oauth2.token_url", "\"https://id.example.com/oauth2/token\""),
    ("alertmanager.main.auth.oauth2.client_id", "\"nodewick\""),
    ("alertmanager.main.auth.oauth2.client_secret_file", "\"/etc/nodewick/secrets/client-secret\""),
    ("scrape.static.targets", "[\"127.0.0.1:3000\"]"),
    ("scrape.relabel.action", "\"drop\""),
    ("scrape.relabel.source_labels", "[\"__meta_kubernetes_namespace\"]"),
    ("scrape.relabel.regex", "\"kube-system|istio-.*\""),
    ("scrape.metric_relabel.action", "\"drop\""),
    ("scrape.metric_relabel.source_labels", "[\"__name__\"]"),
    ("scrape.metric_relabel.regex", "\"go_gc_.*|nodejs_version_info\""),
    ("sink.otlp.main.endpoint", "\"http://otel-collector.observability.svc:4317\""),
    ("sink.otlp.main.signals", "[\"logs\", \"metrics\"]"),
    ("sink.loki.main.auth.oauth2.token_url", "\"https://id.example.com/oauth2/token\""),
    ("sink.loki.main.auth.oauth2.client_id", "\"nodewick\""),
    ("sink.loki.main.auth.oauth2.client_secret_file", "\"/etc/nodewick/secrets/client-secret\""),
    ("sink.otlp.main.auth.oauth2.token_url", "\"https://id.example.com/oauth2/token\""),
    ("sink.otlp.main.auth.oauth2.client_id", "\"nodewick\""),
    ("sink.otlp.main.auth.oauth2.client_secret_file", "\"/etc/nodewick/secrets/client-secret\""),
    ("process.drop.health.url_path", "[\"/healthz\", \"/livez\", \"/readyz\"]"),
    ("process.sample.debug.level", "\"<= debug\""),
    ("process.sample.debug.keep", "\"10%\""),
    ("process.limit.pods.rate", "\"1000/s\""),
    ("process.limit.pods.key", "\"pod\""),
    ("process.redact.rule.customer.pattern", "'cust-[0-9]{8}'"),
    ("slo.checkout-latency.match.namespace", "\"shop\""),
    ("slo.checkout-latency.match.workload", "\"checkout\""),
    ("slo.checkout-latency.sli", "\"latency\""),
    ("slo.checkout-latency.mode", "\"alert\""),
    ("slo.checkout-latency.objective", "\"99%\""),
    ("slo.checkout-latency.threshold", "\"200ms\""),
    ("logs.files.app.paths", "[\"/var/log/app/*.log\"]"),
    ("logs.files.app.service", "\"checkout\""),
    ("logs.multiline.rule.billing.start", "'^\\d{4}-\\d\\d-'"),
    ("logs.multiline.rule.billing.service", "\"billing-*\""),
];

/// Names of the example tables, by path; `main` elsewhere.
const EXAMPLE_NAMES: &[(&str, &str)] = &[
    ("process.drop", "health"),
    ("process.sample", "debug"),
    ("process.limit", "pods"),
    ("process.redact.rule", "customer"),
    ("slo", "checkout-latency"),
    ("logs.files", "app"),
    ("logs.multiline.rule", "billing"),
];

fn known(table: &[(&str, &'static str)], path: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == path).map(|(_, text)| *text)
}

/// Columns of a rendered comment.
const WIDTH: usize = 100;

/// `config/agent.toml`: every key at its default with its doc comment.
pub fn agent_toml() -> String {
    let mut out = String::from(
        "# nodewick: every key at its default, with what it does and when to change it.\n\
         # Rendered from the code by `make render`; change the code, not this file.\n\
         #\n\
         # Each key can also be given as an environment variable, NODEWICK_<SECTION>_<KEY> (NODEWICK_AGENT_CLUSTER),\n\
         # and with --set section.key=value. A flag wins over the environment, the environment over this file.\n\
         # Strings may refer to ${env:VAR}, ${env:VAR:-default} and ${file:/path}.\n\
         # `nodewick check -c FILE` says what a file comes to and what is wrong with it.\n",
    );
    let root = schema::root();
    for section in SECTIONS {
        let shape = root.key(section).expect("every section is a key of the config");
        write_table(&mut out, section, shape, &shape.doc(), shape.default(), false, 0);
    }
    out
}

/// Writes a table's keys, then the tables in it; all as comments where `example`.
fn write_table(
    out: &mut String,
    path: &str,
    shape: Shape,
    doc: &str,
    default: Option<&Json>,
    example: bool,
    depth: usize,
) {
    if depth > 8 {
        return;
    }
    let mark = if example { "# " } else { "" };
    let keys = ordered(path, shape);
    let mut inner_tables = Vec::new();
    let mut lines = String::new();
    for key in keys {
        let Some(inner) = shape.key(key) else { continue };
        let value = inner
            .default()
            .or_else(|| default.and_then(|value| value.get(key)))
            .filter(|value| !value.is_null());
        if is_section(inner) {
            inner_tables.push((key, inner, value));
            continue;
        }
        comment(&mut lines, &inner.doc(), mark);
        let mut name = String::new();
        push_key(&mut name, key);
        // In an example the value that people must give is worth more than an empty default.
        let example_value = known(EXAMPLES, &format!("{path}.{name}")).filter(|_| example);
        let off = if value.is_none() && example_value.is_none() { "#" } else { "" };
        let shown = example_value.map_or_else(|| literal(value, inner), str::to_owned);
        let _ = writeln!(lines, "{mark}{off}{name} = {shown}");
    }
    let has_keys = !lines.is_empty();
    let lone = depth == 0 && shape.named().is_none() && inner_tables.is_empty();
    if has_keys || example || lone {
        out.push('\n');
        comment(out, doc, mark);
        let _ = writeln!(out, "{mark}[{path}]");
        out.push_str(&lines);
    } else if depth == 0 {
        out.push('\n');
        comment(out, doc, mark);
    }
    if let Some(inner) = shape.named().filter(|inner| inner.is_table()) {
        let doc = if depth == 0 { inner.doc() } else { doc.to_owned() };
        let name = known(EXAMPLE_NAMES, path).unwrap_or("main");
        write_table(out, &format!("{path}.{name}"), inner, &doc, None, true, depth + 1);
        out.push_str(known(SHORT_EXAMPLES, path).unwrap_or_default());
    }
    for (key, inner, value) in inner_tables {
        let mut name = path.to_owned();
        name.push('.');
        push_key(&mut name, key);
        if inner.allows("array") {
            // A list of tables: one element as an example.
            if let Some(item) = inner.items() {
                out.push('\n');
                comment(out, &inner.doc(), "# ");
                let mut block = String::new();
                write_table(&mut block, &name, item, "", None, true, depth + 1);
                out.push_str(
                    block
                        .trim_start_matches('\n')
                        .replace(&format!("[{name}]"), &format!("[[{name}]]"))
                        .as_str(),
                );
            }
            continue;
        }
        // What must be given is part of the example.
        let optional = value.is_none() && inner.named().is_none() && !shape.requires(key);
        if optional && example {
            // It stays out when the example around it is taken.
            let mut block = String::new();
            write_table(&mut block, &name, inner, &inner.doc(), value, true, depth + 1);
            for line in block.lines() {
                let off = line.strip_prefix("# ").filter(|rest| !rest.starts_with('#'));
                let _ = writeln!(out, "{}", off.map_or_else(|| line.to_owned(), |rest| format!("# #{rest}")));
            }
            continue;
        }
        write_table(out, &name, inner, &inner.doc(), value, example || optional, depth + 1);
    }
}

/// True for what is written as a table of its own.
fn is_section(shape: Shape) -> bool {
    if shape.allows("string") {
        return false;
    }
    // A map of plain values (`headers`) is written inline, a list of tables as tables.
    let table = shape.is_table() && shape.named().is_none_or(Shape::is_table);
    table || shape.items().is_some_and(|item| item.is_table() && !item.allows("string"))
}

/// The keys of a section in the order of its struct where that is known; else those that must be given, those with a
/// default, and the rest.
pub(super) fn ordered(path: &str, shape: Shape) -> Vec<&'static str> {
    let mut keys = shape.keys();
    let declared = super::declared_order(path);
    keys.sort_by_key(|key| {
        let position = declared.iter().position(|known| known == key).unwrap_or(usize::MAX);
        let has_default = shape.key(key).is_some_and(|inner| inner.default().is_some());
        (position, !shape.requires(key), !has_default, *key)
    });
    keys
}

fn comment(out: &mut String, doc: &str, mark: &str) {
    for paragraph in doc.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(out, "{mark}# {line}");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            let _ = writeln!(out, "{mark}# {line}");
        }
    }
}

/// A default, or what a value of the type looks like.
fn literal(value: Option<&Json>, shape: Shape) -> String {
    if let Some(value) = value.or_else(|| shape.example()) {
        return toml_value(value);
    }
    if shape.is("Span") {
        return "\"15s\"".to_owned();
    }
    if shape.is("ByteSize") {
        return "\"64MiB\"".to_owned();
    }
    if let Some(choice) = shape.choices().first().filter(|_| !shape.allows("array")) {
        return format!("{choice:?}");
    }
    let plain =
        [("string", "\"\""), ("array", "[]"), ("integer", "0"), ("number", "0.0"), ("boolean", "false")];
    plain.iter().find(|(kind, _)| shape.allows(kind)).map_or("{}", |(_, text)| text).to_owned()
}

/// A JSON value as a TOML value on one line.
pub fn toml_value(value: &Json) -> String {
    match value {
        Json::Null => "\"\"".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => {
            let text = number.to_string();
            if number.is_f64() && !text.contains(['.', 'e']) { format!("{text}.0") } else { text }
        }
        Json::String(text) => toml::Value::String(text.clone()).to_string(),
        Json::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            if map.is_empty() {
                return "{}".to_owned();
            }
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    let mut pair = String::new();
                    push_key(&mut pair, key);
                    pair + " = " + &toml_value(value)
                })
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// `nodewick config init`: a short config to start from, with the sinks that were asked for.
pub fn first_config(cluster: Option<&str>, loki: Option<&str>, otlp: Option<&str>) -> String {
    let text = |value: &str| toml_value(&Json::from(value));
    let mut out = String::from(
        "# nodewick: a config to start from. `nodewick check -c FILE` says what it comes to;\n\
         # every key with its default is in config/agent.toml and docs/reference/config.md.\n\n\
         [agent]\n\
         # Tells this cluster's lines from another one's in the same backend: the label `cluster`.\n",
    );
    let _ = writeln!(out, "cluster = {}", text(cluster.unwrap_or("my-cluster")));
    out.push_str(
        "# The one directory that the agent writes. Keep it on a disk that survives restarts.\n\
         #state_dir = \"/var/lib/nodewick\"\n\n\
         [logs]\n\
         # \"oldest\" sends what is on disk already, \"newest\" begins with what comes from now on.\n\
         start = \"oldest\"\n\n\
         # Drop what nobody reads. Other rules: sample, limit, dedup, redact.\n\
         #[process.drop.health]\n\
         #url_path = [\"/healthz\", \"/livez\", \"/readyz\"]\n\n\
         # Replace tokens, keys, passwords and card numbers before a line leaves the node.\n\
         #[process.redact]\n\
         #builtin = true\n",
    );
    if let Some(url) = loki {
        let _ = write!(
            out,
            "\n[sink.loki.main]\nurl = {}\n# Needed when Loki's `auth_enabled` is on.\n#tenant = \"my-team\"\n\
             # Credentials come from files or the environment, never from here.\n\
             #auth = {{ username = \"nodewick\", password_file = \"/etc/nodewick/secrets/password\" }}\n",
            text(url)
        );
    }
    if let Some(url) = otlp {
        let grpc = url.trim_end_matches('/').ends_with(":4317");
        let protocol = if grpc { "grpc" } else { "http/protobuf" };
        let _ = write!(
            out,
            "\n[sink.otlp.main]\nendpoint = {}\n# \"grpc\" or \"http/protobuf\".\nprotocol = {}\n",
            text(url),
            text(protocol)
        );
    }
    if loki.is_none() && otlp.is_none() {
        out.push_str(
            "\n# Without a sink, lines go to the local store on this node (`nodewick tail` shows them).\n\
             #[sink.loki.main]\n\
             #url = \"http://loki-gateway.loki.svc\"\n",
        );
    }
    out
}

/// `docs/reference/config.md`: a table a section.
pub fn config_reference() -> String {
    let mut out = String::from(
        "<!-- Rendered from the code by `make render`; change the code, not this file. -->\n\
         # Config reference\n\n\
         TOML. A flag (`--set section.key=value`) wins over the environment (`NODEWICK_<SECTION>_<KEY>`, `__` before \
         and after a name: `NODEWICK_SINK__LOKI__MAIN__URL`), the environment over the file, the file over the \
         default. `agent.node` also takes `NODE_NAME` (downward API), else the host name.\n\n\
         Strings may refer to `${env:VAR}`, `${env:VAR:-default}` and `${file:/path}`; `$${env:VAR}` is the literal \
         text. A reference to something unset is an error. Sizes are written `64MiB`, durations `15s`.\n\n\
         `nodewick check -c FILE` prints the resolved config, where each value came from, and the memory bound; a bad \
         config exits 78 with file, line, column and the nearest valid key.\n",
    );
    let root = schema::root();
    for section in SECTIONS {
        let shape = root.key(section).expect("every section is a key of the config");
        reference_table(&mut out, section, shape, &shape.doc(), shape.default(), 0);
    }
    out
}

fn reference_table(
    out: &mut String,
    path: &str,
    shape: Shape,
    doc: &str,
    default: Option<&Json>,
    depth: usize,
) {
    if depth > 8 {
        return;
    }
    // A table of named tables is described together with what the names hold.
    if let Some(inner) = shape.named().filter(|inner| inner.is_table() && shape.keys().is_empty()) {
        reference_table(out, &format!("{path}.<name>"), inner, doc, None, depth + 1);
        return;
    }
    let _ = write!(out, "\n## `[{path}]`\n\n");
    if !doc.is_empty() {
        let _ = writeln!(out, "{}", doc.replace('\n', "\n\n"));
    }
    let mut inner_tables = Vec::new();
    let mut rows = String::new();
    for key in ordered(path, shape) {
        let Some(inner) = shape.key(key) else { continue };
        let value = inner
            .default()
            .or_else(|| default.and_then(|value| value.get(key)))
            .filter(|value| !value.is_null());
        if is_section(inner) {
            inner_tables.push((key, inner, value));
            continue;
        }
        let shown = match value {
            Some(value) => format!("`{}`", toml_value(value)),
            None if shape.requires(key) => "required".to_owned(),
            None => "not set".to_owned(),
        };
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(
            rows,
            "| `{key}` | {} | {} | {} |",
            cell(&inner.type_name()),
            cell(&shown),
            cell(&inner.doc())
        );
    }
    if !rows.is_empty() {
        let _ = write!(out, "\n| key | type | default | what |\n|---|---|---|---|\n{rows}");
    }
    if let Some(inner) = shape.named().filter(|inner| inner.is_table()) {
        reference_table(out, &format!("{path}.<name>"), inner, &inner.doc(), None, depth + 1);
    }
    for (key, inner, value) in inner_tables {
        let shape = if inner.allows("array") { inner.items().unwrap_or(inner) } else { inner };
        reference_table(out, &format!("{path}.{key}"), shape, &inner.doc(), value, depth + 1);
    }
}

/// `docs/reference/metrics.md`: the table of the agent's own metrics.
pub fn metrics_reference() -> String {
    let mut out = String::from(
        "<!-- Rendered from the code by `make render`; change the code, not this file. -->\n\
         # Metrics reference\n\n\
         On `/metrics` of the machines' listener (`[admin] listen`), as Prometheus text or, where asked for, OpenMetrics.\n\n\
         | metric | type | labels | what |\n|---|---|---|---|\n",
    );
    for row in metrics::TABLE {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = row.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "| `{}` | {kind} | {labels} | {} |", row.name, row.help);
    }
    for row in crate::admin::process::ROWS {
        let labels = row.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "| `{}` | {} | {labels} | {} |", row.name, row.kind, row.help);
    }
    out
}
