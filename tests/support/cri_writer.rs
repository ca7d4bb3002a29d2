//! Writes container logs as containerd does, and rotates them as the kubelet does.
//!
//! In: what a process prints, as two pipes. Out: `<root>/<namespace>_<pod>_<uid>/<container>/<restart>.log` and its rotated
//! generations, and for the test the list of all lines in the order in which they were finished in the file.
//! Sources: containerd `internal/cri/io/logger.go`, kubelet `pkg/kubelet/logs/container_log_manager.go`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};

/// Bytes of a fragment: containerd's `max_container_log_line_size`.
pub const FRAGMENT: usize = 16_384;

/// Files that the kubelet keeps of one container log, the live one included: `containerLogMaxFiles`.
pub const MAX_FILES: usize = 5;

/// Which pipe a line came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pipe {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Pipe {
    /// As the log file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line that a container wrote, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it came through.
    pub pipe: Pipe,
    /// Its bytes.
    pub text: Vec<u8>,
    /// Number of the file that holds its end, from 0.
    pub generation: usize,
}

/// The log of one container instance. Cheap to clone: all clones write the same file.
#[derive(Clone)]
pub struct ContainerLog(Arc<Inner>);

struct Inner {
    live: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// False when the test keeps its own books: ten million lines are too many to remember.
    keep: bool,
    lines: Vec<Line>,
    /// Seconds in the name of the latest rotated file.
    rotated_at: i64,
    /// Files that were begun after the first.
    rotations: usize,
}

impl State {
    fn finish(&mut self, pipe: Pipe, text: &[u8]) {
        if self.keep {
            self.lines.push(Line { pipe, text: text.to_vec(), generation: self.rotations });
        }
    }
}

impl ContainerLog {
    /// Creates the log of a container below `root`. `pod_dir` is `<namespace>_<pod>_<uid>`.
    pub fn create(root: &Path, pod_dir: &str, container: &str, restart: u32) -> io::Result<Self> {
        let directory = root.join(pod_dir).join(container);
        fs::create_dir_all(&directory)?;
        let live = directory.join(format!("{restart}.log"));
        let state =
            State { file: append_to(&live)?, keep: true, lines: Vec::new(), rotated_at: 0, rotations: 0 };
        Ok(Self(Arc::new(Inner { live, state: Mutex::new(state) })))
    }

    /// Remembers no line from now on: the test keeps its own books.
    pub fn without_books(self) -> Self {
        self.state().keep = false;
        self
    }

    /// Writes one record by hand: its tag is `P` or `F`, its text as given. Gives the number of bytes that it takes.
    pub fn write_record(&self, pipe: Pipe, tag: char, text: &[u8]) -> io::Result<usize> {
        frame(&mut self.state().file, pipe, tag, text)
    }

