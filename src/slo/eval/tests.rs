//! The evaluator over whole objectives.

use super::super::config::Config as Slo;
use super::*;

const M: i64 = 60_000;

fn specs(text: &str) -> (Vec<Spec>, Defaults) {
    let config: Slo = toml::from_str(text).expect("objectives");
    assert_eq!(config.problems(), []);
    (config.specs(), config.defaults)
}

const ONE: &str = "defaults = { mode = \"alert\", owner = \"shop\" }\n[up]\nmatch = { namespace = \"shop\", workload = \"api\" }\n\
                   sli = \"availability\"\nobjective = \"99.95%\"\n";
const ID: &str = "shop/api/up";

fn evaluator(text: &str) -> Evaluator {
    compressed(text, 1)
}

/// One whose time goes so many times faster.
fn compressed(text: &str, compression: u32) -> Evaluator {
    let (specs, defaults) = specs(text);
    let evaluator = Evaluator::new(&specs, &defaults, &Config { compression, ..Config::default() });
    assert_eq!(evaluator.problems().collect::<Vec<_>>(), []);
    evaluator
}

/// A service whose counters are published every 15 s, at `per_minute` requests of which a share is bad.
struct Service {
    at_ms: i64,
    good: f64,
    bad: f64,
}

impl Service {
    fn new(at_ms: i64) -> Self {
        Self { at_ms, good: 0.0, bad: 0.0 }
    }

    fn publish(&self, evaluator: &mut Evaluator) {
        for (class, value) in [("2xx", self.good), ("5xx", self.bad)] {
            let labels = [
                ("cluster", "c"),
                ("code_class", class),
                ("method", "GET"),
                ("namespace", "shop"),
                ("node", "n"),
                ("pod", "api-1"),
                ("route", "/pay"),
                ("service", "api"),
                ("workload", "api"),
            ];
            evaluator.take_one("red_requests_total", &labels, self.at_ms, value);
        }
    }

    /// Runs for so many minutes; at each evaluation `seen` is asked.
    fn run(
        &mut self,
        evaluator: &mut Evaluator,
        minutes: i64,
        per_minute: f64,
        errors: f64,
        mut seen: impl FnMut(&Evaluator, i64),
    ) {
        let end = self.at_ms + minutes * M;
        while self.at_ms < end {
            self.at_ms += 15_000;
            self.good += per_minute / 4.0 * (1.0 - errors);
            self.bad += per_minute / 4.0 * errors;
            self.publish(evaluator);
            if let Some(at) = evaluator.due(self.at_ms) {
                evaluator.evaluate(at);
                seen(evaluator, at);
            }
        }
    }
}

/// Minutes after `from` at which an alert began to fire and at which it ended.
fn turns(
    service: &mut Service,
    evaluator: &mut Evaluator,
    alert: &str,
    from: i64,
    stretches: &[(i64, f64, f64)],
) -> Vec<f64> {
    let (mut found, mut before) = (Vec::new(), evaluator.fires(ID, alert));
    for &(minutes, per_minute, errors) in stretches {
        service.run(evaluator, minutes, per_minute, errors, |evaluator, at| {
            let now = evaluator.fires(ID, alert);
            if now != before {
                found.push((at - from) as f64 / M as f64);
                before = now;
            }
        });
    }
    found
}

#[test]
fn an_outage_of_ten_minutes_pages_and_clears_as_the_rules_do() {
    let begin = 1_700_000_100_000 / (5 * M) * 5 * M;
    // A day is summed up from slices of five minutes: a ticket waits for the first of them to end.
    for (alert, fires, clears) in
        [("SLOErrorBudgetBurn", 0.5, 10.0 + 29.0), ("SLOErrorBudgetBurnSlow", 5.0, 10.0 + 359.0)]
    {
        let (mut evaluator, mut service) = (evaluator(ONE), Service::new(begin));
        service.run(&mut evaluator, 360, 12_000.0, 0.0, |_, _| {});
        let stretches = [(10, 12_000.0, 1.0), (400, 12_000.0, 0.0)];
        let turns = turns(&mut service, &mut evaluator, alert, begin + 360 * M, &stretches);
        assert_eq!(turns.len(), 2, "{alert}: {turns:?}");
        assert!((turns[0] - fires).abs() <= 1.0 && (turns[1] - clears).abs() <= 2.0, "{alert}: {turns:?}");
    }
}

