//! The watch of the node's pods, kept while pipelines come and go.
//!
//! In: each config that comes into force. Out: a look at the node's pods for the pipeline that it starts, and the
//! failure of the watch. Invariants: there is one watch at most; a config that says the same of it keeps it and all that
//! it knows, so that a reload asks the API server nothing and lets no log wait; a watch that has ended has nothing more
//! to say on the health page.

use std::convert::Infallible;
use std::path::PathBuf;

use crate::config::Config;
use crate::data::pods::{self, Pods};
use crate::health::Health;
use crate::kube;
use crate::supervise::{Deadlines, Failure, Outcome, Supervisor};

/// What a watch is started with: another one of these is another watch.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    config: kube::Config,
    node: String,
    log_root: PathBuf,
}

impl Wanted {
    /// What the config asks for; `None` when nobody is to be asked.
    fn of(config: &Config) -> Option<Self> {
        // A sidecar and a host without Kubernetes have files only.
        if config.kube.effective_mode() == kube::Mode::Path || !config.logs.reads_pods() {
            return None;
        }
        Some(Self {
            // How long logs wait is their reader's affair.
            config: kube::Config { wait: kube::Config::default().wait, ..config.kube.clone() },
            node: config.agent.node.clone(),
            log_root: config.logs.root.clone(),
        })
    }
}

/// See the module's header.
pub(super) struct NodePods {
    health: Health,
    supervisor: Supervisor,
    current: Option<(Wanted, Pods)>,
}

impl NodePods {
    /// Nobody is asked yet.
    pub(super) fn new(health: Health) -> Self {
        Self { health, supervisor: Supervisor::new(), current: None }
    }

    /// The pods as `config` wants them watched, by the watch that runs where it wants the same. `None` where logs are
    /// what their paths say.
    pub(super) async fn follow(&mut self, config: &Config) -> Result<Option<Pods>, Failure> {
        let wanted = Wanted::of(config);
        if let (Some(wanted), Some((current, pods))) = (&wanted, &self.current)
            && wanted == current
        {
            return Ok(Some(pods.clone()));
        }
        self.end().await?;
        let Some(wanted) = wanted else { return Ok(None) };
        let (writer, pods) = pods::directory();
        let following = kube::Following {
            config: wanted.config.clone(),
            node: wanted.node.clone(),
            log_root: wanted.log_root.clone(),
            patience: kube::Patience::default(),
        };
        let health = self.health.clone();
        self.supervisor.attend("kube", |leave| async move {
            tokio::select! {
                () = leave.cancelled() => {}
                () = following.run(writer, health) => {}
            }
            Ok::<_, Infallible>(())
        });
        self.current = Some((wanted, pods.clone()));
        Ok(Some(pods))
    }

    /// Waits until the watch fails; for ever while it runs and where there is none.
    pub(super) async fn failure(&mut self) -> Failure {
        match self.supervisor.until(std::future::pending::<Infallible>()).await {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    /// Ends the watch, if one runs, and takes back what it had to say.
    pub(super) async fn end(&mut self) -> Result<Outcome, Failure> {
        self.current = None;
        let ended = std::mem::take(&mut self.supervisor).end(Deadlines::default()).await;
        self.health.note(kube::NOTE, None);
        ended
    }
}
