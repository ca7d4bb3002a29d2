//! The check of the agent that runs here, by its own pages.

use super::{Check, Finding, Running, Site, Stage, disk};
use crate::admin::client::Sample;

pub(super) const AGENT: Check = Check {
    name: "agent",
    looks_at: "The running agent is alive, ready, loses nothing and explains every byte.",
    means: "`nodewick status` shows more, `nodewick why <pod>` what became of one pod's logs. Losses are listed by reason in \
            docs/how-to/ledger.md.",
    pre: false,
    stage: Stage::Local,
    run: agent,
};

fn agent(site: &Site) -> Vec<Finding> {
    let Some(agent) = site.running() else {
        return if disk::is_held(&site.config().agent.state_dir) { vec![silent(site)] } else { Vec::new() };
    };
    let (mut findings, mut warnings) = (Vec::new(), Vec::new());
    for (probe, what) in [("/health/live?verbose", "alive"), ("/health/ready?verbose", "ready")] {
        match agent.client.get(probe) {
            Ok(page) if page.status == 200 => {
                let notes = page.body.lines().filter_map(|line| line.strip_prefix("[!]"));
                warnings.extend(notes.map(|note| Finding::warning(format!("says of {note}"), "")));
            }
            Ok(page) => {
                for line in page.body.lines().filter_map(|line| line.strip_prefix("[-]")) {
                    let (name, why) = line.split_once(" failed: ").unwrap_or((line, ""));
                    let fix = "kubectl logs of the agent's pod; the finding of the same name below says more";
                    findings.push(Finding::failure(format!("not {what}: {name}: {why}"), fix));
                }
            }
            Err(error) => findings.push(Finding::failure(
                format!("{} does not answer {probe}: {error}", agent.client.address()),
                "kubectl logs of the agent's pod",
            )),
        }
        if !findings.is_empty() {
            return findings;
        }
    }
    findings.append(&mut warnings);
    findings.extend(troubles(&agent.metrics));
    if findings.is_empty() {
        findings.push(Finding::ok(format!("runs at {}, alive and ready", agent.client.address())));
    }
    findings
}

/// Somebody holds the state directory and does not answer.
fn silent(site: &Site) -> Finding {
    let admin = &site.config().admin;
    let text = "an agent holds the state directory and does not answer";
    if !admin.is_on() && site.address.is_none() {
        let fix = "its listener is off: its health is not known here\n[admin]\nlisten = \"127.0.0.1:9464\"";
        return Finding::warning(text, fix);
    }
    let address = site.address.map_or_else(|| admin.listen.clone(), |address| address.to_string());
    Finding::failure(
        format!("{text} at {address}"),
        "if it listens elsewhere, give its config with -c or its address with --address; else see its logs",
    )
}

/// The sum of a metric's samples that pass.
pub(super) fn sum(metrics: &[Sample], name: &str, pass: impl Fn(&Sample) -> bool) -> f64 {
    metrics.iter().filter(|sample| sample.name == name && pass(sample)).map(|sample| sample.value).sum()
}

/// What the figures say that a person should know.
fn troubles(metrics: &[Sample]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lost_bytes = sum(metrics, "nodewick_log_lost_bytes_total", |_| true);
    let lost_records = sum(metrics, "nodewick_records_lost_total", |_| true);
    if lost_bytes + lost_records > 0.0 {
        let mut reasons: Vec<&str> = metrics
            .iter()
            .filter(|s| s.name == "nodewick_log_lost_bytes_total" || s.name == "nodewick_records_lost_total")
            .filter(|s| s.value > 0.0)
            .map(|s| s.label("reason"))
            .collect();
        reasons.sort_unstable();
        let text = format!(
            "lost since its start: {lost_bytes} bytes before they were read, {lost_records} lines refused for good ({})",
            reasons.join(", ")
        );
        findings.push(Finding::warning(
            text,
            "what each reason means and what to do: docs/how-to/ledger.md#when-bytes-are-lost",
        ));
    }
    let unexplained = sum(metrics, "nodewick_ledger_unexplained_bytes", |_| true);
    if unexplained != 0.0 {
        let text = format!("{unexplained} bytes are unexplained");
        findings.push(Finding::warning(text, "docs/how-to/ledger.md#when-bytes-are-unexplained"));
    }
    if sum(metrics, "nodewick_checkpoint_failures_total", |_| true) > 0.0 {
        let text = "checkpoints could not be made durable";
        findings.push(Finding::warning(
            text,
            "the state directory's disk: see the kernel's log (dmesg) for I/O errors",
        ));
    }
    for sample in metrics.iter().filter(|s| s.name == "nodewick_sink_up" && s.value == 0.0) {
        let text =
            format!("{} is down for the agent; it holds the lines and tries again", sample.label("sink"));
        findings.push(Finding::warning(text, "the sink's own line below says where it fails"));
    }
    findings
}

impl Running {
    /// The sum of a metric over all its series.
    pub fn sum(&self, name: &str) -> f64 {
        sum(&self.metrics, name, |_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::samples;

    #[test]
    fn losses_and_dead_sinks_are_told() {
        assert_eq!(troubles(&samples("nodewick_sink_up{sink=\"loki.main\"} 1\n")), []);
        let page = "nodewick_log_lost_bytes_total{reason=\"spill_full\"} 120\n\
                    nodewick_records_lost_total{reason=\"too_old\"} 3\n\
                    nodewick_records_lost_total{reason=\"invalid\"} 0\n\
                    nodewick_sink_up{sink=\"loki.main\"} 0\n";
        let texts: Vec<String> = troubles(&samples(page)).into_iter().map(|finding| finding.text).collect();
        assert_eq!(
            texts,
            [
                "lost since its start: 120 bytes before they were read, 3 lines refused for good (spill_full, too_old)",
                "loki.main is down for the agent; it holds the lines and tries again",
            ]
        );
    }
}
