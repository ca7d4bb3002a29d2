//! What a running agent answers to who asks it about lines.

use super::explain::answer;
use super::{MAX_ASKED_RECORDS, Who};
use crate::config::{Config, Sources};
use crate::metrics;

fn config(toml: &str) -> Config {
    let sources = Sources { file: Some(("agent.toml".into(), toml.into())), ..Sources::default() };
    crate::config::load(&sources).expect("a config").config
}

fn asked(config: &Config, who: &Who, input: &str) -> serde_json::Value {
    let answer = answer(config, who, input.as_bytes(), 1_795_354_930_000_000_000).expect("an answer");
    serde_json::from_str(&answer).expect("JSON")
}

#[test]
fn an_agent_that_explains_lines_counts_none_of_them() {
    let config = config(
        "[process.drop.only_explained]\ncontains = \"gone\"\n[process.redact.rule.only_explained]\npattern = 'x+'\n",
    );
    let dropped = metrics::RECORDS_DROPPED.with_label_values(&["drop", "only_explained"]);
    let redacted = metrics::REDACTIONS.with_label_values(&["only_explained"]);
    let told = asked(&config, &Who::default(), "gone\nxxx\n");
    assert_eq!(told["records"][0]["dropped_by"], "drop.only_explained");
    assert_eq!(told["records"][1]["process"][1]["verdict"], "redacted");
    assert_eq!((dropped.get(), redacted.get()), (0, 0));
}

#[test]
fn an_answer_has_an_end_and_says_what_it_leaves_out() {
    let told = asked(&Config::default(), &Who::default(), &"\n".repeat(100_000));
    assert_eq!(told["records"].as_array().map(Vec::len), Some(MAX_ASKED_RECORDS));
    assert_eq!(told["bytes_left_out"], 100_000 - 65_536);
    assert_eq!(told["records_left_out"], 65_536 - 50);
}

#[test]
fn an_answer_names_annotations_that_are_wrong() {
    let annotations = vec![("nodewick.dev/sampel".to_owned(), "1".to_owned())];
    let told = asked(&Config::default(), &Who { annotations, ..Who::default() }, "x\n");
    assert_eq!(told["problems"][0]["annotation"], "nodewick.dev/sampel");
    assert!(told["problems"][0]["fix"].as_str().is_some_and(|fix| !fix.is_empty()));
}
