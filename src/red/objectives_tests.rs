//! Tests of how objectives are counted and shown while they come, change and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{About, Config, Declared, Door, Identity, Kind, LogTap, Matcher, Observed, Red, Slo};
use crate::data::access::{AccessTap, Request};
use crate::data::batch::Span;
use crate::data::position::{Generation, Position};
use crate::data::sample::Page;
use crate::data::workload::{self, ContainerRef, Identify, PathIdentity};

const MS: u64 = 1_000_000;

struct Rig {
    red: Red,
    tap: LogTap,
    offset: u64,
    seconds: i64,
}

impl Rig {
    fn new(red: Red) -> Self {
        Self { tap: red.tap(), red, offset: 0, seconds: 0 }
    }

    /// Requests of a pod of a workload in `shop`: status and milliseconds.
    fn count(&mut self, workload: &str, requests: &[(u16, u64)]) {
        let container = ContainerRef {
            namespace: "shop".into(),
            pod: format!("{workload}-0"),
            uid: "uid".into(),
            container: "app".into(),
            restart: 0,
        };
        let mut paths = PathIdentity { cluster: String::new(), node: "n".into(), environment: None };
        let workload::Identity::Known(instance) = paths.identify(&container, Default::default()) else {
            unreachable!("a path is always known")
        };
        let text = b"GET/a";
        let requests: Vec<Request> = requests
            .iter()
            .map(|&(status, ms)| {
                self.offset += 100;
                Request {
                    offset: self.offset - 100,
                    method: Span::new(0, 3),
                    route: Span::new(3, 5),
                    status,
                    duration_nano: Some(ms * MS),
                    ..Request::default()
                }
            })
            .collect();
        let generation = Generation { device: 1, inode: 2, head: 3 };
        let until = Position { generation, offset: self.offset, ..Position::default() };
        self.tap.count(&Arc::from(container.key()), &instance, &requests, text, until);
    }

    /// Samples of the next page by name and labels, less those that all have.
    fn page(&mut self) -> BTreeMap<String, f64> {
        self.seconds += 15;
        let mut page = Page::default();
        self.red.tick(self.seconds * 1_000, &mut page);
        let mut found = BTreeMap::new();
        for sample in &page.samples {
            let labels =
                page.labels_of(sample).iter().map(|label| (page.text(label.name), page.text(label.value)));
            let own = labels.filter(|(name, _)| {
                !["node", "namespace", "method", "route", "pod", "service"].contains(name)
            });
            let own: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
            found.insert(format!("{}{{{}}}", page.text(sample.name), own.join(",")), sample.value);
        }
        found
    }
}

fn events(page: &BTreeMap<String, f64>, workload: &str, slo: &str) -> Option<(f64, f64)> {
    let of = |result: &str| {
        page.get(&format!(
            "slo_events_total{{workload={workload},slo_id=shop/{workload}/{slo},result={result}}}"
        ))
    };
    of("good").copied().zip(of("bad").copied())
}

fn slo(workload: &str, name: &str, kind: Kind, door: Door) -> Slo {
    Slo {
        id: format!("shop/{workload}/{name}"),
        matcher: Matcher { namespace: Some("shop".into()), workload: Some(workload.into()) },
        kind,
        exclude_routes: Vec::new(),
        about: About {
            door,
            objective: "0.99".into(),
            window: "30d".into(),
            mode: "alert".into(),
            ..About::default()
        },
    }
}

fn declared(slos: Vec<Slo>) -> Declared {
    Declared {
        slos,
        observed: Some(Observed { objective: "0.999".into(), ..Observed::default() }),
        ..Declared::default()
    }
}

const FAST: Kind = Kind::Latency { threshold_nano: 20 * MS };

#[test]
fn a_workload_is_observed_until_it_has_an_availability_of_its_own() {
    let mut rig = Rig::new(Red::new(&Config::default(), None));
    let declarer = rig.red.declarer();
    declarer.declare(declared(vec![slo("api", "latency", FAST, Door::Pods)]));
    rig.count("api", &[(200, 10), (503, 30)]);
    let first = rig.page();
    assert_eq!(events(&first, "api", "observed"), Some((0.0, 0.0)), "born at 0");
    let page = rig.page();
    assert_eq!(events(&page, "api", "observed"), Some((1.0, 1.0)));
    assert_eq!(events(&page, "api", "latency"), Some((1.0, 1.0)));
    let info = "slo_objective_info{workload=api,slo_id=shop/api/observed,sli=availability,objective=0.999,mode=observe}";
    assert_eq!(page.get(info), Some(&1.0), "{page:?}");
    declarer.declare(declared(vec![slo("api", "availability", Kind::Availability, Door::Pods)]));
    rig.count("api", &[(200, 10)]);
    rig.page();
    let page = rig.page();
    assert_eq!(events(&page, "api", "observed"), None);
    assert_eq!(events(&page, "api", "availability"), Some((1.0, 0.0)));
    // It comes back, and so do its counts.
    declarer.declare(declared(Vec::new()));
    rig.count("api", &[(200, 10)]);
    let page = rig.page();
    assert_eq!(events(&page, "api", "observed"), Some((2.0, 1.0)));
    assert_eq!(events(&page, "api", "availability"), None);
}

