//! What each backend last said when it did not take a request, for whoever asks why lines wait.
//!
//! In: answers that ask for another try: no connection, credentials refused, rates, errors of the server. Out: the last
//! one by sink, with its time. Invariants: one short text a sink; what is said of single lines (a refusal for good) is
//! never kept here, since it may quote them.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::data::clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Characters of a text that are kept.
const LONGEST: usize = 240;

static LAST: Mutex<BTreeMap<String, (Instant, u64, String)>> = Mutex::new(BTreeMap::new());

/// What a sink's backend last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Kind and name of the sink.
    pub sink: String,
    /// What it said.
    pub error: String,
    /// When, seconds since the epoch.
    pub unix_seconds: u64,
    /// Seconds since.
    pub age_seconds: u64,
}

/// Takes note of an answer that asks for another try.
pub(super) fn note(sink: &str, error: &str) {
    let unix = clock::since_epoch().as_secs();
    let text = error.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    LAST.lock().insert(sink.to_owned(), (Instant::now(), unix, text));
}

/// What every backend last said, by the sinks' names.
pub fn all() -> Vec<Said> {
    let last = LAST.lock();
    let said = last.iter().map(|(sink, (at, unix_seconds, error))| Said {
        sink: sink.clone(),
        error: error.clone(),
        unix_seconds: *unix_seconds,
        age_seconds: at.elapsed().as_secs(),
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_each_sink_is_kept_short_and_on_one_line() {
        note("said.a", "first");
        note("said.a", "status 429:\nslow down");
        note("said.b", &"é".repeat(1000));
        let of = |name: &str| all().into_iter().find(|said| said.sink == name).expect("noted").error;
        assert_eq!(of("said.a"), "status 429: slow down");
        assert_eq!(of("said.b"), "é".repeat(240));
    }
}
