//! Objectives that the traffic of the last weeks would have kept.
//!
//! In: requests, errors and bucket counts of each workload by hour. Out: tables of `agent.toml`, each under a comment with
//! its reason. Invariants: what is suggested was kept with a margin over the whole window and in its worst part; every
//! alert of it can be reached; where there is too little to judge by, nothing is suggested and the comment says why.

use std::fmt::Write as _;
use std::time::Duration;

use super::backtest::{LADDER, LEAST_ALLOWED, MARGIN};
use super::burn::TIERS;
use super::config::{Defaults, low_traffic};
use super::import::write::{quoted, span};
use super::number::shortest;
use super::objective::{Objective, Window};
use super::render;
use super::spec::{self, Selector, Sli, Spec};

/// Objectives of latency, strictest first.
const LATENCY: [&str; 2] = ["99%", "95%"];
/// Hours below which nothing is suggested.
const LEAST_HOURS: usize = 24;
/// Share of the window's hours below which the history is called short.
const ENOUGH: f64 = 0.5;

/// What one workload served, by hour. NaN where there is no sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traffic {
    /// Cluster; may be empty.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// Workload.
    pub workload: String,
    /// Requests.
    pub events: Vec<f64>,
    /// Those with a 5xx.
    pub errors: Vec<f64>,
    /// Requests up to a bound, in seconds, loosest last; infinity counts all.
    pub buckets: Vec<(f64, Vec<f64>)>,
}

/// The queries: requests, errors, buckets, each of one hour. They are grouped by cluster, namespace, workload and `le`.
pub fn queries(namespace: Option<&str>, defaults: &Defaults) -> [String; 3] {
    let mut matchers = String::from("workload!=\"\"");
    if let Some(namespace) = namespace {
        let _ = write!(matchers, ",namespace={}", render::quoted(namespace));
    }
    matchers.push_str(&render::route_matcher(&defaults.exclude_routes));
    let by = "cluster, namespace, workload";
    [
        format!("sum by ({by}) (increase(red_requests_total{{{matchers}}}[1h]))"),
        format!("sum by ({by}) (increase(red_requests_total{{{matchers},code_class=\"5xx\"}}[1h]))"),
        format!("sum by ({by}, le) (increase(red_request_duration_seconds_bucket{{{matchers}}}[1h]))"),
    ]
}

/// Hours of the part of a window that is looked at for its worst.
const fn part(window: Window) -> usize {
    match window {
        Window::D7 => 24,
        Window::D28 | Window::D30 => 7 * 24,
        Window::D90 => 30 * 24,
    }
}

/// Suggestions for each workload as tables of `agent.toml`; `hours` is the length of the history that was asked for.
pub fn toml(traffic: &[Traffic], window: Window, hours: usize, defaults: &Defaults) -> String {
    let mut out = format!("# Suggested by `nodewick slo suggest` from {} of history.\n", days(hours));
    if *defaults != Defaults::default() {
        out.push_str("# Routes are left out as the defaults of [slo.defaults] say.\n");
    }
    let clusters = {
        let mut clusters: Vec<&str> = traffic.iter().map(|one| one.cluster.as_str()).collect();
        clusters.sort_unstable();
        clusters.dedup();
        clusters.len()
    };
    let mut names: Vec<String> = Vec::new();
    for one in traffic {
        let of_cluster = if clusters > 1 { format!(", cluster {:?}", one.cluster) } else { String::new() };
        let _ = write!(out, "\n# {}/{}{of_cluster}: ", comment(&one.namespace), comment(&one.workload));
        for (suffix, found) in suggestions(one, window, hours, defaults, &mut out) {
            let namesakes = traffic.iter().filter(|other| other.workload == one.workload).count();
            let stem = if namesakes > 1 {
                format!("{}-{}", one.namespace, one.workload)
            } else {
                one.workload.clone()
            };
            let mut name = slug(&format!("{stem}-{suffix}"));
            if clusters > 1 {
                name = slug(&format!("{}-{name}", one.cluster));
            }
            let mut number = 2;
            while names.contains(&name) || !spec::is_name(&name) {
                name = slug(&format!("{}-{number}-{suffix}", stem.chars().take(40).collect::<String>()));
                number += 1;
            }
            table(&mut out, &name, &found);
            names.push(name);
        }
    }
    out
}

