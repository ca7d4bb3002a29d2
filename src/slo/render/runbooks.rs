//! A page for each alert: what it means, where to look first, what ends it.
//!
//! Out: alert names with Markdown. Invariant: every alert that [`rules`](super::rules) makes has a page, which a test holds.

/// One alert's page in parts, so that each is there.
struct Page {
    alert: &'static str,
    severity: &'static str,
    means: &'static str,
    look: &'static str,
    act: &'static str,
    ends: &'static str,
}

const PAGES: &[Page] = &[
    Page {
        alert: "SLOErrorBudgetBurn",
        severity: "page",
        means: "Users see errors or slowness now, fast enough to spend 2 % of the error budget within an hour or 5 % within six. \
                Both the long and the short range are above their threshold, so it is still going on.",
        look: "1. The alert names the worst routes and pods. One pod: look at its node and its last restart. All pods and one route: \
               look at what that route calls. All routes: look at what all share.\n\
               2. `logs_query` shows the lines behind it; a trace id in a line leads to the trace.\n\
               3. What changed: a deploy, a config, a dependency, traffic. Compare its time with the start of the burn.\n\
               4. How bad: `slo:burn_rate:ratio_rate1h{slo_id=\"…\"}`; at 14.4 a budget of 30 days is gone in two days, at 1,000 in \
               45 minutes.\n\
               5. If the alert says that lines were lost on a node, requests of that node are missing in the figure; it says between what \
               the true share lies. `sample_trace_ids`, where `[slo.defaults] trace_evidence` is on, are the newest bad requests.",
        act: "Stop the burning first: roll back, take the bad pod out, shift traffic, switch the feature off. Find the cause after.",
        ends: "The short range is clean: a fast burn ends about 5 minutes after recovery, one that also burned over six hours after up \
               to 30 minutes. A total outage of 10 minutes at 99.95 % clears 29 minutes after its end.",
    },
    Page {
        alert: "SLOErrorBudgetBurnSlow",
        severity: "ticket",
        means: "Errors spend the budget slowly but surely: 10 % of it within one or three days. Nobody must get up for it; somebody must \
                look at it in working hours.",
        look: "1. `slo:error_budget_remaining:ratio{slo_id=\"…\"}`: how much is left, and the alert says how long it lasts.\n\
               2. The routes and pods that the alert names, over six hours: a steady share of errors has a steady cause.\n\
               3. If a page came before, this is its echo: it clears by itself.\n\
               4. Of a latency objective whose histogram has no bucket at the threshold, tickets count all that is slower than the bucket \
               below: it may be less bad. The alert says so, and `SLOBucketMismatch` names the bucket to add.",
        act: "Plan the repair. When the budget is nearly gone, prefer stability to features until it grows back.",
        ends: "Up to six hours after the last errors. Alertmanager's inhibition keeps it quiet while the page of the same objective fires.",
    },
    Page {
        alert: "SLOTrafficVanished",
        severity: "page",
        means: "There were more than 20 requests in five minutes within the last hour, and now there are none, or nobody counts them. \
                When all pods are gone there are no errors either: burn alerts stay silent, and this one speaks.\n\n\
                Whether the workload was scaled to zero on purpose, the rules know from kube-state-metrics alone \
                (`kube_deployment_spec_replicas`, `kube_statefulset_spec_replicas`), and only with `[slo.defaults] kube_state_metrics = \
                true` and objectives that name a workload. Without it, which is the default, they do not know.",
        look: "1. `kubectl -n <namespace> get pods`: are there any, are they ready?\n\
               2. Is anybody asking: ingress, DNS, the caller's own errors.\n\
               3. Is anybody counting: `up` of its targets, `red_source_info` of the workload, the agent on its nodes \
               (`nodewick doctor`, `nodewick why <pod>`).",
        act: "Bring the pods or the traffic back. If it was scaled to zero on purpose, switch `kube_state_metrics` on; if it was \
              removed, silence the alert and remove the objective. An autoscaler that scales to zero by mistake is no outage to \
              kube-state-metrics either.",
        ends: "With the first request that is counted. It does not end by itself, however long the outage lasts. An objective that a \
               pod's annotation declared is remembered for a week after the last such pod.",
    },
    Page {
        alert: "SLOBucketMismatch",
        severity: "ticket",
        means: "A latency objective is not counted at its threshold: requests are counted by the application's own histogram, and that has \
                no bucket there. Nothing is interpolated, as that would be wrong by more than most budgets (20 % bad at 0.1 s and 0.5 % at \
                0.25 s were the same traffic).\n\n\
                With neighbours in its labels (`lower`, `upper`): the agent counts against both. Pages, the budget and the dashboards take \
                what is slower than `upper`, which is bad for certain, so a page may be missed; tickets take all that is slower than \
                `lower`, so a ticket may be about nothing. Without neighbours the objective has no data.",
        look: "1. `slo_bracket_info{slo_id=\"…\"}` shows the buckets on both sides; `slo_bracket_events_total` what is counted by them.\n\
               2. `group by (le) (red_request_duration_seconds_bucket{workload=\"…\"})` shows all buckets that exist.\n\
               3. `red_source_info{workload=\"…\"}` shows where the figures come from.",
        act: "Add the threshold to the application's buckets (prom-client: `buckets: […, 0.2, …]`), or let the agent count access lines, \
              which is exact at every threshold: `[red] source = \"log\"`. Or choose a threshold that is a bucket. Objectives of a service \
              or a route are measured by their own bucket only.",
        ends: "When the bucket exists in every version that runs, or access lines are counted.",
    },
    Page {
        alert: "SLORuleMissing",
        severity: "ticket",
        means: "An agent counts an objective (`slo_events_total`, `slo_bracket_events_total`), and neither rules of its own nor the generic \
                ones evaluate its `slo_id` here: it never alerts.",
        look: "1. `count by (slo_id) (slo_events_total or slo_bracket_events_total) unless on (slo_id) slo:info` lists them.\n\
               2. Is `rules/generic.yaml` loaded? It takes every objective that `slo_objective_info` names and that has no rules of its own.\n\
               3. Was it declared in a config that was not rendered, by an agent that publishes no `slo_objective_info`?",
        act: "Load `rules/generic.yaml`, or render the rules from the config that the agents run with (`nodewick slo render`) and load them.",
        ends: "When the rules are loaded.",
    },
    Page {
        alert: "SLONoData",
        severity: "ticket",
        means: "An objective is declared and not one request of it was counted in three days. Its state is unknown: there is no ratio and no \
                budget, least of all a full one.",
        look: "1. Does it match anything: compare `slo:info{slo_id=\"…\"}` with `count by (namespace, workload, service, route) \
               (red_requests_total)`. A workload goes by the name of its Deployment, without namespace and kind.\n\
               2. Is anybody counting: `red_source_info` of the workload, `nodewick why <pod>`.\n\
               3. A latency objective without a bucket has `SLOBucketMismatch` beside this alert.",
        act: "Correct `match`, make the workload's requests visible, or remove the objective. A workload that nobody asks for days has no use \
              for an objective over requests.",
        ends: "With the first request that is counted.",
    },
    Page {
        alert: "SLORetentionTooShort",
        severity: "ticket",
        means: "The Prometheus that evaluates the rules keeps samples for less than the longest window: a budget over 30 days is really one over \
                what is kept, and seems fuller than it is. Alerts are not touched; they look three days back at most.\n\n\
                How it knows: from `prometheus_tsdb_retention_limit_seconds` where Prometheus has it (2.42 has not) and scrapes itself; from \
                `prometheus_tsdb_lowest_timestamp_seconds` once it has deleted a block (`prometheus_tsdb_time_retentions_total`, \
                `prometheus_tsdb_size_retentions_total`); and without these from `slo:rules_running:seconds`, which outlives the samples that \
                it is counted from: rules that have run for longer than the window while nothing of a day less than the window ago is left. \
                The first two are about every Prometheus that is scraped: see `job` and `instance`. The last one comes only when the \
                window is over, and starts anew when the rules did not run for a day.",
        look: "1. `(time() - prometheus_tsdb_lowest_timestamp_seconds) / 86400`: how many days there are.\n\
               2. The flags `--storage.tsdb.retention.time` (15d without it) and `--storage.tsdb.retention.size` on the page `/flags`.\n\
               3. Behind Thanos, Mimir or VictoriaMetrics their own limits count, and whether the rules are evaluated there.",
        act: "Start Prometheus with a retention of the window and a day more, say so in `[slo.defaults] retention`, or declare a shorter window.",
        ends: "When samples are older than the window; after a longer retention is set they first must become so.",
    },
    Page {
        alert: "SLOLowTraffic",
        severity: "info",
        means: "In six hours there were fewer requests than the bad ones that a page needs. Even if all of them failed, nobody would be \
                paged.",
        look: "`slo:sli_events:increase6h{slo_id=\"…\"}`.",
        act: "Send synthetic requests, put several services under one objective, lower `page_min_bad_events`, or accept that such a \
              service has tickets only.",
        ends: "When there is more traffic.",
    },
];

/// All pages.
pub(super) fn pages() -> impl Iterator<Item = (&'static str, String)> {
    PAGES.iter().map(|page| {
        let text = format!(
            "<!-- Rendered by `nodewick slo render`; change the code, not this file. -->\n# {}\n\nSeverity: {}\n\n## What it \
             means\n\n{}\n\n## Where to look\n\n{}\n\n## What to do\n\n{}\n\n## When it ends\n\n{}\n",
            page.alert, page.severity, page.means, page.look, page.act, page.ends
        );
        (page.alert, text)
    })
}
