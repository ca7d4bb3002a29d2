//! What whoever is on call would get: alerts as they begin and end, in full.
//!
//! In: the evaluator's report, again and again. Out: text when an alert begins to fire or ends, and an account of the pages
//! at the end. Invariant: each alert is told once when it begins and once when it ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::slo::eval::{AlertRow, Report, Row};
use crate::tail::escape;

/// How long the evidence may take that an alert is shown with: traces, and the budget, which is known from the first slice
/// of five minutes on.
const EVIDENCE: Duration = Duration::from_secs(6);
/// Failed requests that are named.
const TRACES: usize = 3;
/// Width of the line above and below.
const WIDTH: usize = 100;

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Page,
    Ticket,
}

fn call(alert: &str) -> Option<Call> {
    match alert {
        "SLOErrorBudgetBurn" | "SLOTrafficVanished" => Some(Call::Page),
        "SLOErrorBudgetBurnSlow" | "SLONoData" | "SLOBucketMismatch" => Some(Call::Ticket),
        _ => None,
    }
}

/// One alert that fires or fired.
#[derive(Debug)]
struct Known {
    seen: Instant,
    fired_unix_ms: i64,
    is_told: bool,
}

/// A page that began, for the account.
#[derive(Debug)]
struct Paged {
    what: String,
    after: Duration,
    lasted: Option<Duration>,
}

/// Watches the alerts.
#[derive(Debug)]
pub(super) struct OnCall {
    page: Option<SocketAddr>,
    state_dir: PathBuf,
    begun: Instant,
    begun_unix_ms: i64,
    known: BTreeMap<(String, String), Known>,
    paged: Vec<Paged>,
}

impl OnCall {
    /// Nothing fires yet, at `unix_ms`.
    pub(super) fn new(page: Option<SocketAddr>, state_dir: PathBuf, unix_ms: i64) -> Self {
        Self {
            page,
            state_dir,
            begun: Instant::now(),
            begun_unix_ms: unix_ms,
            known: BTreeMap::new(),
            paged: Vec::new(),
        }
    }

    /// What there is to say at `now`; empty: nothing. `action` is the name of the button that mends it.
    pub(super) fn look(&mut self, report: &Report, now: Instant, action: &str) -> String {
        let mut out = String::new();
        for row in &report.objectives {
            for alert in &row.alerts {
                if let Some(call) = call(&alert.name) {
                    self.step(report, row, alert, call, now, action, &mut out);
                }
            }
        }
        out
    }

    #[allow(clippy::too_many_arguments, reason = "each is one thing that the text is made of")]
    fn step(
        &mut self,
        report: &Report,
        row: &Row,
        alert: &AlertRow,
        call: Call,
        now: Instant,
        action: &str,
        out: &mut String,
    ) {
        let key = (row.slo_id.clone(), alert.name.clone());
        let since = alert.since_unix_ms.unwrap_or_default();
        let millis = |from: i64, to: i64| Duration::from_millis(u64::try_from(to - from).unwrap_or_default());
        if alert.state != "firing" {
            let Some(known) = self.known.remove(&key).filter(|known| known.is_told) else { return };
            // Without its end, which is told for a while only, the last look must do.
            let ended = if alert.state == "resolved" {
                since
            } else {
                self.begun_unix_ms + i64::try_from((now - self.begun).as_millis()).unwrap_or_default()
            };
            let lasted = millis(known.fired_unix_ms, ended);
            if call == Call::Page {
                let what = format!("{} of {}", alert.name, row.slo_id);
                if let Some(paged) =
                    self.paged.iter_mut().rev().find(|paged| paged.what == what && paged.lasted.is_none())
                {
                    paged.lasted = Some(lasted);
                }
                over(row, alert, lasted, out);
            }
            return;
        }
        let known =
            self.known.entry(key).or_insert(Known { seen: now, fired_unix_ms: since, is_told: false });
        let is_complete = !traces(alert).is_empty() && row.budget_remaining.is_some();
        let has_evidence = is_complete || now.saturating_duration_since(known.seen) >= EVIDENCE;
        if known.is_told || !(has_evidence || alert.name == "SLOTrafficVanished") {
            return;
        }
        known.is_told = true;
        match call {
            Call::Page => {
                let after = millis(self.begun_unix_ms, known.fired_unix_ms);
                self.paged.push(Paged {
                    what: format!("{} of {}", alert.name, row.slo_id),
                    after,
                    lasted: None,
                });
                self.write_page(report, row, alert, action, out);
            }
            Call::Ticket => {
                let _ = writeln!(out, "TICKET  {}", clean(text(alert, "summary")));
            }
        }
    }

