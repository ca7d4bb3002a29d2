//! The real world behind [`Env`]: openat2, pread, the system's clocks.
//!
//! Opens never follow a link out of the log root, except to an allowed target root (docker's json files), never
//! block on a FIFO and accept regular files only.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::Watcher;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::data::budget::Signal;
use crate::data::clock;
use crate::metrics;
use tracing::warn;

use super::env::{Entry, Env, Kind, LogFile, OpenError, Stat};
use super::gz::Inflate;

/// The operating system's files and clocks.
#[derive(Debug)]
pub struct Os {
    root: PathBuf,
    symlink_roots: Vec<PathBuf>,
    /// Directories of files that applications write. No link leads here.
    file_roots: Vec<PathBuf>,
    /// One inotify instance for everything; `None` when the system has none left: then polling alone serves.
    watcher: Option<notify::RecommendedWatcher>,
    changed: Arc<AtomicBool>,
    /// Some directory has no watch, so changes are looked for every [`POLL`] rather than told.
    blind: bool,
    polled: Instant,
}

/// How often directories are looked at while some of them cannot be watched.
const POLL: Duration = Duration::from_secs(1);

impl Os {
    /// Logs below `root`; symbolic links may lead below `symlink_roots`. `signal` is raised when a watched
    /// directory changes.
    pub fn new(root: PathBuf, symlink_roots: Vec<PathBuf>, signal: Arc<Signal>) -> Self {
        let changed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error is a lost event (a queue overflow, say), so it counts as a change. Reading does not.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                flag.store(true, Ordering::Release);
                signal.raise();
            }
        })
        .inspect_err(|error| {
            warn!(%error, "no inotify instance to be had; directories are polled (raise fs.inotify.max_user_instances)");
        })
        .ok();
        metrics::LOG_WATCHES_MISSING.set(i64::from(watcher.is_none()));
        let (now, blind) = (Instant::now(), watcher.is_none());
        let file_roots = Vec::new();
        Self { root, symlink_roots, file_roots, watcher, changed, blind, polled: now }
    }

    /// The same for one look: nothing is watched.
    pub fn unwatched(root: PathBuf, symlink_roots: Vec<PathBuf>) -> Self {
        let (changed, polled) = (Arc::default(), Instant::now());
        Self { root, symlink_roots, file_roots: Vec::new(), watcher: None, changed, blind: true, polled }
    }

    /// Opens files below these directories too, but follows no link there.
    #[must_use]
    pub fn with_file_roots(self, file_roots: Vec<PathBuf>) -> Self {
        Self { file_roots, ..self }
    }

    /// True while directory changes are told by the kernel rather than found by polling.
    pub fn has_watcher(&self) -> bool {
        self.watcher.is_some()
    }

    /// Opens `path` below the log root, if there is one.
    fn open_root(root: &Path, path: &Path) -> Result<OwnedFd, Errno> {
        if root.as_os_str().is_empty() {
            return Err(Errno::XDEV);
        }
        Self::open_beneath(root, path)
    }

    /// Opens `path`, which must lie below `root`, without following any link below it.
    fn open_beneath(root: &Path, path: &Path) -> Result<OwnedFd, Errno> {
        let relative = path.strip_prefix(root).map_err(|_| Errno::XDEV)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let dir = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&dir, relative, flags, Mode::empty(), resolve) {
            // An old kernel or a seccomp filter without openat2.
            Err(Errno::NOSYS | Errno::PERM) => Self::open_by_steps(dir, relative, flags),
            other => other,
        }
    }

    /// What [`open_beneath`](Self::open_beneath) asks of `openat2`, one directory at a time: no `..`, and no link at
    /// any step.
    fn open_by_steps(mut dir: OwnedFd, relative: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut parts = relative.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else { return Err(Errno::XDEV) };
            if parts.peek().is_none() {
                return rustix::fs::openat(&dir, name, flags | OFlags::NOFOLLOW, Mode::empty());
            }
            dir = rustix::fs::openat(&dir, name, step, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode) == FileType::Symlink {
                return Err(Errno::LOOP);
            }
        }
        Err(Errno::ISDIR)
    }

    /// Opens a path below one of the roots that links may lead to.
    fn open_allowed(&self, path: &Path) -> Result<OwnedFd, OpenError> {
        let root = self.symlink_roots.iter().find(|root| path.starts_with(root)).ok_or(OpenError::Symlink)?;
        match Self::open_beneath(root, path) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT) => Err(OpenError::Missing),
            Err(Errno::LOOP) => Err(OpenError::Symlink),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

