//! Seeded shapes of traffic: what a workload publishes over hours or days, sample by sample.
//!
//! In: a seed. Out: an objective and the samples of its series in order of time, with counter resets, replaced pods, lost
//! targets, gaps and marks of staleness, as the seed's kind has them. Invariant: the same seed gives the same samples.

use std::collections::BTreeMap;

use nodewick::data::sample::stale;

/// Begin of all shapes, milliseconds since the epoch: a whole day.
pub const BEGIN: i64 = 19_700 * 86_400_000;
const S: i64 = 1_000;
const M: i64 = 60 * S;
const H: i64 = 60 * M;

/// What is special about a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Steady,
    Bursty,
    QuietNights,
    LowTraffic,
    Deploys,
    Resets,
    TargetLoss,
    Gaps,
    Staleness,
    Days,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Steady,
        Self::Bursty,
        Self::QuietNights,
        Self::LowTraffic,
        Self::Deploys,
        Self::Resets,
        Self::TargetLoss,
        Self::Gaps,
        Self::Staleness,
        Self::Days,
    ];
}

/// Numbers by chance, the same for the same seed (xorshift64*).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 up to, without, 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + (self.share() * (to - from) as f64) as i64
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() >> 33) as usize % of.len()]
    }

    /// A whole number around `mean`.
    fn count(&mut self, mean: f64) -> f64 {
        let spread = (self.share() + self.share() + self.share() - 1.5) * mean.sqrt() * 2.0;
        let exact = (mean + spread).max(0.0);
        exact.floor() + f64::from(u8::from(self.share() < exact.fract()))
    }
}

/// How bad events are told from good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `red_requests_total`.
    Classes,
    /// `slo_events_total`.
    Counted,
    /// Buckets of the histogram.
    Buckets,
}

/// A shape, ready to run.
pub struct Shape {
    pub seed: u64,
    pub kind: Kind,
    pub source: Source,
    /// Its table in the config.
    pub declared: String,
    /// Milliseconds.
    pub length: i64,
    /// Time, series, value; in order of time.
    pub samples: Vec<(i64, usize, f64)>,
    /// Name and labels, sorted.
    pub series: Vec<(String, Vec<(String, String)>)>,
}

/// A stretch with errors.
struct Fault {
    from: i64,
    to: i64,
    share: f64,
}

/// One pod: what it has counted, by route and whether good.
struct Pod {
    name: String,
    from: i64,
    to: i64,
    counts: BTreeMap<(usize, bool), f64>,
}

impl Shape {
    pub fn new(seed: u64) -> Self {
        Self::within(seed, i64::MAX)
    }

    /// The same, of at most so many milliseconds.
    pub fn within(seed: u64, longest: i64) -> Self {
        let mut chance = Chance::new(seed);
        let kind = Kind::ALL[seed as usize % Kind::ALL.len()];
        let source = chance.one(&[Source::Classes, Source::Counted, Source::Buckets]);
        let objective = chance.one(&["99%", "99.5%", "99.9%", "99.95%"]);
        let window = chance.one(&["7d", "28d", "30d", "30d", "90d"]);
        let subject = if source == Source::Counted {
            "workload"
        } else {
            chance.one(&["workload", "workload", "service"])
        };
        let sli = match source {
            Source::Classes => "sli = \"availability\"".to_owned(),
            _ => "sli = \"latency\"\nthreshold = \"250ms\"".to_owned(),
        };
        let declared = format!(
            "[slo-{seed}]\nmatch = {{ namespace = \"s{seed}\", {subject} = \"api\" }}\n{sli}\nobjective = \"{objective}\"\nwindow = \
             \"{window}\"\n"
        );
        let length = match kind {
            Kind::Days => chance.between(76 * H, 80 * H) / (5 * M) * 5 * M,
            Kind::LowTraffic | Kind::QuietNights => chance.between(9 * H, 13 * H) / M * M,
            _ => chance.between(3 * H, 9 * H) / M * M,
        };
        let length = length.min(longest);
        let mut own = Self { seed, kind, source, declared, length, samples: Vec::new(), series: Vec::new() };
        own.fill(&mut chance);
        own.samples.sort_by_key(|(at, series, _)| (*at, *series));
        own
    }

