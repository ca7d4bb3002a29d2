//! `nodewick dashboards`: Grafana dashboards and provisioning as files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use nodewick::dashboards;

use super::files;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Write the dashboards (`grafana/*.json`) and Grafana's provisioning files (`provisioning/`).
    Render(RenderArgs),
}

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    /// Directory to write to.
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Write nothing; exit 1 when a file differs from what would be written.
    #[arg(long)]
    check: bool,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    let Verb::Render(args) = verb;
    let rendered = dashboards::files();
    if args.check {
        return Ok(files::check(&rendered, &args.out));
    }
    files::write(&rendered, &args.out)
}
