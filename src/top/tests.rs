//! What the screen shows of a fixed picture, and what keys do to it.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Flow};
use super::draw::draw;
use super::source::Source;
use super::table::{View, bytes, number, percent, span, table};
use super::{Options, plain};
use crate::overview::{
    About, Flow as Passed, Issue, Level, Objective, ObjectiveState, Objectives, Omitted, Overview, Pipeline,
    Pressure, Red, Service, Sink, Stream, StreamState, Target, TargetState,
};

fn options() -> Options {
    Options {
        interval: Duration::from_secs(1),
        colour: false,
        view: View::Streams,
        sort: None,
        filter: String::new(),
    }
}

fn flow(lines: u64, lines_per_second: f64, bytes_per_second: f64) -> Passed {
    Passed {
        lines,
        bytes: 0,
        lines_per_second: Some(lines_per_second),
        bytes_per_second: Some(bytes_per_second),
    }
}

fn stream(pod: &str, state: StreamState, rate: f64, lag: Option<f64>, loss: Option<f64>) -> Stream {
    Stream {
        namespace: "shop".into(),
        pod: pod.into(),
        container: "main".into(),
        service: "checkout".into(),
        bytes_per_second: Some(rate),
        lines_per_second: Some(rate / 100.0),
        lag_bytes: 2_048,
        lag_seconds: lag,
        time_to_loss_seconds: loss,
        state,
        ..Stream::default()
    }
}

fn picture() -> Overview {
    Overview {
        agent: About {
            version: "0.1.0".into(),
            node: "node-1".into(),
            cluster: "prod".into(),
            uptime_seconds: 7_500.0,
            rates_over_seconds: Some(2.0),
            state: Level::Degraded,
            memory_bytes: Some(47_185_920),
            memory_limit_bytes: Some(134_217_728),
            cpu_cores: Some(0.031),
            ..About::default()
        },
        pipeline: Pipeline {
            written: flow(0, 0.0, 2_097_152.0),
            read: flow(900, 950.0, 2_097_152.0),
            delivered: flow(800, 12_345.0, 1_048_576.0),
            pressure: Pressure {
                budget_held_bytes: 1_048_576,
                budget_limit_bytes: 67_108_864,
                unread_bytes: 512,
                ..Pressure::default()
            },
            ..Pipeline::default()
        },
        streams: vec![
            stream("pay-0", StreamState::Live, 1_500.0, Some(0.25), None),
            stream("flood-0", StreamState::InDanger, 3_000_000.0, Some(95.0), Some(240.0)),
            stream("late-0", StreamState::Behind, 200.0, Some(4_000.0), None),
        ],
        services: vec![Service {
            namespace: "shop".into(),
            workload: "checkout".into(),
            service: "checkout".into(),
            source: "log".into(),
            confidence: 0.5,
            last_minute: Red {
                per_second: Some(12.0),
                error_ratio: Some(0.25),
                p50_seconds: Some(0.012),
                p99_seconds: Some(1.5),
                ..Red::default()
            },
            whole: Red { requests: 4_000, ..Red::default() },
            ..Service::default()
        }],
        objectives: Objectives {
            evaluated: true,
            rows: vec![Objective {
                id: "shop/checkout/availability".into(),
                objective: 0.9995,
                state: ObjectiveState::Burning,
                good_ratio: Some(0.99),
                budget_left: Some(-0.5),
                exhausted_in_seconds: None,
                ..Objective::default()
            }],
            ..Objectives::default()
        },
        targets: vec![Target {
            namespace: "shop".into(),
            pod: "pay-0".into(),
            url: "http://10.0.0.7:8080/metrics".into(),
            state: TargetState::Down,
            reason: "annotation".into(),
            last_error: Some("connection refused".into()),
            last_error_age_seconds: Some(3.0),
            ..Target::default()
        }],
        sinks: vec![Sink {
            name: "loki.main".into(),
            signal: "logs".into(),
            up: Some(false),
            delivered: flow(800, 400.0, 1_000.0),
            lost: 7,
            last_error: Some("HTTP 503\n\u{1b}[31mred".into()),
            ..Sink::default()
        }],
        issues: vec![Issue {
            level: Level::Degraded,
            about: "loki.main".into(),
            text: "is down; its lines are kept".into(),
        }],
        omitted: Omitted { streams: 4, ..Omitted::default() },
        ..Overview::default()
    }
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, app)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let mut out = String::new();
    for row in buffer.content().chunks(usize::from(width)) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn shown() -> App {
    let mut app = App::new(&options());
    app.take(Ok(picture()));
    app
}

fn press(app: &mut App, keys: &str) -> Flow {
    let mut flow = Flow::On;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            letter => KeyCode::Char(letter),
        };
        flow = app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    flow
}

