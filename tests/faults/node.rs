//! The make-believe node: containers that log at a rate, and a rotator that treats their files as the kubelet does.
//!
//! In: a [`Load`] and, if wanted, a [`Rotation`]. Out: files below the log root, and an entry in the oracle's books for
//! each line, made before the line is written. Few threads, whatever the number of containers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::line;
use crate::oracle::{Name, Oracle};
use crate::support::cri_writer::{ContainerLog, Pipe};

/// How often a writer looks who is due.
const TICK: Duration = Duration::from_millis(5);

/// Longest stretch that a writer makes up for when it was held up.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Bytes of a CRI header: time, pipe and tag.
const HEADER: usize = "2026-11-22T21:00:00.123456789Z stdout F ".len();

/// What the containers write.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Containers, two in each pod.
    pub containers: usize,
    /// Lines per second of all of them together.
    pub lines_per_second: u64,
    /// Bytes of a line.
    pub line_bytes: usize,
    /// One line in so many goes to stderr; 0 is none.
    pub stderr_every: u64,
    /// One line in so many is written in two fragments; 0 is none.
    pub split_every: u64,
    /// Threads that write.
    pub writers: usize,
}

/// When a log is rotated.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Size over which the live file is rotated: `containerLogMaxSize`.
    pub max_bytes: u64,
    /// How often sizes are looked at: `containerLogMonitorInterval`.
    pub every: Duration,
}

/// One container.
pub struct Container {
    /// Its number in the oracle's books.
    pub index: usize,
    pub name: Name,
    pub log: ContainerLog,
    directory: PathBuf,
    oracle: Arc<Oracle>,
    /// Lines per second, in thousandths.
    rate: AtomicU64,
    gone: AtomicBool,
    line_bytes: usize,
    stderr_every: u64,
    split_every: u64,
    /// Number of the next line, and the text's buffer. Held while a line is written.
    pen: Mutex<(u64, String)>,
}

impl Container {
    /// Sets how many lines it writes per second, from now on.
    pub fn set_rate(&self, lines_per_second: f64) {
        self.rate.store((lines_per_second * 1000.0) as u64, Ordering::Relaxed);
    }

    /// The pod's directory below the log root.
    pub fn pod_directory(&self) -> &Path {
        &self.directory
    }

    /// Writes its next line as the load asks for; its number.
    pub fn write(&self) -> u64 {
        self.write_sized(self.line_bytes)
    }

    /// Writes its next line with about so many bytes; its number.
    pub fn write_sized(&self, bytes: usize) -> u64 {
        let mut pen = self.pen();
        let seq = pen.0;
        let every = |n: u64| n > 0 && seq % n == n - 1;
        let pipe = if every(self.stderr_every) { Pipe::Stderr } else { Pipe::Stdout };
        line::write(&self.name.uid, &self.name.container, seq, bytes, &mut pen.1);
        pen.0 += 1;
        let written = if every(self.split_every) && pen.1.len() > 2 {
            let (first, second) = pen.1.as_bytes().split_at(pen.1.len() / 2);
            self.oracle.writes(self.index, pen.1.len() + 2 * (HEADER + 1));
            let first = self.log.write_record(pipe, 'P', first);
            first.and_then(|bytes| Ok(bytes + self.log.write_record(pipe, 'F', second)?))
        } else {
            self.oracle.writes(self.index, pen.1.len() + HEADER + 1);
            self.log.write_line(pipe, pen.1.as_bytes())
        };
        self.oracle.wrote(self.index, seq, written.expect("a log that can be written"));
        seq
    }

    /// Composes its next line and enters it in the books; the row puts it into the file by itself, in `fragments`.
    /// What it takes on disk is known only about, unless the row tells the oracle what it `wrote`.
    pub fn compose(&self, bytes: usize, fragments: usize) -> (u64, Vec<u8>) {
        let mut pen = self.pen();
        let seq = pen.0;
        line::write(&self.name.uid, &self.name.container, seq, bytes, &mut pen.1);
        pen.0 += 1;
        self.oracle.writes(self.index, pen.1.len() + fragments * (HEADER + 1));
        (seq, pen.1.as_bytes().to_vec())
    }

    /// Lines written so far.
    pub fn written(&self) -> u64 {
        self.pen().0
    }

