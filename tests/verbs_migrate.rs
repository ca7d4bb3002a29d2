//! `nodewick migrate`: what another agent's config becomes, what is told of the rest, and what never leaves it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodewick::config::{self, Sources};
use nodewick::migrate::{self, Kind, Migration};
use proptest::prelude::*;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/migrate").join(name)
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(corpus(name)).expect("a sample")
}

fn promtail(text: &str) -> Migration {
    migrate::promtail("p.yaml", text).expect("readable")
}

fn fluent_bit(text: &str) -> Migration {
    migrate::fluent_bit("f.conf", text).expect("readable")
}

/// The translated config, loaded; a reference to the environment finds something.
fn load(done: &Migration) -> config::Loaded {
    let mut env = Vec::new();
    for (at, _) in done.toml.match_indices("${env:") {
        let rest = &done.toml[at + 6..];
        let end = rest.find([':', '}']).expect("a reference ends");
        let value = match &rest[..end] {
            name if name.ends_with("URL") => "https://set",
            name if name.ends_with("PORT") => "80",
            _ => "set",
        };
        env.push((rest[..end].to_owned(), value.to_owned()));
    }
    let file = Some(("agent.toml".to_owned(), done.toml.clone()));
    config::load(&Sources { file, env, ..Sources::default() })
        .unwrap_or_else(|bad| panic!("{bad}\n{}", done.toml))
}

