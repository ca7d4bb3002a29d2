//! Figures of containers, by cAdvisor's names.
//!
//! In: the node's cgroups and the pods that the watch knows. Out: families of a page, with `namespace`, `pod`, `container`
//! and `workload`. Invariant: a cgroup counts only for the pod that the API has with its uid and for the container that the
//! kubelet names with its id; what is nobody's (a pod's sandbox, a pod that is not known yet) is left out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cgroup::{self, Figures};
use super::{Metric, counter, gauge, procfs};
use crate::data::pods::{Pod, Pods};
use crate::data::sample::Page;
use crate::data::workload::owner_of;

/// Containers that are told of at most: four times what a node runs.
const MOST: usize = 1024;

/// A container with what its cgroup says.
struct Container {
    pod: Arc<Pod>,
    /// Its index in the pod.
    index: usize,
    figures: Figures,
}

/// A figure of a container.
type Row = (Metric, fn(&Figures) -> Option<f64>);

/// Source of the names: cAdvisor `metrics/prometheus.go`; what each is in cgroup v2: `runc` `libcontainer/cgroups/fs2`.
const ROWS: &[Row] = &[
    (counter("container_cpu_usage_seconds_total", "CPU time."), |it| it.cpu[0]),
    (counter("container_cpu_user_seconds_total", "CPU time in user mode."), |it| it.cpu[1]),
    (counter("container_cpu_system_seconds_total", "CPU time in the kernel."), |it| it.cpu[2]),
    (counter("container_cpu_cfs_periods_total", "Periods in which the CPU limit was enforced."), |it| {
        it.quota.and(it.throttling[0])
    }),
    (
        counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU limit was reached."),
        |it| it.quota.and(it.throttling[1]),
    ),
    (
        counter(
            "container_cpu_cfs_throttled_seconds_total",
            "Time that threads stood still for the CPU limit.",
        ),
        |it| it.quota.and(it.throttling[2]),
    ),
    (gauge("container_spec_cpu_quota", "CPU time that is granted in a period, microseconds."), |it| it.quota),
    (gauge("container_spec_cpu_period", "The period of the CPU limit, microseconds."), |it| it.period),
    (gauge("container_memory_usage_bytes", "Memory in use, page cache included."), |it| it.memory[0]),
    (
        gauge(
            "container_memory_working_set_bytes",
            "Memory in use less page cache that can be given back at once.",
        ),
        |it| it.memory[1],
    ),
    (gauge("container_memory_rss", "Anonymous memory, bytes."), |it| it.memory[2]),
    (gauge("container_memory_cache", "Page cache, bytes."), |it| it.memory[3]),
    (gauge("container_memory_mapped_file", "Mapped files, bytes."), |it| it.memory[4]),
    (gauge("container_memory_swap", "Swap in use, bytes."), |it| it.memory[5]),
    (gauge("container_spec_memory_limit_bytes", "Memory limit; 0 without one."), |it| it.memory_limit),
    (counter("container_oom_events_total", "Processes killed for lack of memory."), |it| it.oom_kills),
    (gauge("container_threads", "Threads."), |it| it.threads),
    (
        counter(
            "container_pressure_cpu_waiting_seconds_total",
            "Time in which some thread waited for a CPU.",
        ),
        |it| it.pressure[0],
    ),
    (
        counter(
            "container_pressure_cpu_stalled_seconds_total",
            "Time in which every thread waited for a CPU.",
        ),
        |it| it.pressure[1],
    ),
    (
        counter("container_pressure_io_waiting_seconds_total", "Time in which some thread waited for I/O."),
        |it| it.pressure[2],
    ),
    (
        counter("container_pressure_io_stalled_seconds_total", "Time in which every thread waited for I/O."),
        |it| it.pressure[3],
    ),
    (
        counter(
            "container_pressure_memory_waiting_seconds_total",
            "Time in which some thread waited for memory.",
        ),
        |it| it.pressure[4],
    ),
    (
        counter(
            "container_pressure_memory_stalled_seconds_total",
            "Time in which every thread waited for memory.",
        ),
        |it| it.pressure[5],
    ),
];

/// By disk: metric, and its place in the figures.
const DISK_ROWS: [(Metric, usize); 4] = [
    (counter("container_fs_reads_bytes_total", "Bytes read from the disk."), 0),
    (counter("container_fs_writes_bytes_total", "Bytes written to the disk."), 1),
    (counter("container_fs_reads_total", "Reads from the disk."), 2),
    (counter("container_fs_writes_total", "Writes to the disk."), 3),
];

/// Writes the figures of every container that is known.
pub(super) fn collect(root: &Path, proc: &Path, pods: &Pods, now: Duration, page: &mut Page) {
    let mut containers = Vec::new();
    for found in cgroup::find(root) {
        let Some(pod) = pods.get(&found.uid, now) else { continue };
        let is_it = |id: &Option<String>| id.as_deref() == Some(found.id.as_str());
        let Some(index) = pod.containers.iter().position(|container| is_it(&container.id)) else { continue };
        containers.push(Container { pod, index, figures: cgroup::figures(&found.path) });
        if containers.len() == MOST {
            break;
        }
    }
    containers.sort_by(|a, b| key(a).cmp(&key(b)));
    for (metric, value) in ROWS {
        let mut begun = false;
        for container in &containers {
            let Some(value) = value(&container.figures) else { continue };
            if !begun {
                page.begin_family(metric.name, metric.kind, metric.help);
                begun = true;
            }
            page.push_sample(metric.name, labels(container), value);
        }
    }
    let disks = procfs::read(&proc.join("diskstats"));
    let disks: Vec<procfs::Disk<'_>> = procfs::diskstats(&disks).collect();
    for (metric, at) in DISK_ROWS {
        let mut begun = false;
        for container in &containers {
            for io in &container.figures.io {
                let name = disks.iter().find(|disk| disk.number == io.number).map(|disk| disk.name);
                let device = match name {
                    Some(name) => format!("/dev/{name}"),
                    None => format!("{}:{}", io.number.0, io.number.1),
                };
                if !begun {
                    page.begin_family(metric.name, metric.kind, metric.help);
                    begun = true;
                }
                let labels = labels(container).chain([("device", device.as_str())]);
                page.push_sample(metric.name, labels, io.figures[at]);
            }
        }
    }
}

fn key(container: &Container) -> (&str, &str, &str) {
    let pod = &container.pod;
    (&pod.namespace, &pod.name, &pod.containers[container.index].name)
}

fn labels(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let (pod, it) = (&container.pod, &container.pod.containers[container.index]);
    let workload = owner_of(&it.traits.attributes, &pod.name);
    [
        ("namespace", pod.namespace.as_str()),
        ("pod", pod.name.as_str()),
        ("container", it.name.as_str()),
        ("workload", workload.name),
    ]
    .into_iter()
}
