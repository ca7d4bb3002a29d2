//! The screen as text, once: for pipes, scripts and whoever has no terminal.
//!
//! In: a picture. Out: what the screen shows of it, all views one after the other; a view or filter that was asked for
//! alone. Invariant: a line is a row.

use std::fmt::Write as _;

use super::app::App;
use super::draw::{summary, widths};
use super::table::{Table, View, level};
use crate::overview::Overview;

/// Rows of a view.
const ROWS: usize = 20;

/// The picture as text.
pub(super) fn text(overview: &Overview, app: &App) -> String {
    let [who, flow] = summary(overview);
    let mut out = format!("{}  {who}\n{flow}\n", level(overview.agent.state).0);
    for view in View::ALL {
        let table = app.table(overview, view);
        let _ = writeln!(out, "\n{}, by {}", view.name(), view.sorts()[app.sort(view)]);
        rows(&mut out, &table);
    }
    out
}

fn rows(out: &mut String, table: &Table) {
    if table.rows.is_empty() {
        let _ = writeln!(out, "  {}", table.empty);
        return;
    }
    let widths = widths(table);
    let titles = table.columns.iter().map(|column| column.title);
    line(out, table, &widths, titles);
    for row in table.rows.iter().take(ROWS) {
        line(out, table, &widths, row.cells.iter().map(|cell| cell.text.as_str()));
    }
    let more = table.rows.len().saturating_sub(ROWS) as u64 + table.omitted;
    if more > 0 {
        let _ = writeln!(out, "  and {more} more");
    }
}

fn line<'a>(out: &mut String, table: &Table, widths: &[u16], cells: impl Iterator<Item = &'a str>) {
    let mut text = String::new();
    for ((cell, column), width) in cells.zip(&table.columns).zip(widths) {
        let width = usize::from(*width);
        let _ =
            if column.is_right { write!(text, "  {cell:>width$}") } else { write!(text, "  {cell:width$}") };
    }
    out.push_str(text.trim_end());
    out.push('\n');
}