/// A table of the output as it is written, without comments.
fn table(done: &Migration, name: &str) -> String {
    let from =
        done.toml.find(&format!("[{name}]\n")).unwrap_or_else(|| panic!("no [{name}] in\n{}", done.toml));
    done.toml[from..].lines().skip(1).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Lines of what was not translated, with the beginning of each remark.
fn lost(done: &Migration) -> Vec<(usize, String)> {
    let lost = done.remarks.iter().filter(|remark| remark.kind == Kind::Lost);
    lost.map(|remark| (remark.line, remark.what.clone())).collect()
}

#[test]
fn a_promtail_config_of_the_helm_chart_becomes_rules_and_a_sink() {
    let done = promtail(&sample("promtail-helm.yaml"));
    load(&done);
    assert_eq!(table(&done, "agent"), "cluster = \"prod-eu\"");
    assert_eq!(table(&done, "process.drop.probes"), "service = \"checkout\"\ncontains = \"GET /healthz\"");
    assert_eq!(table(&done, "process.drop.drop_namespace"), "namespace = [\"kube-system\", \"monitoring\"]");
    assert_eq!(
        table(&done, "process.drop.kubernetes-pods"),
        "namespace = \"billing\"\nregex = \"(?i)heartbeat\""
    );
    assert_eq!(table(&done, "process.drop.kubernetes-pods_2"), "level = \"debug\"");
    assert_eq!(
        table(&done, "logs.multiline.rule.kubernetes-pods"),
        "start = '^\\d{4}-\\d{2}-\\d{2}'\nnamespace = \"billing\""
    );
    assert_eq!(table(&done, "logs.multiline"), "max_wait = \"3000ms\"");
    assert_eq!(table(&done, "process.limit.kubernetes-pods"), "rate = \"500/s\"\nkey = \"namespace\"");
    assert_eq!(
        table(&done, "process.redact.rule.kubernetes-pods"),
        "pattern = '(?P<keep0>password=)(?:\\S+)'\nreplace = \"${keep0}****\""
    );
    assert_eq!(
        table(&done, "sink.loki.main"),
        "url = \"https://loki-gateway.example.org/loki/api/v1/push\"\ntenant = \"shop\""
    );
    assert_eq!(
        table(&done, "sink.loki.main.auth"),
        "username = \"promtail\"\npassword = \"${env:LOKI_PASSWORD}\""
    );
    assert_eq!(table(&done, "sink.loki.main.limits"), "linger = \"2000ms\"\nmax_request = \"524288B\"");
    assert_eq!(table(&done, "sink.loki.main.timeouts"), "total = \"90000ms\"");
    assert_eq!(
        lost(&done),
        [
            (49, "`labels`: msg".to_owned()),
            (60, "`template`: lines and labels are not rewritten".to_owned()),
            (65, "labels made by relabelling: job".to_owned()),
        ]
    );
}

#[test]
fn a_promtail_config_with_a_counterpart_for_all_of_it_is_complete() {
    let done = promtail(&sample("promtail-plain.yaml"));
    load(&done);
    assert_eq!(lost(&done), []);
    assert_eq!(table(&done, "agent"), "cluster = \"${env:CLUSTER:-dev}\"");
    assert_eq!(
        table(&done, "sink.loki.main"),
        "url = \"https://logs.example.org/loki/api/v1/push\"\ntenant = \"${env:TENANT}\""
    );
    assert_eq!(table(&done, "process.sample.pods"), "keep = \"25%\"\nkeep_errors = false");
}

#[test]
fn a_config_map_is_read_and_lines_are_those_of_the_outer_file() {
    let done = promtail(&sample("promtail-configmap.yaml"));
    load(&done);
    assert_eq!(table(&done, "sink.loki.main"), "url = \"http://loki:3100/loki/api/v1/push\"");
    assert_eq!(lost(&done), [(14, "`output`: lines are sent as the container wrote them".to_owned())]);
    let done = fluent_bit(&sample("fluent-bit-configmap.yaml"));
    load(&done);
    assert_eq!(table(&done, "sink.loki.main"), "url = \"http://loki:3100\"");
    assert_eq!(table(&done, "logs.multiline.rule.app"), "start = '^\\d{4}-\\d{2}'");
    assert_eq!(lost(&done), []);
}

#[test]
fn a_classic_fluent_bit_config_becomes_rules_and_a_sink() {
    let done = fluent_bit(&sample("fluent-bit.conf"));
    load(&done);
    assert_eq!(table(&done, "agent"), "cluster = \"prod-eu\"\nnode = \"${env:HOSTNAME}\"");
    assert_eq!(table(&done, "telemetry"), "log = \"warn\"");
    assert_eq!(table(&done, "process.drop.exclude_namespace"), "namespace = \"kube-system\"");
    assert_eq!(table(&done, "process.drop.exclude_pod"), "pod = \"fluent-bit*\"");
    assert_eq!(table(&done, "process.drop.grep_regex"), "regex = \"GET /healthz\"");
    assert_eq!(table(&done, "process.drop.grep_container"), "container = \"istio-proxy\"");
    assert_eq!(table(&done, "process.limit.throttle"), "rate = \"800/s\"\nkey = \"node\"");
    assert_eq!(table(&done, "sink.loki.main"), "url = \"https://${env:LOKI_HOST}:3100\"\ntenant = \"shop\"");
    assert_eq!(
        table(&done, "sink.loki.main.auth"),
        "username = \"shipper\"\npassword = \"${env:LOKI_PASSWORD}\""
    );
    assert_eq!(
        lost(&done),
        [
            (51, "filter `lua`".to_owned()),
            (66, "label `job`".to_owned()),
            (67, "all pod labels as stream labels".to_owned()),
            (71, "output `es`".to_owned()),
        ]
    );
}

#[test]
fn the_yaml_form_of_fluent_bit_is_read_alike() {
    let done = fluent_bit(&sample("fluent-bit.yaml"));
    load(&done);
    assert_eq!(lost(&done), []);
    assert_eq!(table(&done, "process.drop.grep_level"), "level = [\"debug\", \"trace\"]");
    assert_eq!(table(&done, "process.drop.grep_namespace"), "namespace = \"kube-*\"");
    assert_eq!(
        table(&done, "sink.otlp.main"),
        "endpoint = \"https://otel-collector.observability.svc:4318\"\nprotocol = \"http/protobuf\"\n\
         headers = { X-Api-Key = \"${env:OTLP_HEADER_X_API_KEY}\" }"
    );
    assert_eq!(table(&done, "sink.stdout.main_2"), "");
}

#[test]
fn no_secret_of_the_input_is_in_what_comes_out() {
    for name in ["promtail-helm.yaml", "fluent-bit.conf", "fluent-bit.yaml"] {
        let text = sample(name);
        assert!(text.contains("hunter2-canary"), "{name}");
        let done = if name.starts_with('p') { promtail(&text) } else { fluent_bit(&text) };
        assert!(!done.toml.contains("hunter2"), "{}", done.toml);
        assert!(!done.to_string().contains("hunter2"), "{done}");
    }
    let odd = "clients:\n  - url: http://u:hunter2@loki/push\n    bearer_token: hunter2\n    oauth2: {client_secret: hunter2}\n    \
               headers: {X-Key: hunter2}\n    proxy_url: http://u:hunter2@proxy\n    authorization: {credentials: hunter2}\n    \
               tls_config: {secret: hunter2}\n    whatever: hunter2\n  - url: http://loki/push?token=hunter2\n";
    let done = promtail(odd);
    assert!(!done.toml.contains("hunter2") && !done.to_string().contains("hunter2"), "{}\n{done}", done.toml);
    let odd = "@SET API_TOKEN=hunter2\n[OUTPUT]\n name loki\n host l\n header X-A hunter2\n bearer_token ${API_TOKEN}\n\
               [OUTPUT]\n name loki\n url http://a:hunter2@b/x\n labels api_key=hunter2, b=c\n\
               [FILTER]\n name modify\n match *\n add api_key hunter2\n[OUTPUT]\n name es\n http_passwd hunter2\n";
    let done = fluent_bit(odd);
    assert!(!done.toml.contains("hunter2") && !done.to_string().contains("hunter2"), "{}\n{done}", done.toml);
}

#[test]
fn several_jobs_that_keep_different_pods_do_not_drop_each_others() {
    let job = |name: &str| {
        format!(
            "  - job_name: {name}\n    kubernetes_sd_configs: [{{role: pod}}]\n    relabel_configs:\n      \
             - {{source_labels: [__meta_kubernetes_namespace], action: keep, regex: {name}}}\n    \
             pipeline_stages: [{{drop: {{expression: noise}}}}]\n"
        )
    };
    let text = format!("clients: [{{url: http://l}}]\nscrape_configs:\n{}{}", job("a"), job("b"));
    let done = promtail(&text);
    load(&done);
    assert_eq!(table(&done, "process.drop.a"), "namespace = \"a\"\nregex = \"noise\"");
    assert_eq!(table(&done, "process.drop.b"), "namespace = \"b\"\nregex = \"noise\"");
    assert!(!done.toml.contains("!a"), "{}", done.toml);
    assert_eq!(lost(&done).len(), 2, "{done}");
}

#[test]
fn credentials_that_would_travel_in_clear_text_are_left_out_and_told() {
    let done = promtail(
        "clients:\n  - url: http://loki/loki/api/v1/push\n    tenant_id: a\n    basic_auth: {username: u, password: p}\n\
         scrape_configs: []\n",
    );
    load(&done);
    assert_eq!(table(&done, "sink.loki.main"), "url = \"http://loki/loki/api/v1/push\"\ntenant = \"a\"");
    assert!(!done.toml.contains("auth"), "{}", done.toml);
    let [(4, what)] = &lost(&done)[..] else { panic!("{done}") };
    assert!(what.starts_with("[sink.loki.main.auth]: credentials for http://loki/"), "{what}");
    let done = fluent_bit("[OUTPUT]\n name opentelemetry\n host o\n header X-Key abc\n");
    load(&done);
    assert_eq!(table(&done, "sink.otlp.main"), "endpoint = \"http://o:4318\"\nprotocol = \"http/protobuf\"");
    let [(1, what)] = &lost(&done)[..] else { panic!("{done}") };
    assert!(what.starts_with("[sink.otlp.main] headers: credentials for http://o:4318/"), "{what}");
}

#[test]
fn values_of_the_helm_charts_are_read_as_what_the_charts_make_of_them() {
    let done = promtail(
        "config:\n  clients:\n    - url: http://loki/loki/api/v1/push\n  snippets:\n    pipelineStages:\n      \
         - cri: {}\n      - drop: {expression: noise}\n    extraScrapeConfigs: |\n      - job_name: x\n",
    );
    load(&done);
    assert_eq!(table(&done, "sink.loki.main"), "url = \"http://loki/loki/api/v1/push\"");
    assert_eq!(table(&done, "process.drop.kubernetes-pods"), "regex = \"noise\"");
    assert_eq!(lost(&done), [(8, "`config.snippets.extraScrapeConfigs`".to_owned())]);
    let done = fluent_bit(
        "config:\n  inputs: |\n    [INPUT]\n        Name tail\n        Path /var/log/containers/*.log\n  outputs: |\n    \
         [OUTPUT]\n        Name es\n",
    );
    load(&done);
    assert_eq!(lost(&done), [(7, "output `es`".to_owned())]);
}

#[test]
fn jobs_that_share_the_pods_out_by_a_label_read_all_of_them() {
    let job = |name: &str, drop: &str| {
        format!(
            "  - job_name: {name}\n    kubernetes_sd_configs: [{{role: pod}}]\n    relabel_configs:\n      \
             - {{source_labels: [__meta_kubernetes_pod_label_name], action: drop, regex: '{drop}'}}\n"
        )
    };
    let text = format!("clients: [{{url: http://l}}]\nscrape_configs:\n{}{}", job("a", "^$"), job("b", ".+"));
    let done = promtail(&text);
    load(&done);
    assert_eq!(lost(&done), []);
    assert!(!done.toml.contains("drop"), "{}", done.toml);
}

#[test]
fn a_yaml_bomb_is_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let one = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![one; 10].join(",")));
    }
    assert!(migrate::promtail("b.yaml", &bomb).is_err());
    assert!(migrate::fluent_bit("b.yaml", &bomb).is_err());
    let deep = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(migrate::promtail("d.yaml", &deep).is_err());
    let wide = format!("a: [{}]", "1,".repeat(200_000));
    assert!(migrate::promtail("w.yaml", &wide).is_err());
}

