//! The screen: two lines of the whole agent, the views, the rows, what there is to say of one, the keys.
//!
//! In: an [`App`] and the size of the terminal. Out: cells of a frame. Invariant: any size will do, and nothing is shown that
//! is not text.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{
    Block, Borders, Cell as Shown, Clear, Paragraph, Row as ShownRow, Table as Rows, Wrap,
};

use super::app::App;
use super::table::{Cell, Table, Tone, View, bytes, clean, level, number, or_dash, span};
use crate::overview::Overview;

/// Between two columns.
const SPACING: u16 = 2;
/// Most characters of a column.
const WIDEST: usize = 60;

/// Columns that go, in this order, where the first column would not fit.
const SPARE: [&str; 9] =
    ["TRUST", "REQUESTS", "SERVICE", "FROM", "UNACKED", "LINES/S", "JOB", "RETRIES/S", "TAKES"];

const HELP: &str = "\
1-6  Tab  ← →   views: streams, services, objectives, targets, sinks, issues
↑ ↓  PgUp PgDn  select a row; what there is to say of it stands below
s               sort by the next column that can be sorted by
/               show rows with a text in them; Enter keeps it, Esc ends it
p               pause: the picture stays
q  Ctrl-C       leave

UNACKED  not yet taken by every sink, in memory or unread in the file
BEHIND   the same as time, at the rate at which it is written
LOSS IN  until the kubelet deletes what is unread";

/// Draws the app.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let [head, tabs, body, detail, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(if area.height > 12 { 2 } else { 0 }),
        Constraint::Length(1),
    ])
    .areas(area);
    let overview = app.overview.take();
    let Some(shown) = &overview else {
        let why = app.failure.clone().unwrap_or_else(|| "looking …".to_owned());
        frame.render_widget(Paragraph::new(clean(&why)).wrap(Wrap { trim: true }), body);
        keys(frame, app, foot);
        return;
    };
    frame.render_widget(Paragraph::new(Text::from(header(shown, app))), head);
    frame.render_widget(Paragraph::new(views(shown, app)), tabs);
    let table = app.table(shown, app.view);
    app.page = usize::from(body.height.saturating_sub(1));
    rows(frame, app, &table, body);
    let selected = app.states[app.view as usize].selected().and_then(|at| table.rows.get(at));
    if let Some(row) = selected {
        frame.render_widget(Paragraph::new(row.detail.as_str()).wrap(Wrap { trim: true }), detail);
    }
    keys(frame, app, foot);
    if app.is_helping {
        help(frame, area);
    }
    app.overview = overview;
}

fn style(app: &App, tone: Tone) -> Style {
    let base = Style::default();
    match (tone, app.colour) {
        (Tone::Plain, _) | (Tone::Good, false) => base,
        (Tone::Good, true) => base.fg(Color::Green),
        (Tone::Warning, true) => base.fg(Color::Yellow),
        (Tone::Bad, true) => base.fg(Color::Red).add_modifier(Modifier::BOLD),
        (Tone::Warning | Tone::Bad, false) => base.add_modifier(Modifier::BOLD),
    }
}

/// The whole agent on two lines.
fn header(overview: &Overview, app: &App) -> Vec<Line<'static>> {
    let (word, tone) = level(overview.agent.state);
    let [who, flow] = summary(overview);
    let mut first = vec![Span::styled(word, style(app, tone)), Span::raw("  "), Span::raw(who)];
    if app.is_paused {
        first.push(Span::styled("  paused", Style::default().add_modifier(Modifier::REVERSED)));
    }
    vec![Line::from(first), Line::raw(flow)]
}

/// The agent in a line, and what flows through it in another.
pub(super) fn summary(overview: &Overview) -> [String; 2] {
    let agent = &overview.agent;
    let cluster = if agent.cluster.is_empty() { String::new() } else { format!(" in {}", agent.cluster) };
    let memory = agent.memory_bytes.map_or_else(|| "-".to_owned(), |held| bytes(held as f64));
    let limit =
        agent.memory_limit_bytes.map(|limit| format!(" of {}", bytes(limit as f64))).unwrap_or_default();
    let who = clean(&format!(
        "nodewick {} on {}{cluster}, up {}, memory {memory}{limit}, CPU {}",
        agent.version,
        agent.node,
        span(agent.uptime_seconds),
        or_dash(agent.cpu_cores.map(|cores| cores * 100.0), |percent| format!("{percent:.1} %")),
    ));
    let pipeline = &overview.pipeline;
    let pressure = &pipeline.pressure;
    let rate = |value: Option<f64>| or_dash(value, |value| format!("{}/s", bytes(value)));
    let lost: u64 = pipeline.lost.iter().map(|loss| loss.flow.lines).sum();
    let dropped: f64 = pipeline.dropped.iter().filter_map(|loss| loss.flow.lines_per_second).sum();
    let blocked = if pressure.is_blocked { ", reading rests" } else { "" };
    let flow = format!(
        "written {} ▸ read {} ▸ delivered {} ({} lines/s)  memory {} of {}{blocked}  unread {}  dropped {}/s  lost {lost}",
        rate(pipeline.written.bytes_per_second),
        rate(pipeline.read.bytes_per_second),
        rate(pipeline.delivered.bytes_per_second),
        or_dash(pipeline.delivered.lines_per_second, number),
        bytes(pressure.budget_held_bytes as f64),
        bytes(pressure.budget_limit_bytes as f64),
        bytes(pressure.unread_bytes as f64),
        number(dropped),
    );
    [who, flow]
}

