//! Checks of the config itself: that it loads, and that it fits the container.

use super::{Check, Finding, Site, Stage};
use crate::config::memory::{Human, cgroup_limit};

/// The limit that the shipped manifests set; held against the bound where no container is there yet.
const SHIPPED_LIMIT: u64 = 128 << 20;

pub(super) const CONFIG: Check = Check {
    name: "config",
    looks_at: "The config file loads; its warnings are shown.",
    means: "A config that does not load stops the agent at its start (exit code 78); a running agent keeps its last good \
            one. `nodewick check -c FILE` shows line and caret.",
    pre: true,
    stage: Stage::Local,
    run: config,
};

pub(super) const MEMORY: Check = Check {
    name: "memory",
    looks_at: "The memory that the config may need at most fits the container's limit.",
    means: "The agent refuses to start above the limit: lower the largest term (`nodewick check` lists them), or raise \
            `resources.limits.memory`.",
    pre: true,
    stage: Stage::Local,
    run: memory,
};

fn config(site: &Site) -> Vec<Finding> {
    let name =
        site.file.as_ref().map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string());
    let loaded = match &site.loaded {
        Ok(loaded) => loaded,
        Err(errors) => {
            let text = errors.to_string();
            return vec![Finding::failure(
                "the config cannot be used; the checks below are of the built-in one",
                &text,
            )];
        }
    };
    let sink = &loaded.config.sink;
    let sinks =
        sink.loki.len() + sink.otlp.len() + sink.remote_write.len() + sink.stdout.len() + sink.local.len();
    let summary = match sinks {
        0 => "no sink: logs go to the local store only".to_owned(),
        1 => "1 sink".to_owned(),
        several => format!("{several} sinks"),
    };
    let mut findings = vec![Finding::ok(format!("{name}, {summary}"))];
    for warning in &loaded.warnings {
        let text = format!("{}: {}", warning.key, warning.message);
        findings.push(Finding::warning(text, warning.help.as_deref().unwrap_or_default()));
    }
    findings
}

fn memory(site: &Site) -> Vec<Finding> {
    let limit = if site.pre && !site.in_pod() { Some(SHIPPED_LIMIT) } else { cgroup_limit() };
    let mut config = site.config().clone();
    let _ = config.fit(limit);
    let bound = config.memory_bound();
    let whose = if site.pre && !site.in_pod() { "manifests'" } else { "container's" };
    let finding = match (bound.fits(limit), limit) {
        (Err(error), _) => {
            let fix = format!(
                "resources:\n  limits:\n    memory: {}Mi",
                bound.total().div_ceil(1 << 20).next_multiple_of(16)
            );
            Finding::failure(error.to_string(), &fix)
        }
        (Ok(()), Some(limit)) => {
            Finding::ok(format!("at most {} of the {whose} {}", Human(bound.total()), Human(limit)))
        }
        (Ok(()), None) => {
            let text = format!("at most {}; no container limit", Human(bound.total()));
            if site.in_pod() {
                let fix = "set one, so that the node is safe from the agent:\nresources:\n  limits:\n    memory: 128Mi";
                Finding::warning(text, fix)
            } else {
                Finding::ok(text)
            }
        }
    };
    vec![finding]
}
