//! A snappy block, written element by element by someone who knows what repeats.
//!
//! In: literals, and stretches that stand earlier in the same block. Out: a block that every snappy decoder reads. Metric
//! pages repeat the same labels thousands of times; who knows where they stand need not have them searched for, nor write
//! them at all. Invariant: the block decompresses to the literals and copies in the order given.
//!
//! Source of the format: google/snappy `format_description.txt`.

/// Room for the length that a block begins with.
const PREAMBLE: usize = 5;

/// A block that is being written.
#[derive(Debug)]
pub(super) struct Snappy {
    out: Vec<u8>,
    literal: Vec<u8>,
    /// Offset and length of a copy that may still grow; 0 bytes long when there is none.
    copy: (u32, u32),
    position: u32,
}

impl Default for Snappy {
    fn default() -> Self {
        Self { out: vec![0; PREAMBLE], literal: Vec::new(), copy: (0, 0), position: 0 }
    }
}

impl Snappy {
    /// Uncompressed bytes so far: where the next literal or copy will stand.
    #[inline]
    pub(super) fn position(&self) -> u32 {
        self.position
    }

    /// Where to append literal bytes. What is appended counts once [`end_literal`](Self::end_literal) is told where it began.
    #[inline]
    pub(super) fn literal(&mut self) -> &mut Vec<u8> {
        if self.copy.1 > 0 {
            self.flush_copy();
        }
        &mut self.literal
    }

    /// Counts what was appended to the literal since it was `before` bytes long.
    #[inline]
    pub(super) fn end_literal(&mut self, before: usize) {
        self.position += (self.literal.len() - before) as u32;
    }

    /// Repeats `len` bytes that stand at `from`.
    #[inline]
    pub(super) fn copy(&mut self, from: u32, len: u32) {
        let offset = self.position - from;
        self.position += len;
        if self.copy.0 == offset && self.copy.1 > 0 {
            self.copy.1 += len;
            return;
        }
        if self.copy.1 > 0 {
            self.flush_copy();
        } else {
            self.flush_literal();
        }
        self.copy = (offset, len);
    }

    fn flush_literal(&mut self) {
        let len = self.literal.len();
        if len == 0 {
            return;
        }
        let less = (len - 1) as u32;
        match less {
            0..=59 => self.out.push((less as u8) << 2),
            60..=0xff => self.out.extend_from_slice(&[60 << 2, less as u8]),
            0x100..=0xffff => self.out.extend_from_slice(&[61 << 2, less as u8, (less >> 8) as u8]),
            _ => {
                self.out.push(63 << 2);
                self.out.extend_from_slice(&less.to_le_bytes());
            }
        }
        self.out.extend_from_slice(&self.literal);
        self.literal.clear();
    }

    fn flush_copy(&mut self) {
        let (offset, mut len) = self.copy;
        self.copy = (0, 0);
        while len > 0 {
            if offset < 2048 && (4..=11).contains(&len) {
                self.out.extend_from_slice(&[
                    1 | ((len as u8 - 4) << 2) | (((offset >> 8) as u8) << 5),
                    offset as u8,
                ]);
                return;
            }
            let part = len.min(64);
            let tag = (part as u8 - 1) << 2;
            if offset <= 0xffff {
                self.out.extend_from_slice(&[tag | 2, offset as u8, (offset >> 8) as u8]);
            } else {
                self.out.push(tag | 3);
                self.out.extend_from_slice(&offset.to_le_bytes());
            }
            len -= part;
        }
    }

    /// The block; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        if self.copy.1 > 0 {
            self.flush_copy();
        }
        self.flush_literal();
        let mut preamble = Vec::with_capacity(PREAMBLE);
        super::proto::varint(&mut preamble, u64::from(self.position));
        let start = PREAMBLE - preamble.len();
        self.out[start..PREAMBLE].copy_from_slice(&preamble);
        let block = self.out[start..].to_vec();
        self.out.truncate(PREAMBLE);
        self.position = 0;
        block
    }

    /// Gives memory back that the last blocks did not need.
    pub(super) fn shrink(&mut self, to: usize) {
        self.out.shrink_to(to);
        self.literal.shrink_to(4 << 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(block: &mut Snappy, text: &[u8]) {
        let literal = block.literal();
        let before = literal.len();
        literal.extend_from_slice(text);
        block.end_literal(before);
    }

    #[test]
    fn any_decoder_reads_literals_and_copies_of_every_length_and_distance() {
        let mut block = Snappy::default();
        let mut expected = Vec::new();
        let mut seed = 7_u32;
        for step in 0..4000_u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let len = match step % 97 {
                0 => 70_000,
                1 => 300,
                _ => seed % 90 + 1,
            };
            if step % 3 == 0 {
                let text: Vec<u8> = (0..len).map(|at| (at ^ seed >> 9) as u8).collect();
                append(&mut block, &text);
                expected.extend_from_slice(&text);
            } else {
                let from = (seed >> 3) % expected.len() as u32;
                // May reach into itself, as a run does.
                block.copy(from, len);
                for at in from..from + len {
                    expected.push(expected[at as usize]);
                }
            }
            assert_eq!(block.position() as usize, expected.len());
        }
        let sealed = block.seal();
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&sealed).expect("a snappy block"), expected);
        append(&mut block, b"again");
        assert_eq!(block.seal(), [&[5, 4 << 2][..], b"again"].concat());
        assert_eq!(block.seal(), [0]);
    }

    #[test]
    fn copies_that_continue_each_other_are_one() {
        let mut block = Snappy::default();
        append(&mut block, b"0123456789");
        block.copy(0, 4);
        block.copy(4, 6);
        // Length 20; a literal of 10; one copy of 10 from 10 back.
        assert_eq!(block.seal(), [&[20, 9 << 2][..], b"0123456789", &[1 | 6 << 2, 10]].concat());
    }
}
