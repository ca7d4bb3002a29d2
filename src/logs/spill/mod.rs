//! The spill: what the kubelet is about to delete and no backend has taken yet, kept in the state directory.
//!
//! In: stretches of log files, byte for byte as they stand there, under the log's key, the file's identity and the
//! offset. Out: the same bytes by the same offsets, so that to the tail a spilled file is a file like any other and
//! the checkpoint's positions mean the same. Nothing is acknowledged by being spilled.
//! Invariants: a stretch counts as kept once a sync after it has succeeded; its place on disk is given up only when
//! a durable checkpoint has passed it, or when the budget forces it and the range is told as lost.

mod frame;
mod index;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use self::frame::{BLOCK, Decoder, Encoder, MAX_KEY, MAX_SOURCE, Target};
use self::index::{Found, Frame, Freed, Index, Place, Segment};
use self::segment::{MAX_NUMBER, MAX_SEGMENT};
use super::disk::{Disk, DiskFile};
use crate::data::position::{Generation, Position};
use crate::data::units::{ByteSize, Percent};
use crate::metrics;

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

/// Frames that were read last and stay decompressed.
const CACHED: usize = 4;
/// What the spill holds in memory besides its index: the cached frames, a frame being read and one being made, and
/// zstd's contexts (level 1 for 256 KiB: 0.8 MiB to compress, 0.2 MiB to decompress).
pub const MEMORY_BOUND: u64 = (CACHED as u64 + 3) * (MAX_SOURCE as u64 + (64 << 10)) + (1 << 20);
/// Bytes of the index for a frame: 24 of key and value, in tree nodes at least half full.
const INDEX_ENTRY: u64 = 64;
/// Frames that even a small spill may hold.
const LEAST_FRAMES: u64 = 16 << 10;
/// Segments, the last ones, whose payloads are looked at when opening: a power failure may have left the headers of
/// frames that were never synced.
const VERIFIED: usize = 2;
/// Calls after which the disk is asked for its free space again.
const SPACE_CALLS: u32 = 64;
/// Bytes written after which it is.
const SPACE_BYTES: u64 = 4 << 20;

impl Config {
    /// Bytes of memory that a spill of this size may need: [`MEMORY_BOUND`], and the index.
    pub fn memory_bound(&self) -> u64 {
        if self.budget.0 == 0 { 0 } else { MEMORY_BOUND + self.most_frames() * INDEX_ENTRY }
    }

