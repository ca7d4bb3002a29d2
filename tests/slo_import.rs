//! `nodewick slo import`: what objectives of other tools become, and what is refused with its place.
//!
//! In: `tests/corpus/slo`, and small texts that do harm. Whatever is imported is loaded again as part of a config.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use nodewick::config::{self, Sources};
use nodewick::slo::import::{self, Import, Options, Source, Unreadable};
use nodewick::slo::{Mode, Sli, Window};
use proptest::prelude::*;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/slo").join(name)
}

fn sample(name: &str) -> String {
    std::fs::read_to_string(corpus(name)).expect("a sample")
}

fn of(text: &str, options: &Options) -> Result<Import, Unreadable> {
    import::read(&[Source { name: "f.yaml", text }], options)
}

/// Imports a text, and checks that the loader reads the same objectives back from the tables.
fn imported(text: &str) -> Import {
    let done = of(text, &Options::default()).expect("readable");
    loads(&done);
    done
}

fn loads(done: &Import) {
    let file = Some(("agent.toml".to_owned(), done.toml()));
    let loaded = config::load(&Sources { file, ..Sources::default() })
        .unwrap_or_else(|bad| panic!("{bad}\n{}", done.toml()));
    let mut specs: Vec<_> = done.imported.iter().map(|one| one.spec.clone()).collect();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(loaded.config.slo.specs(), specs, "{}", done.toml());
}

/// The objectives in short.
fn shown(done: &Import) -> Vec<String> {
    let line = |one: &import::Imported| {
        let spec = &one.spec;
        let route = spec.selector.route.as_deref().map(|route| format!(" {route}")).unwrap_or_default();
        let threshold = match spec.sli {
            Sli::Latency { threshold } => format!(" < {threshold:?}"),
            Sli::Availability => String::new(),
        };
        let subject = format!("{}={}", spec.selector.subject_label(), spec.selector.subject());
        let mode = if spec.mode == Mode::Alert { "alert" } else { "observe" };
        format!(
            "{}: {} {subject}{route} {} {}{threshold} {} {mode}",
            spec.name,
            spec.selector.namespace,
            spec.sli.name(),
            spec.objective,
            spec.window
        )
    };
    done.imported.iter().map(line).collect()
}

/// The refusals in short: place, what, message.
fn refused(done: &Import) -> Vec<String> {
    done.rejected.iter().map(|one| format!("{}: {}: {}", one.place, one.what, one.message)).collect()
}

#[test]
fn sloths_own_form_is_imported_where_it_counts_what_we_count() {
    let done = imported(&sample("sloth.yaml"));
    assert_eq!(
        shown(&done),
        [
            "checkout-availability: shop service=checkout availability 99.9% 30d alert",
            "checkout-latency: shop service=checkout latency 99% < 250ms 30d observe",
            "checkout-raw: shop workload=cart availability 99.5% 30d alert",
        ]
    );
    let first = &done.imported[0];
    assert_eq!(
        (first.spec.owner.as_str(), first.spec.runbook.as_str()),
        ("team-shop", "https://wiki.example.com/checkout")
    );
    assert!(first.spec.exclude_routes.is_empty(), "its queries left out no route");
    assert_eq!(done.imported[1].spec.exclude_routes, ["/healthz", "/metrics"]);
    assert_eq!(
        first.notes,
        [
            "labels and annotations that its alerts no longer have: category, routing_key, summary; route alerts by severity, slo_id or owner",
            "labels that its series and alerts no longer have: tier=\"1\"; route alerts by slo_id, slo or owner",
            "its service is the label job; red_requests_total must have service=\"checkout\"",
        ]
    );
    assert!(done.toml().contains(
        "\n# from f.yaml:8:5: Sloth prometheus/v1, service \"checkout\", SLO \"availability\"\n# note: labels and"
    ), "{}", done.toml());
    assert_eq!(
        refused(&done),
        [
            "f.yaml:55:22: SLO \"too-many-requests\": code=~\"(5..|429)\" does not tell exactly 5xx from the rest: 429 differs",
            "f.yaml:62:22: SLO \"all-services\": no label names the service or workload, so the query counts the requests of all",
            "f.yaml:69:9: SLO \"plugin\": a plugin makes its query, which is not in the file",
            "f.yaml:80:9: SLO \"page-only\": ticket_alert alone is disabled; an objective alerts with pages and tickets or not at all",
            "f.yaml:82:16: SLO \"perfect\": an objective of 100% leaves no error budget to burn; write the failures you accept, like \"99.95%\"",
            "f.yaml:89:16: SLO \"low\": the alert over 1h/5m fires at 14.4 times the allowed rate, which 80% can never reach: all requests failing is 5 times",
        ]
    );
}

