//! Every fuzz target over every seed and every former crasher, with the ordinary tests: no fuzzer needed.
//!
//! `make fuzz` looks for new ones; see docs/how-to/fuzz.md.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use targets::TARGETS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names in a directory of `fuzz/`.
fn names(directory: &str) -> BTreeSet<String> {
    std::fs::read_dir(root().join("fuzz").join(directory))
        .expect("a directory")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect()
}

/// Runs a target over its seeds; the names of those that fail.
fn failing(target: &str, body: fn(&[u8])) -> Vec<String> {
    let mut seeds = targets::seeds::of(target, root());
    for name in names(&format!("seeds/{target}")) {
        let path = root().join("fuzz/seeds").join(target).join(&name);
        seeds.push((format!("fuzz/seeds/{target}/{name}"), std::fs::read(path).expect("readable")));
    }
    assert!(seeds.len() >= 4, "{target} has {} seeds", seeds.len());
    let fails = |(name, bytes): (String, Vec<u8>)| catch_unwind(|| body(&bytes)).is_err().then_some(name);
    seeds.into_iter().filter_map(fails).collect()
}

macro_rules! every_seed_passes {
    ($($test:ident: $target:literal;)*) => {
        $(#[test]
        fn $test() {
            let (_, body) = TARGETS.iter().find(|(name, _)| *name == $target).expect("a target");
            let failing = failing($target, *body);
            assert!(failing.is_empty(), "seeds that fail: {failing:?}");
        })*

        const TESTED: &[&str] = &[$($target),*];
    };
}

every_seed_passes! {
    checkpoints_of_the_seeds_are_recovered: "checkpoint";
    configs_of_the_seeds_load_or_are_explained: "config";
    expositions_of_the_seeds_are_read: "exposition";
    logs_of_the_seeds_are_framed: "frame";
    compressed_logs_of_the_seeds_are_read: "gz";
    lines_of_the_seeds_are_read_alike: "json";
    answers_of_the_seeds_are_judged: "judge";
    lines_of_the_seeds_are_redacted: "redact";
    spills_of_the_seeds_are_taken_up: "spill";
    stamps_of_the_seeds_are_read_alike: "stamp";
}

#[test]
fn every_target_has_a_file_seeds_and_a_test() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files: BTreeSet<String> = names("targets")
        .iter()
        .filter_map(|name| name.strip_suffix(".rs"))
        .filter(|name| !["mod", "seeds"].contains(name))
        .map(str::to_owned)
        .collect();
    assert_eq!(files, known);
    assert_eq!(names("seeds"), known);
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), known);
}
