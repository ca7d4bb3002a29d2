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
        };
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

    fn excuse_generation(&mut self, log: usize, generation: usize, why: &'static str) {
        if self.reachable(log, generation) {
            return;
        }
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

    // Pods and containers.

    /// A pod with one container begins to write. `pod_dir` is `<namespace>_<pod>_<uid>`.
    pub fn start_pod(&mut self, namespace: &str, pod: &str, container: &str) -> usize {
        let uid = format!("{:08x}", 0x1000_0000 + self.next_uid);
        self.next_uid += 1;
        let pod_dir = format!("{namespace}_{pod}_{uid}");
        self.make_dir(&format!("{ROOT}/{pod_dir}"));
        self.make_dir(&format!("{ROOT}/{pod_dir}/{container}"));
        self.start_container(pod_dir, container.to_owned(), 0)
    }

    fn start_container(&mut self, pod_dir: String, name: String, restart: u32) -> usize {
        let mut parts = pod_dir.split('_');
        let (namespace, pod) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let service = nodewick::data::workload::guess_service(pod);
        let labels = format!(
            "{{cluster=\"c1\", container=\"{name}\", namespace=\"{namespace}\", node=\"n1\", service_name=\"{service}\"}}"
        );
        let key = format!("{pod_dir}/{name}/{restart}");
        note(|| format!("{:>11.6} container {key} starts", self.now as f64 / 1e9));
        let log = self.oracle.add_log(key, labels, pod.to_owned());
        let dir = format!("{ROOT}/{pod_dir}/{name}");
        let live = format!("{dir}/{restart}.log");
        let conmon = self.rng.once_in(3);
        self.containers.push(Container {
            pod_dir,
            name,
            restart,
            dir,
            live,
            open: [None, None],
            torn: None,
            partial: [None, None],
            ops: VecDeque::new(),
            running: true,
            gone: false,
            seq: 0,
            stamp: 0,
            same: Vec::new(),
            conmon,
            rotated_second: 0,
            born: self.now,
            reopened: 0,
            missed: 0,
        });
        let inode = self.new_file(log);
        for pipe in 0..2 {
            self.open_pipe(log, pipe, inode);
        }
        let first = self.rng.below(self.nature.pace.1);
        self.schedule(first, Act::Write(log));
        if self.nature.rotate.1 > 0 {
            let (from, to) = self.nature.rotate;
            let after = self.rng.range(from, to);
            self.schedule(after, Act::Rotate(log));
        }
        log
    }

    fn new_file(&mut self, log: usize) -> usize {
        let live = self.containers[log].live.clone();
        let inode = self.create(&live, Content::Log);
        self.new_generation(log, inode);
        inode
    }

    fn new_generation(&mut self, log: usize, inode: usize) {
        let number = self.inodes[inode].number;
        let generations = &mut self.oracle.logs[log].generations;
        generations.push(crate::oracle::Generation { number, ..Default::default() });
        let at = generations.len() - 1;
        self.inodes[inode].of.push((log, at));
    }

    fn open_pipe(&mut self, log: usize, pipe: usize, inode: usize) {
        let old = self.containers[log].open[pipe].replace(inode);
        self.inodes[inode].handles += 1;
        if let Some(old) = old {
            self.close(old);
        }
    }

    fn close(&mut self, inode: usize) {
        self.inodes[inode].handles -= 1;
        self.settle(inode);
    }

    /// Restarts a container's process: the next instance gets a file of its own, the one before the last goes.
    pub fn restart_after(&mut self, log: usize, after: u64) {
        self.schedule(after, Act::Restart(log));
    }

    pub fn delete_after(&mut self, log: usize, after: u64) {
        self.schedule(after, Act::Delete(log));
    }

    pub fn is_running(&self, log: usize) -> bool {
        self.containers[log].running
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.containers.len()).filter(|log| self.containers[*log].running).collect()
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write(log) => self.write(log),
            Act::Op(log) => self.op(log),
            Act::Rotate(log) => self.rotate(log),
            Act::Restart(log) => self.restart(log),
            Act::Delete(log) => {
                if self.containers[log].running {
                    self.stop(log);
                    let pod_dir = self.containers[log].pod_dir.clone();
                    for other in 0..self.containers.len() {
                        if self.containers[other].pod_dir == pod_dir {
                            let after = self.rng.range(MILLI, 200 * MILLI);
                            self.schedule(after, Act::Purge(other));
                        }
                    }
                }
            }
            Act::Purge(log) => self.purge(log),
            Act::Event => self.tell(),
        }
    }

    /// The process ends. Its last words may lack a newline.
    fn stop(&mut self, log: usize) {
        self.flush_torn(log);
        let now = self.now;
        note(|| format!("{:>11.6} container {} ends", now as f64 / 1e9, self.oracle.logs[log].key));
        self.containers[log].running = false;
        for pipe in 0..2 {
            if let Some(partial) = self.containers[log].partial[pipe].take() {
                // Its fragments so far are its text, and stay without an `F`.
                let text = partial.text[..partial.at].to_owned();
                let inode = self.containers[log].open[pipe].expect("a running container's pipes are open");
                let generation = self.generation_of(log, inode);
                let end = self.inodes[inode].data.len() as u64;
                // The agent gives it the stamp of the log's last line.
                let stamp = self.containers[log].stamp;
                self.oracle.finish_tail(partial.line, text, stamp, generation, end, now);
            }
            if let Some(inode) = self.containers[log].open[pipe].take() {
                self.close(inode);
            }
        }
    }

    fn restart(&mut self, log: usize) {
        if !self.containers[log].running || !self.containers[log].ops.is_empty() {
            return;
        }
        self.stop(log);
        let Container { pod_dir, name, restart, .. } = &self.containers[log];
        let (pod_dir, name, restart) = (pod_dir.clone(), name.clone(), *restart);
        // The kubelet keeps one dead instance.
        let old = (0..self.containers.len()).find(|other| {
            let other = &self.containers[*other];
            other.pod_dir == pod_dir && other.name == name && other.restart + 1 == restart && !other.gone
        });
        if let Some(old) = old {
            self.schedule(20 * MILLI, Act::Purge(old));
        }
        self.start_container(pod_dir, name, restart + 1);
    }

    /// All files of an ended instance go; of a deleted pod, the directories too.
    fn purge(&mut self, log: usize) {
        if self.containers[log].gone {
            return;
        }
        // A file that lives shorter than the agent's look at its directory is missed, as one that never was.
        let fresh =
            self.containers[log].reopened > 0 && self.now < self.containers[log].reopened + FRESH_FILE;
        if fresh || self.guarded(log, None) {
            self.schedule(500 * MILLI, Act::Purge(log));
            return;
        }
        self.containers[log].gone = true;
        self.excuse_short(log);
        let (dir, live) = (self.containers[log].dir.clone(), self.containers[log].live.clone());
        let mut ops: VecDeque<Op> = self.files_of(&live).into_iter().map(Op::Remove).collect();
        ops.push_front(Op::Remove(live));
        ops.push_back(Op::RemoveDir(dir));
        ops.push_back(Op::RemoveDir(format!("{ROOT}/{}", self.containers[log].pod_dir)));
        // A rotation that was under way ends here.
        let idle = self.containers[log].ops.is_empty();
        self.containers[log].ops = ops;
        if idle {
            self.schedule(0, Act::Op(log));
        }
    }

    /// What lived for less than an agent needs to see it.
    fn excuse_short(&mut self, log: usize) {
        let needed = match self.nature.events {
            Events::Prompt => 500 * MILLI,
            Events::Late => 1600 * MILLI,
            Events::Lost => 10_600 * MILLI,
        };
        let seen_since = self.containers[log].born.max(self.alive_since.unwrap_or(self.now));
        if self.now < seen_since + needed {
            let lines: Vec<usize> =
                (0..self.oracle.lines.len()).filter(|line| self.oracle.lines[*line].log == log).collect();
            for line in lines {
                self.oracle.excuse(line, "lived too short");
            }
        }
    }

    /// True when files must stay for now: the agent is away and the run is one in which nothing may be lost.
    fn guarded(&self, log: usize, generation: Option<usize>) -> bool {
        if !self.nature.strict || self.at_home() {
            return false;
        }
        match generation {
            Some(generation) => self.oracle.needs(log, generation),
            None => (0..self.oracle.logs[log].generations.len()).any(|at| self.oracle.needs(log, at)),
        }
    }

    /// Rotated files of a log, by name.
    fn files_of(&self, live: &str) -> Vec<String> {
        let Some((dir, name)) = live.rsplit_once('/') else { return Vec::new() };
        let prefix = format!("{name}.");
        let names = self.dirs.get(dir).map(|dir| &dir.names);
        let of = names.into_iter().flat_map(|names| names.keys());
        of.filter(|name| name.starts_with(&prefix)).map(|name| format!("{dir}/{name}")).collect()
    }

    /// Rotates soon, whatever the schedule says.
    pub fn rotate_now(&mut self, log: usize) {
        self.rotate(log);
    }

    fn rotate(&mut self, log: usize) {
        let (from, to) = self.nature.rotate;
        if to > 0 && !self.quiet {
            let again = self.rng.range(from, to);
            self.schedule(again, Act::Rotate(log));
        }
        let container = &self.containers[log];
        if !container.running || !container.ops.is_empty() || self.quiet {
            return;
        }
        let live = container.live.clone();
        let empty = self.file(&live).is_none_or(|inode| self.inodes[inode].data.is_empty());
        if empty {
            return;
        }
        let mut ops = VecDeque::new();
        if self.nature.copytruncate {
            ops.extend([Op::Copy(format!("{live}.1")), Op::Truncate]);
        } else {
            // cleanupUnusedLogs, removeExcessLogs, compress, rename, reopen.
            let all = self.files_of(&live);
            let (unused, used): (Vec<String>, Vec<String>) = all.iter().cloned().partition(|path| {
                path.ends_with(".tmp") || (!path.ends_with(".gz") && all.contains(&format!("{path}.gz")))
            });
            let excess = used.len().saturating_sub(MAX_FILES - 2);
            for path in &used[..excess] {
                let inode = self.file(path);
                let of = inode.map_or_else(Vec::new, |inode| self.inodes[inode].of.clone());
                if of.iter().any(|(log, generation)| self.guarded(*log, Some(*generation))) {
                    return;
                }
            }
            ops.extend(unused.into_iter().map(Op::Remove));
            ops.extend(used[..excess].iter().cloned().map(Op::Remove));
            for plain in used[excess..].iter().filter(|path| !path.ends_with(".gz")) {
                ops.extend([
                    Op::MakeTmp(plain.clone()),
                    Op::FinishTmp(plain.clone()),
                    Op::Remove(plain.clone()),
                ]);
            }
            let container = &mut self.containers[log];
            container.rotated_second = (self.now / SECOND).max(container.rotated_second + 1);
            let text = stamp_text(BASE + container.rotated_second * SECOND);
            let stamp: String = text[..19].chars().filter(|c| c.is_ascii_digit()).collect();
            let renamed = format!("{live}.{}-{}", &stamp[..8], &stamp[8..]);
            ops.extend([Op::Rename(live, renamed), Op::Reopen, Op::Swap(0), Op::Swap(1)]);
        }
        self.containers[log].missed += u32::from(self.alive_since.is_none());
        self.rotations += 1;
        self.containers[log].ops = ops;
        self.schedule(0, Act::Op(log));
    }

    fn op(&mut self, log: usize) {
        let Some(op) = self.containers[log].ops.pop_front() else { return };
        note(|| format!("{:>11.6} kubelet: {op:?} of {}", self.now as f64 / 1e9, self.oracle.logs[log].key));
        let mut after = self.rng.range(20_000, 2 * MILLI);
        match op {
            Op::Remove(path) => {
                self.unlink(&path);
            }
            Op::RemoveDir(path) => {
                if self.dirs.get(&path).is_some_and(|dir| dir.names.is_empty()) {
                    self.dirs.remove(&path);
                    self.watched.remove(&path);
                    self.unlink(&path);
                }
            }
            Op::MakeTmp(plain) => {
                let tmp = format!("{plain}.tmp");
                if let Some(inode) = self.file(&plain) {
                    let (data, of) = (self.inodes[inode].data.clone(), self.inodes[inode].of.clone());
                    let tmp = self.create(&tmp, Content::Unfinished);
                    self.inodes[tmp].data = data;
                    self.inodes[tmp].of = of;
                }
                after = self.rng.range(MILLI, 60 * MILLI);
                if self.rng.once_in(self.nature.abandoned) {
                    // The kubelet dies; its next life cleans up.
                    self.containers[log].ops.clear();
                }
            }
            Op::FinishTmp(plain) => {
                let (tmp, gzip) = (format!("{plain}.tmp"), format!("{plain}.gz"));
                if let Some(inode) = self.file(&tmp) {
                    self.inodes[inode].content = Content::Gzip;
                    self.link(&gzip, inode);
                    self.unlink(&tmp);
                }
            }
            Op::Rename(from, to) => {
                if let Some(inode) = self.file(&from) {
                    self.link(&to, inode);
                    self.unlink(&from);
                }
                after = self.rng.range(50_000, 15 * MILLI);
            }
            Op::Reopen => {
                if self.containers[log].running {
                    self.containers[log].reopened = self.now;
                    self.new_file(log);
                }
            }
            Op::Swap(pipe) => {
                let live = self.containers[log].live.clone();
                if self.containers[log].running
                    && let Some(inode) = self.file(&live)
                {
                    self.flush_torn(log);
                    self.open_pipe(log, pipe, inode);
                }
            }
            Op::Copy(to) => {
                let live = self.containers[log].live.clone();
                if let Some(inode) = self.file(&live) {
                    let data = self.inodes[inode].data.clone();
                    self.unlink(&to);
                    let copy = self.create(&to, Content::Log);
                    self.inodes[copy].data = data;
                }
                after = self.rng.range(MILLI, 30 * MILLI);
            }
            Op::Truncate => {
                self.flush_torn(log);
                let live = self.containers[log].live.clone();
                if let Some(inode) = self.file(&live) {
                    let generation = self.generation_of(log, inode);
                    self.oracle.logs[log].generations[generation].cut = true;
                    for line in self.oracle.open_in(log, generation) {
                        if self.oracle.lines[line].done {
                            let age = self.now - self.oracle.lines[line].written_at;
                            self.cut_lines.push((line, age));
                            self.oracle.excuse(line, "cut");
                        }
                    }
                    self.inodes[inode].data.clear();
                    self.new_generation(log, inode);
                }
            }
        }
        if !self.containers[log].ops.is_empty() {
            self.schedule(after, Act::Op(log));
        }
    }

    fn generation_of(&self, log: usize, inode: usize) -> usize {
        let of = self.inodes[inode].of.iter().rev().find(|(of, _)| *of == log);
        of.expect("a container writes its own files").1
    }

    // Lines.

    fn append(&mut self, log: usize, inode: usize, bytes: &[u8]) {
        let generation = self.generation_of(log, inode);
        let data = &mut self.inodes[inode].data;
        data.extend_from_slice(bytes);
        let facts = &mut self.oracle.logs[log].generations[generation];
        if facts.head == 0 {
            let head = &data[..data.len().min(256)];
            facts.head = match head.iter().position(|byte| *byte == b'\n') {
                Some(end) => xxh3_64(&head[..=end]).max(1),
                None if head.len() == 256 => xxh3_64(head).max(1),
                None => 0,
            };
        }
    }

    fn flush_torn(&mut self, log: usize) {
        if let Some(Torn { inode, rest }) = self.containers[log].torn.take() {
            self.append(log, inode, &rest);
        }
    }

    fn write(&mut self, log: usize) {
        if !self.containers[log].running {
            return;
        }
        if self.containers[log].torn.is_some() {
            self.flush_torn(log);
        } else {
            self.write_fragment(log);
        }
        if self.quiet && !self.is_mid_line(log) {
            return;
        }
        let after = if self.containers[log].torn.is_some() {
            self.rng.range(10_000, 3 * MILLI)
        } else if self.rng.once_in(3) {
            // A burst.
            self.rng.range(1000, 200_000)
        } else {
            let (from, to) = self.nature.pace;
            self.rng.range(from, to)
        };
        self.schedule(after, Act::Write(log));
    }

    fn is_mid_line(&self, log: usize) -> bool {
        let container = &self.containers[log];
        container.torn.is_some() || container.partial.iter().any(Option::is_some)
    }

    /// One more line from a container, at once: the probe of liveness.
    pub fn write_probe(&mut self, log: usize) {
        if self.containers[log].running {
            self.write_fragment(log);
            while self.is_mid_line(log) {
                self.flush_torn(log);
                if self.is_mid_line(log) {
                    self.now += 1000;
                    self.write_fragment(log);
                }
            }
        }
    }

    fn write_fragment(&mut self, log: usize) {
        let wall = self.wall();
        let quiet = self.quiet;
        let mut pipe = usize::from(self.rng.once_in(4));
        if quiet && self.containers[log].partial[pipe].is_none() && self.is_mid_line(log) {
            pipe ^= 1;
        }
        let Some(inode) = self.containers[log].open[pipe] else { return };
        let generation = self.generation_of(log, inode);
        let stream = ["stdout", "stderr"][pipe];
        let alike = self.containers[log].conmon && self.rng.once_in(2);
        if self.containers[log].partial[pipe].is_none() {
            let copy = self.rng.once_in(self.nature.copies);
            let text = self.text(log, pipe, copy);
            let now = self.now;
            let line = self.oracle.begin(log, stream, text.clone(), generation, now);
            self.containers[log].partial[pipe] = Some(Partial { line, text, at: 0 });
        }
        let fragment_limit = self.nature.fragment;
        let container = &mut self.containers[log];
        if !(alike && container.stamp > 0) {
            // Stamps have nanoseconds and do not go back.
            let stamp = wall.max(container.stamp + 1);
            container.stamp = stamp;
            container.same.clear();
        }
        let stamp = container.stamp;
        let partial = container.partial[pipe].as_mut().expect("begun above");
        let rest = &partial.text[partial.at..];
        let full = rest.len() <= fragment_limit;
        let piece = if full { rest } else { &rest[..fragment_limit] };
        let tag = if full { 'F' } else { 'P' };
        let bytes = format!("{} {stream} {tag} {piece}\n", stamp_text(stamp)).into_bytes();
        partial.at += piece.len();
        let end = self.inodes[inode].data.len() as u64 + bytes.len() as u64;
        let line = partial.line;
        if full {
            let text = partial.text.clone();
            container.partial[pipe] = None;
            let shift = match container.same.iter_mut().find(|(known, _)| *known == text) {
                Some((_, copies)) => {
                    *copies += 1;
                    *copies
                }
                None => {
                    container.same.push((text, 0));
                    0
                }
            };
            let now = self.now;
            self.oracle.finish(line, stamp + shift, generation, end, now);
        }
        if self.rng.once_in(self.nature.torn) {
            let cut = self.rng.range(1, bytes.len() as u64) as usize;
            self.append(log, inode, &bytes[..cut]);
            self.containers[log].torn = Some(Torn { inode, rest: bytes[cut..].to_vec() });
        } else {
            self.append(log, inode, &bytes);
        }
    }

    fn text(&mut self, log: usize, pipe: usize, copy: bool) -> String {
        let seq = self.containers[log].seq;
        self.containers[log].seq += 1;
        let id = &self.oracle.logs[log].key;
        let side = ["o", "e"][pipe];
        if copy {
            // One stamp later it would be another entry; under one stamp it is the nth copy.
            return format!("heartbeat of {id} {side}");
        }
        let long = self.rng.once_in(self.nature.long);
        let pad_len = if long { self.rng.range(200, 1500) } else { self.rng.below(60) } as usize;
        let pad: String =
            (0..pad_len).map(|at| char::from(b'a' + ((seq as usize + at) % 26) as u8)).collect();
        let poison = if self.rng.once_in(self.nature.poison) { " POISON" } else { "" };
        let body = format!("id={id} {side} n={seq}{poison} len={pad_len} {pad}");
        match self.rng.below(8) {
            0 => {
                let (request, trace) = (self.rng.below(6), self.rng.next());
                format!(
                    "{{\"level\":\"error\",\"msg\":\"{body}\",\"request_id\":\"req-{request}\",\"trace_id\":\"{trace:032x}\"}}"
                )
            }
            1 | 2 => {
                let request = self.rng.below(6);
                format!("{{\"level\":\"info\",\"msg\":\"{body}\",\"request_id\":\"req-{request}\"}}")
            }
            3 => format!("WARN {body}"),
            _ => body,
        }
    }

    /// The writers finish their lines and fall silent, the kubelet rests, no fault befalls anything.
    pub fn become_quiet(&mut self) {
        self.quiet = true;
        self.nature.read_error = 0;
        self.nature.open_error = 0;
        self.nature.list_error = 0;
        self.nature.poison = 0;
        for log in self.running() {
            if self.is_mid_line(log) {
                self.schedule(MILLI, Act::Write(log));
            }
        }
    }
}

