//! Wiring of the metrics: from targets to pages, and the thread that owns all series.
//!
//! ```text
//! pods, static ► discover ► pace ═► metrics thread: Book ► Output ═► sinks of samples
//!                            clock ═►      RED, host ┘
//! ```
//!
//! In: a config and the node's pods. Out: running tasks, the taps that other parts need, and at the end what the next
//! pipeline goes on with. Invariants: one thread owns all series; what it is told comes through one bounded channel; it
//! ends when nobody can tell it anything any more, after a last look at RED, so that what was counted is also sent.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::data::access::AccessTap;
use crate::data::clock;
use crate::data::pods::{self, Pods};
use crate::data::sample::{Collect, Origin, OriginKind, Page};
use crate::health::Health;
use crate::host;
use crate::metrics;
use crate::red::{self, Recent, Red};
use crate::scrape::fetch::{Buffers, Fetcher};
use crate::scrape::guard::Guard;
use crate::scrape::pace;
use crate::scrape::relabel::Rules;
use crate::scrape::series::Book;
use crate::scrape::status::{Board, Outcome};
use crate::scrape::target::Target;
use crate::scrape::targets::{Site, Targets};
use crate::scrape::{Event, Fetched, Output};
use crate::supervise::Supervisor;

use super::{Error, Known, evaluator, objectives};
use objectives::{Follow, Said, Watching};

/// Name of the note on the health page.
const NOTE: &str = "red";

/// How often sinks are told that nothing more comes just now.
const FLUSH: Duration = Duration::from_secs(1);

/// How long after the stop the last look at RED waits for the thread that reads logs.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a page of RED or the host may leave behind for the next one; above it all of its memory is given back.
const LARGE_PAGE: usize = 1 << 20;

/// What the thread is told.
enum Work {
    /// What came of a target.
    Scrape(Event),
    /// Time for RED's page.
    Red,
    /// Time to look at RED for people.
    Look,
    /// Time for the host's page.
    Host,
    /// Nothing more just now.
    Flush,
}

/// What outlives a pipeline: what is known of all series, and RED's counters.
#[derive(Default)]
pub(super) struct Kept {
    book: Option<Book>,
    red: Option<Red>,
    said: Said,
}

/// The metrics of one pipeline, running.
pub(super) struct Metrics {
    thread: Option<JoinHandle<Kept>>,
}

/// What starts the metrics.
pub(super) struct Start<'a> {
    /// The config.
    pub(super) config: &'a Config,
    /// The node's pods, where they are watched.
    pub(super) pods: Option<Pods>,
    /// Where samples go.
    pub(super) sinks: Vec<Box<dyn Collect>>,
    /// Who judges objectives, where it is done here.
    pub(super) evaluator: Option<evaluator::Running>,
    /// What an earlier pipeline left.
    pub(super) kept: Kept,
    /// What is shown of targets.
    pub(super) board: Board,
    /// Where RED says that its counters are not durable.
    pub(super) health: Health,
    /// Cancelled when the thread that reads logs has ended.
    pub(super) reading_ended: CancellationToken,
    /// The logs that are followed, for what became of their lines.
    pub(super) registry: Known,
    /// Where what people are shown of RED goes.
    pub(super) shown: Arc<ArcSwap<red::Summary>>,
    /// People have a page to look at it.
    pub(super) has_page: bool,
}

