//! One frame of a spill segment: a header, and at most 256 KiB of a log file as one zstd frame.
//!
//! Layout, little endian:
//! `magic(8) version(2) header length(2) header crc32c(4)`, the same in all versions, the checksum over the whole
//! header but itself; then `payload crc32c(4) payload length(4) source length(4) key length(2) mask(1) 0(1)
//! ordinal(8) source start(8) device(8) inode(8) head(8) key`, then the payload.
//! Invariants: no byte sequence makes decoding panic or allocate more than [`MAX_SOURCE`]; the magic stands at a
//! block boundary only where a frame begins, so a log line cannot forge a frame for the one who walks over damage.

use std::io;

use crate::data::position::Generation;

/// Frames begin at multiples of this within a segment, the block size of all usual file systems: a freed frame gives
/// its blocks back whole, and after damage the next frame is found by steps of it.
pub(super) const BLOCK: u64 = 4 << 10;
/// Most log bytes in one frame.
pub(super) const MAX_SOURCE: usize = 256 << 10;
/// Longest key. Kubernetes' names (63 + 253 + 36 + 63 bytes and a number) stay below a quarter of it.
pub(super) const MAX_KEY: usize = 2048;
/// No frame is larger than this, whatever a header claims.
pub(super) const MAX_FRAME: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"NWICKSPL";
const VERSION: u16 = 1;
const FIXED: usize = 72;
const CRC_AT: usize = 12;

/// What stands in a frame's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key: String,
    pub(super) generation: Generation,
    pub(super) ordinal: u64,
    /// Offset of its first byte in the log file.
    pub(super) start: u64,
    /// Log bytes in it, 1 to [`MAX_SOURCE`].
    pub(super) source: u32,
    /// Bytes of header and payload.
    pub(super) stored: u32,
    header: u16,
    payload_crc: u32,
    mask: u8,
}

impl Header {
    /// True when `frame`, which begins with this header, is whole.
    pub(super) fn fits(&self, frame: &[u8]) -> bool {
        frame.len() == self.stored as usize
            && frame.get(usize::from(self.header)..).map(crc32c::crc32c) == Some(self.payload_crc)
    }
}

/// What the beginning of a block is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// A frame begins here.
    Frame(Header),
    /// A frame of a later version begins here.
    Future,
    /// Nothing was written here, or it was given back.
    Hole,
    /// Neither.
    Damaged,
}

/// Bytes that `stored` bytes take on disk.
pub(super) fn rounded(stored: u32) -> u64 {
    u64::from(stored).next_multiple_of(BLOCK)
}

/// Reads a frame's header from its first block, which may be cut short by the end of the file.
pub(super) fn inspect(block: &[u8]) -> Block {
    match header(block) {
        Some(found) => found,
        None if block.iter().all(|&byte| byte == 0) => Block::Hole,
        None => Block::Damaged,
    }
}

fn header(block: &[u8]) -> Option<Block> {
    if block.get(..8)? != MAGIC {
        return None;
    }
    let length = u16_at(block, 10)?;
    let bytes = block.get(..usize::from(length))?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(bytes.get(..CRC_AT)?), bytes.get(CRC_AT + 4..)?);
    if crc != u32_at(bytes, CRC_AT)? {
        return None;
    }
    let version = u16_at(bytes, 8)?;
    if version > VERSION {
        return Some(Block::Future);
    }
    let payload = u32_at(bytes, 20)?;
    let source = u32_at(bytes, 24)?;
    let key = bytes.get(FIXED..FIXED + usize::from(u16_at(bytes, 28)?))?;
    let stored = u32::from(length).checked_add(payload)?;
    let start = u64_at(bytes, 40)?;
    start.checked_add(u64::from(source))?;
    let sound = version == VERSION
        && usize::from(length) == FIXED + key.len()
        && key.len() <= MAX_KEY
        && (1..=MAX_SOURCE).contains(&(source as usize))
        && stored as usize <= MAX_FRAME;
    sound.then(|| {
        Some(Block::Frame(Header {
            key: std::str::from_utf8(key).ok()?.to_owned(),
            generation: Generation {
                device: u64_at(bytes, 48)?,
                inode: u64_at(bytes, 56)?,
                head: u64_at(bytes, 64)?,
            },
            ordinal: u64_at(bytes, 32)?,
            start,
            source,
            stored,
            header: length,
            payload_crc: u32_at(bytes, 16)?,
            mask: bytes[30],
        }))
    })?
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Where the bytes of a frame belong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) key: &'a str,
    pub(super) generation: Generation,
    pub(super) ordinal: u64,
    pub(super) start: u64,
}

/// Makes frames, with one zstd context and one buffer.
#[derive(Default)]
pub(super) struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
}

impl Encoder {
    /// The frame of `bytes`, 1 to [`MAX_SOURCE`] of them, under a key of at most [`MAX_KEY`] bytes.
    pub(super) fn encode(&mut self, target: Target<'_>, bytes: &[u8]) -> io::Result<&[u8]> {
        debug_assert!((1..=MAX_SOURCE).contains(&bytes.len()) && target.key.len() <= MAX_KEY);
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            empty => empty.insert(zstd::bulk::Compressor::new(1)?),
        };
        let header = FIXED + target.key.len();
        let room = header + zstd::zstd_safe::compress_bound(bytes.len());
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let payload = zstd.compress_to_buffer(bytes, &mut self.buffer[header..])?;
        let frame = &mut self.buffer[..header + payload];
        let mask = unmistakable(header, &mut frame[header..]);
        let payload_crc = crc32c::crc32c(&frame[header..]);
        frame[..8].copy_from_slice(MAGIC);
        frame[8..10].copy_from_slice(&VERSION.to_le_bytes());
        frame[10..12].copy_from_slice(&(header as u16).to_le_bytes());
        frame[16..20].copy_from_slice(&payload_crc.to_le_bytes());
        frame[20..24].copy_from_slice(&(payload as u32).to_le_bytes());
        frame[24..28].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        frame[28..30].copy_from_slice(&(target.key.len() as u16).to_le_bytes());
        frame[30] = mask;
        frame[31] = 0;
        let Generation { device, inode, head } = target.generation;
        for (index, word) in [target.ordinal, target.start, device, inode, head].into_iter().enumerate() {
            frame[32 + 8 * index..40 + 8 * index].copy_from_slice(&word.to_le_bytes());
        }
        frame[FIXED..header].copy_from_slice(target.key.as_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[CRC_AT + 4..header]);
        frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Ok(frame)
    }
}

