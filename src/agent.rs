//! Wiring: a [`Config`] becomes tasks.
//!
//! In: a loaded config. Out: the end of the process. What can be refused at the start is refused here, before anything
//! runs: a memory bound that the container does not grant, a port in use. A state directory that cannot be written is
//! not one of them: the agent runs degraded and not ready, and says so.

use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use crate::admin::{Admin, BindError};
use crate::config::Config;
use crate::config::memory::{TooLarge, cgroup_limit};
use crate::health::Health;
use crate::supervise::{self, Deadlines, Failure, Outcome, Supervisor};

/// The agent cannot start, or ended by a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container grants less memory than the config may need.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// The config names an address that is none.
    #[error("[admin] listen: {0}")]
    Listen(String),
    /// The machines' listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The process cannot listen to signals.
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] std::io::Error),
    /// A task ended in a way that ends the process.
    #[error(transparent)]
    Task(#[from] Failure),
}

/// How often the directories are looked at again for the health page.
const RECHECK: Duration = Duration::from_secs(10);

/// Runs the agent until it is asked to end.
pub async fn run(config: Config) -> Result<Outcome, Error> {
    config.memory_bound().fits(cgroup_limit())?;
    let asked = supervise::asked_to_end().await.map_err(Error::Signals)?;
    let admin = match config.admin.address().map_err(Error::Listen)? {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let health = Health::new();
    let mut supervisor = Supervisor::new();
    if let Some(admin) = admin {
        info!(address = %admin.address(), "listening for machines: metrics and health");
        let health = health.clone();
        supervisor.attend("admin", |leave| admin.serve(health, leave));
    }
    let directories = watch_directories(config.clone(), health.clone());
    supervisor.attend("directories", |leave| async move {
        tokio::select! {
            () = leave.cancelled() => {}
            () = directories => {}
        }
        Ok::<_, std::convert::Infallible>(())
    });
    Ok(supervisor.run(asked, Deadlines::default()).await?)
}

/// Keeps the checks of the directories that the agent lives from.
async fn watch_directories(config: Config, health: Health) {
    let state = health.check("state_dir");
    let logs = health.check("logs_root");
    let mut before = None;
    loop {
        let now = (state_dir_problem(&config.agent.state_dir), logs_root_problem(&config.logs.root));
        if before.as_ref() != Some(&now) {
            match &now.0 {
                None => state.pass(),
                Some(problem) => {
                    warn!(path = %config.agent.state_dir.display(), problem, "the state directory cannot be used");
                    state.fail(problem);
                }
            }
            match &now.1 {
                None => logs.pass(),
                Some(problem) => {
                    warn!(path = %config.logs.root.display(), problem, "the log root cannot be read");
                    logs.fail(problem);
                }
            }
            before = Some(now);
        }
        tokio::time::sleep(RECHECK).await;
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
