//! The command line: verbs, their flags, and what they print.
//!
//! In: arguments. Out: text on stdout (data) and stderr (notices), and an exit code: 0 done, 1 a failure at run time,
//! 2 usage, 78 a bad config.

mod alerts;
mod config_verbs;
mod dashboards;
mod doctor;
mod exec;
mod explain;
mod files;
mod laptop;
mod migrate;
mod reference;
mod shell;
mod slo;
mod test;
mod top;
mod why;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nodewick::agent::harden;
use nodewick::agent::reload::{Origin, Reloads};
use nodewick::config::memory::{Human, cgroup_limit};
use nodewick::config::resolved::Setting;
use nodewick::config::{self, Diagnostics, Loaded, Sources, load, render};
use nodewick::{agent, demo, supervise, tail, telemetry, ui, version};

/// Exit code for a config that cannot be used (`EX_CONFIG` of sysexits.h).
const BAD_CONFIG: u8 = 78;

/// What the first screen says of the verbs that it does not list.
const MORE: &str = "\
More verbs (`nodewick <verb> --help`):
  status       The running agent in some lines; exit 0 ok, 1 degraded, 2 down
  exec         Run a command and ship what it prints, as in a sidecar or a cron job
  test         Run unit tests of processing rules
  alerts       Render alerts about the agent and workloads, their tests and runbooks
  slo          Objectives: lint, render, simulate, import, suggest, backtest
  dashboards   Grafana dashboards and provisioning: render
  config       Show the effective config, its JSON schema, or write a first one
  migrate      Translate a Promtail or Fluent Bit config
  support      Collect one archive for those who help: `support bundle`
  completions  Print a completion script for bash, zsh or fish
  man          Print the manual page
  version      Print version, revision and compiler";

/// One telemetry agent per Kubernetes node: ships pod logs to Loki and OTLP without losing a line.
#[derive(Debug, Parser)]
#[command(name = "nodewick", version = version::text(), disable_help_subcommand = true, args_conflicts_with_subcommands = true, after_help = MORE)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// `nodewick -c FILE` is `nodewick run -c FILE`.
    #[command(flatten)]
    run: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Follow the node's logs and ship them (the default).
    Run(exec::RunArgs),
    /// Run a command and ship what it prints.
    #[command(hide = true)]
    Exec(exec::ExecArgs),
    /// Show the agent at work on a make-believe node: no cluster, no backend.
    Demo(demo::Args),
    /// Show the local store's logs for people: levels, messages, traces.
    Tail(tail::Args),
    /// Validate the config; print its values, where each is from, and the memory bound.
    Check(CheckArgs),
    /// The running agent, live: streams, services, objectives, targets, sinks.
    Top(top::TopArgs),
    /// Take log lines through every stage and say what happens to them, and why.
    Explain(explain::Args),
    /// Show the effective config, its JSON schema, or write a first one.
    #[command(subcommand, hide = true)]
    Config(config_verbs::Verb),
    /// Run unit tests of processing rules.
    #[command(hide = true)]
    Test(test::Args),
    /// Alerts about the agent and about what workloads log: render rules, their unit tests and runbooks.
    #[command(subcommand, hide = true)]
    Alerts(alerts::Verb),
    /// Objectives: check and render them, simulate a fault, import, suggest, backtest.
    #[command(subcommand, hide = true)]
    Slo(slo::Verb),
    /// Grafana dashboards.
    #[command(subcommand, hide = true)]
    Dashboards(dashboards::Verb),
    /// Translate another agent's config; exit code 3 when something could not be translated.
    #[command(subcommand, hide = true)]
    Migrate(migrate::Verb),
    /// Print a completion script for a shell.
    #[command(hide = true)]
    Completions(shell::Args),
    /// Print the manual page (roff): `nodewick man | man -l -`.
    #[command(hide = true)]
    Man(shell::ManArgs),
    /// What is wrong with this installation, and how to mend it.
    Doctor(doctor::DoctorArgs),
    /// Where are the logs of a pod or file? Found, read, sent, dropped, and why.
    Why(why::WhyArgs),
    /// The running agent on one screen; exit 0 ok, 1 degraded, 2 down.
    #[command(hide = true)]
    Status(doctor::StatusArgs),
    /// For those who help: `support bundle`.
    #[command(subcommand, hide = true)]
    Support(doctor::Support),
    /// Print version, revision and compiler.
    #[command(hide = true)]
    Version,
}

