//! Wiring of the evaluator: pages in, rules every 30 s, alerts and a page out, state on disk.
//!
//! In: final pages of RED, in the thread that owns all series. Out: a page of what the rules record, the list of alerts for
//! every Alertmanager, the page `/slos`, and `evaluator.state` in the state directory.
//! Invariants: what happens in the thread is arithmetic, and a file of some hundred kilobytes every five minutes and when an
//! alert changes; one that is damaged is told of, and everything begins anew. Where time is compressed, nothing of it leaves
//! this process but the page and the agent's own log: no alert is told, no series is handed on, no file is read or written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{Config, alertmanager};
use crate::data::clock;
use crate::data::sample::{Origin, OriginKind, Page};
use crate::health::Health;
use crate::metrics as figures;
use crate::slo::eval::{self, Evaluator};

/// Name in the state directory.
const FILE: &str = "evaluator.state";
/// Time between two files while nothing changes.
const SAVE_MS: i64 = 300_000;
/// An alert is valid for four times the time after which it is told again, as Prometheus has it.
const VALID_MS: i64 = 4 * alertmanager::RESEND.as_millis() as i64;
/// Name of the notes on the health page.
const NOTE: &str = "evaluator";
const NOTE_ALERTS: &str = "alertmanager";

/// The page `/slos`; it outlives pipelines.
#[derive(Debug)]
pub(super) struct Slos(ArcSwap<eval::Report>);

impl Default for Slos {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(eval::off("the agent is starting")))
    }
}

impl Slos {
    /// The page as it is.
    pub(super) fn report(&self) -> Arc<eval::Report> {
        self.0.load_full()
    }

    /// The page as JSON.
    pub(super) fn page(&self) -> String {
        serde_json::to_string(&**self.0.load()).unwrap_or_default()
    }
}

/// Why Alertmanagers do not take alerts, by name, as one note of the health page.
#[derive(Clone)]
pub(super) struct Standing {
    health: Health,
    down: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Standing {
    pub(super) fn new(health: &Health) -> Self {
        health.note(NOTE_ALERTS, None);
        Self { health: health.clone(), down: Arc::default() }
    }

    /// Takes note for one of them.
    pub(super) fn note(&self, name: &str, why: Option<String>) {
        let mut down = self.down.lock();
        match why {
            Some(why) => down.insert(name.to_owned(), why),
            None => down.remove(name),
        };
        let text = down.values().cloned().collect::<Vec<_>>().join("; ");
        self.health.note(NOTE_ALERTS, Some(text).filter(|text| !text.is_empty()));
    }
}

/// The evaluator of a pipeline.
pub(super) struct Running {
    evaluator: Evaluator,
    origin: Arc<Origin>,
    page: Page,
    slos: Arc<Slos>,
    alerts: watch::Sender<alertmanager::List>,
    generator_url: String,
    valid_ms: i64,
    /// Alerts that fire and were said to, by their labels.
    said: BTreeSet<BTreeMap<String, String>>,
    directory: PathBuf,
    saved_ms: i64,
    refused: u64,
    is_durable: bool,
    health: Health,
}

/// Makes the evaluator, where the config wants one, with what an earlier life left in the state directory; and where its
/// alerts are heard.
pub(super) fn start(
    config: &Config,
    slos: &Arc<Slos>,
    health: &Health,
) -> (Option<Running>, watch::Receiver<alertmanager::List>) {
    let (alerts, heard) = watch::channel(alertmanager::List::default());
    health.note(NOTE, None);
    if let Err(reason) = config.evaluates() {
        slos.0.store(Arc::new(eval::off(reason)));
        return (None, heard);
    }
    let specs = config.slo.specs();
    let mut evaluator = Evaluator::new(&specs, &config.slo.defaults, &config.evaluator);
    for (slo_id, problem) in evaluator.problems() {
        warn!(slo_id, problem, "a rule of an objective is not evaluated");
    }
    if evaluator.compression() > 1 {
        warn!(
            compression = evaluator.compression(),
            "the evaluator's time is compressed: its alerts are a demonstration, and nothing of it is kept or sent"
        );
    } else {
        restore(&mut evaluator, &config.agent.state_dir);
    }
    if specs.iter().any(|spec| spec.mode == crate::config::slo::Mode::Alert) && config.alertmanager.is_empty()
    {
        info!(
            "alerts of objectives are shown at /slos and told to nobody: no [alertmanager.<name>] is configured"
        );
    }
    info!(objectives = specs.len(), interval = %config.evaluator.interval, "objectives are evaluated here");
    slos.0.store(Arc::new(evaluator.report()));
    let grafana = config.slo.defaults.grafana_url.trim_end_matches('/');
    let running = Running {
        evaluator,
        origin: Arc::new(Origin { kind: OriginKind::Slo, labels: Vec::new(), resource: Vec::new() }),
        page: Page::default(),
        slos: Arc::clone(slos),
        alerts,
        generator_url: grafana.to_owned(),
        valid_ms: VALID_MS
            .max(4 * i64::try_from(config.evaluator.interval.0.as_millis()).unwrap_or_default()),
        said: BTreeSet::new(),
        directory: config.agent.state_dir.clone(),
        saved_ms: 0,
        refused: 0,
        is_durable: true,
        health: health.clone(),
    };
    (Some(running), heard)
}

impl Running {
    /// Takes a page of RED.
    pub(super) fn take(&mut self, page: &Page) {
        self.evaluator.take(page, clock::unix_ms());
    }

