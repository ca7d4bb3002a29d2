//! The views: which rows an [`Overview`] has for each, in which order, and how a cell reads.
//!
//! In: a picture, a view, an order, a filter. Out: a [`Table`] of text that is safe for a terminal. Invariants: a value that is
//! not known is `-`, never 0; what the agent left out of a list is counted.

use std::cmp::Ordering;

use crate::config::memory::Human;
use crate::overview::{
    Issue, Level, Objective, ObjectiveState, Overview, Service, Sink, Stream, StreamState, Target,
    TargetState,
};
use crate::tail;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Container logs: who floods, who lags.
    #[default]
    Streams,
    /// Rate, errors, durations.
    Services,
    /// Budgets and burns.
    Objectives,
    /// What is scraped, and what not and why.
    Targets,
    /// Where everything goes.
    Sinks,
    /// What a person should know.
    Issues,
}

impl View {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 6] =
        [Self::Streams, Self::Services, Self::Objectives, Self::Targets, Self::Sinks, Self::Issues];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Services => "services",
            Self::Objectives => "objectives",
            Self::Targets => "targets",
            Self::Sinks => "sinks",
            Self::Issues => "issues",
        }
    }

    /// The orders that it knows. Beside `name` the largest stands first, and the first is the usual one.
    pub const fn sorts(self) -> &'static [&'static str] {
        match self {
            Self::Streams => &["rate", "lag", "loss", "lost", "name"],
            Self::Services => &["rate", "errors", "p99", "name"],
            Self::Objectives => &["state", "budget", "name"],
            Self::Targets => &["state", "duration", "samples", "name"],
            Self::Sinks => &["state", "queue", "rate", "lost", "name"],
            Self::Issues => &["level", "name"],
        }
    }
}

/// How much a cell should catch the eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) cells: Vec<Cell>,
    /// What there is to say beyond the cells.
    pub(super) detail: String,
    name: String,
    keys: Vec<f64>,
}

/// A column: its title, and whether it holds figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) is_right: bool,
}

/// A view as text.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// Rows that the agent left out.
    pub(super) omitted: u64,
    /// What to say where there are no rows.
    pub(super) empty: String,
}

/// The rows of a view in the order `sort`, with `filter` in one of their cells.
pub(super) fn table(overview: &Overview, view: View, sort: usize, filter: &str) -> Table {
    let left = |title| Column { title, is_right: false };
    let right = |title| Column { title, is_right: true };
    let omitted = &overview.omitted;
    let (columns, rows, omitted, empty): (_, Vec<Row>, _, &str) = match view {
        View::Streams => (
            vec![
                left("NAMESPACE/POD/CONTAINER"),
                left("STATE"),
                right("BYTES/S"),
                right("LINES/S"),
                right("UNACKED"),
                right("BEHIND"),
                right("LOSS IN"),
                right("LOST"),
            ],
            overview.streams.iter().map(stream).collect(),
            omitted.streams,
            "no container log is followed",
        ),
        View::Services => (
            vec![
                left("NAMESPACE/WORKLOAD"),
                left("SERVICE"),
                left("FROM"),
                right("REQ/S"),
                right("ERRORS"),
                right("P50"),
                right("P99"),
                right("REQUESTS"),
                right("TRUST"),
            ],
            overview.services.iter().map(service).collect(),
            omitted.services,
            "no requests were seen in access lines or scraped metrics",
        ),
        View::Objectives => (
            vec![
                left("OBJECTIVE"),
                left("STATE"),
                right("TARGET"),
                right("GOOD"),
                right("BUDGET"),
                right("GONE IN"),
                right("BURN 1H"),
                left("ALERT"),
            ],
            overview.objectives.rows.iter().map(objective).collect(),
            omitted.objectives,
            "no objective is judged here",
        ),
        View::Targets => (
            vec![
                left("TARGET"),
                left("STATE"),
                left("JOB"),
                left("WHY"),
                right("AGE"),
                right("TOOK"),
                right("SAMPLES"),
            ],
            overview.targets.iter().map(target).collect(),
            omitted.targets,
            "nothing is scraped",
        ),
        View::Sinks => (
            vec![
                left("SINK"),
                left("TAKES"),
                left("STATE"),
                right("RATE/S"),
                right("BYTES/S"),
                right("RETRIES/S"),
                right("P99"),
                right("QUEUE"),
                right("LOST"),
                right("LAST OK"),
            ],
            overview.sinks.iter().map(sink).collect(),
            0,
            "no sink is configured",
        ),
        View::Issues => (
            vec![left("LEVEL"), left("ABOUT"), left("WHAT")],
            overview.issues.iter().map(issue).collect(),
            0,
            "nothing is wrong",
        ),
    };
    let mut rows = rows;
    let empty = match (view, rows.is_empty(), overview.objectives.reason.as_str()) {
        (_, false, _) => format!("nothing has {:?} in it", clean(filter)),
        (View::Objectives, _, reason) if !reason.is_empty() => format!("{empty}: {}", clean(reason)),
        _ => empty.to_owned(),
    };
    let filter = filter.to_lowercase();
    let fits = |row: &Row| {
        row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter))
            || row.detail.to_lowercase().contains(&filter)
    };
    rows.retain(fits);
    rows.sort_by(|a, b| {
        let by_key = match (a.keys.get(sort), b.keys.get(sort)) {
            (Some(a), Some(b)) => b.total_cmp(a),
            _ => Ordering::Equal,
        };
        by_key.then_with(|| a.name.cmp(&b.name))
    });
    Table { columns, rows, omitted, empty }
}

