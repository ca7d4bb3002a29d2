//! Where a value comes from: flag over environment over file over default, and what is put into strings.

use nodewick::config::{Config, Loaded, Sources, load};
use nodewick::data::batch::Fields;
use nodewick::data::units::{ByteSize, Span};

fn sources(text: &str, env: &[(&str, &str)], set: &[&str]) -> Sources {
    Sources {
        file: Some(("agent.toml".to_owned(), text.to_owned())),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        set: set.iter().map(|flag| (*flag).to_owned()).collect(),
        host: Some("host-1".to_owned()),
    }
}

fn loaded(text: &str, env: &[(&str, &str)], set: &[&str]) -> Loaded {
    load(&sources(text, env, set)).unwrap_or_else(|error| panic!("{error}"))
}

fn config(text: &str, env: &[(&str, &str)], set: &[&str]) -> Config {
    loaded(text, env, set).config
}

fn refused(text: &str, env: &[(&str, &str)], set: &[&str]) -> String {
    load(&sources(text, env, set)).expect_err("refused").to_string()
}

#[test]
fn nothing_given_is_the_embedded_default() {
    let config = config("", &[], &[]);
    assert_eq!(config.agent.memory, ByteSize::mib(32));
    assert_eq!(config.agent.state_dir.to_str(), Some("/var/lib/nodewick"));
    assert_eq!(config.logs.root.to_str(), Some("/var/log/pods"));
    assert_eq!(config.logs.tick, Span::millis(200));
    assert_eq!(config.record.fields.0, Fields::ALL);
    assert_eq!(config.admin.listen, "0.0.0.0:9464");
    assert_eq!(config.sink.local.keys().collect::<Vec<_>>(), ["default"]);
    assert!(config.sink.loki.is_empty() && config.sink.otlp.is_empty() && config.sink.stdout.is_empty());
}

#[test]
fn a_configured_sink_replaces_the_embedded_one() {
    let config = config("[sink.stdout.out]\n", &[], &[]);
    assert!(config.sink.local.is_empty());
    assert_eq!(config.sink.stdout.len(), 1);
}

#[test]
fn the_contract_of_the_config_shape_loads() {
    let config = config(
        "[agent]\ncluster = \"eu\"\nnode = \"n1\"\nstate_dir = \"/tmp/s\"\n[logs]\nroot = \"/tmp/pods\"\n[record]\n\
         fields = [\"level\", \"trace_id\", \"span_id\"]\n[sink.loki.main]\nurl = \"http://127.0.0.1:3100\"\n\
         tenant = \"t\"\n[sink.otlp.a]\nendpoint = \"http://127.0.0.1:4317\"\nprotocol = \"grpc\"\n[sink.otlp.b]\n\
         endpoint = \"http://127.0.0.1:4318\"\nprotocol = \"http/protobuf\"\n[sink.stdout.main]\n[sink.local.main]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n",
        &[],
        &[],
    );
    assert_eq!((config.agent.cluster.as_str(), config.agent.node.as_str()), ("eu", "n1"));
    assert_eq!(config.record.fields.0, Fields::LEVEL.with(Fields::TRACE_ID).with(Fields::SPAN_ID));
    assert_eq!(config.sink.loki["main"].url, "http://127.0.0.1:3100");
    assert_eq!(config.sink.otlp.len(), 2);
    assert_eq!((config.sink.stdout.len(), config.sink.local.len()), (1, 1), "names may repeat across kinds");
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let file = "[agent]\ncluster = \"file\"\n";
    let env = [("NODEWICK_AGENT_CLUSTER", "env")];
    assert_eq!(config(file, &[], &[]).agent.cluster, "file");
    assert_eq!(config(file, &env, &[]).agent.cluster, "env");
    assert_eq!(config(file, &env, &["agent.cluster=flag"]).agent.cluster, "flag");
    assert_eq!(config("", &env, &[]).agent.cluster, "env");
}

