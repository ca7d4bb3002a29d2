//! Pages about alerts on workloads.

use super::Page;

pub(super) const PAGES: &[Page] = &[
    Page {
        alert: "WorkloadScrapeFailing",
        means: "More than half of a workload's targets have failed for five minutes. Its own metrics are missing, and objectives that are measured by \
                them have no data.",
        see: "1. `up{namespace=\"<namespace>\",workload=\"<workload>\"} == 0`: which pods.\n\
              2. `nodewick why <pod>` and `/targets` of the agent on its node: refused, timeout, status, not a metrics page.\n\
              3. `kubectl -n <namespace> exec <pod> -- wget -qO- localhost:<port>/metrics`.",
        act: "Correct port or path (`prometheus.io/port`, `prometheus.io/path`), let the NetworkPolicy admit the agent, or mend the endpoint.",
        false_alarm: "A workload that is being rolled out and starts slowly.",
    },
    Page {
        alert: "WorkloadPanic",
        means: "A line of the workload tells of a panic or of an exception that nobody caught: Go's `panic:` and `http: panic serving`, Rust's \
                `panicked at`, an uncaught traceback of Python, `Exception in thread` of Java, an uncaught error of Node.js, .NET's \
                `Unhandled exception`, PHP's `Fatal error`.",
        see: "1. LogQL: `{namespace=\"<namespace>\", service_name=\"<service>\"} | level =~ \"error|fatal\"` around the time; the whole trace is one record.\n\
              2. `kubectl -n <namespace> get pods`: restarts. `nodewick why <pod>` shows how the container ended.",
        act: "It is a bug in the program. Roll back if it came with a release.",
        false_alarm: "A program that prints other people's traces as they are, such as a test runner.",
    },
    Page {
        alert: "WorkloadErrorBurst",
        means: "More than 50 lines of level error or fatal in five minutes, and more than ten times the mean of the six hours before the last hour.",
        see: "1. `sum by (level) (rate(nodewick_workload_lines_total{namespace=\"<namespace>\",workload=\"<workload>\"}[5m]))`.\n\
              2. The lines: `{namespace=\"<namespace>\", service_name=\"<service>\"} | level =~ \"error|fatal\"`; the dashboard `nodewick-logs` groups them.\n\
              3. Do users notice? `slo:burn_rate:ratio_rate1h` of its objectives.",
        act: "Look at what changed at that time: a release, a dependency, traffic. If users are not concerned it can wait for working hours.",
        false_alarm: "Programs that log at level error what is none. Counting is by level alone.",
    },
    Page {
        alert: "WorkloadNewErrorPattern",
        means: "The workload logs an error whose message was not among those seen before: new since a release, or a fault that never happened. Ids, \
                numbers and times in the message make no new pattern.",
        see: "The lines of level error since a quarter of an hour before: `{namespace=\"<namespace>\", service_name=\"<service>\"} | level =~ \"error|fatal\"`.",
        act: "Read it; it is usually the first sign of what pages later.",
        false_alarm: "Each agent learns for ten minutes, per workload and for itself, and begins anew with a restart: after that a rare old error is new \
                      to it. Messages with names of people or things in them are many patterns; 64 a workload are kept, and then none is new.",
    },
    Page {
        alert: "WorkloadLogFlood",
        means: "The workload has written more than 1 MiB of lines a second for ten minutes, and more than five times its mean of the six hours before the last.",
        see: "1. `topk(5, sum by (namespace, workload) (rate(nodewick_workload_log_bytes_total[10m])))`.\n\
              2. `sum by (level) (rate(nodewick_workload_lines_total{workload=\"<workload>\"}[10m]))`: debug was left on?",
        act: "Lower its level, mend the loop that logs, or bound it: `[process.limit]`, `[process.sample]`, `[process.dedup]`, or its pod's annotations.",
        false_alarm: "A batch job that rarely runs and always writes much.",
    },
    Page {
        alert: "WorkloadSilent",
        means: "The workload wrote at least ten lines in every quarter of an hour for three hours and none in the last fifteen minutes, while its \
                containers are still there. It may hang, wait for a lock, or have lost its output.",
        see: "1. `kubectl -n <namespace> get pods`, `kubectl logs --since=20m`: is it the program or the way to us?\n\
              2. `nodewick why <pod>`: read up to where, sent up to where.\n\
              3. `red_requests_total` of the workload: does it still serve?",
        act: "If it hangs, restart it, after taking what explains it (a thread dump, a profile).",
        false_alarm: "Traffic that ends (nights, a queue that runs dry), a log level that was raised, logs that were switched off by annotation. It \
                      ends with the first line, or when its containers are gone.",
    },
    Page {
        alert: "WorkloadSecretLeak",
        means: "Lines of the workload held a key, a token or a password. nodewick redacted them before they left the node; the kubelet's files on the node \
                have them as they were written.",
        see: "1. `sum by (rule) (rate(nodewick_redactions_total[15m]))`: of which kind.\n\
              2. The lines: `{namespace=\"<namespace>\", service_name=\"<service>\"} |= \"[REDACTED:\"`.",
        act: "Mend the logging. Change the secret if others can read the node's files, `kubectl logs`, or another collector's backend.",
        false_alarm: "Texts that only look like a secret: `[process.redact] except` takes a built-in rule out. Rules of your own, e-mail and IP \
                      addresses do not count here.",
    },
    Page {
        alert: "WorkloadUnparsed",
        means: "In more than half of the workload's lines nothing is recognised, neither level nor time nor trace id nor request, and yesterday it was less \
                than a tenth: its log format has changed.",
        see: "1. `nodewick explain` with one of the lines: what is found and why not.\n\
              2. `nodewick_workload_unparsed_records_total` by node: all pods, or those of one release?",
        act: "Take the change of format back, or name the format by annotation (`docs/reference/annotations.md`).",
        false_alarm: "A one-off of much plain text, such as a banner or a dump. With `[record] fields` that leave out the level more lines count as \
                      not recognised.",
    },
    Page {
        alert: "WorkloadHeapExhausted",
        means: "A runtime says that its heap is exhausted: Node.js, Java, Go or Python. It is the runtime's own limit; when the container's limit is \
                reached the kernel kills without a word.",
        see: "1. The lines, and the container's memory limit beside the runtime's (`--max-old-space-size`, `-Xmx`, `GOMEMLIMIT`).\n\
              2. `nodewick-nodejs`: heap used against its limit.",
        act: "Raise the runtime's limit within the container's, or find the leak.",
        false_alarm: "Lines that quote the words, such as documentation that is being indexed.",
    },
    Page {
        alert: "WorkloadDiskFull",
        means: "A program could not write because no space was left: a volume, an `emptyDir` with a limit, or the node's disk.",
        see: "1. `kubectl -n <namespace> exec <pod> -- df -h`.\n2. `kubelet_volume_stats_available_bytes`, `kubectl describe node`: DiskPressure.",
        act: "Make room, or the volume larger.",
        false_alarm: "Lines that quote the words.",
    },
    Page {
        alert: "WorkloadCertificateExpired",
        means: "A program met a certificate that has expired: its own, or that of whom it calls.",
        see: "The line names the peer. `openssl s_client -connect <host:port> </dev/null | openssl x509 -noout -dates`.",
        act: "Renew it, and find why it was not renewed by itself.",
        false_alarm: "Scanners and clients of your own service that present old certificates.",
    },
];
