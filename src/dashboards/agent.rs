//! `nodewick-agent`: the agents themselves, node by node.

use super::model::{Board, Need, Panel, Row, Variable};
use super::oncall::trouble;
use super::promql::named;

pub(super) fn board() -> Board {
    Board {
        uid: "nodewick-agent",
        title: "nodewick / Agent",
        about: "For operators of the agents: does every line arrive, is any about to be lost, and what does \
            it cost.",
        from: "now-3h",
        variables: vec![
            Variable::new(
                "cluster",
                "Cluster",
                "label_values(nodewick_build_info, cluster)",
                Need::All(".*"),
            ),
            Variable::new("node", "Node", "label_values(nodewick_build_info{@C}, node)", Need::All(".*")),
        ],
        rows: vec![
            Row { title: "", panels: stats() },
            Row { title: "The ledger: what became of every byte", panels: ledger() },
            Row { title: "Close to loss", panels: loss() },
            Row { title: "Delivery", panels: delivery() },
            Row { title: "Metrics", panels: metrics() },
            Row { title: "State, Kubernetes and cost", panels: state() },
        ],
    }
}

/// Series about the containers with the largest backlogs.
fn worst(metric: &str) -> String {
    named(&format!("{metric}{{@A}}"), &["namespace", "pod", "container"])
}

fn stats() -> Vec<Panel> {
    vec![
        Panel::stat("Agents", "Agents that answer. Fewer than nodes: a node without logs in the backend.")
            .q("count(nodewick_build_info{@A})", "agents"),
        Panel::stat(
            "In trouble",
            "Nodes whose agent cannot deliver, is about to lose lines, or refused its \
            config.",
        )
        .levels(&[(0.0, "green", ""), (1.0, "orange", "")])
        .q(&format!("sum(max by (cluster, node) ({}))", trouble("@A")), "nodes"),
        Panel::stat(
            "Unread",
            "Bytes on disk that are not yet read. It grows while a backend is slow, and \
            shrinks afterwards.",
        )
        .unit("bytes")
        .q("sum(nodewick_log_lag_bytes{@A})", "bytes"),
        Panel::stat(
            "Least time to loss",
            "Until the kubelet deletes unread bytes of the worst container, at \
            its present rate. A year means that none is in danger.",
        )
        .unit("s")
        .levels(&[(0.0, "red", ""), (900.0, "orange", ""), (3600.0, "green", "")])
        .q("min(nodewick_log_time_to_loss_min_seconds{@A})", "seconds"),
        Panel::stat(
            "Bytes lost since start",
            "Bytes that were gone before they were read or that a backend \
            refused for good. Anything but 0: see the reasons below.",
        )
        .unit("bytes")
        .levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .q("sum(nodewick_ledger_bytes{@A,state=\"lost\"})", "lost"),
        Panel::stat(
            "Unexplained",
            "Bytes that the ledger cannot account for. Anything but 0 is a bug or a \
            file that was tampered with: collect a support bundle.",
        )
        .unit("bytes")
        .levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .q("sum(nodewick_ledger_unexplained_bytes{@A})", "unexplained"),
    ]
}

