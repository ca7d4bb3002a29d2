//! `nodewick demo`: a laptop, no cluster, and still everything real but the shop.
//!
//! A make-believe [`node`] writes genuine-looking logs and rotates them; the agent, in this process, follows them
//! into a local store; the store is shown live and read back; every line is accounted for at the end. A service is broken
//! meanwhile ([`fault`]), by itself or by the button on the agent's page, so that an objective burns and an alert begins; when
//! it is mended, the alert ends. The evaluator's time is compressed for that, and whatever shows it says so.
//!
//! In: the arguments and a way to start the agent. Out: the pretty tail and a summary on `out`, notices and alerts on
//! `notices`. Invariant: `lost 0` is printed only when each line that a container wrote was read back from the store.

mod browser;
mod chance;
pub mod fault;
pub mod node;
mod oncall;
mod shop;
mod summary;
pub mod tally;
pub mod traffic;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::data::clock;
use crate::data::units;
use crate::metrics;
use crate::sink::local::{Filter, From, Reader};
use crate::slo::eval::Report;
use crate::tail::{Style, poll_pretty};
use crate::ui::{Action, Extras};

use fault::{Break, Part, Switch};
use node::Node;
use oncall::OnCall;
use summary::{End, Summary};
use tally::{Counts, Tally};

/// How often the store is read back.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the last lines may take to arrive.
const SETTLE: Duration = Duration::from_secs(10);
/// Name of the demo's local store.
const STORE: &str = "demo";

/// How often alerts are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Name of the button that breaks and mends.
const ACTION: &str = "break-checkout";
/// How many times faster the evaluator's time goes.
const COMPRESSION: u32 = 60;

/// What the services are held to. They keep it until one is broken; then the alert comes within seconds, and ends half a
/// minute after it is mended.
const OBJECTIVES: &str = r#"[red]
interval = "1s"

# A demonstration: a second counts as a minute for objectives and their alerts. Never do that in production.
[evaluator]
compression = 60

[slo.defaults]
mode = "alert"
trace_evidence = true

[slo.orders]
match = { namespace = "shop", workload = "checkout" }
sli = "availability"
objective = "99.9%"

[slo.carts]
match = { namespace = "shop", workload = "cart" }
sli = "availability"
objective = "99%"

[slo.charges]
match = { namespace = "shop", workload = "payments" }
sli = "availability"
objective = "99.5%"
"#;

/// Run the agent against a make-believe node and show what it does: lines, traces, figures, and an alert.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Lines per second that the node's containers write together.
    #[arg(long, value_name = "LINES", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub rate: u32,
    /// End by itself after this long, like 20s; else at Ctrl-C.
    #[arg(long = "for", value_name = "DURATION")]
    pub duration: Option<units::Span>,
    /// A new or empty directory to work in, which is kept; else a temporary one.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Equal seeds make equal traffic.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Show the alerts and the summary only.
    #[arg(short, long)]
    pub quiet: bool,
    /// What is broken, so that an objective burns and an alert begins.
    #[arg(long = "break", value_enum, value_name = "WHAT", default_value_t)]
    pub breaks: Break,
    /// Do not open the page in a browser. One is opened only from a terminal with a display, and never where CI is set.
    #[arg(long)]
    pub no_open: bool,
}

/// Where the demo takes place: what the agent has to be configured for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The directory of it all.
    pub dir: PathBuf,
    /// `[logs] root`.
    pub log_root: PathBuf,
    /// `[agent] state_dir`.
    pub state_dir: PathBuf,
    /// The agent's configuration, also in the file `agent.toml` in [`dir`](Self::dir).
    pub config_toml: String,
}

impl Site {
    /// A site in `dir`.
    fn new(dir: &Path) -> Self {
        let (log_root, state_dir) = (dir.join("pods"), dir.join("state"));
        let quoted = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
        let config_toml = format!(
            "[agent]\ncluster = \"demo\"\nnode = \"make-believe\"\nstate_dir = {}\n\n[logs]\nroot = {}\n\n[kube]\nmode = \"path\"\n\n[sink.local.{STORE}]\n\n{OBJECTIVES}",
            quoted(&state_dir),
            quoted(&log_root)
        );
        Self { dir: dir.to_owned(), log_root, state_dir, config_toml }
    }