    /// True once its pod was deleted, or it was retired.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn pen(&self) -> MutexGuard<'_, (u64, String)> {
        self.pen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    containers: Mutex<Vec<Arc<Container>>>,
    running: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The node. Its threads end when it is dropped.
pub struct Node {
    root: PathBuf,
    load: Load,
    oracle: Arc<Oracle>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// A node whose logs lie below `root`, with the load's containers, which do not write yet.
    pub fn new(root: &Path, load: Load, oracle: &Arc<Oracle>) -> Self {
        fs::create_dir_all(root).expect("a log root");
        let shared = Arc::new(Shared {
            containers: Mutex::default(),
            running: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut node =
            Self { root: root.to_owned(), load, oracle: Arc::clone(oracle), shared, threads: Vec::new() };
        let each = load.lines_per_second as f64 / load.containers.max(1) as f64;
        for number in 0..load.containers {
            let container = if number % 2 == 0 { "main" } else { "side" };
            let name = format!("app-{:03}", number / 2);
            node.add(&format!("team-{}", number / 2 % 4), &name, number / 2, container).set_rate(each);
        }
        for writer in 0..load.writers.max(1) {
            let (shared, writers) = (Arc::clone(&node.shared), load.writers.max(1));
            node.threads.push(std::thread::spawn(move || write_at_rates(&shared, writer, writers)));
        }
        node
    }

    /// Adds a container; `number` makes its pod's uid. It writes nothing by itself until it has a rate.
    pub fn add(&self, namespace: &str, app: &str, number: usize, container: &str) -> Arc<Container> {
        let name = Name {
            namespace: namespace.to_owned(),
            // A pod of a Deployment: Kubernetes' suffixes know no vowels and no 0, 1, 3.
            pod: format!("{app}-7d9f8b6c5-x2k42"),
            uid: format!("5c1ad1f0-0000-4000-8000-{number:012x}"),
            container: container.to_owned(),
        };
        let pod_dir = format!("{}_{}_{}", name.namespace, name.pod, name.uid);
        let index = self.oracle.open(&name);
        let log = ContainerLog::create(&self.root, &pod_dir, container, 0).expect("a container log");
        let container = Arc::new(Container {
            index,
            name,
            log: log.without_books(),
            directory: self.root.join(pod_dir),
            oracle: Arc::clone(&self.oracle),
            rate: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            line_bytes: self.load.line_bytes,
            stderr_every: self.load.stderr_every,
            split_every: self.load.split_every,
            pen: Mutex::default(),
        });
        self.shared.containers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&container));
        container
    }

    /// The log root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All containers, in the order in which they were added.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.shared.containers()
    }

    /// One of them.
    pub fn container(&self, number: usize) -> Arc<Container> {
        Arc::clone(&self.shared.containers()[number])
    }

    /// Containers write at their rates from now on.
    pub fn start(&self) {
        self.shared.running.store(true, Ordering::Release);
    }

    /// Nobody writes any more. Waits until no line is being written.
    pub fn pause(&self) {
        self.shared.running.store(false, Ordering::Release);
        std::thread::sleep(2 * TICK);
        for container in self.containers() {
            drop(container.pen());
        }
    }

    /// Rotates from now on, until the node is dropped. One thread for all logs, as the kubelet has.
    pub fn rotate_when(&mut self, rotation: Rotation) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(std::thread::spawn(move || {
            let mut reopened = 2;
            while !shared.stop.load(Ordering::Acquire) {
                for container in shared.containers() {
                    let len = fs::metadata(container.log.live()).map_or(0, |meta| meta.len());
                    if len > rotation.max_bytes && !container.is_gone() {
                        // The runtime takes a while to reopen the file: not always the same.
                        reopened = (reopened * 3) % 17;
                        let rotated = container.log.rotate(Duration::from_millis(reopened));
                        assert!(rotated.is_ok() || container.is_gone(), "rotation: {rotated:?}");
                    }
                }
                nap(&shared.stop, rotation.every);
            }
        }));
    }

    /// Rotates every log once, now.
    pub fn rotate_all(&self) {
        for container in self.containers().iter().filter(|container| !container.is_gone()) {
            container.log.rotate(Duration::from_millis(1)).expect("rotation of a log");
        }
    }

    /// How often all logs together were rotated.
    pub fn rotations(&self) -> usize {
        self.containers().iter().map(|container| container.log.rotations()).sum()
    }

    /// A container writes no more and is asked for no probe; its files stay as they are.
    pub fn retire(&self, container: &Container) {
        container.set_rate(0.0);
        let _pen = container.pen();
        container.gone.store(true, Ordering::Release);
    }

    /// Deletes a pod: its containers write no more, its directory goes.
    pub fn delete_pod(&self, uid: &str) -> io::Result<()> {
        let all = self.containers();
        let pod: Vec<_> = all.iter().filter(|container| container.name.uid == uid).collect();
        let mut result = Ok(());
        for container in &pod {
            self.retire(container);
        }
        if let Some(container) = pod.first() {
            result = fs::remove_dir_all(&container.directory);
        }
        result
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the node failed");
        }
    }
}

/// Sleeps in short pieces, so that an end is soon noticed.
fn nap(stop: &AtomicBool, time: Duration) {
    let end = Instant::now() + time;
    while !stop.load(Ordering::Acquire) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
}

/// One of several writers: each has every so-manieth container.
fn write_at_rates(shared: &Shared, writer: usize, writers: usize) {
    let mut owed: Vec<f64> = Vec::new();
    let mut last = Instant::now();
    while !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(TICK);
        let now = Instant::now();
        let since = now.duration_since(last).min(CATCH_UP).as_secs_f64();
        last = now;
        if !shared.running.load(Ordering::Acquire) {
            continue;
        }
        let containers = shared.containers();
        owed.resize(containers.len(), 0.0);
        for (number, container) in containers.iter().enumerate().skip(writer).step_by(writers) {
            let rate = container.rate.load(Ordering::Relaxed) as f64 / 1000.0;
            owed[number] += rate * since;
            while owed[number] >= 1.0 && shared.running.load(Ordering::Relaxed) && !container.is_gone() {
                owed[number] -= 1.0;
                container.write();
            }
        }
    }
}