    /// A page in full.
    fn write_page(&self, report: &Report, row: &Row, alert: &AlertRow, action: &str, out: &mut String) {
        let rule = "─".repeat(WIDTH);
        let list = |name| text(alert, name).trim_end().trim_end_matches(';').to_owned();
        let _ = writeln!(out, "{rule}\nPAGE  {}", clean(text(alert, "summary")));
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(out, "  {name:<9}{}", clean(value));
            }
        };
        line("", text(alert, "description"));
        if report.compression > 1 {
            line("", text(alert, "time_compression"));
        }
        let burn = |range: &str| {
            let value = row.burn_rate.get(range).copied().flatten();
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
        };
        line("burn", &format!("{} over 1h, {} over 5m, where 1 is allowed", burn("1h"), burn("5m")));
        if let Some(left) = row.budget_remaining {
            line("budget", &format!("{:.1} % of {} is left", left * 100.0, row.window));
        }
        line("routes", &list("top_routes"));
        line("pods", &list("worst_pods"));
        line("logs", text(alert, "logs_query"));
        line("runbook", text(alert, "runbook_url"));
        let mut name = "traces";
        for trace in traces(alert) {
            let dir = self.state_dir.display();
            line(name, &format!("nodewick tail --no-follow --trace {trace} --dir {dir}"));
            if let Some(page) = self.page {
                line("", &format!("http://{page}/?trace={trace}"));
            }
            name = "";
        }
        if let Some(page) = self.page {
            line(
                "mend",
                &format!(
                    "the button at http://{page}/, or: curl -X POST -H 'x-nodewick: 1' http://{page}/api/actions/{action}"
                ),
            );
        }
        out.push_str(&rule);
        out.push('\n');
    }

    /// The pages of the run, for its end.
    pub(super) fn account(&self) -> String {
        let mut out = String::new();
        for paged in &self.paged {
            let lasted = paged.lasted.map_or_else(
                || "it still fires".to_owned(),
                |lasted| format!("over after {:.1} s", lasted.as_secs_f64()),
            );
            let what = clean(&paged.what);
            let _ = writeln!(
                out,
                "page       {what}: {:.1} s after the start, {lasted}",
                paged.after.as_secs_f64()
            );
        }
        out
    }
}

fn over(row: &Row, alert: &AlertRow, lasted: Duration, out: &mut String) {
    let left = row
        .budget_remaining
        .map_or_else(String::new, |left| format!(" {:.1} % of its budget is left.", left * 100.0));
    let summary = clean(text(alert, "summary"));
    // The summary goes with the alert, some time after its end.
    let what = if summary.is_empty() { format!("{}: {}", row.slo_id, alert.name) } else { summary };
    let _ = writeln!(out, "OVER  {what}: no more, after {:.0} s.{left}", lasted.as_secs_f64());
}

fn text<'a>(alert: &'a AlertRow, name: &str) -> &'a str {
    alert.annotations.get(name).map(String::as_str).unwrap_or_default()
}

fn traces(alert: &AlertRow) -> Vec<&str> {
    text(alert, "sample_trace_ids").split_whitespace().take(TRACES).collect()
}

