//! Where in a container's log we are, in a form that survives rotation and restarts.

/// One file in the life of a container log.
///
/// The inode alone is worthless: file systems reuse it at once. The head fingerprint is the hash of the first
/// complete line, whose CRI timestamp has nanoseconds; 0 while the file has no complete line yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Generation {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
    /// xxh3 of the file's first complete line, 0 while unknown.
    pub head: u64,
}

/// An exclusive end: every byte of the log before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The file.
    pub generation: Generation,
    /// Number of the file in the log's life as far as the agent has followed it: each rotation adds 1.
    pub ordinal: u64,
    /// Bytes from the file's start.
    pub offset: u64,
    /// Streams whose over-long line was cut and whose rest, up to its `F` fragment, is still to be skipped.
    pub skipping: Skipping,
}

impl Position {
    /// True when everything before `other` is also before this.
    pub fn covers(&self, other: &Self) -> bool {
        (self.ordinal, self.offset) >= (other.ordinal, other.offset)
    }
}

/// A set of streams in which the framer skips until the end of an over-long line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipping(pub u8);
