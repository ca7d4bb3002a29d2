//! `nodewick-slo-detail`: one objective, where alerts link to.

use super::model::{Board, Need, Panel, Row, Variable};
use super::promql::{factor, recorded};
use super::slo::{BURN, LEFT, STATES, burn, cluster, state};

/// Requests of health checks, which the rules leave out by default.
const ASKED: &str = "cluster=~\"$cluster\",namespace=\"$namespace\",route!~\"/healthz|/readyz|/livez|/health/live|/health/ready|/metrics\"";

/// The objective, where it is about a whole workload and where it is about a service.
fn own(sli: &str) -> [String; 2] {
    [
        format!(
            "on (namespace, workload) (max by (namespace, workload) \
                (slo:info{{@I,sli=\"{sli}\",workload!=\"\"}}))"
        ),
        format!(
            "on (namespace, service) (max by (namespace, service) \
                (slo:info{{@I,sli=\"{sli}\",workload=\"\",service!=\"\"}}))"
        ),
    ]
}

/// Requests of an increase that are this objective's, by labels.
fn of_objective(by: &str, sli: &str, increase: &str) -> String {
    let [workload, service] = own(sli);
    format!("sum by ({by}) (({increase} and {workload}) or ({increase} and {service}))")
}

/// Bad requests by labels over a range: 5xx for availability, slower than the threshold for latency.
fn bad(by: &str, range: &str) -> String {
    let failed = of_objective(
        by,
        "availability",
        &format!("increase(red_requests_total{{{ASKED},code_class=\"5xx\"}}{range})"),
    );
    let all = of_objective(
        by,
        "latency",
        &format!("increase(red_request_duration_seconds_count{{{ASKED}}}{range})"),
    );
    let fast = of_objective(
        by,
        "latency",
        &format!("increase(red_request_duration_seconds_bucket{{{ASKED},le=\"$threshold_seconds\"}}{range})"),
    );
    format!(
        "label_replace({failed}, \"class\", \"5xx\", \"\", \"\") or label_replace(clamp_min({all} - {fast}, \
            0), \"class\", \"slow\", \"\", \"\")"
    )
}

fn all(by: &str, range: &str) -> String {
    format!(
        "{} or {}",
        of_objective(by, "availability", &format!("increase(red_requests_total{{{ASKED}}}{range})")),
        of_objective(
            by,
            "latency",
            &format!("increase(red_request_duration_seconds_count{{{ASKED}}}{range})")
        )
    )
}

const PERIOD: &str = "(7|28|30|90)d";

/// Bad requests that the whole period allows, as far as it was seen.
fn allowed() -> String {
    format!(
        "(max({{__name__=~\"slo:sli_events:increase{PERIOD}\",@S}}) * scalar(max(slo:error_budget:ratio{{@I}})) \
         / scalar(max({{__name__=~\"slo:window_coverage:ratio{PERIOD}\",@S}})))"
    )
}

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-slo-detail",
        title: "nodewick / SLO in detail",
        about: "For SREs and for whoever was paged: one objective, its budget against the ideal line, what burned it, and what another \
                objective would have meant. Alerts link here.",
        from: "now-24h",
        variables: vec![
            cluster(),
            Variable::new("slo_id", "SLO", "label_values(slo:info, slo_id)", Need::One),
            Variable::new(
                "what_if",
                "What if the objective were (%)",
                "90,95,98,99,99.5,99.9,99.95,99.99",
                Need::Fixed("99.9"),
            ),
            Variable::new("namespace", "Namespace", "label_values(slo:info{@I}, namespace)", Need::One)
                .hidden(),
            Variable::new(
                "threshold_seconds",
                "Threshold",
                "label_values(slo:info{@I}, threshold_seconds)",
                Need::One,
            )
            .hidden(),
        ],
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "Budget", panels: vec![burn_down(), rolling()] },
            Row { title: "Burn rates", panels: vec![windows(), fast(), slow()] },
            Row { title: "What burned it", panels: vec![burners(), pods()] },
            Row { title: "Alerts", panels: vec![alerts(), requests()] },
            Row { title: "What if the objective were $what_if %", panels: what_if() },
        ],
    }
}

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat(
            "State",
            "Page and ticket: both ranges of a rule burn faster than its factor for this \
            period. The table of rules says which.",
        )
        .unit("none")
        .levels(STATES)
        .q(&format!("max({})", state("@S")), "state"),
        Panel::stat(
            "Objective",
            "What is promised. To change it, change the declaration and render the rules \
            anew.",
        )
        .size(3, 4)
        .unit("percentunit")
        .q("max(slo:objective:ratio{@I})", "objective"),
        Panel::stat("SLI", "The share of good requests over the whole period, weighed by traffic.")
            .size(3, 4)
            .unit("percentunit")
            .q(&format!("1 - max({{__name__=~\"slo:sli_error:ratio_rate{PERIOD}\",@S}})"), "good"),
        Panel::stat(
            "Budget left",
            "Of the whole period; negative when more was bad than is allowed. Below a \
            tenth, hold back risky deploys.",
        )
        .unit("percentunit")
        .levels(LEFT)
        .q("min(slo:error_budget_remaining:ratio{@S})", "left"),
        Panel::stat(
            "Burn now",
            "Times the allowed rate over five minutes. At the \"Pages at\" of this period \
            and beyond it is an incident.",
        )
        .unit("suffix:×")
        .levels(BURN)
        .q("max(slo:burn_rate:ratio_rate5m{@S})", "5m"),
        Panel::stat(
            "Pages at",
            "The burn rate over an hour and five minutes that pages: 14.4 for 30 days, \
            less for shorter periods.",
        )
        .size(3, 4)
        .unit("suffix:×")
        .q("0.48 * max(slo:time_period:days{@I})", "factor"),
        Panel::stat(
            "Days covered",
            "Days of the period with data. A young objective has spent what it spent, \
            not what a month of it would be.",
        )
        .size(3, 4)
        .unit("d")
        .q(
            &format!(
                "max({{__name__=~\"slo:window_coverage:ratio{PERIOD}\",@S}}) * \
                        scalar(max(slo:time_period:days{{@I}}))"
            ),
            "days",
        ),
    ]
}

