//! One declared objective with everything resolved, and what can be wrong with it.
//!
//! In: what the doors (config, annotations) read. Out: [`Spec`]s to render, [`Problem`]s with their fix.
//! Invariant: the texts of a spec are safe in PromQL, YAML and templates: no control characters, no `{{`, no backtick.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::burn::TIERS;
use super::number::shortest;
use super::objective::{Objective, Window};

/// Objectives that may be about one workload; more are not counted exactly.
pub const MOST_PER_WORKLOAD: usize = 32;
/// Bytes of a name, a route or a note.
pub const MOST_TEXT: usize = 512;
/// Longest name of an objective.
const MOST_NAME: usize = 63;
/// Longest threshold that makes sense for a request.
const MOST_THRESHOLD: Duration = Duration::from_secs(3_600);

/// What the rules do with an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Measures and shows it; nobody is called.
    #[default]
    Observe,
    /// Also pages and writes tickets.
    Alert,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "observe" => Ok(Self::Observe),
            "alert" => Ok(Self::Alert),
            other => Err(format!("{other:?} is no mode; write observe or alert")),
        }
    }
}

impl Mode {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Alert => "alert",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sli {
    /// Answers that are no 5xx.
    Availability,
    /// Requests that took no longer than this.
    Latency {
        /// As long is still good.
        threshold: Duration,
    },
}

impl Sli {
    /// As it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Latency { .. } => "latency",
        }
    }
}

/// Whose requests an objective is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Namespace.
    pub namespace: String,
    /// Name of the Deployment, StatefulSet, DaemonSet, Job or lone pod.
    pub workload: Option<String>,
    /// Name of the service.
    pub service: Option<String>,
    /// Route as `red_requests_total` has it.
    pub route: Option<String>,
}

impl Selector {
    /// Name of what it is about: the workload, else the service.
    pub fn subject(&self) -> &str {
        self.workload.as_deref().or(self.service.as_deref()).unwrap_or_default()
    }

    /// The label that names the subject.
    pub fn subject_label(&self) -> &'static str {
        if self.workload.is_some() { "workload" } else { "service" }
    }
}

/// A declared objective with everything resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its own name: `checkout-availability`.
    pub name: String,
    /// Whose requests.
    pub selector: Selector,
    /// What is measured.
    pub sli: Sli,
    /// How much must be good.
    pub objective: Objective,
    /// Over how long.
    pub window: Window,
    /// What the rules do with it.
    pub mode: Mode,
    /// Bad events below which nobody is paged.
    pub page_min_bad_events: u32,
    /// Bad events below which no ticket is written.
    pub ticket_min_bad_events: u32,
    /// Routes that have no say.
    pub exclude_routes: Vec<String>,
    /// Team that is called; may be empty.
    pub owner: String,
    /// Address of its own runbook; may be empty.
    pub runbook: String,
}

impl Spec {
    /// Join key of everything about it: `<namespace>/<workload>/<name>`.
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.selector.namespace, self.selector.subject(), self.name)
    }

    /// True when the agent counts it exactly from access lines as `slo_events_total`: it is about a whole workload.
    pub fn is_counted(&self) -> bool {
        self.selector.workload.is_some() && self.selector.service.is_none() && self.selector.route.is_none()
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It cannot be honoured.
    Error,
    /// It works, but not as somebody may think.
    Warning,
    /// Good to know.
    Advice,
}

impl Level {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Advice => "advice",
        }
    }
}

/// Something wrong or odd about a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub level: Level,
    /// The key below `slo`; of annotations their name.
    pub key: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Problem {
    /// A problem at `key`.
    pub fn new(level: Level, key: &[&str], message: String, help: impl Into<String>) -> Self {
        let key = key.iter().map(|part| (*part).to_owned()).collect();
        Self { level, key, message, help: help.into() }
    }
}

/// What is wrong with a text that will stand in rules; `None` when nothing is.
pub fn text_problem(text: &str) -> Option<&'static str> {
    if text.len() > MOST_TEXT {
        Some("is longer than 512 bytes")
    } else if text.chars().any(char::is_control) {
        Some("has control characters")
    } else if text.contains("{{") || text.contains("}}") {
        Some("has double braces, which alert templates would run")
    } else if text.contains('`') {
        Some("has a backtick")
    } else {
        None
    }
}

