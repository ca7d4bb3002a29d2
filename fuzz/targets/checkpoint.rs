//! The checkpoint: any bytes, and any damage to good ones.
//!
//! In: a text, and behind it one byte that says what it is: the file itself; the payload of a slot whose checksum is right; or
//! damage to a file that the store wrote twice. Properties: opening never fails; damage leaves one of the two sets of marks that
//! were written, or none and names the file; whatever was found, what is written afterwards is read back.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nodewick::data::pods::Traits;
use nodewick::data::position::{Generation, Position, Skipping};
use nodewick::logs::checkpoint::{Mark, Marks, Opened, Seen, Store};
use nodewick::logs::disk::OsDisk;

const CHECKSUM: std::ops::Range<usize> = 24..28;

pub(super) fn run(data: &[u8]) {
    let Some((text, [how])) = super::split_control::<1>(data) else { return };
    match how % 4 {
        0 => anything(text),
        1 => sealed(text, if how & 4 == 0 { 2 } else { 1 }),
        _ => damaged(text),
    }
}

/// The text is the file.
fn anything(text: &[u8]) {
    let dir = super::scratch();
    fs::write(dir.path().join("positions.3"), text).expect("writes");
    let (store, opened) = open(dir.path());
    assert!(opened.corrupt.len() <= 1);
    goes_on(dir.path(), store, &opened);
}

/// The text is a sequence number and a slot's payload, of either version.
fn sealed(text: &[u8], version: u32) {
    let Some((sequence, payload)) = text.split_first_chunk::<8>() else { return };
    let mut slot = b"NWICKPOS".to_vec();
    slot.extend_from_slice(&version.to_le_bytes());
    slot.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    slot.extend_from_slice(sequence);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&slot), payload);
    slot.extend_from_slice(&checksum.to_le_bytes());
    slot.extend_from_slice(payload);
    let dir = super::scratch();
    let file = [slot.clone(), vec![0; slot.len()]].concat();
    fs::write(dir.path().join("positions.3"), file).expect("writes");
    let (mut store, opened) = open(dir.path());
    // What was understood is written and read as the same.
    write(&mut store, &opened.marks);
    let (_, again) = open(dir.path());
    assert_eq!(again.marks, opened.marks);
    goes_on(dir.path(), store, &opened);
}

/// The text is a list of changes, four bytes each: slot, place, kind or length, value.
fn damaged(text: &[u8]) {
    let dir = super::scratch();
    let (mut store, _) = open(dir.path());
    write(&mut store, &marks(1));
    let first = store.last_len();
    write(&mut store, &marks(2));
    let second = store.last_len();
    drop(store);
    let path = dir.path().join("positions.0");
    let good = fs::read(&path).expect("the file");
    let slot = good.len() / 2;
    let mut bad = good.clone();
    for change in text.chunks_exact(4) {
        let &[which, place, kind, value] = change else { continue };
        let used = if which & 1 == 0 { first } else { second };
        let at =
            slot * usize::from(which & 1) + usize::from(place) * used / 256 + usize::from(which >> 1) % 8;
        match kind {
            0..=199 => bad.iter_mut().skip(at).take(1 + usize::from(kind) / 8).for_each(|byte| *byte = value),
            200..=219 => bad.truncate(at),
            220..=239 => bad.extend(std::iter::repeat_n(value, usize::from(place) + 1)),
            _ => {
                let from = at.min(bad.len());
                bad.splice(from..from, [value]);
            }
        }
    }
    let changed = |range: std::ops::Range<usize>| bad.get(range.clone()) != good.get(range);
    let forged = [0, slot].iter().any(|start| changed(start + CHECKSUM.start..start + CHECKSUM.end));
    fs::write(&path, &bad).expect("writes");
    let (store, opened) = open(dir.path());
    let whole = [(0, first, marks(1)), (slot, second, marks(2))];
    let intact =
        |(start, len, _): &(usize, usize, Marks)| !changed(*start..start + len) && bad.len() == good.len();
    if let Some((_, _, newest)) = whole.iter().rev().find(|slot| intact(slot)) {
        assert!(opened.corrupt.is_empty());
        assert!(&opened.marks == newest || forged, "an intact slot is not used");
    } else if !forged {
        let known = whole.iter().any(|(_, _, marks)| &opened.marks == marks);
        assert!(known || opened.marks.is_empty() && opened.corrupt == ["positions.0"], "{opened:?}");
    }
    goes_on(dir.path(), store, &opened);
}

fn open(dir: &Path) -> (Store, Opened) {
    Store::open(Arc::new(OsDisk::new(dir))).expect("opening fails for nothing that a file holds")
}

fn write(store: &mut Store, marks: &Marks) {
    store.write(marks.iter().map(|(key, mark)| (key.as_str(), mark))).expect("writable");
}

/// The store works on, whatever it found.
fn goes_on(dir: &Path, mut store: Store, opened: &Opened) {
    for n in 3..6 {
        write(&mut store, &marks(n));
        let (_, again) = open(dir);
        assert_eq!(again.marks, marks(n), "after {} marks were found", opened.marks.len());
    }
    assert_eq!(fs::read_dir(dir).expect("a directory").count(), 1, "old files are left");
}

/// Marks of which no two sets are equal.
fn marks(n: u64) -> Marks {
    let mark = |log: u64| Mark {
        position: Position {
            generation: Generation { device: 66, inode: 1000 + log, head: u64::MAX - n },
            ordinal: n % 5,
            offset: n << (log * 9),
            skipping: Skipping((n % 4) as u8),
        },
        traits: Arc::new(Traits {
            service_name: format!("checkout-{}", log / 2),
            environment: (log > 0).then(|| "prod".to_owned()),
            labels: (0..log).map(|label| (format!("l{label}"), "x".to_owned())).collect(),
            tenant: (log == 2).then(|| "shop".to_owned()),
            ..Traits::default()
        }),
        service_name_guessed: log == 1,
        whole: n.is_multiple_of(2),
        last_words_told: log == 2,
        excluded: log == 0,
        files: (0..log)
            .map(|file| Seen { generation: Generation::default(), ordinal: n + file, size: 1 << file })
            .collect(),
    };
    (0..3).map(|log| (format!("shop_checkout-{log}_uid/api/{n}"), mark(log))).collect()
}