fn burn_down() -> Panel {
    let errors = "sum_over_time((max by (slo_id) (slo:sli_errors:increase5m{@S}) * (time() > bool ($__from / \
        1000)))[$__range:5m])";
    let events = "sum_over_time((max by (slo_id) (slo:sli_events:increase5m{@S}) * (time() > bool ($__from / \
        1000)))[$__range:5m] @ end())";
    Panel::series(
        "Burn-down in the time shown",
        "What the objective allows for the requests of the time shown, less what went bad since its left edge. Below the ideal line the \
         budget goes faster than it may; show the whole period to judge the period.",
    )
    .unit("percentunit")
    .max(1.0)
    .signed()
    .q(
        &format!("1 - {errors} / on (slo_id) (max by (slo_id) (slo:error_budget:ratio{{@I}}) * ({events} > \
            0))"),
        "left",
    )
    .q("vector(1 - (time() - $__from / 1000) / (($__to - $__from) / 1000))", "ideal")
}

fn rolling() -> Panel {
    Panel::series(
        "Budget left of the rolling period",
        "The number that alerts and policies use. It rises again when an old incident leaves the period.",
    )
    .unit("percentunit")
    .max(1.0)
    .signed()
    .levels(&[(0.0, "red", ""), (0.1, "orange", ""), (0.5, "green", "")])
    .q(&recorded("slo:error_budget_remaining:ratio", "@S"), "left {{cluster}}")
}

fn windows() -> Panel {
    let pair = |long: &str, short: &str| -> [String; 2] { [burn(long, "@S"), burn(short, "@S")] };
    let window =
        |value: &str, name: &str| format!("label_replace({value}, \"rule\", \"{name}\", \"\", \"\")");
    let both = |at: usize| {
        [
            ("1h", "5m", "1 page 1h and 5m"),
            ("6h", "30m", "2 page 6h and 30m"),
            ("1d", "2h", "3 ticket 1d and 2h"),
            ("3d", "6h", "4 ticket 3d and 6h"),
        ]
        .map(|(long, short, name)| window(&pair(long, short)[at], name))
        .join(" or ")
    };
    let factors = [
        ("1h", "1 page 1h and 5m"),
        ("6h", "2 page 6h and 30m"),
        ("1d", "3 ticket 1d and 2h"),
        ("3d", "4 ticket 3d and 6h"),
    ]
    .map(|(long, name)| {
        window(
            &format!(
                "max by (slo_id) ({})",
                factor(long).replace("slo:time_period:days", "slo:time_period:days{@I}")
            ),
            name,
        )
    })
    .join(" or ");
    Panel::table(
        "Every rule with its threshold",
        "A rule fires while both of its ranges burn faster than its factor. Long alone: it is over or just \
            began. Short alone: a blip so far.",
    )
    .size(24, 6)
    .label("rule", "Rule")
    .value(
        &format!(
            "(max by (rule) ({}) > bool max by (rule) ({factors})) + 2 * (max by (rule) ({}) > bool max by \
                (rule) ({factors}))",
            both(0),
            both(1)
        ),
        "State",
        "none",
    )
    .column_levels(&[
        (0.0, "green", "quiet"),
        (1.0, "yellow", "long range alone"),
        (2.0, "yellow", "short range alone"),
        (3.0, "red", "above in both"),
    ])
    .value(&format!("max by (rule) ({})", both(0)), "Long range", "suffix:×")
    .column_levels(BURN)
    .value(&format!("max by (rule) ({})", both(1)), "Short range", "suffix:×")
    .column_levels(BURN)
    .value(&format!("max by (rule) ({factors})"), "Fires at", "suffix:×")
    .least("Rule")
}

fn fast() -> Panel {
    Panel::series(
        "Burn rates of pages",
        "The dashed level of each pair is its factor, which scales with the \
        period. Both ranges above it: page.",
    )
    .unit("suffix:×")
    .q(&burn("5m", "@S"), "5m {{cluster}}")
    .q(&burn("1h", "@S"), "1h {{cluster}}")
    .q(&burn("30m", "@S"), "30m {{cluster}}")
    .q(&burn("6h", "@S"), "6h {{cluster}}")
    .q("0.48 * max(slo:time_period:days{@I})", "pages at: 1h and 5m")
    .q("0.2 * max(slo:time_period:days{@I})", "pages at: 6h and 30m")
}

