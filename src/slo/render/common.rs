//! Rules about all objectives together: whether each of them is evaluated, and whether Prometheus remembers long enough.
//!
//! In: specs. Out: one [`Group`]. Invariant: it asks nothing of Prometheus' own metrics that must be there: where Prometheus
//! does not scrape itself, the age of the rules' own series tells how long it keeps them.

use super::super::config::Defaults;
use super::super::objective::Window;
use super::super::spec::Spec;
use super::rules::{Group, Rule};
use super::{Urgency, evidence};

/// The group `slo:rules`.
pub(super) fn group(specs: &[Spec], defaults: &Defaults) -> Group {
    let longest = specs.iter().map(|spec| spec.window).max().unwrap_or(defaults.window);
    let rules = vec![missing(defaults), age(), retention(longest, defaults)];
    Group { name: "slo:rules".into(), interval: "1m", rules }
}

fn label(urgency: Urgency, defaults: &Defaults) -> Vec<(&'static str, String)> {
    vec![("severity", urgency.name(defaults.severities).to_owned())]
}

/// An objective is counted by an agent and neither its own rules nor the generic ones read it.
fn missing(defaults: &Defaults) -> Rule {
    let annotations = vec![
        ("summary", "{{ $labels.slo_id }} is declared, and no rules for it are loaded".into()),
        (
            "description",
            "An agent counts this objective and nothing evaluates it. Load rules/generic.yaml, or render the rules from the same \
             config and load them."
                .into(),
        ),
        ("runbook_url", evidence::runbook(defaults, "SLORuleMissing")),
    ];
    // What nobody declared is observed by the generic rules, if anybody wants to load them.
    let expr = "count by (cluster, slo_id) (slo_events_total{slo_id!~\".+/observed\"} or slo_bracket_events_total) \
                unless on (slo_id) slo:info";
    Rule::alert("SLORuleMissing", expr.into(), label(Urgency::Ticket, defaults), annotations).held("15m")
}

/// For how long the rules have run, in seconds: each minute adds itself to what there was. It outlives the samples that it was
/// counted from.
fn age() -> Rule {
    let own = "slo:rules_running:seconds";
    Rule::record(own.into(), format!("last_over_time({own}[1d]) + 60 or vector(0)"), Vec::new())
}

/// The longest window is longer than what Prometheus keeps. Prometheus 2.42 has no metric of its limit, later ones have; what
/// it says of deleted blocks and its oldest sample says it after the first deletion, and our own series once they should be
/// older than they are.
fn retention(longest: Window, defaults: &Defaults) -> Rule {
    let seconds = u64::from(longest.minutes()) * 60;
    // A block is deleted whole, so the oldest sample is a little older than the limit; a day is left for what is late.
    let (days, before) = (longest.days(), longest.days() - 1);
    let expr = format!(
        "(prometheus_tsdb_retention_limit_seconds > 0) < {seconds}\nor\n(\n  time() - prometheus_tsdb_lowest_timestamp_seconds < \
         {seconds}\n  and on (job, instance)\n  prometheus_tsdb_time_retentions_total + on (job, instance) \
         prometheus_tsdb_size_retentions_total > 0\n)\nor\n(\n  slo:rules_running:seconds > {seconds}\n  unless\n  \
         last_over_time(slo:rules_running:seconds[1d] offset {before}d)\n)"
    );
    let annotations = vec![
        (
            "summary",
            format!("Prometheus keeps samples for less than {days}d, the longest window of an objective"),
        ),
        (
            "description",
            format!(
                "Budgets over {days}d are those of a shorter time, and seem fuller than they are. Start Prometheus with \
                 --storage.tsdb.retention.time={}d, or declare a shorter window.",
                days + 1
            ),
        ),
        ("runbook_url", evidence::runbook(defaults, "SLORetentionTooShort")),
    ];
    Rule::alert("SLORetentionTooShort", expr, label(Urgency::Ticket, defaults), annotations).held("1h")
}
