//! A snappy block whose writer says itself what repeats.
//!
//! In: bytes that are new, and where bytes stand that came before. Out: one block that every snappy decoder reads. Whoever
//! writes the series of a page knows which of their labels were there already; a compressor would have to look for them in
//! ten times as many bytes, which would have to be written first.
//! Invariant: the block decompresses to the bytes in the order given; nothing of it is held uncompressed.
//!
//! Source of the format: google/snappy `format_description.txt`: a preamble with the length, then literals and copies.

/// Room for the length that a block begins with.
const PREAMBLE: usize = 5;

/// How far back a copy may be told: its distance has two bytes.
pub(super) const REACH: usize = u16::MAX as usize;

/// Most bytes that one copy gives.
const COPY: usize = 64;

/// A block that is being written.
#[derive(Debug)]
pub(super) struct Block {
    out: Vec<u8>,
    /// New bytes at the end that no element says yet.
    literal: Vec<u8>,
    /// Uncompressed bytes of what elements say.
    told: usize,
}

impl Default for Block {
    fn default() -> Self {
        Self { out: vec![0; PREAMBLE], literal: Vec::new(), told: 0 }
    }
}

impl Block {
    /// Uncompressed bytes so far.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.told + self.literal.len()
    }

    /// Where to append bytes that are new.
    #[inline]
    pub(super) fn new_bytes(&mut self) -> &mut Vec<u8> {
        &mut self.literal
    }

    /// Appends `len` bytes that stand at `from`, at most [`REACH`] back, and have all been written before.
    #[inline]
    pub(super) fn copy(&mut self, from: usize, mut len: usize) {
        let distance = self.len() - from;
        debug_assert!(len <= distance && distance <= REACH, "{len} bytes {distance} back");
        self.tell();
        self.told += len;
        let [low, high] = (distance as u16).to_le_bytes();
        while len > 0 {
            // What is left over is long enough for the short form.
            let now = match len {
                0..=COPY => len,
                65..68 => COPY - 4,
                _ => COPY,
            };
            if (4..12).contains(&now) && high < 8 {
                self.out.extend_from_slice(&[high << 5 | (now as u8 - 4) << 2 | 1, low]);
            } else {
                self.out.extend_from_slice(&[(now as u8 - 1) << 2 | 2, low, high]);
            }
            len -= now;
        }
    }

    /// Says the bytes that are new.
    #[inline]
    fn tell(&mut self) {
        let len = self.literal.len();
        match len {
            0 => return,
            1..=60 => self.out.push((len as u8 - 1) << 2),
            61..=0x100 => self.out.extend_from_slice(&[60 << 2, (len - 1) as u8]),
            _ => {
                let [a, b, c, d] = (len as u32 - 1).to_le_bytes();
                self.out.extend_from_slice(&[63 << 2, a, b, c, d]);
            }
        }
        self.out.extend_from_slice(&self.literal);
        self.told += len;
        self.literal.clear();
    }

    /// The block; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        self.tell();
        let mut preamble = Vec::with_capacity(PREAMBLE);
        super::proto::varint(&mut preamble, self.told as u64);
        let start = PREAMBLE - preamble.len();
        self.out[start..PREAMBLE].copy_from_slice(&preamble);
        let block = self.out[start..].to_vec();
        self.out.truncate(PREAMBLE);
        self.told = 0;
        // A large request is over: what it needed is not needed while little happens.
        self.out.shrink_to(2 * block.len());
        self.literal.shrink_to(REACH);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_has_the_bytes_that_the_format_says() {
        let mut block = Block::default();
        block.new_bytes().extend_from_slice(b"abcdefgh");
        block.copy(2, 4);
        block.copy(0, 12);
        assert_eq!(block.len(), 24);
        // 24; a literal of 8; 4 from 6 back; 12 from 12 back.
        let expected: &[u8] = b"\x18\x1cabcdefgh\x01\x06\x2e\x0c\x00";
        assert_eq!(block.seal(), expected);
        assert_eq!(block.seal(), [0]);
    }

    #[test]
    fn any_decoder_reads_what_was_said() {
        let mut block = Block::default();
        let mut expected: Vec<u8> = Vec::new();
        let mut seed = 7_u32;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        for step in 0..6000 {
            let before = expected.len();
            // Now and then a literal that takes long lengths.
            let len = [random(50), 60 + random(3), 255 + random(4), 70_000]
                [if step % 500 == 0 { 3 } else { step % 3 }];
            let text: Vec<u8> = (0..len).map(|_| random(256) as u8).collect();
            block.new_bytes().extend_from_slice(&text);
            expected.extend_from_slice(&text);
            let distance = (1 + random(REACH)).min(before);
            let from = expected.len() - distance;
            let len = random(200).min(distance);
            block.copy(from, len);
            expected.extend_from_within(from..from + len);
            assert_eq!(block.len(), expected.len());
        }
        let sealed = block.seal();
        let mut decoder = snap::raw::Decoder::new();
        assert!(decoder.decompress_vec(&sealed).expect("a snappy block") == expected);
        block.new_bytes().extend_from_slice(b"again");
        assert_eq!(block.seal(), [&[5, 4 << 2][..], b"again"].concat());
    }
}
