//! The make-believe node: containers that write, a runtime that frames, a kubelet that rotates.
//!
//! In: a directory, a seed, a rate. Out: `<root>/<ns>_<pod>_<uid>/<container>/0.log` in CRI format, rotated exactly as
//! the kubelet does it: the excess removed, the earlier file gzipped through `.tmp`, `0.log` renamed to
//! `0.log.<YYYYMMDD-HHMMSS>`, and the runtime reopening `0.log` a moment later, so that lines still reach the renamed
//! file. Source: kubelet `pkg/kubelet/logs/container_log_manager.go`; containerd `internal/cri/io/logger.go`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::fault::Switch;
use super::tally::Tally;
use super::traffic::{CONTAINER, NAMESPACE, PODS, Pod, Traffic};
use crate::data::batch::Stream;
use crate::data::clock;
use crate::sink::json::write_rfc3339;

/// Bytes of a line after which the runtime starts another fragment. Source: containerd's default
/// `max_container_log_line_size`.
pub const FRAGMENT_BYTES: usize = 16 << 10;
/// Files of one container log, the live one included: the kubelet's `containerLogMaxFiles`.
pub const MAX_FILES: usize = 5;
/// How often sizes are looked at (the kubelet: 10 s).
const MONITOR_INTERVAL: Duration = Duration::from_secs(1);
/// How long the runtime goes on writing to a renamed file.
const REOPEN_DELAY: Duration = Duration::from_millis(20);

/// What the node shall be like.
#[derive(Debug, Clone)]
pub struct Config {
    /// The log root, in place of `/var/log/pods`.
    pub root: PathBuf,
    /// Lines per second over all containers.
    pub rate: u32,
    /// Seed of the traffic.
    pub seed: u64,
    /// Size from which a log is rotated: the kubelet's `containerLogMaxSize`.
    pub rotate_bytes: u64,
    /// What is broken, now and later.
    pub switch: Switch,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    stop: Arc<AtomicBool>,
    rotations: Arc<AtomicU64>,
    fragmented: Arc<AtomicU64>,
    containers: JoinHandle<io::Result<()>>,
    kubelet: JoinHandle<io::Result<()>>,
}

/// What a node did in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Files rotated away.
    pub rotations: u64,
    /// Lines written in several fragments.
    pub fragmented: u64,
}

impl Node {
    /// Starts the containers and the kubelet. Every line is entered in `tally` before it is written.
    ///
    /// # Errors
    /// When the logs cannot be created or a thread cannot be started.
    pub fn start(config: &Config, tally: Arc<Tally>) -> io::Result<Self> {
        let logs: Vec<_> = PODS
            .iter()
            .map(|pod| Ok(Mutex::new(ContainerLog::create(&log_dir(&config.root, pod))?)))
            .collect::<io::Result<_>>()?;
        let logs = Arc::new(logs);
        let stop = Arc::new(AtomicBool::new(false));
        let (rotations, fragmented) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let containers = {
            let (stop, logs, fragmented) = (Arc::clone(&stop), Arc::clone(&logs), Arc::clone(&fragmented));
            let traffic = Traffic::new(config.seed, f64::from(config.rate));
            let switch = config.switch.clone();
            std::thread::Builder::new()
                .name("demo-containers".to_owned())
                .spawn(move || write_lines(traffic, &switch, &logs, &tally, &fragmented, &stop))?
        };
        let kubelet = {
            let (stop, rotations, rotate_bytes) =
                (Arc::clone(&stop), Arc::clone(&rotations), config.rotate_bytes);
            std::thread::Builder::new()
                .name("demo-kubelet".to_owned())
                .spawn(move || monitor(&logs, rotate_bytes, &rotations, &stop))?
        };
        Ok(Self { stop, rotations, fragmented, containers, kubelet })
    }

    /// True when a thread ended by itself, which is an error that [`stop`](Self::stop) tells.
    pub fn has_failed(&self) -> bool {
        self.containers.is_finished() || self.kubelet.is_finished()
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// The first that a writer or the rotation met.
    pub fn stop(self) -> io::Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = |thread: JoinHandle<io::Result<()>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread of the make-believe node panicked")))
        };
        ended(self.containers)?;
        ended(self.kubelet)?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Done { rotations: count(&self.rotations), fragmented: count(&self.fragmented) })
    }
}

/// The directory of a pod's log.
pub fn log_dir(root: &Path, pod: &Pod) -> PathBuf {
    root.join(format!("{NAMESPACE}_{}_{}", pod.name, pod.uid)).join(CONTAINER)
}

/// Writes the traffic's lines at their times until `stop`.
fn write_lines(
    mut traffic: Traffic,
    switch: &Switch,
    logs: &[Mutex<ContainerLog>],
    tally: &Tally,
    fragmented: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut begun = Instant::now();
    let mut line = String::new();
    for count in 0_u64.. {
        traffic.set_broken(switch.broken());
        let Some(event) = traffic.next() else { break };
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let early = event.at.saturating_sub(begun.elapsed());
            if early.is_zero() {
                break;
            }
            std::thread::sleep(early.min(Duration::from_millis(50)));
        }
        if count.is_multiple_of(1_024) {
            // What is under way must fit in memory: a stalled agent halts the clock.
            while tally.is_full() && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                begun += Duration::from_millis(50);
            }
        }
        let millis = u64::try_from(unix_now().as_millis()).unwrap_or(0);
        tally.write(event.pod, |seq| {
            line.clear();
            event.write(millis, seq, &mut line);
            Tally::hash(&line)
        });
        let fragments = logs[event.pod].lock().write(event.stream, line.as_bytes())?;
        fragmented.fetch_add(u64::from(fragments > 1), Ordering::Relaxed);
    }
    Ok(())
}

