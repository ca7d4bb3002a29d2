//! What the agent writes to a real Prometheus equals what another real Prometheus scrapes of the same pages itself.
//!
//! Real services are scraped through a tee, which serves both scrapers one recorded body an interval.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::agent::{Agent, Settings};
use support::measured::{Kind, Measured};
use support::prometheus::{Labels, Prometheus, Server};
use support::tee::Tee;

/// How often targets are scraped.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long everything is up.
const UP: Duration = Duration::from_secs(22);

/// How long one target is down in the end.
const DOWN: Duration = Duration::from_secs(14);

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch").as_secs_f64()
}

/// A value of each series by the interval of the tee in which it was scraped.
type ByInterval = BTreeMap<Labels, BTreeMap<u64, String>>;

/// Everything that a server has of one target, by interval; and the intervals that it has, by time.
fn stored(server: &Server, target: SocketAddr) -> (ByInterval, BTreeMap<i64, u64>) {
    let (selector, at) = (format!("{{instance=\"{target}\"}}"), now());
    let series = server.samples(&selector, "5m", at);
    let ticks: BTreeMap<i64, u64> = series
        .iter()
        .filter(|(labels, _)| labels["__name__"] == "tee_interval")
        .flat_map(|(_, samples)| samples.iter().map(|(time, value)| (*time, *value as u64)))
        .collect();
    let mut found = ByInterval::new();
    for (labels, samples) in series {
        if labels["__name__"] == "scrape_duration_seconds" {
            continue;
        }
        let values = samples.iter().filter_map(|(time, value)| {
            // NaN is not equal to itself, but its text is.
            Some((*ticks.get(time)?, format!("{value:?}")))
        });
        found.insert(labels, values.collect());
    }
    (found, ticks)
}

/// The first two intervals of either scraper are left out: a first scrape adds all series.
fn common(one: &BTreeMap<i64, u64>, other: &BTreeMap<i64, u64>) -> BTreeSet<u64> {
    let settled = |ticks: &BTreeMap<i64, u64>| ticks.values().skip(2).copied().collect::<BTreeSet<_>>();
    settled(one).intersection(&settled(other)).copied().collect()
}

fn only(all: ByInterval, intervals: &BTreeSet<u64>) -> ByInterval {
    let kept = all.into_iter().map(|(labels, values)| {
        let values: BTreeMap<_, _> =
            values.into_iter().filter(|(interval, _)| intervals.contains(interval)).collect();
        (labels, values)
    });
    kept.filter(|(_, values)| !values.is_empty()).collect()
}

fn differences(ours: &ByInterval, theirs: &ByInterval) -> Vec<String> {
    let names: BTreeSet<&Labels> = ours.keys().chain(theirs.keys()).collect();
    let differing = names.into_iter().filter(|labels| ours.get(*labels) != theirs.get(*labels));
    differing
        .map(|labels| format!("{labels:?}\n   ours {:?}\n theirs {:?}", ours.get(labels), theirs.get(labels)))
        .collect()
}

