//! Segments: the files `spill.<n>` that frames are appended to, and the walk over one that an earlier life left.
//!
//! In: a file of any content. Out: the frames whose headers are intact, in the order they were written, and what
//! else is there. Invariant: payloads are read only where asked for, holes are leapt over, and damage costs the frames it touches.

use std::io;

use super::frame::{self, BLOCK, Block, Header};
use crate::logs::disk::DiskFile;

/// A segment grows to at most this.
pub(super) const MAX_SEGMENT: u64 = 16 << 20;
/// Bytes read at a time while no frame is in sight.
const STRIDE: u64 = 64 << 10;

const PREFIX: &str = "spill.";
/// No segment has a higher number; one a second would take 30,000 years to get there.
pub(super) const MAX_NUMBER: u64 = 999_999_999_999;

/// The name of segment `number`.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number of the segment of that name, if it is one.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && !(digits.len() > 1 && digits.starts_with('0'));
    if plain { digits.parse().ok().filter(|number| *number <= MAX_NUMBER) } else { None }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Offsets and headers of intact frames.
    pub(super) frames: Vec<(u64, Header)>,
    /// Stretches of damage, each at least one frame.
    pub(super) damaged: u64,
    /// Bytes of those stretches.
    pub(super) damaged_bytes: u64,
    /// Bytes walked, whole blocks.
    pub(super) end: u64,
    /// A later version wrote it.
    pub(super) future: bool,
    /// Something could not be read, which may be for now only.
    pub(super) unreadable: bool,
}

/// Walks over the headers in `file`; a frame whose payload is not as its header says is damage too if `verified`.
pub(super) fn walk(file: &dyn DiskFile, verified: bool) -> io::Result<Walk> {
    let length = file.len()?;
    let end = length.min(MAX_SEGMENT);
    let mut walk = Walk { end: end.next_multiple_of(BLOCK), ..Walk::default() };
    let mut window = Window { file, end, at: 0, bytes: Vec::new() };
    let (mut at, mut in_damage) = (0, false);
    let mut whole = Vec::new();
    let mut short = false;
    while at < end {
        let ahead = if in_damage || short { STRIDE } else { BLOCK };
        let block = match window.block(at, ahead) {
            Ok(block) => frame::inspect(block),
            Err(_) => {
                walk.unreadable = true;
                Block::Damaged
            }
        };
        let was_damage = std::mem::take(&mut in_damage);
        match block {
            Block::Frame(header) if at + u64::from(header.stored) <= end => {
                let length = frame::rounded(header.stored);
                // Where frames are short, the next ones are likely to be in sight as well.
                short = length <= STRIDE / 8;
                if verified {
                    whole.resize(header.stored as usize, 0);
                    // What cannot be read now may be readable later.
                    if file.read_exact_at(&mut whole, at).is_ok() && !header.fits(&whole) {
                        walk.damaged += 1;
                        walk.damaged_bytes += length;
                        at += length;
                        continue;
                    }
                }
                walk.frames.push((at, header));
                at += length;
            }
            Block::Future => {
                walk.future = true;
                return Ok(walk);
            }
            Block::Hole => {
                let data = file.next_data(at + BLOCK).unwrap_or(0);
                at = (data - data % BLOCK).max(at + BLOCK);
            }
            Block::Frame(_) | Block::Damaged => {
                walk.damaged += u64::from(!was_damage);
                walk.damaged_bytes += BLOCK;
                in_damage = true;
                at += BLOCK;
            }
        }
    }
    Ok(walk)
}

/// What was read of the file last.
struct Window<'a> {
    file: &'a dyn DiskFile,
    end: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The block at `at`, read with what follows it up to `ahead` bytes.
    fn block(&mut self, at: u64, ahead: u64) -> io::Result<&[u8]> {
        let wanted = BLOCK.min(self.end - at);
        if at < self.at || at + wanted > self.at + self.bytes.len() as u64 {
            self.bytes.resize(ahead.min(self.end - at) as usize, 0);
            self.at = at;
            let read = self.file.read_exact_at(&mut self.bytes, at);
            if let Err(error) = read {
                // Only one block of it may be bad.
                self.bytes.resize(wanted as usize, 0);
                if ahead == BLOCK || self.file.read_exact_at(&mut self.bytes, at).is_err() {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        let from = (at - self.at) as usize;
        Ok(&self.bytes[from..from + wanted as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(number("spill.0"), Some(0));
        assert_eq!(number("spill.120"), Some(120));
        assert_eq!(number("spill.999999999999"), Some(999_999_999_999));
        for other in [
            "spill.",
            "spill.-1",
            "spill.01",
            "spill.1.tmp",
            "spill.1000000000000",
            "positions.1",
            "spill.+1",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