/// Makes sure that the magic stands at no block boundary within `payload`, which begins `header` bytes behind one:
/// incompressible log bytes are stored as they are. The value that every byte was combined with (exclusive or).
fn unmistakable(header: usize, payload: &mut [u8]) -> u8 {
    let block = BLOCK as usize;
    let boundaries = (block - header..payload.len()).step_by(block);
    let shows = |mask: u8| {
        boundaries.clone().any(|at| {
            payload.get(at..at + 8).is_some_and(|bytes| bytes.iter().zip(MAGIC).all(|(a, b)| a ^ mask == *b))
        })
    };
    // A payload has fewer boundaries than there are values.
    let mask = (0..=u8::MAX).find(|&mask| !shows(mask)).unwrap_or(0);
    if mask != 0 {
        payload.iter_mut().for_each(|byte| *byte ^= mask);
    }
    mask
}

/// Reads frames, with one zstd context.
#[derive(Default)]
pub(super) struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// The log bytes of a whole frame go to `out`, in place of what it holds. Its header; `None` when the frame is
    /// damaged.
    pub(super) fn decode(&mut self, frame: &mut [u8], out: &mut Vec<u8>) -> io::Result<Option<Header>> {
        let first = &frame[..frame.len().min(BLOCK as usize)];
        let Block::Frame(header) = inspect(first) else { return Ok(None) };
        if !header.fits(frame) {
            return Ok(None);
        }
        let payload = &mut frame[usize::from(header.header)..];
        if header.mask != 0 {
            payload.iter_mut().for_each(|byte| *byte ^= header.mask);
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            empty => empty.insert(zstd::bulk::Decompressor::new()?),
        };
        out.clear();
        out.reserve_exact(header.source as usize);
        // At most the capacity, whatever the payload says; it was reserved for the header's claim or an earlier one.
        match zstd.decompress_to_buffer(payload, out) {
            Ok(length) if length == header.source as usize => Ok(Some(header)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'static> = Target {
        key: "shop_api-0_1/app/0",
        generation: Generation { device: 1, inode: 2, head: 3 },
        ordinal: 4,
        start: 5,
    };

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(step).collect()
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        for source in [b"x".to_vec(), b"one line\n".repeat(20_000), noise(MAX_SOURCE)] {
            let mut encoder = Encoder::default();
            let mut frame = encoder.encode(TARGET, &source).expect("encode").to_vec();
            let mut out = Vec::new();
            let header = Decoder::default().decode(&mut frame, &mut out).expect("zstd").expect("sound");
            assert_eq!(out, source);
            assert_eq!((header.key.as_str(), header.ordinal, header.start), ("shop_api-0_1/app/0", 4, 5));
            assert_eq!(header.generation, Generation { device: 1, inode: 2, head: 3 });
        }
    }

    #[test]
    fn a_log_cannot_forge_a_frame() {
        let mut encoder = Encoder::default();
        let forged = encoder.encode(TARGET, b"not logged by that pod\n").expect("encode").to_vec();
        let mut hits = 0;
        // zstd stores noise as it is, so at some shift the forged frame stands on a block boundary.
        for shift in 3950..4096 {
            let mut evil = noise(12 << 10);
            evil[shift..shift + forged.len()].copy_from_slice(&forged);
            let mut frame = encoder.encode(TARGET, &evil).expect("encode").to_vec();
            hits += u32::from(frame[30] != 0);
            for block in frame[4096..].chunks(4096) {
                assert_eq!(inspect(block), Block::Damaged);
            }
            let mut out = Vec::new();
            Decoder::default().decode(&mut frame, &mut out).expect("zstd").expect("sound");
            assert!(out == evil);
        }
        assert!(hits > 0, "no shift met a boundary");
    }

    #[test]
    fn a_claim_beyond_the_limits_is_damage() {
        let mut encoder = Encoder::default();
        let frame = encoder.encode(TARGET, b"line\n").expect("encode").to_vec();
        for (at, value) in [(20, 1 << 20), (20, u32::MAX), (24, 0), (24, (256 << 10) + 1), (24, u32::MAX)] {
            let mut bad = frame.clone();
            bad[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            let header = FIXED + TARGET.key.len();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bad[..CRC_AT]), &bad[CRC_AT + 4..header]);
            bad[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(inspect(&bad), Block::Damaged, "{at} {value}");
        }
    }

    #[test]
    fn less_than_the_header_claims_is_damage() {
        let mut encoder = Encoder::default();
        let frame = encoder.encode(TARGET, b"line\n").expect("encode").to_vec();
        for length in 1..frame.len() {
            assert_eq!(
                Decoder::default().decode(&mut frame[..length].to_vec(), &mut Vec::new()).expect("zstd"),
                None
            );
        }
    }
}
