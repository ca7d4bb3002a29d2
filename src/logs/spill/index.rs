//! What the spill holds, in memory: the frames of each file of each log, and the segments they are in.
//!
//! In: frames as they are written or found, and what frees them. Out: which frame holds an offset, what stretches
//! there are, how full it is. Pure: it touches no disk.
//! Invariant: a frame is listed once, under its log, and counted as live in its segment as long as it is listed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Stretch;
use super::frame::{self, BLOCK};
use crate::data::position::{Generation, Position};
use crate::logs::chain::same_generation;
use crate::logs::disk::DiskFile;

/// Where a frame begins: its segment and offset. Orders frames by when they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    const FIRST: Self = Self(0);
    const LAST: Self = Self(u64::MAX);
    /// A segment has 4,096 blocks.
    const BITS: u32 = 12;

    pub(super) fn new(segment: u64, at: u64) -> Self {
        Self((segment << Self::BITS) + at / BLOCK)
    }

    pub(super) fn segment(self) -> u64 {
        self.0 >> Self::BITS
    }

    pub(super) fn at(self) -> u64 {
        (self.0 & ((1 << Self::BITS) - 1)) * BLOCK
    }
}

/// A frame in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) place: Place,
    pub(super) start: u64,
    pub(super) source: u32,
    pub(super) stored: u32,
}

impl Frame {
    pub(super) fn end(&self) -> u64 {
        self.start + u64::from(self.source)
    }
}

/// Blocks of a frame that is no longer listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Freed {
    pub(super) place: Place,
    pub(super) length: u64,
}

/// What is at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This frame holds it.
    Frame(Frame),
    /// Nothing does; the next frame begins there.
    Before(u64),
    /// Nothing does, and no frame follows.
    End,
}

#[derive(Debug, Default)]
struct Kept {
    generation: Generation,
    frames: BTreeMap<(u64, Place), (u32, u32)>,
    /// No frame ever listed here has more log bytes.
    longest: u32,
}

impl Kept {
    fn frames(
        &self,
        starts: impl std::ops::RangeBounds<(u64, Place)>,
    ) -> impl DoubleEndedIterator<Item = Frame> {
        self.frames.range(starts).map(|(&(start, place), &(source, stored))| Frame {
            place,
            start,
            source,
            stored,
        })
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = Frame> {
        self.frames(..)
    }

    /// The frames that hold `offset`.
    fn covering(&self, offset: u64) -> impl Iterator<Item = Frame> {
        let earliest = offset.saturating_sub(u64::from(self.longest));
        self.frames((earliest, Place::FIRST)..=(offset, Place::LAST))
            .filter(move |frame| frame.end() > offset)
    }
}

#[derive(Debug, Default)]
struct Log {
    files: BTreeMap<u64, Kept>,
    stored: u64,
}

/// A segment that is on disk.
#[derive(Default)]
pub(super) struct Segment {
    /// Frames in it that are listed.
    pub(super) live: u32,
    /// Bytes on disk.
    pub(super) held: u64,
    /// Exclusive end of its last frame, whole blocks.
    pub(super) end: u64,
    /// What lies before is durable.
    pub(super) synced: u64,
    /// Its name is durable.
    pub(super) named: bool,
    /// A sync failed: it is neither written nor synced any more.
    pub(super) failed: bool,
    /// It is the one that is being written.
    pub(super) current: bool,
    /// Open while it is written or not durable: an error of the system's own writing back is told to the
    /// descriptions that were open then.
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

impl Segment {
    pub(super) fn is_dirty(&self) -> bool {
        !self.failed && self.live > 0 && self.end > self.synced
    }
}

/// The index.
#[derive(Default)]
pub(super) struct Index {
    logs: HashMap<Arc<str>, Log>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Number of the next segment.
    pub(super) next: u64,
    /// Log bytes in all frames.
    source: u64,
}

impl Index {
    /// Frames that are listed.
    pub(super) fn frames(&self) -> u64 {
        self.segments.values().map(|segment| u64::from(segment.live)).sum()
    }

    /// Bytes on disk.
    pub(super) fn held(&self) -> u64 {
        self.segments.values().map(|segment| segment.held).sum()
    }

    /// Log bytes in all frames.
    pub(super) fn source(&self) -> u64 {
        self.source
    }

    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        self.logs.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.logs.len()
    }

