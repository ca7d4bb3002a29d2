//! What became of each target, and why a pod is none: for `/targets` and `nodewick why`.
//!
//! In: candidates whenever pods change, and the outcome of each scrape. Out: rows, as JSON. Invariants: at most [`ROWS`]
//! rows and [`TEXT`] bytes of any message; a target that stays keeps what is known of it when others come and go.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::target::Target;
use super::targets::Candidate;

/// Rows that are kept at most. A node has rarely more than 250 pods.
pub const ROWS: usize = 4096;
/// Bytes of a message that are kept.
pub const TEXT: usize = 512;

/// Whether a target answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its last scrape was good.
    Up,
    /// Its last scrape failed.
    Down,
    /// It has not been scraped yet.
    #[default]
    Unknown,
    /// It is no target.
    NotScraped,
}

/// What came of one scrape.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// When, milliseconds since the epoch.
    pub time_unix_ms: i64,
    /// How long it took.
    pub took: Duration,
    /// Samples that the target exposed, or why there are none.
    pub samples: Result<u64, &'a Failure>,
}

/// One object of `/targets`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Namespace of the pod; empty for a static target.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Where it is scraped; for a static target that is none, its address.
    pub url: String,
    /// Labels of its series.
    pub labels: BTreeMap<String, String>,
    /// Whether it answers.
    pub state: State,
    /// Why not, as one word of a closed set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why not, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// How often it is scraped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<f64>,
    /// When it was last scraped, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scrape_unix_ms: Option<i64>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// How long that took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Samples that it exposed, in its last good scrape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// What its last failed scrape said; it may have been good since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_age_seconds: Option<f64>,
}

/// What is known of all targets, shared by those who scrape and those who show it.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    entries: Vec<Entry>,
    /// Places of targets in `entries`.
    places: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Entry {
    candidate: Candidate,
    last: Option<Last>,
    error: Option<Error>,
    samples: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    time_unix_ms: i64,
    took: Duration,
    good: bool,
}

#[derive(Debug, Clone)]
struct Error {
    time_unix_ms: i64,
    reason: &'static str,
    message: String,
}

impl Board {
    /// These are the candidates now. What is known of a target that stays is kept.
    pub fn seen(&self, candidates: &[Candidate]) {
        let mut shared = self.0.lock();
        let mut before = std::mem::take(&mut *shared);
        let rows = &mut *shared;
        for candidate in candidates.iter().take(ROWS) {
            let mut entry = Entry { candidate: candidate.clone(), last: None, error: None, samples: None };
            if let Ok(target) = &candidate.found {
                let key = key(target);
                if let Some(known) = before.places.remove(&key).map(|at| &mut before.entries[at]) {
                    entry.last = known.last;
                    entry.error = known.error.take();
                    entry.samples = known.samples;
                }
                rows.places.insert(key, rows.entries.len());
            }
            rows.entries.push(entry);
        }
    }

    /// A target was scraped. One that is no candidate any more is passed over.
    pub fn scraped(&self, target: &Target, outcome: Outcome<'_>) {
        let mut rows = self.0.lock();
        let Some(at) = rows.places.get(&key(target)).copied() else { return };
        let Outcome { time_unix_ms, took, samples } = outcome;
        let entry = &mut rows.entries[at];
        entry.last = Some(Last { time_unix_ms, took, good: samples.is_ok() });
        match samples {
            Ok(samples) => entry.samples = Some(samples),
            Err(failure) => {
                let message = bounded(failure.to_string());
                entry.error = Some(Error { time_unix_ms, reason: failure.reason(), message });
            }
        }
    }

    /// All rows as they are at `now_unix_ms`.
    pub fn rows(&self, now_unix_ms: i64) -> Vec<Row> {
        self.0.lock().entries.iter().map(|entry| entry.row(now_unix_ms)).collect()
    }

    /// The same as a JSON array.
    pub fn page(&self, now_unix_ms: i64) -> String {
        serde_json::to_string(&self.rows(now_unix_ms)).unwrap_or_else(|_| "[]".to_owned())
    }
}

impl Entry {
    fn row(&self, now_unix_ms: i64) -> Row {
        let mut row = Row::default();
        if let Some(pod) = &self.candidate.pod {
            (row.namespace, row.pod, row.uid) = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
        }
        let target = match &self.candidate.found {
            Ok(target) => target,
            Err(why) => {
                row.url = self.candidate.address.clone();
                row.state = State::NotScraped;
                row.reason = why.word().to_owned();
                row.message = bounded(why.to_string());
                row.hint = why.hint();
                return row;
            }
        };
        let age = |then: i64| Some((now_unix_ms - then).max(0) as f64 / 1e3);
        row.url = target.url();
        row.labels = target.origin.labels.iter().cloned().collect();
        row.interval_seconds = Some(target.interval.as_secs_f64());
        row.samples = self.samples;
        if let Some(last) = &self.last {
            row.state = if last.good { State::Up } else { State::Down };
            row.last_scrape_unix_ms = Some(last.time_unix_ms);
            row.age_seconds = age(last.time_unix_ms);
            row.duration_seconds = Some(last.took.as_secs_f64());
        }
        if let Some(error) = &self.error {
            if row.state == State::Down {
                row.reason = error.reason.to_owned();
                row.message = error.message.clone();
                row.hint = hint(error.reason).to_owned();
            }
            row.last_error = Some(error.message.clone());
            row.last_error_age_seconds = age(error.time_unix_ms);
        }
        row
    }
}