#[test]
fn compressed_time_does_in_a_minute_what_an_hour_does() {
    // One figure a second, as 60 seconds of the evaluator's time; an outage of ten seconds.
    let begin = 1_700_000_100_000;
    let (mut evaluator, mut good, mut bad) = (compressed(ONE, 60), 0.0, 0.0);
    let mut turns = Vec::new();
    for second in 0..=120_i64 {
        let now = begin + second * 1_000;
        let is_out = (60..70).contains(&second);
        (good, bad) = if is_out { (good, bad + 20.0) } else { (good + 20.0, bad) };
        for (class, value) in [("2xx", good), ("5xx", bad)] {
            let labels =
                [("cluster", "c"), ("code_class", class), ("namespace", "shop"), ("workload", "api")];
            evaluator.take_one("red_requests_total", &labels, now, value);
        }
        let Some(at) = evaluator.due(now) else { panic!("at least once a second") };
        assert!(at <= now && now - at <= 500, "half a minute is half a second: {at} of {now}");
        let before = evaluator.fires(ID, "SLOErrorBudgetBurn");
        evaluator.evaluate(at);
        assert_eq!(evaluator.due(now), None);
        if evaluator.fires(ID, "SLOErrorBudgetBurn") != before {
            turns.push(second - 60);
        }
    }
    assert_eq!(turns.len(), 2, "{turns:?}");
    assert!((0..=3).contains(&turns[0]), "it fires within seconds: {turns:?}");
    // Thirty minutes without a failure: half a minute.
    assert!((38..=41).contains(&turns[1]), "{turns:?}");
    let report = evaluator.report();
    assert_eq!((report.compression, report.evaluated_unix_ms), (60, Some(begin + 120_000)));
    let left = report.objectives[0].budget_remaining.expect("it is known");
    // Two slices of five minutes, all bad, of the 8,640 of thirty days: 0.023 % of 0.05 %.
    assert!((0.3..0.7).contains(&left), "{left}");
    let row = &report.objectives[0].alerts[0];
    assert_eq!((row.name.as_str(), row.state.as_str()), ("SLOErrorBudgetBurn", "inactive"));
    let told = evaluator.told();
    let still: Vec<&str> = told.iter().map(|told| told.labels["severity"].as_str()).collect();
    assert_eq!(
        still,
        ["ticket"],
        "an end is told for a quarter of an hour: fifteen seconds. Tickets take two hours to end"
    );
}

#[test]
fn an_alert_of_compressed_time_says_so_and_has_times_of_the_clock() {
    let begin = 1_700_000_100_000;
    let mut evaluator = compressed(ONE, 60);
    for second in 0..=20_i64 {
        let now = begin + second * 1_000;
        let labels = [("cluster", "c"), ("code_class", "5xx"), ("namespace", "shop"), ("workload", "api")];
        evaluator.take_one("red_requests_total", &labels, now, (second * 10) as f64);
        evaluator.evaluate(now);
    }
    let told = evaluator.told();
    let page = told.iter().find(|told| told.labels["severity"] == "page").expect("it pages");
    assert_eq!(
        page.annotations["summary"],
        "[demonstration, time x60] shop/api: availability SLO 99.95% is burning"
    );
    assert!(page.annotations["time_compression"].contains("60 times faster"));
    assert!(page.starts_unix_ms > begin && page.starts_unix_ms <= begin + 20_000, "{}", page.starts_unix_ms);
    let told = self::evaluator(ONE);
    assert_eq!(told.report().compression, 1);
}

#[test]
fn one_percent_of_errors_pages_after_three_quarters_of_an_hour() {
    let begin = 1_700_000_100_000;
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(begin));
    service.run(&mut evaluator, 360, 12_000.0, 0.0, |_, _| {});
    let turns =
        turns(&mut service, &mut evaluator, "SLOErrorBudgetBurn", begin + 360 * M, &[(60, 12_000.0, 0.01)]);
    assert_eq!(turns.len(), 1);
    assert!((turns[0] - 43.5).abs() <= 1.0, "{turns:?}");
}

#[test]
fn one_failed_request_at_one_a_minute_pages_nobody() {
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(1_700_000_100_000));
    service.run(&mut evaluator, 120, 1.0, 0.0, |_, _| {});
    service.run(&mut evaluator, 1, 1.0, 1.0, |_, _| {});
    service.run(&mut evaluator, 60, 1.0, 0.0, |evaluator, _| {
        assert!(!evaluator.fires(ID, "SLOErrorBudgetBurn"));
    });
}

