//! Alerts of one objective.
//!
//! In: an [`Objective`]. Out: [`Rule`]s over its recorded series. Invariant: every alert names the objective by `slo_id`, so
//! that Alertmanager can join them; two tiers of one alert have the same labels, so that they are one alert.

use std::fmt::Write as _;

use super::super::burn::{Range, Severity, TIERS, Tier};
use super::super::config::LowTraffic;
use super::super::number::shortest;
use super::super::spec::Sli;
use super::promql::{self, Bound, quoted};
use super::rules::{Objective, Rule};
use super::{Urgency, evidence, sloth};

/// Requests in five minutes of the last hour from which silence is worth a page.
pub(super) const TRAFFIC: u32 = 20;
/// What an unread log's age may be before its silence says nothing, seconds.
pub(super) const LAGGING: u32 = 60;

/// All alerts of an objective.
pub(super) fn of(of: &Objective) -> Vec<Rule> {
    let (spec, defaults) = (of.spec, of.defaults);
    let alert = |name, urgency, expr, annotations| Rule::alert(name, expr, labels(of, urgency), annotations);
    let mut rules = vec![
        alert(
            "SLOErrorBudgetBurn",
            Urgency::Page,
            burning(of, Severity::Page),
            evidence::burn(spec, defaults, Severity::Page),
        ),
        alert(
            "SLOErrorBudgetBurnSlow",
            Urgency::Ticket,
            burning(of, Severity::Ticket),
            evidence::burn(spec, defaults, Severity::Ticket),
        ),
        alert("SLOTrafficVanished", Urgency::Page, vanished(of), evidence::vanished(spec, defaults))
            .held("5m"),
        alert("SLOLowTraffic", Urgency::Info, low_traffic(of), evidence::low_traffic(spec, defaults))
            .held("6h"),
        alert("SLONoData", Urgency::Ticket, no_data(of), evidence::no_data(spec, defaults)).held("15m"),
    ];
    if let Sli::Latency { threshold } = spec.sli {
        let bound = promql::bound(threshold);
        let mut rule = alert(
            "SLOBucketMismatch",
            Urgency::Ticket,
            promql::without_bound(spec, &bound),
            evidence::bucket(spec, defaults, &bound),
        );
        rule.labels.insert(0, ("slo_id", of.id.clone()));
        rules.push(rule.held("15m"));
    }
    rules
}

fn labels(of: &Objective, urgency: Urgency) -> Vec<(&'static str, String)> {
    let mut labels =
        vec![("severity", urgency.name(of.defaults.severities).to_owned()), ("slo", of.spec.name.clone())];
    if !of.spec.owner.is_empty() {
        labels.push(("owner", of.spec.owner.clone()));
    }
    labels.extend(sloth::alert_labels(of, urgency));
    labels
}

fn burning(of: &Objective, severity: Severity) -> String {
    let tiers = TIERS.iter().filter(|tier| tier.severity == severity);
    tiers.map(|tier| burning_over(of, tier)).collect::<Vec<_>>().join("\nor\n")
}

/// Both ranges of a tier above its threshold, and enough bad events in the long one.
fn burning_over(of: &Objective, tier: &Tier) -> String {
    let threshold = shortest(tier.threshold(of.spec.window, of.spec.objective));
    let (bound, least) = match tier.severity {
        Severity::Ticket if of.may_be_bracketed() => (Bound::Pessimistic, of.spec.ticket_min_bad_events),
        Severity::Ticket => (Bound::Optimistic, of.spec.ticket_min_bad_events),
        Severity::Page => (Bound::Optimistic, of.spec.page_min_bad_events),
    };
    let ratio = |range: Range| of.series(&format!("{}{range}", bound.ratio()));
    let errors = of.series(&format!("{}{}", bound.errors(), tier.long));
    let (on, long) = match of.defaults.low_traffic {
        LowTraffic::Gate => (of.on(), ratio(tier.long)),
        LowTraffic::Wilson => {
            let events = of.series(&format!("slo:sli_events:increase{}", tier.long));
            (of.on(), promql::wilson(&errors, &events))
        }
    };
    let seen = match tier.long {
        Range::D1 | Range::D3 => {
            format!(" * {on}{}", of.series(&format!("slo:window_coverage:ratio{}", tier.long)))
        }
        _ => String::new(),
    };
    format!(
        "(\n  {} > {threshold}\n  and {on}{long}{seen} > {threshold}\n  and {on}{errors} >= {least}\n)",
        ratio(tier.short),
    )
}

/// Traffic that was there within the hour and is gone. The second half keeps it firing when the hour is over; lines that
/// are not yet read are no silence, and neither is a workload of no replicas where somebody says how many it has.
fn vanished(of: &Objective) -> String {
    let events = of.series("slo:sli_events:increase5m");
    let by = promql::labels(of.spec);
    let firing =
        format!("ALERTS{{alertname=\"SLOTrafficVanished\",alertstate=\"firing\",slo_id={}}}", quoted(&of.id));
    let mut out = format!(
        "(\n  max by ({by}, slo_id) (max_over_time({events}[1h] offset 5m)) > {TRAFFIC}\n  or\n  max by ({by}, slo_id) \
         ({firing})\n)\nunless\n({events} > 0)"
    );
    let Some(workload) = &of.spec.selector.workload else { return out };
    let namespace = quoted(&of.spec.selector.namespace);
    let workload = quoted(workload);
    let _ = write!(
        out,
        "\nunless on ({by})\n(max by ({by}) (red_source_lag_seconds{{namespace={namespace},workload={workload},source=\"log\"}}) \
         > {LAGGING})"
    );
    if of.defaults.kube_state_metrics {
        // Who scrapes it without `honor_labels` has its own namespace there, and the workload's in `exported_namespace`. Series
        // without a cluster are of the only one.
        for (on, cluster) in [("cluster", "cluster!=\"\""), ("", "cluster=\"\"")] {
            let kinds = ["deployment", "statefulset"];
            let zero = kinds.iter().flat_map(|kind| {
                let own = format!("{kind}={workload},{cluster}");
                [
                    format!(
                        "kube_{kind}_spec_replicas{{namespace={namespace},exported_namespace=\"\",{own}}} == 0"
                    ),
                    format!("kube_{kind}_spec_replicas{{exported_namespace={namespace},{own}}} == 0"),
                ]
            });
            let zero: Vec<String> = zero.collect();
            let _ = write!(out, "\nunless on ({on})\nmax by ({on}) (\n  {}\n)", zero.join("\n  or "));
        }
    }
    out
}

/// Even if every request failed, the gate of the page would not be reached within its ranges.
fn low_traffic(of: &Objective) -> String {
    let events = of.series("slo:sli_events:increase6h");
    format!("{events} > 0 and {events} < {}", of.spec.page_min_bad_events)
}

/// Declared, and not one request was counted in three days: mostly a selector that matches nothing.
fn no_data(of: &Objective) -> String {
    let by = format!("slo_id, namespace, {}", of.spec.selector.subject_label());
    format!(
        "max by ({by}) ({})\nunless on (slo_id)\n{}",
        of.series("slo:info"),
        of.series("slo:sli_events:increase3d")
    )
}
