//! Checks of the metrics: targets, the address guard, the mounts for host figures.
//!
//! In: the running agent's `/targets`, or without an agent the static targets, asked by the agent's own fetcher. Out:
//! findings. Invariant: no pod is dialled from here; pods are the agent's, which looks at each anew before it dials.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::report::several;
use super::{Check, Finding, Site, Stage};
use crate::data::pods;
use crate::kube::Mode;
use crate::scrape::fetch::{Buffers, Fetcher, Kept};
use crate::scrape::guard::Guard;
use crate::scrape::status::{Row, State};
use crate::scrape::target::Target;
use crate::scrape::targets::{Site as Place, Targets};

pub(super) const SCRAPE: Check = Check {
    name: "scrape",
    looks_at: "Scraping: targets answer, pods that ask for it by annotation can be scraped, and the address guard knows the \
               cluster's service range. Where no agent runs, the static targets are scraped once.",
    means: "A target that does not answer has `up` 0; a pod that is refused has no series at all. Each line says why. The whole \
            list, with every pod that is no target: `/targets` of the agent; reasons are in docs/how-to/scrape.md.",
    pre: false,
    stage: Stage::Network,
    run: scrape,
};

pub(super) const HOST: Check = Check {
    name: "host-figures",
    looks_at: "With `[host] enabled`: the node's `/proc` and `/sys/fs/cgroup` are mounted below `[host] root`, and the cgroups \
               are those of version 2.",
    means: "Without the mounts the figures are those of what the container sees: its own network and cgroups instead of the \
            node's. docs/how-to/host-figures.md has the mounts. With cgroup v1 there are no figures of containers.",
    pre: false,
    stage: Stage::Local,
    run: host,
};

/// Reasons that nobody need mend: the pod does not ask for it, or not yet.
const QUIET: [&str; 7] =
    ["off", "not_annotated", "declined", "own_pod", "not_running", "no_address", "dropped"];
/// Lines of each kind.
const SHOWN: usize = 5;
/// Static targets that are asked.
const ASKED: usize = 20;

fn scrape(site: &Site) -> Vec<Finding> {
    let config = &site.config().scrape;
    if !config.is_on() {
        return Vec::new();
    }
    let mut findings = match site.running() {
        Some(agent) => match agent.client.get("/targets") {
            Ok(page) if page.status == 200 => match serde_json::from_str::<Vec<Row>>(&page.body) {
                Ok(rows) => of_rows(&rows),
                Err(error) => vec![Finding::warning(
                    format!("the agent's /targets cannot be read: {error}"),
                    "is the agent of this version?",
                )],
            },
            Ok(page) => vec![Finding::warning(
                format!("the agent answers {} to /targets", page.status),
                "is the agent of this version?",
            )],
            Err(error) => {
                vec![Finding::warning(format!("the agent does not answer /targets: {error}"), "")]
            }
        },
        None => of_static(site),
    };
    findings.extend(guard(site));
    findings
}

/// What the agent says of its targets.
fn of_rows(rows: &[Row]) -> Vec<Finding> {
    let count = |state: State| rows.iter().filter(|row| row.state == state).count();
    let (up, down, unknown) = (count(State::Up), count(State::Down), count(State::Unknown));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.state == State::NotScraped) {
        *reasons.entry(row.reason.as_str()).or_default() += 1;
    }
    let mut text = format!("{}, {up} up", several(up + down + unknown, "target"));
    if unknown > 0 {
        text.push_str(&format!(", {unknown} not scraped yet"));
    }
    if !reasons.is_empty() {
        let words: Vec<String> = reasons.iter().map(|(word, count)| format!("{count} {word}")).collect();
        text.push_str(&format!("; no targets: {}", words.join(", ")));
    }
    let mut findings = vec![Finding::ok(text)];
    let down: Vec<&Row> = rows.iter().filter(|row| row.state == State::Down).collect();
    let refused = |row: &&Row| row.state == State::NotScraped && !QUIET.contains(&row.reason.as_str());
    let refused: Vec<&Row> = rows.iter().filter(refused).collect();
    for (rows, what) in [(down, "targets are down"), (refused, "pods are refused")] {
        for row in rows.iter().take(SHOWN) {
            findings.push(Finding::warning(format!("{}: {}", named(row), row.message), &row.hint));
        }
        if rows.len() > SHOWN {
            let text = format!("{} more {what}", rows.len() - SHOWN);
            findings.push(Finding::warning(text, "mend these first; the agent's /targets has all of them"));
        }
    }
    findings
}

fn named(row: &Row) -> String {
    let url = if row.url.is_empty() { String::new() } else { format!(" {}", row.url) };
    if row.pod.is_empty() { row.url.clone() } else { format!("{}/{}{url}", row.namespace, row.pod) }
}

