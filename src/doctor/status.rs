//! `nodewick status`: the running agent on one screen.
//!
//! In: its health pages, its metrics, its targets and its worst logs. Out: text or JSON, and a [`State`] that is the exit code.
//! Invariant: seven requests, nothing else; what the agent does not say is not shown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::agent::sum;
use super::report::{Colour, Status, printable};
use crate::admin::client::{Client, Sample};
use crate::config::memory::Human;
use crate::data::clock;
use crate::scrape::status::{Row, State as Target};
use crate::sink::said::Said;
use crate::slo::eval;

/// How the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does its work.
    Ok,
    /// It runs, and something keeps it from its work: a sink is down, it is not ready, logs are about to be lost.
    Degraded,
    /// It does not answer, or hangs.
    Down,
}

/// Logs are about to be lost when the kubelet deletes unread bytes sooner.
const DANGER_SECONDS: f64 = 600.0;
/// Shown as time to loss when there is none: see `nodewick_log_time_to_loss_min_seconds`.
const NO_DANGER_SECONDS: f64 = 31_536_000.0;

/// A backend as the agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sink {
    /// Kind and name.
    pub sink: String,
    /// Its backend answers.
    pub up: bool,
    /// Records that it took since the agent's start; samples for a sink of those.
    pub delivered: u64,
    /// Records that it refused for good, or samples that it did not get.
    pub lost: u64,
    /// What it said last when it did not take a request, and how many seconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
    /// It takes samples.
    pub of_samples: bool,
    /// Bytes that wait for it.
    pub queue_bytes: u64,
}

/// A log that is behind, as `/ledger` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Behind {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Bytes not yet read.
    pub waiting_bytes: u64,
    /// Seconds until they are deleted; absent when nothing is written.
    pub time_to_loss_seconds: Option<f64>,
}

/// What is scraped, and how far the samples have come.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Scraping {
    /// Targets.
    pub targets: usize,
    /// Those whose last scrape was good.
    pub up: usize,
    /// Samples that they expose together, by their intervals.
    pub samples_per_second: f64,
    /// Seconds by which each sink of samples is behind: from the newest sample that it has taken to the newest delivered.
    pub lag_seconds: Vec<(String, u64)>,
}

impl Scraping {
    /// What the targets and the metrics say; `None` where there are neither targets nor sinks of samples.
    fn of(rows: &[Row], metrics: &[Sample]) -> Option<Self> {
        let mut found = Self::default();
        for row in rows.iter().filter(|row| row.state != Target::NotScraped) {
            found.targets += 1;
            found.up += usize::from(row.state == Target::Up);
            let interval = row.interval_seconds.filter(|interval| *interval > 0.0);
            if let (Target::Up, Some(samples), Some(interval)) = (row.state, row.samples, interval) {
                found.samples_per_second += samples as f64 / interval;
            }
        }
        let newest = |sink: &str, stage: &str| {
            let of = |sample: &Sample| sample.label("sink") == sink && sample.label("stage") == stage;
            sum(metrics, "nodewick_sink_newest_sample_timestamp_seconds", of)
        };
        for sample in metrics.iter().filter(|sample| {
            sample.name == "nodewick_sink_newest_sample_timestamp_seconds" && sample.label("stage") == "taken"
        }) {
            let sink = sample.label("sink");
            let delivered = newest(sink, "delivered");
            // Until something was delivered nobody knows since when it waits.
            if sample.value > 0.0 && delivered > 0.0 {
                found.lag_seconds.push((sink.to_owned(), (sample.value - delivered).max(0.0) as u64));
            }
        }
        (found.targets > 0 || !found.lag_seconds.is_empty()).then_some(found)
    }

    fn text(&self) -> String {
        let mut out =
            format!("{} of {} targets up, {:.0} samples/s", self.up, self.targets, self.samples_per_second);
        for (sink, lag) in &self.lag_seconds {
            let _ = write!(out, "; {} {} behind", printable(sink), age(*lag));
        }
        out
    }
}

