//! The embedded evaluator against a real Prometheus: the same samples, the same rendered rules, the same alerts.
//!
//! In: seeded shapes of traffic (`slo/shapes.rs`). Prometheus gets their samples by remote write and evaluates the rules over
//! them with its own engine: each recorded name in an expression is replaced by the expression that records it, and what
//! remains is asked every 30 s. The evaluator gets the same samples one after the other. Out: values that are equal, alerts
//! that fire and clear within one evaluation. `for` and what an alert knows of itself are followed here by hand.
//!
//! `shapes_agree_with_prometheus` takes a few shapes, of which it looks at the first hours. All of them:
//! `cargo test --test slo_differential -- --ignored --nocapture`, with `NODEWICK_SHAPES=0..500` for a range of seeds.

#[path = "slo/shapes.rs"]
#[allow(unreachable_pub)]
mod shapes;
#[path = "support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod agent;
    pub mod prometheus;
}

use std::collections::{BTreeMap, BTreeSet};

use nodewick::data::sample::is_stale;
use nodewick::slo::eval::{Config, Evaluator};
use nodewick::slo::render::{self, Kind};
use nodewick::slo::{Config as Slo, Spec};
use shapes::{BEGIN, Shape};
use support::prometheus::Prometheus;

const STEP: i64 = 30_000;
/// Samples are written in stretches of this: Prometheus takes none that is an hour older than its newest.
const STRETCH: i64 = 1_800_000;

/// Values that are compared, and how often they are recorded.
const VALUES: [(&str, i64); 5] = [
    ("slo:sli_error:ratio_rate5m", STEP),
    ("slo:sli_error:ratio_rate1h", STEP),
    ("slo:sli_events:increase6h", STEP),
    ("slo:sli_error:ratio_rate1d", 120_000),
    ("slo:error_budget_remaining:ratio", 120_000),
];

const ALERTS: [&str; 4] =
    ["SLOErrorBudgetBurn", "SLOErrorBudgetBurnSlow", "SLOTrafficVanished", "SLOLowTraffic"];

/// A shape with its objective and its rules as Prometheus is asked.
struct Case {
    shape: Shape,
    spec: Spec,
    slo: Slo,
    rules: BTreeMap<String, String>,
}

impl Case {
    fn new(seed: u64, longest: i64) -> Self {
        let shape = Shape::within(seed, longest);
        let slo: Slo = toml::from_str(&format!("defaults = {{ mode = \"alert\" }}\n{}", shape.declared))
            .expect("an objective");
        assert_eq!(slo.problems(), []);
        let spec = slo.specs().remove(0);
        let id = spec.id();
        let rules = render::groups(&spec, &slo.defaults).into_iter().flat_map(|group| group.rules);
        let mut texts: BTreeMap<String, String> = rules
            .map(|rule| match rule.kind {
                Kind::Record(name) => (name, rule.expr),
                Kind::Alert { name, .. } => (name.to_owned(), rule.expr),
            })
            .collect();
        // What is recorded is replaced by what records it, until nothing recorded is left.
        let names: Vec<String> = texts.keys().filter(|name| name.contains(':')).cloned().collect();
        for _ in 0..5 {
            let known = texts.clone();
            for text in texts.values_mut() {
                for name in &names {
                    let selector = format!("{name}{{slo_id=\"{id}\"}}");
                    let inner = format!("({})", known[name]);
                    // A range of what is recorded every 30 s.
                    *text = text
                        .replace(&format!("{selector}[1h]"), &format!("{inner}[1h:30s]"))
                        .replace(&selector, &inner);
                }
            }
        }
        assert!(texts.values().all(|text| !text.contains("slo_id=") || !text.contains("slo:")), "{texts:?}");
        Self { shape, spec, slo, rules: texts }
    }

    /// Steps of its evaluations.
    fn times(&self) -> impl Iterator<Item = i64> + use<> {
        (0..=self.shape.length / STEP).map(|step| BEGIN + step * STEP)
    }

