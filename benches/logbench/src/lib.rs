//! What the benchmark's three programs share.
//!
//! `loggen` writes container logs, `sink` receives what an agent pushes and checks it line by line, `floor` is the
//! least that an agent can do with those logs. `run.py` beside this crate puts them together and measures.

pub mod line;
pub mod scan;
pub mod wire;

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the epoch.
pub fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_micros() as u64)
}

/// The value after `--name` on the command line, else `default`. A value that does not parse ends the program.
pub fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    match args.next() {
        None => default,
        Some(text) => text.parse().unwrap_or_else(|_| panic!("{name} {text}: not a valid value")),
    }
}
