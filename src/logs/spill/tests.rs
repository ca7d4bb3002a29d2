//! The spill against a disk that fails and crashes, against a model, and against damage.

#![allow(clippy::single_range_in_vec_init)] // ranges that were read, of which there may be one

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::logs::disk::{OsDisk, Space};

/// A small generator, seeded.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

#[derive(Default)]
struct Faults {
    /// The next so many writes are cut short and fail.
    writes: AtomicU32,
    /// The next so many syncs of a file fail.
    syncs: AtomicU32,
    /// The next so many syncs of the directory fail.
    directory: AtomicU32,
    /// The next so many reads fail.
    reads: AtomicU32,
}

fn fails(fault: &AtomicU32) -> bool {
    fault.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

#[derive(Default, Clone)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    poisoned: bool,
}

#[derive(Clone)]
struct SimFile(Arc<Mutex<Content>>, Arc<Faults>);

type Names = BTreeMap<String, SimFile>;

/// A directory in memory whose writes and names are durable only when synced.
struct SimDisk {
    names: Mutex<(Names, Names)>,
    faults: Arc<Faults>,
    space: Mutex<Space>,
}

impl SimDisk {
    fn new() -> Arc<Self> {
        let space = Mutex::new(Space { free: 1 << 40, total: 1 << 40 });
        Arc::new(Self { names: Mutex::default(), faults: Arc::default(), space })
    }

    /// What a power failure leaves: of each 512 bytes either what was synced or what was written.
    fn crash(&self, dice: &mut Dice) -> Arc<Self> {
        let after = Self::new();
        let names = self.names.lock();
        let (now, durable) = &*names;
        for (name, file) in now.iter().chain(durable.iter().filter(|(name, _)| !now.contains_key(*name))) {
            if !(now.contains_key(name) && durable.contains_key(name)) && dice.roll(2) == 0 {
                continue;
            }
            let content = file.0.lock();
            let length = if dice.roll(2) == 0 { content.now.len() } else { content.durable.len() };
            let mut bytes = vec![0; length];
            for (sector, bytes) in bytes.chunks_mut(512).enumerate() {
                let image = if dice.roll(2) == 0 { &content.now } else { &content.durable };
                let part = image.get(sector * 512..).unwrap_or_default();
                let common = part.len().min(bytes.len());
                bytes[..common].copy_from_slice(&part[..common]);
            }
            after.put(name, bytes);
        }
        after
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        let content = Content { now: bytes.clone(), durable: bytes, poisoned: false };
        let file = SimFile(Arc::new(Mutex::new(content)), Arc::clone(&self.faults));
        let mut names = self.names.lock();
        names.0.insert(name.to_owned(), file.clone());
        names.1.insert(name.to_owned(), file);
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.names.lock().0.get(name)?.0.lock().now.clone())
    }

    /// Bytes in blocks that are not punched.
    fn used(&self) -> u64 {
        let names = self.names.lock();
        let used = |file: &SimFile| {
            file.0.lock().now.chunks(4096).filter(|block| block.iter().any(|&byte| byte != 0)).count() as u64
                * 4096
        };
        names.0.values().map(used).sum()
    }

    fn files(&self) -> Vec<String> {
        self.names.lock().0.keys().cloned().collect()
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().now.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if fails(&self.1.reads) {
            return Err(io::Error::other("input/output error"));
        }
        let content = self.0.lock();
        let from = content.now.get(offset as usize..).unwrap_or_default();
        let from = from.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        assert!(!content.poisoned, "written after a failed sync");
        let failed = fails(&self.1.writes);
        let bytes = if failed { &bytes[..bytes.len() / 2] } else { bytes };
        let end = offset as usize + bytes.len();
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset as usize..end].copy_from_slice(bytes);
        if failed { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut content = self.0.lock();
        if fails(&self.1.syncs) {
            content.poisoned = true;
            return Err(io::Error::other("input/output error"));
        }
        content.durable = content.now.clone();
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        let end = content.now.len().min((offset + len) as usize);
        if let Some(hole) = content.now.get_mut(offset as usize..end) {
            hole.fill(0);
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files())
    }

    fn create(&self, name: &str, _reserve: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut names = self.names.lock();
        assert!(!names.0.contains_key(name), "{name} is created twice");
        let file = SimFile(Arc::default(), Arc::clone(&self.faults));
        names.0.insert(name.to_owned(), file.clone());
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.names.lock().0.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(file))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.names.lock().0.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        if fails(&self.faults.directory) {
            return Err(io::Error::other("input/output error"));
        }
        let mut names = self.names.lock();
        names.1 = names.0.clone();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(*self.space.lock())
    }
}

