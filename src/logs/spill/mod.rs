//! The spill: what the kubelet is about to delete and no backend has taken yet, kept in the state directory.
//!
//! In: stretches of log files, byte for byte as they stand there, under the log's key, the file's identity and the
//! offset. Out: the same bytes by the same offsets, so that to the tail a spilled file is a file like any other and
//! the checkpoint's positions mean the same. Nothing is acknowledged by being spilled.
//! Invariants: a stretch counts as kept once a sync after it has succeeded; its place on disk is given up only when
//! a durable checkpoint has passed it, or when the budget forces it and the range is told as lost.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use crate::data::position::{Generation, Position};
use crate::data::units::{ByteSize, Percent};

/// `[logs.spill]`: the last resort when the kubelet deletes logs faster than the backend takes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Disk space for it in the state directory, compressed. 0 turns it off.
    pub budget: ByteSize,
    /// Nothing is spilled while less than this share of the state directory's file system is free.
    pub min_free: Percent,
    /// Bytes of deleted log files that may be held open when they cannot be spilled; at most a twentieth of the
    /// file system. Beyond it the oldest of the largest backlog is given up, counted and marked in its stream.
    pub held_deleted: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { budget: ByteSize::mib(1024), min_free: Percent::whole(15), held_deleted: ByteSize::mib(1024) }
    }
}

/// A contiguous range of one file of a log, kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The file.
    pub generation: Generation,
    /// Its number in the life of the log.
    pub ordinal: u64,
    /// First byte kept.
    pub start: u64,
    /// Exclusive end.
    pub end: u64,
    /// Exclusive end of what is durable.
    pub durable_end: u64,
}

/// Why a stretch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The budget is spent, or the spill is off.
    #[error("the spill's budget is spent")]
    Full,
    /// The file system has too little left.
    #[error("too little space is left on the file system of the state directory")]
    LowDisk,
    /// The disk fails, or there is none.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// Why nothing can be read at an offset.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What was there is damaged, or was given up. Bytes from `until` on may be there.
    #[error("nothing is left of these bytes up to offset {until}")]
    Gap {
        /// Exclusive end of what is missing.
        until: u64,
    },
    /// The disk fails.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What opening found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Logs with something kept.
    pub logs: usize,
    /// Source bytes kept.
    pub bytes: u64,
    /// Damaged frames that were put aside.
    pub damaged: u64,
}

/// How full it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub stored: u64,
    /// Log bytes that they hold.
    pub source: u64,
}

/// The spill. Shared by the reading thread, which fills and reads it, and the checkpoint's, which syncs and empties it.
pub struct Spill {}

impl Spill {
    /// A spill that has no disk yet and refuses everything.
    pub fn new(_config: &Config) -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Begins to use `disk`, and takes up what an earlier life left there. Damaged frames are put aside and counted;
    /// nothing in a file makes it fail.
    pub fn attach(&self, _disk: Arc<dyn Disk>) -> io::Result<Recovery> {
        Ok(Recovery::default())
    }

    /// Keys of the logs that have something here.
    pub fn keys(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// What is kept of a log, ordered by ordinal and offset, adjacent frames joined.
    pub fn stretches(&self, _key: &str) -> Vec<Stretch> {
        Vec::new()
    }

    /// Keeps `bytes`, which stand at `start` in the file. They follow what was kept of that file before, or leave a
    /// hole behind it. At most 256 KiB at once, cut behind a newline where there is one.
    pub fn append(
        &self,
        _key: &Arc<str>,
        _generation: Generation,
        _ordinal: u64,
        _start: u64,
        _bytes: &[u8],
    ) -> Result<(), Refused> {
        Err(Refused::Full)
    }

    /// True when something was appended that is not durable yet.
    pub fn is_dirty(&self) -> bool {
        false
    }

    /// Makes everything durable that was appended before the call. After an error what was not durable counts as
    /// not kept, and a new segment is begun.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Appends at most `max` bytes of a file from `offset` on to `buffer`; 0 at the end of what is kept.
    pub fn read_at(
        &self,
        _key: &str,
        _ordinal: u64,
        _offset: u64,
        _max: usize,
        _buffer: &mut Vec<u8>,
    ) -> Result<usize, ReadError> {
        Ok(0)
    }

    /// A durable checkpoint says that everything of the log before `position` is acknowledged, save the last
    /// `margin` bytes, which a resume reads again for warmth.
    pub fn release(&self, _key: &str, _position: &Position, _margin: u64) {}

    /// A durable checkpoint no longer has the log.
    pub fn forget(&self, _key: &str) {}

    /// Gives up whole frames of a log's oldest stretch from `from` on, until at least `wanted` bytes on disk are
    /// free or the file's stretch ends. The range of log bytes that is gone, which begins at or behind `from`.
    pub fn give_up(
        &self,
        _key: &str,
        _ordinal: u64,
        _from: u64,
        _wanted: u64,
    ) -> Option<std::ops::Range<u64>> {
        None
    }

    /// The log with the most bytes here, and how many on disk.
    pub fn largest(&self) -> Option<(Arc<str>, u64)> {
        None
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
}
