//! `nodewick-slo-overview`: every objective with its budget, on one page.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::{each_cluster, factor, recorded};

pub(super) const DETAIL: (&str, &str) = (
    "Open the objective",
    "/d/nodewick-slo-detail?${cluster:queryparam}&var-slo_id=${__value.raw:percentencode}&${__url_time_range}",
);

/// The same from a line of a chart.
const DETAIL_OF_SERIES: (&str, &str) = (
    "Open the objective",
    "/d/nodewick-slo-detail?${cluster:queryparam}&var-slo_id=${__field.labels.slo_id:percentencode}&${__url_time_range}",
);

/// Above 1 the budget goes faster than it may. From where on somebody is called depends on the period: states say it.
pub(super) const BURN: &[(f64, &str, &str)] = &[(0.0, "green", ""), (1.0, "orange", "")];
pub(super) const LEFT: &[(f64, &str, &str)] = &[(0.0, "red", ""), (0.1, "orange", ""), (0.5, "green", "")];

/// The state of an objective in a word, by its number.
pub(super) const STATES: &[(f64, &str, &str)] = &[
    (0.0, "green", "within budget"),
    (1.0, "yellow", "burns slowly"),
    (2.0, "orange", "ticket"),
    (3.0, "red", "page"),
    (4.0, "purple", "budget gone"),
];

/// Bad by all over a range, by the allowed share: a burn rate that no rule records.
pub(super) fn burn(range: &str, matchers: &str) -> String {
    match range {
        "5m" | "1h" | "6h" | "3d" => recorded(&format!("slo:burn_rate:ratio_rate{range}"), matchers),
        _ => format!(
            "{} / on (slo_id) group_left () max by (slo_id) (slo:error_budget:ratio)",
            recorded(&format!("slo:sli_error:ratio_rate{range}"), matchers)
        ),
    }
}

/// 1 for objectives whose last five minutes reach the fastest page, 0 for others.
pub(super) fn burning_now() -> String {
    format!(
        "{} > bool on (slo_id) group_left () {}",
        recorded("slo:burn_rate:ratio_rate5m", "@C"),
        factor("1h")
    )
}

/// 1 where both ranges of a tier are above its factor, else 0.
fn tier(long: &str, short: &str, matchers: &str) -> String {
    let above = |range: &str| {
        format!("(({}) > bool on (slo_id) group_left () {})", burn(range, matchers), factor(long))
    };
    format!("({} * on (cluster, slo_id) {})", above(long), above(short))
}

/// The number of [`STATES`], the worst that holds; ranges without data say nothing.
pub(super) fn state(matchers: &str) -> String {
    let page = format!(
        "max by (cluster, slo_id) (label_replace({}, \"tier\", \"1\", \"\", \"\") or label_replace({}, \
            \"tier\", \"2\", \"\", \"\"))",
        tier("1h", "5m", matchers),
        tier("6h", "30m", matchers)
    );
    let ticket = format!(
        "max by (cluster, slo_id) (label_replace({}, \"tier\", \"1\", \"\", \"\") or label_replace({}, \
            \"tier\", \"2\", \"\", \"\"))",
        tier("1d", "2h", matchers),
        tier("3d", "6h", matchers)
    );
    let each = [
        ("gone", format!("4 * ({} <= bool 0)", recorded("slo:error_budget_remaining:ratio", matchers))),
        ("page", format!("3 * {page}")),
        ("ticket", format!("2 * {ticket}")),
        ("slow", format!("({} > bool 1)", recorded("slo:burn_rate:ratio_rate1h", matchers))),
    ];
    let each = each.map(|(name, expr)| format!("label_replace({expr}, \"tier\", \"{name}\", \"\", \"\")"));
    format!("max by (cluster, slo_id) ({})", each.join(" or "))
}

/// Seconds until the budget is gone at the rate of the last six hours.
fn exhaustion(matchers: &str) -> String {
    format!(
        "clamp_min({}, 0) * on (slo_id) group_left () (86400 * max by (slo_id) (slo:time_period:days)) / on \
            (cluster, slo_id) ({} > 0)",
        recorded("slo:error_budget_remaining:ratio", matchers),
        recorded("slo:burn_rate:ratio_rate6h", matchers)
    )
}

pub(super) fn cluster() -> Variable {
    Variable::new("cluster", "Cluster", "label_values(slo:sli_events:increase5m, cluster)", Need::All(".*"))
}

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-slo-overview",
        title: "nodewick / SLOs",
        about: "For SREs: every objective with what it promises, what it delivers, the budget that is left \
            and how fast it goes.",
        from: "now-24h",
        variables: vec![cluster()],
        rows: vec![
            Row {
                title: "",
                panels: vec![stat_objectives(), stat_burning(), stat_gone(), stat_young(), stat_quiet()],
            },
            Row { title: "Objectives", panels: vec![table()] },
            Row { title: "Over time", panels: vec![budgets(), burns()] },
        ],
    }
}

