//! The fault suite: each row of the fault table as a test against the real agent.
//!
//! In: a make-believe node under load (`node`), a Loki in the test's process, and one fault per row. Out: an assertion
//! and a record of the row (`report`), from which `make soak` renders the scoreboard. Small and short by default, so that
//! all rows run with every change; `NODEWICK_SOAK=1` runs them at the standard load.
#![allow(dead_code, unreachable_pub, reason = "a part of the harness serves rows of one kind only")]

#[path = "../support/mod.rs"]
mod support;

mod gate;
mod line;
mod machine;
mod node;
mod oracle;
mod report;
mod rig;
mod rows_backend;
mod rows_clients;
mod rows_files;
mod rows_hostile;
mod rows_kube;
mod rows_process;
mod rows_scrape;
mod rows_state;
mod secure;
