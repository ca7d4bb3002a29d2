//! What reading costs: allocations exactly, time on demand.

use std::io::Write as _;
use std::time::{Duration, Instant};

use nodewick::data::sample::Page;
use nodewick::scrape::exposition::Parser;
use nodewick::scrape::{Body, Dialect};

use crate::dumps::dump;
use crate::support::limits;

#[test]
fn a_page_that_has_been_read_before_costs_no_allocation() {
    for (name, dialect) in [
        ("kubelet.prom", Dialect::Text),
        ("kubelet-cadvisor.prom", Dialect::Text),
        ("prom-client-openmetrics-exemplars.http", Dialect::OpenMetrics),
    ] {
        let (mut parser, mut page) = (Parser::default(), Page::default());
        let fetched = || {
            // Room behind the text for what has to be unescaped, as a body that was read in pieces has.
            let mut bytes = dump(name);
            bytes.reserve(1024);
            Body { bytes, dialect }
        };
        parser.parse(fetched(), &limits(), &mut page).expect("well-formed");
        let again = fetched();
        let counted =
            allocation_counter::measure(|| parser.parse(again, &limits(), &mut page).expect("well-formed"));
        assert_eq!(counted.count_total, 0, "{name}");
    }
}

#[test]
fn the_first_page_costs_allocations_by_its_size_and_not_by_its_samples() {
    let body = Body { bytes: dump("kubelet.prom"), dialect: Dialect::Text };
    let mut page = Page::default();
    let counted = allocation_counter::measure(|| {
        nodewick::scrape::exposition::parse(body, &limits(), &mut page).expect("well-formed");
    });
    // Five lists that double until 1,629 samples fit.
    assert!(counted.count_total < 60, "{} allocations", counted.count_total);
}

/// `cargo test --release --test exposition -- --ignored --nocapture speed`
#[test]
#[ignore = "measures: needs --release and a quiet machine"]
fn speed_is_at_least_400_megabytes_a_second() {
    const WANTED: f64 = 400e6;
    for name in ["kubelet.prom", "kubelet-cadvisor.prom"] {
        let bytes = dump(name);
        let (mut parser, mut page) = (Parser::default(), Page::default());
        let mut best = Duration::MAX;
        for _ in 0..1000 {
            let body = Body { bytes: bytes.clone(), dialect: Dialect::Text };
            let start = Instant::now();
            parser.parse(body, &limits(), &mut page).expect("well-formed");
            best = best.min(start.elapsed());
        }
        let speed = bytes.len() as f64 / best.as_secs_f64();
        let each = best.as_nanos() / page.samples.len() as u128;
        writeln!(std::io::stderr(), "{name}: {:.0} MB/s, {each} ns a sample", speed / 1e6)
            .expect("to stderr");
        assert!(speed >= WANTED, "{name}");
    }
}