    /// The log with the most bytes on disk.
    pub(super) fn largest(&self) -> Option<(Arc<str>, u64)> {
        let (key, log) = self.logs.iter().max_by_key(|(key, log)| (log.stored, *key))?;
        Some((Arc::clone(key), log.stored))
    }

    /// The key as it is kept here.
    pub(super) fn key(&self, key: &str) -> Arc<str> {
        self.logs.get_key_value(key).map_or_else(|| Arc::from(key), |(known, _)| Arc::clone(known))
    }

    /// Segments that nothing listed is in; the current one only if it is `idle`.
    pub(super) fn empty_segments(&self, idle: bool) -> Vec<u64> {
        let empty =
            self.segments.iter().filter(|(_, segment)| segment.live == 0 && (idle || !segment.current));
        empty.map(|(&number, _)| number).collect()
    }

    /// Lists a frame; a file of another generation under that ordinal gives way. False when its segment is gone or
    /// has failed meanwhile.
    pub(super) fn insert(
        &mut self,
        key: &Arc<str>,
        generation: Generation,
        ordinal: u64,
        frame: Frame,
        freed: &mut Vec<Freed>,
    ) -> bool {
        let Some(segment) = self.segments.get_mut(&frame.place.segment()).filter(|segment| !segment.failed)
        else {
            return false;
        };
        let length = frame::rounded(frame.stored);
        segment.live += 1;
        segment.held += length;
        segment.end = segment.end.max(frame.place.at() + length);
        let other = |log: &Log| {
            log.files.get(&ordinal).is_some_and(|kept| !same_generation(&kept.generation, &generation))
        };
        if self.logs.get(key).is_some_and(other) {
            self.free(key, |number, _, _| number == ordinal, freed);
        }
        let log = self.logs.entry(Arc::clone(key)).or_default();
        let kept = log.files.entry(ordinal).or_insert_with(|| Kept { generation, ..Kept::default() });
        if generation.head != 0 {
            kept.generation = generation;
        }
        kept.longest = kept.longest.max(frame.source);
        kept.frames.insert((frame.start, frame.place), (frame.source, frame.stored));
        log.stored += length;
        self.source += u64::from(frame.source);
        true
    }

    /// Lists no more what `gone` says, by ordinal, generation and frame.
    fn free(&mut self, key: &str, gone: impl Fn(u64, Generation, Frame) -> bool, freed: &mut Vec<Freed>) {
        let Some(log) = self.logs.get_mut(key) else { return };
        let Log { files, stored: held } = log;
        files.retain(|&ordinal, kept| {
            let generation = kept.generation;
            kept.frames.retain(|&(start, place), &mut (source, stored)| {
                if !gone(ordinal, generation, Frame { place, start, source, stored }) {
                    return true;
                }
                let length = frame::rounded(stored);
                *held = held.saturating_sub(length);
                self.source = self.source.saturating_sub(u64::from(source));
                if let Some(segment) = self.segments.get_mut(&place.segment()) {
                    segment.live = segment.live.saturating_sub(1);
                }
                freed.push(Freed { place, length });
                false
            });
            !kept.frames.is_empty()
        });
        if log.files.is_empty() {
            self.logs.remove(key);
        }
    }

    /// What lies wholly before `position` less `margin` is done with.
    pub(super) fn release(&mut self, key: &str, position: &Position, margin: u64, freed: &mut Vec<Freed>) {
        let offset = position.offset.saturating_sub(margin);
        let gone = |ordinal: u64, generation, frame: Frame| {
            ordinal < position.ordinal
                || ordinal == position.ordinal
                    && frame.end() <= offset
                    && same_generation(&generation, &position.generation)
        };
        // Asked for every log after every checkpoint: the oldest frame tells whether there is anything to do.
        let first = self.logs.get(key).and_then(|log| log.files.first_key_value());
        let oldest = first.and_then(|(&ordinal, kept)| Some((ordinal, kept.all().next()?)));
        if oldest.is_some_and(|(ordinal, frame)| {
            ordinal < position.ordinal || ordinal == position.ordinal && frame.start <= offset
        }) {
            self.free(key, gone, freed);
        }
    }

    /// Everything of the log is done with.
    pub(super) fn forget(&mut self, key: &str, freed: &mut Vec<Freed>) {
        self.free(key, |_, _, _| true, freed);
    }

