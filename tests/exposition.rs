//! The exposition parser against what Prometheus does: its own cases as a table, real dumps, and pages made at random.

#[path = "exposition/dumps.rs"]
mod dumps;
#[path = "exposition/metadata.rs"]
mod metadata;
#[path = "exposition/support.rs"]
mod support;
#[path = "exposition/table.rs"]
mod table;
