//! Unit tests of the rendered rules, for `promtool test rules`.
//!
//! In: a spec that alerts and its groups. Out: what it must do in an outage, in slower faults, without traffic and with
//! little, at the minutes that [`burn`](super::super::burn) computes.
//! Invariant: a fault begins after six hours of clean traffic, so that every range of a page is full.

use std::fmt::Write as _;

use super::super::burn::{Fault, Severity, clearing_minutes, detection_minutes};
use super::super::config::{Defaults, LowTraffic};
use super::super::number::{percent, shortest};
use super::super::spec::{Sli, Spec};
use super::promql::{bound, quoted};
use super::rules::Group;
use super::{HEADER, yaml};

/// Clean steps of 30 s before a fault: six hours.
const BEFORE: u32 = 720;
/// Requests in a step. Of so many an interval of confidence is the share itself, to within what is tested.
const fn traffic(low_traffic: LowTraffic) -> f64 {
    match low_traffic {
        LowTraffic::Gate => 6_000.0,
        LowTraffic::Wilson => 6_000_000.0,
    }
}
/// Minutes of the outage.
const OUTAGE: f64 = 10.0;
/// Longest detection that is tested.
const PATIENCE: f64 = 300.0;

pub(super) fn file(spec: &Spec, defaults: &Defaults, groups: &[Group], rules: &str) -> String {
    let traffic = traffic(defaults.low_traffic);
    let mut out = format!("{HEADER}rule_files:\n- {rules}\nevaluation_interval: 1m\n");
    // Left to itself, promtool may evaluate an alert before what it reads.
    out.push_str("group_eval_order:\n");
    for group in groups {
        let _ = writeln!(out, "- {}", yaml::scalar(&group.name));
    }
    out.push_str("tests:\n");
    outage(&mut out, spec, traffic);
    for errors in [0.1, 0.01, 0.004] {
        slower(&mut out, spec, traffic, errors);
    }
    one_error(&mut out, spec);
    vanished(&mut out, spec, traffic);
    out
}

/// Values of a counter in promtool's notation, step by step.
struct Counter {
    total: f64,
    text: String,
}

impl Counter {
    fn new() -> Self {
        Self { total: 0.0, text: "0".to_owned() }
    }

    /// `steps` further values, each `each` more than the one before.
    fn grow(&mut self, each: f64, steps: u32) {
        if steps == 0 {
            return;
        }
        let first = self.total + each;
        let _ = match steps {
            1 => write!(self.text, " {}", shortest(first)),
            _ => write!(self.text, " {}+{}x{}", shortest(first), shortest(each), steps - 1),
        };
        self.total += each * f64::from(steps);
    }
}

/// Good and bad events, and what they are called as series of `spec`.
fn series(out: &mut String, spec: &Spec, good: &Counter, bad: &Counter, end: &str) {
    let selector = &spec.selector;
    let mut labels = format!("cluster=\"c\",node=\"n\",namespace={}", quoted(&selector.namespace));
    let workload = selector.workload.as_deref().unwrap_or("w");
    let _ = write!(labels, ",workload={}", quoted(workload));
    let detail = format!(
        "{labels},pod=\"p\",service={},route={},method=\"GET\"",
        quoted(selector.service.as_deref().unwrap_or("s")),
        quoted(selector.route.as_deref().unwrap_or("/items/{id}"))
    );
    let pairs = match spec.sli {
        Sli::Availability => [
            (format!("red_requests_total{{{detail},code_class=\"2xx\"}}"), good.text.clone()),
            (format!("red_requests_total{{{detail},code_class=\"5xx\"}}"), bad.text.clone()),
        ],
        Sli::Latency { .. } if spec.is_counted() => {
            let of = |result: &str| {
                format!("slo_events_total{{{labels},slo_id={},result=\"{result}\"}}", quoted(&spec.id()))
            };
            [(of("good"), good.text.clone()), (of("bad"), bad.text.clone())]
        }
        Sli::Latency { threshold } => {
            let of = |le: &str| format!("red_request_duration_seconds_bucket{{{detail},le=\"{le}\"}}");
            [(of(&bound(threshold)), good.text.clone()), (of("+Inf"), added(good, bad))]
        }
    };
    out.push_str("  interval: 30s\n  input_series:\n");
    for (name, values) in pairs {
        let _ = writeln!(
            out,
            "  - series: {}\n    values: {}",
            yaml::scalar(&name),
            yaml::scalar(&format!("{values}{end}"))
        );
    }
}

/// The sum of two counters that have the same steps.
fn added(one: &Counter, other: &Counter) -> String {
    let parts = one.text.split(' ').zip(other.text.split(' '));
    let sum = |a: &str, b: &str| {
        let number = |text: &str| text.parse::<f64>().unwrap_or_default();
        shortest(number(a) + number(b))
    };
    let parts = parts.map(|(a, b)| match (a.split_once('+'), b.split_once('+')) {
        (Some((a, a_rest)), Some((b, b_rest))) => {
            let ((a_each, steps), (b_each, _)) = (
                a_rest.split_once('x').unwrap_or((a_rest, "0")),
                b_rest.split_once('x').unwrap_or((b_rest, "0")),
            );
            format!("{}+{}x{steps}", sum(a, b), sum(a_each, b_each))
        }
        _ => sum(a, b),
    });
    parts.collect::<Vec<_>>().join(" ")
}

