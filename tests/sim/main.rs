//! A seeded simulation of a node, an agent and a Loki, and what must hold in each: no line lost, none stored twice,
//! none changed, none under another's name.
//!
//! `NODEWICK_SIM_SEED=<n>` replays one seed with its trace; `NODEWICK_SIM_SEEDS=<count>` runs that many fresh ones.

#![allow(unreachable_pub, missing_docs, reason = "one binary; what is not plain is told")]
#![allow(clippy::disallowed_methods, clippy::field_reassign_with_default)]

mod chance;
mod disk;
mod entrance;
mod loki;
mod oracle;
mod plan;
mod recorder;
mod red;
mod rows;
mod run;
mod world;

use std::panic::AssertUnwindSafe;

use parking_lot::RwLock;
use plan::{Outcome, Plan};
use run::Sim;

/// The agent's metrics belong to the process: who looks at them runs alone.
static METRICS: RwLock<()> = RwLock::new(());

/// Runs a plan; on failure once more with a trace.
fn attempt(make: &dyn Fn() -> Sim) -> Result<Outcome, String> {
    let once = || {
        std::panic::catch_unwind(AssertUnwindSafe(|| make().run())).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Err(format!("panic: {text}"))
        })
    };
    let first = once();
    let Err(failure) = first else { return first };
    chance::begin_trace();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(|| chance::TraceWriter)
        .finish();
    let again = tracing::subscriber::with_default(subscriber, once);
    let trace = chance::end_trace().join("\n");
    let same =
        if again.as_ref().err() == Some(&failure) { "" } else { "\n(the traced run went another way)" };
    Err(format!("{trace}\n{failure}{same}"))
}

/// Requests that were counted, and those that were gone before they could be counted again.
fn random_seed(seed: u64) -> (u64, u64) {
    let _shared = METRICS.read();
    match attempt(&|| Sim::new(Plan::random(seed))) {
        Ok(outcome) => (outcome.requests_counted, outcome.requests_missed),
        Err(failure) => {
            panic!(
                "{failure}\n{:?}\nreplay: NODEWICK_SIM_SEED={seed} cargo test --test sim",
                Plan::random(seed)
            );
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds that every run goes through. Fresh ones are for `NODEWICK_SIM_SEEDS`: a gate must not depend on chance.
const FIXED: u64 = 200;

/// Seeds that failed once. 274: a spill that a power loss brought back misnumbered the files that were left. 978: a
/// read and then a look at the size failed, and a rotated file counted as read to its end. 274 and 344: the checkpoint was
/// damaged, and a file between the spill and the disk was gone. 424: a power loss brought a spill back that was delivered
/// and counted. 505: a look failed when a container ended, and an open line was cut in two. 20053, 20076: requests behind
/// a line that stays open until its log is over.
const FAILED_ONCE: &[u64] = &[274, 344, 424, 505, 978, 20053, 20076];

#[test]
fn nothing_is_lost_whatever_the_seed() {
    if let Some(seed) = number("NODEWICK_SIM_SEED") {
        random_seed(seed);
        return;
    }
    let (mut counted, mut missed) = (0, 0);
    for seed in (0..FIXED).chain(FAILED_ONCE.iter().copied()) {
        let of_seed = random_seed(seed);
        (counted, missed) = (counted + of_seed.0, missed + of_seed.1);
    }
    // Kills with power losses, downtimes and rotations every two seconds: far more than what is lost of logs that live.
    assert!(counted > 10_000 && missed * 20 < counted, "{missed} of {counted} requests were missed");
}

#[test]
fn nothing_is_lost_with_fresh_seeds() {
    use std::hash::{BuildHasher as _, Hasher as _};
    let Some(count) = number("NODEWICK_SIM_SEEDS") else { return };
    let first = std::hash::RandomState::new().build_hasher().finish() >> 16;
    let first = number("NODEWICK_SIM_FROM").unwrap_or(first);
    let mut failures = Vec::new();
    for seed in first..first + count {
        let _shared = METRICS.read();
        if let Err(failure) = attempt(&|| Sim::new(Plan::random(seed))) {
            let short = failure.lines().rfind(|line| !line.starts_with("  ")).unwrap_or_default().to_owned();
            failures.push(format!("NODEWICK_SIM_SEED={seed} cargo test --test sim   # {short}"));
            if failures.len() == 1 {
                failures.insert(0, failure);
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
