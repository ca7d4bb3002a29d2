//! nodewick: one telemetry agent per Kubernetes node.
#![doc = "```text"]
//! /var/log/pods ► discover ► tail ► frame ► parse ► process ► seal ═► deliver ► loki | otlp | local | stdout
//!                   ▲ reserve(budget), one OS thread, no await     (tokio)      │
//!                   └─ checkpoint ◄─ Ledger ◄──── Ticket ◄──── Verdict ◄────────┘
//!
//! pods, static ► targets ► guard ► pace, fetch ═► exposition ► series ► page ► remote_write | otlp | /metrics/workloads
//!                                     (tokio)   raw page ▼       ▲    one OS thread, no await
//!                                   access lines ═► red ─┴─ host ┘
#![doc = "```"]
//! The modules below stand in the order of the flow.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod admin;
pub mod agent;
pub mod alerts;
pub mod config;
pub mod dashboards;
pub mod data;
pub mod demo;
pub mod doctor;
pub mod durable;
pub mod exec;
pub mod health;
pub mod history;
pub mod host;
pub mod inspect;
pub mod kube;
pub mod live;
pub mod logs;
pub mod metrics;
pub mod migrate;
pub mod overview;
pub mod red;
pub mod scrape;
pub mod search;
pub mod sink;
pub mod slo;
pub mod supervise;
pub mod tail;
pub mod telemetry;
mod tls;
pub mod top;
pub mod ui;
pub mod version;
pub mod why;
