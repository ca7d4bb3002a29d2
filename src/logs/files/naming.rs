//! How rotation names files: the kubelet's way, docker's, and that of logrotate and its kin.
//!
//! In: names in a log's directory. Out: which of them are earlier generations of a live file, and in which order.
//! Invariant: names only order files; which file is which is told by its inode and its beginning.

use std::cmp::Reverse;
use std::path::Path;

use crate::data::workload::ContainerRef;
use crate::logs::env::{Env, Kind};

/// Who rotates a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The kubelet: `0.log.20261122-145107`.
    Kubelet,
    /// docker, behind a symbolic link: `<id>-json.log.1`.
    Docker,
    /// logrotate, or the application itself: `app.log.1`, `app.log-20261122`, `app-2026-11-22.log`, each perhaps with
    /// `.gz`.
    Logrotate,
}

impl Naming {
    /// How the files of a log are named; `linked` when its live name is a symbolic link.
    pub fn of(container: &ContainerRef, linked: bool) -> Self {
        match (container.is_container(), linked) {
            (false, _) => Self::Logrotate,
            (true, true) => Self::Docker,
            (true, false) => Self::Kubelet,
        }
    }

    /// Names that a further rotation gives to other files, so that a name alone says nothing.
    pub fn shifts(self) -> bool {
        self != Self::Kubelet
    }

    /// Reads a name beside the live one: its place among the rotated files, and whether it is compressed.
    pub fn read(self, live: &str, name: &str) -> Option<(Rotated, bool)> {
        let (plain, gzip) = name.strip_suffix(".gz").map_or((name, false), |plain| (plain, true));
        let rotated = match self {
            Self::Kubelet | Self::Docker => Rotated::read(plain.strip_prefix(live)?.strip_prefix('.')?)?,
            // Compressed where it was, as a file with the day in its name is when the day is over.
            Self::Logrotate if gzip && plain == live => Rotated::Number(Reverse(0)),
            Self::Logrotate => behind(live, plain).or_else(|| before_extension(live, plain))?,
        };
        Some((rotated, gzip))
    }
}

/// Orders rotated files from the oldest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rotated {
    /// The kubelet's time of rotation, `YYYYMMDD-HHMMSS`.
    Stamp(String),
    /// A date, from its largest part to its smallest, and whatever numbers follow it.
    Date(Vec<u64>),
    /// A number, the highest the oldest.
    Number(Reverse<u32>),
}

impl Rotated {
    fn read(suffix: &str) -> Option<Self> {
        let bytes = suffix.as_bytes();
        if bytes.len() == 15
            && bytes[8] == b'-'
            && bytes.iter().enumerate().all(|(at, byte)| at == 8 || byte.is_ascii_digit())
        {
            return Some(Self::Stamp(suffix.to_owned()));
        }
        suffix.parse().ok().map(|number| Self::Number(Reverse(number)))
    }
}

/// `app.log` and `app.log.1`.
fn behind(live: &str, name: &str) -> Option<Rotated> {
    suffix(name.strip_prefix(live)?)
}

/// `app.log` and `app.1.log`, `app-20261122.log`.
fn before_extension(live: &str, name: &str) -> Option<Rotated> {
    let (stem, extension) = live.rsplit_once('.')?;
    let middle = name.strip_suffix(extension)?.strip_suffix('.')?.strip_prefix(stem)?;
    suffix(middle).filter(|_| !stem.is_empty())
}

/// What rotation appends, its separator included.
fn suffix(text: &str) -> Option<Rotated> {
    let rest = text.strip_prefix(['.', '-', '_'])?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.starts_with('.') && rest.len() <= 4 && digits(rest) {
        return rest.parse().ok().map(|number| Rotated::Number(Reverse(number)));
    }
    let is_date = rest.starts_with(|c: char| c.is_ascii_digit())
        && rest.bytes().all(|byte| byte.is_ascii_digit() || b"-_.:T".contains(&byte));
    if !is_date || !begins_with_date(rest) {
        return None;
    }
    let numbers = rest.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>().map(Rotated::Date)
}

/// Year, month and day with or without something between them; or seconds since the epoch, or a part of them.
fn begins_with_date(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    let run = text.bytes().take_while(u8::is_ascii_digit).count();
    if run >= 10 && text.starts_with(['1', '2']) {
        // 1970 is past; also milliseconds and nanoseconds.
        return run <= 19;
    }
    let separated = run == 4 && text.as_bytes().get(4).is_some_and(|byte| !byte.is_ascii_digit());
    let [y1, y2, _, _, m1, m2, d1, d2, ..] = digits[..] else { return false };
    let (century, month, day) = (y1 * 10 + y2, m1 * 10 + m2, d1 * 10 + d2);
    (19..=20).contains(&century)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (run >= 8 || separated)
}