#[test]
fn traffic_that_is_gone_pages_for_as_long_as_it_is_gone() {
    let begin = 1_700_000_100_000;
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(begin));
    service.run(&mut evaluator, 120, 600.0, 0.0, |_, _| {});
    let from = service.at_ms;
    let mut fired = Vec::new();
    for half in 1..=480 {
        evaluator.evaluate((from + half * 30_000) / 30_000 * 30_000);
        fired.push(evaluator.fires(ID, "SLOTrafficVanished"));
    }
    // The last five minutes must be empty, then it holds for five.
    let first = fired.iter().position(|fires| *fires).expect("it fires") as f64 / 2.0;
    assert!((9.0..=11.0).contains(&first), "{first}");
    assert!(fired.iter().skip_while(|fires| !**fires).all(|fires| *fires), "four hours long");
    assert_eq!(evaluator.value(ID, "slo:sli_error:ratio_rate5m"), None, "no data is nothing");
    assert_eq!(evaluator.report().objectives[0].good["5m"], None);
    service.at_ms = from + 240 * M;
    service.run(&mut evaluator, 3, 600.0, 0.0, |_, _| {});
    assert!(!evaluator.fires(ID, "SLOTrafficVanished"));
}

#[test]
fn an_alert_says_what_burns() {
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(1_700_000_100_000));
    service.run(&mut evaluator, 60, 600.0, 0.0, |_, _| {});
    service.run(&mut evaluator, 30, 600.0, 0.1, |_, _| {});
    let told = evaluator.told();
    let page = told.iter().find(|told| told.labels["alertname"] == "SLOErrorBudgetBurn").expect("it pages");
    let labels: Vec<String> = page.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        labels,
        [
            "alertname=SLOErrorBudgetBurn",
            "cluster=c",
            "namespace=shop",
            "owner=shop",
            "severity=page",
            "slo=up",
            "slo_id=shop/api/up",
            "workload=api"
        ]
    );
    let said = |name: &str| page.annotations.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(said("summary"), "shop/api: availability SLO 99.95% is burning");
    // 5 % of the last hour failed: a hundred times the 0.05 % that is allowed.
    assert!(
        said("description").starts_with("Over 1h the error budget burns 100.0 times as fast as allowed. "),
        "{}",
        said("description")
    );
    assert!(said("description").contains("Of the 30d budget ") && said("description").contains("is left"));
    assert_eq!(said("top_routes"), "/pay 1800; ");
    assert_eq!(said("worst_pods"), "api-1 1800; ");
    assert_eq!(said("logs_query"), "{namespace=\"shop\", service_name=\"api\"} | http_status =~ \"5..\"");
    assert_eq!(said("dashboard_url"), "/d/nodewick-slo-detail?var-cluster=c&var-slo_id=shop/api/up");
    assert!(said("runbook_url").ends_with("/SLOErrorBudgetBurn.md"));
}

#[test]
fn an_observed_objective_is_measured_and_calls_nobody() {
    let text = ONE.replace("\"alert\"", "\"observe\"");
    let (mut evaluator, mut service) = (evaluator(&text), Service::new(1_700_000_100_000));
    service.run(&mut evaluator, 60, 600.0, 0.5, |_, _| {});
    assert!(evaluator.told().is_empty() && evaluator.report().objectives[0].alerts.is_empty());
    let burn = evaluator.value(ID, "slo:burn_rate:ratio_rate1h").expect("it is measured");
    assert!((burn - 1_000.0).abs() < 1e-6, "half of all failed, 0.05 % may: {burn}");
}

#[test]
fn a_restart_forgets_nothing() {
    let begin = 1_700_000_100_000;
    let (mut first, mut service) = (evaluator(ONE), Service::new(begin));
    service.run(&mut first, 400, 600.0, 0.0, |_, _| {});
    service.run(&mut first, 10, 600.0, 1.0, |_, _| {});
    let saved = first.save();
    let mut second = evaluator(ONE);
    second.restore(&saved).expect("it is whole");
    second.resume(service.at_ms);
    assert_eq!(second.told(), first.told());
    assert_eq!(second.report(), first.report());
    let mut again = Service { ..service };
    service.run(&mut first, 45, 600.0, 0.0, |_, _| {});
    again.run(&mut second, 45, 600.0, 0.0, |_, _| {});
    assert_eq!(second.told(), first.told());
    assert_eq!(second.report(), first.report());
    assert!(second.told().iter().any(|told| told.ended_unix_ms.is_some()), "the end is told");
}

#[test]
fn what_is_damaged_is_not_believed() {
    let (mut first, mut service) = (evaluator(ONE), Service::new(1_700_000_100_000));
    service.run(&mut first, 60, 600.0, 1.0, |_, _| {});
    let saved = FORM.pack(&first.save()).expect("it fits");
    for at in [0, 9, 13, 17, 40, saved.len() - 1] {
        let mut bytes = saved.clone();
        bytes[at] ^= 0x55;
        let mut second = evaluator(ONE);
        let read = FORM.unpack(&bytes).and_then(|plain| second.restore(&plain));
        assert!(read.is_err(), "{at}");
        assert!(second.told().is_empty() && second.last_unix_ms().is_none() && second.series() == 0);
    }
    for length in [0, 10, 20, saved.len() / 2] {
        assert!(FORM.unpack(&saved[..length]).is_err());
        assert!(evaluator(ONE).restore(&first.save()[..length]).is_err());
    }
}

