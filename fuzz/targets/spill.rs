//! The spill: any bytes as a segment, and any damage to good ones.
//!
//! In: a text, and behind it one byte that says what it is: the first segment itself; or damage to a segment that the spill wrote.
//! Properties: taking it up never fails; what is read at an offset is what stood there in the log, or a gap that ends behind the
//! offset, never anything else; undamaged, all that was synced is there; whatever was found, what is kept afterwards is read back.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nodewick::data::position::Generation;
use nodewick::logs::disk::OsDisk;
use nodewick::logs::spill::{Config, ReadError, Refused, Spill};

/// Stretches that are written, each a log's key, ordinal, first byte and length.
const WRITTEN: [(&str, u64, u64, usize); 5] = [
    ("shop_checkout_uid/api/0", 0, 0, 700),
    ("shop_checkout_uid/api/0", 0, 700, 5000),
    ("shop_cart_uid/api/1", 4, 1 << 33, 9000),
    ("shop_checkout_uid/api/0", 1, 100, 300),
    ("shop_cart_uid/api/1", 4, (1 << 33) + 20_000, 64),
];
/// What is kept once the damaged segment has been taken up.
const LATER: (&str, u64, u64, usize) = ("shop_later_uid/api/0", 7, 50, 3000);
/// Length of a block; frames begin at multiples of it.
const BLOCK: usize = 4096;

pub(super) fn run(data: &[u8]) {
    let Some((text, [how])) = super::split_control::<1>(data) else { return };
    let dir = super::scratch();
    if how & 1 == 0 {
        fs::write(dir.path().join("spill.0"), text).expect("writes");
        let spill = take_up(dir.path());
        for key in spill.keys() {
            for stretch in spill.stretches(&key) {
                read(&spill, &key, stretch.ordinal, stretch.start, stretch.end, |_, _| {});
            }
        }
        keeps(dir.path(), &spill);
        return;
    }
    let spill = take_up(dir.path());
    for stretch in WRITTEN {
        if !keep(&spill, stretch) {
            return;
        }
    }
    spill.sync().expect("syncs");
    assert!(!spill.is_dirty());
    drop(spill);
    let damaged = damage(dir.path(), text);
    let spill = take_up(dir.path());
    let mut found = 0;
    for key in spill.keys() {
        for stretch in spill.stretches(&key) {
            read(&spill, &key, stretch.ordinal, stretch.start, stretch.end, |offset, bytes| {
                found += bytes.len();
                assert!(is_of(&key, stretch.ordinal, offset, bytes), "bytes that never stood there");
            });
        }
    }
    if !damaged {
        assert_eq!(found, WRITTEN.iter().map(|stretch| stretch.3).sum::<usize>());
    }
    keeps(dir.path(), &spill);
}

fn take_up(dir: &Path) -> Arc<Spill> {
    let spill = Spill::new(&Config::default());
    spill.attach(Arc::new(OsDisk::new(dir))).expect("nothing in a file makes it fail");
    spill
}

/// Reads `start..end` of a file over gaps.
fn read(spill: &Spill, key: &str, ordinal: u64, start: u64, end: u64, mut seen: impl FnMut(u64, &[u8])) {
    let mut at = start;
    // A file of four blocks cannot have as many frames.
    for _ in 0..10_000 {
        if at >= end {
            return;
        }
        let max = usize::try_from(end - at).unwrap_or(usize::MAX).min(1000);
        let mut bytes = Vec::new();
        match spill.read_at(key, ordinal, at, max, &mut bytes) {
            Ok(0) => return,
            Ok(got) => {
                assert!(got == bytes.len() && got <= max);
                seen(at, &bytes);
                at += got as u64;
            }
            Err(ReadError::Gap { until }) => {
                assert!(until > at, "a gap that does not end");
                at = until;
            }
            Err(ReadError::Io(error)) => panic!("{error}"),
        }
    }
    panic!("reading does not end");
}

/// Keeps a stretch; false when the machine has no room for it.
fn keep(spill: &Spill, (key, ordinal, start, len): (&str, u64, u64, usize)) -> bool {
    let generation = Generation { device: 66, inode: 1000 + ordinal, head: 99 };
    let bytes: Vec<u8> = (start..start + len as u64).map(|offset| byte(key, ordinal, offset)).collect();
    match spill.append(&Arc::from(key), generation, ordinal, start, &bytes) {
        Ok(()) => true,
        Err(Refused::LowDisk | Refused::Full) => false,
        Err(Refused::Failed(error)) => panic!("{error}"),
    }
}

/// Whatever was found, the spill works on.
fn keeps(dir: &Path, spill: &Spill) {
    let (key, ordinal, start, len) = LATER;
    // A segment of any content may hold what has the same name.
    spill.forget(key);
    if !keep(spill, LATER) {
        return;
    }
    spill.sync().expect("syncs");
    let spill = take_up(dir);
    let mut got = Vec::new();
    read(&spill, key, ordinal, start, start + len as u64, |_, bytes| got.extend_from_slice(bytes));
    assert!(got.len() == len && is_of(key, ordinal, start, &got), "what was synced is not there");
}

/// The byte that stands at `offset` in a log file: text that repeats here and there, as logs do.
fn byte(key: &str, ordinal: u64, offset: u64) -> u8 {
    let line = offset / 50;
    let mixed = (line ^ key.len() as u64 ^ ordinal << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match offset % 50 {
        49 => b'\n',
        place if place < 8 => b'a' + ((mixed >> (8 * place)) % 26) as u8,
        place => b' ' + place as u8,
    }
}

fn is_of(key: &str, ordinal: u64, from: u64, bytes: &[u8]) -> bool {
    bytes.iter().zip(from..).all(|(got, offset)| *got == byte(key, ordinal, offset))
}

/// Changes the segment, four bytes each: block and place within it, kind, value; true when it is another one now.
///
/// A change is an exclusive or, so that the fuzzer cannot write a checksum that it has seen compared.
fn damage(dir: &Path, text: &[u8]) -> bool {
    let path = dir.join("spill.0");
    let good = fs::read(&path).expect("the first segment");
    let mut bad = good.clone();
    for change in text.chunks_exact(4) {
        let &[block, place, kind, value] = change else { continue };
        let blocks = bad.len().div_ceil(BLOCK).max(1);
        let at = usize::from(block) % blocks * BLOCK + usize::from(place) * (1 + usize::from(kind) % 16);
        match kind {
            0..=159 => {
                bad.iter_mut().skip(at).take(1 + usize::from(kind) / 16).for_each(|byte| *byte ^= value)
            }
            160..=179 => bad.truncate(at),
            180..=199 => {
                bad.extend(std::iter::repeat_n(value, BLOCK - bad.len() % BLOCK + usize::from(place)))
            }
            200..=219 => bad.iter_mut().skip(at).take(BLOCK).for_each(|byte| *byte = 0),
            // A block once more, elsewhere.
            _ => {
                let from = usize::from(value) % blocks * BLOCK;
                let copy: Vec<u8> = bad.iter().skip(from).take(BLOCK).copied().collect();
                let to = (usize::from(block) % blocks * BLOCK).min(bad.len());
                let until = (to + copy.len()).min(bad.len());
                bad.splice(to..until, copy);
            }
        }
    }
    fs::write(&path, &bad).expect("writes");
    bad != good
}
