//! Objectives that a pod's own annotations declare.
//!
//! ```text
//! slo.nodewick.dev/availability: "99.95%/30d"
//! slo.nodewick.dev/latency: "99% < 200ms / 30d"
//! slo.nodewick.dev/mode: "alert"        also owner, runbook
//! ```
//!
//! In: the annotations of one pod, its namespace and workload. Out: at most two [`Spec`]s, named `availability` and
//! `latency`. Invariant: what cannot be read is a problem that names the annotation, and no objective.

use super::config::Defaults;
use super::objective::{Objective, Window};
use super::spec::{self, Level, Problem, Selector, Sli, Spec};
use crate::data::units::Span;

/// What the annotations begin with.
pub const PREFIX: &str = "slo.nodewick.dev/";

/// The keys after the prefix.
pub const KEYS: [&str; 5] = ["availability", "latency", "mode", "owner", "runbook"];

/// Characters of a value that a message repeats.
const SHOWN: usize = 64;
/// Characters of a message.
const MOST_MESSAGE: usize = 400;

/// True when there is anything about objectives.
pub fn any<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    names.into_iter().any(|name| name.starts_with(PREFIX))
}

/// Reads the objectives of a workload from `annotations`, pairs of full name and value.
pub fn read<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    namespace: &str,
    workload: &str,
    defaults: &Defaults,
) -> (Vec<Spec>, Vec<Problem>) {
    let (mut specs, mut problems) = (Vec::new(), Vec::new());
    let (mut mode, mut owner, mut runbook) = (defaults.mode, defaults.owner.clone(), String::new());
    let mut objectives = Vec::new();
    for (name, value) in annotations {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        let mut wrong = |message: String, help: &str| {
            problems.push(Problem::new(Level::Error, &[name], message, help));
        };
        match key {
            "availability" => match objective_and_window(value) {
                Ok((objective, window)) => objectives.push((name, key, Sli::Availability, objective, window)),
                Err(message) => wrong(message, "write it like \"99.95%/30d\""),
            },
            "latency" => match latency(value) {
                Ok((sli, objective, window)) => objectives.push((name, key, sli, objective, window)),
                Err(message) => wrong(message, "write it like \"99% < 200ms / 30d\""),
            },
            "mode" => match value.parse() {
                Ok(own) => mode = own,
                Err(message) => wrong(message, ""),
            },
            "owner" => value.clone_into(&mut owner),
            "runbook" => value.clone_into(&mut runbook),
            _ => wrong(
                format!("{key:?} is no annotation about objectives"),
                "there are availability, latency, mode, owner, runbook",
            ),
        }
    }
    for (at, name, sli, objective, window) in objectives {
        let spec = Spec {
            name: name.to_owned(),
            selector: Selector {
                namespace: namespace.to_owned(),
                workload: Some(workload.to_owned()),
                ..Selector::default()
            },
            sli,
            objective,
            window: window.unwrap_or(defaults.window),
            mode,
            page_min_bad_events: defaults.page_min_bad_events,
            ticket_min_bad_events: defaults.ticket_min_bad_events,
            exclude_routes: defaults.exclude_routes.clone(),
            owner: owner.clone(),
            runbook: runbook.clone(),
        };
        let wrong = spec::problems(&spec, &[at]);
        if wrong.is_empty() {
            specs.push(spec);
        }
        for mut problem in wrong {
            // What stands in an annotation of its own is told of that one, and once.
            if let Some(own) = problem.key.get(1).filter(|key| ["owner", "runbook"].contains(&key.as_str())) {
                problem.key = vec![format!("{PREFIX}{own}")];
            }
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    (specs, problems)
}

impl Problem {
    /// The annotation that a problem of [`read`] is about.
    pub fn annotation(&self) -> &str {
        self.key.first().map(String::as_str).unwrap_or_default()
    }
}

/// A problem as a person is told of it: whose annotation, its value, what is wrong with it and what to write instead.
pub fn told(namespace: &str, pod: &str, value: &str, problem: &Problem) -> String {
    let cut = |text: &str, limit: usize| {
        let mut out: String = text.chars().take(limit).collect();
        if text.chars().nth(limit).is_some() {
            out.push('…');
        }
        out
    };
    let value: String = cut(value, SHOWN).chars().flat_map(char::escape_debug).collect();
    let what = cut(&problem.message, MOST_MESSAGE);
    let mut text =
        format!("pod {namespace}/{pod}: annotation {} = \"{value}\": {what}", problem.annotation());
    if !problem.help.is_empty() {
        text.push_str("; ");
        text.push_str(&problem.help);
    }
    text
}

/// `99.95%/30d`, or `99.95%` with the default window.
fn objective_and_window(text: &str) -> Result<(Objective, Option<Window>), String> {
    let (objective, window) = match text.split_once('/') {
        Some((objective, window)) => (objective, Some(window.parse()?)),
        None => (text, None),
    };
    Ok((objective.parse().map_err(|error: super::objective::ObjectiveError| error.to_string())?, window))
}

/// `99% < 200ms / 30d`, or `99% < 200ms` with the default window.
fn latency(text: &str) -> Result<(Sli, Objective, Option<Window>), String> {
    let Some((objective, rest)) = text.split_once('<') else {
        return Err(format!("{text:?} has no \"<\" before its threshold"));
    };
    let (threshold, window) = match rest.split_once('/') {
        Some((threshold, window)) => (threshold, Some(window.parse()?)),
        None => (rest, None),
    };
    let threshold = threshold.trim();
    if threshold.parse::<f64>().is_ok() {
        return Err(format!("the threshold {threshold:?} has no unit"));
    }
    let span: Span = threshold.parse().map_err(|error: crate::data::units::UnitError| error.to_string())?;
    let objective = objective.parse().map_err(|error: super::objective::ObjectiveError| error.to_string())?;
    Ok((Sli::Latency { threshold: span.0 }, objective, window))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::spec::Mode;
    use super::*;

    fn said(annotations: &[(&str, &str)]) -> (Vec<Spec>, Vec<String>) {
        let (specs, problems) = read(annotations.iter().copied(), "shop", "api", &Defaults::default());
        (
            specs,
            problems.into_iter().map(|p| format!("{}: {}; {}", p.key.join("."), p.message, p.help)).collect(),
        )
    }

    #[test]
    fn annotations_declare_as_the_config_does() {
        let (specs, problems) = said(&[
            ("slo.nodewick.dev/availability", "99.95%/30d"),
            ("slo.nodewick.dev/latency", "99% < 200ms / 28d"),
            ("slo.nodewick.dev/mode", "alert"),
            ("slo.nodewick.dev/owner", "team-shop"),
            ("slo.nodewick.dev/runbook", "https://wiki.example.com/api"),
            ("prometheus.io/scrape", "true"),
        ]);
        assert_eq!(problems, [] as [String; 0]);
        assert_eq!((specs[0].id(), specs[0].window), ("shop/api/availability".to_owned(), Window::D30));
        assert_eq!(specs[1].sli, Sli::Latency { threshold: Duration::from_millis(200) });
        assert_eq!((specs[1].window, specs[1].mode), (Window::D28, Mode::Alert));
        assert_eq!(
            (specs[1].owner.as_str(), specs[1].runbook.as_str()),
            ("team-shop", "https://wiki.example.com/api")
        );
        assert_eq!(said(&[("slo.nodewick.dev/availability", "99.9%")]).0[0].window, Window::D30);
    }

    #[test]
    fn a_problem_names_pod_annotation_value_and_fix() {
        let name = "slo.nodewick.dev/availability";
        let (_, problems) = read([(name, "100%/30d")], "shop", "api", &Defaults::default());
        assert_eq!(
            told("shop", "api-0", "100%/30d", &problems[0]),
            "pod shop/api-0: annotation slo.nodewick.dev/availability = \"100%/30d\": an objective of 100% leaves no error \
             budget to burn; write the failures you accept, like \"99.95%\"; write it like \"99.95%/30d\""
        );
        let long = "9\n".repeat(3_000);
        let (_, problems) = read([(name, long.as_str())], "shop", "api", &Defaults::default());
        let text = told("shop", "api-0", &long, &problems[0]);
        assert!(text.len() < 1_000 && !text.contains('\n'), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_no_objective() {
        let of = |key: &str, value: &str| {
            let (specs, mut problems) = said(&[(key, value)]);
            assert!(specs.is_empty(), "{value}");
            problems.pop().expect(value)
        };
        assert_eq!(
            of("slo.nodewick.dev/latency", "99% < 200 / 30d"),
            "slo.nodewick.dev/latency: the threshold \"200\" has no unit; write it like \"99% < 200ms / 30d\""
        );
        assert_eq!(
            of("slo.nodewick.dev/availability", "100%/30d"),
            "slo.nodewick.dev/availability: an objective of 100% leaves no error budget to burn; write the failures you \
             accept, like \"99.95%\"; write it like \"99.95%/30d\""
        );
        assert_eq!(
            of("slo.nodewick.dev/availability", "99%/14d"),
            "slo.nodewick.dev/availability: \"14d\" is no window; write 7d, 28d, 30d or 90d; write it like \"99.95%/30d\""
        );
        assert!(of("slo.nodewick.dev/availability", "90%/30d").contains("93.06%"));
        assert!(of("slo.nodewick.dev/latency", "99%").contains("no \"<\""));
        assert!(of("slo.nodewick.dev/avail", "99%").contains("\"avail\" is no annotation"));
        assert!(of("slo.nodewick.dev/mode", "page").contains("write observe or alert"));
    }
}
