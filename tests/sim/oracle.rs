//! What must be in Loki, and what is there.
//!
//! In: every line that a container writes, every entry that Loki takes, every line that the agent gives up, every
//! position that it would make durable. Out: the first thing that is not as it must be.

use std::collections::HashMap;

use nodewick::data::position::Position;
use xxhash_rust::xxh3::xxh3_64;

use crate::chance::note;

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not in Loki yet.
    Open,
    /// In Loki, once.
    Stored,
    /// Loki will never take it, and the agent has said so.
    Refused,
    /// Gone before any agent could have read it.
    Excused(&'static str),
}

/// A line that a container wrote.
#[derive(Debug, Clone)]
pub struct Line {
    pub log: usize,
    pub stream: &'static str,
    pub text: String,
    /// As the agent must send it.
    pub time: u64,
    /// Generation in which it begins, and in which it ends.
    pub from: usize,
    pub to: usize,
    /// Behind its newline, in the generation in which it ends.
    pub end: u64,
    pub written_at: u64,
    pub poison: bool,
    /// All of it is written.
    pub done: bool,
    /// A last fragment that no `F` follows: it comes when the log ends, behind everything.
    pub tail: bool,
    pub fate: Fate,
}

/// A file of a log, from its creation or truncation to the next one.
#[derive(Debug, Clone, Default)]
pub struct Generation {
    /// Inode number as the agent sees it.
    pub number: u64,
    /// The fingerprint that the agent takes, 0 before the first whole line.
    pub head: u64,
    /// Lines that end here, by their end.
    pub lines: Vec<usize>,
    /// So many of them were found in Loki.
    pub checked: usize,
    /// Nothing may be said of it any more: truncated.
    pub cut: bool,
}

/// A container instance's log.
#[derive(Debug, Clone)]
pub struct LogFacts {
    pub key: String,
    /// The label set that its lines must stand under.
    pub labels: String,
    pub pod: String,
    pub generations: Vec<Generation>,
    /// The furthest line that Loki has.
    newest: (usize, u64),
}

/// Figures of a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Figures {
    pub written: u64,
    pub stored: u64,
    /// Received again, whatever Loki made of it.
    pub received_twice: u64,
    pub excused: u64,
    pub refused: u64,
    /// Pieces of lines whose beginning was gone.
    pub pieces: u64,
    /// Pieces of lines of which the rest was gone: only where a gap is told.
    pub cut: u64,
    /// Gap markers in the streams. What they tell of may have arrived all the same: only the acknowledgement is known.
    pub gaps: u64,
    /// Worst time from writing to storing, nanoseconds.
    pub worst_latency: u64,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub lines: Vec<Line>,
    pub logs: Vec<LogFacts>,
    by_hash: HashMap<u64, usize>,
    /// Lines that must still come.
    pub open: usize,
    pub failure: Option<String>,
    pub figures: Figures,
    /// The end of a line whose beginning is gone may come as a line of its own: after lost state or lost files.
    pub pieces_allowed: bool,
    /// Loki takes a request in part, entry by entry: order says nothing.
    pub any_order: bool,
    /// Lines may be refused as too far behind or too old, which is counted.
    pub refusals_allowed: bool,
}

fn hash(labels: &str, pod: &str, stream: &str, time: u64, text: &str) -> u64 {
    let mut all = Vec::with_capacity(labels.len() + pod.len() + text.len() + 24);
    for part in [labels, pod, stream, text] {
        all.extend_from_slice(part.as_bytes());
        all.push(0);
    }
    all.extend_from_slice(&time.to_le_bytes());
    xxh3_64(&all)
}