    /// Lists no more the frame at `place`; false when it is no longer listed.
    pub(super) fn remove(&mut self, key: &str, ordinal: u64, place: Place, freed: &mut Vec<Freed>) -> bool {
        let before = freed.len();
        self.free(key, |number, _, frame| number == ordinal && frame.place == place, freed);
        freed.len() > before
    }

    /// Lists no more what was appended to segment `number` since it was last synced.
    pub(super) fn drop_unsynced(&mut self, number: u64, freed: &mut Vec<Freed>) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.failed = true;
        segment.file = None;
        let synced = segment.synced;
        let lost = |_, _, frame: Frame| frame.place.segment() == number && frame.place.at() >= synced;
        for key in self.keys() {
            self.free(&key, lost, freed);
        }
    }

    /// Takes frames from `from` on off the list, oldest first and without a hole between them, until `wanted` bytes
    /// are free. The range that no frame holds any more.
    pub(super) fn give_up(
        &mut self,
        key: &str,
        ordinal: u64,
        from: u64,
        wanted: u64,
        freed: &mut Vec<Freed>,
    ) -> Option<std::ops::Range<u64>> {
        let kept = self.logs.get(key)?.files.get(&ordinal)?;
        let mut start = from;
        let mut range: Option<std::ops::Range<u64>> = None;
        let mut bytes = 0;
        for frame in kept.all() {
            match &mut range {
                // What straddles `from`, or such a frame's end, stays whole.
                None if frame.start < start => start = start.max(frame.end()),
                None => {
                    range = Some(frame.start..frame.end());
                    bytes += frame::rounded(frame.stored);
                }
                // A frame that overlaps the range goes with it.
                Some(range) if frame.start < range.end || frame.start == range.end && bytes < wanted => {
                    range.end = range.end.max(frame.end());
                    bytes += frame::rounded(frame.stored);
                }
                Some(_) => break,
            }
        }
        let range = range?;
        let gone = |number, _, frame: Frame| {
            number == ordinal && range.contains(&frame.start) && frame.start >= start
        };
        self.free(key, gone, freed);
        Some(range)
    }

    /// What is at `offset`; of several frames the one written last.
    pub(super) fn find(&self, key: &str, ordinal: u64, offset: u64) -> Found {
        let Some(kept) = self.logs.get(key).and_then(|log| log.files.get(&ordinal)) else {
            return Found::End;
        };
        if let Some(frame) = kept.covering(offset).max_by_key(|frame| frame.place) {
            return Found::Frame(frame);
        }
        match kept.frames((offset, Place::LAST)..).next() {
            Some(frame) => Found::Before(frame.start),
            None => Found::End,
        }
    }

    /// True when every byte from `start` to `end` of that very file is listed.
    pub(super) fn has(&self, key: &str, generation: Generation, ordinal: u64, start: u64, end: u64) -> bool {
        let kept = self.logs.get(key).and_then(|log| log.files.get(&ordinal));
        let Some(kept) = kept.filter(|kept| same_generation(&kept.generation, &generation)) else {
            return false;
        };
        let mut at = start;
        while at < end {
            match kept.covering(at).map(|frame| frame.end()).max() {
                Some(next) => at = next,
                None => return false,
            }
        }
        true
    }

    pub(super) fn stretches(&self, key: &str) -> Vec<Stretch> {
        let mut all: Vec<Stretch> = Vec::new();
        for (&ordinal, kept) in self.logs.get(key).iter().flat_map(|log| &log.files) {
            let first = all.len();
            for frame in kept.all() {
                let durable =
                    self.segments.get(&frame.place.segment()).is_some_and(|s| frame.place.at() < s.synced);
                match all[first..].last_mut().filter(|stretch| stretch.end >= frame.start) {
                    Some(stretch) => {
                        stretch.end = stretch.end.max(frame.end());
                        if durable && stretch.durable_end >= frame.start {
                            stretch.durable_end = stretch.durable_end.max(frame.end());
                        }
                    }
                    None => all.push(Stretch {
                        generation: kept.generation,
                        ordinal,
                        start: frame.start,
                        end: frame.end(),
                        durable_end: if durable { frame.end() } else { frame.start },
                    }),
                }
            }
        }
        all
    }
}