fn ledger() -> Vec<Panel> {
    vec![
        Panel::table(
            "Nodes",
            "Each node's ledger since its agent started: written is the sum of the others. \
            The worst backlog is at the top.",
        )
        .size(24, 8)
        .label("node", "Node")
        .value("sum by (cluster, node) (nodewick_ledger_bytes{@A,state=\"written\"})", "Written", "bytes")
        .value("sum by (cluster, node) (nodewick_ledger_bytes{@A,state=\"sent\"})", "Sent", "bytes")
        .value("sum by (cluster, node) (nodewick_ledger_bytes{@A,state=\"in_flight\"})", "In flight", "bytes")
        .value("sum by (cluster, node) (nodewick_ledger_bytes{@A,state=\"waiting\"})", "Waiting", "bytes")
        .value(
            "sum by (cluster, node) (nodewick_ledger_bytes{@A,state=\"dropped\"})",
            "Dropped by rules",
            "bytes",
        )
        .value("sum by (cluster, node) (nodewick_ledger_bytes{@A,state=\"lost\"})", "Lost", "bytes")
        .column_levels(&[(0.0, "green", ""), (1.0, "red", "")])
        .value("max by (cluster, node) (nodewick_log_generation_lag_max{@A})", "Rotations behind", "none")
        .column_levels(&[(0.0, "green", ""), (1.0, "orange", ""), (2.0, "red", "")])
        .value("min by (cluster, node) (nodewick_log_time_to_loss_min_seconds{@A})", "Time to loss", "s")
        .column_levels(&[(0.0, "red", ""), (900.0, "orange", ""), (3600.0, "green", "")])
        .label("cluster", "Cluster")
        .most("Waiting"),
        Panel::series(
            "Read and sent",
            "Bytes read from logs and bytes sent, compressed. Reading that stops \
            with a backlog is back-pressure.",
        )
        .size(8, 8)
        .unit("Bps")
        .q("sum(rate(nodewick_log_read_bytes_total{@A}@R))", "read")
        .q("sum(rate(nodewick_sink_sent_bytes_total{@A}@R))", "sent"),
        Panel::series(
            "Unread by node",
            "How long the oldest unread line has waited, the ten worst nodes. \
            Minutes: the backend is slow or the agent starves.",
        )
        .size(8, 8)
        .unit("s")
        .levels(&[(0.0, "green", ""), (60.0, "orange", ""), (600.0, "red", "")])
        .q("topk(10, max by (node) (nodewick_log_oldest_unread_age_seconds{@A}))", "{{node}}"),
        Panel::series(
            "Dropped and lost",
            "Records that rules dropped, and bytes that were lost, by reason. \
            Dropped is your config; lost is a page.",
        )
        .size(8, 8)
        .unit("short")
        .none("nothing dropped, nothing lost")
        .q("sum by (reason) (rate(nodewick_records_dropped_total{@A}@R))", "dropped: {{reason}}")
        .quiet()
        .q("sum by (reason) (rate(nodewick_records_lost_total{@A}@R))", "records lost: {{reason}}")
        .quiet()
        .q("sum by (reason) (rate(nodewick_log_lost_bytes_total{@A}@R))", "bytes lost: {{reason}}")
        .quiet(),
    ]
}

fn loss() -> Vec<Panel> {
    vec![
        Panel::table(
            "Containers with a backlog",
            "The worst containers of each node. Slow the writer, speed \
            up the backend, or raise containerLogMaxFiles.",
        )
        .size(24, 7)
        .none("no container has a backlog")
        .label("namespace", "Namespace")
        .label("pod", "Pod")
        .label("container", "Container")
        .value(
            &format!("max by (node, namespace, pod, container) ({})", worst("nodewick_log_unread_bytes")),
            "Unread",
            "bytes",
        )
        .quiet()
        .value(
            &format!("max by (node, namespace, pod, container) ({})", worst("nodewick_log_generation_lag")),
            "Rotations behind",
            "none",
        )
        .quiet()
        .value(
            &format!(
                "min by (node, namespace, pod, container) ({})",
                worst("nodewick_log_time_to_loss_seconds")
            ),
            "Time to loss",
            "s",
        )
        .quiet()
        .column_levels(&[(0.0, "red", ""), (900.0, "orange", ""), (3600.0, "green", "")])
        .label("node", "Node")
        .most("Unread"),
        Panel::series(
            "Rotations behind",
            "How many rotations the acknowledged position of the worst \
            container is behind. At two the next rotations delete unread lines.",
        )
        .size(8, 8)
        .levels(&[(0.0, "green", ""), (2.0, "red", "")])
        .q("topk(10, max by (node) (nodewick_log_generation_lag_max{@A}))", "{{node}}"),
        Panel::series(
            "Spill",
            "Bytes kept of files that the kubelet was about to delete, and the most that \
            may be kept. It empties when the backend is back.",
        )
        .size(8, 8)
        .unit("bytes")
        .q("topk(10, sum by (node) (nodewick_spill_bytes{@A}))", "{{node}}")
        .q("min(nodewick_spill_limit_bytes{@A})", "least limit"),
        Panel::series(
            "Rotations, cuts and gaps",
            "Rotations are normal. Cuts (truncations), gaps and damaged \
            spill frames lose lines.",
        )
        .size(8, 8)
        .unit("cps")
        .q("sum(rate(nodewick_log_rotations_total{@A}@R))", "rotations")
        .q("sum(rate(nodewick_log_truncations_total{@A}@R))", "truncations")
        .q("sum(rate(nodewick_log_gaps_total{@A}@R))", "gaps")
        .q("sum(rate(nodewick_spill_damaged_frames_total{@A}@R))", "damaged frames"),
    ]
}

