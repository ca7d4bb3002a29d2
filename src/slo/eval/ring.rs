//! The samples of one series, packed.
//!
//! In: a value at each tick of a common clock at which the series was there. Out: the same, oldest first.
//! Invariant: what comes out is bit for bit what went in. A counter that rests costs nothing a tick, one that grows a byte
//! or two, anything else nine; chunks that are too old go whole.

use std::collections::VecDeque;

use crate::data::pack::{Reader, Writer};
use crate::data::varint;

/// Bytes after which a chunk is full.
const CHUNK: usize = 120;

/// One step: the same one after the other a sample of the clock's next tick.
const DELTA: u64 = 0;
const REST: u64 = 1;
const GAP: u64 = 2;
const LITERAL: u64 = 3;

/// A series.
#[derive(Debug, Default, Clone)]
pub(super) struct Ring {
    chunks: VecDeque<Chunk>,
}

#[derive(Debug, Clone)]
struct Chunk {
    /// Tick and value of its first sample.
    first: (u64, f64),
    /// Tick and value of its last sample.
    last: (u64, f64),
    /// Samples at its end that have the value before them and no gap, and are not yet written.
    rest: u64,
    steps: Vec<u8>,
}

/// A whole number that a double holds exactly, and that a step can hold.
fn whole(value: f64) -> Option<u64> {
    ((0.0..9e15).contains(&value) && value.fract() == 0.0 && !(value == 0.0 && value.is_sign_negative()))
        .then_some(value as u64)
}

impl Chunk {
    fn new(tick: u64, value: f64) -> Self {
        Self { first: (tick, value), last: (tick, value), rest: 0, steps: Vec::new() }
    }

    fn write(&mut self, kind: u64, argument: u64) {
        let mut number = argument << 2 | kind;
        while number >= 0x80 {
            self.steps.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.steps.push(number as u8);
    }

    fn settle(&mut self) {
        if self.rest > 0 {
            let rest = std::mem::take(&mut self.rest);
            self.write(REST, rest);
        }
    }

    fn push(&mut self, tick: u64, value: f64) {
        let gap = tick - self.last.0 - 1;
        if gap > 0 {
            self.settle();
            self.write(GAP, gap);
        }
        let before = self.last.1;
        self.last = (tick, value);
        if before.to_bits() == value.to_bits() {
            self.rest += 1;
            return;
        }
        self.settle();
        match (whole(before), whole(value)) {
            (Some(before), Some(value)) if value > before => self.write(DELTA, value - before),
            _ => {
                self.write(LITERAL, 0);
                self.steps.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
    }

    fn iter(&self) -> Steps<'_> {
        Steps { steps: &self.steps, tick: self.first.0, value: self.first.1, rest: 1, tail: self.rest }
    }
}

struct Steps<'a> {
    steps: &'a [u8],
    tick: u64,
    value: f64,
    /// Samples of this value that are still to be given, from this tick on.
    rest: u64,
    tail: u64,
}

impl Iterator for Steps<'_> {
    type Item = (u64, f64);

    #[inline]
    fn next(&mut self) -> Option<(u64, f64)> {
        while self.rest == 0 {
            if self.steps.is_empty() {
                if self.tail == 0 {
                    return None;
                }
                self.rest = std::mem::take(&mut self.tail);
                break;
            }
            let number = varint::read(&mut self.steps)?;
            match number & 3 {
                DELTA => {
                    self.value += (number >> 2) as f64;
                    self.rest = 1;
                }
                REST => self.rest = number >> 2,
                GAP => self.tick = self.tick.checked_add(number >> 2)?,
                _ => {
                    let (bytes, rest) = self.steps.split_first_chunk::<8>()?;
                    self.steps = rest;
                    self.value = f64::from_bits(u64::from_le_bytes(*bytes));
                    self.rest = 1;
                }
            }
        }
        self.rest -= 1;
        let sample = (self.tick, self.value);
        self.tick = self.tick.wrapping_add(1);
        Some(sample)
    }
}

