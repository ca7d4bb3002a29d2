//! `nodewick alerts`: rules about the agent and about what workloads log, as files.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use nodewick::alerts;

use super::ConfigArgs;
use super::files::OutArgs;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write alerts about the agent and workloads, their unit tests and runbooks; `[slo.defaults]` names severities and links.
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    out: OutArgs,
    /// Write these parts only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
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
    args.out.hand_over(&rendered)
}