#[test]
fn sloths_resource_is_imported_from_a_list_too() {
    let done = imported(&sample("sloth-k8s.yaml"));
    assert_eq!(shown(&done), ["orders-availability: shop workload=orders availability 99.95% 30d alert"]);
    assert_eq!(done.imported[0].spec.owner, "orders");
    assert_eq!(
        refused(&done),
        [
            "f.yaml:28:5: document: custom alert windows cannot be honoured: the tiers are those of the SRE Workbook"
        ]
    );
    let month = of(&sample("sloth-k8s.yaml"), &Options { window: Window::D28, ..Options::default() })
        .expect("readable");
    assert_eq!(month.imported[0].spec.window, Window::D28);
}

#[test]
fn pyrras_four_indicators_are_imported_or_refused() {
    let done = imported(&sample("pyrra.yaml"));
    assert_eq!(
        shown(&done),
        [
            "api-errors: edge service=api availability 99.5% 28d alert",
            "api-latency: edge service=api latency 99% < 500ms 30d observe",
            "api-native: edge service=api /pay latency 95% < 200ms 7d alert",
        ]
    );
    assert_eq!(done.imported[0].spec.owner, "platform");
    assert_eq!(
        refused(&done),
        [
            "f.yaml:57:7: ServiceLevelObjective \"api-up\": bool_gauge counts samples of a gauge, not requests",
            "f.yaml:69:17: ServiceLevelObjective \"by-handler\": grouping by handler makes one objective of many",
            "f.yaml:76:11: ServiceLevelObjective \"two-weeks\": a window of \"2w\" cannot be honoured",
            "f.yaml:90:25: ServiceLevelObjective \"ingress\": nginx_ingress_controller_requests is counted by a proxy, whose failures the service never sees",
        ]
    );
}

#[test]
fn openslo_is_imported_with_what_it_refers_to() {
    let done = imported(&sample("openslo.yaml"));
    assert_eq!(
        shown(&done),
        [
            "payments-availability-promise: pay service=payments availability 99.5% 28d alert",
            "payments-availability-wish: pay service=payments availability 99.95% 28d alert",
            "payments-latency: pay service=payments latency 99% < 1s 90d observe",
        ]
    );
    assert!(
        done.imported[0].notes.contains(
            &"it also alerts by the tiers that it did not ask for: page at 5.6 times over 6h, ticket at 2.8 times over 1d, \
              ticket at 0.933 times over 3d"
                .to_owned()
        ),
        "{:?}",
        done.imported[0].notes
    );
    assert_eq!(
        refused(&done),
        [
            "f.yaml:104:17: SLO \"calendar\": a calendar window cannot be honoured: windows roll",
            "f.yaml:116:20: SLO \"slices\": budgetingMethod \"Timeslices\" cannot be honoured",
            "f.yaml:127:7: SLO \"composite\": a composite of several indicators cannot be honoured",
            "f.yaml:149:64: SLO \"own-alerts\": an alert at 2 times the allowed rate over 1h is no tier",
            "f.yaml:160:9: SLO \"quantile\": a thresholdMetric compares a value, and values of quantiles or gauges cannot be added up",
            "f.yaml:170:17: SLO \"lost\": no SLI is called \"nobody\"",
        ]
    );
}

