//! The world as an agent sees it: the environment of the tail.

use super::*;

/// The world as an agent sees it.
pub struct SimEnv(pub Shared);

/// An open file. Lives as long as its handle, whatever becomes of its names.
pub struct SimLog {
    world: Shared,
    inode: usize,
    gzip: bool,
}

impl SimLog {
    fn open(shared: &Shared, path: &Path, gzip: bool) -> Result<Self, OpenError> {
        let mut world = shared.lock();
        world.call();
        let once_in = world.nature.open_error;
        if world.rng.once_in(once_in) {
            // EMFILE.
            return Err(io::Error::from_raw_os_error(24).into());
        }
        let Some(node) = path.to_str().and_then(|path| world.node(path)) else {
            return Err(OpenError::Missing);
        };
        let Node::File(inode) = node else { return Err(OpenError::NotRegular) };
        if world.inodes[inode].links > 1 {
            return Err(OpenError::HardLink);
        }
        if gzip && world.inodes[inode].content != Content::Gzip {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a gzip file").into());
        }
        world.inodes[inode].handles += 1;
        note(|| {
            format!(
                "{:>11.6} agent opens {} (inode {})",
                world.now as f64 / 1e9,
                path.display(),
                world.inodes[inode].number
            )
        });
        Ok(Self { world: Arc::clone(shared), inode, gzip })
    }
}

impl Drop for SimLog {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        let inode = self.inode;
        note(|| {
            format!("{:>11.6} agent closes inode {}", world.now as f64 / 1e9, world.inodes[inode].number)
        });
        world.close(inode);
    }
}

impl LogFile for SimLog {
    fn stat(&self) -> io::Result<Stat> {
        let mut world = self.world.lock();
        world.call();
        let once_in = world.nature.read_error;
        if world.rng.once_in(once_in) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let inode = &world.inodes[self.inode];
        let links = if self.gzip { 1 } else { u64::from(inode.links) };
        Ok(Stat { device: 8, inode: inode.number, size: inode.data.len() as u64, links })
    }

    fn read_at(&self, offset: u64, max: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut world = self.world.lock();
        world.call();
        let once_in = world.nature.read_error;
        if world.rng.once_in(once_in) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let data = &world.inodes[self.inode].data;
        let from = (offset as usize).min(data.len());
        let to = (from + max).min(data.len());
        if to > from {
            note(|| {
                let number = world.inodes[self.inode].number;
                format!("{:>11.6} agent reads inode {number} {from}..{to}", world.now as f64 / 1e9)
            });
        }
        let start = buffer.len();
        buffer.extend_from_slice(&data[from..to]);
        if world.flip && to - from > 200 && world.now > 5 * SECOND {
            let at = buffer[start..].windows(4).position(|text| text == b"len=");
            if let Some(at) = at {
                buffer[start + at] = b'L';
                world.flip = false;
            }
        }
        Ok(to - from)
    }
}

impl Env for SimEnv {
    type File = SimLog;

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut world = self.0.lock();
        world.call();
        let once_in = world.nature.list_error;
        if world.rng.once_in(once_in) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let found = dir.to_str().and_then(|dir| world.dirs.get(dir)).ok_or(io::ErrorKind::NotFound)?;
        let kind = |node: &Node| if matches!(node, Node::Dir) { Kind::Directory } else { Kind::File };
        let mut entries: Vec<Entry> =
            found.names.iter().map(|(name, node)| Entry { name: name.clone(), kind: kind(node) }).collect();
        // In any order.
        let len = entries.len();
        for at in 1..len {
            entries.swap(at, world.rng.below(at as u64 + 1) as usize);
        }
        Ok(entries)
    }

    fn modified(&self, dir: &Path) -> io::Result<u64> {
        let mut world = self.0.lock();
        world.call();
        let found = dir.to_str().and_then(|dir| world.dirs.get(dir)).ok_or(io::ErrorKind::NotFound)?;
        Ok(found.modified)
    }

    fn open(&self, path: &Path) -> Result<SimLog, OpenError> {
        SimLog::open(&self.0, path, false)
    }

    fn open_gzip(&self, path: &Path) -> Result<SimLog, OpenError> {
        SimLog::open(&self.0, path, true)
    }

    fn identity(&self, path: &Path) -> io::Result<(u64, u64)> {
        let mut world = self.0.lock();
        world.call();
        let inode = path.to_str().and_then(|path| world.file(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok((8, world.inodes[inode].number))
    }

    fn link_target(&self, _: &Path) -> Option<PathBuf> {
        None
    }

    fn watch(&mut self, dir: &Path) {
        let mut world = self.0.lock();
        world.call();
        if let Some(dir) = dir.to_str() {
            world.watched.insert(dir.to_owned());
        }
    }

    fn unwatch(&mut self, dir: &Path) {
        if let Some(dir) = dir.to_str() {
            self.0.lock().watched.remove(dir);
        }
    }

    fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.0.lock().changed)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.lock().now)
    }

    fn unix_nano(&self) -> u64 {
        self.0.lock().wall()
    }
}
