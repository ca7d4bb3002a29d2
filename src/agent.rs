//! Wiring: a [`Config`] becomes running parts.
//!
//! In: a loaded config. Out: the end of the process, or of an [`Agent`] inside one. What can be refused at the start is
//! refused here, before anything runs: a memory bound that the container does not grant, a port in use, a sink whose
//! credentials cannot be used. A state directory that cannot be written is not one of them: the agent runs degraded
//! and not ready, and says so.
//!
//! The order of the end: reading stops, the sinks' entrances drop, the sinks run dry, the last checkpoint is written.
//!
//! Listener, health and the state directory's lock live as long as the process, the watch of the node's pods as long as
//! configs say the same of it ([`node_pods`]). Everything else is the [`Pipeline`], which a new config ends in that same
//! order and starts again ([`reload`]).

mod evaluator;
pub mod harden;
pub mod keys;
mod lines;
mod metrics;
mod node_pods;
mod objectives;
pub mod reload;
mod ui;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Admin, BindError};
use crate::config::memory::{TooLarge, cgroup_limit};
use crate::config::{self, Config, local};
use crate::data::account;
use crate::data::budget::{Budget, Signal};
use crate::data::clock;
use crate::data::delivery::{Fanout, Outlet};
use crate::data::pods::{Pods, Reader};
use crate::data::sample::Collect;
use crate::data::workload::{Identify, PathIdentity};
use crate::health::Health;
use crate::logs::driver::{Driver, StateDir};
use crate::logs::ingest::Settings;
use crate::logs::multiline::Rules;
use crate::logs::process::Chain;
use crate::logs::registry::Registry;
use crate::logs::{self, Legacy, process};
use crate::metrics as figures;
use crate::red::Summary;
use crate::scrape::status::Board;
use crate::sink::pull::Workloads;
use crate::sink::{alertmanager, loki, otlp, remote_write, said, stdout};
use crate::supervise::{self, Deadlines, Failure, Outcome, Supervisor};

use node_pods::NodePods;
use reload::Reloads;
use watch::watch;
pub use watch::{logs_root_problem, state_dir_problem};