/// The first column of the rows that are shown.
fn names(app: &App) -> Vec<String> {
    let picture = app.overview.as_ref().expect("a picture");
    app.table(picture, app.view).rows.iter().map(|row| row.cells[0].text.clone()).collect()
}

#[test]
fn the_screen_shows_the_agent_and_who_floods() {
    let expected = "\
degraded  nodewick 0.1.0 on node-1 in prod, up 2h 5m, memory 45 MiB of 128 MiB, CPU 3.1 %
written 2 MiB/s ▸ read 2 MiB/s ▸ delivered 1 MiB/s (12.3k lines/s)  memory 1 MiB of 64 MiB  unread 512 B  dropped 0/s  lost 0
 1 streams 7  2 services 1  3 objectives 1  4 targets 1  5 sinks 1  6 issues 1
NAMESPACE/POD/CONTAINER                                                STATE      BYTES/S  LINES/S  UNACKED  BEHIND  LOSS IN  LOST
shop/flood-0/main                                                      in danger  2.9 MiB    30.0k    2 KiB  1m 35s    4m 0s   0 B
shop/pay-0/main                                                        live       1.5 KiB       15    2 KiB  250 ms        -   0 B
shop/late-0/main                                                       behind       200 B      2.0    2 KiB   1h 6m        -   0 B



service checkout, restart 0; 0 B written, 0 lines delivered, 0 B dropped by rules, 0 rotations behind

sorted by rate  ·  s sort  / filter  p pause  ? help  q leave
";
    assert_eq!(screen(&mut shown(), 130, 13), expected);
}

#[test]
fn on_a_narrow_screen_a_name_is_worth_more_than_a_figure() {
    let mut app = shown();
    let shown = screen(&mut app, 70, 13);
    let titles = shown.lines().nth(3).expect("titles");
    assert_eq!(
        titles.split_whitespace().collect::<Vec<_>>(),
        ["NAMESPACE/POD/CONTAINER", "STATE", "BYTES/S", "BEHIND", "LOSS", "IN", "LOST"]
    );
    assert!(shown.contains("shop/flood-0/main "), "{shown}");
}

#[test]
fn keys_choose_the_view_the_order_and_the_rows() {
    let mut app = shown();
    assert_eq!(names(&app), ["shop/flood-0/main", "shop/pay-0/main", "shop/late-0/main"]);
    press(&mut app, "s");
    assert_eq!(names(&app), ["shop/late-0/main", "shop/flood-0/main", "shop/pay-0/main"], "by lag");
    press(&mut app, "s");
    assert_eq!(names(&app)[0], "shop/flood-0/main", "by time to loss");
    press(&mut app, "/LATE\n");
    assert_eq!(names(&app), ["shop/late-0/main"]);
    press(&mut app, "\u{1b}");
    assert_eq!(names(&app).len(), 3, "Esc ends the filter");
    for (key, view) in ["1", "2", "3", "4", "5", "6"].into_iter().zip(View::ALL) {
        press(&mut app, key);
        assert_eq!(app.view, view);
    }
    press(&mut app, "\t");
    assert_eq!(app.view, View::Streams, "Tab goes round");
    press(&mut app, "↓↓↓↓");
    assert_eq!(app.states[0].selected(), Some(2), "the last row is the end");
    assert_eq!(press(&mut app, "/q\n"), Flow::On, "a letter of a filter leaves nothing");
    assert_eq!(press(&mut app, "q"), Flow::Leave);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(control_c), Flow::Leave);
}

#[test]
fn a_paused_picture_stays_and_says_so() {
    let mut app = shown();
    press(&mut app, "p");
    app.take(Ok(Overview::default()));
    assert_eq!(names(&app).len(), 3);
    assert!(screen(&mut app, 130, 13).lines().next().is_some_and(|line| line.ends_with("  paused")));
    press(&mut app, "p");
    app.take(Ok(Overview::default()));
    assert_eq!(names(&app).len(), 0);
}

#[test]
fn an_agent_that_went_away_leaves_its_last_picture() {
    let mut app = App::new(&options());
    app.take(Err("no agent answers at 127.0.0.1:1: refused".into()));
    assert!(screen(&mut app, 80, 12).contains("no agent answers at 127.0.0.1:1"), "before the first");
    let mut app = shown();
    app.take(Err("refused".into()));
    let screen = screen(&mut app, 130, 13);
    assert!(screen.contains("shop/flood-0/main") && screen.contains("no new picture: refused"), "{screen}");
}