impl Metrics {
    /// Starts everything; the tap for the thread that reads logs, where RED wants one.
    pub(super) fn start(
        start: Start<'_>,
        supervisor: &mut Supervisor,
    ) -> Result<(Self, Option<Box<dyn AccessTap>>), Error> {
        let Start {
            config,
            pods,
            sinks,
            evaluator,
            kept,
            board,
            health,
            reading_ended,
            registry,
            shown: summary,
            has_page,
        } = start;
        let guard = guard(config)?;
        let targets = Targets::new(&config.scrape, site(config), guard.clone()).map_err(rules)?;
        let samples = Rules::compile(&config.scrape.metric_relabel).map_err(rules)?;
        let book = match kept.book {
            Some(mut book) => {
                book.configure(&config.scrape, samples);
                book
            }
            None => Book::new(&config.scrape, samples),
        };
        let rates = objectives::with_buckets(&config.red, &config.slo);
        let red = config.red.enabled.then(|| match kept.red {
            Some(mut red) => {
                red.configure(&rates);
                red
            }
            None => Red::new(&rates, Some(&config.agent.state_dir)),
        });
        let host = config.host.enabled.then(|| host_figures(config, pods.clone()));
        let pods = pods.unwrap_or_else(|| pods::directory().1);
        let follow = red.as_ref().map(|red| {
            Arc::new(Follow::new(
                config,
                pods.clone(),
                red.declarer(),
                red.declared_by_pods(),
                kept.said.clone(),
            ))
        });
        let tap = red.as_ref().zip(follow.as_ref()).map(|(red, follow)| {
            Box::new(Watching { tap: red.tap(), follow: Arc::clone(follow) }) as Box<dyn AccessTap>
        });
        let buffers = Buffers::default();
        // What waits for the thread waits in the channel of pacing, which knows how much memory it holds.
        let (sender, receiver) = mpsc::channel::<Work>(1);
        let (events, mut fetched) = mpsc::channel::<Event>(pace::EVENTS);
        let (current, seen) = watch::channel::<pace::Targets>(Arc::from([]));

        let stop = supervisor.stop();
        let fetcher = Fetcher::new(&config.scrape, guard, pods.clone(), buffers.clone());
        let pacing = pace::run(fetcher, seen, events, |_| {}, stop.clone());
        let shown = board.clone();
        let find = move |pods: &[Arc<pods::Pod>]| {
            let candidates = targets.discover(pods);
            shown.seen(&candidates);
            candidates.into_iter().filter_map(|candidate| candidate.found.ok()).collect::<Vec<Arc<Target>>>()
        };
        let discovering = pace::discover(pods, find, current, stop.clone());
        let hand_over = {
            let sender = sender.clone();
            async move {
                while let Some(event) = fetched.recv().await {
                    if sender.send(Work::Scrape(event)).await.is_err() {
                        break;
                    }
                }
            }
        };
        supervisor.spawn("scrape", async move {
            tokio::join!(discovering, pacing, hand_over);
            Ok::<_, Infallible>(())
        });
        let ticks = Ticks {
            red: red.is_some().then_some(config.red.interval.0),
            host: host.as_ref().map(host::Collector::interval),
            flush: !sinks.is_empty() || evaluator.is_some(),
        };
        let clock = tick(ticks, sender, stop.clone(), reading_ended);
        supervisor.spawn("metrics-clock", async move {
            clock.await;
            Ok::<_, Infallible>(())
        });

        let recent = red.as_ref().map(|red| red.recent(has_page));
        // An earlier pipeline may have counted what this one does not.
        summary.store(Arc::default());
        let (ended, thread_ended) = oneshot::channel::<()>();
        let worker = Worker {
            book,
            red,
            follow,
            registry,
            host,
            sinks,
            evaluator,
            board,
            health,
            buffers,
            page: Page::default(),
            recent,
            summary,
            last_red: 0,
            silence: silence(config),
        };
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            let kept = worker.run(receiver);
            // Nobody listens once the deadline has passed.
            let _ = ended.send(());
            kept
        })?;
        supervisor.spawn("metrics", async move {
            thread_ended
                .await
                .map_err(|_| "the thread that owns all series has panicked; this is a bug in nodewick")
        });
        Ok((Self { thread: Some(thread) }, tap))
    }

    /// What the thread leaves, once it has ended.
    pub(super) fn end(mut self) -> Kept {
        match self.thread.take() {
            Some(thread) if thread.is_finished() => thread.join().unwrap_or_default(),
            // It hangs beyond the deadline: the next one begins anew.
            _ => Kept::default(),
        }
    }
}

fn rules(problems: Vec<crate::scrape::relabel::Problem>) -> Error {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Error::Scrape(texts.join("; "))
}

fn guard(config: &Config) -> Result<Guard, Error> {
    let guard = Guard::from_env(&config.scrape.deny).map_err(Error::Scrape)?;
    Ok(guard.with_host_network(config.scrape.host_network))
}

