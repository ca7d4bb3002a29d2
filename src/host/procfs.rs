//! What files of `/proc` say: pure, text in, numbers out.
//!
//! Source: the kernel's `Documentation/filesystems/proc.rst`, `admin-guide/iostats.rst`, `accounting/psi.rst`.

use std::path::Path;

/// Bytes of a file of `/proc` that are read at most: a machine of many CPUs or disks has long ones.
const LONGEST: u64 = 4 << 20;

/// Clock ticks per second in `/proc/stat`: `USER_HZ`, 100 in the kernel's interface on every architecture that runs
/// Kubernetes.
pub(super) const USER_HZ: f64 = 100.0;

/// The text of a file; empty when it cannot be read.
pub(super) fn read(path: &Path) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The modes of `/proc/stat` in its order. Guest time is part of `user` and `nice`.
pub(super) const CPU_MODES: [&str; 8] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Seconds of one CPU by [`CPU_MODES`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cpu {
    /// Its number.
    pub(super) number: u32,
    /// Seconds.
    pub(super) seconds: [f64; 8],
}

/// `/proc/stat`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Stat {
    /// Each CPU.
    pub(super) cpus: Vec<Cpu>,
    /// `ctxt`, `intr`, `processes`, `procs_running`, `procs_blocked`, `btime`, where they are there.
    pub(super) rest: Vec<(&'static str, f64)>,
}

/// The single figures of `/proc/stat`.
const STAT_WORDS: [&str; 6] = ["ctxt", "intr", "processes", "procs_running", "procs_blocked", "btime"];

/// Reads `/proc/stat`.
pub(super) fn stat(text: &str) -> Stat {
    let mut found = Stat::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(number) = first.strip_prefix("cpu") {
            let Ok(number) = number.parse() else { continue };
            let mut seconds = [0.0; 8];
            for (slot, word) in seconds.iter_mut().zip(words) {
                *slot = word.parse::<f64>().unwrap_or(0.0) / USER_HZ;
            }
            found.cpus.push(Cpu { number, seconds });
        } else if let Some(word) = STAT_WORDS.iter().find(|word| **word == first)
            && let Some(Ok(value)) = words.next().map(str::parse)
        {
            found.rest.push((word, value));
        }
    }
    found
}

/// `/proc/meminfo` in bytes: `MemTotal`, `Active(anon)` as it is written there.
pub(super) fn meminfo(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let factor = if words.next() == Some("kB") { 1024.0 } else { 1.0 };
        Some((name.trim(), value * factor))
    })
}

/// `/proc/loadavg`: over one, five and fifteen minutes.
pub(super) fn loadavg(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    let mut next = || words.next()?.ok();
    Some([next()?, next()?, next()?])
}

/// A line of `/proc/diskstats`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Disk<'a> {
    /// `major:minor`, as io.stat names it.
    pub(super) number: (u32, u32),
    /// Name.
    pub(super) name: &'a str,
    /// The fields behind the name, from `reads completed` on.
    pub(super) fields: [f64; 11],
}

/// Reads `/proc/diskstats`.
pub(super) fn diskstats(text: &str) -> impl Iterator<Item = Disk<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let number = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let name = words.next()?;
        let mut fields = [0.0; 11];
        for slot in &mut fields {
            *slot = words.next()?.parse().ok()?;
        }
        Some(Disk { number, name, fields })
    })
}

/// Reads `/proc/net/dev`: interface, and its sixteen figures, eight received and eight sent.
pub(super) fn netdev(text: &str) -> impl Iterator<Item = (&str, [f64; 16])> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.rsplit_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let mut fields = [0.0; 16];
        for slot in &mut fields {
            *slot = words.next()?.parse().ok()?;
        }
        Some((name.trim(), fields))
    })
}

/// `total` of `some` and of `full` in a pressure file, in seconds.
pub(super) fn pressure(text: &str) -> (Option<f64>, Option<f64>) {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(kind))?;
        let total = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?;
        total.parse::<f64>().ok().map(|micros| micros / 1e6)
    };
    (total("some"), total("full"))
}

/// Lines of a name and a number, as in `/proc/vmstat`, `cpu.stat`, `memory.stat`, `memory.events`.
pub(super) fn flat(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpus_are_read_and_their_sum_is_not() {
        let found = stat(
            "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 100 200 300 400 500 600 700 800 900 1000\n\
             cpu12 1 2 3 4 5 6 7 8 9 10\nintr 99 1 2 3\nctxt 1234\nbtime 1700000000\nprocesses 7\n\
             procs_running 2\nprocs_blocked 0\nsoftirq 5 1\n",
        );
        assert_eq!(found.cpus.len(), 2);
        assert_eq!(found.cpus[0].seconds, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(found.cpus[1].number, 12);
        assert_eq!(found.rest[0], ("intr", 99.0));
        assert_eq!(found.rest.len(), 6);
    }

    #[test]
    fn memory_is_in_bytes_and_counts_of_pages_are_not() {
        let found: Vec<_> =
            meminfo("MemTotal:       16 kB\nActive(anon):  1 kB\nHugePages_Total:  3\nx\n").collect();
        assert_eq!(found, [("MemTotal", 16384.0), ("Active(anon)", 1024.0), ("HugePages_Total", 3.0)]);
    }

    #[test]
    fn loads_disks_interfaces_and_pressure_are_read() {
        assert_eq!(loadavg("0.20 0.18 0.12 1/80 11206\n"), Some([0.20, 0.18, 0.12]));
        assert_eq!(loadavg("x"), None);
        let text = " 254       0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n bad\n";
        let disks: Vec<_> = diskstats(text).collect();
        assert_eq!(disks.len(), 1);
        assert_eq!((disks[0].number, disks[0].name), ((254, 0), "vda"));
        assert_eq!(disks[0].fields[9], 10.0);
        let text = "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(
            netdev(text).map(|(name, f)| (name.to_owned(), f[0], f[8])).collect::<Vec<_>>(),
            [("eth0".to_owned(), 1.0, 9.0)]
        );
        let text =
            "some avg10=4.24 avg60=10.24 avg300=6.35 total=11510898743\nfull avg10=0.00 total=250000\n";
        assert_eq!(pressure(text), (Some(11_510.898_743), Some(0.25)));
        assert_eq!(pressure(""), (None, None));
        assert_eq!(flat("oom 1\noom_kill 3\n", "oom_kill"), Some(3.0));
        assert_eq!(flat("oom_killer 3\n", "oom_kill"), None);
    }
}