#[test]
fn variables_name_nested_and_listed_keys() {
    let config = config(
        "",
        &[
            ("NODEWICK_AGENT_STATE_DIR", "/tmp/state"),
            ("NODEWICK_AGENT_MEMORY", "16MiB"),
            ("NODEWICK_LOGS__EXCLUDE_SELF", "false"),
            ("NODEWICK_RECORD_FIELDS", "level, trace_id"),
            ("NODEWICK_SINK__LOKI__MY_LOKI__URL", "http://a:3100"),
            ("NODEWICK_SINK_LOKI_MAIN_URL", "http://b:3100"),
        ],
        &[],
    );
    assert_eq!(config.agent.state_dir.to_str(), Some("/tmp/state"));
    assert_eq!(config.agent.memory, ByteSize::mib(16));
    assert!(!config.logs.exclude_self);
    assert_eq!(config.record.fields.0, Fields::LEVEL.with(Fields::TRACE_ID));
    assert_eq!(config.sink.loki["my_loki"].url, "http://a:3100");
    assert_eq!(config.sink.loki["main"].url, "http://b:3100");
}

#[test]
fn a_misspelt_variable_of_a_known_section_is_refused() {
    assert_eq!(
        refused("", &[("NODEWICK_AGENT_CLUSTR", "x")], &[]),
        "NODEWICK_AGENT_CLUSTR: error: [agent] has no such key\n  = did you mean NODEWICK_AGENT_CLUSTER?"
    );
    assert_eq!(
        refused("", &[("NODEWICK_LOGS_TICK", "15")], &[]),
        "NODEWICK_LOGS_TICK: error: logs.tick: \"15\" is not a duration; write it like 15s"
    );
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_no_keys() {
    let env = [
        ("NODEWICK_SERVICE_HOST", "10.0.0.1"),
        ("NODEWICK_SERVICE_PORT_METRICS", "9464"),
        ("NODEWICK_PORT", "tcp://10.0.0.1:9464"),
        ("NODEWICK_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("NODEWICK_AGENT_SERVICE_HOST", "10.0.0.1"),
        ("NODEWICK_AGENT_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
        ("NODEWICK_AGENT_PORT", "tcp://10.0.0.1:9464"),
        ("NODEWICK_LOG", "debug"),
        ("PATH", "/bin"),
    ];
    assert_eq!(loaded("", &env, &[]).warnings, []);
}

#[test]
fn a_variable_of_no_section_warns() {
    let warnings = loaded("", &[("NODEWICK_AGNT_CLUSTER", "x")], &[]).warnings;
    assert_eq!(
        warnings[0].to_string(),
        "NODEWICK_AGNT_CLUSTER: warning: no key answers to this variable; ignored\n  = did you mean NODEWICK_AGENT_…?"
    );
}

#[test]
fn a_misspelt_flag_is_refused() {
    assert_eq!(
        refused("", &[], &["agent.clustr=x"]),
        "--set agent.clustr: error: unknown key\n  = did you mean agent.cluster?"
    );
    assert!(refused("", &[], &["agent.cluster"]).contains("needs a value"));
}

#[test]
fn the_node_is_named_by_config_then_downward_api_then_host() {
    let downward = [("NODE_NAME", "node-7")];
    assert_eq!(config("[agent]\nnode = \"mine\"", &downward, &[]).agent.node, "mine");
    assert_eq!(config("[agent]\nnode = \"\"", &downward, &[]).agent.node, "node-7");
    assert_eq!(config("", &[], &[]).agent.node, "host-1");
}

#[test]
fn references_are_replaced_after_parsing_and_take_the_keys_type() {
    let env = [("TRICK", "x\"\n[sink.loki.evil]\nurl = \"http://evil"), ("SELF", "false"), ("TICK", "2s")];
    let config = config(
        "[agent]\ncluster = \"${env:TRICK}\"\n[logs]\nexclude_self = \"${env:SELF}\"\ntick = \"${env:TICK:-1s}\"\n\
         rescan = \"${env:RESCAN:-20s}\"\n",
        &env,
        &[],
    );
    assert_eq!(config.agent.cluster, "x\"\n[sink.loki.evil]\nurl = \"http://evil");
    assert!(config.sink.loki.is_empty() && !config.logs.exclude_self);
    assert_eq!((config.logs.tick, config.logs.rescan), (Span::secs(2), Span::secs(20)));
}

#[test]
fn references_to_files_are_replaced_and_never_shown() {
    let secret = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(secret.path(), "https://u:hunter2@loki:3100\n").expect("written");
    let text = format!(
        "[agent]\ncluster = \"c\"\n[sink.loki.main]\nurl = \"${{file:{}}}\"\n",
        secret.path().display()
    );
    let loaded = loaded(&text, &[], &[]);
    assert_eq!(loaded.config.sink.loki["main"].url, "https://u:hunter2@loki:3100");
    let shown = format!("{:?}", loaded.resolved());
    assert!(!shown.contains("hunter2") && shown.contains("<redacted>"), "{shown}");
}

#[test]
fn every_value_but_a_default_tells_its_origin() {
    let loaded = loaded(
        "[agent]\ncluster = \"${env:C}\"\nmemory = \"32MiB\"\n[logs]\ntick = \"1s\"\n",
        &[("C", "eu"), ("NODEWICK_LOGS_ROOT", "/tmp/pods")],
        &["admin.listen=off"],
    );
    let settings = loaded.resolved();
    let origin = |table: &str, key: &str| {
        settings.iter().find(|s| s.table == table && s.key == key).expect("shown").origin.clone()
    };
    assert_eq!(origin("agent", "cluster").as_deref(), Some("agent.toml:2, env:C"));
    assert_eq!(origin("agent", "memory"), None, "equal to the default");
    assert_eq!(origin("agent", "node").as_deref(), Some("host name"));
    assert_eq!(origin("logs", "tick").as_deref(), Some("agent.toml:5"));
    assert_eq!(origin("logs", "root").as_deref(), Some("env NODEWICK_LOGS_ROOT"));
    assert_eq!(origin("admin", "listen").as_deref(), Some("--set admin.listen"));
}

#[test]
fn a_backend_without_a_cluster_name_warns() {
    let warnings = loaded("[sink.loki.main]\nurl = \"http://loki:3100\"\n", &[], &[]).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].key, "agent.cluster");
    assert_eq!(loaded("", &[], &[]).warnings, [], "the local store needs none");
}

#[test]
fn samples_of_an_unnamed_cluster_and_samples_that_nobody_receives_warn() {
    let sink = "[sink.remote_write.main]\nurl = \"http://prometheus:9090/api/v1/write\"\n";
    let only_metrics = "[sink.otlp.main]\nendpoint = \"http://otel:4317\"\nsignals = [\"metrics\"]\n";
    for text in [sink, only_metrics] {
        let warnings = loaded(text, &[], &[]).warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].key, "agent.cluster");
        assert!(warnings[0].message.contains("series of several clusters"), "{warnings:?}");
    }
    let off = "[agent]\ncluster = \"a\"\n[admin]\nworkloads = \"off\"\n";
    let warnings = loaded(off, &[], &[]).warnings;
    assert_eq!(warnings.iter().map(|warning| warning.key.as_str()).collect::<Vec<_>>(), ["admin.workloads"]);
    assert!(warnings[0].message.contains("nothing receives the samples"), "{warnings:?}");
    for quiet in [format!("{off}{sink}"), format!("{off}[scrape]\nmode = \"off\"\n")] {
        assert_eq!(loaded(&quiet, &[], &[]).warnings, []);
    }
}

