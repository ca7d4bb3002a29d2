//! Counts requests as RED does: every one that the agent hands over, with the position up to which it is counted, saved
//! together, at any time, and lost back to the last save when the agent dies.
//!
//! In: what the tail hands over. Out: each request with how often it was counted: once, but for those whose bytes were
//! gone from disk before an agent that had lost the count of them could read them again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nodewick::data::access::{AccessTap, Request};
use nodewick::data::position::Position;
use nodewick::data::workload::Workload;
use parking_lot::Mutex;

use crate::chance::note;
use crate::oracle::{Fate, Line};

/// What is saved.
#[derive(Debug, Default, Clone)]
struct Book {
    counts: HashMap<String, u32>,
    positions: HashMap<String, Position>,
}

/// Counts and their last save.
#[derive(Debug, Default)]
pub struct Red {
    now: Book,
    saved: Book,
    is_resumed: bool,
    /// Lines that no count was saved of, and that were in no file any more when an agent started.
    gone: HashSet<usize>,
    /// What is wrong with the calls themselves.
    pub failure: Option<String>,
}

pub type Counts = Arc<Mutex<Red>>;

/// The end that the tail calls.
pub struct Tap(pub Counts);

impl AccessTap for Tap {
    fn counted(&self, key: &str) -> Option<Position> {
        self.0.lock().now.positions.get(key).copied()
    }

    fn is_resumed(&self) -> bool {
        self.0.lock().is_resumed
    }

    fn count(
        &mut self,
        key: &Arc<str>,
        _: &Arc<Workload>,
        requests: &[Request],
        text: &[u8],
        until: Position,
    ) {
        let mut red = self.0.lock();
        for request in requests {
            let id = String::from_utf8_lossy(request.request_id.of(text)).into_owned();
            *red.now.counts.entry(id).or_default() += 1;
            if request.status != 200 || request.duration_nano != Some(7_500_000) {
                red.failure = Some(format!("a request is not as it was written: {request:?}"));
            }
        }
        note(|| format!("             {key} counted to {until:?}, {} requests", requests.len()));
        red.now.positions.insert(key.to_string(), until);
    }

    fn lag(&mut self, _: &str, _: &Arc<Workload>, _: u64) {}

    fn forget(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.0.lock().now.positions.retain(|key, _| is_there(key));
    }
}

impl Red {
    pub fn save(&mut self) {
        self.saved = self.now.clone();
    }

    /// The agent died: what was not saved is forgotten.
    pub fn fall_back(&mut self) {
        self.now = self.saved.clone();
        self.is_resumed = true;
    }

    /// An agent starts: what no count was saved of can only be counted where it still is.
    pub fn give_up(&mut self, lines: &[Line], is_gone: &dyn Fn(&Line) -> bool) {
        for (index, line) in lines.iter().enumerate() {
            if let Some(id) = id_of(&line.text)
                && !self.now.counts.contains_key(id)
                && is_gone(line)
            {
                self.gone.insert(index);
            }
        }
    }

    /// Requests that were counted and those that may be missing, or the line that is not counted as it must be. `away`
    /// are generations that were gone before an agent could read them.
    pub fn check(&self, lines: &[Line], away: &HashSet<(usize, usize)>) -> Result<(u64, u64), String> {
        let (mut requests, mut missed) = (0, 0);
        for (index, line) in lines.iter().enumerate() {
            let Some(id) = id_of(&line.text) else { continue };
            let counted = self.now.counts.get(id).copied().unwrap_or(0);
            // What no agent could read, none could count; some of it was read before.
            let is_gone = self.gone.contains(&index)
                || (line.from..=line.to).any(|generation| away.contains(&(line.log, generation)));
            let least = u32::from(matches!(line.fate, Fate::Stored | Fate::Refused) && !is_gone);
            requests += u64::from(counted);
            missed += u64::from(counted == 0 && is_gone);
            if counted > 1 || counted < least {
                return Err(format!(
                    "a request was counted {counted} times ({:?}, generation {}..{} end {}): {}",
                    line.fate, line.from, line.to, line.end, line.text
                ));
            }
        }
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok((requests, missed)),
        }
    }
}

/// The access line of a request.
pub fn line(id: &str, body: &str) -> String {
    format!(
        r#"{{"level":30,"reqId":"{id}","req":{{"method":"GET","url":"/o/7?x=1"}},"res":{{"statusCode":200}},"responseTime":7.5,"msg":"{body}"}}"#
    )
}

fn id_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(r#"{"level":30,"reqId":""#).filter(|_| line.ends_with("\"}"))?;
    Some(&rest[..rest.find('"')?])
}