/// The agent on one screen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Screen {
    /// How it is.
    pub state: State,
    /// Where it was asked.
    pub address: String,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<String>,
    /// Its version; absent when it does not answer.
    pub version: Option<String>,
    /// Seconds since its start.
    pub up_seconds: u64,
    /// Logs that are followed.
    pub logs: u64,
    /// Log bytes by what became of them: `written`, `sent`, `in_flight`, `waiting`, `dropped`, `lost`.
    pub bytes: Vec<(String, u64)>,
    /// Bytes that nobody can explain.
    pub unexplained_bytes: i64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Log data in memory, and how much may be.
    pub budget_bytes: (u64, u64),
    /// Bytes in the spill.
    pub spill_bytes: u64,
    /// Seconds since the checkpoint was last made durable; absent before the first.
    pub checkpoint_age_seconds: Option<u64>,
    /// The sinks.
    pub sinks: Vec<Sink>,
    /// The logs that are most behind, at most three.
    pub behind: Vec<Behind>,
    /// Metrics, where any are scraped or sent.
    pub metrics: Option<Scraping>,
    /// Objectives, where the agent judges any.
    pub slos: Option<Objectives>,
}

/// Objectives on one line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Objectives {
    /// How many are judged.
    pub objectives: usize,
    /// Those without any data.
    pub without_data: usize,
    /// Alerts that fire: name and objective.
    pub firing: Vec<(String, String)>,
    /// Objectives whose budget is spent.
    pub spent: Vec<String>,
}

impl Objectives {
    fn of(report: &eval::Report) -> Option<Self> {
        let mut found = Self { objectives: report.objectives.len(), ..Self::default() };
        for row in &report.objectives {
            found.without_data += usize::from(row.good.values().all(Option::is_none));
            let firing = row.alerts.iter().filter(|alert| alert.state == "firing");
            found.firing.extend(firing.map(|alert| (alert.name.clone(), row.slo_id.clone())));
            found.spent.extend(row.budget_remaining.filter(|left| *left <= 0.0).map(|_| row.slo_id.clone()));
        }
        (report.evaluator && found.objectives > 0).then_some(found)
    }

    fn text(&self) -> String {
        let mut out = format!("{} judged here", several(self.objectives as u64, "objective"));
        if self.without_data > 0 {
            let _ = write!(out, ", {} without data", self.without_data);
        }
        for (alert, slo_id) in &self.firing {
            let _ = write!(out, "; {} fires for {}", printable(alert), printable(slo_id));
        }
        for slo_id in &self.spent {
            let _ = write!(out, "; the budget of {} is spent", printable(slo_id));
        }
        if self.firing.is_empty() && self.spent.is_empty() {
            out.push_str("; no alert fires");
        }
        out
    }
}

