//! `nodewick config`: what holds, what may be written, and a file to start from.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use nodewick::config::{self, Sources, render, schema};

use super::{ConfigArgs, print};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print the config that holds: from the file, the environment and flags, with where each value came from.
    Show(ShowArgs),
    /// Print the JSON Schema of the config, for editors and validators.
    Schema,
    /// Print a short config to start from.
    Init(InitArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Every key, those at their default too.
    #[arg(long)]
    effective: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "toml")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Toml,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Send to this Loki.
    #[arg(long, value_name = "URL")]
    loki: Option<String>,
    /// Send to this OTLP receiver: port 4317 is taken for gRPC, others for HTTP.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

pub(super) fn run(verb: &Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Show(args) => show(args),
        Verb::Schema => print(&format!("{}\n", serde_json::to_string_pretty(schema::json())?)),
        Verb::Init(args) => init(args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    match args.output {
        Output::Toml => print(&loaded.show(args.effective)),
        Output::Json => {
            print(&format!("{}\n", serde_json::to_string_pretty(&loaded.show_json(args.effective))?))
        }
    }
}

fn init(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let text = render::first_config(args.cluster.as_deref(), args.loki.as_deref(), args.otlp.as_deref());
    // What was given on the command line may be no URL: the loader says so as it would of the file.
    let sources = Sources { file: Some(("agent.toml".to_owned(), text.clone())), ..Sources::default() };
    config::load(&sources)?;
    print(&text)
}