    /// Frames that are kept at most, since each has its entry in memory: one for every four blocks of the budget. A frame
    /// of 256 KiB of usual logs takes six blocks or more, so that the budget is spent first.
    fn most_frames(&self) -> u64 {
        (self.budget.0 / BLOCK).min((self.budget.0 / (4 * BLOCK)).max(LEAST_FRAMES))
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
///
/// Locks are taken in the order of the fields; the last one is never held while the disk works.
pub struct Spill {
    config: Config,
    segment_size: u64,
    reader: Mutex<Reader>,
    writer: Mutex<Writer>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    disk: Option<Arc<dyn Disk>>,
    index: Index,
}

impl Spill {
    /// A spill that has no disk yet and refuses everything.
    pub fn new(config: &Config) -> Arc<Self> {
        metrics::SPILL_LIMIT_BYTES.set(i64::try_from(config.budget.0).unwrap_or(i64::MAX));
        Self::with_segments(config, MAX_SEGMENT)
    }

    /// One whose segments grow to at most `segment_size` bytes.
    fn with_segments(config: &Config, segment_size: u64) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            segment_size,
            reader: Mutex::default(),
            writer: Mutex::default(),
            shared: Mutex::default(),
        })
    }

    /// Begins to use `disk`, and takes up what an earlier life left there. Damaged frames are put aside and counted;
    /// nothing in a file makes it fail. Once it has a disk it keeps that one.
    pub fn attach(&self, disk: Arc<dyn Disk>) -> io::Result<Recovery> {
        if self.shared.lock().disk.is_some() {
            return Ok(Recovery::default());
        }
        let names = disk.list()?;
        let (mut reader, mut writer) = (self.reader.lock(), self.writer.lock());
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        numbers.sort_unstable();
        let next = self.shared.lock().index.next;
        let mut index = Index::default();
        index.next = numbers.last().map_or(next, |last| next.max(last + 1));
        let mut recovery = Recovery::default();
        let mut freed = Vec::new();
        // What a process wrote that was killed is not durable by being there, and neither is its name.
        let named = disk.sync().is_ok();
        let verified = numbers.len().saturating_sub(VERIFIED);
        for (nth, number) in numbers.into_iter().enumerate() {
            take_up(&*disk, number, nth >= verified, named, &mut index, &mut recovery, &mut freed);
        }
        recovery.logs = index.len();
        let stretches = index.keys().into_iter().flat_map(|key| index.stretches(&key));
        recovery.bytes = stretches.map(|stretch| stretch.end - stretch.start).sum();
        metrics::SPILL_DAMAGED.inc_by(recovery.damaged);
        *reader = Reader::default();
        *writer = Writer::default();
        *self.shared.lock() = Shared { disk: Some(disk), index };
        drop((reader, writer));
        self.discard(freed);
        Ok(recovery)
    }

    /// Keys of the logs that have something here.
    pub fn keys(&self) -> Vec<Arc<str>> {
        self.shared.lock().index.keys()
    }

    /// What is kept of a log, ordered by ordinal and offset, adjacent frames joined.
    pub fn stretches(&self, key: &str) -> Vec<Stretch> {
        self.shared.lock().index.stretches(key)
    }

    /// Keeps `bytes`, which stand at `start` in the file. They follow what was kept of that file before, or leave a
    /// hole behind it. At most 256 KiB at once, cut behind a newline where there is one. Of a file of another
    /// generation that was kept under the ordinal nothing stays.
    pub fn append(
        &self,
        key: &Arc<str>,
        generation: Generation,
        ordinal: u64,
        start: u64,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        if self.config.budget.0 == 0 {
            return Err(Refused::Full);
        }
        if key.len() > MAX_KEY || start.checked_add(bytes.len() as u64).is_none() {
            return Err(Refused::Failed(io::ErrorKind::InvalidInput.into()));
        }
        let mut freed = Vec::new();
        let mut writer = self.writer.lock();
        let mut start = start;
        let mut result = Ok(());
        for bytes in bytes.chunks(MAX_SOURCE) {
            let target = Target { key, generation, ordinal, start };
            result = self.append_frame(&mut writer, key, target, bytes, &mut freed);
            if result.is_err() {
                break;
            }
            start += bytes.len() as u64;
        }
        drop(writer);
        self.discard(freed);
        result
    }

    fn append_frame(
        &self,
        writer: &mut Writer,
        key: &Arc<str>,
        target: Target<'_>,
        bytes: &[u8],
        freed: &mut Vec<Freed>,
    ) -> Result<(), Refused> {
        let Target { generation, ordinal, start, .. } = target;
        let full = |held: u64, more: u64| held.saturating_add(more) > self.config.budget.0;
        let (disk, held) = {
            let shared = self.shared.lock();
            let disk = shared.disk.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            if shared.index.has(key, generation, ordinal, start, start + bytes.len() as u64) {
                return Ok(());
            }
            let is_full = shared.index.frames() >= self.config.most_frames();
            (disk, if is_full { u64::MAX } else { shared.index.held() })
        };
        if full(held, BLOCK) {
            return Err(Refused::Full);
        }
        if writer.space.is_low(&*disk, self.config.min_free) {
            return Err(Refused::LowDisk);
        }
        let Writer { encoder, current, space } = writer;
        let frame = encoder.encode(target, bytes)?;
        let stored = frame.len() as u32;
        let length = frame::rounded(stored);
        if full(held, length) {
            return Err(Refused::Full);
        }
        let (number, file, at) = match current.take().filter(|open| open.at + length <= self.segment_size) {
            Some(open) if self.is_sound(open.number) => (open.number, open.file, open.at),
            _ => self.begin_segment(&*disk).map_err(|error| space.refused(error))?,
        };
        if let Err(error) = file.write_all_at(frame, at) {
            // The part that was written would be taken for a damaged frame.
            let _ = file.punch(at, length);
            self.leave_segments();
            return Err(space.refused(error));
        }
        space.written += length;
        let frame = Frame { place: Place::new(number, at), start, source: bytes.len() as u32, stored };
        let mut shared = self.shared.lock();
        if !shared.index.insert(key, generation, ordinal, frame, freed) {
            drop(shared);
            let _ = file.punch(at, length);
            return Err(Refused::Failed(io::Error::other("a sync of the segment failed")));
        }
        *current = Some(Open { number, file, at: at + length });
        metrics::SPILL_WRITTEN_BYTES.inc_by(bytes.len() as u64);
        metrics::SPILL_BYTES.set(shared.index.held() as i64);
        Ok(())
    }

    /// False when a sync of the segment has failed.
    fn is_sound(&self, number: u64) -> bool {
        self.shared.lock().index.segments.get(&number).is_some_and(|segment| !segment.failed)
    }

    /// No segment is being written any more.
    fn leave_segments(&self) {
        let mut shared = self.shared.lock();
        for segment in shared.index.segments.values_mut().filter(|segment| segment.current) {
            segment.current = false;
            if !segment.is_dirty() {
                segment.file = None;
            }
        }
    }

    fn begin_segment(&self, disk: &dyn Disk) -> io::Result<(u64, Arc<dyn DiskFile>, u64)> {
        self.leave_segments();
        let number = {
            let mut shared = self.shared.lock();
            shared.index.next += 1;
            shared.index.next - 1
        };
        if number > MAX_NUMBER {
            return Err(io::Error::other("the numbers of spill segments are used up"));
        }
        let file: Arc<dyn DiskFile> = Arc::from(disk.create(&segment::name(number), 0)?);
        let segment = Segment { current: true, file: Some(Arc::clone(&file)), ..Segment::default() };
        self.shared.lock().index.segments.insert(number, segment);
        Ok((number, file, 0))
    }

    /// True when something was appended that is not durable yet.
    pub fn is_dirty(&self) -> bool {
        self.shared.lock().index.segments.values().any(Segment::is_dirty)
    }

    /// Makes everything durable that was appended before the call. After an error what was not durable counts as
    /// not kept, and a new segment is begun.
    pub fn sync(&self) -> io::Result<()> {
        let (disk, dirty) = {
            let shared = self.shared.lock();
            let Some(disk) = shared.disk.clone() else { return Ok(()) };
            let dirty: Vec<_> =
                shared.index.segments.iter().filter(|(_, segment)| segment.is_dirty()).collect();
            let work = |(&number, segment): (&u64, &Segment)| {
                (number, segment.file.clone(), segment.end, segment.named)
            };
            (disk, dirty.into_iter().map(work).collect::<Vec<_>>())
        };
        // A directory is asked once for all new names; its error is theirs.
        let mut names: Option<io::Result<()>> = None;
        let mut result = Ok(());
        let mut freed = Vec::new();
        for (number, file, end, named) in dirty {
            let mut done = file.map_or(Err(io::ErrorKind::NotFound.into()), |file| file.sync());
            if done.is_ok() && !named {
                done = match names.get_or_insert_with(|| disk.sync()) {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
            }
            let mut shared = self.shared.lock();
            match done {
                Ok(()) => {
                    if let Some(segment) = shared.index.segments.get_mut(&number) {
                        segment.synced = segment.synced.max(end);
                        segment.named = true;
                        if !segment.current && !segment.is_dirty() {
                            segment.file = None;
                        }
                    }
                }
                Err(error) => {
                    shared.index.drop_unsynced(number, &mut freed);
                    result = Err(error);
                }
            }
        }
        self.discard(freed);
        result
    }

    /// Appends at most `max` bytes of a file from `offset` on to `buffer`; 0 at the end of what is kept.
    pub fn read_at(
        &self,
        key: &str,
        ordinal: u64,
        offset: u64,
        max: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, ReadError> {
        let mut reader = self.reader.lock();
        let mut got = 0;
        // Where what was damaged at `offset` ends.
        let mut lost: Option<u64> = None;
        while got < max {
            let at = offset.saturating_add(got as u64);
            let (found, disk, file) = {
                let shared = self.shared.lock();
                let Some(disk) = shared.disk.clone() else { return Ok(0) };
                let found = shared.index.find(key, ordinal, at);
                let file = match &found {
                    Found::Frame(frame) => shared.index.segments.get(&frame.place.segment()),
                    _ => None,
                };
                (found, disk, file.and_then(|segment| segment.file.clone()))
            };
            let frame = match found {
                Found::Frame(frame) => frame,
                _ if got > 0 => break,
                Found::Before(next) => {
                    return Err(ReadError::Gap { until: lost.map_or(next, |end| end.min(next)) });
                }
                Found::End => match lost {
                    Some(until) => return Err(ReadError::Gap { until }),
                    None => break,
                },
            };
            match reader.load(&*disk, file, key, ordinal, frame) {
                Ok(Some(bytes)) => {
                    let bytes = &bytes[(at - frame.start) as usize..];
                    let bytes = &bytes[..bytes.len().min(max - got)];
                    buffer.extend_from_slice(bytes);
                    got += bytes.len();
                }
                // Told when it is what the next call begins with: one that was given up meanwhile is no damage.
                _ if got > 0 => break,
                Ok(None) => {
                    let mut freed = Vec::new();
                    if self.shared.lock().index.remove(key, ordinal, frame.place, &mut freed) {
                        metrics::SPILL_DAMAGED.inc();
                        lost = lost.max(Some(frame.end()));
                        warn!(
                            key,
                            segment = frame.place.segment(),
                            at = frame.place.at(),
                            "spilled frame is damaged"
                        );
                        self.discard(freed);
                    }
                }
                Err(error) => {
                    let found = self.shared.lock().index.find(key, ordinal, at);
                    if found == Found::Frame(frame) {
                        return Err(ReadError::Io(error));
                    }
                }
            }
        }
        Ok(got)
    }

    /// A durable checkpoint says that everything of the log before `position` is acknowledged, save the last
    /// `margin` bytes, which a resume reads again for warmth. Of the position's own file nothing is released when
    /// what is kept under its ordinal is another file.
    pub fn release(&self, key: &str, position: &Position, margin: u64) {
        let mut freed = Vec::new();
        self.shared.lock().index.release(key, position, margin, &mut freed);
        self.discard(freed);
    }

    /// A durable checkpoint no longer has the log.
    pub fn forget(&self, key: &str) {
        let mut freed = Vec::new();
        self.shared.lock().index.forget(key, &mut freed);
        self.discard(freed);
    }

    /// Gives up whole frames of a log's oldest stretch from `from` on, until at least `wanted` bytes on disk are
    /// free or the file's stretch ends. The range of log bytes that is gone, which begins at or behind `from`.
    pub fn give_up(&self, key: &str, ordinal: u64, from: u64, wanted: u64) -> Option<std::ops::Range<u64>> {
        let mut freed = Vec::new();
        let range = self.shared.lock().index.give_up(key, ordinal, from, wanted, &mut freed);
        self.discard(freed);
        range
    }

    /// The log with the most bytes here, and how many on disk.
    pub fn largest(&self) -> Option<(Arc<str>, u64)> {
        self.shared.lock().index.largest()
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let shared = self.shared.lock();
        Usage { stored: shared.index.held(), source: shared.index.source() }
    }

    /// Gives the blocks of frames that are no longer listed back, and removes segments with none left. What cannot
    /// be given back stays counted until its segment is removed.
    fn discard(&self, mut freed: Vec<Freed>) {
        let mut writer = self.writer.try_lock();
        let (disk, empty) = {
            let mut shared = self.shared.lock();
            let Some(disk) = shared.disk.clone() else { return };
            // Without the lock a frame may be on its way into the current segment.
            let idle = writer.is_some();
            let empty: Vec<u64> = shared.index.empty_segments(idle);
            let segments = &mut shared.index.segments;
            let empty: Vec<(u64, Segment)> =
                empty.into_iter().filter_map(|number| Some((number, segments.remove(&number)?))).collect();
            (disk, empty)
        };
        if let Some(writer) = &mut writer
            && empty.iter().any(|(_, segment)| segment.current)
        {
            writer.current = None;
        }
        drop(writer);
        for (number, mut segment) in empty {
            match disk.remove(&segment::name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    segment.current = false;
                    self.shared.lock().index.segments.insert(number, segment);
                }
                _ => freed.retain(|freed| freed.place.segment() != number),
            }
        }
        self.punch(&*disk, freed);
        metrics::SPILL_BYTES.set(self.shared.lock().index.held() as i64);
    }

    fn punch(&self, disk: &dyn Disk, mut freed: Vec<Freed>) {
        freed.sort_unstable();
        freed.dedup_by(|next, previous| {
            let joins = next.place.segment() == previous.place.segment()
                && next.place.at() == previous.place.at() + previous.length;
            if joins {
                previous.length += next.length;
            }
            joins
        });
        let mut open: Option<(u64, Arc<dyn DiskFile>)> = None;
        for Freed { place, length } in freed {
            let number = place.segment();
            if open.as_ref().is_none_or(|(last, _)| *last != number) {
                let file = self.shared.lock().index.segments.get(&number).map(|segment| segment.file.clone());
                let Some(file) = file else { continue };
                open = file
                    .or_else(|| Some(Arc::from(disk.open(&segment::name(number)).ok()?)))
                    .map(|f| (number, f));
            }
            let Some((_, file)) = open.as_ref().filter(|(last, _)| *last == number) else { continue };
            if file.punch(place.at(), length).is_ok()
                && let Some(segment) = self.shared.lock().index.segments.get_mut(&number)
            {
                segment.held = segment.held.saturating_sub(length);
            }
        }
    }
}

