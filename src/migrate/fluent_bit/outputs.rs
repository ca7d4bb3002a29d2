//! Fluent Bit's outputs as sinks.

use super::super::classic::{Key, Section};
use super::super::draft::Draft;
use super::super::names;
use super::super::promtail::{bytes, duration, set_duration, shouted, static_label, url};
use super::super::yaml::is_true;
use super::{Whole, is_secret};

pub(super) fn output(section: &Section, number: usize, whole: &Whole<'_>, draft: &mut Draft) {
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
