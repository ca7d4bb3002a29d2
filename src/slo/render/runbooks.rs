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
               45 minutes.",
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
               3. If a page came before, this is its echo: it clears by itself.",
        act: "Plan the repair. When the budget is nearly gone, prefer stability to features until it grows back.",
        ends: "Up to six hours after the last errors. Alertmanager's inhibition keeps it quiet while the page of the same objective fires.",
    },
    Page {
        alert: "SLOTrafficVanished",
        severity: "page",
        means: "There were more than 20 requests in five minutes within the last hour, and now there are none, or nobody counts them. \
                When all pods are gone there are no errors either: burn alerts stay silent, and this one speaks.",
        look: "1. `kubectl -n <namespace> get pods`: are there any, are they ready?\n\
               2. Is anybody asking: ingress, DNS, the caller's own errors.\n\
               3. Is anybody counting: `up` of its targets, `red_source_info` of the workload, the agent on its nodes \
               (`nodewick doctor`, `nodewick why <pod>`).",
        act: "Bring the pods or the traffic back. If it was scaled to zero or removed on purpose, silence the alert or remove the \
              objective: neither Prometheus nor the agent knows your intent.",
        ends: "With the first request that is counted. It does not end by itself, however long the outage lasts.",
    },
    Page {
        alert: "SLOBucketMismatch",
        severity: "ticket",
        means: "A latency objective has no data: requests are counted by the application's own histogram, and that has no bucket at the \
                threshold. Interpolating between buckets would be wrong by more than most budgets (20 % bad at 0.1 s and 0.5 % at 0.25 s were \
                the same traffic).",
        look: "1. `group by (le) (red_request_duration_seconds_bucket{workload=\"…\"})` shows the buckets that exist.\n\
               2. `red_source_info{workload=\"…\"}` shows where the figures come from.",
        act: "Add the threshold to the application's buckets (prom-client: `buckets: […, 0.2, …]`), or let the agent count access lines, \
              which is exact at every threshold: `[red] source = \"log\"`. Or choose a threshold that is a bucket.",
        ends: "When the bucket exists, or access lines are counted.",
    },
    Page {
        alert: "SLORuleMissing",
        severity: "ticket",
        means: "An agent counts an objective (`slo_events_total`), and no rules for its `slo_id` are loaded here: it never alerts.",
        look: "1. `count by (slo_id) (slo_events_total) unless on (slo_id) slo:info` lists them.\n\
               2. Was it declared by a pod's annotation, or in a config that was not rendered?",
        act: "Render the rules from the config that the agents run with (`nodewick slo render`) and load them.",
        ends: "When the rules are loaded.",
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
