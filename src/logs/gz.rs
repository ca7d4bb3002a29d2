//! A rotated log file that the kubelet has compressed, read as if it were plain.
//!
//! In: a gzip file. Out: its content by offset; the offset in the content is the offset that the plain file had, so
//! a saved position holds in both. Reading goes forward; going back further than 32 KiB starts over. Held between two
//! reads: a decoder (about 64 KiB) and at most 64 KiB of content, and neither before more than the first 32 KiB were asked
//! for nor after the end: a hundred containers have hundreds of such files open. Damage ends the file where it begins.

use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use flate2::bufread::GzDecoder;
use parking_lot::Mutex;
use tracing::warn;

use super::env::Stat;
use crate::metrics;

/// Bytes decompressed at once.
const PIECE: usize = 32 << 10;
/// Bytes of what was handed out that are kept: the caller comes back for a line that was torn at the read's end, and
/// the runtimes write none longer than 16 KiB and its header.
const KEPT: usize = 32 << 10;
/// Compressed bytes read at once.
const COMPRESSED: usize = 16 << 10;
/// Shortest possible gzip file: header and trailer. Source: RFC 1952.
const SHORTEST: u64 = 18;

/// The compressed bytes, from the start.
struct Source {
    file: Arc<OwnedFd>,
    offset: u64,
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = rustix::io::pread(self.file.as_fd(), out, self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

struct State {
    /// `None` until it is needed, and when it has done its work.
    decoder: Option<GzDecoder<BufReader<Source>>>,
    /// Content from `start` on.
    window: Vec<u8>,
    start: u64,
    /// Length of the content: at first what the file's trailer says, in the end what was found.
    size: u64,
    ended: bool,
    /// Damage was found and told.
    damaged: bool,
}

/// An open gzip file.
pub struct Inflate {
    file: Arc<OwnedFd>,
    device: u64,
    inode: u64,
    state: Mutex<State>,
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl Inflate {
    /// Opens the content of a gzip file.
    pub fn new(file: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        let compressed = u64::try_from(stat.st_size).unwrap_or(0);
        if compressed < SHORTEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too short for a gzip file"));
        }
        // The trailer's last field is the content's length modulo 2^32; the kubelet's files are far smaller.
        let mut trailer = [0; 4];
        rustix::io::pread(&file, &mut trailer, compressed - 4)?;
        let file = Arc::new(file);
        let state = State {
            decoder: None,
            window: Vec::new(),
            start: 0,
            size: u64::from(u32::from_le_bytes(trailer)),
            ended: false,
            damaged: false,
        };
        Ok(Self { file, device: stat.st_dev, inode: stat.st_ino, state: Mutex::new(state) })
    }

    /// The compressed file.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.file
    }

    /// The content's facts, with the compressed file's identity.
    pub fn stat(&self) -> Stat {
        #[allow(clippy::unnecessary_cast, reason = "narrower on other architectures")]
        let links = rustix::fs::fstat(&self.file).map_or(1, |stat| stat.st_nlink as u64);
        Stat { device: self.device, inode: self.inode, size: self.state.lock().size, links }
    }

    /// Appends at most `max` bytes of the content from `offset`; 0 at its end.
    pub fn read_at(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> usize {
        let mut state = self.state.lock();
        let state = &mut *state;
        if offset < state.start {
            state.start_over();
        }
        let mut piece = vec![0; PIECE];
        loop {
            let before = offset - state.start;
            if before > 0 {
                let done = state.window.len().min(usize::try_from(before).unwrap_or(usize::MAX));
                state.window.drain(..done);
                state.start += done as u64;
            }
            if state.ended || state.start == offset && state.window.len() >= max {
                break;
            }
            let source = || Source { file: Arc::clone(&self.file), offset: 0 };
            let fresh = || GzDecoder::new(BufReader::with_capacity(COMPRESSED, source()));
            match state.decoder.get_or_insert_with(fresh).read(&mut piece) {
                Ok(0) => state.end(),
                Ok(got) => state.window.extend_from_slice(&piece[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !state.damaged {
                        state.damaged = true;
                        metrics::LOG_GAPS.inc();
                        warn!(inode = self.inode, %error, "compressed log file is damaged; what follows in it is lost");
                    }
                    state.end();
                }
            }
        }
        if state.start != offset {
            return 0;
        }
        let got = state.window.len().min(max);
        out.extend_from_slice(&state.window[..got]);
        state.let_go(got);
        got
    }
}

impl State {
    fn start_over(&mut self) {
        self.decoder = None;
        self.window = Vec::new();
        self.start = 0;
        self.ended = false;
    }

    /// After a read of `got` bytes at the window's start: gives up what the next one will hardly ask for.
    fn let_go(&mut self, got: usize) {
        if self.start + (self.window.len() as u64) <= PIECE as u64 && !self.ended {
            // A look at the file's first line: it may be long until the file's turn comes.
            self.start_over();
            return;
        }
        let done = got.saturating_sub(KEPT);
        self.window.drain(..done);
        self.start += done as u64;
        self.window.shrink_to(self.window.len());
    }

    fn end(&mut self) {
        self.decoder = None;
        self.ended = true;
        self.size = self.start + self.window.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open(bytes: &[u8]) -> io::Result<Inflate> {
        let mut file = tempfile::tempfile().expect("temp file");
        file.write_all(bytes).expect("writes");
        Inflate::new(file.into())
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(content).expect("to memory");
        out.finish().expect("to memory")
    }

    #[test]
    fn content_is_read_by_offset_forward_and_back() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let file = open(&gzip(&content)).expect("opens");
        assert_eq!(file.stat().size, 1_200_000);
        for (offset, max) in
            [(0, 256), (700_001, 100_000), (700_500, 10), (5, 1 << 20), (1_199_999, 10), (1_200_000, 1)]
        {
            let mut out = Vec::new();
            let got = file.read_at(offset, max, &mut out);
            let end = (offset as usize + max).min(content.len());
            assert_eq!(out, content[offset as usize..end], "{offset}");
            assert_eq!(got, out.len());
        }
    }

    #[test]
    fn little_is_held_between_reads() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let file = open(&gzip(&content)).expect("opens");
        let held = || {
            let state = file.state.lock();
            (state.decoder.is_some(), state.window.capacity())
        };
        let mut out = Vec::new();
        file.read_at(0, 4096, &mut out);
        assert_eq!(held(), (false, 0), "a look at the first line");
        let mut offset = 0;
        while offset < content.len() {
            out.clear();
            let got = file.read_at(offset as u64, 256 << 10, &mut out);
            assert_eq!(out, content[offset..offset + got]);
            assert!(held().1 <= KEPT + PIECE, "{} bytes", held().1);
            // As the tail does: the torn line at the end is read again with the next chunk.
            offset = (offset + got - 300).max(offset + 1);
            if offset + 300 == content.len() {
                break;
            }
        }
        assert!(!held().0, "no decoder after the end");
        out.clear();
        assert_eq!(file.read_at(1_200_000, 10, &mut out), 0);
        assert_eq!(held().1, 0, "nothing after the last byte");
    }

    #[test]
    fn damage_ends_the_file_where_it_begins() {
        let content: Vec<u8> =
            (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut bytes = gzip(&content);
        let half = bytes.len() / 2;
        bytes.truncate(half);
        let file = open(&bytes).expect("opens");
        let mut out = Vec::new();
        while file.read_at(out.len() as u64, 10_000, &mut out) > 0 {}
        assert!(!out.is_empty() && content.starts_with(&out));
        assert_eq!(file.stat().size, out.len() as u64);
        assert!(open(b"short").is_err());
    }
}