    /// Where the agent's local store lies.
    pub fn store(&self) -> PathBuf {
        self.state_dir.join("local").join(STORE)
    }
}

/// Stops a started agent: drains it and returns when it has ended.
pub type StopAgent = Box<dyn FnOnce()>;

/// How objectives stand, at any time.
pub type Objectives = Box<dyn Fn() -> Arc<Report>>;

/// A started agent.
pub struct Started {
    /// What stops it.
    pub stop: StopAgent,
    /// Where its page is, if it has one.
    pub page: Option<SocketAddr>,
    /// How its objectives stand, if it judges them.
    pub objectives: Option<Objectives>,
}

impl std::convert::From<StopAgent> for Started {
    fn from(stop: StopAgent) -> Self {
        Self { stop, page: None, objectives: None }
    }
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory holds something already.
    #[error("{} is not empty; give a new directory with --dir, or none for a temporary one", .0.display())]
    NotEmpty(PathBuf),
    /// The directory cannot be used.
    #[error("cannot work in {}: {source}; give another directory with --dir", .dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent did not start.
    #[error("cannot start the agent: {0}")]
    Agent(Box<dyn std::error::Error + Send + Sync>),
    /// The make-believe node failed.
    #[error("the make-believe node cannot write its logs: {0}")]
    Node(io::Error),
    /// The store cannot be read back.
    #[error("cannot read the local store back: {0}")]
    Store(io::Error),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

/// Runs the demo until `--for` has passed or `interrupted` is set, and returns the account. `start` starts the agent
/// for the site, with what its page shall show besides, and returns what stops it.
///
/// The caller's exit code is 0 when [`Counts::lost`] is 0, else 1.
///
/// # Errors
/// When the node, the agent, the store or the output fails.
pub fn run<S>(
    args: &Args,
    style: Style,
    start: S,
    interrupted: &AtomicBool,
    out: &mut dyn Write,
    notices: &mut dyn Write,
) -> Result<Counts, Error>
where
    S: FnOnce(&Site, Extras) -> Result<Started, Box<dyn std::error::Error + Send + Sync>>,
{
    let ground = Ground::prepare(args.dir.as_deref())?;
    let site = Site::new(&ground.dir);
    let directory = |source| Error::Directory { dir: site.dir.clone(), source };
    std::fs::create_dir_all(&site.log_root).map_err(directory)?;
    std::fs::write(site.dir.join("agent.toml"), &site.config_toml).map_err(directory)?;
    let wanted = args.duration.map_or(Duration::MAX, |duration| duration.0);
    let mut plan = args.breaks.plan(args.duration.map(|duration| duration.0));
    let switch = Switch::default();

    let tally = Arc::new(Tally::default());
    let followed = metrics::LOG_ROTATIONS.get();
    let Started { stop: stop_agent, page, objectives } =
        start(&site, extras(plan, &switch)).map_err(Error::Agent)?;
    if let Some(page) = page {
        let _ = writeln!(notices, "The agent's page: http://{page}/");
        if !args.no_open {
            browser::open(page);
        }
    }
    introduce(args, plan, &site, notices);
    let begun = Instant::now();
    let mut on_call = OnCall::new(page, site.state_dir.clone(), clock::unix_ms());
    let mut story = Story { switch: switch.clone(), shown: None };
    if let Some((part, Duration::ZERO)) = plan {
        plan = None;
        switch.set(Some(part));
    }
    // A size that makes each log rotate every few seconds at any rate, within the kubelet's own default.
    let rotate_bytes = (u64::from(args.rate) << 9).clamp(16 << 10, 10 << 20);
    let config =
        node::Config { root: site.log_root.clone(), rate: args.rate, seed: args.seed, rotate_bytes, switch };
    let node = match Node::start(&config, Arc::clone(&tally)) {
        Ok(node) => node,
        Err(error) => {
            stop_agent();
            return Err(Error::Node(error));
        }
    };
    let auditor = Auditor::start(&site, Arc::clone(&tally)).map_err(Error::Store)?;
    let mut view = View::open(args.quiet, &site, style).map_err(Error::Store)?;

    let mut shown = Ok(true);
    let mut looked = begun;
    while begun.elapsed() < wanted
        && !interrupted.load(Ordering::Relaxed)
        && !node.has_failed()
        && !auditor.thread.is_finished()
        && matches!(shown, Ok(true))
    {
        shown = view.show(8, out);
        if let Some((part, _)) = plan.filter(|(_, after)| begun.elapsed() >= *after) {
            plan = None;
            story.switch.set(Some(part));
        }
        story.tell(notices);
        if let Some(objectives) = objectives.as_ref().filter(|_| looked.elapsed() >= LOOK) {
            looked = Instant::now();
            let _ = notices.write_all(on_call.look(&objectives(), looked, ACTION).as_bytes());
        }
        std::thread::sleep(POLL_INTERVAL.min(wanted.saturating_sub(begun.elapsed())));
    }
    let node = node.stop();
    let took = begun.elapsed();
    let _ = writeln!(notices, "the containers have stopped; waiting for their last lines");
    let until = Instant::now() + SETTLE;
    while tally.counts().lost() > 0 && Instant::now() < until && !auditor.thread.is_finished() {
        std::thread::sleep(POLL_INTERVAL);
    }
    stop_agent();
    let (summary, audited) = auditor.finish();
    if matches!(shown, Ok(true)) {
        shown = view.show(usize::MAX, out);
    }
    let node = node.map_err(Error::Node)?;
    audited.map_err(Error::Store)?;
    let counts = tally.counts();
    let end = End { took, node, followed: metrics::LOG_ROTATIONS.get() - followed, counts };
    if shown? {
        let text = format!("{}{}", if args.quiet { "" } else { "\n" }, summary.show(&end));
        let text = match on_call.account() {
            pages if pages.is_empty() => text,
            pages => format!("{text}\n{pages}"),
        };
        print(&text, out)?;
    }
    if ground.temporary {
        let _ = writeln!(notices, "the logs and the store are removed; --dir keeps them");
    } else {
        let _ = writeln!(notices, "kept: nodewick tail --no-follow --dir {}", site.state_dir.display());
    }
    Ok(counts)
}

/// What the page shows besides: that nothing of it is real, and a button.
fn extras(plan: Option<(Part, Duration)>, switch: &Switch) -> Extras {
    let banner = format!(
        "A demonstration on a make-believe node: nothing of it is real. Time of objectives and alerts goes {COMPRESSION} times \
         faster: an hour's window is a minute long. {}",
        fate(plan)
    );
    let [label, active, run] = [(); 3].map(|()| switch.clone());
    let action = Action {
        name: ACTION,
        label: Arc::new(move || label.label()),
        active: Arc::new(move || active.broken().is_some()),
        run: Arc::new(move || run.toggle()),
    };
    Extras { banner: Some(banner), actions: vec![action] }
}

/// What will break.
fn fate(plan: Option<(Part, Duration)>) -> String {
    match plan {
        Some((part, Duration::ZERO)) => format!("{} is broken from the start.", capital(part.name())),
        Some((part, after)) => {
            format!("{} breaks by itself after {} s.", capital(part.name()), after.as_secs_f64().round())
        }
        None => "Nothing breaks until the button is pressed.".to_owned(),
    }
}

fn capital(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Says what breaks and what is mended, whoever did it.
struct Story {
    switch: Switch,
    shown: Option<Part>,
}

impl Story {
    fn tell(&mut self, notices: &mut dyn Write) {
        let now = self.switch.broken();
        let text = match (std::mem::replace(&mut self.shown, now), now) {
            (before, now) if before == now => return,
            (_, Some(Part::Checkout)) => {
                "BROKEN  checkout: its calls to payments are slow, and 7 of 10 fail with 502".to_owned()
            }
            (_, Some(Part::Cart)) => {
                "BROKEN  cart: it is slow and cannot read 7 of 10 carts; orders fail with it".to_owned()
            }
            (_, Some(Part::Payments)) => {
                "BROKEN  payments: it is slow and its ledger is not reachable in 7 of 10 cases; orders fail with it"
                    .to_owned()
            }
            (Some(part), None) => {
                format!("MENDED  {}: its alert ends half a minute after the last failed request", part.name())
            }
            (None, None) => return,
        };
        let _ = writeln!(notices, "{text}");
    }
}

/// What one sees, and what to try next.
fn introduce(args: &Args, plan: Option<(Part, Duration)>, site: &Site, notices: &mut dyn Write) {
    let state = site.state_dir.display();
    let shown = if args.quiet {
        "Alerts are shown as they come; a summary shows"
    } else {
        "Below is each line as the agent stores it; a summary shows"
    };
    let end = args
        .duration
        .map_or_else(|| "Ctrl-C ends the demo".to_owned(), |time| format!("The demo ends after {time}"));
    let _ = writeln!(
        notices,
        "Three make-believe services write pino logs, which rotate every few seconds as the kubelet rotates them.\n\
         {shown} whether one was lost. {end}.\n\
         Checkout is to answer 99.9 % of its requests. {}\n\
         An alert follows within seconds of a break, and ends half a minute after mending: time of objectives goes\n\
         {COMPRESSION} times faster here, so that an hour's window is a minute long. It is a demonstration.\n\
         Try next, in another terminal:  nodewick tail --level error --dir {state}\n{:33}nodewick tail --trace <id> --dir {state}\n",
        fate(plan),
        ""
    );
}

/// The directory of a run; removed at the end when it is ours.
struct Ground {
    dir: PathBuf,
    temporary: bool,
}

impl Ground {
    fn prepare(dir: Option<&Path>) -> Result<Self, Error> {
        if let Some(dir) = dir {
            let failed = |source| Error::Directory { dir: dir.to_owned(), source };
            std::fs::create_dir_all(dir).map_err(failed)?;
            if std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
                return Err(Error::NotEmpty(dir.to_owned()));
            }
            let dir = dir.canonicalize().map_err(failed)?;
            return Ok(Self { dir, temporary: false });
        }
        let now = clock::since_epoch();
        let name = format!("nodewick-demo-{}-{:x}", std::process::id(), now.subsec_nanos());
        let dir = std::env::temp_dir().join(name);
        let created = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        created.map_err(|source| Error::Directory { dir: dir.clone(), source })?;
        Ok(Self { dir, temporary: true })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Shows the store's lines on the terminal.
struct View {
    reader: Option<Reader>,
    style: Style,
}

impl View {
    fn open(quiet: bool, site: &Site, style: Style) -> io::Result<Self> {
        let reader = (!quiet).then(|| Reader::open(&site.store(), From::Start, Filter::default()));
        Ok(Self { reader: reader.transpose()?, style })
    }

    /// Shows what is new, at most `chunks` reads of it; false when nobody reads the output any more.
    fn show(&mut self, chunks: usize, out: &mut dyn Write) -> Result<bool, Error> {
        let Self { reader: Some(reader), style } = self else { return Ok(true) };
        for _ in 0..chunks {
            let (text, more) = poll_pretty(reader, *style).map_err(Error::Store)?;
            if !print(&text, out)? {
                return Ok(false);
            }
            if !more {
                break;
            }
        }
        Ok(true)
    }
}

/// Writes `text`; false when nobody reads the output any more.
fn print(text: &str, out: &mut dyn Write) -> Result<bool, Error> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(Error::Output),
    }
}

/// Reads the store back, line by line, into the account.
struct Auditor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Summary, io::Result<()>)>,
}

impl Auditor {
    fn start(site: &Site, tally: Arc<Tally>) -> io::Result<Self> {
        let mut reader = Reader::open(&site.store(), From::Start, Filter::default())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("demo-auditor".to_owned()).spawn(move || {
            let mut summary = Summary::default();
            loop {
                let last = stopped.load(Ordering::Acquire);
                loop {
                    let more = reader.poll(&mut |entry, _| {
                        let now = clock::since_epoch();
                        summary.add(entry, u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
                        tally.deliver(&entry.pod, &entry.line);
                        Ok(())
                    });
                    match more {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(error) => return (summary, Err(error)),
                    }
                }
                if last {
                    return (summary, Ok(()));
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Reads the store to its end and returns what was found.
    fn finish(self) -> (Summary, io::Result<()>) {
        self.stop.store(true, Ordering::Release);
        let panicked = || (Summary::default(), Err(io::Error::other("the reading thread panicked")));
        self.thread.join().unwrap_or_else(|_| panicked())
    }
}
