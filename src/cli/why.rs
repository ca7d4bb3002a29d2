//! `nodewick why <pod>`: its flags and its exit code.

use std::process::ExitCode;

use clap::Args;
use nodewick::doctor::Colour;
use nodewick::why::{self, Question};

use super::doctor::Place;
use super::{Output, print};

/// `nodewick why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Pod: name, namespace/name, uid, or the beginning of a name; or a log file's path, or its source in [logs.files].
    pod: String,
    /// Namespace of the pod.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only this container of it.
    #[arg(long)]
    container: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

pub(crate) fn why(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    // A bad config is an error here, since it says which agent and which directory.
    args.place.config.load()?;
    let site = args.place.site(false)?;
    let question = Question {
        pod: args.pod.clone(),
        namespace: args.namespace.clone(),
        container: args.container.clone(),
    };
    let answer = why::ask(&site, &question);
    print(&match args.output {
        Output::Text => answer.text(Colour::of_stdout()),
        Output::Json => answer.json(),
    })?;
    Ok(if answer.flowing { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