    /// What the evaluator makes of it: values by name, alerts by name, at each step.
    fn ours(&self) -> (Vec<BTreeMap<i64, f64>>, Vec<BTreeSet<i64>>) {
        let mut evaluator =
            Evaluator::new(std::slice::from_ref(&self.spec), &self.slo.defaults, &Config::default());
        let id = self.spec.id();
        let mut values = vec![BTreeMap::new(); VALUES.len()];
        let mut fires = vec![BTreeSet::new(); ALERTS.len()];
        let labels: Vec<Vec<(&str, &str)>> = self
            .shape
            .series
            .iter()
            .map(|(_, labels)| labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
            .collect();
        let mut samples = self.shape.samples.iter().peekable();
        for at in self.times() {
            while let Some((time, series, value)) = samples.next_if(|(time, ..)| *time <= at) {
                evaluator.take_one(&self.shape.series[*series].0, &labels[*series], *time, *value);
            }
            evaluator.evaluate(at);
            for ((name, _), found) in VALUES.iter().zip(&mut values) {
                found.extend(evaluator.value(&id, name).map(|value| (at, value)));
            }
            for (name, found) in ALERTS.iter().zip(&mut fires) {
                if evaluator.fires(&id, name) {
                    found.insert(at);
                }
            }
        }
        (values, fires)
    }

    fn asked(&self, prometheus: &Prometheus, promql: &str) -> BTreeMap<i64, f64> {
        let seconds = |at: i64| at as f64 / 1e3;
        let end = self.times().last().expect("a step");
        let found = prometheus.range(promql, seconds(BEGIN), seconds(end), seconds(STEP));
        assert!(found.len() < 2, "{promql}: {found:?}");
        found.into_values().flatten().collect()
    }

    /// Alerts as Prometheus would have them: conditions are its own, `for` is followed here.
    fn theirs(&self, prometheus: &Prometheus) -> Vec<BTreeSet<i64>> {
        let events = self.asked(prometheus, &format!("({}) > 0", self.rules["slo:sli_events:increase5m"]));
        let lag = format!("red_source_lag_seconds{{namespace=\"s{}\",source=\"log\"}} > 60", self.shape.seed);
        let lags = if self.spec.selector.workload.is_some() {
            self.asked(prometheus, &lag)
        } else {
            BTreeMap::new()
        };
        let alerts = ALERTS.map(|name| {
            let holds = self.asked(prometheus, &self.rules[name]);
            let hold = match name {
                "SLOTrafficVanished" => 300_000,
                "SLOLowTraffic" => 6 * 3_600_000,
                _ => 0,
            };
            let (mut since, mut fires, mut found) = (None, false, BTreeSet::new());
            for at in self.times() {
                let keeps = name == "SLOTrafficVanished"
                    && fires
                    && !events.contains_key(&at)
                    && !lags.contains_key(&at);
                if !holds.contains_key(&at) && !keeps {
                    (since, fires) = (None, false);
                    continue;
                }
                fires = at - *since.get_or_insert(at) >= hold;
                if fires {
                    found.insert(at);
                }
            }
            found
        });
        alerts.into()
    }

    /// What differs.
    fn differences(&self, prometheus: &Prometheus) -> (Vec<String>, usize) {
        let mut found = Vec::new();
        let (values, fires) = self.ours();
        let title = format!(
            "shape {} ({:?}, {:?}, {})",
            self.shape.seed, self.shape.kind, self.shape.source, self.spec.window
        );
        for ((name, every), ours) in VALUES.iter().zip(values) {
            let theirs = self.asked(prometheus, &self.rules[*name]);
            for at in self.times().filter(|at| at % every == 0) {
                let is_same = match (ours.get(&at), theirs.get(&at)) {
                    (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3),
                    (a, b) => a.is_none() && b.is_none(),
                };
                if !is_same {
                    let minute = (at - BEGIN) as f64 / 6e4;
                    found.push(format!(
                        "{title}: {name} at minute {minute}: {:?}, Prometheus {:?}",
                        ours.get(&at),
                        theirs.get(&at)
                    ));
                    break;
                }
            }
        }
        let mut transitions = 0;
        for ((name, ours), theirs) in ALERTS.iter().zip(fires).zip(self.theirs(prometheus)) {
            // Tickets look at what is summed up every two minutes.
            let late = if *name == "SLOErrorBudgetBurnSlow" { 4 } else { 1 };
            transitions += theirs.iter().filter(|at| !theirs.contains(&(*at - STEP))).count();
            let mut apart = 0;
            for at in self.times() {
                apart = if ours.contains(&at) == theirs.contains(&at) { 0 } else { apart + 1 };
                if apart > late {
                    let minute = (at - BEGIN) as f64 / 6e4;
                    found.push(format!(
                        "{title}: {name} at minute {minute}: fires {}, Prometheus {}",
                        ours.contains(&at),
                        theirs.contains(&at)
                    ));
                    break;
                }
            }
        }
        (found, transitions)
    }
}

/// Bytes of a protocol buffer.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.number(field << 3 | 2);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

fn write(prometheus: &Prometheus, request: &Wire) {
    let body = snap::raw::Encoder::new().compress_vec(&request.0).expect("packed");
    let headers = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let (status, said) = prometheus.post("/api/v1/write", &headers, &body).expect("an answer");
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&said));
}

