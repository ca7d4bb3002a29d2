//! `nodewick alerts`: rules about the agent and about what workloads log, as files.

use std::process::ExitCode;

use clap::{Args, Subcommand};
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
    only: Vec<alerts::Part>,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    let Verb::Render(args) = verb;
    let config = args.config.load()?.config;
    args.out.hand_over(&alerts::files(&config.slo.defaults, &args.only))
}
