//! `nodewick-nodejs`: what happens inside Node.js, by prom-client's default metrics.

use super::model::{Board, Panel, Row};
use super::service::variables;

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-nodejs",
        title: "nodewick / Node.js",
        about: "For owners of Node.js services: the event loop, the heap and garbage collection, as prom-client exports them and the agent \
                scrapes them.",
        from: "now-3h",
        variables: variables("nodejs_version_info"),
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "Event loop", panels: event_loop() },
            Row { title: "Memory", panels: memory() },
            Row { title: "Process", panels: process() },
        ],
    }
}

const LAG: &[(f64, &str, &str)] = &[(0.0, "green", ""), (0.05, "yellow", ""), (0.2, "red", "")];

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Event-loop lag p99",
            "How late callbacks run in the worst pod. Everything that the \
            service does waits at least so long.",
        )
        .unit("s")
        .levels(LAG)
        .q("max(nodejs_eventloop_lag_p99_seconds{@W,pod=~\"$pod\"})", "p99"),
        Panel::stat(
            "Heap used",
            "Of the heap that V8 has taken, in the fullest pod. Near 100% and rising \
            over days: a leak.",
        )
        .unit("percentunit")
        .q(
            "max(nodejs_heap_size_used_bytes{@W,pod=~\"$pod\"} / \
                    (nodejs_heap_size_total_bytes{@W,pod=~\"$pod\"} > 0))",
            "used",
        ),
        Panel::stat(
            "Time in GC",
            "The share of time in garbage collection, in the worst pod. Above a tenth \
            the heap is too small or leaks.",
        )
        .unit("percentunit")
        .levels(&[(0.0, "green", ""), (0.05, "yellow", ""), (0.1, "red", "")])
        .q("max(sum by (pod, container) (rate(nodejs_gc_duration_seconds_sum{@W,pod=~\"$pod\"}@R)))", "gc"),
        Panel::stat("CPU", "Cores of the busiest process. One core is all that an event loop can use.")
            .unit("cores")
            .levels(&[(0.0, "green", ""), (0.8, "yellow", ""), (0.95, "red", "")])
            .q(
                "max(rate(process_cpu_seconds_total{@W,pod=~\"$pod\"}@R) and on (instance) \
                    nodejs_version_info{@W})",
                "cores",
            ),
        Panel::stat(
            "Restarts in an hour",
            "Processes that began anew. Look at the last lines of the service before each.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "orange", ""), (5.0, "red", "")])
        .q(
            "sum(changes(process_start_time_seconds{@W,pod=~\"$pod\"}[1h]) and on (instance) \
                    nodejs_version_info{@W})",
            "restarts",
        ),
        Panel::stat(
            "Processes",
            "Node.js processes that are scraped. Compare with the pods that you deployed.",
        )
        .q("count(nodejs_version_info{@W,pod=~\"$pod\"})", "processes"),
    ]
}

fn event_loop() -> Vec<Panel> {
    vec![
        Panel::series(
            "Event-loop lag",
            "How late callbacks run. Spikes are synchronous work: JSON of \
            megabytes, crypto, regular expressions. Move it off the loop.",
        )
        .unit("s")
        .levels(LAG)
        .q("max by (pod) (nodejs_eventloop_lag_p99_seconds{@W,pod=~\"$pod\"})", "p99 {{pod}}")
        .q("max by (pod) (nodejs_eventloop_lag_p50_seconds{@W,pod=~\"$pod\"})", "p50 {{pod}}"),
        Panel::stacked(
            "Time in GC by kind",
            "The share of time spent in garbage collection. Major \
            collections that grow longer: a leak or too small a heap.",
        )
        .unit("percentunit")
        .q("sum by (kind) (rate(nodejs_gc_duration_seconds_sum{@W,pod=~\"$pod\"}@R))", "{{kind}}"),
    ]
}

fn memory() -> Vec<Panel> {
    vec![
        Panel::series(
            "Heap by pod",
            "Used and taken. A floor that rises from collection to collection is a \
            leak: take a heap snapshot.",
        )
        .size(8, 8)
        .unit("bytes")
        .q("sum by (pod) (nodejs_heap_size_used_bytes{@W,pod=~\"$pod\"})", "used {{pod}}")
        .q("sum by (pod) (nodejs_heap_size_total_bytes{@W,pod=~\"$pod\"})", "taken {{pod}}")
        .q("max(kube_pod_container_resource_limits{@P,resource=\"memory\"})", "limit of the container"),
        Panel::series(
            "Resident and external memory",
            "Resident memory far above the heap is buffers and \
            native modules. The limit is the container's.",
        )
        .size(8, 8)
        .unit("bytes")
        .q(
            "max by (pod) (process_resident_memory_bytes{@W,pod=~\"$pod\"} and on (instance) \
                    nodejs_version_info{@W})",
            "resident {{pod}}",
        )
        .q("sum by (pod) (nodejs_external_memory_bytes{@W,pod=~\"$pod\"})", "external {{pod}}")
        .q("max(kube_pod_container_resource_limits{@P,resource=\"memory\"})", "limit"),
        Panel::stacked(
            "Heap by space",
            "Which part of the heap holds it. Old space: objects that live long. \
            Large objects: big buffers and strings.",
        )
        .size(8, 8)
        .unit("bytes")
        .q("sum by (space) (nodejs_heap_space_size_used_bytes{@W,pod=~\"$pod\"})", "{{space}}"),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        Panel::series(
            "Handles and requests",
            "Open sockets, timers and files, and what waits for the system. \
            Handles that only grow are never closed.",
        )
        .size(8, 8)
        .q("sum by (pod) (nodejs_active_handles_total{@W,pod=~\"$pod\"})", "handles {{pod}}")
        .q("sum by (pod) (nodejs_active_requests_total{@W,pod=~\"$pod\"})", "requests {{pod}}"),
        Panel::series(
            "File descriptors",
            "Of those that the process may have. At 100% it accepts nothing any \
            more.",
        )
        .size(8, 8)
        .unit("percentunit")
        .q(
            "max by (pod) ((process_open_fds{@W,pod=~\"$pod\"} / process_max_fds{@W,pod=~\"$pod\"}) and \
                    on (instance) nodejs_version_info{@W})",
            "{{pod}}",
        ),
        Panel::table(
            "Versions",
            "Which Node.js each pod runs. Several at once: a rollout under way, or \
            images that drifted apart.",
        )
        .size(8, 8)
        .label("version", "Version")
        .label("pod", "Pod")
        .value("max by (version, pod) (nodejs_version_info{@W,pod=~\"$pod\"})", "Runs", "none")
        .column_levels(&[(0.0, "text", "no"), (1.0, "green", "yes")])
        .least("Version"),
        Panel::series("CPU by process", "Cores, user and system. Much system time is I/O in small pieces.")
            .size(24, 7)
            .unit("cores")
            .q(
                "max by (pod) (rate(process_cpu_user_seconds_total{@W,pod=~\"$pod\"}@R) and on (instance) \
                    nodejs_version_info{@W})",
                "user {{pod}}",
            )
            .q(
                "max by (pod) (rate(process_cpu_system_seconds_total{@W,pod=~\"$pod\"}@R) and on (instance) \
                    nodejs_version_info{@W})",
                "system {{pod}}",
            ),
    ]
}
