//! `[slo.defaults]` and `[slo.<name>]`: objectives in the config.
//!
//! In: the tables. Out: [`Spec`]s with the defaults filled in, and [`Problem`]s by key. The tables stand side by side, so
//! `defaults` is the one name that no objective can have.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::burn::TIERS;
use super::number::{percent, shortest};
use super::objective::{Objective, Window};
use super::observed::Observed;
use super::spec::{self, Level, MOST_PER_WORKLOAD, Mode, Problem, Selector, Spec};
use crate::data::units::Span;

/// `[slo]`: objectives of workloads, from which rules, alerts and runbooks are rendered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Config {
    /// What holds for objectives that say nothing of their own, and for what is rendered of them.
    #[schemars(default)]
    pub defaults: Defaults,
    /// The objectives by name.
    #[serde(flatten)]
    #[schemars(flatten)]
    pub declared: BTreeMap<String, Declared>,
}

/// `[slo.defaults]`: what holds for objectives that say nothing of their own, and for what is rendered of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// The rolling window of an objective.
    pub window: Window,
    /// "observe" measures and shows an objective; "alert" also pages and writes tickets.
    pub mode: Mode,
    /// Bad requests in the long range of a page below which nobody is paged: at one request a minute a single error is
    /// hundreds of times the allowed rate.
    pub page_min_bad_events: u32,
    /// Bad requests in the long range of a ticket below which none is written.
    pub ticket_min_bad_events: u32,
    /// Routes that have no say: probes and metrics pages.
    pub exclude_routes: Vec<String>,
    /// Team that alerts name.
    pub owner: String,
    /// Where runbook pages are found; alerts link to `<this>/<alert>.md`.
    pub runbook_url: String,
    /// Where Grafana is: `https://grafana.example.com`. Empty leaves dashboard links relative.
    pub grafana_url: String,
    /// How severities are called: "page" (page, ticket, info) or "critical" (critical, warning, info).
    pub severities: Severities,
    /// How long the Prometheus that evaluates the rules keeps samples, to warn of longer windows. Its own default is 15d.
    pub retention: Option<Span>,
    /// What keeps a few errors among few requests from alerting: "gate" (the least numbers of bad requests) or "wilson" (these,
    /// and of the long range the lower end of Wilson's 95 % interval instead of the plain share, so that fewer requests must
    /// show more errors).
    pub low_traffic: LowTraffic,
    /// kube-state-metrics is in the same Prometheus: a Deployment or StatefulSet of no replicas is no vanished traffic. Without it
    /// the rules cannot know of a workload that was scaled to zero on purpose.
    pub kube_state_metrics: bool,
    /// Availability by which a workload is observed that has no availability objective of its own, so that every service
    /// has figures before anybody declares anything. Nobody is ever called by it. "off" observes none.
    pub observed: Observed,
    /// Publish trace ids of bad requests as `slo_sample_trace_info`, the newest five of each objective within an hour, so that
    /// alerts can name them. Each is a series of its own for up to an hour.
    pub trace_evidence: bool,
    /// Add the labels and records that Sloth's public dashboards (14348, 14643) ask for.
    pub sloth_labels: bool,
}

/// What keeps a few errors among few requests from alerting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LowTraffic {
    /// The least numbers of bad requests.
    #[default]
    Gate,
    /// These, and the lower end of Wilson's interval for the long range.
    Wilson,
}

/// Names of severities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severities {
    /// page, ticket, info.
    #[default]
    Page,
    /// critical, warning, info.
    Critical,
}

impl Default for Defaults {
    fn default() -> Self {
        let probes = ["/healthz", "/readyz", "/livez", "/health/live", "/health/ready", "/metrics"];
        Self {
            window: Window::D30,
            mode: Mode::Observe,
            page_min_bad_events: 5,
            ticket_min_bad_events: 2,
            exclude_routes: probes.map(str::to_owned).to_vec(),
            owner: String::new(),
            runbook_url: "https://github.com/nodewick/nodewick/blob/main/docs/runbooks".to_owned(),
            grafana_url: String::new(),
            severities: Severities::Page,
            retention: None,
            low_traffic: LowTraffic::Gate,
            kube_state_metrics: false,
            observed: Observed::default(),
            trace_evidence: false,
            sloth_labels: false,
        }
    }
}

