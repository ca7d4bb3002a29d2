//! What the tail needs of the world: files and a clock.
//!
//! The tail is a step machine over this trait. The real world is [`os`](super::os); a simulator can be another.

use std::io;
use std::path::Path;
use std::time::Duration;

/// What a directory holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Anything else: FIFO, socket, device.
    Other,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name. Names that are not UTF-8 are not the kubelet's and are left out.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// The facts of a file that matter to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Names that the file has; 0 once it is unlinked.
    pub links: u64,
}

/// Why a log file is not read. Each is a value of `reason` in the counter of skipped files.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is gone.
    #[error("no such file")]
    Missing,
    /// A link that leads out of the log root and out of every allowed target root.
    #[error("symbolic link to a place outside the allowed roots")]
    Symlink,
    /// A FIFO, device, socket or directory.
    #[error("not a regular file")]
    NotRegular,
    /// A regular file with further names: it may be somebody else's.
    #[error("file has more than one hard link")]
    HardLink,
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    /// The reason as a label value.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Symlink => "symlink",
            Self::NotRegular => "not_regular",
            Self::HardLink => "hard_link",
            Self::Io(_) => "error",
        }
    }
}

/// An open log file.
pub trait LogFile: Send {
    /// Facts of the open file, whatever its name is by now.
    fn stat(&self) -> io::Result<Stat>;

    /// Appends at most `max` bytes from `offset` to `buffer`; 0 at the end of the file.
    fn read_at(&self, offset: u64, max: usize, buffer: &mut Vec<u8>) -> io::Result<usize>;
}

/// The world as the tail sees it.
pub trait Env: Send {
    /// An open file.
    type File: LogFile;

    /// Names in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// A value that changes when names in `dir` come, go or change, and the time of the last change as
    /// nanoseconds since the epoch.
    fn modified(&self, dir: &Path) -> io::Result<u64>;

    /// Opens a log file for reading, as far as the rules on links and kinds allow.
    fn open(&self, path: &Path) -> Result<Self::File, OpenError>;

    /// Opens a compressed log file; offsets and sizes are those of its content.
    fn open_gzip(&self, path: &Path) -> Result<Self::File, OpenError>;

    /// Device and inode behind a path, links followed.
    fn identity(&self, path: &Path) -> io::Result<(u64, u64)>;

    /// Size of the log file behind a path, links followed.
    fn size(&self, path: &Path) -> io::Result<u64> {
        match self.open(path) {
            Ok(file) => Ok(file.stat()?.size),
            Err(OpenError::Io(error)) => Err(error),
            Err(other) => Err(io::Error::other(other)),
        }
    }

    /// Where a symbolic link points, when its target is below an allowed root.
    fn link_target(&self, path: &Path) -> Option<std::path::PathBuf>;

    /// Asks to be told when names in `dir` come and go. Best effort: nothing may depend on it alone.
    fn watch(&mut self, dir: &Path);

    /// No longer asks.
    fn unwatch(&mut self, dir: &Path);

    /// True when names in a watched directory have come or gone since the last call, or may have.
    fn take_changes(&mut self) -> bool;

    /// Time on a clock that never jumps.
    fn now(&self) -> Duration;

    /// Wall clock, nanoseconds since the epoch.
    fn unix_nano(&self) -> u64;
}
