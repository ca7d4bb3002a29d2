//! The committed config and references equal what the code renders. `NODEWICK_RENDER=1` writes them instead.

use std::path::Path;

use nodewick::config::{Config, Sources, load, render, schema};

fn committed(path: &str, rendered: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("NODEWICK_RENDER").is_some() {
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        std::fs::write(&file, rendered).expect("written");
    }
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == rendered, "{path} differs from its rendering; run `make render` and commit it");
}

#[test]
fn committed_config_equals_its_rendering() {
    committed("config/agent.toml", &render::agent_toml());
}

#[test]
fn committed_config_reference_equals_its_rendering() {
    committed("docs/reference/config.md", &render::config_reference());
}

#[test]
fn committed_metrics_reference_equals_its_rendering() {
    committed("docs/reference/metrics.md", &render::metrics_reference());
}

#[test]
fn committed_annotations_reference_equals_its_rendering() {
    let rendered = nodewick::kube::reference::annotations_reference();
    committed("docs/reference/annotations.md", &rendered);
}

#[test]
fn committed_doctor_reference_equals_its_rendering() {
    committed("docs/reference/doctor.md", &nodewick::doctor::reference());
}

/// The tree of verbs is the program's own; it prints the page itself.
#[test]
fn committed_command_line_reference_equals_its_rendering() {
    let output = assert_cmd::Command::cargo_bin("nodewick")
        .expect("built")
        .args(["man", "--markdown"])
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    committed("docs/reference/cli.md", &String::from_utf8(output.stdout).expect("text"));
}

#[test]
fn committed_runbooks_equal_their_rendering() {
    use nodewick::slo::{config::Defaults, render};
    let files = render::files(&[], &Defaults::default(), &[render::Part::Runbooks]);
    assert_eq!(files.len(), 8);
    for file in files {
        committed(&format!("docs/{}", file.path), &file.text);
    }
}

/// The objectives that `config/agent.toml` has as examples.
fn example() -> Config {
    loaded(&uncommented())
}

/// Every file below `alerts/`, by its path there.
fn alert_files() -> Vec<(String, String)> {
    use nodewick::alerts;
    use nodewick::slo::render::{File, Part, files};
    let config = example();
    let specs = config.slo.specs();
    assert_eq!(specs.len(), 2);
    let parts = [Part::Rules, Part::PrometheusRule, Part::Loki, Part::Tests, Part::Alertmanager];
    let own = [alerts::Part::Rules, alerts::Part::PrometheusRule, alerts::Part::Loki, alerts::Part::Tests];
    let all =
        [files(&specs, &config.slo.defaults, &parts), alerts::files(&config.slo.defaults, &own)].concat();
    all.into_iter().map(|File { path, text }| (path, text)).collect()
}

#[test]
fn committed_alerts_equal_their_rendering() {
    let all = alert_files();
    for (path, text) in &all {
        committed(&format!("alerts/{path}"), text);
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    for place in ["", "rules/", "tests/"] {
        for entry in std::fs::read_dir(directory.join(place)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{place}{}", entry.file_name().to_string_lossy());
            if !name.ends_with(".yaml") || all.iter().any(|(path, _)| *path == name) {
                continue;
            }
            if std::env::var_os("NODEWICK_RENDER").is_some() {
                std::fs::remove_file(entry.path()).expect("removed");
            } else {
                panic!("alerts/{name} is rendered no more; run `make render`");
            }
        }
    }
}

#[test]
fn committed_pages_about_alerts_equal_their_rendering() {
    use nodewick::alerts::{self, Part};
    use nodewick::slo::config::Defaults;
    for file in alerts::files(&Defaults::default(), &[Part::Runbooks]) {
        committed(&format!("docs/{}", file.path), &file.text);
    }
    committed("docs/reference/alerts.md", &alerts::reference());
}

/// The chart and the kustomize component bring the alerts that need no declaration.
#[test]
fn committed_rules_of_the_deployments_equal_their_rendering() {
    let all = alert_files();
    let text = |name: &str| &all.iter().find(|(path, _)| path == name).expect("rendered").1;
    committed("deploy/helm/nodewick/files/rules/agent.yaml", text("nodewick.yaml"));
    committed("deploy/helm/nodewick/files/rules/workloads.yaml", text("workloads.yaml"));
    committed("deploy/kustomize/components/alerts/prometheusrule.yaml", text("nodewick-prometheusrule.yaml"));
}

#[test]
fn committed_dashboards_equal_their_rendering() {
    for file in nodewick::dashboards::files() {
        committed(&format!("dashboards/{}", file.path), &file.text);
        // The chart has a copy: Helm reads files below its own directory only.
        if let Some(name) = file.path.strip_prefix("grafana/") {
            committed(&format!("deploy/helm/nodewick/files/dashboards/{name}"), &file.text);
        }
    }
}

fn loaded(text: &str) -> Config {
    let file = Some(("config/agent.toml".to_owned(), text.to_owned()));
    load(&Sources { file, ..Sources::default() }).unwrap_or_else(|error| panic!("{error}")).config
}

#[test]
fn rendered_config_loads_to_the_defaults() {
    assert_eq!(format!("{:?}", loaded(&render::agent_toml())), format!("{:?}", loaded("")));
}

/// `config/agent.toml` with its examples in force.
fn uncommented() -> String {
    render::agent_toml()
        .lines()
        .skip_while(|line| !line.starts_with('['))
        .filter_map(|line| match line.strip_prefix("# ") {
            // Comments inside an example stay comments; prose outside of one goes.
            Some(inner) if inner.starts_with('#') || inner.starts_with('[') || inner.contains(" = ") => {
                Some(inner)
            }
            Some(_) => None,
            None => Some(line),
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn rendered_examples_are_valid_once_uncommented() {
    let text = uncommented();
    let config = loaded(&text);
    assert!(config.sink.loki.contains_key("main") && config.sink.otlp.contains_key("main"), "{text}");
}

#[test]
fn every_key_has_a_doc_line() {
    for line in render::config_reference().lines().filter(|line| line.starts_with("| `")) {
        assert!(!line.ends_with("|  |"), "no doc comment: {line}");
    }
}

/// Which keys a table of the config may have, as JSON Schema. Values pass: their form is the agent's to check, and any of
/// them may be a reference such as `${env:VAR}`. `null` takes a key of the chart's defaults away.
fn keys_schema(shape: schema::Shape) -> serde_json::Value {
    let keys = |shape: schema::Shape| -> serde_json::Map<String, serde_json::Value> {
        shape
            .keys()
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), keys_schema(shape.key(key)?))))
            .collect()
    };
    if !shape.is_table() {
        return serde_json::json!({"not": {"type": "object"}});
    }
    let others = shape.named().map_or(false.into(), keys_schema);
    serde_json::json!({"type": ["object", "null"], "properties": keys(shape), "additionalProperties": others})
}

#[test]
fn committed_chart_schema_knows_the_keys_of_the_config() {
    let path = "deploy/helm/nodewick/values.schema.json";
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there");
    let mut values: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    values["properties"]["config"] = keys_schema(schema::root());
    values["properties"]["config"]["type"] = "object".into();
    committed(path, &format!("{}\n", serde_json::to_string_pretty(&values).expect("JSON")));
}