#[test]
fn references_hold_across_files() {
    let text = sample("openslo.yaml");
    let at = text.find("---\napiVersion: openslo/v1\nkind: SLO\n").expect("the first SLO");
    let (first, second) = text.split_at(at);
    let sources = [Source { name: "b.yaml", text: second }, Source { name: "a.yaml", text: first }];
    let done = import::read(&sources, &Options::default()).expect("readable");
    assert_eq!(done.imported.len(), 3);
    let alone = of(second, &Options::default()).expect("readable");
    assert!(refused(&alone)[0].contains("no SLI is called \"payments-good\""), "{:?}", refused(&alone));
    assert!(alone.rejected[0].help.contains("give the file that declares it too"));
}

/// Sloth's form of two queries.
fn sloth(bad: &str, all: &str) -> String {
    format!(
        "version: prometheus/v1\nservice: s\nslos:\n- name: n\n  objective: 99.9\n  sli:\n    events:\n      error_query: '{bad}'\n      total_query: '{all}'\n"
    )
}

/// Why two queries are refused; panics when they are not.
fn why(bad: &str, all: &str) -> String {
    let done = imported(&sloth(bad, all));
    assert_eq!((done.imported.len(), done.rejected.len()), (0, 1), "{bad} / {all}: {:?}", shown(&done));
    done.rejected[0].message.clone()
}

#[test]
fn queries_that_count_something_else_are_refused() {
    let all = "sum(rate(http_requests_total{namespace=\"n\",job=\"j\"}[{{.window}}]))";
    let bad = |matchers: &str| {
        format!("sum(rate(http_requests_total{{namespace=\"n\",job=\"j\",{matchers}}}[{{{{.window}}}}]))")
    };
    for (bad, all, message) in [
        (
            bad("code=\"500\""),
            all.to_owned(),
            "code=\"500\" does not tell exactly 5xx from the rest: 501, 502, 503 and others differ",
        ),
        (
            bad("code=~\"[45]..\""),
            all.to_owned(),
            "code=~\"[45]..\" does not tell exactly 5xx from the rest: 400, 401, 402 and others differ",
        ),
        (bad("code=~\"5.*"), all.to_owned(), "a text has no end"),
        (bad("code=~\"5(\""), all.to_owned(), "\"5(\" is no regular expression"),
        (
            bad("x=\"y\""),
            all.to_owned(),
            "x=\"y\" stands in one query only, so they count different requests",
        ),
        (all.to_owned(), all.to_owned(), "no label tells bad requests from good ones"),
        (
            bad("code=~\"5..\"").replace("rate(", "increase("),
            all.to_owned(),
            "the two queries count over different ranges",
        ),
        (
            bad("code=~\"5..\"").replace("[{{.window}}]", "[5m]"),
            all.to_owned(),
            "a query without {{.window}} is the same over every range",
        ),
        (
            bad("code=~\"5..\"").replace("sum(", "sum by (pod) ("),
            all.to_owned(),
            "sum by (pod) is an objective for each pod",
        ),
        (
            bad("code=~\"5..\"").replace("sum(", "max("),
            all.to_owned(),
            "the query is none of the shapes that count requests",
        ),
        (bad("code=~\"5..\"").replace("rate(", "irate("), all.to_owned(), "irate() does not count requests"),
        (
            bad("code=~\"5..\"").replace("http_requests", "my_requests"),
            all.to_owned(),
            "my_requests_total is none of the families of served requests that are known",
        ),
        (
            bad("code=~\"5..\"").replace("http_requests_total", "http_request_duration_seconds_count"),
            all.to_owned(),
            "http_request_duration_seconds_count and http_requests_total may count different requests",
        ),
        (
            bad("code=~\"5..\"").replace("job", "pod"),
            all.replace("job", "pod"),
            "pod=\"j\" cannot be said: match has namespace, workload, service and route only",
        ),
        (
            bad("code=~\"5..\"").replace("job=\"j\"", "job=~\"a|b\""),
            all.replace("job=\"j\"", "job=~\"a|b\""),
            "job=~\"a|b\" names no single value",
        ),
        (
            bad("code=~\"5..\""),
            all.replace("job=\"j\"", "job=\"j\",code!~\"4..\""),
            "code!~\"4..\" leaves out requests, and here all of them count",
        ),
        (
            bad("code=~\"5..\"").replace("namespace=\"n\"", "service=\"a\""),
            all.replace("namespace=\"n\"", "service=\"a\""),
            "job=\"j\" contradicts \"a\", which another label names",
        ),
    ] {
        assert_eq!(why(&bad, &all), message);
    }
}

