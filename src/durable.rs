//! A file of the state directory that is there as a whole or not at all.
//!
//! In: bytes under a [`Form`]: a magic, a version, a limit. Out: `magic(8) version(4) plain length(4) crc32c(4)`, little
//! endian, then the payload packed by zstd; the checksum covers all but itself. Invariant: a new file takes the old
//! one's place by renaming, after it is durable, and never through a link that somebody left there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const HEADER: usize = 20;

/// What a file is.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Its first bytes.
    pub magic: &'static [u8; 8],
    /// Version of what is in it.
    pub version: u32,
    /// Bytes that there are at most, packed or plain.
    pub most: usize,
}

/// Why bytes are no file of a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Another file.
    #[error("it is no file of this kind")]
    Foreign,
    /// Another version of this file.
    #[error("it is of another version")]
    Version,
    /// Bits have changed, or bytes are missing.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum holds and the content does not.
    #[error("it breaks off")]
    Short,
}

impl Form {
    /// The bytes of a file with this content. `None`: it would be too much.
    pub fn pack(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let length = u32::try_from(plain.len()).ok().filter(|_| plain.len() <= self.most)?;
        let packed = zstd::bulk::compress(plain, 1).ok()?;
        let mut bytes = Vec::with_capacity(HEADER + packed.len());
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &packed);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(&packed);
        Some(bytes)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// What is wrong with it; then nothing of it may be believed.
    pub fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>, Damage> {
        if bytes.len() < HEADER || bytes.len() > HEADER + self.most || &bytes[..8] != self.magic {
            return Err(Damage::Foreign);
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if number(8) != self.version {
            return Err(Damage::Version);
        }
        let checked = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[HEADER..]);
        if number(16) != checked || number(12) as usize > self.most {
            return Err(Damage::Checksum);
        }
        zstd::bulk::decompress(&bytes[HEADER..], number(12) as usize).map_err(|_| Damage::Short)
    }

    /// Reads a file: never through a link, and no more of it than may be believed.
    ///
    /// # Errors
    /// As opening and reading; damage is [`io::ErrorKind::InvalidData`].
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut bytes = Vec::new();
        file.take((HEADER + self.most) as u64 + 1).read_to_end(&mut bytes)?;
        self.unpack(&bytes).map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage))
    }

    /// Writes a file in the place of the one of that name.
    ///
    /// # Errors
    /// As writing; too much content is [`io::ErrorKind::InvalidData`]. Then the old file is as it was.
    pub fn write(&self, dir: &Path, name: &str, plain: &[u8]) -> io::Result<()> {
        let too_much = || io::Error::new(io::ErrorKind::InvalidData, "there is too much to keep");
        replace(dir, name, &self.pack(plain).ok_or_else(too_much)?)
    }
}

/// Puts a file in the place of the one called `name`; it is durable when this returns.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    // Never through a link that somebody left there.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { magic: b"NWICKTST", version: 3, most: 64 };

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        FORM.write(dir.path(), "x.state", b"first").expect("written");
        FORM.write(dir.path(), "x.state", b"second").expect("written again");
        assert_eq!(FORM.read(&dir.path().join("x.state")).expect("read"), b"second");
        let names: Vec<_> = fs::read_dir(dir.path()).expect("listed").collect();
        assert_eq!(names.len(), 1, "the temporary file is gone");
    }

    #[test]
    fn a_file_that_another_program_or_a_bad_disk_left_is_told_apart() {
        let good = FORM.pack(b"content").expect("packed");
        assert_eq!(&good[..16], b"NWICKTST\x03\0\0\0\x07\0\0\0");
        assert_eq!(FORM.unpack(&good), Ok(b"content".to_vec()));
        assert_eq!(FORM.unpack(b"short"), Err(Damage::Foreign));
        assert_eq!(Form { version: 4, ..FORM }.unpack(&good), Err(Damage::Version));
        for at in [9, 13, 17, 20, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(FORM.unpack(&bad).is_err(), "byte {at}");
        }
        assert_eq!(FORM.pack(&[0; 65]), None);
    }

    #[test]
    fn nothing_is_read_or_written_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let victim = dir.path().join("victim");
        fs::write(&victim, "kept").expect("written");
        std::os::unix::fs::symlink(&victim, dir.path().join("x.state.new")).expect("linked");
        std::os::unix::fs::symlink(&victim, dir.path().join("y.state")).expect("linked");
        FORM.write(dir.path(), "x.state", b"plain").expect("written");
        assert_eq!(fs::read(&victim).expect("read"), b"kept");
        assert!(FORM.read(&dir.path().join("y.state")).is_err());
    }
}
