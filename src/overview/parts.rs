//! From two looks to a picture: each part of it, with its rates.
//!
//! In: the newest [`Look`] and an older one. Out: an [`Overview`]. Pure. Invariant: a counter that went back (another
//! agent's life, a log that is gone) gives no rate, never a negative one.

use super::look::{Counters, Look};
use super::{
    About, Flow, Issue, Ledger, Level, Loss, Omitted, Overview, Pipeline, Point, Pressure, Red, SERVICES,
    STREAMS, Scraping, Service, Sink, Stream, StreamState, TARGETS, TEXT, Target, TargetState, objectives,
};
use crate::data::account::Account;
use crate::red::recent;

/// Unread lines that the kubelet deletes within this time are in danger.
const DANGER_SECONDS: f64 = 600.0;
/// More than this much of what is written waits: the log is behind.
const BEHIND_SECONDS: f64 = 10.0;
/// Below this nothing is written.
const LEAST_RATE: f64 = 1.0;
/// Share of the budget from which on reading rests.
const FULL: f64 = 0.95;

/// The picture of `now`, with rates since `before`.
pub(super) fn overview(now: &Look, before: Option<&Look>) -> Overview {
    let rates = Rates::new(now, before);
    let mut omitted = Omitted::default();
    let (objectives, left_out) = now.report.as_ref().map(|report| objectives::of(report)).unwrap_or_default();
    omitted.objectives = left_out;
    omitted.services = now.red.omitted as u64;
    let streams = streams(now, &rates, &mut omitted);
    let targets = targets(now, &mut omitted);
    let sinks = sinks(now, &rates);
    let pipeline = pipeline(now, &rates, &sinks);
    let mut found = Overview {
        agent: about(now, &rates),
        pipeline,
        scraping: scraping(now, &rates),
        services: now.red.services.iter().take(SERVICES).map(service).collect(),
        objectives,
        targets,
        streams,
        sinks,
        issues: Vec::new(),
        omitted,
    };
    found.issues = issues(now, &found);
    found.agent.state = found.issues.iter().map(|issue| issue.level).max().unwrap_or_default();
    found
}

/// The time between two looks, and what grew in it.
struct Rates<'a> {
    now: &'a Counters,
    before: Option<(&'a Counters, f64)>,
}

impl<'a> Rates<'a> {
    fn new(now: &'a Look, before: Option<&'a Look>) -> Self {
        let before = before.and_then(|before| {
            let seconds = now.at.checked_sub(before.at)?.as_secs_f64();
            (seconds > 0.0).then_some((&before.counters, seconds))
        });
        Self { now: &now.counters, before }
    }

    fn seconds(&self) -> Option<f64> {
        self.before.map(|(_, seconds)| seconds)
    }

    /// How fast a counter grows; `None` without an older look or when it went back.
    fn of(&self, counter: impl Fn(&Counters) -> Option<u64>) -> Option<f64> {
        let (before, seconds) = self.before?;
        let grown = counter(self.now)?.checked_sub(counter(before)?)?;
        Some(grown as f64 / seconds)
    }

    /// Lines and bytes, each where it is known.
    fn flow(
        &self,
        lines: impl Fn(&Counters) -> Option<u64>,
        bytes: impl Fn(&Counters) -> Option<u64>,
    ) -> Flow {
        Flow {
            lines: lines(self.now).unwrap_or_default(),
            bytes: bytes(self.now).unwrap_or_default(),
            lines_per_second: self.of(lines),
            bytes_per_second: self.of(bytes),
        }
    }
}

/// `text`, at most [`TEXT`] bytes of it.
pub(super) fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

fn about(now: &Look, rates: &Rates<'_>) -> About {
    let cpu = rates
        .before
        .map(|(before, seconds)| (now.counters.cpu_seconds - before.cpu_seconds).max(0.0) / seconds);
    let uptime = now.gauges.started_unix_seconds.map(|start| now.time_unix_ms as f64 / 1e3 - start);
    About {
        version: crate::version::BUILD.version.to_owned(),
        time_unix_ms: now.time_unix_ms,
        uptime_seconds: uptime.unwrap_or_default().max(0.0).floor(),
        rates_over_seconds: rates.seconds(),
        memory_bytes: now.gauges.memory,
        memory_limit_bytes: Some(now.gauges.memory_limit).filter(|limit| *limit > 0),
        cpu_cores: cpu,
        ..About::default()
    }
}

