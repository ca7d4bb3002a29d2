//! Which targets the pods of a node and the config make, and why others are none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nodewick::admin::Admin;
use nodewick::admin::client::Client;
use nodewick::config::{Sources, load};
use nodewick::data::pods::{Container, Pod, Traits};
use nodewick::data::sample::{Label, Page};
use nodewick::health::Health;
use nodewick::scrape::Config;
use nodewick::scrape::config::{Mode, Static};
use nodewick::scrape::guard::Guard;
use nodewick::scrape::relabel::{self, Action};
use nodewick::scrape::status::{Board, Row};
use nodewick::scrape::target::{Scheme, Target};
use nodewick::scrape::targets::{Candidate, Site, Targets};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn container(name: &str, ports: &[(&str, u16)]) -> Container {
    let traits = Traits {
        service_name: "till".into(),
        service_version: Some("1.4.2".into()),
        attributes: pairs(&[
            ("k8s.deployment.name", "checkout"),
            ("k8s.replicaset.name", "checkout-d994d45d6"),
        ]),
        ..Traits::default()
    };
    Container {
        name: name.into(),
        traits: Arc::new(traits),
        ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
        ..Container::default()
    }
}

fn pod(annotations: &[(&str, &str)], containers: &[Container]) -> Pod {
    let annotations =
        annotations.iter().map(|(name, value)| (format!("prometheus.io/{name}"), (*value).to_owned()));
    Pod {
        uid: "d11c6e6d".into(),
        namespace: "shop".into(),
        name: "checkout-d994d45d6-5h9zr".into(),
        ip: Some("10.244.1.7".parse().expect("an address")),
        running: true,
        containers: containers.to_vec(),
        annotations: annotations.collect(),
        labels: pairs(&[("app.kubernetes.io/name", "till"), ("team", "pay")]),
        ..Pod::default()
    }
}

fn app() -> Container {
    container("api", &[("http", 8080)])
}

fn site() -> Site {
    Site { cluster: "prod".into(), node: "node-1".into(), ..Site::default() }
}

fn found(config: &Config, pods: Vec<Pod>) -> Vec<Candidate> {
    let targets = Targets::new(config, site(), Guard::default()).expect("rules that work");
    targets.discover(&pods.into_iter().map(Arc::new).collect::<Vec<_>>())
}

/// The URLs of a pod's targets, or the word why it has none.
fn outcome(config: &Config, pod: Pod) -> Vec<String> {
    let all = found(config, vec![pod]).into_iter();
    all.map(|one| one.found.map_or_else(|why| why.word().to_owned(), |target| target.url())).collect()
}

fn annotated(annotations: &[(&str, &str)], containers: &[Container]) -> Vec<String> {
    let mut all = vec![("scrape", "true")];
    all.extend(annotations);
    outcome(&Config::default(), pod(&all, containers))
}

fn only(config: &Config, pod: Pod) -> Arc<Target> {
    let mut all = found(config, vec![pod]);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).found.expect("a target")
}

fn rule(action: Action, sources: &[&str], regex: &str) -> relabel::Config {
    relabel::Config {
        action,
        source_labels: sources.iter().map(|name| (*name).to_owned()).collect(),
        regex: regex.to_owned(),
        ..relabel::Config::default()
    }
}

fn set(sources: &[&str], regex: &str, target: &str, replacement: &str) -> relabel::Config {
    relabel::Config {
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        ..rule(Action::Replace, sources, regex)
    }
}

fn relabelled(rules: &[relabel::Config]) -> Config {
    Config { relabel: rules.to_vec(), ..Config::default() }
}