/// `[slo.<name>]`: one objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Whose requests: `{ namespace = "shop", workload = "checkout" }`; also `service` and `route`.
    #[serde(rename = "match")]
    pub selector: Match,
    /// What is good: "availability" (no 5xx) or "latency" (within `threshold`).
    pub sli: SliName,
    /// Share of requests that must be good, above 0% and below 100%.
    pub objective: Objective,
    /// Longest duration that is good; of latency objectives only.
    #[serde(default)]
    pub threshold: Option<Span>,
    /// The rolling window; without it as in `[slo.defaults]`.
    #[serde(default)]
    pub window: Option<Window>,
    /// Whether somebody is called; without it as in `[slo.defaults]`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Bad requests below which nobody is paged; without it as in `[slo.defaults]`.
    #[serde(default)]
    pub page_min_bad_events: Option<u32>,
    /// Bad requests below which no ticket is written; without it as in `[slo.defaults]`.
    #[serde(default)]
    pub ticket_min_bad_events: Option<u32>,
    /// Routes that have no say; without it as in `[slo.defaults]`.
    #[serde(default)]
    pub exclude_routes: Option<Vec<String>>,
    /// Team that its alerts name; without it as in `[slo.defaults]`.
    #[serde(default)]
    pub owner: Option<String>,
    /// Address of its own runbook, instead of the page of the alert.
    #[serde(default)]
    pub runbook: Option<String>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SliName {
    /// Answers that are no 5xx.
    Availability,
    /// Requests within a threshold.
    Latency,
}

/// Whose requests an objective is about. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Namespace.
    pub namespace: String,
    /// Name of the Deployment, StatefulSet, DaemonSet, Job or lone pod.
    #[serde(default)]
    pub workload: Option<String>,
    /// Name of the service, where that says it better than the workload.
    #[serde(default)]
    pub service: Option<String>,
    /// One route, as `red_requests_total` has it.
    #[serde(default)]
    pub route: Option<String>,
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tables;

        impl<'de> Visitor<'de> for Tables {
            type Value = Config;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of objectives")
            }

            // By hand: a derived `flatten` forgets at which key a value stood, and errors must point there.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Config, A::Error> {
                let mut config = Config::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "defaults" {
                        config.defaults = map.next_value()?;
                    } else if config.declared.insert(name.clone(), map.next_value()?).is_some() {
                        return Err(de::Error::custom(format!("{name} is declared twice")));
                    }
                }
                Ok(config)
            }
        }
        deserializer.deserialize_map(Tables)
    }
}

impl Declared {
    /// The objective with the defaults filled in.
    pub fn resolve(&self, name: &str, defaults: &Defaults) -> Result<Spec, Problem> {
        let sli = match (self.sli, self.threshold) {
            (SliName::Availability, None) => spec::Sli::Availability,
            (SliName::Latency, Some(threshold)) => spec::Sli::Latency { threshold: threshold.0 },
            (SliName::Availability, Some(_)) => {
                let help = "remove it, or write sli = \"latency\"";
                let message = "an availability objective has no threshold".to_owned();
                return Err(Problem::new(Level::Error, &[name, "threshold"], message, help));
            }
            (SliName::Latency, None) => {
                let help = "write what is still fast enough: threshold = \"200ms\"";
                let message = "a latency objective needs a threshold".to_owned();
                return Err(Problem::new(Level::Error, &[name], message, help));
            }
        };
        let own = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
        Ok(Spec {
            name: name.to_owned(),
            selector: Selector {
                namespace: self.selector.namespace.clone(),
                workload: self.selector.workload.clone(),
                service: self.selector.service.clone(),
                route: self.selector.route.clone(),
            },
            sli,
            objective: self.objective,
            window: self.window.unwrap_or(defaults.window),
            mode: self.mode.unwrap_or(defaults.mode),
            page_min_bad_events: self.page_min_bad_events.unwrap_or(defaults.page_min_bad_events),
            ticket_min_bad_events: self.ticket_min_bad_events.unwrap_or(defaults.ticket_min_bad_events),
            exclude_routes: self.exclude_routes.clone().unwrap_or_else(|| defaults.exclude_routes.clone()),
            owner: own(&self.owner, &defaults.owner),
            runbook: own(&self.runbook, ""),
        })
    }
}

impl Config {
    /// The objectives in the order of their names, without those that have errors.
    pub fn specs(&self) -> Vec<Spec> {
        let resolved =
            self.declared.iter().map(|(name, declared)| (name, declared.resolve(name, &self.defaults)));
        let is_sound = |name: &str, spec: &Spec| spec::problems(spec, &[name]).is_empty();
        resolved.filter_map(|(name, spec)| spec.ok().filter(|spec| is_sound(name, spec))).collect()
    }