fn stat_objectives() -> Panel {
    Panel::stat(
        "Objectives",
        "How many objectives have rules, in all clusters. Fewer than you declared: load \
        the rendered rules (SLORuleMissing).",
    )
    .size(5, 4)
    .q("count(max by (slo_id) (slo:objective:ratio))", "objectives")
}

fn stat_burning() -> Panel {
    Panel::stat(
        "Burning now",
        "Objectives whose last five minutes burn as fast as the fastest page allows. \
        Start with the top of the table.",
    )
    .size(5, 4)
    .q(&format!("sum({})", burning_now()), "burning")
    .levels(&[(0.0, "green", ""), (1.0, "red", "")])
}

fn stat_gone() -> Panel {
    Panel::stat(
        "Budgets gone",
        "Objectives that are broken: more was bad than the whole period allows. \
        Reliability work comes first there.",
    )
    .size(5, 4)
    .q(&format!("sum({} <= bool 0)", recorded("slo:error_budget_remaining:ratio", "@C")), "gone")
    .levels(&[(0.0, "green", ""), (1.0, "purple", "")])
}

fn stat_young() -> Panel {
    Panel::stat(
        "Least coverage",
        "The share of the period that the youngest objective has data of. Below 100% a budget speaks for that \
            part of the period only.",
    )
    .size(5, 4)
    .unit("percentunit")
    .q("min({__name__=~\"slo:window_coverage:ratio(7|28|30|90)d\",@C})", "coverage")
}

fn stat_quiet() -> Panel {
    Panel::stat(
        "Without requests",
        "Objectives that had requests in their period and have none in five \
        minutes. At night that is normal, at noon it is SLOTrafficVanished.",
    )
    .q(
        &format!(
            "count({} unless on (cluster, slo_id) ({} > 0))",
            recorded("slo:error_budget_remaining:ratio", "@C"),
            recorded("slo:sli_events:increase5m", "@C")
        ),
        "without requests",
    )
    .quiet()
    .none("none")
    .levels(&[(0.0, "green", ""), (1.0, "yellow", "")])
}

fn table() -> Panel {
    let good = "1 - max by (cluster, slo_id) ({__name__=~\"slo:sli_error:ratio_rate(7|28|30|90)d\",@C})";
    let days = "max by (cluster, slo_id) ({__name__=~\"slo:window_coverage:ratio(7|28|30|90)d\",@C}) \
                * on (slo_id) group_left () max by (slo_id) (slo:time_period:days)";
    Panel::table(
        "Objectives by state",
        "The worst at the top. Page and ticket say that both ranges of a rule are above its factor; \"Pages at\" is that factor for this \
         objective's period. A click opens what burned the budget.",
    )
    .size(24, 12)
    .label_link("slo_id", "SLO", DETAIL)
    .value(&state("@C"), "State", "none")
    .column_levels(STATES)
    .value(&each_cluster("slo:objective:ratio"), "Objective", "percentunit")
    .value(good, "SLI", "percentunit")
    .value(&recorded("slo:error_budget_remaining:ratio", "@C"), "Budget left", "percentunit")
    .column_levels(LEFT)
    .value(days, "Days covered", "none")
    .value(&recorded("slo:burn_rate:ratio_rate5m", "@C"), "Burn 5m", "suffix:×")
    .column_levels(BURN)
    .value(&recorded("slo:burn_rate:ratio_rate1h", "@C"), "Burn 1h", "suffix:×")
    .column_levels(BURN)
    .value(&recorded("slo:burn_rate:ratio_rate6h", "@C"), "Burn 6h", "suffix:×")
    .column_levels(BURN)
    .value(&recorded("slo:burn_rate:ratio_rate3d", "@C"), "Burn 3d", "suffix:×")
    .column_levels(BURN)
    .value(&each_cluster(&factor("1h")), "Pages at", "suffix:×")
    .value(&exhaustion("@C"), "Budget gone in", "s")
    .quiet()
    .label("cluster", "Cluster")
    .most("State")
}

fn budgets() -> Panel {
    Panel::series(
        "Budget left",
        "Of the whole period. A cliff is an incident, a slope is something that nobody fixes.",
    )
    .unit("percentunit")
    .max(1.0)
    .signed()
    .levels(&[(0.0, "red", ""), (0.1, "orange", ""), (0.5, "green", "")])
    .q(&recorded("slo:error_budget_remaining:ratio", "@C"), "{{slo_id}}")
    .link(DETAIL_OF_SERIES.0, DETAIL_OF_SERIES.1)
}

fn burns() -> Panel {
    Panel::series(
        "Burn over an hour, as a share of what pages",
        "1 is the factor of the fastest page of each objective's own period, so that objectives compare. Above 1 with five minutes also \
         above it, somebody is called.",
    )
    .unit("none")
    .levels(&[(0.0, "green", ""), (1.0, "red", "")])
    .marked()
    .q(
        &format!(
            "{} / on (slo_id) group_left () {}",
            recorded("slo:burn_rate:ratio_rate1h", "@C"),
            factor("1h")
        ),
        "{{slo_id}}",
    )
    .link(DETAIL_OF_SERIES.0, DETAIL_OF_SERIES.1)
}
