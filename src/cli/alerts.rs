//! `nodewick alerts`: rules about the agent and about what workloads log, as files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use nodewick::alerts;

use super::{ConfigArgs, files};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write alerts about the agent and workloads, their unit tests and runbooks; `[slo.defaults]` names severities and links.
    Render(RenderArgs),
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Rules,
    Prometheusrule,
    Loki,
    Tests,
    Runbooks,
}

impl From<Part> for alerts::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Rules => Self::Rules,
            Part::Prometheusrule => Self::PrometheusRule,
            Part::Loki => Self::Loki,
            Part::Tests => Self::Tests,
            Part::Runbooks => Self::Runbooks,
        }
    }
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    let Verb::Render(args) = verb;
    let config = args.config.load()?.config;
    let parts: Vec<alerts::Part> = args.only.iter().map(|part| (*part).into()).collect();
    let rendered = alerts::files(&config.slo.defaults, &parts);
    if args.check { Ok(files::check(&rendered, &args.out)) } else { files::write(&rendered, &args.out) }
}
