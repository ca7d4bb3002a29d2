//! `nodewick slo`: objectives checked, rendered, tried out, imported, suggested and held against history.

mod backtest;
mod import;
mod manifests;
mod prometheus;
mod render;
mod suggest;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use nodewick::config::Config;
use nodewick::data::units::{Percent, Rate, Span};
use nodewick::slo::burn::Fault;
use nodewick::slo::simulate::simulate;
use nodewick::slo::{Mode, Spec, number};

use super::{ConfigArgs, Output, print};
use manifests::{ManifestArgs, declared};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say what the declared objectives mean, and what is odd about them.
    Lint(LintArgs),
    /// Write rules, their unit tests, Alertmanager's part, runbooks and dashboards.
    Render(render::RenderArgs),
    /// Say when a fault would page, when that would end, and what it spends.
    Simulate(SimulateArgs),
    /// Take over objectives of OpenSLO, Sloth and Pyrra; exit code 1 when some are rejected.
    Import(import::ImportArgs),
    /// Propose objectives that the traffic of the last weeks would have kept.
    Suggest(suggest::SuggestArgs),
    /// Replay history: which pages and tickets would have come.
    Backtest(backtest::BacktestArgs),
}

#[derive(Debug, Args)]
pub(super) struct LintArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    manifests: ManifestArgs,
    /// Requests that each workload gets, to judge objectives of quiet services: 60/m.
    #[arg(long, value_name = "RATE")]
    requests: Option<Rate>,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    manifests: ManifestArgs,
    /// Share of requests that are bad: 1%.
    #[arg(long, value_name = "SHARE")]
    errors: Percent,
    /// How long: 2h.
    #[arg(long = "for", value_name = "TIME")]
    lasting: Span,
    /// Requests, good and bad.
    #[arg(long, value_name = "RATE", default_value = "600/m")]
    requests: Rate,
    /// This objective only.
    #[arg(long, value_name = "NAME")]
    slo: Option<String>,
}

/// Longest fault that is simulated: the longest window.
const LONGEST_DAYS: u64 = 90;

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Lint(args) => lint(args),
        Verb::Render(args) => render::run(args),
        Verb::Simulate(args) => simulation(args),
        Verb::Import(args) => import::run(args),
        Verb::Suggest(args) => suggest::run(args),
        Verb::Backtest(args) => backtest::run(args),
    }
}

/// The config, with warnings about objectives on stderr.
fn load(args: &ConfigArgs) -> anyhow::Result<Config> {
    let loaded = args.load()?;
    for warning in loaded.warnings.iter().filter(|warning| warning.key.starts_with("slo.")) {
        eprintln!("{warning}");
    }
    Ok(loaded.config)
}

/// The objective of a name or id, or all.
fn chosen(specs: Vec<Spec>, name: Option<&str>) -> anyhow::Result<Vec<Spec>> {
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    let wanted = |spec: &Spec| name.is_none_or(|name| name == spec.name || name == spec.id());
    let found: Vec<Spec> = specs.into_iter().filter(wanted).collect();
    if found.is_empty() {
        let name = name.unwrap_or_default();
        anyhow::bail!("no objective is called {name:?}; there are {}", names.join(", "));
    }
    Ok(found)
}

fn per_minute(rate: Rate) -> f64 {
    rate.count as f64 * 60.0 / rate.per.as_secs_f64()
}

fn lint(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let specs = declared(&config, &args.manifests)?;
    let mut out = String::new();
    for spec in &specs {
        let allowed = spec.objective.budget() * f64::from(spec.window.minutes());
        writeln!(
            out,
            "{}: {} {} over {}, {}; {} of the requests may be bad, as in {} of outage",
            spec.id(),
            spec.sli.name(),
            spec.objective,
            spec.window,
            if spec.mode == Mode::Alert { "alerts" } else { "is observed" },
            number::percent(spec.objective.budget()),
            nodewick::slo::simulate::duration(allowed),
        )?;
    }
    for advice in config.slo.advice(args.requests.map(per_minute)) {
        writeln!(out, "{}: slo.{}: {}", advice.level.name(), advice.key.join("."), advice.message)?;
        writeln!(out, "  help: {}", advice.help)?;
    }
    print(&out)
}

fn simulation(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let specs = declared(&config, &args.manifests)?;
    let minutes = args.lasting.0.as_secs_f64() / 60.0;
    if args.lasting.0.is_zero() || args.lasting.0.as_secs() > LONGEST_DAYS * 86_400 {
        anyhow::bail!(
            "--for {} is no fault that can be simulated; give more than 0 and at most {LONGEST_DAYS}d",
            args.lasting
        );
    }
    if args.errors.millionths() == 0 {
        anyhow::bail!("--errors 0% spends nothing; give the share of bad requests, like 1%");
    }
    let fault = Fault { errors: f64::from(args.errors.millionths()) / 1e6, minutes };
    let mut out = String::new();
    for spec in &chosen(specs, args.slo.as_deref())? {
        let per_minute = per_minute(args.requests);
        out.push_str(&simulate(spec, fault, per_minute).text(spec, fault, per_minute));
        if spec.mode == Mode::Observe {
            out.push_str("  (observed: the rules call nobody until mode = \"alert\")\n");
        }
    }
    print(&out)
}