/// Where the config comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// Config file; default /etc/nodewick/agent.toml if it exists, else the built-in defaults.
    #[arg(short, long, value_name = "FILE", env = "NODEWICK_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Set one key, over file and environment: --set agent.cluster=prod.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Look at the config only, not at this machine's directories and limits.
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the verb; the answer is the process's exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let default = || Verb::Run(exec::RunArgs { config: cli.run, ..exec::RunArgs::default() });
    let result = match cli.verb.unwrap_or_else(default) {
        Verb::Run(args) if args.stdin => exec::stdin(&args),
        Verb::Run(args) if args.logs.is_some() => laptop::run(&args),
        Verb::Run(args) => run(&args),
        Verb::Exec(args) => exec::exec(&args),
        Verb::Demo(args) => demo(&args),
        Verb::Tail(args) => tail(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Check(args) => check(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Config(verb) => config_verbs::run(&verb),
        Verb::Test(args) => test::run(&args),
        Verb::Alerts(verb) => alerts::run(&verb),
        Verb::Slo(verb) => slo::run(&verb),
        Verb::Dashboards(verb) => dashboards::run(&verb),
        Verb::Migrate(verb) => migrate::run(&verb),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Why(args) => why::why(&args),
        Verb::Status(args) => doctor::status(&args),
        Verb::Support(verb) => doctor::support(&verb),
        Verb::Version => print(&format!("nodewick {}\n", version::text())),
    };
    match result {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Diagnostics>() {
            Some(bad) => {
                eprintln!("{bad}");
                ExitCode::from(BAD_CONFIG)
            }
            None => {
                eprintln!("nodewick: error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

impl ConfigArgs {
    /// Loads the config; a bad one is a [`Diagnostics`].
    fn load(&self) -> anyhow::Result<Loaded> {
        Ok(self.origin().load()?)
    }

    /// Where the config comes from, now and at every reload.
    fn origin(&self) -> Origin {
        let file =
            self.config.clone().filter(|path| !path.as_os_str().is_empty()).or_else(load::default_file);
        Origin::new(file, self.set.clone())
    }
}

fn run(args: &exec::RunArgs) -> anyhow::Result<ExitCode> {
    let origin = args.config.origin();
    let loaded = origin.load()?;
    // Before the first thread: each thread has its own fetters, and gives them to those that it starts.
    let hardening = harden::apply(&loaded, origin.file());
    let _telemetry = telemetry::init(&loaded.config.telemetry)?;
    hardening.tell();
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, problem = warning.message, help = warning.help, "config");
    }
    let runtime = agent::runtime(&loaded.config).context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        let reloads = Reloads::of(origin, &loaded, hardening.sandbox().cloned())?;
        agent::run(loaded.config, reloads).await
    });
    // Threads that missed the deadline are not waited for.
    runtime.shutdown_background();
    let outcome = match outcome {
        Err(error) if error.is_config() => {
            eprintln!("nodewick: error: {error}");
            return Ok(ExitCode::from(BAD_CONFIG));
        }
        outcome => outcome?,
    };
    if !outcome.aborted.is_empty() {
        anyhow::bail!(
            "{} did not end in time and was aborted; nothing acknowledged is lost",
            outcome.aborted.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Set when the process is asked to end by a signal.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::<AtomicBool>::default();
    let set = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if let Ok(asked) = supervise::asked_to_end().await {
                asked.await;
                set.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(flag)
}

fn demo(args: &demo::Args) -> anyhow::Result<ExitCode> {
    // The agent's own words would stand between the lines of its logs: warnings only.
    // What the evaluator says of alerts is shown in full, as whoever is on call would get it.
    let log = "warn,nodewick::agent::evaluator=error".into();
    let quiet = telemetry::Config { log, ..telemetry::Config::default() };
    let _telemetry = telemetry::init(&quiet)?;
    let interrupted = interrupted()?;
    type Failure = Box<dyn std::error::Error + Send + Sync>;
    let start = |site: &demo::Site, extras: ui::Extras| -> Result<demo::Started, Failure> {
        let file = site.dir.join("agent.toml");
        let sources = Sources::of_process(Some(&file), vec!["admin.listen=off".into()])?;
        let agent = agent::start_with(config::load(&sources)?.config, extras)?;
        let objectives = agent.objectives();
        Ok(demo::Started {
            page: agent.ui_address(),
            objectives: Some(Box::new(objectives)),
            stop: Box::new(move || {
                if let Err(error) = agent.stop() {
                    tracing::error!(%error, "the agent ended with an error");
                }
            }),
        })
    };
    let (mut out, mut notices) = (std::io::stdout().lock(), std::io::stderr());
    let counts = demo::run(args, tail::Style::of_stdout(), start, &interrupted, &mut out, &mut notices)?;
    Ok(if counts.lost() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tail(args: &tail::Args) -> anyhow::Result<ExitCode> {
    let from = tail_from(args)?;
    let stop = interrupted()?;
    let on_terminal = std::io::stdout().is_terminal();
    let (mut out, mut notices) = (std::io::stdout().lock(), std::io::stderr());
    let style = tail::Style::of_stdout();
    let found = match from {
        Lines::Store(dir) => {
            tail::run(args, &dir, style, on_terminal, &mut out, &mut notices, &stop)?;
            true
        }
        Lines::Agent(agent) => {
            tail::remote::run(args, &agent, style, on_terminal, &mut out, &mut notices, &stop)?
        }
    };
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where `tail` has its lines from.
enum Lines {
    Store(PathBuf),
    Agent(tail::Remote),
}

/// The place that is named; else the store of the config if there is one, else the agent on this machine if it answers.
fn tail_from(args: &tail::Args) -> anyhow::Result<Lines> {
    let token = args.token_file.as_deref();
    if let Some(url) = &args.url {
        return Ok(Lines::Agent(tail::Remote::new(url, token)?));
    }
    if let Some(dir) = &args.dir {
        return Ok(Lines::Store(tail::find_store(dir)));
    }
    let store = || -> anyhow::Result<PathBuf> {
        let config = ConfigArgs { config: args.config.clone(), set: Vec::new() }.load()?.config;
        let stores = config.sink.stores();
        let (name, store) = stores
            .first()
            .context("the config has no local store; add [sink.local.main], or name one with --dir")?;
        Ok(store.directory(name, &config.agent.state_dir))
    };
    if args.config.is_some() {
        return Ok(Lines::Store(store()?));
    }
    let asks_agent = args.search || token.is_some();
    let missing = match store() {
        Ok(dir) if dir.is_dir() && !asks_agent => return Ok(Lines::Store(dir)),
        Ok(dir) => dir.display().to_string(),
        Err(error) => format!("{error:#}"),
    };
    let agent = tail::Remote::new(&format!("http://{}", nodewick::ui::config::DEFAULT), token)?;
    if asks_agent || agent.answers() {
        return Ok(Lines::Agent(agent));
    }
    Err(tail::Error::Neither { store: missing, url: agent.url() }.into())
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            if args.output == Output::Json
                && let Some(bad) = error.downcast_ref::<Diagnostics>()
            {
                let errors: Vec<_> = bad.0.iter().map(diagnostic_json).collect();
                let text = serde_json::to_string_pretty(&serde_json::json!({"ok": false, "errors": errors}))?;
                print(&format!("{text}\n"))?;
                return Ok(ExitCode::from(BAD_CONFIG));
            }
            return Err(error);
        }
    };
    let limit = if args.offline { None } else { cgroup_limit() };
    let mut notices = Vec::new();
    if let Some(memory) = loaded.config.fit(limit) {
        notices.push(format!(
            "[agent] memory is lowered to {memory}, so that all fits the container's memory limit"
        ));
    }
    let bound = loaded.config.memory_bound();
    let fits = bound.fits(limit);
    if !args.offline {
        if loaded.config.logs.reads_pods() {
            notices.extend(agent::logs_root_problem(&loaded.config.logs.root));
        }
        if !loaded.config.agent.state_dir.is_dir() {
            notices.push(format!(
                "{} does not exist yet; `run` makes it",
                loaded.config.agent.state_dir.display()
            ));
        }
    }
    match args.output {
        Output::Text => {
            print(&check_text(&loaded, limit)?)?;
            for warning in &loaded.warnings {
                eprintln!("{warning}");
            }
            for notice in notices {
                eprintln!("warning: {notice}");
            }
        }
        Output::Json => {
            print(&check_json(&loaded, limit, &notices)?)?;
        }
    }
    if let Err(error) = fits {
        eprintln!("nodewick: error: {error}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The resolved config as TOML with origins, then sinks and the memory bound.
fn check_text(loaded: &Loaded, limit: Option<u64>) -> anyhow::Result<String> {
    let mut out = String::from("# resolved config\n");
    let mut table = String::new();
    // What is not set has nothing to show; the reference lists it.
    let is_shown = |setting: &Setting| setting.key.is_empty() || !setting.value.is_null();
    for setting in loaded.resolved().into_iter().filter(is_shown) {
        if setting.table != table {
            writeln!(
                out,
                "\n[{}]{}",
                setting.table,
                if setting.key.is_empty() { origin(&setting.origin) } else { String::new() }
            )?;
            table.clone_from(&setting.table);
        }
        if setting.key.is_empty() {
            continue;
        }
        writeln!(out, "{} = {}{}", setting.key, render::toml_value(&setting.value), origin(&setting.origin))?;
    }
    writeln!(out, "\n# sinks")?;
    for sink in sinks(loaded) {
        writeln!(out, "# {sink}")?;
    }
    writeln!(out, "\n# memory bound")?;
    let bound = loaded.config.memory_bound();
    for line in bound.to_string().lines() {
        writeln!(out, "# {line}")?;
    }
    match limit {
        Some(limit) => writeln!(out, "# the container's limit is {}", Human(limit))?,
        None => writeln!(out, "# no container limit was found to hold it against")?,
    }
    Ok(out)
}

fn origin(origin: &Option<String>) -> String {
    origin.as_ref().map(|origin| format!("  # {origin}")).unwrap_or_default()
}

/// One line a sink: kind, name, where it sends.
fn sinks(loaded: &Loaded) -> Vec<String> {
    let settings = loaded.resolved();
    let target = |table: &str| {
        settings
            .iter()
            .find(|setting| setting.table == table && matches!(setting.key.as_str(), "url" | "endpoint"))
            .and_then(|setting| setting.value.as_str())
            .map(|url| format!(" → {url}"))
            .unwrap_or_default()
    };
    let sink = &loaded.config.sink;
    let names = sink.loki.keys().map(|name| ("loki", name));
    let names = names.chain(sink.otlp.keys().map(|name| ("otlp", name)));
    let names = names.chain(sink.stdout.keys().map(|name| ("stdout", name)));
    let names = names.chain(sink.local.keys().map(|name| ("local", name)));
    names.map(|(kind, name)| format!("{kind} {name}{}", target(&format!("sink.{kind}.{name}")))).collect()
}

fn check_json(loaded: &Loaded, limit: Option<u64>, notices: &[String]) -> anyhow::Result<String> {
    let mut tables = serde_json::Map::new();
    let mut origins = serde_json::Map::new();
    for setting in loaded.resolved() {
        let table = tables.entry(setting.table.clone()).or_insert_with(|| serde_json::json!({}));
        if setting.key.is_empty() {
            continue;
        }
        if let Some(origin) = setting.origin {
            origins.insert(format!("{}.{}", setting.table, setting.key), origin.into());
        }
        table[&setting.key] = setting.value;
    }
    let bound = loaded.config.memory_bound();
    let terms: Vec<_> =
        bound.terms.iter().map(|(name, bytes)| serde_json::json!({"name": name, "bytes": bytes})).collect();
    let fits = bound.fits(limit).is_ok();
    let answer = serde_json::json!({
        "ok": fits,
        "config": tables,
        "origins": origins,
        "sinks": sinks(loaded),
        "memory_bound": {"total_bytes": bound.total(), "limit_bytes": limit, "fits": fits, "terms": terms},
        "warnings": loaded.warnings.iter().map(diagnostic_json).collect::<Vec<_>>(),
        "notices": notices,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&answer)?))
}

fn diagnostic_json(diagnostic: &config::Diagnostic) -> serde_json::Value {
    use config::diagnostics::Spot;
    let mut json =
        serde_json::json!({"key": diagnostic.key, "message": diagnostic.message, "help": diagnostic.help});
    match &diagnostic.spot {
        Spot::Source { file, line, column, .. } => {
            json["file"] = file.as_str().into();
            json["line"] = (*line).into();
            json["column"] = (*column).into();
        }
        Spot::File(name) => json["file"] = name.as_str().into(),
        Spot::Env(name) => json["env"] = name.as_str().into(),
        Spot::Flag(flag) => json["flag"] = flag.as_str().into(),
        Spot::Nowhere => {}
    }
    json
}

/// Data to stdout; a reader that went away is no failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
