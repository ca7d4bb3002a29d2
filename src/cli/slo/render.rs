//! `nodewick slo render`: the files that are made of the declared objectives.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use nodewick::dashboards;
use nodewick::slo::Mode;
use nodewick::slo::render;

use super::super::files::OutArgs;
use super::manifests::{ManifestArgs, declared};
use super::{ConfigArgs, load};

#[derive(Debug, Args)]
pub(in crate::cli) struct RenderArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    out: OutArgs,
    /// Write these parts only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Rules,
    Prometheusrule,
    Loki,
    Tests,
    Alertmanager,
    Runbooks,
    Dashboards,
}

impl Part {
    /// What of the objectives' own files it is.
    const fn of_objectives(self) -> Option<render::Part> {
        match self {
            Self::Rules => Some(render::Part::Rules),
            Self::Prometheusrule => Some(render::Part::PrometheusRule),
            Self::Loki => Some(render::Part::Loki),
            Self::Tests => Some(render::Part::Tests),
            Self::Alertmanager => Some(render::Part::Alertmanager),
            Self::Runbooks => Some(render::Part::Runbooks),
            Self::Dashboards => None,
        }
    }
}

pub(super) fn run(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.config)?;
    // Without any there are still the generic rules, for objectives that the agents find in annotations.
    let is_empty = config.slo.declared.is_empty() && args.manifests.files.is_empty();
    let specs = if is_empty { Vec::new() } else { declared(&config, &args.manifests)? };
    let parts: Vec<render::Part> = args.only.iter().filter_map(|part| part.of_objectives()).collect();
    let mut rendered = match args.only.is_empty() || !parts.is_empty() {
        true => render::files(&specs, &config.slo.defaults, &parts),
        false => Vec::new(),
    };
    if args.only.is_empty() || args.only.contains(&Part::Dashboards) {
        rendered.extend(dashboards::of_objectives());
    }
    if args.out.checks() {
        return args.out.hand_over(&rendered);
    }
    if specs.is_empty() {
        eprintln!("notice: the config declares no objective; rules/generic.yaml takes those of annotations");
    } else if !specs.iter().any(|spec| spec.mode == Mode::Alert) {
        eprintln!("notice: every objective is observed and none alerts; mode = \"alert\" makes it page");
    }
    args.out.hand_over(&rendered)
}
