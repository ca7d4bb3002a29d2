//! Figures of the node and its containers.

pub mod config;

pub use config::Config;
