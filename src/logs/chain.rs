//! The generations of one container log on disk: the live file and what rotation left beside it.
//!
//! The kubelet renames `0.log` to `0.log.20261122-145107`, the runtime opens a new `0.log`; docker shifts
//! `<id>-json.log` to `.1`, `.1` to `.2`; logrotate has ways of its own ([`Naming`]). Files are known by device, inode
//! and a fingerprint of their beginning, never by name: names move on.
//!
//! The fingerprint of a container's file is that of its first line, whose stamp has nanoseconds. Other files may all
//! begin with the same line, so theirs covers up to [`LEAD`] bytes, and says how many: it grows with the file, and two
//! of them are compared as far as the shorter one goes.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::env::{Entry, Env, Kind, LogFile, OpenError};
use super::files::naming::{Naming, Rotated as RotatedName};
use super::resume::Missing;
use crate::data::position::Generation;

/// Bytes of a file's first line that its fingerprint covers. The CRI stamp and its nanoseconds lie within.
const HEAD: usize = 256;

/// Bytes that the fingerprint of a file covers whose first line may be any line.
const LEAD: usize = 1024;

/// Where in such a fingerprint it stands how many bytes it covers: 1 to 1024, above 53 bits of hash.
const LEAD_SHIFT: u32 = 53;

/// Bytes of a line that was read which are remembered: a stamp and its nanoseconds.
const GLIMPSE: usize = 64;

/// How far before the end of what was read the remembered bytes begin at most: each read begins with them.
const GLIMPSE_REACH: usize = 2 << 10;

/// A few bytes that were read last, to tell by them whether the file is still the one that it was: one that was cut
/// and has outgrown its old length has others in their place.
#[derive(Debug, Clone, Copy)]
pub struct Glimpse {
    at: u64,
    len: u8,
    bytes: [u8; GLIMPSE],
}

impl Default for Glimpse {
    fn default() -> Self {
        Self { at: 0, len: 0, bytes: [0; GLIMPSE] }
    }
}

impl Glimpse {
    /// Remembers where the last line of what was read at `offset` has its stamp: CRI's first, docker's last.
    pub fn of(read: &[u8], offset: u64) -> Self {
        let end = memchr::memrchr(b'\n', read).map_or(read.len(), |newline| newline + 1);
        let start = memchr::memrchr(b'\n', &read[..end.saturating_sub(1)]).map_or(0, |newline| newline + 1);
        let stamp_last = read.get(start) == Some(&b'{') || end - start > GLIMPSE_REACH;
        let from = if stamp_last { end.saturating_sub(GLIMPSE).max(start) } else { start };
        let seen = &read[from..end.min(from + GLIMPSE)];
        let mut bytes = [0; GLIMPSE];
        bytes[..seen.len()].copy_from_slice(seen);
        Self { at: offset + from as u64, len: seen.len() as u8, bytes }
    }

    /// Where a read that goes on at `offset` begins, so that it has the remembered bytes too.
    pub fn begin(&self, offset: u64) -> u64 {
        let near = self.len > 0 && offset.saturating_sub(self.at) <= 2 * GLIMPSE_REACH as u64;
        if near { self.at.min(offset) } else { offset }
    }

    /// True when what was read at `offset` has other bytes where these were.
    pub fn contradicts(&self, read: &[u8], offset: u64) -> bool {
        let seen = &self.bytes[..usize::from(self.len)];
        let Some(skip) = self.at.checked_sub(offset).and_then(|skip| usize::try_from(skip).ok()) else {
            return false;
        };
        read.get(skip..).is_some_and(|there| there.iter().zip(seen).any(|(there, seen)| there != seen))
    }
}

/// One generation, open.
#[derive(Debug)]
pub struct Open<F> {
    /// The file.
    pub file: F,
    /// Who rotates it.
    pub naming: Naming,
    /// Its identity.
    pub generation: Generation,
    /// Its number in the log's life, see [`Position`](crate::data::position::Position).
    pub ordinal: u64,
    /// Where the next read begins.
    pub offset: u64,
    /// Size when last looked at.
    pub size: u64,
    /// The size at which the rest was found to be the piece of a line, which waits for its newline; 0 otherwise.
    pub torn_at: u64,
    /// What was read last.
    pub glimpse: Glimpse,
    /// How often its end was found reached after the next generation had begun.
    pub ends_seen: u8,
    /// When it was first seen without a name: what is not read of it goes with the process.
    pub unlinked_since: Option<Duration>,
    /// What is lost between the file before and this one.
    pub missing_before: Option<Missing>,
}