/// The objectives of one workload; why, and why not, goes to `out` as comments.
fn suggestions(
    one: &Traffic,
    window: Window,
    hours: usize,
    defaults: &Defaults,
    out: &mut String,
) -> Vec<(&'static str, Found)> {
    let seen = one.events.iter().filter(|events| events.is_finite()).count();
    let events = total(&one.events);
    let per_minute = events / (seen.max(1) as f64 * 60.0);
    let _ = writeln!(
        out,
        "{} requests in {}, {} a minute",
        shortest(events.round()),
        days(seen),
        shortest((per_minute * 10.0).round() / 10.0)
    );
    if events < 1.0 {
        out.push_str("# nothing is suggested: no request was counted\n");
        return Vec::new();
    }
    if seen < LEAST_HOURS {
        let _ = writeln!(
            out,
            "# nothing is suggested: {} of history say too little; ask again after a week",
            days(seen)
        );
        return Vec::new();
    }
    if (seen as f64) < ENOUGH * hours as f64 {
        let _ = writeln!(
            out,
            "# warning: samples cover {} of {} only; look again when there is more history",
            days(seen),
            days(hours)
        );
    }
    // A window of the same traffic.
    let in_window = per_minute * f64::from(window.minutes());
    let mut found = Vec::new();
    let errors = total(&one.errors);
    let worst = worst(&one.events, &one.errors, part(window));
    let kept = availability(window, errors / events, worst, in_window);
    let _ = writeln!(
        out,
        "# {} of them failed, {}; in the worst {} {}",
        shortest(errors.round()),
        share(errors / events),
        days(part(window).min(seen)),
        share(worst)
    );
    match kept {
        Some(objective) => found.push((
            "availability",
            Found { one: one.clone(), sli: Sli::Availability, objective, window, reason: String::new() },
        )),
        None => {
            let _ = writeln!(
                out,
                "# no availability is suggested: {}",
                if in_window * least(window).budget() < LEAST_ALLOWED {
                    "at this traffic a single failure is most of any budget".to_owned()
                } else {
                    format!("not even {} was kept with a margin; mend that first", least(window))
                }
            );
        }
    }
    match latency(one, window, in_window) {
        Latency::Found { objective, threshold, whole, worst } => {
            let reason = format!(
                "# {} of them took longer than {}; in the worst {} {}\n",
                share(whole),
                span(threshold),
                days(part(window).min(seen)),
                share(worst)
            );
            let sli = Sli::Latency { threshold };
            found.push(("latency", Found { one: one.clone(), sli, objective, window, reason }));
        }
        Latency::NoBuckets => out.push_str("# no latency is suggested: no durations were counted\n"),
        Latency::TooSlow => {
            out.push_str("# no latency is suggested: no bucket holds 95% of the requests with a margin\n");
        }
        Latency::TooFew => {
            out.push_str(
                "# no latency is suggested: at this traffic a single slow request is most of any budget\n",
            );
        }
    }
    for (_, found) in &mut found {
        let probe = found.spec(defaults);
        if let Some(advice) = low_traffic(&probe, per_minute) {
            let _ = write!(found.reason, "# warning: {}\n#   {}\n", advice.message, advice.help);
        }
    }
    found
}

struct Found {
    one: Traffic,
    sli: Sli,
    objective: Objective,
    window: Window,
    /// Comments before its table.
    reason: String,
}

impl Found {
    fn spec(&self, defaults: &Defaults) -> Spec {
        Spec {
            name: "suggested".to_owned(),
            selector: Selector {
                namespace: self.one.namespace.clone(),
                workload: Some(self.one.workload.clone()),
                ..Selector::default()
            },
            sli: self.sli,
            objective: self.objective,
            window: self.window,
            mode: defaults.mode,
            page_min_bad_events: defaults.page_min_bad_events,
            ticket_min_bad_events: defaults.ticket_min_bad_events,
            exclude_routes: defaults.exclude_routes.clone(),
            owner: String::new(),
            runbook: String::new(),
        }
    }
}

/// Objectives whose every alert can be reached.
fn ladder(window: Window) -> Vec<Objective> {
    let all = LADDER.iter().filter_map(|text| text.parse().ok());
    all.filter(|objective| TIERS.iter().all(|tier| tier.is_reachable(window, *objective))).collect()
}

/// The loosest of them.
fn least(window: Window) -> Objective {
    ladder(window)[0]
}

/// The strictest objective that was kept.
fn availability(window: Window, whole: f64, worst: f64, in_window: f64) -> Option<Objective> {
    let was_kept = |objective: &Objective| {
        let budget = objective.budget();
        whole <= MARGIN * budget && worst <= budget && in_window * budget >= LEAST_ALLOWED
    };
    ladder(window).into_iter().rev().find(was_kept)
}