fn nodewick() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command.env_clear().timeout(Duration::from_secs(60));
    command
}

#[test]
fn the_exit_code_says_whether_something_was_left_out() {
    for (verb, name, code) in [
        ("promtail", "promtail-plain.yaml", 0),
        ("promtail", "promtail-helm.yaml", 3),
        ("fluent-bit", "fluent-bit.yaml", 0),
        ("fluent-bit", "fluent-bit.conf", 3),
    ] {
        let output = nodewick().args(["migrate", verb]).arg(corpus(name)).output().expect("runs");
        assert_eq!(output.status.code(), Some(code), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.starts_with(b"# Translated from"), "{name}");
    }
}

#[test]
fn the_report_names_the_line_and_what_to_do_instead() {
    let output = nodewick()
        .args(["migrate", "promtail", "-"])
        .write_stdin(sample("promtail-configmap.yaml"))
        .output()
        .expect("runs");
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "<stdin>:14: not translated: `output`: lines are sent as the container wrote them\n  \
                    = show one field in Grafana with `| json | line_format \"{{.message}}\"`\n\
                    1 part was not translated\n";
    assert!(report.ends_with(expected), "{report}");
}

#[test]
fn what_cannot_be_read_exits_78_with_line_and_column() {
    for (verb, text, place) in [
        ("promtail", "clients:\n  - url: \"x\n", ":"),
        ("promtail", "just text\n", ":1:1: error: not a config"),
        ("fluent-bit", "[INPUT\n  Name tail\n", ":1:1: error: a section without its closing bracket"),
        ("fluent-bit", "# c\n[INPUT]\n@SET a=b\n  Name tail\n", ":4:3: error: a key outside of any section"),
        ("fluent-bit", "a: b\n", ":1:1: error: not a Fluent Bit config"),
    ] {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let output = nodewick().args(["migrate", verb]).arg(file.path()).output().expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{text:?}: {error}");
        assert!(output.stdout.is_empty(), "{text:?}");
        assert!(error.contains(&format!("{}{place}", file.path().display())), "{text:?}: {error}");
    }
    let output = nodewick().args(["migrate", "promtail", "/nonexistent.yaml"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(78));
}

/// Some bytes of a sample replaced, removed or doubled.
fn mutated(text: &str, edits: &[(usize, u8, String)]) -> String {
    let mut text = text.to_owned();
    for (place, what, new) in edits {
        let mut at = place % (text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let mut end = (at + usize::from(*what) % 40).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        match what % 3 {
            0 => text.insert_str(at, new),
            1 => text.replace_range(at..end, new),
            _ => {
                let part = text[at..end].to_owned();
                text.insert_str(at, &part);
            }
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_input_nothing_panics_and_what_comes_out_loads(
        which in 0..6_usize,
        edits in prop::collection::vec(
            (any::<usize>(), any::<u8>(), "[\\PC\n :\\-\\[\\]{}|^$().*\"'\\\\@#]{0,12}"), 1..6),
    ) {
        let names = [
            "promtail-helm.yaml", "promtail-plain.yaml", "promtail-configmap.yaml", "fluent-bit.conf", "fluent-bit.yaml",
            "fluent-bit-configmap.yaml",
        ];
        let text = mutated(&sample(names[which]), &edits);
        for read in [migrate::promtail, migrate::fluent_bit] {
            if let Ok(done) = read("x", &text) {
                load(&done);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(?s).{0,300}") {
        let _ = migrate::promtail("x", &text);
        let _ = migrate::fluent_bit("x", &text);
    }
}
