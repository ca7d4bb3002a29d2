//! `nodewick top`: the running agent, live, in a terminal.
//!
//! ```text
//! GET /overview each second ─► Overview ─► App (view, sort, filter, what is selected) ─► screen
//!                                 keys ──────►┘
//! ```
//!
//! In: the [`Overview`](crate::overview::Overview) of an agent and keys. Out: a screen, or with `--once` the same as plain text.
//! Invariants: nothing of the agent is changed; a name from outside never drives the terminal; the terminal is as it was
//! before, however the program ends.

mod app;
mod draw;
mod plain;
mod screen;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use app::{App, Flow};
pub use source::{Error, Source};
pub use table::View;

use crate::overview::Level;

/// What is shown, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time between two looks.
    pub interval: Duration,
    /// Use colours.
    pub colour: bool,
    /// The view that is shown first.
    pub view: View,
    /// The order of that view, by a name that it knows.
    pub sort: Option<String>,
    /// Only rows with this in them.
    pub filter: String,
}

/// Shows the agent until somebody leaves or `stop` is set.
///
/// # Errors
/// The terminal cannot be used. An agent that does not answer is shown as such.
pub fn run(source: &Source, options: &Options, stop: &AtomicBool) -> std::io::Result<()> {
    screen::run(source, App::new(options), options.interval, stop)
}

/// Writes one picture as text and says how the agent is.
///
/// # Errors
/// No picture can be had, or `out` cannot be written.
pub fn once(source: &Source, options: &Options, out: &mut dyn Write) -> Result<Level, Error> {
    let mut overview = source.look()?;
    if overview.agent.rates_over_seconds.is_none() {
        // Rates are between two looks: the first one has none.
        std::thread::sleep(options.interval);
        overview = source.look()?;
    }
    let app = App::new(options);
    out.write_all(plain::text(&overview, &app).as_bytes()).map_err(Error::Out)?;
    Ok(overview.agent.state)
}
