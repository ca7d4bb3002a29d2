//! Grafana dashboards: what people look at, as one table of panels in code.
//!
//! In: nothing but the tables of this module. Out: [`files`], classic dashboard JSON and provisioning files in a fixed order.
//! Invariant: the same program gives the same bytes; a panel has a title, a description that says what to do, a unit and
//! queries over metrics that somebody exports ([`metrics::EXTERNAL`] lists what the agent does not).

mod agent;
mod cluster;
mod json;
mod logs;
pub mod metrics;
mod model;
mod nodejs;
mod oncall;
mod promql;
mod provisioning;
mod red;
mod service;
mod slo;
mod slo_detail;

pub use crate::data::rendered::File;
pub use model::{Board, Column, Kind, Level, Need, Panel, Query, Row, Source, Variable};

/// The dashboards, in the order in which a reader meets them.
pub fn boards() -> Vec<Board> {
    vec![
        oncall::board(),
        slo::board(),
        slo_detail::board(),
        red::board(),
        service::board(),
        nodejs::board(),
        logs::board(),
        cluster::board(),
        agent::board(),
    ]
}

/// What Grafana calls deploys: expressions whose value is a time in milliseconds.
pub fn deploys() -> String {
    promql::text(json::DEPLOYS)
}

/// What shows as an alert on every dashboard.
pub fn alerts() -> String {
    promql::text(json::ALERTS)
}

/// `grafana/<uid>.json` for each dashboard, then `provisioning/…`.
pub fn files() -> Vec<File> {
    let boards = boards()
        .into_iter()
        .map(|board| File { path: format!("grafana/{}.json", board.uid), text: json::render(&board) });
    boards.chain(provisioning::files()).collect()
}

/// `dashboards/<uid>.json` for those that are about objectives.
pub fn of_objectives() -> Vec<File> {
    let of_slo = boards().into_iter().filter(|board| board.uid.starts_with("nodewick-slo-"));
    let file =
        |board: Board| File { path: format!("dashboards/{}.json", board.uid), text: json::render(&board) };
    of_slo.map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_come_out_twice() {
        assert_eq!(files(), files());
    }

    #[test]
    fn there_are_nine_dashboards_and_how_to_provision_them() {
        let paths: Vec<String> = files().into_iter().map(|file| file.path).collect();
        assert_eq!(
            paths,
            [
                "grafana/nodewick-oncall.json",
                "grafana/nodewick-slo-overview.json",
                "grafana/nodewick-slo-detail.json",
                "grafana/nodewick-red-overview.json",
                "grafana/nodewick-service.json",
                "grafana/nodewick-nodejs.json",
                "grafana/nodewick-logs.json",
                "grafana/nodewick-cluster.json",
                "grafana/nodewick-agent.json",
                "provisioning/dashboards/nodewick.yaml",
                "provisioning/datasources/nodewick.yaml",
            ]
        );
    }
}