#[test]
fn the_memory_bound_of_the_shipped_default_is_at_most_120_mib() {
    let bound = config("", &[], &[]).memory_bound();
    assert!(bound.total() <= 120 << 20, "{bound}");
    assert!(bound.terms.iter().any(|(name, bytes)| name.contains("[agent] memory") && *bytes == 32 << 20));
    // In a cluster, where pods are watched and scraped, the log memory gives way to the chart's limit, with samples sent too.
    let watched = "[kube]\nmode = \"api\"\n[sink.loki.main]\nurl = \"http://loki:3100\"\n";
    let bound_of = |text: &str| config(text, &[], &[]).memory_bound();
    let fitted = |text: &str| {
        let mut config = config(text, &[], &[]);
        config.fit(Some(128 << 20));
        config.memory_bound()
    };
    assert!(fitted(watched).total() <= 128 << 20, "{}", fitted(watched));
    let sent = format!("{watched}[sink.remote_write.main]\nurl = \"http://prometheus:9090/api/v1/write\"\n");
    assert!(fitted(&sent).total() <= 128 << 20, "{}", fitted(&sent));
    let off = bound_of("[scrape]\nmode = \"off\"\n[red]\nenabled = false\n[admin]\nworkloads = \"off\"\n");
    assert!(off.terms.iter().all(|(name, _)| !name.contains("scrape") && !name.contains("page")), "{off}");
    let more = config("[agent]\nmemory = \"64MiB\"", &[], &[]).memory_bound();
    assert_eq!(more.total() - bound.total(), 32 << 20);
}
