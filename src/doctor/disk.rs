//! Checks of the state directory: that positions survive, and that there is room for the spill.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{Access as Mode, FlockOperation, StatVfs, StatVfsMountFlags};

use super::{Check, Finding, Site, Stage};
use crate::config::memory::Human;
use crate::logs::private::{self, Access, Open};

pub(super) const STATE_DIR: Check = Check {
    name: "state-dir",
    looks_at: "`[agent] state_dir` can be written, lies on a disk that survives the pod, and is nobody else's to read.",
    means: "It holds the checkpoint and the spill. Without it the agent reads every log again after a restart. On tmpfs or \
            in the container's own layer it is lost with the node's or the pod's next restart: mount a hostPath. Others \
            may look into a directory with a mode wider than 0700; the agent changes the mode of one that is its own alone.",
    pre: false,
    stage: Stage::Local,
    run: state_dir,
};

pub(super) const STATE_SPACE: Check = Check {
    name: "state-space",
    looks_at: "The state directory's disk has room for `[logs.spill] budget` above `min_free`, and free inodes.",
    means: "Below `min_free` nothing is spilled: what the kubelet deletes during an outage of the backend is then lost and \
            counted. The checkpoint itself is set aside in advance and needs no free space.",
    pre: false,
    stage: Stage::Local,
    run: state_space,
};

/// Source: kernel `include/uapi/linux/magic.h`.
const KINDS: [(i64, &str); 4] = [
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs, the container's own layer"),
    (0x8584_58f6, "ramfs"),
    (0x6969, "NFS"),
];

/// With less than this a checkpoint cannot begin a new file.
const FULL: u64 = 4 << 20;

const HOST_PATH: &str = "volumeMounts: [{name: state, mountPath: /var/lib/nodewick}]\nvolumes: [{name: state, hostPath: \
                         {path: /var/lib/nodewick, type: DirectoryOrCreate}}]";

