//! `nodewick slo render`: the files that are made of the declared objectives.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use nodewick::slo::Mode;
use nodewick::slo::render;

use super::super::files;
use super::manifests::{ManifestArgs, declared};
use super::{ConfigArgs, load};

#[derive(Debug, Args)]
pub(in crate::cli) struct RenderArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    manifests: ManifestArgs,
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

pub(super) fn run(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    // Without any there are still the generic rules, for objectives that the agents find in annotations.
    let is_empty = config.slo.declared.is_empty() && args.manifests.files.is_empty();
    let specs = if is_empty { Vec::new() } else { declared(&config, &args.manifests)? };
    let parts: Vec<render::Part> = args.only.iter().map(|part| (*part).into()).collect();
    let rendered = render::files(&specs, &config.slo.defaults, &parts);
    if args.check {
        return Ok(files::check(&rendered, &args.out));
    }
    if specs.is_empty() {
        eprintln!("notice: the config declares no objective; rules/generic.yaml takes those of annotations");
    } else if !specs.iter().any(|spec| spec.mode == Mode::Alert) {
        eprintln!("notice: every objective is observed and none alerts; mode = \"alert\" makes it page");
    }
    files::write(&rendered, &args.out)
}