/// The world as an agent sees it.
pub struct SimEnv(pub Shared);

/// An open file. Lives as long as its handle, whatever becomes of its names.
pub struct SimLog {
    world: Shared,
    inode: usize,
    gzip: bool,
}

impl SimLog {
    fn open(shared: &Shared, path: &Path, gzip: bool) -> Result<Self, OpenError> {
        let mut world = shared.lock();
        world.call();
        let once_in = world.nature.open_error;
        if world.rng.once_in(once_in) {
            // EMFILE.
            return Err(io::Error::from_raw_os_error(24).into());
        }
        let Some(node) = path.to_str().and_then(|path| world.node(path)) else {
            return Err(OpenError::Missing);
        };
        let Node::File(inode) = node else { return Err(OpenError::NotRegular) };
        if world.inodes[inode].links > 1 {
            return Err(OpenError::HardLink);
        }
        if gzip && world.inodes[inode].content != Content::Gzip {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a gzip file").into());
        }
        world.inodes[inode].handles += 1;
        note(|| {
            format!(
                "{:>11.6} agent opens {} (inode {})",
                world.now as f64 / 1e9,
                path.display(),
                world.inodes[inode].number
            )
        });
        Ok(Self { world: Arc::clone(shared), inode, gzip })
    }
}

impl Drop for SimLog {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        let inode = self.inode;
        note(|| {
            format!("{:>11.6} agent closes inode {}", world.now as f64 / 1e9, world.inodes[inode].number)
        });
        world.close(inode);
    }
}