/// Looks at the agent behind `client`.
pub fn look(client: Client) -> Screen {
    let mut screen = Screen {
        state: State::Down,
        address: client.address().to_string(),
        problems: Vec::new(),
        version: None,
        up_seconds: 0,
        logs: 0,
        bytes: Vec::new(),
        unexplained_bytes: 0,
        resident_bytes: 0,
        budget_bytes: (0, 0),
        spill_bytes: 0,
        checkpoint_age_seconds: None,
        sinks: Vec::new(),
        behind: Vec::new(),
        metrics: None,
        slos: None,
    };
    let metrics = match client.metrics() {
        Ok(metrics) => metrics,
        Err(error) => {
            screen.problems.push(format!("no agent answers: {error}"));
            return screen;
        }
    };
    let now = clock::since_epoch().as_secs_f64();
    screen.fill(&metrics, now);
    screen.state = State::Ok;
    for (path, worst, name) in
        [("/health/live", State::Down, "alive"), ("/health/ready", State::Degraded, "ready")]
    {
        match client.get(&format!("{path}?verbose")) {
            Ok(page) if page.status == 200 => {
                let notes = page.body.lines().filter_map(|line| line.strip_prefix("[!]"));
                screen.problems.extend(notes.map(str::to_owned));
            }
            Ok(page) => {
                screen.state = screen.state.max(worst);
                let failed = page.body.lines().filter_map(|line| line.strip_prefix("[-]"));
                screen
                    .problems
                    .extend(failed.map(|line| format!("not {name}: {}", line.replacen(" failed:", ":", 1))));
            }
            Err(error) => {
                screen.state = State::Down;
                screen.problems.push(format!("{path} does not answer: {error}"));
            }
        }
        if screen.state == State::Down {
            return screen;
        }
    }
    let said = client.get("/sinks").ok().filter(|page| page.status == 200);
    let said: Vec<Said> = said.and_then(|page| serde_json::from_str(&page.body).ok()).unwrap_or_default();
    for own in said {
        if let Some(sink) = screen.sinks.iter_mut().find(|sink| sink.sink == own.sink) {
            sink.said = Some(own);
        }
    }
    screen.judge(&metrics);
    if let Ok(page) = client.get("/ledger?worst=3")
        && let Ok(mut behind) = serde_json::from_str::<Vec<Behind>>(&page.body)
    {
        behind.retain(|log| log.waiting_bytes > 0);
        screen.behind = behind;
    }
    let targets = client.get("/targets").ok().filter(|page| page.status == 200);
    let rows: Vec<Row> = targets.and_then(|page| serde_json::from_str(&page.body).ok()).unwrap_or_default();
    screen.metrics = Scraping::of(&rows, &metrics);
    let slos = client.get("/slos").ok().filter(|page| page.status == 200);
    let report: Option<eval::Report> = slos.and_then(|page| serde_json::from_str(&page.body).ok());
    screen.slos = report.as_ref().and_then(Objectives::of);
    screen
}