fn pipeline(now: &Look, rates: &Rates<'_>, sinks: &[Sink]) -> Pipeline {
    let (gauges, node) = (&now.gauges, &now.node);
    let loss = |reason: &str, rule: &str, flow: Flow| Loss {
        reason: reason.to_owned(),
        rule: rule.to_owned(),
        flow,
    };
    let dropped =
        rates.now.dropped.iter().filter(|(_, (records, bytes))| *records + *bytes > 0).map(|(key, _)| {
            let of = |counters: &Counters| counters.dropped.get(key).copied();
            loss(&key.0, &key.1, rates.flow(|all| Some(of(all)?.0), |all| Some(of(all)?.1)))
        });
    let lost =
        rates.now.lost.iter().filter(|(_, (records, bytes))| *records + *bytes > 0).map(|(reason, _)| {
            let of = |counters: &Counters| counters.lost.get(reason).copied();
            loss(reason, "", rates.flow(|all| Some(of(all)?.0), |all| Some(of(all)?.1)))
        });
    let danger = now.accounts.iter().filter(|account| account.is_behind()).filter_map(|of| of.time_to_loss);
    let full = gauges.budget_limit > 0 && gauges.budget_held as f64 >= gauges.budget_limit as f64 * FULL;
    Pipeline {
        logs: gauges.logs,
        logs_parked: gauges.logs_parked,
        logs_waiting: gauges.logs_waiting,
        written: rates.flow(|_| None, |all| Some(all.written_bytes)),
        read: rates.flow(|all| Some(all.records), |all| Some(all.read_bytes)),
        parsed: rates.flow(|all| Some(all.records.saturating_sub(all.unparsed)), |_| None),
        processed: rates.flow(|all| Some(all.kept_records), |all| Some(all.kept_bytes)),
        delivered: rates.flow(|all| Some(all.delivered_records), |all| Some(all.delivered_bytes)),
        traced_ratio: (rates.now.records > 0)
            .then(|| (rates.now.traced as f64 / rates.now.records as f64).min(1.0)),
        dropped: dropped.collect(),
        lost: lost.collect(),
        pressure: Pressure {
            budget_held_bytes: gauges.budget_held,
            budget_limit_bytes: gauges.budget_limit,
            is_blocked: full,
            unread_bytes: node.waiting,
            oldest_unread_seconds: now.oldest_unread.as_secs_f64(),
            time_to_loss_seconds: danger.min_by(f64::total_cmp),
            spill_bytes: gauges.spill,
            spill_limit_bytes: gauges.spill_limit,
            held_deleted_bytes: gauges.held_deleted,
            queue_bytes: sinks.iter().map(|sink| sink.queue_bytes).sum(),
        },
        ledger: Ledger {
            written_bytes: node.written,
            sent_bytes: node.sent,
            in_flight_bytes: node.in_flight,
            waiting_bytes: node.waiting,
            dropped_bytes: node.dropped_bytes(),
            lost_bytes: node.lost_bytes(),
            unexplained_bytes: node.unexplained,
        },
    }
}

fn scraping(now: &Look, rates: &Rates<'_>) -> Scraping {
    let mut found = Scraping {
        series: now.gauges.series,
        series_limit: now.gauges.series_limit,
        samples_per_second: rates.of(|all| Some(all.samples)),
        failures_per_second: rates.of(|all| Some(all.scrape_failures)),
        ..Scraping::default()
    };
    for row in now.rows.iter() {
        match row.state {
            TargetState::Up => found.up += 1,
            TargetState::Down => found.down += 1,
            TargetState::Unknown => found.unknown += 1,
            TargetState::NotScraped => found.not_scraped += 1,
        }
    }
    found
}

fn figures(of: &recent::Figures, seconds: Option<f64>) -> Red {
    Red {
        requests: of.requests,
        errors: of.errors,
        per_second: seconds.filter(|seconds| *seconds > 0.0).map(|seconds| of.requests as f64 / seconds),
        error_ratio: (of.requests > 0).then(|| of.errors as f64 / of.requests as f64),
        p50_seconds: of.p50,
        p99_seconds: of.p99,
    }
}

fn service(of: &recent::Service) -> Service {
    let point = |step: &recent::Step| Point {
        time_unix_ms: step.time_unix_ms,
        per_second: f64::from(step.per_second),
        errors_per_second: f64::from(step.errors_per_second),
        p99_seconds: step.p99.map(f64::from),
    };
    Service {
        namespace: of.namespace.clone(),
        workload: of.workload.clone(),
        service: of.service.clone(),
        source: of.source.to_owned(),
        confidence: of.confidence,
        lag_seconds: of.lag_seconds,
        whole: figures(&of.whole, None),
        last_minute: figures(&of.minute, Some(of.minute_seconds)),
        history: of.history.iter().map(point).collect(),
    }
}

