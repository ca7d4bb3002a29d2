//! How objectives stand, from the report of the agent's own evaluator.
//!
//! In: a [`Report`]. Out: [`Objectives`], those that burn first. Invariant: without traffic there is no verdict.

use super::parts::bounded;
use super::{Alert, Burn, OBJECTIVES, Objective, ObjectiveState, Objectives};
use crate::slo::Window;
use crate::slo::burn::{Range, Severity, TIERS};
use crate::slo::eval::{Report, Row};

/// What is shown of a report, and how many objectives are left out.
pub(super) fn of(report: &Report) -> (Objectives, u64) {
    let mut rows: Vec<Objective> = report.objectives.iter().map(row).collect();
    let fastest = |of: &Objective| of.burns.iter().filter_map(|burn| burn.long_burn).fold(0.0, f64::max);
    rows.sort_by(|a, b| {
        (b.state.cmp(&a.state)).then(fastest(b).total_cmp(&fastest(a))).then_with(|| a.id.cmp(&b.id))
    });
    let omitted = rows.len().saturating_sub(OBJECTIVES);
    rows.truncate(OBJECTIVES);
    let found = Objectives {
        evaluated: report.evaluator,
        reason: report.reason.clone(),
        evaluated_unix_ms: report.evaluated_unix_ms,
        rows,
    };
    (found, omitted as u64)
}

