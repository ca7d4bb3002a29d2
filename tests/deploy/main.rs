//! What an operator applies: the manifests, the chart, the policies, the image's recipe.
//!
//! In: the files of `deploy/`, judged by the field's own tools (`judge.py`: Kubernetes' schemas, Helm's engine, CEL), and
//! the agent itself. Out: facts that hold for every file that is shipped. No cluster is needed.
#![allow(dead_code, unreachable_pub, reason = "the support modules serve several test programs")]
#![allow(clippy::print_stderr, reason = "what is skipped says so")]

#[path = "../support/agent.rs"]
mod agent_process;
mod chart;
mod handover;
mod host_figures;
mod image;
mod judge;
mod manifests;
mod policies;
