//! The checkpoint: how far each container log is acknowledged, on disk, never torn.
//!
//! On disk: files `positions.<n>` in the state directory, usually one. A file is two slots of equal size, each
//! `magic(8) version(4) length(4) sequence(8) crc32c(4) payload`, little endian; the checksum covers everything
//! of the slot but itself. Slots are overwritten in turn in place and made durable by fdatasync, so a torn write
//! leaves the other slot whole, nothing is renamed, and a full disk cannot stop it: the file is preallocated.
//!
//! A new file is begun when the payload outgrows its slot, and after any failed write or sync: what the kernel
//! did with the pages of a failed sync is unknown, so that file is never trusted again. Older files are removed
//! once the new one is durable. A start begins a new file too; where none can be made, as on a full disk, it goes
//! on in the older slot of the file that it found.
//!
//! A payload (version 2) is its plain length and then, packed by zstd to half or less, a table of what records carry and
//! one entry a log, each with its length before it, so that a later version may append: `count, traits…, entries…`,
//! numbers as LEB128. An entry is the log's key and some 30
//! bytes, and 30 for each file that waits; the traits of a workload are in the table once, however many of its
//! containers share them, in about 300 bytes, in 14 KiB at most. Version 1, which kept the service name and the
//! environment in each entry and nothing else, is read.
//!
//! Reading takes the intact slot with the highest sequence over all files. Without any, every log on disk is
//! read again: duplicates, no loss. Opening never fails for what a file holds.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tracing::warn;

use super::disk::{Disk, DiskFile};
use crate::data::pods::Traits;
use crate::data::position::{Generation, Position, Skipping};
use crate::data::varint;

const PREFIX: &str = "positions.";
const MAGIC: &[u8; 8] = b"NWICKPOS";
const VERSION: u32 = 2;
/// The oldest that is read.
const FIRST_VERSION: u32 = 1;
const HEADER: usize = 28;
/// Slot size of a new file; grown by doubling. 64 KiB hold about 1,000 container logs.
const MIN_SLOT: u64 = 64 << 10;
/// No store counts as far as this, in sequences or files; what claims more is damaged.
const MAX_COUNT: u64 = u64::MAX / 2;
/// No slot is read beyond this, whatever a file claims.
const MAX_SLOT: u64 = 64 << 20;

/// What the checkpoint says of one container log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// The end of what is acknowledged.
    pub position: Position,
    /// What the log's lines went out with: a stream's labels never change under it.
    pub traits: Arc<Traits>,
    /// Whether its service name was a guess.
    pub service_name_guessed: bool,
    /// `traits` is all of it. Not so in a mark of version 1, which knew the service name and the environment only.
    pub whole: bool,
    /// The log's last words have been told, or there are none to tell.
    pub last_words_told: bool,
    /// The log is not shipped, by the word of an annotation: when that is taken back, it goes on at its end.
    pub excluded: bool,
    /// The files of the log from the position's on, oldest first, as they were last seen; empty when the position's
    /// is the newest. With it, a file that was deleted while the agent was away is told as lost, in bytes.
    pub files: Vec<Seen>,
}

/// A file of a log that is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The file.
    pub generation: Generation,
    /// Its number in the log's life.
    pub ordinal: u64,
    /// Its size.
    pub size: u64,
}

/// Marks by log key (`<ns>_<pod>_<uid>/<container>/<restart>`).
pub type Marks = HashMap<String, Mark>;

/// What opening found.
#[derive(Debug, Default)]
pub struct Opened {
    /// The newest intact marks.
    pub marks: Marks,
    /// True when there was a checkpoint of any kind, readable or not: this is not the first start.
    pub any: bool,
    /// Files of which no slot was intact.
    pub corrupt: Vec<String>,
}

struct Current {
    file: Box<dyn DiskFile>,
    number: u64,
    slot: u64,
    next: u64,
}

/// Writes checkpoints into a state directory.
pub struct Store {
    disk: Arc<dyn Disk>,
    sequence: u64,
    /// Number for the next new file.
    number: u64,
    current: Option<Current>,
    /// The file of an earlier life, whose older slot serves when the disk has no room for a new file.
    found: Option<Current>,
    buffer: Vec<u8>,
}