/// Routes and pods come from log lines: nothing in them may steer a terminal.
fn clean(value: &str) -> String {
    let mut out = String::new();
    escape(value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: &str, since: i64, annotations: &[(&str, &str)]) -> Report {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let json = serde_json::json!({
            "evaluator": true, "compression": 60, "evaluated_unix_ms": since,
            "objectives": [{
                "slo_id": "shop/checkout/orders", "sli": "availability", "threshold_seconds": null, "objective": 0.999,
                "window": "30d", "mode": "alert", "owner": "", "good": {}, "events": {},
                "burn_rate": {"1h": 712.0, "5m": 690.4}, "budget_remaining": 0.871, "coverage": {},
                "exhausted_in_seconds": null,
                "alerts": [{"name": "SLOErrorBudgetBurn", "state": state, "since_unix_ms": since, "annotations": annotations}],
            }],
        });
        serde_json::from_value(json).expect("a report")
    }

    #[test]
    fn a_page_is_told_in_full_once_it_has_evidence_and_so_is_its_end() {
        let page = "127.0.0.1:9465".parse().ok();
        let mut on_call = OnCall::new(page, "/tmp/d/state".into(), 1_000_000);
        let now = Instant::now();
        let said = [
            ("summary", "[demonstration, time x60] shop/checkout: availability SLO 99.9% is burning"),
            ("description", "Over 1h the error budget burns 712.0 times as fast as allowed."),
            ("time_compression", "Nobody is to be called."),
            ("top_routes", "/check\u{1b}[2Jout 31; "),
            ("worst_pods", "checkout-a 17; checkout-b 14; "),
            ("logs_query", "{namespace=\"shop\"}"),
            ("runbook_url", "https://example.com/SLOErrorBudgetBurn.md"),
        ];
        let look = |on_call: &mut OnCall, report: &Report, after: u64| {
            on_call.look(report, now + Duration::from_secs(after), "break-checkout")
        };
        assert_eq!(look(&mut on_call, &report("inactive", 0, &[]), 1), "");
        assert_eq!(
            look(&mut on_call, &report("firing", 1_004_000, &said), 4),
            "",
            "the traces are on their way"
        );
        let with: Vec<_> = said.into_iter().chain([("sample_trace_ids", "aa01 aa02 aa03 aa04 ")]).collect();
        let text = look(&mut on_call, &report("firing", 1_004_000, &with), 5);
        let rule = "─".repeat(100);
        assert_eq!(
            text,
            format!(
                "{rule}\n\
                 PAGE  [demonstration, time x60] shop/checkout: availability SLO 99.9% is burning\n\
                 \x20          Over 1h the error budget burns 712.0 times as fast as allowed.\n\
                 \x20          Nobody is to be called.\n\
                 \x20 burn     712 over 1h, 690 over 5m, where 1 is allowed\n\
                 \x20 budget   87.1 % of 30d is left\n\
                 \x20 routes   /check\\x1b[2Jout 31\n\
                 \x20 pods     checkout-a 17; checkout-b 14\n\
                 \x20 logs     {{namespace=\"shop\"}}\n\
                 \x20 runbook  https://example.com/SLOErrorBudgetBurn.md\n\
                 \x20 traces   nodewick tail --no-follow --trace aa01 --dir /tmp/d/state\n\
                 \x20          http://127.0.0.1:9465/?trace=aa01\n\
                 \x20          nodewick tail --no-follow --trace aa02 --dir /tmp/d/state\n\
                 \x20          http://127.0.0.1:9465/?trace=aa02\n\
                 \x20          nodewick tail --no-follow --trace aa03 --dir /tmp/d/state\n\
                 \x20          http://127.0.0.1:9465/?trace=aa03\n\
                 \x20 mend     the button at http://127.0.0.1:9465/, or: curl -X POST -H 'x-nodewick: 1' \
                 http://127.0.0.1:9465/api/actions/break-checkout\n\
                 {rule}\n"
            )
        );
        assert_eq!(look(&mut on_call, &report("firing", 1_004_000, &with), 6), "", "it is told once");
        assert_eq!(
            on_call.account(),
            "page       SLOErrorBudgetBurn of shop/checkout/orders: 4.0 s after the start, it still fires\n"
        );
        assert_eq!(
            look(&mut on_call, &report("resolved", 1_045_000, &with), 45),
            "OVER  [demonstration, time x60] shop/checkout: availability SLO 99.9% is burning: no more, after 41 s. 87.1 % of its \
             budget is left.\n"
        );
        assert_eq!(look(&mut on_call, &report("resolved", 1_045_000, &with), 46), "");
        assert_eq!(
            on_call.account(),
            "page       SLOErrorBudgetBurn of shop/checkout/orders: 4.0 s after the start, over after 41.0 s\n"
        );
    }

    #[test]
    fn a_page_without_evidence_is_told_without_it_some_seconds_later() {
        let mut on_call = OnCall::new(None, "/tmp/d".into(), 0);
        let now = Instant::now();
        let report = report("firing", 1_000, &[("summary", "s")]);
        assert_eq!(on_call.look(&report, now, "b"), "");
        assert!(on_call.look(&report, now + Duration::from_secs(6), "b").contains("PAGE  s\n"));
    }
}