#[test]
fn a_threshold_of_pods_is_a_bucket_of_their_own_workload_and_no_counter_goes_down() {
    let mut rig = Rig::new(Red::new(&Config::default(), None));
    let declarer = rig.red.declarer();
    rig.count("api", &[(200, 10), (200, 15)]);
    rig.count("web", &[(200, 10)]);
    rig.page();
    let bucket = |page: &BTreeMap<String, f64>, workload: &str, le: &str| {
        page.get(&format!("red_request_duration_seconds_bucket{{workload={workload},le={le}}}")).copied()
    };
    let before = rig.page();
    assert_eq!((bucket(&before, "api", "0.01"), bucket(&before, "api", "0.025")), (Some(1.0), Some(2.0)));
    assert_eq!(bucket(&before, "api", "0.02"), None);
    declarer.declare(declared(vec![slo("api", "latency", FAST, Door::Pods)]));
    rig.count("api", &[(200, 15), (200, 24)]);
    rig.count("web", &[(200, 10)]);
    let born = rig.page();
    assert_eq!(bucket(&born, "api", "0.02"), Some(0.0), "born at 0");
    let after = rig.page();
    assert_eq!((bucket(&after, "api", "0.01"), bucket(&after, "api", "0.025")), (Some(1.0), Some(4.0)));
    assert_eq!(bucket(&after, "api", "0.02"), Some(1.0), "what came since");
    assert_eq!((bucket(&after, "web", "0.02"), bucket(&after, "web", "0.01")), (None, Some(2.0)));
    for (name, value) in &before {
        let is_counter = !name.starts_with("red_source") && !name.starts_with("slo_");
        assert!(!is_counter || after.get(name).is_some_and(|now| now >= value), "{name} was {value}");
    }
    // It goes again, with its bucket.
    declarer.declare(declared(Vec::new()));
    rig.count("api", &[(200, 15)]);
    let gone = rig.page();
    assert_eq!((bucket(&gone, "api", "0.02"), bucket(&gone, "api", "0.025")), (None, Some(5.0)));
}

#[test]
fn what_pods_declared_is_known_after_a_restart_with_its_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::new(Red::new(&Config::default(), Some(dir.path())));
    let mine = slo("api", "latency", FAST, Door::Pods);
    let mine = Slo {
        exclude_routes: vec!["/healthz".into()],
        about: About { owner: "us".into(), ..mine.about },
        ..mine
    };
    let configured = slo("api", "availability", Kind::Availability, Door::Config);
    rig.red.declarer().declare(declared(vec![configured.clone(), mine.clone()]));
    rig.count("api", &[(200, 10), (503, 30), (200, 30)]);
    rig.page();
    rig.page();
    drop(rig);
    let mut rig = Rig::new(Red::new(&Config::default(), Some(dir.path())));
    assert_eq!(rig.red.declared_by_pods(), [mine.clone()]);
    // The config is known first, the pods' word later: what was counted waits for it.
    rig.red.declarer().declare(declared(vec![configured.clone()]));
    assert_eq!(events(&rig.page(), "api", "availability"), Some((2.0, 1.0)));
    rig.red.declarer().declare(declared(vec![configured, mine]));
    assert_eq!(events(&rig.page(), "api", "latency"), Some((1.0, 2.0)));
}

#[test]
fn a_present_workload_shows_its_availability_before_its_first_request_and_stays() {
    let mut rig = Rig::new(Red::new(&Config::default(), None));
    let present = Identity {
        node: "n".into(),
        namespace: "shop".into(),
        workload: "api".into(),
        ..Identity::default()
    };
    let slos = vec![
        slo("api", "availability", Kind::Availability, Door::Pods),
        slo("api", "latency", FAST, Door::Pods),
    ];
    rig.red.declarer().declare(Declared { present: vec![present], ..declared(slos) });
    let page = rig.page();
    assert_eq!(events(&page, "api", "availability"), Some((0.0, 0.0)));
    assert_eq!(
        events(&page, "api", "latency"),
        None,
        "nobody knows yet whether it will be counted from lines"
    );
    rig.count("api", &[(200, 10)]);
    rig.page();
    // An idle hour.
    for _ in 0..240 {
        rig.page();
    }
    let page = rig.page();
    assert_eq!(events(&page, "api", "availability"), Some((1.0, 0.0)));
    assert_eq!(events(&page, "api", "latency"), Some((1.0, 0.0)));
    rig.red.declarer().declare(declared(Vec::new()));
    for _ in 0..45 {
        rig.page();
    }
    assert_eq!(rig.page().keys().filter(|name| name.starts_with("slo_")).count(), 0);
}

#[test]
fn objectives_are_bounded_for_a_workload_and_in_all() {
    let mut rig = Rig::new(Red::new(&Config::default(), None));
    let many = |workload: &str| -> Vec<Slo> {
        let kind = |n: u64| Kind::Latency { threshold_nano: n * MS };
        (1..=40).map(|n| slo(workload, &format!("l{n}"), kind(n), Door::Pods)).collect()
    };
    let slos: Vec<Slo> = (0..20).flat_map(|n| many(&format!("w{n}x"))).collect();
    rig.red.declarer().declare(declared(slos));
    for n in 0..20 {
        rig.count(&format!("w{n}x"), &[(500, 10)]);
    }
    let before = crate::metrics::RED_REFUSED.with_label_values(&["objectives"]).get();
    rig.count("late", &[(500, 10)]);
    rig.page();
    let page = rig.page();
    let of = |workload: &str| {
        let start = format!("slo_objective_info{{workload={workload},");
        page.keys().filter(|name| name.starts_with(&start)).count()
    };
    assert_eq!(of("w0x"), 32);
    assert_eq!(page.keys().filter(|name| name.starts_with("slo_objective_info")).count(), 500);
    assert_eq!(of("late"), 0);
    assert!(crate::metrics::RED_REFUSED.with_label_values(&["objectives"]).get() > before);
}