impl Store {
    /// Opens the checkpoint on `disk` and reads it. An error means that the directory cannot be listed.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<(Self, Opened)> {
        let mut opened = Opened::default();
        let mut newest = 0;
        let mut number = 0_u64;
        let mut found = None;
        for name in disk.list()? {
            let Some(n) = number_of(&name) else { continue };
            opened.any = true;
            number = number.max(n + 1);
            let slots = read_file(&*disk, &name).unwrap_or_default();
            if slots.is_empty() {
                opened.corrupt.push(name);
                continue;
            }
            for (sequence, place, marks) in slots {
                if sequence >= newest {
                    newest = sequence;
                    opened.marks = marks;
                    found = Some((name.clone(), n, place));
                }
            }
        }
        let found = found.and_then(|(name, number, place)| {
            let file = disk.open(&name).ok()?;
            let slot = file.len().ok()? / 2;
            Some(Current { file, number, slot, next: place ^ 1 })
        });
        let store = Self { disk, sequence: newest + 1, number, current: None, found, buffer: Vec::new() };
        Ok((store, opened))
    }

    /// Makes `marks` durable. After an error the next call begins a new file.
    pub fn write<'a>(&mut self, marks: impl Iterator<Item = (&'a str, &'a Mark)>) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        encode(self.sequence, marks, &mut buffer);
        let result = self.write_slot(&buffer);
        self.buffer = buffer;
        if result.is_err() {
            self.current = None;
        } else {
            self.sequence += 1;
        }
        result
    }

    /// Bytes written per checkpoint, last time.
    pub fn last_len(&self) -> usize {
        self.buffer.len()
    }

    fn write_slot(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        if let Some(current) = &mut self.current
            && len <= current.slot
        {
            current.file.write_all_at(bytes, current.next * current.slot)?;
            current.file.sync()?;
            current.next ^= 1;
            return Ok(());
        }
        let begun = self.begin_file(bytes);
        if let Err(error) = &begun
            && let Some(found) = self.found.take_if(|found| len <= found.slot)
        {
            // What its newer slot holds may still be in memory only: never are both slots at stake.
            let written = (found.file.sync())
                .and_then(|()| found.file.write_all_at(bytes, found.next * found.slot))
                .and_then(|()| found.file.sync());
            return match written {
                Ok(()) => {
                    warn!(%error, "cannot begin a new checkpoint file; going on in the one that is there");
                    self.current = Some(Current { next: found.next ^ 1, ..found });
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        begun
    }

    fn begin_file(&mut self, bytes: &[u8]) -> io::Result<()> {
        let slot = (bytes.len() as u64 * 2).next_power_of_two().max(MIN_SLOT);
        let number = self.number;
        self.number += 1;
        let name = format!("{PREFIX}{number}");
        let file = self.disk.create(&name, slot * 2)?;
        let prepared = file.write_all_at(bytes, 0).and_then(|()| file.sync()).and_then(|()| self.disk.sync());
        if let Err(error) = prepared {
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        self.current = Some(Current { file, number, slot, next: 1 });
        self.found = None;
        self.remove_others(number);
        Ok(())
    }

    fn remove_others(&self, keep: u64) {
        for name in self.disk.list().unwrap_or_default() {
            if number_of(&name).is_some_and(|number| number != keep) {
                let _ = self.disk.remove(&name);
            }
        }
    }

    /// Number of the file in use, for tests and support.
    pub fn file_number(&self) -> Option<u64> {
        self.current.as_ref().map(|current| current.number)
    }
}

/// Reads the checkpoint of a state directory that an agent may hold: nothing there is touched.
pub fn read(dir: &std::path::Path) -> io::Result<Opened> {
    let disk = super::disk::OsDisk::new(dir);
    Store::open(Arc::new(disk)).map(|(_, opened)| opened)
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok().filter(|number| *number < MAX_COUNT)
}

/// The intact slots of a file, at most two: sequence, place (0 or 1) and marks.
fn read_file(disk: &dyn Disk, name: &str) -> io::Result<Vec<(u64, u64, Marks)>> {
    let file = disk.open(name)?;
    let slot = file.len()? / 2;
    let mut found = Vec::new();
    if !(HEADER as u64..=MAX_SLOT).contains(&slot) {
        return Ok(found);
    }
    for place in 0..2 {
        // Only what the header promises: a large file of anything else takes no memory.
        let mut bytes = vec![0; HEADER];
        if file.read_exact_at(&mut bytes, place * slot).is_err() {
            continue;
        }
        let Some(len) = payload_len(&bytes).filter(|len| (HEADER + len) as u64 <= slot) else { continue };
        bytes.resize(HEADER + len, 0);
        if file.read_exact_at(&mut bytes, place * slot).is_ok()
            && let Some((sequence, marks)) = decode(&bytes)
        {
            found.push((sequence, place, marks));
        }
    }
    Ok(found)
}

/// Bytes behind the header of a slot of ours.
fn payload_len(header: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let known = (FIRST_VERSION..=VERSION).contains(&number(8)?);
    (header.starts_with(MAGIC) && known).then_some(number(12)? as usize)
}

fn encode<'a>(sequence: u64, marks: impl Iterator<Item = (&'a str, &'a Mark)>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut entry = Vec::with_capacity(160);
    let mut entries = Vec::with_capacity(out.capacity());
    let mut table: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut traits = Vec::new();
    for (key, mark) in marks {
        put_traits(&mut entry, &mark.traits);
        let place = table.len() as u64;
        let place = match table.get(&entry) {
            Some(place) => *place,
            None => {
                varint::write(&mut traits, entry.len() as u64);
                traits.extend_from_slice(&entry);
                table.insert(entry.clone(), place);
                place
            }
        };
        entry.clear();
        let Position { generation, ordinal, offset, skipping } = mark.position;
        put_text(&mut entry, key);
        put_generation(&mut entry, generation);
        varint::write(&mut entry, offset);
        let flags = u64::from(mark.service_name_guessed)
            | u64::from(mark.last_words_told) << 2
            | u64::from(mark.whole) << 3
            | u64::from(mark.excluded) << 4;
        varint::write(&mut entry, u64::from(skipping.0));
        varint::write(&mut entry, flags);
        varint::write(&mut entry, place);
        varint::write(&mut entry, ordinal);
        varint::write(&mut entry, mark.files.len() as u64);
        for seen in &mark.files {
            put_generation(&mut entry, seen.generation);
            varint::write(&mut entry, seen.ordinal);
            varint::write(&mut entry, seen.size);
        }
        // The length lets a later version append to an entry.
        varint::write(&mut entries, entry.len() as u64);
        entries.extend_from_slice(&entry);
        entry.clear();
    }
    let mut plain = Vec::with_capacity(10 + traits.len() + entries.len());
    varint::write(&mut plain, table.len() as u64);
    plain.append(&mut traits);
    plain.append(&mut entries);
    varint::write(out, plain.len() as u64);
    out.resize(out.len() + zstd::zstd_safe::compress_bound(plain.len()), 0);
    let begin = out.len() - zstd::zstd_safe::compress_bound(plain.len());
    let packed = zstd::bulk::compress_to_buffer(&plain, &mut out[begin..], 1);
    out.truncate(begin + packed.expect("a buffer of the bound's size takes everything"));
    let len = (out.len() - HEADER) as u32;
    out[12..16].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(out);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(slot: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..24]), &slot[HEADER..])
}