#[test]
fn every_view_is_drawn_at_any_size() {
    let mut app = shown();
    for key in ["1", "2", "3", "4", "5", "6", "?"] {
        press(&mut app, key);
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 80)] {
            screen(&mut app, width, height);
        }
    }
}

#[test]
fn a_name_never_drives_the_terminal() {
    let mut app = shown();
    press(&mut app, "5");
    let screen = screen(&mut app, 130, 14);
    assert!(
        screen.contains(r"HTTP 503\n\x1b[31mred") || screen.contains(r"HTTP 503\n\u{1b}[31mred"),
        "{screen}"
    );
    assert!(!screen.contains('\u{1b}'));
}

#[test]
fn a_picture_is_text_where_there_is_no_terminal() {
    let expected = "\
degraded  nodewick 0.1.0 on node-1 in prod, up 2h 5m, memory 45 MiB of 128 MiB, CPU 3.1 %
written 2 MiB/s ▸ read 2 MiB/s ▸ delivered 1 MiB/s (12.3k lines/s)  memory 1 MiB of 64 MiB  unread 512 B  dropped 0/s  lost 0

streams, by rate
  NAMESPACE/POD/CONTAINER  STATE      BYTES/S  LINES/S  UNACKED  BEHIND  LOSS IN  LOST
  shop/flood-0/main        in danger  2.9 MiB    30.0k    2 KiB  1m 35s    4m 0s   0 B
  shop/pay-0/main          live       1.5 KiB       15    2 KiB  250 ms        -   0 B
  shop/late-0/main         behind       200 B      2.0    2 KiB   1h 6m        -   0 B
  and 4 more

services, by rate
  NAMESPACE/WORKLOAD  SERVICE   FROM  REQ/S  ERRORS    P50    P99  REQUESTS  TRUST
  shop/checkout       checkout  log      12    25 %  12 ms  1.5 s      4000   50 %

objectives, by state
  OBJECTIVE                   STATE     TARGET  GOOD  BUDGET  GONE IN  BURN 1H  ALERT
  shop/checkout/availability  burning  99.95 %  99 %   -50 %        -        -  -

targets, by state
  TARGET      STATE  JOB  WHY         AGE  TOOK  SAMPLES
  shop/pay-0  down        annotation    -     -        -

sinks, by state
  SINK       TAKES  STATE  RATE/S  BYTES/S  RETRIES/S  P99  QUEUE  LOST  LAST OK
  loki.main  logs   down      400   1000 B          -    -    0 B     7        -

issues, by level
  LEVEL     ABOUT      WHAT
  degraded  loki.main  is down; its lines are kept
";
    assert_eq!(plain::text(&picture(), &App::new(&options())), expected);
}

#[test]
fn what_has_no_rows_says_why() {
    let mut picture = Overview::default();
    picture.objectives.reason = "[evaluator] mode is off".into();
    let empty = |view, filter: &str| table(&picture, view, 0, filter).empty;
    assert_eq!(empty(View::Objectives, ""), "no objective is judged here: [evaluator] mode is off");
    assert_eq!(empty(View::Issues, ""), "nothing is wrong");
    assert_eq!(empty(View::Streams, "x"), "no container log is followed");
}

#[test]
fn figures_are_as_short_as_one_reads_them() {
    let spans = [0.0, 0.012, 1.25, 42.0, 190.0, 7_500.0, 273_600.0].map(span);
    assert_eq!(spans, ["0 s", "12 ms", "1.2 s", "42 s", "3m 10s", "2h 5m", "3d 4h"]);
    assert_eq!(
        [0.0, 0.03, 0.5, 9.96, 42.4, 12_345.0, 2.5e6].map(number),
        ["0", "0.03", "0.5", "10.0", "42", "12.3k", "2.5M"]
    );
    assert_eq!([0.0, 1_000.0, 1_048_576.0].map(bytes), ["0 B", "1000 B", "1 MiB"]);
    assert_eq!([0.0, 0.125, 1.0, -0.5].map(percent), ["0 %", "12.5 %", "100 %", "-50 %"]);
}

#[test]
fn an_address_is_taken_as_people_write_it() {
    let at = |url: &str| Source::of_url(url).map(|source| source.address().to_string());
    assert_eq!(at("http://127.0.0.1:9464"), Ok("127.0.0.1:9464".to_owned()));
    assert_eq!(at("127.0.0.1:9464"), Ok("127.0.0.1:9464".to_owned()));
    assert_eq!(at("http://0.0.0.0:9464/overview"), Ok("127.0.0.1:9464".to_owned()));
    assert!(at("https://127.0.0.1:9464").is_err_and(|why| why.contains("no TLS")));
    assert!(at("127.0.0.1").is_err_and(|why| why.contains("write http://HOST:PORT")));
}