/// Whether an objective may have this name: it becomes part of file names, labels and ids.
pub fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= MOST_NAME
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// What cannot work about a resolved objective. `at` is where it was declared.
pub fn problems(spec: &Spec, at: &[&str]) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |key: &[&str], message: String, help: &str| {
        let key: Vec<&str> = at.iter().chain(key).copied().collect();
        found.push(Problem::new(Level::Error, &key, message, help));
    };
    if !is_name(&spec.name) {
        let message = format!("{:?} cannot be the name of an objective", spec.name);
        add(
            &[],
            message,
            "use lower-case letters, digits and dashes, at most 63, like \"checkout-availability\"",
        );
    }
    let selector = &spec.selector;
    let names = [
        ("namespace", Some(&selector.namespace)),
        ("workload", selector.workload.as_ref()),
        ("service", selector.service.as_ref()),
        ("route", selector.route.as_ref()),
    ];
    for (key, text) in names.iter().filter_map(|(key, text)| Some((*key, (*text)?))) {
        if text.is_empty() {
            add(&["match", key], "is empty".to_owned(), "write the exact name, or leave the key out");
        } else if let Some(what) = text_problem(text) {
            add(&["match", key], what.to_owned(), "write the exact name as the labels have it");
        }
    }
    if selector.workload.is_none() && selector.service.is_none() {
        let help = "write match = { namespace = \"shop\", workload = \"checkout\" }";
        add(&["match"], "names neither a workload nor a service".to_owned(), help);
    }
    if selector.subject().contains('/') && selector.workload.is_some() {
        add(&["match", "workload"], "has a slash".to_owned(), "write the name alone, without its kind");
    }
    if let Sli::Latency { threshold } = spec.sli {
        if threshold.is_zero() {
            let help = "write what is still fast enough, like \"200ms\"";
            add(&["threshold"], "no request takes no time".to_owned(), help);
        } else if threshold > MOST_THRESHOLD {
            add(&["threshold"], "is longer than an hour".to_owned(), "write it like \"200ms\"");
        }
    }
    for (key, least) in [
        ("page_min_bad_events", spec.page_min_bad_events),
        ("ticket_min_bad_events", spec.ticket_min_bad_events),
    ] {
        if least == 0 {
            add(&[key], "an alert without a bad event says nothing".to_owned(), "write 1 or more");
        }
    }
    for route in &spec.exclude_routes {
        if route.is_empty() || text_problem(route).is_some() {
            let message = format!("{route:?} is no route");
            add(
                &["exclude_routes"],
                message,
                "write routes as red_requests_total has them, like \"/healthz\"",
            );
        }
    }
    for (key, text) in [("owner", &spec.owner), ("runbook", &spec.runbook)] {
        if let Some(what) = text_problem(text) {
            add(&[key], what.to_owned(), "write plain text");
        }
    }
    // The fastest tier is the one that is out of reach first.
    let dead = TIERS.iter().find(|tier| !tier.is_reachable(spec.window, spec.objective));
    if let Some(tier) = dead {
        let least = (tier.least_objective(spec.window) * 1e4).ceil() / 1e2;
        let factor = tier.factor(spec.window);
        let message = format!(
            "the alert over {}/{} fires at {} times the allowed rate, which {} can never reach: all requests failing is {} times",
            tier.long,
            tier.short,
            shortest(factor),
            spec.objective,
            shortest((1.0 / spec.objective.budget() * 1e3).round() / 1e3),
        );
        let shorter = Window::ALL.into_iter().rev().filter(|window| *window < spec.window);
        let fits = |window: &Window| TIERS.iter().all(|tier| tier.is_reachable(*window, spec.objective));
        let other = shorter.clone().find(fits);
        let other = other.map(|window| format!(", or window = \"{window}\"")).unwrap_or_default();
        add(&["objective"], message, &format!("write an objective above {}%{other}", shortest(least)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            name: "availability".into(),
            selector: Selector {
                namespace: "shop".into(),
                workload: Some("api".into()),
                ..Selector::default()
            },
            sli: Sli::Availability,
            objective: "99.95%".parse().expect("an objective"),
            window: Window::D30,
            mode: Mode::Alert,
            page_min_bad_events: 5,
            ticket_min_bad_events: 2,
            exclude_routes: Vec::new(),
            owner: String::new(),
            runbook: String::new(),
        }
    }

    fn said(spec: &Spec) -> Vec<(String, String, String)> {
        problems(spec, &["x"]).into_iter().map(|p| (p.key.join("."), p.message, p.help)).collect()
    }

    #[test]
    fn a_sound_objective_has_no_problem() {
        assert_eq!(said(&spec()), []);
        assert_eq!(spec().id(), "shop/api/availability");
        assert!(spec().is_counted());
    }

    #[test]
    fn a_tier_out_of_reach_is_refused_with_the_fix() {
        let low = Spec { objective: "90%".parse().expect("an objective"), ..spec() };
        let expected = (
            "x.objective".to_owned(),
            "the alert over 1h/5m fires at 14.4 times the allowed rate, which 90% can never reach: all requests failing is 10 times"
                .to_owned(),
            "write an objective above 93.06%, or window = \"7d\"".to_owned(),
        );
        assert_eq!(said(&low), [expected]);
        let quarter = Spec { objective: "97%".parse().expect("an objective"), window: Window::D90, ..spec() };
        assert_eq!(said(&quarter)[0].2, "write an objective above 97.69%, or window = \"30d\"");
    }

    #[test]
    fn texts_that_would_break_out_are_refused() {
        let selector =
            Selector { namespace: "a\nb".into(), workload: Some("{{ x }}".into()), ..Selector::default() };
        let keys: Vec<String> = said(&Spec { selector, ..spec() }).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["x.match.namespace", "x.match.workload"]);
        let nobody = Selector { namespace: "shop".into(), ..Selector::default() };
        assert_eq!(said(&Spec { selector: nobody, ..spec() })[0].0, "x.match");
        assert_eq!(said(&Spec { name: "Checkout".into(), ..spec() })[0].0, "x");
        assert_eq!(said(&Spec { page_min_bad_events: 0, ..spec() })[0].0, "x.page_min_bad_events");
    }
}