fn decode(slot: &[u8]) -> Option<(u64, Marks)> {
    let header = slot.get(..HEADER)?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let slot = slot.get(..HEADER + payload_len(header)?)?;
    if checksum(slot) != number(24)? {
        return None;
    }
    let sequence = u64::from_le_bytes(header[16..24].try_into().ok()?);
    if sequence > MAX_COUNT {
        return None;
    }
    let mut rest = &slot[HEADER..];
    if number(8)? == FIRST_VERSION {
        return Some((sequence, decode_first(&mut rest)?));
    }
    let len = varint::read(&mut rest)?;
    // Text and numbers pack to a third or a fourth; what claims much more is damaged.
    if len > MAX_SLOT {
        return None;
    }
    let plain = zstd::bulk::decompress(rest, len as usize).ok()?;
    Some((sequence, decode_marks(&mut plain.as_slice())?))
}

fn decode_marks(rest: &mut &[u8]) -> Option<Marks> {
    let mut table = Vec::new();
    for _ in 0..varint::read(rest)? {
        let mut entry = take_entry(rest)?;
        table.push(Arc::new(take_traits(&mut entry)?));
    }
    let mut marks = Marks::new();
    while !rest.is_empty() {
        let mut entry = take_entry(rest)?;
        let key = take_text(&mut entry)?;
        let generation = take_generation(&mut entry)?;
        let offset = varint::read(&mut entry)?;
        let skipping = Skipping(varint::read(&mut entry)? as u8);
        let flags = varint::read(&mut entry)?;
        let traits = table.get(usize::try_from(varint::read(&mut entry)?).ok()?)?;
        let ordinal = varint::read(&mut entry)?;
        let mut files = Vec::new();
        for _ in 0..varint::read(&mut entry)? {
            files.push(take_seen(&mut entry)?);
        }
        let mark = Mark {
            position: Position { generation, ordinal, offset, skipping },
            traits: Arc::clone(traits),
            service_name_guessed: flags & 1 != 0,
            whole: flags & 8 != 0,
            last_words_told: flags & 4 != 0,
            excluded: flags & 16 != 0,
            files,
        };
        marks.insert(key, mark);
    }
    Some(marks)
}