impl<F: LogFile> Open<F> {
    /// Identifies an open file.
    pub fn new(file: F, naming: Naming) -> Result<Self, OpenError> {
        let stat = file.stat()?;
        let generation = Generation { device: stat.device, inode: stat.inode, head: 0 };
        let mut open = Self::kept(file, naming, generation, 0, 0, stat.size);
        open.learn_head()?;
        Ok(open)
    }

    /// A generation that is known to have `start..size`, as the spill keeps it.
    pub fn kept(
        file: F,
        naming: Naming,
        generation: Generation,
        ordinal: u64,
        start: u64,
        size: u64,
    ) -> Self {
        Self {
            file,
            naming,
            generation,
            ordinal,
            offset: start,
            size,
            torn_at: 0,
            glimpse: Glimpse::default(),
            ends_seen: 0,
            unlinked_since: None,
            missing_before: None,
        }
    }

    /// Takes the fingerprint once the file has enough of its first line.
    pub fn learn_head(&mut self) -> Result<(), OpenError> {
        if self.naming == Naming::Logrotate {
            let covered = lead_len(self.generation.head);
            if covered < LEAD && self.size > covered as u64 {
                self.generation.head = self.read_lead(LEAD)?;
            }
        } else if self.generation.head == 0 && self.size > 0 {
            self.generation.head = self.read_head()?;
        }
        Ok(())
    }

    /// The fingerprint of the first `len` bytes, or of as many as there are.
    fn read_lead(&self, len: usize) -> Result<u64, OpenError> {
        let mut lead = Vec::with_capacity(len);
        self.file.read_at(0, len, &mut lead)?;
        let hash = xxh3_64(&lead) & ((1 << LEAD_SHIFT) - 1);
        Ok(if lead.is_empty() { 0 } else { (lead.len() as u64) << LEAD_SHIFT | hash })
    }

    /// True when the file begins as a generation did. False for a generation that had nothing to be known by.
    pub fn begins_as(&self, wanted: &Generation) -> bool {
        if wanted.head == 0 {
            return false;
        }
        if self.naming != Naming::Logrotate || wanted.head == self.generation.head {
            return wanted.head == self.generation.head;
        }
        let len = lead_len(wanted.head);
        len as u64 <= self.size && self.read_lead(len).is_ok_and(|lead| lead == wanted.head)
    }

    fn read_head(&self) -> Result<u64, OpenError> {
        let mut head = Vec::with_capacity(HEAD);
        self.file.read_at(0, HEAD, &mut head)?;
        let line = match head.iter().position(|byte| *byte == b'\n') {
            Some(end) => &head[..=end],
            None if head.len() == HEAD => &head[..],
            None => return Ok(0),
        };
        Ok(xxh3_64(line).max(1))
    }

    /// True when the file's beginning is another than it was: it was truncated and written anew.
    pub fn head_changed(&self) -> bool {
        if self.naming == Naming::Logrotate {
            return self.generation.head != 0 && !self.still_begins();
        }
        self.generation.head != 0 && self.read_head().is_ok_and(|head| head != self.generation.head)
    }

    fn still_begins(&self) -> bool {
        let known = self.generation.head;
        // What cannot be read now says nothing.
        self.read_lead(lead_len(known)).map_or(true, |lead| lead == known)
    }

    /// Bytes not yet taken.
    pub fn rest(&self) -> u64 {
        self.size.saturating_sub(self.offset)
    }

    /// Bytes worth reading: those not yet taken, unless they are known to be the piece of a line.
    pub fn unread(&self) -> u64 {
        if self.size == self.torn_at { 0 } else { self.rest() }
    }
}