fn row(row: &Row) -> Objective {
    let known =
        |of: &std::collections::BTreeMap<String, Option<f64>>, range: &str| of.get(range).copied().flatten();
    let budget = 1.0 - row.objective;
    // The rules record it for some ranges; for the others it follows from the share of good events.
    let burn = |range: Range| {
        let name = range.to_string();
        let of_good = || Some((1.0 - known(&row.good, &name)?) / budget).filter(|_| budget > 0.0);
        known(&row.burn_rate, &name).or_else(of_good)
    };
    let window: Option<Window> = row.window.parse().ok();
    let burns: Vec<Burn> = TIERS
        .iter()
        .filter_map(|tier| {
            let threshold = tier.factor(window?);
            let (long_burn, short_burn) = (burn(tier.long), burn(tier.short));
            let over = |burn: Option<f64>| burn.is_some_and(|burn| burn > threshold);
            Some(Burn {
                severity: match tier.severity {
                    Severity::Page => "page".to_owned(),
                    Severity::Ticket => "ticket".to_owned(),
                },
                long: tier.long.to_string(),
                short: tier.short.to_string(),
                long_burn,
                short_burn,
                threshold,
                is_over: over(long_burn) && over(short_burn),
            })
        })
        .collect();
    let alerts: Vec<Alert> = row
        .alerts
        .iter()
        .filter(|alert| matches!(alert.state.as_str(), "pending" | "firing"))
        .map(|alert| Alert {
            name: alert.name.clone(),
            state: alert.state.clone(),
            since_unix_ms: alert.since_unix_ms,
            summary: bounded(alert.annotations.get("summary").map_or("", String::as_str)),
        })
        .collect();
    let events = known(&row.events, &row.window);
    let state = if alerts.iter().any(|alert| alert.state == "firing") {
        ObjectiveState::Firing
    } else if burns.iter().any(|burn| burn.is_over) {
        ObjectiveState::Burning
    } else if events.is_none_or(|events| events <= 0.0) {
        ObjectiveState::NoTraffic
    } else if row.budget_remaining.is_some_and(|left| left <= 0.0) {
        ObjectiveState::Exhausted
    } else {
        ObjectiveState::Ok
    };
    Objective {
        id: row.slo_id.clone(),
        sli: row.sli.clone(),
        threshold_seconds: row.threshold_seconds,
        objective: row.objective,
        window: row.window.clone(),
        mode: row.mode.clone(),
        owner: row.owner.clone(),
        state,
        good_ratio: known(&row.good, &row.window),
        events,
        budget_left: row.budget_remaining,
        coverage: known(&row.coverage, &row.window),
        exhausted_in_seconds: row.exhausted_in_seconds,
        burns,
        alerts,
        problems: row.problems.iter().map(|text| bounded(text)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::eval::AlertRow;
    use std::collections::BTreeMap;

    fn ranges(of: &[(&str, f64)]) -> BTreeMap<String, Option<f64>> {
        of.iter().map(|(range, value)| ((*range).to_owned(), Some(*value))).collect()
    }

    fn burning() -> Row {
        Row {
            slo_id: "shop/checkout/availability".into(),
            sli: "availability".into(),
            threshold_seconds: None,
            objective: 0.999,
            window: "30d".into(),
            mode: "alert".into(),
            owner: "shop".into(),
            // Over 30 days 10 of 10,000 may fail.
            good: ranges(&[("5m", 0.98), ("30m", 0.98), ("1h", 0.98), ("6h", 0.999), ("30d", 0.9985)]),
            events: ranges(&[("30d", 10_000.0)]),
            burn_rate: ranges(&[("5m", 20.0), ("1h", 20.0), ("6h", 1.0)]),
            budget_remaining: Some(-0.5),
            coverage: ranges(&[("30d", 0.25)]),
            exhausted_in_seconds: Some(0.0),
            alerts: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn report(objectives: Vec<Row>) -> Report {
        Report {
            evaluator: true,
            reason: String::new(),
            compression: 1,
            evaluated_unix_ms: Some(7),
            objectives,
        }
    }

    #[test]
    fn each_pair_of_ranges_stands_against_its_threshold() {
        let (found, omitted) = of(&report(vec![burning()]));
        assert_eq!((omitted, found.evaluated, found.evaluated_unix_ms), (0, true, Some(7)));
        let row = &found.rows[0];
        let burns: Vec<_> = row
            .burns
            .iter()
            .map(|b| (b.severity.as_str(), b.long.as_str(), b.short.as_str(), b.threshold, b.is_over))
            .collect();
        let expected = [
            ("page", "1h", "5m", 14.4, true),
            ("page", "6h", "30m", 6.0, false),
            ("ticket", "1d", "2h", 3.0, false),
            ("ticket", "3d", "6h", 1.0, false),
        ];
        assert_eq!(burns, expected);
        // What the rules do not record follows from the share of good events.
        assert_eq!(row.burns[1].short_burn.map(|burn| burn.round()), Some(20.0));
        assert_eq!(row.burns[2].short_burn, None, "nothing is known of two hours");
        assert_eq!((row.good_ratio, row.events, row.coverage), (Some(0.9985), Some(10_000.0), Some(0.25)));
        assert_eq!(row.state, ObjectiveState::Burning);
    }

    #[test]
    fn no_traffic_is_no_verdict_and_an_alert_comes_first() {
        let quiet =
            Row { events: BTreeMap::new(), good: BTreeMap::new(), burn_rate: BTreeMap::new(), ..burning() };
        let calm = Row { burn_rate: BTreeMap::new(), good: ranges(&[("30d", 1.0)]), ..burning() };
        let well = Row { budget_remaining: Some(0.4), slo_id: "a/well/x".into(), ..calm.clone() };
        let firing = AlertRow {
            name: "SLOErrorBudgetBurn".into(),
            state: "firing".into(),
            since_unix_ms: Some(5),
            annotations: [("summary".to_owned(), "burns".to_owned())].into(),
        };
        let rest = AlertRow { state: "resolved".into(), ..firing.clone() };
        let told = Row { alerts: vec![rest, firing], slo_id: "a/told/x".into(), ..calm.clone() };
        let (found, _) = of(&report(vec![quiet, calm, well, told]));
        let states: Vec<ObjectiveState> = found.rows.iter().map(|row| row.state).collect();
        use ObjectiveState::{Exhausted, Firing, NoTraffic, Ok};
        assert_eq!(states, [Firing, Exhausted, Ok, NoTraffic]);
        assert_eq!(found.rows[0].alerts.len(), 1);
        assert_eq!(found.rows[0].alerts[0].summary, "burns");
    }

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let rows = (0..203).map(|n| Row { slo_id: format!("a/b/{n}"), ..burning() });
        let (found, omitted) = of(&report(rows.collect()));
        assert_eq!((found.rows.len(), omitted), (200, 3));
    }
}
