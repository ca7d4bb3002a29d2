//! What the integration tests share: real services, the runtime's log files, the real agent, make-believe backends.
//!
//! Each test program compiles this module anew and uses its own part of it, hence the `allow`.
#![allow(dead_code, unreachable_pub)]

pub mod agent;
pub mod alertmanager;
pub mod cri_writer;
pub mod fake_kube;
pub mod fake_loki;
pub mod measured;
pub mod netns;
pub mod otlp;
pub mod pod_servers;
pub mod prometheus;
pub mod remote_write;
pub mod services;
pub mod tee;
