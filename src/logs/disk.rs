//! The state directory as the checkpoint and the spill see it: a flat directory of files of our own.
//!
//! The real one is [`OsDisk`]. A simulator can be another, whose writes are not durable until they are synced, so
//! that a crash shows what a crash would.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Space on the file system behind a directory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What is free for us.
    pub free: u64,
    /// What there is in all.
    pub total: u64,
}

/// An open file of the state directory. Writes are durable once [`sync`](Self::sync) has returned without error.
#[expect(clippy::len_without_is_empty, reason = "a file's length is asked for, never whether it is empty")]
pub trait DiskFile: Send + Sync {
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on; an error of kind `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable. After an error nothing is known about what was written since the last
    /// success, and the file must not be written any more.
    fn sync(&self) -> io::Result<()>;

    /// Gives the blocks of `offset..offset + len` back to the file system; they read as zeros. Best effort.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The first offset from `offset` on that may hold data, so that nobody need read through what was punched; the
    /// file's length or more when nothing follows.
    fn next_data(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
}

/// A flat directory.
pub trait Disk: Send + Sync {
    /// Names of all regular files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a new file with `reserve` bytes of disk space set aside (0 for none), of that length. An error of kind
    /// `AlreadyExists` when the name is taken.
    fn create(&self, name: &str, reserve: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, over another one if there is.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names that were created, renamed and removed durable.
    fn sync(&self) -> io::Result<()>;

    /// Space on the file system.
    fn space(&self) -> io::Result<Space>;
}

/// A directory of the operating system.
#[derive(Debug, Clone)]
pub struct OsDisk {
    dir: PathBuf,
}

impl OsDisk {
    /// The directory at `dir`, which exists.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl Disk for OsDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type().is_ok_and(|kind| kind.is_file())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, reserve: u64) -> io::Result<Box<dyn DiskFile>> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if reserve > 0 {
            let reserved = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, reserve)
                .or_else(|error| match error {
                    // Not every file system can; then the length alone must do.
                    rustix::io::Errno::OPNOTSUPP => rustix::fs::ftruncate(&file, reserve),
                    error => Err(error),
                });
            if let Err(error) = reserved {
                let _ = std::fs::remove_file(&path);
                return Err(error.into());
            }
        }
        Ok(Box::new(OsFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags.bits() as i32);
        let path = self.dir.join(name);
        // A read-only file system still has a checkpoint to tell.
        let file = options.open(&path).or_else(|_| options.write(false).open(&path))?;
        Ok(Box::new(OsFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(Space { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }
}

struct OsFile(File);

impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.0, flags, offset, len)?)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Ok(at),
            Err(rustix::io::Errno::NXIO) => Ok(u64::MAX),
            Err(error) => Err(error.into()),
        }
    }
}
