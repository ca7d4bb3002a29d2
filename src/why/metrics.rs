//! The same question about metrics: is the pod scraped, and if not, why?
//!
//! In: the running agent's `/targets`. Out: the pod's targets, and lines about them for people. An agent that scrapes
//! nothing has no such page, and then nothing is said.

use std::fmt::Write as _;

use super::Target;
use crate::admin::client::Client;
use crate::doctor::status::age;
use crate::doctor::{Colour, Status, printable};
use crate::scrape::status::State;

/// All targets of the agent.
pub(super) fn ask(client: Client) -> Vec<Target> {
    let page = client.get("/targets").ok().filter(|page| page.status == 200);
    page.and_then(|page| serde_json::from_str(&page.body).ok()).unwrap_or_default()
}

/// Those of one pod.
pub(super) fn of_pod(all: &[Target], uid: &str) -> Vec<Target> {
    all.iter().filter(|target| !uid.is_empty() && target.uid == uid).cloned().collect()
}

/// Writes what became of a target.
pub(super) fn write(target: &Target, out: &mut String, colour: Colour) {
    let ago = target.age_seconds.map_or_else(String::new, |seconds| format!(", {} ago", age(seconds as u64)));
    let (status, text) = match target.state {
        State::Up => {
            let samples = target.samples.unwrap_or_default();
            let noun = if samples == 1 { "sample" } else { "samples" };
            let took = target.duration_seconds.unwrap_or_default() * 1e3;
            (Status::Ok, format!("{} is up: {samples} {noun} in {took:.0} ms{ago}", target.url))
        }
        State::Down => (Status::Failure, format!("{} is down{ago}: {}", target.url, target.message)),
        State::Unknown => (Status::Warning, format!("{} has not been scraped yet", target.url)),
        State::NotScraped => (Status::Warning, format!("not scraped: {}", target.message)),
    };
    // That nobody asked for it is no fault.
    let mark = match target.reason.as_str() {
        "not_annotated" | "declined" | "off" | "own_pod" => colour.dim("·"),
        _ => colour.paint(status, status.mark()),
    };
    let _ = writeln!(out, "{mark} metrics: {}", printable(&text));
    if !target.hint.is_empty() {
        let _ = writeln!(out, "    {} {}", colour.dim("do       "), printable(&target.hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(target: &Target) -> String {
        let mut out = String::new();
        write(target, &mut out, Colour(false));
        out
    }

    #[test]
    fn a_target_is_told_of_in_a_line_and_what_to_do_in_another() {
        let url = "http://10.244.1.7:8080/metrics".to_owned();
        let up = Target {
            url: url.clone(),
            state: State::Up,
            samples: Some(120),
            duration_seconds: Some(0.0123),
            age_seconds: Some(3.4),
            ..Target::default()
        };
        assert_eq!(
            shown(&up),
            format!("{} metrics: {url} is up: 120 samples in 12 ms, 3s ago\n", Status::Ok.mark())
        );
        let down = Target {
            state: State::Down,
            reason: "status".into(),
            message: "the target answers 404; check prometheus.io/path".into(),
            ..up.clone()
        };
        let mark = Status::Failure.mark();
        let text = "is down, 3s ago: the target answers 404; check prometheus.io/path";
        assert_eq!(shown(&down), format!("{mark} metrics: {url} {text}\n"));
        let not = Target {
            state: State::NotScraped,
            reason: "not_annotated".into(),
            message: "no annotation asks for it".into(),
            hint: "annotate the pod".into(),
            ..Target::default()
        };
        assert_eq!(
            shown(&not),
            "· metrics: not scraped: no annotation asks for it\n    do        annotate the pod\n"
        );
    }

    #[test]
    fn targets_of_other_pods_are_not_told_of() {
        let of = |uid: &str| Target { uid: uid.into(), ..Target::default() };
        assert_eq!(of_pod(&[of("a"), of("b"), of("")], "b"), [of("b")]);
        assert!(of_pod(&[of("")], "").is_empty());
    }
}
