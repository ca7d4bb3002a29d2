//! The fuzz targets: for each a name and a function that panics when a property does not hold.
//!
//! Included twice: by the libFuzzer binary (`fuzz/src/main.rs`) and by `tests/fuzz_seeds.rs`, which replays every seed and every
//! former crasher with the ordinary tests. So nothing here may depend on the fuzzer.

mod checkpoint;
mod config;
mod exposition;
mod frame;
mod gz;
mod json;
mod judge;
mod redact;
pub(crate) mod seeds;
mod spill;
mod stamp;

/// A target: its name, which is that of its file and of its directory of seeds, and its body.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    ("checkpoint", checkpoint::run),
    ("config", config::run),
    ("exposition", exposition::run),
    ("frame", frame::run),
    ("gz", gz::run),
    ("json", json::run),
    ("judge", judge::run),
    ("redact", redact::run),
    ("spill", spill::run),
    ("stamp", stamp::run),
];

/// Takes the last `N` bytes off: what steers a target stands behind the text, so that a seed is an ordinary file.
fn split_control<const N: usize>(data: &[u8]) -> Option<(&[u8], [u8; N])> {
    let (text, control) = data.split_last_chunk::<N>()?;
    Some((text, *control))
}

/// A directory in memory where there is one: syncing to a disk would cost more than all else.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for temporary files")
}