/// Takes up the segment `number` of an earlier life, its payloads `verified`, its name durable or not.
fn take_up(
    disk: &dyn Disk,
    number: u64,
    verified: bool,
    named: bool,
    index: &mut Index,
    recovery: &mut Recovery,
    freed: &mut Vec<Freed>,
) {
    let name = segment::name(number);
    let walked = disk.open(&name).and_then(|file| Ok((segment::walk(&*file, verified)?, file)));
    let (walk, file) = match walked {
        Ok(walked) => walked,
        Err(error) => {
            recovery.damaged += 1;
            warn!(name, %error, "cannot read a segment of the spill; it is left alone");
            return;
        }
    };
    if walk.future {
        recovery.damaged += 1;
        warn!(name, "a later version wrote this segment of the spill; it is left alone");
        return;
    }
    if walk.damaged > 0 {
        recovery.damaged += walk.damaged;
        warn!(name, frames = walk.damaged, "damaged frames in a segment of the spill");
    }
    if walk.frames.is_empty() && walk.unreadable {
        return;
    }
    let synced = file.sync().is_ok() && named;
    let segment = Segment { held: walk.damaged_bytes, end: walk.end, named, ..Segment::default() };
    index.segments.insert(number, segment);
    for (at, header) in walk.frames {
        let key = index.key(&header.key);
        let place = Place::new(number, at);
        let frame = Frame { place, start: header.start, source: header.source, stored: header.stored };
        index.insert(&key, header.generation, header.ordinal, frame, freed);
    }
    if let Some(segment) = index.segments.get_mut(&number) {
        segment.failed = !synced;
        segment.synced = if synced { segment.end } else { 0 };
    }
}

