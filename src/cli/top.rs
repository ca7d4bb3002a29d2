//! `nodewick top`: the running agent, live.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use nodewick::data::units::Span;
use nodewick::overview::Level;
use nodewick::tail::Style;
use nodewick::top::{self, Options, Source, View};
use tokio::signal::unix::{SignalKind, signal};

use super::doctor::Place;
use super::interrupted;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    place: Place,
    /// The running agent's listener: http://HOST:PORT; a port that kubectl forwards will do.
    #[arg(long, value_name = "URL", conflicts_with = "address")]
    url: Option<String>,
    /// Print one picture as text and end: exit 0 ok, 1 degraded, 2 down. So too when stdout is no terminal.
    #[arg(long)]
    once: bool,
    /// The view that is shown first.
    #[arg(long, value_enum, default_value = "streams")]
    view: ViewName,
    /// Its order: rate, lag, loss …; `s` goes through them.
    #[arg(long, value_name = "NAME")]
    sort: Option<String>,
    /// Show rows with this in them.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Time between two pictures.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Span,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ViewName {
    Streams,
    Services,
    Objectives,
    Targets,
    Sinks,
    Issues,
}

/// Sets `stop` too when the terminal goes away: what is left of it must not stay in another mode.
fn when_hung_up(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            if let Ok(mut hung_up) = signal(SignalKind::hangup()) {
                hung_up.recv().await;
                stop.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

pub(super) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let source = match &args.url {
        Some(url) => Source::of_url(url).map_err(anyhow::Error::msg)?,
        None => Source::new(args.place.client()?.address()),
    };
    let view = View::ALL[args.view as usize];
    if let Some(sort) = &args.sort
        && !view.sorts().contains(&sort.as_str())
    {
        anyhow::bail!("{} are sorted by {}, not by {sort:?}", view.name(), view.sorts().join(", "));
    }
    let options = Options {
        interval: args.interval.0.clamp(Duration::from_millis(200), Duration::from_secs(60)),
        colour: Style::of_stdout().colour,
        view,
        sort: args.sort.clone(),
        filter: args.filter.clone(),
    };
    if !args.once && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        let stop = interrupted()?;
        when_hung_up(Arc::clone(&stop))?;
        top::run(&source, &options, &stop)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match top::once(&source, &options, &mut std::io::stdout().lock()) {
        Ok(Level::Ok | Level::Notice) => ExitCode::SUCCESS,
        Ok(Level::Degraded) => ExitCode::from(1),
        Ok(Level::Down) => ExitCode::from(2),
        Err(top::Error::Out(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ top::Error::Silent { .. }) => {
            eprintln!("nodewick: error: {error}");
            ExitCode::from(2)
        }
        Err(error) => return Err(error.into()),
    })
}