enum Latency {
    Found { objective: Objective, threshold: Duration, whole: f64, worst: f64 },
    NoBuckets,
    TooSlow,
    TooFew,
}

/// The shortest bound within which enough requests were.
fn latency(one: &Traffic, window: Window, in_window: f64) -> Latency {
    let Some((_, all)) = one.buckets.iter().find(|(bound, _)| bound.is_infinite()) else {
        return Latency::NoBuckets;
    };
    let events = total(all);
    if events < 1.0 {
        return Latency::NoBuckets;
    }
    let mut few = false;
    for objective in LATENCY.iter().filter_map(|text| text.parse::<Objective>().ok()) {
        let reachable = TIERS.iter().all(|tier| tier.is_reachable(window, objective));
        if !reachable || in_window * objective.budget() < LEAST_ALLOWED {
            few |= reachable;
            continue;
        }
        for (bound, fast) in one.buckets.iter().filter(|(bound, _)| bound.is_finite() && *bound > 0.0) {
            let slow: Vec<f64> = all.iter().zip(fast).map(|(all, fast)| (all - fast).max(0.0)).collect();
            let (whole, worst) = (total(&slow) / events, worst(all, &slow, part(window)));
            let threshold = Duration::try_from_secs_f64(*bound).ok().filter(|bound| bound.as_secs() <= 3_600);
            if let Some(threshold) = threshold
                && whole <= MARGIN * objective.budget()
                && worst <= objective.budget()
            {
                return Latency::Found { objective, threshold, whole, worst };
            }
        }
    }
    if few { Latency::TooFew } else { Latency::TooSlow }
}

/// The sum of what was seen.
fn total(values: &[f64]) -> f64 {
    values.iter().filter(|value| value.is_finite()).sum()
}

/// The largest share of bad ones over any `hours` in a row, by sums.
fn worst(events: &[f64], errors: &[f64], hours: usize) -> f64 {
    let number = |value: Option<&f64>| value.copied().filter(|value| value.is_finite()).unwrap_or_default();
    let (mut all, mut bad, mut worst) = (0.0, 0.0, 0.0_f64);
    for at in 0..events.len() {
        all += number(events.get(at));
        bad += number(errors.get(at));
        if let Some(gone) = at.checked_sub(hours) {
            all -= number(events.get(gone));
            bad -= number(errors.get(gone));
        }
        // A part that has only begun says nothing.
        if (at + 1 >= hours || at + 1 == events.len()) && all >= 1.0 {
            worst = worst.max(bad / all);
        }
    }
    worst
}

fn table(out: &mut String, name: &str, found: &Found) {
    out.push_str(&found.reason);
    let _ = writeln!(out, "[slo.{name}]");
    let (namespace, workload) = (quoted(&found.one.namespace), quoted(&found.one.workload));
    let _ = writeln!(out, "match = {{ namespace = {namespace}, workload = {workload} }}");
    let _ = writeln!(out, "sli = \"{}\"\nobjective = \"{}\"", found.sli.name(), found.objective);
    if let Sli::Latency { threshold } = found.sli {
        let _ = writeln!(out, "threshold = \"{}\"", span(threshold));
    }
    let _ = writeln!(out, "window = \"{}\"", found.window);
}

/// A share with three digits that count.
fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent <= 0.0 {
        return "0%".to_owned();
    }
    let digits = (2.0 - percent.log10().floor()).clamp(0.0, 12.0);
    let scale = 10_f64.powf(digits);
    format!("{}%", shortest((percent * scale).round() / scale))
}

fn days(hours: usize) -> String {
    match (hours / 24, hours % 24) {
        (0, hours) => format!("{hours}h"),
        (days, 0) => format!("{days}d"),
        (days, hours) => format!("{days}d{hours}h"),
    }
}

fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A name that an objective may have.
fn slug(text: &str) -> String {
    let kept = text.to_ascii_lowercase();
    let kept: String =
        kept.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    kept.trim_matches('-').chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    fn traffic(per_hour: f64, hours: usize, bad: &[(usize, f64)]) -> Traffic {
        let mut errors = vec![0.0; hours];
        for (hour, count) in bad {
            errors[*hour] = *count;
        }
        let bucket = |share: f64| vec![per_hour * share; hours];
        Traffic {
            cluster: "c".into(),
            namespace: "shop".into(),
            workload: "checkout".into(),
            events: vec![per_hour; hours],
            errors,
            buckets: vec![(0.1, bucket(0.9)), (0.25, bucket(0.995)), (f64::INFINITY, bucket(1.0))],
        }
    }

    fn suggested(traffic: &[Traffic], window: Window) -> (String, Vec<String>) {
        let text = toml(traffic, window, 720, &Defaults::default());
        #[derive(serde::Deserialize, Default)]
        #[serde(default)]
        struct File {
            slo: Config,
        }
        let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(file.slo.problems(), [], "{text}");
        let specs = file.slo.specs();
        let shown = specs.iter().map(|spec| {
            let threshold = match spec.sli {
                Sli::Latency { threshold } => format!(" < {}", span(threshold)),
                Sli::Availability => String::new(),
            };
            format!("{} {}{threshold}", spec.name, spec.objective)
        });
        (text, shown.collect())
    }

    #[test]
    fn the_strictest_objective_that_was_kept_is_suggested() {
        // 3,600 of 25,920,000 fail: 0.0139%. 99.95% spends 28% of its budget; in the worst week 0.0595% fail, too many for
        // it, so that 99.9% remains.
        let (text, found) = suggested(&[traffic(36_000.0, 720, &[(500, 3_600.0)])], Window::D30);
        assert_eq!(found, ["checkout-availability 99.9%", "checkout-latency 99% < 250ms"]);
        assert!(text.contains("# shop/checkout: 25920000 requests in 30d, 600 a minute\n"), "{text}");
        assert!(text.contains("# 3600 of them failed, 0.0139%; in the worst 7d 0.0595%\n"), "{text}");
        assert!(text.contains("# 0.5% of them took longer than 250ms; in the worst 7d 0.5%\n"), "{text}");
        assert!(!text.contains("warning"), "{text}");
    }

    #[test]
    fn no_failure_at_little_traffic_is_no_proof_of_five_nines() {
        // 20 an hour are 14,400 in thirty days: 99.95% would allow seven bad ones, 99.9% fourteen.
        let (text, found) = suggested(&[traffic(20.0, 720, &[])], Window::D30);
        assert_eq!(found, ["checkout-availability 99.9%", "checkout-latency 99% < 250ms"]);
        assert!(text.contains("# warning: at 20 requests an hour a single bad one is above"), "{text}");
        let (text, found) = suggested(&[traffic(0.1, 720, &[])], Window::D30);
        assert!(
            found.is_empty() && text.contains("# no availability is suggested: at this traffic"),
            "{text}"
        );
    }

    #[test]
    fn short_history_is_told() {
        let (text, found) = suggested(&[traffic(36_000.0, 12, &[])], Window::D30);
        assert!(
            found.is_empty() && text.contains("# nothing is suggested: 12h of history say too little"),
            "{text}"
        );
        let (text, _) = suggested(&[traffic(36_000.0, 100, &[])], Window::D30);
        assert!(text.contains("# warning: samples cover 4d4h of 30d only"), "{text}");
        let (text, _) = suggested(&[traffic(0.0, 100, &[])], Window::D30);
        assert!(text.contains("# nothing is suggested: no request was counted"), "{text}");
    }

    #[test]
    fn an_objective_that_no_alert_can_reach_is_not_suggested() {
        // Three percent fail: 95% would be kept, but over 90 days its alerts cannot be reached below 97.69%.
        let bad: Vec<(usize, f64)> = (0..720).map(|hour| (hour, 1_080.0)).collect();
        let found = |window| suggested(&[traffic(36_000.0, 720, &bad)], window);
        assert_eq!(found(Window::D30).1[0], "checkout-availability 95%");
        let (text, names) = found(Window::D90);
        assert_eq!(names, ["checkout-latency 99% < 250ms"]);
        assert!(
            text.contains("# no availability is suggested: not even 98% was kept with a margin"),
            "{text}"
        );
    }

    #[test]
    fn namesakes_and_strange_names_have_names_of_their_own() {
        let one = traffic(36_000.0, 720, &[]);
        let other = Traffic { namespace: "Team_B".into(), ..one.clone() };
        let odd = Traffic { workload: format!("é\n\"{}", "x".repeat(90)), ..one.clone() };
        let (_, found) = suggested(&[one.clone(), other], Window::D30);
        assert_eq!(found[0], "shop-checkout-availability 99.999%");
        assert_eq!(found[2], "team-b-checkout-availability 99.999%");
        let text = toml(&[odd], Window::D30, 720, &Defaults::default());
        assert!(text.parse::<toml::Table>().is_ok(), "{text}");
        let clusters = [one.clone(), Traffic { cluster: "d".into(), ..one }];
        assert_eq!(suggested(&clusters, Window::D30).1.len(), 4);
    }
}