    /// Everything that is wrong or odd, errors and warnings.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = self.defaults.problems();
        let mut about: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (name, declared) in &self.declared {
            match declared.resolve(name, &self.defaults) {
                Err(problem) => found.push(problem),
                Ok(spec) => {
                    found.extend(spec::problems(&spec, &[name]));
                    if let Some(retention) = self.defaults.retention
                        && retention.0.as_secs() < u64::from(spec.window.minutes()) * 60
                    {
                        let message = format!(
                            "its window of {} is longer than Prometheus keeps samples ({retention}); the budget is that of {retention} only",
                            spec.window
                        );
                        let help = format!(
                            "start Prometheus with --storage.tsdb.retention.time={}d, or choose a shorter window",
                            spec.window.days() + 1
                        );
                        found.push(Problem::new(Level::Warning, &[name], message, help));
                    }
                }
            }
            let workload = declared.selector.workload.as_deref().unwrap_or_default();
            let count = about.entry((&declared.selector.namespace, workload)).or_default();
            *count += 1;
            if *count == MOST_PER_WORKLOAD + 1 && !workload.is_empty() {
                let message = format!("{workload} has more than {MOST_PER_WORKLOAD} objectives");
                let help = "nobody can answer for so many: keep those that users notice";
                found.push(Problem::new(Level::Error, &[name], message, help));
            }
        }
        found
    }

    /// What is good to know and would be noise at every start. `per_minute` is the traffic of each workload, if it is known.
    pub fn advice(&self, per_minute: Option<f64>) -> Vec<Problem> {
        let mut found = Vec::new();
        for spec in self.specs() {
            found.extend(per_minute.and_then(|per_minute| low_traffic(&spec, per_minute)));
            if self.defaults.retention.is_none() && spec.window.days() > 15 {
                let message =
                    format!("Prometheus keeps 15d by default, less than the window of {}", spec.window);
                let help = format!(
                    "start it with --storage.tsdb.retention.time={}d and say so: [slo.defaults] retention = \"{}d\"",
                    spec.window.days() + 1,
                    spec.window.days() + 1
                );
                found.push(Problem::new(Level::Advice, &[&spec.name], message, help));
            }
            if spec.window == Window::D7 && spec.mode == Mode::Alert {
                let message =
                    "in a window of 7d, tickets come at 0.7 and 0.233 times the allowed rate, before anything is missed"
                        .to_owned();
                let help = "choose 28d, whose tickets come at 2.8 and 0.933 times, unless you want to hear this early";
                found.push(Problem::new(Level::Advice, &[&spec.name], message, help));
            }
        }
        found
    }
}

/// Whether so little traffic can be judged at all.
pub(super) fn low_traffic(spec: &Spec, per_minute: f64) -> Option<Problem> {
    let (hour, six_hours) = (per_minute * 60.0, per_minute * 360.0);
    let least = f64::from(spec.page_min_bad_events);
    let help = "send synthetic requests, put several services under one objective, choose a longer window or a lower objective";
    let message = if six_hours < least {
        format!(
            "at {} requests in six hours nobody is ever paged: that takes {} bad ones",
            shortest(six_hours),
            spec.page_min_bad_events
        )
    } else {
        let threshold = TIERS[0].threshold(spec.window, spec.objective);
        if threshold * hour >= 1.0 {
            return None;
        }
        format!(
            "at {} requests an hour a single bad one is above the threshold of {}; only page_min_bad_events = {} keeps it from \
             paging, so a page means {} of an hour's requests",
            shortest(hour),
            percent(threshold),
            spec.page_min_bad_events,
            percent(((least / hour).min(1.0) * 1e3).round() / 1e3),
        )
    };
    Some(Problem::new(Level::Advice, &[&spec.name], message, help))
}

