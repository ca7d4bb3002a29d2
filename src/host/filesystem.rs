//! Room on the node's file systems that the agent can see, by node_exporter's names.
//!
//! In: paths that the agent has anyway (the log root, the state directory) and the mounts of the node's first process. Out: one
//! series a file system and figure. `device`, `fstype` and `mountpoint` are those of the node, found by the device number;
//! where they are not found, the path that was asked stands for the mount point.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Metric, gauge, procfs};
use crate::data::sample::Page;

/// A file system.
#[derive(Debug, Clone, PartialEq)]
struct Room {
    device: String,
    fstype: String,
    mountpoint: String,
    /// By [`METRICS`].
    figures: [f64; 6],
}

const METRICS: [Metric; 6] = [
    gauge("node_filesystem_size_bytes", "Size of the file system."),
    gauge("node_filesystem_free_bytes", "Free bytes of the file system."),
    gauge("node_filesystem_avail_bytes", "Bytes of the file system that are free for users other than root."),
    gauge("node_filesystem_files", "Inodes of the file system."),
    gauge("node_filesystem_files_free", "Free inodes of the file system."),
    gauge("node_filesystem_readonly", "1 when the file system is mounted read-only."),
];

/// Writes the room of every file system that one of `paths` lies on.
pub(super) fn collect(proc: &Path, paths: &[PathBuf], page: &mut Page) {
    let mut mounts = procfs::read(&proc.join("1/mountinfo"));
    if mounts.is_empty() {
        mounts = procfs::read(&proc.join("self/mountinfo"));
    }
    let mut seen = Vec::new();
    let mut rooms = Vec::new();
    for path in paths {
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        let number = metadata.dev();
        if seen.contains(&number) {
            continue;
        }
        seen.push(number);
        rooms.extend(room(path, number, &mounts));
    }
    for (at, metric) in METRICS.iter().enumerate() {
        if rooms.is_empty() {
            return;
        }
        page.begin_family(metric.name, metric.kind, metric.help);
        for room in &rooms {
            let labels = [
                ("device", room.device.as_str()),
                ("fstype", room.fstype.as_str()),
                ("mountpoint", room.mountpoint.as_str()),
            ];
            page.push_sample(metric.name, labels, room.figures[at]);
        }
    }
}

fn room(path: &Path, number: u64, mounts: &str) -> Option<Room> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks as f64 * stat.f_frsize as f64;
    let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    let device = (rustix::fs::major(number), rustix::fs::minor(number));
    let mount = mount_of(mounts, device);
    let (device, fstype, mountpoint) = mount
        .map(|mount| (mount.device, mount.fstype, mount.point))
        .unwrap_or_else(|| (String::new(), String::new(), path.display().to_string()));
    Some(Room {
        device,
        fstype,
        mountpoint,
        figures: [
            bytes(stat.f_blocks),
            bytes(stat.f_bfree),
            bytes(stat.f_bavail),
            stat.f_files as f64,
            stat.f_ffree as f64,
            f64::from(u8::from(read_only)),
        ],
    })
}

/// A mount as `/proc/<pid>/mountinfo` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    device: String,
    fstype: String,
    point: String,
}

/// The mount of the device whose point is shortest: others are binds of parts of it. Source: `proc_pid_mountinfo(5)`.
fn mount_of(mounts: &str, (major, minor): (u32, u32)) -> Option<Mount> {
    let number = format!("{major}:{minor}");
    let found = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, root, point) = (words.nth(2)?, words.next()?, words.next()?);
        if device != number {
            return None;
        }
        let mut behind = line.split_once(" - ")?.1.split(' ');
        let (fstype, source) = (behind.next()?, behind.next()?);
        Some((
            (root != "/", point.len()),
            Mount { device: unescape(source), fstype: fstype.to_owned(), point: unescape(point) },
        ))
    });
    found.min_by_key(|(rank, _)| *rank).map(|(_, mount)| mount)
}

/// Blanks in mount points are written in octal: `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        let code = behind.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &behind[3..];
            }
            None => {
                out.push('\\');
                rest = behind;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_mount_is_found_among_binds_of_it() {
        let mounts = "36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw\n\
                      40 35 98:0 / /var/lib/with\\040blank rw - ext4 /dev/vda1 rw\n\
                      41 35 98:0 / /v rw shared:3 - ext4 /dev/vda1 rw\n\
                      42 35 0:22 / /proc rw - proc proc rw\n";
        let found = mount_of(mounts, (98, 0)).expect("a mount");
        assert_eq!(
            (found.device.as_str(), found.fstype.as_str(), found.point.as_str()),
            ("/dev/vda1", "ext4", "/v")
        );
        assert_eq!(mount_of(mounts, (98, 1)), None);
        assert_eq!(unescape("/a\\040b\\134c\\"), "/a b\\c\\");
    }

    #[test]
    fn paths_on_one_file_system_are_told_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).expect("a directory");
        let mut page = Page::default();
        let paths = [directory.path().to_owned(), inner, "/nowhere/at/all".into()];
        collect(Path::new("/proc"), &paths, &mut page);
        let sizes: Vec<_> = page
            .samples
            .iter()
            .filter(|sample| page.text(sample.name) == "node_filesystem_size_bytes")
            .map(|sample| sample.value)
            .collect();
        assert!(sizes.len() == 1 && sizes[0] > 0.0, "{sizes:?}");
    }
}