    fn fill(&mut self, chance: &mut Chance) {
        let interval = match self.kind {
            Kind::Days => 60 * S,
            _ => chance.one(&[15 * S, 15 * S, 30 * S, 10 * S]),
        };
        let phase = chance.between(0, interval);
        // Requests in a second, of all pods together.
        let rate = match self.kind {
            Kind::LowTraffic => chance.one(&[0.0005, 0.005, 0.02, 0.1]),
            _ => chance.one(&[0.5, 3.0, 40.0, 400.0]),
        };
        let base: f64 = chance.one(&[0.0, 0.0, 0.0001, 0.002]);
        let faults = self.faults(chance);
        let mut pods = self.pods(chance);
        let routes = ["/pay", "/items/{id}", "/healthz"];
        let losses: Vec<(i64, i64)> = match self.kind {
            Kind::TargetLoss | Kind::Gaps | Kind::Staleness => (0..chance.between(1, 4))
                .map(|_| {
                    let from = chance.between(0, self.length);
                    let long = chance.one(&[2 * M, 4 * M, 6 * M, 20 * M, 100 * M]);
                    (from, from + long)
                })
                .collect(),
            _ => Vec::new(),
        };
        let lagging = (self.kind == Kind::TargetLoss && chance.share() < 0.5).then(|| losses[0]);
        let mut ended: Vec<usize> = Vec::new();
        let mut at = phase;
        while at <= self.length {
            let busy = self.busy(at, chance);
            let errors =
                faults.iter().filter(|f| at >= f.from && at < f.to).fold(base, |all, f| all.max(f.share));
            let lost = losses.iter().any(|(from, to)| at >= *from && at < *to);
            // What is not watched in a gap happens all the same; a lost target counts on, too. A service without a process
            // does not.
            let up = pods.iter().filter(|pod| at >= pod.from && at < pod.to).count();
            for pod in &mut pods {
                if at < pod.from || at >= pod.to {
                    continue;
                }
                if self.kind == Kind::Resets && chance.share() < 0.002 {
                    pod.counts.values_mut().for_each(|count| *count = 0.0);
                }
                let expected = rate * busy * interval as f64 / 1e3 / up.max(1) as f64;
                for (route, share) in [(0, 0.7), (1, 0.3), (2, 0.1)] {
                    let all = chance.count(expected * share);
                    let bad = if route == 2 { 0.0 } else { chance.count(all * errors).min(all) };
                    *pod.counts.entry((route, true)).or_default() += all - bad;
                    *pod.counts.entry((route, false)).or_default() += bad;
                }
            }
            if !lost {
                self.publish(BEGIN + at, &pods, at, &routes);
            }
            if self.kind == Kind::Staleness && lost && !ended.is_empty() {
                for series in ended.drain(..) {
                    self.samples.push((BEGIN + at, series, stale()));
                }
            } else if !lost {
                ended = (0..self.series.len()).collect();
            }
            if self.source != Source::Buckets && at % (60 * S) < interval {
                let lag = lagging.is_some_and(|(from, to)| at >= from && at < to);
                let series = self.series("red_source_lag_seconds", "", &[("source", "log")]);
                self.samples.push((BEGIN + at, series, if lag { 300.0 } else { 1.0 }));
            }
            at += interval;
        }
    }

    fn faults(&self, chance: &mut Chance) -> Vec<Fault> {
        (0..chance.between(0, 4))
            .map(|_| {
                let from = chance.between(0, self.length);
                let long = match self.kind {
                    Kind::Days => chance.one(&[20 * M, 5 * H, 30 * H]),
                    _ => chance.one(&[M, 4 * M, 15 * M, 60 * M, 150 * M]),
                };
                let share = chance.one(&[1.0, 0.5, 0.1, 0.03, 0.01, 0.004, 0.0015]);
                Fault { from, to: from + long, share }
            })
            .collect()
    }