/// Scrapes the static targets once, as the agent would.
fn of_static(site: &Site) -> Vec<Finding> {
    let config = site.config();
    if config.scrape.fixed.is_empty() {
        return Vec::new();
    }
    let place =
        Place { cluster: config.agent.cluster.clone(), node: config.agent.node.clone(), ..Place::default() };
    // What is wrong with the rules or the ranges the config's check has told.
    let Ok(targets) = Targets::new(&config.scrape, place, Guard::default()) else { return Vec::new() };
    let found: Vec<Arc<Target>> =
        targets.discover(&[]).into_iter().filter_map(|candidate| candidate.found.ok()).collect();
    let fetcher = Fetcher::new(&config.scrape, Guard::default(), pods::directory().1, Buffers::default());
    let asked = found.iter().take(ASKED);
    let scrapes = asked.map(|target| async {
        let mut kept = Kept::default();
        (target.url(), fetcher.scrape(target, &mut kept).await.map(|body| body.bytes.len()))
    });
    let Some(answers) = site.block_on(futures_util::future::join_all(scrapes)) else { return Vec::new() };
    let good = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    let mut text = format!("{good} of {} answer", several(answers.len(), "static target"));
    if found.len() > ASKED {
        text.push_str(&format!("; {} were not asked", found.len() - ASKED));
    }
    let mut findings = vec![Finding::ok(text)];
    let bad = answers.iter().filter_map(|(url, answer)| Some((url, answer.as_ref().err()?)));
    for (url, failure) in bad.take(SHOWN) {
        findings.push(Finding::warning(
            format!("{url}: {failure}"),
            "change [[scrape.static]], or see the target's logs",
        ));
    }
    findings
}

/// What the guard knows of the cluster.
fn guard(site: &Site) -> Option<Finding> {
    let config = &site.config().scrape;
    let scrapes_pods = config.mode != crate::scrape::config::Mode::Off && site.mode() != Mode::Path;
    let api: IpAddr = site.var("KUBERNETES_SERVICE_HOST")?.trim_matches(['[', ']']).parse().ok()?;
    let ranges: Vec<_> =
        config.deny.iter().filter_map(|text| crate::scrape::guard::Range::parse(text).ok()).collect();
    if !scrapes_pods || Guard::new(Vec::new(), vec![api], ranges).denies_a_range() {
        return None;
    }
    Some(Finding::warning(
        format!(
            "the cluster's service range is not known: the API server's address {api} is in none that distributions choose"
        ),
        "pods are dialled at their own addresses only; as a second lock name the range that services have (the API server's \
         --service-cluster-ip-range):\n[scrape]\ndeny = [\"10.96.0.0/12\"]",
    ))
}

fn host(site: &Site) -> Vec<Finding> {
    let config = &site.config().host;
    if !config.enabled {
        return Vec::new();
    }
    let (proc, cgroup) = (config.proc(), config.cgroup());
    let mut findings = Vec::new();
    for (is_mounted, what) in
        [(proc.starts_with(&config.root), "/proc"), (cgroup.starts_with(&config.root), "/sys/fs/cgroup")]
    {
        if site.in_pod() && !is_mounted {
            let place = config.root.join(what.trim_start_matches('/'));
            findings.push(Finding::warning(
                format!("the node's {what} is not mounted at {}: the container's own is read", place.display()),
                "chart: host.enabled=true; Kustomize: the component host-figures; else by hand, read-only, as in \
                 docs/how-to/host-figures.md",
            ));
        }
    }
    if config.containers {
        if !cgroup.join("cgroup.controllers").exists() {
            findings.push(Finding::warning(
                format!("{} is no cgroup v2 tree: there are no figures of containers", cgroup.display()),
                "boot the node with systemd.unified_cgroup_hierarchy=1, or set [host] containers = false",
            ));
        } else if site.mode() == Mode::Path {
            findings.push(Finding::warning(
                "nobody is asked for pods ([kube] mode): containers have no names, and no figures",
                "give the agent rights to list pods, or set [host] containers = false",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("{} and {}", proc.display(), cgroup.display())));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    fn row(state: State, pod: &str, url: &str, reason: &str) -> Row {
        Row {
            namespace: if pod.is_empty() { String::new() } else { "shop".to_owned() },
            pod: pod.to_owned(),
            url: url.to_owned(),
            state,
            reason: reason.to_owned(),
            message: format!("says {reason}"),
            hint: "mend it".to_owned(),
            ..Row::default()
        }
    }

    #[test]
    fn targets_that_are_down_and_pods_that_are_refused_are_told_and_quiet_ones_counted() {
        let rows = [
            row(State::Up, "", "http://a:1/metrics", ""),
            row(State::Down, "web-0", "http://10.1.2.3:80/metrics", "status"),
            row(State::Unknown, "web-1", "http://10.1.2.4:80/metrics", ""),
            row(State::NotScraped, "db-0", "", "not_annotated"),
            row(State::NotScraped, "db-1", "", "not_annotated"),
            row(State::NotScraped, "api-0", "", "bad_port"),
        ];
        let findings = of_rows(&rows);
        let lines: Vec<(Status, &str)> =
            findings.iter().map(|finding| (finding.status, finding.text.as_str())).collect();
        assert_eq!(
            lines,
            [
                (Status::Ok, "3 targets, 1 up, 1 not scraped yet; no targets: 1 bad_port, 2 not_annotated"),
                (Status::Warning, "shop/web-0 http://10.1.2.3:80/metrics: says status"),
                (Status::Warning, "shop/api-0: says bad_port"),
            ]
        );
        assert_eq!(findings[1].fix, ["mend it"]);
    }

    #[test]
    fn many_troubles_of_a_kind_are_summed_up() {
        let rows: Vec<Row> =
            (0..7).map(|n| row(State::Down, "", &format!("http://t{n}"), "timeout")).collect();
        let findings = of_rows(&rows);
        assert_eq!(findings.len(), 1 + 5 + 1);
        assert_eq!(findings[6].text, "2 more targets are down");
    }
}