impl Defaults {
    fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for (key, url) in [("runbook_url", &self.runbook_url), ("grafana_url", &self.grafana_url)] {
            let has_scheme = url.starts_with("http://") || url.starts_with("https://");
            if spec::text_problem(url).is_some() || !url.is_empty() && !has_scheme || url.contains([' ', '"'])
            {
                let help = "write it with its scheme, like \"https://grafana.example.com\"";
                let message = format!("{url:?} is no address");
                found.push(Problem::new(Level::Error, &["defaults", key], message, help));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
        [defaults]
        window = "30d"
        mode = "observe"
        page_min_bad_events = 5
        ticket_min_bad_events = 2
        exclude_routes = ["/healthz", "/readyz", "/livez", "/health/live", "/health/ready", "/metrics"]
        [checkout-availability]
        match = { namespace = "shop", workload = "checkout" }
        sli = "availability"
        objective = "99.95%"
        [checkout-latency]
        match = { namespace = "shop", workload = "checkout" }
        sli = "latency"
        objective = "99%"
        threshold = "200ms"
    "#;

    fn config(text: &str) -> Config {
        toml::from_str(text).expect("a config")
    }

    fn said(text: &str) -> Vec<String> {
        let problems = config(text).problems();
        problems
            .iter()
            .map(|p| format!("{} {}: {}; {}", p.level.name(), p.key.join("."), p.message, p.help))
            .collect()
    }

    #[test]
    fn the_tables_of_the_manual_are_two_objectives() {
        let config = config(PAGE);
        assert_eq!(config.defaults, Defaults::default());
        assert_eq!(config.problems(), []);
        let specs = config.specs();
        let ids: Vec<String> = specs.iter().map(Spec::id).collect();
        assert_eq!(ids, ["shop/checkout/checkout-availability", "shop/checkout/checkout-latency"]);
        assert_eq!(specs[1].sli, spec::Sli::Latency { threshold: std::time::Duration::from_millis(200) });
        assert_eq!(
            (specs[0].mode, specs[0].window, specs[0].page_min_bad_events),
            (Mode::Observe, Window::D30, 5)
        );
    }

    #[test]
    fn an_objective_says_what_differs_from_the_defaults() {
        let specs = config(
            "defaults = { mode = \"alert\", owner = \"shop\" }\n[a]\nmatch = { namespace = \"n\", service = \"s\" }\n\
             sli = \"availability\"\nobjective = \"99%\"\nwindow = \"7d\"\nmode = \"observe\"\nexclude_routes = []\n",
        )
        .specs();
        assert_eq!(
            (specs[0].mode, specs[0].window, specs[0].owner.as_str()),
            (Mode::Observe, Window::D7, "shop")
        );
        assert!(specs[0].exclude_routes.is_empty() && !specs[0].is_counted());
    }

    #[test]
    fn thresholds_belong_to_latency() {
        let of = |rest: &str| {
            said(&format!(
                "[a]\nmatch = {{ namespace = \"n\", workload = \"w\" }}\nobjective = \"99%\"\n{rest}"
            ))
        };
        assert_eq!(
            of("sli = \"latency\""),
            [
                "error a: a latency objective needs a threshold; write what is still fast enough: threshold = \"200ms\""
            ]
        );
        assert_eq!(
            of("sli = \"availability\"\nthreshold = \"1s\""),
            [
                "error a.threshold: an availability objective has no threshold; remove it, or write sli = \"latency\""
            ]
        );
    }

    #[test]
    fn a_short_retention_is_a_warning() {
        let text = format!("{}\n", PAGE.replace("[defaults]", "[defaults]\nretention = \"15d\""));
        let said = said(&text);
        assert_eq!(said.len(), 2);
        assert_eq!(
            said[0],
            "warning checkout-availability: its window of 30d is longer than Prometheus keeps samples (15d); the budget is \
             that of 15d only; start Prometheus with --storage.tsdb.retention.time=31d, or choose a shorter window"
        );
    }

    #[test]
    fn little_traffic_is_told() {
        let of = |per_minute| {
            let advice = config(PAGE).advice(Some(per_minute));
            advice.into_iter().map(|p| p.message).filter(|m| m.starts_with("at ")).collect::<Vec<_>>()
        };
        assert_eq!(
            of(1.0),
            [
                "at 60 requests an hour a single bad one is above the threshold of 0.72%; only page_min_bad_events = 5 keeps it \
                 from paging, so a page means 8.3% of an hour's requests"
            ]
        );
        assert_eq!(of(0.01).len(), 2);
        assert_eq!(of(0.01)[0], "at 3.6 requests in six hours nobody is ever paged: that takes 5 bad ones");
        assert_eq!(of(600.0), [] as [String; 0]);
    }

    #[test]
    fn unknown_keys_and_values_are_refused() {
        let base = "[a]\nmatch = { namespace = \"n\", workload = \"w\" }\nsli = \"availability\"\nobjective = \"99%\"\n";
        for line in ["treshold = \"1s\"", "window = \"14d\"", "mode = \"page\"", "page_min_bad_events = -1"] {
            assert!(toml::from_str::<Config>(&format!("{base}{line}\n")).is_err(), "{line}");
        }
        let error = toml::from_str::<Config>(&base.replace("99%", "120%")).expect_err("too much");
        assert!(error.to_string().contains("an objective of 120% is more than all requests"), "{error}");
        let error = toml::from_str::<Config>(&format!("{base}threshold = \"200\"\n")).expect_err("no unit");
        assert!(error.to_string().contains("\"200\" is not a duration; write it like 15s"), "{error}");
    }
}
