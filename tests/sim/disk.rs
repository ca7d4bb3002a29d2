//! The state directory: what a process sees, and what a power loss leaves.
//!
//! Writes and names are volatile until they are synced. A crash keeps any subset of what was not synced, sector by
//! sector. After a failed sync the kernel may have written the pages or not, and calls them clean either way: a
//! later sync that succeeds says nothing about them.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use nodewick::logs::disk::{Disk, DiskFile, Space};
use parking_lot::Mutex;

use crate::chance::{Rng, note};

/// What a power loss tears at.
const SECTOR: usize = 512;

/// What befalls the disk, once in so many calls each; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A write that fails with EIO, perhaps half done.
    pub write: u64,
    /// A sync that fails with EIO.
    pub sync: u64,
    /// Listing or opening fails with EIO.
    pub open: u64,
    /// No space for anything that is not set aside already.
    pub full: bool,
    /// Nothing can be written at all.
    pub read_only: bool,
}

#[derive(Debug, Default)]
struct FileState {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// Written since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Bytes that are set aside.
    reserved: usize,
}

impl FileState {
    /// Some of what is not synced reaches the medium, sector by sector.
    fn leak(&mut self, rng: &mut Rng) {
        let mood = rng.below(3);
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            let mut at = 0;
            while at < bytes.len() {
                let len = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
                if mood == 0 || (mood == 1 && rng.below(2) == 0) {
                    put(&mut self.durable, offset + at, &bytes[at..at + len]);
                }
                at += len;
            }
        }
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[derive(Debug)]
struct State {
    rng: Rng,
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    /// A sync that lies: a defect of the simulated disk, to see that the oracle finds it.
    forgets: bool,
}

/// The simulated state directory. Clones are the same directory.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub fn new(rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            faults: Faults::default(),
            forgets: false,
        })))
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// From now on a sync does nothing and says that it did.
    pub fn forget_syncs(&self) {
        self.0.lock().forgets = true;
    }

    /// Power loss: what was not synced is gone, or not.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        let State { rng, files, names, durable_names, .. } = &mut *state;
        for file in files.iter_mut() {
            file.leak(rng);
            file.seen = file.durable.clone();
        }
        let mut after = BTreeMap::new();
        let all: Vec<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in all {
            let (new, old) = (names.get(&name), durable_names.get(&name));
            let kept = if new == old || rng.below(2) == 0 { new } else { old };
            if let Some(&file) = kept {
                after.insert(name, file);
            }
        }
        note(|| format!("disk: power loss leaves {:?}", after.keys().collect::<Vec<_>>()));
        *names = after.clone();
        *durable_names = after;
    }

    /// Damages what is there, as a failing medium or a stranger would. True when every slot may be gone.
    pub fn corrupt(&self, rng: &mut Rng) -> bool {
        let mut state = self.0.lock();
        let State { files, names, .. } = &mut *state;
        let kind = rng.below(5);
        note(|| format!("disk: corrupted, kind {kind}, {names:?}"));
        for &file in names.values() {
            let file = &mut files[file];
            let len = file.seen.len();
            if len == 0 {
                continue;
            }
            match kind {
                // One bit.
                0 => file.seen[rng.below(len as u64) as usize] ^= 1 << rng.below(8),
                1 => file.seen.truncate(rng.below(len as u64) as usize),
                2 => file.seen.fill(0),
                // A version to come, in both slots.
                3 => {
                    for slot in [8, len / 2 + 8] {
                        if slot < len {
                            file.seen[slot] = 200;
                        }
                    }
                }
                _ => file.seen.iter_mut().for_each(|byte| *byte = rng.next() as u8),
            }
            file.durable = file.seen.clone();
            file.unsynced.clear();
        }
        kind != 0
    }

    /// The bytes that the process sees, by name.
    pub fn files(&self) -> Vec<(String, usize)> {
        let state = self.0.lock();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].seen.len())).collect()
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl State {
    fn fail(&mut self, once_in: u64) -> io::Result<()> {
        if self.rng.once_in(once_in) { Err(eio()) } else { Ok(()) }
    }

    fn writable(&self) -> io::Result<()> {
        if self.faults.read_only { Err(io::Error::from_raw_os_error(30)) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        let once_in = state.faults.open;
        state.fail(once_in)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, reserve: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.writable()?;
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if state.faults.full && reserve > 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let once_in = state.faults.write;
        state.fail(once_in)?;
        let reserved = reserve as usize;
        state.files.push(FileState { seen: vec![0; reserved], reserved, ..FileState::default() });
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        let once_in = state.faults.open;
        state.fail(once_in)?;
        let file = *state.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.writable()?;
        let file = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.writable()?;
        state.names.remove(name).ok_or(ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let once_in = state.faults.sync;
        state.fail(once_in)?;
        if !state.forgets {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.0.lock();
        let used: usize = state.names.values().map(|file| state.files[*file].seen.len()).sum();
        let total = 1_u64 << 40;
        Ok(Space { free: if state.faults.full { 0 } else { total - used as u64 }, total })
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].seen.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let once_in = state.faults.open;
        state.fail(once_in)?;
        let offset = offset as usize;
        let seen = &state.files[self.file].seen;
        buffer.copy_from_slice(seen.get(offset..offset + buffer.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.writable()?;
        let offset = offset as usize;
        let (full, once_in) = (state.faults.full, state.faults.write);
        let fails = state.rng.once_in(once_in);
        let got = if fails { state.rng.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        let file = &mut state.files[self.file];
        if full && offset + bytes.len() > file.reserved.max(file.seen.len()) {
            return Err(ErrorKind::StorageFull.into());
        }
        put(&mut file.seen, offset, &bytes[..got]);
        file.unsynced.push((offset, bytes[..got].to_vec()));
        if fails { Err(eio()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.disk.0.lock();
        let state = &mut *guard;
        if state.rng.once_in(state.faults.sync) {
            // The pages count as clean from here on, whether they were written or not.
            state.files[self.file].leak(&mut state.rng);
            return Err(eio());
        }
        if state.forgets {
            return Ok(());
        }
        let file = &mut state.files[self.file];
        for (offset, bytes) in std::mem::take(&mut file.unsynced) {
            put(&mut file.durable, offset, &bytes);
        }
        let len = file.seen.len();
        if file.durable.len() < len {
            file.durable.resize(len, 0);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let file = &mut state.files[self.file];
        let end = ((offset + len) as usize).min(file.seen.len());
        let start = (offset as usize).min(end);
        file.seen[start..end].fill(0);
        let end = end.min(file.durable.len());
        let start = start.min(end);
        file.durable[start..end].fill(0);
        Ok(())
    }
}
