//! `nodewick demo`: a laptop, no cluster, and still everything real but the shop.
//!
//! A make-believe [`node`] writes genuine-looking logs and rotates them; the agent, in this process, follows them
//! into a local store; the store is shown live and read back; every line is accounted for at the end.
//!
//! In: the arguments and a way to start the agent. Out: the pretty tail and a summary on `out`, notices on `notices`.
//! Invariant: `lost 0` is printed only when each line that a container wrote was read back from the store.

mod chance;
pub mod node;
mod summary;
pub mod tally;
pub mod traffic;

use std::io::{self, Write};
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
use crate::tail::{Style, poll_pretty};

use node::Node;
use summary::{End, Summary};
use tally::{Counts, Tally};

/// How often the store is read back.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the last lines may take to arrive.
const SETTLE: Duration = Duration::from_secs(10);
/// Name of the demo's local store.
const STORE: &str = "demo";

/// What one of the services is held to. It fails more often than that, so that the alert comes within half a minute.
const OBJECTIVE: &str = "[red]\ninterval = \"1s\"\n\n[evaluator]\ninterval = \"5s\"\n\n[slo.orders]\nmatch = { namespace = \"shop\", \
                         workload = \"checkout\" }\nsli = \"availability\"\nobjective = \"99.9%\"\nmode = \"alert\"\n";

/// Run the agent against a make-believe node and show what it does.
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
    /// Show the summary only.
    #[arg(short, long)]
    pub quiet: bool,
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
            "[agent]\ncluster = \"demo\"\nnode = \"make-believe\"\nstate_dir = {}\n\n[logs]\nroot = {}\n\n[kube]\nmode = \"path\"\n\n[sink.local.{STORE}]\n\n{OBJECTIVE}",
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
/// for the site and returns what stops it.
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
    S: FnOnce(&Site) -> Result<StopAgent, Box<dyn std::error::Error + Send + Sync>>,
{
    let ground = Ground::prepare(args.dir.as_deref())?;
    let site = Site::new(&ground.dir);
    let directory = |source| Error::Directory { dir: site.dir.clone(), source };
    std::fs::create_dir_all(&site.log_root).map_err(directory)?;
    std::fs::write(site.dir.join("agent.toml"), &site.config_toml).map_err(directory)?;
    introduce(args, &site, notices);

    let tally = Arc::new(Tally::default());
    let followed = metrics::LOG_ROTATIONS.get();
    let stop_agent = start(&site).map_err(Error::Agent)?;
    let begun = Instant::now();
    // A size that makes each log rotate every few seconds at any rate, within the kubelet's own default.
    let rotate_bytes = (u64::from(args.rate) << 9).clamp(16 << 10, 10 << 20);
    let config = node::Config { root: site.log_root.clone(), rate: args.rate, seed: args.seed, rotate_bytes };
    let node = match Node::start(&config, Arc::clone(&tally)) {
        Ok(node) => node,
        Err(error) => {
            stop_agent();
            return Err(Error::Node(error));
        }
    };
    let auditor = Auditor::start(&site, Arc::clone(&tally)).map_err(Error::Store)?;
    let mut view = View::open(args.quiet, &site, style).map_err(Error::Store)?;

    let wanted = args.duration.map_or(Duration::MAX, |duration| duration.0);
    let mut shown = Ok(true);
    while begun.elapsed() < wanted
        && !interrupted.load(Ordering::Relaxed)
        && !node.has_failed()
        && !auditor.thread.is_finished()
        && matches!(shown, Ok(true))
    {
        shown = view.show(8, out);
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
        print(&text, out)?;
    }
    if ground.temporary {
        let _ = writeln!(notices, "the logs and the store are removed; --dir keeps them");
    } else {
        let _ = writeln!(notices, "kept: nodewick tail --no-follow --dir {}", site.state_dir.display());
    }
    Ok(counts)
}

/// What one sees, and what to try next.
fn introduce(args: &Args, site: &Site, notices: &mut dyn Write) {
    let state = site.state_dir.display();
    let shown = if args.quiet {
        "A summary shows"
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
         Checkout is to answer 99.9 % of its requests and does not: the agent says when its error budget burns.\n\
         Try next, in another terminal:  nodewick tail --level error --dir {state}\n{:33}nodewick tail --trace <id> --dir {state}\n",
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
