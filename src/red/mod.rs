//! Rate, errors and duration of every workload, from access lines and from scraped families.
//!
//! ```text
//! lines of logs ──► LogTap ─┐
//!                           ├─► Book ──► state file, then page ═► series
//! raw scraped pages ► Red ──┘
//! ```
//!
//! In: requests that `logs` found, with positions; pages of targets. Out: a page of the canonical families.
//! Invariant: every request counts once, and what was published is never taken back: counts and positions are made
//! durable together before they are published.

pub mod book;
pub mod bracket;
pub mod cell;
mod confidence;
pub mod config;
pub mod joins;
mod line;
mod native;
mod profile;
mod publish;
pub mod recent;
pub mod route;
pub mod scraped;
pub mod slo;
mod state;
pub mod words;

pub use book::{Declared, Identity};
pub use confidence::Lines;
pub use config::{Config, SourceSetting};
pub use line::LogTap;
pub use recent::{Recent, Summary};
pub use scraped::{Declarer, Red};
pub use slo::{About, Door, Kind, MAX_SLOS, Matcher, Observed, Slo};

#[cfg(test)]
mod objectives_tests;
