//! The node's log files, and who writes, rotates and removes them.
//!
//! A file system in memory: names, inodes whose numbers are used again at once, open files that outlive their names.
//! Containers write CRI lines; the kubelet renames, compresses and removes as `container_log_manager.go` does, one
//! system call at a time, so that the agent's own calls may fall between any two of them. The clock stands still
//! unless somebody moves it; each call that the agent makes moves it a little.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nodewick::data::budget::Signal;
use nodewick::logs::env::{Entry, Env, Kind, LogFile, OpenError, Stat};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

mod kubelet;
mod view;

pub use view::SimEnv;

use crate::chance::{Rng, note};
use crate::oracle::Oracle;

pub const ROOT: &str = "/var/log/pods";
pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;
/// 2026-11-22T14:00:00Z.
pub const BASE: u64 = 1_795_356_000 * SECOND;
/// Files that the kubelet keeps, the live one included.
const MAX_FILES: usize = 5;
/// What the agent needs to see that a log was rotated.
const FRESH_FILE: u64 = 1600 * MILLI;
/// An agent that runs for this long has all files open that it needs.
const AT_HOME: u64 = 5 * SECOND;

/// How the file system's events reach the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    Prompt,
    /// Up to a second late.
    Late,
    /// Never.
    Lost,
}

/// What the node is like.
#[derive(Debug, Clone)]
pub struct Nature {
    /// Nothing is removed that the agent still needs while it is away; else what is gone is excused.
    pub strict: bool,
    pub events: Events,
    /// One read, open, listing in so many fails; 0 for none.
    pub read_error: u64,
    pub open_error: u64,
    pub list_error: u64,
    /// Payload bytes of a fragment.
    pub fragment: usize,
    /// Between two rotations of a log, nanoseconds; 0 for none.
    pub rotate: (u64, u64),
    /// `cp` and `truncate` instead of renaming.
    pub copytruncate: bool,
    /// Between two lines of a log, nanoseconds.
    pub pace: (u64, u64),
    /// One line in so many has a stamp and a text that were there before.
    pub copies: u64,
    /// One line in four is that of a request.
    pub requests: bool,
    /// Every other line with a request id is a debug line, and the flight recorder is on.
    pub recorder: bool,
    /// One line in so many is longer than a fragment.
    pub long: u64,
    /// One write in so many is seen in two pieces.
    pub torn: u64,
    /// One line in so many is one that the backend refuses.
    pub poison: u64,
    /// One step of a rotation in so many is overtaken by a kubelet restart: the rest of it does not happen.
    pub abandoned: u64,
    /// A file's number is not used again.
    pub fresh_inodes: bool,
    /// The agent's calls move the clock, so that the world may change between two of them.
    pub races: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            strict: true,
            events: Events::Prompt,
            read_error: 0,
            open_error: 0,
            list_error: 0,
            fragment: 160,
            rotate: (3 * SECOND, 8 * SECOND),
            copytruncate: false,
            pace: (20 * MILLI, 200 * MILLI),
            copies: 12,
            requests: true,
            recorder: false,
            long: 15,
            torn: 12,
            poison: 0,
            abandoned: 30,
            fresh_inodes: false,
            races: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Log,
    /// Compressed; `data` is the content.
    Gzip,
    /// Being compressed.
    Unfinished,
}

#[derive(Debug)]
struct Inode {
    number: u64,
    data: Vec<u8>,
    links: u32,
    handles: u32,
    content: Content,
    freed: bool,
    /// The generations that it holds.
    of: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Debug, Default)]
struct Dir {
    names: BTreeMap<String, Node>,
    modified: u64,
}

/// One step of the kubelet or the runtime.
#[derive(Debug, Clone)]
enum Op {
    Remove(String),
    RemoveDir(String),
    MakeTmp(String),
    FinishTmp(String),
    Rename(String, String),
    Reopen,
    Swap(usize),
    Copy(String),
    Truncate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Write(usize),
    Op(usize),
    Rotate(usize),
    Restart(usize),
    Delete(usize),
    /// The directory of a pod is being emptied.
    Purge(usize),
    Event,
}

struct Torn {
    inode: usize,
    rest: Vec<u8>,
}

struct Partial {
    line: usize,
    text: String,
    at: usize,
}

/// A container instance.
struct Container {
    pod_dir: String,
    name: String,
    restart: u32,
    dir: String,
    live: String,
    /// Where each pipe writes.
    open: [Option<usize>; 2],
    torn: Option<Torn>,
    partial: [Option<Partial>; 2],
    ops: VecDeque<Op>,
    running: bool,
    gone: bool,
    seq: u64,
    stamp: u64,
    /// Texts under the newest stamp.
    same: Vec<(String, u64)>,
    /// conmon stamps all lines of one read alike.
    conmon: bool,
    rotated_second: u64,
    born: u64,
    /// When its newest file was begun.
    reopened: u64,
    /// Rotations since the agent was last alive.
    missed: u32,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub nature: Nature,
    pub oracle: Oracle,
    inodes: Vec<Inode>,
    numbers: Vec<u64>,
    next_number: u64,
    dirs: BTreeMap<String, Dir>,
    acts: BinaryHeap<Reverse<(u64, u64, Act)>>,
    next_act: u64,
    containers: Vec<Container>,
    watched: HashSet<String>,
    changed: bool,
    signal: Option<Arc<Signal>>,
    /// Since when an agent runs.
    pub alive_since: Option<u64>,
    pub quiet: bool,
    next_uid: u64,
    /// Bytes that were in no copy or in a copy only when their file was cut.
    pub cut_lines: Vec<(usize, u64)>,
    /// Reads of the agent that flip a bit: a defect, to see that the oracle finds it.
    pub flip: bool,
    pub rotations: u64,
    /// Generations that went while no agent could read them.
    pub away: HashSet<(usize, usize)>,
    /// Calls of the agent fail, or did until the faults ended.
    errors: bool,
}