#[test]
fn what_arrives_equals_what_a_real_prometheus_scrapes_itself() {
    let services: Vec<Measured> = Kind::ALL.iter().map(|kind| Measured::start(*kind, None)).collect();
    let tees: Vec<Tee> = services.iter().map(|service| Tee::start(service.address(), INTERVAL)).collect();
    let targets: Vec<String> = tees.iter().map(|tee| format!("\"{}\"", tee.address())).collect();
    let theirs = Prometheus::with(
        &format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 1900ms}}\nscrape_configs:\n- job_name: shop\n  \
             static_configs:\n  - targets: [{}]\n    labels: {{cluster: test, node: node-1}}\n",
            targets.join(", ")
        ),
        &[],
    );
    let ours = Prometheus::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings {
        rest: format!(
            "[scrape]\ninterval = \"2s\"\ntimeout = \"1900ms\"\n\
             [[scrape.static]]\njob = \"shop\"\ntargets = [{}]\n\
             [sink.remote_write.main]\nurl = \"{}\"\n",
            targets.join(", "),
            ours.write_url()
        ),
        ..Settings::default()
    };
    let logs = directory.path().join("pods");
    std::fs::create_dir_all(&logs).expect("an empty log root");
    let mut agent = Agent::prepare(&directory.path().join("agent"), &logs, &settings);
    agent.launch();
    agent.wait_ready();

    let begun = Instant::now();
    let begun_at = now();
    let mut number = 0_u64;
    while begun.elapsed() < UP {
        number += 1;
        for service in &services {
            let (trace, span) = (format!("{:016x}{number:016x}", 0xabc), format!("{number:016x}"));
            assert_eq!(service.call_traced(&format!("/orders/{number}"), &trace, &span), 200);
            if number.is_multiple_of(5) {
                service.call_traced(&format!("/fail/{number}"), &trace, &span);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended_at = now();
    tees[0].go_down();
    std::thread::sleep(DOWN);

    let mut wrong = Vec::new();
    for (tee, service) in tees.iter().zip(&services) {
        let (address, name) = (tee.address(), service.kind().name());
        let ((our, our_ticks), (their, their_ticks)) = (stored(&ours, address), stored(&theirs, address));
        let intervals = common(&our_ticks, &their_ticks);
        assert!(intervals.len() >= 4, "{name}: {our_ticks:?} {their_ticks:?}\n{}", agent.said());
        let (our, their) = (only(our, &intervals), only(their, &intervals));
        assert!(their.len() > 20, "{name} has more series than {}", their.len());
        wrong.extend(differences(&our, &their).into_iter().map(|line| format!("{name}: {line}")));
        // A series that comes and goes has ended where it is not there.
        for (server, ticks) in [(&*ours, &our_ticks), (&*theirs, &their_ticks)] {
            for (time, interval) in ticks.iter().filter(|(_, interval)| intervals.contains(interval)) {
                let at = *time as f64 / 1000.0 + 0.1;
                let there = server.query(&format!("tee_sometimes{{instance=\"{address}\"}}"), Some(at));
                assert_eq!(there.len(), usize::from(interval % 3 == 0), "{name} in interval {interval}");
            }
        }
    }
    assert!(wrong.is_empty(), "{} series differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));

    // What a target that has died leaves: `up 0`, and nothing else but what scraping itself says.
    let dead = tees[0].address();
    for server in [&*ours, &*theirs] {
        let left = server.query(&format!("{{instance=\"{dead}\"}}"), None);
        let left: BTreeMap<&str, f64> =
            left.iter().map(|(labels, v)| (labels["__name__"].as_str(), *v)).collect();
        let names: Vec<&str> = left.keys().copied().collect();
        assert_eq!(
            names,
            [
                "scrape_duration_seconds",
                "scrape_samples_post_metric_relabeling",
                "scrape_samples_scraped",
                "scrape_series_added",
                "up"
            ]
        );
        assert_eq!(left["up"], 0.0);
    }

    // Exemplars of pages that both have seen.
    let (from, to) = (begun_at + 6.0, ended_at - 6.0);
    let exemplars = |server: &Prometheus| {
        let mut all = BTreeSet::new();
        for (series, exemplars) in server.exemplars("{__name__=~\".+\"}", from, to) {
            for (labels, time, value) in exemplars {
                all.insert((series.clone(), labels, time, format!("{value:?}")));
            }
        }
        all
    };
    let (our, their) = (exemplars(&ours), exemplars(&theirs));
    assert!(their.len() > 10, "{} exemplars", their.len());
    let (missing, added) =
        (their.difference(&our).collect::<Vec<_>>(), our.difference(&their).collect::<Vec<_>>());
    assert!(missing.is_empty() && added.is_empty(), "missing {missing:#?}\nadded {added:#?}");
    agent.terminate();
}
