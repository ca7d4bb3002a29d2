//! Figures of the node, by node_exporter's names.
//!
//! In: `/proc` of the node. Out: families of a page. Invariant: CPU seconds never go back, though the kernel's idle and I/O
//! wait figures sometimes do; a CPU that was taken out and put back begins anew.

use std::collections::HashMap;
use std::path::PathBuf;

use sysinfo::System;

use super::procfs::{self, CPU_MODES, Cpu, Disk};
use super::{Metric, counter, gauge};
use crate::data::sample::{MetricKind, Page};

/// A CPU whose idle time went back by more than this was taken out and put back. Source: node_exporter,
/// `collector/cpu_linux.go`, `jumpBackSeconds`.
const JUMP_BACK: f64 = 3.0;
/// Position of `idle` in [`CPU_MODES`].
const IDLE: usize = 3;
/// Disks, interfaces and CPUs that are told of at most.
const MOST: usize = 512;

/// Block devices that are none that anyone looks at: RAM disks, loops, partitions. Source: node_exporter's default
/// `--collector.diskstats.device-exclude`.
fn is_disk(name: &str) -> bool {
    let digits = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let lettered = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
            letters == 1 && digits(&rest[letters..])
        })
    };
    let plain = ["ram", "loop", "fd"].iter().any(|prefix| name.strip_prefix(prefix).is_some_and(digits));
    let partition = ["hd", "sd", "vd", "xvd"].iter().any(|prefix| lettered(prefix));
    let parted = (name.starts_with("nvme") || name.starts_with("mmcblk"))
        && name.rsplit_once('p').is_some_and(|(head, rest)| {
            digits(rest) && head.bytes().last().is_some_and(|byte| byte.is_ascii_digit())
        });
    !plain && !partition && !parted
}

/// A value of a line of `/proc/diskstats`: its metric, its field, what one of it is.
type DiskRow = (Metric, usize, f64);

/// Source: kernel `admin-guide/iostats.rst`; a sector is 512 bytes, times are in milliseconds.
const DISK: [DiskRow; 8] = [
    (counter("node_disk_reads_completed_total", "Reads completed."), 0, 1.0),
    (counter("node_disk_read_bytes_total", "Bytes read."), 2, 512.0),
    (counter("node_disk_read_time_seconds_total", "Time spent by all reads."), 3, 1e-3),
    (counter("node_disk_writes_completed_total", "Writes completed."), 4, 1.0),
    (counter("node_disk_written_bytes_total", "Bytes written."), 6, 512.0),
    (counter("node_disk_write_time_seconds_total", "Time spent by all writes."), 7, 1e-3),
    (gauge("node_disk_io_now", "Reads and writes in progress."), 8, 1.0),
    (counter("node_disk_io_time_seconds_total", "Time with any read or write in progress."), 9, 1e-3),
];

/// Source: kernel `net/core/net-procfs.c`, order of the columns.
const NETWORK: [(Metric, usize); 8] = [
    (counter("node_network_receive_bytes_total", "Bytes received."), 0),
    (counter("node_network_receive_packets_total", "Packets received."), 1),
    (counter("node_network_receive_errs_total", "Packets received in error."), 2),
    (counter("node_network_receive_drop_total", "Received packets that were dropped."), 3),
    (counter("node_network_transmit_bytes_total", "Bytes sent."), 8),
    (counter("node_network_transmit_packets_total", "Packets sent."), 9),
    (counter("node_network_transmit_errs_total", "Packets that could not be sent for errors."), 10),
    (counter("node_network_transmit_drop_total", "Packets to send that were dropped."), 11),
];

/// The single figures of `/proc/stat`.
const STAT: [(&str, Metric); 6] = [
    ("ctxt", counter("node_context_switches_total", "Context switches.")),
    ("intr", counter("node_intr_total", "Interrupts served.")),
    ("processes", counter("node_forks_total", "Processes started.")),
    ("procs_running", gauge("node_procs_running", "Processes that run or could.")),
    ("procs_blocked", gauge("node_procs_blocked", "Processes that wait for I/O.")),
    ("btime", gauge("node_boot_time_seconds", "When the node was started, seconds since the epoch.")),
];

/// Pressure: file, whether all stand still (`full`), metric.
const PRESSURE: [(&str, bool, Metric); 5] = [
    (
        "cpu",
        false,
        counter("node_pressure_cpu_waiting_seconds_total", "Time in which some process waited for a CPU."),
    ),
    (
        "io",
        false,
        counter("node_pressure_io_waiting_seconds_total", "Time in which some process waited for I/O."),
    ),
    (
        "io",
        true,
        counter("node_pressure_io_stalled_seconds_total", "Time in which every process waited for I/O."),
    ),
    (
        "memory",
        false,
        counter(
            "node_pressure_memory_waiting_seconds_total",
            "Time in which some process waited for memory.",
        ),
    ),
    (
        "memory",
        true,
        counter(
            "node_pressure_memory_stalled_seconds_total",
            "Time in which every process waited for memory.",
        ),
    ),
];

/// Lines of `/proc/vmstat`.
const VMSTAT: [(&str, Metric); 3] = [
    ("oom_kill", counter("node_vmstat_oom_kill", "Processes killed for lack of memory.")),
    ("pgmajfault", counter("node_vmstat_pgmajfault", "Page faults that read from a disk.")),
    ("pgfault", counter("node_vmstat_pgfault", "Page faults.")),
];

/// Reads the node's figures.
#[derive(Debug)]
pub(super) struct Node {
    proc: PathBuf,
    cpus: HashMap<u32, [f64; 8]>,
    /// `None` where sysinfo knows no such system.
    system: Option<System>,
}

impl Node {
    pub(super) fn new(proc: PathBuf) -> Self {
        Self { proc, cpus: HashMap::new(), system: System::new().ok() }
    }