fn site(config: &Config) -> Site {
    let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
    Site {
        cluster: config.agent.cluster.clone(),
        node: config.agent.node.clone(),
        environment: named(&config.agent.environment),
        own_pod: set("POD_NAMESPACE").zip(set("POD_NAME")),
    }
}

/// Three ticks and a tenth of the slowest target.
fn silence(config: &Config) -> Duration {
    let own = config.scrape.fixed.iter().filter_map(|of| of.interval);
    own.map(|span| span.0).chain([config.scrape.interval.0]).max().unwrap_or_default().mul_f64(3.1)
}

fn host_figures(config: &Config, pods: Option<Pods>) -> host::Collector {
    let paths = vec![config.logs.root.clone(), config.agent.state_dir.clone()];
    host::Collector::new(&config.host, &config.agent.cluster, &config.agent.node, pods, paths)
}

/// What is due how often.
struct Ticks {
    red: Option<Duration>,
    host: Option<Duration>,
    flush: bool,
}

/// Tells the thread when something is due, and at the end, once logs are read no more, to look at RED a last time.
async fn tick(
    ticks: Ticks,
    work: mpsc::Sender<Work>,
    stop: CancellationToken,
    reading_ended: CancellationToken,
) {
    let every = |interval: Option<Duration>| {
        let mut every = tokio::time::interval(interval.unwrap_or(Duration::from_secs(3600)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        every
    };
    let (mut red, mut host) = (every(ticks.red), every(ticks.host));
    let mut flush = every(Some(FLUSH));
    let mut look = every(Some(red::recent::STEP));
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => break,
            _ = red.tick(), if ticks.red.is_some() => Work::Red,
            _ = look.tick(), if ticks.red.is_some() => Work::Look,
            _ = host.tick(), if ticks.host.is_some() => Work::Host,
            _ = flush.tick(), if ticks.flush => Work::Flush,
        };
        if work.send(due).await.is_err() {
            return;
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, reading_ended.cancelled()).await;
    if ticks.red.is_some() {
        let _ = work.send(Work::Red).await;
    }
}

/// The thread that owns all series.
struct Worker {
    book: Book,
    red: Option<Red>,
    /// What RED counts objectives by.
    follow: Option<Arc<Follow>>,
    /// What became of lines.
    registry: Known,
    host: Option<host::Collector>,
    sinks: Vec<Box<dyn Collect>>,
    evaluator: Option<evaluator::Running>,
    board: Board,
    health: Health,
    buffers: Buffers,
    /// For pages that are made here.
    page: Page,
    /// What people are shown of RED, and where it goes.
    recent: Option<Recent>,
    summary: Arc<ArcSwap<red::Summary>>,
    /// When RED was last looked at, milliseconds since the epoch.
    last_red: i64,
    /// Without a scrape for this long a target is no more: one that is down is told of at each tick.
    silence: Duration,
}

impl Worker {
    fn run(mut self, mut work: mpsc::Receiver<Work>) -> Kept {
        let red_origin = Arc::new(Origin { kind: OriginKind::Red, labels: Vec::new(), resource: Vec::new() });
        while let Some(due) = work.blocking_recv() {
            match due {
                Work::Scrape(event) => self.scrape(event),
                Work::Red => self.red(&red_origin),
                Work::Look => self.look(),
                Work::Host => self.host(),
                Work::Flush => {
                    self.sweep();
                    self.evaluate();
                    self.sinks.iter_mut().for_each(|sink| sink.flush());
                }
            }
        }
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.save();
        }
        self.sinks.iter_mut().for_each(|sink| sink.flush());
        let said = self.follow.map(|follow| follow.said()).unwrap_or_default();
        Kept { book: Some(self.book), red: self.red, said }
    }

    fn scrape(&mut self, event: Event) {
        let told = match &event {
            Event::Fetched(Fetched { target, time_unix_ms, took, body }) => {
                Some((Arc::clone(target), *time_unix_ms, *took, body.is_ok()))
            }
            Event::Removed { .. } => None,
        };
        let mut out = Out { red: self.red.as_mut(), sinks: &mut self.sinks };
        let report = self.book.take(event, &mut out);
        self.buffers.put(self.book.take_buffer());
        let Some((target, time_unix_ms, took, fetched)) = told else { return };
        if let (Some(failure), true) = (&report.failure, fetched) {
            // What could not be fetched is counted where it was fetched.
            metrics::SCRAPE_FAILURES.with_label_values(&[failure.reason()]).inc();
        }
        let samples = report.failure.as_ref().map_or(Ok(report.scraped), Err);
        self.board.scraped(&target, Outcome { time_unix_ms, took, samples });
    }

    fn red(&mut self, origin: &Arc<Origin>) {
        let Some(red) = &mut self.red else { return };
        let now = clock::unix_ms().max(self.last_red + 1);
        self.last_red = now;
        if let Some(follow) = &self.follow {
            follow.look();
        }
        if let Some(registry) = &*self.registry.load() {
            let lines = registry.flows().into_iter().map(|(key, instance, flow)| red::Lines {
                key,
                workload: red::Identity::of_instance(&instance).workload_id(),
                flow,
            });
            red.lines(&lines.collect::<Vec<_>>());
        }
        red.tick(now, &mut self.page);
        let durable = red.is_durable();
        let note =
            "the state directory cannot be written: a crash may count requests of logs twice or not at all";
        self.health.note(NOTE, (!durable).then(|| note.to_owned()));
        let mut out = Out { red: None, sinks: &mut self.sinks };
        self.book.own(origin, &mut self.page, now, &mut out);
        if let Some(evaluator) = &mut self.evaluator
            && !self.page.samples.is_empty()
        {
            evaluator.take(&self.page);
        }
        self.done_with_page();
    }

    fn look(&mut self) {
        if let Some(recent) = &mut self.recent {
            self.summary.store(Arc::new(recent.look(clock::unix_ms())));
        }
    }

    fn host(&mut self) {
        let Some(host) = &mut self.host else { return };
        self.page.clear();
        host.collect(clock::now(), &mut self.page);
        let origin = Arc::clone(host.origin());
        let mut out = Out { red: None, sinks: &mut self.sinks };
        self.book.own(&origin, &mut self.page, clock::unix_ms(), &mut out);
        self.done_with_page();
    }

    /// Objectives are judged by what was published until now; what is found is published, too.
    fn evaluate(&mut self) {
        let Some(evaluator) = &mut self.evaluator else { return };
        let Some((origin, page)) = evaluator.tick() else { return };
        let mut out = Out { red: None, sinks: &mut self.sinks };
        self.book.own(&Arc::clone(origin), page, clock::unix_ms(), &mut out);
    }

    /// The page is made anew next time; one that was large leaves no memory behind.
    fn done_with_page(&mut self) {
        if self.page.held() > LARGE_PAGE {
            self.page = Page::default();
        }
        self.page.clear();
    }

    /// Targets that a reload took away had nobody who could tell their end.
    fn sweep(&mut self) {
        let silent = i64::try_from(self.silence.as_millis()).unwrap_or(i64::MAX);
        let mut out = Out { red: self.red.as_mut(), sinks: &mut self.sinks };
        self.book.sweep(clock::unix_ms().saturating_sub(silent), &mut out);
    }
}

/// Hands pages on: raw ones to RED, final ones to every sink.
struct Out<'a> {
    red: Option<&'a mut Red>,
    sinks: &'a mut [Box<dyn Collect>],
}

impl Output for Out<'_> {
    fn raw(&mut self, target: &Arc<Target>, page: &Page, time_unix_ms: i64) {
        if let Some(red) = &mut self.red {
            red.scraped(&target.origin, page, time_unix_ms);
        }
    }

    fn page(&mut self, origin: &Arc<Origin>, page: &Page) {
        for sink in &mut *self.sinks {
            sink.page(origin, page);
        }
    }

    fn forget(&mut self, origin: &Arc<Origin>) {
        if let Some(red) = &mut self.red {
            red.forget(origin);
        }
        for sink in &mut *self.sinks {
            sink.forget(origin);
        }
    }
}
