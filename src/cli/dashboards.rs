//! `nodewick dashboards`: Grafana dashboards and provisioning as files.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use nodewick::dashboards;

use super::files::OutArgs;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write the dashboards (`grafana/*.json`) and Grafana's provisioning files (`provisioning/`).
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    out: OutArgs,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    let Verb::Render(args) = verb;
    args.out.hand_over(&dashboards::files())
}