/// Writes the samples of all shapes, stretch by stretch.
fn load(prometheus: &Prometheus, cases: &[Case]) {
    let longest = cases.iter().map(|case| case.shape.length).max().expect("a shape");
    let mut next = vec![0; cases.len()];
    for stretch in 0..=longest / STRETCH {
        let end = BEGIN + (stretch + 1) * STRETCH;
        let mut request = Wire::default();
        for (case, next) in cases.iter().zip(&mut next) {
            let mut by_series: BTreeMap<usize, Vec<(i64, f64)>> = BTreeMap::new();
            while let Some((at, series, value)) = case.shape.samples.get(*next).filter(|(at, ..)| *at < end) {
                by_series.entry(*series).or_default().push((*at, *value));
                *next += 1;
            }
            for (series, samples) in by_series {
                let (name, labels) = &case.shape.series[series];
                let mut one = Wire::default();
                let own = [("__name__".to_owned(), name.clone())];
                for (name, value) in own.iter().chain(labels) {
                    let mut pair = Wire::default();
                    pair.bytes(1, name.as_bytes());
                    pair.bytes(2, value.as_bytes());
                    one.bytes(1, &pair.0);
                }
                for (at, value) in samples {
                    let mut sample = Wire(vec![1 << 3 | 1]);
                    sample.0.extend_from_slice(&value.to_bits().to_le_bytes());
                    sample.number(2 << 3);
                    sample.number(at as u64);
                    one.bytes(2, &sample.0);
                }
                request.bytes(1, &one.0);
            }
            if request.0.len() > 4 << 20 {
                write(prometheus, &std::mem::take(&mut request));
            }
        }
        write(prometheus, &request);
    }
}

/// Compares shapes; how many times alerts began to fire.
fn compare(seeds: impl Iterator<Item = u64>, longest: impl Fn(u64) -> i64) -> (usize, usize) {
    let cases: Vec<Case> = seeds.map(|seed| Case::new(seed, longest(seed))).collect();
    let prometheus = Prometheus::start();
    load(&prometheus, &cases);
    let (half, other) = cases.split_at(cases.len() / 2);
    let judged = std::thread::scope(|scope| {
        let judge =
            |cases: &[Case]| cases.iter().map(|case| case.differences(&prometheus)).collect::<Vec<_>>();
        let other = scope.spawn(move || judge(other));
        let mut all = judge(half);
        all.extend(other.join().expect("compared"));
        all
    });
    let differences: Vec<String> = judged.iter().flat_map(|(found, _)| found.clone()).collect();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    (cases.len(), judged.iter().map(|(_, transitions)| transitions).sum())
}

#[test]
fn shapes_have_every_kind_of_trouble() {
    let shapes: Vec<Shape> = (0..40).map(Shape::new).collect();
    let stale = shapes.iter().flat_map(|shape| &shape.samples).filter(|(.., value)| is_stale(*value)).count();
    assert!(stale > 0);
    let falls = |shape: &Shape| {
        let mut last: BTreeMap<usize, f64> = BTreeMap::new();
        shape.samples.iter().any(|(_, series, value)| {
            last.insert(*series, *value).is_some_and(|before| *value < before)
                && shape.series[*series].0.ends_with("_total")
        })
    };
    assert!(shapes.iter().any(falls), "a counter begins anew");
    assert!(shapes.iter().any(|shape| shape.length > 3 * 86_400_000), "three days");
}

#[test]
fn a_difference_is_seen() {
    // A steady shape of which the evaluator misses every twentieth sample.
    let mut case = Case::new(10, 4_500_000);
    let prometheus = Prometheus::start();
    load(&prometheus, std::slice::from_ref(&case));
    assert_eq!(case.differences(&prometheus).0, [] as [String; 0]);
    let all = std::mem::take(&mut case.shape.samples);
    case.shape.samples =
        all.into_iter().enumerate().filter(|(at, _)| at % 20 != 0).map(|(_, sample)| sample).collect();
    assert!(!case.differences(&prometheus).0.is_empty());
}

#[test]
fn shapes_agree_with_prometheus() {
    // Some of every kind but those of days, which take longest; a few of them for some hours.
    let longest = |seed| if seed % 5 == 1 { 9_000_000 } else { 4_500_000 };
    let (shapes, fired) = compare((0..44).filter(|seed| seed % 10 != 9), longest);
    assert!(shapes >= 40 && fired > 20, "{shapes} shapes, alerts began to fire {fired} times");
}

#[test]
#[ignore = "minutes; run it after changes to the rules or the evaluator"]
#[expect(clippy::print_stderr, reason = "what a sweep has seen is its result")]
fn all_shapes_agree_with_prometheus() {
    let range = std::env::var("NODEWICK_SHAPES").unwrap_or_else(|_| "0..500".to_owned());
    let (from, to) = range.split_once("..").expect("a range like 0..500");
    let (from, to): (u64, u64) = (from.parse().expect("a number"), to.parse().expect("a number"));
    let (mut shapes, mut fired) = (0, 0);
    for from in (from..to).step_by(50) {
        let found = compare(from..(from + 50).min(to), |_| i64::MAX);
        shapes += found.0;
        fired += found.1;
        eprintln!("seeds {from}..{}: agree; {fired} alerts so far", (from + 50).min(to));
    }
    eprintln!("{shapes} shapes agree; alerts began to fire {fired} times");
}