fn generation(ordinal: u64) -> Generation {
    Generation { device: 7, inode: 100 + ordinal, head: 1000 + ordinal }
}

/// Bytes of one file of one log: lines that tell where they stand.
fn content(key: &str, ordinal: u64, range: Range<u64>) -> Vec<u8> {
    let line = |number: u64| {
        format!("2026-11-22T10:00:00.{number:09}Z stdout F {key} {ordinal} {:x}\n", number * 7919)
    };
    let mut bytes = Vec::new();
    let length = line(0).len() as u64 + 8;
    let mut number = range.start / length;
    let mut start = number * length;
    while start < range.end {
        let mut line = line(number).into_bytes();
        line.resize(length as usize, b'.');
        let from = range.start.saturating_sub(start).min(length) as usize;
        let to = (range.end - start).min(length) as usize;
        bytes.extend_from_slice(&line[from..to]);
        start += length;
        number += 1;
    }
    bytes
}

fn config(budget: u64) -> Config {
    Config { budget: ByteSize(budget), ..Config::default() }
}

fn key(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn put(spill: &Spill, name: &str, ordinal: u64, range: Range<u64>) -> Result<(), Refused> {
    let bytes = content(name, ordinal, range.clone());
    spill.append(&key(name), generation(ordinal), ordinal, range.start, &bytes)
}

/// All that can be read of a file, with every byte compared; the ranges that came.
fn read_all(spill: &Spill, name: &str, ordinal: u64, step: usize) -> Vec<Range<u64>> {
    let (mut at, mut ranges) = (0, Vec::<Range<u64>>::new());
    for _ in 0..100_000 {
        let mut buffer = Vec::new();
        match spill.read_at(name, ordinal, at, step, &mut buffer) {
            Ok(0) => return ranges,
            Ok(got) => {
                let end = at + got as u64;
                assert_eq!((got, got <= step), (buffer.len(), true));
                assert!(buffer == content(name, ordinal, at..end), "wrong bytes of {name} {ordinal} at {at}");
                match ranges.last_mut().filter(|last| last.end == at) {
                    Some(last) => last.end = end,
                    None => ranges.push(at..end),
                }
                at = end;
            }
            Err(ReadError::Gap { until }) => {
                assert!(until > at, "a gap that ends at {until} where it begins");
                at = until;
            }
            Err(ReadError::Io(error)) => panic!("{error}"),
        }
    }
    panic!("reading does not end");
}

fn attached(disk: &Arc<SimDisk>, budget: u64, segment: u64) -> (Arc<Spill>, Recovery) {
    let spill = Spill::with_segments(&config(budget), segment);
    let recovery = spill.attach(Arc::clone(disk) as Arc<dyn Disk>).expect("attach");
    (spill, recovery)
}

const A: &str = "shop_api-0_1/app/0";
const B: &str = "shop_db-0_2/db/3";

#[test]
fn without_a_disk_or_a_budget_everything_is_refused() {
    let spill = Spill::new(&config(1 << 20));
    assert!(matches!(put(&spill, A, 0, 0..10), Err(Refused::Failed(_))));
    let (spill, _) = attached(&SimDisk::new(), 0, 1 << 20);
    assert!(matches!(put(&spill, A, 0, 0..10), Err(Refused::Full)));
    assert_eq!(spill.sync().ok(), Some(()));
}

#[test]
fn what_was_kept_is_read_by_the_same_offsets_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("tempdir");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(dir.path()));
    // How full the machine's own disk is, is nothing that this is about.
    let settings = Config { min_free: Percent::whole(0), ..config(8 << 20) };
    let spill = Spill::with_segments(&settings, 64 << 10);
    assert_eq!(spill.attach(Arc::clone(&disk)).expect("attach"), Recovery::default());
    for start in (1000..401_000).step_by(50_000) {
        put(&spill, A, 3, start..start + 50_000).expect("append");
    }
    put(&spill, B, 0, 0..100).expect("append");
    let stretch =
        Stretch { generation: generation(3), ordinal: 3, start: 1000, end: 401_000, durable_end: 1000 };
    assert_eq!(spill.stretches(A), [stretch]);
    assert!(spill.is_dirty());
    spill.sync().expect("sync");
    assert!(!spill.is_dirty());
    assert_eq!(spill.stretches(A), [Stretch { durable_end: 401_000, ..stretch }]);
    assert_eq!(read_all(&spill, A, 3, 7_777), [1000..401_000]);
    drop(spill);

    let spill = Spill::with_segments(&config(8 << 20), 64 << 10);
    let recovery = spill.attach(disk).expect("attach");
    assert_eq!(recovery, Recovery { logs: 2, bytes: 400_100, damaged: 0 });
    assert_eq!(spill.stretches(A), [Stretch { durable_end: 401_000, ..stretch }]);
    assert_eq!(read_all(&spill, A, 3, 300_000), [1000..401_000]);
    assert_eq!(read_all(&spill, B, 0, 64), [0..100]);
    let mut keys = spill.keys();
    keys.sort();
    assert_eq!(keys, [key(A), key(B)]);
    assert_eq!(spill.largest().map(|(key, _)| key), Some(key(A)));

    let position = Position { generation: generation(3), ordinal: 3, offset: 101_000, ..Position::default() };
    spill.release(A, &position, 1);
    assert_eq!(spill.stretches(A)[0].start, 51_000);
    spill.release(A, &position, 0);
    assert_eq!(spill.stretches(A)[0].start, 101_000);
    assert_eq!(read_all(&spill, A, 3, 300_000), [101_000..401_000]);
    spill.release(A, &Position { ordinal: 4, ..position }, 0);
    assert_eq!(spill.stretches(A), []);
    spill.forget(B);
    assert_eq!(spill.usage(), Usage::default());
    assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
}

