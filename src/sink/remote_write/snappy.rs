//! A snappy block that is compressed while it is written, 64 KiB at a time.
//!
//! In: bytes, appended. Out: one block that every snappy decoder reads. Snappy looks for repetitions within 64 KiB only, so
//! a request that is compressed in stretches of that length is as small as one that is held whole and compressed at its
//! end, and what is held of it uncompressed is one stretch instead of megabytes.
//! Invariant: the block decompresses to the bytes in the order given.
//!
//! Source of the format: google/snappy `format_description.txt`: elements after the length refer backwards by distance, so
//! the elements of one block may stand behind those of another.

/// Room for the length that a block begins with.
const PREAMBLE: usize = 5;

/// A stretch of this length is compressed; a sample more and it still is no longer than the 64 KiB that snappy looks back.
const FULL: usize = 63 << 10;

/// A block that is being written.
pub(super) struct Block {
    /// What is not compressed yet.
    stretch: Vec<u8>,
    /// Uncompressed bytes of what is.
    before: usize,
    out: Vec<u8>,
    packed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            stretch: Vec::new(),
            before: 0,
            out: vec![0; PREAMBLE],
            packed: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        }
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Block {
    /// Uncompressed bytes so far.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.before + self.stretch.len()
    }

    /// Where to append. What stands in it may be looked at until [`make_room`](Self::make_room) says true.
    #[inline]
    pub(super) fn stretch(&mut self) -> &mut Vec<u8> {
        &mut self.stretch
    }

    /// Compresses the stretch where it is long enough, and begins another one: true.
    #[inline]
    pub(super) fn make_room(&mut self) -> bool {
        let is_full = self.stretch.len() >= FULL;
        if is_full {
            self.compress();
        }
        is_full
    }

    fn compress(&mut self) {
        let bound = snap::raw::max_compress_len(self.stretch.len());
        if self.packed.len() < bound {
            // Zeroed when it grows, and not for each stretch.
            self.packed.resize(bound, 0);
        }
        let written = self
            .encoder
            .compress(&self.stretch, &mut self.packed)
            .expect("the output has the size that snappy asks for");
        let length = self.packed.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
        self.out.extend_from_slice(&self.packed[length..written]);
        self.before += self.stretch.len();
        self.stretch.clear();
    }

    /// The block; this one begins anew.
    pub(super) fn seal(&mut self) -> Vec<u8> {
        if !self.stretch.is_empty() {
            self.compress();
        }
        let mut preamble = Vec::with_capacity(PREAMBLE);
        super::proto::varint(&mut preamble, self.before as u64);
        let start = PREAMBLE - preamble.len();
        self.out[start..PREAMBLE].copy_from_slice(&preamble);
        let block = self.out[start..].to_vec();
        self.out.truncate(PREAMBLE);
        self.before = 0;
        // A large request is over: what it needed is not needed while little happens.
        self.out.shrink_to(2 * block.len());
        if self.stretch.capacity() > 4 * FULL {
            self.stretch = Vec::new();
            self.packed = Vec::new();
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_decoder_reads_a_block_of_many_stretches() {
        let mut block = Block::default();
        let mut expected = Vec::new();
        let mut seed = 7_u32;
        let mut stretches = 0;
        for step in 0..4000_u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Now and then more than snappy looks back at once.
            let len = if step % 997 == 0 { 300_000 } else { seed % 90 + 1 };
            let text: Vec<u8> = (0..len).map(|at| (at ^ seed >> 29) as u8).collect();
            stretches += u32::from(block.make_room());
            block.stretch().extend_from_slice(&text);
            expected.extend_from_slice(&text);
            assert_eq!(block.len(), expected.len());
        }
        assert!(stretches >= 5, "{stretches}");
        let sealed = block.seal();
        let mut decoder = snap::raw::Decoder::new();
        assert!(decoder.decompress_vec(&sealed).expect("a snappy block") == expected);
        let whole = snap::raw::Encoder::new().compress_vec(&expected).expect("compresses");
        assert!(sealed.len() < whole.len() + whole.len() / 50, "{} beside {}", sealed.len(), whole.len());
        block.stretch().extend_from_slice(b"again");
        assert_eq!(block.seal(), [&[5, 4 << 2][..], b"again"].concat());
        assert_eq!(block.seal(), [0]);
    }
}