/// The agent cannot start, or ended by a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container grants less memory than the config may need.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// The config names an address that is none.
    #[error("[admin] listen: {0}")]
    Listen(String),
    /// The machines' listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The people's listener cannot be opened.
    #[error(transparent)]
    Ui(#[from] crate::ui::config::BindError),
    /// The processing rules cannot be used.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A source of log files cannot be used.
    #[error("[logs.files] {0}")]
    Files(String),
    /// A sink cannot be used as configured.
    #[error("[sink.{kind}.{name}] {source}")]
    Sink {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An Alertmanager cannot be used as configured.
    #[error("[alertmanager.{name}] {source}")]
    Alertmanager {
        /// Its name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is to be scraped cannot be.
    #[error("[scrape] {0}")]
    Scrape(String),
    /// The system refuses a thread, a runtime or signals.
    #[error("the system refuses what the agent needs to run: {0}")]
    System(#[from] std::io::Error),
    /// A task ended in a way that ends the process.
    #[error(transparent)]
    Task(#[from] Failure),
}

impl Error {
    /// True when the config is to blame.
    pub fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Listen(_)
                | Self::Ui(crate::ui::config::BindError::Config(_))
                | Self::Process(_)
                | Self::Files(_)
                | Self::Scrape(_)
                | Self::Sink { .. }
                | Self::Alertmanager { .. }
        )
    }
}

/// How often the state directory's lock is tried while another agent holds it.
const LOCK_RETRY: Duration = Duration::from_millis(250);

/// How long the end of a pipeline may take that makes room for a new one. Backends that answer let it end within
/// milliseconds. A request that is cut off is sent again, which stores a line twice in a backend that has taken it
/// and does not compare, so the one that is slow gets time; reading rests meanwhile.
const HAND_OVER: Deadlines = Deadlines { flush: Duration::from_secs(10), exit: Duration::from_secs(12) };

/// The logs that are followed, once there are any; others after a reload.
pub type Known = Arc<ArcSwapOption<Registry>>;

/// An agent in a thread of its own, for a process that does more than run it.
pub struct Agent {
    stop: Option<oneshot::Sender<()>>,
    ui_address: Option<SocketAddr>,
    registry: Known,
    slos: Arc<evaluator::Slos>,
    board: Board,
    thread: Option<std::thread::JoinHandle<Result<Outcome, Error>>>,
}

/// Starts an agent beside whatever else the process does. It has a page for people only where the config names its address.
pub fn start(config: Config) -> Result<Agent, Error> {
    let people = ui::People::bind(&config, None)?;
    start_for(config, people)
}

/// The same with a page for people, to which the owner adds something.
pub fn start_with(config: Config, extras: crate::ui::Extras) -> Result<Agent, Error> {
    let people = ui::People::bind(&config, Some(extras))?;
    start_for(config, people)
}

fn start_for(config: Config, people: ui::People) -> Result<Agent, Error> {
    let ui_address = people.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = runtime(&config)?;
    let lasting = Lasting::new(Known::default());
    let (registry, slos) = (Arc::clone(&lasting.registry), Arc::clone(&lasting.slos));
    let board = lasting.board.clone();
    let thread = std::thread::Builder::new().name("agent".into()).spawn(move || {
        let asked = async {
            let _ = stopped.await;
            "asked by its owner"
        };
        let outcome = runtime.block_on(run_known(config, Reloads::none(), lasting, people, asked));
        runtime.shutdown_background();
        outcome
    })?;
    Ok(Agent { stop: Some(stop), ui_address, registry, slos, board, thread: Some(thread) })
}

impl Agent {
    /// Where the logs that it follows will be known, once it reads.
    pub fn registry(&self) -> Known {
        Arc::clone(&self.registry)
    }

    /// How its objectives stand, and their alerts, at any time.
    pub fn objectives(&self) -> impl Fn() -> Arc<crate::slo::eval::Report> + Send + Sync + use<> {
        let slos = Arc::clone(&self.slos);
        move || slos.report()
    }

    /// What became of its targets, as the page `/targets` has it.
    pub fn targets(&self) -> String {
        self.board.page(clock::unix_ms())
    }

    /// Where its page for people is, with the real port; `None` where it has none.
    pub fn ui_address(&self) -> Option<SocketAddr> {
        self.ui_address
    }

    /// True when it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// Drains the agent and waits for its end.
    pub fn stop(mut self) -> Result<Outcome, Error> {
        self.stop.take();
        let thread = self.thread.take().expect("an agent is stopped once");
        thread.join().unwrap_or_else(|_| Err(Error::Task(Failure::Panicked("agent".into()))))
    }
}

/// The async runtime that the sinks and listeners need. Encoding is their only heavy work: one thread does it for a
/// million lines a second and more, and a second one would only add wake-ups where a single sink is served.
pub fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    let threads =
        (config.sink.loki.len() + config.sink.otlp.len() + config.sink.remote_write.len()).clamp(1, 2);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("sinks")
        .enable_all()
        .build()
}

/// Runs the agent until the process is asked to end. `reloads` gives the configs that take the place of `config`.
pub async fn run(config: Config, reloads: Reloads) -> Result<Outcome, Error> {
    let asked = supervise::asked_to_end().await?;
    run_until(config, reloads, asked).await
}

/// What outlives a pipeline.
struct Lasting {
    health: Health,
    /// The logs that are being followed, for the page `/ledger`.
    registry: Known,
    /// The watch of the node's pods, while one is wanted.
    node_pods: NodePods,
    /// What is known of all series, between two pipelines.
    series: metrics::Kept,
    /// What became of targets, for the page `/targets`.
    board: Board,
    /// The last samples of every source, for the page `/metrics/workloads`.
    workloads: Arc<Workloads>,
    /// How objectives stand, for the page `/slos`.
    slos: Arc<evaluator::Slos>,
    /// What people are shown of RED.
    red: Arc<ArcSwap<Summary>>,
    /// The config that runs, where there is a page that explains lines by it.
    current: Option<Arc<ArcSwap<Config>>>,
    /// What people see of lines, where there is a page for people.
    lines: Option<lines::Lines>,
}

impl Lasting {
    fn new(registry: Known) -> Self {
        let health = Health::new();
        Self {
            node_pods: NodePods::new(health.clone()),
            health,
            registry,
            series: metrics::Kept::default(),
            board: Board::default(),
            workloads: Arc::default(),
            slos: Arc::default(),
            red: Arc::default(),
            current: None,
            lines: None,
        }
    }
}

/// Why a pipeline is to end.
enum Turn {
    /// The process is asked to end, for this reason.
    End(&'static str),
    /// This config is to take the place of the running one.
    Reload(Box<Config>),
}

/// Runs the agent until `asked` resolves, to the reason.
pub async fn run_until(
    config: Config,
    reloads: Reloads,
    asked: impl Future<Output = &'static str>,
) -> Result<Outcome, Error> {
    let mut fitted = config.clone();
    let _ = fitted.fit(cgroup_limit());
    let people = ui::People::bind(&fitted, ui::in_run(&fitted))?;
    run_known(config, reloads, Lasting::new(Known::default()), people, asked).await
}

/// The same; what outlives pipelines is in `lasting`, where others look at it.
async fn run_known(
    mut config: Config,
    mut reloads: Reloads,
    mut lasting: Lasting,
    people: ui::People,
    asked: impl Future<Output = &'static str>,
) -> Result<Outcome, Error> {
    let limit = cgroup_limit();
    figures::MEMORY_LIMIT_BYTES.set(limit.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
    if let Some(memory) = config.fit(limit) {
        info!(%memory, "[agent] memory is lowered, so that all that is configured fits the container's memory limit");
    }
    config.memory_bound().fits(limit)?;
    compile(&config)?;
    let mut attendants = Supervisor::new();
    lasting.lines = people.address().map(|_| lines::Lines::new(&config));
    let observer = ui::observer(&config, &lasting);
    // Before anyone can ask: not ready until they have been looked at.
    for name in ["state_dir", "logs_root"] {
        lasting.health.check(name);
    }
    if let Some(address) = config.admin.address().map_err(Error::Listen)? {
        let admin = Admin::bind(address).await?;
        info!(address = %admin.address(), "listening for machines: metrics and health");
        let (health, registry) = (lasting.health.clone(), Arc::clone(&lasting.registry));
        // Until logs are read there is no account to show.
        let page = move |worst| {
            registry.load().as_ref().map_or_else(|| "[]".to_owned(), |all| ledger_page(all, worst))
        };
        let sinks = || serde_json::to_string(&said::all()).expect("texts and numbers");
        let board = lasting.board.clone();
        let targets = move || board.page(clock::unix_ms());
        let mut admin = admin
            .with_ledger(Arc::new(page))
            .with_sinks(Arc::new(sinks))
            .with_page("/targets", Arc::new(targets))
            .with_page("/overview", {
                let observer = observer.clone();
                Arc::new(move || serde_json::to_string(&*observer.observe()).unwrap_or_default())
            })
            .with_page("/slos", {
                let slos = Arc::clone(&lasting.slos);
                Arc::new(move || slos.page())
            });
        if config.admin.keeps_workloads(config.sink.takes_metrics()) {
            let workloads = Arc::clone(&lasting.workloads);
            admin = admin.with_workloads(Arc::new(move |open_metrics| workloads.render(open_metrics)));
        }
        attendants.attend("admin", |leave| admin.serve(health, leave));
    }
    people.attend(&config, observer, &mut lasting, &mut attendants);
    tokio::pin!(asked);
    let state = tokio::select! {
        state = lock_state(&config.agent.state_dir, &lasting.health) => state,
        _ = &mut asked => return Ok(Outcome { flushed: true, aborted: Vec::new() }),
    };
    reloads.report_to(&lasting.health);
    let pods = lasting.node_pods.follow(&config).await?;
    let mut pipeline = Pipeline::start(&config, pods, Legacy { state, marks: None }, &mut lasting, false)?;
    let outcome = loop {
        let turn = pipeline.supervisor.until(async {
            tokio::select! {
                reason = &mut asked => Ok(Turn::End(reason)),
                next = reloads.next(&config) => Ok(Turn::Reload(next)),
                Err(failure) = attendants.until(std::future::pending::<Infallible>()) => Err(failure),
                failure = lasting.node_pods.failure() => Err(failure),
            }
        });
        match turn.await.and_then(|turn| turn) {
            Ok(Turn::End(reason)) => {
                info!(reason, "stopping: no more is read, what was read is flushed");
                break pipeline.end(Deadlines::default(), &mut lasting).await.0;
            }
            Ok(Turn::Reload(next)) => {
                let begun = Instant::now();
                info!("a new config: what was read is flushed, then reading goes on with it");
                let (outcome, legacy) = pipeline.end(HAND_OVER, &mut lasting).await;
                if outcome.is_err() || (&mut asked).now_or_never().is_some() {
                    break outcome;
                }
                (config, pipeline) = replace(config, *next, legacy, &mut lasting, &mut reloads).await?;
                info!(took = ?begun.elapsed(), "reading goes on");
            }
            Err(failure) => {
                // The failure that came first says most; the drain's outcome cannot mend it.
                let _ = pipeline.end(Deadlines::default(), &mut lasting).await;
                break Err(failure);
            }
        }
    };
    let watched = lasting.node_pods.end().await;
    if let Some(lines) = &lasting.lines {
        lines.end();
    }
    // The listener leaves last, so that the end can be watched.
    let attended = attendants.end(Deadlines::default()).await;
    let mut outcome = outcome?;
    outcome.aborted.extend(watched?.aborted);
    outcome.aborted.extend(attended?.aborted);
    Ok(outcome)
}

/// Starts `next` where the pipeline of `config` has ended; when it does not start, `config` again.
async fn replace(
    config: Config,
    next: Config,
    legacy: Option<Legacy>,
    lasting: &mut Lasting,
    reloads: &mut Reloads,
) -> Result<(Config, Pipeline), Error> {
    let path = config.agent.state_dir.clone();
    let legacy = match legacy {
        Some(legacy) => legacy,
        None => Legacy { state: lock_state(&path, &lasting.health).await, marks: None },
    };
    let marks = legacy.marks.clone();
    let pods = lasting.node_pods.follow(&next).await?;
    match Pipeline::start(&next, pods, legacy, lasting, true) {
        Ok(pipeline) => {
            forget_sinks(&config, &next);
            reloads.applied();
            Ok((next, pipeline))
        }
        Err(error) => {
            reloads.refused(&error.to_string());
            let state = lock_state(&path, &lasting.health).await;
            let pods = lasting.node_pods.follow(&config).await?;
            let pipeline = Pipeline::start(&config, pods, Legacy { state, marks }, lasting, true)?;
            Ok((config, pipeline))
        }
    }
}

/// What the config says in languages of its own.
fn compile(config: &Config) -> Result<(Chain, Rules), Error> {
    Ok((Chain::compile(&config.process)?, Rules::compile(&config.logs.multiline)?))
}

/// From log files to backends, by one config.
struct Pipeline {
    supervisor: Supervisor,
    driver: Arc<Mutex<Driver>>,
    metrics: metrics::Metrics,
}

impl Pipeline {
    /// Starts sinks and reading; logs are of `pods` where there are any. `again` when an earlier pipeline of this
    /// process has ended: then what was ready stays ready until there is something to say against it.
    fn start(
        config: &Config,
        pods: Option<Pods>,
        legacy: Legacy,
        lasting: &mut Lasting,
        again: bool,
    ) -> Result<Self, Error> {
        let (chain, multiline) = compile(config)?;
        lasting.current.iter().for_each(|current| current.store(Arc::new(config.clone())));
        let mut supervisor = Supervisor::new();
        let mut outlets = start_sinks(config, &mut supervisor)?;
        outlets.extend(lasting.lines.as_ref().map(|lines| lines.outlet(config)));
        let mut samples = start_sinks_of_samples(config, &mut supervisor)?;
        if config.admin.keeps_workloads(config.sink.takes_metrics()) {
            samples.push(lasting.workloads.collector());
        }
        let evaluator = start_evaluator(config, lasting, &mut supervisor)?;
        let quiet = CancellationToken::new();
        let start = metrics::Start {
            config,
            pods: pods.clone(),
            sinks: samples,
            evaluator,
            kept: std::mem::take(&mut lasting.series),
            board: lasting.board.clone(),
            health: lasting.health.clone(),
            reading_ended: quiet.clone(),
            registry: Arc::clone(&lasting.registry),
            shown: Arc::clone(&lasting.red),
            has_page: lasting.lines.is_some(),
        };
        let (metrics, tap) = metrics::Metrics::start(start, &mut supervisor)?;
        let settings = Settings::new(config.record.fields.0, chain, config.logs.max_line.as_usize())
            .with_multiline(multiline);
        let signal = Arc::<Signal>::default();
        let budget = Budget::new(config.agent.memory.0, Arc::clone(&signal));
        let paths = PathIdentity {
            cluster: config.agent.cluster.clone(),
            node: config.agent.node.clone(),
            environment: Some(config.agent.environment.clone()).filter(|name| !name.is_empty()),
        };
        let (ended, reading_ended) = oneshot::channel::<()>();
        let sources = Arc::new(config.logs.sources().map_err(|error| Error::Files(error.to_string()))?);
        let config::Agent { cluster, node, environment, .. } = &config.agent;
        // Who says what a log is: the node's pods where Kubernetes is asked for them, else the path alone.
        let searched_pods = pods.clone();
        let said: Box<dyn Identify> = match pods {
            Some(pods) => Box::new(Reader::new(pods, paths, config.kube.wait.0)),
            None => Box::new(paths),
        };
        let identity = logs::files::Identity::new(said, Arc::clone(&sources), cluster, node, environment);
        let searched = lines::Searched { pods: searched_pods, sources: Arc::clone(&sources) };
        let driver = logs::spawn(
            &config.logs,
            settings,
            Box::new(identity),
            Fanout::new(outlets),
            budget,
            signal,
            sources,
            legacy,
            tap,
            move || drop(ended),
        )?;
        if let Some(lines) = &lasting.lines {
            lines.search_in(config, searched, &driver);
        }
        let (status, registry) = (Arc::clone(&driver.status), Arc::clone(&driver.registry));
        lasting.registry.store(Some(Arc::clone(&registry)));
        let driver = Arc::new(Mutex::new(driver));
        let (stop, reader) = (supervisor.stop(), Arc::clone(&driver));
        supervisor.spawn("logs", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = reading_ended => return Err("the thread that reads logs has ended; this is a bug in nodewick"),
            }
            // The thread ends within one step; its sinks' entrances drop with it.
            tokio::task::block_in_place(|| reader.lock().stop_reading());
            quiet.cancel();
            Ok(())
        });
        let watch = watch(config.clone(), status, registry, lasting.health.clone(), again);
        supervisor.attend("health", |leave| async move {
            tokio::select! {
                () = leave.cancelled() => {}
                () = watch => {}
            }
            Ok::<_, Infallible>(())
        });
        Ok(Self { supervisor, driver, metrics })
    }

    /// Stops reading, lets the sinks run dry and saves what is acknowledged, whatever happened; what is left for the
    /// next one.
    async fn end(
        self,
        deadlines: Deadlines,
        lasting: &mut Lasting,
    ) -> (Result<Outcome, Failure>, Option<Legacy>) {
        if let Some(lines) = &lasting.lines {
            lines.rest();
        }
        let outcome = self.supervisor.end(deadlines).await;
        lasting.series = self.metrics.end();
        let mut driver = self.driver.lock();
        driver.stop_reading();
        let legacy = driver.stop_checkpoints();
        (outcome, legacy)
    }
}

/// Takes the series of sinks that are no more off the metrics page.
fn forget_sinks(before: &Config, after: &Config) {
    let labels = |config: &Config| {
        let sink = &config.sink;
        let loki = sink.loki.keys().map(|name| format!("loki.{name}"));
        let otlp = sink.otlp.keys().map(|name| format!("otlp.{name}"));
        let samples = sink.otlp.keys().map(|name| format!("otlp.{name}.metrics"));
        let remote = sink.remote_write.keys().map(|name| format!("remote_write.{name}"));
        let stdout = sink.stdout.keys().map(|name| format!("stdout.{name}"));
        let local = sink.stores().into_iter().map(|(name, _)| format!("local.{name}")).collect::<Vec<_>>();
        loki.chain(otlp).chain(samples).chain(remote).chain(stdout).chain(local).collect::<Vec<_>>()
    };
    for name in before.alertmanager.keys().filter(|name| !after.alertmanager.contains_key(*name)) {
        let _ = figures::ALERTMANAGER_UP.remove_label_values(&[&format!("alertmanager.{name}")]);
    }
    let still = labels(after);
    for label in labels(before).iter().filter(|label| !still.contains(label)) {
        let gauges = [
            &figures::SINK_UP,
            &figures::SINK_QUEUE_BYTES,
            &figures::SINK_SAMPLES_QUEUE_BYTES,
            &figures::SINK_BUFFER_AGE,
            &figures::SINK_SHARDS,
            &figures::LOCAL_STORE_BYTES,
        ];
        for gauge in gauges {
            // Not every kind of sink has each of them. Counters stay: what they count has happened.
            let _ = gauge.remove_label_values(&[label.as_str()]);
        }
        for stage in ["taken", "delivered"] {
            let _ = figures::SINK_NEWEST_SAMPLE.remove_label_values(&[label.as_str(), stage]);
        }
    }
}

/// Takes the state directory's lock, waiting for another agent that is about to end. An unusable directory is no
/// reason to wait: the agent runs without it.
async fn lock_state(path: &Path, health: &Health) -> Result<StateDir, PathBuf> {
    let mut told = false;
    loop {
        match StateDir::open(path) {
            Ok(Some(state)) => return Ok(state),
            Ok(None) => {
                if !told {
                    told = true;
                    info!(state_dir = %path.display(), "another nodewick holds the state directory; waiting for it to end");
                    health.check("state_dir").pass();
                    health.check("logs_root").pass();
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(error) => {
                warn!(state_dir = %path.display(), %error,
                    "cannot use the state directory; running without checkpoints, so a restart reads logs again (mount a writable directory there or change [agent] state_dir)");
                return Err(path.to_owned());
            }
        }
    }
}

/// Starts every configured sink; the entrances to their queues.
fn start_sinks(config: &Config, supervisor: &mut Supervisor) -> Result<Vec<Box<dyn Outlet>>, Error> {
    let fields = config.record.fields.0;
    let state_dir = Some(config.agent.state_dir.as_path());
    let mut outlets = Vec::new();
    for (name, sink) in &config.sink.loki {
        let label = format!("loki.{name}");
        let (outlet, task) = loki::sink(&label, sink, fields, state_dir, supervisor.kill())
            .map_err(|error| refused("loki", name, error))?;
        supervisor.spawn(label, async {
            task.await;
            Ok::<_, Infallible>(())
        });
        outlets.push(outlet);
    }
    for (name, sink) in config.sink.otlp.iter().filter(|(_, sink)| sink.takes(otlp::Signal::Logs)) {
        let label = format!("otlp.{name}");
        let (outlet, task) = otlp::sink(&label, sink, fields, state_dir, supervisor.kill())
            .map_err(|error| refused("otlp", name, error))?;
        supervisor.spawn(label, async {
            task.await;
            Ok::<_, Infallible>(())
        });
        outlets.push(outlet);
    }
    for (name, sink) in &config.sink.stdout {
        let label = format!("stdout.{name}");
        let (outlet, drain) =
            stdout::open(&label, sink, fields).map_err(|error| refused("stdout", name, error))?;
        outlets.push(Box::new(outlet) as Box<dyn Outlet>);
        ends_with(supervisor, label, move || drain.wait(Duration::ZERO));
    }
    for (name, sink) in config.sink.stores() {
        let label = format!("local.{name}");
        // The store's place goes by its name, its figures by its label.
        let sink = local::Config { dir: Some(sink.directory(name, &config.agent.state_dir)), ..sink };
        let (outlet, writer) = local::start(&label, &sink, &config.agent.state_dir, fields)
            .map_err(|error| refused("local", name, error))?;
        outlets.push(Box::new(outlet));
        ends_with(supervisor, label, move || writer.is_finished());
    }
    Ok(outlets)
}

/// Starts every configured sink of samples.
fn start_sinks_of_samples(
    config: &Config,
    supervisor: &mut Supervisor,
) -> Result<Vec<Box<dyn Collect>>, Error> {
    let mut sinks = Vec::new();
    for (name, sink) in &config.sink.remote_write {
        let label = format!("remote_write.{name}");
        let (collect, task) = remote_write::sink(&label, sink, supervisor.kill())
            .map_err(|error| refused("remote_write", name, error))?;
        supervisor.spawn(label, async {
            task.await;
            Ok::<_, Infallible>(())
        });
        sinks.push(collect);
    }
    for (name, sink) in config.sink.otlp.iter().filter(|(_, sink)| sink.takes(otlp::Signal::Metrics)) {
        let label = format!("otlp.{name}.metrics");
        let (collect, task) = otlp::metrics::sink(&label, sink, supervisor.kill())
            .map_err(|error| refused("otlp", name, error))?;
        supervisor.spawn(label, async {
            task.await;
            Ok::<_, Infallible>(())
        });
        sinks.push(collect);
    }
    Ok(sinks)
}

/// Starts the evaluator of objectives, where there is one, and a task for each Alertmanager that it tells of alerts.
fn start_evaluator(
    config: &Config,
    lasting: &Lasting,
    supervisor: &mut Supervisor,
) -> Result<Option<evaluator::Running>, Error> {
    let (running, heard) = evaluator::start(config, &lasting.slos, &lasting.health);
    let standing = evaluator::Standing::new(&lasting.health);
    for (name, sink) in config.alertmanager.iter().filter(|_| running.is_some()) {
        let label = format!("alertmanager.{name}");
        let (standing, own) = (standing.clone(), label.clone());
        let note = Box::new(move |why| standing.note(&own, why));
        let task = alertmanager::sink(&label, sink, heard.clone(), supervisor.kill(), note)
            .map_err(|error| Error::Alertmanager { name: name.clone(), source: Box::new(error) })?;
        supervisor.spawn(label, async {
            task.await;
            Ok::<_, Infallible>(())
        });
    }
    Ok(running)
}

fn refused(kind: &'static str, name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Sink { kind, name: name.to_owned(), source: Box::new(error) }
}

/// Supervises a sink with a thread of its own, which ends when its entrance has dropped and its queue is written.
fn ends_with(
    supervisor: &mut Supervisor,
    label: String,
    mut is_finished: impl FnMut() -> bool + Send + 'static,
) {
    let (stop, kill) = (supervisor.stop(), supervisor.kill());
    supervisor.spawn(label, async move {
        stop.cancelled().await;
        while !is_finished() && !kill.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, Infallible>(())
    });
}

/// The accounts of all logs by name, or of the worst ones, worst first, as a JSON array.
fn ledger_page(registry: &Registry, worst: Option<usize>) -> String {
    let (mut accounts, _) = registry.accounts();
    match worst {
        Some(worst) => {
            account::sort_worst_first(&mut accounts);
            accounts.truncate(worst);
        }
        None => accounts.sort_by(|a, b| a.name().cmp(&b.name())),
    }
    serde_json::to_string(&accounts).expect("an account has no map with odd keys")
}

#[cfg(test)]
mod tests;