fn plain(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), tone: Tone::Plain }
}

fn toned(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}

/// A value that is worth a look only above 0.
fn bad_above_zero(value: u64, text: String) -> Cell {
    toned(text, if value > 0 { Tone::Bad } else { Tone::Plain })
}

/// What is not known stands behind everything that is.
fn key(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NEG_INFINITY)
}

fn stream(row: &Stream) -> Row {
    let name = clean(&format!("{}/{}/{}", row.namespace, row.pod, row.container));
    let (state, tone) = match row.state {
        StreamState::Gone => ("gone", Tone::Plain),
        StreamState::Idle => ("idle", Tone::Plain),
        StreamState::Live => ("live", Tone::Good),
        StreamState::Behind => ("behind", Tone::Warning),
        StreamState::InDanger => ("in danger", Tone::Bad),
        StreamState::Losing => ("losing", Tone::Bad),
    };
    let loss = row.time_to_loss_seconds;
    let loss_tone = match loss {
        Some(seconds) if seconds < 600.0 => Tone::Bad,
        Some(_) => Tone::Warning,
        None => Tone::Plain,
    };
    Row {
        cells: vec![
            plain(name.clone()),
            toned(state, tone),
            plain(or_dash(row.bytes_per_second, bytes)),
            plain(or_dash(row.lines_per_second, number)),
            plain(bytes(row.lag_bytes as f64)),
            plain(or_dash(row.lag_seconds, span)),
            toned(or_dash(loss, span), loss_tone),
            bad_above_zero(row.lost_bytes, bytes(row.lost_bytes as f64)),
        ],
        detail: clean(&format!(
            "service {}, restart {}; {} written, {} lines delivered, {} dropped by rules, {} rotations behind",
            row.service,
            row.restart,
            bytes(row.written_bytes as f64),
            row.delivered_lines,
            bytes(row.dropped_bytes as f64),
            row.generation_lag,
        )),
        keys: vec![
            key(row.bytes_per_second),
            // Where nothing is written any more, what waits is still late.
            row.lag_seconds.unwrap_or(0.0).max(row.lag_bytes as f64 / 1e12),
            key(loss.map(|seconds| -seconds)),
            row.lost_bytes as f64,
        ],
        name,
    }
}