/// How many rows a view has, with those that were left out.
pub(super) fn count(overview: &Overview, view: View) -> u64 {
    let omitted = &overview.omitted;
    let (shown, omitted) = match view {
        View::Streams => (overview.streams.len(), omitted.streams),
        View::Services => (overview.services.len(), omitted.services),
        View::Objectives => (overview.objectives.rows.len(), omitted.objectives),
        View::Targets => (overview.targets.len(), omitted.targets),
        View::Sinks => (overview.sinks.len(), 0),
        View::Issues => (overview.issues.len(), 0),
    };
    shown as u64 + omitted
}

fn views(overview: &Overview, app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, view) in View::ALL.into_iter().enumerate() {
        let text = format!(" {} {} {} ", at + 1, view.name(), count(overview, view));
        let style = if view == app.view {
            Style::default().add_modifier(Modifier::REVERSED)
        } else {
            Style::default()
        };
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

fn rows(frame: &mut Frame<'_>, app: &mut App, table: &Table, area: Rect) {
    if table.rows.is_empty() {
        frame.render_widget(Paragraph::new(table.empty.as_str()).wrap(Wrap { trim: true }), area);
        return;
    }
    let cell = |cell: &Cell, is_right: bool| {
        let line = Line::from(Span::styled(cell.text.clone(), style(app, cell.tone)));
        Shown::from(if is_right { line.alignment(Alignment::Right) } else { line })
    };
    let all = widths(table);
    let columns = fitting(table, &all, area.width);
    let widths: Vec<Constraint> = columns
        .iter()
        .map(|at| match (app.view, *at) {
            // Of issues the last one is the long one.
            (View::Issues, 2) => Constraint::Fill(1),
            (View::Issues, at) => Constraint::Length(all[at].min(24)),
            (_, 0) => Constraint::Fill(1),
            (_, at) => Constraint::Length(all[at]),
        })
        .collect();
    let titles = columns.iter().map(|at| &table.columns[*at]).map(|column| {
        let line = Line::raw(column.title);
        Shown::from(if column.is_right { line.alignment(Alignment::Right) } else { line })
    });
    let header = ShownRow::new(titles).style(Style::default().add_modifier(Modifier::BOLD));
    let body = table.rows.iter().map(|row| {
        ShownRow::new(columns.iter().map(|at| cell(&row.cells[*at], table.columns[*at].is_right)))
    });
    let body: Vec<ShownRow<'_>> = body.collect();
    let mut state = std::mem::take(&mut app.states[app.view as usize]);
    if state.selected().is_some_and(|at| at >= body.len()) {
        state.select(Some(body.len() - 1));
    }
    let shown = Rows::new(body, widths)
        .header(header)
        .column_spacing(SPACING)
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(shown, area, &mut state);
    app.states[app.view as usize] = state;
}

/// The width of each column.
pub(super) fn widths(table: &Table) -> Vec<u16> {
    let mut widths: Vec<usize> = table.columns.iter().map(|column| column.title.chars().count()).collect();
    for row in &table.rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.text.chars().count().min(WIDEST));
        }
    }
    widths.into_iter().map(|width| width as u16).collect()
}

/// The columns that fit beside the first one.
fn fitting(table: &Table, widths: &[u16], room: u16) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..widths.len()).collect();
    for spare in SPARE {
        let taken: u16 = columns.iter().map(|at| widths[*at].saturating_add(SPACING)).sum();
        if taken.saturating_sub(SPACING) <= room {
            break;
        }
        columns.retain(|at| table.columns[*at].title != spare);
    }
    columns
}

fn keys(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let line = if app.is_typing {
        Line::raw(format!("/{}▏", clean(&app.filter)))
    } else if let Some(why) = &app.failure {
        Line::styled(format!("no new picture: {}", clean(why)), style(app, Tone::Bad))
    } else {
        let filter =
            if app.filter.is_empty() { String::new() } else { format!("  with {:?}", clean(&app.filter)) };
        let sort = app.view.sorts()[app.sort(app.view)];
        Line::raw(format!("sorted by {sort}{filter}  ·  s sort  / filter  p pause  ? help  q leave"))
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (82.min(area.width), 13.min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block = Block::default().borders(Borders::ALL).title(" keys ");
    frame.render_widget(Paragraph::new(HELP).block(block), place);
}