impl LogFile for SimLog {
    fn stat(&self) -> io::Result<Stat> {
        let mut world = self.world.lock();
        world.call();
        let once_in = world.nature.read_error;
        if world.rng.once_in(once_in) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let inode = &world.inodes[self.inode];
        let links = if self.gzip { 1 } else { u64::from(inode.links) };
        Ok(Stat { device: 8, inode: inode.number, size: inode.data.len() as u64, links })
    }

    fn read_at(&self, offset: u64, max: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut world = self.world.lock();
        world.call();
        let once_in = world.nature.read_error;
        if world.rng.once_in(once_in) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let data = &world.inodes[self.inode].data;
        let from = (offset as usize).min(data.len());
        let to = (from + max).min(data.len());
        if to > from {
            note(|| {
                let number = world.inodes[self.inode].number;
                format!("{:>11.6} agent reads inode {number} {from}..{to}", world.now as f64 / 1e9)
            });
        }
        let start = buffer.len();
        buffer.extend_from_slice(&data[from..to]);
        if world.flip && to - from > 200 && world.now > 5 * SECOND {
            let at = buffer[start..].windows(4).position(|text| text == b"len=");
            if let Some(at) = at {
                buffer[start + at] = b'L';
                world.flip = false;
            }
        }
        Ok(to - from)
    }
}

