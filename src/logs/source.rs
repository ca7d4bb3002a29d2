//! Where the bytes of one generation are read from: the kubelet's file, or what was spilled of it.

use std::io;
use std::sync::Arc;

use super::env::{LogFile, Stat};
use super::spill::{ReadError, Spill};
use crate::data::position::Generation;

/// The bytes of a generation.
pub enum Source<F> {
    /// The file itself, perhaps unlinked by now.
    File(F),
    /// Kept in the state directory.
    Spilled(Spilled),
    /// Closed while nothing happens to it, to be found again by its name.
    Parked(Stat),
    /// Given up: nothing can be read any more.
    Closed(Stat),
}

/// One generation in the spill.
pub struct Spilled {
    spill: Arc<Spill>,
    key: Arc<str>,
    ordinal: u64,
    stat: Stat,
}

/// Bytes that are not there any more. Travels as the inner error of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("nothing is left of these bytes up to offset {until}")]
pub struct Gap {
    /// Exclusive end of what is missing.
    pub until: u64,
}

impl Gap {
    /// The gap that a failed read ran into.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Spilled {
    /// The generation as the spill has it, `size` bytes long.
    pub fn new(spill: Arc<Spill>, key: Arc<str>, ordinal: u64, generation: Generation, size: u64) -> Self {
        let Generation { device, inode, .. } = generation;
        Self { spill, key, ordinal, stat: Stat { device, inode, size, links: 1 } }
    }
}

impl Spilled {
    /// The file is known to have been longer than what is kept of it.
    pub fn extend(&mut self, size: u64) {
        self.stat.size = self.stat.size.max(size);
    }
}

impl<F> Source<F> {
    /// True for the file itself.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl<F: LogFile> LogFile for Source<F> {
    fn stat(&self) -> io::Result<Stat> {
        match self {
            Self::File(file) => file.stat(),
            Self::Spilled(spilled) => Ok(spilled.stat),
            Self::Parked(stat) | Self::Closed(stat) => Ok(*stat),
        }
    }

    fn read_at(&self, offset: u64, max: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(offset, max, buffer),
            Self::Spilled(Spilled { spill, key, ordinal, stat }) => {
                if offset >= stat.size {
                    return Ok(0);
                }
                match spill.read_at(key, *ordinal, offset, max, buffer) {
                    // What was kept ends early: the rest was never made durable.
                    Ok(0) if max > 0 => Err(io::Error::other(Gap { until: stat.size })),
                    Ok(read) => Ok(read),
                    Err(ReadError::Gap { until }) => {
                        Err(io::Error::other(Gap { until: until.min(stat.size) }))
                    }
                    Err(ReadError::Io(error)) => Err(error),
                }
            }
            Self::Closed(stat) if offset < stat.size => Err(io::Error::other(Gap { until: stat.size })),
            Self::Closed(_) | Self::Parked(_) => Ok(0),
        }
    }
}