/// Reads entries of version 1.
fn decode_first(rest: &mut &[u8]) -> Option<Marks> {
    let mut marks = Marks::new();
    while !rest.is_empty() {
        let mut entry = take_entry(rest)?;
        let key = take_text(&mut entry)?;
        let generation = take_generation(&mut entry)?;
        let offset = varint::read(&mut entry)?;
        let skipping = Skipping(varint::read(&mut entry)? as u8);
        let flags = varint::read(&mut entry)?;
        let service_name = take_text(&mut entry)?;
        let environment = take_text(&mut entry)?;
        let ordinal = if entry.is_empty() { 0 } else { varint::read(&mut entry)? };
        let mut files = Vec::new();
        while !entry.is_empty() {
            files.push(take_seen(&mut entry)?);
        }
        let environment = (flags & 2 != 0).then_some(environment);
        let mark = Mark {
            position: Position { generation, ordinal, offset, skipping },
            traits: Arc::new(Traits { service_name, environment, ..Traits::default() }),
            service_name_guessed: flags & 1 != 0,
            last_words_told: flags & 4 != 0,
            files,
            ..Mark::default()
        };
        marks.insert(key, mark);
    }
    Some(marks)
}

/// The next piece that has its length before it.
fn take_entry<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::read(bytes)?).ok()?;
    let (entry, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(entry)
}

fn take_seen(bytes: &mut &[u8]) -> Option<Seen> {
    Some(Seen {
        generation: take_generation(bytes)?,
        ordinal: varint::read(bytes)?,
        size: varint::read(bytes)?,
    })
}

fn put_traits(out: &mut Vec<u8>, traits: &Traits) {
    let Traits { service_name, service_version, environment, labels, attributes, tenant } = traits;
    put_text(out, service_name);
    for text in [service_version, environment, tenant] {
        varint::write(out, u64::from(text.is_some()));
        put_text(out, text.as_deref().unwrap_or(""));
    }
    for pairs in [labels, attributes] {
        varint::write(out, pairs.len() as u64);
        for (name, value) in pairs {
            put_text(out, name);
            put_text(out, value);
        }
    }
}

fn take_traits(bytes: &mut &[u8]) -> Option<Traits> {
    let mut traits = Traits { service_name: take_text(bytes)?, ..Traits::default() };
    for place in [&mut traits.service_version, &mut traits.environment, &mut traits.tenant] {
        let set = varint::read(bytes)? != 0;
        *place = Some(take_text(bytes)?).filter(|_| set);
    }
    for pairs in [&mut traits.labels, &mut traits.attributes] {
        for _ in 0..varint::read(bytes)? {
            pairs.push((take_text(bytes)?, take_text(bytes)?));
        }
    }
    Some(traits)
}

