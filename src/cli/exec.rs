//! `nodewick exec` and what `nodewick run` does with `--stdin` and `--logs`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use nodewick::config::{Config, Loaded};
use nodewick::data::units::{ByteSize, Span};
use nodewick::exec::{self, Options, place};
use nodewick::logs::files::{self, Around};
use nodewick::{admin, config, telemetry};

use super::ConfigArgs;

/// `nodewick exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "Everything behind -- is the command. Its output goes through unchanged, signals reach it, its exit code is \
                  ours. It never waits for a backend: what does not fit the spool is dropped, counted, and marked in its \
                  stream."
)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    process: ProcessArgs,
    /// Show a page for people at 127.0.0.1:9465, or on a free port if that is taken; its address is said on stderr.
    #[arg(long)]
    ui: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is the same for a command and for standard input.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// Name of the service; default OTEL_SERVICE_NAME, else the program's name.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Output on disk that may wait for a backend.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    spool: ByteSize,
    /// Time for the last lines to be delivered at the end.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    flush: Span,
}

/// `nodewick run`.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Ship the lines of standard input, and end with them. Who writes waits while nothing more can be kept.
    #[arg(long, conflicts_with = "logs", group = "source")]
    pub(crate) stdin: bool,
    /// Follow DIR/**/*.log instead of a node's pods: no cluster needed. The agent's page is at 127.0.0.1:9465 unless [ui]
    /// listen says otherwise.
    #[arg(long, value_name = "DIR", group = "source")]
    pub(crate) logs: Option<PathBuf>,
    /// Name of the service that --stdin or --logs is about.
    #[arg(long, value_name = "NAME", requires = "source")]
    pub(crate) service: Option<String>,
    /// With --logs: metrics of the same service, HOST:PORT or HOST:PORT/PATH (default /metrics). Repeatable.
    #[arg(long, value_name = "HOST:PORT", requires = "logs")]
    pub(crate) scrape: Vec<String>,
    /// With --logs: an objective of the service: availability=99.9%, or latency=99%<300ms. Repeatable.
    #[arg(long, value_name = "SLI=SHARE", requires = "logs")]
    pub(crate) slo: Vec<String>,
}

/// Runs a command beside an agent.
pub(crate) fn exec(args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let config = for_one_process(args.config.load()?);
    let _telemetry = own_words(&config)?;
    let service = service(args.process.service.as_deref())
        .map_or_else(|| (exec::guess_service(&args.command), true), |name| (name, false));
    let options =
        Options { service, spool: args.process.spool.0, flush: args.process.flush.0, page: args.ui };
    exec::run(config, &options, &args.command, &mut say).context("cannot run the command")
}

/// Ships standard input.
pub(crate) fn stdin(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = for_one_process(args.config.load()?);
    let _telemetry = own_words(&config)?;
    let service =
        service(args.service.as_deref()).map_or_else(|| ("stdin".to_owned(), true), |name| (name, false));
    let options = Options {
        service,
        spool: ByteSize::mib(64).0,
        flush: std::time::Duration::from_secs(20),
        page: false,
    };
    exec::stdin(config, &options, &mut say).context("cannot ship standard input")
}

/// Turns the config of a node into one that follows the logs of a directory.
/// Returns the service's name.
pub(super) fn follow_directory(
    loaded: &mut Loaded,
    dir: &Path,
    service: Option<&str>,
) -> anyhow::Result<String> {
    let dir = dir.canonicalize().with_context(|| format!("cannot follow {}", dir.display()))?;
    anyhow::ensure!(dir.is_dir(), "{} is no directory", dir.display());
    let text = dir.to_str().filter(|text| !text.contains(['*', '?']));
    let text = text.with_context(|| format!("{} has characters that patterns use", dir.display()))?;
    let name = dir.file_name().map_or_else(|| "logs".into(), |name| name.to_string_lossy());
    let name: String = place::file_name(&name).chars().take(63).collect();
    let source = files::Config {
        paths: vec![format!("{}/**/*.log", text.trim_end_matches('/'))],
        service: service.unwrap_or_default().to_owned(),
        ..files::Config::default()
    };
    let config = &mut loaded.config;
    config.logs.root = PathBuf::new();
    config.logs.files.insert(name.clone(), source);
    let service = self::service(service).unwrap_or_else(|| name.clone());
    quiet_listener(config);
    let base = place::writable_state_dir(&config.agent.state_dir);
    let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    config.agent.state_dir = base.join(format!("logs-{name}-{hash:016x}"));
    say(&format!("following {text}/**/*.log; state in {}", config.agent.state_dir.display()));
    Ok(service)
}

fn service(given: Option<&str>) -> Option<String> {
    given.map(str::to_owned).filter(|name| !name.is_empty()).or_else(|| Around::of_process().service)
}

/// The agent shares its container with a process, and its host perhaps with others like it.
fn for_one_process(loaded: Loaded) -> Config {
    let mut config = loaded.config;
    quiet_listener(&mut config);
    let node = config::Config::default();
    if config.agent.memory == node.agent.memory {
        config.agent.memory = ByteSize::mib(8);
    }
    config
}

/// No listener unless one was asked for: several agents of this kind run on one host.
fn quiet_listener(config: &mut Config) {
    if config.admin.listen == admin::Config::default().listen {
        config.admin.listen = "off".to_owned();
    }
}

/// The agent's own words would stand among those of the process: there are none unless they were asked for.
fn own_words(config: &Config) -> anyhow::Result<Option<impl Drop + use<>>> {
    let asked = std::env::var_os("NODEWICK_LOG").is_some_and(|filter| !filter.is_empty())
        || config.telemetry != telemetry::Config::default();
    Ok(if asked { Some(telemetry::init(&config.telemetry)?) } else { None })
}

pub(super) fn say(text: &str) {
    eprintln!("nodewick: {text}");
}