#[test]
fn a_namespace_that_no_label_names_is_asked_for() {
    let all = "sum(rate(http_requests_total{job=\"j\"}[{{.window}}]))";
    let text = sloth(&all.replace("job=\"j\"", "job=\"j\",code=~\"5..\""), all);
    let done = imported(&text);
    assert_eq!(refused(&done), ["f.yaml:4:3: SLO \"n\": no label of its queries names the namespace"]);
    assert_eq!(done.rejected[0].help, "give it with --namespace, or add a matcher like namespace=\"shop\"");
    let done =
        of(&text, &Options { namespace: Some("shop".into()), ..Options::default() }).expect("readable");
    loads(&done);
    assert_eq!(shown(&done), ["s-n: shop service=j availability 99.9% 30d alert"]);
    let done = imported(&text.replace("job=\"j\"", "job=\"web/j\""));
    assert_eq!(shown(&done), ["s-n: web service=j availability 99.9% 30d alert"]);
}

#[test]
fn grpc_failures_are_the_servers_own_codes() {
    let all = "sum(rate(grpc_server_handled_total{namespace=\"n\",service=\"s\"}[{{.window}}]))";
    let bad = |codes: &str| all.replace("service=\"s\"", &format!("service=\"s\",grpc_code=~\"{codes}\""));
    let own = "Unknown|DeadlineExceeded|Unimplemented|Internal|Unavailable|DataLoss";
    assert_eq!(shown(&imported(&sloth(&bad(own), all))), ["s-n: n service=s availability 99.9% 30d alert"]);
    assert!(
        why(&bad("Unknown|Internal"), all)
            .ends_with("from the rest: DeadlineExceeded, Unimplemented, Unavailable and others differ")
    );
}

#[test]
fn unknown_keys_and_second_names_are_refused() {
    let all = "sum(rate(http_requests_total{namespace=\"n\",job=\"j\"}[{{.window}}]))";
    let text = sloth(&all.replace("job=\"j\"", "job=\"j\",code=~\"5..\""), all);
    let done = imported(&text.replace("  objective: 99.9\n", "  objective: 99.9\n  windoww: 7d\n"));
    assert_eq!(refused(&done), ["f.yaml:6:12: SLO \"n\": \"windoww\" is no key that is known here"]);
    let done = imported(&format!("{text}---\n{text}"));
    assert_eq!(
        refused(&done),
        ["f.yaml:14:3: SLO \"n\": s-n is already the name of the objective at f.yaml:4:3"]
    );
    let done = imported(&text.replace("service: s\n", "service: \"A_b\\nC\"\n"));
    assert_eq!(done.rejected.len(), 1, "{:?}", shown(&done));
    let done = imported(&text.replace("service: s\n", "service: My_Team\n"));
    assert_eq!(done.imported[0].spec.name, "my-team-n");
    assert!(done.imported[0].notes.contains(&"its name was \"My_Team-n\"".to_owned()));
    let done = imported(
        "kind: Deployment\napiVersion: apps/v1\n---\njust text\n---\napiVersion: openslo/v1alpha\nkind: SLO\n",
    );
    assert_eq!(
        refused(&done),
        [
            "f.yaml:1:1: document: \"apps/v1\" \"Deployment\" is no objective that is known",
            "f.yaml:4:1: document: it is no object with keys",
            "f.yaml:6:1: document: \"openslo/v1alpha\" is not read",
        ]
    );
}