impl Ring {
    /// Appends a sample. `false`: it is not newer than the last one, and is not taken.
    pub(super) fn push(&mut self, tick: u64, value: f64) -> bool {
        match self.chunks.back_mut() {
            Some(chunk) if tick <= chunk.last.0 => return false,
            Some(chunk) if chunk.steps.len() < CHUNK => chunk.push(tick, value),
            _ => self.chunks.push_back(Chunk::new(tick, value)),
        }
        true
    }

    /// The samples from tick `from` on.
    pub(super) fn since(&self, from: u64) -> impl Iterator<Item = (u64, f64)> {
        let chunks = self.chunks.iter().skip_while(move |chunk| chunk.last.0 < from);
        chunks.flat_map(Chunk::iter).skip_while(move |(tick, _)| *tick < from)
    }

    /// The newest sample.
    #[cfg(test)]
    pub(super) fn last(&self) -> Option<(u64, f64)> {
        self.chunks.back().map(|chunk| chunk.last)
    }

    /// Forgets chunks that end before tick `from`.
    pub(super) fn forget(&mut self, from: u64) {
        while self.chunks.front().is_some_and(|chunk| chunk.last.0 < from) {
            self.chunks.pop_front();
        }
    }

    /// True when there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunks as bytes.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for chunk in &self.chunks {
            for (tick, value) in [chunk.first, chunk.last] {
                out.number(tick);
                out.float(value);
            }
            out.number(chunk.rest);
            out.bytes(&chunk.steps);
        }
        out.0
    }

    /// The chunks from bytes.
    pub(super) fn restore(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let mut chunks = VecDeque::new();
        while !from.0.is_empty() {
            let first = (from.number()?, from.float()?);
            let last = (from.number()?, from.float()?);
            let rest = from.number()?;
            chunks.push_back(Chunk { first, last, rest, steps: from.bytes()?.to_vec() });
        }
        Some(Self { chunks })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| size_of::<Chunk>() + chunk.steps.capacity()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(samples: &[(u64, f64)]) -> Ring {
        let mut ring = Ring::default();
        samples.iter().for_each(|&(tick, value)| assert!(ring.push(tick, value)));
        ring
    }

    #[test]
    fn what_went_in_comes_out() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let samples = [
            (3, 0.0),
            (4, 0.0),
            (5, 7.0),
            (6, 1e15),
            (9, 1e15),
            (10, 2.5),
            (11, 2.5),
            (12, stale),
            (13, stale),
            (40, 3.0),
            (41, 1.0),
            (42, -0.0),
            (43, 0.0),
            (44, f64::INFINITY),
        ];
        let bits = |samples: &mut dyn Iterator<Item = (u64, f64)>| {
            samples.map(|(tick, value)| (tick, value.to_bits())).collect::<Vec<_>>()
        };
        let ring = filled(&samples);
        assert_eq!(bits(&mut ring.since(0)), bits(&mut samples.into_iter()));
        assert_eq!(bits(&mut ring.since(11)), bits(&mut samples.into_iter().skip(6)));
        assert_eq!(ring.last().map(|(tick, _)| tick), Some(44));
    }

    #[test]
    fn a_resting_counter_costs_nothing_and_a_busy_one_two_bytes() {
        let resting = filled(&(0..1_440).map(|tick| (tick, 5.0)).collect::<Vec<_>>());
        assert!(resting.bytes() < 100, "{}", resting.bytes());
        let busy = filled(&(0..1_440).map(|tick| (tick, (tick * 400) as f64)).collect::<Vec<_>>());
        assert!(busy.bytes() < 1_440 * 4, "{}", busy.bytes());
        assert_eq!(busy.since(0).count(), 1_440);
        assert!(busy.since(0).all(|(tick, value)| value == (tick * 400) as f64));
    }

    #[test]
    fn old_chunks_go_whole_and_order_is_kept() {
        let mut ring = filled(&(0..1_000).map(|tick| (tick, (tick * 3) as f64)).collect::<Vec<_>>());
        ring.forget(500);
        let first = ring.since(0).next().expect("a sample");
        assert!(first.0 <= 500 && first.0 > 250 && first.1 == (first.0 * 3) as f64, "{first:?}");
        assert_eq!(ring.since(700).next(), Some((700, 2_100.0)));
        assert!(!ring.push(999, 1.0));
        ring.forget(2_000);
        assert!(ring.is_empty());
    }
}
