//! The nouns that the rest of the agent speaks in: no I/O, no async runtime.
//!
//! A [`Batch`](batch::Batch) is a stretch of one container log with its records; a
//! [`Ticket`](delivery::Ticket) is one sink's promise to take it; a [`Ledger`](delivery::Ledger) says how far a
//! log is done. Everything here builds and tests without tokio.

pub mod access;
pub mod account;
pub mod batch;
pub mod budget;
pub mod clock;
pub mod delivery;
pub mod pack;
pub mod pods;
pub mod position;
pub mod rendered;
pub mod sample;
pub mod severity;
pub mod tally;
pub mod trace;
pub mod units;
pub mod varint;
pub mod workload;
pub mod yaml;
pub mod yaml_text;