#[test]
fn the_annotated_port_is_taken_then_ports_named_for_metrics_then_the_only_one() {
    let named = container("api", &[("http", 8080), ("metrics", 9090)]);
    let side = container("proxy", &[("http-metrics", 15090), ("8443", 8443)]);
    let both = [named.clone(), side.clone()];
    assert_eq!(annotated(&[("port", "3000")], &both), ["http://10.244.1.7:3000/metrics"]);
    assert_eq!(
        annotated(&[], &both),
        ["http://10.244.1.7:9090/metrics", "http://10.244.1.7:15090/metrics"],
        "one target for each port"
    );
    assert_eq!(annotated(&[], &[app()]), ["http://10.244.1.7:8080/metrics"]);
    assert_eq!(annotated(&[], &[container("api", &[("a", 1), ("b", 2)])]), ["several_ports"]);
    assert_eq!(annotated(&[], &[container("api", &[])]), ["no_port"]);
    assert_eq!(
        annotated(&[("port", "")], &[app()]),
        ["http://10.244.1.7:8080/metrics"],
        "empty says nothing"
    );
    for port in ["0", "65536", "-1", "+80", "metrics", "80,81", "8080 ", "٨٠", "000080"] {
        assert_eq!(annotated(&[("port", port)], &[app()]), ["bad_port"], "{port}");
    }
}

#[test]
fn path_and_scheme_come_from_annotations() {
    let of = |annotations: &[(&str, &str)]| annotated(annotations, &[app()]);
    assert_eq!(
        of(&[("path", "/stats?format=prometheus")]),
        ["http://10.244.1.7:8080/stats?format=prometheus"]
    );
    assert_eq!(of(&[("scheme", "https")]), ["https://10.244.1.7:8080/metrics"]);
    for scheme in ["HTTPS", "ftp", "http://"] {
        assert_eq!(of(&[("scheme", scheme)]), ["bad_scheme"], "{scheme}");
    }
    let long = format!("/{}", "a".repeat(256));
    for path in ["metrics", "/../x", "/a b", "/a\r\nHost: b", "/x@10.0.0.1", "http://10.0.0.1/", "/é", &long]
    {
        assert_eq!(of(&[("path", path)]), ["bad_path"], "{path}");
    }
}

#[test]
fn a_pod_that_is_not_scraped_has_its_reason() {
    let of = |pod: Pod| outcome(&Config::default(), pod);
    let yes = &[("scrape", "true")];
    assert_eq!(of(pod(&[], &[app()])), ["not_annotated"]);
    assert_eq!(of(pod(&[("scrape", "false")], &[app()])), ["declined"]);
    assert_eq!(of(pod(&[("scrape", "yes")], &[app()])), ["bad_scrape"]);
    assert_eq!(of(Pod { host_network: true, ..pod(yes, &[app()]) }), ["host_network"]);
    assert_eq!(of(Pod { running: false, ..pod(yes, &[app()]) }), ["not_running"]);
    assert_eq!(of(Pod { ip: None, ..pod(yes, &[app()]) }), ["no_address"]);
    for ip in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1"] {
        let ip: IpAddr = ip.parse().expect("an address");
        assert_eq!(of(Pod { ip: Some(ip), ..pod(yes, &[app()]) }), ["denied_address"], "{ip}");
    }
    let own = Site { own_pod: Some(("shop".into(), "checkout-d994d45d6-5h9zr".into())), ..site() };
    let targets = Targets::new(&Config::default(), own, Guard::default()).expect("no rules");
    let all = targets.discover(&[Arc::new(pod(yes, &[app()]))]);
    assert_eq!(all[0].found.as_ref().map_err(|why| why.word()), Err("own_pod"));
    let several = targets.discover(&[Arc::new(Pod {
        name: "other".into(),
        ..pod(yes, &[container("api", &[("a", 3000), ("b", 3001)])])
    })]);
    let why = several[0].found.as_ref().expect_err("several ports");
    assert_eq!(
        (why.to_string().as_str(), why.hint().as_str()),
        (
            "prometheus.io/port is not set, and none of the 2 declared ports is named metrics",
            "set prometheus.io/port to one of 3000, 3001, or name the port metrics in the pod's spec"
        )
    );
}

