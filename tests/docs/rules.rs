//! The rules of tests/docs.rs on small examples: each finds what is wrong, and leaves alone what is right.

use super::names::{routes, unknown_families, unknown_keys, unknown_variables};
use super::*;

fn block(info: &str, text: &str) -> Block {
    Block { line: 1, info: info.to_owned(), text: text.to_owned() }
}

#[test]
fn blocks_are_found_with_their_line_and_info() {
    let found = blocks("a\n```toml\nb = 1\n```\n  ```sh\n  x\n    y\n  ```\n");
    let expected = [
        Block { line: 3, info: "toml".into(), text: "b = 1\n".into() },
        Block { line: 6, info: "sh".into(), text: "x\n  y\n".into() },
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_wrong_config_is_found() {
    assert_eq!(toml_problems(&block("toml", "[agent]\ncluster = \"${env:NAME}\"\n")), [""; 0]);
    let wrong = toml_problems(&block("toml", "[agent]\nclustr = \"x\"\n"));
    assert!(wrong[0].contains("did you mean `cluster`?"), "{wrong:?}");
    assert_eq!(toml_problems(&block("toml fragment: of another agent", "[sinks.x]\n")), [""; 0]);
    assert_eq!(toml_problems(&block("toml fragment", "[sinks.x]\n")).len(), 1);
    assert_eq!(toml_problems(&block("toml fragment: of another agent", "[sinks.x\n")).len(), 1);
}

#[test]
fn wrong_yaml_is_found_by_who_reads_it() {
    assert_eq!(yaml_problems(&block("yaml", "a: 1\n---\nb: [1]\n")), [""; 0]);
    for wrong in [
        "a: [1\n",
        "groups: [{name: a, rules: [{alert: A, expr: 'up ='}]}]\n",
        "route: {receiver: nobody}\nreceivers: [{name: a}]\n",
        "scrape_configs: [{job: a}]\n",
        "config: {agent: {clustr: a}}\n",
        "config: {agent: {cluster: a}}\nresorces: {}\n",
    ] {
        assert_eq!(yaml_problems(&block("yaml", wrong)).len(), 1, "{wrong}");
    }
    assert_eq!(
        yaml_problems(&block("yaml", "config: {agent: {cluster: a}, sink: {loki: {main: null}}}\n")),
        [""; 0]
    );
}

#[test]
fn wrong_json_and_javascript_are_found() {
    assert_eq!(other_problems(&block("json", "{\"a\": 1}")), [""; 0]);
    assert_eq!(other_problems(&block("json", "{a: 1}")).len(), 1);
    assert_eq!(other_problems(&block("js", "const a = 1\n")), [""; 0]);
    assert_eq!(other_problems(&block("js", "const a = \n")).len(), 1);
}

#[test]
fn commands_are_found_wherever_they_stand() {
    let of = |line: &str| invocations(line).into_iter().map(|one| one.join(" ")).collect::<Vec<_>>();
    assert_eq!(of("nodewick slo lint -c agent.toml   # what they mean"), ["slo lint -c agent.toml"]);
    assert_eq!(of("echo 'a | nodewick b' | nodewick explain -n shop > out"), ["explain -n shop"]);
    assert_eq!(
        of("kubectl -n nodewick exec $agent -- /nodewick why shop/checkout-0"),
        ["why shop/checkout-0"]
    );
    assert_eq!(of("make demo ARGS=\"--for 20s\"; make demo; make test"), ["demo --for 20s", "demo"]);
    assert_eq!(of("LOKI=x nodewick check && nodewick run"), ["check", "run"]);
    assert_eq!(of("helm install nodewick deploy/helm/nodewick; kubectl logs daemonset/nodewick"), [""; 0]);
    let lines = typed(&block("console", "$ nodewick slo \\\n  lint\nnodewick run\n$ ls\n"));
    assert_eq!(lines, [(1, "nodewick slo lint".to_owned()), (4, "ls".to_owned())]);
    assert_eq!(typed(&block("text", "nodewick run\n")), []);
    let prose = "`nodewick migrate a|b`, `nodewick <verb> --help`\n```\n`nodewick c`\n```\n";
    assert_eq!(
        named(prose),
        [(1, vec!["migrate".to_owned(), "a".into()]), (1, vec!["migrate".to_owned(), "b".into()])]
    );
}

#[test]
fn a_verb_and_a_flag_that_do_not_exist_are_found() {
    let problem = |line: &str| parse_problem(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(problem("slo render -c agent.toml --out slo"), None);
    assert_eq!(problem("exec --service a -- node --no-such-flag"), None);
    assert!(problem("slo rendr").expect("refused").contains("unrecognized subcommand"));
    assert!(problem("slo render --ot slo").expect("refused").contains("unexpected argument"));
    assert!(problem("slo simulate --errors lots").expect("refused").contains("lots"));
}

#[test]
fn a_console_block_that_shows_something_else_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("agent.toml"), "[agent]\ncluster = \"a\"\nclustr = \"b\"\n").expect("written");
    let shown = "$ nodewick check -c agent.toml --offline\nagent.toml:3:1: error: agent.clustr: unknown key\n  |\n3 | clustr = \
                 \"b\"\n  | ^^^^^^\n  = did you mean `cluster`?\n";
    assert_eq!(differences(&block("console", shown), dir.path()), [""; 0]);
    assert_eq!(differences(&block("console", &shown.replace("unknown", "wrong")), dir.path()).len(), 1);
    assert_eq!(differences(&block("console", "$ ls\n"), dir.path()).len(), 1);
}

#[test]
fn names_that_nothing_has_are_found() {
    let sources = "\"red_requests_total\" NODEWICK_LOG";
    assert_eq!(
        unknown_families("red_requests_total\nslo_evnts_total", sources),
        [(2, "slo_evnts_total".to_owned())]
    );
    let document =
        "NODEWICK_LOG, NODEWICK_AGENT_CLUSTER, NODEWICK_SINK__LOKI__MAIN__URL\nNODEWICK_AGENT_CLUSTR";
    assert_eq!(unknown_variables(document, sources), [(2, "NODEWICK_AGENT_CLUSTR".to_owned())]);
    let prose = "`[kube] tenants`, `[scrape] mode = \"off\"`, `[[scrape.static]] targets`, `[process.drop.<name>]`\n`[kube] tenant`\n`[kube.kubelt]`";
    assert_eq!(unknown_keys(prose), [(2, "`[kube] tenant`".to_owned()), (3, "`[kube.kubelt]`".to_owned())]);
    let code = "router.route(\"/a\", get(a))\n  for path in [\"/b\", \"/c\"] {\n.with_page(\"/d\", page)\n#[cfg(test)]\n.route(\"/e\", x)";
    assert_eq!(routes(code), ["/a", "/b", "/c", "/d"].map(str::to_owned).into());
}

#[test]
fn an_orphan_is_found() {
    let document = |path: &str, text: &str| Document { path: path.into(), text: text.into() };
    let all = [
        document("docs/README.md", "[a](how-to/a.md#x) [up](../README.md)"),
        document("docs/how-to/a.md", "[b](../b.md) [c](https://x.y/c.md)"),
        document("docs/b.md", ""),
        document("docs/c.md", ""),
        document("README.md", ""),
    ];
    assert_eq!(orphans(&all, "docs/README.md"), ["docs/c.md"]);
}