fn slow() -> Panel {
    Panel::series(
        "Burn rates of tickets",
        "Slow burns: nobody is woken, and the budget goes all the same. \
        Both ranges above their factor: ticket.",
    )
    .unit("suffix:×")
    .q(&burn("2h", "@S"), "2h {{cluster}}")
    .q(&burn("1d", "@S"), "1d {{cluster}}")
    .q(&burn("6h", "@S"), "6h {{cluster}}")
    .q(&burn("3d", "@S"), "3d {{cluster}}")
    .q(
        &format!(
            "max by (slo_id) ({{__name__=~\"slo:sli_error:ratio_rate{PERIOD}\",@S}}) / on (slo_id) \
            max by (slo_id) (slo:error_budget:ratio{{@I}})"
        ),
        "whole period",
    )
    .q("0.1 * max(slo:time_period:days{@I})", "tickets at: 1d and 2h")
    .q("0.1 / 3 * max(slo:time_period:days{@I})", "tickets at: 3d and 6h")
}

fn burners() -> Panel {
    Panel::table(
        "Routes by share of the budget",
        "Bad requests in the time shown, by route, as a share of all that the period allows: 5xx for availability, slower than the \
         threshold for latency. Fix the top row; show the whole period for the whole account.",
    )
    .size(12, 8)
    .none("nothing was bad in the time shown")
    .label("route", "Route")
    .label("class", "Class")
    .value(&format!("topk(20, sum by (route, class) ({}) > 0) / on () group_left () {}", bad("route", "[$__range]"), allowed()), "Of the budget", "percentunit")
    .quiet()
    .column_levels(&[(0.0, "green", ""), (0.02, "yellow", ""), (0.1, "orange", ""), (0.5, "red", "")])
    .value(&format!("topk(20, sum by (route, class) ({}) > 0)", bad("route", "[$__range]")), "Bad requests", "short")
    .quiet()
    .most("Of the budget")
}

fn pods() -> Panel {
    Panel::series(
        "SLI by pod",
        "The share of good requests of each pod. One pod below the others: restart it \
        or look at its node. All: the release or a dependency.",
    )
    .unit("percentunit")
    .max(1.0)
    .signed()
    .q(&format!("1 - sum by (pod) ({}) / on (pod) (({}) > 0)", bad("pod", "@R"), all("pod", "@R")), "{{pod}}")
}

fn alerts() -> Panel {
    Panel::timeline(
        "Alerts of this objective",
        "When which alert was pending and firing. Overlay it with the deploys above.",
    )
    .none("no alert in the time shown")
    .levels(&[(0.0, "green", "inactive"), (1.0, "yellow", "pending"), (2.0, "red", "firing")])
    .q(
        "max by (alertname) (2 * ALERTS{@I,alertstate=\"firing\"} or ALERTS{@I,alertstate=\"pending\"})",
        "{{alertname}}",
    )
    .quiet()
}

fn requests() -> Panel {
    Panel::series(
        "Requests and bad requests in five minutes",
        "What the ratios are made of. Bad requests that fall together with all requests are no recovery.",
    )
    .q("sum by (cluster) (slo:sli_events:increase5m{@S})", "all {{cluster}}")
    .q("sum by (cluster) (slo:sli_errors:increase5m{@S})", "bad {{cluster}}")
}

fn what_if() -> Vec<Panel> {
    let budget = "(1 - $what_if / 100)";
    let ratio = format!("max by (slo_id) ({{__name__=~\"slo:sli_error:ratio_rate{PERIOD}\",@S}})");
    let seen = format!("max by (slo_id) ({{__name__=~\"slo:window_coverage:ratio{PERIOD}\",@S}})");
    vec![
        Panel::stat(
            "Budget left, what if",
            "What would be left of the period with the objective chosen \
            above. Choose one that leaves some in a usual month.",
        )
        .size(6, 8)
        .unit("percentunit")
        .levels(LEFT)
        .q(&format!("1 - {ratio} * {seen} / {budget}"), "left"),
        Panel::stat(
            "Bad requests allowed, what if",
            "Bad requests that the chosen objective allows for the \
            requests seen in the period.",
        )
        .size(6, 8)
        .q(&format!("max({{__name__=~\"slo:sli_events:increase{PERIOD}\",@S}}) * {budget}"), "allowed"),
        Panel::series(
            "Burn, what if",
            "The burn rates that the chosen objective would have had, with the \
            factor that pages. Every crossing of both is a page that you would have had.",
        )
        .unit("suffix:×")
        .q(&format!("max by (slo_id) (slo:sli_error:ratio_rate5m{{@S}}) / {budget}"), "5m")
        .q(&format!("max by (slo_id) (slo:sli_error:ratio_rate1h{{@S}}) / {budget}"), "1h")
        .q("0.48 * max(slo:time_period:days{@I})", "pages at"),
    ]
}