/// The writing side, for one append at a time.
#[derive(Default)]
struct Writer {
    encoder: Encoder,
    current: Option<Open>,
    space: SpaceLeft,
}

/// The segment that is being written.
struct Open {
    number: u64,
    file: Arc<dyn DiskFile>,
    at: u64,
}

/// What is known of the file system's free space, without asking at every frame.
#[derive(Default)]
struct SpaceLeft {
    low: bool,
    /// Calls until the disk is asked again.
    calls: u32,
    /// Bytes written since it was asked.
    written: u64,
}

impl SpaceLeft {
    fn is_low(&mut self, disk: &dyn Disk, min_free: Percent) -> bool {
        if self.calls == 0 || self.written >= SPACE_BYTES {
            *self = Self { calls: SPACE_CALLS, ..Self::default() };
            // A disk that cannot tell will say at writing what is wrong.
            self.low = disk.space().is_ok_and(|space| {
                u128::from(space.free) * 1_000_000
                    < u128::from(space.total) * u128::from(min_free.millionths())
            });
        }
        self.calls -= 1;
        self.low
    }

    /// What to answer after a failed creation or write.
    fn refused(&mut self, error: io::Error) -> Refused {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                *self = Self { low: true, calls: SPACE_CALLS, written: 0 };
                Refused::LowDisk
            }
            _ => Refused::Failed(error),
        }
    }
}

