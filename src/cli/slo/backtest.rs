//! `nodewick slo backtest`: the declared objectives against history, as a report or JSON on stdout.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use nodewick::data::units::Span;
use nodewick::history::{Api, Grid, Labels, MOST_POINTS};
use nodewick::slo::backtest::{Alert, History, Replay, Replayer, Rung, recommended};
use nodewick::slo::burn::{Range, Severity};
use nodewick::slo::number::shortest;
use nodewick::slo::render;
use nodewick::slo::simulate::duration;
use nodewick::slo::{Mode, Sli, Spec};

use super::manifests::{ManifestArgs, declared};
use super::prometheus::{Progress, Server, now, runtime};
use super::{ConfigArgs, Output, chosen, load, print};

#[derive(Debug, Args)]
pub(in crate::cli) struct BacktestArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    server: Server,
    /// Length of the history, up to now or --to.
    #[arg(long, value_name = "TIME", default_value = "30d", conflicts_with = "from")]
    last: Span,
    /// Begin of the history: 2026-03-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// End of the history instead of now.
    #[arg(long, value_name = "TIME")]
    to: Option<jiff::Timestamp>,
    /// Time between two evaluations, a divisor of 5m; by default 30s, 1m beyond 45 days and 5m beyond 100.
    #[arg(long, value_name = "TIME")]
    step: Option<Span>,
    /// This objective only.
    #[arg(long, value_name = "NAME")]
    slo: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Longest history that is replayed.
const LONGEST_DAYS: i64 = 400;
/// What the longest range of an alert looks back on.
const BEFORE: i64 = 3 * 86_400;
/// Most clusters whose series are told apart.
const MOST_LINES: usize = 64;

/// The stretch that is replayed.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: i64,
    to: i64,
    step: i64,
}

/// One objective in one cluster.
struct Finding {
    cluster: Option<String>,
    outcome: Option<(Replay, Vec<Rung>)>,
    /// Why there is no outcome.
    why: String,
}

