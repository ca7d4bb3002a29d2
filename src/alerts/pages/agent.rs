//! Pages about the agent's own alerts.

use super::Page;

pub(super) const PAGES: &[Page] = &[
    Page {
        alert: "NodewickDownOnNode",
        means: "A node is ready and Prometheus hears nothing of a nodewick there. Its logs stay in the kubelet's files, five of 10 MiB each \
                by default, and are lost when those rotate away. Where more than a fifth of the nodes lack it, the cause is not a node's own \
                and it pages.",
        see: "1. `kubectl get pods -n <namespace> -l app.kubernetes.io/name=nodewick -o wide --field-selector spec.nodeName=<node>`: is there a pod, \
              in which state?\n\
              2. `kubectl describe pod` and `kubectl logs --previous`: it cannot be pulled, is not scheduled (taint, quota, PriorityClass), does \
              not get ready, or ended; exit code 78 is a config that cannot be used.\n\
              3. The pod is ready: `up{node=\"<node>\"}`, Prometheus' target page, a NetworkPolicy between the two.",
        act: "Bring the pod back; nothing has to be done for the lines, the agent goes on where its checkpoint says. If the node has been \
              without it for long, watch `NodewickRotatedBeforeRead` when it is back.",
        false_alarm: "Nodes on which the DaemonSet is not wanted (virtual nodes, a `nodeSelector` of your own), and a scrape config that sets no \
                      label `node`: then every node seems to lack it. Needs kube-state-metrics; without it this alert never fires, and \
                      `NodewickAbsent` is all there is.",
    },
    Page {
        alert: "NodewickAbsent",
        means: "No agent at all has been scraped for ten minutes. Either none runs or Prometheus does not find them; every other alert about \
                nodewick is silent meanwhile.",
        see: "1. `kubectl get daemonset -A -l app.kubernetes.io/name=nodewick`.\n\
              2. Prometheus' target page: is there a job for it? The PodMonitor (chart: `podMonitor.enabled`) needs the labels that your \
              Prometheus selects by.",
        act: "Install or repair the DaemonSet, or the scrape job. Roll back the last rollout if it came with one.",
        false_alarm: "A Prometheus that is not meant to scrape agents: load the rules elsewhere. One Prometheus for several clusters sees one \
                      cluster without any agent only through `NodewickDownOnNode`.",
    },
    Page {
        alert: "NodewickCrashLooping",
        means: "The agent was started three times or more within half an hour. Nothing is lost by it as long as it reads between two starts.",
        see: "1. `kubectl describe pod`: last state, reason, exit code. `OOMKilled`: see `NodewickNearMemoryLimit`. 78: the config.\n\
              2. `kubectl logs --previous`: the last lines say what failed.\n\
              3. `nodewick doctor` in the pod or on the node checks directories, rights, disk, backends.",
        act: "Repair what it says. A panic is a bug: `nodewick support bundle` has what a report needs.",
        false_alarm: "Several config changes that need a restart, or several rollouts, within half an hour.",
    },
    Page {
        alert: "NodewickNearMemoryLimit",
        means: "The agent's resident memory is above nine tenths of its container's limit for ten minutes. The kernel ends it at the limit.",
        see: "1. `process_resident_memory_bytes` against `nodewick_memory_limit_bytes`, with `nodewick_budget_held_bytes` and \
              `nodewick_scrape_series`.\n\
              2. `nodewick check -c <config>` adds up what it may need.",
        act: "Raise the limit, or lower `[agent] memory`, `[scrape] series_limit` or what has the largest term in `nodewick check`.",
        false_alarm: "None that is known: the agent bounds what it holds, and its bound fits the limit at the start. If this fires with default \
                      settings, it is worth a report.",
    },
    Page {
        alert: "NodewickClockSkew",
        means: "The node's clock and that of a peer (a backend, or the Kubernetes API) differ by more than five seconds, by the `Date` header of its \
                answers. Lines and samples get times that are off by as much; Loki refuses lines that are ten minutes ahead, and tokens and \
                certificates seem not yet or no more valid.",
        see: "1. `nodewick doctor`, check `clock`: who differs from whom.\n\
              2. `nodewick_clock_skew_seconds` over nodes and peers: one node with all peers is the node; all nodes with one peer is the peer.\n\
              3. `timedatectl status`, `chronyc tracking` on the node.",
        act: "Set up NTP where the clock is wrong.",
        false_alarm: "A cache or proxy between the agent and the peer that answers with an old `Date`.",
    },
    Page {
        alert: "NodewickConfigRejected",
        means: "The config file was changed and cannot be used. The last good one stays in force, so nothing is lost; but a restart of the pod \
                would not come up.",
        see: "1. The agent's log: `the new config cannot be used`, with file, line, column and the nearest valid key.\n\
              2. `nodewick check -c <file>` says the same before it is rolled out.",
        act: "Correct the config or take the change back. The agent looks every ten seconds; nothing needs a restart.",
        false_alarm: "None: a rejected config is always worth a look.",
    },
    Page {
        alert: "NodewickConfigSkew",
        means: "For an hour agents have run with different configs. The hash leaves out the node's name and what comes from the environment or from \
                files, so it differs only where what is written differs.",
        see: "1. `count by (hash) (nodewick_config_info)`: how many run with which; `nodewick_config_info{hash=\"…\"}`: where.\n\
              2. `NodewickConfigRejected` on some of them? `nodewick_config_keys_awaiting_restart` above 0?\n\
              3. `nodewick config show` on one of each, side by side.",
        act: "Let the rollout end, or restart the pods that stayed behind.",
        false_alarm: "Several DaemonSets with configs of their own, such as one for GPU nodes: silence it, or give each its own `cluster`.",
    },
    Page {
        alert: "NodewickWatchStale",
        means: "The API server has sent neither an event nor a bookmark for ten minutes, or pods were never listed since the start. Logs are read all \
                the same. Labels of pods that are new since then come from their path, and their targets are not scraped.",
        see: "1. `nodewick_kube_errors_total` by reason: `forbidden` is RBAC, `unauthorized` the token, `unreachable` the network.\n\
              2. `nodewick doctor`, checks of the cluster: it asks for itself and says what is refused.",
        act: "Repair rights or network. The agent tries again by itself, with pauses of up to a minute or so.",
        false_alarm: "An API server that is being upgraded.",
    },
    Page {
        alert: "NodewickLossUnaccounted",
        means: "The ledger does not balance: bytes written to a log are more, or fewer, than those sent, dropped, lost, in flight and waiting. \
                Everything that nodewick loses has a reason of its own; this has none.",
        see: "1. `nodewick status` and the page `/ledger` of the agent: `unexplained_bytes` by container.\n\
              2. The agent's log around the container's last rotation.\n\
              3. Did something else write into, cut or replace files below the log root?",
        act: "If nothing did, it is a bug: send `nodewick support bundle`. Lines of that container between its last two rotations may be missing or \
              twice in the backend.",
        false_alarm: "Tools that edit or truncate files in /var/log/pods.",
    },
    Page {
        alert: "NodewickRotatedBeforeRead",
        means: "Log files were deleted or cut before they were read and before they could be spilled, or what was spilled had to be given up. Those lines \
                are gone; the stream has a line that says so, with the size where it is known.",
        see: "1. `sum by (reason) (increase(nodewick_log_lost_bytes_total{node=\"<node>\"}[1h]))`: `rotated_away`, `truncated`, `spill_full`, \
              `spill_damaged`, `held_full`; `gap` is a hole of unknown size.\n\
              2. `nodewick why <pod>` for the container that the agent's log names.\n\
              3. What came before: `NodewickReadLag`, `NodewickExportFailing`, `NodewickDownOnNode`.",
        act: "Remove the cause of the backlog. Give the kubelet more room (`containerLogMaxSize`, `containerLogMaxFiles`) or the spill \
              (`[logs.spill] budget`).",
        false_alarm: "An application that truncates its own log file (`copytruncate`) after nodewick has read it all counts nothing; one that cuts \
                      earlier does lose lines.",
    },
    Page {
        alert: "NodewickRotationRisk",
        means: "At the present write rate the kubelet deletes lines that are not delivered within fifteen minutes, or a log is already two rotations \
                behind. The spill copies what is about to go, as far as its budget reaches.",
        see: "1. `topk(5, nodewick_log_generation_lag{node=\"<node>\"})` and `bottomk(5, nodewick_log_time_to_loss_seconds{node=\"<node>\"})`: which \
              containers.\n\
              2. `nodewick status`: is a sink down, is memory full?\n\
              3. `nodewick_spill_bytes` against `nodewick_spill_limit_bytes`.",
        act: "A backend that is down: bring it back. A container that floods: limit it (`[process.limit]`) or its log level. A backend that is slow: \
              more `in_flight`, more CPU for the agent.",
        false_alarm: "A log that is written at many megabytes a second always has little time; while it is read within fifteen seconds this stays \
                      silent.",
    },
    Page {
        alert: "NodewickLinesDropped",
        means: "More than one line of a thousand does not arrive: a backend refuses it for good, or a rate limit of yours takes it. Above five of a \
                hundred refused it pages. Rules that drop, sample or fold lines do not count: they do what they are for.",
        see: "1. `sum by (reason) (rate(nodewick_records_lost_total{node=\"<node>\"}[10m]))`: `too_old`, `too_new`, `too_far_behind`, `too_large`, \
              `invalid`, `partial_success`.\n\
              2. `dead-letter.jsonl` in the state directory has the lines with labels and reason.\n\
              3. `rate_limit`: `sum by (rule) (rate(nodewick_records_dropped_total{reason=\"rate_limit\"}[10m]))`.",
        act: "`too_old`, `too_far_behind`: raise Loki's `reject_old_samples_max_age`, or find why lines are late. `too_new`: the node's clock. \
              `too_large`: Loki's `max_line_size` or `[logs] max_line`. `rate_limit`: find who floods, or raise the limit.",
        false_alarm: "After a long outage of a backend old lines are refused for as long as the backlog is delivered.",
    },
    Page {
        alert: "NodewickReadLag",
        means: "The oldest unread line on the node has waited for more than a minute for ten minutes, above ten minutes it pages. Nothing is lost \
                while files are not rotated away. Rate, errors and durations from access lines are read ahead and are not late by this.",
        see: "1. `nodewick status`: memory budget, sinks.\n\
              2. `topk(5, nodewick_log_unread_bytes{node=\"<node>\"})`: which containers.\n\
              3. Sinks up and memory not full: CPU. `rate(process_cpu_seconds_total{node=\"<node>\"}[5m])` and throttling of the pod.",
        act: "As in `NodewickRotationRisk`. Take a CPU limit away: throttled reading is late reading.",
        false_alarm: "The first start on nodes with old logs (`[logs] start = \"oldest\"`), and the time after an outage: it ends when the backlog is \
                      read.",
    },
    Page {
        alert: "NodewickCheckpointStale",
        means: "Lines are read and delivered, and for five minutes no position could be made durable. If the agent restarts now it sends those lines \
                once more; none is lost.",
        see: "1. `increase(nodewick_checkpoint_failures_total{node=\"<node>\"}[10m])` and the agent's log.\n\
              2. `nodewick doctor`, checks of the state directory: full, read-only, not writable, not on a disk.",
        act: "Make the state directory (`[agent] state_dir`, in the chart `hostPaths.state`) writable and give it space.",
        false_alarm: "None that is known. Without new lines, and while a backend takes nothing, positions do not move and this stays silent.",
    },
    Page {
        alert: "NodewickExportFailing",
        means: "A sink has delivered nothing for five minutes, and data has waited for it all the time. Lines wait in their files; samples are kept in \
                memory for five minutes and then given up, oldest first.",
        see: "1. `nodewick status`: what the backend said last.\n\
              2. `sum by (outcome) (rate(nodewick_sink_requests_total{sink=\"<sink>\",node=\"<node>\"}[5m]))`: `retry` is no answer or 5xx and 429, \
              `refused` is a no for good.\n\
              3. `nodewick doctor` tries the sink: name, connection, TLS, credential, tenant.",
        act: "All nodes: the backend, its limits, its credential. One node: its network, its NetworkPolicy egress, its DNS.",
        false_alarm: "None that is known: a sink without data, and one that is slow but delivers, stay silent.",
    },
    Page {
        alert: "NodewickBufferFullSoon",
        means: "At the pace of the last half hour the spill, which keeps lines that the kubelet has already deleted, is full within half an hour. Then \
                the oldest lines of the largest backlog are lost.",
        see: "1. `nodewick_spill_bytes` against `nodewick_spill_limit_bytes`.\n\
              2. `topk(5, nodewick_log_unread_bytes{node=\"<node>\"})`: whose.\n\
              3. `NodewickExportFailing`: which backend is the cause.",
        act: "Bring the backend back. To gain time raise `[logs.spill] budget` (a reload does it), or switch a noisy container off with the annotation \
              that `docs/reference/annotations.md` names.",
        false_alarm: "One steep rise that is over: it ends within minutes.",
    },
    Page {
        alert: "NodewickBufferFull",
        means: "memory: `[agent] memory` has been spent for five minutes and lines wait for more than a minute: reading has stopped, log files hold what \
                comes. spill: it is full, and what the kubelet deletes from now on is lost.",
        see: "As for `NodewickBufferFullSoon`; `nodewick_budget_held_bytes` against `nodewick_budget_limit_bytes`.",
        act: "Bring the backend back. If it is up and only slow, raise `[agent] memory` or the sink's `in_flight`.",
        false_alarm: "memory: a backlog after an outage is read with memory full; it ends when the backlog does.",
    },
    Page {
        alert: "NodewickRemoteWriteBehind",
        means: "The newest sample that a receiver has is more than two minutes older than the newest that the agent has. Alerts that read those samples \
                are late by as much; after five minutes samples are given up.",
        see: "1. `nodewick_sink_buffer_age_seconds`, `nodewick_sink_shards`, \
              `histogram_quantile(0.99, rate(nodewick_sink_request_duration_seconds_bucket[5m]))`.\n\
              2. `sum by (reason) (rate(nodewick_sink_samples_lost_total[5m]))`.",
        act: "Relieve the receiver, or raise the sink's number of shards. Drop series that nobody reads (`[[scrape.metric_relabel]]`).",
        false_alarm: "A receiver that was down: it ends when it has caught up.",
    },
    Page {
        alert: "NodewickCardinalityLimit",
        means: "Series are at nine tenths of a limit, or new ones are already refused. Series that are there go on; what is new has no data.",
        see: "1. `topk(10, sum by (workload) (scrape_samples_post_metric_relabeling))`: who has most.\n\
              2. `nodewick_scrape_series` against `nodewick_scrape_series_limit`; `nodewick_red_refused_total` by reason.\n\
              3. `/targets` of the agent: what each target gave.",
        act: "Drop labels or metrics that explode (`[[scrape.metric_relabel]]`), else raise `[scrape] series_limit`; memory is about 20 bytes a series \
              and what its labels need.",
        false_alarm: "Routes that share `__other__` do not count. A rollout of everything at once may touch the limit for some minutes.",
    },
];
