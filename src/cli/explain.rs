//! `nodewick explain`: log lines through every stage.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use nodewick::data::clock;
use nodewick::inspect::{self, MAX_INPUT, Pipeline, Who};
use nodewick::tail;

use super::{ConfigArgs, Output, files, print};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// File with the lines: CRI, docker json-file or bare; `-` is standard input. Below /var/log/pods its path says
    /// who wrote them.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Output format; JSON is one array with an object a record.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Show what each stage changed in text and fields, instead of what it found and decided.
    #[arg(long)]
    diff: bool,
    /// Records that are explained, from the first one on.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Namespace of the pod that wrote the lines.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Name of the pod.
    #[arg(long)]
    pod: Option<String>,
    /// Name of the container.
    #[arg(long)]
    container: Option<String>,
    /// Service name; default: guessed from the pod's name.
    #[arg(long)]
    service: Option<String>,
    /// Annotation of the pod, again for each one: --annotation nodewick.dev/parser=json.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    annotations: Vec<(String, String)>,
}

/// Reads `key=value`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as nodewick.dev/parser=json".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    let pipeline = Pipeline::new(&loaded.config)?;
    let known = Who::of_path(&args.file).unwrap_or_default();
    let who = Who {
        namespace: args.namespace.clone().or(known.namespace),
        pod: args.pod.clone().or(known.pod),
        container: args.container.clone().or(known.container),
        service: args.service.clone(),
        annotations: args.annotations.clone(),
        ..known
    };
    let input = files::read_bytes(&args.file, MAX_INPUT);
    let input = input.with_context(|| format!("cannot read {}", named(&args.file)))?;
    eprint!("{}", inspect::explain::problems(&pipeline.problems(&who), ""));
    if input.len() > MAX_INPUT {
        eprintln!("nodewick: notice: only the first 1MiB is read");
    }
    let now = clock::since_epoch().as_nanos() as u64;
    let mut stories = pipeline.run(&who, &input, now);
    if stories.is_empty() {
        anyhow::bail!("no line to explain in {}", named(&args.file));
    }
    if stories.len() > args.limit {
        eprintln!("nodewick: notice: {} of {} records; --limit shows more", args.limit, stories.len());
        stories.truncate(args.limit);
    }
    match args.output {
        Output::Text if args.diff => {
            let sent = loaded.config.record.fields.0;
            print(&inspect::stages::text(&stories, sent, tail::Style::of_stdout()))
        }
        Output::Text => print(&inspect::explain::text(&pipeline, &stories)),
        Output::Json => {
            let json = inspect::explain::json(&pipeline, &stories);
            print(&format!("{}\n", serde_json::to_string_pretty(&json)?))
        }
    }
}

fn named(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}