impl Screen {
    fn fill(&mut self, metrics: &[Sample], now: f64) {
        let value = |name: &str| sum(metrics, name, |_| true);
        let info = metrics.iter().find(|sample| sample.name == "nodewick_build_info");
        self.version = info.map(|info| info.label("version").to_owned());
        self.up_seconds = (now - value("process_start_time_seconds")).max(0.0) as u64;
        self.logs = value("nodewick_logs_open") as u64;
        for state in ["written", "sent", "in_flight", "waiting", "dropped", "lost"] {
            let bytes = sum(metrics, "nodewick_ledger_bytes", |sample| sample.label("state") == state);
            self.bytes.push((state.to_owned(), bytes as u64));
        }
        self.unexplained_bytes = value("nodewick_ledger_unexplained_bytes") as i64;
        self.resident_bytes = value("process_resident_memory_bytes") as u64;
        self.budget_bytes =
            (value("nodewick_budget_held_bytes") as u64, value("nodewick_budget_limit_bytes") as u64);
        self.spill_bytes = value("nodewick_spill_bytes") as u64;
        let saved = value("nodewick_checkpoint_timestamp_seconds");
        self.checkpoint_age_seconds = (saved > 0.0).then_some((now - saved).max(0.0) as u64);
        let mut names: Vec<&str> = metrics
            .iter()
            .filter(|sample| {
                matches!(
                    sample.name.as_str(),
                    "nodewick_sink_records_total" | "nodewick_sink_samples_total" | "nodewick_sink_up"
                )
            })
            .map(|sample| sample.label("sink"))
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let records = |outcome: &str| {
                let of = |sample: &Sample| sample.label("sink") == name && sample.label("outcome") == outcome;
                sum(metrics, "nodewick_sink_records_total", of) as u64
            };
            let of = |sample: &Sample| sample.label("sink") == name;
            let samples = |outcome: &str| {
                let of = |sample: &Sample| of(sample) && sample.label("outcome") == outcome;
                sum(metrics, "nodewick_sink_samples_total", of) as u64
            };
            let of_samples = metrics.iter().any(|s| s.name == "nodewick_sink_samples_total" && of(s));
            let queues = ["nodewick_sink_queue_bytes", "nodewick_sink_samples_queue_bytes"];
            self.sinks.push(Sink {
                sink: name.to_owned(),
                up: !metrics.iter().any(|s| s.name == "nodewick_sink_up" && of(s) && s.value == 0.0),
                delivered: if of_samples { samples("delivered") } else { records("delivered") },
                lost: if of_samples {
                    sum(metrics, "nodewick_sink_samples_lost_total", of) as u64
                } else {
                    records("lost")
                },
                said: None,
                of_samples,
                queue_bytes: queues.iter().map(|queue| sum(metrics, queue, of)).fold(0.0, f64::max) as u64,
            });
        }
    }

    /// What keeps it from its work, beyond what its readiness says.
    fn judge(&mut self, metrics: &[Sample]) {
        for sink in self.sinks.iter().filter(|sink| !sink.up) {
            let what =
                if sink.of_samples { "samples wait in memory" } else { "lines are kept and tried again" };
            let mut problem = format!("{} is down; its {what}", sink.sink);
            if let Some(said) = &sink.said {
                let _ = write!(problem, "; it said {} ago: {}", age(said.age_seconds), said.error);
            }
            self.problems.push(problem);
        }
        let left = sum(metrics, "nodewick_log_time_to_loss_min_seconds", |_| true);
        let is_behind = sum(metrics, "nodewick_log_generation_lag_max", |_| true) > 0.0;
        if is_behind && left < DANGER_SECONDS {
            self.problems.push(format!("unread logs are deleted in {} at this rate", age(left as u64)));
        }
        if !self.problems.is_empty() {
            self.state = self.state.max(State::Degraded);
        }
    }

    /// The screen for people.
    pub fn text(&self, colour: Colour) -> String {
        let (status, word) = match self.state {
            State::Ok => (Status::Ok, "ok"),
            State::Degraded => (Status::Warning, "degraded"),
            State::Down => (Status::Failure, "down"),
        };
        let mut out = String::new();
        let word = colour.paint(status, word);
        let _ = match &self.version {
            Some(version) => {
                writeln!(
                    out,
                    "{word}  nodewick {} at {}, up {}",
                    printable(version),
                    self.address,
                    age(self.up_seconds)
                )
            }
            None => writeln!(out, "{word}  {}", self.address),
        };
        for problem in &self.problems {
            let _ = writeln!(out, "{} {}", colour.paint(status, status.mark()), printable(problem));
        }
        if self.version.is_none() {
            return out;
        }
        let bytes =
            |state: &str| self.bytes.iter().find(|(name, _)| name == state).map_or(0, |(_, bytes)| *bytes);
        let _ = writeln!(
            out,
            "\nlogs        {} followed; since the start {} written, {} sent, {} in flight, {} waiting",
            self.logs,
            Human(bytes("written")),
            Human(bytes("sent")),
            Human(bytes("in_flight")),
            Human(bytes("waiting")),
        );
        let losses = match (bytes("lost"), self.unexplained_bytes) {
            (0, 0) => "nothing".to_owned(),
            (lost, 0) => Human(lost).to_string(),
            (lost, unexplained) => format!("{}, {unexplained} bytes unexplained", Human(lost)),
        };
        let _ = writeln!(out, "lost        {losses}; dropped by rules {}", Human(bytes("dropped")));
        let (held, limit) = self.budget_bytes;
        let _ = writeln!(
            out,
            "memory      {} resident, {} of {} for log data",
            Human(self.resident_bytes),
            Human(held),
            Human(limit)
        );
        let checkpoint = match self.checkpoint_age_seconds {
            Some(seconds) => format!("saved {} ago", age(seconds)),
            None => "not saved yet".to_owned(),
        };
        let _ = writeln!(out, "state       {checkpoint}; spill {}", Human(self.spill_bytes));
        let width = self.sinks.iter().map(|sink| sink.sink.chars().count()).max().unwrap_or(0);
        for (at, sink) in self.sinks.iter().enumerate() {
            let head = if at == 0 { "sinks" } else { "" };
            let mark = if sink.up { Status::Ok } else { Status::Failure };
            let noun = if sink.of_samples { "sample" } else { "line" };
            let mut line =
                format!("{} delivered, {} queued", several(sink.delivered, noun), Human(sink.queue_bytes));
            if sink.lost > 0 {
                let how = if sink.of_samples { "lost" } else { "refused for good" };
                let _ = write!(line, ", {} {how}", several(sink.lost, noun));
            }
            let mark = colour.paint(mark, mark.mark());
            let _ = writeln!(out, "{head:<11} {mark} {:width$}  {line}", printable(&sink.sink));
        }
        if let Some(metrics) = &self.metrics {
            let _ = writeln!(out, "metrics     {}", metrics.text());
        }
        if let Some(slos) = &self.slos {
            let _ = writeln!(out, "slos        {}", slos.text());
        }
        for (at, log) in self.behind.iter().enumerate() {
            let head = if at == 0 { "behind" } else { "" };
            let left = match log.time_to_loss_seconds {
                Some(seconds) if seconds < NO_DANGER_SECONDS => {
                    format!(", deleted in {}", age(seconds as u64))
                }
                _ => String::new(),
            };
            let name = printable(&format!("{}/{}/{}", log.namespace, log.pod, log.container));
            let _ = writeln!(out, "{head:<11} {name}: {} unread{left}", Human(log.waiting_bytes));
        }
        out
    }

    /// The screen for programs.
    pub fn json(&self) -> String {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        json["bytes"] = self
            .bytes
            .iter()
            .map(|(state, bytes)| (state.clone(), (*bytes).into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        if let Some(metrics) = &self.metrics {
            json["metrics"]["lag_seconds"] = metrics
                .lag_seconds
                .iter()
                .map(|(sink, lag)| (sink.clone(), (*lag).into()))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        json["budget_bytes"] = serde_json::json!({"held": self.budget_bytes.0, "limit": self.budget_bytes.1});
        format!("{json:#}\n")
    }
}

/// A count with its noun.
fn several(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A span of time in its two largest units: `3d 4h`, `5m 3s`.
pub fn age(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(3);
    let (name, unit) = units[first];
    let mut out = format!("{}{name}", seconds / unit);
    if let Some((name, smaller)) = units.get(first + 1)
        && seconds % unit / smaller > 0
    {
        let _ = write!(out, " {}{name}", seconds % unit / smaller);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::samples;

    #[test]
    fn time_is_shown_in_two_units() {
        for (seconds, shown) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (303, "5m 3s"), (86_400 * 3 + 3600 * 4 + 59, "3d 4h")]
        {
            assert_eq!(age(seconds), shown);
        }
    }

    #[test]
    fn metrics_are_one_line_of_targets_samples_and_lag() {
        let row = |state, samples| Row { state, samples, interval_seconds: Some(15.0), ..Row::default() };
        let rows = [
            row(Target::Up, Some(1629)),
            row(Target::Up, Some(300)),
            row(Target::Down, Some(3000)),
            row(Target::NotScraped, None),
        ];
        let page = "nodewick_sink_newest_sample_timestamp_seconds{sink=\"remote_write.main\",stage=\"taken\"} 1090\n\
                    nodewick_sink_newest_sample_timestamp_seconds{sink=\"remote_write.main\",stage=\"delivered\"} 1000\n\
                    nodewick_sink_newest_sample_timestamp_seconds{sink=\"otlp.o.metrics\",stage=\"taken\"} 1090\n";
        let found = Scraping::of(&rows, &samples(page)).expect("there are targets");
        assert_eq!(found.text(), "2 of 3 targets up, 129 samples/s; remote_write.main 1m 30s behind");
        assert_eq!(Scraping::of(&rows[3..], &[]), None, "nothing to say");
    }

    #[test]
    fn a_screen_shows_what_is_wrong_first() {
        let page = "nodewick_build_info{version=\"0.1.0\",revision=\"x\",rustc=\"y\"} 1\n\
                    process_start_time_seconds 1000\nnodewick_logs_open 2\n\
                    process_resident_memory_bytes 33554432\n\
                    nodewick_ledger_bytes{state=\"written\"} 2048\nnodewick_ledger_bytes{state=\"sent\"} 1024\n\
                    nodewick_ledger_bytes{state=\"waiting\"} 1024\n\
                    nodewick_budget_limit_bytes 33554432\nnodewick_checkpoint_timestamp_seconds 1098\n\
                    nodewick_sink_up{sink=\"loki.main\"} 0\n\
                    nodewick_sink_records_total{sink=\"loki.main\",outcome=\"delivered\"} 1\n\
                    nodewick_log_time_to_loss_min_seconds 90\nnodewick_log_generation_lag_max 1\n";
        let mut screen = look(Client::new("127.0.0.1:1".parse().expect("an address")));
        assert_eq!(screen.state, State::Down);
        assert_eq!(screen.text(Colour(false)).lines().next(), Some("down  127.0.0.1:1"));
        screen.problems.clear();
        screen.state = State::Ok;
        screen.fill(&samples(page), 1100.0);
        let said = r#"{"sink":"loki.main","error":"HTTP 503","unix_seconds":1088,"age_seconds":12}"#;
        screen.sinks[0].said = serde_json::from_str(said).ok();
        screen.judge(&samples(page));
        assert_eq!(screen.state, State::Degraded);
        assert_eq!(
            screen.text(Colour(false)),
            "degraded  nodewick 0.1.0 at 127.0.0.1:1, up 1m 40s\n\
             ‼ loki.main is down; its lines are kept and tried again; it said 12s ago: HTTP 503\n\
             ‼ unread logs are deleted in 1m 30s at this rate\n\
             \n\
             logs        2 followed; since the start 2 KiB written, 1 KiB sent, 0B in flight, 1 KiB waiting\n\
             lost        nothing; dropped by rules 0B\n\
             memory      32 MiB resident, 0B of 32 MiB for log data\n\
             state       saved 2s ago; spill 0B\n\
             sinks       × loki.main  1 line delivered, 0B queued\n"
        );
        let json: serde_json::Value = serde_json::from_str(&screen.json()).expect("JSON");
        assert_eq!((&json["state"], &json["bytes"]["sent"]), (&"degraded".into(), &1024.into()));
    }

    #[test]
    fn objectives_are_one_line() {
        let page = r#"{"evaluator":true,"evaluated_unix_ms":1,"objectives":[{"slo_id":"shop/api/up","sli":"availability",
            "threshold_seconds":null,"objective":0.999,"window":"30d","mode":"alert","owner":"","good":{"5m":0.5},"events":{},
            "burn_rate":{},"budget_remaining":-0.5,"coverage":{},"exhausted_in_seconds":0,"alerts":[{"name":"SLOErrorBudgetBurn",
            "state":"firing","since_unix_ms":1,"annotations":{}}]}]}"#;
        let report: eval::Report = serde_json::from_str(page).expect("a report");
        assert_eq!(
            Objectives::of(&report).expect("objectives").text(),
            "1 objective judged here; SLOErrorBudgetBurn fires for shop/api/up; the budget of shop/api/up is spent"
        );
        assert_eq!(Objectives::of(&eval::off("nothing")), None);
    }

    #[test]
    fn sinks_of_samples_are_told_in_samples() {
        let page = "nodewick_build_info{version=\"0.1.0\",revision=\"x\",rustc=\"y\"} 1\n\
                    nodewick_sink_up{sink=\"remote_write.m\"} 0\n\
                    nodewick_sink_samples_total{sink=\"remote_write.m\",outcome=\"delivered\"} 1629\n\
                    nodewick_sink_samples_lost_total{sink=\"remote_write.m\",reason=\"too_old\"} 2\n\
                    nodewick_sink_samples_queue_bytes{sink=\"remote_write.m\"} 2048\n";
        let mut screen = look(Client::new("127.0.0.1:1".parse().expect("an address")));
        screen.problems.clear();
        screen.fill(&samples(page), 1100.0);
        screen.judge(&samples(page));
        let text = screen.text(Colour(false));
        let problem = "remote_write.m is down; its samples wait in memory\n";
        let line = "sinks       × remote_write.m  1629 samples delivered, 2 KiB queued, 2 samples lost\n";
        assert!(text.contains(problem) && text.contains(line), "{text}");
    }
}