fn delivery() -> Vec<Panel> {
    vec![
        Panel::table(
            "Sinks",
            "Each sink of each node: does its backend answer, and what waits for it. \
            `nodewick doctor` asks the backend why not.",
        )
        .size(12, 8)
        .label("sink", "Sink")
        .label("node", "Node")
        .value("min by (node, sink) (nodewick_sink_up{@A})", "Backend", "none")
        .column_levels(&[(0.0, "red", "does not answer"), (1.0, "green", "answers")])
        .value(
            "max by (node, sink) (time() - nodewick_sink_last_success_timestamp_seconds{@A})",
            "Took something",
            "s",
        )
        .column_levels(&[(0.0, "green", ""), (300.0, "orange", "")])
        .value("max by (node, sink) (nodewick_sink_queue_bytes{@A})", "Queue", "bytes")
        .value("max by (node, sink) (nodewick_sink_buffer_age_seconds{@A})", "Samples wait", "s")
        .quiet()
        .least("Backend"),
        Panel::series(
            "Requests by outcome",
            "Retries are the backend's trouble, refusals are data that it \
            does not take: read the agent's log for its words.",
        )
        .size(12, 8)
        .unit("reqps")
        .q("sum by (sink, outcome) (rate(nodewick_sink_requests_total{@A}@R))", "{{sink}} {{outcome}}"),
        Panel::series(
            "Export latency",
            "From sending a request to its answer. Above a second the backend \
            limits throughput.",
        )
        .size(8, 8)
        .unit("s")
        .q(
            "histogram_quantile(0.5, sum by (sink, le) \
                    (rate(nodewick_sink_request_duration_seconds_bucket{@A}@R)))",
            "p50 {{sink}}",
        )
        .q(
            "histogram_quantile(0.99, sum by (sink, le) \
                    (rate(nodewick_sink_request_duration_seconds_bucket{@A}@R)))",
            "p99 {{sink}}",
        ),
        Panel::series(
            "Memory budget",
            "Log data in memory, of what it may be. At 100% reading waits, and the \
            files on disk are the buffer.",
        )
        .size(8, 8)
        .unit("percentunit")
        .max(1.0)
        .levels(&[(0.0, "green", ""), (0.95, "orange", "")])
        .q(
            "topk(10, max by (node) (nodewick_budget_held_bytes{@A} / (nodewick_budget_limit_bytes{@A} > \
                    0)))",
            "{{node}}",
        ),
        Panel::series("Records by outcome", "Records a second by sink and what became of them.")
            .size(8, 8)
            .unit("cps")
            .q("sum by (sink, outcome) (rate(nodewick_sink_records_total{@A}@R))", "{{sink}} {{outcome}}"),
    ]
}

fn metrics() -> Vec<Panel> {
    vec![
        Panel::series("Scrapes", "Scrapes that ended and those that gave nothing, by reason. `/targets` and \
            `nodewick why` name the target.")
            .size(8, 8)
            .unit("cps")
            .q("sum(rate(nodewick_scrapes_total{@A}@R))", "scrapes")
            .q("sum by (reason) (rate(nodewick_scrape_failures_total{@A}@R))", "failed: {{reason}}")
            .quiet()
            .q("sum by (reason) (rate(nodewick_scrape_ticks_skipped_total{@A}@R))", "left out: {{reason}}")
            .quiet(),
        Panel::series("Series against the limit", "Series of scraped targets by [scrape] series_limit, the \
            ten fullest nodes. At 100% new series are refused: drop a label, or raise it.")
            .size(8, 8)
            .unit("percentunit")
            .levels(&[(0.0, "green", ""), (0.9, "orange", ""), (1.0, "red", "")])
            .q("topk(10, max by (node) (nodewick_scrape_series{@A} / (nodewick_scrape_series_limit{@A} > \
                0)))", "{{node}}"),
        Panel::series("Lag of samples", "How far what was delivered is behind what was taken, by sink. \
            Minutes: the receiver is too slow or down.")
            .size(8, 8)
            .unit("s")
            .q(
                "max by (node, sink) (nodewick_sink_newest_sample_timestamp_seconds{@A,stage=\"taken\"}) \
                 - on (node, sink) max by (node, sink) (nodewick_sink_newest_sample_timestamp_seconds{@A,stage=\"delivered\"})",
                "{{node}} {{sink}}",
            ),
        Panel::series("RED at a limit", "What RED turned away or missed, by reason. Routes: __other__ holds \
            them; name the routes in the application.")
            .size(8, 7)
            .unit("cps")
            .none("nothing turned away")
            .q("sum by (reason) (rate(nodewick_red_refused_total{@A}@R))", "refused: {{reason}}")
            .quiet()
            .q("sum by (reason) (rate(nodewick_red_missed_total{@A}@R))", "missed: {{reason}}")
            .quiet(),
        Panel::series("Samples turned away", "Samples of scraped pages that were not taken, by outcome: \
            repeated, out of order, beyond the series limit, of a failed page.")
            .size(8, 7)
            .unit("cps")
            .none("every sample was taken")
            .q("sum by (outcome) (rate(nodewick_scrape_samples_total{@A,outcome!~\"taken|dropped\"}@R))", "{{outcome}}")
            .quiet(),
        Panel::series("Samples by outcome", "Samples a second by sink and what became of them.")
            .size(8, 7)
            .unit("cps")
            .q("sum by (sink, outcome) (rate(nodewick_sink_samples_total{@A}@R))", "{{sink}} {{outcome}}")
            .q("sum by (sink, reason) (rate(nodewick_sink_samples_lost_total{@A}@R))", "lost {{sink}}: {{reason}}")
            .quiet(),
    ]
}

