//! From bytes on disk to sealed batches.

pub mod checkpoint;
pub mod copies;
pub mod env;
pub mod frame;
pub mod ingest;
pub mod inherit;
pub mod os;
pub mod parse;
pub mod process;
pub mod stamp;
