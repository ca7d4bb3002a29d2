//! The demo on the real log path: files → tail → parse → local store → account.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nodewick::data::batch::Fields;
use nodewick::data::budget::Budget;
use nodewick::data::delivery::Fanout;
use nodewick::data::units::Span;
use nodewick::data::workload::PathIdentity;
use nodewick::demo::tally::Counts;
use nodewick::demo::{self, Args, Site, StopAgent};
use nodewick::logs::driver::StateDir;
use nodewick::logs::ingest::Settings;
use nodewick::logs::process::{self, Chain};
use nodewick::logs::{self, Driver};
use nodewick::sink::local;
use nodewick::tail::Style;

struct Running {
    driver: Driver,
    writer: local::Writer,
}

fn start(site: &Site) -> Running {
    let (outlet, writer) =
        local::start("demo", &local::Config::default(), &site.state_dir, Fields::ALL).expect("starts");
    let signal = Arc::default();
    let budget = Budget::new(16 << 20, Arc::clone(&signal));
    let chain = Chain::compile(&process::Config::default()).expect("nothing configured");
    let state = StateDir::open(&site.state_dir).expect("opens").expect("not locked");
    let identity = PathIdentity { cluster: "demo".into(), node: "make-believe".into(), environment: None };
    let driver = logs::spawn(
        &logs::Config { root: site.log_root.clone(), ..logs::Config::default() },
        Settings::new(Fields::ALL, chain, 256 << 10),
        Box::new(identity),
        Fanout::new(vec![Box::new(outlet)]),
        budget,
        signal,
        std::sync::Arc::default(),
        Ok(state),
        None,
        || {},
    )
    .expect("spawns");
    Running { driver, writer }
}

impl Running {
    fn stop(mut self) {
        self.driver.stop_reading();
        assert!(self.writer.join());
        self.driver.stop_checkpoints();
    }
}

/// Runs the demo; `restarts` times the agent is stopped and started again meanwhile.
fn run(args: &Args, restarts: u32) -> (Counts, String) {
    let mut out = Vec::new();
    let counts = demo::run(
        args,
        Style::PLAIN,
        |site, _| {
            let first = start(site);
            let site = site.clone();
            let agent = std::thread::spawn(move || {
                let mut running = first;
                for _ in 0..restarts {
                    std::thread::sleep(Duration::from_millis(1_300));
                    running.stop();
                    std::thread::sleep(Duration::from_millis(700));
                    running = start(&site);
                }
                running
            });
            let stop: StopAgent = Box::new(move || agent.join().expect("no panic").stop());
            Ok(stop.into())
        },
        &AtomicBool::new(false),
        &mut out,
        &mut std::io::sink(),
    );
    (counts.expect("runs"), String::from_utf8(out).expect("UTF-8"))
}

fn args(rate: u32, seconds: u64) -> Args {
    let breaks = demo::fault::Break::Auto;
    Args {
        rate,
        duration: Some(Span::secs(seconds)),
        dir: None,
        seed: 1,
        quiet: false,
        breaks,
        no_open: true,
    }
}

#[test]
fn every_line_arrives_with_what_it_says() {
    let (counts, out) = run(&args(200, 8), 0);
    let wanted = Counts { written: counts.written, delivered: counts.written, ..Counts::default() };
    assert_eq!(counts, wanted);
    assert!(counts.written > 1_200, "{counts:?}");
    assert!(out.contains(" INFO  checkout/api  order placed  POST /checkout "), "{out:.2000}");
    assert!(out.contains(" ERROR "), "{out:.2000}");
    let (_, table) = out.split_once("\nlines      ").expect("the table follows");
    for service in ["cart", "checkout", "payments"] {
        let row = table.lines().find(|line| line.starts_with(service)).expect("a row each");
        let cells: Vec<_> = row.split_whitespace().collect();
        let requests: u64 = cells[2].replace(',', "").parse().expect("a number");
        assert!(requests > 50, "statuses and durations are recognised: {row}");
    }
}

#[test]
fn a_restart_resumes_without_a_gap_and_stores_nothing_twice() {
    let (counts, _) = run(&args(150, 7), 3);
    let wanted = Counts { written: counts.written, delivered: counts.written, ..Counts::default() };
    assert_eq!(counts, wanted);
}
