//! Which records the store already holds, for the replay after a crash.
//!
//! In: the newest stored lines, at open. Out: an answer for each record that comes in. A record's identity is its
//! time, container instance and line; the log path makes equal lines of one log differ in time, so identity is
//! exact. Invariant: about [`CAPACITY`] identities, 8 bytes each.

use xxhash_rust::xxh3::Xxh3;

use super::reader::Entry;
use crate::data::batch::{Batch, Record};
use crate::data::workload::Origin;

/// Identities kept, give or take a segment's: more records than the 32 MiB that may be in flight hold at 256 bytes a line, which is what a
/// crash can replay.
pub(super) const CAPACITY: usize = 131_072;

/// The identities of the newest stored records.
#[derive(Debug, Default)]
pub(super) struct Seen {
    keys: Vec<u64>,
    newest_unix_nano: u64,
}

impl Seen {
    /// True when no more fit.
    pub(super) fn is_full(&self) -> bool {
        self.keys.len() >= CAPACITY
    }

    /// Notes a stored line. Call [`seal`](Self::seal) before asking.
    pub(super) fn insert(&mut self, entry: &Entry<'_>) {
        let Some(time) = entry.time_unix_nano() else { return };
        self.newest_unix_nano = self.newest_unix_nano.max(time);
        let names = [&*entry.namespace, &entry.pod, &entry.container, &entry.filename];
        self.keys.push(key(time, names, entry.restart, entry.line.as_bytes()));
    }

    /// Makes the set ready to be asked.
    pub(super) fn seal(&mut self) {
        self.keys.sort_unstable();
        self.keys.shrink_to_fit();
    }

    /// True when the store holds `record` already.
    pub(super) fn contains(&self, batch: &Batch, record: &Record) -> bool {
        if record.time_unix_nano > self.newest_unix_nano || self.keys.is_empty() {
            return false;
        }
        let container = &batch.workload.container;
        let filename = match container.origin() {
            Origin::File(path) => path,
            Origin::Container | Origin::Process => "",
        };
        let line = String::from_utf8_lossy(batch.body(record));
        let key = key(
            record.time_unix_nano,
            [&container.namespace, &container.pod, &container.container, filename],
            container.restart,
            line.as_bytes(),
        );
        self.keys.binary_search(&key).is_ok()
    }
}

fn key(time_unix_nano: u64, names: [&str; 4], restart: u32, line: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&time_unix_nano.to_le_bytes());
    for name in names {
        hash.update(name.as_bytes());
        hash.update(b"/");
    }
    hash.update(&restart.to_le_bytes());
    hash.update(line);
    hash.digest()
}
