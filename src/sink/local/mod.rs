//! The embedded store: the newest log records of this node in a bounded directory, readable without a backend.
//!
//! In: shipments, through [`Outlet`]. Out: segment files of JSON lines, which [`Reader`] follows and `jq` reads.
//!
//! On disk: `<dir>/<sequence, ten digits>.jsonl`, one [`write_json`](super::json::write_json) object a line, appended
//! to the highest sequence only; `<dir>/lock` is held by the one process that writes. When the sum of all segments
//! would pass `max_bytes`, the lowest sequence is removed: that is the store's retention, counted, not loss.
//!
//! Invariants: a ticket is settled only after its lines are written *and* `fdatasync` returned. Whole lines only,
//! but for at most one torn tail that a crash leaves, which the next start cuts off. A record that is replayed after
//! a crash is recognised by its identity (time, container, line) and not stored twice. A disk that refuses is
//! retried for ever: tickets stay open, so the log files wait.

mod filter;
mod reader;
mod seen;
mod segments;
mod writer;

pub use filter::Filter;
pub use reader::{Entry, From, Reader};
pub use writer::{Outlet, Writer, start};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::units::ByteSize;

/// `[sink.local.<name>]`: the embedded store, which `nodewick tail` and the status page read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the store; one store a directory. Default `<state_dir>/local/<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Bytes that all segments together may take. The oldest is removed when they would take more. Raise it to look
    /// further back.
    pub max_bytes: ByteSize,
    /// Bytes of one segment, the unit of removal; at most half of `max_bytes` is used.
    pub segment: ByteSize,
    /// True when the log files need not wait for this store: what it cannot take in time is counted and dropped.
    pub optional: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { dir: None, max_bytes: ByteSize::mib(256), segment: ByteSize::mib(8), optional: false }
    }
}

impl Config {
    /// Where the store called `name` lies.
    pub fn directory(&self, name: &str, state_dir: &Path) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| state_dir.join("local").join(name))
    }

    /// Most bytes of memory the store takes beside the batches that wait for it: the commit buffer (1 MiB and one
    /// batch as JSON) and the identities of stored records.
    pub fn memory_bound(&self) -> ByteSize {
        let queue = if self.optional { writer::OPTIONAL_QUEUE_BYTES } else { 0 };
        ByteSize((3 << 20) + (seen::CAPACITY as u64 * 8) + queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_reads_with_its_defaults() {
        let config: Config = toml::from_str("max_bytes = \"64MiB\"").expect("valid");
        assert_eq!(config.max_bytes, ByteSize::mib(64));
        assert_eq!(config.segment, ByteSize::mib(8));
        assert!(!config.optional);
        assert_eq!(config.directory("default", Path::new("/s")), Path::new("/s/local/default"));
        assert!(toml::from_str::<Config>("max_byte = \"64MiB\"").is_err(), "unknown keys are refused");
    }
}