#[test]
fn released_frames_give_their_blocks_back() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    for start in (0..200_000).step_by(20_000) {
        put(&spill, A, 0, start..start + 20_000).expect("append");
        put(&spill, B, 0, start..start + 20_000).expect("append");
    }
    assert_eq!(disk.used(), spill.usage().stored);
    spill.forget(A);
    assert_eq!(disk.used(), spill.usage().stored);
    assert_eq!(spill.usage().source, 200_000);
    assert_eq!(read_all(&spill, B, 0, 1 << 20), [0..200_000]);
    spill.sync().expect("sync");
    let (again, recovery) = attached(&disk, 1 << 20, 1 << 20);
    assert_eq!(recovery, Recovery { logs: 1, bytes: 200_000, damaged: 0 });
    assert_eq!(again.usage(), spill.usage());
}

#[test]
fn small_frames_do_not_grow_the_index_without_end() {
    // 256 MiB are 65,536 blocks, and an entry is kept for every fourth.
    let (spill, _) = attached(&SimDisk::new(), 256 << 20, 1 << 20);
    for start in 0..16_384 {
        put(&spill, A, 1, start..start + 1).expect("append");
    }
    assert!(matches!(put(&spill, A, 1, 16_384..16_385), Err(Refused::Full)));
    assert_eq!(spill.give_up(A, 1, 0, 4096), Some(0..1));
    put(&spill, A, 1, 16_384..16_385).expect("a place was made");
    // 7 frames of 320 KiB, 1 MiB, and 64 bytes for each of 65,536 or of 256 frames.
    assert_eq!(config(1 << 30).memory_bound(), 7 * (320 << 10) + (1 << 20) + (4 << 20));
    assert_eq!(config(1 << 20).memory_bound(), 7 * (320 << 10) + (1 << 20) + (16 << 10));
}