#[test]
fn an_objective_that_counts_something_else_begins_anew() {
    let (mut first, mut service) = (evaluator(ONE), Service::new(1_700_000_100_000));
    service.run(&mut first, 60, 600.0, 0.1, |_, _| {});
    let saved = first.save();
    let mut stricter = evaluator(&ONE.replace("99.95%", "99.9%"));
    stricter.restore(&saved).expect("it is whole");
    assert!(stricter.report().objectives[0].good["1h"].is_some(), "another objective, the same events");
    let mut other = evaluator(&format!("{ONE}exclude_routes = [\"/pay\"]\n"));
    other.restore(&saved).expect("it is whole");
    assert_eq!(other.report().objectives[0].good["1h"], None);
    assert!(!other.told().is_empty(), "the end of its alerts is still to be told");
}

#[test]
fn a_clock_that_jumps_does_bounded_harm() {
    let begin = 1_700_000_100_000;
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(begin));
    service.run(&mut evaluator, 120, 600.0, 0.0, |_, _| {});
    let before = service.at_ms;
    assert_eq!(evaluator.due(before - 2 * M), None, "a small step back is waited for");
    // An hour back: what lies in the future goes, and the counters go on.
    service.at_ms -= 60 * M;
    assert!(evaluator.due(service.at_ms).is_some());
    service.run(&mut evaluator, 10, 600.0, 0.0, |_, _| {});
    assert_eq!(evaluator.clock_set_back(), 1);
    assert_eq!(evaluator.report().objectives[0].good["5m"], Some(1.0));
    // A day ahead: nothing fires, and what was seen is still counted.
    service.at_ms += 1_440 * M;
    service.run(&mut evaluator, 20, 600.0, 0.0, |evaluator, _| assert!(evaluator.told().is_empty()));
    assert_eq!(evaluator.report().objectives[0].good["30d"], Some(1.0));
}

#[test]
fn every_rendered_rule_is_understood() {
    let text = "defaults = { mode = \"alert\" }\n[a]\nmatch = { namespace = \"n\", service = \"s\" }\nsli = \"availability\"\n\
                objective = \"99%\"\nwindow = \"28d\"\n[b]\nmatch = { namespace = \"n\", workload = \"w\" }\nsli = \"latency\"\n\
                objective = \"99%\"\nthreshold = \"200ms\"\nwindow = \"7d\"\n[c]\nmatch = { namespace = \"n\", workload = \"w\", route = \"/a%b\" }\n\
                sli = \"latency\"\nobjective = \"99.9%\"\nthreshold = \"1s\"\nwindow = \"90d\"\n";
    evaluator(text);
}

#[test]
fn the_page_has_the_names_of_the_rules() {
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(1_700_000_100_000));
    service.run(&mut evaluator, 60, 600.0, 0.5, |_, _| {});
    let mut page = Page::default();
    evaluator.write(&mut page);
    let names: std::collections::BTreeSet<&str> =
        page.samples.iter().map(|sample| page.text(sample.name)).collect();
    for name in [
        "slo:burn_rate:ratio_rate5m",
        "slo:burn_rate:ratio_rate1h",
        "slo:burn_rate:ratio_rate6h",
        "slo:burn_rate:ratio_rate3d",
        "slo:error_budget_remaining:ratio",
        "slo:window_coverage:ratio30d",
        "slo:objective:ratio",
        "slo:info",
        "ALERTS",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    let alert = page.samples.iter().find(|sample| page.text(sample.name) == "ALERTS").expect("one fires");
    for (name, value) in [("slo_id", ID), ("severity", "page"), ("alertstate", "firing")] {
        assert_eq!(page.label(alert, name.as_bytes()), Some(value.as_bytes()));
    }
}

#[test]
fn memory_is_bounded_and_small() {
    let (mut evaluator, mut service) = (evaluator(ONE), Service::new(1_700_000_100_000));
    service.run(&mut evaluator, 420, 600.0, 0.01, |_, _| {});
    assert!(evaluator.bytes() < 64 << 10, "{}", evaluator.bytes());
    let (specs, _) = specs(ONE);
    assert_eq!(memory_bound(specs.iter()), (16 << 20) + 2 * (8_640 * 16 + (64 << 10)));
    assert_eq!(memory_bound([].iter()), 0);
}
