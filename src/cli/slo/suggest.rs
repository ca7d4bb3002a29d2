//! `nodewick slo suggest`: objectives that history would have kept, as tables of the config on stdout.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use nodewick::history::{Grid, Labels, Lines};
use nodewick::slo::Window;
use nodewick::slo::config::Defaults;
use nodewick::slo::suggest::{self, Traffic};

use super::print;
use super::prometheus::{Progress, Server, now, runtime};

#[derive(Debug, Args)]
pub(in crate::cli) struct SuggestArgs {
    #[command(flatten)]
    server: Server,
    /// Window of the objectives, and length of the history: 7d, 28d, 30d, 90d.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    window: Window,
    /// Only workloads of this namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// End of the history instead of now: 2026-03-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    to: Option<jiff::Timestamp>,
}

/// Hours of one request: a server reads each sample once, and a day of many pods at a time.
const CHUNK: usize = 24;

pub(super) fn run(args: &SuggestArgs) -> anyhow::Result<ExitCode> {
    let api = args.server.api()?;
    let defaults = Defaults::default();
    let hours = args.window.minutes() as usize / 60;
    let end = args.to.map_or_else(now, jiff::Timestamp::as_second).div_euclid(3_600) * 3_600;
    let grid = Grid { start: end - (hours as i64 - 1) * 3_600, step: 3_600, points: hours };
    let queries = suggest::queries(args.namespace.as_deref(), &defaults);
    let progress = Progress::new(&format!("{} of history", args.window));
    let lines =
        runtime()?.block_on(api.lines(&queries, grid, CHUNK, |done, all| progress.show(done, all)))?;
    drop(progress);
    let traffic = traffic(lines);
    if traffic.is_empty() {
        let of = args
            .namespace
            .as_ref()
            .map(|namespace| format!(" of namespace {namespace:?}"))
            .unwrap_or_default();
        anyhow::bail!(
            "{} has no red_requests_total{of} within {}; is it where the agent's metrics go? nodewick serves them by \
             remote_write, OTLP and /metrics/workloads",
            api.url(),
            args.window
        );
    }
    print(&suggest::toml(&traffic, args.window, hours, &defaults))
}

/// The answers by workload.
fn traffic(lines: Vec<Lines>) -> Vec<Traffic> {
    let mut found: BTreeMap<[String; 3], Traffic> = BTreeMap::new();
    let key = |labels: &Labels| {
        ["cluster", "namespace", "workload"].map(|label| labels.get(label).cloned().unwrap_or_default())
    };
    for (which, lines) in lines.into_iter().enumerate() {
        for (labels, values) in lines {
            let id = key(&labels);
            let one = if which == 0 {
                let [cluster, namespace, workload] = id.clone();
                found.entry(id).or_insert_with(|| Traffic {
                    cluster,
                    namespace,
                    workload,
                    ..Traffic::default()
                })
            } else {
                match found.get_mut(&id) {
                    Some(one) => one,
                    None => continue,
                }
            };
            match which {
                0 => one.events = values,
                1 => one.errors = values,
                _ => {
                    let bound = labels.get("le").and_then(|le| le.parse::<f64>().ok());
                    one.buckets.extend(bound.map(|bound| (bound, values)));
                }
            }
        }
    }
    let mut found: Vec<Traffic> = found.into_values().collect();
    for one in &mut found {
        one.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    found
}
