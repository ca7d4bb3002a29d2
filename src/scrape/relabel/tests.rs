//! Prometheus' own cases of relabelling, by both faces, and what is ours beside them.
//!
//! Source of the cases: Prometheus, `model/relabel/relabel_test.go`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::data::sample::Page;

fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn rule(action: Action, sources: &[&str]) -> Config {
    let source_labels = sources.iter().map(|name| (*name).to_owned()).collect();
    Config { action, source_labels, ..Config::default() }
}

fn replace(sources: &[&str], regex: &str, target: &str, replacement: &str) -> Config {
    Config {
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        ..rule(Action::Replace, sources)
    }
}

fn choose(action: Action, sources: &[&str], regex: &str) -> Config {
    Config { regex: regex.to_owned(), ..rule(action, sources) }
}

fn onto(action: Action, sources: &[&str], target: &str) -> Config {
    Config { target_label: target.to_owned(), ..rule(action, sources) }
}

/// Relabels; `None` when dropped. Also checks the order that labels come out in.
fn relabelled(labels: &[(&str, &str)], rules: &[Config]) -> Option<BTreeMap<String, String>> {
    let rules = Rules::compile(rules).expect("rules that work");
    let mut page = Page::default();
    page.push_text(b"text that stands before");
    let sorted = map(labels);
    let mut found: Vec<Label> = Vec::new();
    for (name, value) in &sorted {
        let name = page.push_text(name.as_bytes());
        let value = page.push_text(value.as_bytes());
        found.push(Label { name, value });
    }
    if !rules.apply(&mut page.arena, &mut found) {
        return None;
    }
    assert!(page.arena.starts_with(b"text that stands before"));
    let text: Vec<(String, String)> = found
        .iter()
        .map(|label| (page.text(label.name).to_owned(), page.text(label.value).to_owned()))
        .collect();
    assert!(text.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, and no name twice: {text:?}");
    Some(text.into_iter().collect())
}

#[track_caller]
fn gives(labels: &[(&str, &str)], rules: &[Config], expected: &[(&str, &str)]) {
    assert_eq!(relabelled(labels, rules), Some(map(expected)));
}

#[track_caller]
fn adds(labels: &[(&str, &str)], rules: &[Config], added: &[(&str, &str)]) {
    let mut expected = map(labels);
    expected.extend(map(added));
    assert_eq!(relabelled(labels, rules), Some(expected));
}

#[track_caller]
fn drops(labels: &[(&str, &str)], rules: &[Config]) {
    assert_eq!(relabelled(labels, rules), None);
}

const ABC: &[(&str, &str)] = &[("a", "foo"), ("b", "bar"), ("c", "baz")];

#[test]
fn replace_sets_a_label_by_groups() {
    adds(ABC, &[replace(&["a"], "f(.*)", "d", "ch${1}-ch${1}")], &[("d", "choo-choo")]);
    let two = [
        replace(&["a", "b"], "f(.*);(.*)r", "a", "b${1}${2}m"),
        replace(&["c", "a"], "(b).*b(.*)ba(.*)", "d", "$1$2$2$3"),
    ];
    adds(ABC, &two, &[("a", "boobam"), ("d", "boooom")]);
    adds(&[("a", "abc")], &[replace(&["a"], ".*(b).*", "d", "$1")], &[("d", "b")]);
    adds(&[("a", "boo")], &[replace(&["a"], "f", "b", "bar")], &[]);
    adds(&[("a", "line1\nline2")], &[replace(&["a"], "line1.*line2", "d", "match${1}")], &[("d", "match")]);
}

#[test]
fn an_empty_replacement_removes_the_label() {
    gives(&[("a", "foo"), ("f", "baz")], &[replace(&["a"], "(f).*", "$1", "$2")], &[("a", "foo")]);
    gives(ABC, &[replace(&[], "(.*)", "b", "")], &[("a", "foo"), ("c", "baz")]);
    gives(ABC, &[replace(&["missing"], "(.*)", "b", "$1")], &[("a", "foo"), ("c", "baz")]);
}

#[test]
fn a_target_may_be_named_by_a_group() {
    let from = &[("a", "some-name-value")];
    let pattern = "some-([^-]+)-([^,]+)";
    adds(from, &[replace(&["a"], pattern, "${1}", "${2}")], &[("name", "value")]);
    adds(from, &[replace(&["a"], pattern, "${1}", "${3}")], &[]);
    adds(&[("a", "some-name-0")], &[replace(&["a"], pattern, "${3}", "${1}")], &[]);
    let tags = &[("__meta_sd_tags", "path:/secret,job:some-job,label:foo=bar")];
    let rules = [
        replace(&["__meta_sd_tags"], "(?:.+,|^)path:(/[^,]+).*", "__metrics_path__", "${1}"),
        replace(&["__meta_sd_tags"], "(?:.+,|^)job:([^,]+).*", "job", "${1}"),
        replace(&["__meta_sd_tags"], "(?:.+,|^)label:([^=]+)=([^,]+).*", "${1}", "${2}"),
    ];
    adds(tags, &rules, &[("__metrics_path__", "/secret"), ("job", "some-job"), ("foo", "bar")]);
    let lines = &[("a", "line1\nline2")];
    let named = "(line1).*(?<second>line2)";
    let rules = [
        replace(&["a"], named, "label1_${1}", "val_${second}"),
        replace(&["a"], named, "label2_$1", "val_$second"),
    ];
    adds(lines, &rules, &[("label1_line1", "val_line2"), ("label2_line1", "val_line2")]);
    adds(lines, &[replace(&["a"], "line1.*line2", "utf-8.label${1}", "match")], &[("utf-8.label", "match")]);
    adds(&[("utf-8.label", "x")], &[replace(&["utf-8.label"], "x", "d", "y")], &[("d", "y")]);
}

#[test]
fn keep_and_drop_choose_by_the_whole_value() {
    let foo = &[("a", "foo"), ("b", "bar")];
    drops(foo, &[choose(Action::Drop, &["a"], ".*o.*")]);
    drops(foo, &[choose(Action::Drop, &["a"], ".*o.*"), replace(&["a"], "f(.*)", "d", "ch$1")]);
    adds(foo, &[choose(Action::Drop, &["a"], "no-match")], &[]);
    adds(foo, &[choose(Action::Drop, &["a"], "f|o")], &[]);
    drops(foo, &[choose(Action::Keep, &["a"], "no-match")]);
    adds(foo, &[choose(Action::Keep, &["a"], "f.*")], &[]);
    adds(foo, &[choose(Action::Keep, &["a", "b", "c"], "foo;bar;")], &[]);
    drops(foo, &[choose(Action::Drop, &["missing"], "")]);
}

#[test]
fn keepequal_and_dropequal_compare_with_a_label() {
    let ports = &[("__tmp_port", "1234"), ("__port1", "1234"), ("__port2", "5678")];
    adds(ports, &[onto(Action::KeepEqual, &["__tmp_port"], "__port1")], &[]);
    drops(ports, &[onto(Action::DropEqual, &["__tmp_port"], "__port1")]);
    adds(ports, &[onto(Action::DropEqual, &["__tmp_port"], "__port2")], &[]);
    drops(ports, &[onto(Action::KeepEqual, &["__tmp_port"], "__port2")]);
    drops(ports, &[onto(Action::DropEqual, &["missing"], "missing_too")]);
}

#[test]
fn hashmod_shards_as_prometheus_does() {
    let sharded = |sources: &[&str]| Config { modulus: 1000, ..onto(Action::HashMod, sources, "d") };
    adds(ABC, &[sharded(&["c"])], &[("d", "976")]);
    adds(&[("a", "foo\nbar")], &[sharded(&["a"])], &[("d", "734")]);
}

#[test]
fn labelmap_copies_labels_to_new_names() {
    let map_to = |regex: &str, replacement: &str| Config {
        regex: regex.to_owned(),
        replacement: replacement.to_owned(),
        ..rule(Action::LabelMap, &[])
    };
    let labels = &[("a", "foo"), ("b1", "bar"), ("b2", "baz")];
    adds(labels, &[map_to("(b.*)", "bar_${1}")], &[("bar_b1", "bar"), ("bar_b2", "baz")]);
    let meta = &[("a", "foo"), ("__meta_my_bar", "aaa"), ("__meta_my_baz", "bbb"), ("__meta_other", "ccc")];
    adds(meta, &[map_to("__meta_(my.*)", "${1}")], &[("my_bar", "aaa"), ("my_baz", "bbb")]);
    adds(labels, &[map_to("b(.)", "b2")], &[("b2", "baz")]);
    // Values are those of before: two labels change places.
    adds(&[("x1", "one"), ("x2", "two")], &[map_to("x1", "x2")], &[("x2", "one")]);
}

#[test]
fn labeldrop_and_labelkeep_choose_by_name() {
    let labels = &[("a", "foo"), ("b1", "bar"), ("b2", "baz")];
    gives(labels, &[choose(Action::LabelKeep, &[], "(b.*)")], &[("b1", "bar"), ("b2", "baz")]);
    gives(labels, &[choose(Action::LabelDrop, &[], "(b.*)")], &[("a", "foo")]);
    // https://github.com/prometheus/prometheus/issues/12283
    let name = "__meta_kubernetes_pod_container_port_name";
    let port = "__meta_kubernetes_pod_annotation_XXX_metrics_port";
    let rules = [
        choose(Action::LabelDrop, &[], "^__meta_kubernetes_pod_container_port_name$"),
        replace(&[port], "(.+)", name, "metrics"),
        choose(Action::Keep, &[name], "^metrics$"),
    ];
    gives(&[(name, "foo"), (port, "9091")], &rules, &[(port, "9091"), (name, "metrics")]);
}

#[test]
fn cases_are_changed_letter_by_letter() {
    let rules = [
        onto(Action::Uppercase, &["foo"], "foo_uppercase"),
        onto(Action::Lowercase, &["foo"], "foo_lowercase"),
    ];
    adds(&[("foo", "bAr123Foo")], &rules, &[("foo_lowercase", "bar123foo"), ("foo_uppercase", "BAR123FOO")]);
    adds(&[("foo", "Grüße")], &rules, &[("foo_lowercase", "grüße"), ("foo_uppercase", "GRÜßE")]);
    adds(&[("a", "X"), ("b", "Y")], &[onto(Action::Lowercase, &["a", "b"], "b")], &[("b", "x;y")]);
    gives(&[("a", "x")], &[onto(Action::Lowercase, &["missing"], "a")], &[]);
}

#[test]
fn a_metric_may_be_renamed_and_a_rule_may_add_to_its_name() {
    let total = &[("__name__", "http_requests_total"), ("zone", "z")];
    adds(total, &[replace(&["__name__"], ".*_total$", "__type__", "counter")], &[("__type__", "counter")]);
    adds(
        total,
        &[replace(&["__name__"], "http_(.*)", "__name__", "web_$1")],
        &[("__name__", "web_requests_total")],
    );
    drops(total, &[choose(Action::Drop, &["__name__"], "go_.*|http_.*")]);
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let rules = [
        choose(Action::Drop, &["__name__"], "go_.*|process_.*"),
        choose(Action::Keep, &["__name__", "a"], "x;(1|2)"),
        replace(&["a"], "(.*)", "a", "$1"),
        replace(&["a"], "nothing(.*)", "b", "$1"),
        onto(Action::Lowercase, &["a"], "a"),
    ];
    let rules = Rules::compile(&rules).expect("rules");
    let mut arena = b"__name__xa1".to_vec();
    let label = |a, b, c| Label { name: Span::new(a, b), value: Span::new(b, c) };
    let before = vec![label(0, 8, 9), label(9, 10, 11)];
    let mut labels = before.clone();
    assert!(rules.apply(&mut arena, &mut labels));
    assert_eq!((labels, arena.as_slice()), (before, b"__name__xa1".as_slice()));
}

#[test]
fn rules_that_cannot_work_are_told_all_at_once() {
    let wrong = |config: Config| match Rules::compile(&[config]) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|one| format!("{} {}", one.key, one.message)).collect(),
    };
    assert_eq!(wrong(rule(Action::Replace, &["a"])), "target_label replace needs a target_label");
    assert_eq!(wrong(onto(Action::HashMod, &["a"], "d")), "modulus hashmod needs a modulus above 0");
    assert_eq!(wrong(choose(Action::Keep, &["a"], "(")), "regex not a regular expression: unclosed group");
    let named = Config { source_labels: vec!["a".into()], ..choose(Action::LabelDrop, &[], "x") };
    assert_eq!(wrong(named), "source_labels labeldrop does not use source_labels");
    let compared = Config { regex: "x".into(), ..onto(Action::KeepEqual, &["a"], "b") };
    assert_eq!(wrong(compared), "regex keepequal does not use regex");
    let cased = Config { replacement: "x".into(), ..onto(Action::Lowercase, &["a"], "b") };
    assert_eq!(wrong(cased), "replacement lowercase does not use replacement");
    let two =
        Rules::compile(&[rule(Action::Replace, &[]), rule(Action::Keep, &[]), rule(Action::HashMod, &[])]);
    let numbers: Vec<usize> = two.expect_err("two are wrong").iter().map(|one| one.rule).collect();
    assert_eq!(numbers, [1, 3]);
}

