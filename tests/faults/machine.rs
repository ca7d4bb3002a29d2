//! What a row does to the machine: mounts, control groups, full disks. Each is a guard that undoes itself, on panic too.
//!
//! All of it needs root; what cannot be had is an error that says why, and the row is skipped with it. A guard is made
//! before the rig, so that it outlives the agent that runs in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Pseudo-random numbers from a seed (SplitMix64), so that a run can be repeated.
pub struct Chance(pub u64);

impl Chance {
    /// `NODEWICK_FAULT_SEED`, else the clock.
    pub fn of_run() -> Self {
        let set = std::env::var("NODEWICK_FAULT_SEED").ok().and_then(|text| text.parse().ok());
        Self(set.unwrap_or_else(crate::line::unix_millis))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `least` to below `end`.
    pub fn between(&mut self, least: u64, end: u64) -> u64 {
        least + self.number() % (end - least).max(1)
    }
}

/// Runs a program; what it complained of when it failed.
fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of our own is text")
}

/// A mounted file system. Unmounted when dropped.
pub struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    fn new(at: &Path, words: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run("mount", words)?;
        Ok(Self { at: at.to_owned(), mounted: true })
    }

    /// A file system in memory of so many KiB.
    pub fn tmpfs(at: &Path, kib: u64) -> Result<Self, String> {
        Self::new(at, &["-t", "tmpfs", "-o", &format!("size={kib}k,mode=700"), "nodewick-test", text(at)])
    }

    /// An ext4 of so many MiB in the file `image`, which is made anew; read-only from its first error on.
    pub fn ext4(image: &Path, at: &Path, mib: u64) -> Result<Self, String> {
        let file = File::create(image).and_then(|file| file.set_len(mib << 20));
        file.map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-O", "^has_journal", "-N", "64", text(image)])?;
        Self::ext4_again(image, at)
    }

    /// The same, as it was left.
    pub fn ext4_again(image: &Path, at: &Path) -> Result<Self, String> {
        Self::new(at, &["-t", "ext4", "-o", "loop,errors=remount-ro", text(image), text(at)])
    }

    /// A directory mounted over itself, read-only: root cannot write there either.
    pub fn read_only(at: &Path) -> Result<Self, String> {
        let mount = Self::new(at, &["--bind", text(at), text(at)])?;
        run("mount", &["-o", "remount,ro,bind", text(at)])?;
        Ok(mount)
    }

    /// Makes an ext4 believe that it found an error: it turns read-only, whoever writes.
    pub fn break_ext4(&self) -> Result<(), String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let device = mounts.lines().rev().find_map(|line| {
            let mut words = line.split(' ');
            let device = words.next()?.strip_prefix("/dev/")?;
            (words.next()? == text(&self.at)).then(|| device.to_owned())
        });
        let device = device.ok_or("the mount is not listed")?;
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        // The kernel tells the writer too that the file system has an error.
        let _ = fs::write(&trigger, "1");
        match fs::write(self.at.join(".probe"), b"") {
            Ok(()) => Err(format!("{trigger} does not turn it read-only")),
            Err(_) => Ok(()),
        }
    }

    /// Writes until nothing more fits; how many bytes that were. Removing `name` frees them.
    pub fn fill(&self, name: &str) -> u64 {
        let mut file = File::create(self.at.join(name)).expect("a file that fills a disk");
        let mut filled = 0;
        for piece in [1 << 16, 4096, 512, 1] {
            let zeros = vec![0xa5; piece];
            while file.write_all(&zeros).is_ok() {
                filled += piece as u64;
                assert!(filled < 1 << 30, "a small file system has no end");
            }
        }
        filled
    }

    /// Unmounts it now.
    pub fn end(mut self) {
        self.unmount();
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) && run("umount", &[text(&self.at)]).is_err() {
            // Somebody is still in it: it goes with its last user.
            let _ = run("umount", &["-l", text(&self.at)]);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A control group of either version. Removed when dropped; whoever is in it must have ended.
pub struct Cgroup {
    directory: PathBuf,
    /// Where its processes go when it is left.
    parent: PathBuf,
    unified: bool,
}

/// Numbers the groups of this process.
static GROUPS: AtomicU32 = AtomicU32::new(0);

impl Cgroup {
    /// A group below our own with `controller`, so that whatever limits us limits it too.
    fn new(controller: &str) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let name = format!("nodewick-{}-{}", std::process::id(), GROUPS.fetch_add(1, Ordering::Relaxed));
        let mut problem = format!("no control group with {controller}");
        for line in own.lines() {
            let mut parts = line.splitn(3, ':');
            let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let unified = controllers.is_empty();
            if !unified && !controllers.split(',').any(|known| known == controller) {
                continue;
            }
            let root =
                if unified { "/sys/fs/cgroup".to_owned() } else { format!("/sys/fs/cgroup/{controller}") };
            // A group that has processes cannot pass its controllers on: then the root's children are asked.
            for parent in [Path::new(&root).join(path.trim_start_matches('/')), PathBuf::from(&root)] {
                if unified {
                    let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
                }
                let group = Self { directory: parent.join(&name), parent, unified };
                match fs::create_dir(&group.directory) {
                    Ok(()) if group.file(controller).exists() => return Ok(group),
                    Ok(()) => {}
                    Err(error) => problem = format!("{}: {error}", group.directory.display()),
                }
            }
        }
        Err(problem)
    }

    /// The file in which the limit stands.
    fn file(&self, controller: &str) -> PathBuf {
        self.directory.join(match (controller, self.unified) {
            ("memory", true) => "memory.max",
            ("memory", false) => "memory.limit_in_bytes",
            (_, true) => "cpu.max",
            (_, false) => "cpu.cfs_quota_us",
        })
    }

    /// At most so many bytes.
    pub fn memory(bytes: u64) -> Result<Self, String> {
        let group = Self::new("memory")?;
        fs::write(group.file("memory"), bytes.to_string()).map_err(|error| error.to_string())?;
        Ok(group)
    }

    /// At most so many thousandths of a CPU, in periods of 100 ms.
    pub fn cpu(thousandths: u64) -> Result<Self, String> {
        let group = Self::new("cpu")?;
        let quota = thousandths * 100;
        let limit = if group.unified { format!("{quota} 100000") } else { quota.to_string() };
        fs::write(group.file("cpu"), limit).map_err(|error| error.to_string())?;
        Ok(group)
    }

    /// What starts a program within the group.
    pub fn under(&self) -> Vec<String> {
        let procs = self.directory.join("cgroup.procs");
        let script = format!("echo $$ > '{}' && exec \"$@\"", procs.display());
        vec!["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]
    }

    /// Takes a process in.
    pub fn enter(&self, pid: i32) -> Result<(), String> {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).map_err(|error| error.to_string())
    }

    /// Lets a process go.
    pub fn leave(&self, pid: i32) {
        let _ = fs::write(self.parent.join("cgroup.procs"), pid.to_string());
    }

    /// Processes that the kernel killed for want of memory.
    pub fn out_of_memory_kills(&self) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just killed may be listed for a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What starts a program with its syncs failing, from the fifth of each thread on, while the file `flag` exists.
pub fn failing_syncs(flag: &Path) -> Result<Vec<String>, String> {
    let inject = "strace -D -f --seccomp-bpf -qq -o /dev/null -e trace=fsync,fdatasync \
                  -e inject=fsync,fdatasync:error=EIO:when=";
    let script = |from: u32| {
        format!("if [ -e '{}' ]; then exec {inject}{from}+ \"$@\"; else exec \"$@\"; fi", flag.display())
    };
    // Whether it can be attached here: a sync that must fail.
    fs::write(flag, b"").map_err(|error| error.to_string())?;
    let tried = Command::new("sh")
        .args(["-c", &script(1), "sh", "sync", text(flag)])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&tried.stderr);
    if tried.status.success() || !said.contains("Input/output error") {
        return Err(format!("strace cannot make a sync fail here: {}", said.trim()));
    }
    Ok(vec!["sh".to_owned(), "-c".to_owned(), script(5), "sh".to_owned()])
}
