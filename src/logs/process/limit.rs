//! Rate limits: at most so many records in a period for each value of a key.
//!
//! In: a record. Out: whether there is room for it. Periods are aligned stretches of the records' own time, not
//! of the clock, so catching up after a restart is not throttled. Invariant: memory is bounded whatever the
//! keys: at most [`MAX_KEYS`] counts twice over, and forgetting one lets more through, never less.
//!
//! A key of one container log counts alike in every replay that begins at the start of a period. A key shared
//! by several logs does not, since their order among each other differs: such a replay drops other records than
//! before or sends some again. It never changes a record, which is why limits stand behind deduplication.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::config::{Key, Limit};
use super::rules::{Error, When};
use crate::data::batch::{Fields, Record};
use crate::data::workload::Workload;

/// Counts in one generation of a rule's table: a key in a period. Two generations are held, about 300 KiB.
pub const MAX_KEYS: usize = 4096;

/// A compiled rule with its counts.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) when: When,
    keys: Vec<Key>,
    count: u64,
    per_nanos: u64,
    counts: Mutex<Counts>,
}

type Generation = HashMap<(u64, u64), u64, FixedState>;

/// Counts by key and period, in two generations: when the younger is full it becomes the older, and what was
/// not touched since is forgotten.
#[derive(Debug, Default)]
struct Counts {
    young: Generation,
    old: Generation,
}

impl Counts {
    fn entry(&mut self, key: (u64, u64)) -> &mut u64 {
        if !self.young.contains_key(&key) {
            if self.young.len() >= MAX_KEYS {
                self.old = std::mem::take(&mut self.young);
            }
            let count = self.old.remove(&key).unwrap_or(0);
            self.young.insert(key, count);
        }
        self.young.entry(key).or_insert(0)
    }
}

impl Limiter {
    pub(super) fn compile(at: &str, config: &Limit) -> Result<Self, Error> {
        if config.rate.count == 0 {
            return Err(Error::new(
                format!("{at}.rate"),
                "a rate of 0 drops everything; use [process.drop] for that",
            ));
        }
        Ok(Self {
            when: When::compile(at, config.conditions())?,
            keys: config.key.0.clone(),
            count: config.rate.count,
            per_nanos: config.rate.per.as_nanos() as u64,
            counts: Mutex::default(),
        })
    }

    /// The parsed fields that the rule looks at.
    pub(super) fn wants(&self) -> Fields {
        let by = |key: Key, field: Fields| if self.keys.contains(&key) { field } else { Fields::NONE };
        self.when.wants().with(by(Key::Level, Fields::LEVEL)).with(by(Key::HttpRoute, Fields::HTTP_ROUTE))
    }

    /// The part of the key that a container gives to all its records.
    pub(super) fn seed(&self, workload: &Workload) -> u64 {
        let container = &workload.container;
        let mut hash = Xxh3::new();
        for key in &self.keys {
            let parts: &[&str] = match key {
                Key::Namespace => &[&container.namespace],
                Key::Pod => &[&container.uid],
                Key::Container => &[&container.uid, &container.container],
                Key::Service => &[&container.namespace, &workload.service_name],
                Key::Node | Key::Level | Key::HttpRoute => &[],
            };
            for part in parts {
                hash.update(part.as_bytes());
                hash.update(&[0]);
            }
        }
        hash.digest()
    }

    /// Counts a record that meets the conditions; true when there was room for it.
    pub(super) fn admits(&self, seed: u64, record: &Record, arena: &[u8]) -> bool {
        let mut key = seed;
        if self.keys.contains(&Key::Level) {
            key = xxh3_64_with_seed(record.severity.level().as_bytes(), key);
        }
        if self.keys.contains(&Key::HttpRoute) {
            key = xxh3_64_with_seed(record.http_route.of(arena), key);
        }
        let mut counts = self.counts.lock();
        let count = counts.entry((key, record.time_unix_nano / self.per_nanos));
        *count += 1;
        *count <= self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_keys_takes_bounded_memory() {
        let mut counts = Counts::default();
        for key in 0..50_000 {
            *counts.entry((key, 0)) += 1;
            // A key in use is never forgotten.
            *counts.entry((u64::MAX, 0)) += 1;
        }
        assert!(counts.young.len() <= MAX_KEYS && counts.old.len() <= MAX_KEYS);
        assert_eq!(*counts.entry((u64::MAX, 0)), 50_000);
    }
}