#[test]
fn the_budget_holds_and_giving_up_makes_room() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 5 * 4096, 1 << 20);
    for start in (0..500).step_by(100) {
        put(&spill, A, 1, start..start + 100).expect("append");
    }
    assert!(matches!(put(&spill, A, 1, 500..600), Err(Refused::Full)));
    assert_eq!(spill.usage(), Usage { stored: 5 * 4096, source: 500 });
    // The frame from 100 straddles the position and stays.
    assert_eq!(spill.give_up(A, 1, 150, 4097), Some(200..400));
    assert_eq!(spill.usage(), Usage { stored: 3 * 4096, source: 300 });
    assert_eq!(read_all(&spill, A, 1, 1000), [0..200, 400..500]);
    assert!(matches!(spill.read_at(A, 1, 250, 9, &mut Vec::new()), Err(ReadError::Gap { until: 400 })));
    assert_eq!(spill.give_up(A, 1, 450, 1), None);
    assert_eq!(spill.give_up(B, 1, 0, 1), None);
    put(&spill, A, 1, 500..600).expect("append");
}

#[test]
fn too_little_space_is_asked_for_seldom() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    *disk.space.lock() = Space { free: 149, total: 1000 };
    assert!(matches!(put(&spill, A, 0, 0..10), Err(Refused::LowDisk)));
    *disk.space.lock() = Space { free: 150, total: 1000 };
    let refused = (0..100).take_while(|_| put(&spill, A, 0, 0..10).is_err()).count();
    assert_eq!(refused, 63);
}

#[test]
fn a_full_disk_refuses_and_damages_nothing() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    put(&spill, A, 0, 0..10_000).expect("append");
    disk.faults.writes.store(1, Ordering::Relaxed);
    assert!(matches!(put(&spill, A, 0, 10_000..20_000), Err(Refused::LowDisk)));
    spill.sync().expect("sync");
    while put(&spill, A, 0, 10_000..20_000).is_err() {}
    spill.sync().expect("sync");
    let (spill, recovery) = attached(&disk, 1 << 20, 1 << 20);
    assert_eq!(recovery, Recovery { logs: 1, bytes: 20_000, damaged: 0 });
    assert_eq!(read_all(&spill, A, 0, 1 << 20), [0..20_000]);
    assert_eq!(disk.files(), ["spill.0", "spill.1"]);
}

#[test]
fn a_failed_sync_counts_nothing_as_kept_that_was_not_durable() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    put(&spill, A, 0, 0..100).expect("append");
    spill.sync().expect("sync");
    put(&spill, A, 0, 100..200).expect("append");
    disk.faults.syncs.store(1, Ordering::Relaxed);
    spill.sync().expect_err("sync");
    let stretch = Stretch { generation: generation(0), ordinal: 0, start: 0, end: 100, durable_end: 100 };
    assert_eq!(spill.stretches(A), [stretch]);
    assert!(!spill.is_dirty());
    // Again, into a new segment whose name cannot be made durable.
    put(&spill, A, 0, 100..200).expect("append");
    disk.faults.directory.store(1, Ordering::Relaxed);
    spill.sync().expect_err("sync");
    assert_eq!(spill.stretches(A), [stretch]);
    put(&spill, A, 0, 100..200).expect("append");
    spill.sync().expect("sync");
    assert_eq!(read_all(&spill, A, 0, 1000), [0..200]);
    let (spill, recovery) = attached(&disk.crash(&mut Dice(1)), 1 << 20, 1 << 20);
    assert_eq!(recovery.bytes, 200);
    assert_eq!(read_all(&spill, A, 0, 1000), [0..200]);
}

#[test]
fn a_new_generation_under_an_old_ordinal_takes_its_place() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    put(&spill, A, 0, 0..100).expect("append");
    let other = Generation { device: 7, inode: 9, head: 9 };
    spill.append(&key(A), other, 0, 50, b"other\n").expect("append");
    let stretch = Stretch { generation: other, ordinal: 0, start: 50, end: 56, durable_end: 50 };
    assert_eq!(spill.stretches(A), [stretch]);
    assert_eq!(spill.usage(), Usage { stored: 4096, source: 6 });
    spill.sync().expect("sync");
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    assert_eq!(spill.stretches(A), [Stretch { durable_end: 56, ..stretch }]);
    // A position in the file that is gone says nothing about this one.
    spill.release(A, &Position { generation: generation(0), offset: 100, ..Position::default() }, 0);
    assert_eq!(spill.stretches(A).len(), 1);
}

#[test]
fn a_read_error_of_the_disk_loses_nothing() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    put(&spill, A, 0, 0..100).expect("append");
    disk.faults.reads.store(1, Ordering::Relaxed);
    assert!(matches!(spill.read_at(A, 0, 0, 100, &mut Vec::new()), Err(ReadError::Io(_))));
    assert_eq!(read_all(&spill, A, 0, 1000), [0..100]);
}