fn targets(now: &Look, omitted: &mut Omitted) -> Vec<Target> {
    let mut rows: Vec<_> = now.rows.iter().collect();
    let rank = |state: TargetState| match state {
        TargetState::Down => 0,
        TargetState::Unknown => 1,
        TargetState::Up => 2,
        TargetState::NotScraped => 3,
    };
    rows.sort_by_key(|row| (rank(row.state), &row.namespace, &row.pod, &row.url));
    omitted.targets = rows.len().saturating_sub(TARGETS) as u64;
    let target = |row: &crate::scrape::status::Row| {
        let is_good = row.reason.is_empty();
        let (reason, message) = match (is_good, row.pod.is_empty()) {
            (false, _) => (row.reason.clone(), bounded(&row.message)),
            (true, true) => ("static".to_owned(), "the config names it".to_owned()),
            (true, false) => ("pod".to_owned(), "a pod of this node that is to be scraped".to_owned()),
        };
        Target {
            namespace: row.namespace.clone(),
            pod: row.pod.clone(),
            url: bounded(&row.url),
            job: row.labels.get("job").cloned().unwrap_or_default(),
            state: row.state,
            reason,
            message,
            hint: bounded(&row.hint),
            interval_seconds: row.interval_seconds,
            age_seconds: row.age_seconds,
            duration_seconds: row.duration_seconds,
            samples: row.samples,
            last_error: row.last_error.as_deref().map(bounded),
            last_error_age_seconds: row.last_error_age_seconds,
        }
    };
    rows.into_iter().take(TARGETS).map(target).collect()
}

fn streams(now: &Look, rates: &Rates<'_>, omitted: &mut Omitted) -> Vec<Stream> {
    let mut found: Vec<Stream> = now.accounts.iter().map(|account| stream(account, rates)).collect();
    found.sort_by(|a, b| {
        let rate = |of: &Stream| of.bytes_per_second.unwrap_or_default();
        (b.state.cmp(&a.state))
            .then(b.generation_lag.cmp(&a.generation_lag))
            .then(rate(b).total_cmp(&rate(a)))
            .then_with(|| {
                (&a.namespace, &a.pod, &a.container, a.restart).cmp(&(
                    &b.namespace,
                    &b.pod,
                    &b.container,
                    b.restart,
                ))
            })
    });
    omitted.streams = found.len().saturating_sub(STREAMS) as u64;
    found.truncate(STREAMS);
    found
}

fn stream(of: &Account, rates: &Rates<'_>) -> Stream {
    let key = (of.uid.clone(), of.container.clone(), of.restart);
    let counted = |all: &Counters| all.streams.get(&key).copied();
    let losing = rates.of(|all| Some(counted(all)?.1)).is_some_and(|rate| rate > 0.0);
    let rate = of.write_rate.filter(|rate| *rate > 0.0);
    let lag_bytes = of.sums.waiting + of.sums.in_flight;
    let lag_seconds = rate.map(|rate| lag_bytes as f64 / rate);
    let danger = of.time_to_loss.filter(|_| of.is_behind());
    let writes = rate.is_some_and(|rate| rate >= LEAST_RATE);
    let state = if losing {
        StreamState::Losing
    } else if danger.is_some_and(|seconds| seconds < DANGER_SECONDS) && of.sums.waiting > 0 && writes {
        StreamState::InDanger
    } else if of.generation_lag > 0 || lag_seconds.is_some_and(|lag| lag > BEHIND_SECONDS && writes) {
        StreamState::Behind
    } else if of.gone {
        StreamState::Gone
    } else if writes || lag_bytes > 0 {
        StreamState::Live
    } else {
        StreamState::Idle
    };
    Stream {
        namespace: of.namespace.clone(),
        pod: of.pod.clone(),
        container: of.container.clone(),
        restart: of.restart,
        service: of.service_name.clone(),
        bytes_per_second: of.write_rate,
        lines_per_second: rates.of(|all| Some(counted(all)?.0)),
        written_bytes: of.sums.written,
        delivered_lines: of.sums.delivered_records,
        lag_bytes,
        lag_seconds,
        generation_lag: of.generation_lag,
        time_to_loss_seconds: danger,
        lost_bytes: of.sums.lost_bytes(),
        dropped_bytes: of.sums.dropped_bytes(),
        state,
    }
}

