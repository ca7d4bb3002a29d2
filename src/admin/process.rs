//! Figures of the agent's own process, under the names that every Prometheus client uses.
//!
//! In: `/proc` of this process through sysinfo, read when asked. Out: metric families.

use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// One metric of this page.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name.
    pub name: &'static str,
    /// Kind, as Prometheus names it.
    pub kind: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Every metric of this page, sorted by name.
pub const ROWS: &[Row] = &[
    Row {
        name: "nodewick_build_info",
        kind: "gauge",
        labels: &["version", "revision", "rustc"],
        help: "Always 1; the labels say what was built.",
    },
    Row {
        name: "process_cpu_seconds_total",
        kind: "counter",
        labels: &[],
        help: "CPU time that the agent used, user and system, in seconds.",
    },
    Row { name: "process_open_fds", kind: "gauge", labels: &[], help: "Open file descriptors of the agent." },
    Row {
        name: "process_resident_memory_bytes",
        kind: "gauge",
        labels: &[],
        help: "Resident memory of the agent, in bytes.",
    },
    Row {
        name: "process_start_time_seconds",
        kind: "gauge",
        labels: &[],
        help: "When the agent started, seconds since the epoch.",
    },
];

/// `None` where sysinfo knows no such system.
static SYSTEM: LazyLock<Mutex<Option<System>>> = LazyLock::new(|| Mutex::new(System::new().ok()));

/// The families, read now. A figure that cannot be read is left out.
pub fn gather() -> Vec<MetricFamily> {
    let pid = Pid::from_u32(std::process::id());
    let mut system = SYSTEM.lock();
    let what = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
    if let Some(system) = system.as_mut() {
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    }
    let own = system.as_ref().and_then(|system| system.process(pid));
    ROWS.iter()
        .filter_map(|row| {
            let value = match row.name {
                "nodewick_build_info" => Some(1.0),
                "process_cpu_seconds_total" => own.map(|own| own.accumulated_cpu_time() as f64 / 1e3),
                "process_open_fds" => std::fs::read_dir("/proc/self/fd").ok().map(|entries| {
                    // The directory that is being read is one of them.
                    entries.count().saturating_sub(1) as f64
                }),
                "process_resident_memory_bytes" => own.map(|own| own.memory() as f64),
                _ => own.map(|own| own.start_time() as f64),
            };
            value.map(|value| family(row, value))
        })
        .collect()
}

fn family(row: &Row, value: f64) -> MetricFamily {
    let labels = if row.labels.is_empty() {
        Vec::new()
    } else {
        let build = crate::version::BUILD;
        let values = [build.version, build.revision.unwrap_or("unknown"), build.rustc];
        row.labels
            .iter()
            .zip(values)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.to_owned());
                pair
            })
            .collect()
    };
    let mut metric = Metric::from_label(labels);
    let mut family = MetricFamily::default();
    if row.kind == "counter" {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        family.set_field_type(MetricType::COUNTER);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        family.set_field_type(MetricType::GAUGE);
    }
    family.set_name(row.name.to_owned());
    family.set_help(row.help.to_owned());
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_read_and_plausible() {
        let families = gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).expect("gathered");
            family.get_metric()[0].get_gauge().get_value()
        };
        assert_eq!(families.len(), ROWS.len());
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1.6e9);
    }
}
