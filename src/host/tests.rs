//! A whole page from a make-believe node: `/proc`, cgroups, pods.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Collector, Config};
use crate::data::pods::{Container, Pod, Traits, directory};
use crate::data::sample::{MetricKind, Page};

const ID: &str = "193a2b34481cd7692004689165e3d4b5677753e85e40517bb68ba8d27a764942";
const OTHER: &str = "293a2b34481cd7692004689165e3d4b5677753e85e40517bb68ba8d27a764942";
const UID: &str = "0b4a0405-b219-4ede-abd9-05e040ff53a9";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, text).expect("a file");
}

fn node(root: &Path, idle: &str) {
    write(root, "proc/stat", &format!("cpu0 100 0 50 {idle} 0 0 0 0 0 0\nctxt 99\nbtime 1700000000\n"));
    write(root, "proc/meminfo", "MemTotal: 2 kB\nActive(anon): 1 kB\n");
    write(root, "proc/loadavg", "0.5 0.25 0.125 1/80 1\n");
    write(root, "proc/diskstats", "254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n254 1 vda1 1 2 3 4 5 6 7 8 9 10 11\n");
    write(root, "proc/1/net/dev", "h\n eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    write(root, "proc/pressure/memory", "some avg10=0.00 total=2000000\nfull avg10=0.00 total=1000000\n");
    write(root, "proc/vmstat", "oom_kill 4\n");
}

fn container(root: &Path, id: &str) {
    let path = format!(
        "sys/fs/cgroup/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
         kubelet-kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
        UID.replace('-', "_")
    );
    write(
        root,
        &format!("{path}/cpu.stat"),
        "usage_usec 1500000\nnr_periods 8\nnr_throttled 2\nthrottled_usec 250000\n",
    );
    write(root, &format!("{path}/cpu.max"), "50000 100000\n");
    write(root, &format!("{path}/memory.current"), "4096\n");
    write(root, &format!("{path}/memory.max"), "8192\n");
    write(root, &format!("{path}/io.stat"), "254:0 rbytes=4096 wbytes=0 rios=1 wios=0\n");
}

/// A sample as `name{label="value",…} value`.
fn lines(page: &Page) -> Vec<String> {
    let line = |sample: &crate::data::sample::Sample| {
        let labels = page.labels_of(sample).iter();
        let labels: Vec<String> =
            labels.map(|label| format!("{}={}", page.text(label.name), page.text(label.value))).collect();
        format!("{}{{{}}} {}", page.text(sample.name), labels.join(","), sample.value)
    };
    page.samples.iter().map(line).collect()
}

#[test]
fn a_nodes_page_has_its_figures_and_those_of_its_pods_containers() {
    let root = tempfile::tempdir().expect("a directory");
    node(root.path(), "400");
    container(root.path(), ID);
    // A sandbox, which is none of the pod's containers.
    container(root.path(), OTHER);
    let (mut writer, pods) = directory();
    let traits = Arc::new(Traits {
        attributes: vec![("k8s.deployment.name".into(), "till".into())],
        ..Traits::default()
    });
    writer.enter(Pod {
        uid: UID.into(),
        namespace: "shop".into(),
        name: "till-7d9f8b6c5-x2k4t".into(),
        containers: vec![Container {
            name: "api".into(),
            id: Some(ID.into()),
            traits,
            ..Container::default()
        }],
        ..Pod::default()
    });
    let config = Config { root: root.path().to_owned(), ..Config::default() };
    let paths = vec![root.path().to_owned()];
    let mut collector = Collector::new(&config, "prod", "node-1", Some(pods), paths);
    assert_eq!(collector.origin().label("instance"), Some("node-1"));
    let mut page = Page::default();
    collector.collect(Duration::ZERO, &mut page);
    let all = lines(&page);
    for expected in [
        "node_cpu_seconds_total{cpu=0,mode=user} 1",
        "node_cpu_seconds_total{cpu=0,mode=idle} 4",
        "node_context_switches_total{} 99",
        "node_boot_time_seconds{} 1700000000",
        "node_memory_MemTotal_bytes{} 2048",
        "node_memory_Active_anon_bytes{} 1024",
        "node_load15{} 0.125",
        "node_disk_read_bytes_total{device=vda} 1536",
        "node_disk_io_time_seconds_total{device=vda} 0.01",
        "node_network_transmit_bytes_total{device=eth0} 9",
        "node_pressure_memory_waiting_seconds_total{} 2",
        "node_pressure_memory_stalled_seconds_total{} 1",
        "node_vmstat_oom_kill{} 4",
        "container_cpu_usage_seconds_total{namespace=shop,pod=till-7d9f8b6c5-x2k4t,container=api,workload=till} 1.5",
        "container_cpu_cfs_throttled_seconds_total{namespace=shop,pod=till-7d9f8b6c5-x2k4t,container=api,workload=till} 0.25",
        "container_memory_working_set_bytes{namespace=shop,pod=till-7d9f8b6c5-x2k4t,container=api,workload=till} 4096",
        "container_spec_memory_limit_bytes{namespace=shop,pod=till-7d9f8b6c5-x2k4t,container=api,workload=till} 8192",
        "container_fs_reads_bytes_total{namespace=shop,pod=till-7d9f8b6c5-x2k4t,container=api,workload=till,device=/dev/vda} 4096",
    ] {
        assert!(all.iter().any(|line| line == expected), "{expected} is not in\n{}", all.join("\n"));
    }
    assert!(all.iter().any(|line| line.starts_with("node_filesystem_avail_bytes{")));
    let of_containers = all.iter().filter(|line| line.starts_with("container_cpu_usage")).count();
    assert_eq!(of_containers, 1, "a sandbox is nobody's");
    assert!(!all.iter().any(|line| line.contains("vda1")), "partitions are left out");
    // A family's samples stand together, and each family comes once.
    let names: Vec<&str> = page.families.iter().map(|family| page.text(family.name)).collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(names.len(), unique.len());
    assert!(page.families.iter().any(|family| family.kind == MetricKind::Counter));

    // The kernel's idle time sometimes goes back a little: a counter does not.
    node(root.path(), "399");
    page.clear();
    collector.collect(Duration::ZERO, &mut page);
    assert!(lines(&page).iter().any(|line| line == "node_cpu_seconds_total{cpu=0,mode=idle} 4"));
    // A CPU that was put back begins anew.
    node(root.path(), "7");
    page.clear();
    collector.collect(Duration::ZERO, &mut page);
    assert!(lines(&page).iter().any(|line| line == "node_cpu_seconds_total{cpu=0,mode=idle} 0.07"));
}

#[test]
fn this_machines_own_figures_are_plausible() {
    let config = Config { root: "/nowhere".into(), ..Config::default() };
    let mut collector = Collector::new(&config, "", "", None, Vec::new());
    let mut page = Page::default();
    collector.collect(Duration::ZERO, &mut page);
    let value = |name: &str| {
        let found = page.samples.iter().find(|sample| page.text(sample.name) == name);
        found.unwrap_or_else(|| panic!("{name} is there")).value
    };
    assert!(value("node_memory_MemTotal_bytes") > 1e8);
    assert!(value("node_boot_time_seconds") > 1.6e9);
    assert!(value("node_context_switches_total") > 1e3);
}

#[test]
fn a_tree_of_many_cgroups_is_walked_for_a_bounded_time() {
    let root = tempfile::tempdir().expect("a directory");
    let deep = (0..40).map(|_| "kubepods").collect::<Vec<_>>().join("/");
    fs::create_dir_all(root.path().join("sys/fs/cgroup").join(deep)).expect("directories");
    for number in 0..200 {
        fs::create_dir_all(root.path().join(format!("sys/fs/cgroup/kubepods.slice/x{number}/y")))
            .expect("directories");
    }
    assert!(super::cgroup::find(&root.path().join("sys/fs/cgroup")).is_empty());
}