/// The names that a live file may have of which `name` would be a rotated one.
pub fn live_names(name: &str) -> Vec<String> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let mut found = Vec::new();
    for (at, _) in plain.match_indices(['.', '-', '_']).filter(|(at, _)| *at > 0) {
        let (stem, rest) = plain.split_at(at);
        if suffix(rest).is_some() {
            found.push(stem.to_owned());
        }
        for (end, _) in rest.match_indices('.').filter(|(end, _)| *end > 0) {
            let (middle, extension) = rest.split_at(end);
            // The extension is the last one only.
            if !extension[1..].is_empty() && !extension[1..].contains('.') && suffix(middle).is_some() {
                found.push(format!("{stem}{extension}"));
            }
        }
    }
    found
}

/// Names of files that are archives or still being written by a tool, never live logs.
pub fn is_never_live(name: &str) -> bool {
    [".gz", ".xz", ".bz2", ".zst", ".lz4", ".zip", ".tar", ".tmp", ".swp"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// True when rotation has left files of a live file that may itself be missing; with `in_place` one that was compressed
/// where it was counts too.
pub fn has_rotated<E: Env>(env: &E, live: &Path, in_place: bool) -> bool {
    let (Some(dir), Some(name)) = (live.parent(), live.file_name().and_then(|name| name.to_str())) else {
        return false;
    };
    let entries = env.list(dir).unwrap_or_default();
    entries.iter().filter(|entry| entry.kind == Kind::File).any(|entry| {
        let counts = in_place || entry.name.strip_suffix(".gz") != Some(name);
        counts && Naming::Logrotate.read(name, &entry.name).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(live: &str, names: &[&str]) -> Vec<String> {
        let mut read: Vec<_> = names
            .iter()
            .map(|name| (Naming::Logrotate.read(live, name).expect(name), (*name).to_owned()))
            .collect();
        read.sort();
        read.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn names_of_logrotate_sort_from_the_oldest() {
        assert_eq!(
            sorted("app.log", &["app.log.1", "app.log.10.gz", "app.log.2.gz"]),
            ["app.log.10.gz", "app.log.2.gz", "app.log.1"]
        );
        assert_eq!(
            sorted("app.log", &["app.log-20261123", "app.log-20261121.gz", "app.log-20261122.gz"]),
            ["app.log-20261121.gz", "app.log-20261122.gz", "app.log-20261123"]
        );
        assert_eq!(
            sorted("app.log", &["app-2026-11-23-10.log", "app-2026-11-23-2.log.gz", "app-2026-11-22.log"]),
            ["app-2026-11-22.log", "app-2026-11-23-2.log.gz", "app-2026-11-23-10.log"]
        );
        assert_eq!(
            sorted("app.log", &["app.log-20261123-1795392000", "app.log-20261123"]),
            ["app.log-20261123", "app.log-20261123-1795392000"]
        );
    }

    #[test]
    fn what_is_no_rotation_is_a_log_of_its_own() {
        for other in [
            "app.log",
            "app.logger",
            "app.log.old",
            "app2.log",
            "app-worker-1.log",
            "app-1.log",
            "app-12345678.log",
            "app.log-20261323",
            "app.log.1.tmp",
            "other.log.1",
            "app.log.123456",
        ] {
            assert_eq!(Naming::Logrotate.read("app.log", other), None, "{other}");
        }
    }

    #[test]
    fn a_rotated_name_leads_to_its_live_one() {
        for (name, live) in [
            ("app.log.1", "app.log"),
            ("app.log.2.gz", "app.log"),
            ("app.log-20261123.gz", "app.log"),
            ("app.log.2026-11-23_10-15", "app.log"),
            ("app-2026-11-23.log", "app.log"),
            ("app.3.log", "app.log"),
            ("app.log-20261123-1795392000", "app.log"),
        ] {
            assert!(live_names(name).contains(&live.to_owned()), "{name}: {:?}", live_names(name));
            assert!(Naming::Logrotate.read(live, name).is_some(), "{name}");
        }
        assert_eq!(live_names("app.log"), [""; 0]);
    }

    #[test]
    fn names_of_the_kubelet_and_docker_sort_from_the_oldest() {
        let read = |suffix: &str| Naming::Kubelet.read("0.log", &format!("0.log.{suffix}"));
        let mut names: Vec<_> = ["20261122-145110", "20261122-145107", "20261121-235959"]
            .iter()
            .map(|suffix| read(suffix).expect("kubelet name").0)
            .collect();
        names.sort();
        assert_eq!(names[0], Rotated::Stamp("20261121-235959".into()));
        assert_eq!(names[1], Rotated::Stamp("20261122-145107".into()));
        let mut numbers: Vec<_> = ["1", "10", "2"].iter().map(|n| read(n).expect("docker name").0).collect();
        numbers.sort();
        assert_eq!(numbers[0], Rotated::Number(Reverse(10)));
        assert_eq!(read("20261122-145107.gz").map(|(_, gzip)| gzip), Some(true));
        for other in ["20261122-145107.tmp", "gz", ""] {
            assert!(read(other).is_none(), "{other}");
        }
    }
}
