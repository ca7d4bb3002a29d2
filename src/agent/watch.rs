//! The health checks that the wiring keeps: the directories that the agent lives from, and the thread that reads.
//!
//! In: what the reading thread says of itself, and a look at the directories. Out: checks that pass or fail with what to do
//! about it, and the metrics of the ledger. Invariant: a check changes only when what it is about has changed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::config::Config;
use crate::health::Health;
use crate::logs::driver::Status;
use crate::logs::publish::Publisher;
use crate::logs::registry::Registry;

/// How often the directories and the reading thread are looked at for the health page.
const RECHECK: Duration = Duration::from_secs(2);
/// The reading thread comes round every tick; this long without means that it hangs.
const STUCK: Duration = Duration::from_secs(60);

/// Keeps the health checks (the directories that the agent lives from, and the thread that reads), and the metrics of
/// the ledger.
pub(super) async fn watch(
    config: Config,
    status: Arc<Status>,
    registry: Arc<Registry>,
    health: Health,
    again: bool,
) {
    let mut publisher = Publisher::default();
    let (state, logs) = (health.check("state_dir"), health.check("logs_root"));
    let pulse = health.heartbeat("logs", STUCK);
    let mut before = None;
    let begun = Instant::now();
    loop {
        if status.heartbeat_age() < STUCK / 2 {
            pulse.beat();
        }
        publisher.publish(&registry);
        let starting = again && !status.first_pass_done() && begun.elapsed() < STUCK;
        let now = (status.state_durable(), status.root_readable() && status.first_pass_done());
        if before != Some(now) && !starting {
            before = Some(now);
            match now.0 {
                true => state.pass(),
                false => state.fail(
                    state_dir_problem(&config.agent.state_dir)
                        .unwrap_or_else(|| "positions cannot be made durable yet".to_owned()),
                ),
            }
            let problem = if config.logs.reads_pods() { logs_root_problem(&config.logs.root) } else { None };
            match problem {
                None if now.1 => logs.pass(),
                None => logs.fail("the log root has not been listed yet"),
                Some(problem) => {
                    warn!(root = %config.logs.root.display(), problem, "the log root cannot be read");
                    logs.fail(problem);
                }
            }
        }
        let soon = Duration::from_millis(50);
        tokio::time::sleep(if now.1 && now.0 { RECHECK } else { soon.max(RECHECK / 8) }).await;
    }
}

/// Why checkpoints cannot be kept in `path`; `None` when they can. Makes the directory (mode 0700) if it is missing.
pub fn state_dir_problem(path: &Path) -> Option<String> {
    use std::os::unix::fs::DirBuilderExt;
    let hint =
        "mount a writable directory there or change [agent] state_dir; until then a restart reads logs again";
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    if let Err(cause) = made {
        return Some(format!("cannot make {}: {cause}; {hint}", path.display()));
    }
    let probe = path.join(format!(".probe-{}", std::process::id()));
    match std::fs::write(&probe, b"") {
        Ok(()) => {
            // Left behind, it would only be an empty file of ours.
            let _ = std::fs::remove_file(&probe);
            None
        }
        Err(cause) => Some(format!("cannot write in {}: {cause}; {hint}", path.display())),
    }
}

/// Why no logs can be found in `path`; `None` when they can.
pub fn logs_root_problem(path: &Path) -> Option<String> {
    let hint = match std::fs::read_dir(path) {
        Ok(_) => return None,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            format!("{cause}; mount the node's /var/log/pods or change [logs] root")
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("{cause}; run as uid 0 (no capability is needed), the kubelet's logs belong to root")
        }
        Err(cause) => format!("{cause}; change [logs] root"),
    };
    Some(format!("cannot read {}: {hint}", path.display()))
}
