//! `nodewick slo`: objectives checked, rendered and tried out.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use nodewick::config::Config;
use nodewick::data::units::{Percent, Rate, Span};
use nodewick::slo::burn::Fault;
use nodewick::slo::render;
use nodewick::slo::simulate::simulate;
use nodewick::slo::{Mode, Spec, number};

use super::{ConfigArgs, files, print};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say what the declared objectives mean, and what is odd about them.
    Lint(LintArgs),
    /// Write rules, their unit tests, Alertmanager's part and runbooks.
    Render(RenderArgs),
    /// Say when a fault would page, when that would end, and what it spends.
    Simulate(SimulateArgs),
}

#[derive(Debug, Args)]
pub(super) struct LintArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Requests that each workload gets, to judge objectives of quiet services: 60/m.
    #[arg(long, value_name = "RATE")]
    requests: Option<Rate>,
}

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Directory to write to.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Write these parts only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Write nothing; exit 1 when a file differs from what would be written.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    #[command(flatten)]
    config: ConfigArgs,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Rules,
    Prometheusrule,
    Loki,
    Tests,
    Alertmanager,
    Runbooks,
}

impl From<Part> for render::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Rules => Self::Rules,
            Part::Prometheusrule => Self::PrometheusRule,
            Part::Loki => Self::Loki,
            Part::Tests => Self::Tests,
            Part::Alertmanager => Self::Alertmanager,
            Part::Runbooks => Self::Runbooks,
        }
    }
}

/// Longest fault that is simulated: the longest window.
const LONGEST_DAYS: u64 = 90;

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Lint(args) => lint(args),
        Verb::Render(args) => render(args),
        Verb::Simulate(args) => simulation(args),
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

fn declared(config: &Config) -> anyhow::Result<Vec<Spec>> {
    let specs = config.slo.specs();
    if specs.is_empty() {
        anyhow::bail!(
            "the config declares no objective; write a table like [slo.checkout-availability] (docs/reference/config.md)"
        );
    }
    Ok(specs)
}

fn per_minute(rate: Rate) -> f64 {
    rate.count as f64 * 60.0 / rate.per.as_secs_f64()
}

fn lint(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let specs = declared(&config)?;
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

fn render(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let specs = declared(&config)?;
    let parts: Vec<render::Part> = args.only.iter().map(|part| (*part).into()).collect();
    let rendered = render::files(&specs, &config.slo.defaults, &parts);
    if args.check {
        return Ok(files::check(&rendered, &args.out));
    }
    if !specs.iter().any(|spec| spec.mode == Mode::Alert) {
        eprintln!("notice: every objective is observed and none alerts; mode = \"alert\" makes it page");
    }
    files::write(&rendered, &args.out)
}

fn simulation(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    let specs = declared(&config)?;
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
    let wanted = |spec: &&Spec| args.slo.as_ref().is_none_or(|name| *name == spec.name || *name == spec.id());
    for spec in specs.iter().filter(wanted) {
        let per_minute = per_minute(args.requests);
        out.push_str(&simulate(spec, fault, per_minute).text(spec, fault, per_minute));
        if spec.mode == Mode::Observe {
            out.push_str("  (observed: the rules call nobody until mode = \"alert\")\n");
        }
    }
    if out.is_empty() {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        anyhow::bail!(
            "no objective is called {:?}; there are {}",
            args.slo.as_deref().unwrap_or_default(),
            names.join(", ")
        );
    }
    print(&out)
}