pub type Shared = Arc<Mutex<World>>;

fn stamp_text(unix_nano: u64) -> String {
    let secs = unix_nano / SECOND;
    let days = secs / 86_400;
    debug_assert!((20_779..20_800).contains(&days), "November and December 2026 only");
    let (month, day) = if days < 20_788 { (11, days - 20_757) } else { (12, days - 20_787) };
    let (h, m, s) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("2026-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:09}Z", unix_nano % SECOND)
}

impl World {
    pub fn new(mut rng: Rng, nature: Nature) -> Self {
        let mut world = Self {
            now: 0,
            rng: rng.fork(),
            nature,
            oracle: Oracle::default(),
            inodes: Vec::new(),
            numbers: Vec::new(),
            next_number: 100,
            dirs: BTreeMap::new(),
            acts: BinaryHeap::new(),
            next_act: 0,
            containers: Vec::new(),
            watched: HashSet::new(),
            changed: false,
            signal: None,
            alive_since: None,
            quiet: false,
            next_uid: 1,
            cut_lines: Vec::new(),
            flip: false,
            rotations: 0,
            away: HashSet::new(),
            errors: false,
        };
        let nature = &world.nature;
        world.errors = nature.read_error + nature.open_error + nature.list_error > 0;
        world.make_dir(ROOT);
        world
    }

    pub fn wall(&self) -> u64 {
        BASE + self.now
    }

    pub fn next_due(&self) -> Option<u64> {
        self.acts.peek().map(|Reverse((due, ..))| *due)
    }

    /// Moves the clock and does all that is due.
    pub fn advance(&mut self, to: u64) {
        while let Some(&Reverse((due, _, act))) = self.acts.peek() {
            if due > to {
                break;
            }
            self.acts.pop();
            self.now = self.now.max(due);
            self.act(act);
        }
        self.now = self.now.max(to);
    }

    fn schedule(&mut self, after: u64, act: Act) {
        self.next_act += 1;
        self.acts.push(Reverse((self.now + after, self.next_act, act)));
    }

    /// A call of the agent takes its time, and sometimes the scheduler does.
    fn call(&mut self) {
        if !self.nature.races {
            return;
        }
        let mut to = self.now + self.rng.range(500, 20_000);
        match self.rng.below(64) {
            0 => to += self.rng.below(3 * MILLI),
            // Into the middle of whatever comes next.
            1 | 2 => {
                if let Some(due) = self.next_due().filter(|due| *due < self.now + 30 * MILLI) {
                    to = to.max(due);
                }
            }
            _ => {}
        }
        self.advance(to);
    }

    // Names and inodes.

    fn make_dir(&mut self, path: &str) {
        if self.dirs.contains_key(path) {
            return;
        }
        self.dirs.insert(path.to_owned(), Dir::default());
        self.touch(path);
        if let Some((parent, name)) = path.rsplit_once('/')
            && let Some(dir) = self.dirs.get_mut(parent)
        {
            dir.names.insert(name.to_owned(), Node::Dir);
            let parent = parent.to_owned();
            self.touch(&parent);
        }
    }

    /// The kernel stamps with its coarse clock.
    fn touch(&mut self, dir: &str) {
        let coarse = self.wall() / (4 * MILLI) * (4 * MILLI);
        if let Some(dir) = self.dirs.get_mut(dir) {
            dir.modified = coarse;
        }
        if self.watched.contains(dir) {
            match self.nature.events {
                Events::Prompt => self.tell(),
                Events::Late => {
                    let late = self.rng.below(SECOND);
                    self.schedule(late, Act::Event);
                }
                Events::Lost => {}
            }
        }
    }

    fn tell(&mut self) {
        self.changed = true;
        if let Some(signal) = &self.signal {
            signal.raise();
        }
    }

    fn node(&self, path: &str) -> Option<Node> {
        let (dir, name) = path.rsplit_once('/')?;
        self.dirs.get(dir)?.names.get(name).copied()
    }

    fn file(&self, path: &str) -> Option<usize> {
        match self.node(path)? {
            Node::File(inode) => Some(inode),
            Node::Dir => None,
        }
    }