impl Env for SimEnv {
    type File = SimLog;

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut world = self.0.lock();
        world.call();
        let once_in = world.nature.list_error;
        if world.rng.once_in(once_in) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let found = dir.to_str().and_then(|dir| world.dirs.get(dir)).ok_or(io::ErrorKind::NotFound)?;
        let kind = |node: &Node| if matches!(node, Node::Dir) { Kind::Directory } else { Kind::File };
        let mut entries: Vec<Entry> =
            found.names.iter().map(|(name, node)| Entry { name: name.clone(), kind: kind(node) }).collect();
        // In any order.
        let len = entries.len();
        for at in 1..len {
            entries.swap(at, world.rng.below(at as u64 + 1) as usize);
        }
        Ok(entries)
    }

    fn modified(&self, dir: &Path) -> io::Result<u64> {
        let mut world = self.0.lock();
        world.call();
        let found = dir.to_str().and_then(|dir| world.dirs.get(dir)).ok_or(io::ErrorKind::NotFound)?;
        Ok(found.modified)
    }

    fn open(&self, path: &Path) -> Result<SimLog, OpenError> {
        SimLog::open(&self.0, path, false)
    }

    fn open_gzip(&self, path: &Path) -> Result<SimLog, OpenError> {
        SimLog::open(&self.0, path, true)
    }

    fn identity(&self, path: &Path) -> io::Result<(u64, u64)> {
        let mut world = self.0.lock();
        world.call();
        let inode = path.to_str().and_then(|path| world.file(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok((8, world.inodes[inode].number))
    }

    fn link_target(&self, _: &Path) -> Option<PathBuf> {
        None
    }

    fn watch(&mut self, dir: &Path) {
        let mut world = self.0.lock();
        world.call();
        if let Some(dir) = dir.to_str() {
            world.watched.insert(dir.to_owned());
        }
    }

    fn unwatch(&mut self, dir: &Path) {
        if let Some(dir) = dir.to_str() {
            self.0.lock().watched.remove(dir);
        }
    }

    fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.0.lock().changed)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.lock().now)
    }

    fn unix_nano(&self) -> u64 {
        self.0.lock().wall()
    }
}