/// A regular file, open for reading.
#[derive(Debug)]
pub enum OsFile {
    /// As it is on disk.
    Plain(OwnedFd),
    /// By its decompressed content.
    Gzip(Box<Inflate>),
}

impl OsFile {
    /// When the file was last written to, nanoseconds since the epoch; of a compressed one, when it was compressed.
    pub fn modified(&self) -> io::Result<u64> {
        let stat = match self {
            Self::Plain(fd) => rustix::fs::fstat(fd)?,
            Self::Gzip(content) => rustix::fs::fstat(content.descriptor())?,
        };
        Ok((stat.st_mtime as u64).wrapping_mul(1_000_000_000).wrapping_add(stat.st_mtime_nsec as u64))
    }
}

impl LogFile for OsFile {
    fn stat(&self) -> io::Result<Stat> {
        let fd = match self {
            Self::Plain(fd) => fd,
            Self::Gzip(content) => return Ok(content.stat()),
        };
        let stat = rustix::fs::fstat(fd)?;
        Ok(Stat {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: stat.st_nlink as u64,
        })
    }

    fn read_at(&self, offset: u64, max: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let fd = match self {
            Self::Plain(fd) => fd,
            Self::Gzip(content) => return Ok(content.read_at(offset, max, buffer)),
        };
        buffer.reserve(max);
        let len = buffer.len();
        // Reads into spare capacity: no byte is zeroed first. The capacity may exceed what was asked for.
        let got = rustix::io::pread(fd, rustix::buffer::spare_capacity(buffer), offset)?;
        if got > max {
            buffer.truncate(len + max);
        }
        Ok(got.min(max))
    }
}

