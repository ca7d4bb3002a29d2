//! The remote_write sink against real receivers (Prometheus, VictoriaMetrics) and against one that answers as it is told.

mod support;

#[path = "remote_write/answers.rs"]
mod answers;
#[path = "remote_write/pages.rs"]
mod pages;
#[path = "remote_write/real.rs"]
mod real;
#[path = "remote_write/wire.rs"]
mod wire;