    pub(super) fn collect(&mut self, page: &mut Page) {
        let read = |name: &str| procfs::read(&self.proc.join(name));
        let stat = procfs::stat(&read("stat"));
        let (meminfo, diskstats) = (read("meminfo"), read("diskstats"));
        // The node's own network is that of its first process, and where that cannot be looked at, ours.
        let mut network = read("1/net/dev");
        if network.is_empty() {
            network = read("net/dev");
        }
        let (load, vmstat) = (procfs::loadavg(&read("loadavg")), read("vmstat"));
        let pressures: Vec<_> = PRESSURE
            .iter()
            .map(|(file, full, metric)| {
                let (some, all) = procfs::pressure(&read(&format!("pressure/{file}")));
                (*metric, if *full { all } else { some })
            })
            .collect();

        self.write_cpus(&stat.cpus, page);
        for (word, metric) in STAT {
            let found = stat.rest.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
            single(page, metric, found);
        }
        self.write_memory(&meminfo, page);
        let loads = ["node_load1", "node_load5", "node_load15"];
        for (at, (name, span)) in
            loads.into_iter().zip(["one minute", "five minutes", "fifteen minutes"]).enumerate()
        {
            let help = format!("Processes that run or wait for a CPU or a disk, averaged over {span}.");
            if let Some(load) = load {
                page.begin_family(name, MetricKind::Gauge, &help);
                page.push_sample(name, [], load[at]);
            }
        }
        let disks: Vec<Disk<'_>> =
            procfs::diskstats(&diskstats).filter(|disk| is_disk(disk.name)).take(MOST).collect();
        for (metric, field, unit) in DISK {
            family(page, metric, disks.iter().map(|disk| (("device", disk.name), disk.fields[field] * unit)));
        }
        let interfaces: Vec<_> = procfs::netdev(&network).take(MOST).collect();
        for (metric, field) in NETWORK {
            family(page, metric, interfaces.iter().map(|(name, fields)| (("device", *name), fields[field])));
        }
        for (metric, value) in pressures {
            single(page, metric, value);
        }
        for (word, metric) in VMSTAT {
            single(page, metric, procfs::flat(&vmstat, word));
        }
    }

    fn write_cpus(&mut self, cpus: &[Cpu], page: &mut Page) {
        let metric = counter("node_cpu_seconds_total", "Seconds that each CPU spent in each mode.");
        if cpus.is_empty() {
            return;
        }
        page.begin_family(metric.name, metric.kind, metric.help);
        for cpu in cpus.iter().take(MOST) {
            let last = self.cpus.entry(cpu.number).or_default();
            if cpu.seconds[IDLE] + JUMP_BACK < last[IDLE] {
                *last = [0.0; 8];
            }
            let number = cpu.number.to_string();
            for (mode, (kept, seconds)) in CPU_MODES.iter().zip(last.iter_mut().zip(cpu.seconds)) {
                *kept = kept.max(seconds);
                page.push_sample(metric.name, [("cpu", number.as_str()), ("mode", mode)], *kept);
            }
        }
    }

    /// Every line of `/proc/meminfo`, under the name that node_exporter makes of it; where that cannot be read, what
    /// sysinfo knows.
    fn write_memory(&mut self, meminfo: &str, page: &mut Page) {
        let mut name = String::new();
        let mut found = false;
        for (key, value) in procfs::meminfo(meminfo).take(MOST) {
            name.clear();
            name.push_str("node_memory_");
            // `Active(anon)` becomes `Active_anon`. Source: node_exporter, `collector/meminfo_linux.go`.
            name.extend(
                key.chars().filter(|c| *c != ')').map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }),
            );
            if !key.starts_with("HugePages_") {
                name.push_str("_bytes");
            }
            page.begin_family(&name, MetricKind::Gauge, "A line of /proc/meminfo.");
            page.push_sample(&name, [], value);
            found = true;
        }
        if found {
            return;
        }
        let Some(system) = &mut self.system else { return };
        system.refresh_memory();
        for (name, value) in [
            ("node_memory_MemTotal_bytes", system.total_memory()),
            ("node_memory_MemAvailable_bytes", system.available_memory()),
            ("node_memory_MemFree_bytes", system.free_memory()),
            ("node_memory_SwapTotal_bytes", system.total_swap()),
            ("node_memory_SwapFree_bytes", system.free_swap()),
        ] {
            page.begin_family(name, MetricKind::Gauge, "Memory as the system tells it.");
            page.push_sample(name, [], value as f64);
        }
    }
}

/// A family of one sample, where there is a value.
fn single(page: &mut Page, metric: Metric, value: Option<f64>) {
    let Some(value) = value else { return };
    page.begin_family(metric.name, metric.kind, metric.help);
    page.push_sample(metric.name, [], value);
}

/// A family of samples with one label, where there are any.
fn family<'a>(page: &mut Page, metric: Metric, samples: impl Iterator<Item = ((&'a str, &'a str), f64)>) {
    let mut begun = false;
    for (label, value) in samples {
        if !begun {
            page.begin_family(metric.name, metric.kind, metric.help);
            begun = true;
        }
        page.push_sample(metric.name, [label], value);
    }
}

#[cfg(test)]
mod tests {
    use super::is_disk;

    #[test]
    fn whole_disks_are_told_of_and_partitions_are_not() {
        for disk in ["vda", "sda", "nvme0n1", "dm-0", "md127", "xvdb", "mmcblk0", "sr0"] {
            assert!(is_disk(disk), "{disk}");
        }
        for other in ["vda1", "sda12", "nvme0n1p3", "loop0", "ram15", "fd0", "mmcblk0p1", "xvdb2"] {
            assert!(!is_disk(other), "{other}");
        }
    }
}
