//! One rule file for every objective that has no rules of its own: those that pods' annotations declare, and those that are
//! only observed. It is the same text whatever is declared, so nothing is rendered anew when a pod brings an objective.
//!
//! In: `slo_events_total` and `slo_bracket_events_total`, which agents count, and `slo_objective_info`, whose labels say what
//! is asked for. Out: [`Group`]s with the record names and alerts of rendered objectives.
//! Invariant: an objective with rendered rules (`slo:info` without `source="generic"`) has no part in it, so nobody is
//! called twice; everything it records has `source="generic"`.
//!
//! PromQL cannot read a number out of a label, with one exception: `histogram_quantile` reads `le`. A histogram whose only
//! bucket below `+Inf` is the objective has its maximum there, exactly.

use super::super::burn::{Range, Severity, TIERS, Tier};
use super::super::config::{Defaults, LowTraffic};
use super::super::number::shortest;
use super::super::objective::Window;
use super::alerts::{LAGGING, TRAFFIC};
use super::promql::{self, Bound};
use super::rules::{Group, Rule};
use super::{Urgency, evidence};

/// What tells objectives apart.
const BY: &str = "cluster, namespace, workload, slo_id";
/// Where two counters of an objective are counted.
const PLACE: &str = "cluster, node, namespace, workload, slo_id";
const INFO: &str = "slo:info{source=\"generic\"}";
const RENDERED: &str = "slo:info{source!=\"generic\"}";
/// What an alert takes over from the objective.
const SAYS: &str = "slo, sli, objective, window, owner, threshold_seconds";

/// The groups of the file.
pub(super) fn groups(defaults: &Defaults) -> Vec<Group> {
    vec![
        Group { name: "slo:generic:objectives".into(), interval: "30s", rules: objectives() },
        Group { name: "slo:generic:sli".into(), interval: "30s", rules: counted() },
        Group { name: "slo:generic:long".into(), interval: "2m", rules: long() },
        Group { name: "slo:generic:alerts".into(), interval: "30s", rules: alerts(defaults) },
    ]
}

fn record(name: impl Into<String>, expr: String) -> Rule {
    Rule::record(name.into(), expr, vec![("source", "generic".to_owned())])
}

fn own(name: &str) -> String {
    format!("{name}{{source=\"generic\"}}")
}

/// The number that a label of `slo_objective_info` says.
fn number(label: &str, pattern: &str) -> String {
    format!(
        "max by ({BY}) (\n  histogram_quantile(1,\n    label_replace({INFO}, \"le\", \"$1\", \"{label}\", \"{pattern}\")\n    or \
         label_replace({INFO}, \"le\", \"+Inf\", \"\", \"\")\n  )\n)"
    )
}

/// What each objective asks for, as numbers.
fn objectives() -> Vec<Rule> {
    let mut rules = vec![
        // One of each, also while pods with an old and a new annotation run side by side.
        record(
            "slo:info",
            format!(
                "topk by ({BY}) (1,\n  max by ({BY}, {SAYS}, mode) (\n    label_replace(slo_objective_info, \"slo\", \"$1\", \
                 \"slo_id\", \".*/(.+)\")\n  )\n)\nunless on (slo_id)\n{RENDERED}"
            ),
        ),
        record("slo:objective:ratio", number("objective", "(0[.][0-9]+)")),
        // Nine decimals: an objective has no more, and a difference of doubles has.
        record("slo:error_budget:ratio", format!("round(1 - {}, 0.000000001)", own("slo:objective:ratio"))),
        record("slo:time_period:days", number("window", "([0-9]+)d")),
    ];
    for tier in TIERS {
        // Share of the budget × days × 24 ÷ hours of the long range, as three decimals.
        let hours = tier.long.minutes / 60;
        rules.push(record(
            format!("slo:burn_threshold:ratio{}", tier.long),
            format!(
                "round({} * {} / {hours}, 0.001) * {}",
                own("slo:time_period:days"),
                shortest(f64::from(tier.share_percent * 24) / 100.0),
                own("slo:error_budget:ratio")
            ),
        ));
    }
    rules
}

fn events(bound: Bound, result: &str, range: Range) -> String {
    format!("{}\nand on ({BY})\n{INFO}", promql::counters(BY, result, bound, PLACE, range))
}