    fn pods(&self, chance: &mut Chance) -> Vec<Pod> {
        let pod = |name: String, from, to| Pod { name, from, to, counts: BTreeMap::new() };
        if self.kind != Kind::Deploys {
            let count = chance.between(1, 4);
            return (0..count).map(|at| pod(format!("api-{at}"), 0, i64::MAX)).collect();
        }
        let mut found = vec![pod("api-0".into(), 0, i64::MAX)];
        let mut from = chance.between(20 * M, 2 * H);
        while from < self.length {
            // The new one is there before the old one goes, or some time later.
            let overlap = chance.one(&[30 * S, 2 * M, -3 * M, -10 * M]);
            if let Some(last) = found.last_mut() {
                last.to = from + overlap;
            }
            found.push(pod(format!("api-{}", found.len()), from, i64::MAX));
            from += chance.between(20 * M, 3 * H);
        }
        found
    }

    fn busy(&self, at: i64, chance: &mut Chance) -> f64 {
        match self.kind {
            Kind::Bursty => chance.one(&[0.0, 0.1, 0.1, 1.0, 5.0]),
            Kind::QuietNights if at > 2 * H && at < 8 * H => 0.0,
            Kind::Days if (at / H) % 24 < 6 => 0.05,
            _ => 1.0,
        }
    }

    fn series(&mut self, name: &str, pod: &str, own: &[(&str, &str)]) -> usize {
        let namespace = format!("s{}", self.seed);
        let mut labels =
            vec![("cluster", "c"), ("node", "n"), ("namespace", &namespace), ("workload", "api")];
        if !pod.is_empty() {
            labels.extend([("pod", pod), ("service", "api"), ("method", "GET")]);
        }
        labels.extend(own);
        let mut labels: Vec<(String, String)> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        labels.sort();
        match self.series.iter().position(|(known, own)| known == name && *own == labels) {
            Some(at) => at,
            None => {
                self.series.push((name.to_owned(), labels));
                self.series.len() - 1
            }
        }
    }

    fn publish(&mut self, unix_ms: i64, pods: &[Pod], at: i64, routes: &[&str]) {
        let alive = |pod: &&Pod| at >= pod.from && at < pod.to;
        if self.source == Source::Counted {
            let id = format!("s{0}/api/slo-{0}", self.seed);
            for (result, good) in [("good", true), ("bad", false)] {
                // The agent counts a workload as a whole, over all of its pods.
                let all = pods.iter().flat_map(|pod| &pod.counts);
                let total =
                    all.filter(|((route, own), _)| *route != 2 && *own == good).map(|(_, count)| count).sum();
                let series = self.series("slo_events_total", "", &[("slo_id", &id), ("result", result)]);
                self.samples.push((unix_ms, series, total));
            }
            return;
        }
        for pod in pods.iter().filter(alive) {
            for (at_route, route) in routes.iter().enumerate() {
                let good = pod.counts.get(&(at_route, true)).copied().unwrap_or_default();
                let bad = pod.counts.get(&(at_route, false)).copied().unwrap_or_default();
                let pairs = match self.source {
                    Source::Classes => [
                        ("red_requests_total", "code_class", "2xx", good),
                        ("red_requests_total", "code_class", "5xx", bad),
                    ],
                    _ => [
                        ("red_request_duration_seconds_bucket", "le", "0.25", good),
                        ("red_request_duration_seconds_bucket", "le", "+Inf", good + bad),
                    ],
                };
                for (name, label, value, count) in pairs {
                    let series = self.series(name, &pod.name, &[("route", route), (label, value)]);
                    self.samples.push((unix_ms, series, count));
                }
            }
        }
    }
}