impl<F> Open<F> {
    /// The same generation behind another kind of file.
    pub fn map<G>(self, wrap: impl FnOnce(F) -> G) -> Open<G> {
        Open {
            file: wrap(self.file),
            naming: self.naming,
            generation: self.generation,
            ordinal: self.ordinal,
            offset: self.offset,
            size: self.size,
            torn_at: self.torn_at,
            glimpse: self.glimpse,
            ends_seen: self.ends_seen,
            unlinked_since: self.unlinked_since,
            missing_before: self.missing_before,
        }
    }
}

/// A rotated file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rotated {
    name: RotatedName,
    path: PathBuf,
    /// The kubelet has compressed it.
    gzip: bool,
    /// Who has the name now, for docker's files: their names do not change with a rotation once all are in use.
    inode: u64,
}

/// What rotation left of a log beside its live file, oldest first. `.tmp` files are still being written.
fn rotated<E: Env>(env: &E, live: &Path, naming: Naming) -> Result<Vec<Rotated>, OpenError> {
    let real = if naming == Naming::Docker { env.link_target(live) } else { None };
    let live = real.as_deref().unwrap_or(live);
    let (Some(dir), Some(name)) = (live.parent(), live.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match env.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found: Vec<(RotatedName, bool, PathBuf)> = entries
        .iter()
        .filter(|Entry { kind, .. }| *kind == Kind::File)
        .filter_map(|entry| {
            let (rotated, gzip) = naming.read(name, &entry.name)?;
            Some((rotated, gzip, dir.join(&entry.name)))
        })
        .collect();
    found.sort();
    // For a moment the plain file and its compressed form are both there; the plain one sorts first.
    found.dedup_by(|later, earlier| later.0 == earlier.0);
    let inode = |path: &Path| env.identity(path).map_or(0, |(_, inode)| inode);
    let rotated = |(name, gzip, path): (RotatedName, bool, PathBuf)| {
        let inode = if naming.shifts() { inode(&path) } else { 0 };
        Rotated { name, path, gzip, inode }
    };
    Ok(found.into_iter().map(rotated).collect())
}

/// Which generations to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The plain ones: those that a running agent meets.
    Plain,
    /// Those that the kubelet has compressed too: after a downtime, or for all that is on disk.
    All,
}

/// How often a listing that a rotation overtook is begun again; more than that is for the next look.
const LISTINGS: usize = 5;

/// Opens the generations of a log, oldest first, the live one last.
///
/// A rotation between listing and opening would leave a hole that no later look fills: the file that had the live
/// name when the directory was listed would be missing between its neighbours. So the directory is listed again
/// afterwards, and all is begun anew when the names have moved on.
pub fn open_all<E: Env>(
    env: &E,
    live: &Path,
    naming: Naming,
    which: Which,
) -> Result<VecDeque<Open<E::File>>, OpenError> {
    let mut listed = rotated(env, live, naming)?;
    for _ in 0..LISTINGS {
        let files = open_listed(env, live, naming, &listed, which)?;
        let after = rotated(env, live, naming)?;
        let names =
            |files: &[Rotated]| files.iter().map(|file| (file.name.clone(), file.inode)).collect::<Vec<_>>();
        if names(&after) == names(&listed) {
            return Ok(files);
        }
        listed = after;
    }
    Err(OpenError::Missing)
}

/// Opens what rotation left of a log beside its live file, oldest first, compressed or not.
pub fn open_rotated<E: Env>(
    env: &E,
    live: &Path,
    naming: Naming,
) -> Result<VecDeque<Open<E::File>>, OpenError> {
    open_beside(env, naming, &rotated(env, live, naming)?, Which::All)
}

fn open_beside<E: Env>(
    env: &E,
    naming: Naming,
    listed: &[Rotated],
    which: Which,
) -> Result<VecDeque<Open<E::File>>, OpenError> {
    let mut files: VecDeque<Open<E::File>> = VecDeque::new();
    for Rotated { path, gzip, .. } in listed {
        if *gzip && which == Which::Plain {
            continue;
        }
        let opened = if *gzip { env.open_gzip(path) } else { env.open(path) };
        let opened = match opened {
            // Compressed since it was listed.
            Err(OpenError::Missing) if !gzip => {
                let mut compressed = path.clone().into_os_string();
                compressed.push(".gz");
                env.open_gzip(Path::new(&compressed))
            }
            opened => opened,
        };
        match opened.and_then(|file| Open::new(file, naming)) {
            Ok(file) => files.push_back(file),
            // The system may do it the next time, and without this file there would be a hole.
            Err(OpenError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(OpenError::Io(error));
            }
            // Damaged, no file at all, or gone with a rotation, which the caller finds out.
            Err(_) => {}
        }
    }
    Ok(files)
}

