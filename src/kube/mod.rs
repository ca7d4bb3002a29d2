//! The pods of this node, as the Kubernetes API or the node's kubelet tells of them.
//!
//! In: pod objects from a watch or a poll. Out: what logs, scraping and SLOs need of them, in
//! [`data::pods`](crate::data::pods). Invariants: only this node's pods are asked for; an object is stripped on receipt;
//! no log waits for the API longer than it may, and none is lost because the API is away.

pub mod annotations;
mod exits;
mod image;
mod owners;
mod problem;
pub mod reference;
pub mod resolve;