fn state() -> Vec<Panel> {
    let own = "and on (instance, job) nodewick_build_info{@A}";
    vec![
        Panel::table(
            "Versions and config",
            "Several versions: a rollout under way. A config that was \
            refused: the agent goes on with the last good one, its log has the line.",
        )
        .size(12, 8)
        .label("node", "Node")
        .label("version", "Version")
        .value("max by (node, version) (nodewick_build_info{@A})", "Runs", "none")
        .column_levels(&[(0.0, "text", "no"), (1.0, "green", "yes")])
        .value(
            "min by (node, version) (nodewick_config_last_reload_successful{@A} * on (instance, job) \
                    group_left (version) nodewick_build_info{@A})",
            "Config",
            "none",
        )
        .column_levels(&[(0.0, "red", "refused"), (1.0, "green", "in force")])
        .value(
            "max by (node, version) (1000 * nodewick_config_last_reload_success_timestamp_seconds{@A} * \
                    on (instance, job) group_left (version) nodewick_build_info{@A})",
            "Config since",
            "dateTimeFromNow",
        )
        .value(
            "max by (node, version) (nodewick_config_keys_awaiting_restart{@A} * on (instance, job) \
                    group_left (version) nodewick_build_info{@A})",
            "Keys awaiting a restart",
            "none",
        )
        .value(
            "max by (node, version) (scalar(count(count by (hash) (nodewick_config_info{@A}))) * \
                    nodewick_build_info{@A})",
            "Configs on all nodes",
            "none",
        )
        .column_levels(&[(0.0, "green", ""), (2.0, "orange", "")])
        .least("Config"),
        Panel::series(
            "Age of checkpoint",
            "Since positions were last made durable. Minutes while lines are \
            read: the state directory cannot be written.",
        )
        .size(12, 8)
        .unit("s")
        .q("topk(10, max by (node) (time() - (nodewick_checkpoint_timestamp_seconds{@A} > 0)))", "{{node}}"),
        Panel::series(
            "Clock skew",
            "How far each node's clock is from those that it talks to. Seconds: lines \
            are refused as too new, or sort wrongly. Look at the node's time service.",
        )
        .size(6, 8)
        .unit("s")
        .signed()
        .q("topk(10, max by (node, peer) (nodewick_clock_skew_seconds{@A}))", "{{node}} {{peer}}"),
        Panel::series(
            "Age of the pod watch",
            "Since the API server or the kubelet last sent anything. \
            Minutes: labels of new pods may be late.",
        )
        .size(6, 8)
        .unit("s")
        .none("no node reads pods")
        .q(
            "topk(10, max by (node, resource) (time() - (nodewick_kube_last_contact_timestamp_seconds{@A} \
                    > 0)))",
            "{{node}} {{resource}}",
        )
        .q("sum by (reason) (rate(nodewick_kube_errors_total{@A}@R))", "errors a second: {{reason}}")
        .quiet(),
        Panel::series("CPU", "Cores of the agents, the ten busiest. It follows the bytes read.")
            .size(6, 8)
            .unit("cores")
            .q(
                &format!("topk(10, sum by (node) (rate(process_cpu_seconds_total{{@A}}@R) {own}))"),
                "{{node}}",
            ),
        Panel::series(
            "Memory",
            "Resident memory, the ten largest. The bound that `nodewick check` prints is \
            what the limit must hold.",
        )
        .size(6, 8)
        .unit("bytes")
        .q(&format!("topk(10, sum by (node) (process_resident_memory_bytes{{@A}} {own}))"), "{{node}}")
        .q("min(nodewick_memory_limit_bytes{@A} > 0)", "least limit")
        .quiet(),
    ]
}