fn service(row: &Service) -> Row {
    let name = clean(&format!("{}/{}", row.namespace, row.workload));
    let now = &row.last_minute;
    let errors = now.error_ratio;
    let tone = match errors {
        Some(ratio) if ratio >= 0.05 => Tone::Bad,
        Some(ratio) if ratio > 0.0 => Tone::Warning,
        _ => Tone::Plain,
    };
    let trust = if row.confidence < 0.999 { Tone::Warning } else { Tone::Plain };
    Row {
        cells: vec![
            plain(name.clone()),
            plain(clean(&row.service)),
            plain(clean(if row.source.is_empty() { "-" } else { &row.source })),
            plain(or_dash(now.per_second, number)),
            toned(or_dash(errors, percent), tone),
            plain(or_dash(now.p50_seconds, span)),
            plain(or_dash(now.p99_seconds, span)),
            plain(row.whole.requests.to_string()),
            toned(percent(row.confidence), trust),
        ],
        detail: format!(
            "since its counters began: {} requests, {} errors ({}), p99 {}; counting is {} behind",
            row.whole.requests,
            row.whole.errors,
            or_dash(row.whole.error_ratio, percent),
            or_dash(row.whole.p99_seconds, span),
            span(row.lag_seconds),
        ),
        keys: vec![key(now.per_second), key(errors), key(now.p99_seconds)],
        name,
    }
}

fn objective(row: &Objective) -> Row {
    let (state, tone) = match row.state {
        ObjectiveState::NoTraffic => ("no traffic", Tone::Plain),
        ObjectiveState::Ok => ("ok", Tone::Good),
        ObjectiveState::Exhausted => ("spent", Tone::Warning),
        ObjectiveState::Burning => ("burning", Tone::Bad),
        ObjectiveState::Firing => ("firing", Tone::Bad),
    };
    let left = row.budget_left;
    let budget_tone = match left {
        Some(left) if left <= 0.0 => Tone::Bad,
        Some(left) if left < 0.25 => Tone::Warning,
        _ => Tone::Plain,
    };
    let hour = row.burns.iter().find(|burn| burn.long == "1h");
    let burn = hour.and_then(|burn| burn.long_burn);
    let is_over = hour.is_some_and(|burn| burn.is_over);
    let alert = row.alerts.first().map_or("-", |alert| alert.name.as_str());
    let mut detail = format!(
        "{} over {}, {}; {} of the window known",
        row.sli,
        row.window,
        row.mode,
        or_dash(row.coverage, percent)
    );
    for said in row.alerts.iter().map(|alert| &alert.summary).chain(&row.problems) {
        detail.push_str("; ");
        detail.push_str(said);
    }
    let name = clean(&row.id);
    Row {
        cells: vec![
            plain(name.clone()),
            toned(state, tone),
            plain(share(row.objective)),
            plain(or_dash(row.good_ratio, share)),
            toned(or_dash(left, percent), budget_tone),
            plain(or_dash(row.exhausted_in_seconds, span)),
            toned(or_dash(burn, number), if is_over { Tone::Bad } else { Tone::Plain }),
            plain(clean(alert)),
        ],
        detail: clean(&detail),
        keys: vec![row.state as u8 as f64, key(left.map(|left| -left))],
        name,
    }
}

fn target(row: &Target) -> Row {
    let (state, tone, rank) = match row.state {
        TargetState::Down => ("down", Tone::Bad, 3.0),
        TargetState::Unknown => ("unknown", Tone::Warning, 2.0),
        TargetState::Up => ("up", Tone::Good, 1.0),
        TargetState::NotScraped => ("no target", Tone::Plain, 0.0),
    };
    let name = match (row.pod.is_empty(), row.url.is_empty()) {
        (false, _) => format!("{}/{}", row.namespace, row.pod),
        (true, _) => row.url.clone(),
    };
    let name = clean(&name);
    let mut detail = format!("{} {}", row.url, row.message);
    if !row.hint.is_empty() {
        detail.push_str(": ");
        detail.push_str(&row.hint);
    }
    if let Some(error) = &row.last_error {
        let age = row.last_error_age_seconds.map(|age| format!(" {} ago", span(age))).unwrap_or_default();
        detail.push_str(&format!("; last error{age}: {error}"));
    }
    Row {
        cells: vec![
            plain(name.clone()),
            toned(state, tone),
            plain(clean(&row.job)),
            plain(clean(&row.reason)),
            plain(or_dash(row.age_seconds, span)),
            plain(or_dash(row.duration_seconds, span)),
            plain(row.samples.map_or("-".to_owned(), |samples| samples.to_string())),
        ],
        detail: clean(detail.trim_start()),
        keys: vec![rank, key(row.duration_seconds), key(row.samples.map(|samples| samples as f64))],
        name,
    }
}