/// Rotates what has grown too large, until `stop`.
fn monitor(
    logs: &[Mutex<ContainerLog>],
    rotate_bytes: u64,
    rotations: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut next = Instant::now() + MONITOR_INTERVAL;
    while !stop.load(Ordering::Relaxed) {
        for log in logs {
            log.lock().reopen_when_due()?;
        }
        if Instant::now() < next {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        next += MONITOR_INTERVAL;
        for log in logs {
            let (dir, len) = {
                let log = log.lock();
                (log.dir.clone(), log.len)
            };
            if len < rotate_bytes {
                continue;
            }
            remove_excess(&dir)?;
            compress_earlier(&dir)?;
            if log.lock().rename(SystemTime::now())? {
                rotations.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

fn unix_now() -> Duration {
    clock::since_epoch()
}

/// One container's live log file, as the runtime holds it.
#[derive(Debug)]
pub struct ContainerLog {
    dir: PathBuf,
    file: File,
    len: u64,
    /// When to leave the renamed file.
    reopen: Option<Instant>,
    last_unix_nano: u64,
    line: Vec<u8>,
}

impl ContainerLog {
    /// Creates `dir` and `0.log` in it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let file = open_live(dir)?;
        Ok(Self { dir: dir.to_owned(), file, len: 0, reopen: None, last_unix_nano: 0, line: Vec::new() })
    }

    /// Writes one line, in fragments of at most [`FRAGMENT_BYTES`], each with its own stamp. Returns their number.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&mut self, stream: Stream, line: &[u8]) -> io::Result<usize> {
        let mut fragments = 0;
        let mut rest = line;
        loop {
            let (fragment, behind) = rest.split_at(rest.len().min(FRAGMENT_BYTES));
            rest = behind;
            self.write_fragment(stream, fragment, rest.is_empty())?;
            fragments += 1;
            if rest.is_empty() {
                return Ok(fragments);
            }
        }
    }

    fn write_fragment(&mut self, stream: Stream, fragment: &[u8], last: bool) -> io::Result<()> {
        self.reopen_when_due()?;
        let now = u64::try_from(unix_now().as_nanos()).unwrap_or(u64::MAX);
        self.last_unix_nano = now.max(self.last_unix_nano + 1);
        self.line.clear();
        write_rfc3339(self.last_unix_nano, &mut self.line);
        self.line.push(b' ');
        self.line.extend_from_slice(stream.name().as_bytes());
        self.line.extend_from_slice(if last { b" F " } else { b" P " });
        self.line.extend_from_slice(fragment);
        self.line.push(b'\n');
        self.file.write_all(&self.line)?;
        self.len += self.line.len() as u64;
        Ok(())
    }

    /// The kubelet's part of a rotation: renames the live file; the runtime leaves it [`REOPEN_DELAY`] later. False
    /// when a file of that second exists already.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn rename(&mut self, now: SystemTime) -> io::Result<bool> {
        let rotated = self.dir.join(format!("0.log.{}", stamp(now)));
        if rotated.exists() || self.reopen.is_some() {
            return Ok(false);
        }
        fs::rename(self.dir.join("0.log"), rotated)?;
        self.reopen = Some(Instant::now() + REOPEN_DELAY);
        Ok(true)
    }

    fn reopen_when_due(&mut self) -> io::Result<()> {
        if self.reopen.is_some_and(|reopen| Instant::now() >= reopen) { self.reopen() } else { Ok(()) }
    }

    /// The runtime's part: goes on in a new `0.log`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open_live(&self.dir)?;
        self.len = 0;
        self.reopen = None;
        Ok(())
    }
}

fn open_live(dir: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(dir.join("0.log"))
}

/// `YYYYMMDD-HHMMSS`, as the kubelet names rotated files.
fn stamp(now: SystemTime) -> String {
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut text = Vec::new();
    write_rfc3339(u64::try_from(nanos).unwrap_or(0), &mut text);
    let digits: String =
        text[..19].iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
    format!("{}-{}", &digits[..8], &digits[8..])
}

/// The rotated files in `dir`, oldest first; a `.tmp` that an end in mid-compression left is removed.
fn rotated(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(".tmp") {
            fs::remove_file(&path)?;
        } else if name.starts_with("0.log.") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes the oldest so that, with the live file and the one that it becomes, [`MAX_FILES`] are left.
///
/// # Errors
/// Those of the file system.
pub fn remove_excess(dir: &Path) -> io::Result<()> {
    let rotated = rotated(dir)?;
    let excess = rotated.len().saturating_sub(MAX_FILES - 2);
    rotated[..excess].iter().try_for_each(fs::remove_file)
}

/// Gzips every rotated file that is still plain, through `.tmp`.
///
/// # Errors
/// Those of the file system.
pub fn compress_earlier(dir: &Path) -> io::Result<()> {
    for path in rotated(dir)?.into_iter().filter(|path| path.extension().is_none_or(|kind| kind != "gz")) {
        let with = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (tmp, compressed) = (with(".tmp"), with(".gz"));
        let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&tmp)?;
        let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::fast());
        io::copy(&mut BufReader::with_capacity(64 << 10, File::open(&path)?), &mut encoder)?;
        encoder.finish()?;
        fs::rename(&tmp, &compressed)?;
        fs::remove_file(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_named_as_the_kubelet_names_them() {
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(1_795_359_067)), "20261122-145107");
    }
}