fn any_rule() -> impl Strategy<Value = Config> {
    let action = prop::sample::select(vec![
        Action::Replace,
        Action::Keep,
        Action::Drop,
        Action::KeepEqual,
        Action::DropEqual,
        Action::HashMod,
        Action::LabelMap,
        Action::LabelDrop,
        Action::LabelKeep,
        Action::Lowercase,
        Action::Uppercase,
    ]);
    let name = || prop::sample::select(vec!["a", "b", "__name__", "é", "missing", "$1", "x_${2}"]);
    let regex = prop::sample::select(vec!["(.*)", "a.*", ".+b", "(a|b)(.*)", "(é)?.*", "", "[^x]+", ".*"]);
    (action, prop::collection::vec(name(), 0..3), name(), regex, name(), 0_u64..9).prop_map(
        |(action, sources, target, regex, replacement, modulus)| Config {
            modulus,
            regex: regex.to_owned(),
            replacement: replacement.to_owned(),
            ..onto(action, &sources, target)
        },
    )
}

proptest! {
    #[test]
    fn any_rules_leave_labels_sorted_unique_and_whole(
        labels in prop::collection::btree_map("[abé_]{1,3}|__name__", "[abÄ ;]{0,4}", 0..6),
        rules in prop::collection::vec(any_rule(), 0..5),
    ) {
        let working: Vec<Config> = rules.into_iter().filter(|one| Rules::compile(std::slice::from_ref(one)).is_ok()).collect();
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let of_sample = relabelled(&pairs, &working);
        let mut owned = labels.clone();
        let kept = Rules::compile(&working).expect("each works").apply_owned(&mut owned);
        prop_assert_eq!(of_sample, kept.then_some(owned));
    }
}
