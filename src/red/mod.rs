//! Rate, errors and duration of every workload, from access lines and from scraped families.

pub mod config;

pub use config::Config;