impl Env for Os {
    type File = OsFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_dir() => Kind::Directory,
                Ok(kind) if kind.is_file() => Kind::File,
                Ok(kind) if kind.is_symlink() => Kind::Symlink,
                Ok(_) => Kind::Other,
                Err(_) => continue,
            };
            entries.push(Entry { name, kind });
        }
        Ok(entries)
    }

    fn modified(&self, dir: &Path) -> io::Result<u64> {
        let meta = rustix::fs::stat(dir)?;
        Ok((meta.st_mtime as u64).wrapping_mul(1_000_000_000).wrapping_add(meta.st_mtime_nsec as u64))
    }

    fn open(&self, path: &Path) -> Result<OsFile, OpenError> {
        let of_files = || self.file_roots.iter().filter(|root| path.starts_with(root));
        let opened = match Self::open_root(&self.root, path) {
            Err(Errno::XDEV) => match of_files().max_by_key(|root| root.as_os_str().len()) {
                Some(root) => match Self::open_beneath(root, path) {
                    Err(Errno::LOOP) => return Err(OpenError::Symlink),
                    opened => opened,
                },
                None => Err(Errno::XDEV),
            },
            opened => opened,
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(OpenError::Missing),
            Err(Errno::LOOP) => self.open_allowed(&self.link_target(path).ok_or(OpenError::Symlink)?)?,
            // A path of the tail's own making below an allowed target root: docker's rotated files.
            Err(Errno::XDEV) => self.open_allowed(path)?,
            // A socket, or a FIFO that nobody writes to.
            Err(Errno::NXIO) => return Err(OpenError::NotRegular),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let stat = rustix::fs::fstat(&fd).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenError::NotRegular);
        }
        if stat.st_nlink > 1 {
            return Err(OpenError::HardLink);
        }
        Ok(OsFile::Plain(fd))
    }

    fn open_gzip(&self, path: &Path) -> Result<OsFile, OpenError> {
        match self.open(path)? {
            OsFile::Plain(fd) => Ok(OsFile::Gzip(Box::new(Inflate::new(fd)?))),
            gzip @ OsFile::Gzip(_) => Ok(gzip),
        }
    }

    fn identity(&self, path: &Path) -> io::Result<(u64, u64)> {
        let meta = fs::metadata(path)?;
        Ok((meta.dev(), meta.ino()))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn link_target(&self, path: &Path) -> Option<PathBuf> {
        let target = fs::canonicalize(path).ok()?;
        self.symlink_roots.iter().any(|root| target.starts_with(root)).then_some(target)
    }

    fn watch(&mut self, dir: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        // The directory may be gone by now, which is no trouble; running out of watches is worth a word.
        if let Err(error) = watcher.watch(dir, notify::RecursiveMode::NonRecursive)
            && matches!(error.kind, notify::ErrorKind::MaxFilesWatch)
        {
            if metrics::LOG_WATCHES_MISSING.get() == 0 {
                warn!(%error, "no inotify watch to be had; directories are polled (raise fs.inotify.max_user_watches)");
            }
            metrics::LOG_WATCHES_MISSING.inc();
            self.blind = true;
        }
    }

    fn unwatch(&mut self, dir: &Path) {
        if let Some(watcher) = &mut self.watcher {
            // The kernel has dropped the watch with the directory; notify forgets it here.
            let _ = watcher.unwatch(dir);
        }
    }

    fn take_changes(&mut self) -> bool {
        let due = self.blind && self.polled.elapsed() >= POLL;
        if due {
            self.polled = Instant::now();
        }
        self.changed.swap(false, Ordering::AcqRel) || due
    }

    fn now(&self) -> Duration {
        clock::now()
    }

    fn unix_nano(&self) -> u64 {
        clock::since_epoch().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_openat2_no_link_is_followed_at_any_step() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path().join("pods");
        fs::create_dir_all(root.join("pod/api")).expect("dir");
        fs::create_dir(dir.path().join("other")).expect("dir");
        fs::write(dir.path().join("other/0.log"), b"secret").expect("file");
        fs::write(root.join("pod/api/0.log"), b"line").expect("file");
        std::os::unix::fs::symlink(dir.path().join("other"), root.join("pod/evil")).expect("link");
        std::os::unix::fs::symlink(dir.path().join("other/0.log"), root.join("pod/api/1.log")).expect("link");
        let open = |path: &str| {
            let dir = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("root");
            Os::open_by_steps(dir, Path::new(path), OFlags::RDONLY).map(drop)
        };
        assert_eq!(open("pod/api/0.log"), Ok(()));
        assert_eq!(open("pod/api/1.log"), Err(Errno::LOOP));
        assert_eq!(open("pod/evil/0.log"), Err(Errno::LOOP));
        assert_eq!(open("pod/../pod/api/0.log"), Err(Errno::XDEV));
        assert_eq!(open("pod/none/0.log"), Err(Errno::NOENT));
        // By both ways alike.
        for path in ["pod/api/1.log", "pod/evil/0.log"] {
            assert_eq!(Os::open_beneath(&root, &root.join(path)).map(drop), Err(Errno::LOOP));
        }
    }

    #[test]
    fn only_regular_files_below_the_root_open() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path().join("pods");
        let allowed = dir.path().join("docker");
        fs::create_dir_all(&root).expect("dir");
        fs::create_dir_all(&allowed).expect("dir");
        fs::write(dir.path().join("secret"), b"x").expect("file");
        fs::write(root.join("0.log"), b"line\n").expect("file");
        fs::write(allowed.join("c-json.log"), b"{}\n").expect("file");
        fs::hard_link(dir.path().join("secret"), root.join("hard.log")).expect("link");
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("evil.log")).expect("link");
        std::os::unix::fs::symlink(allowed.join("c-json.log"), root.join("docker.log")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo.log"), FileType::Fifo, Mode::RUSR, 0)
            .expect("fifo");

        let os = Os::new(root.clone(), vec![allowed], Arc::default());
        let mut text = Vec::new();
        let file = os.open(&root.join("0.log")).expect("regular");
        assert_eq!(file.read_at(1, 3, &mut text).expect("read"), 3);
        assert_eq!(text, b"ine");
        assert!(os.open(&root.join("docker.log")).is_ok());
        for (name, reason) in [
            ("evil.log", "symlink"),
            ("hard.log", "hard_link"),
            ("fifo.log", "not_regular"),
            ("none", "missing"),
        ] {
            let error = os.open(&root.join(name)).expect_err(name);
            assert_eq!(error.reason(), reason, "{name}");
        }
    }
}
