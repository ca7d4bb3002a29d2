//! The exposition parser against what Prometheus does: its own cases as a table, real dumps, and pages made at random.

#[path = "exposition/cost.rs"]
mod cost;
#[path = "exposition/dumps.rs"]
mod dumps;
#[path = "exposition/messages.rs"]
mod messages;
#[path = "exposition/metadata.rs"]
mod metadata;
#[path = "exposition/protobuf.rs"]
mod protobuf;
#[path = "exposition/random.rs"]
mod random;
#[path = "exposition/support.rs"]
mod support;
#[path = "exposition/table.rs"]
mod table;