    fn link(&mut self, path: &str, inode: usize) {
        let Some((dir, name)) = path.rsplit_once('/') else { return };
        let old = self.dirs.get_mut(dir).and_then(|dir| dir.names.insert(name.to_owned(), Node::File(inode)));
        self.inodes[inode].links += 1;
        if let Some(Node::File(old)) = old {
            self.inodes[old].links -= 1;
            self.settle(old);
        }
        let dir = dir.to_owned();
        self.touch(&dir);
    }

    fn unlink(&mut self, path: &str) -> Option<usize> {
        let (dir, name) = path.rsplit_once('/')?;
        let node = self.dirs.get_mut(dir)?.names.remove(name)?;
        let dir = dir.to_owned();
        self.touch(&dir);
        match node {
            Node::File(inode) => {
                self.inodes[inode].links -= 1;
                self.settle(inode);
                Some(inode)
            }
            Node::Dir => None,
        }
    }

    fn create(&mut self, path: &str, content: Content) -> usize {
        let number = self.numbers.pop().unwrap_or_else(|| {
            self.next_number += 1;
            self.next_number
        });
        self.inodes.push(Inode {
            number,
            data: Vec::new(),
            links: 0,
            handles: 0,
            content,
            freed: false,
            of: Vec::new(),
        });
        let inode = self.inodes.len() - 1;
        self.link(path, inode);
        inode
    }

    /// An inode that nobody knows any more is free, and its number is the next to be used.
    fn settle(&mut self, inode: usize) {
        let node = &mut self.inodes[inode];
        if node.links > 0 || node.handles > 0 || node.freed {
            return;
        }
        node.freed = true;
        node.data = Vec::new();
        if !self.nature.fresh_inodes {
            self.numbers.push(node.number);
        }
        let of = node.of.clone();
        if self.alive_since.is_none_or(|since| self.now < since + AT_HOME) {
            for (log, generation) in of {
                self.excuse_generation(log, generation, "removed while the agent was away");
            }
        }
    }

    /// True while some file holds the content of a generation.
    fn reachable(&self, log: usize, generation: usize) -> bool {
        self.inodes.iter().any(|inode| {
            !inode.freed && inode.content != Content::Unfinished && inode.of.contains(&(log, generation))
        })
    }

    /// True when the end of a line is in no file any more.
    pub fn is_gone(&self, line: &crate::oracle::Line) -> bool {
        line.done && !(line.from..=line.to).all(|generation| self.reachable(line.log, generation))
    }

    fn excuse_generation(&mut self, log: usize, generation: usize, why: &'static str) {
        if self.reachable(log, generation) {
            return;
        }
        self.away.insert((log, generation));
        for line in self.oracle.open_in(log, generation) {
            note(|| {
                format!("{:>11.6} excused ({why}): {}", self.now as f64 / 1e9, self.oracle.lines[line].text)
            });
            self.oracle.excuse(line, why);
        }
    }

    /// Generations without a name whose lines are not all in Loki.
    pub fn lives_by_handles(&self) -> bool {
        let all = self.oracle.logs.iter().enumerate();
        let mut of = all.flat_map(|(log, facts)| (0..facts.generations.len()).map(move |at| (log, at)));
        of.any(|(log, generation)| !self.has_name(log, generation) && self.oracle.needs(log, generation))
    }

    fn has_name(&self, log: usize, generation: usize) -> bool {
        self.inodes.iter().any(|inode| {
            inode.links > 0 && inode.content != Content::Unfinished && inode.of.contains(&(log, generation))
        })
    }

    /// The agent is about to die with all it holds: what it alone could read is gone.
    pub fn agent_dies(&mut self) {
        self.alive_since = None;
        self.signal = None;
        for log in 0..self.oracle.logs.len() {
            for generation in 0..self.oracle.logs[log].generations.len() {
                if !self.has_name(log, generation) {
                    for line in self.oracle.open_in(log, generation) {
                        self.oracle.excuse(line, "held by an agent that died");
                    }
                }
            }
        }
    }

    pub fn agent_lives(&mut self, signal: Arc<Signal>) {
        self.alive_since = Some(self.now);
        self.signal = Some(signal);
        self.watched.clear();
        self.changed = true;
        for container in &mut self.containers {
            container.missed = 0;
        }
    }

    /// Where a log's position is not known, or in a file that is gone, the oldest file on disk is read from its
    /// start, which may be the end of a line that began in the file before.
    pub fn expect_pieces(&mut self, marks: &nodewick::logs::checkpoint::Marks) {
        for log in 0..self.oracle.logs.len() {
            let facts = &self.oracle.logs[log];
            if facts.generations.len() < 2 {
                continue;
            }
            let known = marks.get(&facts.key).is_some_and(|mark| {
                let head = mark.position.generation.head;
                let at = facts.generations.iter().position(|generation| generation.head == head);
                head != 0 && at.is_some_and(|at| self.reachable(log, at))
            });
            if !known {
                self.oracle.pieces_allowed = true;
                return;
            }
        }
    }

    fn at_home(&self) -> bool {
        self.alive_since.is_some_and(|since| self.now >= since + AT_HOME)
    }

    /// Rotations that the busiest log has had since the agent went away.
    pub fn missed_rotations(&self) -> u32 {
        self.containers.iter().map(|container| container.missed).max().unwrap_or(0)
    }
}