fn open_listed<E: Env>(
    env: &E,
    live: &Path,
    naming: Naming,
    listed: &[Rotated],
    which: Which,
) -> Result<VecDeque<Open<E::File>>, OpenError> {
    let mut files = open_beside(env, naming, listed, which)?;
    let live = match env.open(live) {
        // Whoever writes it may come back to it only with the next line; what it left is there to be read.
        Err(OpenError::Missing) if naming == Naming::Logrotate && !files.is_empty() => return Ok(files),
        opened => Open::new(opened?, naming)?,
    };
    files.retain(|file| !same_file(&file.generation, &live.generation));
    files.push_back(live);
    Ok(files)
}

/// How many bytes a fingerprint covers.
fn lead_len(head: u64) -> usize {
    (head >> LEAD_SHIFT) as usize
}

/// Where among files that were found, oldest first, one that is known stands.
pub fn place<F: LogFile, G: LogFile>(
    known: &Open<F>,
    held: bool,
    found: &VecDeque<Open<G>>,
) -> Option<usize> {
    if known.naming != Naming::Logrotate {
        return found.iter().rposition(|file| is_known(known, held, file));
    }
    // While it is held open nothing else has its number, and a beginning may be that of other files too.
    let held_at = || found.iter().rposition(|file| same_file(&known.generation, &file.generation));
    let at = if held { held_at() } else { None };
    at.or_else(|| found.iter().rposition(|file| is_known(known, held, file)))
}

/// True when a file that was found is a known one, which is `held` open or was left.
pub fn is_known<F: LogFile, G: LogFile>(known: &Open<F>, held: bool, found: &Open<G>) -> bool {
    if known.naming == Naming::Logrotate {
        return (held && same_file(&known.generation, &found.generation))
            || found.size >= known.size && found.begins_as(&known.generation);
    }
    // A number is only given to another file once nobody holds the first one open.
    let same_head = known.generation.head != 0 && known.generation.head == found.generation.head;
    same_head || (held && same_generation(&known.generation, &found.generation))
}

/// True when both are the same stretch of the log, be one of them compressed.
pub fn same_generation(a: &Generation, b: &Generation) -> bool {
    // A file that has no complete line yet, or had none when it was looked at, is known by its inode only.
    if a.head == 0 || b.head == 0 { same_file(a, b) } else { a.head == b.head }
}

/// True when both are the same inode.
pub fn same_file(a: &Generation, b: &Generation) -> bool {
    (a.device, a.inode) == (b.device, b.inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glimpse_lies_on_the_stamp_of_the_last_line() {
        let cri =
            b"2026-11-22T14:51:07.000000001Z stdout F one\n2026-11-22T14:51:07.000000002Z stdout F two\n20";
        let seen = Glimpse::of(cri, 1000);
        assert_eq!((seen.at, seen.begin(1088)), (1044, 1044));
        assert!(!seen.contradicts(&cri[44..], 1044));
        let other = b"2026-11-22T14:51:08.000000002Z stdout F two\n20";
        assert!(seen.contradicts(other, 1044));
        // Nothing is known of bytes that were not read.
        assert!(!seen.contradicts(&other[..10], 1044));
        assert!(!seen.contradicts(other, 1050));
        let docker =
            format!("{{\"log\":\"{}\",\"time\":\"2026-11-22T14:51:07.000000002Z\"}}\n", "x".repeat(300));
        let seen = Glimpse::of(docker.as_bytes(), 0);
        assert_eq!(seen.at as usize, docker.len() - 64);
        assert!(seen.contradicts(docker.replace("07.0", "08.0").as_bytes(), 0));
        assert!(!seen.contradicts(docker.as_bytes(), 0));
        assert_eq!(Glimpse::default().begin(5000), 5000);
        assert!(!Glimpse::default().contradicts(b"any", 0));
        assert_eq!(Glimpse::of(b"", 7).begin(7), 7);
    }
}