#[test]
fn a_segment_of_a_later_version_is_left_alone() {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    put(&spill, A, 0, 0..100).expect("append");
    let mut bytes = disk.bytes("spill.0").expect("segment");
    bytes[8] = 2;
    let length = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..length]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let disk = SimDisk::new();
    disk.put("spill.41", bytes.clone());
    let (spill, recovery) = attached(&disk, 1 << 20, 1 << 20);
    assert_eq!(recovery, Recovery { logs: 0, bytes: 0, damaged: 1 });
    put(&spill, A, 0, 0..100).expect("append");
    spill.forget(A);
    put(&spill, A, 0, 0..100).expect("append");
    assert_eq!(disk.files(), ["spill.41", "spill.43"]);
    assert_eq!(disk.bytes("spill.41"), Some(bytes));
}

/// A segment of frames of `A`, each of 300 bytes and one block.
fn segment_of(frames: u64) -> Vec<u8> {
    let disk = SimDisk::new();
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    for start in (0..frames * 300).step_by(300) {
        put(&spill, A, 0, start..start + 300).expect("append");
    }
    disk.bytes("spill.0").expect("segment")
}

/// Attaches to `bytes` as the segment of the number; the frames of 300 bytes that can be read.
fn survivors(bytes: Vec<u8>, older: bool) -> Vec<u64> {
    let disk = SimDisk::new();
    disk.put("spill.0", bytes);
    if older {
        // Payloads of the last two segments are looked at when opening, those of others when reading.
        disk.put("spill.1", vec![1; 5000]);
        disk.put("spill.2", vec![2; 5000]);
    }
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    let ranges = read_all(&spill, A, 0, 1000);
    ranges.into_iter().flat_map(|range| range.step_by(300).map(|start| start / 300)).collect()
}

#[test]
fn damage_costs_only_its_own_frame() {
    let sound = segment_of(3);
    let mut lost = 0;
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        let frame = at as u64 / 4096;
        let left = survivors(bytes, at % 2 == 0);
        for other in (0..3).filter(|other| *other != frame) {
            assert!(left.contains(&other), "frame {other} is lost to damage at {at}");
        }
        lost += u32::from(left.len() == 2);
    }
    assert!(lost > 300, "damage is not noticed: {lost}");
}

#[test]
fn a_cut_costs_only_what_it_cuts() {
    let sound = segment_of(3);
    let ends: Vec<usize> = (0..3)
        .map(|frame| {
            let block = &sound[frame * 4096..sound.len().min((frame + 1) * 4096)];
            frame * 4096 + block.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
        })
        .collect();
    for length in 0..sound.len() {
        let left = survivors(sound[..length].to_vec(), length % 2 == 0);
        let whole: Vec<u64> = (0..3).filter(|&frame| ends[frame as usize] <= length).collect();
        assert!(whole.iter().all(|frame| left.contains(frame)), "cut at {length}: {left:?} of {whole:?}");
        assert!(left.len() <= whole.len() + 1);
    }
}

#[test]
fn a_zeroed_block_costs_only_its_own_frame() {
    for block in 0..3 {
        let mut bytes = segment_of(3);
        let end = bytes.len().min((block + 1) * 4096);
        bytes[block * 4096..end].fill(0);
        let left: Vec<u64> = (0..3).filter(|frame| *frame != block as u64).collect();
        assert_eq!(survivors(bytes, false), left);
    }
}

/// Set `NODEWICK_SPILL_MUTATIONS` for more than a moment's worth.
#[test]
fn no_bytes_keep_it_from_starting() {
    let rounds =
        std::env::var("NODEWICK_SPILL_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let sound = segment_of(4);
    let mut dice = Dice(0x5b1e_55ed);
    for round in 0..rounds {
        let mut bytes = sound.clone();
        let mut hit = Vec::new();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(bytes.len() as u64) as usize;
            let length = 1 + dice.roll(64) as usize;
            for at in at..bytes.len().min(at + length) {
                bytes[at] = dice.roll(256) as u8;
                hit.push(at as u64 / 4096);
            }
        }
        if dice.roll(4) == 0 {
            bytes.truncate(dice.roll(bytes.len() as u64) as usize);
        }
        let whole = bytes.len() as u64;
        let left = survivors(bytes, dice.roll(2) == 0);
        for frame in (0..4).filter(|frame| !hit.contains(frame) && (frame + 1) * 4096 <= whole) {
            assert!(left.contains(&frame), "round {round} lost frame {frame}");
        }
    }
}