/// True when another process holds the directory's lock: an agent runs on it.
pub(super) fn is_held(dir: &Path) -> bool {
    // Opened for reading, and let go at once: an agent that starts at this moment tries again within a second.
    let Ok(lock) = File::open(dir.join("lock")) else { return false };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

fn state_dir(site: &Site) -> Vec<Finding> {
    let dir = &site.config().agent.state_dir;
    let shown = dir.display();
    let mount =
        |what: &str| format!("{what}\n{}", HOST_PATH.replace("/var/lib/nodewick", &shown.to_string()));
    let kind = match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => kind_of(dir),
        Ok(_) => {
            return vec![Finding::failure(
                format!("{shown} is not a directory"),
                "remove it, or change [agent] state_dir",
            )];
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return vec![missing(site, dir)],
        Err(error) => {
            return vec![Finding::failure(
                format!("cannot look at {shown}: {error}"),
                &mount("mount a writable directory:"),
            )];
        }
    };
    let held = is_held(dir);
    if let Err(error) = writable(dir, held) {
        let text = format!("cannot write in {shown}: {error}");
        return vec![Finding::failure(
            text,
            &mount("mount a writable directory, mode 0700, owned by uid 0:"),
        )];
    }
    let holder = if held { "held by the running agent" } else { "no agent holds it" };
    let mut findings = Vec::new();
    if let Some(kind) = kind {
        let text = format!("{shown} is on {kind}: positions do not survive");
        findings.push(Finding::warning(text, &mount("mount a directory of the node's disk:")));
    }
    findings.extend(open_to_others(dir));
    if findings.is_empty() {
        findings.push(Finding::ok(format!("{shown} is writable, {holder}")));
    }
    findings
}

/// Others may look into the directory, and the agent leaves its mode as it is.
fn open_to_others(dir: &Path) -> Option<Finding> {
    let shown = dir.display();
    // What is the agent's alone it makes private at its start.
    let Ok(Access::Open(mode, why)) = private::access(dir) else { return None };
    let (why, fix) = match why {
        Open::Owner(uid) => (
            format!("it belongs to uid {uid}"),
            format!("chown {} {shown} && chmod 0700 {shown}", rustix::process::geteuid().as_raw()),
        ),
        Open::Shared(name) => (
            format!("{name} in it is not the agent's"),
            format!("give the agent a directory of its own, mode 0700; or chmod 0700 {shown}"),
        ),
    };
    Some(Finding::warning(format!("{shown} has mode {mode:04o} and stays so: {why}"), &fix))
}

fn missing(site: &Site, dir: &Path) -> Finding {
    let shown = dir.display();
    let Some(parent) = dir.ancestors().skip(1).find(|parent| parent.exists()) else {
        return Finding::failure(format!("{shown} does not exist"), "change [agent] state_dir");
    };
    match rustix::fs::access(parent, Mode::WRITE_OK) {
        Ok(()) if !site.in_pod() => Finding::ok(format!("{shown} does not exist yet; the agent makes it")),
        Ok(()) => Finding::warning(format!("{shown} is not mounted"), HOST_PATH),
        Err(_) => Finding::failure(
            format!("{shown} does not exist and {} cannot be written", parent.display()),
            HOST_PATH,
        ),
    }
}

/// The kind of file system, where it is one that forgets.
fn kind_of(dir: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type as i64;
    KINDS.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

fn writable(dir: &Path, held: bool) -> std::io::Result<()> {
    let flags = rustix::fs::statvfs(dir)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Err(std::io::Error::from(ErrorKind::ReadOnlyFilesystem));
    }
    rustix::fs::access(dir, Mode::WRITE_OK | Mode::EXEC_OK)?;
    if held {
        return Ok(());
    }
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let written = std::fs::write(&probe, b"nodewick doctor");
    // Left behind, it would only be a small file of ours.
    let _ = std::fs::remove_file(&probe);
    match written {
        // A full disk is the other check's.
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
        other => other,
    }
}

fn state_space(site: &Site) -> Vec<Finding> {
    let config = site.config();
    let Some(dir) = config.agent.state_dir.ancestors().find(|dir| dir.exists()) else { return Vec::new() };
    let Ok(space) = rustix::fs::statvfs(dir) else { return Vec::new() };
    vec![room(
        &space,
        config.logs.spill.budget.0,
        u64::from(config.logs.spill.min_free.millionths()),
        spilled(site),
    )]
}

/// What the spill of the running agent holds.
fn spilled(site: &Site) -> u64 {
    let metrics = site.running().map(|agent| agent.metrics.as_slice()).unwrap_or_default();
    metrics
        .iter()
        .find(|sample| sample.name == "nodewick_spill_bytes")
        .map_or(0, |sample| sample.value as u64)
}

fn room(space: &StatVfs, budget: u64, min_free_millionths: u64, spilled: u64) -> Finding {
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    let reserved = (u128::from(total) * u128::from(min_free_millionths) / 1_000_000) as u64;
    // Some file systems have no inodes to count.
    if space.f_files > 0 && space.f_favail < 100 {
        let text = format!("{} free inodes are left on the state directory's disk", space.f_favail);
        return Finding::failure(text, "find who made the files: `df -i`, `du --inodes -xd1 / | sort -n`");
    }
    if budget == 0 {
        return Finding::ok(format!("{} free; the spill is off", Human(free)));
    }
    let usable = free.saturating_sub(reserved);
    let needed = budget.saturating_sub(spilled);
    if free < FULL {
        let text =
            format!("the state directory's disk is full: {} of {} are free", Human(free), Human(total));
        return Finding::failure(
            text,
            "free space on the node's disk, or use another one for [agent] state_dir",
        );
    }
    if usable == 0 && needed > 0 {
        let text = format!(
            "{} of {} are free, less than [logs.spill] min_free: nothing can be spilled",
            Human(free),
            Human(total)
        );
        return Finding::warning(
            text,
            "free space on the node's disk, or use another one for [agent] state_dir",
        );
    }
    if usable < needed {
        let text =
            format!("the spill may grow by {} only, its budget has {} left", Human(usable), Human(needed));
        let fix = format!(
            "free space on the node's disk, or say what there is:\n[logs.spill]\nbudget = \"{}MiB\"",
            ((usable + spilled) >> 20).max(1)
        );
        return Finding::warning(text, &fix);
    }
    Finding::ok(format!("{} free, the spill takes at most {}", Human(free), Human(budget)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    fn space(free: u64, total: u64, inodes: u64) -> StatVfs {
        let mut space = rustix::fs::statvfs("/").expect("a root");
        (space.f_frsize, space.f_bavail, space.f_blocks) = (1 << 20, free, total);
        (space.f_files, space.f_favail) = (1000, inodes);
        space
    }

    #[test]
    fn room_is_held_against_budget_and_min_free() {
        let gib = 1 << 30;
        let look = |free, inodes, spilled| {
            let found = room(&space(free, 10 << 10, inodes), gib, 150_000, spilled);
            (found.status, found.text)
        };
        assert_eq!(
            look(5 << 10, 500, 0),
            (Status::Ok, "5 GiB free, the spill takes at most 1 GiB".to_owned())
        );
        assert_eq!(
            look(2036, 500, 0),
            (Status::Warning, "the spill may grow by 500 MiB only, its budget has 1 GiB left".to_owned())
        );
        assert_eq!(look(2036, 500, 600 << 20).0, Status::Ok, "what is spilled already needs no further room");
        assert_eq!(
            look(1000, 500, 0),
            (
                Status::Warning,
                "1000 MiB of 10 GiB are free, less than [logs.spill] min_free: nothing can be spilled"
                    .to_owned()
            )
        );
        assert_eq!(
            look(3, 500, 0),
            (Status::Failure, "the state directory's disk is full: 3 MiB of 10 GiB are free".to_owned())
        );
        assert_eq!(
            look(5 << 10, 7, 0),
            (Status::Failure, "7 free inodes are left on the state directory's disk".to_owned())
        );
    }

    #[test]
    fn a_directory_that_others_may_look_into_is_a_warning_where_it_is_not_ours_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let loose = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), loose).expect("ours");
        assert!(open_to_others(dir.path()).is_none(), "the agent makes it private");
        std::fs::write(dir.path().join("agent.toml"), "").expect("written");
        let found = open_to_others(dir.path()).expect("a warning");
        assert_eq!(found.status, Status::Warning);
        let shown = dir.path().display();
        assert_eq!(
            found.text,
            format!("{shown} has mode 0755 and stays so: agent.toml in it is not the agent's")
        );
    }

    #[test]
    fn a_directory_is_held_while_an_agent_has_its_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!is_held(dir.path()));
        let state = crate::logs::driver::StateDir::open(dir.path()).expect("usable").expect("free");
        assert!(is_held(dir.path()));
        drop(state);
        assert!(!is_held(dir.path()));
    }
}