pub(super) fn run(args: &BacktestArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let specs = chosen(declared(&config, &args.manifests)?, args.slo.as_deref())?;
    let api = args.server.api()?;
    let stretch = stretch(args)?;
    let runtime = runtime()?;
    let mut found = Vec::new();
    for spec in &specs {
        found.push((spec, runtime.block_on(findings(&api, spec, stretch))?));
    }
    let is_empty = found.iter().flat_map(|(_, findings)| findings).all(|finding| finding.outcome.is_none());
    match args.output {
        Output::Text => print(&text(&found, stretch))?,
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&json(&found, stretch))?))?,
    };
    // A backtest of nothing has not said that all is well.
    Ok(if is_empty { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn stretch(args: &BacktestArgs) -> anyhow::Result<Stretch> {
    let to = args.to.map_or_else(now, jiff::Timestamp::as_second);
    let last = i64::try_from(args.last.0.as_secs()).unwrap_or(i64::MAX);
    let from = args.from.map_or(to.saturating_sub(last), jiff::Timestamp::as_second);
    let length = to.saturating_sub(from);
    if !(3_600..=LONGEST_DAYS * 86_400).contains(&length) {
        anyhow::bail!(
            "the history from {} to {} cannot be replayed; give an hour at least and {LONGEST_DAYS}d at most",
            time(from),
            time(to)
        );
    }
    let step = match args.step {
        Some(step) if step.0.as_secs() >= 10 && step.0.subsec_nanos() == 0 && 300 % step.0.as_secs() == 0 => {
            step.0.as_secs() as i64
        }
        Some(step) => anyhow::bail!("--step {step} does not divide five minutes; give 30s, 1m or 5m"),
        None if length > 100 * 86_400 => 300,
        None if length > 45 * 86_400 => 60,
        None => 30,
    };
    Ok(Stretch { from: from.div_euclid(step) * step, to: to.div_euclid(step) * step, step })
}

async fn findings(api: &Api, spec: &Spec, stretch: Stretch) -> anyhow::Result<Vec<Finding>> {
    let start = (stretch.from - BEFORE).div_euclid(300) * 300;
    let points = usize::try_from((stretch.to - start) / stretch.step).unwrap_or_default() + 1;
    let grid = Grid { start, step: stretch.step, points };
    let progress = Progress::new(&spec.name);
    let queries = render::five_minutes(spec);
    let lines = api.lines(&queries, grid, MOST_POINTS, |done, all| progress.show(done, all)).await?;
    drop(progress);
    let mut lines = lines.into_iter();
    let (events, mut errors) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if events.len() > MOST_LINES {
        anyhow::bail!("{} has {} series, more than {MOST_LINES} clusters", spec.id(), events.len());
    }
    let several = events.len() > 1;
    let mut found = Vec::new();
    for (labels, events) in events {
        let errors = errors.remove(&labels).unwrap_or_else(|| vec![f64::NAN; events.len()]);
        let history = History { start, step: stretch.step, events, errors };
        let Some(replayer) = Replayer::new(&history).filter(|replayer| !replayer.is_empty(stretch.from))
        else {
            continue;
        };
        let replay = replayer.replay(spec, spec.objective, stretch.from, stretch.to);
        let ladder = replayer.ladder(spec, stretch.from, stretch.to);
        let cluster = name_of(&labels).filter(|_| several);
        found.push(Finding { cluster, outcome: Some((replay, ladder)), why: String::new() });
    }
    if found.is_empty() {
        let why = no_data(api, spec, stretch).await?;
        found.push(Finding { cluster: None, outcome: None, why });
    }
    Ok(found)
}

fn name_of(labels: &Labels) -> Option<String> {
    Some(labels.get("cluster").cloned().unwrap_or_else(|| "no cluster".to_owned()))
}

/// Why an objective has no samples.
async fn no_data(api: &Api, spec: &Spec, stretch: Stretch) -> anyhow::Result<String> {
    let subject = format!(
        "namespace={:?}, {}={:?}",
        spec.selector.namespace,
        spec.selector.subject_label(),
        spec.selector.subject()
    );
    let any = api.instant(&render::any_request(spec, Range::D1), stretch.to).await?;
    if any.iter().all(|series| series.points.iter().all(|(_, value)| *value <= 0.0)) {
        return Ok(format!("no requests are counted of {subject}; look for the name in red_requests_total"));
    }
    if let Sli::Latency { .. } = spec.sli {
        return Ok(format!(
            "requests are counted of {subject}, and none against the threshold: that takes slo_events_total or a bucket at it"
        ));
    }
    Ok(format!(
        "requests are counted of {subject}, but not in this time, or their samples are more than two and a half minutes apart"
    ))
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A share as a percentage with three digits that count.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent <= 0.0 {
        return "0%".to_owned();
    }
    let digits = (2.0 - percent.log10().floor()).clamp(0.0, 9.0);
    let scale = 10_f64.powf(digits);
    format!("{}%", shortest((percent * scale).round() / scale))
}

fn a_month(count: f64) -> String {
    shortest((count * 10.0).round() / 10.0)
}

const fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Page => "page",
        Severity::Ticket => "ticket",
    }
}

/// Which objective is recommended and why, or that none is.
fn advice(spec: &Spec, replay: &Replay, ladder: &[Rung]) -> String {
    let mut out = match recommended(ladder) {
        Some(rung) if rung.objective == spec.objective => format!("keep {}", rung.objective),
        Some(rung) => {
            format!("{}: it was kept, with {} pages a month", rung.objective, a_month(rung.pages))
        }
        None => {
            "none: no objective of the ladder was kept without many pages; mend the service first".to_owned()
        }
    };
    if replay.days * 2.0 < f64::from(spec.window.days()) {
        let length = duration((replay.days * 1_440.0).round());
        let _ = write!(out, "; {length} of history say little about {}", spec.window);
    }
    out
}

fn text(found: &[(&Spec, Vec<Finding>)], stretch: Stretch) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "history from {} to {}, evaluated every {}{}",
        time(stretch.from),
        time(stretch.to),
        Span::secs(stretch.step as u64),
        if stretch.step > 30 { ", coarser than the rules' 30s" } else { "" }
    );
    for (spec, findings) in found {
        for finding in findings {
            let cluster =
                finding.cluster.as_ref().map(|name| format!(", cluster {name}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "\n{}: {} {} over {}{cluster}",
                spec.id(),
                spec.sli.name(),
                spec.objective,
                spec.window
            );
            match &finding.outcome {
                None => {
                    let _ = writeln!(out, "  no data: {}", finding.why);
                }
                Some((replay, ladder)) => of_one(&mut out, spec, replay, ladder),
            }
        }
    }
    out
}

