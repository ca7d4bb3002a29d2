//! Tests of which objectives are counted: whose word stands, and for how long.

use super::*;

fn config() -> slo::Config {
    toml::from_str(
        "[fast]\nmatch = { namespace = \"shop\", workload = \"api\" }\nsli = \"latency\"\nobjective = \"99%\"\nthreshold = \
         \"200ms\"\nexclude_routes = [\"/healthz\"]\n[pay]\nmatch = { namespace = \"shop\", service = \"api\" }\nsli = \
         \"latency\"\nobjective = \"99%\"\nthreshold = \"300ms\"\n",
    )
    .expect("a config")
}

#[test]
fn objectives_of_workloads_are_counted_and_others_get_a_bucket() {
    let counted = counted(&config());
    assert_eq!(counted.len(), 1);
    assert_eq!(
        (counted[0].id.as_str(), counted[0].exclude_routes.as_slice()),
        ("shop/api/fast", &["/healthz".to_owned()][..])
    );
    assert_eq!(counted[0].kind, red::Kind::Latency { threshold_nano: 200_000_000 });
    assert_eq!((counted[0].about.objective.as_str(), counted[0].about.window.as_str()), ("0.99", "30d"));
    assert!(counted[0].matches("shop", "api") && !counted[0].matches("bank", "api"));
    let red = with_buckets(&red::Config::default(), &config());
    assert_eq!(red.thresholds, [Span::millis(300)]);
}

fn pod(name: &str, created_unix: i64, annotations: &[(&str, &str)]) -> Arc<Pod> {
    let annotations =
        annotations.iter().map(|(key, value)| (format!("slo.nodewick.dev/{key}"), (*value).to_owned()));
    Arc::new(Pod {
        namespace: "shop".into(),
        name: name.into(),
        created_unix,
        annotations: annotations.collect(),
        ..Pod::default()
    })
}

const OLD: &str = "till-d994d45d6-5h9zr";
const NEW: &str = "till-7d9f8b6c5-x2k4t";

fn state() -> State {
    let config = config();
    State { config: counted(&config), taken: ["shop/api/fast".to_owned()].into(), ..State::default() }
}

/// Ids and what is asked of those that pods declare.
fn said(declared: &red::Declared) -> Vec<(&str, &str, red::Kind)> {
    let of_pods = declared.slos.iter().filter(|slo| slo.about.door == red::Door::Pods);
    of_pods.map(|slo| (slo.id.as_str(), slo.about.objective.as_str(), slo.kind)).collect()
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn the_newest_pod_of_a_workload_decides() {
    let mut state = state();
    let old = pod(OLD, 100, &[("availability", "99.9%/30d"), ("latency", "99% < 200ms")]);
    let declared = state.look(&[old.clone()], true, secs(0)).expect("news");
    let fast = red::Kind::Latency { threshold_nano: 200_000_000 };
    let before =
        [("shop/till/availability", "0.999", red::Kind::Availability), ("shop/till/latency", "0.99", fast)];
    assert_eq!(said(&declared), before);
    assert_eq!(declared.slos.len(), 3, "the config's own");
    let present: Vec<&str> = declared.present.iter().map(|of| of.workload.as_str()).collect();
    assert_eq!(present, ["till"], "no pod of shop/api is on this node");
    assert_eq!(declared.observed.as_ref().map(|of| of.objective.as_str()), Some("0.999"));
    assert!(state.look(&[old.clone()], true, secs(1)).is_none(), "nothing new");
    let new = pod(NEW, 200, &[("availability", "99.95%/28d"), ("mode", "alert")]);
    let declared = state.look(&[new.clone(), old.clone()], true, secs(2)).expect("news");
    assert_eq!(said(&declared), [("shop/till/availability", "0.9995", red::Kind::Availability)]);
    assert!(state.look(&[new.clone()], true, secs(3)).is_none(), "the old one is gone");
    let bare = pod("till-5c9d8b7f4d-zxcvb", 300, &[]);
    let declared = state.look(&[new, bare], true, secs(4)).expect("news");
    assert_eq!(said(&declared), []);
    assert_eq!(declared.present, []);
}

#[test]
fn objectives_hold_for_a_while_after_the_last_pod() {
    let mut state = state();
    let only = pod(OLD, 100, &[("availability", "99.9%")]);
    state.look(&[only.clone()], true, secs(0)).expect("news");
    let declared = state.look(&[], true, secs(10)).expect("news: it is not present");
    assert_eq!((said(&declared).len(), declared.present.len()), (1, 0));
    assert!(state.look(&[], true, secs(600)).is_none());
    assert_eq!(said(&state.look(&[], true, secs(610)).expect("news")), []);
    state.look(&[only], true, secs(700)).expect("it is back");
}

#[test]
fn what_an_earlier_life_knew_holds_until_all_pods_are_known() {
    let mut state = state();
    let spec = |objective: &str| {
        let (specs, _) = annotations::read(
            [("slo.nodewick.dev/availability", objective)],
            "shop",
            "till",
            &Default::default(),
        );
        to_count(specs[0].clone(), red::Door::Pods)
    };
    let name = ("shop".to_owned(), "till".to_owned());
    state.known.insert(name, Known { slos: vec![spec("99.95%")], gone: None });
    let old = pod(OLD, 100, &[("availability", "99.9%")]);
    let declared = state.look(&[old.clone()], false, secs(0)).expect("news");
    assert_eq!(said(&declared)[0].1, "0.9995");
    let declared = state.look(&[old], true, secs(1)).expect("news");
    assert_eq!(said(&declared)[0].1, "0.999");
}

#[test]
fn the_configs_word_stands_before_a_pods() {
    let mut state = state();
    state.taken.insert("shop/till/availability".to_owned());
    let pod = pod(OLD, 100, &[("availability", "99.9%"), ("latency", "99% < 1s")]);
    let declared = state.look(&[pod], true, secs(0)).expect("news");
    let ids: Vec<&str> = said(&declared).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["shop/till/latency"]);
}

#[test]
fn a_wrong_annotation_is_counted_once_and_the_others_hold() {
    let before = metrics::KUBE_ANNOTATION_PROBLEMS.get();
    let mut state = state();
    let wrong = [("availability", "100%/30d"), ("latency", "99% < 1s")];
    let declared = state.look(&[pod(OLD, 100, &wrong)], true, secs(0)).expect("news");
    assert_eq!(said(&declared).len(), 1);
    state.look(&[pod(NEW, 200, &wrong)], true, secs(1));
    assert_eq!(state.said.len(), 1, "{:?}", state.said);
    assert!(metrics::KUBE_ANNOTATION_PROBLEMS.get() > before);
}