#[test]
fn damage_is_counted_once_and_read_as_a_gap() {
    let disk = SimDisk::new();
    let mut bytes = segment_of(3);
    // In the payload of the second frame.
    bytes[4096 + 100] ^= 1;
    disk.put("spill.0", bytes);
    let (spill, recovery) = attached(&disk, 1 << 20, 1 << 20);
    assert_eq!(recovery, Recovery { logs: 1, bytes: 600, damaged: 1 });
    let mut buffer = Vec::new();
    assert_eq!(spill.read_at(A, 0, 0, 1000, &mut buffer).ok(), Some(300));
    assert!(matches!(spill.read_at(A, 0, 300, 1000, &mut buffer), Err(ReadError::Gap { until: 600 })));
    assert_eq!(spill.read_at(A, 0, 600, 1000, &mut buffer).ok(), Some(300));
    assert_eq!(spill.read_at(A, 0, 900, 1000, &mut buffer).ok(), Some(0));
}

#[test]
fn a_later_damage_of_the_last_frame_is_a_gap_and_no_end() {
    let disk = SimDisk::new();
    disk.put("spill.0", segment_of(2));
    let (spill, _) = attached(&disk, 1 << 20, 1 << 20);
    disk.names.lock().0["spill.0"].0.lock().now[4096 + 100] ^= 1;
    let mut buffer = Vec::new();
    assert_eq!(spill.read_at(A, 0, 0, 1000, &mut buffer).ok(), Some(300));
    assert!(matches!(spill.read_at(A, 0, 300, 1000, &mut buffer), Err(ReadError::Gap { until: 600 })));
    assert_eq!(spill.stretches(A)[0].end, 300);
}