    /// Writes bytes as they are into the live file, framed by nobody.
    pub fn write_raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.state().file.write_all(bytes)
    }

    /// Holds the writer while `change` works on the file behind its back: copytruncate, a swap.
    pub fn held<T>(&self, change: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let _state = self.state();
        change(&self.0.live)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what comes through `from` into the log until it ends.
    pub fn copy(&self, pipe: Pipe, from: impl Read) -> io::Result<()> {
        let mut from = BufReader::new(from);
        let mut text = Vec::new();
        while from.read_until(b'\n', &mut text)? > 0 {
            if text.last() == Some(&b'\n') {
                text.pop();
                self.write_line(pipe, &text)?;
            } else {
                self.write_tail(pipe, &text)?;
            }
            text.clear();
        }
        Ok(())
    }

    /// Writes one line, in fragments when it is long. Another pipe may write between two fragments. Gives the number
    /// of bytes that it takes in the file.
    pub fn write_line(&self, pipe: Pipe, text: &[u8]) -> io::Result<usize> {
        let (mut rest, mut bytes) = (text, 0);
        while rest.len() > FRAGMENT {
            let (fragment, after) = rest.split_at(FRAGMENT);
            bytes += frame(&mut self.state().file, pipe, 'P', fragment)?;
            rest = after;
        }
        let mut state = self.state();
        bytes += frame(&mut state.file, pipe, 'F', rest)?;
        state.finish(pipe, text);
        Ok(bytes)
    }

    /// Writes text that has no newline when the container ends: its last fragment stays a `P`.
    fn write_tail(&self, pipe: Pipe, text: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        for fragment in text.chunks(FRAGMENT) {
            frame(&mut state.file, pipe, 'P', fragment)?;
        }
        state.finish(pipe, text);
        Ok(())
    }

    /// One rotation: excess generations go, plain ones are compressed, the live file is renamed and reopened.
    ///
    /// `reopen_after` is the time for which the container still writes into the renamed file.
    pub fn rotate(&self, reopen_after: Duration) -> io::Result<()> {
        let mut rotated = self.rotated()?;
        while rotated.len() > MAX_FILES - 2 {
            fs::remove_file(rotated.remove(0))?;
        }
        for plain in rotated.iter().filter(|path| path.extension().is_none_or(|end| end != "gz")) {
            compress(plain)?;
        }
        let name = {
            let mut state = self.state();
            // The kubelet rotates at most every ten seconds; a test does so faster and must not reuse a name.
            state.rotated_at = jiff::Timestamp::now().as_second().max(state.rotated_at + 1);
            let stamp = jiff::Timestamp::from_second(state.rotated_at).map_err(io::Error::other)?;
            format!("{}.{}", self.0.live.display(), stamp.strftime("%Y%m%d-%H%M%S"))
        };
        fs::rename(&self.0.live, name)?;
        std::thread::sleep(reopen_after);
        let mut state = self.state();
        state.file = append_to(&self.0.live)?;
        state.rotations += 1;
        Ok(())
    }

    /// Rotates whenever the live file has outgrown `max_bytes`, looked at once per `every`, until dropped.
    pub fn rotate_at(&self, max_bytes: u64, every: Duration) -> Rotator {
        let (log, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(every);
                let len = fs::metadata(&log.0.live).expect("the live log").len();
                if len > max_bytes {
                    log.rotate(Duration::from_millis(15)).expect("rotation of a log");
                }
            }
        });
        Rotator { stop, thread: Some(thread) }
    }

    /// All lines so far, in the order in which they were finished.
    pub fn lines(&self) -> Vec<Line> {
        self.state().lines.clone()
    }

    /// How often the log was rotated.
    pub fn rotations(&self) -> usize {
        self.state().rotations
    }

    /// The live file.
    pub fn live(&self) -> &Path {
        &self.0.live
    }

    /// Rotated generations, oldest first.
    pub fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let directory = self.0.live.parent().expect("a log has a directory");
        let prefix = format!("{}.", self.0.live.file_name().expect("a log has a name").display());
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(&prefix) {
                found.push(directory.join(name));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Ends its rotations when dropped.
pub struct Rotator {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Rotator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a log could not be rotated");
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Appends one record in one write, as the runtime does; its length.
fn frame(file: &mut File, pipe: Pipe, tag: char, text: &[u8]) -> io::Result<usize> {
    // `%.f` writes as many digits as there are, like Go's RFC3339Nano.
    let stamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.fZ");
    let mut record = format!("{stamp} {} {tag} ", pipe.name()).into_bytes();
    record.extend_from_slice(text);
    record.push(b'\n');
    file.write_all(&record)?;
    Ok(record.len())
}

/// `X` becomes `X.gz`, by way of `X.tmp`.
fn compress(plain: &Path) -> io::Result<()> {
    let (temporary, compressed) = (with_suffix(plain, ".tmp"), with_suffix(plain, ".gz"));
    let mut out = GzEncoder::new(File::create(&temporary)?, Compression::default());
    io::copy(&mut File::open(plain)?, &mut out)?;
    out.finish()?;
    fs::rename(temporary, compressed)?;
    fs::remove_file(plain)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