fn name(out: &mut String, spec: &Spec, text: &str) {
    let _ = writeln!(out, "- name: {}", yaml::scalar(&format!("{}: {text}", spec.id())));
}

/// One expectation: whether an alert fires at a minute.
fn expect(out: &mut String, spec: &Spec, alert: &str, minutes: f64, fires: bool) {
    let expr =
        format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",slo_id={}}})", quoted(&spec.id()));
    let seconds = (minutes * 60.0).round() as u64;
    let time = if seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    };
    let samples = if fires { "[{labels: '{}', value: 1}]" } else { "[]" };
    let _ =
        writeln!(out, "  - expr: {}\n    eval_time: {time}\n    exp_samples: {samples}", yaml::scalar(&expr));
}

const PAGE: &str = "SLOErrorBudgetBurn";
const TICKET: &str = "SLOErrorBudgetBurnSlow";

fn outage(out: &mut String, spec: &Spec, traffic: f64) {
    let begins = f64::from(BEFORE) / 2.0;
    let Some(detected) = detection_minutes(Severity::Page, spec.window, spec.objective, 1.0) else { return };
    if detected > OUTAGE {
        return;
    }
    let fault = Fault { errors: 1.0, minutes: OUTAGE };
    let clears = |severity| clearing_minutes(severity, spec.window, spec.objective, fault);
    name(out, spec, "ten minutes of outage page and clear");
    let steps = (OUTAGE * 2.0) as u32;
    let (mut good, mut bad) = (Counter::new(), Counter::new());
    for (counter, share) in [(&mut good, [1.0, 0.0, 1.0]), (&mut bad, [0.0, 1.0, 0.0])] {
        for (share, steps) in share.into_iter().zip([BEFORE, steps, 800]) {
            counter.grow(traffic * share, steps);
        }
    }
    series(out, spec, &good, &bad, "");
    out.push_str("  promql_expr_test:\n");
    expect(out, spec, PAGE, begins, false);
    expect(out, spec, PAGE, (begins + detected + 0.5).ceil(), true);
    if let Some(clears) = clears(Severity::Page) {
        expect(out, spec, PAGE, begins + OUTAGE + clears - 1.0, true);
        expect(out, spec, PAGE, begins + OUTAGE + clears + 2.0, false);
    }
    if let Some(clears) = clears(Severity::Ticket) {
        expect(out, spec, TICKET, begins + OUTAGE + clears - 1.0, true);
        expect(out, spec, TICKET, begins + OUTAGE + clears + 2.0, false);
    }
}

fn slower(out: &mut String, spec: &Spec, traffic: f64, errors: f64) {
    let begins = f64::from(BEFORE) / 2.0;
    let detected = detection_minutes(Severity::Page, spec.window, spec.objective, errors);
    let Some(detected) = detected.filter(|minutes| *minutes <= PATIENCE) else { return };
    name(out, spec, &format!("{} of errors page after {} minutes", percent(errors), shortest(detected)));
    let (mut good, mut bad) = (Counter::new(), Counter::new());
    let steps = (detected * 2.0) as u32 + 6;
    good.grow(traffic, BEFORE);
    good.grow(traffic * (1.0 - errors), steps);
    bad.grow(0.0, BEFORE);
    bad.grow(traffic * errors, steps);
    series(out, spec, &good, &bad, "");
    out.push_str("  promql_expr_test:\n");
    if detected > 2.0 {
        expect(out, spec, PAGE, (begins + detected - 1.0).floor(), false);
    }
    expect(out, spec, PAGE, (begins + detected + 1.0).ceil(), true);
}

/// One request a minute, and one of them fails.
fn one_error(out: &mut String, spec: &Spec) {
    if spec.page_min_bad_events < 2 {
        return;
    }
    name(out, spec, "one failed request at one a minute pages nobody");
    let (mut good, mut bad) = (Counter::new(), Counter::new());
    for (counter, each, failed) in [(&mut good, 0.5, 0.5), (&mut bad, 0.0, 1.0)] {
        counter.grow(each, 240);
        counter.grow(failed, 1);
        counter.grow(each, 119);
    }
    series(out, spec, &good, &bad, "");
    out.push_str("  promql_expr_test:\n");
    for minutes in [121.0, 130.0, 175.0] {
        expect(out, spec, PAGE, minutes, false);
    }
}

fn vanished(out: &mut String, spec: &Spec, traffic: f64) {
    name(out, spec, "traffic that is gone pages for as long as it is gone");
    let (mut good, mut bad) = (Counter::new(), Counter::new());
    good.grow(traffic, 240);
    bad.grow(0.0, 240);
    series(out, spec, &good, &bad, " stale _x600");
    out.push_str("  promql_expr_test:\n");
    expect(out, spec, "SLOTrafficVanished", 119.0, false);
    expect(out, spec, "SLOTrafficVanished", 132.0, true);
    expect(out, spec, "SLOTrafficVanished", 400.0, true);
}