#[test]
fn texts_that_do_harm_are_bounded() {
    let said = |text: &str| of(text, &Options::default()).expect_err("unreadable").to_string();
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (one, before) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
        bomb.push_str(&format!("{one}: &{one} [{}]\n", format!("*{before},").repeat(10)));
    }
    let begun = std::time::Instant::now();
    assert!(said(&bomb).starts_with("f.yaml:"), "{}", said(&bomb));
    assert!(said(&format!("a: {}", "[".repeat(5_000))).contains("f.yaml:1:"));
    assert_eq!(said(&"# x\n".repeat(300_000)), "f.yaml: error: larger than 1MiB\n  = split the file");
    assert!(
        said("version: prometheus/v1\nservice: a\nservice: b\n")
            .starts_with("f.yaml:3:1: error: cannot be read as YAML: duplicate")
    );
    assert!(said("a: *nobody\n").starts_with("f.yaml:1:4: error: cannot be read as YAML"));
    assert!(said("").contains("no document is in it"));
    assert!(said(&"---\na: b\n".repeat(2_000)).starts_with("f.yaml"));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

fn nodewick(args: &[&str], stdin: &str) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("nodewick").expect("built");
    command
        .env_clear()
        .args(["slo", "import"])
        .args(args)
        .write_stdin(stdin)
        .timeout(Duration::from_secs(60));
    command.output().expect("runs")
}

#[test]
fn the_verb_prints_tables_and_says_by_its_exit_code_what_it_left_out() {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = corpus("pyrra.yaml");
    let some = nodewick(&[path.to_str().expect("a path")], "");
    assert_eq!(some.status.code(), Some(1));
    assert!(
        text(&some.stdout)
            .contains("[slo.api-errors]\nmatch = { namespace = \"edge\", service = \"api\" }\n")
    );
    assert!(text(&some.stderr).contains("pyrra.yaml:76:11: rejected: ServiceLevelObjective \"two-weeks\": "));
    assert!(text(&some.stderr).ends_with("3 imported, 4 rejected\n"), "{}", text(&some.stderr));
    let good = "sum(rate(http_requests_total{job=\"j\"}[{{.window}}]))";
    let one = sloth(&good.replace("job=\"j\"", "job=\"j\",code=~\"5..\""), good);
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("slo.toml");
    let out = out.to_str().expect("a path");
    let all = nodewick(&["-", "--namespace", "shop", "--window", "7d", "-o", out], &one);
    assert_eq!((all.status.code(), text(&all.stdout)), (Some(0), String::new()));
    assert!(std::fs::read_to_string(out).expect("written").contains("window = \"7d\""));
    let broken = nodewick(&["-"], "a: [");
    assert_eq!(broken.status.code(), Some(78), "{}", text(&broken.stderr));
    assert_eq!(nodewick(&["/nowhere.yaml"], "").status.code(), Some(78));
    let large = nodewick(&["-"], &"# x\n".repeat(2_600_000));
    assert_eq!(
        (large.status.code(), text(&large.stderr)),
        (Some(78), "<stdin>: error: larger than 1MiB\n  = split the file\n".to_owned())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_text_of_a_query_breaks_the_import(bad in "\\PC{0,60}", all in "\\PC{0,60}", name in "\\PC{0,20}") {
        let quoted = |text: &str| serde_json::to_string(text).expect("JSON is YAML");
        let text = format!(
            "version: prometheus/v1\nservice: s\nslos:\n- name: {}\n  objective: 99.9\n  sli:\n    events:\n      error_query: {}\n      total_query: {}\n",
            quoted(&name), quoted(&bad), quoted(&all)
        );
        let _ = of(&text, &Options::default());
    }

    #[test]
    fn what_is_imported_loads_whatever_its_labels_say(namespace in "\\PC{1,20}", service in "[a-z\"\\\\'{}#=\\[\\] -]{1,20}", name in "[A-Za-z0-9_. -]{1,20}") {
        let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let all = format!("sum(rate(http_requests_total{{namespace=\"{}\",service=\"{}\"}}[{{{{.window}}}}]))", label(&namespace), label(&service));
        let bad = all.replacen("service=", "code=~\"5..\",service=", 1);
        let quoted = |text: &str| serde_json::to_string(text).expect("JSON is YAML");
        let text = format!(
            "version: prometheus/v1\nservice: s\nslos:\n- name: {}\n  objective: 99.9\n  sli:\n    events:\n      error_query: {}\n      total_query: {}\n",
            quoted(&name), quoted(&bad), quoted(&all)
        );
        if let Ok(done) = of(&text, &Options::default()) {
            loads(&done);
        }
    }
}