#[derive(Debug, Clone)]
enum Step {
    Append { log: usize, ordinal: u64, length: u64, skip: u64 },
    Sync,
    Release { log: usize, ordinal: u64, offset: u64, margin: u64 },
    Forget { log: usize },
    GiveUp { log: usize, ordinal: u64, from: u64, wanted: u64 },
    Fault { kind: u8 },
    Kill,
    PowerFailure { seed: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let log = || 0..2_usize;
    let ordinal = || 0..3_u64;
    let length = prop_oneof![4 => 1..3_000_u64, 1 => 3_000..30_000_u64];
    let skip = prop_oneof![5 => Just(0), 1 => 1..100_u64];
    let step = prop_oneof![
        12 => (log(), ordinal(), length, skip)
            .prop_map(|(log, ordinal, length, skip)| Step::Append { log, ordinal, length, skip }),
        5 => Just(Step::Sync),
        2 => (log(), ordinal(), 0..20_000_u64, 0..500_u64)
            .prop_map(|(log, ordinal, offset, margin)| Step::Release { log, ordinal, offset, margin }),
        1 => log().prop_map(|log| Step::Forget { log }),
        1 => (log(), ordinal(), 0..10_000_u64, 0..20_000_u64)
            .prop_map(|(log, ordinal, from, wanted)| Step::GiveUp { log, ordinal, from, wanted }),
        1 => (0..3_u8).prop_map(|kind| Step::Fault { kind }),
        1 => Just(Step::Kill),
        1 => (1..u64::MAX).prop_map(|seed| Step::PowerFailure { seed }),
    ];
    prop::collection::vec(step, 1..40)
}

/// An append that was taken.
#[derive(Debug, Clone)]
struct Entry {
    log: usize,
    ordinal: u64,
    range: Range<u64>,
    durable: bool,
}

const BUDGET: u64 = 40 * 4096;
const SEGMENT: u64 = 8 * 4096;
const LOGS: [&str; 2] = [A, B];

fn covers(ranges: &[Range<u64>], range: &Range<u64>) -> bool {
    ranges.iter().any(|outer| outer.start <= range.start && range.end <= outer.end)
}

fn run(steps: Vec<Step>) {
    let mut disk = SimDisk::new();
    let (mut spill, _) = attached(&disk, BUDGET, SEGMENT);
    let mut entries: Vec<Entry> = Vec::new();
    for step in steps {
        match step {
            Step::Append { log, ordinal, length, skip } => {
                let ends =
                    spill.stretches(LOGS[log]).into_iter().filter(|s| s.ordinal == ordinal).map(|s| s.end);
                let start = ends.max().unwrap_or(0) + skip;
                if put(&spill, LOGS[log], ordinal, start..start + length).is_ok() {
                    entries.push(Entry { log, ordinal, range: start..start + length, durable: false });
                }
            }
            Step::Sync => match spill.sync() {
                Ok(()) => entries.iter_mut().for_each(|entry| entry.durable = true),
                Err(_) => {
                    for entry in &mut entries {
                        entry.durable |= spill.stretches(LOGS[entry.log]).iter().any(|stretch| {
                            assert_eq!(stretch.durable_end, stretch.end);
                            stretch.ordinal == entry.ordinal
                                && stretch.start <= entry.range.start
                                && entry.range.end <= stretch.end
                        });
                    }
                    entries.retain(|entry| entry.durable);
                }
            },
            Step::Release { log, ordinal, offset, margin } => {
                let position =
                    Position { generation: generation(ordinal), ordinal, offset, ..Position::default() };
                spill.release(LOGS[log], &position, margin);
                entries.retain(|entry| {
                    entry.log != log
                        || entry.ordinal > ordinal
                        || entry.ordinal == ordinal && entry.range.end + margin > offset
                });
            }
            Step::Forget { log } => {
                spill.forget(LOGS[log]);
                entries.retain(|entry| entry.log != log);
                assert!(spill.stretches(LOGS[log]).is_empty());
            }
            Step::GiveUp { log, ordinal, from, wanted } => {
                if let Some(gone) = spill.give_up(LOGS[log], ordinal, from, wanted) {
                    assert!(gone.start >= from && gone.start < gone.end);
                    assert!(
                        read_all(&spill, LOGS[log], ordinal, 9_999)
                            .iter()
                            .all(|range| { range.end <= gone.start || range.start >= gone.end })
                    );
                    entries.retain(|entry| {
                        let inside = gone.start <= entry.range.start && entry.range.end <= gone.end;
                        entry.log != log || entry.ordinal != ordinal || !inside
                    });
                }
            }
            Step::Fault { kind } => {
                let faults = &disk.faults;
                [&faults.writes, &faults.syncs, &faults.directory][usize::from(kind)]
                    .store(1, Ordering::Relaxed);
            }
            Step::Kill | Step::PowerFailure { .. } => {
                if let Step::PowerFailure { seed } = step {
                    disk = disk.crash(&mut Dice(seed));
                }
                for fault in [&disk.faults.writes, &disk.faults.syncs, &disk.faults.directory] {
                    fault.store(0, Ordering::Relaxed);
                }
                entries.retain(|entry| entry.durable || matches!(step, Step::Kill));
                entries.iter_mut().for_each(|entry| entry.durable = true);
                spill = attached(&disk, BUDGET, SEGMENT).0;
            }
        }
    }
    for (log, name) in LOGS.into_iter().enumerate() {
        for ordinal in 0..3 {
            let ranges = read_all(&spill, name, ordinal, 4_321);
            for entry in entries.iter().filter(|entry| (entry.log, entry.ordinal) == (log, ordinal)) {
                assert!(covers(&ranges, &entry.range), "{entry:?} is not among {ranges:?}");
            }
            for stretch in spill.stretches(name).iter().filter(|stretch| stretch.ordinal == ordinal) {
                assert!(
                    covers(&ranges, &(stretch.start..stretch.end)),
                    "{stretch:?} is not among {ranges:?}"
                );
            }
        }
    }
    let source: u64 = spill.usage().source;
    assert!(
        source >= LOGS.iter().flat_map(|name| spill.stretches(name)).map(|s| s.end - s.start).sum::<u64>()
    );
    LOGS.iter().for_each(|name| spill.forget(name));
    assert_eq!((spill.usage(), disk.files().len()), (Usage::default(), 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_durable_and_not_released_is_read_back(steps in steps()) {
        run(steps);
    }
}
