//! Where the state of an agent for one process is: the configured state directory, or one of the user's own.
//!
//! In: the configured directory and the service's name. Out: a [`Place`] that no other process uses at the same time.
//! Invariant: the same service gets the same place again, so that what was not delivered goes out at the next start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Processes of one service that have a place of their own at the same time.
const PLACES: usize = 64;

/// A directory for one process, locked while this lives.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    _lock: File,
}

/// No directory can be had.
#[derive(Debug, thiserror::Error)]
#[error("no directory for state can be written ({causes}); set [agent] state_dir to one that can")]
pub struct NoPlace {
    causes: String,
}

impl Place {
    /// Takes the first free place of a service below the state directory, or where a user may write.
    pub fn take(state_dir: &Path, service: &str) -> Result<Self, NoPlace> {
        let mut causes = Vec::new();
        for base in bases(state_dir) {
            match Self::below(&base, service) {
                Ok(place) => return Ok(place),
                Err(error) => causes.push(format!("{}: {error}", base.display())),
            }
        }
        Err(NoPlace { causes: causes.join("; ") })
    }

    fn below(base: &Path, service: &str) -> io::Result<Self> {
        let name = file_name(service);
        for number in 1..=PLACES {
            let dir = match number {
                1 => base.join(format!("process-{name}")),
                number => base.join(format!("process-{name}.{number}")),
            };
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let path = dir.join("writer.lock");
            let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).to_owned();
            let lock = options.open(path)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { dir, _lock: lock }),
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(format!("{PLACES} processes of this service run already")))
    }

    /// The state directory of the agent.
    pub fn state(&self) -> PathBuf {
        self.dir.clone()
    }

    /// The directory of the spool.
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }
}

/// Directories for state, the first that can be written: the configured one, the user's own, a temporary one.
fn bases(state_dir: &Path) -> Vec<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = var("XDG_STATE_HOME").or_else(|| var("HOME").map(|home| home.join(".local/state")));
    let mut bases = vec![state_dir.to_owned()];
    bases.extend(user.filter(|dir| dir.is_absolute()).map(|dir| dir.join("nodewick")));
    bases.extend(temporary());
    bases
}

/// A directory for temporary files that belongs to us alone.
fn temporary() -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let dir = std::env::temp_dir().join(format!("nodewick-{uid}"));
    let made = fs::DirBuilder::new().mode(0o700).create(&dir);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return None;
    }
    let meta = fs::symlink_metadata(&dir).ok()?;
    (meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0).then_some(dir)
}

/// The state directory for a user's own agent: the configured one if it can be written, else the user's own.
pub fn writable_state_dir(state_dir: &Path) -> PathBuf {
    let can_write = |dir: &PathBuf| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).is_ok()
            && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
    };
    bases(state_dir).into_iter().find(can_write).unwrap_or_else(|| state_dir.to_owned())
}

/// A name as it may stand in a path without meaning anything there.
pub fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let name: String = name.chars().map(safe).take(100).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_one_service_have_places_of_their_own() {
        let base = tempfile::tempdir().expect("temp dir");
        let first = Place::take(base.path(), "a/../b").expect("a place");
        let second = Place::take(base.path(), "a/../b").expect("another");
        assert_eq!(first.state(), base.path().join("process-a____b"));
        assert_eq!(second.state(), base.path().join("process-a____b.2"));
        drop(first);
        let again = Place::take(base.path(), "a/../b").expect("the first again");
        assert_eq!(again.state(), base.path().join("process-a____b"));
    }
}