/// What a person can do about a failed scrape, by its reason, where the message does not say it.
fn hint(reason: &str) -> &'static str {
    match reason {
        "connect" => {
            "check that the container listens on this port on all addresses, not on 127.0.0.1 only, and that no NetworkPolicy forbids it"
        }
        "content_type" => "check prometheus.io/path: what answers there is not its metrics",
        "malformed" => "mend the exposition: the whole page is refused where a line cannot be read",
        _ => "",
    }
}

/// What makes a target the same one from one look to the next.
fn key(target: &Target) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    (target.scheme, &target.host, target.port, &target.path, &target.pod).hash(&mut hasher);
    target.origin.labels.hash(&mut hasher);
    hasher.finish()
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrape::config::{Config, Static};
    use crate::scrape::guard::Guard;
    use crate::scrape::targets::{Site, Targets};

    fn candidates(addresses: &[&str]) -> Vec<Candidate> {
        let targets = addresses.iter().map(|text| (*text).to_owned()).collect();
        let config = Config { fixed: vec![Static { targets, ..Static::default() }], ..Config::default() };
        let pod = crate::data::pods::Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            ..crate::data::pods::Pod::default()
        };
        let targets = Targets::new(&config, Site::default(), Guard::default()).expect("no rules");
        targets.discover(&[Arc::new(pod)])
    }

    fn target(of: &Candidate) -> Arc<Target> {
        Arc::clone(of.found.as_ref().expect("a target"))
    }

    #[test]
    fn a_target_is_unknown_then_up_or_down() {
        let (board, all) = (Board::default(), candidates(&["a:1"]));
        board.seen(&all);
        assert_eq!(board.rows(0)[0].state, State::Unknown);
        let took = Duration::from_millis(20);
        let target = target(&all[0]);
        board.scraped(&target, Outcome { time_unix_ms: 1_000, took, samples: Ok(7) });
        let row = &board.rows(3_500)[0];
        assert_eq!((row.state, row.samples, row.age_seconds), (State::Up, Some(7), Some(2.5)));
        assert_eq!((row.duration_seconds, row.last_scrape_unix_ms), (Some(0.02), Some(1_000)));
        let failure = Failure::Status(404);
        board.scraped(&target, Outcome { time_unix_ms: 2_000, took, samples: Err(&failure) });
        let row = &board.rows(2_000)[0];
        assert_eq!((row.state, row.reason.as_str()), (State::Down, "status"));
        assert_eq!(row.message, "the target answers 404; check prometheus.io/path");
        board.scraped(&target, Outcome { time_unix_ms: 3_000, took, samples: Ok(8) });
        let row = &board.rows(4_000)[0];
        assert_eq!((row.state, row.message.as_str(), row.samples), (State::Up, "", Some(8)));
        assert_eq!(row.last_error_age_seconds, Some(2.0), "it is still told what failed last");
    }

    #[test]
    fn what_is_known_of_a_target_stays_while_it_stays() {
        let (board, took) = (Board::default(), Duration::ZERO);
        let before = candidates(&["a:1", "b:2"]);
        board.seen(&before);
        for one in &before[..2] {
            board.scraped(&target(one), Outcome { time_unix_ms: 1, took, samples: Ok(1) });
        }
        board.seen(&candidates(&["c:3", "b:2"]));
        let states: Vec<(String, State)> =
            board.rows(1).into_iter().map(|row| (row.url, row.state)).collect();
        let expected = [
            ("http://c:3/metrics".to_owned(), State::Unknown),
            ("http://b:2/metrics".to_owned(), State::Up),
            (String::new(), State::NotScraped),
        ];
        assert_eq!(states, expected);
        // One that is gone is passed over.
        board.scraped(&target(&before[0]), Outcome { time_unix_ms: 2, took, samples: Ok(1) });
        assert_eq!(board.rows(2).len(), 3);
    }

    #[test]
    fn a_page_is_read_back_as_its_rows_and_says_why() {
        let board = Board::default();
        board.seen(&candidates(&["a:1"]));
        let read: Vec<Row> = serde_json::from_str(&board.page(5)).expect("rows");
        assert_eq!(read, board.rows(5));
        assert_eq!((read[1].pod.as_str(), read[1].reason.as_str()), ("web-0", "not_annotated"));
        assert_eq!(read[1].message, "no annotation asks for it");
    }

    #[test]
    fn messages_and_rows_are_bounded() {
        let (board, all) = (Board::default(), candidates(&["a:1"]));
        board.seen(&vec![all[0].clone(); ROWS + 5]);
        assert_eq!(board.rows(0).len(), ROWS);
        board.seen(&all);
        let failure = Failure::Connect("é".repeat(1000));
        let outcome = Outcome { time_unix_ms: 1, took: Duration::ZERO, samples: Err(&failure) };
        board.scraped(&target(&all[0]), outcome);
        assert!(board.rows(1)[0].message.len() <= TEXT + '…'.len_utf8());
    }
}