fn ratio(bound: Bound, range: Range) -> Rule {
    let errors = own(&format!("{}{range}", bound.errors()));
    let events = own(&format!("slo:sli_events:increase{range}"));
    record(format!("{}{range}", bound.ratio()), format!("{errors} / ({events} > 0)"))
}

fn burn(range: Range) -> Rule {
    let ratio = own(&format!("slo:sli_error:ratio_rate{range}"));
    record(format!("slo:burn_rate:ratio_rate{range}"), format!("{ratio} / {}", own("slo:error_budget:ratio")))
}

fn counted() -> Vec<Rule> {
    let mut rules = Vec::new();
    for range in Range::DIRECT {
        rules.push(record(format!("slo:sli_events:increase{range}"), events(Bound::Optimistic, "", range)));
        for bound in [Bound::Optimistic, Bound::Pessimistic] {
            let is_read = bound == Bound::Optimistic || [Range::M5, Range::H2, Range::H6].contains(&range);
            if is_read {
                rules.push(record(
                    format!("{}{range}", bound.errors()),
                    events(bound, "result=\"bad\"", range),
                ));
            }
            if is_read && (bound == Bound::Optimistic || range != Range::M5) {
                rules.push(ratio(bound, range));
            }
        }
    }
    rules.extend([Range::M5, Range::H1, Range::H6].map(burn));
    rules
}

/// Sums of five minutes, of the objectives of one window where it is one.
fn slices(name: &str, function: &str, range: Range, window: Option<Window>) -> String {
    let five = own(&format!("{name}5m"));
    let sums = format!("sum by ({BY}) ({function}({five}[{range}:5m]))");
    match window {
        Some(window) => format!("{sums}\nand on ({BY})\nslo:info{{source=\"generic\",window=\"{window}\"}}"),
        None => sums,
    }
}

fn long() -> Vec<Rule> {
    let mut rules = Vec::new();
    let days = [(Range::D1, None), (Range::D3, None)];
    let windows = Window::ALL.map(|window| (Range::from(window), Some(window)));
    for (range, window) in days.into_iter().chain(windows) {
        let mut bounds = vec![Bound::Optimistic];
        if window.is_none() {
            bounds.push(Bound::Pessimistic);
        }
        let name = "slo:sli_events:increase";
        rules.push(record(format!("{name}{range}"), slices(name, "sum_over_time", range, window)));
        for bound in bounds {
            let name = bound.errors();
            rules.push(record(format!("{name}{range}"), slices(name, "sum_over_time", range, window)));
            rules.push(ratio(bound, range));
        }
        let seen = slices(name, "count_over_time", range, None);
        let mut seen = format!("clamp_max({seen} / {}, 1)", range.slices());
        if let Some(window) = window {
            seen = format!("{seen}\nand on ({BY})\nslo:info{{source=\"generic\",window=\"{window}\"}}");
        }
        rules.push(record(format!("slo:window_coverage:ratio{range}"), seen));
    }
    let left = Window::ALL.map(|window| {
        let ratio = own(&format!("slo:sli_error:ratio_rate{window}"));
        let seen = own(&format!("slo:window_coverage:ratio{window}"));
        format!("1 - {ratio} * {seen} / {}", own("slo:error_budget:ratio"))
    });
    rules.push(record("slo:error_budget_remaining:ratio", left.join("\nor\n")));
    rules.push(burn(Range::D3));
    rules
}

