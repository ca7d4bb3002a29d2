//! The arithmetic of a picture, on looks with known numbers.

use std::sync::Arc;
use std::time::Duration;

use super::super::look::{Gauges, SinkCounters, SinkGauges};
use super::*;
use crate::data::account::Sums;
use crate::data::tally::Tally;
use crate::red::Summary;
use crate::scrape::status::Row;
use crate::sink::said::Said;

fn look(seconds: u64, counters: Counters) -> Look {
    Look {
        at: Duration::from_secs(seconds),
        time_unix_ms: 1_000 * seconds as i64,
        counters,
        ..Look::default()
    }
}

fn account(pod: &str) -> Account {
    Account {
        namespace: "shop".into(),
        pod: pod.into(),
        uid: format!("uid-{pod}"),
        container: "api".into(),
        restart: 0,
        service_name: "cart".into(),
        service_name_guessed: false,
        environment: None,
        tenant: None,
        sums: Sums::default(),
        generation_lag: 0,
        headroom_bytes: 1_000,
        write_rate: Some(100.0),
        time_to_loss: None,
        gone: false,
    }
}

#[test]
fn rates_are_what_grew_by_the_time_between_two_looks() {
    let before = Counters { records: 100, read_bytes: 5_000, kept_records: 90, ..Counters::default() };
    let now =
        Counters { records: 350, read_bytes: 15_000, kept_records: 40, unparsed: 50, ..Counters::default() };
    let (before, now) = (look(10, before), look(15, now));
    let first = overview(&now, None);
    assert_eq!(first.pipeline.read.lines, 350);
    assert_eq!((first.pipeline.read.lines_per_second, first.agent.rates_over_seconds), (None, None));
    let second = overview(&now, Some(&before));
    assert_eq!(second.agent.rates_over_seconds, Some(5.0));
    assert_eq!(second.pipeline.read.lines_per_second, Some(50.0));
    assert_eq!(second.pipeline.read.bytes_per_second, Some(2_000.0));
    assert_eq!(second.pipeline.parsed.lines, 300);
    assert_eq!(second.pipeline.processed.lines_per_second, None, "the counter went back");
}

#[test]
fn what_is_dropped_and_lost_is_told_by_reason() {
    let mut before = Counters::default();
    let mut now = Counters::default();
    let rule = ("sample".to_owned(), "chatty".to_owned());
    before.dropped.insert(rule.clone(), (10, 100));
    now.dropped.insert(rule, (30, 500));
    now.dropped.insert(("drop".into(), String::new()), (0, 0));
    before.lost.insert("rotated_away".into(), (0, 0));
    now.lost.insert("rotated_away".into(), (0, 640));
    before.lost.insert("refused_too_old".into(), (3, 30));
    now.lost.insert("refused_too_old".into(), (3, 30));
    let found = overview(&look(4, now), Some(&look(0, before)));
    assert_eq!(found.pipeline.dropped.len(), 1, "what was never dropped is not told");
    let dropped = &found.pipeline.dropped[0];
    assert_eq!((dropped.reason.as_str(), dropped.rule.as_str()), ("sample", "chatty"));
    assert_eq!((dropped.flow.lines, dropped.flow.lines_per_second), (30, Some(5.0)));
    let texts: Vec<(Level, &str)> =
        found.issues.iter().map(|issue| (issue.level, issue.text.as_str())).collect();
    let expected = [
        (Level::Down, "lines are being lost (rotated_away): 640 bytes since the start"),
        (Level::Notice, "3 lines were lost since the start (refused_too_old)"),
    ];
    assert_eq!(texts, expected);
    assert_eq!(found.agent.state, Level::Down);
}

#[test]
fn each_stream_has_one_state_and_the_worst_come_first() {
    let mut live = account("live");
    live.sums.in_flight = 200;
    let mut idle = account("idle");
    idle.write_rate = Some(0.0);
    let mut behind = account("behind");
    behind.sums.waiting = 2_000;
    let mut danger = account("danger");
    (danger.sums.waiting, danger.time_to_loss) = (400, Some(6.0));
    let mut losing = account("losing");
    losing.sums.lost[0] = Tally { records: 0, bytes: 70 };
    let mut gone = account("gone");
    (gone.gone, gone.write_rate) = (true, Some(0.0));
    let key = |pod: &str| (format!("uid-{pod}"), "api".to_owned(), 0);
    let mut before = Counters::default();
    let mut counters = Counters::default();
    for pod in ["live", "losing"] {
        before.streams.insert(key(pod), (10, 0));
    }
    counters.streams.insert(key("live"), (60, 0));
    counters.streams.insert(key("losing"), (10, 70));
    let now =
        Look { accounts: Arc::new(vec![idle, live, gone, behind, losing, danger]), ..look(10, counters) };
    let found = overview(&now, Some(&look(5, before)));
    let states: Vec<(&str, StreamState)> =
        found.streams.iter().map(|stream| (stream.pod.as_str(), stream.state)).collect();
    let expected = [
        ("losing", StreamState::Losing),
        ("danger", StreamState::InDanger),
        ("behind", StreamState::Behind),
        ("live", StreamState::Live),
        ("idle", StreamState::Idle),
        ("gone", StreamState::Gone),
    ];
    assert_eq!(states, expected);
    let live = &found.streams[3];
    assert_eq!((live.lag_bytes, live.lag_seconds, live.lines_per_second), (200, Some(2.0), Some(10.0)));
    assert_eq!(live.time_to_loss_seconds, None, "nothing is behind");
    assert_eq!(found.pipeline.pressure.time_to_loss_seconds, Some(6.0));
    let about = found.issues.iter().find(|issue| issue.text.contains("shop/danger in 6 s"));
    assert_eq!(about.map(|issue| issue.level), Some(Level::Degraded));
}

