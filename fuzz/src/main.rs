//! One libFuzzer binary for all targets: `NODEWICK_FUZZ` names the one to run, so that the agent is built and linked once.
//!
//! With `NODEWICK_FUZZ_SEEDS` it writes the target's derived seeds into that directory and ends.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[path = "../targets/mod.rs"]
mod targets;

static BODY: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| {
    BODY.get().expect("set at the start")(data);
});

fn begin() {
    let wanted = std::env::var("NODEWICK_FUZZ").unwrap_or_default();
    let Some((name, body)) = targets::TARGETS.iter().find(|(name, _)| *name == wanted) else {
        let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("NODEWICK_FUZZ={wanted:?} is none of: {}", names.join(" "));
        std::process::exit(2);
    };
    if let Some(dir) = std::env::var_os("NODEWICK_FUZZ_SEEDS").map(PathBuf::from) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (at, (_, seed)) in targets::seeds::of(name, &root).into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{at}")), seed).expect("a directory that can be written");
        }
        std::process::exit(0);
    }
    let _ = BODY.set(*body);
}