impl Oracle {
    pub fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.failure.is_none() {
            let text = text();
            note(|| format!("ORACLE: {text}"));
            self.failure = Some(text);
        }
    }

    pub fn add_log(&mut self, key: String, labels: String, pod: String) -> usize {
        self.logs.push(LogFacts { key, labels, pod, generations: Vec::new(), newest: (0, 0) });
        self.logs.len() - 1
    }

    /// A line begins to be written.
    pub fn begin(
        &mut self,
        log: usize,
        stream: &'static str,
        text: String,
        generation: usize,
        now: u64,
    ) -> usize {
        let poison = text.contains("POISON");
        self.lines.push(Line {
            log,
            stream,
            text,
            time: 0,
            from: generation,
            to: generation,
            end: 0,
            written_at: now,
            poison,
            done: false,
            tail: false,
            fate: Fate::Open,
        });
        self.open += 1;
        self.figures.written += 1;
        if crate::recorder::is_debug(&self.lines[self.lines.len() - 1].text) {
            self.excuse(self.lines.len() - 1, "held back");
        }
        self.lines.len() - 1
    }

    /// Its last byte is written.
    pub fn finish(&mut self, index: usize, time: u64, generation: usize, end: u64, now: u64) {
        let line = &mut self.lines[index];
        (line.time, line.to, line.end, line.done, line.written_at) = (time, generation, end, true, now);
        let log = &mut self.logs[line.log];
        log.generations[generation].lines.push(index);
        let key = hash(&log.labels, &log.pod, line.stream, time, &line.text);
        if let Some(other) = self.by_hash.insert(key, index) {
            let text = line.text.clone();
            self.fail(|| format!("the simulator wrote line {other} twice: {text}"));
        }
    }

    /// It will not be written any further: a last fragment without an end, whose text is what stands there.
    pub fn finish_tail(
        &mut self,
        index: usize,
        text: String,
        time: u64,
        generation: usize,
        end: u64,
        now: u64,
    ) {
        self.lines[index].text = text;
        self.finish(index, time, generation, end, now);
        self.lines[index].tail = true;
    }

    /// Loki has received an entry; `fresh` when it did not have it.
    pub fn received(
        &mut self,
        labels: &str,
        time: u64,
        text: &str,
        metadata: &[(String, String)],
        fresh: bool,
        now: u64,
    ) {
        let value = |name: &str| metadata.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let key = hash(labels, value("pod"), value("stream"), time, text);
        if text.contains(r#""event":"nodewick.gap""#) {
            self.figures.gaps += u64::from(fresh);
            return;
        }
        let Some(&index) = self.by_hash.get(&key) else {
            // What was open when its end went missing comes out as far as it is known, with an earlier stamp; and the
            // end of a line whose beginning went missing comes alone.
            let piece = self.lines.iter().any(|line| {
                let longer = line.text.len() > text.len();
                let cut = line.text.starts_with(text) && (!line.done || time <= line.time);
                let same_log =
                    self.logs[line.log].labels == labels && self.logs[line.log].pod == value("pod");
                same_log && (cut || longer && (line.text.ends_with(text) || self.is_middle(line, text)))
            });
            if piece {
                self.figures.cut += u64::from(fresh);
                return;
            }
            let known = self.lines.iter().find(|line| line.text == text);
            if known.is_none()
                && self.pieces_allowed
                && self.lines.iter().any(|line| line.text.ends_with(text))
            {
                self.figures.pieces += u64::from(fresh);
                return;
            }
            let known = known.map(|line| {
                let log = &self.logs[line.log];
                format!("written as {} {} {} at {}", log.labels, log.pod, line.stream, line.time)
            });
            let what = if known.is_some() { "misattributed" } else { "corrupt" };
            self.fail(|| format!("{what}: {labels} {metadata:?} at {time}: {text:?}; {known:?}"));
            return;
        };
        if !fresh {
            self.figures.received_twice += 1;
            return;
        }
        let line = &mut self.lines[index];
        let was = std::mem::replace(&mut line.fate, Fate::Stored);
        let log = &mut self.logs[line.log];
        let place = (line.to, if line.tail { u64::MAX } else { line.end });
        match was {
            Fate::Open => self.open -= 1,
            Fate::Excused(_) => self.figures.excused -= 1,
            Fate::Stored | Fate::Refused => {
                let text = text.to_owned();
                self.fail(|| {
                    format!("stored twice, {was:?} before: {labels} {metadata:?} at {time}: {text:?}")
                });
                return;
            }
        }
        self.figures.stored += 1;
        self.figures.worst_latency = self.figures.worst_latency.max(now.saturating_sub(line.written_at));
        // What an agent had sent before it died may arrive when the next one has given it up.
        let late = matches!(was, Fate::Excused(_));
        if place < log.newest && !self.any_order && !late {
            let (key, newest) = (log.key.clone(), log.newest);
            self.fail(|| format!("out of order in {key}: {place:?} after {newest:?}: {text:?}"));
            return;
        }
        log.newest = log.newest.max(place);
    }

    /// True for the middle of a line in whose course the file was cut twice: what stood before the first cut and behind
    /// the second one is known to be gone.
    fn is_middle(&self, line: &Line, text: &str) -> bool {
        let generations = &self.logs[line.log].generations;
        let last = if line.done { line.to } else { generations.len() - 1 };
        let whole_between = line.from + 1 < last;
        whole_between && generations[line.from..last].iter().all(|it| it.cut) && line.text.contains(text)
    }

    /// The agent has given a line up, since the backend refused it for good.
    pub fn refused(&mut self, labels: &str, pod: &str, stream: &str, time: u64, text: &str, why: &str) {
        let index = self.by_hash.get(&hash(labels, pod, stream, time, text)).copied();
        let Some(index) = index else {
            if !self.pieces_allowed {
                self.fail(|| format!("an unknown line was refused: {text:?}"));
            }
            return;
        };
        let line = &mut self.lines[index];
        if !line.poison && !self.refusals_allowed {
            self.fail(|| format!("given up although Loki would take it ({why}): {text:?}"));
            return;
        }
        if line.fate == Fate::Open {
            line.fate = Fate::Refused;
            self.open -= 1;
            self.figures.refused += 1;
        }
    }

    pub fn excuse(&mut self, index: usize, why: &'static str) {
        let line = &mut self.lines[index];
        if line.fate == Fate::Open {
            line.fate = Fate::Excused(why);
            self.open -= 1;
            self.figures.excused += 1;
        }
    }

    /// True when something of a generation is still to come.
    pub fn needs(&self, log: usize, generation: usize) -> bool {
        self.lines.iter().rev().any(|line| {
            line.log == log
                && line.fate == Fate::Open
                && (line.from..=line.to.max(line.from)).contains(&generation)
        })
    }

    /// Lines of a generation that are still to come.
    pub fn open_in(&self, log: usize, generation: usize) -> Vec<usize> {
        let of = |line: &Line| {
            line.log == log && line.fate == Fate::Open && (line.from == generation || line.to == generation)
        };
        (0..self.lines.len()).filter(|&index| of(&self.lines[index])).collect()
    }

    /// What a checkpoint may say: no line before a position may be missing in Loki.
    pub fn check_position(&mut self, key: &str, position: &Position, whole: bool) {
        let Some(log) = self.logs.iter_mut().find(|log| log.key == key) else {
            if !key.is_empty() {
                self.fail(|| format!("a checkpoint speaks of {key:?}, which never was"));
            }
            return;
        };
        if position.offset == 0 && position.generation.head == 0 {
            return;
        }
        let wanted = position.generation;
        let at = log.generations.iter().rposition(|generation| {
            if wanted.head != 0 { generation.head == wanted.head } else { generation.number == wanted.inode }
        });
        let Some(at) = at else {
            let text = format!("a checkpoint of {key} speaks of a file that never was: {position:?}");
            self.fail(|| text);
            return;
        };
        for number in 0..=at {
            let generation = &mut log.generations[number];
            let limit = if number == at { position.offset } else { u64::MAX };
            let from = if whole { 0 } else { generation.checked };
            for &index in &generation.lines[from..] {
                let line = &self.lines[index];
                if line.end > limit {
                    break;
                }
                if line.fate == Fate::Open && !line.tail && !generation.cut {
                    let text = format!(
                        "a checkpoint of {key} is at generation {at} (inode {}) offset {} and passes a line that Loki does not have: generation {}, end {}: {:?}",
                        wanted.inode, position.offset, line.to, line.end, line.text
                    );
                    self.fail(|| text);
                    return;
                }
                if !whole {
                    generation.checked += 1;
                }
            }
        }
    }

    /// Lines that are missing, for the report.
    pub fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            if line.fate == Fate::Open && missing.len() < 12 {
                let log = &self.logs[line.log];
                let text: String = line.text.chars().take(80).collect();
                missing.push(format!(
                    "line {index} of {} ({}) generation {}..{} end {} done {} written at {:.3} s: {text}",
                    log.key,
                    line.stream,
                    line.from,
                    line.to,
                    line.end,
                    line.done,
                    line.written_at as f64 / 1e9
                ));
            }
        }
        missing
    }
}