fn sink(row: &Sink) -> Row {
    let (state, tone, rank) = match row.up {
        Some(false) => ("down", Tone::Bad, 2.0),
        Some(true) => ("up", Tone::Good, 1.0),
        None => ("-", Tone::Plain, 0.0),
    };
    let retries = row.retries_per_second.filter(|rate| *rate > 0.0);
    let name = clean(&row.name);
    let detail = match (&row.last_error, row.last_error_age_seconds) {
        (Some(error), Some(age)) => format!("{} ago: {error}", span(age)),
        (Some(error), None) => error.clone(),
        (None, _) => format!("{} delivered, no error", row.delivered.lines),
    };
    Row {
        cells: vec![
            plain(name.clone()),
            plain(clean(&row.signal)),
            toned(state, tone),
            plain(or_dash(row.delivered.lines_per_second, number)),
            plain(or_dash(row.delivered.bytes_per_second, bytes)),
            toned(
                or_dash(row.retries_per_second, number),
                if retries.is_some() { Tone::Warning } else { Tone::Plain },
            ),
            plain(or_dash(row.p99_seconds, span)),
            plain(bytes(row.queue_bytes as f64)),
            bad_above_zero(row.lost, row.lost.to_string()),
            plain(or_dash(row.last_success_age_seconds, span)),
        ],
        detail: clean(&detail),
        keys: vec![rank, row.queue_bytes as f64, key(row.delivered.lines_per_second), row.lost as f64],
        name,
    }
}

fn issue(row: &Issue) -> Row {
    let (level, tone) = level(row.level);
    let name = clean(&row.about);
    let text = clean(&row.text);
    Row {
        cells: vec![toned(level, tone), plain(name.clone()), plain(text.clone())],
        detail: text,
        keys: vec![row.level as u8 as f64],
        name,
    }
}

/// A level in a word.
pub(super) fn level(level: Level) -> (&'static str, Tone) {
    match level {
        Level::Ok => ("ok", Tone::Good),
        Level::Notice => ("notice", Tone::Plain),
        Level::Degraded => ("degraded", Tone::Warning),
        Level::Down => ("down", Tone::Bad),
    }
}

/// A text from outside that drives no terminal.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    tail::escape(text, &mut out);
    out
}

/// What is not known is `-`.
pub(super) fn or_dash(value: Option<f64>, shown: impl Fn(f64) -> String) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "-".to_owned(), shown)
}

/// Bytes: `3.2 MiB`.
pub(super) fn bytes(value: f64) -> String {
    let value = value.max(0.0);
    if value < 1024.0 { format!("{value:.0} B") } else { Human(value as u64).to_string() }
}

/// A figure without more digits than one reads: `0.2`, `42`, `12.3k`.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 1e6 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 10.0 => format!("{value:.0}"),
        v if v >= 0.095 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A share: `12.5 %`.
pub(super) fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent == percent.round() || percent.abs() >= 100.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A share near one, with the digits that count: `99.95 %`.
fn share(ratio: f64) -> String {
    let text = format!("{:.3}", ratio * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A time: `12 ms`, `4.2 s`, `3m 10s`, `2h 5m`, `3d 4h`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 0.000_5 => "0 s".to_owned(),
        _ if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}