fn sinks(now: &Look, rates: &Rates<'_>) -> Vec<Sink> {
    let now_seconds = now.time_unix_ms / 1_000;
    let sink = |(name, gauges): (&String, &super::look::SinkGauges)| {
        let of = |all: &Counters| all.sinks.get(name).cloned();
        let counters = of(rates.now).unwrap_or_default();
        let said = now.said.iter().find(|said| said.sink == *name);
        Sink {
            name: name.clone(),
            signal: if counters.of_samples { "metrics" } else { "logs" }.to_owned(),
            up: Some(gauges.up),
            delivered: rates.flow(|all| Some(of(all)?.delivered), |all| Some(of(all)?.sent_bytes)),
            lost: counters.lost,
            requests_per_second: rates.of(|all| Some(of(all)?.requests)),
            retries_per_second: rates.of(|all| Some(of(all)?.retries)),
            p99_seconds: gauges.p99_seconds,
            queue_bytes: gauges.queue_bytes,
            last_success_age_seconds: gauges
                .last_success_unix_seconds
                .map(|then| (now_seconds - then).max(0) as f64),
            last_error: said.map(|said| bounded(&said.error)),
            last_error_age_seconds: said.map(|said| said.age_seconds as f64),
        }
    };
    now.gauges.sinks.iter().map(sink).collect()
}

/// What a person should know, the worst first.
fn issues(now: &Look, of: &Overview) -> Vec<Issue> {
    let mut found = Vec::new();
    let mut add = |level, about: &str, text: String| {
        found.push(Issue { level, about: about.to_owned(), text: bounded(&text) });
    };
    for (name, why, hangs) in &now.failing {
        add(if *hangs { Level::Down } else { Level::Degraded }, name, why.clone());
    }
    for loss in &of.pipeline.lost {
        let (lines, bytes, reason) = (loss.flow.lines, loss.flow.bytes, &loss.reason);
        let rates = [loss.flow.lines_per_second, loss.flow.bytes_per_second];
        let going_on = rates.into_iter().flatten().any(|rate| rate > 0.0);
        let what = if lines > 0 { format!("{lines} lines") } else { format!("{bytes} bytes") };
        if going_on {
            add(Level::Down, "logs", format!("lines are being lost ({reason}): {what} since the start"));
        } else {
            add(Level::Notice, "logs", format!("{what} were lost since the start ({reason})"));
        }
    }
    for sink in of.sinks.iter().filter(|sink| sink.up == Some(false)) {
        let why = sink.last_error.as_deref().unwrap_or("it does not answer");
        let waits =
            if sink.signal == "metrics" { "samples wait in memory" } else { "its lines wait on disk" };
        add(Level::Degraded, &sink.name, format!("{why}; {waits}"));
    }
    let danger: Vec<&Stream> =
        of.streams.iter().filter(|stream| stream.state == StreamState::InDanger).collect();
    if let Some(worst) = danger.iter().min_by(|a, b| {
        let left = |of: &Stream| of.time_to_loss_seconds.unwrap_or(f64::INFINITY);
        left(a).total_cmp(&left(b))
    }) {
        let text = format!(
            "the kubelet deletes unread lines of {} logs soon, of {}/{} in {:.0} s: raise containerLogMaxSize or \
             containerLogMaxFiles of the kubelet, or [logs.spill] budget, or mend the sink that holds them up",
            danger.len(),
            worst.namespace,
            worst.pod,
            worst.time_to_loss_seconds.unwrap_or_default()
        );
        add(Level::Degraded, "logs", text);
    }
    if of.pipeline.pressure.is_blocked && of.pipeline.pressure.unread_bytes > 0 {
        let text = "[agent] memory is spent, so reading rests until a sink has taken what is held".to_owned();
        add(Level::Notice, "memory", text);
    }
    if of.pipeline.ledger.unexplained_bytes != 0 {
        let text = format!(
            "{} bytes of log files are not accounted for: a file was cut or changed, or it is a bug in nodewick",
            of.pipeline.ledger.unexplained_bytes
        );
        add(Level::Notice, "ledger", text);
    }
    if of.scraping.down > 0 {
        let all = of.scraping.down + of.scraping.up + of.scraping.unknown;
        add(Level::Notice, "scraping", format!("{} of {all} targets are down", of.scraping.down));
    }
    for objective in &of.objectives.rows {
        for alert in objective.alerts.iter().filter(|alert| alert.state == "firing") {
            add(Level::Notice, &objective.id, alert.summary.clone());
        }
    }
    if now.gauges.restart_keys > 0 {
        let text = format!("{} changed keys of the config wait for a restart", now.gauges.restart_keys);
        add(Level::Notice, "config", text);
    }
    for (about, text) in &now.notes {
        add(Level::Notice, about, text.clone());
    }
    found.sort_by_key(|issue| std::cmp::Reverse(issue.level));
    found.truncate(100);
    found
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