    /// Runs the rules if they are due; then there is a page to hand on.
    ///
    /// Under compressed time there is none: a series of an hour that is a minute would be taken for what its name says.
    pub(super) fn tick(&mut self) -> Option<(&Arc<Origin>, &mut Page)> {
        let now_ms = clock::unix_ms();
        let at_ms = self.evaluator.due(now_ms)?;
        let changed = self.evaluator.evaluate(at_ms);
        figures::EVALUATIONS.inc();
        figures::EVALUATOR_SERIES.set(self.evaluator.series() as i64);
        let refused = self.evaluator.refused();
        figures::EVALUATOR_REFUSED.inc_by(refused - std::mem::replace(&mut self.refused, refused));
        self.slos.0.store(Arc::new(self.evaluator.report()));
        if self.evaluator.compression() > 1 {
            self.say(&self.evaluator.told());
            return None;
        }
        self.tell(at_ms);
        if changed || at_ms < self.saved_ms || at_ms - self.saved_ms >= SAVE_MS {
            self.save();
            self.saved_ms = at_ms;
        }
        self.evaluator.write(&mut self.page);
        Some((&self.origin, &mut self.page))
    }

    fn tell(&mut self, at_ms: i64) {
        let told = self.evaluator.told();
        self.say(&told);
        let told = told.into_iter().map(|told| alertmanager::Alert {
            generator_url: self.generator_url.clone(),
            labels: told.labels,
            annotations: told.annotations,
            starts_unix_ms: told.starts_unix_ms,
            ends_unix_ms: told.ended_unix_ms.unwrap_or(at_ms + self.valid_ms),
            is_resolved: told.ended_unix_ms.is_some(),
        });
        // Nobody may listen: then they are shown only.
        self.alerts.send_replace(Arc::new(told.collect()));
    }

    /// Says in the agent's own log which alerts begin and end: there may be no Alertmanager.
    fn say(&mut self, told: &[eval::Told]) {
        let text = |of: &BTreeMap<String, String>, name| of.get(name).cloned().unwrap_or_default();
        for alert in told {
            let name = text(&alert.labels, "alertname");
            let (summary, slo_id) = (text(&alert.annotations, "summary"), text(&alert.labels, "slo_id"));
            if alert.ended_unix_ms.is_some() {
                if self.said.remove(&alert.labels) {
                    info!(alert = name, slo_id, "{summary}: over");
                }
            } else if self.said.insert(alert.labels.clone()) {
                let severity = text(&alert.labels, "severity");
                let description = text(&alert.annotations, "description");
                warn!(alert = name, severity, slo_id, "{summary}. {description}");
            }
        }
    }

    /// Makes everything durable.
    pub(super) fn save(&mut self) {
        if self.evaluator.compression() > 1 {
            return;
        }
        let written = eval::FORM.write(&self.directory, FILE, &self.evaluator.save());
        let dir = self.directory.display();
        let was_durable = std::mem::replace(&mut self.is_durable, written.is_ok());
        match written {
            Ok(()) if !was_durable => info!(%dir, "objectives are durable again"),
            Ok(()) => {}
            Err(error) => {
                figures::EVALUATOR_STATE_FAILURES.inc();
                if was_durable {
                    warn!(%dir, %error, "what is known of objectives cannot be made durable; it goes on in memory");
                }
            }
        }
        let note =
            "the state directory cannot be written: a restart forgets budgets and alerts of objectives";
        self.health.note(NOTE, (!self.is_durable).then(|| note.to_owned()));
    }
}

fn restore(evaluator: &mut Evaluator, directory: &Path) {
    let file = directory.join(FILE);
    let restored = match eval::FORM.read(&file) {
        Ok(bytes) => evaluator.restore(&bytes).map_err(|damage| damage.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => Err(error.to_string()),
    };
    match restored {
        Ok(()) => evaluator.resume(clock::unix_ms()),
        Err(error) => {
            figures::CHECKPOINT_CORRUPT.with_label_values(&[FILE]).inc();
            warn!(file = %file.display(), error, "what was known of objectives cannot be read; their budgets begin anew");
        }
    }
}
