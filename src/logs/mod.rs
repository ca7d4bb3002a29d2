//! From bytes on disk to sealed batches.

pub mod parse;
pub mod process;
