//! The state directory is the agent's alone: mode 0700, as what it holds are pieces of everybody's logs.
//!
//! In: a directory. Out: who else may look into it, and why it stays so. A `hostPath` of type `DirectoryOrCreate` is made
//! with mode 0755 by the kubelet. Invariant: the mode of a directory changes only where it is ours and nothing but our
//! own files is in it; nothing else is ever changed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tracing::{info, warn};

/// Names that the agent gives to files and directories in its state directory, a number or another ending behind some.
const OURS: [&str; 5] = ["lock", "writer.lock", "spool", "local", "dead-letter.jsonl"];
/// What other names of ours begin with.
const OURS_BEGIN: [&str; 6] = ["positions.", "spill.", "dead-letter.jsonl.", ".probe-", "process-", "logs-"];

/// Why a directory that others may look into stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// It is another user's.
    Owner(u32),
    /// Something is in it that is not ours.
    Shared(String),
}

/// Who may look into a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Its owner.
    Private,
    /// Others too, by this mode; it is ours to change.
    Loose(u32),
    /// Others too, by this mode, and it is not ours alone.
    Open(u32, Open),
}

/// Who may look into `directory`.
pub fn access(directory: &Path) -> io::Result<Access> {
    let meta = fs::metadata(directory)?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(Access::Private);
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(Access::Open(mode, Open::Owner(meta.uid())));
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !OURS.contains(&name.as_str()) && !OURS_BEGIN.iter().any(|begin| name.starts_with(begin)) {
            return Ok(Access::Open(mode, Open::Shared(name)));
        }
    }
    Ok(Access::Loose(mode))
}

/// Makes a directory private that is ours alone. What cannot be changed is said by `nodewick doctor`, and holds nothing
/// up: every file in it has a mode of its own.
pub(super) fn tighten(directory: &Path) {
    let Ok(Access::Loose(mode)) = access(directory) else { return };
    match fs::set_permissions(directory, Permissions::from_mode(0o700)) {
        Ok(()) => {
            info!(directory = %directory.display(), "the state directory had mode {mode:04o}; it has 0700 now");
        }
        Err(error) => {
            warn!(directory = %directory.display(), %error, "cannot give the state directory mode 0700");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::driver::StateDir;

    fn with_mode(mode: u32, names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            fs::write(dir.path().join(name), "").expect("written");
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("ours");
        dir
    }

    fn mode(dir: &tempfile::TempDir) -> u32 {
        fs::metadata(dir.path()).expect("there").mode() & 0o7777
    }

    #[test]
    fn a_state_directory_of_our_own_is_made_private() {
        for names in
            [&[][..], &["lock", "positions.0", "spill.17", "dead-letter.jsonl", "dead-letter.jsonl.1"]]
        {
            let dir = with_mode(0o755, names);
            assert_eq!(access(dir.path()).expect("readable"), Access::Loose(0o755));
            let state = StateDir::open(dir.path()).expect("usable").expect("free");
            assert_eq!(mode(&dir), 0o700, "{names:?}");
            drop(state);
            assert_eq!(access(dir.path()).expect("readable"), Access::Private);
        }
    }

    #[test]
    fn a_directory_that_others_use_is_left_alone() {
        for name in ["agent.toml", "positions", "spilled.txt", "lost+found"] {
            let dir = with_mode(0o755, &["lock", name]);
            let _state = StateDir::open(dir.path()).expect("usable").expect("free");
            assert_eq!(mode(&dir), 0o755, "{name}");
            let open = Access::Open(0o755, Open::Shared(name.to_owned()));
            assert_eq!(access(dir.path()).expect("readable"), open);
        }
        let sticky = with_mode(0o1777, &["x"]);
        let _state = StateDir::open(sticky.path()).expect("usable").expect("free");
        assert_eq!(mode(&sticky), 0o1777);
        let strict = with_mode(0o500, &["x"]);
        assert_eq!(access(strict.path()).expect("readable"), Access::Private);
    }
}
