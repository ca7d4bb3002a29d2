//! Finds the cgroups of pods' containers, and reads one.
//!
//! In: a cgroup v2 tree. Out: pod uid, container id and figures. Invariant: at most [`MOST_DIRECTORIES`] directories are
//! looked at, [`DEEPEST`] levels down: cgroups within containers are theirs and are not walked.
//!
//! The kubelet's two drivers name them differently: systemd `kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope`
//! (dashes of the uid as underscores), cgroupfs `kubepods/burstable/pod<uid>/<id>`. Source: `k8s.io/kubernetes`,
//! `pkg/kubelet/cm/cgroup_manager_linux.go`, `pod_container_manager_linux.go`; kernel `admin-guide/cgroup-v2.rst`.

use std::path::{Path, PathBuf};

use super::procfs::{flat, pressure, read};

/// Directories that one walk looks at.
const MOST_DIRECTORIES: usize = 8192;
/// Levels below the root: kind and others put a slice or two of their own above the kubelet's.
const DEEPEST: usize = 8;

/// A container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The pod's uid.
    pub(super) uid: String,
    /// The container's id, as the runtime has it.
    pub(super) id: String,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// All containers' cgroups below `root`.
pub(super) fn find(root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let mut left = MOST_DIRECTORIES;
    // Only what belongs to the kubelet is walked, and what stands above it.
    let mut open = vec![(root.to_owned(), 0, false)];
    while let Some((directory, depth, inside)) = open.pop() {
        for (name, path) in directories(&directory) {
            if left == 0 {
                return found;
            }
            left -= 1;
            let kubelets = inside || name.contains("kubepods");
            match pod_uid(&name).filter(|_| kubelets) {
                Some(uid) => {
                    for (name, path) in directories(&path) {
                        left = left.saturating_sub(1);
                        if let Some(id) = container_id(&name) {
                            found.push(Found { uid: uid.clone(), id: id.to_owned(), path });
                        }
                    }
                }
                None if depth < DEEPEST && (kubelets || may_hold_kubepods(&name)) => {
                    open.push((path, depth + 1, kubelets));
                }
                None => {}
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn directories(path: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// What the kubelet's own tree may stand in: k3s and kind run it in a slice or scope of theirs.
fn may_hold_kubepods(name: &str) -> bool {
    ["kubelet", "docker", "system", "k3s", "k8s", "podman", "machine", "init", "lxc"]
        .iter()
        .any(|part| name.contains(part))
}

/// The pod's uid in the name of its cgroup.
fn pod_uid(name: &str) -> Option<String> {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.rsplit_once("-pod") {
        Some((head, uid)) if head.contains("kubepods") => uid.replace('_', "-"),
        _ => name.strip_prefix("pod")?.to_owned(),
    };
    let plain = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (uid.len() >= 32 && uid.len() <= 36 && plain).then_some(uid)
}

/// The container's id in the name of its cgroup: 64 hexadecimal digits.
fn container_id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// Bytes and operations of one disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Io {
    /// Device number.
    pub(super) number: (u32, u32),
    /// Bytes read, bytes written, reads, writes.
    pub(super) figures: [f64; 4],
}

/// What a cgroup says. `None` where a file is missing: a controller is not on.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Figures {
    /// CPU seconds: all, user, system.
    pub(super) cpu: [Option<f64>; 3],
    /// Enforcement periods, throttled ones, and seconds throttled.
    pub(super) throttling: [Option<f64>; 3],
    /// Quota in microseconds a period; `None` without a limit.
    pub(super) quota: Option<f64>,
    /// Period in microseconds.
    pub(super) period: Option<f64>,
    /// Bytes: in use, working set, anonymous, page cache, mapped files, swap.
    pub(super) memory: [Option<f64>; 6],
    /// Memory limit in bytes; 0 without one, as cAdvisor has it.
    pub(super) memory_limit: Option<f64>,
    /// Processes killed for lack of memory.
    pub(super) oom_kills: Option<f64>,
    /// Page faults that read from a disk.
    pub(super) major_faults: Option<f64>,
    /// Threads.
    pub(super) threads: Option<f64>,
    /// By disk.
    pub(super) io: Vec<Io>,
    /// Seconds that some and that all waited: CPU, I/O, memory.
    pub(super) pressure: [Option<f64>; 6],
}

/// Reads a cgroup.
pub(super) fn figures(path: &Path) -> Figures {
    let file = |name: &str| read(&path.join(name));
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let (cpu, stat) = (file("cpu.stat"), file("memory.stat"));
    let micros = |name: &str| flat(&cpu, name).map(|micros| micros / 1e6);
    let current = number(&file("memory.current"));
    let idle = flat(&stat, "inactive_file").unwrap_or(0.0);
    let max = file("cpu.max");
    let mut max = max.split_ascii_whitespace();
    let (quota, period) = (max.next().and_then(number), max.next().and_then(number));
    let limit = file("memory.max");
    let mut waits = [None; 6];
    for (at, name) in ["cpu.pressure", "io.pressure", "memory.pressure"].into_iter().enumerate() {
        let (some, all) = pressure(&file(name));
        (waits[2 * at], waits[2 * at + 1]) = (some, all);
    }
    Figures {
        cpu: [micros("usage_usec"), micros("user_usec"), micros("system_usec")],
        throttling: [flat(&cpu, "nr_periods"), flat(&cpu, "nr_throttled"), micros("throttled_usec")],
        quota,
        period,
        memory: [
            current,
            current.map(|bytes| (bytes - idle).max(0.0)),
            flat(&stat, "anon"),
            flat(&stat, "file"),
            flat(&stat, "file_mapped"),
            number(&file("memory.swap.current")),
        ],
        memory_limit: if limit.trim() == "max" { Some(0.0) } else { number(&limit) },
        oom_kills: flat(&file("memory.events"), "oom_kill"),
        major_faults: flat(&stat, "pgmajfault"),
        threads: number(&file("pids.current")),
        io: io(&file("io.stat")),
        pressure: waits,
    }
}

fn io(text: &str) -> Vec<Io> {
    let disks = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let number = (major.parse().ok()?, minor.parse().ok()?);
        let mut figures = [0.0; 4];
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            if let Some(at) = ["rbytes", "wbytes", "rios", "wios"].iter().position(|known| *known == key) {
                figures[at] = value.parse().ok()?;
            }
        }
        Some(Io { number, figures })
    });
    disks.take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "193a2b34481cd7692004689165e3d4b5677753e85e40517bb68ba8d27a764942";
    const UID: &str = "0b4a0405-b219-4ede-abd9-05e040ff53a9";

    #[test]
    fn both_drivers_names_are_read() {
        let systemd = "kubepods-burstable-pod0b4a0405_b219_4ede_abd9_05e040ff53a9.slice";
        for name in [
            systemd,
            "kubepods-pod0b4a0405_b219_4ede_abd9_05e040ff53a9.slice",
            "kubelet-kubepods-besteffort-pod0b4a0405_b219_4ede_abd9_05e040ff53a9.slice",
            "pod0b4a0405-b219-4ede-abd9-05e040ff53a9",
        ] {
            assert_eq!(pod_uid(name).as_deref(), Some(UID), "{name}");
        }
        // A static pod's uid is a hash without dashes.
        assert_eq!(
            pod_uid("kubepods-burstable-pod4f0ee3f0eb2ab3b0ed8a2c3ff2ac0ec8.slice").as_deref(),
            Some("4f0ee3f0eb2ab3b0ed8a2c3ff2ac0ec8")
        );
        for other in ["kubepods.slice", "pod", "podman.slice", "pod../../x", "user-pod1.slice"] {
            assert_eq!(pod_uid(other), None, "{other}");
        }
        for name in [format!("cri-containerd-{ID}.scope"), format!("crio-{ID}.scope"), ID.to_owned()] {
            assert_eq!(container_id(&name), Some(ID), "{name}");
        }
        assert_eq!(container_id(&format!("crio-conmon-{}.scope", &ID[1..])), None);
    }

    #[test]
    fn a_cgroup_reads_back() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 4\n\
                 throttled_usec 750000\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("memory.current", "1000000\n"),
            (
                "memory.stat",
                "anon 600000\nfile 300000\nfile_mapped 100000\ninactive_file 250000\npgmajfault 7\n",
            ),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n"),
            ("pids.current", "12\n"),
            ("io.stat", "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16\nbad\n"),
            ("cpu.pressure", "some avg10=0.00 total=1500000\nfull avg10=0.00 total=500000\n"),
        ] {
            std::fs::write(directory.path().join(name), text).expect("a file");
        }
        let found = figures(directory.path());
        assert_eq!(found.cpu, [Some(2.5), Some(2.0), Some(0.5)]);
        assert_eq!(found.throttling, [Some(10.0), Some(4.0), Some(0.75)]);
        assert_eq!((found.quota, found.period), (Some(50000.0), Some(100000.0)));
        assert_eq!(
            found.memory,
            [Some(1e6), Some(750_000.0), Some(600_000.0), Some(300_000.0), Some(100_000.0), None]
        );
        assert_eq!((found.memory_limit, found.oom_kills), (Some(0.0), Some(1.0)));
        assert_eq!((found.threads, found.major_faults), (Some(12.0), Some(7.0)));
        assert_eq!(found.io[0], Io { number: (254, 0), figures: [4096.0, 8192.0, 1.0, 2.0] });
        assert_eq!(found.pressure[..2], [Some(1.5), Some(0.5)]);
        assert_eq!(figures(Path::new("/nowhere")), Figures::default());
    }
}
