//! The terminal: taken over, drawn on, given back.
//!
//! In: keys, sizes, pictures from a thread that looks. Out: frames. Invariant: raw mode and the other screen end when this
//! returns, and on a panic, whichever thread has it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event};

use super::app::{App, Flow};
use super::draw::draw;
use super::source::Source;

/// Time between two looks at keys and at whether to end.
const TICK: Duration = Duration::from_millis(100);

pub(super) fn run(
    source: &Source,
    mut app: App,
    interval: Duration,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let (tell, told) = mpsc::sync_channel(1);
    let leaving = Arc::<AtomicBool>::default();
    let looker = {
        let (source, leaving) = (*source, Arc::clone(&leaving));
        std::thread::Builder::new().name("top".into()).spawn(move || {
            while !leaving.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if tell.send(source.look().map_err(|error| error.to_string())).is_err() {
                    return;
                }
                while begun.elapsed() < interval && !leaving.load(Ordering::Relaxed) {
                    std::thread::sleep(TICK.min(interval));
                }
            }
        })?
    };
    // It also gives the terminal back when something panics.
    let mut terminal = ratatui::try_init()?;
    let outcome = (|| {
        loop {
            while let Ok(looked) = told.try_recv() {
                app.take(looked);
            }
            terminal.draw(|frame| draw(frame, &mut app))?;
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            // A burst of keys or sizes is drawn once.
            let mut wait = TICK;
            while event::poll(wait)? {
                if let Event::Key(key) = event::read()?
                    && app.key(key) == Flow::Leave
                {
                    return Ok(());
                }
                wait = Duration::ZERO;
            }
        }
    })();
    let restored = ratatui::try_restore();
    leaving.store(true, Ordering::Relaxed);
    drop(told);
    // It may hang in a look for some seconds; the process need not wait for it.
    drop(looker);
    outcome.and(restored)
}