fn put_generation(out: &mut Vec<u8>, generation: Generation) {
    for number in [generation.device, generation.inode, generation.head] {
        varint::write(out, number);
    }
}

fn take_generation(bytes: &mut &[u8]) -> Option<Generation> {
    Some(Generation { device: varint::read(bytes)?, inode: varint::read(bytes)?, head: varint::read(bytes)? })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::write(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::try_from(varint::read(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::disk::OsDisk;

    /// A slot of version 1.
    const FIRST: &[u8] =
        b"NWICKPOS\x01\x00\x00\x00=\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x8cH\x1c\xc1<\x17sho\
          p_checkout_uid/api/0B\xd2\x09c\xac\x02\x02\x07\x08checkout\x04prod\x03B\xd2\x09c\x03\xe8\
          \x07B\xd3\x09\x01\x04\x05";

    fn open(dir: &tempfile::TempDir) -> (Store, Opened) {
        Store::open(Arc::new(OsDisk::new(dir.path()))).expect("opens")
    }

    fn marks(offset: u64) -> Marks {
        let mark = Mark {
            position: Position {
                generation: Generation { device: 66, inode: 1234, head: u64::MAX },
                ordinal: 3,
                offset,
                skipping: Skipping(2),
            },
            traits: Arc::new(Traits {
                service_name: "checkout".into(),
                service_version: Some(String::new()),
                environment: Some("prod".into()),
                labels: vec![("team".into(), "money".into())],
                attributes: vec![
                    ("k8s.deployment.name".into(), "checkout".into()),
                    ("service.namespace".into(), "shop".into()),
                ],
                tenant: Some("shop".into()),
            }),
            service_name_guessed: true,
            whole: true,
            last_words_told: true,
            excluded: offset.is_multiple_of(20),
            files: vec![
                Seen {
                    generation: Generation { device: 66, inode: 1235, head: 1 },
                    ordinal: 3,
                    size: 10 << 20,
                },
                Seen { generation: Generation::default(), ordinal: 4, size: 0 },
            ],
        };
        Marks::from([("shop_checkout_uid/api/0".to_owned(), mark)])
    }

    fn write(store: &mut Store, marks: &Marks) {
        store.write(marks.iter().map(|(key, mark)| (key.as_str(), mark))).expect("writable");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut store, opened) = open(&dir);
        assert!(opened.marks.is_empty());
        for offset in [10, 20, 30] {
            write(&mut store, &marks(offset));
        }
        let (_, opened) = open(&dir);
        assert_eq!(opened.marks, marks(30));
        assert!(opened.corrupt.is_empty());
    }

    #[test]
    fn a_checkpoint_of_version_1_is_read() {
        // Written by the first version: one log with a backlog in two files.
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("positions.4"), [FIRST, &[0; FIRST.len()]].concat()).expect("writes");
        let (_, opened) = open(&dir);
        assert!(opened.corrupt.is_empty());
        let seen = |inode, head, ordinal, size| Seen {
            generation: Generation { device: 66, inode, head },
            ordinal,
            size,
        };
        let mark = Mark {
            position: Position {
                generation: Generation { device: 66, inode: 1234, head: 99 },
                ordinal: 3,
                offset: 300,
                skipping: Skipping(2),
            },
            traits: Arc::new(Traits {
                service_name: "checkout".into(),
                environment: Some("prod".into()),
                ..Traits::default()
            }),
            service_name_guessed: true,
            last_words_told: true,
            files: vec![seen(1234, 99, 3, 1000), seen(1235, 1, 4, 5)],
            ..Mark::default()
        };
        assert_eq!(opened.marks, Marks::from([("shop_checkout_uid/api/0".to_owned(), mark)]));
    }

    #[test]
    fn a_log_takes_few_bytes_whatever_it_carries() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut store, _) = open(&dir);
        let one = marks(10).into_values().next().expect("a mark");
        let labels = (0..8).map(|n| (format!("app.example.com/label-{n}"), format!("value-{n}"))).collect();
        let traits = Arc::new(Traits { labels, ..(*one.traits).clone() });
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes());
        let mut lens = Vec::new();
        for logs in [1, 101] {
            let of = |n: u64| {
                let generation = Generation { device: 2049, inode: 4_000_000 + n * 7, head: hash(n) as u64 };
                let position = Position { generation, offset: hash(n + 1) as u64 >> 44, ..one.position };
                let mark = Mark { position, traits: Arc::clone(&traits), files: vec![], ..one.clone() };
                (format!("shop_checkout-d994d45d6-{:05x}_{:032x}/api/0", hash(n) >> 108, hash(n)), mark)
            };
            write(&mut store, &(0..logs).map(of).collect());
            lens.push(store.last_len());
        }
        // The uid, the fingerprint and the offset are 27 bytes that nothing packs.
        let each = (lens[1] - lens[0]) / 100;
        assert!((27..64).contains(&each), "{each} bytes a log");
    }

    #[test]
    fn any_damage_to_the_newest_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut store, _) = open(&dir);
        write(&mut store, &marks(10));
        write(&mut store, &marks(20));
        let path = dir.path().join("positions.0");
        let good = std::fs::read(&path).expect("file");
        let slot = good.len() / 2;
        for at in 0..store.last_len() {
            let mut bad = good.clone();
            bad[slot + at] ^= 0x10;
            std::fs::write(&path, &bad).expect("writes");
            let (_, opened) = open(&dir);
            assert_eq!(opened.marks, marks(10), "byte {at}");
        }
    }

    #[test]
    fn hopeless_files_start_from_nothing_and_are_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        for content in [&b""[..], b"short", &[0; 4096], &[0xff; 300]] {
            std::fs::write(dir.path().join("positions.7"), content).expect("writes");
            let (mut store, opened) = open(&dir);
            assert!(opened.marks.is_empty());
            assert_eq!(opened.corrupt.len(), 1);
            write(&mut store, &marks(5));
            assert_eq!(store.file_number(), Some(8));
            let (_, opened) = open(&dir);
            assert_eq!(opened.marks, marks(5));
            std::fs::remove_file(dir.path().join("positions.8")).expect("removes");
        }
    }

    #[test]
    fn a_payload_that_outgrows_its_slot_moves_to_a_new_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut store, _) = open(&dir);
        write(&mut store, &marks(10));
        // Uids do not pack.
        let uid = |n: u64| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes());
        let many: Marks =
            (0..5000).map(|n| (format!("ns_pod-{n}_{:032x}/container/0", uid(n)), Mark::default())).collect();
        write(&mut store, &many);
        assert_eq!(store.file_number(), Some(1));
        assert!(!dir.path().join("positions.0").exists());
        let (_, opened) = open(&dir);
        assert_eq!(opened.marks.len(), 5000);
    }

    /// A disk on which nothing new can be made.
    struct Full(OsDisk);

    impl Disk for Full {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }
        fn create(&self, _: &str, _: u64) -> io::Result<Box<dyn DiskFile>> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
            self.0.open(name)
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn space(&self) -> io::Result<crate::logs::disk::Space> {
            self.0.space()
        }
    }

    #[test]
    fn a_start_on_a_full_disk_goes_on_in_the_older_slot() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut store, _) = open(&dir);
        write(&mut store, &marks(10));
        write(&mut store, &marks(20));
        for (life, offset) in [30, 40, 50].into_iter().enumerate() {
            let before = std::fs::read(dir.path().join("positions.0")).expect("file");
            let disk = Arc::new(Full(OsDisk::new(dir.path())));
            let (mut store, _) = Store::open(disk).expect("opens");
            write(&mut store, &marks(offset));
            assert_eq!(store.file_number(), Some(0));
            let after = std::fs::read(dir.path().join("positions.0")).expect("file");
            let half = after.len() / 2;
            // The newer slot of the life before is as it was.
            let kept = if life % 2 == 0 { half..after.len() } else { 0..half };
            assert!(after[kept.clone()] == before[kept], "life {life}");
            assert_eq!(open(&dir).1.marks, marks(offset));
        }
        let (mut store, _) = open(&dir);
        write(&mut store, &marks(60));
        assert_eq!((store.file_number(), open(&dir).1.marks), (Some(1), marks(60)));
    }
}