fn of_one(out: &mut String, spec: &Spec, replay: &Replay, ladder: &[Rung]) {
    let bad = if replay.events > 0.0 { replay.errors / replay.events } else { 0.0 };
    let _ = writeln!(
        out,
        "  requests  {}, {} of them bad ({})",
        shortest(replay.events.round()),
        shortest(replay.errors.round()),
        percent(bad)
    );
    let _ = writeln!(out, "  budget    {} of {} spent", percent(replay.spent), spec.window);
    if replay.covered < 0.995 {
        let _ = writeln!(
            out,
            "  samples   {} of the time has any; the rest is neither good nor bad",
            percent(replay.covered)
        );
    }
    for (severity, minutes) in [Severity::Page, Severity::Ticket].into_iter().zip(replay.minutes) {
        let title = format!("{}s", name(severity));
        let _ = write!(out, "  {title:<9} {}", replay.count(severity));
        if replay.count(severity) > 0 {
            let _ = write!(out, ", {} in alert", duration(minutes));
        }
        out.push('\n');
        for alert in replay.alerts.iter().filter(|alert| alert.severity == severity) {
            let _ = writeln!(out, "    {}", line(alert));
        }
    }
    out.push_str("  objective  pages/month  tickets/month  budget\n");
    for rung in ladder {
        let _ = writeln!(
            out,
            "  {:<9}  {:<11}  {:<13}  {}{}",
            rung.objective.to_string(),
            a_month(rung.pages),
            a_month(rung.tickets),
            percent(rung.burn),
            if rung.objective == spec.objective { "  declared" } else { "" }
        );
    }
    let _ = writeln!(out, "  recommended: {}", advice(spec, replay, ladder));
    if spec.mode == Mode::Observe {
        out.push_str("  (observed: the rules call nobody until mode = \"alert\")\n");
    }
}

fn line(alert: &Alert) -> String {
    let until = match alert.ends {
        Some(ends) => format!("until {}, {}", time(ends), duration((ends - alert.starts) as f64 / 60.0)),
        None => "still on at the end".to_owned(),
    };
    let (long, short) = (alert.tier.long, alert.tier.short);
    format!("{} {until}, by {long}/{short}, {} of the budget gone", time(alert.starts), percent(alert.spent))
}

fn json(found: &[(&Spec, Vec<Finding>)], stretch: Stretch) -> serde_json::Value {
    let objectives: Vec<serde_json::Value> = found
        .iter()
        .flat_map(|(spec, findings)| findings.iter().map(|finding| json_of(spec, finding)))
        .collect();
    serde_json::json!({
        "from": time(stretch.from),
        "to": time(stretch.to),
        "step_seconds": stretch.step,
        "objectives": objectives,
    })
}

fn json_of(spec: &Spec, finding: &Finding) -> serde_json::Value {
    let mut out = serde_json::json!({
        "slo_id": spec.id(),
        "sli": spec.sli.name(),
        "objective": spec.objective.to_string(),
        "window": spec.window.to_string(),
        "mode": spec.mode.name(),
        "cluster": finding.cluster,
        "data": finding.outcome.is_some(),
    });
    let Some((replay, ladder)) = &finding.outcome else {
        out["why"] = finding.why.clone().into();
        return out;
    };
    let alerts: Vec<serde_json::Value> = replay
        .alerts
        .iter()
        .map(|alert| {
            serde_json::json!({
                "severity": name(alert.severity),
                "long": alert.tier.long.to_string(),
                "short": alert.tier.short.to_string(),
                "starts": time(alert.starts),
                "ends": alert.ends.map(time),
                "budget_spent_ratio": alert.spent,
            })
        })
        .collect();
    let rungs: Vec<serde_json::Value> = ladder
        .iter()
        .map(|rung| {
            serde_json::json!({
                "objective": rung.objective.to_string(),
                "pages_per_month": rung.pages,
                "tickets_per_month": rung.tickets,
                "budget_spent_ratio": rung.burn,
            })
        })
        .collect();
    out["requests"] = replay.events.into();
    out["bad_requests"] = replay.errors.into();
    out["covered_ratio"] = replay.covered.into();
    out["budget_spent_ratio"] = replay.spent.into();
    out["page_minutes"] = replay.minutes[0].into();
    out["ticket_minutes"] = replay.minutes[1].into();
    out["alerts"] = alerts.into();
    out["ladder"] = rungs.into();
    out["recommended"] = recommended(ladder).map(|rung| rung.objective.to_string()).into();
    out["advice"] = advice(spec, replay, ladder).into();
    out
}