fn alerts(defaults: &Defaults) -> Vec<Rule> {
    let alert = |name, urgency: Urgency, expr, annotations| {
        let labels = vec![
            ("severity", urgency.name(defaults.severities).to_owned()),
            ("source", "generic".to_owned()),
        ];
        Rule::alert(name, expr, labels, annotations)
    };
    vec![
        alert(
            "SLOErrorBudgetBurn",
            Urgency::Page,
            alerting(&burning(defaults, Severity::Page), "alert"),
            evidence::generic::burn(defaults, Severity::Page),
        ),
        alert(
            "SLOErrorBudgetBurnSlow",
            Urgency::Ticket,
            alerting(&burning(defaults, Severity::Ticket), "alert"),
            evidence::generic::burn(defaults, Severity::Ticket),
        ),
        alert("SLOTrafficVanished", Urgency::Page, vanished(defaults), evidence::generic::vanished(defaults))
            .held("5m"),
        alert(
            "SLONoData",
            Urgency::Ticket,
            alerting(&format!("{INFO} unless on ({BY}) {}", own("slo:sli_events:increase3d")), "alert"),
            evidence::generic::no_data(defaults),
        )
        .held("15m"),
        alert(
            "SLOBucketMismatch",
            Urgency::Ticket,
            format!(
                "max by ({BY}, lower, upper) (slo_bracket_info)\n* on ({BY}) group_left ({SAYS})\n\
                 slo:info{{source=\"generic\",mode=\"alert\"}}"
            ),
            evidence::generic::bucket(defaults),
        )
        .held("15m"),
    ]
}

/// What fires, of objectives with that mode only, with the words of the objective.
fn alerting(expr: &str, mode: &str) -> String {
    let inner: Vec<String> = expr.lines().map(|line| format!("  {line}")).collect();
    format!(
        "max by ({BY}) (\n{}\n)\n* on ({BY}) group_left ({SAYS})\nslo:info{{source=\"generic\",mode=\"{mode}\"}}",
        inner.join("\n")
    )
}

fn burning(defaults: &Defaults, severity: Severity) -> String {
    let tiers = TIERS.iter().filter(|tier| tier.severity == severity);
    tiers.map(|tier| burning_over(defaults, tier)).collect::<Vec<_>>().join("\nor\n")
}

fn burning_over(defaults: &Defaults, tier: &Tier) -> String {
    let threshold = own(&format!("slo:burn_threshold:ratio{}", tier.long));
    let (bound, least) = match tier.severity {
        Severity::Page => (Bound::Optimistic, defaults.page_min_bad_events),
        Severity::Ticket => (Bound::Pessimistic, defaults.ticket_min_bad_events),
    };
    let errors = own(&format!("{}{}", bound.errors(), tier.long));
    let long = match defaults.low_traffic {
        LowTraffic::Gate => own(&format!("{}{}", bound.ratio(), tier.long)),
        LowTraffic::Wilson => promql::wilson(&errors, &own(&format!("slo:sli_events:increase{}", tier.long))),
    };
    let seen = match tier.long {
        Range::D1 | Range::D3 => format!(" * {}", own(&format!("slo:window_coverage:ratio{}", tier.long))),
        _ => String::new(),
    };
    format!(
        "(\n  {} > {threshold}\n  and {long}{seen} > {threshold}\n  and {errors} >= {least}\n)",
        own(&format!("{}{}", bound.ratio(), tier.short)),
    )
}

/// As of rendered objectives. When the last pod is gone, so is its annotation: the objective is remembered for a week.
fn vanished(defaults: &Defaults) -> String {
    let events = own("slo:sli_events:increase5m");
    let alerting = "slo:info{source=\"generic\",mode=\"alert\"}";
    let remembered = format!("(last_over_time({alerting}[7d:1h]) or {alerting})");
    let mut out = format!(
        "(\n  max by ({BY}) (max_over_time({events}[1h] offset 5m)) > {TRAFFIC}\n  or\n  max by ({BY}) \
         (ALERTS{{alertname=\"SLOTrafficVanished\",alertstate=\"firing\",source=\"generic\"}})\n)\nand on ({BY})\n{remembered}\nunless on ({BY})\n({events} > 0)\nunless on (cluster, namespace, workload)\n(max by (cluster, \
         namespace, workload) (red_source_lag_seconds{{source=\"log\"}}) > {LAGGING})"
    );
    if defaults.kube_state_metrics {
        let zero: Vec<String> = ["deployment", "statefulset"]
            .iter()
            .map(|kind| {
                format!(
                    "label_replace(label_replace(kube_{kind}_spec_replicas == 0, \"workload\", \"$1\", \"{kind}\", \"(.+)\"), \
                     \"namespace\", \"$1\", \"exported_namespace\", \"(.+)\")"
                )
            })
            .collect();
        out.push_str(&format!("\nunless on (namespace, workload)\n(\n  {}\n)", zero.join("\n  or ")));
    }
    out
}