/// The reading side, for one read at a time.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    /// The frame as it is on disk.
    raw: Vec<u8>,
    /// Log bytes of the frames that were read last, newest first.
    cache: VecDeque<(Place, Vec<u8>)>,
}

impl Reader {
    /// The log bytes of a frame; `None` when it is damaged.
    fn load(
        &mut self,
        disk: &dyn Disk,
        open: Option<Arc<dyn DiskFile>>,
        key: &str,
        ordinal: u64,
        frame: Frame,
    ) -> io::Result<Option<&[u8]>> {
        if let Some(hit) = self.cache.iter().position(|(place, _)| *place == frame.place) {
            self.cache.swap(0, hit);
            return Ok(self.cache.front().map(|(_, bytes)| &bytes[..]));
        }
        let number = frame.place.segment();
        let file = match open {
            Some(file) => file,
            // Not kept open: a segment that is removed would keep its blocks.
            None => Arc::from(disk.open(&segment::name(number))?),
        };
        self.raw.resize(frame.stored as usize, 0);
        match file.read_exact_at(&mut self.raw, frame.place.at()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bytes = match self.cache.len() {
            0..CACHED => Vec::new(),
            _ => self.cache.pop_back().map(|(_, bytes)| bytes).unwrap_or_default(),
        };
        let header = self.decoder.decode(&mut self.raw, &mut bytes)?;
        let asked = |header: &frame::Header| {
            (header.key.as_str(), header.ordinal, header.start, header.source)
                == (key, ordinal, frame.start, frame.source)
        };
        if !header.as_ref().is_some_and(asked) {
            return Ok(None);
        }
        self.cache.push_front((frame.place, bytes));
        Ok(self.cache.front().map(|(_, bytes)| &bytes[..]))
    }
}
