//! `nodewick dashboards`: Grafana dashboards and provisioning as files.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nodewick::dashboards::{File, files};

use super::print;

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
    let files = files();
    if args.check {
        let differs = |file: &&File| {
            std::fs::read_to_string(args.out.join(&file.path)).ok().as_ref() != Some(&file.text)
        };
        let differing: Vec<&File> = files.iter().filter(differs).collect();
        for file in &differing {
            eprintln!("{} differs from what this version renders", args.out.join(&file.path).display());
        }
        return Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut out = String::new();
    for file in &files {
        let path = args.out.join(&file.path);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        written
            .and_then(|()| std::fs::write(&path, &file.text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "{}", path.display())?;
    }
    print(&out)
}