#[test]
fn a_sink_that_is_down_is_an_issue_with_its_last_words() {
    let mut counters = Counters::default();
    counters.sinks.insert(
        "loki.main".into(),
        SinkCounters {
            delivered: 500,
            sent_bytes: 4_000,
            requests: 9,
            retries: 3,
            ..SinkCounters::default()
        },
    );
    let mut before = Counters::default();
    before.sinks.insert("loki.main".into(), SinkCounters { delivered: 400, ..SinkCounters::default() });
    let gauges =
        SinkGauges { up: false, queue_bytes: 77, last_success_unix_seconds: Some(95), p99_seconds: None };
    let mut now = look(100, counters);
    now.gauges = Gauges { sinks: [("loki.main".to_owned(), gauges)].into(), ..Gauges::default() };
    now.said = vec![Said {
        sink: "loki.main".into(),
        error: "connection refused".into(),
        unix_seconds: 98,
        age_seconds: 2,
    }];
    let found = overview(&now, Some(&look(90, before)));
    let sink = &found.sinks[0];
    assert_eq!((sink.up, sink.queue_bytes, sink.signal.as_str()), (Some(false), 77, "logs"));
    assert_eq!(sink.delivered.lines_per_second, Some(10.0));
    assert_eq!((sink.last_success_age_seconds, sink.last_error_age_seconds), (Some(5.0), Some(2.0)));
    assert_eq!(found.pipeline.pressure.queue_bytes, 77);
    let expected = [Issue {
        level: Level::Degraded,
        about: "loki.main".into(),
        text: "connection refused; its lines wait on disk".into(),
    }];
    assert_eq!(found.issues, expected);
}

#[test]
fn checks_and_notes_are_issues_and_a_hang_is_the_worst() {
    let mut now = look(1, Counters::default());
    now.failing = vec![
        ("state_dir".into(), "cannot write".into(), false),
        ("logs".into(), "no sign of life for 90 s".into(), true),
    ];
    now.notes = vec![("red".into(), "not durable".into())];
    let found = overview(&now, None);
    let levels: Vec<(&str, Level)> =
        found.issues.iter().map(|issue| (issue.about.as_str(), issue.level)).collect();
    assert_eq!(levels, [("logs", Level::Down), ("state_dir", Level::Degraded), ("red", Level::Notice)]);
}

#[test]
fn services_keep_their_figures_and_a_rate_needs_time() {
    let figures = recent::Figures { requests: 120, errors: 6, p50: Some(0.01), p99: Some(0.2) };
    let known = recent::Service {
        namespace: "shop".into(),
        workload: "cart".into(),
        source: "log",
        confidence: 0.5,
        whole: recent::Figures { requests: 0, ..figures },
        minute: figures,
        minute_seconds: 60.0,
        history: vec![recent::Step { time_unix_ms: 9, per_second: 2.0, errors_per_second: 0.5, p99: None }],
        ..recent::Service::default()
    };
    let fresh = recent::Service { minute_seconds: 0.0, ..known.clone() };
    let summary = Summary { time_unix_ms: 9, services: vec![known, fresh], omitted: 4 };
    let now = Look { red: Arc::new(summary), ..Look::default() };
    let found = overview(&now, None);
    let minute = &found.services[0].last_minute;
    assert_eq!(
        (minute.per_second, minute.error_ratio, minute.p99_seconds),
        (Some(2.0), Some(0.05), Some(0.2))
    );
    assert_eq!(found.services[0].whole.error_ratio, None, "without requests");
    assert_eq!(found.services[1].last_minute.per_second, None);
    assert_eq!((found.omitted.services, found.services[0].history[0].per_second), (4, 2.0));
}

#[test]
fn targets_that_are_down_come_first_and_texts_are_bounded() {
    let row = |pod: &str, state| Row { pod: pod.into(), state, ..Row::default() };
    let mut down = row("down", TargetState::Down);
    (down.reason, down.message) = ("connect".into(), "é".repeat(600));
    let skipped = Row { reason: "not_annotated".into(), ..row("skipped", TargetState::NotScraped) };
    let mut now = Look {
        rows: Arc::new(vec![skipped, row("up", TargetState::Up), down, row("", TargetState::Unknown)]),
        ..Look::default()
    };
    let found = overview(&now, None);
    let names: Vec<(&str, &str)> =
        found.targets.iter().map(|target| (target.pod.as_str(), target.reason.as_str())).collect();
    assert_eq!(names, [("down", "connect"), ("", "static"), ("up", "pod"), ("skipped", "not_annotated")]);
    assert_eq!(found.targets[0].message.chars().count(), 257);
    let scraping = found.scraping;
    assert_eq!((scraping.up, scraping.down, scraping.unknown, scraping.not_scraped), (1, 1, 1, 1));
    assert_eq!(found.issues[0].text, "1 of 3 targets are down");
    now.rows = Arc::new(vec![Row::default(); 510]);
    let found = overview(&now, None);
    assert_eq!((found.targets.len(), found.omitted.targets), (500, 10));
}

#[test]
fn a_picture_is_read_back_as_it_was_written() {
    let mut now = look(7, Counters { records: 3, ..Counters::default() });
    now.accounts = Arc::new(vec![account("a")]);
    now.notes = vec![("red".into(), "x".into())];
    let found = overview(&now, Some(&look(5, Counters::default())));
    let text = serde_json::to_string(&found).expect("it has no odd keys");
    assert_eq!(serde_json::from_str::<Overview>(&text).expect("the same"), found);
    let of_less: Overview = serde_json::from_str("{\"sinks\":[{\"name\":\"x\"}]}").expect("all is optional");
    assert_eq!(of_less.sinks[0].name, "x");
}
