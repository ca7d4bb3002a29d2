//! `docs/reference/annotations.md`, rendered from the tables that the code uses.
//!
//! In: [`annotations::TABLE`] and the limits. Out: Markdown. A test holds the committed file against it.

use std::fmt::Write as _;

use super::annotations::{self, FLUENT_BIT, KEPT, PREFIX, RESOURCE};
use super::resolve::ENVIRONMENT_LABELS;

/// The whole page.
pub fn annotations_reference() -> String {
    let mut out = String::from(
        "<!-- Rendered from the code by `make render`; change the code, not this file. -->\n\
         # Annotations reference\n\n\
         Annotations of a pod, or of its namespace for all pods in it, say what becomes of their logs. They hold from the\n\
         moment they are changed, without a restart; tenant, service and environment are fixed with the first line of a\n\
         container instance and change with the next one.\n\n\
         ## How logs are treated\n\n\
         | annotation | values | default | what |\n|---|---|---|---|\n",
    );
    for row in annotations::TABLE {
        let _ = writeln!(out, "| `{PREFIX}{}` | {} | {} | {} |", row.key, row.values, row.default, row.what);
    }
    let _ = write!(
        out,
        "\nEach of them followed by `.<container>` is about that container alone: `{PREFIX}logs.istio-proxy: \"off\"`.\n\
         The name must be exactly a container's.\n\n\
         The first one that is there holds: the pod's about the container, the pod's, the namespace's about the container,\n\
         the namespace's. A value that cannot be used is as good as absent, is told with the place and the fix, and never\n\
         stops the logs. Values have up to {} bytes. Quote them: YAML reads a bare `on` as a boolean, which Kubernetes\n\
         refuses.\n\n\
         `{FLUENT_BIT}exclude: \"true\"` switches logs off as `{PREFIX}logs: \"off\"` does, which stands before it on the\n\
         same object; `{FLUENT_BIT}exclude-<container>` for one container. `exclude_stdout` and `exclude_stderr` hold only\n\
         together: one stream alone is dropped by a `[process.drop]` rule.\n\n",
        annotations::MAX_VALUE,
    );
    let _ = write!(
        out,
        "## Resource attributes\n\n\
         `{RESOURCE}<key>: <value>` becomes the resource attribute `<key>`, and stands before every other source of it. The\n\
         attributes that say where a line comes from (cluster, node, namespace, pod, container) cannot be set. A pod has\n\
         up to {} of them, of {} bytes together.\n\n\
         | attribute | the first of |\n|---|---|\n\
         | `service.name` | annotation; labels `app.kubernetes.io/instance`, `app.kubernetes.io/name`; the names of Deployment (or Argo Rollout), ReplicaSet, StatefulSet, DaemonSet, CronJob, Job, pod, container |\n\
         | `service.version` | annotation; label `app.kubernetes.io/version`; the image's tag and digest |\n\
         | `service.namespace` | annotation; the namespace |\n\
         | `service.instance.id` | annotation; `<namespace>.<pod>.<container>` |\n\
         | `deployment.environment.name` | `[agent] environment`; annotation; labels {} of the pod, then of the namespace |\n\
         | `k8s.deployment.name`, `k8s.replicaset.name`, `k8s.statefulset.name`, `k8s.daemonset.name`, `k8s.cronjob.name`, `k8s.job.name` | annotation; the pod's controller |\n\
         | `container.image.name`, `container.image.tags` | annotation; the container's image in the pod's spec |\n\n\
         The order is that of the OpenTelemetry semantic conventions. No right to read Deployments or Jobs is needed: a\n\
         ReplicaSet is a Deployment's where its name ends in the pod's `pod-template-hash`, a Job a CronJob's where its name\n\
         ends in the minute at which it was due.\n\n",
        annotations::MAX_ATTRIBUTES,
        annotations::MAX_ATTRIBUTE_BYTES,
        ENVIRONMENT_LABELS.map(|name| format!("`{name}`")).join(", "),
    );
    let _ = writeln!(
        out,
        "## Objectives\n\n\
         | annotation | values | default | what |\n|---|---|---|---|\n\
         | `slo.nodewick.dev/availability` | `99.95%/30d`, `99.95%` | none | Share of requests that are answered without a 5xx. |\n\
         | `slo.nodewick.dev/latency` | `99% < 200ms / 30d`, `99% < 200ms` | none | Share of requests that take no longer. |\n\
         | `slo.nodewick.dev/mode` | `observe`, `alert` | `[slo.defaults] mode` | Whether rules that are rendered of it call somebody. |\n\
         | `slo.nodewick.dev/owner` | text | `[slo.defaults] owner` | Team that alerts name. |\n\
         | `slo.nodewick.dev/runbook` | an address | the alert's page | Its own runbook. |\n\n\
         Windows are 7d, 28d, 30d and 90d; without one that of `[slo.defaults]` holds. The newest pod of a workload decides, and\n\
         the config's word stands before it ([how they are counted](../explanation/objectives.md)). What cannot be honoured is\n\
         no objective: `nodewick why <pod>` says what is wrong with it.\n\n\
         ## Kept for others\n\n\
         Annotations that begin with {} are kept as they are, for scraping and SLOs: up to {} bytes each, {} of one pod.",
        KEPT[1..].iter().map(|prefix| format!("`{prefix}`")).collect::<Vec<_>>().join(" or "),
        annotations::MAX_KEPT_VALUE,
        annotations::MAX_KEPT,
    );
    out
}