#[test]
fn modes_say_which_pods_are_looked_at() {
    let named = [container("api", &[("metrics", 9090)])];
    let mode = |mode: Mode, annotations: &[(&str, &str)], containers: &[Container]| {
        outcome(&Config { mode, ..Config::default() }, pod(annotations, containers))
    };
    let url = ["http://10.244.1.7:9090/metrics"];
    assert_eq!(mode(Mode::Annotated, &[], &named), ["not_annotated"]);
    assert_eq!(mode(Mode::All, &[], &named), url);
    assert_eq!(mode(Mode::All, &[("scrape", "false")], &named), ["declined"]);
    assert_eq!(
        mode(Mode::All, &[], &[app()]),
        ["not_annotated"],
        "the only port is taken where a pod asks for it"
    );
    assert_eq!(mode(Mode::All, &[("scrape", "true")], &[app()]), ["http://10.244.1.7:8080/metrics"]);
    assert_eq!(mode(Mode::Off, &[("scrape", "true")], &named), ["off"]);
    let shared = Pod { host_network: true, ..pod(&[("scrape", "true")], &named) };
    assert_eq!(outcome(&Config { host_network: true, ..Config::default() }, shared), url);
}

#[test]
fn a_pods_series_carry_the_labels_of_its_logs() {
    let side = container("proxy", &[("metrics", 15090)]);
    let target = only(&Config::default(), pod(&[("scrape", "true")], &[app(), side]));
    assert_eq!(
        target.origin.labels,
        pairs(&[
            ("cluster", "prod"),
            ("container", "proxy"),
            ("instance", "shop.checkout-d994d45d6-5h9zr.proxy"),
            ("job", "shop/till"),
            ("namespace", "shop"),
            ("node", "node-1"),
            ("pod", "checkout-d994d45d6-5h9zr"),
            ("service", "till"),
            ("workload", "checkout"),
            ("workload_kind", "Deployment"),
        ])
    );
    assert_eq!(
        target.origin.resource,
        pairs(&[
            ("k8s.cluster.name", "prod"),
            ("k8s.container.name", "proxy"),
            ("k8s.deployment.name", "checkout"),
            ("k8s.namespace.name", "shop"),
            ("k8s.node.name", "node-1"),
            ("k8s.pod.name", "checkout-d994d45d6-5h9zr"),
            ("k8s.pod.uid", "d11c6e6d"),
            ("k8s.replicaset.name", "checkout-d994d45d6"),
            ("service.instance.id", "shop.checkout-d994d45d6-5h9zr.proxy"),
            ("service.name", "till"),
            ("service.namespace", "shop"),
            ("service.version", "1.4.2"),
        ])
    );
    assert_eq!((target.interval, target.timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert!(target.honor_timestamps && !target.honor_labels);
    // A port that nobody declares: the first container.
    let other =
        only(&Config::default(), pod(&[("scrape", "true"), ("port", "9999")], &[app(), container("b", &[])]));
    assert_eq!(other.origin.label("container"), Some("api"));
}

#[test]
fn what_is_not_known_is_no_label() {
    let bare = Pod {
        name: "standalone".into(),
        ..pod(&[("scrape", "true"), ("port", "80")], &[Container::default()])
    };
    let targets = Targets::new(&Config::default(), Site::default(), Guard::default()).expect("no rules");
    let all = targets.discover(&[Arc::new(bare)]);
    let target = all[0].found.as_ref().expect("a target");
    assert_eq!(
        target.origin.labels,
        pairs(&[
            ("instance", "shop.standalone"),
            ("job", "shop/standalone"),
            ("namespace", "shop"),
            ("pod", "standalone"),
            ("service", "standalone"),
            ("workload", "standalone"),
        ])
    );
}

#[test]
fn the_same_pods_give_equal_targets() {
    let config = relabelled(&[set(&["team"], "(.*)", "x", "$1")]);
    let pods = || vec![pod(&[("scrape", "true")], &[app()])];
    assert_eq!(found(&config, pods()), found(&config, pods()));
}

#[test]
fn static_targets_are_the_operators_word() {
    let fixed = Static {
        targets: vec!["127.0.0.1:3000".into(), "https://[::1]/stats?x=1".into(), "127.0.0.1:3000".into()],
        job: "db".into(),
        labels: pairs(&[("team", "pay"), ("node", "")]).into_iter().collect(),
        interval: Some("5s".parse().expect("a span")),
        honor_labels: true,
        ..Static::default()
    };
    let all = found(&Config { fixed: vec![fixed], ..Config::default() }, vec![]);
    assert_eq!(all.len(), 2, "the same address twice is one target");
    let first = all[0].found.as_ref().expect("a target");
    assert_eq!(first.url(), "http://127.0.0.1:3000/metrics");
    assert_eq!(
        first.origin.labels,
        pairs(&[("cluster", "prod"), ("instance", "127.0.0.1:3000"), ("job", "db"), ("team", "pay")])
    );
    assert_eq!((first.interval, first.timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    assert!(first.honor_labels && first.honor_timestamps && first.pod.is_none());
    let second = all[1].found.as_ref().expect("a target");
    assert_eq!((second.scheme, second.host.as_str(), second.port), (Scheme::Https, "::1", 443));
    assert_eq!(second.url(), "https://[::1]:443/stats?x=1");
    assert_eq!(second.origin.label("instance"), Some("[::1]:443"));
    assert!(second.origin.resource.contains(&("service.name".to_owned(), "db".to_owned())));
}

#[test]
fn rules_see_what_prometheus_shows_them() {
    let rules = [
        set(&["__meta_kubernetes_pod_label_team"], "(.+)", "team", "$1"),
        set(
            &["__meta_kubernetes_namespace", "__meta_kubernetes_pod_container_port_name"],
            "(.*);(.*)",
            "at",
            "$1/$2",
        ),
        set(
            &["__meta_kubernetes_pod_controller_kind", "__meta_kubernetes_pod_controller_name"],
            "(.*)",
            "by",
            "$1",
        ),
        set(&["__meta_kubernetes_pod_annotation_prometheus_io_scrape"], "(.*)", "said", "$1"),
        set(&["__meta_kubernetes_pod_label_app_kubernetes_io_name"], "(.*)", "app", "$1"),
        set(&["__address__"], "(.*):8080", "__address__", "$1:9102"),
        set(&[], "(.*)", "__metrics_path__", "/stats"),
        set(&[], "(.*)", "__param_format", "a b&c"),
        set(&[], "(.*)", "__scheme__", "https"),
        set(&[], "(.*)", "__scrape_interval__", "1m"),
        set(&[], "(.*)", "node", ""),
        set(&[], "(.*)", "instance", ""),
    ];
    let target = only(&relabelled(&rules), pod(&[("scrape", "true")], &[app()]));
    assert_eq!(target.url(), "https://10.244.1.7:9102/stats?format=a%20b%26c");
    assert_eq!(target.interval, Duration::from_secs(60));
    let label = |name: &str| target.origin.label(name);
    assert_eq!(label("team"), Some("pay"));
    assert_eq!(label("at"), Some("shop/http"));
    assert_eq!(label("by"), Some("ReplicaSet;checkout-d994d45d6"));
    assert_eq!(label("said"), Some("true"));
    assert_eq!(label("app"), Some("till"));
    assert_eq!(label("node"), None);
    assert_eq!(label("instance"), Some("10.244.1.7:9102"), "a target always has an instance");
    assert!(target.origin.labels.iter().all(|(name, _)| !name.starts_with("__")));
}

#[test]
fn no_rule_leads_away_from_the_pod() {
    let of = |rule: relabel::Config| outcome(&relabelled(&[rule]), pod(&[("scrape", "true")], &[app()]));
    for address in [
        "169.254.169.254:80",
        "10.244.1.8:8080",
        "evil.example:80",
        "10.244.1.7:0",
        "",
        "[::ffff:10.244.1.7]:80",
        "10.244.1.7@b:80",
    ] {
        assert_eq!(of(set(&[], "(.*)", "__address__", address)), ["bad_relabel"], "{address}");
    }
    assert_eq!(of(set(&[], "(.*)", "__metrics_path__", "//evil/../x")), ["bad_relabel"]);
    assert_eq!(of(set(&[], "(.*)", "__scheme__", "file")), ["bad_relabel"]);
    assert_eq!(of(set(&[], "(.*)", "__scrape_timeout__", "31s")), ["bad_relabel"]);
    assert_eq!(of(set(&[], "(.*)", "__address__", "10.244.1.7:81")), ["http://10.244.1.7:81/metrics"]);
    assert_eq!(of(rule(Action::Drop, &["namespace"], "shop")), ["dropped"]);
    assert_eq!(of(rule(Action::Keep, &["namespace"], "shop")), ["http://10.244.1.7:8080/metrics"]);
}

#[test]
fn a_config_that_cannot_work_says_so() {
    let wrong = |config: Config| -> Vec<String> {
        config.problems().into_iter().map(|one| format!("{}: {}", one.key.join("."), one.message)).collect()
    };
    let span = |text: &str| text.parse().expect("a span");
    assert!(wrong(Config::default()).is_empty());
    assert!(
        wrong(Config { interval: span("5s"), ..Config::default() }).is_empty(),
        "the default timeout follows"
    );
    assert_eq!(
        wrong(Config { interval: span("5s"), timeout: span("6s"), ..Config::default() }),
        ["timeout: 6s is longer than the interval of 5s"]
    );
    assert_eq!(
        wrong(Config { interval: span("500ms"), timeout: span("100ms"), ..Config::default() }),
        ["interval: 500ms is no sensible interval"]
    );
    let fixed = Static {
        targets: vec!["localhost".into()],
        timeout: Some(span("31s")),
        labels: pairs(&[("", "x")]).into_iter().collect(),
        ..Static::default()
    };
    assert_eq!(
        wrong(Config { fixed: vec![fixed, Static::default()], ..Config::default() }),
        [
            "static.[0].targets: \"localhost\" has no port",
            "static.[0].labels: \"\" cannot be a label of a target",
            "static.[0].timeout: 31s is longer than the interval of 30s",
            "static.[1]: has no targets",
        ]
    );
    assert_eq!(
        wrong(relabelled(&[rule(Action::Keep, &["a"], "b"), rule(Action::Keep, &["a"], "(")])),
        ["relabel.[1].regex: not a regular expression: unclosed group"]
    );
}

#[test]
fn an_error_in_a_rule_points_at_its_line() {
    let text = "[[scrape.relabel]]\naction = \"keep\"\nsource_labels = [\"a\"]\n\n[[scrape.relabel]]\n\
                action = \"drop\"\nregex = \"(\"\n[[scrape.static]]\ntargets = [\"localhost\"]\n";
    let sources = Sources { file: Some(("agent.toml".into(), text.into())), ..Sources::default() };
    let said = load(&sources).expect_err("two errors").to_string();
    for part in [
        "scrape.relabel[1].regex",
        "agent.toml:7:",
        "not a regular expression: unclosed group",
        "scrape.static[0].targets",
        "agent.toml:9:",
        "\"localhost\" has no port",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

#[test]
fn rules_that_are_written_as_for_prometheus_are_read() {
    let text = "[[scrape.metric_relabel]]\nsource_labels = [\"__name__\"]\nregex = \"(.+)_seconds\"\n\
                target_label = \"unit\"\nreplacement = \"${1}_s\"\n[[scrape.metric_relabel]]\n\
                action = \"labeldrop\"\nregex = \"pod_.*\"\n[[scrape.static]]\ntargets = [\"127.0.0.1:3000\"]\n\
                scheme = \"https\"\nlabels = { team = \"pay\" }\n";
    let sources = Sources { file: Some(("agent.toml".into(), text.into())), ..Sources::default() };
    let config = load(&sources).map_err(|errors| errors.to_string()).expect("a config").config.scrape;
    let rules = relabel::Rules::compile(&config.metric_relabel).expect("rules");
    let of =
        |labels: &[(&str, &str)]| labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let mut labels = of(&[("__name__", "took_seconds"), ("pod_uid", "x")]);
    assert!(rules.apply_owned(&mut labels));
    assert_eq!(labels, of(&[("__name__", "took_seconds"), ("unit", "took_s")]));
    assert_eq!((config.fixed[0].scheme, config.fixed[0].labels["team"].as_str()), (Scheme::Https, "pay"));
}

#[test]
fn samples_that_no_rule_changes_cost_no_allocation() {
    let rules = [
        rule(Action::Drop, &["__name__"], "go_.*|process_.*"),
        rule(Action::Drop, &["__name__"], "(a|b).c"),
        rule(Action::Keep, &["job", "pod"], "shop;(.*)"),
        set(&["pod"], "other-(.*)", "app", "$1"),
        rule(Action::LabelDrop, &[], "id"),
    ];
    let rules = relabel::Rules::compile(&rules).expect("rules");
    let mut page = Page::default();
    let mut labels = Vec::new();
    for (name, value) in [("__name__", "up_total"), ("job", "shop"), ("pod", "checkout-0")] {
        let name = page.push_text(name.as_bytes());
        let value = page.push_text(value.as_bytes());
        labels.push(Label { name, value });
    }
    let mut arena = page.arena;
    // The first one makes room for joined values and for the expressions' own caches.
    assert!(rules.apply(&mut arena, &mut labels));
    let info = allocation_counter::measure(|| {
        for _ in 0..1000 {
            assert!(rules.apply(&mut arena, &mut labels));
        }
    });
    assert_eq!((info.count_total, labels.len()), (0, 3));
}

#[tokio::test]
async fn further_pages_are_served_as_json() {
    let admin = Admin::bind("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
    let board = Board::default();
    board.seen(&found(&Config::default(), vec![pod(&[], &[app()])]));
    let address = admin.address();
    let admin = admin.with_page("/targets", Arc::new(move || board.page(0)));
    let leave = CancellationToken::new();
    let serving = admin.serve(Health::new(), leave.clone());
    let asking = async {
        let get = |path: &'static str| async move {
            let got = tokio::task::spawn_blocking(move || Client::new(address).get(path)).await;
            got.expect("asked").expect("answered")
        };
        let pages = (get("/targets").await, get("/nothing").await);
        leave.cancel();
        pages
    };
    let (_, (targets, nothing)) = tokio::join!(serving, asking);
    assert_eq!((targets.status, nothing.status), (200, 404));
    let rows: Vec<Row> = serde_json::from_str(&targets.body).expect("rows");
    assert_eq!(
        (rows[0].pod.as_str(), rows[0].reason.as_str()),
        ("checkout-d994d45d6-5h9zr", "not_annotated")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn whatever_annotations_say_a_pod_is_dialled_at_its_own_address_or_not_at_all(
        scrape in "true|false|\\PC{0,5}",
        port in "[0-9]{0,6}|\\PC{0,8}|[0-9.:@/]{0,20}",
        path in "/[a-z/.@?\\r\\n ]{0,20}|\\PC{0,300}|//[a-z.]{1,9}/",
        scheme in "https?|\\PC{0,9}",
        replacement in "\\PC{0,12}|[0-9.:$@\\[\\]]{0,20}",
        last in 1_u8..255,
        host_network in any::<bool>(),
    ) {
        let annotations = [("scrape", scrape.as_str()), ("port", &port), ("path", &path), ("scheme", &scheme)];
        let ip: IpAddr = [10, 244, 0, last].into();
        let one = Pod { ip: Some(ip), host_network, ..pod(&annotations, &[app()]) };
        for config in [Config::default(), Config { mode: Mode::All, ..Config::default() }, relabelled(&[set(&["__address__"], "(.*):(.*)", "__address__", &replacement)])] {
            for candidate in found(&config, vec![one.clone()]) {
                let Ok(target) = candidate.found else { continue };
                prop_assert_eq!(&target.host, &ip.to_string());
                prop_assert!(!host_network && target.port != 0);
                let path = &target.path;
                prop_assert!(path.starts_with('/') && path.len() <= 256 && !path.contains("..") && !path.contains('@'));
                prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
